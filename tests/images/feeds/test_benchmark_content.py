"""The content that OpenSCAP judges by: one pinned package, verified and kept whole; a directory; or no judging."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import Feeds, Packages, Settings
from images import feeds
from tests.support.scanning import NO_FEEDS

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def at_mirror(folder: Path, content: bytes | None) -> Settings:
    """Settings whose mirror is a folder; with `content` where the package should be."""
    if content is not None:
        (folder / "mirror" / feeds.SSG_DEB).parent.mkdir(parents=True)
        (folder / "mirror" / feeds.SSG_DEB).write_bytes(content)
    packages = Packages(mirror=(folder / "mirror").as_uri(), keyring=KEYRING)
    return Settings(state=folder / "state", retry_for="0s", packages=packages, feeds=NO_FEEDS)


@pytest.mark.parametrize("content", [None, b"another package"])
def test_a_mirror_without_that_very_package_is_a_reason_and_nothing_is_kept(tmp_path: Path, content: bytes) -> None:
    """Absent or other bytes: what was judged by is known, or there is no judging."""
    found, missing = feeds.current(at_mirror(tmp_path, content), "trixie", NOW, benchmark=True)
    assert "openscap" not in found
    assert missing["openscap"].startswith(
        f"ssg-debian {feeds.SSG_VERSION} cannot be fetched: no archive has pool/main/"
    )
    assert missing["openscap"].endswith("point feeds.openscap at a directory that holds ssg-debian13-ds.xml")
    assert not list((tmp_path / "state/feeds/openscap").rglob("*.xml"))


@pytest.mark.needs("mirror", "dpkg-deb")
def test_the_pinned_package_is_fetched_once_and_again_when_it_is_damaged(tmp_path: Path) -> None:
    """What is kept is compared by its digest each time it is used."""
    ours = Settings(state=tmp_path / "state")
    first = feeds.benchmark_content(ours, "trixie")
    file = first.directory / "ssg-debian13-ds.xml"
    assert first.source == f"ssg-debian {feeds.SSG_VERSION}"
    assert first.sha256 == f"sha256:{feeds.STREAM_SHA256['trixie']}"
    assert first.date
    assert first.date < NOW
    inode = file.stat().st_ino
    assert feeds.benchmark_content(ours, "trixie") == first
    assert feeds.benchmark_content(ours, "bookworm").sha256 == f"sha256:{feeds.STREAM_SHA256['bookworm']}"
    assert file.stat().st_ino == inode
    file.write_text("half")
    assert feeds.benchmark_content(ours, "trixie") == first
    assert {path.name for path in first.directory.iterdir()} == {*feeds.STREAMS.values(), ".lock"}


def test_a_directory_of_the_settings_is_taken_as_it_is(tmp_path: Path) -> None:
    """With its digest, so that other content is another scan; the time of a file is no date of it."""
    ours = Settings(state=tmp_path / "state", feeds=Feeds(openscap=str(tmp_path)))
    with pytest.raises(OutsideError, match=r"has no ssg-debian13-ds\.xml"):
        feeds.benchmark_content(ours, "trixie")
    file = tmp_path / "ssg-debian13-ds.xml"
    file.write_text("one")
    one = feeds.benchmark_content(ours, "trixie")
    file.write_text("two")
    assert (one.source, one.directory, one.date) == (f"directory {tmp_path}", tmp_path, None)
    (tmp_path / "metadata.json").write_text(json.dumps({"date": NOW.isoformat()}))
    assert feeds.benchmark_content(ours, "trixie").date == NOW
    assert feeds.benchmark_content(ours, "trixie").sha256 != one.sha256


def test_a_release_that_has_no_benchmark_is_a_reason(tmp_path: Path) -> None:
    """It is never judged by another release's."""
    with pytest.raises(OutsideError, match="no benchmark content for sid"):
        feeds.benchmark_content(Settings(state=tmp_path), "sid")


def test_content_is_only_asked_for_where_a_policy_measures(tmp_path: Path) -> None:
    """A container's scan fetches none."""
    found, missing = feeds.current(at_mirror(tmp_path, None), "trixie", NOW)
    assert "openscap" not in {*found, *missing}
    assert not (tmp_path / "state/feeds/openscap").exists()
