"""Settings: what is wrong in them is named with where it came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardening.foundation.content import read_toml
from hardening.foundation.errors import ContentError
from hardening.foundation.settings import Aws, Feeds, Registry, load_settings
from tests.support.building import definition

BASE = 'base = { golden = "parent" }\n'


def refused(tmp_path: Path, text: str = "") -> str:
    """What is said of settings with this file."""
    (tmp_path / "goldsmith.toml").write_text(text)
    with pytest.raises(ContentError) as error:
        load_settings(tmp_path / "goldsmith.toml")
    return str(error.value)


def test_a_content_root_that_is_not_there_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's controls are left out in silence; the setting is named where it stands."""
    error = refused(tmp_path, f'content = ["{tmp_path}", "{tmp_path}/nowhere"]')
    assert f"goldsmith.toml: content[1]: no such directory: {tmp_path}/nowhere" in error
    monkeypatch.setenv("GOLDSMITH_CONTENT", '["elsewhere"]')
    assert refused(tmp_path).startswith("GOLDSMITH_CONTENT in the environment: content[0]: no such directory")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("GOLDSMITH_FEEDS", "notjson", "GOLDSMITH_FEEDS in the environment: not JSON"),
        ("GOLDSMITH_PARALLEL", "many", "GOLDSMITH_PARALLEL in the environment: parallel: "),
        ("goldsmith_registry__insecure", "x", "GOLDSMITH_REGISTRY__INSECURE in the environment: registry.insecure: "),
        ("GOLDSMITH_FEEDS", '{"kve": ""}', "GOLDSMITH_FEEDS in the environment: feeds.kve: unknown key"),
        ("GOLDSMITH_FEEDS__KVE", "", "GOLDSMITH_FEEDS__KVE in the environment: feeds.kve: unknown key"),
        ("GOLDSMITH_AWS__REGIONS", "eu-central-1", "GOLDSMITH_AWS__REGIONS in the environment: not JSON"),
    ],
)
def test_the_environment_is_blamed_for_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """Nobody looks for it in goldsmith.toml."""
    monkeypatch.setenv(name, value)
    assert refused(tmp_path).startswith(said)


def test_the_environment_wins_value_by_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the file; and a variable of one value over that of its table. What is no setting is somebody else's."""
    (tmp_path / "goldsmith.toml").write_text(
        'parallel = 7\n[registry]\naddress = "file.example"\n[aws]\nparallel = 9\nroles = { 111111111111 = "arn:file" }'
    )
    for name, value in {
        "GOLDSMITH_STATE": "/elsewhere",
        "goldsmith_registry__insecure": "true",
        "GOLDSMITH_AWS__REGIONS": '["eu-central-1"]',
        "GOLDSMITH_AWS__ROLES__222222222222": "arn:one",
        "GOLDSMITH_FEEDS__KEV": "/one",
        "GOLDSMITH_FEEDS": '{"kev": "/table", "trivy": "/trivy"}',
        "GOLDSMITH_STATE__OTHER": "ignored",
        "GOLDSMITH_TEST__X": "ignored",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(tmp_path / "goldsmith.toml")
    assert (settings.parallel, settings.state) == (7, Path("/elsewhere"))
    assert settings.registry == Registry(address="file.example", insecure=True)
    assert settings.feeds == Feeds(kev="/one", trivy="/trivy")
    roles = {"111111111111": "arn:file", "222222222222": "arn:one"}
    assert settings.aws == Aws(parallel=9, regions=("eu-central-1",), roles=roles)


def test_a_value_of_what_is_no_table_does_not_hide_the_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable of the table is blamed."""
    monkeypatch.setenv("GOLDSMITH_AWS", "[1]")
    monkeypatch.setenv("GOLDSMITH_AWS__ROLES__222222222222", "arn:one")
    assert refused(tmp_path).startswith("GOLDSMITH_AWS in the environment: aws: must be a table")


def test_the_file_is_blamed_for_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else the environment sets."""
    monkeypatch.setenv("GOLDSMITH_REGISTRY__ADDRESS", "registry.example.com")
    assert "goldsmith.toml: registry.insecure: " in refused(tmp_path, '[registry]\ninsecure = "x"')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[lifecycle]\nexpires_after = "999999999999d"', r"lifecycle.expires_after: a duration is at most 36525 days"),
        ('[lifecycle]\nexpires_after = "0s"', r"lifecycle.expires_after: "),
        ('[lifecycle]\nexpires_after = "99999d"', r"lifecycle.expires_after: "),
        ('name = "other"', r"image.toml: name: stands in the path \(example\)"),
    ],
)
def test_what_a_definition_cannot_say_is_refused(text: str, said: str) -> None:
    """A life that never begins or ends, and another name than its folder's."""
    with pytest.raises(ContentError, match=said):
        definition(f"{BASE}{text}" if text.startswith("[") else f"{text}\n{BASE}")


def test_what_is_no_readable_file_is_named(tmp_path: Path) -> None:
    """A directory in its place, and tables nested beyond all reason."""
    (tmp_path / "image.toml").mkdir()
    (tmp_path / "deep.toml").write_text("a = " + "[" * 5000 + "]" * 5000)
    for name, said in (("image.toml", "cannot be read: Is a directory"), ("deep.toml", "nested too deeply")):
        with pytest.raises(ContentError, match=f"{name}: {said}"):
            read_toml(tmp_path / name)
