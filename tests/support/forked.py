"""Runs a command line in a process forked from one that has loaded all of Goldsmith.

Each command is a process of its own, with its own environment, umask and mounts. Only the start of Python and the
imports are not repeated: they were half of the processor time of all commands that tests run.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib import import_module
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

PACKAGES = ("hardening", "images", "pipelines")
LATE = (
    "dbos", "dbos._sys_db_sqlite", "psycopg", "rich.table", "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite", "pytest",
)  # fmt: skip
"""What commands and tests import only when they come to it."""


def load_all() -> None:
    """Import the command line, every module of the product, and what is imported late."""
    for name in ("tasks", *LATE):
        import_module(name)
    for package in map(import_module, PACKAGES):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__name__}_loaded"])
    return context


def run_forked(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], mounts: str = "", then: str = ""
) -> tuple[int, str, str]:
    """Exit code (negative: the signal that ended it), standard output and standard error of a command line.

    It may have mounts, which a script makes for it alone; `then` is what a script does among them afterwards.
    """
    with TemporaryDirectory(prefix="forked-") as place:
        out, err = Path(place, "out"), Path(place, "err")
        given = (list(arguments), str(folder), dict(environment), place, mounts, then)
        process = _context().Process(target=_child, args=given)
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode, out.read_text(), err.read_text()


def start_forked(function: Callable[..., object], *arguments: object, stderr: Path | None = None) -> BaseProcess:
    """A process that calls a function, and may append what it says on standard error to a file."""
    process = _context().Process(target=_called, args=(function, arguments, stderr), daemon=True)
    process.start()
    return process


def ended(process: BaseProcess) -> int:
    """Exit code (negative: the signal that ended it) of a process that ends soon."""
    process.join(600)
    assert process.exitcode is not None, "it goes on"
    return process.exitcode


def call_forked(function: Callable[..., object], *arguments: object) -> int:
    """Exit code (negative: the signal that ended it) of a process that calls a function."""
    return ended(start_forked(function, *arguments))


def one_after_the_other(function: Callable[..., object], *arguments: object) -> list[int]:
    """Exit codes of processes that call a function, until one is not ended by kill -9."""
    codes = [call_forked(function, *arguments)]
    while codes[-1] == -signal.SIGKILL:
        codes.append(call_forked(function, *arguments))
    return codes


def _called(function: Callable[..., object], arguments: Sequence[object], stderr: Path | None) -> None:
    if stderr:
        _append_to(stderr, 2)
    function(*arguments)


def _append_to(file: Path, number: int) -> None:
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)


def _child(arguments: list[str], folder: str, environment: dict[str, str], place: str, mounts: str, then: str) -> None:
    for number, name in ((1, "out"), (2, "err")):
        _append_to(Path(place, name), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["./goldsmith", *arguments]
    with _among(mounts, then) if mounts else nullcontext():
        import_module("tasks").main(*arguments)


@contextmanager
def _among(mounts: str, then: str) -> Iterator[None]:
    from images.machine.trees import private_mounts

    with private_mounts():
        subprocess.run(["sh", "-c", mounts], check=True)
        try:
            yield
        finally:
            subprocess.run(["sh", "-c", then], check=True)
