"""What would be built, in which order, from which inputs, and why: the graph, and the difference of two. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import Any

from hardening.foundation.errors import ContentError, nearest
from hardening.foundation.hashing import digest_of
from hardening.render import Overlay
from images.artifact import Artifact, Package
from images.model import CONTAINER_ONLY, Definition

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
            f"definitions are based on each other in a circle: {' → '.join(circle)}",
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


# What a definition says about dates and duties does not change a byte of the image.
NOT_CONTENT = {"title", "owner", "lifecycle", "policy", "promote"}
# Nor does how it is tried out, but what was verified otherwise is not verified: a change of these builds it again.
VERIFY = {"smoke", "tmpfs"}


class Action(StrEnum):
    """What happened, or would happen, to an image."""

    BUILD = "build"
    BUILT = "built"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class Change:
    """One input that differs from the last artifact's; `kind` is package, control, definition and so on."""

    kind: str
    name: str
    old: str
    new: str

    def __str__(self) -> str:
        if self.kind == "package" and not self.old:
            return f"package {self.name} {self.new} added"
        if self.kind == "package" and not self.new:
            return f"package {self.name} {self.old} removed"
        if self.kind == "package":
            return f"package {self.name} {self.old} → {self.new}"
        what = self.kind if self.kind == self.name else f"{self.kind} {self.name}"
        if self.kind in {"control", "check", "file", "hardening file"} and not (self.old and self.new):
            return f"{what} {'is new' if self.new else 'is gone'}"
        return f"{what} changed"


@dataclass(frozen=True)
class BuildPlan:
    """What would happen to one image, and why. `input_digest` is empty while its parent is yet to be built.

    `waits`: what is newer and not taken yet, since its cooldown is not over, and until when.
    """

    name: str
    platform: str
    action: Action
    why: tuple[str, ...]
    changes: tuple[Change, ...]
    input_digest: str
    inputs: dict[str, Any]
    added: tuple[Package, ...]
    packages: tuple[Package, ...]
    overlay: Overlay
    artifact: Artifact | None = None
    waits: tuple[str, ...] = ()


def inputs_of(
    definition: Definition, platform: str, *, overlay: Overlay, parent: str, packages: Iterable[Package],
    files: Mapping[str, str], sources: str, builder: str, archive: str = "",
) -> dict[str, Any]:  # fmt: skip
    """The JSON value whose hash is the input digest: all that an image's bytes and its verification are a function of.

    `parent` is the parent's content digest or the upstream image's digest, empty for a bootstrap; `files` maps the
    files of the definition's folder to their digests; `sources` is the package source text that the image holds;
    `archive` is the state of the whole archive, where a build installs from it by itself.
    """
    # What containers do not have is not in their digests either, so that those of old ones stay what they were.
    left_out = NOT_CONTENT | VERIFY | (set(CONTAINER_ONLY) if definition.is_machine else {"machine"})
    return {
        "definition": definition.model_dump(mode="json", exclude=left_out),
        "verify": definition.model_dump(mode="json", include=VERIFY),
        "platform": platform,
        "overlay": overlay.parts,
        "parent": parent,
        "packages": [[p.purl, p.sha256] for p in sorted(packages)],
        "files": dict(sorted(files.items())),
        "sources": sources,
        "builder": builder,
        **({"archive": archive} if archive else {}),
    }


def changes_between(old: Artifact, inputs: Mapping[str, Any], packages: Iterable[Package]) -> tuple[Change, ...]:
    """How `inputs` and the full list of `packages` differ from those of the artifact `old`, packages first."""
    before = {p.name: p.version for p in old.packages}
    after = {p.name: p.version for p in packages}
    changes = [
        Change("package", name, before.get(name, ""), after.get(name, ""))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    for kind, was, now in _parts(old.inputs, inputs):
        changes += [
            Change(kind, name, str(was.get(name, "")), str(now.get(name, "")))
            for name in sorted(was.keys() | now.keys())
            if was.get(name) != now.get(name)
        ]
    return tuple(changes)


def _parts(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterable[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The comparable parts of two inputs but for packages: (kind, old name → value, new name → value)."""
    for key in ("definition", "verify"):
        yield key, old.get(key, {}), new[key]
    for kind, key in (("control", "applies"), ("check", "checks")):
        yield kind, dict(old.get("overlay", {}).get(key, [])), dict(new["overlay"][key])
    yield "hardening file", old.get("overlay", {}).get("files", {}), new["overlay"]["files"]
    yield "file", old.get("files", {}), new["files"]
    for key in ("parent", "sources", "builder", "platform", "archive"):
        yield key, {key: old.get(key, "")}, {key: new.get(key, "")}


def decide(
    name: str, inputs: dict[str, Any], *, added: tuple[Package, ...], packages: tuple[Package, ...], overlay: Overlay,
    known: Artifact | None, last: Artifact | None, parent_pending: bool, no_cache: bool,
) -> BuildPlan:  # fmt: skip
    """Build or not, and why.

    `known` is the artifact with this very input digest, if its content is still there; `last` the newest artifact of
    this image, whose inputs the new ones are compared with; `parent_pending`: the parent will be built first.
    """
    digest = "" if parent_pending else digest_of(inputs)
    changes = changes_between(last, inputs, packages) if last else ()
    kept = None if parent_pending or no_cache else known
    built = (f"input digest {digest[7:19]} was built on {kept.built_at:%Y-%m-%d}",) if kept else ()
    why = built or _why(last, changes, parent_pending, no_cache)
    action = Action.UNCHANGED if kept else Action.BUILD
    return BuildPlan(name, inputs["platform"], action, why, changes, digest, inputs, added, packages, overlay, kept)


def _why(last: Artifact | None, changes: tuple[Change, ...], pending: bool, no_cache: bool) -> tuple[str, ...]:
    if last is None:
        return ("it has never been built here",)
    reasons = [str(change) for change in changes if change.kind not in {"parent"}]
    if pending:
        reasons.append("its parent will be rebuilt")
    elif any(change.kind == "parent" for change in changes):
        reasons.append("its parent has new content")
    if no_cache:
        reasons.append("--no-cache was given")
    return tuple(reasons) or ("its content is not on this machine",)
