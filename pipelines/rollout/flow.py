"""The flow of a rollout: wave after wave, bake, promote; then the groups; and back when a person says so. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from hardening.foundation.errors import GoldsmithError, RefusedError
from hardening.foundation.text import many
from images.documents import from_json, to_json
from pipelines.durable.port import BugError, Child, Flow, Json, WorkflowEngine
from pipelines.fleet.members import ReplacementImage
from pipelines.fleet.model import Method
from pipelines.rollout.admission import admitted, group_admitted
from pipelines.rollout.baking import IllError, bake, bake_group, count_at_first, refuse_fewer, settle
from pipelines.rollout.group import roll_group
from pipelines.rollout.member import DOWN, finish_member, replace_member
from pipelines.rollout.plan_model import GroupStep
from pipelines.rollout.state import (
    SAID,
    Cause,
    DesiredState,
    Event,
    Finish,
    GroupOrder,
    MemberOrder,
    MemberState,
    Order,
    Phase,
    RolloutOutcome,
    RolloutStage,
    Scope,
    Verb,
    World,
)
from pipelines.rollout.steps import Pairs, Rolling, StoppedError
from pipelines.rollout.waves import Wave, canary_of

Argument = TypeVar("Argument")
ROLLOUT, MEMBER, FINISH, GROUP = "rollout", "member", "finish", "group"  # the flows by name
UNFINISHED = "not all went back"


def flows(world: World) -> Mapping[str, Flow]:
    """The flows of rollouts by name, for a process that acts through `world`."""
    return {
        ROLLOUT: _flow(Order.read, partial(roll, world)),
        MEMBER: _flow(partial(from_json, MemberOrder), partial(replace_member, world)),
        FINISH: _flow(partial(from_json, Finish), partial(finish_member, world)),
        GROUP: _flow(partial(from_json, GroupOrder), partial(roll_group, world)),
    }


def _flow(read: Callable[[Json], Argument], run: Callable[[WorkflowEngine, Argument], Awaitable[object]]) -> Flow:
    """`run` as the workflow engine executes it: the engine records JSON, and flows take and return values."""

    async def flow(engine: WorkflowEngine, argument: Json) -> Json:
        return to_json(await run(engine, read(argument)))

    return flow


async def roll(world: World, engine: WorkflowEngine, order: Order) -> RolloutOutcome:
    """Execute an order. A rollout that fails returns an outcome; only a broken ledger or a bug raises."""
    rolling = Rolling(world, engine, order, await engine.now())
    await rolling.begin()
    before = await count_at_first(rolling)
    if not rolling.order.back:
        await _all_parts(rolling)
    goes_back = bool(rolling.order.back) or await _wants_back(rolling)
    if goes_back:
        await go_back(rolling)
    await refuse_fewer(rolling, before)
    if not await _end(rolling, goes_back=goes_back):  # a person said so while it was counted who serves
        await go_back(rolling)
        await refuse_fewer(rolling, before)
        await _end(rolling, goes_back=True)
    return RolloutOutcome(rolling.state, tuple(rolling.members.values()))


async def _all_parts(rolling: Rolling) -> None:
    try:
        if rolling.order.plan.waves:
            await _all_waves(rolling)
        await roll_groups(rolling)
    except GoldsmithError as error:
        await _fail(rolling, error)


async def _all_waves(rolling: Rolling) -> None:
    for target in rolling.order.plan.targets:
        await rolling.runner.act(f"prepare {target.reference}", partial(rolling.world.fleet.prepare, target))
    waves = list(enumerate(rolling.order.plan.waves, start=1))
    while waves:
        number, wave = waves.pop(0)
        proved = await _wave(rolling, number, wave)
        if wave.canary and not proved and waves:  # each was left alone: the next ones are the canary
            number, following = waves.pop(0)
            waves[:0] = [(number, part) for part in canary_of(following, rolling.order.limits)]


async def _wave(rolling: Rolling, number: int, wave: Wave) -> bool:
    """Replace the members of a wave, let it bake, and only then remove the old ones; whether any of it is new."""
    rolling.wave = wave.steps
    await rolling.save(RolloutStage.ROLLING, wave=number)
    await replace_all(rolling, [rolling.member_order(step) for step in wave.steps], wave.parallel)
    await bake(rolling, wave.bake, asks=wave.canary and not rolling.order.limits.auto_promote)
    await finish(rolling, Verb.PROMOTE, rolling.pairs())
    refuse_broken(rolling, [step.member.id for step in wave.steps])
    return bool(rolling.new())


async def _fail(rolling: Rolling, error: GoldsmithError) -> None:
    """Put the members of the broken wave back, all of them or the ill ones alone, as the limits say."""
    stopped = isinstance(error, StoppedError)
    await rolling.save(RolloutStage.RESTORING, error.message, None if stopped else Event.FAILED, failure=str(error))
    if not stopped and not rolling.order.limits.auto_rollback:
        await _keep_the_good(rolling, error)
    await _put_back(rolling, rolling.pairs(), error)


async def _keep_the_good(rolling: Rolling, error: GoldsmithError) -> None:
    """Without auto_rollback only those go back that are not well; a person who stops even this, puts all back."""
    while rolling.pairs():
        ill = error.members if isinstance(error, IllError) else ()
        await _put_back(rolling, [pair for pair in rolling.pairs() if pair[1].id in ill], error)
        try:
            await settle(rolling)
            return await finish(rolling, Verb.PROMOTE, rolling.pairs())
        except IllError as more:
            error = more
        except GoldsmithError:
            return None
    return None


async def _put_back(rolling: Rolling, pairs: Pairs, error: GoldsmithError) -> None:
    await finish(rolling, Verb.RESTORE, list(reversed(pairs)), f"rolled back: {error.message}")


async def _wants_back(rolling: Rolling) -> bool:
    desired_state = await rolling.runner.look("look for a rollback", rolling.runner.desired_state)
    return DesiredState(desired_state) is DesiredState.ROLLBACK


async def _end(rolling: Rolling, *, goes_back: bool) -> bool:
    """Write down that it is over; False where a rollback was asked for before that: it is over once all went back."""
    ended = await rolling.runner.engine.now()
    counts = Counter(member.phase for member in rolling.members.values())
    many = ", ".join(f"{counts[phase]} {phase}" for phase in Phase if counts[phase])
    event = Event.FAILED if rolling.state.failure else Event.ENDED
    unless = None if goes_back else DesiredState.ROLLBACK
    return await rolling.save(RolloutStage.ENDED, many, event, unless=unless, ended_at=ended)


# -- starting the flows of members and groups --------------------------------------------------------------------------


class BrokenError(RefusedError):
    """A member failed, and with it the rollout."""


async def replace_all(rolling: Rolling, orders: Sequence[MemberOrder], parallel: int) -> None:
    """Replace members, as many at a time as are admitted. Raises BrokenError after a batch that failed."""
    left = list(orders)
    while left:
        batch = await replace_some(rolling, left, parallel)
        left = left[len(batch) :]
        refuse_broken(rolling, [order.member for order in batch])


def refuse_broken(rolling: Rolling, members: Sequence[str]) -> None:
    """Raise BrokenError where one of the members failed."""
    if failed := [rolling.members[member].failure for member in members if rolling.members[member].failure]:
        raise BrokenError("\n".join(failed))


async def replace_some(rolling: Rolling, orders: Sequence[MemberOrder], parallel: int) -> Sequence[MemberOrder]:
    """Replace the first of the members side by side, as many of `parallel` as are admitted; return their orders."""
    batch = orders[: await admitted(rolling, orders[:parallel])]
    prefix = "back/" if batch[0].back else ""
    await children(rolling, MEMBER, [(prefix + order.member, order.member, to_json(order)) for order in batch])
    return batch


async def finish(rolling: Rolling, verb: Verb, pairs: Pairs, note: str = "") -> None:
    """Promote or restore pairs of old and new; one at a time where that takes a member away."""
    one_by_one = verb is Verb.RESTORE and rolling.order.plan.method is Method.IN_PLACE
    width = 1 if one_by_one else rolling.order.limits.max_parallel
    for start in range(0, len(pairs), width):
        batch = pairs[start : start + width]
        await children(rolling, FINISH, [_finish(verb, order, member, note) for order, member in batch])


async def children(rolling: Rolling, flow: str, batch: Sequence[tuple[str, str, Json]]) -> None:
    """Start flows side by side, (key, member, argument), and await them all."""
    started = [(member, await rolling.runner.engine.child(key, flow, argument)) for key, member, argument in batch]
    for member, child in started:
        await _await_end(rolling, member, child)


async def start_group(rolling: Rolling, step: GroupStep, part: Scope, pinned: str = "") -> MemberState:
    """Roll one group, or a part of it, and remember what became of it."""
    order, group = rolling.order, step.group
    argument = GroupOrder(order.rollout, step, order.plan.target, order.limits, part, pinned, order.adopt)
    prefix = f"{part}/" if part in (Scope.CANARY, Scope.BACK) else ""
    child = await rolling.runner.engine.child(f"{prefix}{group.id}", GROUP, to_json(argument))
    return await _await_end(rolling, group.id, child)


async def _await_end(rolling: Rolling, member: str, child: Child) -> MemberState:
    """Await the flow of a member, and remember what became of it. An error is the member's failure."""
    try:
        return rolling.keep(from_json(MemberState, await child.result()))
    except (GoldsmithError, BugError) as error:  # a bug in one member's flow must not end the others
        return rolling.keep(replace(rolling.members[member], phase=Phase.FAILED, failure=str(error)))


def _finish(verb: Verb, order: MemberOrder, member: MemberState, note: str) -> tuple[str, str, Json]:
    """A child that finishes a member: its key, the member, its argument."""
    key = f"{verb}/{'back/' if order.back else ''}{member.id}"
    return key, member.id, to_json(Finish(verb, order, member, note))


# -- groups, one after the other ---------------------------------------------------------------------------------------


async def roll_groups(rolling: Rolling) -> None:
    """Let the service roll each group of the plan. Raises RefusedError with the first that fails, StoppedError."""
    plan = rolling.order.plan
    for number, step in enumerate(plan.groups, start=len(plan.waves) + 1):
        await group_admitted(rolling)
        await rolling.save(RolloutStage.ROLLING, wave=number)
        if failure := (await _in_parts(rolling, step)).failure:
            raise RefusedError(failure)


async def _in_parts(rolling: Rolling, step: GroupStep) -> MemberState:
    """Roll a group; where a person has to approve its canary, that first, and the rest afterwards.

    Raises StoppedError where the canary is to go back with everything else.
    """
    group, limits = step.group, rolling.order.limits
    if group.cannot_roll or limits.auto_promote or not limits.canary or not group.desired:
        return await start_group(rolling, step, Scope.ALL)
    canary = await start_group(rolling, step, Scope.CANARY)
    if canary.phase is not Phase.SERVING:
        return canary
    try:
        await bake_group(rolling, group.name, group if step.whole else None)
        if step.whole:
            return await rolling.mark(replace(canary, phase=Phase.NEW, note=""))
        await group_admitted(rolling)
    except StoppedError as stopped:
        return await _canary_stopped(rolling, canary, stopped)
    except GoldsmithError as error:
        return await _canary_refused(rolling, step, canary, error)
    await rolling.save(RolloutStage.ROLLING)
    return await start_group(rolling, step, Scope.REST, canary.pinned)


async def _canary_stopped(rolling: Rolling, canary: MemberState, stopped: StoppedError) -> MemberState:
    """A rollback finds the canary where it is, and brings it back; an abort leaves it there, and says so."""
    if stopped.desired_state is DesiredState.ROLLBACK:
        raise stopped
    said = f"{stopped.message} after its canary: {canary.note}"
    return await rolling.mark(replace(canary, phase=Phase.FAILED, note=said, failure=said))


async def _canary_refused(rolling: Rolling, step: GroupStep, canary: MemberState, error: GoldsmithError) -> MemberState:
    """The canary must not stay: it goes back, unless auto_rollback is off."""
    failure = str(error)
    if not rolling.order.limits.auto_rollback:
        said = f"auto_rollback is off: {canary.note}"
        return await rolling.mark(replace(canary, phase=Phase.FAILED, note=said, failure=failure))
    await rolling.save(RolloutStage.RESTORING, error.message)
    done = await start_group(rolling, step, Scope.BACK, canary.pinned)
    return await rolling.mark(replace(done, failure=done.failure or failure))


# -- going back --------------------------------------------------------------------------------------------------------


async def go_back(rolling: Rolling) -> None:
    """Replace every promoted member by what was pinned before its first change, the last first; before them, groups.

    One that cannot go back fails the rollout, with the cause, and the others go on. An abort stops it where it is.
    """
    named = {member.id for member in rolling.order.back}  # also those that could not go back when it was first tried
    groups = {step.group.id: step for step in rolling.order.plan.groups}
    before = {one.id: one for one in reversed(rolling.members.values()) if one.id in named or _is_new(one, groups)}
    await rolling.save(RolloutStage.RESTORING, f"going back with {many(len(before), 'member')}")
    rolling.runner = replace(rolling.runner, back=True)
    steps = {step.member.id: step for step in rolling.order.plan.steps}
    orders = [_order(rolling, rolling.member_order(steps[one.id]), one) for one in before.values() if one.id in steps]
    stopped = ""
    for step in reversed(groups.values()):
        if step.group.id in before:
            await start_group(rolling, step, Scope.BACK, before[step.group.id].pinned)
    try:
        while orders:
            done = await replace_some(rolling, orders, rolling.order.limits.max_parallel)
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
    return replace(order, label=label, target=target, back=True, replaces=order.target.digest)


def pinned(member: MemberState) -> ReplacementImage:
    """What the member ran before, exactly."""
    return ReplacementImage(member.pinned, member.pinned.rpartition("@")[2], None)


async def _settle(rolling: Rolling, orders: Sequence[MemberOrder], before: Sequence[MemberState]) -> None:
    """Remove what the rollout had made, and say of each member what it runs now."""
    serving = [(order, rolling.members[order.member]) for order in orders]
    pairs = [(order, member) for order, member in serving if member.phase is Phase.SERVING]
    await finish(rolling, Verb.PROMOTE, pairs)
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
    """Nothing that a person should know of a member is forgotten on its way back, save how long it was away before."""
    kept = (part for part in before.note.split("; ") if not part.startswith(DOWN))
    return "; ".join(part for part in (*kept, said, after.note) if part)
