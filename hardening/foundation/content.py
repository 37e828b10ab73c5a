"""Strict content loading: TOML into frozen models; unknown keys refused; every error with file, key and a hint."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from hardening.foundation.errors import ContentError, nearest


class Content(BaseModel):
    """The base of everything that people write in TOML: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=BaseModel)


def load_toml(path: Path, model: type[Model], **extra: Any) -> Model:
    """The file at `path` as `model`; `extra` adds values that the path, not the file, carries (such as the name).

    Raises ContentError naming the file, the key path, what is allowed and the nearest known key.
    """
    return parse(read_toml(path), model, path, **extra)


@lru_cache(maxsize=4096)
def _parsed(path: Path, _stamp: tuple[int, int]) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def read_toml(path: Path) -> dict[str, Any]:
    """The raw tables of a TOML file. Raises ContentError where it is absent or not TOML."""
    try:
        stat = path.stat()
        return _parsed(path, (stat.st_mtime_ns, stat.st_size))
    except FileNotFoundError:
        raise ContentError("no such file", file=path) from None
    except OSError as error:
        raise ContentError(f"cannot be read: {error.strerror}", file=path) from None
    except RecursionError:
        raise ContentError("nested too deeply", file=path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ContentError(
            f"not TOML: {error}", file=path, hint="strings need quotes; tables look like [name]"
        ) from None


def parse(data: Mapping[str, Any], model: type[Model], path: Path | str, **extra: Any) -> Model:
    """`data` as `model`, with errors that name `path`. Raises ContentError, also where `data` repeats an `extra`."""
    if given := sorted(data.keys() & extra.keys()):
        reason = f"stands in the path ({extra[given[0]]}) and is not repeated in the file"
        raise ContentError(reason, file=path, key=given[0], hint="leave it out here, or rename the folder or file")
    try:
        return model.model_validate({**data, **extra})
    except ValidationError as error:
        raise explain(error, model, path) from None


def explain(error: ValidationError, model: type[BaseModel], path: Path | str) -> ContentError:
    """One ContentError for all that is wrong in a file; the first problem leads, the others are its evidence."""
    problems = [(_key(item["loc"]), *_describe(item, model)) for item in error.errors()]
    key, message, hint = problems[0]
    others = "\n".join(f"{other}: {text}" for other, text, _ in problems[1:])
    return ContentError(message, file=path, key=key, hint=hint, evidence=others)


def _describe(item: Any, model: type[BaseModel]) -> tuple[str, str]:
    if item["type"] == "extra_forbidden":
        parent = _model_at(model, item["loc"][:-1])
        known = [field.alias or name for name, field in parent.model_fields.items()] if parent else []
        return "unknown key", nearest(str(item["loc"][-1]), known)
    if item["type"] == "missing":
        return "required, but missing", ""
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(item["input"], dict | list) else f", not {item['input']!r}"
    return (message if item["type"] == "value_error" else message[0].lower() + message[1:] + shown), ""


def _key(loc: tuple[Any, ...]) -> str:
    """A pydantic location as people write it: `packages[2].name`."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not str(part).startswith(("function-", "tagged-union", "union")):
            text += f".{part}" if text else str(part)
    return text


def _model_at(model: type[BaseModel] | None, loc: tuple[Any, ...]) -> type[BaseModel] | None:
    """The model that stands at `loc` inside `model`, looking through lists, dicts and optional values."""
    for part in loc:
        if model is None:
            return None
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        if isinstance(part, int) or part not in fields:
            continue
        model = _find_model(fields[part].annotation)
    return model


def _find_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        if found := _find_model(inner):
            return found
    return None


def find_content(roots: Sequence[Path], room: str, pattern: str) -> dict[str, Path]:
    """Name → path of all content of one sort over all roots, sorted: `*.toml` means files, `*/` folders.

    What begins with a dot or an underscore is passed over. Raises ContentError where two roots define the same name:
    content is added by a root, never silently replaced.
    """
    found: dict[str, Path] = {}
    for path in (path for root in roots for path in sorted((root / room).glob(pattern))):
        if path.is_dir() != pattern.endswith("/") or path.name.startswith((".", "_")):
            continue
        if path.stem in found:
            raise ContentError(
                f"{path.stem} is already defined in {found[path.stem]}", file=path,
                hint="a root adds content and never overrides it: rename one of the two",
            )  # fmt: skip
        found[path.stem] = path
    return dict(sorted(found.items()))


def select(pattern: str, known: Iterable[str], what: str) -> list[str]:
    """The names that `pattern` means: `all`, a glob, or one name. Raises ContentError with the nearest names."""
    names = sorted(known)
    matched = names if pattern == "all" else fnmatch.filter(names, pattern)
    if not matched:
        raise ContentError(f"no {what} is named {pattern}", hint=nearest(pattern, names))
    return matched
