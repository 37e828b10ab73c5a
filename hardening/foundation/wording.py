"""Pydantic's errors in the words of somebody who writes TOML and no Python. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import StringConstraints

from hardening.foundation.durations import shown

_PATTERNS: dict[str, str] = {}

_KINDS = {
    "bool": "true or false, without quotes",
    "date": "a date such as 2027-01-31, without quotes",
    "datetime": "a date with time such as 2027-01-31T08:00:00Z, without quotes",
    "dict": "a table, as after [name] or in { }",
    "float": "a number, without quotes",
    "int": "a whole number, without quotes",
    "list": "a list, as in [ ]",
    "model": "a table, as after [name] or in { }",
    "path": "a path, in quotes",
    "string": "text, in quotes",
    "tuple": "a list, as in [ ]",
}


def matching(pattern: str, words: str) -> StringConstraints:
    """Text that matches `pattern`, which errors call `words`: what is allowed, as the end of "must be …"."""
    _PATTERNS[pattern] = words
    return StringConstraints(pattern=pattern)


def in_words(kind: str, context: Mapping[str, Any], message: str) -> str:
    """What must be, for an error of pydantic's `kind` with its `context`; for an unknown kind its own `message`."""
    if kind == "string_pattern_mismatch":
        return f"must be {_PATTERNS.get(context['pattern'], 'like ' + context['pattern'])}"
    if kind in {"enum", "literal_error"}:
        return f"must be {context['expected']}"
    if kind in {"too_short", "string_too_short"}:
        return "must not be empty"
    if kind == "too_long":
        return f"must have at most {context['max_length']} values"
    if found := re.fullmatch(r"(greater|less)_than(_equal)?", kind):
        limit = next(iter(context.values()))
        than = {"greater": "more than", "less": "less than"}[found[1]]
        return f"must be {('at least' if found[1] == 'greater' else 'at most') if found[2] else than} {limit}"
    known = _KINDS.get(kind.partition("_")[0])
    return f"must be {known}" if known else message.removeprefix("Input should be").strip().replace("Input ", "it ")


def but(value: Any) -> str:
    """The end of an error about `value`: what it is, as TOML has it; nothing for lists and tables, which are long."""
    if isinstance(value, dict | list | tuple):
        return ""
    if isinstance(value, timedelta):
        return f", not {shown(value)}"
    return f", not {str(value).lower() if isinstance(value, bool) else repr(value)}"
