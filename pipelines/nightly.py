"""The night: refresh, rebuild, judge, publish, promote, check the fleets, roll what may be rolled, report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from hardening.catalog import load_policies, load_waivers
from hardening.findings import Verdict
from hardening.foundation.console import out, print_json, print_table, say
from hardening.foundation.errors import ContentError, GoldsmithError, RefusedError
from hardening.foundation.locks import only_one
from hardening.foundation.text import one_line
from hardening.gate import GateError, by_remedy, explain_shared, shared
from hardening.waivers import ending_soon
from images import feeds
from images.artifact import Release
from images.build.flow import BuildOutcome
from images.context import Context
from images.documents import to_json
from images.feeds.indexed import CHECK_AFTER
from images.model import Bootstrap
from images.plan.build_plan import Action, with_ancestors
from images.plan.planner import Planner
from images.release.flow import ReleaseOutcome, gate, release_all
from pipelines.cli.feeds import changes_told, update_feeds
from pipelines.cli.image import promote_one, publishable
from pipelines.cli.image_output import ended_by, finish
from pipelines.cli.report import write_report
from pipelines.cli.waiving import ending_text
from pipelines.contract import NightlyLine, NightlyOutput
from pipelines.fleet.catalog import load_fleets
from pipelines.promotion import promotion
from pipelines.rollout.service import automated
from pipelines.rollout.session import fleet_session
from pipelines.wiring import image_context

Failures = list[GoldsmithError]
CHANGES = 3  # named in a summary line; image.why names them all


@dataclass(frozen=True)
class NightResult:
    """What came of one part of the night: its line, what went wrong, and the image that was released or promoted."""

    line: NightlyLine | None = None
    error: GoldsmithError | None = None
    released: ReleaseOutcome | None = None
    promoted: str = ""


def nightly(context: Context, only: str = "all") -> tuple[NightlyOutput, Failures]:
    """Run the night, as a recipe; what fails stops what stands on it and nothing else.

    `only` restricts it to some images, and whatever they stand on; every fleet is checked in any case.
    The exit code is the highest of all failures: 2 content wrong, 3 refused by a policy, 4 the outside failed.
    Raises ContentError, before anything is done, when waivers, policies or fleets cannot be read or `only` names
    nothing; RefusedError when another night is under way on this machine.
    """
    context = replace(context, lenient=True)
    with only_one(context.settings.state_dir / "locks" / "nightly.lock", "nightly"):
        began = time.monotonic()
        selected, known = publishable(context, only), _rules(context)
        names = [name for name in selected if name in context.definitions]
        unsound = [_unsound(name, context.unsound[name]) for name in selected if name in context.unsound]
        parts = [*refresh(context, names), *publish(context, names, unsound), *fleets(context, known), *ending(context)]
        lines = [part.line for part in parts if part.line]
        failures = refused_together(dict.fromkeys(part.error for part in parts if part.error), context.parents)
        released = [part.released for part in parts if part.released]
        ended = context.now + timedelta(seconds=time.monotonic() - began)
        built = tuple(outcome.name for outcome in released if outcome.built.action is Action.BUILT)
        published = tuple(outcome.name for outcome in released if outcome.action in ("published", "re-dated"))
        promoted = tuple(part.promoted for part in parts if part.promoted)
        night = NightlyOutput(
            started_at=context.now, ended_at=ended, built=built, published=published, promoted=promoted,
            lines=tuple(lines), summary=summary(released, lines),
            exit_code=max((error.exit_code for error in failures), default=0), report="",
        )  # fmt: skip
        context.ledger.audit(ended, context.actor, "nightly", only, f"exit code {night.exit_code}: {night.summary}")
        path = write_report(context, night)
    return night.model_copy(update={"report": str(path)}), failures


def refused_together(failures: Iterable[GoldsmithError], parents: Mapping[str, str | None]) -> Failures:
    """The failures, with the images that the gate refused as one: what many have from one base is told once. Pure."""
    found = list(failures)
    gates = [error for error in found if isinstance(error, GateError)]
    if len(gates) == 1 or not gates:
        return found
    reasons = explain_shared(shared((reason for error in gates for reason in error.reasons), parents))
    told = "\n".join([*(error.message for error in gates), reasons])
    together = RefusedError(f"{len(gates)} images are refused by their policies", evidence=told, hint=gates[0].hint)
    return [together, *(error for error in found if error not in gates)]


def _rules(context: Context) -> list[str]:
    """The fleets' names, once all that judges images and fleets has proven readable: none of it may be left out."""
    roots = context.settings.roots
    load_policies(roots)
    load_waivers(roots)
    return sorted(load_fleets(roots))


def _unsound(name: str, error: ContentError) -> ReleaseOutcome:
    """What became of a definition that does not load, or that stands on such a one."""
    built = BuildOutcome(name, Action.FAILED, reasons=(error.message,), error=error)
    return ReleaseOutcome(name, "failed", built, reasons=built.reasons, error=error)


def summary(released: Iterable[ReleaseOutcome], lines: Sequence[NightlyLine]) -> str:
    """The night in one sentence. Pure."""
    images = list(released)
    counts = Counter(outcome.action for outcome in images)
    counts["built"] = sum(outcome.built.action is Action.BUILT for outcome in images)

    def told(*actions: str) -> list[str]:
        return [f"{counts[action]} {action}" for action in actions if counts[action]]

    done = told("built", "published", "re-dated") or ["nothing built, nothing published"]
    fleets = [f"{line.name} {line.status}" for line in lines if line.kind == "fleet"]
    left = told("unchanged", "refused", "failed")
    soaking = [line.name for line in lines if (line.kind, line.status) == ("channel", "soaks")]
    soak = f"; soaking: {', '.join(soaking)}" if soaking else ""
    soon = [line.name for line in lines if (line.kind, line.status) == ("waiver", "ends")]
    ends = f"; waivers that end: {', '.join(soon)}" if soon else ""
    return f"{', '.join([*done, *left])}; fleets: {', '.join(fleets) or 'none'}{soak}{ends}"


def refresh(context: Context, names: Iterable[str]) -> Iterator[NightResult]:
    """Ask the mirror for its package index and the feeds for their data, and tell what newer data changes.

    A last good copy serves where one fails.
    """
    asked = _bootstraps(context, names)
    for bootstrap in asked:
        yield _part("index", bootstrap.suite, partial(_index, context, bootstrap))
        yield _part("feeds", bootstrap.suite, partial(_feeds, context, bootstrap))
    if asked:
        yield _part("feeds", "changes", partial(_feed_changes, context))


def _bootstraps(context: Context, names: Iterable[str]) -> list[Bootstrap]:
    """The distributions that the images take packages from, each suite once."""
    planner, found = Planner(context), dict[str, Bootstrap]()
    for name in sorted(with_ancestors(names, context.parents)):
        with suppress(GoldsmithError):  # such as an upstream base that is not pinned: the image's own line will say it
            bootstrap = planner.bootstrap(context.definitions[name])
            found[bootstrap.suite] = bootstrap
    return [found[suite] for suite in sorted(found)]


def _index(context: Context, bootstrap: Bootstrap) -> tuple[str, str]:
    before = context.index.state(bootstrap)
    context.index.refresh(bootstrap)
    changed = context.index.state(bootstrap) != before
    return ("refreshed", "packages changed") if changed else ("unchanged", "no package changed")


def _feeds(context: Context, bootstrap: Bootstrap) -> tuple[str, str]:
    data, missing = feeds.refresh(context.settings, bootstrap.suite, context.now)
    texts = [f"{name}: {feed.source}{f' ({feed.note})' if feed.note else ''}" for name, feed in sorted(data.items())]
    return "refreshed", "; ".join([*texts, *(f"{name}: none, {why}" for name, why in sorted(missing.items()))])


def _feed_changes(context: Context) -> tuple[str, str]:
    """What newer data changes. It is told once, so at once: a night may be killed before its report."""
    status, detail = changes_told(update_feeds(context, CHECK_AFTER))
    if status == "changed":
        say(detail)
    return status, detail


def publish(context: Context, names: Iterable[str], unsound: Iterable[ReleaseOutcome] = ()) -> Iterator[NightResult]:
    """Build, judge and publish the images, and move `stable` where the definition lets the night do so.

    What is unsound has its line too. Where nothing could be built, such as without an engine, the night goes on.
    """
    released = list(unsound)
    try:
        released += release_all(context, names)
    except GoldsmithError as error:
        yield _failed("image", "all", error)
    for outcome in released:
        yield NightResult(_told(_image_line(outcome)), outcome.error, outcome)
        if outcome.error is None and context.definitions[outcome.name].definition.promote == "auto":
            yield _promoted(context, outcome)


def _image_line(outcome: ReleaseOutcome) -> NightlyLine:
    """What became of one image: whether it was built and why, and how long its release is good for."""
    seconds = round(outcome.built.seconds + outcome.seconds, 1)
    line = partial(NightlyLine, kind="image", name=outcome.name, status=outcome.action, seconds=seconds)
    if outcome.error:
        return line(detail=_shortly(_why(outcome)))
    was = outcome.built.action is Action.BUILT
    until = f"expires {outcome.expires_at:%Y-%m-%d}"
    return line(detail=f"built: {_shortly(outcome.reasons)}; {until}" if was else f"not built; {until}")


def _why(outcome: ReleaseOutcome) -> Sequence[str]:
    """Why an image was not released: of the gate's reasons, which are explained elsewhere, what each is about."""
    if isinstance(outcome.error, GateError) and not outcome.stopped_by:
        return [one_line(reasons[0].what) for reasons in by_remedy(outcome.error.reasons)]
    return outcome.reasons


def _shortly(reasons: Sequence[str]) -> str:
    """The first reasons, and how many more there are."""
    more = f" and {len(reasons) - CHANGES} more" if reasons[CHANGES:] else ""
    return "; ".join(reasons[:CHANGES]) + more


def _promoted(context: Context, outcome: ReleaseOutcome) -> NightResult:
    """Move `stable` to what has soaked. A line where it waits or did not: else the image's own has told it all."""
    try:
        decided = promotion(context, outcome.name)
        if decided.waits:
            return NightResult(_told(_channel_line(outcome.name, "soaks", decided.why)))
        move = promote_one(context, outcome.name, partial(_of_tonight, context, outcome))
    except GoldsmithError as error:
        return _failed("channel", outcome.name, error)
    if move.before == move.after:
        return NightResult()
    line = _told(_channel_line(outcome.name, "promoted", decided.why)) if decided.why else None
    return NightResult(line, promoted=outcome.name)


def _channel_line(name: str, status: str, detail: str) -> NightlyLine:
    return NightlyLine(kind="channel", name=name, status=status, detail=detail, seconds=0.0)


def _of_tonight(context: Context, outcome: ReleaseOutcome, release: Release) -> Verdict:
    """The gate's answer over the release's content: tonight's own, where that is what was judged."""
    if outcome.verdict and outcome.content == release.content:
        return outcome.verdict
    return gate(context, context.policy_of(outcome.name))(release)


def fleets(context: Context, names: Iterable[str]) -> Iterator[NightResult]:
    """Check every fleet, and roll those whose files say that an automated run may."""
    for name in names:
        yield _part("fleet", name, partial(_fleet, context, name))


def _fleet(context: Context, name: str) -> tuple[str, str]:
    with fleet_session(name, context, now=lambda: context.now) as at:
        line = automated(at, apply=True)
        return line.outcome, line.detail


def ending(context: Context) -> Iterator[NightResult]:
    """Announce the waivers that end within 14 days."""
    for waiver in ending_soon(load_waivers(context.settings.roots), context.now.date()):
        line = NightlyLine(kind="waiver", name=waiver.id, status="ends", detail=ending_text(waiver), seconds=0.0)
        yield NightResult(_told(line))


def _part(kind: str, name: str, act: Callable[[], tuple[str, str]]) -> NightResult:
    """Do one part of the night; its failure is a line and an error, and the night goes on."""
    began = time.monotonic()
    try:
        status, detail = act()
    except GoldsmithError as error:
        return _failed(kind, name, error, round(time.monotonic() - began, 1))
    seconds = round(time.monotonic() - began, 1)
    return NightResult(_told(NightlyLine(kind=kind, name=name, status=status, detail=detail, seconds=seconds)))


def _failed(kind: str, name: str, error: GoldsmithError, seconds: float = 0.0) -> NightResult:
    line = NightlyLine(kind=kind, name=name, status=ended_by(error), detail=error.message, seconds=seconds)
    return NightResult(_told(line), error)


def _told(line: NightlyLine) -> NightlyLine:
    """The line, which whoever watches has been told at once."""
    say(f"{line.kind} {line.name}: {line.status} in {line.seconds:.0f} s")
    return line


def run_nightly(policy: str = "", only: str = "all") -> tuple[NightlyOutput, Failures]:
    """Run the night with the settings of this machine."""
    return nightly(image_context(policy=policy), only)


def show_nightly(result: tuple[NightlyOutput, Failures], *, as_json: bool) -> int:
    """Print a summary line for each image and fleet; the exit code says who must act."""
    night, failures = result
    if as_json:
        print_json(to_json(night))
    else:
        rows = [[line.kind, line.name, line.status, line.detail.splitlines()] for line in night.lines]
        print_table(["what", "name", "outcome", "detail"], rows)
        out().print(f"\n{night.summary}\nreport: {night.report}", soft_wrap=True)
    return finish(failures)
