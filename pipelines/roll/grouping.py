"""The rollout of the groups that a service rolls: those that violate, each at the pace that the limits let."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hardening.foundation.errors import RefusedError
from pipelines.fleet.delegated import Group
from pipelines.fleet.ec2.pacing import pacing
from pipelines.fleet.members import Target
from pipelines.fleet.violations import Judged
from pipelines.roll.desk import Desk
from pipelines.rollouts.orders import GroupOrder, GroupsOrder
from pipelines.rollouts.refusals import refuse_implausible, refuse_target, why_not
from pipelines.rollouts.schedule import allowed


def plan_groups(at: Desk, judged: Sequence[Judged], rollout: str, adopt: Sequence[str] = ()) -> GroupsOrder:
    """The order that brings every violating group to the replacement; without one it names none.

    `adopt`: groups with an unknown or another image that are taken over on purpose. Raises RefusedError where the
    replacement may not run, where the inventory is implausible, or where a group's limits cannot be said to the
    service, and OutsideError.
    """
    rules = violating(judged)
    target, now = at.origins().target(), at.now()
    every = at.groups.groups() if at.groups else ()
    inside = {group.id: [_within(one, group) for one in judged if one.member.group == group.id] for group in every}
    groups = [one for one in every if one.id in rules]
    if groups:
        refuse_target(at.fleet, target, now)
        refuse_implausible(at.fleet, [one for those in inside.values() for one in those], adopt)
    left = {group.id: _left_alone(at, inside[group.id], target, adopt) for group in groups}
    groups = [replace(group, cannot_roll=group.cannot_roll or left[group.id]) for group in groups]
    orders = tuple(_order(at, rollout, group, target, rules[group.id]) for group in groups)
    return GroupsOrder(rollout, at.fleet.name, target, at.fleet.limits, orders)


def _within(one: Judged, group: Group) -> Judged:
    """What is in a group, judged as if it were the group: by that name people take it over."""
    return replace(one, member=replace(one.member, name=group.name, cannot_roll=""))


def _left_alone(at: Desk, inside: Sequence[Judged], target: Target, adopt: Sequence[str]) -> str:
    """Why a group is left alone, for one thing in it that must be: the service replaces all of it."""
    found = ((one, why_not(at.fleet, one, target, at.now(), adopt)) for one in inside if one.violations)
    return next((f"{one.member.id.rpartition('/')[2]}: {why}" for one, why in found if why), "")


def violating(judged: Iterable[Judged]) -> dict[str, frozenset[str]]:
    """By id, the groups of which something violates, with the rules: an instance, or what it would start next."""
    found: dict[str, frozenset[str]] = {}
    for one in judged:
        if one.member.group and one.violations:
            found[one.member.group] = found.get(one.member.group, frozenset()) | one.rules
    return found


def _order(at: Desk, rollout: str, group: Group, target: Target, rules: frozenset[str]) -> GroupOrder:
    limits = at.fleet.limits
    most = allowed(limits, group.desired, sorted(rules), at.now())
    if not most and group.desired:
        raise RefusedError(f"the budgets of this moment allow nobody of {group.name}", hint="see limits.budgets")
    return GroupOrder(rollout, at.fleet.name, group, target, pacing(limits, group.desired, most), limits)
