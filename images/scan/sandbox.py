"""Which versions of scanners are refused, whatever they find: `DENIED`, each with its reason and date. Edge."""

from __future__ import annotations

import re
import tempfile
import threading
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

from hardening.foundation.confinement import run_confined
from hardening.foundation.errors import OutsideError


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
        said = run_confined([str(program), "--version"], reads=(), work=work, timeout=60).stdout
    found = re.search(r"\d+\.\d+\.\d+", said)
    return found[0].strip() if found else ""
