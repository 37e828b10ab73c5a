"""What the ledger knows of an image's controls is enough only where it has one result for each of them."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.findings import CheckResult, Outcome
from hardening.foundation.content import parse
from hardening.model import Enforcement, Severity
from hardening.render import Check, Overlay
from images.model import Definition
from images.scan import judge
from images.scan.verify import every, refusals, without_result
from tests.support.loop import CHILD, NONE_BECAUSE
from tests.support.publishing import CHECK

OTHER = replace(CHECK, control="no-shell")


def check(control: str) -> Check:
    """A control of the profile."""
    return Check(control, control, Severity.HIGH, Enforcement.ENFORCE, "exit 0", {})


SILENT = parse(tomllib.loads(CHILD), Definition, "image.toml", name="silent")
SERVING = parse(tomllib.loads(CHILD.replace(NONE_BECAUSE, "")), Definition, "image.toml", name="serving")
OVERLAY = Overlay((), (), (check("no-setuid"), check("no-shell")))


@pytest.mark.parametrize(
    ("results", "lacks"),
    [
        ((CHECK, OTHER), ()),
        ((CHECK,), ("no-shell",)),
        ((), ("no-setuid", "no-shell")),
        ((CHECK, OTHER, OTHER), ("no-shell",)),
        ((CHECK, OTHER, replace(CHECK, control="of-another-profile")), ()),
        ((replace(CHECK, control="no-setuid2"), OTHER), ("no-setuid",)),
    ],
)
def test_each_control_has_exactly_one_result(results: tuple[CheckResult, ...], lacks: tuple[str, ...]) -> None:
    """None is as good as unknown, two contradict each other; results of other controls say nothing of it."""
    assert without_result(results, OVERLAY, SILENT) == lacks


def test_a_container_that_runs_by_itself_has_been_started() -> None:
    """Also one that was built before anybody started what was built."""
    assert without_result((CHECK, OTHER), OVERLAY, SERVING) == ("container-starts",)
    started = replace(CHECK, control="container-starts")
    assert without_result((CHECK, OTHER, started), OVERLAY, SERVING) == ()


def test_a_control_without_a_result_was_not_evaluated_and_refuses() -> None:
    """Whatever the others say; where each has one, nothing is added."""
    told = every((CHECK,), OVERLAY)
    assert [(r.control, r.outcome) for r in told] == [
        ("no-setuid", Outcome.PASS), ("no-shell", Outcome.NOT_EVALUATED)
    ]  # fmt: skip
    assert [r.control for r in refusals(told)] == ["no-shell"]
    assert every((CHECK, OTHER), OVERLAY) == (CHECK, OTHER)


@pytest.mark.parametrize(("known", "again"), [((), True), ((CHECK,), True), ((CHECK, OTHER), False)])
def test_what_the_ledger_does_not_know_whole_is_verified_again(
    known: tuple[CheckResult, ...], again: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And kept, so that the next time knows; each with the enforcement of today."""
    kept: dict[str, Any] = {"content": known}
    made = tuple(replace(result, outcome=Outcome.FAIL) for result in (CHECK, OTHER))
    ledger = SimpleNamespace(checks=kept.get, record_checks=lambda digest, results, _at: kept.update({digest: results}))
    context: Any = SimpleNamespace(ledger=ledger, definitions={"image": SimpleNamespace(definition=SILENT)}, now=None)
    monkeypatch.setattr(judge, "Planner", lambda _context: SimpleNamespace(overlay=lambda _loaded: OVERLAY))
    monkeypatch.setattr(judge, "_verified", lambda *_: made)
    artifact: Any = SimpleNamespace(name="image", digest="content")
    assert judge._checks(context, artifact) == (made if again else known)
    assert kept["content"] == (made if again else known)
    assert ("no result of no-shell is known" in capsys.readouterr().err) == (known == (CHECK,))
