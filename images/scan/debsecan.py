"""debsecan: Debian's own analyser, by the security tracker's data, over the image's dpkg status."""

from __future__ import annotations

import re
from itertools import takewhile

from hardening.disagreement import LANGUAGES, SIGNED_COPIES
from hardening.findings import Finding, FindingKind, Outcome, ScanReport
from images.packages import debian
from images.scan.base import NO_PACKAGE, ScanInputs, Scanner, ScanTarget, finding, lacks_suite, report, unevaluated

NAME, STATUS = "debsecan", "status"


def command(_target: ScanTarget, inputs: ScanInputs) -> list[str]:
    """The argv. The host's own configuration and whitelist are kept out: they would silence findings unseen."""
    return [
        "debsecan",
        "--config=/dev/null",
        "--whitelist=",
        f"--source={inputs.feeds[NAME].directory.resolve().as_uri()}/",
        f"--suite={inputs.suite}",
        f"--status={inputs.work / STATUS}",
        "--format=detail",
    ]


def lacks(target: ScanTarget, inputs: ScanInputs) -> str:
    """What of this image debsecan cannot evaluate it without; empty when all is there."""
    return lacks_suite(target, inputs) or ("" if "status:" in inputs.status.lower() else NO_PACKAGE)


def files(_target: ScanTarget, inputs: ScanInputs) -> dict[str, str]:
    """The image's dpkg status, where what has its files there is `installed`: debsecan passes over all other states.

    It passes over the source package, too, where that field's name is not written as Debian does.
    """
    there = rf"(?im)^Status:(?!.*(?:{'|'.join(debian.GONE)})[ \t]*$).*$"
    text = re.sub(there, "Status: install ok installed", inputs.status)
    return {STATUS: re.sub(r"(?im)^(Package|Source|Version):", lambda name: f"{name[1].title()}:", text)}


def parse(stdout: str, target: ScanTarget, inputs: ScanInputs) -> ScanReport:
    """The findings of `--format=detail`. What it evaluated is the status file's installed packages."""
    blocks = [block for block in re.split(r"\n(?=(?:CVE|TEMP)-)", "\n" + stdout) if block.strip()]
    found = [_finding(block.strip("\n")) for block in blocks]
    if None in found:
        # An answer we do not understand is no evaluation.
        return unevaluated(SCANNER, Outcome.ERROR, f"unknown output: {blocks[found.index(None)].strip()[:80]!r}")
    findings = [one for one in found if one]
    evaluated, expected = len(debian.installed(inputs.status)), len(target.packages)
    return report(NAME, SCANNER.kind, findings, evaluated, NO_PACKAGE, feed=inputs.feeds.get(NAME), expected=expected)


_HEAD = re.compile(r"(?P<id>(?:CVE|TEMP)-\S+)(?: \((?P<notes>[^)]*)\))?$")


def _finding(block: str) -> Finding | None:
    head, *lines = block.splitlines()
    match = _HEAD.match(head)
    package = re.search(r"^  installed: (\S+) (\S+)$", block, re.M)
    if not match or not package:
        return None
    notes = match["notes"] or ""
    urgency = re.search(r"(\w+) urgency", notes)
    fixes = re.findall(r"^  fixed (?:in unstable|on branch): +\S+ (\S+)", block, re.M)
    return finding(
        NAME, SCANNER.kind, match["id"], package[1], urgency[1] if urgency else "", installed=package[2],
        fixed=_nearest(package[2], fixes) if "fixed" in notes else "", title=lines[0].strip() if lines else "",
        source="debian", ecosystem="deb",
    )  # fmt: skip


def _nearest(version: str, fixes: list[str]) -> str:
    """Of the fixed versions in all of Debian, the one that looks most like the installed one: its own suite's."""

    def alike(fix: str) -> int:
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(version, fix, strict=False)))

    return max(fixes, key=alike, default="")


SCANNER = Scanner(
    NAME, FindingKind.VULNERABILITY, "debsecan", command, parse, lacks=lacks,
    feed=NAME, ignores=(LANGUAGES, SIGNED_COPIES, "undetermined"), files=files,
)  # fmt: skip
