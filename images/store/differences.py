"""Where two images begin to differ: the first file of the first layer that is not the same. Edge: reads layers."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from images.artifact import Descriptor
from images.store import layers
from images.store.oci import Store
from images.store.tars import Allowance, Tar

MISSING = "none"
SORTS = {tarfile.DIRTYPE: "directory", tarfile.SYMTYPE: "link", tarfile.LNKTYPE: "hard link", tarfile.FIFOTYPE: "pipe"}
Facts = Mapping[str, str]
Told = tuple[str, str, str, str]
"""Path or key, what of it, what was published and what was rebuilt."""


@dataclass(frozen=True)
class Difference:
    """A difference between two images.

    `layer` counts from 1, the lowest; 0 is what stands in no layer: then `path` is a key of configuration or manifest.
    `what` is content, mode, owner, mtime, link, attributes, type or missing; `packing` where all files are the same.
    """

    layer: int
    path: str
    what: str
    published: str
    rebuilt: str


def first_difference(published: Store, content: str, rebuilt: Store, other: str) -> Difference | None:
    """The first thing in which the image `other` of the one store is not `content` of the other; None where it is.

    Raises OutsideError for a layer that is damaged or over a limit.
    """
    if content == other:
        return None
    allowances = Allowance(f"the image {content}"), Allowance(f"the image {other}")
    pairs = zip_longest(published.layers_of(content), rebuilt.layers_of(other))
    for number, (theirs, ours) in enumerate(pairs, start=1):
        if theirs is None or ours is None:
            there, here = (one.digest if one else MISSING for one in (theirs, ours))
            return Difference(number, "", "missing", there, here)
        if theirs.digest != ours.digest:
            sides = _facts(published, theirs, allowances[0]), _facts(rebuilt, ours, allowances[1])
            told = first_of(*sides)
            return Difference(number, *told) if told else _packing(number, theirs, ours)
    told = first_key(published.config(content), rebuilt.config(other))
    told = told or first_key(_shown(published, content), _shown(rebuilt, other))
    return Difference(0, *told) if told else None


def first_of(published: Mapping[str, Facts], rebuilt: Mapping[str, Facts]) -> Told | None:
    """The first file that two layers have otherwise, in the order of their paths."""
    for path in sorted(published.keys() | rebuilt.keys(), key=lambda name: name.split("/")):
        theirs, ours = published.get(path), rebuilt.get(path)
        if theirs is None or ours is None:
            return path, "missing", (theirs or {}).get("type", MISSING), (ours or {}).get("type", MISSING)
        for what in dict.fromkeys((*theirs, *ours)):
            if theirs.get(what) != ours.get(what):
                return path, what, theirs.get(what, MISSING), ours.get(what, MISSING)
    return None


def first_key(published: Any, rebuilt: Any, at: str = "") -> Told | None:
    """The first key where two JSON values differ; the word for it is `value`."""
    if isinstance(published, dict) and isinstance(rebuilt, dict):
        for key in sorted(published.keys() | rebuilt.keys()):
            found = first_key(published.get(key), rebuilt.get(key), f"{at}.{key}" if at else key)
            if found:
                return found
        return None
    return None if published == rebuilt else (at, "value", str(published)[:200], str(rebuilt)[:200])


def _packing(number: int, theirs: Descriptor, ours: Descriptor) -> Difference:
    """The same files, packed otherwise: in another order, or by another library."""
    return Difference(number, "", "packing", theirs.digest, ours.digest)


def _shown(store: Store, digest: str) -> dict[str, Any]:
    """What a manifest says beside its layers and its configuration, which were compared by themselves."""
    return {key: value for key, value in store.read_json(digest).items() if key not in {"config", "layers"}}


def _facts(store: Store, layer: Descriptor, allowance: Allowance) -> dict[str, Facts]:
    """All that a layer says of each of its files, by path; of a path that stands twice, the later counts."""
    with layers.reading(store.blob(layer.digest), layer.media_type, allowance) as tar:
        return {info.name.removeprefix("./").rstrip("/"): dict(_said(tar, info)) for info in tar}


def _said(tar: Tar, info: tarfile.TarInfo) -> Iterator[tuple[str, str]]:
    yield "type", SORTS.get(info.type, "file" if info.isreg() else "device")
    if content := tar.extractfile(info) if info.isreg() else None:
        yield "content", f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"  # type: ignore[arg-type]
    if info.linkname:
        yield "link", info.linkname
    yield "mode", f"{info.mode:04o}"
    yield "owner", f"{info.uid}:{info.gid}"
    yield "mtime", f"{int(info.mtime)}"
    if info.pax_headers:
        yield "attributes", ", ".join(sorted(f"{key}={value!r}" for key, value in info.pax_headers.items()))
