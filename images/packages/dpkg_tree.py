"""What dpkg says is installed in an unpacked tree. Edge."""

from __future__ import annotations

from pathlib import Path

from hardening.foundation.limits import SMALL_FILE, Meter
from images.packages import debian
from images.store import layers

DPKG = "var/lib/dpkg"
STATUS_PLACES = (f"{DPKG}/status", f"{DPKG}/updates", f"{DPKG}/status.d")


def dpkg_status(tree: Path) -> str:
    """The tree's dpkg status with what stands beside it: what dpkg has not written into it yet, and of images without
    dpkg a file for each package, which says nothing of its state.
    """
    status = debian.stanzas(layers.small_text(tree, layers.inside(tree, f"{DPKG}/status")))
    journal = _entries(tree, "updates/[0-9]*")
    parts = [debian.as_installed(one) for one in _entries(tree, "status.d/*")]
    return "\n\n".join([*status, *journal, *parts])


def _entries(tree: Path, pattern: str) -> list[str]:
    """All entries of the files in a folder beside the dpkg status, in order of their names.

    Raises OutsideError where they are over the limit of one such text: many names may lead to one large file.
    """
    folder, _, names = pattern.partition("/")
    place = layers.inside(tree, f"{DPKG}/{folder}/any").parent
    files = sorted(path for path in place.glob(names) if path.suffix != ".md5sums")
    found, meter = list[str](), Meter(SMALL_FILE, f"{DPKG}/{folder} of the image")
    for path in files:
        text = layers.small_text(tree, path)
        meter.add(len(text))
        found += debian.stanzas(text)
    return found
