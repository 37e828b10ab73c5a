"""Which images have work tonight, found in one step: the others cost no flow. Edge.

Of those nothing is scanned, but for the `stable` of one that soaks where newer data may tell that it cannot wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import TypeVar

from hardening.findings import Verdict
from hardening.foundation.bulk import no_collection
from hardening.foundation.errors import (
    ContentError,
    GoldsmithError,
    MalformedError,
    OutsideError,
    SilentError,
    as_ours,
)
from hardening.foundation.process import threads
from images.artifact import Artifact, Release
from images.build.flow import PLANNING, brought, unsound_ones
from images.context import Context
from images.model import Bootstrap
from images.plan.build_plan import Action, BuildPlan, order, with_ancestors
from images.plan.planner import Planner
from images.release.flow import blocked
from images.release.publish import ELSEWHERE, LACKING, UNPROVED, stands
from images.release.store import ReleaseStore
from images.release.stores import store_of
from images.scan.judge import KnownJudge, refusal
from pipelines.cli.image import publishable
from pipelines.fleet.model import Fleet
from pipelines.host.capabilities import needs_of
from pipelines.nightly.image_stages import days_left, soaking
from pipelines.nightly.model import (
    DaysLeft,
    ImageAnswer,
    ImageJob,
    NightOrder,
    NightPart,
    NightPlan,
    image_failed,
    stopped_by,
)
from pipelines.promotion import PromotionDecision, earlier_candidates, soak

Answer = TypeVar("Answer")
THOROUGH, TURN = 5, 30  # so many images at least, and all within so many nights, are asked if whole and proved
ASKED = ("thorough", "images")  # where the ledger keeps of each image when that was last asked
LOST = (ELSEWHERE, UNPROVED, LACKING)
ASKED_AT_ONCE = 4
BELIEVED_AFTER = 20  # images in a row that get no answer: then none of the store's is asked any more
NEVER = datetime.min.replace(tzinfo=UTC)
SETTLED, PROMOTES = "it is unchanged", "stable does not name its release"
LIGHT = (PROMOTES,)  # work that changes nothing for what stands on the image


def selected(context: Context, night: NightOrder, urgent: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """The images that a night is about, and of those that do not load the ones that it names.

    Of `urgent` ones, where any are named, only they and what stands on them. What is left out was said at the start.
    """
    names = publishable(context, night.only, quiet=True)
    sound = [name for name in names if name in context.definitions]
    if urgent:
        return [name for name in sound if with_ancestors([name], context.parents) & set(urgent)], []
    return sound, [name for name in names if name in context.unsound]


def may_roll(context: Context, night: NightOrder, fleet: Fleet) -> bool:
    """Whether a night rolls a fleet: a night of all images does, another one if it names what members become."""
    return night.only == "all" or fleet.replacement.definition in selected(context, night)[0]


def bootstraps(context: Context, names: Iterable[str]) -> list[Bootstrap]:
    """The distributions that the images take packages from, each suite once."""
    planner, found = Planner(context), dict[str, Bootstrap]()
    for name in sorted(with_ancestors(names, context.parents)):
        with suppress(GoldsmithError):  # such as an upstream base that is not pinned: the image's own line will say it
            bootstrap = planner.bootstrap(context.definitions[name])
            found[bootstrap.suite] = bootstrap
    return [found[suite] for suite in sorted(found)]


def plan_night(context: Context, night: NightOrder, urgent: Sequence[str] = (), *, keep: bool = True) -> NightPlan:
    """Plan the night. What is wrong with one image is that one's answer. Without `keep` the ledger keeps no verdict."""
    with no_collection(), context.ledger.kept_open():
        return _planned(context, night, urgent, keep=keep)


def _planned(context: Context, night: NightOrder, urgent: Sequence[str], *, keep: bool) -> NightPlan:
    names, unsound = selected(context, night, urgent)
    found = _Planned(context, night, datetime.now(UTC))
    for name in unsound:
        found.settled[name] = image_failed(ImageJob(night, name), context.unsound[name])
    planner = Planner(context)
    for name, outcome in unsound_ones(planner, names).items():
        found.settled[name] = image_failed(found.job(name), outcome.error or ContentError(name))
    for name, stopped in blocked(context, [one for one in names if one not in found.settled]).items():
        found.settled[name] = image_failed(found.job(name), stopped.error or ContentError(name))
    possible = [name for name in names if name not in found.settled]
    wanted = {*with_ancestors(possible, context.parents)} - found.settled.keys()
    ordered = [name for name in order(context.parents) if name in wanted]
    if not keep:
        planner.read_last(ordered)
    _plan_builds(found, planner, ordered, fetches=keep)
    look = _look_at_unchanged(found, planner, ordered)
    if keep:
        context.ledger.record_verdicts(look.verdicts)
        context.ledger.remember(*ASKED, look.asked, context.now)
    return found.as_trees(ordered)


@dataclass
class _Planned:
    """What is known so far: plans of builds, answers of images that are done with, and who has work."""

    context: Context
    night: NightOrder
    at: datetime
    plans: dict[str, BuildPlan] = field(default_factory=dict)
    settled: dict[str, ImageAnswer] = field(default_factory=dict)
    looked: dict[str, ImageAnswer | str] = field(default_factory=dict)

    def job(self, name: str, why: tuple[str, ...] = ()) -> ImageJob:
        needs = needs_of(self.context, name) if name in self.context.definitions else ()
        left = days_left(self.context, name) if name in self._released else None
        return ImageJob(self.night, name, why, self.at, left, needs=needs)

    @cached_property
    def _released(self) -> frozenset[str]:
        return self.context.ledger.released()

    def parent_answer(self, name: str) -> ImageAnswer | None:
        """The answer of the image that this one stands on, where it is done with."""
        return self.settled.get(self.context.parents[name] or "")

    def as_trees(self, ordered: Sequence[str]) -> NightPlan:
        """Settle what needs nothing, and put what has work below what it stands on."""
        jobs = dict[str, tuple[str, ...]]()
        for name in ordered:
            parent, answer = self.context.parents[name] or "", self.parent_answer(name)
            looked = self.looked.get(name)
            if name in self.settled:
                continue
            if answer and answer.ended_badly:
                self.settled[name] = stopped_by(name, answer, days_left(self.context, name))
            elif isinstance(looked, ImageAnswer) and jobs.get(parent, LIGHT) == LIGHT:
                self.settled[name] = looked
            elif isinstance(looked, str) and (looked != PROMOTES or jobs.get(parent, LIGHT) == LIGHT):
                jobs[name] = (looked,)
            else:
                jobs[name] = self._why(name, parent)
        return NightPlan(tuple(self.settled.values()), self._trees(jobs))

    def _why(self, name: str, parent: str) -> tuple[str, ...]:
        plan = self.plans[name]
        return plan.why if plan.action is Action.BUILD else (f"its base {parent} has work",)

    def _trees(self, jobs: dict[str, tuple[str, ...]]) -> tuple[ImageJob, ...]:
        below: dict[str, list[ImageJob]] = {}
        for name in reversed(jobs):
            parent = self.context.parents[name] or ""
            tree = replace(self.job(name, jobs[name]), children=tuple(reversed(below.get(name, []))))
            below.setdefault(parent if parent in jobs else "", []).append(tree)
        return tuple(reversed(below.get("", [])))


def _plan_builds(found: _Planned, planner: Planner, ordered: Sequence[str], *, fetches: bool) -> None:
    """Plan the builds, as far as what they stand on could be planned. `fetches` what other machines have built."""
    for name in ordered:
        if (answer := found.parent_answer(name)) and answer.ended_badly:
            found.settled[name] = stopped_by(name, answer, days_left(found.context, name))
            continue
        try:
            with PLANNING:
                found.plans[name] = planner.plan(name)
            if fetches and brought(found.context, planner.upstream, found.plans[name]):
                with PLANNING:
                    found.plans[name] = planner.plan(name)
        except Exception as error:
            found.settled[name] = image_failed(found.job(name), as_ours(name, error))


def _look_at_unchanged(found: _Planned, planner: Planner, ordered: Sequence[str]) -> _Look:
    """Look whether the releases of what is not to be built stand as they should, several at once.

    A store to which there is no connection is asked once: each of its images then has that answer. Where a thorough
    look finds that something was lost, such as with a registry that was restored from a backup, all are
    looked at so.
    """
    same = [name for name in ordered if name in found.plans and found.plans[name].action is not Action.BUILD]
    look, asked = _Look(found, planner), {one.version: one.last for one in found.context.ledger.sights(*ASKED).seen}
    thorough = set(longest_ago(same, asked))
    _look_at(found, look, same, thorough)
    if any(found.looked[name] in LOST for name in thorough):
        _look_at(found, look, [name for name in same if name not in thorough], set(same))
    return look


def _look_at(found: _Planned, look: _Look, names: Sequence[str], thorough: set[str]) -> None:
    with threads(ASKED_AT_ONCE) as pool:
        answers = pool.map(lambda name: look.at(name, thorough=name in thorough), names)
        found.looked |= dict(zip(names, answers, strict=True))


def longest_ago(names: Sequence[str], asked: Mapping[str, datetime]) -> list[str]:
    """The images to ask thoroughly tonight: those that never were, then those for whom that is the longest ago."""
    return sorted(names, key=lambda name: asked.get(name, NEVER))[: max(THOROUGH, -(-len(names) // TURN))]


class _Look:
    """Looks at images for which nothing has to be built."""

    def __init__(self, found: _Planned, planner: Planner) -> None:
        self._found = found
        self._judge = KnownJudge(found.context, planner)
        self._policy = cache(found.context.policy_named)
        self._silent: dict[str, OutsideError] = {}
        self._failed = Counter[str]()
        self.verdicts: list[tuple[str, Verdict]] = []
        self.asked = set[str]()

    def at(self, name: str, *, thorough: bool) -> ImageAnswer | str:
        """What became of an image for which there is nothing to do; else why there is something."""
        context, artifact = self._found.context, self._found.plans[name].artifact
        if thorough:
            self.asked.add(name)
        if artifact is None:
            return "its content is not here"
        try:
            return self._standing(context, name, artifact, thorough=thorough)
        except OutsideError as error:
            if isinstance(error, SilentError) or error in self._silent.values():
                self.asked.discard(name)  # it was not
            return image_failed(self._found.job(name), error)
        except GoldsmithError as error:  # its own stages will meet it again, and tell
            return error.message
        except Exception as error:  # a slip of ours over one image must not end the night of all
            return as_ours(name, error).message

    def _standing(self, context: Context, name: str, artifact: Artifact, *, thorough: bool) -> ImageAnswer | str:
        policy = self._policy(context.policy_of(name))
        judgement = self._judge.judge(artifact, policy)
        if judgement is None:
            return "newer data, or a changed control: it is judged again"
        self.verdicts.append((artifact.digest, judgement.verdict))
        if not judgement.verdict.allowed:
            return image_failed(self._found.job(name), refusal(judgement), content=artifact.digest)
        definition, to = context.definitions[name].definition, store_of(context, name)
        pointed = dict[str, tuple[str, ...]]()

        def ask() -> Release | str:
            channels = ("candidate", "stable") if definition.promote == "auto" else ("candidate",)
            pointed.update(to.pointing(to.repository(name), channels))
            known = pointed["candidate"]
            return stands(to, artifact, definition, policy.name, thorough=thorough, candidate=known)

        standing = self._ask(to, ask)
        if isinstance(standing, str):
            return standing
        return self._promoted(context, to, artifact, standing, pointed.get("stable", ()))

    def _promoted(
        self, context: Context, to: ReleaseStore, artifact: Artifact, release: Release, stable: Sequence[str]
    ) -> ImageAnswer | str:
        """The answer of an image whose release stands, unless its own stages have to promote it."""
        name = artifact.name
        settled = ImageAnswer(
            name, "unchanged", content=artifact.digest, expires_at=release.expires_at, reasons=(SETTLED,)
        )
        if context.definitions[name].definition.promote != "auto":
            return replace(settled, left=days_left(context, name))
        if release.digest in stable[:1]:
            return replace(settled, left=DaysLeft.of(release, context.now))
        if waits := _waits(context, to, name, release, stable):
            return replace(settled, left=days_left(context, name), parts=(waits,))
        return PROMOTES

    def _ask(self, to: ReleaseStore, ask: Callable[[], Answer]) -> Answer:
        if to.place in self._silent:
            raise self._silent[to.place]
        try:
            answer = ask()
        except OutsideError as error:  # it may be about this image alone
            self._failed[to.place] += not isinstance(error, MalformedError)  # which is an answer
            if isinstance(error, SilentError) or self._failed[to.place] >= BELIEVED_AFTER:
                self._silent.setdefault(to.place, error)
            raise
        self._failed[to.place] = 0
        return answer


def _waits(context: Context, to: ReleaseStore, name: str, release: Release, stable: Sequence[str]) -> NightPart | None:
    """The line of a candidate that soaks; None where its own stages have to look, as for an earlier one."""
    with suppress(GoldsmithError):  # they will meet it again
        decided = soak(context, to, name, release, stable)
        if isinstance(decided, PromotionDecision) and decided.waits:
            return None if earlier_candidates(context, to, release, stable) else soaking(name, decided)
    return None
