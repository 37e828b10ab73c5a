"""The project's own checks: what `lint` and `test` run, one after the other, each printing for itself."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from hardening.foundation.console import say
from hardening.foundation.process import follow
from hardening.foundation.settings import ROOT

LINT = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
)


def pytest_command(path: str = "", only: str = "", *, fast: bool = False) -> tuple[str, ...]:
    """The tests of `path`; else all on five workers, for many wait more than they compute, the slowest ten told.

    A file's tests stay together, so that what its fixtures build is built once; tests/conftest.py gives the files their
    order, and says what is `fast`.
    """
    workers = (
        () if path else ("-n", "2" if fast else "5", "--dist", "loadfile", "--no-loadscope-reorder", "--durations=10")
    )
    chosen = (*(("--fast",) if fast else ()), *(("-k", only) if only else ()), *((path,) if path else ()))
    return ("pytest", "-q", *workers, *chosen)


def run_checks(commands: Iterable[tuple[str, ...]]) -> int:
    """Run every command, whatever became of the others; 0 when all passed, else 1, naming those that did not."""
    broken = [" ".join(command) for command in commands if _run(command) != 0]
    if broken:
        say(f"failed: {'; '.join(broken)}")
    return 1 if broken else 0


def _run(command: tuple[str, ...]) -> int:
    say(f"$ {' '.join(command)}")
    return follow([str(Path(sys.executable).parent / command[0]), *command[1:]], cwd=ROOT)
