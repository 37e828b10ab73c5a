"""The example of docs/blast-radius.md is what is printed of these facts, and it counts the escalation paths."""

from __future__ import annotations

import re
from dataclasses import replace

from hardening.foundation.settings import ROOT as CHECKOUT
from pipelines.blast_radius.account import Account, read_account
from pipelines.blast_radius.radius import radius
from pipelines.cli.blast_radius_output import of_radius, screen
from tests.pipelines.blast_radius.planted import ACCOUNT, ARN, PLANTED, policy
from tests.pipelines.blast_radius.test_member_steps import GOOD, ROOT, container, instance, world

DOCUMENT = (CHECKOUT / "docs/blast-radius.md").read_text()


def role(name: str, service: str, *rights: tuple[str, str]) -> dict[str, object]:
    trust = {"Effect": "Allow", "Principal": {"Service": f"{service}.amazonaws.com"}, "Action": "sts:AssumeRole"}
    own = policy(*({"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in rights))
    profiles = [{"InstanceProfileName": name}] if service == "ec2" else []
    return {
        "Arn": f"{ARN}role/{name}",
        "Path": "/",
        "AssumeRolePolicyDocument": policy(trust),
        "RolePolicyList": [{"PolicyDocument": own}],
        "InstanceProfileList": profiles,
    }


def account() -> Account:
    """The engine's instance may pass a role to functions, which may read orders."""
    host = role("engine", "ec2", ("iam:PassRole", f"{ARN}role/mailer"), ("lambda:*", "*"))
    mailer = role("mailer", "lambda", ("s3:GetObject", "arn:aws:s3:::orders/*"))
    return read_account(ACCOUNT, {"RoleDetailList": [host, mailer]})


def test_the_example_is_what_is_printed() -> None:
    """Line by line."""
    web = container("web-1", replace(ROOT, privileged=True, secrets=("DB_PASSWORD",)))
    members = (
        web,
        container("web-2", GOOD),
        container("cache-1", replace(GOOD, networks=("back",))),
        instance("i-0abc", profile="engine"),
    )
    known = world(*members, accounts=(account(),), hosts={"engine/local": "i-0abc"})
    lines = "\n".join(screen(of_radius("shop/web-1", radius(known, [web.node]))))
    shown = re.search(r"```text\n(.*?)```", DOCUMENT, re.DOTALL)
    assert shown
    assert lines.strip() == shown[1].strip()


def test_the_document_says_how_many_escalation_paths_there_are() -> None:
    """The number of the list that is tested."""
    assert f"{len(PLANTED)} escalation paths" in DOCUMENT
