"""Edge: the ways to the hosts that fleets name: a socket, TLS with a certificate on both sides, or ssh.

By ssh, `docker system dial-stdio` runs there, as for the docker command.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore, local
from typing import Any

import docker
import requests
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.tls import TLSConfig
from docker.transport.basehttpadapter import BaseHTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection

from hardening.foundation.asking import AT_ONCE
from hardening.foundation.engine_address import EngineAddress, engine_address
from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.process import Dialled
from hardening.foundation.settings import Docker
from hardening.foundation.ssh import PASSES, ssh_command
from pipelines.fleet.docker.inventory import limited
from pipelines.fleet.docker.members import ENGINE_TIMEOUT, open_engine

VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")
CERTIFICATES = ("ca.pem", "cert.pem", "key.pem")  # as docker calls them
HANDSHAKES = 8  # at once: of ten, sshd begins to drop some (MaxStartups in sshd_config(5))
DIAL = ("docker", "system", "dial-stdio")  # brings an engine's API to standard input and output


def require_ways(addresses: tuple[EngineAddress, ...], ways: Docker) -> None:
    """Raise ContentError where certificates are missing: plain TCP is refused."""
    for address in addresses:
        if address.scheme == "tcp":
            _certificates(address, ways.certificates)


def open_host(text: str, ways: Docker) -> Any:
    """A client of a host that a fleet names, by the version of the API that the host asks for.

    Raises what docker and requests raise, ContentError, and OutsideError.
    """
    address = engine_address(text)
    match address.scheme:
        case "unix":
            return open_engine(text)
        case "tcp":
            return _negotiated(partial(_over_tls, address, ways.certificates))
        case "ssh":
            return _negotiated(partial(_over_ssh, ssh_command(address, ways.ssh_config, *DIAL)))


def _negotiated(make: Callable[[str], Any]) -> Any:
    """A client of the version that the engine names. Before `make` has prepared one, none asks anything."""
    asking = make(DEFAULT_DOCKER_API_VERSION)
    try:
        said = asking.version(api_version=False)
    finally:
        asking.close()
    version = said.get("ApiVersion") if isinstance(said, dict) else None
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        raise OutsideError("what answers there is not a Docker Engine")
    return make(version)


def _over_tls(address: EngineAddress, certificates: Path | None, version: str) -> Any:
    """Proxies, authorities and logins of the environment are not used: they could impersonate the host."""
    authority, certificate, key = map(str, _certificates(address, certificates))
    tls = TLSConfig(client_cert=(certificate, key), ca_cert=authority, verify=True)
    host = f"[{address.name}]" if ":" in address.name else address.name
    api: Any = docker.APIClient(
        base_url=f"tcp://{host}:{address.port}", version=version, timeout=ENGINE_TIMEOUT, tls=tls
    )
    api.trust_env = False
    api.max_redirects = 0  # an engine does not redirect
    api.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=AT_ONCE))
    return limited(api)


def _certificates(address: EngineAddress, folder: Path | None) -> tuple[Path, ...]:
    if folder is None:
        why = (
            f"{address.text} has no certificates: without TLS, anyone who reaches an engine's port is root on its host"
        )
        hint = f"a directory with {', '.join(CERTIFICATES)}; docs/rollouts.md says how to make them"
        raise ContentError(why, file="goldsmith.toml", key="docker.certificates", hint=hint)
    own = folder / address.name
    found = tuple((own if own.is_dir() else folder) / name for name in CERTIFICATES)
    if missing := next((file for file in found if not file.is_file()), None):
        raise ContentError(f"{address.text}: {missing} is missing", file="goldsmith.toml", key="docker.certificates")
    return found


def _over_ssh(command: tuple[str, ...], version: str) -> Any:
    api: Any = docker.APIClient(base_url="unix:///dev/null", version=version, timeout=ENGINE_TIMEOUT)
    api.mount("http+docker://", _SshAdapter(command))  # in the place of the socket's
    api.trust_env = False
    api.max_redirects = 0
    return limited(api)


class _SshConnection(HTTPConnection):
    """One connection of a client, which is one run of ssh."""

    def __init__(self, *words: Any, dial: Callable[[], socket.socket], **more: Any) -> None:
        super().__init__(*words, **more)
        self._dial = dial

    def _new_conn(self) -> socket.socket:
        return self._dial()


class _SshAdapter(BaseHTTPAdapter):
    """Sends requests through runs of ssh, which are kept for the next ones; of a failed one it gives the reason."""

    def __init__(self, command: tuple[str, ...]) -> None:
        super().__init__()
        self._command = command
        self._slots, self._here = BoundedSemaphore(HANDSHAKES), local()
        self._pool = HTTPConnectionPool("localhost", maxsize=AT_ONCE, dial=self._dial)
        self._pool.ConnectionCls = _SshConnection

    def _dial(self) -> socket.socket:
        dialled = Dialled(self._command, passes=PASSES)
        self._here.dialled = dialled
        return dialled.connection

    def get_connection(self, url: Any, proxies: Any = None) -> HTTPConnectionPool:  # noqa: ARG002 - as it is called
        return self._pool

    def request_url(self, request: Any, proxies: Any) -> str:  # noqa: ARG002 - as it is called
        return str(request.path_url)

    def send(self, *words: Any, **more: Any) -> requests.Response:
        self._here.dialled = None
        with self._slots:
            try:
                return super().send(*words, **more)
            except requests.exceptions.ConnectionError as error:
                if self._here.dialled is None or not (said := self._here.dialled.last_words()):
                    raise
                raise requests.exceptions.ConnectionError(" ".join(said.split())) from error

    def close(self) -> None:
        self._pool.close()
        super().close()
