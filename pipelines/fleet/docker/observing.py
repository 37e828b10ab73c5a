"""Edge: asks an engine how the members of a fleet run: settings, files that changed, processes from outside."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any

import docker.errors
from requests.exceptions import RequestException

from hardening.foundation.errors import NOT_UNDERSTOOD, GoldsmithError, OutsideError, RefusedError, traced
from hardening.foundation.limits import CHUNK, CONTAINER_ANSWER, parse_json
from hardening.runtime import Observed
from pipelines.fleet.docker.container_facts import (
    MOST_PROCESSES,
    PS,
    ContainerProcess,
    EngineSettings,
    Look,
    bound_volumes,
    facts_of,
    foreign,
    health_check,
    processes_of,
)
from pipelines.fleet.docker.container_spec import Json
from pipelines.fleet.docker.images import Images
from pipelines.fleet.docker.inventory import find, outside, together
from pipelines.fleet.docker.members import DockerFleet
from pipelines.fleet.members import Member, is_shared, lender
from pipelines.fleet.model import Fleet

TALK = "com.docker.network.bridge.enable_icc"
NO_PROCESS = "its processes share a namespace with others, so whose they are cannot be told"
LOOKS_AT_ONCE = 4  # what differs from an image costs the host a walk through the whole of it
NO_ANSWER = (docker.errors.APIError, RequestException, GoldsmithError)


def observe(port: DockerFleet, members: Sequence[Member]) -> dict[str, Observed]:
    """How the members run, by their ids; some at the same time. What the engine does not tell of one is unread, and no
    failure of others. Raises OutsideError.
    """
    if not members:
        return {}
    with outside("looking at how containers run", port.engine):
        daemon = _daemon(port.api)
        asked = [partial(_observed, port.api, member, port.images, port.fleet, daemon) for member in members]
        return dict(zip([member.id for member in members], together(asked, LOOKS_AT_ONCE), strict=True))


def _daemon(api: Any) -> EngineSettings:
    talk = "true"  # the engine's own default
    with suppress(docker.errors.APIError):
        talk = str((api.inspect_network("bridge").get("Options") or {}).get(TALK, talk))
    bound = None
    with suppress(docker.errors.APIError, RequestException):  # such as where a plugin for volumes does not answer
        bound = bound_volumes(api.volumes().get("Volumes") or ())
    return EngineSettings(dict(api.info()), talk == "true", bound)


def _observed(api: Any, member: Member, images: Images, fleet: Fleet, daemon: EngineSettings) -> Observed:
    try:
        container = find(api, member.handle)
        if container is None:
            return Observed("container", None, unread="the container is gone")
        return Observed("container", facts_of(_look(api, container, images, fleet), daemon))
    except NO_ANSWER as error:
        return Observed("container", None, unread=_said(error))
    except NOT_UNDERSTOOD as error:
        return Observed("container", None, unread=f"the engine's answer is not understood: {traced(error)}")


def _look(api: Any, container: Json, images: Images, fleet: Fleet) -> Look:
    """Its processes first: the longer ago it was inspected, the less the two fit together."""
    why: dict[str, str] = {}
    checks = {health_check(container), fleet.health.command, fleet.limits.before_drain, fleet.limits.after_drain}
    processes = _asked(partial(foreign_processes, api, container, checks), "foreign_processes", why)
    changes = _asked(partial(changes_of, api, container), "changed_files", why)
    network, beside = (_lender(api, container, key) for key in ("NetworkMode", "PidMode"))
    return Look(container, _image_config(images, container), changes, processes, why, network, beside)


def _lender(api: Any, container: Json, key: str) -> Json | None:
    """The container whose namespace it shares; None where it shares no container's."""
    other = lender(container["HostConfig"].get(key))
    return find(api, other) if other else None


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
    except NO_ANSWER as error:
        why[rule] = _said(error)
    except NOT_UNDERSTOOD as error:
        why[rule] = f"the engine's answer is not understood: {traced(error)}"
    return None


def _said(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or getattr(error, "message", "") or error)


def changes_of(api: Any, container: Json) -> list[Json]:
    """What differs from the image: nothing where the root cannot be written to. Raises OutsideError over the limit."""
    if container["HostConfig"].get("ReadonlyRootfs"):
        return []
    address = api._url("/containers/{0}/changes", container["Id"])
    return list(_bounded(api, address, f"what changed in {container['Id'][:12]}") or ())


def foreign_processes(api: Any, container: Json, checks: Collection[tuple[str, ...]]) -> list[ContainerProcess]:
    """The processes that were started in it from outside and last for two looks, without `checks`.

    Whatever an exec has started and both looks have seen, `inspect` between them names: a check is told by the words
    that the engine was given, for `ps` shows what its shell made of them. Raises OutsideError where its processes
    cannot be told from others'.
    """
    if _runs(container) and is_shared(container["HostConfig"].get("PidMode")):
        raise OutsideError(NO_PROCESS)
    first = foreign(_processes(api, container), container)
    again = find(api, container["Id"]) if first else None
    if again is None:
        return []
    lasting = {one.pid for one in first}
    second = [one for one in foreign(_processes(api, again), again) if one.pid in lasting]
    executed = _executed(api, again) if second else {}
    return [one for one in second if executed.get(one.pid) not in checks]


def _processes(api: Any, container: Json) -> list[ContainerProcess]:
    """All its processes; of one that does not run, none."""
    if not _runs(container):
        return []
    address = api._url("/containers/{0}/top", container["Id"])
    return processes_of(_bounded(api, address, f"what runs in {container['Id'][:12]}", ps_args=PS))


def _runs(container: Json) -> bool:
    return bool((container.get("State") or {}).get("Running"))


def _executed(api: Any, container: Json) -> dict[str, tuple[str, ...]]:
    """The words of what runs in it by exec, by process."""
    found = {}
    for name in (container.get("ExecIDs") or ())[:MOST_PROCESSES]:
        with suppress(docker.errors.NotFound):
            shown = _bounded(api, api._url("/exec/{0}/json", name), f"what was executed in {container['Id'][:12]}")
            asked = shown["ProcessConfig"]
            found[str(shown["Pid"])] = (str(asked["entrypoint"]), *map(str, asked.get("arguments") or ()))
    return found


def _bounded(api: Any, address: str, what: str, **asked: str) -> Any:
    """An answer as JSON, which may be as long as whoever writes in the container likes. Raises OutsideError."""
    answer = api._get(address, params=asked, stream=True)
    with closing(answer):
        api._raise_for_status(answer)
        data = bytearray()
        for chunk in answer.iter_content(CHUNK):
            data += chunk
            CONTAINER_ANSWER.require(len(data), what)
    return parse_json(bytes(data) or b"null", what)
