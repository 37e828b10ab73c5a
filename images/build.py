"""The build flow: plan → fetch → build → verify → record, independent images side by side."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from hardening.findings import CheckResult
from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, RefusedError
from images.artifact import Artifact
from images.builders import Built, BuildJob
from images.builders import build as build_image
from images.context import Context
from images.disk import room_on
from images.graph import sorter, with_ancestors
from images.plan import Action, BuildPlan
from images.planner import Planner
from images.verify import refusals, verify
from images.workspace import sweep, workspace


@dataclass(frozen=True)
class BuildOutcome:
    """What became of one image; `seconds` of wall time; `error` is what stopped it, if anything did."""

    name: str
    action: Action
    digest: str = ""
    input_digest: str = ""
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0
    checks: tuple[CheckResult, ...] = field(default=(), repr=False)
    error: GoldsmithError | None = field(default=None, repr=False)


def build(context: Context, names: Iterable[str], *, no_cache: bool = False) -> list[BuildOutcome]:
    """Build `names` and whatever they stand on, as far as their inputs changed; one outcome for each, parents first.

    A refused or failed image stops its children and nothing else. `no_cache` builds `names` whether changed or not.
    """
    selected = list(names)
    builder = _Builder(context, Planner(context, no_cache=selected if no_cache else ()))
    graph = sorter({name: context.parents[name] for name in with_ancestors(selected, context.parents)})
    outcomes: dict[str, BuildOutcome] = {}
    with ThreadPoolExecutor(context.settings.parallel) as pool:
        running: dict[Future[BuildOutcome], str] = {}
        while graph.is_active():
            for name in sorted(graph.get_ready()):
                parent = context.parents[name]
                running[pool.submit(builder.one, name, outcomes[parent] if parent else None)] = name
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                outcomes[name] = future.result()
                graph.done(name)
    return list(outcomes.values())


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
            return BuildOutcome(
                name, Action.FAILED, reasons=(f"its parent {parent.name} was {parent.action}",), error=parent.error
            )
        try:
            with room_on(self.context.settings.state_dir):
                outcome = self._planned(name)
        except GoldsmithError as error:
            outcome = BuildOutcome(name, Action.FAILED, reasons=(error.message,), error=error)
        return replace(outcome, seconds=round(time.monotonic() - start, 3))

    def _planned(self, name: str) -> BuildOutcome:
        with self._lock:
            plan = self.planner.plan(name)
        if plan.artifact:
            return BuildOutcome(name, Action.UNCHANGED, plan.artifact.digest, plan.input_digest, plan.why)
        more = f" (and {len(plan.why) - 1} more)" if plan.why[1:] else ""
        say(f"{name}: building, because {plan.why[0]}{more}")
        with workspace(self.context.settings) as work:
            built = build_image(self._job(plan, work))
            return self._record(plan, built, self._verify(plan, built, work))

    def engine(self) -> str:
        """The engine that builds, found once; what killed runs left on it is swept first."""
        with self._lock:
            if not self._engine:
                self._engine = self.context.build_host()
                sweep(self.context.settings, self._engine)
            return self._engine

    def _job(self, plan: BuildPlan, work: Path) -> BuildJob:
        context, planner = self.context, self.planner
        loaded = context.definitions[plan.name]
        bootstrap = planner.bootstrap(loaded)
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
            parent=planner.digests[loaded.definition.parent] if loaded.definition.parent else None,
            upstream=planner.upstream.fetch(loaded.definition.base.image) if loaded.definition.base.image else None,
            work=work,
            store=context.store,
            docker_host=self.engine(),
        )

    def _verify(self, plan: BuildPlan, built: Built, work: Path) -> tuple[CheckResult, ...]:
        say(f"{plan.name}: verifying {len(plan.overlay.checks)} controls")
        definition = self.context.definitions[plan.name].definition
        return verify(
            definition, plan.overlay, tree=built.tree, config=built.config, digest=built.digest,
            store=self.context.store, work=work, docker_host=self.engine(),
        )  # fmt: skip

    def _record(self, plan: BuildPlan, built: Built, checks: tuple[CheckResult, ...]) -> BuildOutcome:
        """Refuse the image, or write it into the ledger and let its children be built on it."""
        self.context.ledger.record_checks(built.digest, checks, datetime.now(UTC))
        if refused := refusals(checks):
            reasons = tuple(f"{r.control}: {r.title}: {r.evidence.strip()}" for r in refused)
            error = RefusedError(
                f"{plan.name} breaks {', '.join(r.control for r in refused)}",
                evidence="\n".join(reasons),
                hint=f"inv control.show {refused[0].control} says why it matters and what to do instead",
            )
            return BuildOutcome(plan.name, Action.REFUSED, built.digest, plan.input_digest, reasons, 0.0, checks, error)
        artifact = Artifact(
            plan.name, plan.platform, plan.input_digest, built.digest, plan.inputs, built.packages, built.created,
            datetime.now(UTC), built.size_bytes, self._keep(built.dockerfile),
        )  # fmt: skip
        self.context.ledger.record_artifact(artifact)
        self.planner.built(plan.name, built.digest)
        return BuildOutcome(plan.name, Action.BUILT, built.digest, plan.input_digest, plan.why, 0.0, checks)

    def _keep(self, dockerfile: Path | None) -> str:
        """Keep the Dockerfile in the store, for the scanners to come; its digest."""
        return self.context.store.put_file(dockerfile, "text/plain").digest if dockerfile else ""
