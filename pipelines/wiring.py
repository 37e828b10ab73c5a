"""Wires the flows for the command line: settings, the clock and the engines, opened only when they are needed."""

from __future__ import annotations

import errno
import os
import pwd
import re
import socket
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from hardening.foundation.console import say
from hardening.foundation.content import read_toml
from hardening.foundation.errors import ContentError, OutsideError, RefusedError
from hardening.foundation.settings import MOVED, REHEARSAL, ROOT, Settings, load_settings

if TYPE_CHECKING:
    from images.context import Context

LOGIN, NO_LOGIN = Path("/proc/self/loginuid"), 2**32 - 1  # proc(5)
BY_SUDO = " (sudo by "  # between the user that a process has and the one who logged in, who is in brackets


def clock() -> datetime:
    """Now, aware UTC. `GOLDSMITH_NOW` (ISO 8601) moves it, for rehearsing what a day to come will bring."""
    moved = os.environ.get(MOVED)
    try:
        return datetime.fromisoformat(moved).astimezone(UTC) if moved else datetime.now(UTC)
    except ValueError:
        raise ContentError(f"invalid date: {moved}", key=MOVED, hint="such as 2027-01-31T12:00Z") from None


def image_context(settings: Settings | None = None, policy: str = "", *, looks: bool = False) -> Context:
    """The context of every flow over images.

    `looks`: the flow only looks and plans, so that its clock may be moved. Raises RefusedError for any other flow whose
    clock is moved outside a rehearsal, ContentError for a `policy` that is not there, and OutsideError where the state
    is another user's.
    """
    from images.context import Context
    from images.store.files import keep_private_by_default

    known = settings or load_settings()
    if not looks:
        _refuse_moved_clock(known)
    keep_private_by_default()
    keep_private(known.state_dir)
    tell_of_others(known.state_dir)
    if policy:
        from hardening.catalog import load_policy

        load_policy(known.roots, policy)  # before anything is built or scanned for it
    build_host, registry = partial(_engine, known, for_builds=True), partial(_registry, known)
    return Context(known, clock(), build_host, registry, policy, actor(), clock=clock)


def _engine(settings: Settings, *, for_builds: bool) -> str:
    """An engine as DOCKER_HOST; what finds or starts it is imported by the commands that need one."""
    from pipelines.host.provision import docker_host

    return docker_host(settings, for_builds)


def _registry(settings: Settings) -> str:
    from pipelines.host.embedded_registry import registry_address

    return registry_address(settings)


def _refuse_moved_clock(settings: Settings) -> None:
    """A moved clock would date releases, verdicts and revocations, and open windows, that others rely on."""
    if not os.environ.get(MOVED):
        return
    marker = settings.state_dir / REHEARSAL
    places = {
        "database": settings.database, "registry.address": settings.registry.address, "aws.region": settings.aws.region,
    }  # fmt: skip
    shared = [key for key, value in places.items() if value]
    if marker.is_file() and not shared:
        return
    why = f"{', '.join(shared)} is set, which others use too" if shared else f"{marker} is not there"
    raise RefusedError(
        f"{MOVED} moves the clock for rehearsals, and this command acts outside of one: {why}",
        hint=f"unset {MOVED}; to rehearse, create an empty file {REHEARSAL} in a state directory of its own "
        "(GOLDSMITH_STATE), with the embedded registry and without `database` and [aws]",
    )


def fleet_host(context: Context) -> str:
    """The engine that Docker fleets run on, as DOCKER_HOST."""
    return _engine(context.settings, for_builds=False)


def present_fleet_host(context: Context, *, local: bool) -> str:
    """The engine that `fleet_host` would give, where it is configured or, if it may be `local`, runs; empty where not.

    It starts nothing, and of a configured engine it does not ask whether that answers.
    """
    from pipelines.host.provision import configured_host, existing_engine

    if (configured := configured_host(context.settings)) or not local:
        return configured
    engine = existing_engine(context.settings, for_builds=False)
    return engine.host if engine else ""


def actor() -> str:
    """Whom the audit names: the user that runs this process, who logged in and became that one, and the host."""
    uid = os.getuid()
    behind = _logged_in(uid)
    by = f"{BY_SUDO}{_user(behind)})" if behind != uid else ""
    return f"{_user(uid)}{by}@{socket.gethostname()}"


def person(actor: str) -> str:
    """The person behind an actor, on whatever host: behind `root (sudo by ann)@host` it is ann."""
    user = actor.rpartition("@")[0] or actor
    behind = re.fullmatch(rf".*{re.escape(BY_SUDO)}(.+)\)", user)
    return behind[1] if behind else user


def _logged_in(uid: int) -> int:
    """Who logged in, as the kernel keeps it for good; where no login was recorded, root's SUDO_UID says it, or nobody.

    A number that sudo wrote can be written by whoever is root, and the kernel's cannot be changed once it is set.
    """
    said = LOGIN.read_text().strip() if LOGIN.exists() else ""
    if said.isdecimal() and int(said) != NO_LOGIN:
        return int(said)
    behind = os.environ.get("SUDO_UID", "")
    return int(behind) if uid == 0 and behind.isdecimal() and int(behind) > 0 else uid


def _user(uid: int) -> str:
    """The user's name; a container may run as a number that no passwd line names."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return f"uid {uid}"


STATE = "GOLDSMITH_STATE"
OF_UNIT = Path("/var/lib/goldsmith")  # where the systemd unit of earlier versions kept its state, whatever the settings


def said_by(file: Path | None = None) -> str:
    """What says where the state is: the environment, goldsmith.toml (or `file`), or nothing, which is the default."""
    if STATE in map(str.upper, os.environ):
        return STATE
    return "goldsmith.toml" if _in_file(file) else "the default"


def _in_file(file: Path | None) -> str:
    path = file or ROOT / "goldsmith.toml"
    return str(read_toml(path).get("state", "")) if path.exists() else ""


def other_states(state: Path, file: Path | None = None) -> list[Path]:
    """State directories that another way to start Goldsmith here would use, or has used, beside `state`, but for the
    one that it lies in, as the demo's does.

    Whoever sets the variable means that directory; only where goldsmith.toml names another one, that is worth a word.
    """
    named = [ROOT / found] if (found := _in_file(file)) else []
    places = named if said_by(file) == STATE else [*named, ROOT / Settings.model_fields["state"].default, OF_UNIT]
    used = state.resolve()
    return [
        place
        for place in dict.fromkeys(places)
        if os.access(place / "ledger.sqlite", os.F_OK)
        and not used.is_relative_to(place.resolve())  # it may be another user's
    ]


@cache
def tell_of_others(state: Path) -> None:
    """Say once which state directory is used where there are two: images and rollouts of the other are not seen."""
    if others := other_states(state):
        say(
            f"using the state in {state} ({said_by()}); there is another one in {', '.join(map(str, others))}\n"
            "`state` in goldsmith.toml names one for all; GOLDSMITH_STATE=DIRECTORY ./goldsmith teardown removes one"
        )


OTHERS = stat.S_IRWXG | stat.S_IRWXO
# What earlier versions, which left it open, made in it; by one of these it is known to be a state directory.
OURS = (
    "apt", "ca", "content", "demo", "disks", "docker", "feeds", "keys", "ledger.sqlite", "locks", "plans", "registry",
    "rehearsal", "reports", "store", "work",
)  # fmt: skip


def keep_private(state: Path) -> None:
    """Make `state` a directory of the present user with mode 0700.

    It holds setuid files of unpacked images, the registry's password and the ledger. Raises OutsideError where it
    belongs to another user, who could plant what we would then run or publish; or is one that others work in, such as
    /tmp or /srv, which it would be closed to.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = state.stat()
        if found.st_uid != os.geteuid():
            hint = "run this as that user, give it to this one with chown -R, or set `state` in goldsmith.toml"
            owner = f"user id {found.st_uid}, not to {os.geteuid()}, who runs this"
            raise OutsideError(f"the state directory {state} belongs to {owner}", hint=hint)
        if found.st_mode & OTHERS:
            _refuse_shared(state, found.st_mode)
            state.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)
        if not os.access(state, os.W_OK | os.X_OK):
            raise PermissionError(errno.EROFS, "it cannot be written")
    except OSError as error:
        hint = "set `state` in goldsmith.toml to a directory of your own"
        raise OutsideError(
            f"the state directory {state} cannot be used: {error.strerror or error}", hint=hint
        ) from None


def _refuse_shared(state: Path, mode: int) -> None:
    """Raise OutsideError where an open directory is not a state directory, and so not ours to close."""
    held = {path.name for path in state.iterdir()}
    if mode & stat.S_ISVTX or (held and held.isdisjoint(OURS)):
        shared = f"the state directory {state} is open to other users and holds what is not ours: it will not be closed"
        hint = f"set `state` in goldsmith.toml to a directory of its own, such as {state / 'goldsmith'}"
        raise OutsideError(shared, hint=hint)


def root_for(settings: Settings, content: str) -> Path:
    """The content root that is drafted into: the named one, else the first of the user's own that may add fleets."""
    judged = {(ROOT / root).resolve() for root in settings.judging.roots}
    if not content:
        own = settings.roots[1:]
        return next((root for root in own if root.resolve() in judged), None) or checkout_for(own[:1], "fleet")
    root = Path(content).absolute()
    if root.resolve() in {one.resolve() for one in settings.roots[1:]} - judged:
        raise ContentError(
            f"the settings let {content} add no fleet", file="goldsmith.toml", key="judging.roots",
            hint=f'if it may: [judging] roots = ["{content}"]',
        )  # fmt: skip
    return root


def checkout_for(own: Sequence[Path], what: str) -> Path:
    """The checkout, into which is written what no root of `own` may add; a line says what would let each."""
    for root in own:
        setting = f'[judging] roots = ["{root}"] in goldsmith.toml'
        say(f"written into the checkout: {root} may add no {what} without {setting}")
    return ROOT
