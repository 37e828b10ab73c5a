"""A graph of who can take what, by how sure that is, and what is reached in it. Pure.

Three strengths. `certain`: nothing more is needed. `possible`: it depends on something that is not known, such as a
condition of a policy. `exposed`: it can be talked to, and another hole is needed to take it. What is taken leads on,
what is only exposed does not: what falls with it is its own blast radius.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

RELAY = ("net:", "out:", "in:", "profile:", "instances:", "metadata:")
"""Prefixes of nodes that only lead on and cannot fall themselves: networks, sides of security groups, profiles."""
TAKEN, MAYBE, EXPOSURE = 10, 5, 1
"""What one thing counts that falls, that may fall, and that can be talked to, where sizes of reaches are compared."""


class Strength(IntEnum):
    """How sure a step is."""

    EXPOSED = 1
    POSSIBLE = 2
    CERTAIN = 3


@dataclass(frozen=True, slots=True)
class Cut:
    """One change that takes steps away: `kind` of change, to what (`subject`), and what of it (`detail`, `actions`)."""

    kind: str
    subject: str
    detail: str = ""
    actions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """A step from one node to another. Each of its `cuts` alone would take it away."""

    source: str
    target: str
    strength: Strength
    how: tuple[str, ...]
    cuts: frozenset[Cut] = frozenset()


def merged(edges: Iterable[Edge]) -> list[Edge]:
    """The edges with those of the same ends and strength as one, which only falls with a cut that each of them has."""
    groups: defaultdict[tuple[str, str, Strength], list[Edge]] = defaultdict(list)
    for one in edges:
        groups[one.source, one.target, one.strength].append(one)
    return [
        some[0] if len(some) == 1 else Edge(
            *ends, tuple(dict.fromkeys(how for one in some for how in one.how)),
            frozenset.intersection(*(one.cuts for one in some)),
        )
        for ends, some in groups.items()
    ]  # fmt: skip


@dataclass(frozen=True)
class Reached:
    """What is reached from some nodes, which are not in it. `through`: by node, the edge by which it was first met."""

    certain: frozenset[str]
    possible: frozenset[str]
    exposed: frozenset[str]
    through: dict[str, Edge]

    @property
    def size(self) -> int:
        """Its size, by which cuts are ranked."""
        return TAKEN * len(self.certain) + MAYBE * len(self.possible) + EXPOSURE * len(self.exposed)

    @property
    def all(self) -> frozenset[str]:
        """All that is reached, however sure."""
        return self.certain | self.possible | self.exposed

    def path(self, node: str) -> list[Edge]:
        """The steps that lead to a node, from the first to the last."""
        found: list[Edge] = []
        while node in self.through:
            found.append(self.through[node])
            node = found[-1].source
        return found[::-1]


Nodes = dict[str, None]
"""Nodes in the order in which they were met."""


class Graph:
    """Edges, by the node that they begin at."""

    def __init__(self, edges: Sequence[Edge]) -> None:
        self.edges = edges
        self.steps: defaultdict[str, list[Edge]] = defaultdict(list)
        for one in edges:
            self.steps[one.source].append(one)

    def reach(self, sources: Collection[str], without: Cut | None = None) -> Reached:
        """What is reached from `sources`, the surest steps first; `without` the edges that a cut takes away."""
        through: dict[str, Edge] = {}
        first = dict.fromkeys(sorted(sources))  # in order, as all below: the same world is always told the same way
        certain = self._spread(first, Strength.CERTAIN, through, without)
        possible = self._spread(first | certain, Strength.POSSIBLE, through, without)
        met = self._spread(first | certain | possible, Strength.EXPOSED, through, without)
        return Reached(_things(certain), _things(possible), _things(met), through)

    def _spread(self, begun: Nodes, least: Strength, through: dict[str, Edge], without: Cut | None) -> Nodes:
        """All that is met from `begun` by steps of at least that strength, breadth first. What is taken leads on; what
        can only be talked to does where it is a relay.
        """
        found, queue = Nodes(), list(begun)
        for node in queue:
            for edge in self.steps.get(node, ()):
                target = edge.target
                if edge.strength < least or target in begun or target in found or without in edge.cuts:
                    continue
                found[target] = None
                through[target] = edge
                if least > Strength.EXPOSED or target.startswith(RELAY):
                    queue.append(target)
        return found

    # -- of every node at once ----------------------------------------------------------------------------------------

    @cached_property
    def numbers(self) -> dict[str, int]:
        """A number for each node that is not a relay, which is its place in the sets of bits below."""
        names = {name for one in self.edges for name in (one.source, one.target)}
        return {name: place for place, name in enumerate(sorted(name for name in names if not name.startswith(RELAY)))}

    def sizes(self, of: Collection[str]) -> dict[str, tuple[int, int]]:
        """How much is taken from each of these nodes, and how much can be talked to: reaches of all of them at once.

        Nodes that take each other share one set; sets are numbers whose bits are nodes (Tarjan's components come in an
        order in which what is reached is known first).
        """
        numbers, talked = self.numbers, _Talked(self)
        taken_by: dict[str, int] = {}
        met_by: dict[str, int] = {}
        for component in self._components():
            inside = set(component)
            taken = met = 0
            for node in component:
                taken |= 1 << numbers[node] if node in numbers else 0
                met |= talked(node)
            for target in {edge.target for node in component for edge in self.steps.get(node, ())
                           if edge.strength > Strength.EXPOSED and edge.target not in inside}:  # fmt: skip
                taken |= taken_by[target]
                met |= met_by[target]
            for node in component:
                taken_by[node], met_by[node] = taken, met
        found = {}
        for node in of:
            taken = taken_by.get(node, 0)
            own = 1 << numbers[node] if node in numbers else 0
            found[node] = ((taken & ~own).bit_count(), (met_by.get(node, 0) & ~(taken | own)).bit_count())
        return found

    def _components(self) -> Iterable[list[str]]:
        """The sets of nodes that take each other, what is reached before what reaches it: Tarjan's, by a loop."""
        index: dict[str, int] = {}
        low: dict[str, int] = {}
        stack: list[str] = []
        waiting: set[str] = set()
        for root in self.steps.copy():
            if root in index:
                continue
            work = [(root, iter(self._taking(root)))]
            index[root] = low[root] = len(index)
            stack.append(root)
            waiting.add(root)
            while work:
                node, targets = work[-1]
                for target in targets:
                    if target not in index:
                        index[target] = low[target] = len(index)
                        stack.append(target)
                        waiting.add(target)
                        work.append((target, iter(self._taking(target))))
                        break
                    if target in waiting:
                        low[node] = min(low[node], index[target])
                else:
                    work.pop()
                    if work:
                        low[work[-1][0]] = min(low[work[-1][0]], low[node])
                    if low[node] == index[node]:
                        yield _until(stack, node, waiting)

    def _taking(self, node: str) -> list[str]:
        return [edge.target for edge in self.steps.get(node, ()) if edge.strength > Strength.EXPOSED]


def _things(names: Iterable[str]) -> frozenset[str]:
    return frozenset(one for one in names if not one.startswith(RELAY))


def _until(stack: list[str], node: str, waiting: set[str]) -> list[str]:
    found: list[str] = []
    while not found or found[-1] != node:
        found.append(stack.pop())
    waiting.difference_update(found)
    return found


class _Talked:
    """What can be reached over the network from a node, as a set of bits; for relays it is computed once."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._relays: dict[str, int] = {}

    def __call__(self, node: str) -> int:
        found = 0
        for edge in self._graph.steps.get(node, ()):
            target = edge.target
            if target.startswith(RELAY):
                found |= self._behind(target)
            elif edge.strength is Strength.EXPOSED:
                found |= 1 << self._graph.numbers[target]
        return found

    def _behind(self, relay: str) -> int:
        if relay not in self._relays:
            seen, queue, found = {relay}, [relay], 0
            for node in queue:
                for edge in self._graph.steps.get(node, ()):
                    if not edge.target.startswith(RELAY):
                        found |= 1 << self._graph.numbers[edge.target]
                    elif edge.target not in seen:
                        seen.add(edge.target)
                        queue.append(edge.target)
            self._relays[relay] = found
        return self._relays[relay]
