"""What the flows at AWS pass to each other, as frozen values; and which blocks of a disk must be written. Pure.

All blocks are written the first time, afterwards those that differ from a parent's. Blocks that an encrypted snapshot
was never given read as random data, so a first upload leaves none out, whatever is in it. What a delta leaves out must
have been written by its parent: beyond the parent's end it leaves out nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from pathlib import Path

from images.artifact import Release
from images.machine.blocks import SIZE, ZERO, delta

GIB = 1 << 30
WORTH = 0.9  # a delta that writes more than this part of the blocks is a full upload that depends on a parent


@dataclass(frozen=True)
class MachineImage:
    """A built machine image: its raw disk, and the digest of each of the disk's blocks, one after the other.

    `linear` is the digest of those digests, `sha256:…`: the name of exactly this disk.
    """

    name: str
    content: str
    architecture: str
    linear: str
    digests: bytes = field(repr=False)
    size_bytes: int
    disk: Path

    @property
    def volume_gib(self) -> int:
        """The size of the volume that holds it, in GiB."""
        return -(-self.size_bytes // GIB)

    @property
    def blocks(self) -> int:
        """How many blocks its disk has."""
        return len(self.digests) // SIZE


@dataclass(frozen=True)
class Ami:
    """A registered image as a region shows it. `release` is what its tags say of it, None where they are not ours."""

    region: str
    id: str
    name: str
    state: str
    snapshots: tuple[str, ...]
    tags: dict[str, str] = field(default_factory=dict)
    release: Release | None = None
    deprecated_at: datetime | None = None
    launched_at: datetime | None = None
    source: str = ""

    @property
    def where(self) -> str:
        """How people tell it from others."""
        return f"{self.region}/{self.id}"


@dataclass(frozen=True)
class Parent:
    """A snapshot that a delta may be based on, with the digests of its disk's blocks."""

    snapshot: str
    linear: str
    digests: bytes = field(repr=False)
    volume_gib: int


def best_parent(machine: MachineImage, parents: Iterable[Parent]) -> Parent | None:
    """The parent that saves most of the upload, where that is worth it. One with a larger volume cannot be stood on."""
    deltas = [(len(blocks_on(machine, one)), one) for one in parents if one.volume_gib <= machine.volume_gib]
    written, best = min(deltas, key=itemgetter(0), default=(0, None))
    return best if 0 < written <= WORTH * machine.blocks else None


def blocks_on(machine: MachineImage, parent: Parent | None) -> tuple[int, ...]:
    """The indexes of the blocks to write, lowest first; every block where there is no parent.

    Those that differ from the parent's, and all beyond its end; zeros where the parent was longer.
    """
    if parent is None:
        return tuple(range(machine.blocks))
    longer = ZERO * (len(parent.digests) // SIZE - machine.blocks)
    return delta(parent.digests, machine.digests + longer)


def digests_at(digests: bytes, indexes: Iterable[int]) -> bytes:
    """The digests of some blocks, one after the other; a disk goes on with zeros."""
    return b"".join(digests[index * SIZE : (index + 1) * SIZE] or ZERO for index in indexes)
