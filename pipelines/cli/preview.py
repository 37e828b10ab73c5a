"""`policy.preview`: which images and members changed content would newly refuse or allow."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hardening.catalog import judging_roots, load_policies, load_profiles, load_waivers, required_profiles
from hardening.evaluation import REPRODUCED_EVALUATED, UNCOVERED, judges, reproduced, uncovered
from hardening.findings import CheckResult, Reason, Verdict
from hardening.foundation.console import out, print_json, print_table, print_text, say
from hardening.foundation.content import find_content, load_toml, parse
from hardening.foundation.errors import ContentError, GoldsmithError, OutsideError, UsageError, nearest
from hardening.foundation.process import run
from hardening.gate import judge_image
from hardening.policy import Policy, weaknesses
from images.context import Context
from images.documents import to_json
from images.plan.planner import Planner
from images.scan.judge import todays_checks
from images.scan.verify import enforced_by
from pipelines.cli.image_output import finish, told_of
from pipelines.cli.preview_output import PreviewOutput, Subject, UnknownLine, compared, markdown, rows, terminal
from pipelines.fleet.catalog import load_fleets
from pipelines.revisions import changed_content, revisions_of
from pipelines.rollout.session import fleet_session
from pipelines.wiring import image_context

REFUSED, UNANSWERED = 3, 4  # exit codes: somebody is newly refused, or that is unknown
LAST_COMMIT = "HEAD"
FARTHEST = timedelta(days=36525)  # dates end, and what is added to one must not lie beyond


@dataclass
class Judgements:
    """All images and members judged by one content: the reasons that refuse, and what could not be judged.

    `golden`: the content that a member is judged by, where it is known. `aged`: images whose scan is too old by then
    alone.
    """

    refusals: dict[Subject, tuple[Reason, ...]] = field(default_factory=dict)
    golden: dict[str, str] = field(default_factory=dict)
    unjudged: list[str] = field(default_factory=list)
    aged: list[str] = field(default_factory=list)
    errors: list[GoldsmithError] = field(default_factory=list)


@dataclass(frozen=True)
class Sides:
    """The two contexts that are compared, and a description of the second one."""

    before: Context
    after: Context
    compared_with: str
    changed: tuple[str, ...] = ()
    instead_of: str = ""


def preview(
    file: str = "", instead_of: str = "", against: str = "", at: str = "", context: Context | None = None
) -> tuple[PreviewOutput, list[GoldsmithError]]:
    """Judge every image's last scan and every fleet's members by two contents, as of `at` (a day, or now).

    A `file` is a changed policy, which stands in the place of the one of its name or of `instead_of`. Else all content
    here is compared with `against`, a revision of git or a directory; by default with the last commit, or with today
    where nothing differs from that and `at` lies ahead.

    New and changed checks run over stored images. Nothing is scanned, and nothing written. Raises ContentError and
    UsageError; a fleet that cannot be read stops no other, and is among the errors.
    """
    context = context or image_context(looks=True)
    if file and against:
        raise UsageError("give a file or --against, not both", hint="without a file, all content here is compared")
    if instead_of and not file:
        raise UsageError("--instead-of is about a policy's file, and none is given")
    day = moment(at) if at else context.now
    if abs(day - context.now) > FARTHEST:
        raise UsageError(f"--at: {at} is more than 100 years away", hint="such as 2027-01-31")
    then = context.moved(day) if at else context
    with _of_file(then, file, instead_of) if file else _of_content(context, then, against) as sides:
        return _compare(context, sides, file)


def moment(text: str) -> datetime:
    """The beginning of a day, or a moment, that somebody typed; aware UTC. Raises UsageError."""
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"--at: invalid date: {text}", hint="such as 2027-01-31, or 2027-01-31T12:00Z") from None


def _compare(context: Context, sides: Sides, file: str) -> tuple[PreviewOutput, list[GoldsmithError]]:
    name = sides.instead_of
    images = [one for one in sorted(sides.after.definitions) if not name or sides.after.policy_of(one) == name]
    unknown: dict[str, tuple[str, ...]] = {}
    before, after = (
        (sides.before, sides.after) if name else (_checked(sides.before, {}), _checked(sides.after, unknown))
    )
    old, new = (judge_all(side, images, context.now) for side in (before, after))
    output = preview_of(
        old, new, file=file, instead_of=name, compared_with=sides.compared_with,
        weaker=tuple(_weaker(sides, context.now.date())), at=after.now,
        begins=tuple(sorted({day for day in _begins(sides) if day > after.now.date()})),
        changed=sides.changed, unknown=tuple(_unknown(after, new, unknown)),
    )  # fmt: skip
    return output, list({error.message: error for error in (*old.errors, *new.errors)}.values())


def preview_of(before: Judgements, after: Judgements, **told: Any) -> PreviewOutput:
    """What differs between two judgements of everybody; `told`: what else is to be said of the comparison."""
    both = [kind for kind, _ in before.refusals.keys() & after.refusals.keys()]
    given = {"file": "", "instead_of": "", "weaker": ()} | told
    return PreviewOutput(
        images=both.count("image"), members=both.count("member"),
        lines=tuple(compared(before.refusals, after.refusals)),
        unjudged=tuple(dict.fromkeys(before.unjudged + after.unjudged)),
        aged=tuple(dict.fromkeys(before.aged + after.aged)), **given,
    )  # fmt: skip


def _weaker(sides: Sides, today: date) -> Iterator[str]:
    """In what policies ask for less than before, from `today` on; a policy of no file is named."""
    before, after = sides.before.policies, sides.after.policies
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            whose = "" if sides.instead_of else f"{name}: "
            profiles = {
                **required_profiles(judging_roots(sides.before.settings), before[name]),
                **required_profiles(judging_roots(sides.after.settings), after[name]),
            }
            for line in weaknesses(after[name], before[name], today, profiles):
                yield whose + line.replace("the floor", "the present one")


# -- judging -----------------------------------------------------------------------------------------------------------


def judge_all(context: Context, images: Sequence[str], today: datetime) -> Judgements:
    """Images by their last scan and all members of all fleets, judged by the content and the clock of `context`.

    What is refused only since its data will have grown old since `today` is not: until then it is scanned again.
    """
    found, planner = Judgements(), Planner(context)
    for name in images:
        if verdict := judge_last(planner, name):
            found.refusals["image", name] = tuple(_not_aged(context, name, verdict, today, found))
        else:
            found.unjudged.append(name)
    for fleet in sorted(load_fleets(context.settings.roots)):
        try:
            with fleet_session(fleet, context, now=lambda: context.now) as at:
                seen = at.seen()
                judged = at.judge(seen.members)
            found.errors += [OutsideError(f"{fleet}: {one.id} could not be read: {one.why}") for one in seen.unread]
        except GoldsmithError as error:
            found.errors.append(told_of(fleet, error))
            continue
        for one in judged:
            name = f"{fleet}/{one.member.name}"
            found.refusals["member", name] = one.standing
            found.golden[name] = one.origin.golden.content if one.origin.golden else ""
    return found


def judge_last(planner: Planner, name: str) -> Verdict | None:
    """The gate's answer over the newest artifact of `name`, by its last scan and checks; None without a scan here."""
    context, ledger = planner.context, planner.context.ledger
    artifact = planner.last(name)
    scan = ledger.scan(artifact.digest, name) if artifact else None
    if artifact is None or scan is None or name not in context.definitions:
        return None
    policy = context.policy_named(context.policy_of(name))
    checks = enforced_by(ledger.checks(artifact.digest, name), planner.judged_overlay(name, policy))
    waivers, bases = load_waivers(context.settings.roots), ledger.bases_of(artifact.digest, name)
    return judge_image(policy, name, checks, scan.reports, scan.findings, waivers, context.now, bases)


def _not_aged(context: Context, name: str, verdict: Verdict, today: datetime, found: Judgements) -> Iterator[Reason]:
    """The refusals but for those of data that is too old by then, where today it is not."""
    for reason in verdict.refusals:
        data = reason.rule in ("judges", REPRODUCED_EVALUATED) or reason.rule.startswith(UNCOVERED)
        aged = data and context.now > today
        if aged and _enough(context, name, today, reason.rule):
            found.aged += [name] if name not in found.aged else []
        else:
            yield reason


def _enough(context: Context, name: str, today: datetime, rule: str) -> bool:
    artifact = context.ledger.latest_artifact(name, context.settings.platform)
    scan = context.ledger.scan(artifact.digest, name) if artifact else None
    rules = context.policy_named(context.policy_of(name)).image
    if scan is None:
        return False
    lacking = [
        *judges(rules.judges, name, scan.reports, today),
        *uncovered(rules.judges, name, scan.reports, today),
        *reproduced(rules.reproduced, rules.judges, name, scan.reports, today),
    ]
    return rule not in {reason.rule for reason in lacking}


def _checked(context: Context, unknown: dict[str, tuple[str, ...]]) -> Context:
    """The same context with the results of its own controls, whether or not they were recorded; `unknown` gets the
    controls without a result, by content.
    """
    planner, ledger = Planner(context), copy(context.ledger)

    @cache
    def checks(digest: str, name: str = "") -> tuple[CheckResult, ...]:
        known, artifact = context.ledger.checks(digest, name), context.ledger.artifact_over(digest, name)
        releases = context.ledger.releases_of_content(digest) if known else ()
        name = name or (artifact.name if artifact else releases[0].name if releases else "")
        if name not in context.definitions:
            return known
        results, unknown[digest] = todays_checks(planner, name, digest)
        return results

    vars(ledger)["checks"] = checks
    return context.asking(ledger)


def _unknown(after: Context, new: Judgements, unknown: Mapping[str, tuple[str, ...]]) -> Iterator[UnknownLine]:
    """Who has controls of which no result is known, and which have not run here either."""
    for kind, name in sorted(new.refusals):
        artifact = after.ledger.latest_artifact(name, after.settings.platform) if kind == "image" else None
        if controls := unknown.get(artifact.digest if artifact else new.golden.get(name, "")):
            yield UnknownLine(kind=kind, name=name, controls=controls)


def _begins(sides: Sides) -> Iterator[date]:
    """The days to come on which rules of changed policies, and stages of changed profiles, begin."""
    before, after = sides.before.policies, sides.after.policies
    yield from (day for name, policy in after.items() if policy != before.get(name) for day in policy.days)
    old, new = (load_profiles(side.settings.roots) for side in (sides.before, sides.after))
    was = {name: one.model_dump() for name, one in old.items()}  # without the files that entries came from
    stages = (entry.stages for name, one in new.items() if one.model_dump() != was.get(name) for entry in one.controls)
    yield from (stage.from_date for several in stages for stage in several)


# -- what is compared --------------------------------------------------------------------------------------------------


@contextmanager
def _of_file(context: Context, file: str, instead_of: str) -> Iterator[Sides]:
    """The policy in force, and the one in `file` in its place. The policy in force itself: its last commit, and it."""
    path = Path(file)
    if path.parent.name in ("profiles", "waivers") or path.is_dir():
        hint = "without a file, all content here is compared with the last commit or --against another revision"
        raise UsageError(f"{file} is not a policy", hint=hint)
    name, files = instead_of or path.stem, find_content(context.settings.roots, "hardening/policies", "*.toml")
    changed = load_toml(path, Policy, name=name)
    if name not in files:
        hint = f"--instead-of names the policy whose place it takes; {nearest(name, files)}"
        raise ContentError(f"unknown policy: {name}", file=path, hint=hint)
    in_force = path.resolve() == files[name].resolve()
    present = _committed(files[name], name) if in_force else load_toml(files[name], Policy, name=name)
    before, after = (context.by_policy(one, name) for one in (present, changed))
    yield Sides(before, after, "the last commit" if in_force else str(files[name]), instead_of=name)


def _committed(file: Path, name: str) -> Policy:
    """The policy in `file` as git has it in the last commit."""
    try:
        text = run(["git", "-C", str(file.parent), "cat-file", "blob", f"HEAD:./{file.name}"]).stdout
    except OutsideError as error:
        raise ContentError(
            "it is the policy in force, and git has no committed version to compare it with", file=file,
            evidence=error.evidence, hint="give the changed policy as a file of its own, with --instead-of NAME",
        ) from None  # fmt: skip
    return parse(tomllib.loads(text), Policy, f"HEAD:{file}", name=name)


@contextmanager
def _of_content(context: Context, then: Context, against: str) -> Iterator[Sides]:
    """All content as it was, and as it is here; where both are the same and the clock is moved, today and then."""
    here, compared_with = context.settings.roots, against or "the last commit"
    with TemporaryDirectory(prefix="goldsmith-preview-") as folder:
        try:
            if against and Path(against).is_dir():
                roots: tuple[Path, ...] = (Path(against).resolve(), *here[1:])
            else:
                roots = revisions_of(here, against or LAST_COMMIT, Path(folder))
        except UsageError:
            if against or then.now <= context.now:
                raise
            roots = here  # not in git: its dates can be looked at all the same
        with _told_of(Path(folder), compared_with):
            changed = tuple(changed_content(roots, here))
        if not changed and not against and then.now > context.now:
            yield Sides(context, then, f"today ({context.now:%Y-%m-%d}), since no content was changed")
            return
        with _told_of(Path(folder), compared_with):
            before = then.over_content(roots)
            loaded = (load(roots) for load in (load_policies, load_profiles, load_waivers))
            _ = [*loaded, before.controls, before.definitions]
        yield Sides(before, then, compared_with, changed)


@contextmanager
def _told_of(folder: Path, revision: str) -> Iterator[None]:
    """Errors in the content of a revision name that, and not the folder that it was written to."""
    try:
        yield
    except ContentError as error:
        told = error.message.replace(f"{folder}/", f"{revision}:")
        raise ContentError(told, hint=error.hint, evidence=error.evidence) from None


# -- printing ----------------------------------------------------------------------------------------------------------


def show_preview(
    previewed: tuple[PreviewOutput, list[GoldsmithError]], *, as_json: bool, as_markdown: bool = False
) -> int:
    """Print who is refused and who is freed, by reason. Exit code 3 where somebody is newly refused, else 4 where it is
    unknown of somebody.
    """
    output, errors = previewed
    if as_json:
        print_json(to_json(output))
    elif as_markdown:
        out().out(markdown(output), highlight=False, end="")
    else:
        print_text(terminal(output))
        if each := rows(output):
            print_text("")
            print_table(["kind", "name", "change", "by"], each, whole=["name"])
        if output.instead_of and not output.images:
            say(f"no image was judged: no definition that was scanned here names the policy {output.instead_of}")
        if output.unjudged:
            say(f"not judged, for lack of a scan here (./goldsmith image.scan NAME): {', '.join(output.unjudged)}")
        if output.begins:
            say(f"rules begin on {', '.join(map(str, output.begins))}: --at {output.begins[0]} shows what they refuse")
        if output.aged:
            say(f"left out, since scans go on: on that day too old would be those of {', '.join(output.aged)}")
    return finish(errors) or (REFUSED if output.refuses else UNANSWERED if output.unknown else 0)
