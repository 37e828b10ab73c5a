"""Vulnerability data on this machine: from an address (last good copy kept), a directory, or the sample that ships.

`current` gives the data to scan with and asks an address again when the copy was not confirmed for an hour; `refresh`
asks now. An address that fails never takes away the last good copy: its age shows, and the policy judges by it. Where
Debian's tracker, the default, does not answer and never did, the sample stands in, with the reason; no policy but one
for trials accepts it. Big data is read once, into an index beside it (`indexed.py`).

OpenSCAP judges by a directory of the settings, else by one pinned package of the archive's pool: Debian 13's rules are
in a newer ssg-debian than Debian 13 has. That one .deb is fetched through the archive that images are made from and
checked by its digest; its suite is never added to any apt.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, OutsideError
from hardening.foundation.hashing import digest
from hardening.foundation.limits import FEED_BYTES, TRIVY_FILE
from hardening.foundation.process import REGISTRY, run, threads, which
from hardening.foundation.retrying import retrying
from hardening.foundation.settings import DEBIAN, DOWNLOAD, NONE, ROOT, Settings
from images.feeds import download, facts
from images.feeds.facts import Facts
from images.feeds.indexed import CHECK_AFTER, SAMPLE, Likelihoods, likelihoods, of_path, require_suite, tracker
from images.feeds.indexed import is_address as _is_address
from images.feeds.indexed import modified as _modified
from images.feeds.oci_files import is_artifact
from images.model import Bootstrap
from images.packages.index import PackageIndex
from images.scan.base import Feed
from images.scan.openscap import STREAMS
from images.scan.sandbox import refuse_denied
from images.store.files import file_digest, room_on

TRACKER = "https://security-tracker.debian.org/tracker/debsecan/release/1"
"""Where debsecan itself takes its data from, a file for each suite."""
KEV = "https://www.cisa.gov/sites/default/files/feeds/known_exploited_vulnerabilities.json"
TRIVY_DB = "mirror.gcr.io/aquasec/trivy-db:2"
"""Where trivy takes its database from first, unless TRIVY_DB_REPOSITORY says otherwise."""


def current(
    settings: Settings, suite: str, now: datetime, *, benchmark: bool = False, after: timedelta = CHECK_AFTER
) -> tuple[dict[str, Feed], dict[str, str]]:
    """The data by scanner, and for scanners without data the reason: what `images.scan.flow` judges with.

    `benchmark`: the content of benchmarks is asked for too. `after`: how long a copy is not asked about again.
    """
    found: dict[str, Feed] = {}
    missing: dict[str, str] = {}
    takes: dict[str, Callable[[], Feed]] = {
        "debsecan": lambda: _debsecan(settings, suite, now, after),
        "tracker": lambda: tracker(settings, suite, now, after),
        "trivy": lambda: _trivy(settings, now, after),
        **({"openscap": lambda: benchmark_content(settings, suite)} if benchmark else {}),
        **{name: partial(_directory, settings, name, now) for name in DIRECTORIES if name in settings.scanners},
    }
    with threads() as pool:  # where no address answers, all of them are waited for at once
        running = {name: pool.submit(take) for name, take in takes.items()}
        for name, one in running.items():
            try:
                found[name] = one.result()
            except OutsideError as error:
                missing[name] = error.message
    return found, missing


def refresh(settings: Settings, suite: str, now: datetime) -> tuple[dict[str, Feed], dict[str, str]]:
    """The same, after asking every address whether it has newer data."""
    return current(settings, suite, now, after=timedelta(0))


def _debsecan(settings: Settings, suite: str, now: datetime, after: timedelta) -> Feed:
    place, kept = settings.feeds.debsecan, settings.state_dir / "feeds"
    require_suite(suite)
    if place == NONE:
        return compile_sample(SAMPLE, suite, kept / "sample")
    address = (TRACKER if place == DEBIAN else place).rstrip("/")
    if _is_address(address):
        return _by_address(settings, address, suite, now, after)
    directory = ROOT / place
    if not (directory / suite).is_file():
        raise OutsideError(f"feeds.debsecan: {directory} has no data for {suite}, which would be a file of that name")
    look, file = facts.debsecan_facts, kept / "debsecan" / suite
    feed = download.fetch(str(directory / suite), file, settings, now, after, look=look, canaries=facts.ALWAYS_NAMED)
    return of_path(feed, f"directory {directory}")


def _by_address(settings: Settings, place: str, suite: str, now: datetime, after: timedelta) -> Feed:
    """What an address gives. The sample, with the reason, where the default one does not answer and never did."""
    kept, look, live = settings.state_dir / "feeds", facts.debsecan_facts, place == TRACKER
    try:
        address = place if is_artifact(place) else f"{place}/{suite}"
        return download.fetch(address, kept / "debsecan" / suite, settings, now, after, look=look, live=live)
    except OutsideError as error:
        if settings.feeds.debsecan != DEBIAN or not (SAMPLE / f"{suite}.json").is_file():
            raise
        sample = compile_sample(SAMPLE, suite, kept / "sample")
        return replace(sample, source=f"{sample.source}, since {error.message}")


def _trivy(settings: Settings, now: datetime, after: timedelta) -> Feed:
    place = settings.feeds.trivy
    if place == NONE:
        raise OutsideError("feeds.trivy names no vulnerability database")
    directory = settings.state_dir / "feeds" / "trivy" if place == DOWNLOAD else ROOT / place
    note = keep_trivy_current(directory, now, settings.retry_for, after) if place == DOWNLOAD else ""
    database = directory / "db" / "trivy.db"
    if not database.is_file() or not database.stat().st_size:
        raise OutsideError(f"feeds.trivy: there is no database in {directory / 'db'}")
    dated = _facts(directory).date
    if place != DOWNLOAD:
        download.require_recorded(settings.state_dir / "feeds" / "trivy.known.json", directory, _facts(directory), now)
    source = "downloaded by trivy" if place == DOWNLOAD else f"directory {directory}"
    databases = [file for part in ("db", "java-db") for file in (directory / part).glob("*")]
    return Feed(directory, dated, source, note=note, stamps=_stamps(databases))


DIRECTORIES = {"grype": "grype", "osv-scanner": "osv_scanner"}
"""Scanners whose data they alone read, each with its setting of `feeds`: a directory."""


def _directory(settings: Settings, scanner: str, now: datetime) -> Feed:
    """The data in the directory of the settings, dated by its metadata.json."""
    setting = DIRECTORIES[scanner]
    place = getattr(settings.feeds, setting)
    if not place:
        raise OutsideError(f"feeds.{setting} names no directory with {scanner}'s data")
    files = [file for file in sorted((ROOT / place).rglob("*")) if file.is_file()]
    if not files:
        raise OutsideError(f"feeds.{setting}: there is no data in {ROOT / place}")
    found = Facts(
        sum(file.stat().st_size for file in files), date=facts.in_file(ROOT / place / "metadata.json", "date")
    )
    download.require_recorded(settings.state_dir / "feeds" / f"{setting}.known.json", ROOT / place, found, now)
    return of_path(Feed(ROOT / place, found.date, "", stamps=_stamps(files)), f"directory {ROOT / place}")


def _stamps(files: Iterable[Path]) -> tuple[str, ...]:
    """Files that hold gigabytes, each with its size and time: what tells that one was replaced."""
    found = [(file, file.stat()) for file in sorted(files)]
    return tuple(f"{file.name} {status.st_size} {status.st_mtime_ns}" for file, status in found)


NOT_ASKED = Likelihoods()


@dataclass(frozen=True)
class Exploited:
    """The ids of vulnerabilities known to be exploited, and the data that says so; None: nobody was asked, or
    `missing` says why there is none.

    `likely`: how likely the others are (EPSS).
    """

    ids: frozenset[str] = frozenset()
    feed: Feed | None = None
    missing: str = ""
    likely: Likelihoods = NOT_ASKED


def exploitation(settings: Settings, now: datetime) -> Exploited:
    """What is known to be exploited, and how likely the rest is to be. Raises OutsideError as `exploited` does."""
    with threads() as pool:
        likely = pool.submit(likelihoods, settings, now)
        return replace(exploited(settings, now), likely=likely.result())


def exploited(settings: Settings, now: datetime, after: timedelta = CHECK_AFTER) -> Exploited:
    """What is known to be exploited, by `feeds.kev` (CISA's JSON).

    Raises OutsideError where a place is set and nothing can be had: "none is exploited" would be a silent pass. Of the
    default one, which not every network lets through, the report then says that this was not evaluated.
    """
    place = settings.feeds.kev
    if place == NONE:
        return Exploited()
    if place == DOWNLOAD or _is_address(place):
        file, address = settings.state_dir / "feeds" / "kev" / "kev.json", KEV if place == DOWNLOAD else place
        try:
            feed = download.fetch(address, file, settings, now, after, look=facts.exploited_facts)
        except OutsideError as error:
            if place != DOWNLOAD:
                raise
            return Exploited(missing=error.message)
        return Exploited(facts.exploited_facts(file).ids, feed)
    file, look = settings.state_dir / "feeds" / "kev" / "kev.json", facts.exploited_facts
    if not (ROOT / place).is_file():
        raise OutsideError(f"feeds.kev: no such file: {ROOT / place}")
    try:
        feed = download.fetch(str(ROOT / place), file, settings, now, after, look=look)
    except OutsideError as error:
        raise OutsideError(f"feeds.kev: {error.message}") from None
    return Exploited(look(file).ids, of_path(feed, f"file {ROOT / place}"))


FixesBySource = Mapping[str, Mapping[str, list[str]]]


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


def debsecan_format(sources: FixesBySource) -> bytes:
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


TIMEOUT_SECONDS = 900
TRIVY_AFTER, TRIVY_MADE, AT_ONCE = timedelta(days=1), timedelta(hours=6), timedelta(seconds=1)
"""For how long trivy's database may say that no newer one is due; how often one is made; what is one moment."""


def keep_trivy_current(directory: Path, now: datetime, within: timedelta, after: timedelta = CHECK_AFTER) -> str:
    """Download the database into `directory` when its own metadata says that a newer one is due, and after a day in any
    case. Where `after` is zero, after six hours in any case: it is large, and one is made every six hours.

    Returns what went wrong where the last good copy had to do. Raises OutsideError where there is none.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(directory.with_name(f".{directory.name}.lock")):
        if _is_current(directory / "db" / "metadata.json", now, after):
            return ""
        try:
            fetch = partial(_fetch_trivy, directory, now, within)
            download.asking_once(str(directory), now, fetch, again=not after)
        except OutsideError as error:
            if not (directory / "db" / "trivy.db").is_file():
                raise
            return f"last good copy, because {error.message}"
    return ""


def _is_current(metadata: Path, now: datetime, after: timedelta) -> bool:
    """Whether trivy's database need not be asked for: fetched in this flow already, or no newer one is due yet."""
    due = facts.in_file(metadata, "NextUpdate")
    age = abs(now - _modified(metadata)) if due else TRIVY_AFTER
    return age < AT_ONCE or bool(due and due > now and age < (TRIVY_AFTER if after else TRIVY_MADE))


def trivy_place() -> str:
    """The repository that trivy takes its database from first."""
    return os.environ.get("TRIVY_DB_REPOSITORY", TRIVY_DB)


def _fetch_trivy(directory: Path, now: datetime, within: timedelta) -> None:
    say(f"fetching trivy's vulnerability database from {trivy_place()}")
    retrying(lambda: _replace_trivy(directory, now), within=within)


def _replace_trivy(directory: Path, now: datetime) -> None:
    """By a fresh directory, swapped in when it is whole: a scan never reads half a database."""
    fresh, old = directory.with_name(f"{directory.name}.new"), directory.with_name(f"{directory.name}.old")
    if old.exists() and not directory.exists():  # we died in the middle of a swap
        old.rename(directory)
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        _download_trivy(fresh)
        if (directory / "db" / "trivy.db").is_file():
            download.refuse_worse(directory, _facts(directory), _facts(fresh), now)
        if (metadata := fresh / "db" / "metadata.json").is_file():
            os.utime(metadata, (now.timestamp(), now.timestamp()))  # when it was fetched
        if directory.exists():
            directory.rename(old)
        fresh.rename(directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _download_trivy(fresh: Path) -> None:
    """Have trivy download its database into `fresh`. Raises OutsideError where it does not, or a file is too large."""
    program = which("trivy") or Path("trivy")
    if program.is_file():  # with the network it may do more than while it scans
        refuse_denied(program)
    argv = [str(program), "image", "--download-db-only", f"--cache-dir={fresh}", "--config=", "--quiet"]
    hint = "feeds.trivy can also name a directory with trivy's cache"
    limited = ["prlimit", f"--fsize={TRIVY_FILE.most}", *argv] if program.is_file() else argv
    (scratch := fresh / "scratch").mkdir(parents=True)  # what it does not remove itself goes with the rest
    env = {"TMPDIR": str(scratch)}
    try:
        run(limited, env=env, passes=(*REGISTRY, "TRIVY_DB_REPOSITORY"), timeout=TIMEOUT_SECONDS)
    except OutsideError as error:
        if any(file.stat().st_size >= TRIVY_FILE.most for file in fresh.rglob("*") if file.is_file()):
            raise TRIVY_FILE.exceeded(f"what {trivy_place()} gives") from None
        why = error.message.replace(limited[0], program.name, 1)
        raise OutsideError(f"{trivy_place()} is unavailable: {why}", evidence=error.evidence, hint=hint) from None
    shutil.rmtree(scratch)
    if not (fresh / "db" / "trivy.db").is_file():
        raise OutsideError("trivy downloaded no database")


def _facts(directory: Path) -> Facts:
    """Its size stands for the entries of a database that only trivy reads."""
    database, metadata = directory / "db" / "trivy.db", directory / "db" / "metadata.json"
    return Facts(database.stat().st_size, date=facts.in_file(metadata, "UpdatedAt"))


SSG_VERSION = "0.1.82-1"
SSG_DEB = f"pool/main/s/scap-security-guide/ssg-debian_{SSG_VERSION}_all.deb"
SSG_SHA256 = "cfde145916f1f37ec96c0fe2a9ea5f44a2db0ee6f0a2dacfcf86534c0977755a"
FOLDER = "usr/share/xml/scap/ssg/content"  # inside the package
STREAM_SHA256 = {
    "bookworm": "122d6e2303d4813ecec63018a65157b9e39975064b0edd6a18ee6d0ea5b1842d",
    "trixie": "512316aea5a9a38603465d1aeaba1a7f953b4c373851e2aa79f75666e3d163ab",
}


def benchmark_content(settings: Settings, suite: str) -> Feed:
    """The content for `suite`, fetched when it is not there. Raises OutsideError where it cannot be had."""
    if suite not in STREAMS:
        raise OutsideError(f"there is no benchmark content for {suite or 'an unknown suite'}")
    if place := settings.feeds.openscap:
        file = ROOT / place / STREAMS[suite]
        if not file.is_file():
            raise OutsideError(f"feeds.openscap: {file.parent} has no {file.name}")
        date = facts.in_file(file.with_name("metadata.json"), "date")
        return Feed(file.parent, date, f"directory {file.parent}", f"sha256:{file_digest(file)}")
    kept = settings.state_dir / "feeds" / "openscap" / SSG_VERSION
    kept.mkdir(parents=True, exist_ok=True)
    file = kept / STREAMS[suite]
    with FileLock(kept / ".lock"):
        if not file.exists() or file_digest(file) != STREAM_SHA256[suite]:
            _fetch_content(settings, suite, kept)
    return Feed(kept, _modified(file), f"ssg-debian {SSG_VERSION}", f"sha256:{STREAM_SHA256[suite]}")


def _fetch_content(settings: Settings, suite: str, kept: Path) -> None:
    """Take the content of every suite out of the package, each whole or not at all."""
    with room_on(kept), TemporaryDirectory(dir=kept) as scratch:
        deb, inside = Path(scratch) / "ssg.deb", Path(scratch) / "inside"
        try:
            PackageIndex(settings).fetch(Bootstrap(family="debian", suite=suite), SSG_DEB, SSG_SHA256, deb, FEED_BYTES)
        except GoldsmithError as error:
            raise OutsideError(
                f"ssg-debian {SSG_VERSION} cannot be fetched: {error.message}; point feeds.openscap at a directory "
                f"that holds {STREAMS[suite]}",
                evidence=error.evidence,
            ) from None
        run(["dpkg-deb", "--extract", str(deb), str(inside)])
        for name in STREAMS.values():
            (inside / FOLDER / name).replace(kept / name)
