"""The boot gate: boots a disk, asks it, boots it again, and says what that came to. Edge."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hardening.findings import CheckResult
from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError
from hardening.foundation.process import run, threads
from hardening.render import Overlay
from images.boot import observations, qemu
from images.boot.guest import Errand, live
from images.boot.observations import Boot, BootReport, Level
from images.boot.qemu import Direct
from images.boot.vm import Disk, Task, a_uuid, accelerators, require_qemu, run_boot, seed

QCOW2_MAGIC = b"QFI\xfb"
ROOM_BYTES = 512 << 20  # two boots of a server wrote 12 MB; a machine may well write more


def boot(
    disk: Path, overlay: Overlay, *, level: Level, listens: Sequence[str], work: Path, twice: bool | None = None
) -> BootReport:
    """Boot `disk` (raw or qcow2), which is not changed, and run the live checks of `overlay` in it.

    The results: one for each live check, and the observations (`boot-completed` and so on). `listens` are the sockets
    that may be open to others, such as `22/tcp`. `twice`: boot it a second time, and another machine beside that;
    the default for all levels but QUICK. `work` is a folder for what lasts no longer than this.
    Raises OutsideError where QEMU or room is missing, or QEMU itself fails; an image that does not boot is a result.
    """
    require_qemu()
    _require_room(work)
    plan = _plan(disk, overlay, level, work)
    return _reported(plan, tuple(listens), twice=level is not Level.QUICK if twice is None else twice)


@dataclass(frozen=True)
class BootPlan:
    """What every boot of one gate shares."""

    disk: Disk
    level: Level
    errand: Errand
    work: Path


def _plan(disk: Path, overlay: Overlay, level: Level, work: Path) -> BootPlan:
    """The plan of the gate."""
    errand = Errand(live(overlay.checks), cloud_init=level is Level.FULL)
    machine = Disk(
        disk, _format(disk), a_uuid(),
        direct=direct(disk, work / "kernel") if level is Level.QUICK else None,
        seed=seed(work) if level is Level.FULL else None,
    )  # fmt: skip
    return BootPlan(machine, level, errand, work)


def _reported(plan: BootPlan, listens: tuple[str, ...], *, twice: bool) -> BootReport:
    """Boot as often as it takes; the report."""
    disk = replace(plan.disk, overlay=plan.work / "kept.qcow2") if twice else plan.disk
    say(f"booting {disk.path.name} ({plan.level}), with {len(plan.errand.checks)} live checks")
    first = _boot(plan, "first boot", disk, replace(plan.errand, gently=twice), accelerators())
    results = [
        *observations.live_results(plan.errand.checks, first),
        *observations.observed(first, listens, cloud_init=plan.errand.cloud_init),
    ]
    boots = [first]
    if twice:
        result, more = _second(plan, replace(disk, first=False), first)
        results.append(result)
        boots += more
    log = "\n".join(boot.log for boot in boots)
    return BootReport(tuple(results), log, first.accelerator)


def _second(plan: BootPlan, disk: Disk, first: Boot) -> tuple[CheckResult, list[Boot]]:
    """Boot the first one's disk again and, at the same time, another new machine; what that showed."""
    if not first.stream.whole:
        return observations.no_second("the first boot gave no whole report"), []
    say("booting it a second time, and another one beside it")
    errand = Errand(cloud_init=plan.errand.cloud_init)
    # From here on with what has just worked: a boot that breaks off and is tried again would be no second one.
    machines = {"second boot": disk, "first boot of another machine": replace(plan.disk, uuid=a_uuid())}
    with threads(len(machines)) as pool:
        made = [pool.submit(_boot, plan, title, one, errand, [first.accelerator]) for title, one in machines.items()]
    again, other = (boot.result() for boot in made)
    return observations.second(first, again, other), [again, other]


def _boot(plan: BootPlan, title: str, disk: Disk, errand: Errand, among: Sequence[str]) -> Boot:
    task = Task(title, disk, plan.level, errand)
    return run_boot(task, plan.work / title.replace(" ", "-"), among)


def _require_room(work: Path) -> None:
    """Raises OutsideError where what machines write has no room: QEMU would stand still, and the image seem to hang."""
    free = shutil.disk_usage(work).free
    if free < ROOM_BYTES:
        raise OutsideError(
            f"a machine needs {ROOM_BYTES >> 20} MiB to write to while it boots, and {work} has {free >> 20} MiB",
            hint="free some space (./goldsmith image.prune helps), or move `state` in goldsmith.toml to a larger disk",
        )


def _format(disk: Path) -> str:
    with disk.open("rb") as file:
        return "qcow2" if file.read(4) == QCOW2_MAGIC else "raw"


def direct(disk: Path, work: Path) -> Direct:
    """What boots the raw `disk` without firmware: first without the initrd, with it where the kernel needs one.

    The files are written to `work`. Raises OutsideError where the disk holds no unified kernel image.
    """
    work.mkdir()
    found = qemu.partitions(run(["sfdisk", "--json", str(disk)]).stdout)
    image = work / "unified.efi"
    where = f"{disk}@@{found.esp_offset}"
    run(["mcopy", "-n", "-i", where, f"::{qemu.EFI_PATH}", str(image)], env={"MTOOLS_SKIP_CHECK": "1"})
    with image.open("rb") as file:
        sections = qemu.sections(file.read(qemu.HEADERS_BYTES))
    kernel, initrd, words = (_section(image, sections, name, work) for name in (".linux", ".initrd", ".cmdline"))
    image.unlink()
    bare, full = (qemu.command_line(words.read_text(), found.root_uuid, initrd=with_it) for with_it in (False, True))
    return Direct(kernel, bare, spare=Direct(kernel, full, initrd))


def _section(image: Path, sections: dict[str, tuple[int, int]], name: str, work: Path) -> Path:
    """One section of the image, as a file."""
    if name not in sections:
        raise OutsideError(f"{qemu.EFI_PATH} has no section {name}: it is no unified kernel image")
    offset, size = sections[name]
    part = work / name.removeprefix(".")
    with image.open("rb") as source, part.open("wb") as target:
        source.seek(offset)
        target.write(source.read(size))
    return part
