"""An image that runs as its definition means it, and the engine that it runs on."""

from __future__ import annotations

import tomllib
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import requests

from hardening.findings import Outcome
from hardening.foundation.content import parse
from hardening.foundation.errors import RefusedError
from hardening.foundation.process import run
from hardening.foundation.settings import Settings
from images.engine import engine
from images.model import Definition
from pipelines.cli import containers
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


def test_an_engine_is_shown_as_a_shell_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the state's path has a space."""
    host = f"unix://{tmp_path}/my state/docker.sock"
    shown = containers.EngineLine(what="fleets", host=host, version="29", containerd_store=True, private=True)
    monkeypatch.setattr(containers, "engine_lines", lambda _: [shown])
    containers.show_engines(as_json=False)
    told = run(["sh", "-c", f'{capsys.readouterr().out.strip()}; printf %s "$DOCKER_HOST"'])
    assert told.stdout == host


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


class OneEngine:
    """An engine that answers, and an image on it whose base's health check is asked every minute and a half."""

    def __init__(self, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client, self.host = MagicMock(), host
        self.removed: list[str] = []
        self.context = MagicMock(settings=Settings(state=Path("/srv/state")))
        health = {"Test": ["CMD", "true"], "Interval": 90 * 10**9}
        self.context.store.config.return_value = {"config": {"Healthcheck": health, "ExposedPorts": {"8080/tcp": {}}}}
        made = self.client.containers.create.return_value
        made.attrs = {"NetworkSettings": {"Ports": {"8080/tcp": [{"HostPort": "32768"}]}}}
        fakes = {"engine": self.client, "workspace": nullcontext(Path()), "load_into": None}
        for name, fake in fakes.items():
            monkeypatch.setattr(containers, name, lambda *_, fake=fake: fake)
        monkeypatch.setattr(containers, "remove_runs", lambda *given: self.removed.append(given[2]))
        self.until_healthy = MagicMock(return_value=(Outcome.PASS, ""))
        monkeypatch.setattr(containers, "until_healthy", self.until_healthy)

    def run(self) -> containers.RunLine:
        wanted = parse(tomllib.loads(SERVICE), Definition, "image.toml", name="c-service")
        artifact = MagicMock(digest=f"sha256:{'0' * 64}")
        artifact.name = "c-service"
        return containers._run(self.context, wanted, artifact, self.host)


def test_the_health_check_of_an_image_has_time_for_its_own_interval(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which may be its base's, and longer than a minute; what is said of it is that too."""
    one = OneEngine("unix:///run/docker.sock", monkeypatch)
    assert one.run().state == "healthy"
    assert one.until_healthy.call_args.args[2] == 60 + 90
    assert "its health check is asked every 90s" in capsys.readouterr().err
    assert one.removed == ["c-service"]  # the one before


@pytest.mark.parametrize("end", [KeyboardInterrupt, RefusedError("it ended")])
def test_whatever_ends_a_run_early_nothing_of_it_is_left(monkeypatch: pytest.MonkeyPatch, end: Any) -> None:
    one = OneEngine("unix:///run/docker.sock", monkeypatch)
    one.until_healthy.side_effect = end
    with pytest.raises((KeyboardInterrupt, RefusedError)):
        one.run()
    assert one.removed == ["c-service"] * 2


@pytest.mark.parametrize(
    ("host", "answers_at", "asked"),
    [
        ("unix:///run/docker.sock", "127.0.0.1:32768 → 8080/tcp", True),
        ("ssh://root@box:22", "box: 127.0.0.1:32768 → 8080/tcp", False),
        ("tcp://10.0.0.5:2376", "10.0.0.5: 127.0.0.1:32768 → 8080/tcp", False),
    ],
)
def test_ports_are_those_of_the_engines_machine(
    monkeypatch: pytest.MonkeyPatch, host: str, answers_at: str, asked: bool
) -> None:
    """Its loopback is not this one's, whose free ports say nothing of it."""
    one, free = OneEngine(host, monkeypatch), MagicMock(return_value=8080)
    monkeypatch.setattr(containers, "_on_loopback", free)
    assert (one.run().answers_at, free.called) == ((answers_at,), asked)
    published = one.client.containers.create.call_args.kwargs["ports"]
    assert published == {"8080/tcp": ("127.0.0.1", 8080 if asked else 0)}


def test_two_states_run_the_same_image_on_one_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """In containers of two names, that say which image it is."""
    one = OneEngine("unix:///run/docker.sock", monkeypatch)
    first = one.run().container
    assert one.client.containers.create.call_args.kwargs["name"] == first
    one.context.settings = Settings(state=Path("/srv/another"))
    second = one.run().container
    assert first != second
    assert {name.rpartition("-")[0] for name in (first, second)} == {"goldsmith-run-c-service"}


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
        assert (planned["action"], planned["detail"]) == ("remove", line["container"])
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
