"""The JSON documents about an image: what they are called, and how our values become JSON and back. Pure.

Content-bound documents (SBOM, provenance, checks) are true of every release over the same content and refer to the
content manifest. Dated ones (scan, verdict, lifecycle, revocation) belong to one release and refer to its index.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter

from hardening.foundation.hashing import canonical
from images.registry.answers import read_as

Value = TypeVar("Value")

SBOM = "application/vnd.cyclonedx+json"
PROVENANCE = "application/vnd.dev.goldsmith.provenance.v1+json"
CHECKS = "application/vnd.dev.goldsmith.checks.v1+json"
SCAN = "application/vnd.dev.goldsmith.scan.v1+json"
VERDICT = "application/vnd.dev.goldsmith.verdict.v1+json"
REVOCATION = "application/vnd.dev.goldsmith.revocation.v1+json"
LIFECYCLE = "application/vnd.microsoft.artifact.lifecycle"


@dataclass(frozen=True)
class Document:
    """Something said about an image: its artifact type, its bytes, and the annotations of its manifest."""

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


def to_bytes(value: Any) -> bytes:
    """`to_json` in canonical form: the same value gives the same bytes, and so the same digest."""
    return canonical(to_json(value))


def from_bytes(kind: type[Value], data: bytes) -> Value:
    """The value whose `to_bytes` is `data`. Raises MalformedError for anything else: others may have written it."""
    return read_as(kind, data, f"an attached document ({kind})")
