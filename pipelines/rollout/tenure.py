"""Who may act on a fleet: whoever has its lease, and has it because the owner before gave it back or is dead. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from hardening.foundation.errors import RefusedError

if TYPE_CHECKING:
    from images.ledger.leases import Holder, Lease

LEASE = timedelta(seconds=60)


class Leases(Protocol):
    """The leases of fleets. One database's clock says when a lease ends."""

    def acquire_lease(self, wanted: Holder, lasting: timedelta) -> Lease:
        """Take a fleet whose lease has ended, or that has none; the lease that stands."""

    def renew_lease(self, held: Holder, lasting: timedelta) -> bool:
        """Move our lease's end; False where the fleet is no longer ours."""

    def release_lease(self, held: Holder) -> None:
        """Give the fleet back, where it is still ours."""


def take(leases: Leases, wanted: Holder, lasting: timedelta = LEASE, *, alone: bool) -> Lease:
    """The fleet's lease. Raises RefusedError naming the owner where another process has the fleet.

    To be called by a process that can go on at once: a lease in the hands of one that cannot keeps everybody out.
    `alone`: we hold the lock that only one living process can have, so the owner that the lease names is dead.
    """
    held = leases.acquire_lease(wanted, lasting)
    if alone and held.owner != wanted.owner:
        leases.release_lease(held)
        held = leases.acquire_lease(wanted, lasting)
    if held.owner != wanted.owner:
        raise RefusedError(
            f"{wanted.fleet} is being rolled by {held.owner} ({held.rollout}), whose lease lasts until "
            f"{held.until:%Y-%m-%d %H:%M:%S} UTC",
            hint=f"./goldsmith roll.status {wanted.fleet} shows it; a dead owner's lease ends, and roll.start goes on",
        )
    return held


def renew(leases: Leases, held: Holder, lose: Callable[[], None], lasting: timedelta = LEASE) -> bool:
    """Move the end of our lease. Where another process has the fleet by now, `lose` ends what this one does: False."""
    kept = leases.renew_lease(held, lasting)
    if not kept:
        lose()
    return kept
