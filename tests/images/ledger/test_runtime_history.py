"""How members ran: a line for each change of the very instance, never too many, and the first one while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from images.ledger import Ledger
from images.ledger.fixes import GONE_FOR
from images.ledger.runtime_history import MOST_KEPT, Key

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
A, B = ("web-1", "id-a"), ("web-2", "id-b")


@pytest.fixture
def ledger(database: str) -> Iterator[Ledger]:
    """A new ledger, on SQLite and on PostgreSQL."""
    ledger = Ledger.open(database)
    yield ledger
    ledger.close()


def look(ledger: Ledger, at: datetime, **seen: int) -> None:
    """See members a and b run with so many processes."""
    found: dict[Key, dict[str, int]] = {{"a": A, "b": B}[name]: {"processes": value} for name, value in seen.items()}
    ledger.record_snapshots("shop", found, at, ledger.snapshots("shop", [handle for _, handle in found]))


def lines(ledger: Ledger, key: Key = A) -> list[tuple[datetime, int]]:
    return [(one.at, one.facts["processes"]) for one in ledger.snapshots("shop", [key[1]]).get(key, ())]


def test_a_line_is_added_for_each_change_of_the_very_instance(ledger: Ledger) -> None:
    """Only the lines of those that are asked for are read, each under its own key."""
    for hours, number in enumerate((1, 1, 2, 1)):
        look(ledger, NOW + hours * HOUR, a=number, b=7)
    assert lines(ledger) == [(NOW, 1), (NOW + 2 * HOUR, 2), (NOW + 3 * HOUR, 1)]
    assert ledger.snapshots("shop", ["id-b"]).keys() == {B}
    assert ledger.snapshots("other", ["id-a"]) == ledger.snapshots("shop", []) == {}
    many = [f"id-{number}" for number in range(2000)]
    last = ledger.last_snapshots("shop", [*many, "id-a", "id-b"])
    assert {key: one.facts for key, one in last.items()} == {A: {"processes": 1}, B: {"processes": 7}}
    assert len(ledger.snapshots("shop", [*many, "id-a"])[A]) == 3


def test_what_changes_at_each_look_keeps_its_first_lines_and_old_ones(ledger: Ledger) -> None:
    """So a violation that is changed at each look is not young for ever."""
    for hours in range(400):
        look(ledger, NOW + hours * HOUR, a=hours)
    kept = [number for _, number in lines(ledger)]
    assert len(kept) == MOST_KEPT
    assert (kept[:2], kept[-1]) == ([0, 1], 399)
    assert any(100 <= number < 300 for number in kept)
    assert kept == sorted(kept)


def test_only_what_is_gone_for_long_is_forgotten(ledger: Ledger) -> None:
    """Who runs unchanged for years keeps what it is compared with."""
    look(ledger, NOW, a=1, b=1)
    ledger.forget_snapshots("shop", {A}, NOW + GONE_FOR)
    assert lines(ledger, B)
    ledger.forget_snapshots("other", set(), NOW + 2 * GONE_FOR)
    ledger.forget_snapshots("shop", {A}, NOW + 2 * GONE_FOR)
    assert (lines(ledger), lines(ledger, B)) == ([(NOW, 1)], [])
