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


NEVER = "ConditionPathExists=!/"


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize(
    ("drop_ins", "said"),
    [
        ([], []),
        ([f"[Unit]\n{NEVER}"], [NEVER]),
        (["[Unit]\n\tConditionPathExists = \\\n !/\nAssertHost=a"], ["ConditionPathExists =   !/", "AssertHost=a"]),
        ([f"[Unit]\n{NEVER}", "[Unit]\nConditionHost=\nConditionACPower=true"], ["ConditionACPower=true"]),
        (["[Unit]\nAssertHost=a", "[Unit]\nConditionHost=\nDescription=Condition=x"], ["AssertHost=a"]),
        ([f"[Unit]\n#{NEVER}\n# /usr/lib/systemd/system/a.service\n{NEVER}"], [NEVER]),
    ],
)
def test_a_unit_that_a_drop_in_starts_on_a_condition_alone_is_told(
    tmp_path: Path, drop_ins: list[str], said: list[str]
) -> None:
    """It is enabled, and may never run. Its own file is its package's; an empty setting takes back others."""
    folder = tmp_path / "etc/systemd/system"
    (folder / "a.service.d").mkdir(parents=True)
    (tmp_path / "usr/lib/systemd/system").mkdir(parents=True)
    unit = tmp_path / "usr/lib/systemd/system/a.service"
    unit.write_text("[Unit]\nConditionHost=of-the-package\n[Service]\nExecStart=/bin/a\n")
    for number, text in enumerate(drop_ins):
        (folder / f"a.service.d/{number}.conf").write_text(f"{text}\n")
    found = told(tmp_path, "comes_up a.service").splitlines()
    assert [one.removeprefix("a.service starts only on a condition: ").rpartition(" (")[0] for one in found] == said
    (folder / "a.service.d/z.conf").write_text(f"[Unit]\n{NEVER}\n")
    assert f"{NEVER} (/etc/systemd/system/a.service.d/z.conf)" in told(tmp_path, "comes_up a.service")
    (folder / "a.service").symlink_to("/dev/null")
    assert told(tmp_path, "comes_up a.service") == "a.service is masked"


SILENT = "systemd does not answer: it says nothing of"
EXCUSE = "System has not been booted with systemd as init system (PID 1)."


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("active\nactive", ""),
        ("active\ninactive", "b.service is inactive"),
        ("failed\nunknown", "a.service is failed\nb.service is unknown"),
    ],
)
def test_each_unit_is_told_by_its_own_answer(tmp_path: Path, answer: str, said: str) -> None:
    """What does not run, and should."""
    assert of_two_units(tmp_path, "active", answer) == said


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ({}, ""),
        ({"a.service": "inactive", "b.service": "failed"}, ""),
        ({"a.service": "reloading", "b.service": "inactive"}, "a.service runs"),
        ({"b.service": "active"}, "b.service runs"),
    ],
)
def test_a_unit_that_runs_is_told_by_its_line(tmp_path: Path, units: dict[str, str], said: str) -> None:
    """Among all that systemd has loaded; one that it has not does not run."""
    lines = [f"{unit} loaded {state} x Of a test" for unit, state in {"-.mount": "active", **units}.items()]
    assert of_two_units(tmp_path, "inactive", "\n".join(lines)) == said


@pytest.mark.parametrize("folder", ["run/systemd/system", "run/systemd/generator.late"])
def test_a_unit_that_is_another_ones_name_is_asked_for_by_itself(tmp_path: Path, folder: str) -> None:
    """systemd lists a unit by its own name, and not by the links to it, which it also makes for what an old script
    says that it provides.
    """
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "b.service").symlink_to("/opt/other.service")
    answer = (
        "case $1 in is-active) shift; for _; do echo active; done ;; *) echo other.service loaded active x y ;; esac"
    )
    assert of_two_units(tmp_path, "inactive", None, answer) == "b.service runs"


@pytest.mark.parametrize("call", ["active", "inactive"])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (f"{EXCUSE}\nFailed to connect: Host is down", f"systemd does not answer: {EXCUSE}"),
        ("", "systemd does not answer: an empty line"),
        (None, f"{SILENT} a.service b.service"),
    ],
)
def test_what_systemd_does_not_say_is_told_once(tmp_path: Path, call: str, answer: str | None, said: str) -> None:
    """An excuse is no state of a unit, and silence is none either."""
    assert of_two_units(tmp_path, call, answer) == said


def test_each_unit_needs_an_answer(tmp_path: Path) -> None:
    """The first one's is not the second one's, and half a list says nothing of what it lacks."""
    assert of_two_units(tmp_path, "active", "active") == f"{SILENT} b.service"
    half = of_two_units(tmp_path, "inactive", None, "echo a.service loaded inactive dead x\nexit 1")
    assert half == "systemd does not answer: systemctl ended with 1"


def of_two_units(folder: Path, call: str, answer: str | None, script: str = "") -> str:
    """What a call says of `a.service` and `b.service` where systemctl answers these lines, or none, or is `script`."""
    program = folder / "systemctl"
    printed = f"printf '%s\\n' '{answer}'\n" if answer is not None else f"{script}\n"
    program.write_text(f'#!/bin/sh\n{printed}[ "$1" = list-units ]\n')
    program.chmod(0o755)
    return told(folder, f"{call} a.service b.service", f"{folder}:/usr/bin:/bin")
