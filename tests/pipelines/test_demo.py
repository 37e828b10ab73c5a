"""The demo, really run: no request is lost, and nothing of it is left behind, not even where it was killed."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from subprocess import PIPE

import pytest
import requests

from hardening.foundation.settings import Settings
from images.engine import engine, images_named
from images.ledger import Ledger
from pipelines.contract import DemoOutput
from pipelines.demo import web_service
from pipelines.demo.flow import _close
from pipelines.host import embedded_registry
from tests.support.checkouts import copy_checkout
from tests.support.engines import busybox_image
from tests.support.loop import Goldsmith, kill_when, processes, until

pytestmark = [pytest.mark.slow, pytest.mark.needs("root", "docker", "mirror", "docker-registry", "busybox")]

LEFT = "demo-test:left"  # the image of what `leave_a_rollout` leaves


class Stage:
    """A machine on which demos run, and what they have left on it."""

    def __init__(self, folder: Path, docker_host: str) -> None:
        self.folder, self.docker_host = folder, docker_host
        self.inv = Goldsmith(folder / "state", docker_host)
        self.state = folder / "state/demo"

    def running(self) -> set[str]:
        """The names of containers that carry the demo's label, running ones or not."""
        found = engine(self.docker_host).api.containers(all=True, filters={"label": web_service.LABEL})
        return {str(one["Names"][0]).lstrip("/") for one in found}

    def registry(self) -> str:
        return embedded_registry.known_address(Settings(state=self.state))

    def left(self, registry: str) -> list[object]:
        """Everything that a demo with this registry has on the machine, but its report."""
        client = engine(self.docker_host)
        networks = client.networks.list(filters={"label": web_service.LABEL})
        images = images_named(self.docker_host, f"{registry}/*")
        return [
            *self.running(), *networks, *images, *processes("docker-registry", str(self.state)),
            *([self.state] if self.state.exists() else []),
        ]  # fmt: skip

    def leave_a_rollout(self) -> None:
        """What a demo leaves that is killed in the middle of its rollout: members, one of them not started, a proxy."""
        api = engine(self.docker_host).api
        busybox_image(api, LEFT, "left", label=web_service.LABEL)
        api.create_network(web_service.NETWORK, labels={web_service.LABEL: ""})
        for name in (web_service.WEB, web_service.PROXY, f"{web_service.WEB}.demo-1"):
            api.create_container(LEFT, name=name)
        for name in (web_service.WEB, web_service.PROXY):
            api.start(name)

    def building(self) -> bool:
        """Whether a build has its temporary tree."""
        return any((self.state / "work").glob("*/*"))

    def clean(self) -> None:
        """What a failed test leaves."""
        registry = self.registry()
        web_service.clean(self.docker_host)
        for image in images_named(self.docker_host, LEFT):
            engine(self.docker_host).images.remove(image["Id"], force=True)
        if registry:
            web_service.forget_images(self.docker_host, registry)
        embedded_registry.stop(Settings(state=self.state))
        shutil.rmtree(self.state, ignore_errors=True)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, docker_host: str) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("demo"), docker_host)
    try:
        yield made
    finally:
        made.clean()


def test_the_member_is_replaced_no_request_is_lost_and_what_is_kept_is_where_it_says(stage: Stage) -> None:
    """Counted, not claimed; the page answers, from a registry that runs. A second demo at the same time is refused.

    It runs in a checkout below /tmp, where people try things out.
    """
    checkout = copy_checkout(stage.folder / "checkout")
    demo = stage.inv.start("demo", "--keep", "--json", output=PIPE, checkout=checkout)
    until(stage.registry, "a registry")
    second = stage.inv("demo", "--json")
    assert (second.code, second.out) == (3, "")
    out, err = demo.communicate()
    assert demo.returncode == 0, err
    said = json.loads(out)
    assert said["failed"] == 0
    assert said["requests"] > 100
    report = Path(said["report"]).read_text()
    for word in ("demo-web", "goldsmith-demo-web", "replaced", "judged by a sample", "Nothing to do.",
                 '<b class="good">nothing</b>', '<b class="good">0 overdue</b>'):  # fmt: skip
        assert word in report
    assert sorted(said["reached_seconds"], key=said["reached_seconds"].get) == ["found", "refused", "fixed", "gone"]
    for shown in ("CVE-2026-9999999", "platform team", "demo-web is refused by the policy demo", "in ed 1."):
        assert shown in err.decode()
    assert re.search(r"checked [0-9: -]+ UTC, \d+\w?[^<]* ago", report), "the page is as of the end"
    assert requests.get(said["kept_at"], timeout=600).text.strip().endswith("release two")
    assert {web_service.WEB, web_service.PROXY} <= stage.running()
    with closing(Ledger.open(f"sqlite:///{stage.state}/ledger.sqlite")) as ledger:
        one, two = (release.content for release in reversed(ledger.releases("demo-web")))
        told = [(run.member, run.content, run.told_by[:5]) for run in ledger.member_runs("demo")]
    assert told == [(web_service.WEB, one, "check"), (web_service.WEB, two, "demo-")]
    assert requests.get(f"http://{stage.registry().partition('/')[0]}/v2/", timeout=600).status_code == 401


def test_the_next_demo_removes_what_was_kept_and_all_that_a_killed_one_left(stage: Stage) -> None:
    """What was kept is all that runs at the end of a demo. The next one removes it, and is killed while it builds;
    beside what that leaves stand a service that runs and a replacement that was not started yet, as in the middle of
    a rollout. The one after that removes all, is stopped by Ctrl-C, and leaves nothing either.
    """
    kept = stage.registry()
    assert len(stage.left(kept)) > 5
    killed = stage.inv.start("demo")
    until(lambda: stage.registry() != kept and not stage.running(), "the kept one's end")
    kill_when(killed, stage.building, "a build")
    registry = stage.registry()
    assert len(stage.left(registry)) == 2  # its registry and its state
    stage.leave_a_rollout()
    assert len(stage.left(registry)) == 6
    demo = stage.inv.start("demo")
    until(lambda: stage.registry() not in ("", registry) and stage.building(), "the next demo builds")
    assert not stage.running()
    own = processes("docker-registry", str(stage.state))  # its registry runs before it builds
    assert len(own) <= 1
    assert [one for one in stage.left(registry) if one not in own] == [stage.state]
    demo.send_signal(signal.SIGINT)
    assert demo.wait(600) != 0
    assert [*stage.left(registry), *stage.left(kept)] == []
    assert processes(str(stage.state)) == []


def test_it_closes_with_the_minutes_of_the_planted_vulnerability_and_what_still_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In its last line; where nothing is kept and the engine is the host's, nothing runs."""
    shown = DemoOutput(
        seconds=90, requests=1500, failed=0, slowest_seconds=0.1, report="/r.html", kept_at="",
        reached_seconds={"found": 3, "gone": 93},
    )  # fmt: skip
    _close(shown, own_engine=False)
    said = capsys.readouterr().out
    assert said.startswith("Done in 90 s: 1500 requests, none lost.\nCVE-2026-9999999 in ed (planted): ")
    assert "found after 0.1 min, gone after 1.6 min.\nIt took: " in said
    assert said.endswith("\nStill running: nothing.\n")
    _close(shown.model_copy(update={"failed": 2, "kept_at": "http://127.0.0.1:1/"}), own_engine=True)
    said = capsys.readouterr().out
    assert "1500 requests, 2 LOST." in said
    assert said.endswith(
        "\nStill running: the service at http://127.0.0.1:1/, which the next ./goldsmith demo removes, "
        "and Goldsmith's own Docker Engine, which ./goldsmith teardown --apply removes.\n"
    )


def test_a_client_that_breaks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for nothing more, and that nothing was lost then says little."""

    def broken(*_: object, **__: object) -> None:
        raise UnicodeError("no answer at all")

    monkeypatch.setattr(requests, "get", broken)
    with pytest.raises(UnicodeError, match="no answer at all"), web_service.steady("http://127.0.0.1:9/"):
        pass


def test_keep_keeps_and_nothing_else_does(stage: Stage) -> None:
    """Also where the demo fails on the way, as without a mirror: exit code 4."""
    broken = stage.inv.with_(packages__mirror="http://127.0.0.1:9/debian")
    assert broken("demo").code == 4
    assert not stage.state.exists()
    assert broken("demo", "--keep").code == 4
    assert stage.state.exists()
