"""Who must act, and why, and what ends soon, from the report's data. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from itertools import chain

from hardening.foundation.durations import in_short
from hardening.foundation.grouping import by_key
from hardening.foundation.text import listed
from hardening.model import Enforcement, Waiver
from hardening.waivers import SOON
from pipelines.cli.open_points import STALE
from pipelines.cli.report_output import (
    ActionReport,
    EndingReport,
    ImageReport,
    NightFailure,
    ReportOutput,
    RolloutReport,
    SharedReport,
)
from pipelines.cli.rollout_output import MEANING
from pipelines.contract import NightlyOutput
from pipelines.nightly.duties import OWNED, who
from pipelines.rollout.state import Phase

IMAGE, FLEET = "image", "fleet"
REFUSED, KEPT = "refused", "kept"
NEVER = datetime.min.replace(tzinfo=UTC)
MEND = "fix it; ./goldsmith lint --content lists everything that is wrong"
TODO = {  # by exit code, where the owner of an image or fleet does not act
    1: "report this as a bug in Goldsmith; the next night tries again",
    2: MEND,
    4: "./goldsmith doctor tells what does not answer; the next night tries again",
}
OWNERS_TODO = {
    IMAGE: "./goldsmith image.publish {} says why, and releases it once that is fixed",
    "channel": "./goldsmith image.promote {} says why, and moves stable once that is fixed",
    FLEET: "./goldsmith fleet.check {0}, then ./goldsmith roll.plan {0}",
}


def actions_of(report: ReportOutput, policy_owners: Mapping[str, str]) -> tuple[ActionReport, ...]:
    """What must be done, by whom, the owners in order; `policy_owners` by the policy's name."""
    of_images, of_fleets = _owners(report)
    stopped = _stopped(report.night_failures)
    found = chain(
        _about_definitions(report.images),
        _about_images(report, of_images, stopped),
        _about_night(report, {IMAGE: of_images, FLEET: of_fleets}, stopped),
        _about_fixes(report, of_images),
        _about_fleets(report),
        _about_rollouts(report.rollouts, of_fleets),
        (_action(w.owner, f"the waiver {w.id} ended on {w.expires}", "remove it, or ask for a new end")
         for w in report.waivers_expired),
        (_action(policy_owners.get(name, ""), f"the policy {name} is past its review date", "review it, move review_by")
         for name in report.policies_to_review),
    )  # fmt: skip
    return tuple(sorted(dict.fromkeys(found), key=lambda one: one.owner))


def _action(owner: str, what: str, todo: str) -> ActionReport:
    return ActionReport(owner=owner or "no owner", what=what, todo=todo)


def _about_definitions(images: Iterable[ImageReport]) -> Iterator[ActionReport]:
    """What does not load, once for all that it keeps from being built."""
    wrong = by_key(((one.problem, one.owner), one.name) for one in images if one.problem)
    for (problem, owner), names in wrong.items():
        yield _action(owner, f"{listed(names)} cannot be built: {problem}", MEND)


def _refusals(report: ReportOutput) -> Iterator[SharedReport]:
    return (one for one in report.reasons if one.enforcement is Enforcement.ENFORCE and not one.waived_by)


def _about_images(
    report: ReportOutput, owners: Mapping[str, str], stopped: Mapping[str, Sequence[str]]
) -> Iterator[ActionReport]:
    refused = by_key(
        ((owners.get(one.brought_by, ""), one.what, one.todo), name)
        for one in _refusals(report)
        for name in one.subjects
    )
    for (owner, what, todo), names in refused.items():
        yield _action(owner, f"{', '.join(names)} refused: {what}{_below(names, stopped)}", todo)
    for image in report.images:
        if image.status in ("expired", "revoked"):
            yield _action(image.owner, f"{image.name} is {image.status}", f"./goldsmith image.publish {image.name}")
        if image.ill:
            what = f"the candidate of {image.name} is not healthy in {', '.join(image.ill)}"
            yield _action(image.owner, what, "fix it before it is promoted")


# -- what nights did not do --------------------------------------------------------------------------------------------


def night_failures(
    earlier: Iterable[NightFailure], night: NightlyOutput | None, report: ReportOutput,
    published: Mapping[str, datetime],
) -> tuple[NightFailure, ...]:  # fmt: skip
    """What a night was refused or failed with and is not mended, and of `earlier` ones what it was not about.

    `published`: when the newest release of each image was.
    """
    lines = night.lines if night else ()
    met = {(line.kind, line.name) for line in lines}
    found = [one for one in earlier if night is None or ((kind := _about(one)) and (kind, one.name) not in met)]
    if night:
        found += [NightFailure.of(line, at=night.started_at) for line in lines if line.exit_code]
    return tuple(one for one in found if _stands(one, report, published))


def _about(failure: NightFailure) -> str:
    """Whether it is an image's or a fleet's own; empty where it is one of the whole night."""
    kind = IMAGE if failure.kind == "channel" else failure.kind
    return kind if kind in (IMAGE, FLEET) and failure.name != "all" else ""


def _stands(failure: NightFailure, report: ReportOutput, published: Mapping[str, datetime]) -> bool:
    """Whether it is still so, by what was published, promoted and checked since."""
    kind = _about(failure)
    if kind == FLEET:
        members = [one for one in report.members if one.fleet == failure.name]
        well = members and all(one.verdict and one.verdict.well for one in members)
        fleet = next((one for one in report.fleets if one.name == failure.name), None)
        if fleet is None:  # nothing but the next night says more of it
            return bool(report.night and failure.at >= report.night.started_at)
        return not (well and fleet.checked_at and fleet.checked_at >= failure.at)
    image = next((one for one in report.images if one.name == failure.name), None)
    if kind == IMAGE and failure.kind != IMAGE:
        return bool(image and image.stable != image.candidate)
    if kind == IMAGE:
        newest = published.get(failure.name)
        return bool(image and not (newest and newest > failure.at))
    return True


def _about_night(
    report: ReportOutput, owners: Mapping[str, Mapping[str, str]], stopped: Mapping[str, Sequence[str]]
) -> Iterator[ActionReport]:
    """What the last nights did not do, but for images of which their reasons or definitions say why."""
    refused = {name for one in _refusals(report) for name in one.subjects}
    judged = {one.name: one.judged_at for one in report.images if one.judged_at and one.name in refused}
    unsound = {image.name for image in report.images if image.problem}
    below = {name for names in stopped.values() for name in names}
    same = by_key(
        ((one.at, one.kind, one.status, one.detail, one.exit_code, owners.get(_about(one), {}).get(one.name, "")),
         one.name)
        for one in report.night_failures
        if one.kind != IMAGE
        or not (one.name in unsound | below or (one.status == REFUSED and judged.get(one.name, NEVER) >= one.at))
    )  # fmt: skip
    for (at, kind, status, detail, code, owner), names in same.items():
        gone = [one for one in names if kind == FLEET and one not in (*owners[FLEET], "all")]
        called = ", ".join(f"fleet {one}, whose file is gone" if one in gone else one for one in names)
        called = called if kind in (IMAGE, FLEET) else f"{kind} {called}"
        ended = "kept old data" if status == KEPT else status
        what = f"{called} {ended} in the night of {at:%Y-%m-%d %H:%M} UTC: {detail}{_below(names, stopped)}"
        yield _action(who(code, owner), what, _todo(kind, code, names[0], owner))


def _todo(kind: str, exit_code: int, name: str, owner: str) -> str:
    if owner and exit_code in OWNED:
        return OWNERS_TODO[kind].format(name)
    return TODO.get(exit_code, "./goldsmith nightly --dry-run shows what the next night does")


def _stopped(failures: Iterable[NightFailure]) -> dict[str, list[str]]:
    """By the image that was refused or failed itself, those on it that nothing was done for."""
    known = {one.name: one for one in failures if one.kind == IMAGE}
    found: dict[str, list[str]] = {}
    for name in known:
        passed = [name]
        while (base := known[passed[-1]].stopped_by) in known.keys() - passed:
            passed.append(base)
        if passed[1:] and base not in known:
            found.setdefault(passed[-1], []).append(name)
    return found


def _below(names: Iterable[str], stopped: Mapping[str, Sequence[str]]) -> str:
    below = [name for one in names for name in stopped.get(one, ())]
    return f"; nothing was done for images based on it: {listed(below)}" if below else ""


# -- fleets and rollouts -----------------------------------------------------------------------------------------------


def _about_fixes(report: ReportOutput, owners: Mapping[str, str]) -> Iterator[ActionReport]:
    """The open fixes, by the same steps as in the four questions, but for what an image is refused for already."""
    refused = {(one.rule, one.brought_by) for one in _refusals(report)}
    steps = by_key(
        ((step.acts, step.todo), point)
        for point in report.open_points
        if point.vulnerability
        for step in point.steps
        if (point.vulnerability, point.name) not in refused or step.acts != owners.get(point.name)
    )
    for (owner, todo), points in steps.items():
        names, lacks = dict.fromkeys(one.name for one in points), dict.fromkeys(one.lacks for one in points)
        yield _action(owner, f"open fixes of {listed([*names])}: {listed([*lacks])}", todo)


def _about_fleets(report: ReportOutput) -> Iterator[ActionReport]:
    """Fleets of which members are out of policy for more than open fixes, or not healthy, or that are not checked."""
    of_rules = {one.name for one in report.open_points if not one.vulnerability}
    of_fixes = {fleet for one in report.open_points if one.vulnerability for fleet in one.fleets} - of_rules
    for fleet in report.fleets:
        members = [one for one in report.members if one.fleet == fleet.name]
        if any(one.ailment or (one.verdict and not one.verdict.good and fleet.name not in of_fixes) for one in members):
            yield _action(fleet.owner, f"{fleet.name}: {fleet.said}", f"./goldsmith fleet.check {fleet.name}")
        elif fleet.checked_at is None or report.made_at - fleet.checked_at > STALE:
            ago = f"for {in_short(report.made_at - fleet.checked_at)}" if fleet.checked_at else "yet"
            yield _action(
                fleet.owner, f"{fleet.name} has not been checked {ago}", f"./goldsmith fleet.check {fleet.name}"
            )


def _about_rollouts(rollouts: Iterable[RolloutReport], owners: Mapping[str, str]) -> Iterator[ActionReport]:
    newest = {rollout.fleet: rollout for rollout in sorted(rollouts, key=lambda one: one.started_at)}
    for rollout in newest.values():
        stuck = [step.member for step in rollout.steps if step.outcome == MEANING[Phase.FAILED]]
        if stuck:
            todo = f"./goldsmith roll.status {rollout.fleet}"
            yield _action(owners.get(rollout.fleet, ""), f"{', '.join(stuck)} could not be rolled back", todo)


def ending_of(report: ReportOutput, reviews: Mapping[str, tuple[datetime, str]]) -> tuple[EndingReport, ...]:
    """What ends within 14 days, the first first; `reviews`: when each policy must be reviewed, and by whom."""
    of_images, of_fleets = _owners(report)
    fixes = {(one.vulnerability, one.name): one for one in report.open_points if one.vulnerability}
    found = [(image.expires_at, f"the release of {image.name}", image.owner) for image in report.images]
    found += [
        (
            reason.deadline,
            f"the deadline to fix it in {reason.brought_by}: {reason.what}",
            of_images.get(reason.brought_by, ""),
        )
        for reason in report.reasons
        if reason.stands and (reason.rule, reason.brought_by) not in fixes
    ]
    found += [
        (point.due, f"the deadline to fix it in {name}: {point.lacks}", of_images.get(name, ""))
        for (_, name), point in fixes.items()
    ]
    due: dict[tuple[str, datetime], int] = {}
    for member in report.members:
        if member.deadline:
            due[member.fleet, member.deadline] = due.get((member.fleet, member.deadline), 0) + 1
    found += [
        (at, f"the time to replace {many} member(s) of {fleet}", of_fleets.get(fleet, ""))
        for (fleet, at), many in due.items()
    ]
    found += [(_end(waiver), f"the waiver {waiver.id}", waiver.owner) for waiver in report.waivers_active]
    found += [(at, f"the review of the policy {name}", owner) for name, (at, owner) in reviews.items()]
    soon = [(at, what, owner) for at, what, owner in found if at and timedelta() <= at - report.made_at <= SOON]
    return tuple(EndingReport(at=at, what=what, owner=owner) for at, what, owner in sorted(soon))


def _end(waiver: Waiver) -> datetime:
    """Waivers hold through the day on which they expire."""
    return datetime.combine(waiver.expires + timedelta(days=1), time(), UTC)


def _owners(report: ReportOutput) -> tuple[dict[str, str], dict[str, str]]:
    return {one.name: one.owner for one in report.images}, {one.name: one.owner for one in report.fleets}
