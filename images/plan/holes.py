"""Which vulnerabilities newer packages fix, by the tracker's data, CISA's list and the scans in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from functools import cached_property

from hardening.evaluation import CLOCK_SKEW
from hardening.findings import FindingKind
from hardening.foundation.durations import shown
from hardening.foundation.errors import OutsideError
from hardening.model import Severity
from images import feeds
from images.advisories import Advisories, Advisory, is_before
from images.artifact import Artifact, Package
from images.context import Context
from images.feeds import indexed
from images.model import Bootstrap
from images.plan.freshness import Urgency
from images.scan.base import Feed


class KnownHoles:
    """What is known today. `missing` says what could not be queried, and why; it is filled as questions come.

    `last` gives the newest artifact of a definition.
    """

    def __init__(self, context: Context, last: Callable[[str], Artifact | None] | None = None) -> None:
        self.context = context
        self._last = last or (lambda name: context.ledger.latest_artifact(name, context.settings.platform))
        self.missing: dict[str, str] = {}
        self._by_suite: dict[str, Advisories] = {}

    def open_in(self, suite: str, package: Package) -> tuple[Advisory, ...]:
        """The advisories that concern a package of a suite; none where there is no data, which `missing` then says."""
        return self._advisories(suite).concerning(package)

    def closed(self, suite: str, old: Package, new: Package) -> tuple[str, ...]:
        """The vulnerabilities that `old` has, and `new` no longer."""
        before = {one.id for one in self.open_in(suite, old)}
        return tuple(sorted(before - {one.id for one in self.open_in(suite, new)})) if before else ()

    def grave_closed_between(
        self, bootstrap: Bootstrap, old: Iterable[Package], new: Iterable[Package]
    ) -> tuple[str, ...]:  # fmt: skip
        """The grave ones that a system of the `old` packages has, and one of the `new` ones provably no longer.

        What an image says of itself proves nothing: the fixed source package must still be there, all of it in
        versions that the distribution's own archive has.
        """
        was, now = list(old), list(new)
        found = {one for package in was for one in self.open_in(bootstrap.suite, package) if self.grave([one.id])}
        still = {one.id for package in now for one in self.open_in(bootstrap.suite, package)}
        if not {one.id for one in found} - still:
            return ()
        archive = self.context.index.in_archive(bootstrap, {package.name for package in now})
        still |= {one.id for one in found if not _is_fixed(one, was, now, archive)}
        return tuple(sorted({one.id for one in found} - still))

    def grave_closed_by_offer(self, bootstrap: Bootstrap, old: Package, new: Package) -> tuple[str, ...]:
        """The grave ones that `old` has, and the same of a newer version from outside the archive no longer.

        None of another source package, and none where the distribution's archive has the package: it fixes that itself.
        """
        known = {one.id for one in self.open_in(bootstrap.suite, old) if one.fixed}
        found = self.grave(one for one in self.closed(bootstrap.suite, old, new) if one in known)
        if not found or new.built_from[0] != old.built_from[0]:
            return ()
        return () if self.context.index.in_archive(bootstrap, [new.name]) else found

    def grave(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Those that are known to be exploited, or that a scanner here called critical: their fix does not wait."""
        return tuple(one for one in ids if one in self.exploited or one in self.critical)

    def urgency(self, ids: Iterable[str], words: Iterable[str] = ()) -> Urgency:
        """How urgent a fix of these vulnerabilities is; `words`: what the distribution says of their severity."""
        known = set(ids)
        if known & self.exploited:
            return Urgency.EXPLOITED
        if known & self.critical:
            return Urgency.CRITICAL
        return Urgency.HIGH if "high" in words else Urgency.NORMAL

    def words(self, suite: str, package: Package) -> tuple[str, ...]:
        """What the distribution says of the severity of what concerns a package."""
        return tuple(one.word for one in self.open_in(suite, package))

    @cached_property
    def exploited(self) -> frozenset[str]:
        """The vulnerabilities that are known to be exploited."""
        try:
            found = feeds.exploited(self.context.settings, self.context.now)
        except OutsideError as error:
            self.missing["known exploited vulnerabilities"] = error.message
            return frozenset()
        if found.feed is None:
            self.missing["known exploited vulnerabilities"] = found.missing or "turned off by the settings (feeds.kev)"
        elif found.feed.note:
            self.missing["known exploited vulnerabilities"] = found.feed.note
        return found.ids

    @cached_property
    def critical(self) -> frozenset[str]:
        """The vulnerabilities that a scanner called critical in the newest artifact of a definition."""
        newest = map(self._last, self.context.definitions)
        scans = (self.context.ledger.scan(one.digest, one.name) for one in newest if one)
        return frozenset(
            one.id for scan in scans if scan for one in scan.findings
            if one.kind is FindingKind.VULNERABILITY and one.severity is Severity.CRITICAL
        )  # fmt: skip

    def _advisories(self, suite: str) -> Advisories:
        if suite not in self._by_suite:
            self._by_suite[suite] = self._read(suite)
        return self._by_suite[suite]

    def _read(self, suite: str) -> Advisories:
        what = f"vulnerabilities of {suite or 'an unknown suite'}"
        try:
            feed = indexed.tracker(self.context.settings, suite, self.context.now)
            found = indexed.advisories(feed, suite)
        except OutsideError as error:
            self.missing[what] = error.message
            return Advisories()
        if why := feed.note or unfit(feed, self._longest(), self.context.now):
            self.missing[what] = f"{feed.source}: {why}"
        return found

    def _longest(self) -> timedelta:
        """How old the default policy accepts data."""
        return self.context.policy_named("default").image.judges.data_max_age


def _is_fixed(
    one: Advisory, old: Iterable[Package], new: Iterable[Package], archive: Collection[tuple[str, str]]
) -> bool:
    """Whether `new` has the source package of `old` that an advisory is about, all of it fixed, as in the `archive`."""
    names = {package.name for package in old if package.built_from[0] == one.source}
    same = [package for package in new if package.name in names or package.built_from[0] == one.source]
    return bool(one.fixed and same) and all(
        package.built_from[0] == one.source
        and not is_before(package.built_from[1], one.fixed)
        and (package.name, package.version) in archive
        for package in same
    )


def unfit(data: Feed, most: timedelta, now: datetime) -> str:
    """Why a policy that accepts data of at most that age would not judge by it; empty where it would."""
    if data.sample:
        return "it is the sample that ships, which knows few vulnerabilities"
    if data.date is None:
        return "its date is not known"
    age = now - data.date
    if age < -CLOCK_SKEW:
        return f"it is dated {data.date:%Y-%m-%d}, in the future"
    return f"it is {age.days} days old; the policy accepts {shown(most)}" if age > most else ""
