"""Which accelerators work here, found out by really running something. Edge: starts QEMU."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from hardening.foundation.console import say
from hardening.foundation.errors import LateError, OutsideError
from hardening.foundation.process import dies_with_us, run, which
from images.boot import qemu

KVM = Path("/dev/kvm")
PROBE_SECONDS = 20


@cache
def accelerators() -> tuple[str, ...]:
    """What to boot with, best first; found out once in a run. TCG always works, and is the last."""
    if not KVM.exists():
        return ("tcg",)
    if works("kvm"):
        return ("kvm", "tcg")
    say(f"{KVM} is there but does not work: machines boot without it, which takes longer")
    return ("tcg",)


def works(accelerator: str) -> bool:
    """Whether a boot sector of ours runs to its end under `accelerator`: one that is there may still be broken."""
    with tempfile.TemporaryDirectory(prefix="goldsmith-probe-") as folder:
        disk = Path(folder, "disk")
        disk.write_bytes(qemu.probe_disk())
        argv = dies_with_us(qemu.probe(accelerator, disk))
        try:
            done = run(argv, env={"TMPDIR": folder}, timeout=PROBE_SECONDS, ok=range(-64, 256))
        except LateError:
            return False
    return done.status == qemu.PROBE_STATUS


def require_qemu() -> None:
    """Raises OutsideError where QEMU or its firmware is missing."""
    lacking = [path.name for path in (qemu.FIRMWARE, qemu.FIRMWARE_VARIABLES) if not path.exists()]
    if which(qemu.PROGRAM) is None:
        lacking.insert(0, qemu.PROGRAM)
    if lacking:
        raise OutsideError(
            f"machines cannot be booted here: {', '.join(lacking)} is missing",
            hint="./goldsmith setup --machines installs it (Debian's qemu-system-x86, ovmf and seabios)",
        )
