"""Which open points a digest contains, and the stage of each: marked, reminded of, acted on, ended. Pure.

A point is one rule that one member breaks, or one vulnerability that an image or fleet can be without. What a target
was told of it decides what is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase

from hardening.findings import Repair
from hardening.foundation.telling import DigestSettings
from hardening.running import UNREAD
from images.ledger.tables import ToldPoint
from images.plan.cooldown import SKEW
from pipelines.cli.open_points import FIXES, STALE, OpenFix
from pipelines.fleet.calendar import RunningRule
from pipelines.fleet.judged_state import JudgedFleet, JudgedState

UNCHECKED = "unchecked"
OVERDUE = "overdue"
ADOPTED = RunningRule.UNKNOWN
NIGHT_BUILDS = "the next night builds and publishes it"


class DigestStage(StrEnum):
    """What a digest says of a point: it is new, still open, Goldsmith acts or its deadline passed, or it has ended."""

    MARK = "mark"
    REMIND = "remind"
    ACT = "act"
    ENDED = "ended"


@dataclass(frozen=True)
class OpenRollout:
    """An open rollout: its id, what it does, and the members that it has not finished; `everyone`: groups too."""

    id: str
    doing: str
    members: frozenset[str] = frozenset()
    everyone: bool = False


@dataclass(frozen=True)
class Automation:
    """What Goldsmith does with a fleet by itself: what it rolls now, and `next`, what it does with members that a new
    instance fixes.
    """

    next: str
    rollouts: tuple[OpenRollout, ...] = ()


@dataclass(frozen=True)
class Point:
    """One open point. `one` is a member or a vulnerability of `place`; `owners` are whom it concerns, `acts` has to do
    what stands in `todo`. `act` names what Goldsmith does about it now, and `doing` says that, or what comes next.
    `explain`: the member for whom only that is known, since a plan may leave it alone; else empty. A vulnerability has
    the `image` that has it, its `severity`, and how many `members` of a fleet lack its fix.
    """

    subject: str
    place: str
    rule: str
    one: str
    what: str
    since: datetime | None
    due: datetime | None
    owners: tuple[str, ...]
    acts: str
    todo: str
    act: str = ""
    doing: str = ""
    explain: str = ""
    image: str = ""
    severity: str = ""
    members: int = 0


@dataclass(frozen=True)
class OpenPoints:
    """All points that are open. `blind`: the places of which not all could be read, so that nothing there has ended.
    `elsewhere`: the subjects of what is open and told by other points. `fleets`: those that there are, where that is
    known. `waived`: by subject, the waiver that accepts it.
    """

    points: tuple[Point, ...]
    blind: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()
    fleets: frozenset[str] | None = None
    waived: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class News:
    """What to send about one point, and what to keep once it was sent; None: it is over."""

    stage: DigestStage
    point: Point
    marked_at: datetime
    kept: ToldPoint | None = field(default=None, compare=False)


# -- what is open ------------------------------------------------------------------------------------------------------


def points_of(fixes: Iterable[OpenFix], state: JudgedState, automation: Mapping[str, Automation]) -> OpenPoints:
    """What lacks a fix, is out of policy, or was not looked at; with what Goldsmith does about it by itself."""
    owners = {fleet.name: fleet.owner for fleet in state.fleets}
    fixes = list(fixes)
    by_fix = [_of_fix(one, owners, automation) for one in fixes if not one.waived_by]
    waived = {_of_fix(one, owners, automation).subject: one.waived_by for one in fixes if one.waived_by}
    known = {point.place for point in by_fix if point.place in owners}
    found = {point.subject: point for point in by_fix}
    for fleet in state.fleets:
        for point in _of_fleet(fleet, state.made_at, automation.get(fleet.name), known=fleet.name in known):
            first = found.setdefault(point.subject, point)
            dates = [one.due for one in (first, point) if one.due]
            found[point.subject] = replace(first, due=min(dates, default=None))
    blind = (fleet.name for fleet in state.fleets if _is_blind(fleet, state.made_at))
    elsewhere = (
        _subject(fleet, member.name, FIXES)
        for fleet in state.fleets if fleet.name in known
        for member in fleet.members if any(one.rule == FIXES for one in member.standing)
    )  # fmt: skip
    return OpenPoints(tuple(found.values()), frozenset(blind), frozenset(elsewhere), frozenset(owners), waived)


def _subject(fleet: JudgedFleet, member: str, rule: str) -> str:
    return f"fleet {fleet.name} {member} {rule}"


def _of_fix(one: OpenFix, owners: Mapping[str, str], automation: Mapping[str, Automation]) -> Point:
    does = automation.get(one.name) if (one.kind, one.waits_for) == ("fleet", "rollout") else None
    act, doing = _doing(does, "") if does else ("", NIGHT_BUILDS if one.waits_for == "publication" else "")
    return Point(
        f"{one.kind} {one.name} {one.package} {one.vulnerability}", one.name, one.package, one.vulnerability,
        f"{one.package} lacks a fix", one.since, one.due,
        tuple(dict.fromkeys(filter(None, (one.acts, owners.get(one.name) if one.kind == "fleet" else "")))),
        one.acts, one.todo, act, doing, image=one.image,
        severity=f"{one.severity}{', exploited' if one.exploited else ''}", members=one.members,
    )  # fmt: skip


def _of_fleet(fleet: JudgedFleet, now: datetime, does: Automation | None, *, known: bool) -> Iterator[Point]:
    """`known`: its open fixes stand there already."""
    if why := _unjudged(fleet, now):
        yield Point(
            f"fleet {fleet.name} {UNCHECKED}", fleet.name, UNCHECKED, "", f"{why}: what runs there is not known",
            fleet.checked_at, None, (fleet.owner,), fleet.owner, f"./goldsmith fleet.check {fleet.name}",
        )  # fmt: skip
    for member in fleet.members:
        for one in member.standing:
            if one.rule == FIXES and known:
                continue
            mends = Repair.ROLL in one.repairs
            by_itself = replace(does, next="") if does and one.rule == ADOPTED else does  # a person takes it over
            act, doing = _doing(by_itself, member.name) if by_itself and mends else ("", "")
            yield Point(
                _subject(fleet, member.name, one.rule), fleet.name, one.rule, member.name, one.what, one.since,
                one.deadline, tuple(dict.fromkeys((one.acts, fleet.owner))), one.acts, one.todo, act, doing,
                f"{fleet.name}/{member.name}" if doing and not act else "",
            )  # fmt: skip


def _doing(does: Automation, member: str) -> tuple[str, str]:
    for rollout in does.rollouts:
        if rollout.everyone or not member or member in rollout.members:
            return rollout.id, f"{rollout.id} rolls it now: {rollout.doing}"
    return "", does.next


def _is_blind(fleet: JudgedFleet, now: datetime) -> bool:
    """Whether a member that is not there any more, or what one broke, may only not have been seen."""
    unread = (one.rule == UNREAD for member in fleet.members for one in member.violations)
    return bool(_unjudged(fleet, now)) or any(unread)


def _unjudged(fleet: JudgedFleet, now: datetime) -> str:
    """Why it is not known what runs there; empty where it is."""
    at = fleet.checked_at
    if at is None:
        return "it was never checked"
    if not -SKEW <= now - at <= STALE:
        return f"it was last checked on {at:%Y-%m-%d %H:%M} UTC"
    return "" if fleet.members else "its last check found no member"


# -- what is told of it ------------------------------------------------------------------------------------------------


def news_for(
    target: str, owners: Iterable[str], found: OpenPoints, told: Mapping[str, ToldPoint], now: datetime,
    pace: DigestSettings,
) -> tuple[tuple[News, ...], tuple[str, ...]]:  # fmt: skip
    """What is to be told to a target that cares for some owners (globs), the most pressing first, after what it was
    told; and the subjects that are not its own any more, of which nothing is said.
    """
    globs, still = tuple(owners), {point.subject for point in found.points} | found.elsewhere
    mine = [one for one in found.points if any(fnmatchcase(owner, glob) for owner in one.owners for glob in globs)]
    news = [one for point in mine if (one := _news(target, point, told.get(point.subject), now, pace))]
    names = {point.subject for point in mine}
    gone = [one for subject, one in told.items() if subject not in names]
    news += [_ended(one, found) for one in gone if one.subject not in still and one.place not in found.blind]
    return tuple(sorted(news, key=_pressing)), tuple(one.subject for one in gone if one.subject in still)


def _news(target: str, point: Point, told: ToldPoint | None, now: datetime, pace: DigestSettings) -> News | None:
    act = point.act or (OVERDUE if point.due and point.due <= now else "")
    if (stage := _stage(point, act, told, now, pace)) is None:
        return None
    marked = told.marked_at if told else now
    acts = tuple(dict.fromkeys([*(told.acts if told else ()), *([act] if act else [])]))
    kept = ToldPoint(
        target, point.subject, point.place, point.rule, point.one, point.what, point.due, marked, now, acts
    )
    return News(stage, point, marked, kept)


def _stage(point: Point, act: str, told: ToldPoint | None, now: datetime, pace: DigestSettings) -> DigestStage | None:
    if act and (told is None or act not in told.acts):
        return DigestStage.ACT
    if told is None:
        return DigestStage.MARK
    if now - told.told_at >= pace.remind_after or told.told_at - now > SKEW:
        return DigestStage.REMIND
    was_near = told.due is not None and told.told_at >= told.due - pace.near
    is_near = point.due is not None and point.due - pace.near <= now < point.due
    return DigestStage.REMIND if is_near and not was_near else None


def _ended(told: ToldPoint, found: OpenPoints) -> News:
    """It is not open any more; where its fleet's file is gone, that is not checked."""
    lost = found.fleets is not None and told.subject.startswith("fleet ") and told.place not in found.fleets
    what = f"no file names this fleet any more, so it is not checked: {told.what}" if lost else told.what
    if waiver := found.waived.get(told.subject):
        what = f"waived by {waiver}: {told.what}"
    point = Point(told.subject, told.place, told.rule, told.one, what, None, told.due, (), "", "")
    return News(DigestStage.ENDED, point, told.marked_at)


ORDER = (DigestStage.ACT, DigestStage.MARK, DigestStage.REMIND, DigestStage.ENDED)


def _pressing(one: News) -> tuple[int, bool, str, str]:
    due = one.point.due
    return ORDER.index(one.stage), due is None, due.isoformat() if due else "", one.point.subject
