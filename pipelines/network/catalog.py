"""Edge: loads the network from `network/*.toml` of every content root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hardening.foundation.content import find_content, load_toml
from hardening.foundation.errors import ContentError, nearest
from pipelines.network.model import Network, NetworkFile, combined

ROOM = "network"


def network_files(roots: Sequence[Path]) -> dict[str, Path]:
    """The files of the network by their names. Raises ContentError for one name in two roots."""
    return find_content(roots, ROOM, "*.toml")


def load_network(roots: Sequence[Path]) -> Network:
    """The network of all content roots, without roles and rules where there is none. Raises ContentError."""
    files = network_files(roots)
    return combined({file: load_toml(file, NetworkFile, name=name) for name, file in files.items()})


def require_network(roots: Sequence[Path]) -> Network:
    """The network. Raises ContentError where there is none."""
    network = load_network(roots)
    if not network.roles:
        hint = "docs/network.md shows a whole network/shop.toml"
        raise ContentError("no network is defined: no content root has a file network/*.toml with roles", hint=hint)
    return network


def require_role(network: Network, name: str) -> str:
    """`name`, which is a role. Raises ContentError with the nearest ones."""
    if name not in network.roles:
        raise ContentError(f"unknown role: {name}", hint=nearest(name, network.roles))
    return name
