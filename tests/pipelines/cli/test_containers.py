"""An image that runs as its definition means it, and the engine that it runs on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import requests

from images.engine import engine
from tests.support.loop import Goldsmith, definition

SERVICE = """
title = "Of a test"
owner = "tests"
kind = "container"
profile = "container-base"
tmpfs = ["/tmp"]
smoke = ["true"]
base = { golden = "nginx-unprivileged" }
healthcheck = { command = ["/usr/local/bin/healthz"], interval = "1s" }
"""


@pytest.fixture
def bare(tmp_path: Path) -> Goldsmith:
    """A state in which nothing has ever happened, and an engine that does not exist."""
    return Goldsmith(tmp_path / "state", f"unix://{tmp_path}/no.sock")


def test_without_an_engine_none_is_shown_and_none_is_started(bare: Goldsmith) -> None:
    answer = bare.here("engine.show")
    assert (answer.code, answer.out) == (4, "")
    assert "no.sock does not answer" in answer.err


@pytest.mark.needs("docker")
def test_a_socket_without_a_scheme_in_the_environment_is_told_how_to_write_it(bare: Goldsmith) -> None:
    """Docker would take it for a machine's name."""
    inv = replace(bare, docker_host="", settings={"DOCKER_HOST": "/run/docker.sock"})
    answer = inv.here("engine.show")
    assert (answer.code, "hint: a socket is named unix:///run/docker.sock" in answer.err) == (4, True)


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("debian-server", 2, "kind: debian-server is a machine\n  hint: ./goldsmith image.boot debian-server"),
        ("python-runtime", 1, "python-runtime runs nothing by itself: "),
        ("debian-*", 2, "debian-* means 3 images: debian-base, debian-server, debian-static\n  hint: name one"),
        ("nginx-unprivileg", 2, "did you mean nginx-unprivileged"),
    ],
)
def test_what_cannot_run_by_itself_is_said(bare: Goldsmith, name: str, code: int, said: str) -> None:
    """Before anything is built or an engine is asked."""
    answer = bare.here("image.run", name)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err


@pytest.mark.slow
@pytest.mark.needs("root", "docker", "mirror")
def test_an_image_runs_as_its_definition_means_it_until_it_is_stopped(house: Goldsmith, tmp_path: Path) -> None:
    """Read-only, without capabilities, as its user, on loopback alone; a second run takes the place of the first."""
    content = definition(tmp_path / "content", "c-service", SERVICE)
    inv = house.fork(tmp_path / "state").with_(content)
    api = engine(house.docker_host).api
    try:
        for _ in range(2):
            [line] = inv("image.run", "c-service", "--json").json
        assert (line["state"], line["engine"]) == ("healthy", house.docker_host)
        [address] = line["answers_at"]
        assert address.startswith("127.0.0.1:")
        assert requests.get(f"http://{address.partition(' ')[0]}/", timeout=30).ok
        found = api.inspect_container(line["container"])
        host = found["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges"])
        assert (list(host["Tmpfs"]), found["Config"]["User"]) == (["/tmp"], "65532:65532")
        assert {one["HostIp"] for ports in host["PortBindings"].values() for one in ports} == {"127.0.0.1"}
        planned = {one["what"]: one for one in inv("teardown", "--json").json}["images that run"]
        assert (planned["action"], planned["detail"]) == ("remove", "goldsmith-run-c-service")
        for state in ("removed", "not there"):
            assert [one["state"] for one in inv("image.run", "c-service", "--stop", "--json").json] == [state]
        assert not api.containers(all=True, filters={"name": "goldsmith-run-c-service"})
        assert not api.images("goldsmith.invalid/run/c-service")
    finally:
        inv("image.run", "c-service", "--stop")


@pytest.mark.slow
@pytest.mark.needs("root", "docker", "mirror")
def test_a_container_that_ends_is_told_with_what_it_printed(house: Goldsmith, tmp_path: Path) -> None:
    """An image that could be built and cannot run here, such as without the memory it asks for: nothing of it stays."""
    content = definition(tmp_path / "content", "c-service", SERVICE)
    inv = house.fork(tmp_path / "state").with_(content)
    assert inv("image.build", "c-service").code == 0
    text = (content / "images/definitions/c-service/image.toml").read_text()
    broken = text.replace("[healthcheck", "# [healthcheck").replace("base =", 'entrypoint = ["false"]\nbase =')
    (content / "images/definitions/c-service/image.toml").write_text(broken)
    answer = inv("image.run", "c-service")
    assert (answer.code, answer.out) == (3, "")
    assert "it ended with status 1" in answer.err
    assert not engine(house.docker_host).api.containers(all=True, filters={"name": "goldsmith-run-c-service"})
