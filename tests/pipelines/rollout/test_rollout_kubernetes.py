"""A rollout of a Deployment, StatefulSet or DaemonSet: it goes back by itself, whichever process dies at which step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.rollout.state import DesiredState, Phase, RolloutStage
from tests.pipelines.fleet.test_kubernetes_groups import KINDS, SURGE
from tests.simulation.execution import distinct
from tests.strict_kube import Ill
from tests.support.grouped import GroupRollout, order_of, phases
from tests.support.kube import ROLLOUT as ROLLOUT_ID
from tests.support.kube import Cluster, cluster
from tests.support.rolling import carry_groups_and_die, outcome_after_deaths

LIMITS: dict[str, Any] = {"bake_time": "30s", "min_healthy_time": "5s", "max_unavailable": 1, "max_parallel": 3}


def rollout_of(at: Cluster, dies_at: int | None = None, **limits: Any) -> GroupRollout:
    return GroupRollout(at, ROLLOUT_ID, dies_at, **LIMITS | limits)


@contextmanager
def standing(folder: Path, kind: str = "Deployment", **limits: Any) -> Iterator[Cluster]:
    """A cluster with one object that runs the old image."""
    folder.mkdir(exist_ok=True)
    with cluster(folder, **LIMITS | limits) as at:
        at.kube.add(kind, **(SURGE if kind == "Deployment" else {}))
        yield at


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_rolled_and_goes_back_when_a_person_says_so(tmp_path: Path, kind: str) -> None:
    """To the pinned digest, long after its end."""
    with standing(tmp_path, kind) as at:
        pinned = str(at.port.pin(at.group).version)
        rollout = rollout_of(at)
        done = rollout.play()
        assert (phases(done), at.kube.running()) == ([Phase.NEW], {at.new})
        back = rollout.back(done)
        assert (phases(back), at.kube.running()) == ([Phase.OLD], {pinned})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ill", [Ill.CRASHES, Ill.GONE, Ill.LATER])
def test_a_bad_image_goes_back_by_itself(tmp_path: Path, kind: str, ill: Ill) -> None:
    """To the digest that was pinned; the rollout says what was wrong."""
    with standing(tmp_path, kind, bake_time="2m") as at:
        pinned = str(at.port.pin(at.group).version)
        at.kube.controllers.ill[at.new] = ill
        outcome = rollout_of(at, bake_time="2m").play()
        assert (phases(outcome), at.kube.running()) == ([Phase.OLD], {pinned})
        assert "the pod web-" in outcome.state.failure
        assert pinned in outcome.members[0].note


def test_pods_that_break_on_the_way_back_do_not_keep_the_others_from_it(tmp_path: Path) -> None:
    """They were well when a person asked for it; each is ended as it breaks, which is in the audit."""
    with standing(tmp_path, "StatefulSet", bake_time="10m") as at:
        pinned = str(at.port.pin(at.group).version)
        at.kube.controllers.ill[at.new] = Ill.LATER
        rollout = rollout_of(at, bake_time="10m")
        rollout.says(42, DesiredState.ROLLBACK)
        assert (phases(rollout.play()), at.kube.running()) == ([Phase.OLD], {pinned})
        assert rollout.memory.time < 120
        assert len(at.kube.patches) == 2
        assert rollout.ledger.audited.count("roll back web") > 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bake", ["5m", "5s"])
def test_what_falls_ill_before_a_person_approves_goes_back(tmp_path: Path, kind: str, bake: str) -> None:
    """While it bakes, or while it waits: nobody who approves later gets pods of which none serves."""
    limits = {"bake_time": bake, "auto_promote": False}
    with standing(tmp_path, kind, **limits) as at:
        pinned = str(at.port.pin(at.group).version)
        at.kube.controllers.ill[at.new] = Ill.LATER
        rollout = rollout_of(at, **limits)
        rollout.approves(2000)
        outcome = rollout.play()
        assert (phases(outcome), at.kube.running()) == ([Phase.OLD], {pinned})
        assert "the pod web-" in outcome.state.failure
        assert rollout.memory.time < 2000


def test_what_stays_well_is_new_when_a_person_approves_it(tmp_path: Path) -> None:
    """It bakes once; a pod that is moved meanwhile has to serve again before the approval counts."""
    limits = {"bake_time": "5m", "auto_promote": False}
    with standing(tmp_path, **limits) as at:
        rollout = rollout_of(at, **limits)
        seen: list[RolloutStage] = []
        for moment in (290, 400, 1990):
            rollout.memory.at(moment, lambda: seen.append(rollout.ledger.state.stage))  # type: ignore[union-attr]

        def evict() -> None:
            assert at.group.healthy == 3  # which also lets the cluster's clock go by ours
            del at.kube.controllers.objects[next(key for key in at.kube.controllers.objects if key[0] == "pods")]

        rollout.memory.at(1999, evict)
        rollout.approves(2000)
        assert (phases(rollout.play()), at.kube.running()) == ([Phase.NEW], {at.new})
        assert seen == [RolloutStage.ROLLING, RolloutStage.CANARY_APPROVAL, RolloutStage.CANARY_APPROVAL]
        assert 2000 + 300 <= rollout.memory.time < 2000 + 400


@pytest.mark.parametrize("kind", KINDS)
def test_without_auto_rollback_a_bad_image_is_left_as_it_is(tmp_path: Path, kind: str) -> None:
    """And nothing more is done to it."""
    with standing(tmp_path, kind, auto_rollback=False) as at:
        at.kube.controllers.ill[at.new] = Ill.CRASHES
        assert phases(rollout_of(at, auto_rollback=False).play()) == [Phase.FAILED]
        assert len(at.kube.patches) == 1


def test_an_alarm_takes_it_back(tmp_path: Path) -> None:
    """While it rolls or bakes."""
    with standing(tmp_path) as at:
        rollout = rollout_of(at, alarms=["http://alarm.example"])
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
        assert rollout_of(at).held(said, then) == [phase]
        assert (at.new in at.kube.running()) == (phase is not Phase.OLD)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "ill"), [("Deployment", False), *((kind, True) for kind in KINDS)])
def test_whichever_process_dies_at_whichever_step_it_comes_to_the_same_end(
    tmp_path: Path, kind: str, ill: bool
) -> None:
    """The effect done, its record lost: each change of the cluster is made once."""

    def played(dies_at: int) -> GroupRollout:
        with standing(tmp_path, kind) as at:
            pinned = str(at.port.pin(at.group).version)
            at.kube.controllers.ill |= {at.new: Ill.CRASHES} if ill else {}
            rollout = rollout_of(at, dies_at)
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
        pinned, order = str(at.port.pin(at.group).version), order_of(ROLLOUT_ID, at.fleet, at.port, 1)
        outcome = outcome_after_deaths(carry_groups_and_die, tmp_path, at.fleet, order, after=3, before=6)
        assert phases(outcome) == [Phase.OLD], outcome
        assert (at.kube.running(), len(at.kube.patches)) == ({pinned}, 2)
