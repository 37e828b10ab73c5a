"""Untrusted tars: one member at a time, within limits, each path as its own root would see it."""

from __future__ import annotations

import re
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from hardening.foundation import limits
from hardening.foundation.errors import OutsideError
from hardening.foundation.limits import Counted, Meter

# How many directories are remembered while a layer is unpacked, so that not each of its files looks for its own again.
FOLDERS = 10_000
# tarfile copies what it holds at every read and write: large buffers are slower than none. It has no say in the bytes.
BUFFER = 1 << 15


class Within:
    """Paths below `root` as such a process sees them: no link and no `..` leads out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.known: dict[str, Path] = {"": root}

    def place(self, name: str) -> Path:
        """Where `name` belongs; links among its parents are followed inside, its last part is not."""
        parts = [part for part in name.split("/") if part not in {"", "."}]
        if not parts:
            return self.root
        if ".." in parts:  # engines leave `a/..` out before they look where `a` leads
            raise OutsideError(f"a layer holds the path {name}, which climbs out of its directory")
        return self._folder("/".join(parts[:-1])) / parts[-1]

    def _folder(self, name: str) -> Path:
        if name not in self.known:
            if len(self.known) > FOLDERS:
                self.known = {"": self.root}
            self.known[name] = self._resolve(self.root, name.split("/"), 40)
        return self.known[name]

    def _resolve(self, at: Path, parts: list[str], links_left: int) -> Path:
        for index, part in enumerate(parts):
            if part in {"", "."}:
                continue
            if part == "..":
                at = at.parent if at != self.root else at
                continue
            step = at / part
            if step.is_symlink():
                if not links_left:
                    raise OutsideError(f"a layer holds a loop of links at {part}")
                target = str(step.readlink())
                start = self.root if target.startswith("/") else at
                return self._resolve(start, [*target.split("/"), *parts[index + 1 :]], links_left - 1)
            at = step
        return at

    def holds(self, folder: Path) -> bool:
        """Whether `folder`, placed before, is a directory still, reached by no link that was put there since."""
        return folder.is_dir() and folder.resolve() == self.root.resolve() / folder.relative_to(self.root)

    def remove(self, path: Path) -> None:
        """Remove what is at `path`, if anything."""
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode):
            shutil.rmtree(path)
        else:
            path.unlink()
        if not stat.S_ISREG(mode):
            self.forget()

    def forget(self) -> None:
        """Look for each folder again: a link or a folder that leads to it was made or removed."""
        self.known = {"": self.root}


ATTRIBUTE = "SCHILY.xattr."
PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
GNU_LONG = {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
COMMENT = b"comment"
NEVER_EMPTY = (b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime")
"""What tarfile reads as nothing where it is empty, and others then take from the plain header."""
NUMBERS = ((100, 108), (108, 116), (116, 124), (124, 136), (136, 148), (148, 156), (329, 337), (337, 345))
"""Where in a header mode, owner, group, size, time, checksum and the numbers of a device stand."""
MAGIC, PREFIX, STAR = slice(257, 263), slice(345, 500), slice(508, 512)
USTAR = b"ustar\0"
EXTENDED = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, *PAX)
RECORD = re.compile(rb"(\d{1,6}) [^=\n]{1,256}=")
DIGITS = re.compile(rb"\d{256}")  # tarfile's own expressions take a time that grows with the square of such a run
OVERHEAD = 100
"""About how many bytes of memory a kept attribute takes besides its name and value."""


def _ambiguous(block: bytes) -> str:
    """Why programs differ in what a header says: tarfile here, Go's archive/tar in engines; empty where they agree."""
    for start, end in NUMBERS:
        field = block[start:end]
        ours, theirs = field.partition(b"\0")[0].strip(), field.strip(b"\0 ").partition(b"\0")[0]
        if field[:1] < b"\x80" and ours != theirs:
            return "a number begins with a zero byte"
    if block[MAGIC] != USTAR and block[156:157] != tarfile.GNUTYPE_SPARSE and any(block[PREFIX]):
        return "a path of two parts in a form that has none"
    return "a header in the form of star" if block[MAGIC] == USTAR and block[STAR] == b"tar\0" else ""


class Allowance:
    """How much more the tars of one image (`what`) may take, all of them together."""

    def __init__(self, what: str) -> None:
        self.bytes = Meter(limits.IMAGE_BYTES, what)
        self.members = Meter(limits.IMAGE_MEMBERS, what)


class ReaderBudget:
    """How much more memory one reader may take: members and their names, of one tar or of several at once."""

    def __init__(self, what: str) -> None:
        self.members = Meter(limits.LAYER_MEMBERS, what)
        self.names = Meter(limits.LAYER_NAMES, what)


class _Again:
    """A file whose next read gives `data`, which was read from it already."""

    def __init__(self, data: bytes, file: IO[bytes]) -> None:
        self.data = data
        self.file = file
        self.tell = file.tell
        self.seek = file.seek

    def read(self, size: int) -> bytes:
        """`data` once, then what the file has."""
        data, self.data = self.data, b""
        return data or self.file.read(size)


class _Member(tarfile.TarInfo):
    """A member's header. `_proc_member` is where tarfile lets subclasses in."""

    __slots__ = ("flag",)

    @classmethod
    def fromtarfile(cls, tar: Any) -> Any:
        """The next header. What is none ends the tar for tarfile, and is an error to others: so it is here."""
        try:
            return super().fromtarfile(tar)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tar.damaged(str(error)) from None

    @classmethod
    def frombuf(cls, buf: Any, *arguments: Any) -> Any:
        """The header in the block `buf`, where it says the same to every program."""
        return cls._agreed(buf, super().frombuf, *arguments)

    @classmethod
    def _frombuf(cls, buf: Any, *arguments: Any, **more: Any) -> Any:
        """The same, which later releases of Python call in its place."""
        return cls._agreed(buf, super()._frombuf, *arguments, **more)  # type: ignore[misc]

    @staticmethod
    def _agreed(block: bytes, read: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        if why := _ambiguous(block):
            raise tarfile.InvalidHeaderError(why)  # type: ignore[attr-defined]
        made = read(block, *arguments, **more)
        made.flag = block[156:157]
        return made

    def _proc_member(self, tar: Tar) -> tarfile.TarInfo:
        """Refuse sparse files in every form."""
        if not hasattr(self, "flag"):
            raise tar.damaged("this release of Python reads headers in a way that is not known here")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tar.sparse(self.name)
        if self.type in EXTENDED:
            return self._extended(tar)
        if tar.extended and self.flag == tarfile.AREGTYPE:  # whether it is a directory hangs on which name is looked at
            raise tar.damaged("a member of the oldest form has an extended header")
        tar.extended = b""
        return self._usual(tar)

    def _extended(self, tar: Tar) -> tarfile.TarInfo:
        """Count an extended header before it is read, and read it only where it says the same to every program.

        Of several about one member some go by the first and others by the last.
        """
        if tar.extended and (self.type in tar.extended or {self.type, tar.extended} != GNU_LONG):
            raise tar.damaged("several extended headers about one member")
        tar.extended = b"" if self.type == tarfile.XGLTYPE else tar.extended + self.type
        tar.headers.add(self.size + tarfile.BLOCKSIZE)
        file: Any = tar.fileobj
        block = file.read(-(-self.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
        said = block[: self.size]
        if any(block[self.size :]):  # tarfile reads on there
            raise tar.damaged("an extended header is longer than it says")
        if self.type in PAX:
            tar.require_records(said, COMMENT if self.type == tarfile.XGLTYPE else b"")
        elif not said.strip(b"\0"):
            raise tar.damaged("an extended header says nothing where it must")
        tar.fileobj = _Again(block, file)
        try:
            return self._usual(tar)
        finally:
            tar.fileobj = file

    def _usual(self, tar: Tar) -> tarfile.TarInfo:
        found: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return found


class Tar(tarfile.TarFile):
    """A tar of `what` whose members are counted as they are met. They are forgotten again unless `kept` is given."""

    tarinfo = _Member
    fileobj: Any
    members: list[tarfile.TarInfo]

    def __init__(
        self, *arguments: Any, what: str, allowance: Allowance, kept: ReaderBudget | None = None, **more: Any
    ) -> None:
        self.what = what
        self.forgets = kept is None
        self.kept = kept or ReaderBudget(what)
        self.headers = Meter(limits.LAYER_HEADER, what)
        self.extended = b""
        self.of_image = allowance.members
        super().__init__(*arguments, **more)

    def sparse(self, name: str) -> OutsideError:
        """The error for a sparse member."""
        return OutsideError(f"{self.what} holds the sparse file {name!r}, which would unpack to more than it carries")

    def damaged(self, why: str) -> OutsideError:
        """The error for what is no header, or one that programs read in more than one way."""
        return OutsideError(f"{self.what} cannot be unpacked: {why}")

    def require_records(self, header: bytes, only: bytes = b"") -> None:
        """Raises OutsideError where the pax `header` is no row of records, describes a sparse file, or has a record
        that programs read in more than one way; or any but `only`.
        """
        position, size = 0, len(header.rstrip(b"\0"))
        while position < size:
            found = RECORD.match(header, position)
            end = position + int(found[1]) if found else 0
            if not found or not found.end() < end <= size or header[end - 1] != ord("\n"):
                raise self.damaged("a damaged extended header")
            key = found[0].partition(b" ")[2][:-1]
            if key.startswith(b"GNU.sparse."):
                raise self.sparse(found[0].decode(errors="replace"))
            if only and key != only:
                raise self.damaged("it says something of all members, which some programs leave out")
            if key in NEVER_EMPTY and found.end() == end - 1:
                raise self.damaged("an extended header says nothing where it must")
            position = end
        if DIGITS.search(header):
            raise OutsideError(f"{self.what} holds an extended header with a number of more than 256 digits")

    def next(self) -> tarfile.TarInfo | None:
        """The next member, or None at the end. Raises OutsideError for a member that is over a limit."""
        if self.firstmember is not None:  # type: ignore[attr-defined]
            return super().next()  # met and counted before
        self.headers.used = 0
        try:
            info = super().next()
        except tarfile.TarError as error:
            raise self.damaged(str(error)) from None
        if info is not None:
            self._count(info)
        if self.forgets:
            self.members = []
        return info

    def _count(self, info: tarfile.TarInfo) -> None:
        """Count a member, and drop of it what no reader of ours wants."""
        self.of_image.add(1)
        self.kept.members.add(1)
        info.uname = info.gname = ""
        info.pax_headers = {key: value for key, value in info.pax_headers.items() if key.startswith(ATTRIBUTE)}
        for name in (info.name, info.linkname):
            limits.LAYER_PATH.require(len(name), f"a path in {self.what}")
            self.kept.names.add(len(name))
        for key, value in info.pax_headers.items():
            self.kept.names.add(len(key) + len(value) + OVERHEAD)
        limits.LAYER_DEPTH.require(info.name.count("/"), f"a path in {self.what}")


@contextmanager
def members(stream: IO[bytes], what: str, packed_size: int) -> Iterator[Tar]:
    """The members of an uncompressed tar stream, whose packed form has `packed_size` bytes, one after the other."""
    allowance = Allowance(what)
    counted = Counted(stream, ratio(packed_size, what), allowance.bytes)
    with Tar.open(fileobj=counted, mode="r|", bufsize=BUFFER, what=what, allowance=allowance) as tar:  # type: ignore[call-overload]
        yield tar


def ratio(packed_size: int, what: str) -> Meter:
    """Counts what unpacks from `packed_size` bytes."""
    most = max(limits.LAYER_RATIO_FROM, limits.LAYER_RATIO.most * packed_size)
    return Meter(replace(limits.LAYER_RATIO, most=most, of="bytes, a multiple of the packed size"), what)
