"""What an independent simulator of IAM says of planted policies, of some drawn from a seed, and of our own: recorded.

The referee is `@cloud-copilot/iam-simulate`, which needs Node and a download: its answers are kept in referee.json. To
ask it again: `npm install --prefix FOLDER @cloud-copilot/iam-simulate`, then `.venv/bin/python -m
tests.pipelines.blast_radius.referee FOLDER`. It also says where an action, or a resource of one, is not what AWS knows.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from tests.pipelines.blast_radius.planted import PLANTED, planted, policy, twin
from tests.support.role_requests import of_roles

HERE = Path(__file__).parent
RECORDED = HERE / "referee.json"
DRAWN, SEED = 600, 15
ME = "arn:aws:iam::123456789012:role/shop/web"
ASKED = (
    ("s3:GetObject", ("arn:aws:s3:::orders/2026/a.json", "arn:aws:s3:::orders-old/b", "arn:aws:s3:::logs/x")),
    ("s3:PutObject", ("arn:aws:s3:::orders/2026/a.json", "arn:aws:s3:::logs/x")),
    ("dynamodb:GetItem", ("arn:aws:dynamodb:eu-central-1:123456789012:table/carts",)),
    ("iam:PassRole", ("arn:aws:iam::123456789012:role/shop/job", "arn:aws:iam::123456789012:role/admin")),
    ("lambda:InvokeFunction", ("arn:aws:lambda:eu-central-1:123456789012:function:mail",)),
)
ACTIONS = ("*", "s3:*", "s3:Get*", "S3:getobject", "s3:P?tObject", "dynamodb:*Item", "iam:PassRole", "lambda:Invoke*")
RESOURCES = (
    "*",
    "arn:aws:s3:::orders/*",
    "arn:aws:s3:::orders*",
    "arn:aws:s3:::*/2026/*",
    "arn:aws:s3:::logs/?",
    "arn:aws:dynamodb:*:123456789012:table/*",
    "arn:aws:iam::*:role/shop/*",
    "arn:aws:iam::123456789012:role/admin",
    "arn:aws:lambda:eu-*:123456789012:function:m*",
)
CONDITIONS = (
    {"StringEquals": {"aws:RequestedRegion": "eu-central-1"}},
    {"StringNotEquals": {"aws:RequestedRegion": "eu-central-1"}},
    {"StringLike": {"aws:RequestedRegion": ["eu-*", "us-east-1"]}},
    {"StringNotLike": {"aws:RequestedRegion": "us-*"}},
    {"StringEqualsIfExists": {"aws:RequestedRegion": "us-east-1"}},
    {"Null": {"aws:RequestedRegion": "true"}},
    {"Null": {"aws:RequestedRegion": "false"}},
    {"Bool": {"aws:SecureTransport": "true"}},
    {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/shop/*"}},
    {"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/ops/*"}},
    {"StringEqualsIgnoreCase": {"aws:RequestedRegion": "EU-Central-1"}},
    {"StringEquals": {"aws:RequestedRegion": "eu-central-1"}, "Bool": {"aws:SecureTransport": "false"}},
)


def requests() -> list[dict[str, Any]]:
    """All requests that the referee judges: of planted ways and twins, those that are drawn, those of our own roles."""
    cases = [case for name in PLANTED for case in (planted(name), twin(name))]
    return [*(request for case in cases for request in case.requests()), *assumed(), *drawn(), *of_roles()]


def assumed() -> Iterator[dict[str, Any]]:
    """Roles to assume: by whom the trust policy names, what the principal's own policies say, and its boundary."""
    role, anything = "arn:aws:iam::123456789012:role/target", {"Effect": "Allow", "Action": "*", "Resource": "*"}
    assume = {"Action": "sts:AssumeRole", "Resource": role}
    own = {"allowed": [assume | {"Effect": "Allow"}], "silent": [], "denied": [anything, assume | {"Effect": "Deny"}]}
    limits = {"free": None, "limited": [policy({"Effect": "Allow", "Action": "s3:*", "Resource": "*"})]}
    for kind, named, (said, statements), (limited, boundary) in product(
        ("user", "role"), ("by name", "by account", "not", "everybody"), own.items(), limits.items()
    ):
        me = f"arn:aws:iam::123456789012:{kind}/me"
        principal = {
            "by name": {"AWS": me},
            "by account": {"AWS": "arn:aws:iam::123456789012:root"},
            "everybody": "*",
            "not": {"AWS": f"{me}-too"},
        }[named]
        yield {
            "name": f"assume: {kind}, trusted {named}, {said}, {limited}",
            "principal": me,
            "action": "sts:AssumeRole",
            "resource": role,
            "context": {"aws:PrincipalArn": me},
            "identity": [policy(*statements)] if statements else [],
            "boundary": boundary,
            "trust": policy({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}),
        }


def drawn() -> Iterator[dict[str, Any]]:
    """Requests under policies from a seed: wildcards, NotAction, NotResource, conditions, denials, boundaries."""
    at = random.Random(SEED)
    for number in range(DRAWN):
        action, resources = at.choice(ASKED)
        identity = [policy(*(_statement(at) for _ in range(at.randint(1, 3)))) for _ in range(at.randint(1, 2))]
        boundary = [policy(*(_statement(at) for _ in range(2)))] if at.random() < 0.3 else None
        context = {"aws:PrincipalArn": ME} | (
            {"aws:RequestedRegion": at.choice(("eu-central-1", "us-east-1"))} if at.random() < 0.7 else {}
        )
        yield {
            "name": f"drawn {number}",
            "principal": ME,
            "action": action,
            "resource": at.choice(resources),
            "context": context | {"aws:SecureTransport": "true"},
            "identity": identity,
            "boundary": boundary,
            "trust": None,
        }


def _statement(at: random.Random) -> dict[str, Any]:
    actions, resources = at.sample(ACTIONS, at.randint(1, 3)), at.sample(RESOURCES, at.randint(1, 3))
    return {
        "Effect": "Allow" if at.random() < 0.75 else "Deny",
        "NotAction" if at.random() < 0.15 else "Action": actions,
        "NotResource" if at.random() < 0.15 else "Resource": resources,
        **({"Condition": at.choice(CONDITIONS)} if at.random() < 0.35 else {}),
    }


def ask(folder: Path) -> list[str]:
    """The referee's answers, by the package in `folder`."""
    shutil.copy(HERE / "referee.mjs", folder)
    given = json.dumps(requests())
    done = subprocess.run(["node", "referee.mjs"], cwd=folder, input=given, check=True, capture_output=True, text=True)
    answers: list[str] = json.loads(done.stdout)
    return answers


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    package = json.loads((folder / "node_modules/@cloud-copilot/iam-simulate/package.json").read_text())
    answers = dict(zip((one["name"] for one in requests()), ask(folder), strict=True))
    RECORDED.write_text(json.dumps({"referee": package["version"], "answers": answers}, indent=0) + "\n")
