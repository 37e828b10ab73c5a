"""Releases in the registry, read back and removed; the ledger can be rebuilt from them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

from hardening.foundation.errors import ContentError, MalformedError, UsageError, nearest
from images.artifact import Release
from images.documents import LIFECYCLE, REVOCATION, Document
from images.registry.answers import NotFoundError
from images.registry.client import Manifest, RegistryClient
from images.registry.references import has_host, split
from images.registry.referrers import attach, attached, detach_all, latest
from images.release import lifecycle
from images.release.revocations import Ask, Told
from images.release.store import CHANNELS, PREVIOUS

DATED = re.compile(r"\d{8}-[0-9a-f]{6}")
READERS = 8
MACHINE_RELEASE = "application/vnd.dev.goldsmith.machine.release.v1+json"


def reference_of(registry: RegistryClient, ref: str, known: Collection[str] = ()) -> str:
    """What a person types as a full reference: a definition's name alone means its stable release, else its candidate.

    `name:tag` and `name@digest` stand in our registry; anything with another registry's address stays as it is.
    Raises NotFoundError where nothing is published under a name; of `known` it suggests the nearest.
    """
    repository, wanted = split(ref)
    if not has_host(repository):
        repository = registry.repository(repository)
    if wanted:
        return f"{repository}{'@' if wanted.startswith('sha256:') else ':'}{wanted}"
    for channel in reversed(CHANNELS):
        if registry.find(f"{repository}:{channel}"):
            return f"{repository}:{channel}"
    name = repository.rpartition("/")[2]
    publish = f"./goldsmith image.publish {name} publishes to the candidate channel"
    hint = nearest(name, known) if known and name not in known else publish
    raise NotFoundError(f"nothing is published as {repository}", hint=hint)


def release_at(registry: RegistryClient, reference: str) -> Release:
    """The release at a reference, with a revocation that its registry holds, of the release or of what is inside.

    Raises NotFoundError, ContentError for a stranger, and MalformedError for a revocation that cannot be read.
    """
    return release_of(registry, split(reference)[0], registry.get(reference))


def release_of(registry: RegistryClient, repository: str, manifest: Manifest) -> Release:
    """The same, where its index was read already."""
    content = manifest.content(registry.settings.platform)
    if is_of_machine(manifest):  # it holds no disk, and only names the content
        content = manifest.annotations.get(f"{registry.prefix}content", content)
    release = lifecycle.parse_annotations(
        manifest.annotations, registry.prefix, repository=repository, digest=manifest.digest, content=content
    )
    for subject in dict.fromkeys((release.digest, release.content)):
        if said := revocation_of(registry, repository, subject):
            at, reason = said
            return replace(release, revoked_at=at, revoked_reason=reason)
    return release


def dated_tag_of(registry: RegistryClient, release: Release) -> Manifest | None:
    """What the dated tag of a release names; None where it is not there. Raises UsageError for another manifest."""
    tag = f"{release.repository}:{lifecycle.dated_tag(release)}"
    found = registry.find(tag)
    if found and found.digest != release.digest:
        raise UsageError(f"{tag} is another release: {found.digest}", hint="publish again tomorrow")
    return found


def is_of_machine(manifest: Manifest) -> bool:
    """Whether a manifest is that of a machine's release, which stands at AWS."""
    return manifest.data.get("artifactType") == MACHINE_RELEASE


def releases_in(registry: RegistryClient, name: str) -> tuple[Release, ...]:
    """Every container's release that a repository holds, the newest first. What is not ours is passed over."""
    repository = registry.repository(name)
    tags = [tag for tag in registry.tags(repository) if DATED.fullmatch(tag) or tag.startswith(CHANNELS)]
    with ThreadPoolExecutor(READERS) as pool:
        tagged = pool.map(lambda tag: registry.find(f"{repository}:{tag}"), tags)
        unique = {manifest.digest: manifest for manifest in tagged if manifest}
        found = pool.map(lambda one: _release_or_none(registry, repository, one), unique.values())
        return lifecycle.newest_first(release for release in found if release)


def channels_of(registry: RegistryClient, repository: str) -> dict[str, str]:
    """Where the channels of a repository point, those to roll back to included: tag → digest."""
    tags = [tag for tag in registry.tags(repository) if tag.removesuffix(PREVIOUS) in CHANNELS]
    found = {tag: registry.find(f"{repository}:{tag}") for tag in tags}
    return {tag: manifest.digest for tag, manifest in found.items() if manifest}


def remove(registry: RegistryClient, release: Release, *, with_content: bool) -> None:
    """Remove a release with all that is attached to it, and its content where nothing else needs that."""
    detach_all(registry, release.repository, release.digest)
    if with_content:
        detach_all(registry, release.repository, release.content)
        registry.delete(release.repository, release.content)
    registry.delete(release.repository, release.digest)


def _release_or_none(registry: RegistryClient, repository: str, manifest: Manifest) -> Release | None:
    """The release of a container; of a machine only the evidence stands here."""
    try:
        return None if is_of_machine(manifest) else release_of(registry, repository, manifest)
    except ContentError:  # somebody else's tag
        return None


def revocation_of(registry: RegistryClient, repository: str, subject: str) -> Told | None:
    """When and why what has the digest `subject` was revoked, as the repository tells it."""
    revocation = latest(attached(registry, repository, subject), REVOCATION)
    return _told(revocation.annotations, registry.prefix, f"{repository}@{subject}") if revocation else None


def attach_revocation(
    registry: RegistryClient, repository: str, subject: Manifest, reason: str, at: datetime, *, ends: bool
) -> bool:
    """Attach a revocation, with `ends` also the day as the end that other tools read; False where one is there."""
    if latest(attached(registry, repository, subject.digest), REVOCATION):
        return False
    said = {f"{registry.prefix}revoked-at": lifecycle.timestamp(at), f"{registry.prefix}revoked-reason": reason}
    ended = Document(LIFECYCLE, b"", {lifecycle.END_OF_LIFE: f"{at:%Y-%m-%d}"})
    revocation = Document(REVOCATION, b"", said)
    attach(registry, repository, subject.descriptor, (ended, revocation) if ends else (revocation,))
    return True


def revocations_in(registry: RegistryClient) -> Ask:
    """What a registry tells of its own repositories, and nothing of others'."""

    def ask(repository: str, digest: str) -> Told | None:
        ours = repository.startswith(registry.repository(""))
        return revocation_of(registry, repository, digest) if ours else None

    return ask


def _told(said: Mapping[str, str], prefix: str, what: str) -> Told:
    try:
        return lifecycle.moment(said[f"{prefix}revoked-at"]), said.get(f"{prefix}revoked-reason", "")
    except (KeyError, ValueError) as error:
        hint = "it counts as no pass: remove it from the registry, and let ./goldsmith image.revoke say it well"
        raise MalformedError(f"the revocation of {what} is malformed: {error}", hint=hint) from None
