"""Policies of our own roles: as narrow as AWS allows, within its limits, and nothing in them is found high."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cloudsplaining.scan.policy_document import PolicyDocument
from policy_sentry.shared.iam_data import get_service_prefix_data

from hardening.foundation.errors import ContentError, RefusedError
from hardening.foundation.settings import ROOT, Aws, Settings, Signing
from images.aws.client import Client
from images.aws.permissions import ROLES, PermissionCondition, permit
from pipelines.fleet.members import OWN_LABELS
from pipelines.fleet.rollout_targets import MEMBERS
from pipelines.network.model import RoleGroup
from pipelines.role_facts import installation
from pipelines.role_policies import EDGES, FORMS, LARGEST, policies
from tests.support import edges as recorder
from tests.support.ec2 import fleet
from tests.support.edges import CLIENT, declared, never_called
from tests.support.roles import Json, every, rendered

ACCOUNT, PARTNER, HOME = "123456789012", "210987654321", "eu-central-1"
KEY = f"arn:aws:kms:{HOME}:{ACCOUNT}:key/"
SHOP = f"arn:aws:iam::{ACCOUNT}:role/shop"
ROOTS = {"way": "root_volume", "accounts": "organization"}
FLEETS = (
    fleet(),
    fleet(name="roots", selector={"app": "roots", "tier": "db"}, ec2=ROOTS),
    fleet(name="web", kind="ecs", selector={"app": "web"}, ecs={"cluster": "shop"}),
    fleet(name="nodes", kind="eks", selector={"app": "nodes"}, eks={"cluster": "kube"}),
)
GROUPS = (
    RoleGroup(id="sg-0123456789abcdef0", region=HOME, account=""),
    RoleGroup(id="sg-11111111", region="eu-west-1", account=ACCOUNT),
    RoleGroup(id="sg-22222222", region="eu-north-1", account=PARTNER),
)
"""Of a network: two groups of ours, and a partner's."""
GLOBAL = {"aws:RequestedRegion", "aws:ResourceOrgID"}
"""PermissionCondition keys that AWS has in every request, or in every one about a resource."""


def settings(folder: Path = Path("/nowhere"), **more: Any) -> Settings:
    """An installation with all that policies are made of."""
    given: dict[str, Any] = {
        "account": ACCOUNT, "region": HOME, "regions": ("eu-west-1",), "kms_keys": {HOME: f"{KEY}images"},
        "signing_key": f"{KEY}sign", "share_accounts": (PARTNER,), "organization_role": "goldsmith",
        "roles": {PARTNER: f"arn:aws:iam::{PARTNER}:role/goldsmith"}, "external_ids": {PARTNER: "shop-7"},
        "passed_roles": (SHOP,),
    }  # fmt: skip
    return Settings(state=folder, aws=Aws(**given | more))


def of(role: str, *fleets: Any, account: str = "", **more: Any) -> list[Json]:
    """The statements of a role."""
    found = rendered(role, settings(**more), fleets or FLEETS, account, groups=GROUPS, passed_roles=(SHOP,))
    return [one for document in found for one in document["Statement"]]


def listed(said: Any) -> list[str]:
    return [said] if isinstance(said, str) else list(said)


ALL = [pytest.param(one, id=f"{role}-{number}") for role in ROLES for number, one in enumerate(of(role))]


def about(action: str, statements: list[Json]) -> list[Json]:
    return [one for one in statements if action in listed(one["Action"])]


# -- what edges declare ------------------------------------------------------------------------------------------------


ASKING = {"call", "call_unless", "pages", "_once", "accepted"}
OPERATION = re.compile(r"[A-Z][a-z]+[A-Z][A-Za-z]+|Sign")


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Our modules that hold a client of AWS, by name."""
    for file in sorted((*(ROOT / "images").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py"))):
        text = file.read_text()
        if "images.aws" in text or file.parent.name == "aws" or "region_client" in text:
            yield str(file.relative_to(ROOT))[:-3].replace("/", "."), ast.parse(text)


def asked(tree: ast.Module) -> set[str]:
    """The operations that a module names where it asks for one."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ASKING:
            texts = (one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str))
            found |= {text for text in texts if OPERATION.fullmatch(text)}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "instances":
            found |= {"DescribeInstances"} if any(one.arg == "Filters" for one in node.keywords) else set()
    return found


def test_every_module_that_asks_aws_declares_what_and_is_an_edge() -> None:
    """What no test meets, too."""
    kinds = {"Reservations"}  # the key of a page, which looks like an operation
    for name, tree in sources():
        operations = asked(tree) - kinds - {"DescribeInstances"} if name == CLIENT else asked(tree) - kinds
        keys = {one for one in operations if one.endswith("s") and not re.match(r"Describe|List|Get|Stop|Start", one)}
        named = {action.partition(":")[2] for action in declared(name)} if name in EDGES else set()
        assert {one for one in operations - keys if one not in named} == set(), name


def test_an_edge_that_declares_what_it_never_asks_for_is_named() -> None:
    """After the whole suite, which is red then."""
    called = {(edge, action) for edge in EDGES for action in declared(edge)}
    assert never_called(called) == []
    assert never_called(called - {("images.aws.kms", "kms:Sign")}) == ["images.aws.kms: kms:Sign"]


@pytest.mark.parametrize("ended", [pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED])
@pytest.mark.parametrize("whole", [True, False])
def test_only_the_whole_suite_knows_what_is_never_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], whole: bool, ended: pytest.ExitCode
) -> None:
    """It is red then, and says so where a test failed too; a part of it is as it was."""
    source = pytest.Config.ArgsSource
    config = SimpleNamespace(
        args_source=source.TESTPATHS if whole else source.ARGS, getoption=lambda _name, default=None: default
    )
    session: Any = SimpleNamespace(config=config, exitstatus=ended)
    monkeypatch.setattr(recorder, "CALLED", set())
    recorder.pytest_sessionfinish(session)
    assert session.exitstatus == (pytest.ExitCode.TESTS_FAILED if whole else ended)
    assert ("never asked for" in capsys.readouterr().out) is whole


def test_a_call_that_its_module_does_not_declare_fails() -> None:
    """Whichever test makes it."""
    asks: dict[str, Any] = {"__name__": "images.aws.kms"}
    exec("def ask(client): client.call('DescribeInstances')", asks)
    with pytest.raises(AssertionError, match=r"images\.aws\.kms asks for ec2:DescribeInstances"):
        asks["ask"](Client(None, "ec2", ACCOUNT, HOME))


# -- narrow ------------------------------------------------------------------------------------------------------------


def reference(action: str) -> dict[str, Any]:
    """What AWS's service authorization reference says of an action: the kinds of its resources, with condition keys."""
    service, _, name = action.partition(":")
    data = get_service_prefix_data(service)
    found: dict[str, Any] = {**data["privileges"][name], "arns": {}}
    for kind in found["resource_types"]:
        if kind:
            patterns = data["resources"][kind]["arn"]
            found["arns"][kind] = re.sub(r"\$\{\w+\}", "*", patterns)
    return found


@pytest.mark.parametrize("statement", ALL)
def test_no_action_has_a_wildcard_and_everything_only_what_aws_narrows_no_further(statement: Json) -> None:
    """By AWS's own reference; and nothing is named that an action is never about."""
    for action in listed(statement["Action"]):
        assert "*" not in action
        kinds = reference(action)["arns"]
        for resource in listed(statement["Resource"]):
            if resource == "*":
                assert not kinds, f"{action} could be narrowed to {sorted(kinds)}"
            else:
                assert any(_is_kind(resource, pattern) for pattern in kinds.values()), f"{action} on {resource}"


def _is_kind(resource: str, pattern: str) -> bool:
    """Whether a resource is of a kind: the same service, and the same words before the first wildcard."""
    ours, theirs = resource.split(":", 5), pattern.split(":", 5)
    word = re.match(r"[\w-]*", theirs[5])
    return ours[2] == theirs[2] and bool(word) and ours[5].startswith(word.group() if word else "")


@pytest.mark.parametrize("statement", ALL)
def test_a_condition_is_by_a_key_that_aws_has_there(statement: Json) -> None:
    """Else it would never hold, or always."""
    keys = {key for one in statement.get("Condition", {}).values() for key in one} - GLOBAL
    for action in listed(statement["Action"]):
        found = reference(action)["resource_types"]
        kinds = {kind for kind, pattern in reference(action)["arns"].items()
                 if any(_is_kind(one, pattern) for one in listed(statement["Resource"]))}  # fmt: skip
        shown = [key for kind in ("", *kinds) for key in found.get(kind, {}).get("condition_keys", ())]
        known = {re.sub(r"/\$\{.*", "/", key) for key in shown}
        of_tags = tuple(one for one in known if one.endswith("/"))
        lacking = {key for key in keys if key not in known and not key.startswith(of_tags)}
        assert not lacking, f"{action}: {sorted(lacking)}; there are {sorted(known)}"


@pytest.mark.parametrize("statement", ALL)
def test_what_is_asked_in_a_region_is_asked_in_ours_alone(statement: Json) -> None:
    """Those of the settings, and of fleets."""
    if not listed(statement["Action"])[0].startswith(("iam:", "organizations:", "sts:")):
        assert statement["Condition"]["StringEquals"]["aws:RequestedRegion"] == [HOME, "eu-west-1"]


def test_changes_are_to_members_and_ends_to_what_was_launched() -> None:
    """By the tags of each fleet's selector, all of them; and by a tag that nothing of ours sets on what stands."""
    found = of("roller")
    stops = about("ec2:StopInstances", found)
    tags = [{key: value for key, value in one["Condition"]["StringEquals"].items() if "Tag" in key} for one in stops]
    assert sorted(tags, key=str) == [
        {"aws:ResourceTag/app": "roots", "aws:ResourceTag/tier": "db"},
        {"aws:ResourceTag/app": "shop"},
    ]
    for role in ("roller", "reaper"):
        for one in about("ec2:TerminateInstances", of(role)):
            assert one["Condition"]["StringLike"][f"aws:ResourceTag/{OWN_LABELS}owned"] == "*"
    (ended,) = about("ec2:TerminateInstances", found)
    assert ended["Condition"]["StringEquals"]["aws:ResourceTag/app"] == "shop", "of the fleet that launches"
    for one in about("ec2:CreateTags", found):
        if "instance" in str(one["Resource"]) and "ec2:CreateAction" not in one["Condition"]["StringEquals"]:
            assert one["Condition"]["Null"] == {f"aws:RequestTag/{OWN_LABELS}owned": "true"}


def test_roles_are_assumed_by_their_external_id_and_passed_to_one_service_by_name() -> None:
    """Those of the settings; of an organisation's only in that organisation."""
    found = {str(one["Resource"]): one["Condition"] for one in about("sts:AssumeRole", of("roller"))}
    assert found == {
        f"arn:aws:iam::{PARTNER}:role/goldsmith": {"StringEquals": {"sts:ExternalId": "shop-7"}},
        "arn:aws:iam::*:role/goldsmith": {"StringEquals": {"aws:ResourceOrgID": "${aws:PrincipalOrgID}"}},
    }
    passes = about("iam:PassRole", of("roller"))
    passed = [(one["Resource"], one["Condition"]["StringEquals"]["iam:PassedToService"]) for one in passes]
    assert sorted(passed) == [(SHOP, "ec2.amazonaws.com"), (SHOP, "ecs-tasks.amazonaws.com")]
    assert not [one for role in ROLES if role != "roller" for one in about("iam:PassRole", of(role))]


def test_a_network_changes_only_the_groups_that_it_names() -> None:
    """By their ids, each account's alone; the partner's by its role, and no other role."""
    found = of("network")
    for action in ("Authorize", "Revoke"):
        (one,) = about(f"ec2:{action}SecurityGroupIngress", found)
        assert one["Resource"] == [
            f"arn:aws:ec2:{region}:{ACCOUNT}:security-group/{name}"
            for region, name in ((HOME, "sg-0123456789abcdef0"), ("eu-west-1", "sg-11111111"))
        ]
    (assumed,) = about("sts:AssumeRole", found)
    assert assumed["Resource"] == f"arn:aws:iam::{PARTNER}:role/goldsmith"
    (there,) = about("ec2:RevokeSecurityGroupEgress", of("network", account=PARTNER))
    assert there["Resource"] == f"arn:aws:ec2:eu-north-1:{PARTNER}:security-group/sg-22222222"
    assert "eu-north-1" in there["Condition"]["StringEquals"]["aws:RequestedRegion"]
    assert not about("sts:AssumeRole", of("network", account=PARTNER))
    by_name = about("sts:AssumeRole", of("network", roles={}))
    assert [(one["Resource"], one["Condition"]) for one in by_name] == [
        (f"arn:aws:iam::{PARTNER}:role/goldsmith", {"StringEquals": {"aws:ResourceOrgID": "${aws:PrincipalOrgID}"}})
    ]
    assert rendered("network", settings(), FLEETS) == [], "without groups it needs nothing"


def test_what_no_fleet_needs_is_not_allowed() -> None:
    """Of an installation with one fleet of ECS: nothing of machines, of EKS or of an organisation."""
    actions = {action for one in of("roller", FLEETS[2]) for action in listed(one["Action"])}
    assert {one.partition(":")[0] for one in actions} == {"cloudwatch", "ec2", "ecs", "iam", "kms", "ssm", "sts"}
    assert {one for one in actions if one.startswith("ec2:")} == {"ec2:DescribeImages"}
    assert not about("ec2:DeleteVolume", of("publisher"))
    assert not about("ec2:CreateReplaceRootVolumeTask", of("roller", FLEETS[0]))
    (task,) = [
        one for one in about("ec2:CreateReplaceRootVolumeTask", of("roller")) if "instance/" in str(one["Resource"])
    ]
    assert task["Condition"]["StringEquals"]["aws:ResourceTag/app"] == "roots"
    for only in (FLEETS[1], FLEETS[3]):
        assert not about("ec2:TerminateInstances", of("roller", only))


def test_in_another_account_the_role_may_do_what_fleets_there_need() -> None:
    """Nothing of what only the owner of images has: releases, keys that sign, roles to assume."""
    there = fleet(ec2={"accounts": (PARTNER,)})
    found = of("roller", there, account=PARTNER)
    actions = {action for one in found for action in listed(one["Action"])}
    assert {"ec2:RunInstances", "ec2:TerminateInstances"} < actions
    assert not actions & {"ssm:GetParameter", "kms:GetPublicKey", "sts:AssumeRole", "iam:PassRole"}
    assert ACCOUNT not in str([one["Resource"] for one in found]).replace(f"{KEY}images", "")
    (used,) = about("kms:ReEncryptFrom", of("roller", there, account=PARTNER))
    assert used["Resource"] == [f"arn:aws:kms:*:{PARTNER}:key/*", f"{KEY}images"]
    assert used["Condition"]["StringLike"] == {"kms:ViaService": "ec2.*.amazonaws.com"}
    assert not about("kms:ReEncryptFrom", of("roller", FLEETS[2], account=PARTNER)), "no machines, no keys"
    owners = [one["Condition"]["StringEquals"].get("ec2:Owner") for one in about("ec2:RunInstances", found)]
    assert ACCOUNT in owners
    assert not about("ec2:RunInstances", of("roller", there)), "and nothing of it at home"


def test_an_auditor_reads_for_adopt_what_no_fleet_names_yet() -> None:
    """Every cluster, and machines; as reads alone. Other roles keep to the fleets."""
    for fleets in ((), (FLEETS[2],)):
        found = rendered("auditor", settings(), fleets)
        whole = [one for document in found for one in document["Statement"]]
        assert about("ec2:DescribeInstances", whole)
        (services,) = about("ecs:DescribeServices", whole)
        assert services["Resource"] == f"arn:aws:ecs:*:{ACCOUNT}:service/*/*"
        (nodes,) = about("eks:DescribeNodegroup", whole)
        assert nodes["Resource"] == f"arn:aws:eks:*:{ACCOUNT}:nodegroup/*/*"
    (scanned,) = about("ecs:DescribeServices", of("scanner"))
    assert scanned["Resource"] == f"arn:aws:ecs:{HOME}:{ACCOUNT}:service/shop/*"
    assert not about("ec2:DescribeInstances", of("scanner", FLEETS[2]))


def test_a_selector_cannot_widen_what_it_selects() -> None:
    """By a policy variable, or by a tag that rollouts set themselves."""
    (one,) = about("ec2:StopInstances", of("roller", fleet(selector={"app": "${aws:username}*"})))
    assert one["Condition"]["StringEquals"]["aws:ResourceTag/app"] == "${$}{aws:username}*"
    with pytest.raises(ContentError, match=r"the fleet shop selects by dev\.goldsmith\.rollout"):
        of("roller", fleet(selector={"dev.goldsmith.rollout": "x"}))


def test_a_builder_needs_nothing_unless_aws_keeps_the_key_that_signs() -> None:
    """Images are built without AWS."""
    own = settings(signing_key="")
    assert rendered("builder", own, FLEETS) == []
    signing = own.model_copy(update={"signing": Signing(key=f"awskms:{KEY}own")})
    (document,) = rendered("builder", signing, FLEETS)
    assert [(one["Action"], one["Resource"]) for one in document["Statement"]] == [("kms:GetPublicKey", f"{KEY}own")]


@pytest.mark.parametrize("setting", ["signing_key", "kms_keys"])
def test_a_key_by_its_alias_is_refused(setting: str) -> None:
    """A policy that named it would allow nothing."""
    alias = f"arn:aws:kms:{HOME}:{ACCOUNT}:alias/shop"
    with pytest.raises(ContentError, match="alias/shop is not the ARN of a key") as refused:
        of("publisher", **{setting: alias if setting == "signing_key" else {HOME: alias}})
    assert refused.value.key == f"aws.{setting}"


def test_without_an_account_nothing_is_rendered() -> None:
    """The error names the key."""
    with pytest.raises(ContentError, match="no account and region of AWS are set"):
        installation(Settings(state=Path("/nowhere")), ())


# -- what others say ---------------------------------------------------------------------------------------------------


RESIDUAL = {
    "publisher": ({"ssm:GetParameter"}, {"ec2:ModifySnapshotAttribute", "kms:CreateGrant"}, set()),
    "scanner": ({"ssm:GetParameter", "ssm:GetParameters"}, set(), set()),
    "roller": ({"ssm:GetParameter", "ssm:GetParameters"}, {"iam:PassRole", "kms:CreateGrant"},
               {"CreateEC2WithExistingIP", "ModifyEC2InstanceUserDataThenRestart"}),
    "reaper": ({"ssm:GetParameters"}, set(), set()),
    "auditor": ({"ssm:GetParameter", "ssm:GetParameters"}, set(), set()),
}  # fmt: skip
"""What cloudsplaining tells if neither ARNs nor conditions counted: docs/iam.md says why each is needed."""


@pytest.mark.parametrize("role", ROLES)
def test_cloudsplaining_finds_nothing_high(role: str) -> None:
    """No escalation, exfiltration or exposure, though conditions count for nothing; all policies of a role as one."""
    document = {"Version": "2012-10-17", "Statement": of(role)}
    found = PolicyDocument(document, flag_conditional_statements=True)
    assert not found.allows_privilege_escalation
    assert not found.allows_data_exfiltration_actions
    assert not found.permissions_management_without_constraints
    assert not found.credentials_exposure
    assert not found.service_wildcard
    strict = PolicyDocument(document, flag_conditional_statements=True, flag_resource_arn_statements=True)
    data, exposed, ways = RESIDUAL.get(role, (set(), set(), set()))
    assert set(strict.allows_data_exfiltration_actions) == data
    assert set(strict.permissions_management_without_constraints) == exposed
    assert {one["type"] for one in strict.allows_privilege_escalation} == ways


# -- documents ---------------------------------------------------------------------------------------------------------


def compact(document: Json) -> int:
    return len(json.dumps(document, separators=(",", ":")))


def test_policies_are_split_before_they_are_too_long_and_refused_where_they_are_too_many() -> None:
    """Characters that IAM counts: without white space between."""
    names = [fleet(name=f"f{number}", selector={"app": f"shop-{number}", "tier": "db"}) for number in range(20)]
    at = installation(settings(), names)
    found = policies("roller", every(), at)
    assert list(found)[:2] == ["goldsmith-roller-1", "goldsmith-roller-2"]
    assert max(map(compact, found.values())) <= LARGEST == 6144
    whole = [one for document in found.values() for one in document["Statement"]]
    assert whole == of("roller", *names)
    many = [fleet(name=f"f{number}", selector={"app": f"shop-{number}", "tier": "db"}) for number in range(400)]
    with pytest.raises(RefusedError, match=r"would need \d+ policies; a role may have 10"):
        policies("roller", every(), installation(settings(), many))


def test_fleets_that_one_tag_tells_apart_share_their_statements() -> None:
    """So that a hundred of them have room; those of several tags have their own, as no value goes with another's."""
    names = [fleet(name=f"f{number}", selector={"app": f"shop-{number}"}) for number in range(100)]
    found = policies("roller", every(), installation(settings(), names))
    whole = [one for document in found.values() for one in document["Statement"]]
    told = [one["Condition"]["StringEquals"]["aws:ResourceTag/app"] for one in about("ec2:StopInstances", whole)]
    assert sorted(value for values in told for value in values) == sorted(one.selector["app"] for one in names)
    long = [fleet(name=f"f{number}", selector={"app": f"{number:0256}"}) for number in range(15)]
    assert policies("roller", every(), installation(settings(), long)), "the longest tags have room"


def test_a_statement_about_many_resources_becomes_several() -> None:
    """So that a network of hundreds of groups has its policies."""
    many = [RoleGroup(id=f"sg-{number:017x}", region=HOME, account="") for number in range(300)]
    found = policies("network", every(), installation(settings(), (), groups=many))
    assert max(map(compact, found.values())) <= LARGEST
    whole = [one for document in found.values() for one in document["Statement"]]
    told = [name for one in about("ec2:RevokeSecurityGroupEgress", whole) for name in listed(one["Resource"])]
    assert sorted(told) == [f"arn:aws:ec2:{HOME}:{ACCOUNT}:security-group/{one.id}" for one in many]


def test_the_order_is_always_the_same() -> None:
    """A policy that changes without a reason would be reviewed for nothing."""
    at = installation(settings(), FLEETS)
    once, again = (json.dumps(policies("roller", permissions, at)) for permissions in (every(), every()[::-1]))
    assert once == again


def test_two_conditions_about_one_key_never_become_one() -> None:
    """The later would take the earlier away, and so widen the statement."""
    app: PermissionCondition = ("StringEquals", "aws:ResourceTag/app", "bank")
    twice = permit("ec2:StopInstances", "roller", on=MEMBERS.where(app))
    with pytest.raises(ValueError, match="two conditions StringEquals about aws:ResourceTag/app"):
        policies("roller", [twice], installation(settings(), FLEETS))


def test_terraform_keeps_policy_variables_from_its_own_templates() -> None:
    """Read back as Terraform does, it is the same document."""
    found = policies("roller", every(), installation(settings(), FLEETS))
    ((name, file),) = FORMS["terraform"](found).items()
    assert name == "goldsmith-roller.tf.json"
    made = file["resource"]["aws_iam_policy"]
    assert "$${aws:PrincipalOrgID}" in str(made)
    read = {one["name"]: json.loads(one["policy"].replace("$${", "${").replace("%%{", "%{")) for one in made.values()}
    assert read == found
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", one) for one in made)


@pytest.mark.parametrize("role", [one for one in ROLES if one != "builder"])
def test_cloudformation_is_what_its_linter_accepts(role: str) -> None:
    """It knows every property, and actions of IAM too."""
    from cfnlint import api  # takes long to load, and few workers come here

    found = policies(role, every(), installation(settings(), FLEETS, groups=GROUPS))
    ((name, file),) = FORMS["cloudformation"](found).items()
    assert name == f"goldsmith-{role}.template.json"
    assert api.lint(json.dumps(file), regions=[HOME]) == []
