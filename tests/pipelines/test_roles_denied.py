"""What a role should not do is denied to it, by its own policies, which the emulator enforces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import GoldsmithError, RefusedError
from images.aws.client import Clients, DeniedError
from images.aws.permissions import ROLES
from pipelines.cli.adopt_clusters import adopt_cluster
from pipelines.fleet.ec2.instance_spec import token
from pipelines.fleet.ec2.instances import Ec2Fleet
from pipelines.fleet.ec2.region_client import RegionClient
from pipelines.fleet.members import EXPIRY, MEMBER, OWNED, ROLLOUT
from pipelines.fleet.model import Method
from pipelines.network.model import RoleGroup
from tests.pipelines.cli.test_adopt_ec2 import Unmanaged, unmanaged
from tests.strict_aws import ACCOUNT, REGION, StrictAws, guard
from tests.strict_aws.making import image, snapshot
from tests.support.cloud import DAY, PARTNER
from tests.support.ec2 import Shop, fleet, key_of, shop
from tests.support.roles import enforced, every, rendered

OURS = {"app": "shop"}


@pytest.fixture
def at(aws: StrictAws, tmp_path: Path) -> Iterator[Shop]:
    """A shop whose ledger is closed in the end."""
    made = shop(aws, tmp_path)
    yield made
    made.cloud.ledger.close()


def place(at: Shop) -> RegionClient:
    return RegionClient(at.cloud.clients, ACCOUNT, REGION)


def denied(act: Callable[[], Any], permission: str) -> None:
    """Assert that an act is denied for want of exactly this permission."""
    with pytest.raises(DeniedError) as error:
        act()
    assert error.value.permission == permission


def as_role(at: Shop, role: str) -> Any:
    return enforced(at.aws, {ACCOUNT: rendered(role, at.cloud.settings, (fleet(), fleet(ec2={"way": "root_volume"})))})


def test_the_roller_ends_only_what_a_rollout_launched_or_a_person_gave_it(at: Shop) -> None:
    """A member that somebody launched stays, and it cannot make it its own; a person can."""
    member = at.instance()
    with as_role(at, "roller"):
        denied(lambda: place(at).terminate(member), "ec2:TerminateInstances")
        for key in (OWNED, OWNED.replace("owned", "OWNED")):  # condition keys know no case
            denied(lambda key=key: place(at).tag([member], {key: "x"}), "ec2:CreateTags")
        place(at).tag([member], {ROLLOUT: "x", MEMBER: "y", EXPIRY: "z"})
        denied(lambda: place(at).terminate(member), "ec2:TerminateInstances")
    assert at.running() == [member]
    at.ec2.create_tags(Resources=[member], Tags=[{"Key": OWNED, "Value": "yes"}])
    with as_role(at, "roller"):
        place(at).terminate(member)
    at.settle()
    assert at.running() == []


def test_the_roller_ends_nothing_that_a_rollout_of_others_launched(at: Shop) -> None:
    """Two installations in one account have the same mark; what tells them apart is what their fleets select."""
    other = at.instance(tags={"app": "bank", OWNED: "x"})
    with as_role(at, "roller"):
        denied(lambda: place(at).terminate(other), "ec2:TerminateInstances")
    assert at.running() == [other]


def test_the_roller_of_another_account_launches_from_an_encrypted_image_that_is_shared(at: Shop) -> None:
    """By its own right to use the key of the account that owns it; not without."""
    golden, (line,) = at.image(at.new), at.cloud.made(kind="snapshot", release=at.new.digest, region=REGION)
    at.ec2.modify_image_attribute(ImageId=golden, LaunchPermission={"Add": [{"UserId": PARTNER}]})
    to = {"Attribute": "createVolumePermission", "CreateVolumePermission": {"Add": [{"UserId": PARTNER}]}}
    at.ec2.modify_snapshot_attribute(SnapshotId=line.resource, **to)
    aws = at.cloud.aws.model_copy(update={"roles": {PARTNER: f"arn:aws:iam::{PARTNER}:role/goldsmith"}})
    settings, fleets = at.cloud.settings.model_copy(update={"aws": aws}), [fleet(ec2={"accounts": [PARTNER]})]
    owned = [{"ResourceType": "instance", "Tags": [{"Key": OWNED, "Value": "x"}]}]
    asked = {
        "ImageId": golden, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, "TagSpecifications": owned,
        "MetadataOptions": {"HttpTokens": "required"},
    }  # fmt: skip
    own, there = (rendered("roller", settings, fleets, account) for account in (ACCOUNT, PARTNER))
    ec2 = Clients(aws).client("ec2", REGION, PARTNER)
    found = [one for document in there for one in document["Statement"]]
    keyless = [{"Version": "2012-10-17", "Statement": [one for one in found if ":key/" not in str(one["Resource"])]}]
    with enforced(at.aws, {ACCOUNT: own, PARTNER: keyless}):
        denied(lambda: ec2.call("RunInstances", **asked), "ec2:RunInstances")
    with enforced(at.aws, {ACCOUNT: own, PARTNER: there}):
        assert ec2.call("RunInstances", **asked)["Instances"]


def test_the_auditor_reads_what_adopt_looks_at_before_there_is_a_fleet(aws: StrictAws, tmp_path: Path) -> None:
    """Instances, groups, services of ECS and node groups of EKS."""
    offices = unmanaged.__wrapped__(aws, tmp_path)  # type: ignore[attr-defined]
    made: Unmanaged = next(offices)
    made.at.instance()
    with enforced(aws, {ACCOUNT: rendered("auditor", made.at.cloud.settings, ())}):
        assert made.adopt("ec2:app=shop").members
        for what in ("ecs:shop", "eks:shop"):
            with pytest.raises(GoldsmithError) as found:
                adopt_cluster([what], context=made.context)
            assert not isinstance(found.value, DeniedError), "there is none, which is known"
    next(offices, None)


def test_a_member_that_could_not_be_ended_is_refused_before_anything_of_it_changes(at: Shop) -> None:
    """The refusal says what a person may do."""
    at.instance()
    port = Ec2Fleet(fleet(), at.cloud)
    with as_role(at, "roller"):
        (member,) = port.describe()
        with pytest.raises(RefusedError, match="we may not terminate i-") as refused:
            port.create(key_of(member, Method.SURGE), at.target, at.cloud.now + DAY)
    assert OWNED in str(refused.value.hint)
    assert not [key for key in guard.tags.of(ACCOUNT, REGION, member.handle) if key.startswith("dev.goldsmith.")]


def test_the_reaper_ends_only_what_a_rollout_launched_and_has_not_handed_over(at: Shop) -> None:
    """Neither a member, nor what somebody else launched with our tags."""
    member = at.instance(tags={**OURS, OWNED: "x"})
    stranger = at.instance(tags={**OURS, EXPIRY: "2020-01-01T00:00:00Z", ROLLOUT: "x"})
    left = at.instance(ClientToken=token("x", "y", "create"), tags={**OURS, OWNED: "x", EXPIRY: "2020-01-01T00:00:00Z"})
    volume = at.ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=1)["VolumeId"]
    with as_role(at, "reaper"):
        for one in (member, stranger):
            denied(lambda one=one: place(at).terminate(one), "ec2:TerminateInstances")
        denied(lambda: place(at).delete_volume(volume), "ec2:DeleteVolume")
        denied(lambda: place(at).tag([member], {EXPIRY: "x"}), "ec2:CreateTags")
        place(at).terminate(left)
    at.settle()
    assert at.running() == sorted([member, stranger])


def test_the_roller_changes_no_instance_that_no_fleet_selects(at: Shop) -> None:
    """It cannot be made a member either, nor a member given other tags than ours."""
    other, member = at.instance(tags={"app": "bank"}), at.instance()
    ours = place(at)
    card = at.shown(other)["NetworkInterfaces"][0]["NetworkInterfaceId"]
    data = at.ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=1)["VolumeId"]
    at.settle()
    with as_role(at, "roller"):
        denied(lambda: ours.stop(other, wait=False), "ec2:StopInstances")
        denied(lambda: ours.end_volumes(other, {"vol-1": ("/dev/xvda", True)}), "ec2:ModifyInstanceAttribute")
        denied(lambda: ours.attribute(other, "userData"), "ec2:DescribeInstanceAttribute")
        denied(lambda: ours.console(other), "ec2:GetConsoleOutput")
        denied(lambda: ours.tag([other], {MEMBER: "x"}), "ec2:CreateTags")
        denied(lambda: ours.tag([other], OURS), "ec2:CreateTags")
        denied(lambda: ours.tag([member], {"team": "admin"}), "ec2:CreateTags")
        denied(lambda: ours.untag([member], ["app"]), "ec2:DeleteTags")
        denied(lambda: ours.tag([card], {EXPIRY: "x"}), "ec2:CreateTags")
        off = {"NetworkInterfaceId": card, "SourceDestCheck": {"Value": False}}
        denied(lambda: ours.ec2.call("ModifyNetworkInterfaceAttribute", **off), "ec2:ModifyNetworkInterfaceAttribute")
        to = {"VolumeId": data, "InstanceId": other, "Device": "/dev/sdf"}
        denied(lambda: ours.ec2.call("AttachVolume", **to), "ec2:AttachVolume")


@pytest.mark.parametrize(
    "changed",
    [{"TagSpecifications": []}, {"MetadataOptions": {"HttpTokens": "optional"}}, {"ImageId": "foreign"},
     {"IamInstanceProfile": {"Name": "admin"}}],
    ids=["not marked as ours", "IMDSv1", "a stranger's image", "another role"],
)  # fmt: skip
def test_the_roller_launches_only_what_is_ours(at: Shop, changed: dict[str, Any]) -> None:
    """From our account's images, marked, without IMDSv1, and with the roles of the settings."""
    owned = [{"ResourceType": "instance", "Tags": [{"Key": OWNED, "Value": "x"}]}]
    asked = {
        "ImageId": at.image(at.new), "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, "SubnetId": at.subnet,
        "TagSpecifications": owned, "MetadataOptions": {"HttpTokens": "required"},
    }  # fmt: skip
    if changed == {"ImageId": "foreign"}:
        changed = {"ImageId": image(at.aws, "foreign", account=PARTNER)}
    with as_role(at, "roller"):
        denied(lambda: place(at).ec2.call("RunInstances", **{**asked, **changed}), "ec2:RunInstances")
        place(at).ec2.call("RunInstances", **asked)


def test_the_publisher_shares_with_the_accounts_of_the_settings_alone(at: Shop) -> None:
    """Never with everybody; and what others made it neither changes nor removes."""
    cloud = at.cloud
    own = cloud.made(kind="snapshot")[0].resource
    foreign = snapshot(at.aws)
    ec2 = cloud.client("ec2")
    aws = cloud.aws.model_copy(update={"share_accounts": (PARTNER,)})
    settings = cloud.settings.model_copy(update={"aws": aws})

    def share(**to: Any) -> None:
        asked = {"SnapshotId": own, "Attribute": "createVolumePermission", "CreateVolumePermission": {"Add": [to]}}
        ec2.call("ModifySnapshotAttribute", **asked)

    with enforced(at.aws, {ACCOUNT: rendered("publisher", settings, ())}):
        share(UserId=PARTNER)
        denied(lambda: share(UserId="999999999999"), "ec2:ModifySnapshotAttribute")
        denied(lambda: share(Group="all"), "ec2:ModifySnapshotAttribute")
        denied(lambda: ec2.call("DeleteSnapshot", SnapshotId=foreign), "ec2:DeleteSnapshot")
        gone: dict[str, Any] = {"CreateVolumePermission": {"Remove": [{"UserId": PARTNER}]}}
        closed = {"SnapshotId": own, "Attribute": "createVolumePermission", **gone}
        denied(lambda: ec2.call("ModifySnapshotAttribute", **closed | {"SnapshotId": foreign}),
               "ec2:ModifySnapshotAttribute")  # fmt: skip
        denied(lambda: ec2.call("CreateTags", Resources=[foreign], Tags=[{"Key": "dev.goldsmith.name", "Value": "x"}]),
               "ec2:CreateTags")  # fmt: skip
        ssm = cloud.client("ssm")
        put = {"Name": "/shop/password", "Value": "x", "Type": "String"}
        denied(lambda: ssm.call("PutParameter", **put), "ssm:PutParameter")
        denied(lambda: ssm.call("GetParameter", Name="/shop/password"), "ssm:GetParameter")
    nobody = settings.model_copy(update={"aws": aws.model_copy(update={"share_accounts": ()})})
    with enforced(at.aws, {ACCOUNT: rendered("publisher", nobody, ())}):
        ec2.call("ModifySnapshotAttribute", **closed)  # and takes it away once the settings name none
        denied(lambda: share(UserId=PARTNER), "ec2:ModifySnapshotAttribute")


def test_in_another_region_nothing_is_allowed(at: Shop) -> None:
    """Not even a look."""
    with as_role(at, "auditor"):
        list(at.cloud.client("ec2", REGION).instances())
        denied(lambda: list(at.cloud.client("ec2", "us-west-2").instances()), "ec2:DescribeInstances")


def test_a_network_changes_no_other_group(at: Shop) -> None:
    """Neither another of the account, nor one of the same id elsewhere; and it makes and removes none."""
    vpc = at.ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    made = (at.ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc) for name in ("own", "other"))
    own, other = (one["GroupId"] for one in made)
    group = RoleGroup(id=own, region=REGION, account="")
    peer = [{"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "UserIdGroupPairs": [{"GroupId": other}]}]
    ec2 = at.cloud.client("ec2")
    with enforced(at.aws, {ACCOUNT: rendered("network", at.cloud.settings, (fleet(),), groups=[group])}):
        for operation in ("AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress"):
            ec2.call(operation, GroupId=own, IpPermissions=peer)
            denied(lambda operation=operation: ec2.call(operation, GroupId=other, IpPermissions=peer),
                   f"ec2:{operation}")  # fmt: skip
        denied(lambda: ec2.call("DeleteSecurityGroup", GroupId=own), "ec2:DeleteSecurityGroup")


@pytest.mark.parametrize("role", ROLES)
def test_whatever_only_other_roles_declare_is_denied(at: Shop, role: str) -> None:
    """On every resource, whatever the conditions."""
    found = rendered(role, at.cloud.settings, (fleet(),))
    own = {name for one in every() if role in one.roles for name in one.actions}
    others = {name for one in every() for name in one.actions} - own
    assert others
    for action in (
        *others,
        "iam:CreateUser",
        "s3:GetObject",
        "ec2:AuthorizeSecurityGroupIngress",
        "lambda:InvokeFunction",
    ):
        assert not guard.allowed(found, guard.Asked(action, "*", {"aws:RequestedRegion": REGION})), action


def test_without_a_right_the_emulator_denies_the_very_call(at: Shop) -> None:
    """The error names what lacks."""
    member = at.instance()
    with enforced(at.aws, {ACCOUNT: []}):
        denied(lambda: place(at).find(member), "ec2:DescribeInstances")
    assert at.shown(member), "tests may do everything"
