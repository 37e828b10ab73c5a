"""The steps out of a member: container escapes, networks, security groups, instance profiles, secrets. Pure.

What lets a container out is told by what the engine's documentation and the kernel's say of privileges, mounts and
capabilities; each step names the one change that takes it away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from hardening.foundation.ranges import reaches_inside
from hardening.runtime import ContainerFacts, Facts, InstanceFacts, Mount, SecurityGroup, is_root, is_socket
from pipelines.blast_radius.graph import Cut, Edge, Strength
from pipelines.fleet.members import AT

HOST_TREES = ("/etc", "/root", "/home", "/boot", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/dev", "/proc", "/sys",
              "/var/lib/docker", "/var/lib/kubelet", "/var/lib/containerd", "/var/spool/cron",
              "/run/dbus", "/run/systemd", "/var/run/dbus", "/var/run/systemd")  # fmt: skip
"""One who can write here, or above, can run anything as the host's root."""
DISKS = re.compile(r"/dev(/((sd|hd|vd|xvd|nvme|mmcblk|dm-|md)[a-z0-9]*|(mapper|disk|block|vg)[^ ]*|mem|kmem|port))?")
"""Devices that hold the host's own disks, or its memory; and all of them."""
ALL_OR_BLOCK = ("a", "b")
"""How rules begin by which devices of all kinds, or disks, may be made."""
NO_NETWORK = "none"
TAKES_HOST = {"ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "DAC_READ_SEARCH"}
NEARLY = {"SYS_PTRACE", "BPF", "PERFMON", "SYS_BOOT", "MKNOD"}
API_OPEN = "API is accessible"
ICC = "(icc)"
LOOPBACK = ("127.", "::1:")


@dataclass(frozen=True)
class FleetMember:
    """One member. `host` is what it runs on: an engine's, a cluster's; empty for an instance, which is a host itself.

    `account`, `region` and `instance` are of an instance. `sure_host`: it is known to be on that very host.
    """

    fleet: str
    name: str
    image: str
    golden: str
    release: str
    facts: Facts | None
    host: str = ""
    account: str = ""
    region: str = ""
    instance: str = ""
    sure_host: bool = True

    @property
    def node(self) -> str:
        """What the graph calls it."""
        return f"member:{self.fleet}/{self.name}"


def steps(member: FleetMember) -> Iterator[Edge]:
    """All steps out of a member, and into it from its host, its account and its networks.

    What it runs on, and who has all rights, has it also where it was not read how it runs.
    """
    facts, sure = member.facts, Strength.CERTAIN if member.sure_host else Strength.POSSIBLE
    if member.host:
        yield Edge(f"host:{member.host}", member.node, sure, ("it runs there",))
    if member.account:
        whole, how = f"account:{member.account}", ("with all rights, commands can be run on it",)
        yield Edge(whole, member.node, Strength.CERTAIN, how)
    if isinstance(facts, ContainerFacts):
        yield from _of_container(member, facts)
    elif isinstance(facts, InstanceFacts):
        yield from _of_instance(member, facts)


# -- containers --------------------------------------------------------------------------------------------------------


def _of_container(member: FleetMember, facts: ContainerFacts) -> Iterator[Edge]:
    node, host = member.node, f"host:{member.host}"
    for strength, how, cut in _escapes(member, facts):
        yield Edge(node, host, strength, (how,), frozenset((cut,)))
    yield from _networks(member, facts)
    yield from _published(member, facts)
    if _joined(facts):
        yield Edge(node, f"out:{member.host}", Strength.EXPOSED, ("by its host's address",))
    if "network" in facts.host_namespaces:
        own = frozenset((Cut("own-namespace", node, "network"),))
        metadata, how = f"metadata:{member.host} (its own network)", "it shares the host's network"
        yield Edge(node, metadata, Strength.CERTAIN, (how,), own)
    if _joined(facts):
        yield Edge(node, f"metadata:{member.host}", Strength.CERTAIN, ("it has a network",))
    for target, how, cut in _data(member, facts):
        yield Edge(node, f"data:{target}", Strength.CERTAIN, (how,), frozenset((cut,)))


def metadata_steps(host: str, machine: FleetMember) -> Iterator[Edge]:
    """From the containers on a host to the keys of its instance's profile, where the metadata service answers them.

    Without a token any request gets there; with one, the answer reaches a container's own network where it may take two
    hops. A container in the host's network is not a hop away: see _of_container.
    """
    facts = machine.facts
    if not isinstance(facts, InstanceFacts) or not facts.profile or facts.endpoint == "disabled":
        return
    profile = profile_node(machine.account, facts.profile)
    yield Edge(f"metadata:{host} (its own network)", profile, Strength.CERTAIN, ("metadata gives keys",))
    if facts.tokens != "required" or facts.hop_limit > 1:
        how = f"metadata gives keys to containers (tokens {facts.tokens}, hop limit {facts.hop_limit})"
        cut = frozenset((Cut("hop-limit", machine.node),))
        yield Edge(f"metadata:{host}", profile, Strength.CERTAIN, (how,), cut)


def _joined(facts: ContainerFacts) -> tuple[str, ...]:
    """The networks that lead anywhere: its own, and those of a container whose network it shares."""
    return tuple(name for name in (*facts.networks, *facts.borrowed) if name != NO_NETWORK)


def process_steps(members: Iterable[FleetMember]) -> Iterator[Edge]:
    """Both ways between containers of one process namespace: as the same user, or as root, one traces the other."""
    known = {(one.host, one.name.partition(AT)[0]): one for one in members if one.host and one.sure_host}
    for (host, _), one in known.items():
        for name in one.facts.beside if isinstance(one.facts, ContainerFacts) else ():
            if other := known.get((host, name)):
                cut, how = frozenset((Cut("own-processes", one.node, name),)), ("they share a process namespace",)
                yield Edge(one.node, other.node, Strength.POSSIBLE, how, cut)
                yield Edge(other.node, one.node, Strength.POSSIBLE, how, cut)


def outgoing_steps(host: str, machine: FleetMember) -> Iterator[Edge]:
    """From the containers on a host to whom its instance may talk: they leave it by its address."""
    if isinstance(facts := machine.facts, InstanceFacts) and facts.groups:
        place = f"out:{machine.account}/{machine.region}"
        for target in (place, *(f"{place}/{group.id}" for group in facts.groups)):
            yield Edge(f"out:{host}", target, Strength.EXPOSED, ("its host is an instance there",))


def _networks(member: FleetMember, facts: ContainerFacts) -> Iterator[Edge]:
    """Both ways to each network. On an engine's default one containers talk only where the engine lets them (icc)."""
    node = member.node
    for name in _joined(facts):
        if name != "bridge" or any(ICC in one for one in facts.daemon):
            leaving, relay = frozenset((Cut("leave-network", node, name),)), f"net:{member.host}/{name}"
            yield Edge(node, relay, Strength.EXPOSED, (f"network {name}",), leaving)
            yield Edge(relay, node, Strength.EXPOSED, (f"network {name}",), leaving)
    if not member.sure_host:
        relay, how = f"net:{member.host}", ("what runs there may talk, unless a rule of the network forbids it",)
        yield Edge(node, relay, Strength.EXPOSED, how)
        yield Edge(relay, node, Strength.EXPOSED, how)


def _data(member: FleetMember, facts: ContainerFacts) -> Iterator[tuple[str, str, Cut]]:
    """Secrets in its environment, and directories of the host that do not give the host away."""
    for name in facts.secrets:
        how = f"the variable {name} of its environment"
        yield f"read secret {name} of {member.fleet}", how, Cut("hide-secret", member.node, name)
    for mount in facts.mounts:
        if mount.kind == "bind" and not is_socket(mount) and not _of_host(mount):
            verb, cut = "change" if mount.writable else "read", Cut("unmount", member.node, mount.source)
            yield f"{verb} files {member.host}:{mount.source}", f"mounted at {mount.target}", cut


def _published(member: FleetMember, facts: ContainerFacts) -> Iterator[Edge]:
    """Ports of the host are open to whatever has a network on it, those on its loopback to what has the host's own.

    What has the host's own listens there itself, without a word in what is published.
    """
    ports, loopback = f"net:{member.host}/ports of the host", f"net:{member.host}/loopback of the host"
    of_host, own = "network" in facts.host_namespaces, frozenset((Cut("own-namespace", member.node, "network"),))
    if _joined(facts) or of_host:
        yield Edge(member.node, ports, Strength.EXPOSED, ("it has a network",))
    if of_host:
        for relay, way in ((ports, (ports, member.node)), (loopback, (member.node, loopback))):
            yield Edge(*way, Strength.EXPOSED, (f"it shares the host's network: {relay.rpartition('/')[2]}",), own)
    for line in facts.published:
        relay, cut = loopback if line.startswith(LOOPBACK) else ports, Cut("unpublish", member.node, line)
        yield Edge(relay, member.node, Strength.EXPOSED, (f"published: {line}",), frozenset((cut,)))


def _of_host(mount: Mount) -> bool:
    source = mount.source.rstrip("/")
    return any(source == tree or source.startswith(f"{tree}/") or tree.startswith(f"{source}/") for tree in HOST_TREES)


def _escapes(member: FleetMember, facts: ContainerFacts) -> Iterator[tuple[Strength, str, Cut]]:
    """The ways to the host. What needs root in the container is only possible without, by a setuid file or a group."""
    node, root = member.node, is_root(facts.user)
    unknown = any(rule == "root_user" for rule, _ in facts.unread)
    sure = Strength.CERTAIN if root else Strength.POSSIBLE
    if facts.privileged:
        yield sure, "it is privileged", Cut("unprivileged", node)
    for mount in facts.mounts:
        if mount.kind == "bind" and (is_socket(mount) or _of_host(mount)):
            rank = sure if is_socket(mount) or mount.writable else Strength.POSSIBLE
            yield rank, f"{mount.source} of the host is mounted", Cut("unmount", node, mount.source)
    if root or unknown or not facts.no_new_privileges:
        for name in facts.capabilities:
            capability = name.upper().removeprefix("CAP_")
            if capability in TAKES_HOST or capability in NEARLY:
                traces = capability == "SYS_PTRACE" and "pid" in facts.host_namespaces
                rank = sure if capability in TAKES_HOST or traces else Strength.POSSIBLE
                yield rank, f"it has the capability {name}", Cut("drop-capability", node, name)
    for device in facts.devices:
        path, _, may = device.partition(" ")
        if DISKS.fullmatch(path) or path in ALL_OR_BLOCK:
            rank = sure if "w" in may and path not in ALL_OR_BLOCK else Strength.POSSIBLE
            yield rank, f"it has the host's device {device}", Cut("take-device", node, device)
    for name in facts.host_namespaces:
        if name in ("pid", "network", "ipc"):
            rank = Strength.POSSIBLE if name == "pid" else Strength.EXPOSED
            yield rank, f"it shares the host's {name} namespace", Cut("own-namespace", node, name)
    if any(API_OPEN in one for one in facts.daemon):
        yield Strength.POSSIBLE, "the engine's API is open to the network", Cut("close-api", f"host:{member.host}")
    if root:
        yield Strength.EXPOSED, "it runs as root: a kernel vulnerability would be enough", Cut("not-root", node)


# -- instances ---------------------------------------------------------------------------------------------------------


def _of_instance(member: FleetMember, facts: InstanceFacts) -> Iterator[Edge]:
    node = member.node
    if facts.profile and facts.endpoint != "disabled":
        cut, profile = frozenset((Cut("detach-profile", node),)), profile_node(member.account, facts.profile)
        yield Edge(node, profile, Strength.CERTAIN, ("its metadata gives the keys of its instance profile",), cut)
    for group in facts.groups:
        yield Edge(
            node, f"out:{member.account}/{member.region}/{group.id}", Strength.EXPOSED, (f"it is in {group.id}",)
        )
        yield Edge(f"in:{member.account}/{member.region}/{group.id}", node, Strength.EXPOSED, (f"it is in {group.id}",))
    if facts.groups:
        yield Edge(node, f"out:{member.account}/{member.region}", Strength.EXPOSED, ("it is in the region's networks",))


def profile_node(account: str, profile: str) -> str:
    """The node of an instance profile, which leads to its role where IAM was read."""
    return f"profile:{account}/{profile}"


def group_steps(place: str, group: SecurityGroup) -> Iterator[Edge]:
    """Who may come into a security group, from other groups and from addresses. `place` is its account and region.

    Instances' own addresses are not known: what lets in private ones, any of IPv6 or a list of prefixes may let in any
    instance of the region, and what lets in everybody does.
    """
    for line in group.lets_in:
        origin, into = line.partition(" from ")[2], f"in:{place}/{group.id}"
        cut = frozenset((Cut("close-rule", into, line),))
        if reaches_inside(origin):
            source = f"out:{place}/{origin}" if origin.startswith("sg-") else f"out:{place}"
            yield Edge(source, into, Strength.EXPOSED, (f"{group.id} lets in {line}",), cut)


# -- changes -----------------------------------------------------------------------------------------------------------

LISTED = {
    "drop-capability": ("capabilities",), "take-device": ("devices",), "own-namespace": ("host_namespaces",),
    "leave-network": ("networks", "borrowed"), "own-processes": ("beside",), "hide-secret": ("secrets",),
    "unpublish": ("published",),
}  # fmt: skip
"""The facts of a container that a change takes one thing out of, by its kind."""


def changed(member: FleetMember, cut: Cut) -> FleetMember:
    """The member after a cut, as it would be seen then."""
    facts = member.facts
    if isinstance(facts, InstanceFacts) and cut.kind == "detach-profile":
        return replace(member, facts=replace(facts, profile=""))
    if isinstance(facts, InstanceFacts) and cut.kind == "hop-limit":
        return replace(member, facts=replace(facts, tokens="required", hop_limit=1))
    if not isinstance(facts, ContainerFacts):
        return member
    if keys := LISTED.get(cut.kind):
        left: dict[str, Any] = {key: tuple(one for one in getattr(facts, key) if one != cut.detail) for key in keys}
        return replace(member, facts=replace(facts, **left))
    match cut.kind:
        case "unprivileged":
            facts = replace(facts, privileged=False)
        case "unmount":
            facts = replace(facts, mounts=tuple(one for one in facts.mounts if one.source != cut.detail))
        case "not-root":
            facts = replace(facts, user="65532")
        case "close-api":
            facts = replace(facts, daemon=tuple(one for one in facts.daemon if API_OPEN not in one))
    return replace(member, facts=facts)


def closed(group: SecurityGroup, cut: Cut) -> SecurityGroup:
    """A security group without a rule."""
    return replace(group, lets_in=tuple(one for one in group.lets_in if one != cut.detail))
