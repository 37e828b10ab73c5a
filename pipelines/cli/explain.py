"""What `fleet.explain` calls: everything about one member on one screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from shlex import quote
from textwrap import shorten
from typing import Any

from hardening.catalog import load_waivers
from hardening.findings import Repair
from hardening.foundation.console import print_json, print_text
from hardening.foundation.errors import ContentError, GoldsmithError, OutsideError, RefusedError, UsageError, nearest
from hardening.foundation.text import short_digests
from hardening.model import Enforcement
from hardening.policy import Policy
from hardening.running import UNREAD
from hardening.waivers import active
from images.context import Context
from images.documents import from_json, to_json
from images.ledger.artifacts import parent_of
from images.plan.build_plan import changes_between
from pipelines.cli.rollout_output import MEANING
from pipelines.contract import Line
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.judged_state import JudgedMember, ViolationLine, judged_member, owners_of
from pipelines.fleet.members import Member, ReplacementImage
from pipelines.fleet.model import Approval, Fleet
from pipelines.fleet.violations import CheckedMember, Judged, PolicyState, checked, named
from pipelines.rollout.plan import becoming, frozen, refuse_standstill, refuse_target, violating_in, why_not
from pipelines.rollout.rollout_store import history
from pipelines.rollout.schedule import caps, may_act
from pipelines.rollout.session import FleetSession, fleet_session
from pipelines.rollout.whole_plan import plan_all
from pipelines.wiring import image_context

MOST_CAUSES, MOST_NEXT, MOST_LINES = 4, 6, 10
WIDTH, SCREEN = 10, 80
NO_OVERLAY: dict[str, Any] = {"applies": [], "checks": [], "files": {}}
NOTHING: dict[str, Any] = {"definition": {}, "verify": {}, "files": {}}  # of inputs that an earlier version kept


class ImageStory(Line):
    """The golden image that a member runs, or is based on: `built_at` from which base, and `because` of which changes
    since the previous build. Null and empty if this ledger has no line of it.
    """

    name: str
    release: str
    published_at: datetime
    expires_at: datetime
    revoked: str
    built_at: datetime | None
    base: str
    packages: int
    because: tuple[str, ...]
    newest: str
    newest_since: datetime | None


class NextLine(Line):
    """What happens next, and when; without a date it waits for a person."""

    at: datetime | None
    what: str


class MemberStory(Line):
    """`fleet.explain`: one member. `image` is null if no release of ours is known for it.

    `follows`: of an image that others make, the tag, since when it was seen here, and what is newer; else empty.
    `can_do`: what its owner can type, the best first.
    """

    member: JudgedMember
    owner: str
    policy: str
    policy_owner: str
    judged_at: datetime
    image: ImageStory | None
    next: tuple[NextLine, ...]
    can_do: tuple[str, ...]
    follows: str = ""


def explain_member(name: str, context: Context | None = None) -> MemberStory:
    """The story of the member that `name` means: FLEET/MEMBER, or a member's name or id where one fleet has it.

    Raises ContentError where none has, UsageError where several have, OutsideError, also where none that could be read
    has it and not every place could be.
    """
    context = context or image_context(looks=True)
    fleets = load_fleets(context.settings.roots)
    fleet, _, rest = name.partition("/")
    wanted = rest if fleet in fleets and rest else name
    where = [fleet] if wanted != name else _known_in(context, name) or sorted(fleets)
    found, errors = list[MemberStory](), list[GoldsmithError]()
    names, unread = list[str](), list[str]()
    for one in where:
        try:
            with fleet_session(one, context) as at:
                seen = at.seen()
                members, unread = seen.members, [*unread, *(f"{one}: {place.id}: {place.why}" for place in seen.unread)]
                names += [f"{one}/{member.name}" for member in members]
                found += [story(at, member) for member in members if wanted in (member.name, member.id)]
        except GoldsmithError as error:
            errors.append(error)
    if not found:
        if errors:
            raise errors[0]
        if unread:
            what = f"no member matches {name} in what could be read, and that is not all"
            raise OutsideError(what, evidence="\n".join(unread), hint="fix the access to these places")
        raise ContentError(
            f"no member matches {name}",
            hint=nearest(name, names) if names else f"no member runs in {', '.join(where) or 'any fleet'}",
        )
    if found[1:]:
        several = ", ".join(f"{one.member.fleet}/{one.member.name}" for one in found)
        raise UsageError(f"{name} means {len(found)} members: {several}", hint="name one of them")
    return found[0]


def _known_in(context: Context, name: str) -> list[str]:
    """The fleets in which such a member was seen last."""
    checks = context.ledger.fleet_checks().items()
    known = ((fleet, from_json(tuple[CheckedMember, ...], check.members)) for fleet, check in checks)
    fleets = load_fleets(context.settings.roots)
    return [fleet for fleet, members in known if fleet in fleets and any(name in (m.name, m.id) for m in members)]


def story(at: FleetSession, member: Member) -> MemberStory:
    """The story of a member, judged now."""
    (one,) = at.judge([member], whole=True, unread_too=True)
    context, fleet, now = at.context, at.fleet, at.now()
    policy = context.policy_named(fleet.policy)
    runs_as = {member.name: to_json(one.facts)} if one.facts else {}
    told = judged_member(fleet, checked(one), owners_of(context), runs_as)
    kept, adopt = _left_alone(at, one)
    return MemberStory(
        member=told, owner=fleet.owner, policy=policy.name, policy_owner=policy.owner, judged_at=now,
        image=_image(context, one), next=tuple(_next(at, one, told, policy, kept))[:MOST_NEXT],
        can_do=tuple(_can_do(fleet, told, rolls=not kept or bool(adopt), adopt=adopt)),
        follows=_follows(one),
    )  # fmt: skip


def _left_alone(at: FleetSession, one: Judged) -> tuple[str, str]:
    """Why no rollout would replace a member that violates, empty where one would; and by which name, its own or its
    group's, it has to be adopted, empty where it has not. A plan that is refused as a whole replaces none.
    """
    if not one.violations:
        return "", ""
    try:
        target = becoming(one, at.origins().target())
        refuse_target(at.fleet, target, at.now())
        hold = refuse_standstill(at.fleet, at.now())
        name, asked = _as_planned(at, one, target, hold.until if hold and hold.until else at.now())
        why = asked(())
        adopted = asked((name,)) == "" if why else "unknown" in one.rules
        why = why or _refused(at)
    except GoldsmithError as error:
        return error.message, ""
    return why, name if adopted else ""


def _refused(at: FleetSession) -> str:
    """Why a plan of the whole fleet is refused now; empty where it is not."""
    try:
        plan_all(at, judged=at.judge(at.seen().members))
    except GoldsmithError as error:
        return error.message
    return ""


def _as_planned(
    at: FleetSession, one: Judged, target: ReplacementImage, begins: datetime
) -> tuple[str, Callable[[Sequence[str]], str]]:  # fmt: skip
    """By which name a plan takes a member over: its own, or that of the group in which a service replaces it. And why
    it would leave that alone where these names are adopted, also for a budget of 0 when a rollout `begins`; empty where
    it would not.
    """
    groups, budgets = at.groups.groups() if at.groups and one.member.group else (), caps(at.fleet.limits, 1, begins)
    if group := next((group for group in groups if group.id == one.member.group), None):
        inside, cannot_roll = at.inside(group), group.cannot_roll
        none = frozen({rule for other in violating_in(inside) for rule in other.rules}, budgets)
        return group.name, lambda adopt: cannot_roll or at.why_not_group(inside, target, adopt) or none
    changes = (at.members.changes(member, target) for member in [one.member])  # asked for only if a rule needs it
    (barred,) = at.breaks([one], changes)
    left = "; ".join(barred) or frozen(one.rules, budgets)
    return one.member.name, lambda adopt: why_not(at.fleet, one, target, at.now(), adopt) or left


def _follows(one: Judged) -> str:
    """What the tag that the fleet follows says of its image; empty where it is of ours, or of an unknown origin."""
    tag = one.origin.followed
    if tag is None or one.origin.golden:
        return ""
    seen = f"seen here since {_at(tag.seen)}" if tag.seen else "older than the first look at that tag"
    return f"made by others, of {tag.tag}, {seen}{f'; newer: {tag.newer[:19]}' if tag.newer else ''}"


def _image(context: Context, one: Judged) -> ImageStory | None:
    golden, latest = one.origin.golden, one.origin.latest
    if golden is None:
        return None
    ledger = context.ledger
    built = ledger.artifact_over(golden.content, golden.name)
    base, because = golden.base_name, tuple[str, ...]()
    if built:
        before = [other for other in ledger.artifacts(built.name) if other.platform == built.platform]
        before = [other for other in before if other.built_at < built.built_at and other.digest != built.digest]
        below = ledger.artifact_over(*parent_of(built.inputs))
        base = f"{below.name} {below.digest[:19]}" if below else base
        inputs = NOTHING | built.inputs | {"overlay": NO_OVERLAY | built.inputs.get("overlay", {})}
        because = tuple(map(str, changes_between(before[0], inputs, built.packages))) if before else ()
    newest = latest if latest and latest.content != golden.content else None
    return ImageStory.of(
        golden, release=golden.digest, revoked=golden.revoked_reason if golden.revoked_at else "",
        built_at=built.built_at if built else None, base=base, packages=len(built.packages) if built else 0,
        because=because, newest=named(newest) if newest else "",
        newest_since=one.origin.latest_since if newest else None,
    )  # fmt: skip


# -- what comes next ---------------------------------------------------------------------------------------------------


def _next(at: FleetSession, one: Judged, told: JudgedMember, policy: Policy, kept: str) -> list[NextLine]:
    """What happens next, the first first; what waits for a person last."""
    now = at.now()
    lines = [*_rolls(at, one, kept, now), *_dates(one, told, policy, now), *_waivers(at, told, now)]
    dated = sorted((line for line in lines if line.at), key=lambda line: (line.at, line.what))
    return [*dated, *(line for line in lines if line.at is None)]


def _rolls(at: FleetSession, one: Judged, kept: str, now: datetime) -> Iterator[NextLine]:
    """Whether and when it is replaced; `kept`: why it is not."""
    fleet = at.fleet
    for seen in islice(history(at.context, fleet.name), 1):
        state = next((line for line in seen.members if line.id == one.member.id), None)
        if seen.row.open and state:
            yield NextLine(at=None, what=f"rollout {seen.row.id} is under way: {MEANING.get(state.phase, state.phase)}")
            return
    if not one.violations:
        return
    protected = one.member.protected_until
    if protected and protected > now and not one.member.cannot_roll:
        yield NextLine(at=protected, what=f"its label {fleet.limits.do_not_disrupt} no longer protects it")
    if kept:
        yield NextLine(at=None, what=f"no rollout replaces it: {kept}")
        return
    hold = may_act(fleet.limits, now)
    who = "the next night replaces it" if fleet.approval is Approval.NONE else "a rollout waits for a second person"
    yield NextLine(at=hold.until if hold else None, what=f"{who}{f' ({hold.why})' if hold else ''}")


def _dates(one: Judged, told: JudgedMember, policy: Policy, now: datetime) -> Iterator[NextLine]:
    """Deadlines of what is violated, and days on which what is well now no longer is."""
    for found in told.standing:
        if found.deadline and found.deadline > now:
            yield NextLine(at=found.deadline, what=f"{found.rule} must be gone")
    golden, limit = one.origin.golden, policy.running.max_age
    if golden and golden.expires_at > now:
        yield NextLine(at=golden.expires_at, what=f"its image expires{_so_late(policy.running.expired.grace)}")
    if golden and limit and golden.published_at + limit.limit > now:
        yield NextLine(at=golden.published_at + limit.limit, what=f"its image is too old{_so_late(limit.grace)}")
    for found in told.violations:
        begins = getattr(policy.running, found.rule, None)
        if begins is not None and begins.begins and begins.begins > now:
            yield NextLine(at=begins.begins, what=f"{found.rule} is enforced")


def _so_late(grace: timedelta) -> str:
    return f"; replaced within {grace.days} day(s) after" if grace >= timedelta(days=1) else ""


def _waivers(at: FleetSession, told: JudgedMember, now: datetime) -> Iterator[NextLine]:
    """When what is waived counts again."""
    rules = {violation.rule.replace("_", "-") for violation in told.violations if violation.waived_by}
    for waiver in active(load_waivers(at.context.settings.roots), now.date()):
        if rules & set(waiver.rules) and waiver.reaches(f"{told.fleet}/{told.name}"):
            ends = datetime.combine(waiver.expires + timedelta(days=1), datetime.min.time(), now.tzinfo)
            yield NextLine(at=ends, what=f"waiver {waiver.id} is over: {', '.join(waiver.rules)} counts again")


def _can_do(fleet: Fleet, told: JudgedMember, *, rolls: bool, adopt: str) -> Iterator[str]:
    """What the owner can type or do, each once; to plan a rollout only where one `rolls` it, by the name to `adopt`."""
    done = set[str]()
    if rolls and any(Repair.ROLL in found.repairs for found in told.standing):
        yield f"./goldsmith roll.plan {fleet.name}{f' --adopt {quote(adopt)}' if adopt else ''}"
    for found in told.standing:
        if found.repairs[0] in (Repair.CONFIGURE, Repair.REBUILD) and found.todo not in done:
            done.add(found.todo)
            again = f"{found.acts} builds it again first"
            yield f"{found.rule}: {again if 'roll.plan' in found.todo and not rolls else found.todo.replace('`', '')}"
    for found in told.standing:
        if Repair.WAIVE in found.repairs:
            rule = found.rule.replace("_", "-")
            yield f"./goldsmith waiver.new {told.fleet}/{quote(told.name)} {rule} --reason WHY --approver WHO"


# -- on a screen -------------------------------------------------------------------------------------------------------


def show_story(told: MemberStory, *, as_json: bool) -> int:
    """Print the story; exit code 3 where the member is not within policy, 4 where something of it is unread."""
    if as_json:
        print_json(to_json(told))
    else:
        print_text(screen(told))
    if any(found.rule == UNREAD for found in told.member.standing):
        return OutsideError.exit_code
    return 0 if told.member.state is PolicyState.WITHIN else RefusedError.exit_code


def screen(told: MemberStory) -> Iterator[str]:
    """The lines of the story."""
    member = told.member
    by = f", {_due(member.deadline, told.judged_at)}" if member.deadline else ""
    ill = "" if member.healthy else "; it is starting" if member.starting else "; it is not healthy"
    yield f"{member.fleet}/{member.name}: {member.state}{by}{ill}"
    yield _row("runs", f"{short_digests(member.image)}{f', since {_at(member.since)}' if member.since else ''}")
    yield from _image_rows(told)
    yield _row("policy", f"{told.policy} ({told.policy_owner}), judged {_at(told.judged_at)}")
    yield _row("owner", told.owner)
    for found in member.standing:
        yield ""
        yield from _violation_rows(found, told.judged_at)
    yield from _counted(member)
    if told.next:
        yield ""
        yield "next:"
        yield from (f"  {_at(line.at) if line.at else 'not dated':22} {line.what}" for line in told.next)
    if told.can_do:
        yield ""
        yield "you can:"
        yield from (f"  {line}" for line in told.can_do)


def _image_rows(told: MemberStory) -> Iterator[str]:
    image = told.image
    if image is None:
        yield _row("image", told.follows or "of unknown origin: no release of ours is found for it")
        return
    stands = "stands on" if told.member.on_base else "image"
    yield _row(stands, f"{image.name} of {image.published_at:%Y-%m-%d} ({image.release[7:19]})")
    if image.built_at:
        base = f" from {short_digests(image.base)}" if image.base else ""
        yield _row("built", f"{_at(image.built_at)}{base}, {image.packages} packages")
        causes = [
            *image.because[:MOST_CAUSES],
            *([f"{len(image.because) - MOST_CAUSES} more"] if image.because[MOST_CAUSES:] else []),
        ]
        yield _row("because", "; ".join(causes) or "it was the first build")
    else:
        yield _row("built", "not here: this ledger has no line of it")
    revoked = f", revoked: {image.revoked}" if image.revoked else ""
    yield _row("lives", f"published {_at(image.published_at)}, expires {_at(image.expires_at)}{revoked}")
    if image.newest:
        yield _row("newer", short_digests(image.newest))


def _due(deadline: datetime, now: datetime) -> str:
    return f"{'due' if now < deadline else 'overdue since'} {_at(deadline)}"


def _violation_rows(found: ViolationLine, now: datetime) -> Iterator[str]:
    when = f"since {_at(found.since)}" if found.since else ""
    due = f", {_due(found.deadline, now)}" if found.deadline else ""
    yield f"{found.enforcement}: {found.rule} {when}{due}"
    yield f"  {short_digests(found.what)}"
    yield f"  {found.side}; {found.acts} acts; repaired by: {', '.join(found.repairs)}"


def _counted(member: JudgedMember) -> Iterator[str]:
    """What does not count, in a line each."""
    waived = [f"{violation.rule} by {violation.waived_by}" for violation in member.violations if violation.waived_by]
    recorded = [
        f"{violation.rule}: {violation.evidence[0] if violation.evidence else violation.what}"
        for violation in member.violations
        if violation.enforcement is Enforcement.AUDIT and not violation.waived_by
    ]
    if waived or recorded:
        yield ""
    yield from _few("waived", waived)
    yield from _few("recorded", recorded)


def _few(head: str, lines: Sequence[str]) -> Iterator[str]:
    """The lines, each cut to what a screen is wide; of many the first, and how many more there are."""
    for number, line in enumerate(lines[:MOST_LINES]):
        yield _row("" if number else head, shorten(short_digests(line), SCREEN - WIDTH - 4, placeholder=" …"))
    if lines[MOST_LINES:]:
        yield _row("", f"{len(lines) - MOST_LINES} more (--json)")


def _row(head: str, text: str) -> str:
    return f"  {head:{WIDTH}} {text}"


def _at(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else ""
