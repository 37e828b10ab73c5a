"""How many members a rollout may replace at this moment, of those whose turn it is."""

from __future__ import annotations

from typing import Any

from pipelines.fleet.model import Method
from pipelines.rollout.admission import budgeted
from pipelines.rollout.state import MemberOrder
from tests.support.fleets import NOW, fleet, target

TWO = ("expired", "superseded")


def room(*budgets: dict[str, Any]) -> int:
    """How many of two members, one of each reason, the budgets let be replaced side by side."""
    limits = fleet(budgets=budgets).limits
    orders = [MemberOrder("r1", "r1", rule, rule, target(), Method.SURGE, 0, limits, rule=rule) for rule in TWO]
    return budgeted(limits, 10, orders, NOW).room


def test_a_budget_counts_all_that_it_binds_together() -> None:
    """Two members of two reasons are two, for a budget that has become narrower since the plan was made."""
    assert room({"nodes": 1}) == 1
    assert room({"nodes": 2}) == 2
    assert room({"nodes": 2}, {"nodes": 1, "reasons": ["superseded"]}) == 2
    assert room({"nodes": 1, "reasons": ["expired"]}, {"nodes": 1, "reasons": ["superseded"]}) == 2
    assert room({"nodes": 1, "reasons": ["expired", "superseded"]}) == 1
