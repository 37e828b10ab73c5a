"""The status of each vulnerability in a release, as OpenVEX 0.2.0 (https://github.com/openvex/spec). Pure.

Goldsmith never claims that an image is not affected by what a scanner finds, which would need a proof. It knows:

- `affected`: a fixed version is out, or a waiver accepts the risk; the action says which.
- `under_investigation`: scanners say so, and there is no fixed version to go to.
- `fixed`: the release before had it, this one has another version of the package, and who had found it does no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from packageurl import PackageURL

from hardening.findings import Finding, FindingKind, Outcome, Reason, ScanReport, Verdict
from hardening.foundation.hashing import digest_of
from images.artifact import Artifact, Package, Release
from images.trust.statement import GOLDSMITH_VERSION, OPENVEX, Attestation, oci_purl, rfc3339

AUTHOR = "Goldsmith"
DOCUMENTS = "https://openvex.dev/docs/goldsmith/"


@dataclass(frozen=True)
class PreviousRelease:
    """The release before this one: its packages, and the findings of its last scan."""

    release: Release
    artifact: Artifact
    findings: tuple[Finding, ...] = ()


def vex(
    release: Release,
    artifact: Artifact,
    verdict: Verdict,
    findings: Sequence[Finding],
    closed: Iterable[Finding],
) -> Attestation | None:
    """The statements about a release; None without any, since OpenVEX knows no empty document.

    `closed` is what the release before had, and this one has not (`closed_since`). A waiver is one that the verdict
    names.
    """
    known: dict[tuple[str, str, str], list[str]] = {}
    waived = [reason for reason in verdict.reasons if reason.waived_by]
    for finding in vulnerabilities(findings):
        known.setdefault((finding.id, *_status(finding, waived)), []).extend(_purls(finding, artifact.packages))
    for finding in closed:
        if (now := versions(artifact, finding.package)) and not now & set(finding.versions):
            fixed = [package.purl for package in artifact.packages if package.name == finding.package]
            known.setdefault((finding.id, "fixed", ""), []).extend(fixed)
    if not known:
        return None
    document = {
        "@context": OPENVEX,
        "author": AUTHOR,
        "timestamp": rfc3339(verdict.judged_at),
        "version": 1,
        "tooling": f"goldsmith {GOLDSMITH_VERSION}",
        "statements": [_statement(*key, _products(release, artifact, purls)) for key, purls in sorted(known.items())],
    }
    identity = digest_of(document).removeprefix("sha256:")
    return Attestation(OPENVEX, {"@id": f"{DOCUMENTS}{identity}", **document})


def vulnerabilities(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Those of the findings that are vulnerabilities."""
    return (finding for finding in findings if finding.kind is FindingKind.VULNERABILITY)


def closed_since(
    previous: PreviousRelease | None, findings: Sequence[Finding], reports: Sequence[ScanReport]
) -> tuple[Finding, ...]:
    """The vulnerabilities of the release before that a scanner which had found them looked for now, and found no more.

    What no scanner looked for is not closed.
    """
    looked = {report.scanner for report in reports if report.outcome in (Outcome.PASS, Outcome.FAIL)}
    still = {(finding.id, finding.package) for finding in vulnerabilities(findings)}
    return tuple(
        finding
        for finding in vulnerabilities(previous.findings if previous else ())
        if (finding.id, finding.package) not in still and looked & {scanner for scanner, _ in finding.scanners}
    )


def versions(artifact: Artifact, name: str) -> set[str]:
    """The versions in which an image holds a package."""
    return {package.version for package in artifact.packages if package.name == name}


def _status(finding: Finding, waived: Sequence[Reason]) -> tuple[str, str]:
    """What is known of a finding, and what to do, or why nothing; `waived`: what the gate accepts by a waiver."""
    about = f"{finding.id} in {finding.package} {finding.installed}: "
    by = next((one.waived_by for one in waived if one.rule == finding.id and one.what.startswith(about)), "")
    if by:
        return "affected", f"accepted by the waiver {by}"
    if finding.fixed:
        return "affected", f"update {finding.package} to {finding.fixed}"
    return "under_investigation", "scanners report it, and no fixed version is published"


def _statement(vulnerability: str, status: str, told: str, products: list[dict[str, Any]]) -> dict[str, Any]:
    key = "action_statement" if status == "affected" else "status_notes"
    more = {key: told} if told else {}
    return {"vulnerability": {"name": vulnerability}, "products": products, "status": status, **more}


def _products(release: Release, artifact: Artifact, purls: Iterable[str]) -> list[dict[str, Any]]:
    """The release and its content, for tools know it by either; with the packages that it is about."""
    subcomponents = [{"@id": purl} for purl in sorted(set(purls))]
    names = dict.fromkeys(product(release, artifact, digest) for digest in (release.digest, artifact.digest))
    return [{"@id": name, "subcomponents": subcomponents} for name in names]


def product(release: Release, artifact: Artifact, digest: str) -> str:
    """The package URL of a release or of its content. A machine's image is in no registry."""
    if artifact.inputs.get("definition", {}).get("kind") == "machine":
        return PackageURL("generic", None, release.name, digest).to_string()
    return oci_purl(release.repository, digest)


def _purls(finding: Finding, packages: Sequence[Package]) -> Iterator[str]:
    """The package URLs of what a finding is about; a plain one of what no plan names, such as a library."""
    for version in finding.versions or ("",):
        known = [one.purl for one in packages if (one.name, one.version) == (finding.package, version)]
        yield from known or [PackageURL("generic", None, finding.package, version or None).to_string()]
