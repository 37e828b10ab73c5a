"""What leads out of a container and an instance, and the benign twin of each that does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hardening.runtime import ContainerFacts, InstanceFacts, Mount, SecurityGroup
from pipelines.blast_radius.account import read_account
from pipelines.blast_radius.gathering import load_ways
from pipelines.blast_radius.graph import Reached
from pipelines.blast_radius.member_steps import FleetMember
from pipelines.blast_radius.radius import KnownFacts, radius
from tests.pipelines.blast_radius.planted import ACCOUNT, EVERYTHING, policy

WAYS = load_ways()
HOME, PLACE = "eu-central-1", f"{ACCOUNT}/eu-central-1"
GOOD = ContainerFacts(user="65532", networks=("shop",), no_new_privileges=True)
ROOT = replace(GOOD, user="0")


def container(name: str, facts: ContainerFacts | None, host: str = "engine/local") -> FleetMember:
    return FleetMember("shop", name, "registry.example/web:1", "web", "sha256:" + "1" * 64, facts, host=host)


def instance(name: str, *groups: SecurityGroup, profile: str = "") -> FleetMember:
    return FleetMember(
        "vm",
        name,
        "ami-1",
        "debian-server",
        "",
        InstanceFacts(profile=profile, groups=groups),
        account=ACCOUNT,
        region=HOME,
        instance=name,
    )


def world(*members: FleetMember, **more: object) -> KnownFacts:
    given: dict[str, object] = {"accounts": ()} | more
    return KnownFacts(members, ways=WAYS, **given)  # type: ignore[arg-type]


def reach(*members: FleetMember, **more: object) -> Reached:
    """What is reached from the first of these."""
    return radius(world(*members, **more), [members[0].node]).reach


def bind(source: str, *, writable: bool = True) -> tuple[Mount, ...]:
    return (Mount("bind", source, "/inside", writable),)


ESCAPES = {
    "privileged": (replace(ROOT, privileged=True), ROOT),
    "the engine's socket": (
        replace(ROOT, mounts=bind("/var/run/docker.sock")),
        replace(ROOT, mounts=(Mount("volume", "docker.sock", "/inside", writable=True),)),
    ),
    "a directory with the socket": (replace(ROOT, mounts=bind("/run")), replace(ROOT, mounts=bind("/srv/run"))),
    "a directory with containerd's socket": (
        replace(ROOT, mounts=bind("/var/run/containerd/", writable=False)),
        replace(ROOT, mounts=bind("/run/app")),
    ),
    "the bus by which root asks for anything": (replace(ROOT, mounts=bind("/run/dbus/system_bus_socket")), ROOT),
    "a disk of the host": (
        replace(ROOT, devices=("/dev/nvme0n1p1 rwm",)),
        replace(ROOT, devices=("/dev/net/tun rwm",)),
    ),
    "all devices of the host": (replace(ROOT, devices=("/dev rwm",)), replace(ROOT, devices=("/dev/fuse rwm",))),
    "the host's root": (replace(ROOT, mounts=bind("/")), replace(ROOT, mounts=bind("/srv"))),
    "the host's programs": (replace(ROOT, mounts=bind("/usr/local/bin")), replace(ROOT, mounts=bind("/srv/usr"))),
    "a capability": (replace(ROOT, capabilities=("SYS_ADMIN",)), replace(ROOT, capabilities=("NET_BIND_SERVICE",))),
    "a capability by its long name": (replace(ROOT, capabilities=("cap_sys_admin",)), ROOT),
    "all capabilities": (replace(ROOT, capabilities=("ALL",)), replace(ROOT, capabilities=("CHOWN",))),
    "processes of the host, traced": (
        replace(ROOT, capabilities=("SYS_PTRACE",), host_namespaces=("pid",)),
        replace(ROOT, host_namespaces=("uts",)),
    ),
}
LESS_SURE = {
    "privileged without root": (replace(GOOD, privileged=True), GOOD),
    "the socket without root": (replace(GOOD, mounts=bind("/var/run/docker.sock")), GOOD),
    "a capability that a setuid file may have": (
        replace(GOOD, capabilities=("SYS_ADMIN",), no_new_privileges=False),
        replace(GOOD, capabilities=("SYS_ADMIN",)),
    ),
    "a capability, of a user that was not read": (
        replace(GOOD, capabilities=("SYS_ADMIN",), unread=(("root_user", "no registry tells it"),)),
        replace(GOOD, capabilities=("SYS_ADMIN",)),
    ),
    "the host's files, read": (replace(ROOT, mounts=bind("/etc", writable=False)), ROOT),
    "a disk of the host, read": (replace(ROOT, devices=("/dev/sda r",)), replace(ROOT, devices=("/dev/dri/card0 rw",))),
    "a disk of the host without root": (replace(GOOD, devices=("/dev/mapper/vg-root rwm",)), GOOD),
    "devices that it may make": (replace(ROOT, devices=("b 8:* rwm",)), replace(ROOT, devices=("c 10:200 rwm",))),
    "processes of the host, seen": (
        replace(ROOT, host_namespaces=("pid",)),
        replace(ROOT, host_namespaces=("cgroup",)),
    ),
    "the engine's API": (
        replace(GOOD, daemon=("[DEPRECATION NOTICE]: API is accessible on http://0.0.0.0:2375",)),
        GOOD,
    ),
}
TALKS = {
    "root, by a hole in the kernel": (ROOT, GOOD),
    "the host's network": (replace(GOOD, host_namespaces=("network",)), GOOD),
}


@pytest.mark.parametrize("name", ESCAPES)
def test_a_container_gets_out_and_its_twin_does_not(name: str) -> None:
    """Onto its host, and so to all others on it; not to those on another one."""
    bad, twin = ESCAPES[name]
    other, far = container("other", GOOD), container("far", GOOD, "engine-2/local")
    found = reach(container("web", bad), other, far)
    assert {"host:engine/local", other.node} <= found.certain
    assert far.node not in found.all
    assert "host:engine/local" not in reach(container("web", twin), other, far).certain | found.possible


@pytest.mark.parametrize("name", LESS_SURE)
def test_what_depends_on_more_is_possible(name: str) -> None:
    """And its twin is at most exposed."""
    bad, twin = LESS_SURE[name]
    assert "host:engine/local" in reach(container("web", bad)).possible
    found = reach(container("web", twin))
    assert "host:engine/local" not in found.certain | found.possible


@pytest.mark.parametrize("name", TALKS)
def test_what_needs_another_hole_is_exposed(name: str) -> None:
    """The host itself is, and nothing behind it."""
    bad, twin = TALKS[name]
    other = container("other", replace(GOOD, networks=()))
    found = reach(container("web", bad), other)
    assert found.exposed == {"host:engine/local"}
    assert not reach(container("web", twin), other).all


def test_a_hardened_container_reaches_its_network_only() -> None:
    """Those on the same network of the same engine, once; not what these reach in turn."""
    two = container("two", replace(GOOD, networks=("shop", "back")))
    back, far = container("back", replace(GOOD, networks=("back",))), container("far", GOOD, "engine-2/local")
    found = reach(container("web", GOOD), two, back, far)
    assert (found.certain, found.possible, found.exposed) == (frozenset(), frozenset(), {two.node})
    assert not reach(
        container("web", replace(GOOD, networks=("bridge",))), container("b", replace(GOOD, networks=("bridge",)))
    ).all


def test_ports_that_are_published_are_open_to_neighbours_but_for_loopback() -> None:
    """Through the host's address, whatever the networks."""
    open_to_all = container("open", replace(GOOD, networks=("back",), published=("0.0.0.0:8080 to 80/tcp",)))
    inside = container("inside", replace(GOOD, networks=("back",), published=("127.0.0.1:8080 to 80/tcp",)))
    assert reach(container("web", GOOD), open_to_all, inside).exposed == {open_to_all.node}
    assert not reach(container("web", replace(GOOD, networks=())), open_to_all).all


def test_without_a_network_nothing_is_asked_and_nobody_asks() -> None:
    """The engine shows it as a network of the name none."""
    alone, other = (container(name, replace(GOOD, networks=("none",))) for name in ("web", "other"))
    open_to_all = container("open", replace(GOOD, published=("0.0.0.0:8080 to 80/tcp",)))
    hosts = {"engine/local": "i-1"}
    machine = instance("i-1", profile="admin")
    machine = replace(machine, facts=replace(machine.facts, hop_limit=2))  # type: ignore[arg-type]
    assert not reach(alone, other, open_to_all, machine, accounts=(admin_account(),), hosts=hosts).all


def test_what_has_the_hosts_network_listens_there() -> None:
    """On its addresses, for every neighbour; and it reaches what is published on loopback alone."""
    of_host = container("host", replace(GOOD, networks=("host",), host_namespaces=("network",)))
    inside = container("inside", replace(GOOD, networks=("back",), published=("127.0.0.1:8080 to 80/tcp",)))
    assert reach(container("web", GOOD), of_host, inside).exposed == {of_host.node}
    assert reach(of_host, inside).exposed == {inside.node, "host:engine/local"}


def test_who_shares_the_network_of_another_reaches_what_that_does() -> None:
    """A sidecar has none of its own."""
    sidecar = container("sidecar", replace(GOOD, networks=(), borrowed=("shop",)))
    found = radius(world(sidecar, container("db", GOOD)), [sidecar.node])
    assert found.reach.exposed == {"member:shop/db"}
    assert [(one.cut.kind, one.after.all) for one in found.cuts if one.cut.subject == sidecar.node] == [
        ("leave-network", frozenset())
    ]


def test_containers_of_one_process_namespace_may_take_each_other() -> None:
    """On the same host alone; and apart they do not."""
    tracer = container("tracer@h1", replace(GOOD, networks=(), beside=("db",)), "h1/local")
    db, far = (container(f"db@{host}", replace(GOOD, networks=("b",)), f"{host}/local") for host in ("h1", "h2"))
    found = radius(world(tracer, db, far), [tracer.node])
    assert found.reach.possible == {db.node}
    assert found.reach.all == {db.node}
    assert [(one.cut.kind, one.after.all) for one in found.cuts] == [("own-processes", frozenset())]
    assert reach(db, tracer, far).possible == {tracer.node}


def test_a_container_talks_to_instances_by_the_address_of_its_host() -> None:
    """To whom the groups of its host's instance lead; one without a network does not."""
    web, store = SecurityGroup("sg-web", "web"), SecurityGroup("sg-data", "data", ("tcp 5432 from sg-web",))
    hosts = {"engine/local": "i-1"}
    around = (instance("i-1", web), instance("i-2", store), instance("i-3", web))
    assert reach(container("app", GOOD), *around, hosts=hosts).exposed == {"member:vm/i-2"}
    assert not reach(container("app", replace(GOOD, networks=())), *around, hosts=hosts).all


def test_of_a_pod_it_is_not_known_on_which_node_the_others_are() -> None:
    """It gets out surely, and to other pods perhaps; a careful one may talk to all of the cluster."""
    out = replace(container("web", replace(ROOT, privileged=True, networks=()), "cluster"), sure_host=False)
    other = replace(container("other", replace(GOOD, networks=()), "cluster"), sure_host=False)
    found = reach(out, other)
    assert (found.certain, found.possible) == ({"host:cluster"}, {other.node})
    assert reach(other, out).exposed == {out.node}


def test_secrets_and_files_of_the_host_are_data() -> None:
    """Named, with whether they can be changed."""
    bad = replace(GOOD, secrets=("DB_PASSWORD",), mounts=bind("/srv/data") + bind("/srv/conf", writable=False))
    assert reach(container("web", bad)).certain == {
        "data:read secret DB_PASSWORD of shop",
        "data:change files engine/local:/srv/data",
        "data:read files engine/local:/srv/conf",
    }


def test_security_groups_let_in_other_groups_and_addresses() -> None:
    """By the group, by private addresses, by everybody; not the other way round, and not from another region."""
    web = SecurityGroup("sg-web", "web", ("tcp 443 from 0.0.0.0/0",))
    data = SecurityGroup("sg-data", "data", ("tcp 5432 from sg-web",))
    near, office = (
        SecurityGroup("sg-near", "near", ("tcp 22 from 10.0.0.0/8",)),
        SecurityGroup("sg-o", "o", ("tcp 22 from 8.8.8.0/24",)),
    )
    shop, store, admin, desk = (
        instance("i-1", web),
        instance("i-2", data),
        instance("i-3", near),
        instance("i-4", office),
    )
    far = replace(instance("i-5", near), region="us-east-1")
    assert reach(shop, store, admin, desk, far).exposed == {store.node, admin.node}
    assert reach(store, shop, admin, desk, far).exposed == {shop.node, admin.node}


@pytest.mark.parametrize(
    ("origin", "inside"),
    [
        ("10.0.0.0/7", True), ("172.0.0.0/8", True), ("128.0.0.0/1", True), ("100.64.0.0/10", True),
        ("2600:1f18:1::/56", True), ("fd00::/8", True), ("pl-0123", True),
        ("8.8.8.0/24", False), ("172.32.0.0/16", False),
    ],
)  # fmt: skip
def test_a_range_that_may_hold_an_instance_lets_it_in(origin: str, inside: bool) -> None:
    """Whatever else it holds; an instance's address of IPv6 is a global one."""
    store = instance("i-2", SecurityGroup("sg-data", "data", (f"tcp 5432 from {origin}",)))
    assert (store.node in reach(instance("i-1", SecurityGroup("sg-web", "web")), store).exposed) is inside


def test_an_instance_has_the_rights_of_its_profile() -> None:
    """Unless its metadata service is off; an administrator's rights reach all instances of the account."""
    account = admin_account()
    web, other = instance("i-1", profile="admin"), instance("i-2")
    found = reach(web, other, accounts=(account,))
    assert {f"account:{ACCOUNT}", other.node, f"iam:arn:aws:iam::{ACCOUNT}:role/admin"} <= found.certain
    off = replace(web, facts=replace(web.facts, endpoint="disabled"))  # type: ignore[arg-type]
    assert not reach(off, other, accounts=(account,)).all


def test_an_escape_goes_on_from_the_host_to_its_profile() -> None:
    """Where the settings say which instance the engine runs on."""
    hosts = {"engine/local": "i-1"}
    escaped = container("web", replace(ROOT, privileged=True))
    found = reach(escaped, instance("i-1", profile="admin"), accounts=(admin_account(),), hosts=hosts)
    assert {"host:engine/local", "member:vm/i-1", f"account:{ACCOUNT}"} <= found.certain


def admin_account() -> object:
    role = {
        "Arn": f"arn:aws:iam::{ACCOUNT}:role/admin",
        "AssumeRolePolicyDocument": policy(EVERYTHING),
        "Path": "/",
        "RolePolicyList": [{"PolicyDocument": policy(EVERYTHING)}],
        "InstanceProfileList": [{"InstanceProfileName": "admin"}],
    }
    return read_account(ACCOUNT, {"RoleDetailList": [role]})


@pytest.mark.parametrize(
    ("of_instance", "of_container", "takes"),
    [
        ({"tokens": "required", "hop_limit": 1}, {}, False),
        ({"tokens": "required", "hop_limit": 2}, {}, True),
        ({"tokens": "optional", "hop_limit": 1}, {}, True),
        ({"tokens": "optional", "endpoint": "disabled"}, {}, False),
        ({"tokens": "required", "hop_limit": 2}, {"networks": ()}, False),
        ({"tokens": "required", "hop_limit": 1}, {"networks": ("host",), "host_namespaces": ("network",)}, True),
    ],
)
def test_a_container_asks_the_metadata_of_its_host(
    of_instance: dict[str, Any], of_container: dict[str, Any], takes: bool
) -> None:
    """Without any escape, where it answers; and one change takes that away."""
    machine = instance("i-1", profile="admin")
    machine = replace(machine, facts=replace(machine.facts, **of_instance))  # type: ignore[arg-type]
    web, hosts = container("web", replace(GOOD, **of_container)), {"engine/local": "i-1"}
    found = radius(world(web, machine, accounts=(admin_account(),), hosts=hosts), [web.node])
    assert (f"account:{ACCOUNT}" in found.reach.certain) is takes
    if takes:
        assert {one.cut.kind for one in found.cuts} & {"hop-limit", "own-namespace"}
        assert f"account:{ACCOUNT}" not in found.cuts[0].after.all


def test_what_was_not_read_is_told() -> None:
    """A member without a snapshot, a rule of one, an account; and what is never asked for."""
    blind = container("blind", None)
    half = container("half", replace(GOOD, unread=(("privileged", "no answer"), ("changed_files", "no answer"))))
    away = instance("i-1", profile="admin")
    found = radius(world(blind, half, away), [blind.node, half.node, away.node])
    assert found.unread == (
        "shop/blind: how it runs was not read",
        "shop/half: privileged: no answer",
        f"vm/i-1: the rights of its profile admin: IAM of the account {ACCOUNT} was not read",
    )
    assert found.unseen == ("host engine/local: whether it is an instance with a profile is not known",)


def test_what_was_not_read_falls_with_its_host_and_its_account() -> None:
    """However it runs."""
    out, unknown = container("web", replace(ROOT, privileged=True)), container("unknown", None)
    assert "member:shop/unknown" in reach(out, unknown).certain
    admin = {"Arn": f"arn:aws:iam::{ACCOUNT}:role/engine", "AssumeRolePolicyDocument": policy(),
             "RolePolicyList": [{"PolicyDocument": policy(EVERYTHING)}],
             "InstanceProfileList": [{"InstanceProfileName": "engine"}]}  # fmt: skip
    unread = replace(instance("i-2"), facts=None)
    account = read_account(ACCOUNT, {"RoleDetailList": [admin]})
    assert "member:vm/i-2" in reach(instance("i-1", profile="engine"), unread, accounts=(account,)).certain


def test_an_engine_on_an_instance_of_no_fleet_is_told() -> None:
    """What its profile may do is not known."""
    web = container("web", replace(ROOT, privileged=True))
    hosts = {"engine/local": "i-1"}
    found = radius(world(web, hosts=hosts), [web.node])
    assert [line for line in found.unseen if "i-1" in line and "engine/local" in line]
    assert not radius(world(web, instance("i-1"), hosts=hosts), [web.node]).unseen
