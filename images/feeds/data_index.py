"""Big data as an index: one SQLite file per version of the data, made once, read by source package or vulnerability.

Of Debian's tracker (80 MB of JSON) and OSV's export the advisories, of FIRST's estimates one number for each
vulnerability. All are read piece by piece, within limits.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
import sqlite3
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from functools import reduce
from pathlib import Path
from typing import IO, Any, cast

from filelock import FileLock

from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import digest
from hardening.foundation.limits import (
    CHUNK,
    EPSS_LINES,
    FEED_TEXT,
    JSON_BYTES,
    JSON_DEPTH,
    OSV_NAMES,
    OSV_TEXT,
    TRACKER_ENTRIES,
    TRACKER_TEXT,
    TRACKER_VALUES,
    Counted,
    Limit,
    Meter,
    parse_json,
    read_all,
)
from images.advisories import Advisory, is_before
from images.feeds.facts import DEBSECAN_CANARIES, Facts, in_json, lines_of
from images.packages import debian
from images.store.files import file_digest

TRACKER, OSV, EPSS = "the tracker's data", "OSV's data", "the EPSS data"
VULNERABILITY = re.compile(r"[A-Z][A-Z0-9]{1,15}-[A-Za-z0-9-]{1,64}")  # CVE-2026-1234, TEMP-0000000-ABC123
NAME, SUITE, VERSION = (re.compile(pattern) for pattern in (debian.NAME, debian.SUITE, debian.VERSION))
GZIP = b"\x1f\x8b"
WORD = 40  # characters of a status or an urgency
TITLE = 160
NOT_AFFECTED = "0"  # as the fixed version: the suite never had the vulnerability
FORM = 1  # of the tables below; indexes of another one are made again
KEPT = 3  # indexes, newest first: another process may still read the one before
TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE vulnerability (id TEXT PRIMARY KEY, title TEXT, score REAL) WITHOUT ROWID;
CREATE TABLE advisory (
    suite TEXT, source TEXT, id TEXT, fixed TEXT, status TEXT, urgency TEXT, note TEXT,
    PRIMARY KEY (suite, source, id)
) WITHOUT ROWID;
CREATE INDEX by_id ON advisory (id);
"""
Row = tuple[str, Advisory]
"""A suite, and an advisory that concerns it."""
Build = Callable[[Path, sqlite3.Connection], Facts]


def indexed(data: Path, folder: Path, build: Build) -> tuple[Path, Facts]:
    """The index in `folder` over the content of the file `data`, made by `build` where there is none; what is in it.

    Raises OutsideError where that is no such data, or over a limit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / name_of(file_digest(data))
    with FileLock(folder / ".index.lock"):
        if not index.exists():
            _make(index, data, build)
            old = sorted(folder.glob("*.sqlite"), key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]
            for path in old:
                path.unlink()
    with reading(index) as connection:
        meta = dict(connection.execute("SELECT name, value FROM meta"))
    date = in_json({"date": meta["date"]}, "date")
    return index, Facts(int(meta["entries"]), frozenset(meta["canaries"].split()), date)


def name_of(content: str) -> str:
    """The file name of the index over the content with that digest."""
    return f"{content.removeprefix('sha256:')[:32]}.{FORM}.sqlite"


def _make(index: Path, data: Path, build: Build) -> None:
    fresh = index.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
            connection.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {TABLES} BEGIN")
            found = build(data, connection)
            date = found.date.isoformat() if found.date else ""
            meta = {"entries": str(found.entries), "canaries": " ".join(sorted(found.canaries)), "date": date}
            connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            connection.execute("COMMIT")
        fresh.replace(index)
    except sqlite3.Error as error:
        raise OutsideError(f"the index of {data} cannot be made: {error}") from None
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def reading(index: Path) -> Iterator[sqlite3.Connection]:
    """An index, for as long as the block lasts. Raises OutsideError where it cannot be read."""
    try:
        with closing(sqlite3.connect(f"file:{index}?mode=ro&immutable=1", uri=True)) as connection:
            yield connection
    except sqlite3.Error as error:
        hint = f"remove {index}, and it is made again"
        raise OutsideError(f"the index {index} cannot be read: {error}", hint=hint) from None


# What is asked


def suites(index: Path) -> frozenset[str]:
    """The suites that advisories of the index are about."""
    with reading(index) as connection:
        return frozenset(row[0] for row in connection.execute("SELECT DISTINCT suite FROM advisory"))


COLUMNS = "a.id, a.source, a.fixed, a.status, a.urgency, a.note, v.title"
JOINED = f"SELECT {COLUMNS} FROM advisory a JOIN vulnerability v ON v.id = a.id WHERE a.suite = ?"  # noqa: S608


def of_suite(index: Path, suite: str, sources: Iterable[str] = ()) -> list[Advisory]:
    """The advisories that concern a suite: those over the `sources`, or all where none is named."""
    wanted = sorted(set(sources))
    with reading(index) as connection:
        if not wanted:
            return [Advisory(*row) for row in connection.execute(JOINED, (suite,))]
        ask = f"{JOINED} AND a.source = ?"
        return [Advisory(*row) for source in wanted for row in connection.execute(ask, (suite, source))]


def over(index: Path, vulnerability: str, suite: str) -> list[Advisory] | None:
    """The advisories over one vulnerability in a suite; None where the data does not know the vulnerability."""
    with reading(index) as connection:
        if not connection.execute("SELECT 1 FROM vulnerability WHERE id = ?", (vulnerability,)).fetchone():
            return None
        return [Advisory(*row) for row in connection.execute(f"{JOINED} AND a.id = ?", (suite, vulnerability))]


class Scores(Mapping[str, float]):
    """How likely (0 to 1) each vulnerability is exploited within 30 days; read when it is asked for."""

    def __init__(self, index: Path) -> None:
        self._index = index

    def __getitem__(self, vulnerability: str) -> float:
        with reading(self._index) as connection:
            found = connection.execute("SELECT score FROM vulnerability WHERE id = ?", (vulnerability,)).fetchone()
        if found is None:
            raise KeyError(vulnerability)
        return float(found[0])

    def __iter__(self) -> Iterator[str]:
        with reading(self._index) as connection:
            yield from (row[0] for row in connection.execute("SELECT id FROM vulnerability ORDER BY id"))

    def __len__(self) -> int:
        with reading(self._index) as connection:
            return int(connection.execute("SELECT count(*) FROM vulnerability").fetchone()[0])


# What is read


def build_advisories(
    rows: Callable[[Path], Iterator[tuple[str, str, list[Row]]]], *, first_counts: bool = False
) -> Build:
    """How an index is made of the advisories that `rows` reads: a vulnerability, its title, and what it concerns.

    `first_counts`: of several over the same vulnerability of a source; else that is an error.
    """
    insert = f"INSERT {'OR IGNORE ' if first_counts else ''}INTO advisory VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608

    def build(data: Path, connection: sqlite3.Connection) -> Facts:
        entries, canaries = 0, set[str]()
        for vulnerability, title, found in rows(data):
            entries += 1
            TRACKER_ENTRIES.require(entries, TRACKER)
            connection.execute("INSERT OR IGNORE INTO vulnerability VALUES (?, ?, NULL)", (vulnerability, title))
            for suite, one in found:
                row = (suite, one.source, one.id, one.fixed, one.status, one.urgency, one.note)
                connection.execute(insert, row)
                if one.source in DEBSECAN_CANARIES:
                    canaries.add(one.source)
        if not connection.execute("SELECT 1 FROM advisory LIMIT 1").fetchone():
            raise OutsideError(f"{TRACKER} names no vulnerability")
        return Facts(entries, frozenset(canaries))

    return build


def tracker_rows(data: Path) -> Iterator[tuple[str, str, list[Row]]]:
    """What the tracker's JSON (packed by gzip or not) says of each vulnerability of each source package."""
    with unpacked(data, TRACKER_TEXT, TRACKER) as file:
        for source, vulnerability, entry in _entries(Pieces(file)):
            try:
                rows = list(_rows(source, vulnerability, entry))
            except (KeyError, TypeError, AttributeError, ValueError):
                raise OutsideError(
                    f"{TRACKER} is of an unknown form: {source[:WORD]!r}, {vulnerability[:WORD]!r}"
                ) from None
            yield vulnerability, _text(entry.get("description", "")), rows


def _rows(source: str, vulnerability: str, entry: Any) -> Iterator[Row]:
    """The advisories that one entry amounts to, by suite. Raises ValueError and its like for an unknown form."""
    if not NAME.fullmatch(source) or not VULNERABILITY.fullmatch(vulnerability):
        raise ValueError
    for suite, said in entry["releases"].items():
        status, fixed = said["status"], said.get("fixed_version", "")
        urgency, why = said.get("urgency", ""), said.get("nodsa", "")
        if not SUITE.fullmatch(suite) or not all(isinstance(one, str) for one in (status, fixed, urgency, why)):
            raise ValueError
        if status == "resolved" and fixed == NOT_AFFECTED:
            continue
        reason = said.get("nodsa_reason", "")
        note = f"no-dsa{f', {reason}' if reason else ''}: {why}" if why else ""
        known = fixed if status == "resolved" and VERSION.fullmatch(fixed) else ""
        yield suite, Advisory(vulnerability, source, known, status[:WORD], urgency[:WORD], _text(note))


def _text(text: Any) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(str(text)[: 4 * TITLE].split())
    return line if len(line) <= TITLE else f"{line[: TITLE - 1]}…"


SOURCES, IDS = 1, 2  # how deep the names of source packages and the ids of vulnerabilities lie


def _entries(file: Pieces) -> Iterator[tuple[str, str, Any]]:
    """The source package, the id and the value of each entry, one at a time."""
    import ijson

    depth, source, vulnerability = 0, "", ""
    builder: Any = None
    values = 0
    try:
        # Without `use_float` a number of 5,000 digits ends the process: ijson overlooks that Python refuses it.
        for event, value in ijson.basic_parse(file, buf_size=CHUNK, use_float=True):
            if event in ("start_map", "start_array"):
                depth += 1
                JSON_DEPTH.require(depth, TRACKER)
            elif event in ("end_map", "end_array"):
                depth -= 1
            if event == "map_key" and depth == SOURCES:
                source = value
            elif event == "map_key" and depth == IDS:
                vulnerability, builder = value, ijson.ObjectBuilder()
                values = 0
            elif builder:
                builder.event(event, value)
                values += 1
                if values > TRACKER_VALUES.most:
                    raise TRACKER_VALUES.exceeded(f"the entry {vulnerability[:WORD]!r} of {TRACKER}")
                if depth == IDS:
                    yield source, vulnerability, builder.value
                    builder = None
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise OutsideError(f"{TRACKER} is not JSON, or cut short: {str(error).splitlines()[0]}") from None


QUOTE = re.compile(rb'[^\\](?:\\\\)*"')
"""A quotation mark that begins or ends a text: without one, a piece lies within one text."""


class Pieces:
    """A stream of JSON whose texts are short: each CHUNK of it has one that begins or ends. So no text fills memory."""

    def __init__(self, stream: Counted) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        """The next piece; its size is the stream's own to choose, but none is empty before the end."""
        if size == 0:
            return b""
        piece = self._stream.read(CHUNK)
        if len(piece) == CHUNK and not QUOTE.search(piece):
            raise OutsideError(f"{TRACKER} holds a text of more than {CHUNK:,} bytes")
        return piece


@contextmanager
def unpacked(data: Path, limit: Limit, what: str) -> Iterator[Counted]:
    """The bytes in a file, packed by gzip or not, counted by `limit`. Raises OutsideError for what is cut short."""
    with data.open("rb") as raw:
        packed = raw.read(len(GZIP)) == GZIP
        raw.seek(0)
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw
        try:
            yield Counted(stream, Meter(limit, what))
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise OutsideError(f"{what} is cut short, or not packed by gzip") from None


NOT_ZIPPED = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, UnicodeDecodeError
)  # fmt: skip
DEBIANS = {"11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky"}


def osv_rows(data: Path) -> Iterator[tuple[str, str, list[Row]]]:
    """The same of OSV's export for Debian: a zip archive with a JSON document for each vulnerability and advisory."""
    meter = Meter(OSV_TEXT, OSV)
    with data.open("rb") as file:  # all names are read at once, so their size is looked at first
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
        OSV_NAMES.require(end[5] if end else 0, f"the list of names in {OSV}")
    try:
        with zipfile.ZipFile(data) as archive:
            for name in sorted(archive.namelist()):  # DEBIAN-CVE-… first, which knows more than DSA-… and DLA-…
                with archive.open(name) as member:
                    value = parse_json(read_all(cast(IO[bytes], Counted(member, meter)), JSON_BYTES, name), name)
                yield from _osv(value, name)
    except NOT_ZIPPED as error:
        raise OutsideError(f"{OSV} is not a zip archive, or is cut short: {error}") from None


def _osv(value: Any, name: str) -> Iterator[tuple[str, str, list[Row]]]:
    """What one document says of each vulnerability that it is about, by https://ossf.github.io/osv-schema/ ."""
    try:
        about = [*value.get("upstream", ()), *value.get("aliases", ()), value["id"].removeprefix("DEBIAN-")]
        ids = [one for one in dict.fromkeys(about) if one.startswith("CVE-") and VULNERABILITY.fullmatch(one)]
        found = _each_once(one for affected in value.get("affected", ()) for one in _affected(affected))
        title = _text(value.get("summary") or value.get("details") or "")
    except (KeyError, TypeError, AttributeError, ValueError):
        raise OutsideError(f"{OSV} is of an unknown form: {name[:WORD]!r}") from None
    for one in () if value.get("withdrawn") else ids:
        yield one, title, [(suite, replace(advisory, id=one)) for suite, advisory in found]


def _affected(said: Any) -> Iterator[Row]:
    """The advisory that an `affected` amounts to, where it is about a release of Debian that we know."""
    ecosystem, _, release = said["package"]["ecosystem"].partition(":")
    source, suite = said["package"]["name"], DEBIANS.get(release, "")
    if ecosystem != "Debian" or not suite:
        return
    urgency = (said.get("ecosystem_specific") or {}).get("urgency", "")
    ranges = [one["events"] for one in said.get("ranges", ()) if one["type"] == "ECOSYSTEM"]
    fixed = _fixed_in(list(map(_end_of, ranges)))
    if not NAME.fullmatch(source) or not isinstance(urgency, str):
        raise ValueError
    if fixed != NOT_AFFECTED:
        yield suite, Advisory("", source, fixed, "resolved" if fixed else "open", urgency[:WORD])


def _each_once(rows: Iterable[Row]) -> list[Row]:
    """One row for each source in a suite: where a document has several, all of them count."""
    found = dict[tuple[str, str], Advisory]()
    for suite, one in rows:
        known = found.setdefault((suite, one.source), one)
        if known is not one:
            fixed = _fixed_in([known.fixed, one.fixed])
            found[suite, one.source] = replace(known, fixed=fixed, status="resolved" if fixed else "open")
    return [(suite, one) for (suite, _), one in found.items()]


def _end_of(events: Sequence[Mapping[str, str]]) -> str:
    """The version that ends the last part of a range; empty where that has no end. Its events stand in any order."""
    said = [(kind, version) for one in events for kind, version in one.items()]
    end = _fixed_in([version for kind, version in said if kind == "fixed"])
    affected = [version for kind, version in said if kind in ("introduced", "last_affected") and version != "0"]
    return end if all(VERSION.fullmatch(version) and is_before(version, end) for version in affected) else ""


def _fixed_in(fixes: Sequence[str]) -> str:
    """The version that fixes all ranges, of which `fixes` are the ends: the highest; empty where one has no end."""
    if not fixes or not all(VERSION.fullmatch(one) for one in fixes):
        return ""
    return reduce(lambda one, other: other if is_before(one, other) else one, fixes)


def joined(first: Path, second: Path) -> str:
    """The digest by which an index beside the `first` one is named, which also holds what only the `second` lists."""
    both = digest(f"{first.name} {second.name}")
    index = first.with_name(name_of(both))
    with FileLock(first.with_name(".index.lock")):
        if not index.exists():
            fresh = index.with_suffix(".new")
            shutil.copy(first, fresh)
            try:
                with closing(sqlite3.connect(fresh)) as connection, connection:
                    connection.execute("ATTACH ? AS other", (str(second),))
                    for table in ("vulnerability", "advisory"):
                        connection.execute(f"INSERT OR IGNORE INTO {table} SELECT * FROM other.{table}")  # noqa: S608
                    connection.commit()
            except sqlite3.Error as error:
                raise OutsideError(f"{first} and {second} cannot be joined: {error}") from None
            fresh.replace(index)
    return both


def sample_rows(data: Path, suite: str) -> Iterator[tuple[str, str, list[Row]]]:
    """The same of the sample that ships: source package → fixed version → vulnerabilities."""
    for source, fixes in json.loads(data.read_text(encoding="utf-8"))["sources"].items():
        for fixed, ids in fixes.items():
            for one in ids:
                yield one, "", [(suite, Advisory(one, source, fixed))]


def build_scores(data: Path, connection: sqlite3.Connection) -> Facts:
    """Make an index of FIRST's CSV: a comment with the date, a heading, and a line for each vulnerability."""
    entries = 0
    date: datetime | None = None
    with unpacked(data, FEED_TEXT, EPSS) as file:
        lines = (line.decode(errors="replace") for line in lines_of(iter(file.read, b""), EPSS))
        comment = next(lines, "")
        if found := re.search(r"score_date:([0-9T:+-]+)", comment if comment.startswith("#") else ""):
            date = in_json({"date": re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", found[1])}, "date")
        for row in _csv(lines if comment.startswith("#") else [comment, *lines]):
            score = _score(row)
            if score is None:
                raise OutsideError(f"{EPSS} is of an unknown form in line {entries + 3}")
            entries += 1
            EPSS_LINES.require(entries, EPSS)
            connection.execute("INSERT OR REPLACE INTO vulnerability VALUES (?, '', ?)", (row["cve"], score))
    if not entries:
        raise OutsideError(f"{EPSS} names no vulnerability")
    return Facts(entries, frozenset(), date)


def _csv(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    try:
        yield from csv.DictReader(lines)
    except csv.Error as error:
        raise OutsideError(f"{EPSS} is not CSV: {error}") from None


def _score(row: dict[str, Any]) -> float | None:
    """The likelihood in a line, from 0 to 1; None where the line has another form."""
    try:
        score = float(row["epss"])
    except (KeyError, TypeError, ValueError):
        return None
    return score if 0 <= score <= 1 and VULNERABILITY.fullmatch(row.get("cve") or "") else None
