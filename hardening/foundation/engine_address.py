"""Addresses of Docker Engines, as fleets name them: a socket, a port with TLS, or a machine by ssh. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import Literal

SOCKETS = ("/run/docker.sock", "/var/run/docker.sock")  # where an engine listens unless it is told otherwise
LOCAL = "local"
TLS_PORT = 2376
SOCKET_BYTES = 107  # unix(7)
EXAMPLES = "such as unix:///run/docker.sock, tcp://10.0.0.5:2376 or ssh://ops@web-2"
_SOCKET = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
_MACHINE = re.compile(
    r"((?P<user>[A-Za-z_][A-Za-z0-9._-]{0,31})@)?"
    r"(?P<name>[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(:(?P<port>[0-9]{1,5}))?"
)  # neither a user nor a name begins as an option of ssh does


@dataclass(frozen=True)
class EngineAddress:
    """One engine. `text` is the address as it was written; `port` is 0 where ssh decides it, `user` empty likewise.

    `label` tells it from other hosts of a fleet: the machine's name, with the port unless it is the usual one; of a
    socket `local`, or its path with - between the parts.
    """

    text: str
    scheme: Literal["unix", "tcp", "ssh"]
    label: str
    name: str = ""
    user: str = ""
    port: int = 0

    @property
    def is_remote(self) -> bool:
        """Whether its containers have addresses of another machine."""
        return self.scheme != "unix"


def engine_address(text: str) -> EngineAddress:
    """The address read. Raises ValueError, which shows no password."""
    scheme, _, rest = text.partition("://")
    if scheme == "unix":
        if len(rest) > SOCKET_BYTES or not _SOCKET.fullmatch(rest):
            raise ValueError(f"{text} is not the absolute path of a socket, {EXAMPLES}")
        return EngineAddress(text, "unix", LOCAL if rest in SOCKETS else rest.strip("/").replace("/", "-"))
    if scheme not in ("tcp", "ssh"):
        raise ValueError(f"{without_password(text)} has an unknown scheme: write an address {EXAMPLES}")
    found = _MACHINE.fullmatch(rest)
    if found is None or not _is_name(found["name"]) or int(found["port"] or 1) not in range(1, 65536):
        raise ValueError(
            f"{without_password(text)} does not name a machine: write {scheme}://NAME:PORT without path, password "
            "and options"
        )
    name, port, user = found["name"].strip("[]"), int(found["port"] or 0), found["user"] or ""
    if scheme == "ssh":
        return EngineAddress(text, "ssh", f"{name}:{port}" if port not in (0, 22) else name, name, user, port)
    if user:
        raise ValueError(f"{text} names a user: over tcp:// the certificate identifies who asks")
    port = port or TLS_PORT
    return EngineAddress(text, "tcp", name if port == TLS_PORT else f"{name}:{port}", name, "", port)


def place(text: str) -> str:
    """The label of an engine's address, or the address itself where it is of another form."""
    try:
        return engine_address(text).label
    except ValueError:
        return text


def _is_name(name: str) -> bool:
    if not name.startswith("["):
        return ".." not in name
    try:
        return bool(IPv6Address(name.strip("[]")))
    except AddressValueError:
        return False


def without_password(text: str) -> str:
    """The address as it may be shown, without what may be a password."""
    scheme, colon, rest = text.partition("://")
    return f"{scheme}{colon}…@{rest.rpartition('@')[2]}" if ":" in rest.rpartition("@")[0] else text
