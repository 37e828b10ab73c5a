"""The signed statement of a release: which images in which regions are exactly which disk; signed by KMS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hardening.findings import Verdict
from hardening.foundation.errors import ContentError, MalformedError
from hardening.foundation.hashing import canonical, digest_of
from images.artifact import Artifact, Release
from images.aws import call_arguments
from images.aws.cloud import Cloud
from images.aws.kms import SPEC, KmsSigner
from images.aws.model import Ami, MachineImage
from images.aws.permissions import LOOKING, OWN_PARAMETERS, PUBLISHER, permit
from images.documents import to_json
from images.registry.answers import loaded
from images.release import lifecycle
from images.trust.envelope import STATEMENT, enveloped, read_envelope, verifier

PERMISSIONS = (
    permit("ssm:GetParameter", PUBLISHER, *LOOKING, on=OWN_PARAMETERS),
    permit("ssm:PutParameter", PUBLISHER, on=OWN_PARAMETERS),
)

PREDICATE = "urn:dev.goldsmith:machine-release:v1"


@dataclass(frozen=True)
class StatementProof:
    """The result of checking a statement: `problems` is empty if it is valid and everything shown matches it."""

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


def prove(kept: str, public_key: bytes, ami: Ami, prefix: str) -> StatementProof:
    """Check a kept envelope by the public key (DER), and what an image shows against it."""
    try:
        found = read_envelope(loaded(kept, "the statement"), "the statement")
    except MalformedError as error:
        return StatementProof(False, (f"the statement cannot be read: {error.message}",))
    if not found.is_signed_by(verifier(public_key)):
        return StatementProof(False, ("the statement is not signed by our key: it was changed, or another's",))
    return StatementProof(True, tuple(_contradictions(found.said, ami, prefix)), dict(found.said))


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


def _arn(ami: Ami) -> str:
    return f"arn:aws:ec2:{ami.region}::image/{ami.id}"


SETTING = "aws.signing_key"
NO_SUCH_PARAMETER = {"ParameterNotFound"}


def statement_name(cloud: Cloud, image_name: str) -> str:
    """The parameter that holds the statement of the images of that name."""
    _, name, dated = image_name.rsplit("/", 2)
    return f"/{cloud.aws.name_prefix}/{name}/statements/{dated}"


def parameter(cloud: Cloud, region: str, name: str) -> str:
    """The value of a parameter; empty where there is none."""
    answer = cloud.client("ssm", region).call_unless("GetParameter", NO_SUCH_PARAMETER, Name=name)
    return str(answer["Parameter"]["Value"]) if answer else ""


def sign(cloud: Cloud, said: dict[str, Any]) -> str:
    """The statement in its envelope, signed by `aws.signing_key`."""
    key = signing_key(cloud)
    return canonical(enveloped(canonical(said), KmsSigner(cloud.clients, key, SETTING), key)).decode()


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
        raise ContentError("no key is set that signs statements on images", key=SETTING, hint=hint)
    return cloud.aws.signing_key


def public_key(cloud: Cloud) -> bytes:
    """The public half of the key in the settings, never of one that a statement names (DER)."""
    return KmsSigner(cloud.clients, signing_key(cloud), SETTING).public
