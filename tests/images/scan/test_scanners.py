"""Each scanner's contract: what it is told to do, and what its recorded real output means."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest

from hardening.findings import FindingKind, Outcome, merge
from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import Settings
from hardening.model import Kind, Severity
from images.advisories import Advisories, Advisory
from images.artifact import Package
from images.feeds import debsecan_format
from images.scan import MORE, SCANNERS, chosen, osv_scanner, syft, trivy
from images.scan.base import Feed, ScanInputs, ScanTarget
from tests.support.scanning import SAMPLES, packages

STATUS = (SAMPLES / "canary-status").read_text()
FEED = Feed(Path("/data"), datetime(2026, 8, 21, tzinfo=UTC), "test feed", "sha256:0")
INPUTS = ScanInputs(
    Path("/scratch"), "trixie", STATUS, dict.fromkeys(("debsecan", "grype", "osv-scanner", "trivy"), FEED), {}
)
TARGET = ScanTarget("image", Path("/image/layout"), Path("/image/tree"), Path("/image/Dockerfile"), packages(STATUS))
MACHINE = ScanTarget(
    "server", None, Path("/image/tree"), packages=packages(STATUS), kind=Kind.MACHINE, disk=Path("/image/disk.raw"),
    digest="sha256:1", created="2026-11-01T01:00:00+01:00", benchmark="cis_level1_server",
)  # fmt: skip
SERVICES = ("auditd.service", "ssh.service", "systemd-resolved.service")
AT_MACHINE = replace(INPUTS, services=SERVICES, feeds={**INPUTS.feeds, "openscap": FEED})
EVERY = {**SCANNERS, **MORE}
PROGRAMS = [name for name, scanner in EVERY.items() if scanner.program]
EMPTY = {
    "detect-secrets": '{"version": "1.5.0", "plugins_used": [{"name": "AWSKeyDetector"}], "results": {}}',
    "grype": '{"matches": [], "descriptor": {"version": "1"}} {"bomFormat": "CycloneDX"}',
    "lynis": "lynis_version=3.1.4\ntests_executed=\ntests_skipped=\n",
    "osv-scanner": '{"results": []}',
    "debsecan": "",
    "hadolint": "[]",
    "trivy": '{"SchemaVersion": 2}',
    "trivy-config": '{"SchemaVersion": 2}',
    "trivy-disk": '{"SchemaVersion": 2, "ArtifactName": "disk.raw", "ArtifactType": "vm"}',
    "trivy-secret": '{"SchemaVersion": 2}',
    "openscap": (SAMPLES / "openscap-wrong-release.xml").read_text(),
    "systemd-analyze": "",
}


"""Those that run one; the matcher, which is a function of ours, has tests of its own."""


def sample(name: str) -> str:
    return next(SAMPLES.glob(f"{name}.*")).read_text()


def of(name: str) -> tuple[ScanTarget, ScanInputs]:
    """The image that a scanner is for: a container where it knows those."""
    return (TARGET, INPUTS) if Kind.CONTAINER in EVERY[name].kinds else (MACHINE, AT_MACHINE)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_scanner_reads_its_recorded_output(name):
    """The recorded run of the real tool gives findings of its kind, each with its own opinion, and says it looked."""
    report = EVERY[name].parse(sample(name), *of(name))
    assert report.outcome is Outcome.FAIL
    assert report.evaluated > 0
    assert report.scanner == name
    assert {finding.kind for finding in report.findings} == {EVERY[name].kind}
    assert all(finding.scanners == ((name, finding.severity),) for finding in report.findings)
    assert list(report.findings) == sorted(report.findings)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_scanner_is_told_by_an_argument_list_that_keeps_the_hosts_configuration_out(name):
    """A file in the home or the working directory must not silence a finding."""
    argv = EVERY[name].command(*of(name))
    assert argv[0] == EVERY[name].program
    has_none = name in ("detect-secrets", "openscap", "systemd-analyze")  # they read no configuration
    assert has_none or any(argument.startswith(("--config=", "--profile")) for argument in argv)


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in ("debsecan", "hadolint")])
def test_output_that_proves_no_look_is_not_evaluated(name):
    """Exit status 0 and no findings means nothing when the tool does not say what it looked at."""
    assert EVERY[name].parse(EMPTY[name], *of(name)).outcome is Outcome.NOT_EVALUATED


def test_trivy_and_debsecan_agree_on_the_recorded_canary():
    """On the same data all find the same vulnerabilities in the same packages, on a raw disk too; merged: by each."""
    names = ["debsecan", "trivy", "trivy-disk"]
    reports = [SCANNERS[name].parse(sample(name), *of(name)) for name in names]
    merged = merge(finding for report in reports for finding in report.findings)
    assert {len(merged), *(len(report.findings) for report in reports)} == {50}
    assert all([name for name, _ in finding.scanners] == names for finding in merged)
    assert all(finding.fixed.startswith("3.5.") and "|" not in finding.fixed for finding in merged)


def test_a_scanner_that_saw_fewer_packages_than_the_image_holds_did_not_evaluate_it():
    """Half a look is none: what it did not see is not known to be good."""
    more = ScanTarget("image", TARGET.layout, TARGET.tree, None, (*TARGET.packages, Package("x", "1", "all", "")))
    for name in ("trivy", "trivy-disk", "debsecan"):
        report = SCANNERS[name].parse(sample(name), more, INPUTS)
        assert report.outcome is Outcome.NOT_EVALUATED
        assert report.reason == "it saw 4 of the image's 5 packages"


def test_a_package_from_elsewhere_stands_for_none_of_the_image():
    """trivy passes over what is to be removed, and takes files in status.d for packages: the number stays the same."""
    other = sample("trivy").replace('"Name": "openssl"', '"Name": "opensst"')
    report = SCANNERS["trivy"].parse(other, TARGET, INPUTS)
    assert (report.outcome, report.reason) == (Outcome.NOT_EVALUATED, "it saw 3 of the image's 4 packages")


EVERYTHING = (
    "--config=", "--ignorefile=", "--ignore-policy=", "--severity=UNKNOWN,LOW,MEDIUM,HIGH,CRITICAL", "--skip-dirs=",
    "--skip-files=", "--exit-code=0", "--skip-version-check", "--disable-telemetry", "--format=json", "--quiet",
)  # fmt: skip
TRIVY = (
    "--scanners=vuln", "--cache-dir=/data", *EVERYTHING, "--cache-backend=memory", "--ignore-unfixed=false",
    "--ignore-status=", "--vex=", "--pkg-types=os,library", "--skip-db-update", "--skip-java-db-update",
    "--skip-vex-repo-update", "--offline-scan",
)  # fmt: skip


def test_trivy_argv_reads_the_artifact_and_downloads_nothing():
    """The whole command, so that a change of it is seen in review."""
    assert SCANNERS["trivy"].command(TARGET, INPUTS) == [
        "trivy", "image", "--input=/image/layout", *TRIVY, "--skip-check-update", "--list-all-pkgs",
    ]  # fmt: skip
    assert SCANNERS["trivy"].command(MACHINE, AT_MACHINE) == [
        "trivy", "rootfs", "/image/tree", *TRIVY, "--skip-check-update", "--list-all-pkgs",
    ]  # fmt: skip
    assert SCANNERS["trivy-disk"].command(MACHINE, AT_MACHINE) == [
        "trivy", "vm", "/image/disk.raw", *TRIVY, "--list-all-pkgs",
    ]  # fmt: skip


def test_debsecan_argv_takes_data_suite_and_status_of_the_image():
    """The whole command: neither the host's suite nor its whitelist has a say."""
    assert SCANNERS["debsecan"].command(TARGET, INPUTS) == [
        "debsecan", "--config=/dev/null", "--whitelist=", "--source=file:///data/", "--suite=trixie",
        "--status=/scratch/status", "--format=detail",
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
    assert reason in SCANNERS["debsecan"].cannot(TARGET, inputs)


def test_debsecan_counts_only_installed_packages():
    """A package that was removed but left its configuration is not installed."""
    removed = "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n"
    report = SCANNERS["debsecan"].parse("", TARGET, ScanInputs(Path("/w"), "trixie", removed + STATUS, {}, {}))
    assert report.evaluated == 4


STATES = ("installed", "unpacked", "half-configured", "half-installed", "triggers-pending", "config-files")


@pytest.mark.needs("debsecan")
def test_what_has_its_files_in_the_image_is_judged(tmp_path):
    """debsecan passes over what is unpacked and not configured, and our matcher did: it runs all the same."""
    entry = "Package: lib{0}\nStatus: install ok {0}\nArchitecture: all\nSource: openssl\nVersion: 3.5.1-1\n"
    status = "\n".join(entry.format(state) for state in STATES)
    (tmp_path / "trixie").write_bytes(debsecan_format({"openssl": {"3.5.4-1": ["CVE-2026-0001"]}}))
    feeds = dict.fromkeys(("debsecan", "tracker"), replace(FEED, directory=tmp_path))
    known = Advisories([Advisory("CVE-2026-0001", "openssl", "3.5.4-1")])
    inputs = ScanInputs(tmp_path, "trixie", status, feeds, {}, advisories=known)
    for name, text in SCANNERS["debsecan"].files(TARGET, inputs).items():
        (tmp_path / name).write_text(text)
    argv = SCANNERS["debsecan"].command(TARGET, inputs)
    said = {"debsecan": subprocess.run(argv, check=True, capture_output=True, text=True).stdout, "matcher": ""}
    for name, answer in said.items():
        report = SCANNERS[name].parse(answer, replace(TARGET, packages=()), inputs)
        assert {finding.package for finding in report.findings} == {f"lib{state}" for state in STATES[:-1]}
        assert report.evaluated == len(STATES) - 1


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
    """User, health check and environment as rules expect them; a value with quotes stays one line."""
    config = {
        "Env": ['A=b" USER root\\'],
        "User": "65532",
        "ExposedPorts": {"8080/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "/ok"]},
        "Entrypoint": ["/app"],
    }
    assert trivy.dockerfile({"config": config}).splitlines() == [
        "FROM scratch",
        r'ENV A="b\" USER root\\"',
        "EXPOSE 8080/tcp",
        "USER 65532",
        'HEALTHCHECK CMD ["/ok"]',
        'ENTRYPOINT ["/app"]',
    ]


def test_a_health_check_that_is_left_out_for_a_reason_is_no_finding():
    """Exactly that rule, and only where the definition says why; whatever else is wrong stays found."""

    def rules(target: ScanTarget) -> set[str]:
        return {found.id for found in trivy.parse_config(sample("trivy-config"), target, INPUTS).findings}

    assert rules(TARGET) - rules(replace(TARGET, no_healthcheck_because="it serves nothing")) == {"DS-0026"}
    assert rules(replace(TARGET, no_healthcheck_because="it serves nothing"))


SUBJECT = replace(TARGET, digest=f"sha256:{'1' * 64}", created="2026-11-01T01:00:00+01:00")


def test_the_sbom_is_the_same_whenever_and_wherever_it_was_made():
    """No chance, no clock, no temporary path; the artifact's own date, in UTC, and digest."""
    raw = json.loads(sample("syft"))
    other = {**raw, "serialNumber": "urn:uuid:1", "components": raw["components"][::-1]}
    other["metadata"] = {**raw["metadata"], "timestamp": "2030-01-01T00:00:00Z"}
    spdx = sample("syft-spdx")
    one, two = (syft.normalise(json.dumps(document), spdx, SUBJECT).cyclonedx for document in (raw, other))
    assert one == two
    document = json.loads(one)
    assert document["serialNumber"] == "urn:uuid:009eba55-d1e3-58b9-af91-a701a3e55238"
    assert document["metadata"]["timestamp"] == "2026-11-01T00:00:00Z"
    assert "/image/layout" not in one.decode()


def test_the_sbom_as_spdx_is_the_same_too():
    """Its name, namespace, order and root are the artifact's; of files, whose digests syft invents, it says nothing."""
    text = sample("syft-spdx")
    raw = json.loads(text.replace("/image/layout", "/elsewhere").replace("Image--image-layout", "Image--elsewhere"))
    for member in ("packages", "relationships"):
        raw[member].reverse()
    raw["creationInfo"]["created"] = "2030-01-01T00:00:00Z"
    raw["documentNamespace"] = "https://anchore.com/syft/image/another"
    one, two = (syft.normalise(sample("syft"), document, SUBJECT).spdx for document in (text, json.dumps(raw)))
    assert one == two
    document = json.loads(one)
    assert document["documentNamespace"] == f"https://goldsmith.dev/spdx/image/{'1' * 64}"
    assert document["creationInfo"]["created"] == "2026-11-01T00:00:00Z"
    [root] = [one for one in document["packages"] if one["SPDXID"] == syft.ROOT]
    assert (root["name"], root["versionInfo"], root["primaryPackagePurpose"]) == ("image", SUBJECT.digest, "CONTAINER")
    ends = {(one["spdxElementId"], one["relatedSpdxElement"]) for one in document["relationships"]}
    known = {one["SPDXID"] for one in document["packages"]}
    assert {end for pair in ends for end in pair} == known | {"SPDXRef-DOCUMENT"}
    assert "files" not in document
    assert "/image/layout" not in one.decode()


@pytest.mark.parametrize("half", ["syft", "syft-spdx"])
def test_half_a_bill_of_materials_is_refused(half):
    """A package that the plan installed and one of the two does not name makes it worthless."""
    more = replace(SUBJECT, packages=(*TARGET.packages, Package("lost", "1", "all", "")))
    with pytest.raises(OutsideError, match="lacks 1 of 5 packages"):
        syft.normalise(sample("syft"), sample("syft-spdx"), more)
    given = {name: json.loads(sample(name)) for name in ("syft", "syft-spdx")}
    member = {"syft": "components", "syft-spdx": "packages"}[half]
    given[half][member] = [one for one in given[half][member] if one["name"] != "libc6"]
    with pytest.raises(OutsideError, match="lacks 1 of 4 packages"):
        syft.normalise(json.dumps(given["syft"]), json.dumps(given["syft-spdx"]), SUBJECT)


def test_a_package_of_another_architecture_is_another_package():
    """Both may be installed, and only one of them be listed."""
    first, *others = TARGET.packages
    with pytest.raises(OutsideError, match="lacks 1 of 4 packages"):
        syft.normalise(
            sample("syft"),
            sample("syft-spdx"),
            replace(SUBJECT, packages=(replace(first, architecture="arm64"), *others)),
        )


def test_both_bills_come_out_of_one_run():
    """Of the formats' versions that are promised."""
    argv = syft.command(TARGET, Path("/scratch/syft.yaml"))
    assert argv[3:5] == [
        "--output=cyclonedx-json@1.6=/scratch/sbom.cdx.json", "--output=spdx-json@2.3=/scratch/sbom.spdx.json"
    ]  # fmt: skip


def test_each_kind_has_a_scanner():
    """Vulnerabilities have several judges, the other kinds at least one."""
    kinds = [scanner.kind for scanner in SCANNERS.values()]
    judges = [name for name, scanner in SCANNERS.items() if scanner.kind is FindingKind.VULNERABILITY]
    assert judges == ["debsecan", "matcher", "trivy", "trivy-disk"]
    assert set(kinds) == set(FindingKind) - {FindingKind.EXPLOITATION, FindingKind.REPRODUCTION}  # of feeds


def test_scanners_of_containers_have_nothing_to_do_with_machines_and_the_other_way_round():
    """Each says whom it is for; the judges and the search for secrets are for both."""
    spared = {name: (bool(s.not_for(TARGET)), bool(s.not_for(MACHINE))) for name, s in SCANNERS.items()}
    assert [name for name, (container, _) in spared.items() if container] == [
        "openscap", "systemd-analyze", "trivy-disk"
    ]  # fmt: skip
    assert [name for name, (_, machine) in spared.items() if machine] == ["hadolint", "trivy-config"]
    assert SCANNERS["openscap"].not_for(TARGET) == "it is for machines"
    assert SCANNERS["openscap"].not_for(replace(MACHINE, benchmark="")) == "its policy asks for no benchmark"


def test_openscap_counts_the_rules_that_it_decided_and_names_those_that_it_could_not():
    """337 of the 403 rules apply and were decided; five are undecided on a tree: no pass, and no failure."""
    report = SCANNERS["openscap"].parse(sample("openscap"), MACHINE, AT_MACHINE)
    assert (report.evaluated, len(report.findings), report.profile) == (337, 120, "cis_level1_server")
    assert f"{report.score:.1f}" == "64.4"
    assert report.reason.startswith("undecided on a tree: accounts_password_pam_pwquality_enabled, ntp_single_")
    assert report.reason.count(", ") == 4
    found = {finding.id: finding for finding in report.findings}
    assert found["sshd_disable_root_login"].title == "Disable SSH Root Login"
    assert found["sshd_disable_root_login"].severity is Severity.MEDIUM
    assert report.version == "1.4.2"


def test_openscap_with_the_content_of_another_release_evaluated_nothing():
    """The recorded run over Debian 13 by Debian 12's rules: all not applicable, status 0, and yet no pass."""
    report = SCANNERS["openscap"].parse(EMPTY["openscap"], MACHINE, AT_MACHINE)
    assert (report.outcome, report.evaluated, report.score) == (Outcome.NOT_EVALUATED, 0, None)
    assert report.reason == "none of its 44 rules applies: is the content for another release?"


def test_openscap_by_another_profile_is_no_answer():
    """The results of another list of rules say nothing of the one that was asked for."""
    with pytest.raises(ValueError, match="not a result of cis_level2_server"):
        SCANNERS["openscap"].parse(sample("openscap"), replace(MACHINE, benchmark="cis_level2_server"), AT_MACHINE)


def test_an_error_of_a_rule_is_no_pass():
    """What ended in an error is undecided, and so are words that we do not know."""
    for word in ("error", "unknown", "notchecked", "fixed", "surprise"):
        changed = sample("openscap").replace("<result>pass</result>", f"<result>{word}</result>", 1)
        report = SCANNERS["openscap"].parse(changed, MACHINE, AT_MACHINE)
        assert report.evaluated == 336
        assert report.reason.count(", ") == 5


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (replace(AT_MACHINE, mounts="proc /proc proc rw 0 0\n"), "the host's mounts would be judged"),
        (replace(AT_MACHINE, suite="sid"), "no benchmark content for sid"),
        (replace(AT_MACHINE, suite=""), "no benchmark content for an unknown suite"),
        (replace(AT_MACHINE, feeds={}, missing={"openscap": "no such package"}), "no such package"),
        (replace(AT_MACHINE, feeds={}), "it has no data"),
    ],
)
def test_openscap_says_what_it_lacks(inputs, reason):
    """A tree that shows the host, a release that nobody wrote rules for, content that cannot be had: not evaluated."""
    assert not SCANNERS["openscap"].cannot(MACHINE, AT_MACHINE)
    assert reason in SCANNERS["openscap"].cannot(MACHINE, inputs)


def test_openscap_judges_the_tree_by_the_content_of_its_release_and_changes_nothing():
    """The whole command; the tree stands in the environment."""
    assert SCANNERS["openscap"].command(MACHINE, AT_MACHINE) == [
        "oscap", "xccdf", "eval", "--profile=cis_level1_server", "--results=/scratch/openscap.xml",
        "/data/ssg-debian13-ds.xml",
    ]  # fmt: skip
    assert SCANNERS["openscap"].environment(MACHINE, AT_MACHINE)["OSCAP_PROBE_ROOT"] == "/image/tree"


def test_a_service_that_systemd_calls_exposed_is_a_finding_with_its_number():
    """By systemd's own words and numbers; what it calls OK is none."""
    report = SCANNERS["systemd-analyze"].parse(sample("systemd-analyze"), MACHINE, AT_MACHINE)
    assert [(f.id, f.installed, f.severity) for f in report.findings] == [
        ("exposure-auditd.service", "8.9 of 10", Severity.LOW),
        ("exposure-ssh.service", "9.4 of 10", Severity.MEDIUM),
    ]
    assert report.evaluated == 3


def test_a_service_that_systemd_passed_over_was_not_analysed():
    """Three were asked about and two answered: not evaluated."""
    text, cut = sample("systemd-analyze"), "-> Overall exposure level for systemd-resolved"
    report = SCANNERS["systemd-analyze"].parse(text[: text.index(cut)], MACHINE, AT_MACHINE)
    assert (report.outcome, report.reason) == (Outcome.NOT_EVALUATED, "it saw 2 of the image's 3 services")
    assert SCANNERS["systemd-analyze"].cannot(MACHINE, INPUTS) == "no service of the tree starts at boot"


def test_a_disk_that_trivy_cannot_read_is_not_evaluated_whatever_its_status():
    """The recorded answer over a disk whose partition has a name that trivy does not know: no result, status 0."""
    report = SCANNERS["trivy-disk"].parse(EMPTY["trivy-disk"], MACHINE, AT_MACHINE)
    assert report.outcome is Outcome.NOT_EVALUATED
    assert SCANNERS["trivy-disk"].cannot(replace(MACHINE, disk=None), AT_MACHINE) == "the raw disk is not there"


def test_a_secret_in_a_machines_tree_is_found_by_its_path():
    """The packages that trivy lists prove that it walked the tree."""
    report = SCANNERS["trivy-secret"].parse(sample("trivy-secret-machine"), MACHINE, AT_MACHINE)
    assert [(finding.id, finding.package) for finding in report.findings] == [("private-key", "/root/id_rsa")]
    assert report.evaluated == 4
    some = replace(MACHINE, packages=(*MACHINE.packages, Package("x", "1", "all", "")))
    assert SCANNERS["trivy-secret"].parse(sample("trivy-secret-machine"), some, AT_MACHINE).outcome is (
        Outcome.NOT_EVALUATED
    )


def test_an_answer_that_is_half_understood_is_an_error():
    """One block of debsecan's that nobody knows, beside one that is known."""
    known = "CVE-2026-0001\n  A\n  installed: zlib1g 1.3.1-1\n"
    for text in (f"{known}\nCVE-2026-0002 what\n", f"CVE-2026-0002 what\n\n{known}"):
        report = SCANNERS["debsecan"].parse(text, TARGET, INPUTS)
        assert (report.outcome, report.findings) == (Outcome.ERROR, ())


def test_hadolint_without_a_dockerfile_evaluated_nothing():
    """Whatever it answers."""
    report = SCANNERS["hadolint"].parse("[]", replace(TARGET, dockerfile=None), INPUTS)
    assert (report.outcome, report.evaluated) == (Outcome.NOT_EVALUATED, 0)


def test_hadolint_heeds_no_remark_in_the_file():
    """The whole command; and what it reads, line by line where it was."""
    assert SCANNERS["hadolint"].command(TARGET, INPUTS) == [
        "hadolint", "--no-color", "--config=/dev/null", "--disable-ignore-pragma", "--failure-threshold=style",
        "--format=json", "/scratch/Dockerfile",
    ]  # fmt: skip
    text = "#hadolint global ignore=DL3020\nFROM scratch # HADOLINT shell=sh\nRUN # shellcheck disable=all\n# plain\n"
    [written] = SCANNERS["hadolint"].files(TARGET, replace(INPUTS, dockerfile=text)).values()
    assert written.splitlines() == [
        "#no hadolint global ignore=DL3020", "FROM scratch # no HADOLINT shell=sh", "RUN # no shellcheck disable=all",
        "# plain",
    ]  # fmt: skip


def test_only_packages_of_the_operating_system_prove_that_trivy_saw_the_image():
    """Those of a language, which one file can list, do not."""
    packages_of = {"Class": "lang-pkgs", "Packages": [{"Name": f"p{number}"} for number in range(4)]}
    answer = json.dumps({"SchemaVersion": 2, "Results": [packages_of]})
    assert SCANNERS["trivy"].parse(answer, TARGET, INPUTS).outcome is Outcome.NOT_EVALUATED


def test_secrets_are_sought_in_every_layer_and_in_the_configuration_of_an_image():
    """Of a machine in its tree; no file of rules silences any."""
    container, machine = (SCANNERS["trivy-secret"].command(*of) for of in ((TARGET, INPUTS), (MACHINE, AT_MACHINE)))
    assert {"--image-config-scanners=secret", "--scanners=secret", "--secret-config=", "--input=/image/layout"} <= set(
        container
    )
    assert {"--list-all-pkgs", "--scanners=secret", "--secret-config=", "/image/tree"} <= set(machine)


def test_a_bill_that_names_another_version_of_a_package_is_half_a_bill():
    """The name alone is not the package that was installed."""
    first, *others = TARGET.packages
    with pytest.raises(OutsideError, match="lacks 1 of 4 packages"):
        syft.normalise(
            sample("syft"), sample("syft-spdx"), replace(TARGET, packages=(replace(first, version="0"), *others))
        )


def test_the_scanners_that_settings_may_name_are_those_that_do_not_run_by_default() -> None:
    """So the setting's own list and the files here stay one."""
    named = get_args(get_args(Settings.model_fields["scanners"].annotation)[0])
    assert set(named) == set(MORE)
    assert not set(MORE) & set(SCANNERS)
    assert chosen(()) == SCANNERS
    assert list(chosen(("lynis",))) == [*SCANNERS, "lynis"]


def test_grype_argv_takes_the_layout_and_downloads_nothing() -> None:
    """The whole command; a machine is read as a tree."""
    rest = [
        "--config=/scratch/grype.yaml", "--output=json=/scratch/matches.json",
        "--output=cyclonedx-json=/scratch/packages.json", "--quiet",
    ]  # fmt: skip
    assert MORE["grype"].command(TARGET, INPUTS) == ["grype", "oci-dir:/image/layout", *rest]
    assert MORE["grype"].command(MACHINE, AT_MACHINE) == ["grype", "dir:/image/tree", *rest]
    assert MORE["grype"].environment(TARGET, INPUTS) == {
        "GRYPE_DB_CACHE_DIR": "/data", "GRYPE_DB_AUTO_UPDATE": "false", "GRYPE_DB_VALIDATE_AGE": "false",
        "GRYPE_CHECK_FOR_APP_UPDATE": "false",
    }  # fmt: skip
    assert MORE["grype"].cannot(TARGET, replace(INPUTS, feeds={})) == "it has no data"


def test_grype_tells_whose_severity_it_is_and_what_debian_will_not_fix() -> None:
    """Its own word for the least severity is ours for low."""
    findings = MORE["grype"].parse(sample("grype"), TARGET, INPUTS).findings
    told = {(f.id, f.package, f.severity, f.fixed, f.source, f.ecosystem, f.status) for f in findings}
    assert told == {
        ("CVE-2010-4756", "libc6", Severity.LOW, "", "debian", "deb", "no-dsa"),
        ("CVE-2025-15467", "libssl3t64", Severity.HIGH, "3.5.4-1~deb13u2", "debian", "deb", ""),
        ("CVE-2025-15467", "openssl", Severity.HIGH, "3.5.4-1~deb13u2", "debian", "deb", ""),
    }


def test_osv_scanner_argv_reads_an_archive_and_hides_nothing() -> None:
    """The whole command."""
    assert MORE["osv-scanner"].command(TARGET, INPUTS) == [
        "osv-scanner", "scan", "image", "--config=/scratch/osv-scanner.toml", "--format=json", "--all-packages",
        "--all-vulns", "--offline-vulnerabilities", "--archive", "/scratch/image.tar",
    ]  # fmt: skip
    environment = MORE["osv-scanner"].environment(TARGET, INPUTS)
    assert environment == {"OSV_SCANNER_LOCAL_DB_CACHE_DIRECTORY": "/data"}
    assert MORE["osv-scanner"].not_for(MACHINE) == "it is for containers"


def test_osv_scanner_names_binary_packages_and_the_fix_of_the_images_own_release() -> None:
    """Of Debian 12's fix for the same vulnerability it says nothing here."""
    findings = MORE["osv-scanner"].parse(sample("osv-scanner"), TARGET, INPUTS).findings
    told = {(f.id, f.package, f.severity, f.fixed, f.source, f.status) for f in findings}
    assert told == {
        ("CVE-2010-4756", "libc6", Severity.UNKNOWN, "", "osv", "unimportant"),
        ("CVE-2025-15467", "libssl3t64", Severity.HIGH, "3.5.4-1~deb13u2", "osv", ""),
        ("CVE-2025-15467", "openssl", Severity.HIGH, "3.5.4-1~deb13u2", "osv", ""),
    }
    words = {score: osv_scanner.severity_of(score) for score in ("10", "9.0", "8.9", "4", "3.9", "0", "", "x")}
    assert words == {
        "10": "critical", "9.0": "critical", "8.9": "high", "4": "medium", "3.9": "low", "0": "", "": "", "x": "",
    }  # fmt: skip


def test_detect_secrets_that_does_not_find_the_key_put_there_for_it_evaluated_nothing() -> None:
    """It does not say how many files it read."""
    assert set(MORE["detect-secrets"].files(TARGET, INPUTS)) == {"canary.pem"}
    document = json.loads(sample("detect-secrets"))
    del document["results"]["canary.pem"]
    report = MORE["detect-secrets"].parse(json.dumps(document), TARGET, INPUTS)
    assert report.outcome is Outcome.NOT_EVALUATED
    assert report.reason == "it did not find the key that was put there for it"


def test_detect_secrets_argv_asks_nobody_and_heeds_no_remark() -> None:
    """The whole command."""
    assert MORE["detect-secrets"].command(TARGET, INPUTS) == [
        "detect-secrets", "scan", "--all-files", "--no-verify",
        "--disable-filter=detect_secrets.filters.allowlist.is_line_allowlisted",
        "--exclude-files=^tree/(usr/(bin|sbin|lib|lib64|libexec|share|include)|var/lib/dpkg|var/cache)/",
        "--disable-plugin=Base64HighEntropyString", "--disable-plugin=HexHighEntropyString",
        "--disable-plugin=KeywordDetector", "--disable-plugin=IPPublicDetector", ".",
    ]  # fmt: skip


def test_a_test_of_lynis_that_did_not_run_is_no_pass() -> None:
    """It was told which to run, and says which it ran; one that it passes over for lack of its file is no gap."""
    without = sample("lynis").replace("AUTH-9204|", "")
    report = MORE["lynis"].parse(without, MACHINE, AT_MACHINE)
    assert (report.outcome, report.reason) == (Outcome.NOT_EVALUATED, "it saw 12 of the image's 13 tests")
    passed_over = without.replace("tests_skipped=", "tests_skipped=AUTH-9204|")
    assert MORE["lynis"].parse(passed_over, MACHINE, AT_MACHINE).evaluated == 12
    assert MORE["lynis"].parse(passed_over, MACHINE, AT_MACHINE).outcome is Outcome.FAIL
