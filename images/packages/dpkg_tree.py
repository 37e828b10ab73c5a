"""What dpkg says is installed in an unpacked tree, and what it keeps of each package. Edge."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from hardening.foundation.hashing import digest
from hardening.foundation.limits import SMALL_FILE, Meter
from hardening.foundation.process import run
from images.artifact import Package
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
        f"{path.parent.name}/{path.name}": _record_digest(path)
        for path in files
        if path.is_file() and not path.is_symlink()
    }


def foreign_records(tree: Path, base: Mapping[str, str], debs: Mapping[Package, Path], room: Path) -> list[str]:
    """The paths of records in a tree that neither `base`, its records before, nor a planned .deb brought, in order.

    The .debs are unpacked below `room`.
    """
    planned, owners = dict[str, str](), set[str]()
    for package, deb in debs.items():
        with TemporaryDirectory(dir=room) as folder:
            run(["dpkg-deb", "--raw-extract", str(deb), folder])
            control = Path(folder) / "DEBIAN"
            same = debian.fields((control / "control").read_text()).get("Multi-Arch") == "same"
            by_name, by_architecture = f"info/{package.name}", f"info/{package.name}:{package.architecture}"
            owners |= {by_name, by_architecture}
            owner = by_architecture if same else by_name
            planned |= {f"{owner}.{path.name}": _record_digest(path) for path in control.iterdir()}
            planned |= {f"{owner}.list": "", f"{owner}.md5sums": _sums_of(control)}
    wanted = {name: digest for name, digest in base.items() if name.rpartition(".")[0] not in owners} | planned
    return sorted(f"/{DPKG}/{name}" for name, digest in records(tree).items() if wanted.get(name) != digest)


def _record_digest(path: Path) -> str:
    if path.suffix == ".list":
        return ""
    return _sums(path.read_bytes()) if path.suffix == ".md5sums" else file_digest(path)


def _sums_of(control: Path) -> str:
    """The digest of a package's checksums. Of one without any dpkg makes them: of all files, its configuration too."""
    if (brought := control / "md5sums").exists():
        return _sums(brought.read_bytes())
    lines = list[bytes]()
    for path in control.parent.rglob("*"):
        if path.is_file() and not path.is_symlink() and control not in path.parents:
            with path.open("rb") as file:
                checksum = hashlib.file_digest(file, "md5").hexdigest()
            lines.append(b"%s  %s" % (checksum.encode(), os.fsencode(path.relative_to(control.parent))))
    return _sums(b"\n".join(lines))


def _sums(text: bytes) -> str:
    """The digest of checksums without their order, which is dpkg's own where a package has none."""
    return digest(b"\n".join(sorted(text.splitlines())))


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
