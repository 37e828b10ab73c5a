"""The engine in memory: it drives the flows itself, one event after the other, under a clock of its own.

No thread, no event loop, no real time: the same flows, fates and moments give the same run. What is durable (the rows)
outlives what is not (the processes): a process may die at any step and another one goes on from the rows. Tests and
the simulation run flows on it; a real run has the other engine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count

from pipelines.durable.port import Flow, Json
from tests.simulation.execution import CALM, Fate, Row, Run

EPOCH = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Process:
    """One process that runs flows. A stalled one does nothing until its time, and does not know that it slept."""

    def __init__(self, memory: Memory, name: str, flows: Mapping[str, Flow]) -> None:
        self.memory = memory
        self.name = name
        self.flows = flows
        self.alive = True
        self.stalled_until = 0.0

    def start(self, flow: str, flow_id: str, argument: Json) -> Row:
        """Begin a flow, or find it."""
        rows = self.memory.rows
        if flow_id not in rows:
            rows[flow_id] = Row(flow_id, flow, json.loads(json.dumps(argument)))
            self.adopt(rows[flow_id])
        return rows[flow_id]

    def recover(self) -> None:
        """Go on with every flow that has not ended, from its answers."""
        for row in list(self.memory.rows.values()):
            if not row.ended:
                row.waiting.clear()
                self.adopt(row)

    def adopt(self, row: Row) -> None:
        """Go on with one flow from its answers; who waits for it still does."""
        row.runner = run = Run(self, row)
        self.memory.began(run)
        self.memory.at(0, lambda: run.resume(None), self)


class Memory:
    """The rows of all flows, and the one queue of events that every process hangs on. Times are seconds from 0.

    `fate` is asked before each step, by flow and name; `acting` is that of the step which acts at the moment,
    `asking` the process that asked last. `watch` is called after every event.
    """

    def __init__(
        self, fate: Callable[[str, str], Fate] = lambda _flow, _name: CALM, watch: Callable[[], None] = lambda: None
    ) -> None:
        self.rows: dict[str, Row] = {}
        self.time = 0.0
        self.jumped = timedelta()
        self.acting = CALM
        self.asking: Process | None = None
        self.fate = fate
        self.watch = watch
        self._order = count()
        self._runs: list[Run] = []
        self._events: list[tuple[float, int, Process | None, Callable[[], None]]] = []

    def process(self, name: str, flows: Mapping[str, Flow]) -> Process:
        """A new process that knows these flows."""
        return Process(self, name, flows)

    def now(self) -> datetime:
        """What the wall clock shows."""
        return EPOCH + timedelta(seconds=self.time) + self.jumped

    def at(self, seconds: float, happen: Callable[[], None], process: Process | None = None) -> None:
        """Let something happen so many seconds from now, in a process or in the world."""
        heappush(self._events, (self.time + seconds, next(self._order), process, happen))

    def number(self) -> int:
        """A number that nothing else has, above 0."""
        return next(self._order) + 1

    def kill(self, process: Process) -> None:
        """End a process without a word: what is not in the rows is lost."""
        process.alive = False
        for row in self.rows.values():
            if row.runner and row.runner.process is process:
                row.runner.drop()

    def fenced(self, process: Process) -> None:
        """End a process that may do nothing more, and with it its locks."""
        self.kill(process)

    def began(self, run: Run) -> None:
        """Remember an execution, to be closed in the end."""
        self._runs.append(run)

    def forget(self) -> None:
        """Forget every flow; all have ended."""
        self.rows.clear()
        self._runs.clear()

    def close(self) -> None:
        """Leave every flow where it is."""
        for run in self._runs:
            run.drop()

    def wake(self, flow_id: str) -> None:
        """Send a flow a message: its present or its next wait ends."""
        row = self.rows[flow_id]
        row.messages += 1
        if row.runner:
            row.runner.woken()

    def run(self, until: float, over: Callable[[], bool] = lambda: False) -> None:
        """Let events happen until nothing is left, the time is `until`, or `over` says so."""
        events, watch = self._events, self.watch
        while events and events[0][0] <= until and not over():
            due, _, process, happen = heappop(events)
            self.time = due
            if process is None or (process.alive and process.stalled_until <= due):
                happen()
                watch()
            elif process.alive:
                heappush(events, (process.stalled_until, next(self._order), process, happen))
