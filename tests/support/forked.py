"""Runs a command line in a process forked from one that has loaded all of Goldsmith.

Each command is a process of its own, with its own environment, umask and mounts. Only the start of Python and the
imports are not repeated: they were half of the processor time of all commands that tests run.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory

PACKAGES = ("hardening", "images", "pipelines")


def load_all() -> None:
    """Import the command line and every module of the product."""
    import_module("tasks")
    for package in map(import_module, PACKAGES):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__name__}_loaded"])
    return context


def run_forked(arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Exit code (negative: the signal that ended it), standard output and standard error of a command line."""
    with TemporaryDirectory(prefix="forked-") as place:
        out, err = Path(place, "out"), Path(place, "err")
        process = _context().Process(target=_child, args=(list(arguments), str(folder), dict(environment), place))
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode, out.read_text(), err.read_text()


def call_forked(function: Callable[..., None], *arguments: object) -> int:
    """Exit code (negative: the signal that ended it) of a process that calls a function of tests.support."""
    process = _context().Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _child(arguments: list[str], folder: str, environment: dict[str, str], place: str) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(place, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["./goldsmith", *arguments]
    import_module("tasks").main(*arguments)
