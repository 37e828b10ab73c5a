"""Deadlines: who is replaced when, whether that is in time, which limit keeps it from that, and whose turn is when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise, permutations
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.fleet.model import Limits
from pipelines.fleet.violations import Judged
from pipelines.rollout.plan import due_times, plan
from pipelines.rollout.schedule import LOOK_AHEAD, Timeline, caps, may_act
from pipelines.rollout.waves import Forecast, Late, Room, Step, _Batch, forecast, limit_keys, without
from tests.pipelines.rollout.test_schedule import MOMENTS, WINDOWS, ZONES
from tests.support.fleets import NOW, fleet, judged, member, reason, target

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TAKES = 600
NIGHT = {"start": "22:00", "end": "04:00"}
FREEZES = st.integers(0, 20).map(
    lambda day: {"first_day": f"2026-03-{day + 1:02}", "last_day": f"2026-03-{day + 2:02}", "reason": "audit"}
)
NODES = st.sampled_from([1, 2, 3, "25%", "60%"])
ALWAYS = st.fixed_dictionaries({"nodes": NODES})
AT_TIMES = st.one_of(
    st.fixed_dictionaries({"nodes": st.sampled_from([0, 1, 2]), "windows": st.lists(WINDOWS, min_size=1, max_size=2)}),
    st.fixed_dictionaries(
        {
            "nodes": st.sampled_from([0, 1, 2]),
            "schedule": st.sampled_from(["0 9 * * mon-fri", "30 */5 * * *", "15 1 1 * *", "0 2 * * sun"]),
            "duration": st.sampled_from(["30m", "8h", "5h", "40h"]),
            "zone": ZONES,
        }
    ),
    st.fixed_dictionaries({"nodes": st.sampled_from([0, 1]), "reasons": st.just(["superseded"])}),
)


def limits(**more: Any) -> Limits:
    """Wide limits, without a canary."""
    wide = {"canary": 0, "max_parallel": 9, "max_surge": 9, "budgets": [], "zones": "spread"}
    return fleet(**(wide | more)).limits


def step(number: int, hours: float | None = None, rule: str = "expired", seconds: int = TAKES, zone: str = "") -> Step:
    """One member that is due `hours` after NOW."""
    deadline = None if hours is None else NOW + hours * HOUR
    return Step(member(f"web-{number:02}", zone=zone), ("why",), rule, seconds, deadline=deadline)


def seen(steps: Sequence[Step], of: Limits, now: datetime = NOW) -> Forecast:
    return forecast(steps, Room(of, len(steps), len(steps)), now)


def begun(found: Forecast) -> dict[str, datetime]:
    """When each begins."""
    steps = [one for wave in found.waves for one in wave.steps]
    return {one.member.name: one.begins_at for one in steps if one.begins_at}


def ends(found: Forecast) -> dict[str, datetime]:
    return {one.member.name: one.ends_at for wave in found.waves for one in wave.steps if one.ends_at}


# -- how long it takes to plan many members ----------------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> list[object]:
    """Calls of a method, one after the other."""
    calls, method = list[object](), getattr(kind, name)
    monkeypatch.setattr(kind, name, lambda self, *given: calls.append(given) or method(self, *given))
    return calls


def test_a_turn_is_found_without_a_walk_through_the_time_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand members of a fleet with a budget that changes each few minutes took minutes of processor time."""
    due, many = NOW + 30 * DAY, 50
    why = reason("expired", since=NOW - HOUR, deadline=due)
    aged = [replace(judged(f"web-{number:02}"), reasons=(why,)) for number in range(many)]
    of = limits(budgets=[{"nodes": "50%"}, {"nodes": 1, "schedule": "*/10 * * * *", "duration": "4m"}])
    looks = counted(monkeypatch, Timeline, "at")
    turns = due_times(aged, of, TAKES, NOW)
    assert len(set(turns.values())) == many
    stretches = 2 * 30 * 24 * 6
    assert len(looks) < stretches + 10 * many, "one look through all of it, for its least budget"


def test_members_side_by_side_are_each_weighed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether another zone would be left without any hangs on all that go at once."""
    steps = [step(number, zone="abc"[number % 3]) for number in range(60)]
    of = limits(method="in_place", max_unavailable="50%", max_parallel=60)
    weighed = counted(monkeypatch, _Batch, "_costs")
    made = forecast(steps, Room(of, 60, 60, 0, {"a": 20, "b": 20, "c": 20}), NOW).waves
    assert [len(wave.steps) for wave in made] == [30, 30]
    assert len(weighed) <= 4 * len(steps)


# -- the time ahead ----------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.lists(WINDOWS, max_size=2), st.lists(AT_TIMES, max_size=3), MOMENTS,
    st.lists(st.integers(0, 60 * 24 * 40), min_size=1, max_size=8),
)  # fmt: skip
def test_the_time_ahead_says_what_the_limits_say_at_each_moment(
    windows: list[Any], budgets: list[Any], start: datetime, later: list[int]
) -> None:
    """Asked in any order: who holds, and which budgets; over days on which clocks are set."""
    of = limits(windows=windows, budgets=budgets)
    ahead = Timeline(of, 10, start)
    for minutes in later:
        at = start + timedelta(minutes=minutes)
        stretch = ahead.at(at)
        assert stretch is not None
        assert stretch.begins <= at < stretch.ends
        assert bool(stretch.held_by) == (may_act(of, at) is not None)
        assert stretch.caps == caps(of, 10, at)


def test_the_time_ahead_counts_the_seconds_in_which_a_rollout_may_act() -> None:
    """Six hours each night; and back: the moment at which so many have passed."""
    ahead = Timeline(limits(windows=[NIGHT]), 10, NOW)
    night = datetime(2026, 3, 1, 22, tzinfo=UTC)
    moments = [NOW, night, night + HOUR, night + 8 * HOUR, night + 25 * HOUR]
    assert [ahead.opened(at) / 3600 for at in moments] == [0, 0, 1, 6, 7]
    assert [ahead.moment(hours * 3600) for hours in (1, 6, 7)] == [night + HOUR, night + 24 * HOUR, night + 25 * HOUR]
    assert ahead.at(NOW + LOOK_AHEAD) is None


def test_the_time_ahead_names_what_forbids_to_act() -> None:
    """By the key path in the fleet's file; a freeze before a window before a budget of 0."""
    freeze = {"first_day": "2026-03-01", "last_day": "2026-03-01", "reason": "audit"}
    of = limits(windows=[NIGHT], freezes=[freeze], budgets=[{"nodes": 2}, {"nodes": 0, "windows": [NIGHT]}])
    ahead = Timeline(of, 10, NOW)
    held = [stretch.held_by for hours in (0, 13, 20, 36) if (stretch := ahead.at(NOW + hours * HOUR))]
    assert held == ["limits.freezes[0]", "limits.budgets[1]", "limits.windows", "limits.budgets[1]"]


# -- what is predicted -------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.integers(1, 300),
        st.sampled_from(["expired", "superseded", "revoked"]),
        st.sampled_from([60, TAKES, 5000]),
        st.sampled_from("ab"),
    ),
    min_size=1,
    max_size=12,
).map(
    lambda rows: [step(number, hours, rule, seconds, zone) for number, (hours, rule, seconds, zone) in enumerate(rows)]
)
SOME_LIMITS = st.builds(
    limits,
    windows=st.lists(WINDOWS, max_size=2), freezes=st.lists(FREEZES, max_size=2),
    budgets=st.lists(st.one_of(ALWAYS, AT_TIMES), max_size=3), max_parallel=st.integers(1, 5),
    canary=st.integers(0, 2), zones=st.sampled_from(["one_by_one", "spread"]),
)  # fmt: skip


@settings(max_examples=150)
@given(STEPS, SOME_LIMITS)
def test_nobody_begins_in_a_freeze_outside_a_window_or_beyond_a_budget(steps: list[Step], of: Limits) -> None:
    """At each moment at which somebody begins, counting all that are under way."""
    found = seen(steps, of)
    start, end = begun(found), ends(found)
    for moment in set(start.values()):
        assert may_act(of, moment) is None
        for cap in caps(of, len(steps), moment):
            new = {one.member.name for one in steps if start.get(one.member.name) == moment and cap.binds(one.rule)}
            active = {
                one.member.name for one in steps
                if one.member.name in start and start[one.member.name] <= moment < end[one.member.name]
                and cap.binds(one.rule)
            }  # fmt: skip
            assert not new or len(active) <= cap.most
    busy = Counter(wave.parallel for wave in found.waves)
    assert max(busy) <= of.max_parallel


@settings(max_examples=60)
@given(STEPS, SOME_LIMITS, st.randoms())
def test_the_order_of_the_members_decides_nothing(steps: list[Step], of: Limits, dice: Any) -> None:
    """The same waves at the same times."""
    mixed = list(steps)
    dice.shuffle(mixed)
    assert seen(mixed, of) == seen(steps, of)


@settings(max_examples=80)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 2), st.lists(WINDOWS, max_size=2),
)  # fmt: skip
def test_where_any_order_meets_all_deadlines_ours_does(hours: list[int], wide: int, windows: list[Any]) -> None:
    """Compared with every order that there is, of members of one zone that all serve."""
    of = limits(windows=windows, max_parallel=wide)
    steps = [step(number, due, seconds=5000) for number, due in enumerate(hours)]
    possible = False
    for order in permutations(steps):
        at, missed = NOW, False
        for first in range(0, len(order), wide):
            held = may_act(of, at)
            at = (held.until if held and held.until else at) + timedelta(seconds=5000)
            missed |= any(one.deadline and at > one.deadline for one in order[first : first + wide])
        possible |= not missed
    assert (not seen(steps, of).late) == possible


MORE = st.one_of(
    st.fixed_dictionaries({"freezes": FREEZES}), st.fixed_dictionaries({"budgets": st.one_of(ALWAYS, AT_TIMES)}),
    st.fixed_dictionaries({"windows": WINDOWS}), st.fixed_dictionaries({"max_parallel": st.integers(1, 5)}),
)  # fmt: skip


@settings(max_examples=80)
@given(st.integers(1, 12), st.lists(FREEZES, max_size=1), st.lists(ALWAYS, max_size=1), MORE)
def test_another_limit_makes_no_end_earlier(members: int, freezes: list[Any], budgets: list[Any], more: Any) -> None:
    """Of members that are replaced for one rule and take the same time."""
    have: dict[str, Any] = {"freezes": freezes, "budgets": budgets, "max_parallel": 4}
    key, value = next(iter(more.items()))
    steps = [step(number, 100) for number in range(members)]
    added = min(4, value) if key == "max_parallel" else [*have.get(key, []), value]
    before, after = ends(seen(steps, limits(**have))), ends(seen(steps, limits(**(have | {key: added}))))
    assert all(after.get(name, datetime.max.replace(tzinfo=UTC)) >= at for name, at in before.items())


def test_the_earliest_deadline_is_first_and_of_those_past_it_the_gravest_reason() -> None:
    """Equal deadlines go by the gravest reason, and then by the id."""
    steps = [
        step(0, 9), step(1, 3, "superseded"), step(2, 3, "expired"), step(3, -5, "superseded"), step(4, -1, "revoked"),
        step(5, None, "expired"), step(6, 9),
    ]  # fmt: skip
    found = seen(steps, limits(max_parallel=1))
    assert list(begun(found)) == [f"web-0{number}" for number in (4, 5, 3, 2, 1, 0, 6)]


def test_the_zone_of_the_earliest_deadline_is_first_and_is_finished_before_the_next() -> None:
    """One by one; spread, members that are equally urgent are dealt over the zones."""
    steps = [step(0, 9, zone="a"), step(1, 3, zone="b"), step(2, 20, zone="b"), step(3, 9, zone="a")]
    one_by_one = seen(steps, limits(max_parallel=2, zones="one_by_one"))
    assert [[one.member.name for one in wave.steps] for wave in one_by_one.waves] == [
        ["web-01", "web-02"], ["web-00", "web-03"],
    ]  # fmt: skip
    equal = [replace(one, deadline=NOW) for one in steps]
    assert [one.member.zone for wave in seen(equal, limits()).waves for one in wave.steps] == ["a", "b", "a", "b"]


def test_who_waits_for_a_budget_lets_others_pass() -> None:
    """No superseded member until one o'clock, two at once after it; an expired one with more time goes before."""
    budget = {"nodes": 0, "reasons": ["superseded"], "windows": [{"start": "12:00", "end": "13:00"}]}
    steps = [step(0, 2, "superseded"), step(1, 5), step(2, 6), step(3, 3, "superseded")]
    found = seen(steps, limits(max_parallel=1, budgets=[budget]))
    assert begun(found) == {
        "web-01": NOW, "web-02": NOW + timedelta(minutes=10),
        "web-00": NOW + HOUR, "web-03": NOW + timedelta(minutes=70),
    }  # fmt: skip


def test_a_budget_that_is_wider_at_night_makes_the_waves_of_the_night_wider() -> None:
    """Each wave by the budgets of its own time."""
    day = {"nodes": 1, "windows": [{"start": "06:00", "end": "22:00"}]}
    steps = [step(number, 200, seconds=4 * 3600) for number in range(8)]
    found = seen(steps, limits(max_parallel=4, budgets=[day]))
    assert [len(wave.steps) for wave in found.waves] == [1, 1, 1, 4, 1]
    begins = [f"{wave.begins_at:%d %H:%M}" for wave in found.waves]
    assert begins == ["01 12:00", "01 16:00", "01 20:00", "02 00:00", "02 04:00"]
    assert found.ends_at == NOW + 20 * HOUR


def test_canaries_and_bakes_take_their_time_and_calls_theirs() -> None:
    """The end is after the last bake; where calls are scarce, they set the pace."""
    of = limits(canary=1, bake_time="1h", max_parallel=2, bake_between_waves="10m")
    found = seen([step(number, 9) for number in range(3)], of)
    assert begun(found) == {"web-00": NOW, **dict.fromkeys(("web-01", "web-02"), NOW + timedelta(seconds=TAKES) + HOUR)}
    assert found.ends_at == NOW + HOUR + timedelta(seconds=2 * TAKES) + timedelta(minutes=10)
    slow = forecast([step(number, 9) for number in range(4)], Room(limits(), 4, 4, call_seconds=1000.0), NOW)
    assert slow.ends_at == NOW + timedelta(seconds=4000)
    assert slow.waves[0].begins_at == NOW


# -- whose deadline cannot be met, and why -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "hours", "cause"),
    [
        ({"windows": [NIGHT]}, 8, ("limits.windows",)),
        (
            {"freezes": [{"first_day": "2026-03-01", "last_day": "2026-03-02", "reason": "x"}]},
            8,
            ("limits.freezes[0]",),
        ),
        ({"budgets": [{"nodes": 3}, {"nodes": 1}]}, 1, ("limits.budgets[1]",)),
        ({"max_parallel": 1}, 1, ("limits.max_parallel",)),
        ({"max_surge": 1}, 1, ("limits.max_surge",)),
        ({"method": "in_place", "max_unavailable": 1}, 1, ("limits.max_unavailable",)),
        ({"canary": 1, "bake_time": "3h"}, 1, ("limits.bake_time",)),
        ({"max_parallel": 5, "bake_between_waves": "3h"}, 1, ("limits.max_parallel",)),
        ({"budgets": [{"nodes": 1}], "max_parallel": 1}, 1, ("limits.budgets[0]", "limits.max_parallel")),
        ({"windows": [NIGHT]}, 0.1, ()),
    ],
)
def test_the_limit_without_which_a_deadline_would_be_met_is_named(
    more: Any, hours: float, cause: tuple[str, ...]
) -> None:
    """Those that have to go together, where no single one is enough; none, where the replacement takes too long."""
    of = limits(**more)
    late = seen([step(number, hours) for number in range(8)], of).late
    assert {one.limits for one in late} == {cause}
    if cause:
        assert not {one.member for one in late} & {one.member for one in seen_without(of, cause, hours)}
        assert all(one.hint.startswith(cause[0]) for one in late)
    else:
        assert late[0].hint == "it takes 10m at least, and 6m are left"
        assert late[0].cause == "no limit: one replacement alone takes longer"


def seen_without(of: Limits, cause: tuple[str, ...], hours: float) -> tuple[Late, ...]:
    return seen([step(number, hours) for number in range(8)], without(of, cause)).late


def test_the_cause_is_found_among_the_calls_and_members_that_there_are() -> None:
    """No limit is the cause of what a service's calls take; nor max_parallel where too few serve for more at once."""
    slow = forecast([step(number, 1) for number in range(4)], Room(limits(), 4, 4, call_seconds=1000.0), NOW)
    assert {one.limits for one in slow.late} == {()}
    of = limits(method="in_place", max_unavailable=2)
    assert [one.limits for one in forecast([step(number, 0.25) for number in range(2)], Room(of, 4, 3), NOW).late] == [
        ("limits.max_unavailable",)
    ]


def test_who_is_past_the_deadline_already_is_not_among_the_late() -> None:
    """No limit could change it."""
    assert seen([step(0, -1), step(1, 0), step(2)], limits(windows=[NIGHT])).late == ()


def test_every_limit_that_takes_time_has_a_key_path_and_can_be_taken_away() -> None:
    """Without all of them nothing holds a member."""
    of = limits(windows=[NIGHT], freezes=[{"first_day": "2026-03-01", "last_day": "2026-03-02", "reason": "x"}],
                budgets=[{"nodes": 1}], canary=1, bake_between_waves="1h", zones="one_by_one")  # fmt: skip
    assert limit_keys(of) == [
        "limits.freezes[0]", "limits.windows", "limits.budgets[0]", "limits.max_parallel", "limits.max_surge",
        "limits.bake_time", "limits.bake_between_waves", "limits.zones",
    ]  # fmt: skip
    steps = [step(number, 1, zone=zone) for number, zone in enumerate("abc")]
    assert set(ends(seen(steps, without(of, limit_keys(of)))).values()) <= {
        NOW + timedelta(seconds=TAKES), NOW + timedelta(seconds=2 * TAKES),
    }  # fmt: skip


def test_a_plan_says_who_is_late_and_when_it_ends() -> None:
    """Of members that serve behind a window that opens after the deadline."""
    soon = reason("expired", since=NOW, deadline=NOW + 2 * HOUR)
    known = [replace(judged(f"web-{number}"), reasons=(soon,)) for number in range(2)]
    made = plan(fleet(windows=[NIGHT]), known, target(), NOW)
    assert [one.limits for one in made.late] == [("limits.windows",)] * 2
    assert made.ends_at is not None
    assert made.ends_at > NOW + 10 * HOUR
    assert [one.deadline for one in made.steps] == [soon.deadline] * 2


# -- automated runs ----------------------------------------------------------------------------------------------------


def aged(count: int, days: float = 10, since: datetime = NOW, rule: str = "expired") -> list[Judged]:
    """Members that became too old at once."""
    ours = reason(rule, since=since, deadline=since + timedelta(days=days))
    return [replace(judged(f"web-{number:03}"), reasons=(ours,)) for number in range(count)]


def test_turns_lie_evenly_over_the_part_of_the_time_that_jitter_names() -> None:
    """A hundred over half of ten days: every 72 minutes, the first at once."""
    found = sorted(due_times(aged(100), limits(jitter="50%"), 60, NOW).values())
    between = [after - before for before, after in pairwise(found)]
    assert found[0] == NOW
    assert found[-1] < NOW + timedelta(days=5)
    assert set(between) == {timedelta(minutes=72)}


def test_turns_come_within_windows_and_not_all_at_the_opening() -> None:
    """Six hours each night."""
    of = limits(jitter="50%", windows=[NIGHT])
    found = due_times(aged(100), of, 60, NOW)
    assert all(at == NOW or may_act(of, at) is None for at in found.values())
    assert max(Counter(f"{at:%d %H}" for at in found.values()).values()) <= 4


def test_a_turn_stays_as_it_is_while_others_are_replaced() -> None:
    """By the ids of all members, also of those that violate no more."""
    all_of_them = aged(20)
    some = [replace(one, reasons=()) if number % 3 else one for number, one in enumerate(all_of_them)]
    before, after = (due_times(one, limits(), 60, NOW) for one in (all_of_them, some))
    assert after == {one: before[one] for one in after}


@pytest.mark.parametrize("rule", ["revoked", "superseded", "unknown", "refused"])
def test_what_is_worse_than_old_waits_for_no_turn(rule: str) -> None:
    """Nor does what has no dates."""
    one = aged(1)[0]
    both = replace(one, reasons=(*one.reasons, reason(rule, deadline=NOW + timedelta(days=9))))
    undated = replace(one, reasons=(reason("expired", since=None),))
    assert due_times([both, undated, replace(one, reasons=())], limits(), 60, NOW) == {}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=30), st.sampled_from(["0%", "10%", "50%", "100%"]),
    st.sampled_from([[], [NIGHT], [{"days": ["sat", "sun"]}]]), st.integers(1, 3),
)  # fmt: skip
def test_runs_of_each_night_meet_every_deadline_that_can_be_met(
    days: list[int], jitter: str, windows: list[Any], wide: int
) -> None:
    """Whatever the jitter: who would be in time if all began at once is in time when each waits for its turn."""
    of = limits(jitter=jitter, windows=windows, max_parallel=wide)
    ours = [
        replace(one, reasons=aged(1, days=due)[0].reasons)
        for one, due in zip(aged(len(days)), days, strict=True)
    ]  # fmt: skip
    steps = [replace(step(0), member=one.member, deadline=one.deadline, seconds=3600) for one in ours]
    room = Room(of, len(steps), len(steps))
    if forecast(steps, room, NOW).late:
        return
    now, left = NOW, {one.member.id: one for one in steps}
    while left:
        come = due_times(ours, of, 3600, now)
        due = [one for member, one in left.items() if member not in come or come[member] <= now]
        run = forecast(due, room, now)
        assert not run.late
        assert all(one.deadline and one.deadline > now for one in due)
        left = {member: one for member, one in left.items() if one not in due}
        now = max(now + DAY, run.ends_at or now)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=30), st.sampled_from(["0%", "50%", "100%"]),
    st.sampled_from([{}, {"windows": [NIGHT]}, {"canary": 2, "bake_time": "2h"}]), st.integers(1, 3),
    st.integers(0, 12 * 24 * 60), st.integers(1, 12),
)  # fmt: skip
@example([2, 2], "100%", {}, 1, 0, 1)
def test_one_of_the_nights_may_fail(
    days: list[int], jitter: str, more: Any, wide: int, minutes: int, failing: int
) -> None:
    """Whenever the first of them comes: who is in time if all begin at it is in time, whichever later one fails."""
    of = limits(jitter=jitter, max_parallel=wide, **more)
    ours = [
        replace(one, reasons=aged(1, days=due)[0].reasons)
        for one, due in zip(aged(len(days)), days, strict=True)
    ]  # fmt: skip
    steps = [replace(step(0), member=one.member, deadline=one.deadline, seconds=60) for one in ours]
    room, first = Room(of, len(steps), len(steps)), NOW + timedelta(minutes=minutes)
    if forecast(steps, room, first).late or any(one.deadline <= first for one in steps if one.deadline):
        return
    left = {one.member.id: one for one in steps}
    for night in range(12):
        now = first + night * DAY
        come = due_times(ours, of, 60, now)
        due = [one for member, one in left.items() if come[member] <= now]
        if night == failing or not due:
            continue
        run = forecast(due, room, now)
        assert not run.late
        assert all(one.deadline and one.deadline > now for one in due)
        assert run.ends_at
        assert run.ends_at <= now + DAY
        left = {member: one for member, one in left.items() if one not in due}
    assert not left


def test_hours_in_which_a_budget_allows_nobody_are_not_counted() -> None:
    """A budget of 0 for some reasons alone closes as a window does for those who are replaced for them."""
    day = {"nodes": 0, "reasons": ["expired"], "windows": [{"start": "04:00", "end": "22:00"}]}
    ours = aged(40)
    by_budget, by_window = (
        due_times(ours, limits(jitter="100%", max_parallel=1, **more), 3600, NOW)
        for more in ({"budgets": [day]}, {"windows": [NIGHT]})
    )
    assert by_budget == by_window
    others = due_times(aged(40, rule="max_age"), limits(jitter="100%", max_parallel=1, budgets=[day]), 3600, NOW)
    assert others == due_times(ours, limits(jitter="100%", max_parallel=1), 3600, NOW)


def test_a_canary_bakes_before_the_last_moment() -> None:
    """Whoever is not the canary begins once it has baked."""
    bakes = limits(jitter="100%", canary=1, bake_time="18h")
    plain, baking = (max(due_times(aged(50), of, 60, NOW).values()) for of in (limits(jitter="100%"), bakes))
    assert plain - baking >= 17 * HOUR
