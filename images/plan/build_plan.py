"""What a build would be made of, and why it is needed: inputs, their digest, and the difference of two. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hardening.foundation.hashing import digest_of
from hardening.render import Overlay
from images.artifact import Artifact, Package
from images.model import CONTAINER_ONLY, Definition

# What a definition says about dates and duties does not change a byte of the image.
NOT_CONTENT = {"title", "owner", "lifecycle", "policy", "promote"}
# Nor does how it is tried out, but what was verified otherwise is not verified: a change of these builds it again.
VERIFY = {"smoke", "tmpfs"}


class Action(StrEnum):
    """What became, or would become, of an image."""

    BUILD = "build"
    BUILT = "built"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class Change:
    """One input that differs from the last artifact's; `kind` says which: package, control, definition and so on."""

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
    """What would happen to one image, and why. `input_digest` is empty while its parent is yet to be built."""

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


def inputs_of(
    definition: Definition,
    platform: str,
    *,
    overlay: Overlay,
    parent: str,
    packages: Iterable[Package],
    files: Mapping[str, str],
    sources: str,
    builder: str,
    archive: str = "",
) -> dict[str, Any]:
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
    name: str,
    inputs: dict[str, Any],
    *,
    added: tuple[Package, ...],
    packages: tuple[Package, ...],
    overlay: Overlay,
    known: Artifact | None,
    last: Artifact | None,
    parent_pending: bool,
    no_cache: bool,
) -> BuildPlan:
    """Build or not, and why.

    `known` is the artifact with this very input digest, if its content is still there; `last` the newest artifact of
    this image, whose inputs the new ones are compared with; `parent_pending`: the parent will be built first.
    """
    digest = "" if parent_pending else digest_of(inputs)
    changes = changes_between(last, inputs, packages) if last else ()
    if known and not no_cache and not parent_pending:
        why: tuple[str, ...] = (f"input digest {digest[7:19]} was built on {known.built_at:%Y-%m-%d}",)
        action = Action.UNCHANGED
    else:
        action, why = Action.BUILD, _why(last, changes, parent_pending=parent_pending, no_cache=no_cache)
    return BuildPlan(
        name, inputs["platform"], action, why, changes, digest, inputs, added, packages, overlay,
        known if action is Action.UNCHANGED else None,
    )  # fmt: skip


def _why(
    last: Artifact | None, changes: tuple[Change, ...], *, parent_pending: bool, no_cache: bool
) -> tuple[str, ...]:
    if last is None:
        return ("it has never been built here",)
    reasons = [str(change) for change in changes if change.kind not in {"parent"}]
    if parent_pending:
        reasons.append("its parent will be rebuilt")
    elif any(change.kind == "parent" for change in changes):
        reasons.append("its parent has new content")
    if no_cache:
        reasons.append("--no-cache was given")
    return tuple(reasons) or ("its content is no longer on this machine",)
