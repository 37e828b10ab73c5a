"""Carries a fleet's rollout to its end: its lease, the engine, and what an earlier process left unfinished. Edge."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from secrets import token_hex

from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, OutsideError, RefusedError, UsageError
from images.documents import from_json, to_json
from images.ledger import Ledger
from images.ledger.leases import Lease
from pipelines.durable.dbos import Worker, engine_url, idle
from pipelines.durable.port import Flow, Json
from pipelines.fleet.model import FleetKind
from pipelines.fleet.together import together
from pipelines.roll.desk import Desk
from pipelines.roll.journal import LEASE, LedgerJournal
from pipelines.roll.judging import PresentJudge
from pipelines.roll.notify import notifier
from pipelines.roll.underway import view
from pipelines.rollouts.delegated import GroupWorld
from pipelines.rollouts.groups import GROUPS, group_flows
from pipelines.rollouts.orders import World, one_by_one
from pipelines.rollouts.run import ROLLOUT, flows
from pipelines.rollouts.state import Outcome, RolloutState, Stage

RENEW_SECONDS = 10.0


class SteadyClock:
    """Real time that never jumps: it starts at the given moment and goes on with the machine's monotonic clock."""

    def __init__(self, start: datetime) -> None:
        self._start = start
        self._began = time.monotonic()

    def now(self) -> datetime:
        """The present moment."""
        return self._start + timedelta(seconds=time.monotonic() - self._began)


def carry_out(at: Desk, order: Json) -> Outcome:
    """Carry an Order or a GroupsOrder (JSON) to its end, from wherever an earlier process left it.

    Raises RefusedError naming the owner where somebody else rolls the fleet, and OutsideError. A rollout that failed,
    and is back as it was, is no error here: its Outcome says so.
    """
    rollout = str(order["rollout"])
    ledger, url = at.context.ledger, engine_url(at.context.settings.database_url, at.fleet.name)
    with _leased(ledger, at.fleet.name, rollout, f"{at.context.actor}:{os.getpid()}-{token_hex(3)}", url) as lease:
        if ledger.rollout(rollout) is None:
            ledger.begin_rollout(rollout, at.fleet.name, lease.owner, order, at.now())
        say(f"{rollout} is carried from here; ./goldsmith roll.status {at.fleet.name} --watch shows it")
        now = SteadyClock(at.now()).now
        with Worker.launched(url, _flows(at, lease, now), kind=at.fleet.name, now=now) as worker:
            try:
                return from_json(Outcome, worker.carry(GROUPS if "groups" in order else ROLLOUT, rollout, order))
            except Exception as error:
                if worker.broke_off(rollout):
                    raise _broken_off(at, rollout, error) from error
                raise


def _broken_off(at: Desk, rollout: str, error: Exception) -> GoldsmithError:
    """Write down that a rollout is over which can never be carried to its end, so that the fleet can be rolled anew."""
    row = at.context.ledger.rollout(rollout)
    said = f"{rollout} broke off: {error.message if isinstance(error, GoldsmithError) else error}"
    if row and row.open:
        target = view(at.context, row).replacement
        state = from_json(RolloutState, row.state) if row.state else None
        begun = state or RolloutState(rollout, row.fleet, target, row.begun_at, 0)
        ended = replace(begun, stage=Stage.ENDED, note=said, failure=said, ended_at=at.now())
        at.context.ledger.save_rollout(rollout, to_json(ended), at.now(), is_open=False)
        at.context.ledger.audit(at.now(), at.context.actor, "roll", row.fleet, said)
    hint = (
        f"./goldsmith roll.status {at.fleet.name} shows how far each member came, ./goldsmith roll.reap what is left; "
        f"then ./goldsmith roll.start {at.fleet.name} plans anew"
    )
    return (OutsideError if isinstance(error, OutsideError) else UsageError)(said, hint=hint)


def go_on(at: Desk) -> tuple[Outcome, ...]:
    """Carry the rollouts that earlier processes left unfinished to their end. Raises as `carry_out` does."""
    ended = []
    for row in at.context.ledger.open_rollouts(at.fleet.name):
        say(f"{at.fleet.name}: the rollout {row.id} is not over; going on with it")
        ended.append(carry_out(at, row.order))
        say(f"{row.id} is over: {ended[-1].state.failure or ended[-1].state.note}")
    return tuple(ended)


def _flows(at: Desk, lease: Lease, now: Callable[[], datetime]) -> Mapping[str, Flow]:
    """What a process carries of this fleet: its members, and the groups that a service rolls."""
    journal = LedgerJournal(at.context.ledger, lease, at.context.actor, now, notifier(at.context.settings))
    many = together if at.fleet.kind is FleetKind.DOCKER else one_by_one
    world = World(at.members, journal, PresentJudge(at), now, many)
    members = flows(lambda _fleet: world)
    if at.groups is None:
        return members
    groups = GroupWorld(at.groups, journal, world.judge)
    return {**members, **group_flows(lambda _fleet: groups, now)}


@contextmanager
def _leased(ledger: Ledger, fleet: str, rollout: str, owner: str, url: str) -> Iterator[Lease]:
    """Hold the fleet for the block, renewing its lease. Raises RefusedError where somebody else has it."""
    lease = _taken(ledger, Lease(fleet, owner, rollout, datetime.now(UTC) + LEASE), url)
    over = threading.Event()

    def renew() -> None:
        while not over.wait(RENEW_SECONDS):
            try:
                ledger.renew_lease(replace(lease, until=datetime.now(UTC) + LEASE))
            except OutsideError as error:  # until the lease ends nothing is lost; after that, nothing is done
                say(f"the lease of {fleet} could not be renewed: {error.message}")

    renewing = threading.Thread(target=renew, name="lease", daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        over.set()
        renewing.join()
        ledger.release_lease(lease)


def _taken(ledger: Ledger, wanted: Lease, url: str) -> Lease:
    """The lease. An owner whose engine nobody runs any more is dead, and its lease is nobody's."""
    held = ledger.acquire_lease(wanted, datetime.now(UTC))
    if held.owner != wanted.owner and idle(url):
        ledger.release_lease(held)
        held = ledger.acquire_lease(wanted, datetime.now(UTC))
    if held.owner != wanted.owner:
        raise RefusedError(
            f"{wanted.fleet} is being rolled by {held.owner} ({held.rollout}), whose lease lasts until "
            f"{held.until:%Y-%m-%d %H:%M:%S} UTC",
            hint=f"./goldsmith roll.status {wanted.fleet} shows it; a dead owner's lease ends, and roll.start goes on",
        )
    return held
