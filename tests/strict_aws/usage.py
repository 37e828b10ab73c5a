"""Reports of who uses an image, of all accounts: instances, and launch templates by their newest versions."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from tests.strict_aws import images, lifecycle
from tests.strict_aws.errors import AwsError
from tests.strict_aws.wire import Call
from tests.strict_aws.world import World, new_id

KINDS = ("ec2:Instance", "ec2:LaunchTemplate")
LASTS = timedelta(days=30)
DEPTH = "20"  # of versions, by default


def create(world: World, call: Call) -> dict[str, Any]:
    """Of an image of the caller's own; it counts when it is ready."""
    image, asked = images.found(world, call, call.params["ImageId"]), call.params["ResourceTypes"]
    if wrong := [one.get("ResourceType") for one in asked if one.get("ResourceType") not in KINDS]:
        raise AwsError("InvalidParameterValue", f"'{wrong[0]}' is no resource type of a report")
    name, kinds = new_id("amiur"), {one["ResourceType"]: depth(one) for one in asked}
    shown = {"ImageId": image.id, "ReportId": name, "ResourceTypes": asked, "CreationTime": world.now(),
             "ExpirationTime": world.now() + LASTS, "AccountIds": call.params.get("AccountIds", [])}  # fmt: skip
    world.reports[name] = {"shown": shown, "ready": world.ready_at(), "kinds": kinds, "owner": call.account}
    return {"ReportId": name}


def depth(asked: dict[str, Any]) -> int:
    options = {one["OptionName"]: one["OptionValues"] for one in asked.get("ResourceTypeOptions", [])}
    if asked["ResourceType"] != "ec2:LaunchTemplate" and options:
        raise AwsError("InvalidParameterCombination", "only launch templates have options")
    if options.keys() - {"version-depth"}:
        raise AwsError("InvalidParameterValue", "the option is version-depth")
    return int(options.get("version-depth", [DEPTH])[0])


def found(world: World, call: Call) -> list[dict[str, Any]]:
    """The reports of the calling account that are named by their ids or images, and have not expired."""
    wanted = {*call.params.get("ReportIds", ()), *call.params.get("ImageIds", ())}
    own = [one for one in world.reports.values() if one["owner"] == call.account]
    own = [one for one in own if one["shown"]["ExpirationTime"] > world.now()]
    return [one for one in own if not wanted or wanted & {one["shown"]["ReportId"], one["shown"]["ImageId"]}]


def describe(world: World, call: Call) -> dict[str, Any]:
    states = [(one, "available" if one["ready"] <= world.now() else "pending") for one in found(world, call)]
    return {"ImageUsageReports": [{**one["shown"], "State": state} for one, state in states]}


def entries(world: World, call: Call) -> dict[str, Any]:
    return {"ImageUsageReportEntries": [
        {"ResourceType": kind, "ReportId": one["shown"]["ReportId"], "UsageCount": count, "AccountId": account,
         "ImageId": one["shown"]["ImageId"], "ReportCreationTime": one["shown"]["CreationTime"]}
        for one in found(world, call) if one["ready"] <= world.now()
        for (account, kind), count in sorted(counted(one, call.region).items())
    ]}  # fmt: skip


def counted(report: dict[str, Any], region: str) -> Counter[tuple[str, str]]:
    """How many things of each kind name the image in this region, by account."""
    from moto.ec2.models import ec2_backends

    image, kinds, count = report["shown"]["ImageId"], report["kinds"], Counter[tuple[str, str]]()
    for account, regions in list(ec2_backends.items()):
        if region not in regions:
            continue
        if "ec2:Instance" in kinds:
            alive = (one for one in lifecycle.everyone(regions[region]) if one.state != "terminated")
            count[account, "ec2:Instance"] += sum(one.image_id == image for one in alive)
        for template in regions[region].launch_templates.values() if "ec2:LaunchTemplate" in kinds else ():
            newest = template.versions[-kinds["ec2:LaunchTemplate"] :]
            count[account, "ec2:LaunchTemplate"] += any(one.data.get("ImageId") == image for one in newest)
    only = report["shown"]["AccountIds"]
    return Counter({(account, kind): most for (account, kind), most in (+count).items() if not only or account in only})


RULES = {
    "CreateImageUsageReport": create,
    "DescribeImageUsageReports": describe,
    "DescribeImageUsageReportEntries": entries,
}
