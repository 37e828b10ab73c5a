"""Edge: containers made and joined to networks, and the commands that a fleet's file asks for around draining."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

import docker
import docker.errors

from hardening.foundation.errors import OutsideError
from pipelines.fleet.docker import compose, container_spec
from pipelines.fleet.docker.container_spec import Json
from pipelines.fleet.docker.images import Images
from pipelines.fleet.health import inside
from pipelines.fleet.members import Key
from pipelines.fleet.model import Limits
from pipelines.fleet.orphans import KEPT, KEPT_LABELS, MEMBER


def find(api: Any, container: str) -> Json | None:
    """What the engine shows of a container; None where there is no such thing."""
    with suppress(docker.errors.NotFound):
        return dict(api.inspect_container(container))
    return None


def make(api: Any, body: Json, name: str, joins: Mapping[str, Json]) -> None:
    """Create a container that joins networks, the primary one first."""
    primary, others = dict(list(joins.items())[:1]), list(joins.items())[1:]
    api.create_container_from_config({**body, "NetworkingConfig": {"EndpointsConfig": primary}}, name)
    for network, endpoint in others:
        connect(api, name, network, endpoint)


def connect(api: Any, container: str, network: str, endpoint: Json) -> None:
    """Join a network as `endpoint` says."""
    asked = endpoint.get("IPAMConfig") or {}
    api.connect_container_to_network(
        container,
        network,
        aliases=endpoint.get("Aliases"),
        ipv4_address=asked.get("IPv4Address"),
        ipv6_address=asked.get("IPv6Address"),
        link_local_ips=asked.get("LinkLocalIPs"),
        links=[tuple(link.split(":", 1)) for link in endpoint.get("Links") or []] or None,
        driver_opt=endpoint.get("DriverOpts"),
        mac_address=endpoint.get("MacAddress"),
    )


class Apart:
    """Old containers of compose projects while they are kept.

    A container's labels cannot be changed, and compose counts a stopped one with the project's labels as an instance
    of the service, so that it would remove one of the two. So a copy without those labels is kept in the old one's
    place: the same image, settings, networks and volumes; what the old one wrote into its own layer is lost, as
    compose itself loses it whenever it makes a container anew.
    """

    def __init__(self, api: Any, images: Images) -> None:
        self._api = api
        self._images = images

    def old(self, key: Key) -> Json | None:
        """The old container of a step: itself, its copy, or what was made of the copy again."""
        return find(self._api, key.old) or next(iter(self._kept(key)), None)

    def _kept(self, key: Key) -> list[Json]:
        """The copy first, while there is one: what is made of it is complete only when it is gone."""
        labels = [f"{KEPT}={key.rollout}", f"{MEMBER}={key.member}"]
        listed = self._api.containers(all=True, filters={"label": labels})
        found = [one for entry in listed if entry["Id"] != key.old and (one := find(self._api, entry["Id"]))]
        return sorted(found, key=lambda one: not is_copy(one))

    def leave(self, key: Key) -> None:
        """Keep a copy of the old container in its place; a try that was cut short is begun anew."""
        kept = self._kept(key)
        original = find(self._api, key.old) or next((one for one in kept if not is_copy(one)), None)
        if original is None:
            return
        for unfinished in filter(is_copy, kept):
            self._api.remove_container(unfinished["Id"], force=True)
        labels = compose.apart({**_labels(original), KEPT: key.rollout, MEMBER: key.member})
        self._again(original, key.old_name, labels, container_spec.endpoints(original, full=True))
        self._api.remove_container(original["Id"], force=True)

    def rejoin(self, copy: Json, key: Key) -> Json:
        """Make the old container of its copy again, under the member's name and in its project."""
        for unfinished in self._kept(key)[1:]:
            self._api.remove_container(unfinished["Id"], force=True)
        joins = container_spec.endpoints({**copy, "Name": f"/{key.name}"}, full=True)
        for endpoint in joins.values():
            endpoint["Aliases"] = [alias for alias in endpoint.get("Aliases") or [] if alias != key.old_name] or None
        self._again(copy, key.name, compose.together(_labels(copy)), joins)
        self._api.remove_container(copy["Id"], force=True)
        return dict(self._api.inspect_container(key.name))

    def _again(self, container: Json, name: str, labels: Mapping[str, str], joins: Mapping[str, Json]) -> None:
        image = self._images.of(container)
        exact = container_spec.exact(container, image)
        self._images.fetch(exact)
        named = container["Config"]["Image"]
        reference = named if self._images.stands_for(named, container["Image"]) else exact
        body = container_spec.creation(container, image, reference, {})
        make(self._api, {**body, "Labels": dict(labels)}, name, joins)


def is_copy(container: Json) -> bool:
    """Whether it is a copy that stands apart from its project."""
    return KEPT_LABELS in _labels(container)


def _labels(container: Json) -> dict[str, str]:
    return container["Config"].get("Labels") or {}


LOOKS = 5


def before_drain(api: docker.APIClient, limits: Limits, old: Json) -> None:
    """Run `limits.before_drain` in `old`, unless nothing can be run in it: it is paused, or ends by itself meanwhile.

    Raises OutsideError where the command does not end with 0 in a container that goes on.
    """
    state = old["State"]
    if state["Status"] != "running":
        return
    try:
        _run(api, limits, "before_drain", old)
    except (OutsideError, docker.errors.APIError):
        if _runs_on(api, old["Id"], state["StartedAt"]):
            raise


def after_drain(api: docker.APIClient, limits: Limits, container: Json) -> None:
    """Run `limits.after_drain` in the container that serves now. Raises OutsideError where it does not end with 0."""
    _run(api, limits, "after_drain", container)


def _run(api: docker.APIClient, limits: Limits, which: Literal["before_drain", "after_drain"], container: Json) -> None:
    command = limits.before_drain if which == "before_drain" else limits.after_drain
    if command and not (seen := inside(api, container, list(command), limits.drain.total_seconds())).good:
        raise OutsideError(f"limits.{which} in {container_spec.name(container)}: {seen.text}")


def _runs_on(api: docker.APIClient, container: str, started: str) -> bool:
    """Whether it is the same process that runs still, and a second later too: the engine tells of an end a bit late."""
    for look in range(LOOKS):
        time.sleep(min(look, 1) / LOOKS)
        try:
            state = api.inspect_container(container)["State"]
        except docker.errors.NotFound:
            return False
        if (state["Status"], state["StartedAt"]) != ("running", started):
            return False
    return True
