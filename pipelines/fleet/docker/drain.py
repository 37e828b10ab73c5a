"""Edge: the commands that a fleet's file asks for around the draining of a container."""

from __future__ import annotations

import time
from typing import Literal

import docker
import docker.errors

from hardening.foundation.errors import OutsideError
from pipelines.fleet.docker import essence
from pipelines.fleet.docker.given import Json
from pipelines.fleet.health import inside
from pipelines.fleet.model import Limits

LOOKS = 5


def before_drain(api: docker.APIClient, limits: Limits, old: Json) -> None:
    """Run `limits.before_drain` in `old`, unless nothing can be run in it: it is paused, or ends by itself meanwhile.

    Raises OutsideError where the command does not end with 0 in a container that goes on.
    """
    state = old["State"]
    if state["Status"] != "running":
        return
    try:
        _run(api, limits, "before_drain", old)
    except (OutsideError, docker.errors.APIError):
        if _runs_on(api, old["Id"], state["StartedAt"]):
            raise


def after_drain(api: docker.APIClient, limits: Limits, container: Json) -> None:
    """Run `limits.after_drain` in the container that serves now. Raises OutsideError where it does not end with 0."""
    _run(api, limits, "after_drain", container)


def _run(api: docker.APIClient, limits: Limits, which: Literal["before_drain", "after_drain"], container: Json) -> None:
    command = limits.before_drain if which == "before_drain" else limits.after_drain
    if command and not (seen := inside(api, container, list(command), limits.drain.total_seconds())).good:
        raise OutsideError(f"limits.{which} in {essence.name(container)}: {seen.text}")


def _runs_on(api: docker.APIClient, container: str, started: str) -> bool:
    """Whether it is the same process that runs still, and a second later too: the engine tells of an end a bit late."""
    for look in range(LOOKS):
        time.sleep(min(look, 1) / LOOKS)
        try:
            state = api.inspect_container(container)["State"]
        except docker.errors.NotFound:
            return False
        if (state["Status"], state["StartedAt"]) != ("running", started):
            return False
    return True
