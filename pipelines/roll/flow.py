"""The flow of a rollout: what an earlier process left is carried to its end, then planned anew and carried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from secrets import token_hex

from hardening.foundation.console import say
from hardening.foundation.errors import RefusedError
from images.documents import to_json
from pipelines.fleet.leavings import BACK
from pipelines.fleet.model import Approval
from pipelines.roll.approval import consented, refuse_used
from pipelines.roll.carrying import carry_out, go_on
from pipelines.roll.desk import Desk, check
from pipelines.roll.grouping import plan_groups, refuse_no_way_back, same_groups
from pipelines.roll.underway import View
from pipelines.rollouts.orders import GroupsOrder, Order, going_back, named
from pipelines.rollouts.plan import Plan, nothing
from pipelines.rollouts.sealed import Sealed, seal
from pipelines.rollouts.state import MemberState, Outcome, Phase


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
