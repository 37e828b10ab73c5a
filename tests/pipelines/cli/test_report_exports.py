"""The judged state for other programs: CSV, SARIF and Prometheus tell of the same members and violations."""

from __future__ import annotations

import csv
import io
import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hardening.foundation.errors import UsageError
from hardening.foundation.text import visible
from hardening.model import Enforcement
from images.context import Context
from pipelines.cli import report
from pipelines.cli.report import form_of, make_report
from pipelines.cli.report_exports import COLUMNS, as_csv, as_metrics, as_sarif
from pipelines.fleet.judged_state import JudgedState, judged_state
from tests.images.scan.test_formats import require_sarif
from tests.support.watched import watched

MEMBERS = 40


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Two fleets that have run for weeks."""
    return watched(tmp_path_factory.mktemp("watched"), MEMBERS)


@pytest.fixture(scope="module")
def state(context: Context) -> JudgedState:
    """Their members, judged."""
    return judged_state(context)


def violations(state: JudgedState) -> list[tuple[str, str, str]]:
    """Each as fleet, member and rule."""
    return [
        (fleet.name, member.name, one.rule)
        for fleet in state.fleets
        for member in fleet.members
        for one in member.violations
    ]


def test_csv_has_a_line_for_each_violation_and_one_for_who_has_none(state: JudgedState) -> None:
    """So that it counts members too."""
    lines = list(csv.DictReader(io.StringIO(as_csv(state))))
    assert tuple(lines[0]) == COLUMNS
    assert [(one["fleet"], one["member"], one["rule"]) for one in lines if one["rule"]] == violations(state)
    assert len({(one["fleet"], one["member"]) for one in lines}) == MEMBERS
    expired = next(one for one in lines if one["rule"] == "expired")
    assert (expired["stands"], expired["owner"], expired["acts"]) == ("yes", "web team", "web team")
    assert expired["since"] == "2026-11-25T12:00:00+00:00"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "a\nb", 'a"b,c'])
def test_no_name_becomes_a_formula_or_a_line(state: JudgedState, name: str) -> None:
    """A spreadsheet would work it out."""
    fleet = state.fleets[0]
    member = fleet.members[0].model_copy(update={"name": name})
    odd = state.model_copy(update={"fleets": (fleet.model_copy(update={"members": (member,)}),)})
    cells = {one["member"] for one in csv.DictReader(io.StringIO(as_csv(odd)))}
    assert cells == {f"'{name}" if name[0] in "=+-@" else name.replace("\n", "\\n")}


def all_by(state: JudgedState, text: str) -> JudgedState:
    """The state of one violation, in which every text that strangers or people may have written is this one."""
    fleet = state.fleets[0]
    member = next(one for one in fleet.members if one.violations)
    said = dict.fromkeys(("rule", "what", "why", "side", "acts", "todo", "waived_by"), text)
    violation = member.violations[0].model_copy(update={**said, "evidence": (text,)})
    named = dict.fromkeys(("name", "image", "golden", "release"), text)
    member = member.model_copy(update={**named, "violations": (violation,)})
    fleet = fleet.model_copy(update={"name": text, "owner": text, "members": (member,)})
    return state.model_copy(update={"fleets": (fleet,)})


@pytest.mark.parametrize("text", ["=1+1", "@x", "+1", "-1"])
def test_no_cell_at_all_becomes_a_formula(state: JudgedState, text: str) -> None:
    """Regardless of who wrote it: a name, evidence, a waiver."""
    (line,) = csv.DictReader(io.StringIO(as_csv(all_by(state, text))))
    assert [name for name, cell in line.items() if cell == f"'{text}"] == [
        "fleet", "owner", "member", "image", "golden", "release", "rule", "what", "evidence", "side", "acts", "todo",
        "waived_by",
    ]  # fmt: skip
    assert text not in line.values()


def test_no_text_in_sarif_is_unseen(state: JudgedState) -> None:
    """A viewer would show the line that it turns around."""
    text = "\u202eb\x1b[31m"
    found = json.loads(as_sarif(all_by(state, text)))["runs"][0]
    (result,), (rule,) = found["results"], found["tool"]["driver"]["rules"]
    (place,) = result["locations"]
    texts = [result["message"]["text"], place["logicalLocations"][0]["fullyQualifiedName"],
             result["properties"]["image"], result["suppressions"][0]["justification"],
             rule["fullDescription"]["text"]]  # fmt: skip
    assert all("\\u202eb\\x1b[31m" in one and visible(one) == one for one in texts)


def test_sarif_names_each_rule_once_and_each_violation(state: JudgedState) -> None:
    """With the member as its place, a fingerprint that stays, and what is only recorded as a note."""
    (run,) = require_sarif(as_sarif(state))["runs"]
    rules = [one["id"] for one in run["tool"]["driver"]["rules"]]
    assert rules == sorted({rule for _, _, rule in violations(state)})
    results = run["results"]
    places = [one["locations"][0]["logicalLocations"][0]["fullyQualifiedName"] for one in results]
    told = [(*place.split("/", 1), one["ruleId"]) for place, one in zip(places, results, strict=True)]
    assert told == violations(state)
    assert all(rules[one["ruleIndex"]] == one["ruleId"] for one in results)
    assert {one["ruleId"] for one in results if one["level"] == "note"} == {"root-user"}
    prints = [one["partialFingerprints"]["member/v1"] for one in results]
    assert len(set(prints)) == len(prints)
    again = json.loads(as_sarif(state.model_copy(update={"fleets": state.fleets[::-1]})))["runs"][0]["results"]
    assert {one["partialFingerprints"]["member/v1"] for one in again} == set(prints)


def test_what_is_waived_is_suppressed_in_sarif(state: JudgedState) -> None:
    """With the waiver as its reason."""
    fleet = state.fleets[0]
    member = next(one for one in fleet.members if one.standing)
    waived = member.standing[0].model_copy(update={"waived_by": "w-1", "stands": False})
    member = member.model_copy(update={"violations": (waived,)})
    fleets = (fleet.model_copy(update={"members": (member,)}),)
    (result,) = require_sarif(as_sarif(state.model_copy(update={"fleets": fleets})))["runs"][0]["results"]
    assert result["suppressions"] == [{"kind": "external", "justification": "w-1"}]


def test_metrics_count_members_and_violations(state: JudgedState) -> None:
    """Every state of a fleet, also that of nobody; what is only recorded is not counted."""
    told = {family.name: family.samples for family in text_string_to_metric_families(as_metrics(state))}
    members = {(one.labels["fleet"], one.labels["state"]): one.value for one in told["goldsmith_members"]}
    assert sum(members.values()) == MEMBERS
    assert members["shop", "unread"] == 0
    assert {one.labels["rule"] for one in told["goldsmith_violations"]} == {"expired", "privileged", "unknown"}
    (shop, _) = told["goldsmith_fleet_checked_timestamp_seconds"]
    assert shop.value == state.fleets[0].checked_at.timestamp()  # type: ignore[union-attr]
    first = min(one.deadline for one in state.fleets[0].members if one.deadline)
    assert told["goldsmith_next_deadline_timestamp_seconds"][0].value == first.timestamp()


def test_metrics_tell_what_only_warns_from_what_is_enforced(state: JudgedState) -> None:
    """A warning must not alert as critical. A member with both counts where it is enforced."""
    fleet = state.fleets[0]
    member = next(one for one in fleet.members if one.standing)
    late, later = state.made_at - timedelta(days=2), state.made_at - timedelta(days=1)
    enforced = member.standing[0].model_copy(update={"enforcement": Enforcement.ENFORCE, "deadline": later})
    warned = member.standing[0].model_copy(update={"enforcement": Enforcement.WARN, "deadline": late})
    both = member.model_copy(update={"id": "1", "violations": (enforced, warned)})
    mild = member.model_copy(update={"id": "2", "violations": (warned,)})
    none = member.model_copy(update={"id": "3", "violations": (warned.model_copy(update={"deadline": None}),)})
    fleets = (fleet.model_copy(update={"members": (both, mild, none)}),)
    told = as_metrics(state.model_copy(update={"fleets": fleets}))
    seen = {
        (one.name, one.labels["enforcement"]): one.value
        for family in text_string_to_metric_families(told)
        for one in family.samples
        if "enforcement" in one.labels
    }
    assert seen == {
        ("goldsmith_members_overdue", "enforce"): 1, ("goldsmith_members_overdue", "warn"): 1,
        ("goldsmith_next_deadline_timestamp_seconds", "enforce"): later.timestamp(),
        ("goldsmith_next_deadline_timestamp_seconds", "warn"): late.timestamp(),
    }  # fmt: skip


def test_a_fleet_that_was_never_checked_is_told_as_such(state: JudgedState) -> None:
    """Without a line of it, an alert would take it for none; nothing else is known of it."""
    never = state.fleets[0].model_copy(update={"name": "new", "checked_at": None, "members": ()})
    lines = as_metrics(state.model_copy(update={"fleets": (never,)})).splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'goldsmith_fleet_checked_timestamp_seconds{fleet="new"} 0.0'
    ]


def test_the_ending_of_the_file_names_the_form() -> None:
    """As image.scan does."""
    assert [form_of("", f"a{ending}") for ending in (".html", ".csv", ".sarif", ".prom")] == [
        "html", "csv", "sarif", "prometheus",
    ]  # fmt: skip
    assert (form_of("", ""), form_of("csv", "x")) == ("html", "csv")
    for form, output in (("pdf", ""), ("", "a.pdf")):
        with pytest.raises(UsageError, match=r"unknown form|names no form"):
            form_of(form, output)


def test_a_form_is_printed_or_written_whole(tmp_path: Path, state: JudgedState) -> None:
    """Into a folder that is there."""
    from pipelines.cli.image_output import write_out

    write_out(as_csv(state), str(tmp_path / "members.csv"))
    assert (tmp_path / "members.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    with pytest.raises(UsageError, match="cannot be a file"):
        write_out("", str(tmp_path / "not" / "there.csv"))


def test_metrics_are_for_another_user_and_all_else_is_its_writers(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """node_exporter reads the textfile; who is vulnerable is nobody else's to read."""
    monkeypatch.setattr(report, "image_context", lambda **_: context)
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o077)
    try:
        for ending in ("prom", "csv", "sarif", "html"):
            make_report(output=f"out.{ending}")
    finally:
        os.umask(before)
    modes = {file.suffix: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes == {".prom": 0o644, ".csv": 0o600, ".sarif": 0o600, ".html": 0o600}
