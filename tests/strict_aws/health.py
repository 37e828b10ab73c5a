"""Targets of load balancers become healthy over the emulator's clock, fail where they shall, and drain when they go."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any

from tests.strict_aws import lifecycle, tags
from tests.strict_aws.errors import AwsError
from tests.strict_aws.wire import Call
from tests.strict_aws.world import World

Key = tuple[str, int]
WORDS = {
    "Elb.InitialHealthChecking": "Initial health checks in progress",
    "Target.FailedHealthChecks": "Health checks failed",
    "Target.DeregistrationInProgress": "Target deregistration is in progress",
    "Target.NotRegistered": "Target is not registered to the target group",
    "Target.NotInUse": "Target group is not configured to receive traffic from the load balancer",
    "Target.InvalidState": "Target is in the stopped or terminated state",
}


@dataclass
class ReplacementImage:
    """Registered `since`; on its way out, draining `until`. `zone`: an address's; `all` outside of the network."""

    since: datetime
    until: datetime | None = None
    zone: str = ""


def group_of(call: Call) -> Any:
    """moto's target group. Raises AwsError where it is not there."""
    from moto.elbv2 import elbv2_backends

    name = call.params["TargetGroupArn"]
    group = elbv2_backends[call.account][call.region].target_groups.get(name)
    if group is None:
        raise AwsError("TargetGroupNotFound", f"Target groups '{name}' not found", 400)
    return group


def targets(world: World, group: Any) -> dict[Key, ReplacementImage]:
    """What is registered or draining, with what moto registered or ended for groups and instances since."""
    held: dict[Key, ReplacementImage] = world.targets.setdefault(group.arn, {})
    for name, port in [key for key, one in held.items() if one.until and one.until <= world.now()]:
        del held[name, port]
    for name, one in list(group.targets.items()):  # by a group of instances
        held.setdefault((name, int(one["Port"])), ReplacementImage(world.now()))
        del group.targets[name]
    for name in list(group.terminated_targets):
        del group.terminated_targets[name]
    return held


def keys(group: Any, asked: list[dict[str, Any]]) -> list[Key]:
    return [(one["Id"], int(one.get("Port", group.port))) for one in asked]


def register(world: World, call: Call) -> dict[str, Any]:
    """Instances must run; what is registered already stays as it is, what drains comes back."""
    group = group_of(call)
    asked = keys(group, call.params["Targets"])
    if group.target_type == "instance":
        running(tags.backend(call.account, call.region), [name for name, _ in asked])
    held = targets(world, group)
    for key, one in zip(asked, call.params["Targets"], strict=True):
        zone = zone_of(call, group, one)
        if key not in held or held[key].until:
            held[key] = ReplacementImage(world.now(), zone=zone)
    return {}


def zone_of(call: Call, group: Any, target: dict[str, Any]) -> str:
    """The zone of an address, by the subnet that it is in. Raises AwsError for one outside that does not say `all`."""
    said = target.get("AvailabilityZone", "")
    if group.target_type != "ip":
        if said:
            raise AwsError("ValidationError", "An Availability Zone cannot be given for targets by instance", 400)
        return ""
    backend, address = tags.backend(call.account, call.region), ip_address(target["Id"])
    subnets = [one for zone in backend.subnets.values() for one in zone.values() if one.vpc_id == group.vpc_id]
    inside = next((one.availability_zone for one in subnets if address in ip_network(one.cidr_block)), "")
    if not inside:  # moto gives some instances of a network addresses of no subnet
        held = (one for one in lifecycle.everyone(backend) if holds(one, target["Id"]) and one.vpc_id == group.vpc_id)
        inside = next((one.placement for one in held), "")
    if not inside and address.version == 4 and said != "all":
        why = f"The IP address '{address}' must have Availability Zone 'all': it is outside of {group.vpc_id}"
        raise AwsError("ValidationError", why, 400)
    return inside or said


def running(backend: Any, names: list[str]) -> None:
    known = {one.id: one for one in lifecycle.everyone(backend)}
    if absent := [name for name in names if name not in known]:
        raise AwsError("InvalidTarget", f"The following targets are not valid instances: '{absent[0]}'", 400)
    if idle := [name for name in names if known[name].state != "running"]:
        said = f"The following targets are not in a running state and cannot be registered: '{idle[0]}'"
        raise AwsError("InvalidTarget", said, 400)


def deregister(world: World, call: Call) -> dict[str, Any]:
    """They drain for the group's deregistration delay; a target that is not there is no error."""
    group = group_of(call)
    held = targets(world, group)
    for one in call.params["Targets"]:
        for key in [key for key in held if key[0] == one["Id"] and one.get("Port", key[1]) == key[1]]:
            drain(world, group, held[key])
    return {}


def drain(world: World, group: Any, target: ReplacementImage) -> None:
    """The target goes, after the delay."""
    delay = float(group.attributes["deregistration_delay.timeout_seconds"])
    target.until = target.until or world.now() + timedelta(seconds=delay)


def drained(world: World, backend: Any, arns: list[str], name: str) -> datetime:
    """Take the instance `name` out of these groups of targets; from when on it has no connections there."""
    from moto.elbv2 import elbv2_backends

    groups = elbv2_backends[backend.account_id][backend.region_name].target_groups
    last = world.now()
    for group in [groups[arn] for arn in arns if arn in groups]:
        for key, target in targets(world, group).items():
            if key[0] == name:
                drain(world, group, target)
                last = max(last, target.until or last)
    return last


def state_of(world: World, backend: Any, group: Any, key: Key) -> tuple[str, str]:
    """State and reason of a target."""
    target = targets(world, group).get(key)
    if target is None:
        return "unused", "Target.NotRegistered"
    if target.until:
        return "draining", "Target.DeregistrationInProgress"
    if not group.load_balancer_arns:
        return "unused", "Target.NotInUse"
    instance = next((one for one in lifecycle.everyone(backend) if key[0] == one.id or holds(one, key[0])), None)
    return checked(world, target, key[0], instance)


def holds(instance: Any, address: str) -> bool:
    """Whether a private address is an instance's that has not ended."""
    if instance.state in {"shutting-down", "terminated"}:
        return False
    return any(address == one["PrivateIpAddress"] for nic in instance.nics.values() for one in nic.private_ip_addresses)


def checked(world: World, target: ReplacementImage, name: str, instance: Any) -> tuple[str, str]:
    """What the health checks of a registered target find; `instance` is None for an address of no instance.

    A group of addresses is not told that an instance has stopped: its health checks fail.
    """
    state = instance.state if instance is not None else "running"
    if state not in {"pending", "running"} and name != instance.id:
        return "unhealthy", "Target.FailedHealthChecks"
    if state not in {"pending", "running"}:
        return "unused", "Target.InvalidState"
    if state == "pending" or not passed(world, target):
        return "initial", "Elb.InitialHealthChecking"
    named = [name, *([instance.image_id] if instance is not None else [])]
    if world.ailments.strike("target", named, target.since, world.now()):
        return "unhealthy", "Target.FailedHealthChecks"
    return "healthy", ""


def passed(world: World, target: ReplacementImage) -> bool:
    return world.now() >= target.since + timedelta(seconds=world.takes["target"])


def describe(world: World, call: Call) -> dict[str, Any]:
    """Of all targets that are registered or draining, or of those named."""
    group, backend = group_of(call), tags.backend(call.account, call.region)
    held = targets(world, group)
    named = call.params.get("Targets")
    shown = []
    for key in keys(group, named) if named else list(held):
        state, reason = state_of(world, backend, group, key)
        health = {"State": state, **({"Reason": reason, "Description": WORDS[reason]} if reason else {})}
        port = str(group.health_check_port)
        port = str(key[1]) if port == "traffic-port" else port
        zone = held[key].zone if key in held else ""
        target = {"Id": key[0], "Port": key[1], **({"AvailabilityZone": zone} if zone else {})}
        shown.append({"Target": target, "HealthCheckPort": port, "TargetHealth": health})
    return {"TargetHealthDescriptions": shown}


RULES = {"RegisterTargets": register, "DeregisterTargets": deregister, "DescribeTargetHealth": describe}
