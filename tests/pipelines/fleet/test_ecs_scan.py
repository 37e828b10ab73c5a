"""Tasks of ECS services are found by name or tag, and judged like containers; what ECS does not tell is unread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError, RefusedError
from hardening.runtime import ContainerFacts, Mount
from images.aws.client import Client
from pipelines.fleet.ecs.services import Revision
from pipelines.fleet.ecs.task_facts import EXECUTED, NO_IMAGE_USER, TaskContainer, facts_of
from tests.strict_aws import Fault, StrictAws
from tests.support.ecs import DEFINITION, OLD, ROLLOUT, TAGGED, Town, town

DIGEST = f"sha256:{5:064x}"


@pytest.fixture
def at(aws: StrictAws, tmp_path: Path) -> Iterator[Town]:
    with town(aws, tmp_path) as made:
        yield made


def container(own: dict[str, Any], task: dict[str, Any] | None = None, **whole: Any) -> TaskContainer:
    """A container of a task, by what its definition and the task's say."""
    definition = {"containerDefinitions": [{"name": "web", "image": OLD, **own}], **whole}
    shown = {"name": "web", "image": OLD, "lastStatus": "RUNNING"}
    running = {"taskArn": "x/1", "lastStatus": "RUNNING", "desiredStatus": "RUNNING", **(task or {})}
    return TaskContainer(running, shown, Revision(definition, {}))


def facts(own: dict[str, Any], image_user: str | None = "app", **whole: Any) -> ContainerFacts:
    found = facts_of(container(own, **whole), image_user)
    assert found is not None
    return found


def test_members_are_the_containers_of_tasks_by_the_digest_that_runs(at: Town) -> None:
    """Whatever their tag names since; a protected task keeps its protection."""
    at.add_tagged(DIGEST)
    members = at.tasks.seen().members
    assert len(members) == 3
    one = members[0]
    assert (one.image, one.digests, one.exact) == (TAGGED, (DIGEST,), f"r.example/web@{DIGEST}")
    assert (one.healthy, one.group, one.cannot_roll) == (True, at.group.id, "the ECS service web rolls it")
    assert one.id.startswith("123456789012/eu-central-1/ecs/shop/web-")
    assert at.tasks.describe() == ()
    with pytest.raises(RefusedError):
        at.tasks.start(None)  # type: ignore[arg-type]


def test_an_image_whose_digest_is_not_told_is_known_by_nothing(at: Town) -> None:
    """A task that is pending has none yet."""
    at.aws.takes(task=1000)
    at.add_tagged(DIGEST)
    assert {one.digests for one in at.tasks.seen().members} == {(TAGGED,)}
    assert not any(one.healthy for one in at.tasks.seen().members)


def test_one_that_was_started_by_a_digest_is_known_by_that_too() -> None:
    """What ECS tells may be the digest of one platform, of an image that has several."""
    one = container({})
    shown = {**one.shown, "image": f"r.example/web@{DIGEST}", "imageDigest": f"sha256:{7:064x}"}
    assert replace(one, shown=shown).digests == (f"sha256:{7:064x}", DIGEST)
    assert replace(one, shown={**shown, "imageDigest": "sha256:short"}).digests == (DIGEST,)


def test_services_are_selected_by_their_tags_exactly(aws: StrictAws, tmp_path: Path) -> None:
    """All of them are asked for, in the pages and portions that ECS gives."""
    with town(aws, tmp_path) as at:
        at.selector = {"app": "web"}
        at.begin_anew()
        for number in range(23):
            tags = [{"key": "app", "value": "web" if number % 2 else "other"}]
            at.add(f"s{number}", tags=tags, desiredCount=1)
        aws.limit_pages(7)
        assert len(at.port.groups()) == 11
        assert len(at.tasks.seen().members) == 11
        assert {len(one["params"]["services"]) for one in aws.calls("ecs", "DescribeServices")} <= set(range(1, 11))


def test_many_tasks_are_described_in_portions(at: Town) -> None:
    """A hundred at once is what ECS takes."""
    at.add(desiredCount=130)
    assert len(at.tasks.seen().members) == 130


def test_a_service_that_is_named_and_not_there_is_unread(at: Town) -> None:
    """Nothing of it is compliant: it may be written wrongly, or in another cluster."""
    at.add("other")
    seen = at.tasks.seen()
    assert [(one.id.rpartition("/")[2], one.why) for one in seen.unread] == [("web", "no ECS service has this name")]
    at.add()
    at.client.delete_service(cluster="shop", service="web", force=True)
    assert len(at.tasks.seen().unread) == 1
    with pytest.raises(OutsideError, match="not every service of the fleet can be read"):
        at.port.groups()


@pytest.mark.parametrize("operation", ["DescribeServices", "ListTasks", "DescribeTasks", "DescribeTaskDefinition"])
@pytest.mark.parametrize("kind", ["denied", "error"])
@pytest.mark.usefixtures("at_once")
def test_what_cannot_be_read_is_unread_and_no_pass(at: Town, operation: str, kind: str) -> None:
    """Exit code 4."""
    at.add()
    at.begin_anew()
    with at.aws.faulty(Fault(kind, "ecs", operation)):
        seen = at.tasks.seen()
    assert (seen.members, [one.id for one in seen.unread]) == ((), ["123456789012/eu-central-1/ecs/shop"])
    assert f"ecs:{operation}" in seen.unread[0].why


def test_an_answer_that_no_api_gives_is_an_error_of_the_outside(at: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unread: never a traceback, and never a fleet without members; failures of single services too."""
    at.add()
    real = Client.call

    def call(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        answer = real(self, operation, **request)
        if operation == "DescribeTasks":
            for task in answer["tasks"]:
                del task["taskDefinitionArn"]
        return answer

    monkeypatch.setattr(Client, "call", call)
    assert "the answer of ECS in eu-central-1 is not understood" in at.tasks.seen().unread[0].why
    failure = {"services": [], "failures": [{"arn": "x/web", "reason": "ACCESS"}]}
    monkeypatch.setattr(Client, "call", lambda *_given, **_more: failure)
    assert "x/web ACCESS" in at.tasks.seen().unread[0].why


@pytest.mark.parametrize(("operation", "key"), [("DescribeServices", "services"), ("DescribeTasks", "tasks")])
def test_what_is_silently_left_out_of_an_answer_is_unread(
    at: Town, monkeypatch: pytest.MonkeyPatch, operation: str, key: str
) -> None:
    """Neither shown nor said to be missing: what is not seen might be anything."""
    at.add()
    real = Client.call

    def call(self: Client, asked: str, **request: Any) -> dict[str, Any]:
        answer = real(self, asked, **request)
        return {**answer, key: answer[key][1:]} if asked == operation else answer

    monkeypatch.setattr(Client, "call", call)
    seen = at.tasks.seen()
    assert (seen.members, len(seen.unread)) == ((), 1)
    assert "omitted something without a reason" in seen.unread[0].why


def test_a_service_that_is_named_and_has_not_the_tags_is_unread(at: Town) -> None:
    """Its file says that it is the fleet's: it is not left out without a word."""
    at.add()
    at.fleet = at.fleet.model_copy(update={"selector": {"app": "shop"}})
    at.reader.fleet = at.fleet
    seen = at.tasks.seen()
    assert (seen.members, [one.why for one in seen.unread]) == ((), ["it has not the tags of the selector"])


BODIES: dict[str, Any] = {
    "kind": b'{"services": "web"}', "depth": b"[" * 200_000, "number": b'{"services": [{"serviceName": "web", '
    b'"desiredCount": "many", "tags": [{}]}]}', "moment": b'{"services": [{"createdAt": "soon"}]}',
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_an_answer_of_another_form_is_an_error_of_the_outside(
    at: Town, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever answers in AWS's place: no traceback, for a scan as for each step of a rollout."""
    from botocore.awsrequest import AWSResponse

    at.add()
    group, pinned = at.group, at.port.pin(at.group)
    monkeypatch.setattr(AWSResponse, "content", BODIES[name])
    seen = at.tasks.seen()
    assert (seen.members, len(seen.unread)) == ((), 1)
    for step in (
        at.port.groups,
        lambda: at.port.pin(group),
        lambda: at.port.watch(ROLLOUT, group),
        lambda: at.port.cancel(ROLLOUT, group, pinned),
        lambda: at.port.way_back(ROLLOUT, group, pinned),
        lambda: at.port.roll_back(ROLLOUT, group, pinned),
        lambda: at.port.begin(ROLLOUT, group, at.target, pinned, None),
    ):
        with pytest.raises(OutsideError):
            step()


def test_a_container_that_aws_added_is_unread_and_not_rolled(at: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the proxy of Service Connect, of which no task definition says anything."""
    at.add(desiredCount=1)
    real = Client.call

    def call(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        answer = real(self, operation, **request)
        for task in answer.get("tasks", ()) if operation == "DescribeTasks" else ():
            task["containers"].append({"name": "ecs-service-connect-x", "image": "", "lastStatus": "RUNNING"})
        return answer

    monkeypatch.setattr(Client, "call", call)
    members = {one.name.partition(":")[2]: one for one in at.tasks.seen().members}
    added = members["ecs-service-connect-x"]
    assert (added.group, added.beside, added.cannot_roll) == ("", "", "AWS adds it to the task, and rolls it")
    observed = at.tasks.observe([added])[added.id]
    assert (observed.now, observed.unread) == (None, "AWS has added it: no task definition says how it runs")


def test_how_a_container_runs_is_read_from_its_task_definition() -> None:
    """Each fact by its own field."""
    plain = facts({})
    assert (plain.user, plain.privileged, plain.writable_root, plain.no_new_privileges) == ("app", False, True, False)
    assert (plain.memory_bytes, plain.cpus, plain.capabilities, plain.host_namespaces) == (0, 0, (), ())
    tight = facts(
        {
            "user": "0:0", "privileged": True, "readonlyRootFilesystem": True, "memory": 256, "cpu": 64,
            "linuxParameters": {"capabilities": {"add": ["SYS_PTRACE", "NET_ADMIN"]},
                                "tmpfs": [{"containerPath": "/tmp", "size": 1, "mountOptions": ["ro"]}]},
            "dockerSecurityOptions": ["no-new-privileges", "apparmor:unconfined"],
            "mountPoints": [{"sourceVolume": "host", "containerPath": "/h", "readOnly": True},
                            {"sourceVolume": "data", "containerPath": "/d"}],
        },
        cpu="512", memory="1024", networkMode="host", pidMode="host", ipcMode="task",
        volumes=[{"name": "host", "host": {"sourcePath": "/var/run/docker.sock"}}, {"name": "data", "host": {}}],
    )  # fmt: skip
    assert (tight.user, tight.privileged, tight.writable_root) == ("0:0", True, False)
    assert (tight.memory_bytes, tight.cpus) == (256 * 1024 * 1024, 0.5)
    assert (tight.no_new_privileges, tight.daemon) == (True, ("it is not confined (apparmor:unconfined)",))
    assert (tight.capabilities, tight.host_namespaces) == (("NET_ADMIN", "SYS_PTRACE"), ("network", "pid"))
    assert tight.mounts == (
        Mount("bind", "/var/run/docker.sock", "/h", writable=False),
        Mount("volume", "data", "/d", writable=True),
        Mount("tmpfs", "", "/tmp", writable=False),
    )


def test_mounts_of_another_container_are_its_own_too() -> None:
    """volumesFrom mounts all that the other one has."""
    own = container({"volumesFrom": [{"sourceContainer": "side", "readOnly": True}]},
                    volumes=[{"name": "host", "host": {"sourcePath": "/"}}])  # fmt: skip
    side = {"name": "side", "image": "x", "mountPoints": [{"sourceVolume": "host", "containerPath": "/h"}]}
    shown = own.revision.shown
    both = {**shown, "containerDefinitions": [*shown["containerDefinitions"], side]}
    found = facts_of(replace(own, revision=Revision(both, {})), "app")
    assert found is not None
    assert found.mounts == (Mount("bind", "/", "/h", writable=False),)


def test_what_is_not_told_is_unread() -> None:
    """The image's user is not known; and only Fargate without ECS Exec lets nothing be started from outside."""
    assert dict(facts({}, None).unread)["root_user"] == NO_IMAGE_USER
    assert set(dict(facts({}).unread)) == {"changed_files", "foreign_processes"}
    assert dict(facts({"readonlyRootFilesystem": True}).unread) == {"foreign_processes": EXECUTED}
    enclosed = {"launchType": "FARGATE", "enableExecuteCommand": False}
    assert facts({"readonlyRootFilesystem": True}, task=enclosed).unread == ()
    for task in (
        {**enclosed, "enableExecuteCommand": True},
        {"launchType": "FARGATE"},
        {**enclosed, "launchType": "EC2"},
    ):
        assert "foreign_processes" in dict(facts({"readonlyRootFilesystem": True}, task=task).unread), task


def test_a_health_check_that_has_not_passed_is_not_healthy() -> None:
    """Where there is one, ECS's word for it counts; UNKNOWN is not good then."""
    checked = {"healthCheck": {"command": ["CMD", "true"]}}
    for own, health, good in (({}, "UNKNOWN", True), ({}, "UNHEALTHY", False), (checked, "UNKNOWN", False),
                              (checked, "HEALTHY", True)):  # fmt: skip
        one = container(own)
        assert replace(one, shown={**one.shown, "healthStatus": health}).healthy is good
    assert not container({}, task={"desiredStatus": "STOPPED"}).healthy


def test_a_wrong_word_of_protection_protects_until_somebody_mends_it(at: Town) -> None:
    """Tags of the task, which its definition may hand on."""
    tags = [{"key": "dev.goldsmith.do-not-disrupt-until", "value": "tomorrow"}]
    at.add(definition={"tags": [*DEFINITION["tags"], *tags]}, propagateTags="TASK_DEFINITION")
    assert {one.cannot_roll.partition(" is no")[0] for one in at.tasks.seen().members} == {
        "its label dev.goldsmith.do-not-disrupt-until"
    }
