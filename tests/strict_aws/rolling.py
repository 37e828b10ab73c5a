"""How an instance refresh goes on: replacements within the healthy percentages, checkpoints, bake, alarms, rollback."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.strict_aws import groups, instances
from tests.strict_aws.groups import Version
from tests.strict_aws.world import Place, World

ACTIVE = {"Pending", "InProgress", "Baking", "Cancelling", "RollbackInProgress"}


@dataclass
class Flight:
    """One replacement on its way; `old` is None where it was terminated first."""

    new: Any
    old: Any


@dataclass
class Refresh:
    """One instance refresh of a group, from the version `old` to `new`."""

    id: str
    group: Any
    asked: datetime
    preferences: dict[str, Any]
    desired: dict[str, Any]
    old: Version | None
    new: Version | None
    status: str = "Pending"
    reason: str = ""
    started: datetime | None = None
    end: datetime | None = None
    todo: list[Any] = field(default_factory=list)  # members to replace
    flights: list[Flight] = field(default_factory=list)
    total: int = 0
    done: int = 0
    point: int = 0  # how many checkpoints were passed
    until: datetime | None = None  # a checkpoint's delay, or the bake, lasts so long
    moved: datetime | None = None  # when a replacement was done last
    came: list[Any] = field(default_factory=list)  # the members that came with the refresh
    rollback: dict[str, Any] = field(default_factory=dict)

    def remaining(self) -> int:
        return max(self.total - self.done, 0)

    def percent(self) -> int:
        return 100 if not self.total else 100 * self.done // self.total


def begin(world: World, refresh: Refresh) -> None:
    """From Pending to InProgress, with the members to replace."""
    if refresh.status != "Pending":
        return
    refresh.status, refresh.started, refresh.moved = "InProgress", world.now(), world.now()
    refresh.todo = [one for one in refresh.group.instance_states if replaceable(refresh, one)]
    refresh.total = len(refresh.todo)
    refresh.group.rolling = refresh.new
    beat(world, refresh)


def replaceable(refresh: Refresh, member: Any) -> bool:
    """Whether a member is for this refresh to replace, at once or after a wait."""
    wants = refresh.preferences
    if wants["SkipMatching"] and groups.started_from(member) == refresh.new:
        return False
    if member.protected_from_scale_in and wants["ScaleInProtectedInstances"] == "Ignore":
        return False
    if member.lifecycle_state == "Standby":
        return bool(wants["StandbyInstances"] != "Ignore")
    return member.lifecycle_state in groups.ACTIVE


def held(refresh: Refresh, member: Any) -> bool:
    """Whether the refresh waits for protection or standby to end."""
    wants, rolled = refresh.preferences, refresh.status == "RollbackInProgress"
    protected = member.protected_from_scale_in and wants["ScaleInProtectedInstances"] == "Wait"
    aside = member.lifecycle_state == "Standby" and wants["StandbyInstances"] == "Wait"
    return not rolled and bool(protected or aside)


def beat(world: World, refresh: Refresh) -> None:
    """Look now, and again while it goes on, so that a leap of the clock leaves nothing out."""
    look(world, refresh)
    if refresh.status in ACTIVE:
        pause = timedelta(seconds=1 if refresh.flights else 10)
        when = world.now() + pause
        world.timeline.at(
            min(when, refresh.until) if refresh.until and refresh.until > world.now() else when,
            lambda: beat(world, refresh),
        )


def look(world: World, refresh: Refresh) -> None:
    """Go on as far as it can now."""
    if refresh.status not in ACTIVE or refresh.status == "Pending":
        return
    land(world, refresh)
    late = refresh.moved is not None and world.now() >= refresh.moved + timedelta(seconds=world.takes["deadline"])
    firing = alarm(refresh)
    if refresh.status == "Cancelling":
        if late or not refresh.flights:
            finish(world, refresh, "Cancelled")
    elif firing and refresh.status != "RollbackInProgress":
        give_up(world, refresh, f"The CloudWatch alarm {firing} is in the ALARM state")
    elif refresh.status == "Baking":
        if refresh.until and world.now() >= refresh.until:
            succeed(world, refresh)
    else:
        go_on(world, refresh, late)


def alarm(refresh: Refresh) -> str:
    """The first of the refresh's CloudWatch alarms that fires; empty if none does."""
    from moto.cloudwatch.models import cloudwatch_backends

    backend = refresh.group.autoscaling_backend
    known = cloudwatch_backends[backend.account_id][backend.region_name].alarms
    names = refresh.preferences.get("AlarmSpecification", {}).get("Alarms", [])
    return next((name for name in names if name in known and known[name].state_value == "ALARM"), "")


def land(world: World, refresh: Refresh) -> None:
    """Replacements that are healthy and warm are done; the old ones that waited for them go."""
    warmup = timedelta(seconds=refresh.preferences["InstanceWarmup"])
    for flight in list(refresh.flights):
        since = groups.since(flight.new)
        if since is None or world.now() < since + warmup or not groups.well(world, refresh.group, flight.new):
            continue
        refresh.flights.remove(flight)
        refresh.moved = world.now()
        refresh.done = max(refresh.done + (-1 if refresh.status == "RollbackInProgress" else 1), 0)
        if flight.old is not None:
            groups.retire(world, refresh.group, flight.old)


def go_on(world: World, refresh: Refresh, late: bool) -> None:
    """Come to the end, wait at a checkpoint, start more replacements, or give up after a long wait."""
    members = refresh.group.instance_states
    refresh.todo = [one for one in refresh.todo if one in members]
    free = [one for one in refresh.todo if not held(refresh, one)]
    if not refresh.flights and not refresh.todo:
        complete(world, refresh)
    elif paused(world, refresh):
        return
    elif late:
        give_up(world, refresh, "No replacement became healthy, or instances were kept from being replaced, too long")
    else:
        replace(world, refresh, free[: allowed(refresh)])


def paused(world: World, refresh: Refresh) -> bool:
    """Whether it waits at a checkpoint; where the last one is not at 100, the rest is let be after it.

    "The percentage of the Auto Scaling group that needs to be successfully replaced is indicated by the last value
    shown in the CheckpointPercentages array. The operation doesn't transition to Successful until this percentage of
    the group is replaced successfully" (EC2 Auto Scaling User Guide, "Add checkpoints to an instance refresh").
    Undocumented: whether the delay is waited for at the last one too. The longer of the two readings was taken.
    """
    points = refresh.preferences.get("CheckpointPercentages", [])
    if refresh.status == "RollbackInProgress" or refresh.point >= len(points) or refresh.done < goal(refresh):
        return False
    if refresh.until is None:
        refresh.until = world.now() + timedelta(seconds=refresh.preferences["CheckpointDelay"])
    if world.now() < refresh.until:
        return True
    refresh.point, refresh.until, refresh.moved = refresh.point + 1, None, world.now()
    if refresh.point == len(points):
        refresh.todo = []
        complete(world, refresh)
    return refresh.status != "InProgress"


def goal(refresh: Refresh) -> int:
    """How many are new at the next checkpoint."""
    points = refresh.preferences.get("CheckpointPercentages", [])
    if refresh.status == "RollbackInProgress" or refresh.point >= len(points):
        return refresh.total
    return math.ceil(refresh.total * points[refresh.point] / 100)


def allowed(refresh: Refresh) -> int:
    """How many more may be started before the next checkpoint."""
    if refresh.status == "RollbackInProgress":
        return len(refresh.todo)
    return max(goal(refresh) - refresh.done - len(refresh.flights), 0)


def replace(world: World, refresh: Refresh, free: list[Any]) -> None:
    """Launch first while the maximum leaves room, terminate first while the minimum is kept, else one at a time."""
    group, wants = refresh.group, refresh.preferences
    most = wants.get("MaxHealthyPercentage")
    least = math.ceil(group.desired_capacity * wants["MinHealthyPercentage"] / 100)
    room = group.desired_capacity * (most or 100) // 100 - len(group.active_instances())
    fresh = [flight.new for flight in refresh.flights]
    healthy = sum(groups.well(world, group, one) for one in group.instance_states if one not in fresh)
    spare = healthy - least
    if room <= 0 and spare <= 0 and not refresh.flights and healthy >= least:
        room, spare = (1, 0) if most else (0, 1)
    for member in free:
        if room > 0:
            room -= 1
            launch(world, refresh, member, first=True)
        elif spare > 0:
            spare -= 1
            launch(world, refresh, member, first=False)


def launch(world: World, refresh: Refresh, member: Any, first: bool) -> None:
    """A replacement for a member, which stays until the new one is ready, or goes now."""
    group, version = refresh.group, refresh.group.rolling
    refresh.todo.remove(member)
    if not first:
        groups.retire(world, group, member)
    (new,) = groups.start(group, 1, group.get_propagated_tags(), version)
    group.autoscaling_backend.update_attached_target_groups(group.name)
    instances.equip(world, Place(group.account_id, group.region))
    refresh.flights.append(Flight(new, member if first else None))
    if refresh.status != "RollbackInProgress":
        refresh.came.append(new)


def complete(world: World, refresh: Refresh) -> None:
    """All is replaced: bake, where asked for, then the end."""
    bake = refresh.preferences.get("BakeTime", 0)
    if refresh.status == "RollbackInProgress":
        finish(world, refresh, "RollbackSuccessful")
    elif bake:
        refresh.status, refresh.until = "Baking", world.now() + timedelta(seconds=bake)
    else:
        succeed(world, refresh)


def succeed(world: World, refresh: Refresh) -> None:
    """The desired configuration becomes the group's, also where the last checkpoint was not at 100.

    "Once the instance refresh succeeds, Amazon EC2 Auto Scaling updates the settings of the Auto Scaling group to
    reflect the new desired configuration" (API reference, StartInstanceRefresh).
    """
    group, desired = refresh.group, refresh.desired
    if refresh.new is not None and desired:
        mixed = desired.get("MixedInstancesPolicy")
        named = desired.get("LaunchTemplate") or mixed["LaunchTemplate"]["LaunchTemplateSpecification"]
        group.ec2_launch_template, group.mixed_instances_policy = refresh.new.template, mixed
        group.provided_launch_template_version = named.get("Version")
        group.launch_template_version = named.get("Version") or "$Default"
    finish(world, refresh, "Successful")


def give_up(world: World, refresh: Refresh, why: str) -> None:
    """Roll back where that was asked for, else fail."""
    if refresh.status == "RollbackInProgress":
        refresh.reason = why
        finish(world, refresh, "RollbackFailed")
    elif refresh.preferences["AutoRollback"]:
        roll_back(world, refresh, why)
    else:
        withdraw(world, refresh)
        refresh.reason = why
        finish(world, refresh, "Failed")


def withdraw(world: World, refresh: Refresh) -> None:
    """Replacements that are not ready go where the old ones are there still."""
    for flight in refresh.flights:
        if flight.old is not None:
            groups.retire(world, refresh.group, flight.new)
    refresh.flights = []


def roll_back(world: World, refresh: Refresh, why: str) -> None:
    """What came with the refresh, and not with an earlier one, is replaced by what the group's settings say.

    It "replaces any instances that were replaced during the instance refresh" (API reference, RollbackInstanceRefresh).
    """
    withdraw(world, refresh)
    refresh.rollback = {
        "RollbackReason": why,
        "RollbackStartTime": world.now(),
        "PercentageCompleteOnRollback": refresh.percent(),
        "InstancesToUpdateOnRollback": refresh.remaining(),
    }
    refresh.status, refresh.reason, refresh.until, refresh.moved = "RollbackInProgress", why, None, world.now()
    refresh.group.rolling = refresh.old
    stays = [one for one in refresh.came if one.lifecycle_state in groups.ACTIVE]
    refresh.todo = [one for one in refresh.group.instance_states if one in stays]
    look(world, refresh)


def cancel(world: World, refresh: Refresh, wait: bool) -> None:
    """Start nothing more; what is on its way comes to its end, waited for or not."""
    refresh.status, refresh.until, refresh.moved = "Cancelling", None, world.now()
    if not wait:
        for flight in refresh.flights:
            if flight.old is not None:
                groups.retire(world, refresh.group, flight.old)
        refresh.flights = []
    look(world, refresh)


def finish(world: World, refresh: Refresh, status: str) -> None:
    refresh.status, refresh.end, refresh.until = status, world.now(), None
    refresh.group.rolling = None
