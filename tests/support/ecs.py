"""What tests of ECS fleets share: a cluster with a service in the emulator, and its fleet under the ports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from images.aws.cloud import Cloud
from pipelines.fleet.docker.container_spec import Json
from pipelines.fleet.ecs.groups import ServiceFleet
from pipelines.fleet.ecs.members import ClusterReader, TaskFleet
from pipelines.fleet.model import Fleet
from tests.strict_aws import StrictAws
from tests.support.cloud import cloud_for, settings_at
from tests.support.followed import FollowedCluster, Following

ROLLOUT = "web-20260301120000-123456"
OLD, TAGGED = f"r.example/web@sha256:{1:064x}", "r.example/web:1"
TURN = {"maximumPercent": 134, "minimumHealthyPercent": 100}  # one more of three
DEFINITION: dict[str, Any] = {
    "family": "web",
    "networkMode": "awsvpc",
    "requiresCompatibilities": ["FARGATE"],
    "cpu": "256",
    "memory": "512",
    "taskRoleArn": "arn:aws:iam::123456789012:role/web",
    "runtimePlatform": {"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"},
    "containerDefinitions": [
        {
            "name": "web",
            "image": OLD,
            "environment": [{"name": "MODE", "value": "live"}],
            "secrets": [{"name": "KEY", "valueFrom": "arn:aws:ssm:eu-central-1:123456789012:parameter/key"}],
            "user": "10001",
            "readonlyRootFilesystem": True,
            "portMappings": [{"containerPort": 8080, "protocol": "tcp"}],
            "ulimits": [{"name": "nofile", "softLimit": 1024, "hardLimit": 4096}],
        }
    ],
    "tags": [{"key": "team", "value": "shop"}],
}


@dataclass
class Town(FollowedCluster):
    """A cluster, and a fleet of it as a process sees it; `begin_anew` is another process."""

    aws: StrictAws
    cloud: Cloud
    limits: dict[str, Any]
    ecs: dict[str, Any] = field(default_factory=dict)
    selector: dict[str, str] = field(default_factory=dict)
    rollout, size, looks = ROLLOUT, 3, 400

    def __post_init__(self) -> None:
        self.client.create_cluster(clusterName="shop")
        self.begin_anew()

    @property
    def client(self) -> Any:
        return self.aws.client("ecs")

    def begin_anew(self) -> None:
        given = {
            "name": "web", "title": "The web servers", "owner": "platform team", "kind": "ecs",
            "replacement": {"definition": "nginx"}, "limits": self.limits,
            "selector": self.selector,
            "ecs": {"cluster": "shop", "services": [] if self.selector else ["web"], **self.ecs},
        }  # fmt: skip
        self.fleet = Fleet.model_validate(given)
        self.reader = ClusterReader(self.fleet, self.cloud)
        self.users: dict[str, Json | None] = {}
        self.tasks = TaskFleet(self.reader, self.users.get)
        self.port: Any = Following(ServiceFleet(self.fleet, self.reader, self.cloud, self.now), self.catch_up)

    def marks(self) -> tuple[Any, ...]:
        """What tells one state of it from another."""
        deployments = [(one["taskDefinition"], one["rolloutState"], one["runningCount"])
                       for one in self.shown()["deployments"]]  # fmt: skip
        return len(self.revisions()), tuple(deployments)

    def answer(self) -> dict[str, Any]:
        return self.client.list_services(cluster="shop")

    def register(self, **more: Any) -> str:
        """A revision of the task definition; its name."""
        made = self.client.register_task_definition(**{**DEFINITION, **more})["taskDefinition"]
        return f"{made['family']}:{made['revision']}"

    def add(self, name: str = "web", *, definition: dict[str, Any] | None = None, **more: Any) -> None:
        """A service of three tasks that run."""
        revision = self.register(**(definition or {}))
        asked = {"serviceName": name, "desiredCount": 3, "deploymentConfiguration": TURN, "taskDefinition": revision}
        asked |= {"cluster": "shop", "launchType": "FARGATE", **more}
        self.client.create_service(**{key: value for key, value in asked.items() if value is not None})
        self.aws.advance(10)

    def shown(self, name: str = "web") -> dict[str, Any]:
        """A service as it is shown."""
        return dict(self.client.describe_services(cluster="shop", services=[name])["services"][0])

    def definition(self, name: str) -> dict[str, Any]:
        """A revision as it is shown, with its tags."""
        answer = self.client.describe_task_definition(taskDefinition=name, include=["TAGS"])
        return {**answer["taskDefinition"], "tags": {one["key"]: one["value"] for one in answer["tags"]}}

    def add_tagged(self, *digests: str) -> None:
        """A service of three tasks whose task definition names a tag, which named each of these digests in turn."""
        containers = [{**DEFINITION["containerDefinitions"][0], "image": TAGGED}]
        for number, digest in enumerate(digests):
            self.aws.digests(**{TAGGED: digest})
            if number:
                self.client.update_service(cluster="shop", service="web", desiredCount=3)
                self.aws.advance(10)
            else:
                self.add(definition={"containerDefinitions": containers}, desiredCount=3 if len(digests) == 1 else 2)
            self.shown()  # what was to happen by now has

    def digests(self) -> set[str]:
        """The digests of what the tasks of the service run."""
        return {digest for one in self.tasks.seen().members for digest in one.digests}

    def running(self, name: str = "web") -> set[str]:
        """The images that tasks of a service run."""
        arns = self.client.list_tasks(cluster="shop", serviceName=name)["taskArns"]
        tasks = self.client.describe_tasks(cluster="shop", tasks=arns)["tasks"] if arns else []
        return {one["image"] for task in tasks for one in task["containers"] if task["lastStatus"] == "RUNNING"}

    def revisions(self) -> list[str]:
        """The numbers of what is registered."""
        arns = self.client.list_task_definitions(familyPrefix="web")["taskDefinitionArns"]
        return [one.rpartition(":")[2] for one in arns]

    def effects(self, operation: str) -> int:
        """How often something was done."""
        return len(self.aws.calls("ecs", operation, effect=True))

    @property
    def new(self) -> str:
        """The reference of the replacement."""
        return self.target.reference


@contextmanager
def town(
    aws: StrictAws, folder: Path, ecs: dict[str, Any] | None = None, *, frozen: bool = True, **limits: Any
) -> Iterator[Town]:
    """A cluster whose clock stands still but when it is moved, unless it is not `frozen`."""
    aws.takes(task=3 if frozen else 0.5)
    settings = settings_at(aws, folder, regions=(), share_accounts=(), share_organizations=())
    cloud = cloud_for(settings)
    cloud.clients.pause = aws.advance
    if frozen:
        aws.freeze()
    yield Town(aws, cloud, limits, ecs or {})
    cloud.ledger.close()
