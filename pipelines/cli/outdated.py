"""`image.outdated`: what is newer outside than an image, found without building; how urgent it is, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property

from hardening.foundation.console import Cell, print_json, print_table, print_text, say
from hardening.foundation.errors import GoldsmithError, OutsideError
from hardening.foundation.grouping import by_key
from hardening.foundation.text import listed
from images.artifact import Artifact, Package
from images.catalog import LoadedDefinition
from images.context import Context
from images.documents import to_json
from images.model import Bootstrap
from images.packages import debian
from images.plan import freshness
from images.plan.build_plan import BuildPlan, order, with_ancestors
from images.plan.freshness import Newer, NewerKind, Urgency
from images.plan.holes import KnownHoles
from images.plan.locking import TagState, TagWatch
from images.plan.planner import Planner
from images.plan.upstream import Upstream
from images.registry.client import RegistryClient
from images.registry.heads import require_askable
from images.registry.references import split
from pipelines.cli.image import subjects
from pipelines.cli.image_output import channels_of, finish
from pipelines.cli.preview import judge_last
from pipelines.cli.scanning import reference_meant
from pipelines.contract import Line
from pipelines.wiring import image_context

OUTDATED, UNANSWERED, NAMED = 1, 4, 3
ASK = "ask the maker of the image"
DOCKERFILE = "Dockerfile.j2"
BASE = "org.opencontainers.image.base."


class OutdatedLine(Line):
    """`image.outdated`: one thing that is newer than an image, or that ends for it.

    `kind`: a package, a vulnerability that has a fix which the package index lacks, the upstream image, the parent, a
    control, content of the definition, what the policy says today, the expiry of a release, the end-of-life of the
    distribution or definition, or the artifact that is not here. `urgency`: `exploited` (a fix of a hole that is known
    to be exploited) before `critical`, `high` and `normal`; what `waits` out its cooldown until `waits_until` is last.
    `fixes`: the vulnerabilities that the newer version closes. `comes_from`: the image that brings it in, if another.
    """

    image: str
    kind: NewerKind
    what: str
    old: str
    new: str
    urgency: Urgency
    reason: str
    fixes: tuple[str, ...]
    comes_from: str
    waits_until: datetime | None
    todo: str


class UnaskedLine(Line):
    """`image.outdated`: what could not be queried, and why; its answer is unknown."""

    what: str
    why: str


class OutdatedOutput(Line):
    """`image.outdated`: what is newer, the most urgent first. An image is fresh only where `unasked` is empty too."""

    at: datetime
    images: tuple[str, ...]
    lines: tuple[OutdatedLine, ...]
    unasked: tuple[UnaskedLine, ...]


Errors = Sequence[GoldsmithError]


def what_is_outdated(ref: str, context: Context | None = None, *, policy: str = "") -> tuple[OutdatedOutput, Errors]:
    """What is newer than the definitions that `ref` means, or than the image of that reference; and what is wrong.

    By `policy`, or by the definitions' own.

    The mirrors, registries and feeds are asked once each, without patience; what does not answer is told. Raises
    ContentError for a name that means nothing, and where the reference is in no registry.
    """
    context = context or image_context(policy=policy, looks=True)
    settings = context.settings.model_copy(update={"retry_for": timedelta(0)})
    context = replace(context, settings=settings, lenient=True)
    asked = FreshnessQuestion(context)
    names, ours = subjects(context, ref), {*context.definitions, *context.unsound}
    images = tuple(name if name in ours else reference_meant(context, name) for name in names)
    planned = asked.planned([name for name in names if name in ours]) if ours & {*names} else []
    found = [one for name in planned for one in asked.of_definition(name)]
    found += (one for image in images if image not in ours for one in asked.of_reference(image))
    lines = tuple(OutdatedLine.of(one, waits_until=one.until) for one in freshness.ordered(found))
    unasked = {**asked.unasked, **asked.holes.missing}
    told = tuple(UnaskedLine(what=what, why=why) for what, why in sorted(unasked.items()))
    return OutdatedOutput(at=context.now, images=images, lines=lines, unasked=told), asked.errors


@dataclass
class FreshnessQuestion:
    """What is queried for many images, each thing once. `unasked`: what could not be, and why."""

    context: Context
    unasked: dict[str, str] = field(default_factory=dict)
    errors: list[GoldsmithError] = field(default_factory=list)
    tags: dict[str, TagState | None] = field(default_factory=dict)

    @cached_property
    def planner(self) -> Planner:
        """What would be built, as far as nothing is."""
        return Planner(self.context, roughly=True)

    @property
    def holes(self) -> KnownHoles:
        """What is known of holes in packages."""
        return self.planner.holes

    @cached_property
    def watch(self) -> TagWatch:
        """Who asks for tags."""
        return TagWatch(self.context, self.holes)

    @cached_property
    def upstream(self) -> Upstream:
        """What reads images in the store."""
        return self.watch.upstream

    # -- definitions ---------------------------------------------------------------------------------------------------

    def planned(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that could be planned, after the package indexes that they need were asked for."""
        context, wanted = self.context, list(names)
        for name in (one for one in wanted if one in context.unsound):
            self._failed(name, context.unsound[name])
        known = with_ancestors((one for one in wanted if one in context.definitions), context.parents)
        lines = [one for one in order(context.parents) if one in known]
        self._refresh(lines)
        self.planner.read_last(lines)
        say(f"asking what is newer for {len(wanted)} image(s) and their parents")
        for name, error in self.planner.plan_each(lines, GoldsmithError).items():
            self._failed(name, error or OutsideError(f"its parent {context.parents[name]} cannot be planned"))
        return [name for name in wanted if name in self.planner.plans]

    def _failed(self, name: str, error: GoldsmithError) -> None:
        self.unasked[name] = error.message
        if not isinstance(error, OutsideError):
            self.errors.append(error)

    def _refresh(self, names: Iterable[str]) -> None:
        """Ask for the package index of each distribution once."""
        found: dict[tuple[str, tuple[str, ...]], Bootstrap] = {}
        for name in names:
            with suppress(GoldsmithError):  # planning says it
                bootstrap = self.planner.bootstrap(self.context.definitions[name])
                found[bootstrap.suite, bootstrap.components] = bootstrap
        for bootstrap in found.values():
            self._refresh_one(bootstrap)

    def _refresh_one(self, bootstrap: Bootstrap) -> None:
        try:
            self.context.index.refresh(bootstrap)
        except GoldsmithError as error:
            self.unasked[f"the package index of {bootstrap.suite}"] = (
                f"{error.message}; what is here answers, if anything"
            )

    def of_definition(self, name: str) -> Iterator[Newer]:
        """What is newer than the newest artifact of a definition, and its releases."""
        context, planner = self.context, self.planner
        loaded, plan, last = context.definitions[name], planner.plans[name], planner.last(name)
        suite = planner.bootstrap(loaded).suite
        packages = list(self._packages(loaded, plan, last, suite)) if last else []
        urgency = freshness.worst(package.urgency for package in packages if package.comes_from and not package.until)
        for one in freshness.of_plan(plan, loaded.definition.base.golden or loaded.definition.base.image or ""):
            yield replace(one, urgency=urgency) if one.kind is NewerKind.PARENT else one
        yield from packages
        yield from self._of_upstream(loaded)
        yield from self._of_policy(name, {fix for one in packages for fix in (*one.fixes, one.what)})
        for channel, release in zip(("candidate", "stable"), channels_of(context, name), strict=True):
            if release and not release.pruned_at and (told := freshness.of_release(release, channel, context.now)):
                yield told
        yield from self._of_support(loaded, suite)

    def _packages(self, loaded: LoadedDefinition, plan: BuildPlan, last: Artifact, suite: str) -> Iterator[Newer]:
        """The packages of the newest artifact that are newer by now, planned ones and others, and the holes left."""
        held = {one.name: one for one in last.packages}
        new = {one.name: one for one in plan.packages}
        told = {change.name for change in plan.changes if change.kind == "package"}
        inside = self._inside(loaded, last)
        others = self._others(loaded, inside, held)
        for name in sorted(told):
            yield self._package(loaded, suite, name, held.get(name), new.get(name))
        for name, (package, kept) in sorted(others.items()):
            if name not in told:
                held_back = "; it is held back there" if kept else ""
                hint = self._todo_of_other(loaded, name)
                yield self._package(loaded, suite, name, inside[name], package, more=held_back, todo=hint)
        for one in self.planner.waiting_for(loaded, plan.packages):
            yield Newer(
                loaded.name, NewerKind.PACKAGE, one.name, Urgency.WAITS, str(one), "wait", old=new[one.name].version,
                new=one.version, comes_from=self._from(loaded.name, one.name), until=one.until,
            )  # fmt: skip
        after = {**inside, **{name: package for name, (package, _) in others.items()}, **new}
        gone = told - new.keys()
        yield from self._open(loaded.name, suite, [after[name] for name in inside if name not in gone])

    def _inside(self, loaded: LoadedDefinition, last: Artifact) -> dict[str, Package]:
        """What the newest artifact holds by name: by its own dpkg status where others than the plan may add to it."""
        known = {package.name: package for package in last.packages}
        line = [self.context.definitions[one] for one in with_ancestors([loaded.name], self.context.parents)]
        written = any((one.folder / DOCKERFILE).is_file() or one.definition.base.image for one in line)
        if loaded.definition.is_machine or not written:
            return known
        if not self.context.store.has(last.digest):
            self.unasked[f"what {loaded.name} holds beside its plan"] = "its content is not on this machine"
            return known
        try:
            found = debian.installed(self.upstream.status(last.digest))
        except GoldsmithError as error:
            self.unasked[f"what {loaded.name} holds beside its plan"] = error.message
            return known
        return {**{one.name: one for one in found}, **known}

    def _others(
        self, loaded: LoadedDefinition, inside: dict[str, Package], planned: dict[str, Package]
    ) -> dict[str, tuple[Package, bool]]:
        """What is newer, by name, of what no plan resolves: of an upstream image, or what a Dockerfile.j2 added.

        With it, whether it is held back.
        """
        resolved = {name for name, one in planned.items() if one.sha256}
        if inside.keys() <= resolved:
            return {}
        last = self.planner.last(loaded.name)
        bootstrap, others = (
            self.planner.bootstrap(loaded),
            [one for name, one in inside.items() if name not in resolved],
        )
        status = self.upstream.status(last.digest) if last and self.context.store.has(last.digest) else ""
        return self._newer(loaded.name, bootstrap, others, status)

    def _newer(
        self, image: str, bootstrap: Bootstrap, packages: Sequence[Package], status: str
    ) -> dict[str, tuple[Package, bool]]:
        """What apt's solver would take in the place of `packages` in a system with that dpkg status."""
        index = self.context.index
        try:
            known = index.candidates(bootstrap, (package.name for package in packages))
            if not status or all(known.get(package.name, package.version) == package.version for package in packages):
                return {}
            wanted = {package.name for package in packages}
            found = {name: said for name, said in index.upgrades(bootstrap, status).items() if name in wanted}
            described = index.described(bootstrap, {name: new for name, (_, new, _) in found.items()})
        except GoldsmithError as error:
            self.unasked[f"packages of {image} that are newer"] = error.message
            return {}
        return {name: (described[name], kept) for name, (_, _, kept) in found.items() if name in described}

    def _package(
        self, loaded: LoadedDefinition, suite: str, name: str, old: Package | None, new: Package | None, *,
        more: str = "", todo: str = "",
    ) -> Newer:  # fmt: skip
        fixes = self.holes.closed(suite, old, new) if old and new else ()
        words = self.holes.words(suite, old) if fixes and old else ()
        said = f"{old.version} → {new.version}" if old and new else "is new" if new else "is no longer wanted"
        closes = _closes(fixes)
        comes_from = self._from(loaded.name, name)
        return Newer(
            loaded.name, NewerKind.PACKAGE, name, self.holes.urgency(fixes, words), f"{name} {said}{closes}{more}",
            todo or f"./goldsmith image.publish {loaded.name}", fixes=fixes, comes_from=comes_from,
            old=old.version if old else "", new=new.version if new else "",
        )  # fmt: skip

    def _todo_of_other(self, loaded: LoadedDefinition, name: str) -> str:
        """What is to be done about a package that no plan resolves."""
        last = self.planner.last(loaded.name)
        if last and any(package.name == name for package in last.packages):
            return f"./goldsmith image.lock {self._lowest(loaded).name}, once upstream has it"
        return f"a Dockerfile.j2 added it: add it to `packages`, or bring a newer one there ({loaded.name})"

    def _from(self, image: str, package: str) -> str:
        if image not in self.planner.plans:
            return ""
        added = {name: plan.added for name, plan in self.planner.plans.items()}
        return freshness.brought_by(package, image, added, self.context.parents)

    def _open(self, image: str, suite: str, packages: Iterable[Package]) -> Iterator[Newer]:
        """The vulnerabilities that stay in what would be there by now, and that a version fixes all the same."""
        found: dict[tuple[str, str], Newer] = {}
        for package in packages:
            for one in self.holes.open_in(suite, package):
                if one.fixed and (one.id, one.source) not in found:
                    found[one.id, one.source] = Newer(
                        image, NewerKind.VULNERABILITY, one.id, self.holes.urgency([one.id], [one.word]),
                        f"{one.source} {package.built_from[1]} has {one.id}, which {one.fixed} fixes, and the package "
                        "index here does not have that", "wait for the mirror, or take it out", fixes=(one.id,),
                        old=package.version, new=one.fixed, comes_from=self._from(image, package.name),
                    )  # fmt: skip
        yield from found.values()

    # -- what is not a package -----------------------------------------------------------------------------------------

    def _lowest(self, loaded: LoadedDefinition) -> LoadedDefinition:
        parent = loaded.definition.parent
        return self._lowest(self.context.definitions[parent]) if parent else loaded

    def _of_upstream(self, loaded: LoadedDefinition) -> Iterator[Newer]:
        lowest = self._lowest(loaded)
        reference = lowest.definition.base.image
        state = self._tag(reference) if reference else None
        if state and state.choice.newest != state.pinned:
            choice = state.choice
            waits = choice.until and not choice.digest
            urgency = Urgency.WAITS if waits and not choice.restless else Urgency.NORMAL
            urgency = self.holes.urgency(state.urgent) if state.urgent else urgency
            todo = f"./goldsmith image.lock {lowest.name}"
            if choice.restless:
                todo += ' --now --reason "…", or set a shorter lifecycle.cooldown'
            told = f"the tag has moved to {choice.newest[:19]}: {choice.because}"
            more = f" until {choice.until:%Y-%m-%d %H:%M} UTC" if waits and choice.until else ""
            yield Newer(
                loaded.name, NewerKind.UPSTREAM, state.reference, urgency, told + more,
                "wait" if urgency is Urgency.WAITS else todo, old=state.pinned, new=choice.newest,
                fixes=state.urgent, comes_from="" if lowest is loaded else lowest.name,
                until=choice.until if waits else None,
            )  # fmt: skip

    def _tag(self, reference: str) -> TagState | None:
        if reference not in self.tags:
            try:
                self.tags[reference] = self.watch.look(reference)
            except GoldsmithError as error:
                self.unasked[f"the tag {reference}"] = error.message
                self.tags[reference] = None
        return self.tags[reference]

    def _of_policy(self, name: str, told: set[str]) -> Iterator[Newer]:
        """What the policy says today of the last scan; but for vulnerabilities that are `told` already."""
        try:
            verdict = judge_last(self.planner, name)
        except GoldsmithError as error:
            self._failed(f"the policy of {name}", error)
            return
        for reason in verdict.refusals if verdict else ():
            if reason.rule not in told:
                what = f"the policy {self.context.policy_of(name)} refuses it now: {reason.what}"
                comes_from = reason.comes_from if reason.comes_from in self.context.definitions else ""
                yield Newer(name, NewerKind.POLICY, reason.rule, Urgency.HIGH, what, reason.todo, comes_from=comes_from)

    def _of_support(self, loaded: LoadedDefinition, suite: str) -> Iterator[Newer]:
        name, lowest = loaded.name, self._lowest(loaded)
        for one in (
            self._of_distribution(name, suite),
            freshness.of_support(name, loaded.definition.lifecycle.support_until, self.context.now),
        ):
            if one:
                yield one if lowest is loaded or one.what == name else replace(one, comes_from=lowest.name)

    def _of_distribution(self, image: str, suite: str) -> Newer | None:
        try:
            return freshness.of_distribution(image, suite, self.context.now)
        except KeyError:
            self.unasked[f"the end of life of {suite}"] = "this version of Goldsmith does not know that suite"
            return None

    # -- images of others ----------------------------------------------------------------------------------------------

    def of_reference(self, reference: str) -> Iterator[Newer]:
        """What is newer than an image that anybody made."""
        digest = self.upstream.bring(reference)
        for release in self.context.ledger.releases_of_content(digest)[:1]:
            if told := freshness.of_release(release, "this release", self.context.now):
                yield replace(told, image=reference)
        yield from self._of_base(reference)
        try:
            bootstrap = self.upstream.bootstrap_of(digest, reference)
            status = self.upstream.status(digest)
            packages = tuple(debian.installed(status))
        except GoldsmithError as error:
            self.unasked[f"the packages of {reference}"] = error.message
            return
        if not packages:
            self.unasked[f"the packages of {reference}"] = "its dpkg status lists none"
        self._refresh_one(bootstrap)
        newer = self._newer(reference, bootstrap, packages, status)
        for package in packages:
            if package.name in newer:
                yield self._foreign(reference, bootstrap.suite, package, *newer[package.name])
        after = (newer[one.name][0] if one.name in newer else one for one in packages)
        yield from (replace(one, todo=ASK) for one in self._open(reference, bootstrap.suite, after))
        if told := self._of_distribution(reference, bootstrap.suite):
            yield replace(told, todo=ASK)

    def _foreign(self, image: str, suite: str, old: Package, new: Package, kept: bool) -> Newer:
        fixes = self.holes.closed(suite, old, new)
        urgency = self.holes.urgency(fixes, self.holes.words(suite, old) if fixes else ())
        closes, held = _closes(fixes), "; it is held back there" if kept else ""
        return Newer(
            image, NewerKind.PACKAGE, old.name, urgency, f"{old.name} {old.version} → {new.version}{closes}{held}",
            ASK, old=old.version, new=new.version, fixes=fixes,
        )  # fmt: skip

    def _of_base(self, reference: str) -> Iterator[Newer]:
        """Whether the base that the image names has moved since."""
        client = RegistryClient(split(reference)[0].rpartition("/")[0], self.context.settings)
        found = client.get(reference)
        told = found.annotations
        if found.is_index and f"{BASE}name" not in told:
            exact = f"{split(reference)[0]}@{found.content(self.context.settings.platform)}"
            told = client.get(exact).annotations
        name, digest = told.get(f"{BASE}name", ""), told.get(f"{BASE}digest", "")
        if not name or not digest:
            return
        try:
            require_askable(name, digest, reference)
            now = self.watch.heads.digest(name)
        except GoldsmithError as error:
            self.unasked[f"its base {name[:200]}"] = error.message
            return
        if now != digest:
            why = f"its base has moved to {now[:19]} since it was built on {digest[:19]}"
            yield Newer(
                reference,
                NewerKind.PARENT,
                name,
                Urgency.NORMAL,
                why,
                ASK,
                old=digest,
                new=now,
            )


def _closes(fixes: Sequence[str]) -> str:
    """What a newer version closes, at the end of a sentence; the first few by name."""
    return f"; closes {listed(fixes)}" if fixes else ""


# -- for people --------------------------------------------------------------------------------------------------------


def show_outdated(found: OutdatedOutput, errors: Errors = (), *, as_json: bool) -> int:
    """Print what is newer. Exit code 1 where anything is that does not wait; else 4 where not all could be asked."""
    if as_json:
        print_json(to_json(found))
    else:
        todo = list(dict.fromkeys(line.todo for line in found.lines if line.urgency is not Urgency.WAITS))
        if found.lines:
            rows = [_row(lines, todo) for lines in _alike(found.lines)]
            print_table(["image", "urgency", "newer", "do"], rows, whole=["urgency", "do", "image"])
            print_text(["", *(f"{number}. {line}" for number, line in enumerate(todo, 1))])
        print_text(_rest(found))
    acts = any(line.urgency is not Urgency.WAITS for line in found.lines)
    return finish(errors) or (OUTDATED if acts else UNANSWERED if found.unasked else 0)


def _alike(lines: Iterable[OutdatedLine]) -> Iterable[list[OutdatedLine]]:
    """The lines of an image that are of one kind and urgency, and of one origin, together."""
    keyed = (((line.image, line.urgency, line.kind, line.comes_from, line.todo), line) for line in lines)
    return by_key(keyed).values()


def _row(lines: Sequence[OutdatedLine], todo: Sequence[str]) -> list[Cell]:
    first = lines[0]
    told = [line.reason for line in lines[:NAMED]]
    more = [f"and {len(lines) - NAMED} more {first.kind}s: --json names all"] if lines[NAMED:] else []
    origin = [f"from {first.comes_from}"] if first.comes_from else []
    number = str(todo.index(first.todo) + 1) if first.todo in todo else "-"
    return [[first.image, *origin], first.urgency, [*told, *more], number]


def _rest(found: OutdatedOutput) -> Iterator[str]:
    if not found.lines:
        known = "nothing newer is known" if found.unasked else "nothing is newer"
        yield f"{known}: {len(found.images)} image(s) were looked at"
    if found.unasked:
        yield "this could not be asked, so that nothing here is known to be fresh:"
        yield from (f"  {line.what}: {line.why}" for line in found.unasked)
