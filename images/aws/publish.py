"""What a publication makes at AWS: a snapshot, an image over it in each region, dates, shares, a signed statement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hardening.findings import Verdict
from hardening.foundation.console import say
from hardening.foundation.errors import RefusedError
from hardening.foundation.hashing import digest_of
from images.artifact import Artifact, Release
from images.aws import call_arguments, tags
from images.aws.amis import (
    deprecate,
    ensure_copied,
    ensure_registered,
    image_name,
    named,
    orphans,
    remove_image,
    remove_snapshot,
)
from images.aws.channels import images_of
from images.aws.cloud import Cloud, machine_of
from images.aws.model import Ami, MachineImage
from images.aws.preflight import refuse_taken_names
from images.aws.snapshots import drop_pending, ensure_snapshot
from images.aws.statement import keep, parameter, prove, public_key, sign, statement, statement_name
from images.ledger import Begun, Made
from images.ledger.releases import GONE, STANDING
from images.release import lifecycle
from images.release.store import Publication

if TYPE_CHECKING:
    from images.scan.judge import Judgement

COPIES_AT_ONCE = 20  # EC2's limit of snapshot copies under way to one region


@dataclass(frozen=True)
class AwsPublication(Publication):
    """What it takes to publish a machine image."""

    cloud: Cloud

    def with_digests(self, draft: Release, artifact: Artifact) -> Release:
        """The digest is one of all that a release says, and of the disk; the local store holds the content."""
        store = self.cloud.store
        based = lifecycle.based(draft, store.read_json(artifact.digest))
        linear, said = store.layers_of(artifact.digest)[0].digest, lifecycle.annotations(based, self.cloud.prefix)
        return replace(based, digest=digest_of([based.repository, based.content, linear, said]))

    def over(self, draft: Release) -> Iterable[Release]:
        """Releases of the ledger: what one of them lacks at AWS is made again."""
        return self.cloud.ledger.releases_of_content(draft.content)

    def refuse_taken(self, chosen: Release) -> None:
        """Raise RefusedError where a stranger's image has the name of the release's."""
        refuse_taken_names(self.cloud, chosen)

    def make(self, begun: Begun, artifact: Artifact, judgement: Judgement) -> None:
        """The release's images in every region under a signed statement; of the documents it holds the digests."""
        cloud, chosen = self.cloud, begun.release
        machine = machine_of(cloud.store, cloud.settings, artifact)
        snapshot = ensure_snapshot(cloud, machine, chosen.digest)
        home = ensure_registered(cloud, chosen, machine, cloud.home, snapshot)
        amis = [home, *_copies(cloud, chosen, machine, home)]
        for ami in amis:
            _share(cloud, ami)
            deprecate(cloud, ami, chosen.expires_at)
        _note_on_keys(cloud)
        _state(cloud, chosen, machine, amis, artifact, judgement.verdict)

    def settle(self, chosen: Release) -> None:
        """Take away the tag that lets the reaper have what a killed run leaves."""
        key = f"{self.cloud.prefix}{tags.REAP_AFTER}"
        for ami in images_of(self.cloud, chosen):
            ec2 = self.cloud.client("ec2", ami.region)
            ec2.call("DeleteTags", Resources=[ami.id, *ami.snapshots], Tags=[{"Key": key}])

    def put_away(self, begun: Release, draft: Release) -> None:
        """Remove the images and snapshots that nothing else stands on."""
        cloud = self.cloud
        say(f"{begun.name}: putting away what a run on {begun.published_at:%Y-%m-%d} left unfinished")
        cloud.ledger.end_publication(begun)  # first: the content of one that is under way is no orphan
        for region in cloud.aws.all_regions:
            found = named(cloud, region, image_name(cloud, begun))
            if found and (cloud.made(region=region, kind="image", token=found.name)):
                remove_image(cloud, found)
        for line in cloud.made(kind="image", release=begun.digest):
            cloud.mark(line, state=GONE)
        if begun.content != draft.content:
            drop_pending(cloud, begun.content)
            for region, snapshot, name in orphans(cloud):
                if name == begun.name:
                    remove_snapshot(cloud, region, snapshot)


def _copies(cloud: Cloud, chosen: Release, machine: MachineImage, home: Ami) -> list[Ami]:
    """The release's images in the other regions, made side by side; one that fails stops no other."""
    with ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
        others = [region for region in cloud.aws.all_regions if region != home.region]
        copying = [pool.submit(ensure_copied, cloud, chosen, machine, region, home) for region in others]
    return [copied.result() for copied in copying]


def _state(
    cloud: Cloud, chosen: Release, machine: MachineImage, amis: Sequence[Ami], artifact: Artifact, verdict: Verdict
) -> None:
    """See that a signed statement binds the images; one that stands and holds is kept."""
    name, key = statement_name(cloud, image_name(cloud, chosen)), public_key(cloud)
    shown = [_shown_after(cloud, ami, chosen, machine) for ami in amis]
    kept = parameter(cloud, cloud.home, name)
    if not kept or not all(prove(kept, key, ami, cloud.prefix).holds for ami in shown):
        said = statement(chosen, machine, amis, artifact, verdict, cloud.prefix)
        kept = sign(cloud, said)
        keep(cloud, name, kept)
    cloud.ledger.record_made(
        Made(cloud.aws.account, cloud.home, "statement", name, chosen.name, chosen.content, chosen.digest, cloud.now,
             name, STANDING, {"envelope": kept})
    )  # fmt: skip


def _shown_after(cloud: Cloud, ami: Ami, chosen: Release, machine: MachineImage) -> Ami:
    """The image with the tags that it has by now."""
    return replace(ami, tags={**ami.tags, **tags.of_image(chosen, machine.linear, cloud.prefix, chosen.published_at)})


def _share(cloud: Cloud, ami: Ami) -> None:
    """Let the settings' accounts and organisations launch an image, and its accounts copy the snapshots.

    Raises RefusedError where the image or a snapshot is open to the public.
    """
    ec2, aws = cloud.client("ec2", ami.region), cloud.aws
    if aws.share_accounts or aws.share_organizations:
        ec2.call(
            "ModifyImageAttribute", **call_arguments.share_image(ami.id, aws.share_accounts, aws.share_organizations)
        )
    for snapshot in ami.snapshots if aws.share_accounts else ():
        ec2.call("ModifySnapshotAttribute", **call_arguments.share_snapshot(snapshot, aws.share_accounts))
    _refuse_public(cloud, ami)


def _refuse_public(cloud: Cloud, ami: Ami) -> None:
    """Raise RefusedError where everybody may launch an image or copy its snapshots."""
    ec2 = cloud.client("ec2", ami.region)
    found = ec2.call("DescribeImageAttribute", ImageId=ami.id, Attribute="launchPermission")["LaunchPermissions"]
    public = [ami.id] if any(permission.get("Group") == "all" for permission in found) else []
    for snapshot in ami.snapshots:
        asked = {"SnapshotId": snapshot, "Attribute": "createVolumePermission"}
        allowed = ec2.call("DescribeSnapshotAttribute", **asked).get("CreateVolumePermissions", ())
        public += [snapshot] if any(permission.get("Group") == "all" for permission in allowed) else []
    if public:
        raise RefusedError(
            f"{' and '.join(public)} in {ami.region} is public; images of ours never are",
            hint="take the permission of the group `all` away; Block Public Access keeps it from coming back",
        )


def _note_on_keys(cloud: Cloud) -> None:
    """Say what sharing alone does not give: the use of the keys that encrypt the images."""
    if cloud.aws.encrypted and (cloud.aws.share_accounts or cloud.aws.share_organizations):
        say(
            "shared images are encrypted: the policy of each key in aws.kms_keys must let the others use it "
            "(kms:DescribeKey, kms:Decrypt, kms:CreateGrant, kms:ReEncrypt*, kms:GenerateDataKey*); docs/aws.md"
        )
