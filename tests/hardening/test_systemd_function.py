"""What the controls' shell functions of systemd make of its configuration and of its answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardening.foundation.process import run
from hardening.foundation.settings import ROOT

FUNCTIONS = (ROOT / "hardening/functions/systemd.sh").read_text()
GOOD = "/usr/sbin/dockerd -H fd://"


def told(tree: Path, call: str, path: str = "/usr/bin:/bin") -> str:
    """What a call of the functions says."""
    done = run(["sh", "-c", f"set -eu\n{FUNCTIONS}\n{call}"], env={"ROOT": str(tree), "PATH": path})
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize(
    ("drop_in", "value"),
    [
        ("", GOOD),
        ("[Service]\nExecStart=\nExecStart=/bin/x", "/bin/x"),
        ("[Service]\nExecStart=/bin/x \\\n# why\n  --all", "/bin/x    --all"),
        ("[Service]\nUser=x \\\nExecStart=/bin/x", GOOD),
        ("[Unit]\nExecStart=/bin/x", GOOD),
        ("ExecStart=/bin/x\n[Service]", f"/bin/x or {GOOD}"),
        ("[Service]\n# /etc/x.conf\nExecStart=/bin/x", f"/bin/x or {GOOD}"),
        ("[Service]\n# /etc/x is read\nExecStart=/bin/x", "/bin/x"),
        ("[Service]\nExecStart=/bin/x \\\n# /etc/x.conf\n --all", "/bin/x  \\"),
    ],
)
def test_a_setting_is_what_counts_at_last(tmp_path: Path, drop_in: str, value: str) -> None:
    """With continued lines; where a comment looks like the name of a file, nothing is hidden by it."""
    folder = tmp_path / "etc/systemd/system"
    (folder / "docker.service.d").mkdir(parents=True)
    (folder / "docker.service").write_text(f"[Service]\nExecStart={GOOD}\n")
    (folder / "docker.service.d/x.conf").write_text(f"{drop_in}\n")
    assert told(tmp_path, "setting system/docker.service Service ExecStart") == value


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("active\nactive", ""),
        ("active\ninactive", "b.service is inactive"),
        ("failed\nunknown", "a.service is failed\nb.service is unknown"),
        (
            "System has not been booted with systemd as init system (PID 1).\nFailed to connect: Host is down",
            "systemd does not answer: System has not been booted with systemd as init system (PID 1).",
        ),
    ],
)
def test_a_host_without_systemd_says_so_once(tmp_path: Path, answer: str, said: str) -> None:
    """Its excuse is no state of a unit."""
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' '{answer}'\nexit 1\n")
    program.chmod(0o755)
    assert told(tmp_path, "active a.service b.service", f"{tmp_path}:/usr/bin:/bin") == said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("inactive\nunknown", ""),
        ("inactive\nactive", "b.service runs"),
        ("reloading\ninactive", "a.service runs"),
        ("inactive", "systemd does not answer: it says nothing of b.service"),
        ("Failed to connect: Host is down", "systemd does not answer: Failed to connect: Host is down"),
    ],
)
def test_what_systemd_does_not_say_is_not_idle(tmp_path: Path, answer: str, said: str) -> None:
    """Each unit needs an answer of its own."""
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' '{answer}'\nexit 1\n")
    program.chmod(0o755)
    assert told(tmp_path, "idle a.service b.service", f"{tmp_path}:/usr/bin:/bin") == said
