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


def pytest_command(only: str) -> tuple[str, ...]:
    """The tests on three workers, for many wait more than they compute. A file's tests stay together, so that what its
    fixtures build is built once; tests/conftest.py gives the files their order.
    """
    shared = ("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder")
    return ("pytest", "-q", *shared, *(("-k", only) if only else ()))


def run_checks(commands: Iterable[tuple[str, ...]]) -> int:
    """Run every command, whatever became of the others; 0 when all passed, else 1, naming those that did not."""
    broken = [" ".join(command) for command in commands if _run(command) != 0]
    if broken:
        say(f"failed: {'; '.join(broken)}")
    return 1 if broken else 0


def _run(command: tuple[str, ...]) -> int:
    say(f"$ {' '.join(command)}")
    return follow([str(Path(sys.executable).parent / command[0]), *command[1:]], cwd=ROOT)
