"""`teardown`: removes what Goldsmith made on this machine: containers, engine, bridges, registry, state."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, OutsideError, RefusedError
from hardening.foundation.process import run, which
from hardening.foundation.settings import ROOT, Registry, Settings, load_settings
from images.engine import engine
from images.ledger import Ledger
from pipelines.cli.containers import remove_runs, runs
from pipelines.contract import Line
from pipelines.demo import web_service
from pipelines.host import embedded_registry
from pipelines.host.private_engine import PrivateEngine
from pipelines.host.provision import existing_engine
from pipelines.wiring import OURS, actor

# What only Goldsmith writes; the ledger may be elsewhere (`database`).
MARKS = ("ledger.sqlite", "store/partial", "docker/addresses", "registry/docker-registry.log")
TEARDOWN_COLUMNS = {"what": "what", "where": "where", "action": "action", "detail": "detail"}


class TeardownLine(Line):
    """`teardown`: one thing that Goldsmith made here, and what happens to it: remove (planned), removed, or stays."""

    what: str
    where: str
    action: str
    detail: str


@dataclass(frozen=True)
class Remnant:
    """Something to remove, and how; without `remove` it stays."""

    what: str
    where: str
    detail: str
    remove: Callable[[], object] | None


def tear_down(*, apply: bool, settings: Settings | None = None) -> list[TeardownLine]:
    """Plan, and with `apply` carry out, the removal of all that this installation made on this machine.

    Raises RefusedError while anything of it is at work, OutsideError where a part cannot be removed.
    """
    settings = settings or load_settings()
    _refuse_at_work(settings)
    remnants = list(_remnants(settings))
    if apply and settings.database and remnants:  # any other ledger goes with the state
        Ledger.open(settings.database).audit(datetime.now(UTC), actor(), "teardown", str(settings.state_dir))
    lines = [_line(remnant, apply=apply) for remnant in remnants]
    if not apply and any(line.action == "remove" for line in lines):
        say("nothing was done: --apply removes what is marked remove")
    say(f"what stays: {ROOT} with .venv and goldsmith.toml, and the packages that setup installed")
    return lines


def _line(remnant: Remnant, *, apply: bool) -> TeardownLine:
    action = "stays" if remnant.remove is None else "removed" if apply else "remove"
    if apply and remnant.remove:
        remnant.remove()
    return TeardownLine(what=remnant.what, where=remnant.where, action=action, detail=remnant.detail)


def _remnants(settings: Settings) -> Iterator[Remnant]:
    """All that is here, in the order in which it goes: what runs on something before that."""
    yield from _on_engines(settings)
    yield from _registries(settings)
    yield from _private_engine(settings)
    yield from _state(settings)


def _on_engines(settings: Settings) -> Iterator[Remnant]:
    """Containers of ours on engines that are not: fleets' members are their owners' and stay."""
    own, hosts = PrivateEngine(settings).host, dict[str, None]()
    demo = web_service.labels_of(settings.state_dir / "demo")
    for for_builds in (False, True):
        try:
            found = existing_engine(settings, for_builds)
        except GoldsmithError as error:
            yield Remnant("containers", "a configured engine", f"cannot be looked at: {error.message}", None)
            continue
        if found and found.host != own:
            hosts[found.host] = None
    for host in hosts:
        client = engine(host)
        if names := _names(runs(client, settings)):
            yield Remnant("images that run", host, names, partial(remove_runs, host, settings))
        if names := _names(client.api.containers(all=True, filters={"label": demo})):
            yield Remnant("the demo", host, names, partial(web_service.clean, host, demo))


def _names(containers: Iterable[dict[str, list[str]]]) -> str:
    return ", ".join(sorted(container["Names"][0].lstrip("/") for container in containers))


def _registries(settings: Settings) -> Iterator[Remnant]:
    demo = settings.model_copy(update={"state": settings.state_dir / "demo", "registry": Registry()})
    for owner in (settings, demo):
        if embedded_registry.running(owner):
            where = embedded_registry.known_address(owner)
            yield Remnant("embedded registry", where, "it runs", partial(embedded_registry.stop, owner))


def _private_engine(settings: Settings) -> Iterator[Remnant]:
    """The engine with its bridges, its addresses in the firewall and its run directory; its data are of the state."""
    private = PrivateEngine(settings)
    running, bridges = private.daemon.pid() is not None, private.bridges() if which("ip") else []
    if not (running or private.runtime.exists() or bridges):
        return
    detail = [f"bridges: {', '.join(bridges) or 'none'}"]
    if running:
        names, volumes = _held(private)
        detail += [f"its containers end: {names}"] if names else []
        detail += [f"its volumes are lost: {volumes}"] if volumes else []
    yield Remnant("private engine", str(private.runtime), "; ".join(detail), private.stop)


def _held(private: PrivateEngine) -> tuple[str, str]:
    """The names of an engine's containers, and of its volumes, which hold what services wrote."""
    try:
        api = engine(private.host).api
        volumes = api.volumes().get("Volumes") or ()
        return _names(api.containers(all=True)), ", ".join(sorted(str(one["Name"]) for one in volumes))
    except GoldsmithError:
        unknown = "unknown, for it does not answer"
        return unknown, unknown


def _state(settings: Settings) -> Iterator[Remnant]:
    """What is in the state directory, which goes too where nothing else is left in it."""
    state = settings.state_dir
    if not state.exists():
        return
    if state.stat().st_uid != os.geteuid():
        yield Remnant("state", str(state), f"it belongs to user id {state.stat().st_uid}", None)
        return
    if not any((state / mark).exists() for mark in MARKS):
        yield Remnant("state", str(state), "not a state directory", None)
        return
    _refuse_mounts(state)
    ours = [path for path in sorted(state.iterdir()) if _is_ours(path.name)]
    detail = f"{_megabytes(state)} MB: {', '.join(path.name for path in ours)}"
    yield Remnant("state", str(state), detail, partial(_remove_state, state, ours))
    for path in sorted(set(state.iterdir()) - set(ours)):
        yield Remnant("a file", str(path), "Goldsmith did not make it", None)


def _megabytes(folder: Path) -> str:
    """How much a folder takes on the disk; what disappears meanwhile does not count."""
    return run(["du", "-sm", str(folder)], ok=range(256)).stdout.partition("\t")[0]


def _is_ours(name: str) -> bool:
    ledgers = name.startswith(("ledger.", "engine-")) and ".sqlite" in name
    return ledgers or name in (*OURS, "clock.json", "logs", "places", "trees")


def _remove_state(state: Path, ours: Iterable[Path]) -> None:
    try:
        for path in sorted(ours, key=lambda path: path.name == "ledger.sqlite"):  # by which the rest is known as ours
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    except OSError as error:
        raise OutsideError(f"{error.filename} cannot be removed: {error.strerror or error}") from None
    with suppress(OSError):  # it holds what is not ours, or is a mount of its own
        state.rmdir()


def _refuse_mounts(state: Path) -> None:
    """Raise RefusedError where something is mounted in the state: it would be emptied, whatever it is."""
    inside = f"{state.resolve()}/"
    lines = Path("/proc/self/mounts").read_text().splitlines()
    mounts = [re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split()[1]) for line in lines]
    if found := [place for place in mounts if place.startswith(inside)]:
        raise RefusedError(f"{', '.join(found)}: something is mounted in the state directory", hint="unmount it first")


def _refuse_at_work(settings: Settings) -> None:
    """Raise RefusedError while a command of ours is at work: a held lock says so, and a rollout's lease."""
    state = settings.state_dir
    for file in (*state.glob("work/*.lock"), *state.glob("locks/*.lock"), *state.glob("registry/lock")):
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RefusedError("a Goldsmith command is running here", hint=f"it holds {file}") from None
        lock.release()
    if not settings.database and not (state / "ledger.sqlite").exists():
        return
    ledger = Ledger.open(settings.database_url)
    for rollout in ledger.open_rollouts():
        lease = ledger.lease(rollout.fleet)
        if lease and lease.until > ledger.now():
            raise RefusedError(
                f"the fleet {rollout.fleet} is being rolled by {lease.owner}",
                hint=f"./goldsmith roll.status {rollout.fleet} --watch, or ./goldsmith roll.abort {rollout.fleet}",
            )
