"""Each scanner's contract: what it is told to do, and what its recorded real output means."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from scanning import SAMPLES, packages

from hardening.findings import FindingKind, Outcome, merge
from hardening.foundation.errors import OutsideError
from hardening.model import Severity
from images.artifact import Package
from images.scanners import SCANNERS, syft, trivy_config
from images.scanners.base import Feed, ScanInputs, ScanTarget

STATUS = (SAMPLES / "canary-status").read_text()
FEED = Feed(Path("/data"), datetime(2026, 8, 21, tzinfo=UTC), "test feed", "sha256:0")
INPUTS = ScanInputs(Path("/work"), "trixie", STATUS, {"debsecan": FEED, "trivy": FEED}, {})
TARGET = ScanTarget("image", Path("/image/layout"), Path("/image/tree"), Path("/image/Dockerfile"), packages(STATUS))
EMPTY = {
    "debsecan": "",
    "hadolint": "[]",
    "trivy": '{"SchemaVersion": 2}',
    "trivy-config": '{"SchemaVersion": 2}',
    "trivy-secret": '{"SchemaVersion": 2}',
}


def sample(name: str) -> str:
    return (SAMPLES / f"{name}.{'txt' if name == 'debsecan' else 'json'}").read_text()


@pytest.mark.parametrize("name", SCANNERS)
def test_every_scanner_reads_its_recorded_output(name):
    """The recorded run of the real tool gives findings of its kind, each with its own opinion, and says it looked."""
    report = SCANNERS[name].parse(sample(name), TARGET, INPUTS)
    assert report.outcome is Outcome.FAIL
    assert report.evaluated > 0
    assert report.scanner == name
    assert {finding.kind for finding in report.findings} == {SCANNERS[name].kind}
    assert all(finding.scanners == ((name, finding.severity),) for finding in report.findings)
    assert list(report.findings) == sorted(report.findings)


@pytest.mark.parametrize("name", SCANNERS)
def test_every_scanner_is_told_by_an_argument_list_that_keeps_the_hosts_configuration_out(name):
    """A file in the home or the working directory must not silence a finding."""
    argv = SCANNERS[name].command(TARGET, INPUTS)
    assert argv[0] == SCANNERS[name].program
    assert any(argument.startswith("--config=") for argument in argv)


@pytest.mark.parametrize("name", [name for name in SCANNERS if name not in ("debsecan", "hadolint")])
def test_output_that_proves_no_look_is_not_evaluated(name):
    """Exit status 0 and no findings means nothing when the tool does not say what it looked at."""
    assert SCANNERS[name].parse(EMPTY[name], TARGET, INPUTS).outcome is Outcome.NOT_EVALUATED


def test_trivy_and_debsecan_agree_on_the_recorded_canary():
    """On the same data both find the same vulnerabilities in the same packages, and merged each is found by both."""
    reports = [SCANNERS[name].parse(sample(name), TARGET, INPUTS) for name in ("trivy", "debsecan")]
    merged = merge(finding for report in reports for finding in report.findings)
    assert len(merged) == len(reports[0].findings) == len(reports[1].findings) == 50
    assert all([name for name, _ in finding.scanners] == ["debsecan", "trivy"] for finding in merged)
    assert all(finding.fixed.startswith("3.5.") and "|" not in finding.fixed for finding in merged)


def test_a_scanner_that_saw_fewer_packages_than_the_image_holds_did_not_evaluate_it():
    """Half a look is none: what it did not see is not known to be good."""
    more = ScanTarget("image", TARGET.layout, TARGET.tree, None, (*TARGET.packages, Package("x", "1", "all", "")))
    for name in ("trivy", "debsecan"):
        report = SCANNERS[name].parse(sample(name), more, INPUTS)
        assert report.outcome is Outcome.NOT_EVALUATED
        assert report.reason == "it saw 4 of the image's 5 packages"


def test_trivy_argv_reads_the_artifact_and_downloads_nothing():
    """The whole command, so that a change of it is seen in review."""
    assert SCANNERS["trivy"].command(TARGET, INPUTS) == [
        "trivy", "image", "--input=/image/layout", "--scanners=vuln", "--cache-dir=/data", "--cache-backend=memory",
        "--config=", "--ignorefile=", "--skip-version-check", "--disable-telemetry", "--skip-db-update",
        "--skip-java-db-update", "--skip-check-update", "--skip-vex-repo-update", "--offline-scan", "--format=json",
        "--quiet", "--list-all-pkgs",
    ]  # fmt: skip


def test_debsecan_argv_takes_data_suite_and_status_of_the_image():
    """The whole command: neither the host's suite nor its whitelist has a say."""
    assert SCANNERS["debsecan"].command(TARGET, INPUTS) == [
        "debsecan", "--config=/dev/null", "--whitelist=", "--source=file:///data/", "--suite=trixie",
        "--status=/image/tree/var/lib/dpkg/status", "--format=detail",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (ScanInputs(Path("/w"), "", STATUS, {"debsecan": FEED}, {}), "names no Debian suite"),
        (ScanInputs(Path("/w"), "trixie", "", {"debsecan": FEED}, {}), "lists no package"),
        (ScanInputs(Path("/w"), "trixie", STATUS, {}, {"debsecan": "no data"}), "no data"),
    ],
)
def test_debsecan_says_what_it_lacks(inputs, reason):
    """No suite, no packages or no data: not evaluated, with the reason."""
    assert reason in SCANNERS["debsecan"].lacks(TARGET, inputs)


def test_debsecan_counts_only_installed_packages():
    """A package that was removed but left its configuration is not installed."""
    removed = "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n"
    report = SCANNERS["debsecan"].parse("", TARGET, ScanInputs(Path("/w"), "trixie", removed + STATUS, {}, {}))
    assert report.evaluated == 4


def test_debsecan_takes_the_fixed_version_of_the_images_own_suite():
    """Where Debian has fixed several releases, the one that can be installed here is named."""
    text = (
        "CVE-2026-0001 (fixed, remotely exploitable, high urgency)\n  A title\n  installed: zlib1g 1.3.1-1\n"
        "             (built from zlib 1.3.1-1)\n  fixed in unstable: zlib 1.4-1 (source package)\n"
        "  fixed on branch:   zlib 1.2.13-2+deb12u1 (source package)\n"
        "  fixed on branch:   zlib 1.3.1-1+deb13u1 (source package)\n"
        "  fix is available for the selected suite (trixie)\n\n"
        "CVE-2026-0002\n  B\n  installed: zlib1g 1.3.1-1\n             (built from zlib 1.3.1-1)\n"
        "  fixed in unstable: zlib 1.4-1 (source package)\n\n"
    )
    first, second = SCANNERS["debsecan"].parse(text, TARGET, INPUTS).findings
    assert (first.fixed, first.severity, first.title) == ("1.3.1-1+deb13u1", Severity.HIGH, "A title")
    assert (second.fixed, second.severity) == ("", Severity.UNKNOWN)


def test_debsecan_output_that_is_not_understood_is_an_error():
    """A new format of the tool must not pass as "nothing found"."""
    report = SCANNERS["debsecan"].parse("CVE-2026-0001 something else\n", TARGET, INPUTS)
    assert report.outcome is Outcome.ERROR


def test_a_secret_in_a_deleted_layer_is_found_and_its_value_is_not_kept():
    """The recorded image deletes the key in its last layer; the finding names the file, never the secret."""
    report = SCANNERS["trivy-secret"].parse(sample("trivy-secret"), TARGET, INPUTS)
    assert [(finding.id, finding.package) for finding in report.findings] == [("private-key", "/root/id_rsa")]


def test_lines_that_break_the_same_hadolint_rule_are_one_finding():
    """One thing to learn and to waive, naming every line."""
    report = SCANNERS["hadolint"].parse(sample("hadolint"), TARGET, INPUTS)
    assert [(f.id, f.installed) for f in report.findings] == [("DL3020", "line 2, 3"), ("DL3064", "line 4")]


def test_an_image_configuration_becomes_the_dockerfile_it_amounts_to():
    """User, health check and environment as rules expect them; a value with a line break stays one line."""
    config = {
        "Env": ["A=b\nUSER root"],
        "User": "65532",
        "ExposedPorts": {"8080/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "/ok"]},
        "Entrypoint": ["/app"],
    }
    assert trivy_config.dockerfile({"config": config}).splitlines() == [
        "FROM scratch",
        r'ENV A="b\nUSER root"',
        "EXPOSE 8080/tcp",
        "USER 65532",
        'HEALTHCHECK CMD ["/ok"]',
        'ENTRYPOINT ["/app"]',
    ]


def test_a_health_check_that_is_left_out_for_a_reason_is_no_finding():
    """Exactly that rule, and only where the definition says why; whatever else is wrong stays found."""

    def rules(target: ScanTarget) -> set[str]:
        return {found.id for found in trivy_config.parse(sample("trivy-config"), target, INPUTS).findings}

    assert rules(TARGET) - rules(replace(TARGET, no_healthcheck_because="it serves nothing")) == {"DS-0026"}
    assert rules(replace(TARGET, no_healthcheck_because="it serves nothing"))


def test_the_sbom_is_the_same_whenever_and_wherever_it_was_made():
    """No serial number, no clock, no temporary path; the artifact's own date, in UTC, and digest."""
    created = datetime(2026, 11, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    raw = json.loads(sample("syft"))
    other = {**raw, "serialNumber": "urn:uuid:1", "components": raw["components"][::-1]}
    other["metadata"] = {**raw["metadata"], "timestamp": "2030-01-01T00:00:00Z"}
    one, two = (syft.normalise(json.dumps(document), TARGET, created, "sha256:1") for document in (raw, other))
    assert one == two
    document = json.loads(one)
    assert "serialNumber" not in document
    assert document["metadata"]["timestamp"] == "2026-11-01T00:00:00Z"
    assert "/image/layout" not in one.decode()


def test_half_a_bill_of_materials_is_refused():
    """A package that the plan installed and the SBOM does not name makes it worthless."""
    more = ScanTarget("image", TARGET.layout, TARGET.tree, None, (*TARGET.packages, Package("lost", "1", "all", "")))
    with pytest.raises(OutsideError, match="lacks 1 of 5 packages"):
        syft.normalise(sample("syft"), more, datetime(2026, 1, 1, tzinfo=UTC), "sha256:1")


def test_each_kind_has_a_scanner():
    """Vulnerabilities have two judges, the other kinds at least one."""
    kinds = [scanner.kind for scanner in SCANNERS.values()]
    assert kinds.count(FindingKind.VULNERABILITY) == 2
    assert set(kinds) == set(FindingKind) - {FindingKind.EXPLOITATION}  # a list of the feeds, no scanner
