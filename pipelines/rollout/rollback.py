"""How members that were already promoted, and groups, go back to the exact version that they ran before. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

from hardening.foundation.errors import GoldsmithError
from pipelines.fleet.members import ReplacementImage
from pipelines.rollout.orders import MemberOrder, Scope, Verb
from pipelines.rollout.rolling import Rolling
from pipelines.rollout.state import SAID, Cause, MemberState, Phase, RolloutStage

UNFINISHED = "not all went back"


async def go_back(rolling: Rolling) -> None:
    """Replace every promoted member by what was pinned before its first change, the last first; before them, groups.

    One that cannot go back fails the rollout, with the cause, and the others go on. An abort stops it where it is.
    """
    named = {member.id for member in rolling.order.back}  # also those that could not go back when it was first tried
    groups = {step.group.id: step for step in rolling.order.plan.groups}
    before = {one.id: one for one in reversed(rolling.members.values()) if one.id in named or _is_new(one, groups)}
    await rolling.save(RolloutStage.RESTORING, f"going back with {len(before)} members")
    rolling.runner = replace(rolling.runner, back=True)
    steps = {step.member.id: step for step in rolling.order.plan.steps}
    orders = [_order(rolling, rolling.member_order(steps[one.id]), one) for one in before.values() if one.id in steps]
    stopped = ""
    for step in reversed(groups.values()):
        if step.group.id in before:
            await rolling.roll_group(step, Scope.BACK, before[step.group.id].pinned)
    try:
        while orders:
            done = await rolling.replace_some(orders, rolling.order.limits.max_parallel)
            await _settle(rolling, done, [before[order.member] for order in done])
            orders = orders[len(done) :]
    except GoldsmithError as error:
        stopped = str(error)
    await _tell_who_is_left(rolling, before, stopped)


def _is_new(member: MemberState, groups: Container[str]) -> bool:
    """Whether it runs the new version; of a group also its canary alone."""
    return member.phase is Phase.NEW or (member.phase is Phase.SERVING and member.id in groups)


async def _tell_who_is_left(rolling: Rolling, before: Mapping[str, MemberState], stopped: str) -> None:
    """Fail the rollout with each member that does not run again what it ran before, and why."""
    left = [member for member in map(rolling.members.__getitem__, before) if member.phase is not Phase.OLD]
    causes = [f"{one.name}: {_cause(one)}" for one in left if one != before[one.id]]
    if left or stopped:
        waiting = [one.name for one in left if one == before[one.id]]
        causes += [f"{', '.join(waiting)}: {stopped or 'not reached'}"] if waiting else []
        said = f"{UNFINISHED}: " + "\n".join(causes or [stopped])
        await rolling.save(RolloutStage.RESTORING, said, failure=said)


def _order(rolling: Rolling, order: MemberOrder, member: MemberState) -> MemberOrder:
    target = pinned(member)
    label = f"{rolling.order.rollout}-back"
    return replace(order, label=label, target=target, back=True, replaces=rolling.order.plan.target.digest)


def pinned(member: MemberState) -> ReplacementImage:
    """What the member ran before, exactly."""
    return ReplacementImage(member.pinned, member.pinned.rpartition("@")[2], None)


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
    if after.cause is Cause.BACK_ALREADY:
        return replace(before, phase=Phase.OLD, note=_noted(before, after, ""))
    if after.phase is Phase.SKIPPED:
        return replace(before, note=_noted(before, after, SAID[Cause.NOT_TAKEN]), cause=Cause.NOT_TAKEN)
    note = _noted(before, after, SAID[Cause.COULD_NOT])
    return replace(before, phase=Phase.FAILED, note=note, failure=after.failure or note, cause=Cause.COULD_NOT)


def _cause(member: MemberState) -> str:
    return member.note if member.failure in member.note else f"{member.note}: {member.failure}"


def _noted(before: MemberState, after: MemberState, said: str) -> str:
    """Nothing that a person should know of a member is forgotten on its way back."""
    return "; ".join(part for part in (before.note, said, after.note) if part)
