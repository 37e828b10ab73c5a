"""A statement in its signed envelope, and that in a Sigstore bundle: written, and read back. Pure.

Formats: in-toto Statement v1, DSSE, Sigstore bundle v0.3 with the hint of a public key in place of a certificate.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Protocol

from hardening.foundation.errors import MalformedError
from hardening.foundation.hashing import canonical, hex_of
from hardening.trust import Verifies, verifies_by
from images.registry.answers import loaded, malformed

if TYPE_CHECKING:
    from sigstore_models.intoto import Envelope

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"


class Signer(Protocol):
    """A signer: a key in a file, at a cloud, or behind a program."""

    @property
    def public(self) -> bytes:
        """The public half (DER)."""

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`: ECDSA P-256 over its SHA-256, in ASN.1. Raises OutsideError."""


def hint_of(public: bytes) -> str:
    """How a bundle names the key that signed it: SHA-256 of the public key (DER), in base64."""
    return b64encode(hashlib.sha256(public).digest()).decode()


def statement(predicate_type: str, predicate: Any, subjects: Mapping[str, str]) -> bytes:
    """An in-toto statement; `subjects` are names by digest. The same values give the same bytes."""
    named = [{"name": name, "digest": {"sha256": hex_of(digest)}} for digest, name in subjects.items()]
    said = {"_type": STATEMENT, "subject": named, "predicateType": predicate_type, "predicate": predicate}
    return canonical(said)


def enveloped(payload: bytes, signer: Signer, key_id: str = "") -> dict[str, Any]:
    """The DSSE envelope of a statement, as JSON."""
    signature = b64encode(signer.sign(pae(payload))).decode()
    signatures = [{"keyid": key_id, "sig": signature}]
    return {"payload": b64encode(payload).decode(), "payloadType": PAYLOAD, "signatures": signatures}


def pae(payload: bytes) -> bytes:
    """What is signed of a statement (DSSE)."""
    return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)


def bundled(payload: bytes, signer: Signer) -> bytes:
    """The Sigstore bundle of a statement."""
    material = {"publicKey": {"hint": hint_of(signer.public)}}
    said = {"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": enveloped(payload, signer)}
    return canonical(said)


@dataclass(frozen=True)
class SignedStatement:
    """An envelope that was read and not verified yet. `hint` is the key that it claims, `said` the statement in it."""

    hint: str
    payload: bytes
    signatures: tuple[bytes, ...]
    said: Mapping[str, Any]

    @property
    def predicate_type(self) -> str:
        """What it is about."""
        return str(self.said.get("predicateType", ""))

    @property
    def digests(self) -> tuple[str, ...]:
        """What it is about: the digests of all its subjects."""
        return tuple(f"sha256:{one['digest']['sha256']}" for one in self.said["subject"])

    def is_signed_by(self, verifies: Verifies) -> bool:
        """Whether one of its signatures is by the key, whatever the envelope calls that."""
        return any(verifies(signature, self._signed_bytes) for signature in self.signatures)

    @cached_property
    def _signed_bytes(self) -> bytes:
        return pae(self.payload)


@cache
def verifier(public: bytes) -> Verifies:
    """What checks signatures by a public key (DER)."""
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    return verifies_by(load_der_public_key(public))


def signed_by(public: bytes, bundles: Iterable[bytes]) -> set[bytes]:
    """The statements, of those in the bundles, that this key (DER) signed. What cannot be read is left out."""
    key, found = verifier(public), set[bytes]()
    for bundle in bundles:
        with suppress(MalformedError):
            opened = read_bundle(bundle, "a bundle")
            if opened.is_signed_by(key):
                found.add(opened.payload)
    return found


def read_bundle(data: bytes, what: str) -> SignedStatement:
    """The envelope in a bundle. Raises MalformedError for what is none, or holds no statement about digests."""
    from pydantic import ValidationError
    from sigstore_models.bundle.v1 import Bundle

    read = loaded(data, what)
    try:
        read["verificationMaterial"].setdefault("tlogEntries", [])  # which is left out where there is none
        bundle = Bundle.from_dict(read)
    except (ValidationError, ValueError, KeyError, AttributeError) as error:
        raise malformed(what, error) from None
    material = bundle.verification_material.public_key
    if material is None or bundle.dsse_envelope is None:
        raise MalformedError(f"{what} is signed by a certificate, or signs no statement", hint=_WANTED)
    signatures = len(bundle.dsse_envelope.signatures)
    if signatures != 1:
        raise MalformedError(f"{what} has {signatures} signatures, where a bundle has one", hint=_WANTED)
    return _opened(bundle.dsse_envelope, material.hint or "", what)


def read_envelope(envelope: dict[str, Any], what: str) -> SignedStatement:
    """A DSSE envelope as JSON. Raises MalformedError as `read_bundle` does."""
    from sigstore_models.intoto import Envelope

    try:
        return _opened(Envelope.from_dict(envelope), "", what)
    except ValueError as error:
        raise malformed(what, error) from None


def _opened(envelope: Envelope, hint: str, what: str) -> SignedStatement:
    if envelope.payload_type != PAYLOAD:
        raise MalformedError(f"{what} holds {envelope.payload_type[:100]!r} and no in-toto statement", hint=_WANTED)
    said = loaded(envelope.payload, f"the statement in {what}")
    found = SignedStatement(hint, envelope.payload, tuple(one.sig for one in envelope.signatures), said)
    try:
        well = said["_type"] == STATEMENT and all(hex_of(digest) for digest in found.digests)
    except (KeyError, TypeError, AttributeError) as error:
        raise malformed(f"the statement in {what}", error) from None
    if not well or not isinstance(said.get("predicate"), dict):
        raise MalformedError(f"{what} holds no statement {STATEMENT}", hint=_WANTED)
    return found


_WANTED = "a release carries Sigstore bundles: DSSE over in-toto statements, signed by a key"
