"""Copies of this checkout in other places, ready at once: they use the Python packages that are installed here."""

from __future__ import annotations

import re
import shutil
import sys
from hashlib import sha256
from pathlib import Path

from hardening.foundation.process import run
from hardening.foundation.settings import ROOT

LINTERS = ("ruff", "mypy", "check-jsonschema")
# as pip writes it where the interpreter's path has a space
PYTEST = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import pytest
raise SystemExit(pytest.console_main())
"""


def copy_checkout(place: Path, leave_out: str = "benchmarks/") -> Path:
    """The files of this checkout that git tracks and its programs, but those that the pattern `leave_out` matches.

    The launcher accepts the environment. Linters find nothing there.
    """
    for name in run(["git", "ls-files", "-z"], cwd=ROOT).stdout.split("\0"):
        if name and not re.match(leave_out, name) and (ROOT / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name, follow_symlinks=False)
    run(["git", "init", "-q", str(place)])
    run(["git", "-C", str(place), "add", "."])
    run([sys.executable, "-m", "venv", "--without-pip", str(place / ".venv")])
    ours, theirs = place / ".venv", Path(sys.executable).parent.parent
    packages = next(ours.glob("lib/python3*/site-packages"))
    (packages / "installed.pth").write_text(f"{theirs / packages.relative_to(ours)}\n")
    for program in (theirs / "bin").iterdir():
        own = ours / "bin" / program.name
        if program.name in LINTERS:
            own.symlink_to("/bin/true")
        elif not own.exists() and not re.match(leave_out, f".venv/bin/{program.name}"):
            own.write_bytes(program.read_bytes().replace(f"#!{theirs}/".encode(), f"#!{ours}/".encode(), 1))
            own.chmod(0o755)
            for package in theirs.glob(f"lib/python3*/site-packages/*_{program.name}"):  # a sandbox shows only `ours`
                shutil.copytree(package, packages / package.name)
    (ours / "bin/pytest").unlink(missing_ok=True)
    (ours / "bin/pytest").write_text(PYTEST.format(python=ours / "bin/python"))
    (ours / "bin/pytest").chmod(0o755)
    lock = sha256((place / "requirements.lock").read_bytes()).hexdigest()
    (ours / "goldsmith-stamp").write_text(f"{lock} {place}\n")
    return place
