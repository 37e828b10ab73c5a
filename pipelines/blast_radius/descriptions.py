"""How nodes, steps and changes are described to people, and a reach drawn. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from pipelines.blast_radius.graph import RELAY, Cut, Edge, Reached

MOST_DRAWN = 120
"""Nodes that are drawn; of more, those of which several come from the same node are one."""
COLOURS = {"certain": "#b3261e", "possible": "#c77700", "exposed": "#5b6b7a"}


def told(node: str) -> tuple[str, str]:
    """The kind of a node, and its name."""
    kind, _, name = node.partition(":")
    if kind == "iam":
        resource = name.split(":", 5)[5]
        if name.endswith(")"):
            return "boundary", name
        return resource.partition("/")[0], name
    if kind == "account":
        return "account", f"all rights in {name}"
    if kind == "out":
        return "group", f"out of {name}"
    if kind == "in":
        return "group", f"into {name}"
    return {"net": "network"}.get(kind, kind), name


def short(node: str) -> str:
    """A node in a path or a picture."""
    kind, name = told(node)
    if node.startswith("iam:"):
        return name.split(":", 5)[5]
    return name if kind in ("account", "group") else f"{kind} {name}"


SENTENCES = {
    "unprivileged": "start {on} without --privileged",
    "unmount": "take {detail} off {on}",
    "drop-capability": "take the capability {detail} from {on}",
    "take-device": "take the device {detail} off {on}",
    "own-namespace": "give {on} its own {detail} namespace",
    "own-processes": "give {on} a process namespace of its own, not that of {detail}",
    "leave-network": "take {on} off the network {detail}",
    "not-root": "run {on} as another user than root",
    "close-api": "close the engine's API of {on} to the network",
    "close-rule": "take the rule {detail} out of {last}",
    "detach-profile": "take the instance profile off {on}",
    "hop-limit": "require tokens of the metadata of {on}, with a hop limit of 1",
    "hide-secret": "take {detail} out of the environment of {on}",
    "unpublish": "publish {detail} of {on} on loopback only, or not at all",
}
"""What each kind of change is, in the words of the person who makes it."""


def sentence(cut: Cut) -> str:
    """What a change is, in words."""
    if cut.kind in SENTENCES:
        last = cut.subject.rpartition("/")[2]
        return SENTENCES[cut.kind].format(on=short(cut.subject), detail=cut.detail, last=last)
    who = cut.subject.split(":", 5)[5]
    if cut.actions == ("*",):
        return f"take the rights of an administrator from {who}"
    return f"deny {', '.join(cut.actions)}{'' if cut.detail == '*' else f' on {cut.detail}'} to {who}"


def path_words(path: Iterable[Edge]) -> tuple[str, ...]:
    """A path, a line for each step."""
    return tuple(f"{short(one.source)} → {short(one.target)}: {', '.join(one.how[:3])}" for one in path)


def graphviz(reach: Reached, sources: Iterable[str], title: str) -> str:
    """The tree of first steps as Graphviz reads it; nodes that are many, alike and lead nowhere are drawn as one."""
    ranks = (("certain", reach.certain), ("possible", reach.possible), ("exposed", reach.exposed))
    sure = {name: word for word, names in ranks for name in names}
    steps = {name: edge for one in sorted(sure) for name, edge in _way(reach, one)}
    leads = {edge.source for edge in steps.values()}
    lines = [f'  {_quoted(one)} [label={_quoted(short(one))}, penwidth=2, color="#111111"];' for one in sorted(sources)]
    bundles: defaultdict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    many = len(steps) > MOST_DRAWN
    for name, edge in steps.items():
        word = sure.get(name, edge.strength.name.lower())
        if many and name not in leads:
            bundles[edge.source, told(name)[0], word, edge.how[0]].append(name)
        else:
            lines += _drawn(name, short(name), edge.source, word, edge.how, dashed=name.startswith(RELAY))
    for (source, kind, word, how), names in bundles.items():
        label = short(names[0]) if len(names) == 1 else f"{len(names)} of {kind}"
        lines += _drawn(names[0], label, source, word, (how,), dashed=False)
    head = 'rankdir=LR; bgcolor="transparent"; node [shape=box, fontname="sans-serif", fontsize=10];'
    fonts = 'edge [fontname="sans-serif", fontsize=8];'
    return "\n".join(["digraph blast {", f"  label={_quoted(title)}; {head} {fonts}", *lines, "}", ""])


def _way(reach: Reached, name: str) -> Iterator[tuple[str, Edge]]:
    """A thing and all that lies on the way to it, each with its step: networks that lead to nothing are on none."""
    while name in reach.through:
        yield name, reach.through[name]
        name = reach.through[name].source


def _drawn(name: str, label: str, source: str, word: str, how: tuple[str, ...], *, dashed: bool) -> list[str]:
    colour, style = COLOURS[word], "dashed" if dashed or word == "exposed" else "solid"
    more = f" (+{len(how) - 1})" if how[1:] else ""
    return [
        f'  {_quoted(name)} [label={_quoted(label)}, color="{colour}", style={style}];',
        f'  {_quoted(source)} -> {_quoted(name)} [label={_quoted(how[0] + more)}, color="{colour}", style={style}];',
    ]


def _quoted(text: str) -> str:
    """A text as a string of Graphviz: all but plain letters is escaped, so that nothing ends the string early."""
    clean = "".join(one if one.isprintable() else "?" for one in text)
    return '"' + clean.replace("\\", "\\\\").replace('"', '\\"') + '"'
