"""A lost ledger is filled again from the registry, which is the truth about what was published, and about no more.

What was judged and checked is told there, by whoever may push: it is kept as told, and is no evidence. Nothing that it
tells takes the place of what this ledger was told by a build or a scan of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, MalformedError
from images.artifact import Artifact, Release
from images.ledger import Move
from images.registry.referrers import attached
from images.release.published import CHANNELS, PREVIOUS, Publisher, channels_of, releases_in
from images.release.show import Papers


def rebuild(to: Publisher, names: Iterable[str]) -> tuple[tuple[Release, ...], tuple[GoldsmithError, ...]]:
    """Write into the ledger what the registry knows of `names`: releases, revocations, channels, artifacts, judgements.

    Lines of what was never published (rollouts, audit, days of first sight) cannot come back. Run again, it changes
    nothing; returns the releases, and what could not be read: that stops no other image.
    """
    found, errors = list[Release](), list[GoldsmithError]()
    for name in names:
        try:
            found += _one(to, name)
        except MalformedError as error:
            say(f"{name} is passed over: {error.message}")
            errors.append(error)
    to.note("rebuild", "ledger", f"{len(found)} releases read from {to.registry.address}")
    return tuple(found), tuple(errors)


def _one(to: Publisher, name: str) -> tuple[Release, ...]:
    releases = releases_in(to.registry, name, to.prefix)
    for release in reversed(releases):  # the oldest first: what was said last of a content stands
        to.ledger.record_release(_never_unrevoked(to, release))
        _judgements(to, release)
    _channels(to, to.registry.repository(name))
    return releases


def _never_unrevoked(to: Publisher, release: Release) -> Release:
    """The release, revoked where the ledger already knows that: a registry that forgot it takes nothing back."""
    known = to.ledger.release(release.digest)
    return known if known and known.revoked_at and not release.revoked_at else release


def _judgements(to: Publisher, release: Release) -> None:
    """The artifact behind a release, and what was said of its content."""
    repository, content = release.repository, release.content
    papers = Papers(
        to.registry,
        repository,
        attached(to.registry, repository, release.digest),
        attached(to.registry, repository, content),
        f"{to.prefix}input-digest",
        release.input_digest,
    )
    if artifact := papers.artifact:
        _artifact(to, _of(release, artifact))
    ours = to.ledger.scan(content)
    if (scan := papers.scan) and not (ours and ours.inputs):  # a scan of our own says what it was made from
        to.ledger.record_scan(content, scan, release.published_at)
    if verdict := papers.verdict:
        to.ledger.record_verdict(content, verdict, told=True)
    if checks := papers.checks:
        to.ledger.record_checks(content, checks, release.published_at, told=True)


def _artifact(to: Publisher, told: Artifact) -> None:
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


def _channels(to: Publisher, repository: str) -> None:
    """Each channel's last move, and the one before it, so that a rollback knows where to go."""
    tags = channels_of(to.registry, repository)
    for channel in CHANNELS:
        present = tags.get(channel)
        if not present or to.ledger.moves(repository, channel):
            continue
        for digest in dict.fromkeys([tags.get(f"{channel}{PREVIOUS}") or present, present]):
            to.ledger.record_move(Move(repository, channel, digest, to.now, "rebuild"))
