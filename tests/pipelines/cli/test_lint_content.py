"""`lint` loads and cross-checks all content of all roots, and tells all that is wrong at once."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

import tasks
from hardening.foundation.content import load_toml
from hardening.foundation.errors import ContentError
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT, Judging, Packages, Registry, Settings
from images.context import Context
from images.plan.upstream import Pin, render_lock
from pipelines.demo.flow import CONTENT as DEMO
from pipelines.fleet.model import Fleet
from pipelines.lint import (
    _require_apart,
    content_problems,
    in_memory,
    lint_content,
    unused_controls,
)
from pipelines.rollout.session import fleet_session
from tests.support.loop import CHILD, Goldsmith, definition
from tests.support.signing import UPSTREAM_RULE, KeyInMemory

TODAY = date(2026, 6, 1)
PIN = Pin(digest=f"sha256:{'1' * 64}", platforms={"linux/amd64": f"sha256:{'2' * 64}"})
CONTROL = {
    "control.toml": 'title = "T"\nseverity = "low"\napplies_to = ["container"]\nowner = "us"\nrationale = "r"\n'
    'cost = "c"\nparams = { port = { type = "integer", help = "h", default = 1 } }\n',
    "check.sh": "echo seen\n",
    "cases.toml": '[[proof]]\ntitle = "t"\nevidence = "e"\n',
}
PROFILE = 'title = "T"\nowner = "us"\n'
POLICY = PROFILE + 'rationale = "r"\nreview_by = 2027-01-01\nexception_contact = "us"\n'
POLICY += '[[image.vulnerabilities]]\nseverity = "high"\n'
FLEET = PROFILE + 'kind = "docker"\nselector = { a = "b" }\n'
OTHER = FLEET.replace('"b"', '"c"')
WAIVER = """
controls = ["no-setuid"]
subjects = ["l-one"]
reason = "r"
owner = "ann"
approver = "bob"
created = 2026-05-01
expires = 2026-07-01
"""
ON_MACHINE = CHILD.replace("debian-base", "debian-server")
SERVER = PROFILE + 'kind = "machine"\nprofile = "cis-level1"\nbase = { golden = "debian-server" }\n'
TO = 'replacement = { definition = "l-one" }\n'
MINE = "hardening/controls/l-control"
SOUND = {
    **{f"{MINE}/{name}": text for name, text in CONTROL.items()},
    "hardening/profiles/l-profile.toml": PROFILE + 'extends = "container-base"\ncontrols = [{ control = "l-control" }]',
    "hardening/policies/l-policy.toml": POLICY,
    "hardening/waivers/l-waiver.toml": WAIVER,
    "pipelines/fleets/l-fleet.toml": FLEET + 'policy = "l-policy"\n' + TO,
}


def problems(root: Path, **changes: str | None) -> list[str]:
    """What is wrong with a root that would be sound, were it not for `changes`: path → text, or None for no file."""
    definition(root, "l-one", CHILD.replace("container-base", "l-profile"))
    for name, text in {**SOUND, **changes}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(text)
    return [str(error).replace(f"{root}/", "") for error in content_problems((ROOT, root), TODAY)]


def test_what_is_whole_is_sound(tmp_path: Path) -> None:
    """One of each format in a root of its own; what ships, and what the demo brings."""
    assert problems(tmp_path) == []
    assert content_problems((ROOT, DEMO), TODAY) == ()


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        (f"{MINE}/check.sh", None, "check.sh: required, but missing"),
        (f"{MINE}/cases.toml", 'profile = "containr-base"\n' + CONTROL["cases.toml"], "profile: unknown profile:"),
        (f"{MINE}/cases.toml", CONTROL["cases.toml"] + "params = { prt = 1 }", "proof[0].params.prt: unknown param"),
        (f"{MINE}/cases.toml", "", "cases.toml: proof: required, but missing"),
        (f"{MINE}/control.toml", CONTROL["control.toml"] + "[[files]]\npath = '/x'\nsource = 'x'", "files.source"),
        ("hardening/profiles/l-other.toml", PROFILE + 'controls = [{ control = "l-contrl" }]', "you mean l-control"),
        (
            "hardening/profiles/l-other.toml",
            PROFILE + 'controls = [{ control = "l-control", params = { prt = 1 } }]',
            "controls.l-control.params.prt: unknown param\n  hint: did you mean port?",
        ),
        ("hardening/policies/l-other.toml", POLICY + "[image.judge]\nminimum = 1", "image.judge: unknown key"),
        ("hardening/waivers/l-other.toml", WAIVER.replace("l-one", "l-on"), "subjects[0]: l-on is neither a"),
        ("hardening/waivers/l-other.toml", WAIVER.replace("l-one", "l-on"), "hint: did you mean l-one"),
        ("hardening/waivers/l-other.toml", WAIVER.replace("l-one", "x-*"), "subjects[0]: x-* is neither a"),
        ("hardening/waivers/l-other.toml", WAIVER.replace("l-one", "l-flet/web"), "did you mean l-fleet"),
        (
            "hardening/waivers/l-other.toml", WAIVER.replace("no-setuid", "no-setuit"),
            "controls: unknown control: no-setuit\n  hint: did you mean no-setuid",
        ),
        (
            "hardening/waivers/l-other.toml", WAIVER.replace("no-setuid", "boot-listening"),
            "controls: unknown control: boot-listening\n  hint: boot-listening belongs under rules",
        ),
        ("hardening/waivers/l-other.toml", WAIVER.replace("l-one", "debian-base"), "of this content root, whose"),
        ("hardening/waivers/l-other.toml", WAIVER.replace("l-one", "r.example.com/app"), "subjects[0]: r.example.com"),
        ("hardening/policies/l-other.toml", POLICY.partition("[[")[0], "image.vulnerabilities: no window is enforced"),
        (
            "hardening/policies/l-other.toml", POLICY + 'enforcement = "warn"\n',
            "image.vulnerabilities: no window is enforced",
        ),
        ("pipelines/fleets/l-other.toml", OTHER + 'policy = "l-polic"\n' + TO, "policy: unknown policy: l-polic"),
        (
            "pipelines/fleets/l-other.toml", OTHER + TO.replace("l-one", "l-on"),
            "replacement.definition: l-on is not a definition\n  hint: did you mean l-one",
        ),
        (
            "pipelines/fleets/l-other.toml", FLEET.replace('"b"', '"b", c = "d"') + 'policy = "l-policy"\n' + TO,
            "selector: it selects what the fleet l-fleet selects",
        ),
        (
            "pipelines/fleets/l-other.toml", OTHER + 'policy = "l-policy"\n' + TO + '[docker]\nhosts = ["ssh://-oX=y"]\n',
            "docker.hosts[0]: ssh://-oX=y does not name a machine",
        ),
        ("images/definitions/l-two/image.toml", CHILD.replace("debian-base", "l-on"), "base.golden: l-on is not a def"),
        ("images/definitions/l-two/image.toml", CHILD.replace("debian-base", "l-two"), "in a circle: l-two"),
        ("images/definitions/l-two/image.toml", 'policy = "l-polic"\n' + CHILD, "policy: unknown policy: l-polic"),
        (
            "images/definitions/l-two/image.toml", SERVER.replace("debian-server", "l-one"),
            "base.golden: l-one is a container, and this a machine",
        ),
        ("images/definitions/l-two/image.toml", ON_MACHINE, "is a machine, and this a"),
        ("images/definitions/l-two/Dockerfile.j2", "RUN id", "nothing runs it: a machine is made of packages, files"),
    ],
)  # fmt: skip
def test_a_slip_anywhere_is_told_with_file_and_key(tmp_path: Path, path: str, text: str | None, said: str) -> None:
    """Once, and nothing else is blamed for it."""
    beside = {"images/definitions/l-two/image.toml": SERVER} if path.endswith(".j2") else {}
    [found] = problems(tmp_path, **beside, **{path: text})
    assert path in found
    assert said in found


FILES = '[[files]]\npath = "/etc/x"\nsource = "x"\n'
RENDER = '[[render]]\n[render.expect]\n"/etc/x" = "1\\n"\n'


@pytest.mark.parametrize(
    ("control", "cases", "template", "said"),
    [
        (FILES, "", "{{ params.port }}\n", "render: each file has a case: no [[render]] case shows what is in /etc/x"),
        (FILES, RENDER, "{{ params.prt }}\n", "files/x: template: "),
        (FILES, RENDER, "{{ params.prt }}\n", "hint: it may use params.port"),
        (FILES, RENDER, "no\n", "cases.toml: render[0].expect: files with the default params: /etc/x reads: no"),
        ("MACHINE", "", "", 'cases.toml: profile: container-base is for a container'),
        (
            'files = ["x"]\n', "", "x",
            "files[0]: must be a table, as after [name] or in { }, not 'x'\n  hint: its keys are path, source, mode",
        ),
    ],
)  # fmt: skip
def test_what_a_proof_would_find_without_a_tree_is_told_of_a_control_in_no_profile_too(
    tmp_path: Path, control: str, cases: str, template: str, said: str
) -> None:
    """What each file reads, what a template may use, and the kind of the profile."""
    text = CONTROL["control.toml"]
    text = text.replace('["container"]', '["machine"]') if control == "MACHINE" else text + control
    changes = {
        f"{MINE}/control.toml": text,
        f"{MINE}/cases.toml": CONTROL["cases.toml"] + cases,
        f"{MINE}/files/x": template if FILES in text else None,
        "hardening/profiles/l-profile.toml": SOUND["hardening/profiles/l-profile.toml"].replace("l-control", "no-cron"),
    }
    [found] = problems(tmp_path, **changes)
    assert said in found


def test_a_folder_where_a_file_belongs_is_told(tmp_path: Path) -> None:
    """It is not passed over: whoever made it believes that it counts."""
    (tmp_path / "network/x.toml").mkdir(parents=True)
    (tmp_path / "pipelines/fleets/y.toml").mkdir(parents=True)
    found = problems(tmp_path)
    for name in ("network/x.toml", "pipelines/fleets/y.toml"):
        assert any(one.startswith(f"{name}: cannot be read: Is a directory") for one in found), found


def test_a_template_that_no_image_uses_yet_is_read_too(tmp_path: Path) -> None:
    """Whoever writes the control learns of the slip, not who first lists it in a profile."""
    other = "hardening/controls/l-other"
    texts = {f"{other}/{name}": text for name, text in CONTROL.items()}
    texts[f"{other}/control.toml"] += "[[files]]\npath = '/etc/x'\nsource = 'x.j2'\n"
    [found] = problems(tmp_path, **texts, **{f"{other}/files/x.j2": "one\n{{ params.port"})
    assert f"{other}/files/x.j2: template: " in found
    assert "(line 2)" in found


@pytest.mark.parametrize("subject", ["l-*", "*", "l-fleet/web-1", "l-fleet*", "l-*/web"])
def test_a_waiver_may_be_for_definitions_and_members_of_its_own_root(tmp_path: Path, subject: str) -> None:
    """By name or glob; members come and go, so that only their fleet must be known."""
    assert problems(tmp_path, **{"hardening/waivers/l-other.toml": WAIVER.replace("l-one", subject)}) == []


def test_a_policy_that_may_publish_is_no_weaker_than_the_floor(tmp_path: Path) -> None:
    """The settings name both; each field that is weaker is told, with the file."""
    assert problems(tmp_path) == []
    both = Settings(judging=Judging(policies=("default", "machine", "l-policy")))
    [found] = content_problems((ROOT, tmp_path), TODAY, both)
    assert str(found).startswith(f"{tmp_path}/hardening/policies/l-policy.toml: the policy l-policy is weaker than")
    assert "image.vulnerabilities: exploited ones of severity low" in found.evidence
    assert "running.max_age: not asked" in found.evidence
    assert content_problems((ROOT, tmp_path), TODAY, Settings(judging=Judging(policies=("l-policy",), floor=""))) == ()
    misspelt = Settings(judging=Judging(policies=("defualt", "l-policy")))
    unknown, weak = content_problems((ROOT, tmp_path), TODAY, misspelt)
    assert "judging.policies[0]: unknown policy: defualt" in str(unknown)
    assert str(weak) == str(found)


def test_all_that_is_wrong_is_told_at_once_and_nothing_for_what_follows_from_it(tmp_path: Path) -> None:
    """A broken control, a broken parent and a broken fleet are three errors, not six."""
    changes = {
        f"{MINE}/control.toml": "title = 3",
        "images/definitions/l-two/image.toml": "title = 3",
        "images/definitions/l-three/image.toml": CHILD.replace("debian-base", "l-two"),
        "pipelines/fleets/l-other.toml": "title = 3",
    }
    found = problems(tmp_path, **changes)
    assert len(found) == 3, found
    assert all(any(text.startswith(path) for text in found) for path in changes if "three" not in path)


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        (
            f"{MINE}/cases.toml",
            'profile = "nix"\n' + CONTROL["cases.toml"] + 'params = { prt = 1, port = "x" }\nprofile = "nox"\n',
            ["profile: unknown profile: nix", "proof[0].profile: unknown profile: nox",
             "proof[0].params.prt: unknown param", "proof[0].params.port: must be of type integer"],
        ),
        (
            f"{MINE}/control.toml",
            'functions = ["nope", "nada"]\n' + CONTROL["control.toml"] + "[[files]]\npath = '/x'\nsource = 'x'\n",
            ["functions: nope", "functions: nada", "no such file: "],
        ),
        (
            "hardening/profiles/l-other.toml",
            PROFILE + 'extends = "container-base"\ncontrols = [{ control = "l-contrl" }, { control = "l-control", '
            'params = { prt = 1, port = "x" } }]\nwithout = { none = "x", nobody = "x" }',
            ["without.none: ", "without.nobody: ", "unknown control: l-contrl", "params.prt", "params.port"],
        ),
        (
            "hardening/waivers/l-other.toml",
            WAIVER.replace('["no-setuid"]', '["nope", "nada"]').replace('["l-one"]', '["l-on", "l-flet/x"]')
            .replace("bob", "ann").replace("2026-07-01", "2029-07-01"),
            ["unknown control: nope", "unknown control: nada", "subjects[0]", "subjects[1]", "approver", "expires"],
        ),
        (
            "images/definitions/l-two/image.toml",
            'policy = "l-polic"\nfiles = [{ source = "a", path = "/a" }, { source = "b", path = "/b" }]\n'
            + CHILD.replace("debian-base", "l-on").replace("container-base", "containr-base"),
            ["policy: unknown policy: l-polic", "a is not a file", "b is not a file", "base.golden: l-on is not a",
             "profile: unknown profile: containr-base"],
        ),
    ],
)  # fmt: skip
def test_all_that_is_wrong_with_a_file_is_told_at_once(tmp_path: Path, path: str, text: str, said: list[str]) -> None:
    """Nobody mends one error to meet the next."""
    found = [one for one in problems(tmp_path, **{path: text}) if path in one]
    assert [one for one in said if not any(one in error for error in found)] == [], found


def test_a_control_that_no_profile_uses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no error: a root may hold controls for others. What ships has none."""
    for name, text in {f"{MINE}/{name}": text for name, text in CONTROL.items()}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert unused_controls([ROOT]) == []
    assert unused_controls([ROOT, tmp_path], among=["no-setuid"]) == []
    monkeypatch.setenv("GOLDSMITH_CONTENT", json.dumps([str(tmp_path)]))
    assert lint_content() == 0
    assert "hardening/controls/l-control: no profile uses it" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "hardening/profiles").mkdir()
    (tmp_path / "hardening/profiles/l-other.toml").write_text("title = 3")
    assert unused_controls([ROOT, tmp_path]) == []


def test_a_fleet_without_its_policy_is_told_before_any_engine_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File and key also from fleet.check and roll.plan, not only from lint."""
    file = tmp_path / "pipelines/fleets/l-fleet.toml"
    file.parent.mkdir(parents=True)
    file.write_text(FLEET + 'policy = "defualt"\n' + TO)
    settings = Settings(state=tmp_path / "state", content=(tmp_path,))
    context = Context(settings, datetime(2026, 6, 1, tzinfo=UTC), str, str)
    monkeypatch.setattr("pipelines.rollout.session.fleet_host", lambda _context: pytest.fail("it was asked"))
    opened = fleet_session("l-fleet", context, now=lambda: context.now)
    with pytest.raises(ContentError, match=r"l-fleet\.toml: policy: unknown policy: defualt"), opened:
        pytest.fail("it was opened")


def test_a_base_that_a_build_would_refuse_is_named_with_the_nearest(tmp_path: Path) -> None:
    """An archive of one's own may have suites that nobody else has; what is pinned and known is sound."""
    text = CHILD.replace('golden = "debian-base"', 'bootstrap = { family = "debian", suite = "trixy" }')
    root = definition(tmp_path, "l-suite", text)
    [suite] = content_problems((ROOT, root), TODAY)
    assert f"{root}/images/definitions/l-suite/image.toml: base.bootstrap.suite: unknown suite: trixy" in str(suite)
    assert suite.hint.startswith("did you mean trixie? ")
    assert content_problems((ROOT, root), TODAY, Settings(packages=Packages(mirror="http://deb.example.com"))) == ()
    shutil.rmtree(root / "images/definitions/l-suite")
    reference = "registry.example.com/team/web:1.1"
    definition(root, "l-upstream", CHILD.replace('golden = "debian-base"', f'image = "{reference}"'))
    lock = root / "images/definitions/images.lock.toml"
    other = reference.replace("1.1", "1.0")
    for pinned, hint in (("", ""), (other, f"did you mean {other}? ")):
        lock.write_text(render_lock({pinned: PIN} if pinned else {}))
        [unpinned] = content_problems((ROOT, root), TODAY)
        assert (unpinned.key, unpinned.hint) == ("base.image", f"{hint}./goldsmith image.lock l-upstream pins it")
        assert f"{reference} is not pinned, so no build takes it" in unpinned.message
    lock.write_text(render_lock({reference: PIN}))
    assert content_problems((ROOT, root), TODAY) == ()


def test_lock_files_that_differ_are_named(tmp_path: Path) -> None:
    """The pin of the root that may judge counts, wherever `content` names it; its definitions take no other."""
    further, judge, reference = tmp_path / "further", tmp_path / "judge", "registry.example.com/team/web:1"
    settings = Settings(content=(further, judge), judging=Judging(roots=(judge,)))
    definition(judge, "l-upstream", CHILD.replace('golden = "debian-base"', f'image = "{reference}"'))
    lock, own = (root / "images/definitions/images.lock.toml" for root in (further, judge))
    lock.parent.mkdir(parents=True)
    lock.write_text(render_lock({reference: PIN}))
    [unpinned] = content_problems(settings.roots, TODAY, settings)
    assert f"{reference} is not pinned, so no build takes it" in unpinned.message
    own.write_text(render_lock({reference: PIN}))
    assert content_problems(settings.roots, TODAY, settings) == ()
    lock.write_text(render_lock({reference: PIN.model_copy(update={"platforms": {}})}))
    [differs] = content_problems(settings.roots, TODAY, settings)
    assert str(differs).startswith(f'{lock}: images."{reference}": {own} pins it otherwise, and that pin counts')


def test_a_base_that_trust_refuses_is_named_with_the_nearest(tmp_path: Path) -> None:
    """By the floor's rules, or as one of our own images; a rule for it, and a broken floor, are no second error."""
    (tmp_path / "hardening/policies").mkdir(parents=True)
    rule = UPSTREAM_RULE.replace("127.0.0.1:", "registry.example.com/team/") % KeyInMemory().trusted("one").public
    refuse = f'[trust]\nupstream_default = "refuse"\n{rule}'
    floor = tmp_path / "hardening/policies/l-floor.toml"
    floor.write_text((ROOT / "hardening/policies/default.toml").read_text() + refuse)
    judging = Judging(roots=(tmp_path,), floor="l-floor", policies=("l-floor",))
    settings = Settings(content=(tmp_path,), judging=judging, registry=Registry(address="registry.own.example/images"))
    file = tmp_path / "images/definitions/l-upstream/image.toml"
    definition(tmp_path, "l-upstream", "")

    def found(reference: str) -> list[str]:
        file.write_text(CHILD.replace('golden = "debian-base"', f'image = "{reference}"'))
        (tmp_path / "images/definitions/images.lock.toml").write_text(render_lock({reference: PIN}))
        return [str(one) for one in content_problems(settings.roots, TODAY, settings)]

    assert found("registry.example.com/team/web:1") == []
    [other] = found("registry.example.com/taem/web:1")
    assert f"{file}: base.image: no rule in trust.upstream of the policy l-floor covers the base" in other
    assert "hint: did you mean registry.example.com/team/? add [[trust.upstream]] there" in other
    [own] = found("registry.own.example/images/nginx:1")
    assert f"{file}: base.image: the base registry.own.example/images/nginx:1 is where this installation" in own
    floor.write_text("title =")
    assert not [one for one in found("registry.example.com/taem/web:1") if "base.image" in one]


def test_the_home_of_another_user_is_named_and_stops_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Invoke would read its settings there, and end with a traceback; registry logins are there too."""
    (tmp_path / ".invoke.yaml").write_text("{")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Goldsmith(tmp_path / "state", "unix:///nowhere").here("control.list", "--json").json
    assert lint_content() == 0
    monkeypatch.setattr("os.access", lambda *_: False)
    assert lint_content() == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"environment: HOME: user id {os.geteuid()} cannot read {tmp_path} hint: set it to a directory" in said


def test_it_is_printed_and_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, with the number of what is wrong; sound content ends with 0 and says what was looked at."""
    root = definition(tmp_path, "l-one", CHILD.replace("debian-base", "debian-bse"))
    monkeypatch.setenv("GOLDSMITH_CONTENT", json.dumps([str(root)]))
    assert lint_content() == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "base.golden: debian-bse is not a definition" in said
    assert f"{root}: 1 wrong" in said
    monkeypatch.delenv("GOLDSMITH_CONTENT")
    monkeypatch.setenv("GOLDSMITH_SERVE__NIGHTLY", "0 2 * *")
    assert lint_content() == 2
    assert "serve.nightly: a schedule has five fields" in " ".join(capsys.readouterr().err.split())
    monkeypatch.delenv("GOLDSMITH_SERVE__NIGHTLY")
    assert lint_content() == 0
    assert "sound" in capsys.readouterr().err


@pytest.mark.parametrize("content", [True, False])
def test_whoever_writes_content_needs_no_linters(content: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lint --content` starts none of the programs that look at the project's own code; `lint` does."""
    started: list[object] = []
    monkeypatch.setattr("pipelines.lint.run_checks", lambda checks: started.append(checks) or 0)
    tasks.lint.body(None, content=content)
    assert bool(started) is not content


@pytest.mark.needs("root")
def test_tests_have_their_temporary_files_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/tmp stays with all that others have there; without enough memory the command stays as it is."""
    look = (
        "import tempfile; from pathlib import Path; room = Path(tempfile.gettempdir()); (room / 'inside').touch(); "
        f"print([one.split()[2] for one in open('/proc/mounts') if f' {{room}} ' in one], Path('{tmp_path}').exists())"
    )
    monkeypatch.setattr("images.store.files.fits_in_memory", lambda _: True)
    command = in_memory(("python",), str(tmp_path))
    assert command[-1] == f"--basetemp={tmp_path}/tests"
    assert run([*command[:-1], "-c", look]).stdout == "['tmpfs'] True\n"
    assert [*tmp_path.iterdir()] == []
    monkeypatch.setattr("images.store.files.fits_in_memory", lambda _: False)
    assert in_memory(("pytest", "-q"), str(tmp_path)) == ("pytest", "-q")


def test_fleets_of_other_hosts_and_accounts_have_no_member_in_common(tmp_path: Path) -> None:
    """Where both name them; one that names none, or all accounts of an organisation, may be anywhere."""
    told = list[Fleet]()

    def refused(name: str, where: str) -> bool:
        table = f'{FLEET}policy = "default"\n{TO}{where}\n'
        (tmp_path / f"{name}.toml").write_text(table)
        told.append(load_toml(tmp_path / f"{name}.toml", Fleet, name=name))
        try:
            _require_apart(told[-1], tmp_path / f"{name}.toml", told[:-1])
        except ContentError:
            return True
        return False

    assert not refused("one", '[docker]\nhosts = ["ssh://web-1", "ssh://web-2"]')
    assert not refused("two", '[docker]\nhosts = ["ssh://web-3"]')
    assert refused("three", '[docker]\nhosts = ["tcp://web-2:2376"]'), "the same host another way"
    assert refused("four", "")
