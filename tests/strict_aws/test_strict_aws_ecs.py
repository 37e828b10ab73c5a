"""The emulator's ECS and EKS are as strict as AWS: what is refused, what is listed, and what a token makes one."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.strict_aws import StrictAws

CONTAINER = {"name": "web", "image": "r.example/web:1", "memory": 64}


@pytest.fixture
def ecs(aws: StrictAws) -> Any:
    made = aws.client("ecs", parameter_validation=False)
    made.create_cluster(clusterName="shop")
    return made


def refused(call: Any, code: str, **asked: Any) -> None:
    with pytest.raises(ClientError) as raised:
        call(**asked)
    assert raised.value.response["Error"]["Code"] == code


def test_a_registration_is_a_new_revision_each_time(ecs: Any) -> None:
    """Named by the family alone it is the latest that is active."""
    for _ in range(3):
        ecs.register_task_definition(family="web", containerDefinitions=[CONTAINER])
    ecs.deregister_task_definition(taskDefinition="web:3")
    assert ecs.describe_task_definition(taskDefinition="web")["taskDefinition"]["revision"] == 2
    listed = ecs.list_task_definitions(familyPrefix="web", sort="DESC")["taskDefinitionArns"]
    assert [one.rpartition(":")[2] for one in listed] == ["2", "1"]
    first = ecs.list_task_definitions(familyPrefix="web", maxResults=1)
    assert first["nextToken"]
    refused(ecs.list_task_definitions, "InvalidParameterException", maxResults=101)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"family": "web"}, "ValidationException"),
        ({"family": "a b", "containerDefinitions": [CONTAINER]}, "ClientException"),
        ({"family": "web", "containerDefinitions": [{"name": "web"}]}, "ClientException"),
        ({"family": "web", "containerDefinitions": [CONTAINER], "networkMode": "bridged"}, "ValidationException"),
        ({"family": "web", "containerDefinitions": [CONTAINER], "requiresCompatibilities": ["FARGATE"]},
         "ClientException"),
        ({"family": "web", "containerDefinitions": [CONTAINER], "tags": [{"key": "aws:x", "value": "y"}]},
         "InvalidParameterException"),
    ],
)  # fmt: skip
def test_what_no_task_definition_is_is_refused(ecs: Any, asked: dict[str, Any], code: str) -> None:
    """By botocore's model, or by the service."""
    refused(ecs.register_task_definition, code, **asked)


def test_listings_and_descriptions_have_their_limits(aws: StrictAws, ecs: Any) -> None:
    """Ten services, a hundred tasks; what is missing is a failure of the answer."""
    ecs.register_task_definition(family="web", containerDefinitions=[CONTAINER])
    asked = {"cluster": "shop", "taskDefinition": "web", "desiredCount": 120, "serviceName": "web"}
    ecs.create_service(**asked)
    aws.advance(5)
    refused(ecs.describe_services, "InvalidParameterException", cluster="shop", services=["x"] * 11)
    refused(ecs.describe_tasks, "InvalidParameterException", cluster="shop", tasks=["x"] * 101)
    refused(ecs.describe_services, "ClusterNotFoundException", cluster="other", services=["web"])
    failures = ecs.describe_services(cluster="shop", services=["x", "web"])["failures"]
    assert [one["reason"] for one in failures] == ["MISSING"]
    first = ecs.list_tasks(cluster="shop", serviceName="web")
    more = ecs.list_tasks(cluster="shop", serviceName="web", nextToken=first["nextToken"])
    assert (len(first["taskArns"]), len(more["taskArns"])) == (100, 20)


def test_a_deployment_stays_within_its_percentages_and_the_same_revision_begins_none(aws: StrictAws, ecs: Any) -> None:
    """The minimum is rounded up, the maximum down; an inactive revision is refused."""
    aws.takes(task=5)
    aws.freeze()
    for _ in range(2):
        ecs.register_task_definition(family="web", containerDefinitions=[CONTAINER])
    limits = {"minimumHealthyPercent": 50, "maximumPercent": 150}
    ecs.create_service(cluster="shop", serviceName="web", taskDefinition="web:1", desiredCount=3,
                       deploymentConfiguration=limits)  # fmt: skip
    aws.advance(30)

    def shown() -> dict[str, Any]:
        return dict(ecs.describe_services(cluster="shop", services=["web"])["services"][0])

    ecs.update_service(cluster="shop", service="web", taskDefinition="web:1")
    assert len(shown()["deployments"]) == 1
    ecs.update_service(cluster="shop", service="web", taskDefinition="web:2")
    seen = []
    for _ in range(40):
        aws.advance(1)
        one = shown()
        seen.append((one["runningCount"], one["runningCount"] + one["pendingCount"]))
    assert min(running for running, _ in seen) >= 2
    assert max(there for _, there in seen) <= 4
    assert [one["rolloutState"] for one in shown()["deployments"]] == ["COMPLETED"]
    ecs.deregister_task_definition(taskDefinition="web:1")
    refused(ecs.update_service, "ClientException", cluster="shop", service="web", taskDefinition="web:1")
    never = {"minimumHealthyPercent": 100, "maximumPercent": 100}
    refused(ecs.update_service, "InvalidParameterException", cluster="shop", service="web",
            deploymentConfiguration=never)  # fmt: skip


def test_what_the_emulator_lacks_is_said(aws: StrictAws, ecs: Any) -> None:
    """Nothing is moto's."""
    refused(ecs.run_task, "NotImplemented", taskDefinition="web")
    refused(aws.client("eks").list_addons, "NotImplemented", clusterName="shop")
    refused(aws.client("eks").list_nodegroups, "ResourceNotFoundException", clusterName="shop")
