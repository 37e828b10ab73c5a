"""Keys and signed statements for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hardening.trust import PREDICATES, TrustedKey
from images.registry.attestations import signed_document
from images.registry.client import RegistryClient
from images.registry.referrers import attach
from images.trust.envelope import Signer, bundled, statement
from images.trust.keys import pem_of, signer

UPSTREAM_RULE = """
[[trust.upstream]]
prefix = "127.0.0.1:"
keys = [{ name = "platform", public = '''
%s''' }]
"""
"""A rule for whatever stands in a registry of a test, with the public key (PEM) that must have signed it."""


@dataclass(frozen=True)
class KeyInMemory:
    """A key pair that no file holds."""

    private: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))

    @property
    def public(self) -> bytes:
        """The public half (DER)."""
        return self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, message: bytes) -> bytes:
        """The signature."""
        return self.private.sign(message, ECDSA(SHA256()))

    def trusted(self, name: str = "release", **more: Any) -> TrustedKey:
        """The key as a policy names it."""
        return TrustedKey(name=name, public=pem_of(self.public), **more)


def signed(signer: Signer, predicate_type: str, digest: str, predicate: Any = None) -> bytes:
    """A bundle of one statement about `digest`."""
    return bundled(statement(predicate_type, predicate or {"said": "so"}, {digest: "registry/web"}), signer)


def sign_release(registry: RegistryClient, repository: str, digest: str) -> None:
    """Attach all that a release must carry to something that a test pushed, signed by this installation's key."""
    key, subjects = signer(registry.settings, datetime.now(UTC).date()), {digest: repository}
    said = [statement(address, {"said": "so"}, subjects) for address in PREDICATES.values()]
    index = registry.get(f"{repository}@{digest}").descriptor
    attach(registry, repository, index, [signed_document(one, key) for one in said])
