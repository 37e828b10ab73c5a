"""Auto Scaling groups are rolled by instance refreshes that we start once, watch, cancel and take back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError, RefusedError
from images.aws.client import AwsError, DeniedError
from pipelines.fleet.ec2.groups import AutoScalingFleet, owner_of
from pipelines.fleet.ec2.pacing import pacing
from pipelines.fleet.model import Limits
from pipelines.fleet.port import Group, Progress, UnseenError
from tests.strict_aws import Fault, StrictAws
from tests.support.ec2 import Killed, Shop, fleet, killed_after, shop

ROLLOUT = "shop-20270101000000-123456"
LIMITS = Limits.model_validate({"canary": 1, "bake_time": "60s", "min_healthy_time": "5s", "max_surge": 2})


@pytest.fixture
def at(aws: StrictAws, tmp_path: Path) -> Iterator[Shop]:
    """A shop whose ledger is closed in the end."""
    aws.takes(launch=5, check=5, terminate=5, refresh=1)
    made = shop(aws, tmp_path)
    aws.freeze()  # how far a refresh is must not depend on how long a call took
    yield made
    made.cloud.ledger.close()


class Groups:
    """A group of four that runs version 1 of a template, under the port."""

    def __init__(self, at: Shop, version: str = "1", image: str = "") -> None:
        self.at, self.scaling = at, at.aws.client("autoscaling")
        data = {"ImageId": image or at.image(at.old), "InstanceType": "t3.micro"}
        data["MetadataOptions"] = {"HttpTokens": "optional", "HttpPutResponseHopLimit": 3}  # type: ignore[assignment]
        made = at.ec2.create_launch_template(LaunchTemplateName="shop", LaunchTemplateData=data)
        self.template = made["LaunchTemplate"]["LaunchTemplateId"]
        self.scaling.create_auto_scaling_group(
            AutoScalingGroupName="shop", MinSize=0, MaxSize=10, DesiredCapacity=4, VPCZoneIdentifier=at.subnet,
            LaunchTemplate={"LaunchTemplateId": self.template, "Version": version},
            Tags=[{"Key": "app", "Value": "shop", "PropagateAtLaunch": True}],
        )  # fmt: skip
        at.settle()
        self.port = AutoScalingFleet(fleet(), at.cloud)

    @cached_property
    def group(self) -> Group:
        """The group as it was first read: a rollout holds the one of its plan too."""
        (found,) = self.port.groups()
        return found

    def begin(self, pinned: Any = None) -> Any:
        pinned = pinned or self.port.pin(self.group)
        self.port.begin(ROLLOUT, self.group, self.at.target, pinned, pacing(LIMITS, 4, 4))
        return pinned

    def until(self, *wanted: Progress, rollout: str = ROLLOUT) -> Progress:
        """What the refresh comes to."""
        for _ in range(200):
            seen = self.port.watch(rollout, self.group)
            if seen.progress in wanted:
                return seen.progress
            self.at.aws.advance(5)
        raise AssertionError(seen)

    def images(self) -> set[str]:
        self.at.settle()
        return {self.at.shown(name)["ImageId"] for name in self.at.running()}

    def versions(self) -> dict[str, int]:
        """How many members in service there are of each version."""
        (found,) = self.scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        serving = [one for one in found["Instances"] if one["LifecycleState"] == "InService"]
        return dict(Counter(one["LaunchTemplate"]["Version"] for one in serving))

    def setting(self) -> str:
        (found,) = self.scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        return str(found["LaunchTemplate"]["Version"])


def test_a_group_is_refreshed_to_a_new_version_by_number(at: Shop) -> None:
    """The version has the pinned one's settings, the new image and IMDSv2; the group names it in the end."""
    groups = Groups(at)
    assert (groups.group.desired, groups.group.healthy, groups.group.cannot_roll) == (4, 4, "")
    groups.begin()
    assert groups.port.watch(ROLLOUT, groups.group).progress is Progress.RUNNING
    groups.until(Progress.DONE)
    assert (groups.images(), groups.setting()) == ({at.image(at.new)}, "2")
    asked = {"LaunchTemplateId": groups.template, "Versions": ["2"]}
    data = at.ec2.describe_launch_template_versions(**asked)["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    assert data["InstanceType"] == "t3.micro"
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 3


@pytest.mark.parametrize("effects", [1, 2])
def test_beginning_twice_begins_once(at: Shop, effects: int) -> None:
    """Killed after the version or after the start: one version, one refresh."""
    groups = Groups(at)
    pinned = groups.port.pin(groups.group)
    with pytest.raises(Killed), killed_after(effects):
        groups.begin(pinned)
    for _ in range(2):
        groups.begin(pinned)
    assert len(at.aws.calls("autoscaling", "StartInstanceRefresh", effect=True)) == 1
    assert len(at.aws.calls("ec2", "CreateLaunchTemplateVersion", effect=True)) == 1


@pytest.mark.parametrize(
    "forged", [{"ImageId": "another"}, {"UserData": "IyEvYmluL3No"}, {"MetadataOptions": {"HttpTokens": "optional"}}],
    ids=["image", "script", "metadata"],
)  # fmt: skip
def test_a_version_that_only_says_that_we_made_it_starts_nothing(at: Shop, forged: dict[str, Any]) -> None:
    """Who may add versions could else have a rollout start members from one, by the description alone."""
    groups = Groups(at)
    pinned = groups.port.pin(groups.group)
    with pytest.raises(Killed), killed_after(1):
        groups.begin(pinned)
    ours = {"LaunchTemplateId": groups.template, "Versions": ["2"]}
    said = at.ec2.describe_launch_template_versions(**ours)["LaunchTemplateVersions"][0]["VersionDescription"]
    at.ec2.delete_launch_template_versions(**ours)
    data = {"ImageId": at.image(at.new), "MetadataOptions": {"HttpTokens": "required"}} | forged
    data["ImageId"] = at.image(at.old) if data["ImageId"] == "another" else data["ImageId"]
    at.ec2.create_launch_template_version(
        LaunchTemplateId=groups.template, SourceVersion="1", VersionDescription=said, LaunchTemplateData=data
    )
    with pytest.raises(RefusedError, match=f"made it with other {next(iter(forged))}"):
        groups.begin(pinned)
    assert not at.aws.calls("autoscaling", "StartInstanceRefresh")


@pytest.mark.usefixtures("at_once")
def test_lost_answers_and_throttling_begin_once(at: Shop) -> None:
    """The service takes no token for a refresh: ours is known by its version."""
    groups = Groups(at)
    lost = [Fault("lost", operation=name, times=1) for name in ("CreateLaunchTemplateVersion", "StartInstanceRefresh")]
    with at.aws.faulty(*lost, Fault("throttle", probability=0.2), seed=3):
        groups.begin()
    assert len(at.aws.calls("autoscaling", "StartInstanceRefresh", effect=True)) == 1
    groups.until(Progress.DONE)


def test_a_symbolic_version_is_pinned_by_number_first(at: Shop) -> None:
    """AWS brings nothing back to $Latest, so the group names the number that it meant."""
    groups = Groups(at, version="$Latest")
    groups.begin()
    assert groups.setting() == "1"
    groups.until(Progress.RUNNING)
    groups.port.roll_back(ROLLOUT, groups.group, groups.port.pin(groups.group))
    assert groups.until(Progress.ROLLED_BACK) is Progress.ROLLED_BACK
    assert (groups.images(), groups.setting()) == ({at.image(at.old)}, "1")


def test_an_image_by_parameter_is_refused_with_the_reason(at: Shop) -> None:
    """AWS cannot go back to what a parameter said."""
    at.aws.client("ssm").put_parameter(Name="/shop", Value=at.image(at.old), Type="String", DataType="aws:ec2:image")
    assert "from a parameter" in Groups(at, image="resolve:ssm:/shop").group.cannot_roll


def test_a_cancelled_refresh_stops_and_goes_on_when_begun_again(at: Shop) -> None:
    """As pausing and resuming need; what has the new version already is left."""
    groups = Groups(at)
    pinned = groups.begin()
    groups.port.cancel(ROLLOUT, groups.group, pinned)
    groups.port.cancel(ROLLOUT, groups.group, pinned)
    groups.until(Progress.CANCELLED)
    again = f"{ROLLOUT}-2"
    groups.port.begin(again, groups.group, at.target, pinned, pacing(LIMITS, 4, 4))
    assert groups.port.watch(again, groups.group).progress is Progress.RUNNING
    assert groups.until(Progress.DONE) is Progress.DONE
    assert len(at.aws.calls("ec2", "CreateLaunchTemplateVersion", effect=True)) == 1
    assert groups.images() == {at.image(at.new)}


@pytest.mark.parametrize("when", [Progress.RUNNING, Progress.CANCELLED, Progress.DONE])
def test_from_every_state_it_goes_back_to_the_pinned_version(at: Shop, when: Progress) -> None:
    """While it goes on, after a cancel, and after its end; asked twice, it goes back once."""
    groups = Groups(at)
    pinned = groups.begin()
    if when is Progress.CANCELLED:
        at.aws.advance(20)
        groups.port.cancel(ROLLOUT, groups.group, pinned)
    groups.until(when)
    for _ in range(2):
        groups.port.roll_back(ROLLOUT, groups.group, pinned)
    assert groups.until(Progress.ROLLED_BACK) is Progress.ROLLED_BACK
    assert (groups.images(), groups.setting()) == ({at.image(at.old)}, "1")
    groups.port.cancel(ROLLOUT, groups.group, pinned)


@pytest.mark.parametrize("why", ["somebody's", "denied"])
def test_a_refresh_that_aws_refuses_is_not_taken_for_one_that_was_begun(at: Shop, why: str) -> None:
    """There is a version of ours by then, and the group starts from the one before; not so where somebody moved it."""
    groups = Groups(at)
    pinned = groups.port.pin(groups.group)
    if why == "somebody's":
        groups.scaling.start_instance_refresh(AutoScalingGroupName="shop")
    denied = Fault("denied", operation="StartInstanceRefresh")
    with at.aws.faulty(*([denied] if why == "denied" else [])), pytest.raises((AwsError, DeniedError)):
        groups.begin(pinned)
    with pytest.raises(UnseenError, match="no instance refresh of"):
        groups.port.watch(ROLLOUT, groups.group)
    groups.port.roll_back(ROLLOUT, groups.group, pinned)
    assert groups.setting() == "1"
    if why == "denied":
        named = {"LaunchTemplateId": groups.template, "Version": "2"}
        groups.scaling.update_auto_scaling_group(AutoScalingGroupName="shop", LaunchTemplate=named)
        with pytest.raises(OutsideError) as error:
            groups.port.watch(ROLLOUT, groups.group)
        assert not isinstance(error.value, UnseenError)


def test_a_group_that_nothing_was_begun_with_is_where_it_was(at: Shop) -> None:
    """Taking it back, or stopping it, is nothing to do."""
    groups = Groups(at)
    pinned = groups.port.pin(groups.group)
    groups.port.cancel(ROLLOUT, groups.group, pinned)
    groups.port.roll_back(ROLLOUT, groups.group, pinned)
    assert groups.port.watch(ROLLOUT, groups.group).progress is Progress.ROLLED_BACK
    assert not at.aws.calls("autoscaling", "StartInstanceRefresh")


def test_an_alarm_rolls_it_back(at: Shop) -> None:
    """The service does so itself, and we see it."""
    groups = Groups(at)
    watch = at.aws.client("cloudwatch")
    watch.put_metric_alarm(
        AlarmName="errors", MetricName="errors", Namespace="shop", Period=60, EvaluationPeriods=1, Threshold=1,
        ComparisonOperator="GreaterThanThreshold", Statistic="Sum",
    )  # fmt: skip
    pinned = groups.port.pin(groups.group)
    pace = replace(pacing(LIMITS, 4, 4), alarms=("errors",))
    groups.port.begin(ROLLOUT, groups.group, at.target, pinned, pace)
    at.aws.advance(10)
    groups.until(Progress.RUNNING)
    watch.set_alarm_state(AlarmName="errors", StateValue="ALARM", StateReason="errors")
    assert groups.until(Progress.ROLLED_BACK, Progress.DONE) is Progress.ROLLED_BACK
    assert groups.images() == {at.image(at.old)}


def test_a_group_that_somebody_changed_meanwhile_is_not_touched(at: Shop) -> None:
    """The pinned version is what a rollback goes to: where the group has left it, the plan is void."""
    groups = Groups(at)
    pinned = groups.port.pin(groups.group)
    data = {"ImageId": at.image(at.old), "InstanceType": "t3.small"}
    at.ec2.create_launch_template_version(LaunchTemplateId=groups.template, LaunchTemplateData=data)
    named = {"LaunchTemplateId": groups.template, "Version": "2"}
    groups.scaling.update_auto_scaling_group(AutoScalingGroupName="shop", LaunchTemplate=named)
    with pytest.raises(RefusedError, match="version 2"):
        groups.begin(pinned)
    assert not at.aws.calls("autoscaling", "StartInstanceRefresh")


ASKS = pacing(LIMITS, 4, 4)
REST = f"{ROLLOUT}-rest"


def with_canary(at: Shop) -> tuple[Groups, Any]:
    """A group one of whose four members is new, and that is held at what it ran."""
    groups = Groups(at)
    pinned = groups.port.pin(groups.group)
    for _ in range(2):
        groups.port.begin(ROLLOUT, groups.group, at.target, pinned, ASKS.canary)
    groups.until(Progress.DONE)
    assert (groups.setting(), groups.versions()) == ("2", {"1": 3, "2": 1}), "a canary's success is the group's setting"
    for _ in range(2):
        groups.port.hold(ROLLOUT, groups.group, pinned)
    assert groups.setting() == "1"
    return groups, pinned


def test_a_canary_is_one_refresh_and_the_rest_another(at: Shop) -> None:
    """What scales out between them is of the version before; asked twice, each is begun once."""
    groups, pinned = with_canary(at)
    groups.scaling.update_auto_scaling_group(AutoScalingGroupName="shop", DesiredCapacity=5)
    at.settle()
    assert groups.versions() == {"1": 4, "2": 1}
    for _ in range(2):
        groups.port.begin(REST, groups.group, at.target, pinned, ASKS.rest)
    assert groups.until(Progress.DONE, rollout=REST) is Progress.DONE
    at.settle()
    assert (groups.versions(), groups.setting()) == ({"2": 5}, "2")
    assert len(at.aws.calls("autoscaling", "StartInstanceRefresh", effect=True)) == 2
    assert len(at.aws.calls("ec2", "CreateLaunchTemplateVersion", effect=True)) == 1


@pytest.mark.parametrize("rest", ["not begun", "asked back", "fails"])
def test_a_canary_goes_back_whatever_its_rest_does(at: Shop, rest: str) -> None:
    """AWS's rollback of the rest leaves the canary, which is told, and taken back by a refresh to the pinned number."""
    groups, pinned = with_canary(at)
    if rest != "not begun":
        if rest == "fails":
            at.aws.ail(at.image(at.new), "launch")
            at.aws.takes(launch=5, check=5, terminate=5, refresh=1, deadline=60)
        groups.port.begin(REST, groups.group, at.target, pinned, ASKS.rest)
        at.aws.advance(30)
        if rest == "asked back":
            groups.port.roll_back(REST, groups.group, pinned)
        groups.until(Progress.CANCELLED, rollout=REST)
        assert "still runs the new version" in groups.port.watch(REST, groups.group).text
        assert at.image(at.new) in groups.images()
    for _ in range(2):
        groups.port.roll_back(REST, groups.group, pinned)
    assert groups.until(Progress.ROLLED_BACK, rollout=REST) is Progress.ROLLED_BACK
    assert (groups.images(), groups.setting()) == ({at.image(at.old)}, "1")
    last = groups.scaling.describe_instance_refreshes(AutoScalingGroupName="shop")["InstanceRefreshes"][0]
    assert last["DesiredConfiguration"]["LaunchTemplate"]["Version"] == "1"


@pytest.mark.parametrize("late", [ROLLOUT, f"{ROLLOUT}-back", f"{ROLLOUT}-back-back"])
def test_a_rollout_that_is_over_finds_its_way_back_under_a_later_name(at: Shop, late: str) -> None:
    """By the number that was pinned, though newer versions came since."""
    groups = Groups(at)
    pinned = groups.begin()
    groups.until(Progress.DONE)
    at.ec2.create_launch_template_version(
        LaunchTemplateId=groups.template, SourceVersion="2", LaunchTemplateData={"InstanceType": "t3.small"}
    )
    assert groups.port.way_back(late, groups.group, pinned) == ""
    lost = Fault("lost", operation="StartInstanceRefresh", times=1)
    with at.aws.faulty(lost):
        groups.port.roll_back(late, groups.group, pinned)
    assert groups.until(Progress.ROLLED_BACK, rollout=late) is Progress.ROLLED_BACK
    assert (groups.images(), groups.setting()) == ({at.image(at.old)}, "1")
    assert len(at.aws.calls("autoscaling", "StartInstanceRefresh", effect=True)) == 2


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("version", "version 1 of its launch template, which shop ran before, is gone"),
        ("deregistered", "is deregistered or disabled"),
        ("disabled", "is deregistered or disabled"),
        ("number", "version 3, set by somebody else"),
        ("template", "another launch template: somebody else"),
    ],
)
def test_where_there_is_no_way_back_nothing_is_begun(at: Shop, what: str, said: str) -> None:
    """The version or its image is gone, or somebody else has changed the group since: it says which."""
    groups = Groups(at)
    pinned = groups.begin()
    groups.until(Progress.DONE)
    data = {"ImageId": at.image(at.new), "InstanceType": "t3.micro"}
    named = {"LaunchTemplateId": groups.template, "Version": "3"}
    if what == "version":
        at.ec2.modify_launch_template(LaunchTemplateId=groups.template, DefaultVersion="2")
        at.ec2.delete_launch_template_versions(LaunchTemplateId=groups.template, Versions=["1"])
    elif what in ("deregistered", "disabled"):
        change = at.ec2.deregister_image if what == "deregistered" else at.ec2.disable_image
        change(ImageId=at.image(at.old))
    else:
        at.ec2.create_launch_template_version(LaunchTemplateId=groups.template, LaunchTemplateData=data)
        if what == "template":
            made = at.ec2.create_launch_template(LaunchTemplateName="other", LaunchTemplateData=data)
            named = {"LaunchTemplateId": made["LaunchTemplate"]["LaunchTemplateId"], "Version": "1"}
        groups.scaling.update_auto_scaling_group(AutoScalingGroupName="shop", LaunchTemplate=named)
    assert said in groups.port.way_back(f"{ROLLOUT}-back", groups.group, pinned)
    if what != "template":  # of another template the rollout knows nothing: the flow has asked for the way back before
        with pytest.raises(RefusedError, match=re.escape(said)):
            groups.port.roll_back(f"{ROLLOUT}-back", groups.group, pinned)
    assert len(at.aws.calls("autoscaling", "StartInstanceRefresh", effect=True)) == 1


def test_groups_that_share_a_template_keep_their_own_settings(at: Shop) -> None:
    """One runs version 1 (t3.micro), one version 2 (m5.large): each gets a version made of its own."""
    groups = Groups(at)
    data = {"ImageId": at.image(at.old), "InstanceType": "m5.large"}
    at.ec2.create_launch_template_version(LaunchTemplateId=groups.template, LaunchTemplateData=data)
    groups.scaling.create_auto_scaling_group(
        AutoScalingGroupName="shop-large", MinSize=0, MaxSize=4, DesiredCapacity=1, VPCZoneIdentifier=at.subnet,
        LaunchTemplate={"LaunchTemplateId": groups.template, "Version": "2"},
        Tags=[{"Key": "app", "Value": "shop", "PropagateAtLaunch": True}],
    )  # fmt: skip
    at.settle()
    both = {group.name: group for group in groups.port.groups()}
    pinned = {name: groups.port.pin(group) for name, group in both.items()}
    for name, group in both.items():
        groups.port.begin(ROLLOUT, group, at.target, pinned[name], pacing(LIMITS, group.desired, group.desired))
    found = at.ec2.describe_launch_template_versions(LaunchTemplateId=groups.template)["LaunchTemplateVersions"]
    made = {one["VersionNumber"]: one["LaunchTemplateData"]["InstanceType"] for one in found}
    assert made == {1: "t3.micro", 2: "m5.large", 3: "t3.micro", 4: "m5.large"}
    asked = at.aws.calls("autoscaling", "StartInstanceRefresh", effect=True)
    assert {
        one["params"]["AutoScalingGroupName"]: one["params"]["DesiredConfiguration"]["LaunchTemplate"]["Version"]
        for one in asked
    } == {"shop": "3", "shop-large": "4"}
    for name, group in both.items():
        groups.port.begin(ROLLOUT, group, at.target, pinned[name], pacing(LIMITS, group.desired, group.desired))
    assert len(at.aws.calls("autoscaling", "StartInstanceRefresh", effect=True)) == 2, "each found its own"


@pytest.mark.parametrize(
    ("tag", "value", "said"),
    [
        ("eks:nodegroup-name", "workers", "belongs to EKS: set the node group's"),
        ("kubernetes.io/cluster/prod", "owned", "belongs to EKS"),
        ("AmazonECSManaged", "", "belongs to an ECS capacity provider: drain the container instances"),
        ("aws:cloudformation:stack-name", "shop", "belongs to CloudFormation: let the stack take the image"),
        ("managed-by", "Terraform", "belongs to Terraform: let it take the image"),
    ],
)
def test_a_group_that_another_tool_owns_is_refused_with_a_way_to_go_on(
    at: Shop, tag: str, value: str, said: str
) -> None:
    """It would set the template back, or lose what runs on the instances."""
    groups = Groups(at)
    owned = {"Key": tag, "Value": value, "PropagateAtLaunch": True}
    owned |= {"ResourceId": "shop", "ResourceType": "auto-scaling-group"}
    groups.scaling.create_or_update_tags(Tags=[owned])
    assert said in groups.group.cannot_roll


def test_a_tool_that_leaves_the_template_to_us_is_said_by_a_tag() -> None:
    """Not so where pods and tasks would be lost."""
    assert owner_of({"managed-by": "terraform", "dev.goldsmith.roll": "yes"}) == ""
    assert "EKS" in owner_of({"eks:cluster-name": "prod", "dev.goldsmith.roll": "yes"})
    assert owner_of({"app": "shop", "created-by": "ann"}) == ""
