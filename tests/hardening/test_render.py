"""Rendering a profile is a function of what it is given, and its digest changes exactly when what is done changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.foundation.errors import ContentError
from hardening.foundation.process import run
from hardening.model import Control, Enforcement, LoadedControl, Profile
from hardening.overlay import driver, materialise
from hardening.render import Overlay, render

TODAY = date(2026, 6, 1)
FACTS = {"kind": "container"}


def banner(**changes: Any) -> LoadedControl:
    """A control with one param of each type, a template and an apply script."""
    control = Control.model_validate(
        {
            "id": "banner",
            "title": "Shows a banner",
            "severity": "low",
            "applies_to": ["container"],
            "owner": "us",
            "rationale": "People want to know.",
            "cost": "A line.",
            "params": {
                "text": {"type": "string", "help": "what it says"},
                "lines": {"type": "integer", "help": "how often", "default": 1},
                "loud": {"type": "boolean", "help": "in capitals", "default": False},
                "for-whom": {"type": "list", "help": "who sees it", "default": []},
                "tone": {"type": "string", "help": "how", "default": "kind", "allowed": ["kind", "curt"]},
            },
            "files": [{"path": "/etc/motd", "source": "motd.j2", "mode": "0640", "owner": "0:4"}],
        }
    )
    loaded = LoadedControl(
        control, Path("controls/banner"), "echo apply", "echo check", {"motd.j2": "{{ params.text }}\n"}
    )
    return replace(loaded, **changes)


def profile(**entry: Any) -> Profile:
    entries = [{"control": "banner", "params": {"text": "hello"}, **entry}]
    made = Profile.model_validate({"name": "p", "title": "t", "owner": "us", "controls": entries})
    file = Path("hardening/profiles/p.toml")
    return made.model_copy(update={"controls": tuple(entry.of(file) for entry in made.controls)})


def rendered(loaded: LoadedControl | None = None, over: dict[str, Any] | None = None, **entry: Any) -> Overlay:
    controls = {"banner": loaded or banner()}
    return render(profile(**entry), controls, {"banner": over} if over else {}, FACTS, TODAY)


def test_a_file_is_rendered_with_its_mode_and_owner() -> None:
    """What control.toml declares is what the image gets."""
    [file] = rendered().files
    assert (file.path, file.content, file.mode, file.uid, file.gid) == ("/etc/motd", "hello\n", 0o640, 0, 4)


def test_scripts_see_params_as_variables() -> None:
    """Booleans are true or false, lists one item a line, names in capitals."""
    overlay = rendered(over={"loud": True, "for-whom": ["all of", "us"], "lines": 3})
    assert (
        overlay.applies[0].env
        == overlay.checks[0].env
        == {
            "PARAM_TEXT": "hello",
            "PARAM_LINES": "3",
            "PARAM_LOUD": "true",
            "PARAM_FOR_WHOM": "all of\nus",
            "PARAM_TONE": "kind",
        }
    )


def test_the_definition_has_the_last_word_on_params() -> None:
    """The definition's params win over the profile's, which win over defaults."""
    assert rendered(over={"text": "bye"}).files[0].content == "bye\n"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"text": "x", "lines": "many"}, "controls.banner.params.lines: must be of type integer, not 'many'"),
        ({"text": "x", "lines": True}, "controls.banner.params.lines: must be of type integer, not True"),
        ({"text": 7}, "controls.banner.params.text: must be of type string, not 7"),
        ({"text": "x", "loud": "yes"}, "controls.banner.params.loud: must be of type boolean, not 'yes'"),
        ({"text": "x", "for-whom": "us"}, "controls.banner.params.for-whom: must be a list of strings, not 'us'"),
        ({"text": "x", "for-whom": [1]}, "controls.banner.params.for-whom: must be a list of strings"),
        ({"text": "x", "tone": "rude"}, "controls.banner.params.tone: must be one of kind, curt, not 'rude'"),
        ({"text": "x", "txet": "y"}, "controls.banner.params.txet: unknown param"),
        ({}, "controls.banner.params.text: required, but missing"),
    ],
)
def test_wrong_params_name_the_profile_and_the_key(params: dict[str, Any], message: str) -> None:
    """One clear error: file, key path, what is allowed."""
    with pytest.raises(ContentError) as caught:
        rendered(params=params)
    assert f"hardening/profiles/p.toml: {message}" in str(caught.value)
    assert caught.value.hint


def test_an_unknown_param_suggests_the_nearest() -> None:
    """A slip of the pen is answered with what was meant."""
    with pytest.raises(ContentError, match="did you mean text"):
        rendered(params={"txet": "y"})


def test_an_unknown_control_suggests_the_nearest() -> None:
    """So is a wrong name of a control, in a profile and in a definition."""
    with pytest.raises(ContentError, match=r"unknown control: banner[\s\S]*banners"):
        render(profile(), {"banners": banner()}, {}, FACTS, TODAY)
    with pytest.raises(ContentError, match=r"p has no control baner[\s\S]*did you mean banner"):
        render(profile(), {"banner": banner()}, {"baner": {}}, FACTS, TODAY)


def test_a_control_for_machines_is_refused_in_a_container() -> None:
    """A control says what it applies to, and is held to it."""
    with pytest.raises(
        ContentError, match=r"banner applies to container, not to machine\n.*list it in a profile for container"
    ):
        render(profile(), {"banner": banner()}, {}, {"kind": "machine"}, TODAY)


@pytest.mark.parametrize(
    ("template", "message"),
    [("{{ params.txt }}", "'dict object' has no attribute 'txt'"), ("line\n{% if %}", r"\(line 2\)")],
)
def test_a_broken_template_names_its_file(template: str, message: str) -> None:
    """A missing template parameter is an error, never an empty word in a configuration file."""
    with pytest.raises(ContentError, match=f"controls/banner/files/motd.j2: template: .*{message}"):
        rendered(banner(templates={"motd.j2": template}))


def test_two_controls_cannot_install_the_same_file() -> None:
    """Which of the two would win must never be the question."""
    other = banner(control=banner().control.model_copy(update={"id": "other"}))
    both = Profile.model_validate(
        {
            "name": "p",
            "title": "t",
            "owner": "us",
            "controls": [{"control": name, "params": {"text": "x"}} for name in ("banner", "other")],
        }
    )
    with pytest.raises(ContentError, match="controls: two controls of one profile install /etc/motd: other, and one"):
        render(both, {"banner": banner(), "other": other}, {}, FACTS, TODAY)


def test_enforcement_begins_on_its_day_and_rebuilds_nothing() -> None:
    """A stage that begins changes how a failure is treated, not what the image is."""
    staged = profile(enforcement="audit", stages=[{"enforcement": "enforce", "from": date(2026, 7, 1)}])
    before, after = (
        render(staged, {"banner": banner()}, {}, FACTS, day) for day in (date(2026, 6, 30), date(2026, 7, 1))
    )
    assert before.checks[0].enforcement is Enforcement.AUDIT
    assert after.checks[0].enforcement is Enforcement.ENFORCE
    assert before.parts == after.parts


@pytest.mark.parametrize(
    "change",
    [
        {"apply": "echo other"},
        {"apply": None},
        {"check": "echo other"},
        {"templates": {"motd.j2": "other"}},
        {"control": banner().control.model_copy(update={"files": ()})},
    ],
)
def test_the_digest_covers_all_that_is_done(change: dict[str, Any]) -> None:
    """A changed script, check or file is a changed image."""
    assert rendered(banner(**change)).parts != rendered().parts


@given(st.text(), st.lists(st.text()), st.integers())
def test_the_digest_is_a_function_of_the_params(text: str, names: list[str], lines: int) -> None:
    """The same params give the same digest; another text gives another."""
    over = {"text": text, "for-whom": names, "lines": lines}
    assert rendered(over=over).parts == rendered(over=dict(reversed(over.items()))).parts
    assert rendered(over={**over, "text": text + "!"}).parts != rendered(over=over).parts


@pytest.mark.needs("root")
@pytest.mark.parametrize("text", ["plain", "with 'quotes' and $(touch /oops)", "two\nlines", "", "ünï"])
def test_params_reach_scripts_unharmed(tmp_path: Path, text: str) -> None:
    """No param can break out of its quotes in the driver."""
    (tmp_path / "tree").mkdir()
    script = 'printf %s "$PARAM_TEXT" > "$ROOT/seen"'
    materialise(rendered(banner(apply=script), over={"text": text}), tmp_path / "overlay")
    run(["sh", str(tmp_path / "overlay/apply.sh")], env={"ROOT": str(tmp_path / "tree")})
    assert (tmp_path / "tree/seen").read_text() == text
    assert (tmp_path / "tree/etc/motd").stat().st_mode & 0o7777 == 0o640


@pytest.mark.parametrize("path", ["/../../outside", "/a/../../../outside", "/etc/../..", "/"])
def test_no_file_of_a_control_is_written_beside_the_overlay(tmp_path: Path, path: str) -> None:
    """However the path came past the model: it is written as root, on the host that builds."""
    spec = banner().control.files[0].model_copy(update={"path": path})
    control = banner().control.model_copy(update={"files": (spec,)})
    with pytest.raises(ContentError, match=r"files\.path: a control installs /.*not a file in the image"):
        materialise(rendered(banner(control=control)), tmp_path / "work/overlay")
    assert not list(tmp_path.rglob("outside"))


@pytest.mark.needs("root")
@pytest.mark.parametrize("present", [True, False])
def test_a_file_for_a_program_that_is_not_there_is_left_out(tmp_path: Path, present: bool) -> None:
    """Configuration of apt has no place in an image without apt."""
    spec = banner().control.files[0].model_copy(update={"only_with": "/etc/apt"})
    control = banner().control.model_copy(update={"files": (spec,)})
    (tmp_path / "tree/etc").mkdir(parents=True)
    if present:
        (tmp_path / "tree/etc/apt").mkdir()
    materialise(rendered(banner(control=control)), tmp_path / "overlay")
    run(["sh", str(tmp_path / "overlay/apply.sh")], env={"ROOT": str(tmp_path / "tree")})
    assert (tmp_path / "tree/etc/motd").exists() is present


def test_the_driver_needs_to_know_what_to_harden(tmp_path: Path) -> None:
    """Without ROOT it stops, instead of hardening the host it runs on."""
    materialise(rendered(), tmp_path / "overlay")
    done = run(["env", "-u", "ROOT", "sh", str(tmp_path / "overlay/apply.sh")], ok=range(1, 256))
    assert "the filesystem to harden" in done.stderr


def test_the_driver_is_the_same_text_each_time() -> None:
    """It is part of the build's input."""
    assert driver(rendered()) == driver(rendered())
    assert "run banner 01-banner.sh" in driver(rendered())
