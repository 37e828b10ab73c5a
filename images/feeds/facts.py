"""What a look inside a feed's data found, and when newer data may replace older. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from hardening.foundation.errors import OutsideError
from hardening.foundation.limits import JSON_BYTES, parse_json, read_all

SHRINKS_TO = 0.5
"""The least part of its entries that newer data must still have: lists of vulnerabilities grow."""


@dataclass(frozen=True)
class Facts:
    """How many entries data has, which canaries (entries that never go) it names, and its own date, if it has one."""

    entries: int
    canaries: frozenset[str] = frozenset()
    date: datetime | None = None


def require_succession(good: Facts, fresh: Facts) -> None:
    """Raises OutsideError where `fresh` looks cut or tampered with beside the `good` data that it would replace."""
    if fresh.entries < SHRINKS_TO * good.entries:
        raise OutsideError(f"the new data has {fresh.entries:,} entries, less than half of the {good.entries:,} before")
    if lost := sorted(good.canaries - fresh.canaries):
        raise OutsideError(f"the new data no longer names {', '.join(lost)}, which never goes")


def in_json(value: Any, key: str) -> datetime | None:
    """The date (ISO 8601; UTC where it names no zone) at `key` of a JSON value, or None where there is none."""
    try:
        dated = datetime.fromisoformat(value[key])
    except (ValueError, KeyError, TypeError):
        return None
    return dated if dated.tzinfo else dated.replace(tzinfo=UTC)


def in_file(path: Path, key: str) -> datetime | None:
    """The same for a file of JSON; None where there is no such file, too."""
    try:
        with path.open("rb") as file:
            return in_json(parse_json(read_all(file, JSON_BYTES, path.name), path.name), key)
    except (OSError, OutsideError):
        return None


def in_header(text: str) -> datetime | None:
    """The date of a Last-Modified header; None where there is none or it is no date."""
    try:
        dated = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return dated.astimezone(UTC) if dated.tzinfo else dated.replace(tzinfo=UTC)
