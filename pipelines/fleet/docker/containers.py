"""Edge: containers of one Docker Engine as a fleet. Every effect finds by names and labels what an earlier try did."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import docker
import docker.errors

from hardening.foundation.errors import OutsideError, RefusedError
from pipelines.fleet.docker import essence
from pipelines.fleet.docker.drain import after_drain, before_drain
from pipelines.fleet.docker.essence import Json
from pipelines.fleet.docker.outside import outside
from pipelines.fleet.health import probe
from pipelines.fleet.leavings import EXPIRY, MEMBER, ROLLOUT
from pipelines.fleet.members import Key, Member, Read, Target, protection
from pipelines.fleet.model import Fleet, Method
from pipelines.fleet.port import GoneError

ENGINE_TIMEOUT = 120
LOG_LINES = 10
Login = Callable[[str], dict[str, str] | None]
RUNNING = ("running", "restarting", "paused")


@dataclass(frozen=True)
class Pair:
    """The old and the new container of a step, as the engine shows them; None: there is none."""

    old: Json | None
    new: Json | None


class DockerFleet:
    """The members of `fleet` on the engine at `engine`. Close it, or use it as a context.

    `login` gives the user name and password to pull a reference with, or None for those of docker's own files.
    """

    def __init__(self, fleet: Fleet, engine: str, login: Login = lambda _: None) -> None:
        self.fleet = fleet
        self.engine = engine
        self.login = login
        with outside("connecting", engine):
            self.api: Any = docker.APIClient(base_url=engine, version="auto", timeout=ENGINE_TIMEOUT)
            self.account = str(self.api.info()["Name"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.api.close()

    def describe(self) -> tuple[Member, ...]:
        """Every container that runs with the fleet's labels; those that a rollout is still preparing are none."""
        with outside("listing containers", self.engine):
            everything = [found for listed in self.api.containers() if (found := self._find(listed["Id"]))]
            mine = [one for one in everything if self._selected(one)]
            return tuple(self._member(one, everything) for one in sorted(mine, key=essence.name))

    def find(self, member: str) -> Member | None:
        """The member with this id, if it runs now. Of the others only those are seen that share its network."""
        with outside("looking for a container", self.engine):
            found = self._find(member.rpartition("/")[2])
            if found is None or not self._selected(found):
                return None
            one = self._member(found, [{**listed, "Name": listed["Names"][0]} for listed in self.api.containers()])
            return one if one.id == member else None

    def _selected(self, container: Json) -> bool:
        labels = container["Config"].get("Labels") or {}
        rollout = labels.get(ROLLOUT)
        preparing = rollout is not None and essence.name(container).endswith(f".{rollout}")
        chosen = all(labels.get(key) == value for key, value in self.fleet.selector.items())
        return chosen and not preparing and container["State"]["Status"] in RUNNING

    def _member(self, container: Json, everything: list[Json]) -> Member:
        image = self._image(container)
        named = essence.name(container)
        until, wrong = protection(self.fleet.limits.do_not_disrupt, container["Config"].get("Labels") or {})
        return Member(
            id=f"{self.account}/local/docker/{named}",
            name=named,
            handle=container["Id"],
            image=container["Config"]["Image"],
            digests=essence.digests(container, image),
            layers=tuple((image.get("RootFS") or {}).get("Layers") or ()),
            since=datetime.fromisoformat(container["Created"][:19] + "+00:00"),
            healthy=self._serves(container),
            protected_until=until,
            forced_in_place=essence.forced_in_place(container, self.fleet.limits.shared_mounts),
            cannot_roll=essence.cannot_roll(container, everything) or wrong,
            exact=essence.exact(container, image),
        )

    def _serves(self, container: Json) -> bool:
        """Whether the container serves right now, as far as one look can tell."""
        if self.fleet.health.kind != "docker":
            return probe(self.api, self.fleet.health, container).good
        state = container["State"]
        status = (state.get("Health") or {}).get("Status", "healthy")
        return bool(state["Status"] == "running" and status == "healthy")

    def prepare(self, target: Target) -> None:
        """Pull the replacement, by digest."""
        with outside(f"pulling {target.reference}", self.engine):
            if not self._local(target.reference):
                self.api.pull(target.reference, auth_config=self.login(target.reference))

    def _local(self, reference: str) -> str:
        """What an image is called here; one whose tag has moved on is known by its digest alone. Empty: not here."""
        for called in (reference, reference.rpartition("@")[2]):
            with suppress(docker.errors.ImageNotFound):
                self.api.inspect_image(called)
                return called
        return ""

    def create(self, key: Key, target: Target, expiry: datetime) -> None:
        """Create the new container from the old one's essence; a try that was cut short is begun anew."""
        with outside(f"creating {key.new_name}", self.engine):
            old = self._need(key.old, key.name)
            self._refuse_another(key)
            if self._pair(key).new:
                self.discard(key)
            labels = {ROLLOUT: key.rollout, MEMBER: key.member, EXPIRY: expiry.astimezone(UTC).isoformat()}
            image = self._local(target.reference) or target.reference
            body = essence.creation(old, self._image(old), image, labels)
            joins = essence.endpoints(old, full=key.method is Method.IN_PLACE)
            primary = dict(list(joins.items())[:1])
            body["NetworkingConfig"] = {"EndpointsConfig": primary}
            self.api.create_container_from_config(body, key.new_name)
            for network, endpoint in list(joins.items())[1:]:
                self._connect(key.new_name, network, endpoint)

    def _refuse_another(self, key: Key) -> None:
        """Fleets may overlap, and each has its own lease: a member that another rollout has in hand is left to that."""
        listed = self.api.containers(all=True, filters={"label": f"{MEMBER}={key.member}"})
        for one in listed:
            rollout = one["Labels"].get(ROLLOUT, "")
            if rollout != key.rollout and one["Names"][0] == f"/{key.name}.{rollout}":
                hint = "where two fleets select it, ./goldsmith lint says so; ./goldsmith roll.reap finds what is left"
                raise RefusedError(f"{key.name} is being replaced by {rollout} already", hint=hint)

    def start(self, key: Key) -> None:
        """Start the new container."""
        with outside(f"starting {key.new_name}", self.engine):
            self.api.start(key.new_name)

    def read(self, key: Key) -> Read:
        """One look at the new container's health."""
        return self._read(self._pair(key).new)

    def read_old(self, key: Key) -> Read:
        """One look at the old container's health."""
        return self._read(self._pair(key).old)

    def _read(self, container: Json | None) -> Read:
        if container is None:
            return Read(False, "the container is gone")
        with outside("reading the health", self.engine):
            return probe(self.api, self.fleet.health, container)

    def expose(self, key: Key) -> None:
        """Give the new container the old one's aliases. The engine adds them only on connecting, so it joins again."""
        with outside(f"giving {key.new_name} the names of {key.name}", self.engine):
            old, new = self._need(key.old, key.name), self._made(key)
            for network, endpoint in essence.endpoints(old, full=True).items():
                joined = (new["NetworkSettings"].get("Networks") or {}).get(network)
                if endpoint and set(endpoint["Aliases"]) - set((joined or {}).get("Aliases") or []):
                    if joined is not None:
                        self.api.disconnect_container_from_network(new["Id"], network)
                    self._connect(new["Id"], network, endpoint)

    def _connect(self, container: str, network: str, endpoint: Json) -> None:
        """Join a network as `endpoint` says."""
        asked = endpoint.get("IPAMConfig") or {}
        self.api.connect_container_to_network(
            container,
            network,
            aliases=endpoint.get("Aliases"),
            ipv4_address=asked.get("IPv4Address"),
            ipv6_address=asked.get("IPv6Address"),
            link_local_ips=asked.get("LinkLocalIPs"),
            links=[tuple(link.split(":", 1)) for link in endpoint.get("Links") or []] or None,
            driver_opt=endpoint.get("DriverOpts"),
        )

    def retire(self, key: Key, drain: timedelta) -> None:
        """Stop the old container for good: the engine must not start it again by itself."""
        with outside(f"stopping {key.name}", self.engine):
            old = self._find(key.old)
            if old is None:
                return
            before_drain(self.api, self.fleet.limits, old)
            if old["State"]["Status"] in RUNNING:
                self.api.stop(old["Id"], timeout=max(1, int(drain.total_seconds())))
            self._set_restart_policy(old, {"Name": essence.at_rest(old)})

    def _set_restart_policy(self, container: Json, policy: Json) -> None:
        """The engine refuses this for a container that ends just then: better stopped before."""
        if container["HostConfig"]["RestartPolicy"]["Name"] != policy["Name"]:
            self.api.update_container(container["Id"], restart_policy=policy)

    def swap(self, key: Key) -> None:
        """The old container steps aside, the new one takes the name."""
        with outside(f"renaming {key.new_name} to {key.name}", self.engine):
            pair, new = self._pair(key), self._made(key)
            if pair.old:
                self._rename(pair.old, key.old_name)
            after_drain(self.api, self.fleet.limits, new)
            self._rename(new, key.name)

    def _rename(self, container: Json, wanted: str) -> None:
        if essence.name(container) != wanted:
            self.api.rename(container["Id"], wanted)

    def remove_old(self, key: Key) -> None:
        """Remove the old container. Its volumes stay: the new one has them."""
        with outside(f"removing {key.old_name}", self.engine):
            old = self._pair(key).old
            if old:
                self.api.remove_container(old["Id"], force=True)

    def revive(self, key: Key) -> None:
        """The old container gets back its name and restart policy, and runs."""
        with outside(f"restoring {key.name}", self.engine):
            old, new = self._need(key.old, key.name), self._pair(key).new
            if new:
                self._rename(new, key.new_name)
                if key.method is Method.IN_PLACE:
                    self.api.stop(new["Id"], timeout=1)
                self._set_restart_policy(old, new["HostConfig"]["RestartPolicy"])
            self._rename(old, key.name)
            if old["State"]["Status"] not in RUNNING:
                self.api.start(old["Id"])
            after_drain(self.api, self.fleet.limits, old)

    def discard(self, key: Key) -> None:
        """Remove the new container, with the volumes that were made for it alone."""
        with outside(f"removing {key.new_name}", self.engine):
            new = self._pair(key).new
            if new:
                self.api.remove_container(new["Id"], force=True, v=True)

    def differences(self, key: Key) -> tuple[str, ...]:
        """What differs between old and new beyond the image."""
        with outside("comparing", self.engine):
            pair = self._pair(key)
            if pair.old is None or pair.new is None:
                return ()
            images = self._image(pair.old), self._image(pair.new)
            return essence.differences(pair.old, images[0], pair.new, images[1], key.name)

    def log(self, key: Key) -> str:
        """The last lines that the new container printed."""
        with outside("reading the log", self.engine):
            new = self._pair(key).new
            return str(self.api.logs(new["Id"], tail=LOG_LINES), "utf-8", "replace") if new else ""

    def _pair(self, key: Key) -> Pair:
        """The step's containers: the old one by its id, the new one by its labels; the old one is never the new one."""
        with outside(f"looking for the containers of {key.name}", self.engine):
            labels = [f"{ROLLOUT}={key.rollout}", f"{MEMBER}={key.member}"]
            listed = self.api.containers(all=True, filters={"label": labels})
            new = next((found["Id"] for found in listed if found["Id"] != key.old), None)
            return Pair(self._find(key.old), self._find(new) if new else None)

    def _find(self, container: str) -> Json | None:
        with suppress(docker.errors.NotFound):
            return dict(self.api.inspect_container(container))
        return None

    def _need(self, container: str, called: str) -> Json:
        found = self._find(container)
        if found is None:
            raise GoneError(f"the container {called} ({container[:12]}) is gone from {self.engine}")
        return found

    def _made(self, key: Key) -> Json:
        """The new container. One that is gone is no GoneError: the old one is there, and has to serve again."""
        new = self._pair(key).new
        if new is None:
            raise OutsideError(f"the new container of {key.name} is gone from {self.engine}")
        return new

    def _image(self, container: Json) -> Json:
        """The image that a container was made from; empty when it has been removed from the engine since."""
        for reference in (container["Image"], container["Config"]["Image"]):
            try:
                found: dict[str, Any] = self.api.inspect_image(reference)
            except docker.errors.NotFound:
                continue
            if found["Id"] == container["Image"]:
                return found
        return {}
