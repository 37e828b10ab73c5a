"""The share of an image's packages that others built again to the same bytes: what a rebuilderd's list says of it."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hardening.findings import FindingKind, Outcome
from hardening.foundation import limits
from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import Settings
from images.scan import reproduced, syft
from tests.images.feeds.test_feeds import Server, server  # noqa: F401 - a fixture
from tests.images.scan.test_scanners import TARGET, sample

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SBOM = syft.normalise(sample("syft"), sample("syft-spdx"), TARGET).cyclonedx


def entry(name: str, version: str, status: str, architecture: str = "amd64") -> dict[str, Any]:
    """One package as rebuilderd lists it (its api v0: PkgRelease)."""
    more = {
        "distro": "debian",
        "suite": "main",
        "url": "http://x",
        "build_id": 1,
        "built_at": None,
        "has_diffoscope": False,
    }
    return {"name": name, "version": version, "status": status, "architecture": architecture, **more}


LISTED = [
    entry("libc6", "2.41-12+deb13u5", "GOOD"),
    entry("openssl", "3.5.1-1", "BAD"),
    entry("openssl", "3.5.4-1", "GOOD"),  # another version says nothing of ours
    entry("libssl3t64", "3.5.1-1", "GOOD", "arm64"),  # nor another architecture
    entry("zlib1g", "1:1.3.dfsg+really1.3.1-1+deb13u1", "UNKWN"),
]


def lists(folder: Path, amd64: Any, every: Any = ()) -> Path:
    """A directory as `feeds.reproduced` names one, of a known date."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in (("amd64", amd64), ("all", [*every, entry("x", "1", "GOOD", "all")])):
        (folder / f"{name}.json").write_text(json.dumps(value))
    (folder / "metadata.json").write_text(json.dumps({"date": NOW.isoformat()}))
    return folder


def settings(tmp_path: Path, place: Path | str) -> Settings:
    """Settings whose only data that is."""
    return Settings.model_validate(
        {"state": tmp_path / "state", "retry_for": "0s", "feeds": {"reproduced": str(place)}}
    )


def test_without_the_setting_nobody_is_asked_and_nothing_is_said(tmp_path: Path) -> None:
    """It is no judge: its absence is no gap."""
    assert reproduced.reports(settings(tmp_path, ""), SBOM, NOW) == ()


def test_the_report_counts_exactly_the_packages_of_the_image(tmp_path: Path) -> None:
    """By name, version and architecture; what the list does not name was not reproduced."""
    [report] = reproduced.reports(settings(tmp_path, lists(tmp_path / "lists", LISTED)), SBOM, NOW)
    assert (report.kind, report.outcome) == (FindingKind.REPRODUCTION, Outcome.PASS)
    assert (report.evaluated, report.reproduced) == (4, 1)
    assert report.reason == "built again, and different: openssl; not known: 2"
    assert report.data_date == NOW
    assert report.findings == ()


def test_a_package_whose_name_is_malformed_was_not_reproduced() -> None:
    """SBOMs of others' images are others' work."""
    sbom = json.dumps({"components": [{"purl": "pkg:deb/"}, {"purl": "pkg:deb/debian/x@1?arch=all"}]}).encode()
    assert reproduced.packages_of(sbom) == {("pkg:deb/", "", ""), ("x", "1", "all")}


def test_two_answers_about_one_package_count_as_the_worse(tmp_path: Path) -> None:
    """Two suites may list the same version."""
    twice = [entry("libc6", "2.41-12+deb13u5", "GOOD"), entry("libc6", "2.41-12+deb13u5", "BAD")]
    for listed in (twice, twice[::-1]):
        [report] = reproduced.reports(settings(tmp_path, lists(tmp_path / "lists", listed)), SBOM, NOW)
        assert report.reproduced == 0


def test_data_that_cannot_be_had_is_a_report_and_not_silence(tmp_path: Path) -> None:
    """Nor a share."""
    [report] = reproduced.reports(settings(tmp_path, tmp_path / "none"), SBOM, NOW)
    assert (report.outcome, report.reproduced) == (Outcome.NOT_EVALUATED, None)
    assert "feeds.reproduced: there is no" in report.reason


def test_a_directory_keeps_the_rules_of_an_address(tmp_path: Path) -> None:
    """The time of a file is no date of it; what shrank or is cut short does not replace the last good copy."""
    folder = lists(tmp_path / "lists", LISTED)
    own = settings(tmp_path, folder)
    [report] = reproduced.reports(own, SBOM, NOW)
    assert (report.reproduced, report.data_date) == (1, NOW)
    for listed in ([entry("libc6", "2.41-12+deb13u5", "BAD")], json.dumps(LISTED)[:-9]):
        (folder / "amd64.json").write_text(listed if isinstance(listed, str) else json.dumps(listed))
        [later] = reproduced.reports(own, SBOM, NOW)
        assert (later.reproduced, "last good copy" in later.reason) == (1, True)
    lists(folder, LISTED)
    (folder / "metadata.json").unlink()
    [undated] = reproduced.reports(settings(tmp_path / "another", folder), SBOM, NOW)
    assert undated.data_date is None


def test_an_address_is_asked_for_both_lists_and_its_copy_serves_on(server: Server, tmp_path: Path) -> None:  # noqa: F811
    """As debian-repro-status asks: ADDRESS/ARCHITECTURE/api/v0/pkgs/list."""
    own = settings(tmp_path, server.address)
    server.content = json.dumps(LISTED).encode()
    [report] = reproduced.reports(own, SBOM, NOW)
    assert report.reproduced == 1
    assert report.data_source == server.address
    server.fails = [500, 500]
    [later] = reproduced.reports(own, SBOM, NOW + timedelta(days=1))
    assert later.reproduced == 1
    assert "last good copy, 1d old, because" in later.reason


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{}", "unknown form"),
        (b"[", "cut short"),
        (b"", "cut short"),
        (b"\xff\xfe", "not JSON"),
        (b'[{"a": ' + b"9" * 5000 + b"}]", "not JSON"),
        (b"[1]", "unknown form"),
        (b'[{"name": "a"}]', "unknown form"),
        (json.dumps([entry("a", "1", "FINE")]).encode(), "unknown form"),
        (json.dumps([entry("a", 1, "GOOD")]).encode(), "unknown form"),  # type: ignore[arg-type]
        (b'[{"name": "a", "name": "b"}]', "'name' twice"),
        (b"[[1]]", "unknown form"),
        (b'[{"a": ' + b"[" * 100, "json.depth"),
        (b'[{"a": [' + b"1," * 300, "rebuilt.values"),
    ],
)
def test_what_is_no_list_of_rebuilt_packages_is_one_error(text: bytes, why: str) -> None:
    """Whatever a stranger sends."""
    with pytest.raises(OutsideError, match=why):
        list(reproduced.entries(io.BytesIO(text)))


def test_a_list_without_an_end_is_refused_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both in entries and in bytes."""
    many = json.dumps([entry("a", "1", "GOOD")] * 20).encode()
    monkeypatch.setattr(reproduced, "REBUILT_ENTRIES", limits.Limit("rebuilt.entries", 10, "packages"))
    with pytest.raises(OutsideError, match=r"rebuilt\.entries"):
        list(reproduced.entries(io.BytesIO(many)))
    monkeypatch.setattr(reproduced, "FEED_BYTES", limits.Limit("feed.bytes", 100))
    with pytest.raises(OutsideError, match=r"feed\.bytes"):
        list(reproduced.entries(io.BytesIO(many)))
