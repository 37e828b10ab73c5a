"""The real scanners over small real images: what they find, and that a missing or broken part is never silence."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from hardening.findings import FindingKind, Outcome
from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import Settings
from images.scan import SCANNERS
from images.scan.flow import scan, suite_of
from tests.support.scanning import CURRENT, NO_FEEDS, make_target, scan_without_bill

pytestmark = [pytest.mark.slow, pytest.mark.needs("trivy", "syft", "hadolint", "debsecan")]
NOW = datetime(2026, 11, 25, tzinfo=UTC)
KEY = "\n".join(
    ["-----BEGIN RSA PRIVATE " + "KEY-----", *["MIIEpAIBAAKCAQEA04up8hoqzS1APIB0RhjXyObwHQnOzhAk5Bd7mhkSbPkyhP1"] * 3]
)


@pytest.fixture
def settings(tmp_path):
    return Settings(state=tmp_path / "state", retry_for="0s", feeds=NO_FEEDS)


def outcomes(result):
    return {report.scanner: report.outcome for report in result.reports}


def test_a_clean_image_is_looked_at_by_every_scanner_that_can(settings, tmp_path):
    """No Dockerfile: hadolint has nothing to look at. No database: trivy evaluates no vulnerability, and says so."""
    target = make_target(tmp_path, config={"User": "65532", "Healthcheck": {"Test": ["CMD", "/ok"]}})
    result = scan(target, settings, now=NOW)
    assert outcomes(result) == {
        "debsecan": Outcome.PASS,
        "hadolint": Outcome.NOT_APPLICABLE,
        "matcher": Outcome.PASS,
        "trivy": Outcome.NOT_EVALUATED,
        "trivy-config": Outcome.PASS,
        "trivy-secret": Outcome.PASS,
        **dict.fromkeys(("openscap", "systemd-analyze", "trivy-disk"), Outcome.NOT_APPLICABLE),
    }
    assert result.findings == ()
    reports = {report.scanner: report for report in result.reports}
    assert reports["debsecan"].evaluated == reports["matcher"].evaluated == len(target.packages)
    assert reports["matcher"].sample
    assert reports["debsecan"].data_source.startswith("sample of ")
    assert reports["trivy"].reason == "feeds.trivy names no vulnerability database"


def test_the_bill_of_materials_names_every_package_and_is_the_same_twice(settings, tmp_path):
    """From another directory, at another time: the same bytes."""
    one, two = (scan(make_target(tmp_path / name), settings, {}, now=NOW) for name in ("one", "two"))
    assert (one.sbom, one.spdx) == (two.sbom, two.spdx)
    for bill, members in ((one.sbom, "components"), (one.spdx, "packages")):
        assert {"libc6", "libssl3t64", "apt"} <= {member["name"] for member in json.loads(bill)[members]}
        assert str(tmp_path) not in bill.decode()


def test_a_key_that_a_later_layer_deletes_a_root_user_and_a_bad_dockerfile_are_found(settings, tmp_path):
    """Layers keep what is deleted; configuration and Dockerfile each have their scanner."""
    target = make_target(
        tmp_path,
        layers=({"root/id_rsa": f"{KEY}\n-----END RSA PRIVATE KEY-----\n".encode()}, {"root/.wh.id_rsa": b""}),
        config={"Env": ["A=b"]},
        dockerfile="FROM scratch\nADD x /x\n",
    )
    found = {(finding.kind, finding.id) for finding in scan_without_bill(target, settings, now=NOW).findings}
    assert (FindingKind.SECRET, "private-key") in found
    assert (FindingKind.MISCONFIGURATION, "DS-0002") in found
    assert (FindingKind.MISCONFIGURATION, "DL3020") in found


def test_a_scanner_that_crashes_or_is_absent_is_a_report_and_not_silence(settings, tmp_path):
    """A program that fails, one that prints something else, one that is not there."""
    secret = SCANNERS["trivy-secret"]
    broken = {
        "crash": replace(
            secret, name="crash", program="sh", command=lambda *_: ["sh", "-c", "echo no disk >&2; exit 7"]
        ),
        "babble": replace(secret, name="babble", program="sh", command=lambda *_: ["sh", "-c", "echo hello"]),
        "absent": replace(secret, name="absent", program="no-such-scanner"),
    }
    made = scan_without_bill(make_target(tmp_path), settings, broken, now=NOW)
    reports = {report.scanner: report for report in made.reports}
    assert reports["crash"].outcome is Outcome.ERROR
    assert "status 7" in reports["crash"].reason
    assert "no disk" in reports["crash"].reason
    assert reports["babble"].outcome is Outcome.ERROR
    assert reports["absent"].outcome is Outcome.NOT_EVALUATED
    assert reports["absent"].reason == "no-such-scanner is not installed"


def test_an_image_whose_packages_nobody_can_see_is_not_evaluated(settings, tmp_path, advisories):
    """A static image without a status file: trivy and debsecan both answer "nothing found" with status 0."""
    data = settings.model_copy(update={"feeds": settings.feeds.model_copy(update={"trivy": str(advisories / "trivy")})})
    target = make_target(tmp_path, "")
    reports = {report.scanner: report for report in scan_without_bill(target, data, now=NOW).reports}
    assert reports["debsecan"].outcome is reports["matcher"].outcome is Outcome.NOT_EVALUATED
    assert reports["trivy"].outcome is Outcome.NOT_EVALUATED


def test_known_exploitation_marks_the_finding(settings, tmp_path):
    """By the list that feeds.kev names."""
    (tmp_path / "kev.json").write_text('[{"cveID": "CVE-2026-75804"}]')
    given = settings.model_copy(update={"feeds": settings.feeds.model_copy(update={"kev": str(tmp_path / "kev.json")})})
    old = CURRENT.replace("Version: 3.5.9-1~deb13u1", "Version: 3.5.7-1~deb13u2")
    found = scan_without_bill(make_target(tmp_path, old), given, {"debsecan": SCANNERS["debsecan"]}, now=NOW).findings
    assert {finding.exploited for finding in found if finding.id == "CVE-2026-75804"} == {True}
    assert {finding.exploited for finding in found if finding.id != "CVE-2026-75804"} == {False}


def test_a_layout_that_is_none_is_one_clear_error(settings, tmp_path):
    """Before any scanner starts."""
    target = make_target(tmp_path)
    with pytest.raises(OutsideError, match="not an OCI layout"):
        scan(replace(target, layout=tmp_path / "tree"), settings, now=NOW)


def test_the_suite_is_never_read_through_a_link_out_of_the_image(tmp_path):
    """An absolute link in the tree points at the host, whose suite is not the image's."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "os-release").symlink_to("/etc/os-release")
    assert suite_of(tmp_path) == ""
    (tmp_path / "usr").symlink_to("/usr")
    assert suite_of(tmp_path) == ""
    assert suite_of(make_target(tmp_path / "image").tree) == "trixie"
