"""Edge: the ledger as one process sees it that carries a fleet's rollout; and what people ask of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from hardening.foundation.console import say
from hardening.foundation.retrying import retrying
from images.documents import to_json
from images.ledger import Ledger
from images.ledger.fleets import Lease
from pipelines.durable.port import FencedError
from pipelines.rollout.journal import LEASE, DesiredState, Event, OperatorCommands
from pipelines.rollout.notify import Message
from pipelines.rollout.state import MemberState, RolloutStage, RolloutState
from pipelines.rollout.status import doing

T = TypeVar("T")
PATIENCE = timedelta(minutes=10)  # the engine waits for a database without end; one broken for good must be told of
STEP = "step: "  # how the audit calls what a rollout did to one member


class Command(StrEnum):
    """What people tell a rollout."""

    PAUSE = "pause"
    RESUME = "resume"
    APPROVE = "approve"
    ABORT = "abort"
    ROLLBACK = "rollback"


STANCES = {Command.PAUSE: DesiredState.PAUSE, Command.RESUME: DesiredState.GO}
FINAL = {Command.ABORT: DesiredState.ABORT, Command.ROLLBACK: DesiredState.ROLLBACK}


def orders(commands: Sequence[str]) -> OperatorCommands:
    """What people want by now, of all that they said in that order: of what is final, the first stands."""
    said = [Command(command) for command in commands]
    final = next((FINAL[command] for command in said if command in FINAL), None)
    stances = [STANCES[command] for command in said if command in STANCES]
    return OperatorCommands(final or (stances[-1] if stances else DesiredState.GO), said.count(Command.APPROVE))


@dataclass(frozen=True)
class LedgerJournal:
    """The ledger for the holder of `lease`. `now` is what the ledger's lines are dated by.

    A ledger that does not answer is waited for: the database that restarts under a rollout is no failure of it.
    """

    ledger: Ledger
    lease: Lease
    actor: str
    now: Callable[[], datetime]
    tell: Callable[[Message], None]

    def fence(self, rollout: str) -> None:
        """Raises FencedError when this process does not hold the lease of the rollout's fleet any more."""
        ours = replace(self.lease, rollout=rollout)
        lasts = _patiently(lambda: self.ledger.lease_lasts(ours))
        # One that has just ended may be taken at any moment: it must be ours again before anything is done.
        if lasts is None or not (lasts or _patiently(lambda: self.ledger.renew_lease(ours, LEASE))):
            raise FencedError

    def orders(self, rollout: str) -> OperatorCommands:
        """What people have asked of the rollout."""
        return orders([given.command for given in _patiently(lambda: self.ledger.commands(rollout))])

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
        """Write down how far one member is."""
        _patiently(lambda: self.ledger.save_member(rollout, member.id, to_json(member)))

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
