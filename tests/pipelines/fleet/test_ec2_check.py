"""An EC2 fleet is found by its tags over regions, and each image that it runs is judged by what is known of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError
from hardening.runtime import Observed
from images.aws.release_store import AwsStore
from images.context import Context
from images.ledger import GONE
from images.release import channels
from pipelines.fleet.ec2.instances import Ec2Fleet
from pipelines.fleet.ec2.members import read_fleet
from pipelines.fleet.members import Member
from pipelines.fleet.violations import Judged
from pipelines.rollout.session import check, fleet_session
from pipelines.rollout.whole_plan import plan_all
from tests.strict_aws import Fault, StrictAws
from tests.strict_aws.making import image, snapshot
from tests.support.cloud import DAY
from tests.support.ec2 import FLEET_FILE, Shop, fleet, shop


@dataclass
class Office:
    """A shop and the content that its fleet is written in."""

    at: Shop
    context: Context
    file: Path

    def check(self, days: float = 2) -> dict[str, Judged]:
        """All that is judged, by the members' names, so many days after the old release."""
        with fleet_session("shop", self.context, now=lambda: self.context.now + days * DAY) as opened:
            return {one.member.name: one for one in check(opened)}


@pytest.fixture
def office(aws: StrictAws, tmp_path: Path) -> Iterator[Office]:
    """The shop's fleet stands in a content root of its own."""
    at = shop(aws, tmp_path)
    folder = tmp_path / "content" / "pipelines" / "fleets"
    folder.mkdir(parents=True)
    file = folder / "shop.toml"
    file.write_text(FLEET_FILE)
    settings = at.cloud.settings.model_copy(update={"content": (tmp_path / "content",)})
    context = Context(settings, at.cloud.now, lambda: "", lambda: "", actor="ann")
    context.__dict__.update(ledger=at.cloud.ledger, cloud=at.cloud)
    yield Office(at, context, file)
    at.cloud.ledger.close()


def rules(one: Judged) -> set[str]:
    return set(one.rules)


def test_images_are_judged_by_what_is_known_of_them(office: Office) -> None:
    """The newest is within policy, an older one superseded, then expired; a foreign one unknown, never ancient."""
    at = office.at
    old, new = at.instance(), at.instance(ImageId=at.image(at.new))
    foreign = at.instance(ImageId=image(at.aws, "foreign"))
    judged = office.check()
    assert {name: rules(judged[name]) for name in (old, new)} == {old: {"superseded"}, new: set()}
    assert rules(judged[foreign]) == {"unknown", "approved_source"}
    later = office.check(days=40)
    assert rules(later[old]) >= {"superseded", "expired"}
    assert "expired" not in rules(later[foreign])
    running = at.cloud.ledger.running_digests()
    assert running[at.old.content] == (f"shop/{old}",)


def test_a_missing_image_is_unknown_unless_the_ledger_knows_what_it_was(office: Office) -> None:
    """The ledger's own line outlives the image; without a line nobody knows."""
    at = office.at
    old = at.instance()
    name = at.image(at.old)
    at.ec2.deregister_image(ImageId=name)
    assert rules(office.check()[old]) == {"superseded"}
    for line in at.cloud.ledger.made(at.cloud.aws.account, kind="image", resource=name):
        at.cloud.ledger.record_made(replace(line, resource="ami-0123456789abcdef0", state=GONE))
    assert rules(office.check()[old]) == {"unknown", "approved_source"}


def test_tags_alone_prove_nothing(office: Office) -> None:
    """An image that says it is a release of ours, and of which no statement is signed, is unknown."""
    at = office.at
    said = at.ec2.describe_images(ImageIds=[at.image(at.old)])["Images"][0]["Tags"]
    forged = image(at.aws, "forged", snapshot=snapshot(at.aws))
    at.ec2.create_tags(Resources=[forged], Tags=[one for one in said if not one["Key"].startswith("aws:")])
    member = at.instance(ImageId=forged)
    assert "unknown" in rules(office.check()[member])


def test_a_revoked_image_is_out_at_once(office: Office) -> None:
    """Whatever its dates say."""
    at = office.at
    old = at.instance()
    channels.revoke(AwsStore(at.cloud), at.old.digest, "a backdoor")
    assert "revoked" in rules(office.check()[old])


def test_groups_and_templates_are_judged_too(office: Office) -> None:
    """A template's version as what it would start; a group's instances are the group's to replace."""
    at = office.at
    template(at)
    at.settle()
    (inside,) = at.running()
    judged = office.check()
    assert rules(judged["launch template shop version 1 of the Auto Scaling group shop"]) == {"superseded"}
    assert rules(judged["launch template tagged version 1"]) == {"superseded"}
    assert rules(judged[inside]) == {"superseded"}
    assert "Auto Scaling group shop" in judged[inside].member.cannot_roll
    with fleet_session("shop", office.context, now=lambda: office.context.now) as opened:
        assert opened.groups is not None
        (group,) = opened.groups.groups()
    assert {one.member.group for one in judged.values()} == {group.id, ""}


@pytest.mark.parametrize(
    ("change", "claimed"),
    [(("", ""), {"both", "group"}), (("[ec2]", '[ec2]\naccounts = "organization"'), {"both", "group"}),
     (('["eu-central-1", "us-east-1"]', '["us-east-1"]'), set()),
     (("[ec2]", '[ec2]\naccounts = ["210987654321"]'), set())],
)  # fmt: skip
def test_what_another_fleet_selects_too_is_claimed_where_both_are(
    office: Office, change: tuple[str, str], claimed: set[str]
) -> None:
    """Instances by their own tags; a group by its own, through the template that it starts from."""
    at = office.at
    own, both = at.instance(), at.instance()
    template(at)
    at.settle()
    at.ec2.create_tags(Resources=[both], Tags=[{"Key": "tier", "Value": "front"}])
    tier = {"Key": "tier", "Value": "front", "PropagateAtLaunch": False}
    tier |= {"ResourceId": "shop", "ResourceType": "auto-scaling-group"}
    at.aws.client("autoscaling").create_or_update_tags(Tags=[tier])
    front = FLEET_FILE.replace('app = "shop"', 'tier = "front"').replace(*change)
    office.file.with_name("front.toml").write_text(front)
    named = {both: "both", "launch template shop version 1 of the Auto Scaling group shop": "group", own: "own"}
    judged = office.check()
    assert {named.get(name, name) for name, one in judged.items() if one.member.claimed_by} == claimed
    assert {one.member.claimed_by for one in judged.values()} <= {"", "front"}
    with fleet_session("shop", office.context, now=lambda: office.context.now + 2 * DAY) as opened:
        (group,) = plan_all(opened).plan.groups
        assert ("the fleet front selects it too" in group.group.cannot_roll) == bool(claimed)


def template(at: Shop, **more: Any) -> None:
    """A group from a template, and a tagged template that nobody uses."""
    data = {"ImageId": at.image(at.old), "InstanceType": "t3.micro", **more}
    made = at.ec2.create_launch_template(LaunchTemplateName="shop", LaunchTemplateData=data)["LaunchTemplate"]
    at.aws.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="shop", MinSize=0, MaxSize=3, DesiredCapacity=1, VPCZoneIdentifier=at.subnet,
        LaunchTemplate={"LaunchTemplateId": made["LaunchTemplateId"], "Version": "$Default"},
        Tags=[{"Key": "app", "Value": "shop", "PropagateAtLaunch": True}],
    )  # fmt: skip
    tagged = [{"ResourceType": "launch-template", "Tags": [{"Key": "app", "Value": "shop"}]}]
    at.ec2.create_launch_template(LaunchTemplateName="tagged", LaunchTemplateData=data, TagSpecifications=tagged)


def test_each_template_of_a_mixed_instances_policy_is_judged(office: Office) -> None:
    """That of an override too, which starts some of the group's instances."""
    at, named = office.at, {}
    for name, release in (("usual", at.new), ("arm", at.old)):
        data = {"ImageId": at.image(release), "InstanceType": "t3.micro"}
        made = at.ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)["LaunchTemplate"]
        named[name] = {"LaunchTemplateId": made["LaunchTemplateId"], "Version": "1"}
    overrides = [{"InstanceType": "t3.small", "LaunchTemplateSpecification": named["arm"]}]
    policy = {"LaunchTemplate": {"LaunchTemplateSpecification": named["usual"], "Overrides": overrides}}
    at.aws.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="shop", MinSize=0, MaxSize=3, DesiredCapacity=0, VPCZoneIdentifier=at.subnet,
        MixedInstancesPolicy=policy, Tags=[{"Key": "app", "Value": "shop", "PropagateAtLaunch": True}],
    )  # fmt: skip
    judged = {name.removesuffix(" of the Auto Scaling group shop"): rules(one) for name, one in office.check().items()}
    assert judged == {"launch template usual version 1": set(), "launch template arm version 1": {"superseded"}}


def test_every_page_is_read(office: Office) -> None:
    """However few the service gives at a time."""
    at = office.at
    asked: dict[str, Any] = {"MinCount": 12, "MaxCount": 12}
    at.instance(**asked)
    at.aws.limit_pages(5)
    assert len(office.check()) == 12


def test_a_region_that_cannot_be_read_is_told_and_never_compliant(office: Office) -> None:
    """The others are judged; nothing is rolled; the ledger keeps what it last saw whole."""
    at = office.at
    new = at.instance(ImageId=at.image(at.new))
    office.check()
    with (
        at.aws.faulty(Fault("denied", service="ec2", region="us-east-1")),
        fleet_session("shop", office.context, now=lambda: office.context.now) as opened,
    ):
        judged = {one.member.name: one for one in check(opened)}
        with pytest.raises(OutsideError, match="region"):
            opened.plan(())
    (unread,) = [one for one in judged.values() if one.rules == {"unread"}]
    assert (unread.member.id, rules(judged[new])) == (f"{at.cloud.aws.account}/us-east-1/*", set())
    assert unread.deadline
    assert at.cloud.ledger.running_digests()[at.new.content] == (f"shop/{new}",)


@pytest.mark.parametrize(("demands", "looks"), [(False, [1, 0, 1, 2]), (True, [1, 1, 2, 2])])
def test_what_is_only_recorded_is_looked_at_once_an_hour(
    office: Office, monkeypatch: pytest.MonkeyPatch, demands: bool, looks: list[int]
) -> None:
    """Within a session: the looks of one rollout. Who is new is looked at, and by a policy that asks for it all are."""
    monkeypatch.setattr("pipelines.rollout.session.demands", lambda _: demands)
    office.at.instance()
    now, asked = [office.context.now], list[int]()
    with fleet_session("shop", office.context, now=lambda: now[-1]) as opened:

        def observe(members: Sequence[Member]) -> Mapping[str, Observed]:
            asked.append(len(members))
            return opened.observe(members)

        at = replace(opened, observe=observe)
        first, second = check(at), check(at)
        office.at.instance()
        check(at)
        now.append(now[0] + timedelta(hours=1))
        check(at)
    assert asked == looks
    assert [one.facts for one in first] == [one.facts for one in second] != [None]


def test_how_a_member_ran_is_forgotten_only_by_a_look_that_could_have_seen_it(office: Office) -> None:
    """And never while it runs, however long nothing changes."""
    at, ledger = office.at, office.at.cloud.ledger
    name = at.instance(ImageId=at.image(at.new))
    office.check()
    ledger.record_snapshots("shop", {("gone", "i-gone"): {"kind": "instance"}}, office.context.now, {})
    with at.aws.faulty(Fault("denied", service="ec2", region="us-east-1")):
        office.check(days=500)
    assert ledger.snapshots("shop", ["i-gone"])
    office.check(days=501)
    assert ledger.snapshots("shop", ["i-gone"]) == {}
    assert ledger.snapshots("shop", [name])[name, name][0].at == office.context.now + 2 * DAY


def test_an_account_without_a_role_is_told_beside_the_others(office: Office) -> None:
    """Before anything is asked there; what can be read is judged."""
    at = office.at
    new = at.instance(ImageId=at.image(at.new))
    with fleet_session("shop", office.context, now=lambda: office.context.now) as opened:
        of = opened.fleet
        place = of.ec2.model_copy(update={"accounts": (at.cloud.aws.account, "999999999999")})
        found = read_fleet(of.model_copy(update={"ec2": place}), at.cloud)
    assert {one.id.partition("/")[0] for one in found.unread} == {"999999999999"}
    assert [one.shown.id for one in found.instances] == [new]


def test_a_member_that_asks_not_to_be_disrupted_says_until_when(office: Office) -> None:
    """By a tag with a date; with one that is none it is left alone until somebody mends it."""
    at = office.at
    until = office.context.now + timedelta(days=3)
    key = "dev.goldsmith.do-not-disrupt-until"
    kept = at.instance(tags={"app": "shop", key: until.isoformat()})
    free = at.instance(tags={"app": "shop", key: "forever"})
    judged = office.check()
    assert (judged[kept].member.protected_until, judged[free].member.protected_until) == (until, None)
    assert (judged[kept].member.cannot_roll, "not a date with time" in judged[free].member.cannot_roll) == ("", True)


def test_a_selector_is_meant_to_the_letter(office: Office) -> None:
    """A filter of EC2 reads * as anything."""
    office.at.instance(tags={"app": "shop"})
    wild = office.at.instance(tags={"app": "sh*"})
    members = Ec2Fleet(fleet(selector={"app": "sh*"}), office.at.cloud)
    assert [one.handle for one in members.describe()] == [wild]
