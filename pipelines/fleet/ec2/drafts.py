"""The draft of an EC2 fleet's file, from what its tags or an Auto Scaling group select. Pure.

Each choice has a comment that says from what it was derived.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hardening.foundation.text import UNSEEN
from images.model import Definition
from pipelines.fleet.drafting import USUAL_LABELS, Draft, lacking_machine
from pipelines.fleet.ec2.instance_facts import OWNERS
from pipelines.fleet.members import OWN_LABELS
from pipelines.fleet.model import Limits, ReplacementStrategy

NOBODYS = ("aws:", OWN_LABELS)
ONE_EACH = "Name"  # which people give to each instance, rather than to a service


@dataclass(frozen=True)
class UnadoptedInstance:
    """An instance that runs. `golden`: the definition whose release it runs, empty where no release of ours is known;
    `called` is the release as people call it.

    `forced` and `cannot_roll` by the way to replace it: what of it cannot exist twice, and why it cannot be replaced.
    `targets`: the target groups that it is registered in.
    """

    id: str
    place: tuple[str, str]
    image: str
    tags: Mapping[str, str]
    forced: Mapping[ReplacementStrategy, tuple[str, ...]]
    cannot_roll: Mapping[ReplacementStrategy, str]
    golden: str = ""
    called: str = ""
    group: str = ""
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnadoptedGroup:
    """An Auto Scaling group. `bare`: those of its instances that lack the selector's tags."""

    name: str
    place: tuple[str, str]
    runs: str
    tags: Mapping[str, str]
    cannot_roll: str = ""
    bare: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnadoptedMachines:
    """What a fleet is drafted for. `source` says how it was found; `carried`: whether the selector finds it now.

    `home` is the account that owns the images.
    """

    name: str
    source: str
    selector: Mapping[str, str]
    instances: tuple[UnadoptedInstance, ...]
    groups: tuple[UnadoptedGroup, ...]
    home: str
    carried: bool = True
    notes: tuple[str, ...] = ()

    @property
    def alone(self) -> list[UnadoptedInstance]:
        """Those that are in no group, which rollouts step one by one."""
        return [one for one in self.instances if not one.group]

    @property
    def places(self) -> list[tuple[str, str]]:
        """The accounts and regions that something was found in."""
        return sorted({*(one.place for one in self.instances), *(one.place for one in self.groups)})

    @property
    def way(self) -> ReplacementStrategy:
        """The way that leaves fewer alone; a new instance, where both do as well."""
        left = {way: sum(bool(one.cannot_roll[way]) for one in self.alone) for way in ReplacementStrategy}
        return min(left, key=lambda way: (left[way], way is not ReplacementStrategy.INSTANCE))


def selectors(tags: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """What may tell a service from others, by its tags: a usual one first, each of the others, and all in the end."""
    given = {
        key: value
        for key, value in tags.items()
        if not key.startswith(NOBODYS) and key != ONE_EACH and not UNSEEN.search(key + value)
    }
    yield from ({key: given[key]} for key in sorted(given, key=lambda key: (key.lower() not in USUAL_LABELS, key)))
    if len(given) > 1:
        yield given


def shared(tags: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The tags that all of them carry."""
    first, *others = [*tags] or [{}]
    return {key: value for key, value in first.items() if all(one.get(key) == value for one in others)}


def machine_fleet_draft(
    found: UnadoptedMachines, owner: str, replacement: str, known: Mapping[str, Definition]
) -> tuple[Draft, str]:
    """The file of a fleet, and the definition that its members become: `replacement`, or what most of them run."""
    becomes, because = _becomes(found, replacement)
    draft = Draft()
    draft.begin_fleet(found.source, found.name, "ec2", *_owner(found, owner))
    if found.carried:
        draft.set("selector", dict(found.selector), f"What {found.source} has.")
    else:
        draft.ask(f"tag {found.source} and its instances {_said(found.selector)}: it has no tag to select it by")
        draft.set("selector", dict(found.selector))
    definition = known.get(becomes)
    draft.set_replacement(becomes, because, definition, lacks=lacking_machine(becomes, definition))
    _ask_health(draft, found)
    _set_places(draft, found)
    _limit(draft, found)
    draft.todo += [*found.notes, *_left_alone(found)]
    return draft, becomes


def _said(selector: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in selector.items())


def _becomes(found: UnadoptedMachines, replacement: str) -> tuple[str, str]:
    if replacement:
        return replacement, "As --replacement says."
    if runs := Counter(one.golden for one in found.instances if one.golden).most_common(1):
        name, count = runs[0]
        return name, f"{count} of {len(found.instances)} instances run it."
    return found.name, "None of them runs a release that is known here."


def _owner(found: UnadoptedMachines, actor: str) -> tuple[str, str]:
    """Who answers for it, by a tag that all of it carries; else who ran adopt."""
    tags = shared([*(one.tags for one in found.instances), *(one.tags for one in found.groups)])
    named = sorted((key for key in tags if key.lower() in OWNERS[:3]), key=lambda key: OWNERS.index(key.lower()))
    if named and tags[named[0]].strip():
        return tags[named[0]], f"Its tag {named[0]}."
    return actor, ""


def _ask_health(draft: Draft, found: UnadoptedMachines) -> None:
    targets = sorted({name for one in found.instances for name in one.targets})
    checks = "EC2's status checks"
    why = f"{checks}, and what the target groups say: {', '.join(targets)}." if targets else f"{checks} alone."
    draft.set("health", {"kind": "ec2"}, why)
    if found.alone and not targets:
        draft.todo.append(
            "no target group says whether it serves: give `health` a port that this host reaches, by kind tcp or http"
        )


def _set_places(draft: Draft, found: UnadoptedMachines) -> None:
    draft.table("ec2")
    draft.set("regions", sorted({region for _, region in found.places}), "Where something of it was found.")
    if accounts := sorted({account for account, _ in found.places} - {found.home}):
        home = [found.home] if any(account == found.home for account, _ in found.places) else []
        draft.set("accounts", [*home, *accounts], "Each is entered by its role in aws.roles.")
    if not found.alone:
        return
    other = next(one for one in ReplacementStrategy if one is not found.way)
    spared = [one for one in found.alone if one.cannot_roll[other] and not one.cannot_roll[found.way]]
    why = f"{spared[0].id} needs it: {spared[0].cannot_roll[other]}" if spared else "The default."
    draft.set("way", found.way.value, why)


def _limit(draft: Draft, found: UnadoptedMachines) -> None:
    forced = list(dict.fromkeys(why for one in found.alone for why in one.forced[found.way]))
    more = f"; and {len(forced) - 3} more" if forced[3:] else ""
    draft.set_method("; ".join(forced[:3]) + more, "replaced")


def _left_alone(found: UnadoptedMachines) -> Iterator[str]:
    """What a rollout would leave alone, and what the selector does not find."""
    for one in found.alone:
        if why := one.cannot_roll[found.way]:
            yield f"{one.id} will be skipped: {why}"
    for group in found.groups:
        if group.cannot_roll:
            yield f"the Auto Scaling group {group.name} will be skipped: {group.cannot_roll}"
        if group.bare and found.carried:
            yield (
                f"{_some(group.bare)} of the Auto Scaling group {group.name} have no tag {_said(found.selector)}: tag "
                "them, and let the group's tag propagate at launch, or they are not judged"
            )
    known = {(group.place, group.name) for group in found.groups}
    for place, name in sorted({(one.place, one.group) for one in found.instances if one.group} - known):
        yield (
            f"the Auto Scaling group {name} in {place[1]} has no tag {_said(found.selector)}: tag it, or nothing rolls "
            "its instances"
        )
    if unknown := unknown_in(found):
        yield (
            f"{_some([one.id for one in unknown])} run images of which no release is known here, such as "
            f"{unknown[0].image}: a rollout replaces these too, and where they are more than half of the members only "
            "with --adopt; take the tags off what shall stay"
        )


def unknown_in(found: UnadoptedMachines) -> list[UnadoptedInstance]:
    """The instances of whose image no release is known."""
    return [one for one in found.instances if not one.golden]


def must_adopt(found: UnadoptedMachines) -> bool:
    """Whether so many are unknown that a plan is refused until they are taken over on purpose."""
    alone = [one for one in unknown_in(found) if not one.group]
    return len(alone) > Limits().max_violating_fraction.unknown * len(found.alone)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
