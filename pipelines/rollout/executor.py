"""Carries a fleet's rollout to its end: its lease, the engine, and what an earlier process left unfinished. Edge."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from secrets import token_hex

import requests

from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, OutsideError, RefusedError, UsageError
from images.documents import from_json, to_json
from images.ledger import Holder, Lease, Ledger
from pipelines.durable.dbos import Claim, Worker, claimed, engine_url
from pipelines.durable.port import Flow
from pipelines.durable.workers import LostError
from pipelines.fleet.docker.inventory import together
from pipelines.fleet.members import Member, ReplacementImage
from pipelines.fleet.model import FleetKind
from pipelines.rollout.flow import ROLLOUT, flows
from pipelines.rollout.journal import LEASE, HeldError, renew, take
from pipelines.rollout.ledger_journal import LedgerJournal
from pipelines.rollout.notify import notifier
from pipelines.rollout.orders import MemberOrder, Order, World, one_by_one, ordered
from pipelines.rollout.refusals import refuse_target, why_not
from pipelines.rollout.rollout_store import view
from pipelines.rollout.session import FleetSession
from pipelines.rollout.state import RolloutOutcome, RolloutStage, RolloutState


class SteadyClock:
    """Real time that never jumps: it starts at the given moment and goes on with the machine's monotonic clock."""

    def __init__(self, start: datetime) -> None:
        self._start = start
        self._began = time.monotonic()

    def now(self) -> datetime:
        """The present moment."""
        return self._start + timedelta(seconds=time.monotonic() - self._began)


def execute(at: FleetSession, order: Order) -> RolloutOutcome:
    """Carry an order to its end, from wherever an earlier process left it.

    Raises HeldError naming the owner where somebody else rolls the fleet, and OutsideError, also as soon as another
    process has the fleet. A rollout that failed, and is back as it was, is no error here: its Outcome says so.
    """
    rollout, written, ledger = order.rollout, to_json(order), at.context.ledger
    wanted = Holder(at.fleet.name, f"{at.context.actor}:{os.getpid()}-{token_hex(3)}", rollout)
    with leased(ledger, at.context.settings.database_url, wanted) as tenure:
        if ledger.rollout(rollout) is None:
            ledger.begin_rollout(rollout, at.fleet.name, wanted.owner, written, at.now())
        say(f"rollout {rollout} runs in this process; ./goldsmith roll.status {at.fleet.name} --watch shows it")
        now = SteadyClock(at.now()).now
        with Worker.launched(tenure.claim, _flows(at, tenure.lease, now), kind=at.fleet.name, now=now) as worker:
            tenure.when_lost(worker.lose)
            try:
                answer = worker.execute(ROLLOUT, rollout, written)
            except LostError:
                raise tenure.lost() from None
            except Exception as error:
                if worker.broke_off(rollout):
                    raise _broken_off(at, rollout, error) from error
                raise
            if not tenure.keeps():  # it was ended by the one that has the fleet now, and is that one's to tell
                raise tenure.lost()
            return from_json(RolloutOutcome, answer)


def _broken_off(at: FleetSession, rollout: str, error: Exception) -> GoldsmithError:
    """Write down that a rollout is over which can never be carried to its end, so that the fleet can be rolled anew."""
    row = at.context.ledger.rollout(rollout)
    said = f"{rollout} broke off: {error.message if isinstance(error, GoldsmithError) else error}"
    if row and row.open:
        target = view(at.context, row).replacement
        state = from_json(RolloutState, row.state) if row.state else None
        begun = state or RolloutState(rollout, row.fleet, target, row.begun_at, 0)
        ended = replace(begun, stage=RolloutStage.ENDED, note=said, failure=said, ended_at=at.now())
        at.context.ledger.save_rollout(rollout, to_json(ended), at.now(), is_open=False)
        at.context.ledger.audit(at.now(), at.context.actor, "roll", row.fleet, said)
    hint = (
        f"./goldsmith roll.status {at.fleet.name} shows how far each member came, ./goldsmith roll.reap what is left; "
        f"then ./goldsmith roll.start {at.fleet.name} makes a new plan"
    )
    return (OutsideError if isinstance(error, OutsideError) else UsageError)(said, hint=hint)


def go_on(at: FleetSession) -> tuple[RolloutOutcome, ...]:
    """Carry the rollouts that earlier processes left unfinished to their end. Raises as `execute` does."""
    ended = []
    for row in at.context.ledger.open_rollouts(at.fleet.name):
        say(f"{at.fleet.name}: the rollout {row.id} is not over; going on with it")
        ended.append(execute(at, ordered(row.order)))
        say(f"{row.id} is over: {ended[-1].state.failure or ended[-1].state.note}")
    return tuple(ended)


def _flows(at: FleetSession, lease: Lease, now: Callable[[], datetime]) -> Mapping[str, Flow]:
    """What a process carries of this fleet."""
    journal = LedgerJournal(at.context.ledger, lease, at.context.actor, now, notifier(at.context.settings))
    many = together if at.fleet.kind is FleetKind.DOCKER else one_by_one
    world = World(at.members, journal, PresentJudge(at), now, many, at.groups)
    return flows(world)


ASK_SECONDS = 5
ADDRESSES = ("http://", "https://")


# -- judging again, right before a rollout acts -----------------------------------------------------------------------


@dataclass(frozen=True)
class PresentJudge:
    """Judges by today's policy, waivers, ledger and registry."""

    at: FleetSession

    def left_alone(self, order: MemberOrder, member: Member) -> str:
        """Why the member is left alone after all; empty when it is to be replaced."""
        one = self.at.judge([member])[0]
        if not one.violations:
            return "it is waived by now" if one.reasons else "it no longer violates"
        return why_not(self.at.fleet, one, order.target, self.at.now(), order.adopt)

    def refuse(self, target: ReplacementImage) -> None:
        """Raises RefusedError as soon as the replacement must not run any more."""
        refuse_target(self.at.fleet, self.at.origins().again(target), self.at.now())

    def alarms(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the alarms that are firing; one that cannot be asked fires."""
        named = [name for name in names if not name.startswith(ADDRESSES)]
        fired = self.at.firing(named) if named else ()
        return tuple(name for name in names if (name in fired if name in named else _fires(name)))


def _fires(address: str) -> bool:
    try:
        return not requests.get(address, timeout=ASK_SECONDS).ok
    except requests.RequestException:
        return True


RENEW_SECONDS = 10.0


# -- holding a fleet: the engine's lock first, then the lease, which a thread renews ----------------------------------


class Tenure:
    """One process's hold of a fleet. It ends when the lease is found in other hands, and then for good."""

    def __init__(self, ledger: Ledger, claim: Claim, lease: Lease) -> None:
        self.claim = claim
        self.lease = lease
        self._ledger = ledger
        self._lost = threading.Event()
        self._over = threading.Event()
        self._tell: Callable[[], None] = lambda: None

    def when_lost(self, tell: Callable[[], None]) -> None:
        """Call `tell` as soon as the lease is lost, from whatever thread finds that; at once where it is lost."""
        self._tell = tell
        if self._lost.is_set():
            tell()

    def keeps(self) -> bool:
        """Whether the fleet is still ours; its lease then lasts anew."""
        return not self._lost.is_set() and renew(self._ledger, self.lease, self._lose, LEASE)

    def lost(self) -> OutsideError:
        """What there is to say when the fleet is in other hands."""
        ours, fleet = self.lease, self.lease.fleet
        present = self._ledger.lease(fleet)
        has = f"{present.owner} has it now, for {present.rollout}" if present else "no process has it now"
        return LostError(
            f"this process ({ours.owner}) has lost the lease of {fleet} and stopped {ours.rollout} here: {has}",
            hint=f"./goldsmith roll.status {fleet} shows the rollout; where no process executes it, ./goldsmith "
            f"roll.start {fleet} --apply goes on. Was this machine asleep, or without the database, for longer than "
            f"{LEASE.total_seconds():g} seconds?",
        )

    def _lose(self) -> None:
        self._lost.set()
        self._tell()

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the lease while the block runs, and give it back afterwards."""
        thread = threading.Thread(target=self._keep_renewing, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
            self._ledger.release_lease(self.lease)

    def _keep_renewing(self) -> None:
        kept = True
        while kept and not self._over.wait(RENEW_SECONDS):
            try:
                kept = self.keeps()
            except OutsideError as error:  # until the lease ends nothing is lost; after that, nothing is done
                say(f"the lease of {self.lease.fleet} could not be renewed: {error.message}")


@contextmanager
def leased(ledger: Ledger, database: str, wanted: Holder) -> Iterator[Tenure]:
    """Hold the fleet for the block, ready to carry its flows. Raises HeldError naming who else has it.

    The lock comes first: whoever has a lease but not the lock keeps everybody out, and cannot go on itself.
    """
    with _claimed(ledger, engine_url(database, wanted.fleet), wanted) as claim:
        tenure = Tenure(ledger, claim, take(ledger, wanted, LEASE, alone=claim.locks.alone))
        with tenure.renewed():
            yield tenure


@contextmanager
def _claimed(ledger: Ledger, url: str, wanted: Holder) -> Iterator[Claim]:
    """The engine's lock. Who is refused it is told who has it, as far as the ledger knows."""
    entered = False
    try:
        with claimed(url) as claim:
            entered = True
            yield claim
    except RefusedError as error:
        held = None if entered else ledger.lease(wanted.fleet)
        if held is None:
            raise
        raise HeldError(
            f"{wanted.fleet} is being rolled by {held.owner} ({held.rollout}), whose process lives on this machine",
            evidence=error.message,
            hint=f"./goldsmith roll.status {wanted.fleet} shows it. A process that was suspended goes on when it is "
            "continued; one that hangs must be ended: its lock ends with it, and roll.start goes on",
        ) from None
