"""One predicate over one release, and what all predicates share: their types, names of ours, and safe reading. Pure.

Where a standard predicate has no field for something of ours, it stands in a place that this predicate leaves open
(parameters, annotations). What others have written is read by strict models; what they add is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from packageurl import PackageURL
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from hardening.foundation.errors import MalformedError
from hardening.foundation.hashing import canonical
from hardening.trust import PREDICATES
from images.registry.answers import malformed, read_as

PROVENANCE, CYCLONEDX, SPDX = (PREDICATES[name] for name in ("provenance", "cyclonedx", "spdx"))
VULNERABILITIES, TEST_RESULT, VERDICT = (PREDICATES[name] for name in ("vulnerabilities", "tests", "verdict"))
OPENVEX = "https://openvex.dev/ns/v0.2.0"
LIFECYCLE = "https://docs.oasis-open.org/openeox/v1.0/schema/core.json"
CHANGELOG = "https://in-toto.io/attestation/scai/v0.3"

NAMESPACE = "https://goldsmith.dev"
"""Where names of ours begin: what a builder, a gate or a build type is called. Goldsmith never connects to it."""
GOLDSMITH_VERSION = "0.1.0"

Model = TypeVar("Model")


@dataclass(frozen=True)
class Attestation:
    """One predicate over one release, before it is signed. `predicate` is a JSON object."""

    predicate_type: str
    predicate: dict[str, Any]


class Predicate(BaseModel):
    """A part of a predicate that anybody may have written: strict types; unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, alias_generator=to_camel)


def read_predicate(kind: type[Model], predicate: Any, what: str) -> Model:
    """A predicate, or a part of one, as a value of that kind. Raises MalformedError where it does not fit."""
    try:
        data = canonical(predicate)
    except (ValueError, TypeError, RecursionError, MalformedError) as error:
        raise malformed(what, error) from None
    return read_as(kind, data, what)


Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class DigestSet(Predicate):
    """Digests of one thing by algorithm, of which we use one (digest_set.md of in-toto's attestations)."""

    sha256: Hex

    @property
    def digest(self) -> str:
        """As registries write it."""
        return f"sha256:{self.sha256}"


def digest_set(digest: str) -> dict[str, str]:
    """A digest as attestations write it: by algorithm."""
    algorithm, _, value = digest.partition(":")
    return {algorithm: value}


def rfc3339(at: datetime) -> str:
    """A moment in UTC, to the microsecond where it has any."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def oci_purl(repository: str, digest: str) -> str:
    """The package URL of an image in a registry: https://github.com/package-url/purl-spec, type `oci`."""
    name = repository.rpartition("/")[2].lower()
    return PackageURL("oci", None, name, digest, {"repository_url": repository}).to_string()
