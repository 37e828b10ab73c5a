"""Vulnerability data: the last good copy survives every failure, and data that says nothing is no data."""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import digest
from hardening.foundation.settings import Settings
from images import feeds
from images.feeds import debsecan_format
from images.scan.flow import known_exploited
from tests.support.scanning import LINUX, NO_FEEDS

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
FIRST = debsecan_format({"openssl": {"3.5.4-1": ["CVE-2026-0001"]}})
SECOND = debsecan_format({"openssl": {"3.5.4-1": ["CVE-2026-0001", "CVE-2026-0002"]}})


class Server:
    """A real server on loopback whose next answers a test decides; `asked` keeps the requests' headers."""

    def __init__(self) -> None:
        self.content = FIRST
        self.modified = NOW - 2 * HOUR
        self.live = False
        self.fails: list[int | str] = []
        self.asked: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(dict(self.headers))
                fail = outer.fails.pop(0) if outer.fails else None
                if isinstance(fail, int):
                    self.send_error(fail)
                elif self.headers.get("If-None-Match") == digest(outer.content):
                    self.send_response(304)
                    self.end_headers()
                else:
                    self._send(outer.content, cut=fail == "cut")

            def _send(self, content: bytes, *, cut: bool) -> None:
                self.send_response(200)
                if not outer.live:
                    self.send_header("ETag", digest(content))
                    self.send_header("Last-Modified", format_datetime(outer.modified, usegmt=True))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if cut else content)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


def settings(tmp_path: Path, **given: str) -> Settings:
    return Settings(state=tmp_path / "state", retry_for="0s", feeds=NO_FEEDS | given)


def test_data_is_downloaded_once_and_then_only_asked_for(server, tmp_path):
    """A conditional request with the validators of the last answer; 304 confirms the copy without moving its date."""
    ours = settings(tmp_path, debsecan=server.address)
    found, _ = feeds.refresh(ours, "trixie", NOW)
    feed = found["debsecan"]
    assert (feed.directory / "trixie").read_bytes() == FIRST
    assert (feed.date, feed.sha256, feed.note) == (NOW - 2 * HOUR, digest(FIRST), "")
    assert feed.source == f"{server.address}/trixie"
    again, _ = feeds.refresh(ours, "trixie", NOW + HOUR)
    assert again == found
    assert server.asked[1]["If-None-Match"] == digest(FIRST)
    assert server.asked[1]["If-Modified-Since"] == format_datetime(NOW - 2 * HOUR, usegmt=True)


def test_a_scan_asks_again_only_after_an_hour(server, tmp_path):
    """A hundred scans of a nightly are one request; the first after an hour asks."""
    ours = settings(tmp_path, debsecan=server.address)
    for minutes in (0, 1, 59):
        feeds.current(ours, "trixie", NOW + timedelta(minutes=minutes))
    assert len(server.asked) == 1
    feeds.current(ours, "trixie", NOW + HOUR)
    assert len(server.asked) == 2


@pytest.mark.parametrize("ask", [feeds.refresh, feeds.current])
def test_a_clock_that_was_ahead_does_not_end_the_asking(ask, server, tmp_path):
    """What was confirmed in a year to come was not confirmed within the hour."""
    ours = settings(tmp_path, debsecan=server.address)
    feeds.refresh(ours, "trixie", NOW + timedelta(days=400))
    server.content, server.modified = SECOND, NOW
    assert ask(ours, "trixie", NOW)[0]["debsecan"].sha256 == digest(SECOND)


def test_newer_data_replaces_the_copy(server, tmp_path):
    """Content, date and digest move together."""
    ours = settings(tmp_path, debsecan=server.address)
    feeds.refresh(ours, "trixie", NOW)
    server.content, server.modified = SECOND, NOW
    feed = feeds.refresh(ours, "trixie", NOW)[0]["debsecan"]
    assert ((feed.directory / "trixie").read_bytes(), feed.date, feed.sha256) == (SECOND, NOW, digest(SECOND))


@pytest.mark.parametrize("fail", [500, 404, "cut"])
def test_a_failure_keeps_the_last_good_copy_and_tells_its_age(fail, server, tmp_path):
    """An answer of 500, a page that is gone, a connection that ends half-way: the copy stays, untouched."""
    ours = settings(tmp_path, debsecan=server.address)
    before = feeds.refresh(ours, "trixie", NOW)[0]["debsecan"]
    server.content, server.fails = SECOND, [fail] * 9
    after = feeds.refresh(ours, "trixie", NOW + 5 * HOUR)[0]["debsecan"]
    assert (after.directory / "trixie").read_bytes() == FIRST
    assert (after.date, after.sha256) == (before.date, before.sha256)
    assert after.note.startswith("last good copy, 5h old, because http://127.0.0.1")
    assert sorted(path.name for path in after.directory.iterdir()) == [".trixie.lock", "trixie", "trixie.kept.json"]


SHORT_LINE = zlib.compress(
    b"VERSION 1\nCVE-2026-1,,\n\nopenssl,0\n\n"
)  # which debsecan itself ends with a traceback for


@pytest.mark.parametrize(
    "content", [b"", b"<html>login</html>", FIRST[:-9], debsecan_format({}), zlib.compress(b"x"), SHORT_LINE]
)
def test_an_answer_that_is_no_data_never_replaces_the_copy(content, server, tmp_path):
    """A login page, an empty file, a cut file or data that names no vulnerability, each with status 200."""
    ours = settings(tmp_path, debsecan=server.address)
    feeds.refresh(ours, "trixie", NOW)
    server.content = content
    feed = feeds.refresh(ours, "trixie", NOW + HOUR)[0]["debsecan"]
    assert (feed.directory / "trixie").read_bytes() == FIRST
    assert "last good copy" in feed.note


def test_without_any_copy_a_failure_is_no_data_with_the_reason(server, tmp_path):
    """The scanner is then not evaluated, and says why."""
    server.fails = [500] * 9
    found, missing = feeds.refresh(settings(tmp_path, debsecan=server.address), "trixie", NOW)
    assert "debsecan" not in found
    assert missing["debsecan"] == f"{server.address}/trixie answered 500"


def test_a_passing_failure_is_retried(server, tmp_path):
    """One bad answer in a row of good ones is nobody's business."""
    server.fails = [503]
    patient = settings(tmp_path, debsecan=server.address).model_copy(update={"retry_for": timedelta(seconds=30)})
    assert "debsecan" in feeds.refresh(patient, "trixie", NOW)[0]


def test_a_copy_that_was_damaged_on_disk_is_fetched_anew(server, tmp_path):
    """The digest beside it no longer fits, so its validators must not be sent."""
    ours = settings(tmp_path, debsecan=server.address)
    feed = feeds.refresh(ours, "trixie", NOW)[0]["debsecan"]
    (feed.directory / "trixie").write_bytes(FIRST[:-9])
    feeds.current(ours, "trixie", NOW)
    assert (feed.directory / "trixie").read_bytes() == FIRST
    assert "If-None-Match" not in server.asked[1]


def test_a_directory_is_read_with_its_own_date(tmp_path):
    """The date is the metadata's; without it there is none, whatever the file's own time."""
    (tmp_path / "trixie").write_bytes(debsecan_format({**LINUX, "openssl": {"3.5.4-1": ["CVE-2026-0001"]}}))
    ours = settings(tmp_path, debsecan=str(tmp_path))
    undated = feeds.current(ours, "trixie", NOW)[0]["debsecan"]
    assert undated.date is None
    assert undated.source == f"directory {tmp_path}, beside which metadata.json states no date"
    (tmp_path / "metadata.json").write_text('{"date": "2026-11-20"}')
    found, missing = feeds.current(ours, "trixie", NOW)
    assert found["debsecan"].source == f"directory {tmp_path}"
    assert found["debsecan"].date == datetime(2026, 11, 20, tzinfo=UTC)
    assert not found["debsecan"].sample
    assert missing == {"trivy": "feeds.trivy names no vulnerability database"}


def test_a_directory_without_the_suite_or_with_empty_data_is_no_data(tmp_path):
    """Another release's data, or data without a vulnerability, would find nothing in any image."""
    ours = settings(tmp_path, debsecan=str(tmp_path))
    assert "has no data for trixie" in feeds.current(ours, "trixie", NOW)[1]["debsecan"]
    (tmp_path / "trixie").write_bytes(debsecan_format({}))
    assert "names no vulnerability" in feeds.current(ours, "trixie", NOW)[1]["debsecan"]


def test_without_a_feed_the_sample_is_used_and_named_as_such(tmp_path):
    """By its date, wherever it goes; for a suite that has none there is no data."""
    found, _ = feeds.current(settings(tmp_path), "trixie", NOW)
    assert found["debsecan"].sample
    assert found["debsecan"].source == "sample of 2026-11-01"
    assert "no sample of advisories ships for sid" in feeds.current(settings(tmp_path), "sid", NOW)[1]["debsecan"]


def test_trivys_data_is_dated_by_its_own_metadata(tmp_path):
    """When the database was built upstream, not when it was copied here; an empty file is no database."""
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "trivy.db").touch()
    ours = settings(tmp_path, trivy=str(tmp_path))
    assert "there is no database" in feeds.current(ours, "trixie", NOW)[1]["trivy"]
    (tmp_path / "db" / "trivy.db").write_bytes(b"data")
    assert feeds.current(ours, "trixie", NOW)[0]["trivy"].date is None
    (tmp_path / "db" / "metadata.json").write_text('{"UpdatedAt": "2026-11-20T00:00:00Z"}')
    assert feeds.current(ours, "trixie", NOW)[0]["trivy"].date == datetime(2026, 11, 20, tzinfo=UTC)


@pytest.mark.parametrize("wrap", [lambda rows: {"vulnerabilities": rows}, lambda rows: rows])
def test_known_exploitation_comes_from_a_file(wrap, tmp_path):
    """CISA's document, or its bare list."""
    (tmp_path / "kev.json").write_text(json.dumps(wrap([{"cveID": "CVE-2026-0001"}])))
    assert feeds.exploited(settings(tmp_path, kev=str(tmp_path / "kev.json")), NOW).ids == {"CVE-2026-0001"}


def test_the_list_of_exploited_ones_has_a_date_and_says_when_it_is_an_old_copy(server, tmp_path):
    """Its own date where it carries one, else the server's; a copy that had to do tells since when and why."""
    server.content = json.dumps([{"cveID": "CVE-2026-0001"}]).encode()
    ours = settings(tmp_path, kev=server.address)
    [report] = known_exploited(feeds.exploited(ours, NOW))
    assert (report.data_date, report.evaluated, report.reason) == (NOW - 2 * HOUR, 1, "")
    server.fails = [500] * 9
    [report] = known_exploited(feeds.exploited(ours, NOW + 30 * 24 * HOUR))
    assert report.data_date == NOW - 2 * HOUR
    assert report.reason.startswith("last good copy, 30d old, because http://127.0.0.1")
    dated = {"dateReleased": "2026-11-20T01:02:03Z", "vulnerabilities": [{"cveID": "CVE-2026-0001"}]}
    (tmp_path / "kev.json").write_text(json.dumps(dated))
    [report] = known_exploited(feeds.exploited(settings(tmp_path, kev=str(tmp_path / "kev.json")), NOW))
    assert report.data_date == datetime(2026, 11, 20, 1, 2, 3, tzinfo=UTC)
    assert known_exploited(feeds.Exploited()) == ()


def test_known_exploitation_that_was_asked_for_and_cannot_be_had_is_an_error(server, tmp_path):
    """ "None is exploited" would be a silent pass; not asking for it is a choice."""
    assert feeds.exploited(settings(tmp_path), NOW) == feeds.Exploited()
    for place in (str(tmp_path / "absent"), server.address):
        with pytest.raises(OutsideError):
            feeds.exploited(settings(tmp_path, kev=place), NOW)


@pytest.mark.needs("trivy")
def test_a_download_by_trivy_that_fails_keeps_the_last_database(server, tmp_path, monkeypatch):
    """Without one there is no data; with one it stays, with its own date and the reason."""
    monkeypatch.setenv("TRIVY_DB_REPOSITORY", f"{server.address.removeprefix('http://')}/trivy-db")
    server.fails = [404] * 99
    ours = settings(tmp_path, trivy="download")
    assert "trivy ended with status 1" in feeds.current(ours, "trixie", NOW)[1]["trivy"]
    assert server.asked, "trivy asked somebody else"
    kept = tmp_path / "state" / "feeds" / "trivy" / "db"
    kept.mkdir(parents=True)
    (kept / "trivy.db").write_bytes(b"data")
    dates = {"UpdatedAt": "2026-11-20T00:00:00Z", "NextUpdate": "2026-11-21T00:00:00Z"}
    (kept / "metadata.json").write_text(json.dumps(dates))
    feed = feeds.current(ours, "trixie", NOW)[0]["trivy"]
    assert feed.date == datetime(2026, 11, 20, tzinfo=UTC)
    assert feed.note.startswith("last good copy, because")
    asked = len(server.asked)
    (kept / "metadata.json").write_text(json.dumps({**dates, "NextUpdate": "2026-11-26T00:00:00Z"}))
    os.utime(kept / "metadata.json", (NOW.timestamp(), NOW.timestamp()))
    assert feeds.current(ours, "trixie", NOW)[0]["trivy"].note == ""
    assert len(server.asked) == asked
    kept.parent.rename(kept.parent.with_name("trivy.old"))  # as kill -9 in the middle of a swap leaves it
    assert feeds.current(ours, "trixie", NOW + HOUR)[0]["trivy"].note.startswith("last good copy, because")


# The default: Debian's own tracker. A local server stands in its place.


@pytest.fixture
def tracker(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """What the word `debian` means, here; like the real one it names no Last-Modified and no ETag."""
    monkeypatch.setattr("images.feeds.TRACKER", server.address)
    server.live = True
    return server


@pytest.mark.parametrize("given", [{}, {"debsecan": ""}, {"debsecan": "debian"}])
def test_by_default_debians_tracker_is_asked_and_its_answer_is_of_the_moment(given, tracker, tmp_path):
    """It makes its data as it is asked, and says of it no other date than that of the answer."""
    others = {name: "none" for name in NO_FEEDS if name != "debsecan"}
    ours = Settings(state=tmp_path / "state", retry_for="0s", feeds=others | given)
    before = datetime.now(UTC).replace(microsecond=0)
    feed = feeds.current(ours, "trixie", NOW)[0]["debsecan"]
    assert (feed.source, feed.sample, feed.sha256) == (f"{tracker.address}/trixie", False, digest(FIRST))
    assert before <= feed.date <= datetime.now(UTC)
    assert tracker.asked[0]["User-Agent"] == "goldsmith"


def test_what_the_tracker_once_said_serves_on_and_keeps_its_date(tracker, tmp_path):
    """The policy then judges by that date, as of any last good copy."""
    ours = settings(tmp_path, debsecan="debian")
    first = feeds.refresh(ours, "trixie", NOW)[0]["debsecan"]
    tracker.fails = [500] * 9
    kept = feeds.refresh(ours, "trixie", NOW + 5 * HOUR)[0]["debsecan"]
    assert (kept.date, kept.sample) == (first.date, False)
    assert kept.note.startswith("last good copy, 5h old, because http://127.0.0.1")


def test_where_the_tracker_does_not_answer_the_sample_says_which_address_it_stands_for(tracker, tmp_path):
    """For a suite without a sample there is no data; an address that somebody chose has no such stand-in."""
    tracker.fails = [503] * 9
    ours = settings(tmp_path, debsecan="debian")
    feed = feeds.current(ours, "trixie", NOW)[0]["debsecan"]
    assert feed.sample
    assert feed.source == f"sample of 2026-11-01, since {tracker.address}/trixie answered 503"
    assert feeds.current(ours, "sid", NOW)[1]["debsecan"] == f"{tracker.address}/sid answered 503"
    tracker.http.server_close()
    assert f"{tracker.address}/sid does not answer: " in feeds.current(ours, "sid", NOW + HOUR)[1]["debsecan"]
    assert "debsecan" in feeds.current(settings(tmp_path, debsecan="http://127.0.0.1:9"), "trixie", NOW)[1]


def test_a_flow_over_many_images_waits_only_once_for_what_does_not_answer(tracker, tmp_path):
    """A flow reads the clock once; the next one asks again."""
    tracker.fails = [503]
    ours = settings(tmp_path, debsecan="debian")
    assert [feeds.current(ours, "trixie", NOW)[0]["debsecan"].sample for _ in range(3)] == [True] * 3
    assert len(tracker.asked) == 1
    assert not feeds.current(ours, "trixie", NOW + timedelta(seconds=1))[0]["debsecan"].sample
