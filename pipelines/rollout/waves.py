"""Which members are replaced together: waves that keep every limit at once. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from hardening.foundation.errors import RefusedError
from pipelines.fleet.members import Member
from pipelines.fleet.model import Limits, Method, Zones
from pipelines.rollout.schedule import GRAVEST_FIRST, Cap


@dataclass(frozen=True)
class Step:
    """One member that is replaced, why, which of the reasons the budgets count, and the seconds it takes at least.

    `changes`: what the replacement changes in it beside its files.
    """

    member: Member
    why: tuple[str, ...]
    rule: str = ""
    seconds: int = 0
    changes: tuple[str, ...] = ()


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


@dataclass(frozen=True)
class Room:
    """What a fleet of `desired` members, of which `serving` are healthy, gives a rollout: `most` at once, the budgets,
    and the `floor`, below which the number of those that serve must not fall.
    """

    limits: Limits
    desired: int
    serving: int
    caps: tuple[Cap, ...] = ()

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
class _Batch:
    """Steps that run at the same time, as they are gathered; `serving` meanwhile."""

    room: Room
    most: int
    serving: int
    steps: list[Step] = field(default_factory=list)
    used: Counter[str] = field(default_factory=Counter)

    def take(self, step: Step) -> bool:
        """Whether the step has room beside the others; if so it is one of them."""
        bound = [cap for cap in self.room.caps if cap.binds(step.rule)]
        stays = self.serving - self._costs(step)
        below = stays < self.serving and stays < self.room.floor
        if below or not self._beside(step) or any(self.used[cap.name] >= cap.most for cap in bound):
            return False
        self.steps.append(step)
        self.used.update(cap.name for cap in bound)
        self.serving = stays
        return True

    @property
    def after(self) -> int:
        """How many serve once all of these are replaced: those that were ill, too."""
        return self.serving + sum(self._costs(step) or not step.member.healthy for step in self.steps)

    def _costs(self, step: Step) -> int:
        """How many members fewer serve while the step runs."""
        return int(step.member.healthy and self.room.limits.method is Method.IN_PLACE)

    def _beside(self, step: Step) -> bool:
        zones = self.room.limits.zones
        same = zones is Zones.SPREAD or not self.steps or self.steps[0].member.zone == step.member.zone
        return same and len(self.steps) < self.most


def waves(steps: Sequence[Step], room: Room) -> tuple[Wave, ...]:
    """The canary wave, and then one wave after the other, each as wide as every limit allows.

    Raises RefusedError where a step would leave fewer members serving than `max_unavailable` asks for.
    """
    limits, ordered = room.limits, in_order(steps, room.limits.zones)
    canary, rest = ordered[: limits.canary], ordered[limits.canary :]
    made, serving = [], room.serving
    if canary:
        first = _canary(canary, room)
        made.append(Wave(tuple(canary), limits.bake_time, len(first[0].steps), canary=True))
        serving = first[-1].after
    for batch in _batches(rest, room, room.most, serving):
        made.append(Wave(tuple(batch.steps), limits.bake_between_waves, len(batch.steps)))
    return tuple(made)


def canary_of(wave: Wave, limits: Limits) -> tuple[Wave, ...]:
    """The wave with a canary of its own before the rest of it: the canary wave before it has proved nothing."""
    first, rest = wave.steps[: limits.canary], wave.steps[limits.canary :]
    canary = Wave(first, max(limits.bake_time, wave.bake), min(wave.parallel, len(first)), canary=True)
    return (canary, replace(wave, steps=rest)) if rest else (canary,)


def _canary(steps: Sequence[Step], room: Room) -> list[_Batch]:
    """The canaries in batches of one width, the widest that fits; a width of one always does."""
    widths = range(min(room.most, len(steps)), 0, -1)
    tried = ((width, list(_batches(steps, room, width, room.serving))) for width in widths)
    return next(made for width, made in tried if all(len(batch.steps) == width for batch in made[:-1]))


def in_order(steps: Sequence[Step], zones: Zones) -> list[Step]:
    """Members that do not serve come first, for replacing them costs nothing; then by zone, gravest reason and id."""
    if zones is Zones.ONE_BY_ONE:
        return sorted(steps, key=lambda step: (step.member.healthy, step.member.zone, _first(step)))
    met: Counter[tuple[bool, int, str]] = Counter()
    ranked = []
    for step in sorted(steps, key=_first):
        healthy, grave, _ = _first(step)
        met[healthy, grave, step.member.zone] += 1
        ranked.append((healthy, grave, met[healthy, grave, step.member.zone], step.member.zone, step))
    return [step for *_, step in sorted(ranked, key=lambda one: one[:-1])]


_GRAVITY = {str(rule): number for number, rule in enumerate(GRAVEST_FIRST)}


def _first(step: Step) -> tuple[bool, int, str]:
    return step.member.healthy, _GRAVITY.get(step.rule, len(_GRAVITY)), step.member.id


def _batches(steps: Sequence[Step], room: Room, most: int, serving: int) -> Iterator[_Batch]:
    """The steps in their order, as many together as have room beside each other."""
    batch = _Batch(room, most, serving)
    for step in steps:
        if batch.take(step):
            continue
        if batch.steps:
            yield batch
            batch = _Batch(room, most, batch.after)
        if not batch.take(step):
            raise _no_room(step, batch)
    if batch.steps:
        yield batch


def _no_room(step: Step, batch: _Batch) -> RefusedError:
    """Why a step has no room even alone: only the floor does that; a budget of 0 was refused before."""
    room, member = batch.room, step.member
    return RefusedError(
        f"replacing {member.name} in place leaves {batch.serving - 1} of {room.desired} members serving, and "
        f"max_unavailable {room.limits.max_unavailable} asks for {room.floor}",
        evidence="\n".join(f"{member.name}: {what}" for what in member.forced_in_place),
        hint="raise limits.max_unavailable" + ("" if member.forced_in_place else ', or set limits.method = "surge"'),
    )
