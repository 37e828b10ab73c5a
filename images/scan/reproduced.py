"""How many packages of an image somebody else built again, from the same source, to the same bytes.

The data is rebuilderd's (https://reproduce.debian.net for Debian): a list of packages, each GOOD, BAD or UNKWN, for
each architecture and for `all`, as debian-repro-status reads it. The packages are those of the image's own SBOM.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from packageurl import PackageURL

from hardening.findings import FindingKind, Outcome, ScanReport
from hardening.foundation.errors import NOT_UNDERSTOOD, OutsideError, traced
from hardening.foundation.hashing import digest_of
from hardening.foundation.limits import (
    CHUNK,
    FEED_BYTES,
    JSON_DEPTH,
    REBUILT_ENTRIES,
    REBUILT_VALUES,
    Counted,
    Meter,
)
from hardening.foundation.settings import ROOT, Settings
from images.feeds import download
from images.feeds.facts import Facts
from images.scan.base import Feed

NAME = "reproduced"
LIST = "the list of rebuilt packages"
GOOD, BAD, UNKNOWN = "GOOD", "BAD", "UNKWN"
ASK_AFTER = timedelta(hours=12)  # a list is some 10 MB
NAMED = 5
ENTRY = 2  # levels: the list, and an entry
Key = tuple[str, str, str]
"""Name, version and architecture of a package."""


def reports(settings: Settings, sbom: bytes, now: datetime) -> tuple[ScanReport, ...]:
    """The report on the packages of `sbom` (CycloneDX); none where the settings name no data."""
    if not settings.feeds.reproduced:
        return ()
    try:
        wanted = packages_of(sbom)
        feed, files = _data(settings, now)
        found = {key: status for file in files for key, status in _told(file, wanted).items()}
    except OutsideError as error:
        kind, place = FindingKind.REPRODUCTION, settings.feeds.reproduced
        return (ScanReport(NAME, kind, Outcome.NOT_EVALUATED, 0, None, place, error.message),)
    return (report_of(wanted, found, feed),)


def packages_of(sbom: bytes) -> frozenset[Key]:
    """The Debian packages that a CycloneDX document names, by their package URLs; a malformed one is a name alone.

    Raises OutsideError for another document.
    """
    try:
        purls = [component.get("purl", "") for component in json.loads(sbom or b"{}").get("components", [])]
        return frozenset(_key(purl) for purl in purls if purl.startswith("pkg:deb/"))
    except NOT_UNDERSTOOD as error:
        raise OutsideError(f"the image's SBOM is malformed: {traced(error)}") from error


def _key(purl: str) -> Key:
    try:
        one = PackageURL.from_string(purl)
    except ValueError:
        return purl, "", ""  # not reproduced
    return one.name, one.version or "", dict(one.qualifiers).get("arch", "")


def report_of(wanted: Collection[Key], found: dict[Key, str], feed: Feed) -> ScanReport:
    """What the data says of the packages `wanted`; what it does not know was not reproduced. Pure."""
    good = sum(found.get(key) == GOOD for key in wanted)
    bad = sorted({name for name, version, arch in wanted if found.get((name, version, arch)) == BAD})
    named = f"{', '.join(bad[:NAMED])}{f' and {len(bad) - NAMED} more' if bad[NAMED:] else ''}"
    unknown = len(wanted) - good - sum(found.get(key) == BAD for key in wanted)
    said = [f"built again, and different: {named}"] if bad else []
    said += [f"not known: {unknown}"] if unknown else []
    outcome = Outcome.PASS if wanted else Outcome.NOT_EVALUATED
    reason = "; ".join(said) if wanted else "the image's SBOM lists no Debian package"
    return ScanReport(
        NAME, FindingKind.REPRODUCTION, outcome, len(wanted), feed.date, feed.source,
        "; ".join(part for part in (reason, feed.note) if part), reproduced=good if wanted else None,
    )  # fmt: skip


def _data(settings: Settings, now: datetime) -> tuple[Feed, list[Path]]:
    """The lists for the settings' platform and for `all`, and how old the older one is."""
    place, lists = settings.feeds.reproduced.rstrip("/"), (settings.platform.partition("/")[2].split("/")[0], "all")
    local = not place.startswith(("http://", "https://"))
    sources = [str(ROOT / place / f"{name}.json") if local else f"{place}/{name}/api/v0/pkgs/list" for name in lists]
    if local and (lost := next((one for one in sources if not Path(one).is_file()), "")):
        raise OutsideError(f"feeds.reproduced: there is no {lost}")
    files = [settings.state_dir / "feeds" / NAME / f"{name}.json" for name in lists]
    ask = partial(download.fetch, settings=settings, now=now, after=ASK_AFTER, look=_facts, live=not local)
    had = [ask(source, file) for source, file in zip(sources, files, strict=True)]
    dates = [feed.date for feed in had if feed.date]
    note = next((feed.note for feed in had if feed.note), "")
    dated = min(dates) if len(dates) == len(had) else None
    source = f"directory {ROOT / place}" if local else place
    return Feed(files[0].parent, dated, source, digest_of([feed.sha256 for feed in had]), note), files


def _facts(file: Path) -> Facts:
    with file.open("rb") as stream:
        many = sum(1 for _ in entries(stream))
    if not many:
        raise OutsideError(f"{LIST} is empty")
    return Facts(many)


def _told(file: Path, wanted: Collection[Key]) -> dict[Key, str]:
    """Of the packages `wanted`, what the list says. One that it lists twice, with two answers, counts as the worse."""
    found: dict[Key, str] = {}
    with file.open("rb") as stream:
        for key, status in entries(stream):
            if key in wanted and found.get(key, GOOD) == GOOD:
                found[key] = status
    return found


def entries(stream: IO[bytes]) -> Iterator[tuple[Key, str]]:
    """Each package of a rebuilderd's list with its status, read piece by piece.

    Raises OutsideError for what is no such list, is cut short, or over a limit.
    """
    counted = Meter(REBUILT_ENTRIES, LIST)
    for entry in _objects(stream):
        counted.add(1)
        key, status = (entry.get("name"), entry.get("version"), entry.get("architecture")), entry.get("status")
        if status not in (GOOD, BAD, UNKNOWN) or not all(isinstance(part, str) for part in key):
            raise OutsideError(f"{LIST} is of an unknown form")
        yield cast(Key, key), status


def _objects(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The objects of a JSON array of flat objects, one at a time; a key that stands twice is refused."""
    import ijson

    meter, values = Meter(FEED_BYTES, LIST), Meter(REBUILT_VALUES, f"an entry of {LIST}")
    opened, entry, name = list[str](), dict[str, Any](), ""
    try:
        for event, value in ijson.basic_parse(Counted(stream, meter), buf_size=CHUNK, use_float=True):
            values.add(1)
            if event == "start_map" and opened == ["start_array"]:
                entry, values.used = {}, 0
            elif event == "end_map" and len(opened) == ENTRY:
                yield entry
            elif event == "map_key" and len(opened) == ENTRY:
                if value in entry:
                    raise OutsideError(f"{LIST} names the key {value[:40]!r} twice")
                name, entry[value] = value, None
            elif len(opened) == ENTRY and not event.startswith(("start", "end")):
                entry[name] = value
            elif event != (("start_array", "end_array")[len(opened)] if len(opened) < ENTRY else event):
                raise OutsideError(f"{LIST} is of an unknown form")
            if event.startswith("start"):
                opened.append(event)
                JSON_DEPTH.require(len(opened), LIST)
            elif event.startswith("end"):
                opened.pop()
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise OutsideError(f"{LIST} is not JSON, or cut short: {str(error).splitlines()[0]}") from None
