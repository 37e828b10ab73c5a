"""What the listings of controls tell, to people and to programs."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from hardening.findings import CheckResult, Outcome
from hardening.foundation.console import out, print_text
from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.settings import ROOT, Settings
from hardening.model import Enforcement, Severity
from images.context import Context
from images.ledger import Move
from images.plan.build_plan import Action
from pipelines.cli.controls import CONTROL_COLUMNS, ControlDetail, check_tree, control_detail, list_controls
from pipelines.cli.image import BuildLine, _text
from pipelines.cli.image_output import DEFINITION_COLUMNS, definition_lines, show, show_checks
from pipelines.contract import DefinitionLine, VerifyLine
from tests.support.fleets import NOW, release

TODAY = date(2026, 6, 1)


def test_the_list_names_every_control_and_who_uses_it() -> None:
    """A reader of the list sees what holds where."""
    rows = {row.id: row for row in list_controls([ROOT], TODAY)}
    assert [use.profile for use in rows["no-shell"].used_by] == ["container-static"]
    machines = {"machine-base", "cis-level1", "cis-level2", "container-host"}
    assert {use.profile for use in rows["no-setuid"].used_by} == {"container-base", "container-static", *machines}


def test_a_control_explains_itself() -> None:
    """Why, at what cost, with which knobs, and how it is proved; as JSON too."""
    shown = control_detail([ROOT], "no-setuid", TODAY)
    assert "runs as root" in shown.rationale
    assert shown.cost
    assert shown.params["allow"].help
    assert shown.references["cis-docker"] == ("4.8",)
    assert "a setuid program" in shown.proofs
    assert json.loads(TypeAdapter(ControlDetail).dump_json(shown))["severity"] == "high"


def test_an_unknown_control_is_answered_with_the_nearest() -> None:
    """A slip of the pen does not end in a trace."""
    with pytest.raises(ContentError, match="did you mean no-setuid"):
        control_detail([ROOT], "no-setuit", TODAY)


def test_a_tree_is_checked_by_the_controls_that_are_asked_for(tmp_path: Path) -> None:
    """One control on one folder, with its evidence."""
    (tmp_path / "usr").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr/become").write_text("x")
    (tmp_path / "usr/become").chmod(0o4755)
    [result] = check_tree([ROOT], "container-base", tmp_path, TODAY, control="no-setuid")
    assert result.outcome is Outcome.FAIL
    assert "/usr/become" in result.evidence
    with pytest.raises(ContentError, match="container-base has no control no-shell"):
        check_tree([ROOT], "container-base", tmp_path, TODAY, control="no-shell")


def test_stable_is_what_the_channel_was_last_moved_to(tmp_path: Path) -> None:
    """Not the newest release, which may be a candidate; and the list asks no registry."""

    def nobody() -> str:
        raise AssertionError("the registry was asked")

    settings = Settings(state=tmp_path)
    settings.state_dir.mkdir(exist_ok=True)
    context = Context(settings, NOW, nobody, nobody)
    one = replace(release(1, name="debian-base"), digest="sha256:one")
    two = replace(release(2, name="debian-base"), digest="sha256:two")
    with closing(context.ledger) as ledger:
        for made in (one, two):
            ledger.record_release(made)
            ledger.record_move(Move(made.repository, "candidate", made.digest, NOW, "publish"))
        assert _channels(context) == ("sha256:two", "", None)
        ledger.record_move(Move(one.repository, "stable", one.digest, NOW, "promote"))
        assert _channels(context) == ("sha256:two", "sha256:one", one.expires_at)


def test_the_list_marks_what_is_revoked_or_stands_on_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever looks at it in a hurry sees that stable is not good, before any release took its place."""
    settings = Settings(state=tmp_path)
    settings.state_dir.mkdir(exist_ok=True)
    context = Context(settings, NOW, str, str)
    base = release(1, name="debian-base", content=f"sha256:{'b' * 64}")
    child = release(2, name="nginx-unprivileged", base_name=base.repository, base_digest=base.content)
    with closing(context.ledger) as ledger:
        for made in (base, child):
            ledger.record_release(made)
            for channel in ("candidate", "stable"):
                ledger.record_move(Move(made.repository, channel, made.digest, NOW, "publish"))
        assert {line.revoked for line in definition_lines(context)} == {()}
        ledger.revoke(base.digest, "a back door", NOW)
        lines = {line.name: line for line in definition_lines(context)}
    for name in (base.name, child.name):
        assert lines[name].revoked == ("candidate", "stable")
    out.cache_clear()
    show([lines[child.name]], columns=DEFINITION_COLUMNS, as_json=False)
    first, *more = capsys.readouterr().out.splitlines()[1:]
    assert first.split() == [child.name, "-", child.digest[7:19], child.digest[7:19], f"{child.expires_at:%Y-%m-%d}"]
    assert more[0].split() == ["REVOKED", "REVOKED"]


def _channels(context: Context) -> tuple[str, str, datetime | None]:
    """What the list says of one definition: candidate, stable, and how long stable is good."""
    line = next(line for line in definition_lines(context) if line.name == "debian-base")
    return line.candidate, line.stable, line.expires_at


def test_the_list_of_images_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """What was built, candidate and stable stand side by side in 80 columns, each by twelve digits."""
    name, digest = "nginx-unprivileged-of-the-shop", f"sha256:{'0123456789ab' * 6}"[:71]
    line = DefinitionLine(
        name=name, title="t", kind="container", base="b", profile="p", policy="d", digest=digest,
        candidate=digest, stable="", expires_at=NOW,
    )  # fmt: skip
    out.cache_clear()
    show([line], columns=DEFINITION_COLUMNS, as_json=False)
    text = capsys.readouterr().out
    assert text.splitlines()[1].split() == [name, "0123456789ab", "0123456789ab", "-", f"{NOW:%Y-%m-%d}"]
    assert max(map(len, text.splitlines())) <= 80


def test_names_in_tables_are_in_one_piece(capsys: pytest.CaptureFixture[str]) -> None:
    """So that they can be copied, however long, in 80 columns."""
    rows = list_controls([ROOT], TODAY)
    said = (Severity.LOW, Enforcement.ENFORCE, Outcome.PASS, "seen " * 30)
    results = tuple(CheckResult(row.id, row.title, *said) for row in rows)
    out.cache_clear()
    show(rows, columns=CONTROL_COLUMNS, as_json=False)
    show_checks([VerifyLine(name="web", digest="", passed=True, checks=results)], as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    names = [line.split()[0] for line in lines if line[:1].strip()]
    assert [name for name in names if name not in ("control", "web")] == 2 * [row.id for row in rows]


def test_nothing_is_not_told_beside_what_went_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that failed for all has nothing to show, and its error says why."""
    assert show([], [OutsideError("no registry")], columns=DEFINITION_COLUMNS, as_json=False) == 4
    assert capsys.readouterr().err == "no registry\n"
    assert show([], columns=DEFINITION_COLUMNS, as_json=False, empty="nothing to remove") == 0
    assert capsys.readouterr().err == "nothing to remove\n"


def test_long_text_hangs_under_its_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    """An indented line goes on further in, and no word is cut."""
    out.cache_clear()
    print_text("heading\n  rule: " + "word " * 30)
    first, *rest = capsys.readouterr().out.splitlines()[1:]
    assert first.startswith("  rule: word")
    assert rest
    assert all(line.startswith("    word") for line in rest)


def test_an_error_is_not_told_again_in_a_narrow_cell() -> None:
    """A table points to the error of what failed or was refused; what stands on it names it; a waiver is told."""
    line = BuildLine(
        name="web",
        action=Action.REFUSED,
        digest="",
        input_digest="",
        reasons=("no-setuid: long",),
        seconds=1,
        waived=(),
    )
    assert line.because == ("see its error, told beside this table",)
    told = ("its parent web was refused",)
    child = line.model_copy(update={"action": Action.FAILED, "reasons": told, "stopped_by": "web"})
    assert child.because == child.reasons
    built = line.model_copy(update={"action": Action.BUILT, "reasons": ("new",), "waived": ("no-setuid is waived",)})
    assert built.because == ("new", "no-setuid is waived")


def test_evidence_is_shown_for_what_passed_too(capsys: pytest.CaptureFixture[str]) -> None:
    """A pass without what was seen would have to be believed."""
    passed = CheckResult("no-cron", "No cron", Severity.LOW, Enforcement.ENFORCE, Outcome.PASS, "3306 files: no cron")
    out.cache_clear()
    assert show_checks([VerifyLine(name="web", digest="", passed=True, checks=(passed,))], as_json=False) == 0
    assert "3306 files: no cron" in capsys.readouterr().out
    headed = replace(passed, evidence="as they should be:\n/etc/passwd 0644")
    show_checks([VerifyLine(name="web", digest="", passed=True, checks=(headed,))], as_json=False)
    assert "/etc/passwd 0644" in capsys.readouterr().out


def test_a_release_is_shown_to_the_minute() -> None:
    """Nobody reads microseconds."""
    assert _text(NOW) == f"{NOW:%Y-%m-%d %H:%M} UTC"
