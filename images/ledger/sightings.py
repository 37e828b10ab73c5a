"""When others' images and packages were first seen here: what a cooldown counts from."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from images.ledger import tables as t
from images.ledger.database import Database
from images.plan.cooldown import Sight, Sights, look

BATCH = 500
"""How many values one statement names: SQLite takes 999 at the least."""


class Sightings(Database):
    """The ledger's lines about what others offer."""

    def sights(self, kind: str, subject: str) -> Sights:
        """What was ever seen of a subject."""
        table = t.sights
        rows = self._rows(select(table).where(table.c.kind == kind, table.c.subject == subject))
        looked = next((row.last for row in rows if not row.version), None)
        return Sights(tuple(Sight(row.version, row.since, row.last) for row in rows if row.version), looked)

    def look_at(
        self, kind: str, subject: str, offered: Collection[str], now: datetime, *, settled: Collection[str] = (),
        only_offered: bool = False, keep: bool = True,
    ) -> Sights:  # fmt: skip
        """What is known of a subject after a look that found `offered` (`images.plan.cooldown.look`); it is kept.

        `only_offered`: what is no longer there is forgotten, so that it waits anew when it comes back. `keep` false:
        nothing is written, such as where the clock is only said to be another one.
        """
        known = self.sights(kind, subject)
        after = look(known, offered, now, settled)
        if only_offered:
            after = Sights(tuple(one for one in after.seen if one.version in offered), after.looked)
        if keep:
            try:
                self._write(kind, subject, known, after, stamped=not only_offered)
            except IntegrityError:  # another run looked in this moment: its first sight stands
                again = partial(self.look_at, kind, subject, offered, now, settled=settled)
                return again(only_offered=only_offered)
        return after

    def _write(self, kind: str, subject: str, known: Sights, after: Sights, *, stamped: bool) -> None:
        """Write what differs. Not `stamped`: of a source with thousands, when each was seen last is not kept."""
        old = {one.version: one for one in known.seen}
        new = {one.version: one for one in after.seen}
        same = {version for version, one in new.items() if version in old and _unchanged(old[version], one, stamped)}
        table, where = t.sights, (t.sights.c.kind == kind, t.sights.c.subject == subject)
        rows: list[dict[str, Any]] = [
            {"kind": kind, "subject": subject, "version": one.version, "since": one.since, "last": one.last}
            for one in (*after.seen, *([Sight("", None, after.looked)] if after.looked else []))
            if one.version not in same
        ]
        gone = sorted((old.keys() - same) | {""})
        with self._begin() as connection:
            for start in range(0, len(gone), BATCH):
                connection.execute(delete(table).where(*where, table.c.version.in_(gone[start : start + BATCH])))
            connection.execute(insert(table), rows)


def _unchanged(old: Sight, new: Sight, stamped: bool) -> bool:
    return old.since == new.since and (old.last == new.last or not stamped)
