"""Each task on ECS and EKS fleets asks for the permissions that its row in docs/ecs.md or docs/eks.md names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from hardening.foundation.settings import ROOT
from pipelines.fleet.ec2.members import firing
from pipelines.fleet.port import Progress
from tests.pipelines.fleet.test_ec2_permissions import ACTIONS as OF_MACHINES
from tests.pipelines.fleet.test_ec2_permissions import ASKING, listening
from tests.strict_aws import StrictAws
from tests.support.ecs import ROLLOUT, town
from tests.support.eks import ROLLOUT as NODES
from tests.support.eks import cluster

VERB = re.compile(r"(Describe|List|Register|Deregister|Update|Create|Delete|Tag|Stop)[A-Z]")
ROW = re.compile(r"^\| `((?:fleet|roll)\.[^`]+)` \| (.+) \|$", re.MULTILINE)


def actions(kind: str) -> dict[str, frozenset[str]]:
    """What the document of a kind says that each task asks for."""
    rows = ROW.findall((ROOT / f"docs/{kind}.md").read_text())
    return {task: frozenset(re.findall(r"`(\w+:\w+)`", cell)) for task, cell in rows}


ACTIONS, OF_NODES = actions("ecs"), actions("eks")


@pytest.mark.parametrize("named", [True, False])
def test_checking_asks_for_what_it_says(aws: StrictAws, tmp_path: Path, named: bool) -> None:
    """By name, no service is listed."""
    with town(aws, tmp_path) as at:
        at.add(tags=[{"key": "app", "value": "web"}])
        at.selector = {} if named else {"app": "web"}
        at.begin_anew()
        with listening() as asked:
            assert at.tasks.seen().members
        assert asked == ACTIONS["fleet.check"] - ({"ecs:ListServices"} if named else set())


def test_rolling_asks_for_what_it_says(aws: StrictAws, tmp_path: Path) -> None:
    """Begun, watched until its tasks end, and taken back."""
    with town(aws, tmp_path, bake_time="10m", min_healthy_time="5s") as at, listening() as asked:
        at.add(tags=[{"key": "app", "value": "web"}])
        at.selector = {"app": "web"}
        at.begin_anew()
        at.tasks.seen()
        aws.ail(at.new, "task", after=30)
        pinned = at.begin()
        at.until(Progress.FAILED)
        at.port.roll_back(ROLLOUT, at.group, pinned)
        firing(at.cloud, [(at.reader.account, at.reader.region)], ["errors"])
    assert asked == ACTIONS["roll.start"]


def test_rolling_node_groups_asks_for_what_it_says(aws: StrictAws, tmp_path: Path) -> None:
    """Beside what machines and Auto Scaling groups are asked for."""
    of_groups = OF_MACHINES["roll.start, an Auto Scaling group"] | {"autoscaling:DescribeAutoScalingGroups"}
    with cluster(aws, tmp_path, bake_time="5s", min_healthy_time="5s") as at:
        at.add(tags={"app": "shop"})
        at.selector = {"app": "shop"}
        at.begin_anew()
        with listening() as asked:
            at.nodes.seen()
        assert {one for one in asked if one.startswith("eks:")} == OF_NODES["fleet.check"]
        assert asked <= OF_NODES["fleet.check"] | OF_MACHINES["fleet.check"]
        with listening() as asked:
            pinned = at.begin(rollout=NODES)
            at.until(Progress.DONE, rollout=NODES)
            at.port.roll_back(NODES, at.group, pinned)
        assert {one for one in asked if one.startswith("eks:")} == OF_NODES["roll.start"]
        assert asked <= OF_NODES["roll.start"] | of_groups


@pytest.mark.parametrize(("kind", "calls"), [("ecs", 8), ("eks", 5)])
def test_every_call_in_the_code_stands_in_some_actions_permissions(kind: str, calls: int) -> None:
    """Those that no test meets, too; and the documents have a row for each task."""
    assert set(actions(kind)) == {"fleet.check", "roll.start"}
    named = {permission.partition(":")[2] for permissions in actions(kind).values() for permission in permissions}
    found: set[str] = set()
    for file in (ROOT / "pipelines/fleet" / kind).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ASKING:
                found |= {said for one in node.args if isinstance(one, ast.Constant) and VERB.match(said := one.value)}
    assert len(found) == calls
    assert found <= named, sorted(found - named)
