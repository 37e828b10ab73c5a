"""Which members are replaced together, when, and which deadlines that misses because of which limit. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hardening.foundation.durations import shown
from hardening.foundation.errors import RefusedError
from pipelines.fleet.members import Member, ReplacementImage
from pipelines.fleet.model import Limits, Method, Zones
from pipelines.rollout.schedule import GRAVEST_FIRST, Cap, Timeline


@dataclass(frozen=True)
class Step:
    """One member that is replaced, why, which of the reasons the budgets count, and the seconds it takes at least.

    `changes`: what the replacement changes in it beside its files. `deadline`: when the first of the reasons must be
    gone; `begins_at` and `ends_at`: when it begins and the new one serves, as predicted, None where the limits let it
    begin at no time within a year. `target`: what it becomes, where that is not what the plan names.
    """

    member: Member
    why: tuple[str, ...]
    rule: str = ""
    seconds: int = 0
    changes: tuple[str, ...] = ()
    deadline: datetime | None = None
    begins_at: datetime | None = None
    ends_at: datetime | None = None
    target: ReplacementImage | None = None

    @property
    def in_time(self) -> bool:
        """Whether it is predicted to be replaced by its deadline; one without any always is."""
        return self.deadline is None or (self.ends_at is not None and self.ends_at <= self.deadline)


@dataclass(frozen=True)
class Wave:
    """Members that are replaced, `parallel` at a time; then `bake` passes, and only then the old ones are removed.

    The flow starts that many steps, awaits them all, and only then starts the next.
    """

    steps: tuple[Step, ...]
    bake: timedelta
    parallel: int = 1
    canary: bool = False

    @property
    def batches(self) -> tuple[tuple[Step, ...], ...]:
        """The steps that run at the same time."""
        return tuple(self.steps[at : at + self.parallel] for at in range(0, len(self.steps), self.parallel))

    @property
    def seconds(self) -> int:
        """How long it takes at least."""
        working = sum(max(step.seconds for step in batch) for batch in self.batches)
        return working + int(self.bake.total_seconds())

    @property
    def begins_at(self) -> datetime | None:
        """When its first members are replaced, as predicted."""
        return self.steps[0].begins_at if self.steps else None


@dataclass(frozen=True)
class Room:
    """What a fleet of `desired` members, of which `serving` are healthy, gives a rollout: `most` at once, and the
    `floor`, below which the number of those that serve must not fall. `call_seconds`: how long the calls for one member
    last where a service limits its callers. `by_zone`: how many of those that serve are in each zone that is known.
    """

    limits: Limits
    desired: int
    serving: int
    call_seconds: float = 0.0
    by_zone: Mapping[str, int] = field(default_factory=dict)

    @property
    def most(self) -> int:
        """How many members may be replaced at once, whatever their reasons."""
        surge = self.limits.surge(self.desired) if self.limits.method is Method.SURGE else self.desired
        return min(self.limits.max_parallel, surge)

    @property
    def floor(self) -> int:
        """How many members must serve at every moment."""
        return max(0, self.desired - self.limits.unavailable(self.desired))


@dataclass
class Prediction:
    """The predicted time of a rollout: `at` is where it stands; None once limits let nothing begin within a year.

    Without a timeline nothing is predicted, and no budget holds.
    """

    timeline: Timeline | None = None
    at: datetime | None = None

    def free(self, rules: Sequence[str]) -> tuple[Cap, ...]:
        """Wait until a member replaced for one of `rules` may begin; the budgets of that moment."""
        if self.timeline is None or self.at is None:
            return ()
        found = [first for rule in rules if (first := self.timeline.free(self.at, rule))]
        self.at, caps = min(found, key=lambda one: one[0], default=(None, ()))
        return caps

    def passes(self, seconds: float) -> None:
        """Let so much time pass."""
        self.at = self.at + timedelta(seconds=seconds) if self.at else None


@dataclass
class _Batch:
    """Steps that run at the same time, as they are gathered; `serving` meanwhile."""

    room: Room
    most: int
    serving: int
    caps: tuple[Cap, ...] = ()
    steps: list[Step] = field(default_factory=list)
    used: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)  # who serves meanwhile, by zone

    def __post_init__(self) -> None:
        self.left.update(self.room.by_zone)

    def take(self, step: Step) -> bool:
        """Whether the step has room beside the others; if so it is one of them."""
        bound = [cap for cap in self.caps if cap.binds(step.rule)]
        stays = self.serving - self._costs(step)
        below = stays < self.serving and (stays < self.room.floor or self._empties_another_zone(step))
        if below or not self._beside(step) or any(self.used[cap.name] >= cap.most for cap in bound):
            return False
        self.steps.append(step)
        for cap in bound:
            self.used[cap.name] += 1
        self.left[step.member.zone] -= self._costs(step)
        self.serving = stays
        return True

    @property
    def after(self) -> int:
        """How many serve once all of these are replaced: those that were ill, too."""
        return self.serving + sum(self._costs(step) or not step.member.healthy for step in self.steps)

    def end(self, predicted: Prediction) -> None:
        """Let its time pass, and note when each of its members is replaced."""
        began, calls = predicted.at, len(self.steps) * self.room.call_seconds
        predicted.passes(max(*(step.seconds for step in self.steps), calls))
        if began:
            self.steps = [
                replace(step, begins_at=began, ends_at=began + timedelta(seconds=max(step.seconds, calls)))
                for step in self.steps
            ]

    def _costs(self, step: Step) -> int:
        """How many members fewer serve while the step runs."""
        return int(step.member.healthy and self.room.limits.method is Method.IN_PLACE)

    def _empties_another_zone(self, step: Step) -> bool:
        """Whether the step takes the last that serves in its zone, and the others take that of another zone already."""
        last = self.left[step.member.zone] == 1
        return last and any(zone != step.member.zone and not self.left[zone] for zone in self.room.by_zone)

    def _beside(self, step: Step) -> bool:
        zones = self.room.limits.zones
        same = zones is Zones.SPREAD or not self.steps or self.steps[0].member.zone == step.member.zone
        return same and len(self.steps) < self.most


def waves(steps: Sequence[Step], room: Room, predicted: Prediction | None = None) -> tuple[Wave, ...]:
    """The canary wave, and then one wave after the other, each as wide as every limit allows when its time comes.

    `predicted` begins now, and stands at the predicted end afterwards. Raises RefusedError where a step would leave
    fewer members serving than `max_unavailable` asks for.
    """
    predicted = predicted or Prediction()
    limits, ordered = room.limits, in_order(steps, room.limits.zones, predicted.at)
    canary, rest = ordered[: limits.canary], ordered[limits.canary :]
    made, serving = [], room.serving
    if canary:
        first = _canary(canary, room, predicted)
        together = tuple(step for batch in first for step in batch.steps)
        made.append(Wave(together, limits.bake_time, len(first[0].steps), canary=True))
        serving = first[-1].after
        predicted.passes(limits.bake_time.total_seconds())
    for batch in _batches(rest, room, room.most, serving, predicted):
        made.append(Wave(tuple(batch.steps), limits.bake_between_waves, len(batch.steps)))
        predicted.passes(limits.bake_between_waves.total_seconds())
    return tuple(made)


def canary_of(wave: Wave, limits: Limits) -> tuple[Wave, ...]:
    """The wave with a canary of its own before the rest of it: the canary wave before it has proved nothing."""
    first, rest = wave.steps[: limits.canary], wave.steps[limits.canary :]
    canary = Wave(first, max(limits.bake_time, wave.bake), min(wave.parallel, len(first)), canary=True)
    return (canary, replace(wave, steps=rest)) if rest else (canary,)


def _canary(steps: Sequence[Step], room: Room, predicted: Prediction) -> list[_Batch]:
    """The canaries in batches of one width, the widest that fits; a width of one always does."""
    for width in range(min(room.most, len(steps)), 0, -1):
        tried = replace(predicted)
        made = list(_batches(steps, room, width, room.serving, tried))
        if width == 1 or all(len(batch.steps) == width for batch in made[:-1]):
            predicted.at = tried.at
            return made
    raise AssertionError("max_parallel and max_surge are at least 1")


# -- the order ---------------------------------------------------------------------------------------------------------

_GRAVITY = {str(rule): number for number, rule in enumerate(GRAVEST_FIRST)}
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
Urgency = tuple[datetime, int, datetime]


def in_order(steps: Sequence[Step], zones: Zones, now: datetime | None = None) -> list[Step]:
    """Members that do not serve come first, for replacing them costs nothing; then the earliest deadline, then the id.

    Zone by zone, that of the most urgent member first; or dealt over the zones, where members are equally urgent.
    """
    ranked = [(step.member.healthy, urgency(step, now), step.member.id, step) for step in steps]
    ranked.sort(key=lambda one: one[:3])
    if zones is Zones.ONE_BY_ONE:
        first: dict[tuple[bool, str], tuple[Urgency, str]] = {}
        for healthy, urgent, _, step in ranked:
            first.setdefault((healthy, step.member.zone), (urgent, step.member.zone))
        ranked.sort(key=lambda one: (one[0], first[one[0], one[3].member.zone]))
        return [step for *_, step in ranked]
    met: Counter[tuple[bool, Urgency, str]] = Counter()
    dealt = []
    for healthy, urgent, _, step in ranked:
        met[healthy, urgent, step.member.zone] += 1
        dealt.append((healthy, urgent, met[healthy, urgent, step.member.zone], step.member.zone, step))
    return [step for *_, step in sorted(dealt, key=lambda one: one[:-1])]


def urgency(step: Step, now: datetime | None) -> Urgency:
    """What sorts members: the deadline, then the gravest reason; past it at `now`, the gravest reason first."""
    gravity = _GRAVITY.get(step.rule, len(_GRAVITY))
    if step.deadline is None or (now is not None and step.deadline <= now):
        return _LONG_AGO, gravity, step.deadline or _LONG_AGO
    return step.deadline, gravity, step.deadline


def _batches(steps: Sequence[Step], room: Room, most: int, serving: int, predicted: Prediction) -> Iterator[_Batch]:
    """As many steps together as have room beside each other, the first of each rule in their order.

    A member that waits for a budget lets those pass that are replaced for another rule, but not those of another zone.
    """
    queues: dict[str, deque[tuple[int, Step]]] = {}
    for number, step in enumerate(steps):
        queues.setdefault(step.rule, deque()).append((number, step))
    while queues:
        zone = min(queue[0][0] for queue in queues.values())
        waiting = _of_zone(queues, steps[zone].member.zone, room.limits.zones)
        batch = _Batch(room, most, serving, predicted.free(tuple(waiting)))
        _fill(batch, waiting)
        if not batch.steps:  # who may begin has no room: it may have some after who waits for a budget
            batch.caps = predicted.free((steps[zone].rule,))
            _fill(batch, waiting)
        if not batch.steps:
            raise _no_room(steps[zone], batch)
        for rule in [rule for rule, queue in queues.items() if not queue]:
            del queues[rule]
        serving = batch.after
        batch.end(predicted)
        yield batch


def _of_zone(queues: dict[str, deque[tuple[int, Step]]], zone: str, zones: Zones) -> dict[str, deque[tuple[int, Step]]]:
    """The steps of each rule whose first is in the zone whose turn it is; of all, where zones are mixed."""
    return {rule: queue for rule, queue in queues.items() if zones is Zones.SPREAD or queue[0][1].member.zone == zone}


def _fill(batch: _Batch, queues: dict[str, deque[tuple[int, Step]]]) -> None:
    open_rules = dict(queues)
    while open_rules and len(batch.steps) < batch.most:
        rule = min(open_rules, key=lambda one: open_rules[one][0][0])
        if batch.take(open_rules[rule][0][1]):
            open_rules[rule].popleft()
        else:
            del open_rules[rule]
            continue
        if not open_rules[rule]:
            del open_rules[rule]


def _no_room(step: Step, batch: _Batch) -> RefusedError:
    """Why a step has no room even alone: only the floor does that; a budget of 0 was refused before."""
    room, member = batch.room, step.member
    return RefusedError(
        f"replacing {member.name} in place leaves {batch.serving - 1} of {room.desired} members serving, but "
        f"max_unavailable {room.limits.max_unavailable} asks for {room.floor}",
        evidence="\n".join(f"{member.name}: {what}" for what in member.forced_in_place),
        hint="raise limits.max_unavailable" + ("" if member.forced_in_place else ', or set limits.method = "surge"'),
    )


# -- whose deadline cannot be met, and because of which limit ----------------------------------------------------------

UNLIMITED = 1_000_000_000
HINTS = {
    "limits.freezes": "let the freeze end earlier, or replace them before it begins",
    "limits.windows": "open a window before that, or a longer one",
    "limits.budgets": "raise its nodes, or let it hold at other times",
    "limits.max_parallel": "raise it",
    "limits.max_surge": "raise it",
    "limits.max_unavailable": "raise it",
    "limits.bake_time": "shorten it",
    "limits.bake_between_waves": "shorten it",
    "limits.zones": 'set it to "spread"',
}


@dataclass(frozen=True)
class Late:
    """A member whose deadline cannot be met. `limits`: the key paths of those without which it would be, all together;
    none: no limit is the cause, for one replacement alone takes longer. `hint`: what to change.
    """

    member: str
    deadline: datetime
    ends_at: datetime | None
    limits: tuple[str, ...]
    hint: str

    @property
    def cause(self) -> str:
        """What keeps it, in words."""
        return " and ".join(self.limits) or "no limit: one replacement alone takes longer"


@dataclass(frozen=True)
class Forecast:
    """Waves with predicted times; who cannot be in time; and the end after the last bake, None: not within a year."""

    waves: tuple[Wave, ...]
    late: tuple[Late, ...]
    ends_at: datetime | None


def forecast(steps: Sequence[Step], room: Room, now: datetime) -> Forecast:
    """The waves of a rollout that begins at `now`, the earliest deadline first, and the times that they come at.

    All times are the least that each step takes; a canary that waits for a person is approved right after its bake.
    Who is past the deadline at `now` is not among the late: nothing could be changed about that. Raises RefusedError.
    """
    made, ends_at = _predicted(steps, room, now)
    late = {
        step.member.id: step
        for wave in made
        for step in wave.steps
        if step.deadline and step.deadline > now and not step.in_time
    }
    if not late:
        return Forecast(made, (), ends_at)

    def met_without(keys: Collection[str]) -> set[str]:
        limits = without(room.limits, keys)
        again, _ = _predicted(steps, replace(room, limits=limits), now)
        return {one.member.id for wave in again for one in wave.steps if one.member.id in late and one.in_time}

    causes = _causes(late, limit_keys(room.limits), met_without)
    found = (_late(step, causes.get(step.member.id, ()), now) for step in late.values())
    return Forecast(made, tuple(sorted(found, key=lambda one: (one.deadline, one.member))), ends_at)


def _predicted(steps: Sequence[Step], room: Room, now: datetime) -> tuple[tuple[Wave, ...], datetime | None]:
    predicted = Prediction(Timeline(room.limits, room.desired, now), now)
    return waves(steps, room, predicted), predicted.at


def _late(step: Step, limits: tuple[str, ...], now: datetime) -> Late:
    deadline = step.deadline or now
    hints = [f"{key}: {HINTS[key.partition('[')[0]]}" for key in limits]
    takes = f"it takes {shown(timedelta(seconds=step.seconds))} at least, and {shown(deadline - now)} are left"
    return Late(step.member.id, deadline, step.ends_at, limits, "; ".join(hints) or takes)


def _causes(
    late: Collection[str], keys: Sequence[str], met_without: Callable[[Collection[str]], set[str]]
) -> dict[str, tuple[str, ...]]:
    """By member the first limit without which it is in time; else the fewest that have to go together."""
    causes: dict[str, tuple[str, ...]] = {}
    for key in keys:
        if len(causes) == len(late):
            return causes
        causes |= {one: (key,) for one in met_without({key}) if one not in causes}
    if len(causes) == len(late) or not (left := met_without(keys) - causes.keys()):
        return causes
    gone = list(keys)
    for key in keys:
        fewer = [one for one in gone if one != key]
        if left <= met_without(fewer):
            gone = fewer
    return causes | dict.fromkeys(left, tuple(gone))


# -- limits, and a fleet without some of them --------------------------------------------------------------------------


def limit_keys(limits: Limits) -> list[str]:
    """The key paths of the limits that take a rollout time, those first that no faster pace makes up for."""
    return [
        *(f"limits.freezes[{number}]" for number in range(len(limits.freezes))),
        *(["limits.windows"] if limits.windows else []),
        *(f"limits.budgets[{number}]" for number in range(len(limits.budgets))),
        "limits.max_parallel",
        "limits.max_surge" if limits.method is Method.SURGE else "limits.max_unavailable",
        *(["limits.bake_time"] if limits.canary and limits.bake_time else []),
        *(["limits.bake_between_waves"] if limits.bake_between_waves else []),
        *(["limits.zones"] if limits.zones is Zones.ONE_BY_ONE else []),
    ]


_ABSENT: dict[str, Any] = {
    "max_parallel": UNLIMITED, "max_surge": UNLIMITED, "max_unavailable": UNLIMITED, "windows": (),
    "bake_time": timedelta(), "bake_between_waves": timedelta(), "zones": Zones.SPREAD,
}  # fmt: skip


def without(limits: Limits, keys: Collection[str]) -> Limits:
    """The limits without those of these key paths."""
    lists = {
        name: tuple(one for number, one in enumerate(getattr(limits, name)) if f"limits.{name}[{number}]" not in keys)
        for name in ("budgets", "freezes")
    }
    absent = {name: value for name, value in _ABSENT.items() if f"limits.{name}" in keys}
    return limits.model_copy(update=lists | absent)
