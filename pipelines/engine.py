"""The engine that carries a plan out, one member after the other, and puts back what was there when a step fails.

Every step's state is saved before the effect it announces, and every effect is found again by its key: after a crash
`recover` finishes or restores each member. The engine knows no Docker, no database and no clock but those it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from hardening.foundation.durations import shown
from hardening.foundation.errors import GoldsmithError, RefusedError
from pipelines.fleet.members import Key, Member, Read, Target
from pipelines.fleet.model import Limits, Method
from pipelines.fleet.port import MemberFleet
from pipelines.fleet.progress import OPEN, Phase, RolloutState, StepState
from pipelines.rollouts.plan import Plan
from pipelines.rollouts.waves import Step, Wave

LEAST_READS = 3
LAUNCHED_FOR = timedelta(days=1)
SHOWN_READS = 5


class Clock(Protocol):
    """Time, as the engine sees it."""

    def now(self) -> datetime:
        """The present moment, aware UTC."""

    def wait(self, span: timedelta) -> None:
        """Let `span` pass."""


@dataclass(frozen=True)
class World:
    """What the engine acts through. `still` says, right before a step, why a member is left alone after all.

    `refuse` raises RefusedError as soon as the replacement must not run any more; asked before a step and in a bake.
    """

    fleet: MemberFleet
    clock: Clock
    save: Callable[[RolloutState], None]
    still: Callable[[Member], str]
    say: Callable[[str], None]
    limits: Limits
    refuse: Callable[[Target], None] = lambda _target: None


class UnhealthyError(RefusedError):
    """A new instance did not become healthy, or did not stay so."""


class Run:
    """One rollout under way: the saved state and the world it acts on."""

    def __init__(self, state: RolloutState, world: World) -> None:
        self.state = state
        self.world = world
        self.port = world.fleet

    def mark(self, key: Key, phase: Phase, note: str = "") -> None:
        """Save how far a step is."""
        self.state = self.state.with_step(key, phase, note)
        self.world.save(self.state)

    def end(self, failure: str = "") -> RolloutState:
        """Save that the rollout is over."""
        self.state = replace(self.state, failure=failure, ended_at=self.world.clock.now())
        self.world.save(self.state)
        return self.state


def run(plan: Plan, rollout: str, world: World) -> RolloutState:
    """Carry `plan` out. Raises what stopped it, after the members of the broken wave are back as they were."""
    keys = [Key(rollout, step.member.id, step.member.name, step.member.handle, plan.method) for step in plan.steps]
    started = RolloutState(rollout, plan.fleet, plan.target, world.clock.now(), tuple(map(StepState, keys)))
    rolling = Run(started, world)
    world.save(rolling.state)
    try:
        world.fleet.prepare(plan.target)
        for wave in plan.waves:
            _wave(rolling, wave, plan)
    except BaseException as error:
        _undo(rolling, error)
        raise
    return rolling.end()


def _wave(rolling: Run, wave: Wave, plan: Plan) -> None:
    """Replace the members of a wave, let it bake, and only then remove the old ones."""
    keys = [key for step in wave.steps if (key := _step(rolling, step, plan))]
    if keys and wave.bake:
        rolling.world.say(f"baking for {shown(wave.bake)}")
        _bake(rolling, keys, wave.bake)
    for key in keys:
        rolling.port.remove_old(key)
        rolling.mark(key, Phase.DONE)


def _step(rolling: Run, step: Step, plan: Plan) -> Key | None:
    """Judge the member again, then replace it; None when it is left alone."""
    members = rolling.port.describe()
    member = next((found for found in members if found.id == step.member.id), None)
    planned = next(state.key for state in rolling.state.steps if state.key.member == step.member.id)
    reason = rolling.world.still(member) if member else "it is gone"
    if member is None or reason:
        rolling.world.say(f"{step.member.name}: left alone: {reason}")
        rolling.mark(planned, Phase.SKIPPED, reason)
        return None
    rolling.world.refuse(plan.target)
    _refuse_below_floor(plan, member, members)
    key = replace(planned, old=member.handle)
    _replace(rolling, key, plan.target)
    return key


def _refuse_below_floor(plan: Plan, member: Member, members: Sequence[Member]) -> None:
    """The floor again, counting who serves right now."""
    left = sum(other.healthy for other in members) - member.healthy
    if plan.method is Method.IN_PLACE and member.healthy and left < plan.floor:
        raise RefusedError(
            f"replacing {member.name} in place now would leave {left} members serving; the floor is {plan.floor}",
            hint="something else is unhealthy: mend it first",
        )


def _replace(rolling: Run, key: Key, target: Target) -> None:
    """One member: the new one is made, proves its health, takes over; the old one is kept, stopped."""
    port, world = rolling.port, rolling.world
    world.say(f"{key.name}: replacing it by {target.reference}")
    rolling.mark(key, Phase.REPLACING)
    port.create(key, target, world.clock.now() + LAUNCHED_FOR)
    if key.method is Method.IN_PLACE:
        _compare(rolling, key)
        port.retire(key, world.limits.drain)
    port.start(key)
    _healthy(rolling, key, world.limits.min_healthy_time)
    if key.method is Method.SURGE:
        port.expose(key)
        _healthy(rolling, key, world.limits.settle)
        _compare(rolling, key)
        port.retire(key, world.limits.drain)
    port.swap(key)
    rolling.mark(key, Phase.SWAPPED)
    world.say(f"{key.name}: the new one serves")


def _compare(rolling: Run, key: Key) -> None:
    """Report what differs beyond the image, while the old one is still as it always was."""
    if found := "; ".join(rolling.port.differences(key)):
        rolling.world.say(f"{key.name}: differs beyond the image: {found}")
        rolling.mark(key, Phase.REPLACING, f"differs beyond the image: {found}")


def _healthy(rolling: Run, key: Key, span: timedelta) -> None:
    """Wait until the new instance was healthy in every read over `span`. Raises UnhealthyError with what was seen."""
    seen = await_health(
        lambda: rolling.port.read(key), rolling.world.clock, span, rolling.world.limits.healthy_deadline
    )
    if not seen[-1].good:
        limits = rolling.world.limits
        what = f"{key.name}: the new one was not healthy over {shown(span)} within {shown(limits.healthy_deadline)}"
        raise UnhealthyError(what, evidence=_evidence(rolling, key, seen), hint="mend the image; the old one serves")


def await_health(
    read: Callable[[], Read], clock: Clock, span: timedelta, deadline: timedelta, least: int = LEAST_READS
) -> list[Read]:
    """Read until all reads over `span`, and at least `least` of them in a row, were good, or `deadline` passes.

    Returns the reads of the last row; the last one is good exactly when it succeeded.
    """
    every = max(timedelta(milliseconds=200), min(span / max(1, least), timedelta(seconds=5)))
    started = clock.now()
    row: list[Read] = []
    since = started
    while True:
        now, one = clock.now(), read()
        since = since if row and row[-1].good and one.good else now
        row = [*row, one] if one.good == bool(row and row[-1].good) else [one]
        if one.good and len(row) >= least and now - since >= span:
            return row
        if now - started >= deadline:
            return [*row, Read(False, "the time is up")] if one.good else row
        clock.wait(every)


def _bake(rolling: Run, keys: Sequence[Key], span: timedelta) -> None:
    """Keep watching the new instances for `span`; the old ones are still there. Raises UnhealthyError."""
    clock = rolling.world.clock
    until = clock.now() + span
    bad = dict.fromkeys(keys, 0)
    while clock.now() < until:
        rolling.world.refuse(rolling.state.target)
        for key in keys:
            seen = rolling.port.read(key)
            bad[key] = 0 if seen.good else bad[key] + 1
            if bad[key] >= LEAST_READS:
                what = f"{key.name}: the new one fell ill while it baked"
                raise UnhealthyError(
                    what, evidence=_evidence(rolling, key, [seen]), hint="mend the image; the old one serves"
                )
        clock.wait(max(timedelta(milliseconds=200), min(span / 10, timedelta(seconds=5))))
    rolling.world.refuse(rolling.state.target)


def _evidence(rolling: Run, key: Key, seen: Sequence[Read]) -> str:
    """The last reads, and the last lines that the new instance printed."""
    log = rolling.port.log(key)
    reads = [f"health: {read.text}" for read in seen[-SHOWN_READS:]]
    return "\n".join([*reads, *(f"log: {line}" for line in log.splitlines())])


def _undo(rolling: Run, error: BaseException) -> None:
    """Put the members of the broken wave back, the last first. What cannot be put back now is left to `recover`."""
    for step in reversed(rolling.state.steps):
        if step.phase in OPEN:
            rolling.world.say(f"{step.key.name}: putting the old one back")
            try:
                restore(rolling, step.key)
            except GoldsmithError as second:
                again = "./goldsmith roll.start --apply tries again"
                _add(error, f"{step.key.name} could not be put back: {second.message}; {again}")
    if not any(step.phase in OPEN for step in rolling.state.steps):
        rolling.end(str(error) or type(error).__name__)


def _add(error: BaseException, line: str) -> None:
    """Say something more with an error that is on its way to a person."""
    if isinstance(error, GoldsmithError):
        error.evidence = f"{error.evidence}\n{line}".strip()
    else:
        error.add_note(line)


def restore(rolling: Run, key: Key) -> None:
    """The old instance serves again under its name before the new one goes."""
    port, world = rolling.port, rolling.world
    port.revive(key)
    await_health(lambda: port.read_old(key), world.clock, timedelta(0), world.limits.healthy_deadline, least=1)
    port.discard(key)
    rolling.mark(key, Phase.RESTORED)


def recover(state: RolloutState, world: World) -> RolloutState:
    """After a crash: each open step is finished if its new instance has taken over and is healthy, else restored."""
    rolling = Run(state, world)
    for step in reversed(state.steps):
        if step.phase in OPEN:
            _finish_or_restore(rolling, step.key)
    return rolling.end("interrupted; every member was finished or restored")


def _finish_or_restore(rolling: Run, key: Key) -> None:
    if rolling.port.swapped(key):
        try:
            _healthy(rolling, key, rolling.world.limits.min_healthy_time)
        except UnhealthyError as error:
            rolling.world.say(f"{error}")
        else:
            rolling.world.say(f"{key.name}: finishing what was interrupted")
            rolling.port.remove_old(key)
            rolling.mark(key, Phase.DONE, "finished after an interruption")
            return
    rolling.world.say(f"{key.name}: putting the old one back after an interruption")
    restore(rolling, key)
