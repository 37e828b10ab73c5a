"""CISA's list of vulnerabilities that are known to be exploited (its JSON document, or its bare list)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hardening.foundation.errors import OutsideError
from hardening.foundation.limits import JSON_BYTES, parse_json, read_all
from images.feeds import facts as dates
from images.feeds.facts import Facts

WHAT = "the list of exploited vulnerabilities"
CANARIES = frozenset({"CVE-2014-0160", "CVE-2014-6271", "CVE-2021-44228"})
"""Heartbleed, Shellshock and Log4Shell, which CISA's list holds for good."""


def facts(path: Path) -> Facts:
    """What is in the file `path`. Raises OutsideError where it is no such list, or an empty one."""
    value = _read(path)
    ids = _ids(value)
    return Facts(len(ids), CANARIES & ids, dates.in_json(value, "dateReleased"))


def ids(path: Path) -> frozenset[str]:
    """The ids in the file `path`. Raises OutsideError where it is no such list, or an empty one."""
    return _ids(_read(path))


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        return parse_json(read_all(file, JSON_BYTES, WHAT), WHAT)


def _ids(value: Any) -> frozenset[str]:
    try:
        found = [item["cveID"] for item in (value["vulnerabilities"] if isinstance(value, dict) else value)]
    except (KeyError, TypeError):
        found = [None]
    if not all(isinstance(one, str) for one in found):
        raise OutsideError(f"{WHAT} is not CISA's JSON")
    if not found:
        raise OutsideError(f"{WHAT} is empty")
    return frozenset(found)
