"""What this machine can do for flows with needs, and what definitions and fleets need of one."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError, UsageError, nearest
from hardening.foundation.hashing import digest_of
from hardening.foundation.settings import ROOT, Settings
from images.build import PLATFORMS, require_platform
from images.store.files import file_digest
from pipelines.durable.port import CONTENT
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.model import Fleet, FleetKind
from pipelines.host.provision import docker_host, lacking_for_machines
from pipelines.revisions import ROOMS, content_digest

if TYPE_CHECKING:
    from images.context import Context
    from pipelines.durable.dbos import Capacity

DOCKER, MACHINES, KVM, EMULATION = "docker", "machines", "kvm", "emulation"
ARCH, REGION, HOST = "arch:", "region:", "host:"
KNOWN = (DOCKER, MACHINES, KVM, EMULATION, ARCH, REGION, HOST)
PACKAGES, CODE = ("hardening", "images", "pipelines"), ("*.py", "*.sh", "*.j2")


def found(settings: Settings) -> tuple[str, ...]:
    """The capabilities of this machine: `docker` (an engine that builds), `machines` (its tools make and boot disks,
    under `kvm` or `emulation`), `arch:…` of each platform that it runs, `region:…` for each AWS region of settings and
    fleets, `host:…`, itself, and `content:…`.

    As any build does, it starts a private engine where none that builds runs.
    """
    return (
        *([DOCKER] if _builds(settings) else []),
        *_for_machines(),
        *(f"{ARCH}{_architecture(one)}" for one in PLATFORMS if _runs(one)),
        *(f"{REGION}{region}" for region in _regions(settings)),
        f"{HOST}{platform.node()}",
        content_of(settings),
    )


def content_of(settings: Settings) -> str:
    """The capability that says by which content and which code a process works: only with the same do two share."""
    return _content(settings.roots)


def _content(roots: tuple[Path, ...]) -> str:
    return f"{CONTENT}{digest_of([_code(), content_digest(roots)]).removeprefix('sha256:')[:12]}"


@lru_cache(maxsize=2)
def _content_at(_now: datetime, roots: tuple[Path, ...]) -> str:
    """As `content_of`, once for all images of a night."""
    return _content(roots)


@cache
def _code() -> str:
    """Of the code that this process runs, whatever its files become meanwhile."""
    content = [ROOT / room for room, _ in ROOMS.values()]
    files = [file for package in PACKAGES for suffix in CODE for file in (ROOT / package).rglob(suffix)]
    ours = sorted(file for file in files if not any(file.is_relative_to(room) for room in content))
    return digest_of([(str(file.relative_to(ROOT)), file_digest(file)) for file in ours])


def _architecture(name: str) -> str:
    return name.rpartition("/")[2]


def _runs(name: str) -> bool:
    try:
        require_platform(name)
    except OutsideError:
        return False
    return True


def _regions(settings: Settings) -> list[str]:
    """Those of the settings, and where these name one, those of the fleets' files."""
    if not settings.aws.region:
        return list(settings.aws.all_regions)
    named = (region for fleet in load_fleets(settings.roots).values() for region in fleet.named_regions)
    return list(dict.fromkeys([*settings.aws.all_regions, *named]))


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
    always = (f"{ARCH}{_architecture(settings.platform)}", _content_at(context.now, settings.roots), *here)
    if not definition.is_machine:
        return (DOCKER, *always)
    return (MACHINES, *always, *([f"{REGION}{settings.aws.region}"] if settings.aws.region else []))


def needs_of_fleet(fleet: Fleet, settings: Settings) -> tuple[str, ...]:
    """What a worker must have to roll a fleet; nothing where work is not shared.

    A Docker Engine behind a socket is one machine's own, and so are a kubeconfig and the keys to hosts that a fleet
    names; one that is reached by an address is reached from here.
    """
    if not shares(settings):
        return ()
    if fleet.kind is FleetKind.DOCKER:
        by_address = not fleet.docker.hosts and settings.docker.host and not settings.docker.host.startswith("unix:")
        return () if by_address else (f"{HOST}{platform.node()}", content_of(settings))
    if fleet.kind is FleetKind.KUBERNETES:
        return f"{HOST}{platform.node()}", content_of(settings)
    own = settings.aws.all_regions if fleet.kind is FleetKind.EC2 else (settings.aws.region,)
    regions = fleet.named_regions or own
    return (*(f"{REGION}{region}" for region in regions), content_of(settings))


def shares(settings: Settings) -> bool:
    """Whether the database is one that several processes share."""
    return not settings.database_url.startswith("sqlite")


def offer(settings: Settings, capabilities: Iterable[str], parallel: int = 0) -> Capacity:
    """What a worker offers: at most `parallel` flows (0: as many as its settings' `parallel`), by the content that lies
    there when it takes one.

    All processes with the same state directory together run no more than the settings' `parallel`.
    """
    fixed = [name for name in capabilities if not name.startswith(CONTENT)]
    _code()  # what runs is what lies there now
    return _capacity(settings, lambda: frozenset([*fixed, content_of(settings)]), parallel)


def offer_when_needed(settings: Settings) -> Capacity:
    """What a process offers beside its own work: all that it can, found when something waits for it."""
    return _capacity(settings, cache(lambda: frozenset(found(settings))), when_needed=True)


def _capacity(
    settings: Settings, capabilities: Callable[[], frozenset[str]], parallel: int = 0, *, when_needed: bool = False
) -> Capacity:
    from pipelines.durable.dbos import Capacity

    state = settings.state_dir
    most = settings.parallel
    return Capacity(
        capabilities, min(parallel or most, most), most, state / "places", state / "logs", when_needed
    )  # fmt: skip
