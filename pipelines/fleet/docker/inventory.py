"""Edge: which containers of an engine are a fleet's members or made by rollouts, and how each one is."""

from __future__ import annotations

import io
import re
import tarfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from functools import partial
from select import select
from threading import Lock
from typing import Any, TypeVar

import docker.errors
import requests.exceptions
from docker.utils import socket as sockets
from docker.utils.socket import SocketError
from requests.exceptions import ReadTimeout

from hardening.foundation.errors import OutsideError, RefusedError
from pipelines.fleet.docker import container_spec
from pipelines.fleet.docker.container_spec import Json, Ownership
from pipelines.fleet.docker.images import Images
from pipelines.fleet.health import ask
from pipelines.fleet.members import MEMBER, OLD, ROLLOUT, Key, Member, Read, protection
from pipelines.fleet.model import Fleet, Health


@contextmanager
def outside(what: str, engine: str) -> Iterator[None]:
    """Every failure of the engine or of the way to it is an OutsideError that says what was tried."""
    try:
        yield
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        reason = getattr(error, "explanation", None) or error
        hint = "is the engine running? ./goldsmith doctor" if not isinstance(error, docker.errors.APIError) else ""
        raise OutsideError(f"{what} on the Docker Engine {engine} failed: {reason}", hint=hint) from error


def find(api: Any, container: str) -> Json | None:
    """What the engine shows of a container; None where there is no such thing."""
    with suppress(docker.errors.NotFound):
        return dict(api.inspect_container(container))
    return None


MOMENT = 1.0  # seconds


class ContainerList:
    """The new containers of all steps, listed in one call for a moment; what this process changes is seen at once."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self._lock = Lock()
        self._listed: list[Json] = []
        self._until = 0.0

    def forget(self) -> None:
        """Something was changed: look again."""
        with self._lock:
            self._until = 0.0

    def new(self, key: Key) -> Json | None:
        """The new container of a step, as the engine lists it; the old one is never the new one."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._listed = self._api.containers(all=True, filters={"label": [ROLLOUT, MEMBER]})
                self._until = time.monotonic() + MOMENT
            listed = self._listed
        wanted = (key.rollout, key.member)
        return next((one for one in listed if _made_for(one) == wanted and one["Id"] != key.old), None)


def _made_for(listed: Json) -> tuple[str, str]:
    return listed["Labels"].get(ROLLOUT, ""), listed["Labels"].get(MEMBER, "")


CHECKED = re.compile(r"\((?:health: )?(healthy|unhealthy|starting)\)$")
ENDED = ("exited", "dead")


class ContainerInventory:
    """The containers of one engine. What never changes of a container is asked once, the rest in one list.

    `recorded`: the names of the members that the fleet was last seen with.
    """

    def __init__(
        self, api: Any, fleet: Fleet, account: str, images: Images, recorded: Callable[[], Collection[str]]
    ) -> None:
        self._api = api
        self._fleet = fleet
        self._account = account
        self._images = images
        self._recorded = recorded
        self._seen: dict[str, Json] = {}

    def members(self, only: str = "") -> tuple[Member, ...]:
        """Every member, or the one with this name. Each is asked how it is at the same time as the others."""
        self._images.retry()
        everything = self._everything()
        mine = [one for one in everything if only in ("", container_spec.name(one)) and self._is_member(one)]
        mine.sort(key=container_spec.name)
        return tuple(together([partial(self._member, one, everything) for one in mine]))

    def _everything(self) -> list[Json]:
        """All containers, those that do not run as well, as `inspect` shows them."""
        listed = self._api.containers(all=True)
        seen = {one["Id"]: self._seen.get(one["Id"]) or find(self._api, one["Id"]) for one in listed}
        self._seen = {container: found for container, found in seen.items() if found}
        return [_at_present(found, one) for one in listed if (found := self._seen.get(one["Id"]))]

    def _is_member(self, container: Json) -> bool:
        """Whether it carries the fleet's labels, is no rollout's work in progress, and runs or should run."""
        labels, name = container_spec.labels_of(container), container_spec.name(container)
        rollout = labels.get(ROLLOUT)
        preparing = rollout is not None and name.endswith(f".{rollout}")
        if preparing or any(labels.get(key) != value for key, value in self._fleet.selector.items()):
            return False
        status = container["State"]["Status"]
        return status in container_spec.RUNNING or (status in ENDED and OLD not in name and self._should_run(container))

    def _should_run(self, container: Json) -> bool:
        """Whether one that has ended should run: by its restart policy, or because we know it as a member.

        What ended well and has no policy, such as a job that is done, was meant to end.
        """
        found = find(self._api, container["Id"])
        if found is None:
            return False
        policy = found["HostConfig"]["RestartPolicy"]["Name"]
        if policy in ("always", "unless-stopped") or ROLLOUT in container_spec.labels_of(found):
            return True
        failed = found["State"].get("ExitCode") != 0
        return failed and (policy == "on-failure" or container_spec.name(found) in self._recorded())

    def _member(self, container: Json, everything: list[Json]) -> Member:
        named, labels = container_spec.name(container), container_spec.labels_of(container)
        until, wrong = protection(self._fleet.limits.do_not_disrupt, labels)
        image, unknown = self._image(container)
        return Member(
            id=f"{self._account}/local/docker/{named}",
            name=named,
            handle=container["Id"],
            image=container["Config"]["Image"],
            digests=container_spec.digests(container, image),
            layers=tuple((image.get("RootFS") or {}).get("Layers") or ()),
            since=datetime.fromisoformat(container["Created"][:19] + "+00:00"),
            healthy=self._serves(container),
            protected_until=until,
            forced_in_place=container_spec.forced_in_place(container, self._fleet.limits.shared_mounts),
            cannot_roll=container_spec.cannot_roll(container, everything) or unknown or wrong,
            exact=container_spec.exact(container, image),
            defined_in=container_spec.compose_service(labels),
        )

    def _image(self, container: Json) -> tuple[Json, str]:
        """The image, or why it is not known."""
        try:
            return self._images.of(container), ""
        except RefusedError as error:
            return {}, f"{error.message}: {error.hint}"

    def _serves(self, container: Json) -> bool:
        """Whether the container serves right now, as far as one look can tell."""
        if self._fleet.health.kind != "docker":
            return probe(self._api, self._fleet.health, container).good
        state = container["State"]
        return bool(state["Status"] == "running" and state["Health"] == "healthy")


def _at_present(inspected: Json, listed: Json) -> Json:
    """What was once inspected, with what may have changed since: the name, how it runs, and its networks."""
    own = next((name for name in listed["Names"] if name.count("/") == 1), inspected["Name"])
    check = CHECKED.search(listed["Status"])
    state = {"Status": listed["State"], "Health": check.group(1) if check else "healthy"}
    networks = {**inspected["NetworkSettings"], **listed["NetworkSettings"]}
    return {**inspected, "Name": own, "State": state, "NetworkSettings": networks}


T = TypeVar("T")
AT_ONCE = 16


def together(questions: Sequence[Callable[[], T]], at_once: int = AT_ONCE) -> list[T]:
    """The answers in the questions' order. Raises what the first that failed raised."""
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda ask: ask(), questions))


HEADERS_BYTES = 1 << 20


def owner_of(api: Any, container: str, path: str) -> Ownership | None:
    """Who owns a path inside of a container, mounts and all: the first entry of what `docker cp` would copy.

    None for what nobody copies, such as a socket.
    """
    try:
        stream, _ = api.get_archive(container, path)
        with closing(stream), tarfile.open(fileobj=_Bounded(stream), mode="r|") as archive:
            entry = archive.next()
    except docker.errors.NotFound:
        return None
    except tarfile.TarError as error:
        raise OutsideError(f"{path} of the container {container[:12]} could not be looked at: {error}") from None
    return Ownership(entry.uid, entry.gid, entry.mode) if entry else None


class _Bounded(io.RawIOBase):
    """The beginning of a stream, no more than HEADERS_BYTES, as a file to read."""

    def __init__(self, stream: Iterator[bytes]) -> None:
        self._stream, self._left, self._held = stream, HEADERS_BYTES, b""

    def read(self, size: int = -1) -> bytes:
        while len(self._held) < size and self._left > 0 and (more := next(self._stream, b"")):
            self._left -= len(more)
            self._held += more
        given, self._held = self._held[:size], self._held[size:]
        return given


# -- how a container is -----------------------------------------------------------------------------------------------

SHOWN_BYTES = 200  # of what a command printed last
ENGINES_OWN = 30.0  # seconds: what the engine gives a health check that names no timeout


def probe(api: Any, health: Health, container: dict[str, Any]) -> Read:
    """Ask the container how it is, in the way that `health` says. A container that does not run is never healthy."""
    status, exits = container["State"]["Status"], container.get("RestartCount") or 0
    if status != "running":
        over = status in ENDED or exits >= container_spec.MOST_EXITS
        return Read(False, f"{status}, exit status {container['State'].get('ExitCode')}", over)
    seen = _asked(api, health, container)
    if seen.good or exits < container_spec.MOST_EXITS:
        return seen
    return Read(False, f"{seen.text}; it ended {exits} times before, {_last_exit(api, container['Id'])}", ended=True)


def _last_exit(api: Any, container: str) -> str:
    """How a container ended last that runs again by now, which only the engine's events still tell."""
    asked = {"since": 0, "until": f"{time.time():.6f}", "filters": {"container": container, "event": "die"}}
    codes = [str(one["Actor"]["Attributes"].get("exitCode", "")) for one in api.events(decode=True, **asked)]
    return f"exit status {codes[-1]}" if codes else "its exit status is not known any more"


def _asked(api: Any, health: Health, container: dict[str, Any]) -> Read:
    if health.kind == "docker":
        return _own_check(api, container)
    if health.kind == "exec":
        return inside(api, container, list(health.command), health.timeout.total_seconds())
    return ask(health, _address(container))


def _own_check(api: Any, container: dict[str, Any]) -> Read:
    """The image's health check: what the engine last saw, and, as that may be old, the same command once more."""
    health = container["State"].get("Health")
    if not health:
        return Read(False, "the image has no health check: set health.kind to http, tcp or exec in the fleet's file")
    if health["Status"] != "healthy":
        last = (health.get("Log") or [{}])[-1]
        return Read(False, f"{health['Status']}: {str(last.get('Output', '')).strip() or 'not checked yet'}")
    kind, *words = container["Config"]["Healthcheck"]["Test"]
    shell = container["Config"].get("Shell") or ["/bin/sh", "-c"]
    seconds = (container["Config"]["Healthcheck"].get("Timeout") or 0) / 1e9 or ENGINES_OWN
    return inside(api, container, [*shell, *words] if kind == "CMD-SHELL" else words, seconds)


def inside(api: Any, container: dict[str, Any], command: list[str], seconds: float) -> Read:
    """Run a command in a container: good where it ends with 0 within `seconds`. One that does not end runs on there.

    Where the engine cannot run it in this one container, that is a bad read of this one, and no failure of the engine.
    """
    try:
        return _run(api, container, command, seconds)
    except (docker.errors.APIError, SocketError, ReadTimeout, ConnectionError) as error:
        return Read(False, f"{command[0]} could not be run: {getattr(error, 'explanation', None) or error}")


def _run(api: Any, container: dict[str, Any], command: list[str], seconds: float) -> Read:
    run = api.exec_create(container["Id"], command)
    output, until = b"", time.monotonic() + seconds
    stream: Any = api.exec_start(run["Id"], socket=True)
    # The response first: over what is closed already, the end of it would be told on standard error.
    response = getattr(stream, "_response", stream)
    with closing(getattr(stream, "_sock", stream)), closing(stream), closing(response):
        frames: Iterator[tuple[int, bytes]] = sockets.frames_iter(stream, tty=False)  # type: ignore[no-untyped-call]
        while select([stream], [], [], max(0.0, until - time.monotonic()))[0]:
            if (frame := next(frames, None)) is None:
                break
            output = (output + frame[1])[-SHOWN_BYTES:]
        else:
            return Read(False, f"{command[0]} did not end within {seconds:g} s{_said(output)}")
    status = api.exec_inspect(run["Id"])["ExitCode"]
    return Read(status == 0, f"{command[0]} ended with {status}{_said(output)}")


def _said(output: bytes) -> str:
    text = output.decode(errors="replace").strip()
    return f": {text}" if text else ""


def _address(container: dict[str, Any]) -> str:
    """Where this host reaches the container."""
    if container["HostConfig"].get("NetworkMode") == "host":
        return "127.0.0.1"
    networks = (container["NetworkSettings"].get("Networks") or {}).values()
    return next((str(one["IPAddress"]) for one in networks if one.get("IPAddress")), "")
