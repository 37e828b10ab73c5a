"""The judged state as CSV, SARIF and Prometheus metrics. Pure: the state is an argument.

SARIF is 2.1.0 (https://docs.oasis-open.org/sarif/sarif/v2.1.0/): a rule of the policy is its rule, and what a member
violates a result, whose place is a logical location, since no file is wrong.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from hashlib import sha256
from typing import Any

from hardening.foundation.text import one_line, visible
from hardening.model import Enforcement
from pipelines.fleet.judged_state import JudgedFleet, JudgedMember, JudgedState, ViolationLine
from pipelines.fleet.violations import PolicyState

COLUMNS = (
    "fleet", "owner", "member", "state", "healthy", "image", "golden", "release", "rule", "enforcement", "stands",
    "what", "evidence", "since", "deadline", "side", "acts", "todo", "waived_by",
)  # fmt: skip
LEVELS = {Enforcement.ENFORCE: "error", Enforcement.WARN: "warning", Enforcement.AUDIT: "note"}
SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _violations(state: JudgedState) -> Iterator[tuple[JudgedFleet, JudgedMember, ViolationLine | None]]:
    """Every violation of every member; a member without any once with None."""
    for fleet in state.fleets:
        for member in fleet.members:
            for one in member.violations or (None,):
                yield fleet, member, one


def as_csv(state: JudgedState) -> str:
    """A line for each violation of each member, those of who has none with an empty rule. RFC 4180, times in UTC.

    What a spreadsheet would take for a formula begins with an apostrophe: strangers write names.
    """
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(COLUMNS)
    for fleet, member, one in _violations(state):
        told = (
            (one.rule, one.enforcement, one.stands, one.what, "; ".join(one.evidence), _iso(one.since),
             _iso(one.deadline), one.side, one.acts, one.todo, one.waived_by)
            if one else ("",) * 11
        )  # fmt: skip
        member_cells = (member.name, member.state, member.healthy, member.image, member.golden, member.release)
        lines.writerow(_cell(value) for value in (fleet.name, fleet.owner, *member_cells, *told))
    return text.getvalue()


def _iso(at: Any) -> str:
    return at.isoformat() if at else ""


def _cell(value: object) -> str:
    text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else one_line(str(value))
    return f"'{text}" if text.startswith(FORMULA) else text


def as_sarif(state: JudgedState) -> str:
    """All that members violate as SARIF. Waived ones are suppressed there; a result keeps its fingerprint."""
    found = [(member, one) for _, member, one in _violations(state) if one]
    rules = {one.rule: one for _, one in found}
    numbers = {rule: number for number, rule in enumerate(sorted(rules))}
    driver = {
        "name": "Goldsmith",
        "rules": [
            {"id": rule, "shortDescription": {"text": rule}, "fullDescription": {"text": visible(rules[rule].why)}}
            for rule in numbers
        ],
    }
    results = [_result(member, one, numbers[one.rule]) for member, one in found]
    run = {"tool": {"driver": driver}, "results": results}
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1)


def _result(member: JudgedMember, one: ViolationLine, number: int) -> dict[str, Any]:
    name = f"{member.fleet}/{member.name}"
    evidence = f" ({'; '.join(one.evidence)})" if one.evidence else ""
    result: dict[str, Any] = {
        "ruleId": one.rule, "ruleIndex": number, "level": LEVELS[one.enforcement],
        "message": {"text": visible(f"{name}: {one.what}{evidence}. To do: {one.todo}")},
        "locations": [{"logicalLocations": [{"fullyQualifiedName": visible(name), "kind": "resource"}]}],
        "partialFingerprints": {"member/v1": sha256(f"{name}\n{one.rule}\n{one.what}".encode()).hexdigest()},
        "properties": {
            "since": _iso(one.since), "deadline": _iso(one.deadline), "acts": one.acts, "side": one.side,
            "image": visible(member.image),
        },
    }  # fmt: skip
    if one.waived_by:
        result["suppressions"] = [{"kind": "external", "justification": visible(one.waived_by)}]
    return result


def _deadlines(fleet: JudgedFleet) -> tuple[dict[str, datetime], dict[str, datetime]]:
    """The first deadline of each member, by its id: by rules that are enforced, and by those that only warn."""
    found: tuple[dict[str, datetime], dict[str, datetime]] = {}, {}
    for member in fleet.members:
        for one in member.standing:
            ends = found[one.enforcement is not Enforcement.ENFORCE]
            if one.deadline:
                ends[member.id] = min(one.deadline, ends.get(member.id, one.deadline))
    return found


def as_metrics(state: JudgedState) -> str:
    """Gauges in Prometheus' text format: members by state, violations by rule, the first deadline, the last check."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()

    def gauge(name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(f"goldsmith_{name}", text, ["fleet", *labels], registry=registry)

    members = gauge("members", "Members of a fleet by what was last said of them.", ["state"])
    ill = gauge("members_unhealthy", "Members that were read and are not healthy.")
    violations = gauge("violations", "Members that violate a rule, waived and recorded ones not counted.", ["rule"])
    of, by = ["enforcement"], "by rules that are enforced, or only warn"
    overdue = gauge("members_overdue", f"Members with a violation whose deadline has passed, {by}.", of)
    deadline = gauge("next_deadline_timestamp_seconds", f"When the first violation of a fleet must be gone, {by}.", of)
    checked = gauge("fleet_checked_timestamp_seconds", "When a fleet was last checked; 0: never.")
    for fleet in state.fleets:
        checked.labels(fleet.name).set(fleet.checked_at.timestamp() if fleet.checked_at else 0)
        if fleet.checked_at is None:
            continue
        states = Counter(member.state for member in fleet.members)
        for name in PolicyState:
            members.labels(fleet.name, name).set(states[name])
        ill.labels(fleet.name).set(sum(not member.healthy and member.state != "unread" for member in fleet.members))
        for rule, many in sorted(Counter(r for one in fleet.members for r in {v.rule for v in one.standing}).items()):
            violations.labels(fleet.name, rule).set(many)
        enforced, warned = _deadlines(fleet)
        late = {name for name, at in enforced.items() if at < state.made_at}
        late_warned = {name for name, at in warned.items() if at < state.made_at} - late
        for how, ends, members_late in (("enforce", enforced, late), ("warn", warned, late_warned)):
            overdue.labels(fleet.name, how).set(len(members_late))
            if ends:
                deadline.labels(fleet.name, how).set(min(ends.values()).timestamp())
    return generate_latest(registry).decode()
