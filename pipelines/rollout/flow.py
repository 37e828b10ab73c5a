"""The flow of a rollout: wave after wave, bake, promote; then the groups; and back when a person says so. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from hardening.foundation.errors import GoldsmithError
from images.documents import from_json, to_json
from pipelines.durable.port import Flow, Json, WorkflowEngine
from pipelines.rollout.baking import IllError, bake, settle
from pipelines.rollout.finish import finish_member
from pipelines.rollout.group import roll_group, roll_groups
from pipelines.rollout.journal import DesiredState, Event
from pipelines.rollout.member import replace_member
from pipelines.rollout.member_context import LEAST_READS
from pipelines.rollout.orders import Finish, GroupOrder, MemberOrder, Order, Verb, World, ordered
from pipelines.rollout.rollback import go_back
from pipelines.rollout.rolling import FINISH, GROUP, MEMBER, Pairs, Rolling
from pipelines.rollout.state import Cause, MemberState, Phase, RolloutOutcome, RolloutStage
from pipelines.rollout.steps import HELD, Backoff, StoppedError
from pipelines.rollout.waves import Wave, canary_of

Argument = TypeVar("Argument")
ROLLOUT = "rollout"


def flows(world: World) -> Mapping[str, Flow]:
    """The flows of rollouts by name, for a process that acts through `world`."""
    return {
        ROLLOUT: _flow(ordered, partial(roll, world)),
        MEMBER: _flow(partial(from_json, MemberOrder), partial(replace_member, world)),
        FINISH: _flow(partial(from_json, Finish), partial(finish_member, world)),
        GROUP: _flow(partial(from_json, GroupOrder), partial(roll_group, world)),
    }


def _flow(read: Callable[[Json], Argument], run: Callable[[WorkflowEngine, Argument], Awaitable[object]]) -> Flow:
    """`run` as the engine carries it: JSON is what it records, and values are what flows take and give."""

    async def flow(engine: WorkflowEngine, argument: Json) -> Json:
        return to_json(await run(engine, read(argument)))

    return flow


async def roll(world: World, engine: WorkflowEngine, order: Order) -> RolloutOutcome:
    """Carry an order out. It fails by its Outcome: what is raised is a broken ledger, or a bug."""
    rolling = Rolling(world, engine, order, await engine.now())
    await rolling.begin()
    before = await count_at_first(rolling)
    if not rolling.order.back:
        await _all_parts(rolling)
    if rolling.order.back or await _wants_back(rolling):
        await go_back(rolling)
    await refuse_fewer(rolling, before)
    return await _end(rolling)


async def _all_parts(rolling: Rolling) -> None:
    try:
        if rolling.order.plan.waves:
            await _all_waves(rolling)
        await roll_groups(rolling)
    except GoldsmithError as error:
        await _fail(rolling, error)


async def _all_waves(rolling: Rolling) -> None:
    target = rolling.order.plan.target
    await rolling.runner.act(f"prepare {target.reference}", lambda: rolling.world.fleet.prepare(target))
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
    await rolling.replace_all([rolling.member_order(step) for step in wave.steps], wave.parallel)
    await bake(rolling, wave.bake, asks=wave.canary and not rolling.order.limits.auto_promote)
    await rolling.finish(Verb.PROMOTE, rolling.pairs())
    rolling.refuse_broken([step.member.id for step in wave.steps])
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
            return await rolling.finish(Verb.PROMOTE, rolling.pairs())
        except IllError as more:
            error = more
        except GoldsmithError:
            return None
    return None


async def _put_back(rolling: Rolling, pairs: Pairs, error: GoldsmithError) -> None:
    await rolling.finish(Verb.RESTORE, list(reversed(pairs)), f"put back: {error.message}")


async def _wants_back(rolling: Rolling) -> bool:
    desired_state = await rolling.runner.look("look for a rollback", rolling.runner.desired_state)
    return DesiredState(desired_state) is DesiredState.ROLLBACK


async def _end(rolling: Rolling) -> RolloutOutcome:
    ended = await rolling.runner.engine.now()
    event = Event.FAILED if rolling.state.failure else Event.ENDED
    await rolling.save(RolloutStage.ENDED, rolling.summary(), event, ended_at=ended)
    return RolloutOutcome(rolling.state, tuple(rolling.members.values()))


# -- who serves when a rollout begins, and who is missing when it ends: a smaller fleet is no success ------------------


@dataclass(frozen=True)
class Census:
    """The members of a fleet by id: the names of those that serve, and all that are there."""

    serving: dict[str, str]
    all: tuple[str, ...]


async def count(rolling: Rolling) -> Census:
    """Who is there, and who serves. Raises OutsideError."""

    def look() -> Census:
        members = rolling.world.fleet.describe()
        return Census({one.id: one.name for one in members if one.healthy}, tuple(one.id for one in members))

    return await rolling.runner.see(Census, "count who serves", look)


async def count_at_first(rolling: Rolling) -> Census | None:
    """The same before anything is done; None where the fleet does not answer, which the rollout meets soon enough, and
    where a service rolls all of it, which looks after that itself.
    """
    if not rolling.order.plan.waves:
        return None
    try:
        return await count(rolling)
    except GoldsmithError:
        return None


async def refuse_fewer(rolling: Rolling, before: Census | None) -> None:
    """Fail a rollout, which has not failed yet, where fewer serve than at its begin and it has not said of whom.

    One look is luck here, too: whoever is missing is looked for again.
    """
    if before is None or rolling.state.failure:
        return
    backoff, why = Backoff(rolling.runner.engine, HELD), ""
    for _ in range(LEAST_READS):
        try:
            why = fewer(before, await count(rolling), rolling.members)
        except GoldsmithError as error:
            why = f"unknown who serves at its end: {error}"
        if not why:
            return
        await backoff.next()
    await rolling.save(RolloutStage.RESTORING, why, failure=why)


def fewer(before: Census, after: Census, members: Mapping[str, MemberState]) -> str:
    """What is to be said where fewer serve than before; empty where as many do.

    A member that was left alone because it was gone has been told of; one that is there for the first time counts for
    one that went.
    """
    said = {one.id for one in members.values() if one.phase is Phase.SKIPPED and one.cause is Cause.GONE}
    missing = [name for member, name in before.serving.items() if member not in after.serving and member not in said]
    joined = [member for member in after.serving if member not in before.all]
    if len(missing) <= len(joined):
        return ""
    began, ends = len(before.serving), len(after.serving)
    return f"it began with {began} serving members and ends with {ends}; these serve no longer: {', '.join(missing)}"
