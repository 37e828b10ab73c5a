"""Boots one machine and brings back what it reported. Edge: starts QEMU, writes and reads files in a folder."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from hardening.foundation.errors import LateError, OutsideError
from hardening.foundation.process import Completed, failed, run
from images.boot import qemu
from images.boot.accelerator import accelerators, dies_with_us
from images.boot.console import tail
from images.boot.model import Boot, Level, limits
from images.boot.payload import FW_CFG, Credentials, Errand, credentials
from images.boot.stream import parse

GUEST = Path(__file__).with_name("guest.sh")
NO_ROOT = "Unable to mount root fs"


@dataclass(frozen=True)
class Disk:
    """A disk to boot. `throw_away`: what the machine writes is forgotten; `direct`: without firmware, see qemu.py.

    `uuid` is the machine's, the same whenever the same machine boots again.
    """

    path: Path
    disk_format: str
    throw_away: bool
    uuid: str
    direct: qemu.Direct | None = None
    seed: Path | None = None


def a_uuid() -> str:
    """A new machine's id, as a cloud gives each one its own."""
    return str(uuid4())


def run_boot(
    title: str, disk: Disk, level: Level, errand: Errand, work: Path, planted: Credentials | None = None
) -> Boot:
    """Boot `disk` once, with the first accelerator under which it reports; `work` is a folder to be made for it.

    KVM may be present and break in the middle, so a machine that says nothing under it is tried again without.
    `planted` are faults that tests put into the machine; the gate itself never gives any.
    """
    work.mkdir()
    *better, last = accelerators()
    for accelerator in better:
        boot = _once(title, disk, level, errand, work / accelerator, accelerator, planted)
        if boot.stream.whole:
            return boot
    return _once(title, disk, level, errand, work / last, last, planted)


def _once(
    title: str, disk: Disk, level: Level, errand: Errand, work: Path, accelerator: str, planted: Credentials | None
) -> Boot:
    limit = limits(level, accelerator)
    boot = _attempt(
        title, disk, replace(errand, patience_seconds=limit.patience), work, accelerator, limit.machine, planted
    )
    if disk.direct and disk.direct.spare and NO_ROOT in boot.console:  # this kernel needs its initrd after all
        spare = replace(disk, direct=disk.direct.spare)
        return _once(title, spare, level, errand, work / "initrd", accelerator, planted)
    return boot


def _attempt(
    title: str, disk: Disk, errand: Errand, work: Path, accelerator: str, seconds: int, planted: Credentials | None
) -> Boot:
    work.mkdir()
    machine = _machine(disk, credentials(GUEST.read_text(), errand, planted), work, accelerator)
    start = time.monotonic()
    late = False
    try:
        done = run(dies_with_us(qemu.command(machine)), env={"TMPDIR": str(work)}, timeout=seconds, ok=range(-64, 256))
        if done.status and accelerator == "tcg":
            raise _broken(done, machine)
    except LateError:
        late = True
    passed = time.monotonic() - start
    report = machine.report.read_bytes() if machine.report.exists() else b""
    return Boot(title, parse(report, errand.expected), _console(machine), accelerator, passed, late)


def _machine(disk: Disk, given: Credentials, work: Path, accelerator: str) -> qemu.Machine:
    files = []
    for number, (name, text) in enumerate(sorted(given.files.items())):
        file = work / f"credential{number}"
        file.write_text(text)
        files.append((f"{FW_CFG}{name}", file))
    return qemu.Machine(
        disk.path, disk.disk_format, disk.throw_away, accelerator, disk.uuid, work / "console", work / "report",
        smbios=given.smbios, files=tuple(files), seed=disk.seed, direct=disk.direct,
    )  # fmt: skip


def _console(machine: qemu.Machine) -> str:
    return machine.console.read_text(errors="replace") if machine.console.exists() else ""


def _broken(done: Completed, machine: qemu.Machine) -> OutsideError:
    """QEMU itself failed: that says nothing of the image."""
    error = failed(done, hint="this is QEMU's failure, not the image's")
    return OutsideError(
        f"QEMU ended with status {done.status}",
        evidence="\n".join(filter(None, [done.stderr.strip()[-2000:], tail(_console(machine))])), hint=error.hint,
    )  # fmt: skip
