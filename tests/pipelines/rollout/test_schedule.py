"""When a rollout may act: windows, freezes and budgets over days on which clocks are set, and whose turn it is."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines.fleet.calendar import Budget, Freeze, Window, cron
from pipelines.fleet.model import Limits
from pipelines.rollout.schedule import Timeline, allowed, caps, gravest, may_act
from tests.support.fleets import NOW, fleet

BERLIN = ZoneInfo("Europe/Berlin")
MOMENTS = st.integers(0, 2 * 366 * 24 * 60).map(
    lambda minutes: datetime(2027, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
)
ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Cairo"]
)
CLOCKS = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda at: f"{at[0]:02}:{at[1]:02}")
DAYS = st.lists(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1, max_size=7, unique=True)
WINDOWS = st.fixed_dictionaries({"days": DAYS, "start": CLOCKS, "end": CLOCKS, "zone": ZONES})
NIGHT = {"days": ["mon", "tue", "wed", "thu", "fri"], "start": "22:00", "end": "05:00", "zone": "Europe/Berlin"}


def limits(**more: Any) -> Limits:
    return fleet(**more).limits


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)


def test_without_windows_and_freezes_a_rollout_may_always_act() -> None:
    """The default."""
    assert may_act(limits(), datetime(2027, 1, 1, tzinfo=UTC)) is None


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_starts() -> None:
    """Friday's night ends on Saturday morning; Sunday's is none."""
    night = limits(windows=[NIGHT])
    assert may_act(night, berlin("2027-03-06 04:59")) is None, "Saturday before five"
    held = may_act(night, berlin("2027-03-06 05:00"))
    assert held is not None
    assert held.until == berlin("2027-03-08 22:00"), "Monday evening"
    assert "limits.windows" in held.why


def test_a_window_keeps_to_the_clock_on_the_wall_when_clocks_are_set() -> None:
    """On 28 March 2027 Berlin's night is an hour shorter, on 31 October an hour longer."""
    night = Window(start="22:00", end="05:00", zone="Europe/Berlin")
    spring, autumn = night.on(date(2027, 3, 27)), night.on(date(2027, 10, 30))
    assert spring is not None
    assert autumn is not None
    assert (spring[1] - spring[0], autumn[1] - autumn[0]) == (timedelta(hours=6), timedelta(hours=8))


def test_a_window_that_the_clock_leaps_over_does_not_open_that_day() -> None:
    """From 02:15 to 02:45 there is nothing on 28 March 2027 in Berlin, and it is an half hour elsewhere in the year."""
    window = Window(start="02:15", end="03:15", zone="Europe/Berlin")
    assert window.on(date(2027, 3, 28)) is None
    ordinary = window.on(date(2027, 3, 29))
    assert ordinary is not None
    assert ordinary[1] - ordinary[0] == timedelta(hours=1)


def test_a_whole_day_is_a_window_without_start_and_end() -> None:
    """From midnight to midnight, 23 to 25 hours."""
    day = Window(days=("sun",), zone="Europe/Berlin").on(date(2027, 3, 28))
    assert day == (berlin("2027-03-28 00:00"), berlin("2027-03-29 00:00"))


def test_a_freeze_holds_both_its_days_and_says_its_reason() -> None:
    """In the zone that it names."""
    year_end = limits(
        freezes=[
            {"first_day": "2027-12-20", "last_day": "2028-01-02", "reason": "sales", "zone": "America/New_York"},
        ]
    )
    assert may_act(year_end, datetime(2027, 12, 20, 4, 59, tzinfo=UTC)) is None
    held = may_act(year_end, datetime(2027, 12, 20, 5, tzinfo=UTC))
    assert held is not None
    assert held.until == datetime(2028, 1, 3, 5, tzinfo=UTC)
    assert "sales" in held.why


def test_what_holds_after_each_other_is_told_as_one_end() -> None:
    """A freeze that ends in the middle of the day, and then the window opens in the evening."""
    evening = {"start": "22:00", "end": "23:00", "zone": "Europe/Berlin"}
    both = limits(windows=[evening], freezes=[{"first_day": "2027-03-01", "last_day": "2027-03-02", "reason": "audit"}])
    held = may_act(both, berlin("2027-03-01 23:00"))
    assert held is not None
    assert held.until == berlin("2027-03-03 22:00")
    assert "audit" in held.why


def test_a_budget_of_nobody_holds_for_its_duration_from_its_schedule_on() -> None:
    """Karpenter's example: nobody in office hours."""
    office = limits(
        budgets=[
            {"nodes": 0, "schedule": "0 9 * * mon-fri", "duration": "8h", "zone": "Europe/Berlin"},
            {"nodes": "50%"},
        ]
    )
    held = may_act(office, berlin("2027-03-29 09:00"))
    assert held is not None
    assert held.until == berlin("2027-03-29 17:00")
    assert may_act(office, berlin("2027-03-29 17:00")) is None
    assert allowed(office, 10, ["expired"], berlin("2027-03-29 12:00")) == 0
    assert allowed(office, 10, ["expired"], berlin("2027-03-28 12:00")) == 5, "a Sunday"


def test_a_budget_of_nobody_without_an_end_is_told_as_such() -> None:
    """Somebody froze the fleet on purpose."""
    held = may_act(limits(budgets=[{"nodes": 0}]), datetime(2027, 1, 1, tzinfo=UTC))
    assert held is not None
    assert held.until is None
    assert "budgets[0]" in held.why


def test_a_budget_of_nobody_for_one_rule_freezes_nobody_else() -> None:
    """Windows do not close for it; only who is replaced for that rule waits."""
    of, now = limits(budgets=[{"nodes": 0, "reasons": ["expired"]}]), datetime(2027, 1, 1, tzinfo=UTC)
    assert may_act(of, now) is None
    assert [Timeline(of, 4, now, rule=rule).free(now, rule) is None for rule in ("expired", "revoked")] == [True, False]
    ahead = [Timeline(one, 4, now).at(now) for one in (of, limits(budgets=[{"nodes": 0}]))]
    assert [one.held_by for one in ahead if one] == ["", "limits.budgets[0]"]


def test_windows_and_budgets_that_never_leave_a_moment_are_told_as_without_end() -> None:
    """Open only at night, frozen every night."""
    never = limits(windows=[NIGHT], budgets=[{"nodes": "0%", "windows": [NIGHT]}])
    held = may_act(never, berlin("2027-03-01 12:00"))
    assert held is not None
    assert held.until is None


@pytest.mark.parametrize(
    ("nodes", "desired", "expected"),
    [("10%", 3, 1), ("10%", 10, 1), ("10%", 11, 2), ("100%", 3, 3), ("0%", 50, 0), (4, 3, 4)],
)
def test_budgets_are_rounded_up_and_only_an_explicit_nothing_freezes(nodes: Any, desired: int, expected: int) -> None:
    """A fleet of three can roll."""
    assert (
        allowed(limits(budgets=[{"nodes": nodes}]), desired, ["expired"], datetime(2027, 1, 1, tzinfo=UTC)) == expected
    )


def test_the_most_restrictive_budget_wins_among_those_that_bind_the_gravest_reason() -> None:
    """An expired member is superseded, too, as a rule: it rolls as an expired one."""
    several = limits(
        budgets=[{"nodes": 5}, {"nodes": 2, "reasons": ["superseded"]}, {"nodes": 3, "reasons": ["expired"]}]
    )
    now = datetime(2027, 1, 1, tzinfo=UTC)
    asked = (["superseded"], ["superseded", "expired"], ["unknown"])
    assert [allowed(several, 50, reasons, now) for reasons in asked] == [2, 3, 5]


def test_a_member_is_counted_under_its_gravest_reason() -> None:
    """Whatever their names begin with; a rule that nobody ranked comes last."""
    assert gravest(["approved_source", "revoked", "superseded"]) == "revoked"
    assert gravest(["a new rule", "superseded"]) == "superseded"
    assert gravest(["b", "a"]) == "a"
    assert gravest([]) == ""


@given(
    budgets=st.lists(st.one_of(st.integers(0, 9), st.integers(0, 100).map(lambda n: f"{n}%")), min_size=1),
    desired=st.integers(1, 99),
)
def test_every_reason_is_bound_by_a_budget_that_names_none(budgets: list[Any], desired: int) -> None:
    """Expiry, too; and no other budget makes it more."""
    several = limits(budgets=[{"nodes": nodes} for nodes in budgets] + [{"nodes": "100%", "reasons": ["expired"]}])
    now = datetime(2027, 1, 1, tzinfo=UTC)
    least = min(n if isinstance(n, int) else -(-desired * int(n[:-1]) // 100) for n in budgets)
    for rule in ("expired", "revoked", "unknown", "superseded", "refused", "max_age", "approved_source"):
        assert allowed(several, desired, [rule], now) == (min(least, desired) if rule == "expired" else least)


@given(window=WINDOWS, now=MOMENTS)
def test_what_may_act_promises_comes_true(window: dict[str, Any], now: datetime) -> None:
    """At the end that it names a rollout may act, and at no minute before that."""
    open_then = limits(windows=[window])
    held = may_act(open_then, now)
    if held is None:
        return
    assert held.until is not None
    assert may_act(open_then, held.until) is None
    steps = min(50, int((held.until - now) / timedelta(minutes=1)))
    for number in range(steps):
        moment = now + (held.until - now) * number / steps
        assert may_act(open_then, moment) is not None


@given(window=WINDOWS, now=MOMENTS)
def test_an_open_window_shows_its_own_hours_on_the_wall(window: dict[str, Any], now: datetime) -> None:
    """Except in the hours around a change of the clock, when a time comes twice or not at all."""
    zone = ZoneInfo(window["zone"])
    if now.astimezone(zone).utcoffset() != (now - timedelta(days=2)).astimezone(zone).utcoffset():
        return
    wall = f"{now.astimezone(zone):%H:%M}"
    start, end = window["start"], window["end"]
    days = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    today = days[now.astimezone(zone).weekday()] in window["days"]
    yesterday = days[now.astimezone(zone).weekday() - 1] in window["days"]
    same_day = today and start <= wall < end
    over_midnight = (today and wall >= start) or (yesterday and wall < end)
    expected = same_day if end > start else over_midnight
    assert (may_act(limits(windows=[window]), now) is None) == expected


@pytest.mark.parametrize(
    ("text", "at", "expected"),
    [
        ("*/15 * * * *", "2027-03-01 12:34", "2027-03-01 12:30"),
        ("0 9-17/4 * * *", "2027-03-01 12:34", "2027-03-01 09:00"),
        ("0 22 * * fri-sun", "2027-03-01 12:00", "2027-02-28 22:00"),
        ("30 4 1,15 * fri", "2027-03-06 00:00", "2027-03-05 04:30"),
        ("@monthly", "2027-03-31 23:59", "2027-03-01 00:00"),
        ("0 0 29 feb *", "2028-03-01 00:00", "2028-02-29 00:00"),
        ("30 2 * * *", "2027-03-28 12:00", "2027-03-28 03:30"),
    ],
)
def test_a_schedule_began_last_when_cron_would_have_begun_it(text: str, at: str, expected: str) -> None:
    """Steps, ranges, lists, names; either day field where both are given; a time leapt over comes as much later."""
    assert cron(text).last(BERLIN, berlin(at), timedelta(days=60)) == berlin(expected)


def test_an_hour_that_comes_twice_is_begun_twice() -> None:
    """A budget for each hour has no hole in the night on which the clock is set back."""
    hourly = limits(budgets=[{"nodes": 0, "schedule": "0 * * * *", "duration": "1h", "zone": "Europe/Berlin"}])
    midnight = berlin("2027-10-31 00:00")
    assert all(caps(hourly, 3, midnight + timedelta(minutes=10 * number)) for number in range(6 * 25))


def test_hours_that_come_again_out_of_order_are_found_too() -> None:
    """Troll sets its clock back by two hours: there 01:59 comes again after 02:59."""
    both = cron("59 1,2 * * *")
    moments = [datetime(2027, 10, 31, hour, 59, tzinfo=UTC) for hour in range(3)]
    assert [both.last(ZoneInfo("Antarctica/Troll"), at, timedelta(minutes=1)) for at in moments] == moments


def test_a_time_that_is_leapt_over_comes_later_and_not_earlier_too() -> None:
    """On 28 March 2027 there is no 02:30 in Berlin: it comes at 03:30, and nothing begins at 01:30."""
    night = limits(budgets=[{"nodes": 1, "schedule": "30 2 * * *", "duration": "3h", "zone": "Europe/Berlin"}])
    held = [bool(caps(night, 9, berlin(f"2027-03-28 {clock}"))) for clock in ("01:30", "01:59", "03:29", "03:30")]
    assert held == [False, False, False, True]


@given(
    hours=st.sets(st.integers(0, 5), min_size=1, max_size=3),
    minutes=st.sets(st.integers(0, 59), min_size=1, max_size=2),
    change=st.sampled_from(["2027-03-28", "2027-10-31", "2027-04-04", "2027-10-03", "2027-03-14", "2027-11-07"]),
    after=st.integers(-120, 24 * 60),
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Antarctica/Troll"]),
)
def test_a_schedule_is_what_the_clock_shows(
    hours: set[int], minutes: set[int], change: str, after: int, zone: str
) -> None:
    """Around the days on which clocks are set, it began last when the clock last showed one of its times."""
    text, place = f"{numbers(minutes)} {numbers(hours)} * * *", ZoneInfo(zone)
    at = datetime.fromisoformat(change).replace(tzinfo=UTC) + timedelta(minutes=after)
    days = [at.astimezone(place).date() - timedelta(days=number) for number in range(3)]
    clocks = [time(hour, minute) for hour in hours for minute in minutes]
    shown = {moment for day in days for clock in clocks for moment in shown_at(datetime.combine(day, clock), place)}
    expected = max((moment for moment in shown if at - timedelta(days=1) < moment <= at), default=None)
    assert cron(text).last(place, at, timedelta(days=1)) == expected


def numbers(found: set[int]) -> str:
    return ",".join(map(str, sorted(found)))


def shown_at(wall: datetime, zone: ZoneInfo) -> list[datetime]:
    """The moments at which the clock shows `wall`: whatever it is set by, by the offset of some hour near to it."""
    near = [wall.replace(tzinfo=UTC) + timedelta(hours=hour) for hour in range(-24, 25)]
    offsets = {moment.astimezone(zone).utcoffset() or timedelta() for moment in near}
    moments = [(wall - offset).replace(tzinfo=UTC) for offset in offsets]
    found = [moment for moment in moments if moment.astimezone(zone).replace(tzinfo=None) == wall]
    return found or [max(moments)]


def test_a_budget_of_nobody_that_begins_anew_before_it_ends_has_no_end_in_sight() -> None:
    """Each five minutes for five minutes."""
    always = limits(budgets=[{"nodes": 0, "schedule": "*/5 * * * *", "duration": "5m"}])
    held = may_act(always, datetime(2027, 1, 1, 12, 1, tzinfo=UTC))
    assert held is not None
    assert held.until is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 22 * *", "five fields"),
        ("61 * * * *", "minute is a number from 0 to 59"),
        ("0 0 * * monday", "mon"),
        ("0 0 30 2 *", "no day is ever"),
        ("5-1 * * * *", "upwards"),
        ("*/0 * * * *", "at least 1"),
        ("0 0 ? * *", "day '?'"),
    ],
)
def test_a_schedule_that_cannot_be_read_is_told_with_its_field(text: str, said: str) -> None:
    """Strictly: a guess would freeze or free a fleet at the wrong hour."""
    with pytest.raises(ValueError, match=said):
        Budget(nodes=1, schedule=text, duration="1h")


def test_of_several_open_windows_the_one_that_closes_last_counts() -> None:
    """For a budget that holds in either; the order of the file says nothing."""
    short = {"start": "11:00", "end": "13:00"}
    long = {"start": "10:00", "end": "23:00"}
    for windows in ([short, long], [long, short]):
        of = limits(budgets=[{"nodes": 0, "windows": windows}])
        held = may_act(of, NOW)
        assert held is not None
        assert held.until == NOW.replace(hour=23)
        assert held.why == "limits.budgets[0] allows no member"


def test_a_window_that_is_open_now_opens_next_at_its_next_day() -> None:
    """At the very moment at which it closes, and two weeks on at most."""
    of = limits(windows=[{"start": "10:00", "end": "12:00"}])
    held = may_act(of, NOW)
    assert held is not None
    assert (held.until, held.why) == (NOW.replace(hour=10) + timedelta(days=1), "no window of limits.windows is open")
    assert may_act(limits(windows=[{"start": "12:00", "end": "13:00"}]), NOW) is None


@pytest.mark.parametrize(
    ("text", "field", "values"),
    [
        ("5 0 1 1 0", "minutes", {5}),
        ("5/20 * * * *", "minutes", {5, 25, 45}),
        ("*/20 * * * *", "minutes", {0, 20, 40}),
        ("10-50/20,3 * * * *", "minutes", {10, 30, 50, 3}),
        ("10-10 * * * *", "minutes", {10}),
        ("59/1 * * * *", "minutes", {59}),
        ("0 22-23 * * *", "hours", {22, 23}),
        ("0 * 1,31 * *", "days", {1, 31}),
        ("0 * * jan-mar *", "months", {1, 2, 3}),
        ("0 * * DEC *", "months", {12}),
        ("0 * * 1/4 *", "months", {1, 5, 9}),
        ("0 * * * 0", "weekdays", {0}),
        ("0 * * * 7", "weekdays", {0}),
        ("0 * * * fri-sun", "weekdays", {5, 6, 0}),
        ("0 * * * sun-tue", "weekdays", {0, 1, 2}),
        ("0 * * * sun-sun", "weekdays", set(range(7))),
        ("0 * * * 1-5", "weekdays", {1, 2, 3, 4, 5}),
        ("0 * * * 6-7", "weekdays", {6, 0}),
        (" @Hourly ", "minutes", {0}),
    ],
)
def test_a_field_of_a_schedule_holds_its_numbers(text: str, field: str, values: set[int]) -> None:
    """Lists, ranges, steps and names; both ends of a range belong to it, and Sunday is 0 and 7."""
    assert getattr(cron(text), field) == values


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
    ],
)
def test_a_name_stands_for_its_fields(name: str, plain: str) -> None:
    """As in cron."""
    assert cron(name) == cron(plain)
    every = cron("* * * * *")
    assert every.minutes == set(range(60))
    assert every.hours == set(range(24))
    assert every.days == set(range(1, 32))
    assert every.months == set(range(1, 13))
    assert every.weekdays == set(range(7))


def test_a_day_matches_by_either_field_only_where_both_are_restricted() -> None:
    """A Friday the thirteenth needs neither; `*/2` counts as no restriction."""
    monday, friday = date(2027, 1, 4), date(2027, 1, 1)
    either, week, days, months = cron("0 0 4 * fri"), cron("0 0 * * fri"), cron("0 0 4 * *"), cron("0 0 4 2 fri")
    assert [one.on(monday) for one in (either, week, days, months)] == [True, False, True, False]
    assert [one.on(friday) for one in (either, week, days, months)] == [True, True, False, False]
    assert [cron(text).either for text in ("0 0 4 * fri", "0 0 */2 * fri", "0 0 4 * */2")] == [True, False, False]
    assert not cron("0 0 */2 * fri").on(date(2027, 1, 8))


def test_a_beginning_counts_up_to_its_moment_and_not_as_long_ago_as_the_span() -> None:
    """At its very moment it has begun; after exactly its duration it is over."""
    nightly, hour = cron("0 22 * * *"), timedelta(hours=1)
    began = datetime(2027, 1, 1, 22, tzinfo=UTC)
    utc = ZoneInfo("UTC")
    assert nightly.last(utc, began, hour) == began
    assert nightly.last(utc, began + hour, hour) is None
    assert nightly.last(utc, began + hour, hour + timedelta(seconds=1)) == began
    assert nightly.last(utc, began - timedelta(seconds=1), hour) is None
    assert nightly.last(utc, began + timedelta(hours=3), timedelta(hours=4)) == began
    assert cron("0 1,22 * * *").last(utc, began + hour, 2 * hour) == began
    assert cron("0,30 21,22 * * *").last(utc, began + timedelta(minutes=45), hour) == began + timedelta(minutes=30)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "0 22 * *",
            "a schedule has five fields (minute hour day month weekday), such as 0 22 * * mon-fri, or is one of "
            "@hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually; not '0 22 * *'",
        ),
        ("60 * * * *", "minute is a number from 0 to 59, not '60'"),
        ("* 24 * * *", "hour is a number from 0 to 23, not '24'"),
        ("* * 0 * *", "day is a number from 1 to 31, not '0'"),
        ("* * 32 * *", "day is a number from 1 to 31, not '32'"),
        (
            "* * * 13 *",
            "month is a number from 1 to 12 or one of jan, feb, mar, apr, may, jun, jul, aug, sep, oct, nov, dec, "
            "not '13'",
        ),
        ("* * * * 8", "weekday is a number from 0 to 7 or one of sun, mon, tue, wed, thu, fri, sat, not '8'"),
        ("1-x * * * *", "minute is a number from 0 to 59, not 'x'"),
        ("? * * * *", "minute '?' is not a number, a range such as 1-5, or a step such as */15"),
        ("5-1 * * * *", "minute '5-1' is empty: a range must go upwards, and a step must be at least 1"),
        ("*/0 * * * *", "minute '*/0' is empty: a range must go upwards, and a step must be at least 1"),
        ("0 0 30 2 *", "no day is ever like '0 0 30 2 *'"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_told_in_full(text: str, said: str) -> None:
    """The field, what it may hold, and what it holds."""
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        cron(text)
    assert str(refused.value) == said


def test_a_leap_day_is_found_within_four_years() -> None:
    """So that a schedule for it is no mistake."""
    assert cron("0 0 29 2 *").days == {29}


def test_a_window_starts_on_its_days_and_ends_after_it_starts() -> None:
    """On the next day where its end is not after its start; a whole day without both."""
    window = Window.model_validate({"days": ["fri"], "start": "22:00", "end": "05:00", "zone": "Europe/Berlin"})
    friday = date(2027, 1, 1)
    assert window.on(friday) == (berlin("2027-01-01 22:00"), berlin("2027-01-02 05:00"))
    assert window.on(friday + timedelta(days=1)) is None
    short = Window.model_validate({"start": "22:00", "end": "23:00"})
    at = datetime(2027, 1, 1, 22, tzinfo=UTC)
    assert short.on(friday) == (at, at + timedelta(hours=1))
    same = Window.model_validate({"start": "22:00", "end": "22:00"})
    assert same.on(friday) == (at, at + timedelta(days=1))
    leapt = Window.model_validate({"start": "02:00", "end": "03:00", "zone": "Europe/Berlin"})
    assert leapt.on(date(2027, 3, 28)) is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"schedule": "@daily"},
            "a schedule says when a budget begins and duration for how long: give both or neither",
        ),
        ({"duration": "1h"}, "a schedule says when a budget begins and duration for how long: give both or neither"),
        (
            {"schedule": "@daily", "duration": "1h", "windows": [{"start": "22:00"}]},
            "give either windows, or schedule and duration",
        ),
        ({"zone": "Europe/Berlin"}, "zone is the schedule's; each window has its own"),
        ({"schedule": "@daily", "duration": "0s"}, "duration must be longer than nothing and at most a year"),
        ({"schedule": "@daily", "duration": "367d"}, "duration must be longer than nothing and at most a year"),
        ({"schedule": "@never", "duration": "1h"}, "a schedule has five fields"),
        ({"schedule": "@daily", "duration": "1h", "zone": "Mars"}, "no time zone is called 'Mars'"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_refused(more: dict[str, Any], said: str) -> None:
    """With the reason."""
    with pytest.raises(ValidationError) as refused:
        Budget.model_validate({"nodes": 1, **more})
    assert said in str(refused.value)


def test_a_budget_may_hold_for_up_to_a_year_and_in_its_own_zone() -> None:
    """Exactly a leap year's days are allowed."""
    year = Budget.model_validate({"nodes": 1, "schedule": "@yearly", "duration": "366d", "zone": "Europe/Berlin"})
    assert (year.duration, year.zone) == (timedelta(days=366), "Europe/Berlin")
    assert Budget.model_validate({"nodes": 1, "schedule": "@daily", "duration": "1h"}).zone == "UTC"
    assert Budget.model_validate({"nodes": 1, "windows": [{"start": "22:00"}]}).schedule is None


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        ("2027-01-02", "2027-01-01", "last_day 2027-01-01 is before first_day 2027-01-02"),
        ("0001-01-01", "2027-01-01", "no clock reaches so far: a freeze begins after the year 1 and ends before 9999"),
        ("2027-01-01", "9999-01-01", "no clock reaches so far: a freeze begins after the year 1 and ends before 9999"),
        ("2027-01-01", "2027-01-01", ""),
        ("0002-01-01", "9998-01-01", ""),
    ],
)
def test_a_freeze_goes_forwards_and_not_beyond_what_a_clock_shows(first: str, last: str, said: str) -> None:
    """One day is enough."""
    given_days = {"first_day": first, "last_day": last, "reason": "holidays"}
    if not said:
        frozen = Freeze.model_validate(given_days)
        assert frozen.span[1] == datetime.fromisoformat(last).replace(tzinfo=UTC) + timedelta(days=1)
        return
    with pytest.raises(ValidationError) as refused:
        Freeze.model_validate(given_days)
    assert said in str(refused.value)


@pytest.mark.parametrize("clock", ["24:00", "7:00", "22:60", "22:00:00", 22, None])
def test_a_time_of_day_has_two_digits_each(clock: object) -> None:
    """And is written as text."""
    with pytest.raises(ValidationError, match='must be a time of day such as "22:00", not'):
        Window.model_validate({"start": clock})


def test_a_time_of_day_without_a_zone_is_taken_as_it_is() -> None:
    """As when a file is read back; the window's zone is its own."""
    assert Window(start=time(22)).start == time(22)
    with pytest.raises(ValidationError, match="must be a time of day"):
        Window(start=time(22, tzinfo=UTC))


@pytest.mark.parametrize(("zone", "hint"), [("Europe/Berln", "Europe/Berlin"), ("X", "such as UTC or Europe/Berlin")])
def test_an_unknown_zone_is_told_with_a_near_one(zone: str, hint: str) -> None:
    """A text too short to be near to anything gets an example."""
    with pytest.raises(ValidationError) as refused:
        Window(zone=zone)
    error = refused.value.errors()[0]["ctx"]["error"]
    assert f"no time zone is called {zone!r}" in str(error)
    assert hint in error.hint


def test_where_no_budget_binds_all_members_may_be_acted_upon() -> None:
    """A budget for another reason is no limit."""
    of = limits(budgets=[{"nodes": 1, "reasons": ["superseded"]}])
    assert allowed(of, 7, ["expired"], NOW) == 7
    assert allowed(of, 7, ["superseded"], NOW) == 1
