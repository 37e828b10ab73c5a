"""trivy, secrets: a machine's tree; every layer of a container, so that what a later one deleted is found too."""

from __future__ import annotations

import json
import re
from typing import Any

from hardening.findings import Finding, FindingKind, ScanReport
from hardening.model import Kind
from images.scan.base import ScanInputs, Scanner, ScanTarget, report, severity
from images.scan.trivy import base_command, packages_seen, results

NAME = "trivy-secret"
NO_LAYER = "it opened no layer of the image"


def command(target: ScanTarget, inputs: ScanInputs) -> list[str]:
    """The argv: files of the layers and the image's configuration; of a machine, files of the tree."""
    secrets = [*base_command(target, inputs.work / NAME, "secret"), "--secret-config="]
    if target.kind is Kind.MACHINE:
        return [*secrets, "--list-all-pkgs"]
    return [*secrets, "--image-config-scanners=secret"]


def parse(stdout: str, target: ScanTarget, _inputs: ScanInputs) -> ScanReport:
    """Findings by file. Evaluated are the layers that the report proves it opened; of a machine, the packages."""
    found, version = results(stdout)
    findings = [_finding(result, item) for result in found for item in result.get("Secrets") or []]
    if target.kind is Kind.MACHINE:
        seen, nothing, expected = packages_seen(found), "it recognised nothing in the tree", len(target.packages)
    else:
        seen, nothing, expected = len(json.loads(stdout).get("Metadata", {}).get("DiffIDs") or []), NO_LAYER, 0
    return report(NAME, SCANNER.kind, findings, seen, nothing, expected=expected, version=version)


def _finding(result: dict[str, Any], item: dict[str, Any]) -> Finding:
    how_bad = severity(item.get("Severity", ""))
    return Finding(
        kind=FindingKind.SECRET,
        id=item["RuleID"],
        package="/" + re.sub(r"^.*\.tar:", "", result.get("Target", "")).lstrip("/"),
        installed=f"line {item['StartLine']}" if item.get("StartLine") else "",
        fixed="",
        severity=how_bad,
        scanners=((NAME, how_bad),),
        title=item.get("Title", ""),
    )


SCANNER = Scanner(NAME, FindingKind.SECRET, "trivy", command, parse)
