"""systemd-analyze: how exposed the services are that a machine starts at boot and keeps running.

Its `--json=short` says what each setting adds but not the sum, and does not name the unit; its text does both.
"""

from __future__ import annotations

import re

from hardening.findings import Finding, FindingKind, ScanReport
from hardening.model import Kind, Severity
from images.scan.base import ScanInputs, Scanner, ScanTarget, finding, report

NAME = "systemd-analyze"
EXPOSED = {"DANGEROUS": Severity.HIGH, "UNSAFE": Severity.MEDIUM, "EXPOSED": Severity.LOW}  # systemd's words, from 7.0


def command(target: ScanTarget, inputs: ScanInputs) -> list[str]:
    """The argv: units of the tree by its own unit files and drop-ins; the host's systemd is not asked."""
    return [
        "systemd-analyze", "security", "--offline=yes", f"--root={target.tree}", "--no-pager", "--", *inputs.services
    ]  # fmt: skip


def lacks(_target: ScanTarget, inputs: ScanInputs) -> str:
    """Why there is nothing to analyse; empty when there is. A machine without a service was not read right."""
    return "" if inputs.services else "no service of the tree starts at boot"


def parse(stdout: str, _target: ScanTarget, inputs: ScanInputs) -> ScanReport:
    """A finding for each service that systemd itself calls exposed or worse, with its number (10 is worst)."""
    seen = re.findall(r"^\S+ Overall exposure level for (\S+): ([0-9.]+) ([A-Z]+)", stdout, re.M)
    findings = [_finding(unit, number, word) for unit, number, word in seen if word in EXPOSED]
    nothing, expected = "it analysed no service", len(inputs.services)
    return report(NAME, SCANNER.kind, findings, len(seen), nothing, expected=expected, things="services")


def _finding(unit: str, number: str, word: str) -> Finding:
    title = f"exposure {number} of 10 ({word}): the service may do more than it needs to"
    return finding(
        NAME, SCANNER.kind, f"exposure-{unit}", unit, EXPOSED[word], installed=f"{number} of 10", title=title
    )


SCANNER = Scanner(
    NAME,
    FindingKind.MISCONFIGURATION,
    "systemd-analyze",
    command,
    parse,
    lacks=lacks,
    kinds=(Kind.MACHINE,),
    environment=lambda _target, _inputs: {"LC_ALL": "C"},
)
