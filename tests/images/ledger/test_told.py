"""What was told to whom comes back as it was written, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from images.ledger import AuditLine, Deployment, Ledger, ToldPoint
from images.ledger.database import BATCH

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
TOLD = ToldPoint("web ann@example.com", "s", "shop", "expired", "web-1", "it has expired", NOW, NOW, NOW, ("shop-1",))
LINE = AuditLine(NOW, "ann@here", "digest", TOLD.target, "1 new")


@pytest.fixture
def ledger(database: str) -> Iterator[Ledger]:
    """A new ledger, on SQLite and on PostgreSQL."""
    ledger = Ledger.open(database)
    yield ledger
    ledger.close()


def test_each_target_was_told_its_own_and_what_is_over_is_forgotten(ledger: Ledger) -> None:
    """The last word on a point stands; the audit has a line where something was delivered."""
    other = replace(TOLD, target="all webhook", due=None, acts=())
    ledger.record_told(TOLD.target, [TOLD], (), LINE)
    ledger.record_told(other.target, [other], (), None)
    later = replace(TOLD, told_at=NOW + timedelta(days=7))
    ledger.record_told(TOLD.target, [later], (), LINE)
    assert ledger.told_points(TOLD.target) == {"s": later}
    assert ledger.told_points(other.target) == {"s": other}
    ledger.record_told(TOLD.target, (), ["s"], None)
    assert (ledger.told_points(TOLD.target), ledger.told_points(other.target)) == ({}, {"s": other})
    assert len(ledger.audit_lines(subject=TOLD.target)) == 2


def test_more_points_than_one_statement_names(ledger: Ledger) -> None:
    """A large fleet that falls out of policy at once, and comes back."""
    many = [replace(TOLD, subject=f"s-{number:05}") for number in range(2 * BATCH + 1)]
    for _ in range(2):
        ledger.record_told(TOLD.target, many, (), None)
    assert len(ledger.told_points(TOLD.target)) == len(many)
    ledger.record_told(TOLD.target, (), [one.subject for one in many], None)
    assert ledger.told_points(TOLD.target) == {}


def test_a_rollouts_record_is_of_one_repository(ledger: Ledger) -> None:
    """With an id as large as GitHub's; another repository has none yet."""
    one = Deployment("r1", "shop", "example/shop", 1 << 40, "", NOW)
    for state in ("", "in_progress"):
        ledger.record_deployment(replace(one, state=state))
    assert ledger.deployments("shop", "example/shop") == {"r1": replace(one, state="in_progress")}
    assert ledger.deployments("shop", "example/other") == ledger.deployments("bank", "example/shop") == {}
