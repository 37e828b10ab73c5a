"""The boot gate: boots a disk, asks it, boots it again, and says what that came to. Edge: makes overlay disks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from hardening.findings import CheckResult
from hardening.foundation.console import say
from hardening.foundation.process import run
from hardening.render import Overlay
from images.boot import observations
from images.boot.accelerator import require_qemu
from images.boot.direct import direct
from images.boot.model import Boot, BootReport, Level
from images.boot.payload import Credentials, Errand, live
from images.boot.seed import seed
from images.boot.vm import Disk, a_uuid, run_boot

QCOW2_MAGIC = b"QFI\xfb"


def boot(
    disk: Path, overlay: Overlay, *, level: Level, listens: Sequence[str], work: Path, twice: bool | None = None
) -> BootReport:
    """Boot `disk` (raw or qcow2), which is not changed, and run the live checks of `overlay` in it.

    The results: one for each live check, and the observations (`boot-completed` and so on). `listens` are the sockets
    that may be open to others, such as `22/tcp`. `twice`: boot it a second time, and another machine beside that;
    the default for all levels but QUICK. `work` is a folder for what lasts no longer than this.
    Raises OutsideError where QEMU is missing or fails itself; an image that does not boot is a result.
    """
    require_qemu()
    plan = _plan(disk, overlay, level, work)
    return _reported(plan, tuple(listens), twice=level is not Level.QUICK if twice is None else twice)


@dataclass(frozen=True)
class Plan:
    """What every boot of one gate shares. `planted` is for tests alone: faults that a machine is broken with."""

    disk: Disk
    level: Level
    errand: Errand
    work: Path
    planted: Credentials | None = None


def _plan(disk: Path, overlay: Overlay, level: Level, work: Path) -> Plan:
    """The plan of the gate, with nothing planted."""
    errand = Errand(live(overlay.checks), cloud_init=level is Level.FULL)
    machine = Disk(
        disk, _format(disk), True, a_uuid(),
        direct=direct(disk, work / "kernel") if level is Level.QUICK else None,
        seed=seed(work) if level is Level.FULL else None,
    )  # fmt: skip
    return Plan(machine, level, errand, work)


def _reported(plan: Plan, listens: tuple[str, ...], *, twice: bool) -> BootReport:
    """Boot as often as it takes; the report."""
    start = time.monotonic()
    disk, gently = (_kept(plan), True) if twice else (plan.disk, False)
    say(f"booting {plan.disk.path.name} ({plan.level}), with {len(plan.errand.checks)} live checks")
    first = _boot(plan, "first boot", disk, replace(plan.errand, gently=gently))
    results = [
        *observations.live_results(plan.errand.checks, first),
        *observations.observed(first, listens, cloud_init=plan.errand.cloud_init),
    ]
    boots = [first]
    if twice:
        result, more = _second(plan, disk, first)
        results.append(result)
        boots += more
    log = "\n".join(boot.log for boot in boots)
    return BootReport(plan.level, tuple(results), log, first.accelerator, time.monotonic() - start)


def _second(plan: Plan, disk: Disk, first: Boot) -> tuple[CheckResult, list[Boot]]:
    """Boot the first one's disk again and, at the same time, another new machine; what that showed."""
    if not first.stream.whole:
        return observations.no_second("the first boot gave no whole report"), []
    say("booting it a second time, and another one beside it")
    errand = Errand(cloud_init=plan.errand.cloud_init)
    runs = [("second boot", disk), ("first boot of another machine", replace(plan.disk, uuid=a_uuid()))]
    with ThreadPoolExecutor(max_workers=len(runs)) as pool:
        again, other = pool.map(lambda one: _boot(plan, one[0], one[1], errand), runs)
    return observations.second(first, again, other), [again, other]


def _boot(plan: Plan, title: str, disk: Disk, errand: Errand) -> Boot:
    return run_boot(title, disk, plan.level, errand, plan.work / title.replace(" ", "-"), plan.planted)


def _kept(plan: Plan) -> Disk:
    """The plan's disk so that what is written to it is kept, in an overlay of its own."""
    over = plan.work / "kept.qcow2"
    backing = ["-b", str(plan.disk.path.resolve()), "-F", plan.disk.disk_format]
    run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(over)])
    return replace(plan.disk, path=over, disk_format="qcow2", throw_away=False)


def _format(disk: Path) -> str:
    with disk.open("rb") as file:
        return "qcow2" if file.read(4) == QCOW2_MAGIC else "raw"
