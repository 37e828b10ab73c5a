"""What is known, as one graph; what falls with some members; and the single changes that shrink that most. Pure.

Each change is proved: the steps are made again from the facts as they would be after it, and the reach with them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, partial

from hardening.foundation.grouping import by_key
from hardening.runtime import InstanceFacts, SecurityGroup
from pipelines.blast_radius.account import Account, Principal
from pipelines.blast_radius.escalation import AccountSteps, ProfiledInstance, RunningService, Ways
from pipelines.blast_radius.graph import EXPOSURE, TAKEN, Cut, Edge, Graph, Reached, Strength, merged
from pipelines.blast_radius.member_steps import (
    FleetMember,
    changed,
    closed,
    group_steps,
    metadata_steps,
    outgoing_steps,
    process_steps,
    steps,
)

MOST_TRIED = 60
"""Changes that are tried on one reach: those that stand on the most steps to what is reached."""
MOST_TRIED_ON_ALL, SAMPLES = 8, 24
"""How many changes are tried on all members, and how many members' steps are read to find them."""
UNSEEN_RULES = {
    "privileged", "docker_socket", "host_mount", "added_capabilities", "host_namespaces", "open_group", "root_user",
}  # fmt: skip
"""Rules whose facts make the steps; where one could not be read, steps may be missing."""


@dataclass(frozen=True)
class KnownFacts:
    """All that is known. `unread`: what could not be read, a line each; `unseen`: what is never read.

    `hosts`: by the host of an engine, the instance of a fleet that it is. `seen_at`: when each fleet was last looked
    at. `made` keeps the steps of what did not change.
    """

    members: tuple[FleetMember, ...]
    accounts: tuple[Account, ...]
    ways: Ways
    hosts: Mapping[str, str] = field(default_factory=dict)
    workloads: tuple[RunningService, ...] = ()
    unread: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    seen_at: Mapping[str, datetime] = field(default_factory=dict)
    made: dict[str, tuple[object, list[Edge]]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def groups(self) -> dict[str, tuple[str, SecurityGroup]]:
        """Every security group that a member shows, with its account and region, by its node."""
        found: dict[str, tuple[str, SecurityGroup]] = {}
        for one in self.members:
            if isinstance(one.facts, InstanceFacts):
                place = f"{one.account}/{one.region}"
                found |= {f"in:{place}/{group.id}": (place, group) for group in one.facts.groups}
        return found

    @cached_property
    def graph(self) -> Graph:
        """The graph of all steps."""
        edges: list[Edge] = []
        for one in self.members:
            edges += self._kept(one.node, one, partial(merged, steps(one)))
        for name, pair in self.groups.items():
            edges += self._kept(name, pair, partial(merged, group_steps(*pair)))
        partitions = {one.id: one.partition for one in self.accounts}
        machines = self._machines(partitions)
        for account in self.accounts:
            found = AccountSteps(
                account, self.ways, tuple(one for one in self.workloads if one.arn.split(":")[4] == account.id),
                tuple(machines.get(account.id, ())),
            )  # fmt: skip
            edges += found.of_account()
            for actor in account.principals:
                edges += self._kept(actor.arn, actor, partial(found.of, actor))
        edges += (edge for host, instance in self.hosts.items() for edge in self._of_host(host, instance))
        edges += process_steps(self.members)
        return Graph(edges)

    def _kept(self, name: str, facts: object, make: Callable[[], list[Edge]]) -> list[Edge]:
        """The steps of one thing, made again only where its facts are others than they were."""
        kept = self.made.get(name)
        if kept is None or kept[0] is not facts:
            kept = self.made[name] = facts, make()
        return kept[1]

    def _machines(self, partitions: Mapping[str, str]) -> dict[str, list[ProfiledInstance]]:
        found: defaultdict[str, list[ProfiledInstance]] = defaultdict(list)
        for one in self.members:
            if one.instance:
                arn = f"arn:{partitions.get(one.account, 'aws')}:ec2:{one.region}:{one.account}:instance/{one.instance}"
                profile = one.facts.profile if isinstance(one.facts, InstanceFacts) else ""
                found[one.account].append(ProfiledInstance(arn, one.node, profile))
        return found

    def _of_host(self, host: str, instance: str) -> Iterable[Edge]:
        on = f"host:{host}"
        for one in self.instances.get(instance, ()):
            yield Edge(on, one.node, Strength.CERTAIN, ("it is that instance",))
            yield Edge(one.node, on, Strength.CERTAIN, ("it is that instance",))
            yield from metadata_steps(host, one)
            yield from outgoing_steps(host, one)

    @cached_property
    def instances(self) -> dict[str, list[FleetMember]]:
        """The members that are instances, by their ids."""
        return by_key((one.instance, one) for one in self.members if one.instance)

    def without(self, cut: Cut) -> KnownFacts:
        """The world after a change. The steps of what it leaves as it is are taken over."""
        after = replace(self, made=dict(self.made))
        match cut.kind:
            case "deny":
                return replace(after, accounts=tuple(_denied(one, cut) for one in self.accounts))
            case "close-rule":
                return replace(after, members=tuple(_closed(one, cut) for one in self.members))
            case _:
                return replace(
                    after, members=tuple(changed(one, cut) if _about(one, cut) else one for one in self.members)
                )


def _about(member: FleetMember, cut: Cut) -> bool:
    return cut.subject == (f"host:{member.host}" if cut.kind == "close-api" else member.node)


def _denied(account: Account, cut: Cut) -> Account:
    if not any(one.arn == cut.subject for one in account.principals):
        return account
    return replace(account, principals=tuple(
        one.without(cut.actions, cut.detail) if one.arn == cut.subject else one for one in account.principals
    ))  # fmt: skip


def _closed(member: FleetMember, cut: Cut) -> FleetMember:
    """A member after a rule of a security group is gone, in whichever of its groups that is."""
    facts = member.facts
    if not isinstance(facts, InstanceFacts):
        return member
    place = f"in:{member.account}/{member.region}/"
    if not any(f"{place}{one.id}" == cut.subject for one in facts.groups):
        return member
    groups = tuple(closed(one, cut) if f"{place}{one.id}" == cut.subject else one for one in facts.groups)
    return replace(member, facts=replace(facts, groups=groups))


@dataclass(frozen=True)
class ProvenCut:
    """A change and its effect: the reach after it, computed again from the facts."""

    cut: Cut
    after: Reached
    saves: int


@dataclass(frozen=True)
class Radius:
    """What falls with some members, and what shrinks that most.

    More may be reached by what is `unread`, which could have been read, or `unseen`, which is never asked for.
    """

    sources: tuple[str, ...]
    reach: Reached
    cuts: tuple[ProvenCut, ...]
    unread: tuple[str, ...]
    unseen: tuple[str, ...]
    tried: int = 0
    candidates: int = 0


def radius(world: KnownFacts, sources: Collection[str], most: int = 5) -> Radius:
    """The blast radius of some members, by their nodes, and the `most` best changes, each proved."""
    reach = world.graph.reach(sources)
    candidates = ranked(reach)
    tried = candidates[:MOST_TRIED]
    saved = [(reach.size - world.graph.reach(sources, cut).size, cut) for cut in tried]
    measured = sorted(saved, key=lambda one: (-one[0], _order(one[1])))
    narrow = {(saves, cut.kind, cut.subject, cut.actions): cut for saves, cut in reversed(measured) if saves > 0}
    best = [cut for _, cut in measured if cut in narrow.values()][:most]
    cuts = [proved(world, sources, reach, cut) for cut in best]
    found = tuple(sorted((one for one in cuts if one.saves > 0), key=lambda one: (-one.saves, _order(one.cut))))
    return Radius(tuple(sorted(sources)), reach, found, *unseen(world, reach, sources), len(tried), len(candidates))


def proved(world: KnownFacts, sources: Collection[str], reach: Reached, cut: Cut) -> ProvenCut:
    """A change, evaluated again from the facts after it."""
    after = world.without(cut).graph.reach(sources)
    return ProvenCut(cut, after, reach.size - after.size)


def ranked(reach: Reached) -> list[Cut]:
    """The changes that touch steps to what is reached, those first on which the most of it stands.

    What stands on a step is counted in the tree of first steps: by another way it may be reached still.
    """
    return _heaviest(weighed(reach))


def _heaviest(weights: Mapping[Cut, int]) -> list[Cut]:
    return [cut for cut, _ in sorted(weights.items(), key=lambda pair: (-pair[1], _order(pair[0])))]


def weighed(reach: Reached) -> Counter[Cut]:
    """How much of a reach stands on each change, in the tree of first steps."""
    below: Counter[str] = Counter()
    for name in reversed(list(reach.through)):
        below[name] += 1
        below[reach.through[name].source] += below[name]
    weights: Counter[Cut] = Counter()
    for name, edge in reach.through.items():
        for cut in edge.cuts:
            weights[cut] += below[name]
    return weights


def _order(cut: Cut) -> tuple[str, int, str, str, tuple[str, ...]]:
    """Of changes that do the same, the narrower one first."""
    return cut.kind, int(cut.detail == "*"), cut.subject, cut.detail, cut.actions


def unseen(world: KnownFacts, reach: Reached, sources: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What could not be read, and what is never asked for, as far as it concerns the reach."""
    touched = reach.all | set(sources)
    read, unread, limits = {one.id for one in world.accounts}, list(world.unread), list(world.unseen)
    for one in world.members:
        if one.node in touched:
            unread += _unread(one, read)
    hosts = {one.host for one in world.members if one.host and (one.node in touched or f"host:{one.host}" in touched)}
    known = {host for host, instance in world.hosts.items() if instance in world.instances}
    limits += [
        f"host {name}: the instance {world.hosts[name]} that it is stands in no fleet that was checked"
        if world.hosts.get(name)
        else f"host {name}: whether it is an instance with a profile is not known"
        for name in sorted(hosts - known)
    ]  # fmt: skip
    for account in world.accounts:
        limits += [line for actor in account.principals if f"iam:{actor.arn}" in touched for line in _conditions(actor)]
    return tuple(dict.fromkeys(unread)), tuple(dict.fromkeys(limits))


def _unread(member: FleetMember, accounts: Collection[str]) -> Iterator[str]:
    name, facts = f"{member.fleet}/{member.name}", member.facts
    if facts is None:
        yield f"{name}: how it runs was not read"
        return
    yield from (f"{name}: {rule}: {why}" for rule, why in facts.unread if rule in UNSEEN_RULES)
    if isinstance(facts, InstanceFacts) and facts.profile and member.account not in accounts:
        yield f"{name}: the rights of its profile {facts.profile}: IAM of the account {member.account} was not read"


def _conditions(actor: Principal) -> Iterator[str]:
    keys = sorted({each.key for one in actor.rights.statements for each in one.conditions})
    if keys:
        yield f"{actor.arn}: whether conditions on {', '.join(keys)} hold"


# -- of all members ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FleetRadius:
    """The blast radius of every member: how much is taken, and how much can be talked to; what shrinks the sum."""

    sizes: Mapping[str, tuple[int, int]]
    total: int
    cuts: tuple[tuple[Cut, int], ...]
    tried: int
    candidates: int


def fleet_radius(world: KnownFacts, most: int = 5) -> FleetRadius:
    """The reaches of all members at once, and the changes that shrink their sum most, each evaluated again."""
    nodes = [one.node for one in world.members]
    sizes = world.graph.sizes(nodes)
    total, candidates, found = _total(sizes.values()), _shared(world, sizes), []
    for cut in candidates[:MOST_TRIED_ON_ALL]:
        after = _total(world.without(cut).graph.sizes(nodes).values())
        if after < total:
            found.append((cut, total - after))
    best = tuple(sorted(found, key=lambda pair: (-pair[1], _order(pair[0])))[:most])
    return FleetRadius(sizes, total, best, min(len(candidates), MOST_TRIED_ON_ALL), len(candidates))


def _total(sizes: Iterable[tuple[int, int]]) -> int:
    return sum(TAKEN * taken + EXPOSURE * met for taken, met in sizes)


def _shared(world: KnownFacts, sizes: Mapping[str, tuple[int, int]]) -> list[Cut]:
    """Changes to try on all members: those on which the most stands, of reaches that are common and great."""
    alike = by_key((size, name) for name, size in sizes.items())
    greatest = sorted(alike.items(), key=lambda pair: -len(pair[1]) * _total([pair[0]]))[:SAMPLES]
    weights: Counter[Cut] = Counter()
    for _, names in greatest:
        for cut, weight in weighed(world.graph.reach([names[0]])).items():
            weights[cut] += weight * len(names)
    return _heaviest(weights)
