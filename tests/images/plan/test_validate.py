"""Content is checked before anything is fetched or built: what a definition names is there, and says what it may."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from hardening.foundation.errors import ContentError
from hardening.foundation.settings import ROOT, Settings
from images.build.flow import build
from images.catalog import load_definitions
from images.context import Context
from images.plan.build_plan import Action
from images.plan.validate import DefinitionValidator
from tests.support.loop import CHILD, definition

TODAY = date(2026, 6, 1)
WAIVER = """
controls = ["read-only-ready"]
subjects = ["s-one"]
reason = "it is data alone"
owner = "ann"
approver = "bob"
created = 2026-05-01
expires = 2026-07-01
"""
STATIC = 'base = { bootstrap = { family = "debian", suite = "trixie", variant = "static" } }\n'


def sound(root: Path, name: str = "s-one") -> None:
    """Raises what is wrong with a definition of the content root `root`."""
    definitions = load_definitions((ROOT, root))
    DefinitionValidator((ROOT, root), TODAY, definitions).require(definitions[name])


def test_what_is_whole_is_sound(tmp_path: Path) -> None:
    """With files, a template and steps of its own."""
    files = 'files = [{ source = "page.j2", path = "/srv/page" }]\n[base]'
    steps = "RUN true\nCOPY extra /srv/extra"
    sound(definition(tmp_path, "s-one", CHILD.replace("[base]", files), steps, **{"page.j2": "{{ definition.name }}"}))


@pytest.mark.parametrize("name", sorted(load_definitions((ROOT,))))
def test_what_ships_is_sound(name: str, tmp_path: Path) -> None:
    """Every definition of this checkout."""
    sound(tmp_path, name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            CHILD.replace("container-base", "container-bas"),
            "profile: unknown profile: container-bas\n  hint: did you",
        ),
        ('policy = "defualt"\n' + CHILD, "policy: unknown policy: defualt\n  hint: did you mean default?"),
        (CHILD.replace("debian-base", "debian-bse"), "base.golden: debian-bse is not a definition\n  hint: did you"),
        (CHILD.replace("debian-base", "debian-static"), "base.golden: debian-static is static: it has no shell"),
        (
            CHILD + "[profile_params.no-setuit]\nx = 1",
            "profile_params.no-setuit: container-base has no control no-setuit\n  hint: did you mean no-setuid",
        ),
        (
            CHILD + "[profile_params.sshd-acces]\nx = 1",
            "no control sshd-acces\n  hint: did you mean sshd-access? add sshd-access to container-base, or choose a",
        ),
        (
            CHILD + "[profile_params.sshd-access]\nx = 1",
            "no control sshd-access\n  hint: add sshd-access to container-",
        ),
        (
            CHILD + "[profile_params.no-setuid]\nalow = []",
            "profile_params.no-setuid.alow: unknown param\n  hint: did you",
        ),
        (CHILD + "[profile_params.no-setuid]\nallow = 3", "profile_params.no-setuid.allow: must be a list of strings"),
        (
            CHILD.replace("[base]", 'files = [{ source = "pag", path = "/x" }]\n[base]'),
            "files.source: pag is not a file",
        ),
        (CHILD.replace("[base]", 'files = [{ source = "pag", path = "/x" }]\n[base]'), "did you mean page?"),
        (
            CHILD.replace("[base]", 'files = [{ source = "../x", path = "/x" }]\n[base]'),
            "files.source: ../x is not a file",
        ),
        (CHILD.replace('smoke = ["true"]\n', ""), "smoke: required by the control read-only-ready, but missing"),
    ],
)
def test_what_a_definition_names_must_be_there(tmp_path: Path, text: str, said: str) -> None:
    """File, key and the nearest name, without any package index, engine or parent."""
    with pytest.raises(ContentError) as error:
        sound(definition(tmp_path, "s-one", text, page="x"))
    assert f"{tmp_path}/images/definitions/s-one/image.toml: " in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("RUN echo {{ definition.nam }}", "has no attribute 'nam'"),
        ("RUN echo {{ definition", "line "),
        ("{% if %}", "line 3: "),
        ("ENV A=1", "ENV belongs in image.toml"),
        ("COPY --from=busybox /bin/sh /bin/sh", "COPY takes files from busybox"),
    ],
)
def test_a_dockerfile_is_read_before_the_build(tmp_path: Path, steps: str, said: str) -> None:
    """Its syntax, its values and what it may not say."""
    with pytest.raises(ContentError) as error:
        sound(definition(tmp_path, "s-one", steps=steps))
    assert "s-one/Dockerfile.j2: " in str(error.value)
    assert said in str(error.value)


def test_a_broken_template_among_the_files_is_named(tmp_path: Path) -> None:
    """As it would be when it is copied."""
    text = CHILD.replace("[base]", 'files = [{ source = "page.j2", path = "/x" }]\n[base]')
    with pytest.raises(ContentError, match=r"s-one/page\.j2: .*nam"):
        sound(definition(tmp_path, "s-one", text, **{"page.j2": "{{ definition.nam }}"}))


def test_steps_that_nothing_would_run_are_refused(tmp_path: Path) -> None:
    """A bootstrap has no Dockerfile; one beside it would be passed over in silence."""
    text = STATIC + CHILD.partition("[base]")[0]
    with pytest.raises(ContentError, match=r"s-one/Dockerfile\.j2: nothing runs it"):
        sound(definition(tmp_path, "s-one", text, steps="RUN true"))


def test_a_waiver_excuses_what_is_not_run(tmp_path: Path) -> None:
    """And one that does not load is found here, not by the gate."""
    root = definition(tmp_path, "s-one", CHILD.replace('smoke = ["true"]\n', ""))
    (root / "hardening/waivers").mkdir(parents=True)
    (root / "hardening/waivers/w.toml").write_text(WAIVER)
    sound(root)
    (root / "hardening/waivers/w.toml").write_text(WAIVER.replace("read-only-ready", "read-only-read"))
    with pytest.raises(ContentError, match="unknown control: read-only-read"):
        sound(root)


def test_a_wrong_definition_builds_nothing(tmp_path: Path) -> None:
    """Not even the parent that it names: no engine is asked, and no index."""
    root = definition(tmp_path / "content", "s-one", steps="COPY --from=busybox /x /x")
    settings = Settings(state=tmp_path / "state", content=(root,), retry_for="0s")
    context = Context(settings, datetime.now(UTC), lambda: "unix:///nowhere.sock", lambda: "")
    [outcome] = build(context, ["s-one"])
    assert (outcome.name, outcome.action) == ("s-one", Action.FAILED)
    assert isinstance(outcome.error, ContentError)
    assert "busybox" in outcome.reasons[0]
