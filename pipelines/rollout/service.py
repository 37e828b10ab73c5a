"""Rollouts as services: unfinished ones are executed to their end, then members and groups are planned and rolled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from secrets import token_hex

from hardening.foundation.console import say
from hardening.foundation.errors import RefusedError
from pipelines.fleet.ec2.pacing import pacing
from pipelines.fleet.members import BACK, ReplacementImage
from pipelines.fleet.model import Approval
from pipelines.fleet.port import Group
from pipelines.fleet.violations import Judged
from pipelines.rollout.approval import consented, refuse_used
from pipelines.rollout.approved_plan import ApprovedPlan, refuse_repaced
from pipelines.rollout.executor import execute, go_on
from pipelines.rollout.orders import Order
from pipelines.rollout.plan import GroupStep, Plan
from pipelines.rollout.refusals import refuse_implausible, refuse_target, why_not
from pipelines.rollout.rollout_store import View
from pipelines.rollout.schedule import allowed
from pipelines.rollout.session import FleetSession, check
from pipelines.rollout.state import MemberState, Phase, RolloutOutcome


def start(
    at: FleetSession, *, apply: bool, adopt: Sequence[str] = (), automated: bool = False,
    approved: ApprovedPlan | None = None, as_owner: bool = False,
) -> tuple[Plan, RolloutOutcome | None]:  # fmt: skip
    """Plan the fleet's rollout and, with `apply`, carry it out; an automated run does so only if the fleet says so.

    `approved`: exactly that plan is carried out, or refused with what has moved since. Where the fleet asks for an
    approval, somebody else has given it, or `as_owner` does without. What an earlier run left unfinished is carried to
    its end first. Raises RefusedError when a limit forbids the rollout, no approval stands, or somebody else rolls the
    fleet, and OutsideError. A rollout that failed has an Outcome that says so.
    """
    act = apply and not (automated and at.fleet.approval is Approval.REQUIRED)
    if act:
        go_on(at)
    else:
        for row in at.context.ledger.open_rollouts(at.fleet.name):
            say(f"the rollout {row.id} is not over; --apply goes on with it where its process is dead")
    if approved:
        refuse_used(at.context, approved)
    document = _same(at, approved) if approved else plan_all(at, adopt, automated=automated)
    if not act or not document.plan.parts:
        return document.plan, None
    order = Order(_new_id(at), document.plan, at.fleet.limits, document.adopt)
    with consented(at, approved or document, order.rollout, planned=approved is not None, as_owner=as_owner):
        outcome = execute(at, order)
    check(at)
    return document.plan, outcome


def plan_all(at: FleetSession, adopt: Sequence[str] = (), *, automated: bool = False) -> ApprovedPlan:
    """What a rollout would do now, of members and of groups that a service rolls. Raises RefusedError, OutsideError."""
    judged = check(at) if at.groups else ()
    document = at.plan(adopt, automated=automated, judged=judged)
    return with_groups(document, _plan_groups(at, judged, adopt))


def with_groups(document: ApprovedPlan, groups: Sequence[GroupStep]) -> ApprovedPlan:
    """The plan with these groups to roll."""
    return replace(document, plan=replace(document.plan, groups=tuple(groups)))


def back(at: FleetSession, view: View) -> RolloutOutcome:
    """Bring the members that an ended rollout has replaced back to exactly what they ran before it.

    Asked for again, it finds what it has done. Raises RefusedError as `order_back` does, and where a group has no way.
    """
    order = order_back(view)
    go_on(at)
    refuse_no_way_back(at, order)
    outcome = execute(at, order)
    check(at)
    return outcome


def order_back(view: View) -> Order:
    """The order that brings back what an ended rollout has replaced. Raises RefusedError where nothing can go back."""
    rollout, replaced = f"{view.row.id}{BACK}", can_go_back(view)
    if not replaced:
        raise RefusedError(f"{view.row.id}: nothing to roll back", hint="every member runs what it ran before")
    return replace(view.order, rollout=rollout, back=replaced)


def can_go_back(view: View) -> tuple[MemberState, ...]:
    """The members that run the new version, and those that may: what could not go back is tried again.

    Of a rollout under way also those of which the old one is kept: their wave is put back.
    """
    runs_new = (Phase.NEW, Phase.SERVING) if view.row.open else (Phase.NEW,)
    return tuple(one for one in view.members if one.phase in runs_new or (one.phase is Phase.FAILED and one.pinned))


def _new_id(at: FleetSession) -> str:
    """A rollout's name, which no other ever had: its labels say which containers are its own, also to be removed."""
    made = f"{at.fleet.name}-{at.now():%Y%m%d%H%M%S}-{token_hex(3)}"
    return _new_id(at) if at.context.ledger.rollout(made) else made


def _plan_groups(at: FleetSession, judged: Sequence[Judged], adopt: Sequence[str]) -> list[GroupStep]:
    """The groups that violate, each with its pace. `adopt`: those with an unknown or another image that are taken over
    on purpose.

    Raises RefusedError where the replacement may not run, where the inventory is implausible, or where a group's limits
    cannot be said to the service, and OutsideError.
    """
    rules = violating(judged)
    groups = [one for one in (at.groups.groups() if at.groups else ()) if one.id in rules]
    if not groups:
        return []
    target, now = at.origins().target(), at.now()
    refuse_target(at.fleet, target, now)
    refuse_implausible(at.fleet, [one for group in groups for one in _inside(judged, group)], adopt)
    groups = [_judged(at, group, judged, target, adopt) for group in groups]
    return [_step(at, group, rules[group.id]) for group in groups]


def _same(at: FleetSession, approved: ApprovedPlan) -> ApprovedPlan:
    """An approved plan as it is planned again, if that and the world are what was approved.

    A group of which something must be left alone by now is so as a whole. Raises RefusedError with what differs.
    """
    document = at.same(approved)
    if not approved.plan.groups:
        return document
    judged = check(at)
    rules, present = violating(judged), {one.id: one for one in (at.groups.groups() if at.groups else ())}
    wanted = [step.group.id for step in approved.plan.groups]
    again = [
        _step(at, present[name], rules[name], approved.made_at) for name in wanted if name in rules and name in present
    ]
    refuse_repaced(approved, again, at.fleet)
    target = document.plan.target
    return with_groups(
        document, [replace(one, group=_judged(at, one.group, judged, target, approved.adopt)) for one in again]
    )


def _inside(judged: Iterable[Judged], group: Group) -> list[Judged]:
    """What is in a group, judged as if it were the group: by that name people take it over."""
    found = [one for one in judged if one.member.group == group.id]
    return [replace(one, member=replace(one.member, name=group.name, cannot_roll="")) for one in found]


def _judged(
    at: FleetSession, group: Group, judged: Iterable[Judged], target: ReplacementImage, adopt: Sequence[str]
) -> Group:
    """The group, with why it is left alone, for one thing in it that must be: the service replaces all of it."""
    violating = [one for one in _inside(judged, group) if one.violations]
    found = ((one, why_not(at.fleet, one, target, at.now(), adopt)) for one in violating)
    left = next((f"{one.member.id.rpartition('/')[2]}: {why}" for one, why in found if why), "")
    return replace(group, cannot_roll=group.cannot_roll or left)


def refuse_no_way_back(at: FleetSession, order: Order) -> None:
    """Raise RefusedError where nothing but groups goes back and none of them can, with the reason of each."""
    going = {one.id: one for one in order.back}
    groups = [step.group for step in order.plan.groups if step.group.id in going]
    if not groups:
        return
    if (port := at.groups) is None:
        raise RefusedError(f"{at.fleet.name} no longer has Auto Scaling groups", hint="its file was changed since")
    reasons = [port.way_back(order.rollout, group, going[group.id].pin) for group in groups]
    if all(reasons) and len(groups) == len(going):
        hint = "move the channel back with ./goldsmith image.rollback NAME, then ./goldsmith roll.start"
        raise RefusedError("no group can go back to what it ran before", evidence="\n".join(reasons), hint=hint)


def violating(judged: Iterable[Judged]) -> dict[str, frozenset[str]]:
    """By id, the groups of which something violates, with the rules: an instance, or what it would start next."""
    found: dict[str, frozenset[str]] = {}
    for one in judged:
        if one.member.group and one.violations:
            found[one.member.group] = found.get(one.member.group, frozenset()) | one.rules
    return found


def _step(at: FleetSession, group: Group, rules: frozenset[str], when: datetime | None = None) -> GroupStep:
    limits = at.fleet.limits
    most = allowed(limits, group.desired, sorted(rules), when or at.now())
    if not most and group.desired:
        raise RefusedError(f"budget exhausted for {group.name}", hint="see limits.budgets")
    return GroupStep(group, pacing(limits, group.desired, most))
