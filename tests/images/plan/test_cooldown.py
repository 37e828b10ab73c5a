"""The cooldown: what others publish is taken once it was seen for long enough, and a fix of a grave hole at once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.foundation.errors import UsageError
from images.plan.cooldown import LEAP, SKEW, Offer, Sight, Sights, choose, look, look_at_index, until, waiting
from images.plan.locking import require_reason
from tests.support.catalogs import NOW

DAY, HOUR, COOLDOWN = timedelta(days=1), timedelta(hours=1), timedelta(days=3)
ONE, TWO, THREE, FOUR = (f"sha256:{digit * 64}" for digit in "1234")
CVE = "CVE-2026-0001"


def seen(*looks: tuple[timedelta, str], known: Sights | None = None) -> Sights:
    """What is known after looks at a tag; what the first one finds is pinned."""
    found = known or Sights()
    for after, digest in looks:
        found = look(found, [digest], NOW + after, settled=[looks[0][1]])
    return found


def test_what_a_tag_names_waits_from_the_day_it_was_first_seen() -> None:
    """And not from any other day; what is pinned does not wait."""
    known = seen((0 * DAY, ONE), (5 * DAY, TWO), (6 * DAY, TWO))
    assert until(known.of(ONE), COOLDOWN, NOW) is None
    assert until(known.of(TWO), COOLDOWN, NOW + 6 * DAY) == NOW + 8 * DAY
    assert until(known.of(TWO), COOLDOWN, NOW + 8 * DAY) is None
    assert until(known.of(TWO), timedelta(0), NOW + 6 * DAY) is None, "0 turns it off"
    assert until(None, COOLDOWN, NOW) == NOW + COOLDOWN, "what nobody has seen waits"


def test_the_newest_that_is_old_enough_is_taken() -> None:
    """An older one that the tag named for long, where the newest still waits; never what was withdrawn within hours."""
    stood = seen((0 * DAY, ONE), (1 * DAY, TWO), (3 * DAY, TWO), (4 * DAY, THREE))
    found = choose(stood, ONE, THREE, COOLDOWN, NOW + 5 * DAY)
    assert (found.digest, found.newest, found.until) == (TWO, THREE, NOW + 7 * DAY)
    withdrawn = seen((0 * DAY, ONE), (1 * DAY, TWO), (1 * DAY + 2 * HOUR, THREE), (2 * DAY, THREE))
    assert choose(withdrawn, ONE, THREE, COOLDOWN, NOW + 4 * DAY).digest == ""
    assert choose(withdrawn, ONE, THREE, COOLDOWN, NOW + 5 * DAY).digest == THREE
    assert choose(stood, TWO, THREE, COOLDOWN, NOW + 5 * DAY).digest == "", "it never goes back"


def test_a_digest_that_returns_waits_again() -> None:
    """Named for minutes and withdrawn, it is no older for the days in between; nor is one that was pinned before."""
    back = seen((0 * DAY, ONE), (1 * DAY, TWO), (1 * DAY, ONE), (4 * DAY, ONE), (5 * DAY, TWO))
    found = choose(back, ONE, TWO, COOLDOWN, NOW + 5 * DAY)
    assert (found.digest, found.until) == ("", NOW + 8 * DAY)
    set_back = seen((0 * DAY, ONE), (1 * DAY, TWO), (4 * DAY, TWO), (5 * DAY, ONE))
    assert choose(set_back, TWO, ONE, COOLDOWN, NOW + 5 * DAY).digest == ""
    assert choose(set_back, TWO, ONE, COOLDOWN, NOW + 8 * DAY).digest == ONE


def test_a_lock_that_was_moved_elsewhere_never_goes_back() -> None:
    """Pinned by a commit, it was never seen to wait; what the tag named for long before it is older all the same."""
    known = seen((0 * DAY, TWO), (1 * DAY, ONE), (3 * DAY, ONE))
    pinned = look(known, [THREE], NOW + 4 * DAY, settled=[THREE])
    moved = look(pinned, [FOUR], NOW + 5 * DAY)
    assert choose(moved, THREE, FOUR, COOLDOWN, NOW + 6 * DAY).digest == ""


def test_beside_a_pin_of_which_nothing_is_known_no_older_one_is_taken() -> None:
    """It may be newer than all that the tag named here; what began before the pin is older."""
    known = seen((0 * DAY, ONE), (1 * DAY, TWO), (5 * DAY, TWO), (6 * DAY, THREE))
    assert choose(known, ONE, THREE, COOLDOWN, NOW + 6 * DAY).digest == TWO
    assert choose(known, FOUR, THREE, COOLDOWN, NOW + 6 * DAY).digest == ""
    now = NOW + 9 * DAY
    began_before = Sights(
        (Sight(TWO, NOW, now - DAY), Sight(ONE, NOW + DAY, now - 5 * DAY), Sight(THREE, now, now)), now
    )
    assert choose(began_before, ONE, THREE, COOLDOWN, now).digest == ""


def test_a_tag_that_moves_too_often_says_so() -> None:
    """By itself its lock would never move; one that was withdrawn once is no such tag."""
    daily = [(day * DAY, f"sha256:{day:064}") for day in range(9)]
    told = [
        choose(seen(*daily[: day + 1]), daily[0][1], daily[day][1], COOLDOWN, NOW + day * DAY) for day in range(1, 9)
    ]
    assert [(one.digest, one.restless) for one in told] == [("", False)] * 6 + [("", True)] * 2
    assert "so often" in told[-1].because
    elsewhere = choose(seen(*daily[1:]), daily[0][1], daily[8][1], COOLDOWN, NOW + 10 * DAY)
    assert elsewhere.restless, "also where what is pinned was never seen here"


def test_a_grave_fix_and_a_first_pin_do_not_wait() -> None:
    """Each says why."""
    known = seen((0 * DAY, ONE), (1 * DAY, TWO))
    assert choose(known, ONE, TWO, COOLDOWN, NOW + DAY).digest == ""
    urgent = choose(known, ONE, TWO, COOLDOWN, NOW + DAY, [CVE])
    assert (urgent.digest, urgent.until) == (TWO, None)
    assert CVE in urgent.because
    assert choose(seen((0 * DAY, ONE)), "", ONE, COOLDOWN, NOW).digest == ONE


STEPS = st.lists(st.timedeltas(min_value=-4000 * DAY, max_value=4000 * DAY), max_size=6)


@given(before=STEPS, skew=st.timedeltas(min_value=-SKEW, max_value=timedelta(0)))
def test_a_moved_clock_never_makes_it_wait_for_longer_than_once_more(before: list[timedelta], skew: timedelta) -> None:
    """However it was moved before: once it runs as it should, one cooldown later the wait is over."""
    at, known = NOW, look(Sights(), [ONE], NOW, [ONE])
    for step in before:
        at = min(max(at + step, NOW - 9000 * DAY), NOW + 9000 * DAY)
        known = look(known, [TWO], at)
    known = look(known, [TWO], NOW)
    known = look(known, [TWO], NOW + skew)
    for day in range(1, COOLDOWN.days + 1):
        known = look(known, [TWO], NOW + day * DAY)
    assert until(known.of(TWO), COOLDOWN, NOW + COOLDOWN + SKEW) is None


@given(back=st.timedeltas(min_value=LEAP + SKEW, max_value=20000 * DAY), forth=st.booleans())
def test_a_moved_clock_never_makes_it_wait_for_less(back: timedelta, forth: bool) -> None:
    """A first sight by a clock that had lost its battery is no age, and neither is one leap ahead."""
    wrong, right = (NOW, NOW + back) if forth else (NOW - back, NOW)
    known = look(look(Sights(), [ONE], NOW - back - DAY, [ONE]), [TWO], wrong)
    known = look(known, [TWO], right)
    assert until(known.of(TWO), COOLDOWN, right) == right + COOLDOWN


def test_a_first_sight_that_lies_ahead_begins_again() -> None:
    """The clock was years ahead when it was seen."""
    ahead = Sights((Sight(ONE, None, NOW), Sight(TWO, NOW + 3650 * DAY, NOW + 3650 * DAY)), NOW + 3650 * DAY)
    assert until(look(ahead, [TWO], NOW).of(TWO), COOLDOWN, NOW) == NOW + COOLDOWN


def test_a_signed_date_counts_back_to_the_last_look_and_one_ahead_does_not() -> None:
    """What was not there at the look before is not older, whatever date its signer chose."""
    old, dated, young = (
        Offer("s", name, "1", "h", NOW - age) for name, age in (("a", 9 * DAY), ("b", DAY), ("c", -DAY))
    )
    sights = look_at_index(Sights(), {}, NOW - 2 * DAY)
    sights = look_at_index(sights, {one.key: one.signed for one in (old, dated, young)}, NOW)
    told = {one.name: one.until for one in waiting([old, dated, young], sights, COOLDOWN, NOW)}
    assert told == {"a": NOW + DAY, "b": NOW + 2 * DAY, "c": NOW + 3 * DAY}
    (line,) = waiting([young], sights, COOLDOWN, NOW)
    assert str(line) == "c 1 waits out its cooldown until 2026-11-28 12:00 UTC"


def test_an_index_that_is_older_than_anothers_forgets_nothing() -> None:
    """Two machines that share a ledger would else begin each other's waits again for ever."""
    first, second = NOW - 2 * DAY, NOW - DAY
    known = look_at_index(look_at_index(Sights(), {"1": first}, first), {"1": second, "2": second}, second)
    stale = look_at_index(known, {"1": first}, NOW)
    assert (stale.of("2"), stale.dated) == (known.of("2"), second)
    newer = look_at_index(stale, {"1": NOW}, NOW)
    assert newer.of("2") is None, "it is gone"
    assert look_at_index(newer, {"1": NOW, "2": NOW}, NOW + DAY).of("2") == Sight("2", NOW, NOW + DAY)


def test_who_will_not_wait_says_why() -> None:
    """For the audit."""
    with pytest.raises(UsageError, match="the audit must say why"):
        require_reason(True, " ")
    assert require_reason(True, "the old one does not start") == "the old one does not start"
    assert require_reason(False, "whatever") == ""
