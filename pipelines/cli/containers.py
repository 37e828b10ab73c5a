"""What the tasks on this machine's engine call: which engine it is, and an image that runs as its definition says."""

from __future__ import annotations

import hashlib
import socket
from contextlib import suppress
from datetime import timedelta
from shlex import quote
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hardening.findings import Outcome
from hardening.foundation.console import out, print_json, say
from hardening.foundation.durations import shown
from hardening.foundation.errors import ContentError, OutsideError, RefusedError, UsageError
from hardening.foundation.settings import Settings, load_settings
from images.artifact import Artifact
from images.build.flow import build
from images.build.workspace import workspace
from images.context import Context
from images.documents import to_json
from images.engine import OF_STATE, engine
from images.model import Definition
from images.registry.login import login_file
from images.scan.judge import latest
from images.scan.verify import START_SECONDS, as_meant, load_into, until_healthy
from pipelines.cli.image import one_of
from pipelines.contract import Line
from pipelines.host import embedded_registry
from pipelines.host.private_engine import PrivateEngine
from pipelines.host.provision import existing_engine
from pipelines.wiring import image_context

if TYPE_CHECKING:
    from docker import DockerClient

RUNS = "dev.goldsmith.run"  # label: the image's name
RUN_IMAGES = "goldsmith.invalid/run"
RUN_COLUMNS = {"image": "name", "answers at": "answers_at", "state": "state"}
LOOPBACK = "127.0.0.1"
ASKED_EACH_SECONDS = 30  # Docker's own, where an image's health check does not say it


class EngineLine(Line):
    """`engine.show`: the engine that `fleets` run on, or that `builds` use; `private`: Goldsmith's own."""

    what: str
    host: str
    version: str
    containerd_store: bool
    private: bool


class RunLine(Line):
    """`image.run`: the container that runs an image, and where it answers; `state`: healthy, running or removed."""

    name: str
    digest: str
    engine: str
    container: str
    answers_at: tuple[str, ...]
    state: str


def engine_lines(settings: Settings) -> list[EngineLine]:
    """The engines that run. Raises OutsideError where there is none for fleets, or a configured one is silent."""
    own, lines = PrivateEngine(settings).host, list[EngineLine]()
    for what, for_builds in (("fleets", False), ("builds", True)):
        if found := existing_engine(settings, for_builds):
            lines.append(
                EngineLine(
                    what=what, host=found.host, version=found.version, containerd_store=found.containerd_store,
                    private=found.host == own,
                )
            )  # fmt: skip
        elif not for_builds:
            raise OutsideError("no Docker Engine runs here", hint="./goldsmith setup starts one")
    return lines


def show_engines(*, as_json: bool) -> None:
    """Print the engine that fleets run on, as a shell takes it; what else there is to know, on standard error."""
    settings = load_settings()
    lines = engine_lines(settings)
    if as_json:
        print_json([to_json(line) for line in lines])
        return
    out().out(f"export DOCKER_HOST={quote(lines[0].host)}", highlight=False)
    if not lines[1:]:
        say("no engine for builds runs; the next build starts one")
    elif lines[1].host != lines[0].host:
        say(f"that is the engine of fleets and images are built on another one: {lines[1].host}")
    if (registry := embedded_registry.known_address(settings)) and not settings.registry.address:
        login = login_file(settings).parent
        say(f"pull from the embedded registry: docker --config {quote(str(login))} pull {registry}/NAME:stable")


def run_image(name: str, *, stop: bool = False, context: Context | None = None) -> list[RunLine]:
    """Run the image `name` as it stands now, built where it has changed, in a container in place of the last one; or
    `stop` that. Read-only root, no capabilities, its own user, tmpfs and health check; its ports on loopback alone.

    Raises ContentError for a machine, UsageError for an image that runs nothing by itself, RefusedError for one that
    ends or is not healthy in time, OutsideError.
    """
    context = context or image_context()
    only = one_of(context, name)
    definition, folder = context.definitions[only].definition, context.definitions[only].folder
    if definition.is_machine:
        hint = f"./goldsmith image.boot {only} boots it"
        raise ContentError(f"{only} is a machine", file=folder / "image.toml", key="kind", hint=hint)
    if none := definition.healthcheck.none_because:
        raise UsageError(
            f"{only} runs nothing by itself: {none}", hint=f"./goldsmith image.verify {only} runs its smoke command"
        )
    host = context.build_host()
    if stop:
        state = "removed" if remove_runs(host, context.settings, only) else "not there"
        return [_line(context.settings, only, "", host, (), state)]
    if error := next(one.error for one in build(context, [only]) if one.name == only):
        raise error
    return [_run(context, definition, latest(context, only), host)]


def _line(settings: Settings, name: str, digest: str, host: str, answers_at: tuple[str, ...], state: str) -> RunLine:
    container = _container(settings, name)
    return RunLine(name=name, digest=digest, engine=host, container=container, answers_at=answers_at, state=state)


def _container(settings: Settings, name: str) -> str:
    """The container's name: no other state's, which may run the same image on the same engine."""
    return f"goldsmith-run-{name}-{hashlib.sha256(str(settings.state_dir).encode()).hexdigest()[:8]}"


def _run(context: Context, definition: Definition, artifact: Artifact, host: str) -> RunLine:
    """Start the container. Raises RefusedError with what it printed, and leaves nothing, where it does not stay up."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    client, tag = engine(host), f"{RUN_IMAGES}/{artifact.name}:{artifact.digest[7:19]}"
    config = context.store.config(artifact.digest).get("config") or {}
    exposed, interval, local = config.get("ExposedPorts") or {}, _interval(config), host.startswith("unix://")
    try:
        remove_runs(host, context.settings, artifact.name)
        with workspace(context.settings) as work:
            load_into(context.store, artifact.digest, tag, work, host)
        say(f"{artifact.name}: starting; its health check is asked every {shown(interval)}")
        try:
            container = client.containers.create(
                tag, name=_container(context.settings, artifact.name), **as_meant(definition),
                labels={RUNS: artifact.name, OF_STATE: str(context.settings.state_dir)},
                ports={port: (LOOPBACK, _on_loopback(port) if local else 0) for port in exposed},
            )  # fmt: skip
            outcome, said = until_healthy(client, container, START_SECONDS + interval.total_seconds())
            if outcome is not Outcome.PASS:
                raise RefusedError(f"{artifact.name} does not run as its definition says", evidence=said)
            container.reload()
        except BaseException:  # Ctrl-C too
            remove_runs(host, context.settings, artifact.name)
            raise
    except (DockerException, RequestException) as error:
        raise OutsideError(f"{artifact.name} could not be run", evidence=str(error)) from None
    published = container.attrs["NetworkSettings"]["Ports"] or {}
    loopback = LOOPBACK if local else f"{urlsplit(host).hostname}: {LOOPBACK}"  # the loopback of the engine's machine
    addresses = tuple(
        f"{loopback}:{one['HostPort']} → {port}" for port, found in sorted(published.items()) for one in found or ()
    )
    return _line(context.settings, artifact.name, artifact.digest, host, addresses, "healthy")


def _interval(config: dict[str, Any]) -> timedelta:
    """How often the engine asks an image's health check, which may be its base's."""
    nanoseconds = (config.get("Healthcheck") or {}).get("Interval") or ASKED_EACH_SECONDS * 10**9
    return timedelta(microseconds=nanoseconds // 1000)


def _on_loopback(port: str) -> int:
    """The port's own number where it is free on loopback, so that the address stays; else 0: the engine chooses."""
    number, _, protocol = port.partition("/")
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(type=kind) as probe, suppress(OSError):
        probe.bind((LOOPBACK, int(number)))
        return int(number)
    return 0


def runs(client: DockerClient, settings: Settings, name: str = "") -> list[Any]:
    """The containers that `image.run` started from this state, or that of one image."""
    labels = [f"{OF_STATE}={settings.state_dir}", f"{RUNS}={name}" if name else RUNS]
    return list(client.api.containers(all=True, filters={"label": labels}))


def remove_runs(host: str, settings: Settings, name: str = "") -> list[str]:
    """Remove them, and their images where nothing else runs on them; their names."""
    from docker.errors import APIError

    client = engine(host)
    found = runs(client, settings, name)
    for container in found:
        client.api.remove_container(container["Id"], force=True, v=True)
        with suppress(APIError):  # another state's container runs on it
            client.api.remove_image(container["Image"])
    return [container["Names"][0].lstrip("/") for container in found]


def show_run(lines: list[RunLine], *, as_json: bool) -> int:
    """Print where the image answers, and what to type next."""
    from pipelines.cli.image_output import show

    code = show(lines, columns=RUN_COLUMNS, as_json=as_json)
    for line in lines:
        if line.digest:
            say(f"what it prints: docker --host {line.engine} logs --follow {line.container}")
            say(f"to remove it: ./goldsmith image.run {line.name} --stop")
    return code
