"""Work that several processes share: who takes it, what becomes of it when they die, and what is told of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from hardening.foundation.errors import OutsideError
from hardening.foundation.locks import one_of
from pipelines.durable.dbos import Worker, abandon, claimed, engine_url, forget, is_carried
from pipelines.durable.dbos.queue import POLL_SECONDS
from pipelines.durable.dbos.sharing import LOOK_SECONDS as TAKING_SECONDS
from pipelines.durable.dbos.system_database import SCHEMA, client_of
from pipelines.durable.roster import Roster, WorkerRow
from pipelines.durable.transcript import Transcript, log_file
from pipelines.durable.workers import LOOK_SECONDS, SessionLocks
from tests.conftest import POSTGRES
from tests.support.durable import State, World, look, offered, share_flow, shared_flows, work_for_others
from tests.support.forked import ended, start_forked
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


def test_a_need_that_nobody_has_is_told_once(url: str, world: World, begin: Begin) -> None:
    """On the owner's terminal, with what adds a worker that has it; what others need goes on meanwhile."""
    jobs = [["vm", ["kvm"]], ["a", ["docker"]], ["vm2", ["kvm"]], ["far", ["docker", "region:eu-central-1"]]]
    owner = begin(url, "docker", owns=json.dumps(jobs))
    until(lambda: world.lines("effects") == ["build a"], "what can be built")
    until(lambda: said(world).count("none that lives has that") == 2, "both messages")
    os.kill(owner.pid or 0, signal.SIGINT)
    assert ended(owner) != 0
    told = sorted(line for line in world.lines("stderr") if "none that lives" in line)
    assert len(told) == 2
    assert told[0].startswith(
        "s1/far waits for a worker with docker, region:eu-central-1, and none that lives has that"
    )
    assert "./goldsmith worker" in told[1]


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


def test_a_dead_worker_is_found_and_its_flow_taken_in_less_than_ten_seconds() -> None:
    """From a lock that is free to a flow that begins elsewhere; benchmarks/workers.py measures it."""
    assert SessionLocks.looks * LOOK_SECONDS + TAKING_SECONDS + POLL_SECONDS + 2 < 10


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
    log.write("pulling https://ann:hunter2@registry.example.com/a")
    kept = log.news()
    assert kept is not None
    assert "hunter2" not in kept
    assert log.news() is None
    assert "line 2999 " in kept
    assert "first" not in kept
    assert len(kept) <= 64 * 1024
    written = (tmp_path / "a.log").read_text()
    assert "\x1b" not in written
    assert "\n2026-01-01 00:00:00 forged" not in written
    again = Transcript(tmp_path / "a.log")
    again.write("the next worker")
    assert "line 2999 " in (again.news() or "")


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
