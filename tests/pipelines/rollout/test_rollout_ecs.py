"""A rollout of an ECS service: it goes back by itself, whichever process dies at which step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines.rollout.state import DesiredState, Phase
from tests.simulation.execution import distinct
from tests.strict_aws import StrictAws
from tests.strict_aws.server import subprocess
from tests.support.ecs import OLD, ROLLOUT, Town, town
from tests.support.grouped import GroupRollout, order_of, phases
from tests.support.rolling import carry_services_and_die, outcome_after_deaths

LIMITS: dict[str, Any] = {"bake_time": "30s", "min_healthy_time": "5s"}


@contextmanager
def standing(aws: StrictAws, folder: Path, **limits: Any) -> Iterator[Town]:
    """A cluster with one service that runs the old image."""
    folder.mkdir(exist_ok=True)
    with town(aws, folder, **LIMITS | limits) as at:
        at.add()
        yield at


def rollout_of(at: Town, dies_at: int | None = None, **limits: Any) -> GroupRollout:
    return GroupRollout(at, ROLLOUT, dies_at, **LIMITS | limits)


def test_it_is_rolled_and_goes_back_when_a_person_says_so(aws: StrictAws, tmp_path: Path) -> None:
    """To the pinned revision, long after its end."""
    with standing(aws, tmp_path) as at:
        rollout = rollout_of(at)
        done = rollout.play()
        assert (phases(done), at.running()) == ([Phase.NEW], {at.new})
        back = rollout.back(done)
        assert (phases(back), at.running()) == ([Phase.OLD], {OLD})


@pytest.mark.parametrize(("ill", "after"), [("task", 0), ("task", 20)])
def test_a_bad_image_goes_back_by_itself(aws: StrictAws, tmp_path: Path, ill: str, after: float) -> None:
    """The rollout says what was wrong."""
    with standing(aws, tmp_path, bake_time="2m") as at:
        aws.ail(at.new, ill, after=after)
        outcome = rollout_of(at, bake_time="2m").play()
        assert (phases(outcome), at.running()) == ([Phase.OLD], {OLD})
        assert ("ended by themselves" if after else "circuit breaker") in outcome.state.failure
        assert "template web, version 1" in outcome.members[0].note


@pytest.mark.parametrize("bake", ["5m", "5s"])
def test_what_falls_ill_before_a_person_approves_goes_back(aws: StrictAws, tmp_path: Path, bake: str) -> None:
    """While it bakes, or while it waits."""
    limits = {"bake_time": bake, "auto_promote": False}
    with standing(aws, tmp_path, **limits) as at:
        aws.ail(at.new, "task", after=60)
        rollout = rollout_of(at, **limits)
        rollout.approves(4000)
        outcome = rollout.play()
        assert (phases(outcome), at.running()) == ([Phase.OLD], {OLD})
        assert "ended by themselves" in outcome.state.failure
        assert rollout.memory.time < 4000


def test_an_alarm_takes_it_back(aws: StrictAws, tmp_path: Path) -> None:
    """While it rolls or bakes."""
    with standing(aws, tmp_path) as at:
        rollout = rollout_of(at, alarms=["http://alarm.example"])
        rollout.memory.at(20, lambda: rollout.judge.firing.append("http://alarm.example"))
        assert phases(rollout.play()) == [Phase.OLD]
        assert at.running() == {OLD}


@pytest.mark.parametrize(
    ("said", "then", "phase"),
    [(DesiredState.PAUSE, DesiredState.GO, Phase.NEW), (DesiredState.ABORT, None, Phase.OLD),
     (DesiredState.ROLLBACK, None, Phase.OLD)],
)  # fmt: skip
def test_people_hold_it_abort_it_and_take_it_back(
    aws: StrictAws, tmp_path: Path, said: DesiredState, then: DesiredState | None, phase: Phase
) -> None:
    """In the middle: ECS cannot stop where it is, so it goes back; resumed, it starts from the beginning."""
    with standing(aws, tmp_path) as at:
        assert rollout_of(at).held(said, then) == [phase]
        assert at.running() == {OLD if phase is Phase.OLD else at.new}


def test_a_bake_that_begins_anew_in_another_process_is_no_standstill(aws: StrictAws, tmp_path: Path) -> None:
    """It lasts for longer than the progress deadline, and the first process died near its end."""
    limits = {"bake_time": "90m", "progress_deadline": "10m"}

    def played(dies_at: int) -> GroupRollout:
        aws.reset()
        with standing(aws, tmp_path / str(dies_at), **limits) as at:
            rollout = rollout_of(at, dies_at, **limits)
            assert phases(rollout.play()) == [Phase.NEW]
            return rollout

    whole = played(0)
    watched = [number for number, (_, name, *_) in enumerate(whole.points, 1) if name == "watch web"]
    assert played(watched[-2]).memory.time > whole.memory.time + 80 * 60


@pytest.mark.slow
@pytest.mark.parametrize("ill", [False, True])
def test_whichever_process_dies_at_whichever_step_it_comes_to_the_same_end(
    aws: StrictAws, tmp_path: Path, ill: bool
) -> None:
    """The effect done, its record lost: one revision is registered, and each update made once."""

    def played(dies_at: int) -> GroupRollout:
        aws.reset()
        with standing(aws, tmp_path / str(dies_at)) as at:
            if ill:
                aws.ail(at.new, "task", after=20)
            rollout = rollout_of(at, dies_at)
            assert phases(rollout.play()) == [Phase.OLD if ill else Phase.NEW], dies_at
            assert at.running() == {OLD if ill else at.new}, dies_at
            assert (at.revisions(), at.effects("UpdateService")) == (["1", "2"], 2 if ill else 1), dies_at
            return rollout

    numbers = distinct(played(0).points)
    assert len(numbers) >= 12
    for number in numbers:
        played(number)


@pytest.mark.slow
def test_killed_at_every_point_a_bad_image_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 before each step, and between each change at AWS and its record: one process after the other dies at the
    next point, until one has none left. The old revision runs again, and each change was made once.
    """
    limits = {"bake_time": "1s", "min_healthy_time": "1s", "healthy_deadline": "5s"}
    with subprocess(tmp_path) as aws:
        environment = aws.environment()
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with town(aws, tmp_path, frozen=False, **limits) as at:
            at.add()
            aws.ail(at.new, "task")
            outcome = outcome_after_deaths(
                carry_services_and_die, tmp_path, at.fleet, order_of(ROLLOUT, at.fleet, at.port, 1), after=2, before=4,
                environment=environment, aws=at.cloud.aws.model_dump(mode="json"),
            )  # fmt: skip
            assert phases(outcome) == [Phase.OLD], outcome
            assert (at.running(), at.revisions(), at.effects("UpdateService")) == ({OLD}, ["1", "2"], 1)
