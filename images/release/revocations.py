"""Whether a release is revoked, by ledger and registry: it, its content, or anything that it is built on.

Whoever says so wins. A revocation is about what is inside, and a child holds its base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from images.artifact import Release
from images.ledger import Ledger

Told = tuple[datetime, str]
Ask = Callable[[str, str], Told | None]
"""What a registry says of a digest in a repository: when and why it was revoked. Raises OutsideError, and RefusedError
where its signed document is unread: unasked is not unrevoked. None where the ledger alone decides."""


@dataclass(frozen=True)
class Link:
    """A release, or something that it is built on: its name, where it is published, and its digests."""

    name: str
    repository: str
    digests: tuple[str, ...]


def revoked(ledger: Ledger, release: Release, ask: Ask | None = None) -> Release:
    """The release, revoked where ledger or registry say so of it, of its content, or of a base of it."""
    if release.revoked_at:
        return release
    own = Link(release.name, release.repository, tuple(dict.fromkeys((release.digest, release.content))))
    if said := _said(ledger, own, ask):
        at, reason = said
    elif found := revoked_base(ledger, release.base_name, release.base_digest, ask):
        base, (at, why) = found
        reason = f"its base {base.name} was revoked: {why}"
    else:
        return release
    return replace(release, revoked_at=at, revoked_reason=reason)


def revoked_by(ask: Ask, release: Release) -> Release:
    """The release with a revocation of itself or of its content that a registry tells of."""
    own = Link(release.name, release.repository, (release.digest, release.content))
    if release.revoked_at or not (told := _asked(own, ask)):
        return release
    return replace(release, revoked_at=told[0], revoked_reason=told[1])


def said_by_ledger(ledger: Ledger, release: Release) -> Release:
    """The release with a revocation that only the ledger knows of."""
    known = ledger.release(release.digest)
    if release.revoked_at or not known or not known.revoked_at:
        return release
    return replace(release, revoked_at=known.revoked_at, revoked_reason=known.revoked_reason)


def revoked_base(ledger: Ledger, repository: str, digest: str, ask: Ask | None = None) -> tuple[Link, Told] | None:
    """The first base from this one on that is revoked, and what was said of it."""
    for link in bases(ledger, repository, digest):
        if said := _said(ledger, link, ask):
            return link, said
    return None


def bases(ledger: Ledger, repository: str, digest: str) -> Iterator[Link]:
    """What stands under something, from this base on, as far as the ledger knows."""
    seen = set[str]()
    while digest and digest not in seen:
        seen.add(digest)
        yield Link(repository.rpartition("/")[2], repository, (digest,))
        under = ((one.base_name, one.base_digest) for one in over(ledger, digest) if one.base_digest)
        repository, digest = next(under, ("", ""))


def over(ledger: Ledger, digest: str) -> tuple[Release, ...]:
    """The releases that a digest means: the release's own, or those over the content."""
    known = ledger.release(digest)
    return (*((known,) if known else ()), *ledger.releases_of_content(digest))


def with_children(ledger: Ledger, releases: dict[str, Release]) -> dict[str, Release]:
    """These releases, and all that stand on them as far as the ledger knows, by digest."""
    known, found = ledger.releases(), dict(releases)
    while True:
        inside = {digest for one in found.values() for digest in (one.digest, one.content)}
        more = [one for one in known if one.base_digest in inside and one.digest not in found]
        if not more:
            return found
        found.update((one.digest, one) for one in more)


def _said(ledger: Ledger, link: Link, ask: Ask | None) -> Told | None:
    known = ledger.revoked_of(*link.digests)
    if known and known.revoked_at:
        return known.revoked_at, known.revoked_reason
    return _asked(link, ask) if ask else None


def _asked(link: Link, ask: Ask) -> Told | None:
    return next(filter(None, (ask(link.repository, digest) for digest in link.digests)), None)
