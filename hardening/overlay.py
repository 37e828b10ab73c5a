"""Writes an overlay as a folder that a minimal image's own shell can apply, or applies it to a tree. Edge."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote

from hardening.foundation.confinement import change_tree
from hardening.foundation.errors import ContentError
from hardening.render import Overlay

HEAD = Path(__file__).with_suffix(".sh")  # what every driver begins with


def materialise(overlay: Overlay, directory: Path) -> None:
    """Write `overlay` into `directory`: `files/`, `applies/NN-<control>.sh` and the driver `apply.sh`.

    The driver runs as root with ROOT set, needs no more than sh and coreutils, and stops at the first failure.
    Raises ContentError for a file that would be written elsewhere.
    """
    (directory / "applies").mkdir(parents=True)
    (directory / "files").mkdir()
    for file in overlay.files:
        target = _inside(directory / "files", file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(file.content)
    for name, script in zip(_names(overlay), overlay.applies, strict=True):
        (directory / "applies" / name).write_text(script.text)
    (directory / "apply.sh").write_text(driver(overlay))


def _inside(files: Path, path: str) -> Path:
    """Where a file of the image stands below `files`. Raises ContentError where that is not below it."""
    place = os.path.normpath(path.lstrip("/"))
    if place.partition("/")[0] in {".", ".."}:
        hint = "a path in the image has no `..`"
        raise ContentError(f"a control installs {path}, which is not a file in the image", key="files.path", hint=hint)
    return files / place


def driver(overlay: Overlay) -> str:
    """The text of `apply.sh`: the same overlay gives the same text."""
    lines = []
    for file in overlay.files:
        when = f'[ ! -d "$base"{quote(file.only_with)} ] || ' if file.only_with else ""
        lines.append(f"{when}put {file.mode:04o} {file.uid}:{file.gid} {quote(file.path.lstrip('/'))}")
    for name, script in zip(_names(overlay), overlay.applies, strict=True):
        env = "".join(f" {variable}={quote(value)}" for variable, value in sorted(script.env.items()))
        lines.append(f"run {script.control} {name}{env}")
    return HEAD.read_text() + "\n".join(lines) + "\n"


def apply_to(overlay: Overlay, tree: Path, directory: Path) -> None:
    """Apply `overlay` to the filesystem at `tree` from this host; `directory` (new) takes the scripts. Needs root.

    They can change nothing else of the host. Raises OutsideError that names the control whose script failed.
    """
    materialise(overlay, directory)
    change_tree(tree, ["sh", str(directory / "apply.sh")], {}, reads=[directory])


def _names(overlay: Overlay) -> list[str]:
    return [f"{number:02d}-{script.control}.sh" for number, script in enumerate(overlay.applies, start=1)]
