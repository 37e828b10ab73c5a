"""What makes an EC2 instance that instance: kept in tags, asked for again, and compared, from values alone."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.aws.tags import as_dict, as_list
from pipelines.fleet.ec2.instance_spec import (
    TAKES,
    Hung,
    InstanceDescription,
    Registration,
    ReplacementRecord,
    changed,
    differences,
    is_member,
    kept_in,
    options,
    own_tags,
    root_traits,
    run_instances,
    token,
    traits,
)
from pipelines.fleet.ec2.obstacles import cannot_roll, forced_in_place, lost_by_stop, unfit
from pipelines.fleet.model import Ec2, ReplacementStrategy

GROUP = "arn:aws:elasticloadbalancing:eu-central-1:111111111111:targetgroup/shop/0123456789abcdef"
COMES = {"BootMode": "uefi", "TpmSupport": "v2.0", "EnaSupport": True, "Encrypted": True}
TYPE = {
    "ProcessorInfo": {"SupportedArchitectures": ["x86_64"]}, "SupportedBootModes": ["legacy-bios", "uefi"],
    "NitroTpmSupport": "supported", "NetworkInfo": {"EnaSupport": "required"},
    "VCpuInfo": {"DefaultCores": 1, "DefaultThreadsPerCore": 2},
}  # fmt: skip
NAMES = st.text("abcdef0123456789", min_size=8, max_size=17)


def instance(name: str = "i-old") -> dict[str, Any]:
    """An instance with a data volume, a further interface and people's tags."""
    return {
        "InstanceId": name,
        "State": {"Name": "running"},
        "InstanceType": "t3.micro",
        "SubnetId": "subnet-1",
        "KeyName": "ops",
        "IamInstanceProfile": {"Arn": "arn:aws:iam::111111111111:instance-profile/shop"},
        "MetadataOptions": {"HttpTokens": "optional", "HttpPutResponseHopLimit": 2, "State": "applied"},
        "Architecture": "x86_64",
        "CurrentInstanceBootMode": "uefi",
        "EnaSupport": True,
        "CpuOptions": {"CoreCount": 1, "ThreadsPerCore": 2},
        "Placement": {"AvailabilityZone": "eu-central-1a", "Tenancy": "default", "GroupName": ""},
        "Monitoring": {"State": "enabled"},
        "RootDeviceName": "/dev/xvda",
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeId": f"vol-root-{name}", "DeleteOnTermination": True}},
            {"DeviceName": "/dev/sdf", "Ebs": {"VolumeId": "vol-data", "DeleteOnTermination": False}},
        ],
        "NetworkInterfaces": [
            {"NetworkInterfaceId": f"eni-{name}", "Groups": [{"GroupId": "sg-1"}], "Attachment": {"DeviceIndex": 0}},
            {"NetworkInterfaceId": "eni-more", "Attachment": {"DeviceIndex": 1}},
        ],
        "Tags": [{"Key": "Name", "Value": "shop-1"}, {"Key": "aws:ec2launchtemplate:id", "Value": "lt-1"},
                 {"Key": "dev.goldsmith.member", "Value": "x"}],
    }  # fmt: skip


def shown(found: dict[str, Any]) -> InstanceDescription:
    """The instance with its root volume, script, Elastic IP and place in a target group."""
    root = {"Size": 12, "VolumeType": "gp3", "Iops": 4000, "Throughput": 250, "Tags": [{"Key": "disk", "Value": "a"}]}
    more = {"userData": "aGVsbG8=", "instanceInitiatedShutdownBehavior": "stop", "addresses": ("eipalloc-1",),
            "credits": "unlimited"}  # fmt: skip
    return InstanceDescription(found, {f"vol-root-{found['InstanceId']}": root}, more, (Registration(GROUP, 80),), TYPE)


def kept(old: InstanceDescription) -> ReplacementRecord:
    return ReplacementRecord("shop-1", "ami-new", "2027-01-01T00:00:00+00:00", False, old.hung())


Break = Callable[[dict[str, Any]], Any]


def without(key: str, name: str) -> Break:
    """Take what hangs there off."""
    return lambda found: found.update({key: [one for one in found[key] if name not in str(one)]})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: None, ""),
        (lambda found: found.update(InstanceType="t3.large"), "instance type: t3.micro → t3.large"),
        (lambda found: found.update(KeyName="other"), "key: ops → other"),
        (lambda found: found.pop("IamInstanceProfile"), "instance profile"),
        (lambda found: found["Tags"].append({"Key": "more", "Value": ""}), "tags"),
        (lambda found: found["MetadataOptions"].update(HttpPutResponseHopLimit=1), "metadata options"),
        (lambda found: found["MetadataOptions"].update(HttpTokens="required"), ""),
        (lambda found: found["NetworkInterfaces"][0].update(Groups=[]), "security groups"),
        (lambda found: found.update(PublicIpAddress="192.0.2.1"), "public address"),
        (without("BlockDeviceMappings", "vol-data"), "the data volume vol-data is not at /dev/sdf"),
        (lambda found: found["BlockDeviceMappings"][1].update(DeviceName="/dev/sdg"), "vol-data is not at /dev/sdf"),
        (without("NetworkInterfaces", "eni-more"), "eni-more is not its number 1"),
        (lambda found: found["BlockDeviceMappings"].append({"DeviceName": "/dev/sdh", "Ebs": {"VolumeId": "vol-x"}}),
         "vol-x hangs on it and did not before"),
    ],
)  # fmt: skip
def test_every_difference_beyond_the_image_is_told(change: Break, said: str) -> None:
    """What is the same, or stricter, is none; the old one is stopped and holds nothing any more."""
    old, new = instance(), deepcopy(instance("i-new"))
    before = kept(shown(old))
    change(new)
    stopped = {**old, "State": {"Name": "stopped"}, "BlockDeviceMappings": old["BlockDeviceMappings"][:1]}
    found = differences(shown(stopped), before, shown(new))
    assert (len(found), said in "; ".join(found)) == (1 if said else 0, True)


def test_addresses_and_registrations_that_were_lost_are_told() -> None:
    """Each by its name."""
    old, new = shown(instance()), shown(instance("i-new"))
    bare = InstanceDescription(new.instance, new.volumes, {**new.attributes, "addresses": ()})
    stopped = InstanceDescription({**old.instance, "State": {"Name": "stopped"}}, old.volumes, old.attributes)
    found = differences(stopped, kept(old), bare)
    assert found == ("the Elastic IP eipalloc-1 is not its own", f"it is not registered in {GROUP} at port 80")
    assert differences(old, kept(old), bare) == ()  # they are the old one's still


def test_what_is_asked_for_is_like_the_old_one() -> None:
    """Metadata by IMDSv2 only; the root as large and fast, never smaller than the image; no tags of AWS or ours."""
    image = {"ImageId": "ami-new", "RootDeviceName": "/dev/sda1",
             "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 20}}]}  # fmt: skip
    old = shown(instance())
    asked = run_instances(old, kept(old), image, "token", {"dev.goldsmith.rollout": "shop-1"})
    assert asked["MetadataOptions"] == {"HttpPutResponseHopLimit": 2, "HttpTokens": "required"}
    assert (asked["MinCount"], asked["MaxCount"], asked["ClientToken"]) == (1, 1, "token")
    assert asked["UserData"] == b"hello"
    assert asked["CreditSpecification"] == {"CpuCredits": "unlimited"}
    (root,) = asked["BlockDeviceMappings"]
    assert root["DeviceName"] == "/dev/sda1"
    assert root["Ebs"].items() >= {"VolumeSize": 20, "VolumeType": "gp3", "Iops": 4000, "Throughput": 250}.items()
    tags = {one["ResourceType"]: as_dict(one["Tags"]) for one in asked["TagSpecifications"]}
    own = {"dev.goldsmith.owned": "shop-1", "dev.goldsmith.rollout": "shop-1", **old.hung().tags(TAKES)}
    assert len(own) > 5, "what it takes over is written onto it"
    assert tags["instance"] == {"Name": "shop-1", **own}
    assert tags["volume"] == {"disk": "a", "dev.goldsmith.rollout": "shop-1"}


@given(
    volumes=st.dictionaries(NAMES, st.tuples(st.sampled_from(["/dev/sdf", "xvdb"]), st.booleans()), max_size=5),
    interfaces=st.dictionaries(NAMES, st.integers(1, 15), max_size=3),
    addresses=st.lists(NAMES, max_size=3, unique=True).map(sorted).map(tuple),
    ports=st.lists(st.integers(1, 65535), max_size=3, unique=True),
    public=st.booleans(),
    address=st.sampled_from(["", "first", "fd00::4"]),
    card=st.integers(0, 3),
    checked=st.booleans(),
)
def test_what_is_kept_in_tags_comes_back_as_it_was(
    volumes: dict[str, tuple[str, bool]], interfaces: dict[str, int], addresses: tuple[str, ...], ports: list[int],
    public: bool, address: str, card: int, checked: bool,
) -> None:  # fmt: skip
    """Beside other people's tags, each within what a tag holds."""
    places = tuple(Registration(GROUP, port, "", address) for port in ports)
    hung = Hung(volumes, {name: (index, card) for name, index in interfaces.items()}, addresses, places, checked)
    written = ReplacementRecord("shop-1", "ami-1", "2027-01-01T00:00:00+00:00", public, hung)
    tags = {**written.tags(), "Name": "shop-1", f"{TAKES}volume-0": "vol-other /dev/sdz ends"}
    assert kept_in(tags) == written
    new = InstanceDescription({"Tags": as_list({**hung.tags(TAKES), "Name": "shop-1"})})
    assert (new.takes, new.kept) == (hung, None)
    assert all(len(key) <= 127 and len(value) <= 255 for key, value in tags.items())
    assert kept_in({"Name": "shop-1"}) is None


def test_a_token_is_that_of_its_effect() -> None:
    """The same each time; another for another rollout, member, effect, or after what was made has ended."""
    asked = [("r", "m", "create", 0), ("s", "m", "create", 0), ("r", "n", "create", 0), ("r", "m", "root", 0),
             ("r", "m", "create", 1)]  # fmt: skip
    assert len({token(*one) for one in asked * 2}) == len(asked)
    assert all(len(token(*one)) <= 64 for one in asked)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"RootDeviceType": "instance-store"}, "instance store"),
        ({"InstanceLifecycle": "spot"}, "spot instance"),
        ({"Operator": {"Managed": True, "Principal": "eks.example"}}, "eks.example manages it"),
        ({"Tags": [{"Key": str(number), "Value": ""} for number in range(45)]}, "no room for the tags"),
    ],
)
def test_what_cannot_be_replaced_says_why(change: dict[str, Any], said: str) -> None:
    """Before anything is touched."""
    why = cannot_roll(shown({**instance(), **change}), Ec2(), COMES)
    assert (bool(why), said in why) == (bool(said), True)


def test_an_address_that_is_part_of_the_member_is_kept_by_a_root_volume_alone() -> None:
    """Because somebody says so, because a person made the interface, or because there are further addresses."""
    plain, made, more = instance(), instance(), instance()
    made["NetworkInterfaces"][0].update(PrivateIpAddress="10.0.0.4")
    made["NetworkInterfaces"][0]["Attachment"]["DeleteOnTermination"] = False
    more["NetworkInterfaces"][0]["PrivateIpAddresses"] = [{"Primary": False, "PrivateIpAddress": "10.0.0.9"}]
    plain["NetworkInterfaces"][0].update(PrivateIpAddress="10.0.0.4")
    assert "10.0.0.4" in cannot_roll(shown(plain), Ec2(keep_address=True), COMES)
    assert "10.0.0.4" in cannot_roll(shown(made), Ec2(), COMES)
    assert "10.0.0.9" in cannot_roll(shown(more), Ec2(), COMES)
    within = Ec2(way=ReplacementStrategy.ROOT_VOLUME, keep_address=True)
    assert not any(cannot_roll(shown(one), within, COMES) for one in (plain, made, more))


Change = dict[str, Any]
CARD = {"NetworkInterfaceId": "eni-i-old", "Attachment": {"DeviceIndex": 0}}


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({}, {"InstanceStorageSupported": True}, "t3.micro has an instance store"),
        ({"NetworkInterfaces": [{**CARD, "Ipv4Prefixes": [{"Ipv4Prefix": "10.0.0.16/28"}]}]}, {}, "10.0.0.16/28"),
        ({"NetworkInterfaces": [{**CARD, "Ipv6Prefixes": [{"Ipv6Prefix": "fd00::/80"}]}]}, {}, "fd00::/80"),
        ({"NetworkInterfaces": [{**CARD, "InterfaceType": "trunk"}]}, {}, "of the type trunk"),
        ({"NetworkInterfaces": [CARD, {"NetworkInterfaceId": "eni-2", "InterfaceType": "efa",
                                       "Attachment": {"DeviceIndex": 1}}]}, {}, "eni-2 is of the type efa"),
        ({"MaintenanceOptions": {"RebootMigration": "disabled"}}, {}, "RebootMigration"),
    ],
)  # fmt: skip
def test_what_a_new_instance_would_not_have_is_refused_by_its_name(change: Change, kind: Change, said: str) -> None:
    """And points to root_volume, which keeps it."""
    old = shown({**instance(), **change})
    old = replace(old, type={**TYPE, **kind})
    assert said in (why := cannot_roll(old, Ec2(), COMES))
    assert "root_volume" in why
    assert not cannot_roll(old, Ec2(way=ReplacementStrategy.ROOT_VOLUME), COMES)


def test_addresses_that_are_registered_beside_the_first_stay() -> None:
    """A newer address that a target group names, or that the fleet says is part of the member."""
    newer = {**CARD, "Ipv6Addresses": [{"Ipv6Address": "fd00::4"}]}
    old = shown({**instance(), "NetworkInterfaces": [newer]})
    named = replace(old, registrations=(Registration(GROUP, 80, "", "fd00::4"),))
    assert not cannot_roll(old, Ec2(), COMES)
    assert "fd00::4" in cannot_roll(named, Ec2(), COMES)
    assert "fd00::4" in cannot_roll(old, Ec2(keep_address=True), COMES)


@pytest.mark.parametrize(
    ("change", "comes", "kind", "said"),
    [
        ({"CurrentInstanceBootMode": "legacy-bios"}, {}, {}, "boots by legacy-bios and the image by uefi"),
        ({"CurrentInstanceBootMode": None, "BootMode": "uefi-preferred"}, {}, {}, ""),
        ({"CurrentInstanceBootMode": None}, {}, {}, "boots by legacy-bios"),
        ({}, {"BootMode": "uefi-preferred"}, {}, ""),
        ({}, {"BootMode": None}, {}, "by uefi and the image by legacy-bios"),
        ({"ProductCodes": [{"ProductCodeId": "pc-1"}]}, {}, {}, "product code pc-1"),
        ({}, {"Architecture": "arm64"}, {}, "the image of arm64"),
        ({}, {"EnaSupport": False}, {"NetworkInfo": {"EnaSupport": "supported"}}, "ENA switched on"),
        ({"EnaSupport": False}, {}, {}, "would switch ENA on"),
        ({"TpmSupport": "v2.0"}, {"TpmSupport": None}, {}, "NitroTPM"),
        ({}, {}, {"BareMetal": True}, "bare metal"),
        ({}, {}, {"SupportedBootModes": ["legacy-bios"]}, "does not boot by uefi"),
        ({}, {}, {"NitroTpmSupport": "unsupported"}, "has no NitroTPM"),
    ],
)
def test_an_image_that_could_not_be_taken_back_is_unfit(change: Change, comes: Change, kind: Change, said: str) -> None:
    """EC2 refuses it, or would not undo it: said before anything is drained."""
    old = replace(shown({**instance(), **change}), type={**TYPE, **kind})
    why = unfit(old, {**COMES, **comes}, ReplacementStrategy.ROOT_VOLUME)
    assert (bool(why), said in why) == (bool(said), True)


def test_a_place_in_a_capacity_reservation_exists_once() -> None:
    """The old one stops first, or there is no room for the new one."""
    held = {"CapacityReservationSpecification": {"CapacityReservationTarget": {"CapacityReservationId": "cr-1"}}}
    old = shown({**instance(), **held, "BlockDeviceMappings": [], "NetworkInterfaces": []})
    assert forced_in_place(old, ReplacementStrategy.INSTANCE) == ("the place in the capacity reservation cr-1",)


def test_a_stop_says_what_it_costs() -> None:
    """An automatic address, an instance store, a Spot instance; an Elastic IP stays."""
    old = shown({**instance(), "PublicIpAddress": "192.0.2.1", "InstanceLifecycle": "spot"})
    assert len(lost_by_stop(replace(old, type={"InstanceStorageSupported": True}))) == 2
    assert len(lost_by_stop(replace(old, attributes={}))) == 2


def test_what_cannot_exist_twice_forces_the_old_one_to_stop_first() -> None:
    """An Elastic IP moves between running instances, and forces nothing."""
    assert len(forced_in_place(shown(instance()), ReplacementStrategy.INSTANCE)) == 2
    plain = {**instance(), "BlockDeviceMappings": [], "NetworkInterfaces": []}
    assert forced_in_place(shown(plain), ReplacementStrategy.INSTANCE) == ()
    assert len(forced_in_place(shown(plain), ReplacementStrategy.ROOT_VOLUME)) == 1


@pytest.mark.parametrize(
    ("tags", "state", "member"),
    [
        ({}, "running", True),
        ({}, "stopped", False),
        ({"aws:autoscaling:groupName": "g"}, "running", False),
        ({"dev.goldsmith.expiry": "2027-01-01T00:00:00Z"}, "running", False),
    ],
)
def test_who_runs_in_no_group_and_is_not_being_prepared_is_a_member(
    tags: dict[str, str], state: str, member: bool
) -> None:
    """A new instance is none before it has taken over."""
    assert is_member(tags, state) is member


BARE: dict[str, Any] = {
    "InstanceId": "i-1", "State": {"Name": "running"}, "LaunchTime": datetime(2027, 1, 1, tzinfo=UTC)
}  # fmt: skip


def test_an_instance_of_which_nothing_is_said_has_what_the_service_gives() -> None:
    """Every default that a comparison stands on."""
    assert traits(InstanceDescription(BARE)) == {
        "instance type": None,
        "subnet": None,
        "security groups": [],
        "instance profile": None,
        "key": None,
        "user data": None,
        "tags": {},
        "metadata options": dict.fromkeys(
            ("HttpPutResponseHopLimit", "HttpEndpoint", "HttpProtocolIpv6", "InstanceMetadataTags")
        ),
        "placement": {"AvailabilityZone": None, "Tenancy": None, "GroupName": None},
        "EBS optimised": False,
        "detailed monitoring": False,
        "source/destination check": True,
        "shutdown behaviour": None,
        "CPU credits": None,
        "public address": False,
        "IPv6 addresses": 0,
        "type of the network interface": "interface",
        "root volume ends with it": True,
        "CPU options": None,
        "enclave": False,
        "hibernation": False,
        "capacity reservation": "open",
        "licences": [],
        "recovery": "default",
        "private DNS options": None,
        "bandwidth weighting": "default",
        "root volume": {"Size": None, "VolumeType": None, "Iops": None, "Throughput": None},
        "tags of the root volume": {},
        "key of the root volume": None,
    }


def chosen() -> InstanceDescription:
    """An instance of which everything was chosen."""
    card = {
        "NetworkInterfaceId": "eni-1", "Groups": [{"GroupId": "sg-2"}, {"GroupId": "sg-1"}], "InterfaceType": "efa",
        "SourceDestCheck": False, "Ipv6Addresses": [{"Ipv6Address": "fd00::4"}, {"Ipv6Address": "fd00::5"}],
        "PrivateIpAddress": "10.0.0.4",
        "PrivateIpAddresses": [{"PrivateIpAddress": "10.0.0.4"}, {"PrivateIpAddress": "10.0.0.5"}],
        "Attachment": {"DeviceIndex": 0, "AttachTime": datetime(2026, 1, 1, tzinfo=UTC)},
    }  # fmt: skip
    said = {
        **instance("i-old"),
        "PublicIpAddress": "192.0.2.1",
        "NetworkInterfaces": [
            {"NetworkInterfaceId": "eni-gone"},
            {"NetworkInterfaceId": "eni-3", "Attachment": {"DeviceIndex": 0, "NetworkCardIndex": 1}},
            {"NetworkInterfaceId": "eni-2", "Attachment": {"DeviceIndex": 1, "NetworkCardIndex": 0}},
            card,
        ],
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
            {"DeviceName": "/dev/sdf", "Ebs": {"VolumeId": "vol-data", "DeleteOnTermination": True}},
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeId": "vol-root-i-old", "DeleteOnTermination": False}},
        ],
        "MetadataOptions": {
            "HttpPutResponseHopLimit": 2, "HttpEndpoint": "enabled", "HttpProtocolIpv6": "disabled",
            "InstanceMetadataTags": "enabled", "HttpTokens": "required",
        },
        "Placement": {"AvailabilityZone": "eu-central-1a", "Tenancy": "dedicated", "GroupName": "g", "HostId": "h"},
        "EbsOptimized": True,
        "Monitoring": {"State": "pending"},
        "EnclaveOptions": {"Enabled": True},
        "HibernationOptions": {"Configured": True},
        "CapacityReservationSpecification": {"CapacityReservationPreference": "none"},
        "Licenses": [{"LicenseConfigurationArn": "arn:b"}, {"LicenseConfigurationArn": "arn:a"}],
        "MaintenanceOptions": {"AutoRecovery": "disabled"},
        "PrivateDnsNameOptions": {"HostnameType": "ip-name"},
        "NetworkPerformanceOptions": {"BandwidthWeighting": "vpc-1"},
    }  # fmt: skip
    found = shown(said)
    root = {"Size": 12, "VolumeType": "io2", "Iops": 4000, "Encrypted": True, "KmsKeyId": "key-1", "Tags": None}
    return replace(found, volumes={"vol-root-i-old": root})


def test_everything_that_was_chosen_of_an_instance_is_compared() -> None:
    """By what people call it; lists whose order says nothing are sorted."""
    assert traits(chosen()) == {
        "instance type": "t3.micro",
        "subnet": "subnet-1",
        "security groups": ["sg-1", "sg-2"],
        "instance profile": "arn:aws:iam::111111111111:instance-profile/shop",
        "key": "ops",
        "user data": "aGVsbG8=",
        "tags": {"Name": "shop-1"},
        "metadata options": {
            "HttpPutResponseHopLimit": 2, "HttpEndpoint": "enabled", "HttpProtocolIpv6": "disabled",
            "InstanceMetadataTags": "enabled",
        },
        "placement": {"AvailabilityZone": "eu-central-1a", "Tenancy": "dedicated", "GroupName": "g"},
        "EBS optimised": True,
        "detailed monitoring": True,
        "source/destination check": False,
        "shutdown behaviour": "stop",
        "CPU credits": "unlimited",
        "public address": True,
        "IPv6 addresses": 2,
        "type of the network interface": "efa",
        "root volume ends with it": False,
        "CPU options": {"CoreCount": 1, "ThreadsPerCore": 2},
        "enclave": True,
        "hibernation": True,
        "capacity reservation": "none",
        "licences": ["arn:a", "arn:b"],
        "recovery": "disabled",
        "private DNS options": {"HostnameType": "ip-name"},
        "bandwidth weighting": "vpc-1",
        "root volume": {"Size": 12, "VolumeType": "io2", "Iops": 4000, "Throughput": None},
        "tags of the root volume": {},
        "key of the root volume": "key-1",
    }  # fmt: skip


def test_a_capacity_reservation_that_was_aimed_at_is_what_was_chosen() -> None:
    """Before the mere preference."""
    aimed = {"CapacityReservationTarget": {"CapacityReservationId": "cr-1"}, "CapacityReservationPreference": "none"}
    found = options({"CapacityReservationSpecification": aimed})
    assert found["capacity reservation"] == {"CapacityReservationId": "cr-1"}
    assert options({"Monitoring": {}, "NetworkPerformanceOptions": {}})["bandwidth weighting"] == "default"
    assert not traits(InstanceDescription({**BARE, "Monitoring": {"State": "disabled"}}))["detailed monitoring"]
    assert traits(InstanceDescription({**BARE, "Monitoring": {"State": "enabled"}}))["detailed monitoring"]


def test_a_gp3_volume_has_its_baseline_where_nothing_is_said() -> None:
    """Another type has none; a volume in the clear has no key, whatever is said of one."""
    said = root_traits({"Size": 8, "VolumeType": "gp3", "KmsKeyId": "key-1", "Encrypted": False, "Tags": [OURS, DISK]})
    assert said == {
        "root volume": {"Size": 8, "VolumeType": "gp3", "Iops": 3000, "Throughput": 125},
        "tags of the root volume": {"disk": "a"},
        "key of the root volume": None,
    }
    assert root_traits({"VolumeType": "gp2"})["root volume"]["Iops"] is None
    assert root_traits({"VolumeType": "gp3", "Iops": 4000, "Throughput": 250})["root volume"] == {
        "Size": None, "VolumeType": "gp3", "Iops": 4000, "Throughput": 250,
    }  # fmt: skip


OURS, DISK = {"Key": "dev.goldsmith.member", "Value": "x"}, {"Key": "disk", "Value": "a"}


def test_what_hangs_on_an_instance_and_cannot_exist_twice() -> None:
    """Not the root volume, not an instance store, not the first interface; each card has an interface of index 0."""
    found = replace(chosen(), attributes={"addresses": ("eipalloc-2", "eipalloc-1")})
    assert found.hung() == Hung(
        {"vol-data": ("/dev/sdf", True)},
        {"eni-2": (1, 0), "eni-3": (0, 1)},
        ("eipalloc-1", "eipalloc-2"),
        (Registration(GROUP, 80),),
        checked=False,
    )
    assert InstanceDescription(BARE).hung() == Hung()
    assert shown(instance()).hung().volumes == {"vol-data": ("/dev/sdf", False)}


def test_addresses_are_told_with_what_a_registration_calls_them() -> None:
    """The first one of the first interface is anew on another instance; every other one is itself."""
    assert list(chosen().addresses()) == [
        ("10.0.0.4", "first"), ("10.0.0.5", "10.0.0.5"), ("fd00::4", "fd00::4"), ("fd00::5", "fd00::5"),
    ]  # fmt: skip
    beside = {
        "PrivateIpAddress": "10.0.0.9", "PrivateIpAddresses": [{"PrivateIpAddress": "10.0.0.9"}],
        "Attachment": {"DeviceIndex": 1},
    }  # fmt: skip
    assert list(InstanceDescription({**BARE, "NetworkInterfaces": [beside]}).addresses()) == [("10.0.0.9", "10.0.0.9")]
    assert list(InstanceDescription(BARE).addresses()) == []


def test_what_an_old_instance_keeps_is_written_in_tags_that_a_person_can_read() -> None:
    """One tag a thing, numbered in order of the names; the card of an interface is 0 where nothing is said."""
    places = (Registration(GROUP, 80, "healthy"), Registration(GROUP, 81, "", "first"))
    hung = Hung(
        {"vol-b": ("/dev/sdg", True), "vol-a": ("/dev/sdf", False)}, {"eni-b": (1, 0), "eni-a": (0, 1)},
        ("eipalloc-1",), places,
    )  # fmt: skip
    own = "dev.goldsmith.kept-"
    tags = ReplacementRecord("shop-1", "ami-new", "2027-01-01T00:00:00+00:00", True, hung).tags()
    assert tags == {
        f"{own}rollout": "shop-1",
        f"{own}image": "ami-new",
        f"{own}expiry": "2027-01-01T00:00:00+00:00",
        f"{own}public": "yes",
        f"{own}volume-0": "vol-a /dev/sdf stays",
        f"{own}volume-1": "vol-b /dev/sdg ends",
        f"{own}interface-0": "eni-a 0 1",
        f"{own}interface-1": "eni-b 1 0",
        f"{own}address-0": "eipalloc-1",
        f"{own}target-0": f"{GROUP} 80",
        f"{own}target-1": f"{GROUP} 81 first",
    }
    assert kept_in(tags) == ReplacementRecord("shop-1", "ami-new", "2027-01-01T00:00:00+00:00", True, hung)
    tags[f"{own}public"] = "no"
    del tags[f"{own}interface-0"]
    tags[f"{own}interface-1"] = "eni-b 1"  # as an older rollout wrote it
    before = kept_in(tags)
    assert before is not None
    assert (before.public, before.hung.interfaces) == (False, {"eni-b": (1, 0)})


def test_what_everything_that_a_rollout_launches_carries() -> None:
    """From its first moment, so that whoever finds it knows whose it is."""
    assert own_tags("r1", "m1", "e1") == {
        "dev.goldsmith.rollout": "r1", "dev.goldsmith.member": "m1", "dev.goldsmith.expiry": "e1",
    }  # fmt: skip


def test_a_root_volume_that_is_encrypted_now_is_no_difference_and_every_other_change_is() -> None:
    """Stricter is no loss."""
    key = "key of the root volume"
    assert changed({key: None, "key": "a"}, {key: "key-1", "key": "a"}) == []
    assert changed({key: "key-1"}, {key: None}) == [f"{key}: key-1 → -"]
    assert changed({"key": None}, {"key": "a"}) == ["key: - → a"]
    assert changed({"tags": {"a": "1", "b": "2"}}, {"tags": {"a": "1"}}) == ['tags: {"b": "2"} → {}']


def test_an_interface_on_another_card_or_place_is_told() -> None:
    """An index counts on its card only; what is still on the old one while that runs counts as its own."""
    on = {"NetworkInterfaceId": "eni-2", "Attachment": {"DeviceIndex": 1, "NetworkCardIndex": 1}}
    old = InstanceDescription({**BARE, "NetworkInterfaces": [on]})
    wanted = replace(kept(old), hung=Hung(interfaces={"eni-2": (1, 1)}))
    other = InstanceDescription(
        {**BARE, "NetworkInterfaces": [{**on, "Attachment": {"DeviceIndex": 1, "NetworkCardIndex": 0}}]}
    )
    stopped = InstanceDescription({**BARE, "State": {"Name": "stopped"}})
    assert differences(old, wanted, InstanceDescription(BARE)) == ()
    assert differences(stopped, wanted, InstanceDescription(BARE)) == (
        "the network interface eni-2 is not its number 1",
    )
    assert differences(stopped, wanted, other) == ("the network interface eni-2 is not its number 1",)
    assert differences(stopped, wanted, old) == ()
    plain = replace(wanted, hung=Hung(interfaces={"eni-2": (1, 0)}))
    assert differences(stopped, plain, other) == ()
    assert differences(stopped, replace(wanted, hung=Hung()), other) == ("eni-2 hangs on it and did not before",)


def test_an_elastic_ip_or_a_registration_may_still_be_the_old_ones_or_be_the_new_ones() -> None:
    """Either is no loss; a public address that is gone is one."""
    here = {"attributes": {"addresses": ("eipalloc-1",)}, "registrations": (Registration(GROUP, 80),)}
    has, bare = InstanceDescription(BARE, **here), InstanceDescription(BARE)
    wanted = replace(kept(has), hung=Hung(addresses=("eipalloc-1",), registrations=(Registration(GROUP, 80, "new"),)))
    assert differences(has, wanted, bare) == differences(bare, wanted, has) == ()
    assert differences(bare, replace(wanted, public=True), has) == ("public address: yes → no",)
