"""Our own matcher: the image's packages against Debian's security tracker. A pure function, and no program.

It knows what debsecan's data leaves out: why there is no fix (no-dsa, end of life), and what is undetermined.
"""

from __future__ import annotations

from hardening.disagreement import LANGUAGES, SIGNED_COPIES
from hardening.findings import Finding, FindingKind, ScanReport
from images.advisories import Advisory, match
from images.artifact import Package
from images.packages import debian
from images.scan.base import NO_PACKAGE, ScanInputs, Scanner, ScanTarget, finding, lacks_suite, report

NAME, DATA = "matcher", "tracker"


def parse(_stdout: str, target: ScanTarget, inputs: ScanInputs) -> ScanReport:
    """The findings over the image's own dpkg status by `inputs.advisories`; it evaluated the packages that it lists."""
    packages = tuple(debian.installed(inputs.status))
    findings = [
        as_finding(package, one) for package, found in match(packages, inputs.advisories).items() for one in found
    ]
    feed, expected = inputs.feeds.get(DATA), len(target.packages)
    return report(NAME, SCANNER.kind, findings, len(packages), NO_PACKAGE, feed=feed, expected=expected)


def as_finding(package: Package, said: Advisory) -> Finding:
    """What an advisory means for a package that it concerns.

    Of a signed copy it says so: other judges look for advisories over the copy, and there are none.
    """
    copied = package.source and package.source != said.source
    told = f"{said.text} ({package.source} is a signed copy of {said.source})".strip() if copied else said.text
    return finding(
        NAME, SCANNER.kind, said.id, package.name, said.word, installed=package.version, fixed=said.fixed,
        title=told, source="debian", ecosystem="deb", status=SIGNED_COPIES if copied else said.state,
    )  # fmt: skip


SCANNER = Scanner(
    NAME, FindingKind.VULNERABILITY, "", lambda _target, _inputs: [], parse, lacks=lacks_suite,
    feed=DATA, ignores=(LANGUAGES,),
)  # fmt: skip
