"""Edge: runs a program shut in: without network, credentials or a way to write, and with limits on time and memory.

A scanner is a stranger's program that reads what a stranger wrote, as root; so is a control's script. It gets
namespaces of its own (mounts, processes, network) and sees only itself and what it is to read (`confined.py`); nothing
of our environment, our state or the host's sockets.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hardening.foundation.errors import LateError, OutsideError
from hardening.foundation.limits import (
    CHECK_MEMORY,
    SCANNER_ANSWER,
    SCANNER_FILE,
    SCANNER_MEMORY,
    SCANNER_SECONDS,
    SCRIPT_SECONDS,
)
from hardening.foundation.process import Completed, bound, failed, run

HERE = Path(__file__).parent
TIMEOUT_SECONDS, ANSWER_BYTES = SCANNER_SECONDS.most, SCANNER_ANSWER.most
MEMORY_BYTES, FILE_BYTES = SCANNER_MEMORY.most, SCANNER_FILE.most
ERROR_BYTES = 20_000
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# By their numbers in linux/capability.h: dac_override alone, so that it can read files of every owner; a command of
# ours that mounts for it has setpcap, sys_chroot and sys_admin too until it is the program's turn. Who changes a tree
# may give files owners, modes and capabilities there, and run its programs: chown, fowner, fsetid, setgid, setuid,
# setfcap.
KEEPS = "1"
MOUNTS = "1,8,18,21"
CHANGES = "0,1,3,4,6,7,18,31"
GO = {"GOGC": "400", "GOMEMLIMIT": f"{MEMORY_BYTES // 3 * 2}"}
"""Programs in Go spend a third of their time on collecting garbage that a short run need not collect."""


def run_confined(
    argv: Sequence[str], *, reads: Iterable[Path | None], work: Path, env: Mapping[str, str] | None = None,
    within: Sequence[str] = (), ok: Sequence[int] = (0,), timeout: float = TIMEOUT_SECONDS, tree: Path | None = None,
    keeps: str = "", memory: int = 0,
) -> Completed:  # fmt: skip
    """Run `argv`, a program by its path, to its end; it sees `reads`, and writes to `work` alone, and to `tree`.

    `within`, a command of ours that runs it, may mount; `argv` may not. `keeps`: the capabilities that `argv` has.
    Raises OutsideError as `process.run` does, and where it cannot be shut in, answers too much, or in no file.
    """
    work = work.absolute()
    keeps = keeps or KEEPS
    bounds = ",".join(["-all", *(f"+cap_{number}" for number in keeps.split(","))])
    program = [*within, "setpriv", f"--bounding-set={bounds}", "--inh-caps=-all", *argv] if within else argv
    seen = sorted({str(path.absolute()) for path in [*_program(argv[0]), *reads] if path})
    holds = f"{keeps},{MOUNTS}" if within else keeps
    asked = [str(work), holds, str(memory or MEMORY_BYTES), str(FILE_BYTES), "\n".join(seen), str(tree or "")]
    shut_in = [sys.executable, "-I", "-S", str(HERE / "confined.py"), *asked, *program]
    own = {"PATH": PATH, "HOME": str(work), "TMPDIR": str(work), "LANG": "C.UTF-8", "LANGUAGE": "", **GO, **(env or {})}
    bare = ["env", "-i", *(f"{name}={value}" for name, value in own.items())]
    try:
        done = run(bound([*bare, *shut_in], *_apart()), ok=range(-64, 256), timeout=timeout)
    except LateError:
        name = Path(argv[0]).name
        raise LateError(f"{name} did not finish within {timeout:g} s", evidence=" ".join(argv)) from None
    said = done.stderr or read_answer(work.with_name(f"{work.name}.err"), ERROR_BYTES)
    done = replace(done, argv=tuple(argv), stdout="", stderr=said)
    if done.status not in ok:
        raise failed(done)
    return replace(done, stdout=read_answer(work.with_name(f"{work.name}.out")))


def change_tree(
    tree: Path, argv: Sequence[str], env: Mapping[str, str], *,
    reads: Iterable[Path] = (), ok: Sequence[int] = (0,), within: Sequence[str] = (),
    seconds: float = SCRIPT_SECONDS.most, memory: int = CHECK_MEMORY.most,
) -> Completed:  # fmt: skip
    """Run a script that can change the filesystem at `tree`, its $ROOT, and nothing else. Needs root.

    `within` and what it raises: as of `run_confined`.
    """
    tree = tree.resolve()
    with tempfile.TemporaryDirectory(prefix="goldsmith-script-") as folder:
        (work := Path(folder) / "work").mkdir()
        given = {"ROOT": str(tree), **env}
        return run_confined(
            argv, reads=reads, work=work, env=given, within=within, tree=tree, keeps=CHANGES, ok=ok, timeout=seconds,
            memory=memory,
        )  # fmt: skip


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
