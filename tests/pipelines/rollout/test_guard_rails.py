"""A replacement that would break an enforced rule by what it is started with is refused; a dated waiver lets it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from hardening.foundation.errors import RefusedError
from hardening.model import Waiver
from hardening.policy import Policy
from hardening.runtime import CONTAINER_RULES, STARTED_WITH, ContainerFacts, Mount
from pipelines.fleet.members import Changes
from pipelines.fleet.model import FleetKind
from pipelines.fleet.violations import FleetJudge, Judged
from pipelines.rollout.guard_rails import broken, enforced, refuse_all_broken
from pipelines.rollout.plan import plan
from tests.support.fleets import NOW, fleet, judged, target

SOCKET = Mount("bind", "/run/docker.sock", "/run/docker.sock", writable=True)
GOOD = ContainerFacts(user="65532", image_user="65532", memory_bytes=1, pids=1, cpus=1.0)


def policy(**running: Any) -> Policy:
    """A policy with these rules for what runs."""
    return Policy.model_validate(
        {
            "name": "strict", "title": "t", "owner": "o", "rationale": "r", "review_by": date(2027, 1, 1),
            "exception_contact": "c", "running": running,
        }
    )  # fmt: skip


AS_BEFORE = Changes()
ENFORCED = {name: {"enforcement": "enforce"} for name in STARTED_WITH}


def waiver(rule: str, subject: str, until: date) -> Waiver:
    """Somebody accepted that until a day."""
    return Waiver(
        id="w", rules=(rule,), subjects=(subject,), reason="r", owner="a", approver="b", created=date(2026, 2, 1),
        expires=until,
    )  # fmt: skip


def lines(
    facts: ContainerFacts | None, change: Changes = AS_BEFORE, *waivers: Waiver, now: datetime = NOW, **running: Any
) -> tuple[str, ...]:
    """What is told of the replacement of an expired member that runs so."""
    asked = policy(**(running or ENFORCED))
    one = replace(judged("web-1", "expired"), facts=facts)
    rules = enforced(FleetKind.DOCKER, asked, now.date())
    return broken("web", rules, FleetJudge("web", asked, waivers, now), one, change)


@pytest.mark.parametrize(
    ("rule", "facts"),
    [
        ("root_user", replace(GOOD, user="root")),
        ("privileged", replace(GOOD, privileged=True)),
        ("docker_socket", replace(GOOD, mounts=(SOCKET,))),
        ("host_mount", replace(GOOD, mounts=(Mount("bind", "/etc", "/etc", writable=False),))),
        ("added_capabilities", replace(GOOD, capabilities=("SYS_ADMIN",))),
        ("writable_root", replace(GOOD, writable_root=True)),
        ("no_limits", replace(GOOD, memory_bytes=0)),
        ("new_privileges", replace(GOOD, no_new_privileges=False)),
        ("host_namespaces", replace(GOOD, host_namespaces=("pid",))),
    ],
)
def test_each_rule_names_itself_the_member_and_the_waiver_to_write(rule: str, facts: ContainerFacts) -> None:
    """One line for each, and none for a container that keeps them all."""
    [line] = lines(facts)
    assert line.startswith(f"{rule} is enforced: ")
    assert f"./goldsmith waiver.new web/web-1 {rule.replace('_', '-')} --reason WHY --approver WHO" in line
    assert lines(GOOD) == ()


def test_every_rule_about_what_a_container_is_started_with_is_one() -> None:
    """What happens to it later is mended by its replacement, and the engine's settings are its host's."""
    later = {"daemon_defaults", "changed_files", "foreign_processes", "changed_settings"}
    assert {rule.name for rule in CONTAINER_RULES} - later == STARTED_WITH


def test_what_only_warns_refuses_nothing() -> None:
    """Nor does a rule before its day; from then on it does."""
    bad = replace(GOOD, privileged=True)
    later = {"privileged": {"enforcement": "enforce", "from": date(2026, 3, 5)}}
    assert lines(bad, privileged={"enforcement": "warn"}) == ()
    assert lines(bad, **later) == ()
    assert len(lines(bad, now=datetime(2026, 3, 5, tzinfo=UTC), **later)) == 1


def test_a_grace_is_for_what_runs_not_for_what_is_started() -> None:
    """Else each roll would start it over, and the deadline would never come."""
    bad = replace(GOOD, privileged=True)
    assert len(lines(bad, privileged={"enforcement": "enforce", "grace": "30d"})) == 1


def test_a_waiver_in_force_lets_it_and_an_ended_one_does_not() -> None:
    """For the rule and the member that it names."""
    bad = replace(GOOD, mounts=(SOCKET,))
    until = NOW.date()
    assert lines(bad, Changes(), waiver("docker-socket", "web/web-1", until)) == ()
    assert len(lines(bad, Changes(), waiver("docker-socket", "web/web-1", until - timedelta(days=1)))) == 1
    assert len(lines(bad, Changes(), waiver("docker-socket", "web/web-2", until))) == 1
    assert len(lines(bad, Changes(), waiver("privileged", "web/web-1", until))) == 1


def test_the_new_images_user_counts_and_not_the_old_ones() -> None:
    """A new image may be the one that begins to run as root, or the one that no longer does."""
    assert lines(replace(GOOD, user="", image_user=""), Changes(user="65532")) == ()
    [line] = lines(GOOD, Changes(user=""))
    assert line.startswith("root_user is enforced: it runs as root")


def test_what_is_not_known_is_not_allowed() -> None:
    """How it runs, or as whom the new image would, where that decides."""
    [line] = lines(None, privileged={"enforcement": "enforce"})
    assert "could not be read, and privileged must hold" in line
    unread = Changes(unread="what r.example/x sets by default is not known here")
    for facts in (GOOD, replace(GOOD, unread=(("root_user", "no registry tells it"),))):
        [line] = lines(facts, unread)
        assert line.startswith("root_user must hold, and could not be judged: what r.example/x sets")
    assert lines(replace(GOOD, user="1000"), unread) == ()
    assert lines(GOOD, unread, waiver("root-user", "web/web-1", NOW.date())) == ()
    assert lines(None, privileged={"enforcement": "warn"}) == ()


def test_a_rule_that_could_not_be_read_is_not_allowed() -> None:
    """As for a pod whose image's user no registry tells; unless the new image's is known, or the rule is waived."""
    unread = replace(GOOD, unread=(("root_user", "no registry tells it"),))
    [line] = lines(unread)
    assert "no registry tells it" in line
    assert lines(unread, Changes(user="65532")) == ()
    assert lines(unread, AS_BEFORE, waiver("root-user", "web/web-1", NOW.date())) == ()
    assert lines(replace(GOOD, unread=(("changed_files", "too many"),))) == ()


def breaking(name: str) -> Judged:
    """An expired member with the socket."""
    return replace(judged(name, "expired"), facts=replace(GOOD, mounts=(SOCKET,)))


def test_a_plan_of_such_members_alone_is_refused_and_names_each() -> None:
    """Exit code 3: member, rule and waiver stand in the evidence."""
    found = [breaking("web-1"), breaking("web-2"), judged("web-3")]
    changes = {one.member.id: Changes(breaks=(f"docker_socket is enforced: {one.member.name}",)) for one in found[:2]}
    with pytest.raises(RefusedError, match=r"2 member\(s\) may not be replaced as they are") as refused:
        refuse_all_broken(found, changes)
    assert refused.value.exit_code == 3
    assert refused.value.evidence.splitlines() == [
        "web-1: docker_socket is enforced: web-1", "web-2: docker_socket is enforced: web-2",
    ]  # fmt: skip
    refuse_all_broken([judged("web-3")], {})
    kept = [replace(one, member=replace(one.member, cannot_roll="nothing keeps it")) for one in found]
    refuse_all_broken(kept, changes)  # it is left alone anyway


def test_the_others_are_replaced_and_it_is_left_alone_with_the_reason() -> None:
    """One container that nobody mends keeps no fix from its neighbours."""
    bad, good = breaking("web-1"), judged("web-2", "expired")
    changes = {bad.member.id: Changes(breaks=("docker_socket …",)), good.member.id: Changes()}
    refuse_all_broken([bad, good], changes)
    made = plan(fleet(), [bad, good], target(29), NOW, changes=changes)
    assert [step.member.name for step in made.steps] == ["web-2"]
    assert [(skip.member, skip.why) for skip in made.skipped] == [(bad.member.id, "docker_socket …")]


def test_instances_have_no_such_rules() -> None:
    """What AWS launches is judged once it runs."""
    assert enforced(FleetKind.EC2, policy(**ENFORCED), NOW.date()) == ()
