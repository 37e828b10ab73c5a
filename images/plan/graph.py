"""The graph of definitions: which is built on which. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from hardening.foundation.errors import ContentError, nearest

Parents = Mapping[str, str | None]


def sorter(parents: Parents) -> TopologicalSorter[str]:
    """A prepared sorter that hands out each definition once its parent is done.

    Raises ContentError that shows the cycle, or names the definition whose parent does not exist.
    """
    for name in parents:
        _parent(name, parents)
    graph = TopologicalSorter({name: [parent] if parent else [] for name, parent in parents.items()})
    try:
        graph.prepare()
    except CycleError as error:
        circle = list(reversed(error.args[1]))
        raise ContentError(
            f"definitions stand on each other in a circle: {' → '.join(circle)}",
            file=f"images/definitions/{circle[0]}/image.toml", key="base.golden",
            hint="one of them needs another base",
        ) from None  # fmt: skip
    return graph


def _parent(name: str, parents: Parents) -> str | None:
    """The parent of a definition. Raises ContentError where it is no definition."""
    parent = parents[name]
    if parent is not None and parent not in parents:
        raise ContentError(
            f"{parent} is not a definition", file=f"images/definitions/{name}/image.toml", key="base.golden",
            hint=nearest(parent, parents),
        )  # fmt: skip
    return parent


def order(parents: Parents) -> list[str]:
    """All definitions, every parent before its children, names sorted among equals. Raises ContentError as `sorter`."""
    graph = sorter(parents)
    done: list[str] = []
    while graph.is_active():
        ready = sorted(graph.get_ready())
        done += ready
        graph.done(*ready)
    return done


def with_ancestors(selected: Iterable[str], parents: Parents) -> set[str]:
    """The selected definitions and everything they stand on. Raises ContentError where that is no definition."""
    found: set[str] = set()
    for name in selected:
        current: str | None = name
        while current is not None and current not in found:
            found.add(current)
            current = _parent(current, parents)
    return found
