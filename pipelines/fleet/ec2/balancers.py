"""Edge: where the instances of one region are registered with load balancers, by their id or by their address."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from images.aws.client import Clients
from pipelines.fleet.ec2 import requests
from pipelines.fleet.ec2.essence import Json, Registered, Registration, Shown


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
        for request in requests.targets(instance, list(places)):
            self.targets.call("RegisterTargets", **request)

    def deregister(self, instance: Json, places: Iterable[Registration]) -> None:
        """Begin to take an instance out."""
        for request in requests.targets(instance, list(places)):
            self.targets.call("DeregisterTargets", **request)

    def draining(self, instance: Json, place: Registration) -> bool:
        """Whether requests to an instance may still be in flight there."""
        (request,) = requests.targets(instance, [place])
        answer = self.targets.call("DescribeTargetHealth", **request)
        return any(one.get("TargetHealth", {}).get("State") == "draining" for one in answer["TargetHealthDescriptions"])


def of_instance(instance: Json, registered: Iterable[Registered]) -> tuple[Registration, ...]:
    """Where an instance is registered, and how it is there."""
    addresses = dict(Shown(instance).addresses())
    here = [one for one in registered if one.vpc == instance.get("VpcId")]
    own = [one.place for one in here if one.target == instance["InstanceId"]]
    own += [replace(one.place, address=addresses[one.target]) for one in here if one.target in addresses]
    return tuple(sorted(own, key=lambda one: (one.group, one.port, one.address)))
