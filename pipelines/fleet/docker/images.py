"""Edge: the defaults that containers' images set, by the engine, or by the registry if the engine forgot them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any

import docker.errors

from hardening.foundation.errors import GoldsmithError, RefusedError
from images.registry.answers import NotFoundError
from images.registry.client import RegistryClient
from images.registry.references import one_repository
from pipelines.fleet.docker.container_spec import Json
from pipelines.fleet.members import repository
from pipelines.fleet.model import Fleet

Configuration = Callable[[str], Json | None]  # what a registry says of an image, by its reference with digest
Login = Callable[[str], dict[str, str] | None]


class Images:
    """Answers for one engine, queried once for each image: the content of an id never changes.

    A tag that is pulled again takes the record of its old image out of the engine's image store, and the containers
    that were made from it run on. What their image set by default is then in the registry alone.
    """

    def __init__(self, api: Any, configuration: Configuration, login: Login = lambda _reference: None) -> None:
        self._api = api
        self._login = login
        self._configuration = configuration
        self._known: dict[str, Json] = {}
        self._refused: dict[str, RefusedError] = {}
        self._here: dict[str, Json] = {}
        self._lock = Lock()

    def of(self, container: Json) -> Json:
        """The image that a container was made from. Raises RefusedError where that cannot be found out."""
        wanted = _exact(container)
        with self._lock:
            if wanted in self._refused:
                raise self._refused[wanted]
            if wanted not in self._known:
                self._known[wanted] = self._from_engine(container) or self._from_registry(container)
            return self._known[wanted]

    def retry(self) -> None:
        """Ask again for what could not be found out: once for each look at the fleet, not for each member."""
        with self._lock:
            self._refused.clear()

    def _from_engine(self, container: Json) -> Json | None:
        references = (container["Image"], container["Config"]["Image"])
        return next((found for one in references if (found := self.stands_for(one, container["Image"]))), None)

    def stands_for(self, reference: str, wanted: str) -> Json | None:
        """The image that the engine calls `reference` now, where that is the wanted one."""
        with suppress(docker.errors.NotFound):
            found: Json = self._api.inspect_image(reference)
            return found if found["Id"] == wanted else None
        return None

    def _from_registry(self, container: Json) -> Json:
        exact = _exact(container)
        why = "no registry that we deal with has it"
        try:
            if found := self._configuration(exact):
                layers = (found.get("rootfs") or {}).get("diff_ids")
                record = {"Config": found.get("config") or {}, "RootFS": {"Layers": layers}}
                return {"Id": container["Image"], "RepoDigests": [exact], **record}
        except GoldsmithError as error:
            why = error.message
        lost = f"the engine has no record of the image {exact} any more, and {why}"
        apart = "what was set for the container and what its image set cannot be distinguished"
        self._refused[exact] = RefusedError(f"{lost}: {apart}", hint=f"docker pull {exact} brings the record back")
        raise self._refused[exact]

    def here(self, reference: str) -> Json | None:
        """An image by its pinned reference; one whose tag has moved on is known by its digest alone. None: not here."""
        if reference not in self._here:
            for called in (reference, reference.rpartition("@")[2]):
                with suppress(docker.errors.NotFound):
                    self._here[reference] = {**self._api.inspect_image(called), "Called": called}
                    break
        return self._here.get(reference)

    def sets(self, reference: str) -> Json | None:
        """What an image sets by default, which need not be here; None where nobody that we deal with knows it."""
        if found := self.here(reference):
            return dict(found.get("Config") or {})
        found = self._configuration(reference)
        return None if found is None else dict(found.get("config") or {})

    def fetch(self, reference: str) -> None:
        """Pull an image, unless it is here by this name.

        One that is here by its digest alone, as from a mirror, will do where it cannot be pulled.
        """
        found = self.here(reference)
        if found and found["Called"] == reference:
            return
        try:
            self._api.pull(reference, auth_config=self._login(reference))
        except docker.errors.APIError:
            if found is None:
                raise
        self.forget(reference)

    def forget(self, reference: str) -> None:
        """Ask again for what was here: it may have been removed."""
        self._here.pop(reference, None)


def _exact(container: Json) -> str:
    """The image of a container by the digest that the engine knows it by, in the repository that it was taken from."""
    return f"{repository(container['Config']['Image'])}@{container['Image']}"


def registered(registry: RegistryClient, fleet: Fleet) -> Configuration:
    """What the registries that the fleet deals with say of an image; others are not asked."""

    def ask(reference: str) -> Json | None:
        if not dealt_with(registry, fleet, repository(reference)):
            return None
        try:
            return registry.configuration(reference)
        except NotFoundError:
            return None

    return ask


def dealt_with(registry: RegistryClient, fleet: Fleet, where: str) -> bool:
    """Whether a repository is the configured registry's, or the one that the fleet's own tag is in."""
    tag = fleet.replacement.image
    return where.startswith(f"{registry.address}/") or bool(tag and one_repository(where, tag))
