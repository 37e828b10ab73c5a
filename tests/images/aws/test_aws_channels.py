"""Channels of machine images move forward and back in every region, and nothing that was tampered with is believed."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import images.release.flow
from hardening.foundation.errors import ContentError, RefusedError
from images.artifact import Release
from images.aws.cloud import Cloud
from images.aws.release_store import AwsStore, channel_name
from images.aws.signed_statement import parameter
from images.build.flow import BuildOutcome
from images.context import Context
from images.plan.build_plan import Action
from images.release.channels import promote, rebuild, revoke, rollback
from images.release.lifecycle import Status
from pipelines.nightly import image_stages
from tests.strict_aws import StrictAws
from tests.support.cloud import DAY, HOME, OTHER, at, built, cloud_for, disk, publish, settings_at
from tests.support.nights import images_of_a_night
from tests.support.publishing import gate, judged, running_registry

NAME = "debian-server"


@pytest.fixture
def cloud(aws: StrictAws, tmp_path: Path) -> Iterator[Cloud]:
    """A cloud of two regions."""
    made = cloud_for(settings_at(aws, tmp_path, regions=(OTHER,)))
    yield made
    made.ledger.close()


def published(cloud: Cloud, day: int) -> Release:
    """Another release on each day."""
    return publish(at(cloud, cloud.now + day * DAY), disk(seed=day)).release


def promoted(cloud: Cloud, day: int) -> Release:
    """A release that became stable on its day."""
    made = published(cloud, day)
    promote(AwsStore(at(cloud, cloud.now + day * DAY)), NAME, "default", gate())
    return made


def pointing(cloud: Cloud, channel: str) -> set[str]:
    """The releases that a channel's images are of, over all regions."""
    found = set()
    for region in (HOME, OTHER):
        image = parameter(cloud, region, channel_name(cloud, NAME, channel))
        (line,) = cloud.made(kind="image", region=region, resource=image)
        found.add(line.release)
    return found


def test_promotion_and_rollback_move_every_region(aws: StrictAws, cloud: Cloud) -> None:
    """From three to two to one, in each region, and then there is nothing earlier."""
    one, two, three = (promoted(cloud, day) for day in (1, 2, 3))
    later = at(cloud, cloud.now + 3 * DAY)
    assert pointing(cloud, "stable") == {three.digest}
    assert pointing(cloud, "stable-previous") == {two.digest}
    assert promote(AwsStore(later), NAME, "default", gate()).note == "already there"
    assert rollback(AwsStore(later), NAME).after == two.digest
    assert pointing(cloud, "stable") == {two.digest}
    assert rollback(AwsStore(later), NAME).after == one.digest
    assert pointing(cloud, "stable") == {one.digest}
    with pytest.raises(RefusedError, match="no earlier release"):
        rollback(AwsStore(later), NAME)
    assert pointing(cloud, "candidate") == {three.digest}
    assert [move.reason for move in cloud.ledger.moves(one.repository, "stable")] == ["promote"] * 3 + ["rollback"] * 2


@pytest.mark.parametrize("gone", ["deregister_image", "disable_image"])
def test_a_region_without_an_image_keeps_its_channel_and_is_told(aws: StrictAws, cloud: Cloud, gone: str) -> None:
    """The other regions go back all the same; so it is told of a promotion, which home must have an image for."""
    _, two, three = (promoted(cloud, day) for day in (1, 2, 3))
    store = AwsStore(at(cloud, cloud.now + 3 * DAY))
    where = {line.region: line.resource for line in cloud.made(kind="image", release=two.digest)}
    getattr(aws.client("ec2", OTHER), gone)(ImageId=where[OTHER])
    told = f"not in {OTHER}, where it has no image that can be launched: the channel there stays as it was"
    assert told in rollback(store, NAME).note
    assert pointing(cloud, "stable") == {two.digest, three.digest}
    assert parameter(cloud, HOME, channel_name(cloud, NAME, "stable")) == where[HOME]
    assert promote(store, NAME, "default", gate(), earlier=two).note == f"already there; {store.unmoved(two)}"
    aws.client("ec2", HOME).disable_image(ImageId=where[HOME])
    with pytest.raises(RefusedError, match=f"no image in {HOME} that can be launched"):
        store.move(two, "stable", "")


def test_a_channel_that_accounts_share_stays_an_advanced_parameter(aws: StrictAws, cloud: Cloud) -> None:
    """A person made it one, which AWS demands for that, and AWS never makes it a standard one again."""
    promoted(cloud, 1)
    ssm, name = aws.client("ssm", OTHER), channel_name(cloud, NAME, "stable")
    asked = {"Value": parameter(cloud, OTHER, name), "Type": "String", "DataType": "aws:ec2:image", "Overwrite": True}
    ssm.put_parameter(Name=name, Tier="Advanced", **asked)
    two = promoted(cloud, 2)
    assert pointing(cloud, "stable") == {two.digest}
    assert {one["Name"]: one["Tier"] for one in ssm.describe_parameters()["Parameters"]}[name] == "Advanced"


def test_what_may_not_become_stable_is_refused(aws: StrictAws, cloud: Cloud) -> None:
    """By another policy, after its end, revoked, or never published."""
    with pytest.raises(ContentError, match="nothing is published as debian-server:candidate in"):
        promote(AwsStore(cloud), NAME, "default", gate())
    release = published(cloud, 1)
    with pytest.raises(RefusedError, match="judged by the policy default, and the policy machine decides"):
        promote(AwsStore(cloud), NAME, "machine", gate(policy="machine"))
    with pytest.raises(RefusedError, match="the policy demo may not publish"):
        promote(AwsStore(cloud), NAME, "demo", gate(policy="demo"))
    with pytest.raises(RefusedError, match="expired on"):
        promote(AwsStore(at(cloud, cloud.now + 40 * DAY)), NAME, "default", gate())
    revoke(AwsStore(cloud), release.digest, "a back door")
    with pytest.raises(RefusedError, match="was revoked: a back door"):
        promote(AwsStore(cloud), NAME, "default", gate())


def test_a_revoked_release_is_left_by_its_channels_and_marked_everywhere(aws: StrictAws, cloud: Cloud) -> None:
    """Tags, the ledger and the service's own deprecation say so; its content does not come back."""
    one, two = promoted(cloud, 1), promoted(cloud, 2)
    later = at(cloud, cloud.now + 2 * DAY)
    changes = revoke(AwsStore(later), two.digest, "bad key")
    assert {(change.channel, change.after) for change in changes} == {("candidate", one.digest), ("stable", one.digest)}
    for line in cloud.made(kind="image", release=two.digest):
        shown = AwsStore(later).show(line.resource) if line.region == HOME else None
        assert shown is None or (shown.status, shown.revoked_reason) == (Status.REVOKED, "bad key")
        assert aws.images()[line.resource]["deprecate_at"] < str(later.now + DAY)
    assert cloud.ledger.release(two.digest).revoked_reason == "bad key"  # type: ignore[union-attr]
    with pytest.raises(RefusedError, match="revoked: bad key; nothing was published"):
        publish(at(cloud, cloud.now + 3 * DAY), disk(seed=2))
    assert revoke(AwsStore(later), one.digest, "bad too")[0].note.startswith("no earlier release")


def test_a_newer_refusal_stops_the_promotion(aws: StrictAws, cloud: Cloud) -> None:
    """That it was signed says that it was let through once; today's answer counts, and must be about it."""
    published(cloud, 1)
    for answer, words in (
        (gate(allowed=False), "is refused by policy default"),
        (lambda one: replace(gate()(one), subject="other"), "its verdict is about other"),
    ):
        with pytest.raises(RefusedError, match=words):
            promote(AwsStore(cloud), NAME, "default", answer)
    assert not parameter(cloud, HOME, channel_name(cloud, NAME, "stable"))


def test_a_rollback_to_what_is_over_needs_a_reason(aws: StrictAws, cloud: Cloud) -> None:
    """An expired release, and a revoked one where there is no other."""
    one, _ = promoted(cloud, 1), promoted(cloud, 2)
    with pytest.raises(RefusedError, match=r"(?s)which expired on .*--reason"):
        rollback(AwsStore(at(cloud, cloud.now + 31 * DAY + DAY / 2)), NAME)
    later = at(cloud, cloud.now + 3 * DAY)
    revoke(AwsStore(later), one.digest, "bad")
    with pytest.raises(RefusedError, match=r"(?s)which was revoked: bad.*--reason"):
        rollback(AwsStore(later), NAME)
    assert rollback(AwsStore(later), NAME, reason="two loses data").after == one.digest
    assert "two loses data" in [line.detail for line in cloud.ledger.audit_lines() if line.action == "rollback"]


def test_a_release_is_revoked_by_whatever_shows_it(aws: StrictAws, cloud: Cloud) -> None:
    """A name alone means what is stable, an id its image, a digest itself; the ledger must know it."""
    one, two = promoted(cloud, 1), published(cloud, 2)
    later, image = (
        AwsStore(at(cloud, cloud.now + 2 * DAY)),
        parameter(cloud, HOME, channel_name(cloud, NAME, "candidate")),
    )
    assert later.meant(NAME).digest == later.meant(one.digest).digest == one.digest
    assert later.meant(image).digest == later.meant(f"{NAME}:candidate").digest == two.digest
    with pytest.raises(ContentError, match="the ledger knows no release sha256:00"):
        later.meant("sha256:00")
    revoke(later, NAME, "a back door")
    known = {release.digest: release.revoked_reason for release in cloud.ledger.releases(NAME)}
    assert known == {one.digest: "a back door", two.digest: ""}


def test_a_rebuild_takes_no_revocation_back(aws: StrictAws, cloud: Cloud) -> None:
    """Where somebody took the tags away that tell of it."""
    one = published(cloud, 1)
    cloud.ledger.revoke(one.digest, "bad", cloud.now)
    rebuild(AwsStore(cloud))
    assert cloud.ledger.release(one.digest).revoked_reason == "bad"  # type: ignore[union-attr]


def test_a_machine_on_a_revoked_one_goes_with_it(aws: StrictAws, cloud: Cloud) -> None:
    """In the ledger and in its images' tags; it is neither promoted nor published again."""
    base, child = published(cloud, 1), publish(cloud, disk(seed=9), "container-host").release
    cloud.ledger.record_release(replace(child, base_name=base.repository, base_digest=base.content))
    changes = revoke(AwsStore(cloud), base.digest, "a back door")
    assert {change.name for change in changes} == {NAME, "container-host"}
    assert cloud.ledger.release(child.digest).revoked_reason == f"its base {NAME} was revoked: a back door"  # type: ignore[union-attr]
    with pytest.raises(RefusedError, match="its base debian-server was revoked: a back door"):
        promote(AwsStore(cloud), "container-host", "default", gate())


def test_a_published_image_is_shown_from_aws_alone(aws: StrictAws, cloud: Cloud) -> None:
    """By name, channel, dated name or id; with an empty ledger too; and it says that the statement holds."""
    release = published(cloud, 1)
    empty = cloud_for(
        cloud.settings.model_copy(update={"database": "sqlite:////" + str(cloud.settings.state_dir / "x")})
    )
    name = aws.client("ec2").describe_images(Owners=["self"])["Images"][0]["Name"].rpartition("/")[2]
    image = parameter(cloud, HOME, channel_name(cloud, NAME, "candidate"))
    for ref in (NAME, f"{NAME}:candidate", f"{NAME}:{name}", image):
        shown = AwsStore(empty).show(ref)
        assert (shown.digest, shown.proven, shown.problems) == (release.digest, True, ())
        assert [(one.region, one.signed, one.channels) for one in shown.images] == [
            (HOME, True, ("candidate",)), (OTHER, True, ("candidate",)),
        ]  # fmt: skip
    with pytest.raises(ContentError, match="did you mean debian-server"):
        AwsStore(empty, [NAME]).show("debian-serve")
    empty.ledger.close()


def test_a_tag_that_was_changed_is_shown_as_such_and_stops_the_promotion(aws: StrictAws, cloud: Cloud) -> None:
    """Whoever may tag cannot give an image a longer life, nor another content."""
    published(cloud, 1)
    image = parameter(cloud, HOME, channel_name(cloud, NAME, "candidate"))
    for key in ("expires-at", "content", "linear-digest", "input-digest"):
        ec2 = aws.client("ec2")
        tags = {tag["Key"]: tag["Value"] for tag in ec2.describe_images(ImageIds=[image])["Images"][0]["Tags"]}
        full, good = f"dev.goldsmith.{key}", tags[f"dev.goldsmith.{key}"]
        bad = "2099-01-01T00:00:00Z" if key == "expires-at" else "sha256:00"
        ec2.create_tags(Resources=[image], Tags=[{"Key": full, "Value": bad}])
        shown = AwsStore(cloud).show(NAME)
        assert not shown.proven
        assert shown.problems == (f"the tag {full} says {bad}; signed was {good}",)
        with pytest.raises(RefusedError, match="not what was signed"):
            promote(AwsStore(cloud), NAME, "default", gate())
        ec2.create_tags(Resources=[image], Tags=[{"Key": full, "Value": good}])
    assert AwsStore(cloud).show(NAME).proven


def test_a_statement_that_was_changed_or_is_another_keys_is_shown_as_such(aws: StrictAws, cloud: Cloud) -> None:
    """One byte of the payload, another's signature, no statement at all, nothing that can be read."""
    published(cloud, 1)
    name = next(line.resource for line in cloud.made(kind="statement"))
    good = parameter(cloud, HOME, name)
    envelope = json.loads(good)
    payload = json.loads(b64decode(envelope["payload"]))
    payload["predicate"]["content"] = "sha256:00"
    changed = {**envelope, "payload": b64encode(json.dumps(payload).encode()).decode()}
    signed = aws.client("kms").create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    other = cloud.settings.model_copy(update={"aws": cloud.aws.model_copy(update={"signing_key": signed})})
    for value, words in (
        (json.dumps(changed), "not signed by our key"),
        (json.dumps({**envelope, "signatures": []}), "not signed by our key"),
        (json.dumps({**envelope, "payloadType": "text/plain"}), "cannot be read"),
        ("nonsense", "cannot be read"),
    ):
        aws.client("ssm").put_parameter(Name=name, Value=value, Type="String", Overwrite=True)
        shown = AwsStore(cloud).show(NAME)
        assert not shown.proven
        assert words in shown.problems[0]
    aws.client("ssm").put_parameter(Name=name, Value=good, Type="String", Overwrite=True)
    foreign = cloud_for(other)
    assert "not signed by our key" in AwsStore(foreign).show(NAME).problems[0]
    foreign.ledger.close()
    aws.client("ssm").delete_parameter(Name=name)
    assert AwsStore(cloud).show(NAME).problems == ("there is no statement of it",)


def test_an_image_on_another_snapshot_than_was_signed_is_shown_as_such(aws: StrictAws, cloud: Cloud) -> None:
    """The same name and tags over another disk, and a statement that never spoke of it."""
    published(cloud, 1)
    ec2 = aws.client("ec2")
    mine = ec2.describe_images(Owners=["self"])["Images"][0]
    published(cloud, 2)
    other = next(s for s in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] if s["SnapshotId"] != _root(mine))
    ec2.deregister_image(ImageId=mine["ImageId"])
    root = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": other["SnapshotId"]}}
    forged = ec2.register_image(
        Name=mine["Name"], RootDeviceName="/dev/xvda", BlockDeviceMappings=[root], VirtualizationType="hvm",
        TagSpecifications=[{"ResourceType": "image", "Tags": mine["Tags"]}],
    )["ImageId"]  # fmt: skip
    problems = AwsStore(cloud).show(forged).problems
    assert f"the statement does not speak of {HOME}/{forged}" in problems
    assert any("lies on" in problem for problem in problems)


def _root(image: dict[str, object]) -> str:
    return image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]  # type: ignore[index,no-any-return]


def test_a_lost_ledger_is_filled_again_from_what_is_signed(aws: StrictAws, cloud: Cloud) -> None:
    """Releases, images, snapshots and channels come back; a rollback works; a forged image is passed over."""
    one, two = promoted(cloud, 1), promoted(cloud, 2)
    ec2 = aws.client("ec2")
    mine = ec2.describe_images(Owners=["self"])["Images"][0]
    root = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": _root(mine)}}
    ec2.register_image(
        Name=f"{mine['Name']}x", RootDeviceName="/dev/xvda", BlockDeviceMappings=[root], VirtualizationType="hvm",
        TagSpecifications=[{"ResourceType": "image", "Tags": mine["Tags"]}],
    )  # fmt: skip
    new = cloud_for(cloud.settings.model_copy(update={"database": f"sqlite:///{cloud.settings.state_dir}/new"}),
                    cloud.now + 2 * DAY)  # fmt: skip
    for _ in range(2):
        assert {release.digest for release in rebuild(AwsStore(new))[0]} == {one.digest, two.digest}
        assert len(new.made(kind="image")) == len(new.made(kind="snapshot")) == 4
    assert {line.resource for line in new.made()} <= {line.resource for line in cloud.made()}
    assert rollback(AwsStore(new), NAME).after == one.digest
    assert pointing(cloud, "stable") == {one.digest}
    new.ledger.close()


@pytest.mark.needs("docker-registry", "skopeo")
def test_a_machine_is_promoted_by_the_night(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its definition says so: `stable` names tonight's release in every region, and nothing failed."""
    with running_registry(tmp_path / "registry") as address:
        context = Context(cloud.settings, cloud.now, lambda: "", lambda: address, "default", "ann", lenient=True)
        with closing(context.ledger):
            loaded = context.definitions[NAME]
            at_once = loaded.definition.lifecycle.model_copy(update={"soak": timedelta(0)})
            automatic = loaded.definition.model_copy(update={"promote": "auto", "lifecycle": at_once})
            context.definitions[NAME] = replace(loaded, definition=automatic)
            artifact, said = built(context.cloud, disk(seed=1)), judged(cloud.now)
            judgement = replace(said, verdict=replace(said.verdict, subject=NAME))
            outcome = BuildOutcome(NAME, Action.BUILT, artifact.digest)
            monkeypatch.setattr(image_stages, "build", lambda *_: [outcome])
            monkeypatch.setattr(images.release.flow, "latest", lambda *_: artifact)
            monkeypatch.setattr(images.release.flow, "judge", lambda *_: judgement)
            context.ledger.record_verdict(artifact.digest, judgement.verdict)
            (image,) = images_of_a_night(context, [NAME])
            assert (image.action, image.failure) == ("published", None)
            (promotion,) = image.parts
            assert (promotion.lines, promotion.failure, promotion.promoted) == ((), None, NAME)
            assert pointing(cloud, "stable") == pointing(cloud, "candidate") != set()
