"""One file of an OCI artifact: a registry in a closed network serves the feeds that `oras push` put there. Edge.

Each layer is one file, named by `org.opencontainers.image.title`. Data that names no date of its own is as old as the
artifact, never as its arrival: what is old stays old.
"""

from __future__ import annotations

from datetime import datetime
from email.utils import format_datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING

from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, OutsideError
from hardening.foundation.hashing import hex_of
from hardening.foundation.limits import CHUNK, FEED_ARTIFACT, Limit
from hardening.foundation.settings import Settings
from images.feeds.facts import in_json
from images.store.files import file_digest

if TYPE_CHECKING:
    from images.registry.answers import Listed
    from images.registry.client import Manifest, RegistryClient

PREFIX = "oci:"
TITLE, CREATED = "org.opencontainers.image.title", "org.opencontainers.image.created"
HINT = "docs/feeds.md shows how oras puts the files there"


def is_artifact(place: str) -> bool:
    """Whether a setting names an OCI artifact."""
    return place.startswith(PREFIX)


def changed_artifact(settings: Settings, place: str, known: str, now: datetime) -> Manifest | None:
    """The artifact at `oci:REFERENCE`, or None where it is still the one with the digest `known`.

    Raises OutsideError where the registry does not give it, and where a rule of `trust.upstream` says who signs it, and
    that key did not.
    """
    from images.registry.release_trust import require_upstream_trusted

    reference, registry = place.removeprefix(PREFIX), registry_of(settings, place)
    try:
        found = registry.get(reference)
        require_upstream_trusted(registry, reference, found.digest, now)
    except GoldsmithError as error:
        raise OutsideError(f"{place}: {error.message}", evidence=error.evidence, hint=HINT) from None
    return None if found.digest == known else found


def write_file(settings: Settings, place: str, found: Manifest, name: str, sink: IO[bytes], most: Limit) -> str:
    """Write the file `name` of an artifact to `sink`; its digest. Raises OutsideError for what is none, or is too much.

    A registry hands out an artifact as a whole, so that all its files are fetched for the one: together they have a
    limit too.
    """
    from images.registry.references import split

    listed, folder = _listed(found, name, place), settings.state_dir / "feeds"
    most.require(listed.size, f"{name} in {place}")
    FEED_ARTIFACT.require(sum(layer.size for layer in found.image.layers), place)
    say(f"fetching {name} from {place}")
    with TemporaryDirectory(dir=folder, prefix=".artifact.") as scratch:
        exact = f"{split(place.removeprefix(PREFIX))[0]}@{found.digest}"
        registry_of(settings, place).download(exact, Path(scratch) / "blobs")
        blob = Path(scratch) / "blobs" / hex_of(listed.digest)
        if f"sha256:{file_digest(blob)}" != listed.digest:
            raise OutsideError(f"{place} gave other bytes for {name} than it lists", hint="who writes to it?")
        with blob.open("rb") as source:
            while part := source.read(CHUNK):
                sink.write(part)
    return listed.digest


def made_at(found: Manifest, place: str) -> str:
    """When an artifact was made, as HTTP's `Last-Modified` says it. Raises OutsideError where it does not tell."""
    at = in_json(found.annotations, CREATED)
    if at is None:
        why = f"{place} does not say when it was made ({CREATED}): its data could be of any day"
        raise OutsideError(why, hint="oras push writes it")
    return format_datetime(at, usegmt=True)


def registry_of(settings: Settings, place: str) -> RegistryClient:
    """The registry that an artifact is in."""
    from images.registry.client import RegistryClient

    return RegistryClient(place.removeprefix(PREFIX).partition("/")[0], settings)


def _listed(found: Manifest, name: str, place: str) -> Listed:
    """The layer of that name. Raises OutsideError where not exactly one has it."""
    named = [layer for layer in found.image.layers if layer.annotations.get(TITLE) == name]
    if len(named) != 1:
        there = sorted(layer.annotations.get(TITLE, "a layer without a name")[:100] for layer in found.image.layers)
        why = f"{place} holds {'no' if not named else 'more than one'} file {name}"
        raise OutsideError(why, evidence="\n".join(there[:20]), hint=HINT)
    return named[0]
