"""What the ledger knows of an image's controls is enough only where it has one result for each of them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.catalog import load_policy
from hardening.findings import CheckResult, Finding, FindingKind, Outcome, Verdict
from hardening.foundation.content import parse
from hardening.foundation.errors import RefusedError
from hardening.foundation.settings import ROOT, Settings
from hardening.model import Enforcement, Severity
from hardening.render import Check, Overlay
from images.context import Context
from images.ledger import Ledger
from images.model import Definition
from images.scan import judge
from images.scan.flow import ScanResult
from images.scan.judge import Judgement, KnownJudge
from images.scan.verify import every, refusals, without_result
from tests.support.loop import CHILD, NONE_BECAUSE
from tests.support.publishing import CHECK, NOW

OTHER = replace(CHECK, control="no-shell")


def check(control: str) -> Check:
    """A control of the profile."""
    return Check(control, control, Severity.HIGH, Enforcement.ENFORCE, "exit 0", {})


SILENT = parse(tomllib.loads(CHILD), Definition, "image.toml", name="silent")
SERVING = parse(tomllib.loads(CHILD.replace(NONE_BECAUSE, "")), Definition, "image.toml", name="serving")
POLICY = load_policy((ROOT,), "default")
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


@pytest.mark.parametrize(
    ("fetched", "offered", "answer"),
    [
        (True, "1.3-2", True),
        (True, "1.3-2+b1", True),
        (True, "1.3-1", False),
        (True, "", False),
        (False, "1.3-2", None),
    ],
)
def test_whether_a_build_gets_a_fix_is_answered_by_the_index_that_was_fetched(
    monkeypatch: pytest.MonkeyPatch, fetched: bool, offered: str, answer: bool | None
) -> None:
    """None is unknown: a judgement fetches nothing."""
    monkeypatch.setattr(judge, "Planner", lambda _: SimpleNamespace(bootstrap=lambda _: "trixie"))
    index = SimpleNamespace(
        is_fetched=lambda _: fetched, candidates=lambda *_: {"zlib1g": offered} if offered else {},
    )  # fmt: skip
    context: Any = SimpleNamespace(index=index, definitions={"image": None})
    hole = Finding(FindingKind.VULNERABILITY, "CVE-2026-0001", "zlib1g", "1.3-1", "1.3-2", Severity.HIGH, ())
    found = judge._offered(context, "image", (hole,))
    assert answer is (None if found is None else ("zlib1g", "1.3-2") in found)


SCAN = ScanResult((), (), b"")
VERDICT = Verdict("image", "default", NOW, True, ())
MADE = tuple(replace(result, outcome=Outcome.FAIL) for result in (CHECK, OTHER))


class Clinic:
    """The content of an image, a ledger, and checks that all fail where they are run again."""

    def __init__(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ledger, self.overlay = ledger, OVERLAY
        definitions = {"image": SimpleNamespace(definition=SILENT)}
        self.context: Any = SimpleNamespace(
            ledger=ledger, definitions=definitions, now=NOW, settings=SimpleNamespace(roots=()),
            store=SimpleNamespace(disk_of=lambda _digest: None),
        )  # fmt: skip
        self.artifact: Any = SimpleNamespace(name="image", digest="content", inputs={})
        monkeypatch.setattr(judge, "Planner", lambda _context: SimpleNamespace(judged_overlay=lambda *_: self.overlay))
        monkeypatch.setattr(judge, "_verified", lambda *_: MADE)
        for name, answer in {
            "_last_scan": SCAN, "unchanged": SCAN, "scan_subject": ("", ""), "load_waivers": (), "judge_image": VERDICT,
            "scan_again": SCAN, "load_policy": None, "policy_digest": "",
        }.items():  # fmt: skip
            monkeypatch.setattr(judge, name, lambda *_, answer=answer, **__: answer)

    def built(self, digest: str, by: Overlay, *, kept: bool = True) -> None:
        """Both controls held when it was built; `kept`: of which checks, the ledger knows itself."""
        self.overlay, self.artifact.inputs = by, {"overlay": by.parts}
        scripts = {"scripts": dict(by.parts["checks"])} if kept else {}
        self.ledger.record_checks(digest, (CHECK, OTHER), NOW, **scripts)

    def checks(self) -> tuple[CheckResult, ...]:
        """What its controls say, for whoever judges it."""
        return judge._checks(self.context, self.artifact, POLICY)

    def judged(self) -> Judgement:
        """The gate's verdict, and what it rests on."""
        return judge.judge(self.context, self.artifact, "default")

    def is_known(self) -> bool:
        """Whether a night would judge it by what is known."""
        planner: Any = judge.Planner(self.context)
        policy: Any = None
        return KnownJudge(self.context, planner).judge(self.artifact, policy) is not None


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clinic]:
    """An image that was built, or what a test makes of it."""
    with closing(Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}")) as ledger:
        yield Clinic(ledger, monkeypatch)


@pytest.mark.parametrize(("known", "again"), [((), True), ((CHECK,), True), ((CHECK, OTHER), False)])
def test_what_the_ledger_does_not_know_whole_is_verified_again(
    known: tuple[CheckResult, ...], again: bool, clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    """And kept, so that the next time knows; each with the enforcement of today."""
    clinic.ledger.record_checks("content", known, NOW, dict(OVERLAY.parts["checks"]))
    assert clinic.checks() == (MADE if again else known)
    assert clinic.ledger.checks("content") == (MADE if again else known)
    assert ("no result of no-shell is known" in capsys.readouterr().err) == (known == (CHECK,))


def with_checks(*texts: str, param: str = "1") -> Overlay:
    """The same controls, each checked by another text, with another parameter."""
    checks = zip(OVERLAY.checks, texts, strict=True)
    return replace(OVERLAY, checks=tuple(replace(one, text=text, env={"PARAM_A": param}) for one, text in checks))


BEFORE = with_checks("exit 0", "exit 0")
CHANGED = {"text": with_checks("exit 0", "exit 1"), "parameter": with_checks("exit 0", "exit 0", param="2")}


@pytest.mark.parametrize("today", CHANGED.values(), ids=CHANGED)
@pytest.mark.parametrize("kept", [True, False], ids=["kept with the results", "known from the inputs alone"])
def test_a_pass_of_another_check_than_todays_is_no_pass(
    kept: bool, today: Overlay, clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is verified again, once. Where nothing has changed since, nothing is; so it is by what a night knows, too."""
    clinic.built("content", BEFORE, kept=kept)
    assert (clinic.checks(), clinic.is_known()) == ((CHECK, OTHER), True)
    clinic.overlay = today
    assert not clinic.is_known()
    assert clinic.checks() == MADE
    assert "has changed" in capsys.readouterr().err
    assert (clinic.checks(), clinic.is_known()) == (MADE, True)
    assert capsys.readouterr().err == ""


def test_the_inputs_of_an_image_do_not_say_by_which_check_its_content_was_verified_last(clinic: Clinic) -> None:
    """A check was changed, an image of the same content was built, and the change was taken back."""
    clinic.built("content", BEFORE)
    clinic.ledger.record_checks("content", (CHECK, OTHER), NOW, dict(CHANGED["text"].parts["checks"]))
    assert not clinic.is_known()
    assert clinic.checks() == MADE
    assert clinic.is_known()


@pytest.mark.parametrize("kept", [True, False], ids=["kept with the results", "known from the inputs alone"])
def test_a_judgement_names_the_checks_that_ran(kept: bool, clinic: Clinic) -> None:
    """Which is what is signed: of the build, or those by which it was verified again."""
    clinic.built("content", BEFORE, kept=kept)
    assert clinic.judged().scripts == dict(BEFORE.parts["checks"])
    clinic.overlay = CHANGED["text"]
    judged = clinic.judged()
    assert judged.checks == MADE
    assert judged.scripts == dict(CHANGED["text"].parts["checks"]) != dict(BEFORE.parts["checks"])


def test_stages_of_enforcement_verify_nothing_again(clinic: Clinic) -> None:
    """They change what a result means, and no check."""
    clinic.built("content", BEFORE)
    warned = tuple(replace(one, enforcement=Enforcement.WARN) for one in BEFORE.checks)
    clinic.overlay = replace(BEFORE, checks=warned)
    assert clinic.is_known()
    assert [one.enforcement for one in clinic.checks()] == [Enforcement.WARN] * 2


def test_why_nothing_was_kept_is_found_behind_the_steps_of_a_great_rollout(tmp_path: Path) -> None:
    """Each of its members leaves some lines in the audit: an image that was refused would look as if never built."""
    context = Context(Settings(state=tmp_path), NOW, str, str)
    with closing(context.ledger) as ledger:
        ledger.audit(NOW, "ann", "refuse", "web", "no-setuid")
        for number in range(1001):
            ledger.audit(NOW, "ann", "step: replace", "shop-1", str(number))
        with pytest.raises(RefusedError, match="and refused") as refused:
            judge.latest(context, "web")
        assert refused.value.evidence == "no-setuid"
