"""Advisories of a distribution's security team, and which packages they concern. Pure.

An advisory is about a source package in one suite. It concerns every version before the fixed one; where no version is
fixed, every version: also where the team decided that the fix can wait (`no-dsa`), and where it is not known yet
whether the suite is affected (`undetermined`). What is not known is no pass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, cast

from images.artifact import Package

if TYPE_CHECKING:
    from univers.debian import Version

UNDETERMINED = "undetermined"


@dataclass(frozen=True, order=True)
class Advisory:
    """What is known of one vulnerability of a source package in a suite; `fixed` is empty while no version is fixed.

    `status` and `urgency` are the tracker's own words, and `note` is why there is no fix: "no-dsa: Minor issue".
    """

    id: str
    source: str
    fixed: str = ""
    status: str = "resolved"
    urgency: str = ""
    note: str = ""
    title: str = ""

    @property
    def word(self) -> str:
        """The severity in one word; empty where the team has none. A star marks what it took from elsewhere."""
        word = self.urgency.rstrip("*")
        return "low" if word == "unimportant" else word if word in ("low", "medium", "high") else ""

    @property
    def state(self) -> str:
        """What the team says of a vulnerability that is not simply fixed or open, in one word."""
        if self.status == UNDETERMINED:
            return UNDETERMINED
        if self.urgency in ("unimportant", "end-of-life"):
            return self.urgency
        return "no-dsa" if self.note else ""

    @property
    def text(self) -> str:
        """The title, and what else the team says of it, on one line."""
        said = "; ".join(dict.fromkeys(one for one in (self.state if self.state != "no-dsa" else "", self.note) if one))
        return f"{self.title} ({said})" if self.title and said else self.title or said


class Advisories:
    """The advisories of one suite by source package; what concerns a version is computed once."""

    def __init__(self, advisories: Iterable[Advisory] = ()) -> None:
        self._by_source: dict[str, dict[str, list[Advisory]]] = {}
        for one in advisories:
            self._by_source.setdefault(one.source, {}).setdefault(one.fixed, []).append(one)
        self._known: dict[tuple[str, str], tuple[Advisory, ...]] = {}

    def concerning(self, package: Package) -> tuple[Advisory, ...]:
        """The advisories that concern an installed package, in order."""
        source = package.source or package.name
        if source not in self._by_source and "signed" not in source:
            return ()
        built_from = package.built_from
        found = self._known.get(built_from)
        if found is None:
            found = self._known[built_from] = self._of(*built_from)
        return found

    def _of(self, source: str, version: str) -> tuple[Advisory, ...]:
        by_fix = self._by_source.get(source, {})
        return tuple(sorted(one for fixed in by_fix if is_before(version, fixed) for one in by_fix[fixed]))


def match(packages: Iterable[Package], advisories: Advisories) -> dict[Package, tuple[Advisory, ...]]:
    """The packages that advisories concern, each with those."""
    return {package: found for package in packages if (found := advisories.concerning(package))}


Standing = dict[tuple[str, str], str]
"""By vulnerability and source package, what concerns an image: the version that fixes it, or nothing."""


def standing(packages: Iterable[Package], advisories: Advisories) -> Standing:
    """What concerns the packages of an image."""
    return {(one.id, one.source): one.fixed for found in match(packages, advisories).values() for one in found}


class FeedChange(StrEnum):
    """What newer data changed about a vulnerability of an image."""

    EXPLOITED = "exploited"
    OPENED = "opened"
    FIXED = "fixed"
    CLOSED = "closed"


def changes(
    before: Standing, after: Standing, newly_exploited: Collection[str] = ()
) -> dict[tuple[str, str], FeedChange]:
    """What newer data changed about one image: what it is known to have now, to have fixed, or not to have after all.

    What began to be exploited, of what the image has, comes before all else.
    """
    found = {
        which: FeedChange.OPENED if which not in before else FeedChange.FIXED
        for which, fixed in after.items()
        if which not in before or (fixed and not before[which])
    }
    closed = dict.fromkeys(before.keys() - after.keys(), FeedChange.CLOSED)
    return {**found, **closed, **{which: FeedChange.EXPLOITED for which in after if which[0] in newly_exploited}}


def is_before(version: str, fixed: str) -> bool:
    """Whether `version` is older than the `fixed` one in Debian's order, deb-version(7); any is where that is empty.

    A version that does not have Debian's form counts as older, since their order is not known.
    """
    if not fixed:
        return True
    ours, theirs = _parsed(version), _parsed(fixed)
    return ours is None or theirs is None or ours < theirs


LONGEST = 1000
"""Characters of a version: Python compares no numbers of more than 4,300 digits."""


@cache
def _parsed(version: str) -> Version | None:
    from univers.debian import Version

    if len(version) > LONGEST:
        return None
    try:
        return cast("Version", Version.from_string(version))  # type: ignore[no-untyped-call]
    except ValueError:
        return None
