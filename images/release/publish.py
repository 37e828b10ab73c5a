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
from hardening.foundation.hashing import canonical
from images import documents
from images.artifact import Artifact, Release
from images.documents import Document
from images.ledger import Begun
from images.model import Definition
from images.release import lifecycle
from images.release.store import ReleaseStore
from images.scan.judge import Judgement

TAKEN_UP_WITHIN = timedelta(days=1)
Action = Literal["published", "re-dated", "unchanged"]


@dataclass(frozen=True)
class Published:
    """The release that stands now, and whether it is new, has new dates over the same content, or stood already."""

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
    require_may_publish(to.settings.roots, to.settings.judging, policy)
    refuse(to.now, definition, judgement)
    with to.publishing(definition.name):
        draft = _draft(to, artifact, definition, policy, to.now)
        refuse_revoked(to.revoked(draft))
        begun = _take_up(to, draft, artifact, definition)
        standing = None if begun or redate else _standing(to, draft, definition)
        chosen = begun.release if begun else standing or draft
        said = begun.documents if begun else release_documents(chosen, judgement)
        to.refuse_taken(chosen)
        earlier = [known for known in to.ledger.releases_of_content(chosen.content) if known.digest != chosen.digest]
        if chosen is draft:
            to.ledger.begin_publication(Begun(chosen, said))
        to.complete(chosen, artifact, judgement, said)
        to.ledger.end_publication(chosen)
    return Published(chosen, "unchanged" if standing else "re-dated" if earlier else "published")


def release_documents(chosen: Release, judgement: Judgement) -> tuple[Document, ...]:
    """What was said on the release's own day: scan, verdict, and the date of its end as other tools read it."""
    scan = {
        "reports": documents.to_json(judgement.result.reports),
        "findings": documents.to_json(judgement.result.findings),
    }
    return (
        Document(documents.SCAN, canonical(scan)),
        Document(documents.VERDICT, documents.to_bytes(replace(judgement.verdict, content=chosen.content))),
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


def refuse_revoked(draft: Release) -> None:
    """Raise RefusedError where what would be published holds what was revoked, under whatever name and date."""
    if draft.revoked_at:
        raise RefusedError(
            f"the content of {draft.name} was revoked: {draft.revoked_reason}; nothing was published",
            hint="change what is wrong inside it; a new date would only hide it",
        )


def _draft(to: ReleaseStore, artifact: Artifact, definition: Definition, policy: str, day: datetime) -> Release:
    """The release that would be made on `day`; its digest is known before anything is made.

    `policy` is the one that judged it, which may not be the definition's own.
    """
    repository, base = to.repository(definition.name), definition.base
    draft = Release(
        name=definition.name,
        repository=repository,
        digest="",
        content=artifact.digest,
        input_digest=artifact.input_digest,
        profile=definition.profile,
        policy=policy,
        **asdict(lifecycle.dates(definition.lifecycle, day)),
        base_name=to.repository(base.golden) if base.golden else base.image or "",
        base_digest=to.annotations(repository, artifact).get(f"{lifecycle.OCI}base.digest", ""),
    )
    return replace(draft, digest=to.digest(draft, artifact))


def _take_up(to: ReleaseStore, draft: Release, artifact: Artifact, definition: Definition) -> Begun | None:
    """The publication that a killed run began, if this run would make the same; what it began otherwise is put away."""
    taken = None
    for begun in to.ledger.open_publications(draft.repository):
        day = begun.release.published_at
        same = _draft(to, artifact, definition, draft.policy, day) == begun.release
        if same and to.now - day < TAKEN_UP_WITHIN:
            taken = begun
        else:
            to.put_away(begun.release, draft)
            to.ledger.end_publication(begun.release)
            subject = f"{draft.repository}@{begun.release.digest}"
            to.note("publish", subject, "a publication that was cut short was put away")
    return taken


def _standing(to: ReleaseStore, draft: Release, definition: Definition) -> Release | None:
    """A release that already says what `draft` would, but for its day, and whose end is not near."""
    for known in to.over(draft):
        dates = lifecycle.dates(definition.lifecycle, known.published_at)
        same = replace(draft, digest=known.digest, **asdict(dates)) == known
        if same and not lifecycle.near_expiry(known, to.now):
            return known
    return None
