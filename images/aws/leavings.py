"""What killed runs left: things that carry our tags and that a line of the ledger says a run began. Pure.

Everything that a publication makes is tagged with the day from which it may be removed; the tag goes when all is done.
Anyone who may tag can write such a tag onto anything. So a tag shows a thing, and only a line of the ledger lets it go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Found:
    """One thing with our tags: a snapshot, a volume, an instance or an image. `reap_after` as its tag says.

    `token` is what it was made by and keeps for good: an image's name, the last word of a snapshot's description.
    """

    account: str
    region: str
    kind: str
    id: str
    name: str
    reap_after: datetime | None
    token: str = ""

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
    if not state:
        return Reaping(found, False, "it has our tags and no line in this ledger: remove it by hand if it is yours")
    if now < found.reap_after:
        until = f"{found.reap_after:%Y-%m-%d %H:%M} UTC"
        return Reaping(found, False, f"a run began it: the next one may go on with it; to be removed from {until}")
    if users:
        return Reaping(found, False, f"{users[0]} still names it")
    return Reaping(found, True, "a killed run left it")
