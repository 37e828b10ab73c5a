"""The cooldown: how long upstream images and packages wait after they were first seen here. Pure.

What counts is our own first sight, or a date that a trusted key signed; never the date that an image or package claims.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from images.artifact import Package

SKEW = timedelta(hours=1)
"""How far the clocks of machines that share a ledger may differ."""
INSTANT = timedelta(microseconds=1)
LEAP = timedelta(days=90)
"""A clock that is further than this after the last look was wrong then or is wrong now: nothing is aged by it."""
STOOD = 4
"""A tag's digest that was replaced meanwhile must have stood for this part of the cooldown: what was withdrawn within
hours, as a poisoned release is, is never taken.
"""
RESTLESS = 2
"""A tag that has moved, and of which nothing could be taken for this many cooldowns, moves too often."""


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
    """What was seen of one tag, or of one source of packages; `looked` is the time of the last check.

    `dated`: of a source, the date of the newest index that anybody has looked at.
    """

    seen: tuple[Sight, ...] = ()
    looked: datetime | None = None
    dated: datetime | None = None

    def of(self, version: str) -> Sight | None:
        """The sight of a version, if it was ever seen."""
        return next((one for one in self.seen if one.version == version), None)

    @property
    def newest(self) -> str:
        """The version that the last look found, where a look finds one; empty without any look."""
        return max(self.seen, key=lambda one: one.last).version if self.seen else ""


@dataclass(frozen=True)
class TagLook:
    """One check, at a moment, of a tag that fleets follow. `closes`: by fleet, the grave vulnerabilities of its members
    that what the tag names fixes, if known.
    """

    at: datetime
    sights: Sights
    closes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def look(known: Sights, offered: Collection[str], now: datetime, settled: Collection[str] = ()) -> Sights:
    """What is known of a tag after a look at `now` that found the versions `offered`; those `settled` need not wait.

    What was not there at the look before begins again, whatever was known of it. A clock that went back, or leapt,
    since the last look says nothing of how long a thing was there: whatever waits then begins again, so that its wait
    is neither shortened nor longer than one more cooldown.
    """
    present, seen = _before(known, now)
    returned = {one.version for one in known.seen if known.looked and one.last < known.looked}
    for version in offered:
        one = seen.get(version) or Sight(version, None if version in settled else present, present)
        seen[version] = Sight(version, present if version in returned else one.since, present)
    return Sights(tuple(seen.values()), present)


def look_at_index(known: Sights, offered: Mapping[str, datetime | None], now: datetime) -> Sights:
    """What is known of a source of packages after a look that found all of its versions, each with its signed date.

    A signed date lets a version be older than its first sight, but not than the look before, which did not find it;
    what the first look of all finds need not wait. What is gone is forgotten, so that it waits again when it comes
    back, unless another machine has looked at a newer index than this one.
    """
    present, seen = _before(known, now)
    earliest = known.looked if known.looked and known.looked <= now <= known.looked + LEAP else present
    for version, signed in offered.items():
        since = max(earliest, signed) if signed and signed <= present else present
        one = seen.get(version) or Sight(version, since if known.looked else None, present)
        seen[version] = replace(one, last=present)
    dates = [min(signed, present) for signed in offered.values() if signed]
    stale = bool(dates and known.dated and max(dates) < known.dated)
    kept = (one for one in seen.values() if stale or one.version in offered)
    return Sights(tuple(kept), present, max([*dates, *([known.dated] if known.dated else [])], default=None))


def _before(known: Sights, now: datetime) -> tuple[datetime, dict[str, Sight]]:
    """The moment of a look, and what still counts of what was known by then, all of it last seen before."""
    moved = known.looked is not None and not known.looked - SKEW <= now <= known.looked + LEAP
    present = now if known.looked is None or moved else max(now, known.looked)
    earlier = now - SKEW if moved else present - INSTANT
    kept = [replace(one, last=min(one.last, earlier)) for one in known.seen if not (moved and one.since)]
    return present, {one.version: one for one in kept}


def until(sight: Sight | None, cooldown: timedelta, now: datetime) -> datetime | None:
    """Until when a version waits; None where it need not any longer."""
    if sight is None:
        return now + cooldown if cooldown else None
    if sight.since is None or not cooldown:
        return None
    return sight.since + cooldown if now < sight.since + cooldown else None


@dataclass(frozen=True)
class TagChoice:
    """What a pin may move to: `digest`, or nothing if that is empty; `newest` is what the tag names.

    `until`: when the newest one may be taken, where it has to wait; `because` says why in words. `restless`: nothing
    could be taken for long, since the tag moves too often, so that a person should act.
    """

    digest: str
    newest: str
    until: datetime | None
    because: str
    restless: bool = False


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
    return _while_it_waits(sights, pinned, newest, cooldown, now, wait)


def take(sights: Sights, newest: str, cooldown: timedelta, now: datetime, urgent: Collection[str] = ()) -> TagChoice:
    """What of a tag may be taken where nothing is pinned: as `choose`, but what was first seen waits as well."""
    wait = until(sights.of(newest), cooldown, now)
    if wait is None:
        return TagChoice(newest, newest, None, "it was seen for long enough" if cooldown else "there is no cooldown")
    if urgent:
        return TagChoice(newest, newest, None, f"it fixes {', '.join(sorted(urgent))}, which does not wait")
    older = [one for one in sights.seen if _stood(one, newest, cooldown, now)]
    if older:
        return TagChoice(max(older, key=lambda one: one.last).version, newest, wait, "it waits out its cooldown")
    return _waits(newest, wait, sights.seen, cooldown, now)


def _while_it_waits(
    sights: Sights, pinned: str, newest: str, cooldown: timedelta, now: datetime, wait: datetime
) -> TagChoice:
    """An older digest than the one that waits, where the tag named one for long enough after what is pinned."""
    later = _later(sights, pinned)
    older = [one for one in later if _stood(one, newest, cooldown, now)] if sights.of(pinned) else []
    if older:
        digest = max(older, key=lambda one: one.last).version
        return TagChoice(digest, newest, wait, "an older one than the tag names now was seen for long enough")
    return _waits(newest, wait, later, cooldown, now)


def _waits(newest: str, wait: datetime, seen: Iterable[Sight], cooldown: timedelta, now: datetime) -> TagChoice:
    """No choice yet: no version that was `seen` stayed for long enough, however long that goes on."""
    restless = any(since + RESTLESS * cooldown <= now for one in seen if (since := one.since))
    often = "the tag moves so often that nothing was seen for long enough, and this one waits out its cooldown"
    return TagChoice("", newest, wait, often if restless else "it waits out its cooldown", restless)


def _later(sights: Sights, pinned: str) -> list[Sight]:
    """What the tag was first seen to name after what is pinned, and last too: a lock never goes back."""
    before = sights.of(pinned)
    began, last = (before.since, before.last) if before else (None, None)
    return [
        one for one in sights.seen
        if one.since and (last is None or one.last > last) and (began is None or one.since > began)
    ]  # fmt: skip


def _stood(one: Sight, newest: str, cooldown: timedelta, now: datetime) -> bool:
    """Whether the tag named an older one than the newest long enough ago, and for long enough."""
    if one.since is None or one.version == newest or until(one, cooldown, now):
        return False
    return one.last - one.since >= cooldown / STOOD


@dataclass(frozen=True, order=True)
class Offer:
    """A package that a source outside the distribution's archive has; `signed` is the date of its index, if signed.

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
    """A version of a package that waits in its cooldown, its source, and until when."""

    name: str
    version: str
    until: datetime
    offer: Offer

    def __str__(self) -> str:
        return f"{self.name} {self.version} waits out its cooldown until {self.until:%Y-%m-%d %H:%M} UTC"


def waiting(offers: Iterable[Offer], sights: Sights, cooldown: timedelta, now: datetime) -> tuple[Waiting, ...]:
    """The offers that have to wait, by name and version."""
    told = ((one, until(sights.of(one.key), cooldown, now)) for one in offers)
    return tuple(sorted(Waiting(one.name, one.version, end, one) for one, end in told if end))
