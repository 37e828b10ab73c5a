"""How long fixes took is arithmetic over the history alone: whatever order it comes in, and whatever clocks did."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from images.ledger import ClosedFix, MemberRun
from pipelines.patch_times import (
    Patch,
    PatchHistory,
    Pointed,
    Spread,
    Waits,
    measured,
    patches,
    recent,
    unknown_members,
)

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
OLD, FIXED, LATER, OTHER = "sha256:old", "sha256:fixed", "sha256:later", "sha256:other"
FIX = ClosedFix(
    "CVE-1", "openssl", "web", FIXED, "3.6", "high", exploited=False, epss=None, policy="default",
    upstream_at=NOW - 9 * DAY, seen_at=NOW - 8 * DAY, built_at=NOW - 7 * DAY, published_at=NOW - 6 * DAY,
)  # fmt: skip
PUBLISHED = {
    OLD: ("web", NOW - 30 * DAY), FIXED: ("web", NOW - 6 * DAY), LATER: ("web", NOW - 2 * DAY),
    OTHER: ("api", NOW - 5 * DAY),
}  # fmt: skip


def runs(member: str, *contents: tuple[str, timedelta], gone: timedelta | None = None) -> list[MemberRun]:
    """What a member ran, each content since how long ago."""
    found = [MemberRun("shop", member, content, False, "check", NOW - ago) for content, ago in contents]
    return [*found, *([MemberRun("shop", member, "", True, "check", NOW - gone)] if gone is not None else [])]


def history(*lines: MemberRun, stable: tuple[tuple[str, timedelta], ...] = (), **more: object) -> PatchHistory:
    """One fix, closed by one release of `web`."""
    pointed = {"web": [Pointed(content, NOW - ago) for content, ago in stable]}
    return replace(PatchHistory((FIX,), {}, PUBLISHED, pointed, lines), **more)


def of(kind: str, told: PatchHistory, now: datetime = NOW) -> Patch:
    """What is said of the one fix in the image, or in the fleet."""
    [found] = [one for one in patches(told, now) if one.kind == kind]
    return found


def test_the_clock_runs_from_the_packages_own_date_to_the_last_member() -> None:
    """Each stage counts from there; the fleet is done when its last member is."""
    told = history(
        *runs("a", (OLD, 20 * DAY), (FIXED, 3 * DAY)), *runs("b", (OLD, 20 * DAY), (FIXED, 1 * DAY)),
        stable=((OLD, 20 * DAY), (FIXED, 5 * DAY)),
    )  # fmt: skip
    image, fleet = of("image", told), of("fleet", told)
    assert (image.by_package, image.started_at) == (True, NOW - 9 * DAY)
    assert [image.after(at) for at in (image.published_at, image.promoted_at)] == [3 * DAY, 4 * DAY]
    assert (image.open, fleet.open, fleet.members, fleet.left) == (False, False, 2, ())
    assert fleet.after(fleet.closed_at) == 8 * DAY


def test_without_the_packages_date_or_with_one_after_our_sight_that_is_where_it_starts() -> None:
    """A date that clocks or builders got wrong never makes a span shorter than what we saw."""
    for upstream in (None, NOW - 7 * DAY, NOW + DAY):
        fix = replace(FIX, upstream_at=upstream)
        found = of("image", history(fixes=(fix,)))
        assert (found.by_package, found.started_at) == (False, FIX.seen_at)


def test_what_is_open_says_what_it_waits_for_and_has_its_age() -> None:
    """Publication, promotion, the rollout: in that order; a later content of the image has the fix too."""
    old, stable = runs("a", (OLD, 20 * DAY)), ((OLD, 20 * DAY), (LATER, 1 * DAY))
    unreleased = replace(FIX, content="", upstream_at=None)
    found = {unreleased: (OLD,)}
    assert of("image", history(fixes=(), found=found)).waits is Waits.PUBLICATION
    assert of("fleet", history(*old, fixes=(), found=found)).waits is Waits.PUBLICATION
    waits = of("fleet", history(*old, stable=stable[:1]))
    assert (waits.waits, waits.left, waits.age(NOW)) == (Waits.PROMOTION, ("a",), 9 * DAY)
    assert of("fleet", history(*old, stable=stable)).waits is Waits.ROLLOUT
    assert of("image", history(*old, stable=stable)).promoted_at == NOW - DAY


def test_what_was_last_scanned_before_a_fix_was_known_does_not_have_it() -> None:
    """Nobody has asked of the old content: what came out before one that lacks the fix lacks it too."""
    found = {replace(FIX, content="", upstream_at=None): (FIXED,)}
    for content, lacks in ((OLD, ("a",)), (FIXED, ("a",))):
        patch = of("fleet", history(*runs("a", (content, 20 * DAY)), fixes=(), found=found))
        assert (patch.waits, patch.left) == (Waits.PUBLICATION, lacks)
    told = history(*runs("a", (LATER, 20 * DAY)), fixes=(), found=found)
    assert [one.kind for one in patches(told, NOW)] == ["image"], "a later one was looked at, and does not lack it"


def test_what_was_rolled_back_is_open_again() -> None:
    """A member, and a channel; with its whole age, not only from then on."""
    there_and_back = ((OLD, 20 * DAY), (FIXED, 3 * DAY), (OLD, 2 * DAY))
    told = history(*runs("a", *there_and_back), stable=there_and_back)
    assert (of("fleet", told).waits, of("fleet", told).age(NOW)) == (Waits.PROMOTION, 9 * DAY)
    assert (of("image", told).waits, of("image", told).promoted_at) == (Waits.PROMOTION, None)
    again = history(*runs("a", *there_and_back, (LATER, DAY)), stable=there_and_back)
    assert (of("fleet", again).open, of("fleet", again).closed_at) == (False, NOW - DAY)


def test_a_member_whose_image_nobody_knows_is_unknown_and_never_patched() -> None:
    """It keeps the fix open where it lacked it before; one that was never known is only named; one that is gone lacks
    nothing any more, and another image of ours is judged by its own fixes.
    """
    lost, never = runs("lost", (OLD, 20 * DAY), ("", DAY)), runs("never", ("", 20 * DAY))
    told = history(*lost, *never, stable=((FIXED, 5 * DAY),))
    found = of("fleet", told)
    assert (found.waits, found.left, found.closed_at) == (Waits.UNKNOWN, ("lost",), None)
    assert unknown_members(told) == {"shop": ("lost", "never")}
    found_again = of("fleet", history(*runs("a", (OLD, 20 * DAY), ("", 3 * DAY), (FIXED, DAY))))
    assert (found_again.open, found_again.closed_at) == (False, NOW - DAY)
    gone = of("fleet", history(*runs("a", (OLD, 20 * DAY), gone=DAY)))
    moved = of("fleet", history(*runs("a", (OLD, 20 * DAY), (OTHER, DAY))))
    assert (gone.open, gone.closed_at, moved.open) == (False, NOW - DAY, False)


def test_what_ended_before_the_fix_was_out_lacked_nothing() -> None:
    """Nor does a member that began with the fix."""
    told = history(*runs("a", (OLD, 20 * DAY), gone=15 * DAY), *runs("b", (FIXED, DAY)))
    assert [one.kind for one in patches(told, NOW)] == ["image"]


def test_what_a_registry_tells_without_its_moment_is_closed_and_has_no_span() -> None:
    """After `image.rebuild`: that `stable` points there is known, since when is not."""
    told = history(stable=(), )  # fmt: skip
    told = replace(told, stable={"web": [Pointed(FIXED, NOW, exact=False)]})
    found = of("image", told)
    assert (found.open, found.promoted_at, found.in_time(NOW)) == (False, None, None)


def test_in_time_is_by_the_day_that_it_was_due() -> None:
    """What is open counts as late once that day has come, and before it not at all."""
    closed = replace(of("image", history(stable=((FIXED, 5 * DAY),))), due=NOW - 5 * DAY)
    assert (closed.in_time(NOW), replace(closed, due=NOW - 6 * DAY).in_time(NOW)) == (True, False)
    waits = replace(of("image", history()), due=NOW)
    assert (waits.in_time(NOW), waits.in_time(NOW + HOUR), replace(waits, due=None).in_time(NOW)) == (None, False, None)


def test_the_distribution_is_of_spans_that_really_were() -> None:
    """Nearest rank: the ninth of ten is nine of ten."""
    spread = Spread.of([*(timedelta(days=day) for day in range(10, 0, -1)), None])
    assert spread == Spread(5 * DAY, 9 * DAY, 10 * DAY)
    assert Spread.of([None]) is None
    lines = measured(patches(history(*runs("a", (OLD, 20 * DAY))), NOW), NOW)
    assert [(one.kind, one.name, one.fixes, one.open, one.oldest) for one in lines] == [
        ("image", "web", 1, 1, 9 * DAY), ("fleet", "shop", 1, 1, 9 * DAY),
    ]  # fmt: skip


def test_what_was_closed_before_the_beginning_is_left_out_and_what_is_open_never_is() -> None:
    """`--since`."""
    closed, waits = history(stable=((FIXED, 5 * DAY),)), history()
    assert recent(patches(closed, NOW), NOW - 4 * DAY) == []
    assert len(recent(patches(closed, NOW), NOW - 5 * DAY)) == 1
    assert len(recent(patches(waits, NOW), NOW - HOUR)) == 1


AGO = st.integers(0, 40 * 24).map(lambda hours: hours * HOUR)
LIVES = st.dictionaries(
    st.sampled_from("abc"),
    st.lists(st.tuples(st.sampled_from([OLD, FIXED, LATER, OTHER, ""]), AGO), max_size=5, unique_by=lambda one: one[1]),
)
MOVES = st.lists(st.tuples(st.sampled_from([OLD, FIXED, LATER]), AGO), max_size=4, unique_by=lambda one: one[1])
SHUFFLES = st.randoms(use_true_random=False)


@st.composite
def histories(draw: st.DrawFn) -> PatchHistory:
    """Whatever members and channels did within forty days; and a package whose date may be anything."""
    lines = [line for name, life in draw(LIVES).items() for line in runs(name, *life)]
    upstream = draw(st.none() | AGO.map(lambda ago: NOW - ago + 5 * DAY))
    return history(*lines, stable=tuple(draw(MOVES)), fixes=(replace(FIX, upstream_at=upstream),))


@given(histories(), SHUFFLES)
def test_the_order_in_which_the_history_comes_does_not_matter(told: PatchHistory, dice: object) -> None:
    """Only its moments do."""
    lines, stable = list(told.runs), list(told.stable["web"])
    dice.shuffle(lines)  # type: ignore[attr-defined]
    dice.shuffle(stable)  # type: ignore[attr-defined]
    other = replace(told, runs=lines, stable={"web": stable})
    assert set(patches(other, NOW)) == set(patches(told, NOW))


@given(histories(), AGO)
def test_a_later_look_leaves_what_is_closed_and_ages_what_is_open(told: PatchHistory, later: timedelta) -> None:
    """No span is negative; none that is closed gets longer, and what is open grows with the clock."""
    for before, after in zip(patches(told, NOW), patches(told, NOW + later), strict=True):
        assert before.age(NOW) >= timedelta()
        assert (before.kind, before.waits, before.closed_at) == (after.kind, after.waits, after.closed_at)
        grown = after.age(NOW + later) - before.age(NOW)
        assert grown == (later if before.open else timedelta())


@given(histories())
def test_a_member_that_goes_back_to_what_lacks_it_is_open_whatever_was_before(told: PatchHistory) -> None:
    """And one that then leaves it closes nothing for the others."""
    back = replace(told, runs=[*told.runs, *runs("a", (OLD, -HOUR))])
    found = of("fleet", back, NOW + 2 * HOUR)
    assert found.open
    assert "a" in found.left
