"""Builders: how a planned image becomes a content manifest in the store. One file a builder, one line in `BUILDERS`."""

from __future__ import annotations

import platform as host
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardening.foundation.errors import OutsideError
from hardening.foundation.process import run, which
from images.artifact import Package
from images.model import Definition

if TYPE_CHECKING:
    from hardening.render import Overlay
    from images.oci import Store

# Changes whenever a builder would make other bytes from the same inputs; enters every input digest.
BUILDER_VERSION = "1"

_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}


@dataclass(frozen=True)
class BuildJob:
    """All that a build is a function of. `work` is temporary and removed by the caller.

    `packages` are those to add, `debs` their files, `stanzas` their index entries; `sources` is the apt configuration
    that the image itself will hold. `parent` or `upstream` is the content digest, in the store, of what it stands on.
    """

    name: str
    definition: Definition
    definition_folder: Path
    platform: str
    overlay: Overlay
    packages: tuple[Package, ...]
    debs: dict[Package, Path]
    stanzas: str
    sources: str
    parent: str | None
    upstream: str | None
    work: Path
    store: Store
    docker_host: str = ""

    @property
    def base(self) -> str | None:
        """The content digest this image stands on, whosever it is."""
        return self.parent or self.upstream


@dataclass(frozen=True)
class Built:
    """A finished build: the content manifest's digest, all packages in it, and its unpacked filesystem in `work`."""

    digest: str
    packages: tuple[Package, ...]
    created: datetime
    tree: Path
    config: dict[str, Any]
    size_bytes: int
    dockerfile: Path | None = None


def build(job: BuildJob) -> Built:
    """Build `job` with the builder its base asks for.

    Raises OutsideError when a tool, the disk or the platform fails, ContentError when the definition's files do.
    """
    name = builder_of(job.definition)
    if name != "static":
        require_platform(job.platform)
    return BUILDERS[name](job)


def builder_of(definition: Definition) -> str:
    """The name of the builder for `definition`."""
    bootstrap = definition.base.bootstrap
    if bootstrap is None:
        return "buildkit"
    return "static" if bootstrap.variant == "static" else "bootstrap"


@cache
def builder_version(name: str) -> str:
    """What of the builder `name` can change the bytes of an image: our own version and its tools'; for input digests."""
    import zstandard

    versions = [BUILDER_VERSION, f"libzstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}"]
    if name == "bootstrap":
        versions.append(run(["mmdebstrap", "--version"]).stdout.strip())
    return ", ".join(versions)


def require_platform(platform: str) -> None:
    """Raises OutsideError unless this machine can run programs of `platform`, natively or by emulation."""
    machine = _MACHINES[platform]
    emulator = Path("/proc/sys/fs/binfmt_misc") / f"qemu-{machine}"
    if host.machine() != machine and not emulator.exists():
        raise OutsideError(
            f"cannot build {platform} on this machine, which is {host.machine()}",
            hint="install qemu-user-static with binfmt-support, or build on a machine of that architecture",
        )


def _bootstrap(job: BuildJob) -> Built:
    from images.builders import bootstrap

    return bootstrap.build(job)


def _static(job: BuildJob) -> Built:
    from images.builders import static

    return static.build(job)


def _buildkit(job: BuildJob) -> Built:
    from images.builders import buildkit

    return buildkit.build(job)


BUILDERS: dict[str, Callable[[BuildJob], Built]] = {
    "bootstrap": _bootstrap,
    "static": _static,
    "buildkit": _buildkit,
}
