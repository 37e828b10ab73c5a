"""What is open, as sets of source, target and ports; and what one set has that another lacks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network

from pipelines.network.model import EVERYWHERE, LAST_PORT

ANY = "any"
"""Of a protocol: all of them."""


@dataclass(frozen=True, order=True)
class Opening:
    """Connections from `source` to `target`, each a range of addresses or a name, on some ports of a protocol."""

    source: str
    target: str
    protocol: str
    first: int = 0
    last: int = LAST_PORT

    def __str__(self) -> str:
        """As people read it: `10.1.0.0/24 → db 5432/tcp`."""
        return f"{self.source} → {self.target} {self.ports}"

    @property
    def ports(self) -> str:
        """As a rule writes them: `8000-8010/udp`."""
        if self.protocol == ANY:
            return "everything"
        if (self.first, self.last) == (0, LAST_PORT):
            return f"all/{self.protocol}"
        return f"{self.first}/{self.protocol}" if self.first == self.last else (
            f"{self.first}-{self.last}/{self.protocol}"
        )  # fmt: skip


def minus(left: Iterable[Opening], right: Iterable[Opening]) -> list[Opening]:
    """What `left` opens and `right` does not, sorted."""
    taken = sorted(set(right))
    found = set[Opening]()
    for one in set(left):
        pieces = [one]
        for other in taken:
            if pieces:
                pieces = [part for piece in pieces for part in _without(piece, other)]
        found.update(pieces)
    return sorted(found)


def _without(one: Opening, other: Opening) -> Iterator[Opening]:
    """What is left of `one` when all that `other` opens is taken away."""
    first, last = max(one.first, other.first), min(one.last, other.last)
    sources, targets = _split(one.source, other.source), _split(one.target, other.target)
    if other.protocol not in (ANY, one.protocol) or first > last or sources is None or targets is None:
        yield one
        return
    if one.first < first:
        yield replace(one, last=first - 1)
    if last < one.last:
        yield replace(one, first=last + 1)
    middle = replace(one, first=first, last=last)
    yield from (replace(middle, source=text) for text in sources[1])
    yield from (replace(middle, source=sources[0], target=text) for text in targets[1])


@lru_cache(maxsize=4096)
def _split(one: str, other: str) -> tuple[str, tuple[str, ...]] | None:
    """The part of `one` that `other` covers, and the rest; None where it covers none."""
    if one == other:
        return one, ()
    left, right = _range(one), _range(other)
    if left is None or right is None or left.version != right.version or not left.overlaps(right):
        return None
    if left.subnet_of(right):  # type: ignore[arg-type]
        return one, ()
    return other, tuple(sorted(str(part) for part in left.address_exclude(right)))  # type: ignore[arg-type]


def _range(text: str) -> IPv4Network | IPv6Network | None:
    """A range of addresses; None for a name."""
    return ip_network(text) if "/" in text else None


def both_families(source: str, target: str) -> bool:
    """Whether two ranges are of different families, between which nothing flows."""
    left, right = _range(source), _range(target)
    return left is not None and right is not None and left.version != right.version


def told(openings: Iterable[Opening]) -> list[str]:
    """Openings as people read them; every address of both families is called `world`."""
    found = sorted(set(openings))
    four, six = EVERYWHERE
    known = set(found)
    lines = []
    for one in found:
        if one.source == six and replace(one, source=four) in known:
            continue
        if one.target == six and replace(one, target=four) in known:
            continue
        shown = replace(
            one,
            source="world" if one.source == four and replace(one, source=six) in known else one.source,
            target="world" if one.target == four and replace(one, target=six) in known else one.target,
        )
        lines.append(str(shown))
    return lines
