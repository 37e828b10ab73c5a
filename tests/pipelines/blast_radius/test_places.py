"""Where members run, by the ids that the ledger keeps, and pictures of names that strangers chose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from hardening.findings import Reason
from hardening.foundation.content import parse
from hardening.foundation.errors import ContentError
from hardening.foundation.process import run
from hardening.foundation.settings import Settings
from hardening.model import Enforcement
from images.documents import to_json
from images.ledger import Ledger
from pipelines.blast_radius import gathering
from pipelines.blast_radius.descriptions import graphviz
from pipelines.blast_radius.radius import radius
from pipelines.fleet.model import FleetKind
from pipelines.fleet.violations import CheckedMember
from tests.pipelines.blast_radius.test_member_steps import ROOT, bind, container, world
from tests.support.fleets import NOW, fleet

INSTANCE = "123456789012/eu-central-1/i-0123456789abcdef0"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield opened
    opened.close()


def checked(name: str, known_as: str, handle: str) -> CheckedMember:
    verdict: Any = None
    return CheckedMember(name, "web:1", "web", "sha256:1", "sha256:2", verdict, (), id=known_as, handle=handle)


def test_members_are_placed_by_their_ids(ledger: Ledger) -> None:
    """Of an engine, of a cluster whose nodes are not known, of an account and region; groups run nothing themselves."""
    ledger.record_snapshots("web", {("web-1", "c1"): to_json(ROOT)}, NOW, {})
    known = [checked("web-1", "engine/local/docker/web-1", "c1"), checked("web-2", "engine/local/docker/web-2", "c2")]
    first, second = gathering._members(ledger, fleet(), known)
    assert (first.host, first.sure_host, first.facts, first.account) == ("engine/local", True, ROOT, "")
    assert (second.host, second.facts) == ("engine/local", None)
    pods = of_kind("kubernetes")
    (pod,) = gathering._members(ledger, pods, [checked("web", "prod/shop/pod/web", "uid")])
    assert (pod.host, pod.sure_host) == ("prod", False)
    machines = [
        checked("i-1", "123456789012/eu-central-1/ec2/i-1", "i-1"),
        checked("group", "x/y/group/group", "group"),
    ]
    (machine,) = gathering._members(ledger, of_kind("ec2"), machines)
    assert (machine.host, machine.account, machine.region, machine.instance) == (
        "", "123456789012", "eu-central-1", "i-1",
    )  # fmt: skip


def test_tasks_and_nodes_are_placed_by_their_ids_too(ledger: Ledger) -> None:
    """It is not known which instance a task runs on; a node is an instance."""
    (task,) = gathering._members(
        ledger, of_kind("ecs"), [checked("web-1", "123456789012/eu-central-1/ecs/shop/web-1", "arn:aws:ecs:1")]
    )
    assert (task.host, task.sure_host, task.account) == ("123456789012/eu-central-1/ecs/shop", False, "")
    (node,) = gathering._members(ledger, of_kind("eks"), [checked("i-1", "123456789012/eu-central-1/ec2/i-1", "i-1")])
    assert (node.host, node.account, node.instance, node.sure_host) == ("", "123456789012", "i-1", True)
    assert set(gathering.NOT_READ_OF) == set(FleetKind) - {FleetKind.DOCKER, FleetKind.EC2}


@pytest.mark.parametrize("kind", ["docker", "ec2", "kubernetes", "ecs", "eks"])
def test_a_place_that_could_not_be_read_is_no_member_but_told(ledger: Ledger, kind: str) -> None:
    """As the last look at the fleet has it."""
    reason = Reason("unread", "shop/x", Enforcement.ENFORCE, "it could not be read: denied", "", "")
    place = replace(checked("123456789012/eu-west-1", "123456789012/eu-west-1/*", ""), reasons=(reason,))
    assert list(gathering._members(ledger, of_kind(kind), [place])) == []
    assert gathering._places("shop", [place]) == ["fleet shop: 123456789012/eu-west-1: it could not be read: denied"]


def of_kind(kind: str, *hosts: str) -> Any:
    """A fleet of that kind, as far as placing its members asks; `hosts`: those that it names itself."""
    return SimpleNamespace(name=kind, kind=FleetKind(kind), docker=SimpleNamespace(hosts=hosts))


def test_the_settings_say_which_instance_an_engine_runs_on() -> None:
    """Of the engine, not of clusters and hosts that a fleet names; nothing where they do not say; anything but an
    instance is refused.
    """
    pod = replace(container("pod", ROOT, "cluster"), sure_host=False)
    for said, expected in ((INSTANCE, {"engine/local": "i-0123456789abcdef0"}), ("", {})):
        context: Any = SimpleNamespace(settings=parse({"docker": {"instance": said}}, Settings, "goldsmith.toml"))
        far = replace(container("web", ROOT, "web-2/local"), fleet="far")
        fleets: Any = {"shop": of_kind("docker"), "far": of_kind("docker", "ssh://ops@web-2")}
        assert gathering._hosts(context, [container("web", ROOT), pod, far], fleets) == expected
    with pytest.raises(ContentError, match=r"docker\.instance"):
        parse({"docker": {"instance": "web-1"}}, Settings, "goldsmith.toml")


HOSTILE = ('/srv/"];evil[label="x', "/srv/\\N\\", "/srv/<b>&amp;", "/srv/a\nb\x1b[31m", "/srv/ünï\u202e")


@pytest.mark.needs("dot")
def test_a_picture_is_well_formed_whatever_things_are_called() -> None:
    """One node for each, and none that a name made up."""
    mounts = tuple(mount for source in HOSTILE for mount in bind(source))
    web = container("web", replace(ROOT, networks=(), mounts=mounts))
    found = radius(world(web), [web.node])
    drawn = run(["dot", "-Tsvg"], stdin=graphviz(found.reach, found.sources, 'x"; y'))
    assert not drawn.stderr
    nodes = [one for one in ElementTree.fromstring(drawn.stdout).iter() if one.get("class") == "node"]
    assert len(nodes) == 1 + len(found.reach.all) == 2 + len(HOSTILE)


@pytest.mark.needs("dot")
def test_a_great_picture_bundles_what_is_alike() -> None:
    """Three hundred neighbours are one node that says how many."""
    web = container("web", replace(ROOT, privileged=True))
    found = radius(world(web, *(container(f"n{number}", ROOT) for number in range(300))), [web.node])
    text = graphviz(found.reach, found.sources, "x")
    assert "300 of member" in text
    assert text.count("->") < 10
