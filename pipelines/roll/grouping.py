"""The rollout of the groups that a service rolls: those that violate, each at the pace that the limits let."""

from __future__ import annotations

from collections.abc import Iterable

from hardening.foundation.errors import RefusedError
from pipelines.fleet.delegated import Group
from pipelines.fleet.ec2.pacing import pacing
from pipelines.fleet.members import Target
from pipelines.fleet.violations import Judged
from pipelines.roll.desk import Desk
from pipelines.rollouts.orders import GroupOrder, GroupsOrder
from pipelines.rollouts.refusals import refuse_target
from pipelines.rollouts.schedule import allowed


def plan_groups(at: Desk, judged: Iterable[Judged], rollout: str) -> GroupsOrder:
    """The order that brings every violating group to the replacement; without one it names none.

    Raises RefusedError where the replacement may not run, or a group's limits cannot be said to the service, and
    OutsideError.
    """
    rules = violating(judged)
    target, now = at.origins().target(), at.now()
    groups = [one for one in (at.groups.groups() if at.groups else ()) if one.id in rules]
    if groups:
        refuse_target(at.fleet, target, now)
    orders = tuple(_order(at, rollout, group, target, rules[group.id]) for group in groups)
    return GroupsOrder(rollout, at.fleet.name, target, at.fleet.limits, orders)


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
