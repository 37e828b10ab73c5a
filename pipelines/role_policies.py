"""Least-privilege IAM policies of our own roles, rendered from what the edges declare. Pure.

Source of the limits: the IAM user guide, "IAM and AWS STS quotas".
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hardening.foundation.errors import RefusedError
from images.aws.permissions import Permission, PermissionCondition

EDGES = (
    "images.aws.amis", "images.aws.client", "images.aws.kms", "images.aws.launch_permissions", "images.aws.publish",
    "images.aws.reaping", "images.aws.release_store", "images.aws.retire", "images.aws.signed_statement",
    "images.aws.snapshots", "images.aws.usage", "pipelines.blast_radius.gathering", "pipelines.cli.adopt_ec2",
    "pipelines.fleet.ec2.accounts", "pipelines.fleet.ec2.groups", "pipelines.fleet.ec2.instances",
    "pipelines.fleet.ec2.members", "pipelines.fleet.ec2.observing", "pipelines.fleet.ec2.orphans",
    "pipelines.fleet.ec2.region_client", "pipelines.fleet.ec2.root_volume", "pipelines.fleet.ec2.templates",
    "pipelines.fleet.ecs.groups", "pipelines.fleet.ecs.members", "pipelines.fleet.eks.groups",
    "pipelines.fleet.eks.members", "pipelines.network.groups_edge", "pipelines.own_rights",
)  # fmt: skip
"""Every module that calls AWS; each has `PERMISSIONS`."""
LARGEST, MOST = 6144, 10
"""Characters of a managed policy, and policies of a role by default."""
GLOBAL = ("iam:", "organizations:", "sts:")
"""Services that are asked outside the regions."""
Json = dict[str, Any]
Values = Mapping[str, str | tuple[str, ...]]


@dataclass(frozen=True)
class Fact:
    """One of what a pattern may be `each` of: the values that it gives, and what else must hold then."""

    values: Values = field(default_factory=dict)
    conditions: tuple[PermissionCondition, ...] = ()


@dataclass(frozen=True)
class Installation:
    """What policies are rendered for: values by name, facts by what patterns are `each` of, and the regions.

    `of_roles` has the facts that one role has instead, by the role and what patterns are `each` of.
    """

    values: Values
    facts: Mapping[str, tuple[Fact, ...]]
    regions: tuple[str, ...]
    of_roles: Mapping[tuple[str, str], tuple[Fact, ...]] = field(default_factory=dict)

    def facts_for(self, role: str, each: str) -> tuple[Fact, ...]:
        """The facts by which a pattern is rendered for a role."""
        return self.of_roles.get((role, each), self.facts[each])


# -- statements --------------------------------------------------------------------------------------------------------


def statements(role: str, permissions: Iterable[Permission], at: Installation) -> list[Json]:
    """The statements of a role, in a stable order: of the same conditions one for the same resources."""
    asked = defaultdict[tuple[str, tuple[PermissionCondition, ...]], set[str]](set)
    within: PermissionCondition = ("StringEquals", "aws:RequestedRegion", at.regions)
    for permission in permissions:
        if role in permission.roles:
            for resource, conditions in _resources(permission, role, at):
                for action in permission.actions:
                    regional = () if action.startswith(GLOBAL) else (within,)
                    asked[resource, (*conditions, *regional)].add(action)
    grouped = defaultdict[tuple[tuple[str, ...], tuple[PermissionCondition, ...]], list[str]](list)
    for (resource, conditions), actions in asked.items():
        grouped[tuple(sorted(actions)), conditions].append(resource)
    return sorted((_statement(*key, sorted(resources)) for key, resources in grouped.items()), key=_compact)


def _resources(
    permission: Permission, role: str, at: Installation
) -> Iterable[tuple[str, tuple[PermissionCondition, ...]]]:
    for one in permission.resources:
        for fact in at.facts_for(role, one.each):
            values = {**at.values, **fact.values}
            conditions = (
                *((operator, _filled(key, values), _value(said, values)) for operator, key, said in one.conditions),
                *fact.conditions,
            )
            yield str(_filled(one.pattern, values)), conditions


def _filled(text: str, values: Values) -> str:
    return text.format_map(values)


def _value(said: str | tuple[str, ...], values: Values) -> str | tuple[str, ...]:
    """A condition's values with the facts in their places; a fact that has several stands for all of them."""
    if isinstance(said, tuple):
        return tuple(_filled(one, values) for one in said)
    several = values.get(said.strip("{}"))
    return several if isinstance(several, tuple) else _filled(said, values)


def _statement(actions: tuple[str, ...], conditions: tuple[PermissionCondition, ...], resources: list[str]) -> Json:
    made: Json = {"Effect": "Allow", "Action": _one(actions), "Resource": _one(resources)}
    if conditions:
        made["Condition"] = _conditions(conditions)
    return made


def _conditions(conditions: tuple[PermissionCondition, ...]) -> dict[str, Json]:
    """Conditions as IAM has them. Raises ValueError for two about one key: the later would take the earlier away."""
    made: dict[str, Json] = {}
    for operator, key, said in sorted(conditions, key=str):
        if key in made.setdefault(operator, {}):
            raise ValueError(f"two conditions {operator} about {key}")
        made[operator][key] = said if isinstance(said, str) else _one(said)
    return made


def _one(said: Sequence[str]) -> str | list[str]:
    return said[0] if len(said) == 1 else list(said)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


# -- documents ---------------------------------------------------------------------------------------------------------


def policies(role: str, permissions: Iterable[Permission], at: Installation) -> dict[str, Json]:
    """The managed policies of a role by name, each within IAM's limit; none for a role that asks nothing of AWS.

    Raises RefusedError where they would be more than a role may have.
    """
    documents: list[list[Json]] = []
    for one in (part for whole in statements(role, permissions, at) for part in _parts(whole)):
        if _length([one]) > LARGEST:
            hint = "fewer regions, fleets or roles in one installation"
            raise RefusedError(f"a statement of the {role} is longer than {LARGEST} characters", hint=hint)
        if not documents or _length([*documents[-1], one]) > LARGEST:
            documents.append([])
        documents[-1].append(one)
    if len(documents) > MOST:
        hint = "split the fleets over several installations, or ask AWS for a higher quota"
        raise RefusedError(f"the {role} would need {len(documents)} policies; a role may have {MOST}", hint=hint)
    names = [f"goldsmith-{role}{f'-{number}' if len(documents) > 1 else ''}" for number in range(1, len(documents) + 1)]
    return {name: _document(found) for name, found in zip(names, documents, strict=True)}


def _parts(statement: Json) -> Iterator[Json]:
    """A statement, or several with a part of its resources each where it is longer than a policy."""
    resources = statement["Resource"]
    if isinstance(resources, str) or _length([statement]) <= LARGEST:
        yield statement
        return
    half = len(resources) // 2
    for some in (resources[:half], resources[half:]):
        yield from _parts({**statement, "Resource": _one(some)})


def _length(found: list[Json]) -> int:
    """Characters that IAM counts of a policy of these statements."""
    return len(_compact(_document(found)))


def _document(found: list[Json]) -> Json:
    return {"Version": "2012-10-17", "Statement": found}


def as_json(found: Mapping[str, Json]) -> dict[str, Json]:
    """Files with the documents as they are."""
    return {f"{name}.json": document for name, document in found.items()}


def as_terraform(found: Mapping[str, Json]) -> dict[str, Json]:
    """One file of Terraform's JSON syntax, where `${` and `%{` begin a template unless they are doubled."""
    made = {}
    for name, document in found.items():
        text = _compact(document).replace("${", "$${").replace("%{", "%%{")
        made[name.replace("-", "_")] = {"name": name, "policy": text}
    return {f"{_stem(found)}.tf.json": {"resource": {"aws_iam_policy": made}}}


def as_cloudformation(found: Mapping[str, Json]) -> dict[str, Json]:
    """One template of managed policies."""
    made = {
        name.title().replace("-", ""): {
            "Type": "AWS::IAM::ManagedPolicy", "Properties": {"ManagedPolicyName": name, "PolicyDocument": document},
        }
        for name, document in found.items()
    }  # fmt: skip
    return {f"{_stem(found)}.template.json": {"AWSTemplateFormatVersion": "2010-09-09", "Resources": made}}


def _stem(found: Mapping[str, Json]) -> str:
    """The name of one file for all policies of a role."""
    return "-".join(next(iter(found)).split("-")[:2])


FORMS = {"json": as_json, "terraform": as_terraform, "cloudformation": as_cloudformation}
