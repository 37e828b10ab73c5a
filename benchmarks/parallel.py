"""Two independent images side by side, and one after the other."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from measure import INV, Reading, Report, alternate, rounds, settings_for, timed

ONE, TWO = "one after the other", "side by side"
DEFINITION = """\
title = "Of a benchmark"
owner = "benchmarks"
kind = "container"
profile = "container-base"
packages = ["ca-certificates", "{package}"]
user = "65532:65532"
smoke = ["true"]

[base]
bootstrap = {{ family = "debian", suite = "trixie" }}

[healthcheck]
none_because = "it runs nothing"
"""


def main() -> int:
    """Measure, print, and say by the exit code whether the claim holds."""
    times = rounds(3, __doc__ or "")
    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as folder:
        for package in ("less", "netbase"):
            definition = Path(folder, "content/images/definitions", f"bench-{package}", "image.toml")
            definition.parent.mkdir(parents=True)
            definition.write_text(DEFINITION.format(package=package))

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
    sys.exit(main())
