"""Instance refreshes of Auto Scaling groups: what may be asked, one at a time, and how they are shown."""

from __future__ import annotations

import uuid
from itertools import pairwise
from typing import Any

from tests.strict_aws import groups, instances, listing, rolling, tags
from tests.strict_aws.errors import AwsError
from tests.strict_aws.groups import Version
from tests.strict_aws.rolling import ACTIVE, Refresh
from tests.strict_aws.wire import Call
from tests.strict_aws.world import World

USUAL = {
    "MinHealthyPercentage": 90,
    "SkipMatching": False,
    "AutoRollback": False,
    "ScaleInProtectedInstances": "Wait",
    "StandbyInstances": "Wait",
}


def bad(message: str) -> AwsError:
    return AwsError("ValidationError", message, 400)


def group_of(call: Call) -> Any:
    """moto's group. Raises AwsError where it is not there."""
    from moto.autoscaling import autoscaling_backends

    name = call.params["AutoScalingGroupName"]
    group = autoscaling_backends[call.account][call.region].autoscaling_groups.get(name)
    if group is None:
        raise bad(f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found")
    return group


def of(world: World, group: Any) -> list[Refresh]:
    """A group's refreshes, the newest first."""
    return [one for one in reversed(world.refreshes) if one.group is group]


def active(world: World, group: Any) -> Refresh | None:
    return next((one for one in of(world, group) if one.status in ACTIVE), None)


def start(world: World, call: Call) -> dict[str, Any]:
    """One at a time for a group, to a configuration that is there."""
    group, params = group_of(call), call.params
    if params.get("Strategy", "Rolling") != "Rolling":
        raise AwsError("NotImplemented", f"the emulator has no strategy {params['Strategy']}", 501)
    if active(world, group):
        raise AwsError("InstanceRefreshInProgress", f"An Instance Refresh is already in progress for {group.name}", 400)
    desired = params.get("DesiredConfiguration", {})
    preferences = preferred(group, params.get("Preferences", {}))
    new = configured(world, call, group, desired)
    refresh = Refresh(str(uuid.uuid4()), group, world.now(), preferences, desired, groups.own_version(group), new)
    if preferences["AutoRollback"] and (why := irreversible(refresh)):
        raise bad(f"AutoRollback cannot be used: {why}")
    world.refreshes.append(refresh)
    world.after("refresh", lambda: rolling.begin(world, refresh))
    world.timeline.watchers.append(lambda: rolling.look(world, refresh))
    return {"InstanceRefreshId": refresh.id}


def configured(world: World, call: Call, group: Any, desired: dict[str, Any]) -> Version | None:
    """The exact version of the desired configuration, or of the group's own."""
    mixed = desired.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {}).get("LaunchTemplateSpecification")
    named = desired.get("LaunchTemplate") or mixed
    if not named:
        return groups.own_version(group)
    try:
        instances.launchable(world, call, instances.template_data(call, named).get("ImageId"))
    except AwsError as error:
        raise bad(f"You must use a valid fully-formed launch template. {error.message}") from error
    return groups.version_of(tags.backend(call.account, call.region), named)


def preferred(group: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """The preferences with AWS's defaults. Raises AwsError for those that do not go together."""
    if "MaxHealthyPercentage" in asked and "MinHealthyPercentage" not in asked:
        raise bad("MaxHealthyPercentage needs MinHealthyPercentage")
    if asked.get("MaxHealthyPercentage", 0) - asked.get("MinHealthyPercentage", 90) > 100:
        raise bad("MaxHealthyPercentage is more than 100 above MinHealthyPercentage")
    points = asked.get("CheckpointPercentages", [])
    if "CheckpointDelay" in asked and not points:
        raise bad("CheckpointDelay needs CheckpointPercentages")
    if any(not 1 <= one <= 100 for one in points) or any(one >= other for one, other in pairwise(points)):
        raise bad("CheckpointPercentages must be unique, ascending, from 1 to 100")
    if len(asked.get("AlarmSpecification", {}).get("Alarms", [])) > 10:
        raise bad("At most 10 alarms")
    warmup = {"InstanceWarmup": int(group.health_check_grace_period or 0)}
    return {**USUAL, **warmup, **({"CheckpointDelay": 3600} if points else {}), **asked}


def irreversible(refresh: Refresh) -> str:
    """Why AWS cannot roll the refresh back; empty where it can."""
    if not refresh.desired:
        return "the instance refresh has no desired configuration"
    if refresh.old is None:
        return "the group has no launch template"
    if str(refresh.group.launch_template_version) in {"$Latest", "$Default"}:
        return "the group uses the launch template's $Latest or $Default version"
    if str(refresh.old.data.get("ImageId", "")).startswith("resolve:ssm:"):
        return "the group's launch template uses an SSM parameter instead of an AMI ID"
    return ""


def current(world: World, call: Call) -> Refresh:
    found = active(world, group_of(call))
    if found is None:
        raise AwsError("ActiveInstanceRefreshNotFound", "No in progress or pending Instance Refresh found", 400)
    return found


def cancel(world: World, call: Call) -> dict[str, Any]:
    """Of a refresh or a rollback that goes on; what it changed stays."""
    refresh = current(world, call)
    rolling.cancel(world, refresh, call.params.get("WaitForTransitioningInstances", True))
    return {"InstanceRefreshId": refresh.id}


def roll_back(world: World, call: Call) -> dict[str, Any]:
    """Of a refresh that goes on, to what the group's settings are."""
    refresh = current(world, call)
    if refresh.status in {"Cancelling", "RollbackInProgress"}:
        raise AwsError("ActiveInstanceRefreshNotFound", "No in progress or pending Instance Refresh found", 400)
    if why := irreversible(refresh):
        raise AwsError("IrreversibleInstanceRefresh", f"The instance refresh cannot be rolled back: {why}", 400)
    rolling.roll_back(world, refresh, "A rollback was requested")
    return {"InstanceRefreshId": refresh.id}


def describe(world: World, call: Call) -> dict[str, Any]:
    """The newest first, those named if any, in pages of 50 unless told otherwise, 100 at most."""
    wanted = call.params.get("InstanceRefreshIds")
    found = [shown(one) for one in of(world, group_of(call)) if not wanted or one.id in wanted]
    size = min(call.params.get("MaxRecords", 50), 100, world.page_at_most)
    part, more = listing.part(found, call.params.get("NextToken"), size)
    return {"InstanceRefreshes": part, **more}


def shown(refresh: Refresh) -> dict[str, Any]:
    more = {
        "StatusReason": refresh.reason,
        "EndTime": refresh.end,
        "DesiredConfiguration": refresh.desired,
        "RollbackDetails": refresh.rollback,
        "StartTime": refresh.started,
    }
    return {
        "InstanceRefreshId": refresh.id,
        "AutoScalingGroupName": refresh.group.name,
        "Status": refresh.status,
        "PercentageComplete": refresh.percent(),
        "InstancesToUpdate": refresh.remaining(),
        "Preferences": refresh.preferences,
        "Strategy": "Rolling",
        **{name: value for name, value in more.items() if value},
    }


RULES = {
    "StartInstanceRefresh": start,
    "CancelInstanceRefresh": cancel,
    "RollbackInstanceRefresh": roll_back,
    "DescribeInstanceRefreshes": describe,
}
