"""Durations as people write them in content: `30s`, `5m`, `12h`, `7d`; and dates as headers write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SIZES = (("d", 86400), ("h", 3600), ("m", 60))  # in seconds, the largest first
LONGEST = timedelta(days=36525)  # a hundred years: any date that it is added to is still a date
_Written = Annotated[str, Field(pattern=r"^[0-9]+[smhdw]$", examples=["30s", "5m", "12h", "7d"])]


def duration(text: Any) -> Any:
    """`text` such as `90s`, `5m`, `36h`, `30d`, `2w` as a timedelta. Raises ValueError with the allowed form."""
    if isinstance(text, timedelta):
        return text
    match = re.fullmatch(r"(\d+)([smhdw])", text.strip()) if isinstance(text, str) else None
    if not match:
        raise ValueError(f"a duration is a number and a unit, such as 30s, 5m, 12h, 7d or 2w, not {text!r}")
    try:
        span = timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        span = timedelta.max
    if span > LONGEST:
        raise ValueError(f"a duration is at most {LONGEST.days} days, not {text!r}")
    return span


def shown(span: timedelta) -> str:
    """A timedelta in its largest whole unit, in the form `duration` reads."""
    seconds = int(span.total_seconds())
    for unit, size in _SIZES:
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def in_short(span: timedelta) -> str:
    """A timedelta as people say it, in its two largest units: `2d 4h`, `1h 5m`, `40s`, `-3m 2s`; whole seconds."""
    if span < timedelta():
        return f"-{in_short(-span)}"
    seconds = int(span.total_seconds())
    parts = list[str]()
    for unit, size in (*_SIZES, ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
    return " ".join(filter(None, parts[:2])) or "0s"


def header_date(text: str) -> datetime | None:
    """A date as HTTP and Debian's release files have it (RFC 5322), in UTC; None where it is none."""
    try:
        found = parsedate_to_datetime(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return None


Duration = Annotated[
    timedelta, BeforeValidator(duration, json_schema_input_type=_Written), PlainSerializer(shown, return_type=str)
]
