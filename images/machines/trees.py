"""Trees as layers: a bootstrap's packages below, on them what each image changed; kept by key, stacked, never changed.

A layer is a folder of the store's `trees`: `tree` (a whole file system) or `upper` (what an overlay holds), and
`below`, the keys of the layers under it, uppermost first.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hardening.foundation.errors import OutsideError
from images.machines.mounts import overlay, unmount
from images.store.oci import TREES, Store


def key_of(digest: str) -> str:
    """The key of an image's own layer, given its content digest."""
    return digest.removeprefix("sha256:")


def has(store: Store, key: str) -> bool:
    """Whether the layer `key` and all below it are there."""
    return all(_folder(store, one).is_dir() for one in (key, *_below(store, key)))


def stack(store: Store, key: str) -> tuple[Path, ...]:
    """The folders that make up the file system of the layer `key`, uppermost first. Raises OutsideError without it."""
    if not has(store, key):
        raise OutsideError(
            f"the tree {key[:12]} is no longer on this machine", hint="build what it belongs to with --no-cache"
        )
    return tuple(_content(_folder(store, one)) for one in (key, *_below(store, key)))


def keys(store: Store, key: str) -> tuple[str, ...]:
    """The layer `key` and those that it stands on, uppermost first."""
    return (key, *_below(store, key))


def keep(store: Store, key: str, folder: Path, below: Sequence[str] = ()) -> None:
    """Give the finished layer in `folder` (its `tree` or `upper`) its place for good; one that is there already stays.

    The rename comes last, so that a layer is there whole or not at all.
    """
    (folder / "below").write_text("".join(f"{one}\n" for one in below))
    target = store.own_place(TREES, key)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(folder)


def used(store: Store, key: str) -> None:
    """Mark a layer and those below as used now, so that nobody takes them for old."""
    for one in keys(store, key):
        os.utime(_folder(store, one))


@contextmanager
def mounted(store: Store, key: str, at: Path) -> Iterator[Path]:
    """The file system of the layer `key`, to be read at `at` for the block; within `private_mounts`."""
    overlay(stack(store, key), at)
    try:
        yield at
    finally:
        unmount(at)


def _folder(store: Store, key: str) -> Path:
    return store.place(TREES, key)


def _below(store: Store, key: str) -> tuple[str, ...]:
    try:
        return tuple((_folder(store, key) / "below").read_text().split())
    except FileNotFoundError:
        return ()


def _content(folder: Path) -> Path:
    whole = folder / "tree"
    return whole if whole.is_dir() else folder / "upper"
