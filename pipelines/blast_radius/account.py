"""The users, groups and roles of an account, as IAM's GetAccountAuthorizationDetails shows them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from hardening.foundation.errors import NOT_UNDERSTOOD, OutsideError, traced
from hardening.foundation.limits import IAM_DOCUMENT, IAM_PRINCIPALS, IAM_STATEMENTS, parse_json
from pipelines.blast_radius.iam_policy import (
    Condition,
    Decision,
    RequestContext,
    Rights,
    Statement,
    Statements,
    read_document,
)

LINKED = "/aws-service-role/"  # roles that only their service can take, and whose policies cannot be changed
EVERYBODY = frozenset(("*",))
UNKNOWN = (Statement(allows=True, actions=("*",), conditions=(Condition("StringEquals", "unread", ()),)),)
"""What a policy that is not shown may say: anything is possible."""
OWN_NAME = re.compile(r"\$\{aws:username\}", re.IGNORECASE)


class PrincipalKind(StrEnum):
    """What has rights. `bounded`: all that a permissions boundary leaves to one who may write policies."""

    ROLE = "role"
    USER = "user"
    GROUP = "group"
    BOUNDED = "bounded"


@dataclass(frozen=True)
class Principal:
    """A role, user or group. `policies`: its customer-managed ones; `profiles`: the instance profiles with it; `limit`:
    the policy that is its permissions boundary, empty where none is.
    """

    arn: str
    kind: PrincipalKind
    rights: Rights
    trust: Statements = ()
    policies: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    limit: str = ""

    @property
    def account(self) -> str:
        """The account that it is in."""
        return self.arn.split(":")[4]

    @property
    def partition(self) -> str:
        """The partition of AWS that it is in, such as aws or aws-cn."""
        return self.arn.split(":")[1]

    @cached_property
    def context(self) -> dict[str, str | None]:
        """What is known of every request of it. Of a group, and of what a boundary leaves, not who asks."""
        known: dict[str, str | None] = {"aws:principalaccount": self.account, "aws:securetransport": "true"}
        asking = {PrincipalKind.ROLE: "AssumedRole", PrincipalKind.USER: "User"}.get(self.kind)
        return known | ({"aws:principalarn": self.arn, "aws:principaltype": asking} if asking else {})

    def may(self, action: str, resource: str, context: RequestContext | None = None) -> Decision:
        """Whether it may do `action` on `resource`."""
        return self.rights.answer(action, resource, {**self.context, **(context or {})})

    def trusts_service(self, service: str) -> Decision:
        """Whether the service may take the role."""
        named = {f"Service:{service}", f"Service:{service}.cn", *EVERYBODY}  # as some are called in China
        return _trusted(self.trust, named, named, {})

    @cached_property
    def names(self) -> tuple[frozenset[str], frozenset[str]]:
        """What trust policies call it: by its own name, and by its account as a whole."""
        whole = f"AWS:arn:{self.partition}:iam::{self.account}:root"
        return frozenset((f"AWS:{self.arn}",)), frozenset((whole, f"AWS:{self.account}"))

    def trusts(self, other: Principal) -> tuple[Decision, Decision, Decision]:
        """Whether the role trusts another principal by its name, as everybody, and by its account as a whole."""
        (own, whole), context = other.names, other.context
        every = own | EVERYBODY | whole
        by_name, as_anybody, by_account = (
            _trusted(self.trust, some, every, context) if self._named is None or self._named & some else Decision.NO
            for some in (own, EVERYBODY, whole)
        )  # fmt: skip
        if not by_name and (sessions := self._sessions_of(other)):
            by_name = min(Decision.POSSIBLE, _trusted(self.trust, sessions, every | sessions, context))
        return by_name, as_anybody, by_account

    def _sessions_of(self, role: Principal) -> frozenset[str]:
        """The sessions of another role that the trust policy names: who has that role may call one so."""
        if not self._sessions or role.kind is not PrincipalKind.ROLE:
            return frozenset()
        begin = f"AWS:arn:{role.partition}:sts::{role.account}:assumed-role/{role.arn.rpartition('/')[2]}/"
        return frozenset(name for name in self._sessions if name.startswith(begin))

    @cached_property
    def _sessions(self) -> frozenset[str]:
        named = (name for one in self.trust if one.allows for name in one.principals)
        return frozenset(name for name in named if ":assumed-role/" in name)

    @property
    def lets_in(self) -> frozenset[str]:
        """The names that its trust policy lets in; an empty one stands for all others, and for sessions of roles."""
        return frozenset(("",)) if self._named is None or self._sessions else self._named

    @cached_property
    def _named(self) -> frozenset[str] | None:
        """All that the trust policy lets in; None where it lets in all but some."""
        if any(one.but_principals for one in self.trust):
            return None
        return frozenset(name for one in self.trust if one.allows for name in one.principals)

    def without(self, actions: tuple[str, ...], resource: str) -> Principal:
        """The same with these actions on a resource denied."""
        return replace(self, rights=self.rights.without(actions, resource))


def _trusted(trust: Statements, named: Set[str], known_as: Set[str], context: RequestContext) -> Decision:
    """Whether a trust policy lets one in by one of the names `named`; any of its names may be denied or excepted."""
    about = tuple(
        replace(one, principals=(), but_principals=(), resources=("*",))
        for one in trust
        if not (named if one.allows else known_as).isdisjoint(one.principals)
        or (one.but_principals and known_as.isdisjoint(one.but_principals))
    )
    return Rights(about).answer("sts:AssumeRole", "*", context)


@dataclass(frozen=True)
class Account:
    """What is known of the rights in one account. `notes`: what is never read; `unread`: what was not shown."""

    id: str
    principals: tuple[Principal, ...] = ()
    notes: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def partition(self) -> str:
        """The partition of AWS that it is in."""
        return next((one.partition for one in self.principals), "aws")

    @cached_property
    def by_profile(self) -> dict[str, str]:
        """The ARN of the role of each instance profile, by the profile's name."""
        return {name: one.arn for one in self.principals for name in one.profiles}


def read_account(account: str, shown: Mapping[str, Iterable[Mapping[str, Any]]]) -> Account:
    """The account of an answer: its lists by their keys, of all pages together. Raises OutsideError for another one."""
    try:
        return _read(account, {key: list(lines) for key, lines in shown.items()})
    except NOT_UNDERSTOOD as error:
        raise OutsideError(
            f"what IAM shows of the account {account} is not understood: {traced(error)}",
            hint="see aws iam get-account-authorization-details",
        ) from error


def _read(account: str, shown: Mapping[str, list[Mapping[str, Any]]]) -> Account:
    IAM_PRINCIPALS.require(sum(map(len, shown.values())), f"the account {account}")
    managed = {str(one["Arn"]): said for one in shown.get("Policies", ()) if (said := _default(one)) is not None}
    own = {arn for arn in managed if arn.split(":")[4] == account}
    groups = {str(one["GroupName"]): _group(one, managed, own) for one in shown.get("GroupDetailList", ())}
    users = [_user(one, managed, own, groups) for one in shown.get("UserDetailList", ())]
    shown_roles = [one for one in shown.get("RoleDetailList", ()) if not str(one.get("Path") or "/").startswith(LINKED)]
    roles = [_role(one, managed, own) for one in shown_roles]
    principals = [*roles, *users, *groups.values()]
    notes = [f"{one.arn}: it trusts {who}" for one in roles for who in _strangers(one)]
    lines = (*shown_roles, *shown.get("UserDetailList", ()), *shown.get("GroupDetailList", ()))
    unread = [line for one in lines for line in _not_shown(one, managed, groups)]
    bounded = [_bounded(one) for one in principals if one.rights.boundary is not None]
    every = tuple(sorted([*principals, *bounded], key=lambda one: one.arn))
    return Account(account, every, tuple(notes), tuple(unread))


def _not_shown(one: Mapping[str, Any], managed: Container[str], groups: Container[str]) -> Iterator[str]:
    """What a principal has, and the answer does not hold: what that allows is not known."""
    limit = _limit(one)
    policies = [*(each["PolicyArn"] for each in one.get("AttachedManagedPolicies") or ()), *([limit] if limit else ())]
    yield from (f"{one['Arn']}: what its policy {name} says" for name in policies if name not in managed)
    yield from (f"{one['Arn']}: its group {name}" for name in one.get("GroupList") or () if name not in groups)


def _strangers(role: Principal) -> Iterator[str]:
    """Whom a role trusts that is none of its account: who these are, and what they can do, is not known."""
    named = [name for one in role.trust if one.allows for name in one.principals]
    if any(name == "*" or (name.startswith("AWS:") and not _is_of(role.account, name)) for name in named):
        yield "other accounts or everybody"
    if any(name.startswith("Federated:") for name in named):
        yield "an identity provider, such as that of a cluster for its pods"


def _is_of(account: str, name: str) -> bool:
    return name.removeprefix("AWS:").split(":")[4:5] == [account] or name == f"AWS:{account}"


def bounded_arn(principal: Principal) -> str:
    """What all is called that a principal's boundary leaves."""
    return f"{principal.arn} (its boundary)"


def freed_arn(principal: Principal) -> str:
    """What a principal is called that has taken its boundary off."""
    return f"{principal.arn} (without its boundary)"


def _bounded(principal: Principal) -> Principal:
    """What one who may write policies for a bounded principal has: what the boundary allows, and no more."""
    rights = Rights(principal.rights.boundary or ())
    return Principal(bounded_arn(principal), PrincipalKind.BOUNDED, rights, limit=principal.limit)


def document(said: Any, what: str) -> Statements:
    """The statements of a policy, whether the SDK has decoded it or not."""
    if isinstance(said, str):
        text = unquote(said)
        IAM_DOCUMENT.require(len(text), what)
        said = parse_json(text.encode(), what)
    else:
        IAM_DOCUMENT.require(len(json.dumps(said)), what)
    return read_document(said, what)


def _default(policy: Mapping[str, Any]) -> Statements | None:
    """The statements of the version of a managed policy that is in force; None where that is not shown."""
    versions = policy.get("PolicyVersionList") or ()
    return next(
        (document(one["Document"], str(policy["Arn"])) for one in versions if one.get("IsDefaultVersion")), None
    )


def _rights(
    one: Mapping[str, Any], inline: str, managed: Mapping[str, Statements], more: Statements = ()
) -> Rights:  # fmt: skip
    arn = str(one["Arn"])
    if arn.count(":") < 5:  # noqa: PLR2004 - an ARN has six parts
        raise KeyError("Arn")
    attached = [str(each["PolicyArn"]) for each in one.get("AttachedManagedPolicies") or ()]
    statements = [
        *(line for each in one.get(inline) or () for line in document(each["PolicyDocument"], arn)),
        *(line for name in attached for line in managed.get(name, ())), *more,
    ]  # fmt: skip
    IAM_STATEMENTS.require(len(statements), arn)
    limit = _limit(one)
    return Rights(tuple(statements), managed.get(limit, UNKNOWN) if limit else None)


def _limit(one: Mapping[str, Any]) -> str:
    """The policy that is the permissions boundary of a role or user; empty where it has none."""
    return str((one.get("PermissionsBoundary") or {}).get("PermissionsBoundaryArn") or "")


def _attached(one: Mapping[str, Any], own: Iterable[str]) -> tuple[str, ...]:
    return tuple(
        str(each["PolicyArn"]) for each in one.get("AttachedManagedPolicies") or () if each["PolicyArn"] in own
    )


def _group(one: Mapping[str, Any], managed: Mapping[str, Statements], own: set[str]) -> Principal:
    rights = _rights(one, "GroupPolicyList", managed)
    return Principal(str(one["Arn"]), PrincipalKind.GROUP, rights, policies=_attached(one, own))


def _user(
    one: Mapping[str, Any], managed: Mapping[str, Statements], own: set[str], groups: Mapping[str, Principal]
) -> Principal:
    mine = [groups[name] for name in one.get("GroupList") or () if name in groups]
    shared = tuple(line for group in mine for line in group.rights.statements)
    policies = (*_attached(one, own), *(name for group in mine for name in group.policies))
    found, arn = _rights(one, "UserPolicyList", managed, shared), str(one["Arn"])
    name = arn.rpartition("/")[2]
    rights = Rights(_called(found.statements, name), None if found.boundary is None else _called(found.boundary, name))
    return Principal(
        arn, PrincipalKind.USER, rights, policies=policies, groups=tuple(group.arn for group in mine), limit=_limit(one)
    )


def _called(statements: Statements, name: str) -> Statements:
    """The statements as they are about the user of that name, whom a policy variable may stand for."""

    def filled(patterns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(OWN_NAME.sub(lambda _: name, one) for one in patterns)

    return tuple(
        replace(one, resources=filled(one.resources), not_resources=filled(one.not_resources))
        if any("${" in text for text in (*one.resources, *one.not_resources)) else one
        for one in statements
    )  # fmt: skip


def _role(one: Mapping[str, Any], managed: Mapping[str, Statements], own: set[str]) -> Principal:
    arn = str(one["Arn"])
    return Principal(
        arn, PrincipalKind.ROLE, _rights(one, "RolePolicyList", managed),
        trust=document(one["AssumeRolePolicyDocument"], arn), policies=_attached(one, own),
        profiles=tuple(str(each["InstanceProfileName"]) for each in one.get("InstanceProfileList") or ()),
        limit=_limit(one),
    )  # fmt: skip
