"""A machine's disk for tests, reports as machines send them, and the boots that carry them."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trees import Trees

from hardening.foundation.process import run
from hardening.model import Enforcement, Severity
from hardening.render import Check, Overlay
from images.boot.model import Boot
from images.boot.payload import Errand
from images.boot.stream import parse
from images.machines.disk import DiskSpec, assemble

READY_DISK = "GOLDSMITH_TEST_DISK"
"""Names a raw disk that is there already, for quick trials; it is not changed."""
EPOCH = 1_700_000_000
FIRST = "boot 1\nmachine-id aa\n/etc/ssh/ssh_host_ed25519_key.pub f1\n"
AGAIN = FIRST.replace("boot 1", "boot 2")
OTHER = "boot 3\nmachine-id bb\n/etc/ssh/ssh_host_ed25519_key.pub f2\n"
GOOD = {
    "observed.completed": "state running\ntarget graphical.target active\nuptime 11.5\n",
    "observed.failed-units": "units 180\n",
    "observed.listening": "kernel 0\n",
    "observed.identity": FIRST,
}
# What an image must do by itself before it can be booted: these stand for controls that other tests prove.
FINISH = """
rm -f /etc/ssh/ssh_host_*_key* /etc/hostname /var/lib/dbus/machine-id
: >/etc/machine-id
mkdir -p /etc/systemd/system/ssh.service.d /etc/systemd/resolved.conf.d
printf '[Service]\\nExecStartPre=\\nExecStartPre=/usr/bin/ssh-keygen -A\\n' >/etc/systemd/system/ssh.service.d/keys.conf
printf '[Resolve]\\nLLMNR=no\\nMulticastDNS=no\\n' >/etc/systemd/resolved.conf.d/quiet.conf
printf '[Match]\\nName=en*\\n[Network]\\nDHCP=yes\\n' >/etc/systemd/network/80-dhcp.network
systemctl enable systemd-networkd
update-initramfs -c -k all
"""


@contextmanager
def bootable(folder: Path) -> Iterator[Path]:
    """A raw disk of the unhardened machine tree, with no more done to it than a boot takes."""
    if ready := os.environ.get(READY_DISK):
        yield Path(ready)
        return
    trees = Trees(folder)
    try:
        tree = trees.copy(trees.of("machine-base", "unhardened"), folder / "copy")
        run(["chroot", str(tree), "sh", "-euc", FINISH], timeout=300)
        work = folder / "assembled"
        work.mkdir()
        yield assemble(tree, DiskSpec("root=LABEL=root rw console=ttyS0"), work, EPOCH)
    finally:
        trees.unmount()


def check(control: str, text: str, **env: str) -> Check:
    """A control's check."""
    return Check(control, f"About {control}", Severity.HIGH, Enforcement.ENFORCE, text, env)


def overlay(*checks: Check) -> Overlay:
    """An overlay that only checks."""
    return Overlay((), (), checks, "sha256:0")


def line(name: str, stdout: str, status: int = 0, stderr: str = "") -> str:
    """One record as guest.sh sends it."""
    out, err = (b64encode(text.encode()).decode() for text in (stdout, stderr))
    return f"record {name} {status} out={out} err={err}\n"


def report(said: Mapping[str, str]) -> bytes:
    """A whole report of commands that all ended with 0."""
    return ("".join(line(name, text) for name, text in said.items()) + f"end {len(said)}\n").encode()


def booted(title: str = "first boot", *, late: bool = False, console: str = "login:", **said: Any) -> Boot:
    """A boot whose machine said what a good one says, but for the observations in `said`, as in `identity="…"`."""
    changed = {f"observed.{name.replace('_', '-')}": text for name, text in said.items()}
    records = {**GOOD, **changed}
    return Boot(title, parse(report(records), list(records)), console, "tcg", 18.0, late)


def silent(title: str = "first boot") -> Boot:
    """A boot whose machine never reported."""
    return Boot(title, parse(b"", Errand().expected), "Kernel panic - not syncing\n", "tcg", 540.0, True)
