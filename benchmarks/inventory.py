"""Scanning a fleet of 10,000 instances in two regions: how many calls it makes, and what they cost Goldsmith itself.

One process for each round. The answers of EC2 are made in memory, in pages as long as were asked for, behind the same
clients that ask AWS: the time is that of `fleet.scan` alone, with its ledger on disk. Each instance has two volumes and
is of one of ten versions of a launch template, in one of twenty security groups.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from functools import cache
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from measure import rounds

INSTANCES, REGIONS, HOME = 10_000, ("eu-central-1", "us-east-1"), "123456789012"
EACH = INSTANCES // len(REGIONS)
VOLUMES, GROUPS, VERSIONS = 2, 20, 10
PAGE = 1000
NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
ONE = "--scan"
FLEET = f"""
title = "Of a benchmark"
owner = "benchmarks"
kind = "ec2"
selector = {{ app = "shop" }}
replacement = {{ definition = "debian-server" }}
[ec2]
regions = {json.dumps(REGIONS)}
"""
LISTED = {
    "DescribeInstances": EACH, "DescribeVolumes": EACH * VOLUMES, "DescribeInstanceStatus": EACH,
    "DescribeSecurityGroups": GROUPS,
}  # fmt: skip
"""What a region lists, by operation; every other one is asked once, for all that it has."""


def main() -> int:
    """Measure, print, and say by the exit code whether the claim holds."""
    found = [apart() for _ in range(rounds(3, __doc__ or ""))]
    calls, pages = found[0]["calls"], {name: ceil(items / PAGE) * len(REGIONS) for name, items in LISTED.items()}
    pages["DescribeImages"] = 2 * len(REGIONS)  # ours are listed by who finds the members, and by who judges them
    print(f"\n{'operation':34}{'calls':>7}{'pages':>7}   load {os.getloadavg()[0]:.1f}")
    for name, count in sorted(calls.items()):
        print(f"{name:34}{count:7}{pages.get(name, len(REGIONS)):7}")
    wall, cpu, megabytes = (median(one[key] for one in found) for key in ("wall", "cpu", "mb"))
    print(f"\n{INSTANCES:,} instances: {wall:.2f} s, {cpu:.2f} s of CPU, {megabytes:.0f} MB")
    more = {name: count for name, count in calls.items() if count > pages.get(name, len(REGIONS))}
    print(f"{'FAILS' if more else 'holds':6} no more calls than pages{f': {more}' if more else ''}")
    return int(bool(more))


def apart() -> dict[str, Any]:
    """One measurement in a process of its own."""
    done = subprocess.run([sys.executable, __file__, ONE], check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


class Answers:
    """A service of a region as its client shows it: each method is an operation, whose calls are counted."""

    def __init__(self, region: str, calls: Counter[str]) -> None:
        self._region = region
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        operation = "".join(word.title() for word in name.split("_"))

        def answer(**request: Any) -> dict[str, Any]:
            self._calls[operation] += 1
            key, items = made(operation, self._region)
            first, size = int(request.get("NextToken") or 0), int(request.get("MaxResults") or len(items) or 1)
            more = {"NextToken": str(first + size)} if first + size < len(items) else {}
            return {key: items[first : first + size], **more}

        return answer


def name_of(kind: str, region: str, number: int) -> str:
    """An id that EC2 might give."""
    return f"{kind}-{REGIONS.index(region):x}{number:016x}"


def instances(region: str) -> tuple[str, list[Any]]:
    """A reservation for each."""
    return "Reservations", [{"Instances": [instance(region, number)]} for number in range(EACH)]


def instance(region: str, number: int) -> dict[str, Any]:
    """An instance of a group's template, with two volumes."""
    tags = {
        "app": "shop", "owner": "web-team", "aws:ec2launchtemplate:id": "lt-0",
        "aws:ec2launchtemplate:version": str(number % VERSIONS + 1),
    }  # fmt: skip
    group = {"GroupId": name_of("sg", region, number % GROUPS), "GroupName": f"web-{number % GROUPS}"}
    attached = {"DeviceIndex": 0, "AttachTime": NOW, "DeleteOnTermination": True}
    card = {"NetworkInterfaceId": name_of("eni", region, number), "Groups": [group], "PrivateIpAddress": "10.0.0.1"}
    return {
        "InstanceId": name_of("i", region, number), "ImageId": name_of("ami", region, number % 10),
        "InstanceType": "t3.micro", "State": {"Name": "running"}, "LaunchTime": NOW, "VpcId": "vpc-0",
        "RootDeviceName": "/dev/xvda", "RootDeviceType": "ebs", "Architecture": "x86_64", "EnaSupport": True,
        "SubnetId": "subnet-0", "Placement": {"AvailabilityZone": f"{region}a"}, "SecurityGroups": [group],
        "NetworkInterfaces": [{**card, "Attachment": attached}],
        "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled", "HttpPutResponseHopLimit": 1},
        "BlockDeviceMappings": [
            {"DeviceName": device, "Ebs": {"VolumeId": name_of("vol", region, number * VOLUMES + place),
                                           "DeleteOnTermination": place == 0}}
            for place, device in enumerate(("/dev/xvda", "/dev/sdf"))
        ],
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }  # fmt: skip


def volumes(region: str) -> tuple[str, list[Any]]:
    """Those of all instances."""
    return "Volumes", [
        {"VolumeId": name_of("vol", region, number), "SnapshotId": f"snap-{number % 10}", "Encrypted": True, "Size": 8,
         "Attachments": [{"InstanceId": name_of("i", region, number // VOLUMES), "State": "attached"}]}
        for number in range(EACH * VOLUMES)
    ]  # fmt: skip


def statuses(region: str) -> tuple[str, list[Any]]:
    """All well."""
    good = {"InstanceStatus": {"Status": "ok"}, "SystemStatus": {"Status": "ok"}}
    return "InstanceStatuses", [{"InstanceId": name_of("i", region, number), **good} for number in range(EACH)]


def groups(region: str) -> tuple[str, list[Any]]:
    """Closed ones."""
    return "SecurityGroups", [
        {"GroupId": name_of("sg", region, number), "GroupName": f"web-{number}", "IpPermissions": []}
        for number in range(GROUPS)
    ]


def versions(_: str) -> tuple[str, list[Any]]:
    """The versions of the one template."""
    data = {"InstanceType": "t3.micro", "MetadataOptions": {"HttpTokens": "required"}}
    return "LaunchTemplateVersions", [
        {"VersionNumber": number + 1, "LaunchTemplateData": data} for number in range(VERSIONS)
    ]


TYPE = {
    "InstanceType": "t3.micro", "ProcessorInfo": {"SupportedArchitectures": ["x86_64"]},
    "SupportedBootModes": ["uefi"], "NitroTpmSupport": "supported", "NetworkInfo": {"EnaSupport": "required"},
}  # fmt: skip
OPERATIONS: dict[str, Any] = {
    "DescribeInstances": instances,
    "DescribeVolumes": volumes,
    "DescribeInstanceStatus": statuses,
    "DescribeSecurityGroups": groups,
    "DescribeLaunchTemplateVersions": versions,
    "DescribeInstanceTypes": lambda _: ("InstanceTypes", [TYPE]),
    "DescribeImages": lambda _: ("Images", []),
    "DescribeAutoScalingGroups": lambda _: ("AutoScalingGroups", []),
    "DescribeLaunchTemplates": lambda _: ("LaunchTemplates", []),
    "DescribeTargetGroups": lambda _: ("TargetGroups", []),
    "DescribeLoadBalancers": lambda _: ("LoadBalancerDescriptions", []),
}


@cache
def made(operation: str, region: str) -> tuple[str, list[Any]]:
    """What an operation lists in a region, and under which key."""
    found: tuple[str, list[Any]] = OPERATIONS[operation](region)
    return found


def measured() -> dict[str, Any]:
    """One scan over an empty ledger."""
    from hardening.foundation.settings import Aws, Judging, Settings
    from images.aws.client import Client, Clients
    from images.context import Context
    from pipelines.cli.rollout import scan_fleets

    calls = Counter[str]()
    Clients._make = lambda _, service, account, region: Client(  # type: ignore[method-assign]
        Answers(region, calls), service, account, region
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "content")
        (root / "pipelines/fleets").mkdir(parents=True)
        (root / "pipelines/fleets/shop.toml").write_text(FLEET)
        aws = Aws(account=HOME, region=REGIONS[0], regions=REGIONS[1:])
        settings = Settings(state=Path(folder), content=(root,), judging=Judging(roots=(root,)), aws=aws)
        context = Context(settings, NOW, lambda: "", lambda: "127.0.0.1:9/golden", actor="benchmark")
        for operation in OPERATIONS:  # the world is there before it is asked for
            for region in REGIONS:
                made(operation, region)
        began, spent = time.perf_counter(), time.process_time()
        lines, _ = scan_fleets("shop", context=context)
        wall, cpu = time.perf_counter() - began, time.process_time() - spent
        context.ledger.close()
    assert len(lines) == INSTANCES, len(lines)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": wall, "cpu": cpu, "mb": megabytes, "calls": dict(calls)}


if __name__ == "__main__":
    if sys.argv[1:] == [ONE]:
        print(json.dumps(measured()))
    else:
        sys.exit(main())
