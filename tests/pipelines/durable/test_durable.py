"""What the engine promises holds on both databases, in a process that lives and in one that dies anywhere."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.errors import (
    ContentError,
    GoldsmithError,
    LateError,
    OutsideError,
    RefusedError,
    UsageError,
)
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT
from images.machine.trees import private_mounts
from pipelines.durable.dbos import Worker, engine_url, queue, system_database, wake, worker
from pipelines.durable.port import BugError, Flow, Json, WorkflowEngine
from tests.conftest import POSTGRES
from tests.simulation.memory import EPOCH, Memory
from tests.support.durable import MEMBERS, RESULT, STEPS, Look, State, World, carry_flow, fill, flows, look
from tests.support.forked import call_forked, ended, one_after_the_other, start_forked
from tests.support.loop import until
from tests.support.postgres import Server

Carry = Callable[[dict[str, Flow], str, str, Json], Json]


@pytest.fixture
def url(database: str) -> str:
    """Where the engine keeps its flows."""
    return engine_url(database)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Where effects are seen."""
    return World(tmp_path / "world")


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.needs(POSTGRES))])
def carry(request: pytest.FixtureRequest, tmp_path: Path) -> Carry:
    """Run a flow to its end on an engine: its result."""
    if request.param == "memory":
        return in_memory
    if request.param == "sqlite":
        return lambda *flow: on_dbos(engine_url(f"sqlite:///{tmp_path}/ledger.sqlite"), *flow)
    server: Server = request.getfixturevalue("running_postgres")
    return lambda *flow: on_dbos(engine_url(server.new_database()), *flow)


def in_memory(known: dict[str, Flow], flow: str, flow_id: str, argument: Json) -> Json:
    memory = Memory()
    row = memory.process("only", known).start(flow, flow_id, argument)
    memory.run(until=1e9)
    if row.error:
        raise row.error
    return row.result


def on_dbos(url: str, known: dict[str, Flow], flow: str, flow_id: str, argument: Json) -> Json:
    with Worker.launched(url, known) as worker:
        return worker.execute(flow, flow_id, argument)


def started(url: str, world: World, flow: str, flow_id: str) -> BaseProcess:
    """A process of its own that carries a flow."""
    return start_forked(carry_flow, url, str(world.folder), flow, flow_id, stderr=world.folder / "stderr")


def test_a_flow_is_the_same_on_every_engine(carry: Carry, world: World) -> None:
    """The same effects in the same order, the same result, in memory and on both databases."""
    assert carry(flows(world), "rollout", "r1", MEMBERS) == RESULT
    assert world.lines("effects") == list(STEPS)


@pytest.mark.slow
def test_a_process_may_die_at_every_step(url: str, world: World) -> None:
    """kill -9 before each effect and between each effect and its record: every effect is made once, the end is as ever.

    Fourteen processes die in a row, each where the one before it had not come yet.
    """
    deaths = [f"{step} {when}" for step in STEPS for when in ("before", "inside")]
    (world.folder / "deaths").write_text("\n".join(deaths))
    assert one_after_the_other(carry_flow, url, str(world.folder), "rollout", "r1") == [-9] * len(deaths) + [0]
    assert look(url, "r1") == Look(State.DONE, RESULT)
    assert world.lines("effects") == list(STEPS)
    assert world.lines("begun") == [step for step in STEPS for _ in range(2)]


@pytest.mark.needs(POSTGRES)
def test_what_a_dead_process_left_goes_on_in_another(running_postgres: Server, world: World) -> None:
    """Two processes, one PostgreSQL: the one that lives finds the other dead and carries its rollout to the end."""
    url = engine_url(running_postgres.new_database())
    other = started(url, world, "asleep", "other")
    until(lambda: bool(world.lines("asleep")), "the other process")
    (world.folder / "deaths").write_text("swap a inside")
    assert ended(started(url, world, "rollout", "r1")) == -9
    until(lambda: look(url, "r1") == Look(State.DONE, RESULT), "the rollout's end")
    assert wake(url, "other") == 1
    assert ended(other) == 0
    assert world.lines("effects") == list(STEPS)


@pytest.mark.needs(POSTGRES)
def test_a_process_that_ends_finishes_what_it_took_over(running_postgres: Server, world: World) -> None:
    """Its own flow is done; the one that it took from a dead process still keeps it until that has ended too."""
    url = engine_url(running_postgres.new_database())
    (world.folder / "deaths").write_text("step 0 inside")
    assert ended(started(url, world, "many", "m1")) == -9
    heir = started(url, world, "asleep", "own")
    until(lambda: "step 1" in world.lines("effects"), "the heir in the second step")
    wake(url, "own")
    until(lambda: look(url, "own") == Look(State.DONE, True), "the end of its own flow")
    (world.folder / "go").touch()
    assert ended(heir) == 0
    assert look(url, "m1") == Look(State.DONE, [f"step {n}" for n in range(4)])


def test_a_worker_that_drains_waits_for_the_record_of_what_it_carried() -> None:
    """A flow that has ended is recorded a moment later: leaving in between would leave it to the next process."""
    looks = iter([True, True, False])
    queue: Any = SimpleNamespace(holds=lambda: next(looks))
    with closing(asyncio.new_event_loop()) as loop:
        Worker(queue, {}, loop, lambda: EPOCH).drain()
    assert next(looks, None) is None


@pytest.mark.needs(POSTGRES)
def test_a_flow_outlives_a_database_that_restarts(running_postgres: Server, world: World) -> None:
    """PostgreSQL goes down in the middle of a step and comes back: no effect is made twice, and nobody steals the flow.

    Beside the process that carries it another one lives, which sees all locks gone at once.
    """
    url = engine_url(running_postgres.new_database())
    other, carrying = started(url, world, "asleep", "other"), started(url, world, "many", "m1")
    until(lambda: bool(world.lines("asleep")), "the other process")
    until(lambda: "step 1" in world.lines("effects"), "the second step")
    running_postgres.stop()
    (world.folder / "go").touch()
    running_postgres.start()
    assert ended(carrying) == 0
    assert look(url, "m1") == Look(State.DONE, [f"step {n}" for n in range(4)])
    wake(url, "other")
    assert ended(other) == 0
    assert world.lines("begun") == [f"step {n}" for n in range(4)]


@pytest.mark.needs(POSTGRES)
def test_a_process_that_may_do_nothing_more_leaves_the_flow_to_its_owner(
    running_postgres: Server, world: World
) -> None:
    """Its step records nothing, and it ends at once and says why, while another process carries the flow on."""
    url = engine_url(running_postgres.new_database())
    first = started(url, world, "many", "m1")
    until(lambda: "step 1" in world.lines("effects"), "the second step")
    (world.folder / "fenced").write_text(str(first.pid))
    (world.folder / "go").touch()
    assert ended(first) == 1, "it ends before anybody else has ended the flow"
    assert "m1 no longer belongs to this process" in (world.folder / "stderr").read_text()
    assert ended(started(url, world, "many", "m1")) == 0
    assert look(url, "m1") == Look(State.DONE, [f"step {n}" for n in range(4)])
    assert world.lines("effects") == [f"step {n}" for n in range(4)]


def test_a_flow_that_is_only_asked_for_stays_where_it_is(
    url: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes by leaves what a dead process had; who asks for it goes on, and its deaths count all the same."""
    (world.folder / "deaths").write_text("step 0 inside")
    assert ended(started(url, world, "many", "m1")) == -9
    with Worker.launched(url, flows(world), only_asked=("many",)):
        pass
    assert look(url, "m1") == Look(State.OPEN)
    assert world.lines("begun") == ["step 0"]
    (world.folder / "go").touch()
    with Worker.launched(url, flows(world), only_asked=("many",)) as heir:
        assert heir.execute("many", "m1", 4) == [f"step {n}" for n in range(4)]
    (world.folder / "deaths").write_text("step 3 inside")
    assert ended(started(url, world, "many", "m2")) == -9
    monkeypatch.setattr(queue, "ATTEMPTS", 0)
    with (
        Worker.launched(url, flows(world), only_asked=("many",)) as heir,
        pytest.raises(OutsideError, match="was given up"),
    ):
        heir.execute("many", "m2", 4)


@pytest.mark.needs(POSTGRES)
def test_a_flow_that_is_only_asked_for_is_not_taken_from_the_living(
    running_postgres: Server, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it came that two processes think that it is theirs."""
    monkeypatch.setattr(queue, "DEAD_SECONDS", 0)
    url = engine_url(running_postgres.new_database())
    carrying = started(url, world, "many", "m1")
    until(lambda: "step 1" in world.lines("effects"), "the second step")
    with (
        Worker.launched(url, flows(world), only_asked=("many",)) as another,
        pytest.raises(RefusedError, match="which is alive"),
    ):
        another.execute("many", "m1", 4)
    (world.folder / "go").touch()
    assert ended(carrying) == 0
    assert world.lines("begun") == [f"step {n}" for n in range(4)]


def carry_impatiently(*flow: str) -> None:
    """Carry a flow that is given up after two attempts; for a process of its own."""
    queue.ATTEMPTS = 2
    carry_flow(*flow)


@pytest.mark.slow
def test_a_flow_that_kills_every_process_is_given_up(tmp_path: Path, world: World) -> None:
    """It does not take down one process after the other for ever; whoever asks for it is told."""
    url = engine_url(f"sqlite:///{tmp_path}/ledger.sqlite")
    codes = []
    for _ in range(5):
        (world.folder / "deaths").write_text("swap a before")
        codes.append(call_forked(carry_impatiently, url, str(world.folder), "rollout", "r1"))
    assert codes == [-9, -9, -9, 1, 1]
    seen = look(url, "r1/a")
    assert seen
    assert seen.state is State.FAILED
    assert "r1/a was given up" in str(seen.answer)


FAILURES = [
    UsageError("u"),
    ContentError("wrong", file="a.toml", key="b", hint="h"),
    RefusedError("no", hint="wait", evidence="line 1\nline 2"),
    LateError("late", evidence="e"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_what_a_step_raises_is_what_the_flow_and_its_caller_get(carry: Carry, failure: GoldsmithError) -> None:
    """Class, message, evidence and hint, on every engine, the first time and from the record."""

    def fail() -> None:
        raise failure

    async def failing(engine: WorkflowEngine, _argument: Json) -> Json:
        return await engine.step("fail", fail)

    async def parent(engine: WorkflowEngine, _argument: Json) -> Json:
        with pytest.raises(type(failure)) as inside:
            await (await engine.child("one", "failing", None)).result()
        assert str(inside.value) == str(failure)
        return await (await engine.child("two", "failing", None)).result()

    with pytest.raises(type(failure)) as caught:
        carry({"failing": failing, "parent": parent}, "parent", "p", None)
    assert str(caught.value) == str(failure)


def simple(act: Callable[[], Any]) -> dict[str, Flow]:
    """One flow of one step."""

    async def flow(engine: WorkflowEngine, _argument: Json) -> Json:
        return await engine.step("act", act)

    return {"flow": flow}


def test_a_flow_that_has_ended_is_not_run_again(url: str, world: World) -> None:
    """Its answer stands, in the same process and in the next; so does its failure."""
    known = {**simple(lambda: world.act("once")), "bad": flows(world)["member"]}
    for _ in range(2):
        with Worker.launched(url, known) as worker:
            assert worker.execute("flow", "f1", None) == "once"
            with pytest.raises(RefusedError, match="bad is ill"):
                worker.execute("bad", "f2", "bad")
    assert world.lines("begun") == ["once", "create bad", "check bad"]


def test_an_answer_that_is_no_json_is_a_bug_and_ends_the_flow(url: str) -> None:
    """What cannot be recorded could not be answered again."""
    with Worker.launched(url, simple(lambda: {1})) as worker, pytest.raises(BugError, match="set is not JSON"):
        worker.execute("flow", "f1", None)


def test_a_flow_sees_at_once_what_it_would_see_from_the_record(carry: Carry) -> None:
    """What JSON changes is changed the first time too: else a flow would decide otherwise after a crash."""

    async def flow(engine: WorkflowEngine, _argument: Json) -> Json:
        return [repr(await engine.step("act", lambda: (1, {2: None})))]

    assert carry({"flow": flow}, "flow", "f1", None) == ["[1, {'2': None}]"]


def test_a_bug_ends_the_flow_loudly_and_is_no_failure_of_the_world(url: str) -> None:
    """What is no GoldsmithError goes past what handles those; from outside it is seen by its name."""
    with Worker.launched(url, simple(lambda: 1 // 0)) as worker:
        with pytest.raises(BugError, match="ZeroDivisionError"):
            worker.execute("flow", "f1", None)
        seen = look(url, "f1")
    assert seen
    assert seen.state is State.FAILED
    assert isinstance(seen.answer, BugError)


def test_one_id_is_one_flow(url: str, world: World) -> None:
    """Carrying another flow under an id that is taken is refused."""
    with Worker.launched(url, {**flows(world), **simple(lambda: 1)}) as worker:
        worker.execute("flow", "f1", None)
        with pytest.raises(UsageError, match="f1 is the id of another flow"):
            worker.execute("many", "f1", 0)


def test_a_flow_is_woken_and_seen_from_another_process(url: str, world: World) -> None:
    """`wake` ends its wait at once and those of what it started, and no other's; before and after it is seen."""
    process = started(url, world, "asleep", "f1")
    until(lambda: bool(world.lines("asleep")), "the flow's wait")
    assert look(url, "f1") == Look(State.OPEN)
    assert look(url, "f") is None
    assert wake(url, "f") == 0
    assert wake(url, "f1") == 1
    assert ended(process) == 0
    assert world.lines("stderr") == []
    assert look(url, "f1") == Look(State.DONE, True)
    assert wake(url, "f1") == 0


def test_a_process_that_is_interrupted_ends_its_step_and_leaves_the_flow_to_the_next(url: str, world: World) -> None:
    """What acts is recorded before the process goes; the next one goes on after it, and repeats nothing."""
    first = started(url, world, "many", "m1")
    until(lambda: "step 1" in world.lines("effects"), "the second step")
    os.kill(first.pid or 0, signal.SIGINT)
    (world.folder / "go").touch()
    assert ended(first) != 0
    assert ended(started(url, world, "many", "m1")) == 0
    assert world.lines("begun") == [f"step {n}" for n in range(4)]


def test_who_is_interrupted_waits_for_a_step_although_another_one_was_cut_off(
    url: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a night ends commands, and such a step may do nothing more; a rollout's step beside it still acts."""
    monkeypatch.setattr(worker, "LOST_SECONDS", 0)
    with suppress(KeyboardInterrupt), Worker.launched(url, flows(world)) as first:
        first.begin("many", "m1", 4)
        until(lambda: "step 1" in world.lines("effects"), "the second step")
        first.lose()
        wait = first._changed.wait

        def waits(timeout: float) -> bool:
            (world.folder / "go").touch()
            return wait(timeout)

        monkeypatch.setattr(first._changed, "wait", waits)
        raise KeyboardInterrupt
    (world.folder / "go").touch()
    with Worker.launched(url, flows(world)) as second:
        second.execute("many", "m1", 4)
    assert world.lines("begun") == [f"step {n}" for n in range(4)]


def test_one_process_at_a_time_has_a_file(tmp_path: Path) -> None:
    """SQLite: a second process would take the first one's flows for a dead one's; it is refused."""
    url = engine_url(f"sqlite:///{tmp_path}/ledger.sqlite")
    with Worker.launched(url, {}), pytest.raises(RefusedError, match="already running"), Worker.launched(url, {}):
        pass


def test_flows_of_another_version_are_left_alone(monkeypatch: pytest.MonkeyPatch, url: str, world: World) -> None:
    """What was begun with other steps is for the version that began it, which goes on with it."""
    (world.folder / "deaths").write_text("promote before")
    assert ended(started(url, world, "rollout", "r1")) == -9
    monkeypatch.setattr(worker, "VERSION", "2")
    with Worker.launched(url, flows(world)) as another:
        assert another.execute("member", "other", "a") == "a is new"
        assert look(url, "r1") == Look(State.OPEN)
        with pytest.raises(RefusedError, match="another version of Goldsmith began r1"):
            another.execute("rollout", "r1", MEMBERS)
    assert ended(started(url, world, "rollout", "r1")) == 0


def test_flows_are_not_given_up_for_deaths_of_another_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, world: World
) -> None:
    """However often a process of another version comes and goes, it takes nothing of theirs and counts no death."""
    url = engine_url(f"sqlite:///{tmp_path}/ledger.sqlite")
    monkeypatch.setattr(queue, "ATTEMPTS", 1)
    (world.folder / "deaths").write_text("promote before")
    assert ended(started(url, world, "rollout", "r1")) == -9
    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(worker, "VERSION", "2")
            with Worker.launched(url, flows(world)):
                pass
    with Worker.launched(url, flows(world)) as ours:
        assert ours.execute("rollout", "r1", MEMBERS) == RESULT


def test_nobody_is_called_home(tmp_path: Path, world: World) -> None:
    """On SQLite a process that carries flows opens no connection at all."""
    guard = "sys.addaudithook(lambda name, _: name in ('socket.connect', 'socket.getaddrinfo') and os._exit(9))"
    script = f"import os, sys; {guard}; import tests.support.durable as toy; toy.carry_flow(*sys.argv[1:])"
    url = engine_url(f"sqlite:///{tmp_path}/ledger.sqlite")
    argv = [sys.executable, "-c", script, url, str(world.folder), "rollout", "r1"]
    done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("database", ["sqlite://", "sqlite:///:memory:"])
def test_flows_are_not_kept_in_memory(database: str) -> None:
    """What would not outlive its process is refused before anything is begun."""
    with pytest.raises(UsageError, match="outlive"):
        engine_url(database)


def test_a_database_that_is_not_there_is_the_world_s_failure() -> None:
    """One clear error without the password, at once."""
    url = engine_url("postgresql+psycopg://ann:secret@127.0.0.1:1/none")
    with pytest.raises(OutsideError, match=r"127\.0\.0\.1:1") as caught:
        wake(url, "r1")
    assert "secret" not in str(caught.value)


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes, which nobody else sees."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with private_mounts():
        run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)])
        yield folder


def filling(folder: Path, world: World, but: int = 0) -> dict[str, Flow]:
    """A flow whose first step fills the disk that its record is to lie on, but so many bytes."""

    def first() -> str:
        if not world.lines("begun"):
            fill(folder, but)
        return world.act("first") + "." * 100_000

    async def flow(engine: WorkflowEngine, _argument: Json) -> Json:
        await engine.step("first", first)
        return await engine.step("second", lambda: world.act("second"))

    return {"flow": flow}


@pytest.mark.needs("root")
def test_what_is_to_be_recorded_waits_for_room(small_disk: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that fills the disk and fails gives the room back: nothing else fails for it, and no step acts again."""
    monkeypatch.setattr(system_database, "say", lambda _said: (small_disk / "filler").unlink())
    with Worker.launched(engine_url(f"sqlite:///{small_disk}/ledger.sqlite"), filling(small_disk, world)) as worker:
        assert worker.execute("flow", "f1", None) == "second"
    assert world.lines("begun") == ["first", "second"]


@pytest.mark.needs("root")
@pytest.mark.parametrize("but", [0, 65_536], ids=["full", "with room for the end of a flow"])
def test_a_disk_that_stays_full_is_told_and_the_next_process_goes_on(
    small_disk: Path, world: World, monkeypatch: pytest.MonkeyPatch, but: int
) -> None:
    """One error, after a while; the flow is where it was, also where its end could have been recorded."""
    monkeypatch.setattr(system_database, "PATIENCE", timedelta())
    url, known = engine_url(f"sqlite:///{small_disk}/ledger.sqlite"), filling(small_disk, world, but)
    with (
        pytest.raises(OutsideError, match=r"the disk that holds .* is full"),
        Worker.launched(url, known) as worker,
    ):
        worker.execute("flow", "f1", None)
    (small_disk / "filler").unlink()
    assert look(url, "f1") == Look(State.OPEN)
    with Worker.launched(url, known) as worker:
        assert worker.execute("flow", "f1", None) == "second"
    assert world.lines("effects") == ["first", "second"]
