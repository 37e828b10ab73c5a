"""Machine images leave step by step, never while anything names them; and what killed runs left is found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError
from images.aws.client import Client
from images.aws.cloud import Cloud
from images.aws.reaping import reap
from images.aws.release_store import AwsStore, channel_name
from images.aws.retire import retire_images, uses_in
from images.aws.usage import COUNTED
from images.catalog import ANY, KeepRule
from images.release.channels import revoke
from images.release.retention import RetirementAction as Action
from tests.images.aws.test_aws_faults import Killed, dying
from tests.strict_aws import Fault, StrictAws
from tests.support.cloud import DAY, HOME, PARTNER, at, cloud_for, disk, publish, settings_at

NAME = "debian-server"
WARNED, ENDED, DISABLED, REMOVED = 24, 31, 31 + 14, 31 + 14 + 30


@pytest.fixture
def cloud(aws: StrictAws, tmp_path: Path) -> Iterator[Cloud]:
    """A cloud of one region, and an image in it that no channel names any more."""
    made = cloud_for(settings_at(aws, tmp_path, regions=(), share_accounts=(), share_organizations=()))
    publish(made, disk())
    aws.client("ssm").delete_parameter(Name=channel_name(made, NAME, "candidate"))
    yield made
    made.ledger.close()


def on(aws: StrictAws, cloud: Cloud, day: float) -> Cloud:
    """The cloud so many days after the publication, by the emulator's clock too."""
    moved = cloud.now + day * DAY
    seen = datetime.fromisoformat(aws._ask("advance", {"seconds": 0})["now"])
    aws.advance(max(0.0, (moved - seen).total_seconds()))
    return at(cloud, moved)


def image_of(cloud: Cloud) -> str:
    (line,) = cloud.made(kind="image")
    return line.resource


def test_an_image_is_warned_deprecated_disabled_and_removed_each_in_its_time(aws: StrictAws, cloud: Cloud) -> None:
    """A plan does nothing; applied, the snapshot goes with the image, and the statement, and the ledger knows."""
    image = image_of(cloud)
    story = [(1, Action.KEEP), (WARNED, Action.WARN), (ENDED, Action.KEEP), (DISABLED, Action.DISABLE),
             (DISABLED + 29, Action.KEEP), (REMOVED + 1, Action.REMOVE)]  # fmt: skip
    for day, step in story:
        then = on(aws, cloud, day)
        before = aws.images()
        assert [decision.action for decision in retire_images(then, apply=False)] == [step], day
        assert aws.images() == before
        (decision,) = retire_images(then, apply=True)
        assert (decision.action, decision.subject.id, decision.held) == (step, image, False)
        assert aws.images().get(image, {"state": "gone"})["state"] == _state_on(day)
    assert (aws.images(), aws.snapshots()) == ({}, {})
    assert not aws.client("ssm").describe_parameters()["Parameters"]
    assert not cloud.made()
    assert cloud.ledger.releases(NAME)[0].pruned_at == then.now
    assert retire_images(then, apply=True) == ()


def _state_on(day: int) -> str:
    return "available" if day < DISABLED else "disabled" if day <= REMOVED else "gone"


@pytest.mark.parametrize("name", [NAME, ANY])
def test_one_of_the_last_is_neither_disabled_nor_removed(aws: StrictAws, cloud: Cloud, name: str) -> None:
    """As the rule of its definition says, or that of the settings where the definition is gone; without one it goes."""
    image, rules = image_of(cloud), {name: KeepRule(last=1)}
    store = AwsStore(on(aws, cloud, REMOVED + 1), [NAME], rules)
    (kept,) = store.retire(apply=True)
    assert (kept.action, kept.why.partition("; ")[2]) == ("keep", "not disabled: the last one is kept")
    assert aws.images()[image]["state"] == "available"
    assert [one.action for one in AwsStore(store.cloud, [NAME]).retire(apply=True)] == ["disabled"]


def test_a_deprecation_that_somebody_took_away_comes_back(aws: StrictAws, cloud: Cloud) -> None:
    """The image's end is ours to say."""
    aws.client("ec2").disable_image_deprecation(ImageId=image_of(cloud))
    then = on(aws, cloud, ENDED)
    assert [decision.action for decision in retire_images(then, apply=True)] == [Action.DEPRECATE]
    assert aws.images()[image_of(cloud)]["deprecate_at"]


def run(aws: StrictAws, image: str, **more: Any) -> str:
    """An instance of the image."""
    return str(
        aws.client("ec2").run_instances(ImageId=image, MinCount=1, MaxCount=1, InstanceType="t3.micro", **more)[
            "Instances"
        ][0]["InstanceId"]
    )


def template(aws: StrictAws, *images: str) -> str:
    """A launch template with a version for each image."""
    ec2 = aws.client("ec2")
    first = {"LaunchTemplateName": "web", "LaunchTemplateData": {"ImageId": images[0], "InstanceType": "t3.micro"}}
    made = str(ec2.create_launch_template(**first)["LaunchTemplate"]["LaunchTemplateId"])
    for image in images[1:]:
        ec2.create_launch_template_version(LaunchTemplateId=made, LaunchTemplateData={"ImageId": image})
    return made


def by_instance(aws: StrictAws, image: str) -> str:
    return f"the instance {run(aws, image)}"


def by_template(aws: StrictAws, image: str) -> str:
    template(aws, image, other_image(aws))
    return "the launch template web version 1"


def by_newest_template(aws: StrictAws, image: str) -> str:
    template(aws, other_image(aws), image)
    return "the launch template web version 2"


def by_group(aws: StrictAws, image: str) -> str:
    """A group that starts from a version which is neither the default nor the newest."""
    made = template(aws, other_image(aws), image, other_image(aws))
    zones = aws.client("ec2").describe_availability_zones()["AvailabilityZones"]
    aws.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="shop", MinSize=0, MaxSize=1, DesiredCapacity=0, AvailabilityZones=[zones[0]["ZoneName"]],
        LaunchTemplate={"LaunchTemplateId": made, "Version": "2"},
    )  # fmt: skip
    return "the Auto Scaling group shop, by its launch template's version 2"


def by_configuration(aws: StrictAws, image: str) -> str:
    aws.client("autoscaling").create_launch_configuration(
        LaunchConfigurationName="old", ImageId=image, InstanceType="t3.micro"
    )
    return "the launch configuration old"


def by_parameter(aws: StrictAws, image: str) -> str:
    aws.client("ssm").put_parameter(Name="/shop/image", Value=image, Type="String", DataType="aws:ec2:image")
    return "the parameter /shop/image"


def by_plain_parameter(aws: StrictAws, image: str) -> str:
    aws.client("ssm").put_parameter(Name="/shop/image", Value=image, Type="String")
    return "the parameter /shop/image"


def other_image(aws: StrictAws) -> str:
    """An image that is none of ours."""
    ec2 = aws.client("ec2")
    found = [image for image in ec2.describe_images(Owners=["self"])["Images"] if image["Name"] == "other"]
    if found:
        return str(found[0]["ImageId"])
    (snapshot,) = ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    root = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot["SnapshotId"]}}
    return str(
        ec2.register_image(
            Name="other",
            Architecture="x86_64",
            RootDeviceName="/dev/sda1",
            BlockDeviceMappings=[root],
            VirtualizationType="hvm",
            EnaSupport=True,
        )["ImageId"]
    )


HOLDERS = [by_instance, by_template, by_newest_template, by_group, by_configuration, by_parameter, by_plain_parameter]


@pytest.mark.parametrize("hold", HOLDERS, ids=lambda hold: hold.__name__)
def test_what_names_an_image_holds_it_back_and_is_named(aws: StrictAws, cloud: Cloud, hold: Any) -> None:
    """When it should be disabled, and when it should be removed; as a warning before."""
    who = hold(aws, image_of(cloud))
    for day, words in ((WARNED, "expires on"), (ENDED, "to be disabled"), (DISABLED, "not disabled")):
        (decision,) = retire_images(on(aws, cloud, day), apply=True)
        assert (
            decision.action in {Action.WARN, Action.KEEP},
            who in decision.why,
            words in decision.why,
        ) == (True, True, True), decision
    assert decision.held
    assert aws.images()[image_of(cloud)]["state"] == "available"


@pytest.mark.parametrize("hold", [by_template, by_parameter], ids=lambda hold: hold.__name__)
def test_a_disabled_image_that_is_named_again_is_not_removed(aws: StrictAws, cloud: Cloud, hold: Any) -> None:
    """Somebody may want it back."""
    retire_images(on(aws, cloud, DISABLED), apply=True)
    who = hold(aws, image_of(cloud))
    (decision,) = retire_images(on(aws, cloud, REMOVED + 1), apply=True)
    assert (decision.action, decision.held) == (Action.KEEP, True)
    assert f"not removed: {who}" in decision.why
    assert image_of(cloud) in aws.images()


def test_an_instance_that_began_before_the_image_was_disabled_holds_it(aws: StrictAws, cloud: Cloud) -> None:
    """It was disabled by hand under a running instance."""
    who = by_instance(aws, image_of(cloud))
    ec2 = aws.client("ec2")
    ec2.disable_image(ImageId=image_of(cloud))
    stamp = f"{cloud.now + DISABLED * DAY:%Y-%m-%dT%H:%M:%SZ}"
    ec2.create_tags(Resources=[image_of(cloud)], Tags=[{"Key": "dev.goldsmith.disabled-at", "Value": stamp}])
    (decision,) = retire_images(on(aws, cloud, REMOVED + 1), apply=True)
    assert f"not removed: {who}" in decision.why


def test_who_begins_to_name_an_image_after_the_plan_holds_it_back(
    aws: StrictAws, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What names it is read again right before the step."""
    seen = []

    def reading(to: Cloud, region: str) -> Any:
        found = uses_in(to, region)
        if not seen:
            seen.append(by_parameter(aws, image_of(cloud)))
        return found

    monkeypatch.setattr("images.aws.retire.uses_in", reading)
    (decision,) = retire_images(on(aws, cloud, DISABLED), apply=True)
    assert (decision.action, seen[0] in decision.why) == (Action.KEEP, True)
    assert aws.images()[image_of(cloud)]["state"] == "available"


def test_a_channel_holds_and_previous_does_not_hold_what_was_revoked(aws: StrictAws, cloud: Cloud) -> None:
    """A revoked image is nothing to go back to."""
    (line,) = cloud.made(kind="image")
    for channel in ("stable", "stable-previous"):
        name = channel_name(cloud, NAME, channel)
        aws.client("ssm").put_parameter(Name=name, Value=line.resource, Type="String")
        (decision,) = retire_images(at(cloud, cloud.now + DISABLED * DAY), apply=False)
        assert (decision.held, f"the parameter {name} still names it" in decision.why) == (True, True)
        if channel == "stable":
            aws.client("ssm").delete_parameter(Name=name)
    revoke(AwsStore(on(aws, cloud, 1)), line.release, "bad")
    (decision,) = retire_images(on(aws, cloud, DISABLED), apply=False)
    assert (decision.action, "revoked on" in decision.why) == (Action.DISABLE, True)


@pytest.mark.parametrize("service", ["ec2", "autoscaling", "ssm"])
def test_a_region_that_cannot_be_read_holds_its_images_back(aws: StrictAws, cloud: Cloud, service: str) -> None:
    """Unread is not unused; and it says why."""
    then = on(aws, quick(cloud), DISABLED)
    with aws.faulty(Fault("denied", service=service, operation="Describe*")):
        (decision,) = retire_images(then, apply=True)
    assert (decision.action, decision.held) == (Action.KEEP, True)
    assert f"{HOME} cannot be read: AWS denies {service}:Describe" in decision.why
    assert aws.images()[image_of(cloud)]["state"] == "available"


def test_another_accounts_instances_hold_too(aws: StrictAws, cloud: Cloud) -> None:
    """Where a role leads there; and where its region cannot be read, that holds back as well."""
    roles = {PARTNER: f"arn:aws:iam::{PARTNER}:role/goldsmith"}
    more = {"roles": roles, "share_accounts": (PARTNER,)}
    there = cloud_for(cloud.settings.model_copy(update={"aws": cloud.aws.model_copy(update=more)}), cloud.now)
    image = image_of(cloud)
    aws.client("ec2").modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": PARTNER}]})
    theirs = aws.client("ssm", account=PARTNER)
    theirs.put_parameter(Name="/theirs", Value=image, Type="String")
    (decision,) = retire_images(on(aws, there, DISABLED), apply=True)
    assert f"the parameter /theirs in account {PARTNER} still names it" in decision.why
    with aws.faulty(Fault("denied", service="ssm", account=PARTNER)):
        (decision,) = retire_images(on(aws, there, DISABLED), apply=True)
    assert "cannot be read" in decision.why
    there.ledger.close()


def opened(cloud: Cloud) -> Cloud:
    """The same cloud, which shares with an account that no role leads into."""
    aws = cloud.aws.model_copy(update={"share_accounts": (PARTNER,)})
    return replace(cloud, settings=cloud.settings.model_copy(update={"aws": aws}))


def reports(aws: StrictAws) -> int:
    return len(aws.calls("ec2", "CreateImageUsageReport", effect=True))


def test_what_others_may_use_unseen_goes_only_once_ec2_says_that_nobody_does(aws: StrictAws, cloud: Cloud) -> None:
    """A plan changes nothing. Applied, EC2 is asked for a report, which a later run reads, and which gets too old."""
    image, theirs = image_of(cloud), aws.client("ec2", account=PARTNER)
    aws.client("ec2").modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": PARTNER}]})
    theirs.create_launch_template(LaunchTemplateName="theirs", LaunchTemplateData={"ImageId": image})
    aws.waits(60)

    def decided(day: float, *, apply: bool = True) -> tuple[Action, bool, str]:
        (found,) = retire_images(on(aws, opened(cloud), day), apply=apply)
        return found.action, found.held, found.why

    may = f"not disabled: {PARTNER} may use it"
    for apply, says in ((False, "image.prune --apply asks EC2"), (True, "a later image.prune --apply reads it")):
        action, held, why = decided(DISABLED, apply=apply)
        assert (action, held, f"{may}, where no role leads" in why, says in why) == (Action.KEEP, True, True, True)
        assert reports(aws) == apply
    assert "a later image.prune --apply reads it" in decided(DISABLED, apply=False)[2]
    aws.advance(61)
    narrower: tuple[dict[str, Any], ...] = ({"AccountIds": [cloud.aws.account]}, {"ResourceTypes": [COUNTED[0]]})
    for asked in narrower:  # somebody else's, which say nothing of all that may use it
        aws.client("ec2").create_image_usage_report(ImageId=image, **{"ResourceTypes": [*COUNTED], **asked})
    aws.advance(61)
    named = f"not disabled: 1 launch template(s) of account {PARTNER} use it, by EC2's report of"
    assert named in decided(DISABLED)[2]
    theirs.delete_launch_template(LaunchTemplateName="theirs")
    assert named not in decided(DISABLED + 15)[2]
    with aws.faulty(Fault("denied", operation="DescribeImageUsageReportEntries")):
        aws.advance(61)
        assert f"{may}, and EC2 does not say who does: AWS denies" in decided(DISABLED + 15)[2]
    assert aws.images()[image]["state"] == "available"
    assert decided(DISABLED + 15)[0] is Action.DISABLE
    assert (aws.images()[image]["state"], reports(aws)) == ("disabled", 2 + len(narrower))
    assert decided(REMOVED + 20)[0] is Action.REMOVE


@pytest.mark.parametrize("operation", ["DisableImage", "DeregisterImage", "DeleteSnapshot", "DeleteParameters"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_walk_that_ends_in_the_middle_is_finished_by_the_next(
    aws: StrictAws, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, operation: str, after: bool
) -> None:
    """Nothing of the image stays, wherever it was cut short."""
    for day in (DISABLED, REMOVED + 1):
        with monkeypatch.context() as patched:
            patched.setattr(Client, "call", dying(operation, 0, after=after))
            with suppress(Killed):
                retire_images(on(aws, cloud, day), apply=True)
        retire_images(on(aws, cloud, day), apply=True)
    assert (aws.images(), aws.snapshots()) == ({}, {})
    assert not aws.client("ssm").describe_parameters()["Parameters"]
    assert cloud.ledger.releases(NAME)[0].pruned_at


def test_tags_that_somebody_wrote_end_no_image(aws: StrictAws, cloud: Cloud) -> None:
    """Neither one of ours, whose days the ledger knows, nor a stranger's that got all of its tags."""
    ec2, own, stranger = aws.client("ec2"), image_of(cloud), other_image(aws)
    early = {"dev.goldsmith.expires-at": "2020-01-01T00:00:00Z", "dev.goldsmith.revoked-at": "2020-01-01T00:00:00Z",
             "dev.goldsmith.revoked-reason": "x"}  # fmt: skip
    ec2.create_tags(Resources=[own], Tags=[{"Key": key, "Value": value} for key, value in early.items()])
    (shown,) = ec2.describe_images(ImageIds=[own])["Images"]
    ec2.create_tags(Resources=[stranger], Tags=shown["Tags"])
    for day in (1, 2, 20):
        found = {one.subject.id: one for one in retire_images(on(aws, cloud, day), apply=True)}
        assert {one.action for one in found.values()} == {Action.KEEP}
    assert "no release of this ledger" in found[stranger].why
    assert {image["state"] for image in aws.images().values()} == {"available"}
    assert not {image["deprecate_at"] for image in aws.images().values() if image["name"] == "other"} - {None}


def test_a_snapshot_under_another_image_stays_with_it(aws: StrictAws, cloud: Cloud) -> None:
    """The content was dated anew: the old image goes alone."""
    then = on(aws, cloud, 25)
    publish(then, disk(), redate=True)
    old = min(cloud.made(kind="image"), key=lambda line: line.at).resource
    retire_images(on(aws, cloud, DISABLED), apply=True)
    retire_images(on(aws, cloud, REMOVED + 1), apply=True)
    assert old not in aws.images()
    assert len(aws.images()) == len(aws.snapshots()) == 1


def test_an_image_that_this_ledger_does_not_know_leaves_once_it_is_read_in(aws: StrictAws, cloud: Cloud) -> None:
    """Its tags alone end nothing: anybody's image may carry them. Its signed statement does; its snapshot goes too."""
    other = cloud_for(cloud.settings.model_copy(update={"database": f"sqlite:///{cloud.settings.state_dir}/other"}),
                      cloud.now)  # fmt: skip
    for day in (DISABLED, REMOVED):
        (kept,) = retire_images(on(aws, other, day), apply=True)
        assert (kept.action, "image.rebuild reads it in" in kept.why) == (Action.KEEP, True)
    assert {image["state"] for image in aws.images().values()} == {"available"}
    AwsStore(other).read_in()
    for day in (REMOVED, REMOVED + 31):
        retire_images(on(aws, other, day), apply=True)
    assert (aws.images(), aws.snapshots()) == ({}, {})
    other.ledger.close()


# --- the reaper -------------------------------------------------------------------------------------------------------


def quick(cloud: Cloud) -> Cloud:
    """The same cloud, which gives up soon."""
    settings = cloud.settings.model_copy(update={"aws": cloud.aws.model_copy(update={"attempts": 1})})
    return replace(cloud_for(settings, cloud.now), ledger=cloud.ledger)


def killed(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, operation: str, nth: int, seed: int = 5) -> None:
    """A publication that ended right after its nth such call, and that nobody takes up."""
    with monkeypatch.context() as patched:
        patched.setattr(Client, "call", dying(operation, nth, after=True))
        with pytest.raises(Killed):
            publish(cloud, disk(seed=seed))


def test_what_is_published_is_nothing_to_reap(aws: StrictAws, cloud: Cloud) -> None:
    """The ledger owns it; and where another ledger does, it is shown and stays."""
    assert reap(on(aws, cloud, 300), apply=True) == ()
    other = cloud_for(cloud.settings.model_copy(update={"database": f"sqlite:///{cloud.settings.state_dir}/other"}),
                      cloud.now + 300 * DAY)  # fmt: skip
    found = reap(other, apply=True)
    assert {(one.found.kind, one.remove) for one in found} == {("image", False), ("snapshot", False)}
    assert all("image.rebuild reads it in" in one.why for one in found)
    assert len(aws.images()) == 1
    other.ledger.close()


@pytest.mark.parametrize(
    ("operation", "nth", "kinds"),
    [
        ("StartSnapshot", 0, {"snapshot"}), ("PutSnapshotBlock", 3, {"snapshot"}),
        ("CompleteSnapshot", 0, {"snapshot"}), ("RegisterImage", 1, {"image", "snapshot"}),
        ("Sign", 0, {"image", "snapshot"}),
    ],
)  # fmt: skip
def test_what_a_killed_run_left_is_shown_and_removed_after_its_day(
    aws: StrictAws, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, operation: str, nth: int, kinds: set[str]
) -> None:
    """Not before: the next run may go on with it. What was published stays."""
    published = (aws.images(), aws.snapshots())
    killed(cloud, monkeypatch, operation, nth)
    aws.waits(0)
    early = reap(on(aws, cloud, 1), apply=True)
    assert {(one.found.kind, one.remove) for one in early} == {(kind, False) for kind in kinds}
    assert all("to be removed from" in one.why for one in early)
    late = on(aws, cloud, 3)
    planned = reap(late, apply=False)
    assert {(one.found.kind, one.remove) for one in planned} == {(kind, True) for kind in kinds}
    assert len(aws.snapshots()) == 2
    reap(late, apply=True)
    assert (aws.images(), aws.snapshots()) == published
    assert reap(late, apply=True) == ()


def test_tags_alone_let_nothing_go(aws: StrictAws, cloud: Cloud) -> None:
    """Whoever may tag could have production removed: what has our tags and no line of ours is shown, and stays."""
    ec2, day = aws.client("ec2"), f"{cloud.now + DAY:%Y-%m-%dT%H:%M:%SZ}"
    tags = [{"Key": "dev.goldsmith.name", "Value": NAME}, {"Key": "dev.goldsmith.reap-after", "Value": day}]
    zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    image = other_image(aws)
    volume = ec2.create_volume(AvailabilityZone=zone, Size=1)["VolumeId"]
    snapshot = ec2.create_snapshot(VolumeId=volume, Description="backup of the shop")["SnapshotId"]
    instance = run(aws, image)
    ec2.create_tags(Resources=[volume, snapshot, instance, image], Tags=tags)
    found = reap(on(aws, cloud, 300), apply=True)
    assert {one.found.id for one in found} >= {volume, snapshot, instance}
    assert not [one for one in found if one.remove]
    assert all("no line in this ledger" in one.why for one in found)
    (shown,) = [one for each in ec2.describe_instances()["Reservations"] for one in each["Instances"]]
    assert shown["State"]["Name"] == "running"
    assert volume in {one["VolumeId"] for one in ec2.describe_volumes()["Volumes"]}
    assert snapshot in aws.snapshots()
    assert image in aws.images()


def test_what_is_left_over_and_in_use_stays(aws: StrictAws, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may have taken a killed run's image for a good one."""
    killed(cloud, monkeypatch, "Sign", 0)
    left = next(line.resource for line in cloud.made(kind="image") if line.resource != image_of_published(cloud))
    who = by_parameter(aws, left)
    found = {one.found.kind: one for one in reap(on(aws, cloud, 3), apply=True)}
    assert (found["image"].remove, found["image"].why) == (False, f"{who} still names it")
    assert left in aws.images()
    under = found["snapshot"]
    assert (under.remove, "not removed: an image lies on it" in under.why) == (False, True)
    assert [line for line in cloud.made(kind="snapshot") if line.resource == under.found.id], "it is known still"


def test_what_a_killed_run_had_opened_to_others_goes_by_ec2s_report_alone(
    aws: StrictAws, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may run where no role leads."""
    published = aws.images()
    killed(opened(cloud), monkeypatch, "Sign", 0)
    (left,) = aws.images().keys() - published.keys()
    theirs = aws.client("ec2", account=PARTNER)
    theirs.run_instances(ImageId=left, MinCount=1, MaxCount=1)

    def reaped(cloud: Cloud) -> tuple[bool, str]:
        (found,) = (one for one in reap(cloud, apply=True) if one.found.id == left)
        return found.remove, found.why

    assert reaped(on(aws, opened(cloud), 3))[0] is False
    aws.advance(60)
    why = f"1 instance(s) of account {PARTNER} use it, by EC2's report of {cloud.now + 3 * DAY:%Y-%m-%d}"
    assert reaped(on(aws, opened(cloud), 3)) == (False, why)
    assert left in aws.images()
    assert reaped(on(aws, cloud, 3)) == (True, "a killed run left it")


def image_of_published(cloud: Cloud) -> str:
    (release,) = cloud.ledger.releases(NAME)
    (line,) = cloud.made(kind="image", release=release.digest)
    return line.resource


def test_a_region_that_cannot_be_read_is_not_reaped(aws: StrictAws, cloud: Cloud) -> None:
    """And the task fails: nobody is told that there was nothing."""
    with (
        aws.faulty(Fault("unreachable", operation="DescribeVolumes")),
        pytest.raises(OutsideError, match=f"{HOME} cannot be read, so nothing is reaped"),
    ):
        reap(quick(cloud), apply=True)
