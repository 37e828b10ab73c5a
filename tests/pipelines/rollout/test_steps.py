"""How a flow acts: what it waits and how long, what it tries again, and who stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError
from pipelines.fleet.port import GoneError, InProgressError
from pipelines.rollout.state import DesiredState, OperatorCommands
from pipelines.rollout.steps import Backoff, StepRunner, StoppedError

SECOND = timedelta(seconds=1)


@dataclass
class Clock:
    """An engine whose waits pass at once; those that `wakes` numbers, from 1, are cut short by a message."""

    wakes: tuple[int, ...] = ()
    waited: list[float] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    async def step(self, name: str, act: Callable[[], Any]) -> Any:
        self.steps.append(name)
        return act()

    async def wait(self, span: timedelta) -> bool:
        self.waited.append(span.total_seconds())
        return len(self.waited) in self.wakes


@dataclass
class Ledger:
    """A journal of which people want one thing after the other, the last for ever."""

    wanted: list[DesiredState] = field(default_factory=lambda: [DesiredState.GO])
    lines: list[str] = field(default_factory=list)

    def fence(self, rollout: str) -> None:
        self.lines.append(f"fence {rollout}")

    def audit(self, rollout: str, action: str, detail: str = "") -> None:
        self.lines.append(f"audit {rollout}: {action}")

    def orders(self, rollout: str) -> OperatorCommands:
        self.lines.append(f"orders {rollout}")
        return OperatorCommands(self.wanted.pop(0) if self.wanted[1:] else self.wanted[0])


def runner(*wanted: DesiredState, back: bool = False, clock: Clock | None = None) -> StepRunner:
    made: Any = StepRunner(clock or Clock(), Ledger(list(wanted) or [DesiredState.GO]), "r1", back)  # type: ignore[arg-type]
    return made  # type: ignore[no-any-return]


def answers(*given: Any) -> Callable[[], Any]:
    """An effect that answers with these, or raises them, one after the other."""
    left = list(given)

    def act() -> Any:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return act


def waited(run: StepRunner) -> list[float]:
    """What the runner's engine has waited, in seconds."""
    return run.engine.waited  # type: ignore[attr-defined, no-any-return]


def lines(run: StepRunner) -> list[str]:
    """What the runner's journal was asked."""
    return run.journal.lines  # type: ignore[attr-defined, no-any-return]


# -- waits ------------------------------------------------------------------------------------------------------------


def slept(backoff: Backoff, times: int, *, counts: bool = True) -> list[float]:
    async def all_of_them() -> list[float]:
        return [(await backoff.next(counts=counts)).total_seconds() for _ in range(times)]

    return asyncio.run(all_of_them())


def test_a_wait_grows_with_what_has_passed_from_its_least_to_half_a_minute() -> None:
    """Whoever waits for long need not look so often."""
    clock = Clock()
    backoff = Backoff(clock, 2 * SECOND)  # type: ignore[arg-type]
    assert slept(backoff, 21)[:21] == [2.0] * 21
    assert backoff.slept == 42 * SECOND
    assert slept(backoff, 1) == [2.1]
    assert max(slept(backoff, 200)) == 30
    assert slept(Backoff(Clock(), timedelta()), 1) == [0.2]  # type: ignore[arg-type]
    assert slept(Backoff(Clock(), 90 * SECOND), 1) == [30]  # type: ignore[arg-type]


def test_a_wait_that_was_cut_short_or_does_not_count_is_not_slept() -> None:
    """Nobody knows how much of it passed; what does not count still lets the next one grow."""
    cut = Backoff(Clock(wakes=(1, 3)), 2 * SECOND)  # type: ignore[arg-type]
    assert slept(cut, 3) == [0, 2, 0]
    assert cut.slept == 2 * SECOND
    paused = Backoff(Clock(), 2 * SECOND)  # type: ignore[arg-type]
    assert slept(paused, 30, counts=False)[-1] > 2
    assert paused.slept == timedelta()


# -- failures ---------------------------------------------------------------------------------------------------------


def test_what_fails_is_tried_six_times_with_waits_that_double() -> None:
    """And then its last failure is the answer."""
    run = runner()
    with pytest.raises(OutsideError, match="sixth"):
        asyncio.run(run.look("read", answers(*[OutsideError("no")] * 5, OutsideError("sixth"), 7)))
    assert waited(run) == [1, 2, 4, 8, 16]
    again = runner()
    assert asyncio.run(again.look("read", answers(OutsideError("no"), 7))) == 7
    assert (waited(again), again.engine.steps) == ([1], ["read", "read"])  # type: ignore[attr-defined]
    once = runner()
    with pytest.raises(OutsideError, match="no"):
        asyncio.run(once.look("read", answers(OutsideError("no")), 1))
    assert waited(once) == []


def test_a_patient_step_waits_for_half_a_minute_at_most() -> None:
    """Forty times."""
    run = runner()
    with pytest.raises(OutsideError):
        asyncio.run(run.look("read", answers(*[OutsideError("no")] * 40), 40))
    assert waited(run) == [1, 2, 4, 8, 16, *[30] * 34]


def test_what_is_gone_is_not_tried_again() -> None:
    """It does not come back."""
    run = runner()
    with pytest.raises(GoneError):
        asyncio.run(run.act("remove", answers(GoneError("gone"))))
    assert waited(run) == []


def test_what_is_under_way_is_asked_again_and_counts_as_no_failure() -> None:
    """As long as it makes way; one try is enough for it."""
    run = runner()
    moving = [InProgressError(f"{number} %") for number in range(50)]
    assert asyncio.run(run.look("move", answers(*moving, 7), 1)) == 7
    assert waited(run) == [2] * 50


def test_what_makes_no_way_for_ten_minutes_has_failed() -> None:
    """From when it last made some; the next try starts over."""
    run = runner()
    stuck = [InProgressError("begun"), *[InProgressError("50 %")] * 200]
    with pytest.raises(InProgressError, match="50"):
        asyncio.run(run.look("move", answers(*stuck), 1))
    assert 600 <= sum(waited(run)[1:]) < 630
    twice = runner()
    with pytest.raises(InProgressError):
        asyncio.run(twice.look("move", answers(*[InProgressError("begun")] * 400), 2))
    assert sum(waited(twice)) == pytest.approx(2 * sum(waited(run)[1:]) + 1, abs=3)


def test_an_error_of_ours_is_not_tried_again() -> None:
    """Only the world's failures pass."""
    run = runner()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(run.look("read", answers(ZeroDivisionError())))
    assert waited(run) == []


# -- what is written down ---------------------------------------------------------------------------------------------


def test_an_effect_is_fenced_and_written_down_when_it_was_done() -> None:
    """What held it back is its answer, and it was not done."""
    run = runner()
    assert asyncio.run(run.act("remove web-1", answers(None))) is None
    assert lines(run) == ["fence r1", "audit r1: remove web-1"]
    assert run.engine.steps == ["remove web-1"]  # type: ignore[attr-defined]
    held = runner()
    assert asyncio.run(held.act("remove web-1", answers("too few"))) == "too few"
    assert lines(held) == ["fence r1"]


def test_a_look_changes_nothing_and_a_note_is_fenced() -> None:
    """Neither is an effect that people ask about later."""
    run = runner()
    assert asyncio.run(run.look("read", answers(7))) == 7
    assert asyncio.run(run.see(OperatorCommands, "read", answers(OperatorCommands()))) == OperatorCommands()
    assert lines(run) == []
    assert asyncio.run(run.note("save", answers(7))) == 7
    assert lines(run) == ["fence r1"]
    assert run.engine.steps == ["read", "read", "save"]  # type: ignore[attr-defined]


def test_a_note_and_a_look_have_their_own_patience() -> None:
    """A ledger may be away for a quarter of an hour."""
    run = runner()
    assert asyncio.run(run.note("save", answers(*[OutsideError("no")] * 39, 7))) == 7
    with pytest.raises(OutsideError):
        asyncio.run(runner().see(OperatorCommands, "read", answers(*[OutsideError("no")] * 6)))
    with pytest.raises(OutsideError):
        asyncio.run(runner().see(OperatorCommands, "read", answers(*[OutsideError("no")] * 2), 2))
    with pytest.raises(OutsideError):
        asyncio.run(runner().act("do", answers(*[OutsideError("no")] * 2), 2))
    with pytest.raises(OutsideError):
        asyncio.run(runner().act("do", answers(*[OutsideError("no")] * 6)))


# -- what people want -------------------------------------------------------------------------------------------------

GO, PAUSE, ABORT, ROLLBACK = DesiredState


@pytest.mark.parametrize(
    ("wanted", "back", "stops"),
    [
        (GO, False, False), (PAUSE, False, False), (ABORT, False, True), (ROLLBACK, False, True),
        (GO, True, False), (PAUSE, True, False), (ABORT, True, True), (ROLLBACK, True, False),
    ],
)  # fmt: skip
def test_who_goes_back_is_stopped_by_an_abort_alone(wanted: DesiredState, back: bool, stops: bool) -> None:
    """It is on its way to where a rollback leads."""
    run = runner(wanted, back=back)
    assert run.stops(wanted) is stops
    assert run.desired_state() is wanted
    if not stops:
        assert asyncio.run(run.act_until_stopped("start", answers(None))) is None
        assert lines(run)[-1] == "audit r1: start"
        assert run.engine.steps == ["start"]  # type: ignore[attr-defined]
        return
    for act in (run.act_until_stopped, run.act_when_free, run.look_when_free):
        with pytest.raises(StoppedError, match=f"stopped by {wanted}") as stopped:
            asyncio.run(act("start", answers()))
        assert stopped.value.desired_state is wanted
    assert {line.split()[0] for line in lines(run)} == {"orders"}


def test_what_a_pause_holds_back_is_asked_again_each_turn_and_then_done() -> None:
    """An effect is written down, a look is fenced alone."""
    run = runner(PAUSE, PAUSE, GO)
    assert asyncio.run(run.act_when_free("start", answers(None))) is None
    assert waited(run) == [2, 2]
    assert lines(run) == ["orders r1"] * 3 + ["fence r1", "audit r1: start"]
    assert run.engine.steps == ["start"] * 3  # type: ignore[attr-defined]
    look = runner(PAUSE, GO)
    assert asyncio.run(look.look_when_free("read", answers(7))) == 7
    assert lines(look) == ["orders r1"] * 2 + ["fence r1"]
    assert look.engine.steps == ["read"] * 2  # type: ignore[attr-defined]
    assert asyncio.run(runner().act_when_free("start", answers("held"))) == "held"
    assert asyncio.run(runner(PAUSE).act_until_stopped("start", answers("held"))) == "held"


def test_a_pause_sleeps_a_turn_that_counts_for_nothing() -> None:
    """Whoever goes on sleeps nothing; whoever is stopped does not go on."""

    async def obeyed(run: StepRunner, wanted: DesiredState) -> tuple[bool, timedelta]:
        backoff = Backoff(run.engine, SECOND)
        return await run.obey(wanted, backoff), backoff.slept

    run = runner()
    assert asyncio.run(obeyed(run, PAUSE)) == (True, timedelta())
    assert waited(run) == [1]
    assert asyncio.run(obeyed(run, GO)) == (False, timedelta())
    assert waited(run) == [1]
    with pytest.raises(StoppedError):
        asyncio.run(obeyed(run, ABORT))
