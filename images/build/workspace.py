"""Temporary directories of builds, and the cleanup of those that killed builds left behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import Settings
from hardening.foundation.timing import step

TRIAL = "trial-"  # so begins what a workspace holds before anything of it is on an engine
WORK_LABEL = "dev.goldsmith.work"


@contextmanager
def workspace(settings: Settings) -> Iterator[Path]:
    """A fresh directory under the state directory, locked while in use and removed at the end."""
    base = settings.state_dir / "work"
    base.mkdir(parents=True, exist_ok=True)
    directory = base / uuid4().hex[:12]
    with FileLock(directory.with_suffix(".lock")):
        directory.mkdir()
        try:
            yield directory
        finally:
            with step("clean up"):
                _remove(directory)


def sweep(settings: Settings, docker_host: Callable[[], str]) -> None:
    """Remove the workspaces of runs that died, and their trial containers and images; says which.

    A workspace whose lock is held belongs to a living run and is left alone; one whose engine does not answer waits
    for the next sweep. Mounts need none: they live in namespaces that die with their process.
    """
    for lock_file in sorted((settings.state_dir / "work").glob("*.lock")):
        lock = FileLock(lock_file, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        try:
            _sweep_one(lock_file.with_suffix(""), docker_host)
        finally:
            lock.release()


def _sweep_one(directory: Path, docker_host: Callable[[], str]) -> None:
    say(f"removing what a killed run left: {directory.name}")
    try:
        if any(directory.glob(f"{TRIAL}*")):  # else it asked no engine for anything, and there may be none
            _sweep_engine(docker_host(), directory.name)
        _remove(directory)
    except OutsideError as error:
        say(f"it stays for now: {error.message}")


def _remove(directory: Path) -> None:
    """Remove a workspace and its lock file."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.with_suffix(".lock").unlink(missing_ok=True)


def _sweep_engine(docker_host: str, work_id: str) -> None:
    """Remove the containers and image names that a dead run left on the engine."""
    from docker.errors import DockerException

    from images.engine import engine, images_named

    # The plain listings: those of whole objects ask for each one again, and fail where one has gone in between.
    api = engine(docker_host).api
    try:
        for container in api.containers(all=True, filters={"label": f"{WORK_LABEL}={work_id}"}):
            api.remove_container(container["Id"], force=True, v=True)
        for image in images_named(docker_host, f"*/trial/{work_id}"):
            for tag in image["RepoTags"] or []:
                api.remove_image(tag, force=True)
    except DockerException as error:
        raise OutsideError("the engine could not be cleaned up", evidence=str(error)) from None
