"""The port to the ledger of a rollout under way: its lock, what people ask of it, and what it writes down. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pipelines.rollout.state import MemberState, RolloutState


class DesiredState(StrEnum):
    """What people want of a rollout by now. Pause and resume take turns; abort and rollback are final."""

    GO = "go"
    PAUSE = "pause"
    ABORT = "abort"
    ROLLBACK = "rollback"


@dataclass(frozen=True)
class OperatorCommands:
    """What people have asked so far: where it stands, and how often they have approved."""

    stance: DesiredState = DesiredState.GO
    approvals: int = 0


class Event(StrEnum):
    """What people are told of without asking."""

    STARTED = "started"
    PAUSED = "paused"
    APPROVAL = "approval"
    FAILED = "failed"
    ENDED = "ended"


class Journal(Protocol):
    """The ledger, as one process sees it. Everything is idempotent; a ledger that cannot be reached is an OutsideError.

    Only steps call it.
    """

    def fence(self, rollout: str) -> None:
        """Raises FencedError when this process does not hold the lease of the rollout's fleet any more."""

    def orders(self, rollout: str) -> OperatorCommands:
        """What people have asked of the rollout."""

    def begin(self, state: RolloutState, members: Sequence[MemberState]) -> None:
        """Write down a rollout with all its members."""

    def save(self, state: RolloutState) -> None:
        """Write down how far the rollout is."""

    def mark(self, rollout: str, member: MemberState) -> None:
        """Write down how far one member is."""

    def audit(self, rollout: str, action: str, detail: str = "") -> None:
        """Write down that something was done."""

    def notify(self, rollout: str, event: Event, text: str) -> None:
        """Tell people."""
