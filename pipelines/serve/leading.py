"""Edge: which of several `serve` on one database runs what is due: the one that holds a lease there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from secrets import token_hex

from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError
from hardening.foundation.timing import SINCE_BOOT
from images.ledger import Ledger
from images.ledger.tables import Holder
from pipelines.durable.workers import repeated

LEASE, RENEW_SECONDS = timedelta(seconds=60), 10.0
SERVE = "serve: which one runs nights"  # in the place of a fleet, whose name has no space


class Leadership:
    """Our part in that lease. `leads`: whether it is ours, as far as is known; not after a sleep that outlasted it."""

    def __init__(self, ledger: Ledger, actor: str) -> None:
        self._ledger = ledger
        self._ours = Holder(SERVE, f"{actor}:{os.getpid()}-{token_hex(3)}", SERVE)
        self._until = 0.0
        self._leader = ""

    @property
    def leads(self) -> bool:
        """Whether we run what is due."""
        return time.clock_gettime(SINCE_BOOT) < self._until

    def look(self) -> None:
        """Take the lease where it is free, or renew ours. While the ledger does not answer, nobody new gets it."""
        asked = time.clock_gettime(SINCE_BOOT)
        with suppress(OutsideError):
            leader = self._ledger.acquire_lease(self._ours, LEASE).owner
            self._until = asked + LEASE.total_seconds() if leader == self._ours.owner else 0.0
            if leader not in (self._leader, self._ours.owner):
                say(f"serve: {leader} runs the nights of this database; this one takes over when that ends")
            self._leader = leader

    @contextmanager
    def held(self) -> Iterator[None]:
        """Look now and every so often while the block runs; then give the lease back."""
        self.look()
        try:
            with repeated("leadership", self.look, RENEW_SECONDS):
                yield
        finally:
            with suppress(OutsideError):
                self._ledger.release_lease(self._ours)
