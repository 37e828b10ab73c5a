"""The content that OpenSCAP judges by: a directory of the settings, else one pinned package of the archive's pool.

Debian 13's rules are in a newer ssg-debian than Debian 13 has. That one .deb is fetched through the archive that images
are made from and checked by its digest; its suite is never added to any apt.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from hardening.foundation.errors import GoldsmithError, OutsideError
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT, Settings
from images.model import Bootstrap
from images.packages.index import PackageIndex
from images.scan.base import Feed
from images.scan.openscap import STREAMS
from images.store.files import file_digest, room_on

VERSION = "0.1.82-1"
DEB = f"pool/main/s/scap-security-guide/ssg-debian_{VERSION}_all.deb"
DEB_SHA256 = "cfde145916f1f37ec96c0fe2a9ea5f44a2db0ee6f0a2dacfcf86534c0977755a"
FOLDER = "usr/share/xml/scap/ssg/content"  # inside the package
STREAM_SHA256 = {
    "bookworm": "122d6e2303d4813ecec63018a65157b9e39975064b0edd6a18ee6d0ea5b1842d",
    "trixie": "512316aea5a9a38603465d1aeaba1a7f953b4c373851e2aa79f75666e3d163ab",
}


def content(settings: Settings, suite: str) -> Feed:
    """The content for `suite`, fetched when it is not there. Raises OutsideError where it cannot be had."""
    if suite not in STREAMS:
        raise OutsideError(f"there is no benchmark content for {suite or 'an unknown suite'}")
    if place := settings.feeds.openscap:
        return _given(ROOT / place, suite)
    kept = settings.state_dir / "feeds" / "openscap" / VERSION
    kept.mkdir(parents=True, exist_ok=True)
    file = kept / STREAMS[suite]
    with FileLock(kept / ".lock"):
        if not file.exists() or file_digest(file) != STREAM_SHA256[suite]:
            _fetch(settings, suite, kept)
    return _feed(file, f"ssg-debian {VERSION}", STREAM_SHA256[suite])


def _given(directory: Path, suite: str) -> Feed:
    file = directory / STREAMS[suite]
    if not file.is_file():
        raise OutsideError(f"feeds.openscap: {directory} has no {file.name}")
    return _feed(file, f"directory {directory}", file_digest(file))


def _feed(file: Path, source: str, sha256: str) -> Feed:
    dated = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    return Feed(file.parent, dated, source, f"sha256:{sha256}")


def _fetch(settings: Settings, suite: str, kept: Path) -> None:
    """Take the content of every suite out of the package, each whole or not at all."""
    with room_on(kept), TemporaryDirectory(dir=kept) as scratch:
        deb, inside = Path(scratch) / "ssg.deb", Path(scratch) / "inside"
        try:
            PackageIndex(settings).fetch(Bootstrap(family="debian", suite=suite), DEB, DEB_SHA256, deb)
        except GoldsmithError as error:
            raise OutsideError(
                f"ssg-debian {VERSION} cannot be fetched: {error.message}; point feeds.openscap at a directory that "
                f"holds {STREAMS[suite]}",
                evidence=error.evidence,
            ) from None
        run(["dpkg-deb", "--extract", str(deb), str(inside)])
        for name in STREAMS.values():
            (inside / FOLDER / name).replace(kept / name)
