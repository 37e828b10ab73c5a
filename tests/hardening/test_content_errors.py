"""Content that is wrong is refused with one error that names the file, the key and what was meant."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from hardening.catalog import (
    ControlsOnDemand,
    load_cases,
    load_controls,
    load_policies,
    load_policy,
    load_profile,
    load_profiles,
    load_waivers,
)
from hardening.foundation.errors import ContentError
from hardening.foundation.settings import ROOT
from hardening.render import render

CONTROL = """
title = "T"
severity = "low"
applies_to = ["container"]
owner = "us"
rationale = "because"
cost = "none"
"""
PROOF = '[[proof]]\ntitle = "t"\nevidence = "e"\n'
PROFILE = 'title = "T"\nowner = "us"\n'
POLICY = PROFILE + 'rationale = "r"\nreview_by = 2027-01-01\nexception_contact = "us"\n'
WAIVER = """
controls = ["a"]
subjects = ["x-*"]
reason = "r"
owner = "ann"
approver = "bob"
created = 2026-01-01
expires = 2026-02-01
"""


def control_files(name: str, text: str = CONTROL) -> dict[str, str]:
    """The files of a whole control."""
    parts = {"control.toml": text, "check.sh": "exit 0\n", "cases.toml": PROOF}
    return {f"controls/{name}/{part}": content for part, content in parts.items()}


def root_with(folder: Path, **texts: str) -> Path:
    """A content root with the given files; the default is one whole control `a`."""
    files = {**control_files("a"), **texts}
    for name, text in files.items():
        path = folder / "hardening" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def refused(load: object, *args: object) -> str:
    with pytest.raises(ContentError) as caught:
        load(*args)  # type: ignore[operator]
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_what_ships_loads() -> None:
    """The catalog of this checkout is whole."""
    roots = [ROOT]
    assert load_controls(roots)
    assert load_profiles(roots)
    assert isinstance(load_policies(roots), dict)
    assert isinstance(load_waivers(roots), tuple)


@pytest.mark.parametrize("missing", ["title", "severity", "applies_to", "owner", "rationale", "cost"])
def test_a_control_says_all_of_it(tmp_path: Path, missing: str) -> None:
    """Rationale, cost and owner are no decoration: without one of them a control does not load."""
    text = "\n".join(line for line in CONTROL.splitlines() if not line.startswith(missing))
    root = root_with(tmp_path, **{"controls/a/control.toml": text})
    assert f"controls/a/control.toml: {missing}: required, but missing" in refused(load_controls, [root])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CONTROL + 'titel = "x"', "titel: unknown key\n  hint: did you mean title?"),
        (CONTROL.replace('"low"', '"lwo"'), "severity: must be 'critical', 'high', 'medium', 'low'"),
        (CONTROL.replace('["container"]', "[]"), "applies_to: "),
        (CONTROL.replace('"because"', '"  "'), "rationale: "),
        (CONTROL + '[params.x]\ntype = "number"\nhelp = "h"', "params.x.type: must be 'string'"),
        (CONTROL + '[params.x]\ntype = "string"', "params.x.help: required, but missing"),
        (CONTROL + '[params.x]\ntype = "integer"\nhelp = "h"\ndefault = "3"', "default must be of type integer"),
        (CONTROL + '[params.x]\ntype = "list"\nhelp = "h"\ndefault = [1]', "default must be a list of strings"),
        (CONTROL + '[[files]]\npath = "etc/x"\nsource = "x"', "files[0].path: "),
        (CONTROL + '[[files]]\npath = "/../../keys/x.pub"\nsource = "x"', "files[0].path: a path in the image has no"),
        (CONTROL + '[[files]]\npath = "/x\\ny"\nsource = "x"', "files[0].path: must be an absolute path"),
        (CONTROL + '[[files]]\npath = "/x"\nsource = "x"\nonly_with = "/a/../.."', "files[0].only_with: a path in the"),
        (CONTROL + '[[files]]\npath = "/etc/x"\nsource = "x"\nmode = "644"', "files[0].mode: "),
        (CONTROL + '[[files]]\npath = "/etc/x"\nsource = "x"\nowner = "root"', "files[0].owner: "),
        ("title = T", "not TOML"),
    ],
)
def test_a_wrong_control_names_its_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    """Unknown keys, wrong types and wrong values: file, key path, what is allowed."""
    root = root_with(tmp_path, **{"controls/a/control.toml": text})
    error = refused(load_controls, [root])
    assert "hardening/controls/a/control.toml" in error
    assert message in error


@pytest.mark.parametrize("part", ["control.toml", "check.sh", "cases.toml"])
def test_a_control_without_check_or_proof_does_not_load(tmp_path: Path, part: str) -> None:
    """A control that nothing checks, or that nothing proves, does not land."""
    root = root_with(tmp_path)
    (root / "hardening/controls/a" / part).unlink()
    assert f"controls/a/{part}: " in refused(load_controls, [root])


@pytest.mark.parametrize("text", ["", "proof = []", '[[render]]\nexpect = {"/x" = "y"}'])
def test_cases_hold_at_least_one_proof(tmp_path: Path, text: str) -> None:
    """An empty cases.toml is no proof."""
    root = root_with(tmp_path, **{"controls/a/cases.toml": text})
    assert "cases.toml: proof: " in refused(load_cases, load_controls([root])["a"])


def test_declared_files_are_there_and_present_files_are_declared(tmp_path: Path) -> None:
    """A template that nobody installs, or that does not exist, is a mistake either way."""
    declared = CONTROL + '[[files]]\npath = "/etc/x"\nsource = "x.j2"\n'
    root = root_with(tmp_path, **{"controls/a/control.toml": declared, "controls/a/files/y.j2": "text"})
    assert "no such file" in refused(load_controls, [root])
    (root / "hardening/controls/a/files/x.j2").write_text("text")
    assert "files/y.j2: not declared in control.toml" in refused(load_controls, [root])


def test_two_files_of_functions_define_no_name_twice(tmp_path: Path) -> None:
    """The shell would take the later function for both, also where the control's scripts mean the other."""
    text = CONTROL + 'functions = ["one", "two"]\n'
    parts = {"functions/one.sh": "idle() {\n    true\n}\n", "functions/two.sh": "# idle() too\nidle() { false; }\n"}
    root = root_with(tmp_path, **{"controls/a/control.toml": text}, **parts)
    error = refused(load_controls, [root])
    assert "a/control.toml: functions: one and two both define idle\n  hint: rename one of the two" in error
    (tmp_path / "hardening/functions/two.sh").write_text("# idle() elsewhere\nbusy() { false; }\n")
    assert set(load_controls([root])) == {"a"}


def test_the_same_name_in_two_roots_names_both(tmp_path: Path) -> None:
    """A company's root adds to ours and never silently replaces a control of it."""
    one, two = root_with(tmp_path / "one"), root_with(tmp_path / "two")
    error = refused(load_controls, [one, two])
    assert str(one / "hardening/controls/a") in error
    assert str(two / "hardening/controls/a") in error


def test_a_second_root_adds_its_content(tmp_path: Path) -> None:
    """Content outside the checkout stands beside ours, and its profiles can extend ours."""
    root = root_with(
        tmp_path, **{"profiles/ours.toml": PROFILE + 'extends = "container-base"\ncontrols = [{control = "a"}]'}
    )
    assert {"a", "no-setuid"} <= set(load_controls([ROOT, root]))
    names = [entry.control for entry in load_profile([ROOT, root], "ours").controls]
    assert names[-1] == "a"
    assert "no-setuid" in names


def test_a_profile_replaces_in_place_and_leaves_out_with_a_reason(tmp_path: Path) -> None:
    """The order of application is the base's; what is replaced keeps its place."""
    child = PROFILE + 'extends = "base"\ncontrols = [{control = "b", enforcement = "warn"}, {control = "d"}]\n'
    root = root_with(
        tmp_path,
        **{
            "profiles/base.toml": PROFILE + 'controls = [{control = "a"}, {control = "b"}, {control = "c"}]',
            "profiles/child.toml": child + '[without]\na = "not here"',
        },
    )
    entries = load_profile([root], "child").controls
    assert [(entry.control, entry.enforcement) for entry in entries] == [
        ("b", "warn"),
        ("c", "enforce"),
        ("d", "enforce"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PROFILE + 'extends = "bse"', "extends: unknown profile: bse\n  hint: did you mean base?"),
        (PROFILE + 'extends = "p"', "profiles extend each other in a circle: p → p"),
        (PROFILE + 'extends = "base"\n[without]\nx = "r"', "without.x: base does not list it"),
        (PROFILE + 'extends = "base"\n[without]\na = ""', "without.a: "),
        (PROFILE, "controls: contains no control"),
        (PROFILE + 'extends = "base"\n[without]\na = "r"', "controls: contains no control"),
        (PROFILE + 'controls = [{control = "a"}, {control = "a"}]', "controls: a is listed twice"),
        (PROFILE + 'controls = [{control = "a", enforcment = "warn"}]', "enforcment: unknown key"),
        (PROFILE + 'controls = [{control = "a", enforcement = "off"}]', "controls[0].enforcement: must be 'audit'"),
        (PROFILE + 'controls = [{control = "a", stages = [{enforcement = "warn"}]}]', "stages[0].from: required"),
    ],
)
def test_a_wrong_profile_names_its_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    """A profile that refers to nothing, to itself, or twice, is refused."""
    base = PROFILE + 'controls = [{control = "a"}]'
    root = root_with(tmp_path, **{"profiles/base.toml": base, "profiles/p.toml": text})
    error = refused(load_profile, [root], "p")
    assert "hardening/profiles/p.toml" in error
    assert message in error


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('{control = "b"}', "controls: unknown control: b"),
        ('{control = "a", params = {x = 1}}', "controls.a.params.x: unknown param"),
        ('{control = "needs", params = {port = "x"}}', "controls.needs.params.port: must be of type integer"),
        ('{control = "needs"}', "controls.needs.params.port: required, but missing"),
    ],
)
@pytest.mark.parametrize("wrong", ["base", "child"])
def test_a_slip_is_reported_against_the_profile_that_holds_it(
    tmp_path: Path, entry: str, message: str, wrong: str
) -> None:
    """Not against the one that extends it, nor that which it extends."""
    control = CONTROL + '[params.port]\ntype = "integer"\nhelp = "h"\n'
    entries = {"base": '{control = "a"}', "child": '{control = "c"}', wrong: entry}
    root = root_with(
        tmp_path,
        **control_files("c"),
        **control_files("needs", control),
        **{
            "profiles/base.toml": PROFILE + f"controls = [{entries['base']}]",
            "profiles/child.toml": PROFILE + f'extends = "base"\ncontrols = [{entries["child"]}]',
        },
    )
    found = load_profile([root], "child")
    error = refused(render, found, load_controls([root]), {}, {}, date(2026, 1, 1))
    assert f"hardening/profiles/{wrong}.toml: {message}" in error


def test_unknown_names_are_answered_with_the_nearest(tmp_path: Path) -> None:
    """A name that is not there comes with those that are near."""
    root = root_with(
        tmp_path, **{"profiles/base.toml": PROFILE + 'controls = [{control = "a"}]', "policies/default.toml": POLICY}
    )
    assert "did you mean base?" in refused(load_profile, [root], "bas")
    assert "did you mean default?" in refused(load_policy, [root], "defualt")
    assert load_policy([root], "default").name == "default"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("expires = 2026-02-01", ""), "expires: required, but missing"),
        (("2026-02-01", "2028-02-01"), "within 366 days"),
        (('"bob"', '"ann"'), "approver and owner must be two people"),
        (('controls = ["a"]', ""), "names something under at least one of controls"),
        (('["x-*"]', "[]"), "subjects: "),
    ],
)
def test_a_waiver_is_bounded_and_seen_by_two(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    """An exception without an end, a reason or a second person is none."""
    root = root_with(tmp_path, **{"waivers/w.toml": WAIVER.replace(*change)})
    error = refused(load_waivers, [root])
    assert "hardening/waivers/w.toml" in error
    assert message in error


def test_a_waiver_for_nothing_is_refused(tmp_path: Path) -> None:
    """A slip in a name would be an exception that its author believes in; what is named under a wrong key as well."""
    root = root_with(
        tmp_path, **{"waivers/w.toml": WAIVER + 'rules = ["max-age", "boot-listening", "benchmark-score"]'}
    )
    assert load_waivers([root])
    for line, said in UNKNOWN:
        root = root_with(tmp_path, **{"waivers/w.toml": WAIVER.replace('controls = ["a"]', line)})
        assert said in refused(load_waivers, [root])


UNKNOWN = [
    ('controls = ["b"]', "waivers/w.toml: controls: unknown control: b\n  hint: known: a"),
    ('controls = ["max-age"]', "controls: unknown control: max-age\n  hint: max-age belongs under rules"),
    ('rules = ["max-ago"]', "rules: unknown rule: max-ago\n  hint: did you mean max-age"),
    ('rules = ["a"]\ncontrols = ["a"]', "rules: unknown rule: a\n  hint: a belongs under controls"),
    ('rules = ["revoked"]', "rules: revoked cannot be waived"),
    ('rules = ["CVE-2026-0001"]', "rules: CVE-2026-0001 is a vulnerability: it stands under `vulnerabilities`, with"),
    ('controls = ["GHSA-2j2x-hqr9-3h42"]', "controls: GHSA-2j2x-hqr9-3h42 is a vulnerability: it stands under"),
    *(
        (f'rules = ["{rule}"]', f"rules: unknown rule: {rule}")
        for rule in ("judges", "checks", "trivy-secret-evaluated")
    ),
    (
        'vulnerabilities = ["CVE-206-1"]\npackages = ["p"]',
        "vulnerabilities[0]: must be a vulnerability's id",
    ),
    ('vulnerabilities = ["no-setuid"]\npackages = ["p"]', "vulnerabilities[0]: must be a vulnerability's id"),
    ('vulnerabilities = ["CVE-2026-0001"]', "vulnerabilities and packages go together"),
    ('secrets = ["private-key"]', "secrets and paths go together"),
    ('secrets = ["private-key"]\npaths = ["/*"]', "paths[0]: must be an absolute path"),
    ('controls = ["a"]\npackages = ["p"]', "vulnerabilities and packages go together"),
    ('controls = ["a"]\nversions = ["1"]', "versions are those of packages"),
]


def test_a_waiver_of_a_further_root_reaches_that_roots_subjects_alone(tmp_path: Path) -> None:
    """The checkout's reaches all; `*` in another root is all that it defines, and no member of others' fleets."""
    first, other = root_with(tmp_path / "one"), tmp_path / "two"
    (other / "hardening/waivers").mkdir(parents=True)
    (other / "images/definitions/theirs").mkdir(parents=True)
    (other / "pipelines/fleets").mkdir(parents=True)
    (other / "pipelines/fleets/shop.toml").write_text("")
    (other / "hardening/waivers/w.toml").write_text(WAIVER.replace('"x-*"', '"*"'))
    [found] = load_waivers([first, other])
    reached = {subject: found.reaches(subject) for subject in ("theirs", "ours", "shop/web-1", "shop", "theirs/web-1")}
    assert reached == {"theirs": True, "ours": False, "shop/web-1": True, "shop": False, "theirs/web-1": False}
    assert load_waivers([other, root_with(tmp_path / "three")])[0].reaches("ours")


def test_waivers_are_named_by_their_file(tmp_path: Path) -> None:
    """The id is the file's name, so that two of the same id cannot exist."""
    root = root_with(tmp_path, **{"waivers/w2.toml": WAIVER, "waivers/w1.toml": WAIVER})
    assert [waiver.id for waiver in load_waivers([root])] == ["w1", "w2"]


def test_a_control_that_does_not_load_concerns_those_alone_who_use_it(tmp_path: Path) -> None:
    """A night loads each when an image asks for it; a profile that names the broken one says what is wrong there."""
    texts = {
        "controls/b/control.toml": "title = unquoted",
        "profiles/p.toml": PROFILE + 'controls = [{ control = "a" }]\n',
    }
    texts["profiles/q.toml"] = PROFILE + 'controls = [{ control = "a" }, { control = "b" }]\n'
    root = root_with(tmp_path, **texts)
    controls = ControlsOnDemand((root,))
    assert [*controls] == ["a", "b"]
    overlay = render(load_profile((root,), "p"), controls, {}, {"kind": "container"}, date(2026, 1, 1))
    assert [check.control for check in overlay.checks] == ["a"]
    with pytest.raises(ContentError, match=r"b/control\.toml: not TOML"):
        render(load_profile((root,), "q"), controls, {}, {"kind": "container"}, date(2026, 1, 1))
    with pytest.raises(ContentError, match=r"b/control\.toml: not TOML"):
        load_controls((root,))
