"""The embedded registry: the distribution's own on loopback, for its owner alone. Started when needed.

Its password is made on the first start and kept in the state directory (images/registry/login.py).
"""

from __future__ import annotations

import http.client
import secrets
import socket
from contextlib import closing
from pathlib import Path
from string import Template

from hardening.foundation.errors import OutsideError
from hardening.foundation.locks import only_one
from hardening.foundation.process import which
from hardening.foundation.settings import Settings
from images.registry.login import USER, login_file, write_login
from pipelines.host.daemon import Daemon

REPOSITORY = "golden"
START_SECONDS = 60
UNAUTHORIZED = 401

CONFIG = Path(__file__).with_name("embedded-registry.yml")


def registry_address(settings: Settings) -> str:
    """Where releases are published: the configured registry, else the embedded one, started when it does not run.

    Raises OutsideError when the embedded registry cannot be started.
    """
    if settings.registry.address:
        return settings.registry.address
    folder = _folder(settings)
    with only_one(folder / "lock", "starting the embedded registry", wait_seconds=START_SECONDS):
        port = _port(folder)
        if not (_daemon(folder).pid() and _status(port) == UNAUTHORIZED and login_file(settings).exists()):
            _start(settings, folder, port)
    return f"127.0.0.1:{port}/{REPOSITORY}"


def known_address(settings: Settings) -> str:
    """The address that the embedded registry has, running or not; empty where there never was one. Starts nothing."""
    folder = _folder(settings)
    return f"127.0.0.1:{_port(folder)}/{REPOSITORY}" if (folder / "port").exists() else ""


def stop(settings: Settings) -> None:
    """Stop the embedded registry, if it runs. What it stores stays."""
    _daemon(_folder(settings)).stop()


def running(settings: Settings) -> bool:
    """Whether the embedded registry runs; starts nothing."""
    return _daemon(_folder(settings)).pid() is not None


def _folder(settings: Settings) -> Path:
    return settings.state_dir / "registry"


def _daemon(folder: Path) -> Daemon:
    return Daemon("docker-registry", folder)


def _start(settings: Settings, folder: Path, port: int) -> None:
    program = which("docker-registry")
    if program is None:
        raise OutsideError("docker-registry is not installed", hint="run ./goldsmith setup, or set registry.address")
    _daemon(folder).stop()
    if _status(port) is not None:
        taken = f"port {port}, which the embedded registry has always used, is taken by another program"
        raise OutsideError(taken, hint=f"stop that program, or delete {folder / 'port'} and publish again")
    config = folder / "config.yml"
    passwords = _passwords(settings, folder, port)
    values = {"data": folder / "data", "port": port, "passwords": passwords}
    config.write_text(Template(CONFIG.read_text()).substitute(values))
    argv = ["sh", str(Path(__file__).with_name("embedded-registry.sh")), str(program), str(config)]
    _daemon(folder).start(argv, ready=lambda: _status(port) == UNAUTHORIZED)


def _port(folder: Path) -> int:
    """The registry's port: free when first chosen, then kept, because references to images name it."""
    file = folder / "port"
    if not file.exists():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            file.write_text(f"{probe.getsockname()[1]}\n")
    return int(file.read_text())


def _passwords(settings: Settings, folder: Path, port: int) -> Path:
    """The registry's own file of passwords, which are random: each start that finds no login makes a new one."""
    import bcrypt

    file = folder / "htpasswd"
    if not (file.exists() and login_file(settings).exists()):
        password = secrets.token_urlsafe(32)
        cheap = bcrypt.gensalt(rounds=4)  # each request pays for it, and 256 random bits cannot be guessed anyway
        file.write_bytes(USER.encode() + b":" + bcrypt.hashpw(password.encode(), cheap) + b"\n")
        write_login(settings, f"127.0.0.1:{port}", password)
    return file


def _status(port: int) -> int | None:
    """What a request without a login is answered on the port; None where nothing there speaks HTTP."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
