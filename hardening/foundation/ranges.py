"""Which address ranges are everybody's and which are private. Pure."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, ip_network

WIDEST = {4: 8, 6: 16}
"""Bits of the prefix of the widest range that one owner has, by the version of IP: what is wider is everybody's."""
INSIDE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
"""The private ranges (RFC 1918), and the shared one (RFC 6598), which networks of clouds have too."""


@lru_cache(maxsize=4096)
def is_everybody(text: str) -> bool:
    """Whether a range has more addresses than one owner; False for other text, such as the name of a group."""
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return False
    return network.prefixlen < WIDEST[network.version] and not network.is_private


@lru_cache(maxsize=4096)
def reaches_inside(text: str) -> bool:
    """Whether a range may hold addresses of machines in a cloud: private ones of IPv4, or any of IPv6, where those of
    machines are global. Other text may.
    """
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return True
    return not isinstance(network, IPv4Network) or any(network.overlaps(one) for one in INSIDE)
