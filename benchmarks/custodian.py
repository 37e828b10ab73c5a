"""The same five questions about 10,000 instances in two regions, asked by Cloud Custodian and by Goldsmith.

Both run as their users run them, each in a process of its own, against one emulated endpoint: are they within policy by
the age of their image, IMDSv1, volumes in the clear, public addresses, and security groups that let in everybody? The
processor time is all that each process used, the start of Python and boto3's reading of the answers included; that of
the endpoint, which is a third process, is not. Cloud Custodian is installed into a virtual environment of its own,
which is kept for the next time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from inventory import FLEET, HOME, INSTANCES, REGIONS, VOLUMES, made, name_of
from measure import ROOT, Reading, Report, alternate, end, rounds, timed

C7N = "c7n==0.9.53"
VENV = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "goldsmith-benchmarks" / C7N
SERVE, LEAST = "--serve", 5.0
OURS, THEIRS = "Goldsmith, fleet.scan", "Cloud Custodian, custodian run"
RULES = ("max_age", "imdsv1", "unencrypted_volume", "public_address", "open_group")
IMAGES, OLD, FOREIGN = 10, 60, 9  # images of a region, days, and the one that no release of ours is
ANYWHERE = ("0.0.0.0/0", "::/0")
POLICY = f"""
title = "Of a benchmark"
owner = "benchmarks"
rationale = "It asks what the other tool asks."
review_by = 2099-01-01
exception_contact = "nobody"
[image.judges]
minimum = 1
data_max_age = "7d"
[running.unknown]
enforcement = "warn"
[running.max_age]
limit = "{OLD}d"
""" + "".join(f'[running.{name}]\nenforcement = "enforce"\n' for name in RULES[1:])
ASKED: dict[str, list[Any]] = {
    "max_age": [{"type": "image-age", "op": "ge", "days": OLD}],
    "imdsv1": [
        {"type": "value", "key": "MetadataOptions.HttpTokens", "value": "optional"},
        {"type": "value", "key": "MetadataOptions.HttpEndpoint", "value": "enabled"},
    ],
    "unencrypted_volume": [{"type": "ebs", "key": "Encrypted", "value": False}],
    "public_address": [
        {"or": [
            {"type": "value", "key": "PublicIpAddress", "value": "present"},
            {"type": "value", "key": "NetworkInterfaces[].Ipv6Addresses[].Ipv6Address", "value_type": "size",
             "op": "gt", "value": 0},
        ]}
    ],
    "open_group": [
        {"type": "security-group", "op": "intersect", "value": list(ANYWHERE),
         "key": "IpPermissions[?FromPort!=`80` && FromPort!=`443`].[IpRanges[].CidrIp, Ipv6Ranges[].CidrIpv6][][]"}
    ],
}  # fmt: skip
"""The filters of the policy that Cloud Custodian has for each of our rules."""


def main() -> int:
    """Measure, print, and say by the exit code whether the claims hold."""
    times = rounds(3, __doc__ or "")
    installed()
    with tempfile.TemporaryDirectory(prefix="goldsmith-bench-") as folder, served() as url:
        here = Path(folder)
        env = environment(here, url)
        readings = alternate({OURS: lambda: scanned(here, env), THEIRS: lambda: run_custodian(here, env)}, times)
        ours, theirs = found_by_us(here), found_by_custodian(here)
    report = Report(readings)
    report.table()
    unexplained = compared(ours, theirs)
    ratio = report.cpu_ratio(THEIRS, OURS)
    print(f"{'FAILS' if unexplained else 'holds':6} the same members, or a reason: {unexplained} without one")
    print(f"{'holds' if ratio >= LEAST else 'FAILS':6} processor time: {ratio:.1f} times ours, at least {LEAST:.0f}")
    return int(ratio < LEAST or bool(unexplained))


def installed() -> None:
    """Cloud Custodian in its own environment, by this Python."""
    if not (VENV / "bin/custodian").exists():
        venv.create(VENV, clear=True, with_pip=True)
        subprocess.run([VENV / "bin/pip", "install", "-q", C7N], check=True)


def environment(here: Path, url: str) -> dict[str, str]:
    """Content, state with what the ledger knows of the images, and the endpoint, for both."""
    root = here / "content"
    for name, text in (("pipelines/fleets/shop.toml", FLEET.replace("[ec2]", 'policy = "bench"\n[ec2]')),
                       ("hardening/policies/bench.toml", POLICY)):  # fmt: skip
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(text)
    regions = [*REGIONS]
    query = [{"instance-state-name": "running"}, {"tag:app": "shop"}]
    policies = [
        {"name": name, "resource": "aws.ec2", "query": query, "filters": filters} for name, filters in ASKED.items()
    ]
    (here / "custodian.json").write_text(json.dumps({"policies": policies}))
    settings = {
        "GOLDSMITH_STATE": str(here / "state"),
        "GOLDSMITH_CONTENT": json.dumps([str(root)]),
        "GOLDSMITH_JUDGING": json.dumps({"roots": [str(root)], "floor": "", "policies": ["default", "bench"]}),
        "GOLDSMITH_AWS": json.dumps({"account": HOME, "region": regions[0], "regions": regions[1:]}),
        "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": HOME, "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": regions[0], "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    os.environ.update(settings)
    from pipelines.wiring import image_context

    known_images(image_context(looks=True).ledger)
    return settings


def known_images(ledger: Any) -> None:
    """The releases that the regions' images are of, all but one."""
    from images.artifact import Release
    from images.ledger import STANDING, Made

    for number in range(IMAGES):
        if number == FOREIGN:
            continue
        at, digest = published(number), f"sha256:{number:064x}"
        ends = at + timedelta(days=365)
        ledger.record_release(Release("shop", "shop", digest, digest, "", "p", "bench", at, ends, ends))
        for region in REGIONS:
            ledger.record_made(
                Made(HOME, region, "image", f"{number}", "shop", digest, digest, at, name_of("ami", region, number),
                     STANDING, {"snapshots": [f"snap-{number}"]})
            )  # fmt: skip


def published(number: int) -> datetime:
    """When an image was: every tenth day, at noon."""
    today = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    return today - timedelta(days=5 + 10 * number)


def scanned(here: Path, env: dict[str, str]) -> Reading:
    """All members of the fleet, with the rules that they violate."""
    argv = (sys.executable, ROOT / "tasks.py", "fleet.scan", "shop", "--json")
    return kept(here / "ours.json", argv, env)


def run_custodian(here: Path, env: dict[str, str]) -> Reading:
    """One run of all policies, which share what is listed of a region."""
    argv = [VENV / "bin/custodian", "run", "--cache", "memory", "-s", here / "found"]
    argv += [word for region in REGIONS for word in ("--region", region)]
    return timed([str(one) for one in (*argv, here / "custodian.json")], env)


def kept(file: Path, argv: tuple[object, ...], env: dict[str, str]) -> Reading:
    """A command's reading, and what it said in a file."""
    return timed(["sh", "-c", 'exec "$@" >"$0"', str(file), *map(str, argv)], env)


Found = dict[str, frozenset[str]]  # by rule, the instances


def found_by_us(here: Path) -> Found:
    """The instances that break each rule, and those whose image is unknown."""
    lines = json.loads((here / "ours.json").read_text())
    assert len(lines) == INSTANCES, len(lines)
    return {
        rule: frozenset(line["member"].rpartition("/")[2] for line in lines if rule in line["policy"].split(", "))
        for rule in (*RULES, "unknown")
    }


def found_by_custodian(here: Path) -> Found:
    """The instances that match each policy, of both regions."""
    return {
        rule: frozenset(
            one["InstanceId"]
            for file in (here / "found").glob(f"*/{rule}/resources.json")
            for one in json.loads(file.read_text())
        )
        for rule in RULES
    }


def compared(ours: Found, theirs: Found) -> int:
    """Print what each found and the other did not; how many of these have no reason."""
    unexplained = 0
    print(f"{'rule':22}{'both':>8}{'only we':>9}{'only they':>11}")
    for rule in RULES:
        mine, others = ours[rule] - theirs[rule], theirs[rule] - ours[rule]
        print(f"{rule:22}{len(ours[rule] & theirs[rule]):8,}{len(mine):9,}{len(others):11,}")
        unknown = others & ours["unknown"] if rule == "max_age" else frozenset()
        if unknown:
            print(f"  {len(unknown):,} run an image that is of no release of ours, which is a rule of its own for us,")
            print("  whatever day its region says that it was made, which they go by")
        unexplained += len(mine) + len(others - unknown)
    return unexplained


# -- the endpoint ------------------------------------------------------------------------------------------------------


@contextmanager
def served() -> Iterator[str]:
    """The address of the endpoint, a process of its own, which ends with the block."""
    server = subprocess.Popen([sys.executable, __file__, SERVE], stdout=subprocess.PIPE, text=True)
    assert server.stdout
    try:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
    finally:
        server.terminate()
        server.wait()


def serve() -> None:
    """Answer for EC2 what `inventory.py` makes, with faults planted; the tests' strict emulator answers the rest."""
    from tests.strict_aws import rules
    from tests.strict_aws.server import make_server

    rules.RULES["ec2"].update({name: listing.answer for name, listing in LISTINGS.items()})
    server = make_server()
    print(server.server_port, flush=True)
    server.serve_forever()


def instances(region: str) -> list[dict[str, Any]]:
    """Those of `inventory.py`, some with one fault or several."""
    found = []
    for number, reservation in enumerate(made("DescribeInstances", region)[1]):
        (one,) = reservation["Instances"]
        tokens = "optional" if number % 7 == 0 else "required"
        endpoint = "disabled" if number % 21 == 0 else "enabled"
        card = dict(one["NetworkInterfaces"][0])
        if number % 17 == 0:
            card["Ipv6Addresses"] = [{"Ipv6Address": "2001:db8::1"}]
        address = {"PublicIpAddress": "198.51.100.7"} if number % 13 == 0 else {}
        options = {"HttpTokens": tokens, "HttpEndpoint": endpoint, "HttpPutResponseHopLimit": 1}
        found.append({**one, **address, "NetworkInterfaces": [card], "MetadataOptions": options})
    return found


def volumes(region: str) -> list[dict[str, Any]]:
    """Some in the clear, root and data; each made of its instance's image."""
    return [
        {**one, "Encrypted": bool(number % 23), "SnapshotId": f"snap-{number // VOLUMES % IMAGES}"}
        for number, one in enumerate(made("DescribeVolumes", region)[1])
    ]


def security_groups(region: str) -> list[dict[str, Any]]:
    """One lets everybody in by SSH, one by all protocols over IPv6, and one to what may be open."""
    found = [dict(one) for one in made("DescribeSecurityGroups", region)[1]]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": ANYWHERE[0]}]}
    https = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": ANYWHERE[0]}]}
    all_of_it = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "10.0.0.0/8"}], "Ipv6Ranges": [{"CidrIpv6": ANYWHERE[1]}]}
    for one, rule in zip(found, (ssh, all_of_it, https), strict=False):
        one["IpPermissions"] = [rule]
    return found


def images(region: str) -> list[dict[str, Any]]:
    """As the region shows them; none has tags of ours, which the ledger stands in for."""
    return [
        {"ImageId": name_of("ami", region, number), "Name": f"shop-{number}", "State": "available", "OwnerId": HOME,
         "CreationDate": f"{published(number):%Y-%m-%dT%H:%M:%S.000Z}", "RootDeviceName": "/dev/xvda",
         "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": f"snap-{number}"}}]}
        for number in range(IMAGES)
    ]  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """What an operation lists in a region. `ids`: the parameter that names some; `id`: the member that is one's name;
    `filters`: the paths that filters read, by their names.
    """

    key: str
    items: Callable[[str], list[dict[str, Any]]]
    ids: str = ""
    id: str = ""
    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def answer(self, world: Any, call: Any) -> Any:
        """A page of what was asked for, in bytes, which are made once."""
        key = call.operation, call.region, json.dumps(call.params, sort_keys=True, default=str)
        if key not in ANSWERS:
            ANSWERS[key] = self._rendered(world, call)
        return ANSWERS[key]

    def _rendered(self, world: Any, call: Any) -> Any:
        from tests.strict_aws import listing
        from tests.strict_aws.wire import render

        wanted, everything = frozenset(call.params.get(self.ids) or ()), all_of(self, call.region)
        some = [one for one in everything if one[self.id] in wanted] if wanted else everything
        some = listing.filtered(call, some, {name: listing.member(*path) for name, path in self.filters})
        found, more = listing.page(world, call, some, self.ids)
        shown = [{"Instances": [one]} for one in found] if self.key == "Reservations" else found
        return render(call, {self.key: shown, **more})


@cache
def all_of(listing: Listing, region: str) -> list[dict[str, Any]]:
    """All that is listed, made once."""
    return listing.items(region)


ANSWERS: dict[tuple[str, str, str], Any] = {}
LISTINGS = {
    "DescribeInstances": Listing(
        "Reservations", instances, "InstanceIds", "InstanceId", (("instance-state-name", ("State", "Name")),)
    ),
    "DescribeVolumes": Listing(
        "Volumes", volumes, "VolumeIds", "VolumeId", (("attachment.status", ("Attachments", "State")),)
    ),
    "DescribeInstanceStatus": Listing("InstanceStatuses", lambda region: made("DescribeInstanceStatus", region)[1]),
    "DescribeSecurityGroups": Listing(
        "SecurityGroups", security_groups, "GroupIds", "GroupId", (("group-id", ("GroupId",)),)
    ),
    "DescribeImages": Listing("Images", images, "ImageIds", "ImageId", (("owner-id", ("OwnerId",)),)),
    "DescribeLaunchTemplateVersions": Listing(
        "LaunchTemplateVersions", lambda region: made("DescribeLaunchTemplateVersions", region)[1]
    ),
}  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:] == [SERVE]:
        serve()
    else:
        end(main)
