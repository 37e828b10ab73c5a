"""The simulated ledger: who holds the lease, what people want, and what was written down."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from images.ledger import Holder, Lease
from pipelines.durable.port import FencedError
from pipelines.rollout.state import DesiredState, Event, Journal, MemberState, OperatorCommands, RolloutState


class ViolationError(Exception):
    """A promise was broken: which one, and how."""

    def __init__(self, promise: str, how: str) -> None:
        super().__init__(f"{promise}: {how}")
        self.promise = promise


@dataclass
class Ledger:
    """What all processes share. `holder` is the process that has the lease, which ends at `until` by the one `clock`.

    Whoever is awake renews its lease in time: its end is a moment only once its holder sleeps or is dead.
    """

    holder: str = ""
    until: float = math.inf
    clock: Callable[[], float] = lambda: 0.0
    desired_state: DesiredState = DesiredState.GO
    approvals: int = 0
    state: RolloutState | None = None
    members: dict[str, MemberState] = field(default_factory=dict)
    audited: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def acquire_lease(self, wanted: Holder, lasting: timedelta) -> Lease:
        """Take the lease, where nobody has it or it has ended; the one that stands."""
        if self.holder in ("", wanted.owner) or self.until <= self.clock():
            self.holder, self.until = wanted.owner, math.inf
        return Lease(wanted.fleet, self.holder, wanted.rollout, datetime.max.replace(tzinfo=UTC))

    def renew_lease(self, held: Holder, lasting: timedelta) -> bool:
        """Let our lease last again; False where another one has it."""
        if self.holder != held.owner:
            return False
        self.until = math.inf
        return True

    def release_lease(self, held: Holder) -> None:
        """Give the lease back, where it is still ours."""
        if self.holder == held.owner:
            self.holder = ""


class SimulatedJournal(Journal):
    """The ledger as one process sees it."""

    def __init__(self, ledger: Ledger, process: str) -> None:
        self.ledger = ledger
        self.process = process

    def fence(self, rollout: str) -> None:
        if self.ledger.holder != self.process:
            raise FencedError(f"{self.ledger.holder} goes on with {rollout}")
        if self.ledger.until <= self.ledger.clock():
            self.ledger.until = math.inf  # it was not taken meanwhile: ours again

    def orders(self, rollout: str) -> OperatorCommands:
        return OperatorCommands(self.ledger.desired_state, self.ledger.approvals)

    def begin(self, state: RolloutState, members: Sequence[MemberState]) -> None:
        self._held("begin")
        self.ledger.state = state
        self.ledger.members = {member.id: member for member in members} | self.ledger.members

    def save(self, state: RolloutState) -> None:
        self._held(f"save {state.stage}")
        self.ledger.state = state

    def mark(self, rollout: str, member: MemberState) -> None:
        self._held(f"mark {member.name}")
        self.ledger.members[member.id] = member

    def audit(self, rollout: str, action: str, detail: str = "") -> None:
        self.ledger.audited.append(action)

    def notify(self, rollout: str, event: Event, text: str) -> None:
        self.ledger.events.append(event)

    def _held(self, what: str) -> None:
        if self.ledger.holder != self.process:
            raise ViolationError("one rollout at a time", f"{self.process} wrote {what!r} without the lease")
