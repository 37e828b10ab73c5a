"""What a pod is to a fleet: its containers as members, and how each of them runs. Pure.

What the API does not tell is unread, never compliant: what changed in a container, and what was executed in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hardening.foundation.hashing import DIGEST
from hardening.runtime import ContainerFacts, Mount, is_root, secrets_in

Json = dict[str, Any]
ENDED = ("Succeeded", "Failed")
NAMESPACES = {"hostNetwork": "network", "hostPID": "pid", "hostIPC": "ipc"}
CHANGED = "Kubernetes does not tell what changed in a container; one with readOnlyRootFilesystem cannot change"
EXECUTED = "Kubernetes does not tell what `kubectl exec` starts in a container"
NO_IMAGE_USER = "no user is set, and no registry that we deal with tells the one that its image sets"
LIMIT_OF_NODE = -1  # processes are limited by the node's settings (podPidsLimit), and by no pod's
QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,2})?)([numkMGTPE]|[KMGTPE]i)?")
SUFFIXES = {
    "": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3,
    **{letter: 1000.0**power for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", start=1)},
}  # fmt: skip


@dataclass(frozen=True)
class PodContainer:
    """One container of a pod that runs: its pod, its spec, and its status ({} where the node has told none yet)."""

    pod: Json
    spec: Json
    status: Json

    @property
    def name(self) -> str:
        """What its pod calls it."""
        return str(self.spec["name"])

    @property
    def image(self) -> str:
        """The reference that it was started from."""
        return str(self.spec.get("image") or "")

    @property
    def digest(self) -> str:
        """The digest by which the node runs its image; empty where it tells none."""
        said = str(self.status.get("imageID") or "").rpartition("@")[2].rpartition("//")[2]
        return said if re.fullmatch(DIGEST, said) else ""

    @property
    def exact(self) -> str:
        """The digest's reference in the repository that it was pulled from; empty where the image is in none.

        An imageID without a repository is the id of what was loaded into the node: no other node can pull it.
        """
        said = str(self.status.get("imageID") or "").removeprefix("docker-pullable://")
        return said if "@" in said and self.digest else ""

    @property
    def ready(self) -> bool:
        """Whether it serves, and its pod is to stay."""
        return bool(self.status.get("ready")) and not self.pod["metadata"].get("deletionTimestamp")

    @property
    def since(self) -> datetime | None:
        """When it started, or its pod was made."""
        started = ((self.status.get("state") or {}).get("running") or {}).get("startedAt")
        return moment(started or self.pod["metadata"].get("creationTimestamp"))


def moment(text: object) -> datetime | None:
    """A date as the API writes it."""
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


def runs(pod: Json) -> bool:
    """Whether a pod runs, or is to run."""
    return (pod.get("status") or {}).get("phase") not in ENDED


def containers_of(pod: Json) -> list[PodContainer]:
    """The containers that run in a pod as long as it does; native sidecars (init containers that stay) too."""
    spec, status = pod["spec"], pod.get("status") or {}
    told = {str(one.get("name")): one for key in ("containerStatuses", "initContainerStatuses")
            for one in status.get(key) or ()}  # fmt: skip
    staying = [one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"]
    return [PodContainer(pod, one, told.get(str(one.get("name")), {})) for one in (*spec["containers"], *staying)]


def controller(thing: Json) -> tuple[str, str]:
    """The kind and the name of what made an object and keeps it; empty where nothing does."""
    owners = [one for one in thing["metadata"].get("ownerReferences") or () if one.get("controller")]
    return (str(owners[0].get("kind") or ""), str(owners[0].get("name") or "")) if owners else ("", "")


def facts_of(one: PodContainer, image_user: str | None) -> ContainerFacts:
    """How a container runs. `image_user`: the user that its image sets; None where nobody tells."""
    spec = one.pod["spec"]
    whole, own = spec.get("securityContext") or {}, one.spec.get("securityContext") or {}
    limits = (one.spec.get("resources") or {}).get("limits") or {}
    user, writable = _user(whole, own, image_user), not own.get("readOnlyRootFilesystem")
    unread = {"foreign_processes": EXECUTED} | ({"changed_files": CHANGED} if writable else {})
    if user is None:
        unread["root_user"] = NO_IMAGE_USER
    privileged = bool(own.get("privileged"))
    return ContainerFacts(
        image=one.image,
        user=NOT_ROOT if user is None else user,
        image_user=NOT_ROOT if user is None else image_user or "",
        launched=one.since,
        privileged=privileged,
        mounts=tuple(_mounts(spec, one.spec)),
        capabilities=tuple(sorted(map(str, (own.get("capabilities") or {}).get("add") or ()))),
        writable_root=writable,
        memory_bytes=int(quantity(limits.get("memory"))),
        cpus=quantity(limits.get("cpu")),
        pids=LIMIT_OF_NODE,
        no_new_privileges=own.get("allowPrivilegeEscalation") is False,
        host_namespaces=tuple(name for key, name in NAMESPACES.items() if spec.get(key)),
        daemon=_unfiltered(whole, own, privileged=privileged),
        processes=tuple(_debugging(spec)),
        published=tuple(sorted(_published(one.spec))),
        secrets=secrets_in(str(each.get("name")) for each in one.spec.get("env") or ()),
        unread=tuple(sorted(unread.items())),
    )


NOT_ROOT = "not root"  # what runAsNonRoot promises, whichever user it is


def _user(whole: Json, own: Json, image_user: str | None) -> str | None:
    """The user that it has: the container's own, its pod's, its image's; None where that is not known."""
    for context in (own, whole):
        if (said := context.get("runAsUser")) is not None:
            return str(said)
    promised = own.get("runAsNonRoot", whole.get("runAsNonRoot"))
    if promised and (image_user is None or is_root(image_user)):
        return NOT_ROOT  # the node would not have started it
    return image_user


def _mounts(spec: Json, container: Json) -> Iterator[Mount]:
    """What is mounted into it; a path of the host is a bind mount."""
    volumes = {str(one.get("name")): one for one in spec.get("volumes") or ()}
    for mount in container.get("volumeMounts") or ():
        volume, target = volumes.get(str(mount.get("name")), {}), str(mount.get("mountPath") or "")
        writable = not mount.get("readOnly")
        if host := volume.get("hostPath"):
            below = str(mount.get("subPath") or "").strip("/")
            path = "/".join(filter(None, [str(host.get("path") or "").rstrip("/"), below])) or "/"
            yield Mount("bind", path, target, writable)
        elif (volume.get("emptyDir") or {}).get("medium") == "Memory":
            yield Mount("tmpfs", "", target, writable)
        else:
            yield Mount("volume", str(mount.get("name") or ""), target, writable)


def _published(container: Json) -> Iterator[str]:
    """The ports of the node that lead to it."""
    for port in container.get("ports") or ():
        if port.get("hostPort"):
            to = f"{port.get('containerPort')}/{str(port.get('protocol') or 'TCP').lower()}"
            yield f"{port.get('hostIP') or '0.0.0.0'}:{port['hostPort']} to {to}"  # noqa: S104 - what an empty one means


def _unfiltered(whole: Json, own: Json, *, privileged: bool) -> tuple[str, ...]:
    """Whether its system calls are expressly not filtered; where nothing is said, the node's settings decide."""
    profile = own.get("seccompProfile") or whole.get("seccompProfile") or {}
    off = profile.get("type") == "Unconfined" and not privileged
    return ("system calls are not filtered (seccompProfile Unconfined)",) if off else ()


def _debugging(spec: Json) -> Iterable[str]:
    """The containers that somebody added to the pod while it ran (`kubectl debug`)."""
    return (f"container {one.get('name')} of {one.get('image')}"[:200] for one in spec.get("ephemeralContainers") or ())


def quantity(text: object) -> float:
    """A quantity as Kubernetes writes it (500m, 128Mi, 1e3), in its unit; 0 where there is none that is one."""
    found = QUANTITY.fullmatch(str(text)) if isinstance(text, str | int | float) else None
    return float(found[1]) * SUFFIXES[found[2] or ""] if found else 0.0
