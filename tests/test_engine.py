"""The engine: what it does to a fleet, in which order, and what is left when it fails or is killed anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from fleets import NOW, Killed, MemoryFleet, Time, fleet, judged, keeps_its_word, target
from hypothesis import given, settings
from hypothesis import strategies as st

from hardening.foundation.errors import OutsideError, RefusedError
from images.documents import from_json, to_json
from pipelines.engine import UnhealthyError, World, await_health, recover, run
from pipelines.fleet.members import Key, Member, Read, Target
from pipelines.fleet.model import Fleet, Method
from pipelines.fleet.progress import Phase, RolloutState
from pipelines.rollouts.plan import Plan, plan

NAMES = ["web-1", "web-2", "web-3"]
SURGE = fleet()
IN_PLACE = fleet(method="in_place", max_unavailable=1)


class Stage:
    """A rollout of three expired members, ready to run: the plan, the world, and what was saved."""

    def __init__(self, of: Fleet = SURGE, names: list[str] = NAMES) -> None:
        self.port = MemoryFleet(names)
        self.time = Time()
        self.saved: list[RolloutState] = []
        self.said: list[str] = []
        self.reasons: dict[str, str] = {}
        self.fleet = of
        self.revoked = False
        self.world = World(self.port, self.time, self.save, self.still, self.said.append, of.limits, self.refuse)

    @property
    def plan(self) -> Plan:
        return plan(self.fleet, [judged(name, "expired") for name in sorted(self.names)], target(), NOW)

    @property
    def names(self) -> set[str]:
        return {m.name for m in self.port.describe()}

    def save(self, state: RolloutState) -> None:
        if self.port.dead:
            raise Killed
        assert from_json(RolloutState, to_json(state)) == state, "a state must survive the ledger"
        self.saved.append(state)

    def still(self, member: Member) -> str:
        return self.reasons.get(member.name, "")

    def refuse(self, asked: Target) -> None:
        assert asked == target(), "the pinned replacement is what is asked about"
        if self.revoked:
            raise RefusedError("the replacement is revoked")

    def images(self) -> dict[str, str]:
        return {box.name: box.image for box in self.port.boxes.values()}


@pytest.mark.parametrize("of", [SURGE, IN_PLACE], ids=["surge", "in place"])
def test_a_rollout_leaves_each_member_under_its_name_on_the_replacement(of: Fleet) -> None:
    """Nothing else is left: no old one, no half-made one."""
    stage = Stage(of)
    state = run(stage.plan, "r1", stage.world)
    assert stage.images() == dict.fromkeys(NAMES, target().digest)
    assert {step.phase for step in state.steps} == {Phase.DONE}
    assert state.ended_at is not None


def test_a_surge_never_has_fewer_members_serving_than_before() -> None:
    """The new one is healthy and found by the names before the old one stops."""
    stage = Stage()
    run(stage.plan, "r1", stage.world)
    assert stage.port.least_serving == 3


def test_in_place_takes_away_one_member_at_a_time() -> None:
    """max_unavailable 1 means one."""
    stage = Stage(IN_PLACE)
    run(stage.plan, "r1", stage.world)
    assert stage.port.least_serving == 2


def test_the_new_one_is_found_only_after_it_was_healthy_and_the_old_one_stops_after_that() -> None:
    """The order of effects is the whole point."""
    stage = Stage(names=["web-1"])
    run(stage.plan, "r1", stage.world)
    assert [effect.removesuffix(" web-1") for effect in stage.port.effects] == [
        "prepare",
        "create",
        "start",
        "expose",
        "retire",
        "step aside",
        "take over",
        "remove old",
    ]


def test_the_old_one_is_kept_until_the_bake_has_passed() -> None:
    """A canary that falls ill while it bakes is put back to exactly what was there."""
    stage = Stage()
    stage.time.after.append((NOW + timedelta(minutes=3), lambda: stage.port.ill.add(target().digest)))
    with pytest.raises(UnhealthyError, match="fell ill while it baked"):
        run(stage.plan, "r1", stage.world)
    assert stage.images() == dict.fromkeys(NAMES, "old")
    assert "create web-2" not in stage.port.effects
    assert all(box.handle.startswith("id-") and box.running for box in stage.port.boxes.values())


def test_a_replacement_that_is_revoked_while_it_bakes_is_put_back_and_goes_no_further() -> None:
    """The canary is restored, and no other member is touched."""
    stage = Stage()
    stage.time.after.append((NOW + timedelta(minutes=3), lambda: setattr(stage, "revoked", True)))
    with pytest.raises(RefusedError, match="revoked"):
        run(stage.plan, "r1", stage.world)
    assert stage.images() == dict.fromkeys(NAMES, "old")
    assert "create web-2" not in stage.port.effects
    assert stage.time.now() < NOW + timedelta(minutes=5), "not only at the end of the bake"


def test_a_replacement_that_is_revoked_between_two_members_reaches_no_other() -> None:
    """Whoever was replaced before stays: the next check finds it, and a good release replaces it."""
    stage = Stage()
    remove = stage.port.remove_old

    def last(key: Key) -> None:
        remove(key)
        stage.revoked = True

    stage.port.remove_old = last  # type: ignore[method-assign]
    with pytest.raises(RefusedError, match="revoked"):
        run(stage.plan, "r1", stage.world)
    assert stage.images() == {"web-1": target().digest, "web-2": "old", "web-3": "old"}


@pytest.mark.parametrize("of", [SURGE, IN_PLACE], ids=["surge", "in place"])
def test_a_broken_replacement_stops_the_rollout_and_the_old_one_serves(of: Fleet) -> None:
    """The error is a refusal that carries what was seen and the last words of the new one."""
    stage = Stage(of)
    stage.port.ill.add(target().digest)
    with pytest.raises(RefusedError) as error:
        run(stage.plan, "r1", stage.world)
    assert "does not answer" in error.value.evidence
    assert "log: last words" in error.value.evidence
    assert stage.images() == dict.fromkeys(NAMES, "old")
    assert stage.port.serving() == 3
    last = stage.saved[-1]
    assert [step.phase for step in last.steps] == [Phase.RESTORED, Phase.PLANNED, Phase.PLANNED]
    assert last.ended_at
    assert "not healthy" in last.failure


def test_each_member_is_judged_again_right_before_it_is_touched() -> None:
    """Fixed, waived or protected by now: it is left alone, and the rest goes on."""
    stage = Stage()
    stage.reasons["web-2"] = "it is waived by now"
    state = run(stage.plan, "r1", stage.world)
    assert [(step.phase, step.note) for step in state.steps][1] == (Phase.SKIPPED, "it is waived by now")
    assert stage.images() == {"web-1": target().digest, "web-2": "old", "web-3": target().digest}


def test_a_member_that_is_gone_is_left_alone() -> None:
    """Nobody is brought back to life."""
    stage = Stage()
    planned = stage.plan
    del stage.port.boxes["id-web-3"]
    state = run(planned, "r1", stage.world)
    assert state.steps[2].note == "it is gone"
    assert set(stage.images()) == {"web-1", "web-2"}


def test_a_member_that_was_made_anew_meanwhile_is_pinned_as_it_is_now() -> None:
    """Rollback goes to what stood there right before the first change, not to what the plan saw."""
    stage = Stage(names=["web-1"])
    planned = stage.plan
    box = stage.port.boxes.pop("id-web-1")
    stage.port.boxes["id-other"] = replace(box, handle="id-other", image="other")
    stage.port.ill.add(target().digest)
    with pytest.raises(UnhealthyError):
        run(planned, "r1", stage.world)
    assert stage.images() == {"web-1": "other"}


def test_in_place_stops_when_the_floor_is_reached_by_another_illness() -> None:
    """The floor counts what is already unhealthy for other reasons at that moment."""
    stage = Stage(IN_PLACE)
    planned = stage.plan
    del stage.port.boxes["id-web-3"]
    with pytest.raises(RefusedError, match="floor is 2"):
        run(planned, "r1", stage.world)
    assert stage.images() == {"web-1": "old", "web-2": "old"}


def test_an_engine_that_stops_answering_leaves_the_rollout_open_and_the_next_run_restores() -> None:
    """What could not be put back is not forgotten."""
    stage = Stage()
    stage.time.after.append((NOW + timedelta(seconds=20), lambda: setattr(stage.port, "dark", True)))
    stage.port.ill.add(target().digest)
    with pytest.raises(UnhealthyError) as error:
        run(stage.plan, "r1", stage.world)
    assert "web-1 could not be put back" in str(error.value)
    assert stage.saved[-1].ended_at is None
    stage.port.dark = False
    recover(stage.saved[-1], stage.world)
    assert stage.images() == dict.fromkeys(NAMES, "old")


def test_an_engine_that_does_not_answer_is_an_error_and_no_empty_fleet() -> None:
    """OutsideError, and nothing is touched."""
    stage = Stage()
    planned = stage.plan
    stage.port.dark = True
    with pytest.raises(OutsideError):
        run(planned, "r1", stage.world)
    assert stage.port.effects == []


def test_the_fleet_in_memory_keeps_the_word_that_docker_keeps() -> None:
    """What these tests stand on behaves as the real one."""
    keeps_its_word(MemoryFleet(["web-1"]), target())


def test_a_canary_that_serves_goes_only_after_its_old_one_serves_again() -> None:
    """A ledger or registry that fails at the second canary undoes the first, without a gap."""
    stage = Stage(fleet(canary=2))

    def still(member: Member) -> str:
        if member.name == "web-2":
            raise OutsideError("the registry does not answer")
        return ""

    with pytest.raises(OutsideError):
        run(stage.plan, "r1", replace(stage.world, still=still))
    assert stage.images() == dict.fromkeys(NAMES, "old")
    assert stage.port.least_serving == 3


def killed(run_or_recover: Callable[[], object]) -> bool:
    """Whether the process was killed while it ran."""
    try:
        run_or_recover()
    except Killed:
        return True
    return False


@given(
    method=st.sampled_from([SURGE, IN_PLACE]),
    first=st.tuples(st.integers(0, 24), st.sampled_from(["before", "after"])),
    second=st.tuples(st.integers(0, 6), st.sampled_from(["before", "after"])),
    ill=st.booleans(),
)
@settings(max_examples=300)
def test_killed_anywhere_the_next_run_finishes_or_restores(
    method: Fleet, first: tuple[int, str], second: tuple[int, str], ill: bool
) -> None:
    """Exactly one serving instance under each member's name and no left-overs, also when the recovery is killed too."""
    stage = Stage(method)
    planned = stage.plan
    stage.port.ill |= {target().digest} if ill else set()
    stage.port.die_at = first
    if not killed(lambda: _run(stage, planned)):
        return
    stage.port.reborn(die_at=second)
    if killed(lambda: recover(stage.saved[-1], stage.world)):
        stage.port.reborn()
        recover(stage.saved[-1], stage.world)
    assert stage.saved[-1].ended_at is not None
    assert set(stage.images()) == set(NAMES)
    assert all(box.running and box.found_by for box in stage.port.boxes.values())
    assert stage.port.serving() == 3


def _run(stage: Stage, planned: Plan) -> None:
    with contextlib.suppress(UnhealthyError):
        run(planned, "r1", stage.world)


def test_one_good_read_is_luck() -> None:
    """Health is good in each read over the whole time, three times at least; a bad read starts it again."""
    answers = [True, True, False, True, True, True, True, True, True]
    time = Time()

    def read() -> Read:
        return Read(answers.pop(0), "seen")

    row = await_health(read, time, timedelta(seconds=3), timedelta(minutes=1))
    assert row[-1].good
    assert time.at - NOW >= timedelta(seconds=6)
    assert len(row) >= 3


def test_health_that_comes_too_late_is_none() -> None:
    """The deadline holds also for one that blinks."""
    time = Time()
    blinks = iter(range(10_000))
    row = await_health(lambda: Read(next(blinks) % 2 == 0, "blinks"), time, timedelta(seconds=3), timedelta(seconds=30))
    assert not row[-1].good
    assert time.at - NOW < timedelta(seconds=35)


def test_the_method_of_a_step_is_the_fleets() -> None:
    """The key says how, so that a recovery knows it too."""
    stage = Stage(IN_PLACE)
    run(stage.plan, "r1", stage.world)
    assert {step.key.method for step in stage.saved[0].steps} == {Method.IN_PLACE}
