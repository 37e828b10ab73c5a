"""Nothing to do: an unchanged catalog, a thousand definitions, the list of tasks, and what the launcher adds."""

from __future__ import annotations

import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from measure import BOOTSTRAP, INV, ROOT, Report, alternate, end, rounds, settings_for, timed, write_definition

LIST, BUILD, PLAN = "inv --list", "inv image.build all, unchanged", "inv image.plan of 1,000"
PAIRS = {"control.list": ("control.list",), "image.plan": ("image.plan", "debian-base")}
LISTINGS = {"control.list": 0.35, "fleet.list": 0.35, "image.list": 0.45}  # seconds of CPU time at most
BASES, DEFINITIONS = 10, 1000
OF_BASES = ("tzdata", "netbase", "media-types", "less", "file")
OF_CHILDREN = ("curl", "jq", "xz-utils", "procps", "gettext-base", "rsync", "unzip", "lsof", "wget", "sqlite3")


def main() -> int:
    """Measure, print, and say by the exit code whether the claims hold."""
    times = rounds(5, __doc__ or "")
    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as folder:
        env = settings_for(Path(folder, "state")) | {"GOLDSMITH_KINDS": '["container"]'}  # machines ask for a feed
        many = settings_for(Path(folder, "state"), _synthetic(Path(folder, "content")))
        first = timed((*INV, "image.build", "all"), env)
        cold = timed((*INV, "image.plan", "bench-*"), many)
        commands = {LIST: (*INV, "--list"), BUILD: (*INV, "image.build", "all")}
        for name, task in PAIRS.items():
            commands |= {f"inv {name}": (*INV, *task), f"./goldsmith {name}": (str(ROOT / "goldsmith"), *task)}
        commands |= {name: (sys.executable, str(ROOT / "tasks.py"), name) for name in LISTINGS}
        runs = {name: partial(timed, command, env) for name, command in commands.items()}
        runs[PLAN] = partial(timed, (*INV, "image.plan", "bench-*"), many)
        report = Report(alternate(runs, times))
    report.table()
    print(f"the first build of the whole catalog {first.wall:.0f} s, the first plan of 1,000 {cold.wall:.0f} s")
    report.claim("seconds, image.build all with nothing changed", report.seconds(BUILD), 1.5)
    report.claim("seconds, image.plan of 1,000 definitions", report.seconds(PLAN), 3.0)
    report.claim("seconds, inv --list", report.seconds(LIST), 0.5)
    for name, most in LISTINGS.items():
        report.claim(f"seconds of CPU time, {name}", report.cpu_seconds(name), most)
    for name in PAIRS:
        pairs = zip(report.readings[f"./goldsmith {name}"], report.readings[f"inv {name}"], strict=True)
        report.claim(f"seconds that ./goldsmith adds to {name}", median(a.wall - b.wall for a, b in pairs), 0.5)
    return int(report.failed)


def _synthetic(content: Path) -> Path:
    """A content root of bases on the distribution and children on them, in equal shares."""
    for number in range(DEFINITIONS):
        base, package = f'golden = "bench-{number % BASES:04}"', OF_CHILDREN[number // BASES % len(OF_CHILDREN)]
        if number < BASES:
            base, package = BOOTSTRAP, OF_BASES[number % len(OF_BASES)]
        write_definition(content, f"bench-{number:04}", package, base)
    os.sync()
    return content


if __name__ == "__main__":
    end(main)
