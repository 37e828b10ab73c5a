"""The sample of advisories that ships, in debsecan's format: to try Goldsmith without a feed, never to rely on."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import digest
from images.scan.base import Feed

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
