"""grype: vulnerabilities of a container's own layers or a machine's tree, by the database in `feeds.grype`.

It is a program of its own that no package index of ours has. Where it is not installed it is not evaluated. The sample
that its test reads was written by its documented form (grype's presenter models) and not recorded from a run of ours.

Its own JSON does not name the packages that it looked at; its CycloneDX does, and nothing of what is fixed. So it
writes both, and the second proves that it looked.
"""

from __future__ import annotations

import json
from typing import Any

from hardening.findings import Finding, FindingKind, ScanReport
from hardening.model import Kind
from images.packages import debian
from images.scan.base import NOT_RECOGNISED, ScanInputs, Scanner, ScanTarget, finding, other_system, purl_type, report

NAME = "grype"
ANSWERS = ("matches.json", "packages.json")
CONFIG = "grype.yaml"
WORDS = {"negligible": "low"}


def command(target: ScanTarget, inputs: ScanInputs) -> list[str]:
    """The argv; an empty configuration keeps the host's own out, with every match that it would ignore."""
    source = f"dir:{target.tree}" if target.kind is Kind.MACHINE else f"oci-dir:{target.layout}"
    matches, packages = (inputs.work / name for name in ANSWERS)
    return [
        "grype", source, f"--config={inputs.work / CONFIG}", f"--output=json={matches}",
        f"--output=cyclonedx-json={packages}", "--quiet",
    ]  # fmt: skip


def environment(_target: ScanTarget, inputs: ScanInputs) -> dict[str, str]:
    """No download. How old its data may be is the policy's to say, not grype's."""
    return {
        "GRYPE_DB_CACHE_DIR": str(inputs.feeds[NAME].directory),
        "GRYPE_DB_AUTO_UPDATE": "false",
        "GRYPE_DB_VALIDATE_AGE": "false",
        "GRYPE_CHECK_FOR_APP_UPDATE": "false",
    }


def parse(answers: str, target: ScanTarget, inputs: ScanInputs) -> ScanReport:
    """Findings by package; evaluated is the number of Debian's packages that it lists."""
    matches, _ = json.JSONDecoder().raw_decode(answers)
    seen = sum(purl_type(purl) == "deb" for purl in lists(answers))
    distro = matches.get("distro") or {}
    other = other_system(inputs, distro.get("name", ""), distro.get("version", ""))
    findings = [_finding(match) for match in matches["matches"]]
    version = matches["descriptor"]["version"]
    return report(
        NAME, SCANNER.kind, findings, 0 if other else seen, other if seen else NOT_RECOGNISED,
        feed=inputs.feeds.get(NAME), expected=len(target.packages) or len(debian.installed(inputs.status)),
        version=version,
    )  # fmt: skip


def lists(answers: str) -> list[str]:
    """The URLs of the packages that it looked at."""
    _, end = json.JSONDecoder().raw_decode(answers)
    return [component.get("purl", "") for component in json.loads(answers[end:]).get("components") or []]


def _finding(match: dict[str, Any]) -> Finding:
    vulnerability, artifact, fix = match["vulnerability"], match["artifact"], match["vulnerability"].get("fix") or {}
    word, state = vulnerability.get("severity", "").lower(), fix.get("state", "")
    return finding(
        NAME, SCANNER.kind, vulnerability["id"], artifact["name"], WORDS.get(word, word), installed=artifact["version"],
        fixed=" | ".join(sorted(fix.get("versions") or [])), title=vulnerability.get("description", "").split("\n")[0],
        source=(vulnerability.get("namespace") or "").partition(":")[0], ecosystem=purl_type(artifact.get("purl", "")),
        status="no-dsa" if state == "wont-fix" else "",
    )  # fmt: skip


SCANNER = Scanner(
    NAME,
    FindingKind.VULNERABILITY,
    "grype",
    command,
    parse,
    feed=NAME,
    answers=ANSWERS,
    files=lambda _target, _inputs: {CONFIG: ""},
    environment=environment,
    lists=lists,
)
