"""Managed node groups are judged like machines, and rolled by one version update that we ask for once, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import ContentError, OutsideError, RefusedError
from hardening.foundation.settings import Judging
from images.aws.client import Client
from images.context import Context
from pipelines.cli.adopt_clusters import adopt_cluster
from pipelines.fleet.catalog import load_fleet
from pipelines.fleet.delegated import Reach
from pipelines.fleet.eks.node_groups import NodeGroup, reach_of
from pipelines.fleet.port import GroupPin, InProgressError, Progress, UnseenError
from pipelines.rollout.session import check, fleet_session
from pipelines.rollout.state import DesiredState, Phase
from pipelines.rollout.whole_plan import plan_all
from tests.simulation.execution import distinct
from tests.strict_aws import Fault, StrictAws
from tests.support.cloud import DAY
from tests.support.ec2 import Killed, killed_after
from tests.support.eks import ROLLOUT, Cluster, cluster
from tests.support.grouped import GroupRollout, phases

LIMITS: dict[str, Any] = {"bake_time": "30s", "min_healthy_time": "5s"}


@pytest.fixture
def at(aws: StrictAws, tmp_path: Path) -> Iterator[Cluster]:
    with cluster(aws, tmp_path, **LIMITS) as made:
        yield made


def test_a_node_group_is_updated_to_a_new_version_and_baked(at: Cluster) -> None:
    """The version has the pinned one's settings, the new image and IMDSv2."""
    at.add()
    group = at.group
    assert (group.desired, group.healthy, group.cannot_roll, group.runs) == (4, 4, "", f"{at.template} version 1")
    assert at.begin() == GroupPin(at.template, 1)
    assert at.watch().progress is Progress.RUNNING
    assert at.until(Progress.DONE).percent == 100
    assert set(at.images()) == {at.at.image(at.at.new)}
    assert at.shown()["launchTemplate"]["version"] == "2"
    (call,) = at.at.aws.calls("eks", "UpdateNodegroupVersion", effect=True)
    assert call["params"]["force"] is False
    assert len(call["params"]["clientRequestToken"]) == 64


@pytest.mark.parametrize("effects", [1, 2])
def test_beginning_twice_begins_once(at: Cluster, effects: int) -> None:
    """Killed after the version or after the update: one version, one update."""
    at.add()
    pinned = at.port.pin(at.group)
    with pytest.raises(Killed), killed_after(effects):
        at.begin(pinned)
    for _ in range(2):
        at.begin_anew()
        at.begin(pinned)
    assert (at.versions(), at.updates()) == ([1, 2], 1)
    at.until(Progress.DONE)


@pytest.mark.usefixtures("at_once")
def test_lost_answers_and_throttling_begin_once(at: Cluster) -> None:
    """What is asked again has the same token."""
    at.add()
    lost = [
        Fault("lost", operation=name, times=1) for name in ("CreateLaunchTemplateVersion", "UpdateNodegroupVersion")
    ]
    with at.at.aws.faulty(*lost, Fault("throttle", probability=0.2), seed=3):
        at.begin(GroupPin(at.template, 1))
    assert (at.versions(), at.updates()) == ([1, 2], 1)


def test_a_bad_image_fails_and_goes_back_by_another_update(at: Cluster) -> None:
    """To the version that was pinned; killed after the request, it is asked once."""
    at.add()
    at.at.aws.ail(at.at.image(at.at.new), "status")
    pinned = at.begin()
    assert "NodeCreationFailure" in at.until(Progress.FAILED).text
    with pytest.raises(Killed), killed_after(1):
        at.port.roll_back(ROLLOUT, at.group, pinned)
    at.begin_anew()
    at.port.roll_back(ROLLOUT, at.group, pinned)
    assert at.watch().progress is Progress.ROLLING_BACK
    at.until(Progress.ROLLED_BACK)
    assert (set(at.images()), at.updates()) == ({at.at.image(at.at.old)}, 2)
    assert at.shown()["launchTemplate"]["version"] == "1"


def test_an_update_that_goes_on_is_waited_for_before_it_goes_back(at: Cluster) -> None:
    """EKS lets one go on at a time, and stops none."""
    at.add()
    pinned = at.begin()
    at.port.cancel(ROLLOUT, at.group, pinned)
    with pytest.raises(InProgressError):
        at.port.roll_back(ROLLOUT, at.group, pinned)
    at.until(Progress.DONE)
    assert at.port.way_back(ROLLOUT, at.group, pinned) == ""
    at.port.roll_back(ROLLOUT, at.group, pinned)
    at.until(Progress.ROLLED_BACK)
    assert set(at.images()) == {at.at.image(at.at.old)}


def test_one_that_nothing_was_begun_with_is_where_it_was(at: Cluster) -> None:
    """Taking it back is nothing to do."""
    at.add()
    pinned = at.port.pin(at.group)
    at.port.roll_back(ROLLOUT, at.group, pinned)
    assert (at.watch().progress, at.updates()) == (Progress.ROLLED_BACK, 0)


def test_an_update_that_is_denied_is_told_and_leaves_the_group_where_it_was(at: Cluster) -> None:
    """At once: no update is waited for that EKS never took."""
    at.add()
    rollout = rollout_of(at)
    with at.at.aws.faulty(Fault("denied", operation="UpdateNodegroupVersion")):
        outcome = rollout.play()
    assert (phases(outcome), at.updates()) == ([Phase.OLD], 0)
    assert "AWS denies eks:UpdateNodegroupVersion" in outcome.state.failure
    assert rollout.memory.time < 60
    at.begin_anew()
    with pytest.raises(UnseenError):  # whoever has begun nothing knows by that where it is, also another process
        at.watch()


def test_somebody_elses_update_is_left_alone(at: Cluster) -> None:
    """Before ours nothing is begun; after ours it is not taken back."""
    at.add()
    pinned = at.begin()
    at.until(Progress.DONE)
    data = {"InstanceType": "t3.small"}
    at.at.ec2.create_launch_template_version(LaunchTemplateId=at.template, SourceVersion="2", LaunchTemplateData=data)
    foreign = {"id": at.template, "version": "3"}
    at.client.update_nodegroup_version(clusterName="shop", nodegroupName="nodes", launchTemplate=foreign)
    (busy,) = at.port.groups()
    assert busy.cannot_roll == "it is UPDATING: wait until it is ACTIVE"
    for _ in range(100):
        at.at.aws.advance(5)
        at.at.ec2.describe_instances()
    assert "version 3, set by somebody else" in at.port.way_back(ROLLOUT, at.group, pinned)
    with pytest.raises(RefusedError, match="but version 1"):
        at.begin(pinned, rollout="other-20260301120000-123456")
    assert at.updates() == 2


def test_what_it_ran_before_may_be_gone(at: Cluster) -> None:
    """A deregistered image starts no node."""
    at.add()
    pinned = at.begin()
    at.until(Progress.DONE)
    at.at.ec2.deregister_image(ImageId=at.at.image(at.at.old))
    assert "deregistered or disabled" in at.port.way_back(ROLLOUT, at.group, pinned)


def test_groups_whose_images_eks_chooses_are_judged_and_say_what_rolling_needs(at: Cluster) -> None:
    """They have no version that we could name an image in."""
    data = {"InstanceType": "t3.micro", "ImageId": at.at.image(at.at.old)}
    made = at.at.ec2.create_launch_template(LaunchTemplateName="plain", LaunchTemplateData=data)
    plain = made["LaunchTemplate"]["LaunchTemplateId"]
    at.add(amiType="AL2023_x86_64_STANDARD", launchTemplate={"id": plain, "version": "1"})
    assert len(at.nodes.seen().members) == 4
    assert at.group.cannot_roll.startswith("EKS chooses its images (amiType AL2023_x86_64_STANDARD): make a node group")


@pytest.mark.parametrize(
    ("limits", "config", "said"),
    [({"max_unavailable": 0}, {"maxUnavailable": 1}, "lets 1 be missing, but limits.max_unavailable is 0"),
     ({"max_unavailable": 1}, {"maxUnavailablePercentage": 33}, "EKS node group nodes (4 nodes): its strategy lets 2"),
     ({"max_surge": 1}, {"maxUnavailable": 1}, "lets 2 run beside the old ones, but limits.max_surge is 1"),
     ({"max_parallel": 1}, {"maxUnavailable": 2}, "replaces 2 at once")],
)  # fmt: skip
def test_settings_that_break_a_limit_are_refused(
    aws: StrictAws, tmp_path: Path, limits: dict[str, Any], config: dict[str, int], said: str
) -> None:
    """EKS would do what the fleet's file forbids."""
    with cluster(aws, tmp_path, **limits) as at:
        at.add(updateConfig=config)
        with pytest.raises(RefusedError) as refused:
            at.port.pace(at.group, 4)
        assert said in str(refused.value)


@pytest.mark.parametrize(
    ("config", "reach"),
    [({"maxUnavailable": 1}, Reach(1, 0, 6)), ({"maxUnavailable": 9}, Reach(9, 0, 9)),
     ({"maxUnavailablePercentage": 50}, Reach(5, 0, 6)),
     ({"maxUnavailable": 2, "updateStrategy": "MINIMAL"}, Reach(2, 0, 0))],
)  # fmt: skip
def test_the_new_nodes_that_eks_starts_first_are_counted(config: dict[str, Any], reach: Reach) -> None:
    """Two for each zone, or as many as are drained at once; with the strategy MINIMAL none."""
    shown = {"scalingConfig": {"desiredSize": 10}, "subnets": ["a", "b", "c"], "updateConfig": config}
    assert reach_of(NodeGroup(shown)) == reach


def test_node_groups_are_selected_by_tags_in_pages_and_what_is_named_and_absent_is_unread(at: Cluster) -> None:
    """Members are their instances, judged and observed like machines."""
    assert [one.why for one in at.nodes.seen().unread] == ["no EKS node group has this name"]
    one = {"minSize": 0, "maxSize": 2, "desiredSize": 1}
    for number in range(5):
        tags = {"app": "shop"} if number % 2 else {}
        at.add(f"n{number}", tags=tags, scalingConfig=one)
    at.selector = {"app": "shop"}
    at.begin_anew()
    at.at.aws.limit_pages(2)
    members = at.nodes.seen().members
    assert sorted(one.group.rpartition("/")[2] for one in members) == ["n1", "n3"]
    assert {(one.image, one.cannot_roll.partition(" n")[0]) for one in members} == {(at.at.image(at.at.old), "the EKS")}
    assert {one.now is not None for one in at.nodes.observe(members).values()} == {True}


def test_one_node_group_is_read_without_the_others(at: Cluster) -> None:
    """As each turn of a rollout does."""
    at.add()
    at.add("other")
    at.selector = {}
    at.eks = {"node_groups": ["nodes", "other"]}
    at.begin_anew()
    before = len(at.aws.calls())
    group = at.reader.group_id("other")
    assert {one.group for one in at.nodes.seen(group).members} == {group}
    asked = at.aws.calls("eks", "DescribeNodegroup", before)
    assert [one["params"]["nodegroupName"] for one in asked] == ["other"]
    assert len({one.group for one in at.nodes.seen().members}) == 2


@pytest.mark.parametrize("operation", ["DescribeNodegroup", "DescribeInstances", "DescribeVolumes"])
@pytest.mark.usefixtures("at_once")
def test_what_cannot_be_read_is_unread_and_no_pass(at: Cluster, operation: str) -> None:
    """The cluster, or the region of its instances."""
    at.add()
    with at.at.aws.faulty(Fault("denied", operation=operation)):
        seen = at.nodes.seen()
        assert (seen.members, len(seen.unread)) == ((), 1)
        with pytest.raises((OutsideError, RefusedError)):
            at.port.groups()


def test_a_node_group_that_is_named_and_has_not_the_tags_is_unread(at: Cluster) -> None:
    """Its file says that it is the fleet's: it is not left out without a word."""
    at.add()
    at.reader.fleet = at.fleet.model_copy(update={"selector": {"app": "shop"}})
    seen = at.nodes.seen()
    assert (seen.members, [one.why for one in seen.unread]) == ((), ["it has not the tags of the selector"])


def test_an_answer_of_another_form_is_an_error_of_the_outside(at: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback in any step of a rollout."""
    at.add()
    group, pinned = at.group, at.port.pin(at.group)
    shown = {**at.shown(), "scalingConfig": {"desiredSize": "many"}, "launchTemplate": {"id": "x", "version": "new"}}
    real = Client.call

    def call(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        return {"nodegroup": shown} if operation == "DescribeNodegroup" else real(self, operation, **request)

    monkeypatch.setattr(Client, "call", call)
    for step in (
        at.port.groups,
        lambda: at.port.pace(group, 4),
        lambda: at.port.pin(group),
        lambda: at.port.watch(ROLLOUT, group),
        lambda: at.port.way_back(ROLLOUT, group, pinned),
        lambda: at.port.roll_back(ROLLOUT, group, pinned),
    ):
        with pytest.raises(OutsideError, match="the answer of EKS in eu-central-1 is not understood"):
            step()


FLEET = """
title = "The nodes"
owner = "ann"
kind = "eks"
replacement = { definition = "debian-server", channel = "candidate" }

[eks]
cluster = "shop"
node_groups = ["nodes"]

[limits]
max_unavailable = 2
max_surge = 2
max_parallel = 2
budgets = [{ nodes = 2 }]
"""


def context_of(at: Cluster, root: Path) -> Context:
    """What a task works with, and a content root of its own that may add fleets."""
    (root / "pipelines/fleets").mkdir(parents=True)
    settings = at.at.cloud.settings.model_copy(update={"content": (root,), "judging": Judging(roots=(root,))})
    context = Context(settings, at.at.cloud.now, lambda: "", lambda: "", actor="ann")
    context.__dict__.update(ledger=at.at.cloud.ledger, cloud=at.at.cloud)
    return context


def test_a_node_group_becomes_a_fleet(at: Cluster, tmp_path: Path) -> None:
    """By its name, within what its settings do today; one that is in a fleet is not drafted again."""
    at.add()
    context = context_of(at, tmp_path / "content")
    (shown,) = adopt_cluster(["eks:shop"], context=context)
    assert (shown.fleet, shown.written, len(shown.members)) == ("nodes", False, 4)
    (line,) = adopt_cluster(["eks:shop/nodes"], context=context, apply=True)
    made = load_fleet(context.settings.roots, "nodes")
    assert (line.written, made.eks.node_groups) == (True, ("nodes",))
    assert (made.limits.max_unavailable, made.limits.max_surge, made.limits.max_parallel) == (2, 2, 2)
    assert made.replacement.definition == "debian-server"
    with pytest.raises(RefusedError, match="the fleet nodes selects"):
        adopt_cluster(["eks:shop"], context=context)
    with pytest.raises(ContentError, match="no managed node group ndoes"):
        adopt_cluster(["eks:shop/ndoes"], context=context)


def test_a_fleet_is_judged_and_planned_from_its_file(at: Cluster, tmp_path: Path) -> None:
    """Its nodes' images are judged as machines' are."""
    at.add()
    context = context_of(at, tmp_path / "content")
    (tmp_path / "content/pipelines/fleets/nodes.toml").write_text(FLEET)
    with fleet_session("nodes", context, now=lambda: context.now + 2 * DAY) as opened:
        assert {tuple(one.rules) for one in check(opened)} == {("superseded",)}
        (step,) = plan_all(opened).plan.groups
        assert (step.group.name, step.group.cannot_roll) == ("nodes", "")


@pytest.mark.parametrize(
    ("change", "claimed"),
    [(("", ""), True), (('node_groups = ["nodes"]', ""), True), (('["nodes"]', '["other"]'), False),
     (('cluster = "shop"', 'cluster = "mail"'), False), (("[eks]", '[eks]\nregion = "us-east-1"'), False)],
)  # fmt: skip
def test_a_node_group_of_two_fleets_is_rolled_by_neither(
    at: Cluster, tmp_path: Path, change: tuple[str, str], claimed: bool
) -> None:
    """Both are told of the other."""
    at.add(tags={"app": "shop"})
    context = context_of(at, tmp_path / "content")
    fleets = tmp_path / "content/pipelines/fleets"
    (fleets / "nodes.toml").write_text(FLEET)
    (fleets / "front.toml").write_text(FLEET.replace(*change).replace("[eks]", '[selector]\napp = "shop"\n[eks]'))
    with fleet_session("nodes", context, now=lambda: context.now + 2 * DAY) as opened:
        (step,) = plan_all(opened).plan.groups
        assert step.group.cannot_roll.partition(": ")[2] == ("the fleet front selects it too" if claimed else "")
        assert {"claimed" in one.rules for one in check(opened)} == {claimed}


# -- as a whole rollout ------------------------------------------------------------------------------------------------


def rollout_of(at: Cluster, dies_at: int | None = None, **limits: Any) -> GroupRollout:
    made = GroupRollout(at, ROLLOUT, dies_at, **{**at.limits, **LIMITS, **limits})
    object.__setattr__(made.order.plan, "target", at.at.target)
    return made


def test_people_hold_it_and_take_it_back(at: Cluster) -> None:
    """What goes on comes to its end first."""
    at.add()
    rollout = rollout_of(at)
    rollout.says(10, DesiredState.ROLLBACK)
    assert phases(rollout.play()) == [Phase.OLD]
    assert set(at.images()) == {at.at.image(at.at.old)}


@pytest.mark.parametrize(("said", "then", "phase"), [(DesiredState.PAUSE, DesiredState.GO, Phase.NEW),
                                                     (DesiredState.ROLLBACK, None, Phase.OLD)])  # fmt: skip
def test_an_update_that_goes_on_for_longer_than_the_progress_deadline_is_waited_for(
    at: Cluster, said: DesiredState, then: DesiredState | None, phase: Phase
) -> None:
    """It makes progress, there and back: a pause is not a failure, and the way back has not failed."""
    at.add(updateConfig={"maxUnavailable": 1})
    at.at.aws.takes(launch=80)
    rollout = rollout_of(at, progress_deadline="3m", healthy_deadline="1m")
    rollout.says(10, said)
    if then:
        rollout.says(700, then)
    outcome = rollout.play()
    assert phases(outcome) == [phase], outcome
    assert set(at.images()) == {at.at.image(at.at.old if phase is Phase.OLD else at.at.new)}
    assert rollout.memory.time > 2 * 180
    assert not outcome.state.failure


@pytest.mark.slow
@pytest.mark.parametrize("ill", [False, True])
def test_whichever_process_dies_at_whichever_step_it_comes_to_the_same_end(
    aws: StrictAws, tmp_path: Path, ill: bool
) -> None:
    """The effect done, its record lost: each version is made and each update asked for once."""

    def played(dies_at: int) -> GroupRollout:
        aws.reset()
        with cluster(aws, tmp_path / str(dies_at), **LIMITS) as at:
            at.add()
            old, new = at.at.image(at.at.old), at.at.image(at.at.new)
            if ill:
                aws.ail(new, "status")
            rollout = rollout_of(at, dies_at)
            assert phases(rollout.play()) == [Phase.OLD if ill else Phase.NEW], dies_at
            assert set(at.images()) == {old if ill else new}, dies_at
            assert (at.versions(), at.updates()) == ([1, 2], 2 if ill else 1), dies_at
            return rollout

    numbers = distinct(played(0).points)
    assert len(numbers) >= 8
    for number in numbers[::3]:
        played(number)
