"""How an instance runs, by what its region shows of it, of its security groups, and of its launch template. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hardening.runtime import InstanceFacts, SecurityGroup, Volume, open_to_all
from pipelines.fleet.ec2.instance_spec import InstanceDescription, Json

TEMPLATE, VERSION = "aws:ec2launchtemplate:id", "aws:ec2launchtemplate:version"
GROUP = "aws:autoscaling:groupName"
OWNERS = ("owner", "team", "contact", "costcenter", "cost-center", "service", "application")
MOST_RULES = 500


def template_of(instance: InstanceDescription) -> tuple[str, str] | None:
    """The launch template, and its version, that an instance was launched from; None where it was from none."""
    named = instance.tags.get(TEMPLATE, ""), instance.tags.get(VERSION, "")
    return named if all(named) else None


def group_ids(instance: InstanceDescription) -> set[str]:
    """The security groups of all its interfaces."""
    cards = instance.instance.get("NetworkInterfaces") or ()
    named = [
        *(instance.instance.get("SecurityGroups") or ()),
        *(one for card in cards for one in card.get("Groups", ())),
    ]
    return {str(one["GroupId"]) for one in named}


def facts_of(
    shown: InstanceDescription, image: str, groups: Mapping[str, Json] | None, template: Json | None,
    why: Mapping[str, str],
) -> InstanceFacts:  # fmt: skip
    """How the instance runs. `groups` by id and `template` (its data) are None where they could not be read: `why`.

    A group that is not among those that the region shows is not known to be closed.
    """
    one = shown.instance
    metadata, named = one.get("MetadataOptions") or {}, template_of(shown)
    known, mine = groups or {}, sorted(group_ids(shown))
    lines = {name: _lines(known[name]) for name in mine if name in known}
    open_to = [f"{name} has {len(it)} rules, {MOST_RULES} are kept" for name, it in lines.items() if it[MOST_RULES:]]
    open_to += [f"the region does not show {name}" for name in mine if groups is not None and name not in known]
    unread = {**({"open_group": "; ".join(open_to)} if open_to else {}), **why}
    return InstanceFacts(
        image=image,
        type=str(one.get("InstanceType", "")),
        launched=one.get("LaunchTime"),
        profile=profile(one.get("IamInstanceProfile")),
        tokens=str(metadata.get("HttpTokens", "optional")),
        endpoint=str(metadata.get("HttpEndpoint", "enabled")),
        hop_limit=int(metadata.get("HttpPutResponseHopLimit", 1)),
        volumes=tuple(sorted(_volumes(shown), key=lambda volume: volume.device)),
        public_address=_public_address(one),
        groups=tuple(
            SecurityGroup(name, str(known[name].get("GroupName", "")), tuple(found[:MOST_RULES]))
            for name, found in lines.items()
        ),
        template=f"{named[0]} version {named[1]}" if named else "",
        differs=tuple(differences(shown, template)) if template is not None else (),
        owner_tags=tuple(sorted((key, value) for key, value in shown.tags.items() if key.lower() in OWNERS)),
        unread=tuple(sorted(unread.items())),
    )


def profile(named: Mapping[str, Any] | None) -> str:
    """The name of an instance profile, whether it is given by name or by ARN."""
    return str((named or {}).get("Name") or (named or {}).get("Arn", "")).rpartition("/")[2]


def _volumes(shown: InstanceDescription) -> Iterator[Volume]:
    for device in shown.instance.get("BlockDeviceMappings") or ():
        if name := (device.get("Ebs") or {}).get("VolumeId"):
            yield Volume(name, device["DeviceName"], bool(shown.volumes.get(name, {}).get("Encrypted")))


def _public_address(instance: Json) -> str:
    """Its first public address, of whichever interface, IPv4 before IPv6, which is public by itself."""
    cards = instance.get("NetworkInterfaces") or ()
    found = [instance.get("PublicIpAddress"), *((one.get("Association") or {}).get("PublicIp") for one in cards)]
    found += [six["Ipv6Address"] for one in cards for six in one.get("Ipv6Addresses") or ()]
    return next((str(one) for one in found if one), "")


def _lines(group: Json) -> list[str]:
    """What a security group lets in, everybody first."""
    found = {line for rule in group.get("IpPermissions") or () for line in _lets_in(rule)}
    return sorted(found, key=lambda line: (not open_to_all(line), line))


def _lets_in(rule: Json) -> Iterator[str]:
    """A rule of a security group, as `tcp 22 from 0.0.0.0/0`, a line for each origin."""
    protocol, low, high = str(rule.get("IpProtocol", "-1")), rule.get("FromPort"), rule.get("ToPort")
    what = "all" if protocol == "-1" else protocol
    if protocol in ("tcp", "udp", "6", "17") and (low, high) not in ((None, None), (0, 65535)):
        what += f" {low}" if low == high else f" {low}-{high}"
    yield from (f"{what} from {one['CidrIp']}" for one in rule.get("IpRanges") or ())
    yield from (f"{what} from {one['CidrIpv6']}" for one in rule.get("Ipv6Ranges") or ())
    yield from (f"{what} from {one['PrefixListId']}" for one in rule.get("PrefixListIds") or ())
    yield from (f"{what} from {one['GroupId']}" for one in rule.get("UserIdGroupPairs") or () if "GroupId" in one)


def differences(shown: InstanceDescription, template: Json) -> Iterator[str]:
    """What of a launch template's data is otherwise on the instance, a line for each thing.

    A member of a group may be of another type, which a mixed instances policy says.
    """
    one, wanted = shown.instance, _wanted(template)
    now = {
        "image": str(one.get("ImageId", "")),
        "type": str(one.get("InstanceType", "")),
        "profile": profile(one.get("IamInstanceProfile")),
        "key": str(one.get("KeyName", "")),
        "tokens": str((one.get("MetadataOptions") or {}).get("HttpTokens", "optional")),
        "groups": ", ".join(sorted(str(group["GroupId"]) for group in one.get("SecurityGroups") or ())),
    }
    for name, value in wanted.items():
        if value and now[name] != value and not (name == "type" and GROUP in shown.tags):
            yield f"{name} {now[name] or 'none'}, not {value}"


def _wanted(template: Json) -> dict[str, str]:
    """What a launch template says of these; empty where it says nothing."""
    image = str(template.get("ImageId", ""))
    cards = template.get("NetworkInterfaces") or ()
    groups = (
        template.get("SecurityGroupIds") or next((one.get("Groups") for one in cards if one.get("Groups")), None) or ()
    )
    return {
        "image": "" if image.startswith("resolve:") else image,
        "type": str(template.get("InstanceType", "")),
        "profile": profile(template.get("IamInstanceProfile")),
        "key": str(template.get("KeyName", "")),
        "tokens": str((template.get("MetadataOptions") or {}).get("HttpTokens", "")),
        "groups": ", ".join(sorted(map(str, groups))),
    }
