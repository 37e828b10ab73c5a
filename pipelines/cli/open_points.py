"""The four questions of the report: what lacks a fix, since when, due when, who acts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from hardening.foundation.grouping import by_key
from hardening.foundation.text import listed
from hardening.gate import about_fix, brought_by
from hardening.model import Severity
from pipelines.contract import Line
from pipelines.fleet.judged_state import JudgedState, ViolationLine

STALE = timedelta(days=2)
"""A fleet that was not checked for so long is somebody's to check, and none of its points counts as ended."""
NEVER = datetime.max.replace(tzinfo=UTC)
FIXES = "vulnerable"  # the rule that says of members what open fixes say of their fleet


class OpenFix(Line):
    """One vulnerability with a known fix that is not everywhere yet. `members` lack it; 0 for an image.

    `image` has it: a fleet's members run that, or stand on it. `since`: when its clock started. `acts` has to do what
    stands in `todo`, which ends the wait for `waits_for`. `waived_by`: the waiver that accepts it.
    """

    kind: Literal["image", "fleet"]
    name: str
    vulnerability: str
    package: str
    image: str
    severity: Severity
    exploited: bool
    since: datetime
    due: datetime | None
    waits_for: str
    members: int
    acts: str
    todo: str
    waived_by: str = ""


class OpenStep(Line):
    """`report`: who has to do what."""

    acts: str
    todo: str


class OpenPoint(Line):
    """`report`: one vulnerability with all that lack its fix, or one rule that members of a fleet break.

    A vulnerability has the image that brings it in as `name`, all `images` that have it, and the `fleets` of their
    `members`. `lacks` says it in words. `since` is the earliest, `due` the first of what it stands for. `acts` has to
    do what stands in `todo`, and then others `more`. `waived_by`: the waiver that accepts it, and until when.
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
    vulnerability: str = ""
    packages: tuple[str, ...] = ()
    severity: Severity | None = None
    exploited: bool = False
    images: tuple[str, ...] = ()
    fleets: tuple[str, ...] = ()
    more: tuple[OpenStep, ...] = ()
    waived_by: str = ""

    @property
    def steps(self) -> tuple[OpenStep, ...]:
        """All that has to be done."""
        return (OpenStep(acts=self.acts, todo=self.todo), *self.more)


def open_points(
    fixes: Iterable[OpenFix], state: JudgedState, parents: Mapping[str, str | None] | None = None
) -> tuple[OpenPoint, ...]:
    """All that lacks a fix or is out of policy, waived ones too, in the order of deadlines. `parents`: of images."""
    fixes = list(fixes)
    known = by_key((one.name, about_fix(one.vulnerability, one.package)) for one in fixes if one.kind == "fleet")
    said = {fleet: tuple(beginnings) for fleet, beginnings in known.items()}
    found = [*_from_fixes(fixes, parents or {}), *_from_violations(state, said)]
    return tuple(sorted(found, key=lambda one: (one.due or NEVER, one.since or NEVER, one.kind, one.name, one.lacks)))


def _from_fixes(fixes: Sequence[OpenFix], parents: Mapping[str, str | None]) -> Iterator[OpenPoint]:
    having = by_key((one.vulnerability, one.image) for one in fixes)
    groups = by_key(
        ((one.vulnerability, brought_by(one.image, having[one.vulnerability], parents), one.waived_by), one)
        for one in fixes
    )
    for (vulnerability, root, waived_by), same in groups.items():
        same.sort(key=lambda one: (one.due or NEVER, one.kind == "fleet", one.name))
        first, packages = same[0], tuple(sorted({one.package for one in same}))
        members = by_key(((one.name, one.image), one.members) for one in same if one.kind == "fleet")
        todo = list(dict.fromkeys((one.acts, one.todo) for one in same))[1:]
        yield OpenPoint(
            kind="image", name=root, rule="fix", lacks=f"{listed(packages)}: {vulnerability}",
            members=sum(map(max, members.values())), since=min(one.since for one in same), due=first.due,
            acts=first.acts, todo=first.todo, vulnerability=vulnerability, packages=packages, severity=first.severity,
            exploited=any(one.exploited for one in same),
            images=tuple(sorted({one.image for one in same}, key=lambda name: (name != root, name))),
            fleets=tuple(sorted({one.name for one in same if one.kind == "fleet"})),
            more=tuple(OpenStep(acts=acts, todo=what) for acts, what in todo), waived_by=waived_by,
        )  # fmt: skip


def _from_violations(state: JudgedState, known: Mapping[str, tuple[str, ...]]) -> Iterator[OpenPoint]:
    """`known`: by fleet, how a reason begins that is about an open fix, which stands there already."""
    groups = by_key(
        ((fleet.name, one.rule, one.acts), (member.name, one))
        for fleet in state.fleets
        for member in fleet.members
        for one in member.standing
        if fleet.name not in known or not _is_of_fixes(one, known[fleet.name])
    )
    for (fleet_name, rule, acts), found in groups.items():
        members = list(dict.fromkeys(name for name, _ in found))
        first = found[0][1]
        yield OpenPoint(
            kind="fleet", name=fleet_name, rule=rule,
            lacks=first.what if len(members) == 1 else f"{listed(members)}: {first.what}",
            members=len(members), since=min((one.since for _, one in found if one.since), default=None),
            due=min((one.deadline for _, one in found if one.deadline), default=None), acts=acts, todo=first.todo,
            fleets=(fleet_name,),
        )  # fmt: skip


def _is_of_fixes(violation: ViolationLine, known: tuple[str, ...]) -> bool:
    """Whether a violation says only what open fixes say: some wait still, or have waited for too long."""
    lines = violation.evidence
    late = violation.rule == "refused" and bool(lines) and all(line.startswith(known) for line in lines)
    return late or violation.rule == FIXES
