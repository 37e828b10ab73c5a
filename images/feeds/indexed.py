"""Data that is too big to read each time, as indexes: all of Debian's tracker, OSV's export, FIRST's estimates.

From an address (last good copy kept), a file or a directory. `reported` remembers which data was told about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from hardening.foundation.errors import OutsideError
from hardening.foundation.limits import FEED_BYTES, OSV_BYTES, TRACKER_BYTES, Limit, parse_json
from hardening.foundation.settings import DEBIAN, DOWNLOAD, NONE, ROOT, Settings
from images.advisories import Advisories, Advisory
from images.artifact import Package
from images.feeds import data_index, download, facts
from images.feeds.facts import Facts
from images.feeds.oci_files import PREFIX
from images.packages.index import write_atomically
from images.scan.base import Feed
from images.store.files import file_digest

CHECK_AFTER, NOW = timedelta(hours=1), timedelta(0)
SUITE = re.compile(r"[a-z][a-z0-9.-]{0,63}")
SAMPLE = Path(__file__).parent / "sample"
TRACKER_JSON = "https://security-tracker.debian.org/tracker/data/json"
"""All that the tracker knows, of every suite: 80 MB, which it packs to a tenth when asked to."""
EPSS = "https://epss.empiricalsecurity.com/epss_scores-current.csv.gz"
OSV = "https://osv-vulnerabilities.storage.googleapis.com/Debian/all.zip"
BIG_AFTER = timedelta(hours=6)
"""How long a copy of what is big, or made once a day, is not asked about again."""


def require_suite(suite: str) -> None:
    """Raises OutsideError for what is no name of a suite: it becomes part of addresses and file names."""
    if not SUITE.fullmatch(suite):
        raise OutsideError(f"no data for {suite!r}, which is not the name of a suite")


def is_address(place: str) -> bool:
    """Whether a setting names an address, of a server or of an artifact in a registry."""
    return place.startswith(("http://", "https://", PREFIX))


def modified(path: Path) -> datetime:
    """When a file was written."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def tracker(settings: Settings, suite: str, now: datetime, after: timedelta = CHECK_AFTER) -> Feed:
    """What the tracker knows, by `feeds.tracker`: its index is `advisories`' to read. Raises OutsideError without any.

    The sample, with the reason, where the default address does not answer and never did.
    """
    require_suite(suite)
    folder = settings.state_dir / "feeds" / "tracker"
    if settings.feeds.tracker == NONE:
        return _sample_index(suite, folder)
    try:
        default = {DEBIAN: TRACKER_JSON}
        feed = _indexed(settings, "tracker", default, "tracker.json", _of_tracker, now, after, most=TRACKER_BYTES)
    except OutsideError as error:
        if settings.feeds.tracker != DEBIAN or not (SAMPLE / f"{suite}.json").is_file():
            raise
        sample = _sample_index(suite, folder)
        return replace(sample, source=f"{sample.source}, since {error.message}")
    if settings.feeds.osv != NONE:
        feed = _with_osv(settings, feed, now, after)
    if suite not in data_index.suites(_index_of(feed)):
        raise OutsideError(f"{feed.source} has no advisory for {suite}: nothing can be judged by it")
    return feed


_of_tracker = data_index.build_advisories(data_index.tracker_rows)
_of_osv = data_index.build_advisories(data_index.osv_rows, first_counts=True)


def _with_osv(settings: Settings, feed: Feed, now: datetime, after: timedelta) -> Feed:
    """The tracker's data with what only OSV's lists; it is as old as the older one."""
    osv = _indexed(settings, "osv", {DOWNLOAD: OSV}, "osv.zip", _of_osv, now, after, most=OSV_BYTES)
    both = data_index.joined(_index_of(feed), _index_of(osv))
    date = min(feed.date, osv.date) if feed.date and osv.date else None
    note = "; ".join(one for one in (feed.note, osv.note) if one)
    return replace(feed, date=date, source=f"{feed.source} and {osv.source}", sha256=both, note=note)


def _sample_index(suite: str, folder: Path) -> Feed:
    """The sample of a suite as an index. Raises OutsideError where none ships for it."""
    path = SAMPLE / f"{suite}.json"
    if not path.is_file():
        raise OutsideError(f"no sample of advisories ships for {suite}; set feeds.tracker")
    data_index.indexed(
        path, folder / "sample", data_index.build_advisories(partial(data_index.sample_rows, suite=suite))
    )
    date = facts.in_file(path, "date")
    return Feed(folder / "sample", date, f"sample of {date:%Y-%m-%d}", f"sha256:{file_digest(path)}", sample=True)


def _indexed(
    settings: Settings, setting: str, default: Mapping[str, str], file_name: str, build: data_index.Build,
    now: datetime, after: timedelta, *, most: Limit,
) -> Feed:  # fmt: skip
    """The data of a setting: an address, a file, or a directory with that file. Its index stands in the directory."""
    given = str(getattr(settings.feeds, setting))
    place, folder = default.get(given, given), settings.state_dir / "feeds" / setting

    def look(data: Path) -> Facts:
        return data_index.indexed(data, folder, build)[1]

    if is_address(place):
        file, live, wait = folder / file_name, place == TRACKER_JSON, after and max(after, BIG_AFTER)
        feed = download.fetch(place, file, settings, now, wait, look=look, live=live, most=most)
        if not _index_of(feed).is_file():  # such as after an update of Goldsmith
            look(file)
        return feed
    there = [path for path in places_of(ROOT / place, file_name) if path.is_file()]
    if not there:
        raise OutsideError(f"feeds.{setting}: there is no file {place}, and no {file_name} in it")
    file, expected = folder / file_name, facts.ALWAYS_NAMED if setting == "tracker" else frozenset()
    feed = download.fetch(str(there[0]), file, settings, now, after, look=look, most=most, canaries=expected)
    if not _index_of(feed).is_file():
        look(file)
    return of_path(feed, f"file {there[0]}")


def of_path(feed: Feed, source: str) -> Feed:
    """The data of a path as its reports name it; where it states no date, what would state one."""
    return replace(feed, source=source if feed.date else f"{source}, beside which metadata.json states no date")


def places_of(place: Path, name: str) -> list[Path]:
    """Where a file may be that a setting names: itself, or in a directory, packed or not."""
    plain = name.removesuffix(".gz")
    return [place, place / plain, place / f"{plain}.gz"]


def _index_of(feed: Feed) -> Path:
    return feed.directory / data_index.name_of(feed.sha256)


def advisories(feed: Feed, suite: str, packages: Iterable[Package] = ()) -> Advisories:
    """What the tracker's data says of a suite, of the sources of `packages` where they are named.

    Raises OutsideError where the index cannot be read.
    """
    return _advisories(_index_of(feed), suite, packages)


def _advisories(index: Path, suite: str, packages: Iterable[Package]) -> Advisories:
    return Advisories(data_index.of_suite(index, suite, (package.built_from[0] for package in packages)))


def advisories_over(feed: Feed, vulnerability: str, suite: str) -> tuple[Advisory, ...] | None:
    """What the tracker's data says of one vulnerability in a suite; None where it does not know the vulnerability."""
    found = data_index.over(_index_of(feed), vulnerability, suite)
    return None if found is None else tuple(found)


REPORTED = f"reported.{data_index.FORM}"  # the data that the last feed.update told about, and what was exploited then


def reported(
    settings: Settings, suite: str, packages: Iterable[Package] = ()
) -> tuple[Advisories | None, frozenset[str] | None]:
    """What the data said of a suite at the last `feed.update`, and what was exploited then; None where there was none.

    Of the sources of `packages`, where they are named.
    """
    folder = settings.state_dir / "feeds" / "tracker"
    if not (folder / REPORTED).is_file():
        return None, None
    ids = folder / f"{REPORTED}.json"
    known = frozenset(parse_json(ids.read_bytes(), REPORTED)) if ids.is_file() else None
    # The list is never empty: an earlier version wrote that where it could not be had.
    return _advisories(folder / REPORTED, suite, packages), known or None


def mark_reported(settings: Settings, feed: Feed, exploited: Iterable[str] | None) -> None:
    """Remember the data that was told about, so that the next `feed.update` tells what is new since then.

    `exploited` None: the list could not be had, so the former one stays.
    """
    folder = settings.state_dir / "feeds" / "tracker"
    if feed.sample:
        return
    ids, copy = folder / f"{REPORTED}.json", folder / f".{REPORTED}.new"
    copy.unlink(missing_ok=True)
    copy.hardlink_to(_index_of(feed))
    for other in folder.glob("reported.*"):  # of an earlier version
        if other.name not in (REPORTED, ids.name):
            other.unlink()
    if exploited is not None:
        write_atomically(ids, json.dumps(sorted(exploited)))
    copy.replace(folder / REPORTED)


@dataclass(frozen=True)
class Likelihoods:
    """FIRST's estimates, and the data that they are from; without any, `missing` says why, unless nobody asked.

    `scores`: how likely (0 to 1) each vulnerability is exploited within 30 days, where that is known.
    """

    feed: Feed | None = None
    missing: str = ""

    @property
    def scores(self) -> Mapping[str, float]:
        """The estimates by vulnerability; one that is not there is unknown."""
        return data_index.Scores(_index_of(self.feed)) if self.feed else {}


def likelihoods(settings: Settings, now: datetime, after: timedelta = CHECK_AFTER) -> Likelihoods:
    """How likely vulnerabilities are exploited, by `feeds.epss`. Without data nothing is known, which is no error."""
    if settings.feeds.epss == NONE:
        return Likelihoods()
    default = {DOWNLOAD: EPSS}
    try:
        return Likelihoods(
            _indexed(settings, "epss", default, "epss.csv.gz", data_index.build_scores, now, after, most=FEED_BYTES)
        )
    except OutsideError as error:
        return Likelihoods(missing=error.message)
