"""The one client of each Docker Engine. Edge to Docker."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from hardening.foundation.errors import OutsideError

if TYPE_CHECKING:
    from docker import DockerClient


@lru_cache(maxsize=4)
def engine(docker_host: str) -> DockerClient:
    """A client of the engine at `docker_host`. Raises OutsideError when it does not answer."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.DockerClient(base_url=docker_host, timeout=120)
        client.ping()
    except DockerException as error:
        raise OutsideError(
            f"no Docker Engine answers at {docker_host}",
            evidence=str(error),
            hint="./goldsmith setup starts one; ./goldsmith doctor shows which is used",
        ) from None
    return client
