"""The flows of one member: replace it, keep the old instance; later remove that for good, or restore it. Pure.

It ends with the new one SERVING, or with the member back as it was; `finish_member` then removes one of the two.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Literal

from hardening.foundation.errors import GoldsmithError, OutsideError, RefusedError
from hardening.foundation.text import many
from images.documents import from_json
from pipelines.durable.port import WorkflowEngine
from pipelines.fleet.model import Method
from pipelines.fleet.port import GoneError, InProgressError
from pipelines.rollout.admission import below_floor
from pipelines.rollout.baking import LEAST_READS, evidence, look, old_serves, prove
from pipelines.rollout.state import Cause, Finish, MemberOrder, MemberState, Phase, Verb, World
from pipelines.rollout.steps import IN_PROGRESS, PATIENT_TRIES, Backoff, MemberContext, StoppedError, UnhealthyError

LAUNCHED_FOR = timedelta(days=1)
DOWN = "down for "


async def replace_member(world: World, engine: WorkflowEngine, order: MemberOrder) -> MemberState:
    """Replace one member; the state that it reached."""
    return await _replaced(MemberContext.of(world, engine, order, MemberState(order.member, order.name)))


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
        return await _replaced_or_back(work)
    finally:
        work.world.retiring.discard(work.order.member)


async def _replaced_or_back(work: MemberContext) -> MemberState:
    try:
        await (_in_place(work) if work.order.method is Method.IN_PLACE else _beside(work))
    except GoneError:
        return await _old_vanished(work)
    except StoppedError as stopped:
        return await restore(work, note=stopped.message)
    except GoldsmithError as error:
        return await restore(work, failure=str(error))
    return await work.end(Phase.SERVING)


@dataclass(frozen=True)
class _Judgement:
    """Why a member is left alone, or the handle of the exact instance, and the exact image that it runs."""

    left_alone: str = ""
    cause: Cause | None = None
    old: str = ""
    exact: str = ""


def _judge(work: MemberContext) -> _Judgement:
    """Why the member is left alone after all, else the exact instance and what it runs, pinned."""
    order, world = work.order, work.world
    member = world.fleet.find(order.member)
    if member is None:
        return _Judgement(cause=Cause.GONE)
    if order.back and order.replaces not in member.digests:
        return _Judgement(cause=Cause.BACK_ALREADY if order.target.digest in member.digests else Cause.CHANGED)
    if not order.back:
        if why := world.judge.left_alone(order, member):
            return _Judgement(why)
        world.judge.refuse(order.target)
    return _Judgement(old=member.handle, exact=member.exact or member.image)


async def _beside(work: MemberContext) -> None:
    """The new one beside the old: it proves its health, takes over, and only then the old one stops."""
    limits = work.order.limits
    await _launch(work)
    await work.free("start", lambda: work.fleet.start(work.key))
    await prove(work, limits.min_healthy_time)
    await work.free("expose", lambda: work.fleet.expose(work.key))
    await prove(work, limits.settle)
    await _compare(work)
    await _retire(work)
    await _swap(work)


async def _in_place(work: MemberContext) -> None:
    """The old one stops first, for the two cannot exist side by side; a rehearsal has shown that the new one runs."""
    if work.order.limits.rehearsal and work.fleet.rehearses and not work.order.back:
        await _rehearse(replace(work, rehearses=True))
    await _launch(work)
    await _compare(work)
    await _retire(work)
    await work.until_stopped("start", lambda: _start(work))
    await prove(work, work.order.limits.min_healthy_time)
    await _measure(work)
    await _swap(work)


async def _rehearse(trial: MemberContext) -> None:
    """Try the new one beside the old, which goes on serving: what is wrong with it costs nothing."""
    try:
        await trial.free("rehearse", lambda: _create(trial))
        await trial.free("start the rehearsal of", lambda: trial.fleet.start(trial.key))
        await prove(trial, timedelta())
    except GoldsmithError:
        with suppress(OutsideError):  # why the rollout ends is what the trial showed; roll.reap finds what is left
            await _end_rehearsal(trial)
        raise
    await _end_rehearsal(trial)


async def _end_rehearsal(trial: MemberContext) -> None:
    await trial.act("end the rehearsal of", lambda: trial.fleet.discard(trial.key), PATIENT_TRIES)


async def _measure(work: MemberContext) -> None:
    """Report for how long the member did not run."""

    def seconds() -> float | None:
        found = work.fleet.downtime(work.key)
        return None if found is None else found.total_seconds()

    found = None
    with suppress(OutsideError):  # a note is no reason to go back
        found = await work.runner.look(f"measure {work.order.name}", seconds)
    if found is not None:
        work.state = replace(work.state, note="; ".join(filter(None, [work.state.note, f"{DOWN}{found:.1f} s"])))


async def _launch(work: MemberContext) -> None:
    await work.free("create", lambda: _create(work))
    work.state = replace(work.state, phase=Phase.REPLACING)


def _create(work: MemberContext) -> None:
    work.save(Phase.REPLACING)
    if work.order.back:
        work.fleet.prepare(work.order.target, work.order.member)
    work.fleet.create(work.key, work.order.target, work.world.now() + LAUNCHED_FOR)


async def _compare(work: MemberContext) -> None:
    """Report what differs beyond the image, while the old one is still as it always was."""
    found = await work.runner.look(f"compare {work.order.name}", lambda: list(work.fleet.differences(work.key)))
    if found:
        work.state = replace(work.state, note=f"differs beyond the image: {'; '.join(found)}")


async def _retire(work: MemberContext) -> None:
    """Stop the old one as soon as that takes no serving member away. Raises RefusedError after progress_deadline."""
    limits, in_place = work.order.limits, work.order.method is Method.IN_PLACE
    backoff, drains = Backoff(work.runner.engine), Backoff(work.runner.engine)
    asks, begun = work.free, False
    while answer := await asks("retire", partial(_retire_safely, work, limits.drain - drains.slept, begun)):
        held = from_json(_Held, answer)
        if held.in_progress and in_place:  # it no longer serves: waiting for the end of a pause would only cost more
            asks, begun = work.until_stopped, True
        if backoff.slept >= limits.progress_deadline:
            raise RefusedError(held.why, hint="something else is unhealthy: fix it first")
        if drains.slept >= limits.drain + IN_PROGRESS:
            raise RefusedError(held.why, hint="it takes too long: look at the old one")
        await (drains if held.in_progress else backoff).next()
        if not held.in_progress and not in_place:
            await prove(work, limits.min_healthy_time)


@dataclass(frozen=True)
class _Held:
    """Why the old instance is not stopped yet; `in_progress`: it is stopping, and that takes time."""

    why: str
    in_progress: bool = False


def _retire_safely(work: MemberContext, drain: timedelta, begun: bool) -> _Held | None:
    """Stop the old one; where that is not safe at this moment, or takes its time, say why and which of the two."""
    order, fleet = work.order, work.fleet
    if begun:
        work.world.retiring.add(order.member)  # also in a process that goes on with it
        held = ""
    elif order.method is Method.IN_PLACE:
        held = _begin_to_retire(work)
    else:
        seen = fleet.read(work.key)
        held = "" if seen.good else f"the new one became unhealthy: {seen.text}"
    work.wait(held)
    if held:
        return _Held(held)
    try:
        fleet.retire(work.key, drain)
    except InProgressError as error:
        return _Held(error.message, in_progress=True)
    if order.method is Method.IN_PLACE:  # in the same step: Ctrl-C ends a process between two, and nobody would serve
        with suppress(GoldsmithError):  # the next step tries it again, which no pause holds, and tells what is wrong
            _start(work)
    return None


def _start(work: MemberContext) -> None:
    """Start the new one, unless this process has done it."""
    if not work.started:
        work.fleet.start(work.key)
        work.started = True


def _begin_to_retire(work: MemberContext) -> str:
    """Why the member must not stop now; empty where it may: the others count it as away from then on.

    Two members that ask at once are answered one after the other.
    """
    order, world = work.order, work.world
    with world.exclusive:
        held = below_floor(world.fleet.describe(), order.member, order.floor, world.retiring)
        if not held:
            world.retiring.add(order.member)
    return held


async def _swap(work: MemberContext) -> None:
    def swap() -> None:
        work.fleet.swap(work.key)
        work.save(Phase.SERVING)

    await work.act("swap", swap)


# -- the second flow: the old instance is removed for good, or restored ------------------------------------------------


async def finish_member(world: World, engine: WorkflowEngine, finish: Finish) -> MemberState:
    """Promote or restore a member whose new instance serves; the state that it reached."""
    work = MemberContext.of(world, engine, finish.order, finish.state)
    try:
        return await (promote(work) if finish.verb is Verb.PROMOTE else restore(work, finish.note))
    finally:
        world.retiring.discard(finish.order.member)


async def promote(work: MemberContext) -> MemberState:
    """Remove the old instance for good; if the new one is no longer healthy, restore the old one."""
    try:
        await _prove_and_remove(work)
    except OutsideError as error:
        return await work.end(Phase.NEW, f"the old one is still there: {error.message}")
    except GoldsmithError as error:
        return await restore(work, failure=str(error))
    return await work.end(Phase.NEW)


async def _prove_and_remove(work: MemberContext) -> None:
    """Remove the old one at a moment when the new one is good. Raises UnhealthyError where it never stays so."""
    seen = None
    for _ in range(LEAST_READS):
        seen = await work.act("remove the old", lambda: _remove_safely(work), PATIENT_TRIES)
        if seen is None:
            return
        await prove(work, work.order.limits.min_healthy_time)
    what = f"the new one was healthy, but no longer when the old one was about to be removed, {LEAST_READS} times"
    hint = "fix the image, or its health check; the old one serves"
    raise UnhealthyError(f"{work.order.name}: {what}", evidence=await evidence(work, [str(seen)]), hint=hint)


def _remove_safely(work: MemberContext) -> str | None:
    """Remove the old one; what is seen of the new one where that is not good: somebody may just have removed it."""
    seen = work.fleet.read(work.key)
    if not seen.good:
        return seen.text
    work.fleet.remove_old(work.key)
    return None


async def restore(work: MemberContext, note: str = "", failure: str = "") -> MemberState:
    """The old instance serves again under its name before the new one goes. `failure`: why the rollout must end.

    Where that would take away what serves now, the new one stays and the old one is kept: FAILED, for a person to see.
    """
    try:
        held = await _put_back(work)
    except GoneError:
        return await without_old(work, failure)
    except GoldsmithError as error:
        return await _not_put_back(work, f"it could not be rolled back: {error.message}", failure)
    if held:
        return await _stay(work, held, failure)
    return await work.end(Phase.OLD, note, failure)


async def _put_back(work: MemberContext) -> str:
    """Let the old instance serve again and discard the new one; why the new one is to stay, where it is."""
    if held := await _revived(work):
        return held
    return "" if await _replaced_by_old(work) else "the old one is not healthy any more"


async def _not_put_back(work: MemberContext, why: str, failure: str) -> MemberState:
    """A person must look: the new instance is the member meanwhile, where it serves and the old one does not."""
    stays = False
    with suppress(GoldsmithError):  # why it could not be rolled back is what a person must know
        stays = await _serves(work, "old") is False and await _serves(work, "new") is True
    return await (_stay(work, why, failure) if stays else work.end(Phase.FAILED, why, failure or why))


async def _replaced_by_old(work: MemberContext) -> bool:
    """Discard the new instance once the old one serves; False where only the new one serves, and is to stay."""
    for _ in range(LEAST_READS):
        if not await old_serves(work) and await _serves(work, "new"):
            return False
        if not await work.act("discard the new", lambda: _discard_safely(work), PATIENT_TRIES):
            return True
    return False


def _discard_safely(work: MemberContext) -> str | None:
    """Discard the new one; what is seen of the old one where it has fallen ill meanwhile and the new one serves."""
    seen = work.fleet.read_old(work.key)
    if not seen.good and work.fleet.read(work.key).good:
        return seen.text
    work.fleet.discard(work.key)
    return None


async def _old_vanished(work: MemberContext) -> MemberState:
    """The old instance was removed meanwhile: a new one that was launched is waited for, since it is all there is."""
    failure = ""
    if _launched(work):
        try:
            await prove(work, timedelta())
        except StoppedError:
            pass
        except GoldsmithError as error:
            failure = str(error)
    return await without_old(work, failure)


def _launched(work: MemberContext) -> bool:
    return work.state.phase is not Phase.PLANNED


async def without_old(work: MemberContext, failure: str = "") -> MemberState:
    """Finish without the old instance, which has vanished: a healthy new one takes its name, an ill one is removed.

    One whose health is unknown is kept. Whoever removes what was launched has failed: the member has no instance left.
    """
    try:
        serves = await _serves(work, "new")
        if serves:
            await work.act("swap", lambda: work.fleet.swap(work.key), PATIENT_TRIES)
        elif serves is False:
            await work.act("discard the new", lambda: work.fleet.discard(work.key), PATIENT_TRIES)
    except GoldsmithError as error:
        said = f"the old one vanished, and then: {error.message}"
        return await work.end(Phase.FAILED, said, failure or said)
    if serves:
        return await work.end(Phase.NEW, "the old one vanished meanwhile", failure)
    if serves is None:
        said = "the old one vanished, and whether the new one serves is unknown: it is kept"
        return await work.end(Phase.FAILED, said, failure or said)
    if _launched(work):
        failure = failure or f"{work.order.name}: the old one vanished, and the new one was not healthy: it is removed"
    return await work.end(Phase.FAILED if failure else Phase.SKIPPED, failure=failure, cause=Cause.GONE)


async def _revived(work: MemberContext) -> str:
    """Let the old one run under its name; why not, where that would take away what serves now."""
    backoff, bad = Backoff(work.runner.engine), 0
    while held := await work.act("revive", partial(_revive_safely, work, bad >= LEAST_READS), PATIENT_TRIES):
        kept = from_json(_Kept, held)
        bad = bad + 1 if kept.good is False else 0
        if backoff.slept >= work.order.limits.healthy_deadline:
            return kept.why
        await backoff.next()
    return ""


@dataclass(frozen=True)
class _Kept:
    """Why the new instance must not stop yet, and how it looks."""

    why: str
    good: bool | None


def _revive_safely(work: MemberContext, ill: bool) -> _Kept | None:
    """In place the new one must stop for that: only while enough others serve, or where it is `ill` for certain.

    What holds it back, and how the new one looks: one bad read is no proof.
    """
    if work.order.method is Method.IN_PLACE:
        good = look(lambda: work.fleet.read(work.key)).good
        if held := _begin_to_stop_new(work, good, ill):
            return _Kept(held, good)
    work.fleet.revive(work.key)
    return None


def _begin_to_stop_new(work: MemberContext, good: bool | None, ill: bool) -> str:
    """Why the new one must not stop now; empty where it may: the others count it as away from then on.

    While it is held back and serves they count on it: of several that go back, those for whom there is room begin.
    """
    order, world = work.order, work.world
    with world.exclusive:
        gone = {*world.retiring, order.member}
        left = sum(one.healthy for one in world.fleet.describe() if one.id not in gone)
        if left < order.floor and not (ill and good is False):
            if good:
                world.retiring.discard(order.member)
            leaves = f"would leave {many(left, 'member')} serving; the floor is {order.floor}"
            return f"stopping the new {order.name} now {leaves}"
        world.retiring.add(order.member)
    return ""


async def _serves(work: MemberContext, which: Literal["new", "old"]) -> bool | None:
    """Whether an instance is good: False after bad reads in a row, None where the fleet has not said so in time."""
    backoff, bad = Backoff(work.runner.engine), 0

    def seen() -> bool | None:
        return look(lambda: work.fleet.read(work.key) if which == "new" else work.fleet.read_old(work.key)).good

    while True:
        good = await work.runner.look(f"read the {which} {work.order.name}", seen)
        bad += good is False
        if good or bad >= LEAST_READS:
            return bool(good)
        if backoff.slept >= work.order.limits.healthy_deadline:
            return None
        await backoff.next()


async def _stay(work: MemberContext, why: str, failure: str) -> MemberState:
    """The new one serves on under the member's name; the old one is kept, stopped."""

    def stay() -> None:
        work.fleet.retire(work.key, work.order.limits.drain)
        work.fleet.swap(work.key)

    said = f"the new one serves, the old one is kept: {why}"
    try:
        await work.act("keep the new", stay, PATIENT_TRIES)
    except GoldsmithError as error:
        said = f"{why}; the new one could not take its place: {error.message}"
    return await work.end(Phase.FAILED, said, failure or said)
