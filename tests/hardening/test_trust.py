"""The part of a policy that says who is trusted: what is refused in it, and what makes it weaker than the floor."""

from __future__ import annotations

import subprocess
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from hardening.foundation.content import parse
from hardening.foundation.errors import ContentError
from hardening.trust import Trust, TrustedKey, less_trust, verifies_by
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


DIGEST = "dgst -sha256"
PSS = f"{DIGEST} -sigopt rsa_padding_mode:pss"


@pytest.mark.parametrize(
    ("made", "signs"),
    [
        ("EC -pkeyopt ec_paramgen_curve:P-256", DIGEST), ("EC -pkeyopt ec_paramgen_curve:P-384", "dgst -sha384"),
        ("EC -pkeyopt ec_paramgen_curve:P-521", "dgst -sha512"), ("RSA", PSS), ("ED25519", "pkeyutl -rawin -in"),
    ],
    ids=["P-256", "P-384", "P-521", "RSA", "Ed25519"],
)  # fmt: skip
def test_keys_of_each_kind_verify_what_openssl_signed_by_them_and_nothing_else(
    made: str, signs: str, tmp_path: Path
) -> None:
    """A policy takes them; a changed message, and one that another key signed, are refused."""

    def openssl(*arguments: str) -> bytes:
        return subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True).stdout

    (tmp_path / "said").write_bytes(b"said")
    verdicts = []
    for name in ("key", "another"):
        openssl("genpkey", "-out", name, "-algorithm", *made.split())
        tool, *how = signs.split()
        signature = openssl(tool, "-sign", *(["-inkey"] if tool == "pkeyutl" else []), name, *how, "said")
        public = openssl("pkey", "-in", "key", "-pubout")
        assert parse({"keys": [key(public.decode())]}, Trust, "strict.toml").keys[0].der
        verifies = verifies_by(load_pem_public_key(public))
        verdicts += [verifies(signature, b"said"), verifies(signature, b"Said"), verifies(b"", b"said")]
    assert verdicts == [True, False, False, False, False, False]


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
