"""A feed that means harm: it never replaces the good copy, takes little memory and time, and gives one clear error."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.limits import Limit
from hardening.foundation.settings import ROOT, Settings, load_settings
from images import feeds
from images.feeds import debsecan_format, download, facts
from images.feeds.facts import Facts
from images.scan.flow import known_exploited
from tests.support import hostile as h
from tests.support.scanning import NO_FEEDS

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
IDS = [f"CVE-2026-{number:04}" for number in range(10)]
GOOD = debsecan_format({"openssl": {"3.5.4-1": IDS[:5]}, "zlib": {"1.3": IDS[5:]}})
KEV = [{"cveID": name} for name in [*IDS, "CVE-2021-44228"]]


@pytest.fixture
def server() -> Iterator[h.Hostile]:
    with h.hostile() as server:
        server["/trixie"] = dated(GOOD)
        yield server


def dated(body: bytes, at: datetime | None = NOW - 2 * HOUR, **headers: str) -> h.Reply:
    """An answer with its date, if it has one."""
    more = {"Last-Modified": format_datetime(at, usegmt=True)} if at else {}
    return h.Reply(body, headers={**more, **headers})


def settings(tmp_path: Path, **given: str) -> Settings:
    return Settings(state=tmp_path / "state", retry_for="0s", feeds=NO_FEEDS | given)


def refreshed(tmp_path: Path, server: h.Hostile, now: datetime = NOW) -> feeds.Feed:
    found, missing = feeds.refresh(settings(tmp_path, debsecan=server.address), "trixie", now)
    assert not missing.get("debsecan")
    return found["debsecan"]


# The date


@pytest.mark.parametrize(
    "header", [None, "yesterday", "Thu, 99 Jan 2026 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -1400", ""]
)
def test_data_without_a_date_is_not_of_today(header: str | None, server: h.Hostile, tmp_path: Path) -> None:
    """A server that names no date, or none that can be read, vouches for nothing: policies refuse an unknown date."""
    server["/trixie"] = h.Reply(GOOD, headers={} if header is None else {"Last-Modified": header})
    assert refreshed(tmp_path, server).date is None


def test_the_date_inside_the_data_counts_more_than_the_servers(server: h.Hostile, tmp_path: Path) -> None:
    """A mirror that copied last year's list today has last year's list."""
    inside = {"dateReleased": "2025-08-25T14:00:42Z", "vulnerabilities": KEV}
    server["/kev"] = dated(h.dump(inside), NOW)
    [report] = known_exploited(feeds.exploited(settings(tmp_path, kev=f"{server.address}/kev"), NOW))
    assert report.data_date == datetime(2025, 8, 25, 14, 0, 42, tzinfo=UTC)


# What replaces the good copy


def test_a_feed_that_shrinks_by_more_than_half_does_not_replace_the_good_copy(server, tmp_path) -> None:
    """The note says why, how to accept it, and how old the copy is; exactly half is accepted."""
    refreshed(tmp_path, server)
    server["/trixie"] = dated(debsecan_format({"openssl": {"3.5.4-1": IDS[:4]}}), NOW)
    feed = refreshed(tmp_path, server, NOW + 5 * HOUR)
    assert (feed.directory / "trixie").read_bytes() == GOOD
    assert feed.date == NOW - 2 * HOUR
    assert feed.note == (
        "last good copy, 5h old, because the new data has 4 entries, less than half of the 10 before; "
        f"remove {feed.directory / 'trixie'} to accept it"
    )
    server["/trixie"] = dated(half := debsecan_format({"openssl": {"3.5.4-1": IDS[:5]}}), NOW)
    feed = refreshed(tmp_path, server, NOW + 6 * HOUR)
    assert ((feed.directory / "trixie").read_bytes(), feed.note) == (half, "")


def test_a_feed_that_loses_a_canary_does_not_replace_the_good_copy(server, tmp_path) -> None:
    """Of debsecan a source package that never is without a line, of the exploited ones a vulnerability."""
    refreshed(tmp_path, server)
    server["/trixie"] = dated(debsecan_format({"zlib": {"1.3": IDS}}), NOW)
    feed = refreshed(tmp_path, server, NOW + HOUR)
    assert (feed.directory / "trixie").read_bytes() == GOOD
    assert "the new data no longer names openssl" in feed.note
    ours = settings(tmp_path, kev=f"{server.address}/kev")
    server["/kev"] = dated(h.dump(KEV))
    assert "CVE-2021-44228" in feeds.exploited(ours, NOW).ids
    server["/kev"] = dated(h.dump(KEV[:-1]), NOW)
    found = feeds.exploited(ours, NOW + HOUR)
    assert "CVE-2021-44228" in found.ids
    assert "no longer names CVE-2021-44228" in found.feed.note


def test_older_data_does_not_replace_the_good_copy(server: h.Hostile, tmp_path: Path) -> None:
    """A mirror that goes back to last July, or names no date any more, says so in the note; data of the same date is
    accepted. The server's date of an answer counts as the one inside does.
    """
    refreshed(tmp_path, server)
    other = debsecan_format({"openssl": {"3.5.4-1": IDS}})
    for at, said in ((NOW - 120 * 24 * HOUR, "is of 2026-07-28 12:00"), (None, "names no date")):
        server["/trixie"] = dated(other, at)
        feed = refreshed(tmp_path, server, NOW + HOUR)
        assert (feed.directory / "trixie").read_bytes() == GOOD
        assert feed.date == NOW - 2 * HOUR
        assert feed.note == (
            f"last good copy, 1h old, because the new data {said}; the data before is of 2026-11-25 10:00; "
            f"remove {feed.directory / 'trixie'} to accept it"
        )
    server["/trixie"] = dated(other)
    feed = refreshed(tmp_path, server, NOW + HOUR)
    assert ((feed.directory / "trixie").read_bytes(), feed.note) == (other, "")


def test_an_older_list_of_exploited_ones_takes_none_back(server: h.Hostile, tmp_path: Path) -> None:
    """Its own date tells, whatever the server says of the file: what was added since July stays exploited."""
    ours = settings(tmp_path, kev=f"{server.address}/kev")

    def listed(day: str, *ids: str) -> h.Reply:
        rows = [{"cveID": one} for one in (*IDS, *ids)]
        return dated(h.dump({"dateReleased": f"{day}T14:00:00Z", "vulnerabilities": rows}), NOW)

    server["/kev"] = listed("2026-11-20", "CVE-2026-9999")
    assert "CVE-2026-9999" in feeds.exploited(ours, NOW).ids
    server["/kev"] = listed("2026-07-20")
    found = feeds.exploited(ours, NOW + HOUR)
    assert "CVE-2026-9999" in found.ids
    assert found.feed
    assert "the new data is of 2026-07-20 14:00; the data before is of 2026-11-20 14:00; remove" in found.feed.note
    server["/kev"] = listed("2026-11-21")
    assert "CVE-2026-9999" not in feeds.exploited(ours, NOW + 2 * HOUR).ids


def test_data_of_the_future_is_soon_replaced(server: h.Hostile, tmp_path: Path) -> None:
    """Else one wrong date would keep all right data away."""
    server["/trixie"] = dated(GOOD, NOW + 9999 * HOUR)
    refreshed(tmp_path, server)
    server["/trixie"] = dated(GOOD, NOW)
    assert refreshed(tmp_path, server, NOW + HOUR).date == NOW


def test_removing_the_good_copy_accepts_what_is_there_now(server: h.Hostile, tmp_path: Path) -> None:
    """That is what the note says to do."""
    feed = refreshed(tmp_path, server)
    server["/trixie"] = dated(small := debsecan_format({"zlib": {"1.3": IDS[:1]}}), NOW)
    (feed.directory / "trixie").unlink()
    feed = refreshed(tmp_path, server, NOW + HOUR)
    assert ((feed.directory / "trixie").read_bytes(), feed.note, feed.date) == (small, "", NOW)


def test_a_database_of_trivy_that_shrinks_does_not_replace_the_good_one(tmp_path: Path, monkeypatch) -> None:
    """Its size stands for what is in it."""
    directory = tmp_path / "trivy"
    (directory / "db").mkdir(parents=True)
    (directory / "db" / "trivy.db").write_bytes(bytes(1000))

    def downloads(argv: list[str], **_: object) -> None:
        fresh = directory.with_name("trivy.new") / "db"
        fresh.mkdir(parents=True)
        (fresh / "trivy.db").write_bytes(bytes(size))

    monkeypatch.setattr(feeds, "run", downloads)
    monkeypatch.setattr(feeds, "refuse_denied", lambda _: None)
    size = 499
    note = feeds.keep_trivy_current(directory, NOW, timedelta(0))
    assert "less than half of the 1,000 before" in note
    assert (directory / "db" / "trivy.db").stat().st_size == 1000
    size = 500
    assert feeds.keep_trivy_current(directory, NOW, timedelta(0)) == note, "one flow asks once"
    assert feeds.keep_trivy_current(directory, NOW + HOUR, timedelta(0)) == ""
    assert (directory / "db" / "trivy.db").stat().st_size == 500


def trivys(directory: Path, monkeypatch: pytest.MonkeyPatch, *next_ones: dict[str, str]) -> list[dict[str, str]]:
    """Have trivy download these databases by their metadata, the last one again and again; those that it gave."""
    waiting, given = list(next_ones), list[dict[str, str]]()

    def downloads(_argv: list[str], **_: object) -> None:
        given.append(waiting.pop(0) if waiting[1:] else waiting[0])
        (fresh := directory.with_name(f"{directory.name}.new") / "db").mkdir(parents=True)
        (fresh / "trivy.db").write_bytes(b"data")
        (fresh / "metadata.json").write_text(json.dumps(given[-1]))

    monkeypatch.setattr(feeds, "run", downloads)
    monkeypatch.setattr(feeds, "refuse_denied", lambda _: None)
    return given


def test_an_older_database_of_trivy_does_not_replace_the_good_one(tmp_path: Path, monkeypatch) -> None:
    """By its own date; the note says how to accept it, and nothing of it is left."""
    good, old = {"UpdatedAt": "2026-11-20T00:00:00Z"}, {"UpdatedAt": "2026-07-20T00:00:00Z"}
    trivys(tmp_path / "trivy", monkeypatch, good, old)
    assert feeds.keep_trivy_current(tmp_path / "trivy", NOW, timedelta(0)) == ""
    assert feeds.keep_trivy_current(tmp_path / "trivy", NOW + HOUR, timedelta(0)) == (
        "last good copy, because the new data is of 2026-07-20 00:00; the data before is of 2026-11-20 00:00; "
        f"remove {tmp_path / 'trivy'} to accept it"
    )
    assert json.loads((tmp_path / "trivy/db/metadata.json").read_text()) == good
    assert sorted(path.name for path in tmp_path.iterdir()) == [".trivy.lock", "trivy"]


def test_trivys_database_does_not_say_for_longer_than_a_day_that_it_is_current(tmp_path: Path, monkeypatch) -> None:
    """Whatever date it names; whoever asks every feed now asks for it too, once in each flow."""
    given = trivys(tmp_path / "trivy", monkeypatch, {"NextUpdate": "9999-01-01T00:00:00Z"})

    def asked(now: datetime, **more: timedelta) -> int:
        assert feeds.keep_trivy_current(tmp_path / "trivy", now, timedelta(0), **more) == ""
        return len(given)

    assert [asked(NOW), asked(NOW + HOUR), asked(NOW + 23 * HOUR)] == [1, 1, 1]
    assert [asked(NOW + 24 * HOUR), asked(NOW + 25 * HOUR)] == [2, 2]
    at_once = {"after": timedelta(0)}
    assert [asked(NOW + 30 * HOUR, **at_once), asked(NOW + 30 * HOUR, **at_once)] == [3, 3]


def test_every_feed_that_is_asked_now_is_trivys_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`feed.update` and the night do so, and runs in between; but no more often than it is made."""
    ours = settings(tmp_path, trivy="download")
    given = trivys(ours.state_dir / "feeds" / "trivy", monkeypatch, {"NextUpdate": "9999-01-01T00:00:00Z"})
    feeds.current(ours, "trixie", NOW)
    feeds.refresh(ours, "trixie", NOW + 5 * HOUR)
    feeds.current(ours, "trixie", NOW + 7 * HOUR)
    assert len(given) == 1
    feeds.refresh(ours, "trixie", NOW + 7 * HOUR)
    assert len(given) == 2


@pytest.mark.needs("prlimit")
def test_a_database_of_trivy_without_an_end_is_refused_at_the_limit(tmp_path: Path, monkeypatch) -> None:
    """Nothing of it is left, wherever trivy had put it: neither in its cache nor among its temporary files."""
    monkeypatch.setattr(feeds, "refuse_denied", lambda _: None)
    monkeypatch.setattr(feeds, "TRIVY_FILE", Limit("trivy.file", h.MIB))
    trivy = tmp_path / "bin" / "trivy"
    trivy.parent.mkdir()
    monkeypatch.setattr(feeds, "which", lambda _: trivy)
    for place in ("${3#--cache-dir=}/trivy.db", "$TMPDIR/layer"):
        trivy.write_text(f'#!/bin/sh\nexec head -c {8 * h.MIB} /dev/zero > "{place}"\n')
        trivy.chmod(0o755)
        with pytest.raises(OutsideError, match=r"exceeds the limit trivy\.file"):
            feeds.keep_trivy_current(tmp_path / "state" / "trivy", NOW, timedelta(0), timedelta(0))
        assert [path.name for path in (tmp_path / "state").iterdir()] == [".trivy.lock"]


@pytest.mark.parametrize("written", ['{"NextUpdate": "2026-01-01T00:00:00"}', "[]", "[" * 9999, '{"NextUpdate": 7}'])
def test_a_strange_date_of_trivys_metadata_asks_for_newer_data(written: str, tmp_path: Path, monkeypatch) -> None:
    """A date without a zone, or none: no failure, and no reason to keep what is there."""
    (tmp_path / "trivy" / "db").mkdir(parents=True)
    (tmp_path / "trivy" / "db" / "trivy.db").write_bytes(b"data")
    (tmp_path / "trivy" / "db" / "metadata.json").write_text(written)
    monkeypatch.setattr(feeds, "_download_trivy", lambda _: (_ for _ in ()).throw(OutsideError("asked")))
    assert feeds.keep_trivy_current(tmp_path / "trivy", NOW, timedelta(0)) == "last good copy, because asked"


# Where it comes from


@pytest.mark.parametrize("key", ["debsecan", "kev"])
@pytest.mark.parametrize(
    ("place", "accepted"),
    [
        ("https://feeds.example.com/x", True),
        ("http://127.0.0.1:8080/x", True),
        ("http://localhost/x", True),
        ("http://[::1]/x", True),
        ("data/feeds", True),
        ("http://feeds.example.com/x", False),
        ("http://127.0.0.1:80@feeds.example.com/x", False),
        ("http://127.0.0.1.example.com/x", False),
        ("https://user:secret@feeds.example.com/x", False),
        ("ftp://feeds.example.com/x", False),
        ("file:///etc/passwd", False),
        ("https:///x", False),
        ("https://[::1/x", False),
    ],
)
def test_feeds_come_over_https_from_elsewhere(key: str, place: str, accepted: bool, tmp_path: Path) -> None:
    """http is for this machine itself; a setting that says otherwise is wrong content, with its file and key."""
    file = tmp_path / "goldsmith.toml"
    file.write_text(f'[feeds]\n{key} = "{place}"\n')
    if accepted:
        assert getattr(load_settings(file).feeds, key) == place
    else:
        with pytest.raises(ContentError, match=rf"goldsmith\.toml: feeds\.{key}: .*https://"):
            load_settings(file)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("file:///etc/passwd", "redirects to file:///etc/passwd"),
        ("http://feeds.example.com/x", "redirects to http://feeds.example.com/x"),
        ("ftp://127.0.0.1/x", "redirects to ftp://127.0.0.1/x"),
        ("/loop", "exceeds the limit feed.redirects"),
    ],
)
def test_a_redirect_to_what_is_not_safe_is_refused(target: str, said: str, server: h.Hostile, tmp_path: Path) -> None:
    """To a file, to plain http elsewhere, to another scheme, and in a loop."""
    server["/trixie"] = h.redirect(target)
    server["/loop"] = h.redirect("/loop")
    found, missing = feeds.refresh(settings(tmp_path, debsecan=server.address), "trixie", NOW)
    assert "debsecan" not in found
    assert said in missing["debsecan"]
    assert len(server.asked) <= 6


def test_a_redirect_from_https_to_http_is_refused_even_on_this_machine(tmp_path: Path, monkeypatch) -> None:
    """Who could write the answer could write the data too; from https to https under another name is followed."""
    with h.hostile(tmp_path) as safe, h.hostile() as plain:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(safe.ca))
        safe["/trixie"] = h.redirect(f"{plain.address}/trixie")
        plain["/trixie"] = dated(GOOD)
        _, missing = feeds.refresh(settings(tmp_path, debsecan=safe.address), "trixie", NOW)
        assert f"redirects to {plain.address}/trixie" in missing["debsecan"]
        assert plain.asked == []
        safe["/trixie"], safe["/there"] = h.redirect(f"{safe.elsewhere}/there"), dated(GOOD)
        assert (refreshed(tmp_path, safe).directory / "trixie").read_bytes() == GOOD


@pytest.mark.parametrize("suite", ["../../outside", "/etc/passwd", "a/b", "trixie\nx", "..", ".hidden", ""])
def test_the_name_of_a_suite_is_no_path(suite: str, server: h.Hostile, tmp_path: Path) -> None:
    """An image names its suite itself: what is no name is asked of no one and written nowhere."""
    for place in (server.address, str(tmp_path), ""):
        _, missing = feeds.refresh(settings(tmp_path, debsecan=place), suite, NOW)
        assert "which is not the name of a suite" in missing["debsecan"]
    assert server.asked == []
    assert not (tmp_path / "state").exists()


# How long it takes


@pytest.mark.parametrize(
    "reply",
    [
        lambda: h.Drip([]),
        lambda: h.Reply(h.slowly([GOOD[:1]] * 30), claim=30),
        lambda: h.Raw(h.slowly(itertools.chain([b"HTTP/1.0 200 OK\r\n"], [b"X: y\r\n"] * 30, [b"\r\n", b"late"]))),
    ],
    ids=["nothing comes", "bytes drip", "headers drip"],
)
def test_a_slow_answer_ends_at_the_deadline_of_the_whole(
    reply: Callable[[], h.Reply], server: h.Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No single read is late; together they are. What the late thread still brings changes nothing."""
    good = refreshed(tmp_path, server)
    monkeypatch.setattr(download, "FEED_SECONDS", Limit("feed.seconds", 1, "seconds for the whole download"))
    server["/trixie"] = reply()
    feed = refreshed(tmp_path, server, NOW + HOUR)
    assert "exceeds the limit feed.seconds" in feed.note
    assert (feed.date, feed.sha256) == (good.date, good.sha256)
    server.close()
    for thread in [thread for thread in threading.enumerate() if thread.name == "question"]:
        thread.join()
    assert sorted(path.name for path in feed.directory.iterdir()) == [".trixie.lock", "trixie", "trixie.kept.json"]
    assert (feed.directory / "trixie").read_bytes() == GOOD


def test_an_address_that_takes_no_connection_is_given_up_long_before_one_that_answers_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network that lets only some addresses through behaves: nothing comes back at all."""
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(download, "FEED_SECONDS", Limit("feed.seconds", 20, "seconds for the whole download"))
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.create_connection(full.getsockname()):
        address = f"http://127.0.0.1:{full.getsockname()[1]}/trixie"
        with (
            (tmp_path / "sink").open("wb") as sink,
            pytest.raises(OutsideError, match="does not answer: ConnectTimeout"),
        ):
            download.transfer(address, {}, sink)


def test_what_is_waited_for_is_said(
    server: h.Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a command that waits for one of many addresses looks as if it hung."""
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(download, "FEED_SECONDS", Limit("feed.seconds", 1, "seconds for the whole download"))
    server["/slow"] = h.Drip([])
    with (tmp_path / "sink").open("wb") as sink, pytest.raises(OutsideError, match="exceeds the limit"):
        download.transfer(f"{server.address}/slow", {}, sink)
    assert f"waiting for {server.address}/slow" in capsys.readouterr().err


# What it takes, measured: a run of its own through the flow that every scan takes

RUN = """
import json, re, resource, sys
from datetime import UTC, datetime
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import Settings
from images import feeds
from images.feeds import indexed
state, address = Path(sys.argv[1]), sys.argv[2]
ours = Settings(state=state, retry_for="0s", feeds={
    "debsecan": address, "trivy": "none", "kev": address + "/kev", "tracker": address + "/tracker",
    "epss": address + "/epss",
})
now = datetime(2026, 11, 25, 12, tzinfo=UTC)
found, missing = feeds.refresh(ours, "trixie", now)
said = [missing.get("debsecan", "accepted"), missing.get("tracker", "accepted")]
said.append(indexed.likelihoods(ours, now).missing or "accepted")
try:
    feeds.exploited(ours, now)
    said.append("accepted")
except OutsideError as error:
    said.append(error.message)
peak = int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps([*said, peak]))
"""

BOMBS: dict[str, tuple[str, Callable[[], h.Reply]]] = {
    "zeros": ("feed.line", lambda: dated(h.zlib_bomb(2 * h.GIB, b"VERSION 1\n"))),
    "lines": ("feed.text", lambda: dated(zlib.compress(b"VERSION 1\n\n" + b"\n" * (70 * h.MIB)))),
    "many lines": ("feed.text", lambda: dated(zlib.compress(b"VERSION 1\n\n" + b"linux,1,,,\n" * (7 * h.MIB)))),
    "endless": ("feed.bytes", lambda: h.Reply(h.endless(bytes(h.MIB)))),
    "a large claim": ("feed.bytes", lambda: h.Reply(b"x", claim=h.GIB)),
    "compressed again": ("Content-Encoding", lambda: dated(h.gzip_bomb(2 * h.GIB), **{"Content-Encoding": "gzip"})),
    "truncated": ("could not be read", lambda: h.Reply(GOOD[:20], claim=len(GOOD))),
    "huge JSON": ("", lambda: h.Reply(h.huge_json(200 * h.MIB))),
    "deep JSON": ("", lambda: h.Reply(h.deep_json(100_000))),
    "costly JSON": ("", lambda: h.Reply(h.costly_json(4_000_000))),
    "one text": ("", lambda: h.Reply(b'{"openssl": {"CVE-2026-0001": "' + b"x" * (60 * h.MIB) + b'"}}')),
    "quotes in one text": ("", lambda: h.Reply(b'{"openssl": {"CVE-2026-0001": "' + b'\\"' * (30 * h.MIB) + b'"}}')),
}


@pytest.mark.parametrize("way", BOMBS)
def test_a_hostile_feed_takes_little_and_leaves_nothing(way: str, server: h.Hostile, tmp_path: Path) -> None:
    """For every feed: one clear error, less than 300 MB of memory, and nothing on the disk but the locks."""
    said_to_be, make = BOMBS[way]
    for path in ("/trixie", "/kev", "/tracker", "/epss"):
        server[path] = make()
    argv = [sys.executable, "-c", RUN, str(tmp_path / "state"), server.address]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *said, peak = json.loads(done.stdout)
    assert said_to_be in said[0]
    assert len(said) == 4
    assert "accepted" not in said
    assert "\n" not in "".join(said)
    assert peak < 300 * h.MIB
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    locks = {"debsecan/.trixie.lock", "kev/.kev.json.lock", "tracker/.tracker.json.lock", "epss/.epss.csv.gz.lock"}
    assert {f"state/feeds/{lock}" for lock in locks} == {path for path in left if not path.endswith(".index.lock")}


# What is in the data


def test_real_data_has_its_canaries(advisories: Path, tmp_path: Path) -> None:
    """The names that are looked for stand in Debian's and CISA's real data."""
    assert facts.debsecan_facts(advisories / "debsecan" / "trixie").canaries >= {"linux", "openssl"}
    (tmp_path / "kev.json").write_bytes(gzip.decompress((advisories / "kev.json.gz").read_bytes()))
    assert facts.exploited_facts(tmp_path / "kev.json").canaries == facts.EXPLOITED_CANARIES


@pytest.mark.parametrize(
    "text",
    [
        b"VERSION 1\nCVE-1,,\n\nopenssl,0,S ?F,1,\nlinux,0,,1,\nzlib,0,,1,\n\nlinux-old,1\n",
        b"VERSION 1\n\nopenssl,0,,1,\nlinux,0,,1,\nzlib,0,,1,",
    ],
)
def test_debsecans_entries_are_the_lines_of_its_packages(text: bytes, tmp_path: Path) -> None:
    """Neither the vulnerabilities before them nor what follows them counts."""
    (tmp_path / "data").write_bytes(zlib.compress(text))
    assert facts.debsecan_facts(tmp_path / "data") == Facts(3, frozenset({"openssl", "linux"}))


@pytest.mark.parametrize("value", [{}, [{"cve": 1}], [{"cveID": 7}], ["CVE-1"], 7, None, {"vulnerabilities": 7}])
def test_a_list_of_exploited_ones_in_another_form_is_none(value: object, tmp_path: Path) -> None:
    """What cannot be read must not be taken for an empty list."""
    (tmp_path / "kev.json").write_text(json.dumps(value))
    with pytest.raises(OutsideError, match="is not CISA's JSON"):
        facts.exploited_facts(tmp_path / "kev.json")
