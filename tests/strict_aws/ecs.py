"""ECS: clusters, revisions of task definitions, services and their tasks, by the API reference; nothing of moto's."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

from tests.strict_aws.ecs_deployments import Deployment, Service, Task, deploy, fresh, of, start
from tests.strict_aws.errors import AwsError
from tests.strict_aws.listing import part
from tests.strict_aws.wire import Call
from tests.strict_aws.world import World

NAMED = re.compile(r"[A-Za-z0-9_-]{1,255}")
FAMILY = re.compile(r"([A-Za-z0-9_-]{1,255})(?::([1-9][0-9]*))?")
TAG = re.compile(r"[\w\s.:/=+@-]*")
DEFINITION = ("family", "containerDefinitions", "volumes", "placementConstraints", "taskRoleArn", "executionRoleArn",
              "networkMode", "requiresCompatibilities", "cpu", "memory", "pidMode", "ipcMode", "proxyConfiguration",
              "inferenceAccelerators", "ephemeralStorage", "runtimePlatform", "enableFaultInjection")  # fmt: skip
EMPTY = {"cpu": 0, "portMappings": [], "essential": True, "environment": [], "mountPoints": [], "volumesFrom": [],
         "systemControls": []}  # fmt: skip
"""What a registered container shows where nothing was said of it."""


def arn(call: Call, kind: str, name: str) -> str:
    return f"arn:aws:ecs:{call.region}:{call.account}:{kind}/{name}"


def wrong(message: str) -> AwsError:
    return AwsError("InvalidParameterException", message, 400)


def client(message: str) -> AwsError:
    return AwsError("ClientException", message, 400)


# -- clusters and task definitions -------------------------------------------------------------------------------------


def create_cluster(world: World, call: Call) -> dict[str, Any]:
    name = call.params.get("clusterName", "default")
    of(world, call).clusters.setdefault(name, {})
    return {"cluster": {"clusterName": name, "clusterArn": arn(call, "cluster", name), "status": "ACTIVE"}}


def check_tags(given: list[dict[str, str]] | None) -> list[dict[str, str]]:
    given = given or []
    keys = [one.get("key", "") for one in given]
    if len(given) > 50 or len({*keys}) < len(keys):
        raise wrong("Tags: too many, or one key twice")
    for one in given:
        if one.get("key", "").lower().startswith("aws:"):
            raise wrong("Tag keys that begin with aws: are reserved")
        if not (TAG.fullmatch(one.get("key", "")) and TAG.fullmatch(one.get("value", ""))):
            raise wrong(f"Invalid tag {one}")
    return given


def register(world: World, call: Call) -> dict[str, Any]:
    """A new revision each time: there is no token."""
    params, here = copy.deepcopy(call.params), of(world, call)
    tags = check_tags(params.pop("tags", None))
    if not NAMED.fullmatch(params["family"]):
        raise client(f"Invalid family {params['family']}")
    containers = params["containerDefinitions"]
    if not containers or any("image" not in one or "name" not in one for one in containers):
        raise client("Container.image and Container.name should not be null or empty.")
    fargate = "FARGATE" in params.get("requiresCompatibilities", [])
    if fargate and (not params.get("cpu") or not params.get("memory") or params.get("networkMode") != "awsvpc"):
        raise client("Fargate requires task definition to have cpu, memory and network mode awsvpc.")
    if not params.get("memory") and any(not {"memory", "memoryReservation"} & one.keys() for one in containers):
        raise client(
            "Invalid setting for container. At least one of 'memory' or 'memoryReservation' must be specified."
        )
    volumes = {one["name"] for one in params.get("volumes", [])}
    if any(mount["sourceVolume"] not in volumes for one in containers for mount in one.get("mountPoints", [])):
        raise client("Unknown volume")
    family = here.families.setdefault(params["family"], [])
    number = len(family) + 1
    shown = {key: params[key] for key in DEFINITION if key in params}
    shown["containerDefinitions"] = [{**EMPTY, **one} for one in containers]
    shown |= {
        "volumes": params.get("volumes", []), "placementConstraints": params.get("placementConstraints", []),
        "taskDefinitionArn": arn(call, "task-definition", f"{params['family']}:{number}"), "revision": number,
        "status": "ACTIVE", "registeredAt": world.now(), "registeredBy": f"arn:aws:iam::{call.account}:root",
        "compatibilities": ["EC2", *(["FARGATE"] if fargate else [])], "requiresAttributes": [],
    }  # fmt: skip
    family.append(shown)
    here.tags[shown["taskDefinitionArn"]] = tags
    return {"taskDefinition": copy.deepcopy(shown), "tags": tags}


def revision(world: World, call: Call, named: str, *, active: bool = False) -> dict[str, Any]:
    """A revision by its ARN, its name with number, or its family: the latest that is active."""
    found = FAMILY.fullmatch(named.rpartition("/")[2])
    family = of(world, call).families.get(found[1], []) if found else []
    if found and found[2]:
        matched = [one for one in family if one["revision"] == int(found[2])]
    else:
        matched = [one for one in family if one["status"] == "ACTIVE"][-1:]
    if not matched:
        raise client("Unable to describe task definition.")
    if active and matched[0]["status"] != "ACTIVE":
        raise client("TaskDefinition is inactive")
    return matched[0]


def describe_definition(world: World, call: Call) -> dict[str, Any]:
    found = revision(world, call, call.params["taskDefinition"])
    tagged = {"tags": of(world, call).tags[found["taskDefinitionArn"]]}
    return {"taskDefinition": copy.deepcopy(found), **(tagged if "TAGS" in call.params.get("include", []) else {})}


def deregister(world: World, call: Call) -> dict[str, Any]:
    if not re.search(r":[0-9]+$", call.params["taskDefinition"]):
        raise client("Task definition: a revision is needed")
    found = revision(world, call, call.params["taskDefinition"])
    found["status"], found["deregisteredAt"] = "INACTIVE", world.now()
    return {"taskDefinition": copy.deepcopy(found)}


def list_definitions(world: World, call: Call) -> dict[str, Any]:
    here, params = of(world, call), call.params
    families = [params["familyPrefix"]] if "familyPrefix" in params else sorted(here.families)
    found = [one for name in families for one in here.families.get(name, [])]
    found = [one["taskDefinitionArn"] for one in found if one["status"] == params.get("status", "ACTIVE")]
    return paged(world, call, found[::-1] if params.get("sort") == "DESC" else found, "taskDefinitionArns")


def paged(world: World, call: Call, found: list[str], key: str, most: int = 100, usual: int = 100) -> dict[str, Any]:
    size = call.params.get("maxResults")
    if size is not None and not 1 <= size <= most:
        raise wrong(f"maxResults must be between 1 and {most}")
    try:
        shown, more = part(found, call.params.get("nextToken"), min(size or usual, world.page_at_most))
    except AwsError:
        raise wrong("Invalid token") from None
    return {key: shown, **({"nextToken": more["NextToken"]} if more else {})}


def tag(world: World, call: Call) -> dict[str, Any]:
    """Tags a revision or a service."""
    here, named, given = of(world, call), call.params["resourceArn"], check_tags(call.params["tags"])
    services = {one.shown["serviceArn"]: one for cluster in here.clusters.values() for one in cluster.values()}
    if named in services:
        held = services[named].tags
    elif named in here.tags:
        held = here.tags[named]
    else:
        raise client("The specified resource does not exist")
    held[:] = [one for one in held if one["key"] not in {tag["key"] for tag in given}] + given
    return {}


# -- services ----------------------------------------------------------------------------------------------------------


def cluster(world: World, call: Call) -> dict[str, Service]:
    name = call.params.get("cluster", "default").rpartition("/")[2]
    if name not in of(world, call).clusters:
        raise AwsError("ClusterNotFoundException", "Cluster not found.", 400)
    return of(world, call).clusters[name]


def configured(given: dict[str, Any], daemon: bool) -> dict[str, Any]:
    """A deployment configuration with what holds where nothing is said. Raises AwsError for one that cannot be."""
    made = {
        "deploymentCircuitBreaker": {"enable": False, "rollback": False},
        "maximumPercent": 100 if daemon else 200, "minimumHealthyPercent": 0 if daemon else 100,
        "strategy": "ROLLING", "bakeTimeInMinutes": 0, **given,
    }  # fmt: skip
    least, most = made["minimumHealthyPercent"], made["maximumPercent"]
    if least < 0 or most < 1 or least > most or (least == most == 100 and not daemon) or least > 100:
        raise wrong("The specified deployment configuration is invalid: it lets nothing be replaced")
    return made


def create_service(world: World, call: Call) -> dict[str, Any]:
    services, params = cluster(world, call), call.params
    name, controller = params["serviceName"], params.get("deploymentController", {"type": "ECS"})
    daemon = params.get("schedulingStrategy") == "DAEMON"
    if name in services and services[name].shown["status"] == "ACTIVE":
        raise wrong("Creation of service was not idempotent.")
    found = revision(world, call, params["taskDefinition"], active=True) if "taskDefinition" in params else {}
    if not found and controller["type"] != "EXTERNAL":
        raise wrong("TaskDefinition can not be blank.")
    where = params.get("cluster", "default").rpartition("/")[2]
    shown = {
        "serviceName": name, "serviceArn": arn(call, "service", f"{where}/{name}"), "status": "ACTIVE",
        "clusterArn": arn(call, "cluster", where), "desiredCount": params.get("desiredCount", 1),
        "launchType": params.get("launchType", "EC2"), "deploymentController": controller,
        "deploymentConfiguration": configured(params.get("deploymentConfiguration", {}), daemon),
        "schedulingStrategy": params.get("schedulingStrategy", "REPLICA"), "createdAt": world.now(),
        "enableExecuteCommand": params.get("enableExecuteCommand", False), "events": [], "loadBalancers": [],
        "propagateTags": params.get("propagateTags", "NONE"),
        **({"taskDefinition": found["taskDefinitionArn"]} if found else {}),
    }  # fmt: skip
    made = Service(shown, check_tags(params.get("tags")), [])
    if found:
        made.deployments.append(Deployment(fresh(), found, world.now()))
        start(world, call, made)
    services[name] = made
    return {"service": describe(made)}


def update_service(world: World, call: Call) -> dict[str, Any]:
    """Another revision begins a deployment; the same one begins none, unless it is forced."""
    services, params = cluster(world, call), call.params
    found = services.get(params["service"].rpartition("/")[2])
    if found is None:
        raise AwsError("ServiceNotFoundException", "Service not found.", 400)
    if found.shown["status"] != "ACTIVE":
        raise AwsError("ServiceNotActiveException", "Service was not ACTIVE.", 400)
    controller = found.shown["deploymentController"]["type"]
    if controller != "ECS" and {"taskDefinition", "deploymentConfiguration"} & params.keys():
        raise wrong(f"Unable to update task definition on services with a {controller} deployment controller.")
    daemon = found.shown["schedulingStrategy"] == "DAEMON"
    if "deploymentConfiguration" in params:  # what is left out of it is as before
        given = {**found.shown["deploymentConfiguration"], **params["deploymentConfiguration"]}
        found.shown["deploymentConfiguration"] = configured(given, daemon)
    found.shown["desiredCount"] = params.get("desiredCount", found.desired)
    if "taskDefinition" in params or params.get("forceNewDeployment"):
        wanted = revision(world, call, params.get("taskDefinition", found.shown["taskDefinition"]), active=True)
        if wanted["taskDefinitionArn"] != found.shown["taskDefinition"] or params.get("forceNewDeployment"):
            deploy(world, call, found, wanted)
    start(world, call, found)
    return {"service": describe(found)}


def delete_service(world: World, call: Call) -> dict[str, Any]:
    found = cluster(world, call).get(call.params["service"].rpartition("/")[2])
    if found is None:
        raise AwsError("ServiceNotFoundException", "Service not found.", 400)
    found.shown["status"], found.tasks, found.deployments = "INACTIVE", [], []
    return {"service": describe(found)}


def describe(service: Service, *, tags: bool = False) -> dict[str, Any]:
    pending = [one for one in service.alive() if not one.started]
    shown = copy.deepcopy(service.shown)
    shown |= {"runningCount": len(service.alive()) - len(pending), "pendingCount": len(pending)}
    shown["deployments"] = [
        {
            "id": one.id, "status": one.status, "taskDefinition": one.revision["taskDefinitionArn"],
            "desiredCount": service.desired if one.status == "PRIMARY" else 0,
            "runningCount": sum(bool(task.started) for task in service.of(one)),
            "pendingCount": sum(not task.started for task in service.of(one)),
            "failedTasks": one.failed, "createdAt": one.created, "updatedAt": one.created,
            "rolloutState": one.state, "rolloutStateReason": one.reason or f"ECS deployment {one.id} in progress.",
        }
        for one in service.deployments
    ]  # fmt: skip
    return {**shown, "tags": service.tags} if tags else shown


def describe_services(world: World, call: Call) -> dict[str, Any]:
    """At most ten; what is not there is a failure of the answer, and no error."""
    names = call.params["services"]
    if not 1 <= len(names) <= 10:
        raise wrong("Services cannot be empty, and at most 10 are described")
    services, found, failures = cluster(world, call), [], []
    where = call.params.get("cluster", "default").rpartition("/")[2]
    for name in (one.rpartition("/")[2] for one in names):
        if name in services:
            found.append(describe(services[name], tags="TAGS" in call.params.get("include", [])))
        else:
            failures.append({"arn": arn(call, "service", f"{where}/{name}"), "reason": "MISSING"})
    return {"services": found, "failures": failures}


def list_services(world: World, call: Call) -> dict[str, Any]:
    active = [one.shown["serviceArn"] for one in cluster(world, call).values() if one.shown["status"] != "INACTIVE"]
    return paged(world, call, active, "serviceArns", usual=10)


def list_tasks(world: World, call: Call) -> dict[str, Any]:
    services, params = cluster(world, call), call.params
    if "serviceName" in params and params["serviceName"] not in services:
        raise AwsError("ServiceNotFoundException", "Service not found.", 400)
    wanted = [services[params["serviceName"]]] if "serviceName" in params else list(services.values())
    stopped = params.get("desiredStatus", "RUNNING") == "STOPPED"
    where = params.get("cluster", "default").rpartition("/")[2]
    found = [arn(call, "task", f"{where}/{one.id}") for each in wanted for one in each.tasks if one.stopped == stopped]
    return paged(world, call, found, "taskArns")


def describe_tasks(world: World, call: Call) -> dict[str, Any]:
    names = call.params["tasks"]
    if not 1 <= len(names) <= 100:
        raise wrong("Tasks cannot be empty, and at most 100 are described")
    where = call.params.get("cluster", "default").rpartition("/")[2]
    known = {one.id: (each, one) for each in cluster(world, call).values() for one in each.tasks}
    found, failures = [], []
    for name in (one.rpartition("/")[2] for one in names):
        if name in known:
            found.append(shown_task(call, where, *known[name], tags="TAGS" in call.params.get("include", [])))
        else:
            failures.append({"arn": arn(call, "task", f"{where}/{name}"), "reason": "MISSING"})
    return {"tasks": found, "failures": failures}


def shown_task(call: Call, where: str, service: Service, task: Task, *, tags: bool) -> dict[str, Any]:
    last = "STOPPED" if task.stopped else "RUNNING" if task.started else "PENDING"
    containers = []
    for one in task.revision["containerDefinitions"]:
        health = ("UNHEALTHY" if task.unhealthy else "HEALTHY") if "healthCheck" in one and task.started else "UNKNOWN"
        seen = {
            "containerArn": arn(call, "container", f"{where}/{task.id}/{one['name']}"), "name": one["name"],
            "taskArn": arn(call, "task", f"{where}/{task.id}"), "image": one["image"], "lastStatus": last,
            "healthStatus": health,
        }  # fmt: skip
        digest = task.digests.get(one["name"], "") if task.started else ""
        containers.append(seen | ({"imageDigest": digest} if digest else {}))
    shown = {
        "taskArn": arn(call, "task", f"{where}/{task.id}"), "clusterArn": arn(call, "cluster", where),
        "taskDefinitionArn": task.revision["taskDefinitionArn"], "lastStatus": last, "createdAt": task.created,
        "desiredStatus": "STOPPED" if task.stopped else "RUNNING", "containers": containers,
        "group": f"service:{service.shown['serviceName']}", "launchType": service.shown["launchType"],
        "enableExecuteCommand": service.shown["enableExecuteCommand"], "availabilityZone": f"{call.region}a",
        "healthStatus": "UNHEALTHY" if task.unhealthy else "UNKNOWN", "startedBy": task.deployment,
        **({"startedAt": task.started} if task.started else {}),
        **({"stopCode": task.code, "stoppedReason": task.why} if task.stopped else {}),
    }  # fmt: skip
    return {**shown, "tags": task.tags} if tags else shown


Rule = Callable[[World, Call], Any]
RULES: dict[str, Rule] = {
    "CreateCluster": create_cluster,
    "CreateService": create_service,
    "DeleteService": delete_service,
    "DeregisterTaskDefinition": deregister,
    "DescribeServices": describe_services,
    "DescribeTaskDefinition": describe_definition,
    "DescribeTasks": describe_tasks,
    "ListServices": list_services,
    "ListTaskDefinitions": list_definitions,
    "ListTasks": list_tasks,
    "RegisterTaskDefinition": register,
    "TagResource": tag,
    "UpdateService": update_service,
}
