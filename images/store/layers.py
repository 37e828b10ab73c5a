"""Layers as bytes: writes them deterministically, and unpacks them without leaving their directory."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, cast

from hardening.foundation.errors import FULL, OutsideError
from hardening.foundation.limits import LAYER_WINDOW, SMALL_FILE, Counted, Meter, read_all
from images.store.tars import ATTRIBUTE, BUFFER, Allowance, Tar, Within, ratio

# Level and threads decide the bytes, as the library's version does, which pyproject.toml pins.
LEVEL, THREADS = 3, 2

WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
OVERLAYS_OWN = "trusted.overlay."  # by these attributes overlayfs hides and moves files
LOOKS = 5  # at an image of which some places are asked for: a link to another folder takes one more

# An entry of a layer, and how to open its content if it has any.
Entry = tuple[tarfile.TarInfo, Callable[[], IO[bytes]] | None]


class Hashing:
    """A binary sink that passes its input on and hashes it."""

    def __init__(self, sink: Any) -> None:
        self.sink = sink
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Pass `data` on."""
        self.hash.update(data)
        self.sink.write(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back here."""

    @property
    def digest(self) -> str:
        """The digest of all that was written."""
        return f"sha256:{self.hash.hexdigest()}"


def write(entries: Iterable[Entry], file: IO[bytes], epoch: int) -> tuple[str, str]:
    """Write `entries`, already in order, to `file` as tar+zstd; returns its digest and the uncompressed one (diff id).

    Times newer than `epoch` (seconds) become `epoch`; owners are numbers; nothing else of this machine shows.
    """
    import zstandard

    compressed = Hashing(file)
    with zstandard.ZstdCompressor(level=LEVEL, threads=THREADS).stream_writer(compressed, closefd=False) as stream:  # type: ignore[arg-type]
        plain = Hashing(stream)
        with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT, bufsize=BUFFER) as tar:  # type: ignore[call-overload]
            for info, opened in entries:
                info.mtime = min(int(info.mtime), epoch)
                info.uname = info.gname = ""
                add_entry(tar, info, opened)
    return compressed.digest, plain.digest


def add_entry(tar: tarfile.TarFile, info: tarfile.TarInfo, opened: Callable[[], IO[bytes]] | None) -> None:
    """Add an entry with its content, if it has any, to a tar that is being written."""
    with opened() if opened else nullcontext() as content:
        tar.addfile(info, content)


def tree_entries(tree: Path) -> Iterator[Entry]:
    """Everything below `tree` in order of name, but for device nodes and sockets; hard links stay hard links."""
    links: dict[tuple[int, int], str] = {}
    top = str(tree)
    for path in _walk(top):
        status = os.lstat(path)
        info = tarfile.TarInfo(path[len(top) + 1 :])
        info.mode, info.uid, info.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        info.mtime = int(status.st_mtime)
        if stat.S_ISDIR(status.st_mode):
            info.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(status.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)  # noqa: PTH115
        elif not stat.S_ISREG(status.st_mode):
            continue
        elif first := links.get((status.st_dev, status.st_ino)):
            info.type, info.linkname = tarfile.LNKTYPE, first
        else:
            info.size = status.st_size
            if status.st_nlink > 1:
                links[status.st_dev, status.st_ino] = info.name
        if not info.issym():
            info.pax_headers = _attributes(path)
        # No Path for each of ten thousand files.
        yield info, partial(cast(Any, open), path, "rb") if info.type == tarfile.REGTYPE else None


def _walk(top: str) -> Iterator[str]:
    """All paths below `top`, each directory before what it holds, siblings in order of their bytes."""
    with os.scandir(top) as found:
        entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
    for entry in entries:
        yield entry.path
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)


def _attributes(path: str) -> dict[str, str]:
    """Extended attributes that belong to the file (such as capabilities), not to this machine's labels."""
    names = [n for n in os.listxattr(path, follow_symlinks=False) if n == "security.capability" or n[:5] == "user."]
    return {
        ATTRIBUTE + name: os.getxattr(path, name, follow_symlinks=False).decode("utf-8", "surrogateescape")
        for name in sorted(names)
    }


@contextmanager
def opened(path: Path, media_type: str, allowance: Allowance | None = None) -> Iterator[IO[bytes]]:
    """The uncompressed tar stream of a layer. What it yields is counted: its reader meets OutsideError at a limit."""
    import gzip

    import zstandard

    what = f"the layer {path.name[:12]}"
    meters = (ratio(path.stat().st_size, what), (allowance or Allowance(what)).bytes)
    with ExitStack() as stack:
        stream: Any = stack.enter_context(path.open("rb"))
        if media_type.endswith("zstd"):
            unpacker = zstandard.ZstdDecompressor(max_window_size=LAYER_WINDOW.most)
            stream = stack.enter_context(unpacker.stream_reader(stream, read_across_frames=True))
        elif media_type.endswith("gzip"):
            stream = stack.enter_context(gzip.open(stream))
        yield cast(IO[bytes], Counted(stream, *meters))


def diff_id(path: Path, media_type: str, allowance: Allowance | None = None) -> str:
    """The digest of what a layer unpacks to. Raises OutsideError for one that is damaged or over a limit."""
    seen = hashlib.sha256()
    with _readable(path), opened(path, media_type, allowance) as stream:
        while data := stream.read():
            seen.update(data)
    return f"sha256:{seen.hexdigest()}"


@contextmanager
def reading(path: Path, media_type: str, allowance: Allowance | None = None) -> Iterator[Tar]:
    """The members of a layer, met one after the other. Raises OutsideError for one that is damaged or over a limit."""
    what = f"the layer {path.name[:12]}"
    allowance = allowance or Allowance(what)
    with (
        _readable(path),
        opened(path, media_type, allowance) as stream,
        Tar.open(fileobj=stream, mode="r|", bufsize=BUFFER, what=what, allowance=allowance) as tar,  # type: ignore[call-overload]
    ):
        yield tar


def unpack(
    path: Path, media_type: str, root: Path, allowance: Allowance | None = None, *, only: Sequence[str] = ()
) -> None:
    """Apply a layer to `root` as engines on overlayfs do: unpacked by itself, and then laid over what is there.

    So no link in it leads out of it, nor does one of a layer below lead into another place. With `only`, what stands at
    one of these places, above or below it, which then are small files of ours, no more of them together than one such
    file may hold. Raises OutsideError for a layer that is damaged, climbs out, says what engines differ in, or takes
    more than `allowance` has left.
    """
    root.mkdir(parents=True, exist_ok=True)
    with reading(path, media_type, allowance) as tar, ExitStack() as stack:
        upper, tree = root, Within(root)
        if any(root.iterdir()):
            beside = root if root.is_mount() else root.parent  # nothing is renamed from one file system into another
            upper = Path(stack.enter_context(TemporaryDirectory(dir=beside, prefix=f"{root.name}.layer-")))
        layer, small = _Layer(upper, marks=upper is not root), Meter(SMALL_FILE, f"what {tar.what} says of the image")
        for info in tar:
            if not only:
                layer.apply(tar, info)
            elif _concerns(info.name, only):
                small.add(info.size)
                layer.apply(tar, _ours(info))
        if layer.marks:
            _lay(layer, upper, tree, root)
        for name, mtime in layer.folders.items():
            if tree.holds(root / name):
                os.utime(root / name, (mtime, mtime))


def unpack_places(image: Sequence[tuple[Path, str]], what: str, root: Path, places: Sequence[str]) -> None:
    """Unpack of an image (`what`), each layer with its media type, the lowest first, what stands at some places,
    wherever links lead from there. Raises OutsideError as `unpack`, and for links that lead on and on.
    """
    for _ in range(LOOKS):
        if root.exists():
            shutil.rmtree(root)
        allowance = Allowance(what)
        for path, media_type in image:
            unpack(path, media_type, root, allowance, only=places)
        lead_to = [str(inside(root, f"{place}/any").parent.relative_to(root)) for place in places]
        if set(lead_to) <= set(places):
            return
        places = list(dict.fromkeys([*places, *lead_to]))
    raise OutsideError(f"{what} holds links that lead on more than {LOOKS} times: {places[-1]} is the last")


def _concerns(name: str, places: Sequence[str]) -> bool:
    above, base = os.path.split(os.path.normpath(name).lstrip("/"))
    at = above if base == OPAQUE else f"{above}/{base.removeprefix(WHITEOUT)}".lstrip("/")
    return any(f"{place}/".startswith(f"{at}/") or at.startswith(f"{place}/") for place in places)


def _ours(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """A file that only is to be read."""
    info.uid, info.gid, info.mode, info.pax_headers = os.geteuid(), os.getegid(), stat.S_IRWXU, {}
    return info


class _Layer:
    """A layer that is unpacked by itself in `root`, and the times of the `folders` that it names.

    With `marks`, what it takes away from those below stays beside it as a file of the mark's name.
    """

    def __init__(self, root: Path, *, marks: bool) -> None:
        self.within = Within(root)
        self.marks = marks
        self.marked = False
        self.folders: dict[str, float] = {}

    def apply(self, tar: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        """Apply one entry."""
        target = self.within.place(info.name)
        if target == self.within.root:
            return
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
        if target.name.startswith(WHITEOUT):
            self._remove_below(target)
            return
        if info.isdir() and os.path.lexists(target.with_name(WHITEOUT + target.name)):
            # Engines show in it what was there before.
            raise OutsideError(f"a layer takes {target.name} away, and holds it as a directory")
        if not info.isdir() or target.is_symlink() or not target.is_dir():
            self.within.remove(target)
        if info.ischr() or info.isblk():  # left out; nothing below shows through it, and numbered 0, 0 it is a mark
            self._mark(target.with_name(WHITEOUT + target.name))
            return
        if info.isdir():
            self.folders[str(target.relative_to(self.within.root))] = info.mtime
        if info.islnk() or info.issym():
            self.within.forget()
        if info.islnk():
            os.link(self.within.place(info.linkname), target, follow_symlinks=False)
        else:
            _create(tar, info, target)

    def _remove_below(self, mark: Path) -> None:
        if mark.name == OPAQUE:
            if mark.parent != self.within.root:  # at the top engines take no notice of it
                self._mark(mark)
        elif os.path.lexists(mark.with_name(_removed(mark.name))):
            raise OutsideError(f"a layer holds {mark.name.removeprefix(WHITEOUT)} and takes it away again")
        else:
            self._mark(mark)

    def _mark(self, mark: Path) -> None:
        if self.marks:
            mark.touch()
            self.marked = True


def _lay(layer: _Layer, upper: Path, tree: Within, lower: Path) -> None:
    """Move what is in `upper`, a folder of the layer, to `lower`, the same one of the `tree`."""
    with os.scandir(upper) as found:
        children = list(found)
    marks = {one.name for one in children if one.name.startswith(WHITEOUT) and one.is_file(follow_symlinks=False)}
    gone = lower.iterdir() if OPAQUE in marks else (lower / mark.removeprefix(WHITEOUT) for mark in marks)
    for path in list(gone):
        tree.remove(path)
    for child in (one for one in children if one.name not in marks):
        target, folder = lower / child.name, child.is_dir(follow_symlinks=False)
        there = folder and target.is_dir() and not target.is_symlink()
        if not there:
            tree.remove(target)
        if not folder or not (there or layer.marked):
            Path(child.path).rename(target)
            continue
        if not there:
            target.mkdir()
        if not there or str(Path(child.path).relative_to(layer.within.root)) in layer.folders:
            status = child.stat(follow_symlinks=False)
            os.chown(target, status.st_uid, status.st_gid)
            shutil.copystat(child.path, target)
        _lay(layer, Path(child.path), tree, target)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever a damaged or hostile layer makes its readers raise into one OutsideError; a full disk is none."""
    import zlib

    import zstandard

    damage = (EOFError, ValueError, OverflowError, RecursionError, tarfile.TarError, zlib.error, zstandard.ZstdError)
    try:
        yield
    except (OSError, *damage) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        raise OutsideError(f"the layer {path.name[:12]} cannot be unpacked: {error}") from None


def _removed(mark: str) -> str:
    """The name that a removal mark stands for. Raises OutsideError for one that names no single thing beside it."""
    name = mark.removeprefix(WHITEOUT)
    if name in {"", ".", ".."}:
        raise OutsideError(f"a layer holds the mark {mark}, which removes nothing that could stand beside it")
    return name


def _create(tar: tarfile.TarFile, info: tarfile.TarInfo, target: Path) -> None:
    """Make the file, directory, link or pipe at `target`, with its owner, mode, time and attributes."""
    if info.issym():
        target.symlink_to(info.linkname)
    elif info.isdir():
        target.mkdir(exist_ok=True)
    elif info.isfifo():
        os.mkfifo(target)
    else:
        with target.open("xb") as file, tar.extractfile(info) as content:  # type: ignore[union-attr]
            shutil.copyfileobj(content, file, min(info.size, 1 << 20))
    os.chown(target, info.uid, info.gid, follow_symlinks=False)
    if not info.issym():
        target.chmod(info.mode)
    for key, value in info.pax_headers.items():
        if key.startswith(f"{ATTRIBUTE}{OVERLAYS_OWN}"):
            raise OutsideError(
                f"a layer gives {info.name[:200]} the attribute {key[:80]}, which only overlayfs may set"
            )
        if key.startswith(ATTRIBUTE):
            data = value.encode("utf-8", "surrogateescape")
            os.setxattr(target, key.removeprefix(ATTRIBUTE), data, follow_symlinks=False)
    os.utime(target, (info.mtime, info.mtime), follow_symlinks=False)


def small_text(tree: Path, path: Path) -> str:
    """The text of a file of an unpacked tree; nothing where it is absent, or a link leads out of it, onto this host.

    Raises OutsideError for one that is over the limit image.small-file.
    """
    top, path = tree.resolve(), path.resolve()
    if not path.is_relative_to(top) or not path.is_file():
        return ""
    with path.open("rb") as file:
        return read_all(file, SMALL_FILE, f"{path.relative_to(top)} of the image").decode(errors="replace")


def inside(root: Path, name: str) -> Path:
    """Where `name` lies below `root`, links of the image followed as the image itself would."""
    return Within(root).place(name)


def own(path: Path, uid: int, gid: int, mode: int) -> None:
    """Give `path` its numeric owner and then its mode, which a change of owner would cut."""
    os.chown(path, uid, gid)
    path.chmod(mode)
