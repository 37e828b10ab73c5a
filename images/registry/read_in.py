"""What a registry tells of its releases, read into a lost ledger: the truth about what was published, and no more.

What was judged and checked is told there, by whoever may push: it is kept as told, and is no evidence. Nothing that it
tells takes the place of what this ledger was told by a build or a scan of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardening.foundation.errors import MalformedError
from images.artifact import Artifact, Release
from images.registry.releases import releases_in
from images.registry.show import AttachedDocuments
from images.release.revocations import said_by_ledger

if TYPE_CHECKING:
    from images.registry.release_store import RegistryStore


def read_in(to: RegistryStore, name: str) -> tuple[Release, ...]:
    """Write the releases of a definition into the ledger. Raises MalformedError where one cannot be read."""
    releases = releases_in(to.registry, name, to.prefix)
    for release in reversed(releases):  # the oldest first: what was said last of a content stands
        to.ledger.record_release(said_by_ledger(to.ledger, release))
        _judgements(to, release)
    return releases


def _judgements(to: RegistryStore, release: Release) -> None:
    """The artifact behind a release, and what was said of its content."""
    found, content = AttachedDocuments(to.registry, release, to.prefix), release.content
    if artifact := found.artifact:
        _artifact(to, _of(release, artifact))
    ours = to.ledger.scan(content)
    if (scan := found.scan) and not (ours and ours.inputs):  # a scan of our own says what it was made from
        to.ledger.record_scan(content, scan, release.published_at)
    if verdict := found.verdict:
        to.ledger.record_verdict(content, verdict, told=True)
    if checks := found.checks:
        to.ledger.record_checks(content, checks, release.published_at, told=True)


def _artifact(to: RegistryStore, told: Artifact) -> None:
    """Keep an artifact, unless what this ledger says was built from these inputs is here: nobody needs to be told."""
    known = to.ledger.artifact_by_input(told.name, told.platform, told.input_digest)
    if known is None or not to.store.whole(known.digest):
        to.ledger.record_artifact(told)


def _of(release: Release, artifact: Artifact) -> Artifact:
    """The artifact, if it is the release's own. Raises MalformedError: else another content would pass for a build."""
    wanted = (release.name, release.content, release.input_digest)
    if (artifact.name, artifact.digest, artifact.input_digest) != wanted:
        raise MalformedError(
            f"the provenance of {release.repository}@{release.digest} is about {artifact.name} {artifact.digest[:19]}",
            hint="who can write to that repository? remove it there, and publish again",
        )
    return artifact
