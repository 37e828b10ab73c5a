"""The flow of a rollout whose groups a service rolls: one after the other; back when a person says so. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from hardening.foundation.durations import shown
from hardening.foundation.errors import GoldsmithError, RefusedError
from images.documents import from_json, to_json
from pipelines.durable.port import Engine, Flow, Json
from pipelines.rollout.admission import Leave, scheduled
from pipelines.rollout.group import GroupWorld, refuse_turn, roll_group
from pipelines.rollout.journal import Event, Stance
from pipelines.rollout.orders import GroupOrder, GroupsOrder, Judge, Part
from pipelines.rollout.progress import Rollout
from pipelines.rollout.state import MemberState, Outcome, Phase, RolloutState, Stage
from pipelines.rollout.steps import HELD, LONGEST, PATIENT_TRIES, Hand, StoppedError, Turns

GROUPS, GROUP = "groups", "group"


def group_flows(world_of: Callable[[str], GroupWorld], now: Callable[[], datetime]) -> Mapping[str, Flow]:
    """The flows of rollouts of groups by name; `now` is read inside steps alone."""
    return {
        GROUPS: lambda engine, order: roll_groups(world_of(order["fleet"]), engine, order, now),
        GROUP: lambda engine, order: roll_group(world_of(order["fleet"]), engine, order),
    }


class Groups(Rollout):
    """A rollout of groups under way."""

    def __init__(self, world: GroupWorld, engine: Engine, order: GroupsOrder, started_at: datetime) -> None:
        self.back = any(one.part is Part.BACK for one in order.groups)
        target = order.target.reference
        state = RolloutState(order.rollout, order.fleet, target, started_at, len(order.groups))
        super().__init__(Hand(engine, world.journal, order.rollout, self.back), state, map(_member, order.groups))
        self.world = world
        self.order = order

    async def child(self, key: str, order: GroupOrder) -> MemberState:
        """Roll one group, or a part of it, and remember what became of it."""
        return await self.await_end(order.group.id, await self.hand.engine.child(key, GROUP, to_json(order)))


async def roll_groups(world: GroupWorld, engine: Engine, argument: Json, now: Callable[[], datetime]) -> Json:
    """Carry a GroupsOrder out; the Outcome, with a group in the place of a member."""
    groups = Groups(world, engine, from_json(GroupsOrder, argument), await engine.now())
    to = "what they ran before" if groups.back else groups.state.target
    await groups.begin(f"{len(groups.members)} groups to {to}")
    if not groups.back:
        try:
            for number, order in enumerate(groups.order.groups, start=1):
                await _leave(groups, now)
                await groups.save(Stage.ROLLING, wave=number)
                if failure := (await _roll(groups, order, now)).failure:
                    raise RefusedError(failure)
        except GoldsmithError as error:
            await groups.save(Stage.RESTORING, error.message, Event.FAILED, failure=str(error))
    if groups.back or Stance(await groups.hand.look("look for a rollback", groups.hand.stance)) is Stance.ROLLBACK:
        await _go_back(groups)
    event = Event.FAILED if groups.state.failure else Event.ENDED
    await groups.save(Stage.ENDED, groups.summary(), event, ended_at=await engine.now())
    return to_json(Outcome(groups.state, tuple(groups.members.values())))


async def _roll(groups: Groups, order: GroupOrder, now: Callable[[], datetime]) -> MemberState:
    """Roll a group; where a person has to approve its canary, that first, and the rest afterwards.

    Raises StoppedError where the canary is to go back with everything else.
    """
    if not order.asks or order.group.cannot_roll:
        return await groups.child(order.group.id, order)
    canary = await groups.child(f"canary/{order.group.id}", replace(order, part=Part.CANARY))
    if canary.phase is not Phase.SERVING:
        return canary
    rest = replace(order, part=Part.REST, pinned=canary.pinned)
    try:
        await proved(groups.hand, groups.world.judge, order, groups.save)
        if order.whole:
            return await groups.mark(replace(canary, phase=Phase.NEW, note=""))
        await _leave(groups, now)
    except StoppedError as stopped:
        return await _stopped(groups, canary, stopped.message)
    except GoldsmithError as error:
        return await _refused(groups, rest, canary, error)
    await groups.save(Stage.ROLLING)
    return await groups.child(order.group.id, rest)


async def _stopped(groups: Groups, canary: MemberState, why: str) -> MemberState:
    """A rollback finds the canary where it is, and brings it back; an abort leaves it there, and says so."""
    if why.endswith(Stance.ROLLBACK):
        raise StoppedError(why)
    said = f"{why} after its canary: {canary.note}"
    return await groups.mark(replace(canary, phase=Phase.FAILED, note=said, failure=said))


async def _refused(groups: Groups, order: GroupOrder, canary: MemberState, error: GoldsmithError) -> MemberState:
    """The canary must not stay: it goes back, unless auto_rollback is off."""
    failure = str(error)
    if not order.limits.auto_rollback:
        said = f"auto_rollback is off: {canary.note}"
        return await groups.mark(replace(canary, phase=Phase.FAILED, note=said, failure=failure))
    await groups.save(Stage.RESTORING, error.message)
    done = await groups.child(f"back/{order.group.id}", replace(order, part=Part.BACK))
    return await groups.mark(replace(done, failure=done.failure or failure))


async def _leave(groups: Groups, now: Callable[[], datetime]) -> None:
    """Wait until people and windows let the next part begin. Raises StoppedError and RefusedError."""
    turns = Turns(groups.hand.engine, HELD)

    def ask() -> Json:
        held = scheduled(groups.order.limits, now())
        return [groups.hand.stance(), to_json(held) if held else None]

    while True:
        stance, found = await groups.hand.look("ask for leave", ask)
        if await groups.hand.obey(Stance(stance), turns):
            continue
        if found is None:
            return
        held = from_json(Leave, found)
        if groups.state.stage is not held.stage:
            await groups.save(held.stage, held.why)
        await groups.hand.engine.wait(timedelta(seconds=held.seconds))


async def _go_back(groups: Groups) -> None:
    """Bring every group that runs the new version, or a canary of it, back to its pin, the last first.

    An order to go BACK names its groups; one of them that cannot, does not hold up the others.
    """
    await groups.save(Stage.RESTORING, "going back")
    for order in reversed(groups.order.groups):
        member = groups.members[order.group.id]
        if groups.back or member.phase in (Phase.NEW, Phase.SERVING):
            done = await groups.child(f"back/{order.group.id}", replace(order, part=Part.BACK, pinned=member.pinned))
            if done.failure:
                await groups.save(Stage.RESTORING, done.note, failure=done.failure)


def _member(order: GroupOrder) -> MemberState:
    return MemberState(order.group.id, order.group.name, pinned=order.pinned)


MOST_TURNS = 60
Save = Callable[[Stage, str, Event | None], Awaitable[None]]


async def proved(hand: Hand, judge: Judge, order: GroupOrder, save: Save) -> None:
    """Wait for `bake_time`, and until a person approves, which ends the bake early; a pause lets no time pass.

    Raises StoppedError, and RefusedError where an alarm fires or the replacement must not run any more.
    """
    span, name = order.limits.bake_time, order.group.name
    turns = Turns(hand.engine, min(span / MOST_TURNS, LONGEST))
    stage: Stage | None = None
    before: int | None = None

    def watch() -> Json:
        refuse_turn(judge, order)
        orders = hand.journal.orders(hand.rollout)
        return [orders.stance, orders.approvals]

    while True:
        said, approvals = await hand.look(f"watch the canary of {name}", watch, PATIENT_TRIES)
        stance, before = Stance(said), approvals if before is None else before
        if stance is Stance.GO and approvals > before:
            return
        over = turns.slept >= span
        shows = _shown(order, stance, over=over)
        if shows[0] is not stage:
            stage = shows[0]
            await save(*shows)
        if not await hand.obey(stance, turns):
            await turns.next(counts=not over)


def _shown(order: GroupOrder, stance: Stance, *, over: bool) -> tuple[Stage, str, Event | None]:
    """What people see that the rollout waits for."""
    name, span = order.group.name, order.limits.bake_time
    if stance is Stance.PAUSE:
        return Stage.PAUSED, "paused", Event.PAUSED
    if over:
        approve = f"./goldsmith roll.approve {order.fleet}"
        return Stage.APPROVAL, f"the canary of {name} has baked; {approve} lets it go on", Event.APPROVAL
    return Stage.BAKING, f"the canary of {name} bakes for {shown(span)}", None
