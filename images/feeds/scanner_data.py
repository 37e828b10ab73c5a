"""The data of scanners that settings may name: a directory of the settings, in which only the scanner reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import ROOT, Settings
from images.scan.base import Feed

DIRECTORIES = {"grype": "grype", "osv-scanner": "osv_scanner"}
"""Scanners with data of their own, each with its setting of `feeds`."""


def takes(settings: Settings) -> dict[str, Callable[[], Feed]]:
    """By scanner, of those that the settings name: what gives its data, or raises OutsideError where there is none."""
    return {name: partial(_directory, settings, name) for name in DIRECTORIES if name in settings.scanners}


def _directory(settings: Settings, scanner: str) -> Feed:
    """What the directory of the settings holds; its date is that of its newest file."""
    setting = DIRECTORIES[scanner]
    place = getattr(settings.feeds, setting)
    if not place:
        raise OutsideError(f"feeds.{setting} names no directory with {scanner}'s data")
    files = [file for file in sorted((ROOT / place).rglob("*")) if file.is_file()]
    if not files:
        raise OutsideError(f"feeds.{setting}: there is no data in {ROOT / place}")
    dated = max(datetime.fromtimestamp(file.stat().st_mtime, UTC) for file in files)
    return Feed(ROOT / place, dated, f"directory {ROOT / place}", stamps=stamps(files))


def stamps(files: Iterable[Path]) -> tuple[str, ...]:
    """Files that hold gigabytes, each with its size and time: what tells that one was replaced."""
    found = [(file, file.stat()) for file in sorted(files)]
    return tuple(f"{file.name} {status.st_size} {status.st_mtime_ns}" for file, status in found)
