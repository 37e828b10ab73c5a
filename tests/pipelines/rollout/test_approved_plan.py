"""A plan as a file that somebody approves: carried out exactly, or refused with all that has moved since."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.foundation.errors import ContentError, OutsideError, RefusedError
from hardening.foundation.hashing import digest_of
from pipelines.fleet.ec2.pacing import pacing
from pipelines.fleet.members import Member, Provenance, ReplacementImage
from pipelines.fleet.model import Fleet, Method
from pipelines.fleet.port import Group
from pipelines.rollout.approval import read_plan, write_plan
from pipelines.rollout.approved_plan import (
    ApprovedPlan,
    Present,
    compare,
    digest,
    opened,
    refuse_moved,
    refuse_repaced,
    refuse_replanned,
    seal,
    written,
)
from pipelines.rollout.plan import plan
from pipelines.rollout.plan_model import GroupStep
from pipelines.rollout.whole_plan import plan_all
from tests.support.fleets import NOW, fleet, judged, release, target

KNOWN = [judged(f"web-{number}", "expired", zone="ab"[number % 2]) for number in range(4)]
MEMBERS = [one.member for one in KNOWN]


def world(
    members: Sequence[Member] = MEMBERS,
    to: ReplacementImage | None = None,
    of: Fleet | None = None,
    later: timedelta = timedelta(),
) -> Present:
    return Present(of or fleet(), members, to or target(), NOW + later)


def document(**limits: Any) -> ApprovedPlan:
    of = fleet(**limits)
    return seal(plan(of, KNOWN, target(), NOW), world(of=of), "ana@host", ["web-*"])


@given(
    members=st.lists(st.tuples(st.booleans(), st.sampled_from(["", "a"])), min_size=1, max_size=5),
    limits=st.fixed_dictionaries(
        {},
        optional={
            "max_parallel": st.integers(1, 3),
            "windows": st.just([{"start": "22:00"}]),
            "canary": st.integers(0, 2),
        },
    ),
)
def test_a_plan_survives_its_file_exactly(members: list[Any], limits: dict[str, Any]) -> None:
    """What is carried out is what was approved, to the last date."""
    known = [judged(f"web-{n}", "expired", healthy=well, zone=zone) for n, (well, zone) in enumerate(members)]
    of = fleet(**limits)
    present = world([one.member for one in known], of=of)
    made = seal(plan(of, known, target(), NOW), present, "ana@host", ["all"])
    assert opened(written(made), "plan.json") == made
    assert compare(opened(written(made), "plan.json"), present) == ()


def test_every_changed_byte_of_the_plan_is_found() -> None:
    """A member added, a bake shortened, an end put off: the digest breaks."""
    text = written(document())
    body = json.loads(text)["sealed"]
    for key in body:
        changed = json.loads(text)
        changed["sealed"][key] = {"something": "else"}
        with pytest.raises(RefusedError, match="digest does not match"):
            opened(json.dumps(changed), "plan.json")


NO_PLANS = [
    "", "[]", "{}", "null", '{"form": "x", "digest": "", "sealed": {}}', "[" * 200_000,
    '{"form": "x", "digest": "", "sealed": "\\ud800"}',
]  # fmt: skip


@pytest.mark.parametrize("text", NO_PLANS, ids=range(len(NO_PLANS)))
def test_what_is_no_plan_is_told_so(text: str) -> None:
    """With the file's name."""
    with pytest.raises(ContentError, match=r"plan\.json"):
        opened(text, "plan.json")


CHANGES: list[tuple[Callable[[], Present], list[str]]] = [
    (lambda: world(MEMBERS[1:]), ["host/local/docker/web-0 is gone"]),
    (lambda: world([*MEMBERS, judged("web-9").member]), ["host/local/docker/web-9 is new"]),
    (
        lambda: world([replace(MEMBERS[0], handle="other"), *MEMBERS[1:]]),
        ["host/local/docker/web-0 was recreated since"],
    ),
    (lambda: world(to=target(8)), [f"the replacement was {target().reference} and is {target(8).reference}"]),
    (lambda: world(of=fleet(max_parallel=5)), ["the fleet's file: limits.max_parallel was 1 and is 5"]),
    (lambda: world(later=timedelta(days=3)), ["it was good until 2026-03-04"]),
    (lambda: world(later=timedelta(seconds=-1)), ["is a clock wrong"]),
]


@pytest.mark.parametrize(("present", "said"), CHANGES)
def test_a_world_that_has_moved_is_refused_with_what_differs(present: Callable[[], Present], said: list[str]) -> None:
    """Each change is named; and a world that stood still is not refused."""
    refuse_moved(document(), world())
    found = compare(document(), present())
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))
    with pytest.raises(RefusedError, match=r"no longer fits") as error:
        refuse_moved(document(), present())
    assert "make a new plan" in error.value.hint


def test_a_whole_fleet_made_anew_is_told_in_a_few_lines() -> None:
    """Ten names, and how many more."""
    many = [judged(f"web-{number:02}", "expired") for number in range(30)]
    made = seal(plan(fleet(), many, target(), NOW), world([one.member for one in many]), "ana@host")
    found = compare(made, world([replace(one.member, handle="other") for one in many]))
    assert len(found) == 11
    assert found[-1] == "and 20 more: was recreated since"


def test_dates_of_members_and_releases_are_no_difference() -> None:
    """What is known of the replacement may change, and who is healthy: the run judges both right before it acts."""
    ill = [replace(member, healthy=False) for member in MEMBERS]
    redated = replace(target(), golden=replace(release(9), expires_at=NOW + timedelta(days=400)))
    assert compare(document(), world(ill, to=redated)) == ()


def test_the_file_is_written_and_read_at_the_edge(tmp_path: Path) -> None:
    """Unknown members that are taken over on purpose stand in it, too."""
    known = [judged("web-1", "unknown", origin=Provenance())]
    made = seal(plan(fleet(), known, target(), NOW, ["all"]), world([known[0].member]), "ana@host", ["all"])
    write_plan(made, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json").adopt == ("all",)
    with pytest.raises(OutsideError, match="cannot be written"):
        write_plan(made, tmp_path / "nowhere" / "plan.json")
    with pytest.raises(ContentError, match="cannot be read"):
        read_plan(tmp_path / "other.json")


GROUPS = [Group(f"123456789012/eu-central-1/autoscaling/{name}", name, 4, 4, "", "lt-1 version 1") for name in "ab"]


STEP = GroupStep(GROUPS[0], pacing(fleet().limits, 4, 4))


def with_groups(seen: Sequence[Group] = GROUPS) -> Present:
    return replace(world(), groups=seen)


@pytest.mark.parametrize("left", ["", "Argo CD keeps it"])
def test_what_is_overdue_in_a_group_that_is_left_alone_is_its_owners(left: str) -> None:
    """As a member is that is skipped past its deadline; what its service rolls is not."""
    group = replace(GROUPS[0], cannot_roll=left)
    inside = [
        judged(name, *rules, group=group.id, cannot_roll="the group rolls it")
        for name, rules in (("i-1", ("superseded",)), ("i-2", ()))
    ]
    groups = SimpleNamespace(groups=lambda: [group], pace=lambda *_: STEP.pacing)
    at: Any = SimpleNamespace(
        groups=groups, fleet=fleet(), now=lambda: NOW, why_not_group=lambda *_: "", instead=lambda *_: "",
        plan=lambda *_, **__: seal(plan(fleet(), [], target(), NOW, grouped=True), with_groups([group]), "ann"),
    )  # fmt: skip
    made = plan_all(at, judged=inside).plan
    why = f"overdue since {NOW - timedelta(days=1):%Y-%m-%d %H:%M} UTC, and skipped: {left}"
    assert [(skip.member, skip.why) for skip in made.neglected] == ([(inside[0].member.id, why)] if left else [])


def sealed_groups() -> ApprovedPlan:
    """A plan in which a service is to roll the first of two groups, and the second is within policy."""
    made = replace(plan(fleet(), KNOWN, target(), NOW), groups=(STEP,))
    return seal(made, with_groups(), "ana@host")


def test_the_groups_that_a_service_rolls_survive_the_file_exactly() -> None:
    """With their pace, and what they run and how many they are."""
    found = opened(written(sealed_groups()), "plan.json")
    assert found == sealed_groups()
    assert compare(found, with_groups()) == ()
    assert found.plan.groups == (STEP,)


def test_a_plan_of_before_there_were_groups_is_read_and_refused_where_there_are() -> None:
    """It says nothing of them, so nobody has approved them."""
    old = json.loads(written(document()))
    del old["sealed"]["groups_seen"], old["sealed"]["plan"]["groups"]
    found = opened(json.dumps(old | {"digest": digest_of(old["sealed"])}), "plan.json")
    assert compare(found, with_groups(GROUPS[:1])) == (f"{GROUPS[0].id} is new",)


REGROUPED = [
    (GROUPS[1:], "is gone"),
    ([*GROUPS, replace(GROUPS[0], id="another")], "another is new"),
    ([replace(GROUPS[0], desired=5), GROUPS[1]], "was to have 4 members and is to have 5"),
    ([GROUPS[0], replace(GROUPS[1], runs="lt-1 version 2")], "started from lt-1 version 1 and starts from lt-1 vers"),
    ([replace(GROUPS[0], cannot_roll="is mixed by now"), GROUPS[1]], "is mixed by now"),
]


@pytest.mark.parametrize(("seen", "said"), REGROUPED)
def test_groups_that_have_moved_are_refused_with_what_differs(seen: list[Group], said: str) -> None:
    """Those within policy too: what the plan leaves alone was approved as well. Who is ill is judged later."""
    (line,) = compare(sealed_groups(), with_groups(seen))
    assert said in line
    with pytest.raises(RefusedError, match="no longer fits"):
        refuse_moved(sealed_groups(), with_groups(seen))
    refuse_moved(sealed_groups(), with_groups([replace(one, healthy=1) for one in GROUPS]))


def test_groups_that_violate_no_more_or_have_another_pace_are_refused() -> None:
    """The fleet's limits give the pace, whatever the file says."""
    hasty = GroupStep(GROUPS[0], replace(STEP.pacing, min_healthy_percent=0))
    for again, said in (((), "violates nothing"), ((hasty,), "at another pace by the plan than by the fleet's file")):
        with pytest.raises(RefusedError) as error:
            refuse_repaced(sealed_groups(), again, fleet())
        assert said in error.value.evidence
    refuse_repaced(sealed_groups(), (STEP,), fleet())


def test_a_group_that_the_plan_left_alone_is_not_rolled_by_it() -> None:
    """Whatever has changed since: a waiver, or a time that its pods asked for. The other way round it is left alone."""
    alone = replace(STEP, group=replace(STEP.group, cannot_roll="asks not to be disrupted"))
    made = sealed_groups()
    left = replace(made, plan=replace(made.plan, groups=(alone,)))
    with pytest.raises(RefusedError) as error:
        refuse_repaced(left, (STEP,), fleet())
    assert "is skipped by the plan, but would be rolled now" in error.value.evidence
    refuse_repaced(left, (alone,), fleet())
    refuse_repaced(made, (alone,), fleet())


def test_a_plan_of_an_older_version_is_refused_and_says_so() -> None:
    """Groups stood elsewhere in it; it is good for three days, so that it is planned again."""
    old = json.loads(written(document())) | {"form": "goldsmith.rollout-plan/1"}
    with pytest.raises(ContentError, match="the plan has format goldsmith"):
        opened(json.dumps(old), "plan.json")


def test_every_character_of_the_digest_counts() -> None:
    """A digest that only begins like the right one is another."""
    text = json.loads(written(document()))
    last = text["digest"][-1]
    text["digest"] = text["digest"][:-1] + ("0" if last != "0" else "1")
    with pytest.raises(RefusedError, match="digest does not match"):
        opened(json.dumps(text), "plan.json")


def test_a_replacement_with_the_same_address_and_another_digest_is_another() -> None:
    """A tag that points elsewhere by now is what the approval was not for."""
    moved = replace(target(), digest="sha256:" + "f" * 64)
    assert len(compare(document(), world(to=moved))) == 1


FITS_NO_MORE = "the approved plan of 2026-03-01 12:00 UTC by ana@host no longer fits"
ANEW = "make a new plan and have it approved: ./goldsmith roll.plan web --output FILE"


def differing(refuse: Callable[[], None]) -> list[str]:
    """The lines of what a plan is refused for."""
    with pytest.raises(RefusedError) as error:
        refuse()
    assert (error.value.message, error.value.hint) == (FITS_NO_MORE, ANEW)
    return error.value.evidence.splitlines()


def test_a_sealed_plan_holds_all_of_its_world() -> None:
    """For three days; with who was ill, in order, and by whom it was asked for."""
    members = [replace(MEMBERS[1], healthy=False), MEMBERS[2], replace(MEMBERS[0], healthy=False)]
    present = replace(world(members), groups=GROUPS)
    made = plan(fleet(), KNOWN, target(), NOW)
    assert seal(made, present, "ana@host", ["web-*"], automated=True) == ApprovedPlan(
        plan=made,
        fleet=fleet().model_dump(mode="json"),
        members={f"host/local/docker/web-{number}": f"id-web-{number}" for number in range(3)},
        adopt=("web-*",),
        made_at=NOW,
        made_by="ana@host",
        expires_at=NOW + timedelta(days=3),
        groups_seen=tuple(GROUPS),
        ill=("host/local/docker/web-0", "host/local/docker/web-1"),
        automated=True,
    )
    assert seal(made, present, "ana@host").automated is False


def test_the_file_says_its_form_and_is_approved_by_the_digest_that_it_carries() -> None:
    """A line a value, so that a difference is read."""
    text = written(document())
    found = json.loads(text)
    assert list(found) == ["form", "digest", "sealed"]
    assert found["form"] == "goldsmith.rollout-plan/3"
    assert found["digest"] == digest(document()) == digest_of(found["sealed"])
    assert text == json.dumps(found, indent=1) + "\n"


def test_each_way_in_which_a_file_is_no_plan_of_ours_is_told_with_what_to_do() -> None:
    """Another text, another form, another content, and one that this version does not know."""
    body = json.loads(written(document()))
    broken = {"nothing": "known"}
    texts = {
        "": ("not a rollout plan file", "./goldsmith roll.plan FLEET --output FILE"),
        json.dumps(body | {"form": "x/1"}): (
            "the plan has format x/1, but this Goldsmith reads goldsmith.rollout-plan/3", "make a new plan"
        ),
        json.dumps(body | {"sealed": broken, "digest": digest_of(broken)}): (
            "a plan that this Goldsmith cannot read", "make a new plan"
        ),
    }  # fmt: skip
    for text, (message, hint) in texts.items():
        with pytest.raises(ContentError) as refused:
            opened(text, "plan.json")
        assert message in refused.value.message
        assert (refused.value.hint, "plan.json" in str(refused.value)) == (hint, True)
    with pytest.raises(RefusedError) as changed:
        opened(json.dumps(body | {"digest": "sha256:0"}), "plan.json")
    assert changed.value.message == "plan.json was changed after the plan was made: its digest does not match"
    assert changed.value.hint == "make a new plan"


def test_a_plan_ends_at_its_very_moment_and_begins_at_its_own() -> None:
    """Three days later it is over, a moment before that it is not."""
    made = document()
    assert compare(made, world(later=timedelta(days=3, microseconds=-1))) == ()
    assert compare(made, world(later=timedelta(days=3))) == ("it was good until 2026-03-04 12:00 UTC",)
    assert compare(made, world()) == ()
    assert compare(made, world(later=timedelta(microseconds=-1))) == (
        "it was made at 2026-03-01 12:00 UTC, which is in the future: is a clock wrong?",
    )


def test_everything_that_has_moved_is_told_at_once() -> None:
    """The file's values as JSON, key by key; members that are gone, new or made again, each in order of their names."""
    made = document()
    members = [
        replace(MEMBERS[3], handle="x"),
        replace(MEMBERS[2], handle="y"),
        *(judged(f"z-{n}").member for n in "ba"),
    ]
    present = replace(world(members, of=fleet(max_parallel=5, canary=2)), groups=GROUPS)
    at = "host/local/docker/"
    assert compare(made, present) == (
        "the fleet's file: limits.canary was 1 and is 2",
        "the fleet's file: limits.max_parallel was 1 and is 5",
        f"{at}web-0 is gone",
        f"{at}web-1 is gone",
        f"{at}z-a is new",
        f"{at}z-b is new",
        f"{at}web-2 was recreated since",
        f"{at}web-3 was recreated since",
        f"{GROUPS[0].id} is new",
        f"{GROUPS[1].id} is new",
    )
    assert differing(lambda: refuse_moved(made, present)) == list(compare(made, present))


def test_a_key_that_is_in_one_file_alone_differs_from_nothing() -> None:
    """As an older version's file lacks it."""
    made = document()
    less = {key: value for key, value in made.fleet.items() if key != "title"}
    assert compare(replace(made, fleet=less), world()) == (
        'the fleet\'s file: title was null and is "The web servers"',
    )


def test_each_change_of_a_group_is_told() -> None:
    """Its size, what it starts from, and whether a service can roll it; of a group that is gone, that alone."""
    name, other = GROUPS[0].id, GROUPS[1].id
    now = replace(GROUPS[0], desired=5, runs="lt-1 version 2", cannot_roll="is mixed")
    assert compare(sealed_groups(), with_groups([now])) == (
        f"{other} is gone",
        f"{name} was to have 4 members and is to have 5",
        f"{name} started from lt-1 version 1 and starts from lt-1 version 2",
        f"{name} is mixed",
    )
    before = replace(sealed_groups(), groups_seen=(now, GROUPS[1]))
    assert compare(before, with_groups())[-1] == f"{name} could not be rolled, and can be now"


def test_a_plan_that_the_fleets_file_does_not_give_is_refused_with_what_differs() -> None:
    """Floor, size, method and whom it replaces; and where those are the same, the waves."""
    made = document()
    again = plan(fleet(), KNOWN, target(), NOW)
    refuse_replanned(made, again, world())
    more = replace(again, floor=again.floor - 1, desired=9, method=Method.IN_PLACE, waves=again.waves[1:])
    assert differing(lambda: refuse_replanned(made, more, world())) == [
        "floor is 4 in the plan, and 3 by the fleet's file",
        "desired is 4 in the plan, and 9 by the fleet's file",
        "method is surge in the plan, and in_place by the fleet's file",
        f"{again.steps[0].member.id} is to be replaced by the plan, and not by the fleet's file",
    ]
    less = replace(made, plan=replace(again, waves=again.waves[:-1]))
    assert differing(lambda: refuse_replanned(less, again, world())) == [
        f"{again.steps[-1].member.id} is to be replaced by the fleet's file, and not by the plan"
    ]


@pytest.mark.parametrize("change", [{"parallel": 2}, {"canary": False}, {"bake": timedelta()}])
def test_a_wave_of_another_shape_is_another_plan(change: dict[str, Any]) -> None:
    """How wide it is, whether it is the canary's, and how long it bakes."""
    again = plan(fleet(), KNOWN, target(), NOW)
    other = replace(again, waves=(replace(again.waves[0], **change), *again.waves[1:]))
    expected = ["the waves of the plan are not those that the fleet's file gives"]
    assert differing(lambda: refuse_replanned(document(), other, world())) == expected
    turned = replace(again, waves=again.waves[::-1])
    assert differing(lambda: refuse_replanned(document(), turned, world())) == expected


def test_groups_are_told_by_their_ids_in_order() -> None:
    """Those that violate nothing any more first."""
    steps = [GroupStep(one, STEP.pacing) for one in GROUPS[::-1]]
    made = replace(sealed_groups(), plan=replace(sealed_groups().plan, groups=tuple(steps)))
    idle = [f"{one.id} is to be rolled by the plan, and violates nothing" for one in GROUPS]
    assert differing(lambda: refuse_repaced(made, (), fleet())) == idle
    hasty = [replace(one, pacing=replace(one.pacing, min_healthy_percent=0)) for one in steps]
    assert differing(lambda: refuse_repaced(made, hasty, fleet())) == [
        f"{one.id} is to be rolled at another pace by the plan than by the fleet's file" for one in GROUPS
    ]


def test_members_are_ordered_by_the_health_that_they_had() -> None:
    """Not by the present one."""
    made = replace(document(), ill=(MEMBERS[1].id,))
    then = made.as_then([replace(member, healthy=False) for member in MEMBERS])
    assert [one.healthy for one in then] == [True, False, True, True]


def test_ten_members_are_told_by_name_and_an_eleventh_is_counted() -> None:
    """Ten are no more than that."""
    for count, last in ((10, "host/local/docker/x-09 is new"), (11, "and 1 more: is new")):
        more = [judged(f"x-{number:02}").member for number in range(count)]
        assert compare(document(), world([*MEMBERS, *more]))[-1] == last
