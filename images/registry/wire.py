"""JSON that registries and others write, as values: what is malformed or costly is one clear error. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable
from functools import cache
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import SchemaValidator

from hardening.foundation.errors import MalformedError
from hardening.foundation.hashing import DIGEST
from hardening.foundation.limits import JSON_VALUES

LISTS = {"list", "tuple", "set", "frozenset"}
Value = TypeVar("Value")


def read_as(kind: type[Value], data: str | bytes, what: str) -> Value:
    """The value of that kind whose JSON is `data`. Raises MalformedError, which says where `what` does not fit."""
    _bounded(data, what)
    try:
        return cast(Value, _validator(cast(Hashable, kind)).validate_json(data))
    except ValidationError as error:
        raise malformed(what, error) from None


def parsed(kind: type[Value], data: Any, what: str) -> Value:
    """The same for JSON that was loaded already."""
    try:
        return cast(Value, _validator(cast(Hashable, kind)).validate_python(data))
    except ValidationError as error:
        raise malformed(what, error) from None


def loaded(data: str | bytes, what: str) -> dict[str, Any]:
    """The JSON object that a text is. Raises MalformedError for anything else, and where an object has a key twice:
    another reader of the same bytes may go by the other value.
    """
    _bounded(data, what)
    try:
        found = json.loads(data, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise malformed(what, error) from None
    if not isinstance(found, dict):
        raise malformed(what, ValueError("it is not a JSON object"))
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def malformed(what: str, error: Exception) -> MalformedError:
    """The error for an answer that is not what its format says; a ValidationError is told in short."""
    told = str(error)[:200]
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        told = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return MalformedError(
        f"{what} is malformed: {told}",
        hint="who can write to that repository? remove what is malformed there, and publish again",
    )


def _bounded(data: str | bytes, what: str) -> None:
    """Raise MalformedError where a text holds more values than any document of ours."""
    text = data.encode() if isinstance(data, str) else data
    if sum(map(text.count, (b",", b"[", b"{"))) > JSON_VALUES.most:
        raise malformed(what, ValueError(f"it exceeds {JSON_VALUES}"))


@cache
def _validator(kind: Hashable) -> SchemaValidator:
    return SchemaValidator(_giving_up_early(TypeAdapter(cast(Any, kind)).core_schema))


def _giving_up_early(schema: Any) -> Any:
    """A core schema whose lists end at the first error."""
    if isinstance(schema, dict):
        early = {"fail_fast": True} if schema.get("type") in LISTS else {}
        return {key: _giving_up_early(value) for key, value in schema.items()} | early
    if isinstance(schema, list | tuple):
        return type(schema)(map(_giving_up_early, schema))
    return schema


LARGEST_SIZE = 1 << 50


def _words(given: Any) -> Any:
    """Annotations, which may be null; given up at the first that is not text."""
    if isinstance(given, dict) and not all(isinstance(value, str) for value in given.values()):
        raise ValueError("an annotation is not text")
    return given or {}


Digest = Annotated[str, Field(pattern=DIGEST)]
Annotations = Annotated[dict[str, str], BeforeValidator(_words)]


class _Foreign(BaseModel):
    """A value that others write: what we do not know of it is left alone."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class Platform(_Foreign):
    """What a child of an index is for."""

    os: str = ""
    architecture: str = ""

    def __str__(self) -> str:
        return f"{self.os or 'unknown'}/{self.architecture or 'unknown'}"


class Listed(_Foreign):
    """A descriptor: a child of an index, a layer, a configuration, or a line of what refers to a digest."""

    media_type: str
    digest: Digest
    size: Annotated[int, Field(ge=0, le=LARGEST_SIZE)]
    artifact_type: str = ""
    annotations: Annotations = {}
    platform: Platform | None = None


class Index(_Foreign):
    """An index over manifests."""

    manifests: tuple[Listed, ...]


class Image(_Foreign):
    """A manifest: of an image, or of an attached document."""

    config: Listed
    layers: tuple[Listed, ...]


class Subject(_Foreign):
    """What an attached document's manifest refers to."""

    digest: Digest


class Referring(_Foreign):
    """A manifest that may refer to another one."""

    subject: Subject | None = None


class RootFs(_Foreign):
    """The unpacked layers of an image, lowest first."""

    diff_ids: Annotated[tuple[Digest, ...], Field(alias="diff_ids")]


class Config(_Foreign):
    """An image configuration, as far as it says what the image is made of."""

    rootfs: RootFs


class Noted(_Foreign):
    """Anything that carries annotations."""

    annotations: Annotations = {}


def child_for(index: Index, platform: str, what: str) -> Listed:
    """The one child that an engine of the platform runs. Raises MalformedError where there is none, or a choice."""
    fits = [child for child in index.manifests if child.platform is None or str(child.platform) == platform]
    if len(fits) == 1:
        return fits[0]
    has = ", ".join(str(child.platform or "any platform") for child in index.manifests) or "no manifest at all"
    raise MalformedError(
        f"{what} has {len(fits) or 'no'} manifests for {platform}, where one is expected: {has}",
        hint="which one an engine runs would be its choice: publish an index with one manifest for each platform",
    )
