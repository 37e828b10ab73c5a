"""What was sent to whom: the open points of digests, and the deployment records of rollouts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, replace

from sqlalchemy import delete, insert

from hardening.foundation.asking import portions
from images.ledger import tables as t
from images.ledger.database import BATCH, Database
from images.ledger.tables import AuditLine, Deployment, ToldPoint


class Telling(Database):
    """The ledger's lines about messages that were sent."""

    def told_points(self, target: str) -> dict[str, ToldPoint]:
        """What a target of digests was told of points that were open then, by their subjects."""
        found = self._find(ToldPoint, t.told_points, t.told_points.c.subject, target=target)
        return {one.subject: replace(one, acts=tuple(one.acts)) for one in found}

    def record_told(
        self, target: str, told: Collection[ToldPoint], over: Collection[str], audit: AuditLine | None
    ) -> None:
        """Keep what a target was just told, and forget the subjects that are `over`; the audit says so too."""
        table, gone = t.told_points, [*over, *(one.subject for one in told)]
        with self._begin() as connection:
            for some in portions(gone, BATCH):
                connection.execute(delete(table).where(table.c.target == target, table.c.subject.in_(some)))
            if told:
                connection.execute(insert(table), [vars(one) for one in told])
            if audit:
                connection.execute(insert(t.audit), asdict(audit))

    def deployments(self, fleet: str, repository: str) -> dict[str, Deployment]:
        """The records of a fleet's rollouts in a repository, by rollout."""
        found = self._find(Deployment, t.deployments, t.deployments.c.id, fleet=fleet, repository=repository)
        return {one.rollout: one for one in found}

    def record_deployment(self, one: Deployment) -> None:
        """Keep a record's id and state in the place of what was known of it."""
        self._put(t.deployments, asdict(one))
