"""Edge: judges members, the replacement and alarms again, right before a rollout acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import requests

from pipelines.fleet.members import Member, Target
from pipelines.rollout.orders import MemberOrder
from pipelines.rollout.refusals import refuse_target, why_not

if TYPE_CHECKING:
    from pipelines.rollout.session import FleetSession

ASK_SECONDS = 5
ADDRESSES = ("http://", "https://")


@dataclass(frozen=True)
class PresentJudge:
    """Judges by today's policy, waivers, ledger and registry."""

    at: FleetSession

    def left_alone(self, order: MemberOrder, member: Member) -> str:
        """Why the member is left alone after all; empty when it is to be replaced."""
        one = self.at.judge([member])[0]
        if not one.violations:
            return "it is waived by now" if one.reasons else "it no longer violates"
        return why_not(self.at.fleet, one, order.target, self.at.now(), order.adopt)

    def refuse(self, target: Target) -> None:
        """Raises RefusedError as soon as the replacement must not run any more."""
        refuse_target(self.at.fleet, self.at.origins().again(target), self.at.now())

    def alarms(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the alarms that are firing; one that cannot be asked fires."""
        named = [name for name in names if not name.startswith(ADDRESSES)]
        fired = self.at.firing(named) if named else ()
        return tuple(name for name in names if (name in fired if name in named else _fires(name)))


def _fires(address: str) -> bool:
    try:
        return not requests.get(address, timeout=ASK_SECONDS).ok
    except requests.RequestException:
        return True
