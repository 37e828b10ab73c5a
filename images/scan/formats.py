"""A scan in the forms that other programs read: SARIF 2.1.0, and CycloneDX 1.6 with vulnerabilities. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from hardening.disagreement import compared
from hardening.findings import Finding, FindingKind, Outcome, Reason, ScanReport
from hardening.foundation.hashing import digest_of
from hardening.model import Enforcement, Severity

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
TRACKER = "https://security-tracker.debian.org/tracker/"
LEVELS = {
    Severity.CRITICAL: "error", Severity.HIGH: "error", Severity.MEDIUM: "warning", Severity.UNKNOWN: "warning",
}  # fmt: skip
# OpenVEX's words in CycloneDX's; of what an adversary cannot control CycloneDX has none.
JUSTIFICATIONS: dict[str, str] = {
    "component_not_present": "code_not_present",
    "vulnerable_code_not_present": "code_not_present",
    "vulnerable_code_not_in_execute_path": "code_not_reachable",
    "inline_mitigations_already_exist": "protected_by_mitigating_control",
}
# GitHub's code scanning sorts by this property of a rule: over 9.0 is critical, 7.0 high, 4.0 medium.
SCORES = {Severity.CRITICAL: "9.5", Severity.HIGH: "8.0", Severity.MEDIUM: "5.5", Severity.LOW: "2.0"}


@dataclass(frozen=True)
class ScannedImage:
    """An image and what is known of it after a scan: `sbom` is CycloneDX, `waived` says of (id, package) by what.

    `justified`: of waived ones that do not affect the image, why, in OpenVEX's words. `reasons`: the gate's.
    """

    ref: str
    digest: str
    reports: tuple[ScanReport, ...]
    findings: tuple[Finding, ...]
    sbom: bytes = b"{}"
    waived: Mapping[tuple[str, str], str] = field(default_factory=dict)
    justified: Mapping[tuple[str, str], str] = field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()


def sarif(image: ScannedImage) -> str:
    """SARIF 2.1.0: one run, a rule for each id, a result for each finding; what did not evaluate is a notification."""
    rules = {one.id: one for one in reversed(image.findings)}
    order = {id_: number for number, id_ in enumerate(sorted(rules))}
    driver = {"name": "Goldsmith", "rules": [_rule(rules[id_]) for id_ in sorted(rules)]}
    run = {
        "tool": {"driver": driver},
        "invocations": [_invocation(image)],
        "automationDetails": {"id": f"goldsmith/{image.ref}"},
        "results": [_result(image, one, order[one.id]) for one in image.findings],
        "columnKind": "utf16CodeUnits",
        "properties": {"image": image.ref, "digest": image.digest},
    }
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _rule(finding: Finding) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "id": finding.id,
        "shortDescription": {"text": finding.title or finding.id},
        "properties": {"tags": ["security", str(finding.kind)]},
    }
    if finding.id.startswith("CVE-"):
        rule["helpUri"] = TRACKER + finding.id
    if finding.severity in SCORES:
        rule["properties"]["security-severity"] = SCORES[finding.severity]
    return rule


def _result(image: ScannedImage, finding: Finding, rule: int) -> dict[str, Any]:
    """One result; its fingerprint stays the same from scan to scan."""
    logical = {"name": finding.package, "kind": "package"}
    physical = {"artifactLocation": {"uri": _place(finding)}, "region": {"startLine": 1}}
    result: dict[str, Any] = {
        "ruleId": finding.id,
        "ruleIndex": rule,
        "level": LEVELS.get(finding.severity, "note"),
        "message": {"text": _message(finding)},
        "locations": [{"physicalLocation": physical, "logicalLocations": [logical]}],
        "partialFingerprints": {"goldsmith/v1": digest_of([str(finding.kind), finding.id, finding.package])},
        "properties": {"severity": str(finding.severity), "scanners": {name: str(s) for name, s in finding.scanners}},
    }
    if waived := image.waived.get((finding.id, finding.package)):
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": waived}]
    return result


def _place(finding: Finding) -> str:
    """A path in the image, as a relative URI: of what has none, the file that says that the package is there."""
    path = finding.package if finding.package.startswith("/") else "/var/lib/dpkg/status"
    return quote(path.lstrip("/") or ".")


def _message(finding: Finding) -> str:
    said = ", ".join(f"{name}: {severity}" for name, severity in finding.scanners)
    about = f"{finding.package} {finding.installed}".strip()
    fixed = f"; fixed in {finding.fixed}" if finding.fixed else ""
    return f"{finding.id} in {about} ({said}){fixed}"


def _invocation(image: ScannedImage) -> dict[str, Any]:
    """Whether scanners of vulnerabilities looked, and what else than a finding refuses the image: no results alone
    would look like a clean image.
    """
    told = [
        {
            "level": "error" if report.outcome is Outcome.ERROR else "warning",
            "message": {"text": f"{report.scanner} did not evaluate this image: {report.reason}"},
            "descriptor": {"id": report.scanner},
        }
        for report in image.reports
        if report.outcome in (Outcome.ERROR, Outcome.NOT_EVALUATED)
    ]
    found = {one.id for one in image.findings}
    told += [
        {
            "level": "error",
            "message": {"text": f"refused by {reason.rule}: {reason.what}"},
            "descriptor": {"id": reason.rule},
        }
        for reason in image.reasons
        if reason.enforcement is Enforcement.ENFORCE and not reason.waived_by and reason.rule not in found
    ]
    well = bool(compared(image.reports)) and all(report.outcome is not Outcome.ERROR for report in image.reports)
    return {"executionSuccessful": well, "toolExecutionNotifications": told}


def cyclonedx(image: ScannedImage) -> str:
    """The SBOM of the scan with its vulnerabilities (CycloneDX 1.6), without secrets and misconfigurations."""
    document: dict[str, Any] = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, **json.loads(image.sbom)}
    subject = document.setdefault("metadata", {}).setdefault("component", {"type": "container", "name": image.ref})
    subject.setdefault("bom-ref", image.digest or image.ref)
    refs: dict[tuple[str, str], list[str]] = {}
    for component in document.get("components", []):
        refs.setdefault((component["name"], component.get("version", "")), []).append(component["bom-ref"])
    found = [one for one in image.findings if one.kind is FindingKind.VULNERABILITY]
    document["vulnerabilities"] = [_vulnerability(image, one, refs, subject["bom-ref"]) for one in found]
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _vulnerability(
    image: ScannedImage, finding: Finding, refs: Mapping[tuple[str, str], list[str]], subject: str
) -> dict[str, Any]:
    """One vulnerability in one package: each scanner's word, what helps, and the components that have it."""
    affected = [
        {"ref": ref, "versions": [{"version": version, "status": "affected"}]}
        for version in finding.versions
        for ref in refs.get((finding.package, version), [])
    ]
    one: dict[str, Any] = {
        "bom-ref": digest_of([finding.id, finding.package]),
        "id": finding.id,
        "ratings": [{"source": {"name": name}, "severity": str(s)} for name, s in finding.scanners],
        "affects": affected or [{"ref": subject}],
        "properties": [{"name": "goldsmith:package", "value": finding.package}],
    }
    if finding.id.startswith("CVE-"):
        one["source"] = {"name": "Debian Security Tracker", "url": TRACKER + finding.id}
    if finding.title:
        one["description"] = finding.title
    if finding.fixed:
        one["recommendation"] = f"update {finding.package} to {finding.fixed}"
    if waived := image.waived.get((finding.id, finding.package)):
        one["analysis"] = {"state": "exploitable", "response": ["will_not_fix"], "detail": waived}
    if waived and (why := image.justified.get((finding.id, finding.package))):
        one["analysis"] = {"state": "not_affected", "detail": f"{waived} ({why})"}
        if why in JUSTIFICATIONS:
            one["analysis"]["justification"] = JUSTIFICATIONS[why]
    return one
