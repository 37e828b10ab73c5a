"""Where an address leads: to this machine, or to another. Pure."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


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
