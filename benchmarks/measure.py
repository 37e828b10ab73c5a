"""What the benchmarks share: timed commands, alternating rounds, the table, and claims that hold or do not."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as ./goldsmith does: else each reading compiles what was changed
INV = (sys.executable, "-m", "invoke")
BOOTSTRAP = 'bootstrap = { family = "debian", suite = "trixie" }'
DEFINITION = """\
title = "Of a benchmark"
owner = "benchmarks"
kind = "container"
profile = "container-base"
packages = ["ca-certificates", "{package}"]
user = "65532:65532"
smoke = ["true"]

[healthcheck]
none_because = "it runs nothing"

[base]
{base}
"""


def write_definition(content: Path, name: str, package: str, base: str = BOOTSTRAP) -> None:
    """A definition `name` in the content root `content` that adds one package to `base`."""
    file = content / "images/definitions" / name / "image.toml"
    file.parent.mkdir(parents=True)
    file.write_text(DEFINITION.format(package=package, base=base))


@dataclass(frozen=True)
class Reading:
    """One run of a command: wall time, and CPU time (user and system) of it and its children, in seconds.

    What daemons do for it, such as the Docker Engine, is in the wall time alone.
    """

    wall: float
    cpu: float


Readings = dict[str, list[Reading]]


@dataclass
class Report:
    """Prints one benchmark's table and claims; `failed` says whether any claim did not hold."""

    readings: Readings = field(default_factory=dict)
    failed: bool = False

    def table(self) -> None:
        """All that was measured."""
        print(f"\n{'':34}{'median':>8}{'min':>8}{'max':>8}{'CPU':>8}   seconds, {_load()}")
        for name, found in self.readings.items():
            walls = [reading.wall for reading in found]
            cpu = median(reading.cpu for reading in found)
            print(f"{name:32}{median(walls):8.2f}{min(walls):8.2f}{max(walls):8.2f}{cpu:8.2f}")
        print()

    def ratio(self, name: str, other: str) -> float:
        """The median of `name`'s wall time over `other`'s, round by round: what disturbs one mostly disturbs both."""
        pairs = zip(self.readings[name], self.readings[other], strict=True)
        return median(one.wall / two.wall for one, two in pairs)

    def cpu_ratio(self, name: str, other: str) -> float:
        """The same for CPU time."""
        return median(one.cpu / two.cpu for one, two in zip(self.readings[name], self.readings[other], strict=True))

    def cpu_seconds(self, name: str) -> float:
        """The median of `name`'s CPU times."""
        return median(reading.cpu for reading in self.readings[name])

    def seconds(self, name: str) -> float:
        """The median of `name`'s wall times."""
        return median(reading.wall for reading in self.readings[name])

    def claim(self, text: str, value: float, most: float) -> None:
        """Print whether `value` is at most `most`."""
        holds = value <= most
        self.failed |= not holds
        print(f"{'holds' if holds else 'FAILS':6} {text}: {value:.2f}, at most {most:.2f}")


def rounds(default: int, what: str) -> int:
    """The number of rounds that the command line asks for."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--rounds", type=int, default=default, help=f"readings of each (default {default})")
    return int(parser.parse_args().rounds)


def require(*tools: str, root: bool = False) -> None:
    """End the benchmark with one line where this machine lacks one of its tools: programs, or globs of files."""
    from pipelines.host.provision import Tool

    if lacking := [name for name in tools if not Tool(name, "", "").present()]:
        _end(f"this benchmark needs {', '.join(lacking)}, which this machine lacks")
    if root and os.geteuid() != 0:
        _end("this benchmark needs root")


def end(main: Callable[[], int]) -> NoReturn:
    """Run a benchmark to its exit code; where Goldsmith finds no engine, mirror or program, one line says so."""
    from hardening.foundation.errors import GoldsmithError

    try:
        sys.exit(main())
    except GoldsmithError as error:
        _end(f"{error.message}; {error.hint}" if error.hint else error.message)


def _end(why: str) -> NoReturn:
    print(why, file=sys.stderr)
    sys.exit(4)


def timed(argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Reading:
    """Run `argv` to its end, on a disk that has finished what came before. Ends the benchmark when it fails."""
    os.sync()
    with tempfile.TemporaryFile() as said:
        start = time.monotonic()
        child = subprocess.Popen(argv, env={**os.environ, **(env or {})}, cwd=cwd, stdout=said, stderr=said)
        _, status, used = os.wait4(child.pid, 0)
        wall = time.monotonic() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            print(said.read().decode(errors="replace")[-3000:], file=sys.stderr)
            sys.exit(f"{' '.join(argv)} ended with status {child.returncode}")
    return Reading(wall, used.ru_utime + used.ru_stime)


def alternate(runs: Mapping[str, Callable[[], Reading]], times: int) -> Readings:
    """`times` readings of each: A B A B, never A A B B, so that a busy minute falls on both."""
    found: Readings = {name: [] for name in runs}
    for number in range(1, times + 1):
        for name, run in runs.items():
            found[name].append(run())
            print(f"round {number}: {name}: {found[name][-1].wall:.2f} s", file=sys.stderr)
    return found


def settings_for(state: Path, content: Path | None = None, **more: str) -> dict[str, str]:
    """The environment of Goldsmith on a state directory of its own, with the engine that already runs."""
    from hardening.foundation.settings import load_settings
    from pipelines.host.provision import docker_host

    engine = docker_host(load_settings(), for_builds=True)
    return {
        "GOLDSMITH_STATE": str(state),
        "GOLDSMITH_FEEDS": '{"debsecan": "none", "tracker": "none", "trivy": "none", "kev": "none", "epss": "none"}',
        "GOLDSMITH_CONTENT": json.dumps([str(content)] if content else []),
        "GOLDSMITH_DOCKER__HOST": engine,
        "GOLDSMITH_DOCKER__BUILD_HOST": engine,
        **more,
    }


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
