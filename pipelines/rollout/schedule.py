"""When a rollout may act, and on how many members at once: windows, freezes, budgets. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import merge
from zoneinfo import ZoneInfo

from pipelines.fleet.calendar import Budget, RunningRule, Span, Window, at_least, cron
from pipelines.fleet.model import Limits

_GRAVEST_FIRST = (
    "revoked", "refused", "foreign_processes", "changed_files", "expired", "max_age", "unknown", "approved_source",
    "vulnerable", "superseded",
)  # fmt: skip
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
        if budget.freezes and (span := _budget_span(budget, at)):
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


# -- the time ahead, cut where windows, freezes and budgets begin or end  -------------------------------------------


@dataclass(frozen=True)
class Stretch:
    """A time in which the same holds: the budgets as `caps`, and the key path of what forbids to act; empty: nothing.

    `opened`: the seconds from the timeline's start to its beginning in which nothing forbade that.
    """

    begins: datetime
    ends: datetime
    held_by: str
    caps: tuple[Cap, ...]
    opened: float


class Timeline:
    """What holds when for a fleet of `desired` members, from `start` (aware UTC) on; read as far as asked.

    With a `rule`, a budget of 0 for members that are replaced for it forbids to act, too.
    """

    def __init__(
        self, limits: Limits, desired: int, start: datetime, span: timedelta = LOOK_AHEAD, rule: str = ""
    ) -> None:
        self.start, self.end = start, start + span
        self._ahead = _stretches(limits, desired, start, self.end, rule)
        self._known: list[Stretch] = []
        self._begins: list[datetime] = []
        self._opened: list[float] = []  # at the ends of those that are known

    def at(self, moment: datetime) -> Stretch | None:
        """What holds at `moment`; what is before the start counts as the start. None: it is beyond the end."""
        if moment >= self.end:
            return None
        while not self._known or self._known[-1].ends <= moment:
            self._read()
        return self._known[max(0, bisect_right(self._begins, moment) - 1)]

    def free(self, moment: datetime, rule: str) -> tuple[datetime, tuple[Cap, ...]] | None:
        """The first time from `moment` on at which a member replaced for `rule` may begin, and the budgets then."""
        found = self.at(moment)
        while found and (found.held_by or any(not cap.most and cap.binds(rule) for cap in found.caps)):
            moment = found.ends
            found = self.at(moment)
        return (moment, found.caps) if found else None

    def opened(self, moment: datetime) -> float:
        """The seconds from the start to `moment` in which a rollout may act."""
        found = self.at(min(max(moment, self.start), self.end - timedelta(microseconds=1)))
        if found is None or found.held_by:
            return found.opened if found else 0.0
        return found.opened + (min(max(moment, self.start), self.end) - found.begins).total_seconds()

    def moment(self, opened: float) -> datetime:
        """When so many seconds have passed in which a rollout may act, and it still may; at most the end."""
        opened = max(0.0, opened)
        while not self._opened or self._opened[-1] <= opened:
            if (self._known[-1].ends if self._known else self.start) >= self.end:
                return self.end
            self._read()
        found = self._known[bisect_right(self._opened, opened)]
        return found.begins + timedelta(seconds=opened - found.opened)

    def least(self, rule: str, until: datetime) -> int | None:
        """The smallest budget above 0 that binds members replaced for `rule` before `until`; None: none does."""
        found, at = list[int](), self.start
        while at < until and (stretch := self.at(at)):
            found += [] if stretch.held_by else [cap.most for cap in stretch.caps if cap.most and cap.binds(rule)]
            at = stretch.ends
        return min(found, default=None)

    def _read(self) -> None:
        stretch = next(self._ahead)
        self._known.append(stretch)
        self._begins.append(stretch.begins)
        lasts = (stretch.ends - stretch.begins).total_seconds()
        self._opened.append(stretch.opened + (0.0 if stretch.held_by else lasts))


class _Signal:
    """Whether something holds, asked of ever later moments."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._spans = iter(spans)
        self._span = next(self._spans, None)

    def at(self, moment: datetime) -> tuple[bool, datetime]:
        """Whether it holds then, and until when that is so."""
        while self._span and self._span[1] <= moment:
            self._span = next(self._spans, None)
        if self._span is None:
            return False, _NEVER
        return (True, self._span[1]) if self._span[0] <= moment else (False, self._span[0])


def _stretches(limits: Limits, desired: int, start: datetime, end: datetime, rule: str = "") -> Iterator[Stretch]:
    freezes = [_Signal([freeze.span]) for freeze in limits.freezes]
    windows = _Signal(_openings_of(limits.windows, start, end) if limits.windows else [(start, _NEVER)])
    budgets = [_Signal(_holding(budget, start, end)) for budget in limits.budgets]
    every = [
        Cap(f"limits.budgets[{number}]", at_least(budget.nodes, desired), budget.reasons)
        for number, budget in enumerate(limits.budgets)
    ]
    at, opened = start, 0.0
    while at < end:
        frozen, window, held = ([one.at(at) for one in signals] for signals in (freezes, [windows], budgets))
        until = min(end, *(moment for _, moment in (*frozen, *window, *held)))
        binding = [number for number, (holds, _) in enumerate(held) if holds]
        caps = tuple(every[number] for number in binding)
        forbids = [f"limits.freezes[{number}]" for number, (holds, _) in enumerate(frozen) if holds]
        forbids += [] if window[0][0] else ["limits.windows"]
        forbids += [
            every[number].name
            for number in binding
            if limits.budgets[number].freezes or (rule and not every[number].most and every[number].binds(rule))
        ]
        yield Stretch(at, until, forbids[0] if forbids else "", caps, opened)
        opened += 0.0 if forbids else (until - at).total_seconds()
        at = until


def _holding(budget: Budget, start: datetime, end: datetime) -> Iterable[Span]:
    """When the budget holds, in order."""
    if budget.windows:
        return _openings_of(budget.windows, start, end)
    if not budget.schedule or budget.duration is None:
        return [(start, _NEVER)]
    return _merged(_scheduled(budget.schedule, budget.duration, ZoneInfo(budget.zone), start, end))


def _scheduled(schedule: str, duration: timedelta, zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[Span]:
    when, day = cron(schedule), (start - duration).astimezone(zone).date() - _DAY
    while day <= end.date() + _DAY:
        yield from ((began, began + duration) for began in when.beginnings(zone, day))
        day += _DAY


def _openings_of(windows: Sequence[Window], start: datetime, end: datetime) -> Iterator[Span]:
    """When one of the windows is open, in order."""
    return _merged(merge(*(_openings(window, start, end) for window in windows)))


def _openings(window: Window, start: datetime, end: datetime) -> Iterator[Span]:
    day = start.astimezone(ZoneInfo(window.zone)).date() - 2 * _DAY
    while day <= end.date() + _DAY:
        if span := window.on(day):
            yield span
        day += _DAY


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    """Spans by their beginning, those that touch as one."""
    held: Span | None = None
    for span in spans:
        if held and span[0] <= held[1]:
            held = (held[0], max(held[1], span[1]))
            continue
        if held:
            yield held
        held = span
    if held:
        yield held
