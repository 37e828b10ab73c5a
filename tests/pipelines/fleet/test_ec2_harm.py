"""Rolling EC2 instances takes nothing from strangers, loses nothing silently, and always knows the way back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError, RefusedError
from pipelines.cli.reap import reap
from pipelines.fleet.ec2 import members
from pipelines.fleet.ec2.instance_spec import kept_in
from pipelines.fleet.ec2.instances import Ec2Fleet
from pipelines.fleet.ec2.orphans import Ec2OrphanSource
from pipelines.fleet.ec2.provenance import image_of
from pipelines.fleet.ec2.root_volume import RootVolumeFleet
from pipelines.fleet.members import Key, ReplacementImage
from pipelines.fleet.model import Method
from pipelines.fleet.port import GoneError
from tests.strict_aws import REGION, StrictAws
from tests.strict_aws.making import image, snapshot
from tests.support.ec2 import ZONE, Asked, Shop, fleet, key_of, shop

EXPIRY = timedelta(days=1)
DRAIN = timedelta(seconds=5)


@pytest.fixture
def at(aws: StrictAws, tmp_path: Path) -> Iterator[Shop]:
    """A shop whose ledger is closed in the end."""
    made = shop(aws, tmp_path)
    yield made
    made.cloud.ledger.close()


def anew(at: Shop) -> Any:
    """The port of a fleet whose members become new instances."""
    return Asked(Ec2Fleet(fleet(), at.cloud), at.aws)


def within(at: Shop) -> Any:
    """The port of a fleet whose members get a new root volume."""
    return Asked(RootVolumeFleet(fleet(ec2={"way": "root_volume"}, limits={"method": "in_place"}), at.cloud), at.aws)


def replaced(at: Shop, port: Any, key: Key, target: ReplacementImage | None = None) -> None:
    """All effects of a replacement in place."""
    port.create(key, target or at.target, at.cloud.now + EXPIRY)
    port.retire(key, DRAIN)
    port.start(key)


def taken_back(port: Any, key: Key) -> None:
    port.revive(key)
    port.discard(key)


def in_place(port: Any) -> Key:
    """The key of the only member."""
    (member,) = port.describe()
    assert not member.cannot_roll
    return key_of(member, Method.IN_PLACE)


def foreign(at: Shop, name: str = "foreign", **how: Any) -> str:
    """An image that is not ours, encrypted as ours are."""
    return image(at.aws, name, snapshot=snapshot(at.aws, Encrypted=True), **how)


def volume(at: Shop, instance: str, **how: Any) -> str:
    """A data volume of an instance, at /dev/sdf."""
    made = at.ec2.create_volume(**{"AvailabilityZone": ZONE, "Size": 5, **how})["VolumeId"]
    at.settle()
    at.ec2.attach_volume(VolumeId=made, InstanceId=instance, Device="/dev/sdf")
    at.settle()
    return str(made)


def holders(at: Shop, name: str) -> list[str]:
    """Where a volume hangs."""
    at.settle()
    found = at.ec2.describe_volumes(VolumeIds=[name])["Volumes"][0]["Attachments"]
    return sorted(one["InstanceId"] for one in found)


def test_an_adoption_that_was_taken_back_is_unknown_again(at: Shop) -> None:
    """The id of the image stays the new one; the disk is the old one, of which nothing is known.

    So it is after the image is deregistered, and for a volume that was made of no snapshot at all.
    """
    at.instance(ImageId=foreign(at))
    port = within(at)
    key = in_place(port)
    replaced(at, port, key)
    assert port.describe()[0].image == at.image(at.new)
    taken_back(port, key)
    (member,) = port.describe()
    assert at.shown(key.old)["ImageId"] == at.image(at.new)
    assert (member.image.startswith("snap-"), at.new.digest in member.digests) == (True, False)
    at.ec2.deregister_image(ImageId=at.image(at.new))
    assert port.describe()[0].image == member.image
    with pytest.raises(OutsideError, match="what ran before is not an image"):
        port.prepare(ReplacementImage(member.exact, member.exact, None))


def test_the_way_back_of_a_root_volume_stops_nothing(at: Shop) -> None:
    """An automatic address, stop protection, one-time Spot: a reboot costs none of it, and the old disk is back."""
    public = [{"DeviceIndex": 0, "SubnetId": at.subnet, "AssociatePublicIpAddress": True}]
    spot = {"MarketType": "spot"}
    old = at.instance(SubnetId=None, NetworkInterfaces=public, DisableApiStop=True, InstanceMarketOptions=spot)
    before = at.shown(old)
    assert before["PublicIpAddress"]
    port = within(at)
    key = in_place(port)
    replaced(at, port, key)
    taken_back(port, key)
    at.settle()
    after = at.shown(old)
    same = ("PublicIpAddress", "State", "CurrentInstanceBootMode")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    root = before["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    assert after["BlockDeviceMappings"][0]["Ebs"]["VolumeId"] == root
    assert not at.aws.calls("ec2", "StopInstances")
    assert at.aws.calls("ec2", "CreateReplaceRootVolumeTask", effect=True)[-1]["params"]["VolumeId"] == root
    assert port.read_old(key).good
    assert not at.leftovers()


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ({"BootMode": "legacy-bios", "TpmSupport": None}, "t3.micro", "boots by legacy-bios and the image by uefi"),
        ({"BootMode": None, "TpmSupport": None}, "t2.micro", "t2.micro does not boot by uefi"),
        ({"BootMode": None, "TpmSupport": None}, "m5.metal", "bare metal"),
    ],
)
def test_what_could_not_go_back_is_refused_in_the_plan(at: Shop, how: dict[str, Any], kind: str, said: str) -> None:
    """By its name, and again right before the first change, by the very image."""
    old = at.instance(ImageId=foreign(at, **how), InstanceType=kind)
    port = within(at)
    (member,) = port.describe()
    assert said in member.cannot_roll or kind == "m5.metal"
    with pytest.raises(RefusedError):
        port.create(key_of(member, Method.IN_PLACE), at.target, at.cloud.now + EXPIRY)
    assert kept_in({one["Key"]: one["Value"] for one in at.shown(old)["Tags"]}) is None


def test_a_root_in_the_clear_does_not_become_an_encrypted_one(at: Shop) -> None:
    """EC2 lets no volume in the clear take the place of an encrypted one: the image's, or where all is encrypted."""
    at.instance(ImageId=image(at.aws, "clear"))
    port = within(at)
    (member,) = port.describe()
    assert "not encrypted" in member.cannot_roll
    target = ReplacementImage(image(at.aws, "other"), "", None)
    at.ec2.enable_ebs_encryption_by_default()
    with pytest.raises(RefusedError, match="not encrypted"):
        port.create(key_of(member, Method.IN_PLACE), target, at.cloud.now + EXPIRY)
    at.ec2.disable_ebs_encryption_by_default()
    port.create(key_of(member, Method.IN_PLACE), target, at.cloud.now + EXPIRY)


def test_a_smaller_image_takes_a_larger_root(at: Shop) -> None:
    """EC2 makes the new root as large as the larger of both, by the old one's key."""
    old = at.furnished(unique=False)
    port = within(at)
    key = in_place(port)
    replaced(at, port, key)
    assert port.differences(key) == ()
    found = at.ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [old]}])["Volumes"]
    assert [one["Size"] for one in found] == [12]


def test_status_checks_of_the_time_before_the_reboot_are_not_believed(at: Shop) -> None:
    """They run once a minute; where a target group or a probe speaks for the member, nothing needs to be waited for."""
    at.instance()
    at.aws.freeze()
    at.cloud.clients.pause = at.aws.advance
    port = within(at)
    key = in_place(port)
    replaced(at, port, key)
    at.aws.advance(30)
    seen = port.read(key)
    assert (seen.good, "before its reboot" in seen.text) == (False, True)
    assert port.read_old(key).good
    at.aws.advance(91)
    assert port.read(key).good


@pytest.mark.parametrize("costly", [False, True])
def test_an_instance_that_lost_its_root_gets_it_back_where_a_stop_costs_nothing(at: Shop, costly: bool) -> None:
    """`failing-detached` is waited for; after `failed-detached` it stops and starts, or a person is told what to do."""
    old = at.instance(DisableApiStop=costly)
    root = at.shown(old)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    at.aws.ail(at.image(at.new), "root-detached")
    port = within(at)
    key = in_place(port)
    with pytest.raises(OutsideError, match="failed-detached"):
        replaced(at, port, key)
    if not costly:
        taken_back(port, key)
        at.settle()
        assert at.shown(old)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"] == root
        assert port.read_old(key).good
        return
    with pytest.raises(OutsideError, match="protection from being stopped") as error:
        port.revive(key)
    assert f"attach {root} at /dev/xvda" in error.value.hint
    assert at.shown(old)["State"]["Name"] == "running"


def test_the_last_copy_of_a_disk_outlives_its_instance(at: Shop) -> None:
    """Somebody ends the instance, and the new root volume goes with it: the old one is shown and kept, by all of us."""
    old = at.instance()
    root = at.shown(old)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    port = within(at)
    key = in_place(port)
    replaced(at, port, key)
    at.cloud.ledger.begin_rollout(key.rollout, "shop", "ann", {}, at.cloud.now)
    at.cloud.ledger.save_rollout(key.rollout, {}, at.cloud.now, is_open=False)
    at.ec2.terminate_instances(InstanceIds=[old])
    at.settle()
    with pytest.raises(GoneError):
        port.revive(key)
    port.discard(key)
    source = Ec2OrphanSource(at.cloud.clients, [(at.cloud.aws.account, REGION)], at.cloud.ledger)
    (kept,) = reap([source], at.cloud.ledger, at.cloud.now + 9 * EXPIRY, "ann", apply=True)
    assert (kept.orphan.id, kept.remove, f"that {key.rollout} kept" in kept.why) == (root, False, True)
    assert at.leftovers() == [root]


def test_a_way_back_that_failed_is_tried_again(at: Shop) -> None:
    """Each by a task of its own."""
    old = at.instance()
    root = at.shown(old)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    port = within(at)
    key = in_place(port)
    replaced(at, port, key)
    at.aws.ail(root, "root")
    with pytest.raises(OutsideError, match="failed"):
        port.revive(key)
    at.aws.cure(root)
    taken_back(port, key)
    assert at.shown(old)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"] == root
    assert len(at.aws.calls("ec2", "CreateReplaceRootVolumeTask", effect=True)) == 3


def test_a_volume_is_never_detached_from_a_stranger(at: Shop) -> None:
    """A person moved it meanwhile: the replacement fails with both names, the way back too, and it stays there."""
    old, stranger = at.instance(), at.instance(tags={"app": "other"})
    data = volume(at, old)
    port = anew(at)
    key = in_place(port)
    port.create(key, at.target, at.cloud.now + EXPIRY)
    port.retire(key, DRAIN)
    at.ec2.detach_volume(VolumeId=data)
    at.settle()
    at.ec2.attach_volume(VolumeId=data, InstanceId=stranger, Device="/dev/sdf")
    for act in (port.start, port.revive):
        with pytest.raises(OutsideError, match=f"{data} is attached to {stranger}"):
            act(key)
        assert holders(at, data) == [stranger]


def test_a_multi_attach_volume_leaves_the_old_member_alone(at: Shop) -> None:
    """Its other nodes keep it, there and back, whichever stands first in its attachments."""
    stranger = at.instance(tags={"app": "other"})
    how = {"Size": 4, "VolumeType": "io2", "Iops": 100, "MultiAttachEnabled": True}
    data = volume(at, stranger, **how)
    old = at.instance()
    at.ec2.attach_volume(VolumeId=data, InstanceId=old, Device="/dev/sdf")
    at.settle()
    port = anew(at)
    key = in_place(port)
    replaced(at, port, key)
    (new,) = {*at.running()} - {stranger}
    assert holders(at, data) == sorted([stranger, new])
    taken_back(port, key)
    assert holders(at, data) == sorted([stranger, old])


def test_an_interface_and_an_address_are_never_taken_from_a_stranger(at: Shop) -> None:
    """Moved meanwhile, they stay where they are."""
    old = at.furnished(unique=True)
    stranger = at.instance(tags={"app": "other"})
    port = anew(at)
    key = in_place(port)
    port.create(key, at.target, at.cloud.now + EXPIRY)
    port.retire(key, DRAIN)
    (card,) = [one for one in at.shown(old)["NetworkInterfaces"] if one["Attachment"]["DeviceIndex"]]
    name, address = card["NetworkInterfaceId"], at.ec2.describe_addresses()["Addresses"][0]["AllocationId"]
    at.ec2.detach_network_interface(AttachmentId=card["Attachment"]["AttachmentId"])
    at.ec2.attach_network_interface(NetworkInterfaceId=name, InstanceId=stranger, DeviceIndex=1)
    with pytest.raises(OutsideError, match=f"{name} is attached to {stranger}"):
        port.start(key)
    moved = at.shown(stranger)["NetworkInterfaces"][1]["Attachment"]["AttachmentId"]
    at.ec2.detach_network_interface(AttachmentId=moved)
    first = at.shown(stranger)["NetworkInterfaces"][0]["NetworkInterfaceId"]
    at.ec2.associate_address(AllocationId=address, NetworkInterfaceId=first)
    with pytest.raises(OutsideError, match=f"{address} is attached to {stranger}"):
        port.start(key)
    assert at.ec2.describe_addresses()["Addresses"][0]["InstanceId"] == stranger


def ip_group(at: Shop, *addresses: str) -> str:
    """A target group of addresses behind a load balancer, with these registered."""
    arn = at.register(at.instance(tags={"app": "other"}), "a")
    balancer = at.balancers.describe_load_balancers()["LoadBalancers"][0]["LoadBalancerArn"]
    asked = {"Name": "ip", "Protocol": "HTTP", "Port": 80, "VpcId": at.vpc, "TargetType": "ip"}
    group = at.balancers.create_target_group(**asked)["TargetGroups"][0]["TargetGroupArn"]
    forward = [{"Type": "forward", "TargetGroupArn": group}]
    at.balancers.create_listener(LoadBalancerArn=balancer, Protocol="HTTP", Port=81, DefaultActions=forward)
    targets = [{"Id": one, "Port": 8080} for one in addresses]
    at.balancers.register_targets(TargetGroupArn=group, Targets=targets)
    assert arn != group
    return str(group)


def serving(at: Shop, group: str) -> dict[str, str]:
    at.settle()
    found = at.balancers.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
    return {one["Target"]["Id"]: one["TargetHealth"]["State"] for one in found}


def test_registrations_by_address_go_with_the_member(at: Shop) -> None:
    """The new instance is registered by its own address, and the old one again on the way back."""
    old = at.instance()
    address = at.shown(old)["PrivateIpAddress"]
    group = ip_group(at, address)
    port = anew(at)
    (member,) = port.describe()
    key = key_of(member, Method.SURGE)
    port.create(key, at.target, at.cloud.now + EXPIRY)
    port.start(key)
    port.expose(key)
    assert len(serving(at, group)) == 2
    port.retire(key, DRAIN)
    at.aws.advance(400)
    new, _ = port.place(key).launched(key)
    assert serving(at, group) == {new.instance["PrivateIpAddress"]: "healthy"}
    assert port.read(key).good
    assert port.differences(key) == ()
    taken_back(port, key)
    at.aws.advance(400)
    assert serving(at, group) == {address: "healthy"}


def test_a_tag_on_another_image_stops_no_rollout(at: Shop) -> None:
    """The image that is what was signed is taken; where none is, the refusal tells why."""
    tag = [{"Key": "dev.goldsmith.release", "Value": at.new.digest}]
    at.ec2.create_tags(Resources=[at.image(at.old)], Tags=tag)
    assert image_of(at.cloud, at.target, REGION) == at.image(at.new)
    at.ec2.deregister_image(ImageId=at.image(at.new))
    with pytest.raises(RefusedError, match=f"{at.image(at.old)} is not what was signed"):
        image_of(at.cloud, at.target, REGION)


def network(at: Shop, cidr: str) -> str:
    """Another network, with one subnet that fills it."""
    vpc = at.ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"]
    at.ec2.create_subnet(VpcId=vpc, CidrBlock=cidr, AvailabilityZone=ZONE)
    return str(vpc)


def test_a_member_that_another_network_reaches_by_its_address_is_refused(at: Shop) -> None:
    """Its new instance would be in no target group there. An address of that network itself is somebody else's."""
    address = at.shown(at.instance())["PrivateIpAddress"]

    def registered(vpc: str, **where: str) -> None:
        asked = {"Name": f"ip-{vpc}", "Protocol": "HTTP", "Port": 80, "VpcId": vpc, "TargetType": "ip"}
        group = at.balancers.create_target_group(**asked)["TargetGroups"][0]["TargetGroupArn"]
        at.balancers.register_targets(TargetGroupArn=group, Targets=[{"Id": address, **where}])

    registered(network(at, "10.0.0.0/16"))
    assert [port.describe()[0].cannot_roll for port in (anew(at), within(at))] == ["", ""]
    peered = network(at, "10.7.0.0/16")
    registered(peered, AvailabilityZone="all")
    for port in (anew(at), within(at)):
        said = port.describe()[0].cannot_roll
        assert f"a target group of another network, targetgroup/ip-{peered}" in said
        assert f"({peered})" in said


def test_a_look_asks_the_target_groups_of_the_member_alone(at: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of its network are asked once in a while: one that somebody else registered it in meanwhile is found then."""
    old = at.instance()
    at.register(old, "own")
    for number in range(8):
        asked = {"Name": f"other-{number}", "Protocol": "HTTP", "Port": 80, "VpcId": at.vpc, "TargetType": "instance"}
        other = at.balancers.create_target_group(**asked)["TargetGroups"][0]["TargetGroupArn"]
    at.settle()
    port = anew(at)
    key = in_place(port)

    def asked_by_a_look() -> list[str]:
        since = max(call["number"] for call in at.aws.calls())
        assert port.read_old(key).good
        return [call["operation"] for call in at.aws.calls("elbv2", since=since)]

    walk = ["DescribeTargetGroups", *["DescribeTargetHealth"] * 9]
    assert asked_by_a_look() == walk
    assert asked_by_a_look() == asked_by_a_look() == ["DescribeTargetHealth"]
    at.balancers.register_targets(TargetGroupArn=other, Targets=[{"Id": old}])
    assert asked_by_a_look() == ["DescribeTargetHealth"]
    port.create(key, at.target, at.cloud.now + EXPIRY)  # which writes down where the old one is registered
    assert asked_by_a_look() == ["DescribeTargetHealth"] * 2
    monkeypatch.setattr(members, "monotonic", lambda: monotonic() + members.ASKED_AGAIN.total_seconds())
    assert asked_by_a_look() == walk
    assert asked_by_a_look() == ["DescribeTargetHealth"] * 2
    at.balancers.delete_target_group(TargetGroupArn=other)
    assert asked_by_a_look() == ["DescribeTargetHealth"] * 2


def test_a_root_volumes_member_leaves_a_group_of_addresses_meanwhile(at: Shop) -> None:
    """It is drained before the reboot, and back after it."""
    old = at.instance()
    address = at.shown(old)["PrivateIpAddress"]
    group = ip_group(at, address)
    port = within(at)
    key = in_place(port)
    port.create(key, at.target, at.cloud.now + EXPIRY)
    with suppress(AssertionError):
        port.retire(key, timedelta())
    assert serving(at, group) == {address: "draining"}
    port.start(key)
    assert serving(at, group) == {address: "healthy"}


def test_a_member_of_a_classic_load_balancer_is_refused_by_its_name(at: Shop) -> None:
    """It would be lost there silently, and nothing says when its requests have ended."""
    old, classic = at.instance(), at.aws.client("elb")
    listener = {"Protocol": "HTTP", "LoadBalancerPort": 80, "InstancePort": 80}
    classic.create_load_balancer(LoadBalancerName="classic-1", Listeners=[listener], AvailabilityZones=[ZONE])
    asked = {"LoadBalancerName": "classic-1", "Instances": [{"InstanceId": old}]}
    classic.register_instances_with_load_balancer(**asked)
    for port in (anew(at), within(at)):
        assert "Classic Load Balancer classic-1" in port.describe()[0].cannot_roll


def test_what_a_launch_chose_is_the_new_ones_too(at: Shop) -> None:
    """CPU, enclave, hibernation, licence, recovery, names in DNS, key and end of the root volume."""
    key_of_root = at.aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    root = {"VolumeSize": 12, "Encrypted": True, "KmsKeyId": key_of_root, "DeleteOnTermination": False}
    licence = {"LicenseConfigurationArn": "arn:aws:license-manager:eu-central-1:111111111111:license-configuration:x"}
    asked: dict[str, Any] = {
        "CpuOptions": {"CoreCount": 1, "ThreadsPerCore": 1},
        "EnclaveOptions": {"Enabled": True},
        "HibernationOptions": {"Configured": True},
        "CapacityReservationSpecification": {"CapacityReservationPreference": "none"},
        "MaintenanceOptions": {"AutoRecovery": "disabled"},
        "PrivateDnsNameOptions": {"HostnameType": "resource-name", "EnableResourceNameDnsARecord": True},
        "NetworkPerformanceOptions": {"BandwidthWeighting": "vpc-1"},
    }
    old = at.instance(
        **asked, InstanceType="m5.large", LicenseSpecifications=[licence],
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": root}],
    )  # fmt: skip
    port = anew(at)
    (member,) = port.describe()
    key = key_of(member, Method.SURGE)
    port.create(key, at.target, at.cloud.now + EXPIRY)
    port.start(key)
    assert port.differences(key) == ()
    (new,) = {*at.running()} - {old}
    shown = at.shown(new)
    assert {name: shown[name] for name in asked} == asked
    assert shown["Licenses"] == [licence]
    ebs = shown["BlockDeviceMappings"][0]["Ebs"]
    assert ebs["DeleteOnTermination"] is False
    assert at.ec2.describe_volumes(VolumeIds=[ebs["VolumeId"]])["Volumes"][0]["KmsKeyId"] == key_of_root
    taken_back(port, key)
    at.settle()
    assert not at.leftovers()


def test_a_type_that_says_nothing_of_itself_is_asked_for_plainly(at: Shop) -> None:
    """Some types refuse to be told even their own CPU options: defaults are not sent."""
    at.instance()
    port = anew(at)
    key = in_place(port)
    replaced(at, port, key)
    asked = at.aws.calls("ec2", "RunInstances", effect=True)[-1]["params"]
    assert not {"CpuOptions", "EnclaveOptions", "HibernationOptions", "CapacityReservationSpecification"} & asked.keys()


def test_the_check_is_that_of_the_first_interface(at: Shop) -> None:
    """Begun anew after a crash, when a second interface hangs there already, it is still said of the right one."""
    old = at.furnished(unique=True)
    first = at.shown(old)["NetworkInterfaces"][0]["NetworkInterfaceId"]
    at.ec2.modify_network_interface_attribute(NetworkInterfaceId=first, SourceDestCheck={"Value": False})
    port = anew(at)
    key = in_place(port)
    replaced(at, port, key)
    port.start(key)
    assert port.differences(key) == ()
    (new,) = at.running()
    assert at.shown(new)["SourceDestCheck"] is False


def test_a_network_card_is_kept(at: Shop) -> None:
    """An interface goes onto the card that it was on."""
    old = at.furnished(unique=True)
    (card,) = [one for one in at.shown(old)["NetworkInterfaces"] if one["Attachment"]["DeviceIndex"]]
    at.ec2.detach_network_interface(AttachmentId=card["Attachment"]["AttachmentId"])
    asked = {"NetworkInterfaceId": card["NetworkInterfaceId"], "InstanceId": old, "DeviceIndex": 1}
    at.ec2.attach_network_interface(**asked, NetworkCardIndex=1)
    port = anew(at)
    key = in_place(port)
    replaced(at, port, key)
    assert port.differences(key) == ()
    (new,) = at.running()
    found = [one["Attachment"]["NetworkCardIndex"] for one in at.shown(new)["NetworkInterfaces"]]
    assert sorted(found) == [0, 1]
