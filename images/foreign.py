"""JSON that others wrote, as values: what is malformed, or costly to look at, is one clear error. Pure.

A list is given up at its first wrong item: a million of them would otherwise become a million messages.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaValidator

from hardening.foundation.errors import MalformedError
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
    """The JSON object that a text is. Raises MalformedError for anything else."""
    _bounded(data, what)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise malformed(what, error) from None
    if not isinstance(found, dict):
        raise malformed(what, ValueError("it is not a JSON object"))
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
