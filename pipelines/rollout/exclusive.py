"""Edge: one process at a time does something that must not be done twice at once, by a lease of the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from secrets import token_hex

from images.ledger import Holder, Ledger


@contextmanager
def alone(ledger: Ledger, what: str, actor: str, lasting: timedelta) -> Iterator[bool]:
    """Whether no other process does `what` meanwhile; of one that died, `lasting` has to pass.

    `what` is more than one word, so that no fleet's lease is meant.
    """
    holder = Holder(what, actor, ours := token_hex(8))
    try:
        yield ledger.acquire_lease(holder, lasting).rollout == ours
    finally:
        ledger.release_lease(holder)
