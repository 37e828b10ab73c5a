"""`doctor` asks IAM itself whether the credentials at hand may do what each of our roles needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.settings import Settings
from pipelines.cli.iam import permissions
from pipelines.contract import DoctorLine
from pipelines.host import doctor
from pipelines.own_rights import request
from pipelines.role_facts import installation
from pipelines.role_policies import policies
from tests.pipelines.test_role_policies import FLEETS, settings
from tests.pipelines.test_roles_enforced import without
from tests.strict_aws import ACCOUNT, Fault, StrictAws
from tests.support.roles import Json, enforced

ASKING: Json = {
    "Effect": "Allow", "Action": ["sts:GetCallerIdentity", "iam:SimulatePrincipalPolicy"], "Resource": "*",
}  # fmt: skip


@pytest.fixture
def own(aws: StrictAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An installation with fleets of every kind at AWS."""
    monkeypatch.setattr(doctor, "load_fleets", lambda _roots: {one.name: one for one in FLEETS})
    return settings(tmp_path)


def documents(own: Settings, role: str) -> list[Json]:
    """The policies of a role, which may ask IAM too."""
    found = policies(role, permissions(), installation(own, FLEETS)).values()
    return [*found, {"Version": "2012-10-17", "Statement": [ASKING]}]


def told(aws: StrictAws, own: Settings, allowed: list[Json]) -> dict[str, DoctorLine]:
    with enforced(aws, {ACCOUNT: allowed}):
        return {line.what: line for line in doctor._rights(own)}


@pytest.mark.parametrize("role", doctor.RIGHTS)
def test_a_role_with_its_rendered_policies_lacks_nothing_and_is_no_other(
    aws: StrictAws, own: Settings, role: str
) -> None:
    """Nothing but questions is sent; none of the lines ends with an exit code."""
    found = told(aws, own, documents(own, role))
    assert found.keys() == {f"AWS: {one}" for one in doctor.RIGHTS}, found
    assert found[f"AWS: {role}"].present, found[f"AWS: {role}"].detail
    others = {name for name, line in found.items() if line.present} - {f"AWS: {role}"}
    assert others <= ({"AWS: scanner"} if role == "roller" else set())
    assert not any(line.essential for line in found.values())
    assert {call["operation"] for call in aws.calls()} == {"GetCallerIdentity", "SimulatePrincipalPolicy"}


@pytest.mark.parametrize("action", ["ec2:RegisterImage", "ebs:StartSnapshot", "kms:Sign", "ssm:PutParameter"])
def test_an_action_that_iam_does_not_allow_is_named(aws: StrictAws, own: Settings, action: str) -> None:
    """Before anything is published; and what renders the policies."""
    line = told(aws, own, without(documents(own, "publisher"), action))["AWS: publisher"]
    assert (line.present, line.costs) == (False, "image.publish of machines")
    assert line.detail == f"./goldsmith iam.policy publisher renders what IAM does not surely allow: {action}"


@pytest.mark.parametrize(
    "lost", [{"Condition": {"StringEquals": {"aws:RequestedRegion": "us-west-2"}}}, {"Resource": "arn:aws:s3:::x"}],
    ids=["another region", "another resource"],
)  # fmt: skip
def test_a_right_that_holds_elsewhere_is_none(aws: StrictAws, own: Settings, lost: dict[str, Any]) -> None:
    """The question is about our own regions and resources."""
    found = documents(own, "publisher")
    for one in found[0]["Statement"]:
        if "ec2:RegisterImage" in one["Action"]:
            one.update(lost)
    assert not told(aws, own, found)["AWS: publisher"].present


def test_what_iam_was_not_asked_is_no_pass(aws: StrictAws, own: Settings) -> None:
    """Where it may not be asked, or gives no answer: one line, with the reason. Without AWS there is none."""
    known = {**ASKING, "Action": "sts:GetCallerIdentity"}  # which AWS allows everybody
    (line,) = told(aws, own, [{"Version": "2012-10-17", "Statement": [known]}]).values()
    assert (line.what, line.present, "AWS denies iam:SimulatePrincipalPolicy" in line.detail) == ("AWS", False, True)
    with aws.faulty(Fault("error", operation="SimulatePrincipalPolicy", code="ServiceFailure", status=400)):
        (line,) = told(aws, own, documents(own, "publisher")).values()
    assert (line.what, line.present, "ServiceFailure" in line.detail) == ("AWS", False, True)
    bare = own.model_copy(update={"aws": own.aws.model_copy(update={"region": ""})})
    assert not list(doctor._rights(bare))


def test_a_question_is_an_example_of_what_a_statement_allows() -> None:
    """Of its first value of each key, in the home region; what must not be there is not; an organisation is its own."""
    asked = request(
        {"Action": ["ec2:RunInstances"], "Resource": ["arn:aws:ec2:*::image/*", "arn:aws:iam::*:role/goldsmith"],
         "Condition": {
             "StringEquals": {"aws:ResourceOrgID": "${aws:PrincipalOrgID}", "aws:ResourceTag/app": ["shop", "web"]},
             "ForAllValues:StringLike": {"aws:TagKeys": ["dev.goldsmith.*"]}, "Null": {"ec2:Add/group": "true"},
             "Bool": {"kms:GrantIsForAWSResource": "true"},
         }}, "eu-central-1",
    )  # fmt: skip
    assert asked["ResourceArns"] == ["arn:aws:ec2:eu-central-1::image/x", "arn:aws:iam::111111111111:role/goldsmith"]
    entries = asked["ContextEntries"]
    assert [(one["ContextKeyName"], one["ContextKeyType"], one["ContextKeyValues"]) for one in entries] == [
        ("aws:ResourceOrgID", "string", ["o-x"]), ("aws:ResourceTag/app", "string", ["shop"]),
        ("aws:TagKeys", "stringList", ["dev.goldsmith.x"]), ("kms:GrantIsForAWSResource", "boolean", ["true"]),
        ("aws:PrincipalOrgID", "string", ["o-x"]),
    ]  # fmt: skip
