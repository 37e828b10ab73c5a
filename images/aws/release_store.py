"""Releases at AWS: tagged images in every region under a signed statement, and channels that are parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hardening.findings import Verdict
from hardening.foundation.console import say
from hardening.foundation.errors import ContentError, GoldsmithError, RefusedError
from hardening.foundation.settings import Settings
from images.artifact import Release
from images.aws import channels, tags
from images.aws.amis import SOON, deprecate, ours_in, put_tags
from images.aws.cloud import Cloud
from images.aws.model import Ami
from images.aws.preflight import note_on_public_access, preflight
from images.aws.publish import AwsPublication
from images.aws.retire import retire_images
from images.aws.show import ShownMachine, home_image, show_machine
from images.aws.statement import proof_of, public_key
from images.ledger import Made
from images.ledger.releases import STANDING
from images.release.lifecycle import newest_first, shown
from images.release.revocations import said_by_ledger
from images.release.store import Publication, ReleaseStore, Retirement


class AwsStore(ReleaseStore):
    """The releases of machine images, in every region of the settings; home decides.

    `names` are the definitions', to suggest the nearest. No revocation can be asked for: the images' own tags tell.
    """

    revocation = None

    def __init__(self, cloud: Cloud, names: Sequence[str] = ()) -> None:
        self.cloud, self.ledger, self.now, self.actor, self.names = cloud, cloud.ledger, cloud.now, cloud.actor, names

    @property
    def settings(self) -> Settings:
        """The settings of this machine."""
        return self.cloud.settings

    @property
    def place(self) -> str:
        """The account and our images' names in it, in the ledger's words."""
        return self.cloud.repository("")

    def pointed(self, repository: str, channel: str) -> tuple[str, ...]:
        """The digests of the release whose image a parameter names at home, and of its content."""
        found = channels.at(self.cloud, self.cloud.home, repository.rpartition("/")[2], channel)
        return (found.release.digest, found.release.content) if found and found.release else ()

    def find(self, repository: str, digest: str) -> Release | None:
        """A release of the ledger whose image is there at home, with a revocation that only its tags tell of."""
        release = self.ledger.release(digest)
        amis = channels.images_of(self.cloud, release) if release and release.repository == repository else []
        usable = [ami for ami in amis if ami.region == self.cloud.home and ami.state == "available"]
        told = next((ami.release for ami in usable if ami.release), None)
        if release is None or told is None:
            return None
        return replace(release, revoked_at=release.revoked_at or told.revoked_at,
                       revoked_reason=release.revoked_reason or told.revoked_reason)  # fmt: skip

    def meant(self, ref: str) -> Release:
        """The release that a digest means, or an image as `show` finds it, in the ledger's words."""
        shown_at_home = None if ref.startswith("sha256:") else home_image(self.cloud, ref, self.names).release
        digest = shown_at_home.digest if shown_at_home else ref
        if release := self.ledger.release(digest):
            return release
        hint = "./goldsmith image.rebuild fills it from AWS"
        raise ContentError(f"the ledger knows no release {digest}", hint=hint)

    def evidence(self, release: Release) -> Verdict:
        """The verdict that a signature stands for: nothing is made at AWS before the gate let it through.

        Raises RefusedError unless the signed statement holds of the candidate's images and of the release's own.
        """
        cloud, key = self.cloud, public_key(self.cloud)
        candidate = channels.at(cloud, cloud.home, release.name, "candidate")
        for ami in [*([candidate] if candidate else ()), *channels.images_of(cloud, release)]:
            if not (proof := proof_of(cloud, ami, key)).holds:
                raise RefusedError(
                    f"{shown(release)}: what {ami.where} shows is not what was signed",
                    evidence="\n".join(proof.problems),
                    hint=f"./goldsmith image.revoke {release.digest} takes it out, if nobody can say why",
                )
        return Verdict(release.name, release.policy, release.published_at, True, (), release.content)

    def move(self, release: Release, channel: str, back: str) -> None:
        """Move the parameters of all regions. Raises RefusedError where the release has no image at home."""
        channels.move(self.cloud, release, channel, back)

    def mark_revoked(self, release: Release, reason: str) -> None:
        """Tag the images in every region, deprecate them at once, and tell the ledger."""
        cloud = self.cloud
        for ami in channels.images_of(cloud, release):
            if ami.release and not ami.release.revoked_at:
                put_tags(cloud, ami.region, (ami.id,), tags.of_revocation(reason, cloud.prefix, cloud.now))
                deprecate(cloud, ami, cloud.now + SOON)
        if not release.revoked_at:
            self.ledger.revoke(release.digest, reason, self.now)
            self.note("revoke", f"{release.repository}@{release.digest}", reason)

    def publication(self) -> Publication:
        """What makes a release's images. Asks whether they can be published by these settings."""
        note_on_public_access(preflight(self.cloud))
        return AwsPublication(self.cloud)

    def retire(self, *, apply: bool) -> list[Retirement]:
        """Decide over every image of ours in every region, whatever its definition is called by now."""
        decisions = [(one.subject, one) for one in retire_images(self.cloud, apply=apply)]
        return [
            Retirement.of(ami.release.name if ami.release else ami.name, ami.where, one, apply=apply)
            for ami, one in decisions
        ]

    def read_in(self) -> tuple[tuple[Release, ...], tuple[GoldsmithError, ...]]:
        """Read every image whose signed statement holds, whatever its definition is called by now."""
        return rebuild_machines(self.cloud), ()

    def show(self, ref: str) -> ShownMachine:
        """What AWS says of `ref`."""
        return show_machine(self.cloud, ref, self.names)


def rebuild_machines(cloud: Cloud) -> tuple[Release, ...]:
    """Write into the ledger what AWS knows: releases, images, snapshots. Run again, it changes nothing.

    What is not signed by our key is not believed, and said; what a killed run left is the reaper's.
    """
    key, found = public_key(cloud), {}
    for region in cloud.aws.all_regions:
        for ami in ours_in(cloud, region):
            if f"{cloud.prefix}{tags.REAP_AFTER}" in ami.tags:
                continue
            if problems := proof_of(cloud, ami, key).problems:
                say(f"{ami.where} is passed over: {problems[0]}")
            elif ami.release:
                found[ami.release.digest] = ami.release
                _record(cloud, ami, ami.release)
    for release in newest_first(found.values())[::-1]:
        cloud.ledger.record_release(said_by_ledger(cloud.ledger, release))
    return newest_first(found.values())


def _record(cloud: Cloud, ami: Ami, release: Release) -> None:
    """The lines of an image and its snapshots; the snapshots' can be no parents until their digests are at hand."""
    known = {line.resource for line in cloud.made(region=ami.region)}
    if ami.id not in known:
        cloud.ledger.record_made(_line(cloud, ami, release, "image", ami.name, ami.id, {"snapshots": ami.snapshots}))
    linear = ami.tags[f"{cloud.prefix}{tags.LINEAR}"]
    details = {"key": cloud.key(ami.region), "linear": linear, "gib": 0, "parent": "", "parent_linear": ""}
    for snapshot in set(ami.snapshots) - known:
        found = cloud.client("ec2", ami.region).call("DescribeSnapshots", SnapshotIds=[snapshot])["Snapshots"][0]
        sized = details | {"gib": found["VolumeSize"], "key": found.get("KmsKeyId", "")}
        cloud.ledger.record_made(_line(cloud, ami, release, "snapshot", snapshot, snapshot, sized))


def _line(
    cloud: Cloud, ami: Ami, release: Release, kind: str, token: str, resource: str, details: dict[str, object]
) -> Made:
    return Made(cloud.aws.account, ami.region, kind, token, release.name, release.content, release.digest,
                release.published_at, resource, STANDING, details)  # fmt: skip
