"""The cooldown: what others publish is taken once it was seen for long enough, and a fix of a grave hole at once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.foundation.errors import UsageError
from images.plan.cooldown import LEAP, SKEW, Offer, Sight, Sights, choose, look, until, waiting
from images.plan.locking import require_reason
from tests.support.catalogs import NOW

DAY, HOUR, COOLDOWN = timedelta(days=1), timedelta(hours=1), timedelta(days=3)
ONE, TWO, THREE = (f"sha256:{digit * 64}" for digit in "123")
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


def test_a_date_that_is_signed_counts_and_one_ahead_does_not() -> None:
    """What a source's signed index held days ago was there then."""
    old, young = (Offer("s", "a", "1", "h", NOW - age) for age in (4 * DAY, -DAY))
    sights = look(look(Sights(), [], NOW - DAY), [old.key], NOW)
    assert waiting([old], sights, COOLDOWN, NOW) == ()
    (told,) = waiting([young], sights, COOLDOWN, NOW)
    assert str(told) == "a 1 waits out its cooldown until 2026-11-28 12:00 UTC"


def test_who_will_not_wait_says_why() -> None:
    """For the audit."""
    with pytest.raises(UsageError, match="the audit must say why"):
        require_reason(True, " ")
    assert require_reason(True, "the old one does not start") == "the old one does not start"
    assert require_reason(False, "whatever") == ""
