"""Gathers the inputs of a plan (content, index, ledger, store) for the pure `build_plan`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from hardening.catalog import judging_roots
from hardening.foundation.console import say
from hardening.foundation.errors import ContentError, GoldsmithError
from hardening.foundation.hashing import digest_of
from hardening.foundation.settings import pretended
from hardening.render import Overlay
from images.advisories import is_before
from images.artifact import Artifact, Package
from images.build import builder_version
from images.catalog import LoadedDefinition, file_digests
from images.context import Context
from images.model import Base, Bootstrap
from images.plan.build_plan import BuildPlan, decide, inputs_of, order, with_ancestors
from images.plan.cooldown import TAG, Offer, Sights, Waiting, until, waiting
from images.plan.upstream import Upstream, not_offered
from images.plan.validate import DefinitionValidator

if TYPE_CHECKING:
    from hardening.policy import Policy
    from images.plan.holes import KnownHoles

PENDING = "pending"  # stands for the content digest of a parent that is yet to be built


class Planner:
    """Plans definitions in order, parents first, so that each child knows what its parent will be.

    `digests` are the contents that stand by now; whoever builds one adds it. `roughly`: what apt resolved for the last
    artifact stands where apt would take the very same version of each of its packages, for whoever builds nothing by
    the plan; it costs one question for each distribution.
    """

    def __init__(self, context: Context, *, no_cache: Iterable[str] = (), roughly: bool = False) -> None:
        self.context = context
        self.no_cache, self.roughly = frozenset(no_cache), roughly
        self._sound = set[str]()
        self._last: Mapping[str, Artifact | None] = {}
        self._candidates: dict[str, Mapping[str, str]] = {}
        self._waiting: dict[tuple[Bootstrap, timedelta], tuple[Waiting, ...]] = {}
        self.plans: dict[str, BuildPlan] = {}
        self.digests: dict[str, str] = {}

    def refresh(self, names: Iterable[str]) -> None:
        """Fetch again the package indexes that `names` take packages from. Raises OutsideError."""
        distributions = [self.bootstrap(self.context.definitions[name]) for name in names]
        for (suite, _), found in sorted({(d.suite, d.components): d for d in distributions}.items()):
            say(f"fetching the package index of {suite}")
            self.context.index.refresh(found)

    def plan_all(self, names: Iterable[str]) -> list[BuildPlan]:
        """The plans of `names` and all they stand on, parents first."""
        wanted = with_ancestors(names, self.context.parents)
        return [self.plan(name) for name in order(self.context.parents) if name in wanted]

    def plan_each(
        self, names: Iterable[str], failing: type[GoldsmithError] = ContentError
    ) -> dict[str, GoldsmithError | None]:
        """Plan `names`, parents first, as far as they can be; by the name of each other one what is wrong with it, None
        where only what it stands on cannot be planned. Raises every error that is not of `failing`.
        """
        failed: dict[str, GoldsmithError | None] = {}
        for name in names:
            parent = self.context.parents[name]
            if parent and parent not in self.plans:
                failed[name] = None
                continue
            try:
                self.plan(name)
            except failing as error:
                failed[name] = error
        return failed

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
        last = self.last(name)
        plan = decide(
            name, inputs, added=added, packages=self._packages(loaded, added, last),
            overlay=overlay, known=self._known(last, name, platform, inputs), last=last,
            parent_pending=parent == PENDING, no_cache=name in self.no_cache,
        )  # fmt: skip
        plan = replace(plan, waits=tuple(self._waits(loaded, plan.packages)))
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
        if loaded.name not in self._sound:
            self.validator.require(loaded)
            self._sound.add(loaded.name)
        return wanted

    def bootstrap(self, loaded: LoadedDefinition) -> Bootstrap:
        """The distribution that `loaded` takes packages from: its own, or that of what it stands on."""
        base = self._lowest(loaded)
        return base.bootstrap or self.upstream.bootstrap(base.image or "")

    def _lowest(self, loaded: LoadedDefinition) -> Base:
        """What `loaded` and all that it stands on are built on in the end: a bootstrap, or an upstream image."""
        base = loaded.definition.base
        return self._lowest(self.context.definitions[base.golden]) if base.golden else base

    def not_offered(self, loaded: LoadedDefinition) -> tuple[str, ...]:
        """The packages of the upstream image below `loaded` that no archive offers, each with the reason."""
        image = self._lowest(loaded).image
        if not image:
            return ()
        index, bootstrap, packages = self.context.index, self.bootstrap(loaded), self.upstream.packages(image)
        names = [package.name for package in packages]
        if not not_offered(packages, index.newest(bootstrap, names)):
            return ()
        index.refresh(bootstrap)  # the image may be newer than the index
        return not_offered(packages, index.newest(bootstrap, names))

    @cached_property
    def upstream(self) -> Upstream:
        """The upstream bases, pinned by the lock file."""
        context = self.context
        return Upstream(context.settings, context.store, context.now, context.definitions.values())

    @cached_property
    def validator(self) -> DefinitionValidator:
        """What must hold of definitions before anything is made of them."""
        context = self.context
        return DefinitionValidator(
            context.settings.roots, context.now.date(), context.definitions, lambda: context.controls,
            judging_roots(context.settings),
        )  # fmt: skip

    def overlay(self, loaded: LoadedDefinition) -> Overlay:
        """The rendered hardening of a definition."""
        return self.validator.overlay(loaded)

    def judged_overlay(self, name: str, policy: Policy | None = None) -> Overlay:
        """The same with the checks of the profile that a policy requires, by default the definition's."""
        loaded, context = self.context.definitions[name], self.context
        return self.validator.judged(loaded, policy or context.policy_named(context.policy_of(name)))

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
        bootstrap, held = self.bootstrap(loaded), self.held(loaded)
        if self.roughly and not held and (before := self._as_before(loaded, bootstrap, inherited)):
            return before
        upstream, wanted = self._upstream_digest(loaded), loaded.definition.packages
        left_out = tuple((one.name, one.version) for one in held)
        try:
            return self.context.index.resolve(bootstrap, wanted, inherited, upstream, left_out)
        except ContentError as error:
            raise _since_held(_of_definition(error, loaded), held) from None

    def last(self, name: str) -> Artifact | None:
        """The newest artifact of a definition."""
        if name in self._last:
            return self._last[name]
        return self.context.ledger.latest_artifact(name, self.context.settings.platform)

    def read_last(self, names: Sequence[str]) -> None:
        """Read at once the newest artifacts of many definitions, for whoever builds none of them meanwhile."""
        found = self.context.ledger.latest_artifacts(names, self.context.settings.platform)
        self._last = {name: found.get(name) for name in names}

    def added_before(self, name: str) -> tuple[Package, ...]:
        """What the newest artifact of a definition added to what it stands on."""
        last = self.last(name)
        if last is None:
            return ()
        resolved = {(purl, sha256) for purl, sha256 in last.inputs.get("packages", ())}
        return tuple(package for package in last.packages if (package.purl, package.sha256) in resolved)

    def _as_before(
        self, loaded: LoadedDefinition, bootstrap: Bootstrap, inherited: tuple[Package, ...]
    ) -> tuple[Package, ...]:
        """What the last artifact added, where nothing of it could be newer and the same is wanted; else nothing."""
        last, definition = self.last(loaded.name), loaded.definition
        wanted = definition.model_dump(mode="json", include={"base", "packages"})
        if last is None or any(last.inputs.get("definition", {}).get(key) != said for key, said in wanted.items()):
            return ()
        added = self.added_before(loaded.name)
        if {*inherited, *added} != set(last.packages):
            return ()
        known = self._candidates_of(bootstrap)
        return added if all(known.get(one.name) == one.version for one in added) else ()

    def _candidates_of(self, bootstrap: Bootstrap) -> Mapping[str, str]:
        """What apt would take of every package that any newest artifact added, of one distribution."""
        key = self.context.index.state(bootstrap)
        if key not in self._candidates:
            names = {one.name for name in self.context.definitions for one in self.added_before(name)}
            self._candidates[key] = self.context.index.candidates(bootstrap, names)
        return self._candidates[key]

    # -- the cooldown --------------------------------------------------------------------------------------------------

    def cooldown(self, loaded: LoadedDefinition) -> timedelta:
        """How long what others publish waits before `loaded` takes it."""
        own = loaded.definition.lifecycle.cooldown
        return self.context.settings.cooldown if own is None else own

    def held(self, loaded: LoadedDefinition) -> tuple[Waiting, ...]:
        """The packages from outside the distribution's archive that are not old enough to be taken.

        What closes an exploited or critical hole of the last artifact is not among them.
        """
        bootstrap, cooldown = self.bootstrap(loaded), self.cooldown(loaded)
        if not self.context.settings.packages.extra_sources or not cooldown:
            return ()
        if (bootstrap, cooldown) not in self._waiting:
            self._waiting[bootstrap, cooldown] = self._waiting_of(bootstrap, cooldown)
        found = self._waiting[bootstrap, cooldown]
        return tuple(one for one in found if not self._urgent(loaded, bootstrap, one)) if found else ()

    def _waiting_of(self, bootstrap: Bootstrap, cooldown: timedelta) -> tuple[Waiting, ...]:
        by_source: dict[str, list[Offer]] = {}
        for one in self.context.index.offers(bootstrap):
            by_source.setdefault(one.source, []).append(one)
        found = [
            one
            for source, offers in by_source.items()
            for one in waiting(offers, self._looked(bootstrap, source, offers), cooldown, self.context.now)
        ]
        return tuple(sorted(found))

    def _looked(self, bootstrap: Bootstrap, source: str, offers: Iterable[Offer]) -> Sights:
        """The first sights of what a source offers; all that is there at the first look of all need not wait.

        Each suite and platform has its own index, of which the ledger may be shared.
        """
        subject = f"{source} {bootstrap.suite} {self.context.settings.platform}"
        offered = {one.key: one.signed for one in offers}
        keep = not pretended(self.context.settings)
        return self.context.ledger.look_at_index(subject, offered, self.context.now, keep=keep)

    def _urgent(self, loaded: LoadedDefinition, bootstrap: Bootstrap, one: Waiting) -> bool:
        """Whether a version closes an exploited or critical hole of what the last artifact has."""
        last = self.last(loaded.name)
        had = next((package for package in last.packages if package.name == one.name), None) if last else None
        if had is None or had.version == one.version:
            return False
        return bool(self.holes.grave_closed_by_offer(bootstrap, had, one.offer.package))

    @cached_property
    def holes(self) -> KnownHoles:
        """What is known of holes in packages."""
        from images.plan.holes import KnownHoles

        return KnownHoles(self.context, self.last)

    def _waits(self, loaded: LoadedDefinition, packages: Iterable[Package]) -> Iterator[str]:
        """What is newer and not taken yet, and until when: a package, or what an upstream tag was last seen to name."""
        yield from map(str, self.waiting_for(loaded, packages))
        reference = loaded.definition.base.image
        if reference:
            yield from self._tag_waits(reference)

    def waiting_for(self, loaded: LoadedDefinition, packages: Iterable[Package]) -> tuple[Waiting, ...]:
        """What is newer than one of `packages`, and not taken yet."""
        have = {package.name: package.version for package in packages}
        held = () if loaded.definition.is_mkosi else self.held(loaded)
        return tuple(one for one in held if one.name in have and is_before(have[one.name], one.version))

    def _tag_waits(self, reference: str) -> Iterator[str]:
        from images.plan.locking import cooldown_of

        sights = self.context.ledger.sights(TAG, reference)
        newest = sights.newest
        if newest and newest != self.upstream.pinned(reference):
            end = until(sights.of(newest), cooldown_of(self.context, reference), self.context.now)
            when = f"waits out its cooldown until {end:%Y-%m-%d %H:%M} UTC" if end else "may be taken (image.lock)"
            yield f"{reference} {newest[:19]} {when}"

    def _upstream_digest(self, loaded: LoadedDefinition) -> str:
        """The digest of the upstream image below `loaded`, which alone describes its own packages; else nothing."""
        image = self._lowest(loaded).image
        return self.upstream.locked(image) if image else ""

    def _known(
        self, last: Artifact | None, name: str, platform: str, inputs: dict[str, object]
    ) -> Artifact | None:  # fmt: skip
        if inputs["parent"] == PENDING or last is None:
            return None
        wanted = digest_of(inputs)
        same = last if last.input_digest == wanted else None  # nearly always, and read already
        known = same or self.context.ledger.artifact_by_input(name, platform, wanted)
        return known if known and self.context.store.whole(known.digest) else None


def _of_definition(error: ContentError, loaded: LoadedDefinition) -> ContentError:
    """What the package index says of names, with the file that names them: of many definitions one may be wrong."""
    if error.file or not error.key:
        return error
    file = loaded.folder / "image.toml"
    return ContentError(error.message, file=file, hint=error.hint, evidence=error.evidence)


def _since_held(error: ContentError, held: Iterable[Waiting]) -> ContentError:
    """The error, where it names a package that is only not old enough, with that as its reason."""
    for one in held:
        if re.search(rf"(?<![\w+.-]){re.escape(one.name)}(?![\w+-])", f"{error.message}\n{error.evidence}"):
            hint = "wait, or set lifecycle.cooldown in image.toml, for a package that you trust more"
            return ContentError(f"{error.message}: {one}", hint=hint, evidence=error.evidence)
    return error
