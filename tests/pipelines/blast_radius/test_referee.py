"""An independent simulator of IAM agrees with ours, on every planted policy and on hundreds that are drawn."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from pipelines.blast_radius.account import Principal, PrincipalKind, document
from pipelines.blast_radius.escalation import may_assume
from pipelines.blast_radius.iam_policy import Decision, Rights
from tests.pipelines.blast_radius.referee import RECORDED, requests
from tests.strict_aws.guard import Context

ANSWERS: dict[str, str] = json.loads(RECORDED.read_text())["answers"]


def ours(request: dict[str, Any]) -> Decision:
    """What we say of a request of which everything is known."""
    statements = tuple(line for one in request["identity"] for line in document(one, request["name"]))
    limits = request["boundary"]
    limit = None if limits is None else tuple(line for one in limits for line in document(one, request["name"]))
    kind = PrincipalKind(request["principal"].split(":")[5].partition("/")[0])
    actor = Principal(request["principal"], kind, Rights(statements, limit))
    if request["trust"] and request["action"] == "sts:AssumeRole":
        trust = document(request["trust"], request["name"])
        return may_assume(actor, Principal(request["resource"], PrincipalKind.ROLE, Rights(), trust))
    given = Context({key.lower(): value for key, value in request["context"].items()})
    return actor.rights.answer(request["action"], request["resource"], given)


def test_the_referee_was_asked_about_these() -> None:
    """Its answers are about every request there is now, it knows every action and resource, and it says yes and no."""
    assert list(ANSWERS) == [one["name"] for one in requests()]
    counted = Counter(ANSWERS.values())
    assert set(counted) == {"Allowed", "ImplicitlyDenied", "ExplicitlyDenied"}
    assert min(counted.values()) > 50


def test_the_referee_agrees() -> None:
    """On each of them."""
    found = {one["name"]: ours(one) for one in requests()}
    assert Decision.POSSIBLE not in found.values()
    assert {name for name, answer in found.items() if answer} == {
        name for name, said in ANSWERS.items() if said == "Allowed"
    }
