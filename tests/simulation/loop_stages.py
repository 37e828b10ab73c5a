"""The stages of a simulated night: what the real code decides, done to the outside of the simulation.

Real are the night's flow and tree of work, the order and inputs of builds, gate and waivers, dates, soak, cooldown,
retention, what an urgent run tries again, and all that a night tells.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hardening.findings import Verdict
from hardening.foundation.errors import ContentError, GoldsmithError, OutsideError, RefusedError
from hardening.foundation.hashing import digest_of
from hardening.gate import GateError, judge_image
from hardening.model import Severity
from hardening.render import Overlay
from images.artifact import Artifact, Release
from images.plan.build_plan import Action, BuildPlan, decide, inputs_of, with_ancestors
from images.plan.build_plan import order as ordered
from images.plan.cooldown import TAG, choose, look
from images.release.channels import point
from images.release.lifecycle import dates, near_expiry, refuse_ended, refuse_judged
from images.release.publish import TAKEN_UP_WITHIN
from images.release.soak import fixed
from pipelines.nightly.image_stages import soaking
from pipelines.nightly.model import (
    NOTHING_URGENT,
    DaysLeft,
    FeedNews,
    ImageAnswer,
    ImageJob,
    NightOrder,
    NightPart,
    NightPlan,
    NightRecord,
    ended_with,
    image_failed,
)
from pipelines.nightly.planning import PROMOTES, SETTLED, _plan_builds, _Planned, _waits, days_left
from pipelines.nightly.stages import WorldStages, over
from pipelines.nightly.summary import output
from pipelines.promotion import PromotionDecision, earlier_candidates, soak
from pipelines.rollout.service import WAITS
from tests.simulation.loop_ledger import LOOKED
from tests.simulation.outside import UPSTREAM, FeedData, Registry, package
from tests.support.night_world import line

if TYPE_CHECKING:
    from tests.simulation.loop import Loop

SUITE = "trixie"
NOTHING_APPLIED = Overlay((), (), ())
COOLDOWN = timedelta(days=3)


class LoopPlanner:
    """Plans builds by the index that was fetched last, and by what was built."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.plans: dict[str, BuildPlan] = {}

    def plan(self, name: str) -> BuildPlan:
        """What would happen to an image; what it stands on was planned before."""
        ledger, definition = self.loop.ledger, self.loop.context.definitions[name].definition
        below = self.plans.get(definition.base.golden or "")
        added = tuple(package(one, ledger.index[one]) for one in definition.packages)
        packages, parent = (
            (below.packages if below else ()),
            (below.artifact.digest if below and below.artifact else ""),
        )
        if definition.base.image:
            parent = self.loop.pinned
            packages = (self.loop.outside.holds[parent],)
        inputs = inputs_of(
            definition, "linux/amd64", overlay=NOTHING_APPLIED, parent=parent, packages=added, files={}, sources="",
            builder="simulated",
        )  # fmt: skip
        self.plans[name] = decide(
            name, inputs, added=added, packages=(*packages, *added), overlay=NOTHING_APPLIED,
            known=ledger.built.get(digest_of(inputs)), last=ledger.newest.get(name),
            parent_pending=below is not None and below.action is Action.BUILD, no_cache=False,
        )  # fmt: skip
        return self.plans[name]


class LoopStages(WorldStages):
    """The stages over a simulated loop. `parts`: of a release, in the order in which they are pushed."""

    parts = Registry.PARTS

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop.context)
        self.loop = loop

    def at(self, order: NightOrder) -> Any:
        """At the night's own moment."""
        return replace(self.loop.context, now=order.started_at)

    # -- what is newer ------------------------------------------------------------------------------------------------

    def suites(self, order: NightOrder) -> tuple[str, ...]:
        """One."""
        return (SUITE,)

    def index(self, order: NightOrder, suite: str) -> NightPart:
        """Ask the mirror."""
        self.loop.outside.ask("mirror")
        self.loop.ledger.index = dict(self.loop.outside.offered)
        return NightPart((line("index", suite, "refreshed"),))

    def feeds(self, order: NightOrder, suite: str) -> NightPart:
        """Ask the feeds; what they gave last stays where they give nothing."""
        self.loop.ledger.data = self.loop.outside.told()
        return NightPart((line("feeds", suite, "refreshed"),))

    def feed_changes(self, order: NightOrder) -> NightPart:
        """Nothing is told of it here."""
        return NightPart((line("feeds", "changes", "unchanged"),))

    def urgent(self, order: NightOrder) -> FeedNews:
        """By what channels point to."""
        found: dict[str, list[str]] = {}
        for (name, _), digest in sorted(self.loop.registry.channels.items()):
            findings = self.loop.ledger.scan(self.loop.ledger.known[digest].content).findings
            ids = {one.id for one in findings if one.fixed and (one.exploited or one.severity is Severity.CRITICAL)}
            if ids:
                found[name] = sorted(ids.union(found.get(name, [])))
        part = NightPart((line("feeds", "urgent", "changed" if found else "unchanged", NOTHING_URGENT),))
        return FeedNews(part, tuple(found), tuple(map(digest_of, found.values())))

    def _tries(self, order: NightOrder, found: FeedNews) -> dict[str, str]:
        """By the index as it is now."""
        fixes = zip(found.urgent, found.fixes, strict=True)
        return {name: digest_of([fix, self.loop.ledger.index]) for name, fix in fixes}

    def upstreams(self, order: NightOrder) -> tuple[str, ...]:
        """One."""
        return (UPSTREAM,)

    def lock(self, order: NightOrder, reference: str) -> NightPart:
        """Move its pin to what is old enough, or closes a grave hole of what is pinned."""
        loop, outside, pinned = self.loop, self.loop.outside, self.loop.pinned
        outside.ask("upstream")
        newest = outside.tag
        loop.promises.tag_seen(newest, order.started_at)
        sights = loop.ledger._looked(
            TAG, reference, lambda known: look(known, [newest], order.started_at, {pinned or newest}), keep=True
        )
        choice = choose(sights, pinned, newest, COOLDOWN, order.started_at, grave_closed(loop, pinned, newest))
        if choice.digest:
            loop.promises.pins(pinned, choice.digest, order.started_at)
            loop.pinned = choice.digest
        status = "moved" if choice.digest else "waits" if choice.until else "unchanged"
        return NightPart((line("lock", reference, status, choice.because),))

    # -- which images have work ---------------------------------------------------------------------------------------

    def plan(self, order: NightOrder, urgent: tuple[str, ...]) -> NightPlan:
        """The real tree of work."""
        context = self.at(order)
        chosen = [name for name in context.parents if not urgent or with_ancestors([name], context.parents) & {*urgent}]
        if not self.loop.ledger.index or not self.loop.pinned:
            raise OutsideError("no index was ever fetched, or nothing is pinned")
        wanted = with_ancestors(chosen, context.parents)
        names = [name for name in ordered(context.parents) if name in wanted]
        found = _Jobs(context, order, self.loop.memory.now())
        _plan_builds(found, LoopPlanner(self.loop), names, fetches=False)
        for name in names:
            if (made := found.plans.get(name)) and made.artifact:
                found.looked[name] = self._look(found, name, made.artifact)
        return found.as_trees(names)

    def _look(self, found: _Planned, name: str, artifact: Artifact) -> ImageAnswer | str:
        verdict, registry, ledger = self._verdict(found.context, artifact), self.loop.registry, self.loop.ledger
        if not verdict.allowed:
            return image_failed(found.job(name), _refusal(verdict), content=artifact.digest)
        if name in ledger.begun:
            return "its publication was cut short"
        try:
            candidate, stable = (ledger.known.get(registry.pointed(name, one)) for one in ("candidate", "stable"))
        except GoldsmithError as error:
            return image_failed(found.job(name), error)
        if candidate is None or candidate.content != artifact.digest:
            return "it is not published yet"
        if near_expiry(candidate, found.context.now):
            return "it gets new dates"
        return self._promoted(found, candidate, stable)

    def _promoted(self, found: _Planned, candidate: Release, stable: Release | None) -> ImageAnswer | str:
        settled = ImageAnswer(candidate.name, "unchanged", content=candidate.content, reasons=(SETTLED,))
        if stable == candidate:
            return replace(settled, left=DaysLeft.of(candidate, found.context.now))
        if waits := self._soaks(found.night, candidate, stable):
            return replace(settled, left=days_left(found.context, candidate.name), parts=(waits,))
        return PROMOTES

    def _soaks(self, order: NightOrder, candidate: Release, stable: Release | None) -> NightPart | None:
        """By the real rule; what the candidate fixes, by the scans of the simulation."""
        if self._cannot_wait(candidate, stable):
            return None
        return _waits(self.at(order), self._store(order), candidate.name, candidate, _digests(stable))

    def _cannot_wait(self, candidate: Release, stable: Release | None) -> bool:
        scan = self.loop.ledger.scan
        return stable is not None and bool(fixed(scan(stable.content).findings, scan(candidate.content).findings))

    def _verdict(self, context: Any, artifact: Artifact, data: FeedData | None = None) -> Verdict:
        return verdict(self.loop, context.now, artifact, data or self.loop.ledger.data)

    # -- one image ----------------------------------------------------------------------------------------------------

    def build(self, job: ImageJob) -> ImageAnswer:
        """Build it on what is built."""
        loop, context, planner = self.loop, self.at(job.night), LoopPlanner(self.loop)
        if loop.is_broken(job.name):
            raise ContentError(f"{job.name}: its definition is broken")
        for name in (one for one in ordered(context.parents) if one in with_ancestors([job.name], context.parents)):
            made = planner.plan(name)
            if made.action is Action.BUILD and name != job.name:
                loop.promises.begins_early(job.name, name)
        if made.artifact:
            self.loop.ledger.newest[job.name] = made.artifact
            tonight = bool(job.planned_at and made.artifact.built_at >= job.planned_at)
            return ImageAnswer(job.name, "unchanged", tonight, made.artifact.digest, None, job.why)
        artifact = Artifact(
            job.name, made.platform, made.input_digest, digest_of(["content", made.input_digest]), made.inputs,
            made.packages, loop.memory.now(), loop.memory.now(),
        )  # fmt: skip
        parent = context.parents[job.name]
        below = planner.plans[parent].artifact if parent else None
        loop.promises.builds(artifact, below)
        loop.ledger.keep(artifact, below)
        return ImageAnswer(job.name, "unchanged", True, artifact.digest, None, made.why)

    def judge(self, job: ImageJob, built: ImageAnswer) -> ImageAnswer:
        """By today's data and waivers."""
        found = self._verdict(self.at(job.night), self.loop.ledger.content(built.content))
        return built if found.allowed else image_failed(job, _refusal(found), built=built.built, content=built.content)

    def publish(self, job: ImageJob, judged: ImageAnswer) -> ImageAnswer:
        """Part by part; what was cut short is finished, or put away where it is another one by now."""
        registry, ledger, now = self.loop.registry, self.loop.ledger, job.night.started_at
        try:
            standing = ledger.known.get(registry.pointed(job.name, "candidate"))
            begun = ledger.begun.get(job.name)
            if begun and (begun.content != judged.content or now - begun.published_at >= TAKEN_UP_WITHIN):
                if begun.digest not in registry.channels.values():
                    registry.remove(begun)
                del ledger.begun[job.name]
                begun = None
            if standing and not begun and standing.content == judged.content and not near_expiry(standing, now):
                return replace(judged, action="unchanged", expires_at=standing.expires_at)
            release = ledger.begun[job.name] = begun or self._draft(job, judged.content)
            for part in self.parts:
                registry.push(release, part)
            ledger.known[release.digest] = release
            point(self._store(job.night), release, "candidate", "publish")
            del ledger.begun[job.name]
        except GoldsmithError as error:
            return image_failed(job, error, built=judged.built)
        redated = any(one.digest != release.digest for one in ledger.releases_of_content(release.content))
        action = "re-dated" if redated else "published"
        return replace(judged, action=action, expires_at=release.expires_at)

    def _draft(self, job: ImageJob, content: str) -> Release:
        definition, now = self.loop.context.definitions[job.name].definition, job.night.started_at
        base = self.loop.ledger.stands_on.get(content)
        return Release(
            job.name, f"r.example/{job.name}", digest_of([content, now.isoformat()]), content, "", "p", "default",
            **asdict(dates(definition.lifecycle, now)), base_digest=base.digest if base else "",
        )  # fmt: skip

    def promote(self, job: ImageJob, published: ImageAnswer) -> ImageAnswer:
        """Where it has soaked, or cannot wait, and the gate lets it."""
        done = published
        if not published.ended_badly:
            try:
                done = replace(published, parts=(self._promotion(job),))
            except GoldsmithError as error:
                done = replace(published, parts=(ended_with("channel", job.name, error),))
        return replace(done, left=days_left(self.at(job.night), job.name))

    def _promotion(self, job: ImageJob) -> NightPart:
        registry, ledger, context, name = self.loop.registry, self.loop.ledger, self.at(job.night), job.name
        candidate = ledger.known[registry.pointed(name, "candidate")]
        stable = ledger.known.get(registry.pointed(name, "stable"))
        if stable == candidate:
            return NightPart()
        decided = soak(context, self._store(job.night), name, candidate, _digests(stable))
        if self._cannot_wait(candidate, stable) or not isinstance(decided, PromotionDecision) or not decided.waits:
            self._promote(job.night, candidate)
            return NightPart(promoted=name)
        for release in earlier_candidates(context, self._store(job.night), candidate, _digests(stable)):
            with suppress(RefusedError):
                self._promote(job.night, release)
                return replace(soaking(name, decided), promoted=name)
        return soaking(name, decided)

    def _promote(self, order: NightOrder, release: Release) -> None:
        refuse_ended(release, order.started_at, "stable stays where it is")
        judgement = self._verdict(self.at(order), self.loop.ledger.content(release.content))
        refuse_judged(release, replace(judgement, content=release.content), "default")
        point(self._store(order), release, "stable", "promote")

    def _store(self, order: NightOrder) -> Any:
        return _Store(self.loop.registry, self.loop.ledger, order.started_at)

    # -- what is over, the fleets, and people -------------------------------------------------------------------------

    def channels(self, order: NightOrder) -> NightPart:
        """Nothing: the simulated registry is believed, and signs no documents."""
        return NightPart()

    def prune(self, order: NightOrder) -> NightPart:
        """Remove what is over."""
        for decision in over(self.at(order)):
            self.loop.promises.removes(decision.subject)
            self.loop.registry.remove(decision.subject)
            self.loop.ledger.pruned(decision.subject, order.started_at)
        self.loop.promises.pruned()
        return NightPart()

    def fleets(self, order: NightOrder, images: tuple[str, ...]) -> tuple[str, ...]:
        """All, or those that become one of the images."""
        fleets = self.loop.fleets
        return tuple(name for name in sorted(fleets) if not images or fleets[name].becomes in images)

    def fleet_needs(self, order: NightOrder, name: str) -> tuple[str, ...]:
        """A fleet is rolled from here."""
        return ()

    def fleet(self, order: NightOrder, name: str) -> NightPart:
        """Roll it by the real flows."""
        status, detail = self.loop.fleets[name].bring_into_policy(order.started_at + WAITS)
        return NightPart((line("fleet", name, status, detail),))

    def waivers(self, order: NightOrder) -> NightPart:
        """Those that end soon."""
        return NightPart()

    def report(self, record: NightRecord) -> NightPart:
        """It is what is told."""
        return NightPart(detail="report.html")

    def notify(self, record: NightRecord) -> NightPart:
        """At least once."""
        self.loop.messages.append(output(record))
        return NightPart()

    def digest(self, order: NightOrder) -> NightPart:
        """No channel is set."""
        return NightPart()


class _Jobs(_Planned):
    """A plan whose jobs any worker takes."""

    def job(self, name: str, why: tuple[str, ...] = ()) -> ImageJob:
        return ImageJob(self.night, name, why, self.at, days_left(self.context, name), needs=("docker",))


class _Store:
    """What moves channels, as the real code asks for it."""

    def __init__(self, registry: Registry, ledger: Any, now: Any) -> None:
        self.registry, self.ledger, self.now = registry, ledger, now
        self.move: Callable[..., str] = registry.move

    def note(self, *_: str) -> None:
        """The audit is not looked at here."""

    def moving(self, *_: str) -> AbstractContextManager[None]:
        """Nothing to wait for: nothing else moves a channel meanwhile."""
        return nullcontext()

    def find(self, *_: str) -> None:
        """Nothing: what is fixed is found without it."""


def _digests(release: Release | None) -> tuple[str, ...]:
    return (release.digest, release.content) if release else ()


def verdict(loop: Loop, now: Any, artifact: Artifact, data: FeedData) -> Verdict:
    """What the gate says of an artifact by some data."""
    scan, ledger = loop.ledger.scanned(artifact.digest, data), loop.ledger
    return judge_image(
        loop.context.policies["default"], artifact.name, (LOOKED,), scan.reports, scan.findings, ledger.waivers, now,
        ledger.bases_of(artifact.digest),
    )  # fmt: skip


def _refusal(found: Verdict) -> GateError:
    return GateError(f"{found.subject} is refused by policy {found.policy}", found.refusals, hint="wait for the fix")


def grave_closed(loop: Loop, pinned: str, newest: str) -> tuple[str, ...]:
    """What a newer upstream image closes, in a version that the archive has: none is taken at its word."""
    had, has = loop.outside.holds.get(pinned), loop.outside.holds[newest]
    if had is None or has != package(has.name, loop.ledger.index.get(has.name, 0)):
        return ()
    data = loop.ledger.data
    closed = {one.id for one in data.advisories.concerning(had) if one.fixed}
    closed -= {one.id for one in data.advisories.concerning(has)}
    return tuple(one for one in closed if data.holes[one].exploited or data.holes[one].severity is Severity.CRITICAL)
