"""Raw disks as files: their blocks, read without reading holes, and the same disk as qcow2."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hardening.foundation.errors import OutsideError
from hardening.foundation.process import run
from images.machine import blocks
from images.store.files import room_on

HASHERS = 2  # hashing releases the interpreter's lock
CONVERT_HINT = "Debian's package qemu-utils has qemu-img; ./goldsmith setup --machines installs it"


def digests_of(disk: Path) -> bytes:
    """The SHA-256 of every block of a raw disk, concatenated. Holes cost nothing: their digest is known."""
    with disk.open("rb") as file, ThreadPoolExecutor(HASHERS) as pool:
        descriptor = file.fileno()
        count = _count(descriptor)
        found = [blocks.ZERO] * count
        written = list(_written(descriptor, count))
        hashed = pool.map(lambda index: blocks.digest_of(_block(descriptor, index)), written)
        for index, digest in zip(written, hashed, strict=True):
            found[index] = digest
    return b"".join(found)


def read_blocks(disk: Path, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """Each index with its block's 524,288 bytes, one at a time in the order asked for.

    Raises OutsideError for an index beyond the disk's end.
    """
    with disk.open("rb") as file:
        count = _count(file.fileno())
        for index in indexes:
            if not 0 <= index < count:
                raise OutsideError(f"{disk} has {count} blocks, and no block {index}")
            yield index, _block(file.fileno(), index)


def convert_to_qcow2(disk: Path, target: Path) -> None:
    """Write the raw `disk` as a compressed qcow2 image; whole or not at all. Raises OutsideError."""
    part = target.with_name(f".{target.name}.part")
    options = ["-f", "raw", "-O", "qcow2", "-c", "-m", "1", "-o", "compat=1.1,compression_type=zlib"]
    try:
        with room_on(target.parent):
            run(["qemu-img", "convert", *options, str(disk), str(part)], hint=CONVERT_HINT)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _count(descriptor: int) -> int:
    return -(-os.fstat(descriptor).st_size // blocks.BLOCK)


def _block(descriptor: int, index: int) -> bytes:
    return os.pread(descriptor, blocks.BLOCK, index * blocks.BLOCK).ljust(blocks.BLOCK, b"\0")


def _written(descriptor: int, count: int) -> Iterator[int]:
    """The blocks that are not wholly a hole."""
    position, size = 0, blocks.BLOCK
    while position < count * size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        first, last = max(start, position) // size, -(-end // size)
        yield from range(first, last)
        position = last * size
