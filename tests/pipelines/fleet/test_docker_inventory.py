"""Which containers are members, asked of an engine in memory: what is counted, what is refused, and how many calls."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from threading import Barrier
from types import SimpleNamespace
from typing import Any, ClassVar

import docker.errors
import pytest

from hardening.foundation.errors import MalformedError, OutsideError, RefusedError
from images.registry.client import NotFoundError
from pipelines.fleet.docker import inventory
from pipelines.fleet.docker.images import Images, registered
from pipelines.fleet.docker.inventory import AT_ONCE, ContainerInventory, ContainerList, find, inside
from pipelines.fleet.members import Key, Member, Read
from pipelines.fleet.model import Fleet, Method
from pipelines.rollout import rivals
from tests.support.fleets import fleet as fleet_with

IMAGE = "sha256:" + "1" * 64


class Engine:
    """An engine that answers what the calls of an inventory ask, and counts them."""

    def __init__(self) -> None:
        self.inspected: dict[str, dict[str, Any]] = {}
        self.images: dict[str, dict[str, Any]] = {IMAGE: {"Id": IMAGE, "RepoDigests": [], "Config": {}}}
        self.calls: Counter[str] = Counter()

    def run(self, name: str, status: str = "running", code: int = 0, policy: str = "no", **host: Any) -> dict[str, Any]:
        labels = host.pop("labels", {"app": "web"})
        image = host.pop("image", IMAGE)
        made = {
            "Id": f"id-{name}", "Name": f"/{name}", "Image": image, "Created": "2026-03-01T12:00:00Z",
            "Config": {"Image": "r.example/web:1", "Labels": labels},
            "State": {"Status": status, "ExitCode": code},
            "HostConfig": {"NetworkMode": "bridge", "RestartPolicy": {"Name": policy}, "AutoRemove": False, **host},
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "10.0.0.1"}}}, "Mounts": [],
        }  # fmt: skip
        self.inspected[made["Id"]] = made
        return made

    def containers(self, **_: Any) -> list[dict[str, Any]]:
        self.calls["list"] += 1
        return [
            {
                "Id": one["Id"], "Names": [one["Name"]], "Labels": one["Config"]["Labels"],
                "State": one["State"]["Status"], "Status": one.get("Shown", "Up 3 minutes"),
                "HostConfig": {"NetworkMode": one["HostConfig"]["NetworkMode"]},
                "NetworkSettings": one["NetworkSettings"],
            }
            for one in self.inspected.values()
        ]  # fmt: skip

    def inspect_container(self, container: str) -> dict[str, Any]:
        self.calls["inspect"] += 1
        if container not in self.inspected:
            raise docker.errors.NotFound("no such container")
        return self.inspected[container]

    def inspect_image(self, reference: str) -> dict[str, Any]:
        self.calls["image"] += 1
        if reference not in self.images:
            raise docker.errors.ImageNotFound("no such image")
        return self.images[reference]


@pytest.fixture
def api() -> Engine:
    return Engine()


@pytest.fixture
def well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every running container answers."""
    monkeypatch.setattr(inventory, "probe", lambda _api, _health, one: Read(one["State"]["Status"] == "running", ""))


def fleet(health: str = "http") -> Fleet:
    given: dict[str, Any] = {"kind": health, "port": 80} if health == "http" else {"kind": health}
    return Fleet.model_validate({**fleet_with().model_dump(exclude_unset=True), "health": given})


def members(api: Engine, *recorded: str, of: Fleet | None = None) -> dict[str, Member]:
    images = Images(api, lambda _reference: None)
    found = ContainerInventory(api, of or fleet(), "host", images, lambda: recorded).members()
    return {one.name: one for one in found}


@pytest.mark.usefixtures("well")
def test_a_dead_member_counts_and_is_left_alone(api: Engine) -> None:
    """It is missing among those that serve; what was meant to end, or is kept, is no member."""
    api.run("web-1")
    api.run("web-2", "exited", 0, "always")
    api.run("web-3", "exited", 137, "unless-stopped")
    api.run("web-4", "dead", 1, "on-failure")
    api.run("web-5", "exited", 1, labels={"app": "web", "dev.goldsmith.rollout": "r0"})
    api.run("web-6", "exited", 1)
    api.run("crashed", "exited", 1)
    api.run("done", "exited", 0, "on-failure")
    api.run("job", "exited", 0)
    api.run("web-1.old.r1", "exited", 0, "unless-stopped")
    api.run("web-1.r2", "exited", 1, "always", labels={"app": "web", "dev.goldsmith.rollout": "r2"})
    api.run("web-9", "created", 0, "always")
    found = members(api, "web-6", "job")
    assert list(found) == ["web-1", "web-2", "web-3", "web-4", "web-5", "web-6"]
    assert [one.healthy for one in found.values()] == [True, *[False] * 5]
    assert found["web-3"].cannot_roll == "it does not run (exited): start it, or remove it"


@pytest.mark.usefixtures("well")
def test_neighbours_that_do_not_run_are_seen(api: Engine) -> None:
    """They would find nothing when they are started again."""
    api.run("web-1")
    api.run("web-2")
    api.run("web-3")
    api.run("sidecar", "exited", 0, labels={}, NetworkMode="container:id-web-1")
    api.run("client", "exited", 0, labels={}, Links=["/web-2:/client/db"])
    api.run("tracer", "created", 0, labels={}, PidMode="container:id-web-3")
    assert [one.cannot_roll.partition(" (")[0] for one in members(api).values()] == [
        "the container sidecar lives in its namespaces",
        "the container client links to it",
        "the container tracer lives in its namespaces",
    ]


@pytest.mark.usefixtures("well")
def test_a_paused_member_is_refused(api: Engine) -> None:
    """It stays paused."""
    api.run("web-1", "paused")
    assert "it is paused" in members(api)["web-1"].cannot_roll


@pytest.mark.usefixtures("well")
def test_what_an_orchestrator_made_is_left_to_it(api: Engine) -> None:
    """It would start another one for each that is stopped, and remove ours."""
    api.run("web-1", labels={"app": "web", "com.docker.swarm.task.id": "t1"})
    assert members(api)["web-1"].cannot_roll.startswith("Docker Swarm made it and would undo its replacement")


@pytest.mark.parametrize(
    ("shown", "healthy"),
    [("Up 1 s (healthy)", True), ("Up 1 s (unhealthy)", False), ("Up 1 s (health: starting)", False)],
)
def test_the_images_own_health_check_is_read_from_the_list(api: Engine, shown: str, *, healthy: bool) -> None:
    """The list says what the engine last saw."""
    api.run("web-1")["Shown"] = shown
    web = members(api, of=fleet("docker"))["web-1"]
    assert (web.healthy, web.starting) == (healthy, "starting" in shown)


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize(
    ("listed", "what"), [(None, "list of containers"), ([7], "item 0"), ([{}], "item 0"), ([{"Id": 7}], "item 0")]
)
def test_a_list_of_another_form_is_malformed(api: Engine, listed: Any, what: str) -> None:
    """It says what of it."""
    api.containers = lambda **_: listed  # type: ignore[method-assign]
    with pytest.raises(MalformedError, match=what):
        members(api)


def test_what_an_engine_shows_of_a_container_is_an_object(api: Engine) -> None:
    """Nothing else is made one."""
    api.run("web-1")
    api.inspect_container = lambda _: [["Id", "x"]]  # type: ignore[method-assign,assignment]
    with pytest.raises(MalformedError, match=r"what the Docker Engine shows of web-1"):
        find(api, "web-1")


def test_each_look_after_the_first_is_one_call(api: Engine) -> None:
    """What never changes is asked once; what was made since is asked then."""
    for number in range(60):
        api.run(f"web-{number}")
    look = ContainerInventory(api, fleet(), "host", Images(api, lambda _reference: None), tuple)
    assert len(look.members()) == 60
    api.calls.clear()
    assert len(look.members()) == 60
    assert [one.name for one in look.members("web-7")] == ["web-7"]
    assert api.calls == {"list": 2}
    api.run("web-60")
    assert len(look.members()) == 61
    assert api.calls == {"list": 3, "inspect": 1}


def test_members_are_probed_side_by_side(api: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that hang cost the time of one: each of these probes ends when all of them have begun."""
    for number in range(AT_ONCE):
        api.run(f"web-{number}")
    begun = Barrier(AT_ONCE, timeout=600)

    def hangs(*_: Any) -> Read:
        begun.wait()
        return Read(False, "nothing")

    monkeypatch.setattr(inventory, "probe", hangs)
    assert not any(one.healthy for one in members(api).values())


def test_a_probe_that_the_engine_cannot_run_in_one_container_is_a_bad_read() -> None:
    """It ends neither the look at the fleet nor the check of it; an engine that is gone does."""

    class Broken:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def exec_create(self, *_: Any) -> None:
            raise self.error

    def read(error: Exception) -> Read:
        api: Any = Broken(error)
        return inside(api, {"Id": "id"}, ["true"], 1)

    refused = docker.errors.APIError("409", explanation="container is not running")
    assert read(refused) == Read(False, "true could not be run: container is not running")
    assert not read(ConnectionResetError("reset")).good
    import requests

    with pytest.raises(requests.exceptions.ConnectionError):
        read(requests.exceptions.ConnectionError("no engine"))


@pytest.mark.usefixtures("well")
def test_an_image_without_a_record_refuses_its_members_alone(api: Engine) -> None:
    """What it set by default would count as set by the user, and be kept for ever."""
    api.run("web-1")
    api.run("web-2", image="sha256:2")
    found = members(api)
    assert found["web-1"].cannot_roll == ""
    assert "no record of the image r.example/web@sha256:2 any more" in found["web-2"].cannot_roll
    assert "docker pull r.example/web@sha256:2" in found["web-2"].cannot_roll


def test_what_the_engine_forgot_is_asked_of_the_registry_once(api: Engine) -> None:
    """By digest; what it goes back to is named by it."""
    asked = []

    def configuration(reference: str) -> dict[str, Any]:
        asked.append(reference)
        return {"config": {"User": "app"}, "rootfs": {"diff_ids": ["sha256:a"]}}

    images, one = Images(api, configuration), api.run("web-1", image="sha256:2")
    for _ in range(2):
        assert images.of(one)["Config"] == {"User": "app"}
    assert images.of(one)["RepoDigests"] == asked == ["r.example/web@sha256:2"]
    copy = {**one, "Config": {"Image": "mirror.example/web:1"}}
    assert images.of(copy)["RepoDigests"] == ["mirror.example/web@sha256:2"], "the same image from elsewhere"


@pytest.mark.parametrize("reachable", [True, False])
def test_what_is_here_from_a_mirror_is_pulled_by_the_name_that_is_wanted(reachable: bool) -> None:
    """Else the new one would be started by an id, which does not say where it came from."""
    wanted, digest = "r.example/web@sha256:2", "sha256:2"

    class Store:
        names: ClassVar[set[str]] = {digest}
        pulled = 0

        def inspect_image(self, reference: str) -> dict[str, Any]:
            if reference not in self.names:
                raise docker.errors.NotFound("no such image")
            return {"Id": digest}

        def pull(self, reference: str, **_: Any) -> None:
            self.pulled += 1
            if not reachable:
                raise docker.errors.APIError("no such host")
            self.names = {*self.names, reference}

    store = Store()
    images = Images(store, lambda _reference: None)
    images.fetch(wanted)
    images.fetch(wanted)
    assert ((images.here(wanted) or {})["Called"], store.pulled) == ((wanted, 1) if reachable else (digest, 2))
    with pytest.raises(docker.errors.APIError) if not reachable else nullcontext():
        images.fetch("r.example/other@sha256:3")


def test_a_registry_that_cannot_be_reached_is_asked_once_for_each_look(api: Engine) -> None:
    """Not once for each of the members; the refusal says what the registry said."""
    asked = []

    def configuration(reference: str) -> dict[str, Any]:
        asked.append(reference)
        raise OutsideError("the registry cannot be reached")

    images, one = Images(api, configuration), api.run("web-1", image="sha256:2")
    for _ in range(3):
        with pytest.raises(RefusedError, match="the registry cannot be reached"):
            images.of(one)
    assert len(asked) == 1
    images.retry()
    with pytest.raises(RefusedError):
        images.of(one)
    assert len(asked) == 2


def test_only_registries_that_the_fleet_deals_with_are_asked() -> None:
    """A container's image may name any."""

    class Registry:
        address = "r.example"

        def configuration(self, reference: str) -> dict[str, Any]:
            if "gone" in reference:
                raise NotFoundError(reference)
            return {"config": reference}

    registry: Any = Registry()
    ask = registered(registry, fleet_with(replacement={"tag": "apps.example/shop:1"}))
    assert ask("r.example/web@sha256:1") == {"config": "r.example/web@sha256:1"}
    assert ask("apps.example/shop@sha256:1") == {"config": "apps.example/shop@sha256:1"}
    assert ask("r.example/gone@sha256:1") is None
    assert ask("evil.example/web@sha256:1") is None
    assert ask("r.example.evil/web@sha256:1") is None


def test_all_who_look_at_the_same_moment_share_one_list(api: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it has passed, or something was changed."""
    time = [0.0]
    monkeypatch.setattr(inventory.time, "monotonic", lambda: time[0])
    keys = [Key("r1", f"host/local/docker/web-{n}", f"web-{n}", f"old-{n}", Method.SURGE) for n in range(10)]
    for key in keys:
        labels = {"dev.goldsmith.rollout": "r1", "dev.goldsmith.member": key.member}
        api.run(key.new_name, labels=labels)
    time[0] = 100.0
    look = ContainerList(api)
    assert [(look.new(key) or {})["Id"] for key in keys] == [f"id-{key.new_name}" for key in keys]
    assert api.calls["list"] == 1
    look.forget()
    look.new(keys[0])
    time[0] += inventory.MOMENT
    look.new(keys[0])
    assert api.calls["list"] == 3


@pytest.mark.usefixtures("well")
def test_the_labels_of_an_image_make_no_member(api: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """Anyone who builds an image could join a fleet; a label that both give cannot be told apart, and is reported."""
    other = "sha256:" + "2" * 64
    api.images[other] = {"Id": other, "RepoDigests": [], "Config": {"Labels": {"app": "web", "x": "1"}}}
    api.run("web-1")
    api.run("stranger", image=other, labels={"app": "web", "x": "1"})
    api.run("own", image=other, labels={"app": "web", "x": "2"})
    assert list(members(api)) == ["web-1"]
    said = capsys.readouterr().err
    assert "stranger is left out: its image sets app=web too, and only labels" in " ".join(said.split())
    assert list(members(api, of=fleet_of({"app": "web", "x": "2"}))) == []
    assert list(members(api, of=fleet_of({"x": "2"}))) == ["own"]


@pytest.mark.usefixtures("well")
def test_the_labels_of_an_image_hide_no_member(api: Engine) -> None:
    """An image could call its containers the work of a rollout, which is not looked at."""
    other = "sha256:" + "2" * 64
    api.images[other] = {"Id": other, "RepoDigests": [], "Config": {"Labels": {"dev.goldsmith.rollout": "r1"}}}
    api.run("web.r1", image=other, labels={"app": "web", "dev.goldsmith.rollout": "r1"})
    assert list(members(api)) == ["web.r1"]


def fleet_of(selector: dict[str, str], name: str = "other") -> Fleet:
    return fleet().model_copy(update={"selector": selector, "name": name})


@pytest.mark.usefixtures("well")
def test_a_member_that_another_fleet_selects_too_names_that_fleet(api: Engine) -> None:
    """By what the containers really have: neither selector contains the other."""
    api.run("web-1")
    api.run("web-2", labels={"app": "web", "tier": "front"})
    images = Images(api, lambda _reference: None)
    others = [fleet_of({"tier": "front"}, "front"), fleet_of({"app": "db"}, "db")]
    found = ContainerInventory(api, fleet(), "host", images, tuple, rivals=others).members()
    assert {one.name: one.claimed_by for one in found} == {"web-1": "", "web-2": "front"}


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize("status", ["exited", "restarting", "paused"])
def test_a_member_that_does_not_run_says_so(api: Engine, status: str) -> None:
    """It is not merely unhealthy: no rollout starts it."""
    api.run("web-1")
    api.run("web-2", status, 137, "always")
    assert [one.stopped for one in members(api).values()] == [False, True]


def test_a_health_check_that_prints_a_traceback_is_one_line() -> None:
    """Three looks at it made a note of 300 lines."""
    output = "Traceback (most recent call last):\n" + '  File "check.py", line 1\n' * 99 + "OSError: no route\n"
    health = {"Status": "unhealthy", "Log": [{"Output": output}]}
    one = {"Id": "x", "State": {"Status": "running", "Health": health}, "RestartCount": 0}
    seen = inventory.probe(None, fleet("docker").health, one)
    assert seen == Read(False, "unhealthy: OSError: no route (100 lines before it)")


@pytest.mark.parametrize(
    ("configured", "own", "engine", "expected"),
    [
        ("", [], "unix:///var/run/docker.sock", {"default", "socket"}),
        ("", ["unix:///run/docker.sock"], "unix:///run/docker.sock", {"default", "socket"}),
        ("", ["ssh://ops@web-2"], "ssh://ops@web-2", {"far"}),
        ("", ["ssh://ops@web-3"], "ssh://ops@web-3", set()),
        ("ssh://root@web-2", ["ssh://ops@web-2"], "ssh://ops@web-2", {"default", "far"}),
        ("ssh://root@web-2", [], "ssh://root@web-2", {"default", "far"}),
        ("ssh://root@web-2", ["ssh://ops@web-3"], "ssh://ops@web-3", set()),
        ("ssh://root@web-2", ["unix:///run/docker.sock"], "unix:///run/docker.sock", {"socket"}),
    ],
)
def test_fleets_of_one_engine_are_known_by_its_address(
    monkeypatch: pytest.MonkeyPatch, configured: str, own: list[str], engine: str, expected: set[str]
) -> None:
    """However it is written, and from both sides; the local engine is looked for only where it may be the same."""
    hosts = {"default": [], "socket": ["unix:///run/docker.sock"], "far": ["tcp://web-2:2376"], "web": own}

    def of(name: str) -> Fleet:
        given = fleet_with().model_dump(exclude_unset=True) | {"docker": {"hosts": hosts[name]}}
        return Fleet.model_validate(given).model_copy(update={"name": name})

    def existing(_settings: object, *, for_builds: bool) -> Any:
        assert not for_builds
        assert not engine.startswith("ssh:")
        return SimpleNamespace(host="unix:///var/run/docker.sock")

    monkeypatch.setattr(rivals, "load_fleets", lambda _roots: {name: of(name) for name in hosts})
    monkeypatch.setattr("pipelines.host.provision.existing_engine", existing)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    context: Any = SimpleNamespace(settings=SimpleNamespace(roots=(), docker=SimpleNamespace(host=configured)))
    others = rivals.others(of("web"), context)
    assert {one.name for one in rivals.of_engine(of("web"), others, context, engine)} == expected
