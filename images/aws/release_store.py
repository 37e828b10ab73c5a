"""Releases at AWS: tagged images in every region under a signed statement, and channels that are parameters."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from hardening.foundation.errors import ContentError, GoldsmithError, RefusedError
from hardening.foundation.hashing import digest_of
from hardening.foundation.locks import only_one
from hardening.foundation.settings import Settings
from images.artifact import Artifact, Release
from images.aws import channels, tags
from images.aws.amis import SOON, deprecate, put_tags
from images.aws.cloud import Cloud
from images.aws.expiry import DEPRECATE, DISABLE, REMOVE
from images.aws.preflight import preflight, refuse_taken_names
from images.aws.publish import images_for, keep_for_good, put_away
from images.aws.rebuild import rebuild_machines
from images.aws.retire import retire_images
from images.aws.sharing import note_on_public_access
from images.aws.show import ShownMachine, home_image, show_machine
from images.aws.statement import proof_of, public_key
from images.documents import Document
from images.release import lifecycle
from images.release.channels import point
from images.release.history import refuse_policy, shown
from images.release.store import ReleaseStore, Retirement

if TYPE_CHECKING:
    from images.scan.judge import Judgement

DONE = {DEPRECATE: "deprecated", DISABLE: "disabled", REMOVE: "removed"}


class AwsStore(ReleaseStore):
    """The releases of machine images, in every region of the settings; home decides."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.ledger, self.now, self.actor = cloud, cloud.ledger, cloud.now, cloud.actor

    @property
    def settings(self) -> Settings:
        """The settings of this machine."""
        return self.cloud.settings

    def repository(self, name: str) -> str:
        """Where a definition's releases stand, in the ledger's words."""
        return self.cloud.repository(name)

    def pointed(self, repository: str, channel: str) -> tuple[str, ...]:
        """The digests of the release whose image a parameter names at home, and of its content."""
        found = channels.at(self.cloud, self.cloud.home, repository.rpartition("/")[2], channel)
        return (found.release.digest, found.release.content) if found and found.release else ()

    def channel(self, name: str, channel: str) -> Release:
        """The release whose image a parameter names at home. Raises ContentError where there is none."""
        cloud = self.cloud
        found = channels.at(cloud, cloud.home, name, channel)
        if found is None or found.release is None:
            where = channels.channel_name(cloud, name, channel)
            hint = f"./goldsmith image.publish {name}"
            raise ContentError(f"nothing is published as {where} in {cloud.home}", hint=hint)
        return found.release

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

    def meant(self, ref: str, known: Collection[str] = ()) -> Release:
        """The release that a digest means, or an image as `show` finds it, in the ledger's words."""
        shown_at_home = None if ref.startswith("sha256:") else home_image(self.cloud, ref, known).release
        digest = shown_at_home.digest if shown_at_home else ref
        if release := self.ledger.release(digest):
            return release
        hint = "./goldsmith image.rebuild fills it from AWS"
        raise ContentError(f"the ledger knows no release {digest}", hint=hint)

    def require_evidence(self, release: Release, policy: str) -> None:
        """Raise RefusedError unless the signed statement holds of the candidate's images and of the release's own.

        That a release was signed says that the gate let it through: nothing is made at AWS before.
        """
        refuse_policy(release, release.policy, policy)
        cloud, key = self.cloud, public_key(self.cloud)
        candidate = channels.at(cloud, cloud.home, release.name, "candidate")
        for ami in [*([candidate] if candidate else ()), *channels.images_of(cloud, release)]:
            if not (proof := proof_of(cloud, ami, key)).holds:
                raise RefusedError(
                    f"{shown(release)}: what {ami.where} shows is not what was signed",
                    evidence="\n".join(proof.problems),
                    hint=f"./goldsmith image.revoke {release.digest} takes it out, if nobody can say why",
                )

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

    @contextmanager
    def publishing(self, name: str) -> Iterator[None]:
        """Ask whether images can be published by these settings; then one run at a time publishes a definition."""
        note_on_public_access(preflight(self.cloud))
        with only_one(self.settings.state_dir / f"aws-{name}.lock", f"publishing {name}"):
            yield

    def annotations(self, repository: str, artifact: Artifact) -> Mapping[str, str]:  # noqa: ARG002
        """The annotations of the content's manifest, which the local store holds."""
        return self.cloud.store.read_json(artifact.digest).get("annotations") or {}

    def digest(self, draft: Release, artifact: Artifact) -> str:
        """A digest of all that a release says, and of the disk."""
        linear = self.cloud.store.layers_of(artifact.digest)[0].digest
        return digest_of([draft.repository, draft.content, linear, lifecycle.annotations(draft, self.prefix)])

    def refuse_taken(self, chosen: Release) -> None:
        """Raise RefusedError where a stranger's image has the name of the release's."""
        refuse_taken_names(self.cloud, chosen)

    def complete(self, chosen: Release, artifact: Artifact, judgement: Judgement, said: tuple[Document, ...]) -> None:  # noqa: ARG002
        """Every step of a publication, in the order in which nothing visible is ever half done."""
        amis = images_for(self.cloud, chosen, artifact, judgement.verdict)
        self.record(chosen)
        point(self, chosen, "candidate", "publish")
        for ami in amis:
            keep_for_good(self.cloud, ami)

    def put_away(self, begun: Release, draft: Release) -> None:
        """Remove the images and snapshots that nothing else stands on, unless it got as far as a release."""
        put_away(self.cloud, begun, draft)

    def retire(self, names: Collection[str], *, apply: bool) -> list[Retirement]:  # noqa: ARG002 - all are looked at
        """Decide over every image of ours in every region, whatever its definition is called by now."""
        return [
            Retirement(
                decision.ami.release.name if decision.ami.release else decision.ami.name, decision.ami.where,
                DONE.get(decision.action, decision.action.value) if apply else decision.action.value, decision.why,
            )
            for decision in retire_images(self.cloud, apply=apply)
        ]  # fmt: skip

    def read_in(self, names: Iterable[str]) -> tuple[tuple[Release, ...], tuple[GoldsmithError, ...]]:  # noqa: ARG002
        """Read every image whose signed statement holds, whatever its definition is called by now."""
        return rebuild_machines(self.cloud), ()

    def show(self, ref: str, known: Collection[str]) -> ShownMachine:
        """What AWS says of `ref`."""
        return show_machine(self.cloud, ref, known)
