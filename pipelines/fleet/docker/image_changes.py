"""What another image changes in a container beside its files, and whether its user may write what the old did. Pure.

`container` is what the engine's `inspect` shows; `before` and `sets` are what the old and the new image set by default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.fleet.docker.container_spec import Json

TITLES = {
    "User": "user", "Entrypoint": "entrypoint", "Cmd": "command", "WorkingDir": "working directory",
    "StopSignal": "stop signal", "Shell": "shell", "Healthcheck": "health check",
}  # fmt: skip
LISTS = {"ExposedPorts": "port", "Volumes": "volume", "Labels": "label"}


def image_changes(container: Json, before: Json, sets: Json) -> tuple[str, ...]:
    """A line for each thing that the next container gets from its image and the present one did not; and for what stays
    although the image changes it, since it was given to the container. Values of variables are not told.
    """
    return (*_settings(container["Config"], before, sets), *_variables(container["Config"], before, sets),
            *_lists(before, sets), *_published(container, before, sets))  # fmt: skip


def _settings(config: Json, before: Json, sets: Json) -> Iterator[str]:
    for key, title in TITLES.items():
        old, new, present = (_shown(key, one.get(key)) for one in (before, sets, config))
        if old != new and present == old:
            yield f"{title}: {old} → {new}"
        elif old != new:
            yield f"{title}: stays {present}, as it was given to the container; the image has {new}"


def _shown(key: str, value: Any) -> str:
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
    for key, title in LISTS.items():
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
        return others if group.isdigit() or own_group == others else None
