"""What is taken away from a machine: first shown, then done; what others made stays, and work under way stops it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from hardening.foundation.locks import only_one
from hardening.foundation.process import run
from hardening.foundation.settings import Settings
from images.engine import engine
from images.ledger import Holder
from pipelines.cli.teardown import MARKS
from pipelines.demo import web_service
from pipelines.host import embedded_registry
from pipelines.host.private_engine import PrivateEngine
from pipelines.host.provision import Engine
from pipelines.nightly.clock import jump_since_last
from tests.support.engines import busybox_image
from tests.support.loop import Goldsmith


@pytest.fixture
def used(tmp_path: Path) -> Goldsmith:
    """A state in which something has happened, and no engine."""
    inv = Goldsmith(tmp_path / "state", "")
    assert inv.here("image.list", "--json").code == 0
    return inv


def test_where_nothing_is_nothing_is_done(tmp_path: Path) -> None:
    """And nothing is made for it either."""
    answer = Goldsmith(tmp_path / "state", "").here("teardown", "--apply", "--json")
    assert (answer.code, answer.json) == (0, [])
    assert list(tmp_path.iterdir()) == []


def test_the_plan_changes_nothing_and_what_is_applied_is_gone(used: Goldsmith) -> None:
    """Once more, there is nothing left to do."""
    jump_since_last(used.state)  # the file that nights keep
    planned = used.here("teardown", "--json")
    assert [(line["what"], line["action"]) for line in planned.json] == [("state", "remove")]
    assert "ledger.sqlite" in planned.json[0]["detail"]
    assert "nothing was done: --apply" in planned.err
    assert used.state.exists()
    assert [line["action"] for line in used.here("teardown", "--apply", "--json").json] == ["removed"]
    assert not used.state.exists()
    assert "nothing of Goldsmith is here" in used.here("teardown", "--apply").err


def test_what_goldsmith_did_not_make_stays(used: Goldsmith) -> None:
    """A file of somebody's in the state directory, and what a link in it leads to."""
    (used.state / "notes").write_text("mine")
    (outside := used.state.parent / "shared").mkdir()
    (outside / "package.deb").touch()
    (used.state / "apt").symlink_to(outside)
    lines = used.here("teardown", "--apply", "--json").json
    assert [(line["where"], line["action"]) for line in lines if line["what"] == "a file"] == [
        (str(used.state / "notes"), "stays")
    ]
    assert [path.name for path in used.state.iterdir()] == ["notes"]
    assert (outside / "package.deb").exists()


@pytest.mark.parametrize("mark", [*MARKS, ""])
def test_a_directory_that_is_no_state_stays_whole(tmp_path: Path, mark: str) -> None:
    """Such as a home that holds `work` and `docker` of somebody's; by what only Goldsmith writes a state is known."""
    for names in (("work", "thesis"), ("docker", "compose"), ("store",)):
        tmp_path.joinpath("home", *names).mkdir(parents=True)
    if mark:
        (tmp_path / "home" / mark).parent.mkdir(exist_ok=True)
        (tmp_path / "home" / mark).write_text("192.0.2.0/28\n")
    elsewhere = {"GOLDSMITH_DATABASE": f"sqlite:///{tmp_path}/ledger.sqlite"}
    lines = Goldsmith(tmp_path / "home", "", settings=elsewhere).here("teardown", "--apply", "--json").json
    if mark:
        assert ([line["action"] for line in lines], (tmp_path / "home").exists()) == (["removed"], False)
    else:
        assert [(line["action"], line["detail"]) for line in lines] == [("stays", "not a state directory")]
        assert len(list((tmp_path / "home").rglob("*"))) == 5


@pytest.mark.parametrize("lock", ["work/0123456789ab.lock", "locks/nightly.lock"])
def test_a_command_at_work_is_not_torn_down(used: Goldsmith, lock: str) -> None:
    """A build or a night: exit code 3 and the lock; nothing is gone."""
    with only_one(used.state / lock, "a test"):
        answer = used.here("teardown", "--apply")
    assert (answer.code, answer.out) == (3, "")
    assert f"running here\n  hint: it holds {used.state / lock}" in answer.err
    assert (used.state / "ledger.sqlite").exists()


def test_a_rollout_under_way_is_not_torn_down(used: Goldsmith) -> None:
    """As long as its process keeps the fleet's lease; one that died has lost it after a minute."""
    ledger, now = used.ledger, datetime.now(UTC)
    ledger.begin_rollout("shop-1", "shop", "root@host", {}, now)
    held = Holder("shop", "root@host", "shop-1")
    ledger.acquire_lease(held, timedelta(minutes=1))
    answer = used.here("teardown", "--apply")
    assert (answer.code, "the fleet shop is being rolled by root@host" in answer.err) == (3, True)
    ledger.release_lease(held)
    assert used.here("teardown").code == 0


def test_a_shared_ledger_says_who_tore_down(tmp_path: Path) -> None:
    """The one in the state goes with it; any other keeps the line."""
    shared = f"sqlite:///{tmp_path}/elsewhere/ledger.sqlite"
    (tmp_path / "elsewhere").mkdir()
    inv = Goldsmith(tmp_path / "state", "", settings={"GOLDSMITH_DATABASE": shared})
    assert inv.here("image.list", "--json").code == 0
    (inv.state / "store/partial").mkdir(parents=True)
    assert inv.here("teardown", "--apply").code == 0
    from images.ledger import Ledger

    [line] = Ledger.open(shared).audit_lines()
    assert (line.action, line.subject) == ("teardown", str(inv.state))


def test_another_checkouts_demo_on_the_same_engine_stays(used: Goldsmith, monkeypatch: pytest.MonkeyPatch) -> None:
    """The containers and networks of a demo say whose they are."""
    client, cleaned = MagicMock(), list[Any]()
    monkeypatch.setattr("pipelines.cli.teardown.existing_engine", lambda *_: Engine("unix:///e.sock", "28", True))
    monkeypatch.setattr("pipelines.cli.teardown.engine", lambda _: client)
    for name, fake in (("engine", client), ("auth_config", None), ("wait_for", True)):
        monkeypatch.setattr(web_service, name, lambda *_, fake=fake, **__: fake)
    for state in (used.state, Path("/srv/another")):
        web_service.start("unix:///e.sock", Settings(state=state / "demo"), "proxy:1", "web:1")
    made = [call.kwargs for call in client.containers.create.call_args_list]
    networks = [call.kwargs for call in client.networks.create.call_args_list]

    def found(things: list[dict[str, Any]], label: str | list[str]) -> list[dict[str, Any]]:
        """As the engine filters."""
        wanted = {label} if isinstance(label, str) else set(label)
        return [one for one in things if wanted <= {text for k, v in one["labels"].items() for text in (k, f"{k}={v}")}]

    def removable(one: dict[str, Any]) -> MagicMock:
        return MagicMock(remove=lambda **_: cleaned.append(one))

    client.api.containers = lambda filters, **_: [{"Names": [one["name"]]} for one in found(made, filters["label"])]
    client.containers.list = lambda filters, **_: map(removable, found(made, filters["label"]))
    client.networks.list = lambda filters: map(removable, found(networks, filters["label"]))
    lines = {line["what"]: line["detail"] for line in used.here("teardown", "--apply", "--json").json}
    assert lines["the demo"] == "goldsmith-demo-proxy, goldsmith-demo-web"
    assert cleaned == [*made[:2], networks[0]]


@pytest.mark.needs("root", "unshare")
def test_what_is_mounted_in_the_state_is_not_emptied(used: Goldsmith) -> None:
    """Also where the state's name holds a space, which the kernel's table of mounts writes as `\\040`."""
    moved = replace(used, state=used.state.rename(used.state.with_name("my state")))
    (moved.state / "store").mkdir()
    answer = moved("teardown", "--apply", mounts=f'mount -t tmpfs tmpfs "{moved.state}/store"')
    assert (answer.code, f"{moved.state}/store: something is mounted" in answer.err) == (3, True)
    assert (moved.state / "ledger.sqlite").exists()


@pytest.mark.slow
@pytest.mark.needs("root", "dockerd", "docker-registry", "busybox", "ip")
def test_engine_bridges_registry_and_containers_go(tmp_path: Path) -> None:
    """With a network and a container that somebody made on the private engine, which the plan names."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    settings = Settings(state=state)
    private, inv = PrivateEngine(settings), Goldsmith(state, "")
    try:
        embedded_registry.registry_address(settings)
        api = engine(private.ensure()).api
        busybox_image(api, "goldsmith-test/web:1", "hello")
        api.create_network("theirs", driver="bridge")
        api.create_volume("their-data")
        made = api.create_container("goldsmith-test/web:1", name="their-web")
        api.start(made["Id"])
        shown = inv("engine.show", "--json").json
        assert [(line["what"], line["host"], line["private"]) for line in shown] == [
            ("fleets", private.host, True), ("builds", private.host, True),
        ]  # fmt: skip
        assert inv("engine.show").out == f"export DOCKER_HOST={private.host}\n"
        planned = {line["what"]: line for line in inv("teardown", "--json").json}
        assert set(planned) == {"embedded registry", "private engine", "state"}
        assert private.bridge in planned["private engine"]["detail"]
        assert "its containers end: their-web" in planned["private engine"]["detail"]
        assert "its volumes are lost: their-data" in planned["private engine"]["detail"]
        assert private.answers()
        bridges = private.bridges()
        assert len(bridges) == 2
        assert {line["action"] for line in inv("teardown", "--apply", "--json").json} == {"removed"}
        assert not state.exists()
        assert not private.runtime.exists()
        assert private.daemon.pid() is None
        assert not embedded_registry.running(settings)
        assert _links().isdisjoint(bridges)
        assert str(private.bridge) not in run(["iptables-save"], ok=range(256)).stdout
    finally:
        private.stop()
        embedded_registry.stop(settings)


def _links() -> set[str]:
    return {link["ifname"] for link in json.loads(run(["ip", "-j", "link"]).stdout)}
