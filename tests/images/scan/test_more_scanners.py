"""The scanners that settings may name, for real and in the sandbox, where this machine can have them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hardening.findings import Outcome, ScanReport
from hardening.foundation.settings import Settings
from images.scan import MORE
from images.scan.base import Scanner, ScanTarget
from tests.support.scanning import NO_FEEDS, make_machine, make_target, scan_without_bill

pytestmark = pytest.mark.slow
NOW = datetime(2026, 11, 25, tzinfo=UTC)
TOKEN = "ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789"


def by(scanner: Scanner, target: ScanTarget, folder: Path) -> ScanReport:
    """The report of one scanner over a small image."""
    settings = Settings(state=folder / "state", retry_for="0s", feeds=NO_FEEDS)
    [report] = scan_without_bill(target, settings, {scanner.name: scanner}, now=NOW).reports
    return report


@pytest.mark.needs("detect-secrets")
def test_a_secret_is_found_whatever_a_remark_says(tmp_path: Path) -> None:
    """The remark is detect-secrets' own for lines that it shall pass over."""
    target = make_target(tmp_path)
    (target.tree / "srv").mkdir()
    (target.tree / "srv/app.conf").write_text(f"token = {TOKEN}  # pragma: allowlist secret\n")
    report = by(MORE["detect-secrets"], target, tmp_path)
    assert [(one.id, one.package, one.installed) for one in report.findings] == [
        ("github-token", "/srv/app.conf", "line 1")
    ]  # fmt: skip
    assert (report.outcome, report.version) == (Outcome.FAIL, "1.5.0")
    assert TOKEN not in repr(report)


@pytest.mark.needs("detect-secrets")
def test_a_walk_that_never_reached_the_tree_is_not_evaluated(tmp_path: Path) -> None:
    """Run where the tree and the key are not, detect-secrets reads nothing and ends with status 0."""
    scanner = MORE["detect-secrets"]
    elsewhere = replace(scanner, command=lambda *given: ["detect-secrets", "-C", "/run", *scanner.command(*given)[1:]])
    report = by(elsewhere, make_target(tmp_path), tmp_path)
    assert (report.outcome, report.findings) == (Outcome.NOT_EVALUATED, ())


@pytest.mark.needs("lynis")
def test_lynis_judges_the_tree_and_not_the_host(tmp_path: Path) -> None:
    """A second user with the id 0 stands in the tree alone; four tests ask for files that are not there."""
    target = make_machine(tmp_path)
    with (target.tree / "etc/passwd").open("a") as passwd:
        passwd.write("toor:x:0:0:root:/root:/bin/sh\n")
    report = by(MORE["lynis"], target, tmp_path)
    assert (report.outcome, report.evaluated) == (Outcome.FAIL, 9), report.reason
    assert {"AUTH-9204", "AUTH-9208"} <= {one.id for one in report.findings}


def test_one_that_is_named_and_not_installed_is_not_evaluated(tmp_path: Path) -> None:
    """And no judge: the same as for the default ones."""
    absent = replace(MORE["grype"], program="no-such-grype", feed="")
    report = by(absent, make_target(tmp_path), tmp_path)
    assert (report.outcome, report.reason) == (Outcome.NOT_EVALUATED, "no-such-grype is not installed")
