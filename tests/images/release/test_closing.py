"""A release writes down what it closes: by the scanners' word, by the packages before it, and again by a registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import images.release.publish
from hardening.findings import Finding, Outcome
from hardening.foundation.settings import Feeds
from hardening.model import Severity
from images.artifact import Artifact, Package, Release
from images.ledger import ClosedFix, ScanRecord
from images.packages.index import PackageIndex
from images.packages.pool import dated
from images.registry.release_store import RegistryStore
from images.release.channels import promote, rebuild
from images.release.closing import before_it, record_closed
from images.release.publish import release
from images.scan import matcher
from images.scan.flow import ScanResult
from images.scan.judge import Judgement
from tests.support.publishing import (
    DAY,
    FINDING,
    NOW,
    REPORT,
    Begin,
    at,
    built,
    definition,
    gate,
    judged,
    publisher,
    settings_in,
)
from tests.support.scanning import NO_FEEDS

OLD = Package("openssl", "3.5.1-1", "amd64", "aa" * 32)
NEW = replace(OLD, version="3.5.4-1", sha256="bb" * 32)
HOLE = replace(
    FINDING, id="CVE-2026-0001", installed=OLD.version, fixed=NEW.version, severity=Severity.HIGH,
    fix_known_since=NOW - DAY, exploited=True,
)  # fmt: skip
TRACKER = {
    "openssl": {
        "CVE-2026-0002": {
            "releases": {"trixie": {"status": "resolved", "fixed_version": NEW.version, "urgency": "low"}}
        },
        "CVE-2026-0003": {"releases": {"trixie": {"status": "open", "urgency": "low"}}},
    },
    "linux": {"CVE-2000-0001": {"releases": {"trixie": {"status": "open", "urgency": "low"}}}},
}


def scanned(*findings: Finding, by_matcher: bool = False) -> Judgement:
    """A verdict that lets it through, and what the scanners found."""
    report = replace(REPORT, findings=findings, outcome=Outcome.FAIL if findings else Outcome.PASS)
    reports = (report, replace(report, scanner=matcher.NAME)) if by_matcher else (report,)
    said = judged()
    return replace(said, result=ScanResult(reports, findings, said.result.sbom, "trixie", spdx=said.result.spdx))


def artifact(to: RegistryStore, text: str, judgement: Judgement, *packages: Package) -> Artifact:
    """One in store and ledger, with what the scanners found in it."""
    made = replace(built(to.store, text=text), packages=packages, built_at=to.now)
    to.ledger.record_artifact(made)
    to.ledger.record_scan(made.digest, ScanRecord(judgement.result.reports, judgement.result.findings), to.now)
    return made


@pytest.fixture
def to(tmp_path: Path) -> Iterator[RegistryStore]:
    """A publisher whose registry is never asked."""
    made = publisher("127.0.0.1:9", tmp_path / "state")
    yield made
    made.ledger.close()


def known_release(to: RegistryStore, made: Artifact) -> Release:
    """A release over it as the ledger keeps one."""
    digest, until = f"sha256:r-{made.digest[7:]}", to.now + 30 * DAY
    known = Release(
        "web", "r/web", digest, made.digest, made.input_digest, "p", "default", to.now, until, until
    )  # fmt: skip
    to.ledger.record_release(known)
    return known


def closed(to: RegistryStore, before: Judgement, after: Judgement, *packages: Package) -> list[tuple[str, str, str]]:
    """What a release with those packages writes down that follows one with the older openssl, a day later."""
    known_release(to, artifact(to, "one", before, OLD))
    later = at(to, NOW + DAY)
    made = artifact(later, "two", after, *packages)
    release = known_release(later, made)
    record_closed(later, release, made, after.result, before_it(to.ledger, release))
    return [(one.vulnerability, one.package, one.fixed) for one in to.ledger.closed_fixes()]


def test_what_only_the_data_no_longer_says_is_not_closed(to: RegistryStore) -> None:
    """The package is still the same."""
    assert closed(to, scanned(HOLE), scanned(), replace(OLD, sha256="")) == []


def test_a_package_of_which_no_archive_told_a_hash_has_no_date(to: RegistryStore) -> None:
    """As one from an upstream image; what it closes is closed all the same."""
    assert closed(to, scanned(HOLE), scanned(), replace(NEW, sha256="")) == [("CVE-2026-0001", "openssl", NEW.version)]
    assert to.ledger.closed_fixes()[0].upstream_at is None


def test_a_package_that_is_no_longer_there_closes_what_had_a_fix(to: RegistryStore) -> None:
    """By the version that would have closed it too; what had none is not a fix."""
    assert closed(to, scanned(HOLE, replace(HOLE, id="CVE-2026-0009", fixed="")), scanned()) == [
        ("CVE-2026-0001", "openssl", NEW.version)
    ]


def test_the_packages_before_are_matched_by_todays_data(to: RegistryStore, tmp_path: Path) -> None:
    """Where fix and package came in the same night, nobody ever scanned the release before by that data. What has no
    fix is not closed by a newer package; and whose data no scanner judged by is not asked.
    """
    (tmp_path / "tracker.json").write_text(json.dumps(TRACKER))
    feeds = Feeds(**NO_FEEDS | {"tracker": str(tmp_path)})
    to.registry.settings = settings_in(to.settings.state_dir, feeds=feeds)
    assert closed(to, scanned(), scanned(), NEW) == []
    assert closed(to, scanned(), scanned(by_matcher=True), NEW) == [("CVE-2026-0002", "openssl", NEW.version)]
    assert to.ledger.closed_fixes()[0].seen_at == NOW + DAY


def test_what_is_only_dated_anew_was_published_when_its_content_first_was(to: RegistryStore) -> None:
    """Though what it closes became known only later."""
    known_release(to, artifact(to, "one", scanned(HOLE), OLD))
    later, last = at(to, NOW + DAY), at(to, NOW + 9 * DAY)
    made = artifact(later, "two", scanned(), NEW)
    first = known_release(later, made)
    again = replace(first, digest="sha256:again", published_at=last.now)
    record_closed(last, again, made, scanned().result, before_it(last.ledger, again))
    assert [one.published_at for one in to.ledger.closed_fixes()] == [NOW + DAY]


@pytest.mark.needs("docker-registry", "skopeo")
def test_a_publication_writes_it_once_and_a_lost_ledger_gets_it_back(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its moments, and the date of the .deb where it lies before our sight. Cut short after
    its lines, and taken up, it adds nothing; a registry tells all but when `stable` was moved.
    """
    to, _ = begin()
    release(to, artifact(to, "one", scanned(HOLE), OLD), definition(), scanned(HOLE))
    deb, day = PackageIndex(to.settings)._pool_path(NEW), NOW - 3 * DAY
    deb.parent.mkdir(parents=True)
    deb.write_bytes(b"!<arch>\n" + f"{'debian-binary':16}{int(day.timestamp()):<12}".encode().ljust(60))
    later = at(to, NOW + DAY)
    made = artifact(later, "two", scanned(), NEW)
    with monkeypatch.context() as patched:
        patched.setattr(images.release.publish, "point", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            release(later, made, definition(), scanned())
    known = to.ledger.closed_fixes()
    release(later, made, definition(), scanned())
    wanted = ClosedFix(
        "CVE-2026-0001", "openssl", "web", made.digest, NEW.version, "high", exploited=True, epss=None,
        policy="default", upstream_at=day, seen_at=NOW - DAY, built_at=NOW + DAY, published_at=NOW + DAY,
    )  # fmt: skip
    assert known == to.ledger.closed_fixes() == (wanted,)
    promote(later, "web", "default", gate(NOW + DAY))
    lost = publisher(to.registry.address, tmp_path / "lost", NOW + 7 * DAY, keys_of=tmp_path)
    for _ in range(2):
        assert rebuild(lost)[1] == ()
        assert lost.ledger.closed_fixes() == (replace(wanted, upstream_at=None),)
    assert [move.reason for move in lost.ledger.moves(to.registry.repository("web"), "stable")] == ["rebuild"]
    lost.ledger.close()


@pytest.mark.parametrize(
    "text", [b"", b"!<arch>\n", b"!<arch>\n" + b"x" * 60, b"!<arch>\n" + b"debian-binary   " + b"9" * 12 + b" " * 32]
)
def test_a_file_that_tells_no_date_has_none(text: bytes, tmp_path: Path) -> None:
    """Whatever stands in it."""
    (tmp_path / "a.deb").write_bytes(text)
    assert dated(tmp_path / "a.deb") is None
    assert dated(tmp_path / "none.deb") is None
