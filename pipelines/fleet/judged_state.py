"""The whole judged state as data: every fleet, its members, and what each of them violates. Pages and exports read it.

`judged_state` gives it as the ledger last saw it; the world is not asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from hardening.findings import Actor, Reason, Repair, Side, since_text
from hardening.foundation.content import find_content
from hardening.foundation.errors import ContentError
from hardening.model import Enforcement
from images.catalog import load_definition
from images.context import Context
from images.documents import from_json
from pipelines.contract import Line
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.model import Fleet, FleetKind
from pipelines.fleet.violations import CheckedMember, PolicyState

HOST_OWNER = "whoever runs its host"
WATCHED = timedelta(days=7)
"""A fleet without a file here is mentioned for so long after its last check."""
Owners = Callable[[str], str]
"""The owner of a golden image, by its name; empty where no definition here tells."""


class ViolationLine(Line):
    """One rule that a member breaks. `stands`: it counts, because it is not waived and more than recorded.

    `evidence`: what was found, a line for each thing. `repairs`: what ends it, the best first; `todo` says how. `side`:
    whether it is the golden image's (base) or what came on top (yours). `acts`: who has to.
    """

    rule: str
    enforcement: Enforcement
    stands: bool
    what: str
    why: str
    evidence: tuple[str, ...]
    since: datetime | None
    deadline: datetime | None
    repairs: tuple[Repair, ...]
    todo: str
    side: Side
    acts: str
    waived_by: str = ""
    waiver: str = ""


class JudgedMember(Line):
    """One member, or a place that could not be read. `violations` are all, recorded and waived ones too.

    `golden` is the image that it is judged by, `release` that one's digest, `on_base` whether it only stands on it.
    `runs_as`: how it runs, as last seen (docs/schemas/data/snapshot.json); null where that was not looked at.
    """

    fleet: str
    id: str
    name: str
    image: str
    golden: str
    release: str
    on_base: bool | None
    since: datetime | None
    state: PolicyState
    healthy: bool
    superseded: bool
    deadline: datetime | None
    violations: tuple[ViolationLine, ...]
    runs_as: dict[str, Any] | None = None
    starting: bool = False

    @property
    def standing(self) -> tuple[ViolationLine, ...]:
        """The violations that count."""
        return tuple(one for one in self.violations if one.stands)


class JudgedFleet(Line):
    """One fleet. `checked_at` is null, and `members` empty, if it was never checked."""

    name: str
    title: str
    owner: str
    kind: FleetKind
    policy: str
    checked_at: datetime | None
    members: tuple[JudgedMember, ...]


class JudgedState(Line):
    """All fleets as they were last judged."""

    made_at: datetime
    fleets: tuple[JudgedFleet, ...]


Checked = Mapping[str, tuple[datetime, tuple[CheckedMember, ...]]]
"""By fleet, when it was last checked, and what was said of its members then."""


def fleets_without_file(context: Context, fleets: Collection[str]) -> Iterator[str]:
    """Each fleet that was checked within a week and has no file here, and who may have one: nothing counts it."""
    for name, at in context.ledger.checked_at().items():
        if name not in fleets and context.now - at < WATCHED:
            rollouts = context.ledger.rollouts(name, 1)
            by = f", rolled by {rollouts[0].owner}" if rollouts else ""
            yield f"{name} (checked {at:%Y-%m-%d %H:%M} UTC{by})"


def last_checks(context: Context, fleets: Collection[str]) -> Checked:
    """The last check of each of `fleets`, which have a file here, that was ever checked."""
    checks = context.ledger.fleet_checks().items()
    return {name: (one.at, from_json(tuple[CheckedMember, ...], one.members)) for name, one in checks if name in fleets}


def judged_state(context: Context, checks: Checked | None = None) -> JudgedState:
    """The whole judged state: fleets by name, members by name, each with its violations, and how it was last seen to
    run. From content and ledger alone; `checks`, where they were read already.
    """
    fleets = load_fleets(context.settings.roots)
    checks = last_checks(context, fleets) if checks is None else checks
    owners = owners_of(context)
    found = list[JudgedFleet]()
    for name, fleet in sorted(fleets.items()):
        checked_at, known = checks.get(name, (None, ()))
        last = context.ledger.last_snapshots(name, [one.handle for one in known])
        runs_as = {one.name: last[key].facts for one in known if (key := (one.name, one.handle)) in last}
        members = sorted((judged_member(fleet, one, owners, runs_as) for one in known), key=lambda one: one.name)
        found.append(
            JudgedFleet.of(fleet, checked_at=checked_at, members=tuple(members))
        )  # fmt: skip
    return JudgedState(made_at=context.now, fleets=tuple(found))


def judged_member(
    fleet: Fleet, one: CheckedMember, owners: Owners, runs_as: Mapping[str, dict[str, Any]]
) -> JudgedMember:
    """One judged member of a fleet, as data."""
    verdict = one.verdict
    return JudgedMember(
        fleet=fleet.name, id=one.id or one.name, name=one.name, image=one.image, golden=one.golden, release=one.release,
        on_base=one.on_base, since=one.since, state=verdict.state, healthy=verdict.healthy,
        superseded=verdict.superseded, deadline=verdict.deadline, starting=verdict.starting,
        runs_as=runs_as.get(one.name),
        violations=tuple(violation(reason, fleet.owner, one.golden, owners) for reason in one.reasons),
    )  # fmt: skip


def violation(reason: Reason, fleet_owner: str, golden: str, owners: Owners) -> ViolationLine:
    """A reason against a member, with who acts by name. Its words do not tell since when, for `since` does."""
    remedy = reason.remedy
    actor = remedy.actor if remedy else Actor.HOST
    of_image = owners(golden) or f"the owner of {golden}" if golden else fleet_owner  # of an image of others too
    acts = {Actor.FLEET: fleet_owner, Actor.HOST: HOST_OWNER}.get(actor) or of_image
    return ViolationLine.of(
        reason, stands=reason.stands, what=reason.what.removesuffix(since_text(reason.since)),
        evidence=remedy.evidence if remedy else (),
        repairs=remedy.repairs if remedy else (Repair.CONFIGURE,), side=remedy.side if remedy else Side.YOURS,
        acts=acts,
    )  # fmt: skip


def owners_of(context: Context) -> Owners:
    """Answers with the owner of a golden image, as its definition says; each is read once."""
    folders, known = find_content(context.settings.roots, "images/definitions", "*/"), dict[str, str]()

    def owner(name: str) -> str:
        if name not in known:
            known[name] = ""
            with suppress(ContentError):
                known[name] = load_definition(name, folders[name]).definition.owner if name in folders else ""
        return known[name]

    return owner
