"""A rollout of a Deployment, StatefulSet or DaemonSet: it goes back by itself, whichever process dies at which step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import starmap
from pathlib import Path
from typing import Any

import pytest

from images.documents import from_json, to_json
from pipelines.rollout.flow import ROLLOUT, flows
from pipelines.rollout.plan import GroupStep, plan
from pipelines.rollout.state import DesiredState, Order, Phase, RolloutOutcome, World
from tests.pipelines.fleet.test_kubernetes_groups import KINDS, SURGE
from tests.pipelines.rollout.test_rollout_groups import Alarms, Nobody
from tests.simulation.execution import Fate, Point, distinct
from tests.simulation.ledger import Ledger, SimulatedJournal
from tests.simulation.memory import Memory, Process
from tests.strict_kube import Ill
from tests.support.fleets import NOW, fleet, target
from tests.support.forked import one_after_the_other
from tests.support.kube import ROLLOUT as ROLLOUT_ID
from tests.support.kube import Cluster, cluster
from tests.support.rolling import carry_groups_and_die

LIMITS: dict[str, Any] = {"bake_time": "30s", "min_healthy_time": "5s", "max_unavailable": 1, "max_parallel": 3}


class Rollout:
    """A rollout of all objects of a cluster, whose clock is the engine's; a process may die after any step's effect."""

    def __init__(self, at: Cluster, dies_at: int = 0, **limits: Any) -> None:
        self.at, self.dies_at = at, dies_at
        self.points = list[Point]()
        self.memory = Memory(self._fate)
        self.ledger, self.judge = Ledger(), Alarms()
        began = at.kube.now
        at.kube.clock = lambda: began + timedelta(seconds=self.memory.time)
        groups = at.port.groups()
        own = fleet(**LIMITS | limits)
        pace = [at.port.pace(group, 3) for group in groups]
        steps = tuple(starmap(GroupStep, zip(groups, pace, strict=True)))
        self.order = Order(ROLLOUT_ID, replace(plan(own, (), target(), NOW, grouped=True), groups=steps), own.limits)
        self.process = self._process("first")

    def _process(self, name: str) -> Process:
        self.ledger.holder = name
        self.at.begin_anew()
        journal = SimulatedJournal(self.ledger, name)
        world = World(Nobody(), journal, self.judge, self.memory.now, delegated=self.at.port)
        return self.memory.process(name, flows(world))

    def _fate(self, flow: str, name: str) -> Fate:
        stage = self.ledger.state.stage if self.ledger.state else None
        pods = tuple(sorted((image, self.at.kube.serving(image)) for image in self.at.kube.running()))
        self.points.append((flow, name, stage, len(self.ledger.events), len(self.at.kube.patches), pods))
        return Fate(0.1, "after" if len(self.points) == self.dies_at else "")

    def says(self, at: float, desired_state: DesiredState) -> None:
        """A person says something at a moment."""

        def say() -> None:
            self.ledger.desired_state = desired_state
            for row in list(self.memory.rows.values()):
                self.memory.wake(row.id)

        self.memory.at(at, say)

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


@contextmanager
def standing(folder: Path, kind: str = "Deployment", **limits: Any) -> Iterator[Cluster]:
    """A cluster with one object that runs the old image."""
    folder.mkdir(exist_ok=True)
    with cluster(folder, **LIMITS | limits) as at:
        at.kube.add(kind, **(SURGE if kind == "Deployment" else {}))
        yield at


def phases(outcome: RolloutOutcome) -> list[Phase]:
    return [one.phase for one in outcome.members]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_rolled_and_goes_back_when_a_person_says_so(tmp_path: Path, kind: str) -> None:
    """To the pinned digest, long after its end."""
    with standing(tmp_path, kind) as at:
        pinned = str(at.port.pin(at.group).version)
        rollout = Rollout(at)
        done = rollout.play()
        assert (phases(done), at.kube.running()) == ([Phase.NEW], {at.new})
        back = rollout.play(replace(rollout.order, rollout=f"{ROLLOUT_ID}-back", back=done.members))
        assert (phases(back), at.kube.running()) == ([Phase.OLD], {pinned})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ill", [Ill.CRASHES, Ill.GONE, Ill.LATER])
def test_a_bad_image_goes_back_by_itself(tmp_path: Path, kind: str, ill: Ill) -> None:
    """To the digest that was pinned; the rollout says what was wrong."""
    with standing(tmp_path, kind, bake_time="2m") as at:
        pinned = str(at.port.pin(at.group).version)
        at.kube.controllers.ill[at.new] = ill
        outcome = Rollout(at, bake_time="2m").play()
        assert (phases(outcome), at.kube.running()) == ([Phase.OLD], {pinned})
        assert "the pod web-" in outcome.state.failure
        assert pinned in outcome.members[0].note


@pytest.mark.parametrize("kind", KINDS)
def test_without_auto_rollback_a_bad_image_is_left_as_it_is(tmp_path: Path, kind: str) -> None:
    """And nothing more is done to it."""
    with standing(tmp_path, kind, auto_rollback=False) as at:
        at.kube.controllers.ill[at.new] = Ill.CRASHES
        assert phases(Rollout(at, auto_rollback=False).play()) == [Phase.FAILED]
        assert len(at.kube.patches) == 1


def test_an_alarm_takes_it_back(tmp_path: Path) -> None:
    """While it rolls or bakes."""
    with standing(tmp_path) as at:
        rollout = Rollout(at, alarms=["http://alarm.example"])
        rollout.memory.at(20, lambda: rollout.judge.firing.append("http://alarm.example"))
        assert phases(rollout.play()) == [Phase.OLD]
        assert at.new not in at.kube.running()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("said", "then", "phase"),
    [(DesiredState.PAUSE, DesiredState.GO, Phase.NEW), (DesiredState.ABORT, None, Phase.FAILED),
     (DesiredState.ROLLBACK, None, Phase.OLD)],
)  # fmt: skip
def test_people_hold_it_abort_it_and_take_it_back(
    tmp_path: Path, kind: str, said: DesiredState, then: DesiredState | None, phase: Phase
) -> None:
    """In the middle: what is held stops where it is, and goes on."""
    with standing(tmp_path, kind) as at:
        rollout = Rollout(at)
        rollout.says(4, said)
        if then:
            rollout.says(500, then)
        assert phases(rollout.play()) == [phase]
        assert rollout.memory.time >= (500 if then else 0)
        assert (at.new in at.kube.running()) == (phase is not Phase.OLD)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "ill"), [("Deployment", False), *((kind, True) for kind in KINDS)])
def test_whichever_process_dies_at_whichever_step_it_comes_to_the_same_end(
    tmp_path: Path, kind: str, ill: bool
) -> None:
    """The effect done, its record lost: each change of the cluster is made once."""

    def played(dies_at: int) -> Rollout:
        with standing(tmp_path, kind) as at:
            pinned = str(at.port.pin(at.group).version)
            at.kube.controllers.ill |= {at.new: Ill.CRASHES} if ill else {}
            rollout = Rollout(at, dies_at)
            assert phases(rollout.play()) == [Phase.OLD if ill else Phase.NEW], dies_at
            assert at.kube.running() == {pinned if ill else at.new}, dies_at
            assert len(at.kube.patches) == (2 if ill else 1), dies_at
            return rollout

    numbers = distinct(played(0).points)
    assert len(numbers) >= 12
    for number in numbers:
        played(number)


@pytest.mark.slow
def test_killed_at_every_point_a_bad_image_goes_back(tmp_path: Path) -> None:
    """kill -9 before each step, and between each change of the cluster and its record: one process after the other dies
    at the next point, until one has none left. The old digest runs again, and each change was made once.
    """
    limits = {"bake_time": "1s", "min_healthy_time": "1s", "healthy_deadline": "5s", "max_unavailable": 1}
    with standing(tmp_path / "at", "StatefulSet", **limits) as at:
        at.kube.now = datetime.now(UTC)
        at.kube.clock = lambda: datetime.now(UTC)
        at.kube.controllers.ill[at.new] = Ill.NEVER_READY
        (group,), pinned = at.port.groups(), str(at.port.pin(at.group).version)
        whole = replace(
            plan(at.fleet, (), target(), NOW, grouped=True), groups=(GroupStep(group, at.port.pace(group, 1)),)
        )
        given = {"fleet": at.fleet.model_dump(mode="json", exclude_unset=True),
                 "order": to_json(Order(ROLLOUT_ID, whole, at.fleet.limits))}  # fmt: skip
        (tmp_path / "run.json").write_text(json.dumps(given))
        assert one_after_the_other(carry_groups_and_die, tmp_path)[-1] == 0
        points = (tmp_path / "died").read_text().splitlines()
        assert len(points) == len(set(points))
        assert sum(": after " in point for point in points) >= 3, points
        assert sum(point.startswith("before ") for point in points) >= 6, points
        outcome = from_json(RolloutOutcome, json.loads((tmp_path / "outcome.json").read_text()))
        assert phases(outcome) == [Phase.OLD], outcome
        assert (at.kube.running(), len(at.kube.patches)) == ({pinned}, 2)
