"""Reaches are what a plain walk finds, and every change that is proposed is evaluated again and really cuts."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hardening.runtime import ContainerFacts, InstanceFacts, SecurityGroup
from pipelines.blast_radius.account import read_account
from pipelines.blast_radius.graph import RELAY, Edge, Graph, Strength
from pipelines.blast_radius.member_steps import FleetMember
from pipelines.blast_radius.radius import KnownFacts, fleet_radius, radius, ranked
from tests.pipelines.blast_radius.planted import ACCOUNT, ARN, policy
from tests.pipelines.blast_radius.test_member_steps import GOOD, ROOT, bind, container, instance, world

NODES = ["a", "b", "c", "d", "e", "net:1", "net:2"]
STEPS = st.builds(Edge, st.sampled_from(NODES), st.sampled_from(NODES), st.sampled_from(Strength), st.just(("x",)))


def talks_of(edge: Edge) -> Edge:
    """Networks are only talked through."""
    through = edge.source.startswith(RELAY) or edge.target.startswith(RELAY)
    return replace(edge, strength=Strength.EXPOSED) if through else edge


def walked(edges: list[Edge], start: str) -> tuple[set[str], set[str]]:
    """What is taken, and what is talked to, by the words of the definition."""
    taken, grown = {start}, True
    while grown:
        more = {e.target for e in edges if e.source in taken and e.strength > Strength.EXPOSED} - taken
        taken, grown = taken | more, bool(more)
    met, grown = set(taken), True
    while grown:
        open_to = taken | {one for one in met if one.startswith(RELAY)}
        more = {e.target for e in edges if e.source in open_to} - met
        met, grown = met | more, bool(more)
    return taken - {start}, {one for one in met - taken if not one.startswith(RELAY)}


@given(st.lists(STEPS, max_size=25).map(lambda some: [talks_of(one) for one in some if one.source != one.target]))
def test_all_reaches_at_once_are_those_of_a_plain_walk(edges: list[Edge]) -> None:
    """One by one, and all of them by components and sets of bits."""
    graph = Graph(edges)
    sizes = graph.sizes(["a", "b", "c", "d", "e"])
    for start in ("a", "b", "c", "d", "e"):
        taken, met = walked(edges, start)
        found = graph.reach([start])
        assert (found.certain | found.possible, found.exposed) == (taken, met)
        assert sizes[start] == (len(taken), len(met))
        certain, _ = walked([one for one in edges if one.strength is not Strength.POSSIBLE], start)
        assert found.certain == certain
        assert found.size == 10 * len(certain) + 5 * len(taken - certain) + len(met)


CONTAINERS = st.builds(
    ContainerFacts,
    user=st.sampled_from(["0", "65532"]),
    privileged=st.booleans(),
    no_new_privileges=st.booleans(),
    mounts=st.sampled_from([(), bind("/"), bind("/srv/data"), bind("/var/run/docker.sock") + bind("/etc")]),
    capabilities=st.sampled_from([(), ("SYS_ADMIN",), ("BPF", "ALL")]),
    host_namespaces=st.sampled_from([(), ("pid", "network")]),
    networks=st.sampled_from([(), ("one",), ("one", "two")]),
    secrets=st.sampled_from([(), ("TOKEN",)]),
    published=st.sampled_from([(), ("0.0.0.0:80 to 80/tcp",)]),
)
GROUPS = st.builds(
    lambda number, lines: SecurityGroup(f"sg-{number}", "g", tuple(sorted(lines))),
    st.integers(1, 3),
    st.sets(
        st.sampled_from(["tcp 1 from sg-1", "tcp 2 from sg-2", "tcp 3 from 10.0.0.0/8", "tcp 4 from 9.9.9.9/32"]),
        max_size=2,
    ),
)
RIGHTS = st.sampled_from(
    [
        ("*", "*"),
        ("s3:GetObject", "arn:aws:s3:::orders/*"),
        ("sts:AssumeRole", "*"),
        ("iam:PassRole", "*"),
        ("lambda:*", "*"),
        ("iam:*", "*"),
        ("ssm:StartSession", "*"),
        ("ec2:DescribeInstances", "*"),
    ]
)


@st.composite
def worlds(draw: st.DrawFn) -> KnownFacts:
    """Two engines, one of them on an instance, some instances with profiles, and the roles of these."""
    containers = [
        container(f"c{n}", facts, f"engine-{n % 2}/local")
        for n, facts in enumerate(draw(st.lists(CONTAINERS, min_size=1, max_size=4)))
    ]
    known: dict[str, SecurityGroup] = {}
    instances = []
    for number in range(draw(st.integers(1, 3))):
        group = draw(GROUPS)
        one = instance(f"i-{number}", known.setdefault(group.id, group), profile=f"role-{number}")
        metadata = draw(st.sampled_from([("required", 1), ("required", 2), ("optional", 1)]))
        assert isinstance(one.facts, InstanceFacts)
        instances.append(replace(one, facts=replace(one.facts, tokens=metadata[0], hop_limit=metadata[1])))
    roles = [
        {
            "Arn": f"{ARN}role/role-{number}",
            "Path": "/",
            "AssumeRolePolicyDocument": policy(
                {
                    "Effect": "Allow",
                    "Action": "sts:AssumeRole",
                    "Principal": {
                        "Service": draw(st.sampled_from(["lambda.amazonaws.com", "ec2.amazonaws.com"])),
                        "AWS": f"{ARN}root",
                    },
                }
            ),
            "RolePolicyList": [
                {
                    "PolicyDocument": policy(
                        *(
                            {"Effect": "Allow", "Action": action, "Resource": resource}
                            for action, resource in draw(st.lists(RIGHTS, max_size=3))
                        )
                    )
                }
            ],
            "InstanceProfileList": [{"InstanceProfileName": f"role-{number}"}],
        }
        for number in range(3)
    ]
    return world(
        *containers,
        *instances,
        accounts=(read_account(ACCOUNT, {"RoleDetailList": roles}),),
        hosts={"engine-0/local": "i-0"},
    )


@given(worlds())
def test_each_change_cuts_as_much_as_the_graph_says_or_more(drawn: KnownFacts) -> None:
    """Each is made in the facts, all steps are made again without what was kept, and nothing new is reached."""
    source = drawn.members[0].node
    found = radius(drawn, [source])
    assert all(one.saves > 0 for one in found.cuts)
    for cut in ranked(found.reach):
        changed = drawn.without(cut)
        fresh = replace(changed, made={}).graph.reach([source])
        assert changed.graph.reach([source]) == fresh
        assert fresh.all <= found.reach.all
        assert fresh.size <= drawn.graph.reach([source], cut).size


@given(worlds())
def test_no_change_that_was_left_out_is_better(drawn: KnownFacts) -> None:
    """The best that is proposed cuts at least as much as every other single step's change."""
    source = drawn.members[0].node
    found = radius(drawn, [source])
    best = max((one.saves for one in found.cuts), default=0)
    for cut in {cut for edge in drawn.graph.edges for cut in edge.cuts}:
        assert found.reach.size - drawn.graph.reach([source], cut).size <= best


def test_the_best_change_stands_first() -> None:
    """It takes the host away, and all on it; a network that two share comes after."""
    neighbours = [container(f"n{number}", GOOD) for number in range(5)]
    web = container("web", replace(ROOT, privileged=True, secrets=("TOKEN",)))
    found = radius(world(web, *neighbours), [web.node])
    first, *others = found.cuts
    assert (first.cut.kind, first.saves) == ("unprivileged", 10 * 6 - 6)
    assert [one.cut.kind for one in others][:1] == ["hide-secret"]
    assert first.after.exposed == {"host:engine/local", *(one.node for one in neighbours)}


def test_two_ways_to_the_host_have_no_single_change() -> None:
    """Each alone leaves the other."""
    web = container("web", replace(ROOT, privileged=True, mounts=bind("/")))
    assert not list(radius(world(web, container("n", replace(GOOD, networks=()))), [web.node]).cuts)


def test_all_members_are_compared_and_the_change_that_helps_the_most_is_found() -> None:
    """A right that every instance has by its profile outweighs a container's privileges."""
    role = {
        "Arn": f"{ARN}role/web",
        "Path": "/",
        "InstanceProfileList": [{"InstanceProfileName": "web"}],
        "AssumeRolePolicyDocument": policy(
            {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}}
        ),
        "RolePolicyList": [{"PolicyDocument": policy({"Effect": "Allow", "Action": "*", "Resource": "*"})}],
    }
    machines: list[FleetMember] = [instance(f"i-{number}", profile="web") for number in range(6)]
    web = container("web", replace(ROOT, privileged=True))
    found = fleet_radius(world(*machines, web, accounts=(read_account(ACCOUNT, {"RoleDetailList": [role]}),)))
    assert found.sizes["member:vm/i-0"] == (5 + 3, 0)
    assert found.sizes[web.node] == (1, 0)
    cut, saves = found.cuts[0]
    assert (cut.kind, cut.subject, saves) == ("deny", f"{ARN}role/web", 6 * 10 * 7)


def test_the_same_world_is_told_the_same_way() -> None:
    """By the names of the sources, in no order of a run's own."""
    names = {f"member:{number:02}" for number in range(50)}
    steps = [Edge(name, target, Strength.CERTAIN, ("x",)) for name in names for target in (f"data:{name}", "host:all")]
    through = Graph(steps).reach(names).through
    assert through["host:all"].source == "member:00"
    assert [name for name in through if name.startswith("data:")] == [f"data:{name}" for name in sorted(names)]
