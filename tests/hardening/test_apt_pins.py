"""Which of apt's pins keep security updates away, as the control `unattended-security-updates` reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardening.foundation.process import run
from hardening.foundation.settings import ROOT

CHECK = (ROOT / "hardening/controls/unattended-security-updates/check.sh").read_text()
PINS = CHECK[CHECK.index("pins() {") :].partition("\n}\n")[0] + "\n}\n"
DEBIAN = "Types: deb\nURIs: https://deb.example:8443/debian\nSuites: trixie trixie-updates trixie-security\n"
OTHERS = "deb [signed-by=/k] https://apt.example/docker trixie stable\n"
SECURITY = "Package: *\nPin: release o=Debian,l=Debian-Security\nPin-Priority: 990\n"
NOTHING_ELSE = "Package: *\nPin: release *\nPin-Priority: 1\n"


@pytest.mark.parametrize(
    ("pins", "told"),
    [
        ("Package: *\nPin: origin apt.example\nPin-Priority: 1", []),
        ('Package: *\nPin: origin "apt.example"\nPin-Priority: -1', []),
        ('Package: *\nPin: origin "deb.example"\nPin-Priority: 1', ["*"]),
        ("Package: *\nPin: origin *.example\nPin-Priority: 1", ["*"]),
        ("Package: *\nPin: release  o=Docker\nPin-Priority: 1", []),
        ("Package: snapd telnet:amd64\nPin: release *\nPin-Priority: -1", []),
        ("Package: snapd bash:amd64 src:a ba*\nPin: release *\nPin-Priority: -1", ["bash:amd64", "src:a", "ba*"]),
        (f"{SECURITY}\n{NOTHING_ELSE}", []),
        (f"{SECURITY}\n{NOTHING_ELSE.replace('*', 'bash', 1)}", ["bash"]),
        (f"{NOTHING_ELSE}\n{SECURITY}", ["*"]),
        (f"{SECURITY.replace('990', '50')}\n{NOTHING_ELSE}", ["*", "*"]),
        (f"{SECURITY.replace('-Security', '')}\n{NOTHING_ELSE}", ["*"]),
        ("Package: held\nPin: version 1\nPin-Priority: 1001", []),
    ],
)
def test_a_pin_is_told_where_it_keeps_security_updates_away(tmp_path: Path, pins: str, told: list[str]) -> None:
    """Not one of another host's, of a package that is not there, or of what an earlier one takes all the same."""
    for name, text in (
        ("etc/apt/sources.list.d/debian.sources", DEBIAN), ("etc/apt/sources.list.d/docker.list", OTHERS),
        ("etc/apt/preferences", f"{pins}\n"), ("var/lib/dpkg/status", "Package: bash\n\nPackage: held\n"),
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    done = run(["sh", "-c", f"set -eu\n{PINS}pins"], cwd=tmp_path, env={"PARAM_HOLD": "held"})
    assert [line.rpartition("no updates of ")[2] for line in done.stdout.splitlines()] == told
    assert done.stderr == ""
