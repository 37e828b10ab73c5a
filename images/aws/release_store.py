"""Releases at AWS: tagged images in every region under a signed statement, and channels that are parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict

from hardening.findings import Verdict
from hardening.foundation.console import say
from hardening.foundation.errors import ContentError, GoldsmithError, RefusedError, nearest
from hardening.foundation.settings import Settings
from images.artifact import Release
from images.aws import call_arguments, tags
from images.aws.amis import SOON, deprecate, image, images_of, named, ours_in, put_tags
from images.aws.cloud import Cloud
from images.aws.machine_evidence import end_evidence, evidence_at
from images.aws.model import Ami
from images.aws.permissions import ANY, OWN_PARAMETERS, PUBLISHER, permit
from images.aws.publish import AwsPublication, preflight
from images.aws.retire import retire_images
from images.aws.signed_statement import StatementProof, parameter, proof_of, public_key
from images.catalog import KeepRule
from images.ledger import STANDING
from images.registry.channel_documents import ChannelDocuments
from images.release.attested import (
    ShownAttestation,
    attested_verdict,
    proof_or_why,
    read_in_proven,
    shown_attestations,
)
from images.release.channels import first_document, settled
from images.release.lifecycle import newest_first, shown
from images.release.revocations import Ask
from images.release.store import CHANNELS, PREVIOUS, Publication, ReleaseStore, Retirement, ShownRelease, as_shown
from images.trust.channel_document import ChannelDocument, require_tag, unread
from images.trust.verification import Attested

PERMISSIONS = (
    permit("ssm:PutParameter", PUBLISHER, on=OWN_PARAMETERS),
    permit("ec2:DescribeSnapshots", PUBLISHER, on=ANY),
)

INVALID = {"ValidationException"}


class ShownAmi(BaseModel):
    """The image in one region. `problems`: where it differs from what was signed."""

    model_config = ConfigDict(frozen=True)

    region: str
    id: str
    state: str
    snapshots: tuple[str, ...]
    deprecated_at: datetime | None
    channels: tuple[str, ...]
    signed: bool
    problems: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.region} {self.id} ({self.state}{': ' + ', '.join(self.channels) if self.channels else ''})"


class ShownMachine(ShownRelease):
    """A machine image's release as AWS knows it. `proven`: the signed statement holds of every image shown.

    `attestations` are the evidence in the registry; `untrusted` says why none of it is believed.
    """

    linear_digest: str
    packages_digest: str
    verdict_digest: str
    builder: str
    proven: bool
    problems: tuple[str, ...]
    images: tuple[ShownAmi, ...]
    untrusted: str = ""
    attestations: tuple[ShownAttestation, ...] = ()


class AwsStore(ReleaseStore):
    """The releases of machine images, in every region of the settings; home decides.

    `names` are the definitions', to suggest the nearest; `rules` what is kept of each beyond need.
    """

    def __init__(self, cloud: Cloud, names: Sequence[str] = (), rules: Mapping[str, KeepRule] | None = None) -> None:
        self.rules = rules or {}
        self.cloud, self.ledger, self.now, self.actor, self.names = cloud, cloud.ledger, cloud.now, cloud.actor, names

    @property
    def settings(self) -> Settings:
        """The settings of this machine."""
        return self.cloud.settings

    @property
    def place(self) -> str:
        """The account and our images' names in it, in the ledger's words."""
        return self.cloud.repository("")

    @property
    def documents(self) -> ChannelDocuments | None:
        """The signed documents of our channels, which are in the registry; None where AWS alone is asked."""
        registry = self.cloud.registry
        return ChannelDocuments(registry, self.ledger, self.now) if registry else None

    @property
    def revocation(self) -> Ask | None:
        """The revocations in these documents, beside the images' own tags."""
        return revocation_of(self.cloud, self.documents)

    def pointed(self, repository: str, channel: str) -> tuple[str, ...]:
        """The digests of the release that a channel names, as its parameter at home does, and of its content."""
        digest = channel_digest(self.cloud, repository, channel, self.documents)
        known = (self.find(repository, digest), self._at(repository, channel)) if digest else ()
        return next(((one.digest, one.content) for one in known if one and one.digest == digest), ())

    def tagged(self, repository: str, channel: str) -> str:
        """The digest of the release whose image a parameter names at home."""
        found = self._at(repository, channel)
        return found.digest if found else ""

    def _at(self, repository: str, channel: str) -> Release | None:
        found = in_channel(self.cloud, self.cloud.home, repository.rpartition("/")[2], channel)
        return found.release if found else None

    def find(self, repository: str, digest: str) -> Release | None:
        """A release of the ledger whose image is there at home, with a revocation that only its tags tell of."""
        release = self.ledger.release(digest)
        amis = self._usable(release) if release and release.repository == repository else []
        told = next((ami.release for ami in amis if ami.region == self.cloud.home and ami.release), None)
        if release is None or told is None:
            return None
        return replace(release, revoked_at=release.revoked_at or told.revoked_at,
                       revoked_reason=release.revoked_reason or told.revoked_reason)  # fmt: skip

    def meant(self, ref: str) -> Release:
        """The release that a digest means, or an image as `show` finds it, in the ledger's words."""
        shown_at_home = None if ref.startswith("sha256:") else self._home_image(ref).release
        digest = shown_at_home.digest if shown_at_home else ref
        name, _, wanted = ref.partition(":")
        if wanted in CHANNELS:
            digest = next(iter(self.pointed(self.repository(name), wanted)), "")
            if not digest:
                hint = f"./goldsmith image.publish {name} publishes to the candidate channel"
                raise ContentError(f"nothing is published as {ref} in {self.cloud.home}", hint=hint)
        if release := self.ledger.release(digest):
            return release
        hint = "./goldsmith image.rebuild fills it from AWS"
        raise ContentError(f"the ledger knows no release {digest}", hint=hint)

    def named(self, ref: str) -> Release:
        """The release that a digest means, or that an image as `show` finds it is tagged with; the ledger need not know
        it. Raises ContentError, and UnreadChannelsError.
        """
        name, _, wanted = ref.partition(":")
        if wanted in CHANNELS:
            self.pointed(self.repository(name), wanted)  # which refuses what no document says
        return (None if ref.startswith("sha256:") else self._home_image(ref).release) or self.meant(ref)

    def evidence(self, release: Release, policy: str = "") -> Verdict:
        """The verdict that a trusted key signed; where AWS alone is asked, that the gate let it through, as it must.

        Raises RefusedError unless the signed statement holds of the release's own images, the candidate among them, and
        UntrustedError unless its evidence does.
        """
        cloud, key = self.cloud, public_key(self.cloud)
        candidate = in_channel(cloud, cloud.home, release.name, "candidate")
        named = [candidate] if candidate and candidate.release and candidate.release.digest == release.digest else []
        for ami in [*named, *images_of(cloud, release)]:
            if not (proof := proof_of(cloud, ami, key)).holds:
                why = f"{shown(release)}: what {ami.where} shows is not what was signed"
                hint = f"./goldsmith image.revoke {release.digest} takes it out, if nobody can say why"
                raise RefusedError(why, evidence="\n".join(proof.problems), hint=hint)
        if cloud.registry:
            return attested_verdict(release, self._proved(release, *(("", policy) if policy else ("",))))
        return Verdict(release.name, release.policy, release.published_at, True, (), release.content)

    def moving(self, repository: str) -> AbstractContextManager[None]:
        """Let no other process of this installation move the channels meanwhile, where documents tell of them."""
        return self.documents.moving(self._signed_as(repository)) if self.documents else nullcontext()

    def move(self, release: Release, channel: str, back: str) -> str:
        """Move the parameters of all regions, home last; one where the release has no image that can be launched stays.

        Raises RefusedError where that is home.
        """
        amis = self._usable(release)
        if self.cloud.home not in {ami.region for ami in amis}:
            hint = "enable the one that is disabled; or ./goldsmith image.rebuild reads from AWS what there is"
            raise RefusedError(f"{shown(release)} has no image in {self.cloud.home} that can be launched", hint=hint)
        left = self.tagged(release.repository, channel)
        if self.documents:
            before, _ = self.documents.write(
                self._signed_as(release.repository), lambda one: one.moved(channel, release.digest, back),
                self._first(release.repository),
            )  # fmt: skip
            left = before.channels[channel].digest if channel in before.channels else ""
        self._lead(release, channel, back)
        return left

    def _lead(self, release: Release, channel: str, back: str) -> None:
        """Move the parameters of all regions, home last."""
        for ami in sorted(self._usable(release), key=lambda ami: ami.region == self.cloud.home):
            _move_in(self.cloud, release, ami, channel, back)

    def sign(self, repository: str, *, recover: bool = False) -> tuple[str, ...]:
        """Parameters first, as with tags."""
        if self.documents is None:
            return ()
        name, first = self._signed_as(repository), self._first(repository, recover=recover)
        if not recover and self.documents.is_recent(name, partial(self.tagged, repository)):
            return ()
        with self.moving(repository):
            base = self.documents.base(name, first, recover=recover)
            if self.documents.is_unpublished(base) and not any(self.tagged(repository, one) for one in CHANNELS):
                return ("nothing is published",)
            self._follow(repository, base)
            _, after = self.documents.write(name, lambda one: settled(self, repository, one), first, recover=recover)
            if after.channels != base.without_left().channels:  # another installation moved one meanwhile
                self._follow(repository, after)
        return after.lines

    def _follow(self, repository: str, document: ChannelDocument) -> None:
        """Let the parameters of all channels name what the document says."""
        for channel, one in document.channels.items():
            if self.tagged(repository, channel) != one.digest and (release := self.ledger.release(one.digest)):
                self._lead(release, channel, one.previous)

    def _first(self, repository: str, *, recover: bool = False) -> Callable[[], ChannelDocument]:
        return lambda: first_document(self, repository, self._signed_as(repository), recover=recover)

    def _signed_as(self, repository: str) -> str:
        """The name of a repository in its document: the registry's."""
        return signed_as(self.cloud, repository)

    def unmoved(self, release: Release) -> str:
        """The regions of the settings where it has no image that can be launched."""
        there = {ami.region for ami in self._usable(release)}
        lacking = ", ".join(region for region in self.cloud.aws.all_regions if region not in there)
        what = f"not in {lacking}, where it has no image that can be launched: the channel there stays as it was"
        todo = f"enable one that is disabled; ./goldsmith image.publish {release.name} makes one that is missing"
        return lacking and f"{what}; {todo}"

    def _usable(self, release: Release) -> list[Ami]:
        """The release's images that can be launched."""
        return [ami for ami in images_of(self.cloud, release) if ami.state == "available"]

    def mark_revoked(self, release: Release, reason: str) -> None:
        """Tag the images in every region, deprecate them at once, and tell the ledger."""
        cloud = self.cloud
        for ami in images_of(cloud, release):
            if ami.release and not ami.release.revoked_at:
                put_tags(cloud, ami.region, (ami.id,), tags.of_revocation(reason, cloud.prefix, cloud.now))
                deprecate(cloud, ami, cloud.now + SOON)
        if not release.revoked_at:
            self.ledger.revoke(release.digest, reason, self.now)
            self.note("revoke", f"{release.repository}@{release.digest}", reason)
        if cloud.registry and self.documents:
            try:
                digests = (release.content, release.digest)
                with self.moving(release.repository):
                    _, after = self.documents.write(
                        self._signed_as(release.repository), lambda one: one.revoking(digests, self.now, reason),
                        self._first(release.repository),
                    )  # fmt: skip
                end_evidence(cloud.registry, release, after.revoked[release.digest].at)
            except GoldsmithError as error:  # AWS and the ledger know; what still has to be done must not wait for it
                say(f"{shown(release)} is revoked, but its evidence does not say so yet: {error.message}\n"
                    "revoke it again when the registry answers")  # fmt: skip

    def publication(self) -> Publication:
        """What makes a release's images. Asks whether they can be published by these settings."""
        preflight(self.cloud)
        return AwsPublication(self.cloud)

    def retire(self, *, apply: bool) -> list[Retirement]:
        """Decide over every image of ours in every region, whatever its definition is called by now."""
        decisions = retire_images(self.cloud, apply=apply, rules=self.rules)
        return [
            Retirement.of((one.subject.release or one.subject).name, one.subject.where, one, apply=apply)
            for one in decisions
        ]

    def read_in(self) -> tuple[tuple[Release, ...], tuple[GoldsmithError, ...]]:
        """Read every image whose signed statement holds, whatever its definition is called by now.

        Read again, it changes nothing. What our key has not signed is not believed, and said; what a killed run left
        is the reaper's. A release whose evidence proves nothing is passed over, and said.
        """
        cloud, found = self.cloud, dict[str, Release]()
        key = public_key(cloud)
        for ami in (ami for region in cloud.aws.all_regions for ami in ours_in(cloud, region)):
            if f"{cloud.prefix}{tags.REAP_AFTER}" in ami.tags:
                continue
            if problems := proof_of(cloud, ami, key).problems:
                say(f"{ami.where} is passed over: {problems[0]}")
            elif ami.release:
                found[ami.release.digest] = ami.release
                _record(cloud, ami, ami.release)
        oldest_first = reversed(newest_first(found.values()))
        proven, errors = read_in_proven(self.ledger, cloud.store, oldest_first, self._proved)
        return newest_first(proven), tuple(errors)

    def show(self, ref: str) -> ShownMachine:
        """What AWS says of `ref`: a name, `name:channel`, `name:date-digest`, or an image's id at home.

        Raises ContentError where there is none, with the nearest of the names.
        """
        cloud, home = self.cloud, self._home_image(ref)
        others = (named(cloud, region, home.name) for region in cloud.aws.all_regions if region != home.region)
        found, key = [home, *(ami for ami in others if ami)], public_key(cloud)
        proofs = {ami.where: proof_of(cloud, ami, key) for ami in found}
        release = home.release
        if release is None:
            raise ContentError(f"{home.where} carries no tags of a release of ours", hint="./goldsmith image.list")
        said = proofs[home.where].statement.get("predicate", {})
        shown = tuple(_shown(cloud, ami, proofs[ami.where], release.name) for ami in found)
        proof, untrusted = proof_or_why(lambda: self._proved(release), GoldsmithError)
        return ShownMachine(
            **as_shown(release, ref, cloud.now),
            linear_digest=home.tags.get(f"{cloud.prefix}{tags.LINEAR}", ""),
            packages_digest=said.get("packagesDigest", ""),
            verdict_digest=said.get("verdictDigest", ""),
            builder=said.get("builder", ""),
            proven=all(proof.holds for proof in proofs.values()),
            problems=tuple(dict.fromkeys(problem for one in shown for problem in one.problems)),
            images=shown,
            untrusted=untrusted,
            attestations=shown_attestations(proof),
        )

    def _proved(self, release: Release, *policies: str) -> Attested:
        """What the evidence proves; nothing where AWS alone is asked. Raises UntrustedError, OutsideError."""
        registry = self.cloud.registry
        return evidence_at(registry, release, self.now, *policies) if registry else Attested()

    def _home_image(self, ref: str) -> Ami:
        """The image at home that a reference means."""
        cloud, (name, _, wanted) = self.cloud, ref.partition(":")
        if ref.startswith("ami-"):
            found = image(cloud, cloud.home, ref)
        elif wanted and wanted.removesuffix(PREVIOUS) not in CHANNELS:
            found = named(cloud, cloud.home, f"{cloud.aws.name_prefix}/{name}/{wanted}")
        else:
            channels = (wanted,) if wanted else tuple(reversed(CHANNELS))
            found = next((ami for channel in channels if (ami := in_channel(cloud, cloud.home, name, channel))), None)
        if found is None:
            publish = f"./goldsmith image.publish {name} publishes to the candidate channel"
            hint = nearest(name, self.names) if self.names and name not in self.names else publish
            raise ContentError(f"nothing is published as {ref} in {cloud.home}", hint=hint)
        return found


def signed_as(cloud: Cloud, repository: str) -> str:
    """The name of a repository of the ledger in its signed document; empty where AWS alone is asked."""
    return cloud.registry.repository(repository.rpartition("/")[2]) if cloud.registry else ""


def channel_digest(cloud: Cloud, repository: str, channel: str, documents: ChannelDocuments | None) -> str:
    """The digest of the release that a channel points to, by its signed document, which the parameter at home agrees
    with; empty where there is none. Raises UnreadChannelsError.
    """
    name = channel.removesuffix(PREVIOUS)
    ami = in_channel(cloud, cloud.home, repository.rpartition("/")[2], channel)
    tagged = ami.release.digest if ami and ami.release else ""
    if documents is None:
        return tagged
    document = documents.read(signed_as(cloud, repository))
    if document is None:
        if tagged:
            raise unread(signed_as(cloud, repository), "there is no signed document of them")
        return ""
    if name != channel:
        return document.channels[name].previous if name in document.channels else ""
    require_tag(document, channel, tagged, documents.now)
    return document.channels[channel].digest if channel in document.channels else ""


def revocation_of(cloud: Cloud, documents: ChannelDocuments | None) -> Ask | None:
    """The revocations of machines in the signed documents; None where AWS alone is asked."""
    if documents is None:
        return None
    ask = documents.revocation()
    return lambda repository, digest: ask(signed_as(cloud, repository), digest)


def channel_name(cloud: Cloud, name: str, channel: str) -> str:
    """The parameter of a channel."""
    return f"/{cloud.aws.name_prefix}/{name}/{channel}"


def in_channel(cloud: Cloud, region: str, name: str, channel: str) -> Ami | None:
    """The image that a channel names in a region, if it is still there."""
    found = parameter(cloud, region, channel_name(cloud, name, channel))
    return image(cloud, region, found) if found else None


def _move_in(cloud: Cloud, release: Release, ami: Ami, channel: str, back: str) -> None:
    """Move a channel in one region: where it came from is written first."""
    name = channel_name(cloud, release.name, channel)
    present = parameter(cloud, ami.region, name)
    if present == ami.id:
        return
    previous = _id_of(cloud, ami.region, release.repository, back) if back else present
    if previous and image(cloud, ami.region, previous):  # AWS stores no image's id that is gone
        _put(cloud, ami.region, f"{name}{PREVIOUS}", previous, f"where {channel} of {release.name} would go back to")
    _put(cloud, ami.region, name, ami.id, f"{release.name}, {channel}: {release.digest}")


def _put(cloud: Cloud, region: str, name: str, image_id: str, description: str) -> None:
    """Write a parameter, and see that it is there: the service checks an image's id only after it has answered."""
    ssm, asked = cloud.client("ssm", region), call_arguments.put_parameter(name, image_id, description, image=True)
    if ssm.call_unless("PutParameter", INVALID, **asked) is None:
        # Somebody has made it an advanced one, as sharing it with accounts needs: it never is a standard one again.
        ssm.call("PutParameter", **asked | {"Tier": "Advanced"})
    cloud.clients.until(lambda: parameter(cloud, region, name) == image_id, f"the parameter {name} in {region}")


def _id_of(cloud: Cloud, region: str, repository: str, digest: str) -> str:
    lines = cloud.made(region=region, kind="image", release=digest)
    return next((line.resource for line in lines if cloud.repository(line.name) == repository), "")


def _shown(cloud: Cloud, ami: Ami, proof: StatementProof, name: str) -> ShownAmi:
    every = [f"{channel}{suffix}" for channel in CHANNELS for suffix in ("", PREVIOUS)]
    pointing = [one for one in every if parameter(cloud, ami.region, channel_name(cloud, name, one)) == ami.id]
    return ShownAmi(
        region=ami.region, id=ami.id, state=ami.state, snapshots=ami.snapshots, deprecated_at=ami.deprecated_at,
        channels=tuple(pointing), signed=proof.signed, problems=proof.problems,
    )  # fmt: skip


def _record(cloud: Cloud, ami: Ami, release: Release) -> None:
    """The lines of an image and its snapshots; the snapshots' can be no parents until their digests are at hand."""
    known = {line.resource for line in cloud.made(region=ami.region)}
    of = release, release.digest, ami.region
    stands: dict[str, Any] = {"at": release.published_at, "state": STANDING}
    if ami.id not in known:
        cloud.record(*of, "image", ami.name, resource=ami.id, details={"snapshots": ami.snapshots}, **stands)
    linear = ami.tags[f"{cloud.prefix}{tags.LINEAR}"]
    for snapshot in set(ami.snapshots) - known:
        found = cloud.client("ec2", ami.region).call("DescribeSnapshots", SnapshotIds=[snapshot])["Snapshots"][0]
        details = {"key": found.get("KmsKeyId", ""), "linear": linear, "gib": found["VolumeSize"],
                   "parent": "", "parent_linear": ""}  # fmt: skip
        cloud.record(*of, "snapshot", snapshot, resource=snapshot, details=details, **stands)
