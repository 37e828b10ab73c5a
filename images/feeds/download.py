"""Downloads from strangers, by HTTP or from a registry, within limits; the last good copy is kept, with its date and
digest beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar
from urllib.parse import urljoin

from filelock import FileLock

from hardening.foundation.addresses import is_safe
from hardening.foundation.asking import ask_within, require_wanted
from hardening.foundation.console import say
from hardening.foundation.durations import header_date, shown
from hardening.foundation.errors import LateError, OutsideError
from hardening.foundation.limits import CHUNK, FEED_BYTES, FEED_REDIRECTS, FEED_SECONDS, Limit, Meter
from hardening.foundation.retrying import retrying
from hardening.foundation.settings import Settings
from images.feeds.facts import Facts, in_file, require_succession
from images.feeds.oci_files import changed_artifact, is_artifact, made_at, write_file
from images.packages.index import write_atomically
from images.scan.base import Feed
from images.store.files import file_digest

if TYPE_CHECKING:
    import requests

Result = TypeVar("Result")
CONNECT_SECONDS, READ_SECONDS = 5, 60
"""How long a connection may take, which a network that lets nothing through never gives; and how long one read may
wait. FEED_SECONDS limits the whole.
"""
OK = 200
OURS = {"User-Agent": "goldsmith", "Accept-Encoding": "identity"}
"""Who asks, as debsecan says it too: those who run public services may turn away what names only a library."""
REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Answer:
    """What came back: the status, the server's validators and date, and the digest of what was written."""

    status: int
    etag: str = ""
    modified: str = ""
    sha256: str = ""
    date: str = ""


def transfer(
    address: str, headers: dict[str, str], file: IO[bytes], most: Limit | None = None, *, packed: bool = False
) -> Answer:
    """Write what `address` gives to the open `file`. Raises OutsideError for what is refused or fails, LateError when
    all of it, with its redirects, takes longer than FEED_SECONDS.

    At most `most` bytes, else FEED_BYTES. `packed`: the server may pack it by gzip, and it is written as it comes.

    `file` is its owner's: what a late thread still brings goes into a file that has no name any more.
    """
    require_safe(address)
    own = {**OURS, **({"Accept-Encoding": "gzip"} if packed else {}), **headers}
    ask = partial(_get, address, own, file, most or FEED_BYTES)
    waits = threading.Timer(CONNECT_SECONDS, copy_context().run, (say, f"waiting for {address}"))
    waits.daemon = True
    waits.start()
    try:
        return ask_within(ask, timedelta(seconds=FEED_SECONDS.most))
    except LateError:
        raise LateError(f"{address} exceeds {FEED_SECONDS}") from None
    finally:
        waits.cancel()


def _get(asked: str, headers: dict[str, str], file: IO[bytes], most: Limit) -> Answer:
    """What `asked` answers, wherever it leads on to."""
    import requests
    from urllib3.exceptions import HTTPError

    address = asked
    try:
        for _ in range(FEED_REDIRECTS.most + 1):
            with requests.get(
                address, headers=headers, timeout=(CONNECT_SECONDS, READ_SECONDS), stream=True, allow_redirects=False
            ) as answer:
                if answer.status_code not in REDIRECTS:
                    return _take(asked, answer, file, most)
                target = urljoin(address, answer.headers.get("Location", ""))
            require_safe(target, came_from=address)
            address = target
    except (requests.RequestException, HTTPError, ValueError) as error:
        silent = isinstance(error, requests.ConnectionError | requests.Timeout)
        how = "does not answer" if silent else "could not be read"
        raise OutsideError(f"{asked} {how}: {type(error).__name__}") from None
    raise FEED_REDIRECTS.exceeded(asked)


def _take(asked: str, answer: requests.Response, file: IO[bytes], most: Limit) -> Answer:
    """Write what a good answer carries; of any other only its status counts."""
    etag, modified, date = (answer.headers.get(name, "") for name in ("ETag", "Last-Modified", "Date"))
    if answer.status_code != OK:
        return Answer(answer.status_code, date=date)
    packing = answer.headers.get("Content-Encoding", "identity")
    if packing not in ("identity", answer.request.headers.get("Accept-Encoding")):
        raise OutsideError(f"{asked} answered with the Content-Encoding {packing}, which was not requested")
    most.require(int(answer.headers.get("Content-Length", 0)), asked)
    seen, meter = hashlib.sha256(), Meter(most, asked)
    packed = packing != "identity"  # and stays so: whoever reads the copy unpacks it within limits
    for part in answer.raw.stream(CHUNK, decode_content=False) if packed else answer.iter_content(CHUNK):
        meter.add(len(part))
        require_wanted()
        seen.update(part)
        file.write(part)
    return Answer(OK, etag, modified, f"sha256:{seen.hexdigest()}", date)


def require_safe(address: str, *, came_from: str = "") -> None:
    """Raises OutsideError unless data may be read from `address`, to which `came_from` redirects if it is given."""
    if not is_safe(address, came_from):
        how = f"{came_from} redirects to {address}" if came_from else f"{address} is refused"
        raise OutsideError(f"{how}: data comes over https, or over http from this machine itself")


NOT_MODIFIED = 304


@dataclass(frozen=True)
class KeptFeed:
    """Facts about the last good copy: its source, validators, date, digest, and when it was last confirmed.

    `date` is what the data states of itself, else the server's Last-Modified, else of what is live the moment of the
    answer; empty where nothing names one: the copy is then of an unknown date, which no policy accepts.
    """

    address: str
    etag: str
    modified: str
    date: str
    sha256: str
    confirmed: str


def fetch(
    address: str, file: Path, settings: Settings, now: datetime, after: timedelta, *, look: Callable[[Path], Facts],
    live: bool = False, most: Limit | None = None, canaries: frozenset[str] = frozenset(),
) -> Feed:  # fmt: skip
    """The data at `address` as `file`; asked for again when not confirmed for `after`. A path is looked at each time.

    `look` says what is in the data and raises OutsideError for what is none. Data that is none, is older, shrank or
    lost a canary does not replace the last good copy; only where there is no copy, we raise OutsideError too. `live`:
    the service makes the data as it is asked, from what it knows then. `most`: it may be that big, and come packed by
    gzip, as which it is then kept. `canaries`: what data of a path, which names no server, must have from the first.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    local = address.startswith("/")
    with FileLock(file.with_name(f".{file.name}.lock")):
        kept = _kept(file, address)
        if (
            kept and not local and abs(now - datetime.fromisoformat(kept.confirmed)) < after
        ):  # also after a clock that was ahead
            return _feed(file, kept)
        try:
            once = partial(_ask, settings, kept, address, file, now, look, live=live, most=most, canaries=canaries)
            ask = once if local else partial(retrying, once, within=settings.retry_for)
            kept = asking_once(str(file), now, ask, again=local or not after)
        except OutsideError as error:
            if kept is None:
                raise
            age = shown(timedelta(hours=(now - datetime.fromisoformat(kept.confirmed)) // timedelta(hours=1)))
            return _feed(file, kept, f"last good copy, {age} old, because {error.message}")
    return _feed(file, kept)


_failed: dict[str, tuple[datetime, OutsideError]] = {}


def asking_once(what: str, now: datetime, ask: Callable[[], Result], *, again: bool = False) -> Result:
    """`ask()`; where that has failed already at `now`, the same failure: a flow over many images waits only once.

    `again`: it is asked all the same.
    """
    at, earlier = _failed.get(what, (None, None))
    if earlier and at == now and not again:
        raise earlier
    try:
        return ask()
    except OutsideError as error:
        _failed[what] = now, error
        raise


def _feed(file: Path, kept: KeptFeed, note: str = "") -> Feed:
    return Feed(file.parent, _date(kept), kept.address, kept.sha256, note)


def _kept(file: Path, address: str) -> KeptFeed | None:
    """The last good copy, if it came from this address and is still, byte for byte, what was kept."""
    try:
        kept = KeptFeed(**json.loads(_note(file).read_text()))
        whole = f"sha256:{file_digest(file)}" == kept.sha256
    except (OSError, ValueError, TypeError):
        return None
    return kept if whole and kept.address == address else None


def _ask(
    settings: Settings, kept: KeptFeed | None, address: str, file: Path, now: datetime, look: Callable[[Path], Facts],
    *, live: bool, most: Limit | None, canaries: frozenset[str],
) -> KeptFeed:  # fmt: skip
    fresh = _beside(file)
    try:
        with fresh.open("wb") as sink:
            if address.startswith("/"):
                answer = _from_path(kept, Path(address), sink, most or FEED_BYTES)
            elif is_artifact(address):
                answer = _from_artifact(settings, kept, address, file.name, sink, now, most)
            else:
                asked = {"If-None-Match": kept.etag, "If-Modified-Since": kept.modified} if kept else {}
                given = {key: value for key, value in asked.items() if value}
                answer = transfer(address, given, sink, most, packed=most is not None)
            sink.flush()
            os.fsync(sink.fileno())
        if answer.status == NOT_MODIFIED and kept:
            date = kept.date if kept.modified or not live else _text(_dated(None, answer, live=live))
            return _confirm(file, replace(kept, confirmed=now.isoformat(), date=date))
        if answer.status != OK:
            raise OutsideError(f"{address} answered {answer.status}")
        found = look(fresh)
        found = replace(found, date=_dated(found.date, answer, live=live))
        if lacking := sorted(canaries - found.canaries if address.startswith("/") else ()):
            raise OutsideError(f"{address} does not name {', '.join(lacking)}, which such data always names")
        if kept:
            refuse_worse(file, replace(look(file), date=_date(kept)), found, now)
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)
    dated = _text(found.date)
    return _confirm(file, KeptFeed(address, answer.etag, answer.modified, dated, answer.sha256, now.isoformat()))


def _from_artifact(
    settings: Settings, kept: KeptFeed | None, place: str, name: str, sink: IO[bytes], now: datetime, most: Limit | None
) -> Answer:
    """What an OCI artifact gives: its digest is the validator, and when it was made the date."""
    found = changed_artifact(settings, place, kept.etag if kept else "", now)
    if found is None:
        return Answer(NOT_MODIFIED)
    modified = made_at(found, place)
    return Answer(OK, found.digest, modified, write_file(settings, place, found, name, sink, most or FEED_BYTES))


def _from_path(kept: KeptFeed | None, path: Path, sink: IO[bytes], most: Limit) -> Answer:
    """Copy a file; its size and times are the validator, and metadata.json beside it states the date."""
    beside, seen, meter = path.with_name("metadata.json"), hashlib.sha256(), Meter(most, str(path))
    try:
        etag = " ".join(f"{one.st_size} {one.st_mtime_ns}" for file in (path, beside) if (one := _status(file)))
        if kept and kept.etag == etag:
            return Answer(NOT_MODIFIED)
        with path.open("rb") as file:
            while part := file.read(CHUNK):
                meter.add(len(part))
                seen.update(part)
                sink.write(part)
    except OSError as error:
        raise OutsideError(f"{path}: {error.strerror}") from None
    date = in_file(beside, "date")
    return Answer(OK, etag, format_datetime(date, usegmt=True) if date else "", f"sha256:{seen.hexdigest()}")


def _status(file: Path) -> os.stat_result | None:
    return file.stat() if file.exists() else None


def _dated(own: datetime | None, answer: Answer, *, live: bool) -> datetime | None:
    """The date of data; `own` is the one inside."""
    return own or header_date(answer.modified) or (header_date(answer.date) if live else None)


def _text(date: datetime | None) -> str:
    """A date as a `KeptFeed` keeps it."""
    return date.isoformat() if date else ""


def _date(kept: KeptFeed) -> datetime | None:
    """The date of a kept copy."""
    return datetime.fromisoformat(kept.date) if kept.date else None


def refuse_worse(good_copy: Path, good: Facts, fresh: Facts, now: datetime) -> None:
    """Raises OutsideError, which says how to accept it, where fresh data must not replace the good copy."""
    try:
        require_succession(good, fresh, now)
    except OutsideError as error:
        raise OutsideError(f"{error.message}; remove {good_copy} to accept it") from None


def require_recorded(record: Path, place: Path, fresh: Facts, now: datetime) -> None:
    """Remember in `record` what data of a place that is not copied holds. Raises OutsideError as `refuse_worse`."""
    try:
        known = json.loads(record.read_text())
        date = datetime.fromisoformat(known["date"]) if known["date"] else None
        good = Facts(int(known["entries"]), date=date) if known["place"] == str(place) else None
    except (OSError, ValueError, KeyError, TypeError):
        good = None
    if good:
        refuse_worse(record, good, fresh, now)
    if good is None or (good.entries, good.date) != (fresh.entries, fresh.date):
        said = {"place": str(place), "entries": fresh.entries, "date": _text(fresh.date)}
        write_atomically(record, json.dumps(said))


def _confirm(file: Path, kept: KeptFeed) -> KeptFeed:
    """Write down what is known of the copy that lies there."""
    note = _note(file)
    with _beside(note).open("wb") as sink:
        sink.write(json.dumps(asdict(kept), indent=2).encode())
        sink.flush()
        os.fsync(sink.fileno())
    _beside(note).replace(note)
    return kept


def _note(file: Path) -> Path:
    """Where is written what is known of a copy."""
    return file.with_name(f"{file.name}.kept.json")


def _beside(path: Path) -> Path:
    """Where what becomes `path` is written first, so that a reader or a crash never meets half a file."""
    return path.with_name(f".{path.name}.new")
