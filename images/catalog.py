"""The catalog: every definition of every content root, loaded strictly."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from hardening.foundation.content import find_content, load_toml, readable, require_inside
from hardening.foundation.errors import ContentError
from hardening.foundation.limits import CONTENT_DEPTH, CONTENT_FILE
from images.model import FILES, Definition
from images.plan.build_plan import Parents, order, with_ancestors
from images.store.files import file_digest


@dataclass(frozen=True)
class LoadedDefinition:
    """A definition and the folder it came from, where its files and its Dockerfile.j2 are."""

    definition: Definition
    folder: Path

    @property
    def name(self) -> str:
        """The definition's name, which is its folder's."""
        return self.definition.name


def load_definitions(roots: tuple[Path, ...]) -> dict[str, LoadedDefinition]:
    """Name → definition, over all content roots. Raises ContentError naming file and key."""
    folders = find_content(roots, "images/definitions", "*/")
    return {name: load_definition(name, folder) for name, folder in folders.items()}


def sound_definitions(roots: tuple[Path, ...]) -> tuple[dict[str, LoadedDefinition], dict[str, ContentError]]:
    """The definitions that load and stand on such; and by the name of each other one, what is wrong below or with it.

    A name that two roots define is wrong: which of them is meant is not known.
    """
    loaded: dict[str, LoadedDefinition] = {}
    unread: dict[str, ContentError] = {}
    for name, folder in find_content(roots, "images/definitions", "*/", unread).items():
        try:
            loaded[name] = load_definition(name, folder)
        except ContentError as error:
            unread[name] = error
    parents = dict.fromkeys(unread) | {name: found.definition.parent for name, found in loaded.items()}
    problems = {name: wrong for name in parents if (wrong := _below(name, parents, unread))}
    return {name: found for name, found in loaded.items() if name not in problems}, problems


def _below(name: str, parents: Parents, unread: Mapping[str, ContentError]) -> ContentError | None:
    """What is wrong with a definition or with what it stands on, if anything is."""
    try:
        line = with_ancestors([name], parents)
        order({one: parents[one] for one in line})
    except ContentError as error:
        return error
    return next((unread[one] for one in line if one in unread), None)


def load_definition(name: str, folder: Path) -> LoadedDefinition:
    """The definition in `folder`. Raises ContentError naming file and key."""
    file = require_inside(folder / "image.toml", folder)
    return LoadedDefinition(load_toml(file, Definition, name=name), folder)


def files_of(folder: Path) -> dict[str, Path]:
    """Everything in a definition's folder that may go into an image (image.toml and folders aside), by relative path.

    Raises ContentError for what is neither file nor link, for a file beyond the limit content.file, for links that lead
    nowhere or out of the folder (they would carry files of this host into images, unseen by the input digest), and for
    the name that builds need for themselves.
    """
    if os.path.lexists(folder / FILES):
        raise ContentError("builds put the files of image.toml there", file=folder / FILES, hint="take another name")
    paths = {name: folder / name for name in sorted(_names_below(folder), key=lambda name: name.split("/"))}
    found = {
        name: path for name, path in paths.items() if name != "image.toml" and (path.is_symlink() or not path.is_dir())
    }
    for path in found.values():
        if path.is_symlink():
            _require_inside(path, folder)
        elif not path.is_file():
            raise ContentError("neither a file nor a link", file=path)
        if path.stat().st_size > CONTENT_FILE.most:
            raise ContentError(f"exceeds {CONTENT_FILE}", file=path)
    return found


def _names_below(folder: Path) -> Iterator[str]:
    """The relative paths of all that lies in a folder.

    Raises ContentError where it is deeper than `CONTENT_DEPTH`, and for a folder that cannot be read.
    """
    for at, folders, files in os.walk(folder, onerror=_refuse_unread):
        inner = os.path.relpath(at, folder)
        if inner.count("/") >= CONTENT_DEPTH.most:
            raise ContentError(f"{inner[:40]}… exceeds {CONTENT_DEPTH}", file=folder)
        yield from (os.path.normpath(f"{inner}/{name}") for name in (*folders, *files))


def _refuse_unread(error: OSError) -> None:
    with readable(Path(error.filename)):
        raise error


def _require_inside(link: Path, folder: Path) -> None:
    hint = "a definition's folder holds all that its image is made of: copy the file there"
    try:
        target = Path(os.path.realpath(link, strict=True))
    except OSError:
        raise ContentError(f"a link to {link.readlink()}, which is not there", file=link, hint=hint) from None
    if link.readlink().is_absolute() or _leaves(link, target, folder.resolve()):
        raise ContentError(f"a link out of the definition's folder, to {link.readlink()}", file=link, hint=hint)


def _leaves(link: Path, target: Path, folder: Path) -> bool:
    """Whether a link leads out of the folder at its end or on its way: a copy of it would lead elsewhere."""
    parts = link.readlink().parts
    ways = [link.parent.joinpath(*parts[:many]).resolve() for many in range(1, len(parts))]
    return not all(place.is_relative_to(folder) for place in (*ways, target))


def mode_of(file: Path) -> int:
    """The mode a file has in builds: executable or not, and setuid or setgid. The rest is the checkout's umask."""
    mode = file.stat().st_mode
    return (0o755 if mode & 0o100 else 0o644) | mode & 0o6000


def file_digests(folder: Path) -> dict[str, str]:
    """Digests of everything in a definition's folder but the definition itself, by relative path."""
    return {name: _file_digest(path) for name, path in files_of(folder).items()}


def _file_digest(path: Path) -> str:
    """Of a link, where it leads; of a file, its content and its mode in builds."""
    if path.is_symlink():
        return f"link to {path.readlink()}"
    return f"sha256:{file_digest(path)} {mode_of(path):o}"


@dataclass(frozen=True)
class KeepRule:
    """What is kept beyond need: the `last` contents that are not revoked, and those that ended less than `for_` ago.

    The newest release over a content stands for it. What is revoked is kept by neither.
    """

    last: int = 0
    for_: timedelta = timedelta()


NO_RULE = KeepRule()
ANY = ""
"""In the place of a definition's name: the rule for those that have none of their own, or are there no more."""


def keep_rules(default: KeepRule, definitions: Mapping[str, LoadedDefinition]) -> dict[str, KeepRule]:
    """What is kept of each definition beyond need: as its `[lifecycle]` says, else as the settings do (ANY); where a
    night promotes, at least for as long as it soaks.
    """
    found = {ANY: default}
    for name, loaded in definitions.items():
        own = loaded.definition.lifecycle
        last = default.last if own.keep_last is None else own.keep_last
        for_ = default.for_ if own.keep_for is None else own.keep_for
        found[name] = KeepRule(last, max(for_, own.soak) if loaded.definition.promote == "auto" else for_)
    return found
