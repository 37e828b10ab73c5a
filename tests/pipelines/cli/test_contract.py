"""What programs and editors rely on: a schema for each `--json` and each content format, kept by regenerating them."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

import tasks
from hardening.foundation.settings import ROOT, Settings
from pipelines.cli.schemas import COMMANDS, CONTENT, DIALECT, FOLDER, printed_schema, schemas, written_schema
from pipelines.contract import DemoOutput
from pipelines.host import embedded_registry
from tests.support.loop import Goldsmith

QUICK = {
    "image.list": (),
    "image.prune": (),
    "control.list": (),
    "control.show": ("no-setuid",),
    "policy.show": ("all",),
    "waiver.list": (),
    "fleet.list": (),
    "report": (),
    "latency": (),
    "teardown": (),
}


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_schemas_on_disk_are_those_of_the_models() -> None:
    """Whoever changes a model runs `./goldsmith schema`; nothing else lies in the folder."""
    wanted = schemas()
    assert {path for path in FOLDER.rglob("*") if path.is_file()} == set(wanted)
    for path, text in wanted.items():
        assert path.read_text() == text, f"{path.name} is out of date: ./goldsmith schema writes it"


def test_every_command_with_json_has_a_schema() -> None:
    """And no schema is of a command that is not there."""
    found = {name: tasks.namespace[name].body for name in tasks.namespace.task_names}
    with_json = {name for name, body in found.items() if "json" in inspect.signature(body).parameters}
    assert with_json == set(COMMANDS)


@pytest.mark.parametrize("command", tasks.namespace.task_names)
def test_what_must_be_given_stands_without_a_flag_or_has_a_default(command: str) -> None:
    """Invoke asks only for what is positional; where nothing else was typed, a task would meet None."""
    task = tasks.namespace[command]
    _, *arguments = inspect.signature(task.body).parameters.values()
    needed = {one.name for one in arguments if one.default is one.empty}
    assert needed <= {*task.positional, *task.iterable}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_printed_schema_is_closed(command: str) -> None:
    """It says what it is of, and is valid by its own dialect."""
    schema = printed_schema(command)
    validator(schema)
    assert (schema["$schema"], schema["title"]) == (DIALECT, f"./goldsmith {command} --json")


@pytest.mark.parametrize("command", QUICK)
def test_what_is_printed_is_what_the_schema_says(command: str, tmp_path: Path) -> None:
    """Real output of the quick commands, on a state in which nothing has ever happened."""
    inv = Goldsmith(tmp_path / "state", f"unix://{tmp_path}/no.sock")
    try:
        answer = inv.here(command, *QUICK[command], "--json")
    finally:
        embedded_registry.stop(Settings(state=inv.state))
    assert answer.code == 0, answer.err
    validator(printed_schema(command)).validate(answer.json)


def test_doctor_says_what_its_schema_says(tmp_path: Path) -> None:
    """Whatever is missing on this machine."""
    answer = Goldsmith(tmp_path / "state", f"unix://{tmp_path}/no.sock")("doctor", "--json")
    validator(printed_schema("doctor")).validate(answer.json)


@pytest.mark.slow
@pytest.mark.needs("root", "docker", "mirror")
@pytest.mark.parametrize(
    "words",
    [
        ("image.plan", "all"), ("image.build", "all"), ("image.verify", "debian-static"),
        ("control.check", "debian-static"), ("image.why", "debian-base"), ("image.scan", "debian-static"),
        ("image.list",), ("report",),
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_what_is_printed_of_real_images_is_what_the_schema_says(house: Goldsmith, words: tuple[str, ...]) -> None:
    """Plans, builds, checks, scans with all that they find."""
    validator(printed_schema(words[0])).validate(house(*words, "--json").json)


def test_a_field_too_many_is_noticed() -> None:
    """The schemas are closed: what they do not name is no part of the contract."""
    shown = DemoOutput(seconds=1, requests=1, failed=0, slowest_seconds=0, report="", kept_at="").model_dump()
    check = validator(printed_schema("demo"))
    check.validate(shown)
    with pytest.raises(ValidationError):
        check.validate({**shown, "surprise": 1})
    shown.pop("failed")
    with pytest.raises(ValidationError):
        check.validate(shown)


SHIPPED = {
    "control": "hardening/controls/*/control.toml",
    "cases": "hardening/controls/*/cases.toml",
    "profile": "hardening/profiles/*.toml",
    "policy": "hardening/policies/*.toml",
    "image": "images/definitions/*/image.toml",
    "fleet": "pipelines/fleets/*.toml",
    "goldsmith": "docs/goldsmith.toml.example",
}


def content(form: str) -> list[Path]:
    """The files that ship in a content format, the demo's too."""
    return [file for root in (ROOT, ROOT / "pipelines/demo/content") for file in sorted(root.glob(SHIPPED[form]))]


@pytest.mark.parametrize("form", SHIPPED)
def test_content_that_ships_is_valid_by_its_schema(form: str) -> None:
    """What loads by the model, an editor accepts too."""
    check = validator(written_schema(form))
    assert content(form)
    for file in content(form):
        check.validate(as_json(file.read_text()))


@pytest.mark.parametrize("form", CONTENT)
def test_an_editor_underlines_an_unknown_key(form: str) -> None:
    """As the loader refuses it; and the name that the path carries is no key of the file."""
    check = validator(written_schema(form))
    for key in ("surprise", *CONTENT[form][1]):
        assert [error for error in check.iter_errors({key: "x"}) if error.validator == "additionalProperties"], key


def test_an_editor_underlines_a_wrong_duration() -> None:
    """Durations are written as the loader reads them."""
    text = content("fleet")[0].read_text()
    check = validator(written_schema("fleet"))
    check.validate(as_json(text))
    with pytest.raises(ValidationError, match="does not match"):
        check.validate(as_json(re.sub(r'drain = "\w+"', 'drain = "soon"', text)))


def test_editors_find_each_schema() -> None:
    """`.taplo.toml` names a schema that is there for each format."""
    rules = tomllib.loads((ROOT / ".taplo.toml").read_text())["rule"]
    assert {ROOT / rule["schema"]["path"] for rule in rules} == {
        FOLDER / "content" / f"{form}.json" for form in CONTENT
    }


def as_json(text: str) -> Any:
    """TOML as a JSON Schema sees it: dates are strings."""
    return json.loads(json.dumps(tomllib.loads(text), default=str))
