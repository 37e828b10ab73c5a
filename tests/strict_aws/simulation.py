"""IAM says what the policies that are enforced would allow to whoever asks, or to a role or user of the account."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.strict_aws import guard
from tests.strict_aws.errors import AwsError
from tests.strict_aws.wire import Call
from tests.strict_aws.world import World

IDENTITY = re.compile(r"arn:aws:iam::(\d{12}):(role|user)/[\w+=,.@/-]+")
ARN = re.compile(r"arn:aws:[a-z0-9-]+:[a-z0-9-]*:(\d{12})?:\S+")
ROLE = "goldsmith"  # whose session we are


def whoami(world: World, call: Call) -> dict[str, Any]:
    """We are the session of a role."""
    arn = f"arn:aws:sts::{call.account}:assumed-role/{ROLE}/session"
    return {"UserId": "AROAEXAMPLE:session", "Account": call.account, "Arn": arn}


def simulate(world: World, call: Call) -> dict[str, Any]:
    """A result for each action and resource, in the context that the request gives, and no other."""
    params = call.params
    found = IDENTITY.fullmatch(params["PolicySourceArn"])
    if not found or found[1] != call.account:
        raise AwsError("InvalidInput", f"{params['PolicySourceArn']} is no user or role of {call.account}", 400)
    if found[2] == "role" and not params["PolicySourceArn"].endswith(f":role/{ROLE}"):
        raise AwsError("NoSuchEntity", f"{params['PolicySourceArn']} does not exist", 404)
    resources = params.get("ResourceArns") or ["*"]
    if wrong := [one for one in resources if one != "*" and not ARN.fullmatch(one)]:
        raise AwsError("InvalidInput", f"{wrong[0]} is not an ARN", 400)
    context = {one["ContextKeyName"]: value(one) for one in params.get("ContextEntries", ())}
    text = json.dumps((world.policies or {}).get(call.account, ()))
    documents = json.loads(text.replace("${aws:PrincipalOrgID}", str(context.get("aws:PrincipalOrgID"))))
    return {"EvaluationResults": [
        {"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": "allowed"
         if world.policies is None or guard.allowed(documents, guard.Asked(action, resource, context))
         else "implicitDeny"}
        for action in map(known, params["ActionNames"]) for resource in resources
    ], "IsTruncated": False}  # fmt: skip


def known(action: str) -> str:
    """An action of IAM's reference. Raises AwsError for any other."""
    service, _, name = action.partition(":")
    if name not in guard.actions_of(service):
        raise AwsError("InvalidInput", f"{action} is not an action", 400)
    return action


def value(entry: dict[str, Any]) -> Any:
    """The values of a key of the context. Raises AwsError for several of one that holds one."""
    many, given = entry["ContextKeyType"].endswith("List"), entry["ContextKeyValues"]
    if not many and len(given) != 1:
        raise AwsError("InvalidInput", f"{entry['ContextKeyName']} has {len(given)} values", 400)
    return tuple(given) if many else given[0]


IAM, STS = {"SimulatePrincipalPolicy": simulate}, {"GetCallerIdentity": whoami}
