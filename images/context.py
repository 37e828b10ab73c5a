"""What every flow over images works with: settings, content, index, store and ledger, opened once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from hardening.catalog import LoadedControl, load_controls
from hardening.foundation.settings import Settings
from images.catalog import LoadedDefinition, load_definitions
from images.ledger import Ledger
from images.oci import Store
from images.packages import PackageIndex


@dataclass(frozen=True)
class Context:
    """`now` is the one clock reading of a flow; `build_host` finds (or starts) the engine only when it is needed."""

    settings: Settings
    now: datetime
    build_host: Callable[[], str]

    @cached_property
    def definitions(self) -> dict[str, LoadedDefinition]:
        """Every definition, by name."""
        return load_definitions(self.settings.roots)

    @cached_property
    def parents(self) -> dict[str, str | None]:
        """Each definition's parent among the definitions."""
        return {name: loaded.definition.parent for name, loaded in self.definitions.items()}

    @cached_property
    def controls(self) -> dict[str, LoadedControl]:
        """Every control, by id."""
        return load_controls(self.settings.roots)

    @cached_property
    def index(self) -> PackageIndex:
        """The package index."""
        return PackageIndex(self.settings)

    @cached_property
    def store(self) -> Store:
        """The local content store."""
        return Store(self.settings.state_dir / "store")

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger."""
        return Ledger.open(self.settings.database_url)
