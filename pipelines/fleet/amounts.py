"""How many members: a number, or a percentage of the fleet. Each use says which way a percentage is rounded. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_PERCENT = r"^([1-9]?[0-9]|100)%$"
_Number = Annotated[int, Field(ge=0)]
_Written = Annotated[str, Field(pattern=_PERCENT, examples=["10%", "100%"])]


def amount(value: Any) -> Any:
    """A number from 0, or text such as `25%`. Raises ValueError with the allowed form."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return percent(value, "a whole number, or a percentage from 0% to 100% such as 25%")


def percent(value: Any, allowed: str = "a percentage from 0% to 100% such as 10%") -> Any:
    """Text such as `25%`. Raises ValueError that says what is `allowed`."""
    if isinstance(value, str) and re.fullmatch(_PERCENT, value):
        return value
    raise ValueError(f"must be {allowed}, not {value!r}")


Percent = Annotated[str, BeforeValidator(percent, json_schema_input_type=_Written)]
Amount = Annotated[int | str, BeforeValidator(amount, json_schema_input_type=_Number | _Written)]


def share(percentage: str) -> int:
    """The number before the sign: 25 of `25%`."""
    return int(percentage.rstrip("%"))


def at_least(value: int | str, members: int) -> int:
    """`value` of so many members, percentages rounded up: one of a small fleet is one."""
    return value if isinstance(value, int) else -(-members * share(value) // 100)


def at_most(value: int | str, members: int) -> int:
    """`value` of so many members, percentages rounded down: a small fleet never loses everyone."""
    return value if isinstance(value, int) else members * share(value) // 100
