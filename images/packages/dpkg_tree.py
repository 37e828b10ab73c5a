"""What dpkg says is installed in an unpacked tree, and what it keeps of each package. Edge."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from hardening.foundation.limits import SMALL_FILE, Meter
from images.packages import debian
from images.store import layers
from images.store.files import file_digest

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


def records(tree: Path) -> dict[str, str]:
    """The digests of what dpkg keeps of each package: its scripts, and the checksums by which controls compare files.

    Empty for a list of files, which other packages change.
    """
    places = (("info", "*"), ("status.d", "*.md5sums"))
    files = [path for folder, names in places for path in _place(tree, folder).glob(names)]
    return {
        f"{path.parent.name}/{path.name}": record_digest(path)
        for path in files
        if path.is_file() and not path.is_symlink()
    }


def record_digest(path: Path) -> str:
    """The digest of one of these files; of checksums without their order, as dpkg makes those that a package lacks."""
    if path.name.rpartition(".")[2] == "md5sums":  # in a .deb it has no other name
        return digest_of_sums(path.read_bytes().splitlines())
    return "" if path.suffix == ".list" else file_digest(path)


def digest_of_sums(lines: Iterable[bytes]) -> str:
    """The digest of checksums."""
    return hashlib.sha256(b"\n".join(sorted(lines))).hexdigest()


def _place(tree: Path, folder: str) -> Path:
    """A folder beside the dpkg status."""
    return layers.inside(tree, f"{DPKG}/{folder}/any").parent


def _entries(tree: Path, pattern: str) -> list[str]:
    """All entries of the files in a folder beside the dpkg status, in order of their names.

    Raises OutsideError where they are over the limit of one such text: many names may lead to one large file.
    """
    folder, _, names = pattern.partition("/")
    files = sorted(path for path in _place(tree, folder).glob(names) if path.suffix != ".md5sums")
    found, meter = list[str](), Meter(SMALL_FILE, f"{DPKG}/{folder} of the image")
    for path in files:
        text = layers.small_text(tree, path)
        meter.add(len(text))
        found += debian.stanzas(text)
    return found
