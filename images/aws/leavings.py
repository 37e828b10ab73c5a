"""What killed runs left: things that carry our tags and that no line of the ledger owns. Pure.

Everything that a publication makes is tagged with the day from which it may be removed; the tag goes when all is done.
What carries our tags without that day was published, if need be by another ledger, and is nothing to reap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Found:
    """One thing with our tags: a snapshot, a volume, an instance or an image. `reap_after` as its tag says."""

    account: str
    region: str
    kind: str
    id: str
    name: str
    reap_after: datetime | None

    @property
    def where(self) -> str:
        """How people tell it from others."""
        return f"{self.region}/{self.id}"


@dataclass(frozen=True)
class Reaping:
    """What becomes of one thing, and why."""

    found: Found
    remove: bool
    why: str


def decide(found: Found, *, state: str, users: Sequence[str], now: datetime) -> Reaping | None:
    """Whether a thing may go; None where it is no riddle, since the ledger owns it.

    `state` is that of its line in the ledger: standing, begun, or empty where there is none.
    """
    if state == "standing":
        return None
    if found.reap_after is None:
        return Reaping(found, False, "published, and not in this ledger: ./goldsmith image.rebuild reads it in")
    if now < found.reap_after:
        until = f"{found.reap_after:%Y-%m-%d %H:%M} UTC"
        what = "a run began it: the next one may go on with it" if state else "no line in the ledger owns it"
        return Reaping(found, False, f"{what}; to be removed from {until}")
    if users:
        return Reaping(found, False, f"{users[0]} still names it")
    return Reaping(found, True, "a killed run left it" if state else "no line in the ledger owns it")
