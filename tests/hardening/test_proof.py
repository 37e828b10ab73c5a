"""What proves a control: its check is red for the reason that the proof names, and healed where it must be."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from hardening.catalog import load_controls, load_profile
from hardening.foundation.errors import ContentError
from hardening.foundation.settings import ROOT
from hardening.model import Cases, Control, Enforcement, LoadedControl, Proof, Severity
from hardening.proof import (
    facts_of,
    kind_of,
    overlay_of,
    prove_broken,
    prove_hardened,
    prove_rendered,
    require_kind,
    with_control,
)
from hardening.render import Check, Overlay, Script

TODAY = date(2026, 1, 1)
SEES = 'for f in "$ROOT"/etc/bad*; do [ ! -e "$f" ] || { echo "bad: /etc/${f##*/}"; exit 1; }; done; echo none is bad'
BREAKS = 'echo x > "$ROOT/etc/bad"'


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Just enough to count as a filesystem."""
    for name in ("usr", "etc"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    return tmp_path / "tree"


def overlay(check: str = SEES, apply: str = "") -> Overlay:
    applies = (Script("c", apply, {}),) if apply else ()
    return Overlay((), applies, (Check("c", "t", Severity.LOW, Enforcement.ENFORCE, check, {}),))


def proof(**change: Any) -> Proof:
    return Proof.model_validate({"title": "t", "plant": BREAKS, "evidence": "/etc/bad", **change})


def test_a_proof_holds_where_the_check_names_what_was_planted(bare: Path, tmp_path: Path) -> None:
    """Green before, red after, with the evidence that the check gave."""
    assert prove_hardened(overlay(), bare) == (True, "none is bad")
    assert prove_broken(proof(), overlay(), bare, tmp_path / "work") == (True, "bad: /etc/bad")
    assert prove_hardened(overlay(), bare) == (False, "its check says fail: bad: /etc/bad")


@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        ({"plant": ""}, SEES, "must fail where it is broken, and says pass: none is bad"),
        ({"evidence": "/etc/worse"}, SEES, "its evidence does not name /etc/worse: bad: /etc/bad"),
        ({}, "exit 1", "must fail where it is broken, and says error"),
        ({"plant": 'echo x > "$ROOT/nowhere/bad"'}, SEES, "sh ended with status 2"),
        ({"plant": 'echo "$unset"'}, SEES, "unset: parameter not set"),
    ],
)
def test_what_proves_nothing_is_told(bare: Path, tmp_path: Path, change: dict[str, str], check: str, said: str) -> None:
    """A check that stays green, is red for another reason, or breaks; a plant that does not work."""
    proved, told = prove_broken(proof(**change), overlay(check), bare, tmp_path / "work")
    assert not proved
    assert said in told


@pytest.mark.needs("root")
@pytest.mark.parametrize(("apply", "proved"), [('rm -f "$ROOT/etc/bad"', True), ("true", False)])
def test_what_must_heal_is_applied_again(bare: Path, tmp_path: Path, apply: str, *, proved: bool) -> None:
    """An apply script that changes nothing is told."""
    found, said = prove_broken(proof(healed=True), overlay(apply=apply), bare, tmp_path / "work")
    assert found is proved
    assert proved or said.startswith("applying it does not heal what was broken; its check says fail")


def test_a_proof_breaks_the_facts_of_a_good_image() -> None:
    """TOML has no null, and lists are tuples."""
    assert facts_of(proof(facts={"run_status": "not run", "history": ["A=b"]})).run_status is None
    assert facts_of(proof(facts={"history": ["A=b"]})).history == ("A=b",)


def test_a_control_is_proved_before_a_profile_lists_it() -> None:
    """As the last one of the profile; one that is listed keeps its place and params."""
    profile = load_profile([ROOT], "container-base")
    loaded = load_controls([ROOT])["no-setuid"]
    assert with_control(profile, loaded) == profile
    without = profile.model_copy(update={"controls": profile.controls[:3]})
    last = with_control(without, loaded).controls[-1]
    assert (last.control, last.file) == ("no-setuid", str(loaded.folder / "cases.toml"))


def test_a_profile_is_for_what_all_of_its_controls_apply_to() -> None:
    """Machines where both do."""
    controls = load_controls([ROOT])
    kinds = {name: kind_of(load_profile([ROOT], name), controls) for name in ("container-static", "cis-level2")}
    assert kinds == {"container-static": "container", "cis-level2": "machine"}
    only = overlay_of(
        load_profile([ROOT], "container-base"), controls, TODAY, only="no-setuid", params={"allow": ["/a"]}
    )
    assert [(check.control, check.env) for check in only.checks] == [("no-setuid", {"PARAM_ALLOW": "/a"})]


def test_each_file_needs_a_case_that_holds() -> None:
    """What it looks like is shown, and is so."""
    given = {"title": "t", "severity": "low", "applies_to": ["container"], "owner": "o", "rationale": "r", "cost": "c"}
    files = [{"path": f"/etc/{name}", "source": name} for name in ("a", "b")]
    control = Control.model_validate({"id": "c", **given, "files": files})
    loaded = LoadedControl(control, Path(), None, SEES, {"a": "one\n", "b": "two\n"})
    cases = Cases.model_validate({"proof": [proof()], "render": [{"expect": {"/etc/a": "other\n"}}]})
    profile = with_control(load_profile([ROOT], "container-base").model_copy(update={"controls": ()}), loaded)
    wrong, lacking = prove_rendered(loaded, cases, profile, {"c": loaded}, TODAY)
    assert (wrong.passed, wrong.key, wrong.said) == (False, "render[0].expect", "/etc/a reads: one\n")
    assert not lacking.passed
    assert lacking.said.splitlines() == [
        "no [[render]] case shows what is in /etc/b", "such as:", "[[render]]", "[render.expect]",
        '"/etc/b" = """', "the whole text", '"""',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "profile", "said"),
    [
        ("machine", "container-base", 'profile: container-base is for a container.*top of the file.*"machine-base"'),
        ("container", "machine-base", 'profile: machine-base is for a machine.*top of the file.*"container-base"'),
    ],
)
def test_a_proof_on_a_profile_of_another_kind_is_refused(tmp_path: Path, kind: str, profile: str, said: str) -> None:
    """With the line that cases.toml lacks."""
    given = {"title": "t", "severity": "low", "applies_to": [kind], "owner": "o", "rationale": "r", "cost": "c"}
    loaded = LoadedControl(Control.model_validate({"id": "c", **given}), tmp_path, None, SEES, {})
    controls = load_controls([ROOT]) | {"c": loaded}
    with pytest.raises(ContentError, match=f"(?s)cases.toml: {said}"):
        require_kind(load_profile([ROOT], profile), loaded, controls)
    right = "machine-base" if kind == "machine" else "container-base"
    require_kind(load_profile([ROOT], right), loaded, controls)
