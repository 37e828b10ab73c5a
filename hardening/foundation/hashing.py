"""Canonical hashes: the same value gives the same digest on every machine and day."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> bytes:
    """`value` (JSON types) as bytes with sorted keys and no spare white space (RFC 8785 for the types we use)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(data: bytes | str) -> str:
    """`sha256:` and the hex digest of `data`."""
    return "sha256:" + hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def digest_of(value: Any) -> str:
    """The digest of a JSON value in canonical form."""
    return digest(canonical(value))
