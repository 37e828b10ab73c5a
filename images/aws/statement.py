"""The signed statement of a release: which images in which regions are exactly which disk, made from what. Pure.

An in-toto Statement in a DSSE envelope (https://github.com/secure-systems-lab/dsse), signed with ECDSA P-256. Tags can
be changed by whoever may tag; what they say is believed only as far as this statement says the same.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hardening.findings import Verdict
from hardening.foundation.hashing import canonical, digest_of
from images.artifact import Artifact, Release
from images.aws.model import Ami, Machine
from images.documents import to_json
from images.publication import lifecycle

PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:dev.goldsmith:machine-release:v1"


@dataclass(frozen=True)
class Proof:
    """What came of checking a statement: `problems` is empty where it holds and all that is shown agrees with it."""

    signed: bool
    problems: tuple[str, ...]
    statement: dict[str, Any]

    @property
    def holds(self) -> bool:
        """Whether it was signed by our key and nothing contradicts it."""
        return self.signed and not self.problems


def statement(
    release: Release, machine: Machine, amis: Sequence[Ami], artifact: Artifact, verdict: Verdict, prefix: str
) -> dict[str, Any]:
    """What is signed: the images by region as subjects, and what they are made from."""
    hexed = machine.linear.removeprefix("sha256:")
    subjects = [{"name": _arn(ami), "digest": {"sha256": hexed}} for ami in sorted(amis, key=lambda ami: ami.region)]
    return {
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": PREDICATE,
        "predicate": {
            "release": release.digest,
            "content": release.content,
            "inputDigest": release.input_digest,
            "packagesDigest": digest_of(to_json(artifact.packages)),
            "verdictDigest": digest_of(to_json(verdict)),
            "builder": str(artifact.inputs.get("builder", "")),
            "created": lifecycle.timestamp(artifact.created),
            "annotations": lifecycle.annotations(release, prefix),
            "snapshots": {ami.region: list(ami.snapshots) for ami in amis},
        },
    }


def pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is really signed."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)


def envelope(payload: bytes, key: str, signature: bytes) -> str:
    """The payload with its signature, as it is kept."""
    signed = {"keyid": key, "sig": b64encode(signature).decode()}
    return canonical({"payload": b64encode(payload).decode(), "payloadType": PAYLOAD, "signatures": [signed]}).decode()


def prove(kept: str, public_key: bytes, ami: Ami, prefix: str) -> Proof:
    """Check a kept envelope by the public key (DER), and what an image shows against it."""
    try:
        data = json.loads(kept)
        payload = b64decode(data["payload"], validate=True)
        signatures = [b64decode(each["sig"], validate=True) for each in data["signatures"]]
        if data["payloadType"] != PAYLOAD or not any(_valid(public_key, pae(payload), each) for each in signatures):
            return Proof(False, ("the statement is not signed by our key: it was changed, or another's",), {})
        said: dict[str, Any] = json.loads(payload)
    except (ValueError, KeyError, TypeError) as error:
        return Proof(False, (f"the statement cannot be read: {error!r}",), {})
    return Proof(True, tuple(_contradictions(said, ami, prefix)), said)


def unproven(why: str) -> Proof:
    """The proof where there is no statement at all."""
    return Proof(False, (why,), {})


def _contradictions(said: Mapping[str, Any], ami: Ami, prefix: str) -> list[str]:
    """Where an image in the region, or one of its tags, is not what was signed."""
    try:
        predicate = said["predicate"]
        digests = {subject["name"]: subject["digest"]["sha256"] for subject in said["subject"]}
        signed = {
            **predicate["annotations"],
            f"{prefix}release": predicate["release"],
            f"{prefix}content": predicate["content"],
            f"{prefix}linear-digest": f"sha256:{digests.get(_arn(ami), '')}",
        }
        snapshots = predicate["snapshots"].get(ami.region, [])
    except (KeyError, TypeError, AttributeError) as error:
        return [f"the statement lacks what ours say: {error!r}"]
    found = [] if _arn(ami) in digests else [f"the statement does not speak of {ami.where}"]
    if list(ami.snapshots) != snapshots:
        found.append(f"{ami.where} lies on {', '.join(ami.snapshots)}; signed was {', '.join(snapshots)}")
    wrong = [key for key, value in sorted(signed.items()) if ami.tags.get(key) != value]
    return found + [f"the tag {key} says {ami.tags.get(key, 'nothing')}; signed was {signed[key]}" for key in wrong]


def is_p256(public_key: bytes) -> bool:
    """Whether a public key (DER) is one of ECDSA P-256."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = load_der_public_key(public_key)
    return isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)


def _valid(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature over `message` is by the key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = load_der_public_key(public_key)
    try:
        if isinstance(key, EllipticCurvePublicKey):
            key.verify(signature, message, ECDSA(SHA256()))
            return True
    except InvalidSignature:
        pass
    return False


def _arn(ami: Ami) -> str:
    return f"arn:aws:ec2:{ami.region}::image/{ami.id}"
