"""When upstream images and packages were first seen here: the start of a cooldown."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from hardening.foundation.asking import portions
from images.ledger import tables as t
from images.ledger.database import BATCH, Database
from images.plan.cooldown import SOURCE, TAG, Sight, Sights, look, look_at_index


class Sightings(Database):
    """The ledger's lines about upstream images and packages."""

    def sights(self, kind: str, subject: str) -> Sights:
        """What was ever seen of a subject."""
        table = t.sights
        rows = self._rows(select(table).where(table.c.kind == kind, table.c.subject == subject))
        looked = next((row for row in rows if not row.version), None)
        seen = tuple(Sight(row.version, row.since, row.last) for row in rows if row.version)
        return Sights(seen, looked.last, looked.since) if looked else Sights(seen)

    def look_at_tag(
        self, reference: str, offered: Collection[str], now: datetime, *, settled: Collection[str] = (),
        keep: bool = True,
    ) -> Sights:  # fmt: skip
        """What is known of a tag after a look that found `offered` (`images.plan.cooldown.look`); it is kept.

        `keep` false: nothing is written, such as where the clock is only said to be another one.
        """
        return self._looked(TAG, reference, lambda known: look(known, offered, now, settled), keep=keep)

    def look_at_index(
        self, subject: str, offered: Mapping[str, datetime | None], now: datetime, *, keep: bool = True
    ) -> Sights:  # fmt: skip
        """The same of a source of packages (`images.plan.cooldown.look_at_index`)."""
        return self._looked(SOURCE, subject, lambda known: look_at_index(known, offered, now), keep=keep)

    def remember(
        self, kind: str, subject: str, versions: Collection[str], now: datetime, *, alone: bool = False
    ) -> None:
        """Keep that a night met `versions` of a subject now; `alone`: and forget all others."""

        def met(known: Sights) -> Sights:
            before = {one.version: one.since for one in known.seen}
            others = () if alone else tuple(one for one in known.seen if one.version not in versions)
            return Sights((*others, *(Sight(one, before.get(one, now), now) for one in sorted(versions))), now)

        self._looked(kind, subject, met, keep=True)

    def _looked(self, kind: str, subject: str, looking: Callable[[Sights], Sights], *, keep: bool) -> Sights:
        known = self.sights(kind, subject)
        after = looking(known)
        if keep:
            try:
                self._write(kind, subject, known, after, stamped=kind != SOURCE)
            except IntegrityError:  # another run looked in this moment: its first sight stands
                return self._looked(kind, subject, looking, keep=keep)
        return after

    def _write(self, kind: str, subject: str, known: Sights, after: Sights, *, stamped: bool) -> None:
        """Write what differs. Not `stamped`: of a source with thousands, when each was seen last is not kept."""
        old = {one.version: one for one in known.seen}
        new = {one.version: one for one in after.seen}
        same = {version for version, one in new.items() if version in old and _unchanged(old[version], one, stamped)}
        table, where = t.sights, (t.sights.c.kind == kind, t.sights.c.subject == subject)
        rows: list[dict[str, Any]] = [
            {"kind": kind, "subject": subject, "version": one.version, "since": one.since, "last": one.last}
            for one in (*after.seen, *([Sight("", after.dated, after.looked)] if after.looked else []))
            if one.version not in same
        ]
        rows.sort(key=lambda row: str(row["version"]))  # in one order: two that write at once do not lock each other
        gone = (old.keys() - same) | {""}
        with self._begin() as connection:
            for some in portions(gone, BATCH):
                connection.execute(delete(table).where(*where, table.c.version.in_(some)))
            connection.execute(insert(table), rows)


def _unchanged(old: Sight, new: Sight, stamped: bool) -> bool:
    return old.since == new.since and (old.last == new.last or not stamped)
