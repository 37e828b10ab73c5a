"""What rollouts launched and nothing owns any more: found by labels and tags, shown, removed after its lease. Pure.

Everything that a rollout launches carries its name, the member's and an expiry. The expiry is void as soon as it has
become the member; a rollout that is not over owns what it launched, whatever the expiry says. Anyone who may tag can
write all of that onto anything: a rollout that the ledger does not know removes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from pipelines.fleet.members import BACK, REHEARSAL


@dataclass(frozen=True)
class Orphan:
    """One thing that a rollout launched, or kept, and that is no member. `held`: why it stays whatever its lease says.

    `where` is the engine, or `account/region`.
    """

    where: str
    kind: str
    id: str
    name: str
    rollout: str
    expiry: datetime | None
    held: str = ""


@dataclass(frozen=True)
class Reaping:
    """What becomes of one thing, and why."""

    orphan: Orphan
    remove: bool
    why: str


class OwnerStatus(Enum):
    """What the ledger says of a rollout."""

    OPEN = "open"
    OVER = "over"
    UNKNOWN = "unknown"


class OrphanSource(Protocol):
    """A place where rollouts launch things. One that cannot be read raises OutsideError: what is there is unknown."""

    def orphans(self) -> tuple[Orphan, ...]:
        """All that carries a rollout's name and is no member, what stands on others first."""

    def remove(self, orphan: Orphan) -> None:
        """Remove one thing, if it is still there."""


def owner_of(rollout: str) -> str:
    """The rollout in whose name something was launched on its way there or back, or for a rehearsal."""
    return rollout.removesuffix(REHEARSAL).removesuffix(BACK)


def decide(orphan: Orphan, standing: Callable[[str], OwnerStatus], now: datetime) -> Reaping | None:
    """Whether a thing may go; None where a rollout that is not over owns it. `standing` asks the ledger."""
    said = {standing(rollout) for rollout in (orphan.rollout.removesuffix(REHEARSAL), owner_of(orphan.rollout))}
    if OwnerStatus.OPEN in said:
        return None
    if orphan.held:
        return Reaping(orphan, False, orphan.held)
    if OwnerStatus.OVER not in said:
        return Reaping(orphan, False, f"this ledger knows no rollout {orphan.rollout}: its tags may be anyone's")
    if orphan.expiry is None:
        return Reaping(orphan, False, f"{orphan.rollout} launched it, and its expiry is gone: remove it by hand")
    if now < orphan.expiry:
        until = f"{orphan.expiry:%Y-%m-%d %H:%M} UTC"
        return Reaping(orphan, False, f"no rollout owns it; to be removed from {until}")
    return Reaping(orphan, True, f"{orphan.rollout} launched it and is over")
