"""What a look inside a feed's data found, and when newer data may replace older. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from hardening.foundation.errors import OutsideError

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
