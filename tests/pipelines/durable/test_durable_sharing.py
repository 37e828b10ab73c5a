"""Work that several processes share: who takes it, what becomes of it when they die, and what is told of it."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from dbos import DBOS
from sqlalchemy import create_engine, delete, text

from hardening.foundation.console import heard_by
from hardening.foundation.errors import OutsideError
from hardening.foundation.locks import one_of
from pipelines.durable.dbos import Worker, abandon, claimed, engine_url, forget, is_carried, queue, sharing
from pipelines.durable.dbos.system_database import SCHEMA, client_of, prepare
from pipelines.durable.port import Json, WorkflowEngine
from pipelines.durable.roster import KEEP_SECONDS, Roster, WorkerRow, WorkRow
from pipelines.durable.transcript import Transcript, log_file
from pipelines.durable.workers import SPACE, session
from tests.conftest import POSTGRES
from tests.support.durable import State, World, look, offered, share_flow, shared_flows, work_for_others
from tests.support.forked import call_forked, ended, start_forked
from tests.support.loop import until
from tests.support.postgres import Server


@pytest.fixture
def url(database: str) -> str:
    """Where the engine keeps its flows."""
    return engine_url(database)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Where effects are seen."""
    return World(tmp_path / "world")


Begin = Callable[..., BaseProcess]
Rosters = Callable[[str], Roster]


@pytest.fixture
def begin(world: World) -> Begin:
    """Start a process: a worker with these capabilities, or the owner of a flow that shares its children."""

    def started(url: str, *capabilities: str, owns: str = "") -> BaseProcess:
        function = share_flow if owns else work_for_others
        given = (owns, *capabilities) if owns else capabilities
        return start_forked(function, url, str(world.folder), *given, stderr=world.folder / "stderr")

    return started


@pytest.fixture
def roster_of() -> Iterator[Rosters]:
    """The roster of an engine's database, closed after the test."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(closing(Roster(url, SCHEMA)))


@contextmanager
def interrupted(launched: AbstractContextManager[Worker]) -> Iterator[Worker]:
    """A worker that Ctrl-C ends at the end of the block: what waits goes on waiting."""
    with suppress(KeyboardInterrupt), launched as worker:
        yield worker
        raise KeyboardInterrupt


def said(world: World) -> str:
    """What all processes have said."""
    return "\n".join(world.lines("stderr"))


def test_who_is_alone_takes_what_it_shares(url: str, world: World) -> None:
    """Without any other worker the owner runs its own shared flows, no more at a time than its machine has places."""
    with Worker.launched(url, shared_flows(world), offer=offered(world.folder, "docker", on_host=1)) as worker:
        jobs = [["a", ["docker"]], ["b", ["docker"]]]
        assert worker.execute("share", "s1", jobs) == ["a", "b"]
    assert world.lines("effects") == ["build a", "build b"]
    assert world.lines("together") == ["1", "1"]


def test_what_waits_more_than_it_works_takes_no_place(url: str, world: World) -> None:
    """Two of three such flows run at a time, beside the one that has the only place."""
    together, running, most, lock = threading.Event(), list[str](), list[int](), threading.Lock()

    def act(name: str) -> None:
        with lock:
            running.append(name)
            most.append(sum(one != "work" for one in running))
            if "work" in running and most[-1] == 2:
                together.set()
        assert together.wait(60), running
        with lock:
            running.remove(name)

    async def parent(engine: WorkflowEngine, _: Json) -> None:
        names = {"w1": "wait", "w2": "wait", "w3": "wait", "work": "work"}
        children = [await engine.child(one, flow, one, needs=["docker"]) for one, flow in names.items()]
        for child in children:
            await child.result()

    async def one(engine: WorkflowEngine, name: Json) -> None:
        await engine.step("acts", lambda: act(name))

    offer = replace(offered(world.folder, "docker", parallel=1, on_host=1), apart={"wait": 2})
    with Worker.launched(url, {"parent": parent, "wait": one, "work": one}, offer=offer) as worker:
        worker.execute("parent", "p1", None)
    assert max(most) == 2


def test_what_is_said_in_a_step_is_kept_by_flow(url: str, world: World, roster_of: Rosters) -> None:
    """In a file of the machine, and its end in the database; so is the failure that ends it."""
    with Worker.launched(url, shared_flows(world), offer=offered(world.folder, "docker")) as worker:
        assert worker.execute("share", "s1", [["a", ["docker"]], ["bad", ["docker"]]]) == ["a", "bad is ill"]
        file = log_file(world.folder / "logs", "s1/bad")
        roster = roster_of(url)
        until(lambda: "over" in roster.work(["s1/bad"])["s1/bad"].log, "the log in the database")
    kept = roster.work(["s1/a", "s1/bad"])
    assert kept["s1/bad"].log == file.read_text()
    assert "RefusedError: bad is ill" in kept["s1/bad"].log
    assert "log: no" in kept["s1/bad"].log
    assert "building a" in kept["s1/a"].log
    assert "building bad" not in kept["s1/a"].log


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """It is told at every look who lacks; a line for each time that somebody was looked for."""
    found: list[str] = []
    living = Roster.living

    def counted(roster: Roster) -> tuple[WorkerRow, ...]:
        found.append("look")
        return living(roster)

    monkeypatch.setattr(sharing, "TELL_SECONDS", 0.0)
    monkeypatch.setattr(Roster, "living", counted)
    return found


def test_a_need_that_nobody_has_is_told_once(
    url: str, world: World, looks: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """On the owner's terminal, with what adds a worker that has it; what others need goes on meanwhile."""
    jobs = [["vm", ["kvm"]], ["a", ["docker"]], ["vm2", ["kvm"]], ["far", ["docker", "region:eu-central-1"]]]
    with interrupted(Worker.launched(url, shared_flows(world), offer=offered(world.folder, "docker"))) as worker:
        worker.begin("share", "s1", jobs)
        until(lambda: world.lines("effects") == ["build a"], "what can be built")
        before = len(looks)
        until(lambda: len(looks) > before + 3, "more looks")
    told = sorted(line for line in capfd.readouterr().err.splitlines() if "none that lives" in line)
    assert len(told) == 2
    assert told[0].startswith(
        "s1/far waits for a worker with docker, region:eu-central-1, and none that lives has that"
    )
    assert "./goldsmith worker" in told[1]


def test_what_nobody_can_take_does_not_wait_for_ever(
    url: str, world: World, looks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while it ends with what was said of it; what others need is done, and so is what a worker has."""
    monkeypatch.setattr(sharing, "LACK_SECONDS", 0.0)
    jobs = [["vm", ["kvm"]], ["a", ["docker"]], ["vm2", ["kvm"]]]
    with Worker.launched(url, shared_flows(world), offer=offered(world.folder, "docker")) as worker:
        vm, built, vm2 = worker.execute("share", "s1", jobs)
    assert vm.startswith("s1/vm waits for a worker with kvm, and none that lives has that")
    assert vm2.startswith("s1/vm2 waits")
    assert built == "a"
    assert looks


def test_what_a_process_can_is_found_when_something_waits(url: str, world: World, roster_of: Rosters) -> None:
    """Nobody starts an engine for nothing; and once it is found it is told."""
    asked: list[str] = []

    def found() -> frozenset[str]:
        asked.append("asked")
        return frozenset({"docker"})

    lazy = replace(offered(world.folder), capabilities=found, when_needed=True)
    with Worker.launched(url, shared_flows(world), offer=lazy) as worker:
        worker.sharing.look()
        assert (asked, roster_of(url).living()) == ([], ())
        assert worker.execute("share", "s1", [["a", ["docker"]]]) == ["a"]
        assert [row.capabilities for row in roster_of(url).living()] == [("docker",)]


def test_work_of_its_own_content_is_taken_by_the_owner(url: str, world: World) -> None:
    """What it planned it can do, even if files have changed since: without workers nothing is lost."""
    with Worker.launched(url, shared_flows(world), offer=offered(world.folder, "docker", "content:new")) as worker:
        assert worker.execute("share", "s1", [["a", ["docker", "content:old"]]]) == ["a"]


@pytest.mark.needs(POSTGRES)
def test_no_worker_with_other_content_takes_a_flow(
    running_postgres: Server, world: World, begin: Begin, roster_of: Rosters
) -> None:
    """It would build, judge and publish what its own checkout says; the owner tells what to do."""
    url = engine_url(running_postgres.new_database())
    prepare(url)
    other, roster = begin(url, "docker", "content:old"), roster_of(url)
    until(roster.living, "the worker")
    owner = begin(url, owns='[["a", ["docker", "content:new"]]]')
    until(lambda: "no worker has this content: bring the checkout" in said(world), "the owner to tell")
    assert not world.lines("begun")
    same = begin(url, "docker", "content:new")
    assert ended(owner) == 0
    for worker in (other, same):
        os.kill(worker.pid or 0, signal.SIGINT)
        ended(worker)
    assert world.lines("effects") == ["build a"]


def test_a_fault_does_not_end_the_thread_that_takes_work(
    url: str, world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is said once, and tried again: a folder that cannot be written as well as a mistake of ours."""
    faults: list[Exception] = [OutsideError("no places"), OutsideError("no places"), ValueError("a mistake")]

    def faulty(folder: Path, most: int) -> Callable[[], None] | None:
        if faults:
            raise faults.pop(0)
        return one_of(folder, most)

    monkeypatch.setattr(sharing, "one_of", faulty)
    with Worker.launched(url, shared_flows(world), offer=offered(world.folder, "docker")) as worker:
        assert worker.execute("share", "s1", [["a", ["docker"]]]) == ["a"]
    told = capfd.readouterr().err
    assert (told.count("no places"), told.count("ValueError: a mistake")) == (1, 1)


def test_a_step_that_is_done_stays_done_when_nobody_can_be_told(
    url: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark of its end, in a database that is away for long, is no failure of the build."""
    mark = Roster.mark

    def lost(roster: Roster, flow: str, step: str, worker: str) -> None:
        if not step:
            raise OutsideError("the database is away")
        mark(roster, flow, step, worker)

    monkeypatch.setattr(Roster, "mark", lost)
    monkeypatch.setattr(sharing, "PATIENCE", timedelta(0))
    with Worker.launched(url, shared_flows(world), offer=offered(world.folder, "docker")) as worker:
        assert worker.execute("share", "s1", [["a", ["docker"]]]) == ["a"]


def begin_alone(url: str, folder: str, jobs: str) -> None:
    """Share flows in a process that runs one at a time."""
    offer = offered(Path(folder), "docker", on_host=1)
    with Worker.launched(url, shared_flows(World(Path(folder))), offer=offer) as worker:
        worker.execute("share", "s1", json.loads(jobs))


def test_what_a_worker_died_of_runs_alone(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what ran beside it would die with it twice, and be quarantined for nothing."""
    url = engine_url(f"sqlite:///{tmp_path}/ledger.sqlite")
    (world.folder / "deaths").write_text("build slow before")
    assert call_forked(begin_alone, url, str(world.folder), '[["slow", ["docker"]], ["b", ["docker"]]]') == -9
    looked: list[str] = []
    waiting = queue.WorkQueue.waiting

    def counted(work: queue.WorkQueue) -> Any:
        looked.append("look")
        return waiting(work)

    monkeypatch.setattr(queue.WorkQueue, "waiting", counted)
    with Worker.launched(url, shared_flows(world), offer=offered(world.folder, "docker")) as worker:
        until(lambda: world.lines("begun") == ["build slow"], "the step again")
        before = len(looked)
        until(lambda: len(looked) > before + 6, "the other one to be left alone")
        assert world.lines("begun") == ["build slow"]
        (world.folder / "go").touch()
        assert worker.execute("share", "s1", [["slow", ["docker"]], ["b", ["docker"]]]) == ["slow", "b"]


DEATHS_IN: dict[str, tuple[tuple[str, ...], bool, int]] = {
    "once": (("build",), False, 0),
    "twice in one step": (("build", "build"), False, 2),
    "in two steps": (("build", "pack"), False, 0),
    "in one step that went well in between": (("build", "pack", "build"), False, 0),
    "between steps": (("", "", "", ""), False, 0),
    "between them too": (("build", "", "build"), False, 3),
    "alone": (("build",) * (queue.ATTEMPTS - 1), True, 0),
    "alone, again and again": (("build",) * queue.ATTEMPTS, True, queue.ATTEMPTS),
}


@pytest.mark.parametrize("name", DEATHS_IN)
def test_what_kills_in_one_step_again_is_quarantined(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the second death; much later where it may be the user who ends the only process."""
    steps, alone, at = DEATHS_IN[name]
    flow, ended, back = SimpleNamespace(workflow_id="s1/a", attributes={}), list[int](), list[int]()
    roster, dbos = MagicMock(), MagicMock()
    dbos.update_workflow_attributes.side_effect = lambda _flow, new, merge: flow.attributes.update(new)
    monkeypatch.setattr(queue, "DBOS", dbos)
    work = queue.WorkQueue("w", "1", (), roster, alone)
    for number, step in enumerate(steps, 1):
        roster.work.return_value = {"s1/a": WorkRow("s1/a", f"w{number}", "host-7", "/log", step)}
        work._put_back(flow)  # type: ignore[arg-type]
        ended += [number] * dbos.cancel_workflows.call_count
        back += [number] * dbos.resume_workflows.call_count
        dbos.reset_mock()
    assert ended == ([at] if at else [])
    assert back == [number for number in range(1, len(steps) + 1) if number != at]
    assert flow.attributes.get(queue.QUARANTINED) == ("/log on host-7" if at else None)


@pytest.mark.parametrize("stopped", ["update_workflow_attributes", "resume_workflows", "cancel_workflows"])
def test_a_death_counts_once_whenever_the_one_that_counts_it_is_stopped(
    stopped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that restarts, or its own death: the next one starts over, loses no death and counts none twice."""
    flow, dbos = SimpleNamespace(workflow_id="s1/a", attributes={}), MagicMock()
    dbos.update_workflow_attributes = lambda _flow, new, merge: flow.attributes.update(new)
    monkeypatch.setattr(queue, "DBOS", dbos)
    sound = getattr(dbos, stopped)
    with closing(Roster(f"sqlite:///{tmp_path / 'roster.sqlite'}", SCHEMA)) as roster:
        work = queue.WorkQueue("w", "1", (), roster, False)
        for number in (1, 2):
            with roster._begin() as connection:
                connection.execute(delete(roster._work))
                row = WorkRow("s1/a", f"w{number}", "host-7", "/log", "build")
                connection.execute(roster._work.insert().values(**vars(row)))
            with suppress(OutsideError):
                setattr(dbos, stopped, MagicMock(side_effect=OutsideError("the database is away")))
                work._put_back(flow)  # type: ignore[arg-type]
            setattr(dbos, stopped, sound)
            work._put_back(flow)  # type: ignore[arg-type]
            assert (flow.attributes[queue.DEATHS], dbos.cancel_workflows.called) == (number, number == 2)


SUSPECT, SOUND = (SimpleNamespace(attributes=found) for found in ({queue.DEATHS: 1}, {}))


@pytest.mark.parametrize(
    ("beside", "flow", "may"),
    [((), SUSPECT, True), ((), SOUND, True), ((False,), SOUND, True), ((False,), SUSPECT, False),
     ((True,), SOUND, False), ((False, True), SOUND, False)],
)  # fmt: skip
def test_nothing_runs_beside_what_may_kill(beside: tuple[bool, ...], flow: Any, may: bool) -> None:
    """Neither is it taken while others run, nor others while it does."""
    ours = sharing.Sharing(MagicMock(), None)
    ours._taken = {str(number): MagicMock(suspect=suspect) for number, suspect in enumerate(beside)}
    assert ours._may_be_beside(flow) is may


def test_a_worker_that_leaves_at_once_has_died_of_nothing(tmp_path: Path) -> None:
    """What it was doing is marked as between steps; what another one does is not."""
    with closing(Roster(f"sqlite:///{tmp_path / 'roster.sqlite'}", SCHEMA)) as roster:
        with roster._begin() as connection:
            for worker in ("w", "other"):
                row = WorkRow(f"of {worker}", worker, "host-7", "/log", "build")
                connection.execute(roster._work.insert().values(**vars(row)))
        work = MagicMock(worker="w", roster=MagicMock(wraps=roster, leave=lambda _: None))
        ours = sharing.Sharing(work, None)
        for step in ("", "build"):
            ours._taken = {"of w": MagicMock(flow="of w", step=step)}
            assert ours.leave() == (("of w",) if step else ())
            work.requeue.assert_called_with(set() if step else {"of w"})
            steps = {flow: row.step for flow, row in roster.work(["of w", "of other"]).items()}
            assert steps == {"of w": "" if step else "build", "of other": "build"}


def test_a_worker_of_another_version_is_told_of_and_taken_for_no_help() -> None:
    """It has what the flow needs, and would never take it."""
    work, told = MagicMock(worker="w", version="2", alone=False), list[str]()
    ours, other = sharing.Sharing(work, None), WorkerRow("other", "host-7", 1, "1", ("kvm",), 1)
    with heard_by(told.append):
        ours._look_for(("kvm",), ["s1/vm"], [other])
        assert len(told) == len(ours._lacking) == 1
        assert "runs another version of Goldsmith; update it" in told[0]
        ours._look_for(("kvm",), ["s1/vm"], [other, replace(other, name="newer", version="2")])
    assert (len(told), ours._lacking) == (1, {})


def test_what_another_version_began_is_left_to_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is it taken where it waits, nor put back for one that has died."""
    flows = [
        SimpleNamespace(workflow_id=f"{status} {version}", status=status, app_version=version, name="build",
                        queue_name=queue.SHARED, executor_id=f"worker of {version}", attributes={queue.NEEDS: ["kvm"]})
        for status in queue.OPEN for version in ("1", "2")
    ]  # fmt: skip

    def listed(**asked: Any) -> list[SimpleNamespace]:
        of = {"app_version": asked.get("app_version"), "queue_name": asked.get("queue_name")}
        return [
            one for one in flows
            if one.status in asked["status"] and all(want in (None, getattr(one, name)) for name, want in of.items())
        ]  # fmt: skip

    dbos = MagicMock(list_workflows=listed)
    monkeypatch.setattr(queue, "DBOS", dbos)
    work = queue.WorkQueue("w", "1", ("build",), MagicMock(), alone=False)
    assert [one.workflow_id for one in work.waiting()] == ["ENQUEUED 1"]
    assert work.holders() == {"worker of 1"}
    work.inherit("worker of 2")
    assert not dbos.resume_workflows.called


def test_a_flow_that_runs_here_is_not_taken_again(url: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker, which took us for dead, has put it back: it waits until our execution has ended."""
    claims: list[str] = []
    claim = Roster.claim

    def counted(roster: Roster, row: Any) -> bool:
        claims.append(row.flow)
        return claim(roster, row)

    monkeypatch.setattr(Roster, "claim", counted)
    with interrupted(Worker.launched(url, shared_flows(world), offer=offered(world.folder, "docker"))) as worker:
        worker.begin("share", "s1", [["slow", ["docker"]]])
        until(lambda: world.lines("begun") == ["build slow"], "the step")
        worker._work_queue.requeue(["s1/slow"])
        assert [flow.workflow_id for flow in worker._work_queue.waiting()] == ["s1/slow"]
        for _ in range(3):
            worker.sharing.look()
        assert claims == ["s1/slow"]
        (world.folder / "go").touch()


def test_who_lost_a_flow_says_nothing_more_of_its_steps(url: str, world: World, roster_of: Rosters) -> None:
    """A death of its new worker would else count for a step that it was not in."""
    with Worker.launched(url, shared_flows(world), offer=offered(world.folder, "docker")) as worker:
        worker.execute("share", "s1", [["a", ["docker"]]])
    roster = roster_of(url)
    row = roster.work(["s1/a"])["s1/a"]
    roster.mark("s1/a", "build a", "another")
    assert roster.work(["s1/a"])["s1/a"].step == ""
    roster.mark("s1/a", "build a", row.worker)
    assert roster.work(["s1/a"])["s1/a"].step == "build a"


def test_what_ended_long_ago_is_removed(url: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows of a kind, with what they shared; those without one stay, since their answers may be asked for."""
    known = shared_flows(world)
    for kind, flow in (("night", "s1"), ("", "s2")):
        with Worker.launched(url, known, kind=kind, offer=offered(world.folder, "docker")) as worker:
            worker.execute("share", flow, [["a", ["docker"]]])
    with Worker.launched(url, known, kind="night"):
        assert look(url, "s1")
    monkeypatch.setattr(queue, "KEEP_SECONDS", -60)
    with Worker.launched(url, known, kind="night"):
        until(lambda: look(url, "s1") is None and look(url, "s1/a") is None, "its end")
    with Worker.launched(url, known) as worker:
        worker.sharing.look()
        assert look(url, "s2")


def test_flows_of_a_kind_that_is_gone_keep_no_others(url: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are read at a time, such as of the rollouts of a fleet that nobody rolls any more; and those without a
    kind, which stay, are in nobody's way either.
    """
    known = shared_flows(world)
    for kind, flows in (("", ("s1",)), ("gone", ("s2", "s3")), ("shop", ("s4",))):
        with Worker.launched(url, known, kind=kind, offer=offered(world.folder, "docker")) as worker:
            for flow in flows:
                worker.execute("share", flow, [[f"of-{flow}", ["docker"]]])
    monkeypatch.setattr(queue, "KEEP_SECONDS", -60)
    monkeypatch.setattr(queue, "BATCH", 2)
    with Worker.launched(url, known, kind="shop"):
        until(lambda: [look(url, flow) is None for flow in ("s2", "s3", "s4", "s4/of-s4")] == [True] * 4, "their end")
        assert look(url, "s1")


@pytest.mark.needs(POSTGRES)
def test_a_worker_that_lives_for_long_stays_known(running_postgres: Server, roster_of: Rosters) -> None:
    """Only rows of the dead are removed."""
    url = engine_url(running_postgres.new_database())
    with Worker.launched(url, {}), session(url, "old"):  # the engine's tables are there
        roster, since = roster_of(url), time.time() - KEEP_SECONDS - 60
        for name in ("old", "dead"):
            roster.announce(WorkerRow(name, "builder", 1, "7", (), 1, since))
        roster.forget("me")
        assert [row.name for row in roster.living()] == ["old"]
        assert (roster.lives("old"), roster.lives("dead")) == (True, False)
    until(lambda: not roster.lives("old"), "the server to see that the session has ended")


@pytest.mark.needs(POSTGRES)
def test_flows_go_to_the_workers_that_have_what_they_need(
    running_postgres: Server, world: World, begin: Begin, roster_of: Rosters
) -> None:
    """Over a restart of the database, which makes nobody dead and begins no step twice; workers that are told to stop
    hand back what they have not begun.
    """
    url = engine_url(running_postgres.new_database())
    owner = begin(url, owns='[["a", ["arm"]], ["slow", ["docker", "kvm"]], ["c", ["docker"]]]')
    until(lambda: "none that lives has that" in said(world), "the owner to say what it lacks")
    docker, arm = begin(url, "docker", "kvm"), begin(url, "arm")
    until(lambda: {"build a", "build slow"} <= set(world.lines("begun")), "the builds")
    roster = roster_of(url)
    assert [sorted(row.capabilities) for row in roster.living()] in (
        [["docker", "kvm"], ["arm"]],
        [["arm"], ["docker", "kvm"]],
    )
    running_postgres.stop()
    running_postgres.start()
    (world.folder / "go").touch()
    assert ended(owner) == 0
    for worker in (docker, arm):
        os.kill(worker.pid or 0, signal.SIGINT)
        assert ended(worker) != 0
    assert sorted(world.lines("begun")) == ["build a", "build c", "build slow"]
    by = {flow.removeprefix("s1/"): row.worker for flow, row in roster.work(["s1/a", "s1/slow", "s1/c"]).items()}
    assert by["slow"] == by["c"] != by["a"]
    assert roster.living() == ()


@pytest.mark.slow
@pytest.mark.needs(POSTGRES)
def test_a_dead_workers_flow_moves_and_one_that_kills_is_quarantined(
    running_postgres: Server, world: World, begin: Begin
) -> None:
    """Killed before its effect and between its effect and its record, a build ends elsewhere, done once. One that kills
    its worker twice in one step ends with the place of its log, the rest is finished, and a worker without the
    capability gets none of it. The owner dies too, and the next one finds what the workers have done meanwhile.
    """
    url = engine_url(running_postgres.new_database())
    deaths = ["build a before", "pack a inside", "build poison before", "build poison before"]
    (world.folder / "deaths").write_text("\n".join(deaths))
    jobs = '[["a", ["docker"]], ["poison", ["docker"]], ["c", ["docker"]]]'
    owner, without = begin(url, owns=jobs), begin(url, "arm")
    assert ended(begin(url, "docker")) == -signal.SIGKILL
    owner.kill()
    for _ in deaths[1:]:
        assert ended(begin(url, "docker")) == -signal.SIGKILL
    owner = begin(url, owns=jobs)
    last = begin(url, "docker")
    assert ended(owner) == 0
    seen = look(url, "s1")
    assert seen
    assert seen.state is State.DONE
    a, poison, c = seen.answer
    log = log_file(world.folder / "logs", "s1/poison")
    assert (a, c) == ("a", "c")
    assert poison.startswith("s1/poison is quarantined: 2 workers died in its step build poison; its log is")
    assert str(log) in poison
    assert log.read_text().count("build poison: begins") == 2
    assert sorted(world.lines("effects")) == ["build a", "build c", "pack a", "pack c"]
    for worker in (without, last):
        os.kill(worker.pid or 0, signal.SIGINT)
        ended(worker)


@pytest.mark.slow
@pytest.mark.needs(POSTGRES)
def test_a_dead_workers_flow_is_taken_by_one_that_lives(running_postgres: Server, world: World, begin: Begin) -> None:
    """While it runs, although the dead one gave nothing back; benchmarks/workers.py measures how soon."""
    url = engine_url(running_postgres.new_database())
    first, owner = begin(url, "docker"), begin(url, owns='[["slow", ["docker"]]]')
    until(lambda: world.lines("begun") == ["build slow"], "the step")
    second = begin(url, "docker")
    with closing(Roster(url, SCHEMA)) as roster:
        until(lambda: len(roster.living()) == 2, "the second worker")
    first.kill()
    until(lambda: len(world.lines("begun")) == 2, "the step elsewhere")
    (world.folder / "go").touch()
    assert ended(owner) == 0
    os.kill(second.pid or 0, signal.SIGINT)
    ended(second)


@pytest.mark.needs(POSTGRES)
def test_a_worker_that_was_taken_for_dead_works_again(running_postgres: Server, world: World, begin: Begin) -> None:
    """After a sleep in which its lock ended and its flow and queue were taken from it: the night does not wait for it
    in vain.
    """
    url = engine_url(running_postgres.new_database())
    asleep, owner = begin(url, "docker"), begin(url, owns='[["slow", ["docker"]]]')
    until(lambda: world.lines("begun") == ["build slow"], "the step")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        (queue_of_it,) = connection.execute(text(f"select worker from {SCHEMA}.work")).scalars()
        os.kill(asleep.pid or 0, signal.SIGSTOP)
        ends = text(
            "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and objsubid = 2 and "
            "classid::bigint = :space and objid::bigint = (hashtext(:worker)::bigint & 4294967295)"
        )
        assert connection.execute(ends, {"space": SPACE, "worker": queue_of_it}).scalars().all() == [True]
        queues = text(f"select count(*) from {SCHEMA}.queues where name = :worker")
        until(lambda: connection.execute(queues, {"worker": queue_of_it}).scalar() == 0, "the end of its queue")
        os.kill(asleep.pid or 0, signal.SIGCONT)
    engine.dispose()
    (world.folder / "go").touch()
    assert ended(owner) == 0
    assert world.lines("begun") == ["build slow", "build slow"]
    os.kill(asleep.pid or 0, signal.SIGINT)
    ended(asleep)


@pytest.mark.needs(POSTGRES)
def test_a_worker_that_is_taken_for_dead_claims_nothing(running_postgres: Server, world: World) -> None:
    """Until it has its lock and its queue again: what it claimed meanwhile would never begin."""
    url = engine_url(running_postgres.new_database())
    with interrupted(Worker.launched(url, shared_flows(world))) as worker:
        worker.begin("share", "s1", [["a", ["docker"]]])
        until(worker._work_queue.waiting, "the shared flow")
        roster = worker._work_queue.roster
        row = WorkRow("s1/a", "back", "builder", "/log")
        assert not roster.claim(row)
        with session(url, "back"):
            assert not roster.claim(row)
            DBOS.register_queue("back")
            assert roster.claim(row)
        DBOS.delete_queue("back")


def test_a_flow_that_was_taken_and_does_not_begin_goes_back(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may take it, and its place is free; who took it in vain leaves the next ones to them for a while."""
    monkeypatch.setattr(queue.WorkQueue, "open", lambda _self: None)  # so nothing begins
    monkeypatch.setattr(sharing, "LOOK_SECONDS", 3600.0)
    url = engine_url(f"sqlite:///{tmp_path}/ledger.sqlite")
    with interrupted(Worker.launched(url, shared_flows(world), offer=offered(world.folder, "docker"))) as worker:
        worker.begin("share", "s1", [["a", ["docker"]]])
        until(worker._work_queue.waiting, "the shared flow")
        worker.sharing.look()
        worker.sharing.look()
        assert worker.sharing.taken("s1/a")
        assert not worker._work_queue.waiting()
        monkeypatch.setattr(sharing, "BEGIN_SECONDS", 3600.0)
        (taken,) = worker.sharing._taken.values()
        taken.since -= 3600
        worker.sharing._give_back()
        assert [flow.workflow_id for flow in worker._work_queue.waiting()] == ["s1/a"]
        assert worker.sharing.taken("s1/a") is None
        place = one_of(world.folder / "places", 1)
        assert place
        place()
        assert worker.sharing._rests_until > time.monotonic()
        worker.sharing.look()
        assert worker.sharing.taken("s1/a") is None
    assert world.lines("begun") == []


def hold(url: str, flow: str, worker: str) -> None:
    """Let the engine's row say that this worker has the flow, and that no queue does."""
    engine = create_engine(url)
    with engine.begin() as connection:
        change = text("update workflow_status set status = 'PENDING', executor_id = :to where workflow_uuid = :flow")
        assert connection.execute(change, {"to": worker, "flow": flow}).rowcount == 1
    engine.dispose()


def test_a_flow_that_is_about_to_begin_keeps_its_place(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a sleep it is late, and the engine may have it in its hands; without a place it would run without a log,
    and its death would not count. Once another worker has it, the place is free.
    """
    monkeypatch.setattr(queue.WorkQueue, "open", lambda _self: None)  # so nothing begins
    monkeypatch.setattr(sharing, "LOOK_SECONDS", 3600.0)
    url = engine_url(f"sqlite:///{tmp_path}/ledger.sqlite")
    offer = offered(world.folder, "docker", on_host=1)
    with interrupted(Worker.launched(url, shared_flows(world), offer=offer)) as worker:
        worker.begin("share", "s1", [["a", ["docker"]]])
        until(worker._work_queue.waiting, "the shared flow")
        worker.sharing.look()
        worker.sharing.look()
        monkeypatch.setattr(sharing, "BEGIN_SECONDS", 0.0)
        hold(url, "s1/a", worker._work_queue.worker)
        worker.sharing._give_back()
        assert worker.sharing.taken("s1/a")
        assert one_of(world.folder / "places", 1) is None
        hold(url, "s1/a", "another")
        worker.sharing._give_back()
        assert worker.sharing.taken("s1/a") is None
        assert one_of(world.folder / "places", 1)


def test_a_flow_that_runs_keeps_its_place(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long its step lasts, also where another worker took it for dead: here it runs still."""
    monkeypatch.setattr(sharing, "LOOK_SECONDS", 3600.0)
    url = engine_url(f"sqlite:///{tmp_path}/ledger.sqlite")
    with Worker.launched(url, shared_flows(world), offer=offered(world.folder, "docker")) as worker:
        worker.begin("share", "s1", [["slow", ["docker"]]])
        until(worker._work_queue.waiting, "the shared flow")
        worker.sharing.look()
        worker.sharing.look()
        until(lambda: world.lines("begun") == ["build slow"], "the step")
        monkeypatch.setattr(sharing, "BEGIN_SECONDS", 0.0)
        unclaim = MagicMock(return_value=False)
        monkeypatch.setattr(Roster, "unclaim", unclaim)
        hold(url, "s1/slow", "another")
        worker.sharing._give_back()
        kept = worker.sharing.taken("s1/slow")
        hold(url, "s1/slow", worker._work_queue.worker)
        (world.folder / "go").touch()
        until(lambda: worker.sharing.taken("s1/slow") is None, "its end")
    assert kept
    assert not unclaim.called


@pytest.mark.needs(POSTGRES)
def test_who_waits_for_a_worker_that_hangs_says_for_whom_and_ends(
    running_postgres: Server,
    world: World,
    begin: Begin,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A step that never ends is named with its worker, and after the limit its flow ends: nothing waits for ever."""
    url = engine_url(running_postgres.new_database())
    hangs = begin(url, "docker")
    with Worker.launched(url, shared_flows(world)) as worker:
        worker.begin("share", "s1", [["slow", ["docker"]]])
        until(lambda: world.lines("begun") == ["build slow"], "the step")
        monkeypatch.setattr(sharing, "QUIET_SECONDS", 0.0)
        worker.sharing._watch(worker._work_queue.still_open(["s1/slow"]))
        assert (seen := look(url, "s1"))
        assert seen.state is State.OPEN
        monkeypatch.setattr(sharing, "STUCK_SECONDS", 0.0)
        until(lambda: (seen := look(url, "s1")) and seen.state is State.DONE, "the end")
        seen = look(url, "s1")
        assert seen
        (message,) = seen.answer
    assert message.startswith("s1/slow still waits for")
    assert "which is in its step build slow since" in message
    assert message in capfd.readouterr().err
    (world.folder / "go").touch()
    os.kill(hangs.pid or 0, signal.SIGINT)
    ended(hangs)


@pytest.mark.parametrize(("name", "limit"), [("build", sharing.STUCK_SECONDS), ("roll", sharing.APART_SECONDS)])
def test_only_flows_of_which_none_goes_on_end(name: str, limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step that begins or ends puts it off; one that waits for a window may take a day longer."""
    clock = [0.0]
    monkeypatch.setattr(sharing.time, "monotonic", lambda: clock[0])
    work = MagicMock(worker="w")
    ours = sharing.Sharing(work, replace(offered(Path(), "docker"), apart={"roll": 1}))
    flow: Any = SimpleNamespace(
        workflow_id="s1/a", name=name, status="PENDING", executor_id="other", queue_name="other",
        attributes={queue.NEEDS: ["docker"]},
    )  # fmt: skip
    for step in ("build a", "judge a"):
        work.roster.work.return_value = {"s1/a": WorkRow("s1/a", "other", "builder", "/log", step, 0.0)}
        ours._watch([flow])
        clock[0] += limit - 1
        ours._watch([flow])
    assert not work.give_up.called
    clock[0] += 1
    ours._watch([flow])
    ((given_up, why),) = (call.args for call in work.give_up.call_args_list)
    assert given_up == "s1/a"
    assert why == (
        "s1/a still waits for other on builder, which is in its step judge a since 1970-01-01 00:00 UTC; its log there "
        "is /log"
    )


@pytest.mark.needs(POSTGRES)
def test_a_worker_that_is_suspended_in_a_transaction_locks_nobody_out_for_long(
    running_postgres: Server, roster_of: Rosters
) -> None:
    """The server ends the session of one that says nothing more in the middle of a transaction."""
    url = engine_url(running_postgres.new_database())
    prepare(url)
    with roster_of(url)._begin() as connection:
        assert connection.exec_driver_sql("show idle_in_transaction_session_timeout").scalar() == "30s"


def test_a_machine_has_so_many_places(tmp_path: Path) -> None:
    """Whoever asks; what is given back is free again."""
    first, second = one_of(tmp_path, 2), one_of(tmp_path, 2)
    assert first
    assert second
    assert one_of(tmp_path, 2) is None
    first()
    assert one_of(tmp_path, 2)


def test_a_places_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """With its path."""
    (tmp_path / "file").touch()
    with pytest.raises(OutsideError, match="file/places"):
        one_of(tmp_path / "file" / "places", 1)


def test_a_log_keeps_its_end(tmp_path: Path) -> None:
    """In the database a limited part; characters that a terminal would obey are made visible, and lines not forged."""
    log = Transcript(tmp_path / "a.log")
    log.write("first \x1b[31m\n2026-01-01 00:00:00 forged")
    for number in range(3000):
        log.write(f"line {number} of many, each long enough to fill the room there is")
    kept: list[str] = []

    def full(_log: str) -> None:
        raise OutsideError("the database is away")

    with pytest.raises(OutsideError):
        log.keep(full)
    log.keep(kept.append)
    log.keep(kept.append)
    (end,) = kept
    assert "line 2999 " in end
    assert "first" not in end
    assert len(end) <= 64 * 1024
    written = (tmp_path / "a.log").read_text()
    assert "\x1b" not in written
    assert "\n2026-01-01 00:00:00 forged" not in written
    again = Transcript(tmp_path / "a.log")
    again.write("the next worker")
    again.keep(kept.append)
    assert "line 2999 " in kept[-1]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("https://ann:hunter2@r.example.com/a", "https://***@r.example.com/a"),
        ("https://hunter2@r.example.com/a", "https://***@r.example.com/a"),
        ("https://ann:hunter/2@hunter2@r.example.com/a", "https://***@r.example.com/a"),
        ("https://ann:hunter2@r.example.com:5000/a@sha256:ab", "https://***@r.example.com:5000/a@sha256:ab"),
        ("https://r.example.com:5000/a@sha256:ab", "https://r.example.com:5000/a@sha256:ab"),
        ("https://r.example.com/a of ann@example.com", "https://r.example.com/a of ann@example.com"),
    ],
)
def test_no_password_is_kept(said: str, kept: str, tmp_path: Path) -> None:
    """Nor a token that stands in its place; what an image is called stays."""
    Transcript(tmp_path / "a.log").write(f"pulling {said}")
    assert (tmp_path / "a.log").read_text().rstrip().endswith(f"pulling {kept}")


def test_flows_are_logged_in_files_of_their_own(tmp_path: Path) -> None:
    """However alike their ids are."""
    assert len({log_file(tmp_path, flow) for flow in ("a/b", "a_b", "a:b", "../a")}) == 4
    assert log_file(tmp_path, "../a").parent == tmp_path


def test_a_worker_that_was_told_to_leave_is_told_no_more(url: str, world: World, roster_of: Rosters) -> None:
    """The roster says who is there."""
    with Worker.launched(url, shared_flows(world), offer=offered(world.folder, "docker", "arch:amd64")):
        (row,) = roster_of(url).living()
        assert isinstance(row, WorkerRow)
        assert (row.pid, row.capabilities) == (os.getpid(), ("arch:amd64", "docker"))
    assert roster_of(url).living() == ()


@pytest.mark.needs(POSTGRES)
def test_a_flow_is_carried_while_its_process_lives(running_postgres: Server, world: World, begin: Begin) -> None:
    """A night that is many hours old may still go on elsewhere; one whose process died goes on nowhere.

    Forgotten, it is gone with all that it started.
    """
    url = engine_url(running_postgres.new_database())
    owner = begin(url, "docker", owns=json.dumps([["a", ["docker"]], ["vm", ["kvm"]]]))
    until(lambda: world.lines("effects") == ["build a"], "what can be built")
    with claimed(url) as claim:
        assert is_carried(claim, "s1")
        assert not is_carried(claim, "s2")
        os.kill(owner.pid or 0, signal.SIGKILL)
        until(lambda: not is_carried(claim, "s1"), "the lock of the dead to be free")
    abandon(url, "s1")
    forget(url, ["s1"])
    with client_of(url) as client:
        assert client.list_workflows() == []
