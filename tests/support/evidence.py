"""What tests of evidence share: a release, what it is over, and what was said of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hardening.findings import CheckResult, Finding, FindingKind, Outcome, Reason, ScanReport, Verdict
from hardening.model import Enforcement, Severity
from images.artifact import Artifact, Package, Release
from images.scan.flow import ScanResult
from images.scan.judge import Judgement
from images.trust import statement
from images.trust.vex import PreviousRelease

TYPES = (
    statement.PROVENANCE, statement.CYCLONEDX, statement.SPDX, statement.TEST_RESULT, statement.VULNERABILITIES,
    statement.OPENVEX, statement.VERDICT, statement.LIFECYCLE, statement.CHANGELOG,
)  # fmt: skip
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def sha(digit: str) -> str:
    """A digest."""
    return f"sha256:{digit * 64}"


RELEASE = Release(
    "web", "registry.example.com:5000/golden/web", sha("a"), sha("b"), sha("c"), "container-base", "default", NOW,
    NOW + 23 * DAY, NOW + 30 * DAY, "registry.example.com:5000/golden/debian-base", sha("d"),
)  # fmt: skip
OPENSSL = Package("openssl", "3.5.4-1~deb13u1", "amd64", "1" * 64, "openssl")
TZDATA = Package("tzdata", "2025b-4+deb13u1", "all", "2" * 64, "tzdata")
CURL = Package("curl", "8.14.1-2", "amd64", "", "curl")
ARTIFACT = Artifact(
    "web", "linux/amd64", sha("c"), sha("b"),
    {
        "definition": {"name": "web", "kind": "container", "profile": "container-base"},
        "verify": {"smoke": ["/bin/true"], "tmpfs": []},
        "platform": "linux/amd64",
        "overlay": {"files": {}, "applies": [["no-setuid", sha("e")]], "checks": [["no-setuid", sha("f")]]},
        "parent": sha("d"),
        "packages": [[OPENSSL.purl, OPENSSL.sha256]],
        "files": {"app.conf": f"{sha('9')} 644", "current.conf": "link to app.conf"},
        "sources": "Types: deb\n",
        "builder": "2, libzstd 1.5.7, mmdebstrap 1.5.6",
    },
    (CURL, OPENSSL, TZDATA), NOW - DAY, NOW - timedelta(hours=1, microseconds=5), 5_000, sha("8"),
)  # fmt: skip


def found(name: str, package: Package, fixed: str = "", *scanners: str) -> Finding:
    """A vulnerability in a package."""
    said = tuple((scanner, Severity.HIGH) for scanner in scanners or ("debsecan",))
    kind = FindingKind.VULNERABILITY
    return Finding(kind, name, package.name, package.version, fixed, Severity.HIGH, said, f"{name} in words")


WAIVED, FIXABLE, OPEN = (
    found("CVE-2026-0001", CURL),
    found("CVE-2026-0002", OPENSSL, "3.5.5-1"),
    found("CVE-2026-0003", TZDATA),
)
FINDINGS = (WAIVED, replace(FIXABLE, exploited=True, fix_known_since=NOW - DAY), OPEN)
REPORTS = (
    ScanReport(
        "debsecan", FindingKind.VULNERABILITY, Outcome.FAIL, 3, NOW - DAY, "https://tracker.example.com/", "",
        (WAIVED, FIXABLE, OPEN),
    ),
    ScanReport("openscap", FindingKind.MISCONFIGURATION, Outcome.NOT_APPLICABLE, 0, None, "", "it is for machines"),
    ScanReport("trivy", FindingKind.VULNERABILITY, Outcome.NOT_EVALUATED, 0, None, "", "feeds.trivy names no database"),
    ScanReport(
        "trivy-secret", FindingKind.SECRET, Outcome.PASS, 2, None, "built into the scanner", "", version="0.76.0"
    ),
    ScanReport("kev", FindingKind.EXPLOITATION, Outcome.PASS, 1500, NOW - DAY, "kev.json", ""),
)  # fmt: skip
CHECKS = (
    CheckResult("no-setuid", "No setuid files", Severity.HIGH, Enforcement.ENFORCE, Outcome.PASS, "0 files"),
    CheckResult("no-shell", "No shell", Severity.LOW, Enforcement.WARN, Outcome.FAIL, "/bin/sh"),
    CheckResult("sshd", "sshd is hardened", Severity.LOW, Enforcement.ENFORCE, Outcome.NOT_APPLICABLE, "no sshd"),
    CheckResult("container-starts", "It starts", Severity.HIGH, Enforcement.ENFORCE, Outcome.PASS, "healthy in 2 s"),
)
VERIFIED_BY = sha("8")  # the digest of the check that made a result: not the one of the day of the build
ACCEPTED = Reason(
    WAIVED.id, "web", Enforcement.ENFORCE, f"{WAIVED.id} in curl {CURL.version}: severity high (debsecan)", "why",
    "todo", waived_by="curl-later until 2026-12-24: no untrusted server is asked", since=NOW - DAY, deadline=NOW + DAY,
)  # fmt: skip
VERDICT = Verdict("web", "default", NOW, True, (ACCEPTED,))
OLD_OPENSSL, WGET = replace(OPENSSL, version="3.5.1-1", sha256="3" * 64), Package("wget", "1.25.0-2", "amd64", "4" * 64)
PREVIOUS = PreviousRelease(
    replace(RELEASE, digest=sha("7"), content=sha("6"), published_at=NOW - 9 * DAY),
    replace(ARTIFACT, digest=sha("6"), packages=(OLD_OPENSSL, TZDATA, WGET)),
    (found("CVE-2025-9999", OLD_OPENSSL, OPENSSL.version), found("CVE-2025-8888", OLD_OPENSSL, "", "trivy"), OPEN),
)


def judgement(sbom: bytes = b"", spdx: bytes = b"") -> Judgement:
    """What was said of the release."""
    scan = ScanResult(REPORTS, FINDINGS, sbom, "trixie", {}, spdx)
    return Judgement(VERDICT, CHECKS, scan, sha("5"), {"no-setuid": VERIFIED_BY})
