"""Edge: holds a fleet for one rollout: the engine's lock first, then the lease, which a thread renews."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError, RefusedError
from images.ledger import Holder, Lease, Ledger
from pipelines.durable.dbos import Claim, claimed, engine_url
from pipelines.durable.workers import LostError
from pipelines.rollout.tenure import LEASE, renew, take

RENEW_SECONDS = 10.0


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
    """Hold the fleet for the block, ready to carry its flows. Raises RefusedError naming who else has it.

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
        raise RefusedError(
            f"{wanted.fleet} is being rolled by {held.owner} ({held.rollout}), whose process lives on this machine",
            evidence=error.message,
            hint=f"./goldsmith roll.status {wanted.fleet} shows it. A process that was suspended goes on when it is "
            "continued; one that hangs must be ended: its lock ends with it, and roll.start goes on",
        ) from None
