"""What a rollout was told and asked leave for, as it happened, and the promises that hang on that."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from pipelines.fleet.calendar import RunningRule
from pipelines.fleet.members import Key
from pipelines.fleet.model import Limits, Method
from pipelines.rollout.plan_model import Plan
from pipelines.rollout.schedule import allowed
from pipelines.rollout.state import DesiredState, Phase
from tests.simulation.ledger import ViolationError
from tests.simulation.world import Box, SimulatedWorld

CHANGED = (Phase.REPLACING, Phase.SERVING, Phase.NEW)
STOPS = (DesiredState.ABORT, DesiredState.ROLLBACK)
LOOKS_AFTER_STOP = 3  # one that was due, and those by which the way back is chosen
LOOKS_AT_THE_LAST = 3  # more, where the old one does not serve: the new one goes only if it is ill for certain


@dataclass(frozen=True)
class Asked:
    """The world at the moment at which a rollout asked for leave: who served, and how many the budgets allowed."""

    at: float
    serving: frozenset[str]
    most: int
    forbidden: bool


@dataclass
class Observer:
    """What was seen of the one rollout; `begun` are the members begun since it asked for leave; `first_new`: when the
    first new instance got a member's name, also without the time in which the rollout was paused.
    """

    estate: SimulatedWorld
    limits: Limits
    plan: Plan
    leave: Asked | None = None
    begun: set[str] = field(default_factory=set)
    approved_at: float = -1.0
    paused_at: float | None = None
    paused_for: float = 0.0
    looks: Counter[tuple[str, str]] = field(default_factory=Counter)
    first_new: tuple[float, float] | None = None

    def asks(self, *, forbidden: bool) -> None:
        """The rollout asks for leave now."""
        now = self.estate.memory.time
        serving = frozenset(box.member for box in self.estate.members().values() if box.serves(now))
        most = allowed(self.limits, self.plan.desired, [RunningRule.EXPIRED], self.estate.memory.now())
        self.leave, self.begun = Asked(now, serving, most, forbidden), set()

    def hears(self, desired_state: DesiredState) -> None:
        """A person has said something that holds from now on."""
        self.paused_for, self.paused_at = self._paused(), None
        if desired_state is DesiredState.PAUSE:
            self.paused_at = self.estate.memory.time

    def unpaused(self) -> float:
        """The seconds so far in which nothing was paused."""
        return self.estate.memory.time - self._paused()

    def _paused(self) -> float:
        now = self.estate.memory.time
        return self.paused_for + (now - self.paused_at if self.paused_at is not None else 0.0)

    # -- promises -----------------------------------------------------------------------------------------------------

    def begins(self, key: Key, old: Box) -> None:
        """A member is touched for the first time. Raises ViolationError where nobody gave leave for that."""
        self._after_canary(key)
        self._in_order(key)
        leave = self.leave
        if leave is None or leave.forbidden:
            raise ViolationError("nothing begins without leave", f"create {key.name}")
        self.begun.add(key.member)
        if old.protected_at <= leave.at:
            raise ViolationError("judged again before replaced", f"{key.name} asks not to be disrupted")
        if len(self.begun) > leave.most:
            how = f"{len(self.begun)} are replaced side by side; the budgets allowed {leave.most}"
            raise ViolationError("nothing begins without leave", how)
        left = len(leave.serving) - len(self.begun & leave.serving)
        if key.method is Method.IN_PLACE and key.member in leave.serving and left < self.plan.floor:
            how = f"create {key.name} where {left} are left serving; the floor is {self.plan.floor}"
            raise ViolationError("nothing begins without leave", how)

    def names(self, new: Box) -> None:
        """A new instance has got its member's name."""
        self.first_new = self.first_new or new.named_at

    def _in_order(self, key: Key) -> None:
        """The earliest deadline first, as the plan says: nobody of an earlier wave still waits."""
        for wave in self.plan.waves:
            if any(step.member.id == key.member for step in wave.steps):
                return
            waiting = [one for one in wave.steps if self.estate.ledger.members[one.member.id].phase is Phase.PLANNED]
            if waiting:
                how = f"create {key.name} while {waiting[0].member.name} of an earlier wave waits"
                raise ViolationError("the earliest deadline first", how)

    def _after_canary(self, key: Key) -> None:
        """Beyond so many as the canaries are, nothing begins before one of them has baked, and was approved."""
        members = self.estate.ledger.members
        new = [one for one in members.values() if one.phase in CHANGED and one.id != key.member]
        if len(new) < self.limits.canary or not self.limits.canary:
            return
        named = self.first_new or (math.inf, math.inf)
        if self.approved_at >= named[0]:
            return
        baked = self.unpaused() - named[1] >= self.limits.bake_time.total_seconds()
        if not (baked and self.limits.auto_promote):
            raise ViolationError("a canary comes first", f"create {key.name} before a canary had baked or was approved")

    def promotes(self, key: Key, new: Box) -> None:
        """The old instance is removed for good. Raises ViolationError before its wave has baked, or was approved."""
        state = self.estate.ledger.state
        if state and state.failure and not self.limits.auto_rollback:
            return  # of a broken wave those stay that are well
        wave = next(one for one in self.plan.waves if any(step.member.id == key.member for step in one.steps))
        if self.approved_at >= new.named_at[0]:
            return
        if wave.canary and not self.limits.auto_promote:
            raise ViolationError("baked before promoted", f"nobody had approved the canary {key.name}")
        baked = self.unpaused() - new.named_at[1]
        if baked < wave.bake.total_seconds():
            raise ViolationError("baked before promoted", f"{key.name} had baked for {baked:g}s of {wave.bake}")

    def looks_at(self, key: Key, process: str) -> None:
        """A new instance that does not serve yet is looked at. Raises ViolationError long after a stop."""
        desired_state, old = self.estate.ledger.desired_state, self.estate.boxes.get(key.old)
        self.looks[process, key.member] += desired_state in STOPS
        is_last = old is None or not old.well(self.estate.memory.time)
        if self.looks[process, key.member] > LOOKS_AFTER_STOP + LOOKS_AT_THE_LAST * is_last:
            raise ViolationError("people are obeyed", f"{key.name} is still being proved after {desired_state}")
