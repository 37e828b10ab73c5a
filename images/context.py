"""What every flow over images works with: settings, content, index, store and ledger, opened once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hardening.catalog import ControlsOnDemand, judging_roots, load_controls, load_policies, load_policy
from hardening.foundation.errors import ContentError
from hardening.foundation.settings import Settings
from images.catalog import KeepRule, LoadedDefinition, keep_rules, load_definitions, sound_definitions
from images.packages import DECIDING
from images.plan.build_plan import with_ancestors

if TYPE_CHECKING:  # each of these opens a world, and most commands need few of them
    from hardening.model import LoadedControl
    from hardening.policy import Policy
    from images.aws.cloud import Cloud
    from images.ledger import Ledger
    from images.packages.index import PackageIndex
    from images.plan.cooldown import TagLook
    from images.registry.client import Manifest, RegistryClient
    from images.store.oci import Store


@dataclass(frozen=True)
class Context:
    """`now` is the one clock reading of a flow.

    `build_host` and `registry_address` find (or start) engine and registry, only when they are needed. `policy` judges
    by another policy than the definitions name; `actor` is whom the audit names. A `lenient` flow goes on without the
    definitions that are `unsound`. `changed` are policies that stand in the place of those of their names. `clock`
    dates the lines of the audit; without it, they carry what the flow gives.
    """

    settings: Settings
    now: datetime
    build_host: Callable[[], str]
    registry_address: Callable[[], str]
    policy: str = ""
    actor: str = "unknown"
    lenient: bool = False
    changed: Mapping[str, Policy] = field(default_factory=dict)
    clock: Callable[[], datetime] | None = None

    @cached_property
    def definitions(self) -> dict[str, LoadedDefinition]:
        """Every definition, by name."""
        return self._sound[0] if self.lenient else load_definitions(self.settings.roots)

    @property
    def unsound(self) -> dict[str, ContentError]:
        """By name, the definitions that a lenient flow goes without, since they or what they stand on do not load."""
        return self._sound[1] if self.lenient else {}

    @cached_property
    def _sound(self) -> tuple[dict[str, LoadedDefinition], dict[str, ContentError]]:
        return sound_definitions(self.settings.roots)

    @cached_property
    def controls(self) -> Mapping[str, LoadedControl]:
        """Every control, by id; of a lenient flow, each fails those alone that use it."""
        return (ControlsOnDemand if self.lenient else load_controls)(self.settings.roots)

    @cached_property
    def parents(self) -> dict[str, str | None]:
        """Each definition's parent among the definitions."""
        return {name: loaded.definition.parent for name, loaded in self.definitions.items()}

    def declared(self, name: str) -> tuple[str, ...]:
        """The paths of the `files` of a definition and of those it is built on, as reviewers see them.

        Of a root that may not judge, less those that are `DECIDING`.
        """
        line = [self.definitions[one] for one in with_ancestors([name], self.parents)]
        judging = judging_roots(self.settings)
        reviewed = {one.name for one in line if any(one.folder.is_relative_to(root) for root in judging)}
        return tuple(
            sorted({file.path for one in line for file in one.definition.files
                    if one.name in reviewed or not file.path.startswith(DECIDING)})
        )  # fmt: skip

    @cached_property
    def kept(self) -> Mapping[str, KeepRule]:
        """What is kept of each definition's releases beyond need, for the store that each of them asks for."""
        default = self.settings.retention
        return keep_rules(KeepRule(default.keep_last, default.keep_for), self.definitions)

    @cached_property
    def index(self) -> PackageIndex:
        """The package index."""
        from images.packages.index import PackageIndex

        return PackageIndex(self.settings)

    @cached_property
    def store(self) -> Store:
        """The local content store."""
        from images.store.oci import Store

        return Store(self.settings.state_dir / "store")

    def over(self, store: Store) -> Context:
        """The same context on another store, such as that of a build which is not adopted yet."""
        return self._with(store=store)

    def asking(self, ledger: Ledger) -> Context:
        """The same context with another ledger."""
        return self._with(ledger=ledger)

    def by_policy(self, policy: Policy, instead_of: str) -> Context:
        """The same context where `policy` stands in the place of the one of that name."""
        return self._with(changed={**self.changed, instead_of: policy})

    def moved(self, now: datetime) -> Context:
        """The same context at another moment."""
        return self._with("cloud", now=now)

    def over_content(self, roots: tuple[Path, ...]) -> Context:
        """The same context over the content of other roots, one for each; store, ledger and registry stay."""
        return self._with("controls", "definitions", "kept", "parents", "_sound", settings=self.settings.over(roots))

    def _with(self, *without: str, **changed: object) -> Context:
        """The same context with what was opened already, but for what is `changed`, and opened anew: `without`."""
        other = copy(self)
        for known in without:
            other.__dict__.pop(known, None)
        other.__dict__.update(changed)
        return other

    def policy_named(self, name: str) -> Policy:
        """The policy of that name, as this context has it. Raises ContentError where there is none."""
        return self.changed.get(name) or load_policy(self.settings.roots, name)

    @property
    def policies(self) -> dict[str, Policy]:
        """Every policy by name, as this context has it."""
        return {**load_policies(self.settings.roots), **self.changed}

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger."""
        from images.ledger import Ledger

        ledger = Ledger.open(self.settings.database_url)
        ledger.clock = self.clock
        return ledger

    @cached_property
    def tag_looks(self) -> dict[str, TagLook]:
        """The last look of this run at each tag of others that a fleet follows."""
        return {}

    @cached_property
    def pinned_manifests(self) -> dict[str, Manifest]:
        """Manifests of others by `repository@digest`, which never change: public registries count what they give."""
        return {}

    @cached_property
    def registry(self) -> RegistryClient:
        """The registry that releases of containers stand in."""
        from images.registry.client import RegistryClient

        return RegistryClient(self.registry_address(), self.settings, own=True)

    @cached_property
    def cloud(self) -> Cloud:
        """What the flows over machines at AWS work with."""
        from images.aws.client import Clients
        from images.aws.cloud import Cloud

        return Cloud(
            self.settings, Clients(self.settings.aws), self.ledger, self.store, self.now, self.actor,
            open_registry=lambda: self.registry,
        )  # fmt: skip

    def policy_of(self, name: str) -> str:
        """The policy that judges a definition."""
        return self.policy or self.definitions[name].definition.policy
