"""Edge: one look at a member's health, from this host or inside the container."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from select import select
from typing import TYPE_CHECKING, Any

from pipelines.fleet.members import Read
from pipelines.fleet.model import Health

if TYPE_CHECKING:
    import docker

BAD_STATUS = 400
SHOWN = 200  # bytes of what a command printed last
ENGINES_OWN = 30.0  # seconds: what the engine gives a health check that names no timeout


def probe(api: docker.APIClient, health: Health, container: dict[str, Any]) -> Read:
    """Ask the container how it is, in the way that `health` says. A container that does not run is never healthy."""
    status = container["State"]["Status"]
    if status != "running":
        return Read(False, f"{status}, exit status {container['State'].get('ExitCode')}")
    if health.kind == "docker":
        return _own_check(api, container)
    if health.kind == "exec":
        return inside(api, container, list(health.command), health.timeout.total_seconds())
    return ask(health, _address(container))


def ask(health: Health, address: str) -> Read:
    """Ask an address from this host, by tcp or http."""
    if not address:
        return Read(False, "it has no address that this host could ask")
    seconds = health.timeout.total_seconds()
    if health.kind == "tcp":
        return _tcp(address, health.port or 0, seconds)
    return _http(f"http://{address}:{health.port}{health.path}", seconds)


def _own_check(api: docker.APIClient, container: dict[str, Any]) -> Read:
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


def inside(api: docker.APIClient, container: dict[str, Any], command: list[str], seconds: float) -> Read:
    """Run a command in a container: good where it ends with 0 within `seconds`. One that does not end runs on there.

    Where the engine cannot run it in this one container, that is a bad read of this one, and no failure of the engine.
    """
    import docker.errors
    from docker.utils.socket import SocketError
    from requests.exceptions import ReadTimeout

    try:
        return _run(api, container, command, seconds)
    except (docker.errors.APIError, SocketError, ReadTimeout, ConnectionError) as error:
        return Read(False, f"{command[0]} could not be run: {getattr(error, 'explanation', None) or error}")


def _run(api: docker.APIClient, container: dict[str, Any], command: list[str], seconds: float) -> Read:
    from docker.utils import socket as sockets

    run = api.exec_create(container["Id"], command)
    output, until = b"", time.monotonic() + seconds
    stream: Any = api.exec_start(run["Id"], socket=True)
    with closing(getattr(stream, "_sock", stream)), closing(stream):  # the socket, and the file over it
        frames: Iterator[tuple[int, bytes]] = sockets.frames_iter(stream, tty=False)  # type: ignore[no-untyped-call]
        while select([stream], [], [], max(0.0, until - time.monotonic()))[0]:
            if (frame := next(frames, None)) is None:
                break
            output = (output + frame[1])[-SHOWN:]
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


def _tcp(address: str, port: int, seconds: float) -> Read:
    try:
        with socket.create_connection((address, port), timeout=seconds):
            return Read(True, f"{address}:{port} accepts connections")
    except OSError as error:
        return Read(False, f"{address}:{port}: {error}")


def _http(url: str, seconds: float) -> Read:
    import requests

    session = requests.Session()
    session.trust_env = False  # a proxy for the outside must not stand between us and a container
    try:
        with session, session.get(url, timeout=seconds, allow_redirects=False, stream=True) as answer:
            return Read(answer.status_code < BAD_STATUS, f"{url} answered {answer.status_code}")
    except requests.exceptions.RequestException as error:
        return Read(False, f"{url}: {error}")
