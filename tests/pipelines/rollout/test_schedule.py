"""When a rollout may act: windows, freezes and budgets over days on which clocks are set, and whose turn it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.fleet.calendar import Budget, Window, cron
from pipelines.fleet.model import Limits
from pipelines.rollout.schedule import allowed, caps, gravest, may_act, turn
from tests.support.fleets import NOW, fleet, reason

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


def test_members_of_one_age_take_their_turns_over_a_part_of_the_grace() -> None:
    """Decided by the id alone; never after the deadline."""
    since, deadline = datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 1, 11, tzinfo=UTC)
    old = (reason("expired", since=since, deadline=deadline),)
    backoff = [turn(f"host/local/docker/web-{number}", old, "10%") for number in range(100)]
    assert backoff == [turn(f"host/local/docker/web-{number}", old, "10%") for number in range(100)]
    assert all(at is not None and since <= at < since + timedelta(days=1) for at in backoff)
    assert len({f"{at:%d %H:%M}" for at in backoff if at}) > 90


def test_what_is_worse_than_old_waits_for_no_turn() -> None:
    """Revoked and superseded members are due at once."""
    since, deadline = datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 1, 11, tzinfo=UTC)
    for rule in ("revoked", "superseded", "unknown", "refused"):
        both = (reason("expired", since=since, deadline=deadline), reason(rule, since=since, deadline=deadline))
        assert turn("host/local/docker/web", both, "10%") is None


def test_a_turn_is_the_part_of_the_grace_that_the_id_decides() -> None:
    """The first four bytes of its hash, as a part of the jitter's share; the first of several; no grace is no turn."""
    began, ends = NOW, NOW + timedelta(days=10)
    age = reason("max_age", since=began, deadline=ends)
    part = int.from_bytes(sha256(b"web-1").digest()[:4]) / 2**32
    assert turn("web-1", [age], "50%") == began + part * 0.5 * (ends - began)
    earlier = replace(age, rule="expired", since=began - timedelta(days=9), deadline=ends - timedelta(days=9))
    assert turn("web-1", [age, earlier], "50%") == turn("web-1", [earlier], "50%")
    assert turn("web-1", [replace(age, since=None)], "50%") is None
    assert turn("web-1", [replace(age, deadline=None)], "50%") is None
    assert turn("web-1", [], "50%") is None


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
