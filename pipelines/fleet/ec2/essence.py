"""What makes an EC2 instance that instance: read from what its region shows, kept while it moves, compared after. Pure.

What cannot exist twice (volumes, further interfaces, Elastic IPs, registrations) is written onto the old instance as
tags before the first change: whoever goes on after a crash, or goes back, reads there what hung on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from images.aws.tags import as_dict
from pipelines.fleet.leavings import EXPIRY, MEMBER, OWN_LABELS, ROLLOUT

Json = dict[str, Any]
KEPT = f"{OWN_LABELS}kept-"
TAGS_AT_MOST = 50
FIRST = "first"  # as a registration's address: the first interface's first one, which another instance has anew
RUNNING = ("pending", "running")
STOPPED = ("stopping", "stopped")
ENDED = ("shutting-down", "terminated")
SETTINGS = ("HttpPutResponseHopLimit", "HttpEndpoint", "HttpProtocolIpv6", "InstanceMetadataTags")


@dataclass(frozen=True)
class Registration:
    """A place in a target group. `state` as it was last seen; it says nothing of who is registered.

    `address`: how it is registered; empty: by the instance's id.
    """

    group: str
    port: int
    state: str = field(default="", compare=False)
    address: str = ""


@dataclass(frozen=True)
class Registered:
    """A target, by an instance's id or by an address of a network, in its place."""

    vpc: str
    target: str
    place: Registration


@dataclass(frozen=True)
class Shown:
    """An instance with what hangs on it. `volumes` are by id; `attributes` as DescribeInstanceAttribute calls them.

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

    @property
    def tags(self) -> dict[str, str]:
        """Its tags."""
        return as_dict(self.instance.get("Tags"))

    @property
    def root(self) -> str:
        """The id of its root volume; empty while it has none."""
        name = self.instance.get("RootDeviceName")
        return next((one["Ebs"]["VolumeId"] for one in self._devices() if one["DeviceName"] == name), "")

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
        name = self.instance.get("RootDeviceName")
        return all(one["Ebs"].get("DeleteOnTermination", True) for one in self._devices() if one["DeviceName"] == name)

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

    def hung(self) -> Hung:
        """What hangs on it now and cannot exist twice."""
        devices = [one for one in self._devices() if one["Ebs"]["VolumeId"] != self.root]
        return Hung(
            volumes={
                one["Ebs"]["VolumeId"]: (one["DeviceName"], bool(one["Ebs"].get("DeleteOnTermination")))
                for one in devices
            },
            interfaces={one["NetworkInterfaceId"]: int(one["Attachment"]["DeviceIndex"]) for one in self.further},
            cards={one["NetworkInterfaceId"]: card for one in self.further if (card := _card(one))},
            addresses=tuple(sorted(self.attributes.get("addresses", ()))),
            registrations=self.registrations,
        )


@dataclass(frozen=True)
class Hung:
    """Volumes by id, with device and whether they end with the instance; interfaces by id, with their index.

    `addresses` are the allocations of Elastic IPs on the first interface; `cards` the network cards of interfaces that
    are not on the first one.
    """

    volumes: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    interfaces: Mapping[str, int] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    registrations: tuple[Registration, ...] = ()
    cards: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """What is written onto the old instance: for which rollout, what the new one starts from, and what hung on it.

    `public`: it was reachable from outside, which nobody can see any more once it is stopped.
    """

    rollout: str
    image: str
    expiry: str
    public: bool
    hung: Hung

    def tags(self) -> dict[str, str]:
        """As tags of the old instance."""
        values = [("rollout", self.rollout), ("image", self.image), ("expiry", self.expiry)]
        values.append(("public", "yes" if self.public else "no"))
        for number, (name, (device, ends)) in enumerate(sorted(self.hung.volumes.items())):
            values.append((f"volume-{number}", f"{name} {device} {'ends' if ends else 'stays'}"))
        for number, (name, index) in enumerate(sorted(self.hung.interfaces.items())):
            values.append((f"interface-{number}", f"{name} {index} {self.hung.cards.get(name, 0)}"))
        values += [(f"address-{number}", name) for number, name in enumerate(self.hung.addresses)]
        for number, one in enumerate(self.hung.registrations):
            values.append((f"target-{number}", f"{one.group} {one.port} {one.address}".rstrip()))
        return {f"{KEPT}{key}": value for key, value in values}


def kept_in(tags: Mapping[str, str]) -> Kept | None:
    """What an instance's tags keep; None where no rollout has begun with it."""
    said = {key.removeprefix(KEPT): value for key, value in tags.items() if key.startswith(KEPT)}
    if "rollout" not in said:
        return None
    rows: dict[str, list[list[str]]] = {kind: [] for kind in ("volume", "interface", "address", "target")}
    for key in sorted(said):
        kind, _, number = key.partition("-")
        if number:
            rows[kind].append(said[key].split(" "))
    return Kept(
        said["rollout"], said["image"], said["expiry"], said["public"] == "yes",
        Hung(
            volumes={name: (device, ends == "ends") for name, device, ends in rows["volume"]},
            interfaces={name: int(index) for name, index, *_ in rows["interface"]},
            cards={name: int(card[0]) for name, _, *card in rows["interface"] if card and card[0] != "0"},
            addresses=tuple(name for (name,) in rows["address"]),
            registrations=tuple(
                Registration(group, int(port), "", *address) for group, port, *address in rows["target"]
            ),
        ),
    )  # fmt: skip


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
