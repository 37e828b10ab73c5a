"""Edge: where the instances of one region are registered with load balancers, by their id or by their address."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

from hardening.foundation.errors import OutsideError
from images.aws.client import AwsError, Client, Clients
from pipelines.fleet.ec2 import launch_requests
from pipelines.fleet.ec2.instance_spec import InstanceDescription, Json, Registered, Registration


class Balancers:
    """The target groups and Classic Load Balancers of a region."""

    def __init__(self, clients: Clients, account: str, region: str) -> None:
        self.targets = clients.client("elbv2", region, account)
        self.classics = clients.client("elb", region, account)

    def registered(self, vpcs: Collection[str]) -> Iterator[Registered]:
        """Who is registered in some target group of these networks; those that are on their way out are not."""
        for group in self.targets.pages("DescribeTargetGroups", "TargetGroups"):
            if group.get("VpcId") not in vpcs:
                continue
            arn, default = group["TargetGroupArn"], group.get("Port", 0)
            answer = self.targets.call("DescribeTargetHealth", TargetGroupArn=arn)
            for one in answer["TargetHealthDescriptions"]:
                state = one.get("TargetHealth", {}).get("State", "")
                if state != "draining":
                    port = int(one["Target"].get("Port") or default)
                    yield Registered(group["VpcId"], one["Target"]["Id"], Registration(arn, port, state))

    def classic(self) -> dict[str, tuple[str, ...]]:
        """The names of the Classic Load Balancers that an instance is registered in, by its id."""
        found: dict[str, tuple[str, ...]] = {}
        for one in self.classics.pages("DescribeLoadBalancers", "LoadBalancerDescriptions"):
            for instance in one.get("Instances", ()):
                name = instance["InstanceId"]
                found[name] = (*found.get(name, ()), one["LoadBalancerName"])
        return found

    def register(self, instance: Json, places: Iterable[Registration]) -> None:
        """Register an instance, in the way that each place says."""
        for request in launch_requests.targets(instance, list(places)):
            self.targets.call("RegisterTargets", **request)

    def deregister(self, instance: Json, places: Iterable[Registration]) -> None:
        """Begin to take an instance out."""
        for request in launch_requests.targets(instance, list(places)):
            self.targets.call("DeregisterTargets", **request)

    def draining(self, instance: Json, place: Registration) -> bool:
        """Whether requests to an instance may still be in flight there."""
        (request,) = launch_requests.targets(instance, [place])
        answer = self.targets.call("DescribeTargetHealth", **request)
        return any(one.get("TargetHealth", {}).get("State") == "draining" for one in answer["TargetHealthDescriptions"])


def of_instance(instance: Json, registered: Iterable[Registered]) -> tuple[Registration, ...]:
    """Where an instance is registered, and how it is there."""
    addresses = dict(InstanceDescription(instance).addresses())
    here = [one for one in registered if one.vpc == instance.get("VpcId")]
    own = [one.place for one in here if one.target == instance["InstanceId"]]
    own += [replace(one.place, address=addresses[one.target]) for one in here if one.target in addresses]
    return tuple(sorted(own, key=lambda one: (one.group, one.port, one.address)))


class Moving:
    """Volumes, network interfaces and Elastic IPs of `members`: the old and the new instance, as far as they exist."""

    def __init__(self, ec2: Client, until: Callable[[Callable[[], Any], str], Any], *members: str) -> None:
        self.ec2 = ec2
        self.until = until
        self.members = members

    def volume(self, volume: str, device: str, to: str) -> None:
        """A volume to one of the members, off the other, which has stopped. Raises OutsideError for a stranger's."""

        def there() -> bool:
            return any(one["InstanceId"] == to and one.get("State") != "detaching" for one in self._attached(volume))

        if not there():
            self._take_off(volume)
            self._once(there, "AttachVolume", VolumeId=volume, InstanceId=to, Device=device)

    def _take_off(self, volume: str) -> None:
        """Take a volume off the members. One with Multi-Attach stays attached to every other instance."""
        found = self._volume(volume)
        strangers = [one["InstanceId"] for one in self._attached(volume) if one["InstanceId"] not in self.members]
        if strangers and not found.get("MultiAttachEnabled"):
            raise _elsewhere(volume, strangers[0])
        for one in self._attached(volume):
            if one["InstanceId"] in self.members and one.get("State") != "detaching":
                self._detach(volume, one["InstanceId"])
        self.until(lambda: not self._ours(volume), f"{volume} to come off")

    def _detach(self, volume: str, instance: str) -> None:
        def off() -> bool:
            held = [one for one in self._attached(volume) if one["InstanceId"] == instance]
            return all(one.get("State") == "detaching" for one in held)

        self._once(off, "DetachVolume", VolumeId=volume, InstanceId=instance)

    def _ours(self, volume: str) -> list[Json]:
        return [one for one in self._attached(volume) if one["InstanceId"] in self.members]

    def _attached(self, volume: str) -> list[Json]:
        """Where a volume hangs; with Multi-Attach that may be on several instances."""
        return [one for one in self._volume(volume).get("Attachments", ()) if one.get("State") != "detached"]

    def _volume(self, volume: str) -> Json:
        found: Json = self.ec2.call("DescribeVolumes", VolumeIds=[volume])["Volumes"][0]
        return found

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
        self.until(lambda: self._interface(interface)["Status"] == "available", f"{interface} to come off")
        asked = {"NetworkInterfaceId": interface, "InstanceId": to, "DeviceIndex": index}
        self._once(there, "AttachNetworkInterface", **asked, **({"NetworkCardIndex": card} if card else {}))

    def _interface(self, interface: str) -> Json:
        asked = {"NetworkInterfaceIds": [interface]}
        found: Json = self.ec2.call("DescribeNetworkInterfaces", **asked)["NetworkInterfaces"][0]
        return found

    def address(self, allocation: str, interface: str) -> None:
        """An Elastic IP to an interface of one of the members. Raises OutsideError for a stranger's."""
        (found,) = self.ec2.call("DescribeAddresses", AllocationIds=[allocation])["Addresses"]
        if found.get("NetworkInterfaceId") == interface:
            return
        holder = found.get("InstanceId") or found.get("NetworkInterfaceId")
        if found.get("AssociationId") and holder not in self.members:
            raise _elsewhere(allocation, str(holder))
        self.ec2.call(
            "AssociateAddress", AllocationId=allocation, NetworkInterfaceId=interface, AllowReassociation=True
        )

    def _once(self, done: Callable[[], bool], operation: str, **request: Any) -> None:
        """Ask for what the service refuses the second time: a lost answer is asked for again, and is no failure."""
        try:
            self.ec2.call(operation, **request)
        except AwsError:
            if not done():
                raise


def _elsewhere(name: str, holder: str) -> OutsideError:
    return OutsideError(
        f"{name} is attached to {holder}, which is not part of this replacement, and stays there",
        hint=f"a person has moved it meanwhile: detach it from {holder} and try again, or roll without it",
    )
