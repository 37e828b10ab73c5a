"""One execution of a flow in memory: what it asks, what is recorded of it, and what is lost with its process."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from hardening.foundation.errors import GoldsmithError
from pipelines.durable.port import FencedError, Json, recorded

if TYPE_CHECKING:
    from tests.simulation.memory import Memory, Process

T = TypeVar("T")
Point = tuple[Any, ...]
Answer = tuple[str, Json, "GoldsmithError | None"]


@dataclass(frozen=True)
class Fate:
    """What becomes of one step: how many seconds it takes, and whether its process dies `before` or `after` the act.

    `sleeps`: the process is suspended right before the act, until its `stalled_until`.
    """

    seconds: float = 0.0
    dies: str = ""
    sleeps: bool = False


CALM = Fate()


def distinct(points: list[Point], after: int = 0) -> list[int]:
    """The steps, counted from 1, at which to die, told by what there is at each of them.

    Of the same step that is taken again and again while nothing changes, these are the first and the last.
    """
    seen = [None, *points, None]
    return [at for at in range(after + 1, len(points) + 1) if not seen[at - 1] == seen[at] == seen[at + 1]]


@dataclass
class Row:
    """What is durable of one flow: its argument, every answer it has had, and its end."""

    id: str
    flow: str
    argument: Json
    answers: list[Answer] = field(default_factory=list)
    due: dict[int, float] = field(default_factory=dict)
    messages: int = 0
    ended: bool = False
    result: Json = None
    error: GoldsmithError | None = None
    runner: Run | None = None
    waiting: list[Run] = field(default_factory=list)

    def end(self, memory: Memory, result: Json, error: GoldsmithError | None) -> None:
        """It is over: who waits for it goes on."""
        self.ended, self.result, self.error = True, result, error
        waiting, self.waiting = self.waiting, []
        for run in waiting:
            memory.at(0, lambda run=run: run.resume(None), run.process)  # type: ignore[misc]


@dataclass(frozen=True)
class _Ask:
    """What a flow hands to its driver when it cannot go on by itself."""

    begin: Callable[[], None]

    def __await__(self) -> Generator[_Ask, Any, Any]:
        return (yield self)


class Run:
    """One process's execution of one flow, and the Engine that the flow sees.

    A stray run is one whose flow another process has taken over while this one slept: it wakes, believes in what it was
    about to do, and may still act once. Nothing of it is recorded.
    """

    def __init__(self, process: Process, row: Row) -> None:
        self.process = process
        self.memory = process.memory
        self.row = row
        self.id = row.id
        self._next = 0
        self._timer = 0
        self._unrecorded: Answer | None = None
        flow: Any = process.flows[row.flow](self, row.argument)
        self._flow: Coroutine[Any, Any, Json] | None = flow

    # -- what the flow asks -------------------------------------------------------------------------------------------

    async def now(self) -> datetime:
        """The wall clock, as it was first asked."""
        if self._is_new():
            self._record("now", self.memory.now().isoformat())
        return datetime.fromisoformat(self._answer("now"))

    async def step(self, name: str, act: Callable[[], T]) -> T:
        """Act once its turn has come; the answer is recorded only when the step's time has passed."""
        if self._is_new():
            await _Ask(lambda: self._act(name, act))
        answer: T = self._answer(name)
        return answer

    async def wait(self, span: timedelta) -> bool:
        """Sleep until the moment that was fixed when the flow first asked, or a message."""
        if self._is_new():
            due = self.row.due.setdefault(self._next, self.memory.time + span.total_seconds())
            if self.row.messages:
                self._wake()
            else:
                await _Ask(lambda: self._sleep(due))
        return bool(self._answer("wait"))

    async def child(self, key: str, flow: str, argument: Json, *, of: str = "", needs: Sequence[str] = ()) -> Handle:
        """Start another flow in this process, which has whatever it needs."""
        name = f"{of or self.id}/{key}"
        if self.stray:
            raise FencedError
        if self._is_new():
            self.process.start(flow, name, argument)
            self._record(f"child {name}", None)
        self._answer(f"child {name}")
        return Handle(self, self.memory.rows[name])

    # -- what the driver does -----------------------------------------------------------------------------------------

    def resume(self, answer: Any) -> None:
        """Let the flow go on until it asks again or ends."""
        if self._flow is None:
            return
        try:
            asked = self._flow.send(answer)
        except StopIteration as end:
            self._end(json.loads(json.dumps(end.value)), None)
        except GoldsmithError as error:
            self._end(None, error)
        except FencedError:
            self._fenced()
        else:
            asked.begin()

    def drop(self) -> None:
        """Forget the execution; the row stays."""
        flow, self._flow = self._flow, None
        if flow is not None:
            flow.close()

    def woken(self) -> None:
        """A message has come: a wait that is on ends."""
        timer = self._timer
        if timer:
            self.memory.at(0, lambda: self._ring(timer, woken=True), self.process)

    @property
    def stray(self) -> bool:
        """Whether another process has taken the flow over."""
        return self.row.runner is not self

    def _is_new(self) -> bool:
        return self._next >= len(self.row.answers) and self._unrecorded is None

    def _act(self, name: str, act: Callable[[], Any]) -> None:
        self.memory.asking = self.process
        fate = self.memory.fate(self.id, name)
        if fate.dies == "before":
            return self.memory.kill(self.process)
        if fate.sleeps:
            return self.memory.at(0, lambda: self._do(name, act, fate), self.process)
        return self._do(name, act, fate)

    def _do(self, name: str, act: Callable[[], Any], fate: Fate) -> None:
        if self._flow is None:
            return None
        answer, failed = None, None
        self.memory.acting = fate
        try:
            answer = json.loads(json.dumps(act()))
        except GoldsmithError as error:
            failed = recorded(error)
        except FencedError:
            return self._fenced()
        if self.stray:
            return self.drop()
        if fate.dies == "after":
            return self.memory.kill(self.process)
        return self.memory.at(fate.seconds, lambda: self._done(name, answer, failed), self.process)

    def _fenced(self) -> None:
        """The work is another process's by now: this one ends, as the real one does."""
        self.drop()
        self.memory.fenced(self.process)

    def _done(self, name: str, answer: Json, failed: GoldsmithError | None) -> None:
        if self._flow is not None:
            self._record(name, answer, failed)
            self.resume(None)

    def _sleep(self, due: float) -> None:
        if self.stray:
            return self.drop()
        timer = self._timer = self.memory.number()
        left = max(0.0, due - self.memory.time)
        return self.memory.at(left, lambda: self._ring(timer, woken=False), self.process)

    def _ring(self, timer: int, *, woken: bool) -> None:
        if timer == self._timer and self._flow is not None:
            self._timer = 0
            self._wake() if woken else self._record("wait", False)
            self.resume(None)

    def _wake(self) -> None:
        self.row.messages = 0
        self._record("wait", True)

    def _record(self, name: str, answer: Json, failed: GoldsmithError | None = None) -> None:
        if not self.stray:
            self.row.answers.append((name, answer, failed))
        elif self._next >= len(self.row.answers):
            self._unrecorded = (name, answer, failed)

    def _answer(self, name: str) -> Any:
        """The next recorded answer. A flow that asks something else than it did before is broken."""
        (asked, answer, failed), self._unrecorded = self._unrecorded or self.row.answers[self._next], None
        if asked != name:
            raise AssertionError(f"{self.id} asked {asked!r} the first time and {name!r} now: it is not deterministic")
        self._next += 1
        if failed is not None:
            raise failed.with_traceback(None)
        return answer

    def _end(self, result: Json, error: GoldsmithError | None) -> None:
        self._flow = None
        if not self.stray:
            self.row.end(self.memory, result, error)


class Handle:
    """A flow that another flow started."""

    def __init__(self, parent: Run, row: Row) -> None:
        self._parent = parent
        self._row = row

    async def result(self) -> Json:
        """Wait for its end."""
        if not self._row.ended:
            await _Ask(lambda: self._row.waiting.append(self._parent))
        if self._row.error is not None:
            raise self._row.error.with_traceback(None)
        return self._row.result
