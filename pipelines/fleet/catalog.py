"""Edge: loads fleets from `pipelines/fleets/*.toml` of every content root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hardening.foundation.content import load_toml
from hardening.foundation.errors import ContentError, UsageError, nearest
from pipelines.fleet.model import Fleet


def load_fleets(roots: Sequence[Path]) -> dict[str, Fleet]:
    """Every fleet by name. Raises ContentError for a wrong file, and for one name in two roots."""
    found: dict[str, Path] = {}
    for file in (file for root in roots for file in sorted((root / "pipelines" / "fleets").glob("*.toml"))):
        if other := found.get(file.stem):
            raise ContentError(f"the fleet {file.stem} is also defined in {other}", file=file)
        found[file.stem] = file
    return {name: load_toml(file, Fleet, name=name) for name, file in sorted(found.items())}


def load_fleet(roots: Sequence[Path], name: str) -> Fleet:
    """The fleet `name`. Raises UsageError that suggests the nearest names."""
    fleets = load_fleets(roots)
    if name not in fleets:
        raise UsageError(f"no fleet is called {name}", hint=nearest(name, fleets))
    return fleets[name]
