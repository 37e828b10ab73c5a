"""When a rollout may act, and on how many members at once: windows, freezes, budgets. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from pipelines.fleet.calendar import Budget, RunningRule, Span, Window, at_least, cron
from pipelines.fleet.model import Limits

_GRAVEST_FIRST = ("revoked", "refused", "expired", "max_age", "unknown", "approved_source", "superseded")
GRAVEST_FIRST = tuple(map(RunningRule, _GRAVEST_FIRST))
AGES = (RunningRule.EXPIRED, RunningRule.MAX_AGE)
LOOK_AHEAD, MOST_CHANGES = timedelta(days=366), 2000
_DAY = timedelta(days=1)
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Hold:
    """Nothing may be done until then, and why; `until` None: no end is in sight within a year."""

    until: datetime | None
    why: str


@dataclass(frozen=True)
class Cap:
    """A budget that holds at the moment: `most` members at once, of those replaced for one of `reasons` (none: all)."""

    name: str
    most: int
    reasons: tuple[RunningRule, ...] = ()

    def binds(self, rule: str) -> bool:
        """Whether a member that is replaced for `rule` counts."""
        return not self.reasons or rule in self.reasons


def may_act(limits: Limits, now: datetime) -> Hold | None:
    """None where a rollout may act at `now` (aware UTC); else until when it may not, and the first cause."""
    first = hold = _held(limits, now)
    for _ in range(MOST_CHANGES):
        if hold is None or first is None:
            return None
        if hold.until is None or hold.until > now + LOOK_AHEAD:
            break
        following = _held(limits, hold.until)
        if following is None:
            return Hold(hold.until, first.why)
        hold = following
    return Hold(None, hold.why) if hold else None


def caps(limits: Limits, desired: int, now: datetime) -> tuple[Cap, ...]:
    """The budgets that hold at `now`, for a fleet of `desired` members."""
    return tuple(
        Cap(f"limits.budgets[{number}]", at_least(budget.nodes, desired), budget.reasons)
        for number, budget in enumerate(limits.budgets)
        if _budget_span(budget, now)
    )


def allowed(limits: Limits, desired: int, reasons: Iterable[str], now: datetime) -> int:
    """How many members violating `reasons` may be acted upon at once: the most restrictive budget that binds them."""
    rule = gravest(reasons)
    return min((cap.most for cap in caps(limits, desired, now) if cap.binds(rule)), default=desired)


def gravest(reasons: Iterable[str]) -> str:
    """The reason that a member is replaced for, of several: budgets count it there. Empty without a reason."""
    found = set(reasons)
    return next((rule for rule in GRAVEST_FIRST if rule in found), min(found, default=""))


def _held(limits: Limits, at: datetime) -> Hold | None:
    """The first thing that forbids to act at this very moment, and until when it does."""
    for freeze in limits.freezes:
        if _within(freeze.span, at):
            days = f"{freeze.first_day} to {freeze.last_day} ({freeze.zone})"
            return Hold(freeze.span[1], f"limits.freezes: {days}: {freeze.reason}")
    if limits.windows and not _open(limits.windows, at):
        return Hold(_opening(limits.windows, at), "no window of limits.windows is open")
    for number, budget in enumerate(limits.budgets):
        if budget.nodes in (0, "0%") and not budget.reasons and (span := _budget_span(budget, at)):
            until = None if span[1] == _NEVER else span[1]
            return Hold(until, f"limits.budgets[{number}] allows no member")
    return None


def _budget_span(budget: Budget, at: datetime) -> Span | None:
    """The span around `at` in which the budget holds; one that always holds never ends."""
    if budget.windows:
        return _open(budget.windows, at)
    if budget.schedule and budget.duration:
        began = cron(budget.schedule).last(ZoneInfo(budget.zone), at, budget.duration)
        return (began, began + budget.duration) if began else None
    return (at, _NEVER)


def _open(windows: Sequence[Window], at: datetime) -> Span | None:
    """The window that is open at `at` and closes last."""
    spans = [span for window in windows for span in _around(window, at, (-1, 0)) if _within(span, at)]
    return max(spans, key=lambda span: span[1], default=None)


def _opening(windows: Sequence[Window], at: datetime) -> datetime | None:
    """When the next window opens."""
    spans = [span for window in windows for span in _around(window, at, range(15))]
    return min((span[0] for span in spans if span[0] > at), default=None)


def _around(window: Window, at: datetime, days: Iterable[int]) -> list[Span]:
    """The windows that start on the local day of `at` plus `days`."""
    today = at.astimezone(ZoneInfo(window.zone)).date()
    return [span for number in days if (span := window.on(today + number * _DAY))]


def _within(span: Span, at: datetime) -> bool:
    return span[0] <= at < span[1]
