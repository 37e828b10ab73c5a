"""A server really built: its disk published to the emulator and read back, and a child as a delta on it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hardening.catalog import load_policy
from hardening.evaluation import explanation
from hardening.foundation.durations import duration
from hardening.foundation.hashing import digest
from hardening.foundation.settings import ROOT, Settings
from images.artifact import Artifact
from images.aws.cloud import Cloud
from images.aws.release_store import AwsStore
from images.machine.blocks import digest_of, split
from images.plan.planner import Planner
from images.release.publish import release
from images.trust.keys import own_keys
from tests.images.aws.test_aws_publish import image_of, last_call, put_blocks, snapshot_of, tags_of
from tests.images.build.test_machine_build import CHILD, NEEDS, content_of
from tests.images.build.test_reproduce import POLICY
from tests.strict_aws import StrictAws
from tests.support.cloud import HOME, OTHER, THIRD, cloud_for, settings_at
from tests.support.loop import TOMORROW, Goldsmith, definition
from tests.support.publishing import judged, running_registry
from tests.support.servers import NO_ENGINE, Workshop

pytestmark = [pytest.mark.slow, pytest.mark.needs(*NEEDS, "docker-registry", "skopeo", "faketime")]
DEBIAN = "debian-server"


def digests(aws: StrictAws, snapshot: str, size: int) -> list[bytes]:
    """The digest of each block that a volume made from the snapshot would hold."""
    return [digest_of(block) for block in aws.read(snapshot, size)]


def parent_of(aws: StrictAws, snapshot: str) -> Any:
    return aws.snapshots()[snapshot]["parent"]


def test_a_real_disk_is_published_and_its_child_is_a_delta_on_it(
    server: Goldsmith, aws: StrictAws, tmp_path: Path
) -> None:
    """By one command into three regions, every block as it was built; the child sends what differs alone."""
    settings = settings_at(aws, tmp_path, timeout=duration("5m"))  # so that no block is given up and sent twice
    content, at_aws = server.state / "content", json.dumps(settings.aws.model_dump(mode="json"))
    with running_registry(tmp_path / "registry") as address:
        house = server.fork(tmp_path / "state").with_(
            content, aws=at_aws, registry__address=address, judging__policies='["machine", "machine-sample"]'
        )
        answer = house("image.publish", DEBIAN, "--policy", "machine-sample", "--json")
        assert answer.code == 0, answer.err
        a_stranger_rebuilds(house, address, tmp_path)
    config = house.store.config(content_of(house, DEBIAN))["disk"]
    wanted = split(house.store.blob(config["linear"]).read_bytes())
    first = snapshot_of(image_of(aws, HOME))
    assert digests(aws, first, config["size_bytes"]) == wanted
    assert put_blocks(aws) == list(range(len(wanted)))
    for region in (HOME, OTHER, THIRD):
        image = image_of(aws, region)
        assert image["State"] == "available"
        assert image["DeprecationTime"]
        assert tags_of(image)["dev.goldsmith.expires-at"]
    number, cloud = last_call(aws), cloud_for(settings)
    child, config = publish_child(house, cloud, tmp_path)
    newest = next(line.resource for line in cloud.made(kind="snapshot", release=child) if line.region == HOME)
    cloud.ledger.close()
    assert parent_of(aws, newest) == first
    assert 0 < len(put_blocks(aws, number)) < 0.15 * len(wanted)
    assert digest(b"".join(digests(aws, newest, config["size_bytes"]))) == config["linear"]


def a_stranger_rebuilds(house: Goldsmith, address: str, folder: Path) -> None:
    """By the signed provenance alone, a day later, from empty caches but for the files of packages: the same disk, so
    nothing of the clock, of this host or of the first build is in it.
    """
    [key], content = own_keys(Settings(state=house.state)), content_of(house, DEBIAN)
    (policies := folder / "strangers/hardening/policies").mkdir(parents=True)
    (policies / "strangers.toml").write_text(POLICY.format(public=key.public))
    clone = Goldsmith(folder / "clone", NO_ENGINE).with_(folder / "strangers", registry__address=address)
    (clone.state / "apt").mkdir(parents=True)
    (clone.state / "apt/pool").symlink_to(house.state / "apt/pool")  # files by their hashes; its index is its own
    [release] = house.ledger.releases(DEBIAN)
    ref = f"{address}/{DEBIAN}@{release.digest}"
    found = clone("image.reproduce", ref, "--policy", "strangers", "--json", prefix=TOMORROW)
    assert found.code == 0, found.err
    assert (found.json["same"], found.json["rebuilt"], found.json["content"]) == (True, content, content)
    assert clone.ledger.artifacts() == ()
    assert clone.leftovers() == []


@pytest.mark.needs("oscap")
def test_the_benchmark_holds_where_level_1_was_applied_or_the_policy_says_why_not(server: Goldsmith) -> None:
    """OpenSCAP's own rules over the tree of the build: as many hold as the policy demands, and it explains exactly the
    others, so that no explanation outlives its cause."""
    scan = server.ledger.scan(content_of(server, DEBIAN))
    assert scan
    [report] = [report for report in scan.reports if report.scanner == "openscap"]
    asked = load_policy([ROOT], "machine").image.benchmark
    assert asked
    assert report.evaluated >= asked.minimum_rules, report.reason
    assert report.score
    assert report.score >= asked.minimum_score
    told = [rule for rule in asked.explained if explanation(asked, DEBIAN, rule)]
    assert sorted(finding.id for finding in report.findings) == sorted(told)


def publish_child(house: Goldsmith, cloud: Cloud, folder: Path) -> tuple[str, dict[str, Any]]:
    """Build a child of debian-server, publish it, and give its release and what its manifest says of its disk."""
    text = CHILD.replace("base =", 'files = [{ source = "motd", path = "/etc/motd.d/50-child" }]\nbase =')
    shop = Workshop(house, (definition(folder / "content", "m-child", text, motd="of a child\n"),))
    built = shop.build("m-child")
    now = datetime.now(UTC).replace(microsecond=0)
    artifact = Artifact(
        "m-child", "linux/amd64", "sha256:in", built.digest, {"builder": "1"}, built.packages, built.created, now,
        built.size_bytes,
    )  # fmt: skip
    cloud.ledger.record_artifact(artifact)
    judgement = judged(now)
    judgement = replace(judgement, verdict=replace(judgement.verdict, subject="m-child"))
    cloud.ledger.record_verdict(artifact.digest, judgement.verdict)
    planned = Planner(shop.context).context.definitions["m-child"].definition
    return release(AwsStore(cloud), artifact, planned, judgement).release.digest, house.store.config(built.digest)[
        "disk"
    ]
