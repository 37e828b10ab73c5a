"""The JSON that registries give, parsed: what does not fit the format is one clear error, never a KeyError. Pure."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from hardening.foundation.errors import MalformedError
from hardening.foundation.hashing import DIGEST

LARGEST_SIZE = 1 << 50
Model = TypeVar("Model", bound=BaseModel)
Digest = Annotated[str, Field(pattern=DIGEST)]
Annotations = Annotated[dict[str, str], BeforeValidator(lambda given: given or {})]


class _Foreign(BaseModel):
    """A value that others write: what we do not know of it is left alone."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class Platform(_Foreign):
    """What a child of an index is for."""

    os: str = ""
    architecture: str = ""

    def __str__(self) -> str:
        return f"{self.os or 'unknown'}/{self.architecture or 'unknown'}"


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


class RootFs(_Foreign):
    """The unpacked layers of an image, lowest first."""

    diff_ids: Annotated[tuple[Digest, ...], Field(alias="diff_ids")]


class Config(_Foreign):
    """An image configuration, as far as it says what the image is made of."""

    rootfs: RootFs


class Noted(_Foreign):
    """Anything that carries annotations."""

    annotations: Annotations = {}


def parsed(kind: type[Model], data: Any, what: str) -> Model:
    """`data` as a value of that kind. Raises MalformedError, which says of `what` where it does not fit."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise malformed(what, error) from None


def loaded(text: str | bytes, what: str) -> dict[str, Any]:
    """The JSON object that a text is. Raises MalformedError for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise malformed(what, error) from None
    if not isinstance(found, dict):
        raise malformed(what, ValueError("it is not a JSON object"))
    return found


def malformed(what: str, error: Exception) -> MalformedError:
    """The error for an answer that is not what its format says; a ValidationError is told in short."""
    told = str(error)[:200]
    if isinstance(error, ValidationError):
        lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3]]
        told = "; ".join(lines)
    return MalformedError(
        f"{what} is malformed: {told}",
        hint="who can write to that repository? remove what is malformed there, and publish again",
    )


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
