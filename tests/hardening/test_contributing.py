"""The control that CONTRIBUTING.md shows is a whole one: it loads, and its check is proven as every other one."""

from __future__ import annotations

import re
import textwrap
from datetime import date
from pathlib import Path

import pytest

from hardening.catalog import load_cases, load_controls, load_profile
from hardening.check import run_checks
from hardening.findings import ImageFacts, Outcome
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT
from hardening.model import Profile
from hardening.render import render
from pipelines.lint import content_problems
from tests.support.trees import SHOWN, files_shown

TODAY = date(2026, 6, 1)
BASE = "container-base"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A content root with the files that the document shows."""
    return files_shown(tmp_path)


def test_its_files_are_all_there_and_sound(root: Path) -> None:
    """control.toml, check.sh and cases.toml, and a profile that takes another one over, which lint accepts."""
    [control] = load_controls([root]).values()
    assert {path.name for path in control.folder.iterdir()} == {"control.toml", "check.sh", "cases.toml"}
    assert content_problems((ROOT, root), TODAY) == ()
    shop, base = ({e.control: e for e in load_profile([ROOT, root], name).controls} for name in ("shop-base", BASE))
    assert [*shop] == [*(name for name in base if name != "home-modes"), SHOWN]
    assert shop["no-setuid"].params == {"allow": ["/usr/bin/ping"]}
    assert shop["no-secrets"] == base["no-secrets"]


def test_the_files_that_it_shows_are_proved_by_the_case_that_it_shows(root: Path) -> None:
    """Each part beside those of the control; the first line of each says where it belongs."""
    document = (ROOT / "CONTRIBUTING.md").read_text()
    blocks = re.findall(r"```text\n *(?:#|\{#) in ([\w./]+)[^\n]*\n(.*?) *```", document, re.DOTALL)
    shown = {place: textwrap.dedent(text) for place, text in blocks}
    [control] = load_controls([root]).values()
    assert [*shown] == ["control.toml", "files/limits.conf.j2", "cases.toml"]
    for place, text in shown.items():
        file = control.folder / place
        file.parent.mkdir(exist_ok=True)
        file.write_text((file.read_text() if file.exists() else "") + text)
    assert content_problems((ROOT, root), TODAY) == ()
    [loaded] = load_controls([root]).values()
    file = loaded.folder / "cases.toml"
    file.write_text(file.read_text().replace("nproc 9", "nproc 8"))
    [problem] = content_problems((ROOT, root), TODAY)
    assert "90-processes.conf reads: * hard nproc 9" in str(problem)


def test_its_check_is_red_on_the_broken_tree_and_green_without(root: Path, tmp_path: Path) -> None:
    """As tests/hardening/test_controls.py would show it on a whole system."""
    [control] = load_controls([root]).values()
    entries = [{"control": control.control.id}]
    profile = Profile.model_validate({"name": "p", "title": "t", "owner": "us", "controls": entries})
    overlay = render(profile, {control.control.id: control}, {}, {"kind": "container"}, TODAY)
    for name in ("usr", "etc", "var"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    (tmp_path / "tree/etc/hosts").write_text("x")
    [clean] = run_checks(overlay, tmp_path / "tree", ImageFacts())
    assert clean.outcome is Outcome.PASS
    [proof] = load_cases(control).proof
    run(["sh", "-c", proof.plant], env={"ROOT": str(tmp_path / "tree")})
    [broken] = run_checks(overlay, tmp_path / "tree", ImageFacts())
    assert broken.outcome is Outcome.FAIL
    assert proof.evidence in broken.evidence
