"""When a rollout may act, as people write it: windows, freezes, and budgets with their schedules. Pure.

Every time is local to a time zone that the content names. Where the clock is set back, the first of two equal times
is meant; where it is set forward, a time that does not exist comes as much later.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from hardening.foundation.content import Content, MisplacedError
from hardening.foundation.durations import Duration
from hardening.foundation.errors import nearest
from hardening.model import NonEmpty
from pipelines.fleet.amounts import Amount
from pipelines.fleet.cron import cron

_CLOCK = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
Span = tuple[datetime, datetime]  # from the first moment up to, but without, the second; aware UTC


def _known(zone: str) -> str:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
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


class Rule(StrEnum):
    """Why a member is replaced: the policy's rules for what runs."""

    EXPIRED = "expired"
    UNKNOWN = "unknown"
    SUPERSEDED = "superseded"
    REVOKED = "revoked"
    REFUSED = "refused"
    MAX_AGE = "max_age"
    APPROVED_SOURCE = "approved_source"


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
    reasons: tuple[Rule, ...] = Field((), description="the rules that it binds; without any it binds all")
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


def _utc(day: date, at: time, zone: str) -> datetime:
    """A local time in UTC."""
    return datetime.combine(day, at, ZoneInfo(zone)).astimezone(UTC)
