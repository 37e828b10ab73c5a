"""`worker` and `worker.status`: what they refuse, how a worker leaves, and what is seen of it."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.content import load_toml
from hardening.foundation.errors import UsageError
from hardening.foundation.settings import Docker, Settings
from images.context import Context
from pipelines.cli.work_sharing import serve, show_workers, status_of, worker_status
from pipelines.durable.dbos import VERSION, Worker, engine_url
from pipelines.durable.dbos.shared_status import Quarantined, SharedStatus, shared_status
from pipelines.durable.port import Json, WorkflowEngine
from pipelines.durable.roster import WorkerRow, WorkRow
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.model import Fleet
from pipelines.host import capabilities
from pipelines.host.capabilities import content_of, found, named, needs_of, needs_of_fleet, offer
from pipelines.nightly.model import FLEET, IMAGE
from pipelines.nightly.night_run import KIND
from tests.conftest import POSTGRES
from tests.simulation.memory import EPOCH
from tests.support.durable import Look, State, World, look, run_command, share_with_command
from tests.support.forked import ended, start_forked
from tests.support.loop import until
from tests.support.postgres import Server

NOW = EPOCH.timestamp()


@pytest.mark.parametrize("command", [serve, worker_status])
def test_workers_need_a_database_that_several_processes_share(
    command: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite is one process's: one clear error says what to set."""
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path))
    with pytest.raises(UsageError, match="workers share a PostgreSQL") as caught:
        command()  # type: ignore[operator]
    assert "postgresql+psycopg://" in caught.value.hint


@pytest.mark.parametrize("text", ["dokcer", "arch:", "docker:1", "arch", ","])
def test_a_capability_that_nothing_needs_is_refused(text: str) -> None:
    """A worker that offers it would wait for ever."""
    with pytest.raises(UsageError):
        named(text)


def test_capabilities_are_listed_with_commas() -> None:
    """Each once."""
    assert named("docker, arch:amd64,docker") == ("docker", "arch:amd64")


def test_a_machine_knows_itself(tmp_path: Path) -> None:
    """Its architecture, its name, and the regions of its settings."""
    nowhere = {"build_host": "unix:///nowhere"}
    settings = Settings(state=tmp_path, docker=nowhere, aws={"account": "123456789012", "region": "eu-central-1"})
    assert "docker" not in found(settings)
    content = content_of(settings)
    assert {"region:eu-central-1", f"host:{os.uname().nodename}", "arch:amd64", content} <= set(found(settings))
    offered = offer(settings, ["docker"], 5)
    assert offered.capabilities() == {"docker", content}
    assert (offered.parallel, offered.on_host) == (2, 2), "the machine's setting is the most"


def test_a_machine_can_what_its_fleets_and_emulators_let_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The regions that only a fleet's file names, and each platform that a build would not be refused for."""
    (tmp_path / "pipelines/fleets").mkdir(parents=True)
    text = 'title = "Of a test"\nowner = "tests"\nreplacement = { definition = "debian-base" }\n'
    places = {
        "ec2": 'regions = ["eu-west-3"]', "ecs": 'cluster = "c"\nregion = "eu-west-1"',
        "eks": 'cluster = "c"\nregion = "eu-north-1"',
    }  # fmt: skip
    for kind, place in places.items():
        file = tmp_path / f"pipelines/fleets/{kind}.toml"
        file.write_text(f'{text}kind = "{kind}"\nselector = {{ a = "b" }}\n[{kind}]\n{place}\n')
    nowhere = {"build_host": "unix:///nowhere"}
    settings = Settings(state=tmp_path, content=(tmp_path,), docker=nowhere, aws={"region": "eu-central-1"})
    monkeypatch.setattr(capabilities, "require_platform", lambda _platform: None)
    offered = set(found(settings))
    assert {"region:eu-west-3", "arch:amd64", "arch:arm64"} <= offered
    shared = settings.model_copy(update={"database": "postgresql+psycopg://db/g"})
    for fleet in load_fleets(shared.roots).values():
        assert set(needs_of_fleet(fleet, shared)) <= offered | {content_of(shared)}, fleet.kind


def test_content_is_a_capability(tmp_path: Path) -> None:
    """What changes what is built or who is refused changes it, in a worker at once."""
    settings = Settings(state=tmp_path / "state", content=(tmp_path,))
    offered, seen = offer(settings, ["docker"]), {content_of(settings)}
    for file in ("hardening/policies/p.toml", "hardening/controls/c/check.sh", "images/definitions/d/image.toml",
                 "images/definitions/images.lock.toml"):  # fmt: skip
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("text")
        seen.add(content_of(settings))
        assert content_of(settings) in offered.capabilities()
    assert len(seen) == 5


@pytest.mark.needs(POSTGRES)
def test_a_worker_leaves_as_it_is_told(running_postgres: Server, tmp_path: Path) -> None:
    """Told once it ends its step and hands back the rest; told twice it leaves at once, which is no death of the flow's
    doing; `--drain` ends by itself. The flow ends all the same, and its effects are made once.
    """
    database = running_postgres.new_database()
    world = World(tmp_path / "world")
    url, folder = engine_url(database), str(world.folder)
    jobs = '[["slow", ["docker"]], ["c", ["arch:amd64"]], ["vm", ["kvm"]]]'
    owner = start_forked(share_with_command, url, folder, jobs, stderr=world.folder / "stderr")
    start = partial(start_forked, run_command, database, folder)
    first = start(stderr=world.folder / "first")
    until(lambda: world.lines("begun") == ["build slow"], "the first worker in its step")
    seen = status_of(shared_status(url), EPOCH)
    (worker,) = seen.workers
    assert (worker.pid, worker.capabilities[::2], worker.parallel) == (first.pid, ("arch:amd64", "docker"), 1)
    assert worker.capabilities[1].startswith("content:")
    assert [(one.flow, one.step) for one in worker.work] == [("s1/slow", "build slow")]
    assert [(one.needs, one.waiting, one.served) for one in seen.queues] == [
        (("arch:amd64",), 1, True), (("kvm",), 1, False),
    ]  # fmt: skip
    os.kill(first.pid or 0, signal.SIGTERM)
    until(lambda: "takes nothing more" in "".join(world.lines("first")), "the first worker to hear it")
    os.kill(first.pid or 0, signal.SIGTERM)
    assert ended(first) == 143
    second = start(stderr=world.folder / "second")
    until(lambda: world.lines("begun").count("build slow") == 2, "the second worker in the same step")
    os.kill(second.pid or 0, signal.SIGTERM)
    until(lambda: "takes nothing more" in "".join(world.lines("second")), "the second worker to hear it")
    (world.folder / "go").touch()
    assert ended(second) == 0
    third = start_forked(run_drained, database, folder)
    assert ended(third) == 0
    assert world.lines("effects") == ["build slow", "build c"]
    assert not shared_status(url).workers
    owner.terminate()
    ended(owner)


@pytest.mark.needs(POSTGRES)
def test_a_worker_leaves_to_its_night_what_needs_nothing_of_a_worker(running_postgres: Server, tmp_path: Path) -> None:
    """A fleet that is rolled from the night's own machine, which died: the next night there goes on with it."""
    database = running_postgres.new_database()
    url, folder = engine_url(database), str(World(tmp_path / "world").folder)
    assert ended(start_forked(begin_and_die, url)) == 9
    worker = start_forked(run_for_all, database, folder, stderr=tmp_path / "stderr")
    until(lambda: look(url, "n1/image/web") == Look(State.DONE), "the worker to inherit what is anybody's")
    os.kill(worker.pid or 0, signal.SIGTERM)
    assert ended(worker) == 0
    assert look(url, "n1/fleet/shop") == Look(State.OPEN)


async def act(engine: WorkflowEngine, begun_by: Json) -> Json:
    """Die in a step of it, but not in a second process."""
    await engine.step("acts", lambda: os._exit(9) if begun_by == os.getpid() and FLEET in engine.id else None)


def begin_and_die(url: str) -> None:
    """A night that dies with what it began."""
    with Worker.launched(url, {FLEET: act, IMAGE: wait}, kind=KIND) as worker:
        worker.begin(IMAGE, "n1/image/web", os.getpid())
        worker.begin(FLEET, "n1/fleet/shop", os.getpid())


async def wait(engine: WorkflowEngine, _: Json) -> Json:
    """For longer than its process lives."""
    await engine.wait(timedelta(hours=1))


def run_for_all(database: str, folder: str) -> None:
    """`./goldsmith worker`, which knows the flows of images and fleets."""
    run_command(database, folder, known={FLEET: act, IMAGE: act})


def run_drained(database: str, folder: str) -> None:
    """`./goldsmith worker --drain`."""
    run_command(database, folder, drain=True)


def test_the_status_says_what_a_person_must_know(capsys: pytest.CaptureFixture[str]) -> None:
    """In 80 columns: who does what for how long, what waits for nobody, and the log of what is quarantined."""
    row = WorkerRow(
        "one", "builder-with-a-long-name.example.com", 4711, VERSION, ("arch:amd64", "docker"), 2, NOW - 3600
    )
    work = WorkRow("night-20260301/image/nginx", "one", "builder", "/logs/nginx.log", "build nginx", NOW - 75)
    dead = WorkRow(
        "night-20260301/image/poison", "two", "builder-2", "/logs/poison.log", "", NOW, "first\nlast words\n"
    )
    poison = Quarantined(dead.flow, "build poison", 2, NOW, dead)
    queues: dict[tuple[tuple[str, ...], str], tuple[float, ...]] = {
        (("docker", "region:eu-central-1"), VERSION): (NOW - 9, NOW),
    }  # fmt: skip
    seen = SharedStatus((row,), {"one": (work,)}, queues, (poison,))
    show_workers(status_of(seen, EPOCH), as_json=False)
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 80
    for part in (
        "build nginx, 75 s",
        "no worker",
        "2 workers died in its step build poison",
        "/logs/poison.log",
        "words",
    ):
        assert part in " ".join(told.split())


def test_a_worker_of_another_version_serves_nothing() -> None:
    """And one whose clock is ahead has not worked for less than no time."""
    row = WorkerRow("one", "builder", 4711, "6", ("docker",), 2, NOW)
    work = WorkRow("night/image/nginx", "one", "builder", "/logs/nginx.log", "build nginx", NOW + 5)
    seen = SharedStatus((row,), {"one": (work,)}, {(("docker",), VERSION): (NOW,), (("docker",), "6"): (NOW, NOW)}, ())
    status = status_of(seen, EPOCH)
    assert {(queue.waiting, queue.served) for queue in status.queues} == {(1, False), (2, True)}
    assert status.workers[0].work[0].seconds == 0


def test_no_worker_is_told_how_to_add_one(capsys: pytest.CaptureFixture[str]) -> None:
    """One command."""
    show_workers(status_of(SharedStatus((), {}, {}, ()), EPOCH), as_json=False)
    assert "./goldsmith worker" in capsys.readouterr().err


def test_only_machines_that_see_the_same_registry_and_key_share_an_image(tmp_path: Path) -> None:
    """On SQLite nothing is shared; with all in common any machine that builds takes it, else this one alone."""

    def needs(name: str, **more: Any) -> tuple[str, ...]:
        settings = Settings(state=tmp_path, **more)
        return needs_of(Context(settings, EPOCH, str, str), name)

    common: dict[str, Any] = {
        "database": "postgresql+psycopg://db/goldsmith",
        "registry": {"address": "r.example.com/g"},
    }
    signed = {**common, "signing": {"command": ["sign"], "public_key": tmp_path / "key.pem"}}
    assert needs("debian-base") == ()
    content = content_of(Settings(state=tmp_path))
    assert needs("debian-base", **signed) == ("docker", "arch:amd64", content)
    assert needs("debian-base", **common)[-1].startswith("host:")
    assert needs("debian-server", **signed, aws={"region": "eu-central-1"}) == (
        "machines", "arch:amd64", content, "region:eu-central-1",
    )  # fmt: skip


def test_a_fleet_is_rolled_where_its_members_can_be_reached(tmp_path: Path) -> None:
    """Those behind a socket on this machine; those of AWS by any worker of their regions."""

    def fleet(text: str) -> Fleet:
        owned = 'title = "Of a test"\nowner = "tests"\nreplacement = { definition = "debian-base" }\n'
        (tmp_path / "f.toml").write_text(owned + text)
        return load_toml(tmp_path / "f.toml", Fleet, name="f")

    shared = Settings(state=tmp_path, database="postgresql+psycopg://db/g", aws={"region": "eu-central-1"})
    docker = fleet('kind = "docker"\nselector = { a = "b" }\n')
    content = content_of(shared)
    assert needs_of_fleet(docker, shared) == (f"host:{os.uname().nodename}", content)
    assert needs_of_fleet(docker, Settings(state=tmp_path)) == ()
    by_address = shared.model_copy(update={"docker": Docker(host="tcp://db:2376")})
    assert needs_of_fleet(docker, by_address) == ()
    named = fleet('kind = "docker"\nselector = { a = "b" }\ndocker = { hosts = ["ssh://web-1", "ssh://web-2"] }\n')
    assert needs_of_fleet(named, by_address) == needs_of_fleet(docker, shared), "whose keys lie here"
    ec2 = fleet('kind = "ec2"\nselector = { a = "b" }\n')
    assert needs_of_fleet(ec2, shared) == ("region:eu-central-1", content)
