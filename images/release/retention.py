"""Which releases go and which stay, each with its reason; pruning the registry of them, planned first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime

from images.artifact import Release
from images.registry.client import Registry
from images.registry.referrers import detach_all
from images.release.lifecycle import Status, status
from images.release.published import PREVIOUS, READERS, Publisher, channels_of, releases_in

__all__ = ["Decision", "plan", "prune", "remove"]


@dataclass(frozen=True)
class Decision:
    """What becomes of one release, and why."""

    release: Release
    remove: bool
    why: str


def plan(
    releases: Sequence[Release],
    running: Mapping[str, Sequence[str]],
    channels: Mapping[str, Sequence[str]],
    now: datetime,
) -> tuple[Decision, ...]:
    """Decide over `releases`, of all definitions at once: a child elsewhere holds its base here.

    `running` maps a digest (release or content) to the members that run it, `channels` a release's digest to the tags
    that point to it. Expired, revoked and superseded releases go, unless something stands on them.
    """
    held = {release: _held(release, running, channels) for release in releases}
    ended = {release: _ended(release, releases, now) for release in releases}
    kept = {release for release in releases if held[release] or not ended[release]}
    while bases := {r for r in releases if r not in kept and (child := _child_of(r, kept))}:
        for base in bases:
            child = _child_of(base, kept)
            held[base] = f"{child.name} {child.digest[:19]} is built on it" if child else ""
        kept |= bases
    return tuple(
        Decision(release, release not in kept, held[release] or ended[release] or "it is the newest")
        for release in releases
    )


def _held(release: Release, running: Mapping[str, Sequence[str]], channels: Mapping[str, Sequence[str]]) -> str:
    """Why a release must stay whatever its dates; empty when nothing holds it."""
    if members := [*running.get(release.digest, ()), *running.get(release.content, ())]:
        return f"{members[0]} runs it" + (f" and {len(members) - 1} more" if members[1:] else "")
    if tags := channels.get(release.digest, ()):
        return f"{' and '.join(sorted(tags))} {'point' if tags[1:] else 'points'} to it"
    return ""


def _ended(release: Release, releases: Sequence[Release], now: datetime) -> str:
    """Why a release is over; empty when it is not."""
    match status(release, now):
        case Status.REVOKED:
            return f"revoked: {release.revoked_reason}"
        case Status.EXPIRED:
            return f"expired on {release.expires_at:%Y-%m-%d}"
    newer = [r for r in releases if r.repository == release.repository and r.published_at > release.published_at]
    standing = [r for r in newer if status(r, now) in {Status.CURRENT, Status.WARN}]
    return f"superseded by {standing[0].digest[:19]}" if standing else ""


def _child_of(base: Release, kept: set[Release]) -> Release | None:
    """A release that stays and is built on `base`."""
    children = (r for r in kept if r.base_digest and r.base_digest in {base.content, base.digest})
    return min(children, key=lambda r: (r.name, r.digest), default=None)


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
