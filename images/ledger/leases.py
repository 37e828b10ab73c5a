"""Who may act on a fleet, and what people told its rollout to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from images.ledger import tables as t
from images.ledger.database import Database


@dataclass(frozen=True)
class Holder:
    """Who wants a fleet, or has it, for which rollout."""

    fleet: str
    owner: str
    rollout: str


@dataclass(frozen=True)
class Lease(Holder):
    """A fleet is its owner's, for one rollout; after `until`, by the database's clock, anyone may take it."""

    until: datetime


@dataclass(frozen=True)
class CommandRow:
    """What a person told a rollout to do."""

    rollout: str
    command: str
    actor: str
    at: datetime


class Leases(Database):
    """The ledger's lines about leases and commands. Whether a lease has ended is for the database's clock alone."""

    def now(self) -> datetime:
        """What the database's clock shows: the server's, or of a SQLite file the machine's."""
        return self._rows(select(t.Now()))[0][0]  # type: ignore[no-any-return]

    def acquire_lease(self, wanted: Holder, lasting: timedelta) -> Lease:
        """Take a fleet that is nobody's, whose lease has ended, or that is ours for this rollout already.

        Returns the lease that stands: ours, or the one of who has the fleet. Of many at once one gets it.
        """
        table, now = t.leases, self.now()
        lease = Lease(wanted.fleet, wanted.owner, wanted.rollout, now + lasting)
        if self._set_lease(lease, or_(table.c.until <= now, _ours(wanted))):
            return lease
        try:
            self._insert(table, {**_row(lease), "fleet": lease.fleet})
        except IntegrityError:  # somebody has it
            return self.lease(wanted.fleet) or self.acquire_lease(wanted, lasting)
        return lease

    def renew_lease(self, held: Holder, lasting: timedelta) -> bool:
        """Move our lease's end; False where the fleet is no longer ours. One that ended untaken is still ours."""
        return self._set_lease(Lease(held.fleet, held.owner, held.rollout, self.now() + lasting), _ours(held))

    def release_lease(self, held: Holder) -> None:
        """Give the fleet back, where it is still ours for this rollout."""
        with self._begin() as connection:
            connection.execute(delete(t.leases).where(t.leases.c.fleet == held.fleet, _ours(held)))

    def lease_lasts(self, held: Holder) -> bool | None:
        """Whether our lease lasts; False where it has ended and was not taken, None where the fleet is not ours."""
        lasts = (t.leases.c.until > t.Now()).label("lasts")
        rows = self._rows(select(lasts).where(t.leases.c.fleet == held.fleet, _ours(held)))
        return bool(rows[0].lasts) if rows else None

    def lease(self, fleet: str) -> Lease | None:
        """Who has the fleet, also where the lease has ended."""
        rows = self._rows(select(t.leases).where(t.leases.c.fleet == fleet))
        return Lease(**rows[0]._mapping) if rows else None

    def give_command(self, given: CommandRow, detail: str = "") -> None:
        """Tell a rollout what to do, and write down who did."""
        line = {"at": given.at, "actor": given.actor, "action": given.command, "subject": given.rollout}
        row = {"rollout": given.rollout, "command": given.command, "actor": given.actor, "at": given.at}
        with self._begin() as connection:
            connection.execute(insert(t.commands), row)
            connection.execute(insert(t.audit), {**line, "detail": detail})

    def commands(self, rollout: str) -> tuple[CommandRow, ...]:
        """What a rollout was told, the newest last: that one stands."""
        query = select(t.commands).where(t.commands.c.rollout == rollout).order_by(t.commands.c.id)
        return tuple(CommandRow(row.rollout, row.command, row.actor, row.at) for row in self._rows(query))

    def _set_lease(self, wanted: Lease, allowed: ColumnElement[bool]) -> bool:
        """One conditional update: the database lets one of many at once have it."""
        change = update(t.leases).where(t.leases.c.fleet == wanted.fleet, allowed).values(**_row(wanted))
        with self._begin() as connection:
            return connection.execute(change).rowcount == 1


def _ours(holder: Holder) -> ColumnElement[bool]:
    return and_(t.leases.c.owner == holder.owner, t.leases.c.rollout == holder.rollout)


def _row(lease: Lease) -> dict[str, str | datetime]:
    return {"owner": lease.owner, "rollout": lease.rollout, "until": lease.until}
