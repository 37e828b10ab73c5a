"""How members that were already promoted go back to the exact version that they ran before. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hardening.foundation.errors import GoldsmithError
from pipelines.fleet.members import Target
from pipelines.rollouts.ending import Verb
from pipelines.rollouts.orders import MemberOrder
from pipelines.rollouts.rolling import Rolling
from pipelines.rollouts.state import MemberState, Phase, Stage

UNFINISHED = "not all went back"


async def go_back(rolling: Rolling) -> None:
    """Replace every promoted member by what was pinned before its first change, the last first.

    One that cannot go back is reported, and the others go on. An abort stops it where it is.
    """
    named = {member.id for member in rolling.order.back}  # also those that could not go back when it was first tried
    members = reversed(rolling.members.values())
    left = [member for member in members if member.phase is Phase.NEW or member.id in named]
    await rolling.save(Stage.RESTORING, f"going back with {len(left)} members")
    rolling.hand = replace(rolling.hand, back=True)
    steps = {step.member.id: step for step in rolling.order.plan.steps}
    orders = [_order(rolling, rolling.member_order(steps[member.id]), member) for member in left]
    try:
        while left:
            done = await rolling.replace_some(orders, rolling.order.limits.max_parallel)
            await _settle(rolling, done, left[: len(done)])
            orders, left = orders[len(done) :], left[len(done) :]
    except GoldsmithError as error:
        said = f"{UNFINISHED}: {error}"
        await rolling.save(Stage.RESTORING, said, failure=said)


def _order(rolling: Rolling, order: MemberOrder, member: MemberState) -> MemberOrder:
    target = pinned(member)
    label = f"{rolling.order.rollout}-back"
    return replace(order, label=label, target=target, back=True, replaces=rolling.order.plan.target.digest)


def pinned(member: MemberState) -> Target:
    """What the member ran before, exactly."""
    return Target(member.pinned, member.pinned.rpartition("@")[2], None)


async def _settle(rolling: Rolling, orders: Sequence[MemberOrder], before: Sequence[MemberState]) -> None:
    """Remove what the rollout had made, and say of each member what it runs by now."""
    serving = [(order, rolling.members[order.member]) for order in orders]
    pairs = [(order, member) for order, member in serving if member.phase is Phase.SERVING]
    await rolling.finish(Verb.PROMOTE, pairs)
    for member in before:
        await rolling.mark(_called(member, rolling.members[member.id]))


def _called(before: MemberState, after: MemberState) -> MemberState:
    """A member's end in the words of the rollout: what is new for the way back is the old version."""
    if after.phase is Phase.NEW:
        return replace(before, phase=Phase.OLD, note=_noted(before, after, f"it went back to {before.pinned}"))
    if after.phase is Phase.SKIPPED:
        return replace(before, note=_noted(before, after, "it was not taken back"))
    note = _noted(before, after, "it could not go back")
    return replace(before, phase=Phase.FAILED, note=note, failure=after.failure or note)


def _noted(before: MemberState, after: MemberState, said: str) -> str:
    """Nothing that a person should know of a member is forgotten on its way back."""
    return "; ".join(part for part in (before.note, said, after.note) if part)
