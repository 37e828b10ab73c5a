"""Conditional download that keeps the last good copy, atomically, with its date and digest beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from hardening.foundation.durations import shown
from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import digest
from hardening.foundation.retrying import retrying
from hardening.foundation.settings import Settings
from images.scanners.base import Feed

if TYPE_CHECKING:
    import requests

TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Kept:
    """What is known of the last good copy: where from, its validators, own date, digest, when last confirmed."""

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
    check: Callable[[bytes], object],
) -> Feed:
    """The data at `address` as `directory/name`; asked for again when not confirmed for `after`.

    `check` raises OutsideError for what must not replace the last good copy, and only where there is none, so do we.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / f".{name}.lock"):
        kept = _kept(directory, name, address)
        if kept and now - datetime.fromisoformat(kept.confirmed) < after:
            return _feed(directory, kept)
        try:
            kept = retrying(lambda: _ask(kept, address, directory, name, now, check), within=settings.retry_for)
        except OutsideError as error:
            if kept is None:
                raise
            age = shown(timedelta(hours=(now - datetime.fromisoformat(kept.confirmed)) // timedelta(hours=1)))
            return _feed(directory, kept, f"last good copy, {age} old, because {error.message}")
    return _feed(directory, kept)


def _feed(directory: Path, kept: Kept, note: str = "") -> Feed:
    return Feed(directory, datetime.fromisoformat(kept.date), kept.address, kept.sha256, note)


def _kept(directory: Path, name: str, address: str) -> Kept | None:
    """The last good copy, if it came from this address and is still, byte for byte, what was kept."""
    try:
        kept = Kept(**json.loads((directory / f"{name}.kept.json").read_text()))
        whole = digest((directory / name).read_bytes()) == kept.sha256
    except (OSError, ValueError, TypeError):
        return None
    return kept if whole and kept.address == address else None


def _ask(
    kept: Kept | None,
    address: str,
    directory: Path,
    name: str,
    now: datetime,
    check: Callable[[bytes], object],
) -> Kept:
    import requests

    asked = {"If-None-Match": kept.etag, "If-Modified-Since": kept.modified} if kept else {}
    try:
        answer = requests.get(
            address,
            headers={key: value for key, value in asked.items() if value},
            timeout=TIMEOUT_SECONDS,
        )
    except requests.RequestException as error:
        raise OutsideError(f"{address} could not be read: {type(error).__name__}") from None
    if answer.status_code == requests.codes.not_modified and kept:
        return _keep(directory, name, None, Kept(**{**asdict(kept), "confirmed": now.isoformat()}))
    if answer.status_code != requests.codes.ok:
        raise OutsideError(f"{address} answered {answer.status_code}")
    check(answer.content)
    return _keep(directory, name, answer.content, _described(address, answer, now))


def _described(address: str, answer: requests.Response, now: datetime) -> Kept:
    """The copy's own date is the server's Last-Modified; a server that gives none vouches for today."""
    modified = answer.headers.get("Last-Modified", "")
    try:
        date = parsedate_to_datetime(modified).astimezone(UTC) if modified else now
    except ValueError:
        date = now
    sha256 = digest(answer.content)
    return Kept(address, answer.headers.get("ETag", ""), modified, date.isoformat(), sha256, now.isoformat())


def _keep(directory: Path, name: str, content: bytes | None, kept: Kept) -> Kept:
    if content is not None:
        _replace(directory / name, content)
    _replace(directory / f"{name}.kept.json", json.dumps(asdict(kept), indent=2).encode())
    return kept


def _replace(path: Path, content: bytes) -> None:
    """Write beside and rename, so that a reader or a crash never meets half a file."""
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
