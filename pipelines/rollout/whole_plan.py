"""Planning all of a fleet: its members, and the groups that a service rolls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from pipelines.fleet.port import DelegatedFleet, Group
from pipelines.fleet.violations import Judged
from pipelines.rollout.approved_plan import ApprovedPlan, refuse_repaced
from pipelines.rollout.plan import frozen, in_group, neglected, refuse_plan, violating_in
from pipelines.rollout.plan_model import GroupStep
from pipelines.rollout.schedule import allowed, caps
from pipelines.rollout.session import FleetSession, check


def plan_all(
    at: FleetSession, adopt: Sequence[str] = (), *, automated: bool = False, judged: Sequence[Judged] | None = None
) -> ApprovedPlan:  # fmt: skip
    """What a rollout would do now, of members and of groups that a service rolls. `adopt`: those with an unknown or
    another image that are taken over on purpose. `judged`: all that was seen, where it was judged just now.

    Raises RefusedError, also where the inventory is implausible or a group's limits cannot be said to the service, and
    OutsideError.
    """
    if judged is None:
        judged = check(at, strict=True) if at.groups else ()
    document = at.plan(adopt, automated=automated, judged=judged)
    if groups := _violating_groups(at, judged):
        inside = [one for group in groups for one in in_group(judged, group) if not one.member.beside]
        refuse_plan(at.fleet, inside, document.plan.target, at.now(), adopt)
    return _with_groups(at, document, groups, judged, at.now())


def plan_again(at: FleetSession, approved: ApprovedPlan) -> ApprovedPlan:
    """An approved plan as it is planned again, if that and the world are what was approved.

    A group that contains something to be left alone is left alone as a whole. Raises RefusedError with what differs.
    """
    document = at.same(approved)
    if not approved.plan.groups:
        return document
    judged = check(at, strict=True)
    present = {group.id: group for group in _violating_groups(at, judged)}
    groups = [present[step.group.id] for step in approved.plan.groups if step.group.id in present]
    again = _with_groups(at, document, groups, judged, approved.made_at)
    refuse_repaced(approved, again.plan.groups, at.fleet)
    return again


def _violating_groups(at: FleetSession, judged: Sequence[Judged]) -> list[Group]:
    """The groups of which something violates: an instance, or what it would start next."""
    groups = at.groups.groups() if at.groups else ()
    return [group for group in groups if violating_in(in_group(judged, group))]


def _with_groups(
    at: FleetSession, document: ApprovedPlan, groups: Sequence[Group], judged: Sequence[Judged], when: datetime
) -> ApprovedPlan:
    """The plan with these groups to roll, at the pace that the budgets of that moment allow."""
    if at.groups is None:
        return document
    inside = [in_group(judged, group) for group in groups]
    steps = tuple(_step(at, at.groups, document, group, of, when) for group, of in zip(groups, inside, strict=True))
    overdue = [
        skip
        for step, of in zip(steps, map(violating_in, inside), strict=True)
        for skip in neglected(of, {one.member.id: step.group.cannot_roll for one in of}, when)
    ]
    plan = replace(document.plan, groups=steps, neglected=(*document.plan.neglected, *overdue))
    return replace(document, plan=plan)


def _step(
    at: FleetSession, delegated: DelegatedFleet, document: ApprovedPlan, group: Group, inside: Sequence[Judged],
    when: datetime,
) -> GroupStep:  # fmt: skip
    """A group with its pace, and with why it is left alone."""
    limits, violating, target = at.fleet.limits, violating_in(inside), document.plan.target
    rules = {rule for one in violating for rule in one.rules}
    budgets = caps(limits, group.desired, when) if group.desired else ()
    left = group.cannot_roll or at.why_not_group(inside, target, document.adopt) or frozen(rules, budgets)
    reasons = [reason.what for one in violating for reason in one.violations]
    merge = at.instead(group, target, reasons) if group.cannot_roll else ""
    planned = replace(group, cannot_roll=left, instead=merge)
    return GroupStep(planned, delegated.pace(planned, allowed(limits, group.desired, rules, when)))
