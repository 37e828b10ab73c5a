"""Which deadlines a fleet's limits let a rollout meet, and which limit is the cause where not; turns. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from hardening.foundation.durations import shown
from pipelines.fleet.calendar import share
from pipelines.fleet.model import Limits, Method, Zones
from pipelines.fleet.violations import Judged
from pipelines.rollout.schedule import AGES, LOOK_AHEAD, gravest
from pipelines.rollout.timeline import Timeline
from pipelines.rollout.waves import Prediction, Room, Step, Wave, waves

BETWEEN_RUNS = timedelta(days=1)  # a night that fails, or comes late, costs no deadline
UNLIMITED = 1_000_000_000
HINTS = {
    "limits.freezes": "let the freeze end earlier, or replace them before it begins",
    "limits.windows": "open a window before that, or a longer one",
    "limits.budgets": "raise its nodes, or let it hold at other times",
    "limits.max_parallel": "raise it",
    "limits.max_surge": "raise it",
    "limits.max_unavailable": "raise it",
    "limits.bake_time": "shorten it",
    "limits.bake_between_waves": "shorten it",
    "limits.zones": 'set it to "spread"',
}


@dataclass(frozen=True)
class Late:
    """A member whose deadline cannot be met. `limits`: the key paths of those without which it would be, all together;
    none: no limit is the cause, for one replacement alone takes longer. `hint`: what to change.
    """

    member: str
    deadline: datetime
    ends_at: datetime | None
    limits: tuple[str, ...]
    hint: str

    @property
    def cause(self) -> str:
        """What keeps it, in words."""
        return " and ".join(self.limits) or "no limit: one replacement alone takes longer"


@dataclass(frozen=True)
class Forecast:
    """Waves with predicted times; who cannot be in time; and the end after the last bake, None: not within a year."""

    waves: tuple[Wave, ...]
    late: tuple[Late, ...]
    ends_at: datetime | None


def forecast(steps: Sequence[Step], room: Room, now: datetime) -> Forecast:
    """The waves of a rollout that begins at `now`, the earliest deadline first, and the times that they come at.

    All times are the least that each step takes; a canary that waits for a person is approved right after its bake.
    Who is past the deadline at `now` is not among the late: nothing could be changed about that. Raises RefusedError.
    """
    made, ends_at = _predicted(steps, room, now)
    late = {
        step.member.id: step
        for wave in made
        for step in wave.steps
        if step.deadline and step.deadline > now and not step.in_time
    }
    if not late:
        return Forecast(made, (), ends_at)

    def met_without(keys: Collection[str]) -> set[str]:
        limits = without(room.limits, keys)
        again, _ = _predicted(steps, Room(limits, room.desired, room.serving, room.call_seconds), now)
        return {one.member.id for wave in again for one in wave.steps if one.member.id in late and one.in_time}

    causes = _causes(late, limit_keys(room.limits), met_without)
    found = (_late(step, causes.get(step.member.id, ()), now) for step in late.values())
    return Forecast(made, tuple(sorted(found, key=lambda one: (one.deadline, one.member))), ends_at)


def _predicted(steps: Sequence[Step], room: Room, now: datetime) -> tuple[tuple[Wave, ...], datetime | None]:
    predicted = Prediction(Timeline(room.limits, room.desired, now), now)
    return waves(steps, room, predicted), predicted.at


def _late(step: Step, limits: tuple[str, ...], now: datetime) -> Late:
    deadline = step.deadline or now
    hints = [f"{key}: {HINTS[key.partition('[')[0]]}" for key in limits]
    takes = f"it takes {shown(timedelta(seconds=step.seconds))} at least, and {shown(deadline - now)} are left"
    return Late(step.member.id, deadline, step.ends_at, limits, "; ".join(hints) or takes)


def _causes(
    late: Collection[str], keys: Sequence[str], met_without: Callable[[Collection[str]], set[str]]
) -> dict[str, tuple[str, ...]]:
    """By member the first limit without which it is in time; else the fewest that have to go together."""
    causes: dict[str, tuple[str, ...]] = {}
    for key in keys:
        if len(causes) == len(late):
            return causes
        causes |= {one: (key,) for one in met_without({key}) if one not in causes}
    if len(causes) == len(late) or not (left := met_without(keys) - causes.keys()):
        return causes
    gone = list(keys)
    for key in keys:
        fewer = [one for one in gone if one != key]
        if left <= met_without(fewer):
            gone = fewer
    return causes | dict.fromkeys(left, tuple(gone))


# -- limits, and a fleet without some of them --------------------------------------------------------------------------


def limit_keys(limits: Limits) -> list[str]:
    """The key paths of the limits that take a rollout time, those first that no faster pace makes up for."""
    return [
        *(f"limits.freezes[{number}]" for number in range(len(limits.freezes))),
        *(["limits.windows"] if limits.windows else []),
        *(f"limits.budgets[{number}]" for number in range(len(limits.budgets))),
        "limits.max_parallel",
        "limits.max_surge" if limits.method is Method.SURGE else "limits.max_unavailable",
        *(["limits.bake_time"] if limits.canary and limits.bake_time else []),
        *(["limits.bake_between_waves"] if limits.bake_between_waves else []),
        *(["limits.zones"] if limits.zones is Zones.ONE_BY_ONE else []),
    ]


_ABSENT: dict[str, Any] = {
    "max_parallel": UNLIMITED, "max_surge": UNLIMITED, "max_unavailable": UNLIMITED, "windows": (),
    "bake_time": timedelta(), "bake_between_waves": timedelta(), "zones": Zones.SPREAD,
}  # fmt: skip


def without(limits: Limits, keys: Collection[str]) -> Limits:
    """The limits without those of these key paths."""
    lists = {
        name: tuple(one for number, one in enumerate(getattr(limits, name)) if f"limits.{name}[{number}]" not in keys)
        for name in ("budgets", "freezes")
    }
    absent = {name: value for name, value in _ABSENT.items() if f"limits.{name}" in keys}
    return limits.model_copy(update=lists | absent)


# -- automated runs: who has time waits for a turn ---------------------------------------------------------------------


def due_times(judged: Sequence[Judged], limits: Limits, seconds: float, now: datetime) -> dict[str, datetime]:
    """When an automated run comes to each member that is merely too old and has time, by id; the others: at once.

    The turns lie evenly over `jitter` of the time from the beginning of a violation to its deadline, counted where
    windows and freezes let a rollout act. Nobody's turn comes later than a day, so that a night may fail, before the
    moment at which the member must begin at last: `seconds` before its deadline, with room for all that are due after
    it. All members' ids decide the order, so that turns stay as they are while others are replaced.
    """
    aged = {one.member.id: one for one in judged if _has_time(one)}
    if not aged:
        return {}
    starts = min(now, *(reason.since for one in aged.values() for reason in one.violations if reason.since))
    timeline = Timeline(limits, len(judged), starts, now - starts + LOOK_AHEAD)
    last = _last_beginnings(timeline, list(aged.values()), limits, len(judged), seconds)
    rank = {one: number for number, one in enumerate(sorted((one.member.id for one in judged), key=_scattered))}
    return {
        member: _turn(timeline, one, last[member], rank[member] / len(rank) * share(limits.jitter) / 100)
        for member, one in aged.items()
    }


def _scattered(member: str) -> tuple[bytes, str]:
    """What sorts members by nothing that they have in common."""
    return sha256(member.encode()).digest()[:8], member


def _has_time(one: Judged) -> bool:
    """Whether it is merely too old: what is worse is due at once, and without dates nobody knows of any time."""
    return bool(one.violations) and all(
        reason.rule in AGES and reason.since and reason.deadline for reason in one.violations
    )


def _last_beginnings(
    timeline: Timeline, aged: Sequence[Judged], limits: Limits, desired: int, seconds: float
) -> Mapping[str, float]:
    """When each must begin at last, in seconds in which a rollout may act since the timeline's start.

    Backwards from the deadlines, as many side by side as the tightest budget before the last deadline allows.
    """
    due = {one.member.id: (one.deadline or timeline.end, gravest(one.rules)) for one in aged}
    until = max(deadline for deadline, _ in due.values())
    budgets = [timeline.least(rule, until) for rule in sorted({rule for _, rule in due.values()})]
    most = Room(limits, desired, desired).most
    wide = min([most, *(budget for budget in budgets if budget)])
    takes = seconds + limits.bake_between_waves.total_seconds()
    last: dict[str, float] = {}
    begun: list[float] = []
    opened = {deadline: timeline.opened(deadline) for deadline, _ in due.values()}
    for member, (deadline, _) in sorted(due.items(), key=lambda one: (one[1][0], one[0]), reverse=True):
        ends = min(opened[deadline], begun[-wide]) if len(begun) >= wide else opened[deadline]
        begun.append(ends - takes)
        last[member] = begun[-1]
    return last


def _turn(timeline: Timeline, one: Judged, last: float, part: float) -> datetime:
    since = min(reason.since for reason in one.violations if reason.since)
    began, due = timeline.opened(since), timeline.opened(one.deadline or timeline.end)
    spread = timeline.moment(began + part * (due - began)) if part else since
    return min(spread, timeline.moment(max(0.0, last)) - BETWEEN_RUNS)
