"""What a publication makes at AWS: a snapshot, an image over it in each region, dates, shares, a signed statement.

Everything that can be known to fail is asked for first, before a block is uploaded: regions, credentials, keys,
permissions, settings of the accounts, names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from hardening.findings import Verdict
from hardening.foundation.console import say
from hardening.foundation.errors import ContentError, RefusedError
from hardening.foundation.hashing import digest_of
from images.artifact import Artifact, Release
from images.aws import amis, launch_permissions, permissions, tags
from images.aws.client import AwsError, Client
from images.aws.cloud import Cloud, machine_of
from images.aws.machine_evidence import (
    attach_evidence,
    has_evidence,
    manifest_of,
    refuse_taken_tag,
    remove_evidence,
)
from images.aws.model import Ami, MachineImage
from images.aws.permissions import NOTHING, PUBLISHER, only_tags, permit
from images.aws.signed_statement import keep, parameter, prove, public_key, sign, signing_key, statement, statement_name
from images.aws.snapshots import drop_pending, ensure_snapshot
from images.ledger import STANDING, Begun
from images.release import lifecycle
from images.release.store import Publication

if TYPE_CHECKING:
    from images.scan.judge import Judgement

_REAP_TAG = only_tags(f"{{prefix}}{tags.REAP_AFTER}")
_REAP_TAGS = tuple(one.where(_REAP_TAG) for one in (permissions.OWN_IMAGE, permissions.OWN_SNAPSHOT))
PERMISSIONS = (
    permit("sts:GetCallerIdentity", PUBLISHER, on=permissions.ANY),
    permit("ec2:GetEbsEncryptionByDefault ec2:GetImageBlockPublicAccessState", PUBLISHER, on=permissions.ANY),
    permit("ec2:GetSnapshotBlockPublicAccessState", PUBLISHER, on=permissions.ANY),
    permit("ec2:DeleteTags", PUBLISHER, on=_REAP_TAGS),
    permit("kms:DescribeKey", PUBLISHER, on=permissions.KEYS),
    # What `preflight` rehearses, some of it on nothing.
    permit("ec2:RegisterImage", PUBLISHER, on=(permissions.NEW_IMAGE, permissions.REHEARSED_SNAPSHOT)),
    permit("ec2:CopyImage", PUBLISHER, on=(permissions.IMAGE, permissions.SNAPSHOT)),
    permit("ec2:CreateTags ec2:EnableImageDeprecation", PUBLISHER, on=permissions.REHEARSED_IMAGE),
    permit("ec2:CreateTags", PUBLISHER, on=permissions.MADE, by="RegisterImage CopyImage"),
)

DRY = "DryRunOperation"
REGIONS_AT_ONCE = 8
COPIES_AT_ONCE = 20  # EC2's limit of snapshot copies under way to one region


@dataclass(frozen=True)
class AwsPublication(Publication):
    """Publishes a machine image."""

    cloud: Cloud

    def with_digests(self, draft: Release, artifact: Artifact) -> Release:
        """The digest is that of the manifest that the evidence is attached to; the local store holds the content."""
        store = self.cloud.store
        based = lifecycle.based(draft, store.read_json(artifact.digest))
        linear = store.layers_of(artifact.digest)[0].digest
        return replace(based, digest=digest_of(manifest_of(based, linear, self.cloud.prefix)))

    def over(self, draft: Release) -> Iterable[Release]:
        """Releases of the ledger: what one of them lacks at AWS is made again."""
        return self.cloud.ledger.releases_of_content(draft.content)

    def proves(self, known: Release, now: datetime) -> bool:
        """Whether its evidence is there; the statement of what stands is checked as it is made."""
        registry = self.cloud.registry
        return registry is None or has_evidence(registry, known, now)

    def whole(self, known: Release) -> bool:
        """Whether its image stands in every region, open to those whom the settings share images with."""
        found = amis.images_of(self.cloud, known)
        there = {ami.region for ami in found} >= set(self.cloud.aws.all_regions)
        return there and all(launch_permissions.is_shared(self.cloud, ami) for ami in found)

    def due(self) -> str:
        """Whom the settings no longer share images with, and what of ours they still may launch or copy."""
        return launch_permissions.told(launch_permissions.overdue(self.cloud))

    def refuse_taken(self, chosen: Release) -> None:
        """Raise RefusedError where a stranger's image has the name of the release's, UsageError for its tag."""
        cloud, name = self.cloud, amis.image_name(self.cloud, chosen)
        if cloud.registry:
            refuse_taken_tag(cloud.registry, chosen)
        for region in cloud.aws.all_regions:
            found = amis.named(cloud, region, name)
            begun = cloud.made(region=region, kind="image", token=name)
            if found and not begun and not (found.release and found.release.digest == chosen.digest):
                raise amis.taken(found)

    def make(self, begun: Begun, artifact: Artifact, judgement: Judgement) -> None:
        """The evidence of the release, and its images in every region under a signed statement; those of all releases
        are closed to whom the settings no longer name.
        """
        cloud, chosen = self.cloud, begun.release
        machine = machine_of(cloud.store, artifact)
        if cloud.registry:
            attach_evidence(cloud.registry, chosen, machine.linear, begun.documents)
        snapshot = ensure_snapshot(cloud, machine, chosen.digest)
        home = amis.ensure_registered(cloud, chosen, machine, cloud.home, snapshot)
        made = [home, *_copies(cloud, chosen, machine, home)]
        for ami in made:
            launch_permissions.share(cloud, ami)
            amis.deprecate(cloud, ami, chosen.expires_at)
        _note_on_keys(cloud)
        _state(cloud, chosen, machine, made, artifact, judgement.verdict)
        launch_permissions.withdraw(cloud)

    def settle(self, chosen: Release) -> None:
        """Take away the tag that lets the reaper have what a killed run leaves."""
        key = f"{self.cloud.prefix}{tags.REAP_AFTER}"
        for ami in amis.images_of(self.cloud, chosen):
            ec2 = self.cloud.client("ec2", ami.region)
            ec2.call("DeleteTags", Resources=[ami.id, *ami.snapshots], Tags=[{"Key": key}])

    def put_away(self, begun: Release, draft: Release) -> None:
        """Remove the images and snapshots that nothing else stands on."""
        cloud = self.cloud
        say(f"{begun.name}: putting away what a run on {begun.published_at:%Y-%m-%d} left unfinished")
        if cloud.registry:
            remove_evidence(cloud.registry, begun)
        cloud.ledger.end_publication(begun)  # before the rest: the content of one that is under way is no orphan
        for region in cloud.aws.all_regions:  # in one that was named before, the reaper finds it by its line
            found = amis.named(cloud, region, amis.image_name(cloud, begun))
            if found and cloud.made(region=region, kind="image", token=found.name):
                amis.remove_image(cloud, found)
            cloud.forget(kind="image", release=begun.digest, region=region)
        if begun.content != draft.content:
            drop_pending(cloud, begun.content)
            for region, snapshot, name in amis.orphans(cloud):
                if name == begun.name:
                    amis.remove_snapshot(cloud, region, snapshot)


def _copies(cloud: Cloud, chosen: Release, machine: MachineImage, home: Ami) -> list[Ami]:
    """The release's images in the other regions, made side by side; one that fails stops no other."""
    with ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
        others = [region for region in cloud.aws.all_regions if region != home.region]
        copying = [pool.submit(amis.ensure_copied, cloud, chosen, machine, region, home) for region in others]
    return [copied.result() for copied in copying]


def _state(
    cloud: Cloud, chosen: Release, machine: MachineImage, made: Sequence[Ami], artifact: Artifact, verdict: Verdict
) -> None:
    """See that a signed statement binds the images; one that stands and holds is kept."""
    name, key = statement_name(cloud, amis.image_name(cloud, chosen)), public_key(cloud)
    tagged = tags.of_image(chosen, machine.linear, cloud.prefix, chosen.published_at)  # as they are by now
    shown = [replace(ami, tags={**ami.tags, **tagged}) for ami in made]
    kept = parameter(cloud, cloud.home, name)
    if not kept or not all(prove(kept, key, ami, cloud.prefix).holds for ami in shown):
        kept = sign(cloud, statement(chosen, machine, made, artifact, verdict, cloud.prefix))
        keep(cloud, name, kept)
    stands = {"resource": name, "state": STANDING, "details": {"envelope": kept}}
    cloud.record(chosen, chosen.digest, cloud.home, "statement", name, **stands)


def _note_on_keys(cloud: Cloud) -> None:
    """Say what sharing alone does not give: the use of the keys that encrypt the images."""
    if cloud.aws.encrypted and (cloud.aws.share_accounts or cloud.aws.share_organizations):
        say(
            "shared images are encrypted: the policy of each key in aws.kms_keys must let the others use it "
            "(kms:DescribeKey, kms:Decrypt, kms:CreateGrant, kms:ReEncrypt*, kms:GenerateDataKey*); docs/aws.md"
        )


def preflight(cloud: Cloud) -> None:
    """Ask whether images can be published by these settings.

    Say where the account itself would not keep images from becoming public. Ours never do; a mistake might.

    Raises ContentError for the settings, UnreachableError for a region, DeniedError for a missing permission, and
    RefusedError for what an account's own settings forbid.
    """
    _settings(cloud)
    _account(cloud)
    with ThreadPoolExecutor(REGIONS_AT_ONCE) as pool:
        found = list(pool.map(partial(_region, cloud), cloud.aws.all_regions))
    public_key(cloud)
    open_in = sorted(zip(cloud.aws.all_regions, found, strict=True))
    if shown := [f"{region} ({', '.join(what)})" for region, what in open_in if what]:
        say(f"Block Public Access is off in {', '.join(shown)}: enable it to prevent accidental sharing")


def _settings(cloud: Cloud) -> None:
    """What can be seen without asking anybody."""
    home = cloud.home
    for region in cloud.aws.all_regions if cloud.aws.encrypted else ():
        if not (key := cloud.key(region)):
            unfit = "the account's default key will not do: what it encrypts cannot be shared"
            hint = f'kms_keys = {{"{region}" = "arn:aws:kms:{region}:…:key/…"}}'
            raise ContentError(f"no key is set for {region}; {unfit}", key="aws.kms_keys", hint=hint)
        if key.split(":")[3] != region:
            raise ContentError(f"{key} is no key of {region}: keys work in their own region", key="aws.kms_keys")
    signing_key(cloud)
    if home in cloud.aws.regions:
        raise ContentError(f"{home} is where images are made; name only the others", key="aws.regions")


def _account(cloud: Cloud) -> None:
    found = cloud.client("sts").call("GetCallerIdentity")["Account"]
    if found != cloud.aws.account:
        why = f"the credentials are of account {found}, and images are owned by {cloud.aws.account}"
        raise RefusedError(why, hint="other credentials, or another aws.account, or a role for it in aws.roles")


def _region(cloud: Cloud, region: str) -> tuple[str, ...]:
    """Ask one region; what its account would let become public there."""
    ec2 = cloud.client("ec2", region)
    by_default = ec2.call("GetEbsEncryptionByDefault")["EbsEncryptionByDefault"]
    if by_default and not cloud.aws.encrypted:
        hint = "set aws.encrypted = true and a key of your own in aws.kms_keys"
        raise RefusedError(f"{region} encrypts every snapshot by default, and aws.encrypted is false", hint=hint)
    if key := cloud.key(region):
        _key(cloud, region, key)
    for operation, request in _rehearsals(cloud, region).items():
        try:
            ec2.call(operation, DryRun=True, **request)
        except AwsError as error:  # a permission that is missing is another; the rest is for the real call to say
            if not error.code.startswith("Invalid") and error.code != DRY:
                raise
    return _unblocked(ec2)


def _key(cloud: Cloud, region: str, key: str) -> None:
    """A key must be the customer's own, switched on, and there."""
    try:
        found = cloud.client("kms", region).call("DescribeKey", KeyId=key)["KeyMetadata"]
    except AwsError as error:
        if error.code != "NotFoundException":
            raise
        raise ContentError(f"there is no key {key}", key="aws.kms_keys", evidence=error.evidence) from None
    if found.get("KeyManager") == "AWS":
        why = f"{key} is AWS's own key of the account: what it encrypts cannot be shared with another"
        raise RefusedError(why, hint="make a customer-managed key, and name it in aws.kms_keys")
    if not found.get("Enabled", True):
        raise RefusedError(f"{key} is disabled", hint="enable it, or name another in aws.kms_keys")


def _rehearsals(cloud: Cloud, region: str) -> dict[str, dict[str, object]]:
    """Calls that only ask whether they would be allowed."""
    image, snapshot = f"ami-{NOTHING}", f"snap-{NOTHING}"
    root = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}
    named = [{"Key": f"{cloud.prefix}{tags.NAME}", "Value": "rehearsal"}]
    asked: dict[str, dict[str, object]] = {
        "RegisterImage": {
            "Name": "goldsmith-rehearsal",
            "RootDeviceName": "/dev/xvda",
            "BlockDeviceMappings": [root],
            "TagSpecifications": [{"ResourceType": "image", "Tags": named}],
        },
        "CreateTags": {"Resources": [image], "Tags": [{"Key": f"{cloud.prefix}rehearsal", "Value": ""}]},
        "EnableImageDeprecation": {"ImageId": image, "DeprecateAt": cloud.now},
    }
    if region != cloud.home:
        asked["CopyImage"] = {"Name": "goldsmith-rehearsal", "SourceImageId": image, "SourceRegion": cloud.home}
    return asked


def _unblocked(ec2: Client) -> tuple[str, ...]:
    """What the account would let become public in a region: images, snapshots."""
    states = {
        "images": ec2.call("GetImageBlockPublicAccessState").get("ImageBlockPublicAccessState", "unblocked"),
        "snapshots": ec2.call("GetSnapshotBlockPublicAccessState").get("State", "unblocked"),
    }
    return tuple(what for what, state in states.items() if state == "unblocked")
