"""Whatever AWS does in between, the image is right in the end, and nothing is there twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError, RefusedError
from hardening.foundation.settings import ROOT
from images.aws.client import Client, DeniedError, UnreachableError
from images.aws.cloud import Cloud
from images.aws.reaping import reap
from tests.strict_aws import Fault, StrictAws
from tests.support.cloud import DAY, HOME, OTHER, at, cloud_for, disk, publish, settings_at, whole

REGIONS = (HOME, OTHER)
READS = ("Get", "Describe", "List")


@pytest.fixture
def cloud(aws: StrictAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A cloud of two regions; between two tries nobody waits."""
    from botocore.retries.standard import ExponentialBackoff

    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0)
    made = cloud_for(settings_at(aws, tmp_path, regions=(OTHER,)))
    yield made
    made.ledger.close()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "fault",
    [
        Fault("throttle", probability=0.01), Fault("throttle", probability=0.2), Fault("error", probability=0.1),
        Fault("error", code="ServiceUnavailable", status=503, probability=0.1), Fault("reset", probability=0.1),
        Fault("lost", probability=0.1),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}-{fault.probability}",
)  # fmt: skip
def test_what_goes_wrong_now_and_then_changes_nothing(aws: StrictAws, cloud: Cloud, fault: Fault) -> None:
    """Throttled, failing, cut off before or after the effect: one publication, and it is whole."""
    blocks = disk()
    once = replace(fault, probability=1, skip=9, times=1)  # whatever ids AWS draws, by which the others strike
    with aws.faulty(fault, once, seed=7):
        publish(cloud, blocks)
    assert [call for call in aws.calls() if call["fault"]], "nothing went wrong"
    whole(aws, cloud, blocks, REGIONS)


@pytest.mark.parametrize(
    "operation",
    ["StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot", "RegisterImage", "CopyImage", "Sign", "PutParameter"],
)
def test_a_lost_answer_doubles_nothing(aws: StrictAws, cloud: Cloud, operation: str) -> None:
    """It was carried out, and nobody heard: asked again, the same thing is meant."""
    blocks = disk()
    with aws.faulty(Fault("lost", operation=operation, skip=REHEARSED.get(operation, 0), times=1)):
        publish(cloud, blocks)
    assert [call["effect"] for call in aws.calls(operation=operation) if call["fault"] == "lost"] == [True]
    whole(aws, cloud, blocks, REGIONS)


def test_an_answer_that_never_comes_in_time_is_asked_for_again(aws: StrictAws, cloud: Cloud) -> None:
    """A block that hangs is sent again on another connection."""
    blocks = disk()
    with aws.faulty(Fault("delay", operation="PutSnapshotBlock", seconds=3, times=2)):
        publish(cloud, blocks)
    whole(aws, cloud, blocks, REGIONS)


def test_copies_beyond_the_limit_wait_for_a_place(aws: StrictAws, cloud: Cloud) -> None:
    """The region takes only so many at once: the copy is asked for again until it may begin."""
    blocks, full = disk(), "ResourceLimitExceeded"
    with aws.faulty(Fault("error", operation="CopyImage", skip=1, times=3, code=full, status=400)):
        publish(cloud, blocks)
    assert len([call for call in aws.calls("ec2", "CopyImage") if call["outcome"] == full]) == 3
    whole(aws, cloud, blocks, REGIONS)


@pytest.mark.parametrize("copied", [True, False], ids=["a copy", "an image at home"])
def test_an_image_that_failed_is_made_again(aws: StrictAws, cloud: Cloud, copied: bool) -> None:
    """As one does whose key cannot be used for a while: once it can, the next run makes another, and leaves nothing of
    the first.
    """
    blocks, real, failed = disk(), Client.call, list[str]()

    def call(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        answer = real(self, operation, **request)
        if operation == ("CopyImage" if copied else "RegisterImage") and not request.get("DryRun") and not failed[1:]:
            failed.append(answer["ImageId"])
            aws.fail(answer["ImageId"])
        return answer

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Client, "call", call)
        for _ in range(2):
            with pytest.raises(OutsideError, match="failed: failed"):
                publish(cloud, blocks)
    assert len({*failed}) == 2
    publish(cloud, blocks)
    whole(aws, cloud, blocks, REGIONS)


@pytest.mark.parametrize("region", REGIONS)
def test_an_unreachable_region_is_told_before_a_block_is_sent(aws: StrictAws, cloud: Cloud, region: str) -> None:
    """Home or not; afterwards nothing is there."""
    with aws.faulty(Fault("unreachable", region=region)), pytest.raises(UnreachableError, match=f"in {region} cannot"):
        publish(quickly(cloud), disk())
    assert not aws.calls("ebs", "StartSnapshot")
    assert not aws.images()


@pytest.mark.parametrize(
    ("permission", "region"),
    [
        ("ec2:RegisterImage", HOME), ("ec2:CopyImage", OTHER), ("ec2:CreateTags", OTHER), ("kms:DescribeKey", OTHER),
        ("ec2:EnableImageDeprecation", HOME), ("kms:GetPublicKey", HOME), ("ec2:DescribeImages", OTHER),
        ("sts:GetCallerIdentity", HOME),
    ],
)  # fmt: skip
def test_a_missing_permission_is_named_before_a_block_is_sent(
    aws: StrictAws, cloud: Cloud, permission: str, region: str
) -> None:
    """What can be asked beforehand is asked beforehand."""
    service, operation = permission.split(":")
    fault = Fault("denied", service=service, operation=operation, region=region)
    with aws.faulty(fault), pytest.raises(DeniedError, match=f"AWS denies {permission} in {region}"):
        publish(cloud, disk())
    assert not aws.calls("ebs", "StartSnapshot")


@pytest.mark.parametrize("permission", ["ebs:StartSnapshot", "ebs:PutSnapshotBlock", "ebs:CompleteSnapshot"])
def test_what_cannot_be_asked_beforehand_is_named_too(aws: StrictAws, cloud: Cloud, permission: str) -> None:
    """And once it is allowed, the next run goes on in the same snapshot."""
    service, operation = permission.split(":")
    blocks = disk()
    with (
        aws.faulty(Fault("denied", service=service, operation=operation)),
        pytest.raises(DeniedError, match=permission),
    ):
        publish(cloud, blocks)
    publish(cloud, blocks)
    whole(aws, cloud, blocks, REGIONS)


def quickly(cloud: Cloud) -> Cloud:
    """The same cloud, which gives up soon."""
    settings = cloud.settings.model_copy(update={"aws": cloud.aws.model_copy(update={"attempts": 2})})
    return cloud_for(settings, cloud.now)


# --- killed -----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here, as far as our code can tell."""


REHEARSED = {"RegisterImage": 2, "CopyImage": 1, "CreateTags": 2, "EnableImageDeprecation": 2}  # dry runs before
POINTS = [
    ("StartSnapshot", 0), ("PutSnapshotBlock", 5), ("CompleteSnapshot", 0), ("RegisterImage", 2), ("CopyImage", 1),
    ("ModifyImageAttribute", 0), ("ModifySnapshotAttribute", 1), ("EnableImageDeprecation", 3), ("Sign", 0),
    ("PutParameter", 0), ("PutParameter", 1), ("PutParameter", 2), ("DeleteTags", 0),
]  # fmt: skip


def dying(at_operation: str, nth: int, *, after: bool) -> Callable[..., Any]:
    """`Client.call` that ends the process before or after the effect of the nth such call."""
    real, seen = Client.call, [0]

    def call(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        if operation != at_operation:
            return real(self, operation, **request)
        seen[0] += 1
        if seen[0] <= nth:
            return real(self, operation, **request)
        if after:
            real(self, operation, **request)
        raise Killed

    return call


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("operation", "nth"), POINTS)
def test_a_run_that_ends_at_any_call_is_finished_by_the_next(
    aws: StrictAws, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, operation: str, nth: int, after: bool
) -> None:
    """Whether the effect came about or not: the next run, an hour later, ends with one image a region."""
    blocks = disk()
    with monkeypatch.context() as patched:
        patched.setattr(Client, "call", dying(operation, nth, after=after))
        with pytest.raises(Killed):
            publish(cloud, blocks)
    publish(at(cloud, cloud.now + timedelta(hours=1)), blocks)
    whole(aws, cloud, blocks, REGIONS)


ONCE = """
import sys
from datetime import datetime
from hardening.foundation.settings import Settings
from tests.support.cloud import cloud_for, disk, publish
publish(cloud_for(Settings.model_validate_json(sys.argv[1]), datetime.fromisoformat(sys.argv[2])), disk())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "skip", "held"),
    [
        ("PutSnapshotBlock", 5, False),
        ("CompleteSnapshot", 0, True),
        ("RegisterImage", 2, False),
        ("CopyImage", 1, False),
    ],
    ids=["upload", "completion", "between register and tag", "copy"],
)
def test_kill_minus_nine(aws: StrictAws, cloud: Cloud, operation: str, skip: int, held: bool) -> None:
    """A process of its own is killed while its call is under way, which takes effect all the same: nobody heard of it.

    The next run finishes: one image a region, no pending snapshot, nothing doubled.
    """
    if held:
        aws.hold()
    else:
        aws.faults(Fault("delay", operation=operation, skip=skip, seconds=1))
    argv = [sys.executable, "-c", ONCE, cloud.settings.model_dump_json(), cloud.now.isoformat()]
    child = subprocess.Popen(argv, cwd=ROOT, env={**os.environ, **aws.environment()}, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: len(aws.calls(operation=operation)) > skip, child)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    _until(lambda: not [call for call in aws.calls() if call["outcome"] == "running"])
    aws.faults()
    aws.release()
    assert cloud.ledger.open_publications(cloud.repository("debian-server"))
    publish(at(cloud, cloud.now + timedelta(hours=1)), disk())
    whole(aws, cloud, disk(), REGIONS)


def _until(done: Callable[[], Any], child: subprocess.Popen[bytes] | None = None) -> None:
    for _ in range(1200):
        if done():
            return
        assert child is None or child.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    raise AssertionError("it never came so far")


def test_what_a_killed_run_began_and_nobody_wants_is_put_away(
    aws: StrictAws, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image was rebuilt meanwhile: neither the pending snapshot nor the image without a channel stays."""
    for operation, nth in (("PutSnapshotBlock", 5), ("Sign", 0)):
        with monkeypatch.context() as patched:
            patched.setattr(Client, "call", dying(operation, nth, after=True))
            with pytest.raises(Killed):
                publish(cloud, disk(seed=nth))
    publish(at(cloud, cloud.now + DAY), disk(seed=9))
    whole_but_gone = [line for line in cloud.ledger.made(cloud.aws.account) if line.state == "begun"]
    assert not whole_but_gone
    assert len(aws.images()) == len(aws.snapshots()) == 2
    assert not cloud.ledger.open_publications(cloud.repository("debian-server"))


def test_what_a_killed_run_began_in_a_region_that_is_named_no_more_is_reaped(
    aws: StrictAws, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else would look there again; the next run does not, which the region may not answer any more."""
    with monkeypatch.context() as patched:
        patched.setattr(Client, "call", dying("Sign", 0, after=True))
        with pytest.raises(Killed):
            publish(cloud, disk(seed=1))
    assert len(aws.images()) == 2
    home = cloud.settings.model_copy(update={"aws": cloud.aws.model_copy(update={"regions": ()})})
    publish(replace(cloud, settings=home, now=cloud.now + DAY), disk(seed=9))
    assert len(aws.images()) == 2
    for _ in range(2):  # EC2 is asked who else uses it, since it was shared, and answers
        reap(replace(cloud, settings=home, now=cloud.now + 3 * DAY), apply=True)
        aws.advance(60)
    assert [one["region"] for one in (*aws.images().values(), *aws.snapshots().values())] == [HOME, HOME]


def test_two_runs_at_once_do_not_both_publish(aws: StrictAws, cloud: Cloud) -> None:
    """The second is told that the first is at it."""
    from hardening.foundation.locks import only_one

    with (
        only_one(cloud.settings.state_dir / "locks" / "publish-debian-server.lock", "x"),
        pytest.raises(RefusedError, match="publishing debian-server is already running"),
    ):
        publish(cloud, disk())


def test_a_snapshot_that_the_service_gave_up_is_made_anew(
    aws: StrictAws, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed run's snapshot idled too long: the next run removes it and begins another, under another token."""
    with monkeypatch.context() as patched:
        patched.setattr(Client, "call", dying("PutSnapshotBlock", 5, after=True))
        with pytest.raises(Killed):
            publish(cloud, disk())
    aws.advance(timedelta(hours=3).total_seconds())
    publish(at(cloud, cloud.now + timedelta(hours=3)), disk())
    assert [snapshot["state"] for snapshot in aws.snapshots().values()] == ["completed", "completed"]


def test_a_copy_that_fails_is_said(aws: StrictAws, cloud: Cloud) -> None:
    """With the region, and the rest can be finished later."""
    fault = Fault("error", operation="CopyImage", region=OTHER, code="InternalError")
    with aws.faulty(fault), pytest.raises(OutsideError, match=f"CopyImage failed in {OTHER}"):
        publish(quickly(cloud), disk())
    publish(cloud, disk())
    whole(aws, cloud, disk(), REGIONS)
