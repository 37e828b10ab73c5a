"""The signed document of a repository's channels in the registry: read, and written. Edge.

It is in one annotation of the manifest that the tag `channels` names, so that one request reads it and one write
replaces it. A move writes the document first, which still accepts what the channel left, then the ledger, then the tag:
a reader in between goes by the document, and whoever was killed in between does the rest when it is repeated.

Writers with one state directory wait for each other (`moving`), until tags and ledger follow too. Writers elsewhere
read the document back, after the time in which one that had read it before must have written too, and apply their
change to what is there then, unless a newer one has it already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from hardening.foundation.errors import GoldsmithError, OutsideError
from hardening.foundation.hashing import digest_of
from hardening.foundation.locks import only_one
from images.build.workspace import workspace
from images.ledger import Ledger, SeenChannels
from images.registry.answers import NotFoundError
from images.registry.client import Manifest, RegistryClient
from images.registry.references import split
from images.registry.referrers import EMPTY, LOCK_SECONDS, WRITES, settle
from images.registry.release_trust import trust_of
from images.release.revocations import Ask, Told
from images.release.store import CHANNELS
from images.store.oci import MANIFEST, Store, as_json
from images.trust.channel_document import (
    ChannelDocument,
    UnreadChannelsError,
    require_current,
    require_tag,
    unread,
    verified,
)
from images.trust.envelope import bundled
from images.trust.keys import own_keys, signer
from images.trust.statement import read_predicate

TAG = "channels"
TYPE = "application/vnd.dev.goldsmith.channels.v1+json"
SIGNED_AGAIN_AFTER = timedelta(hours=12)

Change = Callable[[ChannelDocument], ChannelDocument]
First = Callable[[], ChannelDocument]


@dataclass(frozen=True)
class ChannelDocuments:
    """The channel documents of a registry. A key counts if the floor and every one of `policies` accept it."""

    registry: RegistryClient
    ledger: Ledger
    now: datetime
    policies: tuple[str, ...] = ("",)

    def read(self, repository: str) -> ChannelDocument | None:
        """The channels of a repository; None where nothing was ever published in it.

        Raises UnreadChannelsError where the document is missing, or not the newest one of today.
        """
        seen = self._seen(repository)  # before the registry is asked, so that what comes from there is not older
        document = self._signed(repository, seen)
        if document is None and (seen or any(self.registry.find(f"{repository}:{channel}") for channel in CHANNELS)):
            raise unread(repository, "there is no signed document of them")
        if document is None:
            return None
        self._require_current(document, seen)
        if seen is None or document.version > seen.version:
            self._remember(document)
        return document

    def manifest(self, repository: str, channel: str) -> Manifest | None:
        """The manifest that a channel points to; None where it points to nothing.

        Raises UnreadChannelsError as `read` does, and where the tag, read first because it moves last, differs.
        """
        tagged = self.registry.find(f"{repository}:{channel}")
        return self._manifest(self.read(repository), channel, tagged)

    def manifests(self, repository: str, channel: str, *others: str) -> dict[str, Manifest | None]:
        """The same of several channels. The tag of another one is not read where the document says that it points to
        what the first does: `is_recent` compares it.
        """
        tagged = self.registry.find(f"{repository}:{channel}")
        document = self.read(repository)
        found, known = {channel: self._manifest(document, channel, tagged)}, document.channels if document else {}
        for other in others:
            same = {channel, other} <= known.keys() and known[other].digest == known[channel].digest
            found[other] = found[channel] if same or not document else self.manifest(repository, other)
        return found

    def _manifest(self, document: ChannelDocument | None, channel: str, tagged: Manifest | None) -> Manifest | None:
        if document is None:
            return None
        require_tag(document, channel, tagged.digest if tagged else "", self.now)
        wanted = document.channels[channel].digest if channel in document.channels else ""
        if tagged is None or tagged.digest != wanted:
            return self.registry.find(f"{document.repository}@{wanted}") if wanted else None
        return tagged

    def known(self, reference: str) -> Manifest | None:
        """The manifest of a channel that this ledger knows; None for all other references.

        Raises as `required` does.
        """
        repository, channel = split(reference)
        ours = channel in CHANNELS and (self._seen(repository) or self.ledger.last_move(repository, channel))
        return self.required(repository, channel) if ours else None

    def required(self, repository: str, channel: str) -> Manifest:
        """The manifest that a channel points to. Raises NotFoundError where it points to nothing that is there: its tag
        is no answer then. Raises UnreadChannelsError.
        """
        if manifest := self.manifest(repository, channel):
            return manifest
        name = repository.rpartition("/")[2]
        hint = f"./goldsmith image.publish {name} publishes one; ./goldsmith image.show {name} shows what there is"
        raise NotFoundError(f"nothing is published as {repository}:{channel}", hint=hint)

    def revocation(self, known: Mapping[str, ChannelDocument | None] | None = None) -> Ask:
        """The revocations in the documents of our repositories; each is read once, and none of those that are `known`
        by their repositories.
        """
        documents = dict(known or {})

        def ask(repository: str, subject: str) -> Told | None:
            if not repository.startswith(self.registry.repository("")):
                return None
            if repository not in documents:
                documents[repository] = self.read(repository)
            return revoked_in(documents[repository], subject)

        return ask

    def base(self, repository: str, first: First, *, recover: bool = False) -> ChannelDocument:
        """The document that the next one is made from: of the registry's and the ledger's the newer one. `first` where
        neither has one.

        Raises UnreadChannelsError where the registry's is not of today and this ledger has not seen it, unless a person
        decides to `recover` by it.
        """
        seen, document = self._seen(repository), None
        try:
            document = self._signed(repository)
        except UnreadChannelsError:
            if seen is None and not recover:
                raise
        if document and (seen is None or document.version > seen.version):
            if not recover:
                self._require_current(document, seen)
            return document
        return seen or first()

    @contextmanager
    def moving(self, repository: str) -> Iterator[None]:
        """Let no other process with this state directory write the document, or move the tags, meanwhile."""
        lock = self.registry.settings.state_dir / "locks" / f"channels-{digest_of(repository)[7:23]}.lock"
        with only_one(lock, f"signing the channels of {repository}", wait_seconds=LOCK_SECONDS):
            yield

    def write(
        self, repository: str, change: Change, first: First, *, recover: bool = False
    ) -> tuple[ChannelDocument, ChannelDocument]:
        """Sign the document with a change; returns it before and after. One that says so already is left for half a
        day. Must be called within `moving`. Raises OutsideError where another writer keeps replacing it.
        """
        before = present = self.base(repository, first, recover=recover)
        if change(before) == before and self._stands(before):
            return before, before
        above = before.version
        for _ in range(WRITES):
            after = change(present).signed(self.now, self.registry.settings.signing.channels_expire_after, above)
            self._push(after)
            self._remember(after)
            if not settle(self.registry) or (document := self._signed(repository)) == after:
                return before, after
            present = document if document and document.version > before.version else after
            if present.version > after.version and change(present) == present:  # or two would answer each other
                self._remember(present)
                return before, present
            above = max(above, after.version, present.version)
        hint = "does another ledger sign for the same repository? run it again when that has ended"
        raise OutsideError(f"the channel document of {repository} does not stay as it was written", hint=hint)

    def is_unpublished(self, base: ChannelDocument) -> bool:
        """Whether nothing was ever published in the repository that a first document is about."""
        tags = (TAG, *CHANNELS) if not (base.version or base.channels or base.revoked) else ()
        return bool(tags) and not any(self.registry.find(f"{base.repository}:{tag}") for tag in tags)

    def is_recent(self, repository: str, tagged: Callable[[str], str]) -> bool:
        """Whether the last document that this ledger saw need not be signed again, and no tag follows it still.

        `tagged` says what the tag of a channel names. It is asked once, for the channel that members follow: another
        installation may have put that tag back. A night's plan reads `candidate`, and publication puts it right. Where
        there is no answer, the next night asks again.
        """
        seen = self._seen(repository)
        if seen is None or not self._is_young(seen) or any(state.left for state in seen.channels.values()):
            return False
        with suppress(OutsideError):
            last = next((channel for channel in reversed(CHANNELS) if channel in seen.channels), "")
            return not last or tagged(last) == seen.channels[last].digest
        return True

    def _is_young(self, document: ChannelDocument) -> bool:
        return self.now - document.issued < SIGNED_AGAIN_AFTER

    def _stands(self, document: ChannelDocument) -> bool:
        """Whether the registry has this document, and it need not be signed again."""
        with suppress(UnreadChannelsError):
            return self._is_young(document) and self._signed(document.repository) == document
        return False

    def _signed(self, repository: str, seen: ChannelDocument | None = None) -> ChannelDocument | None:
        """The registry's document, signed by keys that count, of whatever day."""
        manifest = self.registry.find(f"{repository}:{TAG}")
        if manifest is None:
            return None
        settings = self.registry.settings
        trusted = [trust_of(settings, policy) for policy in self.policies]
        own = () if all(trust.keys for trust in trusted) else own_keys(settings)
        seen, bundle = seen or self._seen(repository), manifest.annotations.get(self._annotation, "").encode()
        version = seen.version if seen else 0
        return verified(bundle, repository, trusted, own, self.now, seen_version=version)

    def _require_current(self, document: ChannelDocument, seen: ChannelDocument | None) -> None:
        """The embedded registry has no other writers: what this ledger has seen last there is the newest."""
        require_current(document, seen, self.now, lasts=not self.registry.settings.registry.address)

    def _seen(self, repository: str) -> ChannelDocument | None:
        row = self.ledger.seen_channels(repository)
        return read_predicate(ChannelDocument, row.document, f"the ledger's line about {repository}") if row else None

    def _remember(self, document: ChannelDocument) -> None:
        self.ledger.see_channels(SeenChannels(document.repository, document.version, document.predicate))

    def _push(self, document: ChannelDocument) -> None:
        """Sign and push a document. Raises UnreadChannelsError, before that, where the key is not one that counts."""
        registry, settings = self.registry, self.registry.settings
        where = f"{document.repository}:{TAG}"
        bundle = bundled(document.payload, signer(settings, self.now.date()))
        verified(
            bundle, document.repository, [trust_of(settings)], own_keys(settings), self.now,
            seen_version=document.version,
        )  # fmt: skip
        before = registry.find(where)
        with workspace(settings) as room:
            store = Store(room)
            empty = as_json(store.put_bytes(b"{}", EMPTY))
            manifest = {
                "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": TYPE, "config": empty, "layers": [empty],
                "annotations": {self._annotation: bundle.decode()},
            }  # fmt: skip
            registry.push_root(room, store.put_json(manifest, MANIFEST), where, index_only=False)
        if before:
            with suppress(GoldsmithError):  # it is of no use, and harms nobody
                registry.delete(document.repository, before.digest)

    @property
    def _annotation(self) -> str:
        return f"{self.registry.prefix}channels"


def revoked_in(document: ChannelDocument | None, subject: str) -> Told | None:
    """When and why something was revoked, by the document of its repository."""
    revocation = document.revoked.get(subject) if document else None
    return (revocation.at, revocation.reason) if revocation else None
