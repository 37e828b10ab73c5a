"""How long fixes take, from the fixed version to the last member that runs it. Pure: the history is given.

The clock of a fix starts with the fixed package's own date, where that is known and lies before our first sight; else
with our first sight. It stops for an image when `stable` points to a content that has the fix, and for a fleet when the
last member that lacked it has been replaced. Whatever is put back is open again, with its whole age.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from math import ceil

from hardening.foundation.grouping import by_key
from images.ledger.tables import ClosedFix, MemberRun


class Waits(StrEnum):
    """What an open fix waits for."""

    PUBLICATION = "publication"
    PROMOTION = "promotion"
    ROLLOUT = "rollout"
    UNKNOWN = "unknown"  # a member that lacked it runs what nobody knows
    NOTHING = ""


@dataclass(frozen=True)
class Pointed:
    """From `at` on, `stable` of an image points to `content`. `exact`: the moment is known, not only that it was."""

    content: str
    at: datetime
    exact: bool = True


@dataclass(frozen=True)
class PatchHistory:
    """Everything that the ledger knows of patches.

    `published`: of each content its image, and when it was first published. `found`: what scanners last found, with a
    fix, in contents of an image of which no release has taken it since: those contents, by a fix without a content.
    `stable`: by image, where that channel has pointed. `runs`: what members have run.
    """

    fixes: Sequence[ClosedFix] = ()
    found: Mapping[ClosedFix, Collection[str]] = field(default_factory=dict)
    published: Mapping[str, tuple[str, datetime]] = field(default_factory=dict)
    stable: Mapping[str, Sequence[Pointed]] = field(default_factory=dict)
    runs: Sequence[MemberRun] = ()

    def has(self, content: str, fix: ClosedFix) -> bool | None:
        """Whether a content has a fix, by the order of releases; None where it is of another image, or unknown.

        A fix that no release has taken is missing in all up to the last one in which a scanner found it: of others,
        such as old ones that were last scanned before it was known, nobody has asked.
        """
        image, at = self.published.get(content, ("", None))
        if at is None or image != fix.image:
            return None
        if not fix.content:
            return at > max(self.published[lacking][1] for lacking in self.found[fix])
        return content == fix.content or at >= self.published.get(fix.content, (image, fix.published_at))[1]

    @cached_property
    def by_fleet(self) -> dict[str, tuple[Alike, ...]]:
        """What members have run, by fleet: those that ran the same contents one after the other together."""
        members = by_key(((run.fleet, run.member), run) for run in sorted(self.runs, key=lambda one: one.at))
        groups: dict[str, dict[tuple[tuple[str, bool], ...], list[list[MemberRun]]]] = {}
        for (fleet, _), runs in members.items():
            ran = tuple((run.content, run.gone) for run in runs)
            groups.setdefault(fleet, {}).setdefault(ran, []).append(runs)
        return {fleet: tuple(map(_alike, found.values())) for fleet, found in groups.items()}

    @cached_property
    def fleets_of(self) -> dict[str, list[str]]:
        """By image, the fleets of which a member has ever run a content of it."""
        found = dict[str, list[str]]()
        for fleet, members in self.by_fleet.items():
            ran = {content for alike in members for content in alike.contents}
            for image in {self.published[content][0] for content in ran if content in self.published}:
                found.setdefault(image, []).append(fleet)
        return found


@dataclass(frozen=True)
class Alike:
    """Members that ran the same `contents`, one after the other; `gone`: they had left, and run nothing.

    `begins`: of each content, when each member began to run it, with its name, the earliest first.
    """

    contents: tuple[str, ...]
    gone: tuple[bool, ...]
    begins: tuple[tuple[tuple[datetime, str], ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(name for _, name in self.begins[0])


def _alike(members: Sequence[Sequence[MemberRun]]) -> Alike:
    begins = tuple(tuple(sorted((run.at, run.member) for run in each)) for each in zip(*members, strict=True))
    return Alike(tuple(run.content for run in members[0]), tuple(run.gone for run in members[0]), begins)


@dataclass(frozen=True)
class Patch:
    """A fix on its way through one image, or through one fleet (`kind`, `name`).

    `started_at` is the package's own date (`by_package`) or our first sight. `closed_at` is None while it is `open`,
    and where it is not and nothing tells when it was closed. `left` names the members that still lack it, or that
    nobody knows anything of any more. `waived_by`: the waiver that accepts that it is open.
    """

    kind: str
    name: str
    fix: ClosedFix
    started_at: datetime
    by_package: bool
    published_at: datetime | None
    promoted_at: datetime | None
    closed_at: datetime | None
    waits: Waits
    members: int = 0
    left: tuple[str, ...] = ()
    due: datetime | None = None
    waived_by: str = ""

    @property
    def open(self) -> bool:
        """Whether it is not everywhere yet."""
        return self.waits is not Waits.NOTHING

    def after(self, moment: datetime | None) -> timedelta | None:
        """How long after its start a moment came: never less than nothing, whatever clocks said."""
        return None if moment is None else max(timedelta(), moment - self.started_at)

    def age(self, now: datetime) -> timedelta:
        """How long it has been open, or was."""
        return self.after(now if self.open else self.closed_at) or timedelta()

    def in_time(self, now: datetime) -> bool | None:
        """Whether it was closed by its `due` day; None where it has none, or that has not come yet."""
        end = now if self.open else self.closed_at
        if self.due is None or end is None or (self.open and end <= self.due):
            return None
        return end <= self.due


def with_ends(
    runs: Sequence[MemberRun], fleets: Collection[str], looked: Mapping[str, datetime]
) -> Sequence[MemberRun]:  # fmt: skip
    """What members have run, where those of a fleet that is not among `fleets` any more are gone from its last look on:
    what becomes of them is unknown. `looked`: when each fleet was last looked at.
    """
    last = {(run.fleet, run.member): run for run in runs if run.fleet not in fleets}
    left = [
        replace(run, content="", gone=True, at=max(run.at, looked.get(run.fleet, run.at)))
        for run in last.values() if not run.gone
    ]  # fmt: skip
    return [*runs, *left]


def patches(history: PatchHistory, now: datetime) -> Iterator[Patch]:
    """Every fix in every image and fleet that it concerns, without a day by which it is due."""
    for fix in (*history.fixes, *history.found):
        yield (whole := _of_image(history, fix, now))
        for fleet in history.fleets_of.get(fix.image, ()):
            if patch := _of_fleet(history, whole, fleet, now):
                yield patch


def _start(fix: ClosedFix, now: datetime) -> tuple[datetime, bool]:
    known = fix.upstream_at is not None and fix.upstream_at <= fix.seen_at
    at = fix.upstream_at if known and fix.upstream_at else fix.seen_at
    return min(at, now), known


def _of_image(history: PatchHistory, fix: ClosedFix, now: datetime) -> Patch:
    started, by_package = _start(fix, now)
    if not fix.content:
        return Patch("image", fix.image, fix, started, by_package, None, None, None, Waits.PUBLICATION)
    published, (promoted, at) = min(fix.published_at, now), _promoted(history, fix, now)
    at = at and max(at, published)  # one run that does both dates all by its beginning
    waits = Waits.NOTHING if promoted else Waits.PROMOTION
    return Patch("image", fix.image, fix, started, by_package, published, at, at, waits)


def _promoted(history: PatchHistory, fix: ClosedFix, now: datetime) -> tuple[bool, datetime | None]:
    """Whether `stable` has the fix, and since when it has had it without a break."""
    since: Pointed | None = None
    for pointed in sorted(history.stable.get(fix.image, ()), key=lambda one: one.at):
        since = (since or pointed) if history.has(pointed.content, fix) else None
    return since is not None, min(since.at, now) if since and since.exact else None


@dataclass(frozen=True)
class _Lack:
    """How many members lacked a fix, when the last of them stopped to, and what those wait for that have not."""

    members: int
    end: datetime
    waits: Waits
    left: tuple[str, ...] = ()


def _of_fleet(history: PatchHistory, whole: Patch, fleet: str, now: datetime) -> Patch | None:
    """A fix in a fleet, by what it is in the `whole` image; None where no member ever ran that without it since the fix
    was out.
    """
    found = (_lack(history, whole.fix, alike, whole.started_at, now) for alike in history.by_fleet[fleet])
    lacks = [lack for lack in found if lack]
    if not lacks:
        return None
    waits = {lack.waits for lack in lacks}
    held = Waits.UNKNOWN if Waits.UNKNOWN in waits else Waits.NOTHING
    if Waits.ROLLOUT in waits:
        held = whole.waits or Waits.ROLLOUT
    left = tuple(sorted(name for lack in lacks for name in lack.left))
    return replace(
        whole, kind="fleet", name=fleet, closed_at=None if held else max(lack.end for lack in lacks), waits=held,
        members=sum(lack.members for lack in lacks), left=left,
    )  # fmt: skip


def _lack(history: PatchHistory, fix: ClosedFix, alike: Alike, started: datetime, now: datetime) -> _Lack | None:
    """What is to be said of members that ran the image without the fix since it was out; None where they did not."""
    has = [history.has(content, fix) for content in alike.contents]
    if False not in has:
        return None
    following = len(has) - has[::-1].index(False)
    if following == len(has):
        return _Lack(len(alike.names), now, Waits.ROLLOUT, alike.names)
    begins = alike.begins[following]
    late = begins[bisect_right(begins, started, key=lambda begin: begin[0]) :]
    if not late:  # they had stopped before there was a fix
        return None
    # Another image of ours is another application: it is judged by its own fixes. What nobody knows patches nothing.
    known = [gone or content in history.published for content, gone in zip(alike.contents, alike.gone, strict=True)]
    if not known[-1]:
        return _Lack(len(late), now, Waits.UNKNOWN, tuple(name for _, name in late))
    names, patched = {name for _, name in late}, known.index(True, following)
    end = min(max(at for at, name in alike.begins[patched] if name in names), now)
    return _Lack(len(late), max(end, min(fix.published_at, now)) if has[-1] else end, Waits.NOTHING)


# -- the distribution --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """How spans are distributed: by nearest rank, so that each is an observed value."""

    median: timedelta
    p90: timedelta
    longest: timedelta

    @classmethod
    def of(cls, spans: Iterable[timedelta | None]) -> Spread | None:
        """The distribution; None of nothing."""
        known = sorted(span for span in spans if span is not None)
        if not known:
            return None
        median, p90 = (known[ceil(len(known) * part) - 1] for part in (0.5, 0.9))
        return cls(median, p90, known[-1])


@dataclass(frozen=True)
class Measured:
    """One image or fleet: how many fixes, the spans from their start, how many of those `judged` were in time.

    `oldest` is the age of the oldest of the `open` ones.
    """

    kind: str
    name: str
    fixes: int
    published: Spread | None
    promoted: Spread | None
    closed: Spread | None
    in_time: int
    judged: int
    open: int
    oldest: timedelta | None


def measured(found: Iterable[Patch], now: datetime) -> list[Measured]:
    """The distribution of each image and fleet, images first, without what is waived."""
    groups = by_key(((one.kind == "fleet", one.kind, one.name), one) for one in found if not one.waived_by)
    return [_measured(kind, name, group, now) for (_, kind, name), group in sorted(groups.items())]


def _measured(kind: str, name: str, group: Sequence[Patch], now: datetime) -> Measured:
    judged = [said for one in group if (said := one.in_time(now)) is not None]
    ages = [one.age(now) for one in group if one.open]
    return Measured(
        kind=kind, name=name, fixes=len(group),
        published=Spread.of(one.after(one.published_at) for one in group),
        promoted=Spread.of(one.after(one.promoted_at) for one in group),
        closed=Spread.of(one.after(one.closed_at) for one in group),
        in_time=sum(judged), judged=len(judged), open=len(ages), oldest=max(ages, default=None),
    )  # fmt: skip


def recent(found: Iterable[Patch], begin: datetime | None) -> list[Patch]:
    """What is open, and what was closed at `begin` or later; where nothing tells when, by its publication."""
    return [
        one for one in found
        if begin is None or one.open or (one.closed_at or one.published_at or one.started_at) >= begin
    ]  # fmt: skip


def unknown_members(history: PatchHistory) -> dict[str, tuple[str, ...]]:
    """By fleet, the members that run an image which nobody knows anything of."""
    found = {
        fleet: tuple(sorted(name for alike in members if _unknown(history, alike) for name in alike.names))
        for fleet, members in history.by_fleet.items()
    }
    return {fleet: names for fleet, names in found.items() if names}


def _unknown(history: PatchHistory, alike: Alike) -> bool:
    return not alike.gone[-1] and alike.contents[-1] not in history.published
