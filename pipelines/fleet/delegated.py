"""Shared by fleets whose services replace members by their own strategy: its reach, its pace, the bake. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, TypeVar, cast

from hardening.foundation import errors
from hardening.foundation.durations import shown
from hardening.foundation.errors import RefusedError
from pipelines.fleet.members import BACK, OWN_LABELS
from pipelines.fleet.model import Limits
from pipelines.fleet.port import Group, Pacing, Progress, Watched

Step = TypeVar("Step", bound=Callable[..., Any])
ALL = 100  # percent
ROLLED = 90  # percent, when all is new and only the bake is left
BAKES_PER_DEADLINE = ALL - ROLLED  # each percent of the bake is progress
MOST_BETWEEN_LOOKS = timedelta(minutes=1)  # a rollout looks twice in that time
ATTEMPT = re.compile(rf"(-rest)?(-[1-9][0-9]?)?({BACK})*$")

ROLL_ANYWAY = f"{OWN_LABELS}roll"
STACK = "aws:cloudformation:stack-.*"
TOOL, TOOLS = "(?i)(managed|created)[-_ ]?by|provisioner", "(?i).*(terraform|opentofu|pulumi|crossplane).*"
OWNERS = {"CloudFormation": (STACK, ".*"), "Terraform or its like": (TOOL, TOOLS)}
"""Other tools that set what a group runs: the key and the value of the tag that they leave."""


def owner_of(tags: Mapping[str, str], group: str, setting: str) -> str:
    """Why a group with these tags is another tool's to roll, and how to go on; empty where no tool owns it.

    Such a tool would set back the `setting` by which it is rolled. The tag `dev.goldsmith.roll=yes` says that it does
    not.
    """
    if tags.get(ROLL_ANYWAY) == "yes":
        return ""
    for owner, (key, value) in OWNERS.items():
        found = (one for one in tags if re.fullmatch(key, one) and re.fullmatch(value, tags[one]))
        if tag := next(found, ""):
            ignoring = f"or let it ignore {setting}, and tag {group} {ROLL_ANYWAY}=yes"
            return f"its tag {tag} says that it belongs to {owner}: set the image there, {ignoring}"
    return ""


def stem(rollout: str) -> str:
    """The rollout itself: resuming it, its rest, and going back later, are known under longer names."""
    return ATTEMPT.sub("", rollout)


class GroupReader:
    """What reads the groups and members of a fleet; who asks it for one group is inside of `understood` already. `api`:
    what answers it, as people call it.
    """

    api: str

    def understood(self) -> AbstractContextManager[None]:
        """Raise MalformedError where an answer that is read here is not what the API's documentation says."""
        return errors.understood(self.api)


def understood(step: Step) -> Step:
    """A step of a fleet, to whose `reader` an answer of another form than its API's is an error of the outside."""

    @wraps(step)
    def reading(fleet: Any, /, *args: Any, **named: Any) -> Any:
        with fleet.reader.understood():
            return step(fleet, *args, **named)

    return cast("Step", reading)


@dataclass(frozen=True)
class Reach:
    """How many members of a group may be missing, and how many more may run, while its service replaces them: `beside`
    those that they replace, and `extra` ones that replace none at once.
    """

    missing: int
    beside: int
    extra: int = 0

    @property
    def at_once(self) -> int:
        """How many are replaced at once."""
        return self.missing + self.beside

    @property
    def more(self) -> int:
        """How many more than are wanted may run."""
        return self.beside + self.extra


@dataclass(frozen=True)
class StrategyWords:
    """The words for a group and its strategy: `called` with its size, and what to change if it does too much."""

    called: str
    fewer_missing: str
    fewer_beside: str
    fewer_at_once: str


def pace_of(group: Group, reach: Reach, words: StrategyWords, limits: Limits, allowed: int) -> Pacing:
    """The pace of the group's own strategy, which may replace `allowed` members at once. Raises RefusedError where it
    breaks one of the limits.
    """
    if not group.cannot_roll and group.desired:
        _refuse_reach(group.desired, reach, words, limits, max(1, min(limits.max_parallel, allowed)))
    if limits.bake_time > BAKES_PER_DEADLINE * limits.progress_deadline:
        why = f"bake_time {shown(limits.bake_time)} is longer than {BAKES_PER_DEADLINE} times progress_deadline"
        raise RefusedError(f"limits: {why}", hint="raise progress_deadline")
    desired = max(1, group.desired)
    return Pacing(
        min_healthy_percent=max(0, ALL * (desired - reach.missing) // desired),
        max_healthy_percent=ALL + ALL * reach.more // desired,
        checkpoint_percents=(),
        checkpoint_delay=timedelta(),
        warmup=limits.min_healthy_time,
        bake=limits.bake_time,
        alarms=limits.named_alarms,
        auto_rollback=limits.auto_rollback,
    )


def _refuse_reach(desired: int, reach: Reach, words: StrategyWords, limits: Limits, at_once: int) -> None:
    """Raise RefusedError where the strategy of a group lets its service do more than the limits allow."""
    missing, beside = limits.unavailable(desired), limits.surge(desired)
    where = f"{words.called}: its strategy"
    if reach.missing > missing:
        hint = (
            f"{words.fewer_missing}; or raise limits.max_unavailable: until new ones are ready, the old ones are gone"
        )
        raise RefusedError(
            f"{where} lets {reach.missing} be missing, but limits.max_unavailable is {missing}", hint=hint
        )
    if reach.more > beside:
        what = f"{where} lets {reach.more} run beside the old ones, but limits.max_surge is {beside}"
        raise RefusedError(what, hint=f"{words.fewer_beside}; or raise limits.max_surge")
    if reach.at_once > at_once:
        what = f"{where} replaces {reach.at_once} at once, but limits.max_parallel or a budget allows {at_once}"
        raise RefusedError(what, hint=f"{words.fewer_at_once}; or raise the limit")


@dataclass(frozen=True)
class RollingState:
    """One look at how far a group is with what it goes to, and why waiting for the rest is of no use."""

    done: bool
    percent: int
    text: str
    failed: str = ""

    @property
    def back(self) -> Progress:
        """How it stands where what it goes to is what it ran before."""
        return Progress.ROLLED_BACK if self.done else Progress.FAILED if self.failed else Progress.ROLLING_BACK


def rolled_percent(new: int, desired: int) -> int:
    """How many percent of its rolling a group has behind it that is to have so many members, of which these are new."""
    return min(ROLLED, ROLLED * new // desired) if desired else ROLLED


@dataclass(frozen=True)
class _Baked:
    """A group that is new and well `since` then, the last look at it, and how much of that time was watched."""

    since: datetime
    seen: datetime
    watched: timedelta = timedelta()


class Bakes:
    """For how long all of a group has been new and healthy, as this process has seen it; another process starts over.

    Time counts from look to look, so that a clock that jumps, or a machine that sleeps, bakes nothing.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._complete = dict[tuple[str, str], _Baked]()

    def forget(self, group: str, wanted: str) -> None:
        """Something else is asked of the group, or it is not whole."""
        self._complete.pop((group, wanted), None)

    def look(self, group: str, wanted: str, bake_seconds: float, text: str) -> Watched:
        """How far the bake of a group is, all of which runs what is `wanted`."""
        now = self._now()
        known = self._complete.get((group, wanted), _Baked(now, now))
        watched = known.watched + min(max(now - known.seen, timedelta()), MOST_BETWEEN_LOOKS)
        self._complete[group, wanted] = _Baked(known.since, now, watched)
        lasted = watched.total_seconds()
        if lasted >= bake_seconds:
            return Watched(Progress.DONE, ALL, text, known.since)
        share = int((ALL - ROLLED) * lasted / bake_seconds)
        return Watched(Progress.RUNNING, ROLLED + share, f"{text}; it bakes", known.since)
