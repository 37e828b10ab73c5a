"""The definition of Goldsmith's own image: this checkout's last commit, and the packages it runs on, by their hashes.

Both become files of the definition's folder, so that the image is built, judged and dated as every other one, and its
input digest is that of their content.
"""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hardening.foundation.console import say
from hardening.foundation.errors import UsageError
from hardening.foundation.process import NETWORK, run
from hardening.foundation.settings import ROOT

NAME = "goldsmith"
CLONE = "the image is of a commit: this must be a clone of git"
TEMPLATES = Path(__file__).parent / "schedules/image"
SOURCE = ("goldsmith", "hardening", "images", "pipelines", "pyproject.toml", "requirements.lock", "tasks.py")
INDEX = (*NETWORK, *(f"PIP_{name}" for name in ("CONFIG_FILE", "INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "CERT")))
PYTHON = "3.13"  # of the suite that debian-base is made of
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_12_x86_64")


def write_definition(root: Path, *, force: bool = False) -> tuple[str, Path]:
    """Write the definition into the content root `root`; the commit that it is of, and its folder.

    Raises UsageError where it is there already unless `force`, OutsideError where a package cannot be had.
    """
    folder = root / "images/definitions" / NAME
    if folder.exists() and not force:
        raise UsageError(f"{folder} exists already", hint="--force replaces it")
    commit = run(["git", "rev-parse", "HEAD"], cwd=ROOT, hint=CLONE).stdout.strip()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{NAME}-", dir=root) as made:
        new = Path(made) / NAME
        shutil.copytree(TEMPLATES, new)
        _write_source(new / "source", Path(made) / "source.tar", commit)
        _write_packages(new / "packages", Path(made) / "requirements.txt")
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    return commit, folder


def _write_source(folder: Path, archive: Path, commit: str) -> None:
    run(["git", "archive", "--output", str(archive), commit, *SOURCE], cwd=ROOT)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def _write_packages(folder: Path, requirements: Path) -> None:
    """Install what Goldsmith imports, for the Python of the image, as the lock's hashes say."""
    lock = (ROOT / "requirements.lock").read_text()
    requirements.write_text(_locked(lock, _needed(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])))
    say("fetching the packages of requirements.lock")
    run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
            *("--no-deps", "--require-hashes", "--only-binary", ":all:", "--implementation", "cp"),
            *("--python-version", PYTHON, *(word for name in PLATFORMS for word in ("--platform", name))),
            *("--target", str(folder), "--requirement", str(requirements)),
        ],
        passes=INDEX, hint="does this machine reach a package index? pip's own settings name it",
    )  # fmt: skip
    shutil.rmtree(folder / "bin", ignore_errors=True)  # scripts that name this machine's Python


def _needed(project: dict[str, list[str]]) -> set[str]:
    """The names of all packages that the project's dependencies ask for here, theirs included."""
    pending, seen = [Requirement(one) for one in project["dependencies"]], set[tuple[str, frozenset[str]]]()
    while pending:
        one = pending.pop()
        key = (canonicalize_name(one.name), frozenset(one.extras))
        if key in seen:
            continue
        seen.add(key)
        asked = [Requirement(text) for text in metadata.distribution(one.name).requires or ()]
        extras = [*one.extras, ""]
        pending += [r for r in asked if not r.marker or any(r.marker.evaluate({"extra": extra}) for extra in extras)]
    return {name for name, _ in seen}


def _locked(lock: str, names: Iterable[str]) -> str:
    """The entries of a lock with hashes that are of these packages."""
    wanted = set(names)
    entries = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)
    return "".join(one for one in entries if canonicalize_name(re.split(r"[\[=]", one)[0]) in wanted)
