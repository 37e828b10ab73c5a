"""Documents that are attached to releases, and how our values become JSON and back. Pure.

What a release says of itself is signed (`images.trust`). Its end, for other tools, is not.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter

Value = TypeVar("Value")

LIFECYCLE = "application/vnd.microsoft.artifact.lifecycle"


@dataclass(frozen=True)
class Document:
    """A document about an image: its artifact type, its bytes, and the annotations of its manifest."""

    artifact_type: str
    data: bytes = b""
    annotations: dict[str, str] = field(default_factory=dict)


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, kind))


def to_json(value: Any) -> Any:
    """One of our frozen values, or a tuple of them, as JSON types."""
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return _adapter(cast(Hashable, type(value))).dump_python(value, mode="json")


def from_json(kind: type[Value], data: Any) -> Value:
    """The frozen value (or tuple of them) that `to_json` wrote."""
    value: Value = _adapter(cast(Hashable, kind)).validate_python(data)
    return value
