"""The whole loop, simulated: no seed breaks a promise, planted bugs are found, and one seed is one history."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError
from images.plan import cooldown
from images.release.channels import point
from pipelines import promotion
from pipelines.nightly import flow
from pipelines.nightly.flow import Steps
from pipelines.nightly.model import FeedNews, ImageAnswer, NightOrder, NightPart, NightRecord, image_failed
from pipelines.nightly.port import NightStages
from pipelines.rollout import admission, plan, schedule
from pipelines.serve import moments
from tests.simulation import loop_fleets, loop_stages
from tests.simulation.loop import (
    Loop,
    LoopReport,
    LoopScenario,
    Trouble,
    loop_scenario,
    play_loop,
    simulate_loop,
    smallest,
)
from tests.simulation.loop_ledger import LoopLedger
from tests.simulation.loop_promises import DEADLINES, FIXES, NIGHTS, SOAKED
from tests.simulation.loop_stages import LoopStages
from tests.simulation.outside import FeedData, Registry
from tests.simulation.scenario import Fault

DAYS, FIXED, ENOUGH = 45, 4, 12


def test_no_history_of_a_fixed_range_breaks_a_promise() -> None:
    """The same seeds on every machine and every day; all happens in them that can."""
    report = simulate_loop(FIXED, DAYS)
    assert report.broken == []
    assert report.days == FIXED * DAYS
    assert set(report.done) == {"built", "candidate", "stable", "night", "urgent", "replaced", "gone"}


def test_no_fresh_history_breaks_a_promise() -> None:
    """Another seed each time: what fails here is replayed by the seed that it names."""
    seed = secrets.randbelow(10**9)
    assert simulate_loop(1, DAYS, seed).broken == [], f"seed {seed}"


def test_every_trouble_comes_about() -> None:
    """In a range of seeds that is no larger than people run by hand."""
    troubles = {fault.trouble for seed in range(60) for fault in loop_scenario(seed, 365).faults}
    assert troubles == set(Trouble)


def test_a_seed_is_one_history() -> None:
    """Event by event, or no failure could be replayed."""

    def trace(seed: int) -> list[Any]:
        loop, seen = Loop(loop_scenario(seed, DAYS // 2)), []
        loop.memory.watch = lambda: (loop._watched(), seen.append((loop.memory.time, loop.steps)))
        loop.run()
        return [*seen, sorted(loop.ledger.built), [message.summary for message in loop.messages]]

    assert trace(4) == trace(4)


# -- bugs that are planted --------------------------------------------------------------------------------------------


def a_dropped_notification(monkeypatch: pytest.MonkeyPatch) -> None:
    """A night in which something failed ends with its report."""
    real = flow._told

    async def told(stages: NightStages, steps: Steps, record: NightRecord) -> NightRecord:
        return record if record.errors else await real(stages, steps, record)

    monkeypatch.setattr(flow, "_told", told)


def a_skipped_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands on an image is forgotten once that is done."""
    real = flow.run_branch

    async def run_branch(stages: Any, engine: Any, job: Any) -> Any:
        return await real(stages, engine, replace(job, children=job.children[1:]))

    monkeypatch.setattr(flow, "run_branch", run_branch)


def a_child_that_never_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """One image fails each night, and each night says so."""
    real = LoopStages.build

    def build(stages: LoopStages, job: Any) -> Any:
        return image_failed(job, OutsideError("no")) if job.name == "app" else real(stages, job)

    monkeypatch.setattr(LoopStages, "build", build)


def children_beside_their_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands on an image begins when it does."""

    async def run_branch(_stages: Any, engine: Any, job: Any) -> Any:
        return await flow._trees(engine, [*job.children, replace(job, children=())])

    monkeypatch.setattr(flow, "run_branch", run_branch)


def a_rollback_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the gate refuses what is built, `stable` is moved to what it named before."""
    real = LoopStages._look

    def _look(stages: LoopStages, found: Any, name: str, artifact: Any) -> Any:
        looked, ledger = real(stages, found, name, artifact), stages.loop.ledger
        moves = ledger.moves(f"r.example/{name}", "stable")
        if isinstance(looked, ImageAnswer) and looked.action == "refused" and len(moves) > 1:
            point(stages._store(found.night), ledger.known[moves[-2].digest], "stable", "rollback")
        return looked

    monkeypatch.setattr(LoopStages, "_look", _look)


def members_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retention does not know what members run."""
    monkeypatch.setattr(LoopLedger, "running_digests", lambda _: {})


def a_stale_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image is planned by its own packages alone, whatever it stands on has become."""
    real = loop_stages.inputs_of
    monkeypatch.setattr(loop_stages, "inputs_of", lambda *args, **more: real(*args, **{**more, "parent": ""}))


def a_lost_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns are spread over more than the time there is."""
    real = plan.due_times

    def due_times(*known: Any) -> dict[str, Any]:
        return {member: turn + timedelta(days=20) for member, turn in real(*known).items()}

    monkeypatch.setattr(plan, "due_times", due_times)


def a_build_done_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was built is remembered by its worker alone until the step is over: one that dies has built in vain."""
    real = LoopStages.build

    def build(stages: LoopStages, job: Any) -> Any:
        memory, ledger = stages.loop.memory, stages.loop.ledger
        keep = ledger.keep
        ledger.keep = lambda *known: memory.at(0, lambda: keep(*known), memory.asking)  # type: ignore[method-assign]
        try:
            return real(stages, job)
        finally:
            del ledger.keep

    monkeypatch.setattr(LoopStages, "build", build)


def an_outage_read_as_no_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feeds that give nothing have nothing to say."""

    def feeds(stages: LoopStages, _order: NightOrder, _suite: str) -> NightPart:
        try:
            stages.loop.ledger.data = stages.loop.outside.told()
        except OutsideError:
            stages.loop.ledger.data = FeedData(stages.loop.memory.time)
        return NightPart()

    monkeypatch.setattr(LoopStages, "feeds", feeds)


def no_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is known of an image, it is let through."""
    real = LoopStages._verdict
    monkeypatch.setattr(LoopStages, "_verdict", lambda *known: replace(real(*known), allowed=True, reasons=()))


def urgent_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hole is so grave that an urgent run begins for it."""
    monkeypatch.setattr(LoopStages, "urgent", lambda *_: FeedNews())


def what_is_refused_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members are not judged by what is known today of the release that they run."""
    monkeypatch.setattr(loop_fleets.GoldenStatus, "refused", lambda *_: ("", None))


def no_soak(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is candidate is stable."""
    monkeypatch.setattr(promotion, "soaked", lambda *_: True)


def only_the_newest_soaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was published meanwhile begins the soak anew."""
    monkeypatch.setattr(promotion, "ripe_earlier", lambda *_: ())


def no_cooldown(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tag names is taken at once."""
    monkeypatch.setattr(cooldown, "until", lambda *_: None)


def no_freeze(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rollouts begin on days on which nothing may."""
    real = schedule.may_act

    def may_act(limits: Any, now: Any) -> Any:
        return real(limits.model_copy(update={"freezes": ()}), now)

    for module in (admission, plan):
        monkeypatch.setattr(module, "may_act", may_act)


def waits_as_long_as_a_freeze(monkeypatch: pytest.MonkeyPatch) -> None:
    """An automated run waits for the end of a freeze, and with it the night."""
    for module in (admission, loop_fleets):
        monkeypatch.setattr(module, "outlasts", lambda *_: None)
    monkeypatch.setattr(admission, "spent", lambda *_: "")


def a_missed_moment_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve makes up for nothing that came while it was dead."""
    monkeypatch.setattr(moments, "MISSED", timedelta(minutes=10))


def candidate_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel moves before what proves the release is there."""
    monkeypatch.setattr(LoopStages, "parts", Registry.PARTS[:-1])


def a_dead_workers_build_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes over what a worker had that died."""
    monkeypatch.setattr(Loop, "_reap", lambda _loop: None)


PLANTED: dict[Callable[[pytest.MonkeyPatch], None], tuple[str, int]] = {
    a_dropped_notification: ("people are told", 0),
    a_skipped_child: (FIXES, 0),
    a_child_that_never_builds: ("nothing fails by itself", 0),
    children_beside_their_parents: ("parents before children", 0),
    a_rollback_by_itself: ("no channel goes back", 0),
    members_are_forgotten: ("what is used is kept", 0),
    a_stale_parent: (FIXES, 0),
    a_lost_deadline: (DEADLINES, 1),
    a_build_done_twice: ("nothing is built twice", 2031),
    an_outage_read_as_no_holes: ("what could not be asked is said", 7),
    no_gate: ("what the gate refuses is not promoted", 0),
    urgent_waits: ("what is urgent does not wait", 0),
    what_is_refused_runs_on: (DEADLINES, 0),
    no_soak: ("what is promoted has soaked", 0),
    only_the_newest_soaks: (SOAKED, 0),
    no_cooldown: ("the cooldown holds", 0),
    no_freeze: ("nothing begins without leave", 2),
    waits_as_long_as_a_freeze: ("every night ends", 2),
    a_missed_moment_is_forgotten: (NIGHTS, 4),
    candidate_first: ("nothing is published half", 0),
    a_dead_workers_build_stays: ("every night ends", 0),
}
"""Bug → the promise that it breaks, and a seed that has shown it."""


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None]) -> None:
    """A simulation that finds nothing proves nothing."""
    plant(monkeypatch)
    promise, first = PLANTED[plant]
    found = (play_loop(loop_scenario(seed, DAYS), LoopReport()) for seed in range(first, first + ENOUGH))
    broken = next(one for one in found if one)
    assert broken.promise == promise, str(broken)


def test_a_broken_history_is_named_with_the_faults_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least of them that still breaks the same promise, in words."""
    waits_as_long_as_a_freeze(monkeypatch)
    faults = [(Trouble.FREEZE, 2.85, 30), (Trouble.LOST_ANSWER, 3.0, 3), (Trouble.DOWN, 4.0, 0)]
    played = LoopScenario(2, 14, tuple(Fault(trouble, at, number, 1.0) for trouble, at, number in faults))  # type: ignore[arg-type]
    broken = smallest(played, play_loop(played, LoopReport()))
    assert (broken.promise, broken.smallest) == ("every night ends", "seed 2, 14 days: freeze at 2.85 member 30 for 1")
