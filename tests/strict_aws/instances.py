"""Instances start from images that are there and available, once for a token; templates and groups name what exists."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode

from tests.strict_aws import groups, images, launching, lifecycle, registering, snapshots, tags, types, volumes
from tests.strict_aws.errors import AwsError
from tests.strict_aws.wire import Answer, Call
from tests.strict_aws.world import Image, World, new_id

MISMATCH = "The client token was used with other parameters before"


def once(rule: Any) -> Any:
    """The rule, carried out once for a ClientToken."""

    def idempotent(world: World, call: Call) -> Any:
        differs = AwsError("IdempotentParameterMismatch", MISMATCH)
        scope = (call.account, call.region, call.operation)
        return world.once(scope, call.params.get("ClientToken"), call.params, lambda: rule(world, call), differs)

    return idempotent


@once
def run_instances(world: World, call: Call) -> Any:
    """MaxCount instances of an image that is there, visible and available, with its root volume."""
    params = call.params
    if not 1 <= params["MinCount"] <= params["MaxCount"]:
        raise AwsError("InvalidParameterValue", "MinCount must be at least 1 and at most MaxCount")
    data = template_data(call, params["LaunchTemplate"]) if "LaunchTemplate" in params else {}
    image = launchable(world, call, params.get("ImageId") or data.get("ImageId"))
    launching.check(call, data)
    types.check(image.shown, types.named(params.get("InstanceType") or data.get("InstanceType", "")))
    volumes.check(world, call, volumes.devices(image, *launching.asked_devices(params, data)))
    form = dict(parse_qsl(call.body.decode(), keep_blank_values=True))
    form = {**form, "MinCount": str(params["MaxCount"]), "ImageId": image.id}  # moto makes MinCount
    answer = call.forward(urlencode(form).encode())
    if answer.status >= 400:
        return answer
    reservation = volumes.parsed(call, answer)
    backend = tags.backend(call.account, call.region)
    for shown in reservation["Instances"]:
        launching.fit(backend, backend.get_instance(shown["InstanceId"]), params, data)
    equip(world, call)
    return described(call, reservation)


def described(call: Call, answer: dict[str, Any]) -> dict[str, Any]:
    """The reservation as moto shows it now that the root volumes are right."""
    backend = tags.backend(call.account, call.region)
    for shown in answer.get("Instances", []):
        shown.pop("BlockDeviceMappings", None)  # AWS has none yet at this moment
        instance = backend.get_instance(shown["InstanceId"])
        more = {"RootDeviceName": instance.root_device_name, "Architecture": instance.architecture}
        shown.update(more, VirtualizationType=instance.virtualization_type, ImageId=instance.image_id)
        shown["State"] = {"Code": instance.state_code, "Name": instance.state}
        if instance.boot_mode:
            shown["BootMode"] = instance.boot_mode
    return answer


def launchable(world: World, call: Call, named: str | None) -> Image:
    """The image to start from. Raises AwsError where it is absent, pending or disabled."""
    if not named:
        raise AwsError("MissingParameter", "The request must contain the parameter ImageId")
    image = images.found(world, call, resolved(call, named), own=False)
    if world.state_of_image(image) != "available":
        raise AwsError("InvalidAMIID.Unavailable", f"The image ID '{image.id}' is {world.state_of_image(image)}")
    return image


def resolved(call: Any, named: str) -> str:
    """The image that `resolve:ssm:PARAMETER` stands for."""
    if not named.startswith("resolve:ssm:"):
        return named
    from moto.ssm.models import ssm_backends

    parameter = ssm_backends[call.account][call.region].get_parameter(named.removeprefix("resolve:ssm:"))
    if parameter is None:
        raise AwsError("InvalidAMIID.Malformed", f"{named}: no such parameter")
    return str(parameter.value)


def template_data(call: Call, named: dict[str, str]) -> dict[str, Any]:
    """The data of the template version. Raises AwsError where template or version is not there."""
    backend = tags.backend(call.account, call.region)
    by_name = backend.launch_template_name_to_ids.get(named.get("LaunchTemplateName", ""))
    template = backend.launch_templates.get(named.get("LaunchTemplateId") or by_name)
    if template is None and "LaunchTemplateId" in named:
        raise AwsError("InvalidLaunchTemplateId.NotFound", f"No launch template {named['LaunchTemplateId']}")
    if template is None:
        said = f"No launch template {named.get('LaunchTemplateName')}"
        raise AwsError("InvalidLaunchTemplateName.NotFoundException", said)
    wanted = named.get("Version", "$Default")
    numbers = {"$Latest": template.latest_version_number, "$Default": template.default_version_number}
    for version in template.versions:
        if str(version.number) == str(numbers.get(wanted, wanted)):
            return dict(version.data)
    raise AwsError("InvalidLaunchTemplateId.VersionNotFound", f"Launch template {template.id} has no version {wanted}")


def equip(world: World, place: Any) -> None:
    """Root volumes for all that moto started since at `place`, directly or for a group; they are pending now."""
    backend = tags.backend(place.account, place.region)
    for instance in lifecycle.everyone(backend):
        if not getattr(instance, "equipped", False):
            instance.equipped = True
            if image := world.images.get(resolved(place, instance.image_id or "")):
                instance.image_id, image.launched = image.id, world.now()
                volumes.of_instance(world, backend, instance, image, getattr(instance, "asked_devices", []))
            launching.tag(backend, instance)
            lifecycle.begin(world, backend, instance)
    groups.settle(world, place.account, place.region)


def create_image(world: World, call: Call) -> dict[str, Any]:
    """An image of an instance: a new snapshot of each of its volumes, pending at first."""
    params, backend = call.params, tags.backend(call.account, call.region)
    (instance,) = lifecycle.found(backend, params["InstanceId"])
    source = world.images[instance.image_id]
    registering.check_name(world, call)
    given, ready, devices = tags.specified(call, "image", "snapshot"), world.ready_at(), []
    for device, held in instance.block_device_mapping.items():
        made = snapshots.of_volume(world, call, backend.volumes[held.volume_id], given.get("snapshot", {}), ready)
        ebs = {"SnapshotId": made.id, "VolumeSize": made.size_gib, "VolumeType": "gp3", "Encrypted": bool(made.key)}
        devices.append({"DeviceName": device, "Ebs": {**ebs, "DeleteOnTermination": True}})
    shown = {**source.shown, "BlockDeviceMappings": devices, "Description": params.get("Description", "")}
    image = Image(new_id("ami"), call.account, call.region, params["Name"], world.now(), shown, ready)
    images.add(world, call, image, given.get("image", {}))
    return {"ImageId": image.id}


@once
def create_launch_template(world: World, call: Call) -> Answer:
    return call.forward()


@once
def create_launch_template_version(world: World, call: Call) -> Any:
    """On the base of SourceVersion, where one is named: what is not said is as it is there."""
    params = call.params
    named = {name: params[name] for name in ("LaunchTemplateId", "LaunchTemplateName") if name in params}
    base = template_data(call, {**named, "Version": params["SourceVersion"]}) if "SourceVersion" in params else {}
    answer = call.forward()
    if answer.status >= 400 or not base:
        return answer
    made = volumes.parsed(call, answer)["LaunchTemplateVersion"]
    template = tags.backend(call.account, call.region).launch_templates[made["LaunchTemplateId"]]
    version = template.get_version(made["VersionNumber"])
    version.data = {**base, **version.data}
    return {"LaunchTemplateVersion": {**made, "LaunchTemplateData": {**base, **params["LaunchTemplateData"]}}}


def delete_launch_template_versions(world: World, call: Call) -> Any:
    """Any but the default one, which is told as not deleted; whoever names a deleted one is told that it is not there.

    Source: the API reference of DeleteLaunchTemplateVersions.
    """
    template = tags.backend(call.account, call.region).launch_templates[call.params["LaunchTemplateId"]]
    asked = {int(one) for one in call.params["Versions"]}
    kept = asked & {template.default_version_number}
    template.versions = [one for one in template.versions if one.number not in asked - kept]
    shown = {"LaunchTemplateId": template.id, "LaunchTemplateName": template.name}
    refused = {"Code": "unexpectedError", "Message": "The default version cannot be deleted"}
    return {
        "SuccessfullyDeletedLaunchTemplateVersions": [{**shown, "VersionNumber": one} for one in sorted(asked - kept)],
        "UnsuccessfullyDeletedLaunchTemplateVersions": [
            {**shown, "VersionNumber": one, "ResponseError": refused} for one in sorted(kept)
        ],
    }


def put_group(world: World, call: Call) -> Any:
    """A group whose template, version and image are there. Auto Scaling says ValidationError for all of it."""
    params = call.params
    policy = params.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {}).get("LaunchTemplateSpecification")
    try:
        if named := params.get("LaunchTemplate") or policy:
            launchable(world, call, template_data(call, named).get("ImageId"))
    except AwsError as error:
        said = f"You must use a valid fully-formed launch template. {error.message}"
        raise AwsError("ValidationError", said, 400) from error
    return acted(world, call)


def acted(world: World, call: Call) -> Answer:
    """moto's answer; whatever it started gets its root volume."""
    answer = call.forward()
    if answer.status < 400:
        equip(world, call)
    return answer


RULES = {
    "RunInstances": run_instances,
    "CreateImage": create_image,
    "CreateLaunchTemplate": create_launch_template,
    "CreateLaunchTemplateVersion": create_launch_template_version,
    "DeleteLaunchTemplateVersions": delete_launch_template_versions,
}
GROUPS = {
    "CreateAutoScalingGroup": put_group,
    "UpdateAutoScalingGroup": put_group,
    "SetDesiredCapacity": acted,
    "TerminateInstanceInAutoScalingGroup": acted,
}
