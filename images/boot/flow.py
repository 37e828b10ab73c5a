"""The boot gate: boots a disk under QEMU, checks it, boots it again, and reports the results. Edge."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from uuid import uuid4

from hardening.findings import CheckResult
from hardening.foundation.console import say
from hardening.foundation.errors import ROOM_HINT, LateError, OutsideError
from hardening.foundation.limits import BOOT_OUTPUT, read_all
from hardening.foundation.process import dies_with_us, run, threads, which
from hardening.render import Overlay
from images.boot import observations, qemu
from images.boot.guest import AGAIN, BESIDE, FW_CFG, Errand, credentials, live, parse, smbios_and_files, tail
from images.boot.observations import INSTANCE, Boot, BootReport, Level, limits
from images.boot.qemu import Direct, Disk, VirtualMachine

QCOW2_MAGIC, RAW = b"QFI\xfb", "raw"
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
    task = _first(disk, overlay, level, work)
    return _reported(task, listens, twice=level is not Level.QUICK if twice is None else twice)


@dataclass(frozen=True)
class BootTask:
    """One boot to make; `work` is the gate's folder, in which each boot makes its own."""

    title: str
    disk: Disk
    level: Level
    errand: Errand
    work: Path


def _first(disk: Path, overlay: Overlay, level: Level, work: Path) -> BootTask:
    """The first boot of the gate."""
    errand = Errand(live(overlay.checks), cloud_init=level is Level.FULL)
    machine = Disk(
        disk, _format(disk), a_uuid(),
        direct=direct(disk, work / "kernel") if level is Level.QUICK else None,
        seed=seed(work) if level is Level.FULL else None,
    )  # fmt: skip
    return BootTask("first boot", machine, level, errand, work)


def _reported(task: BootTask, listens: Sequence[str], *, twice: bool) -> BootReport:
    """Boot as often as it takes; the report."""
    errand, disk = task.errand, task.disk
    kept = replace(disk, overlay=task.work / "kept.qcow2") if twice else disk
    say(f"booting {disk.path.name} ({task.level}), with {len(errand.checks)} live checks")
    first = run_boot(replace(task, disk=kept, errand=replace(errand, gently=twice)), accelerators())
    results = [
        *observations.live_results(errand.checks, first),
        *observations.observed(first, listens, cloud_init=errand.cloud_init),
    ]
    boots = [first]
    if twice:
        result, more = _second(task, replace(kept, first=False), first)
        results.append(result)
        boots += more
    return BootReport(tuple(results), "\n".join(boot.log for boot in boots), first.accelerator)


def _second(task: BootTask, kept: Disk, first: Boot) -> tuple[CheckResult, list[Boot]]:
    """Boot the first one's disk again and, at the same time, another new machine; what that showed.

    That one is asked for nothing but what it makes for itself, so it starts without firmware where that can be.
    """
    if not first.stream.whole:
        return observations.no_second(), []
    say("booting it a second time, and another one beside it")
    again = replace(task, title="second boot", disk=kept, errand=Errand(asked=AGAIN))
    disk = task.disk
    if not disk.direct and disk.disk_format == RAW:
        with suppress(OutsideError):  # it has no unified kernel: as it is shipped, then
            disk = replace(disk, direct=direct(disk.path, task.work / "kernel"))
    beside = replace(disk, uuid=a_uuid())
    other = replace(task, title="first boot of another machine", disk=beside, errand=Errand(asked=BESIDE))
    # From here on with what has just worked: a boot that breaks off and is tried again would be no second one.
    with threads(2) as pool:
        boots = list(pool.map(run_boot, (again, other), [[first.accelerator]] * 2))
    return observations.second(first, *boots), boots


def _require_room(work: Path) -> None:
    """Raises OutsideError where what machines write has no room: QEMU would stand still, and the image seem to hang."""
    free = shutil.disk_usage(work).free
    if free < ROOM_BYTES:
        why = f"a machine needs {ROOM_BYTES >> 20} MiB to write to while it boots, and {work} has {free >> 20} MiB"
        raise OutsideError(why, hint=ROOM_HINT)


def _format(disk: Path) -> str:
    with disk.open("rb") as file:
        return "qcow2" if file.read(4) == QCOW2_MAGIC else RAW


def direct(disk: Path, work: Path) -> Direct:
    """What boots the raw `disk` without firmware: first without the initrd, with it where the kernel needs one.

    The files are written to `work`. Raises OutsideError where the disk holds no unified kernel image.
    """
    work.mkdir()
    esp_offset, root_uuid = qemu.partitions(run(["sfdisk", "--json", str(disk)]).stdout)
    image = work / "unified.efi"
    where = f"{disk}@@{esp_offset}"
    run(["mcopy", "-n", "-i", where, f"::{qemu.EFI_PATH}", str(image)], env={"MTOOLS_SKIP_CHECK": "1"})
    with image.open("rb") as file:
        sections = qemu.sections(file.read(qemu.HEADERS_BYTES))
    kernel, initrd, words = (_section(image, sections, name, work) for name in (".linux", ".initrd", ".cmdline"))
    image.unlink()
    bare, full = (qemu.command_line(words.read_text(), root_uuid, initrd=with_it) for with_it in (False, True))
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
        hint = "./goldsmith setup --machines installs it (Debian's qemu-system-x86, ovmf, seabios and mtools)"
        raise OutsideError(f"machines cannot be booted here: {', '.join(lacking)} is missing", hint=hint)


GUEST = Path(__file__).with_name("guest.sh")
NO_ROOT, NO_TIMER = "Unable to mount root fs", "IO-APIC + timer doesn't work"
OUR_MACHINES = "b007b007"


class CrashedError(OutsideError):
    """A signal ended QEMU, or its machine could not run a kernel."""


def a_uuid() -> str:
    """A new machine's id, as a cloud gives each one its own.

    Not of Amazon's kind: cloud-init tells a machine there by the first group of this alone (`ec2…` or `…2?ec`), and
    would wait four minutes for an answer that nobody gives.
    """
    return f"{OUR_MACHINES}{str(uuid4())[len(OUR_MACHINES) :]}"


_at_fault: set[str] = set()


def run_boot(task: BootTask, among: Sequence[str]) -> Boot:
    """Boot once, with the first accelerator of `among` under which the machine reports.

    KVM may be present and break in the middle, so a machine that says nothing under it is tried again without; where it
    speaks then, KVM was at fault, and this process waits for it no more.
    Raises OutsideError where QEMU itself fails under the last of them.
    """
    work = task.work / task.title.replace(" ", "-")
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


def _once(task: BootTask, work: Path, accelerator: str) -> Boot:
    """Boot under one accelerator; a kernel that finds no root without its initrd gets it after all."""
    boot = _attempt_again(task, work, accelerator)
    direct = task.disk.direct
    if direct and direct.spare and NO_ROOT in boot.console:
        return _attempt_again(replace(task, disk=replace(task.disk, direct=direct.spare)), work / "initrd", accelerator)
    return boot


def _attempt_again(task: BootTask, work: Path, accelerator: str) -> Boot:
    """A machine whose QEMU crashes, as QEMU does now and then, begins once more, unless it was to go on with a disk."""
    try:
        return _attempt(task, work, accelerator)
    except CrashedError:
        if task.disk.overlay and not task.disk.first:
            raise
        return _attempt(task, work.with_name(f"{work.name}-again"), accelerator)


def _attempt(task: BootTask, work: Path, accelerator: str) -> Boot:
    work.mkdir()
    patience, seconds = limits(task.level, accelerator)
    errand = replace(task.errand, patience_seconds=patience)
    machine = _machine(task.disk, credentials(GUEST.read_text(), errand), work, accelerator)
    start = time.monotonic()
    late = _runs_late(machine, work, seconds)
    passed = time.monotonic() - start
    report, console = _said(machine.report), _console(machine)
    if NO_TIMER in console and not report:
        hint = "this is QEMU's failure on a crowded host, not the image's: again, when the host has less to do"
        raise CrashedError("the emulated machine gave its kernel no timer", evidence=tail(console), hint=hint)
    return Boot(task.title, parse(report, errand.expected), console, accelerator, passed, late)


def _runs_late(machine: VirtualMachine, work: Path, seconds: int) -> bool:
    """Run the machine to its end; whether it had to be ended, also for saying more than is read (`_said`): it would
    fill the disk. Raises OutsideError where QEMU itself fails.
    """
    argv, written = dies_with_us(qemu.command(machine)), (machine.console, machine.report)

    def enough() -> bool:
        return any(file.exists() and file.stat().st_size > BOOT_OUTPUT.most for file in written)

    try:
        done = run(argv, env={"TMPDIR": str(work)}, timeout=seconds, ok=range(-64, 256), enough=enough)
    except LateError:
        return True
    if done.status:
        said = [done.stderr.strip()[-2000:], tail(_console(machine))]
        raise (CrashedError if done.status < 0 else OutsideError)(
            f"QEMU ended with status {done.status}", evidence="\n".join(filter(None, said)),
            hint="this is QEMU's failure, not the image's",
        )  # fmt: skip
    return False


def _machine(disk: Disk, texts: Mapping[str, str], work: Path, accelerator: str) -> VirtualMachine:
    """The machine of one boot, with the files that it needs."""
    if disk.overlay and disk.first:
        backing = ["-b", str(disk.path.resolve()), "-F", disk.disk_format]
        run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(disk.overlay)])
    smbios, long = smbios_and_files(texts)
    files = {f"{FW_CFG}{name}": work / f"credential{number}" for number, name in enumerate(sorted(long))}
    for name, text in long.items():
        files[f"{FW_CFG}{name}"].write_text(text)
    return VirtualMachine(disk, accelerator, work / "console", work / "report", smbios, files)


def _console(machine: VirtualMachine) -> str:
    return _said(machine.console).decode(errors="replace")


def _said(file: Path) -> bytes:
    """What the machine has written. Raises OutsideError for more than the limit boot.output."""
    if not file.exists():
        return b""
    with file.open("rb") as stream:
        return read_all(stream, BOOT_OUTPUT, f"the {file.name} of a machine that was tried")
