"""Two independent images side by side, and one after the other."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from measure import INV, Reading, Report, alternate, end, rounds, settings_for, timed, write_definition

ONE, TWO = "one after the other", "side by side"


def main() -> int:
    """Measure, print, and say by the exit code whether the claim holds."""
    times = rounds(3, __doc__ or "")
    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as folder:
        for package in ("less", "netbase"):
            write_definition(Path(folder, "content"), f"bench-{package}", package)

        def build(parallel: int) -> Reading:
            env = settings_for(Path(folder, "state"), Path(folder, "content"), GOLDSMITH_PARALLEL=str(parallel))
            return timed((*INV, "image.build", "bench-*", "--no-cache"), env)

        build(1)  # the packages are there from now on
        report = Report(alternate({ONE: lambda: build(1), TWO: lambda: build(2)}, times))
    report.table()
    cores = os.cpu_count() or 1
    alone = [reading.cpu / reading.wall for reading in report.readings[ONE]]
    print(
        f"one after the other they keep {max(alone):.2f} of {cores} cores busy at best (the engine's work not counted)"
    )
    report.claim("side by side / one after the other", report.ratio(TWO, ONE), 0.75)
    return int(report.failed)


if __name__ == "__main__":
    end(main)
