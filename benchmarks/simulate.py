"""How long ten thousand simulated rollouts with faults take, on two cores; and ten years of the simulated loop."""

from __future__ import annotations

import sys
import time

from measure import Report

from tests.simulation.loop import simulate_loop
from tests.simulation.simulate import simulate

SEEDS, PROCESSES = 10_000, 2
YEARS, YEAR = 10, 365


def main() -> int:
    """Measure, print, and say by the exit code whether the claims hold."""
    began = time.monotonic()
    done = simulate(SEEDS, processes=PROCESSES)
    seconds = time.monotonic() - began
    print(f"{done.rollouts} rollouts, {done.events} events, {done.steps} steps")
    report = Report({})
    report.claim("seconds, 10,000 simulated rollouts of 20 members", seconds, 300)
    report.claim("rollouts that broke a promise", len(done.broken), 0)
    before = time.process_time()
    loop = simulate_loop(YEARS, YEAR)
    print(f"{loop.days} days, {loop.events} events; {dict(sorted(loop.done.items()))}")
    for one in (*done.broken, *loop.broken):
        print(f"broken: {one.how}\n  smallest: {one.smallest}")
    report.claim("seconds of processor time, ten simulated years of the loop", time.process_time() - before, 600)
    report.claim("years that broke a promise", len(loop.broken), 0)
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
