"""Who uses our images in accounts without a role: EC2's own report, which a later run reads.

It counts instances and launch templates; Auto Scaling groups start from one of these. Launch configurations and
parameters of such accounts are in no report.

Source: the EC2 user guide, "View your AMI usage".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from hardening.foundation.errors import GoldsmithError
from images.aws.client import Client
from images.aws.cloud import Cloud
from images.aws.permissions import ANY, HOME, OWN_IMAGE, REAPER, ResourcePattern, permit

_REPORT = ResourcePattern("arn:{partition}:ec2:*:{account}:image-usage-report/*", each=HOME)
PERMISSIONS = (
    permit("ec2:DescribeImageUsageReports ec2:DescribeImageUsageReportEntries", REAPER, on=ANY),
    permit("ec2:CreateImageUsageReport", REAPER, on=(OWN_IMAGE, _REPORT)),
)

HOLDS_FOR = timedelta(days=14)
_DEEP = [{"OptionName": "version-depth", "OptionValues": ["100"]}]
COUNTED = ({"ResourceType": "ec2:Instance"}, {"ResourceType": "ec2:LaunchTemplate", "ResourceTypeOptions": _DEEP})
NOUNS = {"ec2:Instance": "instance(s)", "ec2:LaunchTemplate": "launch template(s)"}


def used_unseen(cloud: Cloud, region: str, image: str, where: Iterable[str], *, ask: bool) -> str:
    """What keeps an image that those of `where` may use, where no role leads; empty: a report of the last two weeks
    says that no other account uses it. `ask` for one where there is none.
    """
    ec2, who = cloud.client("ec2", region), ", ".join(where)
    try:
        reports = ec2.pages("DescribeImageUsageReports", "ImageUsageReports", ImageIds=[image])
        known = [one for one in reports if _counts(one) and one["CreationTime"] > cloud.now - HOLDS_FOR]
        if not known and ask:
            ec2.call("CreateImageUsageReport", ImageId=image, ResourceTypes=list(COUNTED))
        newest = max(known, key=lambda one: one["CreationTime"], default={"State": ""})
        if newest["State"] == "available":
            return _users(cloud, ec2, newest)
    except GoldsmithError as error:
        return f"{who} may use it, and EC2 does not say who does: {error.message}"
    what = "EC2 was asked for a report: a later image.prune --apply reads it"
    return f"{who} may use it, where no role leads; {what if known or ask else 'image.prune --apply asks EC2'}"


def _counts(report: dict[str, Any]) -> bool:
    """Whether a report is about all accounts and all that we ask for: somebody else may have asked for less."""
    kinds = {one["ResourceType"] for one in report.get("ResourceTypes", ())}
    return report["State"] != "error" and not report.get("AccountIds") and kinds >= NOUNS.keys()


def _users(cloud: Cloud, ec2: Client, report: dict[str, Any]) -> str:
    """The accounts that a report names, but for those that were looked at themselves."""
    entries = ec2.pages("DescribeImageUsageReportEntries", "ImageUsageReportEntries", ReportIds=[report["ReportId"]])
    counted = defaultdict[str, list[str]](list)
    for one in entries:
        if one["UsageCount"] and one["AccountId"] not in (cloud.aws.account, *cloud.aws.roles):
            kind = one["ResourceType"]
            counted[one["AccountId"]].append(f"{one['UsageCount']} {NOUNS.get(kind, kind)}")
    if not counted:
        return ""
    users = "; ".join(f"{', '.join(kinds)} of account {account}" for account, kinds in sorted(counted.items()))
    return f"{users} use it, by EC2's report of {report['CreationTime']:%Y-%m-%d}"
