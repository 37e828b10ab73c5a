"""What a rollout costs: how long a step takes, which calls it makes, and how long the service's limits make those last.

Pure. The token buckets are those that EC2 publishes, one of each per account and region; a call takes a token, and
tokens come back at a steady rate. Docker has no such limits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from math import ceil

from pipelines.fleet.model import Fleet, FleetKind, Method, ReplacementStrategy


class Bucket(StrEnum):
    """Which calls share a limit."""

    DESCRIBE = "Describe, paginated"
    RUN = "RunInstances"
    LAUNCHED = "instances launched"
    TERMINATE = "TerminateInstances"
    TAG = "CreateTags"
    OTHER = "other changes"


# https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html: tokens, and how many come back each second
TOKENS: Mapping[Bucket, tuple[int, int]] = {
    Bucket.DESCRIBE: (100, 20),
    Bucket.RUN: (5, 2),
    Bucket.LAUNCHED: (1000, 2),
    Bucket.TERMINATE: (100, 5),
    Bucket.TAG: (100, 10),
    Bucket.OTHER: (50, 5),
}

# Looks: judging again, one for each read of its health, and one to see that it is gone.
_ROOT_VOLUME = {Bucket.DESCRIBE: 12, Bucket.TAG: 1, Bucket.OTHER: 2}
_NEW_INSTANCE = {
    Bucket.DESCRIBE: 12,
    Bucket.RUN: 1,
    Bucket.LAUNCHED: 1,
    Bucket.TERMINATE: 1,
    Bucket.TAG: 2,
    Bucket.OTHER: 4,
}
_CONTAINER_STARTS = timedelta(seconds=3)
_INSTANCE_BOOTS = timedelta(seconds=60)
_VOLUME_REPLACED = timedelta(seconds=120)


@dataclass(frozen=True)
class Calls:
    """How many calls of a bucket a rollout makes in one account and region, and how many seconds they last at least."""

    place: str
    bucket: str
    calls: int
    seconds: int


def step_calls(fleet: Fleet) -> Mapping[Bucket, int]:
    """The calls that replacing one member makes."""
    if fleet.kind is FleetKind.DOCKER:
        return {}
    return _ROOT_VOLUME if _by_root_volume(fleet) else _NEW_INSTANCE


def calls(fleet: Fleet, members: Iterable[str]) -> tuple[Calls, ...]:
    """All calls of a rollout over `members`, whose ids begin with account and region."""
    each = step_calls(fleet)
    places = Counter("/".join(member.split("/", 2)[:2]) for member in members) if each else Counter()
    return tuple(
        Calls(place, bucket, number * steps, seconds_at_least(bucket, number * steps))
        for place, steps in sorted(places.items())
        for bucket, number in each.items()
    )


def seconds_at_least(bucket: Bucket, number: int) -> int:
    """How long so many calls last at least, beginning with a full bucket, in seconds, rounded up."""
    tokens, each_second = TOKENS[bucket]
    return max(0, ceil((number - tokens) / each_second))


def step_time(fleet: Fleet) -> timedelta:
    """How long replacing one member takes at least, where nothing goes wrong."""
    limits = fleet.limits
    each = limits.min_healthy_time + (limits.settle if limits.method is Method.SURGE else timedelta())
    if fleet.kind is FleetKind.DOCKER:
        return each + _CONTAINER_STARTS
    return each + limits.drain + (_VOLUME_REPLACED if _by_root_volume(fleet) else _INSTANCE_BOOTS)


def _by_root_volume(fleet: Fleet) -> bool:
    return fleet.kind is FleetKind.EC2 and fleet.ec2.way is ReplacementStrategy.ROOT_VOLUME
