"""What tests of machine images at AWS share: keys in the emulator, a small disk, and a cloud to publish to."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hardening.foundation.durations import duration
from hardening.foundation.settings import Aws, Settings
from hardening.model import Kind
from images.artifact import Artifact
from images.aws.client import Client, Clients
from images.aws.cloud import Cloud
from images.aws.release_store import AwsStore
from images.ledger import Ledger
from images.machine.blocks import BLOCK, digest_of
from images.model import Definition
from images.release.publish import Published, release
from images.store.oci import Store
from tests.strict_aws import ACCOUNT, REGION, StrictAws
from tests.support.publishing import PACKAGES, judged

HOME, OTHER, THIRD = REGION, "eu-west-1", "us-east-1"
PARTNER = "210987654321"
ORGANIZATION = "arn:aws:organizations::123456789012:organization/o-abcdefghij"
BLOCKS = 12
DAY = timedelta(days=1)
MACHINE_CONFIG = "application/vnd.dev.goldsmith.machine.config.v1+json"
MACHINE_BLOCKS = "application/vnd.dev.goldsmith.disk.blocks.v1"


_clients: dict[Any, Client] = {}


def made_once(make: Callable[[Clients, str, str, str], Client]) -> Callable[[Clients, str, str, str], Client]:
    """How `Clients` makes a client, once a process for the same settings and environment: its models cost the most.

    One that assumes a role is made again, as the emulator forgets its credentials.
    """

    def once(clients: Clients, service: str, account: str, region: str) -> Client:
        if account in clients.settings.roles or account != clients.settings.account:
            return make(clients, service, account, region)
        around = frozenset((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
        given = clients.settings
        asked = (service, account, region, given.attempts, given.timeout, given.parallel, around)
        if asked not in _clients:
            _clients[asked] = make(clients, service, account, region)
        return _clients[asked]

    return once


def today() -> datetime:
    """The real day: the emulator, as AWS, deprecates nothing in the past."""
    return datetime.now(UTC).replace(microsecond=0)


def keys(aws: StrictAws, *regions: str) -> dict[str, str]:
    """A customer-managed key in each region."""
    return {region: _made(aws, region, "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT") for region in regions}


def signing_key(aws: StrictAws) -> str:
    """A key that signs."""
    return _made(aws, HOME, "ECC_NIST_P256", "SIGN_VERIFY")


def _made(aws: StrictAws, region: str, spec: str, usage: str) -> str:
    return str(aws.client("kms", region).create_key(KeySpec=spec, KeyUsage=usage)["KeyMetadata"]["Arn"])


def settings_at(aws: StrictAws, folder: Path, **more: Any) -> Settings:
    """Settings for three regions, shared with a partner and an organisation."""
    regions = more.pop("regions", (OTHER, THIRD))
    given: dict[str, Any] = {
        "account": ACCOUNT,
        "region": HOME,
        "regions": regions,
        "kms_keys": keys(aws, HOME, *regions),
        "signing_key": signing_key(aws),
        "share_accounts": (PARTNER,),
        "share_organizations": (ORGANIZATION,),
        "timeout": duration("2s"),
        "wait_for": duration("1m"),
    }
    return Settings(state=folder / "state", aws=Aws(**given | more))


def cloud_for(settings: Settings, now: datetime | None = None) -> Cloud:
    """A cloud by those settings, with ledger and store in the state directory."""
    return Cloud(
        settings, Clients(settings.aws), Ledger.open(settings.database_url), Store(settings.state_dir / "store"),
        now or today(), "ann",
    )  # fmt: skip


def at(cloud: Cloud, now: datetime) -> Cloud:
    """The same cloud at another moment."""
    return replace(cloud, now=now)


def disk(changes: Mapping[int, bytes] | None = None, blocks: int = BLOCKS, seed: int = 1) -> list[bytes]:
    """The blocks of a small disk: some of noise, some of zeros; `changes` replaces blocks by index."""
    noise = random.Random(seed)
    made = [bytes(BLOCK) if index % 3 == 2 else noise.randbytes(BLOCK) for index in range(blocks)]
    for index, block in (changes or {}).items():
        made[index] = block
    return made


def built(cloud: Cloud, blocks: list[bytes], name: str = "debian-server") -> Artifact:
    """A machine artifact as the builder leaves it: raw disk, block digests, content manifest, ledger line."""
    layer = cloud.store.put_bytes(b"".join(map(digest_of, blocks)), MACHINE_BLOCKS)
    path = cloud.store.disk(layer.digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(blocks))
    size = len(blocks) * BLOCK
    config = {"architecture": "amd64", "os": "linux", "disk": {"size_bytes": size, "linear": layer.digest}}
    content = cloud.store.write_image(config, [layer])
    artifact = Artifact(
        name, "linux/amd64", f"sha256:in-{layer.digest[7:19]}", content.digest, {"builder": "1"}, PACKAGES,
        cloud.now, cloud.now, size,
    )  # fmt: skip
    cloud.ledger.record_artifact(artifact)
    return artifact


def definition(name: str = "debian-server", **more: Any) -> Definition:
    """A machine's definition; 30 days of life, 7 of warning."""
    given: dict[str, Any] = {"base": {"bootstrap": {"family": "debian", "suite": "trixie"}}} | more
    return Definition(name=name, title=name, owner="ann", kind=Kind.MACHINE, profile="machine-base", **given)


def publish(cloud: Cloud, blocks: list[bytes], name: str = "debian-server", **more: Any) -> Published:
    """Build from these blocks and publish what was built."""
    said = judged(cloud.now)
    judgement = replace(said, verdict=replace(said.verdict, subject=name))
    artifact = built(cloud, blocks, name)
    cloud.ledger.record_verdict(artifact.digest, judgement.verdict)
    return release(AwsStore(cloud), artifact, definition(name), judgement, **more)


def whole(aws: StrictAws, cloud: Cloud, blocks: list[bytes], regions: tuple[str, ...]) -> None:
    """Assert that exactly one image of ours stands in each region, right in all that makes it one, and nothing else."""
    images, snapshots = aws.images(), aws.snapshots()
    assert sorted(image["region"] for image in images.values()) == sorted(regions), "one image a region"
    assert len(snapshots) == len(regions), "one snapshot an image"
    assert {snapshot["state"] for snapshot in snapshots.values()} == {"completed"}
    shown = AwsStore(cloud).show("debian-server:candidate")
    assert shown.proven, shown.problems
    assert {one.region for one in shown.images} == set(regions)
    for one in shown.images:
        assert (one.state, one.channels) == ("available", ("candidate",))
        assert one.deprecated_at
        assert list(aws.read(one.snapshots[0], len(blocks) * BLOCK)) == blocks
        permissions = images[one.id]["permissions"]
        assert permissions == [{"UserId": PARTNER}, {"OrganizationArn": ORGANIZATION}]
        tagged = aws.client("ec2", one.region).describe_tags()["Tags"]
        assert not [tag for tag in tagged if tag["Key"] == "dev.goldsmith.reap-after"]
    assert not cloud.ledger.open_publications(cloud.repository("debian-server"))
    assert len(cloud.ledger.releases("debian-server")) == 1
    assert {line.state for line in cloud.made()} == {"standing"}
