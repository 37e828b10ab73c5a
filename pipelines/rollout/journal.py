"""The ports to the ledger of a rollout: the fleet's lease, what people ask of it, and what it writes down. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from hardening.foundation.errors import RefusedError
from pipelines.rollout.state import MemberState, RolloutState

if TYPE_CHECKING:
    from images.ledger.fleets import Holder, Lease


class DesiredState(StrEnum):
    """What people want of a rollout by now. Pause and resume take turns; abort and rollback are final."""

    GO = "go"
    PAUSE = "pause"
    ABORT = "abort"
    ROLLBACK = "rollback"


@dataclass(frozen=True)
class OperatorCommands:
    """What people have asked so far: where it stands, and how often they have approved."""

    desired_state: DesiredState = DesiredState.GO
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


# -- who may act on a fleet: whoever has its lease, and has it because the owner before gave it back or is dead --------

LEASE = timedelta(seconds=60)


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


def take(leases: LeaseStore, wanted: Holder, lasting: timedelta = LEASE, *, alone: bool) -> Lease:
    """The fleet's lease. Raises HeldError naming the owner where another process has the fleet.

    To be called by a process that can go on at once: a lease in the hands of one that cannot keeps everybody out.
    `alone`: we hold the lock that only one living process can have, so the owner that the lease names is dead.
    """
    held = leases.acquire_lease(wanted, lasting)
    if alone and held.owner != wanted.owner:
        leases.release_lease(held)
        held = leases.acquire_lease(wanted, lasting)
    if held.owner != wanted.owner:
        raise HeldError(
            f"{wanted.fleet} is being rolled by {held.owner} ({held.rollout}), whose lease lasts until "
            f"{held.until:%Y-%m-%d %H:%M:%S} UTC",
            hint=f"./goldsmith roll.status {wanted.fleet} shows it; a dead owner's lease ends, and roll.start goes on",
        )
    return held


def renew(leases: LeaseStore, held: Holder, lose: Callable[[], None], lasting: timedelta = LEASE) -> bool:
    """Move the end of our lease. Where another process has the fleet by now, `lose` ends what this one does: False."""
    kept = leases.renew_lease(held, lasting)
    if not kept:
        lose()
    return kept
