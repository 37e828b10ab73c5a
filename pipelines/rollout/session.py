"""A fleet opened, whatever its kind: its members judged by the policy, and the plan to replace violating ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import assert_never

import requests

from hardening.catalog import load_waivers
from hardening.findings import Reason
from hardening.foundation.content import find_content
from hardening.foundation.errors import MalformedError, RefusedError
from hardening.foundation.settings import pretended
from hardening.model import Enforcement, Waiver
from hardening.running import UNREAD
from hardening.runtime import Observed
from images.context import Context
from images.documents import to_json
from images.ledger import FleetCheck, FleetDay
from images.ledger.runtime_history import KnownLines
from images.registry.login import auth_config
from pipelines.fleet.catalog import load_fleet
from pipelines.fleet.docker.images import registered
from pipelines.fleet.docker.inventory import together
from pipelines.fleet.docker.members import DockerFleet
from pipelines.fleet.docker.observing import observe
from pipelines.fleet.docker.provenance import ProvenanceReader
from pipelines.fleet.members import Changes, Member, Provenance, ReplacementImage, Seen
from pipelines.fleet.model import ADDRESSES, Fleet, FleetKind, ReplacementStrategy
from pipelines.fleet.port import DelegatedFleet, Group, MemberFleet, ProvenancePort
from pipelines.fleet.runtime_snapshots import demands, history_of
from pipelines.fleet.violations import FleetJudge, Judged, checked, verdict_of
from pipelines.lint import require_policy
from pipelines.rollout.approved_plan import ApprovedPlan, Present, refuse_moved, refuse_repaced, refuse_replanned, seal
from pipelines.rollout.plan import GroupStep, plan, refuse_implausible, refuse_target, refuse_unmatched, why_not
from pipelines.rollout.schedule import allowed
from pipelines.rollout.state import MemberOrder, Together, one_by_one
from pipelines.wiring import clock, fleet_host

Now = Callable[[], datetime]
Observe = Callable[[Sequence[Member]], Mapping[str, Observed]]
ASK_SECONDS = 5
LOOK_LASTS = timedelta(hours=1)  # for what is only recorded


def _nothing_instead(_group: Group, _target: ReplacementImage, _reasons: Sequence[str]) -> str:
    return ""


def _nothing_observed(_members: Sequence[Member]) -> Mapping[str, Observed]:
    return {}


@dataclass(frozen=True)
class FleetSession:
    """What the flows over one fleet work with. `now` gives the date by which members are judged.

    `look` opens ledger, registry or cloud again; `seen` is all that the selector finds, with what services roll.
    `source` is where our own images come from. `groups` are those that a service rolls, None where the kind knows none.
    `firing` returns those of the named alarms that fire; `together` asks many members, at once where the kind bears it;
    `observe` says how members run, by their ids, where the kind can tell. `instead`: what to merge for a group that is
    left alone, since somebody else keeps it as a repository has it; by the reasons against it.
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
    together: Together = one_by_one
    observe: Observe = _nothing_observed
    instead: Callable[[Group, ReplacementImage, Sequence[str]], str] = _nothing_instead
    _looks: dict[tuple[str, str, str], tuple[datetime, Observed]] = field(default_factory=dict, compare=False)

    def origins(self) -> ProvenancePort:
        """A fresh look: nothing is remembered from an earlier judging."""
        return self.look(load_waivers(self.context.settings.roots), self.now())

    def judge(
        self, members: Sequence[Member], when: datetime | None = None, *, whole: bool = False,
        seen: Mapping[str, Observed] | None = None,
    ) -> tuple[Judged, ...]:  # fmt: skip
        """The members judged by today's policy and waivers, as of now or of an earlier moment.

        How they run is only looked at where the policy does more than record that, or for a `whole` answer; `seen`: how
        they were just seen to run.
        """
        now, judged = when or self.now(), list[Judged]()
        policy = self.context.policy_named(self.fleet.policy)
        waivers = load_waivers(self.context.settings.roots)
        origins, by = self.look(waivers, now), FleetJudge(self.fleet.name, policy, waivers, now, self.source)
        if seen is None:
            seen = self.observed(members)[0] if whole or demands(policy) else {}
        for member in sorted(members, key=lambda one: one.id):
            try:
                origin = origins.of(member)
            except MalformedError as error:  # one image's; a registry that cannot be asked concerns all of them
                judged.append(_unread(self, member, error.message))
            else:
                judged.append(by.judge(member, origin, seen.get(member.id)))
        return tuple(judged)

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
        refuse_unmatched(adopt, [*(one.name for one in world.members), *(one.name for one in world.groups)])
        judged, grouped = self._judged(world.members, judged), bool(world.groups)
        changes = self._changes(judged, world.target)
        made = plan(
            self.fleet, judged, world.target, world.now, adopt, automated=automated, grouped=grouped, changes=changes
        )
        return seal(made, world, self.context.actor, adopt, automated=automated)

    def _changes(self, judged: Sequence[Judged], target: ReplacementImage) -> dict[str, Changes]:
        """What the replacement changes in each member that violates, by its id."""
        violating = [one.member for one in judged if one.violations]
        found = self.together([partial(self.members.changes, one, target) for one in violating])
        return dict(zip([one.id for one in violating], found, strict=True))

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
            waived = any(reason.waived_by for reason in one.reasons)
            return "it is waived by now" if waived else "it no longer violates"
        return why_not(self.fleet, one, order.target, self.now(), order.adopt)

    def refuse(self, target: ReplacementImage) -> None:
        """Raises RefusedError as soon as the replacement must not run any more."""
        refuse_target(self.fleet, self.origins().again(target), self.now())

    def alarms(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the alarms that are firing; one that cannot be asked fires."""
        named = [name for name in names if not name.startswith(ADDRESSES)]
        fired = self.firing(named) if named else ()
        return tuple(name for name in names if (name in fired if name in named else _fires(name)))


def _fires(address: str) -> bool:
    try:
        return not requests.get(address, timeout=ASK_SECONDS).ok
    except requests.RequestException:
        return True


@contextmanager
def fleet_session(name: str, context: Context, *, now: Now = clock) -> Iterator[FleetSession]:
    """Open what a flow over the fleet `name` needs.

    Raises ContentError where the fleet names no policy, before anything is asked, and OutsideError.
    """
    roots = context.settings.roots
    fleet = load_fleet(roots, name)
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
        case _:
            assert_never(fleet.kind)


@contextmanager
def _docker_session(fleet: Fleet, context: Context, now: Now) -> Iterator[FleetSession]:
    registry = context.registry
    login, seen = partial(auth_config, context.settings), partial(_last_seen, fleet, context)
    with DockerFleet(fleet, fleet_host(context), login, registered(registry, fleet), seen) as members:
        yield FleetSession(
            fleet, context, members, now, registry.address,
            lambda waivers, at: ProvenanceReader(fleet, context, waivers, at, registry),
            lambda: Seen(members.describe()), together=together, observe=partial(observe, members),
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
    members = (RootVolumeFleet if fleet.ec2.way is ReplacementStrategy.ROOT_VOLUME else Ec2Fleet)(fleet, cloud)
    source = f"aws/{cloud.aws.account}"
    return FleetSession(
        fleet, context, members, now, source,
        lambda waivers, at: AmiProvenance(fleet, context, waivers, at), members.seen, AutoScalingFleet(fleet, cloud),
        lambda names: firing(cloud, regions_of(fleet, cloud), names), observe=members.observe,
    )  # fmt: skip


def _kubernetes_session(fleet: Fleet, context: Context, now: Now) -> FleetSession:
    from pipelines.fleet.kubernetes.cluster_client import ClusterClient
    from pipelines.fleet.kubernetes.groups import WorkloadFleet
    from pipelines.fleet.kubernetes.kubeconfig import access_of
    from pipelines.fleet.kubernetes.members import NamespaceReader, PodFleet, PodProvenance

    client = ClusterClient(partial(access_of, fleet.kubernetes), context.settings.retry_for)
    reader = NamespaceReader(fleet, client)
    registry = context.registry
    members, groups = PodFleet(reader, registered(registry, fleet)), WorkloadFleet(fleet, reader, now)
    return FleetSession(
        fleet, context, members, now, registry.address,
        lambda waivers, at: PodProvenance(fleet, context, waivers, at, registry),
        members.seen, groups, observe=members.observe, instead=groups.instead,
    )  # fmt: skip


def check(at: FleetSession) -> tuple[Judged, ...]:
    """All that the fleet runs judged; the ledger learns of it. None at all is the caller's to say, not a pass.

    What could not be read is among it, as a violation of its own; the ledger then keeps what it last saw whole.
    """
    with at.context.ledger.kept_open():
        return _checked(at)


def _checked(at: FleetSession) -> tuple[Judged, ...]:
    seen = at.seen()
    observed, known = at.observed(seen.members)
    judged = at.judge(seen.members, seen=observed)
    if not seen.unread and not any(UNREAD in one.rules for one in judged):
        at.context.ledger.seen_fleet(at.fleet.name, {one.member.name: _runs(one) for one in judged}, at.now())
        if judged and not pretended(at.context.settings):  # a fleet that seems empty has hardly lost every member
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
    """What must not be pruned while this member runs: the golden content inside, else the image itself."""
    return one.origin.golden.content if one.origin.golden else one.member.digests[0]


def _unread(at: FleetSession, member: Member, why: str) -> Judged:
    """A member whose image, or a place that could not be read, as a line among the members: it is not compliant."""
    reason = Reason(
        rule=UNREAD, subject=f"{at.fleet.name}/{member.name}", enforcement=Enforcement.ENFORCE,
        what=f"it could not be read: {why}", why="a place that cannot be read counts as non-compliant",
        todo="mend the way to it, and check again", since=at.now(), deadline=at.now(),
    )  # fmt: skip
    return Judged(replace(member, cannot_roll=member.cannot_roll or why), Provenance(), (reason,))


# -- planning all of a fleet: its members, and the groups that a service rolls -----------------------------------------


def plan_all(at: FleetSession, adopt: Sequence[str] = (), *, automated: bool = False) -> ApprovedPlan:
    """What a rollout would do now, of members and of groups that a service rolls. `adopt`: those with an unknown or
    another image that are taken over on purpose.

    Raises RefusedError, also where the inventory is implausible or a group's limits cannot be said to the service, and
    OutsideError.
    """
    judged = check(at) if at.groups else ()
    document = at.plan(adopt, automated=automated, judged=judged)
    if groups := _violating_groups(at, judged):
        refuse_target(at.fleet, document.plan.target, at.now())
        refuse_implausible(at.fleet, [one for group in groups for one in _inside(judged, group)], adopt)
    return _with_groups(at, document, groups, judged, at.now())


def plan_again(at: FleetSession, approved: ApprovedPlan) -> ApprovedPlan:
    """An approved plan as it is planned again, if that and the world are what was approved.

    A group that contains something to be left alone is left alone as a whole. Raises RefusedError with what differs.
    """
    document = at.same(approved)
    if not approved.plan.groups:
        return document
    judged = check(at)
    present = {group.id: group for group in _violating_groups(at, judged)}
    groups = [present[step.group.id] for step in approved.plan.groups if step.group.id in present]
    again = _with_groups(at, document, groups, judged, approved.made_at)
    refuse_repaced(approved, again.plan.groups, at.fleet)
    return again


def _violating_groups(at: FleetSession, judged: Sequence[Judged]) -> list[Group]:
    """The groups of which something violates: an instance, or what it would start next."""
    groups = at.groups.groups() if at.groups else ()
    return [group for group in groups if any(one.violations for one in _inside(judged, group))]


def _inside(judged: Iterable[Judged], group: Group) -> list[Judged]:
    """What is in a group, judged as if it were the group: by that name people take it over."""
    found = [one for one in judged if one.member.group == group.id]
    return [replace(one, member=replace(one.member, name=group.name, cannot_roll="")) for one in found]


def _with_groups(
    at: FleetSession, document: ApprovedPlan, groups: Sequence[Group], judged: Sequence[Judged], when: datetime
) -> ApprovedPlan:
    """The plan with these groups to roll, at the pace that the budgets of that moment allow."""
    if at.groups is None:
        return document
    steps = tuple(_step(at, at.groups, document, group, _inside(judged, group), when) for group in groups)
    return replace(document, plan=replace(document.plan, groups=steps))


def _step(
    at: FleetSession, delegated: DelegatedFleet, document: ApprovedPlan, group: Group, inside: Sequence[Judged],
    when: datetime,
) -> GroupStep:  # fmt: skip
    """A group with its pace, and with why it is left alone, for one thing in it that must be: the service replaces all
    of it.
    """
    violating, target, now = [one for one in inside if one.violations], document.plan.target, at.now()
    found = ((one, why_not(at.fleet, one, target, now, document.adopt)) for one in violating)
    left = next((f"{one.member.id.rpartition('/')[2]}: {why}" for one, why in found if why), "")
    most = allowed(at.fleet.limits, group.desired, sorted({rule for one in violating for rule in one.rules}), when)
    if not most and group.desired:
        raise RefusedError(f"budget exhausted for {group.name}", hint="see limits.budgets")
    reasons = [reason.what for one in violating for reason in one.violations]
    merge = at.instead(group, target, reasons) if group.cannot_roll else ""
    return GroupStep(replace(group, cannot_roll=group.cannot_roll or left, instead=merge), delegated.pace(group, most))
