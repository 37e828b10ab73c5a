"""Rollouts as services: unfinished ones are executed to their end, then members and groups are planned and rolled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from secrets import token_hex

from hardening.foundation.console import say
from hardening.foundation.errors import RefusedError
from images.documents import to_json
from pipelines.fleet.ec2.pacing import pacing
from pipelines.fleet.members import Target
from pipelines.fleet.model import Approval
from pipelines.fleet.orphans import BACK
from pipelines.fleet.port import Group
from pipelines.fleet.violations import Judged
from pipelines.rollout.approval import consented, refuse_used
from pipelines.rollout.approved_plan import Sealed, refuse_moved_groups, refuse_repaced, seal
from pipelines.rollout.executor import carry_out, go_on
from pipelines.rollout.orders import GroupOrder, GroupsOrder, Order, going_back, named
from pipelines.rollout.plan import Plan, nothing
from pipelines.rollout.refusals import refuse_implausible, refuse_target, why_not
from pipelines.rollout.schedule import allowed
from pipelines.rollout.session import Desk, check
from pipelines.rollout.state import MemberState, Outcome, Phase
from pipelines.rollout.store import View


def start(
    at: Desk, *, apply: bool, adopt: Sequence[str] = (), automated: bool = False, approved: Sealed | None = None,
    as_owner: bool = False,
) -> tuple[Plan, Outcome | None]:  # fmt: skip
    """Plan the fleet's rollout and, with `apply`, carry it out; an automated run does so only if the fleet says so.

    `approved`: exactly that plan is carried out, or refused with what has moved since. Where the fleet asks for an
    approval, somebody else has given it, or `as_owner` does without. What an earlier run left unfinished is carried to
    its end first. Raises RefusedError when a limit forbids the rollout, no approval stands, or somebody else rolls the
    fleet, and OutsideError. A rollout that failed and is back as it was has an Outcome that says so.
    """
    act = apply and not (automated and at.fleet.approval is Approval.REQUIRED)
    if not act:
        for row in at.context.ledger.open_rollouts(at.fleet.name):
            say(f"the rollout {row.id} is not over; --apply goes on with it where its process is dead")
        if approved:
            refuse_used(at.context, approved)
        return (at.same(approved) if approved else at.plan(adopt, automated=automated)).plan, None
    go_on(at)
    if approved:
        refuse_used(at.context, approved)
    sealed = at.same(approved) if approved else at.plan(adopt, automated=automated)
    if not sealed.plan.waves:
        return sealed.plan, None
    order = Order(_new_id(at), sealed.plan, at.fleet.limits, sealed.adopt)
    with consented(at, approved or sealed, order.rollout, planned=approved is not None, as_owner=as_owner):
        outcome = carry_out(at, to_json(order))
    check(at)
    return sealed.plan, outcome


def plan_all(at: Desk, adopt: Sequence[str] = (), *, automated: bool = False) -> Sealed:
    """What a rollout would do now, of members and of groups that a service rolls, for whoever approves it.

    Raises RefusedError and OutsideError.
    """
    judged = check(at) if at.groups else ()
    groups = plan_groups(at, judged, adopt) if at.groups else None
    return replace(at.plan(adopt, automated=automated, judged=judged), groups=groups)


def start_groups(
    at: Desk, *, apply: bool, automated: bool = False, adopt: Sequence[str] = (), approved: Sealed | None = None,
    as_owner: bool = False, also: str = "",
) -> tuple[GroupsOrder | None, Outcome | None]:  # fmt: skip
    """Plan the groups of the fleet that a service rolls and, with `apply`, let it roll those that violate.

    `approved`: exactly its groups are rolled, or refused with what has moved since; `also` is the rollout of members
    that the same start has begun by it. None where the fleet has none, or none violates. Raises as `start` does.
    """
    if at.groups is None:
        return None, None
    judged = check(at)
    order = same_groups(at, approved, judged) if approved else plan_groups(at, judged, adopt)
    if order is None or not apply or (automated and at.fleet.approval is Approval.REQUIRED):
        return order, None
    order = named(order, _new_id(at))
    sealed = approved or seal(nothing(at.fleet, order.target), at.world(), at.context.actor, adopt, order)
    with consented(at, sealed, order.rollout, planned=approved is not None, as_owner=as_owner, also=also):
        outcome = carry_out(at, to_json(order))
    check(at)
    return order, outcome


def back(at: Desk, view: View) -> Outcome:
    """Bring the members that an ended rollout has replaced back to exactly what they ran before it.

    Asked for again, it finds what it has done. Raises RefusedError as `order_back` does, and where a group has no way.
    """
    order = order_back(view)
    go_on(at)
    if isinstance(order, GroupsOrder):
        refuse_no_way_back(at, order)
    outcome = carry_out(at, to_json(order))
    check(at)
    return outcome


def order_back(view: View) -> Order | GroupsOrder:
    """The order that brings back what an ended rollout has replaced. Raises RefusedError where nothing can go back."""
    rollout, replaced = f"{view.row.id}{BACK}", can_go_back(view)
    if not replaced:
        raise RefusedError(f"{view.row.id} has nothing that could go back", hint="all of it is as it was")
    if isinstance(view.order, Order):
        return replace(view.order, rollout=rollout, back=replaced)
    return going_back(view.order, rollout, {member.id: member.pinned for member in replaced})


def can_go_back(view: View) -> tuple[MemberState, ...]:
    """The members that run the new version, and those that may: what could not go back is tried again.

    Of a rollout under way also those of which the old one is kept: their wave is put back.
    """
    runs_new = (Phase.NEW, Phase.SERVING) if view.row.open else (Phase.NEW,)
    return tuple(one for one in view.members if one.phase in runs_new or (one.phase is Phase.FAILED and one.pinned))


def _new_id(at: Desk) -> str:
    """A rollout's name, which no other ever had: its labels say which containers are its own, also to be removed."""
    made = f"{at.fleet.name}-{at.now():%Y%m%d%H%M%S}-{token_hex(3)}"
    return _new_id(at) if at.context.ledger.rollout(made) else made


def plan_groups(at: Desk, judged: Sequence[Judged], adopt: Sequence[str] = ()) -> GroupsOrder | None:
    """The order, still without a name, that brings every violating group to the replacement; None where none violates.

    `adopt`: groups with an unknown or another image that are taken over on purpose. Raises RefusedError where the
    replacement may not run, where the inventory is implausible, or where a group's limits cannot be said to the
    service, and OutsideError.
    """
    rules = violating(judged)
    target, now = at.origins().target(), at.now()
    every = at.groups.groups() if at.groups else ()
    groups = [one for one in every if one.id in rules]
    if not groups:
        return None
    refuse_target(at.fleet, target, now)
    refuse_implausible(at.fleet, [one for group in every for one in _inside(judged, group)], adopt)
    groups = [_judged(at, group, judged, target, adopt) for group in groups]
    orders = tuple(_order(at, group, target, rules[group.id]) for group in groups)
    return GroupsOrder("", at.fleet.name, target, at.fleet.limits, orders)


def same_groups(at: Desk, sealed: Sealed, judged: Sequence[Judged]) -> GroupsOrder | None:
    """The groups of an approved plan, if all are still as they were. Raises RefusedError with what differs.

    One of which something must be left alone by now is so as a whole.
    """
    if sealed.groups is None:
        return None
    world, rules, limits = at.world(), violating(judged), at.fleet.limits
    refuse_moved_groups(sealed, world)
    refuse_target(at.fleet, world.target, world.now)
    present = {group.id: group for group in world.groups}
    wanted = [one.group.id for one in sealed.groups.groups]
    again = [
        _order(at, present[name], world.target, rules[name], sealed.made_at)
        for name in wanted if name in rules and name in present
    ]  # fmt: skip
    refuse_repaced(sealed, again, world)
    orders = tuple(replace(one, group=_judged(at, one.group, judged, world.target, sealed.adopt)) for one in again)
    return GroupsOrder("", at.fleet.name, world.target, limits, orders)


def _inside(judged: Iterable[Judged], group: Group) -> list[Judged]:
    """What is in a group, judged as if it were the group: by that name people take it over."""
    found = [one for one in judged if one.member.group == group.id]
    return [replace(one, member=replace(one.member, name=group.name, cannot_roll="")) for one in found]


def _judged(at: Desk, group: Group, judged: Iterable[Judged], target: Target, adopt: Sequence[str]) -> Group:
    """The group, with why it is left alone, for one thing in it that must be: the service replaces all of it."""
    violating = [one for one in _inside(judged, group) if one.violations]
    found = ((one, why_not(at.fleet, one, target, at.now(), adopt)) for one in violating)
    left = next((f"{one.member.id.rpartition('/')[2]}: {why}" for one, why in found if why), "")
    return replace(group, cannot_roll=group.cannot_roll or left)


def refuse_no_way_back(at: Desk, order: GroupsOrder) -> None:
    """Raise RefusedError where none of the groups can go back, before anything is begun, with the reason of each."""
    port = at.groups
    if port is None:
        raise RefusedError(f"{at.fleet.name} is no fleet with groups any more", hint="its file was changed since")
    reasons = [port.way_back(one.rollout, one.group, json.loads(one.pinned)) for one in order.groups]
    if all(reasons):
        hint = "move the channel back with ./goldsmith image.rollback NAME, then ./goldsmith roll.start"
        raise RefusedError("no group can go back to what it ran before", evidence="\n".join(reasons), hint=hint)


def violating(judged: Iterable[Judged]) -> dict[str, frozenset[str]]:
    """By id, the groups of which something violates, with the rules: an instance, or what it would start next."""
    found: dict[str, frozenset[str]] = {}
    for one in judged:
        if one.member.group and one.violations:
            found[one.member.group] = found.get(one.member.group, frozenset()) | one.rules
    return found


def _order(at: Desk, group: Group, target: Target, rules: frozenset[str], when: datetime | None = None) -> GroupOrder:
    limits = at.fleet.limits
    most = allowed(limits, group.desired, sorted(rules), when or at.now())
    if not most and group.desired:
        raise RefusedError(f"the budgets of this moment allow nobody of {group.name}", hint="see limits.budgets")
    return GroupOrder("", at.fleet.name, group, target, pacing(limits, group.desired, most), limits)
