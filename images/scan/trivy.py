"""trivy, vulnerabilities: over a container's own layers or a machine's tree, with the database of `feeds.trivy`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hardening.findings import Finding, FindingKind, ScanReport
from hardening.model import Kind
from images.scan.base import ScanInputs, Scanner, ScanTarget, report, severity

NAME = "trivy"


# Whatever could keep a finding out of the answer has its value here: no file of the host's and no default decides it.
EVERYTHING = (
    "--config=",
    "--ignorefile=",
    "--ignore-policy=",
    "--severity=UNKNOWN,LOW,MEDIUM,HIGH,CRITICAL",
    "--skip-dirs=",
    "--skip-files=",
    "--exit-code=0",
    "--skip-version-check",
    "--disable-telemetry",
    "--format=json",
    "--quiet",
)
QUIET = (
    *EVERYTHING,
    "--cache-backend=memory",
    "--ignore-unfixed=false",
    "--ignore-status=",
    "--vex=",
    "--pkg-types=os,library",
    "--skip-db-update",
    "--skip-java-db-update",
    "--skip-vex-repo-update",
    "--offline-scan",
)  # no download, nothing kept between runs


def base_command(target: ScanTarget, cache: Path, scanners: str) -> list[str]:
    """What every run of trivy over an image shares; a machine is read as a tree, since it has no layers."""
    over = ["image", f"--input={target.layout}"] if target.kind is Kind.CONTAINER else ["rootfs", str(target.tree)]
    return ["trivy", *over, f"--scanners={scanners}", f"--cache-dir={cache}", *QUIET, "--skip-check-update"]


def command(target: ScanTarget, inputs: ScanInputs) -> list[str]:
    """The argv; `--list-all-pkgs` because the packages it saw prove that it looked at anything."""
    return [*base_command(target, inputs.feeds[NAME].directory, "vuln"), "--list-all-pkgs"]


def lacks(_target: ScanTarget, inputs: ScanInputs) -> str:
    """Why trivy cannot evaluate vulnerabilities; empty when it can."""
    return inputs.missing.get(NAME, "") if NAME not in inputs.feeds else ""


def results(stdout: str) -> tuple[list[dict[str, Any]], str]:
    """The `Results` of trivy's JSON, and its version. Raises ValueError for what is not trivy's JSON."""
    document = json.loads(stdout)
    if not isinstance(document, dict) or "SchemaVersion" not in document:
        raise ValueError("not a report of trivy")
    return document.get("Results") or [], document.get("Trivy", {}).get("Version", "")


def parse(stdout: str, target: ScanTarget, inputs: ScanInputs) -> ScanReport:
    """Findings by binary package; evaluated is the number of operating-system packages it lists."""
    return vulnerabilities(NAME, stdout, target, inputs)


def vulnerabilities(name: str, stdout: str, target: ScanTarget, inputs: ScanInputs) -> ScanReport:
    """The report, under `name`, of a run of trivy that lists packages and their vulnerabilities."""
    found, version = results(stdout)
    findings = [_finding(name, item) for result in found for item in result.get("Vulnerabilities") or []]
    return report(
        name,
        FindingKind.VULNERABILITY,
        findings,
        packages_seen(found),
        "it recognised no operating-system package in the image",
        feed=inputs.feeds.get(NAME),
        expected=len(target.packages),
        version=version,
    )


def packages_seen(found: list[dict[str, Any]]) -> int:
    """How many operating-system packages the results list: the proof that trivy looked at a filesystem."""
    return sum(len(result.get("Packages") or []) for result in found if result.get("Class") == "os-pkgs")


def _finding(name: str, item: dict[str, Any]) -> Finding:
    how_bad = severity(item.get("Severity", ""))
    return Finding(
        kind=FindingKind.VULNERABILITY,
        id=item["VulnerabilityID"],
        package=item["PkgName"],
        installed=item["InstalledVersion"],
        fixed=item.get("FixedVersion", ""),
        severity=how_bad,
        scanners=((name, how_bad),),
        title=item.get("Title", ""),
    )


SCANNER = Scanner(NAME, FindingKind.VULNERABILITY, "trivy", command, parse, lacks=lacks)
