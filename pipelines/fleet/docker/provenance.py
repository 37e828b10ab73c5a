"""Edge: where members' images come from, by the ledger and the registry. No answer is an error, never "unknown"."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

from hardening.foundation.errors import ContentError
from images.artifact import Release
from images.registry.channel_documents import ChannelDocuments
from images.registry.client import Manifest, RegistryClient
from images.registry.release_trust import proved
from images.release.lifecycle import OCI, parse_annotations
from images.release.revocations import Ask, revoked
from images.trust.verification import UntrustedError
from pipelines.fleet.docker.following import FollowedTag
from pipelines.fleet.docker.images import dealt_with
from pipelines.fleet.golden_status import GoldenStatus
from pipelines.fleet.members import Member, Provenance, ReplacementImage, newest, repository
from pipelines.fleet.violations import BARE_ID


@dataclass(frozen=True)
class ProvenanceReader(GoldenStatus):
    """Answers for one judging of one fleet; asks the ledger first, then the registry, each thing once."""

    registry: RegistryClient
    _known: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Provenance] = field(default_factory=dict)
    _manifests: dict[str, Manifest | None] = field(default_factory=dict)
    _channels: dict[str, Manifest | None] = field(default_factory=dict)
    _proved: set[str] = field(default_factory=set)

    def of(self, member: Member) -> Provenance:
        """What is known of the image that `member` runs; many members run one."""
        image = member.image, member.digests, member.layers
        if image not in self._known:
            self._known[image] = self._of(member)
        return self._known[image]

    def _of(self, member: Member) -> Provenance:
        where = repository(member.image)
        release = next((found for digest in member.digests if (found := self._release(where, digest))), None)
        base = None if release else self._base(member)
        followed = self._followed.of(member) if self._followed else None
        if (golden := release or base) is None:
            stranger = followed and not followed.seen and BARE_ID.fullmatch(member.image)
            return Provenance(followed=None if stranger else followed)
        where = self.registry.repository(golden.name)
        return replace(self.by_channel(release, base, where), followed=followed)

    def unasked(self, member: Member) -> Provenance:
        """What the ledger knows of the image: a release of ours, and when the followed tag was seen to name it."""
        followed = self._followed.unasked(member) if self._followed else None
        found = (self._listed(digest) for digest in member.digests)
        release = self.dated(next(filter(None, found), None))
        known = self.provenance(release, None, None) if release else Provenance()
        return replace(known, followed=followed)

    def target(self) -> ReplacementImage:
        """What the fleet's members become, pinned by digest. Raises ContentError where there is no such thing.

        Raises UntrustedError where a golden image does not prove what it is, UnreadChannelsError where no
        signed document of today says what its channel points to.
        """
        if self._followed:
            return self._followed.target()
        if tag := self.fleet.replacement.tag:
            found = self._documents.known(tag) or self.registry.get(tag)
            image = Member("", "", "", tag, (found.digest,), self._layers(repository(tag), found.digest))
            golden = self._release(repository(tag), found.digest)
            if golden is None and (told := self._told(repository(tag), found.digest)):
                self._prove(told)  # which says why it counts as nothing
            golden = golden or self._base(image)
            return self.again(ReplacementImage(f"{repository(tag)}@{found.digest}", found.digest, golden))
        name = self.fleet.replacement.definition or ""
        where = self.registry.repository(name)
        release = self.channel(name, where)
        if release is None and (named := self._pointed(name)) and (told := self._told(where, named.digest)):
            self._prove(told)  # which says why it counts as nothing
        release = self.required(release)
        return self.again(ReplacementImage(f"{release.repository}@{release.digest}", release.digest, release))

    def again(self, target: ReplacementImage) -> ReplacementImage:
        """The same pinned replacement, as it is judged now: whoever revoked it, on whichever machine.

        Raises UntrustedError where it is a release that does not prove what it is.
        """
        if self._followed and target.followed:
            self._followed.require_trusted(target.digest)
        if target.golden is None:
            return target
        is_golden = target.digest in (target.golden.digest, target.golden.content)
        if is_golden or repository(target.reference) == target.golden.repository:
            # The release that is pinned may not be the newest over its content, which is told of it.
            self._prove(self.context.ledger.release(target.digest) or target.golden)
        known = self.context.ledger.release(target.golden.digest) or target.golden
        golden = self.told(self.dated(known) or known)
        return replace(target, golden=golden, refused_because=self.forbidden(golden))

    @cached_property
    def _followed(self) -> FollowedTag | None:
        """The tag of others that the fleet follows; None where it follows none."""
        if not (tag := self.fleet.replacement.follow):
            return None
        return FollowedTag(self.fleet, tag, self.context, self.now, self.registry)

    def told(self, golden: Release) -> Release:
        """The golden image, revoked where ledger or registry say so of it, its content, or what it stands on."""
        return revoked(self.context.ledger, golden, self._ask)

    @cached_property
    def _documents(self) -> ChannelDocuments:
        """The channels of our registry, by the keys that the floor and the fleet's policy trust."""
        return ChannelDocuments(self.registry, self.context.ledger, self.now, ("", self.fleet.policy))

    @cached_property
    def _ask(self) -> Ask:
        """The revocations in these."""
        return self._documents.revocation()

    def _release(self, where: str, digest: str) -> Release | None:
        """The newest release over the content that `digest` means: a release's, or the content's own."""
        return self.dated(self._listed(digest) or self._published(where, digest))

    def _listed(self, digest: str) -> Release | None:
        """A release over that content as the ledger has it."""
        known = self.context.ledger.release(digest)
        return known or next(iter(self.context.ledger.releases_of_content(digest)), None)

    def _published(self, where: str, digest: str) -> Release | None:
        """The release as the registry tells it, where the ledger has no line of it and a trusted key signed it."""
        told = self._told(where, digest)
        with suppress(UntrustedError):
            if told:
                self._prove(told)
            return told
        return None

    def _told(self, where: str, reference: str) -> Release | None:
        """The release as the registry tells it, whoever wrote that."""
        found = self._manifest(where, reference)
        prefix = self.context.settings.annotation_prefix
        if found is None or not found.is_index or f"{prefix}expires-at" not in found.annotations:
            return None
        content = found.content(self.context.settings.platform)  # what the engine will run, and no other
        with suppress(ContentError):
            return parse_annotations(found.annotations, prefix, repository=where, digest=found.digest, content=content)
        return None

    def _prove(self, golden: Release) -> None:
        """Raise UntrustedError unless a release proves itself by the trust that the fleet's policy asks for."""
        if golden.digest not in self._proved:
            proved(self.registry, golden, self.now, self.fleet.policy)
            self._proved.add(golden.digest)

    def _manifest(self, where: str, reference: str) -> Manifest | None:
        """A manifest of the registries that we deal with; others are not asked."""
        if not dealt_with(self.registry, self.fleet, where):
            return None
        address = f"{where}{'@' if ':' in reference else ':'}{reference}"
        if address not in self._manifests:
            self._manifests[address] = self._found(address)
        return self._manifests[address]

    def _found(self, address: str) -> Manifest | None:
        """A manifest. Of another registry than ours one that is pinned is asked for once in a run."""
        known, pinned = self.context.pinned_manifests, "@" in address
        if not pinned or address.startswith(f"{self.registry.address}/"):
            return self.registry.find(address)
        if address not in known and (found := self.registry.find(address)):
            known[address] = found
        return known.get(address)

    def _base(self, member: Member) -> Release | None:
        """The golden image that an application image stands on: its layers begin with the golden content's.

        What the image says of itself helps to find it, and proves nothing.
        """
        where, layers = repository(member.image), member.layers
        named = (self._named_base(where, digest, layers) for digest in member.digests)
        return next(filter(None, named), None) or self._layered_base(layers)

    def _named_base(self, where: str, digest: str, layers: tuple[str, ...]) -> Release | None:
        """By the annotation `base.digest` of the image's index or manifest, where the layers agree."""
        found = self._manifest(where, digest)
        inner = found.content(self.context.settings.platform) if found and found.is_index else ""
        for manifest in (found, self._manifest(where, inner) if inner else None):
            base = manifest.annotations.get(f"{OCI}base.digest", "") if manifest else ""
            name = manifest.annotations.get(f"{OCI}base.name", "") if manifest else ""
            release = self._release(repository(name) if name else where, base) if base else None
            if release and (own := self._layers_of(release)) and layers[: len(own)] == own:
                return release
        return None

    def _layers_of(self, release: Release) -> tuple[str, ...]:
        """The unpacked layers of a golden content, from the store or its registry; none where both have lost it."""
        return self._golden_layers.get(release.content) or self._layers(release.repository, release.content)

    def _layers(self, where: str, digest: str) -> tuple[str, ...]:
        """The unpacked layers of what an engine runs of an image in a registry; none where it is not there."""
        return self.registry.diff_ids(f"{where}@{digest}") if self._manifest(where, digest) else ()

    def _layered_base(self, layers: tuple[str, ...]) -> Release | None:
        """By its layers: the golden content with the most layers that the image begins with."""
        fits = [content for content, own in self._golden_layers.items() if own and layers[: len(own)] == own]
        best = max(fits, key=lambda content: len(self._golden_layers[content]), default=None)
        return newest(self.context.ledger.releases_of_content(best)) if best else None

    @cached_property
    def _golden_layers(self) -> dict[str, tuple[str, ...]]:
        """The unpacked layers of every golden content that is in the local store."""
        contents = {release.content for release in self.context.ledger.releases()}
        here = [content for content in sorted(contents) if self.context.store.has(content)]
        return {content: tuple(self.context.store.config(content)["rootfs"]["diff_ids"]) for content in here}

    def pointed(self, name: str) -> Release | None:
        """The release that a channel names; one that proves nothing is none."""
        found, where = self._pointed(name), self.registry.repository(name)
        return (self.context.ledger.release(found.digest) or self._published(where, found.digest)) if found else None

    def _pointed(self, name: str) -> Manifest | None:
        """The release that the channel of a golden image points to; asked once."""
        if name not in self._channels:
            self._channels[name] = self._documents.manifest(
                self.registry.repository(name), self.fleet.replacement.channel
            )
        return self._channels[name]
