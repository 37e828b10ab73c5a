"""What is not known is possible, never certain; anything but a policy is refused; patterns are compared as patterns."""

from __future__ import annotations

import json
from itertools import product
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.foundation.errors import OutsideError
from pipelines.blast_radius.account import document, read_account
from pipelines.blast_radius.iam_policy import Decision, Rights, common, matches
from tests.pipelines.blast_radius.planted import ACCOUNT, ARN, policy

NO, POSSIBLE, CERTAIN = Decision
OFFICE = {"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}
READ = {"Effect": "Allow", "Action": "s3:GetObject"}
ORDERS = "arn:aws:s3:::orders/*"


def rights(*statements: dict[str, Any], boundary: list[dict[str, Any]] | None = None) -> Rights:
    limit = None if boundary is None else document(policy(*boundary), "limit")
    return Rights(document(policy(*statements), "own"), limit)


@pytest.mark.parametrize(
    ("answer", "statements"),
    [
        (POSSIBLE, [READ | {"Resource": "*"} | OFFICE]),
        (CERTAIN, [READ | {"Resource": "*"} | OFFICE, READ | {"Resource": ORDERS}]),
        (POSSIBLE, [READ | {"Resource": "*"}, {"Effect": "Deny", "Action": "s3:*", "Resource": "*"} | OFFICE]),
        (NO, [READ | {"Resource": "*"}, {"Effect": "Deny", "NotAction": "s3:List*", "Resource": "*"}]),
        (CERTAIN, [READ | {"Resource": "*"}, {"Effect": "Deny", "Action": "*", "Resource": "arn:aws:s3:::orders/1"}]),
        (NO, [READ | {"Resource": "arn:aws:s3:::orders/old/*"},
              {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::orders/old*"}]),
        (NO, [READ | {"Resource": "*"}, {"Effect": "Deny", "Action": "*", "NotResource": "arn:aws:s3:::logs/*"}]),
        (POSSIBLE, [READ | {"Resource": "*", "Condition": {"StringEquals": {"s3:x": "${aws:username}"}}}]),
        (NO, [READ | {"Resource": "arn:aws:s3:::logs/*"}]),
        (CERTAIN, [READ | {"Resource": "*"}, {"Effect": "Deny", "Action": "*", "Resource": "arn:aws:s3:::orders/?"}]),
        (POSSIBLE, [READ | {"Resource": "arn:aws:s3:::${aws:username}/*"}]),
        (POSSIBLE, [READ | {"NotResource": "arn:aws:s3:::${aws:username}/*"}]),
        (NO, [READ | {"NotResource": "arn:aws:s3:::orders/*"}]),
        (POSSIBLE, [READ | {"Resource": "*"},
                    {"Effect": "Deny", "Action": "*", "Resource": "arn:aws:s3:::${aws:username}/*"}]),
        (POSSIBLE, [READ | {"Resource": "*"},
                    {"Effect": "Deny", "Action": "*", "NotResource": "arn:aws:s3:::${aws:username}/*"}]),
        (CERTAIN, [READ | {"Resource": "arn:aws:s3:::orders*1"}]),
        (NO, []),
    ],
)  # fmt: skip
def test_a_right_is_certain_possible_or_not_there(answer: Decision, statements: list[dict[str, Any]]) -> None:
    """To some object of the orders, whichever the asker likes."""
    assert rights(*statements).answer("s3:GetObject", ORDERS) is answer


def test_a_boundary_limits_and_gives_nothing() -> None:
    """Both must allow; a condition in either makes it possible."""
    allow = READ | {"Resource": "*"}
    assert rights(boundary=[allow]).answer("s3:GetObject", ORDERS) is NO
    assert rights(allow, boundary=[]).answer("s3:GetObject", ORDERS) is NO
    assert rights(allow, boundary=[allow]).answer("s3:GetObject", ORDERS) is CERTAIN
    assert rights(allow, boundary=[allow | OFFICE]).answer("s3:GetObject", ORDERS) is POSSIBLE
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    assert rights(everything).unlimited
    assert not rights(everything, boundary=[allow]).unlimited
    assert not rights(everything | OFFICE).unlimited
    assert not rights(everything, {"Effect": "Deny", "Action": "iam:*", "Resource": "*"}).unlimited


def test_what_is_denied_in_addition_is_gone() -> None:
    """Only that."""
    left = rights({"Effect": "Allow", "Action": "*", "Resource": "*"}).without(("s3:GetObject",), ORDERS)
    assert left.answer("s3:GetObject", "arn:aws:s3:::orders/1") is NO
    assert left.answer("s3:GetObject", "arn:aws:s3:::logs/1") is CERTAIN
    assert left.answer("s3:PutObject", "arn:aws:s3:::orders/1") is CERTAIN


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("*", "arn:aws:s3:::a", "arn:aws:s3:::a"),
        ("arn:aws:s3:::a*", "arn:aws:s3:::ab*", "arn:aws:s3:::ab*"),
        ("arn:aws:lambda:*:1:function:*", "arn:aws:lambda:eu-*:*:function:x", "arn:aws:lambda:*:1:function:*"),
        ("arn:aws:s3:::a*", "arn:aws:s3:::b*", ""),
        ("arn:aws:s3:::*x", "arn:aws:s3:::*y", ""),
        ("arn:aws:s3:::a", "arn:aws:s3:::A", ""),
        ("s3", "iam", ""),
        ("arn:aws:dynamodb:eu-*", "arn:aws:dynamodb:*:1:table/*", "arn:aws:dynamodb:eu-*"),
        ("arn:aws:dynamodb:*:table/x*", "arn:aws:dynamodb:eu:1:table/*", "arn:aws:dynamodb:*:table/x*"),
        ("arn:aws:logs:*:log-group:x*", "arn:aws:logs:*:1:log-group:*", "arn:aws:logs:*:log-group:x*"),
        ("arn:aws:dynamodb:*:1:table/*", "arn:aws:dynamodb:*:2:table/*", ""),
        ("arn:aws:s3:::a?", "arn:aws:s3:::?b", "arn:aws:s3:::a?"),
        ("arn:aws:s3:::a?", "arn:aws:s3:::a*", "arn:aws:s3:::a?"),
        ("arn:aws:s3:::x-${v}-y", "arn:aws:s3:::*-z-y", "arn:aws:s3:::x-${v}-y"),
    ],
)
def test_patterns_have_a_part_in_common_or_none(one: str, other: str, shared: str) -> None:
    """The narrower of two, or one of those that cross."""
    assert common(one, other) == shared
    assert bool(common(other, one)) is bool(shared)


@given(st.text("ab*?", max_size=6), st.text("ab", max_size=6))
def test_a_pattern_covers_what_a_plain_comparison_says(pattern: str, text: str) -> None:
    """Character by character."""

    def covered(left: str, right: str) -> bool:
        if not left:
            return not right
        if left[0] == "*":
            return covered(left[1:], right) or (bool(right) and covered(left, right[1:]))
        return bool(right) and left[0] in ("?", right[0]) and covered(left[1:], right[1:])

    assert matches(pattern, text) is covered(pattern, text)


@given(st.text("ab*?", max_size=4), st.text("ab*?", max_size=4))
def test_patterns_that_cross_do_so_in_some_text(one: str, other: str) -> None:
    """Of all short ones; and what covers a pattern covers all that it does."""
    texts = ["".join(some) for size in range(9) for some in product("ab", repeat=size)]
    both = [text for text in texts if matches(one, text) and matches(other, text)]
    assert bool(common(one, other)) is bool(both) or not (one and other)
    if matches(one, other):
        assert both == [text for text in texts if matches(other, text)]


def test_a_condition_on_all_values_of_a_key_that_is_not_there_holds() -> None:
    """Of none of them it is not so."""
    for quantity, answer in (("ForAllValues:", CERTAIN), ("ForAnyValue:", NO), ("", NO)):
        own = rights(READ | {"Resource": "*", "Condition": {f"{quantity}StringEquals": {"aws:TagKeys": "team"}}})
        assert own.answer("s3:GetObject", ORDERS, {"aws:tagkeys": None}) is answer


def test_a_pattern_with_many_wildcards_is_no_trap() -> None:
    """A thousand of them, against a long text that almost fits."""
    assert not matches("*a" * 1000, "a" * 999 + "b" * 5000)
    assert matches("*a" * 1000 + "*", "a" * 5000)
    assert common("*a" * 1000, "*?a*b" * 400) == ""


@pytest.mark.parametrize(
    "wrong",
    [{}, {"Statement": [{"Effect": "Perhaps"}]}, {"Statement": [[]]}, {"Statement": 7}, "%7B", "[]",
     {"Statement": [{"Effect": "Allow", "Condition": {"Bool": 1}}]},
     {"Statement": [{"Effect": "Allow", "Action": "x" * 3000, "Resource": "*"}]},
     {"Statement": [{"Effect": "Allow", "Action": "x", "Resource": "*"}] * 5001}, "x" * 300_000,
     {"Statement": [{"Effect": "Allow", "Action": "x", "Condition": {"ArnLike": {"aws:PrincipalArn": "*a" * 2000}}}]}],
    ids=range(11),
)  # fmt: skip
def test_what_is_no_policy_or_too_large_is_refused(wrong: Any) -> None:
    """With the name of its owner."""
    with pytest.raises(OutsideError, match="role/web"):
        document(wrong, f"{ARN}role/web")


def test_a_policy_may_come_encoded() -> None:
    """As IAM sends it."""
    shown = policy(READ | {"Resource": ORDERS})
    assert document(quote(json.dumps(shown)), "x") == document(shown, "x")


@pytest.mark.parametrize(
    "wrong",
    [{"RoleDetailList": [{}]}, {"RoleDetailList": [7]}, {"UserDetailList": None}, {"UserDetailList": [{"Arn": "ann"}]}],
)
def test_what_is_no_account_is_refused(wrong: Any) -> None:
    """An answer of another kind, or of tomorrow."""
    with pytest.raises(OutsideError, match=ACCOUNT):
        read_account(ACCOUNT, wrong)


@pytest.mark.parametrize(
    ("operator", "keys", "answer"),
    [
        ("ForAllValues:StringLike", ("shop.a", "shop.b"), CERTAIN),
        ("ForAllValues:StringLike", ("shop.a", "team"), NO),
        ("ForAnyValue:StringLike", ("shop.a", "team"), CERTAIN),
        ("ForAnyValue:StringLike", ("team",), NO),
        ("ForAllValues:StringNotLike", ("team", "name"), CERTAIN),
        ("ForAllValues:StringNotLike", ("team", "shop.a"), NO),
        ("ForAnyValue:StringNotLike", ("team", "shop.a"), CERTAIN),
    ],
)
def test_of_a_key_with_several_values_each_or_one_has_to_do(
    operator: str, keys: tuple[str, ...], answer: Decision
) -> None:
    """Such as the keys of all tags in a request."""
    own = rights(READ | {"Resource": "*", "Condition": {operator: {"aws:TagKeys": "shop.*"}}})
    assert own.answer("s3:GetObject", ORDERS, {"aws:tagkeys": keys}) is answer
