"""The engine in memory keeps the word of the port: recorded answers, durable waits, children, and death anywhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError, RefusedError
from pipelines.durable.port import FencedError, Json, WorkflowEngine
from tests.simulation.execution import Fate
from tests.simulation.memory import EPOCH, Memory, Process

HOUR = timedelta(hours=1)


class Shop:
    """Flows that write down what they do, and the memory they run in."""

    def __init__(self, fate: Callable[[str, str], Fate] = lambda _flow, _name: Fate()) -> None:
        self.done: list[str] = []
        self.fenced = False
        self.memory = Memory(fate)
        self.first = self.process("first")

    def process(self, name: str) -> Process:
        return self.memory.process(name, {"two": self.two, "nap": self.nap, "parent": self.parent, "odd": self.odd})

    def act(self, what: str) -> str:
        if self.fenced:
            raise FencedError
        self.done.append(what)
        return what

    async def two(self, engine: WorkflowEngine, argument: Json) -> Json:
        first = await engine.step("one", lambda: self.act(f"one {argument}"))
        second = await engine.step("two", lambda: self.act(f"two {argument}"))
        return [first, second]

    async def nap(self, engine: WorkflowEngine, argument: Json) -> Json:
        woken = await engine.wait(HOUR)
        return [woken, (await engine.now()).isoformat()]

    async def parent(self, engine: WorkflowEngine, argument: Json) -> Json:
        children = [await engine.child(name, "two", name) for name in argument]
        return [await child.result() for child in children]

    async def odd(self, engine: WorkflowEngine, argument: Json) -> Json:
        return await engine.step(f"odd {len(self.done)}", lambda: self.act("odd"))


def once(name: str, dies: str) -> Callable[[str, str], Fate]:
    """The process dies the first time that a step with this name comes."""
    left = [name]

    def fate(_flow: str, step: str) -> Fate:
        if left == [step]:
            left.clear()
            return Fate(dies=dies)
        return Fate(1)

    return fate


def test_a_flow_runs_to_its_end_and_its_steps_take_their_time() -> None:
    """Two steps of a second each."""
    shop = Shop(lambda _flow, _name: Fate(1))
    row = shop.first.start("two", "a", "x")
    shop.memory.run(100)
    assert (row.result, shop.memory.time) == (["one x", "two x"], 2)


@pytest.mark.parametrize(("dies", "done"), [("before", ["one x", "two x"]), ("after", ["one x", "two x", "two x"])])
def test_a_dead_process_loses_what_it_had_not_recorded_and_nothing_else(dies: str, done: list[str]) -> None:
    """Killed before the effect, it is done once; killed between effect and record, it is repeated."""
    shop = Shop(once("two", dies))
    row = shop.first.start("two", "a", "x")
    shop.memory.run(100)
    assert not shop.first.alive
    shop.process("second").recover()
    shop.memory.run(200)
    assert (row.result, shop.done) == (["one x", "two x"], done)


def test_a_wait_ends_at_its_moment_also_when_nobody_was_there() -> None:
    """A crash does not start it over."""
    shop = Shop()
    row = shop.first.start("nap", "a", None)
    shop.memory.run(1800)
    shop.memory.kill(shop.first)
    shop.memory.at(1000, shop.process("second").recover)
    shop.memory.run(10_000)
    assert row.result == [False, (EPOCH + HOUR).isoformat()]


def test_a_message_ends_a_wait_at_once_even_if_it_came_before() -> None:
    """Nobody misses a command."""
    shop = Shop()
    row = shop.first.start("nap", "a", None)
    early = shop.first.start("nap", "b", None)
    shop.memory.wake("b")
    shop.memory.at(60, lambda: shop.memory.wake("a"))
    shop.memory.run(61)
    assert row.result == [True, (EPOCH + timedelta(minutes=1)).isoformat()]
    assert early.result == [True, EPOCH.isoformat()]


def test_children_run_side_by_side_and_survive_their_process() -> None:
    """Each has an id under its parent's; the parent finds their results again."""
    shop = Shop(once("two", "after"))
    row = shop.first.start("parent", "p", ["a", "b"])
    shop.memory.run(100)
    shop.process("second").recover()
    shop.memory.run(200)
    assert row.result == [["one a", "two a"], ["one b", "two b"]]
    assert set(shop.memory.rows) == {"p", "p/a", "p/b"}


def test_an_error_of_a_step_is_an_answer_and_comes_again() -> None:
    """The flow meets the same error after a crash, without acting again."""
    shop = Shop()
    calls: list[int] = []

    def fail() -> Any:
        calls.append(1)
        raise OutsideError("no")

    async def flow(engine: WorkflowEngine, argument: Json) -> Json:
        try:
            await engine.step("fails", fail)
        except OutsideError as error:
            await engine.wait(HOUR)
            raise RefusedError(error.message) from error

    first = shop.memory.process("first", {"f": flow})
    row = first.start("f", "a", None)
    shop.memory.run(60)
    shop.memory.kill(first)
    shop.memory.process("second", {"f": flow}).recover()
    shop.memory.run(10_000)
    assert isinstance(row.error, RefusedError)
    assert len(calls) == 1


def test_a_process_that_slept_through_its_own_end_acts_once_more_and_records_nothing() -> None:
    """That is why every effect asks first whether it still may."""
    shop = Shop(lambda _flow, name: Fate(1))
    row = shop.first.start("two", "a", "x")
    shop.memory.run(0.5)
    shop.first.stalled_until = 100
    shop.process("second").recover()
    shop.memory.run(50)
    assert (row.result, shop.done) == (["one x", "two x"], ["one x", "one x", "two x"])
    shop.memory.run(200)
    assert len(shop.done) == 3, "here the other one had finished"
    assert len(row.answers) == 2


def test_a_fenced_act_ends_the_execution_and_leaves_the_flow_to_another() -> None:
    """As if the process had died."""
    shop = Shop()
    shop.fenced = True
    row = shop.first.start("two", "a", "x")
    shop.memory.run(10)
    assert (row.ended, row.answers) == (False, [])
    shop.fenced = False
    shop.process("second").recover()
    shop.memory.run(20)
    assert row.ended


def test_a_flow_that_asks_otherwise_when_it_is_run_again_is_found_out() -> None:
    """A flow must not look at what changes."""
    shop = Shop(once("never", ""))
    shop.first.start("odd", "a", None)
    shop.memory.run(0.5)
    shop.memory.kill(shop.first)
    shop.memory.rows["a"].answers.append(("odd 0", "odd", None))
    shop.process("second").recover()
    with pytest.raises(AssertionError, match="not deterministic"):
        shop.memory.run(20)


def test_what_json_cannot_carry_is_no_answer() -> None:
    """The real engine would refuse it, too."""
    shop = Shop()

    async def flow(engine: WorkflowEngine, argument: Json) -> Json:
        return await engine.step("set", lambda: {1, 2})

    shop.memory.process("first", {"f": flow}).start("f", "a", None)
    with pytest.raises(TypeError):
        shop.memory.run(1)
