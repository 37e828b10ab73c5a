"""The simulation: no seed breaks a promise, planted bugs are found, and a broken seed replays and becomes small."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from hardening.foundation.errors import RefusedError, UsageError
from images.ledger import Holder
from pipelines.cli.simulate import output, show_simulation, simulate_rollouts
from pipelines.durable.port import Json
from pipelines.fleet.members import Key, ReplacementImage
from pipelines.rollout import admission, baking, flow, member
from pipelines.rollout.admission import Admission
from pipelines.rollout.baking import HealthStreak
from pipelines.rollout.lease import take
from pipelines.rollout.state import MemberState
from pipelines.rollout.steps import PATIENT_TRIES, Backoff, MemberContext, Rolling, StepRunner
from tests.simulation.faults import arrange
from tests.simulation.memory import Memory
from tests.simulation.scenario import Fault, FaultKind, Scenario, scenario
from tests.simulation.simulate import Report, play, simulate
from tests.simulation.stage import TARGET, SimulatedJudge, Simulation

FIXED = 150
QUICK = 100
"""As many of them as are enough for every kind of trouble and of end; `--fast` plays these."""
FRESH = 150
ENOUGH = 1000


def test_no_seed_of_a_fixed_range_breaks_a_promise(pytestconfig: pytest.Config) -> None:
    """The same seeds on every machine and every day; every kind of trouble is among them."""
    seeds = QUICK if pytestconfig.getoption("--fast") else FIXED
    report = simulate(seeds)
    assert report.broken == []
    assert report.rollouts == seeds
    assert set(report.troubles) == set(FaultKind)
    assert {"new", "old", "skipped", "planned", "failed"} <= set(report.ends)
    assert report.rivals_refused > 0


@pytest.mark.slow
def test_no_fresh_seed_breaks_a_promise() -> None:
    """Other seeds each time, in whole runs: what fails here is replayed by the seed that it names."""
    start = secrets.randbelow(10**9)
    report = simulate(FRESH, start)
    assert report.broken == [], f"./goldsmith roll.simulate --seeds {FRESH} --seed {start}"


def test_a_seed_is_the_same_rollout_each_time() -> None:
    """Event by event, or no failure could be replayed."""

    def trace(seed: int) -> list[Any]:
        try:
            stage = Simulation(scenario(seed))
        except RefusedError as refused:
            return [str(refused)]
        seen: list[Any] = []
        stage.each_event = lambda: seen.append((stage.memory.time, stage.estate.effects, stage.steps))
        arrange(stage)
        return [*seen, stage.run().result, *seen]

    traces = [trace(seed) for seed in range(20)]
    assert traces == [trace(seed) for seed in range(20)]
    assert sum(len(one) > 1 for one in traces) > 15


def no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old one is stopped as soon as the new one has been started."""

    async def prove(*_: Any) -> None:
        return None

    monkeypatch.setattr(member, "prove", prove)


def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each launch has a key of its own, also the one that is tried again."""
    numbers = count()
    monkeypatch.setattr(Key, "token", property(lambda _key: next(numbers)))


def to_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way back leads to what a channel points to by now."""

    def pinned(state: MemberState) -> ReplacementImage:
        return replace(TARGET, reference="r.example/simulated:stable")

    monkeypatch.setattr(flow, "pinned", pinned)


def no_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever believes that it holds the lease acts."""

    def fenced(_hand: StepRunner, effect: Callable[[], Json]) -> Json:
        return effect()

    monkeypatch.setattr(StepRunner, "_fenced", fenced)


def no_fence_for_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is only written down is written by whoever has slept through its lease, too."""

    async def note(runner: StepRunner, name: str, write: Callable[[], Json]) -> Json:
        return await runner.look(name, write, PATIENT_TRIES)

    monkeypatch.setattr(StepRunner, "note", note)


def no_look_at_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever had leave stops the old one, though another member has fallen ill meanwhile."""
    monkeypatch.setattr(member, "below_floor", lambda *_: "")


def no_floor_in_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many members are begun in place as the plan had foreseen, whoever is ill by then."""
    monkeypatch.setattr(admission, "above_floor", lambda orders, _members: Admission(len(orders)))


def no_budgets_in_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budgets are those of the moment at which it was planned."""
    monkeypatch.setattr(admission, "budgeted", lambda _limits, _desired, orders, _now: Admission(len(orders)))


def no_last_judgement(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member is replaced as it was planned, though it has been protected since."""
    monkeypatch.setattr(SimulatedJudge, "left_alone", lambda *_: "")


def half_a_bake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old ones are removed early."""
    real = flow.bake

    async def bake(rolling: Rolling, span: timedelta, *, asks: bool) -> None:
        await real(rolling, span / 2, asks=asks)

    monkeypatch.setattr(flow, "bake", bake)


def no_approval(monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary goes on by itself, whoever wants to be asked."""
    real = flow.bake

    async def bake(rolling: Rolling, span: timedelta, *, asks: bool) -> None:
        await real(rolling, span, asks=False)

    monkeypatch.setattr(flow, "bake", bake)


def paused_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wave bakes on while the rollout is paused."""
    real = Backoff.next

    async def following(backoff: Backoff, *, counts: bool = True) -> timedelta:
        return await real(backoff)

    monkeypatch.setattr(Backoff, "next", following)


def deaf_while_proving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who waits for an instance to become healthy hears that the rollout was stopped."""
    real = baking._watched

    async def watched(one: MemberContext, which: str, row: HealthStreak, *, obeys: bool) -> HealthStreak:
        return await real(one, which, row, obeys=False)

    monkeypatch.setattr(baking, "_watched", watched)


def one_good_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look is enough."""
    monkeypatch.setattr(baking.HealthStreak, "proved", property(lambda row: row.count > 0))


def new_discarded_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the old one to serve again, or looks at it when the new one goes."""

    async def old_serves(_work: MemberContext) -> bool:
        return True

    monkeypatch.setattr(member, "old_serves", old_serves)
    monkeypatch.setattr(member, "_discard_safely", lambda work: work.fleet.discard(work.key))


def fenced_and_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lost its lease acts no more, and neither ends: its lock keeps everybody out."""
    monkeypatch.setattr(Memory, "fenced", lambda _memory, _process: None)


def lease_before_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease is taken by one that is then refused the file."""

    def enter(stage: Simulation, wanted: Holder) -> None:
        take(stage.ledger, wanted, alone=False)
        stage.lock()

    monkeypatch.setattr(Simulation, "enter", enter)


def no_lock_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes believes that the file is its own, and that the lease's owner is dead."""
    monkeypatch.setattr(Simulation, "lock", lambda _stage: None)


def no_canary_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the canary was left alone, the rest follows at once."""
    monkeypatch.setattr(flow, "canary_of", lambda wave, _limits: (wave,))


def no_bake_without_an_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary whose old one has vanished proves nothing, and nobody is asked."""
    monkeypatch.setattr(Rolling, "new", Rolling.pairs)


def last_deadline_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the canary the waves come backwards."""

    def backwards(waves: Sequence[Any], start: int = 0) -> list[tuple[int, Any]]:
        first, *others = list(enumerate(waves, start))
        return [first, *reversed(others)]

    monkeypatch.setattr(flow, "enumerate", backwards, raising=False)


def a_lost_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last wave is forgotten."""

    def shorter(waves: Sequence[Any], start: int = 0) -> list[tuple[int, Any]]:
        return list(enumerate(waves, start))[: max(1, len(waves) - 1)]

    monkeypatch.setattr(flow, "enumerate", shorter, raising=False)


PLANTED: dict[Callable[[pytest.MonkeyPatch], None], tuple[str, int]] = {
    no_proof: ("proved before terminated", 1),
    one_good_read: ("proved before terminated", 1),
    no_key: ("no effect twice", 30),
    to_the_latest: ("rollback reaches the pinned version", 80),
    no_fence: ("one rollout at a time", 37),
    no_fence_for_notes: ("one rollout at a time", 4043),
    no_look_at_the_floor: ("capacity", 22),
    new_discarded_first: ("capacity", 6),
    no_floor_in_leave: ("nothing begins without leave", 19),
    no_budgets_in_leave: ("nothing begins without leave", 3),
    no_last_judgement: ("judged again before replaced", 12),
    half_a_bake: ("baked before promoted", 1),
    no_approval: ("baked before promoted", 3),
    paused_time_counts: ("baked before promoted", 262),
    deaf_while_proving: ("people are obeyed", 24),
    fenced_and_lingering: ("who lost its lease ends", 11),
    lease_before_lock: ("a lease is with whoever can go on", 2),
    no_lock_of_the_file: ("who lost its lease ends", 81),
    no_canary_passed_on: ("a canary comes first", 116),
    no_bake_without_an_old_one: ("a canary comes first", 251),
    last_deadline_first: ("the earliest deadline first", 1),
    a_lost_deadline: ("every violation ends replaced or explained", 1),
}
"""Bug → the promise that it breaks, and a seed that has shown it."""


def broken_seed(plant: Callable[[pytest.MonkeyPatch], None]) -> int:
    """A seed that shows the bug, which is planted: of a thousand that begin with one that has shown it."""
    seeds = range(PLANTED[plant][1], PLANTED[plant][1] + ENOUGH)
    return next(seed for seed in seeds if play(scenario(seed), Report()))


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found_within_a_thousand_seeds(
    monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """A simulation that finds nothing proves nothing."""
    plant(monkeypatch)
    broken = play(scenario(broken_seed(plant)), Report())
    assert broken
    assert broken.promise == PLANTED[plant][0]


FOUND = {
    72195088: "the new one was bad at each moment of removal, and good whenever it was asked again",
    1547: "a process without its lease saw the new one ill between two looks of its heir",
    8059: "the same, in a rollout that leaves no way back",
    4972: "the old one was good in one look after two bad ones, and ill again when the new one went",
    590670938: "without auto_rollback the service went on to a replacement that had been revoked",
}


@pytest.mark.parametrize("seed", FOUND, ids=FOUND.values())
def test_what_a_fresh_seed_once_found_is_kept_from_coming_back(seed: int) -> None:
    """Each was a broken promise, or a simulation that saw one where there was none."""
    assert play(scenario(seed), Report()) is None


def test_a_broken_seed_replays_and_is_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is reported is the least that still breaks the same promise, in words."""
    no_fence(monkeypatch)
    seed = broken_seed(no_fence)
    first, second = simulate(1, seed).broken, simulate(1, seed).broken
    assert first == second
    assert (first[0].seed, first[0].promise) == (seed, "one rollout at a time")
    assert first[0].smallest.count(" at ") < len(scenario(seed).faults) or len(scenario(seed).faults) == 1
    assert len(first[0].smallest) < len(str(scenario(seed)))


@pytest.mark.slow
def test_two_processes_report_what_one_does() -> None:
    """Speed changes nothing."""
    assert simulate(40, 7, processes=2) == simulate(40, 7)


def outcome(played: Scenario) -> Report:
    report = Report()
    assert play(played, report) is None
    return report


def test_a_calm_rollout_ends_with_everybody_on_the_new_version() -> None:
    """Without a fault nothing is left behind."""
    assert outcome(Scenario(1, limits={"max_parallel": 4, "max_surge": 4})).ends == {"new": 20}


@pytest.mark.parametrize(
    ("trouble", "ends"),
    [
        (Fault(FaultKind.ABORT, 400), {"new": 1, "old": 2, "planned": 17}),
        (Fault(FaultKind.ROLLBACK, 500), {"old": 7, "planned": 13}),
        (Fault(FaultKind.NEVER_HEALTHY), {"old": 1, "planned": 19}),
        (Fault(FaultKind.PROTECTED, 1, member=3), {"new": 19, "skipped": 1}),
        (Fault(FaultKind.VANISHES, 1, member=3), {"new": 19, "skipped": 1}),
        (Fault(FaultKind.PAUSE, 60, amount=5000), {"new": 20}),
        (Fault(FaultKind.RIVAL, 60), {"new": 20}),
        (Fault(FaultKind.STALLED, 60, amount=300), {"new": 20}),
        (Fault(FaultKind.DARK, 60, amount=5), {"new": 20}),
        (Fault(FaultKind.CLOCK_JUMPS, 60, amount=-86_400), {"new": 20}),
        (Fault(FaultKind.DIES_AFTER, 20), {"new": 20}),
    ],
    ids=lambda value: str(value) if isinstance(value, Fault) else "",
)
def test_one_trouble_has_the_end_that_a_person_expects(trouble: Fault, ends: dict[str, int]) -> None:
    """One fault in an else calm rollout of twenty, one canary with a bake, and no budget in the way."""
    limits = {"max_parallel": 2, "max_surge": 2, "budgets": [{"nodes": "100%"}]}
    assert outcome(Scenario(1, limits=limits, faults=(trouble,))).ends == ends


def test_limits_that_refuse_a_plan_are_a_refusal_and_no_failure() -> None:
    """In place with nobody to spare."""
    with pytest.raises(RefusedError):
        Simulation(Scenario(1, limits={"method": "in_place"}))
    assert outcome(Scenario(1, limits={"method": "in_place"})).ends == {"refused": 1}


def test_the_command_line_says_what_was_broken_and_how_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, the seed, and the smallest scenario; 0 where all promises were kept."""
    good = output(simulate(3), 0)
    assert (show_simulation(good, as_json=False), good.broken) == (0, ())
    no_fence(monkeypatch)
    seed = broken_seed(no_fence)
    bad = output(simulate(1, seed), seed)
    capsys.readouterr()
    assert show_simulation(bad, as_json=False) == 1
    assert f"./goldsmith roll.simulate --seeds 1 --seed {seed}" in capsys.readouterr().out
    assert show_simulation(bad, as_json=True) == 1
    with pytest.raises(UsageError):
        simulate_rollouts(0, 0)
