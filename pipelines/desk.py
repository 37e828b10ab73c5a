"""What every flow over one fleet works with: its members, how they are judged, and what the ledger learns of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from hardening.catalog import load_policy, load_waivers
from hardening.foundation.content import find_content
from images.context import Context
from images.publication.registry import Registry
from pipelines.fleet.catalog import load_fleet
from pipelines.fleet.docker import DockerFleet
from pipelines.fleet.members import Member
from pipelines.fleet.model import Fleet
from pipelines.fleet.origins import Origins
from pipelines.rollouts.plan import plan
from pipelines.rollouts.refusals import refuse_target
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
