"""A container's specification: read from its `inspect`, transferred to the next one, compared after. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pipelines.fleet.members import EXPIRY, KEPT, KEPT_LABELS, MEMBER, ROLLOUT, is_shared, lender, repository
from pipelines.fleet.members import shown_value as _shown

Json = dict[str, Any]
CONFIG_KEYS = ("User", "WorkingDir", "StopSignal", "StopTimeout", "Domainname", "Tty", "OpenStdin", "StdinOnce")
_COMPOSE = "com.docker.compose."
COMPOSE_PROJECT, COMPOSE_SERVICE, _IMAGE = (_COMPOSE + word for word in ("project", "service", "image"))
COMPOSE_FILES = f"{_COMPOSE}project.config_files"
_COMPOSE_OWN = (_IMAGE, f"{_COMPOSE}replace")
# Labels that say what one container is, not what a person wants of it: the next container gets its own.
OF_ONE_CONTAINER = (ROLLOUT, MEMBER, EXPIRY, KEPT, KEPT_LABELS, *_COMPOSE_OWN)


def explicit(container: Json, image: Json) -> Json:
    """The configuration keys that differ from the image's defaults; the health check with the fields that do."""
    defaults = image.get("Config") or {}
    config = container["Config"]
    found = _changed(config, defaults, CONFIG_KEYS)
    found |= {"StopTimeout": 0} if config.get("StopTimeout") == 0 else {}  # no time is a time, too
    check, own = config.get("Healthcheck") or {}, defaults.get("Healthcheck") or {}
    changed = _changed(check, own, check)
    return {**found, "Healthcheck": changed} if changed else found


def _changed(values: Json, defaults: Json, keys: Iterable[str]) -> Json:
    return {key: values[key] for key in keys if values.get(key) and values[key] != defaults.get(key)}


def env(container: Json, defaults: Json) -> list[str]:
    """The environment that was given beyond the image's."""
    known = set(defaults.get("Env") or [])
    return [entry for entry in container["Config"].get("Env") or [] if entry not in known]


def labels_of(container: Json) -> dict[str, str]:
    """All labels of a container."""
    return container["Config"].get("Labels") or {}


def own_labels(container: Json, defaults: Json) -> dict[str, str]:
    """The labels that were given beyond the image's, without those of earlier rollouts."""
    known = defaults.get("Labels") or {}
    given = labels_of(container).items()
    return {key: value for key, value in given if known.get(key) != value and key not in OF_ONE_CONTAINER}


def command(container: Json, defaults: Json) -> Json:
    """Entrypoint and command where they were given. An entrypoint of one's own drops the image's command with it."""
    config = container["Config"]
    dropped = defaults.get("Cmd") and not config.get("Cmd")
    if dropped or config.get("Entrypoint") != defaults.get("Entrypoint"):
        return {"Entrypoint": config.get("Entrypoint") or [""], "Cmd": config.get("Cmd")}
    return {"Cmd": config["Cmd"]} if config.get("Cmd") and config["Cmd"] != defaults.get("Cmd") else {}


def subtract(given: Mapping[str, Any] | None, defaults: Mapping[str, Any] | None) -> Json:
    """The entries that the defaults do not have."""
    return {key: value for key, value in (given or {}).items() if key not in (defaults or {})}


RUNNING = ("running", "restarting", "paused")
BUILT_IN_NETWORKS = ("bridge", "host", "none", "default")
# What the engine writes into HostConfig by itself, and what `mounts` compares better.
HOST_KEYS_ASIDE = ("Binds", "Mounts", "VolumesFrom", "ContainerIDFile", "ConsoleSize", "NetworkMode", "Links")


def creation(container: Json, image: Json, reference: str, labels: Mapping[str, str]) -> Json:
    """The body of the request that creates the same container from another image; networks are not in it.

    `container` and `image` are the present ones as the engine's API shows them.
    """
    defaults = image.get("Config") or {}
    return {
        **explicit(container, image),
        "Image": reference,
        "Hostname": hostname(container),
        "Env": env(container, defaults),
        "Labels": {**own_labels(container, defaults), **labels},
        **command(container, defaults),
        "ExposedPorts": subtract(container["Config"].get("ExposedPorts"), defaults.get("ExposedPorts")),
        "HostConfig": host_config(container),
    }


MOST_EXITS = 3  # a container that the engine has started so often again is not waiting for something to come up
REHEARSED_EACH = 1_000_000_000  # nanoseconds: how often the health check is asked in a rehearsal


def rehearsal(body: Json, labels: Mapping[str, str]) -> Json:
    """The body of a container that can stand beside the one that `creation` describes, and that nobody finds.

    It has neither ports, addresses nor names of its own, and no label but `labels`; where the other writes into
    volumes, it writes into memory, and what is bound from the host it can only read. The engine starts it again
    MOST_EXITS times, and not after a restart of its own.
    """
    host = body["HostConfig"]
    mounts = host.get("Mounts") or []
    volumes = [mount["Target"] for mount in mounts if mount["Type"] == "volume" and not mount.get("ReadOnly")]
    binds = [bind.split(":") for bind in host.get("Binds") or [] if ":" in bind]
    volumes += [target for source, target, *more in binds if not source.startswith("/") and not _reads(more)]
    kept = [":".join(bind) for bind in binds if bind[0].startswith("/") or _reads(bind[2:])]
    return {
        **{key: value for key, value in body.items() if key not in ("MacAddress", "Hostname", "Domainname")},
        "Labels": dict(labels),
        "Healthcheck": {**(body.get("Healthcheck") or {}), "Interval": REHEARSED_EACH},
        "HostConfig": {
            **host,
            "Binds": [bind if _reads(bind.split(":")[2:]) else _read_only(bind) for bind in kept],
            "Mounts": [
                {**mount, "ReadOnly": True} if mount["Type"] == "bind" else mount
                for mount in mounts
                if mount.get("Target") not in volumes
            ],
            "Tmpfs": {**(host.get("Tmpfs") or {}), **dict.fromkeys(volumes, "mode=1777")},
            "PortBindings": {},
            "PublishAllPorts": False,
            "VolumesFrom": [],
            "RestartPolicy": _few_restarts(host),
            "NetworkMode": "bridge" if is_shared(host.get("NetworkMode")) else host.get("NetworkMode"),
        },
    }


def _few_restarts(host: Json) -> Json:
    if (host.get("RestartPolicy") or {}).get("Name") in (None, "", "no"):
        return {"Name": "no"}
    return {"Name": "on-failure", "MaximumRetryCount": MOST_EXITS}


def _reads(options: list[str]) -> bool:
    return "ro" in ",".join(options).split(",")


def _read_only(bind: str) -> str:
    source, target, *options = bind.split(":")
    kept = [option for option in ",".join(options).split(",") if option not in ("", "rw")]
    return f"{source}:{target}:{','.join([*kept, 'ro'])}"


def digests(container: Json, image: Json) -> tuple[str, ...]:
    """Every digest that the image is known by: its id, and what registries call it."""
    repo = [str(reference).partition("@")[2] for reference in image.get("RepoDigests") or []]
    return tuple(dict.fromkeys([str(container["Image"]), *repo]))


def exact(container: Json, image: Json) -> str:
    """The reference by digest that makes the same container again: its own, its repository's, else the engine's id."""
    named = str(container["Config"]["Image"])
    if "@" in named:
        return named
    own = repository(named)
    known = (str(one) for one in image.get("RepoDigests") or [])
    return next((one for one in known if one.partition("@")[0] == own), str(container["Image"]))


def hostname(container: Json) -> str:
    """The host name that was given; the engine's own choice, the short id, is no choice of anyone's."""
    given: str = container["Config"].get("Hostname") or ""
    return "" if is_shared(container["HostConfig"].get("NetworkMode")) or given == short_id(container) else given


def host_config(container: Json) -> Json:
    """The host's side of the container, whole; volumes without a name are carried by the name the engine gave them, and
    so is what came from another container (--volumes-from), which may have been replaced since.
    """
    host: Json = deepcopy(container["HostConfig"])
    host.pop("ContainerIDFile", None)
    host["Mounts"] = [mount for mount in host.get("Mounts") or [] if mount["Type"] != "volume" or mount.get("Source")]
    binds = host.get("Binds") or []
    targets = {bind.split(":")[1] for bind in binds if ":" in bind}  # without one it is a volume without a name
    named = targets | {mount["Target"] for mount in host["Mounts"]}
    kinds = ("volume", "bind") if host.pop("VolumesFrom", None) else ("volume",)
    mounts = (mount for mount in container.get("Mounts") or [] if mount["Type"] in kinds)
    host["Binds"] = [*binds, *(_as_bind(mount) for mount in mounts if mount["Destination"] not in named)]
    return host


def _as_bind(mount: Json) -> str:
    """A mount as the engine is asked for it; rprivate is what it has by itself."""
    options = ("" if mount["RW"] else "ro", (mount.get("Propagation") or "").replace("rprivate", ""))
    words = (mount.get("Name") or mount["Source"], mount["Destination"], ",".join(filter(None, options)))
    return ":".join(filter(None, words))


def at_rest(container: Json) -> str:
    """The restart policy, as near to the container's own as there is, by which the engine leaves it stopped.

    Its own comes back from the new container, and that one may be gone by then.
    """
    policy = container["HostConfig"]["RestartPolicy"]["Name"]
    return "unless-stopped" if policy in ("always", "unless-stopped") else "no"


def stop_timeout(container: Json, drain: timedelta, longest: timedelta) -> int:
    """How many seconds a container has to end: `drain`, or its own time where that is longer; -1 there means for ever,
    which is no longer than `longest`.
    """
    own = container["Config"].get("StopTimeout") or 0
    return max(1, int(drain.total_seconds()), int(longest.total_seconds()) if own < 0 else own)


def endpoints(container: Json, *, full: bool) -> dict[str, Json]:
    """How the new container joins each network. Not `full`: without the names and addresses of the old one.

    The member's own name is an alias too: it is never without an answer while the names change hands.
    """
    found = networks(container)
    return {network: _endpoint(container, network, one) if full else _gateway(one) for network, one in found.items()}


def _gateway(endpoint: Json) -> Json:
    """Which of its networks has the default gateway, as Docker 28 and later let people say."""
    return {"GwPriority": endpoint["GwPriority"]} if endpoint.get("GwPriority") else {}


def _endpoint(container: Json, network: str, endpoint: Json) -> Json:
    asked = {"MacAddress": mac(container)} if mac(container) and network == next(iter(networks(container))) else {}
    if network in BUILT_IN_NETWORKS:
        return asked | _gateway(endpoint)
    return _gateway(endpoint) | {
        **asked,
        "Aliases": sorted({*aliases(container, endpoint), name(container)}),
        "IPAMConfig": endpoint.get("IPAMConfig") or {},
        "Links": endpoint.get("Links"),
        "DriverOpts": endpoint.get("DriverOpts"),
    }


def networks(container: Json) -> dict[str, Json]:
    """The networks that a container joins by itself, with its endpoint in each; the primary one first."""
    mode: str = container["HostConfig"].get("NetworkMode") or "default"
    if mode == "none" or is_shared(mode):
        return {}
    found: dict[str, Json] = container["NetworkSettings"].get("Networks") or {}
    return dict(sorted(found.items(), key=lambda item: (item[0] != mode and item[1].get("NetworkID") != mode, item[0])))


def aliases(container: Json, endpoint: Json) -> set[str]:
    """The aliases that were given: neither the container's short id nor its name, which the engine adds by itself."""
    return {*(endpoint.get("Aliases") or ())} - {short_id(container), name(container)}


def short_id(container: Json) -> str:
    """What the engine calls a container that was given no host name: no shorter, for `db` may begin an id as well."""
    return str(container["Id"])[:12]


def name(container: Json) -> str:
    """The container's name, without the engine's slash."""
    return str(container["Name"]).lstrip("/")


def address(endpoint: Json) -> str:
    """The static address that was asked for; empty when the engine chose."""
    asked = endpoint.get("IPAMConfig") or {}
    return asked.get("IPv4Address") or asked.get("IPv6Address") or ""


def mac(container: Json) -> str:
    """The MAC address that was asked for, of the primary network; empty when the engine chose."""
    return container["Config"].get("MacAddress") or ""


def differences(old: Json, old_image: Json, new: Json, new_image: Json, name_: str) -> tuple[str, ...]:
    """What differs between two containers beyond their images, as `what: old → new` lines; `name_` is the member's."""
    before, after = _flat(old, old_image, name_), _flat(new, new_image, name_)
    whole = _flat(new, {}, name_)
    lost = [key for key, value in before.items() if whole.get(key) != value]
    added = [key for key in after if key not in before]
    return tuple(_told(key, before.get(key), whole.get(key)) for key in sorted({*lost, *added}))


def _told(key: str, old: Any, new: Any) -> str:
    """One difference; the values of environment variables, which may be secrets, are not told."""
    if key.startswith("env "):
        old, new = old and "set", new and ("set" if old is None else "another value")
    return f"{key}: {_shown(old)} → {_shown(new)}"


def _flat(container: Json, image: Json, name_: str) -> dict[str, Any]:
    defaults = image.get("Config") or {}
    given = explicit(container, image)
    found: dict[str, Any] = {f"health {key}": value for key, value in given.pop("Healthcheck", {}).items()}
    found |= {f"config {key}": value for key, value in given.items()}
    found |= {"hostname": hostname(container), "mac address": mac(container), "links": links(container)}
    found |= {f"env {key}": value for key, _, value in (e.partition("=") for e in env(container, defaults))}
    found |= {f"label {key}": value for key, value in own_labels(container, defaults).items()}
    found |= {f"command {key}": value for key, value in command(container, defaults).items() if value}
    found |= {f"host {k}": v for k, v in container["HostConfig"].items() if k not in HOST_KEYS_ASIDE and _given(v)}
    found |= {f"mount {mount['Destination']}": _mount(mount) for mount in container.get("Mounts") or []}
    for network, endpoint in networks(container).items():
        names = sorted(aliases(container, endpoint) - {name_})
        said = {"as": names, "address": address(endpoint), "links": endpoint.get("Links")}
        said["gateway priority"] = endpoint.get("GwPriority")
        found[f"network {network}"] = ", ".join(["joined", *(f"{k} {_shown(v)}" for k, v in said.items() if v)])
    return {key: value for key, value in found.items() if value}


def _given(value: Any) -> bool:
    """Whether a HostConfig value says anything: the engine writes nulls and empty lists in turn."""
    return value not in (None, "", 0, False, [], {})


def _mount(mount: Json) -> str:
    what = f"{mount['Type']} {mount.get('Name') or mount.get('Source') or ''}".rstrip()
    return f"{what}, {'read-write' if mount['RW'] else 'read-only'}"


def forced_in_place(container: Json, shared_mounts: Iterable[str]) -> tuple[str, ...]:
    """What of this container cannot exist twice at the same time."""
    host = container["HostConfig"]
    ports = [
        f"it publishes host port {binding['HostPort']} ({port})"
        for port, bindings in (host.get("PortBindings") or {}).items()
        for binding in bindings or []
        if binding.get("HostPort") not in (None, "", "0")
    ]
    addresses = [
        f"it has the static address {address(endpoint)} in network {network}"
        for network, endpoint in networks(container).items()
        if address(endpoint)
    ]
    mounts = [
        f"it writes to {mount.get('Name') or mount.get('Source')} at {mount['Destination']} (see limits.shared_mounts)"
        for mount in container.get("Mounts") or []
        if mount["RW"] and mount["Type"] in ("volume", "bind") and mount["Destination"] not in set(shared_mounts)
    ]
    macs = [f"it has the MAC address {mac(container)}"] if mac(container) else []
    mode = host.get("NetworkMode")
    whose = [f"it uses {'the host' if mode == 'host' else 'another container'}'s network"] if is_shared(mode) else []
    return (*ports, *addresses, *macs, *whose, *mounts)


def links(container: Json) -> list[str]:
    """What a container on the default network links to, as `target:alias`; the engine adds its own name to them."""
    return sorted(
        f"{target.lstrip('/')}:{alias.rpartition('/')[2]}"
        for target, _, alias in (link.partition(":") for link in container["HostConfig"].get("Links") or [])
    )


def cannot_roll(container: Json, others: Iterable[Json]) -> str:
    """Why this container cannot be replaced without loss; empty when it can. `others`: those that do not run, too."""
    if container["HostConfig"].get("AutoRemove"):
        return (
            "it was started with --rm: the engine would remove it as soon as it stops, so it could not be rolled back"
        )
    status = (container.get("State") or {}).get("Status", "running")
    if status == "paused":
        return "it is paused, and what it holds in memory would be lost: unpause it first"
    if status not in RUNNING:
        return f"it does not run ({status}): start it, or remove it"
    own = (container["Id"], name(container))
    for other in others:
        lenders = {lender(other["HostConfig"].get(key)) for key in ("NetworkMode", "IpcMode", "PidMode")} - {""}
        if not lenders.isdisjoint(own):
            return f"the container {name(other)} lives in its namespaces"
        if any(link.partition(":")[0] in own for link in links(other)):
            return f"the container {name(other)} links to it (--link), which holds for this one container alone"
    return ""


# -- Docker Compose: `up` recreates a container whose image label is not the id of the image that the file names now,
# and counts every container with a project's labels, stopped ones as well, as an instance of the service.
# Source: compose 2.26, pkg/compose/convergence.go (`mustRecreate`, `ensureService`).


def compose_image_label(labels: Mapping[str, str], image: str) -> dict[str, str]:
    """The labels by which the project knows the image that a container is made from; none outside of a project."""
    return {_IMAGE: image} if COMPOSE_PROJECT in labels else {}


def leave_project(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of a container that leaves its project, and with them those that it had there."""
    theirs = {key: value for key, value in labels.items() if key.startswith(_COMPOSE)}
    rest = {key: value for key, value in labels.items() if key not in theirs}
    return {**rest, KEPT_LABELS: json.dumps(theirs, sort_keys=True)}


def rejoin_project(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that `leave_project` was given."""
    rest = {key: value for key, value in labels.items() if key != KEPT_LABELS}
    return {**rest, **json.loads(labels.get(KEPT_LABELS, "{}"))}


def compose_service(labels: Mapping[str, str]) -> str:
    """The service that defines a container, as a person finds it; empty outside of a project."""
    if COMPOSE_PROJECT not in labels:
        return ""
    files = labels.get(COMPOSE_FILES)
    where = f"in {files}" if files else f"of the compose project {labels[COMPOSE_PROJECT]}"
    return f"the service {labels.get(COMPOSE_SERVICE, '?')} {where}"


# -- what another image changes in a container beside its files, and whether its user may write what the old one did.
# `before` and `sets` are what the old and the new image set by default.


_TITLES = {
    "User": "user", "Entrypoint": "entrypoint", "Cmd": "command", "WorkingDir": "working directory",
    "StopSignal": "stop signal", "Shell": "shell", "Healthcheck": "health check",
}  # fmt: skip
_LISTS = {"ExposedPorts": "port", "Volumes": "volume", "Labels": "label"}


def image_changes(container: Json, before: Json, sets: Json) -> tuple[str, ...]:
    """A line for each thing that the next container gets from its image and the present one did not; and for what stays
    although the image changes it, since it was given to the container. Values of variables are not told.
    """
    return (*_settings(container["Config"], before, sets), *_variables(container["Config"], before, sets),
            *_lists(before, sets), *_published(container, before, sets))  # fmt: skip


def _settings(config: Json, before: Json, sets: Json) -> Iterator[str]:
    for key, title in _TITLES.items():
        old, new, present = (_in_words(key, one.get(key)) for one in (before, sets, config))
        if old != new and present == old:
            yield f"{title}: {old} → {new}"
        elif old != new:
            yield f"{title}: stays as it was given to the container; the image has {new}"


def _in_words(key: str, value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("Test")
    return " ".join(value) if isinstance(value, list) else str(value or ("root" if key == "User" else "-"))


def _variables(config: Json, before: Json, sets: Json) -> Iterator[str]:
    old, new, present = (
        dict(entry.partition("=")[::2] for entry in one.get("Env") or ()) for one in (before, sets, config)
    )
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            what = "gone" if name not in new else "new" if name not in old else "another value"
            given = present.get(name) != old.get(name)
            yield f"variable {name}: {'stays as it was given to the container' if given else what}"


def _lists(before: Json, sets: Json) -> Iterator[str]:
    for key, title in _LISTS.items():
        old, new = ({*(one.get(key) or ())} for one in (before, sets))
        yield from (f"{title} {name}: new" for name in sorted(new - old))
        yield from (f"{title} {name}: gone" for name in sorted(old - new))


def _published(container: Json, before: Json, sets: Json) -> Iterator[str]:
    published = {port for port, to in (container["HostConfig"].get("PortBindings") or {}).items() if to}
    for port in sorted(published & {*(before.get("ExposedPorts") or ())} - {*(sets.get("ExposedPorts") or ())}):
        yield f"port {port} is published, and the new image does not say that it listens there"


def user_after(container: Json, before: Json, sets: Json) -> str:
    """The user that the next container runs as: the given one, else the new image's. Empty: root."""
    given = str(container["Config"].get("User") or "")
    return given if given != (before.get("User") or "") else str(sets.get("User") or "")


def written(container: Json, aside: Iterable[str]) -> list[str]:
    """Where things are mounted from outside of the container that can be written, but for the paths `aside`."""
    mounts = [one for one in container.get("Mounts") or [] if one["RW"] and one["Type"] in ("volume", "bind")]
    return [one["Destination"] for one in mounts if one["Destination"] not in {*aside}]


@dataclass(frozen=True)
class Ownership:
    """Who owns a file or folder, and its mode."""

    uid: int
    gid: int
    mode: int

    def __str__(self) -> str:
        return f"owner {self.uid}:{self.gid}, mode {self.mode & 0o7777:o}"

    def lets(self, user: str, groups: Iterable[str]) -> bool | None:
        """Whether `user` (`uid`, `uid:gid`, or names) may write; None where that is not known: a name says nothing."""
        name, _, group = user.partition(":")
        if name in ("", "root", "0"):
            return True
        if not name.isdigit():
            return None
        owner, own_group, others = (bool(self.mode & bit) for bit in (0o200, 0o020, 0o002))
        if int(name) == self.uid:
            return owner
        if str(self.gid) in (group, *groups):
            return own_group
        known = all(one.isdigit() for one in (group, *groups))  # a group by name may be any
        return others if known or own_group == others else None
