"""The planted ways and their benign twins, as accounts and as requests that a referee can judge."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.blast_radius.account import Account, read_account
from pipelines.blast_radius.escalation import RunningService

HERE = Path(__file__).parent
ACCOUNT = "123456789012"
ARN = f"arn:aws:iam::{ACCOUNT}:"
PLANTED: dict[str, Any] = tomllib.loads((HERE / "planted.toml").read_text())
EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}


@dataclass
class Case:
    """A way as it is planted, or its twin: the actor's policy, its boundary, and whom the target trusts."""

    name: str
    row: dict[str, Any]
    statements: list[dict[str, Any]]
    trust: str
    boundary: list[dict[str, Any]] | None = None
    groups: list[str] = field(default_factory=list)

    @property
    def actor(self) -> str:
        """The ARN of who takes the way."""
        return f"{ARN}{self.row['actor']}/actor"

    @property
    def target(self) -> str:
        """The ARN of whom it takes, if it takes another one."""
        return str(self.row.get("target", ""))

    @property
    def trusting(self) -> dict[str, Any]:
        """The trust policy of the target."""
        kind, _, name = (self.trust or "Service:ec2.amazonaws.com").partition(":")
        return policy({"Effect": "Allow", "Principal": {kind: name}, "Action": "sts:AssumeRole"})

    def account(self) -> Account:
        """The account."""
        return read_account(ACCOUNT, self.shown())

    def shown(self) -> dict[str, list[dict[str, Any]]]:
        """The account as IAM would show it."""
        shared = self.row.get("policy", "")
        mine = {"AttachedManagedPolicies": [{"PolicyName": "shared", "PolicyArn": shared}]} if shared else {}
        actor: dict[str, Any] = {
            "Arn": self.actor,
            "Path": "/",
            "AssumeRolePolicyDocument": policy(EVERYTHING | {"Principal": {"Service": "x"}}),
            "RolePolicyList": [],
            "UserPolicyList": [],
            "GroupList": [one.rpartition("/")[2] for one in self.groups],
        }
        actor["UserPolicyList" if self.row["actor"] == "user" else "RolePolicyList"] = [
            {"PolicyName": "own", "PolicyDocument": policy(*self.statements)}
        ]
        policies = (
            [_managed(shared, {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"})] if shared else []
        )
        if self.boundary is not None:
            actor["PermissionsBoundary"] = {"PermissionsBoundaryArn": f"{ARN}policy/limit"}
            policies.append(_managed(f"{ARN}policy/limit", *self.boundary))
        shown: dict[str, list[dict[str, Any]]] = {"role": [], "user": [], "group": []}
        if self.target:
            kind = self.target.split(":")[5].partition("/")[0]
            shown[kind].append(
                {
                    "Arn": self.target,
                    "Path": "/",
                    "GroupName": "target",
                    "AssumeRolePolicyDocument": self.trusting,
                    "InstanceProfileList": [{"InstanceProfileName": "target"}],
                    **mine,
                }
            )
        else:
            actor |= mine
        shown["group"] += [{"Arn": one, "GroupName": one.rpartition("/")[2]} for one in self.groups]
        shown[self.row["actor"]].append(actor)
        return {
            "RoleDetailList": shown["role"],
            "UserDetailList": shown["user"],
            "GroupDetailList": shown["group"],
            "Policies": policies,
        }

    def workloads(self) -> tuple[RunningService, ...]:
        """What runs as the target."""
        if "workload" not in self.row:
            return ()
        return (RunningService(self.row["trust"].removeprefix("Service:"), self.row["workload"], self.target),)

    def requests(self) -> Iterator[dict[str, Any]]:
        """What the actor would ask for, one request for each action, as the referee is given it."""
        for action, resource in self.row["allow"]:
            context = {"aws:PrincipalArn": self.actor}
            if action == "iam:PassRole":
                context["iam:PassedToService"] = self.row["trust"].removeprefix("Service:")
            yield {
                "name": f"{self.name} {action}",
                "principal": self.actor,
                "action": action,
                "resource": resource,
                "context": context,
                "identity": [policy(*self.statements)] if self.statements else [],
                "boundary": None if self.boundary is None else [policy(*self.boundary)],
                "trust": self.trusting if action == "sts:AssumeRole" else None,
            }


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    """A policy of these statements."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _managed(arn: str, *statements: dict[str, Any]) -> dict[str, Any]:
    versions = [
        {"VersionId": "v1", "IsDefaultVersion": False, "Document": policy(EVERYTHING)},
        {"VersionId": "v2", "IsDefaultVersion": True, "Document": policy(*statements)},
    ]
    return {"Arn": arn, "PolicyName": arn.rpartition("/")[2], "PolicyVersionList": versions}


def _allowing(pairs: list[list[str]]) -> list[dict[str, Any]]:
    return [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in pairs]


def planted(name: str) -> Case:
    """A way as it is planted."""
    row = PLANTED[name]
    groups = [row["group"]] if "group" in row else []
    return Case(name, row, _allowing(row["allow"]), row.get("trust", ""), groups=groups)


def twin(name: str) -> Case:
    """Its benign twin."""
    case = planted(name)
    case.name = f"{name} (twin)"
    ((how, what),) = case.row["twin"].items()
    allow = case.row["allow"]
    match how:
        case "without":
            case.statements = _allowing([pair for pair in allow if pair[0] != what])
        case "deny":
            case.statements.append({"Effect": "Deny", "Action": what, "Resource": "*"})
        case "elsewhere":
            case.statements = _allowing([what if pair[0] == what[0] else pair for pair in allow])
        case "boundary":
            case.boundary = [{"Effect": "Allow", "NotAction": what, "Resource": "*"}]
        case "condition":
            action, operator, key, value = what
            for one in case.statements:
                if one["Action"] == action:
                    one["Condition"] = {operator: {key: value}}
        case "trust":
            case.trust = what
    return case
