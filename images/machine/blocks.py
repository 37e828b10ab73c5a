"""A disk as blocks: their digests, the one digest over all of them, and which ones differ between two disks.

Blocks are those of EBS direct: 524,288 bytes, numbered from the start of the disk; a last one that is short counts as
filled up with zeros. The one digest is SHA-256 of the concatenated ones: EBS calls it the LINEAR checksum.
"""

from __future__ import annotations

import hashlib

BLOCK = 524_288
SIZE = 32
ZERO = hashlib.sha256(bytes(BLOCK)).digest()


def digest_of(block: bytes) -> bytes:
    """The raw SHA-256 of one block. Raises ValueError for one that is too long."""
    if len(block) > BLOCK:
        raise ValueError(f"a block has {BLOCK} bytes, not {len(block)}")
    return hashlib.sha256(block.ljust(BLOCK, b"\0")).digest()


def split(digests: bytes) -> list[bytes]:
    """The digest of each block. Raises ValueError for what is no list of digests."""
    if len(digests) % SIZE or not digests:
        raise ValueError(f"{len(digests)} bytes are not a list of block digests of {SIZE} bytes each")
    return [digests[start : start + SIZE] for start in range(0, len(digests), SIZE)]


def delta(parent: bytes, child: bytes) -> tuple[int, ...]:
    """The indexes of the child's blocks that are not the parent's, those that became zero among them.

    Whatever lies beyond the parent's end was never written there, so all of it counts, zeros too. Where the parent
    goes on after the child's end, its blocks there are not the child's and do not count.
    """
    old, new = split(parent), split(child)
    return tuple(index for index, digest in enumerate(new) if index >= len(old) or digest != old[index])
