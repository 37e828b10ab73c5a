"""Keys: whose they are, what state they are in, and signatures over digests, which moto hashes a second time."""

from __future__ import annotations

import json
from typing import Any

from tests.strict_aws import encryption
from tests.strict_aws.errors import AwsError
from tests.strict_aws.wire import Call
from tests.strict_aws.world import World

DIGESTS = {"ECDSA_SHA_256": 32, "ECDSA_SHA_384": 48, "ECDSA_SHA_512": 64}


def describe_key(world: World, call: Call) -> None:
    """moto answers, once it knows that the key behind alias/aws/ebs is AWS's."""
    encryption.managed_key(call.account, call.region)


def create_key(world: World, call: Call) -> Any:
    """moto leaves the usage of a key open where none is said."""
    usual = {"KeyUsage": "ENCRYPT_DECRYPT", "KeySpec": "SYMMETRIC_DEFAULT"}
    return call.forward(json.dumps({**usual, **json.loads(call.body)}).encode())


def by_id(world: World, call: Call) -> Any:
    """moto finds the key by its bare id only."""
    given = json.loads(call.body)
    return call.forward(json.dumps({**given, "KeyId": given["KeyId"].rpartition("/")[2]}).encode())


def sign(world: World, call: Call) -> dict[str, Any] | None:
    """A digest is signed as it is; moto signs messages."""
    key = usable(call, "SIGN_VERIFY")
    _check_algorithm(call, key)
    if call.params.get("MessageType") != "DIGEST":
        return None
    signature = key.private_key.private_key.sign(call.params["Message"], _prehashed(call))
    return {"KeyId": key.arn, "Signature": signature, "SigningAlgorithm": call.params["SigningAlgorithm"]}


def verify(world: World, call: Call) -> dict[str, Any]:
    """A signature that does not hold is an error, never a false answer."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    key, params = usable(call, "SIGN_VERIFY"), call.params
    _check_algorithm(call, key)
    form = _prehashed(call) if params.get("MessageType") == "DIGEST" else ec.ECDSA(_hash(params["SigningAlgorithm"]))
    try:
        key.private_key.private_key.public_key().verify(params["Signature"], params["Message"], form)
    except InvalidSignature:
        raise AwsError("KMSInvalidSignatureException", "The signature does not hold", 400) from None
    return {"KeyId": key.arn, "SignatureValid": True, "SigningAlgorithm": params["SigningAlgorithm"]}


def get_public_key(world: World, call: Call) -> dict[str, Any]:
    key = usable(call, "SIGN_VERIFY")
    return {
        "KeyId": key.arn,
        "PublicKey": key.private_key.public_key(),
        "KeySpec": key.key_spec,
        "CustomerMasterKeySpec": key.key_spec,
        "KeyUsage": key.key_usage,
        "SigningAlgorithms": key.signing_algorithms,
    }


def usable(call: Call, usage: str) -> Any:
    """The key that the call names, enabled and made for this use. Raises AwsError."""
    from moto.kms.models import kms_backends

    backend, named = kms_backends[call.account][call.region], call.params["KeyId"]
    try:
        key = backend.keys[backend.any_id_to_key_id(named)]
    except (KeyError, AttributeError, TypeError):
        raise AwsError("NotFoundException", f"Key '{named}' does not exist") from None
    if key.key_state == "PendingDeletion":
        raise AwsError("KMSInvalidStateException", f"{key.arn} is pending deletion.")
    if key.key_state != "Enabled":
        raise AwsError("DisabledException", f"{key.arn} is disabled.")
    if key.key_usage != usage:
        raise AwsError("InvalidKeyUsageException", f"{key.arn} key usage is {key.key_usage}, not {usage}.")
    return key


def _check_algorithm(call: Call, key: Any) -> None:
    algorithm = call.params["SigningAlgorithm"]
    if algorithm not in key.signing_algorithms:
        raise AwsError(
            "InvalidKeyUsageException", f"Algorithm {algorithm} is incompatible with key spec {key.key_spec}."
        )
    size = DIGESTS.get(algorithm)
    if call.params.get("MessageType") == "DIGEST" and size and len(call.params["Message"]) != size:
        raise AwsError("ValidationException", f"Digest is invalid length for algorithm {algorithm}.")


def _prehashed(call: Call) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    return ec.ECDSA(utils.Prehashed(_hash(call.params["SigningAlgorithm"])))


def _hash(algorithm: str) -> Any:
    from cryptography.hazmat.primitives import hashes

    if algorithm not in DIGESTS:
        raise AwsError("UnsupportedOperationException", f"The emulator does not do {algorithm}")
    return {32: hashes.SHA256(), 48: hashes.SHA384(), 64: hashes.SHA512()}[DIGESTS[algorithm]]


RULES = {
    "CreateKey": create_key,
    "DescribeKey": describe_key,
    "Sign": sign,
    "Verify": verify,
    "GetPublicKey": get_public_key,
    **dict.fromkeys(["EnableKey", "DisableKey", "ScheduleKeyDeletion", "CancelKeyDeletion"], by_id),
}
