"""Edge: asks an engine how the members of a fleet run: settings, files that changed, processes from outside."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any

import docker.errors
from requests.exceptions import RequestException

from hardening.foundation.errors import GoldsmithError, OutsideError, RefusedError
from hardening.foundation.limits import CHUNK, CONTAINER_CHANGES
from hardening.runtime import Observed
from pipelines.fleet.docker.container_facts import PS, EngineSettings, Look, facts_of, rows_of
from pipelines.fleet.docker.container_spec import Json
from pipelines.fleet.docker.images import Images
from pipelines.fleet.docker.inventory import find, outside, together
from pipelines.fleet.docker.members import DockerFleet
from pipelines.fleet.members import Member
from pipelines.fleet.model import Fleet

TALK = "com.docker.network.bridge.enable_icc"
NO_PROCESS = "its processes share a namespace with others, so that nobody can tell whose they are"


def observe(port: DockerFleet, members: Sequence[Member]) -> dict[str, Observed]:
    """How the members run, by their ids; many at the same time. What the engine does not tell of one is unread, and no
    failure of others. Raises OutsideError.
    """
    if not members:
        return {}
    with outside("looking at how containers run", port.engine):
        daemon = _daemon(port.api)
        asked = [partial(_observed, port.api, member, port.images, port.fleet, daemon) for member in members]
        return dict(zip([member.id for member in members], together(asked), strict=True))


def _daemon(api: Any) -> EngineSettings:
    talk = "true"  # the engine's own default
    with suppress(docker.errors.APIError):
        talk = str((api.inspect_network("bridge").get("Options") or {}).get(TALK, talk))
    return EngineSettings(dict(api.info()), talk == "true")


def _observed(api: Any, member: Member, images: Images, fleet: Fleet, daemon: EngineSettings) -> Observed:
    container = find(api, member.handle)
    if container is None:
        return Observed("container", None, unread="the container is gone")
    why: dict[str, str] = {}
    health = (tuple(fleet.health.command),) if fleet.health.command else ()
    changes = _asked(partial(changes_of, api, container), "changed_files", why)
    processes = _asked(partial(_processes, api, container), "foreign_processes", why)
    look = Look(container, _image_config(images, container), changes, processes, why, health)
    try:
        return Observed("container", facts_of(look, daemon))
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # an engine of another kind, or of tomorrow
        return Observed("container", None, unread=f"the engine's answer is not understood: {error!r}")


def _image_config(images: Images, container: Json) -> Json:
    """What the image sets; nothing where that is forgotten: then all of it counts as what it was started with."""
    try:
        return images.of(container).get("Config") or {}
    except RefusedError:
        return {}


def _asked(ask: Callable[[], list[Any]], rule: str, why: dict[str, str]) -> list[Any] | None:
    """The answer; None where there is none, and why not."""
    try:
        return ask()
    except (docker.errors.APIError, RequestException, GoldsmithError, ValueError) as error:
        why[rule] = str(getattr(error, "explanation", None) or getattr(error, "message", "") or error)
        return None


def changes_of(api: Any, container: Json) -> list[Json]:
    """What differs from the image: nothing where the root cannot be written to. Raises OutsideError over the limit."""
    if container["HostConfig"].get("ReadonlyRootfs"):
        return []
    answer = api._get(api._url("/containers/{0}/changes", container["Id"]), stream=True)
    with closing(answer):
        api._raise_for_status(answer)
        data = bytearray()
        for chunk in answer.iter_content(CHUNK):
            data += chunk
            CONTAINER_CHANGES.require(len(data), f"what changed in {container['Id'][:12]}")
    return list(json.loads(data or b"null") or ())


def _processes(api: Any, container: Json) -> list[list[str]]:
    """Its processes; of one that does not run, none. Raises OutsideError where they cannot be told from others'."""
    if not (container.get("State") or {}).get("Running"):
        return []
    if (container["HostConfig"].get("PidMode") or "").startswith(("host", "container:")):
        raise OutsideError(NO_PROCESS)
    return rows_of(api.top(container["Id"], PS))
