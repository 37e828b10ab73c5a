"""Gathers what a plan decides over (content, index, ledger, store) and gives it to the pure `build_plan`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from hardening.foundation.console import say
from hardening.foundation.errors import ContentError
from hardening.foundation.hashing import digest_of
from hardening.render import Overlay
from images.artifact import Artifact, Package
from images.build import builder_version
from images.catalog import LoadedDefinition, file_digests
from images.context import Context
from images.model import Base, Bootstrap
from images.plan.build_plan import BuildPlan, decide, inputs_of, order, with_ancestors
from images.plan.upstream import Upstream
from images.plan.validate import DefinitionValidator

PENDING = "pending"  # stands for the content digest of a parent that is yet to be built


class Planner:
    """Plans definitions in order, parents first, so that each child knows what its parent will be.

    `digests` are the contents that stand by now; whoever builds one adds it.
    """

    def __init__(self, context: Context, *, no_cache: Iterable[str] = ()) -> None:
        self.context = context
        self.no_cache = frozenset(no_cache)
        self.plans: dict[str, BuildPlan] = {}
        self.digests: dict[str, str] = {}

    def refresh(self, names: Iterable[str]) -> None:
        """Fetch the package indexes that `names` take packages from anew. Raises OutsideError."""
        distributions = [self.bootstrap(self.context.definitions[name]) for name in names]
        for (suite, _), found in sorted({(d.suite, d.components): d for d in distributions}.items()):
            say(f"fetching the package index of {suite}")
            self.context.index.refresh(found)

    def plan_all(self, names: Iterable[str]) -> list[BuildPlan]:
        """The plans of `names` and all they stand on, parents first."""
        wanted = with_ancestors(names, self.context.parents)
        return [self.plan(name) for name in order(self.context.parents) if name in wanted]

    def plan(self, name: str) -> BuildPlan:
        """The plan of one definition; its parent must have been planned before, and `digests` tell of it."""
        loaded = self.context.definitions[name]
        platform = self.require(loaded)  # first: it needs no package index
        overlay = self.overlay(loaded)
        parent = self._parent_digest(loaded)
        added = self._resolve(loaded)
        inputs = inputs_of(
            loaded.definition, platform, overlay=overlay, parent=parent, packages=added,
            files=file_digests(loaded.folder), sources=self.sources(loaded),
            builder=builder_version(loaded.definition), archive=self._archive(loaded),
        )  # fmt: skip
        last = self.context.ledger.latest_artifact(name, platform)
        plan = decide(
            name, inputs, added=added, packages=self._packages(loaded, added, last),
            overlay=overlay, known=self._known(name, platform, inputs), last=last,
            parent_pending=parent == PENDING, no_cache=name in self.no_cache,
        )  # fmt: skip
        self.plans[name] = plan
        if plan.artifact:
            self.digests[name] = plan.artifact.digest
        return plan

    def require(self, loaded: LoadedDefinition) -> str:
        """The platform to build for. Raises ContentError where the definition is not for it, or is not sound."""
        wanted, made_for = self.context.settings.platform, loaded.definition.platforms
        if wanted not in made_for:
            raise ContentError(
                f"made for {', '.join(made_for)}, not for {wanted}", file=loaded.folder / "image.toml", key="platforms",
                hint="add it there, or build for another one with `platform` in goldsmith.toml",
            )  # fmt: skip
        self.validator.require(loaded)
        return wanted

    def bootstrap(self, loaded: LoadedDefinition) -> Bootstrap:
        """The distribution that `loaded` takes packages from: its own, or that of what it stands on."""
        base = self._lowest(loaded)
        return base.bootstrap or self.upstream.bootstrap(base.image or "")

    def _lowest(self, loaded: LoadedDefinition) -> Base:
        """What `loaded` and all that it stands on are built on in the end: a bootstrap, or an upstream image."""
        base = loaded.definition.base
        return self._lowest(self.context.definitions[base.golden]) if base.golden else base

    @cached_property
    def upstream(self) -> Upstream:
        """The upstream bases, pinned by the lock file."""
        return Upstream(self.context.settings, self.context.store, self.context.now)

    @cached_property
    def validator(self) -> DefinitionValidator:
        """What must hold of definitions before anything is made of them."""
        context = self.context
        return DefinitionValidator(
            context.settings.roots, context.now.date(), context.definitions, lambda: context.controls
        )

    def overlay(self, loaded: LoadedDefinition) -> Overlay:
        """The rendered hardening of a definition."""
        return self.validator.overlay(loaded)

    def sources(self, loaded: LoadedDefinition) -> str:
        """The package source text that the image holds; none in a static image, which has no package manager."""
        bootstrap = self.bootstrap(loaded)
        return "" if bootstrap.variant == "static" else self.context.index.sources(bootstrap)

    def _parent_digest(self, loaded: LoadedDefinition) -> str:
        golden = loaded.definition.base.golden
        return self.digests.get(golden, PENDING) if golden else self._upstream_digest(loaded)

    def _inherited(self, loaded: LoadedDefinition) -> tuple[Package, ...]:
        base = loaded.definition.base
        if base.golden:
            return self.plans[base.golden].packages
        return self.upstream.packages(base.image) if base.image else ()

    def _archive(self, loaded: LoadedDefinition) -> str:
        """The state of the archive where a build takes from it what no plan names; else nothing."""
        return self.context.index.state(self.bootstrap(loaded)) if loaded.definition.is_mkosi else ""

    def _packages(
        self, loaded: LoadedDefinition, added: tuple[Package, ...], last: Artifact | None
    ) -> tuple[Package, ...]:
        """All that it will hold; of what mkosi installs, what the last build found is all that is known."""
        if loaded.definition.is_mkosi:
            return last.packages if last else ()
        return tuple(sorted((*self._inherited(loaded), *added)))

    def _resolve(self, loaded: LoadedDefinition) -> tuple[Package, ...]:
        if loaded.definition.is_mkosi:
            return ()
        inherited = self._inherited(loaded)
        if inherited and not loaded.definition.packages:
            return ()
        upstream = self._upstream_digest(loaded)
        return self.context.index.resolve(self.bootstrap(loaded), loaded.definition.packages, inherited, upstream)

    def _upstream_digest(self, loaded: LoadedDefinition) -> str:
        """The digest of the upstream image below `loaded`, which alone describes its own packages; else nothing."""
        image = self._lowest(loaded).image
        return self.upstream.locked(image) if image else ""

    def _known(self, name: str, platform: str, inputs: dict[str, object]) -> Artifact | None:
        if inputs["parent"] == PENDING:
            return None
        known = self.context.ledger.artifact_by_input(name, platform, digest_of(inputs))
        return known if known and self.context.store.whole(known.digest) else None
