"""What holds of judging whatever runs: waivers, clocks and order."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.findings import Reason
from hardening.foundation.settings import ROOT
from hardening.model import Enforcement, Waiver
from hardening.policy import Policy, RunningRules
from hardening.running import MemberJudge, RunningFacts
from hardening.runtime import (
    NAMES,
    RULES,
    UNJUDGED,
    ContainerFacts,
    InstanceFacts,
    Mount,
    Observed,
    SecurityGroup,
    Volume,
)
from hardening.waivers import RUNNING, About, ActiveWaivers, answered, cited
from pipelines.fleet.members import Member, Provenance
from pipelines.fleet.violations import FleetJudge
from tests.support.fleets import judge_member, release

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SUBJECTS = ("web/a", "web/b.1", "api/a")
AGES = {"expired", "superseded", "revoked", "refused", "max_age", "vulnerable"}

moments = st.none() | st.integers(-90, 90).map(lambda days: NOW + days * DAY)
enforcements = st.sampled_from(Enforcement)
images = st.builds(
    RunningFacts, known=st.just(True), image=st.just("i"), source=st.sampled_from(["r.example/i", "evil/i"]),
    own_registry=st.just("r.example"), published_at=moments, expires_at=moments, revoked_at=moments,
    superseded_since=moments, refused_since=moments, application=st.booleans(), lacks=st.just("CVE-1"),
    lacks_since=moments, lacks_until=moments,
) | st.just(RunningFacts(known=False, image="i"))  # fmt: skip
users = st.sampled_from(["", "0", "root:root", "7"])
containers = st.builds(
    ContainerFacts, user=users, image_user=users, privileged=st.booleans(), writable_root=st.booleans(),
    mounts=st.lists(st.builds(Mount, st.sampled_from(["bind", "volume"]), st.sampled_from(["/srv", "/run/docker.sock"]),
                              st.just("/x"), st.booleans()), max_size=2).map(tuple),
    capabilities=st.sampled_from([(), ("ALL",), ("NET_BIND_SERVICE",)]), memory_bytes=st.sampled_from([0, 9]),
    changed=st.sampled_from([(), ("added /etc/x", "added /tmp/y")]), processes=st.sampled_from([(), ("sh as root",)]),
    unread=st.sampled_from([(), (("changed_files", "silent"),)]),
)  # fmt: skip
instances = st.builds(
    InstanceFacts, type=st.sampled_from(["t3.micro", "t3.small"]), tokens=st.sampled_from(["optional", "required"]),
    volumes=st.sampled_from([(), (Volume("vol-1", "/dev/sda", encrypted=False),)]),
    groups=st.sampled_from([(), (SecurityGroup("sg-1", "web", ("tcp 22 from 0.0.0.0/0",)),)]),
    public_address=st.sampled_from(["", "198.51.100.7"]),
)  # fmt: skip


def _observed(now: ContainerFacts | InstanceFacts, first: ContainerFacts | InstanceFacts) -> Observed:
    return Observed(now.kind, now, ((NOW - 9 * DAY, first),))


observed = (
    st.none() | st.just(Observed("container", None, unread="silent"))
    | st.builds(_observed, containers, containers) | st.builds(_observed, instances, instances)
)  # fmt: skip


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """A policy that treats each rule as it likes."""
    rules = {name: {"enforcement": draw(enforcements)} for name in sorted(RunningRules.model_fields)}
    rules["max_age"]["limit"] = "30d"  # type: ignore[assignment]
    found = Policy(
        name="p", title="t", owner="o", rationale="r", review_by=date(2099, 1, 1), exception_contact="ask"
    )  # fmt: skip
    return found.model_copy(update={"running": RunningRules.model_validate(rules)})


@st.composite
def waivers(draw: st.DrawFn) -> Waiver:
    """A waiver of some rules for some subjects, in force or not."""
    created = draw(st.integers(-40, 20))
    return Waiver(
        id=f"w-{draw(st.integers(0, 9))}",
        rules=draw(st.lists(st.sampled_from(RUNNING), min_size=1, max_size=3).map(tuple)),
        subjects=(draw(st.sampled_from([*SUBJECTS, "web/*", "*", "web/?", "[wx]eb/a"])),), reason="r", owner="a",
        approver="b", created=(NOW + created * DAY).date(),
        expires=(NOW + (created + draw(st.integers(1, 60))) * DAY).date(),
    )  # fmt: skip


def standing(reasons: tuple[Reason, ...]) -> set[str]:
    return {reason.rule for reason in reasons if reason.stands}


@given(policies(), images, observed, st.lists(waivers(), max_size=3), waivers(), st.sampled_from(SUBJECTS))
def test_one_more_waiver_adds_no_violation(
    policy: Policy, image: RunningFacts, seen: Observed | None, known: list[Waiver], more: Waiver, subject: str
) -> None:
    """It only takes away what it names."""
    before = judge_member(policy, subject, image, known, NOW, seen)
    after = judge_member(policy, subject, image, [*known, more], NOW, seen)
    assert standing(after) <= standing(before)
    gone = {rule.replace("_", "-") for rule in standing(before) - standing(after)}
    assert gone <= {*more.rules, "unread"}


@given(policies(), images, st.sampled_from(SUBJECTS), st.integers(0, 400))
def test_a_later_clock_takes_no_violation_of_age_away(
    policy: Policy, image: RunningFacts, subject: str, days: int
) -> None:
    """Nor does it move since when it is one, or the deadline."""
    early = {one.rule: one for one in judge_member(policy, subject, image, (), NOW) if one.rule in AGES}
    late = {one.rule: one for one in judge_member(policy, subject, image, (), NOW + days * DAY)}
    assert early.keys() <= late.keys()
    if image.published_at:
        assert all((late[rule].since, late[rule].deadline) == (one.since, one.deadline) for rule, one in early.items())


@given(policies(), st.lists(observed, min_size=2, max_size=3), st.lists(waivers(), max_size=3))
def test_the_order_of_members_and_waivers_does_not_matter(
    policy: Policy, seen: list[Observed | None], known: list[Waiver]
) -> None:
    """What is remembered from one member says nothing of the next."""
    origins = [Provenance(release=release()), Provenance(), Provenance(base=release(2), latest=release(9))]
    members = [
        (Member(f"m{number}", f"m{number}", f"h{number}", "r.example/i", ("sha256:1",)), origins[number % 3], one)
        for number, one in enumerate(seen)
    ]
    answers = set()
    for order in permutations(members):
        for some in (known, known[::-1]):
            judge = FleetJudge("web", policy, some, NOW)
            answers.add(frozenset(judge.judge(*one) for one in order))
    assert len(answers) == 1


@given(
    policies(),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), observed, moments), max_size=6),
    st.lists(waivers(), max_size=3),
)
def test_judging_many_is_judging_each_alone(
    policy: Policy, seen: list[tuple[str, int, Observed | None, datetime | None]], known: list[Waiver]
) -> None:
    """What members share, such as an image, a way to run or a start, changes no answer; the order is kept."""
    origins = [Provenance(release=release()), Provenance(), Provenance(base=release(2), latest=release(9))]
    members = [
        (Member(name, name, name, "r.example/i", ("sha256:1",), since=since), origins[which], one)
        for name, which, one, since in seen
    ]
    alone = [FleetJudge("web", policy, known, NOW).judge(*one) for one in members]
    assert FleetJudge("web", policy, known, NOW).judge_all(members) == alone


OTHERWISE = {
    "container": {
        "user": "7", "image_user": "7", "privileged": True, "mounts": (Mount("bind", "/srv", "/x", writable=True),),
        "capabilities": ("ALL",), "writable_root": True, "memory_bytes": 9, "cpus": 2.0, "pids": 9,
        "no_new_privileges": False, "host_namespaces": ("pid",), "networks": ("web",), "daemon": ("icc is on",),
        "changed": ("added /etc/x",), "processes": ("sh as root",), "unread": (("changed_files", "silent"),),
    },
    "instance": {
        "type": "t3.nano", "profile": "p", "tokens": "optional", "endpoint": "disabled", "hop_limit": 2,
        "volumes": (Volume("vol-1", "/dev/sda", encrypted=False),), "public_address": "198.51.100.7",
        "groups": (SecurityGroup("sg-1", "web", ("tcp 22 from 0.0.0.0/0",)),), "template": "lt-1", "differs": ("type",),
        "unread": (("open_group", "denied"),),
    },
}  # fmt: skip


@pytest.mark.parametrize("facts", [ContainerFacts(), InstanceFacts()], ids=["container", "instance"])
def test_two_that_run_otherwise_in_one_thing_are_judged_each_by_its_own(facts: ContainerFacts | InstanceFacts) -> None:
    """Members share what is found out once; they do only where nothing that a rule looks at differs."""
    policy = Policy(
        name="p", title="t", owner="o", rationale="r", review_by=date(2099, 1, 1), exception_contact="ask"
    )  # fmt: skip
    earlier, image = ((NOW - 9 * DAY, facts),), RunningFacts(known=True)
    looked_at = {one.name for one in fields(facts)} - {*UNJUDGED, "kind", "owner_tags"}
    assert OTHERWISE[facts.kind].keys() == looked_at
    for name, value in OTHERWISE[facts.kind].items():
        other = replace(facts, **{name: value})
        ways = [Observed(facts.kind, now, history) for now in (facts, other) for history in ((), earlier)]
        ways += [Observed(facts.kind, facts, ((NOW - 8 * DAY, other),)), Observed(facts.kind, facts, ((NOW, other),))]
        judge = MemberJudge(policy, (), NOW)
        for way in ways:
            assert judge.reasons("web/a", image, way) == judge_member(policy, "web/a", image, (), NOW, way), name


@given(st.lists(waivers(), max_size=4), st.sampled_from(sorted(RunningRules.model_fields)), st.sampled_from(SUBJECTS))
def test_waivers_of_many_answer_as_those_of_one(known: list[Waiver], rule: str, subject: str) -> None:
    """The index finds what the plain search does, and asks in the same words."""
    bare = Reason(rule, subject, Enforcement.ENFORCE, "what", "why", "todo")
    plain = answered(bare, About("rules", rule.replace("_", "-")), "ask", known, NOW)
    many = ActiveWaivers(known, "ask", NOW.date())
    waiver = many.of(subject).get(rule)
    assert (cited(waiver) if waiver else "") == plain.waived_by
    assert waiver or many.how_to_ask(rule, subject) == plain.waiver


def test_every_rule_about_how_things_run_is_documented_with_reason_and_cost() -> None:
    """In a row of its own, with what it allows by itself."""
    rows = [line for line in (ROOT / "docs/runtime-rules.md").read_text().splitlines() if line.startswith("| `")]
    wanted = [rule for rules in RULES.values() for rule in rules]
    for row, rule in zip(rows, wanted, strict=True):
        asked = getattr(RunningRules(), rule.name)
        allowed = ", ".join(f"`{one}`" for one in getattr(asked, "allowed", ()))
        assert row == f"| `{rule.name}` | {rule.title} | {rule.why} | {rule.cost} | {allowed} |"


def test_every_rule_about_how_things_run_only_records_by_default() -> None:
    """Nobody is out of policy for it after an upgrade; what is allowed stays so where only the enforcement changes."""
    default = RunningRules()
    assert {getattr(default, name).enforcement for name in NAMES} == {Enforcement.AUDIT}
    stricter = RunningRules.model_validate({"no_limits": {"enforcement": "enforce"}})
    assert stricter.no_limits.allowed == default.no_limits.allowed == ("cpus",)
    assert RunningRules.model_validate({"no_limits": {"allowed": []}}).no_limits.allowed == ()
