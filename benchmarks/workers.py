"""Two workers on one machine beside one, on builds that wait for the network; and how soon a dead one's build moves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from measure import ROOT, Reading, Report, alternate, end, require, rounds

if TYPE_CHECKING:
    from pipelines.durable.dbos import Flows

BUILDS = 12
SECONDS = 4.0  # what each waits for the network, in a step
MOVED_SECONDS = 10.0
assert ROOT  # importing `measure` put our packages on the path


def main() -> int:
    """Measure, print, and say by the exit code whether the claims hold."""
    from tests.support.postgres import running

    times = rounds(5, __doc__ or "")
    require("/usr/lib/postgresql/*/bin/postgres")
    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as folder, running() as server:
        runs = {f"{count} workers": partial(shared, server.new_database, Path(folder), count) for count in (1, 2)}
        report = Report(alternate(runs, times))
        moves = sorted(moved(server.new_database, Path(folder)) for _ in range(times))
    report.table()
    ratio = report.ratio("2 workers", "1 workers")
    report.claim(f"{BUILDS} builds of {SECONDS:g} s, two workers beside one, each two at a time", ratio, 0.65)
    report.claim("seconds until a dead worker's build begins elsewhere, the slowest", moves[-1], MOVED_SECONDS)
    print(f"       median {moves[len(moves) // 2]:.2f} s, fastest {moves[0]:.2f} s")
    return int(report.failed)


def shared(new: Callable[[], str], folder: Path, count: int) -> Reading:
    """The owner's wall time from its first build to the end of the last; workers are there already."""
    from pipelines.durable.dbos import Worker

    url, marks = new(), Path(tempfile.mkdtemp(dir=folder))
    workers = [_started(url, marks, SECONDS) for _ in range(count)]
    try:
        with Worker.launched(url, flows(marks, SECONDS)) as owner:
            _until_there(url, count)
            began, cpu = time.perf_counter(), time.process_time()
            owner.execute("all", "measured", BUILDS)
            return Reading(time.perf_counter() - began, time.process_time() - cpu)
    finally:
        _end(workers)


def moved(new: Callable[[], str], folder: Path) -> float:
    """Seconds from the kill of a worker in a build to the begin of that build on the other."""
    from pipelines.durable.dbos import Worker
    from tests.support.loop import until

    url, marks = new(), Path(tempfile.mkdtemp(dir=folder))
    first = _started(url, marks, 600)
    workers = [first]
    try:
        with Worker.launched(url, flows(marks, SECONDS)) as owner:
            _until_there(url, 1)
            owner.begin("all", "measured", 1)
            until(lambda: any(marks.iterdir()), "the build")
            workers.append(_started(url, marks, 0.1))
            _until_there(url, 2)
            began = time.perf_counter()
            first.kill()
            until((marks / f"0-{workers[-1].pid}").exists, "the build elsewhere")
            return time.perf_counter() - began
    finally:
        _end(workers)


def flows(marks: Path, seconds: float) -> Flows:
    """One flow that shares builds, each of which leaves a mark of its process and waits."""
    from pipelines.durable.port import Json, WorkflowEngine

    async def every(engine: WorkflowEngine, number: Json) -> Json:
        children = [await engine.child(f"build-{n}", "one", n, needs=("network",)) for n in range(number)]
        return [await child.result() for child in children]

    async def one(engine: WorkflowEngine, number: Json) -> Json:
        return await engine.step(f"build {number}", lambda: _build(marks / f"{number}-{os.getpid()}", seconds))

    return {"all": every, "one": one}


def _build(mark: Path, seconds: float) -> None:
    mark.touch()
    time.sleep(seconds)


def _started(url: str, marks: Path, seconds: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "serve", url, str(marks), str(seconds)])


def _until_there(url: str, count: int) -> None:
    from pipelines.durable.dbos.system_database import SCHEMA
    from pipelines.durable.roster import Roster
    from tests.support.loop import until

    roster = Roster(url, SCHEMA)
    until(lambda: len(roster.living()) == count, "the workers")


def _end(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        worker.kill()
        worker.wait()


def serve(url: str, marks: str, seconds: str) -> None:
    """Be one worker, two builds at a time, until killed."""
    from pipelines.durable.dbos import Capacity, Worker

    place = Path(marks).parent
    offer = Capacity(lambda: frozenset({"network"}), 2, 4, place / "places", place / "logs")
    with Worker.launched(url, flows(Path(marks), float(seconds)), offer=offer):
        signal.pause()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(*sys.argv[2:])
    end(main)
