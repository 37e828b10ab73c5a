"""How a fleet gets back into policy: waves of steps within its limits, or a refusal that says what forbids it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from hashlib import sha256
from math import ceil
from types import MappingProxyType
from typing import assert_never

from hardening.foundation.durations import shown
from hardening.foundation.errors import RefusedError
from pipelines.fleet.calendar import share
from pipelines.fleet.members import Changes, ReplacementImage, repository
from pipelines.fleet.model import Fleet, FleetKind, Limits, Method, ReplacementStrategy
from pipelines.fleet.port import Group, Pacing
from pipelines.fleet.violations import Judged, named
from pipelines.rollout.schedule import AGES, LOOK_AHEAD, Cap, Hold, Timeline, caps, gravest, may_act
from pipelines.rollout.waves import Late, Room, Step, Wave, forecast


@dataclass(frozen=True)
class Skip:
    """A member that violates and is left alone, and why."""

    member: str
    why: str


def by_reason(left: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The names of members that are left alone, by why they are; `left` has the id of each, and why."""
    found: dict[str, list[str]] = {}
    for member, why in left:
        found.setdefault(why, []).append(member.rpartition("/")[2])
    return found


@dataclass(frozen=True)
class GroupStep:
    """One group that a service rolls as a whole, and the pace that it is asked for."""

    group: Group
    pacing: Pacing

    @property
    def whole(self) -> bool:
        """Whether the canary is all of the group."""
        return not self.pacing.checkpoint_percents


@dataclass(frozen=True)
class Plan:
    """What a rollout would do: `floor` members serve at every moment, and it takes `seconds` at least.

    Members first, wave after wave, then the `groups`, one after the other. `hold`: until when windows, freezes or
    budgets let it do nothing. `calls`: what it asks of a service that limits its callers. `rehearsed`: each new member
    is tried beside the old one first. `ends_at`: when the last wave has baked, as predicted; None without waves, or
    where that is not within a year. `late`: whose deadlines it cannot meet, of those still to come.
    """

    fleet: str
    target: ReplacementImage
    method: Method
    desired: int
    floor: int
    waves: tuple[Wave, ...]
    skipped: tuple[Skip, ...]
    seconds: int
    hold: Hold | None = None
    calls: tuple[Calls, ...] = ()
    groups: tuple[GroupStep, ...] = ()
    rehearsed: bool = False
    ends_at: datetime | None = None
    late: tuple[Late, ...] = ()

    @property
    def parts(self) -> int:
        """How many parts it has, one after the other: waves and groups."""
        return len(self.waves) + len(self.groups)

    @property
    def deadlines_met(self) -> int:
        """How many of its members are replaced by their deadlines."""
        return sum(step.deadline is not None and step.in_time for step in self.steps)

    @property
    def overdue(self) -> int:
        """How many of its members were past their deadlines when it was made."""
        return sum(not step.in_time for step in self.steps) - len(self.late)

    @property
    def names(self) -> dict[str, str]:
        """Whom it rolls, by id, in its order."""
        members = {step.member.id: step.member.name for step in self.steps}
        return members | {step.group.id: step.group.name for step in self.groups}

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps of members in order."""
        return tuple(step for wave in self.waves for step in wave.steps)


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
        refuse_target(fleet, target, now)
        refuse_implausible(fleet, judged, adopt)
    hold = refuse_standstill(fleet, now) if violating else None
    begins = hold.until if hold and hold.until else now
    kept = _kept(fleet, judged, changes, begins, now, automated=automated)
    left = {one.member.id: why_not(fleet, one, target, now, adopt) or kept[one.member.id] for one in violating}
    rolled = [one for one in violating if not left[one.member.id]]
    refuse_surge(fleet, violating, left)
    needed = calls(fleet, (one.member.id for one in rolled))
    call_seconds = max((call.seconds for call in needed), default=0) / max(1, len(rolled))
    room = Room(fleet.limits, len(judged), sum(one.member.healthy for one in judged), call_seconds)
    predicted = forecast(_steps(fleet, rolled, changes), room, now)
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
        rehearsed=fleet.kind is FleetKind.DOCKER and fleet.limits.method is Method.IN_PLACE and fleet.limits.rehearsal,
        ends_at=predicted.ends_at if made else None,
        late=predicted.late,
    )


def _kept(
    fleet: Fleet, judged: Sequence[Judged], changes: Mapping[str, Changes], begins: datetime, now: datetime, *,
    automated: bool,
) -> dict[str, str]:  # fmt: skip
    """By member, why it is not replaced yet: its own form, a budget of 0 when the rollout `begins`, or its turn."""
    unfit = {member: change.forbids for member, change in changes.items()}
    budgets = caps(fleet.limits, len(judged), begins)
    later = due_times(judged, fleet.limits, step_cost(fleet)[1].total_seconds(), now) if automated else {}
    return {
        one.member.id: unfit.get(one.member.id) or frozen(one, budgets) or not_yet(fleet, later.get(one.member.id), now)
        for one in judged
        if one.violations
    }


def refuse_standstill(fleet: Fleet, now: datetime) -> Hold | None:
    """Until when nothing may be done. Raises RefusedError where no end of that is in sight."""
    hold = may_act(fleet.limits, now)
    if hold and hold.until is None:
        mend = "an explicit 0 freezes the fleet, and a window that never opens as well"
        raise RefusedError(f"{hold.why}, and no end of that is in sight", hint=f"change it in the fleet's file: {mend}")
    return hold


def frozen(one: Judged, budgets: Sequence[Cap]) -> str:
    """Why a budget of 0 leaves this member alone; empty when none binds it."""
    rule = gravest(one.rules)
    cap = next((cap for cap in budgets if not cap.most and cap.binds(rule)), None)
    return f"{cap.name} allows no member that is {rule}" if cap else ""


def not_yet(fleet: Fleet, turn: datetime | None, now: datetime) -> str:
    """Why an automated run leaves a member to a later one; empty when its `turn` has come, or it waits for none."""
    if turn is None or turn <= now:
        return ""
    return f"its turn comes at {turn:%Y-%m-%d %H:%M} UTC (limits.jitter {fleet.limits.jitter})"


def _steps(fleet: Fleet, rolled: Sequence[Judged], changes: Mapping[str, Changes]) -> list[Step]:
    seconds, nothing = int(step_cost(fleet)[1].total_seconds()), Changes()
    return [
        Step(
            one.member, tuple(reason.what for reason in one.violations), gravest(one.rules), seconds,
            changes.get(one.member.id, nothing).told, one.deadline,
        )
        for one in rolled
    ]  # fmt: skip


# -- what forbids a rollout as a whole, and why one member is left alone -----------------------------------------------


def refuse_target(fleet: Fleet, target: ReplacementImage, now: datetime) -> None:
    """Refuse a replacement that would be a violation itself, today or soon."""
    golden, limits = target.golden, fleet.limits
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


def refuse_implausible(fleet: Fleet, judged: Sequence[Judged], adopt: Sequence[str]) -> None:
    """Refuse an inventory of which so much violates that the inventory itself is in doubt."""
    fraction = fleet.limits.max_violating_fraction
    take_over = "take members over on purpose: --adopt MEMBER, a glob, or all"
    for rule, most, adopted, hint in (
        ("expired", fraction.expired, (), "is the inventory right?"), ("unknown", fraction.unknown, adopt, take_over),
    ):  # fmt: skip
        broken = [one for one in judged if rule in one.rules and not _adopted(one, adopted)]
        if len(broken) > most * len(judged):
            what = f"{len(broken)} of {len(judged)} members are {rule}, more than max_violating_fraction.{rule}"
            names = "\n".join(one.member.name for one in broken[:20])
            raise RefusedError(f"{what} {most:g}", hint=hint, evidence=names)


def refuse_unmatched(adopt: Sequence[str], names: Sequence[str]) -> None:
    """Refuse an --adopt that matches no member: a typing mistake would leave the intended members as they are."""
    for glob in adopt:
        if glob != "all" and not any(fnmatchcase(name, glob) for name in names):
            hint = "./goldsmith fleet.scan FLEET lists who is there"
            raise RefusedError(f"--adopt {glob}: no member matches", hint=hint)


def _adopted(one: Judged, adopt: Sequence[str]) -> bool:
    return _named(one.member.name, adopt)


def _named(member: str, adopt: Sequence[str]) -> bool:
    return any(glob == "all" or fnmatchcase(member, glob) for glob in adopt)


def adoptions(made: Plan, adopt: Sequence[str]) -> dict[str, str]:
    """The members that ran another image until `adopt` took them over, by id: `name: old → new`."""
    new = made.target.reference
    return {
        one.id: f"{one.name}: {one.image.partition('@')[0]}@{one.exact.rpartition('@')[2]} → {new}"
        for one in (step.member for step in made.steps)
        if _named(one.name, adopt) and repository(one.image) != repository(new)
    }


def why_not(fleet: Fleet, one: Judged, target: ReplacementImage, now: datetime, adopt: Sequence[str]) -> str:
    """Why a violating member is left alone; empty when it is to be replaced."""
    member, deadline = one.member, one.deadline
    if member.cannot_roll:
        return member.cannot_roll
    if fleet.replacement.tag:
        if target.digest in member.digests and not one.drifted:
            return f"{target.reference} has no newer digest yet: its owner rebuilds it on the newer base"
        if not _adopted(one, adopt) and repository(member.image) != repository(target.reference):
            return f"it runs another image than {repository(target.reference)}; --adopt takes it over on purpose"
    elif reason := _another_golden(one, target, adopt):
        return reason
    if member.protected_until and now < member.protected_until:
        overdue = deadline is not None and now >= deadline + fleet.limits.termination_grace
        if not overdue:
            return f"it asks not to be disrupted until {member.protected_until:%Y-%m-%d %H:%M} UTC"
    return _not_beside(fleet, one)


def _not_beside(fleet: Fleet, one: Judged) -> str:
    """Why a member cannot stand beside its replacement, in a fleet that surges."""
    if fleet.limits.method is not Method.SURGE or not one.member.forced_in_place:
        return ""
    return f"method surge needs old and new side by side, and {', '.join(one.member.forced_in_place)}"


def _another_golden(one: Judged, target: ReplacementImage, adopt: Sequence[str]) -> str:
    """Why a golden image must not take the member's place."""
    golden, origin = target.golden, one.origin
    if one.on_base and origin.base:
        return (
            f"an application image on {named(origin.base)}: its owner rebuilds it; give the fleet replacement.tag "
            "to roll it when its own tag has a newer digest"
        )
    if origin.release and golden and origin.release.content == golden.content and not one.drifted:
        return "the replacement has the same content: rolling would change nothing"
    if origin.release and golden and origin.release.name != golden.name and not _adopted(one, adopt):
        return f"it runs {origin.release.name}, not {golden.name}; --adopt takes it over on purpose"
    return ""


def refuse_surge(fleet: Fleet, violating: Sequence[Judged], fates: Mapping[str, str]) -> None:
    """Refuse a surge where all that is left to roll are members that hold what cannot exist twice, naming it.

    `fates`: why each one is left alone, by id; empty for one that is rolled.
    """
    forced = [one for one in violating if (why := _not_beside(fleet, one)) and fates[one.member.id] == why]
    if forced and all(fates.values()):
        held = "\n".join(f"{one.member.name}: {what}" for one in forced for what in one.member.forced_in_place)
        hint = 'set limits.method = "in_place" and limits.max_unavailable to at least 1 (a short outage of each)'
        what = "method surge needs old and new side by side, and this cannot exist twice"
        raise RefusedError(what, evidence=held, hint=hint)


# -- what a rollout costs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bucket:
    """Calls that share a limit: how many may come at once, and how many more each second."""

    name: str
    tokens: int
    each_second: int

    def seconds(self, number: int) -> int:
        """How long so many calls last at least, beginning with a full bucket, in seconds, rounded up."""
        return max(0, ceil((number - self.tokens) / self.each_second))


# https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
DESCRIBE = Bucket("Describe, paginated", 100, 20)
RUN = Bucket("RunInstances", 5, 2)
LAUNCHED = Bucket("instances launched", 1000, 2)
TERMINATE = Bucket("TerminateInstances", 100, 5)
TAG = Bucket("CreateTags", 100, 10)
OTHER = Bucket("other changes", 50, 5)

# Looks: judging again, one for each read of its health, and one to see that it is gone.
_ROOT_VOLUME = {DESCRIBE: 12, TAG: 1, OTHER: 2}
_NEW_INSTANCE = {DESCRIBE: 12, RUN: 1, LAUNCHED: 1, TERMINATE: 1, TAG: 2, OTHER: 4}
_CONTAINER_STARTS = timedelta(seconds=3)
_INSTANCE_BOOTS = timedelta(seconds=60)
_VOLUME_REPLACED = timedelta(seconds=120)


@dataclass(frozen=True)
class Calls:
    """How many calls of a bucket a rollout makes in one account and region, and how many seconds they last at least."""

    place: str
    bucket: str
    calls: int
    seconds: int


def calls(fleet: Fleet, members: Iterable[str]) -> tuple[Calls, ...]:
    """All calls of a rollout over `members`, whose ids begin with account and region."""
    each, _ = step_cost(fleet)
    places = Counter("/".join(member.split("/", 2)[:2]) for member in members)
    return tuple(
        Calls(place, bucket.name, number * steps, bucket.seconds(number * steps))
        for place, steps in sorted(places.items())
        for bucket, number in each.items()
    )


def step_cost(fleet: Fleet) -> tuple[Mapping[Bucket, int], timedelta]:
    """The calls that replacing one member makes, and how long it takes at least, where nothing goes wrong."""
    limits = fleet.limits
    each = limits.min_healthy_time + (limits.settle if limits.method is Method.SURGE else timedelta())
    match fleet.kind:
        case FleetKind.DOCKER:
            return {}, each + _CONTAINER_STARTS
        case FleetKind.EC2 if fleet.ec2.way is ReplacementStrategy.ROOT_VOLUME:
            return _ROOT_VOLUME, each + limits.drain + _VOLUME_REPLACED
        case FleetKind.EC2:
            return _NEW_INSTANCE, each + limits.drain + _INSTANCE_BOOTS
        case FleetKind.KUBERNETES:  # whose controllers step its pods
            return {}, each + limits.drain
        case _:
            assert_never(fleet.kind)


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
