"""The one client of each Docker Engine. Edge to Docker."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hardening.foundation.errors import OutsideError
from hardening.foundation.retrying import retrying

if TYPE_CHECKING:
    from docker import DockerClient

OF_STATE = "dev.goldsmith.state"  # label: the state directory whose container or network it is


@lru_cache(maxsize=4)
def engine(docker_host: str) -> DockerClient:
    """A client of the engine at `docker_host`. Raises OutsideError when it does not answer."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.DockerClient(base_url=docker_host, timeout=120)
        client.ping()
    except DockerException as error:
        hint = "./goldsmith setup starts one; ./goldsmith doctor shows which is used"
        raise OutsideError(f"no Docker Engine answers at {docker_host}", evidence=str(error), hint=hint) from None
    return client


def images_named(docker_host: str, pattern: str) -> list[dict[str, Any]]:
    """The engine's images whose names match `pattern`, such as `*/trial/*`, as its API describes them.

    Asked again where the engine misses one of its images, of whatever name: somebody is removing that one just then.
    Raises OutsideError where it goes on doing so.
    """
    from docker.errors import NotFound

    api = engine(docker_host).api

    def listed() -> list[dict[str, Any]]:
        try:
            return list(api.images(filters={"reference": pattern}))
        except NotFound as error:
            raise OutsideError(f"{docker_host} could not list its images", evidence=str(error)) from None

    return retrying(listed, within=timedelta(seconds=20))
