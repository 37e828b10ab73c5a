"""Conditional download that keeps the last good copy, atomically, with its date and digest beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from filelock import FileLock

from hardening.foundation.durations import shown
from hardening.foundation.errors import OutsideError
from hardening.foundation.retrying import retrying
from hardening.foundation.settings import Settings
from images.disk import file_digest
from images.feeds import dates
from images.feeds.facts import Facts, require_succession
from images.feeds.transfer import OK, transfer
from images.scanners.base import Feed

NOT_MODIFIED = 304


@dataclass(frozen=True)
class Kept:
    """What is known of the last good copy: where from, its validators, date, digest, when last confirmed.

    `date` is what the data states of itself, else the server's Last-Modified; empty where neither names one: the copy
    is then of an unknown date, which no policy accepts.
    """

    address: str
    etag: str
    modified: str
    date: str
    sha256: str
    confirmed: str


def fetch(
    address: str,
    directory: Path,
    name: str,
    settings: Settings,
    now: datetime,
    after: timedelta,
    *,
    look: Callable[[Path], Facts],
) -> Feed:
    """The data at `address` as `directory/name`; asked for again when not confirmed for `after`.

    `look` says what is in the data and raises OutsideError for what is none. Data that is none, or that shrank or lost
    a canary, does not replace the last good copy; only where there is no copy, we raise OutsideError too.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / f".{name}.lock"):
        kept = _kept(directory, name, address)
        if kept and now - datetime.fromisoformat(kept.confirmed) < after:
            return _feed(directory, kept)
        try:
            kept = retrying(lambda: _ask(kept, address, directory, name, now, look), within=settings.retry_for)
        except OutsideError as error:
            if kept is None:
                raise
            age = shown(timedelta(hours=(now - datetime.fromisoformat(kept.confirmed)) // timedelta(hours=1)))
            return _feed(directory, kept, f"last good copy, {age} old, because {error.message}")
    return _feed(directory, kept)


def _feed(directory: Path, kept: Kept, note: str = "") -> Feed:
    date = datetime.fromisoformat(kept.date) if kept.date else None
    return Feed(directory, date, kept.address, kept.sha256, note)


def _kept(directory: Path, name: str, address: str) -> Kept | None:
    """The last good copy, if it came from this address and is still, byte for byte, what was kept."""
    try:
        kept = Kept(**json.loads((directory / f"{name}.kept.json").read_text()))
        whole = f"sha256:{file_digest(directory / name)}" == kept.sha256
    except (OSError, ValueError, TypeError):
        return None
    return kept if whole and kept.address == address else None


def _ask(
    kept: Kept | None, address: str, directory: Path, name: str, now: datetime, look: Callable[[Path], Facts]
) -> Kept:
    asked = {"If-None-Match": kept.etag, "If-Modified-Since": kept.modified} if kept else {}
    fresh = _beside(directory / name)
    try:
        with fresh.open("wb") as file:
            answer = transfer(address, {key: value for key, value in asked.items() if value}, file)
            file.flush()
            os.fsync(file.fileno())
        if answer.status == NOT_MODIFIED and kept:
            return _confirm(directory, name, replace(kept, confirmed=now.isoformat()))
        if answer.status != OK:
            raise OutsideError(f"{address} answered {answer.status}")
        found = _succeeding(fresh, directory / name if kept else None, look)
        fresh.replace(directory / name)
    finally:
        fresh.unlink(missing_ok=True)
    date = found.date or dates.in_header(answer.modified)
    dated = date.isoformat() if date else ""
    return _confirm(directory, name, Kept(address, answer.etag, answer.modified, dated, answer.sha256, now.isoformat()))


def _succeeding(fresh: Path, good: Path | None, look: Callable[[Path], Facts]) -> Facts:
    """What is in the `fresh` data. Raises OutsideError where it must not replace the `good` data, if there is any."""
    found = look(fresh)
    if good:
        try:
            require_succession(look(good), found)
        except OutsideError as error:
            raise OutsideError(f"{error.message}; remove {good} to accept it") from None
    return found


def _confirm(directory: Path, name: str, kept: Kept) -> Kept:
    """Write down what is known of the copy that lies there."""
    note = directory / f"{name}.kept.json"
    with _beside(note).open("wb") as file:
        file.write(json.dumps(asdict(kept), indent=2).encode())
        file.flush()
        os.fsync(file.fileno())
    _beside(note).replace(note)
    return kept


def _beside(path: Path) -> Path:
    """Where what becomes `path` is written first, so that a reader or a crash never meets half a file."""
    return path.with_name(f".{path.name}.new")
