"""Releases in a registry: dated indexes with documents attached, and channels that are tags."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hardening.findings import Verdict
from hardening.foundation.console import say
from hardening.foundation.errors import ContentError, GoldsmithError, MalformedError, RefusedError, UsageError, nearest
from hardening.foundation.hashing import DIGEST, digest_of
from hardening.foundation.settings import Settings
from images import documents
from images.artifact import Artifact, Descriptor, Release
from images.build.workspace import workspace
from images.documents import Document
from images.ledger import Ledger
from images.registry.client import REF_NAME, Registry, write_layout
from images.registry.read_in import read_in
from images.registry.referrers import attach, attached, latest, read
from images.registry.releases import reference_of, release_at, revocation_of
from images.registry.retire import prune, remove
from images.registry.show import Shown, show
from images.release import lifecycle
from images.release.channels import point
from images.release.history import refuse_judged, shown
from images.release.revocations import Told
from images.release.store import PREVIOUS, ReleaseStore, Retirement
from images.store.oci import INDEX, MANIFEST, Store, as_json

if TYPE_CHECKING:
    from images.scan.judge import Judgement

Documents = tuple[Document, ...]


@dataclass(frozen=True)
class RegistryStore(ReleaseStore):
    """The releases of container images, with what it takes to publish one."""

    registry: Registry
    ledger: Ledger
    store: Store
    now: datetime
    actor: str

    @property
    def settings(self) -> Settings:
        """The settings of this machine."""
        return self.registry.settings

    def repository(self, name: str) -> str:
        """The repository of a definition; of no name, the registry's address."""
        return self.registry.repository(name)

    def pointed(self, repository: str, channel: str) -> tuple[str, ...]:
        """The digests of the index that a tag names, and of its content."""
        found = self.registry.find(f"{repository}:{channel}")
        return (found.digest, found.content(self.settings.platform)) if found else ()

    def channel(self, name: str, channel: str) -> Release:
        """The release that a tag names. Raises NotFoundError, or ContentError for a stranger."""
        return release_at(self.registry, f"{self.repository(name)}:{channel}", self.prefix)

    def find(self, repository: str, digest: str) -> Release | None:
        """A release as its index and the revocations attached to it tell of it."""
        reference = f"{repository}@{digest}"
        return release_at(self.registry, reference, self.prefix) if self.registry.find(reference) else None

    def meant(self, ref: str, known: Collection[str] = ()) -> Release:
        """The release at a reference as a person types it, or the one that has a digest."""
        reference = locate(self, ref, sorted(known)) if ref.startswith("sha256:") else ref
        return release_at(self.registry, reference_of(self.registry, reference), self.prefix)

    def revocation(self, repository: str, digest: str) -> Told | None:
        """When and why something in our registry was revoked, as that tells it."""
        ours = repository.startswith(self.repository(""))
        return revocation_of(self.registry, repository, digest, self.prefix) if ours else None

    def require_evidence(self, release: Release, policy: str) -> None:
        """Raise RefusedError unless the verdict that a release carries lets it through, and is about it.

        It proves nothing, for whoever may push could have written it; but who says no, says no.
        """
        found = latest(attached(self.registry, release.repository, release.digest), documents.VERDICT)
        if found is None:
            hint = f"./goldsmith image.publish {release.name} judges it"
            raise RefusedError(f"{shown(release)} carries no verdict: it was never judged", hint=hint)
        verdict = documents.from_bytes(Verdict, read(self.registry, release.repository, found))
        refuse_judged(release, verdict, policy)

    def move(self, release: Release, channel: str, back: str) -> None:
        """Move a tag; where it came from is written first."""
        repository = release.repository
        before = next(iter(self.pointed(repository, channel)), "")
        if before != release.digest:
            if back or before:
                self.registry.tag(repository, back or before, f"{channel}{PREVIOUS}")
            self.registry.tag(repository, release.digest, channel)

    def mark_revoked(self, release: Release, reason: str) -> None:
        """Attach the revocation to release and content, and today as the end that other tools read."""
        if release.pruned_at:
            return
        index = self.registry.find(f"{release.repository}@{release.digest}")
        if index is None:
            self.ledger.revoke(release.digest, reason, self.now)
            return
        said = {f"{self.prefix}revoked-at": lifecycle.timestamp(self.now), f"{self.prefix}revoked-reason": reason}
        revocation = Document(documents.REVOCATION, b"", said)
        ended = Document(documents.LIFECYCLE, b"", {lifecycle.END_OF_LIFE: f"{self.now:%Y-%m-%d}"})
        content = self.registry.find(f"{release.repository}@{release.content}")
        both = {one.digest: one for one in (content, index) if one}  # content first: it stops what is dated meanwhile
        for subject in both.values():
            if not latest(attached(self.registry, release.repository, subject.digest), documents.REVOCATION):
                more = (ended,) if subject.digest == release.digest else ()
                attach(self.registry, release.repository, subject.descriptor, (*more, revocation))
                self.note("revoke", f"{release.repository}@{subject.digest}", reason)
        self.ledger.record_release(release_at(self.registry, f"{release.repository}@{release.digest}", self.prefix))

    def annotations(self, repository: str, artifact: Artifact) -> Mapping[str, str]:
        """The annotations of the content's manifest, from the store or, where that was cleared, from the registry."""
        return self._content(repository, artifact.digest)[1].get("annotations") or {}

    def digest(self, draft: Release, artifact: Artifact) -> str:
        """The digest of the index."""
        return digest_of(self._index(draft, artifact))

    def over(self, draft: Release) -> Iterator[Release]:
        """Releases of the ledger, and what `candidate` points to for a ledger that was lost."""
        for known in self.ledger.releases_of_content(draft.content):
            if self.registry.find(f"{known.repository}@{known.digest}"):
                yield known
        with suppress(ContentError):
            yield self.channel(draft.name, "candidate")

    def complete(self, chosen: Release, artifact: Artifact, judgement: Judgement, said: Documents) -> None:
        """Every step of a publication, so that nothing visible is ever half done; each finds itself done."""
        content = self._push_content(chosen)
        index = self._push_index(chosen, artifact)
        attach(self.registry, chosen.repository, content, _of_content(artifact, judgement, self.prefix))
        attach(self.registry, chosen.repository, index, said)
        self.record(chosen)
        self._tag(chosen)
        point(self, chosen, "candidate", "publish")

    def put_away(self, begun: Release, draft: Release) -> None:
        """End a publication that is not worth going on with: as a release if it got that far, else by removing it."""
        if self.ledger.release(begun.digest):
            self._tag(begun)
        else:
            needed = {known.content for known in self.ledger.releases(begun.name) if not known.pruned_at}
            remove(self.registry, begun, with_content=begun.content not in {draft.content, *needed})

    def retire(self, names: Collection[str], *, apply: bool) -> list[Retirement]:
        """Decide over every release of `names`, and with `apply` remove what may go."""
        done = "removed" if apply else "remove"
        return [
            Retirement(one.release.name, one.release.digest, done if one.remove else "keep", one.why)
            for one in prune(self, names, apply=apply)
        ]

    def read_in(self, names: Iterable[str]) -> tuple[tuple[Release, ...], tuple[GoldsmithError, ...]]:
        """Read each definition's releases; a malformed one is said, and stops no other definition."""
        found, errors = list[Release](), list[GoldsmithError]()
        for name in names:
            try:
                found += read_in(self, name)
            except MalformedError as error:
                say(f"{name} is passed over: {error.message}")
                errors.append(error)
        return tuple(found), tuple(errors)

    def show(self, ref: str, known: Collection[str]) -> Shown:
        """What the registry says of `ref`."""
        return show(self.registry, ref, self.prefix, self.now, known)

    def _index(self, chosen: Release, artifact: Artifact) -> dict[str, Any]:
        """The release's index: one content, and the annotations."""
        system, _, architecture = artifact.platform.partition("/")
        descriptor, _ = self._content(chosen.repository, chosen.content)
        child = {**as_json(descriptor), "platform": {"os": system, "architecture": architecture}}
        annotations = lifecycle.annotations(chosen, self.prefix)
        return {"schemaVersion": 2, "mediaType": INDEX, "manifests": [child], "annotations": annotations}

    def _content(self, repository: str, digest: str) -> tuple[Descriptor, dict[str, Any]]:
        """The content manifest and how to refer to it, from the store or, where that was cleared, from the registry."""
        if self.store.has(digest):
            return Descriptor(MANIFEST, digest, self.store.blob(digest).stat().st_size), self.store.read_json(digest)
        found = self.registry.get(f"{repository}@{digest}")
        return found.descriptor, found.data

    def _push_content(self, chosen: Release) -> Descriptor:
        """Push the content manifest and what it names, unless the repository has it."""
        target = f"{chosen.repository}@{chosen.content}"
        if found := self.registry.find(target):
            return found.descriptor
        name = chosen.content.removeprefix("sha256:")
        with workspace(self.registry.settings) as room:
            layout = self.store.layout_for(chosen.content, room, {REF_NAME: name})
            self.registry.push(layout, name, target)
        return self._content(chosen.repository, chosen.content)[0]

    def _push_index(self, chosen: Release, artifact: Artifact) -> Descriptor:
        """Push the release's index, without a tag, unless the repository has it."""
        target = f"{chosen.repository}@{chosen.digest}"
        if found := self.registry.find(target):
            return found.descriptor
        with workspace(self.registry.settings) as room:
            index = Store(room).put_json(self._index(chosen, artifact), INDEX)
            name = index.digest.removeprefix("sha256:")
            self.registry.push(write_layout(room, [index]), name, target, index_only=True)
        return index

    def _tag(self, chosen: Release) -> None:
        """The dated tag, which never moves."""
        tag = lifecycle.dated_tag(chosen)
        found = self.registry.find(f"{chosen.repository}:{tag}")
        if found is None:
            self.registry.tag(chosen.repository, chosen.digest, tag)
        elif found.digest != chosen.digest:
            what = f"{chosen.repository}:{tag} is another release: {found.digest}"
            raise UsageError(what, hint="publish again tomorrow")


def locate(to: RegistryStore, digest: str, names: Iterable[str]) -> str:
    """The full reference of a release known only by its digest. Raises ContentError where there is none."""
    if not re.fullmatch(DIGEST, digest):
        hint = "sha256: and 64 hexadecimal digits, as ./goldsmith image.show prints it"
        raise ContentError(f"{digest} is no digest", hint=hint)
    if known := to.ledger.release(digest):
        return f"{known.repository}@{digest}"
    for name in names:
        if to.registry.find(f"{to.repository(name)}@{digest}"):
            return f"{to.repository(name)}@{digest}"
    known_digests = [release.digest for release in to.ledger.releases()]
    raise ContentError(f"no release has the digest {digest}", hint=nearest(digest, known_digests[:20]))


def _of_content(artifact: Artifact, judgement: Judgement, prefix: str) -> Documents:
    """What is true of the content, whatever the day: SBOM, provenance, results of the checks."""
    inputs = {f"{prefix}input-digest": artifact.input_digest}
    return (
        Document(documents.SBOM, judgement.result.sbom),
        Document(documents.PROVENANCE, documents.to_bytes(artifact), inputs),
        Document(documents.CHECKS, documents.to_bytes(judgement.checks), inputs),
    )
