"""Content roots as of another git revision, and what differs between two. Edge: runs git, writes files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from hardening.foundation.content import find_content
from hardening.foundation.errors import OutsideError, UsageError
from hardening.foundation.hashing import digest_of
from hardening.foundation.limits import REVISION_BYTES, REVISION_FILES
from hardening.foundation.process import Completed, pipe_from, run
from images.plan.upstream import LOCK
from images.store.files import file_digest

ROOMS = {
    "policy": ("hardening/policies", "*.toml"), "profile": ("hardening/profiles", "*.toml"),
    "control": ("hardening/controls", "*/"), "functions": ("hardening/functions", "*.sh"),
    "waiver": ("hardening/waivers", "*.toml"), "definition": ("images/definitions", "*/"),
    "fleet": ("pipelines/fleets", "*.toml"),
}  # fmt: skip
"""What of a content root decides who is refused: each sort, its folder, and what one of it is there."""

FILE, PROGRAM, LINK = "100644", "100755", "120000"


def revisions_of(roots: Sequence[Path], revision: str, folder: Path) -> tuple[Path, ...]:
    """The content roots as `revision` of git has them, written under `folder`; one for each.

    A root without git, or whose repository does not know the revision, stays as it is. Raises UsageError where none
    knows it, and OutsideError for one that is too large, where git refuses a root, or where a partial clone lacks
    files: git fetches none of them.
    """
    found = [_revision(root, revision, folder / str(number)) for number, root in enumerate(roots)]
    if not any(isinstance(one, Path) for one in found):
        said = "\n".join(
            f"{root}: {_said(one)}" for root, one in zip(roots, found, strict=True) if isinstance(one, Completed)
        )
        raise UsageError(
            f"{revision} is neither a directory nor a revision of git that a content root has", evidence=said,
            hint="--against names what to compare with, such as origin/main",
        )  # fmt: skip
    return tuple(one if isinstance(one, Path) else root for one, root in zip(found, roots, strict=True))


def _said(asked: Completed) -> str:
    return asked.stderr.strip() or "it has no such revision"


def _revision(root: Path, revision: str, folder: Path) -> Path | Completed:
    """The root in that revision, in `folder`; or what git said where there is none. No hook and no filter runs."""
    git, rooms = ["git", "-C", str(root)], [room for room, _ in ROOMS.values()]
    words, english = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"], {"LC_ALL": "C"}
    asked = run([*git, *words], ok=range(256), env=english)
    if asked.status and asked.stderr and not _without_git(root, asked.stderr):
        why, _, more = asked.stderr.strip().partition("\n")
        raise OutsideError(f"git refuses {root}: {why}", evidence=more)
    if asked.status:
        return asked
    commit, inside = asked.stdout.strip(), run([*git, "rev-parse", "--show-prefix"]).stdout.strip()
    listed = run([*git, "ls-tree", "-r", "-l", "-z", commit, "--", *rooms]).stdout.split("\0")
    sizes = [line.partition("\t")[0].split()[-1] for line in listed if line]
    if "BAD" in sizes:
        raise OutsideError(
            f"{root} is a partial clone, and lacks files of {revision}", hint="clone it without --filter"
        )
    REVISION_FILES.require(len(sizes), f"{revision} of {root}")
    REVISION_BYTES.require(sum(int(size) for size in sizes if size.isdecimal()), f"{revision} of {root}")
    folder.mkdir()
    index = {"GIT_INDEX_FILE": str(folder / ".index")}
    run([*git, "read-tree", commit], env=index)
    staged = run([*git, "ls-files", "-s", "-z", "--full-name", "--", *rooms], env=index).stdout.split("\0")
    entries = [(*head.split()[:2], name) for head, _, name in (one.partition("\t") for one in staged if one)]
    blobs = [(mode, oid, folder / name) for mode, oid, name in entries if mode in (FILE, PROGRAM, LINK)]
    _write(git, sorted(blobs, key=lambda blob: blob[0] == LINK), folder)
    return folder / inside


def _without_git(root: Path, said: str) -> bool:
    """Whether no repository contains `root`: git says the same of a .git that is broken."""
    return "not a git repository (or any" in said and not any((at / ".git").exists() for at in (root, *root.parents))


def _write(git: Sequence[str], blobs: Sequence[tuple[str, str, Path]], folder: Path) -> None:
    """Write (mode, object, place) as git keeps them: .gitattributes, which may be a stranger's, choose filters that
    run programs. Links come last, so that no file is written through one.
    """
    asked = folder / ".objects"
    asked.write_text("".join(f"{oid}\n" for _, oid, _ in blobs))

    def consume(stream: IO[bytes]) -> None:
        for mode, _, place in blobs:
            size = int(stream.readline().split()[2])
            content = stream.read(size + 1)[:size]  # a line break ends each
            place.parent.mkdir(parents=True, exist_ok=True)
            if mode == LINK:
                place.symlink_to(os.fsdecode(content))
            else:
                place.write_bytes(content)
                place.chmod(0o755 if mode == PROGRAM else 0o644)

    pipe_from([*git, "cat-file", "--batch"], consume, stdin=asked)


def changed_content(before: Sequence[Path], after: Sequence[Path]) -> Iterator[str]:
    """What differs between two sets of content roots, each by its sort and name. Raises ContentError."""
    for sort, (room, pattern) in ROOMS.items():
        old, new = (find_content(roots, room, pattern) for roots in (before, after))
        for name in sorted(old.keys() | new.keys()):
            if name not in old:
                yield f"{sort} {name} (new)"
            elif name not in new:
                yield f"{sort} {name} (gone)"
            elif old[name] != new[name] and _digest(old[name]) != _digest(new[name]):
                yield f"{sort} {name}"


def content_digest(roots: Sequence[Path]) -> str:
    """One digest of all of that content, and of the pins of upstream images. Raises ContentError."""
    found = [
        (sort, name, _digest(path))
        for sort, (room, pattern) in ROOMS.items()
        for name, path in sorted(find_content(roots, room, pattern).items())
    ]
    return digest_of([found, [file_digest(root / LOCK) for root in roots if (root / LOCK).is_file()]])


def _digest(path: Path) -> str:
    """Of a file its content, of a folder all that is in it; of a link, where it leads."""
    inside = sorted(path.rglob("*")) if path.is_dir() else [path]
    told = [(str(one.relative_to(path)), _content(one)) for one in inside if one.is_symlink() or one.is_file()]
    return digest_of(told)


def _content(file: Path) -> str:
    return f"link to {file.readlink()}" if file.is_symlink() else file_digest(file)
