"""Whole rollouts of EC2 fleets on the durable engine: to the new image, and back when it is ill."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from images.documents import from_json, to_json
from pipelines.desk import Desk, check, desk
from pipelines.durable.dbos import Worker, engine_url
from pipelines.fleet.alarms import firing
from pipelines.grouping import plan_groups
from pipelines.roll import start
from pipelines.rollouts.delegated import GroupWorld
from pipelines.rollouts.groups import GROUPS, group_flows
from pipelines.rollouts.orders import GroupsOrder
from pipelines.rollouts.state import Outcome, Phase
from tests.cloud import DAY
from tests.ec2 import Shop
from tests.rolling import Approves, Notes
from tests.strict_aws import REGION, Fault
from tests.test_ec2_check import Office, office, template

__all__ = ["office"]

pytestmark = pytest.mark.slow
LIMITS = """
[limits]
min_healthy_time = "1s"
healthy_deadline = "8s"
bake_time = "1s"
drain = "1s"
settle = "1s"
budgets = [{ nodes = "100%" }]
"""
WAYS = {
    "surge": "",
    "in_place": 'method = "in_place"\nmax_unavailable = 1\n',
    "root_volume": 'method = "in_place"\nmax_unavailable = 1\n',
}


@contextmanager
def opened(office: Office, way: str) -> Iterator[Desk]:
    """The fleet's desk two days after the old release, its limits short."""
    home = 'regions = ["eu-central-1"]'
    text = office.file.read_text().replace('regions = ["eu-central-1", "us-east-1"]', home)
    text += 'way = "root_volume"\n' if way == "root_volume" else ""
    office.file.write_text(text + LIMITS.replace("[limits]\n", f"[limits]\n{WAYS[way]}"))
    later = office.context.now + 2 * DAY - datetime.now(UTC)
    with desk("shop", office.context, engine=lambda: "", now=lambda: datetime.now(UTC) + later) as at:
        yield at


def rolled(at: Desk) -> Outcome:
    """The outcome of a rollout of the whole fleet."""
    _, outcome = start(at, apply=True)
    assert outcome is not None
    return outcome


def images(at: Shop) -> set[str]:
    at.settle()
    return {at.shown(name)["ImageId"] for name in at.running()}


@pytest.mark.parametrize("way", list(WAYS))
def test_a_fleet_of_machines_is_rolled_to_the_channels_image(office: Office, way: str) -> None:
    """Canary, bake, and the rest; everything about each member stays, and nothing is left over."""
    at = office.at
    made = [at.furnished(unique=way != "surge", root_gib=None if way == "root_volume" else 12), at.instance()]
    with opened(office, way) as fleet, at.aws.faulty(Fault("throttle", probability=0.1), seed=1):
        outcome = rolled(fleet)
        assert {one.phase for one in outcome.members} == {Phase.NEW}, outcome
        assert start(fleet, apply=True)[1] is None
    assert (images(at), len(at.running())) == ({at.image(at.new)}, 2)
    assert (sorted(made) == at.running()) == (way == "root_volume")
    assert not at.leftovers()


@pytest.mark.parametrize("way", list(WAYS))
def test_an_image_that_is_ill_leaves_the_fleet_as_it_was(office: Office, way: str) -> None:
    """Its status check fails: the canary comes back, and the others were never touched."""
    at = office.at
    made = sorted(at.instance() for _ in range(2))
    at.aws.ail(at.image(at.new), "status")
    with opened(office, way) as fleet:
        outcome = rolled(fleet)
        assert outcome.state.failure
        assert Phase.NEW not in {one.phase for one in outcome.members}
        assert [one.handle for one in fleet.members.describe()] == made
    assert not at.leftovers()


def test_an_alarm_fires_where_it_says_so_and_where_nobody_can_say(office: Office) -> None:
    """One that is nowhere, and all of them when they cannot be asked."""
    cloud, places = office.at.cloud, [(office.at.cloud.aws.account, REGION)]
    watch = office.at.aws.client("cloudwatch")
    for name, state in (("quiet", "OK"), ("loud", "ALARM")):
        watch.put_metric_alarm(
            AlarmName=name, MetricName=name, Namespace="shop", Period=60, EvaluationPeriods=1, Threshold=1,
            ComparisonOperator="GreaterThanThreshold", Statistic="Sum",
        )  # fmt: skip
        watch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="a test")
    assert firing(cloud, places, ["quiet", "loud", "absent"]) == ("loud", "absent")
    with office.at.aws.faulty(Fault("denied", operation="*Alarms*")):
        assert firing(cloud, places, ["quiet"]) == ("quiet",)


def carried(at: Desk, order: GroupsOrder, folder: Path) -> Outcome:
    """Carry a rollout of groups on the durable engine."""
    assert at.groups is not None
    world = GroupWorld(at.groups, Notes(), Approves())
    url = engine_url(f"sqlite:///{folder}/ledger.sqlite")
    with Worker.launched(url, group_flows(lambda _fleet: world, lambda: datetime.now(UTC))) as worker:
        return from_json(Outcome, worker.carry(GROUPS, order.rollout, to_json(order)))


@pytest.mark.parametrize("ill", [False, True])
def test_a_group_is_rolled_or_brought_back(office: Office, tmp_path: Path, ill: bool) -> None:
    """The group's own violation asks for it; an ill image is taken back by the service, and said so."""
    at = office.at
    template(at)
    at.settle()
    if ill:
        at.aws.ail(at.image(at.new), "launch")
        at.aws.takes(deadline=1)
    with opened(office, "surge") as fleet:
        order = plan_groups(fleet, check(fleet), "shop-20270101000000-123456")
        assert [one.group.name for one in order.groups] == ["shop"]
        (group,) = order.groups
        quick = replace(group.pacing, checkpoint_percents=(), bake=timedelta(), checkpoint_delay=timedelta())
        outcome = carried(fleet, replace(order, groups=(replace(group, pacing=quick),)), tmp_path)
        assert [one.phase for one in outcome.members] == [Phase.OLD if ill else Phase.NEW], outcome
        if not ill:
            assert not [one for one in check(fleet) if one.violations and one.member.group]
            assert not plan_groups(fleet, check(fleet), "again").groups
    assert images(at) == {at.image(at.old if ill else at.new)}
