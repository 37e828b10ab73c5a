"""The plan of a rollout: what it may never do, whatever the fleet looks like, and what it refuses, saying why."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fleets import NOW, fleet, judged, reason, release, target
from hypothesis import given
from hypothesis import strategies as st

from hardening.foundation.errors import RefusedError
from hardening.model import Enforcement
from pipelines.fleet.members import Origin, Target
from pipelines.fleet.model import Method
from pipelines.rollouts.plan import plan
from pipelines.rollouts.refusals import repository
from pipelines.violations import Judged

PORT = ("it publishes host port 8080 (8080/tcp)",)
RULES = st.sets(st.sampled_from(["expired", "unknown", "superseded", "revoked", "refused"]))
FLEETS = st.lists(st.tuples(RULES, st.booleans()), min_size=1, max_size=12)
LIMITS = st.fixed_dictionaries(
    {
        "method": st.sampled_from(list(Method)),
        "max_unavailable": st.one_of(st.integers(0, 5), st.integers(0, 100).map(lambda n: f"{n}%")),
        "canary": st.integers(0, 4),
    }
)


def several(count: int, *rules: str, **more: Any) -> list[Judged]:
    """That many members that violate the rules."""
    return [judged(f"web-{number}", *rules, **more) for number in range(count)]


@given(members=FLEETS, limits=LIMITS)
def test_no_plan_ever_takes_a_member_below_the_floor(
    members: list[tuple[set[str], bool]], limits: dict[str, Any]
) -> None:
    """Played through step by step, counting who was ill before; refusing is always allowed."""
    fleet_ = fleet(**limits)
    known = [judged(f"web-{n:02}", *sorted(rules), healthy=well) for n, (rules, well) in enumerate(members)]
    try:
        planned = plan(fleet_, known, target(), NOW, adopt=["*"])
    except RefusedError:
        return
    serving = {one.member.id: one.member.healthy for one in known}
    before = sum(serving.values())
    for step in planned.steps:
        if planned.method is Method.IN_PLACE:
            serving[step.member.id] = False
            assert sum(serving.values()) >= min(planned.floor, before)
        serving[step.member.id] = True
    assert planned.floor >= len(known) - fleet_.limits.unavailable(len(known))


@given(members=FLEETS, limits=LIMITS)
def test_every_violating_member_is_in_exactly_one_step_or_skipped_with_a_reason(
    members: list[tuple[set[str], bool]], limits: dict[str, Any]
) -> None:
    """Nobody is forgotten, nobody rolled twice, nobody rolled who does not violate."""
    known = [judged(f"web-{n:02}", *sorted(rules), healthy=well) for n, (rules, well) in enumerate(members)]
    try:
        planned = plan(fleet(**limits), known, target(), NOW, adopt=["*"])
    except RefusedError:
        return
    touched = [step.member.id for step in planned.steps] + [skip.member for skip in planned.skipped]
    assert sorted(touched) == sorted(one.member.id for one in known if one.violations)
    assert all(skip.why for skip in planned.skipped)


def test_nothing_that_violates_is_a_plan_without_waves() -> None:
    """It does not even look at the replacement."""
    planned = plan(fleet(), several(3), Target("r/x@sha256:1", "sha256:1", None), NOW)
    assert planned.waves == ()
    assert planned.seconds == 0


def test_a_selector_that_matches_nothing_is_said() -> None:
    """No member at all is no compliant fleet."""
    with pytest.raises(RefusedError, match="app=web"):
        plan(fleet(), [], target(), NOW)


def test_the_canary_comes_first_and_bakes() -> None:
    """Then one after the other."""
    planned = plan(fleet(canary=2), several(4, "expired"), target(), NOW)
    assert [(len(wave.steps), wave.bake) for wave in planned.waves] == [
        (2, timedelta(minutes=5)),
        (1, timedelta()),
        (1, timedelta()),
    ]
    assert planned.seconds == 4 * (3 + 30 + 2) + 300


def test_in_place_with_nobody_to_spare_is_refused_and_says_what_forces_it() -> None:
    """max_unavailable 0 and a published port."""
    with pytest.raises(RefusedError) as error:
        plan(fleet(method="in_place"), several(1, "expired", forced_in_place=PORT), target(), NOW)
    assert "max_unavailable 0" in str(error.value)
    assert "host port 8080" in str(error.value)


def test_a_percentage_that_rounds_to_nobody_is_refused_too() -> None:
    """25% of three is none."""
    with pytest.raises(RefusedError, match="25%"):
        plan(fleet(method="in_place", max_unavailable="25%"), several(3, "expired"), target(), NOW)


def test_surge_of_what_cannot_exist_twice_is_refused() -> None:
    """Stopping first is done only where it was asked for."""
    with pytest.raises(RefusedError) as error:
        plan(fleet(max_unavailable=1), several(1, "expired", forced_in_place=PORT), target(), NOW)
    assert "host port 8080" in str(error.value)
    assert "in_place" in error.value.hint


def test_an_ill_member_uses_up_what_may_be_unavailable() -> None:
    """Three wanted, one may be missing, one is: no healthy one may be stopped."""
    members = [judged("web-1", "expired"), judged("web-2", healthy=False), judged("web-3")]
    with pytest.raises(RefusedError, match="leaves 1 of 3"):
        plan(fleet(method="in_place", max_unavailable=1), members, target(), NOW)


def test_ill_members_are_replaced_first() -> None:
    """It costs nobody anything, and makes room for the others."""
    members = [judged("web-1", "expired"), judged("web-2", "expired", healthy=False)]
    planned = plan(fleet(method="in_place", max_unavailable=1), members, target(), NOW)
    assert [step.member.name for step in planned.steps] == ["web-2", "web-1"]


@pytest.mark.parametrize(
    ("more", "limits", "said"),
    [
        ({"revoked_at": NOW, "revoked_reason": "leaks"}, {}, "revoked: leaks"),
        ({"expires_at": NOW + timedelta(days=6)}, {}, "min_remaining 7d"),
        ({"expires_at": NOW - timedelta(days=1)}, {"min_remaining": "0s"}, "expires on"),
        ({}, {"min_soak": "30d"}, "min_soak 30d"),
    ],
)
def test_a_replacement_that_is_bad_itself_is_refused(more: dict[str, Any], limits: dict[str, Any], said: str) -> None:
    """Revoked, nearly or quite expired, too young."""
    with pytest.raises(RefusedError, match=said):
        plan(fleet(**limits), several(1, "expired"), target(**more), NOW)


def test_an_unknown_replacement_is_refused() -> None:
    """Unknown must not replace unknown."""
    with pytest.raises(RefusedError, match="nobody knows where the replacement"):
        plan(fleet(), several(1, "expired"), Target("r.example/x@sha256:1", "sha256:1", None), NOW)


def test_a_fleet_that_is_mostly_unknown_is_not_believed() -> None:
    """Seven of ten: is the ledger the right one? They are taken over by name, on purpose."""
    members = [*several(7, "unknown", origin=Origin()), *[judged(f"ok-{n}") for n in range(3)]]
    with pytest.raises(RefusedError, match="7 of 10 members are unknown") as error:
        plan(fleet(), members, target(), NOW)
    assert "--adopt" in error.value.hint
    assert len(plan(fleet(), members, target(), NOW, adopt=["web-*"]).steps) == 7
    assert len(plan(fleet(), members, target(), NOW, adopt=["all"]).steps) == 7


def test_all_may_expire_at_once_unless_the_fleet_says_otherwise() -> None:
    """1.0 by default for expiry."""
    assert len(plan(fleet(), several(4, "expired"), target(), NOW).steps) == 4
    with pytest.raises(RefusedError, match="expired"):
        plan(fleet(max_violating_fraction={"expired": 0.5}), several(4, "expired"), target(), NOW)


def test_a_member_that_asks_not_to_be_disrupted_is_skipped_and_does_not_stop_the_rest() -> None:
    """It carries an end, and the policy's deadline plus the grace overrides it."""
    until = NOW + timedelta(days=9)
    young = replace(judged("web-1", protected_until=until), reasons=(reason("expired", deadline=NOW),))
    planned = plan(fleet(), [young, judged("web-2", "expired")], target(), NOW)
    assert [step.member.name for step in planned.steps] == ["web-2"]
    assert "not to be disrupted until" in planned.skipped[0].why
    assert len(plan(fleet(), [young], target(), NOW + timedelta(hours=1)).steps) == 1
    assert (
        len(plan(fleet(), [replace(young, member=replace(young.member, protected_until=NOW))], target(), NOW).steps)
        == 1
    )


def test_what_is_only_recorded_or_waived_rolls_nobody() -> None:
    """Audit and waivers are answers, too."""
    audit = replace(judged(), reasons=(reason("superseded", enforcement=Enforcement.AUDIT),))
    waived = replace(judged("web-2"), reasons=(reason("expired", waived_by="W-1 until May"),))
    assert plan(fleet(), [audit, waived], target(), NOW).steps == ()


def test_a_golden_image_never_takes_the_place_of_an_application() -> None:
    """Its owner rebuilds it on the newer base."""
    on_base = judged("web-1", "superseded", origin=Origin(base=release()))
    planned = plan(fleet(), [on_base], target(), NOW)
    assert planned.steps == ()
    assert "application image" in planned.skipped[0].why


def test_another_golden_image_is_replaced_only_when_adopted() -> None:
    """A selector that catches a stranger does not turn it into a web server."""
    stranger = judged("web-1", "expired", origin=Origin(release=release(name="python-runtime")))
    assert "python-runtime" in plan(fleet(), [stranger], target(), NOW).skipped[0].why
    assert len(plan(fleet(), [stranger], target(), NOW, adopt=["web-1"]).steps) == 1


def test_an_application_is_rolled_only_when_its_own_tag_has_a_newer_digest() -> None:
    """Until then it is reported with its base."""
    of = fleet(replacement={"tag": "r.example/shop:1"})
    same = judged("web-1", "superseded", origin=Origin(base=release()), image="r.example/shop:1", digests=("sha256:a",))
    old = judged("web-2", "superseded", origin=Origin(base=release()), image="r.example/shop:1", digests=("sha256:b",))
    other = judged(
        "web-3", "superseded", origin=Origin(base=release()), image="r.example/blog:1", digests=("sha256:d",)
    )
    planned = plan(of, [same, old, other], Target("r.example/shop@sha256:a", "sha256:a", release(9)), NOW)
    assert [step.member.name for step in planned.steps] == ["web-2"]
    assert ["no newer digest" in planned.skipped[0].why, "another image" in planned.skipped[1].why] == [True, True]


def test_the_same_content_is_not_rolled_onto_itself() -> None:
    """Dates are no reason to restart anything."""
    same = judged("web-1", "expired", origin=Origin(release=release(1, content="sha256:same")))
    planned = plan(fleet(), [same], target(9, content="sha256:same"), NOW)
    assert "same content" in planned.skipped[0].why


def test_what_cannot_be_rolled_says_why() -> None:
    """A container that the engine would remove by itself is left alone."""
    planned = plan(fleet(), [judged("web-1", "expired", cannot_roll="it was started with --rm")], target(), NOW)
    assert planned.skipped[0].why == "it was started with --rm"


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("nginx", "nginx"),
        ("nginx:1", "nginx"),
        ("127.0.0.1:5000/golden/nginx", "127.0.0.1:5000/golden/nginx"),
        ("127.0.0.1:5000/golden/nginx:stable@sha256:1", "127.0.0.1:5000/golden/nginx"),
    ],
)
def test_a_registrys_port_is_no_tag(reference: str, expected: str) -> None:
    """Repositories are compared without tag and digest."""
    assert repository(reference) == expected
