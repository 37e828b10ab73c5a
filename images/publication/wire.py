"""The JSON that registries give, as models: `images.foreign` parses it. Pure."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from hardening.foundation.errors import MalformedError
from hardening.foundation.hashing import DIGEST

LARGEST_SIZE = 1 << 50


def _words(given: Any) -> Any:
    """Annotations, which may be null; given up at the first that is not text."""
    if isinstance(given, dict) and not all(isinstance(value, str) for value in given.values()):
        raise ValueError("an annotation is not text")
    return given or {}


Digest = Annotated[str, Field(pattern=DIGEST)]
Annotations = Annotated[dict[str, str], BeforeValidator(_words)]


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
