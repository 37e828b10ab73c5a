"""The flow of a night: what is newer, the images that have work, pruning, the fleets, the report, messages. Pure.

Each image that has work is a flow of its own. Its argument and answer are data: any worker that has its needs runs it.
An image's flow begins when that of the image it stands on has ended well; its id is `<night>/image/<name>`. So has each
fleet one, side by side with the others: one that bakes, or waits for its window, does not hold up the patch of another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from hardening.foundation.errors import GoldsmithError, UsageError
from images.documents import from_json, to_json
from pipelines.durable.port import BugError, Child, Flow, Json, WorkflowEngine
from pipelines.nightly.model import (
    BRANCH,
    FLEET,
    IMAGE,
    NIGHT,
    FeedNews,
    FleetJob,
    ImageAnswer,
    ImageJob,
    NightOrder,
    NightPart,
    NightPlan,
    NightRecord,
    ended_with,
    image_failed,
    stopped,
)
from pipelines.nightly.port import NightStages

Answer = TypeVar("Answer")
Images = tuple[ImageAnswer, ...]


def flows(stages: NightStages) -> Mapping[str, Flow]:
    """The flows of nights by name, for a process that acts through `stages`."""
    return {
        NIGHT: _flow(NightOrder, partial(run_night, stages)),
        BRANCH: _flow(ImageJob, partial(run_branch, stages)),
        IMAGE: _flow(ImageJob, partial(run_image, stages)),
        FLEET: _flow(FleetJob, partial(run_fleet, stages)),
    }


def _flow(kind: type[Any], run: Callable[[WorkflowEngine, Any], Awaitable[object]]) -> Flow:
    """`run` as the workflow engine executes it: the engine records JSON, and flows take and return values."""

    async def flow(engine: WorkflowEngine, argument: Json) -> Json:
        return to_json(await run(engine, from_json(kind, argument)))

    return flow


@dataclass(frozen=True)
class Steps:
    """The steps of one flow: each is recorded under its name, with its answer as data."""

    engine: WorkflowEngine

    async def ask(self, name: str, kind: type[Answer], act: Callable[[], Answer]) -> Answer:
        """What `act` answers, or answered when this step was done."""
        return from_json(kind, await self.engine.step(name, lambda: to_json(act())))

    async def part(self, kind: str, name: str, act: Callable[[], NightPart]) -> NightPart:
        """One part of the night. Its failure is a line of it, and the night goes on."""
        try:
            return await self.ask(f"{kind} {name}", NightPart, act)
        except GoldsmithError as error:
            return ended_with(kind, name, error)


async def run_night(stages: NightStages, engine: WorkflowEngine, order: NightOrder) -> NightRecord:
    """Run one night to its end. What fails stops what stands on it, and nothing else."""
    steps = Steps(engine)
    suites = await steps.ask("suites", tuple[str, ...], lambda: stages.suites(order))
    before = [*order.warnings, *await _feeds(stages, steps, order, suites)]
    found = await _urgent(stages, steps, order) if order.urgent else FeedNews()
    before += [found.part] if order.urgent else []
    record = NightRecord(order, tuple(before), (), (), order.started_at)
    if order.urgent and not found.urgent:
        return replace(record, nothing_urgent=True, ended_at=await engine.now())
    indexes = [await steps.part("index", suite, partial(stages.index, order, suite)) for suite in suites]
    record = replace(record, before=(*indexes, *before))
    urgent = await _untried(stages, steps, order, found) if order.urgent else ()
    if order.urgent and not urgent:
        return replace(record, nothing_urgent=True, in_vain=True, ended_at=await engine.now())
    signed = await steps.part("channel", "all", lambda: stages.channels(order))
    record = replace(record, before=(*record.before, *await _locks(stages, steps, order), signed))
    images, failed = await _images(stages, steps, order, urgent)
    after = [*failed, await steps.part("prune", "releases", lambda: stages.prune(order))]
    after += await _fleets(stages, steps, order, images)
    after.append(await steps.part("waiver", "all", lambda: stages.waivers(order)))
    record = replace(record, images=images, after=tuple(after), ended_at=await engine.now())
    if order.urgent and record.idle and not await _worth_telling(stages, steps, record, found):
        return record
    return await _told(stages, steps, record)


async def _feeds(stages: NightStages, steps: Steps, order: NightOrder, suites: tuple[str, ...]) -> list[NightPart]:
    """Ask the feeds, before the mirror: where nothing is urgent, a night that is only for that ends here."""
    parts = [await steps.part("feeds", suite, partial(stages.feeds, order, suite)) for suite in suites]
    if suites:
        parts.append(await steps.part("feeds", "changes", lambda: stages.feed_changes(order)))
    return parts


async def _locks(stages: NightStages, steps: Steps, order: NightOrder) -> list[NightPart]:
    """Ask for upstream images, and move their pins, before the images on them are planned."""
    upstreams = await steps.ask("upstreams", tuple[str, ...], lambda: stages.upstreams(order))
    return [await steps.part("lock", reference, partial(stages.lock, order, reference)) for reference in upstreams]


async def _urgent(stages: NightStages, steps: Steps, order: NightOrder) -> FeedNews:
    try:
        return await steps.ask("urgent", FeedNews, lambda: stages.urgent(order))
    except GoldsmithError as error:
        return FeedNews(ended_with("feeds", "urgent", error))


async def _untried(stages: NightStages, steps: Steps, order: NightOrder, found: FeedNews) -> tuple[str, ...]:
    try:
        return await steps.ask("untried", tuple[str, ...], lambda: stages.untried(order, found))
    except GoldsmithError:  # such as without any index: the images' own lines will say it
        return found.urgent


async def _worth_telling(stages: NightStages, steps: Steps, record: NightRecord, found: FeedNews) -> bool:
    try:
        return await steps.ask("in vain", bool, lambda: stages.in_vain(record, found))
    except GoldsmithError:
        return bool(record.errors)


async def _images(
    stages: NightStages, steps: Steps, order: NightOrder, urgent: tuple[str, ...]
) -> tuple[Images, list[NightPart]]:
    """Bring every image that has work to its channels; and the part that says why there was no plan."""
    try:
        plan = await steps.ask("plan", NightPlan, lambda: stages.plan(order, urgent))
    except GoldsmithError as error:
        return (), [ended_with("image", "all", error)]
    return (*plan.settled, *await _trees(steps.engine, plan.trees)), []


async def _fleets(stages: NightStages, steps: Steps, order: NightOrder, images: Images) -> list[NightPart]:
    """Bring the fleets into policy; of an urgent night those alone that become one of its images."""
    concerned = tuple(image.name for image in images) if order.urgent else ()
    if order.urgent and not concerned:
        return []
    try:
        names = await steps.ask("fleets", tuple[str, ...], lambda: stages.fleets(order, concerned))
    except GoldsmithError as error:  # such as a file that was changed while the night ran
        return [ended_with("fleet", "all", error)]
    started = [(name, await _fleet_started(stages, steps, order, name)) for name in names]
    return [await _fleet_ended(name, child) for name, child in started]


async def _fleet_started(stages: NightStages, steps: Steps, order: NightOrder, name: str) -> Child | NightPart:
    try:
        needs = await steps.ask(f"needs {name}", tuple[str, ...], partial(stages.fleet_needs, order, name))
    except GoldsmithError as error:
        return ended_with("fleet", name, error)
    job = FleetJob(order, name)
    return await steps.engine.child(f"{FLEET}/{name}", FLEET, to_json(job), of=order.id, needs=needs)


async def _fleet_ended(name: str, child: Child | NightPart) -> NightPart:
    if isinstance(child, NightPart):
        return child
    try:
        return from_json(NightPart, await _result(name, child))
    except GoldsmithError as error:  # it was given up: the fleet's own failure is in its answer
        return ended_with("fleet", name, error)


async def _result(name: str, child: Child) -> Json:
    """What the flow of an image or a fleet answered. Raises a GoldsmithError for a bug, too: it must not end others."""
    try:
        return await child.result()
    except BugError as error:
        raise UsageError(f"{name}: {error}") from error


async def run_fleet(stages: NightStages, engine: WorkflowEngine, job: FleetJob) -> NightPart:
    """Bring one fleet into policy, as its file allows."""
    return await Steps(engine).part("fleet", job.name, partial(stages.fleet, job.night, job.name))


async def run_branch(stages: NightStages, engine: WorkflowEngine, job: ImageJob) -> Images:  # noqa: ARG001
    """Run an image, and once it has ended well, those that stand on it, side by side."""
    (answer,) = await _trees(engine, [replace(job, children=())])
    if answer.ended_badly:
        return (answer, *stopped(job.children, answer))
    return (answer, *await _trees(engine, job.children))


async def _trees(engine: WorkflowEngine, jobs: Iterable[ImageJob]) -> Images:
    """Start the images side by side, each with what stands on it, and await them all."""
    started = [(job, await _started(engine, job)) for job in jobs]
    return tuple([answer for job, child in started for answer in await _ended(job, child)])


async def _started(engine: WorkflowEngine, job: ImageJob) -> Child:
    flow, needs = (BRANCH, ()) if job.children else (IMAGE, job.needs)
    return await engine.child(f"{flow}/{job.name}", flow, to_json(job), of=job.night.id, needs=needs)


async def _ended(job: ImageJob, child: Child) -> Images:
    """What became of an image and of those on it. A flow that was given up must not end others."""
    try:
        found = await _result(job.name, child)
        return from_json(Images, found) if job.children else (from_json(ImageAnswer, found),)
    except GoldsmithError as error:
        failed = image_failed(job, error)
        return (failed, *stopped(job.children, failed))


async def run_image(stages: NightStages, engine: WorkflowEngine, job: ImageJob) -> ImageAnswer:
    """Build, judge, publish and promote one image."""
    steps = Steps(engine)
    try:
        answer = await steps.ask(f"build {job.name}", ImageAnswer, lambda: stages.build(job))
        for name, act in (("judge", stages.judge), ("publish", stages.publish)):
            if answer.ended_badly:
                break
            answer = await steps.ask(f"{name} {job.name}", ImageAnswer, partial(act, job, answer))
    except GoldsmithError as error:
        return image_failed(job, error)
    try:
        return await steps.ask(f"promote {job.name}", ImageAnswer, lambda: stages.promote(job, answer))
    except GoldsmithError as error:
        return replace(answer, parts=(*answer.parts, ended_with("channel", job.name, error)))


async def _told(stages: NightStages, steps: Steps, record: NightRecord) -> NightRecord:
    """Write the report, and tell people: at least once, since a program or webhook cannot be asked what it got.

    The digests of the whole night come last: they tell what is open after it.
    """
    report = await steps.part("report", "", lambda: stages.report(record))
    record = replace(record, report=report.detail, after=(*record.after, *([report] if report.failure else ())))
    told = await steps.part("notify", "", lambda: stages.notify(record))
    record = replace(record, after=(*record.after, *([told] if told.failure else ())))
    if record.order.urgent:
        return record
    digest = await steps.part("digest", "channels", lambda: stages.digest(record.order))
    return replace(record, after=(*record.after, *([digest] if digest.lines else ())))
