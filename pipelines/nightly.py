"""The night: refresh, rebuild, judge, publish, promote, check the fleets, roll what may be rolled, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial

from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError
from hardening.foundation.locks import only_one
from images import feeds
from images.channels import promote
from images.context import Context
from images.model import Bootstrap
from images.planner import Planner
from images.release import ReleaseOutcome, release_all
from pipelines.contract import NightlyLine, NightlyOutput
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.model import Approval
from pipelines.report import write_report
from pipelines.roll import check, desk, start

Failures = list[GoldsmithError]


def nightly(context: Context, fleet_host: Callable[[], str]) -> tuple[NightlyOutput, Failures]:
    """Run the night, as a recipe; what fails stops what stands on it and nothing else.

    The exit code is the highest of all failures: 2 content wrong, 3 refused by a policy, 4 the outside failed.
    Raises RefusedError when another night is under way on this machine.
    """
    failures: Failures = []
    with only_one(context.settings.state_dir / "locks" / "nightly.lock", "nightly"):
        lines = [
            *refresh(context, failures),
            *publish(context, failures),
            *fleets(context, fleet_host, failures),
        ]
        code = max((error.exit_code for error in failures), default=0)
        output = NightlyOutput(
            started_at=context.now, ended_at=datetime.now(UTC), lines=tuple(lines), exit_code=code, report=""
        )
        path = write_report(context, output)
    return output.model_copy(update={"report": str(path)}), failures


def refresh(context: Context, failures: Failures) -> Iterator[NightlyLine]:
    """Ask the mirror for its package index, and the feeds for their data; a last good copy serves where one fails."""
    for bootstrap in _bootstraps(context):
        yield _line("index", bootstrap.suite, failures, partial(_index, context, bootstrap))
        yield _line("feeds", bootstrap.suite, failures, partial(_feeds, context, bootstrap))


def _bootstraps(context: Context) -> list[Bootstrap]:
    """The distributions that the catalog takes packages from, each suite once."""
    planner = Planner(context)
    found = {planner.bootstrap(loaded).suite: planner.bootstrap(loaded) for loaded in context.definitions.values()}
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


def publish(context: Context, failures: Failures) -> Iterator[NightlyLine]:
    """Build, judge and publish the whole catalog, and move `stable` where the definition lets the night do so."""
    for outcome in release_all(context, sorted(context.definitions)):
        if outcome.error and outcome.error not in failures:
            failures.append(outcome.error)
        yield _image_line(outcome)
        if outcome.error is None and context.definitions[outcome.name].definition.promote == "auto":
            yield from _promoted(context, outcome.name, failures)


def _image_line(outcome: ReleaseOutcome) -> NightlyLine:
    """What became of one image: whether it was built, and whether it was published."""
    built = outcome.built
    detail = f"build {built.action}; release {outcome.digest[7:19] or 'none'}; {'; '.join(outcome.reasons[:3])}"
    seconds = built.seconds + outcome.seconds
    return NightlyLine(kind="image", name=outcome.name, status=outcome.action, detail=detail, seconds=round(seconds, 1))


def _promoted(context: Context, name: str, failures: Failures) -> Iterator[NightlyLine]:
    """A line where `stable` moved; silence where it stood right already."""
    try:
        move = promote(context.publisher, name)
    except GoldsmithError as error:
        failures.append(error)
        yield NightlyLine(kind="channel", name=name, status=_status(error), detail=error.message, seconds=0.0)
        return
    if move.before != move.after:
        yield NightlyLine(
            kind="channel", name=name, status="promoted", detail=f"stable is {move.after[7:19]}", seconds=0
        )


def fleets(context: Context, fleet_host: Callable[[], str], failures: Failures) -> Iterator[NightlyLine]:
    """Check every fleet, and roll those whose files say that an automated run may."""
    for name in sorted(load_fleets(context.settings.roots)):
        yield _line("fleet", name, failures, partial(_fleet, context, name, fleet_host))


def _fleet(context: Context, name: str, fleet_host: Callable[[], str]) -> tuple[str, str]:
    with desk(name, context, engine=fleet_host(), now=lambda: context.now) as at:
        judged = check(at)
        violating = [one for one in judged if one.violations]
        if not judged:
            return "empty", "no member runs; nothing was judged"
        if not violating:
            return "compliant", f"{len(judged)} member(s) within policy"
        if at.fleet.approval is Approval.REQUIRED:
            return "waits", f"{len(violating)} of {len(judged)} violate; inv roll.start {name} --apply rolls them"
        plan, state = start(at, apply=True, automated=True)
        if state is None:
            return "skipped", "; ".join(f"{skip.member}: {skip.why}" for skip in plan.skipped)
        return "rolled", f"{len(state.steps)} of {len(judged)} replaced"


def _line(kind: str, name: str, failures: Failures, act: Callable[[], tuple[str, str]]) -> NightlyLine:
    """Do one part of the night; its failure is a line and an entry in `failures`, and the night goes on."""
    start_at = time.monotonic()
    say(f"{kind} {name}")
    try:
        status, detail = act()
    except GoldsmithError as error:
        failures.append(error)
        status, detail = _status(error), error.message
    return NightlyLine(
        kind=kind, name=name, status=status, detail=detail, seconds=round(time.monotonic() - start_at, 1)
    )


def _status(error: GoldsmithError) -> str:
    return "refused" if error.exit_code == 3 else "failed"  # noqa: PLR2004 - the exit code of refusals
