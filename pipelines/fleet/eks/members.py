"""Edge: reads the managed node groups of a fleet in one EKS cluster, and the instances that are their nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from hardening.foundation.asking import ask_within
from hardening.foundation.errors import GoldsmithError, OutsideError
from hardening.runtime import Observed
from images.aws.cloud import Cloud
from images.aws.permissions import LOOKING, ROLLER, ResourcePattern, permit
from pipelines.fleet.delegated import GroupReader
from pipelines.fleet.ec2.instance_facts import GROUP
from pipelines.fleet.ec2.instance_spec import RUNNING
from pipelines.fleet.ec2.instances import Ec2Fleet
from pipelines.fleet.ec2.members import read_fleet
from pipelines.fleet.ec2.observing import RunningInstance
from pipelines.fleet.ec2.templates import LaunchTemplates
from pipelines.fleet.eks.node_groups import NodeGroup, NodeUpdate, update_of
from pipelines.fleet.members import Member, Seen, Unread
from pipelines.fleet.model import Ec2, Fleet, FleetKind, claim
from pipelines.fleet.rollout_targets import eks
from pipelines.fleet.unstepped import UnsteppedMembers

PERMISSIONS = (
    permit("eks:ListNodegroups", *LOOKING, on=eks("cluster/{cluster}")),
    permit("eks:DescribeNodegroup", *LOOKING, on=eks("nodegroup/{cluster}/*")),
    permit("eks:ListUpdates eks:DescribeUpdate", ROLLER, on=(eks("cluster/{cluster}"), eks("nodegroup/{cluster}/*"))),
    permit("ec2:DescribeInstances", ROLLER, on=ResourcePattern(each="eks")),
)

GONE = {"ResourceNotFoundException"}


@dataclass
class NodeInventory:
    """All that a cluster has of a fleet: node groups and their instances by group id; and what is unread."""

    groups: dict[str, NodeGroup] = field(default_factory=dict)
    instances: dict[str, list[RunningInstance]] = field(default_factory=dict)
    unread: list[Unread] = field(default_factory=list)


class NodeReader(GroupReader):
    """The cluster of a fleet. What cannot be reached, or denies, raises OutsideError or RefusedError.

    `rivals`: the other fleets of the cluster.
    """

    def __init__(self, fleet: Fleet, cloud: Cloud, rivals: Sequence[Fleet] = ()) -> None:
        self.fleet = fleet
        self.rivals = rivals
        self.cloud = cloud
        self.account, self.region = fleet.eks.account or cloud.aws.account, fleet.eks.region or cloud.home
        self.cluster = str(fleet.eks.cluster)
        self.where = f"{self.account}/{self.region}/eks/{self.cluster}"
        self.api = f"EKS in {self.region}"
        self.eks = cloud.client("eks", self.region, self.account)
        self.templates = LaunchTemplates(cloud, self.account, self.region)
        self._ended = dict[str, NodeUpdate | None]()

    def group_id(self, name: str) -> str:
        """The id of a node group as rollouts know it."""
        return f"{self.where}/{name}"

    def machines(self, scaling_group: str = "") -> Fleet:
        """The instances of an Auto Scaling group as a fleet of machines, by the tag that only AWS can give."""
        place = Ec2(regions=(self.region,), accounts=(self.account,))
        own = {"kind": FleetKind.EC2, "selector": {GROUP: scaling_group}, "ec2": place}
        return self.fleet.model_copy(update=own)

    def node_group(self, name: str) -> NodeGroup:
        """One node group as it is now. Raises OutsideError where it is gone."""
        found = self._shown(name)
        if found is None:
            raise OutsideError(f"the EKS node group {name} is gone from the cluster {self.cluster}")
        return found

    def _shown(self, name: str) -> NodeGroup | None:
        answer = self.eks.call_unless("DescribeNodegroup", GONE, clusterName=self.cluster, nodegroupName=name)
        return NodeGroup(answer["nodegroup"]) if answer else None

    def listed(self) -> Iterator[str]:
        """The names of all managed node groups of the cluster."""
        return self.eks.pages("ListNodegroups", "nodegroups", clusterName=self.cluster)

    def inventory(self, only: str = "") -> NodeInventory:
        """All of it, or what one node group runs."""
        found = NodeInventory()
        with self.understood():
            named = self.fleet.eks.node_groups
            for name in [only] if only else named or self.listed():
                one = self._shown(name)
                if one is None and name in named:
                    found.unread.append(Unread(self.group_id(name), "no EKS node group has this name"))
                elif one and self.fleet.selects(one.tags):
                    self._read(found, one)
                elif name in named:
                    found.unread.append(Unread(self.group_id(name), "it has not the tags of the selector"))
        return found

    def _read(self, found: NodeInventory, one: NodeGroup) -> None:
        group = self.group_id(one.name)
        found.groups[group] = one
        for scaling_group in one.scaling_groups:
            seen = read_fleet(self.machines(scaling_group), self.cloud)
            found.instances.setdefault(group, []).extend(seen.instances)
            found.unread += seen.unread

    def images(self, node: NodeGroup) -> list[str]:
        """The images of the instances of a node group that run."""
        named = [{"Name": f"tag:{GROUP}", "Values": node.scaling_groups},
                 {"Name": "instance-state-name", "Values": list(RUNNING)}]  # fmt: skip
        return [str(one["ImageId"]) for one in self.templates.ec2.instances(Filters=named)]

    def updates(self, name: str) -> list[NodeUpdate]:
        """The updates of a node group to versions of its launch template. What has ended is asked for once."""
        asked = {"name": self.cluster, "nodegroupName": name}
        found = (self._update(name, str(one)) for one in self.eks.pages("ListUpdates", "updateIds", **asked))
        return [one for one in found if one]

    def _update(self, name: str, update: str) -> NodeUpdate | None:
        if update not in self._ended:
            asked = {"name": self.cluster, "nodegroupName": name, "updateId": update}
            shown = self.eks.call("DescribeUpdate", **asked)["update"]
            found = update_of(shown)
            if shown.get("status") == "InProgress":
                return found
            self._ended[update] = found
        return self._ended[update]


class NodeFleet(UnsteppedMembers):
    """The instances of a fleet's node groups, judged as machines are. None of them is stepped: EKS replaces them."""

    def __init__(self, reader: NodeReader) -> None:
        self.reader = reader
        self._machines = Ec2Fleet(reader.machines(), reader.cloud)

    def seen(self, group: str = "") -> Seen:
        """All of them, or those of one node group. A cluster that cannot be read, or not within `aws.read_within`, is
        unread.
        """
        at, members = self.reader, list[Member]()
        asked = partial(at.inventory, group.removeprefix(f"{at.where}/"))
        try:
            found = ask_within(asked, at.cloud.aws.read_within)
        except GoldsmithError as error:
            return Seen((), (Unread(at.where, error.message),))
        for name, instances in found.instances.items():
            node = found.groups[name]
            why, other = f"{node.called} rolls it", claim(at.rivals, node.tags, node.name)
            for one in instances:
                own = self._machines.member(one, f"{one.where}/ec2/{one.shown.id}")
                members.append(replace(own, forced_in_place=(), cannot_roll=why, group=name, claimed_by=other))
        return Seen(tuple(sorted(members, key=lambda one: one.id)), tuple(found.unread))

    def observe(self, members: Sequence[Member]) -> Mapping[str, Observed]:
        """How members run, by their ids, as they were last listed."""
        return self._machines.observe(members)
