"""A rollout under way: its state, how each change of that is written down, and how members and groups are started.

Pure. A group stands in the place of a member.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hardening.foundation.errors import GoldsmithError, RefusedError
from images.documents import from_json, to_json
from pipelines.durable.port import BugError, Child, Json, WorkflowEngine
from pipelines.fleet.model import Method
from pipelines.rollout.admission import Admission, admit, scheduled
from pipelines.rollout.journal import DesiredState, Event
from pipelines.rollout.orders import Finish, GroupOrder, MemberOrder, Order, Scope, Verb, World
from pipelines.rollout.plan import GroupStep
from pipelines.rollout.state import MemberState, Phase, RolloutStage, RolloutState, summary
from pipelines.rollout.steps import HELD, Backoff, StepRunner, StoppedError
from pipelines.rollout.waves import Step

MEMBER, FINISH, GROUP = "member", "finish", "group"
Pairs = Sequence[tuple[MemberOrder, MemberState]]


class BrokenError(RefusedError):
    """A member failed, and with it the rollout."""


@dataclass(frozen=True)
class _Asked:
    """What people want, and how many members may begin."""

    desired_state: DesiredState
    admission: Admission


class Rolling:
    """One rollout: its order, its state, and the state of each member and group."""

    def __init__(self, world: World, engine: WorkflowEngine, order: Order, started_at: datetime) -> None:
        plan = order.plan
        self.runner = StepRunner(engine, world.journal, order.rollout)
        self.state = RolloutState(order.rollout, plan.fleet, plan.target.reference, started_at, plan.parts)
        planned = (MemberState(member, name) for member, name in plan.names.items())
        self.members = {member.id: member for member in order.back or planned}
        self.world = world
        self.order = order
        self.wave: Sequence[Step] = ()

    # -- what is written down -----------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Write down the rollout and who belongs to it, and tell people what is to be done."""
        journal, groups = self.runner.journal, sum(step.group.id in self.members for step in self.order.plan.groups)
        counts = ((len(self.members) - groups, "members"), (groups, "groups"))
        many = " and ".join(f"{number} {what}" for number, what in counts if number)
        told = f"{many} {'back from' if self.order.back else 'to'} {self.state.target}"

        def write() -> None:
            journal.begin(self.state, tuple(self.members.values()))
            journal.notify(self.state.id, Event.STARTED, told)

        await self.runner.note("begin", write)

    async def save(self, stage: RolloutStage, note: str = "", event: Event | None = None, **changes: Any) -> None:
        """Write down what the rollout does now; with `event` people are told."""
        self.state = replace(self.state, stage=stage, note=note, **changes)
        journal = self.runner.journal

        def write() -> None:
            journal.save(self.state)
            if event:
                journal.notify(self.state.id, event, note or self.state.failure or stage)

        await self.runner.note(f"{stage} {self.state.wave}", write)

    async def mark(self, member: MemberState) -> MemberState:
        """Remember and write down how far a member is."""
        self.keep(member)
        journal = self.runner.journal
        await self.runner.note(f"{member.phase} {member.name}", lambda: journal.mark(self.state.id, member))
        return member

    def keep(self, member: MemberState) -> MemberState:
        """Remember how far a member is."""
        self.members[member.id] = member
        return member

    def summary(self) -> str:
        """How many members ended in which way."""
        return summary(self.members.values())

    # -- members ------------------------------------------------------------------------------------------------------

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
            member=step.member.id,
            name=step.member.name,
            target=plan.target,
            method=plan.method,
            floor=plan.floor,
            limits=order.limits,
            adopt=order.adopt,
            rule=step.rule,
        )

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
        batch = orders[: await self.admitted(orders[:parallel])]
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
        started = [(member, await self.runner.engine.child(key, flow, argument)) for key, member, argument in batch]
        for member, child in started:
            await self._await_end(member, child)

    async def roll_group(self, step: GroupStep, part: Scope, pinned: str = "") -> MemberState:
        """Roll one group, or a part of it, and remember what became of it."""
        order, group = self.order, step.group
        argument = GroupOrder(order.rollout, step, order.plan.target, order.limits, part, pinned)
        prefix = f"{part}/" if part in (Scope.CANARY, Scope.BACK) else ""
        child = await self.runner.engine.child(f"{prefix}{group.id}", GROUP, to_json(argument))
        return await self._await_end(group.id, child)

    async def _await_end(self, member: str, child: Child) -> MemberState:
        """Await the flow of a member, and remember what became of it. An error is the member's failure."""
        try:
            return self.keep(from_json(MemberState, await child.result()))
        except (GoldsmithError, BugError) as error:  # a fault of ours leaves nobody else alone
            return self.keep(replace(self.members[member], phase=Phase.FAILED, failure=str(error)))

    # -- leave to act -------------------------------------------------------------------------------------------------

    async def admitted(self, orders: Sequence[MemberOrder]) -> int:
        """Wait until at least one of the members may be replaced; how many of them may, side by side.

        Raises StoppedError, AlarmError, and RefusedError, also when progress_deadline has passed without room.
        """
        return await self._admitted(lambda: self._admission(orders))

    async def leave_for_group(self) -> None:
        """Wait until people and windows let the next group, or the rest of one, begin. Raises as `admitted` does."""
        await self._admitted(lambda: scheduled(self.order.limits, self.world.now()) or Admission(1))

    async def _admitted(self, ask: Callable[[], Admission]) -> int:
        def asked() -> _Asked:
            desired_state = self.runner.desired_state()
            held = desired_state is DesiredState.PAUSE or self.runner.stops(desired_state)
            return _Asked(desired_state, Admission(0, RolloutStage.PAUSED) if held else ask())

        backoff = Backoff(self.runner.engine, HELD)
        stage = self.state.stage
        while True:
            answer = await self.runner.see(_Asked, "ask for leave", asked)
            given = answer.admission
            if given.room:
                await self._tell(stage, "")
                return given.room
            if self.runner.stops(answer.desired_state):
                raise StoppedError(answer.desired_state)
            await self._tell(given.stage, given.why)
            if await self.runner.obey(answer.desired_state, backoff):
                continue
            if backoff.slept >= self.order.limits.progress_deadline:
                raise RefusedError(given.why, hint="nothing moved for progress_deadline: mend what is unhealthy first")
            if given.seconds:
                await self.runner.engine.wait(timedelta(seconds=given.seconds))
            else:
                await backoff.next()

    def _admission(self, orders: Sequence[MemberOrder]) -> Admission:
        if not orders[0].back:
            self.world.refuse(self.order.plan.target, self.order.limits)
        plan = self.order.plan
        members = self.world.fleet.describe() if plan.method is Method.IN_PLACE else ()
        return admit(orders, plan.desired, members, self.world.now())

    async def _tell(self, stage: RolloutStage, note: str) -> None:
        if self.state.stage is not stage:
            await self.save(stage, note, Event.PAUSED if stage is RolloutStage.PAUSED else None)


def _finish(verb: Verb, order: MemberOrder, member: MemberState, note: str) -> tuple[str, str, Json]:
    """A child that finishes a member: its key, the member, its argument."""
    key = f"{verb}/{'back/' if order.back else ''}{member.id}"
    return key, member.id, to_json(Finish(verb, order, member, note))
