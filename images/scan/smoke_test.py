"""The trial: the built image really run, with a read-only root and no privileges at all. Edge to Docker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hardening.foundation.errors import OutsideError
from hardening.foundation.process import pipe_from
from images.build.workspace import TRIAL, WORK_LABEL
from images.engine import engine
from images.model import Definition
from images.store.oci import Store

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

TIMEOUT_SECONDS = 60
CANNOT_START = 127
TIMED_OUT = 124
LOG_SIZE = "512k"  # of what it prints the engine keeps the newest only: two files of this size


def run_hardened(definition: Definition, digest: str, store: Store, work: Path, docker_host: str) -> tuple[int, str]:
    """Run the definition's smoke command in the image `digest`, as its default user, with
    `--read-only --cap-drop ALL --security-opt no-new-privileges` and no network; returns exit status and output.

    Nothing of it stays on the engine. Raises OutsideError when the engine fails, not when the command does.
    """
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    client = engine(docker_host)
    tag = f"goldsmith.invalid/trial/{work.name}:{digest[7:19]}"
    try:
        _load(store, digest, tag, work, docker_host)
        try:
            return _run(client, tag, definition, work.name)
        finally:
            client.images.remove(tag, force=True)
    except (DockerException, RequestException) as error:
        raise OutsideError(f"the trial of {definition.name} could not run", evidence=str(error)) from None


def _load(store: Store, digest: str, tag: str, work: Path, docker_host: str) -> None:
    """Give the image to the engine as an OCI layout, under a name of this run only."""
    layout = work / f"{TRIAL}{digest[7:19]}"
    store.layout_for(digest, layout, {"io.containerd.image.name": tag})
    pipe_from(["tar", "-C", str(layout), "-cf", "-", "."], engine(docker_host).images.load)


def _run(client: DockerClient, tag: str, definition: Definition, work_id: str) -> tuple[int, str]:
    from docker.errors import APIError
    from docker.types import LogConfig
    from requests.exceptions import ConnectionError, ReadTimeout  # noqa: A004

    container = client.containers.create(
        tag,
        list(definition.smoke[1:]),
        entrypoint=list(definition.smoke[:1]),
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        network_mode="none",
        tmpfs=dict.fromkeys(definition.tmpfs, "mode=1777"),
        labels={WORK_LABEL: work_id},
        log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": LOG_SIZE, "max-file": "2"}),
    )
    try:
        try:
            container.start()
        except APIError as error:  # the engine is well, the image is not: its command cannot even be started
            return CANNOT_START, error.explanation or str(error)
        try:
            status = int(container.wait(timeout=TIMEOUT_SECONDS)["StatusCode"])
        except (ConnectionError, ReadTimeout):  # requests raises either one when the time is over
            return TIMED_OUT, f"it did not end within {TIMEOUT_SECONDS} s\n{_logs(container)}"
        return status, _logs(container)
    finally:
        container.remove(force=True, v=True)


def _logs(container: Container) -> str:
    return str(container.logs().decode(errors="replace"))
