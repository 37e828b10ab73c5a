"""osv-scanner: vulnerabilities of a container's packages, by OSV's data in `feeds.osv_scanner`.

It is a program of its own that no package index of ours has. Where it is not installed it is not evaluated. The sample
that its test reads was written by its documented form (version 2, `scan image --format=json`) and not recorded from a
run of ours. It reads images only as the archives that `docker save` writes, so one is made of the layout.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hardening.findings import Finding, FindingKind, ScanReport
from hardening.model import Kind
from images.packages import debian
from images.scan.base import NOT_RECOGNISED, ScanInputs, Scanner, ScanTarget, finding, other_system, report

NAME = "osv-scanner"
CONFIG = "osv-scanner.toml"
ARCHIVE = "image.tar"
CRITICAL, HIGH, MEDIUM, LOW = 9.0, 7.0, 4.0, 0.1  # CVSS v3.1, section 5: qualitative severity rating scale


def command(_target: ScanTarget, inputs: ScanInputs) -> list[str]:
    """The argv; every package is listed, which proves that it looked, and no vulnerability is hidden as unimportant."""
    return [
        "osv-scanner", "scan", "image", f"--config={inputs.work / CONFIG}", "--format=json", "--all-packages",
        "--all-vulns", "--offline-vulnerabilities", "--archive", str(inputs.work / ARCHIVE),
    ]  # fmt: skip


def parse(stdout: str, target: ScanTarget, inputs: ScanInputs) -> ScanReport:
    """Findings by binary package; evaluated is the number of Debian's packages that it lists."""
    found = [package for result in json.loads(stdout)["results"] for package in result["packages"]]
    systems = [entry["package"]["ecosystem"].lower() for entry in found if _is_debian(entry["package"])]
    taken = (other_system(inputs, one.partition(":")[0], one.partition(":")[2]) for one in sorted({*systems}))
    other = next(filter(None, taken), "")
    return report(
        NAME, SCANNER.kind, [one for entry in found for one in _findings(entry)], 0 if other else len(systems),
        other or NOT_RECOGNISED, feed=inputs.feeds.get(NAME),
        expected=len(target.packages) or len(debian.installed(inputs.status)),
    )  # fmt: skip


TYPES = {
    "crates.io": "cargo", "Go": "golang", "Maven": "maven", "npm": "npm", "NuGet": "nuget", "Packagist": "composer",
    "PyPI": "pypi", "RubyGems": "gem",
}  # fmt: skip
"""OSV's ecosystems as package URLs name them."""


def lists(stdout: str) -> list[str]:
    """The URLs of the packages of languages that it looked at."""
    found = (entry["package"] for result in json.loads(stdout)["results"] for entry in result["packages"])
    return [
        f"pkg:{TYPES[one['ecosystem']]}/{one['name'].replace(':', '/')}" for one in found if one["ecosystem"] in TYPES
    ]


def _is_debian(package: dict[str, Any]) -> bool:
    return bool(package["ecosystem"].split(":")[0] == "Debian")


def _findings(entry: dict[str, Any]) -> Iterator[Finding]:
    """One finding for each vulnerability, under its CVE where it has one."""
    package, scores = entry["package"], {}
    for group in entry.get("groups") or []:
        scores.update(dict.fromkeys(group.get("ids") or [], group.get("max_severity") or ""))
    for one in entry.get("vulnerabilities") or []:
        affected = _affected(one, package)
        urgency = affected.get("ecosystem_specific", {}).get("urgency", "")
        yield finding(
            NAME, SCANNER.kind, _cve(one), package.get("os_package_name") or package["name"],
            severity_of(scores.get(one["id"], "")), installed=package["version"], fixed=_fixed(affected),
            title=one.get("summary", ""), source="osv", ecosystem="deb" if _is_debian(package) else "other",
            status="unimportant" if urgency == "unimportant" else "",
        )  # fmt: skip


def _affected(vulnerability: dict[str, Any], package: dict[str, Any]) -> dict[str, Any]:
    """What OSV says of that package in that release."""
    named = (package["name"], package["ecosystem"])
    every = vulnerability.get("affected") or []
    return next((one for one in every if (one["package"]["name"], one["package"]["ecosystem"]) == named), {})


def _fixed(affected: dict[str, Any]) -> str:
    events = [event for one in affected.get("ranges") or [] for event in one.get("events") or []]
    return " | ".join(sorted({event["fixed"] for event in events if "fixed" in event}))


def _cve(vulnerability: dict[str, Any]) -> str:
    names = [vulnerability["id"].removeprefix("DEBIAN-")]
    names += [*(vulnerability.get("aliases") or []), *(vulnerability.get("upstream") or [])]
    return str(next((name for name in names if name.startswith("CVE-")), names[0]))


def severity_of(score: str) -> str:
    """The word for a CVSS base score; empty where there is none."""
    limits = ((CRITICAL, "critical"), (HIGH, "high"), (MEDIUM, "medium"), (LOW, "low"))
    try:
        return next((word for least, word in limits if float(score) >= least), "")
    except ValueError:
        return ""


SCANNER = Scanner(
    NAME,
    FindingKind.VULNERABILITY,
    "osv-scanner",
    command,
    parse,
    feed=NAME,
    kinds=(Kind.CONTAINER,),
    ok=(0, 1),  # 1: it found vulnerabilities
    files=lambda _target, _inputs: {CONFIG: ""},
    environment=lambda _target, inputs: {"OSV_SCANNER_LOCAL_DB_CACHE_DIRECTORY": str(inputs.feeds[NAME].directory)},
    archive=ARCHIVE,
    lists=lists,
)
