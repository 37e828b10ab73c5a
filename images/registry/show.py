"""Everything about a published image, from the registry alone: what the index, its channels and its documents say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import Any

from hardening.findings import Outcome, Reason
from images.registry.client import RegistryClient
from images.registry.release_trust import proved
from images.registry.releases import channels_of, reference_of, release_at
from images.release import lifecycle
from images.release.attested import ShownAttestation, proof_or_why, shown_attestations
from images.release.store import ShownRelease, as_shown
from images.trust.evidence import Evidence, evidence_of


class ShownImage(ShownRelease):
    """A release as the registry knows it. `verdict` is `allowed`, `refused`, or `unknown`, as is all that it says of
    itself, where `untrusted` says why none of it is believed.
    """

    channels: tuple[str, ...]
    tag: str
    verdict: str
    judged_at: datetime | None
    reasons: tuple[Reason, ...]
    findings: dict[str, int]
    findings_count: int
    scanners: dict[str, Outcome]
    checks: dict[str, int]
    packages_count: int
    size_bytes: int
    untrusted: str
    attestations: tuple[ShownAttestation, ...]


def show(registry: RegistryClient, ref: str, now: datetime, known: Collection[str] = ()) -> ShownImage:
    """What the registry says of `ref`: a definition's name, `name:tag`, `name@digest`, or a full reference.

    Raises NotFoundError with the nearest tags, or names out of `known`; ContentError when it is no release of ours.
    """
    reference = reference_of(registry, ref, known)
    release = release_at(registry, reference)
    proof, untrusted = proof_or_why(lambda: proved(registry, release, now))
    found = evidence_of(proof.said)
    tags = sorted(tag for tag, digest in channels_of(registry, release.repository).items() if digest == release.digest)
    return ShownImage(
        **as_shown(release, reference, now),
        channels=tuple(tags),
        tag=lifecycle.dated_tag(release),
        untrusted=untrusted,
        attestations=shown_attestations(proof),
        **_judged(found),
        **_built(found),
    )


def _judged(found: Evidence) -> dict[str, Any]:
    verdict, scan = found.verdict, found.scan
    findings = scan.findings if scan else ()
    return {
        "verdict": ("allowed" if verdict.allowed else "refused") if verdict else "unknown",
        "judged_at": verdict.judged_at if verdict else None,
        "reasons": verdict.reasons if verdict else (),
        "findings": dict(Counter(finding.severity.value for finding in findings)),
        "findings_count": len(findings),
        "scanners": {report.scanner: report.outcome for report in (scan.reports if scan else ())},
        "checks": dict(Counter(check.outcome.value for check in found.checks)),
    }


def _built(found: Evidence) -> dict[str, Any]:
    artifact = found.artifact
    components = (found.sbom or {}).get("components", ())
    purls = [one.get("purl") for one in components if isinstance(one, dict)] if isinstance(components, list) else []
    listed = sum(1 for purl in purls if str(purl).startswith("pkg:deb/"))
    return {
        "packages_count": len(artifact.packages) if artifact else listed,
        "size_bytes": artifact.size_bytes if artifact else 0,
    }
