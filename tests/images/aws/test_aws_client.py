"""One place makes clients, and nothing of botocore leaves it: what went wrong is told in our own words."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from hardening.foundation import asking
from hardening.foundation.durations import duration
from hardening.foundation.errors import (
    ContentError,
    GoldsmithError,
    LateError,
    MalformedError,
    OutsideError,
    UsageError,
)
from hardening.foundation.settings import Aws
from images.aws.client import AwsError, Client, Clients, DeniedError, UnreachableError, moment
from tests.strict_aws import ACCOUNT, Fault, StrictAws
from tests.support.cloud import HOME, PARTNER
from tests.support.edges import CALLED, CLIENT

SETTINGS = Aws(account=ACCOUNT, region=HOME, attempts=2, timeout=duration("60s"))
IMAGES = {"Owners": ["self"]}


def client(settings: Aws = SETTINGS, service: str = "ec2", region: str = HOME, account: str = "") -> Client:
    return Clients(settings).client(service, region, account)


def failure(action: Callable[[], Any]) -> GoldsmithError:
    """The error that `action` ends with, which is one of ours or the test fails."""
    try:
        action()
    except GoldsmithError as error:
        return error
    raise AssertionError("it did not fail")


def test_a_missing_permission_is_named(aws: StrictAws) -> None:
    """As IAM policies name it, with region and account."""
    aws.faults(Fault("denied", service="ec2", operation="DescribeImages"))
    error = failure(lambda: client().call("DescribeImages", **IMAGES))
    assert isinstance(error, DeniedError)
    assert error.permission == "ec2:DescribeImages"
    assert f"AWS denies ec2:DescribeImages in {HOME} (account {ACCOUNT})" in str(error)
    assert error.exit_code == 3


@pytest.mark.parametrize("kind", ["unreachable", "reset"])
def test_a_region_that_does_not_answer_is_named(aws: StrictAws, kind: str) -> None:
    """After the last try, with a hint at what may be wrong."""
    aws.faults(Fault(kind, region="eu-west-1"))
    error = failure(lambda: client(region="eu-west-1").call("DescribeImages", **IMAGES))
    assert isinstance(error, UnreachableError)
    assert (error.message, error.exit_code) == ("ec2 in eu-west-1 cannot be reached", 4)


def test_an_address_that_nobody_listens_at_is_named(monkeypatch: pytest.MonkeyPatch, aws: StrictAws) -> None:
    """AWS_ENDPOINT_URL is honoured: where it leads nowhere, there is no answer."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert isinstance(failure(lambda: client().call("DescribeImages", **IMAGES)), UnreachableError)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    assert isinstance(failure(lambda: client().call("DescribeImages", **IMAGES)), ContentError | OutsideError)


def test_an_answer_that_comes_too_late_is_none(aws: StrictAws) -> None:
    """The time for one call is the settings'."""
    aws.faults(Fault("delay", operation="DescribeImages", seconds=3))
    late = replace_settings(attempts=1, timeout=duration("1s"))
    assert isinstance(failure(lambda: client(late).call("DescribeImages", **IMAGES)), UnreachableError)


def test_the_services_own_error_keeps_its_code(aws: StrictAws) -> None:
    """So that callers can tell one from another."""
    error = failure(lambda: client().call("DescribeImages", ImageIds=["ami-00000000000000000"]))
    assert isinstance(error, AwsError)
    assert error.code == "InvalidAMIID.NotFound"


def test_an_error_that_its_caller_expects_is_no_answer(aws: StrictAws) -> None:
    """And every other one stays an error."""
    gone = {"ImageIds": ["ami-00000000000000000"]}
    assert client().call_unless("DescribeImages", {"InvalidAMIID.NotFound"}, **gone) is None
    assert isinstance(failure(lambda: client().call_unless("DescribeImages", {"Other"}, **gone)), AwsError)
    assert client().call_unless("DescribeImages", {"Other"}, **IMAGES) is not None


def test_an_answer_that_cannot_be_read_is_an_error_of_the_outside(aws: StrictAws) -> None:
    """A proxy's error page, in the place of an answer in the service's own form."""
    aws.faults(Fault("error", operation="DescribeImages", code="<html>", status=500))
    assert isinstance(failure(lambda: client().call("DescribeImages", **IMAGES)), OutsideError)


def test_a_request_that_the_services_model_does_not_know_is_our_own_mistake(aws: StrictAws) -> None:
    """Checked before it is sent: the emulator never hears of it."""
    error = failure(lambda: client().call("DescribeImages", Owner="self"))
    assert isinstance(error, UsageError)
    assert "Owner" in error.evidence
    assert not aws.calls("ec2", "DescribeImages")


def test_credentials_that_are_missing_or_over_are_told(aws: StrictAws, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hint at how to log in."""
    aws.faults(Fault("error", operation="DescribeImages", code="ExpiredToken", status=403))
    assert "log in again" in failure(lambda: client().call("DescribeImages", **IMAGES)).hint
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    error = failure(lambda: client().call("DescribeImages", **IMAGES))
    assert (error.message, error.exit_code) == ("there are no AWS credentials", 4)


@pytest.mark.parametrize("attempts", [1, 3])
def test_there_is_one_retry_layer_and_it_is_capped(aws: StrictAws, attempts: int) -> None:
    """As many tries as the settings say, no more, whatever is in between."""
    aws.faults(Fault("error", operation="DescribeImages"))
    asked = client(replace_settings(attempts=attempts))
    assert isinstance(failure(lambda: asked.call("DescribeImages", **IMAGES)), AwsError)
    assert len(aws.calls("ec2", "DescribeImages")) == attempts


def test_a_throttled_call_is_tried_again(aws: StrictAws) -> None:
    """And its caller never knows."""
    aws.faults(Fault("throttle", operation="DescribeImages", times=1))
    assert client().call("DescribeImages", **IMAGES)["Images"] == []
    assert len(aws.calls("ec2", "DescribeImages")) == 2


def test_another_account_is_entered_by_its_role(aws: StrictAws) -> None:
    """And what is asked there is asked of that account; without a role there is no way in."""
    role = f"arn:aws:iam::{PARTNER}:role/goldsmith"
    inside = client(replace_settings(roles={PARTNER: role}), service="sts", account=PARTNER)
    assert inside.call("GetCallerIdentity")["Account"] == PARTNER
    assert aws.calls("sts", "AssumeRole")
    assert (CLIENT, "sts:AssumeRole") in CALLED
    error = failure(lambda: client(service="sts", account=PARTNER))
    assert isinstance(error, ContentError)
    assert f"no role to look into account {PARTNER}" in str(error)


def test_waiting_ends(aws: StrictAws) -> None:
    """With an error that says for what, after growing pauses; what comes true ends it before."""
    pauses: list[float] = []
    clients = Clients(replace_settings(wait_for=duration("60s")), pause=pauses.append)
    with pytest.raises(OutsideError, match="the snapshot did not finish in time"):
        clients.until(lambda: None, "the snapshot")
    assert pauses == sorted(pauses)
    assert 60 <= sum(pauses) < 90
    answers = iter([None, "", 7])
    assert clients.until(lambda: next(answers), "seven") == 7


def replace_settings(**changes: Any) -> Aws:
    return SETTINGS.model_copy(update=changes)


def test_no_exception_of_botocore_gets_out(aws: StrictAws) -> None:
    """For each exception class that botocore has: none gets out of the client."""
    import botocore.exceptions as theirs
    from botocore.parsers import ResponseParserError

    class Raising:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def describe_images(self, **request: Any) -> None:
            raise self.error

    kinds = [
        kind for kind in vars(theirs).values()
        if isinstance(kind, type) and issubclass(kind, theirs.BotoCoreError)
    ]  # fmt: skip
    assert len(kinds) > 50
    kinds.append(ResponseParserError)
    for kind in kinds:
        error = kind.__new__(kind)
        Exception.__init__(error, kind.__name__)
        asked = replace_raw(Raising(error))
        assert isinstance(failure(lambda: asked.call("DescribeImages")), GoldsmithError), kind  # noqa: B023


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ({"Volumes": 7}, "Volumes is not a list"),
        ({"Volumes": [{}, 7]}, "Volumes[1] is not what DescribeVolumes shows"),
        ({"Volumes": {"a": {}}}, "Volumes is not a list"),
    ],
)
def test_a_page_of_another_form_names_operation_and_key(aws: StrictAws, answer: Any, what: str) -> None:
    """Whoever asked for it; a list that is not there is an empty one."""
    asked = replace_raw(SimpleNamespace(describe_volumes=lambda **_: answer))
    with pytest.raises(MalformedError) as raised:
        [*asked.pages("DescribeVolumes", "Volumes")]
    assert raised.value.message == f"the answer of ec2:DescribeVolumes in {HOME} is malformed: {what}"
    nothing = replace_raw(SimpleNamespace(describe_volumes=lambda **_: {"Volumes": None}))
    assert [*nothing.pages("DescribeVolumes", "Volumes")] == []


@pytest.mark.parametrize("shown", [[7], [{}], [{"Instances": 7}], [{"Instances": [7]}]])
def test_reservations_without_instances_are_malformed(aws: StrictAws, shown: Any) -> None:
    """Each holds a list of objects."""
    asked = replace_raw(SimpleNamespace(describe_instances=lambda **_: {"Reservations": shown}))
    with pytest.raises(MalformedError, match=r"Reservations\[0\]"):
        [*asked.instances()]


def replace_raw(raw: Any) -> Client:
    return Client(raw, "ec2", ACCOUNT, HOME)


def test_no_question_is_asked_whose_answer_nobody_wants() -> None:
    """After a place that hangs was given up, it gets no more calls."""
    given_up, raw = threading.Event(), MagicMock()
    client = Client(raw, "ec2", ACCOUNT, HOME)
    token = asking._given_up.set(given_up)
    try:
        client.call("DescribeInstances")
        given_up.set()
        with pytest.raises(LateError, match="no longer wanted"):
            client.call("DescribeInstances")
    finally:
        asking._given_up.reset(token)
    assert raw.describe_instances.call_count == 1


@pytest.mark.parametrize(
    "said",
    ["2026-11-28T10:00:00.000Z", "2026-11-28T10:00:00Z", "1764324000", "Sat, 28 Nov 2026 10:00:00 GMT", 1764324000],
)
def test_a_moment_is_read_as_botocore_reads_it(said: str | int) -> None:
    """However a service writes it, and with its time zone."""
    from botocore.utils import parse_timestamp

    assert moment(said) == parse_timestamp(said)
    assert moment(said).utcoffset() == parse_timestamp(said).utcoffset()


def test_what_is_no_moment_is_an_error_of_the_service(aws: StrictAws) -> None:
    """And no exception of ours."""
    with pytest.raises(ValueError, match="nonsense"):
        moment("nonsense")
    with pytest.raises(ValueError, match="13-01"):
        moment("2026-13-01T00:00:00Z")


def test_moments_are_read_without_a_place_for_our_reader(aws: StrictAws, monkeypatch: pytest.MonkeyPatch) -> None:
    """By botocore's own, should a later one have no such place: that is only slower."""
    monkeypatch.delattr("botocore.parsers.ResponseParserFactory.set_parser_defaults")
    volume = aws.client("ec2").create_volume(AvailabilityZone=f"{HOME}a", Size=1)["VolumeId"]
    (shown,) = client().call("DescribeVolumes", VolumeIds=[volume])["Volumes"]
    assert shown["CreateTime"].tzinfo


def test_answers_have_their_moments_read_so(aws: StrictAws, monkeypatch: pytest.MonkeyPatch) -> None:
    """By every client that is made."""
    monkeypatch.setattr("botocore.utils.parse_timestamp", None)
    volume = aws.client("ec2").create_volume(AvailabilityZone=f"{HOME}a", Size=1)["VolumeId"]
    (shown,) = client().call("DescribeVolumes", VolumeIds=[volume])["Volumes"]
    assert shown["CreateTime"].tzinfo is UTC
