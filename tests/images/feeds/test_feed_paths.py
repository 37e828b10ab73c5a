"""Feeds in a directory keep the rules of downloaded ones: their own date, canaries, and no step back unseen."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hardening.evaluation import why_not
from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import Settings
from hardening.policy import Judges
from images import feeds
from images.feeds import debsecan_format, indexed
from images.scan.base import Feed
from images.scan.flow import at_best
from tests.support.scanning import NO_FEEDS

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
IDS = [f"CVE-2026-{number:04}" for number in range(1, 11)]
Write = Callable[[Path, Iterable[str], Iterable[str]], None]


def debsecan(folder: Path, sources: Iterable[str], ids: Iterable[str]) -> None:
    """debsecan's data of trixie."""
    (folder / "trixie").write_bytes(debsecan_format({source: {"9": list(ids)} for source in sources}))


def tracker(folder: Path, sources: Iterable[str], ids: Iterable[str]) -> None:
    """The tracker's JSON."""
    entry = {"releases": {"trixie": {"status": "resolved", "fixed_version": "9", "urgency": "low"}}}
    (folder / "tracker.json").write_text(json.dumps({source: dict.fromkeys(ids, entry) for source in sources}))


WRITERS: dict[str, Write] = {"debsecan": debsecan, "tracker": tracker}
BOTH = ("linux", "openssl")


def asked(tmp_path: Path, feed: str, now: datetime = NOW, **more: str) -> tuple[Feed | None, str]:
    """What the directory gives, or why it gives nothing."""
    found, missing = feeds.current(settings(tmp_path, **{feed: str(tmp_path / "feed")}, **more), "trixie", now)
    return found.get(feed), missing.get(feed, "")


def settings(tmp_path: Path, **given: str) -> Settings:
    return Settings(state=tmp_path / "state", retry_for="0s", feeds=NO_FEEDS | given)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "feed").mkdir()
    return tmp_path / "feed"


def dated(folder: Path, day: int) -> None:
    """The date that the directory states."""
    (folder / "metadata.json").write_text(json.dumps({"date": f"2026-11-{day}"}))


@pytest.mark.parametrize("feed", WRITERS)
def test_one_harmless_line_is_no_data(tmp_path: Path, folder: Path, feed: str) -> None:
    """Nothing before it could be compared with it, and such data always names the kernel and OpenSSL."""
    dated(folder, 24)
    WRITERS[feed](folder, ["zlib"], IDS[:1])
    found, why = asked(tmp_path, feed)
    assert found is None
    assert why.endswith("does not name linux, openssl, which such data always names")
    reports = {one.scanner: one for one in at_best(settings(tmp_path, **{feed: str(folder)}), "trixie", NOW)}
    report = reports[{"tracker": "matcher"}.get(feed, feed)]
    assert report.evaluated == 0
    WRITERS[feed](folder, BOTH, IDS)
    assert asked(tmp_path, feed)[1] == ""


@pytest.mark.parametrize("feed", WRITERS)
def test_the_time_of_a_file_is_no_date_of_its_data(tmp_path: Path, folder: Path, feed: str) -> None:
    """Whoever copies old data makes it no newer: without a stated date no policy counts it, and the reason says so."""
    WRITERS[feed](folder, BOTH, IDS)
    for file in folder.iterdir():
        os.utime(file, (NOW.timestamp(), NOW.timestamp()))
    found, _ = asked(tmp_path, feed)
    assert found
    assert found.date is None
    reports = {one.scanner: one for one in at_best(settings(tmp_path, **{feed: str(folder)}), "trixie", NOW)}
    why = why_not(Judges(), reports[{"tracker": "matcher"}.get(feed, feed)], NOW)
    assert "the date of its data is unknown" in why
    assert "beside which metadata.json states no date" in why
    dated(folder, 24)
    found, _ = asked(tmp_path, feed)
    assert found
    assert found.date == datetime(2026, 11, 24, tzinfo=UTC)


def older(folder: Path, write: Write) -> None:
    write(folder, BOTH, [*IDS, "CVE-2026-0099"])
    dated(folder, 23)


def undated(folder: Path, write: Write) -> None:
    write(folder, BOTH, [*IDS, "CVE-2026-0099"])
    (folder / "metadata.json").unlink()


def shrunk(folder: Path, write: Write) -> None:
    write(folder, BOTH, IDS[:4])


def without_a_canary(folder: Path, write: Write) -> None:
    write(folder, ("linux", "zlib"), IDS)


def cut(folder: Path, _write: Write) -> None:
    for file in folder.iterdir():
        if file.name != "metadata.json":
            file.write_bytes(file.read_bytes()[:-9])


WORSE: dict[str, tuple[Callable[[Path, Write], None], str]] = {
    "older": (older, "is of 2026-11-23 00:00; the data before is of 2026-11-24"),
    "undated": (undated, "names no date; the data before is of 2026-11-24"),
    "shrunk": (shrunk, "the new data has 8 entries, less than half of the 20 before"),
    "without a canary": (without_a_canary, "openssl"),
    "cut": (cut, "cut short"),
}


@pytest.mark.parametrize("feed", WRITERS)
@pytest.mark.parametrize("how", WORSE)
def test_worse_data_does_not_replace_the_last_good_copy(tmp_path: Path, folder: Path, feed: str, how: str) -> None:
    """It stays in use with its own date and the reason, and removing it accepts the new data."""
    WRITERS[feed](folder, BOTH, IDS)
    dated(folder, 24)
    good, _ = asked(tmp_path, feed)
    assert good
    change, why = WORSE[how]
    change(folder, WRITERS[feed])
    kept, _ = asked(tmp_path, feed, NOW + HOUR)
    assert kept
    assert (kept.date, kept.sha256) == (good.date, good.sha256)
    assert kept.note.startswith("last good copy, 1h old, because ")
    assert why in kept.note
    if how in ("older", "shrunk"):
        name = kept.note.partition("remove ")[2].partition(" to accept it")[0]
        Path(name).unlink()
        fresh, _ = asked(tmp_path, feed, NOW + HOUR)
        assert fresh
        assert (fresh.note, fresh.sha256 != good.sha256) == ("", True)


def test_a_shorter_list_of_exploited_ones_does_not_replace_it(tmp_path: Path, folder: Path) -> None:
    """Nor does one without the entries that never go; what is not there at all is an error."""
    file = folder / "kev.json"

    def write(*ids: str) -> None:
        file.write_text(
            json.dumps({"dateReleased": "2026-11-24T00:00:00Z", "vulnerabilities": [{"cveID": i} for i in ids]})
        )

    ours = settings(tmp_path, kev=str(file))
    write("CVE-2021-44228", *IDS)
    assert feeds.exploited(ours, NOW).ids == {"CVE-2021-44228", *IDS}
    for ids in (IDS[:3], IDS):
        write(*ids)
        again = feeds.exploited(ours, NOW)
        assert again.ids == {"CVE-2021-44228", *IDS}
        assert again.feed
        assert "last good copy" in again.feed.note
    file.unlink()
    with pytest.raises(OutsideError, match=r"feeds\.kev: no such file"):
        feeds.exploited(ours, NOW)


def test_older_estimates_do_not_replace_newer_ones(tmp_path: Path, folder: Path) -> None:
    """Their date is the one inside them."""
    ours = settings(tmp_path, epss=str(folder))
    for day, score in ((24, 0.5), (20, 0.1)):
        (folder / "epss.csv").write_text(
            f"#model_version:v1,score_date:2026-11-{day}T00:00:00+0000\ncve,epss,percentile\n{IDS[0]},{score},0.3\n"
        )
        assert dict(indexed.likelihoods(ours, NOW).scores) == {IDS[0]: 0.5}


@pytest.mark.parametrize("feed", ["trivy", "grype"])
def test_a_database_that_is_not_copied_is_compared_with_what_was_there(tmp_path: Path, folder: Path, feed: str) -> None:
    """An older or much smaller one is not read; nor is its date the time of a file."""
    more: dict[str, Any] = {"scanners": ("grype",)} if feed == "grype" else {}
    ours = settings(tmp_path, **{feed: str(folder)}).model_copy(update=more)
    database, metadata, key = {
        "trivy": (folder / "db/trivy.db", folder / "db/metadata.json", "UpdatedAt"),
        "grype": (folder / "6/vulnerability.db", folder / "metadata.json", "date"),
    }[feed]
    database.parent.mkdir()

    def put(size: int, day: int) -> tuple[Feed | None, str]:
        database.write_bytes(b"x" * size)
        metadata.write_text(json.dumps({key: f"2026-11-{day}T00:00:00Z"}))
        found, missing = feeds.current(ours, "trixie", NOW)
        return found.get(feed), missing.get(feed, "")

    good, _ = put(1000, 24)
    assert good
    assert good.date == datetime(2026, 11, 24, tzinfo=UTC)
    assert "the new data is of 2026-11-20" in put(1000, 20)[1]
    assert "less than half" in put(400, 25)[1]
    assert put(900, 25)[1] == ""
    known = ours.state_dir / f"feeds/{feed}.known.json"
    assert f"remove {known} to accept it" in put(10, 26)[1]
    known.unlink()
    assert put(10, 26)[1] == ""
