"""QEMU really started: on disks that hold no machine, and where it breaks, hangs or is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hardening.findings import Outcome
from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import ROOT
from images.boot import Level, boot, flow, qemu
from tests.images.boot.test_boot import evidence, outcomes
from tests.support.loop import processes, until
from tests.support.machines import check, overlay

pytestmark = pytest.mark.needs("qemu-system-x86_64", str(qemu.FIRMWARE), "setpriv")

ASKS = check("asks", 'echo "LIVE=$LIVE ROOT=$ROOT $PARAM_A; $(systemctl is-active ssh)"', PARAM_A="two\nlines")
HANGING = qemu.probe_program()[:512] + b"\xeb\xfe".ljust(512, b"\0")  # jmp to itself


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    """A disk with nothing on it."""
    made = tmp_path / "blank.raw"
    made.write_bytes(b"\0" * (1 << 20))
    return made


def test_a_disk_that_does_not_boot_has_not_completed(
    blank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ended in time, and nothing of it passes; there is no second boot of what never came up."""
    monkeypatch.setattr(flow, "limits", lambda level, accelerator: (1, 6))
    report = boot(blank, overlay(ASKS), level=Level.RELEASE, listens=(), work=tmp_path)
    assert outcomes(report.results) == {
        "asks": Outcome.ERROR, "boot-completed": Outcome.FAIL, "boot-failed-units": Outcome.ERROR,
        "boot-listening": Outcome.ERROR, "boot-second": Outcome.ERROR,
    }  # fmt: skip
    assert "reported nothing, and did not end within" in evidence(report.results, "boot-completed")


def test_a_qemu_that_fails_says_nothing_of_the_image(blank: Path, tmp_path: Path) -> None:
    """It is the host's fault, with QEMU's own words."""
    task = flow._first(blank, overlay(), Level.RELEASE, tmp_path)
    gone = replace(task, disk=replace(task.disk, path=tmp_path / "no-such-disk"))
    with pytest.raises(OutsideError, match="QEMU ended with status 1") as error:
        flow._reported(gone, (), twice=False)
    assert "no-such-disk" in error.value.evidence


@pytest.mark.parametrize("first", [True, False])
def test_a_machine_whose_qemu_crashes_begins_once_more_unless_it_was_to_go_on(
    blank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """QEMU breaks its own assertions now and then. A disk that a machine has written to half shows no second boot."""
    task = flow._first(blank, overlay(), Level.RELEASE, tmp_path)
    kept = tmp_path / "kept.qcow2"
    kept.touch()
    task = replace(task, disk=replace(task.disk, overlay=kept, first=first))
    argvs: list[list[str]] = []

    def crashing(machine: qemu.VirtualMachine) -> list[str]:
        argvs.append([str(machine.disk.overlay)])
        return ["sh", "-c", "kill -ABRT $$"]

    monkeypatch.setattr(qemu, "command", crashing, raising=True)
    with pytest.raises(OutsideError, match="QEMU ended with status -6"):
        flow.run_boot(task, ["tcg"])
    assert len(argvs) == (2 if first else 1)


def test_a_host_without_qemu_is_told_what_to_install(
    blank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything else is done."""
    monkeypatch.setattr(qemu, "FIRMWARE", tmp_path / "OVMF_CODE_4M.fd")
    with pytest.raises(OutsideError, match=r"cannot be booted here: OVMF_CODE_4M.fd is missing") as error:
        boot(blank, overlay(), level=Level.RELEASE, listens=(), work=tmp_path)
    assert "setup" in error.value.hint


def test_a_boot_without_room_to_write_is_not_begun(
    blank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose writes find no room stands still, which would look like the image's fault."""
    monkeypatch.setattr(flow, "ROOM_BYTES", 1 << 60)
    with pytest.raises(OutsideError, match="a machine needs 1099511627776 MiB") as error:
        boot(blank, overlay(), level=Level.RELEASE, listens=(), work=tmp_path)
    assert "image.prune" in error.value.hint


def test_a_quick_boot_needs_a_disk_with_a_unified_kernel(blank: Path, tmp_path: Path) -> None:
    """A disk without partitions is no machine's."""
    with pytest.raises(OutsideError):
        boot(blank, overlay(), level=Level.QUICK, listens=(), work=tmp_path)


def test_an_accelerator_works_if_a_guest_really_ran_under_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCG does; what QEMU does not have does not; and the choice always ends with TCG."""
    assert flow.accelerators()[-1] == "tcg"
    monkeypatch.setattr(flow, "PROBE_SECONDS", 600)
    assert flow.works("tcg")
    assert not flow.works("none-such")


def test_a_broken_kvm_is_tried_once_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By all processes of a user together; one that works is tried by each, which takes no time."""
    tried: list[str] = []
    monkeypatch.setattr(flow, "_runtime", lambda: tmp_path)
    monkeypatch.setattr(flow, "works", lambda name: tried.append(name) or len(tried) == 2)
    assert [flow._kvm_works(), flow._kvm_works(), len(tried)] == [False, False, 1]
    [note] = tmp_path.iterdir()
    os.utime(note, (0, time.time() - 3601))
    assert [flow._kvm_works(), len(tried)] == [True, 2]


def test_a_guest_that_never_ends_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """An accelerator that hangs is broken too."""
    monkeypatch.setattr(qemu, "probe_program", lambda: HANGING)
    monkeypatch.setattr(flow, "PROBE_SECONDS", 2)
    assert not flow.works("tcg")


def test_a_machine_dies_with_whoever_is_killed(blank: Path, tmp_path: Path) -> None:
    """kill -9 of the gate leaves no QEMU behind."""
    program = (
        "import sys; from pathlib import Path; from hardening.render import Overlay;"
        "from images.boot import boot, Level;"
        "disk, work = map(Path, sys.argv[1:]);"
        "boot(disk, Overlay((), (), ()), level=Level.RELEASE, listens=(), work=work)"
    )
    running = subprocess.Popen([sys.executable, "-c", program, blank, tmp_path], cwd=ROOT, stderr=subprocess.DEVNULL)
    until(lambda: processes("qemu-system", str(tmp_path)), "its start")
    running.send_signal(signal.SIGKILL)
    running.wait()
    until(lambda: not processes("qemu-system", str(tmp_path)), "its end")
