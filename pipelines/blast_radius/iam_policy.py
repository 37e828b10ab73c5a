"""What IAM policies allow: certainly, possibly (by an unknown condition), or not. Pure.

The order of the service: an explicit deny wins, then the permissions boundary must allow, then a policy must.
Source: the IAM user guide, "Policy evaluation logic" and "IAM JSON policy elements".
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Any

from hardening.foundation.errors import OutsideError
from hardening.foundation.limits import IAM_PATTERN, IAM_STATEMENTS


class Decision(IntEnum):
    """Whether something is allowed."""

    NO = 0
    POSSIBLE = 1
    CERTAIN = 2


RequestContext = Mapping[str, str | tuple[str, ...] | None]
"""What is known of a request, by lower-case condition key: several values of a key that has them, such as aws:TagKeys;
None: the key is not in the request.
"""


@dataclass(frozen=True)
class Condition:
    """One condition: an operator over a key, such as StringEquals over iam:PassedToService."""

    operator: str
    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Statement:
    """One statement. `actions` and `resources` are patterns; `not_…`: it is about all others.

    `principals` are those of a trust policy, as `AWS:arn:…` or `Service:lambda.amazonaws.com`; `*` is everybody.
    """

    allows: bool
    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()
    resources: tuple[str, ...] = ("*",)
    not_resources: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    principals: tuple[str, ...] = ()
    but_principals: tuple[str, ...] = ()


Statements = tuple[Statement, ...]


@dataclass(frozen=True)
class Rights:
    """The statements that decide for one principal; `boundary` is None where none limits it."""

    statements: Statements = ()
    boundary: Statements | None = None
    about: dict[str, tuple[Statements, Statements | None]] = field(default_factory=dict, compare=False, repr=False)

    def answer(self, action: str, resource: str, context: RequestContext | None = None) -> Decision:
        """Whether `action` on `resource` is allowed. On a `resource` with wildcards: on one that they cover."""
        known = context or {}
        if action not in self.about:
            limit = None if self.boundary is None else _about(self.boundary, action)
            self.about[action] = _about(self.statements, action), limit
        own, limit = self.about[action]
        if not own:
            return Decision.NO
        found = _answer(own, resource, known)
        return min(found, _answer(limit, resource, known)) if limit is not None else found

    def about_all(self, actions: Sequence[str]) -> Statements:
        """The statements, and those of the boundary, that are about one of these actions."""
        every = (*self.statements, *(self.boundary or ()))
        return tuple(one for one in every if any(is_about(one, action) for action in actions))

    def without(self, actions: Sequence[str], resource: str) -> Rights:
        """The same with these actions on a resource denied."""
        deny = Statement(allows=False, actions=tuple(actions), resources=(resource,))
        return Rights((*self.statements, deny), self.boundary)

    @property
    def unlimited(self) -> bool:
        """Whether everything is certainly allowed."""
        return (
            any(one.allows and not one.conditions and "*" in one.actions and "*" in one.resources
                for one in self.statements)
            and all(one.allows for one in self.statements)
            and (self.boundary is None or Rights(self.boundary).unlimited)
        )  # fmt: skip


def _about(statements: Statements, action: str) -> Statements:
    return tuple(one for one in statements if is_about(one, action))


def is_about(statement: Statement, action: str) -> bool:
    """Whether a statement is about an action, in upper or lower case."""
    if statement.not_actions:
        return not any(matches(one, action, case=False) for one in statement.not_actions)
    return any(matches(one, action, case=False) for one in statement.actions)


def _answer(about: Statements, resource: str, known: RequestContext) -> Decision:
    """The answer of statements that are about the action."""
    best = Decision.NO
    for one in about:
        if one.allows and (met := _met(one, known)):
            parts = (min(met, sure, _left(part, about, known)) for part, sure in _parts(one, resource))
            best = max(best, max(parts, default=best))
    return best


def _parts(statement: Statement, resource: str) -> tuple[tuple[str, Decision], ...]:
    """The parts of what is asked for that the statement is about, as patterns, each with how sure that is."""
    if statement.not_resources:
        return ((resource, _other_than(_surest(one for one in statement.not_resources if matches(one, resource)))),)
    return tuple((part, _surest((one,))) for one in statement.resources if (part := common(one, resource)))


def _left(resource: str, about: Statements, known: RequestContext) -> Decision:
    """What denials leave of a right to a resource."""
    denied = (min(met, _covers(one, resource)) for one in about if not one.allows and (met := _met(one, known)))
    return _other_than(max(denied, default=Decision.NO))


def _covers(statement: Statement, resource: str) -> Decision:
    """How surely a statement is about all of a resource."""
    if statement.not_resources:
        return _other_than(_surest(one for one in statement.not_resources if common(one, resource)))
    return _surest(one for one in statement.resources if matches(one, resource))


def _surest(fitting: Iterable[str]) -> Decision:
    """How surely one of the patterns fits that do so by their text: one with a policy variable only possibly."""
    return max((Decision.POSSIBLE if "${" in one else Decision.CERTAIN for one in fitting), default=Decision.NO)


def _other_than(answer: Decision) -> Decision:
    """The opposite: what is surely not, if `answer` is sure."""
    return Decision(Decision.CERTAIN - answer)


# -- patterns ----------------------------------------------------------------------------------------------------------


VARIABLE = re.compile(r"\$\{[^}]*\}")  # which may be anything
ACCOUNT = re.compile(r"[\d*?]*|aws")


@lru_cache(maxsize=65536)
def _compiled(pattern: str, *, case: bool) -> re.Pattern[str]:
    """The pattern as an expression that looks at each place once, however many wildcards somebody wrote into it.

    A `?` covers no `*` of a text that is a pattern: that one stands for more than one character.
    """
    text = VARIABLE.sub("*", pattern)
    first, *others = ("".join("[^*]" if one == "?" else re.escape(one) for one in part) for part in text.split("*"))
    middle = "".join(f"(?>.*?{part})" for part in others[:-1] if part)
    last = f".*{others[-1]}" if others else ""
    return re.compile(first + middle + last, re.DOTALL | (0 if case else re.IGNORECASE))


def matches(pattern: str, text: str, *, case: bool = True) -> bool:
    """Whether a pattern with * and ? covers a text, which may itself be a pattern: then all that it covers."""
    if pattern in ("*", text):
        return True
    return ("*" in pattern or "?" in pattern or "$" in pattern or not case) and bool(
        _compiled(pattern, case=case).fullmatch(text)
    )


def common(one: str, other: str) -> str:
    """What two patterns have in common, as the narrower of them; empty where they have nothing."""
    if matches(one, other):
        return other
    if matches(other, one):
        return one
    return one if _overlap(one, other) else ""


@lru_cache(maxsize=65536)
def _overlap(one: str, other: str) -> bool:
    """Whether some text matches both patterns: part by part where both have the parts of an ARN, else as a whole, for a
    wildcard may stand for several parts.
    """
    sides = [VARIABLE.sub("*", text) for text in (one, other)]
    parts = [text.split(":", 5) for text in sides]
    aligned = all(len(some) == 6 and ACCOUNT.fullmatch(some[4]) for some in parts)  # noqa: PLR2004 - an ARN has six
    return all(_cross(a, b) for a, b in zip(*(parts if aligned else ([text] for text in sides)), strict=True))


def _cross(one: str, other: str) -> bool:
    """Whether some text matches both. `here`: the places of `other` that it may have come to, as bits."""
    places, any_length, fitting = 0, 0, defaultdict[str, int](int)
    for character in other:
        if character == "*":
            any_length |= 1 << places
        else:
            fitting[character] |= 1 << places
            places += 1
    every, here = (1 << places) - 1, 1
    for character in one:
        if character == "*":
            here = (every | 1 << places) & -(here & -here)  # here, or at any place after it
        else:
            fits = every if character == "?" else fitting[character] | fitting["?"]
            here = (here & fits) << 1 | here & any_length
    return bool(here >> places)


# -- conditions --------------------------------------------------------------------------------------------------------


def _met(statement: Statement, known: RequestContext) -> Decision:
    return min((_holds(one, known) for one in statement.conditions), default=Decision.CERTAIN)


def _equal(value: str, wanted: str) -> bool:
    return value == wanted


def _equal_any_case(value: str, wanted: str) -> bool:
    return value.lower() == wanted.lower()


def _like(value: str, wanted: str) -> bool:
    return matches(wanted, value)


COMPARED: dict[str, Callable[[str, str], bool]] = {
    "stringequals": _equal, "stringequalsignorecase": _equal_any_case, "stringlike": _like,
    "arnequals": _like, "arnlike": _like, "bool": _equal_any_case,
}  # fmt: skip
NEGATED = {"stringnotequals": "stringequals", "stringnotequalsignorecase": "stringequalsignorecase",
           "stringnotlike": "stringlike", "arnnotequals": "arnequals", "arnnotlike": "arnlike"}  # fmt: skip


def _holds(condition: Condition, known: RequestContext) -> Decision:
    """Whether a condition holds; of a key or an operator of which nothing is known, possibly."""
    quantity, _, operator = condition.operator.lower().rpartition(":")
    lenient, operator = operator.endswith("ifexists") or quantity == "forallvalues", operator.removesuffix("ifexists")
    key = condition.key.lower()
    if key not in known:
        return Decision.POSSIBLE
    value = known[key]
    if operator == "null":
        return _sure((value is None) is (condition.values[:1] == ("true",)))
    negated = operator in NEGATED
    compare = COMPARED.get(NEGATED.get(operator, operator))
    if value is None:
        return _sure(lenient or negated)
    if compare is None or any("${" in one for one in condition.values):
        return Decision.POSSIBLE
    each = (any(compare(one, wanted) for wanted in condition.values) is not negated for one in _several(value))
    return _sure(any(each) if quantity == "foranyvalue" else all(each))


def _several(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _sure(holds: bool) -> Decision:
    return Decision.CERTAIN if holds else Decision.NO


# -- documents ---------------------------------------------------------------------------------------------------------


def read_document(document: Any, what: str) -> Statements:
    """The statements of a policy as its JSON has them. Raises OutsideError, naming `what`, for anything else."""
    try:
        found = _listed(document["Statement"])
        IAM_STATEMENTS.require(len(found), what)
        statements = tuple(_statement(one) for one in found)
    except (KeyError, TypeError, AttributeError) as error:
        raise OutsideError(f"{what} is not a policy: {error!r}", hint="see what IAM shows of it") from None
    for one in statements:
        values = (value for each in one.conditions for value in (each.key, *each.values))
        named = (*one.principals, *one.but_principals)
        for text in (*one.actions, *one.not_actions, *one.resources, *one.not_resources, *named, *values):
            IAM_PATTERN.require(len(text), f"a pattern in {what}")
    return statements


def _statement(one: Mapping[str, Any]) -> Statement:
    if one["Effect"] not in ("Allow", "Deny"):
        raise KeyError("Effect")
    return Statement(
        allows=one["Effect"] == "Allow",
        actions=_texts(one.get("Action")), not_actions=_texts(one.get("NotAction")),
        resources=_texts(one.get("Resource", () if "NotResource" in one else "*")),
        not_resources=_texts(one.get("NotResource")),
        conditions=tuple(
            Condition(str(operator), str(key), _texts(values))
            for operator, keys in (one.get("Condition") or {}).items() for key, values in keys.items()
        ),
        principals=_principals(one.get("Principal")), but_principals=_principals(one.get("NotPrincipal")),
    )  # fmt: skip


def _principals(said: Any) -> tuple[str, ...]:
    if isinstance(said, Mapping):
        return tuple("*" if name == "*" else f"{kind}:{name}" for kind, names in said.items() for name in _texts(names))
    return _texts(said)


def _listed(said: Any) -> list[Any]:
    return list(said) if isinstance(said, list | tuple) else [said]


def _texts(said: Any) -> tuple[str, ...]:
    listed = () if said is None else _listed(said)
    return tuple(str(one).lower() if isinstance(one, bool) else str(one) for one in listed)
