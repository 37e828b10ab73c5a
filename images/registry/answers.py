"""What registries and others answer: JSON as values, and what a failed skopeo means for the person who reads it. Pure.

What is malformed or costly is one clear error.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from functools import cache
from typing import Annotated, Any, TypeVar, cast

from pydantic import AliasPath, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import SchemaValidator

from hardening.foundation.errors import ContentError, GoldsmithError, MalformedError, OutsideError, SilentError
from hardening.foundation.hashing import DIGEST
from hardening.foundation.limits import JSON_VALUES, strict_json

LISTS = {"list", "tuple", "set", "frozenset"}
Value = TypeVar("Value")


def read_as(kind: type[Value], data: str | bytes, what: str) -> Value:
    """The value of that kind whose JSON is `data`. Raises MalformedError, which says where `what` does not fit."""
    _bounded(data, what)
    try:
        return cast(Value, _validator(cast(Hashable, kind)).validate_json(data))
    except ValidationError as error:
        raise malformed(what, error) from None


def parsed(kind: type[Value], data: Any, what: str) -> Value:
    """The same for JSON that was loaded already."""
    try:
        return cast(Value, _validator(cast(Hashable, kind)).validate_python(data))
    except ValidationError as error:
        raise malformed(what, error) from None


def loaded(data: str | bytes, what: str) -> dict[str, Any]:
    """The JSON object that a text is. Raises MalformedError for anything else, and where an object has a key twice:
    another reader of the same bytes may go by the other value.
    """
    _bounded(data, what)
    try:
        found = strict_json(data)
    except (ValueError, RecursionError) as error:
        raise malformed(what, error) from None
    if not isinstance(found, dict):
        raise malformed(what, ValueError("it is not a JSON object"))
    return found


def malformed(what: str, error: Exception) -> MalformedError:
    """The error for an answer that is not what its format says; a ValidationError is told in short."""
    told = str(error)[:200]
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        told = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    hint = "who can write to that repository? remove what is malformed there, and publish again"
    return MalformedError(f"{what} is malformed: {told}", hint=hint)


def _bounded(data: str | bytes, what: str) -> None:
    """Raise MalformedError where a text holds more values than any document of ours."""
    text = data.encode(errors="surrogatepass") if isinstance(data, str) else data
    if sum(map(text.count, (b",", b"[", b"{"))) > JSON_VALUES.most:
        raise malformed(what, ValueError(f"it exceeds {JSON_VALUES}"))


@cache
def _validator(kind: Hashable) -> SchemaValidator:
    return SchemaValidator(_giving_up_early(TypeAdapter(cast(Any, kind)).core_schema))


def _giving_up_early(schema: Any) -> Any:
    """A core schema whose lists end at the first error."""
    if isinstance(schema, dict):
        early = {"fail_fast": True} if schema.get("type") in LISTS else {}
        return {key: _giving_up_early(value) for key, value in schema.items()} | early
    if isinstance(schema, list | tuple):
        return type(schema)(map(_giving_up_early, schema))
    return schema


LARGEST_SIZE = 1 << 50


def _words(given: Any) -> Any:
    """Annotations, which may be null; given up at the first that is not text."""
    if isinstance(given, dict) and not all(isinstance(value, str) for value in given.values()):
        raise ValueError("an annotation is not text")
    return given or {}


Digest = Annotated[str, Field(pattern=DIGEST)]
Annotations = Annotated[dict[str, str], BeforeValidator(_words)]


class _Foreign(BaseModel):
    """A value that others write: unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


# Other names that engines know: https://github.com/containerd/platforms/blob/main/database.go
ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}


class Platform(_Foreign):
    """What a child of an index is for."""

    os: str = ""
    architecture: str = ""

    def __str__(self) -> str:
        """As engines read it: in any letters, an architecture by each of its names, and their own system for none.

        Variants are left out: which of them an engine prefers depends on its processor.
        """
        said = self.architecture.lower()
        return f"{self.os.lower() or 'linux'}/{ARCHITECTURES.get(said, said) or 'unknown'}"


class Listed(_Foreign):
    """A descriptor: a child of an index, a layer, a configuration, or a line of what refers to a digest."""

    media_type: str
    digest: Digest
    size: Annotated[int, Field(ge=0, le=LARGEST_SIZE)]
    artifact_type: str = ""
    annotations: Annotations = {}
    platform: Platform | None = None


class Index(_Foreign):
    """An index over manifests."""

    manifests: tuple[Listed, ...]


class Image(_Foreign):
    """A manifest: of an image, or of an attached document."""

    config: Listed
    layers: tuple[Listed, ...]


class Subject(_Foreign):
    """What an attached document's manifest refers to."""

    digest: Digest


class Referring(_Foreign):
    """A manifest that may refer to another one."""

    subject: Subject | None = None


class Attached(Image, Referring):
    """The manifest of an attached document."""


class Config(_Foreign, populate_by_name=False):
    """An image configuration, as far as it says what the image is made of: its unpacked layers, lowest first."""

    diff_ids: Annotated[tuple[Digest, ...], Field(validation_alias=AliasPath("rootfs", "diff_ids"))]


class Noted(_Foreign):
    """Anything with annotations."""

    annotations: Annotations = {}


def child_for(index: Index, platform: str, what: str) -> Listed:
    """The one child that an engine of the platform runs. Raises MalformedError where there is none, or a choice."""
    fits = [child for child in index.manifests if child.platform is None or str(child.platform) == platform]
    if len(fits) == 1:
        return fits[0]
    has = ", ".join(str(child.platform or "any platform") for child in index.manifests) or "no manifest at all"
    raise MalformedError(
        f"{what} has {len(fits) or 'no'} manifests for {platform}, where one is expected: {has}",
        hint="which one an engine runs would be its choice: publish an index with one manifest for each platform",
    )


# A proxy for plain HTTP that is not there: whoever was asked by HTTPS may not send us, and a login, on to HTTP.
NO_PLAIN_HTTP = "http://127.0.0.1:1"
# The registry's own words. A bare 404, or a helper that is "not found", says nothing about what the registry holds.
MISSING = re.compile(
    r"manifest unknown|name unknown|repository name not known|unknown: artifact \S+ not found|Image may not exist", re.I
)
CREDENTIALS = re.compile(r"getting credentials|docker-credential-", re.I)
DENIED = re.compile(r"unauthorized|authentication required|denied|forbidden|invalid username", re.I)
STRANGER = re.compile(r"status\W*(code)?\W*404", re.I)
CERTIFICATE = re.compile(r"x509|certificate|HTTP response to HTTPS", re.I)
FULL = re.compile(r'[^"\n]*(no space left|disk quota)[^"\n]*', re.I)
LARGE = re.compile(r"file too large|SIGXFSZ|exceeded maximum allowed size|out of memory|cannot allocate memory", re.I)
REDIRECT = re.compile(rf"proxyconnect tcp: dial tcp {re.escape(NO_PLAIN_HTTP.removeprefix('http://'))}:", re.I)
LIE = re.compile(r"digest did not match|does not match provided manifest digest|invalid checksum digest", re.I)
NO_CONNECTION = re.compile(r"dial tcp|no such host|no route to host|network is unreachable|handshake timeout", re.I)
PERMANENT = (FULL, LARGE, REDIRECT, LIE, CREDENTIALS, DENIED, CERTIFICATE, MISSING, STRANGER)
ANSWERS = (
    (FULL, "a disk is full", "free space on the registry's or on this machine; ./goldsmith image.prune helps"),
    (LARGE, "the registry {} sends more than it announced, or than any image needs", "is it the right registry?"),
    (
        REDIRECT,
        "the registry {} leads on to plain HTTP, which is not followed",
        "let the registry answer by HTTPS alone; a login would go over the network unencrypted",
    ),
    (LIE, "the registry {} returned other bytes than requested", "is something between us and it?"),
    (
        CREDENTIALS,
        "the login for the registry {} cannot be read",
        "install the credential helper that your login names, or log in again: docker login {}",
    ),
    (
        DENIED,
        "the registry {} does not allow it",
        "log in with `docker login {}`; a credential helper keeps the password",
    ),
    (
        CERTIFICATE,
        "the registry {} cannot be trusted",
        "set registry.ca_file to the private CA's PEM, or registry.insecure for plain HTTP",
    ),
    (
        STRANGER,
        "{} answers 404, and not in a registry's words",
        "is registry.address right? The server there is not a registry; perhaps it is a proxy or a website",
    ),
)
UNREACHABLE = [
    "the registry {} cannot be reached or failed",
    "is the registry up, and registry.address right? ./goldsmith doctor",
]


class NotFoundError(ContentError):
    """The requested thing is not in the registry."""


def explain(stderr: str, address: str) -> GoldsmithError:
    """What a failed skopeo, which wrote `stderr`, means: by the registry's own words, as far as they are known."""
    evidence, host = stderr.strip()[-1000:], address.partition("/")[0]
    if MISSING.search(evidence):
        return NotFoundError("not in the registry", evidence=evidence)
    what, hint = next((answer for reason, *answer in ANSWERS if reason.search(evidence)), UNREACHABLE)
    silent = what is UNREACHABLE[0] and NO_CONNECTION.search(evidence)
    return (SilentError if silent else OutsideError)(what.format(address), hint=hint.format(host), evidence=evidence)
