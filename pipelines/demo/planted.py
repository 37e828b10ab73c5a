"""The vulnerability of the demo: data that does not know it at first, and then does. Nothing of it is real."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from images.feeds.indexed import SAMPLE

VULNERABILITY, PACKAGE = "CVE-2026-9999999", "ed"
SUITE = "trixie"
OTHERS = ("curl", "linux", "systemd")  # data without an entry of these, which each distribution has, is not believed


def write_data(folder: Path, now: datetime, *, planted: bool) -> None:
    """Write tracker data of that day: the entries of the sample that ships, and the `planted` one."""
    sample = json.loads((SAMPLE / f"{SUITE}.json").read_text(encoding="utf-8"))["sources"]
    sources: dict[str, dict[str, Any]] = {source: {"CVE-1999-0001": _entry("0.1")} for source in OTHERS}
    for source, fixes in sample.items():
        sources[source] = {identifier: _entry(version) for version, ids in fixes.items() for identifier in ids}
    if planted:
        sources[PACKAGE] = {VULNERABILITY: {**_entry("99"), "description": "planted by the demo"}}
    folder.mkdir(exist_ok=True)
    (folder / "tracker.json").write_text(json.dumps(sources))
    (folder / "metadata.json").write_text(json.dumps({"date": f"{now:%Y-%m-%d}"}))


def _entry(fixed: str) -> dict[str, Any]:
    return {"releases": {SUITE: {"status": "resolved", "fixed_version": fixed, "urgency": "high"}}}
