"""The emulator as such: requests against the model, faults on purpose, the log, accounts, a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from hardening.foundation.process import run
from hardening.foundation.settings import ROOT
from tests.strict_aws import ACCOUNT, REGION, Fault, StrictAws, rules, subprocess
from tests.strict_aws.contract import check_shape
from tests.strict_aws.making import filled, image, put, refused, snapshot
from tests.support.loop import until

AWAY = "us-east-1"


def raw(
    aws: StrictAws, service: str, body: str, *, path: str = "", method: str = "POST", **headers: str
) -> tuple[int, str]:
    """A request as no SDK would send it."""
    scope = f"AWS4-HMAC-SHA256 Credential={ACCOUNT}/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host"
    kind = "application/x-www-form-urlencoded" if service == "ec2" else "application/x-amz-json-1.1"
    sent = {"Authorization": scope, "Content-Type": kind, **headers}
    request = urllib.request.Request(f"{aws.url}{path}", body.encode(), sent, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("service", sorted(rules.RULES))
def test_every_strict_operation_is_aws_own(service: str) -> None:
    """What has a rule is an operation of botocore's model."""
    from botocore.session import get_session

    assert set(rules.RULES[service]) <= set(get_session().get_service_model(service).operation_names)


def test_answers_have_the_members_of_the_model(aws: StrictAws) -> None:
    """An answer of ours with a member that the model lacks does not leave the emulator."""
    from botocore.session import get_session

    model = get_session().get_service_model("ec2").operation_model("DescribeImages")
    check_shape(model.output_shape, {"Images": [{"ImageId": "ami-1"}]}, "DescribeImages")
    with pytest.raises(ValueError, match="Colour"):
        check_shape(model.output_shape, {"Images": [{"Colour": "red"}]}, "DescribeImages")


def test_a_role_asks_for_its_external_id(aws: StrictAws) -> None:
    """Nobody enters without it, or with another one."""
    role, sts = "arn:aws:iam::210987654321:role/shop", aws.client("sts")
    asked = {"RoleArn": role, "RoleSessionName": "test"}
    assert sts.assume_role(**asked)["Credentials"]
    aws.guard(role, "shop-7")
    for wrong in ({}, {"ExternalId": "shop-8"}):
        with refused("AccessDenied", status=403):
            sts.assume_role(**asked, **wrong)
    assert sts.assume_role(**asked, ExternalId="shop-7")["Credentials"]


def test_what_hangs_is_not_answered_until_the_faults_are_others(aws: StrictAws) -> None:
    """Then it is refused, so that nobody tries again."""
    away, codes = aws.client("ec2", AWAY), list[str]()

    def ask() -> None:
        with suppress(ClientError):
            away.describe_instances()
            return
        codes.append("refused")

    asking = threading.Thread(target=ask, daemon=True)
    with aws.faulty(Fault("hang", region=AWAY)):
        asking.start()
        while not aws.calls("ec2", "DescribeInstances", region=AWAY, fault="hang"):
            asking.join(0.01)
        assert aws.client("ec2").describe_instances()["Reservations"] == []
        assert not codes
    asking.join()
    assert codes == ["refused"]


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("Action=DescribeImages&Colour=red", "UnknownParameter", "Colour"),
        ("Action=DescribeImages&Owner.1=self&Owner.1.Colour=red", "UnknownParameter", "Owner.1.Colour"),
        ("Action=DescribeImages&MaxResults=many", "InvalidParameterValue", "many"),
        ("Action=DescribeImages&IncludeDisabled=maybe", "InvalidParameterValue", "maybe"),
        ("Action=RegisterImage", "MissingParameter", "Name"),
        ("Action=RegisterImage&Name=ab", "InvalidParameterValue", "Name"),
        ("Action=RegisterImage&Name=abc&BootMode=bios", "InvalidParameterValue", "legacy-bios"),
        (f"Action=RegisterImage&Name={'a' * 129}", "InvalidParameterValue", "more than 128"),
        ("Action=BuildImage", "InvalidAction", "BuildImage"),
    ],
)
def test_what_the_model_does_not_know_is_refused_by_ec2(aws: StrictAws, body: str, code: str, said: str) -> None:
    """Unknown, missing and ill-typed members, wrong enum values and lengths are refused by the member's name."""
    status, answer = raw(aws, "ec2", f"{body}&Version=2016-11-15")
    assert (status, f"<Code>{code}</Code>" in answer, said in answer) == (400, True, True), answer


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"Name": "/a", "Value": "x", "Colour": "red"}', "Colour"),
        ('{"Name": "/a", "Value": 1}', "Value"),
        ('{"Name": "/a"}', "Value"),
        ('{"Name": "/a", "Value": "x", "Tier": "Gold"}', "Advanced"),
        ('{"Name": "/a", "Value": "x", "Tags": [{"Key": "k", "Value": "v", "Colour": "red"}]}', "Colour"),
    ],
)
def test_what_the_model_does_not_know_is_refused_by_json_services(aws: StrictAws, body: str, said: str) -> None:
    status, answer = raw(aws, "ssm", body, **{"X-Amz-Target": "AmazonSSM.PutParameter"})
    assert (status, "ValidationException" in answer, said in answer) == (400, True, True), answer


def test_ebs_direct_is_held_to_its_patterns(aws: StrictAws) -> None:
    """Ranges and patterns that boto3 does not check are checked here: ids, tokens, timeouts, keys of tags."""
    ebs = aws.client("ebs")
    for wrong in (
        {"Timeout": 4321},
        {"ClientToken": "with blank"},
        {"ParentSnapshotId": "snap-XYZ"},
        {"KmsKeyArn": "alias/mine", "Encrypted": True},
        {"Tags": [{"Key": "k" * 128, "Value": ""}]},
    ):
        with refused("ValidationException", "INVALID_PARAMETER_VALUE"):
            ebs.start_snapshot(**{"VolumeSize": 1, **wrong})
    assert not aws.snapshots()


def test_a_number_in_quotes_is_no_number(aws: StrictAws) -> None:
    """JSON types are the model's: moto would read "5" as 5."""
    body = '{"Name": "/a", "MaxResults": "5"}'
    status, answer = raw(aws, "ssm", body, **{"X-Amz-Target": "AmazonSSM.GetParameterHistory"})
    assert (status, "MaxResults" in answer, "integer" in answer) == (400, True, True), answer


def test_an_unknown_part_of_the_query_is_refused(aws: StrictAws) -> None:
    """Services that take parameters in the address are held to their model there too."""
    status, answer = raw(aws, "ebs", "", path="/snapshots/snap-0123456789abcdef0/blocks?colour=red", method="GET")
    assert (status, "ValidationException" in answer, "colour" in answer) == (400, True, True), answer


def test_a_refused_request_has_no_effect_and_is_in_the_log(aws: StrictAws) -> None:
    raw(aws, "ec2", "Action=RegisterImage&Version=2016-11-15")
    entry = aws.calls()[-1]
    assert (entry["operation"], entry["effect"], entry["outcome"]) == ("RegisterImage", False, "MissingParameter")


def test_what_the_emulator_lacks_it_says(aws: StrictAws) -> None:
    """Neither half an effect nor an answer that no client can read: 501, which no client tries again."""
    with refused("NotImplemented", status=501):
        aws.client("ec2").import_snapshot()
    number = snapshot(aws)
    with refused("NotImplemented", status=501):
        aws.client("ec2").modify_snapshot_tier(SnapshotId=number, StorageTier="archive")
    assert aws.calls()[-1]["effect"] is False
    with refused("NotImplemented", status=501):
        aws.client("autoscaling").complete_lifecycle_action(
            LifecycleHookName="h", AutoScalingGroupName="g", LifecycleActionResult="CONTINUE"
        )


def test_a_dry_run_does_nothing(aws: StrictAws) -> None:
    """DryRun says that it would have worked, or that the permission is missing."""
    ec2 = aws.client("ec2")
    with refused("DryRunOperation", status=412):
        ec2.register_image(Name="golden", DryRun=True)
    with aws.faulty(Fault("denied", operation="RegisterImage")), refused("UnauthorizedOperation", status=403):
        ec2.register_image(Name="golden", DryRun=True)
    assert not aws.images()


THROTTLED = [
    ("ec2", "describe_images", "RequestLimitExceeded", 503),
    ("ebs", "start_snapshot", "RequestThrottledException", 400),
    ("ssm", "describe_parameters", "ThrottlingException", 400),
    ("kms", "list_keys", "ThrottlingException", 400),
    ("autoscaling", "describe_auto_scaling_groups", "Throttling", 400),
]


@pytest.mark.parametrize(("service", "operation", "code", "status"), THROTTLED)
def test_throttling_is_in_each_services_own_words(
    aws: StrictAws, service: str, operation: str, code: str, status: int
) -> None:
    """The code is one that botocore's standard retries know, and a client that retries comes through."""
    asked = {"VolumeSize": 1} if service == "ebs" else {}
    aws.faults(Fault("throttle", service=service, times=1))
    with pytest.raises(ClientError) as caught:
        getattr(aws.client(service), operation)(**asked)
    told = caught.value.response
    assert (told["Error"]["Code"], told["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    aws.faults(Fault("throttle", service=service, times=1))
    patient = aws.client(service, retries={"mode": "standard", "total_max_attempts": 2})
    assert getattr(patient, operation)(**asked)["ResponseMetadata"]["RetryAttempts"] == 1


DENIED = [
    ("ec2", "UnauthorizedOperation", 403),
    ("ebs", "AccessDeniedException", 403),
    ("ssm", "AccessDeniedException", 400),
]


@pytest.mark.parametrize(("service", "code", "status"), DENIED)
def test_one_action_can_be_denied(aws: StrictAws, service: str, code: str, status: int) -> None:
    """Only the named action is denied, and the message names it."""
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        "ec2": ("register_image", {"Name": "golden"}),
        "ebs": ("start_snapshot", {"VolumeSize": 1}),
        "ssm": ("put_parameter", {"Name": "/a", "Value": "x", "Type": "String"}),
    }
    method, params = asked[service]
    action = "".join(part.title() for part in method.split("_"))
    aws.faults(Fault("denied", service=service, operation=action))
    with pytest.raises(ClientError, match=f"{service}:{action}") as caught:
        getattr(aws.client(service), method)(**params)
    told = caught.value.response
    assert (told["Error"]["Code"], told["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    aws.client("ec2").describe_images()
    assert not aws.snapshots()


def test_a_server_error_has_no_effect(aws: StrictAws) -> None:
    """Code and status are as the rule says, 500 unless it does."""
    ec2, source = aws.client("ec2"), snapshot(aws)
    with aws.faulty(Fault("error", operation="RegisterImage")), refused("InternalError", status=500):
        image(aws, snapshot=source)
    fault = Fault("error", operation="DescribeImages", code="InvalidAMIID.NotFound", status=400, times=1)
    with aws.faulty(fault), refused("InvalidAMIID.NotFound"):
        ec2.describe_images()
    assert not aws.images()


@pytest.fixture(params=["in this process", "over the wire"])
def asked(request: pytest.FixtureRequest, aws: StrictAws) -> StrictAws:
    """The emulator, asked without a socket as by all other tests, or as by a process that knows its address only."""
    wired = request.param == "over the wire"
    return StrictAws(aws.url.replace("127.0.0.1", "localhost")) if wired else aws


def test_it_answers_the_same_in_this_process_and_over_the_wire(asked: StrictAws) -> None:
    """Lists and streams, bytes and headers, moto's answers and its errors, and our own refusals."""
    ec2, ebs, ssm, name = asked.client("ec2"), asked.client("ebs"), asked.client("ssm"), snapshot(asked)
    (found,) = ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert (found["SnapshotId"], found["State"]) == (name, "completed")
    token = ebs.list_snapshot_blocks(SnapshotId=name)["Blocks"][0]["BlockToken"]
    block = ebs.get_snapshot_block(SnapshotId=name, BlockIndex=0, BlockToken=token)
    assert (len(block["BlockData"].read()), block["DataLength"]) == (len(filled(1)), len(filled(1)))
    assert "date" in block["ResponseMetadata"]["HTTPHeaders"]
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=[tagged("vpc", "<ä & 'b'>")])["Vpc"]
    assert (vpc["CidrBlock"], vpc["Tags"]) == ("10.0.0.0/16", [{"Key": "Name", "Value": "<ä & 'b'>"}])
    for refusing, code in (
        (lambda: ec2.describe_vpcs(VpcIds=["vpc-12345678"]), "InvalidVpcID.NotFound"),
        (lambda: ssm.get_parameter(Name="/absent"), "ParameterNotFound"),
        (lambda: ec2.describe_images(ImageIds=["ami-12345678"]), "InvalidAMIID.NotFound"),
    ):
        with refused(code):
            refusing()


def tagged(kind: str, name: str) -> dict[str, Any]:
    return {"ResourceType": kind, "Tags": [{"Key": "Name", "Value": name}]}


def test_a_reset_comes_before_the_effect_and_a_lost_answer_after(asked: StrictAws) -> None:
    """To the client both are a closed connection; the log tells them apart."""
    aws, ebs = asked, asked.client("ebs")
    for kind, made in (("reset", 0), ("lost", 1)):
        with aws.faulty(Fault(kind, operation="StartSnapshot", times=1)), pytest.raises(ConnectionClosedError):
            ebs.start_snapshot(VolumeSize=1, ClientToken="t")
        assert len(aws.snapshots()) == made
    assert [(entry["fault"], entry["effect"]) for entry in aws.calls("ebs")] == [("reset", False), ("lost", True)]
    ebs.start_snapshot(VolumeSize=1, ClientToken="t")
    assert len(aws.snapshots()) == 1


def test_moto_loses_answers_too(aws: StrictAws) -> None:
    """Faults strike what moto answers as well."""
    ssm = aws.client("ssm")
    lost = Fault("lost", operation="PutParameter", times=1)
    with aws.faulty(lost), pytest.raises(ConnectionClosedError):
        ssm.put_parameter(Name="/a", Value="x", Type="String")
    assert ssm.get_parameter(Name="/a")["Parameter"]["Version"] == 1


def test_a_region_can_be_unreachable(aws: StrictAws) -> None:
    """Nothing in it answers, everything elsewhere does."""
    aws.faults(Fault("unreachable", region=AWAY))
    with pytest.raises(ConnectionClosedError):
        aws.client("ec2", AWAY).describe_images()
    aws.client("ec2").describe_images()


def test_an_answer_can_come_too_late(aws: StrictAws) -> None:
    """A delay beyond the client's patience is a timeout there, and an effect here."""
    hasty = aws.client("ssm", read_timeout=0.2)
    with aws.faulty(Fault("delay", operation="PutParameter", seconds=0.6, times=1)), pytest.raises(ReadTimeoutError):
        hasty.put_parameter(Name="/a", Value="x", Type="String")
    until(lambda: [one for one in aws.calls("ssm", "PutParameter") if one["outcome"] != "running"], "its effect")
    assert aws.client("ssm").get_parameter(Name="/a")["Parameter"]["Value"] == "x"


def test_faults_strike_as_often_as_they_should_and_the_same_again(aws: StrictAws) -> None:
    """A probability is kept to; one seed gives one pattern, whatever was asked before; another seed another."""
    ssm = aws.client("ssm")

    def pattern(seed: int) -> list[bool]:
        aws.faults(Fault("throttle", probability=0.3), seed=seed)
        start = len(aws.calls())
        for number in range(60):
            try:
                ssm.get_parameter(Name=f"/{number}")
            except ClientError:
                continue
        aws.faults()
        return [entry["fault"] == "throttle" for entry in aws.calls(since=start)]

    first = pattern(1)
    assert 8 <= sum(first) <= 30
    assert pattern(1) == first
    assert pattern(2) != first


def test_a_request_that_is_tried_again_draws_anew(aws: StrictAws) -> None:
    """The very same request is struck now and then, not always or never, so that a retry can get through."""
    ssm = aws.client("ssm")
    aws.faults(Fault("throttle", probability=0.5), seed=1)
    for _ in range(20):
        with suppress(ClientError):
            ssm.get_parameter(Name="/same")
    struck = [entry["fault"] == "throttle" for entry in aws.calls()]
    assert (len(struck), 3 <= sum(struck) <= 17) == (20, True)


def test_faults_can_wait_and_end(aws: StrictAws) -> None:
    """`skip` lets calls through first, `times` ends it; patterns match names; an unknown kind is no fault."""
    ec2 = aws.client("ec2")
    aws.faults(Fault("throttle", operation="Describe*", skip=1, times=1))
    for _ in range(4):
        try:
            ec2.describe_snapshots()
        except ClientError:
            continue
    aws.client("ssm").list_documents()
    assert [entry["fault"] for entry in aws.calls()] == ["", "throttle", "", "", ""]
    with pytest.raises(ValueError, match="no such fault"):
        Fault("fire")


def test_the_log_tells_what_was_asked_and_done(aws: StrictAws) -> None:
    """Service, operation, account, region, parameters and outcome; the same request has the same digest."""
    ebs = aws.client("ebs", AWAY, "222222222222")
    name = ebs.start_snapshot(VolumeSize=1, ClientToken="t")["SnapshotId"]
    put(ebs, name, 0, filled(1))
    put(ebs, name, 0, filled(1))
    put(ebs, name, 0, filled(2))
    first, again, other = aws.calls("ebs", "PutSnapshotBlock")
    assert (first["account"], first["region"], first["effect"], first["outcome"]) == ("222222222222", AWAY, True, "ok")
    assert first["digest"] == again["digest"] != other["digest"]
    assert first["params"]["BlockIndex"] == 0
    assert first["params"]["BlockData"]["bytes"] == len(filled(1))
    assert [entry["number"] for entry in aws.calls(since=2)] == [3, 4]


def test_accounts_are_kept_apart(aws: StrictAws) -> None:
    """An access key of twelve digits is that account; a role assumed in another account acts there."""
    assert aws.client("sts", account="222222222222").get_caller_identity()["Account"] == "222222222222"
    role = "arn:aws:iam::333333333333:role/images"
    given = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    import boto3

    there = boto3.client(
        "ec2",
        region_name=REGION,
        endpoint_url=aws.url,
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
    )
    name = image(aws, account="333333333333")
    assert [one["ImageId"] for one in there.describe_images(Owners=["self"])["Images"]] == [name]
    assert not aws.client("ec2").describe_images(Owners=["self"])["Images"]


def test_reset_forgets_everything(aws: StrictAws) -> None:
    """Snapshots, moto's parameters, faults, the log."""
    snapshot(aws)
    aws.client("ssm").put_parameter(Name="/a", Value="x", Type="String")
    aws.faults(Fault("throttle"))
    aws.reset()
    assert (aws.snapshots(), aws.calls()) == ({}, [])
    with refused("ParameterNotFound"):
        aws.client("ssm").get_parameter(Name="/a")


KILLED = """
import os, signal, sys
from tests.strict_aws import StrictAws
from tests.strict_aws.making import filled, put
ebs = StrictAws(sys.argv[1]).client("ebs")
name = ebs.start_snapshot(VolumeSize=1, ClientToken="t")["SnapshotId"]
put(ebs, name, 0, filled(1))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_emulator_outlives_its_clients(tmp_path: Path) -> None:
    """In a process of its own it keeps what a killed client did, and ends with the block."""
    with subprocess(tmp_path) as aws:
        root = {"PYTHONPATH": str(ROOT)}
        run([sys.executable, "-c", KILLED, aws.url], env=root, ok=(-signal.SIGKILL,))
        (only,) = aws.snapshots().values()
        assert (only["state"], only["written"]) == ("pending", [0])
        pid = aws.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
