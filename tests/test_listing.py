"""What the listings of controls tell, to people and to programs."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from hardening.findings import Outcome
from hardening.foundation.errors import ContentError
from hardening.foundation.settings import ROOT
from hardening.listing import ControlDetail, check_tree, list_controls, show_control

TODAY = date(2026, 6, 1)


def test_the_list_names_every_control_and_who_uses_it() -> None:
    """A reader of the list sees what holds where."""
    rows = {row.id: row for row in list_controls([ROOT], TODAY)}
    assert [use.profile for use in rows["no-shell"].used_by] == ["container-static"]
    assert [use.profile for use in rows["no-setuid"].used_by] == ["container-base", "container-static"]


def test_a_control_explains_itself() -> None:
    """Why, at what cost, with which knobs, and how it is proved; as JSON too."""
    shown = show_control([ROOT], "no-setuid", TODAY)
    assert "runs as root" in shown.rationale
    assert shown.cost
    assert shown.params["allow"].help
    assert shown.references["cis-docker"] == ("4.8",)
    assert "a setuid program" in shown.proofs
    assert json.loads(TypeAdapter(ControlDetail).dump_json(shown))["severity"] == "high"


def test_an_unknown_control_is_answered_with_the_nearest() -> None:
    """A slip of the pen does not end in a trace."""
    with pytest.raises(ContentError, match="did you mean no-setuid"):
        show_control([ROOT], "no-setuit", TODAY)


def test_a_tree_is_checked_by_the_controls_that_are_asked_for(tmp_path: Path) -> None:
    """One control on one folder, with its evidence."""
    (tmp_path / "usr").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr/become").write_text("x")
    (tmp_path / "usr/become").chmod(0o4755)
    [result] = check_tree([ROOT], "container-base", tmp_path, TODAY, only=["no-setuid"])
    assert result.outcome is Outcome.FAIL
    assert "/usr/become" in result.evidence
    with pytest.raises(ContentError, match="container-base has no control no-shell"):
        check_tree([ROOT], "container-base", tmp_path, TODAY, only=["no-shell"])
