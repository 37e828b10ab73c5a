"""Pruning the registry: what is over goes, with everything attached to it. Planned first, applied on request.

A release's index goes last: a run that fails in the middle leaves it to be found, and the next one goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from images.artifact import Release
from images.publication.published import PREVIOUS, READERS, Publisher, channels_of, releases_in
from images.publication.referrers import detach_all
from images.publication.registry import Registry
from images.publication.retention import Decision, plan

__all__ = ["Decision", "plan", "prune", "remove"]


def prune(to: Publisher, names: Iterable[str], *, apply: bool) -> tuple[Decision, ...]:
    """Decide over every release of `names`, and with `apply` remove what may go.

    `names` should be all definitions ever published: a child that is not looked at cannot hold its base.
    """
    names = set(names)
    every = sorted({*names, *(release.name for release in to.ledger.releases())})
    with ThreadPoolExecutor(READERS) as pool:
        releases = [r for found in pool.map(lambda n: releases_in(to.registry, n, to.prefix), every) for r in found]
        tags = list(pool.map(lambda n: channels_of(to.registry, to.registry.repository(n)), every))
    told = [_told(to, release) for release in releases]
    decisions = plan(told, to.ledger.running_digests(), _pointing(tags, told), to.now)
    mine = tuple(decision for decision in decisions if decision.release.name in names)
    if apply:
        _apply(to, mine, {(d.release.repository, d.release.content) for d in decisions if not d.remove})
    return mine


def remove(registry: Registry, release: Release, *, with_content: bool) -> None:
    """Remove a release with all that is attached to it, and its content where nothing else needs that."""
    detach_all(registry, release.repository, release.digest)
    if with_content:
        detach_all(registry, release.repository, release.content)
        registry.delete(release.repository, release.content)
    registry.delete(release.repository, release.digest)


def _apply(to: Publisher, decisions: Sequence[Decision], needed: set[tuple[str, str]]) -> None:
    """Remove what is to go; `needed` are the contents, by repository, that a release which stays is over."""
    for release, why in ((decision.release, decision.why) for decision in decisions if decision.remove):
        remove(to.registry, release, with_content=(release.repository, release.content) not in needed)
        if to.ledger.release(release.digest) is None:
            to.ledger.record_release(release)
        to.ledger.mark_pruned(release.digest, to.now)
        to.note("prune", f"{release.repository}@{release.digest}", why)


def _told(to: Publisher, release: Release) -> Release:
    """The release with a revocation that only the ledger knows of."""
    known = to.ledger.release(release.digest)
    if release.revoked_at or not known or not known.revoked_at:
        return release
    return replace(release, revoked_at=known.revoked_at, revoked_reason=known.revoked_reason)


def _pointing(tags: Sequence[dict[str, str]], releases: Sequence[Release]) -> dict[str, list[str]]:
    """Digest → the tags that hold it. A revoked release is nothing to go back to, so `-previous` does not hold it."""
    revoked = {release.digest for release in releases if release.revoked_at}
    found: dict[str, list[str]] = {}
    for tag, digest in (pair for each in tags for pair in each.items()):
        if not (tag.endswith(PREVIOUS) and digest in revoked):
            found.setdefault(digest, []).append(tag)
    return found
