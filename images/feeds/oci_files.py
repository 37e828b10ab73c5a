"""Feeds from an OCI artifact: a registry inside a closed network hands out the files that `oras push` put there.

The files of one artifact become a directory of the state directory, as the settings of feeds can name one. Each file
has the time at which the artifact was made, never that of its arrival: what is old stays old.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from filelock import FileLock

from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import digest, hex_of
from hardening.foundation.limits import FEED_FILES, OSV_BYTES
from hardening.foundation.settings import ROOT, Settings
from images.feeds.download import asking_once
from images.store.files import file_digest

if TYPE_CHECKING:
    from images.registry.answers import Listed
    from images.registry.client import Manifest, RegistryClient

PREFIX = "oci:"
TITLE, CREATED = "org.opencontainers.image.title", "org.opencontainers.image.created"
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


def directory_of(settings: Settings, place: str, now: datetime, after: timedelta) -> Path:
    """The directory that a feed's setting names: one of this machine, or the files of `oci:REFERENCE`.

    The registry is asked again after `after`. Where it fails, the last good files serve. Raises OutsideError without
    any, and UntrustedError where a rule of `trust.upstream` says who signs the artifact, and that key did not.
    """
    if not is_artifact(place):
        return ROOT / place
    reference = place.removeprefix(PREFIX)
    folder = settings.state_dir / "feeds" / "artifacts" / hex_of(digest(reference.encode()))[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        kept, confirmed = _kept(folder)
        if kept and confirmed and now - confirmed < after:
            return kept
        try:
            found = asking_once(str(folder), now, partial(_bring, settings, reference, folder, now), again=not after)
        except OutsideError as error:
            if kept is None:
                raise
            say(f"{place}: the last good copy serves, because {error.message}")
            return kept
        for other in folder.glob("[0-9a-f]*"):
            if other.is_dir() and other != found:
                shutil.rmtree(other, ignore_errors=True)
        return found


def is_artifact(place: str) -> bool:
    """Whether a setting names an OCI artifact."""
    return place.startswith(PREFIX)


def told(place: str, path: Path) -> str:
    """What people read of where data comes from: the artifact, or the path that a setting means."""
    return place if is_artifact(place) else f"{'directory' if path.is_dir() else 'file'} {path}"


def _kept(folder: Path) -> tuple[Path | None, datetime | None]:
    """The files that were fetched last, and when the registry last said that they are the newest."""
    try:
        said = json.loads((folder / "confirmed.json").read_text())
        directory, confirmed = folder / str(said["digest"])[7:], datetime.fromisoformat(said["confirmed"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, None
    return (directory, confirmed) if directory.is_dir() else (None, None)


def _bring(settings: Settings, reference: str, folder: Path, now: datetime) -> Path:
    """The files of what the reference names now, fetched where they are not here yet."""
    from images.registry.client import RegistryClient, split
    from images.registry.release_trust import require_upstream_trusted

    registry = RegistryClient(reference.partition("/")[0], settings)
    found = registry.get(reference)
    require_upstream_trusted(registry, reference, found.digest, now)
    directory = folder / hex_of(found.digest)
    if not directory.is_dir():
        say(f"fetching feeds from {reference}")
        _fetch(registry, f"{split(reference)[0]}@{found.digest}", found, directory)
    note = folder / ".confirmed.new"
    note.write_text(json.dumps({"digest": found.digest, "confirmed": now.isoformat()}))
    note.replace(folder / "confirmed.json")
    return directory


def _fetch(registry: RegistryClient, exact: str, found: Manifest, directory: Path) -> None:
    """Fill a directory with the files of an artifact, whole or not at all. Raises OutsideError."""
    files, made = _files(found, exact), _made_at(found, exact)
    with TemporaryDirectory(dir=directory.parent, prefix=".") as scratch:
        fresh, blobs = Path(scratch) / "files", Path(scratch) / "blobs"
        fresh.mkdir()
        registry.download(exact, blobs)
        for name, listed in files.items():
            blob = blobs / hex_of(listed.digest)
            if f"sha256:{file_digest(blob)}" != listed.digest:
                raise OutsideError(f"{exact} gave other bytes for {name} than it lists")
            blob.replace(fresh / name)
            os.utime(fresh / name, (made.timestamp(), made.timestamp()))
        fresh.replace(directory)


def _files(found: Manifest, exact: str) -> dict[str, Listed]:
    """The files of an artifact by name. Raises OutsideError for what is none, or is too much."""
    layers = found.image.layers
    FEED_FILES.require(len(layers), exact)
    named = {layer.annotations.get(TITLE, ""): layer for layer in layers}
    if not layers or len(named) != len(layers) or not all(map(NAME.fullmatch, named)):
        raise OutsideError(f"{exact} holds no feeds: each layer is one file, named by {TITLE}", hint="docs/feeds.md")
    for name, layer in named.items():
        OSV_BYTES.require(layer.size, f"{name} in {exact}")
    return named


def _made_at(found: Manifest, exact: str) -> datetime:
    """When an artifact was made. Raises OutsideError where it does not say: its data could be of any day."""
    try:
        at = datetime.fromisoformat(found.annotations[CREATED])
    except (KeyError, ValueError):
        raise OutsideError(f"{exact} does not say when it was made ({CREATED})", hint="oras push writes it") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
