"""Strict content loading: TOML into frozen models; unknown keys refused; every error with file, key and a hint."""

from __future__ import annotations

import fnmatch
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from hardening.foundation.errors import ContentError, closest, nearest
from hardening.foundation.limits import CONTENT_TEXT
from hardening.foundation.wording import but, in_words


class Content(BaseModel):
    """The base of all models of TOML files: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class MisplacedError(ValueError):
    """Raised by a model's own validator that also knows what to do: a message, and a hint."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


Model = TypeVar("Model", bound=BaseModel)


def load_toml(path: Path, model: type[Model], **extra: Any) -> Model:
    """The file at `path` as `model`; `extra` adds values that the path, not the file, carries (such as the name).

    Raises ContentError naming the file, the key path, what is allowed and the nearest known key.
    """
    return parse(read_toml(path), model, path, **extra)


def read_small(path: Path) -> str:
    """The text of a file that people wrote. Raises ContentError where it is too long, no file, not UTF-8, or has an end
    of a line that whoever reviews it does not see.
    """
    with readable(path):
        if path.exists() and not path.is_file() and not path.is_dir():  # a pipe would wait for ever
            raise ContentError("neither a file nor a link to one", file=path)
        with path.open("rb") as file:
            data = file.read(CONTENT_TEXT.most + 1)
        if len(data) > CONTENT_TEXT.most:
            raise ContentError(f"exceeds {CONTENT_TEXT}", file=path)
        text = data.decode().replace("\r\n", "\n")
        if "\r" in text:
            line = text.partition("\r")[0].count("\n") + 1
            hint = "reviews show what follows as a part of that line, such as of its comment: take it out"
            raise ContentError(f"a carriage return in the middle of line {line}", file=path, hint=hint)
        return text


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what reading a file may raise into a ContentError that names it."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ContentError(f"not UTF-8 text: {error}", file=path) from None
    except FileNotFoundError:
        raise ContentError("no such file", file=path) from None
    except OSError as error:
        hint = "let this user read it (chmod a+rX), or run as its owner" if isinstance(error, PermissionError) else ""
        raise ContentError(f"cannot be read: {error.strerror}", file=path, hint=hint) from None


def require_inside(path: Path, folder: Path) -> Path:
    """`path`, which is in `folder` also where it is a link.

    Raises ContentError for a link that leads out of it, and where it cannot be read.
    """
    with readable(path):
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            hint = "content is what stands in its root: copy the file there"
            raise ContentError(f"a link out of {folder}, to {path.resolve()}", file=path, hint=hint)
    return path


@lru_cache(maxsize=4096)
def _parsed(path: Path, _stamp: tuple[int, int]) -> dict[str, Any]:
    return tomllib.loads(read_small(path))


def read_toml(path: Path) -> dict[str, Any]:
    """The raw tables of a TOML file. Raises ContentError where it is absent or not TOML."""
    try:
        with readable(path):
            stat = path.stat()
            return _parsed(path, (stat.st_mtime_ns, stat.st_size))
    except RecursionError:
        raise ContentError("nested too deeply", file=path) from None
    except ValueError as error:  # of a number of thousands of digits, too
        hint = "strings need quotes; tables look like [name]"
        if str(error).startswith("Cannot"):
            hint = "each key and each [table] stands only once: join what both say"
        raise ContentError(f"not TOML: {error}", file=path, hint=hint) from None


def parse(data: Mapping[str, Any], model: type[Model], path: Path | str, **extra: Any) -> Model:
    """`data` as `model`, with errors that name `path`. Raises ContentError, also where `data` repeats an `extra`."""
    if given := sorted(data.keys() & extra.keys()):
        reason = f"stands in the path ({extra[given[0]]}) and is not repeated in the file"
        raise ContentError(reason, file=path, key=given[0], hint="leave it out here, or rename the folder or file")
    try:
        return model.model_validate({**data, **extra})
    except ValidationError as error:
        raise explain(error, model, path) from None
    except UnicodeEncodeError:  # JSON can say it, TOML cannot
        raise ContentError("a text holds half of a character, \\ud800 to \\udfff", file=path) from None


def explain(error: ValidationError, model: type[BaseModel], path: Path | str) -> ContentError:
    """One ContentError for all that is wrong in a file; the first problem leads, the others are its evidence."""
    # A slip in a key is told twice, as an unknown key and as the missing one: the first says what to do.
    found = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    problems = [(_key(item["loc"]), *_describe(item, model)) for item in found]
    key, message, hint = problems[0]
    others = "\n".join(f"{other}: {text}{f' ({more})' if more else ''}" for other, text, more in problems[1:])
    return ContentError(message, file=path, key=key, hint=hint, evidence=others)


def _describe(item: Any, model: type[BaseModel]) -> tuple[str, str]:
    if item["type"] == "extra_forbidden":
        return "unknown key", _meant(str(item["loc"][-1]), item["loc"][:-1], model)
    if item["type"] == "missing":
        return "required, but missing", ""
    if item["type"] == "value_error":
        return item["msg"].removeprefix("Value error, "), getattr(item.get("ctx", {}).get("error"), "hint", "")
    keys = _keys(_model_at(model, item["loc"])) if item["type"] in _NO_TABLE else ()
    hint = f"its keys are {', '.join(keys)}" if keys else ""
    return in_words(item["type"], item.get("ctx", {}), item["msg"]) + but(item["input"]), hint


_NO_TABLE = ("dict_type", "model_type", "model_attributes_type")
_BRANCHES = ("function-", "tagged-union", "union", "constrained-")  # of unions: pydantic's words, no keys


def _key(loc: tuple[Any, ...]) -> str:
    """A pydantic location as people write it: `packages[2].name`."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not str(part).startswith(_BRANCHES):
            text += f".{part}" if text else str(part)
    return text


def _meant(key: str, place: tuple[Any, ...], model: type[BaseModel]) -> str:
    """What an unknown `key` at `place` may have meant: a key of that table, or the same key where it belongs."""
    here = _model_at(model, place)
    if place and key in _keys(model):
        return f"{key} belongs at the top of the file, before the first [table]"
    tables = {name: _find_model(field.annotation) for name, field in _keys(model).items()}
    belongs = [name for name, inner in tables.items() if inner not in (None, here) and key in _keys(inner)]
    if belongs and not closest(key, _keys(here)):
        return f"it belongs in [{belongs[0]}]"
    return nearest(key, _keys(here))


def _keys(model: type[BaseModel] | None) -> dict[str, Any]:
    """The keys of a table as people write them, and what each takes."""
    return {field.alias or name: field for name, field in model.model_fields.items()} if model else {}


def _model_at(annotation: Any, loc: tuple[Any, ...]) -> type[BaseModel] | None:
    """The model that stands at `loc` inside `annotation`: through fields, items of lists and values of tables."""
    for part in loc:
        annotation = _inside(annotation, part)
    return _find_model(annotation)


def _inside(annotation: Any, part: Any) -> Any:
    """What one `part` of a location leads to. What it does not lead into (the branch of a union) stays as it is."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        keys = _keys(annotation)
        return keys[part].annotation if part in keys else annotation
    inner = get_args(annotation)
    if get_origin(annotation) is dict:
        return inner[1]
    if get_origin(annotation) in (list, tuple):
        return inner[0]
    found = (_inside(branch, part) for branch in inner if branch is not type(None))
    return next((branch for branch in found if _find_model(branch)), annotation)


def _find_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _find_model(inner))), None)


def _listed(folder: Path, pattern: str) -> list[Path]:
    """What a folder holds, sorted; nothing where it is absent. Raises ContentError where it cannot be read."""
    with readable(folder), suppress(FileNotFoundError), os.scandir(f"{folder}/."):
        pass  # glob takes a folder that this user may not read or enter for an empty one
    return sorted(folder.glob(pattern))


def find_content(
    roots: Sequence[Path], room: str, pattern: str, twice: dict[str, ContentError] | None = None
) -> dict[str, Path]:
    """Name → path of all content of one sort over all roots, sorted: `*.toml` means files, `*/` folders.

    What begins with a dot or an underscore is passed over; a folder named like a file is not, and cannot be read.
    Raises ContentError for a folder that cannot be read, and where two roots define the same name: content is added by
    a root, never silently replaced. Into `twice`, if given, it puts that error by the name, which is then left out.
    """
    found: dict[str, Path] = {}
    for root, path in ((one, path) for one in roots for path in _listed(one / room, pattern)):
        if (pattern.endswith("/") and not path.is_dir()) or path.name.startswith((".", "_")):
            continue
        for place in (path, *path.parents[: len(Path(room).parts)]):
            require_inside(place, root)
        if path.stem in found:
            hint = "a root adds content and never overrides it: rename one of the two"
            error = ContentError(f"{path.stem} is already defined in {found[path.stem]}", file=path, hint=hint)
            if twice is None:
                raise error
            twice[path.stem] = error
        found[path.stem] = path
    return {name: found[name] for name in sorted(found.keys() - (twice or {}))}


def select(pattern: str, known: Iterable[str], what: str) -> list[str]:
    """The names that `pattern` means: `all`, globs and names, several with spaces between. Raises ContentError."""
    names, chosen = sorted(known), dict[str, None]()
    if not names:
        raise ContentError(f"no {what} is defined", hint="CONTRIBUTING.md shows how to add one")
    for one in pattern.split() or [pattern]:
        matched = names if one == "all" else fnmatch.filter(names, one)
        if not matched:
            raise ContentError(f"no {what} is named {one}", hint=nearest(one, names))
        chosen |= dict.fromkeys(matched)
    return [*chosen]
