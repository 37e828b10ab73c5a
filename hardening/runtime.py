"""How a container or an instance actually runs, and the rules about it, each with its reason and its cost. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from operator import attrgetter
from typing import Any, Literal

from hardening.findings import Actor, Repair, Side
from hardening.foundation.ranges import is_everybody
from hardening.policy import AllowingRule, Rule

ROOT_NAMES = ("", "0", "root")
DOCKER_SOCKETS = ("docker.sock", "containerd.sock", "podman.sock", "crio.sock")
SOCKET_FOLDERS = {"", *(f"{run}{name}" for run in ("/run", "/var/run")
                        for name in ("", "/docker", "/containerd", "/podman", "/crio"))}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount of a container: `kind` is bind, volume or tmpfs; `source` is the host's path, or a name."""

    kind: str
    source: str
    target: str
    writable: bool


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """How a container runs. `image_user` is the user that its image sets, `user` the one that it has.

    A limit of 0 is none. `daemon` is what of the engine's own settings weakens it. `changed` are the files that differ
    from its image, as `added PATH`; `processes` what was started in it from outside. `published` are ports of the host
    that lead to it, as `0.0.0.0:8080 to 80/tcp`; `secrets` are names of variables in its environment that look as if
    they held one. `devices` are the host's that it was given, as `/dev/sda rwm`, and rules for more, as `b 8:* rwm`;
    `borrowed` are networks of another container whose network it shares, `beside` containers whose process namespace it
    shares. `unread` are rules that could not be judged, each with why.
    """

    image: str = ""
    user: str = ""
    image_user: str = ""
    launched: datetime | None = None
    privileged: bool = False
    mounts: tuple[Mount, ...] = ()
    capabilities: tuple[str, ...] = ()
    writable_root: bool = False
    memory_bytes: int = 0
    cpus: float = 0.0
    pids: int = 0
    no_new_privileges: bool = True
    host_namespaces: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    daemon: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    published: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    borrowed: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
    kind: Literal["container"] = "container"


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of an instance."""

    id: str
    device: str
    encrypted: bool


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """A security group; `lets_in` as `tcp 22 from 0.0.0.0/0`."""

    id: str
    name: str
    lets_in: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """How an instance runs. `tokens` and `endpoint` are those of its metadata service; `owner_tags` say who owns it.

    `template` is the launch template and version that it was launched from; `differs` what of it is otherwise now.
    """

    image: str = ""
    type: str = ""
    launched: datetime | None = None
    profile: str = ""
    tokens: str = "required"
    endpoint: str = "enabled"
    hop_limit: int = 1
    volumes: tuple[Volume, ...] = ()
    public_address: str = ""
    groups: tuple[SecurityGroup, ...] = ()
    template: str = ""
    differs: tuple[str, ...] = ()
    owner_tags: tuple[tuple[str, str], ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
    kind: Literal["instance"] = "instance"


Facts = ContainerFacts | InstanceFacts
Kind = Literal["container", "instance"]


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen of a member: how it runs `now`, and what earlier snapshots kept of it, the oldest first.

    `now` is None where it could not be read, and then `unread` says why.
    """

    kind: Kind
    now: Facts | None
    history: tuple[tuple[datetime, Facts], ...] = ()
    unread: str = ""

    @property
    def first(self) -> Facts | None:
        """How it ran when it was first seen; groups that could not be read then, as they were when they first were."""
        if not self.history:
            return self.now
        first = self.history[0][1]
        if isinstance(first, InstanceFacts) and _unread_groups(first):
            looks = (facts for _, facts in self.history if isinstance(facts, InstanceFacts))
            if read := next((facts for facts in looks if not _unread_groups(facts)), None):
                return replace(first, groups=read.groups, unread=read.unread)
        return first


UNJUDGED = ("image", "launched", "published", "secrets", "devices", "borrowed", "beside")  # which no rule looks at
_LOOKED_AT = {
    kind: attrgetter(*(one.name for one in fields(of) if one.name not in UNJUDGED))
    for kind, of in (("container", ContainerFacts), ("instance", InstanceFacts))
}


def way_of(observed: Observed) -> Hashable:
    """All that rules look at: two members of which it is equal break the same rules since the same looks."""
    now, history = observed.now, observed.history
    looks = [(at, _LOOKED_AT[facts.kind](facts)) for at, facts in history]
    return _LOOKED_AT[now.kind](now) if now else None, *looks


Find = Callable[[Any, Any, Any], tuple[str, ...]]
"""The evidence against what runs, by its facts, those of its first snapshot, and the policy's rule; none: it holds."""


@dataclass(frozen=True, eq=False)
class RuntimeRule:
    """One decision about how things run. `title` is what a member is that breaks it; `cost` what it takes to comply."""

    name: str
    kind: Kind
    title: str
    why: str
    cost: str
    todo: str
    find: Find
    repairs: tuple[Repair, ...] = (Repair.CONFIGURE, Repair.WAIVE)
    side: Side = Side.YOURS
    actor: Actor = Actor.FLEET


SECRET = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|(API|ACCESS|PRIVATE|ENCRYPTION|SIGNING)_?KEY|DSN$"
)
MOST_SECRETS, LONGEST_NAME = 50, 100


def secrets_in(names: Iterable[str]) -> tuple[str, ...]:
    """The variables whose names suggest a secret; values are not kept. One that names a path does not count."""
    found = {name for name in names if SECRET.search(name.upper()) and not name.upper().endswith(("_FILE", "_PATH"))}
    return tuple(sorted(name[:LONGEST_NAME] for name in found)[:MOST_SECRETS])


# -- containers --------------------------------------------------------------------------------------------------------


def is_root(user: str) -> bool:
    """Whether a user as Docker is told it, with or without a group, is root."""
    return user.partition(":")[0] in ROOT_NAMES


def _root_user(facts: ContainerFacts, _first: Facts, _rule: Rule) -> tuple[str, ...]:
    if not is_root(facts.user):
        return ()
    return (f"user {facts.user or 'root'}, by {'its image' if by_image(facts) else 'what it was started with'}",)


def by_image(facts: ContainerFacts) -> bool:
    """Whether the user is the one that the image sets."""
    return facts.user == facts.image_user


def _privileged(facts: ContainerFacts, _first: Facts, _rule: Rule) -> tuple[str, ...]:
    return ("--privileged",) if facts.privileged else ()


def is_socket(mount: Mount) -> bool:
    """Whether a mount is a container engine's socket, or a directory that is known to hold one."""
    source = mount.source.rstrip("/")
    return mount.kind == "bind" and (source.endswith(DOCKER_SOCKETS) or source in SOCKET_FOLDERS)


def _docker_socket(facts: ContainerFacts, _first: Facts, _rule: Rule) -> tuple[str, ...]:
    return tuple(f"{one.source} at {one.target}" for one in facts.mounts if is_socket(one)) if facts.mounts else ()


def _host_mount(facts: ContainerFacts, _first: Facts, rule: AllowingRule) -> tuple[str, ...]:
    if not facts.mounts:
        return ()
    bound = {
        one.source: one
        for one in facts.mounts
        if one.kind == "bind" and not one.source.endswith(DOCKER_SOCKETS)  # the directory of one holds more
    }
    return tuple(
        f"{source} at {bound[source].target}, {'read-write' if bound[source].writable else 'read-only'}"
        for source in rule.without_allowed(bound)
    )


def _added_capabilities(facts: ContainerFacts, _first: Facts, rule: AllowingRule) -> tuple[str, ...]:
    return rule.without_allowed(facts.capabilities) if facts.capabilities else ()


def _writable_root(facts: ContainerFacts, _first: Facts, _rule: Rule) -> tuple[str, ...]:
    return ("--read-only is not set",) if facts.writable_root else ()


def _no_limits(facts: ContainerFacts, _first: Facts, rule: AllowingRule) -> tuple[str, ...]:
    if facts.memory_bytes and facts.cpus and facts.pids:
        return ()
    given = (("memory", facts.memory_bytes), ("cpus", facts.cpus), ("pids", facts.pids))
    return tuple(f"no limit of {name}" for name in rule.without_allowed(name for name, most in given if not most))


def _new_privileges(facts: ContainerFacts, _first: Facts, _rule: Rule) -> tuple[str, ...]:
    return () if facts.no_new_privileges else ("no-new-privileges is not set",)


def _host_namespaces(facts: ContainerFacts, _first: Facts, rule: AllowingRule) -> tuple[str, ...]:
    return rule.without_allowed(facts.host_namespaces) if facts.host_namespaces else ()


def _daemon_defaults(facts: ContainerFacts, _first: Facts, _rule: Rule) -> tuple[str, ...]:
    return facts.daemon


def _changed_files(facts: ContainerFacts, _first: Facts, rule: AllowingRule) -> tuple[str, ...]:
    if not facts.changed:
        return ()
    by_path = {line.partition(" ")[2]: line for line in facts.changed}
    return tuple(by_path[path] for path in rule.without_allowed(by_path))


def _foreign_processes(facts: ContainerFacts, _first: Facts, rule: AllowingRule) -> tuple[str, ...]:
    return rule.without_allowed(facts.processes) if facts.processes else ()


# -- instances ---------------------------------------------------------------------------------------------------------


def _imdsv1(facts: InstanceFacts, _first: Facts, _rule: Rule) -> tuple[str, ...]:
    if facts.tokens == "required" or facts.endpoint == "disabled":
        return ()
    return (f"HttpTokens {facts.tokens}, hop limit {facts.hop_limit}",)


def _unencrypted_volume(facts: InstanceFacts, _first: Facts, _rule: Rule) -> tuple[str, ...]:
    return tuple(f"{one.id} at {one.device}" for one in facts.volumes if not one.encrypted)


def _public_address(facts: InstanceFacts, _first: Facts, _rule: Rule) -> tuple[str, ...]:
    return (facts.public_address,) if facts.public_address else ()


def open_to_all(lets_in: str) -> bool:
    """Whether a line of a group lets in everybody: all addresses, or a range wider than any one owner has."""
    return is_everybody(lets_in.rpartition(" from ")[2])


def _open_group(facts: InstanceFacts, _first: Facts, rule: AllowingRule) -> tuple[str, ...]:
    found = list[str]()
    for group in facts.groups:
        wide = {line: line.partition(" from ")[0] for line in group.lets_in if open_to_all(line)}
        bad = set(rule.without_allowed(wide.values())) if wide else ()
        found += [f"{group.id} ({group.name}) lets in {line}" for line, port in wide.items() if port in bad]
    return tuple(found)


def _template_drift(facts: InstanceFacts, _first: Facts, rule: AllowingRule) -> tuple[str, ...]:
    return tuple(f"{line} ({facts.template})" for line in rule.without_allowed(facts.differs)) if facts.differs else ()


# -- both --------------------------------------------------------------------------------------------------------------

SETTINGS = {
    "container": ("memory_bytes", "cpus", "pids", "networks"),
    "instance": ("type", "profile", "tokens", "hop_limit"),
}
"""What may be changed of a thing that runs, and stays as it was at the first run unless somebody did."""


def _changed_settings(facts: Facts, first: Facts | None, rule: AllowingRule) -> tuple[str, ...]:
    if first is None or first is facts or first.kind != facts.kind:
        return ()
    found = tuple(_changes(facts, first))
    return rule.without_allowed(found) if found else ()


def _changes(facts: Facts, first: Facts) -> Iterator[str]:
    """What is otherwise than at first, a line for each thing."""
    for name in SETTINGS[facts.kind]:
        old, new = getattr(first, name), getattr(facts, name)
        if old != new:
            yield f"{name.removesuffix('_bytes')} {_value(old)} → {_value(new)}"
    if isinstance(facts, InstanceFacts) and isinstance(first, InstanceFacts) and not _unread_groups(facts, first):
        known = {group.id: group for group in first.groups}
        for group in facts.groups:
            called = f"security group {group.id} ({group.name})"
            if group.id not in known:
                yield f"{called} was added"
                continue
            for line in sorted({*group.lets_in} - {*known[group.id].lets_in}):
                yield f"{called} was opened: it lets in {line}"
        gone = known.keys() - {group.id for group in facts.groups}
        yield from (f"security group {name} ({known[name].name}) was taken off" for name in sorted(gone))


def _unread_groups(*facts: InstanceFacts) -> bool:
    return any(rule == "open_group" for one in facts for rule, _ in one.unread)


def _value(value: object) -> str:
    return (", ".join(value) if isinstance(value, tuple) else str(value or "none")) or "none"


MENDED_BY_ROLL = (Repair.ROLL, Repair.WAIVE)
ADD_MOUNTS = "mount a volume or tmpfs where it writes"
CONTAINER_RULES = (
    RuntimeRule(
        "root_user", "container", "it runs as root",
        "an attacker in it is root in the container, and one kernel vulnerability away from root on the host",
        "files that only root may use need another owner, and ports must be above 1023",
        "set a user in the image (USER), or with --user", _root_user,
    ),
    RuntimeRule(
        "privileged", "container", "it is privileged",
        "a privileged container has every device and capability of the host, so it controls the host",
        "the devices and capabilities that it needs must be found and listed",
        "start it without --privileged, with --device and --cap-add for what it needs", _privileged,
    ),
    RuntimeRule(
        "docker_socket", "container", "it has the engine's socket",
        "a process that can use the engine can start a privileged container, and so become root on the host",
        "tools that watch or start containers need a proxy that allows only their requests",
        "remove the socket, or put a proxy in front of it that allows only the requests that it needs", _docker_socket,
    ),
    RuntimeRule(
        "host_mount", "container", "it has directories of the host",
        "a bind mount outlives the container, and both the host and the container can change its files",
        "its data must be moved into a volume once",
        "use a named volume, or list the path under `allowed`", _host_mount,
    ),
    RuntimeRule(
        "added_capabilities", "container", "it has capabilities beyond the engine's",
        "each capability is a part of root's rights",
        "some programs must be configured not to use the missing capabilities",
        "remove --cap-add, or list the capabilities that it needs under `allowed`", _added_capabilities,
    ),
    RuntimeRule(
        "writable_root", "container", "its root filesystem is writable",
        "files that an attacker writes stay until the next rollout, and look like a part of the image",
        "each path that it writes to must be a volume or tmpfs",
        f"start it with --read-only, and {ADD_MOUNTS}", _writable_root,
    ),
    RuntimeRule(
        "no_limits", "container", "it has no limits",
        "one memory leak or fork bomb takes down the host and every container on it",
        "a limit that is too low kills the container: measure first",
        "start it with --memory and --pids-limit (and --cpus)", _no_limits,
    ),
    RuntimeRule(
        "new_privileges", "container", "its processes may gain privileges",
        "a setuid file in the image, or one that was written there later, makes any user root",
        "sudo, su and ping with setuid no longer work inside",
        "start it with --security-opt no-new-privileges, or set that in the engine's daemon.json", _new_privileges,
    ),
    RuntimeRule(
        "host_namespaces", "container", "it shares namespaces with the host",
        "it sees what belongs to the host (processes, network), and may signal, read or use it",
        "ports must be published one by one; tools that monitor the host need a waiver",
        "start it without --network, --pid, --ipc, --uts, --userns or --cgroupns host", _host_namespaces,
    ),
    RuntimeRule(
        "daemon_defaults", "container", "its engine's settings are weak",
        "weak defaults apply to every container on the engine",
        "the engine restarts once, which stops containers unless live-restore is on",
        "change the engine's daemon.json, and restart it", _daemon_defaults, actor=Actor.HOST,
    ),
    RuntimeRule(
        "changed_files", "container", "its files differ from its image's",
        "changed files were never reviewed, scanned or signed, and the next rollout loses them",
        f"files that an application writes by design must be declared: {ADD_MOUNTS}, or list the path under `allowed`",
        "find out who changed it, and replace it: a new container has only its image's files",
        _changed_files, MENDED_BY_ROLL,
    ),
    RuntimeRule(
        "foreign_processes", "container", "processes run in it that were brought in from outside",
        "a process that was started by hand is not in the image, and not in the application's log",
        "debugging in a container needs a waiver, or a replacement afterwards",
        "find out who started it, and replace it: a new container runs only its image's process",
        _foreign_processes, MENDED_BY_ROLL,
    ),
    RuntimeRule(
        "changed_settings", "container", "it is set otherwise than when it was first seen",
        "a manual change is lost at the next start, and no other member has it",
        "changes must be made in the container's definition",
        "make the change in its definition, or undo it", _changed_settings,
    ),
)  # fmt: skip
INSTANCE_RULES = (
    RuntimeRule(
        "imdsv1", "instance", "its metadata can be read without a token",
        "with IMDSv1, one request that an attacker tricks a program into making reveals the instance's credentials",
        "programs with SDKs from before 2020 must be updated first",
        "aws ec2 modify-instance-metadata-options --http-tokens required; and in its template", _imdsv1,
    ),
    RuntimeRule(
        "unencrypted_volume", "instance", "it has volumes in the clear",
        "anyone with whom a snapshot is shared by mistake can read it",
        "the volume must be copied once, with the instance stopped for a data volume",
        "turn on encryption by default in the region, and replace the volume", _unencrypted_volume,
    ),
    RuntimeRule(
        "public_address", "instance", "it has a public address",
        "the internet scans a public address within minutes of its start",
        "it needs a load balancer, or another way for people to reach it",
        "remove the address, and reach it through a load balancer or Session Manager", _public_address,
    ),
    RuntimeRule(
        "open_group", "instance", "its security group lets in everybody",
        "everybody on the internet can reach its ports",
        "the addresses that need access must be known and kept up to date",
        "list the addresses that need access, or the port under `allowed` if everybody needs it", _open_group,
    ),
    RuntimeRule(
        "template_drift", "instance", "it differs from the template that it was launched from",
        "the next instance from the same template will differ from it",
        "changes must be made in the template",
        "make the change in the template, or undo it", _template_drift,
    ),
    RuntimeRule(
        "changed_settings", "instance", "it is set otherwise than when it was first seen",
        "a manual change, such as an opened port, stays and was never reviewed",
        "changes must be made in the instance's definition",
        "find out who changed it; make the change in its definition, or undo it", _changed_settings,
    ),
)  # fmt: skip
RULES: dict[Kind, tuple[RuntimeRule, ...]] = {"container": CONTAINER_RULES, "instance": INSTANCE_RULES}
NAMES = frozenset(rule.name for rules in RULES.values() for rule in rules)
_OF_ITS_LIFE = {"changed_files", "foreign_processes", "changed_settings"}
STARTED_WITH = frozenset(one.name for one in CONTAINER_RULES if one.actor is not Actor.HOST) - _OF_ITS_LIFE
"""The rules about what a container is started with: a new one made like it breaks them as it does."""


def first_broken(
    rule: RuntimeRule, asked: Rule, history: Sequence[tuple[datetime, Facts]], first: Facts | None
) -> tuple[datetime | None, bool]:
    """Since which snapshot, up to the newest, the rule is broken; and whether it was so in all of them.

    One in which it could not be judged, and nothing was found, says neither.
    """
    since = None
    for at, facts in reversed(history):
        if facts.kind != rule.kind:
            return since, False
        if rule.find(facts, first, asked):
            since = at
        elif not _unjudged(rule, facts):
            return since, False
    return since, rule.find is not _changed_settings  # the first look itself is what nothing had changed in


def _unjudged(rule: RuntimeRule, facts: Facts) -> bool:
    """Whether a snapshot leaves open if the rule was broken; a change of groups is seen where these were read."""
    unread = {name for name, _ in facts.unread}
    return rule.name in unread or (rule.find is _changed_settings and "open_group" in unread)
