"""The signed statement of a release: which images in which regions are exactly which disk; signed by KMS."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hardening.findings import Verdict
from hardening.foundation.errors import ContentError
from hardening.foundation.hashing import canonical, digest_of
from images.artifact import Artifact, Release
from images.aws import call_arguments
from images.aws.cloud import Cloud
from images.aws.model import Ami, MachineImage
from images.documents import to_json
from images.release import lifecycle

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:dev.goldsmith:machine-release:v1"


@dataclass(frozen=True)
class StatementProof:
    """What came of checking a statement: `problems` is empty where it holds and all that is shown agrees with it."""

    signed: bool
    problems: tuple[str, ...]
    statement: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether it was signed by our key and nothing contradicts it."""
        return self.signed and not self.problems


def statement(
    release: Release, machine: MachineImage, amis: Sequence[Ami], artifact: Artifact, verdict: Verdict, prefix: str
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


def prove(kept: str, public_key: bytes, ami: Ami, prefix: str) -> StatementProof:
    """Check a kept envelope by the public key (DER), and what an image shows against it."""
    try:
        data = json.loads(kept)
        payload = b64decode(data["payload"], validate=True)
        signatures = [b64decode(each["sig"], validate=True) for each in data["signatures"]]
        if data["payloadType"] != PAYLOAD or not any(_valid(public_key, pae(payload), each) for each in signatures):
            return StatementProof(False, ("the statement is not signed by our key: it was changed, or another's",))
        said: dict[str, Any] = json.loads(payload)
    except (ValueError, KeyError, TypeError) as error:
        return StatementProof(False, (f"the statement cannot be read: {error!r}",))
    return StatementProof(True, tuple(_contradictions(said, ami, prefix)), said)


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


def p256(public_key: bytes) -> EllipticCurvePublicKey | None:
    """A public key (DER), if it is one of ECDSA P-256."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = load_der_public_key(public_key)
    return key if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1) else None


def _valid(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature over `message` is by the key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    with suppress(InvalidSignature):
        if key := p256(public_key):
            key.verify(signature, message, ECDSA(SHA256()))
            return True
    return False


def _arn(ami: Ami) -> str:
    return f"arn:aws:ec2:{ami.region}::image/{ami.id}"


SPEC = "ECC_NIST_P256"
NO_SUCH_PARAMETER = {"ParameterNotFound"}


def statement_name(cloud: Cloud, image_name: str) -> str:
    """The parameter that holds the statement of the images of that name."""
    _, name, dated = image_name.rsplit("/", 2)
    return f"/{cloud.aws.name_prefix}/{name}/statements/{dated}"


def parameter(cloud: Cloud, region: str, name: str) -> str:
    """The value of a parameter; empty where there is none."""
    answer = cloud.client("ssm", region).call_unless("GetParameter", NO_SUCH_PARAMETER, Name=name)
    return str(answer["Parameter"]["Value"]) if answer else ""


def sign(cloud: Cloud, said: dict[str, object]) -> str:
    """The statement in its envelope, signed by `aws.signing_key`."""
    payload = canonical(said)
    digest = hashlib.sha256(pae(payload)).digest()
    key = signing_key(cloud)
    asked = {"Message": digest, "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256"}
    answer = cloud.client("kms").call("Sign", KeyId=key, **asked)
    return envelope(payload, key, answer["Signature"])


def keep(cloud: Cloud, name: str, kept: str) -> None:
    """Store an envelope where AWS alone gives it back. Raises ContentError where no parameter can hold it."""
    if len(kept.encode()) > call_arguments.LARGEST_PARAMETER:
        why = f"the statement has {len(kept)} bytes, more than a parameter holds ({call_arguments.LARGEST_PARAMETER})"
        raise ContentError(why, key="aws.regions", hint="publish to fewer regions")
    if parameter(cloud, cloud.home, name) != kept:
        asked = call_arguments.put_parameter(name, kept, "signed statement (DSSE) of an image", image=False)
        cloud.client("ssm").call("PutParameter", **asked)


def proof_of(cloud: Cloud, ami: Ami, public_key: bytes) -> StatementProof:
    """Whether what an image shows is what was signed."""
    if ami.name.count("/") < 2:  # noqa: PLR2004 - prefix/name/date
        return StatementProof(False, (f"{ami.where} is named {ami.name}: no image of ours",))
    kept = parameter(cloud, cloud.home, statement_name(cloud, ami.name))
    if not kept:
        return StatementProof(False, ("there is no statement of it",))
    return prove(kept, public_key, ami, cloud.prefix)


def signing_key(cloud: Cloud) -> str:
    """The key that signs. Raises ContentError where none is set."""
    if not cloud.aws.signing_key:
        hint = f"aws kms create-key --key-spec {SPEC} --key-usage SIGN_VERIFY, then its ARN; docs/aws.md"
        raise ContentError("no key is set that signs statements on images", key="aws.signing_key", hint=hint)
    return cloud.aws.signing_key


def public_key(cloud: Cloud) -> bytes:
    """The public half of the key in the settings, never of one that a statement names (DER)."""
    found = bytes(cloud.client("kms").call("GetPublicKey", KeyId=signing_key(cloud))["PublicKey"])
    if not p256(found):
        raise ContentError(f"it is of another kind; statements are signed by {SPEC}", key="aws.signing_key")
    return found
