"""Scripts of controls run shut in: they read no secret, change nothing but the tree of an apply, and reach no one."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from hardening.catalog import load_controls, load_profile
from hardening.check import run_checks
from hardening.findings import CheckResult, Outcome
from hardening.foundation.confinement import change_tree
from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import ROOT
from hardening.proof import GOOD, overlay_of

pytestmark = pytest.mark.needs("root", "setpriv", "unshare")


def checked(tree: Path, *scripts: str) -> list[CheckResult]:
    """The results of checks with these scripts on the tree."""
    profile, controls = load_profile([ROOT], "container-base"), load_controls([ROOT])
    overlay = overlay_of(profile, controls, date(2026, 12, 1), only="no-setuid")
    check = overlay.checks[0]
    return list(run_checks(replace(overlay, checks=tuple(replace(check, text=text) for text in scripts)), tree, GOOD))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Just enough to count as a filesystem."""
    for name in ("usr", "etc"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    (tmp_path / "tree/etc/file").write_text("of the image\n")
    return tmp_path / "tree"


def test_a_check_reads_the_tree_and_its_facts_and_no_file_of_the_host(tree: Path) -> None:
    """Not the signing key beside the tree, not root's home, not an engine's socket."""
    (secret := tree.parent / "release.key").write_text("planted")
    script = f'cat "$ROOT/etc/file" "$IMAGE_CONFIG"; cat {secret} /etc/shadow; ls -A /root /run /home; exit 1'
    [result] = checked(tree, script)
    assert "of the image" in result.evidence
    assert '"Entrypoint"' in result.evidence
    assert "planted" not in result.evidence
    assert Path("/etc/shadow").read_text().splitlines()[0] not in result.evidence
    assert "docker" not in result.evidence


def test_a_program_whose_reader_has_enough_ends_without_a_complaint(tree: Path) -> None:
    """As in a shell outside, where the closed pipe ends it: else its error becomes part of the evidence."""
    [result] = checked(tree, "seq 1000000 | grep -q 1; echo seen")
    assert (result.outcome, result.evidence) == (Outcome.PASS, "seen")


@pytest.mark.parametrize(
    "script",
    [
        'touch "$ROOT/etc/new"',
        'echo bad >"$ROOT/etc/file"',
        "touch /var/lib/new",
        "touch /new",
        'echo bad >"$BROUGHT_IN/listed"',
        'touch "${{RUN_LOG%/*}}/new"',
        "touch /usr/new",
        "touch {beside}/new",
        'mount -o remount,bind,rw "$ROOT"',
        'umount "$PWD"',
        "chroot / true",
        "kill -0 {pid}",
        "exec 3<>/dev/tcp/127.0.0.1/{port}",
    ],
)
def test_a_check_changes_nothing_and_reaches_no_one(tree: Path, script: str) -> None:
    """It could write to /var/lib and connect to services of the host."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = script.format(beside=tree.parent, pid=os.getpid(), port=port).replace("'", "'\\''")
        [result] = checked(tree, f"if bash -c '{text}' 2>/dev/null; then echo it could; else echo it could not; fi")
    assert result.evidence == "it could not"
    assert sorted(path.name for path in tree.rglob("*")) == ["etc", "file", "usr"]


@pytest.mark.parametrize("below", ["/tmp", "/var/tmp", "/run"])
def test_a_check_sets_no_other_checks_result(tree: Path, below: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one run see none of each other's processes and files, so that one that fails stays failed."""
    monkeypatch.setattr("tempfile.tempdir", below)
    files = f"/proc/[0-9]*/fd/1 ../*.status ../*/*.out {below}/*/*/*.out {below}/*/*/*.status"
    forge = f"for file in {files}; do echo forged >$file; done 2>/dev/null; ls /proc; exit 1"
    results = checked(tree, *["echo bad; exit 1"] * 3, forge)
    assert [(one.outcome, one.evidence) for one in results[:3]] == [(Outcome.FAIL, "bad")] * 3
    processes = [int(line) for line in results[3].evidence.split() if line.isdecimal()]
    assert processes
    assert max(processes) < 20


def test_a_check_without_a_status_is_an_error(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was killed with what keeps its result, or the disk is full: never a pass, and no mistake of ours."""
    monkeypatch.setattr("hardening.check.run_confined", lambda *_argv, **_limits: None)
    [result] = checked(tree, "echo fine")
    assert (result.outcome, result.evidence) == (Outcome.ERROR, "it was ended before its end, and has no status")


def test_a_check_has_room_for_files_of_its_own_that_go_with_it(tree: Path) -> None:
    """By mktemp, in the folder in which it begins, or in /run."""
    [result] = checked(tree, 'file=$(mktemp); echo seen >"$file"; cp "$file" here && cp here /run/own && cat /run/own')
    assert (result.outcome, result.evidence) == (Outcome.PASS, "seen")


def test_a_check_takes_no_more_memory_and_prints_no_more_than_its_limit(tree: Path) -> None:
    """Both are errors, never a pass."""
    greedy = 'awk \'BEGIN { text = "x"; while (length(text) < 2 ^ 31) text = text text; print "taken" }\''
    taken, printed = checked(tree, greedy, "head -c 2000000 /dev/zero | tr '\\0' x")
    assert (taken.outcome, printed.outcome) == (Outcome.ERROR, Outcome.ERROR)
    assert "prints more than the limit check.answer" in printed.evidence


@pytest.mark.parametrize("below", ["/tmp", "/var/tmp"])
def test_a_script_changes_its_own_tree_alone(below: str) -> None:
    """A link in an image would have led a script of ours to a file of this host."""
    with TemporaryDirectory(dir="/var/tmp") as host, TemporaryDirectory(dir=below) as place:
        (file := Path(host, "file")).write_text("of the host")
        (root := Path(place, "tree")).mkdir()
        (root / "link").symlink_to(file)
        beside = 'touch "$ROOT/../beside" /usr/beside'
        for script in ('echo x > "$ROOT/link"', f"rm {file}", f"cat {file}", beside, "chmod 666 /dev/null"):
            with pytest.raises(OutsideError) as error:
                change_tree(root, ["sh", "-c", script], {})
            assert error.value.message.startswith("sh ended")
            assert "of the host" not in error.value.evidence
        script = 'rm "$(mktemp)"; echo x | tee "$ROOT/own" > /dev/null; chown 5:5 "$ROOT/own"; chmod 4755 "$ROOT/own"'
        change_tree(root, ["sh", "-ec", script], {})
        status = (root / "own").stat()
        assert (file.read_text(), (root / "own").read_text()) == ("of the host", "x\n")
        assert (status.st_uid, status.st_mode & 0o7777) == (5, 0o4755)
        assert not Path(place, "beside").exists()
