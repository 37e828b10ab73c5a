"""What this machine can do for flows with needs, and what a fleet or a definition needs of a machine."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError, UsageError, nearest
from hardening.foundation.settings import Settings
from pipelines.host.provision import docker_host, lacking_for_machines

if TYPE_CHECKING:
    from images.model import Definition
    from pipelines.durable.dbos import Offer
    from pipelines.fleet.model import Fleet

DOCKER, MACHINES, KVM, EMULATION = "docker", "machines", "kvm", "emulation"
ARCH, REGION, HOST = "arch:", "region:", "host:"
KNOWN = (DOCKER, MACHINES, KVM, EMULATION, ARCH, REGION, HOST)
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def found(settings: Settings) -> tuple[str, ...]:
    """The capabilities of this machine: `docker` (an engine that builds), `machines` (its tools make and boot disks,
    under `kvm` or `emulation`), `arch:…`, `region:…` for each of the settings' AWS regions, and `host:…`, itself.

    As any build does, it starts a private engine where none that builds runs.
    """
    return (
        *([DOCKER] if _builds(settings) else []),
        *_for_machines(),
        f"{ARCH}{ARCHITECTURES.get(platform.machine(), platform.machine())}",
        *(f"{REGION}{region}" for region in settings.aws.all_regions),
        f"{HOST}{platform.node()}",
    )


def _builds(settings: Settings) -> bool:
    try:
        return bool(docker_host(settings, for_builds=True))
    except OutsideError as error:
        say(f"no {DOCKER} here: {error.message}")
        return False


def _for_machines() -> list[str]:
    if lacking_for_machines():
        return []
    from images.boot.flow import accelerators

    return [MACHINES, KVM if accelerators()[0] == "kvm" else EMULATION]


def named(text: str) -> tuple[str, ...]:
    """The capabilities that somebody listed, with commas. Raises UsageError for one that nothing needs."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        kind, colon, value = name.partition(":")
        if f"{kind}{colon}" not in KNOWN or bool(colon) != bool(value):
            raise UsageError(f"unknown capability: {name}", hint=nearest(f"{kind}{colon}", KNOWN))
    if not names:
        raise UsageError("--capabilities names none", hint=f"such as {DOCKER},{ARCH}amd64")
    return names


def of_definition(definition: Definition, architecture: str, settings: Settings) -> tuple[str, ...]:
    """What a machine must have to build and publish a definition's image; `architecture` is such as linux/amd64."""
    arch = f"{ARCH}{architecture.rpartition('/')[2]}"
    if not definition.is_machine:
        return (DOCKER, arch)
    return (MACHINES, arch, *([f"{REGION}{settings.aws.region}"] if settings.aws.region else []))


def of_fleet(fleet: Fleet, settings: Settings) -> tuple[str, ...]:
    """What a machine must have to roll a fleet. An engine that is reached by a socket is one machine's own."""
    from pipelines.fleet.model import FleetKind

    if fleet.kind is FleetKind.DOCKER:
        reached = settings.docker.host and not settings.docker.host.startswith("unix:")
        return () if reached else (f"{HOST}{platform.node()}",)
    regions = fleet.ec2.regions or settings.aws.all_regions
    return tuple(f"{REGION}{region}" for region in regions)


def offer(settings: Settings, capabilities: Iterable[str], parallel: int = 0) -> Offer:
    """What a process of this machine offers: at most `parallel` flows (0: as many as its settings' `parallel`).

    All processes with the same state directory together run no more than the settings' `parallel`.
    """
    from pipelines.durable.dbos import Offer

    state = settings.state_dir
    most = settings.parallel
    return Offer(frozenset(capabilities), min(parallel or most, most), most, state / "places", state / "logs")
