"""How new instances prove their health: each after its start, a wave while it bakes, the fleet at the end. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

from hardening.foundation.durations import shown
from hardening.foundation.errors import GoldsmithError, OutsideError
from hardening.foundation.text import last_line
from pipelines.fleet.members import Key, Read
from pipelines.fleet.port import Group, Progress, Watched
from pipelines.rollout.state import Cause, DesiredState, Event, MemberState, OperatorCommands, Phase, RolloutStage
from pipelines.rollout.steps import PATIENT_TRIES, TRIES, Backoff, MemberContext, Pairs, Rolling, UnhealthyError

LEAST_READS = 3
SHOWN_READS = 5
MOST_BETWEEN_READS = timedelta(seconds=5)
MOST_ROUNDS = 60


class IllError(UnhealthyError):
    """New members fell ill while they baked: `members`, by id, are all that were not well when that was seen."""

    def __init__(self, message: str, members: Sequence[str], *, evidence: str) -> None:
        super().__init__(message, evidence=evidence, hint="fix the image; the old one serves")
        self.members = tuple(members)


async def settle(rolling: Rolling) -> None:
    """Let every member that serves prove its health again: the rollout has failed, and their health is unknown.

    Raises IllError and StoppedError.
    """
    proof = rolling.order.limits.min_healthy_time
    await _until_over(rolling, _Bake(HealthStreak(proof, LEAST_READS, proof), judged=False), rolling.pairs())


async def bake(rolling: Rolling, span: timedelta, *, asks: bool) -> None:
    """Watch the wave's new members for `span`, and until a person approves where it `asks`; one look at least.

    Also those whose old one has vanished: they are new, and prove the version as well as any.

    An approval ends it early, a pause lets no time pass. Raises IllError, StoppedError, AlarmError and RefusedError.
    """
    proved_before = HealthStreak(timedelta(), 1, rolling.order.limits.min_healthy_time)
    await _until_over(rolling, _Bake(proved_before, span, asks), rolling.new())


async def bake_group(rolling: Rolling, group: str, whole: Group | None = None) -> None:
    """Wait for the bake of a group's canary, whose health the service watches, and until a person approves it.

    A canary that is the `whole` group has baked while it was rolled: until it is approved, it must stay well. Raises
    UnhealthyError where it does not, StoppedError, AlarmError and RefusedError.
    """
    nobody, span = HealthStreak(timedelta(), 1, timedelta()), rolling.order.limits.bake_time
    what = _Bake(nobody, timedelta() if whole else span, asks=True, of=f"the canary of {group}", whole=whole)
    await _until_over(rolling, what, ())


@dataclass(frozen=True)
class _Bake:
    """What bakes and for how long, and what `each` member has to prove; whether a person has to approve it, and the
    replacement is judged meanwhile. `of`: the group that bakes, whose members are not ours to read; `whole`: it, where
    the service says how all of it is.
    """

    each: HealthStreak
    span: timedelta = timedelta()
    asks: bool = False
    judged: bool = True
    of: str = ""
    whole: Group | None = None


async def _until_over(rolling: Rolling, what: _Bake, pairs: Pairs) -> None:
    keys = {member.id: order.key(member.old) for order, member in pairs}
    if not keys and not what.of:
        return
    span, asks, tries = what.span, what.asks, TRIES if keys else PATIENT_TRIES
    backoff = Backoff(rolling.runner.engine, max(span, what.each.span) / MOST_ROUNDS)
    rows = {member: replace(what.each, texts=[]) for member in keys}
    watch = partial(_watch, rolling, keys, what)
    before: int | None = None
    service = _Standing(what.of, rolling.order.limits.progress_deadline)
    while True:
        seen = await rolling.runner.see(_BakeLook, "watch the new members", watch, tries)
        desired_state, approvals = seen.orders.desired_state, seen.orders.canary_approvals
        before = approvals if before is None else before
        for member, read in seen.reads.items():
            rows[member].add(read)
        unproved = [member for member, row in rows.items() if not row.proved]
        good, over = not unproved and service.well(seen.service), backoff.slept >= span
        if good and desired_state is DesiredState.GO and (approvals > before or (over and not asks)):
            return
        late = bool(unproved) and backoff.slept - span >= rolling.order.limits.healthy_deadline
        if late or any(row.bad >= LEAST_READS for row in rows.values()):
            ill = [member for member in unproved if late or not rows[member].count]
            raise _ill(rolling, {member: rows[member] for member in ill}, late=late)
        await _show(rolling, desired_state, what, asks=over and asks)
        if not await rolling.runner.obey(desired_state, backoff):
            passed = await backoff.next(counts=not (over and asks and good))
            service.slept(passed)
            for row in rows.values():
                row.slept(passed)


@dataclass(frozen=True)
class _BakeLook:
    """What people have said, and one look at each new member, by its id, or at the service that keeps all of them."""

    orders: OperatorCommands
    reads: dict[str, HealthLook]
    service: Watched | None = None


@dataclass
class _Standing:
    """For how long a group that was well has not been well, and has come no nearer to it: at most for `most`."""

    group: str
    most: timedelta
    percent: int = -1
    stood: timedelta = timedelta()

    def well(self, seen: Watched | None) -> bool:
        """Whether it is well, or was not asked for. Raises UnhealthyError where it will not recover by itself."""
        if seen is None or seen.progress is Progress.DONE:
            self.percent, self.stood = -1, timedelta()
            return True
        if seen.percent != self.percent:
            self.percent, self.stood = seen.percent, timedelta()
        if seen.progress is not Progress.RUNNING or self.stood >= self.most:
            raise UnhealthyError(f"{self.group} became unhealthy: the service reports {seen.progress}: {seen.text}")
        return False

    def slept(self, span: timedelta) -> None:
        """Time has passed since the last look."""
        self.stood += span


def _watch(rolling: Rolling, keys: Mapping[str, Key], what: _Bake) -> _BakeLook:
    """What people say, and one look at each of the new members or at their service; for use inside a step."""
    if what.judged:
        for target in rolling.order.plan.targets:
            rolling.world.refuse(target, rolling.order.limits)
    orders = rolling.world.journal.orders(rolling.order.rollout)
    fleet, together = rolling.world.fleet, rolling.world.together
    reads = together([partial(look, partial(fleet.read, key)) for key in keys.values()])
    service = rolling.world.groups.watch(rolling.order.rollout, what.whole) if what.whole else None
    return _BakeLook(orders, dict(zip(keys, reads, strict=True)), service)


def _ill(rolling: Rolling, rows: dict[str, HealthStreak], *, late: bool) -> IllError:
    names = ", ".join(rolling.members[member].name for member in rows)
    seen = "\n".join(f"health: {text}" for row in rows.values() for text in row.texts)
    deadline = shown(rolling.order.limits.healthy_deadline)
    what = f"was not healthy within {deadline} after its bake" if late else "became unhealthy during the bake"
    return IllError(f"{names}: the new one {what}", tuple(rows), evidence=seen)


async def _show(rolling: Rolling, desired_state: DesiredState, what: _Bake, *, asks: bool) -> None:
    """Let people see what the rollout waits for."""
    if desired_state is DesiredState.PAUSE:
        stage, note, event = RolloutStage.PAUSED, "", Event.PAUSED
    elif asks:
        approve = f"./goldsmith roll.approve {rolling.order.plan.fleet}"
        stage, note = (
            RolloutStage.CANARY_APPROVAL,
            f"{what.of or 'the canary'} has baked; {approve} continues the rollout",
        )
        event = Event.APPROVAL
    else:
        stage, note, event = RolloutStage.BAKING, f"baking {what.of}".rstrip() + f" for {shown(what.span)}", None
    if rolling.state.stage is not stage:
        await rolling.save(stage, note, event)


# -- one instance ------------------------------------------------------------------------------------------------------


@dataclass
class HealthStreak:
    """Reads in a row: good since `count` reads, over `good_for`; wanted are `least` over `span`.

    After a bad read an instance must be good over `relapsed`, however short `span` was: its proof starts again.
    """

    span: timedelta
    least: int
    relapsed: timedelta
    count: int = 0
    bad: int = 0
    good_for: timedelta = timedelta()
    texts: list[str] = field(default_factory=list)

    def add(self, look: HealthLook) -> None:
        """One more read; one that could not be made (None) is not good."""
        good, text = look.good, look.text
        self.texts = [*self.texts[1 - SHOWN_READS :], text]
        self.count = self.count + 1 if good else 0
        self.good_for = self.good_for if good else timedelta()
        if good is not None:
            self.bad = 0 if good else self.bad + 1
        if good is False and self.relapsed > self.span:
            self.span, self.least = self.relapsed, LEAST_READS

    def slept(self, span: timedelta) -> None:
        """Time has passed since the last read."""
        if self.count:
            self.good_for += span

    @property
    def proved(self) -> bool:
        """Whether all reads over the span, and enough of them, were good."""
        return self.count >= self.least and self.good_for >= self.span


async def prove(work: MemberContext, span: timedelta) -> None:
    """Wait until the new instance was good in every read over `span`, at least three times: one alone proves nothing.

    Raises UnhealthyError with what was seen when it is not within healthy_deadline, StoppedError when a person says so.
    """
    row = await _watched(work, "new", HealthStreak(span, LEAST_READS, work.order.limits.min_healthy_time), obeys=True)
    if not row.proved:
        limit, seen = shown(work.order.limits.healthy_deadline), await evidence(work, row.texts)
        who = "the new one, tried beside the old one," if work.rehearses else "the new one"
        what = f"{work.order.name}: {who} was not healthy over {shown(span)} within {limit}"
        raise UnhealthyError(what, evidence=seen, hint="fix the image; the old one serves")


async def old_serves(work: MemberContext) -> bool:
    """Wait until the old instance is good; False when it is not within healthy_deadline."""
    return (await _watched(work, "old", HealthStreak(timedelta(), 1, timedelta()), obeys=False)).proved


async def _watched(work: MemberContext, which: str, row: HealthStreak, *, obeys: bool) -> HealthStreak:
    backoff = Backoff(work.runner.engine, min(row.span / LEAST_READS, MOST_BETWEEN_READS))
    while True:
        seen = await work.runner.see(_MemberLook, f"read the {which} {work.order.name}", lambda: _look(work, which))
        row.add(seen.look)
        hopeless = which == "new" and seen.look.ended
        if row.proved or hopeless or backoff.slept >= work.order.limits.healthy_deadline:
            return row
        if obeys:
            work.runner.refuse_stopped(seen.desired_state)
        row.slept(await backoff.next())


@dataclass(frozen=True)
class HealthLook:
    """One look at an instance: good, not good, or None where the fleet does not answer; and what was seen."""

    good: bool | None
    text: str
    ended: bool = False


@dataclass(frozen=True)
class _MemberLook:
    """One look at an instance, and what people want."""

    look: HealthLook
    desired_state: DesiredState


def _look(work: MemberContext, which: str) -> _MemberLook:
    seen = look(lambda: work.fleet.read(work.key) if which == "new" else work.fleet.read_old(work.key))
    return _MemberLook(seen, work.runner.desired_state())


def look(read: Callable[[], Read]) -> HealthLook:
    """One look at an instance, for use inside a step."""
    try:
        seen = read()
    except OutsideError as error:
        return HealthLook(None, error.message)
    return HealthLook(seen.good, seen.text, seen.ended)


async def evidence(work: MemberContext, texts: Sequence[str]) -> str:
    """The last reads, and the last lines that the new instance printed."""
    log = await work.runner.look(f"read the log of {work.order.name}", lambda: _log(work))
    health = (f"health: {last_line(text)}" for text in texts)
    return "\n".join([*health, *(f"log: {line}" for line in log.splitlines())])


def _log(work: MemberContext) -> str:
    try:
        return work.fleet.log(work.key)
    except OutsideError as error:
        return error.message


# -- who serves when a rollout begins, and when it ends ----------------------------------------------------------------


@dataclass(frozen=True)
class Census:
    """The members of a fleet by id: the names of those that serve, and all that are there."""

    serving: dict[str, str]
    all: tuple[str, ...]


async def count(rolling: Rolling) -> Census:
    """Who is there, and who serves. Raises OutsideError."""

    def look() -> Census:
        members = rolling.world.fleet.describe()
        return Census({one.id: one.name for one in members if one.healthy}, tuple(one.id for one in members))

    return await rolling.runner.see(Census, "count who serves", look)


async def count_at_first(rolling: Rolling) -> Census | None:
    """The same before anything is done; None where the fleet does not answer, which the rollout meets soon enough, and
    where a service rolls all of it, which looks after that itself.
    """
    if not rolling.order.plan.waves:
        return None
    try:
        return await count(rolling)
    except GoldsmithError:
        return None


async def refuse_fewer(rolling: Rolling, before: Census | None) -> None:
    """Fail a rollout that has not failed yet if fewer members serve than when it began, unless it has said why.

    One look proves nothing here either: a missing member is looked for again.
    """
    if before is None or rolling.state.failure:
        return
    backoff, why = Backoff(rolling.runner.engine), ""
    for _ in range(LEAST_READS):
        try:
            why = fewer(before, await count(rolling), rolling.members)
        except GoldsmithError as error:
            why = f"unknown who serves at its end: {error}"
        if not why:
            return
        await backoff.next()
    await rolling.save(RolloutStage.RESTORING, why, failure=why)


def fewer(before: Census, after: Census, members: Mapping[str, MemberState]) -> str:
    """What is to be said where fewer serve than before; empty where as many do.

    A member that was left alone because it was gone has been told of; one that is there for the first time counts for
    one that went.
    """
    said = {one.id for one in members.values() if one.phase is Phase.SKIPPED and one.cause is Cause.GONE}
    missing = [name for member, name in before.serving.items() if member not in after.serving and member not in said]
    joined = [member for member in after.serving if member not in before.all]
    if len(missing) <= len(joined):
        return ""
    began, ends = len(before.serving), len(after.serving)
    return f"it began with {began} serving members and ends with {ends}; these serve no longer: {', '.join(missing)}"
