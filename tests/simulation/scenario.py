"""What a seed stands for: a fleet, its limits, and everything that goes wrong, as values that can be taken away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any

EVERYBODY = -1
SOON = (2.0, 90.0)  # seconds: before the canary is judged, or while it is replaced
MEMBERS = 20
RARELY, HALF, OFTEN = 0.2, 0.5, 0.6
MUCH_LATER = 1200.0
GROUPS = (0, 0, 0, 1, 2)
EARLY, LATE = 50, 250  # steps, effects or reads; by the first most members still run what they did


class FaultKind(StrEnum):
    """What can happen to a rollout."""

    DIES_BEFORE = "dies before a step"
    DIES_AFTER = "dies after a step"
    SLEEPS_BEFORE = "sleeps before a step"
    SLEEPS_AFTER = "sleeps after a step"
    THROTTLED = "throttled"
    LOST_ANSWER = "lost answer"
    TAKES_TIME = "takes its time"
    BAD_READ = "bad read"
    NO_LAUNCH = "no launch"
    DARK = "dark"
    STALLED = "stalled"
    NEVER_HEALTHY = "never healthy"
    FALLS_ILL = "falls ill"
    FLAPS = "flaps"
    OLD_ILL = "old ill"
    ANOTHER_ILL = "another ill"
    VANISHES = "vanishes"
    PROTECTED = "protected"
    FIXED = "fixed"
    CLOCK_JUMPS = "clock jumps"
    RIVAL = "rival"
    REVOKED = "revoked"
    ALARM = "alarm"
    PAUSE = "pause"
    ABORT = "abort"
    ROLLBACK = "rollback"
    APPROVE = "approve"


COUNTED = (
    *(FaultKind.DIES_BEFORE, FaultKind.DIES_AFTER, FaultKind.SLEEPS_BEFORE, FaultKind.SLEEPS_AFTER),
    *(FaultKind.THROTTLED, FaultKind.LOST_ANSWER, FaultKind.TAKES_TIME, FaultKind.BAD_READ, FaultKind.ANOTHER_ILL),
)
COMMANDS = {FaultKind.PAUSE, FaultKind.ABORT, FaultKind.ROLLBACK, FaultKind.APPROVE}


@dataclass(frozen=True)
class Fault:
    """One thing that happens: to which member (EVERYBODY: all), and how much of it.

    `at` is in seconds; for those of COUNTED it is the number of the step, effect or read.
    """

    trouble: FaultKind
    at: float = 0.0
    member: int = EVERYBODY
    amount: float = 0.0

    def __str__(self) -> str:
        where = f" member {self.member}" if self.member != EVERYBODY else ""
        return f"{self.trouble} at {self.at:g}{where}{f' for {self.amount:g}' if self.amount else ''}"


@dataclass(frozen=True)
class Scenario:
    """One simulated rollout, all of it. `shared`: processes share a server, where the lease alone says who may act;
    else a file, whose lock lives and sleeps with its process.
    """

    seed: int
    members: int = MEMBERS
    limits: dict[str, Any] = field(default_factory=dict)
    slowness: float = 0.5
    faults: tuple[Fault, ...] = ()
    shared: bool = True
    groups: int = 0

    def __str__(self) -> str:
        limits = ", ".join(f"{key} {value}" for key, value in self.limits.items())
        faults = "; ".join(str(fault) for fault in self.faults) or "no fault"
        kept = "on a server" if self.shared else "in a file"
        return f"seed {self.seed}: {self.members} members, {self.groups} groups; {kept}; {limits}; {faults}"


def scenario(seed: int) -> Scenario:
    """The scenario of a seed, always the same."""
    dice = Random(seed)
    faults = tuple(_fault(dice, dice.choice(_MIX)) for _ in range(dice.choice((0, 1, 2, 3, 4, 6, 8))))
    return Scenario(
        seed,
        MEMBERS,
        _limits(dice),
        dice.choice((0.05, 0.5, 2.0)),
        faults,
        dice.random() < HALF,
        Random(seed + 2).choice(GROUPS),
    )


def _limits(dice: Random) -> dict[str, Any]:
    in_place = dice.random() < OFTEN / 1.5
    return {
        "method": "in_place" if in_place else "surge",
        "max_unavailable": dice.choice((1, 2, "10%", "25%")) if in_place else dice.choice((0, 0, 1)),
        "max_surge": dice.choice((1, 4, "50%")),
        "max_parallel": dice.choice((1, 2, 4, 5, 10)),
        "budgets": [{"nodes": dice.choice(("10%", "50%", "100%"))}, *_now_and_then(dice)],
        "canary": dice.choice((0, 1, 1, 2, 3)),
        "min_healthy_time": dice.choice(("10s", "30s")),
        "healthy_deadline": "3m",
        "bake_time": dice.choice(("0s", "1m", "5m")),
        "bake_between_waves": dice.choice(("0s", "0s", "20s")),
        "auto_promote": dice.random() >= RARELY,
        "auto_rollback": dice.random() >= RARELY,
        "alarms": ["http://alarm.example"],
    }


def _now_and_then(dice: Random) -> list[dict[str, Any]]:
    """A budget that is tighter at times; no jump of the clock changes at which."""
    if dice.random() >= RARELY:
        return []
    schedule = dice.choice(("*/10 * * * *", "3-59/10 * * * *"))
    return [{"nodes": dice.choice((0, 1)), "schedule": schedule, "duration": "4m"}]


_AGAIN = (
    *(FaultKind.DIES_BEFORE, FaultKind.DIES_AFTER, FaultKind.LOST_ANSWER, FaultKind.STALLED, FaultKind.ANOTHER_ILL),
    *(FaultKind.SLEEPS_BEFORE, FaultKind.SLEEPS_BEFORE, FaultKind.SLEEPS_BEFORE, FaultKind.SLEEPS_AFTER),
    *(FaultKind.VANISHES, FaultKind.VANISHES),
)
_MIX: tuple[FaultKind, ...] = (*FaultKind, *_AGAIN)
_SLEEPS = (FaultKind.STALLED, FaultKind.SLEEPS_BEFORE, FaultKind.SLEEPS_AFTER)
_OF_CANARIES = (FaultKind.VANISHES, FaultKind.PROTECTED, FaultKind.FIXED)
_WHOLE = (FaultKind.NEVER_HEALTHY, FaultKind.FALLS_ILL, FaultKind.FLAPS, FaultKind.NO_LAUNCH)
_AMOUNT: dict[FaultKind, Callable[[Random], float]] = {
    FaultKind.THROTTLED: lambda dice: dice.choice((1, 3, 10)),
    FaultKind.TAKES_TIME: lambda dice: dice.choice((1, 5, 40)),
    FaultKind.DARK: lambda dice: dice.choice((5, 60, 600)),
    **dict.fromkeys(_SLEEPS, lambda dice: dice.choice((20, 60, 300))),
    FaultKind.FALLS_ILL: lambda dice: dice.choice((20, 60, 200, 100_000)),
    FaultKind.OLD_ILL: lambda dice: dice.choice((30, 300, 100_000)),
    FaultKind.ANOTHER_ILL: lambda dice: dice.choice((30, 300, 100_000)),
    FaultKind.CLOCK_JUMPS: lambda dice: dice.choice((-86_400, -600, 600, 86_400)),
    FaultKind.PAUSE: lambda dice: dice.choice((10, 300, 5_000)),
    FaultKind.ALARM: lambda dice: dice.choice((10, 300)),
}


def _fault(dice: Random, trouble: FaultKind) -> Fault:
    most = EARLY if trouble is FaultKind.ANOTHER_ILL else LATE
    at = float(dice.randrange(most)) if trouble in COUNTED else _moment(dice)
    member = EVERYBODY if trouble in _WHOLE and dice.random() < RARELY else dice.randrange(MEMBERS)
    if trouble is FaultKind.ROLLBACK:  # most is to be brought back once members were promoted
        at = round(dice.uniform(0, MUCH_LATER), 1)
    if trouble in _OF_CANARIES and dice.random() < HALF:
        at, member = round(dice.uniform(0, dice.choice(SOON)), 1), 0
    return Fault(trouble, at, member, _AMOUNT[trouble](dice) if trouble in _AMOUNT else 0.0)


def _moment(dice: Random) -> float:
    """Mostly while the first members are replaced, for there most is to be lost."""
    return round(dice.uniform(0, dice.choice((60.0, 300.0, 1200.0))), 1)
