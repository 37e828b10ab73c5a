"""The real scanners over a small machine: what each finds, and that content, data or a disk that fails is no pass."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hardening.catalog import load_policy
from hardening.findings import Outcome, ScanReport, Verdict
from hardening.foundation.settings import ROOT, Settings
from hardening.gate import judge_image
from images import feeds
from images.machine import disk
from images.scan import SCANNERS
from images.scan.base import ScanTarget
from images.scan.flow import ScanResult, scan
from tests.images.scan.test_scan_real import KEY
from tests.support.scanning import CURRENT, NO_FEEDS, OPENSSL, canary_status, make_machine, scan_without_bill, with_disk

DISKS = pytest.mark.needs("systemd-repart", "mkfs.ext4", "trivy", "debsecan", "syft")
DATA_DATE = datetime(2026, 8, 21, tzinfo=UTC)
NOW = DATA_DATE + timedelta(days=1)
JUDGES = ("debsecan", "trivy", "trivy-disk")
pytestmark = [pytest.mark.slow, pytest.mark.needs("oscap", "systemd-analyze", "syft")]


@pytest.fixture(scope="session")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the benchmarks' content, fetched from the mirror."""
    state = tmp_path_factory.mktemp("content")
    return feeds.benchmark_content(Settings(state=state), "trixie").directory


@pytest.fixture
def settings(tmp_path: Path, content: Path) -> Settings:
    """Settings of a state of the test's own that need not fetch the content again."""
    return Settings(state=tmp_path / "state", retry_for="0s", feeds=NO_FEEDS | {"openscap": str(content)})


def reports(result: ScanResult) -> dict[str, ScanReport]:
    return {report.scanner: report for report in result.reports}


def by(*names: str, target: ScanTarget, settings: Settings) -> dict[str, ScanReport]:
    """The reports of those scanners alone."""
    return reports(scan_without_bill(target, settings, {name: SCANNERS[name] for name in names}, now=NOW))


FROM_TREE = {"sshd_disable_root_login", "package_sudo_installed", "sysctl_kernel_dmesg_restrict", "root_path_no_dot"}

MOUNTS = {"partition_for_tmp", "partition_for_dev_shm"}


def installed(package: str) -> str:
    """The paragraph of a dpkg status file that says so."""
    return f"Package: {package}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n"


@pytest.mark.needs("mirror")
def test_the_benchmark_judges_the_tree_and_not_the_host(settings: Settings, tmp_path: Path) -> None:
    """What the tree has decides each rule: sshd, packages, parameters; no mount or package of this host does."""
    server = f"{CURRENT}\n{installed('linux-base')}\n{installed('openssh-server')}\n"
    target = make_machine(tmp_path, server)
    report = by("openscap", target=target, settings=settings)["openscap"]
    broken = {finding.id for finding in report.findings}
    assert report.outcome is Outcome.FAIL
    assert report.evaluated > 100
    assert broken >= FROM_TREE | MOUNTS
    (target.tree / "etc/ssh/sshd_config").write_text("PermitRootLogin no\n")
    (target.tree / "etc/login.defs").write_text("ENV_SUPATH PATH=/usr/sbin:/usr/bin\n")
    (target.tree / "etc/sysctl.d").mkdir()
    (target.tree / "etc/sysctl.d/50.conf").write_text("kernel.dmesg_restrict = 1\n")
    (target.tree / "var/lib/dpkg/status").write_text(f"{server}\n{installed('sudo')}\n")
    for folder in ("dev", "tmp"):
        (target.tree / folder).mkdir(exist_ok=True)
    (target.tree / "etc/fstab").write_text("tmpfs /tmp tmpfs nosuid 0 0\ntmpfs /dev/shm tmpfs nosuid 0 0\n")
    mended = by("openscap", target=target, settings=settings)["openscap"]
    left = {finding.id for finding in mended.findings}
    assert not (FROM_TREE | MOUNTS) & left
    assert {"mount_option_tmp_nodev", "mount_option_tmp_noexec"} <= left - broken
    assert "mount_option_tmp_nosuid" not in left
    assert not [*(target.tree / "proc").iterdir(), *(target.tree / "dev").iterdir()]
    assert mended.score > report.score


@pytest.mark.needs("mirror")
def test_content_for_another_release_is_not_evaluated(settings: Settings, content: Path, tmp_path: Path) -> None:
    """Debian 12's rules over Debian 13: oscap ends with status 0 and found nothing, since nothing applied."""
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    shutil.copy(content / "ssg-debian12-ds.xml", wrong / "ssg-debian13-ds.xml")
    feeds = settings.feeds.model_copy(update={"openscap": str(wrong)})
    target = make_machine(tmp_path)
    report = by("openscap", target=target, settings=settings.model_copy(update={"feeds": feeds}))["openscap"]
    assert (report.outcome, report.evaluated) == (Outcome.NOT_EVALUATED, 0)
    assert "none of its 403 rules applies" in report.reason
    [refusal] = [r for r in judged(target, (report,)).refusals if r.rule == "openscap-evaluated"]
    assert "none of its 403 rules applies" in refusal.what


@pytest.mark.needs("mirror")
def test_a_tree_that_shows_the_hosts_mounts_and_a_profile_that_is_none_are_not_evaluated(
    settings: Settings, tmp_path: Path
) -> None:
    """The first would let the host decide, of the second oscap knows nothing."""
    target = make_machine(tmp_path)
    strange = by("openscap", target=replace(target, benchmark="cis_level9"), settings=settings)["openscap"]
    assert strange.outcome is Outcome.ERROR
    (target.tree / "proc/mounts").write_text("tmpfs /tmp tmpfs rw 0 0\n")
    shown = by("openscap", target=target, settings=settings)["openscap"]
    assert (shown.outcome, "the host's mounts" in shown.reason) == (Outcome.NOT_EVALUATED, True)


def test_exposed_services_are_found_and_a_drop_in_of_the_tree_counts(settings: Settings, tmp_path: Path) -> None:
    """Only the service that stays; once its drop-in confines it, it is none any more."""
    target = make_machine(tmp_path)
    report = by("systemd-analyze", target=target, settings=settings)["systemd-analyze"]
    assert [finding.id for finding in report.findings] == ["exposure-stays.service"]
    assert report.evaluated == 1
    (target.tree / "etc/systemd/system/stays.service.d").mkdir()
    (target.tree / "etc/systemd/system/stays.service.d/confine.conf").write_text(
        "[Service]\nDynamicUser=yes\nCapabilityBoundingSet=\nSystemCallFilter=@system-service\nPrivateDevices=yes\n"
        "PrivateNetwork=yes\nProtectKernelModules=yes\nProtectKernelTunables=yes\nRestrictNamespaces=yes\n"
    )
    assert by("systemd-analyze", target=target, settings=settings)["systemd-analyze"].outcome is Outcome.PASS


@pytest.mark.needs("trivy")
def test_a_secret_in_the_tree_is_found(settings: Settings, tmp_path: Path) -> None:
    """By its path in the machine."""
    target = make_machine(tmp_path)
    (target.tree / "root").mkdir()
    (target.tree / "root/id_rsa").write_text(f"{KEY}\n-----END RSA PRIVATE KEY-----\n")
    report = by("trivy-secret", target=target, settings=settings)["trivy-secret"]
    assert [(finding.id, finding.package) for finding in report.findings] == [("private-key", "/root/id_rsa")]
    assert report.evaluated == len(target.packages)


def test_the_bill_of_materials_of_a_tree_is_the_same_twice(settings: Settings, tmp_path: Path) -> None:
    """From another directory: the same bytes, with every package, and the machine as its subject."""
    one, two = (scan(make_machine(tmp_path / name), settings, {}, now=NOW) for name in ("one", "two"))
    assert (one.sbom, one.spdx) == (two.sbom, two.spdx)
    document = json.loads(one.sbom)
    assert {"libc6", "libssl3t64", "apt"} <= {component["name"] for component in document["components"]}
    assert document["metadata"]["component"] == {"type": "operating-system", "name": "server", "version": "sha256:1"}
    packages = {package["name"]: package for package in json.loads(one.spdx)["packages"]}
    assert packages["server"]["primaryPackagePurpose"] == "OPERATING-SYSTEM"
    assert str(tmp_path) not in f"{one.sbom!r}{one.spdx!r}"


@pytest.mark.needs("mirror", "trivy", "hadolint", "debsecan")
def test_what_has_not_changed_is_not_scanned_again(settings: Settings, tmp_path: Path) -> None:
    """Reports stand as long as tree, data, program and profile are the same; other content is another measurement."""
    target = replace(make_machine(tmp_path), subject="machine")
    first = scan(target, settings, now=NOW)
    never = {name: replace(s, program="no-such-program") for name, s in SCANNERS.items() if s.program}
    same = {name: replace(s, command=lambda *_: ["false"]) for name, s in SCANNERS.items()}
    assert scan(target, settings, same, now=NOW, known=first) == first
    again = reports(scan(target, settings, never, now=NOW, known=first))
    assert {report.outcome for report in again.values()} == {Outcome.NOT_EVALUATED, Outcome.NOT_APPLICABLE}
    other = tmp_path / "content"
    shutil.copytree(settings.feeds.openscap, other)
    with (other / "ssg-debian13-ds.xml").open("a") as file:
        file.write("\n")
    feeds = settings.feeds.model_copy(update={"openscap": str(other)})
    moved = scan(target, settings.model_copy(update={"feeds": feeds}), same, now=NOW, known=first)
    changed = {name for name, report in reports(moved).items() if report != reports(first)[name]}
    assert changed == {"openscap"}


@pytest.fixture
def data(advisories: Path, tmp_path: Path) -> dict[str, str]:
    """The real advisories, as both engines read them."""
    (tmp_path / "data").mkdir()
    shutil.copy(advisories / "debsecan" / "trixie", tmp_path / "data" / "trixie")
    (tmp_path / "data" / "metadata.json").write_text('{"date": "2026-08-21"}')
    return {"debsecan": str(tmp_path / "data"), "trivy": str(advisories / "trivy")}


def judged(target: ScanTarget, of: tuple[ScanReport, ...], now: datetime = NOW) -> Verdict:
    """The gate's answer by the policy for machines, without a look at controls."""
    found = [finding for report in of for finding in report.findings]
    return judge_image(load_policy((ROOT,), "machine"), target.name, None, of, found, (), now)


def judge(target: ScanTarget, feeds: dict[str, str], state: Path, now: datetime = NOW) -> tuple[ScanResult, Verdict]:
    """The three judges over a machine, and the gate."""
    settings = Settings(state=state, retry_for="0s", feeds=NO_FEEDS | feeds)
    result = scan_without_bill(target, settings, {name: SCANNERS[name] for name in JUDGES}, now=now)
    return result, judged(target, result.reports, now)


@DISKS
def test_the_canary_is_found_in_the_tree_and_on_the_disk_and_refused(data: dict[str, str], tmp_path: Path) -> None:
    """openssl 3.5.1-1: 25 vulnerabilities in each of three packages, by every judge; current packages have none."""
    target = with_disk(make_machine(tmp_path, canary_status()), tmp_path)
    result, verdict = judge(target, data, tmp_path / "state")
    assert {finding.package for finding in result.findings} == set(OPENSSL)
    assert len(result.findings) == 75
    assert all([name for name, _ in finding.scanners] == list(JUDGES) for finding in result.findings)
    assert {reason.rule for reason in verdict.refusals if reason.rule.startswith("CVE-")}
    (tmp_path / "clean").mkdir()
    clean = with_disk(make_machine(tmp_path / "clean"), tmp_path / "clean")
    result, _ = judge(clean, data, tmp_path / "state")
    assert [(report.outcome, report.evaluated) for report in result.reports] == [(Outcome.PASS, 78)] * 3


@DISKS
def test_data_that_is_stale_or_gone_is_no_judgement(data: dict[str, str], tmp_path: Path) -> None:
    """Whatever it finds or does not find."""
    target = with_disk(make_machine(tmp_path), tmp_path)
    _, stale = judge(target, data, tmp_path / "state", DATA_DATE + timedelta(days=8))
    [reason] = [reason for reason in stale.refusals if reason.rule == "judges"]
    assert "(debsecan: its data is of 2026-08-21, 8 days old" in reason.what
    assert "; trivy, trivy-disk: its data is of 2026-08-21, 8 days old" in reason.what
    (tmp_path / "empty").mkdir()
    gone = dict.fromkeys(data, str(tmp_path / "empty"))
    result, verdict = judge(target, gone, tmp_path / "state")
    assert {report.outcome for report in result.reports} == {Outcome.NOT_EVALUATED}
    assert "nothing was evaluated" in next(r.what for r in verdict.refusals if r.rule == "judges")


@DISKS
def test_a_disk_that_trivy_passes_over_is_refused(
    data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition whose name it does not know, it passes over with status 0 and no word."""
    monkeypatch.setattr(disk, "ROOT_NAME", "root")
    target = with_disk(make_machine(tmp_path), tmp_path)
    result, verdict = judge(target, data, tmp_path / "state")
    assert reports(result)["trivy-disk"].outcome is Outcome.NOT_EVALUATED
    [refusal] = [reason for reason in verdict.refusals if reason.rule == "trivy-disk-evaluated"]
    assert "trivy-disk did not evaluate this image, though trivy did" in refusal.what


def test_a_container_has_none_of_what_is_for_machines(settings: Settings, tmp_path: Path) -> None:
    """And a machine none of a container's: each is said, none is a gap."""
    made = by("hadolint", "trivy-config", target=make_machine(tmp_path), settings=settings)
    assert {report.reason for report in made.values()} == {"it is for containers"}
    assert {report.outcome for report in made.values()} == {Outcome.NOT_APPLICABLE}
