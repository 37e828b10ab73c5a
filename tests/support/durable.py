"""A small rollout for the engines, whose effects are files, and what a process does that carries it.

It dies where it is told: `FOLDER/deaths` holds a line for each death to come, a step, and whether the process dies
before its effect, or between the effect and its record.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from hardening.foundation.errors import OutsideError, RefusedError
from pipelines.durable.dbos import system_database
from pipelines.durable.port import FencedError, Flow, Json, WorkflowEngine

MEMBERS = ["a", "bad", "b"]
SHORT = timedelta(milliseconds=20)
STEPS = ("create a", "swap a", "create bad", "check bad", "create b", "swap b", "promote")
RESULT = {"ends": ["a is new", ["bad is ill", "log: no", "mend it"], "b is new"], "woken": False}


class World:
    """Where the effects are seen: each is a file that can be made once, and a line for each time that it was begun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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

    def lines(self, file: str) -> list[str]:
        """What was written to a file so far."""
        path = self.folder / file
        return path.read_text().splitlines() if path.exists() else []

    def _line(self, file: str, line: str) -> None:
        with (self.folder / file).open("a") as sink:
            sink.write(f"{line}\n")

    def _die(self, where: str) -> None:
        if where in (left := self.lines("deaths")):
            (self.folder / "deaths").write_text("\n".join(line for line in left if line != where))
            os.kill(os.getpid(), signal.SIGKILL)


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
