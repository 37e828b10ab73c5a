"""Edge: Auto Scaling groups as a fleet that the service rolls: an instance refresh to a version of a launch template.

A rollout's version carries its name in the description, and its refresh is the one to that version: a repeated call
finds both. Everything is by version number, never `$Latest` or `$Default`, which AWS could not bring back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from hardening.foundation.errors import OutsideError, RefusedError
from images.aws.client import AwsError, Client
from images.aws.cloud import Cloud
from pipelines.fleet.delegated import Group, Pacing, Progress, Watched
from pipelines.fleet.ec2.amis import image_of
from pipelines.fleet.ec2.inventory import read_fleet, specification
from pipelines.fleet.ec2.pacing import preferences
from pipelines.fleet.ec2.requests import token
from pipelines.fleet.leavings import BACK as BACK_NAME
from pipelines.fleet.members import Target
from pipelines.fleet.model import Fleet

Json = dict[str, Any]
SYMBOLIC = ("$Latest", "$Default")
GOES_ON = ("Pending", "InProgress", "Baking")
GOING_BACK = ("MinHealthyPercentage", "MaxHealthyPercentage", "InstanceWarmup", "ScaleInProtectedInstances",
              "StandbyInstances")  # fmt: skip
ATTEMPT = re.compile(r"-[1-9][0-9]?$")
OVER = "ActiveInstanceRefreshNotFound"
STANDS = {
    "Pending": Progress.RUNNING,
    "InProgress": Progress.RUNNING,
    "Baking": Progress.RUNNING,
    "Cancelling": Progress.RUNNING,
    "Successful": Progress.DONE,
    "Failed": Progress.FAILED,
    "Cancelled": Progress.CANCELLED,
    "RollbackInProgress": Progress.ROLLING_BACK,
    "RollbackSuccessful": Progress.ROLLED_BACK,
    "RollbackFailed": Progress.FAILED,
}
BACK = {Progress.RUNNING: Progress.ROLLING_BACK, Progress.DONE: Progress.ROLLED_BACK}


@dataclass(frozen=True)
class _Place:
    """The clients of a group's region, and its name there."""

    cloud: Cloud
    ec2: Client
    scaling: Client
    name: str


class AutoScalingFleet:
    """The Auto Scaling groups of `fleet`."""

    def __init__(self, fleet: Fleet, cloud: Cloud) -> None:
        self.fleet = fleet
        self.cloud = cloud

    def groups(self) -> tuple[Group, ...]:
        """Every group of the selector. Raises OutsideError where a region cannot be read."""
        inventory = read_fleet(self.fleet, self.cloud)
        if inventory.unread:
            shown = "\n".join(f"{one.id}: {one.why}" for one in inventory.unread)
            raise OutsideError("not every region of the fleet can be read", evidence=shown)
        return tuple(self._group(account, region, shown) for account, region, shown in inventory.groups)

    def _group(self, account: str, region: str, shown: Json) -> Group:
        name = shown["AutoScalingGroupName"]
        good = [one for one in shown.get("Instances", ())
                if (one["LifecycleState"], one["HealthStatus"]) == ("InService", "Healthy")]  # fmt: skip
        which = f"{account}/{region}/autoscaling/{name}"
        group = Group(which, name, int(shown["DesiredCapacity"]), len(good))
        named = specification(shown)
        if named is None:
            why = "it starts from a launch configuration, which has no versions: give it a launch template"
            return replace(group, cannot_roll=why, runs=str(shown.get("LaunchConfigurationName", "")))
        found = self._version(self._place(which), named["LaunchTemplateId"], str(named.get("Version", "$Default")))
        runs = f"{found['LaunchTemplateId']} version {found['VersionNumber']}"
        return replace(group, cannot_roll=_cannot_roll(shown, found), runs=runs)

    def pin(self, rollout: str, group: Group) -> Json:  # noqa: ARG002 - the port says it
        """The version of the launch template that the group runs now, by number."""
        place = self._place(group.id)
        named = specification(self._shown(place))
        if named is None:
            raise OutsideError(f"{group.name} has no launch template by now")
        found = self._version(place, named["LaunchTemplateId"], str(named.get("Version", "$Default")))
        return {"template": found["LaunchTemplateId"], "version": int(found["VersionNumber"])}

    def begin(self, rollout: str, group: Group, target: Target, pinned: Json, pacing: Pacing) -> None:
        """Start the refresh to a version with the target's image; one that was cancelled is started again.

        Raises RefusedError where the group has left the version that was pinned.
        """
        place = self._place(group.id)
        made = self._versions(place, rollout, pinned["template"])
        found = self._refreshes(place, pinned["template"], {made[0]}) if made else []
        if found and found[0]["Status"] != "Cancelled":
            return
        self._hold(place, group, pinned)  # first: $Latest would mean the new version as soon as there is one
        version = made[0] if made else self._make(place, rollout, group, target, pinned)
        self._start(place, pinned["template"], version, preferences(pacing))

    def watch(self, rollout: str, group: Group) -> Watched:
        """One look at the refresh, or at the one that takes it back; a group without a version of ours never left.

        Raises OutsideError where the refresh cannot be seen yet.
        """
        place = self._place(group.id)
        newest, back = self._newest(place, rollout)
        if newest is None:
            if not self._made(place, rollout):
                return Watched(Progress.ROLLED_BACK, 0, "nothing was begun")
            raise OutsideError(f"no instance refresh of {rollout} is known of {group.name}")
        progress = STANDS[newest["Status"]]
        stands = BACK.get(progress, progress) if back else progress
        since = newest.get("StartTime")
        return Watched(stands, int(newest.get("PercentageComplete", 0)), newest.get("StatusReason", ""), since)

    def cancel(self, rollout: str, group: Group) -> None:
        """Cancel the refresh, if it goes on; returns when that is accepted."""
        place = self._place(group.id)
        newest, _ = self._newest(place, rollout)
        if newest and newest["Status"] in GOES_ON:
            self._accepted(place, "CancelInstanceRefresh")

    def roll_back(self, rollout: str, group: Group, pinned: Json) -> None:
        """Let AWS roll the refresh back; where it is over, start one to the version that was pinned."""
        place = self._place(group.id)
        newest, back = self._newest(place, rollout)
        if newest is None or back or newest["Status"].startswith("Rollback"):
            return
        if newest["Status"] in GOES_ON and self._accepted(place, "RollbackInstanceRefresh"):
            return
        place.cloud.clients.until(lambda: self._is_over(place, rollout), f"the refresh of {group.name} to end")
        kept = {key: value for key, value in newest["Preferences"].items() if key in GOING_BACK}
        self._start(place, pinned["template"], int(pinned["version"]), {**kept, "SkipMatching": True})

    def _is_over(self, place: _Place, rollout: str) -> bool:
        newest, _ = self._newest(place, rollout)
        return newest is None or newest["Status"] not in (*GOES_ON, "Cancelling")

    def _newest(self, place: _Place, rollout: str) -> tuple[Json | None, bool]:
        """The last refresh of a rollout, and whether it is one that takes the rollout's back."""
        if not (made := self._made(place, rollout)):
            return None, False
        template, version, before = made
        found = self._refreshes(place, template, {version, before})
        numbers = [_number(one) for one in found]
        if version not in numbers:
            return None, False
        return found[0], numbers[0] == before

    def _made(self, place: _Place, rollout: str) -> tuple[str, int, int] | None:
        """The group's template, with the version that a rollout made of it and the one before."""
        named = specification(self._shown(place))
        template = str(named["LaunchTemplateId"]) if named else ""
        found = self._versions(place, rollout, template) if template else None
        return (template, *found) if found else None

    def _versions(self, place: _Place, rollout: str, template: str) -> tuple[int, int] | None:
        """The version that a rollout made, and the one that it was made from; None where it made none."""
        mine = f"{stem(rollout)} from "
        pages = place.ec2.pages("DescribeLaunchTemplateVersions", "LaunchTemplateVersions", LaunchTemplateId=template)
        for one in pages:
            if (said := one.get("VersionDescription", "")).startswith(mine):
                return int(one["VersionNumber"]), int(said.removeprefix(mine))
        return None

    def _make(self, place: _Place, rollout: str, group: Group, target: Target, pinned: Json) -> int:
        """A version that differs from the pinned one by its image, and allows IMDSv2 only."""
        source = self._version(place, pinned["template"], str(pinned["version"]))["LaunchTemplateData"]
        metadata = {key: value for key, value in source.get("MetadataOptions", {}).items() if key != "State"}
        answer = place.ec2.call(
            "CreateLaunchTemplateVersion",
            LaunchTemplateId=pinned["template"],
            SourceVersion=str(pinned["version"]),
            VersionDescription=f"{stem(rollout)} from {pinned['version']}",
            ClientToken=token(stem(rollout), group.id, "version"),
            LaunchTemplateData={
                "ImageId": image_of(self.cloud, target, place.ec2.region),
                "MetadataOptions": {**metadata, "HttpTokens": "required"},
            },
        )
        return int(answer["LaunchTemplateVersion"]["VersionNumber"])

    def _hold(self, place: _Place, group: Group, pinned: Json) -> None:
        """Let the group name its version by number, so that AWS can bring it back."""
        named = specification(self._shown(place)) or {}
        present = self._version(place, pinned["template"], str(named.get("Version", "$Default")))
        if int(present["VersionNumber"]) != pinned["version"]:
            raise RefusedError(
                f"{group.name} is at version {present['VersionNumber']} of its launch template by now, and "
                f"{pinned['version']} was pinned",
                hint="somebody else has changed it: plan again",
            )
        if str(named.get("Version", "$Default")) in SYMBOLIC:
            exact = {"LaunchTemplateId": pinned["template"], "Version": str(pinned["version"])}
            place.scaling.call("UpdateAutoScalingGroup", AutoScalingGroupName=place.name, LaunchTemplate=exact)

    def _start(self, place: _Place, template: str, version: int, asked: Json) -> None:
        """Start a refresh, once: the service takes no token, and lets one go on at a time."""
        desired = {"LaunchTemplate": {"LaunchTemplateId": template, "Version": str(version)}}
        try:
            place.scaling.call(
                "StartInstanceRefresh", AutoScalingGroupName=place.name, DesiredConfiguration=desired,
                Preferences=asked,
            )  # fmt: skip
        except AwsError as error:
            begun = [one["Status"] for one in self._refreshes(place, template, {version})]
            if error.code != "InstanceRefreshInProgress" or not begun or begun[0] not in GOES_ON:
                raise

    def _accepted(self, place: _Place, operation: str) -> bool:
        """Whether the service takes a request about the refresh that goes on; not, where it is over."""
        try:
            place.scaling.call(operation, AutoScalingGroupName=place.name)
        except AwsError as error:
            if error.code in (OVER, "IrreversibleInstanceRefresh"):
                return False
            raise
        return True

    def _refreshes(self, place: _Place, template: str, versions: set[int]) -> list[Json]:
        """The group's refreshes to these versions of a template, the newest first."""
        found = place.scaling.pages("DescribeInstanceRefreshes", "InstanceRefreshes", AutoScalingGroupName=place.name)
        return [one for one in found if _number(one) in versions and _template(one) == template]

    def _shown(self, place: _Place) -> Json:
        answer = place.scaling.call("DescribeAutoScalingGroups", AutoScalingGroupNames=[place.name])
        if not answer["AutoScalingGroups"]:
            raise OutsideError(f"the Auto Scaling group {place.name} is gone from {place.scaling.region}")
        shown: Json = answer["AutoScalingGroups"][0]
        return shown

    def _version(self, place: _Place, template: str, version: str) -> Json:
        asked = {"LaunchTemplateId": template, "Versions": [version]}
        found: Json = place.ec2.call("DescribeLaunchTemplateVersions", **asked)["LaunchTemplateVersions"][0]
        return found

    def _place(self, group: str) -> _Place:
        account, region, _, name = group.split("/", 3)
        ec2, scaling = self.cloud.client("ec2", region, account), self.cloud.client("autoscaling", region, account)
        return _Place(self.cloud, ec2, scaling, name)


def _cannot_roll(group: Json, version: Json) -> str:
    """Why AWS could not bring the group back, or may not roll it."""
    if group.get("MixedInstancesPolicy"):
        return "it has a mixed instances policy, whose other templates an image cannot be given to"
    if str(version["LaunchTemplateData"].get("ImageId", "")).startswith("resolve:ssm:"):
        return (
            f"version {version['VersionNumber']} of its launch template takes the image from a parameter, so that "
            "AWS could not go back to it: give the group a version with an image's id"
        )
    return ""


def stem(rollout: str) -> str:
    """The rollout that made the version: resuming it, and going back later, are known under longer names."""
    return ATTEMPT.sub("", rollout.removesuffix(BACK_NAME))


def _desired(refresh: Json) -> Json:
    named: Json = refresh.get("DesiredConfiguration", {}).get("LaunchTemplate", {})
    return named


def _template(refresh: Json) -> str:
    return str(_desired(refresh).get("LaunchTemplateId", ""))


def _number(refresh: Json) -> int:
    """The version that a refresh goes to; 0 where it names none by number."""
    said = str(_desired(refresh).get("Version", ""))
    return int(said) if said.isdigit() else 0
