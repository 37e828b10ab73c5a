"""Publication: a dated release over an artifact's content, and the moving `candidate` last.

The ledger is told first which release is about to be made, its day included, so that a run that was killed anywhere is
taken up by the next one: the same release, nothing doubled. What cannot be taken up (the content changed meanwhile) is
removed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from hardening.catalog import require_may_publish
from hardening.foundation.errors import RefusedError
from hardening.foundation.locks import only_one
from images import documents
from images.artifact import Artifact, Release
from images.documents import Document
from images.ledger import Begun
from images.model import Definition
from images.release import lifecycle
from images.release.channels import point
from images.release.closing import before_it, record_closed
from images.release.lifecycle import refuse_ended
from images.release.revocations import revoked
from images.release.store import Publication, ReleaseStore
from images.scan.judge import Judgement
from images.trust.envelope import BUNDLE, statement
from images.trust.evidence import attestations
from images.trust.vex import PreviousRelease

TAKEN_UP_WITHIN = timedelta(days=1)
ELSEWHERE, UNPROVED, LACKING = (
    "it was revoked elsewhere", "what proves its release is missing", "a part of its release is missing",
)  # fmt: skip
"""What only a thorough look finds: where one release lost that, others may have lost it with it."""
Action = Literal["published", "re-dated", "unchanged"]


@dataclass(frozen=True)
class Published:
    """The current release, and whether it is new, has new dates over the same content, or existed already."""

    release: Release
    action: Action


def release(
    to: ReleaseStore, artifact: Artifact, definition: Definition, judgement: Judgement, *, redate: bool = False
) -> Published:
    """Publish an artifact to the candidate channel; run again, it completes what is missing and doubles nothing.

    A release over the same content whose dates still hold is kept, unless `redate` asks for new ones.
    Raises RefusedError when the verdict refuses the image, its content was revoked, or its support has ended.
    """
    policy = judgement.verdict.policy
    require_may_publish(to.settings.roots, to.settings.judging, policy, to.now.date())
    refuse(to.now, definition, judgement)
    making, lock = to.publication(), to.settings.state_dir / "locks" / f"publish-{definition.name}.lock"
    with only_one(lock, f"publishing {definition.name}"):
        draft = _draft(to, making, artifact, definition, policy, to.now)
        refuse_ended(to.revoked(draft), to.now, "nothing was published")
        begun = _take_up(to, making, draft, artifact, definition)
        standing = None if begun or redate else _standing(to, making, draft, definition)
        chosen = begun.release if begun else standing or draft
        before = before_it(to.ledger, chosen)
        said = () if begun or standing else release_documents(chosen, artifact, judgement, before)
        begun = begun or Begun(chosen, said)
        making.refuse_taken(chosen)
        earlier = [known for known in to.ledger.releases_of_content(chosen.content) if known.digest != chosen.digest]
        if chosen is draft:
            to.ledger.begin_publication(begun)
        making.make(begun, artifact, judgement)
        _record(to, chosen)
        if not standing:
            record_closed(to, chosen, artifact, judgement.result, before)
        making.settle(chosen)
        point(to, chosen, "candidate", "publish")
        to.ledger.end_publication(chosen)
    return Published(chosen, "unchanged" if standing else "re-dated" if earlier else "published")


def release_documents(
    chosen: Release, artifact: Artifact, judgement: Judgement, before: PreviousRelease | None
) -> tuple[Document, ...]:
    """What is said on the release's own day: statements, not signed yet, and its end as other tools read it.

    Each statement speaks of the release and of its content: whoever has either one finds it to be theirs.
    """
    subjects = {chosen.digest: chosen.repository, chosen.content: f"{chosen.repository}@{chosen.content}"}
    said = attestations(chosen, artifact, judgement, before)
    return (
        *(Document(BUNDLE, statement(one.predicate_type, one.predicate, subjects)) for one in said),
        Document(documents.LIFECYCLE, b"", {lifecycle.END_OF_LIFE: f"{chosen.expires_at:%Y-%m-%d}"}),
    )


def refuse(now: datetime, definition: Definition, judgement: Judgement) -> None:
    """Raise RefusedError unless the image may be published today."""
    if not judgement.verdict.allowed:
        raise RefusedError(
            f"{definition.name} is refused by policy {judgement.verdict.policy}; nothing was published",
            evidence="\n".join(f"{reason.rule}: {reason.what}" for reason in judgement.verdict.refusals),
            hint="fix what is listed, or ask for a waiver as the policy says",
        )
    if lifecycle.dates(definition.lifecycle, now).expires_at <= now:
        raise RefusedError(
            f"{definition.name} was supported until {definition.lifecycle.support_until}; nothing was published",
            hint="move lifecycle.support_until in its image.toml, or retire the definition",
        )


def _draft(
    to: ReleaseStore, making: Publication, artifact: Artifact, definition: Definition, policy: str, day: datetime
) -> Release:
    """The release that would be made on `day`; its digest is known before anything is made.

    `policy` is the one that judged it, which may not be the definition's own.
    """
    base = definition.base
    draft = Release(
        name=definition.name,
        repository=to.repository(definition.name),
        digest="",
        content=artifact.digest,
        input_digest=artifact.input_digest,
        profile=definition.profile,
        policy=policy,
        **asdict(lifecycle.dates(definition.lifecycle, day)),
        base_name=to.repository(base.golden) if base.golden else base.image or "",
    )
    return making.with_digests(draft, artifact)


def _take_up(
    to: ReleaseStore, making: Publication, draft: Release, artifact: Artifact, definition: Definition
) -> Begun | None:
    """The publication that a killed run began, if this run would make the same; what it began otherwise is put away."""
    taken = None
    for begun in to.ledger.open_publications(draft.repository):
        day = begun.release.published_at
        same = _draft(to, making, artifact, definition, draft.policy, day) == begun.release
        says_something = any(document.artifact_type == BUNDLE for document in begun.documents)  # older versions: no
        if same and says_something and to.now - day < TAKEN_UP_WITHIN:
            taken = begun
        else:
            if to.ledger.release(begun.release.digest):  # it got as far as a release
                making.settle(begun.release)
            else:
                making.put_away(begun.release, draft)
            to.ledger.end_publication(begun.release)
            subject = f"{draft.repository}@{begun.release.digest}"
            to.note("publish", subject, "an interrupted publication was cleaned up")
    return taken


def _standing(to: ReleaseStore, making: Publication, draft: Release, definition: Definition) -> Release | None:
    """A release that already says what `draft` would, but for its day, and whose end is not near."""
    for known in making.over(draft):
        if _says_the_same(known, draft, definition, to.now) and making.proves(known, to.now):
            return known
    return None


def _says_the_same(known: Release, draft: Release, definition: Definition, now: datetime) -> bool:
    """Whether a release says what `draft` would, but for its day, and its end is not near."""
    dates = lifecycle.dates(definition.lifecycle, known.published_at)
    same = replace(draft, digest=known.digest, **asdict(dates)) == known
    return same and not lifecycle.near_expiry(known, now)


def stands(
    to: ReleaseStore, artifact: Artifact, definition: Definition, policy: str, *, thorough: bool,
    candidate: tuple[str, ...] | None = None,
) -> Release | str:  # fmt: skip
    """The release that publishing the artifact now would leave as it is, where `candidate` points to it; or why it
    would not.

    `candidate`: what that points to, where the caller knows. `thorough`: the store is asked too whether it was revoked
    elsewhere, and whether all of it and all that proves it is there.
    """
    making = to.publication()
    draft = _draft(to, making, artifact, definition, policy, to.now)
    if to.ledger.open_publications(draft.repository):
        return "its publication was cut short"
    if gone := _revoked(to, draft, thorough=thorough):
        return gone
    pointed = next(iter(to.pointed(draft.repository, "candidate") if candidate is None else candidate), "")
    known = to.ledger.release(pointed) if pointed else None
    if known is None or known.content != draft.content:
        return "it is not published yet"
    if lifecycle.near_expiry(known, to.now):
        return f"it expires on {known.expires_at:%Y-%m-%d} and gets new dates"
    if not _says_the_same(known, draft, definition, to.now):
        return "its release says what its definition no longer does"
    return making.due() or (_lost(to, making, known) if thorough else "") or known


def _lost(to: ReleaseStore, making: Publication, known: Release) -> str:
    if not making.proves(known, to.now):
        return UNPROVED
    return "" if making.whole(known) else LACKING


def _revoked(to: ReleaseStore, draft: Release, *, thorough: bool) -> str:
    if revoked(to.ledger, draft).revoked_at:
        return "it was revoked"
    return ELSEWHERE if thorough and revoked(to.ledger, draft, to.revocation).revoked_at else ""


def _record(to: ReleaseStore, release: Release) -> None:
    """Write the ledger's line of a release; what it already knows stands."""
    if to.ledger.release(release.digest) is None:
        to.ledger.record_release(release)
        to.note("publish", f"{release.repository}@{release.digest}", f"expires {release.expires_at:%Y-%m-%d}")
