"""Images are shared with the accounts and organisations of the settings, never with the public."""

from __future__ import annotations

from hardening.foundation.console import say
from hardening.foundation.errors import RefusedError
from images.aws import requests
from images.aws.cloud import Cloud
from images.aws.model import Ami


def share(cloud: Cloud, ami: Ami) -> None:
    """Let the settings' accounts and organisations launch an image, and its accounts copy the snapshots.

    Raises RefusedError where the image or a snapshot is open to the public.
    """
    ec2, aws = cloud.client("ec2", ami.region), cloud.aws
    if aws.share_accounts or aws.share_organizations:
        ec2.call("ModifyImageAttribute", **requests.share_image(ami.id, aws.share_accounts, aws.share_organizations))
    for snapshot in ami.snapshots if aws.share_accounts else ():
        ec2.call("ModifySnapshotAttribute", **requests.share_snapshot(snapshot, aws.share_accounts))
    refuse_public(cloud, ami)


def refuse_public(cloud: Cloud, ami: Ami) -> None:
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


def unblocked(cloud: Cloud, region: str) -> tuple[str, ...]:
    """What the account would let become public in a region: images, snapshots."""
    ec2 = cloud.client("ec2", region)
    states = {
        "images": ec2.call("GetImageBlockPublicAccessState").get("ImageBlockPublicAccessState", "unblocked"),
        "snapshots": ec2.call("GetSnapshotBlockPublicAccessState").get("State", "unblocked"),
    }
    return tuple(what for what, state in states.items() if state == "unblocked")


def note_on_public_access(open_in: dict[str, tuple[str, ...]]) -> None:
    """Say where the account itself would not keep images from becoming public. Ours never do; a mistake might."""
    shown = [f"{region} ({', '.join(what)})" for region, what in sorted(open_in.items()) if what]
    if shown:
        say(f"Block Public Access is off in {', '.join(shown)}: nothing but care keeps a mistake out there")


def note_on_keys(cloud: Cloud) -> None:
    """Say what sharing alone does not give: the use of the keys that encrypt the images."""
    if cloud.aws.encrypted and (cloud.aws.share_accounts or cloud.aws.share_organizations):
        say(
            "shared images are encrypted: the policy of each key in aws.kms_keys must let the others use it "
            "(kms:DescribeKey, kms:Decrypt, kms:CreateGrant, kms:ReEncrypt*, kms:GenerateDataKey*); docs/aws.md"
        )
