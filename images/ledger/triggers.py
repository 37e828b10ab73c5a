"""What starts work without a person: scheduled runs and webhooks, each recorded once until its work is done."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError

from images.ledger import tables as t
from images.ledger.database import Database
from images.ledger.tables import Trigger


class Triggers(Database):
    """The ledger's lines about what started work, and what is still due."""

    def add_trigger(self, trigger_id: str, kind: str, at: datetime) -> bool:
        """Write down that work is to be done; False where this id was written down before."""
        try:
            self._insert(t.triggers, vars(Trigger(trigger_id, kind, at)))
        except IntegrityError:
            return False
        return True

    def waiting_triggers(self) -> tuple[Trigger, ...]:
        """Those whose work is not done, the oldest first."""
        return self._find(Trigger, t.triggers, t.triggers.c.at, t.triggers.c.id, done_at=None)

    def finish_triggers(self, ids: Iterable[str], at: datetime, outcome: str) -> None:
        """Their work is done; `outcome` says how it ended."""
        self._change(update(t.triggers).where(t.triggers.c.id.in_(list(ids))).values(done_at=at, outcome=outcome))

    def forget_triggers(self, before: datetime, after: datetime) -> None:
        """Remove the lines of work that was done before a moment, or after one that is still to come.

        The latter are of a clock that was ahead: they would count as the last, and their moments as served.
        """
        at = t.triggers.c.done_at
        self._change(delete(t.triggers).where((at < before) | (at > after)))

    def last_triggers(self, until: datetime | None = None) -> dict[str, Trigger]:
        """By kind, the one whose work was done last, of those that were done until then."""
        at = t.triggers.c.done_at
        where = [at.is_not(None) if until is None else at <= until]
        return {one.kind: one for one in self._find(Trigger, t.triggers, at, where=where)}
