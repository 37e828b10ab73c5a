"""The one module that starts subprocesses. Commands are argument lists, never shell strings, and contain no secrets.

A child sees the variables of our environment that are listed here, and no other. Variables decide what tools do and
hold what people log in with: `TRIVY_SEVERITY`, `PYTHONPATH`, `LD_PRELOAD`, `AWS_SECRET_ACCESS_KEY`, a database's URL.
So each child gets the plain ones, and more only if its caller names a group.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import IO, cast

from hardening.foundation.console import listener
from hardening.foundation.errors import LateError, OutsideError

PLAIN = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "SOURCE_DATE_EPOCH",
    "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_MESSAGES", "LC_NUMERIC", "LC_TIME",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
)  # fmt: skip

_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
# For what talks to a server: proxies, and the authorities that it trusts.
NETWORK = (
    *_PROXIES, *(name.upper() for name in _PROXIES), "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
)  # fmt: skip

# For what logs in at a registry: where the login lies, never the login itself.
REGISTRY = (*NETWORK, "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR")

# For the docker command and BuildKit: which engine, and how it is reached.
ENGINE = (
    *REGISTRY, "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH",
    "DOCKER_API_VERSION", "BUILDX_CONFIG", "BUILDX_BUILDER", "SSH_AUTH_SOCK",
)  # fmt: skip


def _of_git(argv: Sequence[str]) -> dict[str, str]:
    """Variables with which git runs no program that a repository names, fetches nothing, and reads the checkout that
    runs, even if it is another user's. They outrank what the repository says in its own configuration; a folder of
    content that is itself a bare repository (HEAD, config, objects, refs: ordinary files of a commit) is refused.
    """
    settings = {
        "safe.directory": str(Path(__file__).resolve().parents[2]), "safe.bareRepository": "explicit",
        "core.hooksPath": os.devnull, "core.fsmonitor": "false",
    }  # fmt: skip
    variables = {"GIT_CONFIG_COUNT": str(len(settings)), "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": ""}
    for number, (key, value) in enumerate(settings.items()):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return variables if argv[0] == "git" else {}


def allowed(environment: Mapping[str, str], more: Iterable[str] = ()) -> dict[str, str]:
    """The variables of `environment` that a child sees: the plain ones, and those that `more` names."""
    return {name: environment[name] for name in (*PLAIN, *more) if name in environment}


LOOK_SECONDS = 0.2
LAST_LINES = 20
PATIENCE = 5.0
INTERRUPTED = 130  # the status of a program that Ctrl-C ended, in shells: 128 and the number of SIGINT
LEAVE_SECONDS = 75.0  # for a process of ours that is asked to end: more than it lets a step that acts go on
# What runs here has us as its parent, unless we ended before its parent-death signal was set: then nobody would end it.
DYING = ("setpriv", "--pdeathsig", "KILL", "sh", "-c", 'test "$PPID" = "$0" && exec "$@"')
HEARS = ("env", "--default-signal=INT")  # Ctrl-C, also where we were started by what ignores it, as `nohup … &` does


class _Ours(subprocess.Popen[str]):
    """A process of Goldsmith's own: asked to end, it lets the step that acts come to its end first."""


_starting: set[object] = set()
_running: set[subprocess.Popen[str]] = set()
_stopped: set[subprocess.Popen[str]] = set()
_told_to_stop = threading.Event()
_pools = itertools.count()


@dataclass(frozen=True)
class Completed:
    """A finished command: its argv, exit status and what it printed."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    passes: Sequence[str] = (),
    stdin: str | None = None,
    timeout: float | None = None,
    ok: Sequence[int] = (0,),
    hint: str = "",
    enough: Callable[[], bool] | None = None,
) -> Completed:
    """Run `argv` to its end. The whole process group ends with us.

    It sees the plain variables of our environment, those that `passes` names (such as `NETWORK`), and `env`.

    Raises OutsideError, carrying the last lines it printed, when the exit status is not in `ok` or the program is
    absent; LateError when `timeout` (seconds) passes, or `enough` says so, which is asked now and then
    of a command without `stdin`.
    """
    given = {**allowed(os.environ, passes), **(env or {})}
    child = _started(argv, cwd, given, subprocess.DEVNULL if stdin is None else subprocess.PIPE, hint)
    stdout, stderr = _ended(child, stdin, timeout, hint, enough)
    done = Completed(tuple(argv), child.returncode, stdout, stderr)
    if done.status not in ok:
        raise failed(done, hint)
    return done


def follow(argv: Sequence[str], *, cwd: Path) -> int:
    """Run `argv`, which prints for itself while it runs and gets no input; its exit status.

    It sees our whole environment: this runs the project's own tests, which are told by variables what to test against.
    """
    return subprocess.run(list(argv), cwd=cwd, stdin=subprocess.DEVNULL, check=False).returncode


def run_ours(argv: Sequence[str], *, cwd: Path) -> Completed:
    """Run a command of Goldsmith's own in another process, which sees our whole environment and says what it says where
    we do. It ends with us, however that is; in a thread of `threads`, once somebody has told us to stop, it is asked to
    end as by Ctrl-C, and does not begin any more.
    """
    child = _Ours(
        dies_with_us([*HEARS, *argv]), cwd=cwd, text=True, errors="replace", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip
    _running.add(child)
    if _told_to_stop.is_set():
        _stop(child)
    stdout, _ = _ended(child, None, None, "")
    return Completed(tuple(argv), child.returncode, stdout, "")


def run_until(argv: Sequence[str], stopped: Callable[[float], bool], patience: float) -> int | None:
    """Run a command of Goldsmith's own, which says what it says where we do; its exit status. It ends with us.

    None where `stopped(seconds)`, which waits that long, was true before: then it is asked to end as by Ctrl-C, and
    killed after `patience` seconds.
    """
    with subprocess.Popen(dies_with_us([*HEARS, *argv]), stdin=subprocess.DEVNULL) as child:
        while child.poll() is None:
            if stopped(LOOK_SECONDS):
                child.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    child.wait(patience)
                child.kill()
                return None
    return child.returncode


def failed(done: Completed, hint: str = "") -> OutsideError:
    """The error for a command that ended with a status nobody expected: names it and shows its last lines."""
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()[-LAST_LINES:]
    argv = _bare(done.argv)
    shown = " ".join(argv)
    return OutsideError(
        f"{argv[0]} ended with status {done.status}", evidence="\n".join([f"$ {shown}", *lines]), hint=hint
    )


def _bare(argv: Sequence[str]) -> Sequence[str]:
    """The command itself, without what ends it when we do."""
    return argv[len(DYING) + 1 :] if tuple(argv[: len(DYING)]) == DYING else argv


def bound(argv: Sequence[str], *apart: str) -> list[str]:
    """`argv` so that it dies with us, even by kill -9, and takes its mounts and grandchildren along.

    setpriv's parent-death signal ends unshare, whose --kill-child ends PID 1 of the new namespace and so everything
    in it; the mounts live in a namespace of their own and go with it. `apart` are options of unshare for more
    namespaces. Needs root, or one of users among them.
    """
    alone = ["unshare", *apart, "--mount", "--pid", "--fork", "--kill-child=KILL"]
    return [*DYING, str(os.getpid()), *alone, *argv]


def dies_with_us(argv: Sequence[str]) -> list[str]:
    """`argv`, a program that starts no other, so that it ends when we do, however that is. Needs no root.

    One that is absent stays as it is, so that it is named and not what should have started it.
    """
    return [*DYING, str(os.getpid()), *argv] if shutil.which(argv[0]) else list(argv)


@contextmanager
def threads(most: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Threads for work that runs commands. Whoever tells us to stop (Ctrl-C) does not wait for these commands: each is
    ended, which in its thread is a KeyboardInterrupt too, and what is cleaned up after it runs undisturbed. What
    `run_ours` would begin after that is ended as well: it is work, and cleans nothing up; what it has begun is asked to
    end, and ended after LEAVE_SECONDS or when that is said again.
    """
    name = f"commands-{next(_pools)}"
    with ThreadPoolExecutor(most, name, initializer=listener.set, initargs=(listener.get(),)) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            asks = True
            while threading.current_thread() is threading.main_thread():
                _told_to_stop.set()
                stop_running(asks=asks)
                asks = False
                with suppress(KeyboardInterrupt):  # said again: what runs by now ends too
                    for one in threading.enumerate():  # the pool does not know the one that was just starting
                        if one.name.startswith(f"{name}_"):
                            one.join()
                    _told_to_stop.clear()
                    break
            raise


ROLLS = "what rolls ends its step, all else ends now; Ctrl-C again ends at once, and the next run goes on"


@contextmanager
def interruptible(
    says: str = "ending what runs; Ctrl-C again ends at once, without cleaning up",
) -> Iterator[None]:
    """Let Ctrl-C say at once that it ends the block, and with it the process; the second one waits for nothing.

    What the second one leaves, the next run sweeps. SIGINT that is ignored or handled already stays as it is.
    """

    def end(*_: object) -> None:
        stop_running()
        os._exit(INTERRUPTED)

    def begin(*_: object) -> None:
        signal.signal(signal.SIGINT, end)
        os.write(2, f"interrupted: {says}\n".encode())
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, begin)
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def stop_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Give SIGTERM and Ctrl-C to `handler` for the block; afterwards to whom they went before."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, other in before.items():
            signal.signal(number, other)


def stop_running(*, asks: bool = False) -> None:
    """End every command that runs or starts now; with `asks`, what `run_ours` began is asked to end, once."""
    _starting.clear()  # first: what is not running yet ends itself
    for child in tuple(_running):
        if not (asks and isinstance(child, _Ours)):
            _stop(child)
        elif child not in _stopped:
            _stopped.add(child)
            child.send_signal(signal.SIGINT)
            late = threading.Timer(LEAVE_SECONDS, _stop, [child])
            late.daemon = True
            late.start()


def _stop(child: subprocess.Popen[str]) -> None:
    if child.returncode is None:
        _stopped.add(child)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def which(program: str) -> Path | None:
    """Where `program` is: beside our own interpreter, on PATH, or in sbin, which a user's PATH often lacks."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = shutil.which(program, path=path)
    return Path(found) if found else None


def spawn(argv: Sequence[str], *, log: Path, passes: Sequence[str] = ()) -> int:
    """Start a long-lived daemon that outlives us, its output appended to `log`; returns its process id."""
    with log.open("ab") as sink:
        child = subprocess.Popen(
            list(argv),
            env=allowed(os.environ, passes),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    child.returncode = 0  # it is not ours to wait for; Popen would warn that it still runs
    return child.pid


def pipe_from(argv: Sequence[str], consume: Callable[[IO[bytes]], object], *, stdin: Path = Path(os.devnull)) -> None:
    """Run `argv` and give its standard output, as a binary stream, to `consume` while it runs; it reads `stdin`.

    Raises OutsideError when the command fails, after `consume` has returned.
    """
    pipe = subprocess.PIPE
    with (
        stdin.open("rb") as given,
        subprocess.Popen(
            list(argv), env=_of_git(argv) | allowed(os.environ), stdin=given, stdout=pipe, stderr=pipe
        ) as child,
    ):
        stdout, stderr_pipe = cast(IO[bytes], child.stdout), cast(IO[bytes], child.stderr)
        consume(stdout)
        stderr = stderr_pipe.read().decode(errors="replace")
    if child.returncode:
        raise failed(Completed(tuple(argv), child.returncode, "", stderr))


def pipe_to(
    argv: Sequence[str], produce: Callable[[IO[bytes]], object], *, env: Mapping[str, str] | None = None, hint: str = ""
) -> None:
    """Run `argv`, which prints little, while `produce` writes to its standard input, a binary stream.

    Raises OutsideError when the command fails, also where it ended before it had read everything. Its process group
    ends with us, and when `produce` fails.
    """
    child = _started(argv, None, {**allowed(os.environ), **(env or {})}, subprocess.PIPE, hint)
    stdin = cast(TextIOWrapper, child.stdin)
    try:
        with suppress(BrokenPipeError), stdin:
            produce(cast(IO[bytes], stdin.buffer))
    except BaseException:
        _kill_group(child)
        raise
    child.stdin = None
    stdout, stderr = _ended(child, None, None, hint)
    if child.returncode:
        raise failed(Completed(tuple(argv), child.returncode, stdout, stderr), hint)


SAID_BYTES = 2000  # of what a program said last


class Dialled:
    """A running program whose standard input and output are a socket, `connection`. It ends once that is closed, also
    when we are killed. Raises OutsideError if the program is not installed.
    """

    def __init__(self, argv: Sequence[str], *, passes: Sequence[str] = ()) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                child = subprocess.Popen(
                    list(argv), env=allowed(os.environ, passes), stdin=theirs.fileno(), stdout=theirs.fileno(),
                    stderr=subprocess.PIPE, start_new_session=True,
                )  # fmt: skip
            except FileNotFoundError:
                ours.close()
                raise OutsideError(f"{argv[0]} is not installed") from None
        self.connection = ours
        self._child = child
        self._said = b""
        self._hears = threading.Thread(target=self._hear, args=(child,), name=argv[0], daemon=True)
        self._hears.start()

    def _hear(self, child: subprocess.Popen[bytes]) -> None:
        stderr = cast(IO[bytes], child.stderr)
        with child:
            while some := os.read(stderr.fileno(), SAID_BYTES):
                self._said = (self._said + some)[-SAID_BYTES:]

    def end(self) -> None:
        """End it with its process group, if it still runs: what hangs does not see that its socket is closed."""
        if self._child.poll() is None:
            with suppress(ProcessLookupError, PermissionError):  # it has just ended, or is root's by sudo
                os.killpg(self._child.pid, signal.SIGKILL)
        self._hears.join(PATIENCE)

    def last_words(self) -> str:
        """What it said last on standard error, if it has ended or does so within some seconds."""
        self._hears.join(PATIENCE)
        return self._said.decode(errors="replace").strip()


def _started(
    argv: Sequence[str], cwd: Path | None, env: Mapping[str, str], stdin: int, hint: str
) -> subprocess.Popen[str]:
    """The running child, first of a process group of its own. Raises OutsideError where the program is absent."""
    start = object()
    _starting.add(start)
    try:
        child = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env={**_of_git(argv), **env},
            text=True,
            errors="replace",
            start_new_session=True,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError:
        _starting.discard(start)
        hint = hint or "./goldsmith doctor shows what is missing"
        raise OutsideError(f"{argv[0]} is not installed", hint=hint) from None
    _running.add(child)
    if start not in _starting:
        _stop(child)
    _starting.discard(start)
    return child


def _ended(
    child: subprocess.Popen[str], stdin: str | None, timeout: float | None, hint: str,
    enough: Callable[[], bool] | None = None,
) -> tuple[str, str]:  # fmt: skip
    """What the child printed until its end; whatever keeps us from waiting for that ends its whole group."""
    try:
        told = _said_by(child, timeout, enough) if enough else child.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        _kill_group(child)
        argv = _bare(cast(list[str], child.args))
        raise LateError(
            f"{argv[0]} did not finish within {timeout or 0:g} s", evidence=" ".join(argv), hint=hint
        ) from None
    except BaseException:
        _kill_group(child)
        raise
    _running.discard(child)
    if child in _stopped:
        _stopped.discard(child)
        raise KeyboardInterrupt
    return told


def _said_by(child: subprocess.Popen[str], timeout: float | None, enough: Callable[[], bool]) -> tuple[str, str]:
    """What a child without input printed, while `enough` is not true. Raises TimeoutExpired."""
    until = time.monotonic() + (math.inf if timeout is None else timeout)
    while True:
        try:
            return child.communicate(timeout=LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if enough() or time.monotonic() >= until:
                raise subprocess.TimeoutExpired(child.args, timeout or 0) from None


def _kill_group(child: subprocess.Popen[str]) -> None:
    """End the child and all it started; wait for it, so that nothing of it is left running."""
    _running.discard(child)
    _stopped.discard(child)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            stream.close()
