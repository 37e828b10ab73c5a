"""What a durable step costs beside the same step on bare DBOS, on SQLite and on a PostgreSQL of the benchmark's own."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

from measure import ROOT, Reading, Report, alternate, end, require, rounds

STEPS = 200
NUMBERS = count()
assert ROOT  # importing `measure` put our packages on the path


def main() -> int:
    """Measure, print, and say by the exit code whether the claims hold."""
    from tests.support.postgres import running

    times = rounds(5, __doc__ or "")
    require("/usr/lib/postgresql/*/bin/postgres")
    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as folder, running() as server:
        urls = {
            "SQLite": lambda: f"sqlite:///{folder}/{next(NUMBERS)}.sqlite",
            "PostgreSQL": server.new_database,
        }
        whose = {"Goldsmith": ours, "bare DBOS": bare}
        runs = {f"{who}, {name}": partial(run, url) for name, url in urls.items() for who, run in whose.items()}
        report = Report(alternate(runs, times))
    print(f"\n{STEPS} steps that do nothing, in one flow; thousandths of a second for one:")
    for name in runs:
        walls = sorted(1000 * reading.wall / STEPS for reading in report.readings[name])
        print(f"{name:24}{walls[len(walls) // 2]:8.2f} ({walls[0]:.2f} to {walls[-1]:.2f})")
    for name, most in (("SQLite", 20.0), ("PostgreSQL", 15.0)):
        mine = f"Goldsmith, {name}"
        print(f"{name}: {report.ratio(mine, f'bare DBOS, {name}'):.2f} times bare DBOS")
        report.claim(f"thousandths of a second a step, {name}", 1000 * report.seconds(mine) / STEPS, most)
    return int(report.failed)


def nothing() -> int:
    """The step that is measured."""
    return 1


async def steps(step: Any) -> list[float]:
    """Wall and CPU time of the steps alone."""
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(STEPS):
        await step(f"step {number}", nothing)
    return [time.perf_counter() - wall, time.process_time() - cpu]


def ours(new: Callable[[], str]) -> Reading:
    """The steps as a flow of ours asks for them."""
    from pipelines.durable.dbos import Worker
    from pipelines.durable.port import Json, WorkflowEngine

    async def flow(engine: WorkflowEngine, _argument: Json) -> Json:
        return await steps(engine.step)

    with Worker.launched(new(), {"flow": flow}) as worker:
        return Reading(*worker.execute("flow", "measured", None))


def bare(new: Callable[[], str]) -> Reading:
    """The same steps as DBOS offers them, with its own defaults."""
    from dbos import DBOS

    DBOS(config={"name": "bare", "system_database_url": new(), "log_level": "ERROR", "console_log_level": "ERROR"})

    @DBOS.workflow(name="bare")
    async def flow() -> list[float]:
        return await steps(lambda name, act: DBOS.run_step_async({"name": name}, act))

    async def carried() -> list[float]:
        DBOS.launch()
        return await (await DBOS.start_workflow_async(flow)).get_result()

    try:
        return Reading(*asyncio.run(carried()))
    finally:
        DBOS.destroy(destroy_registry=True)


if __name__ == "__main__":
    end(main)
