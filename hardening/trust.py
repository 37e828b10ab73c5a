"""Whose signatures count: the part of a policy that names keys and the attestations that they must have made. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from hardening.foundation.addresses import canonical_registry
from hardening.foundation.content import Content
from hardening.foundation.durations import Duration, shown
from hardening.model import NonEmpty

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

IN_TOTO, SLSA = "https://in-toto.io/attestation/", "https://slsa.dev/"
PREDICATES = {
    "provenance": f"{SLSA}provenance/v1",
    "cyclonedx": "https://cyclonedx.org/bom",
    "spdx": "https://spdx.dev/Document",
    "vulnerabilities": f"{IN_TOTO}vulns/v0.2",
    "tests": f"{IN_TOTO}test-result/v0.1",
    "verdict": f"{IN_TOTO}svr/v0.1",
}
"""Short names of predicate types; an address stands for itself."""
Verifies = Callable[[bytes, bytes], bool]  # whether a signature, the first, is one over the other by a key
KINDS = "ECDSA (P-256, P-384, P-521), RSA and Ed25519"


class TrustedKey(Content):
    """A key whose signatures count, from `since` through `until`, both days included, by the day of the release.

    `revoked` takes all that it ever signed out of trust.
    """

    name: NonEmpty
    public: NonEmpty = Field(description="the public key, PEM")
    since: date = date.min
    until: date = date.max
    revoked: str = Field("", description="why nothing that it signed counts any more")

    @field_validator("public")
    @classmethod
    def _is_a_key(cls, pem: str) -> str:
        _der(pem)
        return pem

    @model_validator(mode="after")
    def _has_days(self) -> TrustedKey:
        if self.until < self.since:
            raise ValueError(f"its end {self.until} is before its begin {self.since}")
        return self

    @property
    def der(self) -> bytes:
        """The key itself, however its PEM is laid out."""
        return _der(self.public)


@cache
def _der(pem: str) -> bytes:
    """A public key whose signatures can be verified. Raises ValueError. A night wants the same few for every image."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"not a public key (PEM, BEGIN PUBLIC KEY): {error}") from None
    verifies_by(key)
    return der_of(key)


def verifies_by(key: PublicKeyTypes) -> Verifies:
    """What tells whether a signature over bytes is by the key (RSA: PSS). Raises ValueError for other kinds."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

    curves = {"secp256r1": SHA256(), "secp384r1": SHA384(), "secp521r1": SHA512()}
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in curves:
        verify = partial(key.verify, signature_algorithm=ECDSA(curves[key.curve.name]))
    elif isinstance(key, RSAPublicKey):
        verify = partial(key.verify, padding=PSS(MGF1(SHA256()), PSS.AUTO), algorithm=SHA256())
    elif isinstance(key, Ed25519PublicKey):
        verify = partial(key.verify)
    else:
        raise ValueError(f"a key of a kind that verifies nothing here; {KINDS} do")

    def verifies(signature: bytes, data: bytes) -> bool:
        try:
            verify(signature, data)
        except InvalidSignature:
            return False
        return True

    return verifies


def der_of(key: PublicKeyTypes) -> bytes:
    """A public key as bytes (DER)."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _are_different(keys: tuple[TrustedKey, ...]) -> tuple[TrustedKey, ...]:
    names = dict[bytes, str]()
    for key in keys:
        if key.der in names:
            raise ValueError(f"{key.name} is the same key as {names[key.der]}")
        names[key.der] = key.name
    return keys


def _are_known(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in PREDICATES and "://" not in name:
            raise ValueError(f"{name} is neither an address nor one of {', '.join(PREDICATES)}")
    return names


Keys = Annotated[tuple[TrustedKey, ...], AfterValidator(_are_different)]
Predicates = Annotated[tuple[NonEmpty, ...], Field(min_length=1), AfterValidator(_are_known)]


class UpstreamSigner(Content):
    """Who signs upstream images that are used as bases: images from there must be signed by these keys."""

    prefix: NonEmpty = Field(description="how the names of the images begin: registry.example.com/team/")
    keys: Annotated[Keys, Field(min_length=1)]
    predicates: Predicates = Field(("provenance",), description="what must be attested, as in trust")

    def covers(self, reference: str) -> bool:
        """Whether a reference begins with the prefix, by whole parts of its path, however its host is written."""
        prefix, whole = _canonical(self.prefix), _canonical(reference)
        rest = whole.removeprefix(prefix)
        ends = prefix.endswith((":", "/")) or rest.startswith(("/", ":", "@")) or not rest
        return whole.startswith(prefix) and ends


def _canonical(reference: str) -> str:
    """A reference, or its beginning, with its host as one is always written."""
    first, slash, rest = reference.partition("/")
    is_host = "." in first or first.endswith(":") or (slash and ":" in first)
    return f"{canonical_registry(first)}{slash}{rest}" if is_host else reference


class Trust(Content):
    """Which attestations a release needs, and whose signatures, before it is built on, promoted or rolled."""

    keys: Keys = Field((), description="empty: the keys of this installation")
    predicates: Predicates = Field(
        tuple(PREDICATES), description=f"kinds of attestations: {', '.join(PREDICATES)}, or an address"
    )
    max_age: Duration | None = Field(None, description="the oldest release that is accepted")
    builders: tuple[NonEmpty, ...] = Field((), description="globs over builder ids of the provenance; empty: any")
    upstream: tuple[UpstreamSigner, ...] = Field((), description="who signs upstream bases")
    upstream_default: Literal["first-use", "refuse"] = Field(
        "first-use", description="upstream bases that no rule covers: trusted by the digest that was locked, or refused"
    )

    def of_upstream(self, reference: str) -> Trust | None:
        """What an upstream image must prove, by the rule with the longest prefix; None where no rule is about it."""
        rules = [rule for rule in self.upstream if rule.covers(reference)]
        rule = max(rules, key=lambda one: len(one.prefix), default=None)
        return Trust(keys=rule.keys, predicates=rule.predicates) if rule else None

    @property
    def required(self) -> tuple[str, ...]:
        """The types of all attestations that must be there."""
        return tuple(PREDICATES.get(name, name) for name in self.predicates)


def less_trust(ours: Trust, floor: Trust) -> Iterator[str]:
    """In what `ours` asks for less than `floor`, a line for each field."""
    if missing := [name for name in floor.predicates if PREDICATES.get(name, name) not in ours.required]:
        yield f"trust.predicates: the floor also requires {', '.join(missing)}"
    if floor.max_age and (ours.max_age is None or ours.max_age > floor.max_age):
        said = shown(ours.max_age) if ours.max_age else "none"
        yield f"trust.max_age: {said}, and the floor accepts {shown(floor.max_age)}"
    if floor.builders and not (ours.builders and set(ours.builders) <= set(floor.builders)):
        yield f"trust.builders: others than {', '.join(floor.builders)}, which the floor names"
    if floor.upstream_default == "refuse" != ours.upstream_default:
        yield f"trust.upstream_default: {ours.upstream_default}, and the floor has refuse"
    yield from _more_keys(ours.keys, floor.keys)


def _more_keys(ours: tuple[TrustedKey, ...], floor: tuple[TrustedKey, ...]) -> Iterator[str]:
    if floor and not ours:
        yield "trust.keys: the keys of this installation, and the floor names others"
    if ours and not floor:
        yield f"trust.keys: {', '.join(key.name for key in ours)}, and the floor trusts the keys of this installation"
        return
    known = {key.der: key for key in floor}
    for key in ours:
        theirs = known.get(key.der)
        if theirs is None or not _within(key, theirs):
            yield f"trust.keys: {key.name}, which the floor does not trust that far"


def _within(ours: TrustedKey, floor: TrustedKey) -> bool:
    """Whether `ours` counts on no day on which the same key of the floor does not."""
    return bool(ours.revoked) or (not floor.revoked and floor.since <= ours.since and ours.until <= floor.until)
