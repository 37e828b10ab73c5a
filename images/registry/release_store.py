"""Releases in a registry: dated indexes with documents attached, and channels that are tags."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from hardening.findings import Outcome, Reason, Verdict
from hardening.foundation.console import say
from hardening.foundation.errors import ContentError, GoldsmithError, MalformedError, nearest
from hardening.foundation.hashing import DIGEST
from hardening.foundation.settings import Settings
from images.artifact import Release
from images.ledger import Ledger
from images.registry.client import RegistryClient
from images.registry.publication import RegistryPublication
from images.registry.references import split
from images.registry.release_trust import proved
from images.registry.releases import (
    READERS,
    attach_revocation,
    channels_of,
    is_of_machine,
    reference_of,
    release_at,
    release_of,
    releases_in,
    remove,
    revocations_in,
)
from images.release.attested import (
    ShownAttestation,
    attested_verdict,
    proof_or_why,
    read_in_proven,
    shown_attestations,
)
from images.release.lifecycle import dated_tag
from images.release.retention import REMOVE, KeepRule, RetirementDecision, plan
from images.release.revocations import Ask, said_by_ledger
from images.release.store import PREVIOUS, Publication, ReleaseStore, Retirement, ShownRelease, as_shown
from images.store.oci import Store
from images.trust.evidence import Evidence, evidence_of

Decision = RetirementDecision[Release]


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


@dataclass(frozen=True)
class RegistryStore(ReleaseStore):
    """The releases of container images.

    `names` are all definitions': a release that is not looked at cannot hold its base, nor be found by its digest.
    `rules` say what is kept of each beyond need.
    """

    registry: RegistryClient
    ledger: Ledger
    store: Store
    now: datetime
    actor: str
    names: Sequence[str] = ()
    rules: Mapping[str, KeepRule] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """The settings of this machine."""
        return self.registry.settings

    @property
    def place(self) -> str:
        """The registry's address."""
        return self.registry.repository("")

    @property
    def revocation(self) -> Ask:
        """What our registry tells."""
        return revocations_in(self.registry)

    def pointed(self, repository: str, channel: str) -> tuple[str, ...]:
        """The digests of the index that a tag names, and of its content."""
        found = self.registry.find(f"{repository}:{channel}")
        return (found.digest, found.content(self.settings.platform)) if found else ()

    def find(self, repository: str, digest: str) -> Release | None:
        """A release as its index and the revocations attached to it tell of it."""
        found = self.registry.find(f"{repository}@{digest}")
        return release_of(self.registry, repository, found) if found else None

    def meant(self, ref: str) -> Release:
        """The release at a reference as a person types it, or the one that has a digest."""
        reference = self._located(ref) if ref.startswith("sha256:") else reference_of(self.registry, ref, self.names)
        manifest, repository = self.registry.get(reference), split(reference)[0]
        if is_of_machine(manifest):
            name = repository.rpartition("/")[2]
            hint = f"name it as AWS knows it: {name}:candidate, {name}:stable or {name}:DATE-DIGEST6"
            raise ContentError(f"{reference} is the evidence of a machine's release, which is at AWS", hint=hint)
        return release_of(self.registry, repository, manifest)

    def evidence(self, release: Release, policy: str = "") -> Verdict:
        """The verdict that a trusted key signed. Raises UntrustedError, and RefusedError where there is none.

        The policy that the release itself names is not asked: whoever pushes writes that.
        """
        policies = ("", policy) if policy else ("",)
        return attested_verdict(release, proved(self.registry, release, self.now, *policies))

    def move(self, release: Release, channel: str, back: str) -> str:
        """Move a tag; where it came from is written first."""
        repository = release.repository
        before = next(iter(self.pointed(repository, channel)), "")
        if before != release.digest:
            if back or before:
                self.registry.tag(repository, back or before, f"{channel}{PREVIOUS}")
            self.registry.tag(repository, release.digest, channel)
        return before

    def mark_revoked(self, release: Release, reason: str) -> None:
        """Attach the revocation to release and content, and today as the end that other tools read."""
        if release.pruned_at:
            return
        index = self.registry.find(f"{release.repository}@{release.digest}")
        if index is None:
            self.ledger.revoke(release.digest, reason, self.now)
            return
        content = self.registry.find(f"{release.repository}@{release.content}")
        both = {one.digest: one for one in (content, index) if one}  # content first: it stops what is dated meanwhile
        for subject in both.values():
            ends = subject.digest == release.digest
            if attach_revocation(self.registry, release.repository, subject, reason, self.now, ends=ends):
                self.note("revoke", f"{release.repository}@{subject.digest}", reason)
        self.ledger.record_release(release_of(self.registry, release.repository, index))

    def publication(self) -> Publication:
        """What pushes a release."""
        return RegistryPublication(self.registry, self.ledger, self.store)

    def retire(self, *, apply: bool) -> list[Retirement]:
        """Decide over every release, and with `apply` remove what may go."""
        decisions = self.prune(apply=apply)
        return [Retirement.of(one.subject.name, one.subject.digest, one, apply=apply) for one in decisions]

    def prune(self, *, apply: bool) -> tuple[Decision, ...]:
        """The decisions over the releases of `names`; what else the ledger ever knew is looked at, and stays."""
        every = sorted({*self.names, *(release.name for release in self.ledger.releases())})
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(lambda name: releases_in(self.registry, name), every)
            releases = [said_by_ledger(self.ledger, release) for each in found for release in each]
            tags = list(pool.map(lambda name: channels_of(self.registry, self.repository(name)), every))
        decisions = plan(releases, self.ledger.running_digests(), _pointing(tags, releases), self.now, self.rules)
        mine = tuple(decision for decision in decisions if decision.subject.name in self.names)
        if apply:
            kept = (decision.subject for decision in decisions if decision.action is not REMOVE)
            self._remove(mine, {(release.repository, release.content) for release in kept})
        return mine

    def _remove(self, decisions: Sequence[Decision], needed: set[tuple[str, str]]) -> None:
        """Remove what is to go; `needed` are the contents, by repository, that a release which stays is over."""
        for release, why in ((one.subject, one.why) for one in decisions if one.action is REMOVE):
            remove(self.registry, release, with_content=(release.repository, release.content) not in needed)
            if self.ledger.release(release.digest) is None:
                self.ledger.record_release(release)
            self.ledger.mark_pruned(release.digest, self.now)
            self.note("prune", f"{release.repository}@{release.digest}", why)

    def read_in(self) -> tuple[tuple[Release, ...], tuple[GoldsmithError, ...]]:
        """Read each definition's releases, and of each what a trusted key signed."""
        found, errors = list[Release](), list[GoldsmithError]()
        for name in self.names:
            try:
                releases = releases_in(self.registry, name)
            except MalformedError as error:
                say(f"{name} is passed over: {error.message}")
                errors.append(error)
                continue
            oldest_first, prove = reversed(releases), partial(proved, self.registry, now=self.now)
            proven, failed = read_in_proven(self.ledger, self.store, oldest_first, prove)
            found += proven
            errors += failed
        return tuple(found), tuple(errors)

    def show(self, ref: str) -> ShownImage:
        """What the registry says of `ref`."""
        return show(self.registry, ref, self.now, self.names)

    def _located(self, digest: str) -> str:
        """The full reference of a release known only by its digest. Raises ContentError where there is none."""
        if not re.fullmatch(DIGEST, digest):
            hint = "sha256: and 64 hexadecimal digits, as ./goldsmith image.show prints it"
            raise ContentError(f"{digest} is not a digest", hint=hint)
        if known := self.ledger.release(digest):
            return f"{known.repository}@{digest}"
        for name in self.names:
            if self.registry.find(f"{self.repository(name)}@{digest}"):
                return f"{self.repository(name)}@{digest}"
        known_digests = [release.digest for release in self.ledger.releases()]
        raise ContentError(f"no release has the digest {digest}", hint=nearest(digest, known_digests[:20]))


def _pointing(tags: Sequence[dict[str, str]], releases: Sequence[Release]) -> dict[str, list[str]]:
    """Digest → the tags that hold it. A revoked release is nothing to go back to, so `-previous` does not hold it."""
    revoked = {release.digest for release in releases if release.revoked_at}
    found: dict[str, list[str]] = {}
    for tag, digest in (pair for each in tags for pair in each.items()):
        if not (tag.endswith(PREVIOUS) and digest in revoked):
            found.setdefault(digest, []).append(tag)
    return found


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
        tag=dated_tag(release),
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
