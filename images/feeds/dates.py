"""The date that data states of itself."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from hardening.foundation.errors import OutsideError
from hardening.foundation.limits import JSON_BYTES, parse_json, read_all


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
