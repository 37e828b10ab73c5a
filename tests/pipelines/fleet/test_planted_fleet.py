"""Every kind of violation that is planted into real containers and instances is found; their twins break nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hardening.model import Enforcement
from hardening.policy import Policy, RunningRules
from hardening.runtime import NAMES
from images.aws.client import Client
from pipelines.fleet.docker.members import DockerFleet
from pipelines.fleet.docker.observing import observe
from pipelines.fleet.ec2.instances import Ec2Fleet
from pipelines.fleet.members import Member, Provenance
from pipelines.fleet.violations import FleetJudge, Judged
from tests.pipelines.fleet.planted import CONFIG, CONTAINERS, HARDENED, INSTANCES, Planted
from tests.strict_aws import Fault, StrictAws
from tests.support import ec2 as clouds
from tests.support.ec2 import Shop, shop
from tests.support.fleets import NOW, judge, member, release
from tests.support.yards import Yard, fleet

RUNTIME = {name: {"enforcement": "enforce"} for name in sorted(NAMES)}
RUNTIME["host_mount"] = {"enforcement": "enforce", "allowed": ["/opt/allowed*"]}  # type: ignore[dict-item]
LIMIT = {"max_age": {"limit": "45d"}, "approved_source": {"prefixes": ["r.example"]}}


def policy(**running: Any) -> Policy:
    """All rules enforced."""
    rules = RunningRules.model_validate({**RUNTIME, "superseded": {}, "unknown": {}, **running})
    return Policy.model_validate(
        {"name": "p", "title": "t", "owner": "security", "rationale": "r", "review_by": "2099-01-01",
         "exception_contact": "ask"}
    ).model_copy(update={"running": rules})  # fmt: skip


def broken(one: Judged) -> dict[str, tuple[str, ...]]:
    """The evidence against a member, by rule."""
    return {reason.rule: reason.remedy.evidence if reason.remedy else () for reason in one.standing}


def good() -> Provenance:
    """An image against which nothing is to be said."""
    return Provenance(release=release())


# -- images ------------------------------------------------------------------------------------------------------------

OLD = release(-30)
IMAGES: dict[str, tuple[Member, Provenance, Member, Provenance]] = {
    "expired": (member(), Provenance(release=release(expires_at=NOW)), member(),
                Provenance(release=release(expires_at=NOW + timedelta(seconds=1)))),
    "superseded": (member(), Provenance(release=release(), latest=release(9), latest_since=NOW), member(),
                   Provenance(release=release(), latest=release(9, content=release().content))),
    "revoked": (member(), Provenance(release=release(revoked_at=NOW, revoked_reason="a key")), member(), good()),
    "refused": (member(), Provenance(release=release(), refused_because="CVE-2026-1", refused_since=NOW), member(),
                good()),
    "unknown": (member(), Provenance(), member(), Provenance(base=release())),
    "max_age": (member(), Provenance(release=replace(OLD, expires_at=NOW + timedelta(days=9))), member(), good()),
    "approved_source": (member(image="r.example.evil/nginx:1"), good(), member(image="r.example/nginx:1"), good()),
}  # fmt: skip


@pytest.mark.parametrize("rule", IMAGES)
def test_each_violation_of_an_image_is_found_and_its_twin_is_not(rule: str) -> None:
    """The clock stands still."""
    bad, origin, twin, twins = IMAGES[rule]
    asked = policy(**LIMIT)
    found = judge("web", asked, bad, origin, (), NOW)
    assert set(broken(found)) == {rule}
    assert all(reason.since and reason.deadline and reason.remedy and reason.todo for reason in found.reasons)
    assert broken(judge("web", asked, twin, twins, (), NOW)) == {}


# -- containers --------------------------------------------------------------------------------------------------------


def created(yard: Yard, name: str, host: dict[str, Any], config: dict[str, Any]) -> Member:
    """A container, not started, as the member that it would be."""
    body = {"Image": "fleet-test:one", "Labels": {"goldsmith-test": "1"}, **CONFIG, **config}
    made = yard.api.create_container_from_config({**body, "HostConfig": {**HARDENED, **host}}, name)["Id"]
    return replace(member(name), handle=made, since=datetime.now(UTC))


def test_what_is_planted_mounts_no_volume_but_those_of_tests() -> None:
    """They are removed after, and the engine may be a developer's own."""
    hosts = [host for one in CONTAINERS for host in (one.host, one.twin_host)]
    mounts = [host.get("Binds", ()) for host in hosts]
    volumes = {bind.partition(":")[0] for binds in mounts for bind in binds if not bind.startswith("/")}
    volumes |= {mount["Source"] for host in hosts for mount in host.get("Mounts", ())}
    assert volumes
    assert all(name.startswith("goldsmith-test-") for name in volumes)


@pytest.mark.slow
@pytest.mark.needs("docker", "busybox")
def test_each_planted_container_is_found_and_its_twin_is_not(yard: Yard) -> None:
    """Created and not started: what they would do stands in their settings."""
    planted, twins = dict[str, Planted](), list[Member]()
    for number, one in enumerate(CONTAINERS):
        planted[created(yard, f"planted-{number}", one.host, one.config).handle] = one
        twins.append(created(yard, f"twin-{number}", one.twin_host, one.twin_config))
    members = [replace(member(one.name.replace(" ", "-")), handle=handle, id=handle) for handle, one in planted.items()]
    with DockerFleet(fleet(), yard.host) as port:
        seen = observe(port, [*members, *(replace(one, id=one.handle) for one in twins)])
    by = FleetJudge("web", policy(), (), NOW)
    for one in members:
        kind, found = planted[one.handle], broken(by.judge(one, good(), seen[one.handle]))
        assert set(found) == {kind.rule, kind.also} - {""}, f"{kind.name}: {found}"
        assert kind.evidence in "; ".join(found[kind.rule]), kind.name
    for one in twins:
        assert broken(by.judge(one, good(), seen[one.handle])) == {}, one.name


@pytest.mark.slow
@pytest.mark.needs("docker", "busybox")
def test_what_was_done_to_a_running_container_is_found_with_what_changed(yard: Yard) -> None:
    """Executed into and changed, given less memory and another network; the twin writes only where it may."""
    check = 'exec sleep   "$LONG"'
    options = ["--user", "0", "--memory", "64m", "--mount", "type=volume,target=/data", "--tmpfs", "/scratch",
               "--env", "LONG=614", "--health-cmd", check, "--health-interval", "1h"]  # fmt: skip
    yard.start("bad", *options)
    yard.start("twin", *options)
    with DockerFleet(fleet(), yard.host) as port:
        first = {one.name: observe(port, [one])[one.id] for one in port.describe()}
        by = FleetJudge("web", policy(), (), NOW)
        rules = {"changed_files", "foreign_processes", "changed_settings"}
        assert all(not rules & set(broken(by.judge(member(), good(), one))) for one in first.values()), first
        yard.docker("exec", "bad", "sh", "-c", "echo evil >/etc/planted; busybox rm /web")
        yard.docker("exec", "-d", "bad", "sleep", "613")
        yard.docker("exec", "-d", "bad", "sh", "-c", "busybox sleep 615; true", "-c", check)
        yard.docker("network", "connect", "bridge", "bad")
        yard.docker("update", "--memory", "32m", "--memory-swap", "-1", "bad")
        yard.docker("exec", "-d", "twin", "/bin/sh", "-c", check)
        yard.docker("exec", "twin", "sh", "-c", "for at in /data /scratch /tmp; do echo x >$at/mine; done")
        found = {}
        for one in port.describe():
            seen = replace(observe(port, [one])[one.id], history=((NOW, first[one.name].now),))  # type: ignore[arg-type]
            found[one.name] = broken(by.judge(one, good(), seen))
    assert rules & set(found["twin"]) == set()
    assert set(found["bad"]["changed_files"]) == {"added /etc/planted", "removed /web"}
    assert found["bad"]["foreign_processes"] == ("sh … as root", "sleep … as root")
    assert set(found["bad"]["changed_settings"]) == {
        "memory 67108864 → 33554432", "networks fleet-test → bridge, fleet-test"
    }  # fmt: skip


# -- instances ---------------------------------------------------------------------------------------------------------


class Cloud:
    """The shop with its instances judged."""

    def __init__(self, at: Shop) -> None:
        self.at = at
        self.port = Ec2Fleet(clouds.fleet(), at.cloud)
        self.by = FleetJudge("shop", policy(), (), NOW)

    def group(self, name: str, lets_in: tuple[tuple[str, int, str], ...]) -> str:
        made = self.at.ec2.create_security_group(GroupName=name, Description="planted", VpcId=self.at.vpc)["GroupId"]
        for rule in lets_in:
            self.open(made, *rule)
        return str(made)

    def open(self, group: str, protocol: str, port: int, source: str) -> None:
        origin = {"Ipv6Ranges": [{"CidrIpv6": source}]} if ":" in source else {"IpRanges": [{"CidrIp": source}]}
        ports = {"FromPort": port, "ToPort": port} if protocol != "-1" else {}
        self.at.ec2.authorize_security_group_ingress(
            GroupId=group, IpPermissions=[{"IpProtocol": protocol, **ports, **origin}]
        )

    def instance(self, name: str, lets_in: tuple[tuple[str, int, str], ...] = (), **launch: Any) -> str:
        hardened = {"MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"}}
        group = self.group(name, lets_in)
        return self.at.instance(SecurityGroupIds=[group], ImageId=self.at.image(self.at.new), **{**hardened, **launch})

    def judged(self, first: dict[str, Any] | None = None) -> dict[str, Judged]:
        """By the handles of members; `first`: what was observed at first."""
        members = self.port.describe()
        seen = self.port.observe(members)
        old = first or {}
        return {
            one.handle: self.by.judge(one, good(), replace(seen[one.id], history=old.get(one.id, ())))
            for one in members
        }


@pytest.fixture
def cloud(aws: StrictAws, tmp_path: Path) -> Iterator[Cloud]:
    """A shop of its own."""
    at = shop(aws, tmp_path)
    yield Cloud(at)
    at.cloud.ledger.close()


def test_each_planted_instance_is_found_and_its_twin_is_not(cloud: Cloud) -> None:
    """By its own settings, those of its volumes, and those of its groups."""
    planted, twins = {}, list[str]()
    for number, one in enumerate(INSTANCES):
        planted[cloud.instance(f"planted-{number}", one.lets_in, **one.launch)] = one
        twins.append(cloud.instance(f"twin-{number}", one.twin_lets_in, **one.twin_launch))
    public = cloud.instance("public")
    address = cloud.at.ec2.allocate_address(Domain="vpc")
    cloud.at.ec2.associate_address(AllocationId=address["AllocationId"], InstanceId=public)
    found = {name: broken(one) for name, one in cloud.judged().items()}
    assert found[public] == {"public_address": (address["PublicIp"],)}
    for name, kind in planted.items():
        assert set(found[name]) == {kind.rule}, f"{kind.name}: {found[name]}"
        assert kind.evidence in "; ".join(found[name][kind.rule])
    assert [found[name] for name in twins] == [{}] * len(twins)


def test_an_instance_whose_group_was_opened_is_found_with_what_was_opened(cloud: Cloud) -> None:
    """And one of another type than at first; one that nobody touched is as it was."""
    opened, typed, twin = (cloud.instance(name) for name in ("opened", "typed", "twin"))
    members = cloud.port.describe()
    first = {name: ((NOW, one.now),) for name, one in cloud.port.observe(members).items()}
    assert {broken(one).get("changed_settings") for one in cloud.judged(first).values()} == {None}
    group = cloud.at.shown(opened)["SecurityGroups"][0]["GroupId"]
    cloud.open(group, "tcp", 22, "0.0.0.0/0")
    cloud.at.ec2.stop_instances(InstanceIds=[typed])
    cloud.at.settle()
    cloud.at.ec2.modify_instance_attribute(InstanceId=typed, InstanceType={"Value": "t3.small"})
    cloud.at.ec2.start_instances(InstanceIds=[typed])
    cloud.at.settle()
    found = {name: broken(one) for name, one in cloud.judged(first).items()}
    line = f"security group {group} (opened) was opened: it lets in tcp 22 from 0.0.0.0/0"
    assert found[opened]["changed_settings"] == (line,)
    assert found[typed] == {"changed_settings": ("type t3.micro → t3.small",)}
    assert found[twin] == {}


def test_an_instance_that_differs_from_its_template_is_found(cloud: Cloud) -> None:
    """Of another type than the version says that it was launched from; its twin is as it says, or from a group."""
    group = cloud.group("templated", ())
    data = {"ImageId": cloud.at.image(cloud.at.new), "InstanceType": "t3.micro", "SecurityGroupIds": [group],
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"}}  # fmt: skip
    made = cloud.at.ec2.create_launch_template(LaunchTemplateName="shop", LaunchTemplateData=data)["LaunchTemplate"]
    named = {"LaunchTemplateId": made["LaunchTemplateId"], "Version": "1"}
    bare = {"ImageId": None, "LaunchTemplate": named, "SubnetId": cloud.at.subnet}
    twin = cloud.at.instance(**bare, InstanceType=None)
    bad = cloud.at.instance(**bare, InstanceType="t3.small")
    found = {name: broken(one) for name, one in cloud.judged().items()}
    assert found[twin] == {}
    assert set(found[bad]) == {"template_drift"}
    assert "type t3.small, not t3.micro" in found[bad]["template_drift"][0]


def test_versions_of_one_template_are_asked_for_at_once(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one by one where one of them is gone: the others are judged all the same."""
    group, named = cloud.group("templated", ()), list[str]()
    data = {"ImageId": cloud.at.image(cloud.at.new), "InstanceType": "t3.micro", "SecurityGroupIds": [group],
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"}}  # fmt: skip
    made = cloud.at.ec2.create_launch_template(LaunchTemplateName="shop", LaunchTemplateData=data)["LaunchTemplate"]
    of = {"LaunchTemplateId": made["LaunchTemplateId"]}
    for size in ("t3.small", "t3.medium"):
        cloud.at.ec2.create_launch_template_version(**of, LaunchTemplateData={**data, "InstanceType": size})
    for version in ("1", "2", "3"):
        bare = {"ImageId": None, "LaunchTemplate": {**of, "Version": version}, "SubnetId": cloud.at.subnet}
        named.append(cloud.at.instance(**bare, InstanceType="t3.medium"))
    asked, real = list[list[str]](), Client.call

    def call(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        if operation == "DescribeLaunchTemplateVersions":
            asked.append(request["Versions"])
        return real(self, operation, **request)

    monkeypatch.setattr(Client, "call", call)
    found = {name: broken(one) for name, one in cloud.judged().items()}
    drifted = [found[name].get("template_drift", ("",))[0].partition(",")[2] for name in named]
    assert [one.partition(" (")[0] for one in drifted] == [" not t3.micro", " not t3.small", ""]
    assert asked == [["1", "2", "3"]]
    cloud.at.ec2.delete_launch_template_versions(**of, Versions=["2"])
    found = {name: broken(one) for name, one in cloud.judged().items()}
    assert ["template_drift" in found[name] for name in named] == [True, False, False]


def test_groups_that_cannot_be_read_are_unread_and_never_compliant(cloud: Cloud) -> None:
    """As strictly as the rule that could not be judged; by a policy that only records, it is recorded."""
    name = cloud.instance("silent")
    with cloud.at.aws.faulty(Fault("denied", operation="DescribeSecurityGroups")):
        found = cloud.judged()[name]
        cloud.by = FleetJudge("shop", policy(**{rule: {"enforcement": "audit"} for rule in NAMES}), (), NOW)
        recorded = cloud.judged()[name]
    assert set(broken(found)) == {"unread"}
    assert "DescribeSecurityGroups" in found.standing[0].what
    assert ([one.rule for one in recorded.reasons], recorded.standing) == (["unread"], ())
    assert recorded.reasons[0].enforcement is Enforcement.AUDIT
