"""What a release's attestations prove, in any store: its verdict, what is shown, its lines in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pydantic import BaseModel, ConfigDict

from hardening.findings import Verdict
from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, MalformedError, RefusedError
from images.artifact import Artifact, Release
from images.ledger import Ledger, ScanRecord
from images.release.lifecycle import shown
from images.release.revocations import said_by_ledger
from images.store.oci import Store
from images.trust.evidence import evidence_of, line
from images.trust.verification import Attested, UntrustedError


class ShownAttestation(BaseModel):
    """What a trusted key attested about a release, in a line."""

    model_config = ConfigDict(frozen=True)

    predicate_type: str
    key: str
    summary: str


def shown_attestations(proof: Attested) -> tuple[ShownAttestation, ...]:
    """Each attestation, in the order in which they were attached."""
    return tuple(
        ShownAttestation(predicate_type=one.said.predicate_type, key=one.key, summary=line(one.said))
        for one in proof.verified
    )


def proof_or_why(prove: Callable[[], Attested], told: type[GoldsmithError] = UntrustedError) -> tuple[Attested, str]:
    """What a release proves, and why it proves nothing. `told`: the errors that are told, and not raised."""
    try:
        return prove(), ""
    except told as error:
        return Attested(), str(error)


def attested_verdict(release: Release, proof: Attested) -> Verdict:
    """The verdict that a trusted key signed. Raises RefusedError where there is none."""
    verdict = evidence_of(proof.said).verdict
    if verdict is None:
        hint = f"./goldsmith image.publish {release.name} judges it"
        raise RefusedError(f"{shown(release)} has no verdict: it was never judged", hint=hint)
    return verdict


def read_in_proven(
    ledger: Ledger, store: Store, releases: Iterable[Release], prove: Callable[[Release], Attested]
) -> tuple[list[Release], list[GoldsmithError]]:
    """Write releases into a lost ledger by what each proves, in their order: what is said last of a content stands.

    Returns those that were read in, and what the others lack, which is said, and stops no other.
    """
    found, errors = list[Release](), list[GoldsmithError]()
    for release in releases:
        try:
            _record(ledger, store, release, prove(release))
            found.append(release)
        except GoldsmithError as error:
            say(f"{shown(release)} is passed over: {error.message}")
            errors.append(error)
    return found, errors


def _record(ledger: Ledger, store: Store, release: Release, proof: Attested) -> None:
    """Write a release, the artifact behind it, and what was said of its content into a lost ledger.

    What was judged and checked elsewhere is kept as told: it lets nothing through. Nothing takes the place of what
    this ledger was told by a build or a scan of its own. Raises MalformedError.
    """
    found, content = evidence_of(proof.said), release.content
    artifact = _of(release, found.artifact) if found.artifact else None
    ledger.record_release(said_by_ledger(ledger, release))
    if artifact:
        known = ledger.artifact_by_input(artifact.name, artifact.platform, artifact.input_digest)
        if known is None or not store.whole(known.digest):  # what was built here is known already
            ledger.record_artifact(artifact)
    ours = ledger.scan(content, release.name)
    if (scan := found.scan) and not (ours and ours.inputs):  # a scan of our own says what it was made from
        ledger.record_scan(content, ScanRecord(scan.reports, scan.findings), release.published_at, release.name)
    if verdict := found.verdict:
        ledger.record_verdict(content, verdict, told=True)
    if checks := found.checks:
        ledger.record_checks(content, checks, release.published_at, name=release.name, told=True)


def _of(release: Release, artifact: Artifact) -> Artifact:
    """The artifact, if it is the release's own. Raises MalformedError: else another content would pass for a build."""
    wanted = (release.name, release.content, release.input_digest)
    if (artifact.name, artifact.digest, artifact.input_digest) != wanted:
        raise MalformedError(
            f"the provenance of {release.repository}@{release.digest} is about {artifact.name} {artifact.digest[:19]}",
            hint="who can write to that repository? remove it there, and publish again",
        )
    return artifact
