"""Whether IAM allows the current credentials what our roles do: by simulation, nothing is done.

IAM weighs the policies of the identity, its boundary and its organisation's; not those of keys, nor those of a session.
Source: the IAM API reference, "SimulatePrincipalPolicy".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from images.aws.client import Clients
from images.aws.permissions import AUDITOR, ResourcePattern, permit
from pipelines.role_policies import Json

_IDENTITIES = tuple(ResourcePattern(f"arn:{{partition}}:iam::{{account}}:{kind}/*") for kind in ("role", "user"))
PERMISSIONS = (
    permit("sts:GetCallerIdentity", AUDITOR),
    permit("iam:SimulatePrincipalPolicy", AUDITOR, on=_IDENTITIES),
)

ASKED_AT_ONCE = 4
ORGANIZATION = "${aws:PrincipalOrgID}"
TYPES = {"Bool": "boolean", "ForAllValues": "stringList"}  # of a key's values, by the operator's first word


def lacking(clients: Clients, region: str, statements: Iterable[Json]) -> tuple[str, ...]:
    """The actions of a role's rendered statements that IAM does not surely allow. Raises as a call does."""
    arn = str(clients.client("sts", region).call("GetCallerIdentity")["Arn"])
    if ":assumed-role/" in arn:  # of STS, with a session: the role's own ARN, unless that has a path
        arn = arn.replace(":sts:", ":iam:").replace(":assumed-role/", ":role/").rpartition("/")[0]
    iam = clients.client("iam", region)

    def denied(asked: Json) -> list[str]:
        results = iam.pages("SimulatePrincipalPolicy", "EvaluationResults", PolicySourceArn=arn, **asked)
        answers = [(one["EvalActionName"].lower(), _allows(one)) for one in results]  # of an action maybe several
        allowed = {name for name, _ in answers} - {name for name, allows in answers if not allows}
        return [name for name in asked["ActionNames"] if name.lower() not in allowed]

    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        found = pool.map(denied, [request(one, region) for one in statements])
        return tuple(sorted({name for some in found for name in some}))


def _allows(result: Json) -> bool:
    parts = [one["EvalResourceDecision"] for one in result.get("ResourceSpecificResults", ())]
    return {result["EvalDecision"], *parts} == {"allowed"}


def request(statement: Json, region: str) -> Json:
    """An example of the calls that a statement allows: what to ask IAM, so that no narrower policy says yes."""
    said = [
        (key, TYPES.get(operator.partition(":")[0], "string"), _listed(values)[0])
        for operator, keys in statement.get("Condition", {}).items() if operator != "Null"
        for key, values in keys.items()
    ]  # fmt: skip
    if any(ORGANIZATION in value for _, _, value in said):
        said.append(("aws:PrincipalOrgID", "string", ORGANIZATION))
    entries = [
        {"ContextKeyName": key, "ContextKeyType": kind,
         "ContextKeyValues": [value.replace(ORGANIZATION, "o-x").replace("${$}", "$").replace("*", "x")]}
        for key, kind, value in said
    ]  # fmt: skip
    resources = [_example(one, region) for one in _listed(statement["Resource"]) if one != "*"]
    named = {"ResourceArns": resources} if resources else {}
    return {"ActionNames": _listed(statement["Action"]), "ContextEntries": entries, **named}


def _example(pattern: str, region: str) -> str:
    """An ARN that a pattern of one means."""
    *begin, where, account, rest = pattern.split(":", 5)
    return ":".join((*begin, where.replace("*", region), account.replace("*", "1" * 12), rest.replace("*", "x")))


def _listed(said: str | Sequence[str]) -> list[str]:
    return [said] if isinstance(said, str) else list(said)
