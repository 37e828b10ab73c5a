"""How members ran, and since when, to compare with later checks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select

from hardening.foundation.asking import portions
from images.ledger import tables as t
from images.ledger.database import BATCH, Database
from images.ledger.fixes import GONE_FOR
from images.ledger.tables import MemberSnapshot

MOST_KEPT, FIRST_KEPT = 10, 2
"""Lines of one instance, and how many of its first ones stay: of the very first, something may be unread. One that
changes at each look would fill the ledger."""
Key = tuple[str, str]
KnownLines = Mapping[Key, tuple[MemberSnapshot, ...]]


class Snapshots(Database):
    """The ledger's lines about how members run. Key: the member's name, and the handle of the exact instance."""

    def snapshots(self, fleet: str, handles: Iterable[str]) -> dict[Key, tuple[MemberSnapshot, ...]]:
        """What is kept of these instances of a fleet, the oldest first."""
        found: dict[Key, list[MemberSnapshot]] = {}
        for some in portions(set(handles), BATCH):
            for one in self._lines(fleet, t.member_snapshots.c.handle.in_(some)):
                found.setdefault((one.member, one.handle), []).append(one)
        return {key: tuple(lines) for key, lines in found.items()}

    def last_snapshots(self, fleet: str, handles: Iterable[str]) -> dict[Key, MemberSnapshot]:
        """How these instances of a fleet were last seen to run."""
        columns, found = t.member_snapshots.c, dict[Key, MemberSnapshot]()
        for some in portions(set(handles), BATCH):
            newest = (
                select(func.max(columns.id))
                .where(columns.fleet == fleet, columns.handle.in_(some))
                .group_by(columns.member, columns.handle)
            )
            found |= {(one.member, one.handle): one for one in self._lines(fleet, columns.id.in_(newest))}
        return found

    def record_snapshots(
        self, fleet: str, facts: Mapping[Key, dict[str, Any]], at: datetime, known: KnownLines
    ) -> None:
        """Keep how members run, where that is not how they were last seen to. `known`: what is kept of them."""
        new = {key: seen for key, seen in facts.items() if key not in known or known[key][-1].facts != seen}
        self._insert(t.member_snapshots, *(asdict(MemberSnapshot(fleet, *key, at, seen)) for key, seen in new.items()))
        gone = [line for key in new for line in _too_many(known.get(key, ()), at)]
        columns = t.member_snapshots.c
        self._remove([(*_of(fleet, (line.member, line.handle)), columns.at == line.at) for line in gone])

    def forget_snapshots(self, fleet: str, present: Collection[Key], at: datetime) -> None:
        """Remove what is kept of instances that are not present, and of which nothing new was written for long."""
        columns = t.member_snapshots.c
        last = (
            select(columns.member, columns.handle)
            .where(columns.fleet == fleet)
            .group_by(columns.member, columns.handle)
            .having(func.max(columns.at) < at - GONE_FOR)
        )
        gone = {(row.member, row.handle) for row in self._rows(last)} - set(present)
        self._remove([_of(fleet, key) for key in gone])

    def _lines(self, fleet: str, which: ColumnElement[bool]) -> Iterable[MemberSnapshot]:
        return self._find(MemberSnapshot, t.member_snapshots, t.member_snapshots.c.id, where=[which], fleet=fleet)

    def _remove(self, which: Sequence[tuple[ColumnElement[bool], ...]]) -> None:
        if which:
            with self._begin() as connection:
                for same in which:
                    connection.execute(delete(t.member_snapshots).where(*same))


def _of(fleet: str, key: Key) -> tuple[ColumnElement[bool], ...]:
    columns = t.member_snapshots.c
    return columns.fleet == fleet, columns.member == key[0], columns.handle == key[1]


def _too_many(known: Sequence[MemberSnapshot], now: datetime) -> Iterable[MemberSnapshot]:
    """What goes of an instance's lines, that a new one may come."""
    lines = list(known)
    while len(lines) >= MOST_KEPT:
        yield lines.pop(_least_missed(lines, now))


def _least_missed(lines: Sequence[MemberSnapshot], now: datetime) -> int:
    """Which line can go: never one of the first, nor the last; else the one between the two that are nearest in age, as
    a multiple. So old lines stay, farther apart, and what changes at each look is not always young.
    """
    ages = [(now - line.at).total_seconds() + 1 for line in lines]
    return min(range(FIRST_KEPT, len(lines) - 1), key=lambda number: ages[number - 1] / ages[number + 1])
