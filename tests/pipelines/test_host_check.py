"""`control.check --host`: a host is asked over real ssh, changes nothing there, and what it says is data."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hardening.catalog import load_controls
from hardening.findings import Outcome, Severity
from hardening.foundation import limits
from hardening.foundation.engine_address import engine_address
from hardening.foundation.errors import LateError, OutsideError, UsageError
from hardening.foundation.limits import Limit
from hardening.foundation.process import run
from hardening.model import Control, Enforcement, LoadedControl
from hardening.render import Check
from images.boot.guest import Record, parse
from pipelines import host_check
from pipelines.host_check import SHELL, check_host, host_address, questions, results, script
from tests.support.hosts import SshHost, sshd

needs_root = pytest.mark.needs("root")
WEB = engine_address("ssh://ops@web-2")


def check(name: str, text: str, **env: str) -> Check:
    """A check as a profile renders it."""
    return Check(name, "", Severity.LOW, Enforcement.ENFORCE, text, env)


def controls(*checks: Check, before_boot: bool = False) -> dict[str, LoadedControl]:
    """The controls of checks."""
    return {
        one.control: LoadedControl(
            Control(
                id=one.control, title="t", severity=Severity.LOW, applies_to=("machine",), owner="o", rationale="r",
                cost="c", before_boot=before_boot,
            ),
            Path(), None, one.text, {},
        )
        for one in checks
    }  # fmt: skip


def asked(*checks: Check, at: object = None, config: Path | None = None) -> dict[str, tuple[Outcome, str]]:
    """What a host says to checks."""
    found = check_host(at, checks, controls(*checks), config)  # type: ignore[arg-type]
    return {one.control: (one.outcome, one.evidence) for one in found}


@pytest.mark.parametrize("text", ["ops@web-2", "ssh://ops@web-2"])
def test_a_host_is_named_as_for_ssh(text: str) -> None:
    """With or without the scheme; an empty address is this host."""
    assert host_address(text) == WEB
    assert host_address("") is None


@pytest.mark.parametrize(
    "text", ["tcp://10.0.0.5", "unix:///run/docker.sock", "-oProxyCommand=id", "ssh://a b", "a:b@c"]
)
def test_nothing_else_is_a_way_to_a_shell(text: str) -> None:
    """No option of ssh, no engine's port, no password."""
    with pytest.raises(UsageError, match="--host"):
        host_address(text)


def test_files_are_asked_once_and_what_runs_where_a_check_looks_at_it() -> None:
    """What is about an image before its first boot is not asked of a host's files."""
    files, both = check("files", "echo"), check("both", "[ $LIVE = 1 ]")
    names = [one.name for one in questions([files, both], controls(files, both))]
    assert names == ["files.files", "both.files", "both.live"]
    assert [one.name for one in questions([files, both], controls(files, both, before_boot=True))] == ["both.live"]
    left, _ = results([files, both], [], {})
    assert (left.outcome, left.evidence) == (Outcome.NOT_APPLICABLE, host_check.BEFORE_BOOT)
    with pytest.raises(UsageError, match="nothing to check on a host: files concerns images"):
        check_host(engine_address("ssh://nobody@host.invalid"), [files], controls(files, before_boot=True))


def test_the_worse_of_files_and_what_runs_counts_and_a_late_check_is_no_pass() -> None:
    """Each is evidence; timeout's status is an error."""
    one, late = check("one", "LIVE"), check("late", "x")
    told = {
        "one.files": Record("one.files", 0, "fine", ""), "one.live": Record("one.live", 1, "open", ""),
        "late.files": Record("late.files", 124, "", ""),
    }  # fmt: skip
    first, second = results([one, late], questions([one, late], controls(one, late)), told)
    assert (first.outcome, first.evidence) == (Outcome.FAIL, "running: fail: open\nits files: pass: fine")
    assert (second.outcome, second.evidence) == (Outcome.ERROR, "the check did not finish within 300 s")


def test_what_both_say_stands_there_once() -> None:
    """A check may look at the same whether it is asked of files or of what runs."""
    one = check("one", "LIVE")
    told = {name: Record(name, 1, "open", "") for name in ("one.files", "one.live")}
    [same] = results([one], questions([one], controls(one)), told)
    assert (same.outcome, same.evidence) == (Outcome.FAIL, "running and its files: fail: open")


def test_values_reach_a_check_as_they_are() -> None:
    """Quotes and newlines in parameters are no words of the shell."""
    text = script(questions([check("one", "echo", PARAM_A="it's\n$(id)")], controls(check("one", "echo"))))
    assert "'PARAM_A=it'\"'\"'s\n$(id)'" in text


# -- a host that is real: this one ------------------------------------------------------------------------------------


@needs_root
def test_a_check_sees_the_host_and_can_change_nothing_on_it(tmp_path: Path) -> None:
    """Neither files, nor the kernel's settings; it has memory for what it notes."""
    seen = tmp_path / "seen"
    seen.write_text("of the host")
    file, setting = tmp_path / "written", "/proc/sys/vm/swappiness"
    said = asked(
        check("reads", f"cat {seen}; echo at $ROOT"),
        check("writes", f"echo x > {file} || echo kept out; cat {setting} > {setting} || echo kept out; exit 1"),
        check("removes", f"rm -f {seen} 2>&1 || true; exit 1"),
        check("notes", 'folder=$(mktemp -d) && echo noted > "$folder/x" && cat "$folder/x"'),
        check("asks", "cat; echo nothing is said to it"),
    )
    assert said["reads"] == (Outcome.PASS, "of the hostat /")
    assert said["writes"][1].count("kept out") == 2
    assert "Read-only file system" in said["removes"][1]
    assert said["notes"] == (Outcome.PASS, "noted")
    assert said["asks"] == (Outcome.PASS, "nothing is said to it")
    assert seen.exists()
    assert not file.exists()


DISK = """
mount -t tmpfs tmpfs /mnt && mkdir /mnt/data && mount -t tmpfs tmpfs /mnt/data && echo of the host >/mnt/data/file
exec sh -c "$1"
"""


@needs_root
def test_what_is_mounted_on_mnt_is_seen_and_read_only() -> None:
    """As every other folder: what the script notes hides nothing of the host."""
    looks, writes = "cat /mnt/data/file; ls -A /mnt /run | grep -cx 'one[.].*'", "touch /mnt/data/x /mnt/x 2>&1; exit 1"
    one = check("one", f"{looks}; {writes}")
    text = script(questions([one], controls(one)))
    done = run(["unshare", "--mount", "--propagation", "private", "sh", "-euc", DISK, "sh", SHELL], stdin=text)
    said = parse(done.stdout.encode(), ["one.files"]).records["one.files"].stdout
    assert said.splitlines()[:2] == ["of the host", "0"]
    assert said.count("Read-only file system") == 2


@needs_root
def test_a_file_that_goes_while_a_check_looks_is_no_complaint(tmp_path: Path) -> None:
    """A host goes on while it is asked, so find is told so, after its folders and before its conditions."""
    program = tmp_path / "find"
    program.write_text('#!/bin/sh\necho "$*"\n')
    program.chmod(0o755)
    calls = ["find -H . 'a b' -xdev -name x", "find / '(' -type f ')'", "find usr ! -type d", "find etc"]
    said = asked(check("one", f"PATH={tmp_path}:$PATH; n=7 first=; {'; '.join(calls)}; echo $n$first"))
    race = "-ignore_readdir_race"
    assert said["one"][1].splitlines() == [
        f"-H . a b {race} -xdev -name x", f"/ {race} ( -type f )", f"usr {race} ! -type d", f"etc {race}", "7",
    ]  # fmt: skip


@needs_root
def test_a_check_that_breaks_or_complains_is_no_pass() -> None:
    """As on an image."""
    said = asked(
        check("complains", "echo fine; echo 'no rights' >&2"), check("silent", "true"), check("ends", "exit 7")
    )
    assert {name: outcome for name, (outcome, _) in said.items()} == dict.fromkeys(
        ("complains", "silent", "ends"), Outcome.ERROR
    )


# -- by ssh -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    """This host by ssh; its commands see another DOCKER_HOST than ours."""
    with sshd(tmp_path_factory.mktemp("ssh"), "unix:///run/of-the-far-host.sock") as host:
        yield host


@needs_root
@pytest.mark.needs("sshd")
@pytest.mark.slow
def test_a_host_is_asked_by_ssh_and_keeps_nothing(far: SshHost) -> None:
    """By ssh's own program; the engine that is asked is the host's own."""
    before = {path.name for path in Path("/run").iterdir()}
    one = check("one", 'echo "$DOCKER_HOST as $(id -u)"; [ "$LIVE" = 0 ]')
    said = asked(one, at=engine_address(far.address), config=far.config)
    where = "unix:///run/of-the-far-host.sock as 0"
    assert said["one"] == (Outcome.FAIL, f"running: fail: {where}\nits files: pass: {where}")
    kept = {path.name for path in Path("/run").iterdir()} - before
    assert not [name for name in kept if name.startswith("one.")]


@needs_root
@pytest.mark.needs("sshd")
@pytest.mark.slow
def test_a_host_whose_key_is_not_known_is_not_asked(far: SshHost) -> None:
    """Whatever the configuration says."""
    far.known.write_text("")
    try:
        with pytest.raises(OutsideError, match="Host key verification failed"):
            asked(check("one", "echo"), at=engine_address(far.address), config=far.config)
    finally:
        far.known.write_text(far.key)


# -- a host that lies -------------------------------------------------------------------------------------------------


@pytest.fixture
def lying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program in ssh's place, by its Python."""

    def put(code: str) -> None:
        program = tmp_path / "ssh"
        program.write_text(f"#!{sys.executable}\nimport os, sys, time\n{code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return put


READ = "sys.stdin.buffer.read()\n"
RECORD = "record one.files 0 out=ZmluZQ== err="


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("", "reported nothing"),
        (f"print({RECORD!r})", "breaks off after 1 of 1 records"),
        (f"print({RECORD!r}); print({RECORD!r}); print('end 2')", "missing, unexpected or doubled records"),
        (
            "print('record two.files 0 out= err='); print('end 1')",
            "unexpected or doubled records: one.files, two.files",
        ),
        ("print('record one.files 0 out=%%% err='); print('end 1')", "is damaged"),
        ("print('\\x1b[2J'); sys.stdout.buffer.write(os.urandom(9999))", "report"),
        ("sys.exit('sudo: a password is required')", "sudo: a password is required"),
    ],
)
def test_an_answer_that_is_not_whole_says_nothing_of_the_host(
    lying: Callable[[str], None], says: str, why: str
) -> None:
    """Exit code 4, never a pass."""
    lying(READ + says)
    with pytest.raises(OutsideError, match=why):
        asked(check("one", "echo"), at=WEB)


def test_a_host_that_ends_without_listening_is_no_crash(lying: Callable[[str], None]) -> None:
    """Its last words say why."""
    lying("os.close(0); sys.exit('Permission denied (publickey).')")
    with pytest.raises(OutsideError, match="Permission denied"):
        asked(check("one", "echo " + "x" * 4_000_000), at=WEB)


def test_an_endless_answer_ends_at_the_limit(lying: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is kept."""
    monkeypatch.setattr(host_check, "HOST_ANSWER", Limit("host.answer", 100_000))
    lying(READ + "while True: sys.stdout.write('x' * 65536)")
    with pytest.raises(OutsideError, match=r"ssh://ops@web-2 says exceeds the limit host.answer"):
        asked(check("one", "echo"), at=WEB)


def test_who_is_given_up_is_ended(
    lying: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No ssh, and no script on this host, goes on after what was asked of it counts no more."""
    monkeypatch.setattr(host_check, "HOST_ANSWER", Limit("host.answer", 100_000))
    pid = tmp_path / "pid"
    lying(f"open({str(pid)!r}, 'w').write(str(os.getpid())); print('x' * 200_000, flush=True); time.sleep(600)")
    with pytest.raises(OutsideError, match="exceeds the limit"):
        asked(check("one", "echo"), at=WEB)
    assert not Path("/proc", pid.read_text()).exists()


def test_a_host_that_never_answers_is_given_up(lying: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that never reads what it is asked."""
    monkeypatch.setattr(host_check, "HOST_SECONDS", Limit("host.seconds", 0, "seconds"))
    lying("time.sleep(600)")
    for text in ("echo", "echo " + "x" * 4_000_000):
        with pytest.raises(LateError, match=r"did not answer within the limit host\.seconds"):
            asked(check("one", text), at=WEB)


def test_what_a_host_says_is_shown_as_text(lying: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    """Markup and control characters of its evidence stay what they are."""
    from hardening.findings import CheckResult
    from pipelines.cli.image_output import show_checks
    from pipelines.contract import VerifyLine

    result = CheckResult("one", "", Severity.LOW, Enforcement.ENFORCE, Outcome.FAIL, "\x1b[2J[red]evil[/red]\r")
    show_checks(
        [VerifyLine(name="web-2", digest="", passed=False, checks=(result,), todo={"one": ("do",)})], as_json=False
    )
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert "[red]evil[/red]" in shown
    assert "1. do" in shown


def test_the_limits_are_those_of_the_list() -> None:
    """All that comes from outside is limited in one place."""
    assert (limits.HOST_ANSWER.most, limits.HOST_SECONDS.most) == (16 << 20, 1800)


# -- the command ------------------------------------------------------------------------------------------------------


def test_one_thing_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """An image or a host, not both and not none; without root a host is asked by sudo, which is told."""
    import tasks

    for words in (
        ["debian-base", "--host"], [], ["--host", "tcp://10.0.0.5:2375"],
        ["/"], ["./not\x1b[31mthere"], ["/nonexistent"],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            tasks.main("control.check", *words)
        assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "two things to check" in said
    assert "nothing is named to check" in said
    assert "not a host with a shell" in said
    assert "/ is a folder: --profile must name the profile to check it by" in said
    assert "no such folder: ./not\\x1b[31mthere" in said
    assert "no such folder: /nonexistent" in said
    assert "\x1b" not in said


def test_a_folder_that_is_no_filesystem_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one for each control; nor is a file, named without a slash too."""
    import tasks

    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for name, why in {"./": "has no directories usr and etc", "file": "file is not a directory"}.items():
        with pytest.raises(SystemExit) as ended:
            tasks.main("control.check", name, "--profile", "container-base")
        said = capsys.readouterr()
        assert (ended.value.code, said.out) == (2, "")
        assert f"{why}\n  hint: give the root of a filesystem" in said.err


def test_the_controls_that_ask_only_before_a_boot_are_those_that_a_host_cannot_hold() -> None:
    """Its identity, its keys, its people, its caches and its containers are its own."""
    from hardening.foundation.settings import ROOT

    assert {name for name, one in load_controls([ROOT]).items() if one.control.before_boot} == {
        "containers-confined", "first-boot-identity", "host-keys-first-boot", "no-authorized-keys", "no-baked-identity",
        "no-build-leftovers", "no-default-credentials", "no-documentation", "no-package-caches", "no-secrets",
    }  # fmt: skip


@needs_root
@pytest.mark.slow
def test_a_whole_profile_is_asked_of_this_host(capsys: pytest.CaptureFixture[str]) -> None:
    """Every control of it has a result, and none of them broke for want of a shell's word."""
    import tasks

    with pytest.raises(SystemExit) as ended:
        tasks.main("control.check", "--host", "--control", "sysctl*", "--json")
    assert ended.value.code in (0, 2, 3)
    [line] = json.loads(capsys.readouterr().out)
    assert {one["control"] for one in line["checks"]} == {"sysctl-filesystem", "sysctl-kernel", "sysctl-network"}
