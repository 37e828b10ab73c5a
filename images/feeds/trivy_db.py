"""Trivy's own vulnerability database, downloaded by trivy (`feeds.trivy = "download"`), the last good one kept."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock

from hardening.foundation import process
from hardening.foundation.environment import REGISTRY
from hardening.foundation.errors import OutsideError
from hardening.foundation.retrying import retrying
from images.feeds import facts
from images.feeds.facts import Facts, require_succession
from images.scan.denied import refuse_denied

TIMEOUT_SECONDS = 900


def keep_current(directory: Path, now: datetime, within: timedelta) -> str:
    """Download the database into `directory` when its own metadata says that a newer one is due.

    Returns what went wrong where the last good copy had to do. Raises OutsideError where there is none.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(directory.with_name(f".{directory.name}.lock")):
        if _next_update(directory) > now:
            return ""
        try:
            retrying(lambda: _download(directory), within=within)
        except OutsideError as error:
            if not (directory / "db" / "trivy.db").is_file():
                raise
            return f"last good copy, because {error.message}"
    return ""


def _next_update(directory: Path) -> datetime:
    return facts.in_file(directory / "db" / "metadata.json", "NextUpdate") or datetime.min.replace(tzinfo=UTC)


def _download(directory: Path) -> None:
    """Into a fresh directory, swapped in when it is whole: a scan never reads half a database."""
    fresh, old = directory.with_name(f"{directory.name}.new"), directory.with_name(f"{directory.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    program = process.which("trivy") or Path("trivy")
    if program.is_file():  # with the network it may do more than while it scans
        refuse_denied(program)
    argv = [str(program), "image", "--download-db-only", f"--cache-dir={fresh}", "--config=", "--quiet"]
    hint = "feeds.trivy can also name a directory with trivy's cache"
    process.run(argv, passes=REGISTRY, timeout=TIMEOUT_SECONDS, hint=hint)
    if not (fresh / "db" / "trivy.db").is_file():
        raise OutsideError("trivy downloaded no database")
    if (directory / "db" / "trivy.db").is_file():
        require_succession(_facts(directory), _facts(fresh))
    if directory.exists():
        directory.rename(old)
    fresh.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def _facts(directory: Path) -> Facts:
    """Its size stands for the entries of a database that only trivy reads."""
    return Facts((directory / "db" / "trivy.db").stat().st_size)
