"""A disk from its start to its checked result: the three levels of the boot gate, and the whole gate of a release."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

from measure import Reading, Report, alternate, end, require, timed

GATE = "release, second boot too"
LEVELS = {"quick": ("quick", False), "release": ("release", False), "full": ("full", False), GATE: ("release", True)}


def main() -> int:
    """Measure, print, and say by the exit code whether the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="readings of each (default 3)")
    parser.add_argument("--disk", type=Path, help="the raw disk to boot (default: the newest of this state)")
    parser.add_argument("--once", nargs=2, metavar=("LEVEL", "TWICE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    require("qemu-system-x86_64", "qemu-img", "sfdisk", "/usr/share/OVMF/OVMF_CODE_4M.fd")
    disk = disk_of(given.disk)
    if given.once:
        return one(disk, given.once[0], twice=given.once[1] == "True")
    runs = {name: partial(reading, disk, level, twice) for name, (level, twice) in LEVELS.items()}
    report = Report(alternate(runs, given.rounds))
    report.table()
    report.claim("seconds, quick", report.seconds("quick"), 20.0)
    report.claim("seconds, release", report.seconds("release"), 30.0)
    return int(report.failed)


def disk_of(given: Path | None) -> Path:
    """The disk that is given, else the one that was built last on this state. Raises OutsideError without one."""
    from hardening.foundation.errors import OutsideError
    from hardening.foundation.settings import load_settings

    if given and not given.is_file():
        raise OutsideError(f"no such disk: {given}")
    disks = (
        [given]
        if given
        else sorted((load_settings().state_dir / "disks").glob("*.raw"), key=lambda disk: disk.stat().st_mtime)
    )
    if not disks:
        raise OutsideError("no disk is built", hint="./goldsmith image.build debian-server, or --disk FILE")
    return disks[-1]


def reading(disk: Path, level: str, twice: bool) -> Reading:
    """One gate in a process of its own, start of Python and probe of KVM included."""
    return timed((sys.executable, __file__, "--disk", str(disk), "--once", level, str(twice)))


def one(disk: Path, level: str, *, twice: bool) -> int:
    """The gate, with one live check; 1 where that did not pass or the machine did not come up."""
    from hardening.findings import Outcome
    from hardening.model import Enforcement, Severity
    from hardening.render import Check, Overlay
    from images.boot import Level, boot

    check = Check("asks", "", Severity.LOW, Enforcement.AUDIT, 'echo "LIVE=$LIVE"', {})
    overlay = Overlay((), (), (check,))
    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as folder:
        report = boot(disk, overlay, level=Level(level), listens=("22/tcp",), work=Path(folder), twice=twice)
    wanted = {"asks", "boot-completed", *(["boot-second"] if twice else [])}
    passed = {result.control for result in report.results if result.outcome is Outcome.PASS}
    sys.stderr.write(f"load {os.getloadavg()[0]:.1f}, {report.accelerator}\n{report.console[-2000:]}")
    return 0 if wanted <= passed else 1


if __name__ == "__main__":
    end(main)
