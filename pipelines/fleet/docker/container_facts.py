"""How a container runs, by what its engine shows of it: settings, files that changed, processes from outside. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hardening.policy import WRITTEN_BY_DESIGN
from hardening.runtime import ContainerFacts, Mount, secrets_in
from pipelines.fleet.docker import container_spec
from pipelines.fleet.docker.container_spec import Json

ENGINES_OWN = (
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/.dockerenv",
    "/run/.containerenv",
    "/sbin/docker-init",
)
ENGINES_TREES = ("/dev", "/proc", "/sys")
LOOPBACK = ("127.0.0.0/8", "::1/128")
KINDS = {0: "changed", 1: "added", 2: "removed"}
HERE = (0, 1)
MOST_CHANGES, MOST_PROCESSES, MOST_PORTS, MOST_DEVICES, LONGEST = 500, 50, 100, 50, 300
BINDS = {"bind", "rbind"}
API_OPEN = "API is accessible"
NAMESPACES = {"network": "NetworkMode", "pid": "PidMode", "ipc": "IpcMode", "uts": "UTSMode"}
PS = "-eo pid,ppid,user,args"


@dataclass(frozen=True)
class ContainerProcess:
    """A process of a container, by the engine's host's numbers."""

    pid: str
    parent: str
    user: str
    arguments: str


@dataclass(frozen=True)
class Look:
    """What an engine answered about one container: as `inspect` shows it, and what differs from its image.

    `foreign` are the processes that were started in it from outside, checks left out. `changes` and `foreign` are None
    where the engine did not tell, and `why` says why not, by rule. `lender` is the container whose network it shares,
    `beside` the one whose process namespace.
    """

    container: Json
    image_config: Json
    changes: Sequence[Json] | None
    foreign: Sequence[ContainerProcess] | None
    why: Mapping[str, str]
    lender: Json | None = None
    beside: Json | None = None


def facts_of(look: Look, daemon: EngineSettings) -> ContainerFacts:
    """How the container runs."""
    container, config, host = look.container, look.container["Config"], look.container["HostConfig"]
    mounts = tuple(sorted(_mounts(container, daemon.bound or {}), key=lambda one: one.target))
    lender = look.lender or container
    changed, processes = _changed(look.changes or (), mounts), _told(look.foreign or ())
    unread = {**look.why, **_cut(changed, processes)}
    if daemon.bound is None and any(one.kind == "volume" for one in mounts):
        unread["host_mount"] = "the engine does not tell which of its volumes are directories of the host"
    return ContainerFacts(
        image=str(container["Image"]),
        user=str(config.get("User") or ""),
        image_user=str(look.image_config.get("User") or ""),
        launched=datetime.fromisoformat(container["Created"][:19] + "+00:00"),
        privileged=bool(host.get("Privileged")),
        mounts=mounts,
        capabilities=tuple(sorted(one.upper().removeprefix("CAP_") for one in host.get("CapAdd") or ())),
        writable_root=not host.get("ReadonlyRootfs"),
        memory_bytes=int(host.get("Memory") or 0),
        cpus=_cpus(host),
        pids=max(0, int(host.get("PidsLimit") or 0)),
        no_new_privileges=_no_new_privileges(host, daemon),
        host_namespaces=tuple(_host_namespaces(host, daemon, lender)),
        networks=tuple(sorted(map(str, container["NetworkSettings"].get("Networks") or ()))),
        daemon=tuple(daemon.weaknesses(container)),
        changed=tuple(_kept(changed)),
        processes=tuple(processes[:MOST_PROCESSES]),
        published=tuple(sorted(set(_published(lender)))[:MOST_PORTS]),
        secrets=secrets_in(str(one).partition("=")[0] for one in config.get("Env") or ()),
        devices=tuple(sorted(set(_devices(host)))[:MOST_DEVICES]),
        beside=(container_spec.name(look.beside),) if look.beside else (),
        borrowed=tuple(sorted(map(str, lender["NetworkSettings"].get("Networks") or ()))) if look.lender else (),
        unread=tuple(sorted(unread.items())),
    )


@dataclass(frozen=True)
class EngineSettings:
    """The engine's own settings: what `docker info` says, and whether containers of its first network may talk.

    `bound`: by the names of volumes that are a directory of the host, that directory; None where it does not list them.
    """

    info: Json
    talk_on_bridge: bool = False
    bound: Mapping[str, str] | None = field(default_factory=dict)

    @property
    def options(self) -> list[str]:
        """The security options, such as `name=seccomp,profile=builtin`."""
        return list(self.info.get("SecurityOptions") or ())

    def has(self, name: str) -> bool:
        """Whether a security option is on."""
        return any(one.split(",")[0] == f"name={name}" for one in self.options)

    def weaknesses(self, container: Json) -> list[str]:
        """What of the engine's settings weakens a container."""
        found = [one for one in self.info.get("Warnings") or () if API_OPEN in one]
        if any("name=seccomp" in one and "unconfined" in one for one in self.options) or not self.has("seccomp"):
            found.append("system calls are not filtered (seccomp)")
        registry = self.info.get("RegistryConfig") or {}
        insecure = [one for one in registry.get("InsecureRegistryCIDRs") or () if one not in LOOPBACK]
        names = (registry.get("IndexConfigs") or {}).items()
        insecure += [name for name, one in names if not one.get("Secure", True) and not _local(name)]
        if insecure:
            found.append(f"registries without TLS: {', '.join(sorted(insecure))}")
        networks = container["NetworkSettings"].get("Networks") or {}
        if self.talk_on_bridge and "bridge" in networks and container["HostConfig"].get("NetworkMode") != "host":
            found.append("it is on the default network, where every container may talk to every other (icc)")
        logs = container["HostConfig"].get("LogConfig") or {}
        if logs.get("Type") == "json-file" and not (logs.get("Config") or {}).get("max-size"):
            found.append("its log grows without limit (log-driver json-file without max-size)")
        return [one[:LONGEST] for one in found]


def _local(name: str) -> bool:
    return name.partition(":")[0] in ("localhost", "127.0.0.1", "::1") or name.startswith("[::1]")


def bound_volumes(volumes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The volumes that are a directory of the host, by their names: the local driver binds what its options name."""
    found = dict[str, str]()
    for one in volumes:
        options = one.get("Options") or {}
        if BINDS & {*str(options.get("o", "")).split(",")} and str(options.get("device", "")).startswith("/"):
            found[str(one["Name"])] = str(options["device"])
    return found


def _mounts(container: Json, bound: Mapping[str, str]) -> Iterable[Mount]:
    for one in container.get("Mounts") or ():
        source = str(one.get("Name") or one.get("Source") or "")
        kind, source = ("bind", bound[source]) if source in bound else (str(one["Type"]), source)
        yield Mount(kind, source, str(one["Destination"]), bool(one["RW"]))
    for target in container["HostConfig"].get("Tmpfs") or ():
        yield Mount("tmpfs", "", str(target), writable=True)


def _published(container: Json) -> Iterable[str]:
    """The ports of the host that lead to it: those that are bound, which may be others than were asked for."""
    for port, places in (container["NetworkSettings"].get("Ports") or {}).items():
        for one in places or ():
            yield f"{one.get('HostIp') or '0.0.0.0'}:{one['HostPort']} to {port}"  # noqa: S104 - what an empty one means


def _devices(host: Json) -> Iterable[str]:
    """The host's devices that it was given, and the rules by which it may make more."""
    for one in host.get("Devices") or ():
        yield f"{one['PathOnHost']} {one.get('CgroupPermissions') or 'rwm'}"[:LONGEST]
    yield from (str(rule)[:LONGEST] for rule in host.get("DeviceCgroupRules") or ())


def _cpus(host: Json) -> float:
    if nano := host.get("NanoCpus"):
        return float(nano) / 1e9
    quota, period = host.get("CpuQuota") or 0, host.get("CpuPeriod") or 100_000
    return float(quota) / period if quota > 0 else 0.0


def _no_new_privileges(host: Json, daemon: EngineSettings) -> bool:
    """Whether it was asked for, or the engine sets it for all and it was not taken back."""
    said = [one.replace("=", ":") for one in host.get("SecurityOpt") or () if one.startswith("no-new-privileges")]
    return said[-1] != "no-new-privileges:false" if said else daemon.has("no-new-privileges")


def _host_namespaces(host: Json, daemon: EngineSettings, lender: Json) -> Iterable[str]:
    """The user namespace is the host's for all where the engine maps no users; the cgroups' where it has version 1.

    Whoever shares the network of a container that has the host's has that.
    """
    of_host = {**host, "NetworkMode": lender["HostConfig"].get("NetworkMode")}
    yield from (name for name, key in NAMESPACES.items() if of_host.get(key) == "host")
    if host.get("UsernsMode") == "host" and daemon.has("userns"):
        yield "user"
    if host.get("CgroupnsMode") == "host" and str(daemon.info.get("CgroupVersion")) == "2":
        yield "cgroup"


def _changed(changes: Sequence[Json], mounts: Sequence[Mount]) -> list[str]:
    """The files that differ, without what the engine itself writes, directories of what is told, and what is mounted.

    By name, those that are written by design last.
    """
    targets = [mount.target.rstrip("/") for mount in mounts]
    kinds = {str(one["Path"]): one["Kind"] for one in changes}
    parents = {parent for path in (*kinds, *targets, *ENGINES_OWN, *ENGINES_TREES) for parent in _above(path)}
    found = [
        f"{KINDS.get(kind, 'changed')} {path[:LONGEST]}"
        for path, kind in sorted(kinds.items())
        if not (kind in HERE and path in parents) and not _mounted(path, targets) and not _engines(path)
    ]  # fmt: skip
    return sorted(found, key=lambda line: bool(_by_design(line)))


def _by_design(line: str) -> str:
    """The directory of what is written by design that a changed file is in; empty where it is in none."""
    path = line.partition(" ")[2]
    trees = (glob.removesuffix("*") for glob in WRITTEN_BY_DESIGN)
    return next((tree for tree in trees if path.startswith(tree)), "")


def _kept(changed: Sequence[str]) -> Iterable[str]:
    """The first MOST_CHANGES of the changed files. The rest of what is written by design is a line for each directory:
    a policy that allows only a part of that directory does not allow this line.
    """
    yield from changed[:MOST_CHANGES]
    trees = {tree for line in changed[MOST_CHANGES:] if (tree := _by_design(line))}
    yield from (f"changed {tree}… (and more)" for tree in sorted(trees))


def _cut(changed: Sequence[str], processes: Sequence[str]) -> dict[str, str]:
    """By rule, what was found and is not kept, and so is not judged."""
    why = dict[str, str]()
    if changed[MOST_CHANGES:] and not _by_design(changed[MOST_CHANGES]):
        why["changed_files"] = f"{len(changed)} files differ, {MOST_CHANGES} are kept"
    if processes[MOST_PROCESSES:]:
        why["foreign_processes"] = f"{len(processes)} were brought in, {MOST_PROCESSES} are kept"
    return why


def _above(path: str) -> Iterable[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _mounted(path: str, targets: Sequence[str]) -> bool:
    return any(path == target or path.startswith(f"{target}/") for target in targets)


def _engines(path: str) -> bool:
    return path in ENGINES_OWN or _mounted(path, ENGINES_TREES)


def foreign(processes: Sequence[ContainerProcess], container: Json) -> list[ContainerProcess]:
    """Those that were started in it from outside: their parent is none of its processes, and none is its first."""
    inside = {one.pid for one in processes}
    first = str((container.get("State") or {}).get("Pid") or "")
    return [one for one in processes if one.pid != first and one.parent not in inside]


def _told(processes: Sequence[ContainerProcess]) -> list[str]:
    """The programs and their users. Arguments, which may be secrets, are not told."""
    return sorted({f"{_program(one.arguments)} as {one.user}"[:LONGEST] for one in processes})


def _program(args: str) -> str:
    """The program of a command line, with `…` where it has arguments."""
    head, _, more = args.strip().partition(" ")
    return f"{head} …" if more else head


def health_check(container: Json) -> tuple[str, ...]:
    """The words that the engine executes in the container as its own health check; none where it has none."""
    kind, *words = (container["Config"].get("Healthcheck") or {}).get("Test") or ("NONE",)
    shell = container["Config"].get("Shell") or ("/bin/sh", "-c")
    return tuple({"CMD": words, "CMD-SHELL": [*shell, *words]}.get(kind, ()))


def processes_of(top: Mapping[str, Any]) -> list[ContainerProcess]:
    """The processes that `docker top` shows when it is asked by PS. Raises one of NOT_UNDERSTOOD for another answer: a
    process that is left out would be none that was brought in.
    """
    return [ContainerProcess(*map(str, row)) for row in top["Processes"]]
