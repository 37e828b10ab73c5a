"""Which releases go and which stay, each with its reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from images.artifact import Release
from images.release.lifecycle import Status, status


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
