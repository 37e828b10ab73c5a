"""Edge: reads the networks and the roles' containers of a Docker Engine, and changes them step by step."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from hardening.foundation.console import say
from images.engine import engine
from pipelines.fleet.docker.inventory import outside
from pipelines.fleet.members import given_labels, lender, of_the_image
from pipelines.network.docker_networks import ICC, LABEL, EngineNetwork, EngineStep, SeenContainer, SeenEngine
from pipelines.network.model import Network

LOOPBACK = ("127.", "::1")


def read_engine(host: str, network: Network) -> SeenEngine:
    """The networks of the engine at `host` and the containers of roles, stopped ones too. Raises OutsideError."""
    with outside("listing networks and containers", host):
        api = engine(host).api
        networks, containers = api.networks(), api.containers(all=True)
        images = {one["Id"]: one.get("Labels") or {} for one in api.images(all=True)}
    roles = {name: role.containers for name, role in network.roles.items() if role.containers}
    ours = {one["Name"] for one in networks if LABEL in (one.get("Labels") or {})}
    mine, others, guests = list[SeenContainer](), dict[str, set[str]](), dict[str, set[str]]()
    for shown in containers:
        role = _role(shown, roles, images.get(str(shown.get("ImageID"))))
        seen = _seen(shown, role)
        if role:
            mine.append(seen)
            continue
        for name in seen.networks:
            others.setdefault(name, set()).add(seen.name)
        if lends := lender(seen.mode):
            guests.setdefault(lends, set()).add(seen.name)
    mine = [replace(one, guests=frozenset(guests.get(one.id, ()))) for one in mine]
    shown_networks = {one["Name"]: _network(one) for one in networks}
    return SeenEngine(
        shown_networks, frozenset(ours), tuple(sorted(mine, key=lambda one: one.name)),
        {name: frozenset(names) for name, names in others.items()},
    )  # fmt: skip


def _role(shown: Mapping[str, Any], roles: Mapping[str, Mapping[str, str]], of_image: Mapping[str, str] | None) -> str:
    """The role of a container by its own labels; none where its image sets them too, or is not known any more."""
    labels = shown.get("Labels") or {}
    role = next((name for name, its in roles.items() if its.items() <= labels.items()), "")  # of one at most: model.py
    given = {} if of_image is None else given_labels(labels, of_image)
    if role and not roles[role].items() <= given.items():
        name = str(shown["Names"][0]).lstrip("/")
        unknown = f"{name} is left out: its image is unknown here, so its labels may be the image's; pull that image"
        say(f"the role {role}: {unknown if of_image is None else of_the_image(name, roles[role], given)}")
        return ""
    return role


def _network(shown: Mapping[str, Any]) -> EngineNetwork:
    options = shown.get("Options") or {}
    return EngineNetwork(str(shown["Name"]), bool(shown.get("Internal")), options.get(ICC, "true") != "false")


def _seen(shown: Mapping[str, Any], role: str) -> SeenContainer:
    mode = str((shown.get("HostConfig") or {}).get("NetworkMode", ""))
    networks = frozenset((shown.get("NetworkSettings") or {}).get("Networks") or {}) - {"host", "none"}
    published = frozenset(
        f"{port['PrivatePort']}/{port['Type']}"
        for port in shown.get("Ports") or ()
        if port.get("PublicPort") and not str(port.get("IP", "")).startswith(LOOPBACK)
    )
    names = (
        str(name).lstrip("/") for name in shown.get("Names") or () if str(name).count("/") == 1
    )  # others are links
    return SeenContainer(next(names, str(shown["Id"])[:12]), str(shown["Id"]), role, networks, mode, published)


def change_engine(host: str, step: EngineStep) -> None:
    """Do one step. What is done already is no error. Raises OutsideError."""
    import docker.errors

    name = step.network.name
    with outside(f"{step.action} {name} {step.container}".strip(), host):
        api = engine(host).api
        if step.action == "create" and not _find(api, name):
            options = {} if step.network.icc else {ICC: "false"}
            api.create_network(name, "bridge", options, internal=step.network.internal, labels={LABEL: name})
        elif step.action == "connect":
            if name not in _networks(api, step.container_id):
                api.connect_container_to_network(step.container_id, name, aliases=_aliases(api, step.container_id))
        elif step.action == "disconnect":
            if name in _networks(api, step.container_id):
                api.disconnect_container_from_network(step.container_id, name)
        elif step.action == "remove":
            with suppress(docker.errors.NotFound):
                api.remove_network(name)


def _find(api: Any, name: str) -> bool:
    """Whether there is a network of exactly that name: an engine makes two of one name without a word."""
    return any(one["Name"] == name for one in api.networks(names=[name]))


def _networks(api: Any, container: str) -> dict[str, Any]:
    return dict(api.inspect_container(container)["NetworkSettings"]["Networks"])


def _aliases(api: Any, container: str) -> list[str]:
    """The names by which others reach a container on the networks that it has; the engine adds its own id and name."""
    known = {alias for one in _networks(api, container).values() for alias in one.get("Aliases") or ()}
    return sorted(known - {container[:12]})
