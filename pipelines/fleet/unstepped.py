"""Fleets whose members are not replaced one by one: their controllers replace them, and nothing replaces the others.

What such kinds share: members that no plan steps, the users that their images set, and where these images come from.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hardening.foundation.errors import GoldsmithError, RefusedError
from hardening.runtime import ContainerFacts, Observed
from images.artifact import Release
from pipelines.fleet.docker.images import Configuration
from pipelines.fleet.docker.provenance import ProvenanceReader
from pipelines.fleet.members import Changes, Member, Provenance, ReplacementImage, repository

FOREVER = datetime.max.replace(tzinfo=UTC)


class UnsteppedMembers:
    """A MemberFleet whose members no plan steps. Each kind lists its own members."""

    rehearses = False

    def describe(self) -> tuple[Member, ...]:
        """The members that nothing keeps, which are left alone."""
        return ()

    def find(self, member: str) -> Member | None:
        """The member with this id, if it runs now."""
        return next((one for one in self.describe() if one.id == member), None)

    def changes(self, _member: Member, _target: ReplacementImage) -> Changes:
        """Nothing that is known."""
        return Changes()

    def downtime(self, _key: Any) -> None:
        """It is not known."""

    def _unstepped(self, *_: Any, **__: Any) -> Any:
        """Refuse to step a member, which no plan asks for."""
        raise RefusedError("no member of this fleet is replaced by itself", hint="roll what keeps it")

    prepare = create = start = expose = retire = swap = remove_old = revive = discard = _unstepped
    read = read_old = differences = log = _unstepped


class ImageUsers:
    """The users that images set, as the registries of a fleet report them; each is asked for once."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._known = dict[str, str | None]()

    def of(self, reference: str) -> str | None:
        """The user that an image sets, by its reference with digest; None where no registry tells."""
        if reference not in self._known:
            self._known[reference] = self._asked(reference) if "@" in reference else None
        return self._known[reference]

    def _asked(self, reference: str) -> str | None:
        try:
            found = self._configuration(reference)
        except GoldsmithError:
            return None
        return None if found is None else str((found.get("config") or {}).get("User") or "")


def user_changed(would_run: Observed, target: ReplacementImage) -> Changes:
    """As whom a container is started from `target`, by how it would run then."""
    facts = would_run.now
    why = dict(facts.unread).get("root_user") if isinstance(facts, ContainerFacts) else would_run.unread
    if why or not isinstance(facts, ContainerFacts):
        return Changes(unread=f"as whom {target.reference} would run is not known: {why}")
    return Changes(user=facts.user)


class RemoteProvenance(ProvenanceReader):
    """Where images come from that do not run on an engine of ours: the registry, not the engine, lists their layers."""

    def _of(self, member: Member) -> Provenance:
        return super()._of(member) if member.digests[0].startswith("sha256:") else Provenance()

    def _base(self, member: Member) -> Release | None:
        layers = member.layers or self._layers(repository(member.image), member.digests[0])
        return super()._base(replace(member, layers=layers))
