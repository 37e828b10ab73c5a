"""The demo, really run: no request is lost, a broken replacement is put back, and nothing of it is left behind."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.settings import Settings
from images.engine import engine
from pipelines import local
from pipelines.demo import service
from tests.engines import requests_to
from tests.loop import Goldsmith, kill_when, processes, until

pytestmark = [pytest.mark.slow, pytest.mark.needs("root", "docker", "mirror", "docker-registry")]


class Stage:
    """A machine on which demos run, and what they have left on it."""

    def __init__(self, folder: Path, docker_host: str) -> None:
        self.docker_host, self.inv = docker_host, Goldsmith(folder / "state", docker_host)
        self.state = folder / "state/demo"

    @property
    def own(self) -> Goldsmith:
        """Goldsmith as the demo that was kept sees it."""
        return Goldsmith(self.state, self.docker_host, (self.state / "content",))

    def containers(self) -> dict[str, str]:
        """Name → id of what carries the demo's label."""
        found = engine(self.docker_host).containers.list(all=True, filters={"label": service.LABEL})
        return {str(one.name): str(one.id) for one in found}

    def registry(self) -> str:
        return local.known_address(Settings(state=self.state))

    def left(self, registry: str) -> list[object]:
        """Everything that a demo with this registry has on the machine, but its report."""
        client = engine(self.docker_host)
        networks = client.networks.list(filters={"label": service.LABEL})
        images = client.images.list(filters={"reference": f"{registry}/*"})
        return [
            *self.containers(), *networks, *images, *processes("docker-registry", str(self.state)),
            *([self.state] if self.state.exists() else []),
        ]  # fmt: skip

    def building(self) -> bool:
        """Whether a build has its temporary tree."""
        return any((self.state / "work").glob("*/*"))

    def clean(self) -> None:
        """What a failed test leaves."""
        registry = self.registry()
        service.clean(self.docker_host)
        if registry:
            service.forget_images(self.docker_host, registry)
        local.stop(Settings(state=self.state))
        shutil.rmtree(self.state, ignore_errors=True)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, docker_host: str) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("demo"), docker_host)
    try:
        yield made
    finally:
        made.clean()


@pytest.fixture(scope="module")
def kept(stage: Stage) -> dict[str, Any]:
    """What a demo said that was to be kept."""
    answer = stage.inv("demo", "--keep", "--json")
    assert answer.code == 0, answer.err
    said: dict[str, Any] = answer.json
    return said


def test_the_member_is_replaced_and_no_request_is_lost(stage: Stage, kept: dict[str, Any]) -> None:
    """Counted, not claimed; the report is there, and what was kept serves the new release."""
    assert kept["failed"] == 0
    assert kept["requests"] > 100
    report = Path(kept["report"]).read_text()
    for word in ("demo-web", "goldsmith-demo-web", "done", "judged by a sample"):
        assert word in report
    assert stage.containers().keys() == {service.WEB, service.PROXY}
    with requests_to(kept["kept_at"]) as stream:
        until(lambda: stream.answers, "an answer of what was kept")
    assert "release two" in stream.answers[0]


def test_a_broken_replacement_is_put_back_and_no_request_is_lost(stage: Stage, kept: dict[str, Any]) -> None:
    """A golden image that passed every check but cannot read its page: exit code 3, and the same old container."""
    image = stage.state / "content/images/definitions/demo-web/image.toml"
    text = image.read_text()
    unreadable = text.replace('index.html" }', 'index.html", mode = "0600" }')
    assert unreadable != text
    image.write_text(unreadable)
    published = stage.own("image.publish", "demo-web", "--policy", "demo", "--json")
    assert published.by_name()["demo-web"]["action"] == "published", published.err
    assert stage.own("image.promote", "demo-web").code == 0
    before = stage.containers()
    fleet = stage.state / "content/pipelines/fleets/demo.toml"
    fleet.write_text(fleet.read_text().replace('healthy_deadline = "30s"', 'healthy_deadline = "5s"'))
    with requests_to(kept["kept_at"]) as stream:
        answer = stage.own("roll.start", "demo", "--apply")
        time.sleep(1)
    assert answer.code == 3, answer.err
    assert "403" in answer.err, "it says what the health check saw"
    assert stream.failures == []
    assert len(stream.answers) > 100
    assert {text.rpartition(">")[2] for text in stream.answers} == {"release two"}
    assert stage.containers() == before


def test_the_next_demo_removes_one_that_was_kept_and_one_that_was_killed(stage: Stage, kept: dict[str, Any]) -> None:
    """kill -9 as soon as the second builds; the third, stopped by Ctrl-C while it builds, leaves nothing either."""
    registry = stage.registry()
    assert len(stage.left(registry)) > 5
    kill_when(stage.inv.start("demo"), lambda: not stage.registry() and stage.building(), "the second demo builds")
    assert stage.left(registry) == [stage.state], "what was kept is gone"
    third = stage.inv.start("demo")
    until(lambda: not stage.building(), "the third demo removes what the second left")
    until(stage.building, "the third demo builds")
    third.send_signal(signal.SIGINT)
    assert third.wait(60) != 0
    assert stage.left(registry) == []
    assert processes(str(stage.state)) == []


def test_a_demo_leaves_nothing_but_its_report(stage: Stage) -> None:
    """No container, network, image, registry or file; people are told what to type next."""
    second = stage.inv.start("demo")
    until(stage.registry, "a registry")
    registry = stage.registry()
    refused = stage.inv("demo", "--json")
    assert (refused.code, refused.out) == (3, ""), "one at a time"
    assert second.wait(300) == 0
    assert stage.left(registry) == []
    assert (stage.inv.state / "reports/demo.html").exists()
