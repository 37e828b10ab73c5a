"""Edge: one region of one account, in the operations that a replacement consists of. Each can be repeated.

What moves between the old and the new instance is among them, and where instances are registered with load balancers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from hardening.foundation.asking import portions
from hardening.foundation.errors import LateError, OutsideError, RefusedError
from images.aws.client import AwsError, Clients, DeniedError
from images.aws.permissions import LOOKING, REAPER, ROLLER, permit, use_keys
from images.aws.tags import as_list, moment_in
from pipelines.fleet import rollout_targets
from pipelines.fleet.ec2 import instance_spec
from pipelines.fleet.ec2.instance_spec import (
    DRAINS,
    ENDED,
    RUNNING,
    STOPPED,
    InstanceDescription,
    Json,
    Registered,
    Registration,
)
from pipelines.fleet.members import MEMBER, OWNED, ROLLOUT, Key
from pipelines.fleet.port import GoneError, InProgressError

PERMISSIONS = (
    permit("ec2:DescribeVolumes ec2:DescribeInstanceStatus", *LOOKING, on=rollout_targets.MACHINES),
    permit("ec2:DescribeInstanceTypes", *LOOKING, on=rollout_targets.MACHINES),
    permit("elasticloadbalancing:DescribeTargetGroups", *LOOKING, on=rollout_targets.MACHINES),
    permit("elasticloadbalancing:DescribeTargetHealth", *LOOKING, on=rollout_targets.MACHINES),
    permit("elasticloadbalancing:DescribeLoadBalancers", *LOOKING, on=rollout_targets.MACHINES),
    permit("ec2:DescribeInstances ec2:DescribeAddresses ec2:DescribeImages", ROLLER, on=rollout_targets.MACHINES),
    permit("ec2:DescribeInstances", REAPER, on=rollout_targets.MACHINES),
    permit("ec2:DescribeInstanceCreditSpecifications", ROLLER, on=rollout_targets.MACHINES),
    permit("ec2:DescribeNetworkInterfaces", ROLLER, on=rollout_targets.MACHINES),
    permit("ec2:DescribeReplaceRootVolumeTasks ec2:GetEbsEncryptionByDefault", ROLLER, on=rollout_targets.ROOT_VOLUMES),
    permit("ec2:DescribeInstanceAttribute ec2:GetConsoleOutput", ROLLER, on=rollout_targets.MEMBERS),
    permit("ec2:StartInstances ec2:StopInstances ec2:ModifyInstanceAttribute", ROLLER, on=rollout_targets.MEMBERS),
    permit("ec2:TerminateInstances", ROLLER, on=rollout_targets.OWNED_MEMBER),
    permit("ec2:TerminateInstances", REAPER, on=rollout_targets.OWNED_INSTANCE.where(rollout_targets.DUE)),
    permit("ec2:DeleteVolume", ROLLER, on=rollout_targets.OWN_VOLUME),
    permit("ec2:DeleteVolume", REAPER, on=rollout_targets.OWN_VOLUME.where(rollout_targets.DUE)),
    permit("ec2:CreateTags ec2:DeleteTags", ROLLER, on=rollout_targets.MARKED),
    *(
        permit("ec2:CreateTags ec2:DeleteTags", ROLLER, on=one.where(rollout_targets.OUR_TAGS))
        for one in (rollout_targets.OWN_VOLUME, rollout_targets.OWN_INTERFACE)
    ),
    permit("ec2:CreateTags", ROLLER, on=rollout_targets.ROOT_VOLUME),
    permit("ec2:AttachVolume ec2:DetachVolume", ROLLER, on=(rollout_targets.MEMBERS, rollout_targets.VOLUME)),
    permit("ec2:AttachNetworkInterface", ROLLER, on=(rollout_targets.MEMBERS, rollout_targets.INTERFACE)),
    permit("ec2:DetachNetworkInterface", ROLLER, on=(rollout_targets.MEMBERS, rollout_targets.INTERFACE)),
    permit("ec2:AssociateAddress", ROLLER, on=(rollout_targets.INTERFACE, rollout_targets.ADDRESS)),
    permit("elasticloadbalancing:RegisterTargets", ROLLER, on=rollout_targets.TARGET_GROUP),
    permit("elasticloadbalancing:DeregisterTargets", ROLLER, on=rollout_targets.TARGET_GROUP),
    *use_keys(ROLLER, rollout_targets.VOLUME_KEYS, "AttachVolume StartInstances"),
)

ATTRIBUTES = ("userData", "instanceInitiatedShutdownBehavior")
PROTECTIONS = {"disableApiTermination": "terminated", "disableApiStop": "stopped"}
BURSTABLE = ("t2.", "t3.", "t3a.", "t4g.")
REHEARSED = {"DryRunOperation"}
NO_SUCH_INSTANCE, NO_SUCH_GROUP = {"InvalidInstanceID.NotFound"}, {"TargetGroupNotFound"}
OUTSIDE = "all"  # the zone of a target whose address is outside of its group's network
LOG_LINES = 10
BY_NAME, VALUES = 1000, 200  # so many instances are asked for by name; values that a filter takes
ATTACHED = ("attaching", "attached", "busy", "detaching")
MOMENT = timedelta(seconds=0.5)  # how long an effect waits by itself


class RegionClient:
    """One region of one account. An operation that takes longer raises InProgressError, and must be repeated."""

    def __init__(self, clients: Clients, account: str, region: str) -> None:
        self.clients = clients
        self.account = account
        self.region = region
        self.where = f"{account}/{region}"
        self.ec2 = clients.client("ec2", region, account)
        self.targets = clients.client("elbv2", region, account)
        self.classics = clients.client("elb", region, account)

    def find(self, instance: str) -> InstanceDescription | None:
        """The instance of that id, by itself; None once it is terminated."""
        answer = self.ec2.call_unless("DescribeInstances", NO_SUCH_INSTANCE, InstanceIds=[instance])
        reservations = answer["Reservations"] if answer else ()
        found = next((InstanceDescription(one) for each in reservations for one in each["Instances"]), None)
        return found if found and found.state not in ENDED else None

    def need(self, instance: str) -> InstanceDescription:
        """The instance of that id. Raises GoneError when it is gone."""
        found = self.find(instance)
        if found is None:
            raise GoneError(f"the instance {instance} is gone from {self.region}")
        return found

    def launched(self, key: Key) -> tuple[InstanceDescription | None, int]:
        """What a rollout launched for a member, and how many of those have ended already.

        Its tags find it, and the token that it was launched by proves it: a tag can be put on any instance.
        """
        found = [InstanceDescription(one) for one in self.ec2.instances(Filters=_of(key))]
        found = [one for one in found if one.launched_by(key.rollout, key.member, len(found))]
        alive = [one for one in found if one.state not in ENDED]
        return (alive[0] if alive else None), len(found) - len(alive)

    def shown(self, instance: InstanceDescription) -> InstanceDescription:
        """An instance with all that hangs on it."""
        return replace(
            instance,
            volumes=self.volumes([instance.id]),
            attributes=self._attributes(instance),
            registrations=self.registrations(instance),
            type=self.types([instance.instance])[instance.instance["InstanceType"]],
        )

    def volumes(self, instances: Iterable[str]) -> dict[str, Json]:
        """The volumes of instances, by id. Of many, all that are attached are listed, which takes fewer calls."""
        wanted, found = frozenset(instances), dict[str, Json]()
        if len(wanted) > BY_NAME:
            asked = [[{"Name": "attachment.status", "Values": list(ATTACHED)}]]
        else:
            asked = [[{"Name": "attachment.instance-id", "Values": some}] for some in portions(wanted, VALUES)]
        for filters in asked:
            for one in self.ec2.pages("DescribeVolumes", "Volumes", Filters=filters):
                if any(held["InstanceId"] in wanted for held in one.get("Attachments", ())):
                    found[one["VolumeId"]] = one
        return found

    def checked(self, instances: Iterable[str]) -> frozenset[str]:
        """Those of the instances whose status checks passed. Of many, all that run are listed."""
        wanted = frozenset(instances)
        if len(wanted) > BY_NAME:
            shown = list(self.ec2.pages("DescribeInstanceStatus", "InstanceStatuses"))
        else:
            answers = (self.ec2.call("DescribeInstanceStatus", InstanceIds=some) for some in portions(wanted))
            shown = [one for answer in answers for one in answer["InstanceStatuses"]]
        good = {
            one["InstanceId"]
            for one in shown
            if one["InstanceStatus"]["Status"] == one["SystemStatus"]["Status"] == "ok"
        }
        return wanted & good

    def _attributes(self, instance: InstanceDescription) -> dict[str, Any]:
        found = {key: self.attribute(instance.id, key) for key in ATTRIBUTES}
        first = instance.primary.get("NetworkInterfaceId", "")
        asked = [{"Name": "network-interface-id", "Values": [first]}]
        addresses = self.ec2.call("DescribeAddresses", Filters=asked)["Addresses"] if first else []
        found["addresses"] = tuple(one["AllocationId"] for one in addresses)
        if str(instance.instance["InstanceType"]).startswith(BURSTABLE):
            answer = self.ec2.call("DescribeInstanceCreditSpecifications", InstanceIds=[instance.id])
            found["credits"] = next((one["CpuCredits"] for one in answer["InstanceCreditSpecifications"]), None)
        return found

    def attribute(self, instance: str, key: str) -> Any:
        """An attribute of an instance that it does not show of itself."""
        answer = self.ec2.call("DescribeInstanceAttribute", InstanceId=instance, Attribute=key)
        return answer.get(key[0].upper() + key[1:], {}).get("Value")

    def refuse_protected(self, instance: str) -> None:
        """Raise RefusedError where a person, or our own permissions, forbid what a replacement must do in the end."""
        for key, what in PROTECTIONS.items():
            if self.attribute(instance, key):
                hint = 'take the protection off, or set ec2.way = "root_volume", which keeps the instance'
                raise RefusedError(f"{instance} is protected from being {what} ({key})", hint=hint)
        try:
            self.ec2.call_unless("TerminateInstances", REHEARSED, InstanceIds=[instance], DryRun=True)
        except DeniedError as error:
            hint = f'tag it {OWNED}=yes if rollouts may terminate it, or set ec2.way = "root_volume"; docs/iam.md'
            raise RefusedError(f"we may not terminate {instance}", evidence=str(error.evidence), hint=hint) from None

    def registrations(
        self, instance: InstanceDescription, groups: Collection[str] | None = None
    ) -> tuple[Registration, ...]:
        """Where an instance is registered, by its id or its addresses, and how it is there.

        All target groups of the region are asked for, or those `groups` alone.
        """
        network = str(instance.instance.get("VpcId", ""))
        if groups is None:
            return instance.among(self.registered({network}))
        return instance.among((network, *one[1:]) for arn in sorted(groups) for one in self._targets(arn))

    def types(self, instances: Iterable[Json]) -> dict[str, Json]:
        """What the instance types of instances support, by name."""
        names = sorted({str(one["InstanceType"]) for one in instances})
        found = [self.ec2.call("DescribeInstanceTypes", InstanceTypes=some) for some in portions(names)]
        return {one["InstanceType"]: one for answer in found for one in answer["InstanceTypes"]}

    def encrypts(self) -> bool:
        """Whether every new volume is encrypted here, whatever it is made of."""
        return bool(self.ec2.call("GetEbsEncryptionByDefault")["EbsEncryptionByDefault"])

    def health(self, instance: str) -> tuple[bool, str]:
        """Whether both status checks passed, and what they say."""
        found = self.ec2.call("DescribeInstanceStatus", InstanceIds=[instance])["InstanceStatuses"]
        if not found:
            return False, f"{instance} is not running"
        said = found[0]["InstanceStatus"]["Status"], found[0]["SystemStatus"]["Status"]
        return said == ("ok", "ok"), f"{instance}: instance check {said[0]}, system check {said[1]}"

    def age(self, task: Json) -> timedelta:
        """How long ago a task that replaces a root volume ended, by the service's own clock."""
        named = [task["ReplaceRootVolumeTaskId"]]
        answer = self.ec2.call("DescribeReplaceRootVolumeTasks", ReplaceRootVolumeTaskIds=named)
        return _said_at(answer) - datetime.fromisoformat(answer["ReplaceRootVolumeTasks"][0]["CompleteTime"])

    def tag(self, resources: Iterable[str], tags: Mapping[str, str]) -> None:
        """Write tags."""
        self.ec2.call("CreateTags", Resources=list(resources), Tags=as_list(tags))

    def untag(self, resources: Iterable[str], keys: Iterable[str]) -> None:
        """Take tags away."""
        if named := [{"Key": key} for key in sorted(keys)]:
            self.ec2.call("DeleteTags", Resources=list(resources), Tags=named)

    def forget(self, instance: InstanceDescription, *begins: str) -> None:
        """Take off an instance the tags whose keys begin so."""
        self.untag([instance.id], [tag for tag in instance.tags if tag.startswith(begins)])

    def registered(self, vpcs: Collection[str]) -> Iterator[Registered]:
        """Who is registered in some target group of these networks; those that are on their way out are not.

        Addresses outside of their group's network, which may be in any that is peered with it, come without one.
        """
        for group in self.targets.pages("DescribeTargetGroups", "TargetGroups"):
            arn, network = group["TargetGroupArn"], group.get("VpcId", "")
            if network in vpcs:
                yield from ((network, *one[1:]) for one in self._targets(arn, group.get("Port", 0)))
            elif group.get("TargetType") == "ip":
                found = (one for one in self._targets(arn, group.get("Port", 0)) if one[0] == OUTSIDE)
                yield from (("", target, replace(place, network=network)) for _, target, place in found)

    def _targets(self, group: str, default: int = 0) -> Iterator[Registered]:
        """Who is registered in a target group, each with its zone in the place of the network; none once it is gone."""
        answer = self.targets.call_unless("DescribeTargetHealth", NO_SUCH_GROUP, TargetGroupArn=group)
        for one in answer["TargetHealthDescriptions"] if answer else ():
            target, state = one["Target"], one.get("TargetHealth", {}).get("State", "")
            if state != "draining":
                port = int(target.get("Port") or default)
                yield target.get("AvailabilityZone", ""), target["Id"], Registration(group, port, state)

    def classic(self) -> dict[str, tuple[str, ...]]:
        """The names of the Classic Load Balancers that an instance is registered in, by its id."""
        found: dict[str, tuple[str, ...]] = {}
        for one in self.classics.pages("DescribeLoadBalancers", "LoadBalancerDescriptions"):
            for instance in one.get("Instances", ()):
                name = instance["InstanceId"]
                found[name] = (*found.get(name, ()), one["LoadBalancerName"])
        return found

    def register(self, instance: str, places: Collection[Registration]) -> None:
        """Into target groups, in the way that each place says."""
        for request in instance_spec.targets(self.need(instance), places) if places else ():
            self.targets.call("RegisterTargets", **request)

    def deregister(self, instance: str, places: Collection[Registration], drain: timedelta) -> None:
        """Out of target groups; returns when nothing is in flight there any more, or `drain` is over."""
        if not places:
            return
        found = self.need(instance)
        for request in instance_spec.targets(found, places):
            self.targets.call("DeregisterTargets", **request)
        if drain > timedelta():
            self.until(lambda: not any(self._draining(found, one) for one in places), f"{instance} to be drained")

    def leave(self, instance: str, places: Collection[Registration], drain: timedelta) -> None:
        """`deregister`, for whoever does not know what is left of `drain`: since when it drains is written on it."""
        if not places:
            return
        tags, passed = self.need(instance).tags, timedelta()
        if DRAINS not in tags:
            self.deregister(instance, places, timedelta())
            self.tag([instance], {DRAINS: self._now(instance).isoformat()})
        else:
            since = moment_in(tags, DRAINS)
            passed = self._now(instance) - since if since else drain
        self.deregister(instance, places, drain - max(timedelta(), passed))

    def _now(self, instance: str) -> datetime:
        """The service's own clock, as an answer about an instance says it."""
        return _said_at(self.ec2.call("DescribeInstances", InstanceIds=[instance]))

    def _draining(self, instance: InstanceDescription, place: Registration) -> bool:
        """Whether requests to an instance may still be in flight there."""
        (request,) = instance_spec.targets(instance, [place])
        answer = self.targets.call("DescribeTargetHealth", **request)
        return any(one.get("TargetHealth", {}).get("State") == "draining" for one in answer["TargetHealthDescriptions"])

    def stop(self, instance: str, *, wait: bool) -> None:
        """Stop an instance; with `wait`, until it is stopped and what hangs on it can be taken off."""
        state = self.need(instance).state
        if state in RUNNING:
            if state == "pending":
                self.until_state(instance, "running")
            self.ec2.call("StopInstances", InstanceIds=[instance])
        if wait:
            self.until_state(instance, "stopped")

    def start(self, instance: str) -> None:
        """Start an instance, and wait until it runs."""
        if self.need(instance).state in STOPPED:
            self.until_state(instance, "stopped")
            self.ec2.call("StartInstances", InstanceIds=[instance])
        self.until_state(instance, "running")

    def until_state(self, instance: str, wanted: str) -> None:
        """Return once an instance is in that state. Raises GoneError, and InProgressError while it is on its way."""
        self.until(lambda: self.need(instance).state == wanted, f"{instance} to be {wanted}")

    def until(self, done: Callable[[], Any], what: str) -> Any:
        """What `done` returns once it is true. Raises InProgressError when that takes longer than a moment."""
        try:
            return self.clients.until(done, what, within=MOMENT)
        except LateError:
            raise InProgressError(what) from None

    def console(self, instance: str) -> str:
        """The last lines that an instance wrote to its console, as far as the service has them by now."""
        output = self.ec2.call("GetConsoleOutput", InstanceId=instance).get("Output") or ""
        return "\n".join(str(output).splitlines()[-LOG_LINES:])

    def terminate(self, instance: str) -> None:
        """End an instance for good."""
        self.ec2.call_unless("TerminateInstances", NO_SUCH_INSTANCE, InstanceIds=[instance])

    def end_volumes(self, instance: str, volumes: Mapping[str, tuple[str, bool]]) -> None:
        """Write on an instance whether each of these volumes, by device, ends with it."""
        devices = [{"DeviceName": device, "Ebs": {"DeleteOnTermination": ends}} for device, ends in volumes.values()]
        self.ec2.call("ModifyInstanceAttribute", InstanceId=instance, BlockDeviceMappings=devices)

    def detached(self, key: Key) -> list[str]:
        """The volumes that a rollout made or took off for a member and that hang nowhere."""
        free = [*_of(key), {"Name": "status", "Values": ["available"]}]
        return [one["VolumeId"] for one in self.ec2.pages("DescribeVolumes", "Volumes", Filters=free)]

    def delete_volume(self, volume: str) -> None:
        """Delete a volume, if it is there."""
        self.ec2.call_unless("DeleteVolume", {"InvalidVolume.NotFound"}, VolumeId=volume)

    def volume(self, volume: str) -> Json:
        """A volume as the region shows it."""
        return dict(self.ec2.call("DescribeVolumes", VolumeIds=[volume])["Volumes"][0])

    def image(self, image: str) -> Json:
        """An image as this account sees it. Raises OutsideError where it does not."""
        found = self.ec2.call("DescribeImages", ImageIds=[image], IncludeDeprecated=True)["Images"]
        if not found:
            raise OutsideError(f"{image} cannot be seen in {self.region} by account {self.account}")
        return dict(found[0])


def _said_at(answer: Json) -> datetime:
    """When the service gave an answer: every one of AWS says that."""
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])


def _of(key: Key) -> list[Json]:
    """A filter for what a rollout launched, made or took off for a member."""
    return [{"Name": f"tag:{tag}", "Values": [value]} for tag, value in ((ROLLOUT, key.rollout), (MEMBER, key.member))]


@dataclass(frozen=True)
class Moving:
    """Volumes, network interfaces and Elastic IPs of `members`: the old and the new instance, as far as they exist."""

    place: RegionClient
    members: Collection[str]

    def volume(self, volume: str, device: str, to: str) -> None:
        """A volume to one of the members, off the other, which has stopped. Raises OutsideError for a stranger's."""
        if not self._holds(to, volume):
            self._take_off(volume)
            asked = {"VolumeId": volume, "InstanceId": to, "Device": device}
            self._once(lambda: self._holds(to, volume), "AttachVolume", **asked)

    def _take_off(self, volume: str) -> None:
        """Take a volume off the members. One with Multi-Attach stays attached to every other instance."""
        found, held = self.place.volume(volume), self._attached(volume)
        strangers = [name for name in held if name not in self.members]
        if strangers and not found.get("MultiAttachEnabled"):
            raise _elsewhere(volume, strangers[0])
        for name in self.members:
            if self._holds(name, volume):
                self._detach(volume, name)
        self.place.until(lambda: not self._attached(volume).keys() & {*self.members}, f"{volume} to come off")

    def _detach(self, volume: str, instance: str) -> None:
        off = {"VolumeId": volume, "InstanceId": instance}
        self._once(lambda: not self._holds(instance, volume), "DetachVolume", **off)

    def _holds(self, instance: str, volume: str) -> bool:
        """Whether a volume hangs on an instance, or is on its way there."""
        return self._attached(volume).get(instance, "detaching") != "detaching"

    def _attached(self, volume: str) -> dict[str, str]:
        """Where a volume hangs, with the state of that; with Multi-Attach that may be on several instances."""
        found = self.place.volume(volume).get("Attachments", ())
        return {one["InstanceId"]: one.get("State", "") for one in found if one.get("State") != "detached"}

    def interface(self, interface: str, index: int, card: int, to: str) -> None:
        """A further network interface to one of the members, off the other. Raises OutsideError for a stranger's."""

        def hung() -> Json:
            return dict(self._interface(interface).get("Attachment", {}))

        def there() -> bool:
            return bool(hung().get("InstanceId") == to and hung().get("Status") != "detaching")

        if there():
            return
        if (held := hung()) and held.get("Status", "detaching") != "detaching":
            if held.get("InstanceId") not in self.members:
                raise _elsewhere(interface, str(held.get("InstanceId", "something else")))
            self._once(
                lambda: hung().get("Status", "detaching") == "detaching",
                "DetachNetworkInterface", AttachmentId=held["AttachmentId"],
            )  # fmt: skip
        self.place.until(lambda: self._interface(interface)["Status"] == "available", f"{interface} to come off")
        asked = {"NetworkInterfaceId": interface, "InstanceId": to, "DeviceIndex": index}
        self._once(there, "AttachNetworkInterface", **asked, **({"NetworkCardIndex": card} if card else {}))

    def _interface(self, interface: str) -> Json:
        found = self.place.ec2.call("DescribeNetworkInterfaces", NetworkInterfaceIds=[interface])
        return dict(found["NetworkInterfaces"][0])

    def address(self, allocation: str, interface: str) -> None:
        """An Elastic IP to an interface of one of the members. Raises OutsideError for a stranger's."""
        (found,) = self.place.ec2.call("DescribeAddresses", AllocationIds=[allocation])["Addresses"]
        if found.get("NetworkInterfaceId") == interface:
            return
        holder = found.get("InstanceId") or found.get("NetworkInterfaceId")
        if found.get("AssociationId") and holder not in self.members:
            raise _elsewhere(allocation, str(holder))
        asked = {"AllocationId": allocation, "NetworkInterfaceId": interface, "AllowReassociation": True}
        self.place.ec2.call("AssociateAddress", **asked)

    def _once(self, done: Callable[[], bool], operation: str, **request: Any) -> None:
        """Ask for what the service refuses the second time: a lost answer is asked for again, and is no failure."""
        try:
            self.place.ec2.call(operation, **request)
        except AwsError:
            if not done():
                raise


def _elsewhere(name: str, holder: str) -> OutsideError:
    why = f"{name} is attached to {holder}, which is not part of this replacement, and stays there"
    hint = f"a person has moved it meanwhile: detach it from {holder} and try again, or roll without it"
    return OutsideError(why, hint=hint)
