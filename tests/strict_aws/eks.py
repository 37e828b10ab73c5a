"""EKS: managed node groups with launch templates of their own, and version updates of them, by the API reference.

An update replaces the instances of the group's Auto Scaling group as an instance refresh does: new ones first, as many
at once as may be unavailable. One at a time for a node group; the token makes it one.
"""

from __future__ import annotations

import copy
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from tests.strict_aws import groups, rolling, tags
from tests.strict_aws.errors import AwsError
from tests.strict_aws.listing import part
from tests.strict_aws.rolling import ACTIVE, Refresh
from tests.strict_aws.wire import Call
from tests.strict_aws.world import World


@dataclass
class Update:
    """One version update of a node group."""

    id: str
    created: datetime
    template: dict[str, str]
    refresh: Refresh


@dataclass
class NodeGroup:
    """A managed node group, the Auto Scaling group that starts its instances, and its updates, the oldest first."""

    shown: dict[str, Any]
    group: Any
    updates: list[Update] = field(default_factory=list)


def of(world: World, call: Call, cluster: str) -> dict[str, NodeGroup]:
    here = world.eks.setdefault((call.account, call.region), {})
    if cluster not in here:
        raise AwsError("ResourceNotFoundException", f"No cluster found for name: {cluster}.", 404)
    found: dict[str, NodeGroup] = here[cluster]
    return found


def node_group(world: World, call: Call, cluster: str, name: str) -> NodeGroup:
    groups_of = of(world, call, cluster)
    if name not in groups_of:
        raise AwsError("ResourceNotFoundException", f"No node group found for name: {name}.", 404)
    return groups_of[name]


def create_cluster(world: World, call: Call) -> dict[str, Any]:
    name = call.params["name"]
    world.eks.setdefault((call.account, call.region), {}).setdefault(name, {})
    return {"cluster": {"name": name, "status": "ACTIVE"}}


def version_of(call: Call, named: dict[str, str]) -> Any:
    """The exact version of a launch template. Raises AwsError where it is not there."""
    asked = {"LaunchTemplateId": named.get("id"), "LaunchTemplateName": named.get("name"),
             "Version": named.get("version", "$Default")}  # fmt: skip
    try:
        return groups.version_of(tags.backend(call.account, call.region),
                                 {key: value for key, value in asked.items() if value})  # fmt: skip
    except Exception as error:
        raise AwsError(
            "InvalidParameterException", f"The launch template version is not there: {error}", 400
        ) from error


def create_node_group(world: World, call: Call) -> dict[str, Any]:
    """From a launch template; one that names an image makes the group CUSTOM."""
    from moto.autoscaling import autoscaling_backends

    params, cluster = call.params, call.params["clusterName"]
    name, sizes = params["nodegroupName"], params["scalingConfig"]
    if name in of(world, call, cluster):
        raise AwsError("ResourceInUseException", "NodeGroup already exists", 409)
    version = version_of(call, params["launchTemplate"])
    custom = "ImageId" in version.data and "amiType" not in params
    scaling = f"eks-{name}-{uuid.uuid4()}"
    own = {"eks:cluster-name": cluster, "eks:nodegroup-name": name}
    backend = autoscaling_backends[call.account][call.region]
    group = backend.create_auto_scaling_group(
        name=scaling, availability_zones=None, desired_capacity=sizes["desiredSize"], max_size=sizes["maxSize"] + 2,
        min_size=sizes["minSize"], launch_config_name=None, instance_id=None,
        launch_template={"LaunchTemplateId": version.template.id, "Version": str(version.number)},
        mixed_instances_policy=None, vpc_zone_identifier=",".join(params["subnets"]), default_cooldown=None,
        health_check_period=None, health_check_type=None, load_balancers=None, target_group_arns=[],
        placement_group=None, termination_policies=None,
        tags=[{"Key": key, "Value": value, "PropagateAtLaunch": True, "ResourceId": scaling,
               "ResourceType": "auto-scaling-group"} for key, value in own.items()],
    )  # fmt: skip
    template = {"id": version.template.id, "name": version.template.name, "version": str(version.number)}
    shown = {
        "nodegroupName": name, "clusterName": cluster, "status": "ACTIVE", "createdAt": world.now(),
        "nodegroupArn": f"arn:aws:eks:{call.region}:{call.account}:nodegroup/{cluster}/{name}/{uuid.uuid4()}",
        "amiType": "CUSTOM" if custom else params.get("amiType", "AL2023_x86_64_STANDARD"), "scalingConfig": sizes,
        "resources": {"autoScalingGroups": [{"name": scaling}]}, "health": {"issues": []},
        "updateConfig": params.get("updateConfig", {"maxUnavailable": 1}), "launchTemplate": template,
        "tags": params.get("tags", {}), "subnets": params["subnets"], "nodeRole": params["nodeRole"],
    }  # fmt: skip
    of(world, call, cluster)[name] = NodeGroup(shown, group or backend.autoscaling_groups[scaling])
    from tests.strict_aws import instances
    from tests.strict_aws.world import Place

    instances.equip(world, Place(call.account, call.region))
    return {"nodegroup": show(of(world, call, cluster)[name])}


def show(one: NodeGroup) -> dict[str, Any]:
    settle(one)
    return copy.deepcopy(one.shown)


def settle(one: NodeGroup) -> None:
    """What an update has come to is the group's."""
    last = one.updates[-1] if one.updates else None
    if last and last.refresh.status == "Successful" and one.shown["status"] == "UPDATING":
        one.shown["launchTemplate"] = last.template
    if last and one.shown["status"] == "UPDATING" and last.refresh.status not in ACTIVE:
        one.shown["status"] = "ACTIVE"


def describe(world: World, call: Call) -> dict[str, Any]:
    return {"nodegroup": show(node_group(world, call, call.params["clusterName"], call.params["nodegroupName"]))}


def list_groups(world: World, call: Call) -> dict[str, Any]:
    return paged(world, call, sorted(of(world, call, call.params["clusterName"])), "nodegroups")


def paged(world: World, call: Call, found: list[str], key: str) -> dict[str, Any]:
    size = call.params.get("maxResults") or 100
    shown, more = part(found, call.params.get("nextToken"), min(size, 100, world.page_at_most))
    return {key: shown, **({"nextToken": more["NextToken"]} if more else {})}


def update(world: World, call: Call) -> dict[str, Any]:
    differs = AwsError("InvalidRequestException", "The token was used with other parameters before", 400)
    scope = (call.account, call.region, "UpdateNodegroupVersion")
    given = {key: value for key, value in call.params.items() if key != "clientRequestToken"}
    return dict(world.once(scope, call.params.get("clientRequestToken"), given, partial(begin, world, call), differs))


def begin(world: World, call: Call) -> dict[str, Any]:
    """One update at a time; a group is updated by its launch template, or by versions, as it was made."""
    params = call.params
    one = node_group(world, call, params["clusterName"], params["nodegroupName"])
    settle(one)
    if one.shown["status"] != "ACTIVE":
        raise AwsError("ResourceInUseException", f"Nodegroup {one.shown['nodegroupName']} is updating", 409)
    named = params.get("launchTemplate")
    if named is None or (one.shown["amiType"] == "CUSTOM" and {"version", "releaseVersion"} & params.keys()):
        raise AwsError("InvalidParameterException", "A custom AMI is updated by its launch template alone", 400)
    version = version_of(call, named)
    if version.template.id != one.shown["launchTemplate"]["id"]:
        raise AwsError("InvalidParameterException", "The launch template must be the one of the node group", 400)
    if ("ImageId" in version.data) != (one.shown["amiType"] == "CUSTOM"):
        raise AwsError("InvalidParameterException", "A node group stays with its own image type", 400)
    config, desired = one.shown["updateConfig"], one.shown["scalingConfig"]["desiredSize"]
    share = config.get("maxUnavailablePercentage")
    many = math.ceil(desired * share / 100) if share else config.get("maxUnavailable", 1)
    wants = {
        "MinHealthyPercentage": 100, "MaxHealthyPercentage": 100 + math.ceil(100 * many / max(desired, 1)),
        "SkipMatching": True, "AutoRollback": False, "ScaleInProtectedInstances": "Ignore",
        "StandbyInstances": "Ignore", "InstanceWarmup": 20,
    }  # fmt: skip
    template = {"id": version.template.id, "name": version.template.name, "version": str(version.number)}
    asked = {"LaunchTemplate": {"LaunchTemplateId": template["id"], "Version": template["version"]}}
    refresh = Refresh(str(uuid.uuid4()), one.group, world.now(), wants, asked, groups.own_version(one.group), version)
    one.updates.append(Update(str(uuid.uuid4()), world.now(), template, refresh))
    one.shown["status"] = "UPDATING"
    world.after("refresh", lambda: rolling.begin(world, refresh))
    world.timeline.watchers.append(lambda: rolling.look(world, refresh))
    return {"update": shown_update(one.updates[-1])}


STATUS = {"Successful": "Successful", "Failed": "Failed", "Cancelled": "Cancelled"}


def shown_update(one: Update) -> dict[str, Any]:
    status = STATUS.get(one.refresh.status, "InProgress")
    failed = {"errorCode": "NodeCreationFailure", "errorMessage": one.refresh.reason or "Instances failed to join"}
    return {
        "id": one.id, "status": status, "type": "VersionUpdate", "createdAt": one.created,
        "errors": [failed] if status == "Failed" else [],
        "params": [{"type": "LaunchTemplateName", "value": one.template["name"]},
                   {"type": "LaunchTemplateVersion", "value": one.template["version"]}],
    }  # fmt: skip


def describe_update(world: World, call: Call) -> dict[str, Any]:
    one = node_group(world, call, call.params["name"], call.params.get("nodegroupName", ""))
    found = next((each for each in one.updates if each.id == call.params["updateId"]), None)
    if found is None:
        raise AwsError("ResourceNotFoundException", "No update found", 404)
    return {"update": shown_update(found)}


def list_updates(world: World, call: Call) -> dict[str, Any]:
    one = node_group(world, call, call.params["name"], call.params.get("nodegroupName", ""))
    return paged(world, call, [each.id for each in one.updates], "updateIds")


RULES: dict[str, Callable[[World, Call], Any]] = {
    "CreateCluster": create_cluster,
    "CreateNodegroup": create_node_group,
    "DescribeNodegroup": describe,
    "DescribeUpdate": describe_update,
    "ListNodegroups": list_groups,
    "ListUpdates": list_updates,
    "UpdateNodegroupVersion": update,
}
