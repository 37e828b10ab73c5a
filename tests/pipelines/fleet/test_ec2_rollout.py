"""Whole rollouts of EC2 fleets on the durable engine: to the new image, and back when it is ill."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from hardening.foundation.errors import RefusedError
from pipelines.cli.rollout_output import markdown, roll_output
from pipelines.cli.rollout_watch import _status
from pipelines.fleet.ec2.members import firing
from pipelines.fleet.members import Member
from pipelines.fleet.violations import Judged
from pipelines.rollout.approval import approve_plan, read_plan
from pipelines.rollout.rollout_store import newest, tell
from pipelines.rollout.service import automated, back, start
from pipelines.rollout.session import FleetSession, check, fleet_session
from pipelines.rollout.state import Command, Phase, RolloutOutcome, RolloutStage
from pipelines.rollout.whole_plan import plan_all
from tests.pipelines.fleet.test_ec2_check import Office, image, office, template
from tests.strict_aws import REGION, Fault
from tests.support.cloud import DAY
from tests.support.ec2 import Shop

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
ASKS = "auto_promote = false\n"


@contextmanager
def opened(office: Office, way: str) -> Iterator[FleetSession]:
    """The session of the fleet two days after the old release, its limits short."""
    home = 'regions = ["eu-central-1"]'
    text = office.file.read_text().replace('regions = ["eu-central-1", "us-east-1"]', home)
    text += 'way = "root_volume"\n' if way == "root_volume" else ""
    office.file.write_text(text + LIMITS.replace("[limits]\n", f"[limits]\n{WAYS.get(way, ASKS)}"))
    later = office.context.now + 2 * DAY - datetime.now(UTC)
    with fleet_session("shop", office.context, now=lambda: datetime.now(UTC) + later) as at:
        yield at


def rolled(at: FleetSession) -> RolloutOutcome:
    """The outcome of a rollout of the whole fleet."""
    _, outcome = start(at, apply=True, as_owner=True)
    assert outcome is not None
    return outcome


def images(at: Shop) -> set[str]:
    at.settle()
    return {at.shown(name)["ImageId"] for name in at.running()}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("way", list(WAYS))
def test_a_fleet_of_machines_is_rolled_to_the_channels_image(office: Office, way: str) -> None:
    """Canary, bake, and the rest; everything about each member stays, and nothing is left over."""
    at = office.at
    made = [at.furnished(unique=way != "surge", root_gib=None if way == "root_volume" else 12), at.instance()]
    if way == "root_volume":  # what only status checks speak for is waited for
        at.register(made[1], "second")
    with opened(office, way) as fleet, at.aws.faulty(Fault("throttle", probability=0.1), seed=1):
        outcome = rolled(fleet)
        assert {one.phase for one in outcome.members} == {Phase.NEW}, outcome
        assert start(fleet, apply=True, as_owner=True)[1] is None
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


@pytest.mark.parametrize("way", ["surge", "in_place"])
def test_what_aws_refuses_in_the_middle_leaves_the_fleet_as_it_was(office: Office, way: str) -> None:
    """The failure is told by the name of the permission, and the old one serves again."""
    at = office.at
    made = at.instance()
    with opened(office, way) as fleet, at.aws.faulty(Fault("denied", operation="RunInstances")):
        outcome = rolled(fleet)
        assert [one.phase for one in outcome.members] == [Phase.OLD], outcome
        assert "AWS denies ec2:RunInstances" in outcome.state.failure
        assert [(one.handle, one.healthy) for one in fleet.members.describe()] == [(made, True)]
    assert not at.leftovers()


def test_an_image_whose_machines_end_at_once_is_launched_once(office: Office) -> None:
    """It is the image's fault: each further launch would cost, and end like the first."""
    at = office.at
    made = at.instance()
    at.aws.ail(at.image(at.new), "launch")
    before = len(at.aws.calls("ec2", "RunInstances", effect=True))
    with opened(office, "surge") as fleet:
        outcome = rolled(fleet)
    assert [one.phase for one in outcome.members] == [Phase.OLD], outcome
    assert "ended while it started" in outcome.state.failure
    assert len(at.aws.calls("ec2", "RunInstances", effect=True)) - before == 1
    assert at.running() == [made]


@pytest.mark.parametrize("way", list(WAYS))
def test_an_abort_does_not_wait_for_a_machine_that_never_starts(office: Office, way: str) -> None:
    """Time stands still at AWS: only a rollout that asks again and again, and listens meanwhile, comes to its end."""
    at = office.at
    made = at.furnished(unique=way != "surge", root_gib=None if way == "root_volume" else 12)
    last = {"surge": "RunInstances", "in_place": "StopInstances", "root_volume": "CreateReplaceRootVolumeTask"}[way]
    before = len(at.aws.calls("ec2", last))

    def abort() -> None:
        for _ in range(600):
            time.sleep(0.1)
            if len(at.aws.calls("ec2", last)) > before:
                tell(office.context, "shop", Command.ABORT)
                at.cloud.clients.pause = at.aws.advance
                return

    with opened(office, way) as fleet:
        at.aws.freeze()
        at.cloud.clients.pause = time.sleep
        person = threading.Thread(target=abort)
        person.start()
        outcome = rolled(fleet)
        person.join()
        assert [one.phase for one in outcome.members] == [Phase.OLD], outcome
        assert "stopped by abort" in outcome.members[0].note
        assert [(one.handle, one.image) for one in fleet.members.describe()] == [(made, at.image(at.old))]
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


@pytest.mark.parametrize("ill", [False, True])
def test_a_group_is_rolled_or_brought_back(office: Office, ill: bool) -> None:
    """The group's own violation asks for it; an ill image is taken back by the service, and the ledger knows."""
    at = office.at
    template(at)
    at.settle()
    if ill:
        at.aws.ail(at.image(at.new), "launch")
        at.aws.takes(deadline=1)
    with opened(office, "surge") as fleet:
        made, outcome = start(fleet, apply=True, as_owner=True)
        assert outcome is not None
        assert (made.steps, [one.group.name for one in made.groups]) == ((), ["shop"])
        assert [one.phase for one in outcome.members] == [Phase.OLD if ill else Phase.NEW], outcome
        assert [one.phase for one in newest(fleet.context, "shop").members] == [Phase.OLD if ill else Phase.NEW]
        if not ill:
            assert not [one for one in check(fleet) if one.violations and one.member.group]
            assert start(fleet, apply=True, as_owner=True)[1] is None
            done = back(fleet, newest(fleet.context, "shop"))
            assert (done.state.id, done.state.failure) == (f"{outcome.state.id}-back", "")
            assert [one.phase for one in done.members] == [Phase.OLD], done
            with pytest.raises(RefusedError, match="nothing to roll back"):
                back(fleet, newest(fleet.context, "shop"))
    assert images(at) == {at.image(at.old)}


def test_a_group_that_aws_refuses_to_refresh_is_as_it_was(office: Office) -> None:
    """The rollout fails by that, at once, and leaves nothing for a person to take back."""
    at = office.at
    template(at)
    at.settle()
    with opened(office, "surge") as fleet, at.aws.faulty(Fault("denied", operation="StartInstanceRefresh")):
        outcome = rolled(fleet)
        assert [one.phase for one in outcome.members] == [Phase.OLD], outcome
        assert "AWS denies autoscaling:StartInstanceRefresh" in outcome.state.failure
        with pytest.raises(RefusedError, match="nothing to roll back"):
            back(fleet, newest(fleet.context, "shop"))
    assert images(at) == {at.image(at.old)}


def test_a_group_whose_image_is_gone_does_not_go_back(office: Office) -> None:
    """Refused before a rollout is begun for it, with the reason."""
    at = office.at
    template(at)
    at.settle()
    with opened(office, "surge") as fleet:
        start(fleet, apply=True, as_owner=True)
        at.ec2.deregister_image(ImageId=at.image(at.old))
        with pytest.raises(RefusedError, match="no group can go back") as error:
            back(fleet, newest(fleet.context, "shop"))
        assert "is deregistered or disabled" in error.value.evidence
        assert len(fleet.context.ledger.rollouts("shop")) == 1
    assert images(at) == {at.image(at.new)}


def test_a_canary_waits_for_a_person_on_the_durable_engine(office: Office) -> None:
    """`roll.status` says so; after `roll.approve` the rest is rolled."""
    at, scaling = office.at, office.at.aws.client("autoscaling")
    template(at)
    scaling.update_auto_scaling_group(AutoScalingGroupName="shop", DesiredCapacity=2)
    at.settle()
    seen: list[tuple[str, set[str]]] = []

    def approve() -> None:
        for _ in range(600):
            time.sleep(0.1)
            if office.context.ledger.open_rollouts("shop"):
                now = _status(newest(office.context, "shop"))
                if now.stage == RolloutStage.CANARY_APPROVAL:
                    seen.append((now.members[0].note, images(at)))
                    tell(office.context, "shop", Command.APPROVE)
                    return

    with opened(office, "asks") as fleet:
        person = threading.Thread(target=approve)
        person.start()
        _, outcome = start(fleet, apply=True, as_owner=True)
        person.join()
        assert outcome is not None
        assert [one.phase for one in outcome.members] == [Phase.NEW], outcome
    assert seen == [("its canary, 50 % of it, runs the new version", {at.image(at.old), at.image(at.new)})]
    assert images(at) == {at.image(at.new)}


def test_a_group_that_runs_what_nobody_knows_is_taken_over_only_by_name(office: Office) -> None:
    """As a standalone instance is."""
    at = office.at
    template(at, ImageId=image(at.aws, "foreign"))
    at.settle()
    with opened(office, "surge") as fleet:
        with pytest.raises(RefusedError, match="are unknown, more than max_violating_fraction"):
            start(fleet, apply=True, as_owner=True)
        made, _ = start(fleet, apply=False, adopt=["shop"])
    assert [one.group.cannot_roll for one in made.groups] == [""]


def test_a_group_of_which_something_asks_not_to_be_disrupted_is_left_alone(office: Office) -> None:
    """The service knows nothing of the tag, and would replace all of it."""
    at = office.at
    template(at)
    at.settle()
    with opened(office, "surge") as fleet:
        tag = {"Key": fleet.fleet.limits.do_not_disrupt, "Value": "2100-01-01T00:00:00Z"}
        at.ec2.create_tags(Resources=at.running(), Tags=[tag])
        _, outcome = start(fleet, apply=True, as_owner=True)
    assert outcome is not None
    assert [one.phase for one in outcome.members] == [Phase.SKIPPED]
    assert "asks not to be disrupted until 2100-01-01" in outcome.members[0].note
    assert images(at) == {at.image(at.old)}


def test_a_plan_judges_each_member_once(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is judged for the groups holds for those that we step as well; who has changed meanwhile is judged again."""
    at = office.at
    template(at)
    at.instance()
    at.settle()
    judge, asked = FleetSession.judge, list[str]()

    def counted(at: FleetSession, members: Sequence[Member], **how: Any) -> tuple[Judged, ...]:
        asked.extend(member.id for member in members)
        return judge(at, members, **how)

    with opened(office, "surge") as opening:
        moment = opening.now()
        fleet = replace(opening, now=lambda: moment)  # plans say when they would end
        alone, before = fleet.plan(()), check(fleet)
        monkeypatch.setattr(FleetSession, "judge", counted)
        both = plan_all(fleet)
        assert len(both.plan.groups) == 1
        assert (replace(both.plan, groups=()), len(both.plan.steps)) == (alone.plan, 1)
        assert sorted(asked) == sorted({one.member.id for one in before})
        asked.clear()
        stepped = both.plan.steps[0].member
        was = [replace(one, member=replace(one.member, healthy=not one.member.healthy)) for one in before]
        assert fleet.plan((), judged=was).plan == alone.plan
        assert asked == [stepped.id]


def test_an_approved_plan_of_a_group_rolls_it_or_names_what_has_moved(office: Office) -> None:
    """`roll.auto` writes it down and rolls nothing; one member more, and it is void; rolled, it is void as well."""
    at, scaling = office.at, office.at.aws.client("autoscaling")
    template(at)
    at.settle()
    office.file.write_text(office.file.read_text().replace("[ec2]", 'approval = "required"\n[ec2]'))
    with opened(office, "surge") as fleet:
        line = automated(fleet, apply=True)
        file = office.context.settings.state_dir / "plans" / "shop.json"
        assert (line.outcome, str(file) in line.detail, images(at)) == ("waits", True, {at.image(at.old)})
        approved = read_plan(file)
        (step,) = approved.plan.groups
        assert f"| shop | 1 | {approved.groups_seen[0].runs} |" in markdown(roll_output(approved.plan), "ann")
        scaling.update_auto_scaling_group(AutoScalingGroupName="shop", DesiredCapacity=2)
        with pytest.raises(RefusedError) as error:
            start(fleet, apply=True, approved=approved)
        assert error.value.evidence.endswith("shop was to have 1 members and is to have 2")
        scaling.update_auto_scaling_group(AutoScalingGroupName="shop", DesiredCapacity=1)
        with pytest.raises(RefusedError, match="no second person has approved this plan"):
            start(fleet, apply=True, approved=approved)
        approve_plan(replace(office.context, actor="bob@host"), "shop", file)
        hasty = replace(step, pacing=replace(step.pacing, min_healthy_percent=0))
        with pytest.raises(RefusedError) as error:
            start(fleet, apply=True, approved=replace(approved, plan=replace(approved.plan, groups=(hasty,))))
        assert "shop is to be rolled at another pace by the plan" in error.value.evidence
        made, outcome = start(fleet, apply=True, approved=approved)
        assert outcome is not None
        assert [one.phase for one in outcome.members] == [Phase.NEW], outcome
        assert made.groups == (step,)
        with pytest.raises(RefusedError) as error:
            start(fleet, apply=True, approved=approved)
        assert f"the rollout {outcome.state.id} has used this plan already" in error.value.message
    assert images(at) == {at.image(at.new)}


def test_instances_and_a_group_are_one_rollout_that_goes_back_whole(office: Office) -> None:
    """One id, one line in the history; the way back reaches both kinds."""
    at = office.at
    template(at)
    at.instance()
    at.settle()
    with opened(office, "surge") as fleet:
        made, outcome = start(fleet, apply=True, as_owner=True)
        assert outcome is not None
        assert (len(made.steps), len(made.groups)) == (1, 1)
        assert [one.phase for one in outcome.members] == [Phase.NEW, Phase.NEW], outcome
        assert [row.id for row in fleet.context.ledger.rollouts("shop")] == [outcome.state.id]
        assert images(at) == {at.image(at.new)}
        done = back(fleet, newest(fleet.context, "shop"))
        assert (done.state.id, done.state.failure) == (f"{outcome.state.id}-back", "")
        assert [one.phase for one in done.members] == [Phase.OLD, Phase.OLD], done
    assert images(at) == {at.image(at.old)}
