"""Statements signed by a KMS key, kept as a parameter beside the channels, and proven from AWS alone."""

from __future__ import annotations

import hashlib

from hardening.foundation.errors import ContentError
from hardening.foundation.hashing import canonical
from images.aws import requests
from images.aws.client import AwsError
from images.aws.cloud import Cloud
from images.aws.model import Ami
from images.aws.statement import Proof, envelope, is_p256, pae, prove, unproven

SPEC = "ECC_NIST_P256"
NO_SUCH_PARAMETER = {"ParameterNotFound"}


def statement_name(cloud: Cloud, image_name: str) -> str:
    """The parameter that holds the statement of the images of that name."""
    _, name, dated = image_name.rsplit("/", 2)
    return f"/{cloud.aws.name_prefix}/{name}/statements/{dated}"


def parameter(cloud: Cloud, region: str, name: str) -> str:
    """The value of a parameter; empty where there is none."""
    try:
        return str(cloud.client("ssm", region).call("GetParameter", Name=name)["Parameter"]["Value"])
    except AwsError as error:
        if error.code in NO_SUCH_PARAMETER:
            return ""
        raise


def sign(cloud: Cloud, said: dict[str, object]) -> str:
    """The statement in its envelope, signed by `aws.signing_key`."""
    payload = canonical(said)
    digest = hashlib.sha256(pae(payload)).digest()
    key = signing_key(cloud)
    answer = cloud.client("kms").call(
        "Sign", KeyId=key, Message=digest, MessageType="DIGEST", SigningAlgorithm="ECDSA_SHA_256"
    )
    return envelope(payload, key, answer["Signature"])


def keep(cloud: Cloud, name: str, kept: str) -> None:
    """Store an envelope where AWS alone gives it back. Raises ContentError where no parameter can hold it."""
    if len(kept.encode()) > requests.LARGEST_PARAMETER:
        raise ContentError(
            f"the statement has {len(kept)} bytes, more than a parameter holds ({requests.LARGEST_PARAMETER})",
            key="aws.regions", hint="publish to fewer regions",
        )  # fmt: skip
    if parameter(cloud, cloud.home, name) != kept:
        asked = requests.put_parameter(name, kept, "signed statement (DSSE) of an image", image=False)
        cloud.client("ssm").call("PutParameter", **asked)


def proof_of(cloud: Cloud, ami: Ami, public_key: bytes) -> Proof:
    """Whether what an image shows is what was signed."""
    if ami.name.count("/") < 2:  # noqa: PLR2004 - prefix/name/date
        return unproven(f"{ami.where} is named {ami.name}: no image of ours")
    kept = parameter(cloud, cloud.home, statement_name(cloud, ami.name))
    return prove(kept, public_key, ami, cloud.prefix) if kept else unproven("there is no statement of it")


def signing_key(cloud: Cloud) -> str:
    """The key that signs. Raises ContentError where none is set."""
    if not cloud.aws.signing_key:
        raise ContentError(
            "no key is set that signs statements on images", key="aws.signing_key",
            hint=f"aws kms create-key --key-spec {SPEC} --key-usage SIGN_VERIFY, then its ARN; docs/aws.md",
        )  # fmt: skip
    return cloud.aws.signing_key


def public_key(cloud: Cloud) -> bytes:
    """The public half of the key in the settings, never of one that a statement names (DER)."""
    found = bytes(cloud.client("kms").call("GetPublicKey", KeyId=signing_key(cloud))["PublicKey"])
    if not is_p256(found):
        raise ContentError(f"it is of another kind; statements are signed by {SPEC}", key="aws.signing_key")
    return found
