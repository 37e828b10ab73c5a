"""What a rollout costs: how long a step takes at least, and its calls of services that limit them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from typing import assert_never

from hardening.foundation.durations import shown
from pipelines.fleet.members import Member
from pipelines.fleet.model import Fleet, FleetKind, Method, ReplacementStrategy
from pipelines.rollout.plan_model import Calls


@dataclass(frozen=True)
class Bucket:
    """Calls that share a limit: how many may come at once, and how many more each second."""

    name: str
    tokens: int
    each_second: int

    def seconds(self, number: int) -> int:
        """How long so many calls last at least, beginning with a full bucket, in seconds, rounded up."""
        return max(0, ceil((number - self.tokens) / self.each_second))


# https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
DESCRIBE = Bucket("Describe, paginated", 100, 20)
RUN = Bucket("RunInstances", 5, 2)
LAUNCHED = Bucket("instances launched", 1000, 2)
TERMINATE = Bucket("TerminateInstances", 100, 5)
TAG = Bucket("CreateTags", 100, 10)
OTHER = Bucket("other changes", 50, 5)

# Looks: judging again, one for each read of its health, and one to see that it is gone.
_ROOT_VOLUME = {DESCRIBE: 12, TAG: 1, OTHER: 2}
_NEW_INSTANCE = {DESCRIBE: 12, RUN: 1, LAUNCHED: 1, TERMINATE: 1, TAG: 2, OTHER: 4}
_CONTAINER_STARTS = timedelta(seconds=3)
_SEEN_LATE = 1.1  # what the engine found out is read now and then, at a twentieth of the time waited, and several times
_INSTANCE_BOOTS = timedelta(seconds=60)
_VOLUME_REPLACED = timedelta(seconds=120)


def calls(fleet: Fleet, members: Iterable[str]) -> tuple[Calls, ...]:
    """All calls of a rollout over `members`, whose ids begin with account and region."""
    each, _ = step_cost(fleet)
    places = Counter("/".join(member.split("/", 2)[:2]) for member in members)
    return tuple(
        Calls(place, bucket.name, number * steps, bucket.seconds(number * steps))
        for place, steps in sorted(places.items())
        for bucket, number in each.items()
    )


def rehearses(fleet: Fleet) -> bool:
    """Whether each new member is tried beside the old one first."""
    return fleet.kind is FleetKind.DOCKER and fleet.limits.method is Method.IN_PLACE and fleet.limits.rehearsal


def explained(fleet: Fleet, members: Iterable[Member]) -> str:
    """The parts of the time that replacing one container takes, and what may be added; empty for other kinds."""
    first_check = max((member.first_check for member in members), default=None)
    if fleet.kind is not FleetKind.DOCKER or first_check is None:
        return ""
    limits, whole = fleet.limits, step_cost(fleet, first_check)[1]
    twice = "twice (rehearsal and replacement) " if rehearses(fleet) else ""
    asked = f" and {shown(_asked(first_check))} until its health check is asked" if first_check else ""
    settle = f", {shown(limits.settle)} settle" if limits.method is Method.SURGE else ""
    parts = f"{twice}{shown(_CONTAINER_STARTS)} to start{asked}, {shown(limits.min_healthy_time)} healthy"
    return f"each takes {shown(whole)}: {parts}{settle}; and up to {shown(limits.drain)} more to stop (drain)"


def _asked(first_check: int) -> timedelta:
    return timedelta(seconds=round(first_check * _SEEN_LATE))


def step_cost(fleet: Fleet, first_check: int = 0) -> tuple[Mapping[Bucket, int], timedelta]:
    """The calls that replacing one member makes, and how long it takes at least, where nothing goes wrong.

    `first_check`: after how many seconds the engine first asks the health check of a container.
    """
    limits = fleet.limits
    each = limits.min_healthy_time + (limits.settle if limits.method is Method.SURGE else timedelta())
    match fleet.kind:
        case FleetKind.DOCKER:
            return {}, each + (_CONTAINER_STARTS + _asked(first_check)) * (2 if rehearses(fleet) else 1)
        case FleetKind.EC2 if fleet.ec2.way is ReplacementStrategy.ROOT_VOLUME:
            return _ROOT_VOLUME, each + limits.drain + _VOLUME_REPLACED
        case FleetKind.EC2:
            return _NEW_INSTANCE, each + limits.drain + _INSTANCE_BOOTS
        case FleetKind.KUBERNETES | FleetKind.ECS | FleetKind.EKS:  # which step them themselves
            return {}, each + limits.drain
        case _:
            assert_never(fleet.kind)
