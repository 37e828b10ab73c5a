"""Which operations have a strict rule. One line per module; what is not listed is moto's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.strict_aws import (
    account,
    attachments,
    copies,
    ebs,
    ecs,
    eks,
    health,
    images,
    instances,
    kms,
    lifecycle,
    organizations,
    paging,
    refreshes,
    registering,
    roots,
    security_groups,
    sharing,
    simulation,
    snapshots,
    ssm,
    tags,
    usage,
    volumes,
)
from tests.strict_aws.errors import AwsError
from tests.strict_aws.wire import Call
from tests.strict_aws.world import World

# moto would make or change snapshots of its own, which nobody would ever see.
NOT_HERE = ("CreateSnapshots", "ModifySnapshotTier", "RestoreSnapshotTier", "DescribeSnapshotTierStatus")


def not_here(world: World, call: Call) -> Any:
    """An operation that the emulator does not have says so, rather than do half of it."""
    raise AwsError("NotImplemented", f"the emulator has no {call.operation}", 501)


# A rule answers with the result in the shapes of the model, or None: moto may answer.
Rule = Callable[[World, Call], Any]
RULES: dict[str, dict[str, Rule]] = {
    "ebs": ebs.RULES,
    "ec2": {
        **dict.fromkeys(NOT_HERE, not_here),
        **snapshots.RULES,
        **images.RULES,
        **registering.RULES,
        **copies.RULES,
        **sharing.RULES,
        **usage.RULES,
        **account.RULES,
        **tags.RULES,
        **volumes.RULES,
        **instances.RULES,
        **lifecycle.RULES,
        **attachments.RULES,
        **roots.RULES,
        **security_groups.RULES,
        **paging.EC2,
    },
    "autoscaling": {**instances.GROUPS, **refreshes.RULES, **paging.AUTOSCALING},
    "elbv2": {**health.RULES, **paging.ELBV2},
    "ecs": ecs.RULES,
    "eks": eks.RULES,
    "ssm": ssm.RULES,
    "kms": kms.RULES,
    "sts": {**account.ROLES, **simulation.STS},
    "iam": simulation.IAM,
    "organizations": organizations.RULES,
}
UNLOCKED = {
    ("ebs", "PutSnapshotBlock"),
    ("ebs", "GetSnapshotBlock"),
}  # guard themselves: many at once, half a megabyte each

MOVING = {
    "ec2",
    "autoscaling",
    "elbv2",
    "ecs",
    "eks",
}  # what lives there changes of itself: one call at a time, moto's too


OURS = {"ecs", "eks"}  # nothing of them is moto's


def apply(world: World, call: Call) -> Any:
    """The rule's answer, or None where there is none. Raises AwsError where the rule refuses."""
    rule = RULES.get(call.service, {}).get(call.operation, not_here if call.service in OURS else None)
    if call.model is None:
        return None
    if call.service in MOVING:
        with world.lock:
            world.settle()
            answer = _ruled(world, call, rule)
            return call.forward() if answer is None else answer
    return _ruled(world, call, rule)


def _ruled(world: World, call: Call, rule: Rule | None) -> Any:
    if rule is None:
        return None
    if call.service == "ec2" and call.params.get("DryRun"):
        raise AwsError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
    if (call.service, call.operation) in UNLOCKED:
        return rule(world, call)
    with world.lock:
        return rule(world, call)
