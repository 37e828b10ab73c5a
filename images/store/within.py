"""Paths below a directory as a process whose root directory it is would see them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from hardening.foundation.errors import OutsideError

# How many directories are remembered while a layer is unpacked, so that not each of its files looks for its own again.
FOLDERS = 10_000


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
        if parts[-1] == "..":
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

    def above(self, path: Path) -> Iterator[Path]:
        """The directories of `path` below the root, the nearest first."""
        while (path := path.parent) != self.root and path != path.parent:
            yield path

    def holds(self, folder: Path) -> bool:
        """Whether `folder`, placed before, is a directory still, reached by no link that was put there since."""
        return folder.is_dir() and folder.resolve() == self.root.resolve() / folder.relative_to(self.root)

    def remove(self, path: Path) -> None:
        """Remove what is at `path`, if anything."""
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path)
        self.known = {"": self.root}
