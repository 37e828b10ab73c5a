"""What the ledger keeps of how members run, as values; and whether a policy requires it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pydantic import ValidationError

from hardening.model import Enforcement
from hardening.policy import Policy
from hardening.runtime import NAMES, ContainerFacts, Facts, InstanceFacts
from images.documents import from_json
from images.ledger import MemberSnapshot

KINDS: dict[str, type[ContainerFacts] | type[InstanceFacts]] = {"container": ContainerFacts, "instance": InstanceFacts}


def history_of(lines: Iterable[MemberSnapshot]) -> tuple[tuple[datetime, Facts], ...]:
    """What earlier looks kept of one instance; what another version wrote, and this one cannot read, is left out."""
    read = ((line.at, facts_in(line.facts)) for line in lines)
    return tuple((at, facts) for at, facts in read if facts is not None)


def facts_in(kept: dict[str, object]) -> Facts | None:
    """How a member ran, by its JSON."""
    kind = KINDS.get(str(kept.get("kind")))
    try:
        return from_json(kind, kept) if kind else None
    except ValidationError:
        return None


def demands(policy: Policy) -> bool:
    """Whether a policy does more than record how things run."""
    return any(getattr(policy.running, name).enforcement is not Enforcement.AUDIT for name in NAMES)
