"""What the flows over one fleet work with, whatever its kind: its members, where their images come from, the policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from hardening.catalog import load_policy, load_waivers
from hardening.findings import Reason
from hardening.foundation.content import find_content
from hardening.foundation.errors import MalformedError
from hardening.model import Enforcement, Waiver
from images.context import Context
from images.registry.login import auth_config
from pipelines.fleet.catalog import load_fleet
from pipelines.fleet.docker.images import registered
from pipelines.fleet.docker.members import DockerFleet
from pipelines.fleet.docker.provenance import ProvenanceReader
from pipelines.fleet.members import Member, Provenance, Seen, Unread
from pipelines.fleet.model import Fleet, FleetKind, ReplacementStrategy
from pipelines.fleet.port import DelegatedFleet, MemberFleet, ProvenancePort
from pipelines.fleet.violations import Judged, judge
from pipelines.lint import require_policy
from pipelines.rollout.approved_plan import ApprovedPlan, Present, as_then, refuse_moved, refuse_replanned, seal
from pipelines.rollout.plan import Plan, nothing, plan
from pipelines.rollout.refusals import refuse_nobody, refuse_target
from pipelines.wiring import clock, fleet_host

Now = Callable[[], datetime]
UNREAD = "unread"


@dataclass(frozen=True)
class FleetSession:
    """What the flows over one fleet work with. `now` gives the date by which members are judged.

    `look` opens ledger, registry or cloud anew; `seen` is all that the selector finds, with what services roll.
    `source` is where our own images come from. `groups` are those that a service rolls, None where the kind knows none.
    `firing`: those of the alarms, by name, that fire.
    """

    fleet: Fleet
    context: Context
    members: MemberFleet
    now: Now
    source: str
    look: Callable[[tuple[Waiver, ...], datetime], ProvenancePort]
    seen: Callable[[], Seen]
    groups: DelegatedFleet | None = None
    firing: Callable[[Sequence[str]], tuple[str, ...]] = tuple

    def origins(self) -> ProvenancePort:
        """A fresh look: nothing is remembered from an earlier judging."""
        return self.look(load_waivers(self.context.settings.roots), self.now())

    def judge(self, members: Sequence[Member], when: datetime | None = None) -> tuple[Judged, ...]:
        """The members judged by today's policy and waivers, as of now or of an earlier moment."""
        now, known, unread = when or self.now(), dict[str, Provenance](), list[Judged]()
        origins = self.look(load_waivers(self.context.settings.roots), now)
        for member in members:
            try:
                known[member.id] = origins.of(member)
            except MalformedError as error:  # one image's; a registry that cannot be asked concerns all of them
                unread.append(_unread(self, Unread(member.id, error.message), member))
        judged = judge(
            self.fleet.name,
            load_policy(self.context.settings.roots, self.fleet.policy),
            [member for member in members if member.id in known],
            known,
            waivers=load_waivers(self.context.settings.roots),
            now=now,
            own_registry=self.source,
        )
        return tuple(sorted((*judged, *unread), key=lambda one: one.member.id))

    def world(self) -> Present:
        """The fleet as it is now."""
        groups = self.groups.groups() if self.groups else ()
        return Present(self.fleet, self.members.describe(), self.origins().target(), self.now(), groups)

    def plan(self, adopt: Sequence[str], *, automated: bool = False, judged: Sequence[Judged] = ()) -> ApprovedPlan:
        """What a rollout of the members would do now, and the world it would do it in. Raises RefusedError.

        `judged`: judgements that were just made, and need not be made again.
        """
        world = self.world()
        refuse_nobody(adopt, [*(one.name for one in world.members), *(one.name for one in world.groups)])
        if not world.members and world.groups:
            return seal(nothing(self.fleet, world.target), world, self.context.actor, adopt, automated=automated)
        judged = self._judged(world.members, judged)
        made = plan(self.fleet, judged, world.target, world.now, adopt, automated=automated)
        return seal(made, world, self.context.actor, adopt, automated=automated)

    def _judged(self, members: Sequence[Member], before: Sequence[Judged]) -> tuple[Judged, ...]:
        """The members judged; one that was so before, and is exactly as it was, stays judged as it was."""
        known = {one.member: one for one in before}
        new = [member for member in members if member not in known]
        found = [*(known[member] for member in members if member in known), *(self.judge(new) if new else ())]
        return tuple(sorted(found, key=lambda one: one.member.id))

    def same(self, document: ApprovedPlan) -> ApprovedPlan:
        """An approved plan as it is planned again, if that and the world are what was approved.

        Raises RefusedError with what differs.
        """
        world = self.world()
        refuse_moved(document, world)
        refuse_target(self.fleet, world.target, world.now)
        again = self._again(document, world)
        refuse_replanned(document, again, world)
        return replace(document, plan=again)

    def _again(self, document: ApprovedPlan, world: Present) -> Plan:
        """The plan that the fleet's file and members give, as of the moment at which the sealed one was made."""
        if not world.members and world.groups:
            return nothing(self.fleet, world.target)
        judged = self.judge(as_then(document, world.members), document.made_at)
        return plan(self.fleet, judged, world.target, document.made_at, document.adopt, automated=document.automated)


@contextmanager
def fleet_session(name: str, context: Context, *, now: Now = clock) -> Iterator[FleetSession]:
    """Open what a flow over the fleet `name` needs.

    Raises ContentError where the fleet names no policy, before anything is asked, and OutsideError.
    """
    roots = context.settings.roots
    fleet = load_fleet(roots, name)
    file = find_content(roots, "pipelines/fleets", "*.toml")[name]
    require_policy(fleet, file, find_content(roots, "hardening/policies", "*.toml"))
    if fleet.kind is FleetKind.EC2:
        yield _at_ec2(fleet, context, now)
        return
    registry = context.registry
    login, seen = partial(auth_config, context.settings), partial(_last_seen, fleet, context)
    with DockerFleet(fleet, fleet_host(context), login, registered(registry, fleet), seen) as members:
        yield FleetSession(
            fleet, context, members, now, registry.address,
            lambda waivers, at: ProvenanceReader(fleet, context, registry, waivers, at),
            lambda: Seen(members.describe()),
        )  # fmt: skip


def _last_seen(fleet: Fleet, context: Context) -> set[str]:
    """The names of the members that the fleet was last seen with."""
    seen = (one.partition("/") for members in context.ledger.running_digests().values() for one in members)
    return {member for name, _, member in seen if name == fleet.name}


def _at_ec2(fleet: Fleet, context: Context, now: Now) -> FleetSession:
    from pipelines.fleet.ec2.groups import AutoScalingFleet
    from pipelines.fleet.ec2.instances import Ec2Fleet
    from pipelines.fleet.ec2.inventory import firing, regions_of
    from pipelines.fleet.ec2.provenance import AmiProvenance
    from pipelines.fleet.ec2.root_volume import RootVolumeFleet

    cloud = context.cloud
    members = (RootVolumeFleet if fleet.ec2.way is ReplacementStrategy.ROOT_VOLUME else Ec2Fleet)(fleet, cloud)
    source = f"aws/{cloud.aws.account}"
    return FleetSession(
        fleet, context, members, now, source,
        lambda waivers, at: AmiProvenance(fleet, context, waivers, at), members.seen, AutoScalingFleet(fleet, cloud),
        lambda names: firing(cloud, regions_of(fleet, cloud), names),
    )  # fmt: skip


def check(at: FleetSession) -> tuple[Judged, ...]:
    """All that the fleet runs judged; the ledger learns of it. None at all is the caller's to say, not a pass.

    What could not be read is among it, as a violation of its own; the ledger then keeps what it last saw whole.
    """
    seen = at.seen()
    judged = at.judge(seen.members)
    if not seen.unread and not any(UNREAD in one.rules for one in judged):
        at.context.ledger.seen_fleet(at.fleet.name, {one.member.name: _runs(one) for one in judged}, at.now())
    return (*judged, *(_unread(at, one) for one in seen.unread))


def _runs(one: Judged) -> str:
    """What must not be pruned while this member runs: the golden content inside, else the image itself."""
    return one.origin.golden.content if one.origin.golden else one.member.digests[0]


def _unread(at: FleetSession, place: Unread, known: Member | None = None) -> Judged:
    """A place, or a member's image, that could not be read, as a line among the members: it is not compliant."""
    if known:
        member = replace(known, cannot_roll=known.cannot_roll or place.why)
    else:
        member = Member(f"{place.id}/*", place.id, "", "", (), healthy=False, cannot_roll=place.why)
    reason = Reason(
        rule=UNREAD, subject=f"{at.fleet.name}/{known.name if known else place.id}", enforcement=Enforcement.ENFORCE,
        what=f"it could not be read: {place.why}", why="a place that cannot be read counts as non-compliant",
        todo="mend the way to it, and check again", since=at.now(), deadline=at.now(),
    )  # fmt: skip
    return Judged(member, Provenance(), (reason,))
