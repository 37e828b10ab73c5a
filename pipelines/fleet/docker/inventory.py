"""Edge: which containers of an engine are a fleet's members or made by rollouts, and how each one is."""

from __future__ import annotations

import io
import re
import tarfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from socket import socket
from ssl import SSLError
from threading import Lock
from typing import Any, TypeVar

import docker.errors
import requests.exceptions
import urllib3.exceptions
from requests.exceptions import ReadTimeout

from hardening.foundation.asking import AT_ONCE, ask_each
from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, MalformedError, OutsideError, RefusedError
from hardening.foundation.limits import CHUNK, ENGINE_ANSWER
from hardening.foundation.text import last_line
from pipelines.fleet.docker import container_spec
from pipelines.fleet.docker.container_spec import Json, Ownership
from pipelines.fleet.docker.images import Images
from pipelines.fleet.health import ask
from pipelines.fleet.members import (
    AT,
    MEMBER,
    OLD,
    ROLLOUT,
    Key,
    Member,
    Read,
    given_labels,
    managed_by,
    of_the_image,
    protection,
)
from pipelines.fleet.model import Fleet, Health, claim


@contextmanager
def outside(what: str, engine: str) -> Iterator[None]:
    """Every failure of the engine or of the way to it is an OutsideError that says what was tried."""
    try:
        yield
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        reason = getattr(error, "explanation", None) or _cause(error)
        hint = "is the engine running? ./goldsmith doctor" if not isinstance(error, docker.errors.APIError) else ""
        raise OutsideError(f"{what} on the Docker Engine {engine} failed: {reason}", hint=hint) from error


def _cause(error: BaseException) -> str:
    """What an error of docker-py says: it wraps what the system said, such as that no socket is there."""
    inner: BaseException | None = error
    while inner is not None:
        said = next(iter(inner.args), None)
        if isinstance(inner, requests.exceptions.ConnectionError) and isinstance(said, str):
            return said  # such as what ssh says of a host's key
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return str(error)


def limited(api: Any) -> Any:
    """The client, which reads no answer that is longer than ENGINE_ANSWER: whoever starts containers decides how long
    lists are. What is streamed is its reader's to count. The client then raises OutsideError.
    """
    api.hooks["response"].append(_read_limited)
    return api


def _read_limited(response: requests.Response, *_: Any, **how: Any) -> None:
    if how.get("stream"):
        return
    data = bytearray()
    try:
        while chunk := response.raw.read(CHUNK, decode_content=True):
            data += chunk
            if len(data) > ENGINE_ANSWER.most:
                response.close()
                raise ENGINE_ANSWER.exceeded("the answer of the Docker Engine")
    except urllib3.exceptions.HTTPError as error:  # which requests translates only where it reads itself
        response.close()
        raise requests.exceptions.ConnectionError(f"the answer broke off: {error}") from error
    response.raw = io.BytesIO(data)


def find(api: Any, container: str) -> Json | None:
    """What the engine shows of a container; None where there is no such thing."""
    with suppress(docker.errors.NotFound):
        shown = api.inspect_container(container)
        if not isinstance(shown, dict):
            raise MalformedError(f"what the Docker Engine shows of {container} is not an object")
        return dict(shown)
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
        wanted = {ROLLOUT: key.rollout, MEMBER: key.member}.items()
        return next((one for one in listed if wanted <= one["Labels"].items() and one["Id"] != key.old), None)


def container_name(member: str) -> str:
    """What a member's host calls it."""
    return member.partition(AT)[0]


CHECKED = re.compile(r"\((?:health: )?(healthy|unhealthy|starting)\)$")
ENDED = ("exited", "dead")


class ContainerInventory:
    """The containers of one engine. What never changes in a container is queried once, the rest in one list.

    `account` is what the engine calls its machine; `host` what a fleet of several hosts calls this one, else empty.
    `recorded`: the names of the members that the fleet was last seen with; `rivals`: the other fleets of this engine.
    """

    def __init__(
        self, api: Any, fleet: Fleet, account: str, images: Images, recorded: Callable[[], Collection[str]],
        host: str = "", rivals: Sequence[Fleet] = (),
    ) -> None:  # fmt: skip
        self._api = api
        self._fleet = fleet
        self._account = host or account
        self._host = host
        self._images = images
        self._recorded = recorded
        self._seen: dict[str, Json] = {}
        self._rivals = rivals
        self._left_out = set[str]()

    def members(self, only: str = "") -> tuple[Member, ...]:
        """Every member, or the one with this name. Each is asked how it is at the same time as the others."""
        self._images.retry()
        everything = self._everything()
        mine = [one for one in everything if only in ("", container_spec.name(one)) and self._is_member(one)]
        mine.sort(key=container_spec.name)
        return tuple(together([partial(self._member, one, everything) for one in mine]))

    def require_own(self, member: str) -> None:
        """Raise OutsideError where a member that is not found here ran on another host: there it may run still."""
        host = member.partition("/")[0]
        if host != self._account:
            said = f"it ran on {host}, and the fleet {self._fleet.name} asks {self._account} alone"
            raise OutsideError(f"whether {member} still runs is unknown: {said}", hint="was its docker.hosts changed?")

    def _everything(self) -> list[Json]:
        """All containers, those that do not run as well, as `inspect` shows them."""
        listed = _listed(self._api.containers(all=True))
        seen = {one["Id"]: self._seen.get(one["Id"]) or find(self._api, one["Id"]) for one in listed}
        self._seen = {container: found for container, found in seen.items() if found}
        return [_at_present(found, one) for one in listed if (found := self._seen.get(one["Id"]))]

    def _is_member(self, container: Json) -> bool:
        """Whether it carries the fleet's labels, is no rollout's work in progress, and runs or should run."""
        labels, name = container_spec.labels_of(container), container_spec.name(container)
        if not self._fleet.selects(labels):
            return False
        given = self._given(container)
        rollout = given.get(ROLLOUT)
        if rollout is not None and name.endswith(f".{rollout}"):  # it is being prepared
            return False
        if not self._fleet.selects(given):
            if container["Id"] not in self._left_out:
                say(f"{self._fleet.name}: {of_the_image(name, self._fleet.selector, given)}")
            self._left_out.add(container["Id"])
            return False
        status = container["State"]["Status"]
        return status in container_spec.RUNNING or (status in ENDED and OLD not in name and self._should_run(container))

    def _given(self, container: Json) -> dict[str, str]:
        """The labels of the container itself; all where its image is not known: it is then replaced by nothing."""
        image, _ = self._image(container)
        return given_labels(container_spec.labels_of(container), (image.get("Config") or {}).get("Labels"))

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
        return failed and (policy == "on-failure" or self._name(found) in self._recorded())

    def _name(self, container: Json) -> str:
        """What a member is called: a container of one of several hosts, with that host."""
        name = container_spec.name(container)
        return f"{name}{AT}{self._host}" if self._host else name

    def _member(self, container: Json, everything: list[Json]) -> Member:
        named, labels = self._name(container), container_spec.labels_of(container)
        until, wrong = protection(self._fleet.limits.do_not_disrupt, labels)
        image, unknown = self._image(container)
        if manager := managed_by(labels):
            wrong = f"{manager} made it and would undo its replacement: give the new image to {manager} itself"
        return Member(
            id=f"{self._account}/local/docker/{named}",
            name=named,
            handle=str(container["Id"]),
            image=str(container["Config"]["Image"]),
            digests=container_spec.digests(container, image),
            layers=tuple(map(str, (image.get("RootFS") or {}).get("Layers") or ())),
            since=datetime.fromisoformat(container["Created"][:19] + "+00:00"),
            healthy=self._serves(container),
            protected_until=until,
            zone=self._host,
            forced_in_place=container_spec.forced_in_place(container, self._fleet.limits.shared_mounts),
            cannot_roll=container_spec.cannot_roll(container, everything) or unknown or wrong,
            stopped=container["State"]["Status"] != "running",
            claimed_by=claim(self._rivals, self._given(container)),
            exact=container_spec.exact(container, image),
            defined_in=container_spec.compose_service(labels),
            first_check=first_check(container) if self._fleet.health.kind == "docker" else 0,
            starting=container["State"]["Health"] == "starting",
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


def _listed(answer: Any) -> list[Json]:
    """A list of containers, each with its id. Raises MalformedError."""
    if not isinstance(answer, list):
        raise MalformedError("the list of containers that the Docker Engine shows is not a list")
    for at, one in enumerate(answer):
        if not isinstance(one, dict) or not isinstance(one.get("Id"), str):
            raise MalformedError(f"item {at} of the Docker Engine's list of containers has no Id")
    return answer


def _at_present(inspected: Json, listed: Json) -> Json:
    """What was once inspected, with what may have changed since: the name, how it runs, and its networks."""
    own = next((name for name in listed["Names"] if name.count("/") == 1), inspected["Name"])
    check = CHECKED.search(listed["Status"])
    state = {"Status": listed["State"], "Health": check.group(1) if check else "healthy"}
    networks = {**inspected["NetworkSettings"], **listed["NetworkSettings"]}
    return {**inspected, "Name": own, "State": state, "NetworkSettings": networks}


T = TypeVar("T")
UNLIMITED = timedelta(days=365)  # each question has limits of its own


def together(questions: Sequence[Callable[[], T]], at_once: int = AT_ONCE) -> list[T]:
    """The answers in the questions' order. Raises what the first that failed raised. A process ends without them."""
    answers = list[T]()
    for answer in ask_each(dict(enumerate(questions)), UNLIMITED, at_once).values():
        if isinstance(answer, GoldsmithError):
            raise answer
        answers.append(answer)
    return answers


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
ENGINES_OWN = 30.0  # seconds: what the engine gives a health check that names no timeout, and waits between two
ENGINES_START = 5.0  # seconds: and between two in the start period
LONGEST_INTERVAL = 86400.0  # seconds: so much of any is believed


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
    return ask(health, address_of(container))


def _own_check(api: Any, container: dict[str, Any]) -> Read:
    """The image's health check: what the engine last saw, and, as that may be old, the same command once more."""
    health = container["State"].get("Health")
    if not health:
        return Read(False, "the image has no health check: set health.kind to http, tcp or exec in the fleet's file")
    if health["Status"] != "healthy":
        last = (health.get("Log") or [{}])[-1]
        return Read(False, f"{health['Status']}: {last_line(str(last.get('Output', ''))) or 'not checked yet'}")
    kind, *words = container["Config"]["Healthcheck"]["Test"]
    shell = container["Config"].get("Shell") or ["/bin/sh", "-c"]
    seconds = (container["Config"]["Healthcheck"].get("Timeout") or 0) / 1e9 or ENGINES_OWN
    return inside(api, container, [*shell, *words] if kind == "CMD-SHELL" else words, seconds)


def first_check(container: dict[str, Any]) -> int:
    """After how many seconds the engine asks a container's own health check for the first time."""
    check = container["Config"].get("Healthcheck") or {}
    which, default = ("StartInterval", ENGINES_START) if check.get("StartPeriod") else ("Interval", ENGINES_OWN)
    return round(min(max(0.0, (check.get(which) or 0) / 1e9) or default, LONGEST_INTERVAL))


def inside(api: Any, container: dict[str, Any], command: list[str], seconds: float) -> Read:
    """Run a command in a container: good where it ends with 0 within `seconds`. One that does not end runs on there.

    Where the engine cannot run it in this one container, that is a bad read of this one, and no failure of the engine.
    """
    try:
        return _run(api, container, command, seconds)
    except (docker.errors.APIError, SSLError, ReadTimeout, ConnectionError) as error:
        return Read(False, f"{command[0]} could not be run: {getattr(error, 'explanation', None) or error}")


def _run(api: Any, container: dict[str, Any], command: list[str], seconds: float) -> Read:
    run = api.exec_create(container["Id"], command)
    output, until = b"", time.monotonic() + seconds
    stream: Any = api.exec_start(run["Id"], socket=True)
    # The response first: over what is closed already, the end of it would be told on standard error.
    response, connection = getattr(stream, "_response", stream), getattr(stream, "_sock", stream)
    with closing(connection), closing(stream), closing(response):
        try:
            for printed in _printed(connection, until):
                output = (output + printed)[-SHOWN_BYTES:]
        except TimeoutError:
            return Read(False, f"{command[0]} did not end within {seconds:g} s{_said(output)}")
    status = api.exec_inspect(run["Id"])["ExitCode"]
    return Read(status == 0, f"{command[0]} ended with {status}{_said(output)}")


READS_LATE = 100  # of what had come when the time was over
FRAME_HEADER = 8  # bytes: the stream's number, three of nothing, and how long the frame is


def _printed(connection: socket, until: float) -> Iterator[bytes]:
    """What a command prints until it ends. Raises TimeoutError where at `until` nothing more has come, or it goes on.

    It is read with a time limit and not waited for: what TLS has read already, no wait on the socket would see.
    """
    late = 0

    def received(most: int) -> bytes:
        nonlocal late
        left = until - time.monotonic()
        late += left <= 0
        if late > READS_LATE:
            raise TimeoutError
        connection.settimeout(max(MOMENT / 1000, left))
        return connection.recv(most)

    while True:
        header = b""
        while len(header) < FRAME_HEADER:
            if not (some := received(FRAME_HEADER - len(header))):
                return
            header += some
        left = int.from_bytes(header[4:])
        while left:
            if not (some := received(min(left, CHUNK))):
                return
            left -= len(some)
            yield some


def _said(output: bytes) -> str:
    text = last_line(output.decode(errors="replace"))
    return f": {text}" if text else ""


def address_of(container: dict[str, Any]) -> str:
    """Where this host reaches the container."""
    if container["HostConfig"].get("NetworkMode") == "host":
        return "127.0.0.1"
    networks = (container["NetworkSettings"].get("Networks") or {}).values()
    return next((str(one["IPAddress"]) for one in networks if one.get("IPAddress")), "")
