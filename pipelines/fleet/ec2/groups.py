"""Edge: Auto Scaling groups as a fleet that the service rolls: an instance refresh to a launch template version."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hardening.foundation.errors import OutsideError, RefusedError, understood
from images.aws.client import AwsError
from images.aws.cloud import Cloud
from images.aws.permissions import ROLLER, permit
from images.aws.tags import as_dict
from pipelines.fleet.delegated import ALL, ROLL_ANYWAY, STACK, TOOL, TOOLS
from pipelines.fleet.ec2.instance_spec import Json
from pipelines.fleet.ec2.members import Inventory, group_id, read_fleet, specification
from pipelines.fleet.ec2.pacing import pacing, preferences
from pipelines.fleet.ec2.templates import LaunchTemplates
from pipelines.fleet.members import ReplacementImage
from pipelines.fleet.model import Fleet
from pipelines.fleet.port import Group, GroupPin, InProgressError, Pacing, Progress, UnseenError, Watched
from pipelines.fleet.rollout_targets import GROUP, MACHINES, launch_from_template

PERMISSIONS = (
    permit("autoscaling:DescribeAutoScalingGroups autoscaling:DescribeInstanceRefreshes", ROLLER, on=MACHINES),
    permit("autoscaling:StartInstanceRefresh autoscaling:UpdateAutoScalingGroup", ROLLER, on=GROUP),
    permit("autoscaling:CancelInstanceRefresh autoscaling:RollbackInstanceRefresh", ROLLER, on=GROUP),
    *launch_from_template("StartInstanceRefresh UpdateAutoScalingGroup"),
)

SYMBOLIC = ("$Latest", "$Default")
GOES_ON = ("Pending", "InProgress", "Baking")
OVER = {"ActiveInstanceRefreshNotFound", "IrreversibleInstanceRefresh"}
YIELD = f"or let it ignore the group's template, and tag the group {ROLL_ANYWAY}=yes"


@dataclass(frozen=True)
class Owner:
    """Another tool that sets a group's launch template: the tag that it leaves, and how that tool changes the image.

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
        "CloudFormation", STACK,
        "let the stack take the image from the channel's parameter, and update it",
    ),
    Owner(
        "{value}", TOOL,
        "let it take the image from the channel's parameter, and apply it",
        value=TOOLS,
    ),
)  # fmt: skip


class ScalingGroup(LaunchTemplates):
    """A group as its region's clients show it. Each look is a new one."""

    def __init__(self, cloud: Cloud, group: Group) -> None:
        account, region, _, self.name = group.id.split("/", 3)
        super().__init__(cloud, account, region)
        self.scaling = cloud.client("autoscaling", region, account)

    def named(self) -> tuple[str, str] | None:
        """The launch template that it starts from, and the version as its settings say it."""
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
            raise OutsideError(f"{self.name} no longer has a launch template")
        found = self.version(*named)
        return str(found["LaunchTemplateId"]), int(found["VersionNumber"]), named[1]

    def refresh(self, template: str, version: int, asked: Json) -> None:
        """Start a refresh, once: the service takes no token, and lets one go on at a time."""
        desired = {"LaunchTemplate": {"LaunchTemplateId": template, "Version": str(version)}}
        request = {"AutoScalingGroupName": self.name, "DesiredConfiguration": desired, "Preferences": asked}
        try:
            self.scaling.call("StartInstanceRefresh", **request)
        except AwsError as error:
            begun = self.refreshes(template, {version})
            same = begun and begun[0]["Status"] in GOES_ON and reach(begun[0]["Preferences"]) == reach(asked)
            if error.code != "InstanceRefreshInProgress" or not same:
                raise

    def accepted(self, operation: str) -> bool:
        """Whether the service takes a request about the refresh that goes on; not, where it is over."""
        return self.scaling.call_unless(operation, OVER, AutoScalingGroupName=self.name) is not None

    def refreshes(self, template: str, versions: set[int]) -> list[Json]:
        """Its refreshes to these versions of a template, the newest first."""
        found = self.scaling.pages("DescribeInstanceRefreshes", "InstanceRefreshes", AutoScalingGroupName=self.name)
        return [one for one in found if number(one) in versions and _desired(one).get("LaunchTemplateId") == template]

    def made(self, rollout: str, template: str = "") -> _Made | None:
        """The version that a rollout made, the one before, and its refreshes; None where it made none.

        By default it is of the template that the group has now.
        """
        if not template:
            template, _ = self.named() or ("", "")
        if template and (found := self.made_for(rollout, self.name, template)):
            return _Made(template, *found, tuple(self.refreshes(template, {*found})))
        return None


def owner_of(tags: Mapping[str, str]) -> str:
    """Why a group with these tags is another tool's to roll, and how to go on; empty where no tool owns it.

    Such a tool would set the template back, or lose what runs on the instances. The tag `dev.goldsmith.roll=yes` says
    that one which can yield ignores changes of the template.
    """
    for owner in OWNERS:
        for key, value in tags.items():
            owns = re.fullmatch(owner.tag, key) and re.fullmatch(owner.value, value)
            if owns and not (owner.yields and tags.get(ROLL_ANYWAY) == "yes"):
                why = f"its tag {key} says that it belongs to {owner.name.format(value=value)}: {owner.instead}"
                return f"{why}; {YIELD}" if owner.yields else why
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
    return dict(refresh.get("DesiredConfiguration", {}).get("LaunchTemplate", {}))


GOING_BACK = ("MinHealthyPercentage", "MaxHealthyPercentage", "InstanceWarmup", "ScaleInProtectedInstances",
              "StandbyInstances")  # fmt: skip
STANDS = {
    **dict.fromkeys((*GOES_ON, "Cancelling"), Progress.RUNNING),
    **dict.fromkeys(("Failed", "RollbackFailed"), Progress.FAILED),
    "Successful": Progress.DONE,
    "Cancelled": Progress.CANCELLED,
    "RollbackInProgress": Progress.ROLLING_BACK,
    "RollbackSuccessful": Progress.ROLLED_BACK,
}
BACK = {Progress.RUNNING: Progress.ROLLING_BACK, Progress.DONE: Progress.ROLLED_BACK}
IN_PART = "what an earlier refresh of this rollout has replaced still runs the new version"


@dataclass(frozen=True)
class _Made:
    """What a rollout did to a group: the `version` of the template that it made, from `before`; its refreshes."""

    template: str
    version: int
    before: int
    refreshes: tuple[Json, ...]

    @property
    def newest(self) -> Json | None:
        """The last refresh; none before the first to the new version."""
        begun = any(number(one) == self.version for one in self.refreshes)
        return self.refreshes[0] if begun else None

    @property
    def back(self) -> bool:
        """Whether the last one takes the rollout back."""
        return self.newest is not None and number(self.newest) == self.before

    @property
    def in_part(self) -> bool:
        """Whether AWS has rolled the last one back, which an earlier one had gone before.

        "Amazon EC2 Auto Scaling replaces any instances that were replaced during the instance refresh", and no others,
        says the API reference of RollbackInstanceRefresh.
        """
        newest = self.newest
        rolled = newest is not None and newest["Status"] == "RollbackSuccessful"
        return rolled and any(one["Status"] in ("Successful", "Cancelled") for one in self.refreshes[1:])


class AutoScalingFleet:
    """The Auto Scaling groups of `fleet`."""

    def __init__(self, fleet: Fleet, cloud: Cloud) -> None:
        self.fleet = fleet
        self.cloud = cloud

    @understood("EC2")
    def groups(self) -> tuple[Group, ...]:
        """Every group of the selector. Raises OutsideError where a region cannot be read."""
        return self.groups_in(read_fleet(self.fleet, self.cloud).whole())

    def groups_in(self, inventory: Inventory) -> tuple[Group, ...]:
        """The groups of an inventory, with what they start members from."""
        return tuple(self._group(where, shown) for where, shown in inventory.groups)

    def _group(self, where: str, shown: Json) -> Group:
        name = shown["AutoScalingGroupName"]
        good = [one for one in shown.get("Instances", ())
                if (one["LifecycleState"], one["HealthStatus"]) == ("InService", "Healthy")]  # fmt: skip
        group = Group(group_id(where, name), name, int(shown["DesiredCapacity"]), len(good))
        named = specification(shown)
        if named is None:
            why = "it starts from a launch configuration, which has no versions: give it a launch template"
            return replace(group, cannot_roll=why, runs=str(shown.get("LaunchConfigurationName", "")))
        found = ScalingGroup(self.cloud, group).version(*named)
        runs = f"{found['LaunchTemplateId']} version {found['VersionNumber']}"
        return replace(group, cannot_roll=_cannot_roll(shown, found), runs=runs)

    @understood("EC2")
    def pin(self, group: Group) -> GroupPin:
        """The version of the launch template that the group runs now, by number."""
        template, version, _ = ScalingGroup(self.cloud, group).present()
        return GroupPin(template, version)

    @understood("EC2")
    def pace(self, group: Group, allowed: int) -> Pacing:
        """The pace that the fleet's limits ask for. Raises RefusedError where no percentage says what they mean."""
        return pacing(self.fleet.limits, group.desired, allowed)

    @understood("EC2")
    def begin(self, rollout: str, group: Group, target: ReplacementImage, pinned: GroupPin, pacing: Pacing) -> None:
        """Start the refresh to a version with the target's image; one that was cancelled is started again, and one
        that ended with its canary is followed by one that goes further.

        Raises RefusedError where the group has left the version that was pinned.
        """
        at, asked = ScalingGroup(self.cloud, group), preferences(pacing)
        made = at.made(rollout, pinned.template)
        begun = [one for one in made.refreshes if number(one) == made.version] if made else []
        if begun and begun[0]["Status"] != "Cancelled" and reach(begun[0]["Preferences"]) >= reach(asked):
            return
        self._hold(at, pinned, made)  # first: $Latest would mean the new version as soon as there is one
        version = at.make(rollout, at.name, group.id, target, pinned)
        at.refresh(pinned.template, version, asked)

    @understood("EC2")
    def hold(self, rollout: str, group: Group, pinned: GroupPin) -> None:
        """Let the group start from the pinned version until the rest of it is rolled.

        A refresh that was successful has made its own version the group's, a canary's as well: whatever scales out
        meanwhile would be new, and AWS would roll the rest back to the canary's version. Raises RefusedError.
        """
        at = ScalingGroup(self.cloud, group)
        self._hold(at, pinned, at.made(rollout, pinned.template))

    @understood("EC2")
    def watch(self, rollout: str, group: Group) -> Watched:
        """One look at the refresh, or at the one that takes it back; a group without a version of ours never left.

        Raises UnseenError where there is a version and no refresh to it: AWS has refused that, or does not show it yet.
        """
        at = ScalingGroup(self.cloud, group)
        made = at.made(rollout)
        if made is None:
            return Watched(Progress.ROLLED_BACK, 0, "nothing was begun")
        if made.newest is None:
            unseen = UnseenError if at.present()[1] == made.before else OutsideError
            raise unseen(f"no instance refresh of {rollout} is known of {group.name}")
        progress, said = STANDS[made.newest["Status"]], made.newest.get("StatusReason", "")
        stands = BACK.get(progress, progress) if made.back else progress
        if made.in_part:
            stands, said = Progress.CANCELLED, f"{said}: {IN_PART}"
        return Watched(stands, int(made.newest.get("PercentageComplete", 0)), said, made.newest.get("StartTime"))

    @understood("EC2")
    def cancel(self, rollout: str, group: Group, _pinned: GroupPin) -> None:
        """Cancel the refresh, if it goes on; returns when that is accepted."""
        at = ScalingGroup(self.cloud, group)
        made = at.made(rollout)
        if made and made.newest and made.newest["Status"] in GOES_ON:
            at.accepted("CancelInstanceRefresh")

    @understood("EC2")
    def way_back(self, rollout: str, group: Group, pinned: GroupPin) -> str:
        """Why the group cannot go back to what was pinned; empty where it can."""
        at = ScalingGroup(self.cloud, group)
        template, version, _ = at.present()
        if template != pinned.template:
            return f"{group.name} now starts from another launch template: somebody else has changed it"
        made = at.made(rollout, template)
        if version not in {pinned.version, made.version if made else 0}:
            return f"{group.name} now starts from version {version}, set by somebody else"
        return at.gone(group.name, pinned)

    @understood("EC2")
    def roll_back(self, rollout: str, group: Group, pinned: GroupPin) -> None:
        """Let AWS roll the refresh back; where it is over, start one to the version that was pinned, by its number.

        Raises RefusedError where there is no way back.
        """
        at = ScalingGroup(self.cloud, group)
        made = at.made(rollout)
        if made is None or made.newest is None:
            return
        stands = made.newest["Status"]
        if stands in ("RollbackInProgress", "RollbackSuccessful") and not made.in_part:
            return
        if made.back and stands in (*GOES_ON, "Cancelling", "Successful"):
            return
        if stands in GOES_ON and at.accepted("RollbackInstanceRefresh"):
            return
        now = at.made(rollout)
        if now and now.newest and now.newest["Status"] in (*GOES_ON, "Cancelling"):
            raise InProgressError(f"the refresh of {group.name} to end")
        if why := self.way_back(rollout, group, pinned):
            raise RefusedError(why, hint="nothing was done; build and roll what shall run instead")
        kept = {key: value for key, value in made.newest["Preferences"].items() if key in GOING_BACK}
        at.refresh(pinned.template, int(pinned.version), {**kept, "SkipMatching": True})

    def _hold(self, at: ScalingGroup, pinned: GroupPin, made: _Made | None) -> None:
        """Let the group name its version by number, so that AWS can bring it back."""
        template, version, said = at.present()
        if template != pinned.template or version not in {pinned.version, made.version if made else 0}:
            by_now = f"{at.name} is now at version {version} of {template}"
            why = f"{by_now}, and {pinned.version} of {pinned.template} was pinned"
            raise RefusedError(why, hint="somebody else has changed it: plan again")
        if said in SYMBOLIC or version != pinned.version:
            exact = {"LaunchTemplateId": pinned.template, "Version": str(pinned.version)}
            at.scaling.call("UpdateAutoScalingGroup", AutoScalingGroupName=at.name, LaunchTemplate=exact)


def _cannot_roll(group: Json, version: Json) -> str:
    """Why AWS could not bring the group back, or may not roll it."""
    if owner := owner_of(as_dict(group.get("Tags"))):
        return owner
    if group.get("MixedInstancesPolicy"):
        return "it has a mixed instances policy, whose other templates an image cannot be given to"
    if str(version["LaunchTemplateData"].get("ImageId", "")).startswith("resolve:ssm:"):
        return (
            f"version {version['VersionNumber']} of its launch template takes the image from a parameter, so that "
            "AWS could not go back to it: give the group a version with an image's id"
        )
    return ""
