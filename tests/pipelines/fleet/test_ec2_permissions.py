"""Each task on EC2 fleets asks for the permissions that its row in docs/aws.md names, and for no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import ROOT
from images.aws.client import Client
from images.ledger import Made
from pipelines.cli.reap import reap
from pipelines.fleet.ec2.accounts import accounts_of
from pipelines.fleet.ec2.instance_spec import token
from pipelines.fleet.ec2.instances import Ec2Fleet
from pipelines.fleet.ec2.members import firing
from pipelines.fleet.ec2.orphans import Ec2OrphanSource
from pipelines.fleet.ec2.root_volume import RootVolumeFleet
from pipelines.fleet.members import ReplacementImage
from pipelines.fleet.model import Method
from pipelines.rollout.session import fleet_session
from pipelines.rollout.whole_plan import plan_all
from tests.pipelines.fleet.test_autoscaling import ROLLOUT, Groups
from tests.pipelines.fleet.test_ec2_check import Office, office, template
from tests.strict_aws import ACCOUNT, REGION, StrictAws
from tests.strict_aws.making import image
from tests.support.cloud import DAY
from tests.support.ec2 import Asked, Shop, fleet, key_of, shop

__all__ = ["office"]

VERB = re.compile(r"(Describe|Get|Create|Delete|Modify|Run|Start|Stop|Terminate|Attach|Detach|Associate|Register"
                  r"|Deregister|Cancel|Rollback|Update|List)[A-Z]")  # fmt: skip
ROWS = re.findall(r"^\| `((?:fleet|roll)\.[^`]+)` \| (.+) \|$", (ROOT / "docs/aws.md").read_text(), re.MULTILINE)
ACTIONS = {task: frozenset(re.findall(r"`(\w+:\w+)`", cell)) for task, cell in ROWS}
ASKING = {"call", "call_unless", "pages", "_once", "accepted"}
EXPIRY = timedelta(days=1)
PLANNING = ("autoscaling", "ec2:DescribeLaunch", "ec2:DescribeSecurityGroups")


@contextmanager
def listening() -> Iterator[set[str]]:
    """The permissions that are asked for during the block."""
    real, asked = Client.call, set()

    def call(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        asked.add(self.permission(operation))
        return real(self, operation, **request)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Client, "call", call)
        yield asked


def told(asked: set[str], action: str) -> tuple[list[str], list[str]]:
    """What is asked for and not declared, and the other way round."""
    return sorted(asked - ACTIONS[action]), sorted(ACTIONS[action] - asked)


def test_checking_asks_for_what_it_says(office: Office) -> None:
    """Instances, groups, templates and an image that the ledger does not know."""
    template(office.at)
    office.at.register(office.at.instance(), "shop")
    (line,) = office.at.cloud.ledger.made(office.at.cloud.aws.account, kind="image", release=office.at.old.digest)
    office.at.cloud.ledger.record_made(line.__class__(**{**line.__dict__, "resource": "ami-0123456789abcdef0"}))
    with listening() as asked:
        office.check()
    assert told(asked, "fleet.check") == ([], [])


def test_finding_accounts_asks_for_what_it_says(office: Office) -> None:
    """Once for a process, beside what checking asks for."""
    office.at.aws.members({ACCOUNT: "ACTIVE"})
    with listening() as asked:
        assert accounts_of(fleet(ec2={"accounts": "organization"}), office.at.cloud) == (ACCOUNT,)
    assert told(asked, "fleet.check, accounts of an organisation") == ([], [])


def test_planning_asks_for_what_every_way_says(office: Office) -> None:
    """It looks at how members run, also by a policy that only records that."""
    template(office.at)
    office.at.register(office.at.instance(), "shop")
    with (
        fleet_session("shop", office.context, now=lambda: office.context.now + 2 * DAY) as opened,
        listening() as asked,
    ):
        plan_all(opened)
    assert "ec2:DescribeSecurityGroups" in asked
    for action in (one for one in ACTIONS if one.startswith("roll.start")):
        assert asked - ACTIONS[action] == set(), action


@pytest.mark.parametrize(
    ("action", "way"), [("roll.start, a new instance", "instance"), ("roll.start, a new root volume", "root_volume")]
)
def test_replacing_asks_for_what_it_says(aws: StrictAws, tmp_path: Path, action: str, way: str) -> None:
    """All that a replacement may do, the way back and the clearing up."""
    at = shop(aws, tmp_path)
    port: Any = Asked((RootVolumeFleet if way == "root_volume" else Ec2Fleet)(fleet(ec2={"way": way}), at.cloud), aws)
    old = at.furnished(unique=True, root_gib=None)
    first = at.shown(old)["NetworkInterfaces"][0]["NetworkInterfaceId"]
    at.ec2.modify_network_interface_attribute(NetworkInterfaceId=first, SourceDestCheck={"Value": False})
    with listening() as asked:
        (member,) = port.describe()
        key = key_of(member, Method.IN_PLACE)
        for back in (True, False):
            key = replace(key, rollout=f"shop-{back}")
            port.prepare(at.target)
            port.create(key, at.target, at.cloud.now + EXPIRY)
            port.retire(key, timedelta())
            port.start(key)
            port.differences(key)
            port.read(key)
            port.log(key)
            port.swap(key)
            if back:
                port.revive(key)
                port.discard(key)
                at.settle()
            else:
                port.remove_old(key)
        if way == "root_volume":
            detached(at, port)
        firing(at.cloud, [(at.cloud.aws.account, REGION)], ["errors"])
    declared = {one for one in ACTIONS[action] if not one.startswith(PLANNING)}
    assert (sorted(asked - ACTIONS[action]), sorted(declared - asked)) == ([], [])
    at.cloud.ledger.close()


def detached(at: Shop, port: Any) -> None:
    """A root volume in the clear, by an image in the clear, whose replacement fails and leaves the instance none."""
    new = image(at.aws, "new")
    at.aws.ail(new, "root-detached")
    old = at.instance(ImageId=image(at.aws, "old"))
    (member,) = [one for one in port.describe() if one.handle == old]
    key = key_of(member, Method.IN_PLACE)
    port.create(key, ReplacementImage(new, "", None), at.cloud.now + EXPIRY)
    with pytest.raises(OutsideError):
        port.start(key)
    port.revive(key)


def test_refreshing_asks_for_what_it_says(aws: StrictAws, tmp_path: Path) -> None:
    """Begun, watched, cancelled and taken back."""
    at = shop(aws, tmp_path)
    groups = Groups(at, version="$Latest")
    with listening() as asked:
        pinned = groups.begin()
        aws.advance(2)
        groups.port.watch(ROLLOUT, groups.group)
        groups.port.roll_back(ROLLOUT, groups.group, pinned)
        aws.advance(2)
        groups.port.cancel(ROLLOUT, groups.group, pinned)
    missing = asked - ACTIONS["roll.start, an Auto Scaling group"]
    assert (sorted(missing), {one for one in asked if one.startswith("autoscaling:Start")} != set()) == ([], True)
    at.cloud.ledger.close()


def test_reaping_asks_for_what_it_says(aws: StrictAws, tmp_path: Path) -> None:
    """An instance and a volume of a rollout that is over."""
    at = shop(aws, tmp_path)
    ledger, account = at.cloud.ledger, at.cloud.aws.account
    gone = at.cloud.now - EXPIRY
    own = [{"Key": f"dev.goldsmith.{key}", "Value": value}
           for key, value in {"rollout": "x", "member": "y", "expiry": gone.isoformat()}.items()]  # fmt: skip
    volume = at.ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=1)["VolumeId"]
    at.ec2.create_tags(Resources=[at.instance(ClientToken=token("x", "y", "create")), volume], Tags=own)
    ledger.begin_rollout("x", "shop", "ann", {}, at.cloud.now)
    ledger.save_rollout("x", {}, at.cloud.now, is_open=False)
    ledger.record_made(Made(account, REGION, "volume", volume, "y", "", "", at.cloud.now, volume))
    source = Ec2OrphanSource(at.cloud.clients, [(account, REGION)], ledger)
    with listening() as asked:
        assert len(reap([source], ledger, at.cloud.now, "ann", apply=True)) == 2
    assert told(asked, "roll.reap") == ([], [])
    at.settle()
    assert (at.running(), at.leftovers()) == ([], [])
    ledger.close()


def test_every_call_in_the_code_stands_in_some_actions_permissions() -> None:
    """Those that no test meets, too."""
    named = {permission.partition(":")[2] for permissions in ACTIONS.values() for permission in permissions}
    found: set[str] = set()
    for file in (ROOT / "pipelines/fleet/ec2").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ASKING:
                found |= {said for one in node.args if isinstance(one, ast.Constant) and VERB.match(said := one.value)}
    assert len(found) > 25
    assert found <= named, sorted(found - named)


def test_the_documents_have_a_row_for_each_task() -> None:
    """Each is held against the calls that are really made, by a test of its own."""
    rolls = ("a new instance", "a new root volume", "an Auto Scaling group")
    looks = ("fleet.check", "fleet.check, accounts of an organisation", "fleet.blast-radius")
    assert set(ACTIONS) == {*looks, *(f"roll.start, {what}" for what in rolls), "roll.reap"}
