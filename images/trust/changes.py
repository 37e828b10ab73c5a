"""How long a release is valid, and what changed in it since the previous one. Pure.

The dates are in OpenEoX (https://docs.oasis-open.org/openeox), the standard for ends of life. Its `end_of_sales`, the
last day to take up a product, is the day from which a release's end is announced and a newer one is to be taken.

For a changelog there is no predicate of its own. An attribute report (in-toto's SCAI) says of parts of an artifact what
holds of them, under which conditions: what was updated, from which version. CycloneDX has release notes, but a second
bill of materials of the same image would be taken for the first; in-toto's `link` and `release` have no place for it.
What a vulnerability scanner can use of it, `fixed`, stands in the OpenVEX document too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hardening.findings import Finding
from images.artifact import Artifact, Package, Release
from images.trust.statement import CHANGELOG, LIFECYCLE, Attestation, digest_set, rfc3339
from images.trust.vex import PreviousRelease, product, vulnerabilities

FOLLOWS = "RELEASED_AFTER"
ADDED, REMOVED, UPDATED = "PACKAGE_ADDED", "PACKAGE_REMOVED", "PACKAGE_UPDATED"
CLOSED, OPENED = "VULNERABILITY_CLOSED", "VULNERABILITY_OPENED"


def lifecycle_attestation(release: Release) -> Attestation:
    """The dates of a release."""
    expires = rfc3339(release.expires_at)
    return Attestation(
        LIFECYCLE,
        {
            "$schema": LIFECYCLE,
            "general_availability": rfc3339(release.published_at),
            "end_of_sales": rfc3339(release.warn_at),
            "end_of_security_support": expires,
            "end_of_life": expires,
            "last_updated": rfc3339(release.published_at),
        },
    )


def changelog(
    previous: PreviousRelease, artifact: Artifact, findings: Sequence[Finding], closed: Sequence[Finding]
) -> Attestation:
    """What changed since the release before: packages old → new, vulnerabilities closed and opened."""
    before = previous.release
    uri = product(before, previous.artifact, before.digest)
    follows = {"name": before.name, "uri": uri, "digest": digest_set(before.digest)}
    known = {(finding.id, finding.package) for finding in vulnerabilities(previous.findings)}
    opened = [one for one in vulnerabilities(findings) if (one.id, one.package) not in known]
    attributes = [
        {"attribute": FOLLOWS, "target": follows},
        *_packages(previous.artifact, artifact),
        *(_vulnerability(CLOSED, finding) for finding in closed),
        *(_vulnerability(OPENED, finding) for finding in opened),
    ]
    return Attestation(CHANGELOG, {"attributes": attributes})


def _packages(old: Artifact, new: Artifact) -> Iterator[dict[str, Any]]:
    before = {(package.name, package.architecture): package for package in old.packages}
    after = {(package.name, package.architecture): package for package in new.packages}
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        if was and now and was.version != now.version:
            versions = {"from": was.version, "to": now.version}
            yield {"attribute": UPDATED, "target": _target(now), "conditions": versions}
        elif now and not was:
            yield {"attribute": ADDED, "target": _target(now)}
        elif was and not now:
            yield {"attribute": REMOVED, "target": _target(was)}


def _target(package: Package) -> dict[str, Any]:
    digest = {"digest": {"sha256": package.sha256}} if package.sha256 else {}
    return {"name": package.name, "uri": package.purl, **digest}


def _vulnerability(attribute: str, finding: Finding) -> dict[str, Any]:
    about = {"package": finding.package, "version": finding.installed, "severity": finding.severity.value}
    where = {"name": finding.id, "uri": f"https://osv.dev/vulnerability/{finding.id}"}
    return {"attribute": attribute, "target": where, "conditions": about}
