"""Several layers as one: what later layers remove or replace never takes space, and one order of entries holds."""

from __future__ import annotations

import copy
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

from hardening.foundation.errors import OutsideError
from images.store.layers import OPAQUE, WHITEOUT, Entry
from images.store.tars import ATTRIBUTE, Allowance, ReaderBudget, Tar


class Merged:
    """The sum of uncompressed layer tars, lowest first.

    `in_parent` says whether a path exists in what the layers stand on: only such paths need a removal mark.
    `ours` says which paths belong to the image at all: mount points of the build, for instance, do not.
    """

    def __init__(self, paths: list[Path], in_parent: Callable[[str], bool], ours: Callable[[str], bool]) -> None:
        what = "what the build's steps changed"
        allowance, kept = Allowance(what), ReaderBudget(what)
        self.tars = [Tar.open(path, "r:", what=what, allowance=allowance, kept=kept) for path in paths]  # type: ignore[call-overload]
        self.in_parent = in_parent
        self.chosen: dict[str, tuple[int, tarfile.TarInfo]] = {}
        self.removed: set[str] = set()
        self.opaque: set[str] = set()
        try:
            self._read(ours)
        except BaseException:
            self.__exit__()
            raise

    def _read(self, ours: Callable[[str], bool]) -> None:
        for number, tar in enumerate(self.tars):
            for info in tar:
                name = info.name.removeprefix("./").strip("/")
                if name not in {"", "."} and ours(name):
                    self._add(number, name, info)

    def _add(self, number: int, name: str, info: tarfile.TarInfo) -> None:
        folder, _, base = name.rpartition("/")
        if base == OPAQUE:
            self._forget_below(folder, number)
            self.opaque.add(folder)
        elif base.startswith(WHITEOUT):
            gone = f"{folder}/{base[len(WHITEOUT) :]}".lstrip("/")
            self.chosen.pop(gone, None)
            self._forget_below(gone, len(self.tars))
            self.opaque.discard(gone)
            self.removed.add(gone)
        else:
            if not info.isdir():
                self._forget_below(name, len(self.tars))
            if name in self.removed and info.isdir():
                self.opaque.add(name)
            self.removed.discard(name)
            self.chosen[name] = (number, info)

    def _forget_below(self, folder: str, before: int) -> None:
        """Drop what layers lower than `before` put below `folder`."""
        prefix = f"{folder}/" if folder else ""
        for name in [n for n, (number, _) in self.chosen.items() if n.startswith(prefix) and number < before]:
            del self.chosen[name]
        self.removed = {name for name in self.removed if not name.startswith(prefix)}

    def entries(self) -> Iterator[Entry]:
        """The merged entries in the order that trees are written in; removal marks stand before what replaces them."""
        marks = [self._mark(name) for name in self.removed if self.in_parent(name)]
        marks += [f"{name}/{OPAQUE}" for name in self.opaque if self.in_parent(name)]
        firsts: dict[tuple[int, str], str] = {}
        for name in sorted(
            [*self.chosen, *marks], key=lambda item: item.encode("utf-8", "surrogateescape").split(b"/")
        ):
            if name not in self.chosen:
                yield tarfile.TarInfo(name), None
            else:
                number, info = self.chosen[name]
                if not (info.ischr() or info.isblk()):
                    yield self._entry(name, number, info, firsts)

    def _entry(self, name: str, number: int, info: tarfile.TarInfo, firsts: dict[tuple[int, str], str]) -> Entry:
        """The entry for `name`; of files that are links of each other, the first in order carries the content."""
        tar = self.tars[number]
        info = _linked(tar, info)
        clean = tarfile.TarInfo(name)
        for field in ("mode", "uid", "gid", "mtime", "type", "linkname", "size"):
            setattr(clean, field, getattr(info, field))
        clean.pax_headers = {k: v for k, v in sorted(info.pax_headers.items()) if k.startswith(ATTRIBUTE)}
        if not info.isreg():
            return clean, None
        first = firsts.setdefault((number, info.name), name)
        if first != name:
            clean.type, clean.linkname, clean.size = tarfile.LNKTYPE, first, 0
            return clean, None
        return clean, partial(cast(Any, tar).extractfile, copy.copy(info))

    @staticmethod
    def _mark(name: str) -> str:
        folder, _, base = name.rpartition("/")
        return f"{folder}/{WHITEOUT}{base}".lstrip("/")

    def __enter__(self) -> Merged:
        return self

    def __exit__(self, *_: object) -> None:
        for tar in self.tars:
            tar.close()


def _linked(tar: tarfile.TarFile, info: tarfile.TarInfo) -> tarfile.TarInfo:
    """The file that `info` is a hard link to, or `info` itself. Raises OutsideError for links that lead in a circle."""
    met = set()
    while info.islnk():
        if info.linkname in met:
            raise OutsideError(f"the hard link {info.name} leads to itself")
        met.add(info.linkname)
        info = tar.getmember(info.linkname)
    return info
