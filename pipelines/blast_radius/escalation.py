"""The steps from one principal to another, and to data: by every path of escalation_paths.toml. Pure.

A right that depends on a condition of which nothing is known makes a step that is possible, not certain. So does a
resource that is not known: that a role may be what something of a service runs as.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from hardening.foundation.grouping import by_key
from pipelines.blast_radius.account import EVERYBODY, Account, Principal, PrincipalKind, bounded_arn, freed_arn
from pipelines.blast_radius.graph import Cut, Edge, Strength, merged
from pipelines.blast_radius.iam_policy import Decision, Rights, Statement, common, is_about
from pipelines.blast_radius.member_steps import profile_node

ADMINISTRATOR = "arn:{}:iam::aws:policy/AdministratorAccess"
STRENGTH = {Decision.POSSIBLE: Strength.POSSIBLE, Decision.CERTAIN: Strength.CERTAIN}
ANYTHING = Statement(allows=True, actions=("*",))
VERBS = ("read", "change", "destroy")
UNBIND = ("iam:DeleteRolePermissionsBoundary", "iam:DeleteUserPermissionsBoundary", "iam:PutRolePermissionsBoundary",
          "iam:PutUserPermissionsBoundary", "iam:CreatePolicyVersion")  # fmt: skip
"""What takes a permissions boundary off, puts another one in its place, or changes what it says."""
ASSUME = "sts:AssumeRole"
EC2 = "ec2.amazonaws.com"
OF_TARGET = {"role", "user", "group", "policy", "self", "own-group"}


@dataclass(frozen=True)
class RunningService:
    """Something of a service that already runs as a role: its ARN, and the role's."""

    service: str
    arn: str
    role: str


@dataclass(frozen=True)
class ProfiledInstance:
    """An instance of a fleet: its ARN, its node, and the name of its instance profile."""

    arn: str
    node: str
    profile: str


@dataclass(frozen=True)
class EscalationPath:
    """One path. `needs`: each action, and what it must be allowed on (escalation_paths.toml has the words)."""

    id: str
    takes: str
    needs: tuple[tuple[str, str], ...]
    service: str = ""
    actor: str = "any"
    doubt: bool = False

    @property
    def actions(self) -> tuple[str, ...]:
        """The actions that it needs."""
        return tuple(action for action, _ in self.needs)


@dataclass(frozen=True)
class DataKind:
    """One kind of data: the pattern of its resources, and the actions by what they do to it."""

    name: str
    resource: str
    actions: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Ways:
    """All that escalation_paths.toml and data_actions.toml say."""

    paths: tuple[EscalationPath, ...]
    resources: Mapping[str, str]
    data: tuple[DataKind, ...]

    @classmethod
    def of(cls, paths: Mapping[str, Any], data: Mapping[str, Any]) -> Ways:
        """The ways of the two files' contents."""
        return cls(
            tuple(
                EscalationPath(
                    name, row["takes"], tuple(row["needs"].items()),
                    f"{row['service']}.amazonaws.com" if "service" in row else "", row.get("actor", "any"),
                    row.get("doubt", False),
                ) for name, row in paths["paths"].items()
            ),
            paths["resources"],
            tuple(
                DataKind(name, row["resource"], tuple((verb, tuple(row[verb])) for verb in VERBS if verb in row))
                for name, row in data.items()
            ),
        )  # fmt: skip


@dataclass(frozen=True)
class AccountSteps:
    """Finds the steps in one account."""

    account: Account
    ways: Ways
    workloads: tuple[RunningService, ...] = ()
    machines: tuple[ProfiledInstance, ...] = ()

    @cached_property
    def _roles(self) -> list[Principal]:
        return [one for one in self.account.principals if one.kind is PrincipalKind.ROLE]

    @cached_property
    def _trusting(self) -> dict[str, list[tuple[Principal, Decision]]]:
        """The roles that each service may take, and how sure that is."""
        services = {one.service for one in self.ways.paths if one.service}
        found = {service: [(role, role.trusts_service(service)) for role in self._roles] for service in services}
        return {service: [pair for pair in pairs if pair[1]] for service, pairs in found.items()}

    @cached_property
    def _running(self) -> dict[tuple[str, str], list[str]]:
        return by_key(((one.service, one.role), one.arn) for one in self.workloads)

    def of_account(self) -> list[Edge]:
        """What a principal with all rights reaches: all principals, and the roles of instance profiles."""
        whole = f"account:{self.account.id}"
        edges = [
            Edge(whole, node(one.arn), Strength.CERTAIN, ("all rights in the account",))
            for one in self.account.principals if one.kind in (PrincipalKind.ROLE, PrincipalKind.USER)
        ]  # fmt: skip
        everything = f"data:read, change and destroy all data of the account {self.account.id}"
        edges.append(Edge(whole, everything, Strength.CERTAIN, ("all rights in the account",)))
        edges += [
            Edge(profile_node(self.account.id, name), node(arn), Strength.CERTAIN, ("it is the profile's role",))
            for name, arn in self.account.by_profile.items()
        ]
        edges += [Edge(self._all_machines, one.node, Strength.CERTAIN, ("it is one of them",)) for one in self.machines]
        return edges

    @property
    def _all_machines(self) -> str:
        return f"instances:{self.account.id}"

    def of(self, actor: Principal) -> list[Edge]:
        """All steps of one principal."""
        if actor.rights.unlimited:
            cut = frozenset((Cut("deny", actor.arn, "*", ("*",)),))
            return [Edge(node(actor.arn), f"account:{self.account.id}", Strength.CERTAIN, ("it has all rights",), cut)]
        may = {action for path in self.ways.paths for action in path.actions if _some(actor.rights, action)}
        may.add(ASSUME)  # which a role may let it do by itself
        found = [edge for path in self.ways.paths if may.issuperset(path.actions) for edge in self._by(path, actor)]
        return merged([*found, *self._data(actor), *self._unbound(actor)])

    def _unbound(self, actor: Principal) -> Iterator[Edge]:
        """To what it has without its boundary, where it may take that off; to all rights from the boundary itself."""
        answer = _may_unbind(actor, actor) if actor.limit else Decision.NO
        if not answer:
            return
        cuts, how = frozenset((Cut("deny", actor.arn, "*", UNBIND),)), ("it may take its boundary off",)
        if actor.kind is PrincipalKind.BOUNDED:
            yield Edge(node(actor.arn), f"account:{self.account.id}", STRENGTH[answer], how, cuts)
            return
        freed = node(freed_arn(actor))
        yield Edge(node(actor.arn), freed, STRENGTH[answer], how, cuts)
        for edge in self.of(replace(actor, rights=Rights(actor.rights.statements), limit="")):
            yield replace(edge, source=freed)

    # -- ways ---------------------------------------------------------------------------------------------------------

    def _by(self, path: EscalationPath, actor: Principal) -> Iterator[Edge]:
        joined = actor.kind is PrincipalKind.GROUP  # by a user, who then has its rights
        if path.actor not in ("any", PrincipalKind.USER if joined else actor.kind):
            return
        fixed = min(
            (actor.may(action, self._resource(on)) for action, on in path.needs if on not in OF_TARGET),
            default=Decision.CERTAIN,
        )
        if not fixed and path.takes != "existing":
            return
        match path.takes:
            case "new":
                yield from self._new(path, actor, fixed)
            case "existing":
                yield from self._existing(path, actor, fixed)
            case "self":
                yield from self._self(path, actor)
            case _:
                yield from self._principals(path, actor)

    def _resource(self, on: str) -> str:
        return "*" if on == "any" else self._here(self.ways.resources[on])

    def _here(self, pattern: str) -> str:
        return pattern.format(account=self.account.id, partition=self.account.partition)

    def _new(self, path: EscalationPath, actor: Principal, fixed: Decision) -> Iterator[Edge]:
        passed = {"iam:passedtoservice": path.service}
        for role, trusted in self._trusting[path.service]:
            if role.arn != actor.arn and not (path.service == EC2 and not role.profiles):
                answer = min(fixed, trusted, actor.may("iam:PassRole", role.arn, passed))
                yield from self._edge(path, actor, node(role.arn), answer, role.arn)

    def _existing(self, path: EscalationPath, actor: Principal, fixed: Decision) -> Iterator[Edge]:
        """To what runs as a role: certain where it is known to, else possible."""
        if "instance" in dict(path.needs).values():
            yield from self._instances(path, actor, fixed)
        for role, _ in self._trusting[path.service]:
            if role.arn == actor.arn or (path.service == EC2 and not role.profiles):
                continue
            known = self._running.get((path.service, role.arn), [])
            answers = [
                min(actor.may(action, arn if on != "any" and common(self._resource(on), arn) else self._resource(on))
                    for action, on in path.needs)
                for arn in known
            ]  # fmt: skip
            unknown = min(fixed, Decision.POSSIBLE) if not known else Decision.NO
            yield from self._edge(path, actor, node(role.arn), min(self._most(path), max([*answers, unknown])), "")

    @staticmethod
    def _most(path: EscalationPath) -> Decision:
        return Decision.POSSIBLE if path.doubt else Decision.CERTAIN

    def _instances(self, path: EscalationPath, actor: Principal, fixed: Decision) -> Iterator[Edge]:
        """To the instances of fleets: to all of them at once where the rights do not tell them apart."""
        most = self._most(path)
        if not fixed:
            return
        if not any(one.resources != ("*",) or one.not_resources for one in actor.rights.about_all(path.actions)):
            if self.machines:
                yield from self._edge(path, actor, self._all_machines, min(most, fixed), "")
            return
        for machine in self.machines:
            places = ((action, machine.arn if on == "instance" else self._resource(on)) for action, on in path.needs)
            answer = min(actor.may(action, place) for action, place in places)
            yield from self._edge(path, actor, machine.node, min(most, answer), "")

    def _self(self, path: EscalationPath, actor: Principal) -> Iterator[Edge]:
        ((action, on),) = path.needs
        joined = actor.kind is PrincipalKind.GROUP
        own = self._here("arn:{partition}:iam::{account}:user/*") if joined else actor.arn
        groups = (actor.arn,) if joined else actor.groups
        places = {"self": (own,), "policy": actor.policies, "own-group": groups}[on]
        answer = _with_a_policy(actor, action, places)
        if joined and on == "self":  # it is not known which user that is
            answer = min(answer, Decision.POSSIBLE)
        yield from self._edge(path, actor, self._any_rights(actor), answer, places[0] if len(places) == 1 else "")

    def _principals(self, path: EscalationPath, actor: Principal) -> Iterator[Edge]:
        kind, empowers = path.takes.removeprefix("empowered-"), path.takes.startswith("empowered-")
        assumed = ASSUME in path.actions
        for target in self._assumable(actor) if assumed else self.account.principals:
            if target.kind != kind or target.arn == actor.arn or target.arn in actor.groups:
                continue
            answer = self._on(path, actor, target)
            if empowers:
                yield from self._edge(path, actor, self._any_rights(target), answer, target.arn)
                freely = min(answer, _may_unbind(actor, target)) if target.limit else Decision.NO
                yield from self._edge(path, actor, f"account:{self.account.id}", freely, target.arn)
            else:
                yield from self._edge(path, actor, node(target.arn), answer, target.arn)

    @cached_property
    def _letting_in(self) -> dict[str, list[Principal]]:
        """The roles by the names that their trust policies let in."""
        return by_key((name, role) for role in self._roles for name in role.lets_in)

    def _assumable(self, actor: Principal) -> list[Principal]:
        """The roles whose trust policies may let it in, which are few of many."""
        names = frozenset(("",)).union(EVERYBODY, *actor.names)
        found = {role.arn: role for name in names for role in self._letting_in.get(name, ())}
        return [found[arn] for arn in sorted(found)]

    def _on(self, path: EscalationPath, actor: Principal, target: Principal) -> Decision:
        answer = Decision.CERTAIN
        for action, on in path.needs:
            places = target.policies if on == "policy" else (target.arn,)
            if action == ASSUME:
                answer = min(answer, may_assume(actor, target))
            else:
                answer = min(answer, _with_a_policy(actor, action, places))
            if not answer:
                break
        return answer

    def _any_rights(self, principal: Principal) -> str:
        """What one who may write policies for a principal has: all rights, or what its boundary leaves."""
        limit = principal.rights.boundary
        if limit is None or Rights(limit).unlimited:
            return f"account:{self.account.id}"
        return node(bounded_arn(principal))

    def _edge(self, path: EscalationPath, actor: Principal, target: str, answer: Decision, on: str) -> Iterator[Edge]:
        if answer:
            cuts = {Cut("deny", actor.arn, "*", (action,)) for action in path.actions}
            cuts |= {Cut("deny", actor.arn, on, (action,)) for action, of in path.needs if on and of in OF_TARGET}
            yield Edge(node(actor.arn), target, STRENGTH[answer], (path.id,), frozenset(cuts))

    # -- data ---------------------------------------------------------------------------------------------------------

    def _data(self, actor: Principal) -> Iterator[Edge]:
        """The data that it may read, change or destroy: by the resources that its policies name."""
        for kind in self.ways.data:
            wide = self._here(kind.resource)
            for verb, actions in kind.actions:
                for place in self._places(actor, actions, wide):
                    answer = max(actor.may(action, place) for action in actions)
                    if answer:
                        shown = place if place != wide else f"all of {self.account.id}"
                        cut = Cut("deny", actor.arn, place, actions)
                        yield Edge(node(actor.arn), f"data:{verb} {kind.name} {shown}", STRENGTH[answer],
                                   (f"it may {verb} {kind.name}",), frozenset((cut,)))  # fmt: skip

    @staticmethod
    def _places(actor: Principal, actions: Iterable[str], wide: str) -> list[str]:
        named = {
            place
            for action in actions
            for one in actor.rights.statements
            if one.allows and is_about(one, action)
            for place in (one.resources if not one.not_resources else ("*",))
        }
        return sorted({found for place in named if (found := common(wide, place))})


def node(arn: str) -> str:
    """The node of a principal."""
    return f"iam:{arn}"


def _some(rights: Rights, action: str) -> bool:
    return any(one.allows and is_about(one, action) for one in rights.statements)


def _with_a_policy(actor: Principal, action: str, places: Iterable[str]) -> Decision:
    """Whether it may do that in one of some places: surely with the policy that gives all rights; where a condition
    names others, possibly, for what these give is never asked.
    """
    administrator = {"iam:policyarn": ADMINISTRATOR.format(actor.partition)}
    found = (
        actor.may(action, place, administrator) or min(Decision.POSSIBLE, actor.may(action, place)) for place in places
    )
    return max(found, default=Decision.NO)


def _may_unbind(actor: Principal, target: Principal) -> Decision:
    """Whether it may take the boundary of a role or user off, or make one of it that limits nothing."""
    arn = target.arn.partition(" ")[0]
    kind = "User" if ":user/" in arn else "Role"
    administrator = ADMINISTRATOR.format(target.partition)
    return max(
        actor.may(f"iam:Delete{kind}PermissionsBoundary", arn, {"iam:permissionsboundary": target.limit}),
        actor.may(f"iam:Put{kind}PermissionsBoundary", arn, {"iam:permissionsboundary": administrator}),
        actor.may("iam:CreatePolicyVersion", target.limit) if f":{actor.account}:" in target.limit else Decision.NO,
    )


def may_assume(actor: Principal, role: Principal) -> Decision:
    """Whether a principal may assume a role of its account.

    A trust policy that names the principal, or everybody, is enough, where nothing denies it; one that names the
    account needs a policy of the principal too. By its name a role is let in only as far as its boundary allows.
    """
    by_name, as_anybody, by_account = role.trusts(actor)
    if not (by_name or as_anybody or by_account):
        return Decision.NO
    own = actor.may(ASSUME, role.arn)
    limit = actor.rights.boundary if actor.kind is PrincipalKind.ROLE else None
    denials = (ANYTHING, *actor.rights.statements)
    freely, limited = (
        Rights(denials, at).answer(ASSUME, role.arn, actor.context) for at in (None, limit)
    )  # fmt: skip
    return max(min(own, by_account), min(limited, by_name), min(freely, as_anybody))
