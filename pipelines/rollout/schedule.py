"""When a rollout may act, and upon how many members at once: windows, freezes, budgets, floor, jitter. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from hardening.findings import Reason
from hardening.foundation.errors import RefusedError
from pipelines.fleet.amounts import at_least, share
from pipelines.fleet.calendar import Budget, Freeze, Rule, Span, Window, cron
from pipelines.fleet.members import Member
from pipelines.fleet.model import Limits, Method
from pipelines.rollout.state import Stage

if TYPE_CHECKING:
    from pipelines.rollout.orders import MemberOrder  # which stands on plans, and those on this

GRAVEST_FIRST = (
    *(Rule.REVOKED, Rule.REFUSED, Rule.EXPIRED, Rule.MAX_AGE, Rule.UNKNOWN, Rule.APPROVED_SOURCE),
    Rule.SUPERSEDED,
)
AGES = (Rule.EXPIRED, Rule.MAX_AGE)
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
    reasons: tuple[Rule, ...] = ()

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


def turn(member: str, violations: Sequence[Reason], jitter: str) -> datetime | None:
    """When an automated run comes to a member that is merely too old: at a part of its grace that its id decides.

    None: at once, since something else is wrong with it, or no grace is left to spread members over.
    """
    moments = [_own_moment(member, reason, jitter) for reason in violations]
    return None if None in moments else min((moment for moment in moments if moment), default=None)


def _own_moment(member: str, reason: Reason, jitter: str) -> datetime | None:
    if reason.rule not in AGES or not reason.since or not reason.deadline:
        return None
    part = int.from_bytes(sha256(member.encode()).digest()[:4]) / 2**32 * share(jitter) / 100
    return reason.since + part * (reason.deadline - reason.since)


def _held(limits: Limits, at: datetime) -> Hold | None:
    """The first thing that forbids to act at this very moment, and until when it does."""
    for freeze in limits.freezes:
        if _within(freeze.span, at):
            return Hold(freeze.span[1], _frozen(freeze))
    if limits.windows and not _open(limits.windows, at):
        return Hold(_opening(limits.windows, at), "no window of limits.windows is open")
    for number, budget in enumerate(limits.budgets):
        if budget.nodes in (0, "0%") and not budget.reasons and (span := _budget_span(budget, at)):
            until = None if span[1] == _NEVER else span[1]
            return Hold(until, f"limits.budgets[{number}] allows nobody")
    return None


def _frozen(freeze: Freeze) -> str:
    return f"limits.freezes: {freeze.first_day} to {freeze.last_day} ({freeze.zone}): {freeze.reason}"


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


LONGEST_SLEEP = timedelta(minutes=10)


@dataclass(frozen=True)
class Admission:
    """`room` members may be replaced now; for nobody: what the rollout does meanwhile, why, and for how many seconds.

    `seconds` 0: nobody knows.
    """

    room: int
    stage: Stage = Stage.ROLLING
    why: str = ""
    seconds: float = 0


def scheduled(limits: Limits, now: datetime) -> Admission | None:
    """What windows, freezes and budgets of nobody say. Raises RefusedError where no moment within a year is allowed."""
    hold = may_act(limits, now)
    if hold is None:
        return None
    if hold.until is None:
        raise RefusedError(hold.why, hint="change it in the fleet's file")
    why = f"{hold.why}, until {hold.until:%Y-%m-%d %H:%M} UTC"
    return Admission(0, Stage.WAITING, why, min(hold.until - now, LONGEST_SLEEP).total_seconds())


def budgeted(limits: Limits, desired: int, orders: Sequence[MemberOrder], now: datetime) -> Admission:
    """How many of `orders`, in their order, the budgets of this moment let be replaced side by side."""
    holding, taken = caps(limits, desired, now), Counter[str]()
    for number, order in enumerate(orders):
        bound = [cap for cap in holding if cap.binds(order.rule)]
        if any(taken[cap.name] >= cap.most for cap in bound):
            why = f"the budgets of this moment allow nobody more who is {order.rule}"
            return Admission(number, Stage.WAITING, why, 0 if number else LONGEST_SLEEP.total_seconds())
        taken.update(cap.name for cap in bound)
    return Admission(len(orders))


def above_floor(orders: Sequence[MemberOrder], members: Sequence[Member]) -> Admission:
    """How many of `orders`, in their order, may be taken away at once: counted are those who serve right now."""
    serving = {member.id for member in members if member.healthy}
    spare = len(serving) - orders[0].floor
    for number, order in enumerate(orders):
        if order.member in serving and (spare := spare - 1) < 0:
            left = len(serving) - number - 1
            return Admission(number, Stage.WAITING, _too_few(order.name, left, order.floor))
    return Admission(len(orders))


def below_floor(members: Sequence[Member], leaving: str, floor: int) -> str:
    """Why a member must not be taken away now, counting who serves at this moment; empty when it may."""
    member = next((one for one in members if one.id == leaving), None)
    left = sum(one.healthy for one in members) - 1
    return _too_few(member.name, left, floor) if member and member.healthy and left < floor else ""


def _too_few(name: str, left: int, floor: int) -> str:
    return f"replacing {name} in place now would leave {left} members serving; the floor is {floor}"


def admit(orders: Sequence[MemberOrder], desired: int, members: Sequence[Member], now: datetime) -> Admission:
    """How many of `orders`, which belong to one wave, may begin at `now`; `members` are needed for what goes in place.

    What goes back to what it was waits for no window and no budget. Raises RefusedError.
    """
    first = orders[0]
    if not first.back and (held := scheduled(first.limits, now)):
        return held
    within = Admission(len(orders)) if first.back else budgeted(first.limits, desired, orders, now)
    if within.room and first.method is Method.IN_PLACE:
        return above_floor(orders[: within.room], members)
    return within
