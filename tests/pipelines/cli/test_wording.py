"""What people are told of a wrong value: plain words, what is allowed, and the key that was meant, wherever it is."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hardening.foundation.content import parse
from hardening.foundation.errors import ContentError
from hardening.foundation.wording import in_words
from hardening.model import Control
from pipelines.cli.schemas import CONTENT
from pipelines.fleet.model import Fleet
from tests.support.building import definition

BASE = 'base = { golden = "parent" }\n'
FLEET: dict[str, Any] = {
    "title": "t", "owner": "us", "kind": "docker", "selector": {"a": "b"}, "replacement": {"definition": "x"},
}  # fmt: skip
CONTROL: dict[str, Any] = {
    "title": "t", "severity": "low", "applies_to": ["container"], "owner": "us", "rationale": "r", "cost": "c",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('packages = "nginx"\n' + BASE, "packages: must be a list, as in [ ], not 'nginx'"),
        ('packages = ["A b"]\n' + BASE, "packages[0]: must be a package's name alone: small letters"),
        ('platforms = ["amd64"]\n' + BASE, "platforms[0]: must be linux/amd64 or linux/arm64, not 'amd64'"),
        ("platforms = []\n" + BASE, "platforms: must not be empty"),
        ('title = ""\n' + BASE, "title: must not be empty"),
        ("user = true\n" + BASE, "user: must be text, in quotes, not true"),
        ("healthcheck = 3\n" + BASE, "healthcheck: must be a table"),
        (BASE + '[healthcheck]\nretries = "x"', "healthcheck.retries: must be a whole number, without quotes"),
        (
            BASE + '[healthcheck]\nnone_because = "a reason"\ncommand = ["x"]',
            "give a command or none_because, not both",
        ),
        (BASE + '[healthcheck]\nnone_because = "n/a"', 'none_because says why in 3 words or more, not "n/a"'),
        (BASE + '[lifecycle]\nsupport_until = "soon"', "support_until: must be a date such as 2027-01-31"),
        (BASE + '[lifecycle]\nexpires_after = "0s"', "expires_after: must be at least 1 hour, not 0s"),
    ],
)
def test_what_is_allowed_is_said_in_words(text: str, said: str) -> None:
    """Not in the words of a validator for Python."""
    with pytest.raises(ContentError) as error:
        definition(text)
    assert said in str(error.value)
    assert not re.search(r"tuple|datetime|pattern|Input|valid", str(error.value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('smok = ["x"]\n' + BASE, "smok: unknown key\n  hint: did you mean smoke?"),
        (
            BASE + '[healthcheck]\nnone_becaus = "x"',
            "healthcheck.none_becaus: unknown key\n  hint: did you mean none_b",
        ),
        (BASE + 'files = [{ source = "x", path = "/x", moode = "1" }]', "files[0].moode: unknown key\n  hint: did you"),
        ('base = { bootstrap = { famly = "x" } }', "base.bootstrap.famly: unknown key"),
        ('base = { bootstrap = { famly = "x" } }', "hint: did you mean family?"),
        (
            '[base]\ngolden = "x"\nsmoke = ["x"]',
            "base.smoke: unknown key\n  hint: smoke belongs at the top of the file",
        ),
        (BASE + "support_until = 2027-01-01", "support_until: unknown key\n  hint: it belongs in [lifecycle]"),
    ],
)
def test_an_unknown_key_is_answered_with_the_one_that_was_meant(text: str, said: str) -> None:
    """The nearest of its own table, or the same one where it belongs; it leads, whatever else is missing for it."""
    with pytest.raises(ContentError) as error:
        definition(text)
    assert said in str(error.value)


def test_a_table_may_be_called_like_a_key_in_it() -> None:
    """A param named `type` is a name, and what is wrong inside it is still found."""
    params = {"type": {"type": "string", "help": "h", "defalt": "x"}}
    with pytest.raises(ContentError, match=r"params\.type\.defalt: unknown key") as error:
        parse({**CONTROL, "params": params}, Control, "control.toml", id="a")
    assert error.value.hint == "did you mean default?"


def test_of_two_forms_the_key_is_named_without_the_form() -> None:
    """A number or a percentage: the key is `max_unavailable` and nothing that nobody wrote; the words tell both."""
    with pytest.raises(ContentError) as error:
        parse({**FLEET, "limits": {"max_unavailable": -1}}, Fleet, "fleet.toml", name="x")
    assert str(error.value).startswith(
        "fleet.toml: limits.max_unavailable: must be a whole number, or a percentage from 0% to 100% such as 25%"
    )


def patterns(schema: Any) -> set[str]:
    """Every pattern in a JSON Schema."""
    if isinstance(schema, list):
        return {found for item in schema for found in patterns(item)}
    if not isinstance(schema, dict):
        return set()
    own = {schema["pattern"]} if isinstance(schema.get("pattern"), str) else set()
    return own | patterns(list(schema.values()))


def test_every_pattern_of_the_content_has_words() -> None:
    """Nobody should have to read a regular expression to write a file; our own validators have words of their own."""
    found = {pattern for model, _ in CONTENT.values() for pattern in patterns(model.model_json_schema())}
    assert len(found) > 10
    told = {pattern: in_words("string_pattern_mismatch", {"pattern": pattern}, "") for pattern in found}
    ours = {"^[0-9]+[smhdw]$", "^([1-9]?[0-9]|100)%$", "^([01][0-9]|2[0-3]):[0-5][0-9]$"}
    assert {pattern for pattern, words in told.items() if pattern in words} == ours
