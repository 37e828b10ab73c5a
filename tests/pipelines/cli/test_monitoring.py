"""What Prometheus and Grafana are given: our metrics, alert rules over them, and a dashboard of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from hardening.foundation.process import run
from hardening.foundation.settings import ROOT, Serve
from pipelines.cli.latency import metrics_of, patch_latency
from pipelines.cli.report_exports import as_metrics
from pipelines.fleet.judged_state import judged_state
from pipelines.serve.metrics import metrics
from pipelines.serve.moments import Schedule
from pipelines.serve.runner import Runner
from tests.support.watched import NOW, watched

RULES = ROOT / "docs/monitoring/goldsmith-rules.yml"
DASHBOARD = ROOT / "docs/monitoring/goldsmith-dashboard.json"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """All that /metrics answers, of two fleets that have run for weeks."""
    context = watched(tmp_path_factory.mktemp("watched"))
    context.ledger.add_trigger("night 1", "night", NOW)
    context.ledger.finish_triggers(["night 1"], NOW, "exit code 4")
    runner = Runner(context.ledger, Schedule.of(Serve(nightly="", urgent="")), lambda: NOW)
    latency = patch_latency("90d", context)
    return metrics(context.ledger, runner) + metrics_of(latency) + as_metrics(judged_state(context))


def labels_by_metric(told: str) -> dict[str, set[str]]:
    """The labels that each metric has."""
    return {
        family.name: {label for sample in family.samples for label in sample.labels}
        for family in text_string_to_metric_families(told)
    }


def alerts() -> list[dict[str, Any]]:
    """The rules."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """What the dashboard shows."""
    return json.loads(DASHBOARD.read_text())["panels"]  # type: ignore[no-any-return]


def expressions() -> Iterator[tuple[str, str]]:
    """Each expression, with the texts that name its labels."""
    for rule in alerts():
        yield rule["expr"], " ".join(rule["annotations"].values())
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"], target["legendFormat"]
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            yield re.sub(r"label_values\((.*), (\w+)\)", r"sum by (\2) (\1)", variable["query"]["query"]), ""


def unknown(expression: str, texts: str, known: Mapping[str, set[str]]) -> list[str]:
    """What an expression and its texts name, and nothing tells: metrics, and labels that none of its metrics has."""
    names = re.findall(r"\b(goldsmith_\w+)(?:\{([^}]*)\})?", expression)
    missing = [name for name, _ in names if name not in known]
    for name, selected in names:
        labels = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selected)
        missing += [f"{name}{{{label}}}" for label in labels if label not in known.get(name, set())]
    having = {label for name, _ in names for label in known.get(name, ())}
    grouped = re.findall(r"\bby\s*\(([^)]*)\)", expression)
    shown = re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)", texts)
    wanted = {label.strip() for group in grouped for label in group.split(",")} | set(shown)
    return [*missing, *sorted(wanted - having - {"value"})]


def test_rules_and_dashboard_name_only_what_is_told(told: str) -> None:
    """Metrics and their labels; a name that nothing tells would be an alert that never fires."""
    known = labels_by_metric(told)
    found = list(expressions())
    assert len(found) > 20
    assert [(one, missing) for one, texts in found if (missing := unknown(one, texts, known))] == []
    assert unknown("goldsmith_member > 0", "", known) == ["goldsmith_member"]
    assert unknown('goldsmith_members{flet="x"}', "", known) == ["goldsmith_members{flet}"]
    assert unknown("sum by (owner) (goldsmith_members)", "", known) == ["owner"]
    assert unknown("goldsmith_members", "{{ $labels.name }} {{ $value }}", known) == ["name"]


def test_states_that_are_asked_for_are_told(told: str) -> None:
    """The values of labels too, where they are a closed set."""
    families = {family.name: family.samples for family in text_string_to_metric_families(told)}
    states = {one.labels["state"] for one in families["goldsmith_members"]}
    asked = {state for one, _ in expressions() for state in re.findall(r'state="([^"]*)"', one)}
    assert asked == states


def test_the_dashboard_has_what_grafana_asks_of_one() -> None:
    """Panels with ids of their own that do not overlap, each with a title and what it means."""
    taken = set[tuple[int, int]]()
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)


@pytest.mark.needs("promtool")
def test_promtool_accepts_the_metrics(told: str) -> None:
    """It reads them, and has nothing against their names, types and texts."""
    done = run(["promtool", "check", "metrics"], stdin=told, ok=range(256))
    assert (done.status, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.needs("promtool")
def test_promtool_accepts_the_rules_and_what_the_dashboard_asks(tmp_path: Path) -> None:
    """The dashboard's expressions as rules of their own."""
    asked = [{"record": f"panel:{n}", "expr": one.replace("$fleet", ".*")} for n, (one, _) in enumerate(expressions())]
    panels_ = tmp_path / "panels.yml"
    panels_.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": asked}]}))
    done = run(["promtool", "check", "rules", "--lint-fatal", str(RULES), str(panels_)], ok=range(256))
    assert done.status == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(alerts())} rules found" in done.stdout


FIRES: dict[str, tuple[str, str, int]] = {
    # a series, its values minute by minute, and the minute in which the alert fires; in the fifth it does not
    "GoldsmithMembersOverdue": ('goldsmith_members_overdue{fleet="shop",enforcement="enforce"}', "0x9 2x50", 12),
    "GoldsmithWarningsOverdue": ('goldsmith_members_overdue{fleet="shop",enforcement="warn"}', "0x9 2x99", 72),
    "GoldsmithDeadlineNear": (
        'goldsmith_next_deadline_timestamp_seconds{fleet="shop",enforcement="warn"}', f"{86400 + 600}x50", 12,
    ),
    "GoldsmithMembersUnread": ('goldsmith_members{fleet="shop",state="unread"}', "0x9 1x99", 75),
    "GoldsmithMembersUnhealthy": ('goldsmith_members_unhealthy{fleet="shop"}', "0x9 1x99", 45),
    "GoldsmithFleetNotChecked": (
        'goldsmith_fleet_checked_timestamp_seconds{fleet="shop"}', f"{300 - 2 * 86400}x50", 12,
    ),
    "GoldsmithFixWaitsLong": (
        'goldsmith_patch_oldest_open_seconds{kind="fleet",name="shop"}', f"0x9 {15 * 86400}x50", 12,
    ),
    "GoldsmithImageUnknown": ('goldsmith_patch_unknown_members{kind="fleet",name="shop"}', "0x9 1x99", 75),
    "GoldsmithRunFailed": ('goldsmith_last_run_exit_code{kind="night"}', "0x9 4x50", 12),
    "GoldsmithRunHangs": ("goldsmith_running", "1x400", 362),
    "GoldsmithNightMissing": ('goldsmith_last_run_timestamp_seconds{kind="night"}', f"{300 - 26 * 3600}x50", 12),
    "GoldsmithMetricsAbsent": ("goldsmith_fleet_checked_timestamp_seconds", "0x5 stale", 30),
}  # fmt: skip
SAYS = {
    "GoldsmithMembersOverdue": "at least 2 members of shop are out of policy past their deadline",
    "GoldsmithDeadlineNear": "in 23h 58m 0s the first violation in shop is overdue",
}


IN_A_FILE = ('goldsmith_next_deadline_timestamp_seconds{fleet="stock",enforcement="enforce"}', "600x50", 12)
"""A deadline that passes after node_exporter's file was written: nothing in it counts it as overdue."""


@pytest.mark.needs("promtool")
def test_each_alert_fires_in_its_time_and_not_before(tmp_path: Path) -> None:
    """By promtool's own test of rules, each over one series; two of them with what they say."""
    rules = {rule["alert"]: rule for rule in alerts()}
    assert FIRES.keys() == rules.keys()
    file = tmp_path / "rules-test.yml"
    tests = [_fires(rules[alert], *told) for alert, told in FIRES.items()]
    tests.append(_fires(rules["GoldsmithMembersOverdue"], *IN_A_FILE, says=False))
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = run(["promtool", "test", "rules", str(file)], ok=range(256))
    assert done.status == 0, done.stdout + done.stderr


def _fires(rule: dict[str, Any], series: str, values: str, minute: int, *, says: bool = True) -> dict[str, Any]:
    """One test of promtool's."""
    alert, labels = rule["alert"], {**rule["labels"], **dict(re.findall(r'(\w+)="([^"]*)"', series))}
    firing = {"alertname": alert, "alertstate": "firing", **labels}
    named = ", ".join(f'{name}="{value}"' for name, value in firing.items())
    expression = f'ALERTS{{alertname="{alert}", alertstate="firing"}}'
    sample = {"labels": f"ALERTS{{{named}}}", "value": 1}
    made: dict[str, Any] = {
        "interval": "1m", "input_series": [{"series": series, "values": values}],
        "promql_expr_test": [
            {"expr": expression, "eval_time": "5m", "exp_samples": []},
            {"expr": expression, "eval_time": f"{minute}m", "exp_samples": [sample]},
        ],
    }  # fmt: skip
    if says and alert in SAYS:
        description = rule["annotations"]["description"].replace("{{ $labels.fleet }}", labels["fleet"])
        said = {"exp_labels": labels, "exp_annotations": {"summary": SAYS[alert], "description": description}}
        made["alert_rule_test"] = [{"alertname": alert, "eval_time": f"{minute}m", "exp_alerts": [said]}]
    return made
