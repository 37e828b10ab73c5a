"""The simulated ledger: who holds the lease, what people want, and what was written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.durable.port import FencedError
from pipelines.rollouts.journal import Event, Journal, Orders, Stance
from pipelines.rollouts.state import MemberState, RolloutState


class ViolationError(Exception):
    """A promise was broken: which one, and how."""

    def __init__(self, promise: str, how: str) -> None:
        super().__init__(f"{promise}: {how}")
        self.promise = promise


@dataclass
class Ledger:
    """What all processes share. `holder` is the process whose lease holds."""

    holder: str = ""
    stance: Stance = Stance.GO
    approvals: int = 0
    state: RolloutState | None = None
    members: dict[str, MemberState] = field(default_factory=dict)
    audited: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def acquire(self, process: str) -> bool:
        """Take the lease, where nobody has it. A dead holder's is taken over by its successor."""
        if self.holder:
            return False
        self.holder = process
        return True


class SimulatedJournal(Journal):
    """The ledger as one process sees it."""

    def __init__(self, ledger: Ledger, process: str) -> None:
        self.ledger = ledger
        self.process = process

    def fence(self, rollout: str) -> None:
        if self.ledger.holder != self.process:
            raise FencedError(f"{self.ledger.holder} goes on with {rollout}")

    def orders(self, rollout: str) -> Orders:
        return Orders(self.ledger.stance, self.ledger.approvals)

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
