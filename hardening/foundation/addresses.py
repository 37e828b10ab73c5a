"""Addresses: where one leads, and which ones package archives and proxies may have. Pure."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from hardening.foundation.content import MisplacedError


def is_loopback(address: str) -> bool:
    """Whether `address`, a host[:port] with or without a path behind it, is on this machine."""
    host = address.partition("/")[0]
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_safe(address: str, came_from: str = "") -> bool:
    """Whether data may be read from `address`: over https, or over http from this machine itself.

    An address with a password in it is not safe, and neither is http where https led there.
    """
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return False
    plain_here = parts.scheme == "http" and is_loopback(f"[{host}]") and not came_from.startswith("https:")
    return bool(host) and "@" not in parts.netloc and (parts.scheme == "https" or plain_here)


HUB, HUB_HOST, OLD_HUB = "docker.io", "registry-1.docker.io", "index.docker.io"


def canonical_registry(host: str) -> str:
    """A registry's host[:port] as one is always written: in small letters, without the dot that may end a name and the
    port that HTTPS has, and Docker Hub by one of its names.
    """
    port = re.search(r":[0-9]*$", host)
    name = (host[: port.start()] if port else host).lower().rstrip(".")
    number = port[0].lstrip(":").lstrip("0") if port else ""
    written = f"{name}:{number}" if port and number != "443" else name
    return HUB if written in (HUB_HOST, OLD_HUB) else written


LOGIN_HINT = "put the login into a file of /etc/apt/auth.conf.d (see apt_auth.conf(5)): apt reads it, no image holds it"
REGISTRY = re.compile(r"(([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*)?")
DATABASE = re.compile(
    r"sqlite(\+\w+)?:///[^?].*"
    r"|postgresql(\+\w+)?://([^:/@]*(:[^@]*)?@)?(\[[^]/?@]+\]|[^]\[:/?@]*)(:[0-9]+)?(/[^@?]*)?(\?.*)?"
)  # as SQLAlchemy reads them: a login ends at the first @
ONE_WORD = re.compile(r"[A-Za-z][^\s\"'<>\\;\x00-\x1f\x7f-\x9f]*")


def has_login(text: str) -> bool:
    """Whether an address, or a line that holds one, names a user or a password."""
    return "@" in text


def without_login(address: str) -> str:
    """The address as it may be shown."""
    scheme, colon, rest = address.partition(":")
    return f"{scheme}{colon}//…@{rest.rpartition('@')[2]}" if has_login(rest) else address


def plain(address: str) -> str:
    """`address`, which is empty or one word without a login. Raises MisplacedError, which shows no password."""
    if has_login(address):
        raise MisplacedError(f"the address contains a login: {without_login(address)}", LOGIN_HINT)
    if address and not ONE_WORD.fullmatch(address):
        raise ValueError(f"must be an address such as https://mirror.example.com/debian, not {address!r}")
    return address


def of_registry(address: str) -> str:
    """`address`, which is empty or host[:port]/path, without a / at its end. Raises ValueError, showing no login."""
    address = address.rstrip("/")
    if not REGISTRY.fullmatch(address):
        raise ValueError("must be host[:port]/path in small letters, without https:// and without a login")
    return address
