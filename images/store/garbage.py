"""What nothing on this machine needs any more: layers, disks and trees of removed artifacts, packages and what was
recorded about them, and temporary folders of killed runs.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

from hardening.foundation.hashing import DIGEST
from images.artifact import Artifact
from images.context import Context
from images.machine import trees
from images.store.oci import DISKS, TREES, Store

# What is younger may belong to a build that is under way and not yet in the ledger.
YOUNG = timedelta(days=1)
# Each state of a package index has answers of its own, and only a mirror that stands still is asked the same again.
ANSWERS = timedelta(days=30)


@dataclass(frozen=True)
class Garbage:
    """Files, or trees of images, of one kind that may be removed, and their size."""

    what: str
    files: tuple[Path, ...]
    size_bytes: int


def collect(context: Context, *, apply: bool) -> tuple[Garbage, ...]:
    """Find what no kept artifact needs in the store and the package pool and, with `apply`, remove it.

    Kept are the newest artifact of each image and those under a release that still stands or runs.
    """
    kept = _kept(context)
    blobs = {name.removeprefix("sha256:") for artifact in kept for name in _reachable(context, artifact)}
    debs = {package.sha256 for artifact in kept for package in artifact.packages}
    machines = (one.digest for one in kept if not _is_container(context.store, one.digest))
    layers = {key for digest in machines for key in trees.keys(context.store, trees.key_of(digest))}
    disks, folders = (context.store.own_place(sort, "").glob("*") for sort in (DISKS, TREES))
    apt = context.index.home
    left = chain(context.store.path.glob("tmp*"), apt.glob("tmp*"), apt.glob("*-*/tmp*"))
    found = (
        _over(context, "blobs of the local store", context.store.blobs.glob("*"), blobs, lambda path: path.name),
        _over(context, "packages", context.index.home.glob("pool/*/*"), debs, lambda path: path.parent.name),
        _over(context, "disks of machines", disks, blobs, lambda path: path.stem),
        _over(context, "trees of images", folders, layers, lambda path: path.name),
        _over(context, "answers of apt", apt.glob("*/resolved/*"), set(), lambda path: path.name, ANSWERS),
        _over(context, "index entries of packages", apt.glob("entries/*/*"), debs, lambda path: path.parent.name),
        _over(context, "entries of upstream packages", apt.glob("told/*/*"), blobs, lambda path: path.parent.name),
        _over(context, "texts of upstream images", context.store.path.glob("texts/*"), blobs, lambda path: path.stem),
        _over(context, "verified pins", context.store.path.glob("verified/*/*"), blobs, lambda path: path.parent.name),
        _over(context, "folders of killed runs", left, set(), lambda path: path.name),
    )
    if apply:
        for path in (path for garbage in found for path in garbage.files):
            with suppress(FileNotFoundError):  # another has just removed it
                _remove(path, context.store)
    return found


def _is_container(store: Store, digest: str) -> bool:
    """Whether its tree can be unpacked again, so that it is kept only while it is used."""
    return store.has(digest) and store.disk_of(digest) is None


def _remove(path: Path, store: Store) -> None:
    """Remove a file; or a tree, by renaming it first, so that nobody takes half of one for the whole."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    store.partial.mkdir(parents=True, exist_ok=True)
    gone = path.rename(store.partial / f"{os.getpid()}-{path.name[:16]}")
    shutil.rmtree(gone)


def _kept(context: Context) -> list[Artifact]:
    """The artifacts that something still stands on."""
    standing = {release.content for release in context.ledger.releases() if not release.pruned_at}
    standing |= set(context.ledger.running_digests())
    newest: dict[tuple[str, str], Artifact] = {}
    every = context.ledger.artifacts()
    for artifact in sorted(every, key=lambda artifact: artifact.built_at):
        newest[artifact.name, artifact.platform] = artifact
    return [artifact for artifact in every if artifact.digest in standing or artifact in newest.values()]


def _reachable(context: Context, artifact: Artifact) -> Iterable[str]:
    """Every blob that an artifact consists of, and what was said of it; also the manifest and configuration of what it
    stands on, for want of which a plan fetches an upstream image again. Of a machine that is a disk, which none needs.
    """
    if artifact.dockerfile:
        yield artifact.dockerfile
    if scan := context.ledger.scan(artifact.digest, artifact.name):
        yield from (bill for bill in (scan.sbom, scan.spdx) if bill)
    store, below = context.store, str(artifact.inputs.get("parent"))  # of a registry's word it may be anything
    stands_on = re.fullmatch(DIGEST, below) and store.has(below) and not store.disk_of(below)
    for content in (artifact.digest, *([below] if stands_on else [])):
        if store.has(content):
            yield content
            manifest: dict[str, Any] = store.read_json(content)
            yield manifest["config"]["digest"]
            yield from (layer["digest"] for layer in manifest["layers"])


def _over(
    context: Context, what: str, files: Iterable[Path], needed: set[str], key: Callable[[Path], str],
    young: timedelta = YOUNG,
) -> Garbage:  # fmt: skip
    """The files of one sort that are neither needed nor young."""
    before = (context.now - young).timestamp()
    others = (path for path in sorted(files) if key(path) not in needed)
    old = [path for path in others if (known := _known(path)) and known.st_mtime < before]
    return Garbage(what, tuple(old), sum(map(_size, old)))


def _known(path: Path) -> os.stat_result | None:
    """What is known of a file; None where it has vanished, as what a run that has just ended had for itself."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _size(path: Path) -> int:
    """The bytes that a file or a whole tree takes on the disk."""
    inside = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    return sum(known.st_blocks * 512 for one in (path, *inside) if (known := _known(one)))
