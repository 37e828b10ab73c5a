"""The emulator's instance refreshes go on as Auto Scaling's: within percentages, over checkpoints, back on alarms."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError

from tests.strict_aws import REGION, Fault, StrictAws
from tests.strict_aws.making import image, refused

Preferences = dict[str, Any]
SURGE = {"MinHealthyPercentage": 100, "MaxHealthyPercentage": 125}


@pytest.fixture
def scaling(aws: StrictAws) -> Any:
    """A launch takes ten seconds of the emulator's clock."""
    aws.takes(launch=10, check=10, terminate=10, refresh=1, target=10)
    return aws.client("autoscaling")


class Group:
    """A group of four from version 1 of a template whose version 2 has a newer image."""

    def __init__(self, aws: StrictAws, version: str = "1", size: int = 4, **how: Any) -> None:
        self.aws, self.scaling, self.ec2 = aws, aws.client("autoscaling"), aws.client("ec2")
        self.old, self.new = image(aws, "old"), image(aws, "new")
        made = self.ec2.create_launch_template(LaunchTemplateName="t", LaunchTemplateData={"ImageId": self.old})
        self.template = made["LaunchTemplate"]["LaunchTemplateId"]
        self.ec2.create_launch_template_version(
            LaunchTemplateId=self.template, LaunchTemplateData={"ImageId": self.new}
        )
        self.scaling.create_auto_scaling_group(
            AutoScalingGroupName="g", MinSize=0, MaxSize=20, DesiredCapacity=size, HealthCheckGracePeriod=20,
            AvailabilityZones=[f"{REGION}a", f"{REGION}b"],
            LaunchTemplate={"LaunchTemplateId": self.template, "Version": version}, **how,
        )  # fmt: skip
        aws.freeze()
        self.pass_time(30)

    def pass_time(self, seconds: int) -> None:
        self.aws.advance(seconds)
        self.shown()

    def shown(self) -> dict[str, Any]:
        return dict(self.scaling.describe_auto_scaling_groups()["AutoScalingGroups"][0])

    def start(self, desired: Any = None, **preferences: Any) -> str:
        named = {"LaunchTemplate": {"LaunchTemplateId": self.template, "Version": "2"}} if desired is None else desired
        asked = {"AutoScalingGroupName": "g", "DesiredConfiguration": named, "Preferences": preferences}
        found = self.scaling.start_instance_refresh(**{name: value for name, value in asked.items() if value})
        return str(found["InstanceRefreshId"])

    def refresh(self) -> dict[str, Any]:
        return dict(self.scaling.describe_instance_refreshes(AutoScalingGroupName="g")["InstanceRefreshes"][0])

    def status(self) -> str:
        return str(self.refresh()["Status"])

    def until(self, status: str, most: int = 400) -> int:
        """Seconds until the refresh has this status."""
        for seconds in range(most):
            if self.status() == status:
                return seconds
            self.aws.advance(1)
        raise AssertionError(self.refresh())

    def versions(self) -> Counter[str]:
        """How many members in service there are of each version."""
        members = self.shown()["Instances"]
        return Counter(one["LaunchTemplate"]["Version"] for one in members if one["LifecycleState"] == "InService")

    def counts(self) -> tuple[int, int]:
        """How many are in service, and how many at all that do not go."""
        states = Counter(one["LifecycleState"] for one in self.shown()["Instances"])
        return states["InService"], states["InService"] + states["Pending"]

    def images(self) -> Counter[str]:
        running = [{"Name": "instance-state-name", "Values": ["running"]}]
        found = self.ec2.describe_instances(Filters=running)["Reservations"]
        return Counter(one["ImageId"] for reservation in found for one in reservation["Instances"])


def test_a_refresh_replaces_the_members(aws: StrictAws, scaling: Any) -> None:
    """Pending, InProgress, Successful; the group has the new version then, and none of the old instances is left."""
    group = Group(aws)
    before = {one["InstanceId"] for one in group.shown()["Instances"]}
    name = group.start(**SURGE)
    first = group.refresh()
    assert (first["InstanceRefreshId"], first["Status"]) == (name, "Pending")
    aws.advance(2)
    assert (group.status(), group.refresh()["PercentageComplete"], group.refresh()["InstancesToUpdate"]) == (
        "InProgress",
        0,
        4,
    )
    assert group.shown()["LaunchTemplate"]["Version"] == "1"
    group.until("Successful")
    assert (group.refresh()["PercentageComplete"], group.refresh()["InstancesToUpdate"]) == (100, 0)
    assert group.shown()["LaunchTemplate"]["Version"] == "2"
    group.pass_time(15)
    assert group.versions() == {"2": 4}
    assert group.images() == {group.new: 4}
    assert before.isdisjoint(one["InstanceId"] for one in group.shown()["Instances"])


def test_members_are_spread_and_show_their_own_version(aws: StrictAws, scaling: Any) -> None:
    """As many in one zone as in the other, Pending first; a changed setting leaves those that are there."""
    group = Group(aws)
    assert Counter(one["AvailabilityZone"] for one in group.shown()["Instances"]) == {f"{REGION}a": 2, f"{REGION}b": 2}
    named = {"LaunchTemplateId": group.template, "Version": "$Latest"}
    scaling.update_auto_scaling_group(AutoScalingGroupName="g", LaunchTemplate=named, DesiredCapacity=6)
    assert group.counts() == (4, 6)
    group.pass_time(15)
    assert group.versions() == {"1": 4, "2": 2}
    assert group.images() == {group.old: 4, group.new: 2}


@pytest.mark.parametrize(
    ("preferences", "floor", "ceiling"),
    [
        ({"MinHealthyPercentage": 100, "MaxHealthyPercentage": 150}, 4, 6),
        ({"MinHealthyPercentage": 100, "MaxHealthyPercentage": 100}, 4, 5),
        ({"MinHealthyPercentage": 50, "MaxHealthyPercentage": 100}, 2, 4),
        ({"MinHealthyPercentage": 50}, 2, 4),
        ({}, 3, 4),
    ],
)
def test_a_refresh_keeps_within_the_healthy_percentages(
    aws: StrictAws, scaling: Any, preferences: Preferences, floor: int, ceiling: int
) -> None:
    """As many stay in service as the minimum says, and no more run than the maximum says; one more or less where both
    could not be kept."""
    group = Group(aws)
    group.start(**preferences)
    seen = []
    while group.status() in {"Pending", "InProgress"}:
        seen.append(group.counts())
        aws.advance(1)
    assert group.status() == "Successful"
    assert min(served for served, _ in seen) == floor
    assert max(there for _, there in seen) == ceiling


def test_warmup_is_waited_for(aws: StrictAws, scaling: Any) -> None:
    """The health check grace period, unless another warmup is said, passes before a replacement counts."""
    group = Group(aws, size=1)
    group.start(MinHealthyPercentage=100, MaxHealthyPercentage=200)
    assert 30 <= group.until("Successful") <= 35
    group.pass_time(15)
    group.start(MinHealthyPercentage=100, MaxHealthyPercentage=200, InstanceWarmup=100)
    assert 110 <= group.until("Successful") <= 115


def test_a_replacement_that_is_not_warm_does_not_count_as_healthy(aws: StrictAws, scaling: Any) -> None:
    """No further member goes for it, though it is in service."""
    group = Group(aws)
    group.start(MinHealthyPercentage=50, InstanceWarmup=60)
    group.pass_time(60)
    assert group.versions() == {"1": 2, "2": 2}
    group.pass_time(20)
    assert group.versions()["1"] == 0


def test_checkpoints_pause_the_refresh(aws: StrictAws, scaling: Any) -> None:
    """Not more than the checkpoint's share is new until its delay has passed."""
    group = Group(aws)
    group.start(MinHealthyPercentage=0, CheckpointPercentages=[25, 100], CheckpointDelay=200, InstanceWarmup=0)
    group.pass_time(150)
    assert (group.status(), group.refresh()["PercentageComplete"], group.versions()["2"]) == ("InProgress", 25, 1)
    group.pass_time(100)
    assert group.refresh()["PercentageComplete"] == 100
    group.until("Successful")


def test_a_last_checkpoint_below_a_hundred_ends_the_refresh_there(aws: StrictAws, scaling: Any) -> None:
    """Successful, the rest let be, and the group's settings are new.

    A second refresh, skipping what matches, replaces the rest; rolled back, it leaves what the first one has replaced.
    """
    group = Group(aws)
    group.start(**SURGE, CheckpointPercentages=[25], CheckpointDelay=0, InstanceWarmup=0)
    group.until("Successful")
    group.pass_time(15)
    assert (group.refresh()["PercentageComplete"], group.versions()) == (25, {"1": 3, "2": 1})
    assert group.shown()["LaunchTemplate"]["Version"] == "2"
    named = {"LaunchTemplateId": group.template, "Version": "1"}
    scaling.update_auto_scaling_group(AutoScalingGroupName="g", LaunchTemplate=named)
    group.start(**SURGE, SkipMatching=True, InstanceWarmup=0)
    group.pass_time(30)
    scaling.rollback_instance_refresh(AutoScalingGroupName="g")
    group.until("RollbackSuccessful")
    group.pass_time(15)
    assert group.versions() == {"1": 3, "2": 1}


def test_matching_members_are_skipped(aws: StrictAws, scaling: Any) -> None:
    """A second refresh to the same version is successful at once and replaces nothing; without skipping it does."""
    group = Group(aws)
    group.start(**SURGE)
    group.until("Successful")
    group.pass_time(15)
    before = {one["InstanceId"] for one in group.shown()["Instances"]}
    group.start(SkipMatching=True)
    aws.advance(2)
    assert group.status() == "Successful"
    assert {one["InstanceId"] for one in group.shown()["Instances"]} == before


def test_the_bake_time_is_waited_for(aws: StrictAws, scaling: Any) -> None:
    group = Group(aws, size=1)
    group.start(BakeTime=100, InstanceWarmup=0)
    group.until("Baking")
    assert group.shown()["LaunchTemplate"]["Version"] == "1"
    assert 95 <= group.until("Successful") <= 105


@pytest.mark.parametrize("auto", [True, False])
def test_an_alarm_ends_a_refresh(aws: StrictAws, scaling: Any, auto: bool) -> None:
    """During the bake too: it is rolled back where that was asked for, and has failed otherwise."""
    group, watch = Group(aws), aws.client("cloudwatch")
    watch.put_metric_alarm(
        AlarmName="errors", MetricName="e", Namespace="n", Statistic="Sum", Period=60, EvaluationPeriods=1,
        Threshold=1, ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    group.start(**SURGE, BakeTime=100, AutoRollback=auto, AlarmSpecification={"Alarms": ["errors"]})
    group.until("Baking")
    watch.set_alarm_state(AlarmName="errors", StateValue="ALARM", StateReason="test")
    assert group.status() == ("RollbackInProgress" if auto else "Failed")
    assert "errors" in group.refresh()["StatusReason"]
    if auto:
        assert group.refresh()["RollbackDetails"]["PercentageCompleteOnRollback"] == 100
        group.until("RollbackSuccessful")
        assert group.refresh()["PercentageComplete"] == 0
    group.pass_time(15)
    assert group.versions() == {"1" if auto else "2": 4}
    assert group.shown()["LaunchTemplate"]["Version"] == "1"


@pytest.mark.parametrize("ailment", ["status", "launch"])
@pytest.mark.parametrize("auto", [True, False])
def test_a_refresh_to_a_bad_image_fails(aws: StrictAws, scaling: Any, ailment: str, auto: bool) -> None:
    """After an hour without a healthy replacement; the old members have stayed."""
    group = Group(aws)
    aws.ail(group.new, ailment)
    group.start(**SURGE, AutoRollback=auto)
    for _ in range(70):
        aws.advance(60)
        assert group.versions()["1"] == 4
    assert group.status() == ("RollbackSuccessful" if auto else "Failed")
    assert group.images() == {group.old: 4}


def test_targets_must_be_healthy_where_the_group_goes_by_them(aws: StrictAws, scaling: Any) -> None:
    """With health checks of load balancers; the old member's connections drain before it ends."""
    arn = balanced(aws)
    group = Group(aws, size=1, TargetGroupARNs=[arn], HealthCheckType="ELB")
    aws.ail(group.new, "target")
    group.start(**SURGE)
    group.pass_time(100)
    assert (group.status(), group.refresh()["PercentageComplete"]) == ("InProgress", 0)
    aws.cure(group.new)
    group.until("Successful")
    health = aws.client("elbv2").describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
    assert sorted(one["TargetHealth"]["State"] for one in health) == ["draining", "healthy"]
    assert group.images() == {group.old: 1, group.new: 1}
    group.pass_time(320)
    assert group.images() == {group.new: 1}


def balanced(aws: StrictAws) -> str:
    """A target group that a load balancer's listener sends to."""
    ec2, elb = aws.client("ec2"), aws.client("elbv2")
    subnets = [one["SubnetId"] for one in ec2.describe_subnets()["Subnets"]]
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    arn = elb.create_target_group(Name="t", Protocol="HTTP", Port=80, VpcId=vpc)["TargetGroups"][0]["TargetGroupArn"]
    load = elb.create_load_balancer(Name="lb", Subnets=subnets)["LoadBalancers"][0]["LoadBalancerArn"]
    forward = [{"Type": "forward", "TargetGroupArn": arn}]
    elb.create_listener(LoadBalancerArn=load, Protocol="HTTP", Port=80, DefaultActions=forward)
    return str(arn)


def test_a_cancelled_refresh_stays_where_it_is(aws: StrictAws, scaling: Any) -> None:
    """What is on its way is waited for; the group keeps its settings, and a new refresh may begin."""
    group = Group(aws)
    with refused("ActiveInstanceRefreshNotFound"):
        scaling.cancel_instance_refresh(AutoScalingGroupName="g")
    name = group.start(**SURGE)
    group.pass_time(45)
    assert scaling.cancel_instance_refresh(AutoScalingGroupName="g")["InstanceRefreshId"] == name
    assert group.status() == "Cancelling"
    with refused("InstanceRefreshInProgress"):
        group.start()
    group.until("Cancelled")
    group.pass_time(100)
    assert group.versions() == {"1": 2, "2": 2}
    assert group.shown()["LaunchTemplate"]["Version"] == "1"
    group.start(**SURGE, SkipMatching=True)
    group.until("Successful")
    group.pass_time(15)
    assert group.versions() == {"2": 4}
    listed = scaling.describe_instance_refreshes(AutoScalingGroupName="g")["InstanceRefreshes"]
    assert [one["Status"] for one in listed] == ["Successful", "Cancelled"]


def test_a_refresh_is_rolled_back_on_request(aws: StrictAws, scaling: Any) -> None:
    """To the exact version that the group had; the percentage goes back to nothing."""
    group = Group(aws)
    group.start(**SURGE)
    group.pass_time(75)
    assert (group.refresh()["PercentageComplete"], group.versions()) == (50, {"1": 2, "2": 3})
    scaling.rollback_instance_refresh(AutoScalingGroupName="g")
    group.until("RollbackSuccessful")
    group.pass_time(15)
    assert (group.versions(), group.refresh()["PercentageComplete"]) == ({"1": 4}, 0)
    with refused("ActiveInstanceRefreshNotFound"):
        scaling.rollback_instance_refresh(AutoScalingGroupName="g")


@pytest.mark.parametrize("why", ["$Latest", "$Default", "nothing desired"])
def test_what_cannot_be_rolled_back_is_not(aws: StrictAws, scaling: Any, why: str) -> None:
    """A group of the latest or default version, and a refresh without a desired configuration; AutoRollback neither."""
    group = Group(aws, version="1" if why == "nothing desired" else why)
    desired = {} if why == "nothing desired" else None
    with refused("ValidationError"):
        group.start(desired, AutoRollback=True)
    group.start(desired)
    with refused("IrreversibleInstanceRefresh"):
        scaling.rollback_instance_refresh(AutoScalingGroupName="g")


def test_a_group_of_a_parameters_image_cannot_be_rolled_back(aws: StrictAws, scaling: Any) -> None:
    group = Group(aws)
    aws.client("ssm").put_parameter(Name="/stable", Type="String", Value=group.old, DataType="aws:ec2:image")
    data = {"ImageId": "resolve:ssm:/stable"}
    group.ec2.create_launch_template_version(LaunchTemplateId=group.template, LaunchTemplateData=data)
    named = {"LaunchTemplateId": group.template, "Version": "3"}
    scaling.update_auto_scaling_group(AutoScalingGroupName="g", LaunchTemplate=named)
    group.start()
    with refused("IrreversibleInstanceRefresh"):
        scaling.rollback_instance_refresh(AutoScalingGroupName="g")


@pytest.mark.parametrize(
    "preferences",
    [
        {"MaxHealthyPercentage": 110},
        {"MinHealthyPercentage": 50, "MaxHealthyPercentage": 200},
        {"MinHealthyPercentage": 101},
        {"CheckpointDelay": 10},
        {"CheckpointPercentages": [50, 20]},
        {"CheckpointPercentages": [50, 50]},
        {"CheckpointPercentages": [101]},
        {"BakeTime": 172801},
    ],
)
def test_wrong_preferences_are_refused(aws: StrictAws, scaling: Any, preferences: Preferences) -> None:
    group = Group(aws, size=0)
    with refused("ValidationError"):
        group.start(**preferences)


def test_a_refresh_needs_a_group_and_a_version_that_are_there(aws: StrictAws, scaling: Any) -> None:
    group = Group(aws, size=0)
    with refused("ValidationError"):
        group.start({"LaunchTemplate": {"LaunchTemplateId": group.template, "Version": "3"}})
    group.ec2.disable_image(ImageId=group.new)
    with refused("ValidationError"):
        group.start()
    with refused("ValidationError"):
        scaling.start_instance_refresh(AutoScalingGroupName="absent")


@pytest.mark.parametrize("kept", ["protected", "standby"])
@pytest.mark.parametrize(("how", "end"), [("Wait", "Failed"), ("Ignore", "Successful"), ("take", "Successful")])
def test_kept_members_are_waited_for_ignored_or_replaced(
    aws: StrictAws, scaling: Any, kept: str, how: str, end: str
) -> None:
    """Members protected from scale-in, and in standby, as the preferences say; waiting ends after an hour."""
    group = Group(aws, size=2)
    name = group.shown()["Instances"][0]["InstanceId"]
    if kept == "protected":
        scaling.set_instance_protection(AutoScalingGroupName="g", InstanceIds=[name], ProtectedFromScaleIn=True)
        preferences = {"ScaleInProtectedInstances": "Refresh" if how == "take" else how}
    else:
        scaling.enter_standby(AutoScalingGroupName="g", InstanceIds=[name], ShouldDecrementDesiredCapacity=True)
        preferences = {"StandbyInstances": "Terminate" if how == "take" else how}
    group.start(**SURGE, **preferences)
    for _ in range(70):
        aws.advance(60)
        group.shown()
    assert group.status() == end
    shown = [{"Name": "instance-id", "Values": [name]}]
    assert bool(group.ec2.describe_instances(Filters=shown)["Reservations"]) == (how != "take")


def test_a_lost_answer_has_started_a_refresh(aws: StrictAws, scaling: Any) -> None:
    """There is no ClientToken: the second request is refused, and the first is found by describing."""
    group = Group(aws, size=1)
    lost = Fault("lost", operation="StartInstanceRefresh", times=1)
    with aws.faulty(lost), pytest.raises(ConnectionClosedError):
        group.start()
    with refused("InstanceRefreshInProgress"):
        group.start()
    assert group.refresh()["DesiredConfiguration"]["LaunchTemplate"]["Version"] == "2"


@pytest.mark.parametrize("operation", ["StartInstanceRefresh", "DescribeInstanceRefreshes", "CancelInstanceRefresh"])
def test_refreshes_are_throttled(aws: StrictAws, scaling: Any, operation: str) -> None:
    group = Group(aws, size=0)
    act = {
        "StartInstanceRefresh": group.start,
        "DescribeInstanceRefreshes": group.refresh,
        "CancelInstanceRefresh": lambda: scaling.cancel_instance_refresh(AutoScalingGroupName="g"),
    }[operation]
    with aws.faulty(Fault("throttle", operation=operation)), refused("Throttling"):
        act()


def test_refreshes_are_listed_in_pages(aws: StrictAws, scaling: Any) -> None:
    group = Group(aws, size=0)
    names = []
    for _ in range(3):
        names.append(group.start())
        group.until("Successful")
    first = scaling.describe_instance_refreshes(AutoScalingGroupName="g", MaxRecords=2)
    assert [one["InstanceRefreshId"] for one in first["InstanceRefreshes"]] == names[:0:-1]
    rest = scaling.describe_instance_refreshes(AutoScalingGroupName="g", MaxRecords=2, NextToken=first["NextToken"])
    assert [one["InstanceRefreshId"] for one in rest["InstanceRefreshes"]] == names[:1]
