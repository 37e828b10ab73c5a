"""What closed when, and who runs what since when: lines that are added once, in an order that no clock turns round."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from images.ledger import ClosedFix, Ledger, MemberRun

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
FIX = ClosedFix(
    "CVE-1", "openssl", "web", "sha256:c2", "3.6", "high", exploited=True, epss=0.25, policy="default",
    upstream_at=None, seen_at=NOW - HOUR, built_at=NOW, published_at=NOW,
)  # fmt: skip


@pytest.fixture
def ledger(database: str) -> Iterator[Ledger]:
    """A new ledger, on SQLite and on PostgreSQL."""
    ledger = Ledger.open(database)
    yield ledger
    ledger.close()


def run(member: str, content: str, at: datetime = NOW, told_by: str = "r1") -> MemberRun:
    return MemberRun("shop", member, content, gone=False, told_by=told_by, at=at)


def test_what_is_known_of_a_fix_stands(ledger: Ledger) -> None:
    """A step that is repeated writes nothing new, also from many sides at once."""
    later = replace(FIX, published_at=NOW + HOUR, upstream_at=NOW)
    other = replace(FIX, package="libssl3t64", epss=None)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ledger.record_fixes, [(FIX,)] * 4))
    ledger.record_fixes((later, other))
    ledger.record_fixes(())
    assert ledger.closed_fixes() == (other, FIX)


def test_a_line_is_added_when_what_runs_has_changed(ledger: Ledger) -> None:
    """By the rollout that does it; a check that then sees the same adds nothing; what has left is gone, once."""
    ledger.record_whole_fleet("shop", {"a": "c1", "b": "c1"}, NOW, "check")
    ledger.record_run(run("a", "c2", NOW + HOUR))
    ledger.record_run(run("a", "c2", NOW + 2 * HOUR))
    for hours in (3, 4):
        ledger.record_whole_fleet("shop", {"a": "c2"}, NOW + hours * HOUR, "check")
    ledger.record_whole_fleet("other", {"a": "c9"}, NOW, "check")
    assert [(one.member, one.content, one.gone, one.told_by, one.at) for one in ledger.member_runs("shop")] == [
        ("a", "c1", False, "check", NOW), ("b", "c1", False, "check", NOW), ("a", "c2", False, "r1", NOW + HOUR),
        ("b", "", True, "check", NOW + 3 * HOUR),
    ]  # fmt: skip
    assert ledger.last_content("shop", "a", but="c2") == "c1"
    assert ledger.last_content("shop", "b") == "c1"
    assert ledger.last_content("shop", "nobody") == ""


def test_what_a_member_ran_before_may_be_unknown(ledger: Ledger) -> None:
    """It is not what it ran earlier still."""
    for content in ("c1", "", "c2"):
        ledger.record_run(run("a", content))
    assert (ledger.last_content("shop", "a", but="c2"), ledger.last_content("shop", "a", but="")) == ("", "c2")


def test_who_is_gone_for_more_than_a_year_is_forgotten(ledger: Ledger) -> None:
    """In a fleet whose members come and go every day the lines would never end."""
    ledger.record_whole_fleet("shop", {"a": "c1", "b": "c1"}, NOW, "check")
    ledger.record_whole_fleet("shop", {"b": "c1"}, NOW + HOUR, "check")
    for days, kept in ((360, {"a", "b"}), (370, {"b"})):
        ledger.record_whole_fleet("shop", {"b": "c1"}, NOW + timedelta(days=days), "check")
        assert {one.member for one in ledger.member_runs("shop")} == kept


def test_a_clock_that_is_put_back_does_not_turn_the_order_round(ledger: Ledger) -> None:
    """What is told later is later, if only by a moment."""
    ledger.record_run(run("a", "c1", NOW))
    ledger.record_run(run("a", "c2", NOW - 9 * HOUR))
    ledger.record_run(run("a", "c1", NOW - 8 * HOUR))
    times = [one.at for one in ledger.member_runs("shop", "a")]
    assert times == sorted(set(times))
    assert times[-1] - NOW < timedelta(seconds=1)
