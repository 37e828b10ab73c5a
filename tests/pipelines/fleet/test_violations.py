"""Which members violate: an unknown image is never expired, a re-dated content is never superseded."""

from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from hardening.model import Enforcement, Waiver
from hardening.policy import Policy, Rule, RunningRules
from pipelines.fleet.members import Provenance, newest
from pipelines.fleet.violations import Judged, judge
from tests.support.fleets import NOW, member, release

POLICY = Policy(
    name="default", title="t", owner="o", rationale="r", review_by=date(2027, 1, 1), exception_contact="security"
)


def judged(origin: Provenance | None, *, policy: Policy = POLICY, waivers: tuple[Waiver, ...] = ()) -> Judged:
    """One member with this origin, judged."""
    one = member()
    return judge("web", policy, [one], {one.id: origin} if origin else {}, waivers=waivers, now=NOW)[0]


def test_a_current_release_violates_nothing() -> None:
    """The newest content within its dates."""
    assert judged(Provenance(release=release(9), latest=release(9))).reasons == ()


def test_each_rule_has_its_since_and_deadline() -> None:
    """Expired yesterday, with a day of grace: due now."""
    policy = POLICY.model_copy(update={"running": RunningRules(expired=Rule.model_validate({"grace": "1d"}))})
    ended = NOW - timedelta(days=1)
    found = judged(Provenance(release=release(1, expires_at=ended)), policy=policy)
    assert found.rules == {"expired"}
    assert (found.reasons[0].since, found.deadline) == (ended, NOW)


@given(age=st.integers(0, 4000))
def test_an_unknown_image_is_unknown_and_nothing_about_dates(age: int) -> None:
    """However old the container is: nobody knows the age of what is inside."""
    one = member(since=NOW - timedelta(days=age))
    found = judge("web", POLICY, [one], {}, waivers=(), now=NOW)[0]
    assert found.rules == {"unknown"}


@given(expired_days=st.integers(1, 100), fresh_days=st.integers(1, 100))
def test_a_new_date_over_the_same_content_spares_a_roll(expired_days: int, fresh_days: int) -> None:
    """The newest release over a member's content gives its date."""
    old = release(1, content="sha256:same", expires_at=NOW - timedelta(days=expired_days))
    redated = release(9, content="sha256:same", expires_at=NOW + timedelta(days=fresh_days))
    assert judged(Provenance(release=newest([old, redated]), latest=redated)).reasons == ()
    assert judged(Provenance(release=newest([old]), latest=redated)).rules == {"expired"}


def test_a_revocation_holds_for_the_content_whatever_is_dated_over_it() -> None:
    """It is about what is inside."""
    revoked = release(1, content="sha256:same", revoked_at=NOW, revoked_reason="leaks a key")
    found = judged(Provenance(release=newest([revoked, release(9, content="sha256:same")])))
    assert found.rules == {"revoked"}
    assert "leaks a key" in found.reasons[0].what


def test_another_content_in_the_channel_supersedes_from_the_moment_it_moved() -> None:
    """Not from the day it was built."""
    moved = NOW - timedelta(hours=3)
    found = judged(Provenance(release=release(1), latest=release(9), latest_since=moved))
    assert found.rules == {"superseded"}
    assert found.reasons[0].since == moved


def test_a_channel_moved_back_brings_the_fleet_back() -> None:
    """After image.rollback the newer release is what must go."""
    assert judged(Provenance(release=release(9), latest=release(1))).rules == {"superseded"}


def test_an_application_image_is_reported_with_its_base() -> None:
    """It is the base that is superseded, and the owner reads its name."""
    found = judged(Provenance(base=release(1, name="python-runtime"), latest=release(9, name="python-runtime")))
    assert found.rules == {"superseded"}
    assert found.on_base
    assert "its base python-runtime of 2026-01-31" in found.reasons[0].what


def test_a_base_newer_than_the_channel_is_not_superseded() -> None:
    """Whoever builds on a candidate is ahead, not behind."""
    assert judged(Provenance(base=release(9), latest=release(1))).reasons == ()


def test_what_todays_policy_would_refuse_is_a_violation() -> None:
    """What is known about an image grows."""
    found = judged(Provenance(release=release(9), refused_because="CVE-1 in openssl", refused_since=NOW))
    assert found.rules == {"refused"}


def test_a_waived_reason_is_shown_and_does_not_violate() -> None:
    """The exception is written, and ends."""
    waiver = Waiver.model_validate(
        {
            "id": "w1",
            "rules": ["expired"],
            "subjects": ["web/*"],
            "reason": "r",
            "owner": "a",
            "approver": "b",
            "created": date(2026, 2, 20),
            "expires": date(2026, 3, 20),
        }
    )
    found = judged(Provenance(release=release(1, expires_at=NOW - timedelta(days=1))), waivers=(waiver,))
    assert found.violations == ()
    assert "w1" in found.reasons[0].waived_by
    assert found.reasons[0].enforcement is Enforcement.ENFORCE


def test_the_earliest_deadline_is_the_members() -> None:
    """Who must act first is told first."""
    found = judged(Provenance(release=release(1, expires_at=NOW - timedelta(days=3)), latest=release(9)))
    assert found.deadline == min(reason.deadline for reason in found.violations if reason.deadline)
