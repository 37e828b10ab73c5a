"""Wires the flows for the command line: settings, the clock and the engines, opened only when they are needed."""

from __future__ import annotations

import os
import pwd
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hardening.catalog import load_policy
from hardening.foundation.errors import ContentError, RefusedError
from hardening.foundation.settings import Settings, load_settings

if TYPE_CHECKING:
    from images.context import Context

MOVED = "GOLDSMITH_NOW"
LOGIN, NO_LOGIN = Path("/proc/self/loginuid"), 2**32 - 1  # proc(5)
REHEARSAL = "rehearsal"  # a file of this name in a state directory says that it was made for rehearsing


def clock() -> datetime:
    """Now, aware UTC. `GOLDSMITH_NOW` (ISO 8601) moves it, for rehearsing what a day to come will bring."""
    moved = os.environ.get(MOVED)
    try:
        return datetime.fromisoformat(moved).astimezone(UTC) if moved else datetime.now(UTC)
    except ValueError:
        raise ContentError(f"no date: {moved}", key=MOVED, hint="such as 2027-01-31T12:00Z") from None


def image_context(settings: Settings | None = None, policy: str = "", *, looks: bool = False) -> Context:
    """The context of every flow over images.

    `looks`: the flow only looks and plans, so that its clock may be moved. Raises RefusedError for any other flow whose
    clock is moved outside a rehearsal, ContentError for a `policy` that is not there, and OutsideError where the state
    is another user's.
    """
    from images.context import Context
    from images.store.files import keep_private_by_default
    from pipelines.host.embedded_registry import registry_address
    from pipelines.host.provision import docker_host
    from pipelines.host.state import keep_private

    known = settings or load_settings()
    if not looks:
        _refuse_moved_clock(known)
    keep_private_by_default()
    keep_private(known.state_dir)
    if policy:
        load_policy(known.roots, policy)  # before anything is built or scanned for it
    return Context(
        known, clock(), lambda: docker_host(known, for_builds=True), lambda: registry_address(known), policy, actor()
    )


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
    from pipelines.host.provision import docker_host

    return docker_host(context.settings, for_builds=False)


def actor() -> str:
    """Whom the audit names: the user that runs this process, who logged in and became that one, and the host."""
    uid = os.getuid()
    behind = _logged_in(uid)
    by = f" (sudo by {_user(behind)})" if behind != uid else ""
    return f"{_user(uid)}{by}@{socket.gethostname()}"


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
