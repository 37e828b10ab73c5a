"""Edge: how a Docker Engine fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import docker.errors
import requests.exceptions

from hardening.foundation.errors import OutsideError


@contextmanager
def outside(what: str, engine: str) -> Iterator[None]:
    """Every failure of the engine or of the way to it is an OutsideError that says what was tried."""
    try:
        yield
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        reason = getattr(error, "explanation", None) or error
        hint = "is the engine running? ./goldsmith doctor" if not isinstance(error, docker.errors.APIError) else ""
        raise OutsideError(f"{what} on the Docker Engine {engine} failed: {reason}", hint=hint) from error
