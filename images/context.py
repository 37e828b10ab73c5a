"""What every flow over images works with: settings, content, index, store and ledger, opened once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from hardening.foundation.settings import Settings
from images.catalog import LoadedDefinition, load_definitions
from images.ledger import Ledger
from images.packages.index import PackageIndex
from images.publication.published import Publisher
from images.publication.registry import Registry
from images.store.oci import Store


@dataclass(frozen=True)
class Context:
    """`now` is the one clock reading of a flow.

    `build_host` and `registry_address` find (or start) engine and registry, only when they are needed. `policy` judges
    by another policy than the definitions name; `actor` is whom the audit names.
    """

    settings: Settings
    now: datetime
    build_host: Callable[[], str]
    registry_address: Callable[[], str]
    policy: str = ""
    actor: str = "unknown"

    @cached_property
    def definitions(self) -> dict[str, LoadedDefinition]:
        """Every definition, by name."""
        return load_definitions(self.settings.roots)

    @cached_property
    def parents(self) -> dict[str, str | None]:
        """Each definition's parent among the definitions."""
        return {name: loaded.definition.parent for name, loaded in self.definitions.items()}

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

    @cached_property
    def publisher(self) -> Publisher:
        """What the flows over releases work with."""
        registry = Registry(self.registry_address(), self.settings)
        return Publisher(registry, self.ledger, self.store, self.now, self.actor)

    def policy_of(self, name: str) -> str:
        """The policy that judges a definition."""
        return self.policy or self.definitions[name].definition.policy
