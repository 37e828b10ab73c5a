"""The format of `network/`: roles, and the rules between them; and all files as one network. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from ipaddress import ip_network
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from hardening.foundation.content import Content, MisplacedError
from hardening.foundation.errors import ContentError, nearest, raise_all
from hardening.foundation.wording import matching
from hardening.model import Name, NonEmpty
from pipelines.fleet.model import Region

WORLD = "world"
EVERYWHERE = ("0.0.0.0/0", "::/0")
LAST_PORT = 65535
MOST_RULES = 2_000
"""Rules of all files: each is compared with what machines, groups and engines have."""


def as_range(text: str) -> str:
    """A range of addresses as it is compared: `10.1.0.0/16`, `fd00::/8`. Raises ValueError for any other text."""
    try:
        found = ip_network(text)
    except ValueError as error:
        raise ValueError(f"must be a range of addresses such as 10.1.0.0/16, not {text!r}: {error}") from None
    if not found.prefixlen:
        raise MisplacedError(f"{text} is every address", f'"{WORLD}" stands for all of both families')
    return str(found)


def _peer(text: str) -> str:
    return as_range(text) if "/" in text or ":" in text else text


def _ports(text: str) -> str:
    first, last = bounds(text)
    if not 1 <= first <= last <= LAST_PORT:
        raise ValueError(f"{text}: ports go from 1 to {LAST_PORT}, the lower one first")
    return text


RESERVED = ("default-deny", "outside")
PORTS = matching(r"^[0-9]{1,5}(-[0-9]{1,5})?/(tcp|udp)$", 'a port or several with a protocol, as "443/tcp"')
Ports = Annotated[str, PORTS, AfterValidator(_ports)]
Range = Annotated[str, AfterValidator(as_range)]
Label = matching(r"^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$", "a label of letters, digits and . _ / -")
Labels = dict[Annotated[str, Label], Annotated[str, Label]]
PEER = matching(r"^([a-z0-9][a-z0-9-]*|[0-9a-f.:]+/[0-9]{1,3})$", f'a role, a range of addresses, or "{WORLD}"')
Peer = Annotated[str, PEER, AfterValidator(_peer)]


def bounds(ports: str) -> tuple[int, int]:
    """The first and the last of some ports, as `(8000, 8010)` of `8000-8010/udp`."""
    first, _, last = ports.partition("/")[0].partition("-")
    return int(first), int(last or first)


def protocol_and_bounds(ports: str) -> tuple[str, int, int]:
    """Some ports as `("udp", 8000, 8010)`. Raises ValueError for any other text."""
    numbers, slash, protocol = ports.partition("/")
    if not slash or protocol not in ("tcp", "udp"):
        raise ValueError(f"not ports: {ports}")
    return protocol, *bounds(numbers)


def has_port(ports: str, one: str) -> bool:
    """Whether `one` port, as `22/tcp`, is among some ports."""
    first, last = bounds(ports)
    return ports.partition("/")[2] == one.partition("/")[2] and first <= bounds(one)[0] <= last


class RoleGroup(Content):
    """An EC2 security group that all members of a role have, and whose rules only this network sets."""

    id: Annotated[str, matching(r"^sg-[0-9a-f]{8,17}$", 'a security group such as "sg-0123456789abcdef0"')]
    region: Region
    account: Annotated[str, matching(r"^([0-9]{12})?$", "an account of twelve digits")] = Field(
        "", description="else the account of [aws]"
    )

    @property
    def where(self) -> str:
        """How people tell it from others."""
        return "/".join(part for part in (self.account, self.region, self.id) if part)


class Pods(Content):
    """The pods of a role: those of a namespace with all of these labels."""

    namespace: Annotated[str, matching(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", "a namespace of Kubernetes")]
    labels: Labels


class Role(Content):
    """The members that play a part, however they run: as machines, in security groups, as containers or as pods."""

    what: NonEmpty = Field(description="what it is, for whoever reviews")
    addresses: tuple[Range, ...] = Field((), description="where its members are, and nobody else")
    definitions: tuple[Name, ...] = Field((), description="the definitions of its machines")
    security_groups: tuple[RoleGroup, ...] = ()
    containers: Labels = Field({}, description="the labels of its containers on the engine of the fleets")
    pods: Pods | None = None
    outgoing: Literal["listed", "any"] = Field(
        "listed", description="listed: its members ask only whom a rule names; any: whoever lets them in"
    )


class NetworkRule(Content):
    """One permission: members of `from` may open connections to members of `to`, on these ports."""

    source: Peer = Field(alias="from", description=f'a role, a range of addresses, or "{WORLD}"')
    target: Peer = Field(alias="to", description=f'a role, a range of addresses, or "{WORLD}"')
    ports: Annotated[tuple[Ports, ...], Field(min_length=1)]
    reason: NonEmpty
    owner: str = Field("", description="else the file's")
    review_by: date | None = Field(None, description="else the file's")


class NetworkFile(Content):
    """One file of `network/`."""

    name: Name
    title: NonEmpty
    owner: NonEmpty
    review_by: date = Field(description="past that day lint and network.check tell that it is due")
    roles: dict[Name, Role] = {}
    rules: tuple[NetworkRule, ...] = ()

    @model_validator(mode="after")
    def _has_some(self) -> NetworkFile:
        if not self.roles and not self.rules:
            raise ValueError("has neither [roles.NAME] nor [[rules]]")
        return self


@dataclass(frozen=True)
class PlacedRule:
    """A rule, and its place in a file."""

    rule: NetworkRule
    file: Path | str
    key: str
    owner: str
    review_by: date


@dataclass(frozen=True)
class Network:
    """All files together: the roles by name, the rules, and the file of each role."""

    roles: Mapping[str, Role] = field(default_factory=dict)
    rules: tuple[PlacedRule, ...] = ()
    files: Mapping[str, Path | str] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[RoleGroup, ...]:
        """The security groups of all roles."""
        return tuple(group for role in self.roles.values() for group in role.security_groups)

    def into(self, role: str) -> Iterator[tuple[PlacedRule, str]]:
        """Each rule that lets somebody in to a role, with each of its ports."""
        yield from ((one, ports) for one in self.rules if one.rule.target == role for ports in one.rule.ports)

    def out_of(self, role: str) -> Iterator[tuple[PlacedRule, str]]:
        """Each rule by which a role asks somebody, with each of its ports."""
        yield from ((one, ports) for one in self.rules if one.rule.source == role for ports in one.rule.ports)


def combined(files: Mapping[Path | str, NetworkFile]) -> Network:
    """The network of all files. Raises ContentError for a role that stands twice, is unknown, or overlaps another."""
    roles = {name: role for one in files.values() for name, role in one.roles.items()}
    placed = tuple(
        PlacedRule(rule, file, f"rules[{number}]", rule.owner or one.owner, rule.review_by or one.review_by)
        for file, one in files.items()
        for number, rule in enumerate(one.rules)
    )
    raise_all(_wrong(files, roles, placed))
    return Network(roles, placed, {name: file for file, one in files.items() for name in one.roles})


def _wrong(
    files: Mapping[Path | str, NetworkFile], roles: Mapping[str, Role], rules: tuple[PlacedRule, ...]
) -> Iterator[ContentError]:
    owners: dict[str, Path | str] = {}
    for file, one in files.items():
        for name in one.roles:
            if name == WORLD:
                yield ContentError(f'"{WORLD}" stands for every address', file=file, key=f"roles.{name}")
            if name in RESERVED:
                yield ContentError(f'"{name}" is a name that is made for policies and networks', file=file,
                                   key=f"roles.{name}")  # fmt: skip
            if name in owners:
                yield ContentError(f"the role is already defined in {owners[name]}", file=file, key=f"roles.{name}")
            owners[name] = file
    yield from _shared(roles, owners)
    if len(rules) > MOST_RULES:
        yield ContentError(f"more than {MOST_RULES} rules", file=rules[-1].file, key="rules")
    for placed in rules:
        rule = placed.rule
        for key, peer in (("from", rule.source), ("to", rule.target)):
            if "/" not in peer and peer != WORLD and peer not in roles:
                hint = nearest(peer, [*roles, WORLD])
                yield ContentError(f"unknown role: {peer}", file=placed.file, key=f"{placed.key}.{key}", hint=hint)
        if rule.source not in roles and rule.target not in roles:
            hint = "a rule concerns members of a role: name one in `from` or `to`"
            yield ContentError("names no role", file=placed.file, key=placed.key, hint=hint)


def _shared(roles: Mapping[str, Role], owners: Mapping[str, Path | str]) -> Iterator[ContentError]:
    """What two roles have both: who may do what the one may would be the other too."""
    for (name, role), (other, its) in combinations(sorted(roles.items()), 2):
        for key, what in _in_common(role, its):
            hint = f"a member has one role: what {name} may do, {other} could do too"
            if key in ("containers", "pods"):
                hint += '; give both a label of one key with two values, as part = "web" and part = "db"'
            where = f"roles.{name}.{key}"
            yield ContentError(f"{what} of the role {other} too", file=owners[name], key=where, hint=hint)


def _in_common(one: Role, other: Role) -> Iterator[tuple[str, str]]:
    """Key and words for each thing of one role that is, or may be, the other's too."""
    mine = one.addresses
    yield from (("addresses", f"{text} is") for text in mine if any(_overlap(text, its) for its in other.addresses))
    yield from (("definitions", f"{text} is") for text in one.definitions if text in other.definitions)
    theirs = {group.id for group in other.security_groups}  # an id is one group, however its account is written
    yield from (("security_groups", f"{group.id} is") for group in one.security_groups if group.id in theirs)
    if one.containers and other.containers and _may_match_both(one.containers, other.containers):
        yield "containers", f"a container with {_told(one.containers)} may be"
    same = one.pods and other.pods and one.pods.namespace == other.pods.namespace
    if one.pods and other.pods and same and _may_match_both(one.pods.labels, other.pods.labels):
        yield "pods", f"a pod of {one.pods.namespace} with {_told(one.pods.labels)} may be"


def _may_match_both(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether something can have the labels of both: nothing can only if they say two values of one key."""
    return all(one[key] == other[key] for key in one.keys() & other.keys())


def _told(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items())) or "any labels"


def _overlap(one: str, other: str) -> bool:
    left, right = ip_network(one), ip_network(other)
    return left.version == right.version and left.overlaps(right)


def overdue(network: Network, today: date) -> Iterator[tuple[PlacedRule, int]]:
    """Each rule that had to be reviewed before `today`, and how many days ago."""
    yield from ((one, (today - one.review_by).days) for one in network.rules if one.review_by < today)


def overdue_text(placed: PlacedRule, days: int) -> str:
    """What is said of a rule whose review is due."""
    rule = placed.rule
    return (
        f"{placed.file}: {placed.key}: {rule.source} → {rule.target} had to be reviewed by {placed.review_by}, "
        f"{days} days ago ({placed.owner})"
    )


def lets_in(network: Network, role: str) -> Iterator[tuple[str, str]]:
    """The ports of a role, each with each address that it lets in to them. Raises ContentError as `addresses_of`."""
    for placed, ports in network.into(role):
        yield from ((ports, address) for address in addresses_of(network, placed.rule.source, placed, "from"))


def may_ask(network: Network, role: str) -> Iterator[tuple[str, str]]:
    """The ports that a role asks by its rules, each with each address that it asks. Raises ContentError as well."""
    for placed, ports in network.out_of(role):
        yield from ((ports, address) for address in addresses_of(network, placed.rule.target, placed, "to"))


def addresses_of(network: Network, peer: str, placed: PlacedRule, key: str) -> Iterable[str]:
    """The addresses that a peer of a rule stands for. Raises ContentError for a role that has none."""
    if peer == WORLD:
        return EVERYWHERE
    if "/" in peer:
        return (peer,)
    if not (found := network.roles[peer].addresses):
        raise ContentError(
            f"the role {peer} has no addresses, and the other end tells it by them", file=placed.file,
            key=f"{placed.key}.{key}", hint=f"name them: addresses = [\"10.1.0.0/24\"] under [roles.{peer}]",
        )  # fmt: skip
    return found
