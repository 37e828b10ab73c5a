"""Who may act on a fleet, and what people told its rollout to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from images.ledger import tables as t
from images.ledger.database import Database


@dataclass(frozen=True)
class Lease:
    """A fleet is its owner's, for one rollout; after `until` anyone may take it."""

    fleet: str
    owner: str
    rollout: str
    until: datetime


@dataclass(frozen=True)
class Command:
    """What a person told a rollout to do."""

    rollout: str
    command: str
    actor: str
    at: datetime


class Leases(Database):
    """The ledger's lines about leases and commands. Whether a lease has ended is for the clock of who asks."""

    def acquire_lease(self, wanted: Lease, now: datetime) -> Lease:
        """Take a fleet that is nobody's, whose lease has ended, or that is ours for this rollout already.

        Returns the lease that stands: `wanted`, or the one of who has the fleet. Of many at once one gets it.
        """
        table = t.leases
        ended = table.c.until <= now
        ours = and_(table.c.owner == wanted.owner, table.c.rollout == wanted.rollout)
        if self._set_lease(wanted, or_(ended, ours)):
            return wanted
        try:
            self._insert(table, {**_row(wanted), "fleet": wanted.fleet})
        except IntegrityError:  # somebody has it
            return self.lease(wanted.fleet) or self.acquire_lease(wanted, now)
        return wanted

    def renew_lease(self, wanted: Lease) -> bool:
        """Move our lease's end; False where the fleet is no longer ours. One that ended untaken is still ours."""
        table = t.leases
        return self._set_lease(wanted, and_(table.c.owner == wanted.owner, table.c.rollout == wanted.rollout))

    def release_lease(self, held: Lease) -> None:
        """Give the fleet back, where it is still ours for this rollout."""
        table = t.leases
        ours = (table.c.fleet == held.fleet, table.c.owner == held.owner, table.c.rollout == held.rollout)
        with self._begin() as connection:
            connection.execute(delete(table).where(*ours))

    def lease(self, fleet: str) -> Lease | None:
        """Who has the fleet, also where the lease has ended."""
        rows = self._rows(select(t.leases).where(t.leases.c.fleet == fleet))
        return Lease(**rows[0]._mapping) if rows else None

    def give_command(self, given: Command, detail: str = "") -> None:
        """Tell a rollout what to do, and write down who did."""
        line = {"at": given.at, "actor": given.actor, "action": given.command, "subject": given.rollout}
        row = {"rollout": given.rollout, "command": given.command, "actor": given.actor, "at": given.at}
        with self._begin() as connection:
            connection.execute(insert(t.commands), row)
            connection.execute(insert(t.audit), {**line, "detail": detail})

    def commands(self, rollout: str) -> tuple[Command, ...]:
        """What a rollout was told, the newest last: that one stands."""
        query = select(t.commands).where(t.commands.c.rollout == rollout).order_by(t.commands.c.id)
        return tuple(Command(row.rollout, row.command, row.actor, row.at) for row in self._rows(query))

    def _set_lease(self, wanted: Lease, allowed: ColumnElement[bool]) -> bool:
        """One conditional update: the database lets one of many at once have it."""
        change = update(t.leases).where(t.leases.c.fleet == wanted.fleet, allowed).values(**_row(wanted))
        with self._begin() as connection:
            return connection.execute(change).rowcount == 1


def _row(lease: Lease) -> dict[str, str | datetime]:
    return {"owner": lease.owner, "rollout": lease.rollout, "until": lease.until}
