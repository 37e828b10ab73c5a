"""What the documents say is true: commands exist, links resolve, examples load."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pydantic import BaseModel

from hardening.foundation.content import parse
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT, Settings
from hardening.model import Cases, Control, Profile
from hardening.policy import Policy
from images.model import Definition
from pipelines.fleet.model import Fleet
from pipelines.lint import content_problems
from pipelines.network.model import NetworkFile

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MODELS: dict[str, type[BaseModel]] = {
    "hardening/controls/": Control,
    "hardening/policies/": Policy,
    "hardening/profiles/": Profile,
    "images/definitions/": Definition,
    "pipelines/fleets/": Fleet,
    "network/": NetworkFile,
}


def tasks() -> set[str]:
    """The names on the command line; of one that has a shorter name in brackets, that."""
    listing = run([sys.executable, "-m", "invoke", "--list"], cwd=ROOT).stdout
    found = re.findall(r"^  (\S+)(?: \((\S+)\))?", listing, re.MULTILINE)
    return {short or name for name, short in found}


def test_commands_in_documents_exist() -> None:
    """Every `./goldsmith TASK` that a document shows is a task."""
    known = tasks()
    for document in DOCUMENTS:
        named = set(re.findall(r"\./goldsmith ([a-z]+(?:\.[a-z]+(?:-[a-z]+)*)?)", document.read_text()))
        assert named <= known, f"{document.name} names {sorted(named - known)}"


def test_the_documents_name_every_task() -> None:
    """A task that a reader cannot find is not there."""
    text = (ROOT / "docs/commands.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    assert not {name for name in tasks() - {"setup"} if f"./goldsmith {name}" not in text}


def test_links_in_documents_resolve() -> None:
    """Every relative link leads to a file."""
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.relative_to(ROOT)} links to {target}"


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_paths_in_documents_exist(document: str) -> None:
    """Files and folders that a document names are there; <angle brackets> stand for what you add."""
    paths = re.findall(r"`((?:hardening|images|pipelines|tests|docs)/[^`<>]*)`", (ROOT / document).read_text())
    assert paths
    for path in paths:
        assert (ROOT / path).exists() or path.endswith("images.lock.toml"), path


def blocks(document: Path) -> list[tuple[str, str]]:
    """The TOML blocks of a document: the path in their first comment, if any, and the text."""
    found = re.findall(r"^( *)```toml\n(.*?)```", document.read_text(), re.DOTALL | re.MULTILINE)
    texts = [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]
    return [(path[1] if (path := re.match(r"# (\S+\.toml)\n", text)) else "", text) for text in texts]


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if "```toml" in d.read_text()], ids=lambda d: d.name)
def test_examples_load(document: Path) -> None:
    """TOML examples load by the model of the file that they name; without a name they are settings."""
    for path, text in blocks(document):
        kind = next((model for prefix, model in MODELS.items() if path.startswith(prefix)), None)
        if kind is None:
            parse(tomllib.loads(text), Settings, document)
            continue
        if path.endswith("/cases.toml"):
            parse(tomllib.loads(text), Cases, document)
            continue
        name = Path(path).stem if kind in (Fleet, Profile, Policy, NetworkFile) else Path(path).parent.name
        parse(tomllib.loads(text), kind, document, **{"id" if kind is Control else "name": name})


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if "```toml" in d.read_text()], ids=lambda d: d.name)
def test_example_policies_are_what_lint_accepts(document: Path, tmp_path: Path) -> None:
    """Each as a whole: a policy may have right keys and let everything pass. Who copies one has a policy."""
    shown = {path: text for path, text in blocks(document) if path.startswith("hardening/policies/")}
    for path, text in shown.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    found = content_problems([tmp_path], date(2026, 12, 1)) if shown else ()
    assert not [error for error in found if str(error).startswith(f"{tmp_path}")]


def test_the_example_settings_load_and_are_complete() -> None:
    """The example names every setting, so that nobody has to read the code for it."""
    example = ROOT / "docs/goldsmith.toml.example"
    given = tomllib.loads(re.sub(r"^#(?! )", "", example.read_text(), flags=re.MULTILINE))
    parse(given, Settings, example)
    for name, field in Settings.model_fields.items():
        assert name in given
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            assert set(given[name]) == set(field.annotation.model_fields), name


def test_the_example_settings_change_nothing_when_they_are_copied() -> None:
    """As they are, all values are comments, the tables empty: who copies the file goes on with the defaults."""
    tables = tomllib.loads((ROOT / "docs/goldsmith.toml.example").read_text())
    assert set(tables) == {
        "registry", "packages", "docker", "feeds", "nightly", "notify", "digest", "github", "serve", "judging",
        "signing", "retention", "aws",
    }  # fmt: skip
    assert not any(tables.values())


def test_every_decision_is_listed() -> None:
    """The list of decisions names every record."""
    listed = (ROOT / "docs/decisions/README.md").read_text()
    assert all(record.name in listed for record in (ROOT / "docs/decisions").glob("0*.md"))


def test_each_defence_of_the_threat_model_names_tests_and_controls_that_exist() -> None:
    """A defence whose test has gone is only a claim."""
    text = (ROOT / "docs/threat-model.md").read_text().partition("## Defences")[2]
    named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", text)
    assert len(named) > 150
    for file, test in named:
        found = next((ROOT / "tests").rglob(file)).read_text()
        assert not test or re.search(rf"def {test}\(", found), f"{file} has no {test}"
    for row in re.findall(r"^\| [^|]+ \| (.*) \|$", text, re.MULTILINE):
        assert "`" in row or row in ("test", "control"), f"nothing holds it: {row}"
    controls = re.findall(r"`([a-z-]+)`", text.partition("### F ")[2].partition("\n### ")[0])
    assert len(controls) > 10
    assert all((ROOT / "hardening/controls" / name).is_dir() for name in controls)


def test_the_picture_is_well_formed() -> None:
    """The picture of the loop is an SVG with a title and a description for those who cannot see it."""
    root = ElementTree.parse(ROOT / "docs/loop.svg").getroot()
    assert [child.tag.rpartition("}")[2] for child in root][:2] == ["title", "desc"]


def test_what_runs_at_night_exists() -> None:
    """The workflow runs a task that exists, and CI runs the script that a person would."""
    text = (ROOT / ".github/workflows/nightly.yml").read_text()
    assert re.findall(r'"\./goldsmith (.*)"$', text, re.MULTILINE) == ["nightly"]
    assert "nightly" in tasks()
    assert ".ci/run" in (ROOT / ".github/workflows/test.yml").read_text()
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_readers_are_told_to_type_what_the_readme_says() -> None:
    """Hints, reports and guides say `./goldsmith TASK`; `inv` is named only where Invoke itself is measured."""
    known = "|".join(re.escape(name) for name in sorted(tasks()))
    files = run(["git", "ls-files", "hardening", "images", "pipelines", "docs", "*.md", "tasks.py"], cwd=ROOT)
    for file in set(files.stdout.splitlines()) - {"docs/performance.md"}:
        text = (ROOT / file).read_text(errors="replace") if (ROOT / file).is_file() else ""
        assert not (found := re.search(rf"\binv ({known})\b", text)), f"{file} says {found and found[0]}"


def test_the_lock_holds_every_package_that_the_project_names() -> None:
    """Else a fresh clone lacks it, and only the machine that has it by hand passes the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    locked = set(re.findall(r"^([a-z0-9-]+)(?:\[[^\]]*\])?==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    wanted = {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", one)[0]).lower() for one in named}  # type: ignore[index]
    assert len(wanted) > 30
    assert wanted <= locked
