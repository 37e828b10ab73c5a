"""What `adopt` does with an EC2 selector or an Auto Scaling group: shows what is there, and drafts its fleet's file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hardening.foundation.asking import ask_each
from hardening.foundation.errors import ContentError, GoldsmithError, OutsideError, UsageError, understood
from images.aws.cloud import Cloud
from images.aws.permissions import AUDITOR, permit
from images.aws.tags import as_dict
from images.context import Context
from pipelines.cli.adopt import GROUP, TAGS, AdoptLine, FoundLine, selected
from pipelines.cli.adopt_clouds import definitions, fleet_as_read, told, written
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.drafting import USUAL_LABELS, slug
from pipelines.fleet.ec2.drafts import (
    UnadoptedGroup,
    UnadoptedInstance,
    UnadoptedMachines,
    machine_fleet_draft,
    must_adopt,
    selectors,
    shared,
)
from pipelines.fleet.ec2.groups import AutoScalingFleet
from pipelines.fleet.ec2.instance_spec import Json
from pipelines.fleet.ec2.instances import Ec2Fleet
from pipelines.fleet.ec2.members import Inventory, read_fleet, regions_of
from pipelines.fleet.ec2.provenance import AmiProvenance
from pipelines.fleet.model import Fleet, FleetKind, ReplacementStrategy
from pipelines.fleet.violations import named
from pipelines.wiring import image_context, person, root_for

PERMISSIONS = (permit("autoscaling:DescribeAutoScalingGroups", AUDITOR),)

TRIED = 5  # tags of a group that are tried as its selector, each by reading what it selects
EVERYWHERE = "--regions and --accounts say where to look; by default that is everywhere in the [aws] settings"


def adopt_ec2(
    what: Sequence[str], *, name: str = "", replacement: str = "", content: str = "", regions: str = "",
    accounts: str = "", apply: bool = False, context: Context | None = None,
) -> list[AdoptLine]:  # fmt: skip
    """Draft the fleet of `ec2:KEY=VALUE,…` or of `asg:NAME`, in all regions and accounts of the settings or in those.

    With `apply` its file is written, never over another. Raises UsageError, ContentError, RefusedError for what is in
    a fleet already, and OutsideError where a place cannot be read: what is there might belong to it.
    """
    if len(what) > 1:
        raise UsageError(f"adopt: {len(what)} services at once", hint="adopt one by one")
    context = context or image_context(looks=not apply)
    looking = _Looking(context, _listed(regions), _listed(accounts))
    found = looking.tagged(what[0]) if what[0].startswith(TAGS) else looking.grouped(what[0])
    found = replace(found, name=name or found.name)
    _refuse_member(found, context)
    line = _drafted(found, context, root_for(context.settings, content), replacement)
    return written(context, [line]) if apply else [line]


def _listed(words: str) -> list[str]:
    return [word for word in re.split(r"[,\s]+", words) if word]


@dataclass(frozen=True)
class _Looking:
    """Where to look, by default in all accounts with a role in the settings and in all regions."""

    context: Context
    regions: list[str]
    accounts: list[str]

    @property
    def _cloud(self) -> Cloud:
        return self.context.cloud

    def fleet(self, selector: Mapping[str, str], way: ReplacementStrategy = ReplacementStrategy.INSTANCE) -> Fleet:
        """A fleet of what carries these tags, as it would be read. Raises ContentError for a wrong place."""
        home, aws = self._cloud.home, self._cloud.aws
        where = {
            "regions": self.regions or list(dict.fromkeys((home, *aws.regions))),
            "accounts": self.accounts or list(dict.fromkeys((aws.account, *aws.roles))),
            "way": way,
        }
        return fleet_as_read("ec2", where, selector)

    def tagged(self, what: str) -> UnadoptedMachines:
        """What carries the tags of `ec2:KEY=VALUE,…`."""
        pairs = [pair.partition("=") for pair in what.removeprefix(TAGS).split(",")]
        if not pairs or not all(key and equals for key, equals, _ in pairs):
            raise UsageError(f"adopt {what}: no tags are named", hint="./goldsmith adopt ec2:app=shop,tier=web")
        selector = {key: value for key, _, value in pairs}
        telling = next((selector[key] for key in selector if key.lower() in USUAL_LABELS), "")
        name = slug(telling) or slug("-".join(selector.values())) or "service"
        source = f"the tags {', '.join(f'{key}={value}' for key, value in selector.items())}"
        inventory = read_fleet(self.fleet(selector), self._cloud).whole()
        if not inventory.instances and not inventory.groups:
            raise ContentError(f"nothing that runs has {source}", hint=EVERYWHERE)
        return self._described(name, source, selector, inventory)

    def grouped(self, what: str) -> UnadoptedMachines:
        """The Auto Scaling group `asg:NAME`, with the tags that tell it from what else runs."""
        group = what.removeprefix(GROUP)
        found = dict(self._groups(group))
        if not found:
            raise ContentError(f"no Auto Scaling group named {group}", hint=EVERYWHERE)
        source, name = f"the Auto Scaling group {group}", slug(group) or "service"
        tried = list(selectors(shared(as_dict(one.get("Tags")) for one in found.values())))
        if not tried:
            bare = Inventory(groups=[("/".join(place), one) for place, one in found.items()])
            return replace(self._described(name, source, {"app": name}, bare), carried=False)
        seen = [
            (read_fleet(self.fleet(selector), self._cloud).whole(), selector)
            for selector in tried[: TRIED - 1] + tried[TRIED - 1 :][-1:]
        ]
        inventory, selector = max(seen, key=lambda one: (_nothing_else(one[0], group), _inside(one[0], group)))
        described = self._described(name, source, selector, inventory)
        if _nothing_else(inventory, group):
            return described
        also = f"the selector also finds what is not in {source}: members too, or tags that tell them apart"
        return replace(described, notes=(also,))

    def _groups(self, name: str) -> Iterator[tuple[tuple[str, str], Json]]:
        """The groups of that name, by their places. Raises OutsideError where one cannot be read."""
        where = self.fleet({"x": "x"}).ec2
        places = [(account, region) for account in where.accounts for region in where.regions]
        answers = ask_each({one: partial(self._group, one, name) for one in places}, self._cloud.aws.read_within)
        failed = [
            f"{'/'.join(one)}: {said.message}" for one, said in answers.items() if isinstance(said, GoldsmithError)
        ]
        if failed:
            raise OutsideError("not every region can be read", evidence="\n".join(failed), hint=EVERYWHERE)
        yield from ((place, one) for place, said in answers.items() if isinstance(said, list) for one in said)

    @understood("EC2 Auto Scaling")
    def _group(self, place: tuple[str, str], name: str) -> list[Json]:
        scaling = self._cloud.client("autoscaling", place[1], place[0])
        return list(scaling.call("DescribeAutoScalingGroups", AutoScalingGroupNames=[name])["AutoScalingGroups"])

    def _described(
        self, name: str, source: str, selector: Mapping[str, str], inventory: Inventory
    ) -> UnadoptedMachines:
        """What was found, with what is known of the images and how each could be replaced."""
        of = self.fleet(selector)
        origins = AmiProvenance(of, self.context, (), self.context.now)
        ways = {way: Ec2Fleet(self.fleet(selector, way), self._cloud) for way in ReplacementStrategy}
        instances = []
        for one in inventory.instances:
            own = f"{one.where}/ec2/{one.shown.id}"
            seen = {way: port.member(one, own) for way, port in ways.items()}
            golden = origins.of(seen[ReplacementStrategy.INSTANCE]).golden
            instances.append(
                UnadoptedInstance(
                    one.shown.id,
                    _place(one.where),
                    one.image,
                    one.shown.tags,
                    {way: member.forced_in_place for way, member in seen.items()},
                    {way: member.cannot_roll for way, member in seen.items()},
                    golden.name if golden else "",
                    named(golden) if golden else "",
                    one.group,
                    tuple(sorted({place.group.split("/")[-2] for place in one.shown.registrations})),
                )
            )
        groups = []
        seen_there = {one.shown.id for one in inventory.instances}
        for (where, shown), group in zip(
            inventory.groups, AutoScalingFleet(of, self._cloud).groups_in(inventory), strict=True
        ):
            inside = [str(one["InstanceId"]) for one in shown.get("Instances", ())]
            bare = tuple(one for one in inside if one not in seen_there)
            tags = as_dict(shown.get("Tags"))
            groups.append(UnadoptedGroup(group.name, _place(where), group.runs, tags, group.cannot_roll, bare))
        return UnadoptedMachines(name, source, selector, tuple(instances), tuple(groups), self._cloud.aws.account)


def _nothing_else(inventory: Inventory, group: str) -> bool:
    """Whether only that group carries the tags."""
    others = [one for one in inventory.instances if one.group != group]
    return not others and all(one["AutoScalingGroupName"] == group for _, one in inventory.groups)


def _inside(inventory: Inventory, group: str) -> int:
    """How many of the group's instances carry the tags: those that a group has need not propagate to them."""
    return sum(one.group == group for one in inventory.instances)


def _place(where: str) -> tuple[str, str]:
    account, _, region = where.partition("/")
    return account, region


def _refuse_member(found: UnadoptedMachines, context: Context) -> None:
    """Raise RefusedError where a fleet selects some of it already."""
    for fleet in load_fleets(context.settings.roots).values():
        if fleet.kind is not FleetKind.EC2:
            continue
        places = {*regions_of(fleet, context.cloud)}
        seen = [(one.id, one.place, one.tags) for one in found.instances]
        seen += [(f"the Auto Scaling group {group.name}", group.place, group.tags) for group in found.groups]
        for called, place, tags in seen:
            if place in places and fleet.selects(tags):
                raise selected(fleet.name, called)


def _drafted(found: UnadoptedMachines, context: Context, root: Path, replacement: str) -> AdoptLine:
    """What is told, with the text of the file."""
    drafted = machine_fleet_draft(found, person(context.actor), replacement, definitions(context))
    adopt = ("--adopt all" if must_adopt(found) else "") if found.carried else None
    members = [one.id for one in found.instances]
    return told(context, root, found.name, drafted, found.source, members, tuple(_lines(found)), adopt)


def _lines(found: UnadoptedMachines) -> Iterator[FoundLine]:
    for one in found.instances:
        left = "" if one.group else one.cannot_roll[found.way]
        runs = one.called or f"{one.image} (unknown)"
        yield FoundLine(member=one.id, place="/".join(one.place), runs=runs, group=one.group, left_alone=left)
    for group in found.groups:
        member = f"Auto Scaling group {group.name}"
        yield FoundLine(member=member, place="/".join(group.place), runs=group.runs, left_alone=group.cannot_roll)
