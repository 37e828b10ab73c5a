"""Whether a rollout may replace members now, and how many: people, windows, budgets, floor. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from hardening.foundation.errors import RefusedError
from hardening.foundation.text import listed, many
from pipelines.durable.port import FencedError
from pipelines.fleet.members import Member
from pipelines.fleet.model import Limits, Method
from pipelines.rollout.schedule import Hold, Timeline, caps, may_act
from pipelines.rollout.state import DesiredState, Event, MemberOrder, RolloutStage
from pipelines.rollout.steps import Backoff, Rolling

LONGEST_SLEEP = timedelta(minutes=10)


@dataclass(frozen=True)
class Admission:
    """`room` members may be replaced now; without room: what the rollout does meanwhile, why, and for how many seconds.

    `seconds` is 0 where the end of the wait is unknown.
    """

    room: int
    stage: RolloutStage = RolloutStage.ROLLING
    why: str = ""
    seconds: float = 0


def scheduled(limits: Limits, now: datetime) -> Admission | None:
    """What windows, freezes and budgets of 0 say. Raises RefusedError where no moment within a year is allowed."""
    hold = may_act(limits, now)
    if hold is None:
        return None
    if hold.until is None:
        raise RefusedError(hold.why, hint="change it in the fleet's file")
    why = f"{hold.why}, until {hold.until:%Y-%m-%d %H:%M} UTC"
    return Admission(0, RolloutStage.WAITING, why, min(hold.until - now, LONGEST_SLEEP).total_seconds())


def outlasts(limits: Limits, now: datetime, until: datetime) -> Hold | None:
    """What forbids to act at `now`, and still does at `until`."""
    hold = may_act(limits, now)
    return hold if hold and (hold.until is None or hold.until > until) else None


def spent(limits: Limits, desired: int, rule: str, now: datetime, until: datetime) -> str:
    """Until when budgets, windows and freezes let no member begin that is replaced for `rule`, in words; empty where
    one may before `until`.
    """
    free = Timeline(limits, desired, now).free(now, rule)
    if free is None:
        return "with no end within a year"
    return f"until {free[0]:%Y-%m-%d %H:%M} UTC" if free[0] > until else ""


def budgeted(limits: Limits, desired: int, orders: Sequence[MemberOrder], now: datetime) -> Admission:
    """How many of `orders`, in their order, the budgets of this moment let be replaced side by side."""
    holding, taken = caps(limits, desired, now), Counter[str]()
    for number, order in enumerate(orders):
        bound = [cap for cap in holding if cap.binds(order.rule)]
        if any(taken[cap.name] >= cap.most for cap in bound):
            why = f"budget exhausted for reason {order.rule}"
            return Admission(number, RolloutStage.WAITING, why, 0 if number else LONGEST_SLEEP.total_seconds())
        taken.update(cap.name for cap in bound)
    return Admission(len(orders))


def above_floor(orders: Sequence[MemberOrder], members: Sequence[Member]) -> Admission:
    """How many of `orders`, in their order, may be taken away at once: counted are those who serve right now.

    Of two zones, or hosts, that would have none left, one waits until the other has some again.
    """
    serving = {member.id: member.zone for member in members if member.healthy}
    left, emptied = Counter(filter(None, serving.values())), 0
    spare = len(serving) - orders[0].floor
    for number, order in enumerate(orders):
        if order.member not in serving:
            continue
        zone, spare = serving[order.member], spare - 1
        left[zone] -= 1
        emptied += bool(zone) and not left[zone]
        if spare < 0:
            why = _too_few(order.name, order.floor + spare, order.floor, members)
            return Admission(number, RolloutStage.WAITING, why)
        if emptied > 1:
            why = f"replacing {order.name} in place now would leave none serving in {zone}, beside another zone"
            return Admission(number, RolloutStage.WAITING, why)
    return Admission(len(orders))


def below_floor(members: Sequence[Member], leaving: str, floor: int, retiring: Collection[str] = ()) -> str:
    """Why a member must not be taken away now, counting who serves at this moment; empty when it may.

    Those that are `retiring` count as away already: they may be seen to serve until they have stopped.
    """
    member = next((one for one in members if one.id == leaving), None)
    left = sum(one.healthy for one in members if one.id != leaving and one.id not in retiring)
    return _too_few(member.name, left, floor, members) if member and member.healthy and left < floor else ""


def _too_few(name: str, left: int, floor: int, members: Sequence[Member]) -> str:
    ill = listed([one.name + " (starting)" * one.starting for one in members if not one.healthy])
    why = f"replacing {name} in place now would leave {many(left, 'member')} serving; the floor is {floor}"
    return f"{why}; not serving: {ill}" if ill else why


def admit(orders: Sequence[MemberOrder], desired: int, members: Sequence[Member], now: datetime) -> Admission:
    """How many of `orders`, which belong to one wave, may begin at `now`; `members` are needed for what goes in place.

    What goes back to what it was waits for no window and no budget. Raises RefusedError.
    """
    first = orders[0]
    if not first.back and (held := scheduled(first.limits, now)):
        return held
    within = Admission(len(orders)) if first.back else budgeted(first.limits, desired, orders, now)
    if within.room and first.method is Method.IN_PLACE:
        return above_floor(orders[: within.room], members)
    return within


# -- waiting to be admitted --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """What people want, and how many members may begin."""

    desired_state: DesiredState
    admission: Admission


async def admitted(rolling: Rolling, orders: Sequence[MemberOrder]) -> int:
    """Wait until at least one of the members may be replaced; how many of them may, side by side.

    Raises StoppedError, AlarmError, and RefusedError, also when progress_deadline has passed without room.
    """
    return await _admitted(rolling, lambda: _admission(rolling, orders), orders[0].rule)


async def group_admitted(rolling: Rolling) -> None:
    """Wait until people and windows let the next group, or the rest of one, begin. Raises as `admitted` does."""
    await _admitted(rolling, lambda: scheduled(rolling.order.limits, rolling.world.now()) or Admission(1))


async def _admitted(rolling: Rolling, ask: Callable[[], Admission], rule: str = "") -> int:
    def asked() -> _Asked:
        desired_state = rolling.runner.desired_state()
        held = desired_state is DesiredState.PAUSE or rolling.runner.stops(desired_state)
        found = Admission(0, RolloutStage.PAUSED) if held else ask()
        if not found.room and found.stage is RolloutStage.WAITING:
            _leave_open(rolling, found.why, rule)
        return _Asked(desired_state, found)

    backoff = Backoff(rolling.runner.engine)
    stage = rolling.state.stage
    while True:
        answer = await rolling.runner.see(_Asked, "ask for admission", asked)
        given = answer.admission
        if given.room:
            await _tell(rolling, stage, "")
            return given.room
        rolling.runner.refuse_stopped(answer.desired_state)
        await _tell(rolling, given.stage, given.why)
        if await rolling.runner.obey(answer.desired_state, backoff):
            continue
        if backoff.slept >= rolling.order.limits.progress_deadline:
            raise RefusedError(given.why, hint="nothing moved for progress_deadline: fix what is unhealthy first")
        if given.seconds:
            await rolling.runner.engine.wait(timedelta(seconds=given.seconds))
        else:
            await backoff.next()


def _leave_open(rolling: Rolling, why: str, rule: str) -> None:
    """Write down the wait and end this process's part where it does not wait so long; for use inside a step. `rule`:
    what the next member is replaced for, empty before a group.

    The step is not recorded, so whoever goes on asks again, also what people want. Raises FencedError.
    """
    world, state, order = rolling.world, rolling.state, rolling.order
    if not world.until or rolling.runner.back:
        return
    now = world.now()
    held = outlasts(order.limits, now, world.until) is not None
    if not held and rule and (end := spent(order.limits, order.plan.desired, rule, now, world.until)):
        held, why = True, f"{why}, {end}"
    if held:
        world.journal.fence(state.id)
        world.journal.save(replace(state, stage=RolloutStage.WAITING, note=why))
        raise FencedError


def _admission(rolling: Rolling, orders: Sequence[MemberOrder]) -> Admission:
    if not orders[0].back:
        for target in dict.fromkeys(order.target for order in orders):
            rolling.world.refuse(target, rolling.order.limits)
    plan = rolling.order.plan
    members = rolling.world.fleet.describe() if plan.method is Method.IN_PLACE else ()
    return admit(orders, plan.desired, members, rolling.world.now())


async def _tell(rolling: Rolling, stage: RolloutStage, note: str) -> None:
    if rolling.state.stage is not stage:
        await rolling.save(stage, note, Event.PAUSED if stage is RolloutStage.PAUSED else None)
