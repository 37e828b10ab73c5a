"""Canonical hashes: the same value gives the same digest on every machine and day."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from hardening.foundation.errors import MalformedError

DIGEST = r"^sha256:[0-9a-f]{64}$"


def canonical(value: Any) -> bytes:
    """`value` (JSON types) as bytes with sorted keys and no spare white space (RFC 8785 for the types we use).

    Raises MalformedError where a text in it is none: JSON from outside can name half of a character.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise MalformedError(
            "a text holds half of a character, \\ud800 to \\udfff", hint="which program sent it?"
        ) from None


def digest(data: bytes | str) -> str:
    """`sha256:` and the hex digest of `data`."""
    return "sha256:" + hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def digest_of(value: Any) -> str:
    """The digest of a JSON value in canonical form."""
    return digest(canonical(value))


def hex_of(digest: str) -> str:
    """The hex of a digest, which may then name a file. Raises MalformedError for anything else, such as a path."""
    if not re.fullmatch(DIGEST, digest):
        hint = "a digest is sha256: and 64 hexadecimal digits; which program sent it?"
        raise MalformedError(f"{digest[:100]!r} is not a digest", hint=hint)
    return digest.removeprefix("sha256:")
