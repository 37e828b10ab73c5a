"""When a rollout may act, and on how many members, as written in files: amounts, windows, freezes, budgets. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from hardening.foundation.content import Content, MisplacedError
from hardening.foundation.durations import Duration
from hardening.foundation.errors import nearest
from hardening.model import NonEmpty

# -- how many members: a number, or a percentage of the fleet; each use says which way a percentage is rounded ---------

_PERCENT = r"^([1-9]?[0-9]|100)%$"
_Number = Annotated[int, Field(ge=0)]
_WrittenAmount = Annotated[str, Field(pattern=_PERCENT, examples=["10%", "100%"])]


def amount(value: Any) -> Any:
    """A number from 0, or text such as `25%`. Raises ValueError with the allowed form."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return percent(value, "a whole number, or a percentage from 0% to 100% such as 25%")


def percent(value: Any, allowed: str = "a percentage from 0% to 100% such as 10%") -> Any:
    """Text such as `25%`. Raises ValueError that says what is `allowed`."""
    if isinstance(value, str) and re.fullmatch(_PERCENT, value):
        return value
    raise ValueError(f"must be {allowed}, not {value!r}")


Percent = Annotated[str, BeforeValidator(percent, json_schema_input_type=_WrittenAmount)]
Amount = Annotated[int | str, BeforeValidator(amount, json_schema_input_type=_Number | _WrittenAmount)]


def share(percentage: str) -> int:
    """The number before the sign: 25 of `25%`."""
    return int(percentage.rstrip("%"))


def at_least(value: int | str, members: int) -> int:
    """`value` of so many members, percentages rounded up: one of a small fleet is one."""
    return value if isinstance(value, int) else -(-members * share(value) // 100)


def at_most(value: int | str, members: int) -> int:
    """`value` of so many members, percentages rounded down: a small fleet never loses everyone."""
    return value if isinstance(value, int) else members * share(value) // 100


# -- cron's fields -----------------------------------------------------------------------------------------------------

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAMED = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip
_FIELDS = 5
_FOUR_YEARS = 4 * 366


@dataclass(frozen=True)
class Cron:
    """When something begins. As in cron, a day matches by either of its two fields where both are restricted."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    def on(self, day: date) -> bool:
        """Whether it begins on that day at all."""
        by_date, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and ((by_date or by_week) if self.either else (by_date and by_week))

    def last(self, zone: ZoneInfo, at: datetime, within: timedelta) -> datetime | None:
        """The last beginning in (at - within, at], in UTC; None without one.

        An hour that the clock shows twice counts twice; a time that it leaps over comes as much later.
        """
        earliest = at - within
        day, end = at.astimezone(zone).date(), earliest.astimezone(zone).date()
        while day >= end:
            if self.on(day) and (found := self._last_on(day, zone, at)):
                return found if found > earliest else None
            day -= timedelta(days=1)
        return None

    def beginnings(self, zone: ZoneInfo, day: date) -> list[datetime]:
        """When it begins on that local day, in UTC and in order."""
        if not self.on(day):
            return []
        return sorted({at for hour in self.hours for minute in self.minutes for at in _shown(day, hour, minute, zone)})

    def _last_on(self, day: date, zone: ZoneInfo, at: datetime) -> datetime | None:
        best: datetime | None = None
        for hour in sorted(self.hours, reverse=True):
            if best and _shown(day, hour, 59, zone)[-1] <= best:
                continue
            moments = (moment for minute in self.minutes for moment in _shown(day, hour, minute, zone))
            best = max((moment for moment in (*moments, best) if moment and moment <= at), default=None)
        return best


def _shown(day: date, hour: int, minute: int, zone: ZoneInfo) -> tuple[datetime, ...]:
    """When the clock shows that, in UTC: twice where it is set back; what it leaps over, as much later."""
    first, again = (datetime.combine(day, time(hour, minute, fold=fold), zone).astimezone(UTC) for fold in (0, 1))
    return (first, again) if again > first else (first,)


def cron(text: str) -> Cron:
    """`text` such as `0 22 * * mon-fri` or `@daily`. Raises ValueError naming the field that is wrong."""
    fields = _NAMED.get(text.strip().lower(), text).split()
    if len(fields) != _FIELDS:
        raise ValueError(
            f"a schedule has five fields (minute hour day month weekday), such as 0 22 * * mon-fri, or is one of "
            f"{', '.join(_NAMED)}; not {text!r}"
        )
    minute, hour, day, month, weekday = fields
    made = Cron(
        minutes=_field("minute", minute, 0, 59),
        hours=_field("hour", hour, 0, 23),
        days=_field("day", day, 1, 31),
        months=_field("month", month, 1, 12, _MONTHS),
        weekdays=frozenset(number % 7 for number in _field("weekday", weekday, 0, 7, _DAYS)),
        either=not day.startswith("*") and not weekday.startswith("*"),
    )
    if not any(made.on(date(2024, 1, 1) + timedelta(days=number)) for number in range(_FOUR_YEARS)):
        raise ValueError(f"no day is ever like {text!r}")
    return made


def _field(name: str, text: str, least: int, most: int, words: tuple[str, ...] = ()) -> frozenset[int]:
    """The values of one field: a list of numbers, ranges and steps."""
    return frozenset(number for part in text.split(",") for number in _part(name, part, least, most, words))


def _part(name: str, part: str, least: int, most: int, words: tuple[str, ...]) -> range:
    match = re.fullmatch(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?", part)
    if not match:
        raise ValueError(f"{name} {part!r} is not a number, a range such as 1-5, or a step such as */15")
    first, last, step = match[1], match[2], int(match[3] or 1)
    low = least if first is None else _number(name, first, least, most, words)
    high = most if first is None or (match[3] and not last) else low
    high = _number(name, last, least, most, words) if last else high
    high = most if words is _DAYS and last and not high else high  # Sunday ends a week as well as it begins one
    if high < low or step < 1:
        raise ValueError(f"{name} {part!r} is empty: a range must go upwards, and a step must be at least 1")
    return range(low, high + 1, step)


def _number(name: str, text: str, least: int, most: int, words: tuple[str, ...]) -> int:
    if text.lower() in words:
        return words.index(text.lower()) + (1 if words is _MONTHS else 0)
    if text.isdecimal() and least <= int(text) <= most:
        return int(text)
    named = f" or one of {', '.join(words)}" if words else ""
    raise ValueError(f"{name} is a number from {least} to {most}{named}, not {text!r}")


_CLOCK = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
Span = tuple[datetime, datetime]  # from the first moment up to, but without, the second; aware UTC


def _known(zone: str) -> str:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError, RecursionError):
        hint = nearest(zone, available_timezones()) if len(zone) > 2 else "such as UTC or Europe/Berlin"  # noqa: PLR2004
        raise MisplacedError(f"no time zone is called {zone!r}", hint[:200]) from None
    return zone


def _clock(value: Any) -> Any:
    if isinstance(value, time) and value.tzinfo is None:
        return value
    if isinstance(value, str) and re.fullmatch(_CLOCK, value):
        return time.fromisoformat(value)
    raise ValueError(f'must be a time of day such as "22:00", not {value!r}')


def _readable(text: str) -> str:
    cron(text)
    return text


_Written = Annotated[str, Field(pattern=_CLOCK, examples=["22:00"])]
Zone = Annotated[str, AfterValidator(_known), Field(examples=["UTC", "Europe/Berlin"])]
ClockTime = Annotated[
    time, BeforeValidator(_clock, json_schema_input_type=_Written), PlainSerializer(lambda at: f"{at:%H:%M}")
]
Schedule = Annotated[str, AfterValidator(_readable), Field(examples=["0 22 * * mon-fri", "@daily"])]


class Day(StrEnum):
    """A day of the week."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


class RunningRule(StrEnum):
    """Why a member is replaced: the policy's rules for what runs."""

    EXPIRED = "expired"
    UNKNOWN = "unknown"
    SUPERSEDED = "superseded"
    REVOKED = "revoked"
    REFUSED = "refused"
    MAX_AGE = "max_age"
    APPROVED_SOURCE = "approved_source"
    VULNERABLE = "vulnerable"
    CHANGED_FILES = "changed_files"
    FOREIGN_PROCESSES = "foreign_processes"


class Window(Content):
    """Hours on days of the week. An end that is not after the start is on the next day: without both, a whole day."""

    days: Annotated[tuple[Day, ...], Field(min_length=1, description="on which it starts")] = tuple(Day)
    start: ClockTime = time(0)
    end: ClockTime = time(0)
    zone: Zone = "UTC"

    def on(self, day: date) -> Span | None:
        """The window that starts on that local day, in UTC; None where none does, or the clock leaps over all of it."""
        if tuple(Day)[day.weekday()] not in self.days:
            return None
        last = day if self.end > self.start else day + timedelta(days=1)
        span = (_utc(day, self.start, self.zone), _utc(last, self.end, self.zone))
        return span if span[0] < span[1] else None


class Freeze(Content):
    """Days on which nothing is rolled, both included."""

    first_day: date
    last_day: date
    zone: Zone = "UTC"
    reason: NonEmpty

    @model_validator(mode="after")
    def _forwards(self) -> Freeze:
        if self.last_day < self.first_day:
            raise ValueError(f"last_day {self.last_day} is before first_day {self.first_day}")
        if self.first_day.year == date.min.year or self.last_day.year == date.max.year:
            raise ValueError("no clock reaches so far: a freeze begins after the year 1 and ends before 9999")
        return self

    @property
    def span(self) -> Span:
        """From the midnight before the first day to the midnight after the last."""
        after = self.last_day + timedelta(days=1)
        return _utc(self.first_day, time(0), self.zone), _utc(after, time(0), self.zone)


class Budget(Content):
    """How many members may be acted upon at once: always, in `windows`, or for `duration` from each `schedule` on."""

    nodes: Amount = Field(description="a number, or a percentage of the fleet, rounded up; only an explicit 0 freezes")
    reasons: tuple[RunningRule, ...] = Field((), description="the rules that it binds; without any it binds all")
    schedule: Schedule | None = Field(None, description="when it begins to hold, in cron's five fields")
    duration: Duration | None = Field(None, description="for how long from each beginning on")
    windows: tuple[Window, ...] = Field((), description="instead of schedule and duration")
    zone: Zone = Field("UTC", description="of the schedule")

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if (self.schedule is None) != (self.duration is None):
            raise ValueError("a schedule says when a budget begins and duration for how long: give both or neither")
        if self.schedule and self.windows:
            raise ValueError("give either windows, or schedule and duration")
        if self.zone != "UTC" and not self.schedule:
            raise ValueError("zone is the schedule's; each window has its own")
        if self.duration is not None and not timedelta() < self.duration <= timedelta(days=366):
            raise ValueError("duration must be longer than nothing and at most a year")
        return self

    @property
    def freezes(self) -> bool:
        """Whether it is an explicit 0 for everybody."""
        return self.nodes in (0, "0%") and not self.reasons


def _utc(day: date, at: time, zone: str) -> datetime:
    """A local time in UTC."""
    return datetime.combine(day, at, ZoneInfo(zone)).astimezone(UTC)
