"""Builders: how a planned image becomes a content manifest in the store. Each is a module here with a `build`."""

from __future__ import annotations

import platform as host
from functools import cache
from importlib import import_module
from pathlib import Path

from hardening.foundation.errors import OutsideError
from images.build import build_steps
from images.build.build_steps import BuildJob, Built
from images.model import Definition
from images.store.files import image_modes

# Changes whenever a builder would make other bytes from the same inputs; enters every input digest.
BUILDER_VERSION = "3"

_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
PLATFORMS = tuple(_MACHINES)


def build(job: BuildJob) -> Built:
    """Build `job` with the builder its base asks for.

    Raises OutsideError when a tool, the disk or the platform fails, ContentError when the definition's files do.
    """
    name = builder_of(job.definition)
    if name != "static":
        require_platform(job.platform)
    with image_modes():
        built: Built = import_module(f"images.build.{name}").build(job)
        return built


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
        hint = "install qemu-user-static with binfmt-support, or build on a machine of that architecture"
        raise OutsideError(f"cannot build {platform} on this machine, which is {host.machine()}", hint=hint)


def require_tools(definition: Definition) -> None:
    """Raises OutsideError where this host lacks what `definition` is built and booted with; containers need no more."""
    if definition.is_machine:
        from images.boot.flow import require_qemu
        from images.build import machine, mkosi

        machine.require_tools()
        require_qemu()
        if definition.is_mkosi:
            mkosi.require_mkosi()
