"""The login of the embedded registry: its owner's alone, in a file that docker, skopeo and we read. Edge to a file."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from pathlib import Path

from hardening.foundation.settings import Settings

USER = "goldsmith"


def login_file(settings: Settings) -> Path:
    """Where the login stands, in the form of docker's config.json. The file is there once the registry was started."""
    return settings.state_dir / "registry" / "login" / "config.json"


def log_file(settings: Settings) -> Path:
    """What the embedded registry prints."""
    return settings.state_dir / "registry" / "docker-registry.log"


def write_login(settings: Settings, host: str, password: str) -> None:
    """Write the login for `host` (host:port), readable by its owner alone."""
    file = login_file(settings)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = b64encode(f"{USER}:{password}".encode()).decode()
    file.touch(mode=0o600)
    file.write_text(json.dumps({"auths": {host: {"auth": secret}}}) + "\n")


def authfile(settings: Settings, reference: str) -> Path | None:
    """The file with the login for the registry of `reference`; None where it is not the embedded one."""
    return login_file(settings) if _secret(settings, reference) else None


def auth_config(settings: Settings, reference: str) -> dict[str, str] | None:
    """The login for a pull of `reference`, as docker-py takes it; None leaves the choice to docker's own files."""
    secret = _secret(settings, reference)
    if not secret:
        return None
    username, _, password = b64decode(secret).decode().partition(":")
    return {"username": username, "password": password}


def _secret(settings: Settings, reference: str) -> str:
    file = login_file(settings)
    auths = json.loads(file.read_text())["auths"] if file.exists() else {}
    return str(auths.get(reference.partition("/")[0], {}).get("auth", ""))
