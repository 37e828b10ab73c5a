"""The cooldown: how long what others publish is left alone after it was first seen here. Pure.

What counts is our own first sight, or a date that a trusted key signed; never the date that an image or package claims.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from images.artifact import Package

SKEW = timedelta(hours=1)
"""How far the clocks of machines that share a ledger may differ."""
LEAP = timedelta(days=90)
"""A clock that is further than this after the last look was wrong then or is wrong now: nothing is aged by it."""
STOOD = 4
"""A tag's digest that was replaced meanwhile must have stood for this part of the cooldown: what was withdrawn within
hours, as a poisoned release is, is never taken.
"""


TAG, SOURCE = "tag", "source"
"""What is seen: a tag in a registry, whose versions are digests; a source of packages outside the archive."""


@dataclass(frozen=True)
class Sight:
    """When a version was first seen, and last; `since` is None for what was taken, or there, before anything else."""

    version: str
    since: datetime | None
    last: datetime


@dataclass(frozen=True)
class Sights:
    """What was seen of one tag, or of one source of packages; `looked` is when somebody last looked."""

    seen: tuple[Sight, ...] = ()
    looked: datetime | None = None

    def of(self, version: str) -> Sight | None:
        """The sight of a version, if it was ever seen."""
        return next((one for one in self.seen if one.version == version), None)

    @property
    def newest(self) -> str:
        """The version that the last look found, where a look finds one; empty without any look."""
        return max(self.seen, key=lambda one: one.last).version if self.seen else ""


def look(known: Sights, offered: Collection[str], now: datetime, settled: Collection[str] = ()) -> Sights:
    """What is known after a look at `now` that found the versions `offered`; those `settled` need not wait.

    A clock that went back, or leapt, since the last look says nothing of how long a thing was there: whatever waits
    then begins again, so that its wait is neither shortened nor longer than one more cooldown.
    """
    moved = known.looked is not None and not known.looked - SKEW <= now <= known.looked + LEAP
    present = now if known.looked is None or moved else max(now, known.looked)
    kept = (
        [replace(one, last=min(one.last, now - SKEW)) for one in known.seen if not one.since] if moved else known.seen
    )
    seen = {one.version: one for one in kept}
    for version in offered:
        one = seen.get(version) or Sight(version, None if version in settled else present, present)
        seen[version] = replace(one, last=present)
    return Sights(tuple(seen.values()), present)


def until(sight: Sight | None, cooldown: timedelta, now: datetime, signed: datetime | None = None) -> datetime | None:
    """Until when a version waits; None where it need not any longer. `signed`: it was there then, by a trusted key."""
    if sight is None:
        return now + cooldown if cooldown else None
    if sight.since is None or not cooldown:
        return None
    since = min(sight.since, signed) if signed and signed <= now else sight.since
    return since + cooldown if now < since + cooldown else None


@dataclass(frozen=True)
class TagChoice:
    """What a lock may move to: `digest`, or nothing where that is empty; `newest` is what the tag names.

    `until`: when the newest one may be taken, where it has to wait; `because` says why in words.
    """

    digest: str
    newest: str
    until: datetime | None
    because: str


def choose(
    sights: Sights, pinned: str, newest: str, cooldown: timedelta, now: datetime, urgent: Collection[str] = ()
) -> TagChoice:
    """What the lock of a tag may move to: the newest digest that is old enough; at once what fixes `urgent` holes."""
    if newest == pinned:
        return TagChoice("", newest, None, "the tag names what is pinned")
    if not pinned:
        return TagChoice(newest, newest, None, "nothing was pinned before")
    wait = until(sights.of(newest), cooldown, now)
    if wait is None:
        return TagChoice(newest, newest, None, "it was seen for long enough" if cooldown else "there is no cooldown")
    if urgent:
        return TagChoice(newest, newest, None, f"it fixes {', '.join(sorted(urgent))}, which does not wait")
    older = _older(sights, pinned, newest, cooldown, now)
    because = "an older one than the tag names now was seen for long enough" if older else "it waits out its cooldown"
    return TagChoice(older, newest, wait, because)


def _older(sights: Sights, pinned: str, newest: str, cooldown: timedelta, now: datetime) -> str:
    """The newest digest that the tag named after what is pinned, long enough ago and for long enough; else nothing."""
    before = sights.of(pinned)
    began = before.since if before else None
    fit = [
        (one.since, one.version)
        for one in sights.seen
        if one.since and one.version not in (pinned, newest) and (began is None or one.since > began)
        and until(one, cooldown, now) is None and one.last - one.since >= cooldown / STOOD
    ]  # fmt: skip
    return max(fit)[1] if fit and before else ""


@dataclass(frozen=True, order=True)
class Offer:
    """A package that a source outside the distribution's archive has; `signed` is the date of its signed index.

    `built_from` and `source_version` are of its source package.
    """

    source: str
    name: str
    version: str
    sha256: str
    signed: datetime | None = None
    built_from: str = ""
    source_version: str = ""

    @property
    def package(self) -> Package:
        """The package, as far as it is known here."""
        return Package(self.name, self.version, "", self.sha256, self.built_from, source_version=self.source_version)

    @property
    def key(self) -> str:
        """What tells it from every other package of its source."""
        return f"{self.name}={self.version} {self.sha256}"


@dataclass(frozen=True, order=True)
class Waiting:
    """A version of a package that is not taken yet, from whom, and until when."""

    name: str
    version: str
    until: datetime
    offer: Offer

    def __str__(self) -> str:
        return f"{self.name} {self.version} waits out its cooldown until {self.until:%Y-%m-%d %H:%M} UTC"


def waiting(offers: Iterable[Offer], sights: Sights, cooldown: timedelta, now: datetime) -> tuple[Waiting, ...]:
    """The offers that have to wait, by name and version."""
    told = ((one, until(sights.of(one.key), cooldown, now, one.signed)) for one in offers)
    return tuple(sorted(Waiting(one.name, one.version, end, one) for one, end in told if end))
