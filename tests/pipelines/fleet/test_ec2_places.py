"""A fleet over accounts and regions: one that refuses and one that hangs are named, and the rest is judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation import asking
from hardening.foundation.errors import ContentError, OutsideError
from images.aws.client import Clients, DeniedError
from pipelines.cli.image_output import show
from pipelines.cli.rollout import SEEN_COLUMNS, check_fleets, plan_roll, scan_exit_code, scan_fleets, show_fleets
from pipelines.fleet.ec2 import region_client
from pipelines.fleet.ec2.instances import Ec2Fleet
from pipelines.fleet.ec2.members import firing, group_id, read_fleet
from pipelines.fleet.ec2.observing import look_at
from tests.pipelines.fleet.test_ec2_check import Office, office
from tests.strict_aws import ACCOUNT, REGION, Fault
from tests.strict_aws.making import image
from tests.support.cloud import PARTNER
from tests.support.ec2 import fleet

__all__ = ["office"]

DENIED, HUNG = "eu-west-1", "us-east-1"
REGIONS = (REGION, DENIED, HUNG)
ROLE = f"arn:aws:iam::{PARTNER}:role/goldsmith"


@contextmanager
def late(*stuck: object) -> Iterator[None]:
    """Questions about these places, as their arguments name them, hang: their time is over once all others answered."""
    hangs, now = dict[Future[Any], bool](), [0.0]
    begin = asking._begun

    def begun(ask: Callable[[], Any], given_up: Event) -> Future[Any]:
        answer = begin(ask, given_up)
        hangs[answer] = isinstance(ask, partial) and any(place in ask.args for place in stuck)
        return answer

    def waited(running: Mapping[Future[Any], Any], seconds: float, when: str) -> Any:
        if answering := [one for one in running if not hangs[one]]:
            return wait(answering, return_when=when)
        now[0] += seconds
        return wait([])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(asking, "_begun", begun)
        patched.setattr(asking, "wait", waited)
        patched.setattr(asking, "time", SimpleNamespace(monotonic=lambda: now[0]))
        yield


@contextmanager
def broken(office: Office) -> Iterator[None]:
    """One region denies, and another one never answers before the end of the block."""
    faults = Fault("denied", service="ec2", region=DENIED), Fault("hang", region=HUNG)
    with office.at.aws.faulty(*faults), late((ACCOUNT, HUNG)):
        yield


@pytest.fixture
def wide(office: Office) -> Office:
    """The office's fleet over three regions."""
    office.file.write_text(office.file.read_text().replace(json.dumps(["eu-central-1", HUNG]), json.dumps(REGIONS)))
    return office


def test_a_region_that_denies_and_one_that_hangs_are_named_and_the_rest_is_judged(
    wide: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 4, in the table and as JSON; what hangs is a real call that nobody answers."""
    at = wide.at
    new = at.instance(ImageId=at.image(at.new))
    with broken(wide):
        found, errors = check_fleets("shop", context=wide.context)
        seen, _ = scan_fleets("shop", context=wide.context)
    states = {line.member: line.state for line in found["shop"]}
    unread = {f"{ACCOUNT}/{region}/*" for region in (DENIED, HUNG)}
    assert {name for name, state in states.items() if state == "unread"} == unread
    assert [name.rpartition("/")[2] for name, state in states.items() if state == "within policy"] == [new]
    assert (show_fleets((found, errors), as_json=False), scan_exit_code(seen)) == (4, 4)
    table = " ".join(capsys.readouterr().out.split())
    assert all(f"{ACCOUNT}/{region}" in table for region in (DENIED, HUNG))
    assert f"AWS denies ec2:DescribeInstances in {DENIED}" in table
    assert "no answer within 2m" in table
    show(seen, columns=SEEN_COLUMNS, as_json=False)
    assert "unread: no answer within 2m" in " ".join(capsys.readouterr().out.split())
    show(seen, columns=SEEN_COLUMNS, as_json=True)
    why = {line["member"]: line["why"] for line in json.loads(capsys.readouterr().out) if line["why"]}
    assert why.keys() == unread
    assert why[f"{ACCOUNT}/{HUNG}/*"] == "no answer within 2m"


def test_nothing_is_planned_where_not_all_was_read(wide: Office) -> None:
    """Who was not seen might violate, or be the floor: the error names the places."""
    wide.at.instance()
    with broken(wide), pytest.raises(OutsideError, match="not every region of the fleet can be read") as refused:
        plan_roll("shop", context=wide.context)
    named = [line.partition(":")[0] for line in refused.value.evidence.splitlines()]
    assert named == [f"{ACCOUNT}/{DENIED}", f"{ACCOUNT}/{HUNG}"]


def test_what_hangs_while_running_instances_are_looked_at_is_unread_for_them(wide: Office) -> None:
    """The members are judged by the rest, and no rule that asks for it passes."""
    at = wide.at
    at.instance(ImageId=at.image(at.new))
    (one,) = read_fleet(fleet(), at.cloud).instances
    with at.aws.faulty(Fault("hang", operation="DescribeSecurityGroups")), late(one.where):
        (observed,) = look_at(at.cloud, {"a": one}).values()
    assert observed.now
    assert dict(observed.now.unread) == {"open_group": f"{one.where}: no answer within 2m"}


def test_many_instances_are_read_in_pages_and_few_by_name(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same is found either way, and each listing asks for the longest page."""
    at = office.at
    asked: dict[str, Any] = {"MinCount": 3, "MaxCount": 3}
    at.instance(**asked)
    at.instance(tags={"app": "other"})
    here = fleet(ec2={"regions": [REGION]})
    few, named = read_fleet(here, at.cloud), len(at.aws.calls())
    assert at.aws.calls("ec2", "DescribeInstanceStatus")[-1]["params"]["InstanceIds"]
    monkeypatch.setattr(region_client, "BY_NAME", 2)
    many = read_fleet(here, at.cloud)
    assert [(one.shown.id, one.healthy, [*one.shown.volumes]) for one in many.instances] == [
        (one.shown.id, one.healthy, [*one.shown.volumes]) for one in few.instances
    ]
    assert len(many.instances) == 3
    listed = {one["operation"]: one["params"] for one in at.aws.calls(since=named)}
    assert "InstanceIds" not in listed["DescribeInstanceStatus"]
    assert listed["DescribeVolumes"]["Filters"][0]["Name"] == "attachment.status"
    sizes = {name: said.get("MaxResults") for name, said in listed.items() if "MaxResults" in said}
    assert sizes == dict.fromkeys(
        ("DescribeInstances", "DescribeVolumes", "DescribeInstanceStatus", "DescribeImages"), 1000
    ) | {"DescribeLaunchTemplates": 200}


def test_an_alarm_of_a_region_that_hangs_fires(wide: Office) -> None:
    """As one of which nothing is known."""
    place = (ACCOUNT, HUNG)
    with wide.at.aws.faulty(Fault("hang", region=HUNG)), late(place):
        assert firing(wide.at.cloud, [place], ["errors"]) == ("errors",)


@pytest.mark.parametrize("said", ["", "wrong", "shop-7"])
def test_another_account_is_read_by_its_role_and_external_id(office: Office, said: str) -> None:
    """Side by side with our own; whoever does not say the id that the role asks for reads nothing, and is told why."""
    at = office.at
    own = at.instance(ImageId=at.image(at.new))
    at.aws.guard(ROLE, "shop-7")
    theirs = instance_of(office)
    ids = {PARTNER: said} if said else {}
    aws = at.cloud.aws.model_copy(update={"roles": {PARTNER: ROLE}, "external_ids": ids})
    cloud = replace(at.cloud, settings=at.cloud.settings.model_copy(update={"aws": aws}), clients=Clients(aws))
    two = fleet(ec2={"accounts": [ACCOUNT, PARTNER], "regions": [REGION]})
    found = read_fleet(two, cloud)
    if said != "shop-7":
        assert [one.shown.id for one in found.instances] == [own]
        assert [(one.id, one.why) for one in found.unread] == [
            (f"{PARTNER}/{REGION}", f"AWS denies sts:AssumeRole in {REGION} (account {PARTNER})")
        ]
        with pytest.raises(DeniedError) as denied:
            cloud.client("ec2", REGION, PARTNER).call("DescribeInstances")
        assert "aws.external_ids" in denied.value.hint
        return
    assert {one.where: one.shown.id for one in found.instances} == {
        f"{ACCOUNT}/{REGION}": own, f"{PARTNER}/{REGION}": theirs,
    }  # fmt: skip
    assert not found.unread
    (asked,) = at.aws.calls("sts", "AssumeRole", effect=True)
    assert asked["params"]["ExternalId"] == said


def instance_of(office: Office) -> str:
    """An instance with the fleet's tags in the partner's account, of an image of its own."""
    ec2 = office.at.aws.client("ec2", account=PARTNER)
    registered = image(office.at.aws, "theirs", account=PARTNER)
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "app", "Value": "shop"}]}]
    asked = {"ImageId": registered, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}
    return str(ec2.run_instances(**asked, TagSpecifications=tags)["Instances"][0]["InstanceId"])


def test_a_role_of_another_account_is_refused(office: Office) -> None:
    """What it shows would be told of the wrong account."""
    aws = office.at.cloud.aws.model_copy(update={"roles": {"333333333333": ROLE}})
    with pytest.raises(ContentError, match=f"{ROLE} is not a role of account 333333333333"):
        Clients(aws).client("ec2", REGION, "333333333333")


def test_a_groups_turn_asks_the_groups_own_place_alone(office: Office) -> None:
    """A fleet may stand in twenty."""
    members = Ec2Fleet(fleet(ec2={"regions": REGIONS}), office.at.cloud)

    def asked(group: str) -> set[str]:
        before = len(office.at.aws.calls())
        members.seen(group)
        return {one["region"] for one in office.at.aws.calls("ec2", "DescribeInstances", before)}

    assert asked(group_id(f"{ACCOUNT}/{DENIED}", "web")) == {DENIED}
    assert asked("") == set(REGIONS)
