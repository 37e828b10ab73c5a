"""The flow of a rollout whose groups a service rolls: one after the other; back when a person says so. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hardening.foundation.errors import GoldsmithError, RefusedError
from images.documents import from_json, to_json
from pipelines.durable.port import Engine, Flow, Json
from pipelines.rollouts.acting import HELD, Hand, Turns
from pipelines.rollouts.delegated import GroupWorld, roll_group
from pipelines.rollouts.journal import Event, Stance
from pipelines.rollouts.leave import Leave, scheduled
from pipelines.rollouts.orders import GroupOrder, GroupsOrder
from pipelines.rollouts.state import MemberState, Outcome, Phase, RolloutState, Stage, summary

GROUPS, GROUP = "groups", "group"


def group_flows(world_of: Callable[[str], GroupWorld], now: Callable[[], datetime]) -> Mapping[str, Flow]:
    """The flows of rollouts of groups by name; `now` is read inside steps alone."""
    return {
        GROUPS: lambda engine, order: roll_groups(world_of(order["fleet"]), engine, order, now),
        GROUP: lambda engine, order: roll_group(world_of(order["fleet"]), engine, order),
    }


class _Groups:
    """A rollout of groups under way."""

    def __init__(self, world: GroupWorld, engine: Engine, order: GroupsOrder, started_at: datetime) -> None:
        self.hand = Hand(engine, world.journal, order.rollout)
        self.journal = world.journal
        self.order = order
        target = order.target.reference
        self.state = RolloutState(order.rollout, order.fleet, target, started_at, len(order.groups))
        self.members = {one.group.id: MemberState(one.group.id, one.group.name) for one in order.groups}

    async def begin(self) -> None:
        def write() -> None:
            self.journal.begin(self.state, tuple(self.members.values()))
            self.journal.notify(self.order.rollout, Event.STARTED, f"{len(self.members)} groups to {self.state.target}")

        await self.hand.note("begin", write)

    async def save(self, stage: Stage, note: str = "", event: Event | None = None, **changes: Any) -> None:
        self.state = replace(self.state, stage=stage, note=note, **changes)

        def write() -> None:
            self.journal.save(self.state)
            if event:
                self.journal.notify(self.order.rollout, event, note or self.state.failure)

        await self.hand.note(f"{stage} {self.state.wave}", write)

    async def child(self, key: str, order: GroupOrder) -> MemberState:
        """Roll one group, and remember what became of it."""
        try:
            done = from_json(MemberState, await (await self.hand.engine.child(key, GROUP, to_json(order))).result())
        except GoldsmithError as error:
            done = replace(self.members[order.group.id], phase=Phase.FAILED, failure=str(error))
        self.members[order.group.id] = done
        return done


async def roll_groups(world: GroupWorld, engine: Engine, argument: Json, now: Callable[[], datetime]) -> Json:
    """Carry a GroupsOrder out; the Outcome, with a group in the place of a member."""
    groups = _Groups(world, engine, from_json(GroupsOrder, argument), await engine.now())
    await groups.begin()
    try:
        for number, order in enumerate(groups.order.groups, start=1):
            await _leave(groups, now)
            await groups.save(Stage.ROLLING, wave=number)
            done = await groups.child(order.group.id, order)
            if done.failure:
                raise RefusedError(done.failure)
    except GoldsmithError as error:
        await groups.save(Stage.RESTORING, error.message, Event.FAILED, failure=str(error))
    if Stance(await groups.hand.look("look for a rollback", groups.hand.stance)) is Stance.ROLLBACK:
        await _go_back(groups)
    event = Event.FAILED if groups.state.failure else Event.ENDED
    await groups.save(Stage.ENDED, summary(groups.members.values()), event, ended_at=await engine.now())
    return to_json(Outcome(groups.state, tuple(groups.members.values())))


async def _leave(groups: _Groups, now: Callable[[], datetime]) -> None:
    """Wait until people and windows let the next group begin. Raises StoppedError and RefusedError."""
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


async def _go_back(groups: _Groups) -> None:
    """Bring every group that runs the new version back to its pin, the last first."""
    await groups.save(Stage.RESTORING, "going back")
    for order in reversed(groups.order.groups):
        member = groups.members[order.group.id]
        if member.phase is Phase.NEW:
            await groups.child(f"back/{order.group.id}", replace(order, back=member.pinned))
