"""Edge: loads fleets from `pipelines/fleets/*.toml` of every content root."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from hardening.foundation.content import find_content, load_toml
from hardening.foundation.errors import ContentError, nearest
from pipelines.fleet.model import Fleet


def load_fleets(roots: Sequence[Path]) -> dict[str, Fleet]:
    """Every fleet by name. Raises ContentError for a wrong file, and for one name in two roots."""
    files = find_content(roots, "pipelines/fleets", "*.toml")
    return {name: load_toml(file, Fleet, name=name) for name, file in files.items()}


def load_fleet(roots: Sequence[Path], name: str) -> Fleet:
    """The fleet `name`. Raises ContentError that suggests the nearest names."""
    fleets = load_fleets(roots)
    if name not in fleets:
        hint = (
            nearest(name, fleets)
            if fleets
            else "none is defined yet; ./goldsmith adopt drafts one from a running service"
        )
        raise ContentError(f"unknown fleet: {name}", hint=hint)
    return fleets[name]


def require_replacement(fleet: Fleet, file: Path | str, definitions: Collection[str]) -> None:
    """Raise ContentError where what a fleet's members become is no definition."""
    wanted = fleet.replacement.definition
    if wanted and wanted not in definitions:
        hint = nearest(wanted, definitions)
        raise ContentError(f"{wanted} is not a definition", file=file, key="replacement.definition", hint=hint)
