"""Publication: a dated index over an artifact's content, what was said of it attached, and the moving tag last.

The ledger is told first which release is about to be made, its day included, so that a run that was killed anywhere is
taken up by the next one: the same release, nothing doubled. What cannot be taken up (the content changed meanwhile) is
removed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from hardening.catalog import require_may_publish
from hardening.foundation.errors import ContentError, RefusedError, UsageError
from hardening.foundation.hashing import canonical, digest_of
from images import documents
from images.artifact import Artifact, Descriptor, Release
from images.build.workspace import workspace
from images.documents import Document
from images.ledger import Begun
from images.model import Definition
from images.registry.client import REF_NAME, write_layout
from images.registry.referrers import attach
from images.registry.release_store import RegistryStore
from images.registry.retire import remove
from images.release import lifecycle
from images.release.channels import point
from images.release.published import release_at
from images.scan.judge import Judgement
from images.store.oci import INDEX, MANIFEST, Store, as_json

TAKEN_UP_WITHIN = timedelta(days=1)
Documents = tuple[Document, ...]
Action = Literal["published", "re-dated", "unchanged"]


@dataclass(frozen=True)
class Published:
    """The release that stands now, and whether it is new, has new dates over the same content, or stood already."""

    release: Release
    action: Action


def release(
    to: RegistryStore, artifact: Artifact, definition: Definition, judgement: Judgement, *, redate: bool = False
) -> Published:
    """Publish an artifact to the candidate channel; run again, it completes what is missing and doubles nothing.

    A release over the same content whose dates still hold is kept, unless `redate` asks for new ones.
    Raises RefusedError when the verdict refuses the image, its content was revoked, or its support has ended.
    """
    settings = to.registry.settings
    require_may_publish(settings.roots, settings.judging, judgement.verdict.policy)
    refuse(to.now, definition, judgement)
    draft = _draft(to, artifact, definition, judgement.verdict.policy)
    refuse_revoked(to.revoked(draft))
    begun = _take_up(to, draft, artifact, definition)
    standing = None if begun or redate else _standing(to, draft, definition)
    chosen = begun.release if begun else standing or draft
    said = begun.documents if begun else release_documents(chosen, judgement)
    earlier = [known for known in to.ledger.releases_of_content(chosen.content) if known.digest != chosen.digest]
    if chosen is draft:
        to.ledger.begin_publication(Begun(chosen, said))
    _complete(to, chosen, artifact, content_documents(artifact, judgement, to.prefix), said)
    return Published(chosen, "unchanged" if standing else "re-dated" if earlier else "published")


def _complete(to: RegistryStore, chosen: Release, artifact: Artifact, timeless: Documents, said: Documents) -> None:
    """Every step of a publication, in the order in which nothing visible is ever half done; each finds itself done."""
    repository = chosen.repository
    content = _push_content(to, chosen)
    index = _push_index(to, chosen, artifact)
    attach(to.registry, repository, content, timeless)
    attach(to.registry, repository, index, said)
    _record(to, chosen)
    _tag(to, chosen)
    point(to, chosen, "candidate", "publish")
    to.ledger.end_publication(chosen)


def content_documents(artifact: Artifact, judgement: Judgement, prefix: str) -> Documents:
    """What is true of the content, whatever the day: SBOM, provenance, results of the checks."""
    inputs = {f"{prefix}input-digest": artifact.input_digest}
    return (
        Document(documents.SBOM, judgement.result.sbom),
        Document(documents.PROVENANCE, documents.to_bytes(artifact), inputs),
        Document(documents.CHECKS, documents.to_bytes(judgement.checks), inputs),
    )


def release_documents(chosen: Release, judgement: Judgement) -> Documents:
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


def _draft(to: RegistryStore, artifact: Artifact, definition: Definition, policy: str) -> Release:
    """The release that would be made now; `policy` is the one that judged it, which may not be the definition's own."""
    repository = to.registry.repository(definition.name)
    _, found = _content(to, repository, artifact.digest)
    base = definition.base
    draft = Release(
        name=definition.name,
        repository=repository,
        digest="",
        content=artifact.digest,
        input_digest=artifact.input_digest,
        profile=definition.profile,
        policy=policy,
        **asdict(lifecycle.dates(definition.lifecycle, to.now)),
        base_name=to.registry.repository(base.golden) if base.golden else base.image or "",
        base_digest=(found.get("annotations") or {}).get(f"{lifecycle.OCI}base.digest", ""),
    )
    return _named(to, draft, artifact)


def _redrafted(to: RegistryStore, draft: Release, artifact: Artifact, definition: Definition, day: datetime) -> Release:
    """`draft` as if it had been published on `day`."""
    dates = lifecycle.dates(definition.lifecycle, day)
    return _named(to, replace(draft, **asdict(dates)), artifact)


def _named(to: RegistryStore, draft: Release, artifact: Artifact) -> Release:
    """The draft under the digest that its index will have."""
    return replace(draft, digest=digest_of(_index(to, draft, artifact)))


def _index(to: RegistryStore, chosen: Release, artifact: Artifact) -> dict[str, Any]:
    """The release's index: one content, and the annotations."""
    system, _, architecture = artifact.platform.partition("/")
    descriptor, _ = _content(to, chosen.repository, chosen.content)
    child = {**as_json(descriptor), "platform": {"os": system, "architecture": architecture}}
    annotations = lifecycle.annotations(chosen, to.prefix)
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": [child], "annotations": annotations}


def _content(to: RegistryStore, repository: str, digest: str) -> tuple[Descriptor, dict[str, Any]]:
    """The content manifest and how to refer to it, from the store or, where that was cleared, from the registry."""
    if to.store.has(digest):
        return Descriptor(MANIFEST, digest, to.store.blob(digest).stat().st_size), to.store.read_json(digest)
    found = to.registry.get(f"{repository}@{digest}")
    return found.descriptor, found.data


def _take_up(to: RegistryStore, draft: Release, artifact: Artifact, definition: Definition) -> Begun | None:
    """The publication that a killed run began, if this run would make the same; what it began otherwise is put away."""
    taken = None
    for begun in to.ledger.open_publications(draft.repository):
        same = _redrafted(to, draft, artifact, definition, begun.release.published_at) == begun.release
        if same and to.now - begun.release.published_at < TAKEN_UP_WITHIN:
            taken = begun
        else:
            _put_away(to, begun.release, draft)
    return taken


def _put_away(to: RegistryStore, begun: Release, draft: Release) -> None:
    """End a publication that is not worth going on with: as a release if it got that far, else by removing it."""
    contents = {draft.content, *(known.content for known in to.ledger.releases(begun.name) if not known.pruned_at)}
    if to.ledger.release(begun.digest):
        _tag(to, begun)
    else:
        remove(to.registry, begun, with_content=begun.content not in contents)
    to.ledger.end_publication(begun)
    to.note("publish", f"{begun.repository}@{begun.digest}", "a publication that was cut short was put away")


def _standing(to: RegistryStore, draft: Release, definition: Definition) -> Release | None:
    """A release that already says what `draft` would, but for its day, and whose end is not near."""
    for known in [*to.ledger.releases_of_content(draft.content), *_candidate(to, draft.repository)]:
        dates = lifecycle.dates(definition.lifecycle, known.published_at)
        same = replace(draft, digest=known.digest, **asdict(dates)) == known
        if same and not lifecycle.near_expiry(known, to.now) and to.registry.find(f"{known.repository}@{known.digest}"):
            return known
    return None


def _candidate(to: RegistryStore, repository: str) -> tuple[Release, ...]:
    """What the candidate channel points to, for a ledger that was lost."""
    try:
        return (release_at(to.registry, f"{repository}:candidate", to.prefix),)
    except ContentError:
        return ()


def _push_content(to: RegistryStore, chosen: Release) -> Descriptor:
    """Push the content manifest and what it names, unless the repository has it."""
    target = f"{chosen.repository}@{chosen.content}"
    if found := to.registry.find(target):
        return found.descriptor
    name = chosen.content.removeprefix("sha256:")
    with workspace(to.registry.settings) as room:
        layout = to.store.layout_for(chosen.content, room, {REF_NAME: name})
        to.registry.push(layout, name, target)
    return _content(to, chosen.repository, chosen.content)[0]


def _push_index(to: RegistryStore, chosen: Release, artifact: Artifact) -> Descriptor:
    """Push the release's index, without a tag, unless the repository has it."""
    target = f"{chosen.repository}@{chosen.digest}"
    if found := to.registry.find(target):
        return found.descriptor
    with workspace(to.registry.settings) as room:
        index = Store(room).put_json(_index(to, chosen, artifact), INDEX)
        to.registry.push(write_layout(room, [index]), index.digest.removeprefix("sha256:"), target, index_only=True)
    return index


def _record(to: RegistryStore, chosen: Release) -> None:
    """The ledger's line; what it already knows of the release stands."""
    if to.ledger.release(chosen.digest) is None:
        to.ledger.record_release(chosen)
        to.note("publish", f"{chosen.repository}@{chosen.digest}", f"expires {chosen.expires_at:%Y-%m-%d}")


def _tag(to: RegistryStore, chosen: Release) -> None:
    """The dated tag, which never moves."""
    tag = lifecycle.dated_tag(chosen)
    found = to.registry.find(f"{chosen.repository}:{tag}")
    if found is None:
        to.registry.tag(chosen.repository, chosen.digest, tag)
    elif found.digest != chosen.digest:
        raise UsageError(f"{chosen.repository}:{tag} is another release: {found.digest}", hint="publish again tomorrow")
