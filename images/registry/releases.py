"""Releases in the registry, read back and removed; the ledger can be rebuilt from them."""

from __future__ import annotations

import re
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from hardening.foundation.errors import ContentError, UsageError, nearest
from images.artifact import Release
from images.documents import LIFECYCLE, Document
from images.registry.answers import NotFoundError
from images.registry.client import Manifest, RegistryClient
from images.registry.references import has_host, split
from images.registry.referrers import attach, detach_all
from images.release import lifecycle
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
    """The release at a reference, by what its index says. Raises NotFoundError, and ContentError for a stranger."""
    return release_of(registry, split(reference)[0], registry.get(reference))


def release_of(registry: RegistryClient, repository: str, manifest: Manifest) -> Release:
    """The same, where its index was read already."""
    content = manifest.content(registry.settings.platform)
    if is_of_machine(manifest):  # it holds no disk, and only names the content
        content = manifest.annotations.get(f"{registry.prefix}content", content)
    return lifecycle.parse_annotations(
        manifest.annotations, registry.prefix, repository=repository, digest=manifest.digest, content=content
    )


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


def attach_end(registry: RegistryClient, repository: str, subject: Manifest, at: datetime) -> None:
    """Attach a day as the end of a release that other tools read."""
    ended = Document(LIFECYCLE, b"", {lifecycle.END_OF_LIFE: f"{at:%Y-%m-%d}"})
    attach(registry, repository, subject.descriptor, (ended,))
