"""Rollouts of groups under troubles drawn from a seed: whatever happens, they end, and say what really runs."""

from __future__ import annotations

from collections import Counter
from functools import cache
from random import Random
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError
from images.documents import from_json, to_json
from pipelines.fleet.members import ReplacementImage
from pipelines.fleet.port import Group, Pacing
from pipelines.rollout import flow, group
from pipelines.rollout.flow import ROLLOUT
from pipelines.rollout.plan_model import GroupStep
from pipelines.rollout.state import DesiredState, MemberState, Phase, RolloutOutcome, Scope
from pipelines.rollout.steps import Rolling
from tests.pipelines.rollout.test_rollout_groups import NEW, Play
from tests.simulation.execution import Fate
from tests.simulation.groups import SimulatedGroups
from tests.simulation.ledger import ViolationError

SEEDS = range(250)
WORDS = (DesiredState.PAUSE, DesiredState.ABORT, DesiredState.ROLLBACK)


class Seeded(Play):
    """A play with lost answers, throttling, dead processes, groups that fail, alarms, and people who say something."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        limits: dict[str, Any] = {"canary": self.dice.choice([0, 1, 3, 10]), "auto_promote": self.dice.random() < 0.4}
        super().__init__(alarms=["http://alarm.example"], **limits)
        self.deaths = {self.dice.randrange(1, 400): self.dice.choice(["before", "after"]) for _ in range(3)}
        self.service.effect = self._trouble
        for one in self.service.states.values():
            one.fails_at = self.dice.choice([None, None, None, 0, 2, 7])
        if self.dice.random() < 0.2:
            self.memory.at(self.dice.random() * 2000, lambda: self.judge.firing.append("http://alarm.example"))
        if self.dice.random() < 0.6:
            at, word = self.dice.random() * 2500, self.dice.choice(WORDS)
            self.says(at, word)
            if word is DesiredState.PAUSE:
                self.says(
                    at + self.dice.random() * 900,
                    self.dice.choice([DesiredState.GO, DesiredState.ABORT, DesiredState.ROLLBACK]),
                )
        for number in range(60):
            self.approves(700.0 * (number + 1))

    def _trouble(self) -> None:
        if self.dice.random() < 0.15:
            raise OutsideError("no answer came")

    def _fate(self, flow: str, name: str) -> Fate:
        self.steps += 1
        return Fate(self.dice.random(), self.deaths.pop(self.steps, ""))

    def played(self) -> RolloutOutcome:
        """To its end, from one process to the next."""
        row = self.process.start(ROLLOUT, "r1", to_json(self.order))
        for life in range(10):
            self.memory.run(self.memory.time + 1e6, lambda: row.ended or not self.process.alive)
            if row.ended:
                break
            self.process = self._process(f"process {life}")
            self.process.recover()
        self.memory.close()
        assert row.ended, "the rollout ends"
        assert not row.error, row.error
        return from_json(RolloutOutcome, row.result)


@cache
def ended(seed: int) -> tuple[str, RolloutOutcome]:
    """The promise that a seed breaks, and how it ends."""
    play = Seeded(seed)
    outcome = play.played()
    return broken(play, outcome), outcome


def broken(play: Seeded, outcome: RolloutOutcome) -> str:
    """The promise that is broken; empty where all are kept. Two refreshes at once break one in the service."""
    for member in outcome.members:
        state = play.state(member.name)
        runs, old = set(state.members), f"old-{member.name}"
        if member.phase is Phase.NEW and runs != {NEW}:
            return f"{member.name} is called new and runs {runs}"
        if member.phase in (Phase.OLD, Phase.SKIPPED, Phase.PLANNED) and (runs, state.starts_from) != ({old}, old):
            return f"{member.name} is called {member.phase} and runs {runs}, starts from {state.starts_from}"
        if member.phase in (Phase.REPLACING, Phase.SERVING) or (member.phase is Phase.FAILED and not member.note):
            return f"{member.name} is left {member.phase}"
        if any(one.active for one in state.refreshes):
            return f"{member.name} is still being rolled"
    return ""


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_a_group_runs_what_is_said_of_it(seed: int) -> None:
    """New as a whole, as it was as a whole, or a person is told."""
    assert ended(seed)[0] == ""


def caught() -> bool:
    """Whether some seed finds a planted bug."""
    return any(map(_caught_by, SEEDS))


def _caught_by(seed: int) -> bool:
    try:
        play = Seeded(seed)
        return bool(broken(play, play.played()))
    except (AssertionError, ViolationError):
        return True


def test_every_way_to_end_is_met() -> None:
    """The troubles are neither too few nor too many."""
    ends = Counter(member.phase for seed in SEEDS for member in ended(seed)[1].members)
    assert set(ends) == {Phase.NEW, Phase.OLD, Phase.FAILED, Phase.PLANNED}
    assert min(ends.values()) > 10, ends


def test_a_canary_that_is_forgotten_on_the_way_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: what the service takes back by itself is believed to be all."""
    monkeypatch.setattr(SimulatedGroups, "_in_part", lambda *_: False)
    assert caught()


def test_a_rest_that_pins_anew_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the group is not held, and what it starts from after the canary is taken for what it ran before."""
    monkeypatch.setattr(SimulatedGroups, "hold", lambda *_: None)
    monkeypatch.setattr(group, "_serving", lambda work: work.end(Phase.SERVING, "its canary is new"))
    real = flow.start_group

    async def pins_anew(rolling: Rolling, step: GroupStep, part: Scope, pinned: str = "") -> MemberState:
        return await real(
            rolling, step, part, f'{{"template": "", "version": "{NEW}"}}' if part is Scope.REST else pinned
        )

    monkeypatch.setattr(flow, "start_group", pins_anew)
    assert caught()


def test_a_start_without_a_key_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a repeated call begins again."""
    real = SimulatedGroups.begin

    def begins(
        self: SimulatedGroups, rollout: str, group: Group, target: ReplacementImage, pinned: Any, pacing: Pacing
    ) -> None:
        state, there = self._state(group), self._state(group).refreshes
        state.refreshes = []
        real(self, rollout, group, target, pinned, pacing)
        if any(one.attempt == rollout for one in there):
            raise ViolationError("nothing is begun twice", rollout)

    monkeypatch.setattr(SimulatedGroups, "begin", begins)
    assert caught()
