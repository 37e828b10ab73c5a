"""Edge: one Auto Scaling group at AWS: its settings, the versions of its launch template, its instance refreshes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hardening.foundation.errors import OutsideError
from images.aws.amis import NO_SUCH_IMAGE
from images.aws.client import AwsError
from images.aws.cloud import Cloud
from pipelines.fleet.delegated import Group
from pipelines.fleet.ec2.inventory import specification
from pipelines.fleet.leavings import OWN_LABELS

Json = dict[str, Any]
SYMBOLIC = ("$Latest", "$Default")
GOES_ON = ("Pending", "InProgress", "Baking")
ALL = 100  # percent
OVER = "ActiveInstanceRefreshNotFound"
ROLL_ANYWAY = f"{OWN_LABELS}roll"


@dataclass(frozen=True)
class Owner:
    """Another tool that sets a group's launch template: the tag that it leaves, and its own way to a new image.

    `yields`: it can be told to leave the template to us. `name` may hold the tag's `{value}`.
    """

    name: str
    tag: str
    instead: str
    value: str = ".*"
    yields: bool = True


OWNERS = (
    Owner(
        "EKS", r"eks:.*|k8s\.io/cluster-autoscaler/.*|kubernetes\.io/cluster/.*",
        "set the node group's launch template version by UpdateNodegroupVersion, which drains its pods", yields=False,
    ),
    Owner(
        "an ECS capacity provider", "AmazonECSManaged",
        "drain the container instances by ECS, and let the capacity provider start new ones", yields=False,
    ),
    Owner("Elastic Beanstalk", "elasticbeanstalk:environment-.*", "set the environment's option ImageId", yields=False),
    Owner(
        "CloudFormation", "aws:cloudformation:stack-.*",
        "let the stack take the image from the channel's parameter, and update it",
    ),
    Owner(
        "{value}", "(?i)(managed|created)[-_ ]?by|provisioner",
        "let it take the image from the channel's parameter, and apply it",
        value="(?i).*(terraform|opentofu|pulumi|crossplane).*",
    ),
)  # fmt: skip


class ScalingGroup:
    """A group as its region's clients show it. Each look is a new one."""

    def __init__(self, cloud: Cloud, group: Group) -> None:
        account, self.region, _, self.name = group.id.split("/", 3)
        self.cloud = cloud
        self.ec2 = cloud.client("ec2", self.region, account)
        self.scaling = cloud.client("autoscaling", self.region, account)

    def named(self) -> Json | None:
        """The launch template that it starts from, with the version as its settings say it."""
        answer = self.scaling.call("DescribeAutoScalingGroups", AutoScalingGroupNames=[self.name])
        if not answer["AutoScalingGroups"]:
            raise OutsideError(f"the Auto Scaling group {self.name} is gone from {self.region}")
        return specification(answer["AutoScalingGroups"][0])

    def present(self) -> tuple[str, int, str]:
        """The template that it starts from, the number of the version, and how the settings say that one.

        Raises OutsideError where it has none.
        """
        named = self.named()
        if named is None:
            raise OutsideError(f"{self.name} has no launch template by now")
        said = str(named.get("Version", "$Default"))
        found = self.version(named["LaunchTemplateId"], said)
        return str(found["LaunchTemplateId"]), int(found["VersionNumber"]), said

    def version(self, template: str, version: str) -> Json:
        """One version of a launch template."""
        asked = {"LaunchTemplateId": template, "Versions": [version]}
        found: Json = self.ec2.call("DescribeLaunchTemplateVersions", **asked)["LaunchTemplateVersions"][0]
        return found

    def versions(self, template: str) -> list[Json]:
        """Every version that there is."""
        return list(
            self.ec2.pages("DescribeLaunchTemplateVersions", "LaunchTemplateVersions", LaunchTemplateId=template)
        )

    def has_image(self, image: str) -> bool:
        """Whether an image can be started from here."""
        try:
            found = self.ec2.call("DescribeImages", ImageIds=[image])["Images"]
        except AwsError as error:
            if error.code in NO_SUCH_IMAGE:
                return False
            raise
        return any(one["State"] == "available" for one in found)

    def start_from(self, template: str, version: int) -> None:
        """Let its settings name this version, by number."""
        exact = {"LaunchTemplateId": template, "Version": str(version)}
        self.scaling.call("UpdateAutoScalingGroup", AutoScalingGroupName=self.name, LaunchTemplate=exact)

    def refresh(self, template: str, version: int, asked: Json) -> None:
        """Start a refresh, once: the service takes no token, and lets one go on at a time."""
        desired = {"LaunchTemplate": {"LaunchTemplateId": template, "Version": str(version)}}
        try:
            self.scaling.call(
                "StartInstanceRefresh", AutoScalingGroupName=self.name, DesiredConfiguration=desired,
                Preferences=asked,
            )  # fmt: skip
        except AwsError as error:
            begun = self.refreshes(template, {version})
            same = begun and begun[0]["Status"] in GOES_ON and reach(begun[0]["Preferences"]) == reach(asked)
            if error.code != "InstanceRefreshInProgress" or not same:
                raise

    def accepted(self, operation: str) -> bool:
        """Whether the service takes a request about the refresh that goes on; not, where it is over."""
        try:
            self.scaling.call(operation, AutoScalingGroupName=self.name)
        except AwsError as error:
            if error.code in (OVER, "IrreversibleInstanceRefresh"):
                return False
            raise
        return True

    def refreshes(self, template: str, versions: set[int]) -> list[Json]:
        """Its refreshes to these versions of a template, the newest first."""
        found = self.scaling.pages("DescribeInstanceRefreshes", "InstanceRefreshes", AutoScalingGroupName=self.name)
        return [one for one in found if number(one) in versions and _desired(one).get("LaunchTemplateId") == template]


def owner_of(tags: Mapping[str, str]) -> str:
    """Why a group with these tags is another tool's to roll, and how to go on; empty where no tool owns it.

    Such a tool would set the template back, or lose what runs on the instances. The tag `dev.goldsmith.roll=yes` says
    that one which can yield ignores changes of the template.
    """
    for owner in OWNERS:
        for key, value in tags.items():
            if not (re.fullmatch(owner.tag, key) and re.fullmatch(owner.value, value)):
                continue
            if owner.yields and tags.get(ROLL_ANYWAY) == "yes":
                continue
            way = (
                f"; or let it ignore the group's template, and tag the group {ROLL_ANYWAY}=yes" if owner.yields else ""
            )
            return f"its tag {key} says that it belongs to {owner.name.format(value=value)}: {owner.instead}{way}"
    return ""


def reach(preferences: Json) -> int:
    """The percentage of the group that is new when such a refresh is successful.

    "The percentage of the Auto Scaling group that needs to be successfully replaced is indicated by the last value
    shown in the CheckpointPercentages array", says the EC2 Auto Scaling User Guide, "Add checkpoints".
    """
    return int((preferences.get("CheckpointPercentages") or [ALL])[-1])


def number(refresh: Json) -> int:
    """The version that a refresh goes to; 0 where it names none by number."""
    said = str(_desired(refresh).get("Version", ""))
    return int(said) if said.isdigit() else 0


def _desired(refresh: Json) -> Json:
    named: Json = refresh.get("DesiredConfiguration", {}).get("LaunchTemplate", {})
    return named
