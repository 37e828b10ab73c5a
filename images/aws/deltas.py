"""Which blocks must be written: all of them the first time, afterwards those that differ from a parent's. Pure.

Blocks that an encrypted snapshot was never given read as random data, so a first upload leaves none out, whatever is in
it. What a delta leaves out must have been written by its parent: beyond the parent's end it leaves out nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from images.aws.model import MachineImage, Parent
from images.machine.blocks import SIZE, ZERO, delta

WORTH = 0.9  # a delta that writes more than this part of the blocks is a full upload that depends on a parent


@dataclass(frozen=True)
class Upload:
    """The indexes to write, lowest first, and the snapshot that they are a delta on, if any."""

    indexes: tuple[int, ...]
    parent: Parent | None = None


def plan_upload(machine: MachineImage, parents: Iterable[Parent]) -> Upload:
    """The upload that writes the fewest blocks. A parent whose volume is larger cannot be stood on."""
    full = whole(machine)
    deltas = [delta_on(machine, parent) for parent in parents if parent.volume_gib <= machine.volume_gib]
    best = min(deltas, key=lambda upload: len(upload.indexes), default=full)
    return best if 0 < len(best.indexes) <= WORTH * len(full.indexes) else full


def whole(machine: MachineImage) -> Upload:
    """Every block."""
    return Upload(tuple(range(count(machine.digests))))


def delta_on(machine: MachineImage, parent: Parent) -> Upload:
    """The blocks that differ from the parent's, and all beyond its end; zeros where the parent was longer."""
    child = with_zeros(machine.digests, count(parent.digests))
    return Upload(delta(parent.digests, child), parent)


def count(digests: bytes) -> int:
    """How many blocks they are of."""
    return len(digests) // SIZE


def digests_at(digests: bytes, indexes: Sequence[int]) -> bytes:
    """The digests of some blocks, one after the other."""
    return b"".join(digests[index * SIZE : (index + 1) * SIZE] for index in indexes)


def with_zeros(digests: bytes, blocks: int) -> bytes:
    """`digests` of a disk as if it went on with zeros up to so many blocks."""
    return digests + ZERO * max(0, blocks - count(digests))
