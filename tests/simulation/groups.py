"""The simulated service that rolls groups itself, under its own clock: one refresh of a group at a time, as at AWS.

A refresh that succeeds makes its version the one that the group starts from; one that the service rolls back brings
back what that refresh had replaced, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from hardening.foundation.errors import OutsideError, RefusedError
from pipelines.fleet.members import ReplacementImage
from pipelines.fleet.port import DelegatedFleet, Group, GroupPin, Pacing, Progress, UnseenError, Watched
from tests.simulation.ledger import ViolationError

ALL = 100
EACH = timedelta(minutes=1).total_seconds()  # a member's replacement; its way back takes half of that


@dataclass
class Refresh:
    """One rolling by the service: to version `to`, of the members `todo`, from a group that started from `before`."""

    attempt: str
    to: str
    before: str
    todo: list[int]
    reach: int
    began: float
    auto_rollback: bool
    back: bool = False
    progress: Progress = Progress.RUNNING
    text: str = ""
    done: list[int] = field(default_factory=list)

    @property
    def active(self) -> bool:
        """Whether the service is at it."""
        return self.progress in (Progress.RUNNING, Progress.ROLLING_BACK)


@dataclass
class State:
    """A group: what each member runs, what it starts new ones from, and its refreshes, the newest last.

    `fails_at`: so many members become new, and the next is never healthy. `stands_at`: it stops there without a word.
    `refuses`: why no refresh is begun. `unseen`: so many looks that show none.
    """

    group: Group
    members: list[str]
    starts_from: str
    refreshes: list[Refresh] = field(default_factory=list)
    fails_at: int | None = None
    stands_at: int | None = None
    gone: str = ""
    refuses: str = ""
    unseen: int = 0


class SimulatedGroups(DelegatedFleet):
    """Groups that a service rolls. `asked` is all that it was asked, in its order; `effect` may lose an answer."""

    def __init__(self, clock: Callable[[], float], groups: Sequence[Group]) -> None:
        self.clock = clock
        self.states = {one.id: State(one, [f"old-{one.name}"] * one.desired, f"old-{one.name}") for one in groups}
        self.asked: list[str] = []
        self.effect: Callable[[], None] = lambda: None

    def groups(self) -> tuple[Group, ...]:
        """As they are now."""
        return tuple(replace(one.group, runs=one.starts_from) for one in self.states.values())

    def runs(self, name: str) -> list[str]:
        """What the members of a group run."""
        return next(self._state(one.group).members for one in self.states.values() if one.group.name == name)

    def pin(self, group: Group) -> GroupPin:
        """The version that it starts from."""
        return GroupPin("", self._state(group).starts_from)

    def pace(self, group: Group, allowed: int) -> Pacing:
        """The simulation gives each group its pace."""
        raise NotImplementedError

    def begin(self, rollout: str, group: Group, target: ReplacementImage, pinned: GroupPin, pacing: Pacing) -> None:
        """Begin once; what was cancelled, or went to the canary alone, is followed by another one."""
        state, reach = self._state(group), (pacing.checkpoint_percents or (ALL,))[-1]
        if state.refuses:
            raise OutsideError(state.refuses)
        newest = state.refreshes[-1] if state.refreshes else None
        if newest is None or newest.progress is Progress.CANCELLED or newest.reach < reach:
            if state.starts_from not in (str(pinned.version), target.digest):
                raise RefusedError(f"{group.name} starts from {state.starts_from} by now")
            state.starts_from = str(pinned.version)
            self._start(state, Refresh(rollout, target.digest, state.starts_from, [], reach, 0, pacing.auto_rollback))
        self._asked(f"begin {rollout} {group.name}")

    def hold(self, rollout: str, group: Group, pinned: GroupPin) -> None:
        """New members are of the pinned version again."""
        self._state(group).starts_from = str(pinned.version)
        self._asked(f"hold {rollout} {group.name}")

    def watch(self, rollout: str, group: Group) -> Watched:
        """The newest refresh."""
        state = self._state(group)
        if state.refuses or state.unseen:
            state.unseen = max(0, state.unseen - 1)
            raise UnseenError(f"no refresh of {group.name} is known")
        if not state.refreshes:
            return Watched(Progress.ROLLED_BACK, 0, "nothing was begun")
        newest = state.refreshes[-1]
        percent = ALL * len(newest.done) // max(1, len(state.members))
        if newest.back:
            back = {Progress.RUNNING: Progress.ROLLING_BACK, Progress.DONE: Progress.ROLLED_BACK}
            return Watched(back.get(newest.progress, newest.progress), percent, newest.text)
        if self._in_part(state):
            return Watched(Progress.CANCELLED, percent, f"{newest.text}, but for what came before it")
        return Watched(newest.progress, percent, newest.text)

    def cancel(self, rollout: str, group: Group, _pinned: GroupPin) -> None:
        """Stop where it is."""
        newest = self._state(group).refreshes[-1:]
        if newest and newest[0].progress is Progress.RUNNING:
            newest[0].progress = Progress.CANCELLED
        self._asked(f"cancel {rollout} {group.name}")

    def way_back(self, rollout: str, group: Group, pinned: GroupPin) -> str:
        """Whatever the scenario says."""
        return self._state(group).gone

    def roll_back(self, rollout: str, group: Group, pinned: GroupPin) -> None:
        """The service takes a refresh back that goes on; what is over is followed by one to the pinned version."""
        state = self._state(group)
        newest = state.refreshes[-1]
        if newest.progress is Progress.RUNNING and not newest.back:
            self._turn(newest, "a rollback was requested")
        elif not newest.active and not self._is_back(state):
            if state.gone:
                raise RefusedError(state.gone)
            back = Refresh(f"{rollout} back", str(pinned.version), "", [], ALL, 0, auto_rollback=False, back=True)
            self._start(state, back)
        self._asked(f"roll back {rollout} {group.name} to {pinned.version}")

    def _asked(self, what: str) -> None:
        self.asked.append(what)
        self.effect()

    def _start(self, state: State, refresh: Refresh) -> None:
        """One at a time, and none twice."""
        if any(one.active for one in state.refreshes):
            raise ViolationError("never two refreshes of one group at once", f"{state.group.name}: {refresh.attempt}")
        if any(one.attempt == refresh.attempt and not one.back for one in state.refreshes):
            raise ViolationError("nothing is begun twice", f"{state.group.name}: {refresh.attempt}")
        others = [number for number, runs in enumerate(state.members) if runs != refresh.to]
        most = -(-len(state.members) * refresh.reach // ALL)
        state.refreshes.append(replace(refresh, todo=others[:most], began=self.clock()))

    def _is_back(self, state: State) -> bool:
        newest = state.refreshes[-1]
        rolled = newest.progress is Progress.ROLLED_BACK and not self._in_part(state)
        return rolled or (newest.back and newest.progress is Progress.DONE)

    def _in_part(self, state: State) -> bool:
        """Whether the service took a refresh back, and an earlier one had replaced others."""
        earlier = any(one.progress in (Progress.DONE, Progress.CANCELLED) for one in state.refreshes[:-1])
        return earlier and state.refreshes[-1].progress is Progress.ROLLED_BACK

    def _state(self, group: Group) -> State:
        """The group, by now."""
        state = self.states[group.id]
        if state.refreshes and state.refreshes[-1].active:
            self._go_on(state, state.refreshes[-1])
        return state

    def _go_on(self, state: State, refresh: Refresh) -> None:
        passed = self.clock() - refresh.began
        if refresh.progress is Progress.ROLLING_BACK:
            self._return(state, refresh, int(2 * passed / EACH))
            return
        limits = [limit for limit in (state.fails_at, state.stands_at) if limit is not None and not refresh.back]
        most = min([int(passed / EACH), len(refresh.todo), *limits])
        for number in refresh.todo[len(refresh.done) : most]:
            state.members[number] = refresh.to
            refresh.done.append(number)
        if len(refresh.done) == len(refresh.todo):
            refresh.progress, state.starts_from = Progress.DONE, refresh.to
        elif passed / EACH > len(refresh.done) + 1 and len(refresh.done) == state.fails_at and not refresh.back:
            self._give_up(refresh)

    def _give_up(self, refresh: Refresh) -> None:
        if refresh.auto_rollback:
            self._turn(refresh, "instances are unhealthy")
        else:
            refresh.progress, refresh.text = Progress.FAILED, "instances are unhealthy"

    def _turn(self, refresh: Refresh, why: str) -> None:
        refresh.progress, refresh.text, refresh.began = Progress.ROLLING_BACK, why, self.clock()

    def _return(self, state: State, refresh: Refresh, many: int) -> None:
        """What the refresh has replaced, the last first, is of the version again that the group started from."""
        for _ in range(min(many, len(refresh.done))):
            state.members[refresh.done.pop()] = refresh.before
        refresh.began += many * EACH / 2
        if not refresh.done:
            refresh.progress = Progress.ROLLED_BACK
