"""How many members a rollout may replace at this moment, of those whose turn it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.errors import RefusedError
from pipelines.durable.port import FencedError
from pipelines.fleet.members import Member
from pipelines.fleet.model import Method
from pipelines.rollout.admission import (
    Admission,
    above_floor,
    admit,
    admitted,
    below_floor,
    budgeted,
    group_admitted,
    scheduled,
    spent,
)
from pipelines.rollout.plan import plan
from pipelines.rollout.state import DesiredState, Event, MemberOrder, Order, RolloutStage, RolloutState, World
from pipelines.rollout.steps import Rolling, StoppedError
from tests.pipelines.rollout.test_steps import Clock, Ledger
from tests.support.fleets import NOW, fleet, judged, member, target

TWO = ("expired", "superseded")


def room(*budgets: dict[str, Any]) -> int:
    """How many of two members, one of each reason, the budgets let be replaced side by side."""
    limits = fleet(budgets=budgets).limits
    orders = [MemberOrder("r1", "r1", rule, rule, target(), Method.SURGE, 0, limits, rule=rule) for rule in TWO]
    return budgeted(limits, 10, orders, NOW).room


def test_a_budget_counts_all_that_it_binds_together() -> None:
    """Two members of two reasons are two, for a budget that has become narrower since the plan was made."""
    assert room({"nodes": 1}) == 1
    assert room({"nodes": 2}) == 2
    assert room({"nodes": 2}, {"nodes": 1, "reasons": ["superseded"]}) == 2
    assert room({"nodes": 1, "reasons": ["expired"]}, {"nodes": 1, "reasons": ["superseded"]}) == 2
    assert room({"nodes": 1, "reasons": ["expired", "superseded"]}) == 1


def order(
    name: str = "web-1", *, floor: int = 0, method: Method = Method.IN_PLACE, back: bool = False, **limits: Any
) -> MemberOrder:
    of = fleet(**limits).limits
    at = f"host/local/docker/{name}"
    return MemberOrder("r1", "r1", at, name, target(), method, floor, of, rule="expired", back=back)


def test_what_budgets_leave_waits_and_says_for_whom() -> None:
    """Nobody knows when a member that runs now ends; where none may begin, it looks again within ten minutes."""
    spent = budgeted(order(budgets=[{"nodes": 1}]).limits, 10, [order(), order("web-2")], NOW)
    assert spent == Admission(1, RolloutStage.WAITING, "budget exhausted for reason expired", 0)
    none = [{"nodes": "100%"}, {"nodes": 0, "reasons": ["expired"]}]
    frozen = budgeted(order(budgets=none).limits, 10, [order(), order("web-2")], NOW)
    assert frozen == Admission(0, RolloutStage.WAITING, "budget exhausted for reason expired", 600)
    assert budgeted(order().limits, 10, [order()], NOW) == Admission(1, RolloutStage.ROLLING, "", 0)


@pytest.mark.parametrize(("minutes", "seconds"), [(5, 300), (60, 600)])
def test_a_window_that_opens_is_waited_for_ten_minutes_at_a_time(minutes: int, seconds: float) -> None:
    """It says until when; a change of the clock or of the file is seen soon."""
    opens = NOW + timedelta(minutes=minutes)
    shut = order(windows=[{"start": f"{opens:%H:%M}", "end": "23:00"}])
    why = f"no window of limits.windows is open, until {opens:%Y-%m-%d %H:%M} UTC"
    assert scheduled(shut.limits, NOW) == Admission(0, RolloutStage.WAITING, why, seconds)
    assert admit([shut], 1, (), NOW) == scheduled(shut.limits, NOW)
    assert scheduled(order().limits, NOW) is None


def test_until_when_a_reason_may_not_begin_is_told_where_that_is_too_late() -> None:
    """To the moment; who may begin before it, or now, is not told of anything."""
    frozen = {"nodes": 0, "reasons": ["expired"], "windows": [{"start": "12:00", "end": "15:00"}]}
    limits, hour = order(budgets=[{"nodes": "50%"}, frozen]).limits, timedelta(hours=1)
    assert spent(limits, 3, "expired", NOW, NOW + 2 * hour) == "until 2026-03-01 15:00 UTC"
    assert spent(limits, 3, "expired", NOW, NOW + 3 * hour) == ""
    assert spent(limits, 3, "superseded", NOW, NOW) == ""
    never = order(budgets=[{"nodes": 0, "reasons": ["expired"]}]).limits
    assert spent(never, 3, "expired", NOW, NOW + hour) == "with no end within a year"


def test_a_moment_that_never_comes_refuses() -> None:
    """Instead of waiting for ever."""
    with pytest.raises(RefusedError, match=r"limits.budgets\[0\] allows no member") as refused:
        scheduled(order(budgets=[{"nodes": 0}]).limits, NOW)
    assert refused.value.hint == "change it in the fleet's file"


def test_as_many_are_taken_away_as_serve_above_the_floor() -> None:
    """Who does not serve costs nothing; counted is who serves right now."""
    members = [member("web-1"), member("web-2"), member("web-3", healthy=False), member("web-4")]
    wave = [order("web-3", floor=2), order("web-1", floor=2), order("web-2", floor=2), order("web-4", floor=2)]
    why = "replacing web-2 in place now would leave 1 member serving; the floor is 2; not serving: web-3"
    assert above_floor(wave, members) == Admission(2, RolloutStage.WAITING, why, 0)
    assert above_floor(wave[:2], members) == Admission(2)
    assert above_floor([order("web-1", floor=1)], [member("web-1")]).room == 0
    assert above_floor([order("web-1", floor=0)], [member("web-1")]).room == 1


def test_the_last_that_serve_of_two_hosts_do_not_go_at_once() -> None:
    """Counted is who serves now: since the plan was made one of a host may have fallen ill."""
    wave = [order("web-1"), order("web-2")]
    members = [member("web-1", zone="a"), member("web-2", zone="b"), member("web-3", zone="b")]
    assert above_floor(wave, members) == Admission(2)
    members[2] = member("web-3", zone="b", healthy=False)
    why = "replacing web-2 in place now would leave none serving in b, beside another zone"
    assert above_floor(wave, members) == Admission(1, RolloutStage.WAITING, why)
    assert above_floor(wave[1:], members) == Admission(1)
    assert above_floor(wave, [replace(one, zone="") for one in members]) == Admission(2)
    assert above_floor(wave, [replace(one, zone="a") for one in members]) == Admission(2)


def test_a_member_that_would_take_the_fleet_below_its_floor_stays() -> None:
    """Exactly the floor may be left; who does not serve, or is not there, takes nothing away."""
    members = [member("web-1"), member("web-2"), member("web-3", healthy=False, starting=True)]
    at = "host/local/docker/web-{}".format
    assert below_floor(members, at(1), 1) == ""
    assert below_floor(members, at(1), 2) == (
        "replacing web-1 in place now would leave 1 member serving; the floor is 2; not serving: web-3 (starting)"
    )
    assert below_floor(members, at(3), 3) == ""
    assert below_floor(members, at(9), 3) == ""


def test_in_place_the_floor_bounds_what_the_budgets_let_through() -> None:
    """Beside a replacement nobody is missing, so that a surge has no floor."""
    members = [member("web-1"), member("web-2"), member("web-3")]
    names = ("web-1", "web-2", "web-3")
    budgets = [{"nodes": 2}]
    assert admit([order(name, floor=2, budgets=budgets) for name in names], 3, members, NOW).room == 1
    assert admit([order(name, floor=0, budgets=budgets) for name in names], 3, members, NOW).room == 2
    surge = [order(name, floor=2, method=Method.SURGE, budgets=budgets) for name in names]
    assert admit(surge, 3, members, NOW).room == 2
    assert admit([order(name, floor=2, back=True, budgets=budgets) for name in names], 3, members, NOW).room == 1
    none = [{"nodes": "100%"}, {"nodes": 0, "reasons": ["expired"]}]
    assert admit([order(budgets=none)], 3, members, NOW).seconds == 600


def test_a_budget_counts_at_the_moment_at_which_a_member_is_to_begin() -> None:
    """Outside of its window it binds nobody."""
    budgets = [{"nodes": "100%"}, {"nodes": 1, "windows": [{"start": "22:00", "end": "23:00"}]}]
    wave = [order(name, method=Method.SURGE, budgets=budgets) for name in ("web-1", "web-2")]
    for now, most in ((NOW, 2), (NOW.replace(hour=22), 1)):
        assert budgeted(wave[0].limits, 2, wave, now).room == most
        assert admit(wave, 2, (), now).room == most


# -- waiting to be admitted --------------------------------------------------------------------------------------------


@dataclass
class Book(Ledger):
    """A journal that keeps what the rollout said it does, with what it waits for, and what people were told of."""

    said: list[tuple[str, str]] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)

    def save(self, state: RolloutState) -> None:
        self.said.append((state.stage, state.note))

    def notify(self, _rollout: str, event: Event, _text: str) -> None:
        self.told.append(event)


@dataclass
class Asking:
    """A rollout of two members that asks to begin with both, and what came of that."""

    wanted: Sequence[DesiredState] = (DesiredState.GO,)
    serving: Sequence[Sequence[str]] = ()  # the names of who serves, look by look, the last for ever
    back: bool = False
    limits: dict[str, Any] = field(default_factory=dict)
    until: datetime | None = None
    refused: list[str] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.book, self.looks = Book(list(self.wanted)), list(self.serving)

    def describe(self) -> list[Member]:
        serving = self.looks.pop(0) if self.looks[1:] else self.looks[0]
        return [member(name, healthy=name in serving) for name in ("web-1", "web-2")]

    def room(self) -> int:
        rolling, orders = self._rolling()
        return asyncio.run(admitted(rolling, orders))

    def grouped(self) -> None:
        asyncio.run(group_admitted(self._rolling()[0]))

    def _rolling(self) -> tuple[Rolling, list[MemberOrder]]:
        of = fleet(canary=0, max_parallel=2, max_surge=2, budgets=[{"nodes": "100%"}], **self.limits)
        made = plan(of, [judged(name, "expired") for name in ("web-1", "web-2")], target(29), NOW)
        judge: Any = SimpleNamespace(refuse=lambda image: self.refused.append(image.reference), alarms=lambda _: ())
        place: Any = SimpleNamespace(describe=self.describe)
        journal: Any = self.book
        engine: Any = self.clock
        world = World(place, journal, judge, lambda: NOW, until=self.until)
        rolling = Rolling(world, engine, Order("r1", made, of.limits), NOW)
        return rolling, [replace(rolling.member_order(step), back=self.back) for step in made.steps]


IN_PLACE = {"method": "in_place", "max_unavailable": 1}


def test_a_pause_is_shown_and_told_once_and_ends() -> None:
    """Nothing is looked at meanwhile; then the rollout says again what it does."""
    asking = Asking([DesiredState.PAUSE, DesiredState.PAUSE, DesiredState.GO])
    assert asking.room() == 2
    assert asking.book.said == [("paused", ""), ("rolling", "")]
    assert asking.book.told == [Event.PAUSED]
    assert (asking.clock.waited, asking.refused) == ([2, 2], [target(29).reference])
    days = Asking([*[DesiredState.PAUSE] * 9000, DesiredState.GO])
    assert days.room() == 2
    assert sum(days.clock.waited) > timedelta(days=3).total_seconds()


@pytest.mark.parametrize("stops", [DesiredState.ABORT, DesiredState.ROLLBACK])
def test_who_is_stopped_is_not_admitted(stops: DesiredState) -> None:
    """Nor waits for anything."""
    asking = Asking([stops])
    with pytest.raises(StoppedError, match=f"stopped by {stops}"):
        asking.room()
    assert (asking.book.said, asking.clock.waited, asking.refused) == ([], [], [])


def test_in_place_room_is_waited_for_and_not_for_ever() -> None:
    """With what is missing, for as long as progress_deadline; beside the old ones nobody is counted."""
    why = "replacing web-1 in place now would leave 0 members serving; the floor is 1; not serving: web-2"
    asking = Asking(serving=[["web-1"], ["web-1", "web-2"]], limits=IN_PLACE)
    assert asking.room() == 1
    assert (asking.book.said, asking.book.told) == ([("waiting", why), ("rolling", "")], [])
    for_ever = Asking(serving=[["web-1"]], limits=IN_PLACE)
    with pytest.raises(RefusedError, match=why) as refused:
        for_ever.room()
    assert refused.value.hint == "nothing moved for progress_deadline: fix what is unhealthy first"
    assert 1800 <= sum(for_ever.clock.waited) < 1860
    assert Asking().room() == 2


def test_a_wait_that_is_too_long_is_left_open_by_who_still_holds_the_fleet() -> None:
    """With what it waits for: whoever goes on reads that."""
    asking = Asking(limits={"windows": [{"start": "22:00", "end": "23:00"}]}, until=NOW + timedelta(hours=9))
    with pytest.raises(FencedError):
        asking.room()
    assert asking.book.lines == ["orders r1", "fence r1"]
    assert asking.book.said == [("waiting", "no window of limits.windows is open, until 2026-03-01 22:00 UTC")]


def test_a_group_waits_for_people_and_windows_alone() -> None:
    """Its service counts who serves, and its own flow judges it."""
    free = Asking()
    free.grouped()
    assert (free.book.said, free.clock.waited, free.refused) == ([], [], [])
    shut = Asking([DesiredState.GO, DesiredState.ABORT], limits={"windows": [{"start": "22:00", "end": "23:00"}]})
    with pytest.raises(StoppedError):
        shut.grouped()
    assert shut.book.said == [("waiting", "no window of limits.windows is open, until 2026-03-01 22:00 UTC")]
    assert (shut.clock.waited, shut.refused) == ([600], [])


def test_what_goes_back_is_not_judged() -> None:
    """It leads away from what is refused; the floor holds all the same."""
    asking = Asking(back=True, serving=[["web-1", "web-2"]], limits=IN_PLACE)
    assert (asking.room(), asking.refused) == (1, [])
