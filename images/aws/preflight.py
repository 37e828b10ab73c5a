"""Everything that can be known to fail is asked for first, before a block is uploaded: regions, credentials, keys,
permissions, settings of the accounts, names.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from hardening.foundation.console import say
from hardening.foundation.errors import ContentError, RefusedError
from images.artifact import Release
from images.aws.amis import image_name, named, taken
from images.aws.client import AwsError
from images.aws.cloud import Cloud
from images.aws.statement import public_key

DRY = "DryRunOperation"
NOBODY = "00000000000000000"
REGIONS_AT_ONCE = 8


def preflight(cloud: Cloud) -> dict[str, tuple[str, ...]]:
    """Ask whether images can be published by these settings; what could become public, by region.

    Raises ContentError for the settings, UnreachableError for a region, DeniedError for a missing permission, and
    RefusedError for what an account's own settings forbid.
    """
    _settings(cloud)
    _account(cloud)
    with ThreadPoolExecutor(REGIONS_AT_ONCE) as pool:
        open_in = dict(
            zip(cloud.aws.all_regions, pool.map(partial(_region, cloud), cloud.aws.all_regions), strict=True)
        )
    public_key(cloud)
    return open_in


def note_on_public_access(open_in: dict[str, tuple[str, ...]]) -> None:
    """Say where the account itself would not keep images from becoming public. Ours never do; a mistake might."""
    shown = [f"{region} ({', '.join(what)})" for region, what in sorted(open_in.items()) if what]
    if shown:
        say(f"Block Public Access is off in {', '.join(shown)}: enable it to prevent accidental sharing")


def refuse_taken_names(cloud: Cloud, release: Release) -> None:
    """Raise RefusedError where a stranger's image has the name that the release's image would get."""
    name = image_name(cloud, release)
    for region in cloud.aws.all_regions:
        found = named(cloud, region, name)
        begun = cloud.made(region=region, kind="image", token=name)
        ours = found and (begun or (found.release and found.release.digest == release.digest))
        if found and not ours:
            raise taken(found)


def _settings(cloud: Cloud) -> None:
    """What can be seen without asking anybody."""
    home = cloud.home
    for region in cloud.aws.all_regions if cloud.aws.encrypted else ():
        if not (key := cloud.key(region)):
            raise ContentError(
                f"no key is set for {region}; the account's default key will not do: what it encrypts cannot be shared",
                key="aws.kms_keys", hint=f'kms_keys = {{"{region}" = "arn:aws:kms:{region}:…:key/…"}}',
            )  # fmt: skip
        if key.split(":")[3] != region:
            raise ContentError(f"{key} is no key of {region}: keys work in their own region", key="aws.kms_keys")
    if not cloud.aws.signing_key:
        public_key(cloud)
    if home in cloud.aws.regions:
        raise ContentError(f"{home} is where images are made; name only the others", key="aws.regions")


def _account(cloud: Cloud) -> None:
    found = cloud.client("sts").call("GetCallerIdentity")["Account"]
    if found != cloud.aws.account:
        raise RefusedError(
            f"the credentials are of account {found}, and images are owned by {cloud.aws.account}",
            hint="other credentials, or another aws.account, or a role for it in aws.roles",
        )


def _region(cloud: Cloud, region: str) -> tuple[str, ...]:
    """Ask one region; what its account would let become public there."""
    ec2 = cloud.client("ec2", region)
    by_default = ec2.call("GetEbsEncryptionByDefault")["EbsEncryptionByDefault"]
    if by_default and not cloud.aws.encrypted:
        raise RefusedError(
            f"{region} encrypts every snapshot by default, and aws.encrypted is false",
            hint="set aws.encrypted = true and a key of your own in aws.kms_keys",
        )
    if key := cloud.key(region):
        _key(cloud, region, key)
    for operation, request in _rehearsals(cloud, region).items():
        _rehearse(cloud, region, operation, request)
    return _unblocked(cloud, region)


def _key(cloud: Cloud, region: str, key: str) -> None:
    """A key must be the customer's own, switched on, and there."""
    try:
        found = cloud.client("kms", region).call("DescribeKey", KeyId=key)["KeyMetadata"]
    except AwsError as error:
        if error.code != "NotFoundException":
            raise
        raise ContentError(f"there is no key {key}", key="aws.kms_keys", evidence=error.evidence) from None
    if found.get("KeyManager") == "AWS":
        raise RefusedError(
            f"{key} is AWS's own key of the account: what it encrypts cannot be shared with another",
            hint="make a customer-managed key, and name it in aws.kms_keys",
        )
    if not found.get("Enabled", True):
        raise RefusedError(f"{key} is disabled", hint="enable it, or name another in aws.kms_keys")


def _rehearsals(cloud: Cloud, region: str) -> dict[str, dict[str, object]]:
    """Calls that only ask whether they would be allowed."""
    image, snapshot = f"ami-{NOBODY}", f"snap-{NOBODY}"
    root = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}
    asked: dict[str, dict[str, object]] = {
        "RegisterImage": {"Name": "goldsmith-rehearsal", "RootDeviceName": "/dev/xvda", "BlockDeviceMappings": [root]},
        "CreateTags": {"Resources": [image], "Tags": [{"Key": f"{cloud.prefix}rehearsal", "Value": ""}]},
        "EnableImageDeprecation": {"ImageId": image, "DeprecateAt": cloud.now},
    }
    if region != cloud.home:
        asked["CopyImage"] = {"Name": "goldsmith-rehearsal", "SourceImageId": image, "SourceRegion": cloud.home}
    return asked


def _rehearse(cloud: Cloud, region: str, operation: str, request: dict[str, object]) -> None:
    """Raise DeniedError where a call would not be allowed. Whatever else it answers is for the real one to say."""
    try:
        cloud.client("ec2", region).call(operation, DryRun=True, **request)
    except AwsError as error:
        if error.code.startswith("Invalid") or error.code == DRY:
            return
        raise


def _unblocked(cloud: Cloud, region: str) -> tuple[str, ...]:
    """What the account would let become public in a region: images, snapshots."""
    ec2 = cloud.client("ec2", region)
    states = {
        "images": ec2.call("GetImageBlockPublicAccessState").get("ImageBlockPublicAccessState", "unblocked"),
        "snapshots": ec2.call("GetSnapshotBlockPublicAccessState").get("State", "unblocked"),
    }
    return tuple(what for what, state in states.items() if state == "unblocked")
