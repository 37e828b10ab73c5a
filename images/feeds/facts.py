"""Looks into the data of feeds: what it contains, and when newer data may replace older.

debsecan's data (its "VERSION 1", zlib-compressed) is read line by line, never as a whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hardening.foundation.errors import OutsideError
from hardening.foundation.limits import CHUNK, FEED_LINE, FEED_TEXT, JSON_BYTES, Meter, parse_json, read_all

SHRINKS_TO = 0.5
"""The least part of its entries that newer data must still have: lists of vulnerabilities grow."""


@dataclass(frozen=True)
class Facts:
    """How many entries data has, which canaries (entries that never go) it names, its own date, if it has one, and the
    `ids` of its vulnerabilities, where somebody wants to know them.
    """

    entries: int
    canaries: frozenset[str] = frozenset()
    date: datetime | None = None
    ids: frozenset[str] = frozenset()


def require_succession(good: Facts, fresh: Facts, now: datetime) -> None:
    """Raises OutsideError where `fresh` is older than the `good` data that it would replace, or of no date where that
    has one, or looks cut or tampered with beside it. A good date after `now` does not count.
    """
    if good.date and good.date <= now and (fresh.date is None or fresh.date < good.date):
        age = f"is of {fresh.date:%Y-%m-%d %H:%M}" if fresh.date else "names no date"
        raise OutsideError(f"the new data {age}; the data before is of {good.date:%Y-%m-%d %H:%M}")
    if fresh.entries < SHRINKS_TO * good.entries:
        raise OutsideError(f"the new data has {fresh.entries:,} entries, less than half of the {good.entries:,} before")
    if lost := sorted(good.canaries - fresh.canaries):
        raise OutsideError(f"the new data no longer names {', '.join(lost)}, which never goes")


def in_json(value: Any, key: str) -> datetime | None:
    """The date (ISO 8601; UTC where it names no zone) at `key` of a JSON value, in UTC; None where there is none."""
    try:
        dated = datetime.fromisoformat(value[key])
        return dated.astimezone(UTC) if dated.tzinfo else dated.replace(tzinfo=UTC)
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def in_file(path: Path, key: str) -> datetime | None:
    """The same for a file of JSON; None where there is no such file, too."""
    try:
        with path.open("rb") as file:
            return in_json(parse_json(read_all(file, JSON_BYTES, path.name), path.name), key)
    except (OSError, OutsideError):
        return None


EXPLOITED = "the list of exploited vulnerabilities"
EXPLOITED_CANARIES = frozenset({"CVE-2014-0160", "CVE-2014-6271", "CVE-2021-44228"})
"""Heartbleed, Shellshock and Log4Shell, which CISA's list holds for good."""


def exploited_facts(path: Path) -> Facts:
    """What is in CISA's list in `path` (its JSON, or its bare list). Raises OutsideError where it is none, or empty."""
    with path.open("rb") as file:
        value = parse_json(read_all(file, JSON_BYTES, EXPLOITED), EXPLOITED)
    try:
        found = [item["cveID"] for item in (value["vulnerabilities"] if isinstance(value, dict) else value)]
    except (KeyError, TypeError):
        found = [None]
    if not all(isinstance(one, str) for one in found):
        raise OutsideError(f"{EXPLOITED} is not CISA's JSON")
    if not found:
        raise OutsideError(f"{EXPLOITED} is empty")
    ids = frozenset(found)
    return Facts(len(ids), EXPLOITED_CANARIES & ids, in_json(value, "dateReleased"), ids)


DEBSECAN = "the debsecan data"
VULNERABILITIES, PACKAGES = 1, 2  # sections, which empty lines end
PACKAGE_COMMAS = 4  # source package, number of the vulnerability, flags, fixed version, other versions
DEBSECAN_CANARIES = frozenset({"curl", "glibc", "linux", "openssl", "systemd"})
"""Source packages that never are without a line: data that loses one was cut or tampered with."""


def debsecan_facts(path: Path) -> Facts:
    """What is in the file `path`: a line for each pair of source package and vulnerability.

    Raises OutsideError where it is no debsecan data, was cut short, is over a limit, or names no vulnerability.
    """
    pieces = _unpacked(path)
    lines = _lines(pieces)
    if next(lines, "") != "VERSION 1":
        raise OutsideError(f"{DEBSECAN} is cut short or of an unknown format")
    entries, canaries, section = 0, set[str](), VULNERABILITIES
    for line in lines:
        if not line:
            section += 1
        elif section == PACKAGES:
            if line.count(",") < PACKAGE_COMMAS:
                raise OutsideError(f"{DEBSECAN} has a line that names no package as debsecan does: {line[:60]}")
            entries += 1
            if (source := line.partition(",")[0]) in DEBSECAN_CANARIES:
                canaries.add(source)
        if section > PACKAGES:
            break
    for _ in pieces:  # to the end, which may be cut off or beyond the limit
        pass
    if not entries:
        raise OutsideError(f"{DEBSECAN} names no vulnerability")
    return Facts(entries, frozenset(canaries))


ALWAYS_NAMED = frozenset({"linux", "openssl"})
"""Source packages that data of a path must name from the first: nothing before it could be compared with it."""


def lines_of(pieces: Iterator[bytes], what: str) -> Iterator[bytes]:
    """The lines of a text that comes in pieces, one at a time; the last one may be empty. Raises OutsideError."""
    rest = b""
    for part in pieces:
        *whole, rest = (rest + part).split(b"\n")
        FEED_LINE.require(len(rest), what)
        yield from whole
    yield rest


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    try:
        yield from (line.decode() for line in lines_of(pieces, DEBSECAN))
    except UnicodeDecodeError:
        raise OutsideError(f"{DEBSECAN} is not zlib-compressed text") from None


def _unpacked(path: Path) -> Iterator[bytes]:
    """The decompressed text, in pieces of at most CHUNK bytes."""
    unpacker, meter = zlib.decompressobj(), Meter(FEED_TEXT, DEBSECAN)
    with path.open("rb") as file:
        left = file.read(CHUNK)
        while left and not unpacker.eof:
            try:
                part = unpacker.decompress(left, CHUNK)
            except zlib.error:
                raise OutsideError(f"{DEBSECAN} is not zlib-compressed text") from None
            meter.add(len(part))
            yield part
            left = unpacker.unconsumed_tail or file.read(CHUNK)
    if not unpacker.eof:
        raise OutsideError(f"{DEBSECAN} is cut short or of an unknown format")
