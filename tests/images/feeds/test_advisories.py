"""The tracker's data: what an advisory means, which versions it concerns, and how it is read within limits."""

from __future__ import annotations

import gzip
import json
import re
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.findings import Outcome
from hardening.foundation.errors import OutsideError
from hardening.foundation.limits import Limit
from hardening.foundation.settings import Settings
from hardening.model import Severity
from images import feeds
from images.advisories import Advisories, Advisory, FeedChange, changes, is_before, match
from images.artifact import Package
from images.feeds import data_index, indexed
from images.scan import SCANNERS
from images.scan.base import Feed, ScanInputs, ScanTarget
from images.scan.flow import at_best, known_exploited
from images.scan.matcher import as_finding
from tests.support import hostile as h
from tests.support.scanning import CURRENT, NO_FEEDS, packages

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
OPENSSL = Package("openssl", "3.5.1-1", "amd64", "", "openssl")
ONE = Advisory("CVE-2026-0001", "openssl", "3.5.4-1", urgency="medium")
FEED = Feed(Path("/data"), NOW, "a test's")
MATCHER = SCANNERS["matcher"]


def said(**releases: dict[str, Any]) -> dict[str, Any]:
    """One vulnerability of openssl as the tracker's JSON has it."""
    return {"openssl": {"CVE-2026-0001": {"description": " A\n hole ", "releases": releases}}}


def resolved(version: str, **more: Any) -> dict[str, Any]:
    return {"status": "resolved", "fixed_version": version, "repositories": {}, "urgency": "not yet assigned", **more}


LINUX = {"linux": {"CVE-2000-0001": {"releases": {"trixie": resolved("0.1")}}}}


def read(folder: Path, value: Any, suite: str = "trixie", *, packed: bool = False) -> list[Advisory]:
    """What the data says of a suite."""
    text = json.dumps(value).encode()
    (folder / "tracker.json").write_bytes(gzip.compress(text) if packed else text)
    index, _ = data_index.indexed(folder / "tracker.json", folder / "index", indexed._of_tracker)
    return data_index.of_suite(index, suite)


def settings(tmp_path: Path, **given: str) -> Settings:
    return Settings(state=tmp_path / "state", retry_for="0s", feeds=NO_FEEDS | given)


# Which versions


@pytest.mark.parametrize(
    ("version", "fixed", "before"),
    [
        ("3.5.1-1", "3.5.4-1~deb13u2", True),
        ("3.5.4-1", "3.5.4-1~deb13u2", False),
        ("1:1.0-1", "2.0-1", False),
        ("2.9", "2.10", True),
        ("2.41-12+deb13u9", "2.41-12+deb13u10", True),
        ("1.0-1", "", True),
        ("not a version", "1.0", True),
        ("1.0", "1.0", False),
        ("1.0", "9" * 5000, True),
        ("9" * 5000, "1.0", True),
    ],
)
def test_a_version_is_before_a_fix_in_debians_order(version: str, fixed: str, before: bool) -> None:
    """With epochs, numbers and tildes; without a fix every version is, and one that cannot be read."""
    assert is_before(version, fixed) is before


def test_an_advisory_is_about_the_source_and_its_version() -> None:
    """A binary of another name and epoch, and one that was only rebuilt, are of the source that the entry names."""
    login = Package("login", "1:4.16.0-2+really2.41-5", "amd64", "", "util-linux", source_version="2.41-5")
    rebuilt = Package("bsdutils", "2.41-5+b2", "amd64", "", "util-linux")
    known = Advisories(
        [Advisory("CVE-2026-0002", "util-linux", "2.41-6"), Advisory("CVE-2026-0003", "util-linux", "2.41-5")]
    )
    assert {package.name: [one.id for one in found] for package, found in match([login, rebuilt], known).items()} == {
        "login": ["CVE-2026-0002"], "bsdutils": ["CVE-2026-0002"]
    }  # fmt: skip
    assert match([OPENSSL], known) == {}


def test_a_signed_kernel_has_what_the_kernel_has() -> None:
    """Debian signs kernels and GRUB in sources of their own, over which there are no advisories."""
    name, source = "linux-image-6.12.86+deb13-cloud-amd64", "linux-signed-amd64"
    kernel = Package(name, "6.12.86-1", "amd64", "", source, source_version="6.12.86+1")
    grub = Package("grub-efi-amd64-signed", "1+2.12+9+deb13u3", "amd64", "", "grub-efi-amd64-signed")
    known = Advisories([
        Advisory("CVE-2026-0005", "linux", "6.12.87-1"), Advisory("CVE-2026-0006", "linux", "6.12.86-1"),
        Advisory("CVE-2026-0007", "grub2", "2.12-9+deb13u4"), Advisory("CVE-2026-0008", "grub2", "2.12-9+deb13u3"),
    ])  # fmt: skip
    meta = replace(kernel, name="linux-image-cloud-amd64")
    found = match([kernel, grub, meta], known)
    assert [[one.id for one in said] for said in found.values()] == [["CVE-2026-0005"], ["CVE-2026-0007"]]
    title = as_finding(kernel, found[kernel][0]).title
    assert title == "(linux-signed-amd64 is a signed copy of linux)"


VERSIONS = st.from_regex(r"[0-3]\.[0-9]{1,2}(-[0-9])?(\+deb13u[0-9])?", fullmatch=True)


@given(version=VERSIONS, fixes=st.lists(VERSIONS, max_size=6))
def test_what_concerns_a_version_is_what_was_fixed_after_it(version: str, fixes: list[str]) -> None:
    """One by one or all at once, asked once or again."""
    all_of_them = [Advisory(f"CVE-2026-{number:04}", "openssl", fixed) for number, fixed in enumerate(fixes)]
    known, package = Advisories(all_of_them), replace(OPENSSL, version=version)
    expected = tuple(sorted(one for one in all_of_them if is_before(version, one.fixed)))
    assert known.concerning(package) == known.concerning(package) == expected


def test_what_newer_data_changed() -> None:
    """A fix that moves to a newer version is no news of a fix; what nobody has any more is closed."""
    before = {("A", "s"): "", ("B", "s"): "1", ("C", "s"): "", ("D", "s"): "1"}
    after = {("A", "s"): "2", ("B", "s"): "2", ("C", "s"): "", ("E", "s"): "1"}
    assert changes(before, after, {"C", "Z"}) == {
        ("A", "s"): FeedChange.FIXED, ("D", "s"): FeedChange.CLOSED, ("E", "s"): FeedChange.OPENED,
        ("C", "s"): FeedChange.EXPLOITED,
    }  # fmt: skip
    assert changes(before, before) == {}


# What the tracker says


def test_what_the_tracker_says_becomes_an_advisory_of_each_suite(tmp_path: Path) -> None:
    """With its fix, or why there is none; of a suite that never had it there is none."""
    value = said(
        trixie=resolved("3.5.4-1", urgency="low**"), bookworm=resolved("0"),
        sid={"status": "undetermined", "urgency": "not yet assigned"},
        forky={"status": "open", "urgency": "unimportant", "nodsa": "Minor issue", "nodsa_reason": "postponed"},
    )  # fmt: skip
    value["openssl"]["CVE-2026-0004"] = {"releases": {"trixie": {"status": "open", "urgency": "end-of-life"}}}
    first, second = read(tmp_path, value)
    assert (first.fixed, first.word, first.text) == ("3.5.4-1", "low", "A hole")
    assert (second.fixed, second.word, second.text) == ("", "", "end-of-life")
    assert read(tmp_path, value, "bookworm") == []
    [one] = read(tmp_path, value, "sid")
    assert (one.fixed, one.text) == ("", "A hole (undetermined)")
    [one] = read(tmp_path, value, "forky")
    assert (one.fixed, one.word) == ("", "low")
    assert one.text == "A hole (unimportant; no-dsa, postponed: Minor issue)"


def test_data_packed_by_gzip_is_read_too_and_a_fix_of_no_form_is_no_fix(tmp_path: Path) -> None:
    """What cannot be compared must not look fixed."""
    [one] = read(tmp_path, said(trixie=resolved("a version?")), packed=True)
    assert (one.fixed, one.status) == ("", "resolved")


@pytest.mark.parametrize(
    "value",
    [
        [], {}, 7, {"openssl": []}, {"openssl": {"CVE-2026-0001": []}}, {"openssl": {"CVE-2026-0001": {}}},
        {"openssl": {"CVE-2026-0001": {"releases": {"trixie": {}}}}},
        {"open ssl": said(trixie=resolved("1"))["openssl"]},
        {"openssl": {"../../x": {"releases": {"trixie": resolved("1")}}}},
        said(**{"trixie; DROP": resolved("1")}), said(trixie=resolved("1", urgency=7)), said(trixie=resolved("0")),
    ],
)  # fmt: skip
def test_data_of_another_form_is_none(value: Any, tmp_path: Path) -> None:
    """What cannot be read must not be taken for data without vulnerabilities; and nothing is left of it."""
    with pytest.raises(OutsideError, match="the tracker's data"):
        read(tmp_path, value)
    assert [path.name for path in (tmp_path / "index").iterdir()] == [".index.lock"]


@pytest.mark.parametrize("cut", [0, 1, 20, -1])
def test_data_that_is_cut_short_is_none(cut: int, tmp_path: Path) -> None:
    """As JSON, and as what gzip packed."""
    text = json.dumps(said(trixie=resolved("1"))).encode()
    for packed in (text, gzip.compress(text)):
        (tmp_path / "data").write_bytes(packed[:cut])
        with pytest.raises(OutsideError):
            data_index.indexed(tmp_path / "data", tmp_path / "index", indexed._of_tracker)


def test_data_that_says_a_thing_twice_is_none(tmp_path: Path) -> None:
    """It means one thing to us and may mean another to the next reader."""
    once = json.dumps(said(trixie=resolved("1"))["openssl"])
    (tmp_path / "data").write_text(f'{{"openssl": {once}, "openssl": {once}}}')
    with pytest.raises(OutsideError, match="cannot be made: UNIQUE constraint failed"):
        data_index.indexed(tmp_path / "data", tmp_path / "index", indexed._of_tracker)


@pytest.mark.parametrize(
    ("name", "most", "value"),
    [
        ("TRACKER_TEXT", 40, said(trixie=resolved("1"))),
        (
            "TRACKER_ENTRIES",
            1,
            {"openssl": {f"CVE-2026-000{n}": {"releases": {"trixie": resolved("1")}} for n in (1, 2)}},
        ),
        ("TRACKER_VALUES", 9, said(trixie=resolved("1"), sid=resolved("1"))),
        ("JSON_DEPTH", 4, {"openssl": {"CVE-2026-0001": [[[[7]]]]}}),
    ],
)
def test_each_limit_holds(name: str, most: int, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the error names it."""
    monkeypatch.setattr(data_index, name, Limit(f"of.{name}", most))
    with pytest.raises(OutsideError, match=re.escape(f"the limit of.{name}")):
        read(tmp_path, value)


def test_a_text_without_end_is_refused_before_it_fills_memory(tmp_path: Path) -> None:
    """Also one of escaped quotation marks, wherever a piece of it begins."""
    for filler in ("x", '\\"', "\\\\"):
        text = f'{{"openssl": {{"CVE-2026-0001": "{filler * (4 << 20)}"}}}}'
        (tmp_path / "data").write_text(text)
        with pytest.raises(OutsideError, match="holds a text of more than 1,048,576 bytes"):
            data_index.indexed(tmp_path / "data", tmp_path / "index", indexed._of_tracker)


@pytest.mark.parametrize("number", ["9" * 5000, f"-{'9' * 5000}", "1e999", f"1.{'9' * 5000}e999"])
def test_a_number_beyond_all_others_is_one_error(number: str, tmp_path: Path) -> None:
    """Of so many digits, or so large, that Python makes none of it: the C code that reads it must not crash on that."""
    (tmp_path / "data").write_text(f'{{"openssl": {number}}}')
    with pytest.raises(OutsideError, match="is not JSON, or cut short"):
        data_index.indexed(tmp_path / "data", tmp_path / "index", indexed._of_tracker)


# OSV


def test_an_archive_whose_names_are_no_text_is_one_error(tmp_path: Path) -> None:
    """A name that the list of the archive says in order, and the file's own header not."""
    zipped(tmp_path / "osv.zip", document("DEBIAN-CVE-2026-0007"))
    packed = (tmp_path / "osv.zip").read_bytes()
    (tmp_path / "osv.zip").write_bytes(
        packed.replace(b"DEBIAN", b"\x92EBIAN", 1).replace(b"\x14\0\0\0", b"\x14\0\0\x08", 1)
    )
    with pytest.raises(OutsideError, match="is not a zip archive, or is cut short"):
        list(data_index.osv_rows(tmp_path / "osv.zip"))


def document(name: str, ecosystem: str = "Debian:13", **more: Any) -> dict[str, Any]:
    """One of OSV's documents."""
    events = [{"introduced": "0"}, *([{"fixed": more.pop("fixed")}] if "fixed" in more else [])]
    package = {"ecosystem": ecosystem, "name": "openssl"}
    affected = {"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    return {"id": name, "details": "A hole", "affected": [affected], **more}


def zipped(path: Path, *documents: dict[str, Any]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for one in documents:
            archive.writestr(f"{one['id']}.json", json.dumps(one))


def test_osv_adds_what_the_tracker_does_not_list(tmp_path: Path) -> None:
    """What both list is as the tracker says; the data is as old as the older of both."""
    (tmp_path / "tracker.json").write_text(json.dumps(said(trixie=resolved("3.5.4-1")) | LINUX))
    (tmp_path / "metadata.json").write_text('{"date": "2026-11-20"}')
    zipped(
        tmp_path / "osv.zip", document("DSA-1-1", upstream=["CVE-2026-0001", "CVE-2026-0007"], fixed="3.5.9-1"),
        document("DEBIAN-CVE-2026-0007", fixed="3.5.8-1"), document("DEBIAN-CVE-2026-0008"),
        document("DEBIAN-CVE-2026-0009", "Debian:12"), document("DEBIAN-CVE-2026-0010", withdrawn="2026-01-01"),
        document("DEBIAN-CVE-2026-0011", withdrawn=None, fixed="3.5.2-1"),
    )  # fmt: skip
    feed = indexed.tracker(settings(tmp_path, tracker=str(tmp_path), osv=str(tmp_path / "osv.zip")), "trixie", NOW)
    found = indexed.advisories(feed, "trixie").concerning(OPENSSL)
    assert [(one.id, one.fixed) for one in found] == [
        ("CVE-2026-0001", "3.5.4-1"), ("CVE-2026-0007", "3.5.8-1"), ("CVE-2026-0008", ""), ("CVE-2026-0011", "3.5.2-1")
    ]  # fmt: skip
    assert feed.date == datetime(2026, 11, 20, tzinfo=UTC)
    assert feed.source == f"file {tmp_path}/tracker.json and file {tmp_path}/osv.zip"


FIX_8, FIX_10 = ({"introduced": "0"}, {"fixed": "3.5.8-1"}), ({"introduced": "3.5.9-1"}, {"fixed": "3.5.10-1"})


@pytest.mark.parametrize(
    ("ranges", "fixed"),
    [
        ([("ECOSYSTEM", FIX_8), ("GIT", ({"introduced": "0"}, {"fixed": "abc123"}))], "3.5.8-1"),
        ([("ECOSYSTEM", FIX_10), ("ECOSYSTEM", FIX_8)], "3.5.10-1"),
        ([("ECOSYSTEM", (*FIX_8, *FIX_10))], "3.5.10-1"),
        ([("ECOSYSTEM", (*FIX_10, *FIX_8))], "3.5.10-1"),
        ([("ECOSYSTEM", (FIX_8[1], FIX_8[0]))], "3.5.8-1"),
        ([("ECOSYSTEM", ({"introduced": "3.5.9-1"}, *FIX_8))], ""),
        ([("ECOSYSTEM", (*FIX_8, {"introduced": "3.5.9-1"}))], ""),
        ([("ECOSYSTEM", FIX_8), ("ECOSYSTEM", ({"introduced": "3.5.9-1"},))], ""),
        ([("ECOSYSTEM", ({"introduced": "0"}, {"last_affected": "3.5.8-1"}))], ""),
        ([("GIT", ({"introduced": "0"}, {"fixed": "3.5.8-1"}))], ""),
        ([("ECOSYSTEM", ())], ""), ([], ""),
    ],
)  # fmt: skip
def test_a_fix_of_osv_ends_every_range_of_the_distribution(
    ranges: list[tuple[str, tuple[dict[str, str], ...]]], fixed: str, tmp_path: Path
) -> None:
    """A commit is no version; what begins again after a fix is not fixed; of several fixes the highest counts."""
    package = {"ecosystem": "Debian:13", "name": "openssl"}
    affected = {"package": package, "ranges": [{"type": kind, "events": list(events)} for kind, events in ranges]}
    zipped(tmp_path / "osv.zip", {"id": "DEBIAN-CVE-2026-0007", "affected": [affected]})
    index, _ = data_index.indexed(tmp_path / "osv.zip", tmp_path / "index", indexed._of_osv)
    [one] = data_index.of_suite(index, "trixie")
    assert (one.fixed, one.status) == (fixed, "resolved" if fixed else "open")


@pytest.mark.parametrize(("more", "fixed"), [({"fixed": "3.5.8-1"}, "3.5.8-1"), ({}, "")])
def test_all_that_a_document_of_osv_says_of_a_source_counts(more: dict[str, str], fixed: str, tmp_path: Path) -> None:
    """A version is affected where any of it says so, by the schema's own algorithm, in whatever order it stands."""
    first, second = document("DEBIAN-CVE-2026-0007", fixed="3.5.2-1"), document("DEBIAN-CVE-2026-0007", **more)
    for affected in ([*first["affected"], *second["affected"]], [*second["affected"], *first["affected"]]):
        zipped(tmp_path / "osv.zip", {**first, "affected": affected})
        index, _ = data_index.indexed(tmp_path / "osv.zip", tmp_path / "index", indexed._of_osv)
        assert [one.fixed for one in data_index.of_suite(index, "trixie")] == [fixed]


def test_data_of_osv_in_another_form_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No zip archive, a document of another form, or more than the limit."""
    bad = tmp_path / "osv.zip"
    for content in (b"", b"<html>"):
        bad.write_bytes(content)
        with pytest.raises(OutsideError, match="not a zip archive"):
            data_index.indexed(bad, tmp_path / "index", indexed._of_osv)
    zipped(bad, {"id": 7})
    with pytest.raises(OutsideError, match="of an unknown form"):
        data_index.indexed(bad, tmp_path / "index", indexed._of_osv)
    zipped(bad, document("DEBIAN-CVE-2026-0007", fixed="1"))
    for name in ("OSV_NAMES", "OSV_TEXT"):
        monkeypatch.setattr(data_index, name, Limit("of.osv", 60))
        with pytest.raises(OutsideError, match=r"the limit of\.osv"):
            data_index.indexed(bad, tmp_path / "index", indexed._of_osv)
        monkeypatch.undo()


# The matcher


def inputs(*advisories: Advisory, status: str = CURRENT, **more: Any) -> tuple[ScanTarget, ScanInputs]:
    given: dict[str, Any] = {"feeds": {"tracker": FEED}, "missing": {}} | more
    target = ScanTarget("image", Path("/layout"), Path("/tree"), None, packages(status))
    return target, ScanInputs(Path("/work"), "trixie", status, advisories=Advisories(advisories), **given)


def test_the_matcher_judges_the_packages_of_the_image_itself() -> None:
    """A finding for each binary of the source, dated by the data; it counts what it evaluated."""
    report = MATCHER.parse("", *inputs(Advisory("CVE-2026-0001", "openssl", "99-1", urgency="high", title="A hole")))
    assert (report.outcome, report.evaluated, report.data_date) == (Outcome.FAIL, len(packages(CURRENT)), NOW)
    assert {one.package for one in report.findings} == {"libssl3t64", "openssl-provider-legacy"}
    assert {(one.severity, one.fixed, one.title) for one in report.findings} == {(Severity.HIGH, "99-1", "A hole")}
    assert MATCHER.parse("", *inputs(ONE)).outcome is Outcome.PASS


def test_the_matcher_that_has_no_data_or_sees_too_little_evaluated_nothing() -> None:
    """Nothing evaluated is never a pass."""
    target, none = inputs(feeds={}, missing={"tracker": "it does not answer"})
    assert MATCHER.cannot(target, none) == "it does not answer"
    assert MATCHER.cannot(target, replace(none, suite="")) == "the image names no Debian suite in os-release"
    assert MATCHER.cannot(*inputs()) == ""
    target, known = inputs()
    assert MATCHER.parse("", target, replace(known, status="")).outcome is Outcome.NOT_EVALUATED
    more = replace(target, packages=(*target.packages, OPENSSL))
    assert MATCHER.parse("", more, known).outcome is Outcome.NOT_EVALUATED


# The feeds


@pytest.fixture
def server() -> Any:
    with h.hostile() as made:
        yield made


def test_the_tracker_is_downloaded_packed_once_and_kept_when_it_fails(server: h.Hostile, tmp_path: Path) -> None:
    """It is asked again after six hours; the note says how old the copy is that serves on."""
    body = gzip.compress(json.dumps(said(trixie=resolved("3.5.4-1"))).encode())
    server["/json"] = h.Reply(
        body, headers={"Content-Encoding": "gzip", "Last-Modified": "Wed, 25 Nov 2026 10:00:00 GMT"}
    )
    ours = settings(tmp_path, tracker=f"{server.address}/json")
    feed = indexed.tracker(ours, "trixie", NOW)
    assert (feed.date, feed.note) == (NOW - 2 * HOUR, "")
    assert indexed.advisories(feed, "trixie", [OPENSSL]).concerning(OPENSSL)[0].id == "CVE-2026-0001"
    server["/json"] = h.Reply(b"<html>login</html>")
    assert indexed.tracker(ours, "trixie", NOW + 5 * HOUR).note == ""
    kept = indexed.tracker(ours, "trixie", NOW + 7 * HOUR)
    assert kept.note.startswith("last good copy, 7h old, because the tracker's data is not JSON")
    assert kept.sha256 == feed.sha256
    with pytest.raises(OutsideError, match="has no advisory for bookworm"):
        indexed.tracker(ours, "bookworm", NOW + 7 * HOUR)


def test_without_the_default_tracker_the_sample_stands_in(
    server: h.Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, and knows no other suite; a place that somebody chose has no stand-in."""
    monkeypatch.setattr("images.feeds.indexed.TRACKER_JSON", f"{server.address}/json")
    feed = indexed.tracker(settings(tmp_path, tracker="debian"), "trixie", NOW)
    assert feed.sample
    assert feed.source == f"sample of 2026-11-01, since {server.address}/json answered 404"
    assert indexed.advisories_over(feed, "CVE-2099-0001", "trixie") is None
    with pytest.raises(OutsideError, match="answered 404"):
        indexed.tracker(settings(tmp_path, tracker="debian"), "sid", NOW + HOUR)
    with pytest.raises(OutsideError, match=r"feeds\.tracker: there is no file"):
        indexed.tracker(settings(tmp_path, tracker=str(tmp_path)), "trixie", NOW)


def test_without_the_default_list_of_exploited_ones_the_report_says_that_none_was_read(
    server: h.Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that lets only the tracker through can still scan; the gate warns."""
    monkeypatch.setattr("images.feeds.KEV", f"{server.address}/kev")
    [report] = known_exploited(feeds.exploited(settings(tmp_path, kev="download"), NOW))
    assert (report.outcome, report.reason) == (Outcome.NOT_EVALUATED, f"{server.address}/kev answered 404")


def test_likelihoods_are_read_with_their_own_date(tmp_path: Path) -> None:
    """Of a vulnerability that has none nothing is said; data of another form is none."""
    (tmp_path / "epss.csv.gz").write_bytes(gzip.compress(
        b"#model_version:v2026.03.14,score_date:2026-11-24T12:55:00+0000\ncve,epss,percentile\n"
        b"CVE-2026-0001,0.00123,0.3\nCVE-2026-0002,1,1.0\n"
    ))  # fmt: skip
    ours = settings(tmp_path, epss=str(tmp_path))
    found = indexed.likelihoods(ours, NOW)
    assert dict(found.scores) == {"CVE-2026-0001": 0.00123, "CVE-2026-0002": 1}
    assert (len(found.scores), found.scores.get("CVE-2026-0003")) == (2, None)
    assert feeds.exploitation(ours, NOW).likely.scores.get("CVE-2026-0002") == 1
    assert found.feed
    assert found.feed.date == datetime(2026, 11, 24, 12, 55, tzinfo=UTC)
    for text in (b"", b"cve,epss\n", b"cve,epss\nCVE-2026-0001,2\n", b"a,b\n1,2\n", b"cve,epss\nx,0.1\n"):
        (tmp_path / "epss.csv.gz").write_bytes(text)
        kept = indexed.likelihoods(ours, NOW)
        assert (len(kept.scores), "the EPSS data" in str(kept.feed)) == (2, True), "the last good copy, with the reason"
        elsewhere = indexed.likelihoods(settings(tmp_path / str(len(text)), epss=str(tmp_path)), NOW)
        assert "the EPSS data" in elsewhere.missing
    assert indexed.likelihoods(settings(tmp_path), NOW) == indexed.Likelihoods()


def test_real_data_of_the_tracker_has_its_canaries(advisories: Path, tmp_path: Path) -> None:
    """And 8,793 vulnerabilities."""
    _, found = data_index.indexed(advisories / "debian-tracker.json.gz", tmp_path, indexed._of_tracker)
    assert found.canaries >= {"linux", "openssl"}
    assert found.entries > 8793


def test_the_matcher_is_a_judge_where_there_is_data(tmp_path: Path) -> None:
    """Known before anything is built: it needs no program, only data."""
    (tmp_path / "tracker.json").write_text(json.dumps(said(trixie=resolved("3.5.4-1")) | LINUX))
    (tmp_path / "metadata.json").write_text('{"date": "2026-11-20"}')
    reports = {one.scanner: one for one in at_best(settings(tmp_path, tracker=str(tmp_path)), "trixie", NOW)}
    assert reports["matcher"].outcome is Outcome.PASS
    assert not reports["matcher"].sample
