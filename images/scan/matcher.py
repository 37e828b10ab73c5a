"""Our own matcher: the image's packages against Debian's security tracker. A pure function, and no program.

It knows what debsecan's data leaves out: why there is no fix (no-dsa, end of life), and what is undetermined.
"""

from __future__ import annotations

from hardening.disagreement import LANGUAGES
from hardening.findings import Finding, FindingKind, ScanReport
from images.advisories import UNDETERMINED, Advisory, match
from images.artifact import Package
from images.packages import debian
from images.scan.base import ScanInputs, Scanner, ScanTarget, finding, report

NAME, DATA = "matcher", "tracker"
NOTHING = "the image's dpkg status lists no package"


def lacks(_target: ScanTarget, inputs: ScanInputs) -> str:
    """Why the matcher cannot evaluate this image; empty when it can."""
    if not inputs.suite:
        return "the image names no Debian suite in os-release"
    return inputs.missing.get(DATA, "it has no data") if DATA not in inputs.feeds else ""


def parse(_stdout: str, target: ScanTarget, inputs: ScanInputs) -> ScanReport:
    """The findings over the image's own dpkg status by `inputs.advisories`; it evaluated the packages that it lists."""
    packages = tuple(debian.installed(inputs.status))
    findings = [
        as_finding(package, one) for package, found in match(packages, inputs.advisories).items() for one in found
    ]
    feed, expected = inputs.feeds.get(DATA), len(target.packages)
    return report(NAME, SCANNER.kind, findings, len(packages), NOTHING, feed=feed, expected=expected)


def as_finding(package: Package, said: Advisory) -> Finding:
    """What an advisory means for a package that it concerns.

    Of a signed copy it says so: other judges look for advisories over the copy, and there are none.
    """
    copied = package.source and package.source != said.source
    told = f"{said.text} ({package.source} is a signed copy of {said.source})".strip() if copied else said.text
    return finding(
        NAME, SCANNER.kind, said.id, package.name, said.word, installed=package.version, fixed=said.fixed,
        title=told, source="debian", ecosystem="deb", status=_status(said),
    )  # fmt: skip


def _status(said: Advisory) -> str:
    """What else the tracker says of it, in a word that other scanners' `ignores` may name."""
    if said.status == UNDETERMINED:
        return UNDETERMINED
    return (
        said.urgency
        if said.urgency in ("unimportant", "end-of-life")
        else said.note.partition(":")[0].partition(",")[0]
    )


SCANNER = Scanner(
    NAME, FindingKind.VULNERABILITY, "", lambda _target, _inputs: [], parse, lacks=lacks, feed=DATA,
    ignores=(LANGUAGES,),
)  # fmt: skip
