"""How a rollout ends when a part of it did not come about: its canary, its way back, or a member of the fleet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hardening.foundation.errors import RefusedError
from images.documents import from_json, to_json
from pipelines.fleet.members import Key, ReplacementImage
from pipelines.rollout.baking import Census, fewer
from pipelines.rollout.flow import ROLLOUT, UNFINISHED
from pipelines.rollout.state import SAID, Cause, Event, MemberState, Order, Phase, RolloutOutcome, RolloutStage
from pipelines.rollout.waves import Step, Wave, canary_of
from tests.pipelines.rollout.test_rollout_run import WIDE, Run, phases
from tests.simulation.fleet import SimulatedFleet
from tests.simulation.scenario import Fault, FaultKind
from tests.simulation.stage import TARGET, SimulatedJudge, name_of
from tests.support.fleets import fleet, member

ASKS = {"auto_promote": False}
LEFT_ALONE = (Fault(FaultKind.PROTECTED, 0), Fault(FaultKind.VANISHES, 0), Fault(FaultKind.FIXED, 0))


@pytest.mark.parametrize("left", LEFT_ALONE, ids=str)
@pytest.mark.parametrize("limits", [ASKS, WIDE | ASKS], ids=["one by one", "side by side"])
def test_where_the_canary_was_left_alone_the_next_member_is_the_canary(limits: dict[str, Any], left: Fault) -> None:
    """Else the rest would roll with nothing baked and nobody asked."""
    run = Run(limits, replace(left, member=0), members=4)
    outcome = run.play()
    assert phases(outcome) == [Phase.SKIPPED, *[Phase.NEW] * 3]
    assert Event.APPROVAL in run.ledger.events
    assert run.first(RolloutStage.CANARY_APPROVAL) - run.first(RolloutStage.BAKING) >= 300
    creates = [line for line in run.ledger.audited if line.startswith("create")]
    assert creates[0] == f"create {name_of(1)}"
    assert run.ledger.audited.index(f"remove the old {name_of(1)}") < run.ledger.audited.index(creates[1])


def test_a_canary_is_passed_on_until_one_is_new() -> None:
    """Two of three are left alone: the third one is baked and approved."""
    run = Run(ASKS, *(Fault(FaultKind.PROTECTED, 0, member=number) for number in (0, 1)))
    assert phases(run.play()) == [Phase.SKIPPED, Phase.SKIPPED, Phase.NEW]
    assert Event.APPROVAL in run.ledger.events


def test_where_nobody_becomes_new_nobody_is_asked() -> None:
    """There is nothing to approve."""
    run = Run(ASKS, *(Fault(FaultKind.PROTECTED, 0, member=number) for number in range(3)))
    assert phases(run.play()) == [Phase.SKIPPED] * 3
    assert Event.APPROVAL not in run.ledger.events


@pytest.mark.parametrize("limits", [{}, ASKS], ids=["bakes", "asks"])
def test_a_canary_whose_old_one_vanished_bakes_and_is_approved_like_any(limits: dict[str, Any]) -> None:
    """It serves the new version: what it proves counts, and what it does not prove, too."""
    vanishes = Fault(FaultKind.VANISHES, 20, member=0)
    run = Run(limits, vanishes)
    assert phases(run.play()) == [Phase.NEW] * 3
    assert (Event.APPROVAL in run.ledger.events) == (limits is ASKS)
    second = run.ledger.audited.index(f"create {name_of(1)}")
    at = next(time for time, effects, _ in run.seen if effects > second)
    assert at - run.first(RolloutStage.BAKING) >= 300
    ill = Run(limits, vanishes, Fault(FaultKind.FALLS_ILL, 200, member=0, amount=1e6))
    outcome = ill.play()
    assert phases(outcome) == [Phase.NEW, Phase.PLANNED, Phase.PLANNED]
    assert "became unhealthy during the bake" in outcome.state.failure


def test_a_wave_gets_a_canary_of_its_own() -> None:
    """As many as the fleet wants, with the canary's bake; the rest of the wave follows as it was."""
    steps = tuple(Step(member(f"web-{number}"), ("expired",)) for number in range(5))
    wave = Wave(steps, timedelta(), parallel=4)
    limits = fleet(canary=2, bake_time="7m").limits
    bake = timedelta(minutes=7)
    assert canary_of(wave, limits) == (Wave(steps[:2], bake, 2, canary=True), replace(wave, steps=steps[2:]))
    assert canary_of(replace(wave, steps=steps[:1]), limits) == (Wave(steps[:1], bake, 1, canary=True),)


# -- the way back -----------------------------------------------------------------------------------------------------


def taken_back(run: Run, meanwhile: Callable[[], None] = lambda: None) -> RolloutOutcome:
    """The rollout, to its end; then it is taken back by one of its own."""
    replaced = run.play().members
    meanwhile()
    row = run.process.start(ROLLOUT, "r2", to_json(Order("r2", run.plan, run.fleet.limits, back=replaced)))
    run.memory.run(run.memory.time + 1e5, lambda: row.ended)
    return from_json(RolloutOutcome, row.result)


def recover(run: Run, name: str, exact: str) -> None:
    """Somebody puts another instance in a member's place."""
    box = run.estate.members()[name]
    del run.estate.boxes[box.handle]
    digest = exact.rpartition("@")[2]
    run.estate.boxes["by-hand"] = replace(box, handle="by-hand", exact=exact, digest=digest, label="")


def test_who_was_changed_by_somebody_else_is_not_taken_back_and_that_is_no_success() -> None:
    """The others go back; the failure names the one that did not, and why."""
    run = Run()

    outcome = taken_back(run, lambda: recover(run, name_of(1), "r.example/other@sha256:other"))
    assert phases(outcome) == [Phase.OLD, Phase.NEW, Phase.OLD]
    cause = f"{UNFINISHED}: {name_of(1)}: {SAID[Cause.NOT_TAKEN]}; {SAID[Cause.CHANGED]}"
    assert outcome.state.failure == cause


def test_who_was_replaced_by_the_image_that_it_ran_is_taken_back_to_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """It drifted: each is a new instance of the same image, on both ways."""
    monkeypatch.setattr(SimulatedJudge, "left_alone", lambda *_: "")
    run, first = Run(), set[str]()
    for box in run.estate.boxes.values():
        box.digest, box.exact = TARGET.digest, TARGET.reference
    run.pinned = dict.fromkeys(run.pinned, TARGET.reference)
    outcome = taken_back(run, lambda: first.update(run.estate.boxes))
    assert first == {"new-1", "new-2", "new-3"}
    assert (phases(outcome), outcome.state.failure) == ([Phase.OLD] * 3, "")
    assert set(run.estate.boxes) == {"new-4", "new-5", "new-6"}
    assert run.images() == run.pinned


def test_a_member_that_is_gone_cannot_go_back_and_that_is_no_success() -> None:
    """Nobody can say that it is as it was."""
    run = Run()
    outcome = taken_back(run, lambda: run.estate.boxes.pop(run.estate.members()[name_of(2)].handle) and None)
    assert phases(outcome) == [Phase.OLD, Phase.OLD, Phase.NEW]
    assert outcome.state.failure == f"{UNFINISHED}: {name_of(2)}: {SAID[Cause.NOT_TAKEN]}; {SAID[Cause.GONE]}"


def test_what_could_not_be_fetched_any_more_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """The member is a person's: failed, with the cause, and so is the rollout."""

    def away(_fleet: SimulatedFleet, target: ReplacementImage, _member: str) -> None:
        raise RefusedError(f"{target.reference} is away")

    run = Run()
    outcome = taken_back(run, lambda: monkeypatch.setattr(SimulatedFleet, "prepare", away))
    assert phases(outcome) == [Phase.FAILED] * 3
    assert outcome.state.failure.startswith(UNFINISHED)
    assert outcome.state.failure.count("is away") == 3


def test_who_runs_its_old_version_already_is_back() -> None:
    """Somebody was quicker: there is nothing left to do, and nothing to complain of."""
    run = Run()
    before = dict(run.pinned)

    outcome = taken_back(run, lambda: recover(run, name_of(1), before[name_of(1)]))
    assert (phases(outcome), outcome.state.failure) == ([Phase.OLD] * 3, "")
    assert run.images() == before


def test_a_new_one_that_vanishes_right_before_its_old_one_goes_gives_the_old_one_back() -> None:
    """As a person's or another tool's `up -d` may remove it: the member serves on, and the rollout has failed."""
    run = Run({"bake_time": "0s"})

    def vanished() -> None:
        del run.estate.boxes[run.estate.members()[name_of(0)].handle]

    run.memory.at(run_until(Run({"bake_time": "0s"}), f"remove the old {name_of(0)}") - 0.01, vanished)
    outcome = run.play()
    assert phases(outcome) == [Phase.OLD, Phase.PLANNED, Phase.PLANNED]
    assert "the new one was not healthy" in outcome.state.failure
    assert run.images() == run.pinned


def run_until(run: Run, line: str) -> float:
    """When a calm run audits this line."""
    run.play()
    number = run.ledger.audited.index(line)
    return next(time for time, effects, _ in run.seen if effects > number)


# -- a smaller fleet --------------------------------------------------------------------------------------------------


def test_a_rollout_that_ends_with_fewer_members_than_it_began_with_is_no_success() -> None:
    """A member that was replaced is removed by somebody else afterwards: its name is told."""
    run = Run({}, Fault(FaultKind.VANISHES, 400, member=0))
    outcome = run.play()
    assert phases(outcome) == [Phase.NEW] * 3
    said = f"it began with 3 serving members and ends with 2; these serve no longer: {name_of(0)}"
    assert outcome.state.failure == said
    assert run.ledger.events[-1] is Event.FAILED


def test_one_bad_look_at_the_end_is_no_smaller_fleet() -> None:
    """It is looked at again, as everything else is."""
    run = Run({"bake_time": "0s"}, members=1)
    run.play()
    end = run.ended_at
    flaps = Run({"bake_time": "0s"}, members=1)
    flaps.births.append(lambda box: box.ill.append((0.0, 0.0)))
    flaps.memory.at(end - 0.3, lambda: _brief_illness(flaps))
    assert flaps.play().state.failure == ""


def _brief_illness(run: Run) -> None:
    for box in run.estate.members().values():
        age = run.memory.time - box.started
        box.ill.append((age, age + 1.0))


def state(name: str, phase: Phase = Phase.NEW, note: str = "", cause: Cause | None = None) -> dict[str, MemberState]:
    return {name: MemberState(name, name, phase, note=note, cause=cause)}


@pytest.mark.parametrize(
    ("after", "members", "missing"),
    [
        (Census({"a": "a", "b": "b"}, ("a", "b")), {}, ""),
        (Census({"a": "a"}, ("a", "b")), {}, "b"),
        (Census({}, ()), {}, "a, b"),
        (Census({"a": "a"}, ("a",)), state("b", Phase.SKIPPED, cause=Cause.GONE), ""),
        (Census({"a": "a"}, ("a",)), state("b", Phase.SKIPPED, "its limits differ; it is gone", Cause.GONE), ""),
        (Census({"a": "a"}, ("a",)), state("b", Phase.SKIPPED, "it no longer violates"), "b"),
        (Census({"a": "a"}, ("a",)), state("b", Phase.NEW, cause=Cause.GONE), "b"),
        (Census({"a": "a", "c": "c"}, ("a", "c")), {}, ""),
        (Census({"a": "a", "ill": "ill"}, ("a", "ill")), {}, "b"),
    ],
    ids=["all", "ill", "none", "told", "told more", "untold", "replaced", "another came", "one healed"],
)
def test_who_is_missing_is_named_unless_that_was_told_or_another_came(
    after: Census, members: dict[str, MemberState], missing: str
) -> None:
    """A member that was ill before and serves now does not make up for one that went."""
    before = Census({"a": "a", "b": "b"}, ("a", "b", "ill"))
    told = fewer(before, after, members)
    assert told.endswith(f"these serve no longer: {missing}") if missing else told == ""


def test_a_fleet_that_cannot_be_read_at_the_end_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unread is not whole."""
    run = Run({"bake_time": "0s"}, members=1)
    real = SimulatedFleet.remove_old

    def last(one: SimulatedFleet, key: Key) -> None:
        real(one, key)
        one.estate.dark_until = 1e9

    monkeypatch.setattr(SimulatedFleet, "remove_old", last)
    assert "unknown who serves at its end" in run.play().state.failure
