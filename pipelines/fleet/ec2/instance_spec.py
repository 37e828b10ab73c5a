"""An EC2 instance's specification: read from its region, kept while it moves, compared after. Pure.

What is asked of EC2 and its load balancers to launch another like it is made here as well.

What cannot exist twice (volumes, further interfaces, Elastic IPs, registrations) is written onto the old instance as
tags before the first change: whoever goes on after a crash, or goes back, reads there what hung on it. The new one has
it from its launch, until the old one is removed: somebody else may remove that first.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from hardening.foundation.hashing import digest_of
from images.aws.tags import as_dict, as_list
from pipelines.fleet.members import EXPIRY, MEMBER, OWN_LABELS, OWNED, ROLLOUT, shown_value

Json = dict[str, Any]
KEPT = f"{OWN_LABELS}kept-"
KEPT_FOR = f"{KEPT}rollout"  # of an old instance, or of an old root volume: the rollout that keeps it
TAKES = f"{OWN_LABELS}takes-"  # of a new instance: what hung on the old one
DRAINS = f"{KEPT}drains"  # since when one drains that has to go, by the service's clock
TAGS_AT_MOST = 50
FIRST = "first"  # as a registration's address: the first interface's first one, which every instance has
RUNNING = ("pending", "running")
STOPPED = ("stopping", "stopped")
ENDED = ("shutting-down", "terminated")
PLACEMENT = ("AvailabilityZone", "Tenancy", "GroupName", "PartitionNumber", "HostId", "HostResourceGroupArn")
WITH_IOPS = ("gp3", "io1", "io2")
SETTINGS = ("HttpPutResponseHopLimit", "HttpEndpoint", "HttpProtocolIpv6", "InstanceMetadataTags")


@dataclass(frozen=True)
class Registration:
    """A place in a target group. `state` as it was last seen; it says nothing of who is registered.

    `address`: how it is registered; empty: by the instance's id. `network`: the group's, where that is another than the
    target's.
    """

    group: str
    port: int
    state: str = field(default="", compare=False)
    address: str = ""
    network: str = field(default="", compare=False)


Registered = tuple[str, str, Registration]
"""A network, a target in it (an instance's id or an address), and its place. No network: an address outside of it."""


@dataclass(frozen=True)
class InstanceDescription:
    """An instance with its attachments. `volumes` are by id; `attributes` as DescribeInstanceAttribute names them.

    `type` is its instance type as DescribeInstanceTypes shows it; `classic` the Classic Load Balancers that it is in.
    """

    instance: Json
    volumes: Mapping[str, Json] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    registrations: tuple[Registration, ...] = ()
    type: Mapping[str, Any] = field(default_factory=dict)
    classic: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The instance's id."""
        return str(self.instance["InstanceId"])

    @property
    def state(self) -> str:
        """Its state in the service's own words."""
        return str(self.instance["State"]["Name"])

    @cached_property
    def tags(self) -> dict[str, str]:
        """Its tags."""
        return as_dict(self.instance.get("Tags"))

    @property
    def kept(self) -> ReplacementRecord | None:
        """What its tags keep; None where no rollout has begun with it."""
        return kept_in(self.tags)

    @property
    def takes(self) -> Hung:
        """What it takes over, if a rollout launched it."""
        return hung_in(self.tags, TAKES)

    @property
    def root(self) -> str:
        """The id of its root volume; empty while it has none."""
        return str(self._root_device.get("VolumeId", ""))

    @property
    def _root_device(self) -> Json:
        name = self.instance.get("RootDeviceName")
        return next((one["Ebs"] for one in self._devices() if one["DeviceName"] == name), {})

    @property
    def public(self) -> bool:
        """Whether it has a public address now."""
        return "PublicIpAddress" in self.instance

    @property
    def primary(self) -> Json:
        """Its first network interface; each network card has one of index 0."""
        return next((one for one in self._interfaces() if not one["Attachment"]["DeviceIndex"] and not _card(one)), {})

    @property
    def further(self) -> list[Json]:
        """Its other network interfaces."""
        return [one for one in self._interfaces() if one["Attachment"]["DeviceIndex"] or _card(one)]

    @property
    def checked(self) -> bool:
        """Whether the first interface drops what is neither from nor to it."""
        return bool(self.primary.get("SourceDestCheck", self.instance.get("SourceDestCheck", True)))

    @property
    def root_ends(self) -> bool:
        """Whether its root volume ends with it."""
        return bool(self._root_device.get("DeleteOnTermination", True))

    def launched_by(self, rollout: str, member: str, tries: int) -> bool:
        """Whether it was launched by one of the first `tries` tokens of a rollout for a member."""
        tokens = [token(rollout, member, "create", tried) for tried in range(tries + 1)]
        return self.instance.get("ClientToken") in tokens

    def addresses(self) -> Iterator[tuple[str, str]]:
        """Its private addresses, each with what it is called in a registration."""
        for one in self._interfaces():
            first = one.get("PrivateIpAddress") if one == self.primary else ""
            named = [two["PrivateIpAddress"] for two in one.get("PrivateIpAddresses", ())]
            named += [two["Ipv6Address"] for two in one.get("Ipv6Addresses", ())]
            yield from ((name, FIRST if name == first else name) for name in named)

    @property
    def since(self) -> datetime:
        """When it was made; the time of its launch is that of its last start."""
        made: datetime = self.primary.get("Attachment", {}).get("AttachTime") or self.instance["LaunchTime"]
        return made

    def _devices(self) -> list[Json]:
        return [one for one in self.instance.get("BlockDeviceMappings", ()) if "Ebs" in one]

    def _interfaces(self) -> list[Json]:
        return [one for one in self.instance.get("NetworkInterfaces", ()) if "Attachment" in one]

    def among(self, registered: Iterable[Registered]) -> tuple[Registration, ...]:
        """Where it is registered, and how it is there."""
        addresses = dict(self.addresses())
        own = ("", self.instance.get("VpcId"))
        here = [(target, place) for vpc, target, place in registered if vpc in own]
        found = [place for target, place in here if target == self.id]
        found += [replace(place, address=addresses[target]) for target, place in here if target in addresses]
        return tuple(sorted(found, key=lambda one: (one.group, one.port, one.address)))

    def hung(self) -> Hung:
        """What hangs on it now and cannot exist twice."""
        devices = {one["DeviceName"]: one["Ebs"] for one in self._devices() if one["Ebs"]["VolumeId"] != self.root}
        return Hung(
            {ebs["VolumeId"]: (device, bool(ebs.get("DeleteOnTermination"))) for device, ebs in devices.items()},
            {one["NetworkInterfaceId"]: (int(one["Attachment"]["DeviceIndex"]), _card(one)) for one in self.further},
            tuple(sorted(self.attributes.get("addresses", ()))),
            self.registrations,
            self.checked,
        )


@dataclass(frozen=True)
class Hung:
    """Volumes by id, with device and whether they end with the instance; interfaces by id, with index and network card.

    `addresses` are the allocations of Elastic IPs on the first interface; `checked` whether that drops what is neither
    from nor to it.
    """

    volumes: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    interfaces: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    registrations: tuple[Registration, ...] = ()
    checked: bool = True

    def tags(self, begin: str) -> dict[str, str]:
        """As tags, whose keys all `begin` so."""
        volumes, interfaces = sorted(self.volumes.items()), sorted(self.interfaces.items())
        rows = {
            "volume": [f"{name} {device} {'ends' if ends else 'stays'}" for name, (device, ends) in volumes],
            "interface": [f"{name} {index} {card}" for name, (index, card) in interfaces],
            "address": self.addresses,
            "target": [f"{one.group} {one.port} {one.address}".rstrip() for one in self.registrations],
            "unchecked": [] if self.checked else ["yes"],
        }
        return {f"{begin}{kind}-{number}": row for kind in rows for number, row in enumerate(rows[kind])}


def hung_in(tags: Mapping[str, str], begin: str) -> Hung:
    """What tags say, whose keys `begin` so."""
    rows: dict[str, list[list[str]]] = {kind: [] for kind in ("volume", "interface", "address", "target", "unchecked")}
    for key in sorted(tags):
        kind, _, number = key.removeprefix(begin).partition("-")
        if key.startswith(begin) and number:
            rows[kind].append(tags[key].split(" "))
    return Hung(
        volumes={name: (device, ends == "ends") for name, device, ends in rows["volume"]},
        interfaces={name: (int(index), int(card[0]) if card else 0) for name, index, *card in rows["interface"]},
        addresses=tuple(name for (name,) in rows["address"]),
        registrations=tuple(Registration(group, int(port), "", *more) for group, port, *more in rows["target"]),
        checked=not rows["unchecked"],
    )


@dataclass(frozen=True)
class ReplacementRecord:
    """What is written onto the old instance: for which rollout, what the new one starts from, and its attachments.

    `public`: it was reachable from outside, which nobody can see any more once it is stopped.
    """

    rollout: str
    image: str
    expiry: str
    public: bool
    hung: Hung

    def tags(self) -> dict[str, str]:
        """As tags of the old instance."""
        values = {"rollout": self.rollout, "image": self.image, "expiry": self.expiry}
        values |= {"public": "yes" if self.public else "no"}
        return {**{f"{KEPT}{key}": value for key, value in values.items()}, **self.hung.tags(KEPT)}


def kept_in(tags: Mapping[str, str]) -> ReplacementRecord | None:
    """What an instance's tags keep; None where no rollout has begun with it."""
    said = {key.removeprefix(KEPT): value for key, value in tags.items() if key.startswith(KEPT)}
    if "rollout" not in said:
        return None
    public = said["public"] == "yes"
    return ReplacementRecord(said["rollout"], said["image"], said["expiry"], public, hung_in(tags, KEPT))


def persons_tags(tags: Iterable[Mapping[str, Any]] | None) -> dict[str, str]:
    """The tags that people gave: neither ours nor the service's own."""
    said = as_dict(tags)
    return {key: value for key, value in said.items() if not key.startswith((OWN_LABELS, "aws:"))}


def is_member(tags: Mapping[str, str], state: str) -> bool:
    """Whether an instance counts: running, in no group, and no rollout is still preparing it."""
    return state in RUNNING and "aws:autoscaling:groupName" not in tags and EXPIRY not in tags


def own_tags(rollout: str, member: str, expiry: str) -> dict[str, str]:
    """What everything that a rollout launches carries from its first moment."""
    return {ROLLOUT: rollout, MEMBER: member, EXPIRY: expiry}


def _card(interface: Json) -> int:
    """The network card that an interface is on."""
    return int(interface["Attachment"].get("NetworkCardIndex") or 0)


KEY = "key of the root volume"
GP3 = {"Iops": 3000, "Throughput": 125}  # MiB/s


def differences(old: InstanceDescription, kept: ReplacementRecord, new: InstanceDescription) -> tuple[str, ...]:
    """What differs beyond the image, one line each. What is on its way to the new one counts as its own."""
    was = {**traits(old), "public address": kept.public}
    return (*changed(was, traits(new)), *_missing(old, kept.hung, new))


def changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The values that differ, one line each; a root volume that was in the clear and is encrypted is none."""
    names = [name for name in was if was[name] != now[name] and not (name == KEY and was[name] is None)]
    pairs = {name: _apart(was[name], now[name]) for name in names}
    return [f"{name}: {shown_value(old)} → {shown_value(new)}" for name, (old, new) in pairs.items()]


def _apart(old: Any, new: Any) -> tuple[Any, Any]:
    """Two values, and of two dictionaries only the entries that differ."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return old, new
    differ = {key for key in {*old, *new} if old.get(key) != new.get(key)}
    before, after = ({key: value for key, value in one.items() if key in differ} for one in (old, new))
    return before, after


def _missing(old: InstanceDescription, wanted: Hung, new: InstanceDescription) -> list[str]:
    """What hung on the old one and does not on the new; while the old one runs it may still be there."""
    has, had = new.hung(), old.hung() if old.state in RUNNING else Hung()
    lines = []
    for name, (device, _) in sorted(wanted.volumes.items()):
        if device not in [held.volumes[name][0] for held in (has, had) if name in held.volumes]:
            lines.append(f"the data volume {name} is not at {device}")
    for name, place in sorted(wanted.interfaces.items()):
        if place not in (has.interfaces.get(name), had.interfaces.get(name)):
            lines.append(f"the network interface {name} is not its number {place[0]}")
    lines += [f"the Elastic IP {name} is not its own" for name in wanted.addresses
              if name not in (*has.addresses, *had.addresses)]  # fmt: skip
    lines += [f"it is not registered in {one.group} at port {one.port}" for one in wanted.registrations
              if one not in (*has.registrations, *had.registrations)]  # fmt: skip
    more = sorted({*has.volumes, *has.interfaces} - {*wanted.volumes, *wanted.interfaces})
    return lines + [f"{name} hangs on it and did not before" for name in more]


def traits(shown: InstanceDescription) -> dict[str, Any]:
    """Everything that people chose and that a region can give twice, by what they call it."""
    instance, placement = shown.instance, shown.instance.get("Placement", {})
    metadata = instance.get("MetadataOptions", {})
    root = shown.volumes.get(shown.root, {})
    return {
        "instance type": instance.get("InstanceType"),
        "subnet": instance.get("SubnetId"),
        "security groups": sorted(one["GroupId"] for one in shown.primary.get("Groups", ())),
        "instance profile": instance.get("IamInstanceProfile", {}).get("Arn"),
        "key": instance.get("KeyName"),
        "user data": shown.attributes.get("userData"),
        "tags": persons_tags(instance.get("Tags")),
        "metadata options": {key: metadata.get(key) for key in SETTINGS},
        "placement": {key: placement.get(key) or None for key in ("AvailabilityZone", "Tenancy", "GroupName")},
        "EBS optimised": bool(instance.get("EbsOptimized")),
        "detailed monitoring": instance.get("Monitoring", {}).get("State") in ("enabled", "pending"),
        "source/destination check": shown.checked,
        "shutdown behaviour": shown.attributes.get("instanceInitiatedShutdownBehavior"),
        "CPU credits": shown.attributes.get("credits"),
        "public address": shown.public,
        "IPv6 addresses": len(shown.primary.get("Ipv6Addresses", ())),
        "type of the network interface": shown.primary.get("InterfaceType", "interface"),
        "root volume ends with it": shown.root_ends,
        **options(instance),
        **root_traits(root),
    }


def options(instance: Json) -> dict[str, Any]:
    """What people chose at the launch; the service's default where nothing is said."""
    reserved = instance.get("CapacityReservationSpecification", {})
    weight = instance.get("NetworkPerformanceOptions", {}).get("BandwidthWeighting")
    return {
        "CPU options": instance.get("CpuOptions"),
        "enclave": bool(instance.get("EnclaveOptions", {}).get("Enabled")),
        "hibernation": bool(instance.get("HibernationOptions", {}).get("Configured")),
        "capacity reservation": reserved.get("CapacityReservationTarget")
        or reserved.get("CapacityReservationPreference", "open"),
        "licences": sorted(one["LicenseConfigurationArn"] for one in instance.get("Licenses", ())),
        "recovery": instance.get("MaintenanceOptions", {}).get("AutoRecovery", "default"),
        "private DNS options": instance.get("PrivateDnsNameOptions"),
        "bandwidth weighting": weight or "default",
    }


def root_traits(volume: Json) -> dict[str, Any]:
    """What people chose of a root volume; a gp3 volume has its baseline where nothing is said."""
    least = GP3 if volume.get("VolumeType") == "gp3" else {}
    return {
        "root volume": {key: volume.get(key) or least.get(key) for key in ("Size", "VolumeType", "Iops", "Throughput")},
        "tags of the root volume": persons_tags(volume.get("Tags")),
        KEY: volume.get("KmsKeyId") if volume.get("Encrypted") else None,
    }


def token(rollout: str, member: str, action: str, tried: int = 0) -> str:
    """The ClientToken of an effect, by its domain key; `tried` counts what was made by it and is gone."""
    return digest_of([rollout, member, action, tried]).removeprefix("sha256:")


def run_instances(
    old: InstanceDescription, kept: ReplacementRecord, image: Json, client_token: str, own: Mapping[str, str]
) -> Json:
    """One instance like `old` from another image. Metadata by IMDSv2 only, whatever the old one allowed."""
    instance = old.instance
    metadata = instance.get("MetadataOptions", {})
    asked: Json = {
        "ImageId": image["ImageId"],
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": client_token,
        "InstanceType": instance["InstanceType"],
        "EbsOptimized": bool(instance.get("EbsOptimized")),
        "Monitoring": {"Enabled": instance.get("Monitoring", {}).get("State") in ("enabled", "pending")},
        "Placement": {key: value for key in PLACEMENT if (value := instance.get("Placement", {}).get(key))},
        "NetworkInterfaces": [_interface(old, kept)],
        "BlockDeviceMappings": [_root(old, image)],
        "MetadataOptions": {**{key: metadata[key] for key in SETTINGS if key in metadata}, "HttpTokens": "required"},
        "TagSpecifications": _tagged(old, own, kept.hung),
        "InstanceInitiatedShutdownBehavior": old.attributes.get("instanceInitiatedShutdownBehavior") or "stop",
    }
    if arn := instance.get("IamInstanceProfile", {}).get("Arn"):
        asked["IamInstanceProfile"] = {"Arn": arn}
    if instance.get("KeyName"):
        asked["KeyName"] = instance["KeyName"]
    if script := old.attributes.get("userData"):
        asked["UserData"] = b64decode(script)  # the client encodes it again
    if kind := old.attributes.get("credits"):
        asked["CreditSpecification"] = {"CpuCredits": kind}
    return {**asked, **_options(old)}


def _options(old: InstanceDescription) -> Json:
    """What the old one's launch chose beside the service's defaults. Some types refuse even to be told theirs."""
    instance, usual, cores = old.instance, options({}), old.type.get("VCpuInfo", {})
    chosen = options(instance)
    plain = {"CoreCount": cores.get("DefaultCores"), "ThreadsPerCore": cores.get("DefaultThreadsPerCore")}
    cpu = {key: value for key, value in instance.get("CpuOptions", {}).items() if value != "disabled"}
    target = instance.get("CapacityReservationSpecification", {}).get("CapacityReservationTarget")
    found = {
        "CPU options": ("CpuOptions", cpu),
        "enclave": ("EnclaveOptions", {"Enabled": True}),
        "hibernation": ("HibernationOptions", {"Configured": True}),
        "capacity reservation": ("CapacityReservationSpecification", {"CapacityReservationTarget": target} if target
                                 else {"CapacityReservationPreference": chosen["capacity reservation"]}),
        "licences": ("LicenseSpecifications", [{"LicenseConfigurationArn": arn} for arn in chosen["licences"]]),
        "recovery": ("MaintenanceOptions", {"AutoRecovery": chosen["recovery"]}),
        "private DNS options": ("PrivateDnsNameOptions", instance.get("PrivateDnsNameOptions")),
        "bandwidth weighting": ("NetworkPerformanceOptions", {"BandwidthWeighting": chosen["bandwidth weighting"]}),
    }  # fmt: skip
    differs = [name for name in found if chosen[name] != usual[name]]
    return {found[name][0]: found[name][1] for name in differs if name != "CPU options" or cpu != plain}


def _interface(old: InstanceDescription, kept: ReplacementRecord) -> Json:
    """The first interface: where the old one's is, reachable from outside where the old one was."""
    asked: Json = {
        "DeviceIndex": 0,
        "SubnetId": old.instance["SubnetId"],
        "Groups": sorted(one["GroupId"] for one in old.primary.get("Groups", ())),
        "DeleteOnTermination": True,
        "AssociatePublicIpAddress": kept.public,
    }
    if newer := old.primary.get("Ipv6Addresses", ()):
        asked["Ipv6AddressCount"] = len(newer)
    if any(one.get("IsPrimaryIpv6") for one in newer):
        asked["PrimaryIpv6"] = True
    kind = old.primary.get("InterfaceType", "interface")
    return asked if kind == "interface" else {**asked, "InterfaceType": kind}


def _root(old: InstanceDescription, image: Json) -> Json:
    """The root volume: as large and fast as the old one's, never smaller than the image; by the same key."""
    volume, device = old.volumes.get(old.root, {}), image["RootDeviceName"]
    least = next(one["Ebs"].get("VolumeSize", 0) for one in image["BlockDeviceMappings"] if one["DeviceName"] == device)
    kind = volume.get("VolumeType", "gp3")
    ebs: Json = {
        "VolumeSize": max(int(volume.get("Size", 0)), int(least)),
        "VolumeType": kind,
        "DeleteOnTermination": old.root_ends,
    }
    if volume.get("Encrypted"):
        ebs.update(Encrypted=True, KmsKeyId=volume["KmsKeyId"])
    if kind in WITH_IOPS and volume.get("Iops"):
        ebs["Iops"] = volume["Iops"]
    if kind == "gp3" and volume.get("Throughput"):
        ebs["Throughput"] = volume["Throughput"]
    return {"DeviceName": device, "Ebs": ebs}


def _tagged(old: InstanceDescription, own: Mapping[str, str], hung: Hung) -> list[Json]:
    """People's tags and ours, from the first moment; with what is to be taken over from the old one."""
    root = old.volumes.get(old.root, {})
    given = {
        "instance": old.instance.get("Tags"),
        "volume": root.get("Tags"),
        "network-interface": old.primary.get("TagSet"),
    }
    made = {"instance": {**own, OWNED: own[ROLLOUT], **hung.tags(TAKES)}}
    return [
        {"ResourceType": kind, "Tags": as_list({**persons_tags(tags), **made.get(kind, own)})}
        for kind, tags in given.items()
    ]


def targets(instance: InstanceDescription, places: Iterable[Registration]) -> list[Json]:
    """RegisterTargets or DeregisterTargets, one request for each target group."""
    groups: dict[str, list[Json]] = {}
    names = {"": instance.id, FIRST: instance.instance.get("PrivateIpAddress", "")}
    for place in places:
        groups.setdefault(place.group, []).append({"Id": names.get(place.address, place.address), "Port": place.port})
    return [{"TargetGroupArn": group, "Targets": chosen} for group, chosen in sorted(groups.items())]
