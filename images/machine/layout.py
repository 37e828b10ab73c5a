"""Where the files of a tree are on its disk, so that a small change of the tree is a small change of the disk.

mke2fs takes the next free inode and the next free blocks for each entry, in the order in which it is given them. So the
order decides where everything lies, and whatever grows pushes all that follows. Therefore:

- All directories come first: their blocks hold inode numbers, and lie together.
- The files of one source package lie together, since they change together. A source belongs to one of a fixed number
  of sections by a hash of its name; within a section the larger ones come first.
- What no package owns changes most (`/var/lib/dpkg/status`): it comes last, by top-level directory.
- Each section starts at a multiple of fixed numbers of inodes and of blocks. Padding fills what is between; it is
  removed from the finished file system. What a section grows by comes out of the padding behind it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

FOUR_K = 4096
SECTIONS = 32
SECTION_BLOCKS = 1024  # a section starts at a multiple of 4 MiB
SECTION_INODES, FOLDER_INODES = 32, 256
INLINE_LINK = 60  # the target of a shorter symbolic link lies in its inode
FIRST_INODE = 13  # after the reserved ones, lost+found and the orphan file
PADDING = "lost+found"
PADDING_FOLDER_BLOCKS = 4  # as mke2fs makes it


@dataclass(frozen=True)
class Item:
    """A file of the tree: its path, what it takes on the disk in blocks of 4 KiB, and whether it is a directory.

    `extra_names` are its other hard links.
    """

    path: str
    blocks: int
    is_folder: bool = False
    extra_names: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All its paths, the first of them first."""
        return (self.path, *self.extra_names)


@dataclass(frozen=True)
class Padding:
    """A file that only fills space: its path, and its blocks."""

    path: str
    blocks: int


def arranged(items: Iterable[Item], owners: Mapping[str, str]) -> Iterator[Item | Padding]:
    """`items` and padding in the order in which to create them; `owners` is the source package of each path."""
    position = _Position()
    every = sorted(items, key=lambda item: item.path)
    folders, files = [i for i in every if i.is_folder], [i for i in every if not i.is_folder]
    yield from map(position.taken, folders)
    yield from position.padding(FOLDER_INODES)
    for section in _sections(files, owners):
        yield from map(position.taken, section)
        yield from position.padding(SECTION_INODES)


def _sections(files: Iterable[Item], owners: Mapping[str, str]) -> Iterator[list[Item]]:
    """`files` in groups that start at fixed places."""
    size: dict[str, int] = {}
    placed = [(owners.get(file.path, ""), file) for file in files]
    for owner, file in placed:
        size[owner] = size.get(owner, 0) + file.blocks

    def place(entry: tuple[str, Item]) -> tuple[int, str, int, str, str]:
        owner, file = entry
        if not owner:
            return SECTIONS, file.path.partition("/")[0], 0, "", file.path
        return zlib.crc32(owner.encode()) % SECTIONS, "", -size[owner].bit_length(), owner, file.path

    for _, group in groupby(sorted(placed, key=place), key=lambda entry: place(entry)[:2]):
        yield [file for _, file in group]


def owners(lists: Mapping[str, Sequence[str]], sources: Mapping[str, str]) -> dict[str, str]:
    """The source package of each path, without leading slash, given what each package lists and its source.

    Where several list a path (they share a directory), it is the first package's by name.
    """
    found: dict[str, str] = {}
    for package in sorted(lists):
        for path in lists[package]:
            found.setdefault(_merged(path.lstrip("/")), sources.get(package, package))
    return found


def _merged(path: str) -> str:
    """Where a path lies since /bin, /lib and /sbin are links into /usr."""
    return f"usr/{path}" if path.partition("/")[0] in {"bin", "lib", "lib64", "sbin"} else path


@dataclass
class _Folder:
    """How full a directory's blocks are: an entry goes into the first that has room, as libext2fs does it."""

    room: list[int] = field(default_factory=lambda: [FOUR_K - 12 - 24])  # checksum; `.` and `..`

    def added(self, name: str) -> int:
        """The blocks that the directory grows by for an entry `name`."""
        needed = (8 + len(name.encode("utf-8", "surrogateescape")) + 3) // 4 * 4
        for index, room in enumerate(self.room):
            if needed <= room:
                self.room[index] -= needed
                return 0
        self.room.append(FOUR_K - 12 - needed)
        return 1


class _Position:
    """How many inodes and blocks are taken so far."""

    def __init__(self) -> None:
        self.inodes, self.blocks, self.pads = FIRST_INODE - 1, 0, 0
        further = [FOUR_K - 12] * (PADDING_FOLDER_BLOCKS - 1)
        self.folders = {"": _Folder(), PADDING: _Folder([FOUR_K - 12 - 24, *further])}

    def taken(self, item: Item) -> Item:
        """Take what `item` needs."""
        if item.is_folder:
            self.folders[item.path] = _Folder()
        self.inodes += 1
        self.blocks += item.blocks + sum(map(self._entry, item.names))
        return item

    def padding(self, inodes: int) -> Iterator[Padding]:
        """Fill up to the next multiples; the first file takes the blocks."""
        missing = max(1, -self.inodes % inodes)
        names = [f"{PADDING}/{self.pads + number:04d}" for number in range(missing)]
        self.pads += missing
        self.inodes += missing
        self.blocks += sum(map(self._entry, names))
        blocks = -self.blocks % SECTION_BLOCKS
        self.blocks += blocks
        yield from (Padding(name, 0 if number else blocks) for number, name in enumerate(names))

    def _entry(self, path: str) -> int:
        folder, _, name = path.rpartition("/")
        return self.folders[folder].added(name)
