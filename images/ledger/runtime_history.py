"""How members ran, and since when: what they are compared with to see what was changed in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import delete

from images.ledger import tables as t
from images.ledger.database import Database
from images.ledger.fixes import GONE_FOR
from images.ledger.tables import MemberSnapshot

MOST_KEPT = 50
"""Lines of one instance: the first, and the newest ones. One that changes at each look would fill the ledger."""
Key = tuple[str, str]


class Snapshots(Database):
    """The ledger's lines about how members run. Key: the member's name, and the handle of the very instance."""

    def snapshots(self, fleet: str) -> dict[Key, tuple[MemberSnapshot, ...]]:
        """What is kept of a fleet's members, the oldest first."""
        found: dict[Key, list[MemberSnapshot]] = {}
        for one in self._find(MemberSnapshot, t.member_snapshots, t.member_snapshots.c.id, fleet=fleet):
            found.setdefault((one.member, one.handle), []).append(one)
        return {key: tuple(lines) for key, lines in found.items()}

    def record_snapshots(self, fleet: str, facts: Mapping[Key, dict[str, Any]], at: datetime) -> None:
        """Keep how members run, where that is not how they were last seen to; forget who is gone for long."""
        known = self.snapshots(fleet)
        new = {key: seen for key, seen in facts.items() if key not in known or known[key][-1].facts != seen}
        self._insert(t.member_snapshots, *(asdict(MemberSnapshot(fleet, *key, at, seen)) for key, seen in new.items()))
        for key, lines in known.items():
            if key not in facts and lines[-1].at < at - GONE_FOR:
                self._forget(fleet, key, at)
            elif key in new and len(lines) >= MOST_KEPT:
                self._forget(fleet, key, lines[1 - MOST_KEPT].at, since=lines[0].at)

    def _forget(self, fleet: str, key: Key, before: datetime, since: datetime | None = None) -> None:
        """Remove the lines of an instance from before a moment, and after `since`."""
        columns = t.member_snapshots.c
        same = (columns.fleet == fleet, columns.member == key[0], columns.handle == key[1], columns.at < before)
        later = (columns.at > since,) if since else ()
        self._change(delete(t.member_snapshots).where(*same, *later))
