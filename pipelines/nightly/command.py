"""The command `nightly`: begins a night, or shows stage by stage what one would do, which changes nothing. Edge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from functools import partial

from hardening.foundation.bulk import no_collection
from hardening.foundation.console import out, print_json, print_table, say
from hardening.foundation.errors import GoldsmithError, OutsideError, RefusedError
from hardening.foundation.process import ROLLS, interruptible
from hardening.foundation.settings import load_settings
from images.context import Context
from images.documents import to_json
from images.plan.locking import nightly_upstreams
from pipelines.cli.image import publishable
from pipelines.cli.image_output import finish
from pipelines.contract import NightlyLine, NightlyOutput
from pipelines.nightly.model import (
    ENDED_BADLY,
    Failure,
    FeedNews,
    ImageJob,
    NightOrder,
    NightPart,
    NightRecord,
    ended_with,
)
from pipelines.nightly.planning import bootstraps, plan_night, selected
from pipelines.nightly.preflight import require_ready
from pipelines.nightly.stages import WorldStages, ending, here, looked_at, over, with_failure
from pipelines.nightly.summary import nothing_urgent, output, shortly
from pipelines.promotion import earlier, earlier_text, promotion
from pipelines.rollout.notify import Message, tell, unreachable, unreadable
from pipelines.rollout.state import Event
from pipelines.wiring import image_context

Failures = list[GoldsmithError]
PLANNED, WOULD = "planned", "would be asked"


@interruptible(ROLLS)
def run_nightly(
    policy: str = "", only: str = "all", *, urgent: bool = False, dry: bool = False
) -> tuple[NightlyOutput, Failures]:
    """Run the night with the settings of this machine, or show what it would do.

    `policy` judges in the place of the definitions' own; without it the one that `[nightly]` names, if any.
    Raises, before anything is done, as `require_ready` does.
    """
    settings = load_settings()
    for wrong in (*unreachable(settings.notify), *unreadable(settings)):
        say(f"messages about this night cannot all be sent: {wrong}")
    context = replace(image_context(settings), policy=policy or settings.nightly.policy)
    if dry:
        return dry_run(context, only, urgent=urgent)
    from pipelines.nightly.night_run import nightly  # only here: its engine takes a third of a second to load

    try:
        return nightly(context, only, urgent=urgent)
    except GoldsmithError as error:
        if only == "all" and not urgent:
            _tell_of_no_end(context, error)
        raise


def show_nightly(result: tuple[NightlyOutput, Failures], *, as_json: bool) -> int:
    """Print a summary line for each image and fleet; the exit code says who must act."""
    night, failures = result
    if as_json:
        print_json(to_json(night))
    else:
        rows = [[line.kind, line.name, line.status, line.detail.splitlines()] for line in night.lines]
        print_table(["what", "name", "outcome", "detail"], rows)
        report = f"\nreport: {night.report}" if night.report else ""
        by = f"\njudged by the policy {night.policy} instead of the definitions' own" if night.policy else ""
        out().print(f"\n{night.summary}{by}{report}", soft_wrap=True)
    return finish(failures)


@no_collection()
def dry_run(context: Context, only: str = "all", *, urgent: bool = False) -> tuple[NightlyOutput, Failures]:
    """Show what `nightly` would do now. Failures that are known already are those that it would meet.

    Raises as `require_ready` does, and ContentError where `only` names nothing.
    """
    context = replace(context, lenient=True)
    require_ready(context)
    publishable(context, only)
    order = NightOrder("", context.now, only, context.policy, urgent)
    stages = WorldStages(context)
    before = [*_left(context), *_asked(context, order)]
    found = stages.urgent(order) if urgent else FeedNews()
    before += [found.part] if urgent else []
    record = NightRecord(order, tuple(before), (), (), context.now, nothing_urgent=urgent and not found.urgent)
    if not record.nothing_urgent:
        record = _planned(context, record, found.urgent)
    night = output(record)
    counts = Counter(line.status for line in night.lines if line.kind == "image")
    badly = [f"{counts[status]} {status}" for status in ENDED_BADLY if counts[status]]
    said = ", ".join([f"{counts[PLANNED]} image(s) have work", *badly])
    said = nothing_urgent(record) if record.nothing_urgent else said
    if rest := night.summary.partition("; ")[2]:
        said = f"{said}; {rest}"
    return night.model_copy(update={"summary": f"nothing was done; {said}", "dry_run": True}), list(record.errors)


def _planned(context: Context, record: NightRecord, urgent: Sequence[str]) -> NightRecord:
    order = record.order
    try:
        plan = plan_night(context, order, urgent, keep=False)
    except GoldsmithError as error:
        return replace(record, after=(ended_with("image", "all", error),))
    released = context.ledger.released()
    jobs = [line for tree in plan.trees for line in _of_tree(context, tree, released)]
    concerned = {*urgent, *(line.name for line in jobs)} if order.urgent else set[str]()
    after = [
        NightPart(tuple(jobs)),
        _prune(context),
        *_fleets(context, order, concerned),
        ending(context),
        *_told(context),
    ]
    return replace(record, images=plan.settled, after=tuple(after))


def _line(kind: str, name: str, status: str, detail: str) -> NightlyLine:
    return NightlyLine(kind=kind, name=name, status=status, detail=detail, seconds=0.0)


def _left(context: Context) -> Iterator[NightPart]:
    for night in context.ledger.open_nights(here(context)):
        yield NightPart((_line("night", night.id, PLANNED, f"of {night.begun_at:%Y-%m-%d %H:%M} UTC: it is not over"),))


def _asked(context: Context, order: NightOrder) -> Iterator[NightPart]:
    """What mirror and feeds would be asked."""
    feeds = context.settings.feeds.model_dump()
    told = "; ".join(f"{name}: {place}" for name, place in sorted(feeds.items()) if place)
    for bootstrap in bootstraps(context, selected(context, order)[0]):
        mirror = context.settings.packages.mirror or "the mirror of this host's apt"
        yield NightPart((_line("index", bootstrap.suite, WOULD, f"{mirror}: its package index"),))
        yield NightPart((_line("feeds", bootstrap.suite, WOULD, told),))
    for reference in nightly_upstreams(context):
        yield NightPart((_line("lock", reference, WOULD, "what the tag names, and since when it has been seen"),))


def _of_tree(context: Context, job: ImageJob, released: Set[str]) -> Iterator[NightlyLine]:
    """The lines of an image that has work, and of those on it; what its build brings in is not known before it."""
    yield _line("image", job.name, PLANNED, shortly(job.why))
    if context.definitions[job.name].definition.promote == "auto" and job.name in released:
        try:
            yield from _channel(context, job.name)
        except GoldsmithError as error:
            yield _as_now(job.name, error)
    for child in job.children:
        yield from _of_tree(context, child, released)


def _channel(context: Context, name: str) -> Iterator[NightlyLine]:
    try:
        decided = promotion(context, name)
        yield _line("channel", name, "soaks" if decided.waits else PLANNED, decided.why or "stable moves to candidate")
        if not decided.waits:
            return
    except RefusedError as error:
        yield _as_now(name, error)
    for release in earlier(context, name)[:1]:
        yield _line("channel", name, PLANNED, f"stable moves {earlier_text(context, release)}")


def _as_now(name: str, error: GoldsmithError) -> NightlyLine:
    """The line of a channel by its candidate of today: tonight's may be another, so no action is needed yet."""
    return _line("channel", name, Failure.of(error).action, error.message)


def _prune(context: Context) -> NightPart:
    due = [f"{one.subject.name} {one.subject.digest[:19]}: {one.why}" for one in over(context)]
    kept = "" if context.settings.nightly.prune else "; a night only names them ([nightly] prune)"
    return NightPart((_line("prune", "releases", PLANNED if not kept else "due", shortly(due) + kept),) if due else ())


def _fleets(context: Context, order: NightOrder, images: set[str]) -> Iterator[NightPart]:
    for name in WorldStages(context).fleets(order, tuple(images)):
        yield with_failure("fleet", name, partial(looked_at, context, order, name))


def _told(context: Context) -> Iterator[NightPart]:
    notify = context.settings.notify
    targets = [*(["its program"] if notify.command else []), *(["its webhook"] if notify.webhook_file else [])]
    yield NightPart((_line("report", "html", PLANNED, f"in {context.settings.state_dir / 'reports'}"),))
    if wrong := "; ".join(unreachable(notify)):
        yield ended_with("notify", "summary", OutsideError(wrong))
    elif targets:
        yield NightPart((_line("notify", "summary", PLANNED, " and ".join(targets)),))
    if channels := ", ".join(sorted(context.settings.digest.channels)):
        told = f"to {channels}: ./goldsmith digest --dry-run shows what"
        yield NightPart((_line("digest", "channels", PLANNED, told),))


def _tell_of_no_end(context: Context, error: GoldsmithError) -> None:
    """Tell people of a whole night that could not begin, or broke off: else they would have to miss its message."""
    text = f"the night of {context.now:%Y-%m-%d %H:%M} UTC did not finish: {error.message}"
    message = Message(Event.NIGHT, "", "", f"{text}; exit code {error.exit_code}", context.now)
    for failed in tell(context.settings, message)[1]:
        say(f"not every message was sent: {failed.message}")
