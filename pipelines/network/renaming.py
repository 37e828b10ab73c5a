"""Renames a role or an address range everywhere it is used, and says who gains and loses access. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from hardening.foundation.errors import ContentError
from pipelines.network.model import EVERYWHERE, WORLD, Network, protocol_and_bounds
from pipelines.network.openings import Opening, both_families, minus, told


@dataclass(frozen=True)
class Moved:
    """One file: its text before and after, and the keys that contained the name."""

    before: str
    after: str
    keys: tuple[str, ...]


def move(text: str, old: str, new: str, *, keeps_role: bool = False) -> Moved:
    """`text` with `new` in the place of `old`, comments and order kept.

    `keeps_role`: the role `new` is there already, so that `old` keeps its table, and only rules move. The text must be
    TOML of a network. Raises ContentError where the table of a role is not written as `[roles.NAME]`.
    """
    import tomlkit

    document, moved = tomlkit.parse(text), _moves(old, new)
    keys, expected = _edit(document, moved), tomllib.loads(text)
    after = tomlkit.dumps(document) if keys else text
    _edit(expected, moved)
    if old in expected.get("roles", {}) and not keeps_role:
        header = re.compile(rf"^(\s*\[\[?\s*roles\s*\.\s*)([\"']?){re.escape(old)}\2(?=\s*[.\]])", re.MULTILINE)
        after = header.sub(rf"\g<1>{new}", after)
        keys.append(f"roles.{old}")
        expected["roles"][new] = expected["roles"].pop(old)
    if tomllib.loads(after) != expected:  # a text that looks like a table, or a table that does not
        hint = f"write it as a table of its own: [roles.{old}]"
        raise ContentError("the role cannot be renamed here", key=f"roles.{old}", hint=hint)
    return Moved(text, after, tuple(keys))


def _edit(document: Any, moved: Callable[[str], str]) -> list[str]:
    """Move what rules and addresses name; the keys at which it stood."""
    keys = list[str]()
    for number, rule in enumerate(document.get("rules", ())):
        keys += [f"rules[{number}].{key}" for key in ("from", "to") if _put(rule, key, moved)]
    for name, role in document.get("roles", {}).items():
        addresses = role.get("addresses", [])
        keys += [f"roles.{name}.addresses[{at}]" for at in range(len(addresses)) if _put(addresses, at, moved)]
    return keys


def _moves(old: str, new: str) -> Callable[[str], str]:
    """What becomes of a value: a range moves however it is written, a role by its name."""
    if "/" not in old:
        return lambda text: new if text == old else text
    wanted = ip_network(old)

    def moved(text: str) -> str:
        try:
            return new if "/" in text and ip_network(text) == wanted else text
        except ValueError:
            return text

    return moved


def _put(place: Any, key: Any, moved: Callable[[str], str]) -> bool:
    value = place.get(key) if isinstance(place, Mapping) else place[key]
    if not isinstance(value, str) or moved(value) == value:
        return False
    place[key] = moved(value)
    return True


@dataclass(frozen=True)
class WayChange:
    """Who loses and who gains access, a line each; empty if only names change."""

    loses: tuple[str, ...]
    gains: tuple[str, ...]


def changed(before: Network, after: Network, old: str, new: str) -> WayChange:
    """What differs between two networks. A role that only has another name is the same to both."""
    only_name = old in before.roles and old not in after.roles and new not in before.roles
    names = {old: new} if only_name else {}
    left, right = [*_ways(before, names)], [*_ways(after, {})]
    return WayChange(tuple(told(minus(left, right))), tuple(told(minus(right, left))))


def _ways(network: Network, names: Mapping[str, str]) -> Iterator[Opening]:
    """Every way that the rules open, by the addresses of roles and by their names."""
    for placed in network.rules:
        for ports in placed.rule.ports:
            for source in _ends(network, placed.rule.source, names):
                for target in _ends(network, placed.rule.target, names):
                    if not both_families(source, target):
                        yield Opening(source, target, *protocol_and_bounds(ports))


def _ends(network: Network, peer: str, names: Mapping[str, str]) -> tuple[str, ...]:
    if peer == WORLD:
        return EVERYWHERE
    return (peer,) if "/" in peer else (names.get(peer, peer), *network.roles[peer].addresses)
