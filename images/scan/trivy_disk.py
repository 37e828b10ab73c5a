"""trivy, vulnerabilities: over the raw disk of a machine, its partitions and file systems: that is what ships.

It reads raw disks only, not qcow2, and of a GPT only partitions with certain names (`Linux`, `primary`, `0` to `3`):
of others it says nothing and ends with status 0. So the packages that it lists are the only proof that it looked.
Source: `requiredDiskName` in trivy's pkg/fanal/walker/vm.go.
"""

from __future__ import annotations

from hardening.findings import FindingKind, ScanReport
from hardening.model import Kind
from images.scan import trivy
from images.scan.base import ScanInputs, Scanner, ScanTarget

NAME = "trivy-disk"


def command(target: ScanTarget, inputs: ScanInputs) -> list[str]:
    """The argv over the raw disk."""
    cache = inputs.feeds[trivy.NAME].directory
    return ["trivy", "vm", str(target.disk), "--scanners=vuln", f"--cache-dir={cache}", *trivy.QUIET, "--list-all-pkgs"]


def lacks(target: ScanTarget, inputs: ScanInputs) -> str:
    """Why trivy cannot evaluate the disk; empty when it can."""
    return trivy.lacks(target, inputs) or ("" if target.disk else "the raw disk is not there")


def parse(stdout: str, target: ScanTarget, inputs: ScanInputs) -> ScanReport:
    """Findings by binary package, as of the tree."""
    return trivy.vulnerabilities(NAME, stdout, target, inputs)


SCANNER = Scanner(
    NAME, FindingKind.VULNERABILITY, "trivy", command, parse, lacks=lacks, kinds=(Kind.MACHINE,), feed="trivy"
)
