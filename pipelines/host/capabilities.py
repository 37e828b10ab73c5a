"""What this machine can do for flows with needs, and what definitions and fleets need of one."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError, UsageError, nearest
from hardening.foundation.settings import Settings
from pipelines.host.provision import docker_host, lacking_for_machines

if TYPE_CHECKING:
    from images.context import Context
    from pipelines.durable.dbos import Capacity
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


def needs_of(context: Context, name: str) -> tuple[str, ...]:
    """What a worker must have to build and publish a definition's image; nothing where work is not shared.

    Only this machine does it where no other sees its registry, or has its key.
    """
    settings, definition = context.settings, context.definitions[name].definition
    if not shares(settings):
        return ()
    signing = settings.signing
    ours_alone = not settings.registry.address or not (signing.key or signing.command)
    here = [f"{HOST}{platform.node()}"] if ours_alone else []
    arch = f"{ARCH}{settings.platform.rpartition('/')[2]}"
    if not definition.is_machine:
        return (DOCKER, arch, *here)
    return (MACHINES, arch, *here, *([f"{REGION}{settings.aws.region}"] if settings.aws.region else []))


def needs_of_fleet(fleet: Fleet, settings: Settings) -> tuple[str, ...]:
    """What a worker must have to roll a fleet; nothing where work is not shared.

    A Docker Engine behind a socket is one machine's own; one that is reached by an address is reached from here.
    """
    from pipelines.fleet.model import FleetKind

    if not shares(settings):
        return ()
    if fleet.kind is FleetKind.DOCKER:
        by_address = settings.docker.host and not settings.docker.host.startswith("unix:")
        return () if by_address else (f"{HOST}{platform.node()}",)
    return tuple(f"{REGION}{region}" for region in fleet.ec2.regions or settings.aws.all_regions)


def shares(settings: Settings) -> bool:
    """Whether the database is one that several processes share."""
    return not settings.database_url.startswith("sqlite")


def offer(settings: Settings, capabilities: Iterable[str], parallel: int = 0) -> Capacity:
    """What a process of this machine offers: at most `parallel` flows (0: as many as its settings' `parallel`).

    All processes with the same state directory together run no more than the settings' `parallel`.
    """
    from pipelines.durable.dbos import Capacity

    state = settings.state_dir
    most = settings.parallel
    return Capacity(frozenset(capabilities), min(parallel or most, most), most, state / "places", state / "logs")
