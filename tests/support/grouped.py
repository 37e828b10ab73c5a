"""Rollouts of groups that a service rolls, in memory: a process may die after any effect, and people may speak."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from images.documents import from_json, to_json
from pipelines.fleet.model import Fleet
from pipelines.fleet.port import DelegatedFleet
from pipelines.rollout.flow import ROLLOUT, flows
from pipelines.rollout.plan import plan
from pipelines.rollout.plan_model import GroupStep
from pipelines.rollout.state import DesiredState, Order, Phase, RolloutOutcome, World
from tests.pipelines.rollout.test_rollout_groups import Alarms, Nobody, Steered
from tests.simulation.execution import Fate, Point
from tests.simulation.ledger import Ledger, SimulatedJournal
from tests.simulation.memory import Memory, Process
from tests.support.fleets import NOW, fleet, target


class Place(Protocol):
    """Where the groups are."""

    @property
    def port(self) -> DelegatedFleet:
        """The groups, as the present process sees them."""

    def begin_anew(self) -> None:
        """Another process looks from now on."""

    def follow(self, seconds: Callable[[], float]) -> None:
        """Let the clock there go by the engine's."""

    def marks(self) -> Point:
        """What tells one state of it from another."""


def order_of(rollout: str, of: Fleet, port: DelegatedFleet, most: int) -> Order:
    """A rollout of all groups of a fleet, of at `most` so many members of each at once."""
    steps = tuple(GroupStep(group, port.pace(group, most)) for group in port.groups())
    return Order(rollout, replace(plan(of, (), target(), NOW, grouped=True), groups=steps), of.limits)


class GroupRollout(Steered):
    """A rollout of all groups of a place, whose clock is the engine's; a process may die after any step's effect.

    `dies_at`: after that of which number. 0: after none, and `points` tells of all steps in what states they were made.
    """

    def __init__(self, at: Place, rollout: str, dies_at: int | None = None, **limits: Any) -> None:
        self.at, self.dies_at, self.steps = at, dies_at, 0
        self.points = list[Point]()
        self.memory = Memory(self._fate)
        self.ledger, self.judge = Ledger(), Alarms()
        at.follow(lambda: self.memory.time)
        self.order = order_of(rollout, fleet(**limits), at.port, 3)
        self.process = self._process("first")

    def _process(self, name: str) -> Process:
        self.ledger.holder = name
        self.at.begin_anew()
        journal = SimulatedJournal(self.ledger, name)
        world = World(Nobody(), journal, self.judge, self.memory.now, delegated=self.at.port)
        return self.memory.process(name, flows(world))

    def _fate(self, flow: str, name: str) -> Fate:
        self.steps += 1
        if self.dies_at == 0:
            stage = self.ledger.state.stage if self.ledger.state else None
            self.points.append((flow, name, stage, len(self.ledger.events), *self.at.marks()))
        return Fate(0.1, "after" if self.steps == self.dies_at else "")

    def held(self, said: DesiredState, then: DesiredState | None) -> list[Phase]:
        """The end of a rollout in whose middle a person says something, and long after perhaps something else."""
        self.says(4, said)
        if then:
            self.says(500, then)
        ended = phases(self.play())
        assert self.memory.time >= (500 if then else 0)
        return ended

    def play(self, order: Order | None = None) -> RolloutOutcome:
        order = order or self.order
        row = self.process.start(ROLLOUT, order.rollout, to_json(order))
        self.memory.run(self.memory.time + 1e5, lambda: row.ended or not self.process.alive)
        if not self.process.alive:
            self.process = self._process("second")
            self.process.recover()
            self.memory.run(self.memory.time + 1e5, lambda: row.ended)
        assert row.ended, self.ledger.state
        return from_json(RolloutOutcome, row.result)

    def back(self, done: RolloutOutcome) -> RolloutOutcome:
        """Take back what was done, long after its end."""
        return self.play(replace(self.order, rollout=f"{self.order.rollout}-back", back=done.members))


def phases(outcome: RolloutOutcome) -> list[Phase]:
    return [one.phase for one in outcome.members]
