"""What stands in an image.toml reaches apt, Dockerfiles and the host's paths only as what it is meant to be."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from hardening.catalog import load_controls
from hardening.check import run_checks
from hardening.foundation.errors import ContentError
from hardening.foundation.settings import ROOT
from hardening.model import Profile
from hardening.render import render
from images.build import build_steps, buildkit
from images.build.config import image_config
from images.catalog import file_digests, files_of
from images.plan.build_plan import inputs_of
from images.scan.verify import facts_of, refusals
from tests.support.building import NOTHING, definition

BASE = 'base = { golden = "parent" }\n'
DEBIAN = 'base = { bootstrap = { family = "debian", suite = "%s", components = ["%s"] } }\n'


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


def folder_with(base: Path, **links: str) -> Path:
    """A definition's folder with a file, a program and links."""
    folder = base / "one"
    (folder / "files").mkdir(parents=True, exist_ok=True)
    (folder / "image.toml").write_text("")
    (folder / "files/image.toml").write_text("of the application")
    (folder / "files/run").write_text("#!/bin/sh\n")
    for name, target in links.items():
        (folder / name).symlink_to(target)
    return folder


@pytest.mark.parametrize(
    ("target", "because"),
    [
        ("../secret", "out of the definition's folder"),
        ("..", "out of the definition's folder"),
        ("{folder}/files/run", "out of the definition's folder"),
        ("../one/files/run", "out of the definition's folder"),
        ("files/../../one/files", "out of the definition's folder"),
        ("files/below/up/../one/files/run", "out of the definition's folder"),
        ("nowhere", "which is not there"),
        ("a", "which is not there"),
    ],
)
def test_a_link_that_leaves_the_folder_is_refused_before_anything_is_copied(
    tmp_path: Path, target: str, because: str
) -> None:
    """Files of this host do not get into images; dangling and circular links are named, too."""
    (tmp_path / "secret").write_text("of the host")
    (tmp_path / "one/files/below").mkdir(parents=True)
    (tmp_path / "one/files/below/up").symlink_to("../..")  # so that files/below/up/.. is not where it seems to be
    folder = folder_with(tmp_path, a=target.format(folder=tmp_path / "one"))
    for refuse in (files_of, file_digests, lambda found: build_steps.copy_folder(found, tmp_path / "context")):
        with pytest.raises(ContentError, match=rf"one/a: .*{because}"):
            refuse(folder)
    assert not (tmp_path / "context/a").exists()


def test_a_folder_deeper_than_its_limit_is_refused(tmp_path: Path) -> None:
    """A few files in a deep folder kept lint and the night busy for a quarter of an hour."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "/".join("d" * 64)).mkdir(parents=True)
    assert files_of(tmp_path / "one") == {}
    (tmp_path / "one" / "/".join("d" * 66)).mkdir(parents=True)
    with pytest.raises(ContentError, match=r"exceeds the limit content\.depth"):
        files_of(tmp_path / "one")


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_definition_has_no_folder_of_the_name_that_builds_need(tmp_path: Path, kind: str) -> None:
    """What lies there would lead what the build writes, as root, elsewhere."""
    folder = folder_with(tmp_path, **({".goldsmith-files": "files"} if kind == "link" else {}))
    (folder / ".goldsmith-files").mkdir(exist_ok=True)
    for refuse in (files_of, file_digests, lambda found: build_steps.copy_folder(found, tmp_path / "context")):
        with pytest.raises(ContentError, match=r"one/\.goldsmith-files: builds put the files"):
            refuse(folder)


@pytest.mark.parametrize("planted", [".goldsmith-files", ".goldsmith-files/etc", ".goldsmith-files/etc/run"])
def test_what_a_build_adds_to_its_context_stays_in_there(tmp_path: Path, planted: str) -> None:
    """Also over links that came into it in spite of all."""
    folder, context = folder_with(tmp_path), tmp_path / "work/context"
    (tmp_path / "host/etc").mkdir(parents=True)
    for name in ("run", "etc/run"):
        (tmp_path / "host" / name).write_text("of the host")
    (context / planted).parent.mkdir(parents=True)
    (context / planted).symlink_to(tmp_path / "host" / planted.removeprefix(".goldsmith-files").lstrip("/"))
    wanted = definition(f'files = [{{ source = "files/run", path = "/etc/run" }}]\n{BASE}')
    buildkit._put_files(wanted, folder, context)
    assert {(tmp_path / "host" / name).read_text() for name in ("run", "etc/run")} == {"of the host"}
    written = [path for path in context.rglob("run") if path.is_file()]
    assert [path.read_text() for path in written] == ["#!/bin/sh\n"]


def test_the_build_context_is_what_the_input_digest_covers(tmp_path: Path) -> None:
    """Links inside stay links, modes are two, image.toml and empty folders stay behind."""
    folder = folder_with(tmp_path, a="files/run")
    (folder / "files/run").chmod(0o700)
    (folder / "files/image.toml").chmod(0o666)
    (folder / "empty").mkdir(mode=0o700)
    context = build_steps.copy_folder(folder, tmp_path / "context")
    assert sorted(p.relative_to(context).as_posix() for p in context.rglob("*")) == [
        "a", "files", "files/image.toml", "files/run",
    ]  # fmt: skip
    assert (context / "a").readlink() == Path("files/run")
    modes = [(context / name).stat().st_mode & 0o7777 for name in ("files", "files/run", "files/image.toml")]
    assert modes == [0o755, 0o755, 0o644]
    assert file_digests(folder).keys() == {"a", "files/image.toml", "files/run"}


@pytest.mark.parametrize(("mode", "changes"), [(0o755, True), (0o4644, True), (0o600, False), (0o664, False)])
def test_a_mode_that_changes_the_image_is_an_input_and_a_umask_is_none(
    tmp_path: Path, mode: int, changes: bool
) -> None:
    """A script that became executable rebuilds its image; another person's checkout does not."""
    folder = folder_with(tmp_path)
    (folder / "files/run").chmod(0o644)
    before = file_digests(folder)
    (folder / "files/run").chmod(mode)
    assert (file_digests(folder) != before) is changes


def test_a_template_in_another_encoding_is_named(tmp_path: Path) -> None:
    """Latin-1 is no traceback."""
    (tmp_path / "Dockerfile.j2").write_bytes("# für".encode("latin-1"))
    with pytest.raises(ContentError, match=r"Dockerfile.j2: not UTF-8"):
        build_steps.render(tmp_path / "Dockerfile.j2", {})


@pytest.mark.parametrize(
    ("said", "broken"),
    [
        ("", ["healthcheck"]),
        ('[healthcheck]\nnone_because = "a runtime runs nothing by itself"', []),
        ('[healthcheck]\ncommand = ["healthz"]', []),
    ],
)
def test_a_definition_that_says_nothing_of_its_health_is_refused(tmp_path: Path, said: str, broken: list[str]) -> None:
    """The control `healthcheck` asks for a check or a reason in words; nobody has given it one beforehand."""
    for name in ("usr", "etc"):
        (tmp_path / name).mkdir()
    only = Profile.model_validate({"name": "p", "title": "t", "owner": "us", "controls": [{"control": "healthcheck"}]})
    overlay = render(only, load_controls([ROOT]), {}, {"kind": "container"}, date(2026, 1, 1))
    wanted = definition(DEBIAN % ("trixie", "main") + said)
    config = image_config(wanted, "linux/amd64", None, [], 0, "step")
    results = run_checks(overlay, tmp_path, facts_of(wanted, config, None))
    assert [result.control for result in refusals(results)] == broken


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f'user = "0"\n{BASE}', "user"),
        (f'smoke = ["true"]\n{BASE}', "smoke"),
        (f'ports = ["22/tcp"]\n{BASE}', "ports"),
        (f'{BASE}healthcheck = {{ none_because = "it is a machine" }}', "healthcheck"),
        (f'{BASE}environment = {{ A = "1" }}', "environment"),
        ('base = { image = "debian:13" }\n', "base"),
        ('base = { bootstrap = { family = "debian", suite = "trixie", variant = "static" } }\n', "base"),
    ],
)
def test_a_machine_has_nothing_that_only_a_container_has(text: str, key: str) -> None:
    """What would be silently ignored is refused instead, with its key and what to do."""
    with pytest.raises(ContentError, match=rf"image.toml: {key}: .*(container|machine)") as caught:
        definition(text, kind="machine")
    assert caught.value.hint


def test_a_container_has_no_machine_table() -> None:
    """Kernel parameters mean nothing to a container."""
    with pytest.raises(ContentError, match=r"image.toml: machine: only a machine has it") as caught:
        definition(f"{BASE}machine = {{ }}")
    assert 'kind = "machine"' in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        'command_line = ["quiet splash"]',
        "command_line = ['a=\"b\"']",
        'command_line = ["a\\nb"]',
        'listens = ["22"]',
        'listens = ["ssh/tcp"]',
        'minimum_size = "2 GB"',
        'minimum_size = "0G"',
        'builder = "packer"',
    ],
)
def test_what_a_machine_table_holds_is_of_its_form(text: str) -> None:
    """Parameters reach the kernel's command line, sizes the partition table: each as one plain word."""
    with pytest.raises(ContentError, match=r"image.toml: machine\."):
        definition(f"{BASE}[machine]\n{text}", kind="machine")


def test_the_inputs_of_a_container_hold_nothing_of_machines() -> None:
    """Old containers keep the input digests that they had before there were machines, and the other way round."""
    container, machine = definition(BASE), definition(f"{BASE}[machine]\nlistens = ['22/tcp']", kind="machine")
    of_container, of_machine = (
        inputs_of(one, "linux/amd64", overlay=NOTHING, parent="", packages=(), files={}, sources="", builder="1")
        for one in (container, machine)
    )
    assert "machine" not in of_container["definition"]
    assert of_machine["definition"]["machine"]["listens"] == ["22/tcp"]
    assert not of_machine["definition"].keys() & {"user", "healthcheck", "ports"}
