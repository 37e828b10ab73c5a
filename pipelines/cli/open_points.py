"""The four questions of the report: what lacks a fix, since when, due when, who acts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

from hardening.foundation.grouping import by_key
from hardening.foundation.text import listed
from pipelines.contract import Line
from pipelines.fleet.judged_state import JudgedState

STALE = timedelta(days=2)
"""A fleet that was not checked for so long is somebody's to check, and none of its points counts as ended."""
NEVER = datetime.max.replace(tzinfo=UTC)
FIXES = "vulnerable"  # the rule that says of members what open fixes say of their fleet


class OpenFix(Line):
    """One vulnerability with a known fix that is not everywhere yet. `members` lack it; 0 for an image.

    `since`: when its clock started. `acts` has to do what stands in `todo`, which ends the wait for `waits_for`.
    """

    kind: Literal["image", "fleet"]
    name: str
    vulnerability: str
    package: str
    since: datetime
    due: datetime | None
    waits_for: str
    members: int
    acts: str
    todo: str


class OpenPoint(Line):
    """`report`: what one image or fleet lacks: a fix, or compliance with policy. `lacks` says it in words.

    `members`: how many of the fleet; 0 for an image. `since` is the earliest, `due` the first of what it stands for.
    """

    kind: Literal["image", "fleet"]
    name: str
    rule: str
    lacks: str
    members: int
    since: datetime | None
    due: datetime | None
    acts: str
    todo: str


def open_points(fixes: Iterable[OpenFix], state: JudgedState) -> tuple[OpenPoint, ...]:
    """What lacks a fix or is out of policy, what is due first first; members of a fleet that lack the same are one."""
    by_fix = list(_from_fixes(fixes))
    known = {point.name for point in by_fix if point.kind == "fleet"}
    found = [*by_fix, *_from_violations(state, known)]
    return tuple(sorted(found, key=lambda one: (one.due or NEVER, one.since or NEVER, one.kind, one.name, one.lacks)))


def _from_fixes(fixes: Iterable[OpenFix]) -> Iterator[OpenPoint]:
    groups = by_key(((one.kind, one.name, one.package, one.waits_for), one) for one in fixes)
    for (_, name, package, _), same in groups.items():
        first = same[0]
        yield OpenPoint(
            kind=first.kind, name=name, rule="fix",
            lacks=f"{package}: {listed([one.vulnerability for one in same])}",
            members=max(one.members for one in same), since=min(one.since for one in same),
            due=min((one.due for one in same if one.due), default=None), acts=first.acts, todo=first.todo,
        )  # fmt: skip


def _from_violations(state: JudgedState, known: set[str]) -> Iterator[OpenPoint]:
    """`known`: the fleets whose open fixes stand there already."""
    groups = by_key(
        ((fleet.name, one.rule, one.acts), (member.name, one))
        for fleet in state.fleets
        for member in fleet.members
        for one in member.standing
        if one.rule != FIXES or fleet.name not in known
    )
    for (fleet_name, rule, acts), found in groups.items():
        members = list(dict.fromkeys(name for name, _ in found))
        first = found[0][1]
        yield OpenPoint(
            kind="fleet", name=fleet_name, rule=rule,
            lacks=first.what if len(members) == 1 else f"{listed(members)}: {first.what}",
            members=len(members), since=min((one.since for _, one in found if one.since), default=None),
            due=min((one.deadline for _, one in found if one.deadline), default=None), acts=acts, todo=first.todo,
        )  # fmt: skip
