"""One image's trouble, foreseen or not, is that image's outcome."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.findings import CheckResult, Outcome, Reason
from hardening.foundation.errors import ContentError, RefusedError
from hardening.foundation.settings import Settings
from hardening.gate import GateError
from hardening.model import Enforcement, Severity
from hardening.render import Check, Overlay
from hardening.waivers import STARTS
from images.build import Built, flow
from images.build.flow import PLANNING, _Builder, build
from images.catalog import sound_definitions
from images.context import Context
from images.ledger import Ledger
from images.plan.build_plan import Action
from images.plan.planner import Planner
from pipelines.nightly.command import dry_run
from pipelines.nightly.model import Failure, ImageAnswer
from pipelines.nightly.night_run import nightly
from pipelines.nightly.stages import WorldStages
from pipelines.nightly.summary import image_line, refused_together

HEAD = 'title = "t"\nowner = "us"\nkind = "container"\nprofile = "container-base"\nsmoke = ["true"]\n'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('policy = "defualt"', "image.toml: policy: unknown policy: defualt\n  hint: did you mean default?"),
        ('profile = "container-bas"', "image.toml: profile: unknown profile: container-bas"),
    ],
)
def test_names_that_lead_nowhere_are_found_when_it_is_planned(tmp_path: Path, line: str, said: str) -> None:
    """Before a package index is asked, and long before the gate would look for its policy."""
    folder = tmp_path / "content/images/definitions/o-one"
    folder.mkdir(parents=True)
    head = HEAD.replace('profile = "container-base"\n', "") if line.startswith("profile") else HEAD
    (folder / "image.toml").write_text(
        f'{head}{line}\nbase = {{ bootstrap = {{ family = "debian", suite = "none" }} }}\n'
    )
    settings = Settings(state=tmp_path / "state", content=(tmp_path / "content",))
    planner = Planner(Context(settings, datetime.now(UTC), lambda: "", lambda: ""))
    with pytest.raises(ContentError) as error:
        planner.plan("o-one")
    assert said in str(error.value)


@pytest.mark.parametrize(("printed", "told"), [("mkdir() failed (30: Read-only file system)", True), ("bad", False)])
def test_a_container_that_writes_to_its_root_is_told_of_tmpfs(tmp_path: Path, printed: str, told: bool) -> None:
    """A child of an image that has it must name it again; without a word the way out would seem to be a waiver."""
    context = Context(Settings(state=tmp_path), datetime.now(UTC), lambda: "", lambda: "")
    check = CheckResult(STARTS, "t", Severity.HIGH, Enforcement.ENFORCE, Outcome.FAIL, printed)
    hint = _Builder(context, Planner(context))._refusal("nginx-unprivileged", (check,), ()).hint
    assert ("its root is read-only; `tmpfs` in image.toml" in hint) == told
    assert ("see its output" in hint) != told


def test_the_checks_that_an_image_passed_are_kept_with_their_results(tmp_path: Path) -> None:
    """Another image of the same content may have been verified by others."""
    passed = CheckResult("no-shell", "t", Severity.HIGH, Enforcement.ENFORCE, Outcome.PASS, "none")
    overlay = Overlay((), (), (Check("no-shell", "t", Severity.HIGH, Enforcement.ENFORCE, "exit 0", {"PARAM_A": "1"}),))
    plan: Any = SimpleNamespace(name="web", platform="linux/amd64", input_digest="sha256:in", inputs={}, why=())
    job: Any = SimpleNamespace(overlay=overlay, store=None, definition=SimpleNamespace(is_machine=False))
    planner: Any = SimpleNamespace(digests={})
    with closing(Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}")) as ledger:
        context: Any = SimpleNamespace(
            settings=Settings(state=tmp_path), now=datetime.now(UTC), ledger=ledger,
            store=SimpleNamespace(adopt=lambda *_: None),
        )  # fmt: skip
        built = Built("sha256:content", (), context.now, tmp_path, 1)
        outcome = _Builder(context, planner)._record(plan, job, built, (passed,))
        assert (outcome.action, ledger.checks("sha256:content")) == (Action.BUILT, (passed,))
        assert ledger.check_scripts("sha256:content") == dict(overlay.parts["checks"])


def test_apts_solver_serves_one_image_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an image is planned a second time, after another machine's content was brought."""
    held = []

    def plan(_: str) -> Any:
        held.append(PLANNING.locked())
        return SimpleNamespace(artifact=len(held) > 1 and there, input_digest="sha256:in", why=())

    there = SimpleNamespace(name="web", platform="linux/amd64", digest="sha256:content", input_digest="sha256:in")
    monkeypatch.setattr(flow, "brought", lambda *_: True)
    planner: Any = SimpleNamespace(plan=plan, no_cache=(), upstream=None)
    context: Any = SimpleNamespace(
        settings=Settings(state=tmp_path), ledger=SimpleNamespace(latest_artifact=lambda *_: None)
    )
    outcome = _Builder(context, planner).one("web", None)
    assert (outcome.action, held) == (Action.UNCHANGED, [True, True])


def test_what_nobody_foresaw_stops_one_image_and_its_children_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of ours ends with 1 and its type, the world's with 4; every image has its outcome."""
    bases = dict.fromkeys(("o-bug", "o-disk", "o-memory"), '{ bootstrap = { family = "debian", suite = "trixie" } }')
    for name, base in {**bases, "o-child": '{ golden = "o-bug" }'}.items():
        folder = tmp_path / "content/images/definitions" / name
        folder.mkdir(parents=True)
        (folder / "image.toml").write_text(f"{HEAD}base = {base}\n")
    errors = {"o-bug": KeyError("surprise"), "o-disk": PermissionError(13, "not yours"), "o-memory": MemoryError()}

    def fail(_: Planner, name: str) -> Any:
        raise errors[name]

    monkeypatch.setattr(Planner, "plan", fail)
    settings = Settings(state=tmp_path / "state", content=(tmp_path / "content",))
    context = Context(settings, datetime.now(UTC), lambda: "", lambda: "")
    found = {outcome.name: outcome for outcome in build(context, [*bases, "o-child"])}
    assert {outcome.action for outcome in found.values()} == {Action.FAILED}
    codes = {name: outcome.error.exit_code for name, outcome in found.items() if outcome.error}
    assert codes == {"o-bug": 1, "o-disk": 4, "o-memory": 1, "o-child": 1}
    assert "KeyError: 'surprise'" in str(found["o-bug"].error)
    assert "not yours" in found["o-disk"].reasons[0]
    assert found["o-child"].reasons == ("its parent o-bug failed",)
    assert (found["o-child"].stopped_by, found["o-bug"].stopped_by) == ("o-bug", "")


BASE = 'base = { bootstrap = { family = "debian", suite = "trixie" } }\n'
NIGHT = {
    "o-not-toml": "title = unquoted",
    "o-child": f'{HEAD}base = {{ golden = "o-not-toml" }}\n',
    "o-grandchild": f'{HEAD}base = {{ golden = "o-child" }}\n',
    "o-key": f"{HEAD}{BASE}colour = 1\n",
    "o-orphan": f'{HEAD}base = {{ golden = "o-nobody" }}\n',
    "o-egg": f'{HEAD}base = {{ golden = "o-hen" }}\n',
    "o-hen": f'{HEAD}base = {{ golden = "o-egg" }}\n',
}


def night_context(tmp_path: Path) -> Context:
    """A context over content of which nothing can be built but o-fine."""
    for name, text in {**NIGHT, "o-fine": f"{HEAD}{BASE}"}.items():
        folder = tmp_path / "content/images/definitions" / name
        folder.mkdir(parents=True)
        (folder / "image.toml").write_text(text)
    settings = Settings(state=tmp_path / "state", content=(tmp_path / "content",))
    return Context(settings, datetime.now(UTC), lambda: "", lambda: "")


def test_a_night_goes_on_without_definitions_that_do_not_load(tmp_path: Path) -> None:
    """Nor what stands on them: each has its line, each mistake is told once, and the exit code is its author's."""
    night, failures = nightly(night_context(tmp_path), "o-[!f]*")
    lines = {line.name: line for line in night.lines}
    assert lines.keys() == NIGHT.keys()
    assert {line.status for line in lines.values()} == {"failed"}
    assert night.exit_code == 2
    for name in ("o-not-toml", "o-child", "o-grandchild"):
        assert "o-not-toml/image.toml: not TOML" in lines[name].detail
    assert "o-key/image.toml: colour: unknown key" in lines["o-key"].detail
    assert "o-nobody is not a definition" in lines["o-orphan"].detail
    assert "in a circle" in lines["o-hen"].detail
    assert sum("not TOML" in str(error) for error in failures) == 1
    assert night.summary.startswith("nothing built, nothing published, 7 failed")
    (duty,) = night.must_act
    assert (duty.exit_code, duty.who) == (2, "the author of the content")
    assert duty.parts[0] == "image o-child"
    assert len(duty.parts) == 7
    shown, _ = dry_run(night_context(tmp_path / "dry"), "o-[!f]*")
    assert shown.summary.startswith("nothing was done; 0 image(s) have work, 7 failed; fleets: none; must act: ")
    assert "o-not-toml" in Path(night.report).read_text()


def test_a_dry_run_says_once_what_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """However often it asks which images it is about."""
    dry_run(night_context(tmp_path), "[od]*[rn]")
    assert capsys.readouterr().err.count("left out: debian-server") == 1


def test_a_night_builds_what_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much beside it does not; other flows are strict, and stop at the first mistake."""
    context = night_context(tmp_path)
    planned = []

    def plan(_: Planner, name: str) -> Any:
        planned.append(name)
        raise OSError("no more of it here")

    monkeypatch.setattr(Planner, "plan", plan)
    monkeypatch.setattr(WorldStages, "suites", lambda *_: ())
    nightly(context, "o-*")
    assert planned == ["o-fine"]
    with pytest.raises(ContentError):
        context.definitions  # noqa: B018 - it loads them


def test_a_name_that_two_roots_define_stops_what_stands_on_it_and_nothing_else(tmp_path: Path) -> None:
    """Which of them is meant is not known; every other image has its night."""
    for root, names in {"one": ("o-base", "o-fine"), "two": ("o-base", "o-child")}.items():
        for name in names:
            folder = tmp_path / root / "images/definitions" / name
            folder.mkdir(parents=True)
            base = 'base = { golden = "o-base" }\n' if name == "o-child" else BASE
            (folder / "image.toml").write_text(f"{HEAD}{base}")
    loaded, wrong = sound_definitions((tmp_path / "one", tmp_path / "two"))
    assert loaded.keys() == {"o-fine"}
    assert {name: "o-base is already defined in" in str(error) for name, error in wrong.items()} == {
        "o-base": True, "o-child": True,
    }  # fmt: skip


def test_a_policy_that_is_not_there_is_an_authors_mistake_and_not_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint to allow it in the settings led nowhere."""
    monkeypatch.setattr(WorldStages, "suites", lambda *_: ())
    folder = tmp_path / "content/images/definitions/o-policy"
    folder.mkdir(parents=True)
    (folder / "image.toml").write_text(f'{HEAD}policy = "defualt"\n{BASE}')
    settings = Settings(state=tmp_path / "state", content=(tmp_path / "content",))
    night, (error,) = nightly(Context(settings, datetime.now(UTC), lambda: "", lambda: ""), "o-policy")
    assert (night.exit_code, [line.status for line in night.lines]) == (2, ["failed"])
    assert "o-policy/image.toml: policy: unknown policy: defualt" in str(error)


@pytest.mark.parametrize(
    "place", ["hardening/policies/o-p.toml", "hardening/waivers/o-w.toml", "pipelines/fleets/o.toml"]
)
def test_a_night_without_its_rules_does_nothing(tmp_path: Path, place: str) -> None:
    """A policy or waiver that does not load may be the one that counts."""
    context = night_context(tmp_path)
    file = tmp_path / "content" / place
    file.parent.mkdir(parents=True)
    file.write_text("title = unquoted")
    with pytest.raises(ContentError, match="not TOML"):
        nightly(context, "o-fine")
    assert not (tmp_path / "state/ledger.sqlite").exists()


def test_a_line_of_the_night_says_what_the_gate_refused_an_image_for() -> None:
    """One remedy is named once, whatever stands in a reason; what stands on the image names the image."""
    hole = Reason("CVE-1", "web", Enforcement.ENFORCE, "CVE-1 in zlib", "holes are read", "rebuild")
    other = replace(hole, rule="key", what="enforce: a key\nin the image", todo="take it out")
    error = GateError("web is refused", (hole, replace(hole, rule="CVE-2", what="CVE-2 in zlib"), other), hint="")
    told = (error.message, *error.evidence.splitlines())
    refused = ImageAnswer("web", "refused", built=True, reasons=told, failure=Failure.of(error))
    assert image_line(refused).detail == "CVE-1 in zlib; enforce: a key\\nin the image"
    child = replace(refused, action="failed", reasons=("its base web was refused",), stopped_by="web")
    assert (image_line(child).detail, image_line(child).stopped_by) == ("its base web was refused", "web")


def test_what_a_base_brings_into_many_images_is_told_once_in_the_night() -> None:
    """Each image is named with its message, and everything else that failed stays."""
    hole = Reason("CVE-1", "base", Enforcement.ENFORCE, "CVE-1 in zlib", "holes are read", "rebuild")
    gates = [GateError(f"{name} is refused", (replace(hole, subject=name),), hint="h") for name in ("base", "a", "b")]
    broken = ContentError("not TOML")
    together, other = refused_together([gates[0], broken, *gates[1:]], {"base": None, "a": "base", "b": "a"})
    assert (other, together.exit_code, together.message) == (broken, 3, "3 images are refused by their policies")
    assert together.evidence.splitlines()[:4] == [
        "base is refused", "a is refused", "b is refused", "base, and by it a, b:",
    ]  # fmt: skip
    assert together.evidence.count("CVE-1") == 1
    assert refused_together(gates[:1], {}) == gates[:1]
    assert isinstance(together, RefusedError)
