"""A group whose replacement would break an enforced rule is left alone, by all that starts again; also at its turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError
from pipelines.cli.explain import story
from pipelines.fleet.calendar import Budget, RunningRule
from pipelines.fleet.ecs.members import ClusterReader
from pipelines.rollout.plan_model import GroupStep
from pipelines.rollout.session import FleetSession, check
from pipelines.rollout.state import GroupOrder
from pipelines.rollout.whole_plan import plan_all
from tests.pipelines.fleet.test_kubernetes_groups import SURGE
from tests.pipelines.rollout import test_roll_ecs, test_roll_kubernetes
from tests.pipelines.rollout.test_guard_rails import policy
from tests.pipelines.rollout.test_roll_ecs import town as services  # noqa: F401 - fixtures
from tests.pipelines.rollout.test_roll_kubernetes import released, town  # noqa: F401
from tests.support.ecs import DEFINITION
from tests.support.hostile import Reply
from tests.support.publishing import DAY

pytestmark = pytest.mark.needs("skopeo")
Town = test_roll_kubernetes.Town | test_roll_ecs.Town
USER, ROOT = "65532", ""
ENFORCED = {"enforcement": "enforce"}
LATER, LATEST = (f"sha256:{number:064x}" for number in (21, 22))
WAIVER = """
rules = ["privileged"]
subjects = ["web/web:proxy"]
reason = "the mesh comes without it in March"
owner = "platform"
approver = "security"
created = {0}
expires = {1}
"""


def publish(at: Town, old: str, new: str) -> None:
    """Two releases, whose images set these users."""
    at.old, at.new = released(at.place, LATER, -3, old), released(at.place, LATEST, -1, new)


def runs(at: Town, *beside: dict[str, Any], **own: Any) -> None:
    """The older release runs in a group, with other containers beside it."""
    file = at.context.settings.content[0] / "pipelines/fleets/web.toml"
    if isinstance(at, test_roll_ecs.Town):
        containers = [{**DEFINITION["containerDefinitions"][0], "image": at.old, "user": "", **own}, *beside]
        at.at.add("web", definition={"containerDefinitions": containers})
        file.write_text(file.read_text().replace("[ecs]", '[ecs]\ncontainer = "web"'))
        return
    containers = [{"name": "web", "image": at.old, **own}, *beside]
    at.kube.add("Deployment", image=at.old, template={"spec": {"containers": containers}}, **SURGE)
    file.write_text(file.read_text().replace("[kubernetes]", '[kubernetes]\ncontainer = "web"'))


@contextmanager
def opened(at: Town, *rules: str) -> Iterator[FleetSession]:
    """The fleet by a policy that enforces these rules."""
    with at.opened() as session:
        asked = policy(superseded=ENFORCED, **dict.fromkeys(rules, ENFORCED))
        yield replace(session, context=session.context.by_policy(asked, "default"))


def planned(session: FleetSession) -> GroupOrder:
    """The one group of a plan as it is rolled, which is not left alone at its turn if it was not when planned."""
    made = plan_all(session).plan
    (step,) = made.groups
    order = GroupOrder("r1", GroupStep(step.group, step.pacing), made.target, session.fleet.limits)
    why = step.group.cannot_roll
    assert session.group_left_alone(order) == why
    stories = [story(session, one) for one in session.seen().members if one.group]
    told = {line.what for one in stories for line in one.next if "replaces it" in line.what}
    assert told == ({f"no rollout replaces it: {why}"} if why else set())
    assert {"./goldsmith roll.plan web" in one.can_do for one in stories} == {not why}
    return order


def left(session: FleetSession) -> str:
    """Why it is left alone."""
    return planned(session).step.group.cannot_roll


@pytest.fixture(params=["town", "services"])
def at(request: pytest.FixtureRequest) -> Town:
    """A Deployment, and an ECS service."""
    found: Town = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_group_that_another_fleet_selects_too_is_rolled_by_neither(at: Town, elsewhere: bool) -> None:
    """By the labels or the name that it really has; a fleet of another namespace or cluster selects none of it."""
    publish(at, USER, USER)
    runs(at)
    file = at.context.settings.content[0] / "pipelines/fleets/web.toml"
    other = file.read_text().replace('app = "web"', 'part = "web"')
    if elsewhere:
        for key in ("namespace", "cluster"):
            other = other.replace(f'{key} = "shop"', f'{key} = "mail"')
    file.with_name("front.toml").write_text(other)
    with opened(at) as session:
        assert left(session).partition(": ")[2] == ("" if elsewhere else "the fleet front selects it too")
        (rules,) = {tuple(sorted(one.rules)) for one in check(session)}
        assert rules == (("superseded",) if elsewhere else ("claimed", "superseded"))
    if not elsewhere:
        with at.opened("front") as session:
            (step,) = plan_all(session).plan.groups
            assert step.group.cannot_roll.endswith(": the fleet web selects it too")


def test_the_new_images_user_counts_and_not_the_old_ones(at: Town) -> None:
    """A release that begins to run as root is not started; one that no longer does is what mends it."""
    publish(at, USER, ROOT)
    runs(at)
    with opened(at, "root_user") as session:
        assert "root_user is enforced: it runs as root" in left(session)
        assert "./goldsmith waiver.new web/web root-user" in left(session)
    at.new = released(at.place, f"sha256:{23:064x}", -0.5, USER)
    with opened(at, "root_user") as session:
        assert left(session) == ""


def test_a_group_that_is_root_is_mended_by_a_release_that_is_not(at: Town) -> None:
    """What it runs as now is over then."""
    publish(at, ROOT, USER)
    runs(at)
    with opened(at, "root_user") as session:
        assert left(session) == ""


def test_a_user_that_is_set_where_the_group_is_defined_stays(at: Town) -> None:
    """Whatever the image sets."""
    publish(at, USER, ROOT)
    runs(at, **({"user": "10001"} if isinstance(at, test_roll_ecs.Town) else {"securityContext": {"runAsUser": 10001}}))
    with opened(at, "root_user") as session:
        assert left(session) == ""


def test_a_user_that_no_registry_tells_is_not_allowed(at: Town) -> None:
    """Unread is never compliant; where no rule asks for it, nothing is read."""
    publish(at, USER, USER)
    runs(at)
    routes = at.place.stage.server.routes
    gone = [path for path, one in routes.items() if "/blobs/" in path and LATEST.encode() in getattr(one, "body", b"")]
    for path in gone:
        at.place.stage.server[path] = Reply(b"{}", status=404)
    with opened(at, "root_user") as session:
        assert "root_user must hold, and could not be judged: the user of " in left(session)
        assert at.new in left(session)
    with opened(at, "privileged") as session:
        assert left(session) == ""


def proxy(at: Town) -> dict[str, Any]:
    """A container that is privileged, in the words of the API."""
    privileged = {"privileged": True}
    more = privileged if isinstance(at, test_roll_ecs.Town) else {"securityContext": privileged}
    return {"name": "proxy", "image": "r.example/proxy:1", **more}


def test_what_stands_beside_is_started_anew_and_asked_as_well(at: Town) -> None:
    """By a name of its own, which a waiver may give."""
    publish(at, USER, USER)
    runs(at, proxy(at))
    with opened(at, "privileged") as session:
        assert ":proxy: privileged is enforced" in left(session)
        assert "./goldsmith waiver.new web/web:proxy privileged" in left(session)
        file = at.context.settings.content[0] / "hardening/waivers/mesh.toml"
        file.parent.mkdir(parents=True)
        today = session.now().date()
        file.write_text(WAIVER.format(today, today + DAY))
        assert left(session) == ""


def test_a_group_is_asked_again_at_its_turn(at: Town) -> None:
    """Somebody has enforced another rule since; one that runs the new release by now is not rolled again."""
    publish(at, USER, ROOT)
    runs(at)
    with opened(at) as session:
        order = planned(session)
    with opened(at, "root_user") as session:
        assert "root_user is enforced" in session.group_left_alone(order)
    with at.opened() as session:
        lax = replace(
            session, context=session.context.by_policy(policy(superseded={"enforcement": "audit"}), "default")
        )
        assert lax.group_left_alone(order) == "it no longer violates"


def test_a_group_that_cannot_be_read_at_its_turn_is_an_error(town: test_roll_kubernetes.Town) -> None:  # noqa: F811
    """The step is tried again, and then the rollout fails."""
    publish(town, USER, USER)
    runs(town)
    with opened(town, "privileged") as session:
        order = planned(session)
        town.kube.denied = {"list pods"}
        with pytest.raises(OutsideError):
            session.group_left_alone(order)


def test_a_group_of_unknown_origin_is_offered_to_be_adopted(at: Town) -> None:
    """By its own name: a plan takes over no single pod or task."""
    publish(at, USER, USER)
    runs(at, image="elsewhere.example/web:1")
    with opened(at) as session:
        told = [story(session, one).can_do for one in session.seen().members if one.group]
    assert told
    assert all("./goldsmith roll.plan web --adopt web" in can_do for can_do in told)


def test_what_cannot_be_read_of_a_group_is_told_of_its_members(at: Town) -> None:
    """No plan can be made then, and all else of the member is told."""

    def no_answer(_: object) -> tuple[Any, ...]:
        raise OutsideError("no answer")

    publish(at, USER, USER)
    runs(at)
    with opened(at) as session, pytest.MonkeyPatch.context() as patched:
        [member, *_] = [one for one in session.seen().members if one.group]
        assert session.groups
        patched.setattr(type(session.groups), "groups", no_answer)
        told = story(session, member)
    assert "no rollout replaces it: no answer" in [line.what for line in told.next]
    assert told.member.standing


def test_a_group_that_is_gone_at_its_turn_holds_up_no_other(services: test_roll_ecs.Town) -> None:  # noqa: F811
    """Whatever the other is called."""
    publish(services, USER, USER)
    for name in ("web", "web-2"):
        services.runs(services.old, name)
    file = services.context.settings.content[0] / "pipelines/fleets/web.toml"
    file.write_text(file.read_text().replace('["web"]', '["web", "web-2"]'))
    with opened(services) as session:
        made = plan_all(session).plan
        first, second = (GroupOrder("r1", step, made.target, session.fleet.limits) for step in made.groups)
        services.at.client.delete_service(cluster="shop", service="web", force=True)
        before = len(services.at.aws.calls())
        assert session.group_left_alone(second) == ""
        described, listed = (services.at.aws.calls("ecs", one, before) for one in ("DescribeServices", "ListTasks"))
        assert [one["params"]["services"] for one in described] == [["web-2"]], "each turn asks for its own group alone"
        assert [one["params"]["serviceName"] for one in listed] == ["web-2"]
        with pytest.raises(OutsideError, match="not every member"):
            session.group_left_alone(first)


def test_a_group_that_no_budget_lets_go_is_left_alone(at: Town) -> None:
    """As a member is, with the budget by its key: it does not keep the plan from what may be rolled."""
    publish(at, USER, USER)
    runs(at)
    with opened(at) as session:
        limits = session.fleet.limits.model_copy(
            update={"budgets": (Budget(nodes="100%"), Budget(nodes=0, reasons=(RunningRule.SUPERSEDED,)))}
        )
        spent = replace(session, fleet=session.fleet.model_copy(update={"limits": limits}))
        (step,) = plan_all(spent).plan.groups
        assert step.group.cannot_roll == "limits.budgets[1] allows no member that is superseded"
        stories = [story(spent, one) for one in spent.seen().members if one.group]
    told = {line.what for one in stories for line in one.next if "replaces it" in line.what}
    assert told == {f"no rollout replaces it: {step.group.cannot_roll}"}


def test_what_a_mesh_adds_to_pods_is_asked_as_well(town: test_roll_kubernetes.Town) -> None:  # noqa: F811
    """The cluster adds it to the new ones too; also where that began after the plan was made."""
    publish(town, USER, USER)
    runs(town)
    with opened(town, "privileged") as session:
        order = planned(session)
        for (kind, _), one in town.kube.objects.items():
            if kind == "pods":
                one["spec"]["containers"].append(proxy(town))
        town.kube.pass_time(1)
        assert ":proxy: privileged is enforced" in session.group_left_alone(order)


def test_what_aws_adds_to_tasks_is_not_asked(
    services: test_roll_ecs.Town,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No definition says how it runs, and nobody here could change it."""
    publish(services, USER, USER)
    runs(services)
    tasks = ClusterReader.tasks

    def with_added(reader: ClusterReader, service: str, status: str = "RUNNING") -> list[dict[str, Any]]:
        found = tasks(reader, service, status)
        for task in found:
            task["containers"].append({"name": "ecs-service-connect-x", "image": "", "lastStatus": "RUNNING"})
        return found

    monkeypatch.setattr(ClusterReader, "tasks", with_added)
    with opened(services, "privileged") as session:
        assert any("service-connect" in one.name for one in session.seen().members)
        assert left(session) == ""
