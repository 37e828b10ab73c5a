"""Filters and pages of EC2's Describe operations."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from tests.strict_aws.errors import AwsError, bad_value
from tests.strict_aws.wire import Call
from tests.strict_aws.world import World

LEAST, MOST = 5, 1000
Values = Callable[[dict[str, Any]], list[str]]


def member(*path: str) -> Values:
    """A filter on a member of what is shown; lists on the way are walked."""

    def values(shown: Any) -> list[str]:
        found = [shown]
        for name in path:
            found = [entry.get(name) for entry in found if isinstance(entry, dict)]
            found = [one for entry in found for one in (entry if isinstance(entry, list) else [entry])]
        return [_text(entry) for entry in found if entry is not None]

    return values


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def filtered(call: Call, shown: Sequence[dict[str, Any]], known: dict[str, Values]) -> list[dict[str, Any]]:
    """What passes every filter. Raises AwsError for a filter that the operation has not."""
    kept = list(shown)
    for rule in call.params.get("Filters", []):
        values = _values(rule["Name"], known)
        wanted = [re.sub(r"\[", "[[]", value) for value in rule.get("Values", [])]
        kept = [one for one in kept if any(fnmatchcase(has, want) for has in values(one) for want in wanted)]
    return kept


def _values(name: str, known: dict[str, Values]) -> Values:
    if name.startswith("tag:"):
        key = name.removeprefix("tag:")
        return lambda one: [tag["Value"] for tag in one.get("Tags", []) if tag["Key"] == key]
    if name == "tag-key":
        return lambda one: [tag["Key"] for tag in one.get("Tags", [])]
    if name not in known:
        raise bad_value(f"The filter '{name}' is invalid")
    return known[name]


def page(
    world: World, call: Call, found: list[dict[str, Any]], ids: str
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The page asked for and, where there are more, {"NextToken": …}. `ids`: the member that names resources."""
    size, given = call.params.get("MaxResults"), call.params.get("NextToken")
    if call.params.get(ids):
        if size is not None or given:
            raise AwsError("InvalidParameterCombination", f"MaxResults cannot go with {ids}")
        return found, {}
    if size is not None and size < LEAST:
        raise bad_value(f"MaxResults must be at least {LEAST}")
    return part(found, given, min(size or MOST, world.page_at_most))


def part(found: list[Any], given: str | None, size: int) -> tuple[list[Any], dict[str, str]]:
    """`size` entries from where the token `given` says, and the token of what follows."""
    start = 0
    if given:
        try:
            start = int(base64.b64decode(given, validate=True))
        except ValueError:
            raise bad_value("The token is not one of ours") from None
    more = {"NextToken": base64.b64encode(str(start + size).encode()).decode()} if len(found) > start + size else {}
    return found[start : start + size], more
