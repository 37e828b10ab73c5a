"""Builders: how a planned image becomes a content manifest in the store. One file a builder, one line in `BUILDERS`."""

from __future__ import annotations

import platform as host
from collections.abc import Callable
from functools import cache
from pathlib import Path

from hardening.foundation.errors import OutsideError
from images.build import build_steps
from images.build.job import BuildJob, Built
from images.model import Definition
from images.store.files import image_modes

__all__ = [
    "BUILDERS",
    "BuildJob",
    "Built",
    "build",
    "builder_of",
    "builder_version",
    "require_platform",
    "require_tools",
]

# Changes whenever a builder would make other bytes from the same inputs; enters every input digest.
BUILDER_VERSION = "2"

_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}


def build(job: BuildJob) -> Built:
    """Build `job` with the builder its base asks for.

    Raises OutsideError when a tool, the disk or the platform fails, ContentError when the definition's files do.
    """
    name = builder_of(job.definition)
    if name != "static":
        require_platform(job.platform)
    with image_modes():
        return BUILDERS[name](job)


def builder_of(definition: Definition) -> str:
    """The name of the builder for `definition`."""
    bootstrap = definition.base.bootstrap
    if definition.is_machine:
        return "mkosi" if definition.is_mkosi else "machine"
    if bootstrap is None:
        return "buildkit"
    return "static" if bootstrap.variant == "static" else "bootstrap"


def builder_version(definition: Definition) -> str:
    """What can change the bytes of an image beside its inputs: our own version and our tools'; for input digests."""
    if not definition.is_machine:
        return _layers_version()
    from images.build import machine, mkosi

    own = f", mkosi {mkosi.version()}" if definition.is_mkosi else ""
    return f"{_layers_version()}, {machine.tools_version()}{own}"


@cache
def _layers_version() -> str:
    import zstandard

    libzstd = ".".join(map(str, zstandard.ZSTD_VERSION))
    return f"{BUILDER_VERSION}, libzstd {libzstd}, mmdebstrap {build_steps.mmdebstrap_version()}"


def require_platform(platform: str) -> None:
    """Raises OutsideError unless this machine can run programs of `platform`, natively or by emulation."""
    machine = _MACHINES[platform]
    emulator = Path("/proc/sys/fs/binfmt_misc") / f"qemu-{machine}"
    if host.machine() != machine and not emulator.exists():
        raise OutsideError(
            f"cannot build {platform} on this machine, which is {host.machine()}",
            hint="install qemu-user-static with binfmt-support, or build on a machine of that architecture",
        )


def require_tools(definition: Definition) -> None:
    """Raises OutsideError where this host lacks what `definition` is built and booted with; containers need no more."""
    if definition.is_machine:
        from images.boot.vm import require_qemu
        from images.build import machine, mkosi

        machine.require_tools()
        require_qemu()
        if definition.is_mkosi:
            mkosi.require_mkosi()


def _bootstrap(job: BuildJob) -> Built:
    from images.build.bootstrap import build

    return build(job)


def _static(job: BuildJob) -> Built:
    from images.build.static import build

    return build(job)


def _machine(job: BuildJob) -> Built:
    from images.build.machine import build

    return build(job)


def _mkosi(job: BuildJob) -> Built:
    from images.build.mkosi import build

    return build(job)


def _buildkit(job: BuildJob) -> Built:
    from images.build.buildkit import build

    return build(job)


BUILDERS: dict[str, Callable[[BuildJob], Built]] = {
    "bootstrap": _bootstrap,
    "static": _static,
    "buildkit": _buildkit,
    "machine": _machine,
    "mkosi": _mkosi,
}
