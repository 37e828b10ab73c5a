"""Edge: runs a scanner shut in: without network, credentials or a way to write, and with limits on time and memory.

A scanner is a stranger's program that reads what a stranger wrote, as root. It gets namespaces of its own (mounts,
processes, network) and sees only itself and what it scans, read-only (`confined.py`); nothing of our environment.
`DENIED` is the one list of versions that are refused, whatever they find, each with its reason and date.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path

from hardening.foundation.errors import LateError, OutsideError
from hardening.foundation.limits import SCANNER_ANSWER, SCANNER_FILE, SCANNER_MEMORY, SCANNER_SECONDS
from hardening.foundation.process import bound, failed, run

HERE = Path(__file__).parent
TIMEOUT_SECONDS, ANSWER_BYTES = SCANNER_SECONDS.most, SCANNER_ANSWER.most
MEMORY_BYTES, FILE_BYTES = SCANNER_MEMORY.most, SCANNER_FILE.most
ERROR_BYTES = 20_000
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# By their numbers in linux/capability.h: dac_override alone, so that it can read files of every owner; a command of
# ours that mounts for it keeps setpcap, sys_chroot and sys_admin until it is the scanner's turn.
KEEPS = "1"
MOUNTS = "1,8,18,21"
GO = {"GOGC": "400", "GOMEMLIMIT": f"{MEMORY_BYTES // 3 * 2}"}
"""Programs in Go spend a third of their time on collecting garbage that a short run need not collect."""
DROPS = ("setpriv", "--bounding-set=-all,+dac_override", "--inh-caps=-all")


def run_confined(
    argv: Sequence[str], *, reads: Iterable[Path | None], work: Path, env: Mapping[str, str] | None = None,
    within: Sequence[str] = (), ok: Sequence[int] = (0,), timeout: float = TIMEOUT_SECONDS,
) -> str:  # fmt: skip
    """What `argv`, a program by its path, prints when run to its end; it sees `reads`, and writes to `work` alone.

    `within`, a command of ours that runs it, may mount; `argv` may not.
    Raises OutsideError as `process.run` does, and where it cannot be shut in, answers too much, or in no file.
    """
    work = work.absolute()
    program = [*within, *(DROPS if within else ()), *argv]
    seen = sorted({str(path.absolute()) for path in [*_program(argv[0]), *reads] if path})
    limits = [MOUNTS if within else KEEPS, str(MEMORY_BYTES), str(FILE_BYTES)]
    asked = [str(work), *limits, "\n".join(seen)]
    shut_in = [sys.executable, "-I", "-S", str(HERE / "confined.py"), *asked, *program]
    own = {"PATH": PATH, "HOME": str(work), "TMPDIR": str(work), "LANG": "C.UTF-8", "LANGUAGE": "", **GO, **(env or {})}
    bare = ["env", "-i", *(f"{name}={value}" for name, value in own.items())]
    try:
        done = run(bound([*bare, *shut_in], *_apart()), ok=range(-64, 256), timeout=timeout)
    except LateError:
        name = Path(argv[0]).name
        raise LateError(f"{name} did not finish within {timeout:g} s", evidence=" ".join(argv)) from None
    if done.status not in ok:
        said = done.stderr or read_answer(work.with_name(f"{work.name}.err"), ERROR_BYTES)
        raise failed(replace(done, argv=tuple(argv), stdout="", stderr=said))
    return read_answer(work.with_name(f"{work.name}.out"))


def read_answer(path: Path, most: int = 0) -> str:
    """The text of a file that a scanner wrote, or the end of it where `most` bytes are enough.

    Raises OutsideError where it is no plain file (a link would lead to a file of ours) or is too big to be an answer.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OutsideError(f"{path.name} of a scanner is no plain file")
        if not most and status.st_size > ANSWER_BYTES:
            raise OutsideError(f"the scanner's answer is {status.st_size} bytes; at most {ANSWER_BYTES} are read")
        file.seek(max(0, status.st_size - most) if most else 0)
        return file.read(ANSWER_BYTES).decode(errors="replace")


def _apart() -> tuple[str, ...]:
    """More namespaces that it gets; where we are not root, the kernel gives them only with one of users."""
    users = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    return (*users, "--net", "--ipc", "--uts")


def _program(name: str) -> list[Path]:
    """Where the program lies, and the Python that it, or what runs it, may be written for."""
    return [Path(name), Path(sys.prefix), Path(sys.base_prefix), HERE]


@dataclass(frozen=True)
class Denied:
    """Versions of one program that are not run, why, and since when that is known."""

    program: str
    versions: tuple[str, ...]
    reason: str
    since: date


DENIED = (
    Denied(
        "trivy",
        ("0.69.4", "0.69.5", "0.69.6"),
        "published by whoever took over its release pipeline; it steals credentials (CVE-2026-33634)",
        date(2026, 3, 19),
    ),
)
_asking = threading.Lock()


def refuse_denied(program: Path) -> None:
    """Raises OutsideError where `program` is of a version that is denied, or does not tell its version."""
    if any(denied.program == program.name for denied in DENIED):
        status = program.stat()
        version = _version(program, status.st_size, status.st_mtime_ns)
        if reason := why_denied(program.name, version):
            raise OutsideError(f"{program} is refused: {reason}", hint="install another version")


def why_denied(program: str, version: str) -> str:
    """Why that version of `program` is not run; empty where it may be. Pure."""
    if not version:
        return "it does not tell its version, and some versions are denied (images/scan/sandbox.py)"
    denied = next((one for one in DENIED if one.program == program and version in one.versions), None)
    return f"version {version} was {denied.reason}; denied since {denied.since}" if denied else ""


def _version(program: Path, size: int, modified: int) -> str:
    with _asking:  # several scanners may be the same program, and begin at the same moment
        return _told(program, size, modified)


@cache
def _told(program: Path, _size: int, _modified: int) -> str:
    """The version that `program` tells, asked once for each file. It is a stranger's, so it is shut in for that too."""
    with tempfile.TemporaryDirectory(prefix="goldsmith-version-") as folder:
        (work := Path(folder) / "work").mkdir()
        said = run_confined([str(program), "--version"], reads=(), work=work, timeout=60)
    found = re.search(r"\d+\.\d+\.\d+", said)
    return found[0].strip() if found else ""
