"""A scanner that means harm: it reads no secret, writes nowhere, reaches nobody, and takes no more than its limits."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from hardening.findings import Finding, FindingKind, Outcome, ScanReport
from hardening.foundation import confinement
from hardening.foundation.confinement import read_answer, run_confined
from hardening.foundation.errors import LateError, OutsideError
from hardening.foundation.settings import Settings
from images import feeds
from images.feeds import debsecan_format
from images.scan import SCANNERS, sandbox
from images.scan.base import ScanInputs, Scanner, ScanTarget, report
from images.scan.flow import scan
from images.scan.syft import Bills
from tests.support.loop import processes, until
from tests.support.scanning import LINUX, NO_FEEDS, make_target

pytestmark = pytest.mark.needs("root", "setpriv", "unshare")
NOW = datetime(2026, 11, 25, tzinfo=UTC)


def program(folder: Path, text: str, name: str = "scanner") -> Path:
    """A script in place of a scanner."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/bash\n{text}\n")
    file.chmod(0o755)
    return file


def say(tmp_path: Path, text: str, *reads: Path) -> str:
    """What the script prints, shut in."""
    (work := tmp_path / "work").mkdir()
    return run_confined([str(program(tmp_path / "bin", text))], reads=reads, work=work).stdout


def test_a_script_whose_interpreter_is_gone_is_named(tmp_path: Path) -> None:
    """Such as of a virtual environment that was moved: the bare error named nothing."""
    script = program(tmp_path / "bin", "true")
    script.write_text("#!/nowhere/python\n")
    (work := tmp_path / "work").mkdir()
    with pytest.raises(OutsideError) as error:
        run_confined([str(script)], reads=(), work=work)
    assert f"{script}, or what runs it: No such file or directory" in str(error.value)


@contextmanager
def listening() -> Iterator[tuple[int, list[str]]]:
    """A server on loopback, and who has come to it."""
    came: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                while True:
                    connection, peer = server.accept()
                    came.append(str(peer))
                    connection.close()
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)


def test_it_sees_only_itself_and_what_it_scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret beside the image, in root's home, of a running process, in our environment: none is there."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    (tmp_path / "secret").write_text("planted\n")
    (tmp_path / "image").mkdir()
    (tmp_path / "image/file").write_text("scanned\n")
    said = say(
        tmp_path,
        f"cat {tmp_path}/secret {tmp_path}/image/file /etc/shadow /etc/hostname\nenv\n"
        "cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'; ls -A /root /home /var /run /proc/1/root/etc\n"
        f"ls -A {tmp_path}; exit 0",
        tmp_path / "image",
    )
    assert "scanned" in said
    assert "planted" not in said
    assert "pytest" not in said.replace(str(tmp_path), "")
    assert Path("/etc/shadow").read_text().splitlines()[0] not in said
    assert sorted(said.splitlines()[-3:]) == ["bin", "image", "work"]


def test_it_writes_nowhere_but_to_its_own_folder(tmp_path: Path) -> None:
    """Not into the image, nor the program, nor any folder of the host, nor the kernel's settings."""
    (image := tmp_path / "image").mkdir()
    (image / "file").write_text("as it was")
    # Of the host's own files it is only asked whether it could: a broken defence must not break who runs the tests.
    tries = [
        f"echo bad >{image}/file", f"touch {image}/new", f"rm -f {image}/file", f"chmod 777 {image}/file",
        f"echo bad >{tmp_path}/planted", "[ -w /usr ]", "[ -w /usr/bin/env ]", "[ -w /etc/passwd ]", "echo bad >$0",
        "[ -w /proc/sys/kernel/core_pattern ]", f"mount -o remount,bind,rw {image}", f"umount {image}",
        "mknod $HOME/disk b 254 0", "chroot / true", "unshare --mount true", "nsenter -t 1 -m true",
        f"ln {image}/file $HOME/link", f"kill -0 {os.getpid()}",
    ]  # fmt: skip
    said = say(tmp_path, "\n".join(f"if {{ {one}; }} 2>/dev/null; then echo '{one}'; fi" for one in tries), image)
    done = [line for line in said.splitlines() if "planted" not in line]  # a root of memory takes it, and is gone
    assert done == []
    assert [file.name for file in image.iterdir()] == ["file"]
    assert (image / "file").read_text() == "as it was"
    assert not (tmp_path / "planted").exists()


def test_it_reaches_nobody(tmp_path: Path) -> None:
    """Neither a server of this machine's own loopback, nor a socket in the file system, nor an abstract one."""
    with listening() as (port, came), socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0goldsmith-test-{port}")
        abstract.listen()
        abstract.setblocking(False)
        python = f"import socket; socket.socket(socket.AF_UNIX).connect('\\0goldsmith-test-{port}'); print('reached')"
        said = say(
            tmp_path,
            f"echo >/dev/tcp/127.0.0.1/{port} && echo reached\ncat /proc/net/dev | tail -n +3\n"
            f'{sys.executable} -c "{python}"; exit 0',
        )
        with pytest.raises(BlockingIOError):
            abstract.accept()
    assert came == []
    assert "reached" not in said
    assert [line.partition(":")[0].strip() for line in said.splitlines()] == ["lo"]


def test_it_has_one_capability_and_gets_no_more(tmp_path: Path) -> None:
    """The one to read what belongs to others; a setuid program gives none."""
    said = say(tmp_path, "grep -E 'Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status")
    assert {line.split()[0]: int(line.split()[1], 16) for line in said.splitlines()} == {
        "CapPrm:": 2, "CapEff:": 2, "CapBnd:": 2, "CapAmb:": 0, "NoNewPrivs:": 1
    }  # fmt: skip


def test_it_takes_no_more_memory_than_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a bigger file; what it reserves and does not use is not counted."""
    monkeypatch.setattr(confinement, "MEMORY_BYTES", 256 << 20)
    monkeypatch.setattr(confinement, "FILE_BYTES", 1 << 20)
    take = "import mmap\nmmap.mmap(-1, 64 << 30, flags=mmap.MAP_PRIVATE | 0x4000, prot=0)\nprint('reserved')\n"
    said = say(
        tmp_path,
        f"cat >$HOME/take.py <<'E'\n{take}try:\n    bytearray(512 << 20)\n    print('taken')\nexcept MemoryError:\n"
        f"    print('refused')\nE\n{sys.executable} $HOME/take.py\n"
        "head -c 2M /dev/zero >$HOME/big; stat -c %s $HOME/big",
    )
    assert said.split() == ["reserved", "refused", str(1 << 20)]


def test_it_ends_with_all_that_it_started_when_it_is_late(tmp_path: Path) -> None:
    """What it left in the background too."""
    mark = f"sleep 9{os.getpid()}"
    (tmp_path / "work").mkdir()
    scanner = program(tmp_path / "bin", f"setsid {mark} & {mark}")
    with pytest.raises(LateError, match=r"^scanner did not finish within 1 s"):
        run_confined([str(scanner)], reads=(), work=tmp_path / "work", timeout=1)
    until(lambda: processes(mark) == [], "the end of what it started")


def test_where_it_cannot_be_shut_in_it_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that gives no namespaces is an error, and no scan without them."""
    monkeypatch.setattr(confinement, "_apart", lambda: ("--no-such-namespace",))
    with pytest.raises(OutsideError, match="scanner ended with status 1") as error:
        say(tmp_path, f"touch {tmp_path}/ran")
    assert "no-such-namespace" in error.value.evidence
    monkeypatch.undo()
    (tmp_path / "work.root").write_text("in the way")
    with pytest.raises(OutsideError, match="status 125"):
        run_confined([str(tmp_path / "bin/scanner")], reads=(), work=tmp_path / "work")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("how", ["ln -s {secret} {answer}", "mkfifo {answer}", "mkdir {answer}"])
def test_an_answer_is_a_plain_file_of_its_own(how: str, tmp_path: Path) -> None:
    """A link that it leaves leads to no file of the host, and nobody waits at a pipe."""
    (secret := tmp_path / "secret").write_text("planted")
    answer = tmp_path / "work/answer"
    say(tmp_path, how.format(secret=secret, answer=answer))
    with pytest.raises((OutsideError, OSError)) as error:
        read_answer(answer)
    assert "planted" not in str(error.value)


def test_an_answer_has_a_size_at_which_it_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it prints goes to a file, not into our memory, and is read only up to there."""
    monkeypatch.setattr(confinement, "ANSWER_BYTES", 1000)
    with pytest.raises(OutsideError, match="answer is 2000 bytes; at most 1000"):
        say(tmp_path, "head -c 2000 /dev/zero")


class Thief:
    """A scanner of vulnerabilities that is a thief: whatever it finds of ours stands in its answer."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        (folder / "home/.aws").mkdir(parents=True)
        (folder / "home/.aws/credentials").write_text("planted-file\n")
        tries = [
            f"cat {folder}/home/.aws/credentials /proc/*/environ", "env", f"echo bad >{folder}/left",
            f"echo >/dev/tcp/127.0.0.1/{port} && echo reached", f"echo bad >>{folder}/image/layout/index.json",
            f"find {folder}/image/layout/blobs {folder}/image/tree -type f -exec sh -c 'echo bad >>$0' {{}} \\;",
            f"echo bad >>{folder}/feed/trixie", "for i in $HOME/../*; do echo bad >>$i; done; ls -A $HOME/..",
        ]  # fmt: skip
        self.program = program(folder / "bin", "\n".join([*tries, "echo end"]), "thief")
        self.said = ""

    def scanner(self) -> Scanner:
        """It as one of ours, with the data of debsecan."""

        def command(_target: ScanTarget, _inputs: ScanInputs) -> list[str]:
            return ["thief"]

        def parse(said: str, _target: ScanTarget, inputs: ScanInputs) -> ScanReport:
            self.said = said
            return report("thief", FindingKind.VULNERABILITY, [], 1, "", feed=inputs.feeds["debsecan"])

        return Scanner("thief", FindingKind.VULNERABILITY, "thief", command, parse, feed="debsecan")


@pytest.mark.needs("syft", "debsecan")
def test_a_thief_in_place_of_a_scanner_comes_away_with_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the scan itself: no secret in its answer, image and data as they were, others' findings untouched."""
    target = make_target(tmp_path / "image")
    (tmp_path / "feed").mkdir()
    (tmp_path / "feed/trixie").write_bytes(debsecan_format({**LINUX, "openssl": {"9": ["CVE-2026-0001"]}}))
    (tmp_path / "feed/metadata.json").write_text(f'{{"date": "{NOW.isoformat()}"}}')
    settings = Settings(state=tmp_path / "state", retry_for="0s", feeds=NO_FEEDS | {"debsecan": str(tmp_path / "feed")})
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    before = {file: file.read_bytes() for file in files}
    with listening() as (port, came):
        thief = Thief(tmp_path, port)
        monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
        monkeypatch.setenv("HOME", f"{tmp_path}/home")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-variable")
        result = scan(target, settings, {"thief": thief.scanner(), "debsecan": SCANNERS["debsecan"]}, now=NOW)
    assert thief.said.endswith("end\n")
    assert came == []
    assert not [word for word in ("planted", "reached", "syft") if word in thief.said]
    assert {file: file.read_bytes() for file in files} == before
    assert not (tmp_path / "left").exists()
    assert [r.outcome for r in result.reports] == [Outcome.FAIL, Outcome.PASS]


def findings(result: object) -> set[tuple[str, str]]:
    """Kind and id of what was found."""
    found: tuple[Finding, ...] = getattr(result, "findings")  # noqa: B009
    return {(finding.kind, finding.id) for finding in found}


KEY = "\n".join(
    ["-----BEGIN RSA PRIVATE " + "KEY-----", *["MIIEpAIBAAKCAQEA04up8hoqzS1APIB0RhjXyObwHQnOzhAk5Bd7mhkSbPkyhP1"] * 3]
)
SILENCED = """# hadolint global ignore=DL3020
FROM scratch
# hadolint shell=powershell
# hadolint ignore=DL3020
ADD x /x
RUN true \\
 # shellcheck disable=SC2086
 && rm $HOME
"""


@pytest.mark.needs("trivy", "syft", "hadolint")
def test_no_variable_file_or_remark_keeps_a_finding_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Severities, ignore and skip lists in the environment, in the folder that we run in and at home; pragmas."""
    home = tmp_path / "home"
    home.mkdir()
    for file, text in {
        "trivy.yaml": "severity: [LOW]\nscan: {skip-dirs: ['**']}\n", ".trivyignore": "private-key\nDS-0002\n",
        ".trivyignore.yaml": "secrets: [{id: private-key}]\n", ".hadolint.yaml": "ignored: [DL3020, SC2086]\n",
        ".syft.yaml": "exclude: ['**']\n", "trivy-secret.yaml": "disable-rules: [private-key]\n",
    }.items():  # fmt: skip
        (home / file).write_text(text)
    monkeypatch.chdir(home)
    for name, value in {
        "HOME": str(home), "XDG_CONFIG_HOME": str(home), "TRIVY_SEVERITY": "LOW", "TRIVY_SKIP_DIRS": "/root",
        "TRIVY_SKIP_FILES": "/root/id_rsa", "TRIVY_IGNOREFILE": str(home / ".trivyignore"), "TRIVY_EXIT_CODE": "3",
        "HADOLINT_IGNORE": "DL3020,SC2086", "HADOLINT_CONFIG": str(home / ".hadolint.yaml"),
        "HADOLINT_FAILURE_THRESHOLD": "error", "SYFT_EXCLUDE": "**", "SYFT_SELECT_CATALOGERS": "-dpkg",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    target = make_target(
        tmp_path, layers=({"root/id_rsa": f"{KEY}\n-----END RSA PRIVATE KEY-----\n".encode()},),
        config={"Env": ["A=b"]}, dockerfile=SILENCED,
    )  # fmt: skip
    scanners = {name: SCANNERS[name] for name in ("hadolint", "trivy-config", "trivy-secret")}
    settings = Settings(state=tmp_path / "state", retry_for="0s", feeds=NO_FEEDS)
    result = scan(target, settings, scanners, now=NOW)
    assert {
        (FindingKind.SECRET, "private-key"), (FindingKind.MISCONFIGURATION, "DS-0002"),
        (FindingKind.MISCONFIGURATION, "DL3020"), (FindingKind.MISCONFIGURATION, "SC2086"),
    } <= findings(result)  # fmt: skip
    assert "libc6" in result.sbom.decode()


@pytest.mark.needs("syft")
@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("0.69.4", "refused: version 0.69.4 was published by whoever took over"), ("0.69.5", "version 0.69.5"),
        ("0.69.6", "version 0.69.6"), ("unknown", "it does not tell its version"), ("0.69.3", ""), ("0.69.40", ""),
    ],
)  # fmt: skip
def test_a_version_that_is_denied_does_not_scan(
    version: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one that tells none: an error, which never counts as a pass. Others do."""
    asked = f'[ "$1" = --version ] && echo "Version: {version}" && exit\necho \'{{"SchemaVersion": 2}}\''
    program(tmp_path / "bin", asked, "trivy")
    monkeypatch.setattr("images.scan.flow.process.which", lambda name: tmp_path / "bin" / name)
    monkeypatch.setattr("images.scan.flow._sbom", lambda *_: Bills(b"", b""))
    target = make_target(tmp_path / "image")
    settings = Settings(state=tmp_path / "state", retry_for="0s", feeds=NO_FEEDS)
    one = scan(target, settings, {"trivy-secret": SCANNERS["trivy-secret"]}, now=NOW).reports[0]
    assert reason in one.reason
    assert one.outcome is (Outcome.ERROR if reason else Outcome.NOT_EVALUATED)  # NOT_EVALUATED: it opened no layer


def test_a_version_that_is_denied_downloads_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the network it could do more harm than in a scan."""
    script = f'[ "$1" = --version ] && echo "Version: 0.69.5" && exit\ntouch {tmp_path}/ran'
    trivy = program(tmp_path / "bin", script, "trivy")
    monkeypatch.setattr("images.feeds.which", lambda _name: trivy)
    with pytest.raises(OutsideError, match=r"is refused: version 0\.69\.5 was published by whoever took over"):
        feeds.keep_trivy_current(tmp_path / "data", NOW, timedelta(0))
    assert not (tmp_path / "ran").exists()


def test_every_denied_version_has_its_reason_and_its_date() -> None:
    """In one list."""
    assert {one.program for one in sandbox.DENIED} == {"trivy"}
    assert all(one.reason and date(2020, 1, 1) < one.since and one.versions for one in sandbox.DENIED)
    assert replace(sandbox.DENIED[0]).versions == ("0.69.4", "0.69.5", "0.69.6")
