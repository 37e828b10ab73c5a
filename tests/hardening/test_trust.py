"""The part of a policy that says who is trusted: what is refused in it, and what makes it weaker than the floor."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hardening.foundation.content import parse
from hardening.foundation.errors import ContentError
from hardening.trust import Trust, TrustedKey, less_trust
from tests.support.signing import KeyInMemory

ONE, OTHER = KeyInMemory().trusted("one").public, KeyInMemory().trusted("other").public
DAY = date(2026, 1, 1)


def key(public: str, name: str = "a", **more: Any) -> dict[str, Any]:
    """A key as it stands in a policy."""
    return {"name": name, "public": public, **more}


def pem(private: Any) -> str:
    """The public half of a key of any kind."""
    return str(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


@pytest.mark.parametrize(
    ("trust", "said"),
    [
        ({"predicates": []}, "predicates"),
        ({"upstream": [{"prefix": "r/", "keys": [key(ONE)], "predicates": []}]}, "predicates"),
        ({"upstream": [{"prefix": "r/", "keys": [key(ONE)], "predicates": ["provenence"]}]}, "provenence is neither"),
        ({"keys": [key(ONE), key(ONE.replace("\n", "\n\n", 1), "b")]}, "b is the same key as a"),
        ({"keys": [key(ONE), key(ONE)]}, "a is the same key as a"),
        ({"upstream": [{"prefix": "r/", "keys": [key(ONE), key(ONE, "b")]}]}, "b is the same key as a"),
        ({"keys": [key(pem(generate_private_key(SECP256K1())))]}, "of a kind that verifies nothing here"),
        ({"keys": [key(pem(X25519PrivateKey.generate()))]}, "of a kind that verifies nothing here"),
    ],
)  # fmt: skip
def test_what_would_prove_nothing_is_refused_where_it_is_written(trust: dict[str, Any], said: str) -> None:
    """As content, by the file's name; and not when a release is verified."""
    with pytest.raises(ContentError, match=said) as caught:
        parse(trust, Trust, "strict.toml")
    assert "strict.toml" in str(caught.value)


def test_keys_of_other_kinds_that_verify_are_taken() -> None:
    """Such as Ed25519."""
    assert parse({"keys": [key(ONE), key(pem(Ed25519PrivateKey.generate()))]}, Trust, "strict.toml").keys[1].der


def trust(*keys: TrustedKey) -> Trust:
    """Trust in these keys."""
    return Trust(keys=keys)


def named(public: str = ONE, **more: Any) -> TrustedKey:
    """The key `a`, from one day to another."""
    return TrustedKey(name="a", public=public, **{"since": DAY, "until": DAY + timedelta(days=9), **more})


FAR = "trust.keys: a, which the floor does not trust that far"


@pytest.mark.parametrize(
    ("ours", "floor", "said"),
    [
        (trust(), trust(), []),
        (trust(named()), trust(named()), []),
        (trust(named(ONE.replace("\n", "\n\n", 1))), trust(named()), []),
        (trust(named(since=DAY + timedelta(days=1), until=DAY + timedelta(days=8))), trust(named()), []),
        (trust(named(revoked="leaked")), trust(named()), []),
        (trust(named()), trust(), ["trust.keys: a, and the floor trusts the keys of this installation"]),
        (
            trust(), Trust(upstream_default="refuse"),
            ["trust.upstream_default: first-use, and the floor has refuse"],
        ),
        (Trust(upstream_default="refuse"), trust(), []),
        (trust(), trust(named()), ["trust.keys: the keys of this installation, and the floor names others"]),
        (trust(named(OTHER)), trust(named()), [FAR]),
        (trust(named(since=DAY - timedelta(days=1))), trust(named()), [FAR]),
        (trust(named(until=date.max)), trust(named()), [FAR]),
        (trust(named()), trust(named(revoked="leaked")), [FAR]),
    ],
)  # fmt: skip
def test_trust_in_a_key_that_the_floor_does_not_have_is_less(ours: Trust, floor: Trust, said: list[str]) -> None:
    """On any day; a key is the same one however its PEM is laid out."""
    assert list(less_trust(ours, floor)) == said
