"""Wires the flows for the command line: settings, the clock and the engines, opened only when they are needed."""

from __future__ import annotations

import getpass
import os
import socket
from datetime import UTC, datetime

from hardening.catalog import load_policy
from hardening.foundation.errors import ContentError
from hardening.foundation.settings import Settings, load_settings
from images.context import Context
from images.modes import keep_private_by_default


def clock() -> datetime:
    """Now, aware UTC. `GOLDSMITH_NOW` (ISO 8601) moves it, for rehearsing what a day to come will bring."""
    moved = os.environ.get("GOLDSMITH_NOW")
    try:
        return datetime.fromisoformat(moved).astimezone(UTC) if moved else datetime.now(UTC)
    except ValueError:
        raise ContentError(f"no date: {moved}", key="GOLDSMITH_NOW", hint="such as 2027-01-31T12:00Z") from None


def image_context(settings: Settings | None = None, policy: str = "") -> Context:
    """The context of every flow over images.

    Raises ContentError for a `policy` that is not there, and OutsideError where the state is another user's.
    """
    from pipelines.host.embedded_registry import registry_address
    from pipelines.host.provision import docker_host
    from pipelines.host.state import keep_private

    known = settings or load_settings()
    keep_private_by_default()
    keep_private(known.state_dir)
    if policy:
        load_policy(known.roots, policy)  # before anything is built or scanned for it
    return Context(
        known, clock(), lambda: docker_host(known, for_builds=True), lambda: registry_address(known), policy, actor()
    )


def fleet_host(context: Context) -> str:
    """The engine that Docker fleets run on, as DOCKER_HOST."""
    from pipelines.host.provision import docker_host

    return docker_host(context.settings, for_builds=False)


def actor() -> str:
    """Whom the audit names: the login name, and the host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that no passwd line names
        user = f"uid {os.geteuid()}"
    return f"{user}@{socket.gethostname()}"
