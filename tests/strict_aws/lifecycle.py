"""Instances change their state over the emulator's clock; status checks take a while, and can fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from tests.strict_aws import listing, tags
from tests.strict_aws.errors import AwsError
from tests.strict_aws.listing import member
from tests.strict_aws.wire import Call
from tests.strict_aws.world import Place, World

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
STATUS = {
    "availability-zone": member("AvailabilityZone"),
    "instance-state-code": member("InstanceState", "Code"),
    "instance-state-name": member("InstanceState", "Name"),
    "instance-status.reachability": member("InstanceStatus", "Details", "Status"),
    "instance-status.status": member("InstanceStatus", "Status"),
    "system-status.reachability": member("SystemStatus", "Details", "Status"),
    "system-status.status": member("SystemStatus", "Status"),
}


def everyone(backend: Any) -> Iterator[Any]:
    """All instances of an account in a region, ended ones too."""
    for reservation in list(backend.reservations.values()):
        yield from reservation.instances


def found(backend: Any, *names: str) -> list[Any]:
    """The instances of these ids. Raises AwsError where one is not there."""
    known = {one.id: one for one in everyone(backend)}
    for name in names:
        if name not in known:
            raise AwsError("InvalidInstanceID.NotFound", f"The instance ID '{name}' does not exist")
    return [known[name] for name in names]


def enter(instance: Any, state: str) -> None:
    instance._state.name, instance._state.code = state, CODES[state]


def begin(world: World, backend: Any, instance: Any) -> None:
    """The instance is pending, and will run, or end when it ails."""
    enter(instance, "pending")
    instance.began, instance.checked = world.now(), None
    instance.launch_time = world.now().replace(tzinfo=None)
    world.after("launch", partial(started, world, backend, instance))


def started(world: World, backend: Any, instance: Any) -> None:
    if instance.state != "pending":
        return
    if ails(world, "launch", instance):
        withdraw(backend, instance)
        ended(world, backend, instance)
        instance.state_reason.code = "Server.InternalError"
        instance.state_reason.message = "Server.InternalError: Internal error on launch"
        return
    instance.start()
    with_addresses(backend)
    check(world, instance)


def check(world: World, instance: Any) -> None:
    """Status checks start again; after a while they know."""
    instance.checked = None
    turn = instance.turn = getattr(instance, "turn", 0) + 1

    def known() -> None:
        if instance.turn == turn:
            instance.checked = world.now()

    world.after("check", known)


def ails(world: World, kind: str, instance: Any) -> bool:
    return world.ailments.strike(kind, [instance.id, instance.image_id], instance.began, world.now())


def status_of(world: World, instance: Any, kind: str) -> str:
    """not-applicable, initializing, ok or impaired; `kind` is status (of the instance) or system."""
    if instance.state != "running":
        return "not-applicable"
    if instance.checked is None:
        return "initializing"
    return "impaired" if ails(world, kind, instance) or (kind == "status" and not boots(instance)) else "ok"


def boots(instance: Any) -> bool:
    """Whether its root volume is there and boots as the instance does; one of unknown make does."""
    held = instance.block_device_mapping.get(instance.root_device_name)
    if held is None:
        return False
    return getattr(instance.ec2_backend.volumes[held.volume_id], "boots", None) in (
        None,
        getattr(instance, "current_instance_boot_mode", None),
    )


def shown_status(world: World, instance: Any) -> dict[str, Any]:
    """An instance in the shape of DescribeInstanceStatus."""
    state = {"Code": CODES[instance.state], "Name": instance.state}
    return {
        "AvailabilityZone": instance.availability_zone,
        "InstanceId": instance.id,
        "InstanceState": state,
        "InstanceStatus": summary(status_of(world, instance, "status")),
        "SystemStatus": summary(status_of(world, instance, "system")),
    }


def summary(status: str) -> dict[str, Any]:
    reachable = {"ok": "passed", "impaired": "failed", "initializing": "initializing"}
    if status not in reachable:
        return {"Status": status}
    return {"Status": status, "Details": [{"Name": "reachability", "Status": reachable[status]}]}


def describe_status(world: World, call: Call) -> dict[str, Any]:
    """Of running instances, or of all when asked for; filtered, in pages."""
    backend, names = tags.backend(call.account, call.region), call.params.get("InstanceIds", [])
    asked = found(backend, *names) if names else list(everyone(backend))
    if not call.params.get("IncludeAllInstances"):
        asked = [one for one in asked if one.state == "running"]
    shown = listing.filtered(call, [shown_status(world, one) for one in asked], STATUS)
    part, more = listing.page(world, call, shown, "InstanceIds")
    return {"InstanceStatuses": part, **more}


Step = Callable[[Any], None]


def change(call: Call, key: str, act: Step, may: Step) -> dict[str, Any]:
    """Let `act` be done to all named instances, or to none where `may` raises."""
    named = found(tags.backend(call.account, call.region), *call.params["InstanceIds"])
    for instance in named:
        may(instance)
    answer = []
    for instance in named:
        before = {"Code": CODES[instance.state], "Name": instance.state}
        act(instance)
        after = {"Code": CODES[instance.state], "Name": instance.state}
        answer.append({"InstanceId": instance.id, "PreviousState": before, "CurrentState": after})
    return {key: answer}


def wrong_state(instance: Any, verb: str) -> AwsError:
    said = f"The instance '{instance.id}' is not in a state from which it can be {verb}."
    return AwsError("IncorrectInstanceState", said)


def start(world: World, call: Call) -> dict[str, Any]:
    """From stopped; a running one stays so."""

    def may(instance: Any) -> None:
        if instance.state not in {"stopped", "running", "pending"}:
            raise wrong_state(instance, "started")
        if instance.root_device_name not in instance.block_device_mapping:
            said = f"Instance '{instance.id}' does not have a volume attached at root ({instance.root_device_name})"
            raise AwsError("IncorrectState", said)

    def act(instance: Any) -> None:
        if instance.state == "stopped":
            begin(world, tags.backend(call.account, call.region), instance)

    return change(call, "StartingInstances", act, may)


def stop(world: World, call: Call) -> dict[str, Any]:
    """From running; refused where stop protection is on."""
    backend = tags.backend(call.account, call.region)

    def may(instance: Any) -> None:
        if instance.state not in {"running", "stopping", "stopped"}:
            raise wrong_state(instance, "stopped")
        if instance.disable_api_stop is True:
            said = f"The instance '{instance.id}' may not be stopped. Modify its 'disableApiStop' instance attribute"
            raise AwsError("OperationNotPermitted", said)

        if instance.lifecycle == "spot":
            said = f"You can't stop the Spot Instance '{instance.id}' because it is associated with a one-time request."
            raise AwsError("UnsupportedOperation", said)

    def act(instance: Any) -> None:
        if instance.state == "running":
            enter(instance, "stopping")
            world.after("stop", partial(stopped, backend, instance))

    return change(call, "StoppingInstances", act, may)


def stopped(backend: Any, instance: Any) -> None:
    if instance.state == "stopping":
        instance.stop()
        with_addresses(backend)


def with_addresses(backend: Any) -> None:
    """Elastic addresses stay with their interfaces; moto takes them for assigned ones."""
    for address in backend.addresses:
        if address.eni is not None:
            address.eni.public_ip = address.public_ip


def terminate(world: World, call: Call) -> dict[str, Any]:
    """From any state; refused where termination protection is on."""
    backend = tags.backend(call.account, call.region)

    def may(instance: Any) -> None:
        if str(instance.disable_api_termination).lower() == "true":
            said = f"The instance '{instance.id}' may not be terminated. Modify its 'disableApiTermination' attribute"
            raise AwsError("OperationNotPermitted", said)

    return change(call, "TerminatingInstances", lambda one: end(world, backend, one), may)


def end(world: World, backend: Any, instance: Any) -> None:
    """The instance shuts down, and is terminated after a while."""
    if instance.state not in {"shutting-down", "terminated"}:
        enter(instance, "shutting-down")
        world.after("terminate", partial(ended, world, backend, instance))


def ended(world: World, backend: Any, instance: Any) -> None:
    """Terminated: volumes and interfaces go or stay as DeleteOnTermination says, Elastic addresses are free."""
    from tests.strict_aws.instances import equip  # which begins instances here

    for address in backend.addresses:
        if address.eni is not None and address.eni.instance is instance:
            address.eni.public_ip = address.eni = address.instance = address.association_id = None
    kept = [nic for nic in instance.nics.values() if not nic.delete_on_termination]
    nics = dict(instance.nics)
    instance.terminate()
    for nic in kept:
        instance.detach_eni(nic)
    instance.nics = nics  # moto shows addresses of ended instances too
    for tell in told(backend):
        tell.notify_terminate_instances([instance.id])
    world.after("vanish", partial(vanish, backend, instance))
    equip(world, Place(backend.account_id, backend.region_name))


def vanish(backend: Any, instance: Any) -> None:
    """Nothing is shown of it any more."""
    for name, reservation in list(backend.reservations.items()):
        reservation.instances = [one for one in reservation.instances if one is not instance]
        if not reservation.instances:
            del backend.reservations[name]


def withdraw(backend: Any, instance: Any) -> None:
    """Its group does not try again of itself, which would never end in a leap of the clock."""
    group = getattr(instance, "autoscaling_group", None)
    if group is not None:
        group.instance_states = [one for one in group.instance_states if one.instance is not instance]


def told(backend: Any) -> list[Any]:
    """Who hears of the end of an instance: load balancers, then groups, which replace it."""
    from moto.autoscaling import autoscaling_backends
    from moto.elbv2 import elbv2_backends

    account, region = backend.account_id, backend.region_name
    return [elbv2_backends[account][region], autoscaling_backends[account][region]]


def reboot(world: World, call: Call) -> dict[str, Any]:
    """Running ones; their status checks start again."""
    named = found(tags.backend(call.account, call.region), *call.params["InstanceIds"])
    for instance in named:
        if instance.state != "running":
            raise wrong_state(instance, "rebooted")
    for instance in named:
        check(world, instance)
    return {}


RULES = {
    "DescribeInstanceStatus": describe_status,
    "StartInstances": start,
    "StopInstances": stop,
    "TerminateInstances": terminate,
    "RebootInstances": reboot,
}
