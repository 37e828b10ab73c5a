"""Evidence of machine images. AWS keeps no documents, so the attestations are in the registry.

It is attached to a manifest that holds what the release says of itself, and no disk. The release's digest is that
manifest's, so that anybody's tool finds and checks the evidence by `REGISTRY/NAME@DIGEST`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from hardening.foundation.hashing import digest
from images.artifact import Descriptor, Release
from images.aws import tags
from images.build.workspace import workspace
from images.documents import Document
from images.registry.client import RegistryClient
from images.registry.referrers import EMPTY
from images.registry.release_trust import attach_proof, is_proved, proved
from images.registry.releases import MACHINE_RELEASE, attach_end, dated_tag_of, remove
from images.release import lifecycle
from images.store.oci import MANIFEST, Store, as_json
from images.trust.verification import Attested, Fault, UntrustedError

NOTHING = b"{}"


def manifest_of(release: Release, linear: str, prefix: str) -> dict[str, Any]:
    """The manifest of a machine's release: its dates, where it stands, and the digest of its disk (`linear`)."""
    empty = as_json(Descriptor(EMPTY, digest(NOTHING), len(NOTHING)))
    where = {"repository": release.repository, tags.CONTENT: release.content, tags.LINEAR: linear}
    said = {f"{prefix}{key}": value for key, value in where.items()}
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": MACHINE_RELEASE,
        "config": empty,
        "layers": [empty],
        "annotations": {**lifecycle.annotations(release, prefix), **said},
    }


def attach_evidence(registry: RegistryClient, release: Release, linear: str, documents: Sequence[Document]) -> None:
    """Push the manifest of a release under its dated tag, and attach what the release says; done again, it completes.

    Raises UntrustedError before anything is attached that would not be believed.
    """
    to = in_registry(registry, release)
    with workspace(registry.settings) as room:
        store = Store(room)
        store.put_bytes(NOTHING, EMPTY)
        subject = store.put_json(manifest_of(release, linear, registry.prefix), MANIFEST)
        if dated_tag_of(registry, to) is None:
            registry.push_root(room, subject, f"{to.repository}:{lifecycle.dated_tag(to)}", index_only=False)
    attach_proof(registry, to, subject, documents)


def refuse_taken_tag(registry: RegistryClient, release: Release) -> None:
    """Raise UsageError where the dated tag of a release names something else in the registry."""
    dated_tag_of(registry, in_registry(registry, release))


def evidence_at(registry: RegistryClient, release: Release, now: datetime, *policies: str) -> Attested:
    """What a machine's release proves, as `proved` tells it of a container's. Raises UntrustedError, OutsideError."""
    try:
        return proved(registry, in_registry(registry, release), now, *policies)
    except UntrustedError as error:
        if error.fault is Fault.UNSIGNED and not registry.settings.registry.address:
            error.hint = "published from another machine? registry.address names the registry that both use"
        raise


def has_evidence(registry: RegistryClient, release: Release, now: datetime) -> bool:
    """Whether all that a release must carry is attached to its manifest, and by a key that counts."""
    return is_proved(registry, in_registry(registry, release), now)


def end_evidence(registry: RegistryClient, release: Release, at: datetime) -> None:
    """Attach a day as the end to the manifest of a release, so that strangers learn of it too; done again, it stays."""
    to = in_registry(registry, release)
    if subject := registry.find(f"{to.repository}@{to.digest}"):
        attach_end(registry, to.repository, subject, at)


def remove_evidence(registry: RegistryClient, release: Release) -> None:
    """Remove the manifest of a release with all that is attached to it; what is gone already is skipped."""
    remove(registry, in_registry(registry, release), with_content=False)


def in_registry(registry: RegistryClient, release: Release) -> Release:
    """The release as the registry knows it: its repository there has the definition's name."""
    return replace(release, repository=registry.repository(release.name))
