"""Settings: what is wrong in them is named with where it came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardening.foundation.content import read_toml
from hardening.foundation.errors import ContentError
from hardening.foundation.settings import load_settings
from images.trust.channel_document import LASTS_AT_MOST
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
        (
            "GOLDSMITH_CONTENT", "/srv/content",
            "GOLDSMITH_CONTENT in the environment: not JSON\n"
            "  hint: a list in JSON: GOLDSMITH_CONTENT='[\"/srv/content\"]'",
        ),
        ("GOLDSMITH_PARALLEL", "many", "GOLDSMITH_PARALLEL in the environment: parallel: "),
        ("goldsmith_registry__insecure", "x", "GOLDSMITH_REGISTRY__INSECURE in the environment: registry.insecure: "),
        ("GOLDSMITH_FEEDS", '{"kve": ""}', "GOLDSMITH_FEEDS in the environment: feeds.kve: unknown key"),
    ],
)  # fmt: skip
def test_the_environment_is_blamed_for_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """Nobody looks for it in goldsmith.toml."""
    monkeypatch.setenv(name, value)
    assert refused(tmp_path).startswith(said)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [("GOLDSMITH_DOKER__HOST", "GOLDSMITH_DOCKER__HOST"), ("GOLDSMITH_STATES", "GOLDSMITH_STATE"),
     ("goldsmith_kind", "GOLDSMITH_KINDS"), ("GOLDSMITH_STATE__DIR", "GOLDSMITH_STATE"),
     ("GOLDSMITH_NOWHERE", "GOLDSMITH_")],
)  # fmt: skip
def test_a_variable_that_sets_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, meant: str) -> None:
    """Whoever misspells one counts on what it does not do."""
    monkeypatch.setenv(variable, "x")
    with pytest.raises(ContentError, match=f"{variable} in the environment: no setting has this name") as error:
        load_settings()
    assert meant in error.value.hint


def test_variables_of_rehearsals_and_tests_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GOLDSMITH_NOW", "GOLDSMITH_TEST_DOCKER", "GOLDSMITH_AWS__ROLES__123456789012"):
        monkeypatch.setenv(variable, "x")
    assert load_settings().aws.roles == {"123456789012": "x"}


@pytest.mark.parametrize("key", ["host", "build_host"])
def test_a_socket_without_a_scheme_is_refused_with_the_address_to_write(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv(f"GOLDSMITH_DOCKER__{key.upper()}", "/run/docker.sock")
    with pytest.raises(ContentError, match=f"docker.{key}: .*unix:///run/docker.sock"):
        load_settings()


@pytest.mark.parametrize(
    ("key", "address"),
    [("docker.host", "ssh://me:hunter2@web-2"), ("docker.build_host", "tcp://me:hunter2@web-2:2376"),
     ("registry.address", "me:hunter2@registry.example.com/golden"),
     *((f"feeds.{feed}", "https://me:hunter2@mirror.example.com/x")
       for feed in ("tracker", "debsecan", "kev", "epss", "osv", "reproduced"))],
)  # fmt: skip
def test_an_address_with_a_password_in_it_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, key: str, address: str
) -> None:
    monkeypatch.setenv(f"GOLDSMITH_{key.upper().replace('.', '__')}", address)
    with pytest.raises(ContentError, match=f"{key}: ") as error:
        load_settings()
    assert "hunter2" not in str(error.value)


def test_a_registrys_address_may_end_in_a_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLDSMITH_REGISTRY__ADDRESS", "Reg.example.com:5000/golden/")
    assert load_settings().registry.address == "Reg.example.com:5000/golden"


@pytest.mark.parametrize("target", ["nowhere", "goldsmith.toml"])
def test_settings_that_a_link_hides_are_not_taken_for_none(tmp_path: Path, target: str) -> None:
    """A link that leads nowhere, or to itself: the defaults would apply, and nobody would know."""
    file = tmp_path / "goldsmith.toml"
    file.symlink_to(tmp_path / target)
    with pytest.raises(ContentError, match=r"goldsmith\.toml: "):
        load_settings(file)


def test_the_file_is_blamed_for_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else the environment sets."""
    monkeypatch.setenv("GOLDSMITH_REGISTRY__ADDRESS", "registry.example.com")
    assert "goldsmith.toml: registry.insecure: " in refused(tmp_path, '[registry]\ninsecure = "x"')


def test_channel_documents_that_no_reader_accepts_are_not_signed(tmp_path: Path) -> None:
    """A document lasts as long as the settings say, so they cannot say more than readers accept."""
    says = "goldsmith.toml: signing.channels_expire_after: must be at most 90 days, not 91d"
    assert says in refused(tmp_path, '[signing]\nchannels_expire_after = "91d"')
    (tmp_path / "goldsmith.toml").write_text('[signing]\nchannels_expire_after = "90d"')
    assert load_settings(tmp_path / "goldsmith.toml").signing.channels_expire_after == LASTS_AT_MOST


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
