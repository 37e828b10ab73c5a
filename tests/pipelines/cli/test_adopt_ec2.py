"""`adopt` over machines at EC2: what is found is shown, one file is written, and a plan names what is out of policy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import ContentError, OutsideError, RefusedError, UsageError
from hardening.foundation.settings import Judging
from images.aws.release_store import AwsStore
from images.context import Context
from images.documents import to_json
from images.release.channels import promote
from pipelines.cli.adopt import AdoptLine, in_cloud, show_adopted
from pipelines.cli.adopt_ec2 import adopt_ec2
from pipelines.cli.rollout_output import RollOutput, roll_output
from pipelines.fleet.catalog import load_fleet
from pipelines.rollout.session import fleet_session
from pipelines.rollout.whole_plan import plan_all
from tests.pipelines.fleet.test_ec2_permissions import ACTIONS, listening
from tests.strict_aws import REGION, Fault, StrictAws
from tests.strict_aws.making import image
from tests.support.cloud import DAY, at
from tests.support.ec2 import NAME, Shop, shop
from tests.support.publishing import gate

OTHER = "us-east-1"


@dataclass
class Unmanaged:
    """A shop that no fleet selects yet, in two regions, and a content root for what is drafted."""

    at: Shop
    context: Context
    root: Path

    def adopt(self, *what: str, **how: Any) -> AdoptLine:
        (line,) = adopt_ec2(what, context=self.context, **how)
        return line

    def plan(self, fleet: str) -> RollOutput:
        """What a rollout would do two days after the older release."""
        with fleet_session(fleet, self.context, now=lambda: self.context.now + 2 * DAY) as opened:
            return roll_output(plan_all(opened).plan)

    def instance_in(self, region: str, name: str, **tags: str) -> str:
        """An instance of an image in a region."""
        asked = {"ImageId": name, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}
        tagged = [{"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]
        ec2 = self.at.aws.client("ec2", region)
        made = ec2.run_instances(**asked, TagSpecifications=tagged)["Instances"][0]["InstanceId"]
        self.at.settle()
        return str(made)

    def group(self, name: str, image_id: str, **more: Any) -> None:
        """An Auto Scaling group of one, with these tags and settings."""
        tags = more.pop("tags", {"app": "shop"})
        data = {"ImageId": image_id, "InstanceType": "t3.micro"}
        made = self.at.ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)["LaunchTemplate"]
        named = {"LaunchTemplateId": made["LaunchTemplateId"], "Version": "1"}
        mixed = more.pop("mixed", False)
        template = {"LaunchTemplate": {"LaunchTemplateSpecification": named}} if mixed else named
        self.at.aws.client("autoscaling").create_auto_scaling_group(
            AutoScalingGroupName=name, MinSize=0, MaxSize=3, DesiredCapacity=1, VPCZoneIdentifier=self.at.subnet,
            Tags=[{"Key": key, "Value": value, "PropagateAtLaunch": True} for key, value in tags.items()],
            **{"MixedInstancesPolicy" if mixed else "LaunchTemplate": template},
        )  # fmt: skip
        self.at.settle()


@pytest.fixture
def unmanaged(aws: StrictAws, tmp_path: Path) -> Iterator[Unmanaged]:
    """The newer release is stable."""
    made = shop(aws, tmp_path, (OTHER,))
    promote(AwsStore(at(made.cloud, made.cloud.now + DAY)), NAME, "default", gate())
    root = tmp_path / "content"
    root.mkdir()
    more = {"content": (root,), "judging": Judging(roots=(root,))}
    context = Context(made.cloud.settings.model_copy(update=more), made.cloud.now, lambda: "", lambda: "", actor="ann")
    context.__dict__.update(ledger=made.cloud.ledger, cloud=made.cloud)
    yield Unmanaged(made, context, root)
    made.cloud.ledger.close()


def test_a_planted_fleet_is_adopted_and_the_plan_names_only_what_is_out_of_policy(
    unmanaged: Unmanaged, capsys: pytest.CaptureFixture[str]
) -> None:
    """Instances within policy and out of it, in two regions, a group, one of a stranger's image, and one untagged."""
    shop_at, tags = unmanaged.at, {"app": "shop", "owner": "web-team"}
    good = shop_at.instance(ImageId=shop_at.image(shop_at.new), tags=tags)
    old = shop_at.instance(tags=tags)
    foreign = shop_at.instance(ImageId=image(shop_at.aws, "foreign"), tags=tags)
    untagged = shop_at.instance(tags={"app": "other"})
    there = unmanaged.instance_in(OTHER, shop_at.image(shop_at.old, OTHER), **tags)
    unmanaged.group("shop-web", shop_at.image(shop_at.old), tags=tags)
    (inside,) = {*shop_at.running()} - {good, old, foreign, untagged}

    with listening() as asked:
        line = unmanaged.adopt("ec2:app=shop")
    assert not asked - ACTIONS["fleet.check"]
    assert not list(unmanaged.root.rglob("*.toml"))
    assert {one.member for one in line.found} == {good, old, foreign, there, inside, "Auto Scaling group shop-web"}
    show_adopted([line], as_json=False)
    printed = capsys.readouterr()
    assert line.text in printed.out
    assert f"to be written: {unmanaged.root}/pipelines/fleets/shop.toml" in printed.out
    assert "nothing was written; --apply writes the file" in printed.err
    show_adopted([line], as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["written"] is False

    written = unmanaged.adopt("ec2:app=shop", apply=True)
    assert (written.written, written.files) == (True, line.files)
    fleet = load_fleet(unmanaged.context.settings.roots, "shop")
    assert (fleet.owner, fleet.selector, fleet.replacement.definition) == ("web-team", {"app": "shop"}, NAME)
    assert (fleet.ec2.regions, fleet.ec2.accounts, fleet.limits.method) == ((REGION, OTHER), (), "surge")
    assert written.next == ("./goldsmith fleet.check shop", "./goldsmith roll.plan shop")
    assert any(foreign in todo and "a rollout replaces these too" in todo for todo in written.todo)
    with pytest.raises(RefusedError, match=r"the fleet shop selects i-\w+ already"):
        unmanaged.adopt("ec2:owner=web-team")

    planned = unmanaged.plan("shop")
    assert {last(step.member) for step in planned.steps} == {old, there, foreign}
    assert [last(group.group) for group in planned.groups] == ["shop-web"]
    assert not planned.skipped
    told = json.dumps(to_json(planned))
    assert all(name in told for name in (old, there, foreign))
    assert not [name for name in (good, untagged) if name in told]


def last(name: str) -> str:
    """A member's or group's own name."""
    return name.rpartition("/")[2]


def test_a_group_is_selected_by_the_tag_that_nothing_else_carries(unmanaged: Unmanaged) -> None:
    """A usual tag that others have too is passed over; the group's version of its template is named."""
    shop_at = unmanaged.at
    shop_at.instance(tags={"app": "shop"})
    unmanaged.group("Shop Web", shop_at.image(shop_at.old), tags={"app": "shop", "role": "web"})
    line = unmanaged.adopt("asg:Shop Web", apply=True)
    fleet = load_fleet(unmanaged.context.settings.roots, "shop-web")
    assert (fleet.selector, fleet.ec2.regions, fleet.replacement.definition) == ({"role": "web"}, (REGION,), NAME)
    (group,) = [one for one in line.found if one.member == "Auto Scaling group Shop Web"]
    assert "version 1" in group.runs
    planned = unmanaged.plan("shop-web")
    assert (planned.steps, [last(one.group) for one in planned.groups]) == ((), ["Shop Web"])


def test_what_cannot_be_rolled_is_said(unmanaged: Unmanaged) -> None:
    """A group with a mixed instances policy, and one whose template takes the image from a parameter."""
    shop_at = unmanaged.at
    shop_at.aws.client("ssm").put_parameter(Name="/shop", Value=shop_at.image(shop_at.old), Type="String")
    unmanaged.group("mixed", shop_at.image(shop_at.old), mixed=True)
    unmanaged.group("resolved", "resolve:ssm:/shop")
    line = unmanaged.adopt("ec2:app=shop")
    left = {one.member: one.left_alone for one in line.found if one.left_alone}
    assert "mixed instances policy" in left["Auto Scaling group mixed"]
    assert "takes the image from a parameter" in left["Auto Scaling group resolved"]
    assert sum("will be skipped" in todo for todo in line.todo) == 2


def test_a_group_without_tags_is_drafted_with_what_to_tag(unmanaged: Unmanaged) -> None:
    """Nothing selects it yet, which the file says."""
    unmanaged.group("bare", unmanaged.at.image(unmanaged.at.old), tags={})
    line = unmanaged.adopt("asg:bare")
    assert "tag the Auto Scaling group bare and its instances app=bare: it has no tag to select it by" in line.todo
    assert "FILL IN" in line.text
    assert line.next[-1] == "./goldsmith fleet.check bare"


def test_a_fleet_of_foreign_images_is_drafted_for_the_named_definition(unmanaged: Unmanaged) -> None:
    """Nobody has to have built what it runs; the plan takes it over where that is asked for."""
    foreign = image(unmanaged.at.aws, "foreign")
    name = unmanaged.at.instance(ImageId=foreign, tags={"app": "legacy", "service": "billing"})
    line = unmanaged.adopt("ec2:app=legacy,service=billing", replacement=NAME, name="billing", apply=True)
    assert line.next[-1] == "./goldsmith roll.plan billing --adopt all"
    assert line.found[0].runs == f"{foreign} (unknown)"
    assert any(name in todo and foreign in todo for todo in line.todo)
    with fleet_session("billing", unmanaged.context, now=lambda: unmanaged.context.now + 2 * DAY) as opened:
        with pytest.raises(RefusedError, match="is unknown"):
            plan_all(opened)
        assert [step.member.name for step in plan_all(opened, ["all"]).plan.steps] == [name]


def test_what_the_words_do_not_mean_is_refused(unmanaged: Unmanaged) -> None:
    """Each with what to type; and where a region cannot be read, nothing is drafted."""
    with pytest.raises(UsageError, match="no tags are named"):
        unmanaged.adopt("ec2:app")
    with pytest.raises(ContentError, match="nothing that runs has the tags app=nowhere"):
        unmanaged.adopt("ec2:app=nowhere")
    with pytest.raises(ContentError, match="no Auto Scaling group named nowhere"):
        unmanaged.adopt("asg:nowhere")
    with pytest.raises(ContentError, match="regions"):
        unmanaged.adopt("ec2:app=shop", regions="mars")
    with pytest.raises(UsageError, match="2 services at once"):
        unmanaged.adopt("ec2:app=a", "ec2:app=b")
    with pytest.raises(UsageError, match="about machines"):
        in_cloud(["web-1", "ec2:app=a"], definition=False, engine="")
    with pytest.raises(UsageError, match="about machines"):
        in_cloud(["asg:a"], definition=True, engine="")
    with unmanaged.at.aws.faulty(Fault("denied", region=OTHER)):
        with pytest.raises(OutsideError, match="not every region"):
            unmanaged.adopt("ec2:app=shop")
        with pytest.raises(OutsideError, match="not every region"):
            unmanaged.adopt("asg:shop")


@pytest.mark.parametrize("value", ['a"]\n[x', "a\nb = 1", "é ☃"])
def test_a_strangers_tag_cannot_write_into_the_file(unmanaged: Unmanaged, value: str) -> None:
    """Whoever may tag an instance says nothing but its tags."""
    unmanaged.at.instance(tags={"app": "shop", "owner": value})
    unmanaged.adopt("ec2:app=shop", apply=True)
    assert load_fleet(unmanaged.context.settings.roots, "shop").owner == value
