"""A policy names the profile that an image must hold: who may not judge adds to its controls, and loosens none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from hardening.catalog import judging_roots, load_policy
from hardening.check import run_checks
from hardening.findings import CheckResult, ImageFacts, Outcome
from hardening.foundation.errors import ContentError
from hardening.foundation.settings import ROOT, Judging, Settings
from hardening.model import Enforcement, Severity
from hardening.render import Check, Overlay
from images.catalog import load_definitions
from images.context import Context
from images.plan.validate import DefinitionValidator
from images.scan.verify import changed_checks
from tests.support.loop import CHILD, Goldsmith, definition

TODAY = date(2026, 12, 2)
PROFILE = 'title = "T"\nowner = "shop"\n'
OWN = CHILD.replace('"container-base"', '"shop"')
ALWAYS = {
    "control.toml": 'title = "T"\nseverity = "low"\napplies_to = ["container"]\nowner = "shop"\n'
    'rationale = "r"\ncost = "c"\n',
    "check.sh": "echo fine\n",
    "cases.toml": '[[proof]]\ntitle = "t"\nevidence = "e"\n',
}
SETUID, WRITABLE = "usr/bin/env", "etc/passwd"


def profile(root: Path, text: str, name: str = "shop") -> None:
    """Write a profile into a content root."""
    file = root / f"hardening/profiles/{name}.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(PROFILE + text)


def always(root: Path) -> None:
    """Write a control whose check always passes."""
    folder = root / "hardening/controls/always"
    folder.mkdir(parents=True)
    for name, text in ALWAYS.items():
        (folder / name).write_text(text)


def judged(root: Path, *, may_judge: bool = False, policy: str = "default") -> Overlay:
    """What the definition `shop` of a content root is checked by, where that root may judge or not."""
    judging = Judging(roots=(root,) if may_judge else ())
    settings = Settings(content=(root,), judging=judging)
    definitions = load_definitions(settings.roots)
    validator = DefinitionValidator(settings.roots, TODAY, definitions, judging=judging_roots(settings))
    return validator.judged(definitions["shop"], load_policy(settings.roots, policy))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A filesystem with a setuid program and a file of accounts that everybody may write."""
    for path in (SETUID, WRITABLE):
        file = tmp_path / "tree" / path
        file.parent.mkdir(parents=True)
        file.write_text("x\n")
    (tmp_path / "tree" / SETUID).chmod(0o4755)
    (tmp_path / "tree" / WRITABLE).chmod(0o666)
    return tmp_path / "tree"


def results(overlay: Overlay, tree: Path) -> dict[str, CheckResult]:
    """Each control's result."""
    return {one.control: one for one in run_checks(overlay, tree, ImageFacts())}


def test_a_profile_of_one_control_that_always_passes_leaves_nothing_out(tmp_path: Path, tree: Path) -> None:
    """Each control of the policy's profile is checked too, by its own script, and enforced."""
    root = definition(tmp_path / "content", "shop", OWN)
    always(root)
    profile(root, 'controls = [{ control = "always" }]\n')
    found = results(judged(root), tree)
    assert found["always"].outcome is Outcome.PASS
    for control, path in (("no-setuid", SETUID), ("no-world-writable", WRITABLE)):
        assert (found[control].outcome, found[control].enforcement) == (Outcome.FAIL, Enforcement.ENFORCE)
        assert f"/{path}" in found[control].evidence
        assert found[control].title.endswith("(required by the policy)")


LOOSE = '[profile_params.no-setuid]\nallow = ["/usr/bin/env"]\n'


@pytest.mark.parametrize("by", ["definition", "profile", "without", "warn"])
def test_what_another_root_loosens_does_not_count(tmp_path: Path, tree: Path, by: str) -> None:
    """Params of the definition or of its profile, a control left out, and one that only warns."""
    root = definition(tmp_path / "content", "shop", OWN + (LOOSE if by == "definition" else ""))
    more = {
        "profile": 'controls = [{ control = "no-setuid", params = { allow = ["/usr/bin/env"] } }]\n',
        "without": '[without]\nno-setuid = "we need it"\n',
        "warn": 'controls = [{ control = "no-setuid", enforcement = "warn" }]\n',
    }
    profile(root, 'extends = "container-base"\n' + more.get(by, ""))
    found = results(judged(root), tree)["no-setuid"]
    assert (found.outcome, found.enforcement) == (Outcome.FAIL, Enforcement.ENFORCE)
    if by in ("definition", "profile"):
        assert found.evidence.startswith("with the params that the policy requires: PARAM_ALLOW=\n")


@pytest.mark.parametrize("silent", ["loose", "strict"])
def test_a_check_that_says_nothing_with_either_params_passes_with_neither(tree: Path, silent: str) -> None:
    """Two headings of ours are no evidence of anything that it saw."""
    text = f'[ "$PARAM_ALLOW" = {silent} ] || echo "saw $PARAM_ALLOW"\n'
    own, required = (
        Check("any", "Any", Severity.LOW, Enforcement.ENFORCE, text, {"PARAM_ALLOW": words})
        for words in ("loose", "strict")
    )
    overlay = Overlay((), (), (own,)).with_required([required], reviewed=False)
    assert [one.outcome for one in run_checks(overlay, tree, ImageFacts())] == [Outcome.ERROR]


def test_definitions_of_one_profile_share_their_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more definition reads no content again, and none reads the folder of all definitions."""
    for name in ("shop", "shop-two"):
        definition(tmp_path / "content", name, CHILD)
    settings = Settings(content=(tmp_path / "content",), judging=Judging(roots=(tmp_path / "content",)))
    definitions, policy = load_definitions(settings.roots), load_policy(settings.roots, "default")
    validator = DefinitionValidator(settings.roots, TODAY, definitions, judging=judging_roots(settings))
    reads, glob = list[str](), Path.glob

    def counted(path: Path, pattern: str, **more: Any) -> Iterator[Path]:
        reads.append(path.name)
        return glob(path, pattern, **more)

    monkeypatch.setattr(Path, "glob", counted)
    first = validator.judged(definitions["shop"], policy)
    assert reads
    assert "definitions" not in reads
    reads.clear()
    assert validator.judged(definitions["shop-two"], policy) is first
    assert not reads


def test_params_of_a_root_that_may_judge_count(tmp_path: Path, tree: Path) -> None:
    """Definition and profile were reviewed there; what the profile leaves out is checked all the same."""
    root = definition(tmp_path / "content", "shop", OWN + LOOSE)
    profile(root, 'extends = "container-base"\n[without]\nno-world-writable = "?"\n')
    found = results(judged(root, may_judge=True), tree)
    assert found["no-setuid"].outcome is Outcome.PASS
    assert found["no-world-writable"].outcome is Outcome.FAIL


@pytest.mark.parametrize(("https", "outcome"), [("preferred", Outcome.PASS), ("required", Outcome.FAIL)])
def test_another_root_may_ask_for_more(tmp_path: Path, tree: Path, https: str, outcome: Outcome) -> None:
    """Its stricter params count beside the policy's, its stricter enforcement in their place."""
    (tree / "etc/apt/apt.conf.d").mkdir(parents=True)
    (tree / "etc/apt/sources.list").write_text("deb [signed-by=/k.gpg] http://archive.invalid/debian trixie main\n")
    (tree / "usr/bin/apt-get").touch()
    root = definition(tmp_path / "content", "shop", OWN)
    profile(
        root, 'extends = "container-base"\ncontrols = [\n{ control = "no-passwords-in-config" },\n'
        f'{{ control = "apt-sources-signed", params = {{ https = "{https}" }} }},\n]\n',
    )  # fmt: skip
    found = results(judged(root), tree)
    assert found["no-passwords-in-config"].enforcement is Enforcement.ENFORCE
    assert found["apt-sources-signed"].outcome is outcome


@pytest.mark.parametrize("name", sorted(load_definitions((ROOT,))))
def test_what_ships_is_checked_as_it_is_built(name: str) -> None:
    """The profiles of the catalog hold those that the policies require: nothing is verified a second time."""
    definitions = load_definitions((ROOT,))
    validator = DefinitionValidator((ROOT,), TODAY, definitions, judging=(ROOT,))
    policy = load_policy((ROOT,), definitions[name].definition.policy)
    own = validator.overlay(definitions[name])
    assert validator.judged(definitions[name], policy).checks == own.checks


def test_a_result_of_other_params_is_no_result_of_ours(tmp_path: Path) -> None:
    """What the root's own profile was verified by is verified again by what the policy requires."""
    root = definition(tmp_path / "content", "shop", OWN + LOOSE)
    profile(root, 'extends = "container-base"\n')
    settings = Settings(content=(root,))
    definitions = load_definitions(settings.roots)
    built = DefinitionValidator(settings.roots, TODAY, definitions).overlay(definitions["shop"])
    assert changed_checks(dict(built.parts["checks"]), judged(root)) == ("no-setuid",)
    assert changed_checks(dict(built.parts["checks"]), judged(root, may_judge=True)) == ()


def test_a_required_profile_stands_in_roots_that_may_judge(tmp_path: Path) -> None:
    """One that extends a profile of another root is no profile for a policy to require."""
    judges, root = tmp_path / "judges", definition(tmp_path / "content", "shop", OWN)
    profile(root, 'extends = "container-base"\n')
    profile(judges, 'extends = "shop"\n', "strict")
    policy = (ROOT / "hardening/policies/default.toml").read_text()
    (judges / "hardening/policies").mkdir()
    text = policy.replace('container = "container-base"', 'container = "strict"')
    (judges / "hardening/policies/ours.toml").write_text(text)
    settings = Settings(content=(judges, root), judging=Judging(roots=(judges,)))
    definitions = load_definitions(settings.roots)
    validator = DefinitionValidator(settings.roots, TODAY, definitions, judging=judging_roots(settings))
    with pytest.raises(ContentError, match=r"strict.toml: extends: unknown profile: shop") as error:
        validator.judged(definitions["shop"], load_policy(settings.roots, "ours"))
    assert "judging.roots" in error.value.hint


@pytest.mark.slow
@pytest.mark.needs("root", "docker", "mmdebstrap", "mirror", "trivy", "syft", "debsecan")
def test_a_root_that_may_not_judge_publishes_no_setuid_program(house: Goldsmith, tmp_path: Path) -> None:
    """It is built by the root's own profile, and refused by the policy's."""
    steps = "RUN --network=none chmod 4755 /usr/bin/env && chmod 666 /etc/passwd"
    root = definition(tmp_path / "content", "shop", OWN, steps)
    always(root)
    profile(root, 'controls = [{ control = "always" }]\n')
    inv = house.fork(tmp_path / "state").with_(root)
    assert inv("image.build", "shop").code == 0
    answer = inv("image.scan", "shop", "--policy", "demo", "--json")
    assert answer.code == 3, answer.err
    refused = {one["rule"] for one in answer.json["reasons"] if one["enforcement"] == "enforce"}
    assert {"no-setuid", "no-world-writable"} <= refused
    assert inv("image.verify", "shop", "--json").code == 3


@pytest.mark.parametrize("may_judge", [False, True])
def test_files_of_another_root_do_not_decide_about_logins_and_loading(tmp_path: Path, may_judge: bool) -> None:
    """Configuration of services, and programs of its own, are its own to declare. A root that is given as `../golden`
    is not inside of the checkout.
    """
    ordinary = ["/etc/nginx/nginx.conf", "/opt/own", "/usr/local/bin/own"]
    deciding = ["/etc/ld.so.conf.d/own.conf", "/etc/pam.d/login", "/etc/ssl/openssl.cnf"]
    text = "".join(f'[[files]]\nsource = "own"\npath = "{path}"\n' for path in (*ordinary, *deciding))
    root = definition(tmp_path / "content", "shop", CHILD + text)
    (root / "images/definitions/shop/own").touch()
    given = ROOT / os.path.relpath(root, ROOT)
    settings = Settings(content=(given,), judging=Judging(roots=(given,) if may_judge else ()))
    context = Context(settings, datetime.now(UTC), lambda: "", lambda: "")
    assert context.declared("shop") == tuple(sorted((*ordinary, *(deciding if may_judge else ()))))


def test_a_packaged_program_or_login_file_of_another_root_is_refused(tmp_path: Path) -> None:
    """Though its definition declares both."""
    root = definition(
        tmp_path / "content", "shop",
        CHILD + "".join(f'[[files]]\nsource = "own"\npath = "/{path}"\n' for path in (SETUID, "etc/pam.d/login")),
    )  # fmt: skip
    (root / "images/definitions/shop/own").touch()
    context = Context(Settings(content=(root,)), datetime.now(UTC), lambda: "", lambda: "")
    tree = tmp_path / "tree"
    for path in (SETUID, "etc/pam.d/login", "var/lib/dpkg/info/all.md5sums", "var/lib/dpkg/info/all.list"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
    for path in (SETUID, "etc/pam.d/login"):
        (tree / path).write_text("own\n")
    (tree / "var/lib/dpkg/info/all.md5sums").write_text(f"{'0' * 32}  {SETUID}\n{'0' * 32}  etc/pam.d/login\n")
    (tree / "var/lib/dpkg/info/all.list").write_text(f"/{SETUID}\n/etc/pam.d/login\n")
    facts = ImageFacts(declared=context.declared("shop"))
    (found,) = (one for one in run_checks(judged(root), tree, facts) if one.control == "package-files-intact")
    assert (found.outcome, found.enforcement) == (Outcome.FAIL, Enforcement.ENFORCE)
    for path in (SETUID, "etc/pam.d/login"):
        assert f"/{path}: is not what its package brought" in found.evidence
