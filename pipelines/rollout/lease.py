"""Edge: one process's hold of a fleet: the engine's lock, the lease, and the ledger as its holder writes it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError, RefusedError
from hardening.foundation.retrying import retrying
from images.documents import to_json
from images.ledger import Holder, Lease, Ledger, MemberRun
from pipelines.durable.port import FencedError
from pipelines.durable.workers import LostError, repeated
from pipelines.fleet.members import BACK, ReplacementImage
from pipelines.rollout.notify import Message
from pipelines.rollout.rollout_store import commands_of
from pipelines.rollout.state import STEP, Event, MemberState, OperatorCommands, Phase, RolloutStage, RolloutState, doing

if TYPE_CHECKING:
    from pipelines.durable.dbos import Claim

# -- the lease: its owner may act on the fleet; the next owner gets it when this one gives it back or dies -------------

LEASE = timedelta(seconds=60)
RENEW_SECONDS = 10.0
PATIENCE = timedelta(minutes=10)  # for the ledger: one that stays away for longer must be reported
T = TypeVar("T")


class HeldError(RefusedError):
    """Another process is rolling the fleet."""


class LeaseStore(Protocol):
    """The leases of fleets. One database's clock says when a lease ends."""

    def acquire_lease(self, wanted: Holder, lasting: timedelta) -> Lease:
        """Take a fleet whose lease has ended, or that has none; the lease that stands."""

    def renew_lease(self, held: Holder, lasting: timedelta) -> bool:
        """Move our lease's end; False where the fleet is no longer ours."""

    def release_lease(self, held: Holder) -> None:
        """Give the fleet back, where it is still ours."""


def take(leases: LeaseStore, wanted: Holder, *, alone: bool) -> Lease:
    """The fleet's lease. Raises HeldError naming the owner where another process has the fleet.

    To be called by a process that can go on at once: a lease in the hands of one that cannot keeps everybody out.
    `alone`: we hold the lock that only one living process can have, so the owner that the lease names is dead.
    """
    held = leases.acquire_lease(wanted, LEASE)
    if alone and held.owner != wanted.owner:
        leases.release_lease(held)
        held = leases.acquire_lease(wanted, LEASE)
    if held.owner != wanted.owner:
        who = f"{held.owner} ({held.rollout}), whose lease lasts until {held.until:%Y-%m-%d %H:%M:%S} UTC"
        hint = f"./goldsmith roll.status {wanted.fleet} shows it; a dead owner's lease ends, and roll.start continues"
        raise HeldError(f"{wanted.fleet} is being rolled by {who}", hint=hint)
    return held


def renew(leases: LeaseStore, held: Holder, lose: Callable[[], None]) -> bool:
    """Move the end of our lease. False, after a call of `lose`, if another process has the fleet."""
    kept = leases.renew_lease(held, LEASE)
    if not kept:
        lose()
    return kept


# -- the ledger as the holder of the lease writes it -------------------------------------------------------------------


@dataclass(frozen=True)
class LedgerJournal:
    """The ledger for the holder of `lease`. `now` is what the ledger's lines are dated by.

    A ledger that does not answer is waited for: the database that restarts under a rollout is no failure of it.
    `target` is what the rollout replaces members by, where what they run is to be written down.
    """

    ledger: Ledger
    lease: Lease
    actor: str
    now: Callable[[], datetime]
    tell: Callable[[Message], object]
    target: ReplacementImage | None = None

    def fence(self, rollout: str) -> None:
        """Raises FencedError when this process does not hold the lease of the rollout's fleet any more."""
        ours = replace(self.lease, rollout=rollout)
        lasts = _patiently(lambda: self.ledger.lease_lasts(ours))
        # One that has just ended may be taken at any moment: it must be ours again before anything is done.
        if lasts is None or not (lasts or _patiently(lambda: self.ledger.renew_lease(ours, LEASE))):
            raise FencedError

    def orders(self, rollout: str) -> OperatorCommands:
        """What people have asked of the rollout."""
        return _patiently(lambda: commands_of(self.ledger, rollout))

    def begin(self, state: RolloutState, members: Sequence[MemberState]) -> None:
        """Write down a rollout with all its members."""
        self._write(state)
        for member in members:
            self.mark(state.id, member)

    def save(self, state: RolloutState) -> None:
        """Write down how far the rollout is, and say it; its end is an audit line too, and its caller's to say."""
        self._write(state)
        if state.stage is RolloutStage.ENDED:
            self._audit("roll", state.fleet, state.failure or f"{state.id}: {state.note}")
        else:
            say(f"{state.fleet}: {doing(state.stage, state.wave, state.waves, state.note)}")

    def mark(self, rollout: str, member: MemberState) -> None:
        """Write down how far one member is, and what it runs since then, where that changed; say its wait."""
        if member.phase is Phase.REPLACING and member.note:
            say(f"{member.name}: {member.note}")
        _patiently(lambda: self.ledger.save_member(rollout, member.id, to_json(member)))
        if self.target and member.phase in (Phase.SERVING, Phase.NEW, Phase.OLD) and not member.pinned.startswith("{"):
            _patiently(partial(self._record_run, rollout, member, self.target))

    def _record_run(self, rollout: str, member: MemberState, target: ReplacementImage) -> None:
        """Of a group, whose pin is JSON, the next check tells what its members run.

        On the way back the new instance is the old version, and what is pinned is the target.
        """
        ledger, fleet, new = self.ledger, self.lease.fleet, target.golden.content if target.golden else ""
        went_back = member.phase is Phase.OLD or member.pinned.endswith(f"@{target.digest}")
        before = ledger.member_runs(fleet, member.name)[-1:]
        ours = rollout.removesuffix(BACK), rollout
        if went_back and not (before and before[0].content == new and before[0].told_by in ours):
            return  # it never ran the new version, or ran it before this rollout
        content = ledger.last_content(fleet, member.name, but=new) if went_back else new
        ledger.record_run(MemberRun(fleet, member.name, content, gone=False, told_by=rollout, at=self.now()))

    def audit(self, rollout: str, action: str, detail: str = "") -> None:
        """Write down that something was done."""
        self._audit(f"{STEP}{action}", rollout, detail)

    def _write(self, state: RolloutState) -> None:
        is_open = state.stage is not RolloutStage.ENDED
        _patiently(lambda: self.ledger.save_rollout(state.id, to_json(state), self.now(), is_open=is_open))

    def _audit(self, action: str, subject: str, detail: str) -> None:
        _patiently(lambda: self.ledger.audit(self.now(), self.actor, action, subject, detail))

    def notify(self, rollout: str, event: Event, text: str) -> None:
        """Tell people."""
        self.tell(Message(event, self.lease.fleet, rollout, text, self.now()))


def _patiently(call: Callable[[], T]) -> T:
    return retrying(call, within=PATIENCE, attempts=None)


# -- holding a fleet: the lock of the workflow engine first, then the lease, which a thread renews ---------------------


class Tenure:
    """One process's hold of a fleet. It ends when the lease is found in other hands, and then for good."""

    def __init__(self, ledger: Ledger, claim: Claim, lease: Lease) -> None:
        self.claim = claim
        self.lease = lease
        self._ledger = ledger
        self._lost = threading.Event()
        self._tell: Callable[[], None] = lambda: None

    def when_lost(self, tell: Callable[[], None]) -> None:
        """Call `tell` as soon as the lease is lost, from whatever thread finds that; at once where it is lost."""
        self._tell = tell
        if self._lost.is_set():
            tell()

    def keeps(self) -> bool:
        """Whether the fleet is still ours; its lease is then renewed."""
        return not self._lost.is_set() and renew(self._ledger, self.lease, self._lose)

    def lost(self) -> OutsideError:
        """What there is to say when the fleet is in other hands."""
        ours, fleet = self.lease, self.lease.fleet
        present = self._ledger.lease(fleet)
        has = f"{present.owner} has it now, for {present.rollout}" if present else "no process has it now"
        return LostError(
            f"this process ({ours.owner}) has lost the lease of {fleet} and stopped {ours.rollout} here: {has}",
            hint=f"./goldsmith roll.status {fleet} shows the rollout; if no process executes it, ./goldsmith "
            f"roll.start {fleet} --apply goes on. Was this machine asleep, or without the database, for longer than "
            f"{LEASE.total_seconds():g} seconds?",
        )

    def _lose(self) -> None:
        self._lost.set()
        self._tell()

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the lease while the block runs, and give it back afterwards."""
        try:
            with repeated("lease", self._renew, RENEW_SECONDS):
                yield
        finally:
            try:
                self._ledger.release_lease(self.lease)
            except OutsideError as error:  # what came of the rollout stands
                say(f"the lease of {self.lease.fleet} could not be given back, and ends by itself: {error.message}")

    def _renew(self) -> None:
        try:
            self.keeps()
        except OutsideError as error:  # until the lease ends nothing is lost; after that, nothing is done
            say(f"the lease of {self.lease.fleet} could not be renewed: {error.message}")


@contextmanager
def leased(ledger: Ledger, database: str, wanted: Holder) -> Iterator[Tenure]:
    """Hold the fleet for the block, ready to execute its flows. Raises HeldError naming who else has it, as far as the
    ledger knows.

    The lock comes first: a process with the lease but without the lock would keep others out and could not go on.
    """
    from pipelines.durable.dbos import claimed, engine_url  # only here: it takes a third of a second to load

    with ExitStack() as stack:
        try:
            claim = stack.enter_context(claimed(engine_url(database, wanted.fleet)))
        except RefusedError as error:
            if (held := ledger.lease(wanted.fleet)) is None:
                raise
            who = f"{held.owner} ({held.rollout}), whose process lives on this machine"
            raise HeldError(
                f"{wanted.fleet} is being rolled by {who}",
                evidence=error.message,
                hint=f"./goldsmith roll.status {wanted.fleet} shows it. A process that was suspended goes on when it "
                "is continued; one that hangs must be ended: its lock ends with it, and roll.start goes on",
            ) from None
        tenure = Tenure(ledger, claim, take(ledger, wanted, alone=claim.locks.alone))
        with tenure.renewed():
            yield tenure
