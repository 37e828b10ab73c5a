"""The services that a machine's tree starts at boot and keeps running, by its unit files."""

from __future__ import annotations

import re
from pathlib import Path

UNITS = ("etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system")  # the first that has it wins


def services_of(tree: Path) -> tuple[str, ...]:
    """The service units that targets of the system want, in order of name.

    Not those of the initrd, templates, what is masked, and what runs once and ends (`Type=oneshot`).
    """
    wanted = {
        link.name
        for folder in UNITS
        for link in (tree / folder).glob("*.target.wants/*.service")
        if not link.parent.name.startswith("initrd") and "@" not in link.name
    }
    return tuple(sorted(name for name in wanted if _stays(tree, name)))


def _stays(tree: Path, name: str) -> bool:
    unit = next((path for folder in UNITS if (path := tree / folder / name).is_symlink() or path.exists()), None)
    if unit is None:
        return False
    # Links are followed inside the tree, never onto the host; /dev/null, which masks a unit, is no file there.
    target = tree / str(unit.readlink()).lstrip("/") if unit.is_symlink() and unit.readlink().is_absolute() else unit
    if not target.is_file() or not target.resolve().is_relative_to(tree.resolve()):
        return False
    return not re.search(r"(?m)^\s*Type\s*=\s*oneshot\s*$", target.read_text(errors="replace"))
