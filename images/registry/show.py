"""Everything about a published image, from the registry alone: what the index, its channels and its documents say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from hardening.findings import CheckResult, Outcome, Reason, Verdict
from images import documents
from images.artifact import Artifact, Release
from images.documents import Value, from_bytes
from images.ledger import ScanRecord
from images.registry.answers import Listed, loaded
from images.registry.client import RegistryClient
from images.registry.referrers import attached, latest, read
from images.registry.releases import channels_of, reference_of, release_at
from images.release import lifecycle
from images.release.store import ShownRelease, as_shown


class Attached(BaseModel):
    """A document attached to the release or to its content."""

    model_config = ConfigDict(frozen=True)

    artifact_type: str
    digest: str
    of: str


class ShownImage(ShownRelease):
    """A release as the registry knows it. `verdict` is `allowed`, `refused`, or `unknown` where none is attached."""

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
    documents: tuple[Attached, ...]


def show(registry: RegistryClient, ref: str, prefix: str, now: datetime, known: Collection[str] = ()) -> ShownImage:
    """What the registry says of `ref`: a definition's name, `name:tag`, `name@digest`, or a full reference.

    Raises NotFoundError with the nearest tags, or names out of `known`; ContentError when it is no release of ours.
    """
    reference = reference_of(registry, ref, known)
    release = release_at(registry, reference, prefix)
    found = AttachedDocuments(registry, release, prefix)
    tags = sorted(tag for tag, digest in channels_of(registry, release.repository).items() if digest == release.digest)
    return ShownImage(
        **as_shown(release, reference, now),
        channels=tuple(tags),
        tag=lifecycle.dated_tag(release),
        documents=(*_listed(found.of_release, "release"), *_listed(found.of_content, "content")),
        **_judged(found),
        **_built(found),
    )


class AttachedDocuments:
    """The documents attached to one release and its content, read when they are asked for."""

    def __init__(self, registry: RegistryClient, release: Release, prefix: str) -> None:
        self._registry, self._repository = registry, release.repository
        self.of_release = attached(registry, release.repository, release.digest)
        self.of_content = attached(registry, release.repository, release.content)
        self._inputs = {f"{prefix}input-digest": release.input_digest}

    @property
    def verdict(self) -> Verdict | None:
        """The gate's answer on the release's day."""
        return self._read(Verdict, latest(self.of_release, documents.VERDICT))

    @property
    def scan(self) -> ScanRecord | None:
        """What the scanners said on the release's day."""
        said = self._read(ScanRecord, latest(self.of_release, documents.SCAN))
        return said and ScanRecord(said.reports, said.findings)  # what a registry says spares no scan of ours

    @property
    def checks(self) -> tuple[CheckResult, ...]:
        """The results of the controls' checks."""
        listed = latest(self.of_content, documents.CHECKS, **self._inputs)
        return self._read(tuple[CheckResult, ...], listed) or ()

    @property
    def artifact(self) -> Artifact | None:
        """The provenance: the artifact with all its inputs."""
        return self._read(Artifact, latest(self.of_content, documents.PROVENANCE, **self._inputs))

    @property
    def sbom(self) -> dict[str, Any]:
        """The SBOM (CycloneDX)."""
        listed = latest(self.of_content, documents.SBOM)
        return loaded(read(self._registry, self._repository, listed), "the attached SBOM") if listed else {}

    def _read(self, kind: type[Value], listed: Listed | None) -> Value | None:
        return from_bytes(kind, read(self._registry, self._repository, listed)) if listed else None


def _judged(found: AttachedDocuments) -> dict[str, Any]:
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


def _built(found: AttachedDocuments) -> dict[str, Any]:
    artifact = found.artifact
    components = found.sbom.get("components", ())
    purls = [one.get("purl") for one in components if isinstance(one, dict)] if isinstance(components, list) else []
    listed = sum(1 for purl in purls if str(purl).startswith("pkg:deb/"))
    return {
        "packages_count": len(artifact.packages) if artifact else listed,
        "size_bytes": artifact.size_bytes if artifact else 0,
    }


def _listed(referrers: tuple[Listed, ...], of: str) -> tuple[Attached, ...]:
    return tuple(Attached(artifact_type=r.artifact_type, digest=r.digest, of=of) for r in referrers)
