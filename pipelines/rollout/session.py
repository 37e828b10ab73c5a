"""A fleet opened, whatever its kind: its members judged by the policy, and the plan to replace violating ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import assert_never

from hardening.catalog import load_waivers
from hardening.foundation.content import find_content
from hardening.foundation.errors import MalformedError, OutsideError
from hardening.foundation.settings import pretended
from hardening.model import Waiver
from hardening.running import UNREAD
from hardening.runtime import Observed
from images.context import Context
from images.documents import to_json
from images.ledger import FleetCheck, FleetDay
from images.ledger.runtime_history import KnownLines
from images.registry.answers import NotFoundError
from images.registry.login import auth_config
from images.trust.verification import UntrustedError
from pipelines.fleet.health import fires
from pipelines.fleet.members import Changes, Member, Provenance, ReplacementImage, Seen, repository, require_read
from pipelines.fleet.model import ADDRESSES, Fleet, FleetKind, ReplacementStrategy
from pipelines.fleet.port import DelegatedFleet, Group, MemberFleet, ProvenancePort
from pipelines.fleet.runtime_snapshots import demands, history_of
from pipelines.fleet.violations import FleetJudge, Judged, checked, unread, verdict_of
from pipelines.lint import require_policy
from pipelines.rollout import guard_rails
from pipelines.rollout.approved_plan import ApprovedPlan, Present, refuse_moved, refuse_replanned, seal
from pipelines.rollout.plan import (
    becoming,
    in_group,
    plan,
    refuse_target,
    refuse_unmatched,
    violating_in,
    why_not,
)
from pipelines.rollout.rivals import of_cluster, of_engine, of_namespace, others
from pipelines.rollout.rollout_store import fleet_of, why_not_again
from pipelines.rollout.state import GroupOrder, MemberOrder, Together, one_by_one
from pipelines.wiring import clock, fleet_host

Now = Callable[[], datetime]
Observe = Callable[[Sequence[Member]], Mapping[str, Observed]]
LOOK_LASTS = timedelta(hours=1)  # for what is only recorded


def _nothing_instead(_group: Group, _target: ReplacementImage, _reasons: Sequence[str]) -> str:
    return ""


def _nothing_observed(_members: Sequence[Member]) -> Mapping[str, Observed]:
    return {}


@dataclass(frozen=True)
class FleetSession:
    """What the flows over one fleet work with. `now` gives the date by which members are judged.

    `look` opens ledger, registry or cloud again; `seen` is all that the selector finds, with what services roll; by a
    group's id, at least what that group's service replaces.
    `source` is where our own images come from. `groups` are those that a service rolls, None where the kind knows none.
    `firing` returns those of the named alarms that fire; `together` asks many members, at once where the kind bears it;
    `observe` says how members run, by their ids, where the kind can tell. `instead`: for a group that is left alone,
    since GitOps keeps it as a repository has it, what to merge there; by the reasons against it.
    """

    fleet: Fleet
    context: Context
    members: MemberFleet
    now: Now
    source: str
    look: Callable[[tuple[Waiver, ...], datetime], ProvenancePort]
    seen: Callable[..., Seen]
    groups: DelegatedFleet | None = None
    firing: Callable[[Sequence[str]], tuple[str, ...]] = tuple
    together: Together = one_by_one
    observe: Observe = _nothing_observed
    instead: Callable[[Group, ReplacementImage, Sequence[str]], str] = _nothing_instead
    _looks: dict[tuple[str, str, str], tuple[datetime, Observed]] = field(default_factory=dict, compare=False)

    def origins(self) -> ProvenancePort:
        """A fresh look: nothing is remembered from an earlier judging."""
        return self.look(load_waivers(self.context.settings.roots), self.now())

    def judge(
        self, members: Sequence[Member], when: datetime | None = None, *, whole: bool = False,
        seen: Mapping[str, Observed] | None = None, unread_too: bool = False,
    ) -> tuple[Judged, ...]:  # fmt: skip
        """The members judged by today's policy and waivers, as of now or of an earlier moment.

        How they run is only looked at where the policy does more than record that, or for a `whole` answer; `seen`: how
        they were just seen to run. Raises OutsideError where a registry does not answer; with `unread_too` its members
        are judged by what is known without it, and that they are unread is among their violations.
        """
        now, judged = when or self.now(), list[Judged]()
        policy = self.context.policy_named(self.fleet.policy)
        waivers = load_waivers(self.context.settings.roots)
        origins, by = self.look(waivers, now), FleetJudge(self.fleet.name, policy, waivers, now, self.source)
        if seen is None:
            seen = self.observed(members)[0] if whole or demands(policy) else {}
        known, silent = list[tuple[Member, Provenance, Observed | None]](), dict[str, str]() if unread_too else None
        for member in sorted(members, key=lambda one: one.id):
            try:
                known.append((member, _origin(origins, member, silent), seen.get(member.id)))
            except MalformedError as error:  # one image's; a registry that cannot be asked concerns all of them
                judged.append(_unread(self, member, error.message))
        return tuple(sorted((*judged, *by.judge_all(known)), key=lambda one: one.member.id))

    def observed(self, members: Sequence[Member]) -> tuple[dict[str, Observed], KnownLines]:
        """How members run, by their ids, with what earlier looks kept of that; and this as the ledger has it.

        By a policy that only records it, who was looked at in this session within the last hour is not asked again.
        """
        again = demands(self.context.policy_named(self.fleet.policy))
        found = self.observe(members) if again else self._observed_lately(members)
        keys = {member.id: (member.name, member.handle) for member in members}
        known = self.context.ledger.snapshots(self.fleet.name, [keys[name][1] for name in found])
        seen = {name: replace(one, history=history_of(known.get(keys[name], ()))) for name, one in found.items()}
        return seen, known

    def _observed_lately(self, members: Sequence[Member]) -> dict[str, Observed]:
        """By their ids; who was replaced since, or could not be read, is looked at."""
        keys = {member.id: (member.id, member.handle, member.image) for member in members}
        now = self.now()
        lately = {key: one for key, (at, one) in self._looks.items() if now - at < LOOK_LASTS}
        new = self.observe([member for member in members if keys[member.id] not in lately])
        self._looks.update({keys[name]: (now, one) for name, one in new.items() if one.now and not one.now.unread})
        return {name: lately[key] for name, key in keys.items() if key in lately} | dict(new)

    def world(self) -> Present:
        """The fleet as it is now."""
        groups = self.groups.groups() if self.groups else ()
        return Present(self.fleet, self.members.describe(), self.origins().target(), self.now(), groups)

    def plan(self, adopt: Sequence[str], *, automated: bool = False, judged: Sequence[Judged] = ()) -> ApprovedPlan:
        """What a rollout of the members would do now, and the world it would do it in. Raises RefusedError.

        `judged`: judgements that were just made, and need not be made again.
        """
        world = self.world()
        if automated and world.target.followed and not world.target.waits:
            why = why_not_again(self.context.ledger, self.fleet.name, world.target)
            world = replace(world, target=replace(world.target, refused_because=why))
        refuse_unmatched(adopt, [*(one.name for one in world.members), *(one.name for one in world.groups)])
        judged, grouped = self._judged(world.members, judged), bool(world.groups)
        changes = self._changes(judged, world.target)
        if not grouped:  # else the groups are to be planned all the same
            guard_rails.refuse_all_broken(judged, changes)
        made = plan(
            self.fleet, judged, world.target, world.now, adopt, automated=automated, grouped=grouped, changes=changes
        )
        return seal(made, world, self.context.actor, adopt, automated=automated)

    def _changes(self, judged: Sequence[Judged], target: ReplacementImage) -> dict[str, Changes]:
        """What the replacement changes in each member that violates, by its id; and what it would break or forbids."""
        violating = [one for one in judged if one.violations]
        becomes = [becoming(one, target) for one in violating]
        pairs = list(zip(violating, becomes, strict=True))
        found = self.together([partial(self.members.changes, one.member, image) for one, image in pairs])
        untrusted = self._untrusted({*becomes} - {target})
        lines = self.breaks(violating, found)
        return {
            one.member.id: replace(change, breaks=breaks, forbids=untrusted.get(image, change.forbids))
            for (one, image), change, breaks in zip(pairs, found, lines, strict=True)
        }

    def why_not_group(self, inside: Sequence[Judged], target: ReplacementImage, adopt: Sequence[str]) -> str:
        """Why a group is left alone, for one thing in it that must be: its service replaces all of it, and starts again
        what stands beside. Empty when it is to be rolled.
        """
        changes = (Changes() if one.member.beside else self.members.changes(one.member, target) for one in inside)
        violating = {one.member.id for one in violating_in(inside)}
        for one, barred in zip(inside, self.breaks(inside, changes), strict=True):
            own = why_not(self.fleet, one, target, self.now(), adopt) if one.member.id in violating else ""
            if why := own or "; ".join(barred):
                return f"{one.member.id.rpartition('/')[2]}: {why}"
        return ""

    def breaks(self, judged: Sequence[Judged], changes: Iterable[Changes]) -> list[tuple[str, ...]]:
        """The enforced rules that each member's replacement would break by what it is started with, as of now.

        `changes` are only asked for where there are such rules.
        """
        if not (rules := self._rails()):
            return [() for _ in judged]
        policy, waivers = self.context.policy_named(self.fleet.policy), load_waivers(self.context.settings.roots)
        by = FleetJudge(self.fleet.name, policy, waivers, self.now(), self.source)
        each = zip(judged, changes, strict=True)
        return [guard_rails.broken(self.fleet.name, rules, by, one, change) for one, change in each]

    def _rails(self) -> tuple[str, ...]:
        """The rules about what a container is started with that the fleet's policy enforces now."""
        return guard_rails.enforced(self.fleet.kind, self.context.policy_named(self.fleet.policy), self.now().date())

    def _untrusted(self, images: Iterable[ReplacementImage]) -> dict[ReplacementImage, str]:
        """Those of the images that members are to run again which are not signed as they must be, each with why."""
        found = dict[ReplacementImage, str]()
        for image in images:
            try:
                self.origins().again(image)
            except UntrustedError as error:
                found[image] = error.message
        return found

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
        if document.plan.target in document.plan.targets:
            refuse_target(self.fleet, world.target, world.now)
        then = document.made_at
        judged, grouped = self.judge(document.as_then(world.members), then), bool(world.groups)
        again = plan(
            self.fleet, judged, world.target, then, document.adopt, automated=document.automated, grouped=grouped,
            changes=self._changes(judged, world.target),
        )  # fmt: skip
        refuse_replanned(document, again, world)
        return replace(document, plan=again)

    # -- judging again, right before a rollout acts, by today's policy, waivers, ledger and registry -------------------

    def left_alone(self, order: MemberOrder, member: Member) -> str:
        """Why the member is left alone after all; empty when it is to be replaced."""
        one = self.judge([member])[0]
        if not one.violations:
            return _within([one])
        barred = "; ".join(self._changes([one], order.target)[member.id].breaks) if self._rails() else ""
        return barred or why_not(self.fleet, one, order.target, self.now(), order.adopt)

    def group_left_alone(self, order: GroupOrder) -> str:
        """Why the group is left alone after all; empty when it is to be rolled."""
        inside = self.inside(order.step.group)
        if not violating_in(inside):
            return _within(inside)
        return self.why_not_group(inside, order.target, order.adopt)

    def inside(self, group: Group) -> list[Judged]:
        """What a group's service replaces and starts again, judged now. Raises OutsideError where it cannot be read."""
        seen = self.seen(group.id)
        require_read([one for one in seen.unread if f"{group.id}/".startswith(f"{one.id}/")], "member")
        return in_group(self.judge([one for one in seen.members if group.id in (one.group, one.beside)]), group)

    def refuse(self, target: ReplacementImage) -> None:
        """Raises RefusedError as soon as the replacement must not run any more."""
        refuse_target(self.fleet, self.origins().again(target), self.now())

    def alarms(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the alarms that are firing; one that cannot be asked fires."""
        named = [name for name in names if not name.startswith(ADDRESSES)]
        fired = self.firing(named) if named else ()
        return tuple(name for name in names if (name in fired if name in named else fires(name)))


def _within(judged: Sequence[Judged]) -> str:
    """Why what is judged is no longer to be replaced."""
    waived = any(reason.waived_by for one in judged for reason in one.reasons)
    return "it is waived now" if waived else "it no longer violates"


@contextmanager
def fleet_session(name: str, context: Context, *, now: Now = clock) -> Iterator[FleetSession]:
    """Open what a flow over the fleet `name` needs.

    Raises ContentError where the fleet names no policy, before anything is asked, and OutsideError.
    """
    roots = context.settings.roots
    fleet = fleet_of(context, name)
    file = find_content(roots, "pipelines/fleets", "*.toml")[name]
    require_policy(fleet, file, find_content(roots, "hardening/policies", "*.toml"))
    match fleet.kind:
        case FleetKind.DOCKER:
            with _docker_session(fleet, context, now) as session:
                yield session
        case FleetKind.EC2:
            yield _ec2_session(fleet, context, now)
        case FleetKind.KUBERNETES:
            yield _kubernetes_session(fleet, context, now)
        case FleetKind.ECS:
            yield _ecs_session(fleet, context, now)
        case FleetKind.EKS:
            yield _eks_session(fleet, context, now)
        case _:
            assert_never(fleet.kind)


@contextmanager
def _docker_session(fleet: Fleet, context: Context, now: Now) -> Iterator[FleetSession]:
    """On the hosts that the fleet names, or on the engine of the settings. Raises ContentError where the settings lack
    what leads to a host.
    """
    from pipelines.fleet.docker.connecting import open_host, require_ways
    from pipelines.fleet.docker.hosts import HostsFleet
    from pipelines.fleet.docker.images import registered
    from pipelines.fleet.docker.inventory import together
    from pipelines.fleet.docker.members import DockerFleet
    from pipelines.fleet.docker.observing import observe
    from pipelines.fleet.docker.provenance import ProvenanceReader

    ways, hosts, registry = context.settings.docker, fleet.docker.hosts, context.registry
    known = (
        partial(auth_config, context.settings),
        registered(registry, fleet),
        partial(_last_seen, fleet, context),
    )
    require_ways(fleet.docker.addresses, ways)

    def opened(host: str, label: str) -> DockerFleet:
        near = of_engine(fleet, others(fleet, context), context, host)
        connect = {"connect": partial(open_host, ways=ways)} if hosts else {}
        return DockerFleet(fleet, host, *known, label if len(hosts) > 1 else "", **connect, rivals=near)

    with HostsFleet(fleet, opened, ways.read_within) if hosts else opened(fleet_host(context), "") as members:
        looks = members.observe if isinstance(members, HostsFleet) else partial(observe, members)
        yield FleetSession(
            fleet, context, members, now, registry.address,
            lambda waivers, at: ProvenanceReader(fleet, context, waivers, at, registry),
            members.seen, together=together, observe=looks,
        )  # fmt: skip


def _last_seen(fleet: Fleet, context: Context) -> set[str]:
    """The names of the members that the fleet was last seen with."""
    seen = (one.partition("/") for members in context.ledger.running_digests().values() for one in members)
    return {member for name, _, member in seen if name == fleet.name}


def _ec2_session(fleet: Fleet, context: Context, now: Now) -> FleetSession:
    from pipelines.fleet.ec2.groups import AutoScalingFleet
    from pipelines.fleet.ec2.instances import Ec2Fleet
    from pipelines.fleet.ec2.members import firing, regions_of
    from pipelines.fleet.ec2.provenance import AmiProvenance
    from pipelines.fleet.ec2.root_volume import RootVolumeFleet

    cloud = context.cloud
    kind = RootVolumeFleet if fleet.ec2.way is ReplacementStrategy.ROOT_VOLUME else Ec2Fleet
    members = kind(fleet, cloud, others(fleet, context))
    source = f"aws/{cloud.aws.account}"
    return FleetSession(
        fleet, context, members, now, source,
        lambda waivers, at: AmiProvenance(fleet, context, waivers, at), members.seen, AutoScalingFleet(fleet, cloud),
        lambda names: firing(cloud, regions_of(fleet, cloud), names), observe=members.observe,
    )  # fmt: skip


def _kubernetes_session(fleet: Fleet, context: Context, now: Now) -> FleetSession:
    from pipelines.fleet.docker.images import registered
    from pipelines.fleet.kubernetes.cluster_client import ClusterClient
    from pipelines.fleet.kubernetes.groups import WorkloadFleet
    from pipelines.fleet.kubernetes.kubeconfig import access_of
    from pipelines.fleet.kubernetes.members import NamespaceReader, PodFleet
    from pipelines.fleet.unstepped import RemoteProvenance

    client = ClusterClient(partial(access_of, fleet.kubernetes), context.settings.retry_for)
    reader = NamespaceReader(fleet, client, of_namespace(fleet, context))
    registry = context.registry
    members, groups = PodFleet(reader, registered(registry, fleet)), WorkloadFleet(fleet, reader, now)
    return FleetSession(
        fleet, context, members, now, registry.address,
        lambda waivers, at: RemoteProvenance(fleet, context, waivers, at, registry),
        members.seen, groups, observe=members.observe, instead=groups.instead,
    )  # fmt: skip


def _ecs_session(fleet: Fleet, context: Context, now: Now) -> FleetSession:
    from pipelines.fleet.docker.images import registered
    from pipelines.fleet.ec2.members import firing
    from pipelines.fleet.ecs.groups import ServiceFleet
    from pipelines.fleet.ecs.members import ClusterReader, TaskFleet
    from pipelines.fleet.unstepped import RemoteProvenance

    cloud, registry = context.cloud, context.registry
    reader = ClusterReader(fleet, cloud, of_cluster(fleet, context))
    members = TaskFleet(reader, registered(registry, fleet))
    return FleetSession(
        fleet, context, members, now, registry.address,
        lambda waivers, at: RemoteProvenance(fleet, context, waivers, at, registry),
        members.seen, ServiceFleet(fleet, reader, cloud, now), observe=members.observe,
        firing=lambda names: firing(cloud, [(reader.account, reader.region)], names),
    )  # fmt: skip


def _eks_session(fleet: Fleet, context: Context, now: Now) -> FleetSession:
    from pipelines.fleet.ec2.members import firing
    from pipelines.fleet.ec2.provenance import AmiProvenance
    from pipelines.fleet.eks.groups import NodeGroupFleet
    from pipelines.fleet.eks.members import NodeFleet, NodeReader

    cloud = context.cloud
    reader = NodeReader(fleet, cloud, of_cluster(fleet, context))
    members = NodeFleet(reader)
    return FleetSession(
        fleet, context, members, now, f"aws/{cloud.aws.account}",
        lambda waivers, at: AmiProvenance(fleet, context, waivers, at),
        members.seen, NodeGroupFleet(fleet, reader, now), observe=members.observe,
        firing=lambda names: firing(cloud, [(reader.account, reader.region)], names),
    )  # fmt: skip


def check(at: FleetSession, *, strict: bool = False) -> tuple[Judged, ...]:
    """All that the fleet runs judged; the ledger learns of it. None at all is the caller's to say, not a pass.

    What could not be read is among it, as a violation of its own; the ledger then keeps what it last saw whole.
    `strict`, to roll: raises OutsideError where a registry does not answer.
    """
    with at.context.ledger.kept_open():
        return _checked(at, strict=strict)


def _checked(at: FleetSession, *, strict: bool) -> tuple[Judged, ...]:
    seen = at.seen()
    observed, known = at.observed(seen.members)
    judged = at.judge(seen.members, seen=observed, unread_too=not strict)
    # A fleet that seems empty has hardly lost every member: what it was last seen running is not pruned.
    if judged and not seen.unread and not any(UNREAD in one.rules for one in judged):
        at.context.ledger.seen_fleet(at.fleet.name, {one.member.name: _runs(one) for one in judged}, at.now())
        if not pretended(at.context.settings):
            golden = {one.member.name: one.origin.golden for one in judged}
            contents = {name: release.content if release else "" for name, release in golden.items()}
            at.context.ledger.record_whole_fleet(at.fleet.name, contents, at.now(), "check")
    if not pretended(at.context.settings):
        facts = {(one.member.name, one.member.handle): to_json(one.facts) for one in judged if one.facts}
        at.context.ledger.record_snapshots(at.fleet.name, facts, at.now(), known)
        if judged and not seen.unread:  # who was not seen is gone
            present = {(one.member.name, one.member.handle) for one in judged}
            at.context.ledger.forget_snapshots(at.fleet.name, present, at.now())
    places = ((Member(f"{one.id}/*", one.id, "", "", (), healthy=False), one.why) for one in seen.unread)
    found = (*judged, *(_unread(at, place, why) for place, why in places))
    if not pretended(at.context.settings) and not at.context.changed:  # by the fleet's own policy, as of today
        at.context.ledger.record_check(FleetCheck(at.fleet.name, at.now(), to_json(tuple(map(checked, found)))))
        within = sum(verdict_of(one).good for one in found)
        at.context.ledger.record_fleet_day(
            FleetDay(at.fleet.name, f"{at.now():%Y-%m-%d}", at.now(), len(found), within)
        )
    return found


def _runs(one: Judged) -> str:
    """What must not be pruned while this member runs: the golden content inside, else the image itself, that of others
    by the digest that its registry knows: an engine may call it by an id of its own.
    """
    followed = one.origin.followed.digest if one.origin.followed else ""
    return one.origin.golden.content if one.origin.golden else followed or one.member.digests[0]


def _origin(origins: ProvenancePort, member: Member, silent: dict[str, str] | None) -> Provenance:
    """Where a member's image comes from. `silent`: the repositories that no registry answered for, each with why, which
    are not asked again; None: that is an error.
    """
    where = repository(member.image)
    if silent is None or where not in silent:
        try:
            return origins.of(member)
        except (OutsideError, NotFoundError) as error:
            if silent is None or isinstance(error, MalformedError):
                raise
            silent[where] = error.message
    return replace(origins.unasked(member), unread=silent[where])


def _unread(at: FleetSession, member: Member, why: str) -> Judged:
    """A member whose image, or a place that could not be read, as a line among the members: it is not compliant."""
    reason = unread(f"{at.fleet.name}/{member.name}", why, at.now())
    return Judged(replace(member, cannot_roll=member.cannot_roll or why), Provenance(), (reason,))
