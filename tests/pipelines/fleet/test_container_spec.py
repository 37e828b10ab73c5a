"""What is carried from one container to the next, and what is left to the new image's own defaults."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from pipelines.fleet.docker.container_spec import (
    at_rest,
    cannot_roll,
    compose_image_label,
    compose_service,
    creation,
    differences,
    digests,
    endpoints,
    exact,
    explicit,
    forced_in_place,
    leave_project,
    networks,
    rehearsal,
    rejoin_project,
    repository,
    stop_timeout,
)

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
        ({"Cmd": None}, {"Entrypoint": ["/app"], "Cmd": None}),
        ({"StopTimeout": 0}, {"StopTimeout": 0}),
        ({"Entrypoint": None, "Cmd": ["sh"]}, {"Entrypoint": [""], "Cmd": ["sh"]}),
        ({"User": "1000"}, {"User": "1000"}),
        ({"Hostname": "shop"}, {"Hostname": "shop"}),
        ({"Env": ["PATH=/bin", "A=1"]}, {"Env": ["A=1"]}),
    ],
)
def test_what_was_given_is_carried(config: dict[str, Any], carried: dict[str, Any]) -> None:
    """An entrypoint of one's own takes its command along, also an empty one, and also where it says what the image's
    does: the image's command would not be there otherwise.
    """
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
    for mode, whose in (("host", "the host's"), ("container:1234", "another container's")):
        assert forced_in_place(container(host={"NetworkMode": mode}), ()) == (f"it uses {whose} network",)


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
    assert differences(old, IMAGE, other, newer, "web-1") == (
        "env A: set → -",
        "env B: - → set",
        "host Memory: 64 → 32",
    )


CHECK = {"Test": ["CMD", "old"], "Interval": 7, "Retries": 3}


@pytest.mark.parametrize(
    ("check", "carried"),
    [
        (CHECK, None),
        ({**CHECK, "Interval": 9}, {"Interval": 9}),
        ({**CHECK, "Test": ["NONE"]}, {"Test": ["NONE"]}),
        ({**CHECK, "StartPeriod": 5, "Retries": 1}, {"StartPeriod": 5, "Retries": 1}),
        (None, None),
    ],
)
def test_of_a_health_check_the_fields_that_were_given_are_carried(
    check: dict[str, Any] | None, carried: dict[str, Any] | None
) -> None:
    """The engine merges it field by field: an interval of one's own must not keep the old image's test for ever."""
    image = {"Config": {**IMAGE["Config"], "Healthcheck": CHECK}}
    assert creation(container({"Healthcheck": check}), image, "r/web:2", {}).get("Healthcheck") == carried


def test_a_health_check_that_follows_the_new_image_is_no_difference() -> None:
    """Only the field that was given has to be the same."""
    images = [{"Config": {**IMAGE["Config"], "Healthcheck": {**CHECK, "Test": ["CMD", test]}}} for test in "ab"]
    old, new, lost = (
        container({"Healthcheck": {**CHECK, "Test": ["CMD", test], "Interval": interval}})
        for test, interval in (("a", 9), ("b", 9), ("b", 7))
    )
    assert differences(old, images[0], new, images[1], "web-1") == ()
    assert differences(old, images[0], lost, images[1], "web-1") == ("health Interval: 9 → 7",)


def test_a_host_name_is_not_carried_into_a_network_of_another() -> None:
    """The engine refuses one in the host's network or in another container's, and shows the other's there."""
    for mode in ("host", f"container:{ID}"):
        assert creation(container({"Hostname": "shop"}, {"NetworkMode": mode}), IMAGE, "r/web:2", {})["Hostname"] == ""


@pytest.mark.parametrize("network", ["hosting_default", "host-1", "nonesuch"])
def test_a_network_may_begin_as_the_hosts_is_called(network: str) -> None:
    """A project of compose may be called `hosting`: host name, aliases and further networks are carried there too."""
    ends = {network: {"Aliases": ["web"]}, "back": {"Aliases": ["api"]}}
    old = container({"Hostname": "shop"}, {"NetworkMode": network}, NetworkSettings={"Networks": ends})
    assert {name: one["Aliases"] for name, one in endpoints(old, full=True).items()} == {
        network: ["web", "web-1"], "back": ["api", "web-1"],
    }  # fmt: skip
    body = creation(old, IMAGE, "r/web:2", {})
    assert body["Hostname"] == "shop"
    assert rehearsal(body, {})["HostConfig"]["NetworkMode"] == network
    assert forced_in_place(old, ()) == ()


def test_a_volume_without_a_name_that_is_only_read_stays_so() -> None:
    """Its mode is a part of the bind."""
    volume = {"Type": "volume", "Name": "f00", "Source": "/x", "Destination": "/data", "RW": False}
    body = creation(container(Mounts=[volume]), IMAGE, "r/web:2", {})
    assert body["HostConfig"]["Binds"] == ["f00:/data:ro"]


def test_what_came_from_another_container_is_carried_without_it() -> None:
    """That one may have been replaced since, and its id is gone. A directory of the host keeps how it is mounted."""
    mounts = [VOLUME, BIND, {**BIND, "Destination": "/log", "RW": True, "Propagation": "rshared"}, TMPFS]
    old = container(host={"VolumesFrom": ["9f86d081884c"]}, Mounts=mounts)
    host = creation(old, IMAGE, "r/web:2", {})["HostConfig"]
    assert "VolumesFrom" not in host
    assert host["Binds"] == ["f00:/data", "/etc/app:/etc/app:ro", "/etc/app:/log:rshared"]
    new = container(host={"Binds": host["Binds"]}, Mounts=mounts)
    assert differences(old, IMAGE, new, IMAGE, "web-1") == ()


def test_what_a_rollback_goes_to_is_named_by_the_containers_own_repository() -> None:
    """An image may stand in several; an image that stands in none is named by its id, a pinned one as it was."""
    known = {"RepoDigests": ["mirror/web@sha256:9", "r/web@sha256:1"]}
    assert exact(container(Image="sha256:0"), known) == "r/web@sha256:1"
    assert exact(container(Image="sha256:0"), {"RepoDigests": ["mirror/web@sha256:9"]}) == "sha256:0"
    assert exact(container({"Image": "r/web@sha256:7"}, Image="sha256:0"), known) == "r/web@sha256:7"


def test_one_that_the_engine_removes_by_itself_is_left_alone() -> None:
    """With volumes or without."""
    volume = {"Type": "volume", "Name": "f00", "Destination": "/data", "RW": True}
    assert "--rm" in cannot_roll(container(host={"AutoRemove": True}), [])
    assert "--rm" in cannot_roll(container(host={"AutoRemove": True}, Mounts=[volume]), [])


def test_a_container_that_others_link_to_is_left_alone() -> None:
    """A link of the default network names this one container: what replaces it would not be found."""
    client = {**container(host={"Links": ["/web-1:/client/db"]}), "Id": "f" * 64, "Name": "/client"}
    other = {**container(host={"Links": ["/web-10:/other/db"]}), "Id": "e" * 64, "Name": "/other"}
    assert "client links to it" in cannot_roll(container(), [container(), client])
    assert cannot_roll(container(), [container(), other]) == ""


def test_its_own_links_are_carried_and_no_difference() -> None:
    """The engine shows them with the name of the container that has them."""
    old, new = (container(host={"Links": [f"/db:/{name}/db"]}, Name=f"/{name}") for name in ("web-1", "web-1.r1"))
    assert differences(old, IMAGE, new, IMAGE, "web-1") == ()
    assert differences(old, IMAGE, container(), IMAGE, "web-1") == ("links: db:db → -",)


@pytest.mark.parametrize(("status", "said"), [("paused", "it is paused"), ("exited", "it does not run (exited)")])
def test_one_that_does_not_go_on_by_itself_is_left_alone(status: str, said: str) -> None:
    """Replacing it would end what it holds, or bring back what somebody has stopped."""
    assert said in cannot_roll(container(State={"Status": status}), [])
    assert cannot_roll(container(State={"Status": "restarting"}), []) == ""


def test_a_mac_address_that_was_asked_for_is_kept_in_place() -> None:
    """The engine's own choice is the engine's to make again."""
    asked = container({"MacAddress": "02:42:ac:11:00:77"})
    assert forced_in_place(asked, ()) == ("it has the MAC address 02:42:ac:11:00:77",)
    assert endpoints(asked, full=True)["shop"]["MacAddress"] == "02:42:ac:11:00:77"
    assert endpoints(asked, full=False) == {"shop": {}}
    assert "MacAddress" not in endpoints(container(), full=True)["shop"]
    bridged = container({"MacAddress": "02:42:ac:11:00:77"}, {"NetworkMode": "default"})
    bridged["NetworkSettings"] = {"Networks": {"bridge": {}}}
    assert endpoints(bridged, full=True) == {"bridge": {"MacAddress": "02:42:ac:11:00:77"}}
    assert differences(asked, IMAGE, container(), IMAGE, "web-1") == ("mac address: 02:42:ac:11:00:77 → -",)


@pytest.mark.parametrize(("own", "seconds"), [(None, 30), (10, 30), (90, 90), (-1, 1800)])
def test_a_stop_timeout_of_its_own_is_honoured_where_it_is_longer(own: int | None, seconds: int) -> None:
    """`drain` is the least that a member gets; for ever is as long as a rollout may stand still."""
    of = container({"StopTimeout": own})
    assert stop_timeout(of, timedelta(seconds=30), timedelta(minutes=30)) == seconds


SHOP = {f"com.docker.compose.{key}": key for key in ("project", "service", "config-hash", "container-number")}


def test_labels_of_compose_follow_the_new_image() -> None:
    """The image's id is what `docker compose up` compares; what belongs to the one container is not carried."""
    old = {**SHOP, "com.docker.compose.image": "sha256:1", "com.docker.compose.replace": "abc", "tier": "front"}
    labels = creation(container({"Labels": old}), IMAGE, "r/web:2", compose_image_label(old, "sha256:2"))["Labels"]
    assert labels == {**SHOP, "com.docker.compose.image": "sha256:2", "tier": "front"}
    assert compose_image_label({"tier": "front"}, "sha256:2") == {}
    images = [container({"Labels": {**SHOP, "com.docker.compose.image": image}}) for image in ("1", "2")]
    assert differences(images[0], IMAGE, images[1], IMAGE, "web-1") == ()


def test_an_old_one_leaves_its_project_and_comes_back() -> None:
    """While it is kept, compose does not see it."""
    labels = {**SHOP, "tier": "front"}
    apart = leave_project(labels)
    assert not [key for key in apart if key.startswith("com.docker")]
    assert apart["tier"] == "front"
    assert rejoin_project(apart) == labels


def test_a_service_is_named_by_its_file() -> None:
    """Where compose wrote it down."""
    assert compose_service({"tier": "front"}) == ""
    assert compose_service(SHOP) == "the service service of the compose project project"
    file = {"com.docker.compose.project.config_files": "/srv/compose.yaml"}
    assert compose_service({**SHOP, **file}) == "the service service in /srv/compose.yaml"


FULL_CONFIG: dict[str, Any] = {
    "User": "1000", "WorkingDir": "/srv", "StopSignal": "SIGINT", "StopTimeout": 9, "Domainname": "example",
    "Tty": True, "OpenStdin": True, "StdinOnce": True, "Hostname": "shop", "MacAddress": "02:42:ac:11:00:77",
    "Env": ["PATH=/bin", "A=1=2"], "Labels": {"made-by": "us", "tier": "front"}, "Entrypoint": ["/debug"],
    "Cmd": ["sh"], "ExposedPorts": {"8080/tcp": {}, "9090/tcp": {}}, "Healthcheck": {"Test": ["NONE"], "Retries": 0},
}  # fmt: skip
VOLUME = {"Type": "volume", "Name": "f00", "Source": "/x", "Destination": "/data", "RW": True}
BIND = {"Type": "bind", "Source": "/etc/app", "Destination": "/etc/app", "RW": False}
TMPFS = {"Type": "tmpfs", "Source": "", "Destination": "/tmp", "RW": True}


def full(**more: Any) -> dict[str, Any]:
    """A container of which everything was asked for."""
    host = {
        "NetworkMode": "shop", "Binds": ["/etc/app:/etc/app:ro", "/anonymous"], "AutoRemove": False, "Memory": 64,
        "ContainerIDFile": "/run/id", "Links": ["/db:/web-1/db", "/cache:/web-1/cache"], "ConsoleSize": [0, 0],
        "PortBindings": {"80/tcp": [{"HostPort": "8080"}, {"HostPort": "0"}], "81/tcp": None},
        "RestartPolicy": {"Name": "always"},
        "Mounts": [
            {"Type": "tmpfs", "Target": "/tmp"},
            {"Type": "volume", "Target": "/unnamed"},
            {"Type": "volume", "Target": "/logs", "Source": "logs"},
        ],
    }  # fmt: skip
    ends = {
        "shop": {
            "Aliases": ["web", ID[:12], "web-1"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}, "Links": ["db:db"],
            "DriverOpts": {"a": "b"}, "NetworkID": "n1",
        },
        "back": {"Aliases": None, "IPAMConfig": {"IPv6Address": "fd::9"}, "NetworkID": "n2", "GwPriority": 7},
    }  # fmt: skip
    logs = {"Type": "volume", "Name": "logs", "Source": "/y", "Destination": "/logs", "RW": True}
    made = container(FULL_CONFIG, host, Mounts=[VOLUME, BIND, TMPFS, logs], NetworkSettings={"Networks": ends})
    return {**made, **more}


def test_everything_that_was_asked_for_is_in_the_request_for_the_next_container() -> None:
    """Nothing else is: what the image sets and what the engine writes by itself are left out."""
    body = creation(full(), IMAGE, "r/web:2", {"rollout": "r1"})
    host = body.pop("HostConfig")
    config = {key: FULL_CONFIG[key] for key in FULL_CONFIG.keys() - {"MacAddress"}}
    assert body == {
        **config,
        "Image": "r/web:2",
        "Env": ["A=1=2"],
        "Labels": {"tier": "front", "rollout": "r1"},
        "ExposedPorts": {"9090/tcp": {}},
        "Healthcheck": {"Test": ["NONE"]},
    }
    before = full()["HostConfig"]
    del before["ContainerIDFile"]
    before["Mounts"] = [before["Mounts"][0], before["Mounts"][2]]
    before["Binds"] = ["/etc/app:/etc/app:ro", "/anonymous", "f00:/data"]
    assert host == before


def test_the_container_that_is_read_is_not_changed() -> None:
    """Its description serves the comparison afterwards."""
    old = full()
    creation(old, IMAGE, "r/web:2", {})
    assert old == full()


@pytest.mark.parametrize("image", [{}, {"Config": None}, {"Config": {}}])
def test_an_image_without_a_configuration_sets_nothing(image: dict[str, Any]) -> None:
    """All that the container says was given to it."""
    body = creation(container({"WorkingDir": ""}), image, "r/web:2", {})
    assert {key: body[key] for key in ("User", "Env", "Labels", "Entrypoint", "Cmd", "ExposedPorts")} == IMAGE["Config"]
    assert explicit(container(), image) == {"User": "nonroot"}
    assert creation(container({"ExposedPorts": None, "Env": None, "Labels": None}), IMAGE, "r", {})["Env"] == []


def test_a_container_without_command_or_host_name_asks_for_none() -> None:
    """The next image's command holds, and the engine chooses a name."""
    image = {"Config": {**IMAGE["Config"], "Cmd": None}}
    body = creation(container({"Cmd": None, "Hostname": None}, {"NetworkMode": None}), image, "r/web:2", {})
    assert "Cmd" not in body
    assert "Entrypoint" not in body
    assert body["Hostname"] == ""
    assert creation(container({"Hostname": "db"}, {"NetworkMode": None}), IMAGE, "r", {})["Hostname"] == "db"


def test_everything_that_was_asked_for_of_its_networks_is_joined_again() -> None:
    """The primary network comes first, by name or by id; the address and the driver's options are kept."""
    back = {
        "GwPriority": 7, "Aliases": ["web-1"], "IPAMConfig": {"IPv6Address": "fd::9"}, "Links": None,
        "DriverOpts": None,
    }  # fmt: skip
    shop = {
        "MacAddress": "02:42:ac:11:00:77", "Aliases": ["web", "web-1"], "IPAMConfig": {"IPv4Address": "10.0.0.9"},
        "Links": ["db:db"], "DriverOpts": {"a": "b"},
    }  # fmt: skip
    joined = endpoints(full(), full=True)
    assert joined == {"shop": shop, "back": back}
    assert list(joined) == ["shop", "back"]
    assert endpoints(full(), full=False) == {"shop": {}, "back": {"GwPriority": 7}}
    for mode, order in (("back", ["back", "shop"]), ("n1", ["shop", "back"]), ("other", ["back", "shop"])):
        assert list(networks(full(HostConfig={**full()["HostConfig"], "NetworkMode": mode}))) == order
    assert networks(container(NetworkSettings={"Networks": None})) == {}
    assert list(networks(container(host={"NetworkMode": None}))) == ["shop"]


@pytest.mark.parametrize("network", ["bridge", "host", "none", "default"])
def test_a_built_in_network_has_no_names(network: str) -> None:
    """The engine refuses aliases there."""
    of = container(host={"NetworkMode": "default"}, NetworkSettings={"Networks": {network: {"Aliases": ["web"]}}})
    assert endpoints(of, full=True) == {network: {}}


def test_each_thing_that_cannot_exist_twice_is_told_in_full() -> None:
    """A port with its protocol, an address with its network, a mount with its place; what is only read is shared."""
    assert forced_in_place(full(), ["/logs"]) == (
        "it publishes host port 8080 (80/tcp)",
        "it has the static address 10.0.0.9 in network shop",
        "it has the static address fd::9 in network back",
        "it has the MAC address 02:42:ac:11:00:77",
        "it writes to f00 at /data (see limits.shared_mounts)",
    )
    written = container(Mounts=[{**BIND, "RW": True}, TMPFS])
    assert forced_in_place(written, []) == ("it writes to /etc/app at /etc/app (see limits.shared_mounts)",)
    assert forced_in_place({**container(), "Mounts": None}, []) == ()
    for port in (None, "", "0"):
        assert forced_in_place(container(host={"PortBindings": {"80/tcp": [{"HostPort": port}]}}), []) == ()
    assert forced_in_place(container(host={"PortBindings": {"80/tcp": [{}]}}), []) == ()


def test_each_difference_is_told_by_what_it_is_of() -> None:
    """All that was asked for of a container, against one of which nothing was."""
    found = differences(full(), IMAGE, container(), IMAGE, "web-1")
    assert dict(line.split(": ", 1) for line in found) == {
        "command Cmd": "sh → serve",
        "command Entrypoint": "/debug → /app",
        "config Domainname": "example → -",
        "config OpenStdin": "yes → -",
        "config StdinOnce": "yes → -",
        "config StopSignal": "SIGINT → -",
        "config StopTimeout": "9 → -",
        "config Tty": "yes → -",
        "config User": "1000 → nonroot",
        "config WorkingDir": "/srv → -",
        "env A": "set → -",
        "health Test": "NONE → -",
        "host Memory": "64 → -",
        "host PortBindings": f"{json.dumps(full()['HostConfig']['PortBindings'])} → -",
        "host RestartPolicy": '{"Name": "always"} → -',
        "hostname": "shop → -",
        "label tier": "front → -",
        "links": "cache:cache db:db → -",
        "mac address": "02:42:ac:11:00:77 → -",
        "mount /data": "volume f00, read-write → -",
        "mount /etc/app": "bind /etc/app, read-only → -",
        "mount /logs": "volume logs, read-write → -",
        "mount /tmp": "tmpfs, read-write → -",
        "network back": "joined, address fd::9, gateway priority 7 → -",
        "network shop": "joined, as web, address 10.0.0.9, links db:db → joined, as web",
    }
    assert list(found) == sorted(found)
    assert differences(full(), IMAGE, full(), IMAGE, "web-1") == ()
    assert differences(container(), IMAGE, full(), IMAGE, "web-1") != ()


@pytest.mark.parametrize("value", [None, "", 0, False, [], {}])
def test_what_the_engine_writes_for_nothing_is_no_difference(value: object) -> None:
    """Nulls, empty lists and zeros come and go."""
    assert differences(container(host={"Memory": value}), IMAGE, container(), IMAGE, "web-1") == ()
    assert differences(container(), IMAGE, container(host={"Memory": value}), IMAGE, "web-1") == ()


@pytest.mark.parametrize("value", [True, 1])
def test_what_was_switched_on_is_a_difference(value: object) -> None:
    """A privileged container must not become a plain one unnoticed, nor one share of the processor all of it."""
    of = container(host={"Setting": value})
    told = "yes" if value is True else value
    assert differences(of, IMAGE, container(), IMAGE, "web-1") == (f"host Setting: {told} → -",)
    assert differences(container(), IMAGE, of, IMAGE, "web-1") == (f"host Setting: - → {told}",)


def test_while_hands_change_the_members_name_as_an_alias_is_no_difference() -> None:
    """The new one has it until it has the name itself."""
    new = container(Name="/web-1.r1")
    new["NetworkSettings"] = {"Networks": {"shop": {"Aliases": ["web", "web-1"]}}}
    assert differences(container(), IMAGE, new, IMAGE, "web-1") == ()
    assert differences(new, IMAGE, container(), IMAGE, "web-1") == ()
    assert differences(container(), IMAGE, new, IMAGE, "web-2") == (
        "network shop: joined, as web → joined, as web web-1",
    )


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("web", "web"),
        ("web:1", "web"),
        ("web@sha256:1", "web"),
        ("r.example:5000/shop/web:1", "r.example:5000/shop/web"),
        ("r.example:5000/web", "r.example:5000/web"),
        ("r.example:5000/web:1@sha256:1", "r.example:5000/web"),
    ],
)
def test_a_repository_is_what_stands_before_tag_and_digest(reference: str, said: str) -> None:
    """The colon of a port is no tag's."""
    assert repository(reference) == said


def test_an_image_is_known_by_its_id_and_by_the_digests_of_registries_each_once() -> None:
    """The id comes first."""
    known = {"RepoDigests": ["r/web@sha256:1", "m/web@sha256:1", "r/web@sha256:2"]}
    assert digests(container(Image="sha256:0"), known) == ("sha256:0", "sha256:1", "sha256:2")
    for nothing in ({}, {"RepoDigests": None}):
        assert digests(container(Image="sha256:0"), nothing) == ("sha256:0",)
        assert exact(container(Image="sha256:0"), nothing) == "sha256:0"


@pytest.mark.parametrize(
    ("policy", "rests"),
    [
        ("always", "unless-stopped"),
        ("unless-stopped", "unless-stopped"),
        ("on-failure", "no"),
        ("no", "no"),
        ("", "no"),
    ],
)
def test_at_rest_the_engine_leaves_it_stopped(policy: str, rests: str) -> None:
    """By the policy that is nearest to its own."""
    assert at_rest(container(host={"RestartPolicy": {"Name": policy}})) == rests


def test_a_container_that_stops_at_once_still_gets_a_second() -> None:
    """0 would kill it."""
    assert stop_timeout(container(), timedelta(), timedelta(minutes=30)) == 1
    assert stop_timeout(container({"StopTimeout": 0}), timedelta(seconds=2), timedelta(minutes=30)) == 2
    assert stop_timeout(container({"StopTimeout": -1}), timedelta(hours=1), timedelta(minutes=30)) == 3600


def test_why_a_container_cannot_be_replaced_is_told_in_full() -> None:
    """What it is, and what a person does about it."""
    assert cannot_roll(container(host={"AutoRemove": True}), []) == (
        "it was started with --rm: the engine would remove it as soon as it stops, so it could not be rolled back"
    )
    assert cannot_roll(container(State={"Status": "paused"}), []) == (
        "it is paused, and what it holds in memory would be lost: unpause it first"
    )
    for status in ("exited", "created", "dead"):
        assert cannot_roll(container(State={"Status": status}), []) == (
            f"it does not run ({status}): start it, or remove it"
        )
    for known in ({}, {"State": None}, {"State": {"Status": "running"}}):
        assert cannot_roll(container(**known), []) == ""


@pytest.mark.parametrize("key", ["NetworkMode", "IpcMode", "PidMode"])
@pytest.mark.parametrize("whose", [ID, "web-1"])
def test_a_namespace_that_another_shares_holds_it(key: str, whose: str) -> None:
    """By id or by name, and only this one's."""
    sidecar = {**container(host={key: f"container:{whose}"}), "Name": "/sidecar"}
    assert cannot_roll(container(), [container(), sidecar]) == "the container sidecar lives in its namespaces"
    elsewhere = {**container(host={key: "container:web-2"}), "Name": "/sidecar"}
    assert cannot_roll(container(), [elsewhere, container(host={key: None})]) == ""


def test_a_link_holds_it_by_id_too() -> None:
    """The engine keeps what was asked for."""
    for target in ("/web-1", ID):
        client = {**container(host={"Links": [f"{target}:/client/db"]}), "Name": "/client"}
        assert cannot_roll(container(), [client]) == (
            "the container client links to it (--link), which holds for this one container alone"
        )


def test_the_value_of_an_environment_variable_is_never_told() -> None:
    """Differences stand in the ledger and in reports; a variable may be a password."""
    old, new = container({"Env": ["PASSWORD=one"]}), container({"Env": ["PASSWORD=two"]})
    assert differences(old, IMAGE, new, IMAGE, "web-1") == ("env PASSWORD: set → another value",)
