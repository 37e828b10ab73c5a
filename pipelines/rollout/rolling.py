"""A rollout under way: what its flow knows, how it waits for leave to act, and how it starts members. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from hardening.foundation.errors import RefusedError
from images.documents import from_json, to_json
from pipelines.durable.port import Engine, Json
from pipelines.fleet.model import Method
from pipelines.rollout.admission import Leave, leave
from pipelines.rollout.finish import Verb
from pipelines.rollout.journal import Event, Stance
from pipelines.rollout.orders import Finish, MemberOrder, Order, World
from pipelines.rollout.progress import Rollout
from pipelines.rollout.state import MemberState, Phase, RolloutState, Stage
from pipelines.rollout.steps import HELD, Hand, Turns
from pipelines.rollout.waves import Step

MEMBER, FINISH = "member", "finish"
Pairs = Sequence[tuple[MemberOrder, MemberState]]


class BrokenError(RefusedError):
    """A member failed, and with it the rollout."""


class AlarmError(RefusedError):
    """An alarm that the fleet names is firing."""


class Rolling(Rollout):
    """One rollout: its orders, its state, and the state of each member."""

    def __init__(self, world: World, engine: Engine, order: Order, started_at: datetime) -> None:
        plan = order.plan
        state = RolloutState(order.rollout, plan.fleet, plan.target.reference, started_at, len(plan.waves))
        planned = (MemberState(step.member.id, step.member.name) for step in plan.steps)
        super().__init__(Hand(engine, world.journal, order.rollout), state, order.back or planned)
        self.world = world
        self.order = order
        self.wave: Sequence[Step] = ()

    def new(self) -> Pairs:
        """The members of the present wave that run the new version, also those whose old one has vanished."""
        found = [(self.member_order(step), self.members[step.member.id]) for step in self.wave]
        return [pair for pair in found if pair[1].phase in (Phase.SERVING, Phase.NEW)]

    def pairs(self) -> list[tuple[MemberOrder, MemberState]]:
        """The members whose new instance serves beside an old one that is kept."""
        found = [(step, self.members[step.member.id]) for step in self.order.plan.steps]
        return [(self.member_order(step), member) for step, member in found if member.phase is Phase.SERVING]

    def member_order(self, step: Step) -> MemberOrder:
        """What the flow of one member is given."""
        order, plan = self.order, self.order.plan
        return MemberOrder(
            rollout=order.rollout,
            label=order.rollout,
            fleet=plan.fleet,
            member=step.member.id,
            name=step.member.name,
            target=plan.target,
            method=plan.method,
            floor=plan.floor,
            limits=order.limits,
            adopt=order.adopt,
            rule=step.rule,
        )

    # -- members ------------------------------------------------------------------------------------------------------

    async def replace_all(self, orders: Sequence[MemberOrder], parallel: int) -> None:
        """Replace members, so many at a time, as there is leave. Raises BrokenError after a batch that failed."""
        left = list(orders)
        while left:
            batch = await self.replace_some(left, parallel)
            left = left[len(batch) :]
            self.refuse_broken([order.member for order in batch])

    def refuse_broken(self, members: Sequence[str]) -> None:
        """Raise BrokenError where one of the members failed."""
        if failed := [self.members[member].failure for member in members if self.members[member].failure]:
            raise BrokenError("\n".join(failed))

    async def replace_some(self, orders: Sequence[MemberOrder], parallel: int) -> Sequence[MemberOrder]:
        """Replace the first of the members side by side, as many of `parallel` as there is leave for; who they were."""
        batch = orders[: await self.leave(orders[:parallel])]
        prefix = "back/" if batch[0].back else ""
        await self.children(MEMBER, [(prefix + order.member, order.member, to_json(order)) for order in batch])
        return batch

    async def finish(self, verb: Verb, pairs: Pairs, note: str = "") -> None:
        """Promote or restore pairs of old and new; one at a time where that takes a member away."""
        one_by_one = verb is Verb.RESTORE and self.order.plan.method is Method.IN_PLACE
        width = 1 if one_by_one else self.order.limits.max_parallel
        for start in range(0, len(pairs), width):
            batch = pairs[start : start + width]
            await self.children(FINISH, [_finish(verb, order, member, note) for order, member in batch])

    async def children(self, flow: str, batch: Sequence[tuple[str, str, Json]]) -> None:
        """Start flows side by side, (key, member, argument), and await them all."""
        started = [(member, await self.hand.engine.child(key, flow, argument)) for key, member, argument in batch]
        for member, child in started:
            await self.await_end(member, child)

    # -- leave to act -------------------------------------------------------------------------------------------------

    async def leave(self, orders: Sequence[MemberOrder]) -> int:
        """Wait until at least one of the members may be replaced; how many of them may, side by side.

        Raises StoppedError, AlarmError, and RefusedError, also when progress_deadline has passed without room.
        """
        turns = Turns(self.hand.engine, HELD)
        stage = self.state.stage
        while True:
            stance, found = await self.hand.look("ask for leave", lambda: self._leave(orders))
            given = from_json(Leave, found)
            if given.room:
                await self._tell(stage, "")
                return given.room
            await self._tell(given.stage, given.why)
            if await self.hand.obey(Stance(stance), turns):
                continue
            if turns.slept >= self.order.limits.progress_deadline:
                raise RefusedError(given.why, hint="nothing moved for progress_deadline: mend what is unhealthy first")
            if given.seconds:
                await self.hand.engine.wait(timedelta(seconds=given.seconds))
            else:
                await turns.next()

    def _leave(self, orders: Sequence[MemberOrder]) -> Json:
        stance = self.hand.stance()
        if stance is Stance.PAUSE or self.hand.stops(stance):
            return [stance, to_json(Leave(0, Stage.PAUSED, stance))]
        if not orders[0].back:
            self.refuse()
        plan = self.order.plan
        members = self.world.fleet.describe() if plan.method is Method.IN_PLACE else ()
        return [stance, to_json(leave(orders, plan.desired, members, self.world.now()))]

    def refuse(self) -> None:
        """Raises RefusedError where the replacement must not run any more, AlarmError where an alarm is firing.

        For use inside a step.
        """
        self.world.judge.refuse(self.order.plan.target)
        if firing := self.world.judge.alarms(self.order.limits.alarms):
            raise AlarmError(f"an alarm is firing: {', '.join(firing)}")

    async def _tell(self, stage: Stage, note: str) -> None:
        if self.state.stage is not stage:
            await self.save(stage, note, Event.PAUSED if stage is Stage.PAUSED else None)


def _finish(verb: Verb, order: MemberOrder, member: MemberState, note: str) -> tuple[str, str, Json]:
    """A child that finishes a member: its key, the member, its argument."""
    key = f"{verb}/{'back/' if order.back else ''}{member.id}"
    return key, member.id, to_json(Finish(verb, order, member, note))
