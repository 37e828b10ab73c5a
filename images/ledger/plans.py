"""Rollout plans that somebody approves: who made each, who approved it, and which rollout used it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.exc import IntegrityError

from images.ledger import tables as t
from images.ledger.database import Database


@dataclass(frozen=True)
class PlanLine:
    """A plan by its digest. Empty: not approved yet, not used yet. `made_by` and `approved_by` are actors."""

    digest: str
    fleet: str
    made_by: str
    made_at: datetime
    approved_by: str = ""
    approved_at: datetime | None = None
    rollout: str = ""


class Plans(Database):
    """The ledger's lines about plans. Approval and use are conditional updates: of many at once one succeeds."""

    def record_plan(self, line: PlanLine) -> None:
        """Write down that a plan was made; what is already known of it stands."""
        if self.plan(line.digest) is None:
            try:
                self._insert(t.plans, asdict(line))
            except IntegrityError:  # another process has just written the same
                return

    def plan(self, digest: str) -> PlanLine | None:
        """The plan with that digest."""
        return self._plan(t.plans.c.digest == digest)

    def plan_of(self, rollout: str) -> PlanLine | None:
        """The plan that a rollout used."""
        return self._plan(t.plans.c.rollout == rollout)

    def approve_plan(self, digest: str, by: str, at: datetime) -> bool:
        """Approve a plan; False where it is unknown, approved or used already."""
        fresh = (t.plans.c.digest == digest, t.plans.c.approved_by == "", t.plans.c.rollout == "")
        return self._change_plan(*fresh, approved_by=by, approved_at=at)

    def use_plan(self, digest: str, rollout: str) -> bool:
        """Let a rollout use a plan; False where it is unknown or another has used it."""
        return self._change_plan(t.plans.c.digest == digest, t.plans.c.rollout == "", rollout=rollout)

    def return_plan(self, digest: str, rollout: str) -> None:
        """Take that back for a rollout that never began."""
        self._change_plan(t.plans.c.digest == digest, t.plans.c.rollout == rollout, rollout="")

    def _plan(self, which: ColumnElement[bool]) -> PlanLine | None:
        rows = self._rows(select(t.plans).where(which))
        return PlanLine(**rows[0]._mapping) if rows else None

    def _change_plan(self, *which: ColumnElement[bool], **values: str | datetime) -> bool:
        with self._begin() as connection:
            return connection.execute(update(t.plans).where(*which).values(**values)).rowcount == 1
