"""Each role does all that it should under its own policies, which the emulator enforces, and needs all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError, RefusedError
from images.aws.client import Client
from images.aws.cloud import Cloud
from images.aws.kms import KmsSigner
from images.aws.reaping import reap as reap_images
from images.aws.release_store import AwsStore, channel_name
from images.aws.retire import retire_images
from images.ledger import Made
from images.release.channels import promote, revoke, rollback
from pipelines.blast_radius.gathering import ask_account
from pipelines.cli.adopt_ec2 import adopt_ec2
from pipelines.cli.network import apply_network, check_network
from pipelines.cli.reap import reap
from pipelines.fleet.ec2.accounts import accounts_of
from pipelines.fleet.ec2.instance_spec import token
from pipelines.fleet.ec2.instances import Ec2Fleet
from pipelines.fleet.ec2.members import firing
from pipelines.fleet.ec2.orphans import Ec2OrphanSource
from pipelines.fleet.ec2.root_volume import RootVolumeFleet
from pipelines.fleet.members import OWNED, Key, ReplacementImage
from pipelines.fleet.model import Method
from pipelines.fleet.port import Progress
from pipelines.network.catalog import load_network
from pipelines.network.model import RoleGroup
from pipelines.own_rights import lacking
from tests.images.aws.test_aws_faults import OTHER, Killed, dying
from tests.images.aws.test_aws_walk import on
from tests.pipelines.fleet.test_autoscaling import ROLLOUT, Groups
from tests.pipelines.fleet.test_ec2_check import Office, template
from tests.pipelines.network.test_network_groups import FIRST, SECOND
from tests.pipelines.network.test_network_groups import Cloud as NetworkGroups
from tests.strict_aws import ACCOUNT, REGION, StrictAws, guard
from tests.strict_aws.making import image
from tests.support.cloud import DAY, at, cloud_for, disk, publish, settings_at
from tests.support.ec2 import Asked, Shop, fleet, key_of, shop
from tests.support.ecs import ROLLOUT as TASKS
from tests.support.ecs import town
from tests.support.eks import ROLLOUT as NODES
from tests.support.eks import cluster
from tests.support.publishing import gate
from tests.support.roles import Json, edges, enforced, rendered

NAME = "debian-server"
EXPIRY = timedelta(days=1)
FLEETS = (
    fleet(),
    fleet(name="roots", ec2={"way": "root_volume", "accounts": "organization"}),
    fleet(name="web", kind="ecs", selector={"app": "web"}, ecs={"cluster": "shop"}),
    fleet(name="nodes", kind="eks", selector={"app": "shop"}, eks={"cluster": "shop"}),
)
PARTNER = "210987654321"
THERE = f"arn:aws:iam::{PARTNER}:role/goldsmith"
FURTHER: Json = {
    "IamInstanceProfile": {"Name": "nodes"},
    "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "shop"}]}],
}
"""What a launch template may have more: a role to pass, and tags."""
REMOTE = {"roles": {PARTNER: THERE}, "external_ids": {PARTNER: "shop-7"}}


@dataclass
class Stage:
    """The emulator, a role, and what was asked for in it; each act begins with an empty account."""

    aws: StrictAws
    folder: Path
    role: str
    documents: list[Json] = field(default_factory=list)
    asked: list[Json] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    def begin(self) -> Path:
        """A folder of an act's own."""
        self.aws.reset()
        made = self.folder / str(next(self.numbers))
        made.mkdir()
        return made

    @contextmanager
    def acting(self, cloud: Cloud, groups: tuple[RoleGroup, ...] = (), **policies: list[Json]) -> Iterator[None]:
        """We may do what the role may during the block."""
        self.documents = rendered(self.role, cloud.settings, FLEETS, groups=groups, **REMOTE)
        with enforced(self.aws, {ACCOUNT: self.documents, **policies}):
            yield
        self.asked += self.aws.asked()


# -- acts --------------------------------------------------------------------------------------------------------------


def builds(stage: Stage) -> None:
    """A builder reads the public half of the key that signed its parent."""
    cloud = cloud_for(settings_at(stage.aws, stage.begin()))
    with stage.acting(cloud):
        assert KmsSigner(cloud.clients, cloud.aws.signing_key, "aws.signing_key").public
    cloud.ledger.close()


def publishes(stage: Stage) -> None:
    """Two releases in two regions, one over what a killed run left; moved, revoked, read, and read in again."""
    folder = stage.begin()
    cloud = cloud_for(settings_at(stage.aws, folder, regions=(OTHER,)))
    later = at(cloud, cloud.now + DAY)
    with stage.acting(cloud):
        publish(cloud, disk())
        promote(AwsStore(cloud), NAME, "default", gate())
        for lost, after in (("Sign", True), ("CompleteSnapshot", False), ("StartSnapshot", True)):
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(Client, "call", dying(lost, 0, after=after))
                with pytest.raises(Killed):
                    publish(cloud, disk(seed=4 + len(lost)))
        new = publish(later, disk(seed=2)).release
        promote(AwsStore(later), NAME, "default", gate())
        AwsStore(later).show(NAME)
        rollback(AwsStore(later), NAME)
        revoke(AwsStore(later), new.digest, "bad")
        empty = cloud_for(cloud.settings.model_copy(update={"database": f"sqlite:///{folder}/new"}), later.now)
        AwsStore(empty).read_in()
    for one in (cloud, empty):
        one.ledger.close()


def prunes(stage: Stage) -> None:
    """The whole life of images that no channel names, and what killed runs left."""
    cloud = cloud_for(settings_at(stage.aws, stage.begin(), regions=(), **REMOTE))
    stage.aws.guard(THERE, "shop-7")
    there = rendered(stage.role, cloud.settings, (), PARTNER)
    publish(cloud, disk())
    ec2 = stage.aws.client("ec2")
    made = ec2.create_launch_template(
        LaunchTemplateName="x", LaunchTemplateData={"ImageId": "resolve:ssm:/aws/service/x"}
    )
    assert made
    stage.aws.client("ssm").delete_parameters(Names=[channel_name(cloud, NAME, "candidate")])
    stage.aws.client("ssm").put_parameter(Name="/shop", Value="x", Type="String")
    ec2.disable_image_deprecation(ImageId=cloud.made(kind="image")[0].resource)
    for day in (32, 50, 51, 90):  # once EC2 has reported on it, the image is disabled
        then = on(stage.aws, cloud, day)
        with stage.acting(cloud, **{PARTNER: there}):
            retire_images(then, apply=True)
    assert not stage.aws.images()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Client, "call", dying("Sign", 0, after=True))
        with pytest.raises(Killed):
            publish(then, disk(seed=6))
    for _ in range(2):  # EC2 is asked who uses it, and answers
        with stage.acting(cloud, **{PARTNER: there}):
            reaped = reap_images(on(stage.aws, then, 3), apply=True)
        stage.aws.advance(60)
    assert any(one.remove for one in reaped)
    assert not stage.aws.images()
    cloud.ledger.close()


def reaps(stage: Stage) -> None:
    """An instance and a volume of a rollout that is over."""
    at_ = shop(stage.aws, stage.begin())
    ledger, gone = at_.cloud.ledger, at_.cloud.now - EXPIRY
    said = {"rollout": "x", "member": "y", "expiry": gone.isoformat()}
    own = [{"Key": f"dev.goldsmith.{key}", "Value": value} for key, value in said.items()]
    volume = at_.ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=1)["VolumeId"]
    instance = at_.instance(ClientToken=token("x", "y", "create"), tags={"app": "shop", OWNED: "x"})
    at_.ec2.create_tags(Resources=[instance, volume], Tags=own)
    ledger.begin_rollout("x", "shop", "ann", {}, at_.cloud.now)
    ledger.save_rollout("x", {}, at_.cloud.now, is_open=False)
    ledger.record_made(Made(ACCOUNT, REGION, "volume", volume, "y", "", "", at_.cloud.now, volume))
    stage.aws.members({ACCOUNT: "ACTIVE"})
    with stage.acting(at_.cloud):
        places = [(account, REGION) for account in accounts_of(FLEETS[1], at_.cloud)]
        source = Ec2OrphanSource(at_.cloud.clients, places, ledger)
        assert len(reap([source], ledger, at_.cloud.now, "ann", apply=True)) == 2
    at_.settle()
    assert (at_.running(), at_.leftovers()) == ([], [])
    ledger.close()


def looks(stage: Stage) -> None:
    """Instances, groups and templates, one by a parameter, an image that the ledger does not know, and a partner."""
    from tests.pipelines.fleet.test_ec2_check import office as opened

    offices = opened.__wrapped__(stage.aws, stage.begin())  # type: ignore[attr-defined]
    office: Office = next(offices)
    own = office.at
    template(own)
    data = {"ImageId": "resolve:ssm:/goldsmith/debian-server/candidate", "InstanceType": "t3.micro"}
    tagged = [{"ResourceType": "launch-template", "Tags": [{"Key": "app", "Value": "shop"}]}]
    own.ec2.create_launch_template(LaunchTemplateName="alias", LaunchTemplateData=data, TagSpecifications=tagged)
    own.register(own.instance(), "shop")
    (line,) = own.cloud.ledger.made(ACCOUNT, kind="image", release=own.old.digest)
    own.cloud.ledger.record_made(replace(line, resource="ami-0123456789abcdef0"))
    stage.aws.members({ACCOUNT: "ACTIVE"})
    stage.aws.guard(THERE, "shop-7")
    remote = own.cloud.settings.model_copy(update={"aws": own.cloud.aws.model_copy(update=REMOTE)})
    there = rendered(stage.role, remote, (fleet(ec2={"accounts": (PARTNER,)}),), PARTNER)
    partner = cloud_for(remote)
    with stage.acting(own.cloud, **{PARTNER: there}):
        accounts_of(FLEETS[1], own.cloud)
        office.check()
        AwsStore(own.cloud).show(NAME)
        assert list(partner.client("ec2", REGION, PARTNER).instances()) == []
        if stage.role == "auditor":
            assert ask_account(own.cloud, ACCOUNT)
            asked = {"Action": "ec2:RunInstances", "Resource": "*"}
            assert lacking(own.cloud.clients, REGION, [asked]) == ("ec2:RunInstances",)
            with pytest.raises(RefusedError, match="already"):
                adopt_ec2(["asg:shop"], context=office.context, regions=REGION, accounts=ACCOUNT)
    partner.ledger.close()
    next(offices, None)


def looks_at_services(stage: Stage) -> None:
    """Tasks of ECS services, and nodes of EKS."""
    with town(stage.aws, stage.begin()) as at_:
        at_.add(tags=[{"key": "app", "value": "web"}])
        at_.selector = {"app": "web"}
        at_.begin_anew()
        with stage.acting(at_.cloud):
            assert at_.tasks.seen().members
            list(at_.reader.later(at_.reader.revision("web:1")))
    with cluster(stage.aws, stage.begin()) as nodes:
        nodes.add(tags={"app": "shop"})
        nodes.selector = {"app": "shop"}
        nodes.begin_anew()
        with stage.acting(nodes.at.cloud):
            assert nodes.nodes.seen().members


def rolls_instances(stage: Stage, way: str) -> None:
    """All that a replacement may do, the way back and the clearing up; of a member that rollouts own."""
    own = shop(stage.aws, stage.begin())
    ways = {"root_volume": RootVolumeFleet, "instance": Ec2Fleet}
    port: Any = Asked(ways[way](fleet(ec2={"way": way}), own.cloud), stage.aws)
    old = own.furnished(unique=True, root_gib=None)
    plain = own.instance()
    own.ec2.create_tags(Resources=[old], Tags=[{"Key": OWNED, "Value": "yes"}])
    first = own.shown(old)["NetworkInterfaces"][0]["NetworkInterfaceId"]
    own.ec2.modify_network_interface_attribute(NetworkInterfaceId=first, SourceDestCheck={"Value": False})
    with stage.acting(own.cloud):
        members = {one.handle: one for one in port.describe()}
        if way == "root_volume":
            _replaced(own, port, key_of(members[plain], Method.IN_PLACE), back=True)
        for back in (True, False):
            _replaced(own, port, replace(key_of(members[old], Method.IN_PLACE), rollout=f"shop-{back}"), back=back)
        firing(own.cloud, [(ACCOUNT, REGION)], ["errors"])
    if way == "root_volume":
        _detached(stage, own, port)
    own.cloud.ledger.close()


def _replaced(own: Shop, port: Any, key: Key, *, back: bool) -> None:
    port.prepare(own.target)
    port.create(key, own.target, own.cloud.now + EXPIRY)
    port.retire(key, timedelta())
    port.start(key)
    own.settle()
    port.differences(key)
    port.read(key)
    port.log(key)
    port.swap(key)
    if back:
        port.revive(key)
        port.discard(key)
        own.settle()
    else:
        port.remove_old(key)


def _detached(stage: Stage, own: Shop, port: Any) -> None:
    """A root volume in the clear, whose replacement fails and leaves the instance none."""
    new = image(stage.aws, "new")
    stage.aws.ail(new, "root-detached")
    old = own.instance(ImageId=image(stage.aws, "old"))
    with stage.acting(own.cloud):
        (member,) = [one for one in port.describe() if one.handle == old]
        key = key_of(member, Method.IN_PLACE)
        port.create(key, ReplacementImage(new, "", None), own.cloud.now + EXPIRY)
        with pytest.raises(OutsideError):
            port.start(key)
        port.revive(key)


def rolls_groups(stage: Stage) -> None:
    """A refresh begun, watched, cancelled and taken back."""
    own = shop(stage.aws, stage.begin())
    groups = Groups(own, version="$Latest")
    stage.aws.client("iam").create_instance_profile(InstanceProfileName="nodes")
    own.ec2.create_launch_template_version(
        LaunchTemplateId=groups.template, SourceVersion="1", LaunchTemplateData=FURTHER
    )
    with stage.acting(own.cloud):
        pinned = groups.begin()
        stage.aws.advance(2)
        groups.port.watch(ROLLOUT, groups.group)
        groups.port.roll_back(ROLLOUT, groups.group, pinned)
    own.cloud.ledger.close()


def cancels_groups(stage: Stage) -> None:
    """A refresh that goes on is cancelled."""
    own = shop(stage.aws, stage.begin())
    stage.aws.takes(launch=500)
    groups = Groups(own)
    with stage.acting(own.cloud):
        groups.port.cancel(ROLLOUT, groups.group, groups.begin())
    own.cloud.ledger.close()


def rolls_services(stage: Stage) -> None:
    """Begun, watched until its tasks end, and taken back."""
    with town(stage.aws, stage.begin(), bake_time="10m", min_healthy_time="5s") as at_:
        at_.add(tags=[{"key": "app", "value": "web"}])
        at_.selector = {"app": "web"}
        at_.begin_anew()
        stage.aws.ail(at_.new, "task", after=30)
        with stage.acting(at_.cloud):
            at_.tasks.seen()
            pinned = at_.begin(rollout=TASKS)
            at_.until(Progress.FAILED, rollout=TASKS)
            at_.port.roll_back(TASKS, at_.group, pinned)


def rolls_nodes(stage: Stage) -> None:
    """There and back."""
    with cluster(stage.aws, stage.begin(), bake_time="5s", min_healthy_time="5s") as at_:
        stage.aws.client("iam").create_instance_profile(InstanceProfileName="nodes")
        shown = at_.at.ec2.create_launch_template_version(
            LaunchTemplateId=at_.template, SourceVersion="1", LaunchTemplateData=FURTHER
        )
        assert shown["LaunchTemplateVersion"]["VersionNumber"] == 2
        at_.add(tags={"app": "shop"}, launchTemplate={"id": at_.template, "version": "2"})
        at_.selector = {"app": "shop"}
        at_.begin_anew()
        with stage.acting(at_.at.cloud):
            at_.nodes.seen()
            pinned = at_.begin(rollout=NODES)
            at_.until(Progress.DONE, rollout=NODES)
            at_.port.roll_back(NODES, at_.group, pinned)


def applies_networks(stage: Stage) -> None:
    """Groups here and in another account follow one network, then another; and are checked."""
    made = NetworkGroups(stage.aws, stage.begin(), **REMOTE)
    made.move("c", PARTNER)
    stage.aws.guard(THERE, "shop-7")
    for rules in (FIRST, SECOND, FIRST):
        made.write(rules)
        with made.open() as context:
            groups = load_network(context.settings.roots).groups
            there = rendered(stage.role, context.settings, (), PARTNER, groups=groups)
            with stage.acting(context.cloud, groups, **{PARTNER: there}):
                assert apply_network("security-groups", apply=True, context=context)[1] == []
                assert check_network("security-groups", context=context) == []


ROLLING = (
    looks, looks_at_services, partial(rolls_instances, way="instance"), partial(rolls_instances, way="root_volume"),
    rolls_groups, cancels_groups, rolls_services, rolls_nodes,
)  # fmt: skip
ACTS: dict[str, tuple[Callable[[Stage], None], ...]] = {
    "builder": (builds,),
    "publisher": (publishes,),
    "scanner": (looks, looks_at_services),
    "roller": ROLLING,
    "reaper": (prunes, reaps),
    "auditor": (looks, looks_at_services),
    "network": (applies_networks,),
}


# -- what they show ----------------------------------------------------------------------------------------------------


def without(documents: list[Json], action: str) -> list[Json]:
    """Policies that lack an action."""
    made = []
    for document in documents:
        kept = []
        for one in document["Statement"]:
            actions = [one["Action"]] if isinstance(one["Action"], str) else one["Action"]
            if left := [name for name in actions if name != action]:
                kept.append({**one, "Action": left})
        made.append({**document, "Statement": kept})
    return made


def actions(documents: list[Json]) -> set[str]:
    found = (one["Action"] for document in documents for one in document["Statement"])
    return {name for one in found for name in ([one] if isinstance(one, str) else one)}


@pytest.mark.slow
@pytest.mark.parametrize("role", ACTS)
def test_a_role_does_all_that_it_should_and_every_action_is_needed_by_the_edges_that_declare_it(
    aws: StrictAws, tmp_path: Path, role: str
) -> None:
    """Without any one action exactly those modules are denied something."""
    stage = Stage(aws, tmp_path, role)
    for act in ACTS[role]:
        act(stage)
    own = [one for one in stage.asked if one["account"] == ACCOUNT]
    asked = {
        (one["edge"], guard.Asked(one["action"], one["resource"], _Frozen(one["context"])))
        for one in own
        if one["edge"]
    }
    broken = {}
    for action in actions(stage.documents):
        less = without(stage.documents, action)
        broken[action] = {edge for edge, one in asked if one.action == action and not guard.allowed(less, one)}
    declared: dict[str, set[str]] = {action: set() for action in actions(stage.documents)}
    for edge, found in edges().items():
        for one in found:
            for action in one.actions if role in one.roles else ():
                declared.setdefault(action, set()).add(edge)
    assert {one: sorted(found) for one, found in broken.items()} == {
        one: sorted(found) for one, found in declared.items()
    }


class _Frozen(dict[str, Any]):
    """A context that can be in a set."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(repr(sorted(self.items(), key=str)))
