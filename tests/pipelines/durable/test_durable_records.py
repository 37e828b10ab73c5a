"""What the engine writes down comes back as it was, and holds nothing that it should not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.foundation.errors import ContentError, GoldsmithError, LateError, OutsideError, RefusedError, UsageError
from images.aws.client import AwsError, DeniedError, UnreachableError
from pipelines.durable.port import BugError, decode, encode, recorded

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_json_comes_back(value: Any) -> None:
    """Also such as looks like the record of a failure."""
    assert recorded(value) == value


@given(
    st.sampled_from([UsageError, ContentError, RefusedError, OutsideError, LateError]), st.text(), st.text(), st.text()
)
def test_a_failure_comes_back(kind: type[GoldsmithError], message: str, evidence: str, hint: str) -> None:
    """Its class, message, evidence and hint."""
    back = recorded(kind(message, evidence=evidence, hint=hint))
    assert (type(back), back.message, back.evidence, back.hint) == (kind, message, evidence, hint)


@pytest.mark.parametrize(
    "failure",
    [
        AwsError("ec2:RunInstances", "eu-central-1", "InsufficientInstanceCapacity", "not now"),
        DeniedError("ec2:RunInstances", "1", "eu-central-1", "no"),
        UnreachableError("ec2", "eu-central-1", "timed out"),
    ],
)
def test_a_failure_that_makes_its_own_message_comes_back(failure: GoldsmithError) -> None:
    """Its class asks for other things than a message: none of them is recorded."""
    back = recorded(failure)
    assert (type(back), str(back)) == (type(failure), str(failure))


def test_a_failure_of_a_class_that_is_gone_is_one_of_its_family() -> None:
    """What an older version recorded is still refused, or the world's failure."""
    record = encode(LateError("late")).replace("LateError", "ForgottenError")
    assert type(decode(record)) is OutsideError


@pytest.mark.parametrize("value", [{1}, object(), float("nan"), b"bytes"])
def test_what_json_cannot_carry_is_refused(value: Any) -> None:
    """At once, not when it is read back."""
    with pytest.raises((TypeError, ValueError)):
        encode(value)


def test_only_what_a_person_is_told_is_recorded() -> None:
    """No cause, no traceback, no attribute: what a failure passed on its way may hold a secret."""
    error = ContentError("wrong", file="a.toml", key="b")
    error.__cause__ = ValueError("hunter2")
    error.add_note("hunter2")
    assert decode(encode(error)).message == "a.toml: b: wrong"
    assert "hunter2" not in encode(error)


def test_a_bug_is_named_and_stays_a_bug() -> None:
    """It does not come back as a failure that a flow would handle."""
    back = recorded(KeyError("x"))
    assert isinstance(back, BugError)
    assert str(back) == "KeyError: 'x'"
    assert str(recorded(back)) == str(back), "however many flows it goes through"
