"""trivy, secrets: over every layer of the artifact, so that what a later layer deleted is found too."""

from __future__ import annotations

import json
import re
from typing import Any

from hardening.findings import Finding, FindingKind, ScanReport
from images.scanners.base import ScanInputs, Scanner, ScanTarget, report, severity
from images.scanners.trivy import base_command, results

NAME = "trivy-secret"


def command(target: ScanTarget, inputs: ScanInputs) -> list[str]:
    """The argv: files of the layers, and the environment and history in the image's configuration."""
    image = base_command(target, inputs.work / NAME, "secret")
    return [*image, "--secret-config=", "--image-config-scanners=secret"]


def parse(stdout: str, _target: ScanTarget, _inputs: ScanInputs) -> ScanReport:
    """Findings by file. What it evaluated is the layers that the report proves it opened."""
    found, version = results(stdout)
    layers = json.loads(stdout).get("Metadata", {}).get("DiffIDs") or []
    findings = [_finding(result, item) for result in found for item in result.get("Secrets") or []]
    return report(NAME, SCANNER.kind, findings, len(layers), "it opened no layer of the image", version=version)


def _finding(result: dict[str, Any], item: dict[str, Any]) -> Finding:
    how_bad = severity(item.get("Severity", ""))
    return Finding(
        kind=FindingKind.SECRET,
        id=item["RuleID"],
        package=re.sub(r"^.*\.tar:", "", result.get("Target", "")),
        installed=f"line {item['StartLine']}" if item.get("StartLine") else "",
        fixed="",
        severity=how_bad,
        scanners=((NAME, how_bad),),
        title=item.get("Title", ""),
    )


SCANNER = Scanner(NAME, FindingKind.SECRET, "trivy", command, parse)
