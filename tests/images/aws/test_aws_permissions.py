"""The documents say which permissions each task needs, and it asks for no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.settings import ROOT
from images.aws.client import Client
from images.aws.cloud import Cloud
from images.aws.reaping import reap
from images.aws.release_store import AwsStore, channel_name
from images.aws.retire import retire_images
from images.release.channels import promote, revoke, rollback
from tests.images.aws.test_aws_faults import OTHER, Killed, dying
from tests.images.aws.test_aws_walk import on
from tests.strict_aws import StrictAws
from tests.support.cloud import DAY, at, cloud_for, disk, publish, settings_at
from tests.support.publishing import gate

NAME = "debian-server"
ROWS = re.findall(r"^\| `(image\.\w+)` \| (.+) \|$", (ROOT / "docs/aws.md").read_text(), re.MULTILINE)
TASKS = {task: frozenset(re.findall(r"`(\w+:\w+)`", cell)) for task, cell in ROWS}
"""What each task asks for, as the documents tell people who write policies."""


@contextmanager
def listening() -> Iterator[set[str]]:
    """The permissions that are asked for during the block."""
    real, asked = Client.call, set()

    def call(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        asked.add(f"{self.service}:{operation}")
        return real(self, operation, **request)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Client, "call", call)
        yield asked


def asked_by(action: Callable[[], Any]) -> set[str]:
    with listening() as asked:
        action()
    return asked


@pytest.mark.slow
def test_each_task_asks_for_what_it_says_and_for_nothing_else(
    aws: StrictAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every task, with all that it may meet: both ways, so that nothing is missing and nothing too much."""
    cloud = cloud_for(settings_at(aws, tmp_path, regions=(OTHER,)))
    later = at(cloud, cloud.now + DAY)
    asked: dict[str, set[str]] = {task: set() for task in TASKS}
    asked["image.publish"] |= asked_by(lambda: publish(cloud, disk()))
    asked["image.promote"] |= asked_by(lambda: promote(AwsStore(cloud), NAME, "default", gate()))
    with monkeypatch.context() as patched:  # what it puts away of a killed run needs permissions too
        patched.setattr(Client, "call", dying("Sign", 0, after=True))
        with pytest.raises(Killed):
            publish(cloud, disk(seed=4))
    two = []
    asked["image.publish"] |= asked_by(lambda: two.append(publish(later, disk(seed=2)).release))
    promote(AwsStore(later), NAME, "default", gate())
    asked["image.show"] |= asked_by(lambda: AwsStore(later).show(NAME))
    asked["image.rollback"] |= asked_by(lambda: rollback(AwsStore(later), NAME))
    asked["image.revoke"] |= asked_by(lambda: revoke(AwsStore(later), two[0].digest, "bad"))
    new = cloud_for(cloud.settings.model_copy(update={"database": f"sqlite:///{tmp_path}/new"}), later.now)
    asked["image.rebuild"] |= asked_by(lambda: AwsStore(new).read_in())
    _walked(aws, later, asked)
    _reaped(aws, later, asked, monkeypatch)
    for task, permissions in TASKS.items():
        missing, needless = asked[task] - permissions, permissions - asked[task]
        assert (sorted(missing), sorted(needless)) == ([], []), task


def _walked(aws: StrictAws, cloud: Cloud, asked: dict[str, set[str]]) -> None:
    """The whole life of images that no channel names, and a launch template beside them."""
    aws.client("ec2").create_launch_template(LaunchTemplateName="x", LaunchTemplateData={"InstanceType": "t3.micro"})
    for channel in ("candidate", "stable", "candidate-previous", "stable-previous"):
        for region in (cloud.home, OTHER):
            aws.client("ssm", region).delete_parameters(Names=[channel_name(cloud, NAME, channel)])
    aws.client("ssm").put_parameter(Name="/shop", Value="x", Type="String")
    aws.client("ec2").disable_image_deprecation(ImageId=cloud.made(kind="image")[0].resource)
    for day in (32, 50, 51, 90):
        then = on(aws, cloud, day)
        asked["image.prune"] |= asked_by(partial(retire_images, then, apply=True))
    assert not aws.images()


def _reaped(aws: StrictAws, cloud: Cloud, asked: dict[str, set[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that a killed run left, a volume and an instance with our tags."""
    now = on(aws, cloud, 140)
    with monkeypatch.context() as patched:
        patched.setattr(Client, "call", dying("Sign", 0, after=True))
        with pytest.raises(Killed):
            publish(now, disk(seed=6))
    ec2, due = aws.client("ec2"), f"{now.now:%Y-%m-%dT%H:%M:%SZ}"
    tags = [{"Key": "dev.goldsmith.name", "Value": NAME}, {"Key": "dev.goldsmith.reap-after", "Value": due}]
    zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    volume = [{"ResourceType": "volume", "Tags": tags}]
    ec2.create_volume(AvailabilityZone=zone, Size=1, TagSpecifications=volume)
    image = now.made(kind="image")[0].resource
    instance = [{"ResourceType": "instance", "Tags": tags}]
    ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, InstanceType="t3.micro", TagSpecifications=instance)
    for _ in range(2):  # the second reads what EC2 reports to the first
        asked["image.reap"] |= asked_by(lambda: reap(on(aws, now, 3), apply=True))
        aws.advance(60)
    asked["image.reap"] |= asked_by(lambda: reap(at(now, now.now + 3 * DAY), apply=True))


def test_every_call_in_the_code_stands_in_some_tasks_permissions() -> None:
    """Those that no test meets, too."""
    named = {permission.partition(":")[2] for permissions in TASKS.values() for permission in permissions}
    found = set()
    for file in (ROOT / "images/aws").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"call", "call_unless", "pages"}
            ):
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    found.add(first.value)
    assert len(found) > 30
    assert found <= named, sorted(found - named)
