"""hadolint: the rendered Dockerfile of an image that has one."""

from __future__ import annotations

import json

from hardening.findings import Finding, FindingKind, ScanReport
from hardening.model import Kind
from images.scanners.base import ScanInputs, Scanner, ScanTarget, report, severity

NAME = "hadolint"


def command(target: ScanTarget, _inputs: ScanInputs) -> list[str]:
    """The argv; no configuration file of the host's or the checkout's may silence a rule."""
    return ["hadolint", "--no-color", "--config=/dev/null", "--format=json", str(target.dockerfile)]


def parse(stdout: str, target: ScanTarget, _inputs: ScanInputs) -> ScanReport:
    """Findings by rule; lines of the same rule are one finding that names them all."""
    lines: dict[tuple[str, str], list[int]] = {}
    titles: dict[tuple[str, str], str] = {}
    for item in json.loads(stdout):
        key = (item["code"], item["level"])
        lines.setdefault(key, []).append(item["line"])
        titles.setdefault(key, item["message"])
    findings = [
        Finding(
            kind=FindingKind.MISCONFIGURATION,
            id=code,
            package="Dockerfile",
            installed=f"line {', '.join(map(str, sorted(lines[code, level])))}",
            fixed="",
            severity=severity(level),
            scanners=((NAME, severity(level)),),
            title=titles[code, level],
        )
        for code, level in lines
    ]
    return report(NAME, SCANNER.kind, findings, 1 if target.dockerfile else 0, "there is no Dockerfile")


SCANNER = Scanner(
    NAME,
    FindingKind.MISCONFIGURATION,
    "hadolint",
    command,
    parse,
    kinds=(Kind.CONTAINER,),
    spares=lambda target: "" if target.dockerfile else "no Dockerfile made it",
    ok=(0, 1),
)
