"""The catalog: every definition of every content root, loaded strictly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hardening.foundation.content import find_content, load_toml
from images.model import Definition


@dataclass(frozen=True)
class LoadedDefinition:
    """A definition and the folder it came from, where its files and its Dockerfile.j2 are."""

    definition: Definition
    folder: Path

    @property
    def name(self) -> str:
        """The definition's name, which is its folder's."""
        return self.definition.name


def load_definitions(roots: tuple[Path, ...]) -> dict[str, LoadedDefinition]:
    """Name → definition, over all content roots. Raises ContentError naming file and key."""
    folders = find_content(roots, "images/definitions", "*/")
    return {
        name: LoadedDefinition(load_toml(folder / "image.toml", Definition, name=name), folder)
        for name, folder in folders.items()
    }
