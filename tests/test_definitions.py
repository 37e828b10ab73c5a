"""What stands in an image.toml reaches apt, Dockerfiles and the host's paths only as what it is meant to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardening.foundation.errors import ContentError
from tests.building import definition

BASE = 'base = { golden = "parent" }\n'
DEBIAN = 'base = { bootstrap = { family = "debian", suite = "%s", components = ["%s"] } }\n'


def written(tmp_path: Path, text: str) -> Path:
    """A content root with one definition."""
    folder = tmp_path / "images/definitions/one"
    folder.mkdir(parents=True)
    (folder / "image.toml").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    ["--solver=x", "-oDir::Bin::Solvers::=/tmp/x", "-y", "vim=1", "vim/sid", "vim-", "?essential", "a b", "vim\\n"],
)
def test_a_package_is_a_name_and_never_an_option(name: str) -> None:
    """apt runs as root on this host: what is no package name does not get there."""
    with pytest.raises(ContentError, match=r"image.toml: packages\[0\]"):
        definition(f'packages = ["{name}"]\n{BASE}')


@pytest.mark.parametrize(
    "text",
    [
        DEBIAN % ("trixie", "main\\nTrusted: yes"),
        DEBIAN % ("trixie\\nTrusted: yes", "main"),
        DEBIAN % ("../../escaped", "main"),
        DEBIAN % ("trixie", ""),
    ],
)
def test_a_distribution_adds_no_line_to_the_sources(text: str) -> None:
    """Suite and components are words of the archive, on one line."""
    with pytest.raises(ContentError, match=r"base\.bootstrap"):
        definition(text)


@pytest.mark.parametrize(
    "text",
    [
        'user = "0\\nRUN id"',
        'workdir = "/x\\nRUN id"',
        'workdir = "/x\\\\"',
        'stop_signal = "SIGTERM\\nRUN id"',
        'ports = ["80\\nRUN id"]',
        'environment = { "A\\nRUN id" = "1" }',
        'environment = { "A" = "1\\nRUN id" }',
        'environment = { "A B" = "1" }',
    ],
)
def test_what_becomes_an_instruction_stays_on_its_line(text: str) -> None:
    """No value begins another instruction of the Dockerfile."""
    with pytest.raises(ContentError, match=r"image.toml: (user|workdir|stop_signal|ports|environment)"):
        definition(f"{text}\n{BASE}")


def test_what_is_usual_is_allowed() -> None:
    """Names, numbers, signals and values as people write them."""
    text = """
packages = ["g++", "libstdc++6", "python3.13", "0ad"]
user = "nobody:65532"
workdir = "/var/lib/my app"
stop_signal = "SIGRTMIN+3"
ports = ["80", "53/udp"]
environment = { PATH = "/bin:/usr/bin", GREETING = "grüß dich, $USER \\"you\\"" }
"""
    assert definition(text + DEBIAN % ("bookworm-backports", "non-free-firmware")).packages[1] == "libstdc++6"


@pytest.mark.parametrize("path", ["/../../etc/cron.d/x", "/a/../../../b", "/x\\ny", "/"])
def test_a_file_goes_to_a_place_in_the_image(path: str) -> None:
    """Its path is also one below the build's own context on this host."""
    with pytest.raises(ContentError, match=r"files\[0\].path"):
        definition(f'files = [{{ source = "a", path = "{path}" }}]\n{BASE}')
