"""How a fleet gets back into policy: waves of steps within its limits, or a refusal that says what forbids it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from hashlib import sha256
from math import ceil
from types import MappingProxyType

from hardening.foundation.durations import shown
from hardening.foundation.errors import RefusedError
from hardening.foundation.text import many
from hardening.model import Enforcement
from hardening.runtime import NAMES
from images.registry.references import one_repository
from pipelines.fleet.calendar import RunningRule, share
from pipelines.fleet.members import Changes, Member, ReplacementImage, repository
from pipelines.fleet.model import Fleet, Limits, Method
from pipelines.fleet.port import Group
from pipelines.fleet.violations import BARE_ID, Judged, named
from pipelines.rollout.cost import calls, explained, rehearses, step_cost
from pipelines.rollout.plan_model import Calls, Plan, Skip
from pipelines.rollout.schedule import AGES, LOOK_AHEAD, Cap, Hold, Timeline, caps, gravest, may_act
from pipelines.rollout.waves import Room, Step, forecast

MENDED_BY_SAME = frozenset((*NAMES, RunningRule.SUPERSEDED, RunningRule.MAX_AGE))
"""Rules of which none says that the image itself must not run: who drifted may run it again."""
BARS = frozenset(RunningRule) - MENDED_BY_SAME - {RunningRule.VULNERABLE}
"""Rules that say so. Who lacks fixes may run on for as long as the policy gives; then its image is refused."""


def by_reason(left: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The names of members that are left alone, by why they are; `left` has the id of each, and why."""
    found: dict[str, list[str]] = {}
    for member, why in left:
        found.setdefault(why, []).append(member.rpartition("/")[2])
    return found


def plan(
    fleet: Fleet,
    judged: Sequence[Judged],
    target: ReplacementImage,
    now: datetime,
    adopt: Sequence[str] = (),
    *,
    automated: bool = False,
    grouped: bool = False,
    changes: Mapping[str, Changes] = MappingProxyType({}),
) -> Plan:
    """The rollout that brings `judged` to `target`; without a violation it has no waves.

    `adopt`: names, globs or `all`: members with an unknown origin that are taken over on purpose. `automated`: nobody
    asked for it, so that members that are merely too old wait for their turn (`jitter`). `grouped`: a service rolls
    groups of the fleet, so that it may have no members of ours to step. `changes`: what the replacement changes in
    members, by id.
    Raises RefusedError naming the limit that forbids it.
    """
    if not judged and not grouped:
        labels = ", ".join(f"{key}={value}" for key, value in fleet.selector.items())
        raise RefusedError(f"nothing runs with the labels of fleet {fleet.name}: {labels}", hint="see its selector")
    violating = [one for one in judged if one.violations]
    if violating:
        refuse_plan(fleet, judged, target, now, adopt)
    hold = refuse_standstill(fleet, now) if violating else None
    begins = hold.until if hold and hold.until else now
    kept = _kept(fleet, judged, changes, begins, now, automated=automated)
    becomes = {one.member.id: becoming(one, target) for one in violating}
    left = {
        one.member.id: why_not(fleet, one, becomes[one.member.id], now, adopt) or kept[one.member.id]
        for one in violating
    }
    left |= {member: "; ".join(change.breaks) for member, change in changes.items() if change.breaks}
    left |= _last(judged, left)
    rolled = [one for one in violating if not left[one.member.id]]
    refuse_surge(fleet, violating, left)
    needed = calls(fleet, (one.member.id for one in rolled))
    room = _room(fleet, judged, needed, len(rolled))
    others = {member: image for member, image in becomes.items() if image != target}
    predicted = forecast(_steps(fleet, rolled, changes, others), room, now)
    made = predicted.waves
    return Plan(
        fleet=fleet.name,
        target=target,
        method=fleet.limits.method,
        desired=room.desired,
        floor=room.floor,
        waves=made,
        skipped=tuple(Skip(member, why) for member, why in left.items() if why),
        # the waves after each other, or as long as the service's limits make the calls last
        seconds=max(sum(wave.seconds for wave in made), *(call.seconds for call in needed), 0),
        hold=hold if rolled else None,
        calls=needed,
        rehearsed=rehearses(fleet),
        takes=explained(fleet, (one.member for one in rolled)),
        ends_at=predicted.ends_at if made else None,
        late=predicted.late,
        neglected=neglected(judged, left, now),
    )


def _last(judged: Sequence[Judged], left: Mapping[str, str]) -> dict[str, str]:
    """Why the last member that serves is left alone where others do not run and are not replaced, by its id, if so.

    In its place there would be no other if its replacement fails, although the fleet has several.
    """
    stay = {one.member.id for one in judged if left.get(one.member.id, "it stays")}
    serving = {one.member.id for one in judged if one.member.healthy} | {one.member.id for one in judged} - stay
    down = [one.member.name for one in judged if one.member.stopped and one.member.id not in serving]
    if not down or len(serving) != 1 or serving & stay:
        return {}
    mend = f"start or remove {', '.join(down[:3])} first"
    return {serving.pop(): f"it is the last that serves of {many(len(judged), 'member')}: {mend}"}


def neglected(judged: Sequence[Judged], left: Mapping[str, str], now: datetime) -> tuple[Skip, ...]:
    """The members that do not run and are not replaced, and those past an enforced deadline that are left alone, each
    with why. `left`: why each is left alone, by id; one that violates and is not in it is replaced.
    """
    found = list[Skip]()
    for one in judged:
        ends = [r.deadline for r in one.violations if r.deadline and r.enforcement is Enforcement.ENFORCE]
        why = left.get(one.member.id, "")
        if one.member.stopped and (why or not one.violations):
            found.append(Skip(one.member.id, one.member.cannot_roll or "it does not run"))
        elif why and ends and min(ends) <= now:
            found.append(Skip(one.member.id, f"overdue since {min(ends):%Y-%m-%d %H:%M} UTC, and skipped: {why}"))
    return tuple(found)


def _room(fleet: Fleet, judged: Sequence[Judged], needed: Sequence[Calls], rolled: int) -> Room:
    """What the fleet's limits and its service's leave to a rollout of so many members."""
    serving = [one.member.zone for one in judged if one.member.healthy]
    seconds = max((call.seconds for call in needed), default=0) / max(1, rolled)
    return Room(fleet.limits, len(judged), len(serving), seconds, Counter(filter(None, serving)))


def _kept(
    fleet: Fleet, judged: Sequence[Judged], changes: Mapping[str, Changes], begins: datetime, now: datetime, *,
    automated: bool,
) -> dict[str, str]:  # fmt: skip
    """By member, why it is not replaced yet: its own form, a budget of 0 when the rollout `begins`, or its turn."""
    unfit = {member: change.forbids for member, change in changes.items()}
    budgets = caps(fleet.limits, len(judged), begins)
    later = due_times(judged, fleet.limits, step_cost(fleet)[1].total_seconds(), now) if automated else {}
    return {
        (key := one.member.id): unfit.get(key) or frozen(one.rules, budgets) or not_yet(fleet, later.get(key), now)
        for one in judged
        if one.violations
    }


def refuse_standstill(fleet: Fleet, now: datetime) -> Hold | None:
    """Until when nothing may be done. Raises RefusedError where no end of that is in sight."""
    hold = may_act(fleet.limits, now)
    if hold and hold.until is None:
        mend = "an explicit 0 freezes the fleet, and a window that never opens as well"
        raise RefusedError(f"{hold.why}, with no end within a year", hint=f"change it in the fleet's file: {mend}")
    return hold


def frozen(rules: Iterable[str], budgets: Sequence[Cap]) -> str:
    """Why a budget of 0 leaves alone what violates these rules, a member or a group; empty when none binds it."""
    rule = gravest(rules)
    cap = next((cap for cap in budgets if not cap.most and cap.binds(rule)), None)
    return f"{cap.name} allows no member that is {rule}" if cap else ""


def not_yet(fleet: Fleet, turn: datetime | None, now: datetime) -> str:
    """Why an automated run leaves a member to a later one; empty when its `turn` has come, or it waits for none."""
    if turn is None or turn <= now:
        return ""
    return f"its turn comes at {turn:%Y-%m-%d %H:%M} UTC (limits.jitter {fleet.limits.jitter})"


def _steps(
    fleet: Fleet, rolled: Sequence[Judged], changes: Mapping[str, Changes], others: Mapping[str, ReplacementImage]
) -> list[Step]:
    nothing = Changes()
    return [
        Step(
            one.member, tuple(reason.what for reason in one.violations), gravest(one.rules),
            int(step_cost(fleet, one.member.first_check)[1].total_seconds()),
            changes.get(one.member.id, nothing).told, one.deadline, target=others.get(one.member.id),
        )
        for one in rolled
    ]  # fmt: skip


# -- what forbids a rollout as a whole, and why one member is left alone -----------------------------------------------


def refuse_target(fleet: Fleet, target: ReplacementImage, now: datetime) -> None:
    """Refuse a replacement that would be a violation itself, today or soon."""
    golden, limits = target.golden, fleet.limits
    if golden is None and target.followed:
        if target.waits:
            raise RefusedError(f"the replacement {target.reference} is not taken: {target.waits}")
        return
    if golden is None:
        hint = "publish it, or build it on a golden image: unknown must not replace unknown"
        raise RefusedError(f"the origin of the replacement {target.reference} is unknown", hint=hint)
    what = f"the replacement {named(golden)}"
    publish = f"./goldsmith image.publish {golden.name}, then ./goldsmith image.promote {golden.name}"
    good = f"publish and promote a good one: {publish}"
    if golden.revoked_at:
        raise RefusedError(f"{what} is revoked: {golden.revoked_reason}", hint=good)
    if target.refused_because:
        raise RefusedError(f"{what} is refused by the present policy", evidence=target.refused_because, hint=good)
    if golden.expires_at - now < limits.min_remaining:
        expires = f"expires on {golden.expires_at:%Y-%m-%d %H:%M} UTC, within min_remaining"
        hint = f"give it new dates, and promote it: {publish}"
        raise RefusedError(f"{what} {expires} {shown(limits.min_remaining)}", hint=hint)
    if now - golden.published_at < limits.min_soak:
        hint = f"it may roll from {golden.published_at + limits.min_soak:%Y-%m-%d %H:%M} UTC"
        raise RefusedError(f"{what} is younger than min_soak {shown(limits.min_soak)}", hint=hint)


def refuse_plan(
    fleet: Fleet, judged: Sequence[Judged], target: ReplacementImage, now: datetime, adopt: Sequence[str]
) -> None:
    """Refuse what no member may become, and an inventory that is in doubt. A tag of others of which nothing may be
    taken yet refuses nothing: its members are left alone, each with that reason.
    """
    if not target.waits:
        refuse_target(fleet, target, now)
    refuse_implausible(fleet, judged, adopt)


def refuse_implausible(fleet: Fleet, judged: Sequence[Judged], adopt: Sequence[str]) -> None:
    """Refuse an inventory of which so much violates that the inventory itself is in doubt."""
    fraction = fleet.limits.max_violating_fraction
    take_over = "take members over on purpose: --adopt MEMBER, a glob, or all"
    for rule, most, adopted, hint in (
        ("expired", fraction.expired, (), "is the inventory right?"), ("unknown", fraction.unknown, adopt, take_over),
    ):  # fmt: skip
        broken = [one for one in judged if rule in one.rules and not _adopted(one.member, adopted)]
        if len(broken) > most * len(judged):
            are = f"{len(broken)} of {many(len(judged), 'member')} {'is' if len(broken) == 1 else 'are'}"
            what = f"{are} {rule}, more than max_violating_fraction.{rule}"
            names = "\n".join(one.member.name for one in broken[:20])
            raise RefusedError(f"{what} {most:g}", hint=hint, evidence=names)


def refuse_unmatched(adopt: Sequence[str], names: Sequence[str]) -> None:
    """Refuse an --adopt that matches no member: a typing mistake would leave the intended members as they are."""
    for glob in adopt:
        if glob != "all" and not any(fnmatchcase(name, glob) for name in names):
            hint = "./goldsmith fleet.scan FLEET lists the members"
            raise RefusedError(f"--adopt {glob}: no member matches", hint=hint)


def _adopted(member: Member, adopt: Sequence[str]) -> bool:
    return any(glob == "all" or fnmatchcase(member.name, glob) for glob in adopt)


def adoptions(made: Plan, adopt: Sequence[str]) -> dict[str, str]:
    """The members that ran another image until `adopt` took them over, by id: `name: old → new`."""
    new = made.target.reference
    return {
        one.id: f"{one.name}: {one.image.partition('@')[0]}@{one.exact.rpartition('@')[2]} → {new}"
        for one in (step.member for step in made.steps)
        if _adopted(one, adopt) and not one_repository(one.image, new)
    }


def becoming(one: Judged, target: ReplacementImage) -> ReplacementImage:
    """What takes the member's place: `target`, or the very image that it runs, of a tag that is followed, where it has
    only drifted and `target` may not be taken yet or is older.
    """
    tag = one.origin.followed
    if tag is None or not one.drifted or not one.rules <= MENDED_BY_SAME:
        return target
    if not (target.waits or target.digest in tag.older):
        return target
    return ReplacementImage(f"{repository(tag.tag)}@{tag.digest}", tag.digest, None, followed=True)


def why_not(fleet: Fleet, one: Judged, target: ReplacementImage, now: datetime, adopt: Sequence[str]) -> str:
    """Why a violating member is left alone; empty when it is to be replaced."""
    member, deadline = one.member, one.deadline
    if member.cannot_roll or target.waits:
        return member.cannot_roll or f"{target.reference} is not taken: {target.waits}"
    another = _another_image if fleet.replacement.image else _another_golden
    if reason := another(one, target, adopt) or _barred(one, target):
        return reason
    if member.protected_until and now < member.protected_until:
        overdue = deadline is not None and now >= deadline + fleet.limits.termination_grace
        if not overdue:
            return f"it asks not to be disrupted until {member.protected_until:%Y-%m-%d %H:%M} UTC"
    return _not_beside(fleet, one)


def in_group(judged: Iterable[Judged], group: Group) -> list[Judged]:
    """The members that a group's service replaces, and the containers beside them, judged as if they were the group: by
    its name people take it over, and waive.
    """
    found = [one for one in judged if group.id in (one.member.group, one.member.beside)]
    return [replace(one, member=_as_group(one.member, group)) for one in found]


def _as_group(member: Member, group: Group) -> Member:
    if member.beside:
        return replace(member, name=f"{group.name}:{member.name.rpartition(':')[2]}")
    return replace(member, name=group.name, cannot_roll=member.cannot_roll if member.claimed_by else "")


def violating_in(inside: Iterable[Judged]) -> list[Judged]:
    """Those of a group for which its service is to replace it; not what only stands beside them."""
    return [one for one in inside if one.violations and not one.member.beside]


def _not_beside(fleet: Fleet, one: Judged) -> str:
    """Why a member cannot stand beside its replacement, in a fleet that surges."""
    if fleet.limits.method is not Method.SURGE or not one.member.forced_in_place:
        return ""
    return f"method surge needs old and new side by side, and {', '.join(one.member.forced_in_place)}"


def _barred(one: Judged, target: ReplacementImage) -> str:
    """Why the very image that a member runs must not take its place; from elsewhere it may be of an approved source."""
    if target.digest not in one.member.known_by:
        return ""
    moves = not one_repository(one.member.image, target.reference)
    bars = one.rules & (BARS - {RunningRule.APPROVED_SOURCE} if moves else BARS)
    return f"its own image must not run again: {', '.join(sorted(bars))}" if bars else ""


def _another_image(one: Judged, target: ReplacementImage, adopt: Sequence[str]) -> str:
    """Why what a tag names must not take the member's place."""
    member, tag = one.member, one.origin.followed
    if tag and target.digest in tag.older:
        return f"{target.reference} is older than what it runs, which the tag named later"
    if target.digest in member.known_by and not one.drifted:
        who = "its maker rebuilds it" if target.followed else "its owner rebuilds it on the newer base"
        return f"{target.reference} has no newer digest yet: {who}"
    was_tagged = tag is not None and tag.seen is not None and BARE_ID.fullmatch(member.image)
    if not _adopted(member, adopt) and not was_tagged and not one_repository(member.image, target.reference):
        return f"it runs another image than {repository(target.reference)}; --adopt takes it over on purpose"
    return ""


def _another_golden(one: Judged, target: ReplacementImage, adopt: Sequence[str]) -> str:
    """Why a golden image must not take the member's place."""
    golden, origin = target.golden, one.origin
    if one.on_base and origin.base:
        return (
            f"an application image on {named(origin.base)}: its owner rebuilds it; give the fleet replacement.tag "
            "to roll it when its own tag has a newer digest"
        )
    same = origin.release and golden and origin.release.content == golden.content
    if same and not (one.drifted or _comes_home(one, target)):
        return "the replacement has the same content: rolling would change nothing"
    if origin.release and golden and origin.release.name != golden.name and not _adopted(one.member, adopt):
        return f"it runs {origin.release.name}, not {golden.name}; --adopt takes it over on purpose"
    return ""


def _comes_home(one: Judged, target: ReplacementImage) -> bool:
    """Whether it violates by where its image was pulled from, and `target` is pulled from elsewhere; AMIs are not.

    What runs by its id alone stays: an engine that has the image of this digest starts the next one by its id, too.
    """
    image = one.member.image
    minded = RunningRule.APPROVED_SOURCE in one.rules and "/" in target.reference and not BARE_ID.fullmatch(image)
    return minded and not one_repository(image, target.reference)


def refuse_surge(fleet: Fleet, violating: Sequence[Judged], left: Mapping[str, str]) -> None:
    """Refuse a surge where all that is left to roll are members that hold what cannot exist twice, naming it.

    `left`: why each one is left alone, by id; empty for one that is rolled.
    """
    forced = [one for one in violating if (why := _not_beside(fleet, one)) and left[one.member.id] == why]
    if forced and all(left.values()):
        held = "\n".join(f"{one.member.name}: {what}" for one in forced for what in one.member.forced_in_place)
        hint = 'set limits.method = "in_place" and limits.max_unavailable to at least 1 (a short outage of each)'
        what = "method surge needs old and new side by side, and this cannot exist twice"
        raise RefusedError(what, evidence=held, hint=hint)


# -- automated runs: who has time waits for a turn ---------------------------------------------------------------------


TWO_NIGHTS = timedelta(days=2)  # a night that fails, or comes late, costs no deadline


def due_times(judged: Sequence[Judged], limits: Limits, seconds: float, now: datetime) -> dict[str, datetime]:
    """When an automated run comes to each member that is merely too old and has time, by id; the others: at once.

    The turns lie evenly over `jitter` of the time from the beginning of a violation to its deadline, counted where
    windows, freezes and budgets let a rollout act. Nobody's turn comes later than two days, so that a night may fail,
    before the moment at which the member must begin at last: `seconds` before its deadline, with room for a canary and
    all that are due after it. All members' ids decide the order, so that turns stay while others are replaced.
    """
    aged = {one.member.id: one for one in judged if _has_time(one)}
    if not aged:
        return {}
    starts = min(now, *(reason.since for one in aged.values() for reason in one.violations if reason.since))
    span, rules = now - starts + LOOK_AHEAD, {gravest(one.rules) for one in aged.values()}
    timelines = {rule: Timeline(limits, len(judged), starts, span, rule) for rule in sorted(rules)}
    last = _last_beginnings(timelines, list(aged.values()), limits, len(judged), seconds)
    rank = {one: number for number, one in enumerate(sorted((one.member.id for one in judged), key=_scattered))}
    part = share(limits.jitter) / 100 / len(rank)
    return {
        member: _turn(timelines[gravest(one.rules)], one, last[member], rank[member] * part)
        for member, one in aged.items()
    }


def _scattered(member: str) -> tuple[bytes, str]:
    """What sorts members by nothing that they have in common."""
    return sha256(member.encode()).digest()[:8], member


def _has_time(one: Judged) -> bool:
    """Whether it is merely too old: what is worse is due at once, and without dates nobody knows of any time."""
    return bool(one.violations) and all(
        reason.rule in AGES and reason.since and reason.deadline for reason in one.violations
    )


def _last_beginnings(
    timelines: Mapping[str, Timeline], aged: Sequence[Judged], limits: Limits, desired: int, seconds: float
) -> Mapping[str, datetime]:
    """When each must begin at last, by the timelines of the rules that they are replaced for.

    Backwards from the deadlines, as many side by side as the tightest budget before the last deadline allows; and the
    rollout that it is of begins with a canary, if it has one.
    """
    due = [(one.deadline, one.member.id, gravest(one.rules)) for one in aged if one.deadline]
    budgets = [timeline.least(rule, max(due)[0]) for rule, timeline in timelines.items()]
    wide = min([Room(limits, desired, desired).most, *(budget for budget in budgets if budget)])
    takes = seconds + limits.bake_between_waves.total_seconds()
    canary = ceil(limits.canary / wide) * seconds + limits.bake_time.total_seconds() if limits.canary else 0.0
    last: dict[str, datetime] = {}
    begun: list[datetime] = []
    for deadline, member, rule in sorted(due, reverse=True):
        timeline = timelines[rule]
        ends = timeline.opened(min(deadline, begun[-wide]) if len(begun) >= wide else deadline)
        begun.append(timeline.moment(max(0.0, ends - takes)))
        last[member] = timeline.moment(max(0.0, ends - takes - canary))
    return last


def _turn(timeline: Timeline, one: Judged, last: datetime, part: float) -> datetime:
    since = min(reason.since for reason in one.violations if reason.since)
    began, due = timeline.opened(since), timeline.opened(one.deadline or timeline.end)
    spread = timeline.moment(began + part * (due - began)) if part else since
    return min(spread, last - TWO_NIGHTS)
