"""Cron's five fields (minute, hour, day of the month, month, day of the week), read strictly. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
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
        raise ValueError(f"{name} {part!r} is no number, range such as 1-5, or step such as */15")
    first, last, step = match[1], match[2], int(match[3] or 1)
    low = least if first is None else _number(name, first, least, most, words)
    high = most if first is None or (match[3] and not last) else low
    high = _number(name, last, least, most, words) if last else high
    high = most if words is _DAYS and last and not high else high  # Sunday ends a week as well as it begins one
    if high < low or step < 1:
        raise ValueError(f"{name} {part!r} holds nothing: a range goes upwards, a step is at least 1")
    return range(low, high + 1, step)


def _number(name: str, text: str, least: int, most: int, words: tuple[str, ...]) -> int:
    if text.lower() in words:
        return words.index(text.lower()) + (1 if words is _MONTHS else 0)
    if text.isdecimal() and least <= int(text) <= most:
        return int(text)
    named = f" or one of {', '.join(words)}" if words else ""
    raise ValueError(f"{name} is a number from {least} to {most}{named}, not {text!r}")
