"""A rollout under way, of members or of groups: its state, and how each change of that is written down. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hardening.foundation.errors import GoldsmithError
from images.documents import from_json
from pipelines.durable.port import Child
from pipelines.durable.records import BugError
from pipelines.rollout.journal import Event
from pipelines.rollout.state import MemberState, Phase, RolloutState, Stage, summary
from pipelines.rollout.steps import Hand


class Rollout:
    """What the ledger shows of a rollout, and people are told; a group stands in the place of a member."""

    def __init__(self, hand: Hand, state: RolloutState, members: Iterable[MemberState]) -> None:
        self.hand = hand
        self.state = state
        self.members = {member.id: member for member in members}

    async def begin(self, what: str) -> None:
        """Write down the rollout and who belongs to it, and tell people `what` is to be done."""
        journal = self.hand.journal

        def write() -> None:
            journal.begin(self.state, tuple(self.members.values()))
            journal.notify(self.state.id, Event.STARTED, what)

        await self.hand.note("begin", write)

    async def save(self, stage: Stage, note: str = "", event: Event | None = None, **changes: Any) -> None:
        """Write down what the rollout does now; with `event` people are told."""
        self.state = replace(self.state, stage=stage, note=note, **changes)
        journal = self.hand.journal

        def write() -> None:
            journal.save(self.state)
            if event:
                journal.notify(self.state.id, event, note or self.state.failure)

        await self.hand.note(f"{stage} {self.state.wave}", write)

    async def mark(self, member: MemberState) -> MemberState:
        """Remember and write down how far a member is."""
        self.keep(member)
        journal = self.hand.journal
        await self.hand.note(f"{member.phase} {member.name}", lambda: journal.mark(self.state.id, member))
        return member

    def keep(self, member: MemberState) -> MemberState:
        """Remember how far a member is."""
        self.members[member.id] = member
        return member

    async def await_end(self, member: str, child: Child) -> MemberState:
        """Await the flow of a member, and remember what became of it. An error is the member's failure."""
        try:
            return self.keep(from_json(MemberState, await child.result()))
        except (GoldsmithError, BugError) as error:  # a fault of ours leaves nobody else alone
            return self.keep(replace(self.members[member], phase=Phase.FAILED, failure=str(error)))

    def summary(self) -> str:
        """How many members ended in which way."""
        return summary(self.members.values())
