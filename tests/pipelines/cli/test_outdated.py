"""`image.outdated`: what is newer in the world than an image, asked without building anything."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import ContentError
from hardening.foundation.settings import Judging, Settings
from images.context import Context
from images.model import Bootstrap
from images.packages.index import PackageIndex
from images.plan.freshness import NewerKind, Urgency
from pipelines.cli.image import plan_images
from pipelines.cli.outdated import FreshnessQuestion, OutdatedOutput, show_outdated, what_is_outdated
from tests.support.archive import Archive
from tests.support.catalogs import NOW, Catalog, entry

BOOTSTRAP = 'bootstrap = { family = "debian", suite = "trixie" }'
CVE = "CVE-2026-0001"


def archive_in(folder: Path) -> Archive:
    """What stands for the distribution: a base system, and tools with dependencies, one of them virtual."""
    archive = Archive(folder / "archive")
    archive.add("base-files", control="Essential: yes\nPriority: required")
    archive.add("apt", control="Depends: base-files")
    archive.add("library")
    archive.add("tool", control="Depends: library, mail-agent")
    archive.add("postman", control="Provides: mail-agent")
    archive.add("editor")
    archive.add("added")
    archive.publish()
    return archive


def catalog_in(folder: Path, archive: Archive, **more: object) -> Catalog:
    """A base, a child, a child of that to which a Dockerfile adds a package and holds it, and a system beside them."""
    made = Catalog(folder, archive, **more)
    made.define("base", BOOTSTRAP)
    made.define("child", "base", ["tool"])
    (made.define("grandchild", "child", ["editor"]) / "Dockerfile.j2").write_text('{% extends "Dockerfile.j2" %}\n')
    made.define("other", BOOTSTRAP, ["library"])
    return made


ADDED = """\
Package: added
Status: hold ok installed
Version: 1.0
Architecture: all
Maintainer: Tests <tests@example.com>
Source: added-source
Description: brought by a Dockerfile"""


def test_a_plan_refuses_a_policy_of_the_settings_that_is_not_there(tmp_path: Path) -> None:
    """Before it asks anything: the first publication would find out."""
    settings = Settings(state=tmp_path, judging=Judging(policies=("default", "defualt")))
    with pytest.raises(
        ContentError, match=r"goldsmith\.toml: judging\.policies\[1\]: unknown policy: defualt"
    ) as error:
        plan_images("all", context=Context(settings, NOW, str, str))
    assert error.value.hint == "did you mean default?"


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalog, Path]:
    """A catalog that is built as it stands, and a copy of all of it: what a test changes is put back."""
    folder = tmp_path_factory.mktemp("outdated")
    here, kept = folder / "here", folder / "kept"
    made = catalog_in(here, archive_in(here))
    made.settle(added={"grandchild": ADDED})
    what_is_outdated("all", made.context())
    shutil.copytree(here, kept, symlinks=True)
    return made, kept


@pytest.fixture
def catalog(settled: tuple[Catalog, Path]) -> Catalog:
    made, kept = settled
    shutil.rmtree(made.folder)
    shutil.copytree(kept, made.folder, symlinks=True)
    return made


@pytest.fixture
def archive(catalog: Catalog) -> Archive:
    return catalog.archive


def asked(catalog: Catalog, ref: str = "all") -> OutdatedOutput:
    return what_is_outdated(ref, catalog.context())[0]


def lines(found: OutdatedOutput, *, kind: NewerKind = NewerKind.PACKAGE) -> set[tuple[str, str, str]]:
    """Image, what, and where from, of the lines of a kind."""
    return {(line.image, line.what, line.comes_from) for line in found.lines if line.kind is kind}


@pytest.mark.needs("apt-get", "gpg")
def test_nothing_newer_is_said_where_everything_was_asked(catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    """Then the exit code is 0."""
    found, errors = what_is_outdated("all", catalog.context())
    assert (found.lines, found.unasked) == ((), ())
    assert show_outdated(found, errors, as_json=False) == 0
    assert capsys.readouterr().out == "nothing is newer: 4 image(s) were looked at\n"


@pytest.mark.needs("apt-get", "gpg")
def test_a_fixed_exploited_hole_comes_first_and_says_why(
    catalog: Catalog, archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before what was newer anyway, in whatever image; what stands on it is as urgent."""
    archive.add("base-files", "2.0", control="Essential: yes\nPriority: required")
    archive.add("library", "2.0")
    archive.publish()
    catalog.tell({"library-source": {CVE: entry("2.0")}}, [CVE])
    found, errors = what_is_outdated("all", catalog.context())
    urgencies = [line.urgency for line in found.lines]
    assert urgencies == sorted(urgencies, key=list(Urgency).index)
    first = found.lines[0]
    assert (first.what, first.urgency, first.old, first.new, first.fixes) == (
        "library", Urgency.EXPLOITED, "1.0", "2.0", (CVE,)
    )  # fmt: skip
    parents = {line.image: line.urgency for line in found.lines if line.kind is NewerKind.PARENT}
    assert parents == {"child": Urgency.NORMAL, "grandchild": Urgency.EXPLOITED}
    assert ("grandchild", "library", "child") in lines(found)
    assert show_outdated(found, errors, as_json=False) == 1
    shown = capsys.readouterr().out
    assert "closes CVE-2026-0001" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.needs("apt-get", "gpg")
def test_a_fix_that_the_index_lacks_is_told_of_too(catalog: Catalog, archive: Archive) -> None:
    """A hole became fixable; no mirror has it yet."""
    catalog.tell({"postman-source": {CVE: entry("1.5", "high")}}, [])
    found = asked(catalog, "child")
    (line,) = found.lines
    assert (line.kind, line.what, line.old, line.new, line.urgency) == (
        NewerKind.VULNERABILITY, CVE, "1.0", "1.5", Urgency.HIGH
    )  # fmt: skip


@pytest.mark.needs("apt-get", "gpg")
def test_what_a_dockerfile_added_and_holds_is_asked_too(catalog: Catalog, archive: Archive) -> None:
    """No plan knows it; apt's solver over the image's own dpkg status does, and it is not held back for us."""
    archive.add("added", "2.0")
    archive.publish()
    found = asked(catalog)
    (line,) = found.lines
    assert (line.image, line.what, line.old, line.new) == ("grandchild", "added", "1.0", "2.0")
    assert "held back" in line.reason
    assert "Dockerfile.j2" in line.todo


@pytest.mark.needs("apt-get", "gpg")
def test_without_a_mirror_nothing_is_called_fresh(
    catalog: Catalog, archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    """What could not be asked is named; the index of before answers for the rest, and the exit code is 4."""
    archive.directory.rename(archive.directory.with_name("gone"))
    found, errors = what_is_outdated("all", catalog.context())
    assert [line.what for line in found.unasked] == ["the package index of trixie"]
    assert show_outdated(found, errors, as_json=False) == 4
    shown = capsys.readouterr().out
    assert "nothing newer is known" in shown
    assert "this could not be asked, so that nothing here is known to be fresh" in shown


@pytest.mark.needs("apt-get", "gpg")
def test_without_data_of_holes_that_is_said(catalog: Catalog) -> None:
    """No data is no pass."""
    (catalog.data / "tracker.json").unlink()
    (catalog.data / "kev.json").unlink()
    told = {line.what for line in asked(catalog, "other").unasked}
    assert told == {"vulnerabilities of trixie"}


@pytest.mark.needs("apt-get", "gpg")
def test_what_is_wrong_with_one_image_stops_no_other(catalog: Catalog, archive: Archive) -> None:
    """It and what stands on it are not known; the rest is told, and the error has its own exit code."""
    catalog.define("child", "base", ["no-such-package"])
    archive.add("library", "2.0")
    archive.publish()
    found, errors = what_is_outdated("all", catalog.context())
    assert {line.what for line in found.unasked} == {"child", "grandchild"}
    assert lines(found) == {("other", "library", "")}
    assert [type(error) for error in errors] == [ContentError]
    assert errors[0].message.startswith(f"{catalog.root}/images/definitions/child/image.toml: packages: no package")
    assert show_outdated(found, errors, as_json=True) == 2
    planned, wrong = plan_images("all", context=catalog.context())
    assert {line.name for line in planned} == {"base", "other"}
    assert [str(error) for error in wrong if error] == [str(error) for error in errors]


def test_it_may_be_asked_by_another_policy_than_the_definitions_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one wants who runs nights by another policy; an unknown name is refused before anything is asked."""
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path))
    judged_by = list[str]()

    def planned(question: FreshnessQuestion, _names: Iterable[str]) -> list[str]:
        judged_by.append(question.context.policy)
        return []

    monkeypatch.setattr(FreshnessQuestion, "planned", planned)
    what_is_outdated("debian-base", policy="demo")
    assert judged_by == ["demo"]
    with pytest.raises(ContentError, match="unknown policy: dmeo"):
        what_is_outdated("debian-base", policy="dmeo")


@pytest.mark.needs("apt-get", "gpg")
def test_many_images_cost_few_questions_to_apt(
    catalog: Catalog, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer package in one of them resolves that one anew, and no other."""
    archive.add("editor", "2.0")
    archive.publish()
    resolved, own = list[tuple[str, ...]](), PackageIndex._resolve

    def resolve(index: PackageIndex, bootstrap: Bootstrap, wanted: tuple[str, ...], *more: Any) -> Any:
        resolved.append(wanted)
        return own(index, bootstrap, wanted, *more)

    monkeypatch.setattr(PackageIndex, "_resolve", resolve)
    assert lines(asked(catalog)) == {("grandchild", "editor", "")}
    assert resolved == [("editor",)]
