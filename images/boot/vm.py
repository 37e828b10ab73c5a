"""Boots one machine under QEMU and brings back what it reported. Edge: starts QEMU, writes and reads files."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from uuid import uuid4

from hardening.foundation.console import say
from hardening.foundation.errors import LateError, OutsideError
from hardening.foundation.process import dies_with_us, run, which
from images.boot import qemu
from images.boot.guest import FW_CFG, Credentials, Errand, credentials, parse, tail
from images.boot.observations import INSTANCE, Boot, Level, limits


def seed(work: Path) -> Path:
    """The image of a seed in `work`: an instance of ours and nothing to do; made without mounting anything.

    The label `cidata` is what cloud-init's NoCloud looks for.
    """
    (work / "meta-data").write_text(f"instance-id: {INSTANCE}\nlocal-hostname: boot-gate\n")
    (work / "user-data").write_text("#cloud-config\n{}\n")
    image = work / "seed.img"
    run(["mformat", "-C", "-f", "1440", "-v", "cidata", "-i", str(image), "::"])
    run(["mcopy", "-i", str(image), str(work / "meta-data"), str(work / "user-data"), "::"])
    return image


KVM = Path("/dev/kvm")
PROBE_SECONDS = 20  # under KVM the firmware takes two
BROKEN_SECONDS = 3600


@cache
def accelerators() -> tuple[str, ...]:
    """What to boot with, best first; found out once in a run. TCG always works, and is the last."""
    if not KVM.exists():
        return ("tcg",)
    if _kvm_works():
        return ("kvm", "tcg")
    say(f"{KVM} is there but does not work: machines boot without it, which takes longer")
    return ("tcg",)


def _kvm_works() -> bool:
    """Whether KVM works. One that did not is not tried again for an hour: each try of a KVM that hangs costs 20 s."""
    broken = _runtime() / "goldsmith-kvm-is-broken"
    with suppress(OSError):
        if time.time() - broken.stat().st_mtime < BROKEN_SECONDS:
            return False
    if works("kvm"):
        return True
    with suppress(OSError):  # who has no such folder tries each time
        broken.touch()
    return False


def _runtime() -> Path:
    """The folder for what this user's processes share until the machine restarts; only this user writes there."""
    return Path("/run" if os.geteuid() == 0 else f"/run/user/{os.geteuid()}")


def works(accelerator: str) -> bool:
    """Whether the firmware runs a program of ours to its end under `accelerator`: one that is there may be broken.

    A boot sector is no probe: where KVM emulates the first instructions alone, it runs, and each machine then hangs.
    """
    with tempfile.TemporaryDirectory(prefix="goldsmith-probe-") as folder:
        disk, program = Path(folder, "disk"), Path(folder, "program")
        program.write_bytes(qemu.probe_program())
        run(["mformat", "-C", "-f", "1440", "-i", str(disk), "::"])
        run(["mmd", "-i", str(disk), "::/EFI", "::/EFI/BOOT"])
        run(["mcopy", "-i", str(disk), str(program), "::/EFI/BOOT/BOOTX64.EFI"])
        argv = dies_with_us(qemu.probe(accelerator, disk))
        try:
            done = run(argv, env={"TMPDIR": folder}, timeout=PROBE_SECONDS, ok=range(-64, 256))
        except LateError:
            return False
    return done.status == qemu.PROBE_STATUS


def require_qemu() -> None:
    """Raises OutsideError where QEMU or its firmware is missing."""
    lacking = [path.name for path in (qemu.FIRMWARE, qemu.FIRMWARE_VARIABLES) if not path.exists()]
    lacking = [name for name in (qemu.PROGRAM, "mformat") if which(name) is None] + lacking
    if lacking:
        raise OutsideError(
            f"machines cannot be booted here: {', '.join(lacking)} is missing",
            hint="./goldsmith setup --machines installs it (Debian's qemu-system-x86, ovmf, seabios and mtools)",
        )


GUEST = Path(__file__).with_name("guest.sh")
NO_ROOT = "Unable to mount root fs"
OUR_MACHINES = "b007b007"


class CrashedError(OutsideError):
    """A signal ended QEMU."""


@dataclass(frozen=True)
class Disk:
    """A disk to boot, and as which machine: `uuid` is the same whenever that one boots again.

    What is written goes to `overlay`, a file that is made anew where the boot is the machine's `first`; without an
    overlay it is forgotten. `direct`: the kernel to start without firmware. `seed`: a cloud's answers.
    """

    path: Path
    disk_format: str
    uuid: str
    overlay: Path | None = None
    first: bool = True
    direct: qemu.Direct | None = None
    seed: Path | None = None


@dataclass(frozen=True)
class Task:
    """One boot to make."""

    title: str
    disk: Disk
    level: Level
    errand: Errand


def a_uuid() -> str:
    """A new machine's id, as a cloud gives each one its own.

    Not of Amazon's kind: cloud-init tells a machine there by the first group of this alone (`ec2…` or `…2?ec`), and
    would wait four minutes for an answer that nobody gives.
    """
    return f"{OUR_MACHINES}{str(uuid4())[len(OUR_MACHINES) :]}"


_at_fault: set[str] = set()


def run_boot(task: Task, work: Path, among: Sequence[str]) -> Boot:
    """Boot once, with the first accelerator of `among` under which the machine reports; `work` is a folder to make.

    KVM may be present and break in the middle, so a machine that says nothing under it is tried again without; where it
    speaks then, KVM was at fault, and this process waits for it no more.
    Raises OutsideError where QEMU itself fails under the last of them.
    """
    work.mkdir()
    *better, last = among
    tried = [accelerator for accelerator in better if accelerator not in _at_fault]
    for accelerator in tried:
        with suppress(OutsideError):
            boot = _once(task, work / accelerator, accelerator)
            if boot.stream.whole:
                return boot
    boot = _once(task, work / last, last)
    if boot.stream.whole:
        _at_fault.update(tried)
    return boot


def _once(task: Task, work: Path, accelerator: str) -> Boot:
    """Boot under one accelerator; a kernel that finds no root without its initrd gets it after all."""
    boot = _attempt_again(task, work, accelerator)
    direct = task.disk.direct
    if direct and direct.spare and NO_ROOT in boot.console:
        return _attempt_again(replace(task, disk=replace(task.disk, direct=direct.spare)), work / "initrd", accelerator)
    return boot


def _attempt_again(task: Task, work: Path, accelerator: str) -> Boot:
    """A machine whose QEMU crashes, as QEMU does now and then, begins once more, unless it was to go on with a disk."""
    try:
        return _attempt(task, work, accelerator)
    except CrashedError:
        if task.disk.overlay and not task.disk.first:
            raise
        return _attempt(task, work.with_name(f"{work.name}-again"), accelerator)


def _attempt(task: Task, work: Path, accelerator: str) -> Boot:
    work.mkdir()
    limit = limits(task.level, accelerator)
    errand = replace(task.errand, patience_seconds=limit.patience)
    machine = _machine(task.disk, credentials(GUEST.read_text(), errand), work, accelerator)
    start = time.monotonic()
    late = _runs_late(machine, work, limit.machine)
    passed = time.monotonic() - start
    report = machine.report.read_bytes() if machine.report.exists() else b""
    return Boot(task.title, parse(report, errand.expected), _console(machine), accelerator, passed, late)


def _runs_late(machine: qemu.VirtualMachine, work: Path, seconds: int) -> bool:
    """Run the machine to its end; whether it had to be ended. Raises OutsideError where QEMU itself fails."""
    try:
        done = run(dies_with_us(qemu.command(machine)), env={"TMPDIR": str(work)}, timeout=seconds, ok=range(-64, 256))
    except LateError:
        return True
    if done.status:
        said = [done.stderr.strip()[-2000:], tail(_console(machine))]
        raise (CrashedError if done.status < 0 else OutsideError)(
            f"QEMU ended with status {done.status}", evidence="\n".join(filter(None, said)),
            hint="this is QEMU's failure, not the image's",
        )  # fmt: skip
    return False


def _written_to(disk: Disk) -> tuple[Path, str]:
    """The file that QEMU opens, and its format."""
    if disk.overlay is None:
        return disk.path, disk.disk_format
    if disk.first:
        backing = ["-b", str(disk.path.resolve()), "-F", disk.disk_format]
        run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(disk.overlay)])
    return disk.overlay, "qcow2"


def _machine(disk: Disk, given: Credentials, work: Path, accelerator: str) -> qemu.VirtualMachine:
    files = []
    for number, (name, text) in enumerate(sorted(given.files.items())):
        file = work / f"credential{number}"
        file.write_text(text)
        files.append((f"{FW_CFG}{name}", file))
    return qemu.VirtualMachine(
        *_written_to(disk), disk.overlay is None, accelerator, disk.uuid, work / "console", work / "report",
        smbios=given.smbios, files=tuple(files), seed=disk.seed, direct=disk.direct,
    )  # fmt: skip


def _console(machine: qemu.VirtualMachine) -> str:
    return machine.console.read_text(errors="replace") if machine.console.exists() else ""
