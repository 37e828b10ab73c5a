"""What tests of EC2 fleets share: two releases of a machine, and an instance with everything that a member may have."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from images.artifact import Release
from images.aws.client import Client
from images.aws.cloud import Cloud
from pipelines.fleet.members import Key, Member, ReplacementImage
from pipelines.fleet.model import Fleet, Method
from pipelines.fleet.port import InProgressError, MemberFleet
from pipelines.rollout.steps import HELD
from tests.strict_aws import REGION, StrictAws
from tests.strict_aws.keeping import Kept, untouched
from tests.strict_aws.timeline import TAKES
from tests.support.cloud import DAY, at, cloud_for, disk, publish, settings_at

NAME = "debian-server"
ZONE = f"{REGION}a"
FLEET_FILE = f"""
title = "The shop"
owner = "ann"
kind = "ec2"
selector = {{ app = "shop" }}
replacement = {{ definition = "{NAME}", channel = "candidate" }}
[ec2]
regions = ["eu-central-1", "us-east-1"]
"""
"""The same fleet as people write it, in two regions."""
SCRIPT = "#!/bin/sh\necho hello"


def fleet(**more: Any) -> Fleet:
    """The fleet of everything tagged `app=shop`."""
    given: dict[str, Any] = {
        "name": "shop",
        "title": "The shop",
        "owner": "ann",
        "kind": "ec2",
        "selector": {"app": "shop"},
        "replacement": {"definition": NAME},
    }
    return Fleet.model_validate(given | more)


@dataclass
class Shop:
    """An account with a network, an old and a new release, and what was made in it."""

    aws: StrictAws
    cloud: Cloud
    old: Release
    new: Release
    subnet: str
    vpc: str
    numbers: Iterator[int] = field(default_factory=count)

    @property
    def ec2(self) -> Any:
        """The client of its home region."""
        return self.aws.client("ec2")

    @property
    def balancers(self) -> Any:
        """The client of its load balancers."""
        return self.aws.client("elbv2")

    @property
    def target(self) -> ReplacementImage:
        """The new release, pinned."""
        return ReplacementImage(f"{self.new.repository}@{self.new.digest}", self.new.digest, self.new)

    def image(self, release: Release, region: str = REGION) -> str:
        """The id of a release's image, by default at home."""
        lines = self.cloud.made(kind="image", release=release.digest, region=region)
        return lines[0].resource

    def instance(self, **more: Any) -> str:
        """A plain member of the old release."""
        tags = more.pop("tags", {"app": "shop", "Name": "shop-1"})
        asked = {"ImageId": self.image(self.old), "InstanceType": "t3.micro", "SubnetId": self.subnet}
        named = [{"Key": key, "Value": value} for key, value in tags.items()]
        asked["TagSpecifications"] = [{"ResourceType": "instance", "Tags": named}]
        asked = {**asked, "MinCount": 1, "MaxCount": 1, **more}
        given = {key: value for key, value in asked.items() if value is not None}
        made = self.ec2.run_instances(**given)["Instances"][0]["InstanceId"]
        self.settle()
        return str(made)

    def furnished(self, *, unique: bool, root_gib: int | None = 12) -> str:
        """A member with all that one may have; `unique`: a data volume and a further interface too."""
        name = f"shop-{next(self.numbers)}"
        self.ec2.create_key_pair(KeyName=name)
        group = self.ec2.create_security_group(GroupName=name, Description="shop", VpcId=self.vpc)["GroupId"]
        root = {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": root_gib, "VolumeType": "gp3"}}
        self.aws.client("iam").create_instance_profile(InstanceProfileName=name)
        made = self.instance(
            KeyName=name, UserData=SCRIPT, SecurityGroupIds=[group], BlockDeviceMappings=[root] if root_gib else [],
            IamInstanceProfile={"Name": name}, Monitoring={"Enabled": True},
            MetadataOptions={"HttpTokens": "optional", "HttpPutResponseHopLimit": 2, "HttpEndpoint": "enabled"},
        )  # fmt: skip
        self.register(made, name)
        address = self.ec2.allocate_address(Domain="vpc")["AllocationId"]
        self.ec2.associate_address(AllocationId=address, InstanceId=made)
        if unique:
            volume = self.ec2.create_volume(AvailabilityZone=ZONE, Size=5)["VolumeId"]
            card = self.ec2.create_network_interface(SubnetId=self.subnet)["NetworkInterface"]["NetworkInterfaceId"]
            self.settle()
            self.ec2.attach_volume(VolumeId=volume, InstanceId=made, Device="/dev/sdf")
            self.ec2.attach_network_interface(NetworkInterfaceId=card, InstanceId=made, DeviceIndex=1)
        self.settle()
        return made

    def register(self, instance: str, name: str) -> str:
        """Register an instance in a new target group of a load balancer; returns its ARN."""
        asked = {"Name": name, "Protocol": "HTTP", "Port": 80, "VpcId": self.vpc, "TargetType": "instance"}
        group = self.balancers.create_target_group(**asked)["TargetGroups"][0]["TargetGroupArn"]
        forward = [{"Type": "forward", "TargetGroupArn": group}]
        balancer = self.balancers.create_load_balancer(Name=name, Subnets=[self.subnet])["LoadBalancers"][0]
        self.balancers.create_listener(
            LoadBalancerArn=balancer["LoadBalancerArn"], Protocol="HTTP", Port=80, DefaultActions=forward
        )
        self.balancers.register_targets(TargetGroupArn=group, Targets=[{"Id": instance, "Port": 8080}])
        return str(group)

    def settle(self) -> None:
        """Let everything that takes a while come to its end."""
        self.aws.advance(60)
        self.ec2.describe_instances()

    def shown(self, instance: str) -> dict[str, Any]:
        """An instance as its region shows it."""
        return dict(self.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0])

    def leftovers(self) -> list[str]:
        """Volumes and interfaces that hang nowhere."""
        volumes = self.ec2.describe_volumes(Filters=[{"Name": "status", "Values": ["available"]}])["Volumes"]
        cards = self.ec2.describe_network_interfaces(Filters=[{"Name": "status", "Values": ["available"]}])
        return [one["VolumeId"] for one in volumes] + [one["NetworkInterfaceId"] for one in cards["NetworkInterfaces"]]

    def clear(self) -> None:
        """End every instance, and remove what it leaves."""
        self.ec2.terminate_instances(InstanceIds=self.running())
        self.settle()
        for name in self.leftovers():
            if name.startswith("vol-"):
                self.ec2.delete_volume(VolumeId=name)
            else:
                self.ec2.delete_network_interface(NetworkInterfaceId=name)
        self.aws.advance(TAKES["vanish"])  # what has ended is listed no longer

    def running(self) -> list[str]:
        """The ids of all instances that run."""
        wanted = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
        pages = self.ec2.describe_instances(Filters=wanted)["Reservations"]
        return sorted(one["InstanceId"] for each in pages for one in each["Instances"])


def shop(aws: StrictAws, folder: Path, regions: tuple[str, ...] = ()) -> Shop:
    """An account with the releases of two days, the newer one in the channel; in further regions too.

    In an emulator of this process that nothing was asked of yet, a copy of the first one that was made there.
    """
    if not untouched(aws):
        return _made(aws, folder, regions)
    if regions in _first:
        return _first[regions].begun(aws, folder)
    made = _made(aws, folder, regions)
    _first[regions] = Opened(aws, made)
    return made


class Opened:
    """A shop as it was opened, for others to begin with."""

    def __init__(self, aws: StrictAws, made: Shop) -> None:
        self._made, self._emulator = made, Kept(aws)
        self._folder = TemporaryDirectory(prefix="shop-")
        shutil.copytree(made.cloud.settings.state_dir, Path(self._folder.name, "state"))

    def begun(self, aws: StrictAws, folder: Path) -> Shop:
        """The same in an emulator that is untouched, with its ledger and store in a folder of its own."""
        self._emulator.restore(aws)
        settings = self._made.cloud.settings.model_copy(update={"state": folder / "state"})
        shutil.copytree(Path(self._folder.name, "state"), folder / "state")
        cloud = cloud_for(settings, self._made.cloud.now)
        cloud.clients.pause = aws.advance
        return replace(self._made, aws=aws, cloud=cloud, numbers=count())


_first: dict[tuple[str, ...], Opened] = {}


def _made(aws: StrictAws, folder: Path, regions: tuple[str, ...]) -> Shop:
    settings = settings_at(aws, folder, regions=regions, share_accounts=(), share_organizations=())
    cloud = cloud_for(settings)
    cloud.clients.pause = aws.advance
    old = publish(cloud, disk(blocks=2)).release
    new = publish(at(cloud, cloud.now + DAY), disk(blocks=2, seed=2)).release
    ec2 = aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24", AvailabilityZone=ZONE)["Subnet"]["SubnetId"]
    return Shop(aws, cloud, old, new, subnet, vpc)


def key_of(member: Member, method: Method) -> Key:
    """The key of a member's replacement."""
    return Key("shop-1", member.id, member.name, member.handle, method)


class Asked:
    """A port of which what is under way is asked for again after a turn, for as long as it makes way."""

    def __init__(self, port: MemberFleet, aws: StrictAws) -> None:
        self._port = port
        self._aws = aws

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)

        def asked(*given: Any) -> Any:
            for _ in range(100):
                try:
                    return method(*given)
                except InProgressError:
                    self._aws.advance(HELD.total_seconds())
                    given = tuple(one - HELD if isinstance(one, timedelta) else one for one in given)  # of a drain
            raise AssertionError(f"{name} did not come to its end")

        return asked if callable(method) else method


class Killed(BaseException):
    """The process ended."""


@contextmanager
def killed_after(effects: int) -> Iterator[None]:
    """The process ends right after so many effects at AWS, whose last answer it never sees."""
    real, left = Client.call, [effects]

    def call(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        if operation.startswith(("Describe", "Get", "List")):
            return real(self, operation, **request)
        if left[0] == 0:
            raise Killed
        answer = real(self, operation, **request)
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return answer

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Client, "call", call)
        yield
