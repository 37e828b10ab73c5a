"""ECS services are rolled to a new revision by one registration and one update, watched, baked and taken back."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError, RefusedError
from images.aws.client import Client
from pipelines.fleet.ecs.groups import ServiceFleet
from pipelines.fleet.ecs.services import TOLD, Revision, Service, deploying
from pipelines.fleet.port import GroupPin, InProgressError, Progress
from tests.strict_aws import Fault, StrictAws
from tests.support.ec2 import Killed, killed_after
from tests.support.ecs import DEFINITION, OLD, ROLLOUT, TAGGED, TURN, Town, town

LIMITS: dict[str, Any] = {"bake_time": "30s", "min_healthy_time": "5s"}


@pytest.fixture
def at(aws: StrictAws, tmp_path: Path) -> Iterator[Town]:
    with town(aws, tmp_path, **LIMITS) as made:
        yield made


def test_it_is_rolled_to_a_revision_that_differs_by_the_image_alone_and_baked(at: Town) -> None:
    """Registered once from what runs, with its tags; the service goes to it with the circuit breaker on."""
    at.add()
    assert (at.group.desired, at.group.healthy, at.group.cannot_roll, at.group.runs) == (3, 3, "", "web:1")
    assert at.begin() == GroupPin("web", 1)
    assert at.watch().progress is Progress.RUNNING
    began = at.now()
    seen = at.until(Progress.DONE)
    assert (seen.percent, at.running(), at.revisions()) == (100, {at.new}, ["1", "2"])
    assert (at.now() - began).total_seconds() >= 30
    old, new = at.definition("web:1"), at.definition("web:2")
    assert {key: one for key, one in new["tags"].items() if key in old["tags"]} == {"team": "shop"}
    assert new["containerDefinitions"][0].pop("image") == at.new
    assert old["containerDefinitions"][0].pop("image") == OLD
    told = {*TOLD, "tags"}
    assert {key: one for key, one in new.items() if key not in told} == {
        key: one for key, one in old.items() if key not in told
    }
    configuration = at.shown()["deploymentConfiguration"]
    assert configuration.pop("deploymentCircuitBreaker") == {"enable": True, "rollback": True}
    assert configuration == {**TURN, "strategy": "ROLLING", "bakeTimeInMinutes": 0}
    assert (at.effects("RegisterTaskDefinition"), at.effects("UpdateService")) == (2, 1)


def test_all_that_is_told_of_a_revision_can_be_registered_or_is_left_out(at: Town) -> None:
    """By botocore's model: nothing of a revision is lost in the next one."""
    model = at.client.meta.service_model
    told = model.operation_model("DescribeTaskDefinition").output_shape.members["taskDefinition"].members
    assert set(told) - TOLD <= set(model.operation_model("RegisterTaskDefinition").input_shape.members)


@pytest.mark.parametrize(("ill", "after"), [("task", 0), ("task-health", 0), ("task", 15), ("task-health", 15)])
def test_a_bad_image_goes_back(at: Town, ill: str, after: float) -> None:
    """By the circuit breaker while it deploys; by us when its tasks only end while it bakes."""
    health = {"command": ["CMD", "true"]}
    checked = [{**DEFINITION["containerDefinitions"][0], "healthCheck": health}]
    at.add(definition={"containerDefinitions": checked})
    at.aws.ail(at.new, ill, after=after)
    if after:
        at.limits["bake_time"] = "10m"
        at.begin_anew()
    pinned = at.begin()
    seen = at.until(Progress.FAILED, Progress.ROLLED_BACK)
    assert (seen.progress is Progress.FAILED) == bool(after), seen
    if after:
        assert "tasks of web:2 ended by themselves" in seen.text
        for _ in range(2):
            at.port.roll_back(ROLLOUT, at.group, pinned)
    else:
        assert "circuit breaker: rolling back" in seen.text
    at.until(Progress.ROLLED_BACK)
    assert (at.running(), at.shown()["taskDefinition"].rpartition("/")[2]) == ({OLD}, "web:1")
    assert at.effects("UpdateService") == (2 if after else 1)
    breaker = at.shown()["deploymentConfiguration"]["deploymentCircuitBreaker"]
    assert breaker == {"enable": True, "rollback": not after}


def test_without_auto_rollback_the_circuit_breaker_leaves_it(aws: StrictAws, tmp_path: Path) -> None:
    """It fails, and stays there for a person."""
    with town(aws, tmp_path, **LIMITS, auto_rollback=False) as at:
        at.add()
        aws.ail(at.new, "task")
        at.begin()
        assert "tasks failed to start" in at.until(Progress.FAILED).text
        aws.advance(600)
        assert at.watch().progress is Progress.FAILED
        assert at.shown()["taskDefinition"].endswith("web:2")


@pytest.mark.parametrize("effects", [1, 2])
def test_beginning_twice_begins_once(at: Town, effects: int) -> None:
    """Killed after the registration or after the update: one revision, one update that has an effect."""
    at.add()
    pinned = at.port.pin(at.group)
    with pytest.raises(Killed), killed_after(effects):
        at.begin(pinned)
    for _ in range(2):
        at.begin_anew()
        at.begin(pinned)
    assert (at.revisions(), at.effects("UpdateService")) == (["1", "2"], 1)
    at.until(Progress.DONE)


def test_what_the_circuit_breaker_took_back_while_nobody_looked_is_not_begun_again(at: Town) -> None:
    """Killed right after the update, and started again when all is over: the same attempt is not made twice."""
    at.add()
    at.aws.ail(at.new, "task")
    pinned = at.port.pin(at.group)
    with pytest.raises(Killed), killed_after(2):
        at.begin(pinned)
    at.aws.advance(600)
    at.begin_anew()
    at.begin(pinned)
    assert at.watch().progress is Progress.ROLLED_BACK
    assert (at.revisions(), at.effects("UpdateService")) == (["1", "2"], 1)


def test_going_back_twice_goes_back_once(at: Town) -> None:
    """Killed after the update, before its answer was seen."""
    at.add()
    pinned = at.begin()
    at.until(Progress.DONE)
    with pytest.raises(Killed), killed_after(1):
        at.port.roll_back(ROLLOUT, at.group, pinned)
    at.begin_anew()
    at.port.roll_back(ROLLOUT, at.group, pinned)
    assert at.watch().progress is Progress.ROLLING_BACK
    at.until(Progress.ROLLED_BACK)
    assert (at.running(), at.effects("UpdateService")) == ({OLD}, 2)


@pytest.mark.usefixtures("at_once")
def test_lost_answers_and_throttling_register_once(at: Town) -> None:
    """The service takes no token: a lost answer is not asked for again, but looked for."""
    at.add()
    lost = [
        Fault("lost", service="ecs", operation=name, times=1) for name in ("RegisterTaskDefinition", "UpdateService")
    ]
    with at.aws.faulty(*lost, Fault("throttle", operation="[DL]*", probability=0.2), seed=3):
        with pytest.raises(OutsideError):
            at.begin(GroupPin("web", 1))
        at.begin(GroupPin("web", 1))
    assert at.revisions() == ["1", "2"]
    at.until(Progress.DONE)


def test_one_that_is_stopped_goes_back_and_is_begun_again_as_another_attempt(at: Town) -> None:
    """As pausing and resuming need: ECS leaves no service where it is."""
    at.add()
    pinned = at.begin()
    at.aws.advance(5)
    for _ in range(2):
        at.port.cancel(ROLLOUT, at.group, pinned)
    at.until(Progress.ROLLED_BACK)
    assert at.running() == {OLD}
    again = f"{ROLLOUT}-2"
    at.begin(pinned, rollout=again)
    at.until(Progress.DONE, rollout=again)
    assert (at.running(), at.revisions()) == ({at.new}, ["1", "2", "3"])


RAN, SINCE = f"sha256:{5:064x}", f"sha256:{6:064x}"  # what a tag named when it was deployed, and names since
BY_DIGEST = f"r.example/web@{RAN}"


def test_one_that_names_a_tag_goes_back_to_the_digest_that_ran(at: Town) -> None:
    """Whatever the tag names by now; killed after any effect, it is registered once and asked for once."""
    at.add_tagged(RAN)
    pinned = at.begin()
    assert pinned == GroupPin("web:1", BY_DIGEST)
    at.until(Progress.DONE)
    at.aws.digests(**{TAGGED: SINCE})
    for effects in (1, 1):
        with pytest.raises(Killed), killed_after(effects):
            at.port.roll_back(ROLLOUT, at.group, pinned)
        at.begin_anew()
    assert at.port.way_back(f"{ROLLOUT}-back", at.group, pinned) == ""
    at.port.roll_back(f"{ROLLOUT}-back", at.group, pinned)
    at.until(Progress.ROLLED_BACK, rollout=f"{ROLLOUT}-back")
    assert (at.running(), at.digests(), at.revisions()) == ({BY_DIGEST}, {RAN}, ["1", "2", "3"])
    assert at.effects("UpdateService") == 2
    assert at.definition("web:3")["tags"]["team"] == "shop"


def test_the_circuit_breaker_does_not_take_it_back_to_a_tag(at: Town) -> None:
    """ECS would start what the tag names by now: it only fails, and we go back."""
    at.add_tagged(RAN)
    at.aws.ail(at.new, "task")
    pinned = at.begin()
    assert at.shown()["deploymentConfiguration"]["deploymentCircuitBreaker"] == {"enable": True, "rollback": False}
    at.aws.digests(**{TAGGED: SINCE})
    at.until(Progress.FAILED)
    at.port.roll_back(ROLLOUT, at.group, pinned)
    at.until(Progress.ROLLED_BACK)
    assert at.digests() == {RAN}


def test_one_that_names_a_tag_is_stopped_and_begun_again(at: Town) -> None:
    """Paused, it runs the digest that ran; the next attempt begins from there, and goes back there."""
    at.add_tagged(RAN)
    pinned = at.begin()
    at.aws.advance(5)
    at.aws.digests(**{TAGGED: SINCE})
    for _ in range(2):
        at.port.cancel(ROLLOUT, at.group, pinned)
    at.until(Progress.ROLLED_BACK)
    assert at.digests() == {RAN}
    again = f"{ROLLOUT}-2"
    at.begin(pinned, rollout=again)
    at.until(Progress.DONE, rollout=again)
    at.port.roll_back(again, at.group, pinned)
    at.until(Progress.ROLLED_BACK, rollout=again)
    assert (at.digests(), at.revisions()) == ({RAN}, ["1", "2", "3", "4"])


def test_what_nobody_could_go_back_to_is_not_begun(at: Town) -> None:
    """Tasks of one revision that run two digests of its tag."""
    at.add_tagged(RAN, SINCE)
    assert at.digests() == {RAN, SINCE}
    with pytest.raises(RefusedError, match=r"its tasks run several digests of r\.example/web:1") as refused:
        at.port.pin(at.group)
    assert "by its digest" in refused.value.hint


def test_a_revision_that_claims_to_be_the_earlier_one_is_not_gone_back_to(at: Town) -> None:
    """One who may register and tag cannot have us deploy it on the way back."""
    at.add_tagged(RAN)
    pinned = at.begin()
    at.until(Progress.DONE)
    evil = [{**DEFINITION["containerDefinitions"][0], "image": f"r.example/web@{SINCE}"}]
    tags = [{"key": "dev.goldsmith.rollout", "value": f"{ROLLOUT}-back"},
            {"key": "dev.goldsmith.member", "value": at.group.id}]  # fmt: skip
    at.register(containerDefinitions=evil, tags=tags)
    with pytest.raises(RefusedError, match="is not what it would register"):
        at.port.roll_back(ROLLOUT, at.group, pinned)
    assert at.effects("UpdateService") == 1


def test_a_deployment_that_is_not_shown_yet_is_waited_for(at: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ECS shows may lag: taken for a service that went back, the deployment would not be watched."""
    at.add()
    pinned = at.port.pin(at.group)
    real, shown = Client.call, at.client.describe_services(cluster="shop", services=["web"], include=["TAGS"])

    def call(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        return shown if operation == "DescribeServices" else real(self, operation, **request)

    with monkeypatch.context() as lagging:
        lagging.setattr(Client, "call", call)
        for _ in range(2):
            with pytest.raises(InProgressError, match="ECS to show the deployment of web:2"):
                at.begin(pinned)
    at.begin(pinned)
    assert at.watch().progress is Progress.RUNNING
    assert at.revisions() == ["1", "2"]


def test_its_rest_is_what_its_canary_was(at: Town) -> None:
    """All of it is new already: nothing is done twice."""
    at.add()
    pinned = at.begin()
    at.until(Progress.DONE)
    at.port.hold(ROLLOUT, at.group, pinned)
    at.begin(pinned, rollout=f"{ROLLOUT}-rest")
    assert at.until(Progress.DONE, rollout=f"{ROLLOUT}-rest").percent == 100
    assert at.effects("UpdateService") == 1


def test_one_that_nothing_was_begun_with_is_where_it_was(at: Town) -> None:
    """Taking it back, or stopping it, is nothing to do."""
    at.add()
    pinned = at.port.pin(at.group)
    at.port.cancel(ROLLOUT, at.group, pinned)
    at.port.roll_back(ROLLOUT, at.group, pinned)
    assert at.watch().progress is Progress.ROLLED_BACK
    assert at.effects("UpdateService") == 0


def test_somebody_elses_deployment_is_left_alone(at: Town) -> None:
    """Before ours it is not overwritten; after ours it is not taken back."""
    at.add()
    pinned = at.port.pin(at.group)
    foreign = at.register(family="web", cpu="512", memory="1024")
    at.client.update_service(cluster="shop", service="web", taskDefinition=foreign)
    with pytest.raises(RefusedError, match="now goes to web:2, but web:1 was planned"):
        at.begin(pinned)
    (busy,) = at.port.groups()
    assert busy.cannot_roll == "a deployment to web:2 is running: wait until it has ended"
    at.client.update_service(cluster="shop", service="web", taskDefinition="web:1")
    at.aws.advance(60)
    at.begin(pinned)
    at.until(Progress.DONE)
    at.client.update_service(cluster="shop", service="web", taskDefinition=foreign)
    assert "somebody else has deployed web:2" in at.watch().text
    assert "somebody else" in at.port.way_back(ROLLOUT, at.group, pinned)
    with pytest.raises(RefusedError, match="somebody else"):
        at.port.roll_back(ROLLOUT, at.group, pinned)
    at.port.cancel(ROLLOUT, at.group, pinned)
    assert at.shown()["taskDefinition"].endswith(foreign)


@pytest.mark.parametrize("back", [False, True])
def test_a_deployment_that_begins_after_we_have_read_is_not_overwritten(
    at: Town, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    """Between our look and our update, there and back; of the very revision that runs, too."""
    at.add()
    pinned = at.begin() if back else at.port.pin(at.group)
    name = "_earlier" if back else "_register"
    through = getattr(ServiceFleet, name)

    def meanwhile(port: ServiceFleet, *asked: Any) -> Any:
        found = through(port, *asked)
        at.client.update_service(cluster="shop", service="web", forceNewDeployment=True)
        return found

    monkeypatch.setattr(ServiceFleet, name, meanwhile)
    updates = at.effects("UpdateService")
    with pytest.raises(RefusedError, match="by a deployment that began meanwhile: it was left as it is"):
        at.port.roll_back(ROLLOUT, at.group, pinned) if back else at.begin(pinned)
    assert at.effects("UpdateService") == updates + 1, "theirs alone"


def test_a_revision_with_our_tags_that_is_not_ours_is_not_deployed(at: Town) -> None:
    """One who may register and tag cannot have us deploy it."""
    at.add()
    evil = [{**DEFINITION["containerDefinitions"][0], "image": "r.example/evil:1"}]
    tags = [{"key": "dev.goldsmith.rollout", "value": ROLLOUT}, {"key": "dev.goldsmith.member", "value": at.group.id}]
    at.register(containerDefinitions=evil, tags=tags)
    with pytest.raises(RefusedError, match=r"web:2 has the tags of .* and is not what it would register"):
        at.begin()
    assert at.effects("UpdateService") == 0


def test_what_it_ran_before_may_be_gone(at: Town) -> None:
    """A revision that was deregistered can be given to no service."""
    at.add()
    pinned = at.begin()
    at.until(Progress.DONE)
    at.client.deregister_task_definition(taskDefinition="web:1")
    assert "web:1, which the ECS service web ran before, is deregistered" in at.port.way_back(ROLLOUT, at.group, pinned)


REACHES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "floor": ({}, {"minimumHealthyPercent": 50, "maximumPercent": 100},
              "the ECS service web (3 tasks): its strategy lets 1 be missing, but limits.max_unavailable is 0"),
    "default": ({}, {}, "lets 3 run beside the old ones, but limits.max_surge is 1"),
    "at once": ({"max_surge": 3, "max_parallel": 2}, {}, "replaces 3 at once"),
}  # fmt: skip


@pytest.mark.parametrize("name", REACHES)
def test_a_configuration_that_breaks_a_limit_is_refused(aws: StrictAws, tmp_path: Path, name: str) -> None:
    """ECS would do what the fleet's file forbids: the floor first."""
    limits, configuration, said = REACHES[name]
    with town(aws, tmp_path, **limits) as at:
        at.add(deploymentConfiguration=configuration)
        with pytest.raises(RefusedError) as refused:
            at.port.pace(at.group, 10)
        assert said in str(refused.value)


SIDECAR = {"name": "proxy", "image": "r.example/proxy:1"}
OBSTACLES: dict[str, tuple[dict[str, Any], str]] = {
    "code deploy": ({"deploymentController": {"type": "CODE_DEPLOY"}}, "its deployment controller is CODE_DEPLOY"),
    "external": ({"deploymentController": {"type": "EXTERNAL"}}, "its deployment controller is EXTERNAL"),
    "blue green": ({"deploymentConfiguration": {**TURN, "strategy": "BLUE_GREEN"}}, "strategy is BLUE_GREEN"),
    "terraform": ({"tags": [{"key": "ManagedBy", "value": "Terraform"}]}, "it belongs to Terraform"),
    "containers": ({"definition": {"containerDefinitions": [*DEFINITION["containerDefinitions"], SIDECAR]}},
                   "several containers (web, proxy)"),
    "tags": ({"definition": {"tags": [{"key": f"k{number}", "value": ""} for number in range(49)]}}, "too many tags"),
}  # fmt: skip


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_may_not_be_touched_says_why_and_is_never_updated(at: Town, name: str) -> None:
    """Its owner would set it back, or it could not be rolled; also when that happens after the plan."""
    more, said = OBSTACLES[name]
    at.add(**copy.deepcopy(more))
    assert said in at.group.cannot_roll
    pinned = at.port.pin(at.group)
    with pytest.raises(RefusedError) as refused:
        at.begin(pinned)
    assert said in str(refused.value)
    assert (at.effects("UpdateService"), at.revisions()) == (0, ["1"])


def test_a_tag_lets_a_service_of_terraforms_be_rolled(at: Town) -> None:
    """It says that Terraform ignores the task definition."""
    mine = {"key": "dev.goldsmith.roll", "value": "yes"}
    at.add(tags=[{"key": "ManagedBy", "value": "Terraform"}, mine])
    assert at.group.cannot_roll == ""


def test_a_sidecar_stays_as_it_is(aws: StrictAws, tmp_path: Path) -> None:
    """The fleet's file names the container that becomes another."""
    with town(aws, tmp_path, {"container": "web"}, **LIMITS) as at:
        at.add(definition={"containerDefinitions": [SIDECAR, *DEFINITION["containerDefinitions"]]})
        told = (
            "its container proxy starts from what r.example/proxy:1 names then: name it by digest to keep it as it is",
        )
        assert at.group.told == told
        at.begin()
        at.until(Progress.DONE)
        assert at.running() == {at.new, "r.example/proxy:1"}


def test_a_bake_that_a_task_interrupts_begins_anew(at: Town) -> None:
    """A host that goes away makes nothing worse than late."""
    at.add()
    at.begin()
    at.until(Progress.DONE)
    at.begin_anew()
    assert at.watch().percent == 90
    at.aws.advance(15)
    assert at.watch().percent == 95
    at.client.update_service(cluster="shop", service="web", desiredCount=4)
    at.aws.advance(1)
    assert at.watch().percent < 90
    at.aws.advance(10)
    assert at.watch().percent == 90


PRIMARY = {"status": "PRIMARY", "taskDefinition": "x/web:2", "runningCount": 3, "rolloutState": "COMPLETED"}
OLDER = {"status": "ACTIVE", "taskDefinition": "x/web:1", "runningCount": 1}


@pytest.mark.parametrize(
    ("primary", "more", "running", "done"),
    [
        ({}, [], 3, True),
        ({"rolloutState": "IN_PROGRESS"}, [], 3, False),
        ({"rolloutState": "FAILED"}, [], 3, False),
        ({}, [OLDER], 3, False),
        ({}, [], 4, False),
        ({"runningCount": 2}, [], 2, False),
    ],
)
def test_done_is_when_nothing_of_an_earlier_deployment_runs_and_all_tasks_do(
    primary: dict[str, Any], more: list[dict[str, Any]], running: int, done: bool
) -> None:
    """ECS may call a deployment completed before (earlySuccessCriteria)."""
    shown = {"desiredCount": 3, "runningCount": running, "deployments": [{**PRIMARY, **primary}, *more]}
    assert deploying(Service(shown, Revision({}, {}), "web")).done is done
