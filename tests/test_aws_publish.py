"""A machine image becomes images in several regions: whole, dated, shared, signed, found by its channel; never twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from images.aws.cloud import Cloud
from tests.cloud import BLOCK, cloud_for, disk, emulator, publish, settings_at
from tests.strict_aws import StrictAws


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictAws]:
    with emulator(monkeypatch) as aws:
        yield aws


@pytest.fixture
def cloud(aws: StrictAws, tmp_path: Path) -> Iterator[Cloud]:
    cloud = cloud_for(settings_at(aws, tmp_path))
    yield cloud
    cloud.ledger.close()


def read(aws: StrictAws, snapshot: str, blocks: int) -> list[bytes]:
    return list(aws.read(snapshot, blocks * BLOCK))


def test_it_works(aws: StrictAws, cloud: Cloud) -> None:
    done = publish(cloud, disk())
    print(done)
    print(aws.images())
    for i, s in aws.snapshots().items():
        print(i, s["state"], s["region"], s["key"], len(s["written"]))
