"""A plan as a file that somebody approves, and what has changed since. Pure.

The digest over the file finds slips and changes by hand; it is no signature. So the ledger says who made the plan of a
digest and who approved it; floor, waves and members are planned again from the fleet's file; and each step is judged
right before it acts, as is the replacement.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from hardening.foundation.errors import ContentError, MalformedError, RefusedError
from hardening.foundation.hashing import digest_of
from images.documents import from_json, to_json
from pipelines.fleet.members import Member, ReplacementImage
from pipelines.fleet.model import Fleet
from pipelines.fleet.port import Group
from pipelines.rollout.plan_model import GroupStep, Plan

FORM = "goldsmith.rollout-plan/3"
VALID_FOR = timedelta(days=3)
SHOWN = 10


@dataclass(frozen=True)
class ApprovedPlan:
    """A plan and the world that it was made in. `fleet` is the fleet's file, `members` the handle of each member's id.

    `adopt`: which unknown members it takes over on purpose. `groups_seen`: every group of the fleet, also those that
    stay as they are. `ill`: the ids of members that did not serve; `automated`: planned for a run that nobody asked
    for.
    """

    plan: Plan
    fleet: dict[str, Any]
    members: dict[str, str]
    adopt: tuple[str, ...]
    made_at: datetime
    made_by: str
    expires_at: datetime
    groups_seen: tuple[Group, ...] = ()
    ill: tuple[str, ...] = ()
    automated: bool = False

    def as_then(self, members: Sequence[Member]) -> list[Member]:
        """The members with the health that they had when the plan was made: it decides the order of the waves."""
        return [replace(member, healthy=member.id not in self.ill) for member in members]


@dataclass(frozen=True)
class Present:
    """The world at the moment at which an approved plan is executed."""

    fleet: Fleet
    members: Sequence[Member]
    target: ReplacementImage
    now: datetime
    groups: Sequence[Group] = ()


def seal(plan: Plan, world: Present, by: str, adopt: Sequence[str] = (), *, automated: bool = False) -> ApprovedPlan:
    """The plan with the world that it was made in; it may be executed for `VALID_FOR`."""
    return ApprovedPlan(
        plan=plan,
        fleet=world.fleet.model_dump(mode="json"),
        members=_handles(world.members),
        adopt=tuple(adopt),
        made_at=world.now,
        made_by=by,
        expires_at=world.now + VALID_FOR,
        groups_seen=tuple(world.groups),
        ill=tuple(sorted(member.id for member in world.members if not member.healthy)),
        automated=automated,
    )


def digest(document: ApprovedPlan) -> str:
    """What the plan is approved by: the digest over all of it, as it stands in its file."""
    return digest_of(to_json(document))


def written(document: ApprovedPlan) -> str:
    """The text of the file: JSON, with the digest over all of it."""
    body = to_json(document)
    return json.dumps({"form": FORM, "digest": digest_of(body), "sealed": body}, indent=1) + "\n"


def opened(text: str, file: str) -> ApprovedPlan:
    """What `written` wrote. Raises ContentError where `file` is no plan, RefusedError where it was changed."""
    try:
        found = json.loads(text)
        form, digest, body = found["form"], found["digest"], found["sealed"]
        actual = digest_of(body)
    except (ValueError, KeyError, TypeError, RecursionError, MalformedError):
        hint = "./goldsmith roll.plan FLEET --output FILE"
        raise ContentError("not a rollout plan file", file=file, hint=hint) from None
    hint = "make a new plan"
    if form != FORM:
        raise ContentError(f"the plan has format {form}, but this Goldsmith reads {FORM}", file=file, hint=hint)
    if actual != digest:
        raise RefusedError(f"{file} was changed after the plan was made: its digest does not match", hint=hint)
    try:
        return from_json(ApprovedPlan, body)
    except ValidationError:
        raise ContentError("a plan that this Goldsmith cannot read", file=file, hint=hint) from None


def refuse_moved(document: ApprovedPlan, present: Present) -> None:
    """Raise RefusedError where the world is not the one that was approved, with all that differs."""
    _refuse(document, present.fleet, compare(document, present))


def refuse_replanned(document: ApprovedPlan, again: Plan, present: Present) -> None:
    """Raise RefusedError where the fleet's file and members, planned `again`, do not give the plan of the file.

    What runs is the plan made again; what the file says of floor, waves and members is only compared with it.
    """
    _refuse(document, present.fleet, tuple(_replanned(document.plan, again)))


def refuse_repaced(document: ApprovedPlan, again: Sequence[GroupStep], fleet: Fleet) -> None:
    """The same for the groups that a service rolls: which they are, and the pace that the fleet's limits give."""
    planned = {one.group.id: one for one in document.plan.groups}
    now = {one.group.id: one for one in again}
    reasons = [
        f"{name} is to be rolled by the plan, and violates nothing" for name in sorted(planned.keys() - now.keys())
    ]
    reasons += [
        f"{name} is to be rolled at another pace by the plan than by the fleet's file"
        for name, one in sorted(now.items())
        if planned[name].pacing != one.pacing
    ]
    reasons += [
        f"{name} is skipped by the plan, but would be rolled now"
        for name, one in sorted(now.items())
        if planned[name].group.cannot_roll and not one.group.cannot_roll
    ]
    _refuse(document, fleet, reasons)


def _replanned(planned: Plan, again: Plan) -> Iterator[str]:
    for name in ("floor", "desired", "method"):
        before, after = getattr(planned, name), getattr(again, name)
        if before != after:
            yield f"{name} is {before} in the plan, and {after} by the fleet's file"
    steps, others = ({step.member.id for step in plan.steps} for plan in (planned, again))
    yield from _some(sorted(steps - others), "is to be replaced by the plan, and not by the fleet's file")
    yield from _some(sorted(others - steps), "is to be replaced by the fleet's file, and not by the plan")
    if steps == others and _shape(planned) != _shape(again):
        yield "the waves of the plan are not those that the fleet's file gives"
    if steps == others:
        yield from _becoming(planned, again)


def _becoming(planned: Plan, again: Plan) -> Iterator[str]:
    """Members that would become another image than the plan says, beside those for which the replacement itself is."""
    now = {step.member.id: step.target for step in again.steps}
    for step in planned.steps:
        before, after = step.target, now[step.member.id]
        if (before and before.reference) != (after and after.reference):
            what = f"{step.member.id} was to become {(before or planned.target).reference}"
            yield f"{what} and would become {(after or again.target).reference}"


def _shape(plan: Plan) -> list[tuple[list[str], int, bool, timedelta]]:
    """Who is in which wave, how many at once, and how long it bakes."""
    return [([step.member.id for step in w.steps], w.parallel, w.canary, w.bake) for w in plan.waves]


def _refuse(document: ApprovedPlan, fleet: Fleet, reasons: Sequence[str]) -> None:
    if reasons:
        what = f"the approved plan of {document.made_at:%Y-%m-%d %H:%M} UTC by {document.made_by} no longer fits"
        hint = f"make a new plan and have it approved: ./goldsmith roll.plan {fleet.name} --output FILE"
        raise RefusedError(what, evidence="\n".join(reasons), hint=hint)


def compare(document: ApprovedPlan, present: Present) -> tuple[str, ...]:
    """What has moved since the plan was made, a line for each; none: exactly the approved plan may be executed."""
    return (
        *_age(document, present.now),
        *_differing(document.fleet, present.fleet.model_dump(mode="json")),
        *_moved(document.plan.target, present.target),
        *_changed(document.members, _handles(present.members)),
        *_regrouped(document, present),
    )


def _age(document: ApprovedPlan, now: datetime) -> Iterator[str]:
    if now >= document.expires_at:
        yield f"it was good until {document.expires_at:%Y-%m-%d %H:%M} UTC"
    if now < document.made_at:
        yield f"it was made at {document.made_at:%Y-%m-%d %H:%M} UTC, which is in the future: is a clock wrong?"


def _differing(planned: Any, present: Any, key: str = "") -> Iterator[str]:
    """Each key of the fleet's file that has another value now."""
    if isinstance(planned, Mapping) and isinstance(present, Mapping):
        for name in sorted(planned.keys() | present.keys()):
            yield from _differing(planned.get(name), present.get(name), f"{key}.{name}" if key else name)
    elif planned != present:
        yield f"the fleet's file: {key} was {json.dumps(planned)} and is {json.dumps(present)}"


def _moved(planned: ReplacementImage, present: ReplacementImage) -> Iterator[str]:
    if (planned.reference, planned.digest) != (present.reference, present.digest):
        yield f"the replacement was {planned.reference} and is {present.reference}"


def _changed(planned: Mapping[str, str], present: Mapping[str, str]) -> Iterator[str]:
    """Members that are gone, new, or under the same name not the same any more."""
    yield from _some(sorted(planned.keys() - present.keys()), "is gone")
    yield from _some(sorted(present.keys() - planned.keys()), "is new")
    both = sorted(planned.keys() & present.keys())
    yield from _some([member for member in both if planned[member] != present[member]], "was recreated since")


def _regrouped(document: ApprovedPlan, present: Present) -> Iterator[str]:
    """Groups that are gone, new, of another size, or that start from something else."""
    planned, now = ({one.id: one for one in groups} for groups in (document.groups_seen, present.groups))
    yield from _some(sorted(planned.keys() - now.keys()), "is gone")
    yield from _some(sorted(now.keys() - planned.keys()), "is new")
    for name in sorted(planned.keys() & now.keys()):
        before, after = planned[name], now[name]
        if before.desired != after.desired:
            yield f"{name} was to have {before.desired} members and is to have {after.desired}"
        if before.runs != after.runs:
            yield f"{name} started from {before.runs} and starts from {after.runs}"
        if before.cannot_roll != after.cannot_roll:
            yield f"{name} {after.cannot_roll or 'could not be rolled, and can be now'}"


def _some(members: Sequence[str], what: str) -> Iterator[str]:
    yield from (f"{member} {what}" for member in members[:SHOWN])
    if len(members) > SHOWN:
        yield f"and {len(members) - SHOWN} more: {what}"


def _handles(members: Sequence[Member]) -> dict[str, str]:
    return {member.id: member.handle for member in members}
