"""A small rollout for the engines, whose effects are files, and what a process does that carries it.

It dies where it is told: `FOLDER/deaths` holds a line for each death to come, a step, and whether the process dies
before its effect, or between the effect and its record.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, OutsideError, RefusedError
from pipelines.durable.dbos import Capacity, system_database
from pipelines.durable.port import FencedError, Flow, Json, WorkflowEngine

MEMBERS = ["a", "bad", "b"]
SHORT = timedelta(milliseconds=20)
STEPS = ("create a", "swap a", "create bad", "check bad", "create b", "swap b", "promote")
RESULT = {"ends": ["a is new", ["bad is ill", "log: no", "mend it"], "b is new"], "woken": False}


class World:
    """Where the effects are seen: each is a file that can be made once, and a line for each time that it was begun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.here = 0
        folder.mkdir(parents=True, exist_ok=True)

    def act(self, name: str) -> str:
        """Make the effect, or find it. `FOLDER/fenced` names a process that may do nothing more."""
        if self.lines("fenced") == [str(os.getpid())]:
            raise FencedError
        self._die(f"{name} before")
        self._line("begun", name)
        try:
            (self.folder / name).touch(exist_ok=False)
            self._line("effects", name)
        except FileExistsError:
            pass
        self._die(f"{name} inside")
        return name

    def refuse(self, name: str) -> None:
        """Begin, and fail."""
        self.act(name)
        raise RefusedError("bad is ill", evidence="log: no", hint="mend it")

    def sleep(self) -> None:
        """Let others see that the flow is about to wait."""
        self._line("asleep", "asleep")

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Write down how many are here at once."""
        self.here += 1
        self._line("together", str(self.here))
        try:
            yield
        finally:
            self.here -= 1

    def lines(self, file: str) -> list[str]:
        """What was written to a file so far."""
        path = self.folder / file
        return path.read_text().splitlines() if path.exists() else []

    def _line(self, file: str, line: str) -> None:
        with (self.folder / file).open("a") as sink:
            sink.write(f"{line}\n")

    def _die(self, where: str) -> None:
        if where in (left := self.lines("deaths")):
            left.remove(where)
            (self.folder / "deaths").write_text("\n".join(left))
            os.kill(os.getpid(), signal.SIGKILL)


def fill(folder: Path, but: int = 0) -> Path:
    """Take all room of a small disk, but so many bytes; the file that has it."""
    with (file := folder / "filler").open("wb", buffering=0) as filler:
        with suppress(OSError):
            while True:
                filler.write(bytes(4096))
        filler.truncate(filler.tell() - but)
    return file


class State(StrEnum):
    """How a flow stands."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Look:
    """A flow, seen from outside. `answer` is what it returned, or the error that ended it."""

    state: State
    answer: Json | Exception = None


def look(url: str, flow_id: str) -> Look | None:
    """How a flow stands in the engine's database; None where there is none."""
    with system_database.client_of(url) as client:
        found = client.list_workflows(workflow_ids=[flow_id], load_input=False)
    if not found:
        return None
    if found[0].status in system_database.UNDER_WAY:
        return Look(State.OPEN)
    if found[0].status == "SUCCESS":
        return Look(State.DONE, found[0].output)
    return Look(State.FAILED, found[0].error or system_database.given_up(flow_id))


def flows(world: World) -> dict[str, Flow]:
    """The flows of the small rollout, acting on `world`."""

    async def rollout(engine: WorkflowEngine, members: Json) -> Json:
        ends: list[Json] = []
        for name in members:
            child = await engine.child(name, "member", name)
            try:
                ends.append(await child.result())
            except RefusedError as error:
                ends.append([error.message, error.evidence, error.hint])
        woken = await engine.wait(SHORT)
        await engine.step("promote", lambda: world.act("promote"))
        return {"ends": ends, "woken": woken}

    async def member(engine: WorkflowEngine, name: Json) -> Json:
        await engine.step(f"create {name}", lambda: world.act(f"create {name}"))
        await engine.wait(SHORT)
        if name == "bad":
            await engine.step(f"check {name}", lambda: world.refuse(f"check {name}"))
        await engine.step(f"swap {name}", lambda: world.act(f"swap {name}"))
        return f"{name} is new"

    async def asleep(engine: WorkflowEngine, _argument: Json) -> Json:
        await engine.step("fall asleep", world.sleep)
        return await engine.wait(timedelta(hours=1))

    async def many(engine: WorkflowEngine, number: Json) -> Json:
        return [await engine.step(f"step {n}", _slowly(world, n)) for n in range(number)]

    return {"rollout": rollout, "member": member, "asleep": asleep, "many": many}


def _slowly(world: World, number: int) -> Callable[[], str]:
    """A step that lasts long enough for the world to change meanwhile: until its file `go` is there."""

    def act() -> str:
        done = world.act(f"step {number}")
        if number == 1:
            from tests.support.loop import until

            until((world.folder / "go").exists, "the test to let it go on")
        return done

    return act


def shared_flows(world: World) -> dict[str, Flow]:
    """A flow that shares its children with other workers, `[[name, needs], …]`, and what these do."""

    async def share(engine: WorkflowEngine, jobs: Json) -> Json:
        children = [await engine.child(name, "build", name, needs=needs) for name, needs in jobs]
        ends = []
        for child in children:
            try:
                ends.append(await child.result())
            except GoldsmithError as error:
                ends.append(error.message)
        return ends

    async def build(engine: WorkflowEngine, name: Json) -> Json:
        await engine.step(f"build {name}", lambda: _build(world, name))
        if name in ("a", "c") and (world.folder / "deaths").exists():
            await engine.step(f"pack {name}", lambda: world.act(f"pack {name}"))
        return name

    return {"share": share, "build": build}


def shared_alone(world: World) -> dict[str, Flow]:
    """What workers know of it: they do not go on with the flow that shares, where its owner is dead."""
    return {"build": shared_flows(world)["build"]}


def _build(world: World, name: str) -> None:
    say(f"building {name}")
    with world.counted():
        if name == "bad":
            world.refuse("build bad")
        world.act(f"build {name}")
        if name == "slow":
            from tests.support.loop import until

            until((world.folder / "go").exists, "the test to let it go on")


def offered(folder: Path, *capabilities: str, parallel: int = 2, on_host: int = 2) -> Capacity:
    """What a worker of a test offers."""
    return Capacity(lambda: frozenset(capabilities), parallel, on_host, folder / "places", folder / "logs")


def share_flow(url: str, folder: str, jobs: str, *capabilities: str, kind: str = "") -> None:
    """Carry a flow that shares its children, in a process that takes those whose needs it has, where it has any."""
    from pipelines.durable.dbos import Worker

    signal.signal(signal.SIGINT, signal.default_int_handler)
    offer = offered(Path(folder), *capabilities) if capabilities else None
    with Worker.launched(url, shared_flows(World(Path(folder))), kind=kind, offer=offer) as worker:
        worker.execute("share", "s1", json.loads(jobs))


def share_with_command(url: str, folder: str, jobs: str) -> None:
    """Carry a flow whose children those take that run as a command."""
    from pipelines.nightly.night_run import KIND

    share_flow(url, folder, jobs, kind=KIND)


def run_command(database: str, folder: str, *, drain: bool = False, known: dict[str, Flow] | None = None) -> None:
    """What `./goldsmith worker` does, on flows of a test."""
    from pipelines.cli import work_sharing

    os.environ |= {"GOLDSMITH_DATABASE": database, "GOLDSMITH_STATE": f"{folder}/state"}
    work_sharing.shared_flows = lambda _context: known or shared_alone(World(Path(folder)))  # type: ignore[assignment]
    sys.exit(work_sharing.serve("docker,arch:amd64", 1, drain=drain))


def work_for_others(url: str, folder: str, *capabilities: str) -> None:
    """Serve, one flow at a time, until Ctrl-C."""
    from pipelines.durable.dbos import Worker

    signal.signal(signal.SIGINT, signal.default_int_handler)
    place = Path(folder)
    with Worker.launched(url, shared_alone(World(place)), offer=offered(place, *capabilities, parallel=1)):
        threading.Event().wait()


def carry_flow(url: str, folder: str, flow: str, flow_id: str) -> None:
    """Carry a flow to its end, from here or from where another process left it."""
    from pipelines.durable.dbos import Worker

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell gives what it starts with & none
    argument: Json = MEMBERS if flow == "rollout" else 4
    with Worker.launched(url, flows(World(Path(folder)))) as worker:
        try:
            worker.execute(flow, flow_id, argument)
        except OutsideError as error:
            sys.exit(str(error))
