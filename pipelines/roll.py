"""The flows over one fleet: check it, plan its rollout, carry the rollout out, finish what a crash interrupted."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import token_hex

from hardening.catalog import load_policy, load_waivers
from hardening.foundation.console import say
from hardening.foundation.content import find_content
from hardening.foundation.errors import RefusedError
from hardening.foundation.locks import only_one
from images.context import Context
from images.documents import from_json, to_json
from images.ledger import Rollout
from images.publication.registry import Registry
from pipelines.engine import World, recover, run
from pipelines.fleet.catalog import load_fleet
from pipelines.fleet.docker import DockerFleet
from pipelines.fleet.members import Member, Target
from pipelines.fleet.model import Approval, Fleet
from pipelines.fleet.origins import Origins
from pipelines.fleet.progress import RolloutState
from pipelines.rollouts.plan import Plan, plan
from pipelines.rollouts.refusals import refuse_target, why_not
from pipelines.rollouts.sealed import Present, Sealed, refuse_moved, seal
from pipelines.soundness import require_policy
from pipelines.violations import Judged, judge

Now = Callable[[], datetime]


@dataclass(frozen=True)
class Desk:
    """What the flows over one fleet work with. `now` gives the date by which members are judged."""

    fleet: Fleet
    context: Context
    registry: Registry
    members: DockerFleet
    now: Now

    def origins(self) -> Origins:
        """A fresh look at ledger and registry: nothing is remembered from an earlier judging."""
        waivers = load_waivers(self.context.settings.roots)
        return Origins(self.fleet, self.context, self.registry, waivers, self.now())

    def judge(self, members: Sequence[Member]) -> tuple[Judged, ...]:
        """The members judged by today's policy and waivers."""
        origins = self.origins()
        return judge(
            self.fleet.name,
            load_policy(self.context.settings.roots, self.fleet.policy),
            members,
            {member.id: origins.of(member) for member in members},
            waivers=origins.waivers,
            now=origins.now,
            own_registry=self.registry.address,
        )

    def world(self) -> Present:
        """The fleet as it is now."""
        return Present(self.fleet, self.members.describe(), self.origins().target(), self.now())

    def plan(self, adopt: Sequence[str], *, automated: bool = False) -> Sealed:
        """What a rollout would do now, and the world it would do it in. Raises RefusedError."""
        world = self.world()
        made = plan(self.fleet, self.judge(world.members), world.target, world.now, adopt, automated=automated)
        return seal(made, world, self.context.actor, adopt)

    def same(self, sealed: Sealed) -> Sealed:
        """An approved plan, if the world is still the one that was approved. Raises RefusedError with what differs."""
        world = self.world()
        refuse_moved(sealed, world)
        refuse_target(self.fleet, world.target, world.now)
        return sealed


@contextmanager
def desk(name: str, context: Context, *, engine: Callable[[], str], now: Now) -> Iterator[Desk]:
    """Open what a flow over the fleet `name` needs, its Docker Engine where `engine` says.

    Raises ContentError where the fleet names no policy, before anything is asked, and OutsideError.
    """
    roots = context.settings.roots
    fleet = load_fleet(roots, name)
    file = find_content(roots, "pipelines/fleets", "*.toml")[name]
    require_policy(fleet, file, find_content(roots, "hardening/policies", "*.toml"))
    with DockerFleet(fleet, engine()) as members:
        yield Desk(fleet, context, context.publisher.registry, members, now)


def check(at: Desk) -> tuple[Judged, ...]:
    """Every member of the fleet judged; the ledger learns what runs. None at all is the caller's to say, not a pass."""
    judged = at.judge(at.members.describe())
    running = {one.member.name: _runs(one) for one in judged}
    at.context.ledger.seen_fleet(at.fleet.name, running, at.now())
    return judged


def _runs(one: Judged) -> str:
    """What must not be pruned while this member runs: the golden content inside, else the image itself."""
    return one.origin.golden.content if one.origin.golden else one.member.digests[0]


def start(
    at: Desk, *, apply: bool, adopt: Sequence[str] = (), automated: bool = False, approved: Sealed | None = None
) -> tuple[Plan, RolloutState | None]:
    """Plan the fleet's rollout and, with `apply`, carry it out; an automated run does so only if the fleet says so.

    `approved`: exactly that plan is carried out, or refused with what has moved since. What an earlier run left
    unfinished is finished or restored first. Raises RefusedError when a limit forbids the rollout, or when a
    replacement was not healthy and the old members are back; and OutsideError.
    """
    act = apply and not (automated and at.fleet.approval is Approval.REQUIRED)
    if not act:
        for row in at.context.ledger.open_rollouts(at.fleet.name):
            say(f"the rollout {row.id} is not over; if it was interrupted, --apply finishes or restores it first")
        return (at.same(approved) if approved else at.plan(adopt, automated=automated)).plan, None
    lock = at.context.settings.state_dir / "locks" / f"fleet-{at.fleet.name}.lock"
    with only_one(lock, f"a rollout of the fleet {at.fleet.name}"):
        resume(at)
        sealed = at.same(approved) if approved else at.plan(adopt, automated=automated)
        planned = sealed.plan
        if not planned.waves:
            return planned, None
        state = run(planned, _new_id(at), _world(at, planned, sealed.adopt))
        check(at)
        return planned, state


def _new_id(at: Desk) -> str:
    """A rollout's name, which no other ever had: its labels say which containers are its own, also to be removed."""
    made = f"{at.fleet.name}-{at.now():%Y%m%d%H%M%S}-{token_hex(3)}"
    return _new_id(at) if at.context.ledger.rollout(made) else made


def resume(at: Desk) -> tuple[RolloutState, ...]:
    """Finish or restore what an interrupted rollout left. The caller holds the fleet's lock.

    Raises RefusedError when the rollout belongs to another machine, which may still be at it.
    """
    return tuple(_resumed(at, row) for row in at.context.ledger.open_rollouts(at.fleet.name))


def _resumed(at: Desk, row: Rollout) -> RolloutState:
    host = row.owner.rpartition(":")[0]
    if at.context.settings.database and host != socket.gethostname():  # several machines may share this ledger
        raise RefusedError(
            f"the rollout {row.id} was begun on {host} and is not over; its last step was at {row.at:%Y-%m-%d %H:%M}",
            hint="run ./goldsmith roll.start there; it finishes or restores what is left",
        )
    say(f"{at.fleet.name}: the rollout {row.id} was interrupted; finishing or restoring its members")
    return recover(from_json(RolloutState, row.state), _world(at, None, ()))


def _world(at: Desk, planned: Plan | None, adopt: Sequence[str]) -> World:
    owner = f"{socket.gethostname()}:{os.getpid()}"
    clock = SteadyClock(at.now())

    def save(state: RolloutState) -> None:
        over = state.ended_at is not None
        at.context.ledger.save_rollout(state.id, state.fleet, to_json(state), owner, clock.now(), is_open=not over)
        if over:
            at.context.ledger.audit(
                clock.now(), at.context.actor, "roll", state.fleet, state.failure or f"{state.id} done"
            )

    def still(member: Member) -> str:
        return _still(at, planned, member, adopt) if planned else ""

    def refuse(target: Target) -> None:
        refuse_target(at.fleet, at.origins().again(target), at.now())

    return World(at.members, clock, save, still, say, at.fleet.limits, refuse)


def _still(at: Desk, planned: Plan, member: Member, adopt: Sequence[str]) -> str:
    """Why the member is to be left alone after all, judged by what holds right now; empty when it is to be replaced."""
    one = at.judge([member])[0]
    if not one.violations:
        return "it no longer violates" if not one.reasons else "it is waived by now"
    return why_not(at.fleet, one, planned.target, at.now(), adopt)


class SteadyClock:
    """Real time that never jumps: it starts at the given moment and goes on with the machine's monotonic clock."""

    def __init__(self, start: datetime) -> None:
        self._start = start
        self._began = time.monotonic()

    def now(self) -> datetime:
        """The present moment."""
        return self._start + timedelta(seconds=time.monotonic() - self._began)

    def wait(self, span: timedelta) -> None:
        """Sleep."""
        time.sleep(span.total_seconds())
