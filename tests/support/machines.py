"""A machine's disk for tests, reports as machines send them, and the boots that carry them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from hardening.model import Enforcement, Severity
from hardening.render import Check, Overlay
from images.boot.guest import Errand, parse
from images.boot.observations import Boot

FIRST = "boot 1\nmachine-id aa\n/etc/ssh/ssh_host_ed25519_key.pub f1\n"
AGAIN = FIRST.replace("boot 1", "boot 2")
OTHER = "boot 3\nmachine-id bb\n/etc/ssh/ssh_host_ed25519_key.pub f2\n"
GOOD = {
    "observed.completed": "state running\ntarget graphical.target active\nuptime 11.5\n",
    "observed.failed-units": "units 180\n",
    "observed.listening": "kernel 0\n",
    "observed.identity": FIRST,
}


def check(control: str, text: str, **env: str) -> Check:
    """A control's check."""
    return Check(control, f"About {control}", Severity.HIGH, Enforcement.ENFORCE, text, env)


def overlay(*checks: Check) -> Overlay:
    """An overlay that only checks."""
    return Overlay((), (), checks)


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
