"""The flow of one member: judged again, its new instance made and proved, the old one stopped and kept. Pure.

It ends with the new one SERVING, or with the member back as it was; what then becomes of the pair, `ending` does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from hardening.foundation.errors import GoldsmithError, RefusedError
from images.documents import from_json
from pipelines.durable.port import WorkflowEngine
from pipelines.fleet.members import Member
from pipelines.fleet.model import Method
from pipelines.fleet.port import GoneError, InProgressError
from pipelines.rollout.admission import below_floor
from pipelines.rollout.finish import restore, without_old
from pipelines.rollout.member_context import MemberContext, prove
from pipelines.rollout.orders import MemberOrder, World
from pipelines.rollout.state import Cause, MemberState, Phase
from pipelines.rollout.steps import HELD, IN_PROGRESS, Backoff, StepRunner, StoppedError

LAUNCHED_FOR = timedelta(days=1)


async def replace_member(world: World, engine: WorkflowEngine, order: MemberOrder) -> MemberState:
    """Replace one member; the state that it reached."""
    runner = StepRunner(engine, world.journal, order.rollout, order.back)
    return await _replaced(MemberContext(runner, world, order, MemberState(order.member, order.name)))


async def _replaced(work: MemberContext) -> MemberState:
    """Judge the member, then touch it."""
    try:
        answer = await work.runner.look_when_free(f"judge {work.order.name}", lambda: _judge(work))
    except StoppedError as stopped:
        return await work.end(Phase.SKIPPED, stopped.message)
    except GoldsmithError as error:
        return await work.end(Phase.OLD, failure=str(error))
    judged = from_json(_Judgement, answer)
    if judged.left_alone or judged.cause:
        return await work.end(Phase.SKIPPED, judged.left_alone, cause=judged.cause)
    work.state = replace(work.state, old=judged.old, pinned=judged.exact)
    return await _touched(work)


async def _touched(work: MemberContext) -> MemberState:
    """Replace the member; whatever stops that, it is back as it was."""
    try:
        await (_in_place(work) if work.order.method is Method.IN_PLACE else _beside(work))
    except GoneError:
        return await without_old(work)
    except StoppedError as stopped:
        return await restore(work, note=stopped.message)
    except GoldsmithError as error:
        return await restore(work, failure=str(error))
    return await work.end(Phase.SERVING)


@dataclass(frozen=True)
class _Judgement:
    """Why a member is left alone, or the handle of the very instance, and what it runs, exactly."""

    left_alone: str = ""
    cause: Cause | None = None
    old: str = ""
    exact: str = ""


def _judge(work: MemberContext) -> _Judgement:
    """Why the member is left alone after all, else the very instance and what it runs, pinned."""
    order, world = work.order, work.world
    member = world.fleet.find(order.member)
    if member is None:
        return _Judgement(cause=Cause.GONE)
    if left := _left_alone(work, member):
        return left
    if not order.back:
        world.judge.refuse(order.target)
    return _Judgement(old=member.handle, exact=member.exact or member.image)


def _left_alone(work: MemberContext, member: Member) -> _Judgement | None:
    """Why the member is left alone after all; None where it is to be replaced."""
    order = work.order
    if not order.back:
        why = work.world.judge.left_alone(order, member)
        return _Judgement(why) if why else None
    if order.replaces in member.digests:
        return None
    return _Judgement(cause=Cause.BACK_ALREADY if order.target.digest in member.digests else Cause.CHANGED)


async def _beside(work: MemberContext) -> None:
    """The new one beside the old: it proves its health, takes over, and only then the old one stops."""
    limits = work.order.limits
    await work.free("create", lambda: _create(work))
    await work.free("start", lambda: work.fleet.start(work.key))
    await prove(work, limits.min_healthy_time)
    await work.free("expose", lambda: work.fleet.expose(work.key))
    await prove(work, limits.settle)
    await _compare(work)
    await _retire(work)
    await _swap(work)


async def _in_place(work: MemberContext) -> None:
    """The old one stops first, for the two cannot exist side by side."""
    await work.free("create", lambda: _create(work))
    await _compare(work)
    await _retire(work)
    await work.until_stopped("start", lambda: work.fleet.start(work.key))
    await prove(work, work.order.limits.min_healthy_time)
    await _swap(work)


def _create(work: MemberContext) -> None:
    work.save(Phase.REPLACING)
    if work.order.back:
        work.fleet.prepare(work.order.target)
    work.fleet.create(work.key, work.order.target, work.world.now() + LAUNCHED_FOR)


async def _compare(work: MemberContext) -> None:
    """Report what differs beyond the image, while the old one is still as it always was."""
    found = await work.runner.look(f"compare {work.order.name}", lambda: list(work.fleet.differences(work.key)))
    if found:
        work.state = replace(work.state, note=f"differs beyond the image: {'; '.join(found)}")


async def _retire(work: MemberContext) -> None:
    """Stop the old one as soon as that costs nobody anything. Raises RefusedError after progress_deadline."""
    limits, in_place = work.order.limits, work.order.method is Method.IN_PLACE
    backoff, drains = Backoff(work.runner.engine, HELD), Backoff(work.runner.engine, HELD)
    asks, begun = work.free, False
    while answer := await asks("retire", partial(_retire_safely, work, limits.drain - drains.slept, begun)):
        held = from_json(_Held, answer)
        if held.in_progress and in_place:  # it serves nobody by now: to wait for a pause's end would only cost more
            asks, begun = work.until_stopped, True
        if backoff.slept >= limits.progress_deadline:
            raise RefusedError(held.why, hint="something else is unhealthy: mend it first")
        if drains.slept >= limits.drain + IN_PROGRESS:
            raise RefusedError(held.why, hint="it takes too long: look at the old one")
        await (drains if held.in_progress else backoff).next()
        if not held.in_progress and not in_place:
            await prove(work, limits.min_healthy_time)


@dataclass(frozen=True)
class _Held:
    """Why the old instance is not stopped yet; `underway`: it stops, and that takes its time."""

    why: str
    in_progress: bool = False


def _retire_safely(work: MemberContext, drain: timedelta, begun: bool) -> _Held | None:
    """Stop the old one; where that is not safe at this moment, or takes its time, say why and which of the two."""
    order, fleet = work.order, work.fleet
    if begun:
        held = ""
    elif order.method is Method.IN_PLACE:
        held = below_floor(fleet.describe(), order.member, order.floor)
    else:
        seen = fleet.read(work.key)
        held = "" if seen.good else f"the new one fell ill: {seen.text}"
    if held:
        return _Held(held)
    try:
        fleet.retire(work.key, drain)
    except InProgressError as error:
        return _Held(error.message, in_progress=True)
    return None


async def _swap(work: MemberContext) -> None:
    def swap() -> None:
        work.fleet.swap(work.key)
        work.save(Phase.SERVING)

    await work.act("swap", swap)
