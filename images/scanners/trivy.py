"""trivy, vulnerabilities: over the artifact's own layers, with the database that `feeds.trivy` names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hardening.findings import Finding, FindingKind, ScanReport
from images.scanners.base import ScanInputs, Scanner, ScanTarget, report, severity

NAME = "trivy"


def base_command(target: ScanTarget, cache: Path, scanners: str) -> list[str]:
    """What every run of trivy over an image shares: no download, no host configuration, nothing kept between runs."""
    return [
        "trivy",
        "image",
        f"--input={target.layout}",
        f"--scanners={scanners}",
        f"--cache-dir={cache}",
        "--cache-backend=memory",
        "--config=",
        "--ignorefile=",
        "--skip-version-check",
        "--disable-telemetry",
        "--skip-db-update",
        "--skip-java-db-update",
        "--skip-check-update",
        "--skip-vex-repo-update",
        "--offline-scan",
        "--format=json",
        "--quiet",
    ]


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
    found, version = results(stdout)
    seen = sum(len(result.get("Packages") or []) for result in found if result.get("Class") == "os-pkgs")
    findings = [_finding(item) for result in found for item in result.get("Vulnerabilities") or []]
    return report(
        NAME,
        SCANNER.kind,
        findings,
        seen,
        "it recognised no operating-system package in the image",
        feed=inputs.feeds.get(NAME),
        expected=len(target.packages),
        version=version,
    )


def _finding(item: dict[str, Any]) -> Finding:
    how_bad = severity(item.get("Severity", ""))
    return Finding(
        kind=FindingKind.VULNERABILITY,
        id=item["VulnerabilityID"],
        package=item["PkgName"],
        installed=item["InstalledVersion"],
        fixed=item.get("FixedVersion", ""),
        severity=how_bad,
        scanners=((NAME, how_bad),),
        title=item.get("Title", ""),
    )


SCANNER = Scanner(NAME, FindingKind.VULNERABILITY, "trivy", command, parse, lacks=lacks)
