"""Edge: where EC2 members' images come from, and which image a pinned replacement is in a region."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

from hardening.foundation.errors import OutsideError, RefusedError
from images.artifact import Release
from images.aws import tags
from images.aws.amis import images_in, ours_in
from images.aws.cloud import Cloud
from images.aws.machine_evidence import evidence_at
from images.aws.model import Ami
from images.aws.release_store import channel_digest, revocation_of
from images.aws.signed_statement import proof_of, public_key
from images.registry.channel_documents import ChannelDocuments
from images.release.revocations import revoked
from images.trust.verification import UntrustedError
from pipelines.fleet.golden_status import GoldenStatus
from pipelines.fleet.members import Member, Provenance, ReplacementImage


def is_image(target: ReplacementImage) -> bool:
    """Whether a target is one very image, as what a rollback goes to is, and no release."""
    return target.reference.startswith("ami-")


def image_of(cloud: Cloud, target: ReplacementImage, region: str) -> str:
    """The id of the image that a target is in a region.

    Raises OutsideError where there is none, and RefusedError where it is not what was signed.
    """
    if is_image(target):
        return target.reference
    keyed = [{"Name": f"tag:{cloud.prefix}{tags.RELEASE}", "Values": [target.digest]}]
    found = [ami for ami in images_in(cloud, region, Filters=keyed) if ami.state == "available"]
    if not found:
        hint = "publish it there: aws.regions in goldsmith.toml"
        raise OutsideError(f"{target.reference} has no image in {region}", hint=hint)
    key = public_key(cloud)
    proofs = {ami.id: proof_of(cloud, ami, key) for ami in found}
    if proven := next((ami for ami, proof in proofs.items() if proof.holds), ""):  # anybody's image may carry the tag
        return proven
    problems = (problem for proof in proofs.values() for problem in proof.problems)
    raise RefusedError(f"{found[0].where} is not what was signed", evidence="\n".join(problems))


@dataclass(frozen=True)
class AmiProvenance(GoldenStatus):
    """Answers for one judging of one EC2 fleet; each region's images are read once."""

    _amis: dict[str, dict[str, Ami]] = field(default_factory=dict)
    _known: dict[tuple[str, str], Release | None] = field(default_factory=dict)
    _images: dict[tuple[str, str], Provenance] = field(default_factory=dict)
    _channels: dict[str, Release | None] = field(default_factory=dict)
    _proved: set[str] = field(default_factory=set)

    def of(self, member: Member) -> Provenance:
        """What is known of the image that `member` runs; many members run one."""
        image = member.id.split("/")[1], member.image
        if image not in self._images:
            release = self._release(*image)
            where = self._cloud.repository(release.name) if release else ""
            self._images[image] = self.by_channel(release, None, where)
        return self._images[image]

    def target(self) -> ReplacementImage:
        """What the fleet's members become: the release that the channel names at home. Raises ContentError.

        Raises UnreadChannelsError where no signed document of today says what the channel points to.
        """
        name = self.fleet.replacement.definition or ""
        release = self.required(self.channel(name, self._cloud.repository(name)))
        return self.again(ReplacementImage(f"{release.repository}@{release.digest}", release.digest, release))

    def again(self, target: ReplacementImage) -> ReplacementImage:
        """The same pinned replacement, as it is judged now: whoever revoked it, on whichever machine.

        Raises UntrustedError where the evidence of a release does not prove it.
        """
        if target.golden is None:
            return target
        if not is_image(target):
            self._prove(self.context.ledger.release(target.digest) or target.golden)
        known = self.context.ledger.release(target.golden.digest) or target.golden
        golden = self.dated(self.told(known)) or known
        return ReplacementImage(target.reference, target.digest, golden, self.forbidden(golden))

    def _prove(self, golden: Release) -> None:
        """Raise UntrustedError unless a release's evidence proves it by the trust that the fleet's policy asks for."""
        if self._cloud.registry and golden.digest not in self._proved:
            evidence_at(self._cloud.registry, golden, self.now, self.fleet.policy)
            self._proved.add(golden.digest)

    @property
    def _cloud(self) -> Cloud:
        return self.context.cloud

    def _release(self, region: str, image: str) -> Release | None:
        """The release that an image is of, dated by the newest over its content."""
        if (region, image) not in self._known:
            found = self._written(region, image) or self._proven(region, image)
            self._known[region, image] = self.dated(found)
        return self._known[region, image]

    def _written(self, region: str, image: str) -> Release | None:
        """By the ledger's lines about what was made, those about what is gone too."""
        lines = self.context.ledger.made(self._cloud.aws.account, region=region, kind="image", resource=image)
        return self.context.ledger.release(lines[0].release) if lines else None

    def _proven(self, region: str, image: str) -> Release | None:
        """By the image's tags, where its signed statement agrees with them and the evidence proves the release."""
        ami = self._in(region).get(image)
        if ami is None or ami.release is None or not proof_of(self._cloud, ami, self._public_key).holds:
            return None
        with suppress(UntrustedError):
            self._prove(ami.release)
            return ami.release
        return None

    def told(self, golden: Release) -> Release:
        """The release, revoked where tags of its content's images say so, or the ledger of what it holds."""
        home = self._in(self._cloud.home).values()
        told = [one.release for one in home if one.release and one.release.content == golden.content]
        said = next((one for one in told if one.revoked_at), None)
        if said and not golden.revoked_at:
            return replace(golden, revoked_at=said.revoked_at, revoked_reason=said.revoked_reason)
        return revoked(self.context.ledger, golden, revocation_of(self._cloud, self._documents))

    @cached_property
    def _documents(self) -> ChannelDocuments | None:
        """The channels of machines, by the keys that the floor and the fleet's policy trust."""
        registry = self._cloud.registry
        policies = "", self.fleet.policy
        return ChannelDocuments(registry, self.context.ledger, self.now, policies) if registry else None

    def _in(self, region: str) -> dict[str, Ami]:
        """Our images of a region, by id."""
        if region not in self._amis:
            self._amis[region] = {ami.id: ami for ami in ours_in(self._cloud, region)}
        return self._amis[region]

    @cached_property
    def _public_key(self) -> bytes:
        return public_key(self._cloud)

    def pointed(self, name: str) -> Release | None:
        """The release that a channel names, by the ledger before an image's tags."""
        if name not in self._channels:
            channel, cloud = self.fleet.replacement.channel, self._cloud
            digest = channel_digest(cloud, cloud.repository(name), channel, self._documents)
            images = (ami.release for ami in self._in(cloud.home).values() if ami.release) if digest else ()
            known = self.context.ledger.release(digest) if digest else None
            self._channels[name] = known or next((image for image in images if image.digest == digest), None)
        return self._channels[name]
