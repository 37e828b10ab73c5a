"""Vulnerability data on this machine: from an address (last good copy kept), a directory, or the sample that ships.

`current` gives the data to scan with and asks an address again when the copy was not confirmed for an hour; `refresh`
asks now. An address that fails never takes away the last good copy: its age shows, and the policy judges by it.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import digest
from hardening.foundation.settings import ROOT, Settings
from images.feeds import download, facts, scap_content, trivy_db
from images.scan.base import Feed
from images.store.files import file_digest

CHECK_AFTER = timedelta(hours=1)
SUITE = re.compile(r"[a-z][a-z0-9.-]{0,63}")
SAMPLE = Path(__file__).parent / "sample"


def current(
    settings: Settings, suite: str, now: datetime, *, benchmark: bool = False
) -> tuple[dict[str, Feed], dict[str, str]]:
    """The data by scanner, and for scanners without data the reason: what `images.scan.flow` judges with.

    `benchmark`: the content of benchmarks is asked for too.
    """
    return _gather(settings, suite, now, CHECK_AFTER, benchmark=benchmark)


def refresh(settings: Settings, suite: str, now: datetime) -> tuple[dict[str, Feed], dict[str, str]]:
    """The same, after asking every address whether it has newer data."""
    return _gather(settings, suite, now, timedelta(0))


def _gather(
    settings: Settings, suite: str, now: datetime, after: timedelta, *, benchmark: bool = False
) -> tuple[dict[str, Feed], dict[str, str]]:
    found: dict[str, Feed] = {}
    missing: dict[str, str] = {}
    takes: dict[str, Callable[[], Feed]] = {
        "debsecan": lambda: _debsecan(settings, suite, now, after),
        "trivy": lambda: _trivy(settings, now),
        **({"openscap": lambda: scap_content.content(settings, suite)} if benchmark else {}),
    }
    for name, take in takes.items():
        try:
            found[name] = take()
        except OutsideError as error:
            missing[name] = error.message
    return found, missing


def _debsecan(settings: Settings, suite: str, now: datetime, after: timedelta) -> Feed:
    place, kept = settings.feeds.debsecan, settings.state_dir / "feeds"
    if not SUITE.fullmatch(suite):
        raise OutsideError(f"there is no data for {suite!r}, which is no name of a suite")
    if not place:
        return compile_sample(SAMPLE, suite, kept / "sample")
    if _is_address(place):
        address = f"{place.rstrip('/')}/{suite}"
        return download.fetch(address, kept / "debsecan", suite, settings, now, after, look=facts.debsecan_facts)
    directory = ROOT / place
    if not (directory / suite).is_file():
        raise OutsideError(f"feeds.debsecan: {directory} has no data for {suite}")
    facts.debsecan_facts(directory / suite)
    dated = facts.in_file(directory / "metadata.json", "date") or _modified(directory / suite)
    return Feed(directory, dated, f"directory {directory}", f"sha256:{file_digest(directory / suite)}")


def _trivy(settings: Settings, now: datetime) -> Feed:
    place = settings.feeds.trivy
    if not place:
        raise OutsideError("feeds.trivy names no vulnerability database")
    directory = settings.state_dir / "feeds" / "trivy" if place == "download" else ROOT / place
    note = trivy_db.keep_current(directory, now, settings.retry_for) if place == "download" else ""
    database = directory / "db" / "trivy.db"
    if not database.is_file() or not database.stat().st_size:
        raise OutsideError(f"feeds.trivy: there is no database in {directory / 'db'}")
    dated = facts.in_file(directory / "db" / "metadata.json", "UpdatedAt")
    source = "downloaded by trivy" if place == "download" else f"directory {directory}"
    return Feed(directory, dated, source, note=note, stamps=_stamps(directory))


def _stamps(directory: Path) -> tuple[str, ...]:
    """Every file of trivy's databases, which hold gigabytes, with its size and time."""
    files = sorted(file for part in ("db", "java-db") for file in (directory / part).glob("*"))
    return tuple(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)


@dataclass(frozen=True)
class Exploited:
    """The ids of vulnerabilities known to be exploited, and the data that says so; None: nobody was asked."""

    ids: frozenset[str] = frozenset()
    feed: Feed | None = None


def exploited(settings: Settings, now: datetime) -> Exploited:
    """What is known to be exploited, by `feeds.kev` (CISA's JSON); nothing where that is not set.

    Raises OutsideError where it is set and nothing can be had: "none is exploited" would be a silent pass.
    """
    place = settings.feeds.kev
    if not place:
        return Exploited()
    if _is_address(place):
        kept = settings.state_dir / "feeds" / "kev"
        feed = download.fetch(place, kept, "kev.json", settings, now, CHECK_AFTER, look=facts.exploited_facts)
        return Exploited(facts.exploited_ids(kept / "kev.json"), feed)
    file = ROOT / place
    try:
        dated = facts.exploited_facts(file).date or _modified(file)
        return Exploited(facts.exploited_ids(file), Feed(file.parent, dated, f"file {file}"))
    except OSError as error:
        raise OutsideError(f"feeds.kev: {error.strerror}: {place}") from None


def _is_address(place: str) -> bool:
    return place.startswith(("http://", "https://"))


def _modified(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


Advisories = Mapping[str, Mapping[str, list[str]]]


def compile_sample(folder: Path, suite: str, into: Path) -> Feed:
    """The sample of `suite` in debsecan's format in `into`. Raises OutsideError where none ships for that suite."""
    path = folder / f"{suite}.json"
    if not suite or not path.is_file():
        raise OutsideError(f"no sample of advisories ships for {suite or 'an unknown suite'}; set feeds.debsecan")
    document = json.loads(path.read_text(encoding="utf-8"))
    compiled = debsecan_format(document["sources"])
    into.mkdir(parents=True, exist_ok=True)
    if not (into / suite).is_file() or (into / suite).read_bytes() != compiled:
        fresh = into / f".{suite}.{digest(compiled)[-8:]}.new"
        fresh.write_bytes(compiled)
        fresh.replace(into / suite)
    date = datetime.fromisoformat(document["date"]).replace(tzinfo=UTC)
    return Feed(into, date, f"sample of {document['date']}", digest(compiled), sample=True)


def debsecan_format(sources: Advisories) -> bytes:
    """Source package → fixed version → vulnerabilities, as a debsecan release file (its "VERSION 1"). Pure."""
    ids = sorted({cve for fixes in sources.values() for cves in fixes.values() for cve in cves})
    number = {cve: index for index, cve in enumerate(ids)}
    lines = [
        f"{source},{number[cve]},S ?F,{version},"
        for source, fixes in sorted(sources.items())
        for version, cves in sorted(fixes.items())
        for cve in sorted(cves)
    ]
    text = "\n".join(["VERSION 1", *(f"{cve},," for cve in ids), "", *lines, "", "", ""])
    return zlib.compress(text.encode(), 9)
