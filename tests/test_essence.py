"""What is carried from one container to the next, and what is left to the new image's own defaults."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.fleet.docker.essence import cannot_roll, creation, differences, endpoints, forced_in_place

ID = "0123456789ab" + "c" * 52
IMAGE: dict[str, Any] = {
    "Config": {
        "Env": ["PATH=/bin"],
        "Cmd": ["serve"],
        "Entrypoint": ["/app"],
        "User": "nonroot",
        "Labels": {"made-by": "us"},
        "ExposedPorts": {"8080/tcp": {}},
    }
}


def container(config: dict[str, Any] | None = None, host: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A container that was started from IMAGE with nothing but the given changes."""
    return {
        "Id": ID,
        "Name": "/web-1",
        "Config": {**IMAGE["Config"], "Hostname": ID[:12], "Image": "r/web:1", **(config or {})},
        "HostConfig": {"NetworkMode": "shop", "Binds": None, "AutoRemove": False, **(host or {})},
        "Mounts": [],
        "NetworkSettings": {"Networks": {"shop": {"Aliases": ["web", ID[:12]], "IPAMConfig": None}}},
        **more,
    }


def test_what_the_image_sets_is_left_to_the_next_image() -> None:
    """A new image may change its user, command and environment; a container that said nothing follows."""
    body = creation(container(), IMAGE, "r/web@sha256:2", {})
    assert body["Env"] == []
    assert not {"User", "Cmd", "Entrypoint"} & body.keys()
    assert body["Labels"] == {}
    assert body["Hostname"] == ""
    assert body["ExposedPorts"] == {}
    assert body["Image"] == "r/web@sha256:2"


def test_a_name_that_an_id_happens_to_begin_with_is_a_name_all_the_same() -> None:
    """`db`, `be` and `fe` are names of services and hexadecimal: only the engine's own twelve characters are not."""
    of = container({"Hostname": "db"}, Id="db" + ID[2:])
    of["NetworkSettings"]["Networks"]["shop"]["Aliases"] = ["db", "db" + ID[2:12]]
    assert creation(of, IMAGE, "r/web@sha256:2", {})["Hostname"] == "db"
    assert endpoints(of, full=True)["shop"]["Aliases"] == ["db", "web-1"]


@pytest.mark.parametrize(
    ("config", "carried"),
    [
        ({"Cmd": ["other"]}, {"Cmd": ["other"]}),
        ({"Entrypoint": ["/debug"], "Cmd": None}, {"Entrypoint": ["/debug"], "Cmd": None}),
        ({"Entrypoint": None, "Cmd": ["sh"]}, {"Entrypoint": [""], "Cmd": ["sh"]}),
        ({"User": "1000"}, {"User": "1000"}),
        ({"Hostname": "shop"}, {"Hostname": "shop"}),
        ({"Env": ["PATH=/bin", "A=1"]}, {"Env": ["A=1"]}),
    ],
)
def test_what_was_given_is_carried(config: dict[str, Any], carried: dict[str, Any]) -> None:
    """An entrypoint of one's own takes its command along, also an empty one."""
    body = creation(container(config), IMAGE, "r/web:2", {})
    assert {key: body[key] for key in carried} == carried


def test_labels_of_an_earlier_rollout_are_not_carried() -> None:
    """Only the present rollout's."""
    labels = {"made-by": "us", "tier": "front", "dev.goldsmith.rollout": "r0", "dev.goldsmith.fleet": "web"}
    body = creation(container({"Labels": labels}), IMAGE, "r/web:2", {"dev.goldsmith.rollout": "r1"})
    assert body["Labels"] == {"tier": "front", "dev.goldsmith.fleet": "web", "dev.goldsmith.rollout": "r1"}


def test_a_volume_without_a_name_is_carried_by_the_name_that_it_got() -> None:
    """Its data belong to the member."""
    volume = {"Type": "volume", "Name": "f00", "Source": "/x", "Destination": "/data", "RW": True}
    named = {"Type": "volume", "Name": "logs", "Source": "/y", "Destination": "/logs", "RW": False}
    body = creation(container(host={"Binds": ["logs:/logs:ro"]}, Mounts=[volume, named]), IMAGE, "r/web:2", {})
    assert body["HostConfig"]["Binds"] == ["logs:/logs:ro", "f00:/data"]


def test_beside_the_old_one_the_new_one_has_no_names_until_it_is_exposed() -> None:
    """Then the old one's, and the member's name, but not the old one's id."""
    assert endpoints(container(), full=False) == {"shop": {}}
    assert endpoints(container(), full=True)["shop"]["Aliases"] == ["web", "web-1"]


@pytest.mark.parametrize("mode", ["host", "none", f"container:{ID}"])
def test_who_has_no_network_of_its_own_joins_none(mode: str) -> None:
    """The mode itself is carried with the host's side."""
    assert endpoints(container(host={"NetworkMode": mode}), full=True) == {}


def test_what_cannot_exist_twice_is_named() -> None:
    """Ports, addresses, the host's network, and what is written to."""
    mount = {"Type": "volume", "Name": "db", "Destination": "/db", "RW": True}
    host = {
        "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}], "81/tcp": [{"HostIp": "", "HostPort": ""}]}
    }
    network = {"Networks": {"shop": {"IPAMConfig": {"IPv4Address": "10.0.0.9"}}}}
    found = forced_in_place(container(host=host, Mounts=[mount], NetworkSettings=network), ())
    assert [line.partition(" (")[0] for line in found] == [
        "it publishes host port 8080",
        "it has the static address 10.0.0.9 in network shop",
        "it writes to db at /db",
    ]
    assert forced_in_place(container(Mounts=[mount]), ["/db"]) == ()
    assert forced_in_place(container(host={"NetworkMode": "host"}), ()) == ("it uses the host's network",)


def test_a_container_that_others_live_in_is_left_alone() -> None:
    """They would lose their network with it."""
    sidecar = {**container(host={"NetworkMode": f"container:{ID}"}), "Id": "f" * 64, "Name": "/sidecar"}
    assert "sidecar" in cannot_roll(container(), [container(), sidecar])
    assert cannot_roll(container(), [container()]) == ""


def test_a_difference_beyond_the_image_is_reported() -> None:
    """Lost and added alike; a default of the new image is none."""
    newer = {"Config": {**IMAGE["Config"], "Env": ["PATH=/bin", "NEW=1"]}}
    old = container({"Env": ["PATH=/bin", "A=1"]}, {"Memory": 64})
    same = container({"Env": ["PATH=/bin", "NEW=1", "A=1"]}, {"Memory": 64})
    other = container({"Env": ["PATH=/bin", "NEW=1", "B=2"]}, {"Memory": 32})
    assert differences(old, IMAGE, same, newer, "web-1") == ()
    assert differences(old, IMAGE, other, newer, "web-1") == ("env A: 1 → -", "env B: - → 2", "host Memory: 64 → 32")
