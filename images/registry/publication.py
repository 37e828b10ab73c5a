"""A new release in a registry: its content, its dated index, and the documents attached to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hardening.foundation.errors import ContentError
from hardening.foundation.hashing import digest_of, hex_of
from images.artifact import Artifact, Descriptor, Release
from images.build.workspace import workspace
from images.ledger import Begun, Ledger
from images.registry.client import REF_NAME, RegistryClient
from images.registry.release_trust import attach_proof, is_proved
from images.registry.releases import dated_tag_of, release_of, remove
from images.release import lifecycle
from images.release.store import Publication
from images.store.oci import INDEX, MANIFEST, Store, as_json

if TYPE_CHECKING:
    from images.scan.judge import Judgement


@dataclass(frozen=True)
class RegistryPublication(Publication):
    """Publishes a container image."""

    registry: RegistryClient
    ledger: Ledger
    store: Store

    def with_digests(self, draft: Release, artifact: Artifact) -> Release:
        """The digest is the index's; the base's stands in the content's manifest."""
        based = lifecycle.based(draft, self._content(draft)[1])
        return replace(based, digest=digest_of(self._index(based, artifact.platform)))

    def over(self, draft: Release) -> Iterator[Release]:
        """Releases of the ledger, and what `candidate` points to for a ledger that was lost."""
        for known in self.ledger.releases_of_content(draft.content):
            if self.registry.find(f"{known.repository}@{known.digest}"):
                yield known
        candidate = self.registry.find(f"{draft.repository}:candidate")
        if candidate and candidate.content(self.registry.settings.platform) == draft.content:
            with suppress(ContentError):
                yield release_of(self.registry, draft.repository, candidate)

    def refuse_taken(self, chosen: Release) -> None:
        """Raise UsageError where the dated tag names another release."""
        dated_tag_of(self.registry, chosen)

    def make(self, begun: Begun, artifact: Artifact, judgement: Judgement) -> None:  # noqa: ARG002
        """Push content and index, the index without a tag, and attach to that what it says."""
        chosen = begun.release
        self._push_content(chosen)
        index = self._push_index(chosen, artifact.platform)
        attach_proof(self.registry, chosen, index, begun.documents)

    def proves(self, known: Release, now: datetime) -> bool:
        """Whether all that a release must carry is attached to it, and by a key that counts."""
        return is_proved(self.registry, known, now)

    def whole(self, known: Release) -> bool:
        """Whether its content's manifest and dated tag are there. Raises UsageError for a tag of another release."""
        content = self.registry.find(f"{known.repository}@{known.content}")
        return content is not None and dated_tag_of(self.registry, known) is not None

    def settle(self, chosen: Release) -> None:
        """Set the dated tag, which never moves."""
        if dated_tag_of(self.registry, chosen) is None:
            self.registry.tag(chosen.repository, chosen.digest, lifecycle.dated_tag(chosen))

    def put_away(self, begun: Release, draft: Release) -> None:
        """Remove index, documents, and the content where nothing else needs it."""
        needed = {known.content for known in self.ledger.releases(begun.name) if not known.pruned_at}
        remove(self.registry, begun, with_content=begun.content not in {draft.content, *needed})

    def _index(self, chosen: Release, platform: str) -> dict[str, Any]:
        """The release's index: one content, and the annotations."""
        system, _, architecture = platform.partition("/")
        child = {**as_json(self._content(chosen)[0]), "platform": {"os": system, "architecture": architecture}}
        annotations = lifecycle.annotations(chosen, self.registry.prefix)
        return {"schemaVersion": 2, "mediaType": INDEX, "manifests": [child], "annotations": annotations}

    def _content(self, chosen: Release) -> tuple[Descriptor, dict[str, Any]]:
        """The content manifest and how to refer to it, from the store or, where that was cleared, from the registry."""
        digest = chosen.content
        if self.store.has(digest):
            return Descriptor(MANIFEST, digest, self.store.blob(digest).stat().st_size), self.store.read_json(digest)
        found = self.registry.get(f"{chosen.repository}@{digest}")
        return found.descriptor, found.data

    def _push_content(self, chosen: Release) -> None:
        """Push the content manifest and what it names, unless the repository has it."""
        target = f"{chosen.repository}@{chosen.content}"
        if self.registry.find(target):
            return
        name = hex_of(chosen.content)
        with workspace(self.registry.settings) as room:
            self.registry.push(self.store.layout_for(chosen.content, room, {REF_NAME: name}), name, target)

    def _push_index(self, chosen: Release, platform: str) -> Descriptor:
        """Push the release's index, without a tag, unless the repository has it."""
        target = f"{chosen.repository}@{chosen.digest}"
        if found := self.registry.find(target):
            return found.descriptor
        with workspace(self.registry.settings) as room:
            index = Store(room).put_json(self._index(chosen, platform), INDEX)
            self.registry.push_root(room, index, target, index_only=True)
        return index
