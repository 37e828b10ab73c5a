"""An initrd in pieces that change separately: one newer library must not change all compressed bytes.

The kernel takes any number of cpio archives, plain or compressed, one after the other, with zeros between them
(https://docs.kernel.org/driver-api/early-userspace/buffer-format.html).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import zstandard

MAGIC, HEADER = b"070701", 110  # "newc": the magic, then 13 numbers of 8 hexadecimal digits
ZSTD = b"\x28\xb5\x2f\xfd"
TRAILER = "TRAILER!!!"
SLOT = 256 << 10  # each piece ends at a multiple of it
LARGE = 512 << 10  # a file of this size is a piece of its own
REGULAR, KINDS = 0o100000, 0o170000
UNNEEDED = {"usr/lib/udev/hwdb.bin"}  # names of hardware for people to read: 40 % of what mounts one disk
LEVEL = 3


@dataclass(frozen=True)
class CpioEntry:
    """An entry of a cpio archive, with all its bytes. `stands_alone`: a file that no hard link ties to others."""

    name: str
    size: int
    stands_alone: bool
    raw: bytes


def repacked(initrd: bytes) -> bytes:
    """The same files in pieces, each in a slot: what was not compressed, all small files, and each large file.

    Raises ValueError for what is no initrd of plain archives and one that is compressed with zstd.
    """
    plain, packed = read(initrd)
    large = [member for member in packed if member.stands_alone and member.size >= LARGE]
    small = [member for member in packed if member not in large]
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    pieces = [_archive(plain)]
    pieces += [compressor.compress(_archive(group)) for group in (small, *([one] for one in large))]
    return b"".join(piece.ljust(_up(len(piece), SLOT), b"\0") for piece in pieces)


def read(initrd: bytes) -> tuple[list[CpioEntry], list[CpioEntry]]:
    """The entries that lie plain in an initrd, and those that are compressed; the unneeded left out.

    Raises ValueError.
    """
    plain: list[CpioEntry] = []
    packed: list[CpioEntry] = []
    position = 0
    while position < len(initrd):
        if initrd[position] == 0:
            position = len(initrd) - len(initrd[position:].lstrip(b"\0"))
        elif initrd[position : position + 4] == ZSTD:
            unpacker = zstandard.ZstdDecompressor().decompressobj()
            archive = unpacker.decompress(initrd[position:])
            position = len(initrd) - len(unpacker.unused_data)
            packed += _members(archive, 0)[0]
        else:
            found, position = _members(initrd, position)
            plain += found
    return plain, packed


def _members(archive: bytes, position: int) -> tuple[list[CpioEntry], int]:
    """The entries of the cpio archive at `position` without the trailer, and where that ends."""
    found: list[CpioEntry] = []
    while True:
        member, position = _member(archive, position)
        if member.name == TRAILER:
            return found, position
        if member.name not in UNNEEDED:
            found.append(member)


def _member(archive: bytes, start: int) -> tuple[CpioEntry, int]:
    header = archive[start : start + HEADER]
    if header[:6] != MAGIC or len(header) < HEADER:
        raise ValueError(f"neither a cpio archive nor compressed with zstd at byte {start}: {header[:6]!r}")
    number = [int(header[6 + 8 * index : 14 + 8 * index], 16) for index in range(13)]
    mode, links, size, name_size = number[1], number[4], number[6], number[11]
    name = archive[start + HEADER : start + HEADER + name_size - 1].decode("utf-8", "surrogateescape")
    # Header and name together, and the content, are each filled up to four bytes.
    end = start + _up(_up(HEADER + name_size, 4) + size, 4)
    return CpioEntry(name, size, mode & KINDS == REGULAR and links == 1, archive[start:end]), end


def _archive(members: Iterable[CpioEntry]) -> bytes:
    numbers = [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, len(TRAILER) + 1, 0]
    trailer = MAGIC + b"".join(b"%08X" % number for number in numbers) + TRAILER.encode() + b"\0"
    return b"".join(member.raw for member in members) + trailer.ljust(_up(len(trailer), 4), b"\0")


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
