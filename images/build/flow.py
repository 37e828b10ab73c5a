"""The build flow: plan → fetch → build → verify → record, independent images in parallel."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from hardening.catalog import load_policy, load_waivers
from hardening.check import broken
from hardening.findings import BaseImage, CheckResult
from hardening.foundation.console import say
from hardening.foundation.errors import ContentError, GoldsmithError, OutsideError, RefusedError, as_ours
from hardening.foundation.process import threads
from hardening.foundation.timing import Steps, collected, in_all, step
from hardening.render import Overlay
from hardening.waivers import OFFERED, STARTS, TITLES, about_check, how_to_ask
from images.artifact import Artifact
from images.boot import Level
from images.build import build as build_image
from images.build import require_platform, require_tools
from images.build.build_steps import BuildJob, Built
from images.build.workspace import sweep, workspace
from images.context import Context
from images.ledger.artifacts import parent_of
from images.machine.trees import mounts_where_possible, private_mounts
from images.plan.build_plan import Action, BuildPlan, sorter, with_ancestors
from images.plan.planner import Planner
from images.plan.upstream import Upstream
from images.registry.answers import NotFoundError
from images.registry.channel_documents import ChannelDocuments
from images.release.revocations import revoked_base
from images.scan.judge import judge, only_check, refusal, without_judges
from images.scan.verify import console_log, offered, refusals, verify, waived
from images.store.files import room_on
from images.store.oci import Store
from images.trust.channel_document import UnreadChannelsError


@dataclass(frozen=True)
class BuildOutcome:
    """The result for one image; `seconds` of wall time; `error` is what stopped it, if anything did.

    `waived` tells what would have refused it but for a waiver; `stopped_by` which image it stands on and that failed;
    `steps` how many seconds each step of a build took.
    """

    name: str
    action: Action
    digest: str = ""
    input_digest: str = ""
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0
    checks: tuple[CheckResult, ...] = field(default=(), repr=False)
    error: GoldsmithError | None = field(default=None, repr=False)
    waived: tuple[str, ...] = ()
    stopped_by: str = ""
    steps: Steps = field(default_factory=dict)


def build(context: Context, names: Iterable[str], *, no_cache: bool = False) -> list[BuildOutcome]:
    """Build `names` and whatever they stand on, as far as their inputs changed; one outcome for each, parents first.

    A refused or failed image stops its children and nothing else. `no_cache` builds `names` whether changed or not.
    Raises OutsideError, before anything is fetched, where this machine cannot run programs of the platform.
    """
    require_platform(context.settings.platform)
    selected = list(names)
    planner = Planner(context, no_cache=selected if no_cache else ())
    unsound = unsound_ones(planner, selected)
    sound = with_ancestors((name for name in selected if name not in unsound), context.parents)
    sweep(context.settings, context.build_host)
    builder = _Builder(context, planner)
    graph = sorter({name: context.parents[name] for name in sound})
    outcomes: dict[str, BuildOutcome] = {}
    with threads(context.settings.parallel) as pool:
        running: dict[Future[BuildOutcome], str] = {}
        while graph.is_active():
            for name in sorted(graph.get_ready()):
                parent = context.parents[name]
                running[pool.submit(builder.one, name, outcomes[parent] if parent else None)] = name
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                outcomes[name] = future.result()
                graph.done(name)
    return list({**outcomes, **{name: told for name, told in unsound.items() if name not in outcomes}}.values())


def unsound_ones(planner: Planner, selected: Iterable[str]) -> dict[str, BuildOutcome]:
    """The outcomes of definitions that are wrong in themselves, before what they stand on is built for them."""
    found = {}
    for name in selected:
        try:
            planner.require(planner.context.definitions[name])
        except ContentError as error:
            found[name] = BuildOutcome(name, Action.FAILED, reasons=(error.message,), error=error)
        except OSError:  # its plan will meet it again, and tell
            continue
    return found


PLANNING = Lock()
"""Of this process: apt's solver serves one thread at a time, whichever flow asks it."""


class _Builder:
    """Builds single images for `build`, several at a time."""

    def __init__(self, context: Context, planner: Planner) -> None:
        self.context = context
        self.planner = planner
        self._lock = Lock()
        self._engine = ""

    def one(self, name: str, parent: BuildOutcome | None) -> BuildOutcome:
        """Plan one image and, if its inputs changed, build it. Whatever goes wrong becomes its outcome."""
        start = time.monotonic()
        if parent and parent.action in {Action.REFUSED, Action.FAILED}:
            became = "was refused" if parent.action is Action.REFUSED else "failed"
            reasons = (f"its parent {parent.name} {became}",)
            return BuildOutcome(name, Action.FAILED, reasons=reasons, error=parent.error, stopped_by=parent.name)
        with collected(name) as steps:
            try:
                with room_on(self.context.settings.state_dir):
                    outcome = self._planned(name)
            except Exception as error:
                known = as_ours(name, error)
                outcome = BuildOutcome(name, Action.FAILED, reasons=(known.message,), error=known)
        seconds = round(time.monotonic() - start, 3)
        if outcome.action is not Action.UNCHANGED:
            say(f"{name}: {outcome.action} in {in_all(seconds, steps)}")
        return replace(outcome, seconds=seconds, steps=steps)

    def _planned(self, name: str) -> BuildOutcome:
        with PLANNING, step("plan"):
            plan = self.planner.plan(name)
        if name not in self.planner.no_cache and brought(self.context, self.planner.upstream, plan):
            with PLANNING, step("plan"):
                plan = self.planner.plan(name)
        if plan.artifact:
            self._make_newest(plan.artifact)
            return BuildOutcome(name, Action.UNCHANGED, plan.artifact.digest, plan.input_digest, plan.why)
        more = f" (and {len(plan.why) - 1} more)" if plan.why[1:] else ""
        definition = self.context.definitions[name].definition
        require_tools(definition)
        if no := (definition.is_machine and self._unjudged(name)) or self._on_revoked(plan):
            return self._refused(plan, no)
        say(f"{name}: building, because {plan.why[0]}{more}")
        with workspace(self.context.settings) as work:
            # Nothing enters the store before it is verified: a refused, failed or killed build leaves nothing there.
            store = Store(work / "store", below=self.context.store)
            docker_host = "" if definition.is_machine else self.engine()
            with step("packages"):
                job = job_for(self.context, self.planner, plan, work=work, store=store, docker_host=docker_host)
            with private_mounts() if definition.is_machine else mounts_where_possible(work / "mounts") as possible:
                with step("build"):
                    built = build_image(replace(job, mounts=bool(possible)))
                say(f"{name}: verifying {len(job.overlay.checks)} controls")
                checks = _verify(job, built, job.overlay)
            checks += offered(self.planner.not_offered(self.context.definitions[plan.name]))
            return self._record(plan, job, built, checks)

    def _make_newest(self, artifact: Artifact) -> None:
        """What the definition says now is the newest artifact, even where another one was built in between."""
        newest = self.context.ledger.latest_artifact(artifact.name, artifact.platform)
        if newest and newest.input_digest != artifact.input_digest:
            self.context.ledger.record_artifact(replace(artifact, built_at=datetime.now(UTC)))

    def engine(self) -> str:
        """The engine that builds, found once."""
        with self._lock:
            self._engine = self._engine or self.context.build_host()
            return self._engine

    def _record(self, plan: BuildPlan, job: BuildJob, built: Built, checks: tuple[CheckResult, ...]) -> BuildOutcome:
        """Refuse the image; or take it into store and ledger, and let its children be built on it.

        Raises ContentError where a check broke.
        """
        waivers, today = load_waivers(self.context.settings.roots), self.context.now.date()
        bases = self.context.ledger.bases_from(*parent_of(plan.inputs))
        if refused := refusals(checks, plan.name, waivers, today, bases):
            if broke := broken(refused, self.context.settings.roots):
                raise broke
            return self._refused(plan, self._refusal(plan.name, refused, bases), built.digest, checks)
        artifact = Artifact(
            plan.name, plan.platform, plan.input_digest, built.digest, plan.inputs, built.packages, built.created,
            datetime.now(UTC), built.size_bytes,
            self.context.store.put_file(built.dockerfile, "text/plain").digest if built.dockerfile else "",
        )  # fmt: skip
        scripts = dict(job.overlay.parts["checks"])
        self.context.ledger.record_checks(built.digest, checks, artifact.built_at, scripts, name=plan.name)
        if job.definition.is_machine and (no := self._gate(artifact, job.store)):
            return self._refused(plan, no, built.digest, checks)
        with step("keep"):
            self.context.store.adopt(job.store, built.digest)
            self.context.ledger.record_artifact(artifact)
        self.planner.digests[plan.name] = built.digest
        used = waived(checks, plan.name, waivers, today, bases)
        return BuildOutcome(
            plan.name, Action.BUILT, built.digest, plan.input_digest, plan.why, 0.0, checks, waived=used
        )

    def _on_revoked(self, plan: BuildPlan) -> RefusedError | None:
        """Why nothing may be built on the parent of an image; None where nothing revoked stands under it."""
        parent = self.context.parents[plan.name]
        return revoked_parent(self.context, parent, str(plan.inputs["parent"])) if parent else None

    def _unjudged(self, name: str) -> RefusedError | None:
        """Why nobody here could judge the machine `name`, which takes minutes to build; None where somebody can."""
        return without_judges(self.context, name, self.planner.bootstrap(self.context.definitions[name]).suite)

    def _gate(self, artifact: Artifact, store: Store) -> RefusedError | None:
        """Why the policy refuses a machine that was built into `store`; None where it does not."""
        with step("scans"):
            judgement = judge(self.context.over(store), artifact, self.context.policy_of(artifact.name))
        return None if judgement.verdict.allowed else refusal(judgement)

    def _refused(
        self, plan: BuildPlan, error: RefusedError, digest: str = "", checks: tuple[CheckResult, ...] = ()
    ) -> BuildOutcome:
        """The outcome of an image that is refused, once the ledger's audit says so and why."""
        self.context.ledger.audit(self.context.now, self.context.actor, "refuse", plan.name, error.evidence)
        reasons = tuple(error.evidence.splitlines()) or (error.message,)
        return BuildOutcome(plan.name, Action.REFUSED, digest, plan.input_digest, reasons, 0.0, checks, error)

    def _refusal(self, name: str, refused: tuple[CheckResult, ...], bases: tuple[BaseImage, ...]) -> RefusedError:
        """What is broken, with its evidence; where it is explained; and how to ask for a waiver of the first of it."""
        policy = load_policy(self.context.settings.roots, self.context.policy_of(name))
        first = refused[0].control
        why = f"./goldsmith control.show {first} says why it matters and what to do"
        if first == STARTS:
            why = "see its output"
            if "Read-only file system" in refused[0].evidence:
                why = "its root is read-only; `tmpfs` in image.toml, which no base passes on, names where it may write"
        elif first == OFFERED:
            why = (
                "name the archive that has them in packages.extra_sources of goldsmith.toml, or build on another image"
            )
        elif first in TITLES:
            why = f"{console_log(self.context.store, name)} has the machine's output"
        asking = how_to_ask(
            about_check(first, bases, refused[0].evidence), name, policy.exception_contact, self.context.now.date()
        )
        return RefusedError(
            f"{name} breaks {', '.join(r.control for r in refused)}",
            evidence="\n".join(f"{r.control}: {r.title}: {' '.join(r.evidence.split())}" for r in refused),
            hint=f"{why}; or {asking}",
        )


def brought(context: Context, upstream: Upstream, plan: BuildPlan) -> bool:
    """Whether the content that `plan` would build was brought here from the registry, where another machine that built
    it of the same inputs published it, so that nothing has to be built.

    So a child can be built where its parent was not. Machines are built again: their trees are in no registry; and so
    is what a Dockerfile made, whose text is scanned too. Where the registry lacks it or fails, it is built as well.
    """
    address = context.settings.registry.address.rstrip("/")
    if plan.artifact or not address or not plan.input_digest or context.definitions[plan.name].definition.is_machine:
        return False
    known = context.ledger.artifact_by_input(plan.name, plan.platform, plan.input_digest)
    if known is None or known.dockerfile or context.store.has(known.digest):
        return False
    try:
        upstream.bring_exactly(f"{address}/{plan.name}:published", known.digest)
    except (OutsideError, NotFoundError) as error:
        say(f"{plan.name}: another machine built it, and its content is not to be had: {error.message}")
        return False
    say(f"{plan.name}: brought from {address}, where another machine published it")
    return True


def job_for(
    context: Context, planner: Planner, plan: BuildPlan, *, work: Path, store: Store, docker_host: str = ""
) -> BuildJob:
    """The job that carries out `plan` in `work`, its results in `store`. Its parent must be built.

    Raises OutsideError where packages or an upstream base cannot be fetched.
    """
    loaded = context.definitions[plan.name]
    base, bootstrap = loaded.definition.base, planner.bootstrap(loaded)
    return BuildJob(
        name=plan.name,
        definition=loaded.definition,
        definition_folder=loaded.folder,
        platform=plan.platform,
        overlay=plan.overlay,
        packages=plan.added,
        debs=context.index.download(bootstrap, plan.added),
        stanzas=context.index.stanzas(plan.added),
        sources=planner.sources(loaded),
        parent=planner.digests[base.golden] if base.golden else None,
        upstream=planner.upstream.fetch(base.image) if base.image else None,
        work=work,
        store=store,
        docker_host=docker_host,
        archive=plan.inputs.get("archive", ""),
        declared=context.declared(plan.name),
    )


def revoked_parent(context: Context, parent: str, content: str) -> RefusedError | None:
    """Why nothing may be built on `content` of the definition `parent`: it is revoked, or its channels are unread, as
    far as a registry is asked that others write to; else None.

    Where that does not answer, that is said: publication asks it again, and fails.
    """
    shared = context.settings.registry.address
    repository = f"{shared.rstrip('/')}/{parent}" if shared else parent
    try:
        documents = ChannelDocuments(context.registry, context.ledger, context.now) if shared else None
        ask = documents.revocation() if documents else None
        found = revoked_base(context.ledger, repository, content, ask)
    except UnreadChannelsError as error:
        return error
    except OutsideError as error:
        say(f"whether {parent} was revoked elsewhere is not known: {error.message}")
        found = revoked_base(context.ledger, repository, content)
    if found is None:
        return None
    base, (_, reason) = found
    hint = f"change what is wrong in {base.name}; image.why {base.name} shows what would be built"
    return RefusedError(f"its base {base.name} was revoked: {reason}", hint=hint)


def dev_build(
    context: Context, name: str, level: Level, control: str = ""
) -> tuple[str, tuple[CheckResult, ...]] | None:
    """Build the machine `name` as it would be built now, boot it once at `level`; its digest and the results.

    The loop of those who edit controls: a second boot, scans and the gate are left out, and nothing is kept.

    With `control`, only that one is asked. None where the newest artifact is what would be built. Raises ContentError
    where what it stands on must be built first, or the profile has no such control; and OutsideError.
    """
    planner = Planner(context)
    loaded = context.definitions[name]
    definition = loaded.definition
    asked = only_check(planner.overlay(loaded), control, definition.profile)
    *below, plan = planner.plan_all([name])
    if plan.artifact:
        return None
    _require_built(name, below)
    require_tools(definition)
    say(f"{name}: building for this boot alone, because {plan.why[0]}; image.build {name} keeps it")
    with workspace(context.settings) as work, private_mounts():
        store = Store(work / "store", below=context.store)
        job = job_for(context, planner, plan, work=work, store=store)
        built = build_image(job)
        return built.digest, _verify(job, built, asked, level, twice=False)


def _verify(
    job: BuildJob, built: Built, overlay: Overlay, level: Level = Level.RELEASE, *, twice: bool | None = None
) -> tuple[CheckResult, ...]:
    return verify(
        job.definition, overlay, tree=built.tree, digest=built.digest, store=job.store, work=job.work,
        docker_host=job.docker_host, declared=job.declared, level=level, twice=twice,
    )  # fmt: skip


def _require_built(name: str, below: list[BuildPlan]) -> None:
    for plan in below:
        if plan.action is Action.BUILD:
            hint = f"./goldsmith image.build {plan.name}, then try {name} again"
            raise ContentError(f"{name} is based on {plan.name}, which has changed too: {plan.why[0]}", hint=hint)
