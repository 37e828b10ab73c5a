"""What rollouts launched and nothing owns any more: found by labels and tags, shown, removed after its lease. Pure.

Everything that a rollout launches carries its name, the member's and an expiry. The expiry is void as soon as it has
become the member; a rollout that is not over owns what it launched, whatever the expiry says. What belongs to a member
that needs a person may be all of it that serves, and stays. Anyone who may tag can write all of that onto anything: a
rollout that the ledger does not know removes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from pipelines.fleet.members import BACK, REHEARSAL


@dataclass(frozen=True)
class Orphan:
    """One thing that a rollout launched, or kept, and that is not a member. `held`: why it stays whatever its lease.

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
    """What happens to one thing, and why."""

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


def decide(
    orphan: Orphan,
    status_of: Callable[[str], OwnerStatus],
    failed: Callable[[str], Collection[str]],
    now: datetime,
) -> Reaping | None:
    """Whether a thing may go; None where a rollout that is not over owns it.

    `status_of` asks the ledger for a rollout, `failed` for the ids and names of its members that need a person.
    """
    owners = dict.fromkeys((orphan.rollout.removesuffix(REHEARSAL), owner_of(orphan.rollout)))
    found = {status_of(rollout) for rollout in owners}
    if OwnerStatus.OPEN in found:
        return None
    if OwnerStatus.OVER not in found:
        return Reaping(orphan, False, f"this ledger knows no rollout {orphan.rollout}: its tags may be anyone's")
    if held := orphan.held or _needs_person(orphan, owners, failed):
        return Reaping(orphan, False, held)
    if orphan.expiry is None:
        return Reaping(orphan, False, f"{orphan.rollout} launched it, and its expiry is gone: remove it by hand")
    if now < orphan.expiry:
        until = f"{orphan.expiry:%Y-%m-%d %H:%M} UTC"
        return Reaping(orphan, False, f"no rollout owns it; to be removed from {until}")
    return Reaping(orphan, True, f"{orphan.rollout} launched it and is over")


def _needs_person(orphan: Orphan, owners: Iterable[str], failed: Callable[[str], Collection[str]]) -> str:
    """Why a thing stays that was launched for a member that needs a person; empty for those of any other.

    A tag holds the id of that member; a container is called by its name and the rollout.
    """
    member = orphan.name.removesuffix(f".{orphan.rollout}")
    owner = next((one for one in owners if member in failed(one)), "")
    return f"{member} needs a person since {owner}, and this may be what serves: remove it by hand" if owner else ""
