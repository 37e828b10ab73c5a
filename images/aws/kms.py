"""Signs with AWS KMS: the private key never leaves it. Edge."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from hardening.foundation.errors import ContentError
from images.aws.client import Client, Clients
from images.aws.permissions import BUILDER, LOOKING, PUBLISHER, ResourcePattern, permit

PERMISSIONS = (
    permit("kms:GetPublicKey", BUILDER, PUBLISHER, *LOOKING, on=ResourcePattern("{key}", each="signing_keys")),
    permit("kms:Sign", PUBLISHER, on=ResourcePattern("{key}", each="signing_keys")),
)

SPEC = "ECC_NIST_P256"


@dataclass(frozen=True)
class KmsSigner:
    """A key of KMS, which the setting `setting` names."""

    clients: Clients
    key: str
    setting: str

    @cached_property
    def public(self) -> bytes:
        """The public half of the key in the settings, never of one that a statement names (DER)."""
        found = bytes(self._kms.call("GetPublicKey", KeyId=self.key)["PublicKey"])
        if not is_p256(found):
            raise ContentError(f"it is of another kind; statements are signed by {SPEC}", key=self.setting)
        return found

    def sign(self, message: bytes) -> bytes:
        """The signature; only the message's digest is sent."""
        asked = {"MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256"}
        answer = self._kms.call("Sign", KeyId=self.key, Message=hashlib.sha256(message).digest(), **asked)
        return bytes(answer["Signature"])

    @cached_property
    def _kms(self) -> Client:
        return self.clients.client("kms", self.clients.settings.region)


def is_p256(public_key: bytes) -> bool:
    """Whether a public key (DER) is one of ECDSA P-256."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = load_der_public_key(public_key)
    return isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
