"""Every way to more rights is found where it is planted, and its benign twin is not reported."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.blast_radius.account import read_account
from pipelines.blast_radius.escalation import AccountSteps, ProfiledInstance
from pipelines.blast_radius.gathering import load_ways
from pipelines.blast_radius.graph import Edge, Graph, Reached
from tests.pipelines.blast_radius.planted import ACCOUNT, ARN, PLANTED, Case, planted, policy, twin

WAYS = load_ways()


def edges(case: Case) -> list[Edge]:
    """All steps in the account of a case."""
    account = case.account()
    found = AccountSteps(account, WAYS, case.workloads())
    return [*found.of_account(), *(edge for actor in account.principals for edge in found.of(actor))]


def node(case: Case) -> str:
    """What a case ends with, as the graph calls it."""
    found = case.row["finds"]
    return f"account:{ACCOUNT}" if found == "account" else f"iam:{found}"


def test_each_way_is_planted() -> None:
    """The list and its proofs are about the same ways."""
    assert set(PLANTED) == {path.id for path in WAYS.paths}
    assert len(PLANTED) >= 66


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_way_is_found(name: str) -> None:
    """By its own id, and surely, but for what more is needed of an instance than rights."""
    case = planted(name)
    (path,) = [one for one in WAYS.paths if one.id == name]
    found = [one for one in edges(case) if one.source == f"iam:{case.actor}" and one.target == node(case)]
    strengths = {one.strength.name for one in found if name in one.how}
    assert strengths == {"POSSIBLE" if path.doubt else "CERTAIN"}
    assert node(case) in Graph(edges(case)).reach([f"iam:{case.actor}"]).all


@pytest.mark.parametrize("name", PLANTED)
def test_its_benign_twin_is_not_reported(name: str) -> None:
    """Neither by that way nor by any other."""
    case = twin(name)
    assert node(case) not in Graph(edges(case)).reach([f"iam:{case.actor}"]).all


def role(name: str, *statements: dict[str, Any], profile: str = "", limit: list[dict[str, Any]] | None = None) -> Any:
    """A role as IAM shows it, and its boundary's policy."""
    trust = policy({"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"})
    shown: dict[str, Any] = {
        "Arn": f"{ARN}role/{name}",
        "Path": "/",
        "AssumeRolePolicyDocument": trust,
        "RolePolicyList": [{"PolicyDocument": policy(*statements)}],
        "InstanceProfileList": [{"InstanceProfileName": profile}] if profile else [],
    }
    if limit is None:
        return {"RoleDetailList": [shown]}
    shown["PermissionsBoundary"] = {"PermissionsBoundaryArn": f"{ARN}policy/limit"}
    version = {"IsDefaultVersion": True, "Document": policy(*limit)}
    return {"RoleDetailList": [shown], "Policies": [{"Arn": f"{ARN}policy/limit", "PolicyVersionList": [version]}]}


def reached(shown: Any, *machines: ProfiledInstance) -> Reached:
    """What the role `actor` reaches."""
    account = read_account(ACCOUNT, shown)
    found = AccountSteps(account, WAYS, (), machines)
    steps = [*found.of_account(), *(edge for actor in account.principals for edge in found.of(actor))]
    return Graph(steps).reach([f"iam:{ARN}role/actor"])


def allow(action: str, resource: str = "*") -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource}


MACHINES = tuple(
    ProfiledInstance(f"arn:aws:ec2:eu-central-1:{ACCOUNT}:instance/i-{number}", f"member:vm/i-{number}", "")
    for number in (1, 2)
)


@pytest.mark.parametrize(
    ("statements", "sure", "expected"),
    [
        ([allow("ssm:StartSession")], "possible", {"member:vm/i-1", "member:vm/i-2"}),
        ([allow("ssm:StartSession", MACHINES[0].arn)], "possible", {"member:vm/i-1"}),
        ([allow("ec2:*Instance*")], "certain", {"member:vm/i-1", "member:vm/i-2"}),
        ([allow("ec2:*Instance*"), {"Effect": "Deny", "Action": "ec2:StopInstances", "Resource": MACHINES[1].arn}],
         "certain", {"member:vm/i-1"}),
        ([allow("ec2:DescribeInstances")], "certain", set()),
    ],
)  # fmt: skip
def test_rights_lead_to_the_instances_of_fleets(
    statements: list[dict[str, Any]], sure: str, expected: set[str]
) -> None:
    """To all of them, or to those that a policy names; what an agent must do too is only possible."""
    found = reached(role("actor", *statements), *MACHINES)
    assert {one for one in getattr(found, sure) if one.startswith("member:")} == expected


def test_who_writes_policies_under_a_boundary_has_what_that_leaves() -> None:
    """Not all rights: what the boundary allows, and what follows from that."""
    limit = [allow("iam:PutRolePolicy"), allow("s3:GetObject", "arn:aws:s3:::orders/*")]
    free = reached(role("actor", allow("iam:PutRolePolicy")))
    assert f"account:{ACCOUNT}" in free.certain
    found = reached(role("actor", allow("iam:PutRolePolicy"), limit=limit))
    assert f"account:{ACCOUNT}" not in found.all
    assert {f"iam:{ARN}role/actor (its boundary)", "data:read s3 arn:aws:s3:::orders/*"} <= found.certain


OFF = [
    allow("iam:DeleteRolePermissionsBoundary", f"{ARN}role/actor"),
    allow("iam:PutRolePermissionsBoundary", f"{ARN}role/*"),
    allow("iam:CreatePolicyVersion", f"{ARN}policy/limit"),
]
KEPT_ON = [
    allow("iam:DeleteRolePermissionsBoundary", f"{ARN}role/other"),
    allow("iam:PutRolePermissionsBoundary")
    | {"Condition": {"StringEquals": {"iam:PermissionsBoundary": f"{ARN}policy/limit"}}},
    allow("iam:CreatePolicyVersion", f"{ARN}policy/other"),
    allow("iam:DeleteUserPermissionsBoundary"),
]
ORDERS = "data:read s3 arn:aws:s3:::orders/*"


@pytest.mark.parametrize("statement", OFF)
def test_a_boundary_that_one_may_take_off_oneself_is_none(statement: dict[str, Any]) -> None:
    """What the own policies allow is there then; and all rights, where it may write policies as well."""
    own = [statement, allow("s3:GetObject", "arn:aws:s3:::orders/*")]
    found = reached(role("actor", *own, limit=[statement]))
    assert found.certain == {f"iam:{ARN}role/actor (without its boundary)", ORDERS}
    assert f"account:{ACCOUNT}" in reached(role("actor", *own, allow("iam:PutRolePolicy"), limit=[statement])).certain
    writes = [statement, allow("iam:PutRolePolicy")]
    assert f"account:{ACCOUNT}" in reached(role("actor", *writes, limit=writes)).certain
    assert reached(role("actor", *own[1:], limit=[statement])).all == set(), "its own policies must allow it as well"
    assert reached(role("actor", *own, limit=[allow("sqs:*")])).all == set(), "and so must the boundary"


@pytest.mark.parametrize("statement", KEPT_ON)
def test_a_boundary_that_stays_limits(statement: dict[str, Any]) -> None:
    """Where only others may lose theirs, or only the same one may be put in its place."""
    own = [statement, allow("s3:GetObject", "arn:aws:s3:::orders/*")]
    assert ORDERS not in reached(role("actor", *own, limit=[statement])).all


def test_who_empowers_a_role_may_take_its_boundary_off_first() -> None:
    """Then no boundary is left of what it may be given."""
    rights = [allow("iam:PutRolePolicy"), allow("sts:AssumeRole"), allow("iam:DeleteRolePermissionsBoundary")]
    shown = trusting([said("Allow")])
    target = shown["RoleDetailList"][-1]
    target["PermissionsBoundary"] = {"PermissionsBoundaryArn": f"{ARN}policy/limit"}
    version = {"IsDefaultVersion": True, "Document": policy(allow("sqs:PurgeQueue"))}
    shown["Policies"] = [{"Arn": f"{ARN}policy/limit", "PolicyVersionList": [version]}]
    actor = next(one for one in shown["RoleDetailList"] if one["Arn"] == f"{ARN}role/actor")
    for given, whole in ((rights, True), (rights[:2], False)):
        only = [{**one, "Resource": target["Arn"]} for one in given]
        actor["RolePolicyList"] = [{"PolicyDocument": policy(*only)}]
        found = reached(shown)
        assert f"iam:{target['Arn']} (its boundary)" in found.certain
        assert (f"account:{ACCOUNT}" in found.certain) is whole


def test_data_is_told_by_the_resources_that_policies_name() -> None:
    """Read, changed or destroyed; without what is denied."""
    bucket, secret = "arn:aws:s3:::orders/*", f"arn:aws:secretsmanager:eu-central-1:{ACCOUNT}:secret:db-x"
    deny = {"Effect": "Deny", "Action": "s3:PutObject", "Resource": "*"}
    found = reached(role("actor", allow("s3:*Object", bucket), allow("secretsmanager:Get*", secret), deny))
    assert found.certain == {f"data:read s3 {bucket}", f"data:destroy s3 {bucket}", f"data:read secrets {secret}"}


@pytest.mark.parametrize(
    ("action", "resource", "expected"),
    [
        ("ec2:ModifySnapshotAttribute", "arn:aws:ec2:*::snapshot/*", "read snapshots"),
        ("ec2:DeleteSnapshot", "arn:aws:ec2:eu-west-1::snapshot/snap-1", "destroy snapshots"),
        ("ec2:DeleteVolume", f"arn:aws:ec2:*:{ACCOUNT}:volume/vol-1", "destroy volumes"),
        ("ec2:TerminateInstances", f"arn:aws:ec2:*:{ACCOUNT}:instance/i-1", "destroy instances"),
        ("cloudtrail:StopLogging", f"arn:aws:cloudtrail:*:{ACCOUNT}:trail/audit", "destroy trails"),
        ("logs:DeleteLogGroup", f"arn:aws:logs:*:{ACCOUNT}:log-group:app", "destroy logs"),
        ("rds:ModifyDBClusterSnapshotAttribute", f"arn:aws:rds:*:{ACCOUNT}:cluster-snapshot:x", "read databases"),
        ("secretsmanager:UpdateSecret", f"arn:aws:secretsmanager:*:{ACCOUNT}:secret:x", "change secrets"),
    ],
)
def test_data_is_found_by_the_names_that_its_service_gives_it(action: str, resource: str, expected: str) -> None:
    """A snapshot's ARN has no account, a trail is none of the logs."""
    found = {one.removeprefix("data:") for one in reached(role("actor", allow(action, resource))).certain}
    assert {" ".join(one.split(" ")[:2]) for one in found} == {expected}


def test_only_a_service_can_take_a_role_of_its_own() -> None:
    """Roles that are linked to a service cannot be taken."""
    shown = role("actor", allow("iam:*"))
    linked = {**shown["RoleDetailList"][0], "Arn": f"{ARN}role/aws-service-role/x/y", "Path": "/aws-service-role/x/"}
    shown["RoleDetailList"].append(linked)
    assert not [one.arn for one in read_account(ACCOUNT, shown).principals if "aws-service-role" in one.arn]


def test_a_role_is_passed_to_an_instance_only_by_a_profile_and_a_doubtful_trust_is_possible() -> None:
    """A role that instances may take, and that no profile has, is nothing that one can be started with."""
    rights = (allow("iam:PassRole"), allow("ec2:RunInstances"), allow("ssm:StartSession"))
    shown = role("actor", *rights)
    bare, profiled = role("bare")["RoleDetailList"][0], role("profiled", profile="p")["RoleDetailList"][0]
    doubtful = role("doubtful", profile="d")["RoleDetailList"][0]
    condition = {"Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}}}
    doubtful["AssumeRolePolicyDocument"]["Statement"][0] |= condition
    shown["RoleDetailList"] += [bare, profiled, doubtful]
    found = reached(shown)
    assert (found.certain, found.possible) == ({f"iam:{ARN}role/profiled"}, {f"iam:{ARN}role/doubtful"})


def trusting(trust: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The role `actor`, which may assume any, and the role `target` with that trust policy."""
    shown: dict[str, Any] = role("actor", allow("sts:AssumeRole"))
    target = role("target")["RoleDetailList"][0]
    target["AssumeRolePolicyDocument"] = policy(*({"Action": "sts:AssumeRole"} | one for one in trust))
    shown["RoleDetailList"].append(target | more)
    return shown


def said(effect: str, key: str = "Principal", principal: str = "role/actor", **more: Any) -> dict[str, Any]:
    """A statement of a trust policy about a principal of the account; `*` is everybody."""
    return {"Effect": effect, key: "*" if principal == "*" else {"AWS": f"{ARN}{principal}"}} | more


WEEKDAY = {"StringEquals": {"aws:RequestTag/day": "monday"}}
SESSION = {"AWS": f"arn:aws:sts::{ACCOUNT}:assumed-role/actor/deploy"}


@pytest.mark.parametrize(
    ("trust", "sure"),
    [
        ([said("Allow")], "certain"),
        ([said("Allow", principal="root"), said("Deny")], ""),
        ([said("Allow", principal="root"), said("Deny", principal="*", Condition=WEEKDAY)], "possible"),
        ([said("Allow"), said("Deny", principal="root")], ""),
        ([said("Allow"), said("Deny", principal="*")], ""),
        ([said("Allow", principal="*"), said("Deny")], ""),
        ([said("Allow", principal="*"), said("Deny", principal="role/other")], "certain"),
        ([said("Allow"), said("Deny", "NotPrincipal")], "certain"),
        ([said("Allow"), said("Deny", "NotPrincipal", "role/other")], ""),
        ([said("Allow", "NotPrincipal")], ""),
        ([said("Allow", "NotPrincipal", "role/other")], "certain"),
        ([said("Allow", Principal=SESSION)], "possible"),
        ([said("Allow", Principal={"AWS": SESSION["AWS"].replace("/actor/", "/actors/")})], ""),
        ([said("Allow", Principal={"Federated": f"{ARN}saml-provider/x"})], ""),
    ],
)  # fmt: skip
def test_a_trust_policy_lets_in_whom_it_means(trust: list[dict[str, Any]], sure: str) -> None:
    """By whichever of its names a principal is let in, denied or excepted; a session of a role only possibly."""
    found = reached(trusting(trust))
    assert [word for word in ("certain", "possible") if f"iam:{ARN}role/target" in getattr(found, word)] == (
        [sure] if sure else []
    )


def test_other_partitions_are_read_as_ours_is() -> None:
    """Trust by the account, data, and services that are called otherwise in China."""
    shown = trusting([said("Allow", principal="root")])
    function = role("job")["RoleDetailList"][0]
    function["AssumeRolePolicyDocument"] = policy(
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com.cn"}}
    )
    statements = [allow("sts:AssumeRole"), allow("lambda:*"), allow("iam:PassRole"),
                  allow("sqs:PurgeQueue", f"arn:aws:sqs:cn-north-1:{ACCOUNT}:mail")]  # fmt: skip
    shown["RoleDetailList"][0]["RolePolicyList"] = [{"PolicyDocument": policy(*statements)}]
    shown["RoleDetailList"].append(function)
    chinese = json.loads(json.dumps(shown).replace("arn:aws:", "arn:aws-cn:"))
    account = read_account(ACCOUNT, chinese)
    steps = [edge for actor in account.principals for edge in AccountSteps(account, WAYS).of(actor)]
    assert Graph(steps).reach([f"iam:{ARN}role/actor".replace("aws", "aws-cn")]).certain == {
        f"iam:arn:aws-cn:iam::{ACCOUNT}:role/target",
        f"iam:arn:aws-cn:iam::{ACCOUNT}:role/job",
        f"data:destroy queues arn:aws-cn:sqs:cn-north-1:{ACCOUNT}:mail",
    }


def test_what_iam_does_not_show_is_unread_and_possible() -> None:
    """A boundary that is not shown may allow all; of a policy and a group it is told that they were not read."""
    shown = role("actor", allow("s3:GetObject", "arn:aws:s3:::orders/*"), limit=[])
    shown["Policies"][0]["PolicyVersionList"] = []
    shown["RoleDetailList"][0]["AttachedManagedPolicies"] = [{"PolicyArn": "arn:aws:iam::aws:policy/Gone"}]
    shown["UserDetailList"] = [{"Arn": f"{ARN}user/ann", "GroupList": ["people"]}]
    assert reached(shown).possible == {"data:read s3 arn:aws:s3:::orders/*"}
    assert read_account(ACCOUNT, shown).unread == (
        f"{ARN}role/actor: what its policy arn:aws:iam::aws:policy/Gone says",
        f"{ARN}role/actor: what its policy {ARN}policy/limit says",
        f"{ARN}user/ann: its group people",
    )


def test_a_role_is_of_a_service_by_the_beginning_of_its_path_only() -> None:
    """Another path that holds the same words hides nothing."""
    shown = trusting([said("Allow")], Path="/mine/aws-service-role/")
    assert f"iam:{ARN}role/target" in reached(shown).certain


def test_whom_a_role_trusts_elsewhere_is_told() -> None:
    """Accounts, whatever their roles are called, and identity providers."""
    other = {"AWS": f"arn:aws:iam::210987654321:role/of-{ACCOUNT}"}
    for principal, told in ((other, "other accounts"), ({"Federated": "cognito"}, "an identity provider")):
        (note,) = read_account(ACCOUNT, trusting([said("Allow", Principal=principal)])).notes
        assert told in note
    for principal in ({"AWS": ACCOUNT}, {"AWS": f"{ARN}root"}, {"Service": "x"}):
        assert read_account(ACCOUNT, trusting([said("Allow", Principal=principal)])).notes == ()


def test_a_user_may_mean_himself_and_a_group_whoever_joins_it() -> None:
    """The variable of his name is his name; who asks by a group's rights is not known."""
    keys = allow("iam:CreateAccessKey", f"{ARN}user/${{aws:UserName}}")
    in_team = {"Condition": {"ArnLike": {"aws:PrincipalArn": f"{ARN}user/a*"}}}
    joins = allow("iam:AddUserToGroup", f"{ARN}group/people")
    shown = {
        "UserDetailList": [
            {"Arn": f"{ARN}user/ann", "UserPolicyList": [{"PolicyDocument": policy(keys, joins)}]},
            {"Arn": f"{ARN}user/bob"},
        ],
        "GroupDetailList": [
            {"Arn": f"{ARN}group/people", "GroupName": "people",
             "GroupPolicyList": [{"PolicyDocument": policy(allow("sqs:PurgeQueue") | in_team)}]},
        ],
    }  # fmt: skip
    account = read_account(ACCOUNT, shown)
    steps = [edge for actor in account.principals for edge in AccountSteps(account, WAYS).of(actor)]
    found = Graph(steps).reach([f"iam:{ARN}user/ann"])
    assert found.certain == {f"iam:{ARN}group/people"}
    assert found.possible == {f"data:destroy queues all of {ACCOUNT}"}


def test_a_role_that_lets_one_in_by_name_may_be_given_rights_first() -> None:
    """Without a right of one's own to assume it; a condition on which policy is given makes it possible."""
    shown, attach = trusting([said("Allow")]), allow("iam:AttachRolePolicy", f"{ARN}role/target")
    own = {"Condition": {"ArnLike": {"iam:PolicyARN": f"{ARN}policy/*"}}}
    for right, sure in ((attach, "certain"), (attach | own, "possible")):
        shown["RoleDetailList"][0]["RolePolicyList"] = [{"PolicyDocument": policy(right)}]
        assert f"account:{ACCOUNT}" in getattr(reached(shown), sure)


@pytest.mark.parametrize(
    ("right", "sure"),
    [
        (allow("iam:AttachGroupPolicy", f"{ARN}group/people"), "certain"),
        (allow("iam:PutUserPolicy", f"{ARN}user/ann"), "possible"),
        (allow("iam:PutGroupPolicy", f"{ARN}group/others"), ""),
        (allow("iam:PutRolePolicy"), ""),
    ],
)
def test_who_joins_a_group_has_its_rights_over_users_and_groups(right: dict[str, Any], sure: str) -> None:
    """Over the group itself surely; over himself only possibly, for the group does not say who he is."""
    group = {"Arn": f"{ARN}group/people", "GroupName": "people", "GroupPolicyList": [{"PolicyDocument": policy(right)}]}
    joins = [{"PolicyDocument": policy(allow("iam:AddUserToGroup", group["Arn"]))}]
    account = read_account(
        ACCOUNT, {"UserDetailList": [{"Arn": f"{ARN}user/ann", "UserPolicyList": joins}], "GroupDetailList": [group]}
    )
    steps = [edge for actor in account.principals for edge in AccountSteps(account, WAYS).of(actor)]
    found = Graph([*AccountSteps(account, WAYS).of_account(), *steps]).reach([f"iam:{ARN}user/ann"])
    words = [word for word in ("certain", "possible") if f"account:{ACCOUNT}" in getattr(found, word)]
    assert words == ([sure] if sure else [])
