"""How many members a rollout may replace at this moment, of those whose turn it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hardening.foundation.errors import RefusedError
from pipelines.fleet.model import Method
from pipelines.rollout.admission import Admission, above_floor, admit, below_floor, budgeted, scheduled
from pipelines.rollout.state import MemberOrder, RolloutStage
from tests.support.fleets import NOW, fleet, member, target

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


def test_a_moment_that_never_comes_refuses() -> None:
    """Instead of waiting for ever."""
    with pytest.raises(RefusedError, match=r"limits.budgets\[0\] allows no member") as refused:
        scheduled(order(budgets=[{"nodes": 0}]).limits, NOW)
    assert refused.value.hint == "change it in the fleet's file"


def test_as_many_are_taken_away_as_serve_above_the_floor() -> None:
    """Who does not serve costs nothing; counted is who serves right now."""
    members = [member("web-1"), member("web-2"), member("web-3", healthy=False), member("web-4")]
    wave = [order("web-3", floor=2), order("web-1", floor=2), order("web-2", floor=2), order("web-4", floor=2)]
    why = "replacing web-2 in place now would leave 1 member serving; the floor is 2"
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
    members = [member("web-1"), member("web-2"), member("web-3", healthy=False)]
    at = "host/local/docker/web-{}".format
    assert below_floor(members, at(1), 1) == ""
    assert below_floor(members, at(1), 2) == (
        "replacing web-1 in place now would leave 1 member serving; the floor is 2"
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
