"""The canary: the gate refuses openssl 3.5.1-1 for real, by each judge; and it refuses what nobody judged."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import pytest

from hardening.catalog import load_policy
from hardening.disagreement import DisagreementCause, disagreements
from hardening.findings import Outcome
from hardening.foundation.settings import ROOT, Settings
from hardening.gate import judge_image
from images.scan import SCANNERS
from tests.support.scanning import CURRENT, NO_FEEDS, OPENSSL, canary_status, make_target, scan_without_bill

pytestmark = [pytest.mark.slow, pytest.mark.needs("trivy", "debsecan")]
DATA_DATE = datetime(2026, 8, 21, tzinfo=UTC)
NOW = DATA_DATE + timedelta(days=1)
JUDGES = ("debsecan", "matcher", "trivy")
SETTINGS = {name: SCANNERS[name].feed for name in JUDGES}
"""By judge, the setting that says where its data is."""
MORE = (("libpng16-16t64", "libpng1.6", "1.6.48-1"), ("libtiff6", "tiff", "4.7.0-3"))
MORE += (("libgnutls30t64", "gnutls28", "3.8.9-3"),)
"""A package, its source and a version that the package pool still serves, in which it is vulnerable."""
POSTGRESQL = ("postgresql-17", "postgresql-17", "17.10-0+deb13u1")


@pytest.fixture
def data(advisories, tmp_path):
    """The real advisories, dated as their own description says, as every judge reads them."""
    (tmp_path / "data").mkdir()
    shutil.copy(advisories / "debsecan" / "trixie", tmp_path / "data" / "trixie")
    (tmp_path / "data" / "metadata.json").write_text('{"date": "2026-08-21"}')
    shutil.copy(advisories / "debian-tracker.json.gz", tmp_path / "data" / "tracker.json.gz")
    ours = str(tmp_path / "data")
    return {"debsecan": ours, "tracker": ours, "trivy": str(advisories / "trivy")}


def gate(status, feeds, tmp_path, *, names=JUDGES, policy="default", now=NOW):
    """The scan of an image with that dpkg status by the named judges, and the gate's verdict."""
    settings = Settings(state=tmp_path / "state", retry_for="0s", feeds=NO_FEEDS | feeds)
    chosen = {name: SCANNERS[name] for name in names}
    result = scan_without_bill(make_target(tmp_path, status), settings, chosen, now=now)
    rules = load_policy((ROOT,), policy)
    return result, judge_image(rules, "canary", None, result.reports, result.findings, (), now)


def test_all_judges_agree_on_the_canary_and_the_gate_refuses_it(data, tmp_path):
    """25 vulnerabilities in each of the three packages, every one found by each, and its fixed version."""
    result, verdict = gate(canary_status(), data, tmp_path)
    assert not verdict.allowed
    assert {finding.package for finding in result.findings} == set(OPENSSL)
    assert len({finding.id for finding in result.findings}) == 25
    assert all([name for name, _ in finding.scanners] == list(JUDGES) for finding in result.findings)
    assert len(verdict.refusals) == len(result.findings) == 75
    assert all("rebuild on" in reason.todo and "3.5." in reason.todo for reason in verdict.refusals)


def entry(package, source, version):
    """What dpkg's status says of an installed package."""
    return (
        f"Package: {package}\nStatus: install ok installed\nArchitecture: amd64\nSource: {source}\nVersion: {version}\n"
    )


def test_the_judges_agree_on_more_packages_and_where_they_do_not_their_data_differs(data, tmp_path):
    """The same vulnerabilities in three more packages. A later advisory moved one fix of PostgreSQL to a newer version:
    only the tracker's own data, which the matcher reads, knows that 17.10 does not hold it.
    """
    status = "\n".join([canary_status(), *(entry(*one) for one in (*MORE, POSTGRESQL))])
    result, _ = gate(status, data, tmp_path)
    found = {(one.package, one.id): (one, tuple(name for name, _ in one.scanners)) for one in result.findings}
    assert {package for package, _ in found} == {*OPENSSL, *(package for package, *_ in (*MORE, POSTGRESQL))}
    counts = {package: sum(1 for held, _ in found if held == package) for package, *_ in MORE}
    assert counts == {"libpng16-16t64": 9, "libtiff6": 3, "libgnutls30t64": 13}
    differ = {which: names for which, (_, names) in found.items() if names != JUDGES}
    assert differ == {("postgresql-17", "CVE-2026-6473"): ("matcher",)}
    assert found["postgresql-17", "CVE-2026-6473"][0].fixed == "17.11-0+deb13u1"


def test_a_signed_kernel_is_judged_by_the_matcher_alone_and_the_difference_is_explained(data, tmp_path):
    """Advisories are over linux, and dpkg names linux-signed-amd64, which the others look up: they find nothing."""
    kernel = entry("linux-image-6.12.38+deb13-cloud-amd64", "linux-signed-amd64 (6.12.38+1)", "6.12.38-1")
    result, _ = gate("\n".join([CURRENT, kernel]), data, tmp_path)
    found = disagreements(result.reports)
    assert len(found) == len(result.findings) > 1000
    assert {one.opinions for one in found} == {(("debsecan", "silent"), ("matcher", "reported"), ("trivy", "silent"))}
    assert {one.cause for one in found} == {DisagreementCause.IGNORED}
    assert "does not report signed copies" in found[0].evidence


@pytest.mark.parametrize("name", JUDGES)
def test_each_judge_alone_refuses_the_canary(name, data, tmp_path):
    """Neither leans on the other."""
    _, verdict = gate(canary_status(), {SETTINGS[name]: data[SETTINGS[name]]}, tmp_path, names=(name,))
    assert not verdict.allowed
    assert all(reason.rule.startswith("CVE-") for reason in verdict.refusals)
    assert len(verdict.refusals) == 75


def test_current_trixie_has_none_and_is_allowed(data, tmp_path):
    """Each looked at every package and found nothing."""
    result, verdict = gate(CURRENT, data, tmp_path)
    assert verdict.allowed
    assert verdict.reasons == ()
    assert [(report.outcome, report.evaluated) for report in result.reports] == [(Outcome.PASS, 78)] * 3


@pytest.mark.parametrize("status", [CURRENT, canary_status()])
def test_with_stale_data_the_gate_refuses_and_says_that_nothing_was_evaluated(status, data, tmp_path):
    """The same data eight days on: whatever it finds or does not find, it is no judgement of today."""
    _, verdict = gate(status, data, tmp_path, now=DATA_DATE + timedelta(days=8))
    assert not verdict.allowed
    [reason] = [reason for reason in verdict.refusals if reason.rule == "judges"]
    assert "nothing was evaluated" in reason.what
    assert "debsecan: its data is of 2026-08-21, 8 days old" in reason.what
    assert "matcher: its data is of 2026-08-21, 8 days old" in reason.what
    assert "trivy: its data is of 2026-08-21, 8 days old" in reason.what


def test_with_the_data_removed_the_gate_refuses_and_says_that_nothing_was_evaluated(tmp_path):
    """Directories that are empty: both tools alone would end with status 0 or a shrug."""
    (tmp_path / "empty").mkdir()
    feeds = {setting: str(tmp_path / "empty") for setting in SETTINGS.values()}
    result, verdict = gate(canary_status(), feeds, tmp_path)
    assert {report.outcome for report in result.reports} == {Outcome.NOT_EVALUATED}
    assert not verdict.allowed
    assert "nothing was evaluated" in verdict.refusals[0].what
    assert "has no data for trixie" in verdict.refusals[0].what


def test_the_sample_that_ships_finds_the_canary_and_passes_current_trixie_only_by_the_demo_policy(tmp_path):
    """So the demo's gate is a real one; the default policy refuses to rely on the sample and says what to set."""
    _, canary = gate(canary_status(), {}, tmp_path / "canary", policy="demo")
    assert not canary.allowed
    assert {reason.what.split()[2] for reason in canary.refusals} == set(OPENSSL)
    result, demo = gate(CURRENT, {}, tmp_path / "demo", policy="demo")
    assert demo.allowed
    assert result.reports[0].data_source.startswith("sample of ")
    _, default = gate(CURRENT, {}, tmp_path / "default")
    assert not default.allowed
    assert "feeds.debsecan" in default.refusals[0].todo
    assert "--policy demo" in default.refusals[0].todo
