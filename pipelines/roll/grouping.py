"""The rollout of the groups that a service rolls: those that violate, each at the pace that the limits let."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from hardening.foundation.errors import RefusedError
from pipelines.fleet.delegated import Group
from pipelines.fleet.ec2.pacing import pacing
from pipelines.fleet.members import Target
from pipelines.fleet.violations import Judged
from pipelines.roll.desk import Desk
from pipelines.rollouts.orders import GroupOrder, GroupsOrder
from pipelines.rollouts.refusals import refuse_implausible, refuse_target, why_not
from pipelines.rollouts.schedule import allowed
from pipelines.rollouts.sealed import Sealed, refuse_moved_groups, refuse_repaced


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
