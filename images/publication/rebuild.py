"""A lost ledger is filled again from the registry, which is the truth about what was published."""

from __future__ import annotations

from collections.abc import Iterable

from images.artifact import Release
from images.ledger import Move
from images.publication.published import CHANNELS, PREVIOUS, Publisher, channels_of, releases_in
from images.publication.referrers import attached
from images.publication.show import Papers


def rebuild(to: Publisher, names: Iterable[str]) -> tuple[Release, ...]:
    """Write into the ledger what the registry knows of `names`: releases, revocations, channels, artifacts, judgements.

    Lines of what was never published (rollouts, audit, days of first sight) cannot come back. Run again, it changes
    nothing; returns the releases.
    """
    found: list[Release] = []
    for name in names:
        releases = releases_in(to.registry, name, to.prefix)
        for release in reversed(releases):  # the oldest first: what was said last of a content stands
            to.ledger.record_release(release)
            _judgements(to, release)
        _channels(to, to.registry.repository(name))
        found.extend(releases)
    to.note("rebuild", "ledger", f"{len(found)} releases read from {to.registry.address}")
    return tuple(found)


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
        to.ledger.record_artifact(artifact)
    if checks := papers.checks:
        to.ledger.record_checks(content, checks, release.published_at)
    if scan := papers.scan:
        to.ledger.record_scan(content, scan, release.published_at)
    if verdict := papers.verdict:
        to.ledger.record_verdict(content, verdict)


def _channels(to: Publisher, repository: str) -> None:
    """Each channel's last move, and the one before it, so that a rollback knows where to go."""
    tags = channels_of(to.registry, repository)
    for channel in CHANNELS:
        present = tags.get(channel)
        if not present or to.ledger.moves(repository, channel):
            continue
        for digest in dict.fromkeys([tags.get(f"{channel}{PREVIOUS}") or present, present]):
            to.ledger.record_move(Move(repository, channel, digest, to.now, "rebuild"))
