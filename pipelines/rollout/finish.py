"""How a member's step ends: the old instance removed for good, or put back. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from hardening.foundation.errors import GoldsmithError, OutsideError
from images.documents import from_json
from pipelines.durable.port import WorkflowEngine
from pipelines.fleet.model import Method
from pipelines.fleet.port import GoneError
from pipelines.rollout.member_context import LEAST_READS, MemberContext, evidence, look, old_serves, prove
from pipelines.rollout.orders import Finish, Verb, World
from pipelines.rollout.state import Cause, MemberState, Phase
from pipelines.rollout.steps import HELD, PATIENT_TRIES, Backoff, StepRunner, UnhealthyError


async def finish_member(world: World, engine: WorkflowEngine, finish: Finish) -> MemberState:
    """Promote or restore a member whose new instance serves; the state that it reached."""
    runner = StepRunner(engine, world.journal, finish.order.rollout, finish.order.back)
    work = MemberContext(runner, world, finish.order, finish.state)
    return await (promote(work) if finish.verb is Verb.PROMOTE else restore(work, finish.note))


async def promote(work: MemberContext) -> MemberState:
    """Remove the old instance for good; where the new one is not good any more, that goes, and the old one serves."""
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
    raise UnhealthyError(
        f"{work.order.name}: the new one was healthy, and not any more when the old one was to go, {LEAST_READS} times",
        evidence=await evidence(work, [str(seen)]),
        hint="mend the image, or its health check; the old one serves",
    )


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
        if held := await _revived(work):
            return await _stay(work, held, failure)
        if not await _replaced_by_old(work):
            return await _stay(work, "the old one is not healthy any more", failure)
    except GoneError:
        return await without_old(work, failure)
    except GoldsmithError as error:
        said = f"it could not be put back: {error.message}"
        return await work.end(Phase.FAILED, said, failure or said)
    return await work.end(Phase.OLD, note, failure)


async def _replaced_by_old(work: MemberContext) -> bool:
    """Discard the new instance once the old one serves; False where only the new one serves, and is to stay."""
    for _ in range(LEAST_READS):
        if not await old_serves(work) and await _new_serves(work):
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


async def without_old(work: MemberContext, failure: str = "") -> MemberState:
    """The old instance has vanished meanwhile: a new one that is good takes its name, any other one goes."""
    try:
        if await _new_serves(work):
            await work.act("swap", lambda: work.fleet.swap(work.key), PATIENT_TRIES)
            return await work.end(Phase.NEW, "the old one vanished meanwhile", failure)
        await work.act("discard the new", lambda: work.fleet.discard(work.key), PATIENT_TRIES)
    except GoldsmithError as error:
        said = f"the old one vanished, and then: {error.message}"
        return await work.end(Phase.FAILED, said, failure or said)
    return await work.end(Phase.FAILED if failure else Phase.SKIPPED, failure=failure, cause=Cause.GONE)


async def _revived(work: MemberContext) -> str:
    """Let the old one run under its name; why not, where that would take away what serves now."""
    backoff, bad = Backoff(work.runner.engine, HELD), 0
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
    order, fleet = work.order, work.fleet
    if order.method is Method.IN_PLACE:
        good = look(lambda: fleet.read(work.key)).good
        left = sum(one.healthy for one in fleet.describe() if one.id != order.member)
        if left < order.floor and not (ill and good is False):
            why = f"stopping the new {order.name} now would leave {left} members serving; the floor is {order.floor}"
            return _Kept(why, good)
    fleet.revive(work.key)
    return None


async def _new_serves(work: MemberContext) -> bool:
    name = f"read the new {work.order.name}"
    return await work.runner.look(name, lambda: look(lambda: work.fleet.read(work.key)).good) is True


async def _stay(work: MemberContext, why: str, failure: str) -> MemberState:
    """The new one serves on under the member's name; the old one is kept, stopped."""

    def stay() -> None:
        work.fleet.retire(work.key, work.order.limits.drain)
        work.fleet.swap(work.key)

    await work.act("keep the new", stay, PATIENT_TRIES)
    said = f"the new one serves, the old one is kept: {why}"
    return await work.end(Phase.FAILED, said, failure or said)
