"""A tree as an ext4 file system inside a disk, bit for bit the same wherever and whenever it is made.

mke2fs reads a tar in our order, so that `images.machine.layout` decides where all lies. No mount, no loop device.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO

from hardening.foundation.errors import OutsideError
from hardening.foundation.process import Completed, dies_with_us, pipe_to, run
from images.machine.layout import FOUR_K, INLINE_LINK, Item, Padding, arranged, owners
from images.packages import debian
from images.store import layers
from images.store.layers import Entry

LABEL = "root"
ZEROS = bytes(FOUR_K)
EXTENTS_IN_INODE, EXTENTS_IN_BLOCK = 4, 340
# One file system, one identity: were they different, every checksum in its metadata would be.
UUID, HASH_SEED = "6d2f1c1e-8a52-4c0c-9a1b-0f3c7a9a51d1", "4f1a4d5e-6e0c-4a3b-9a0e-2f8f6f5c1d11"
# When every file system was made, 2025-01-01: a date of its own would change each inode.
MADE = {"SOURCE_DATE_EPOCH": "1735689600"}
# What the running system fills, and what the kernel image on the other partition holds already.
ABSENT = ("dev/", "proc/", "run/", "sys/", "tmp/", "var/tmp/", "boot/initrd.img-")
BUFFER = 1 << 17
HINT = "Debian's packages e2fsprogs and libarchive13t64 make file systems; ./goldsmith setup --machines installs them"


@dataclass(frozen=True)
class FilePlacement:
    """Where a file system is: in which file, from which byte, and its size in bytes."""

    disk: Path
    start: int
    size: int

    @property
    def device(self) -> str:
        """As debugfs names it."""
        return f"{self.disk}?offset={self.start}"


class Contents:
    """What part of a tree goes into the image, hard links beside the file that they link to."""

    def __init__(self, tree: Path) -> None:
        self.entries: dict[str, Entry] = {}
        self.links: dict[str, list[Entry]] = {}
        for info, opened in layers.tree_entries(tree):
            if info.name.startswith(ABSENT):
                continue
            if info.islnk():
                self.links.setdefault(info.linkname, []).append((info, None))
            else:
                self.entries[info.name] = (info, opened)
        names = {path: tuple(link.name for link, _ in links) for path, links in self.links.items()}
        items = (
            Item(path, _blocks(info, opened), info.isdir(), names.get(path, ()))
            for path, (info, opened) in self.entries.items()
        )
        self.order = list(arranged(items, _owners(tree)))

    @property
    def size_bytes(self) -> int:
        """What the files take, padding included, and their inodes."""
        return sum(one.blocks * FOUR_K + 256 for one in self.order)


def write(contents: Contents, place: FilePlacement, epoch: int, work: Path) -> None:
    """Write `contents` as an ext4 file system to its place; times after `epoch` become it. Raises OutsideError."""
    options = f"offset={place.start},hash_seed={HASH_SEED},nodiscard,lazy_itable_init=1,root_owner=0:0"
    identity = ["-L", LABEL, "-U", UUID, "-b", str(FOUR_K), "-E", options]
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", *identity, "-d", "-", str(place.disk), f"{place.size // 1024}k"]
    pipe_to(dies_with_us(argv), lambda sink: _write_archive(contents, sink, epoch), env=MADE, hint=HINT)
    remove_padding([one for one in contents.order if isinstance(one, Padding)], place, work)


def _write_archive(contents: Contents, file: IO[bytes], epoch: int) -> None:
    with tarfile.open(fileobj=file, mode="w|", bufsize=BUFFER, format=tarfile.PAX_FORMAT, copybufsize=1 << 20) as tar:  # type: ignore[call-overload]
        for one in contents.order:
            if isinstance(one, Padding):
                info = tarfile.TarInfo(one.path)
                info.size = one.blocks * FOUR_K
                tar.addfile(info, io.BytesIO(b"\1" * info.size))
                continue
            for info, opened in (contents.entries[one.path], *contents.links.get(one.path, ())):
                info.mtime = min(int(info.mtime), epoch)
                if not (info.name + info.linkname).isascii():  # else mke2fs refuses what its locale cannot spell
                    info.pax_headers = {"hdrcharset": "BINARY", **info.pax_headers}
                layers.add_entry(tar, info, opened)


def remove_padding(padding: list[Padding], place: FilePlacement, work: Path) -> None:
    """Remove the padding from the file system, and what it wrote from the disk. Raises OutsideError."""
    script = work / "remove"
    asked = [f"stat /{one.path}\n" for one in padding if one.blocks]
    script.write_text("".join([*asked, *(f"rm /{one.path}\n" for one in padding)]))
    argv = dies_with_us(["debugfs", "-w", "-f", str(script), place.device])
    done = run(argv, env=MADE, hint=HINT)
    if complaints := done.stderr.splitlines()[1:]:  # after the line that tells its version; its exit status is always 0
        raise OutsideError("debugfs could not finish the file system", evidence="\n".join(complaints[:20]), hint=HINT)
    with place.disk.open("r+b") as disk:
        for first, last in _extents(done):
            disk.seek(place.start + first * FOUR_K)
            disk.write(ZEROS * (last - first + 1))


def _extents(done: Completed) -> list[tuple[int, int]]:
    """First and last block of each extent that debugfs's `stat` printed: `(0-99):4711-4810, (100):4900`."""
    found = re.findall(r"\((?:\d+)(?:-\d+)?\):(\d+)(?:-(\d+))?", done.stdout)
    return [(int(first), int(last or first)) for first, last in found]


def _blocks(info: tarfile.TarInfo, opened: Callable[[], IO[bytes]] | None) -> int:
    """The blocks that an entry takes. Reads files: what is sparse in them is found by looking."""
    if info.isdir():
        return 1
    if info.issym():
        return int(len(info.linkname.encode()) >= INLINE_LINK)
    if opened is None:
        return 0
    with opened() as file:
        return blocks_of(file.read())


def blocks_of(content: bytes) -> int:
    """The blocks that a file takes: mke2fs leaves out those of zeros, and lists many pieces in blocks of their own."""
    whole = -(-len(content) // FOUR_K)
    if ZEROS not in content and content[(whole - 1) * FOUR_K :].strip(b"\0"):
        return whole
    filled = [bool(content[start : start + FOUR_K].strip(b"\0")) for start in range(0, len(content), FOUR_K)]
    extents = sum(is_filled for is_filled, _ in groupby(filled))
    return sum(filled) + (-(-extents // EXTENTS_IN_BLOCK) if extents > EXTENTS_IN_INODE else 0)


def _owners(tree: Path) -> dict[str, str]:
    """The source package of each path, by what dpkg knows."""
    dpkg = tree / "var/lib/dpkg"
    lists = {path.stem: path.read_text().splitlines() for path in sorted((dpkg / "info").glob("*.list"))}
    status = dpkg / "status"
    fields = [debian.fields(stanza) for stanza in debian.stanzas(status.read_text())] if status.is_file() else []
    sources = {one["Package"]: one.get("Source", one["Package"]).split()[0] for one in fields}
    return owners(lists, {name: sources.get(name.split(":")[0], name) for name in lists})
