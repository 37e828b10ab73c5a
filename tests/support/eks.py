"""What tests of EKS fleets share: a node group of four in a shop's account, and its fleet under the ports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.fleet.eks.groups import NodeGroupFleet
from pipelines.fleet.eks.members import NodeFleet, NodeReader
from pipelines.fleet.members import ReplacementImage
from pipelines.fleet.model import Fleet
from tests.strict_aws import StrictAws
from tests.support.ec2 import NAME, Shop, shop
from tests.support.followed import FollowedCluster, Following

ROLLOUT = "nodes-20260301120000-123456"
ROLE = "arn:aws:iam::123456789012:role/nodes"


@dataclass
class Cluster(FollowedCluster):
    """A cluster with node groups, and a fleet of it as a process sees it; `begin_anew` is another process."""

    at: Shop
    limits: dict[str, Any]
    eks: dict[str, Any] = field(default_factory=dict)
    selector: dict[str, str] = field(default_factory=dict)
    rollout, size, looks = ROLLOUT, 4, 1500

    def __post_init__(self) -> None:
        self.client.create_cluster(name="shop", roleArn=ROLE, resourcesVpcConfig={"subnetIds": [self.at.subnet]})
        data = {"ImageId": self.at.image(self.at.old), "InstanceType": "t3.micro"}
        made = self.at.ec2.create_launch_template(LaunchTemplateName="nodes", LaunchTemplateData=data)
        self.template = made["LaunchTemplate"]["LaunchTemplateId"]
        self.begin_anew()

    @property
    def client(self) -> Any:
        return self.at.aws.client("eks")

    def begin_anew(self) -> None:
        named = [] if self.selector else ["nodes"]
        self.fleet = Fleet.model_validate({
            "name": "nodes", "title": "The nodes", "owner": "platform team", "kind": "eks", "limits": self.limits,
            "replacement": {"definition": NAME, "channel": "candidate"}, "selector": self.selector,
            "eks": {"cluster": "shop", "node_groups": named, **self.eks},
        })  # fmt: skip
        self.reader = NodeReader(self.fleet, self.at.cloud)
        self.nodes = NodeFleet(self.reader)
        self.port: Any = Following(NodeGroupFleet(self.fleet, self.reader, self.now), self.catch_up)

    @property
    def aws(self) -> StrictAws:
        return self.at.aws

    @property
    def target(self) -> ReplacementImage:
        return self.at.target

    def answer(self) -> dict[str, Any]:
        return self.at.ec2.describe_vpcs()

    def marks(self) -> tuple[Any, ...]:
        """What tells one state of it from another."""
        return self.shown()["status"], tuple(sorted(self.images()))

    def add(self, name: str = "nodes", **more: Any) -> None:
        """A node group of four that run."""
        asked = {
            "clusterName": "shop", "nodegroupName": name, "subnets": [self.at.subnet], "nodeRole": ROLE,
            "scalingConfig": {"minSize": 0, "maxSize": 10, "desiredSize": 4},
            "launchTemplate": {"id": self.template, "version": "1"}, "updateConfig": {"maxUnavailable": 2}, **more,
        }  # fmt: skip
        self.client.create_nodegroup(**asked)
        self.at.settle()

    def shown(self, name: str = "nodes") -> dict[str, Any]:
        """A node group as it is shown."""
        return dict(self.client.describe_nodegroup(clusterName="shop", nodegroupName=name)["nodegroup"])

    def images(self) -> list[str]:
        """The images of all instances that run."""
        wanted = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
        pages = self.at.ec2.describe_instances(Filters=wanted)["Reservations"]
        return [one["ImageId"] for each in pages for one in each["Instances"]]

    def versions(self) -> list[int]:
        """The versions of the launch template."""
        found = self.at.ec2.describe_launch_template_versions(LaunchTemplateId=self.template)
        return sorted(one["VersionNumber"] for one in found["LaunchTemplateVersions"])

    def updates(self) -> int:
        """How many updates there are of the node group."""
        return len(self.client.list_updates(name="shop", nodegroupName="nodes")["updateIds"])


@contextmanager
def cluster(aws: StrictAws, folder: Path, **limits: Any) -> Iterator[Cluster]:
    """A cluster whose clock stands still but when it is moved."""
    aws.takes(launch=5, check=5, terminate=5, refresh=1, deadline=120)
    at = shop(aws, folder)
    aws.freeze()
    yield Cluster(at, {"max_unavailable": 2, "max_surge": 2, "max_parallel": 4, "budgets": [{"nodes": 4}], **limits})
    at.cloud.ledger.close()
