"""Which members violate: an unknown image is never expired, a re-dated content is never superseded."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.foundation.settings import Settings
from hardening.model import Enforcement, Waiver
from hardening.policy import Policy, Rule, RunningRules
from hardening.running import RunningFacts
from images.context import Context
from pipelines.fleet.judged_state import violation
from pipelines.fleet.members import Provenance, newest
from pipelines.fleet.violations import (
    Judged,
    MemberVerdict,
    PolicyState,
    checked,
    facts,
    in_words,
    named,
    verdict_of,
)
from pipelines.rollout.plan import plan
from pipelines.rollout.session import FleetSession
from tests.support.fleets import NOW, fleet, judge, member, reason, release, target

POLICY = Policy(
    name="default", title="t", owner="o", rationale="r", review_by=date(2027, 1, 1), exception_contact="security"
)


def judged(origin: Provenance | None, *, policy: Policy = POLICY, waivers: tuple[Waiver, ...] = ()) -> Judged:
    """One member with this origin, judged."""
    return judge("web", policy, member(), origin or Provenance(), waivers, NOW)


def test_a_current_release_violates_nothing() -> None:
    """The newest content within its dates."""
    assert judged(Provenance(release=release(9), latest=release(9))).reasons == ()


def test_a_member_of_two_fleets_is_out_of_policy_and_replaced_by_neither() -> None:
    """Both would replace it, one against the other."""
    both, origin = member("web-1", claimed_by="shop"), Provenance(release=release(9), latest=release(9))
    one = judge("web", POLICY, both, origin, (), NOW)
    assert (verdict_of(one).rules, one.violations[0].what) == (("claimed",), "the fleet shop selects it too")
    planned = plan(fleet(), [one, judge("web", POLICY, member("web-2"), origin, (), NOW)], target(), NOW)
    assert (planned.steps, [skip.why for skip in planned.skipped]) == ((), ["the fleet shop selects it too"])
    assert [skip.member for skip in planned.neglected] == [both.id], "it is for people to end this"


def test_each_rule_has_its_since_and_deadline() -> None:
    """Expired yesterday, with a day of grace: due now."""
    policy = POLICY.model_copy(update={"running": RunningRules(expired=Rule.model_validate({"grace": "1d"}))})
    ended = NOW - timedelta(days=1)
    found = judged(Provenance(release=release(1, expires_at=ended)), policy=policy)
    assert found.rules == {"expired"}
    assert (found.reasons[0].since, found.deadline) == (ended, NOW)


@pytest.mark.parametrize(
    ("rule", "due"),
    [
        ({"enforcement": "warn"}, None),
        ({"enforcement": "audit"}, None),
        ({"enforcement": "warn", "grace": "7d"}, timedelta(days=7)),
        ({"enforcement": "enforce"}, timedelta(0)),
        ({"enforcement": "enforce", "from": str((NOW + timedelta(days=9)).date())}, timedelta(days=9)),
    ],
)
def test_what_only_warns_is_due_on_the_day_that_the_policy_names_or_on_none(
    rule: dict[str, str], due: timedelta | None
) -> None:
    """By a grace, or by the day from which it is enforced. Else a warning would be overdue as it begins."""
    policy = POLICY.model_copy(update={"running": RunningRules(expired=Rule.model_validate(rule))})
    (found,) = judged(Provenance(release=release(1, expires_at=NOW)), policy=policy).reasons
    until = found.deadline and found.deadline.date() - NOW.date()
    assert (found.since, until) == (NOW, due)


def test_a_violation_as_data_tells_since_when_once() -> None:
    """In a field of its own, beside which pages and digests put the sentence."""
    (found,) = judged(Provenance(release=release(1, expires_at=NOW))).reasons
    told = violation(found, "shop", "web", lambda _: "")
    assert found.what == f"{told.what} (since {NOW:%Y-%m-%d %H:%M} UTC)"
    assert told.since == NOW


@given(age=st.integers(0, 4000))
def test_an_unknown_image_is_unknown_and_nothing_about_dates(age: int) -> None:
    """However old the container is: nobody knows the age of what is inside."""
    one = member(since=NOW - timedelta(days=age))
    found = judge("web", POLICY, one, Provenance(), (), NOW)
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


AHEAD = NOW + timedelta(days=400)


@pytest.mark.parametrize(
    ("origin", "rule"),
    [
        (Provenance(release=release(1, revoked_at=AHEAD), latest=release(1)), "revoked"),
        (Provenance(release=release(1), latest=release(9), latest_since=AHEAD), "superseded"),
        (Provenance(release=release(1), latest=release(9, published_at=AHEAD)), "superseded"),
        (Provenance(release=release(1), latest=release(1), refused_because="x", refused_since=AHEAD), "refused"),
    ],
)
def test_what_holds_now_is_not_put_off_by_a_clock_that_was_ahead(origin: Provenance, rule: str) -> None:
    """It was written down with a day to come, until which the member would count as good."""
    (found,) = judged(origin).reasons
    assert (found.rule, found.since) == (rule, NOW)
    assert judged(Provenance(release=release(1, expires_at=AHEAD), latest=release(1))).reasons == ()


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


def test_what_is_kept_of_a_member_tells_a_golden_image_from_one_on_top_of_it() -> None:
    """Both run the same golden content; only the latter has packages that the ledger does not know."""
    origins = (Provenance(release=release()), Provenance(base=release()), Provenance())
    assert [checked(judged(origin)).on_base for origin in origins] == [False, True, False]


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


def test_members_are_told_in_order_of_their_ids_with_their_own_origins(tmp_path: Path) -> None:
    """Whatever order a region lists them in; one without an origin is unknown."""
    members = [member(f"web-{number}") for number in (3, 1, 2)]
    origins = {members[1].id: Provenance(release=release(1))}

    def look(*_: object) -> Any:
        return SimpleNamespace(of=lambda one: origins.get(one.id, Provenance()))

    context = Context(Settings(state=tmp_path), NOW, str, str)
    at = FleetSession(fleet(), context, None, lambda: NOW, "", look, None)  # type: ignore[arg-type]
    found = at.judge(members)
    assert [one.member for one in found] == [members[1], members[2], members[0]]
    assert [one.origin for one in found] == [origins[members[1].id], Provenance(), Provenance()]
    assert {reason.subject for reason in found[1].reasons} == {"web/web-2"}


def test_an_image_of_the_own_registry_is_from_an_approved_source() -> None:
    """The configured registry counts, and without one none does."""
    policy = POLICY.model_copy(update={"running": RunningRules.model_validate({"approved_source": {}})})

    def broken(own_registry: str) -> bool:
        found = judge("web", policy, member(), Provenance(release=release(9)), (), NOW, own_registry)
        return "approved_source" in found.rules

    assert broken("other.example")
    assert broken("")
    assert not broken("r.example")


@pytest.mark.parametrize(
    ("image", "approved"),
    [
        ("nginx:1.27", True),
        ("docker.io/library/nginx:1.27", True),
        ("nginx", True),
        ("team/nginx:1.27", False),
        ("nginx-evil:1.27", False),
        ("registry.example.com/library/nginx:1.27", False),
        (64 * "a", False),
        ("sha256:" + 64 * "a", False),
    ],
)
def test_an_image_of_docker_hub_is_approved_however_it_was_typed(image: str, approved: bool) -> None:
    """By the address that Docker reads into it; an id, whose registry is not known, is of none."""
    rule = {"approved_source": {"prefixes": ["docker.io/library/nginx", f"docker.io/library/{64 * 'a'}"]}}
    policy = POLICY.model_copy(update={"running": RunningRules.model_validate(rule)})
    found = judge("web", policy, member(image=image), Provenance(), (), NOW)
    assert ("approved_source" not in found.rules) == approved


def test_all_that_is_known_of_a_member_is_judged() -> None:
    """Its own release's dates, what its channel left it for, and what the policy would refuse."""
    old = release(1, revoked_at=NOW, revoked_reason="leaks a key")
    origin = Provenance(release=old, latest=release(9), refused_because="CVE-1", refused_since=NOW - timedelta(days=2))
    one = member(since=NOW - timedelta(days=5))
    assert facts(one, origin, "r.example") == RunningFacts(
        known=True,
        image=named(old),
        source="r.example/nginx:stable",
        own_registry="r.example",
        source_in_full="r.example/nginx:stable",
        published_at=old.published_at,
        expires_at=old.expires_at,
        revoked_at=NOW,
        revoked_reason="leaks a key",
        superseded_since=release(9).published_at,
        superseded_by=named(release(9)),
        refused_since=NOW - timedelta(days=2),
        refused_because="CVE-1",
        golden="nginx",
    )


def test_of_an_unknown_member_its_image_and_its_age_are_known() -> None:
    """And no date."""
    one = member(since=NOW)
    source = "r.example/nginx:stable"
    assert facts(one, Provenance(), "r.example") == RunningFacts(
        False, source, source, "r.example", source_in_full=source
    )
    assert facts(one, Provenance()).own_registry == ""


def test_an_amis_source_is_the_release_that_it_is_known_to_be() -> None:
    """Its id tells nothing; a reference that a person wrote is what was pulled."""
    ami, known = member(image="ami-1"), release(9)
    assert facts(ami, Provenance(release=known)).source == f"{known.repository}@{known.digest}"
    assert facts(ami, Provenance()).source == "ami-1"
    assert facts(ami, Provenance(base=known)).source == "ami-1"
    assert facts(member(), Provenance(release=known)).source == "r.example/nginx:stable"


def test_a_release_is_named_by_its_day_and_the_head_of_its_digest() -> None:
    """Twelve characters of it."""
    assert named(replace(release(9), digest="sha256:0123456789abcdef")) == "nginx of 2026-02-08 (sha256:0123456789ab)"


def test_what_supersedes_nothing_says_nothing() -> None:
    """The same content, an unknown channel, or of a base: nothing newer, and nothing of the same moment."""
    same = release(9, content=release(1).content)
    base, twin = release(9), replace(release(8), published_at=release(9).published_at)
    origins = [
        Provenance(release=release(1)), Provenance(release=release(1), latest=same),
        Provenance(base=base, latest=release(1)), Provenance(base=base, latest=twin),
    ]  # fmt: skip
    for origin in origins:
        found = facts(member(), origin)
        assert (found.superseded_since, found.superseded_by) == (None, "")


def said_of(*rules: str, deadline: datetime | None = None, healthy: bool = True, newer: bool = False) -> MemberVerdict:
    """What is said of a member that violates these rules, by its reasons."""
    minds = [reason(rule, deadline=deadline) for rule in rules]
    more = [reason("superseded", enforcement=Enforcement.AUDIT)] if newer else []
    return verdict_of(Judged(member(healthy=healthy), Provenance(), (*minds, *more)))


def test_the_verdict_on_a_member_is_one_answer_for_every_screen() -> None:
    """Within policy, out of it, or unread, which is neither; its rules sorted, its deadline, whether a newer is out."""
    within, out, unread = said_of(newer=True), said_of("expired", "age", deadline=NOW), said_of("unread", healthy=False)
    assert within == MemberVerdict(PolicyState.WITHIN, superseded=True)
    assert out == MemberVerdict(PolicyState.OUT, ("age", "expired"), NOW)
    assert unread == MemberVerdict(PolicyState.UNREAD, ("unread",), healthy=False)
    assert said_of("superseded") == MemberVerdict(PolicyState.OUT, ("superseded",), superseded=True)
    assert said_of(healthy=False) == MemberVerdict(PolicyState.WITHIN, healthy=False)
    assert [one.ill for one in (within, out, unread, said_of(healthy=False))] == [False, False, False, True]


def test_a_fleet_is_told_in_one_sentence() -> None:
    """How many are out, by which rules, until when the first must be gone, and how many are not healthy."""
    soon, late = NOW + timedelta(days=1), NOW + timedelta(days=9)
    out = [said_of("expired", "age", deadline=late), said_of("age", deadline=soon), said_of("unknown", healthy=False)]
    until = f"{soon:%Y-%m-%d %H:%M} UTC"
    told = f"3 of 5 member(s) age, expired, unknown, to be fixed by {until}, 2 not healthy"
    assert in_words([*out, said_of(), said_of(healthy=False)]) == told
    assert in_words([said_of("unknown")]) == "1 of 1 member(s) unknown"
    assert in_words([said_of(), said_of()]) == "2 member(s) within policy"
    assert in_words([]) == "no member runs"
    ill = [verdict_of(Judged(member(healthy=False, starting=new), Provenance(), ())) for new in (True, False, True)]
    assert in_words(ill) == "3 member(s) within policy, 2 starting, 1 not healthy"
    assert [one.text for one in ill[:2]] == ["within policy, starting", "within policy, not healthy"]


def test_what_the_ledger_keeps_of_a_member() -> None:
    """Its golden image where it has one, else its own image's digest; what it only stands on is said to be that."""
    one, golden = member(), release(3)
    own = checked(Judged(one, Provenance(release=golden), ()))
    assert (own.name, own.image, own.on_base) == (one.name, one.image, False)
    assert (own.golden, own.release, own.runs) == (golden.name, golden.digest, golden.content)
    on_base = checked(Judged(one, Provenance(base=golden), ()))
    assert (on_base.golden, on_base.runs, on_base.on_base) == (golden.name, golden.content, True)
    unknown = reason("unknown")
    stranger = checked(Judged(one, Provenance(), (unknown,)))
    assert (stranger.golden, stranger.release, stranger.runs) == ("", "", one.digests[0] if one.digests else "")
    assert stranger.reasons == (unknown,)
    assert stranger.verdict == verdict_of(Judged(one, Provenance(), (unknown,)))
    assert checked(Judged(replace(one, digests=("sha256:own", "other")), Provenance(), ())).runs == "sha256:own"
    assert checked(Judged(replace(one, digests=()), Provenance(), ())).runs == ""
