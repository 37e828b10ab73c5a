"""What an ECS task is to a fleet: its containers as members, and how each of them runs. Pure.

What the API does not tell is unread, never compliant: what changed in a container, and what was executed in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hardening.foundation.hashing import DIGEST
from hardening.runtime import ContainerFacts, Mount
from pipelines.fleet.ecs.services import Revision, short
from pipelines.fleet.members import repository

Json = dict[str, Any]
RUNNING = "RUNNING"
UNITS_PER_CPU = 1024
MIB = 1024 * 1024
LIMIT_OF_HOST = -1  # processes are limited by the host's settings, and by no task definition
NOT_ROOT = "not known"  # where `root_user` is unread anyway
CHANGED = "ECS does not tell what changed in a container; one with readonlyRootFilesystem cannot change"
EXECUTED = "ECS does not tell what was started in a container from outside, by `ecs execute-command` or on its host"
NO_IMAGE_USER = "no user is set, and no registry that we deal with tells the one that its image sets"
NAMESPACES = {"networkMode": "network", "pidMode": "pid", "ipcMode": "ipc"}


@dataclass(frozen=True)
class TaskContainer:
    """One container of a task that runs, as DescribeTasks shows both, and the revision that its task is of."""

    task: Json
    shown: Json
    revision: Revision

    @property
    def name(self) -> str:
        """What its task calls it."""
        return str(self.shown["name"])

    @property
    def task_id(self) -> str:
        """What ECS calls its task."""
        return short(str(self.task["taskArn"]))

    @property
    def definition(self) -> Json | None:
        """What its task definition says of it; None for one that AWS has added, such as Service Connect's proxy."""
        return self.revision.containers.get(self.name)

    @property
    def image(self) -> str:
        """The reference that it was started from."""
        return str(self.shown.get("image") or "")

    @property
    def digest(self) -> str:
        """The digest of its image; empty where ECS tells none, as before it is pulled."""
        return next(iter(self.digests), "")

    @property
    def digests(self) -> tuple[str, ...]:
        """All that it is known by: what ECS tells, which may be that of one platform, and what it was started by."""
        said = (str(self.shown.get("imageDigest") or ""), self.image.partition("@")[2])
        return tuple(dict.fromkeys(one for one in said if re.fullmatch(DIGEST, one)))

    @property
    def exact(self) -> str:
        """The digest's reference; empty where none is told."""
        return f"{repository(self.image)}@{self.digest}" if self.digest else ""

    @property
    def healthy(self) -> bool:
        """Whether its task runs and is to stay, and its health check passes where it has one."""
        stays = self.task.get("lastStatus") == self.task.get("desiredStatus") == self.shown.get("lastStatus") == RUNNING
        health = self.shown.get("healthStatus", "UNKNOWN")
        checked = bool((self.definition or {}).get("healthCheck"))
        return stays and health == "HEALTHY" if checked else stays and health != "UNHEALTHY"

    @property
    def since(self) -> datetime | None:
        """When its task started, or was made."""
        return self.task.get("startedAt") or self.task.get("createdAt")


def facts_of(one: TaskContainer, image_user: str | None) -> ContainerFacts | None:
    """How a container runs; None where its task definition says nothing of it. `image_user`: the user that its image
    sets; None where it is not known.
    """
    if (own := one.definition) is None:
        return None
    whole = one.revision.shown
    linux, said = own.get("linuxParameters") or {}, str(own.get("user") or "")
    user = said or image_user
    writable, options = not own.get("readonlyRootFilesystem"), list(own.get("dockerSecurityOptions") or ())
    enclosed = one.task.get("launchType") == "FARGATE" and one.task.get("enableExecuteCommand") is False
    unread = ({} if enclosed else {"foreign_processes": EXECUTED}) | ({"changed_files": CHANGED} if writable else {})
    if user is None:
        unread["root_user"] = NO_IMAGE_USER
    return ContainerFacts(
        image=one.image,
        user=NOT_ROOT if user is None else user,
        image_user=NOT_ROOT if user is None else image_user or "",
        launched=one.since,
        privileged=bool(own.get("privileged")),
        mounts=tuple(_mounts(whole, one.revision.containers, one.name)),
        capabilities=tuple(sorted(map(str, (linux.get("capabilities") or {}).get("add") or ()))),
        writable_root=writable,
        memory_bytes=_memory(whole, own),
        cpus=_number(whole.get("cpu")) / UNITS_PER_CPU,  # a container's own are shares, and no limit
        pids=LIMIT_OF_HOST,
        no_new_privileges="no-new-privileges" in {str(option).partition(":")[0] for option in options},
        host_namespaces=tuple(kind for key, kind in NAMESPACES.items() if whole.get(key) == "host"),
        daemon=tuple(f"it is not confined ({option})" for option in options if str(option).endswith(":unconfined")),
        unread=tuple(sorted(unread.items())),
    )


def _memory(whole: Json, own: Json) -> int:
    """The least of the hard limits of a container and of its task, in bytes; 0 where there is none."""
    limits = [_number(one.get("memory")) for one in (whole, own)]
    return int(min((one for one in limits if one), default=0) * MIB)


def _number(said: object) -> float:
    text = str(said or "")
    return float(text) if text.isdigit() else 0.0


def _mounts(whole: Json, containers: Mapping[str, Json], name: str) -> Iterator[Mount]:
    """What is mounted into a container, by itself or as another one of its task has it; a host's path is a bind."""
    volumes = {str(one.get("name")): one for one in whole.get("volumes") or ()}
    own = containers.get(name, {})
    yield from _mounted(volumes, own, read_only=False)
    for other in own.get("volumesFrom") or ():
        of = containers.get(str(other.get("sourceContainer")), {})
        yield from _mounted(volumes, of, read_only=bool(other.get("readOnly")))
    for one in (own.get("linuxParameters") or {}).get("tmpfs") or ():
        yield Mount(
            "tmpfs", "", str(one.get("containerPath") or ""), writable="ro" not in (one.get("mountOptions") or ())
        )


def _mounted(volumes: Mapping[str, Json], container: Json, *, read_only: bool) -> Iterator[Mount]:
    for mount in container.get("mountPoints") or ():
        name, target = str(mount.get("sourceVolume") or ""), str(mount.get("containerPath") or "")
        writable = not (read_only or mount.get("readOnly"))
        host = str((volumes.get(name, {}).get("host") or {}).get("sourcePath") or "")
        yield Mount("bind", host, target, writable) if host else Mount("volume", name, target, writable)
