"""The plan of a rollout: what it may never do, whatever the fleet looks like, and what it refuses, saying why."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.foundation.errors import RefusedError
from hardening.model import Enforcement
from pipelines.fleet.members import Changes, Followed, Provenance, ReplacementImage, repository
from pipelines.fleet.model import Method, Zones
from pipelines.fleet.violations import Judged
from pipelines.rollout.plan import not_yet, plan, refuse_unmatched, why_not
from pipelines.rollout.plan_model import Plan, Skip
from pipelines.rollout.schedule import caps
from pipelines.rollout.waves import Step, in_order
from tests.support.fleets import NOW, fleet, judged, reason, release, target

PORT = ("it publishes host port 8080 (8080/tcp)",)
RULES = st.sets(st.sampled_from(["expired", "unknown", "superseded", "revoked", "refused"]))
FLEETS = st.lists(st.tuples(RULES, st.booleans(), st.sampled_from(["", "a", "b"])), min_size=1, max_size=12)
AMOUNTS = st.one_of(st.integers(0, 5), st.integers(0, 100).map(lambda n: f"{n}%"))
BUDGETS = st.fixed_dictionaries(
    {"nodes": AMOUNTS},
    optional={"reasons": st.lists(st.sampled_from(["expired", "superseded", "revoked"]), unique=True)},
)
LIMITS = st.fixed_dictionaries(
    {
        "method": st.sampled_from(list(Method)),
        "max_unavailable": AMOUNTS,
        "max_surge": st.one_of(st.integers(1, 5), st.integers(1, 100).map(lambda n: f"{n}%")),
        "max_parallel": st.integers(1, 6),
        "zones": st.sampled_from(list(Zones)),
        "budgets": st.lists(BUDGETS, max_size=3),
        "canary": st.integers(0, 4),
    }
)


def several(count: int, *rules: str, **more: Any) -> list[Judged]:
    """That many members that violate the rules."""
    return [judged(f"web-{number}", *rules, **more) for number in range(count)]


@given(members=FLEETS, limits=LIMITS)
def test_no_plan_ever_takes_a_member_below_the_floor(members: list[Any], limits: dict[str, Any]) -> None:
    """Played through batch by batch, counting who was ill before; refusing is always allowed."""
    known, planned = played(members, limits)
    serving = {one.member.id: one.member.healthy for one in known}
    before = sum(serving.values())
    for batch in batches(planned):
        if planned and planned.method is Method.IN_PLACE:
            serving |= dict.fromkeys((step.member.id for step in batch), False)
            assert sum(serving.values()) >= min(planned.floor, before)
        serving |= dict.fromkeys((step.member.id for step in batch), True)
    if planned:
        assert planned.floor == max(0, len(known) - fleet(**limits).limits.unavailable(len(known)))


@given(members=FLEETS, limits=LIMITS)
def test_no_plan_ever_takes_the_last_of_two_zones_at_once(members: list[Any], limits: dict[str, Any]) -> None:
    """Of zones, or hosts, that are known, and that somebody serves in."""
    known, planned = played(members, limits)
    serving = {one.member.id: one.member.zone for one in known if one.member.healthy and one.member.zone}
    for batch in batches(planned):
        if planned and planned.method is Method.IN_PLACE:
            left = {zone for name, zone in serving.items() if name not in {step.member.id for step in batch}}
            assert len(set(serving.values()) - left) <= 1
        serving |= {step.member.id: step.member.zone for step in batch if step.member.zone}


@given(members=FLEETS, limits=LIMITS)
def test_no_plan_ever_does_more_at_once_than_any_limit_allows(members: list[Any], limits: dict[str, Any]) -> None:
    """Parallel, surge, zones, and each budget that binds the gravest reason."""
    known, planned = played(members, limits)
    of = fleet(**limits).limits
    for batch in batches(planned):
        assert len(batch) <= of.max_parallel
        assert of.method is Method.IN_PLACE or len(batch) <= of.surge(len(known))
        assert of.zones is Zones.SPREAD or len({step.member.zone for step in batch}) == 1
        for cap in caps(of, len(known), NOW):
            assert sum(cap.binds(step.rule) for step in batch) <= cap.most


@given(members=FLEETS, limits=LIMITS)
def test_the_canaries_are_the_first_wave_and_as_many_as_were_asked_for(
    members: list[Any], limits: dict[str, Any]
) -> None:
    """No other wave is one, and each wave of the others runs all its steps at once."""
    _, planned = played(members, limits)
    if planned and planned.waves:
        first, *others = planned.waves
        canaries = min(limits["canary"], len(planned.steps))
        assert (first.canary, len(first.steps) if first.canary else 0) == (canaries > 0, canaries)
        assert all(not wave.canary and wave.parallel == len(wave.steps) for wave in others)


def played(members: list[Any], limits: dict[str, Any]) -> tuple[list[Judged], Plan | None]:
    """The members, and their plan; None where it is refused."""
    known = [
        judged(f"web-{number:02}", *sorted(rules), healthy=well, zone=zone)
        for number, (rules, well, zone) in enumerate(members)
    ]
    try:
        return known, plan(fleet(**limits), known, target(), NOW, adopt=["*"])
    except RefusedError:
        return known, None


def batches(planned: Plan | None) -> list[tuple[Step, ...]]:
    return [batch for wave in planned.waves for batch in wave.batches] if planned else []


@given(members=FLEETS, limits=LIMITS)
def test_every_violating_member_is_in_exactly_one_step_or_skipped_with_a_reason(
    members: list[Any], limits: dict[str, Any]
) -> None:
    """Nobody is forgotten, nobody rolled twice, nobody rolled who does not violate."""
    known, planned = played(members, limits)
    if planned:
        touched = [step.member.id for step in planned.steps] + [skip.member for skip in planned.skipped]
        assert sorted(touched) == sorted(one.member.id for one in known if one.violations)
        assert all(skip.why for skip in planned.skipped)


@given(size=st.integers(1, 12), percentage=st.integers(1, 100))
def test_every_small_fleet_can_roll(size: int, percentage: int) -> None:
    """A budget in percent never rounds to nobody."""
    planned = plan(fleet(budgets=[{"nodes": f"{percentage}%"}]), several(size, "expired"), target(), NOW)
    assert len(planned.steps) == size


def test_nothing_that_violates_is_a_plan_without_waves() -> None:
    """It does not even look at the replacement."""
    planned = plan(fleet(), several(3), ReplacementImage("r/x@sha256:1", "sha256:1", None), NOW)
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


def test_a_member_that_cannot_stand_beside_its_replacement_is_left_alone_and_the_others_surge() -> None:
    """One published port is no reason to keep the whole fleet on an expired image."""
    members = [judged("web-1", "expired"), judged("web-2", "expired", forced_in_place=PORT), judged("web-3")]
    planned = plan(fleet(), members, target(), NOW)
    assert [step.member.name for step in planned.steps] == ["web-1"]
    assert [(skip.member.rpartition("/")[2], "host port 8080" in skip.why) for skip in planned.skipped] == [
        ("web-2", True)
    ]


def test_a_surge_is_not_refused_for_a_member_that_is_left_alone_anyway() -> None:
    """Its port is not what stands in the way."""
    both = judged("web-2", "expired", forced_in_place=PORT, cannot_roll="it was started with --rm")
    assert [skip.why for skip in plan(fleet(), [judged("web-1"), both], target(), NOW).skipped] == [
        "it was started with --rm"
    ]


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
    with pytest.raises(RefusedError, match="the origin of the replacement"):
        plan(fleet(), several(1, "expired"), ReplacementImage("r.example/x@sha256:1", "sha256:1", None), NOW)


def test_a_fleet_that_is_mostly_unknown_is_not_believed() -> None:
    """Seven of ten: is the ledger the right one? They are taken over by name, on purpose."""
    members = [*several(7, "unknown", origin=Provenance()), *[judged(f"ok-{n}") for n in range(3)]]
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
    on_base = judged("web-1", "superseded", origin=Provenance(base=release()))
    planned = plan(fleet(), [on_base], target(), NOW)
    assert planned.steps == ()
    assert "application image" in planned.skipped[0].why


def test_who_has_drifted_runs_its_image_again_unless_that_must_not_run() -> None:
    """By a rule about the image itself. What was pulled from elsewhere is replaced by the same from where it should be;
    fixes that the policy gives time for are no reason against it.
    """
    of, new = fleet(replacement={"follow": "r.example/web:1"}), f"sha256:{1:064x}"
    same = ReplacementImage(f"r.example/web@{new}", new, None, followed=True)
    tag = Provenance(followed=Followed("r.example/web:1", NOW))
    drift = "changed_files"

    def left(*rules: str, image: str = "r.example/web:1") -> list[str]:
        one = judged("web-1", drift, *rules, origin=tag, image=image, digests=(new,))
        return [skip.why for skip in plan(of, [one], same, NOW, adopt=["all"]).skipped]

    assert left() == left("max_age") == left("vulnerable") == []
    assert left("approved_source") == ["its own image must not run again: approved_source"]
    assert left("approved_source", "revoked") == ["its own image must not run again: approved_source, revoked"]
    assert left("approved_source", image="mirror.example/web:1") == []
    assert left("revoked", image="mirror.example/web:1") == ["its own image must not run again: revoked"]


def test_another_golden_image_is_replaced_only_when_adopted() -> None:
    """A selector that catches a stranger does not turn it into a web server."""
    stranger = judged("web-1", "expired", origin=Provenance(release=release(name="python-runtime")))
    assert "python-runtime" in plan(fleet(), [stranger], target(), NOW).skipped[0].why
    assert len(plan(fleet(), [stranger], target(), NOW, adopt=["web-1"]).steps) == 1


def test_an_application_is_rolled_only_when_its_own_tag_has_a_newer_digest() -> None:
    """Until then it is reported with its base."""
    of = fleet(replacement={"tag": "r.example/shop:1"})
    same = judged(
        "web-1", "superseded", origin=Provenance(base=release()), image="r.example/shop:1", digests=("sha256:a",)
    )
    old = judged(
        "web-2", "superseded", origin=Provenance(base=release()), image="r.example/shop:1", digests=("sha256:b",)
    )
    other = judged(
        "web-3", "superseded", origin=Provenance(base=release()), image="r.example/blog:1", digests=("sha256:d",)
    )
    planned = plan(of, [same, old, other], ReplacementImage("r.example/shop@sha256:a", "sha256:a", release(9)), NOW)
    assert [step.member.name for step in planned.steps] == ["web-2"]
    assert ["no newer digest" in planned.skipped[0].why, "another image" in planned.skipped[1].why] == [True, True]


def test_the_same_content_is_not_rolled_onto_itself() -> None:
    """Dates are no reason to restart anything."""
    same = judged("web-1", "expired", origin=Provenance(release=release(1, content="sha256:same")))
    planned = plan(fleet(), [same], target(9, content="sha256:same"), NOW)
    assert "same content" in planned.skipped[0].why


def test_the_same_content_of_another_registry_is_rolled_to_come_from_the_right_one() -> None:
    """Where that is what is violated; once it comes from there, it is left alone whatever the policy approves."""
    origin = Provenance(release=release(1, content="sha256:same"))
    for rule, image, rolled in (
        ("approved_source", "mirror.example/nginx:1", True), ("expired", "mirror.example/nginx:1", False),
        ("approved_source", "r.example/nginx:1", False), ("approved_source", f"sha256:{1:064x}", False),
    ):  # fmt: skip
        one = judged("web-1", rule, origin=origin, image=image)
        assert bool(plan(fleet(), [one], target(9, content="sha256:same"), NOW).steps) is rolled, (rule, image)


def test_what_cannot_be_rolled_says_why() -> None:
    """A container that the engine would remove by itself is left alone."""
    planned = plan(fleet(), [judged("web-1", "expired", cannot_roll="it was started with --rm")], target(), NOW)
    assert planned.skipped[0].why == "it was started with --rm"


def test_who_does_not_run_or_is_skipped_past_its_deadline_is_its_owners() -> None:
    """A night was green while four of five members had ended: none of them was replaced, and nobody was to act."""
    runs = judged("web-1")
    gone = judged("web-2", healthy=False, stopped=True, cannot_roll="it does not run (exited): start it, or remove it")
    late, early = (judged(name, "expired", cannot_roll="it was started with --rm") for name in ("web-3", "web-4"))
    early = replace(early, reasons=(reason("expired", deadline=NOW + timedelta(days=1)),))
    planned = plan(fleet(), [runs, gone, late, early, judged("web-5", "expired")], target(), NOW)
    assert {one.member.rpartition("/")[2]: one.why for one in planned.neglected} == {
        "web-2": "it does not run (exited): start it, or remove it",
        "web-3": f"overdue since {NOW - timedelta(days=1):%Y-%m-%d %H:%M} UTC, and skipped: it was started with --rm",
    }


def test_a_member_that_restarts_again_and_again_is_its_owners_only_where_it_is_not_replaced() -> None:
    """It does not run at the moment of the look, but a rollout replaces it."""
    restarts = {"healthy": False, "stopped": True}
    known = [judged("web-1", "expired", **restarts), judged("web-2"), judged("web-3", **restarts)]
    planned = plan(fleet(method="in_place"), known, target(), NOW)
    assert [step.member.name for step in planned.steps] == ["web-1"]
    assert [(skip.member.rpartition("/")[2], skip.why) for skip in planned.neglected] == [("web-3", "it does not run")]


@pytest.mark.parametrize("method", ["surge", "in_place"])
def test_the_last_member_that_serves_is_not_replaced_while_others_are_down(method: str) -> None:
    """The fleet is not whole: if the replacement fails, nothing serves. Who can be replaced is so first."""

    def down(name: str) -> Judged:
        return judged(name, "expired", healthy=False, stopped=True, cannot_roll="it does not run (exited)")

    members = [judged("web-1", "expired"), down("web-2"), down("web-3")]
    limits = {"method": method, "max_unavailable": "100%"}
    planned = plan(fleet(**limits), members, target(), NOW)
    why = {one.member.rpartition("/")[2]: one.why for one in planned.skipped}["web-1"]
    assert (planned.steps, why) == ((), "it is the last that serves of 3 members: start or remove web-2, web-3 first")
    more = [*members, judged("web-4", "expired", healthy=False)]
    assert [step.member.name for step in plan(fleet(**limits), more, target(), NOW).steps] == ["web-4", "web-1"]
    assert [step.member.name for step in plan(fleet(**limits), members[:1], target(), NOW).steps] == ["web-1"]


def wide(**more: Any) -> dict[str, Any]:
    """Limits that let ten act at once."""
    return {"max_parallel": 10, "max_surge": 10, "budgets": [{"nodes": "100%"}], "canary": 0, **more}


def sizes(planned: Plan) -> list[int]:
    return [len(wave.steps) for wave in planned.waves]


def test_fifty_members_ten_at_a_time_are_five_waves() -> None:
    """Each of them as long as one step."""
    planned = plan(fleet(**wide()), several(50, "expired"), target(), NOW)
    assert sizes(planned) == [10] * 5
    assert planned.seconds == 5 * (3 + 30 + 2)


@pytest.mark.parametrize(
    ("limits", "first"),
    [
        ({"max_parallel": 3}, 3),
        ({"max_surge": "5%"}, 3),
        ({"budgets": [{"nodes": "10%"}]}, 5),
        ({"budgets": [{"nodes": 4}, {"nodes": "50%"}]}, 4),
        ({"method": "in_place", "max_unavailable": "15%"}, 7),
    ],
)
def test_the_narrowest_limit_decides_how_wide_a_wave_is(limits: dict[str, Any], first: int) -> None:
    """Of fifty; surge and budgets are rounded up, max_unavailable down."""
    assert sizes(plan(fleet(**wide(**limits)), several(50, "expired"), target(), NOW))[0] == first


def test_who_is_ill_already_counts_as_missing_until_it_is_replaced() -> None:
    """Two may be missing and one is: one healthy member beside the ill one, then two at a time."""
    members = [*several(5, "expired"), judged("web-9", "expired", healthy=False)]
    planned = plan(fleet(**wide(method="in_place", max_unavailable=2)), members, target(), NOW)
    assert [[step.member.name for step in wave.steps] for wave in planned.waves] == [
        ["web-9", "web-0"],
        ["web-1", "web-2"],
        ["web-3", "web-4"],
    ]


def test_zones_are_rolled_one_by_one_or_together() -> None:
    """A bad replacement stays in one zone; or no zone loses more than its part."""
    members = [judged(f"web-{number}", "expired", zone="ab"[number % 2]) for number in range(4)]
    for zones, expected in (("one_by_one", ["aa", "bb"]), ("spread", ["ab", "ab"])):
        planned = plan(fleet(**wide(max_parallel=2, zones=zones)), members, target(), NOW)
        assert ["".join(step.member.zone for step in wave.steps) for wave in planned.waves] == expected


def test_the_last_members_of_two_zones_go_one_after_the_other() -> None:
    """In place, where both would be missed; the floor alone would let both go. With surge, no member is missing."""
    members = [judged(f"web-{number}", "expired", zone="aab"[number]) for number in range(3)]
    limits = wide(max_parallel=3, zones="spread", max_unavailable=3)
    planned = plan(fleet(**limits, method="in_place"), members, target(), NOW)
    assert ["".join(step.member.zone for step in wave.steps) for wave in planned.waves] == ["ab", "a"]
    members.append(judged("web-9", zone="b"))
    planned = plan(fleet(**limits, method="in_place"), members, target(), NOW)
    assert ["".join(step.member.zone for step in wave.steps) for wave in planned.waves] == ["aba"]
    del members[3]
    assert [len(wave.steps) for wave in plan(fleet(**limits), members, target(), NOW).waves] == [3]


def test_a_budget_for_one_reason_freezes_only_those_who_have_no_graver_one() -> None:
    """Skipped, with the name of the budget."""
    members = [judged("web-1", "superseded"), judged("web-2", "superseded", "expired")]
    planned = plan(fleet(budgets=[{"nodes": 0, "reasons": ["superseded"]}]), members, target(), NOW)
    assert [step.member.name for step in planned.steps] == ["web-2"]
    assert planned.skipped[0].why == "limits.budgets[0] allows no member that is superseded"


def test_a_frozen_fleet_is_refused_and_one_outside_its_window_waits() -> None:
    """An explicit nothing has no end; a window has one, and the plan says when."""
    with pytest.raises(RefusedError, match=r"budgets\[0\] allows no member"):
        plan(fleet(budgets=[{"nodes": 0}]), several(3, "expired"), target(), NOW)
    start = NOW + timedelta(hours=2)
    window = {"start": f"{start:%H:%M}", "end": f"{start + timedelta(hours=1):%H:%M}"}
    planned = plan(fleet(windows=[window]), several(3, "expired"), target(), NOW)
    assert planned.hold is not None
    assert planned.hold.until == start.replace(second=0, microsecond=0)
    assert len(planned.steps) == 3


def test_an_automated_run_leaves_members_that_are_merely_old_to_their_turn() -> None:
    """A person who asks for a rollout gets it at once."""
    since, deadline = NOW - timedelta(seconds=1), NOW + timedelta(days=10)
    old = [replace(one, reasons=(reason("expired", since=since, deadline=deadline),)) for one in several(5, "expired")]
    waiting = plan(fleet(), old, target(), NOW, automated=True)
    assert [len(waiting.steps), len(waiting.skipped)] == [1, 4], "one now, and the others each in its time"
    assert all("its turn comes at" in skip.why for skip in waiting.skipped)
    assert len(plan(fleet(), old, target(), NOW + timedelta(days=2), automated=True).steps) == 3
    assert len(plan(fleet(), old, target(), NOW + timedelta(days=5), automated=True).steps) == 5
    assert len(plan(fleet(), old, target(), NOW).steps) == 5


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


def test_who_is_taken_over_has_to_be_there() -> None:
    """A slip in a name would leave the member that was meant as it is, and say nothing."""
    refuse_unmatched(["all", "web-*", "web-2"], ["web-1", "web-2"])
    with pytest.raises(RefusedError, match="--adopt wbe-1: no member matches"):
        refuse_unmatched(["web-1", "wbe-1"], ["web-1", "web-2"])


def told(**more: Any) -> tuple[str, str, str]:
    """What a plan is refused with: message, evidence and hint."""
    with pytest.raises(RefusedError) as refused:
        plan(more.pop("of", fleet()), more.pop("known", several(2, "expired")), more.pop("to", target()), NOW)
    return refused.value.message, refused.value.evidence, refused.value.hint


PUBLISH = "./goldsmith image.publish nginx, then ./goldsmith image.promote nginx"
NAME = "nginx of 2026-02-08 (sha256:000000000000)"


def test_each_refusal_of_a_replacement_says_what_to_do() -> None:
    """With the release as people call it."""
    unknown = ReplacementImage("r.example/x:1", "sha256:0", None)
    assert told(to=unknown) == (
        "the origin of the replacement r.example/x:1 is unknown",
        "",
        "publish it, or build it on a golden image: unknown must not replace unknown",
    )
    assert told(to=target(revoked_at=NOW, revoked_reason="leaks")) == (
        f"the replacement {NAME} is revoked: leaks", "", f"publish and promote a good one: {PUBLISH}"
    )  # fmt: skip
    assert told(to=replace(target(), refused_because="CVE-1")) == (
        f"the replacement {NAME} is refused by the present policy",
        "CVE-1",
        f"publish and promote a good one: {PUBLISH}",
    )  # fmt: skip
    ends = NOW + timedelta(days=2)
    assert told(to=target(expires_at=ends), of=fleet(min_remaining="3d")) == (
        f"the replacement {NAME} expires on 2026-03-03 12:00 UTC, within min_remaining 3d",
        "",
        f"give it new dates, and promote it: {PUBLISH}",
    )
    assert told(to=target(), of=fleet(min_soak="30d")) == (
        f"the replacement {NAME} is younger than min_soak 30d", "", "it may roll from 2026-03-10 12:00 UTC"
    )  # fmt: skip


def test_a_replacement_is_old_and_young_enough_to_the_moment() -> None:
    """Exactly what the limits ask for is enough."""
    to = target(expires_at=NOW + timedelta(days=3))
    assert plan(fleet(min_remaining="3d"), several(1, "expired"), to, NOW).steps
    assert plan(fleet(min_soak="21d"), several(1, "expired"), target(), NOW).steps


def test_an_implausible_inventory_is_refused_with_names_and_what_to_do() -> None:
    """Twenty of them; and only of unknown ones may some be taken over."""
    unknown = several(30, "unknown")
    message, evidence, hint = told(known=unknown, of=fleet(max_violating_fraction={"unknown": 0.5}))
    assert message == "30 of 30 members are unknown, more than max_violating_fraction.unknown 0.5"
    assert evidence.splitlines() == [f"web-{number}" for number in range(20)]
    assert hint == "take members over on purpose: --adopt MEMBER, a glob, or all"
    half = [*several(1, "expired"), judged("web-9")]
    assert plan(fleet(max_violating_fraction={"expired": 0.5}), half, target(), NOW).steps
    message, _, hint = told(known=several(2, "expired"), of=fleet(max_violating_fraction={"expired": 0.5}))
    assert message == "2 of 2 members are expired, more than max_violating_fraction.expired 0.5"
    assert hint == "is the inventory right?"


def test_who_is_taken_over_and_is_not_there_is_told_with_how_to_look() -> None:
    """By the glob that matches nobody."""
    with pytest.raises(RefusedError) as refused:
        refuse_unmatched(["db-*"], ["web-1"])
    assert refused.value.message == "--adopt db-*: no member matches"
    assert refused.value.hint == "./goldsmith fleet.scan FLEET lists the members"


def test_why_a_member_is_left_alone_is_told_in_full() -> None:
    """Each cause in its words, and none for a member that is to be replaced."""
    of, to = fleet(), target()
    tagged = fleet(replacement={"tag": "r.example/shop:1"})
    base = Provenance(base=release(1))
    newer = ReplacementImage("r.example/shop:1", "sha256:new", release(9))

    def why(one: Judged, *adopt: str, in_fleet: Any = of, by: ReplacementImage = to) -> str:
        return why_not(in_fleet, one, by, NOW, adopt)

    assert why(judged("web-1", "expired")) == ""
    assert why(judged("web-1", "expired", cannot_roll="it has exited")) == "it has exited"
    assert why(judged("web-1", "expired", origin=base)) == (
        "an application image on nginx of 2026-01-31 (sha256:000000000000): its owner rebuilds it; give the fleet "
        "replacement.tag to roll it when its own tag has a newer digest"
    )
    assert why(judged("web-1", "expired", origin=Provenance(release=to.golden))) == (
        "the replacement has the same content: rolling would change nothing"
    )
    other = judged("web-1", "expired", origin=Provenance(release=release(1, name="httpd")))
    assert why(other) == "it runs httpd, not nginx; --adopt takes it over on purpose"
    assert why(other, "web-*") == why(other, "all") == ""
    assert why(other, "db-*") != ""
    assert why(judged("web-1", "unknown", origin=Provenance())) == ""
    shop = judged("web-1", "expired", image="r.example/shop:1", origin=base)
    assert why(shop, in_fleet=tagged, by=newer) == ""
    current = judged("web-1", "expired", image="r.example/shop:1", digests=("sha256:new",), origin=base)
    assert why(current, in_fleet=tagged, by=newer) == (
        "r.example/shop:1 has no newer digest yet: its owner rebuilds it on the newer base"
    )
    elsewhere = judged("web-1", "expired", image="r.example/db:1", origin=base)
    assert why(elsewhere, in_fleet=tagged, by=newer) == (
        "it runs another image than r.example/shop; --adopt takes it over on purpose"
    )
    assert why(elsewhere, "web-1", in_fleet=tagged, by=newer) == ""


@pytest.mark.parametrize("rule", ["changed_files", "foreign_processes"])
def test_what_drifted_is_replaced_by_the_very_image_that_it_runs(rule: str) -> None:
    """A new one of it is without what was changed; where the origin is what is wrong, that stays so."""
    to, tagged = target(), fleet(replacement={"tag": "r.example/shop:1"})
    same = {"origin": Provenance(release=to.golden)}
    assert [step.member.name for step in plan(fleet(), [judged("web-1", rule, **same)], to, NOW).steps] == ["web-1"]
    assert plan(fleet(), [judged("web-1", "superseded", **same)], to, NOW).steps == ()
    assert "an application image" in why_not(
        fleet(), judged("web-1", rule, origin=Provenance(base=release(1))), to, NOW, ()
    )
    current = ReplacementImage("r.example/shop:1", "sha256:new", release(9))
    runs = {"image": "r.example/shop:1", "digests": ("sha256:new",), "origin": Provenance(base=release(1))}
    assert why_not(tagged, judged("web-1", "superseded", rule, **runs), current, NOW, ()) == ""
    again = why_not(tagged, judged("web-1", "expired", rule, **runs), current, NOW, ())
    assert again == "its own image must not run again: expired"
    elsewhere = judged("web-1", rule, **{**runs, "image": "r.example/db:1"})
    assert "another image than r.example/shop" in why_not(tagged, elsewhere, current, NOW, ())


def test_protection_ends_with_its_label_or_with_the_grace_after_the_deadline() -> None:
    """To the moment; without a deadline it holds."""
    of = fleet(termination_grace="1d")

    def why(until: timedelta, deadline: timedelta | None) -> str:
        due = None if deadline is None else NOW + deadline
        one = judged("web-1", "expired", protected_until=NOW + until)
        return why_not(of, replace(one, reasons=(reason("expired", deadline=due),)), target(), NOW, ())

    hour, day = timedelta(hours=1), timedelta(days=1)
    held = "it asks not to be disrupted until 2026-03-01 13:00 UTC"
    assert why(hour, hour) == why(hour, None) == held
    assert why(hour, hour - day) == held
    assert why(hour, -day) == why(hour, -2 * day) == ""
    assert why(timedelta(), None) == ""


def test_a_surge_says_what_cannot_stand_side_by_side() -> None:
    """Of each member on its own line, and for one that is left alone, in its reason."""
    forced = [judged("web-1", "expired", forced_in_place=("port 80", "port 81")), judged("web-2", "expired")]
    of = fleet(method="surge")
    assert why_not(of, forced[0], target(), NOW, ()) == (
        "method surge needs old and new side by side, and port 80, port 81"
    )
    assert told(known=forced[:1], of=of) == (
        "method surge needs old and new side by side, and this cannot exist twice",
        "web-1: port 80\nweb-1: port 81",
        'set limits.method = "in_place" and limits.max_unavailable to at least 1 (a short outage of each)',
    )
    assert [step.member.name for step in plan(of, forced, target(), NOW).steps] == ["web-2"]


def test_in_place_a_step_without_room_is_told_with_what_would_make_some() -> None:
    """Surging is a way out where nothing has to exist twice."""
    of = fleet(method="in_place", max_unavailable=0)
    message = "replacing web-0 in place leaves 1 of 2 members serving, but max_unavailable 0 asks for 2"
    assert told(of=of) == (message, "", 'raise limits.max_unavailable, or set limits.method = "surge"')
    forced = several(2, "expired", forced_in_place=("port 80", "port 81"))
    assert told(of=of, known=forced) == (message, "web-0: port 80\nweb-0: port 81", "raise limits.max_unavailable")


def test_an_empty_fleet_is_told_with_its_labels() -> None:
    """A slip in the selector is likely."""
    assert told(known=[]) == ("nothing runs with the labels of fleet web: app=web", "", "see its selector")


def test_a_plan_without_members_of_ours_is_empty() -> None:
    """A service rolls all of it."""
    assert plan(fleet(), (), target(), NOW, grouped=True) == Plan(
        "web", target(), fleet().limits.method, 0, 0, (), (), 0
    )


def test_a_fleet_that_may_never_act_is_told_so() -> None:
    """With the cause, and where it stands."""
    assert told(of=fleet(budgets=[{"nodes": 0}])) == (
        "limits.budgets[0] allows no member, with no end within a year",
        "",
        "change it in the fleet's file: an explicit 0 freezes the fleet, and a window that never opens as well",
    )


def test_the_turn_of_a_member_has_come_at_its_very_moment() -> None:
    """Who is due at once has no turn to wait for."""
    at = NOW + timedelta(hours=1)
    assert not_yet(fleet(jitter="20%"), at, NOW) == "its turn comes at 2026-03-01 13:00 UTC (limits.jitter 20%)"
    assert not_yet(fleet(), at, at) == not_yet(fleet(), None, at) == ""


def test_a_plan_says_all_that_it_does() -> None:
    """Its steps with reasons and rule, those that it leaves alone, and its time."""
    known = [judged("web-1", "superseded", "expired"), judged("web-2", "expired", cannot_roll="dead"), judged("web-3")]
    made = plan(fleet(canary=0), known, target(), NOW)
    assert [(step.why, step.rule) for step in made.steps] == [(("it is superseded", "it is expired"), "expired")]
    assert made.skipped == (Skip(known[1].member.id, "dead"),)
    assert (made.fleet, made.desired, made.floor, made.hold) == ("web", 3, 3, None)
    assert made.seconds == sum(wave.seconds for wave in made.waves) > 0


def test_the_gravest_reason_comes_first_and_one_that_nobody_ranks_last() -> None:
    """Whatever their ids, in zones one by one and together."""
    known = {"web-1": "", "web-2": "superseded", "web-3": "expired", "web-4": "revoked", "web-5": "expired"}
    steps = [Step(judged(name).member, ("why",), rule) for name, rule in known.items()]
    for zones in Zones:
        assert [step.member.name for step in in_order(steps, zones)] == ["web-4", "web-3", "web-5", "web-2", "web-1"]


def test_taking_over_answers_for_unknown_members_and_not_for_expired_ones() -> None:
    """And a member with a release of its own is no application, whatever that stands on."""
    of = fleet(max_violating_fraction={"expired": 0.5})
    with pytest.raises(RefusedError, match="2 of 2 members are expired"):
        plan(of, several(2, "expired"), target(), NOW, ["all"])
    both = judged("web-1", "expired", origin=Provenance(release=release(1), base=release(2)))
    assert why_not(fleet(), both, target(), NOW, ()) == ""


def test_what_an_image_changes_stands_in_the_step_and_what_it_forbids_leaves_the_member_alone() -> None:
    """Told after what leaves a member alone anyway."""
    known = [*several(3, "expired"), judged("web-3", "expired", cannot_roll="it is paused")]
    changes = {
        known[0].member.id: Changes(("user: root → 7",)),
        known[1].member.id: Changes(("user: root → 7",), "it cannot write to /data"),
        known[3].member.id: Changes((), "it cannot write to /data"),
    }
    made = plan(fleet(), known, target(), NOW, changes=changes)
    assert [(step.member.name, step.changes) for step in made.steps] == [("web-0", ("user: root → 7",)), ("web-2", ())]
    assert made.skipped == (
        Skip(known[1].member.id, "it cannot write to /data"), Skip(known[3].member.id, "it is paused"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "rehearsed"),
    [
        ({}, False),
        ({"method": "in_place", "max_unavailable": 1}, True),
        ({"method": "in_place", "max_unavailable": 1, "rehearsal": False}, False),
    ],
)
def test_a_plan_says_whether_each_new_one_is_tried_beside_the_old(limits: dict[str, Any], rehearsed: bool) -> None:
    """In place, unless the fleet's file says otherwise."""
    assert plan(fleet(**limits), several(1, "expired"), target(), NOW).rehearsed is rehearsed
