"""What runs, what is rolled by which approved plan, who may act on a fleet, what people told a rollout; the audit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from images.ledger import tables as t
from images.ledger.database import Database
from images.ledger.fixes import GONE_FOR
from images.ledger.tables import (
    ApprovedPlanRow,
    AuditLine,
    BaseUptake,
    CommandRow,
    FleetCheck,
    FleetDay,
    Holder,
    Lease,
    Night,
    Rollout,
)


class Fleets(Database):
    """The ledger's lines about fleets, their rollouts, and the audit."""

    def seen_fleet(self, fleet: str, members: Mapping[str, str], at: datetime) -> None:
        """All that a fleet runs now, member → digest; members that are gone are forgotten."""
        rows = [{"fleet": fleet, "member": member, "digest": d, "at": at} for member, d in members.items()]
        with self._begin() as connection:
            connection.execute(delete(t.running).where(t.running.c.fleet == fleet))
            if rows:
                connection.execute(insert(t.running), rows)

    def forget_fleets(self, fleets: Collection[str], now: datetime) -> None:
        """Forget what fleets other than these were seen running, once they have not been looked at for a year."""
        over = (t.running.c.fleet.not_in(fleets), t.running.c.at < now - GONE_FOR)
        self._change(delete(t.running).where(*over))

    def running_digests(self) -> dict[str, tuple[str, ...]]:
        """What the known fleets were last seen running: digest → (`fleet/member`, …)."""
        found: dict[str, tuple[str, ...]] = {}
        for row in self._rows(select(t.running).order_by(t.running.c.fleet, t.running.c.member)):
            found[row.digest] = (*found.get(row.digest, ()), f"{row.fleet}/{row.member}")
        return found

    def record_check(self, check: FleetCheck) -> None:
        """Keep what was said of a fleet's members in the place of what was said before."""
        self._put(t.fleet_checks, vars(check))

    def record_fleet_day(self, counted: FleetDay) -> None:
        """Keep what a check of a fleet counted, in the place of an earlier one of the same day."""
        self._put(t.fleet_days, vars(counted))

    def fleet_days(self, since: datetime) -> tuple[FleetDay, ...]:
        """What the last check of each day counted, of every fleet, from a moment on, the oldest first."""
        at = t.fleet_days.c.at
        return self._find(FleetDay, t.fleet_days, at, where=[at >= since])

    def state_stamp(self) -> str:
        """What is another after each check, rollout's step, judgement or release: whoever shows the state asks it."""
        newest = (
            select(func.max(t.fleet_checks.c.at)), select(func.max(t.rollouts.c.at)), select(func.max(t.audit.c.id)),
            select(func.max(t.judgements.c.at)), select(func.max(t.channel_moves.c.id)),
            select(func.max(t.releases.c.published_at)), select(func.max(t.member_runs.c.id)),
        )  # fmt: skip
        (row,) = self._rows(select(*(one.scalar_subquery() for one in newest)))
        return "/".join(str(value) for value in row)

    def checked_at(self) -> dict[str, datetime]:
        """By fleet, in order of their names, when it was last checked."""
        query = select(t.fleet_checks.c.fleet, t.fleet_checks.c.at).order_by(t.fleet_checks.c.fleet)
        return {row.fleet: row.at for row in self._rows(query)}

    def fleet_checks(self) -> dict[str, FleetCheck]:
        """What was last said of the members of each fleet that was ever checked."""
        return {check.fleet: check for check in self._find(FleetCheck, t.fleet_checks)}

    def begin_rollout(self, rollout_id: str, fleet: str, owner: str, order: Any, at: datetime) -> None:
        """Write down a rollout before it does anything: whoever finds it open carries it to its end."""
        self._insert(t.rollouts, vars(Rollout(rollout_id, fleet, owner, order, None, open=True, begun_at=at, at=at)))

    def save_rollout(self, rollout_id: str, state: Any, at: datetime, *, is_open: bool = True) -> None:
        """Keep a rollout's state (JSON); `is_open` says whether it still has something to do."""
        self._change(update(t.rollouts).where(t.rollouts.c.id == rollout_id).values(state=state, open=is_open, at=at))

    def save_member(self, rollout_id: str, member: str, state: Any) -> None:
        """Keep how far a member of a rollout is (JSON)."""
        self._put(t.rollout_members, {"rollout": rollout_id, "member": member, "state": state})

    def rollout_members(self, rollout_id: str) -> dict[str, Any]:
        """How far the members of a rollout are, by id."""
        query = select(t.rollout_members).where(t.rollout_members.c.rollout == rollout_id)
        return {row.member: row.state for row in self._rows(query.order_by(t.rollout_members.c.member))}

    def rollout(self, rollout_id: str) -> Rollout | None:
        """The rollout with this id."""
        return next(iter(self._rollouts(id=rollout_id)), None)

    def open_rollouts(self, fleet: str = "") -> tuple[Rollout, ...]:
        """The rollouts (of one fleet) that are not over, the oldest first."""
        return self._rollouts(open=True, **({"fleet": fleet} if fleet else {}))

    def rollouts(self, fleet: str, most: int | None = None) -> tuple[Rollout, ...]:
        """The last `most` rollouts of a fleet, by default all, the oldest first."""
        newest = (t.rollouts.c.begun_at.desc(), t.rollouts.c.id.desc())
        return self._find(Rollout, t.rollouts, *newest, limit=most, fleet=fleet)[::-1]

    def rollout_ids(self, fleet: str) -> tuple[str, ...]:
        """The ids of every rollout of a fleet, the newest first."""
        table = t.rollouts
        query = select(table.c.id).where(table.c.fleet == fleet)
        return tuple(row.id for row in self._rows(query.order_by(table.c.begun_at.desc(), table.c.id.desc())))

    def ended_rollouts(self, fleet: str, most: int = 100) -> tuple[dict[str, Any], ...]:
        """How the last rollouts of a fleet ended, the newest first: their states, without their orders."""
        table = t.rollouts
        query = select(table.c.state).where(table.c.fleet == fleet, table.c.open.is_(False))
        rows = self._rows(query.order_by(table.c.begun_at.desc(), table.c.id.desc()).limit(most))
        return tuple(row.state for row in rows if row.state)

    def audit(self, at: datetime, actor: str, action: str, subject: str, detail: str = "") -> None:
        """Write down that something was done: now by the ledger's clock, or `at` where it has none."""
        self._insert(t.audit, asdict(AuditLine(self.clock() if self.clock else at, actor, action, subject, detail)))

    def audit_lines(self, limit: int = 1000, subject: str = "", *, but: str = "") -> tuple[AuditLine, ...]:
        """The last things that were done (to one subject), the oldest first; none of which the action begins with
        `but`.
        """
        same: dict[str, Any] = {"subject": subject} if subject else {}
        where = [~t.audit.c.action.startswith(but, autoescape=True)] if but else []
        return self._find(AuditLine, t.audit, t.audit.c.id.desc(), limit=limit, where=where, **same)[::-1]

    def begin_uptake(self, wanted: BaseUptake, most_tries: int) -> BaseUptake | None:
        """Begin another try, which is counted before it is made; of many at once one may. None: none is to be made."""
        with suppress(IntegrityError):
            self._insert(t.base_uptakes, asdict(wanted))
        known = self.uptake(wanted)
        if known is None or known.done or known.tries >= most_tries:
            return None
        same = (*self._same_uptake(known), t.base_uptakes.c.tries == known.tries, t.base_uptakes.c.done.is_(False))
        begun = replace(known, tries=known.tries + 1, at=wanted.at)
        return (
            begun if self._change(update(t.base_uptakes).where(*same).values(tries=begun.tries, at=begun.at)) else None
        )

    def end_uptake(self, begun: BaseUptake, detail: str, *, done: bool) -> None:
        """Keep what came of a try, unless another has succeeded meanwhile."""
        same = (*self._same_uptake(begun), t.base_uptakes.c.done.is_(False))
        self._change(update(t.base_uptakes).where(*same).values(done=done, detail=detail))

    def uptake(self, wanted: BaseUptake) -> BaseUptake | None:
        """What was done of the same kind for the same subject and base."""
        found = self._find(BaseUptake, t.base_uptakes, kind=wanted.kind, subject=wanted.subject, base=wanted.base)
        return next(iter(found), None)

    def uptakes(self, kind: str, base: str) -> tuple[BaseUptake, ...]:
        """What was done of a kind for every subject on the way to that base."""
        return self._find(BaseUptake, t.base_uptakes, t.base_uptakes.c.subject, kind=kind, base=base)

    def _same_uptake(self, one: BaseUptake) -> tuple[ColumnElement[bool], ...]:
        columns = t.base_uptakes.c
        return columns.kind == one.kind, columns.subject == one.subject, columns.base == one.base

    def _rollouts(self, **same: Any) -> tuple[Rollout, ...]:
        return self._find(Rollout, t.rollouts, t.rollouts.c.begun_at, t.rollouts.c.id, **same)


class Nights(Database):
    """The ledger's lines about nights: which are not over."""

    def begin_night(self, night: Night) -> None:
        """Write down that a night is about to begin."""
        self._insert(t.nights, asdict(night))

    def open_nights(self, host: str = "") -> tuple[Night, ...]:
        """The nights of a machine, by default of all, that are not over, the oldest first."""
        same: dict[str, Any] = {"host": host} if host else {}
        return self._find(Night, t.nights, t.nights.c.begun_at, open=True, **same)

    def ended_nights(self, before: datetime, most: int) -> tuple[str, ...]:
        """The oldest nights that are over, and began before a moment."""
        where = (t.nights.c.open.is_(False), t.nights.c.begun_at < before)
        query = select(t.nights.c.id).where(*where).order_by(t.nights.c.begun_at).limit(most)
        return tuple(row.id for row in self._rows(query))

    def forget_nights(self, nights: Collection[str]) -> None:
        """Remove their lines."""
        self._change(delete(t.nights).where(t.nights.c.id.in_(nights)))

    def end_night(self, night: str) -> None:
        """Write down that a night is over. Done again, it changes nothing."""
        self._change(update(t.nights).where(t.nights.c.id == night).values(open=False))


class Plans(Database):
    """The ledger's lines about plans. Approval and use are conditional updates: of many at once one succeeds."""

    def record_plan(self, line: ApprovedPlanRow) -> None:
        """Write down that a plan was made; what is already known of it stands."""
        if self.plan(line.digest) is None:
            with suppress(IntegrityError):  # another process has just written the same
                self._insert(t.plans, asdict(line))

    def plan(self, digest: str) -> ApprovedPlanRow | None:
        """The plan with that digest."""
        return next(iter(self._find(ApprovedPlanRow, t.plans, digest=digest)), None)

    def plan_of(self, rollout: str) -> ApprovedPlanRow | None:
        """The plan that a rollout used."""
        return next(iter(self._find(ApprovedPlanRow, t.plans, rollout=rollout)), None)

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

    def _change_plan(self, *which: ColumnElement[bool], **values: str | datetime) -> bool:
        return self._change(update(t.plans).where(*which).values(**values)) == 1


class Leases(Database):
    """The ledger's lines about leases and commands. Only the database's clock decides whether a lease has ended."""

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
            self._insert(table, asdict(lease))
        except IntegrityError:  # somebody has it
            return self.lease(wanted.fleet) or self.acquire_lease(wanted, lasting)
        return lease

    def renew_lease(self, held: Holder, lasting: timedelta) -> bool:
        """Move our lease's end; False where the fleet is no longer ours. One that ended untaken is still ours."""
        return self._set_lease(Lease(held.fleet, held.owner, held.rollout, self.now() + lasting), _ours(held))

    def release_lease(self, held: Holder) -> None:
        """Give the fleet back, where it is still ours for this rollout."""
        self._change(delete(t.leases).where(t.leases.c.fleet == held.fleet, _ours(held)))

    def lease_lasts(self, held: Holder) -> bool | None:
        """Whether our lease lasts; False where it has ended and was not taken, None where the fleet is not ours."""
        lasts = (t.leases.c.until > t.Now()).label("lasts")
        rows = self._rows(select(lasts).where(t.leases.c.fleet == held.fleet, _ours(held)))
        return bool(rows[0].lasts) if rows else None

    def lease(self, fleet: str) -> Lease | None:
        """Who has the fleet, also where the lease has ended."""
        return next(iter(self._find(Lease, t.leases, fleet=fleet)), None)

    def give_command(self, given: CommandRow, detail: str = "") -> None:
        """Tell a rollout what to do, and write down who did."""
        line = AuditLine(given.at, given.actor, given.command, given.rollout, detail)
        with self._begin() as connection:
            connection.execute(insert(t.commands), asdict(given))
            connection.execute(insert(t.audit), asdict(line))

    def commands(self, rollout: str) -> tuple[CommandRow, ...]:
        """What a rollout was told, the newest last: that one stands."""
        return self._find(CommandRow, t.commands, t.commands.c.id, rollout=rollout)

    def _set_lease(self, wanted: Lease, allowed: ColumnElement[bool]) -> bool:
        """One conditional update: the database lets one of many at once have it."""
        change = update(t.leases).where(t.leases.c.fleet == wanted.fleet, allowed).values(**asdict(wanted))
        return self._change(change) == 1


def _ours(holder: Holder) -> ColumnElement[bool]:
    return and_(t.leases.c.owner == holder.owner, t.leases.c.rollout == holder.rollout)
