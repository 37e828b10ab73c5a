"""What a build takes and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hardening.render import Overlay
from images.artifact import Package
from images.model import Definition
from images.store.oci import Store


@dataclass(frozen=True)
class BuildJob:
    """All that a build is a function of. `work` is temporary and removed by the caller.

    `packages` are those to add, `debs` their files, `stanzas` their index entries; `sources` is the apt configuration
    that the image itself will hold, `archive` the state of what that names, where mkosi takes from it by itself.
    `parent` or `upstream` is the content digest, in the store, of what it stands on.
    """

    name: str
    definition: Definition
    definition_folder: Path
    platform: str
    overlay: Overlay
    packages: tuple[Package, ...]
    debs: dict[Package, Path]
    stanzas: str
    sources: str
    parent: str | None
    upstream: str | None
    work: Path
    store: Store
    docker_host: str = ""
    archive: str = ""

    @property
    def base(self) -> str | None:
        """The content digest this image stands on, whosever it is."""
        return self.parent or self.upstream


@dataclass(frozen=True)
class Built:
    """A finished build: the content manifest's digest, all packages in it, and its unpacked filesystem in `work`."""

    digest: str
    packages: tuple[Package, ...]
    created: datetime
    tree: Path
    config: dict[str, Any]
    size_bytes: int
    dockerfile: Path | None = None
