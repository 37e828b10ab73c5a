"""Edge: containers of one Docker Engine as a fleet. Every effect finds by names and labels what an earlier try did."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import docker
import docker.errors

from hardening.foundation.asking import AT_ONCE
from hardening.foundation.errors import OutsideError, RefusedError
from pipelines.fleet.docker import container_spec
from pipelines.fleet.docker.container_spec import RUNNING, Json, image_changes, user_after, written
from pipelines.fleet.docker.handover import PortHold, before_drain, named_until_exit, run_hook
from pipelines.fleet.docker.images import Configuration, Images, Login
from pipelines.fleet.docker.inventory import (
    ContainerInventory,
    ContainerList,
    container_name,
    find,
    limited,
    outside,
    owner_of,
    probe,
)
from pipelines.fleet.members import (
    EXPIRY,
    KEPT,
    KEPT_LABELS,
    MEMBER,
    ROLLOUT,
    Changes,
    Key,
    Member,
    Read,
    ReplacementImage,
    Seen,
    given_labels,
    lender,
    of_the_image,
)
from pipelines.fleet.model import Fleet, Method
from pipelines.fleet.port import GoneError

ENGINE_TIMEOUT = 120
LOG_LINES = 10


def open_engine(engine: str) -> Any:
    """A client of an engine, as DOCKER_HOST names it. Raises what docker and requests raise, and OSError."""
    scheme, _, path = engine.partition("://")
    if scheme == "unix":  # docker's client leaves a socket open that does not connect
        with socket.socket(socket.AF_UNIX) as tried:
            tried.settimeout(ENGINE_TIMEOUT)
            tried.connect(path)
    return limited(docker.APIClient(base_url=engine, version="auto", timeout=ENGINE_TIMEOUT, max_pool_size=AT_ONCE))


class DockerFleet:
    """The members of `fleet` on the engine at `engine`. Close it, or use it as a context.

    `host` is what a fleet of several hosts calls this one, empty where it is the only one; `connect` opens the engine.
    `login` gives the user name and password to pull a reference with, or None for those of docker's own files.
    `configuration` asks a registry for what an image sets by default, where the engine forgot it; `recorded` names the
    members that the fleet was last seen with; `rivals` are the other fleets of this engine.
    """

    rehearses = True

    def __init__(
        self,
        fleet: Fleet,
        engine: str,
        login: Login = lambda _reference: None,
        configuration: Configuration = lambda _reference: None,
        recorded: Callable[[], Collection[str]] = tuple,
        host: str = "",
        connect: Callable[[str], Any] = open_engine,
        rivals: Sequence[Fleet] = (),
    ) -> None:
        self.fleet = fleet
        self.engine = engine
        with outside("connecting", engine):
            self.api: Any = connect(engine)
            self.account = str(self.api.info()["Name"])
        self.images = Images(self.api, configuration, login)
        self._inventory = ContainerInventory(self.api, fleet, self.account, self.images, recorded, host, rivals)
        self._list = ContainerList(self.api)
        self._copies = KeptCopies(self.api, self.images)
        self._hold = PortHold(self.api, engine, fleet.health)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.api.close()

    def describe(self) -> tuple[Member, ...]:
        """Every container with the fleet's labels that runs or should run; those that a rollout is still preparing, and
        the old ones that it keeps, are none.
        """
        with outside("listing containers", self.engine):
            return self._inventory.members()

    def seen(self, _group: str = "") -> Seen:
        """The same; an engine that cannot be read raises."""
        return Seen(self.describe())

    def find(self, member: str) -> Member | None:
        """The member with this id, if it runs now or should."""
        with outside("looking for a container", self.engine):
            name = container_name(member.rpartition("/")[2])
            if found := next((one for one in self._inventory.members(name) if one.id == member), None):
                return found
            self._inventory.require_own(member)
            return None

    def changes(self, member: Member, target: ReplacementImage) -> Changes:
        """What the image sets by default and the old one did not, a mount that its user cannot write, and in place what
        becomes of new connections.
        """
        with outside(f"looking at what {target.reference} changes", self.engine):
            container = find(self.api, member.handle)
            if container is None:
                return Changes()
            try:
                before = self.images.of(container).get("Config") or {}
            except RefusedError:  # which leaves the member alone by itself, with a better word for it
                return Changes()
            sets = self.images.sets(target.reference)
            if sets is None:
                unknown = f"what {target.reference} sets by default is not known here"
                return Changes((unknown,), unread=f"{unknown}: pull it")
            user = user_after(container, before, sets)
            tell = self._hold.told if self.fleet.limits.method is Method.IN_PLACE else named_until_exit
            told = tell(container, self._stop_timeout(container))
            forbids = self._hides(container, before, sets) or self._unwritable(container, user)
            return Changes((*image_changes(container, before, sets), *told), forbids, user)

    def _hides(self, container: Json, before: Json, sets: Json) -> str:
        """Why a container of the new image would be no member any more; empty where it would be one."""
        given = given_labels(container_spec.own_labels(container, before), sets.get("Labels"))
        return "" if self.fleet.selects(given) else of_the_image("its replacement", self.fleet.selector, given)

    def _unwritable(self, container: Json, user: str) -> str:
        """The first mount that the old user can write and `user` cannot, and what to do; empty where there is none."""
        groups, before = container["HostConfig"].get("GroupAdd") or [], container["Config"].get("User") or ""
        for path in written(container, self.fleet.limits.unwritten_mounts):
            owner = owner_of(self.api, container["Id"], path)
            if owner and owner.lets(user, groups) is False and owner.lets(before, groups) is not False:
                what = f"the new image runs as {user}, which cannot write to {path} ({owner})"
                words = ("docker", "exec", "--user", "0", container_spec.name(container), "chown", "-R", user, path)
                mends = f"{shlex.join(words)} fixes that"
                if before.partition(":")[0] not in ("", "0", "root"):  # it serves until then
                    mends = f"let a group that both have own it: {before}, which runs now, must still write there"
                return f"{what}: {mends}, or limits.unwritten_mounts names it where it need not"
        return ""

    def prepare(self, target: ReplacementImage, member: str = "") -> None:  # noqa: ARG002 - there is one engine
        """Pull the replacement, by digest."""
        with outside(f"pulling {target.reference}", self.engine):
            self.images.forget(target.reference)
            self.images.fetch(target.reference)

    def create(self, key: Key, target: ReplacementImage, expiry: datetime) -> None:
        """Create the new container from the old one's specification; an interrupted try begins again."""
        with outside(f"creating {key.new_name}", self.engine), self._changed():
            old = self._need(key)
            self._discard_ours(key)
            image = self.images.here(target.reference) or {}
            labels = {ROLLOUT: key.rollout, MEMBER: key.member, EXPIRY: expiry.astimezone(UTC).isoformat()}
            labels |= container_spec.compose_image_label(container_spec.labels_of(old), image.get("Id", ""))
            body = container_spec.creation(old, self.images.of(old), image.get("Called", target.reference), labels)
            if key.is_rehearsal:
                body = container_spec.rehearsal(body, labels)
            joins = container_spec.endpoints(old, full=_stops_first(key))
            try:
                make(self.api, body, key.new_name, joins, apart=_is_apart(old))
            except docker.errors.NotFound:
                self.images.forget(target.reference)
                raise

    def _discard_ours(self, key: Key) -> None:
        """Remove what an earlier try has made of it.

        Fleets may overlap, and each has its own lease: a member that another rollout has in hand is left to that.
        """
        listed = self.api.containers(all=True, filters={"label": f"{MEMBER}={key.member}"})
        for one in listed:
            rollout = one["Labels"].get(ROLLOUT, "")
            if rollout != key.rollout and f"/{key.name}.{rollout}" in one["Names"]:
                hint = "where two fleets select it, ./goldsmith lint says so; ./goldsmith roll.reap finds what is left"
                raise RefusedError(f"{key.name} is being replaced by {rollout} already", hint=hint)
        if any(one["Labels"].get(ROLLOUT) == key.rollout and one["Id"] != key.old for one in listed):
            self.discard(key)

    def start(self, key: Key) -> None:
        """Start the new container."""
        with outside(f"starting {key.new_name}", self.engine), self._changed():
            self.api.start(key.new_name)
            if _stops_first(key):
                self._hold.end(key, lambda: self._new(key))

    def read(self, key: Key) -> Read:
        """One look at the new container's health."""
        with outside("reading the health", self.engine):
            new = self._list.new(key)
            if new and (new["State"] != "running" or self.fleet.health.kind == "docker"):
                seen = self._read(find(self.api, new["Id"]))
            else:
                seen = self._read({**new, "State": {"Status": new["State"]}} if new else None)
            if seen.good:
                self._hold.answered(key)
            return seen

    def read_old(self, key: Key) -> Read:
        """One look at the old container's health."""
        with outside("reading the health", self.engine):
            return self._read(self._copies.old(key))

    def _read(self, container: Json | None) -> Read:
        return probe(self.api, self.fleet.health, container) if container else Read(False, "the container is gone")

    def expose(self, key: Key) -> None:
        """Give the new container the old one's aliases. The engine adds them only on connecting, so it joins again."""
        with outside(f"giving {key.new_name} the names of {key.name}", self.engine), self._changed():
            endpoints = container_spec.endpoints(self._need(key), full=True)
            named = {network: endpoint for network, endpoint in endpoints.items() if endpoint.get("Aliases")}
            new = self._new(key) if named else {}
            if new is None:
                raise self._new_is_gone(key)
            for network, endpoint in named.items():
                joined = (new["NetworkSettings"].get("Networks") or {}).get(network)
                if set(endpoint["Aliases"]) - set((joined or {}).get("Aliases") or []):
                    if joined is not None:
                        self.api.disconnect_container_from_network(new["Id"], network)
                    connect(self.api, new["Id"], network, endpoint)

    def retire(self, key: Key, drain: timedelta) -> None:
        """Stop the old container for good: the engine must not start it again by itself.

        It has `drain`, or the stop timeout of its own where that is longer.
        """
        with outside(f"stopping {key.name}", self.engine), self._changed():
            old = self._copies.old(key)
            if old is None:
                return
            before_drain(self.api, self.fleet.limits, old)
            if old["State"]["Status"] in RUNNING:
                timeout = self._stop_timeout(old, drain)
                if _stops_first(key):
                    self._hold.begin(key, old, timeout)
                try:
                    self.api.stop(old["Id"], timeout=timeout)
                except Exception:
                    if _stops_first(key):
                        self._hold.give_up(key)
                    raise
            self._set_restart_policy(old, {"Name": container_spec.at_rest(old)})

    def _stop_timeout(self, container: Json, drain: timedelta | None = None) -> int:
        limits = self.fleet.limits
        return container_spec.stop_timeout(
            container, limits.drain if drain is None else drain, limits.progress_deadline
        )

    def _set_restart_policy(self, container: Json, policy: Json) -> None:
        """The engine refuses this for a container that ends just then: better stopped before."""
        if container["HostConfig"]["RestartPolicy"]["Name"] != policy["Name"]:
            self.api.update_container(container["Id"], restart_policy=policy)

    def swap(self, key: Key) -> None:
        """The old container steps aside, the new one takes the name."""
        with outside(f"renaming {key.new_name} to {key.name}", self.engine), self._changed():
            new = self._list.new(key)
            if new is None:  # no GoneError: the old one has to serve
                raise self._new_is_gone(key)
            if container_spec.COMPOSE_PROJECT in new["Labels"]:
                self._copies.keep(key)
            else:
                self._rename(key.old, key.old_name)
            run_hook(self.api, self.fleet.limits, "after_drain", {**new, "Name": key.new_name})
            if not self._rename(new["Id"], key.name):
                raise self._new_is_gone(key)

    def _rename(self, container: str, wanted: str) -> bool:
        """Give a container another name, unless it has it already; False where the container is gone."""
        try:
            self.api.rename(container, wanted)
        except docker.errors.APIError:
            found = find(self.api, container)
            if found and container_spec.name(found) != wanted:
                raise
            return found is not None
        return True

    def remove_old(self, key: Key) -> None:
        """Remove the old container. Its volumes stay: the new one has them."""
        with outside(f"removing {key.old_name}", self.engine):
            if not self._remove(key.old) and (old := self._copies.old(key)):
                self._remove(old["Id"])

    def _remove(self, container: str, **options: bool) -> bool:
        """Remove a container; False where it is gone already."""
        with suppress(docker.errors.NotFound):
            self.api.remove_container(container, force=True, **options)
            return True
        return False

    def revive(self, key: Key) -> None:
        """The old container gets back its name and restart policy, and runs."""
        with outside(f"restoring {key.name}", self.engine), self._changed():
            old, new = self._need(key), self._new(key)
            try:
                if new:
                    self._rename(new["Id"], key.new_name)
                    if _stops_first(key):
                        self._hold.begin(key, new, self._stop_timeout(new))
                        self._drain(key, new)
                        self.api.stop(new["Id"], timeout=1)
                if is_copy(old):
                    old = self._copies.rejoin(old, key)
                if new:
                    self._set_restart_policy(old, new["HostConfig"]["RestartPolicy"])
                self._rename(old["Id"], key.name)
                if old["State"]["Status"] not in RUNNING:
                    self.api.start(old["Id"])
            except Exception:
                if _stops_first(key):
                    self._hold.give_up(key)
                raise
            if _stops_first(key):  # also where it runs: an earlier try, or process, may have left a hold
                self._hold.end(key, lambda: find(self.api, old["Id"]))
            run_hook(self.api, self.fleet.limits, "after_drain", old)

    def discard(self, key: Key) -> None:
        """Remove the new container, with the volumes that were made for it alone; one that serves drains before."""
        with outside(f"removing {key.new_name}", self.engine), self._changed():
            if new := self._new(key):
                self._drain(key, new)
                self._remove(new["Id"], v=True)

    def _drain(self, key: Key, new: Json) -> None:
        """Let a new container that serves finish what it has begun, and stop it, as `retire` does with an old one.

        Any other need not. A command that fails does not keep the old one from serving again.
        """
        limits = self.fleet.limits
        if key.is_rehearsal or not self._read(new).good:
            return
        with suppress(OutsideError, docker.errors.APIError):
            before_drain(self.api, limits, new)
        with suppress(docker.errors.NotFound):
            self.api.stop(new["Id"], timeout=self._stop_timeout(new))

    def differences(self, key: Key) -> tuple[str, ...]:
        """What differs between old and new beyond the image."""
        with outside("comparing", self.engine):
            old, new = self._copies.old(key), self._new(key)
            if old is None or new is None:
                return ()
            return container_spec.differences(old, self.images.of(old), new, self.images.of(new), key.name)

    def downtime(self, key: Key) -> timedelta | None:
        """For how long neither answered, as this process saw it."""
        return self._hold.away(key)

    def log(self, key: Key) -> str:
        """The last lines that the new container printed."""
        with outside("reading the log", self.engine):
            new = self._list.new(key)
            return str(self.api.logs(new["Id"], tail=LOG_LINES), "utf-8", "replace") if new else ""

    @contextmanager
    def _changed(self) -> Iterator[None]:
        """Containers are changed in here: the next look asks the engine again."""
        self._list.forget()
        try:
            yield
        finally:
            self._list.forget()

    def _need(self, key: Key) -> Json:
        """The old container."""
        found = self._copies.old(key)
        if found is None:
            self._inventory.require_own(key.member)
            raise GoneError(f"the container {key.name} ({key.old[:12]}) is gone from {self.engine}")
        return found

    def _new(self, key: Key) -> Json | None:
        """The new container, if there is one."""
        new = self._list.new(key)
        return find(self.api, new["Id"]) if new else None

    def _new_is_gone(self, key: Key) -> OutsideError:
        return OutsideError(f"the new container of {key.name} is gone from {self.engine}")


def _stops_first(key: Key) -> bool:
    """Whether the old container stops before the new one starts."""
    return key.method is Method.IN_PLACE and not key.is_rehearsal


# -- making containers, and keeping old ones --------------------------------------------------------------------------


def make(api: Any, body: Json, name: str, joins: Mapping[str, Json], *, apart: bool = False) -> None:
    """Create a container that joins networks, the primary one first; `apart`: none, not even that of its mode."""
    primary, others = dict(list(joins.items())[:1]), list(joins.items())[1:]
    api.create_container_from_config({**body, "NetworkingConfig": {"EndpointsConfig": primary}}, name)
    for network, endpoint in others:
        connect(api, name, network, endpoint)
    for network in api.inspect_container(name)["NetworkSettings"]["Networks"] if apart else ():
        api.disconnect_container_from_network(name, network)


def _is_apart(container: Json) -> bool:
    """Whether it was taken off every network; the engine would have the next one join that of its mode again."""
    return not lender(container["HostConfig"].get("NetworkMode")) and not container["NetworkSettings"].get("Networks")


def connect(api: Any, container: str, network: str, endpoint: Json) -> None:
    """Join a network as `endpoint` says, in the engine's own words: docker-py lacks some of them."""
    asked = {"Container": container, "EndpointConfig": endpoint}
    api._raise_for_status(api._post_json(api._url("/networks/{0}/connect", network), data=asked))


class KeptCopies:
    """Copies of old containers of compose projects, while these are kept.

    A container's labels cannot be changed, and compose counts a stopped one with the project's labels as an instance
    of the service, so that it would remove one of the two. So a copy without those labels is kept in the old one's
    place: the same image, settings, networks and volumes; what the old one wrote into its own layer is lost, as
    compose itself loses it whenever it recreates a container.
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

    def keep(self, key: Key) -> None:
        """Keep a copy of the old container in its place; an interrupted try begins again."""
        kept = self._kept(key)
        original = find(self._api, key.old) or next((one for one in kept if not is_copy(one)), None)
        if original is None:
            return
        for unfinished in filter(is_copy, kept):
            self._api.remove_container(unfinished["Id"], force=True)
        labels = {**container_spec.labels_of(original), KEPT: key.rollout, MEMBER: key.member}
        joins = container_spec.endpoints(original, full=True)
        self._again(original, key.old_name, container_spec.leave_project(labels), joins)
        self._api.remove_container(original["Id"], force=True)

    def rejoin(self, copy: Json, key: Key) -> Json:
        """Make the old container of its copy again, under the member's name and in its project."""
        for unfinished in self._kept(key)[1:]:
            self._api.remove_container(unfinished["Id"], force=True)
        joins = container_spec.endpoints({**copy, "Name": f"/{key.name}"}, full=True)
        for endpoint in joins.values():
            endpoint["Aliases"] = [alias for alias in endpoint.get("Aliases") or [] if alias != key.old_name] or None
        self._again(copy, key.name, container_spec.rejoin_project(container_spec.labels_of(copy)), joins)
        self._api.remove_container(copy["Id"], force=True)
        return dict(self._api.inspect_container(key.name))

    def _again(self, container: Json, name: str, labels: Mapping[str, str], joins: Mapping[str, Json]) -> None:
        image = self._images.of(container)
        exact = container_spec.exact(container, image)
        self._images.fetch(exact)
        named = container["Config"]["Image"]
        reference = named if self._images.stands_for(named, container["Image"]) else exact
        body = container_spec.creation(container, image, reference, {})
        make(self._api, {**body, "Labels": dict(labels)}, name, joins, apart=_is_apart(container))


def is_copy(container: Json) -> bool:
    """Whether it is a copy without the labels of its project."""
    return KEPT_LABELS in container_spec.labels_of(container)
