"""How long ten thousand simulated rollouts of twenty members with faults take, on two cores."""

from __future__ import annotations

import sys
import time

from measure import Report

from tests.simulation.simulate import simulate

SEEDS, PROCESSES = 10_000, 2


def main() -> int:
    """Measure, print, and say by the exit code whether the claims hold."""
    began = time.monotonic()
    done = simulate(SEEDS, processes=PROCESSES)
    seconds = time.monotonic() - began
    print(f"{done.rollouts} rollouts, {done.events} events, {done.steps} steps")
    report = Report({})
    report.claim("seconds, 10,000 simulated rollouts of 20 members", seconds, 300)
    report.claim("rollouts that broke a promise", len(done.broken), 0)
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
