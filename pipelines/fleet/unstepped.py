"""Fleets whose members are not replaced one by one: their controllers replace them, and nothing replaces the others.

What such kinds share: members that no plan steps, the users that their images set, and where these images come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from hardening.foundation.errors import NOT_UNDERSTOOD, GoldsmithError, RefusedError, traced
from hardening.runtime import ContainerFacts, Observed
from images.artifact import Release
from pipelines.fleet.docker.images import Configuration
from pipelines.fleet.docker.provenance import ProvenanceReader
from pipelines.fleet.members import Changes, Member, Provenance, ReplacementImage, repository
from pipelines.fleet.port import MemberFleet

Container = TypeVar("Container")
FOREVER = datetime.max.replace(tzinfo=UTC)
UNNAMED = "AWS has added it: no task definition says how it runs"


class UnsteppedMembers(MemberFleet):
    """Members that no plan steps. Each kind lists its own."""

    def describe(self) -> tuple[Member, ...]:
        """The members that nothing keeps, which are left alone."""
        return ()

    def find(self, member: str) -> Member | None:
        """The member with this id, if it runs now."""
        return next((one for one in self.describe() if one.id == member), None)

    def _unstepped(self, *_: Any, **__: Any) -> Any:
        """Refuse to step a member, which no plan asks for."""
        raise RefusedError("no member of this fleet is replaced by itself", hint="roll what keeps it")

    prepare = create = start = expose = retire = swap = remove_old = revive = discard = _unstepped
    read = read_old = differences = log = _unstepped


class ContainerMembers(UnsteppedMembers, Generic[Container]):
    """Those that are containers: how they run is known as they were last listed, and registries, each asked once for an
    image, report the users that their images set.

    `facts_of`: how a container runs, by the user that its image sets, each None where it is not known. `api`: whose
    answers tell it.
    """

    def __init__(
        self, configuration: Configuration, facts_of: Callable[[Container, str | None], ContainerFacts | None], api: str
    ) -> None:
        self._configuration, self._facts_of, self._api = configuration, facts_of, api
        self._last = dict[str, Container]()
        self._users = dict[str, str | None]()

    def changes(self, member: Member, target: ReplacementImage) -> Changes:
        """As whom the container would run of the target's image."""
        would_run = self._observed(member, target.reference)
        facts = would_run.now
        why = dict(facts.unread).get("root_user") if isinstance(facts, ContainerFacts) else would_run.unread
        if why or not isinstance(facts, ContainerFacts):
            return Changes(unread=f"the user of {target.reference} is not known: {why}")
        return Changes(user=facts.user)

    def observe(self, members: Sequence[Member]) -> Mapping[str, Observed]:
        """How members run, by their ids."""
        return {one.id: self._observed(one, one.exact or one.image) for one in members if one.id in self._last}

    def _observed(self, member: Member, image: str) -> Observed:
        try:
            facts = self._facts_of(self._last[member.id], self._user_of(image))
        except NOT_UNDERSTOOD as error:
            return Observed("container", None, unread=f"{self._api} is not understood: {traced(error)}")
        return Observed("container", facts, unread="" if facts else UNNAMED)

    def _user_of(self, reference: str) -> str | None:
        """The user that an image sets, by its reference with digest; None where no registry tells."""
        if reference not in self._users:
            self._users[reference] = self._asked(reference) if "@" in reference else None
        return self._users[reference]

    def _asked(self, reference: str) -> str | None:
        try:
            found = self._configuration(reference)
        except GoldsmithError:
            return None
        return None if found is None else str((found.get("config") or {}).get("User") or "")


class RemoteProvenance(ProvenanceReader):
    """Where images come from that do not run on an engine of ours: the registry, not the engine, lists their layers."""

    def _of(self, member: Member) -> Provenance:
        return super()._of(member) if member.digests[0].startswith("sha256:") else Provenance()

    def _base(self, member: Member) -> Release | None:
        layers = member.layers or self._layers(repository(member.image), member.digests[0])
        return super()._base(replace(member, layers=layers))
