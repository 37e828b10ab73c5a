"""Removal of a registry's releases that are over, planned first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from images.artifact import Release
from images.registry.client import Registry
from images.registry.referrers import detach_all
from images.registry.releases import READERS, channels_of, releases_in
from images.release.retention import Decision, plan
from images.release.revocations import said_by_ledger
from images.release.store import PREVIOUS

if TYPE_CHECKING:
    from images.registry.release_store import RegistryStore


def prune(to: RegistryStore, names: Iterable[str], *, apply: bool) -> tuple[Decision, ...]:
    """Decide over every release of `names`, and with `apply` remove what may go.

    `names` should be all definitions ever published: a child that is not looked at cannot hold its base.
    """
    names = set(names)
    every = sorted({*names, *(release.name for release in to.ledger.releases())})
    with ThreadPoolExecutor(READERS) as pool:
        releases = [r for found in pool.map(lambda n: releases_in(to.registry, n, to.prefix), every) for r in found]
        tags = list(pool.map(lambda n: channels_of(to.registry, to.registry.repository(n)), every))
    told = [said_by_ledger(to.ledger, release) for release in releases]
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


def _apply(to: RegistryStore, decisions: Sequence[Decision], needed: set[tuple[str, str]]) -> None:
    """Remove what is to go; `needed` are the contents, by repository, that a release which stays is over."""
    for release, why in ((decision.release, decision.why) for decision in decisions if decision.remove):
        remove(to.registry, release, with_content=(release.repository, release.content) not in needed)
        if to.ledger.release(release.digest) is None:
            to.ledger.record_release(release)
        to.ledger.mark_pruned(release.digest, to.now)
        to.note("prune", f"{release.repository}@{release.digest}", why)


def _pointing(tags: Sequence[dict[str, str]], releases: Sequence[Release]) -> dict[str, list[str]]:
    """Digest → the tags that hold it. A revoked release is nothing to go back to, so `-previous` does not hold it."""
    revoked = {release.digest for release in releases if release.revoked_at}
    found: dict[str, list[str]] = {}
    for tag, digest in (pair for each in tags for pair in each.items()):
        if not (tag.endswith(PREVIOUS) and digest in revoked):
            found.setdefault(digest, []).append(tag)
    return found
