"""Edge: what rollouts left on a Docker Engine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import docker.errors

from images.aws.tags import moment_in
from pipelines.fleet.docker import container_spec, handover
from pipelines.fleet.docker.container_spec import Json
from pipelines.fleet.docker.inventory import find, outside
from pipelines.fleet.docker.members import open_engine
from pipelines.fleet.members import EXPIRY, KEPT, OLD, ROLLOUT
from pipelines.fleet.orphans import Orphan


class DockerOrphanSource:
    """One engine: containers under the name that they have before they take a member's over, or after they left it.

    `connect` opens it.
    """

    def __init__(self, engine: str, connect: Callable[[str], Any] = open_engine) -> None:
        self.engine = engine
        with outside("connecting", engine):
            self.api: Any = connect(engine)
            self.name = str(self.api.info()["Name"])

    def orphans(self) -> tuple[Orphan, ...]:
        """New ones that never became a member, and old ones that are kept."""
        with outside("listing containers", self.engine):
            listed = [find(self.api, one["Id"]) for one in self.api.containers(all=True)]
        everything = [one for one in listed if one]  # None was removed since it was listed, be it anybody's
        took_over = {container_spec.name(one): container_spec.labels_of(one).get(ROLLOUT, "") for one in everything}
        found = (self._orphan(one, took_over) for one in everything)
        return tuple(one for one in found if one)

    def _orphan(self, container: Json, took_over: dict[str, str]) -> Orphan | None:
        labels, name = container_spec.labels_of(container), container_spec.name(container)
        rollout = labels.get(ROLLOUT, "")
        member, old, kept_for = name.rpartition(OLD)
        if old and kept_for in (took_over.get(member), labels.get(KEPT)):
            held = f"it is the old one that {kept_for} kept, with all that is in it: docker rm {name} removes it"
            return Orphan(self.name, "container", container["Id"], name, kept_for, None, held)
        if rollout and name.endswith(f".{rollout}"):
            return Orphan(self.name, "container", container["Id"], name, rollout, moment_in(labels, EXPIRY))
        return None

    def remove(self, orphan: Orphan) -> None:
        """Remove a container, with the volumes that were made for it alone."""
        with outside(f"removing {orphan.name}", self.engine), suppress(docker.errors.NotFound):
            self.api.remove_container(orphan.id, force=True, v=True)


class HoldOrphanSource:
    """The firewall of this machine: tables by which killed rollouts held ports, and which the kernel has emptied."""

    def orphans(self) -> tuple[Orphan, ...]:
        """All of them; none where this process could have made none."""
        tables = () if handover.unable() else handover.tables()
        at_once = datetime.min.replace(tzinfo=UTC)
        return tuple(
            Orphan("this machine", "nftables table", table, table, handover.rollout_of(table), at_once)
            for table in tables
        )

    def remove(self, orphan: Orphan) -> None:
        """Remove a table."""
        handover.apply(handover.removal(orphan.id))
