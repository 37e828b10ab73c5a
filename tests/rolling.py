"""Rollouts of Docker fleets on the durable engine, for tests; and a process that carries one and dies at every point.

`python -m tests.rolling FOLDER` carries what FOLDER/run.json says, in one process after the other: each kills itself at
the first point that FOLDER/died does not name yet, before a step or right after a call that changes something.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from images.documents import from_json, to_json
from pipelines.durable.dbos import Worker, engine_url
from pipelines.fleet.docker import DockerFleet
from pipelines.fleet.members import Member, Target
from pipelines.fleet.model import Fleet
from pipelines.fleet.port import MemberFleet
from pipelines.rollouts.journal import Event, Orders
from pipelines.rollouts.orders import MemberOrder, Order, World
from pipelines.rollouts.plan import Plan
from pipelines.rollouts.run import ROLLOUT, flows
from pipelines.rollouts.state import MemberState, Outcome, RolloutState

MUTATING = (
    "create_container_from_config", "start", "stop", "rename", "remove_container", "update_container",
    "connect_container_to_network", "disconnect_container_from_network",
)  # fmt: skip


@dataclass
class Notes:
    """A journal in memory: nobody else wants the fleet, and nobody asks for anything but what `orders` says."""

    asked: Orders = field(default_factory=Orders)
    told: list[tuple[Event, str]] = field(default_factory=list)

    def fence(self, rollout: str) -> None: ...
    def begin(self, state: RolloutState, members: Sequence[MemberState]) -> None: ...
    def save(self, state: RolloutState) -> None: ...
    def mark(self, rollout: str, member: MemberState) -> None: ...
    def audit(self, rollout: str, action: str, detail: str = "") -> None: ...

    def orders(self, rollout: str) -> Orders:
        return self.asked

    def notify(self, rollout: str, event: Event, text: str) -> None:
        self.told.append((event, text))


class Approves:
    """A judge who sees nothing that has changed."""

    def left_alone(self, order: MemberOrder, member: Member) -> str:
        return ""

    def refuse(self, target: Target) -> None: ...

    def alarms(self, names: Sequence[str]) -> tuple[str, ...]:
        return ()


def world(members: MemberFleet) -> World:
    """What a rollout acts through where nobody interferes."""
    return World(members, Notes(), Approves(), lambda: datetime.now(UTC))


def carried(members: DockerFleet, plan: Plan, folder: Path, rollout: str = "r1") -> Outcome:
    """Carry a plan out, for real, its flows in `folder`."""
    order = to_json(Order(rollout, plan, members.fleet.limits))
    url = engine_url(f"sqlite:///{folder}/ledger.sqlite")
    with Worker.launched(url, flows(lambda _fleet: world(members))) as worker:
        return from_json(Outcome, worker.carry(ROLLOUT, rollout, order))


class Deaths:
    """The points at which a process dies once: those that the file names are behind us."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.behind = set(file.read_text().splitlines()) if file.exists() else set()
        self.step = ""

    def reach(self, point: str) -> None:
        """Die here, unless we already have."""
        if point not in self.behind:
            with self.file.open("a") as file:
                file.write(f"{point}\n")
            os.kill(os.getpid(), signal.SIGKILL)

    def after(self, call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """The call, and death between it and its record."""

        def called(*words: Any, **more: Any) -> Any:
            answer = real(*words, **more)
            self.reach(f"in {self.step}: after {call}")
            return answer

        return called

    def before(self, step: str, attempt: Callable[[], Any]) -> Callable[[], Any]:
        """The step, and death between the record of the last one and this one's effect."""

        def act() -> Any:
            self.step = step
            self.reach(f"before {step}")
            return attempt()

        return act


def main(folder: Path) -> None:
    """Carry the rollout, and die at the next point."""
    from pipelines.durable.dbos import inbox
    from pipelines.rollouts import acting

    given = json.loads((folder / "run.json").read_text())
    deaths = Deaths(folder / "died")
    inbox.ATTEMPTS = 1_000_000  # who dies so often is given up, and should be; not here
    tried = acting.Hand._tried

    async def dying(hand: acting.Hand, name: str, attempt: Callable[[], Any], tries: int) -> Any:
        return await tried(hand, name, deaths.before(name, attempt), tries)

    acting.Hand._tried = dying  # type: ignore[method-assign]
    fleet = Fleet.model_validate(given["fleet"])
    with DockerFleet(fleet, given["host"]) as members:
        for call in MUTATING:
            setattr(members.api, call, deaths.after(call, getattr(members.api, call)))
        outcome = carried(members, from_json(Plan, given["plan"]), folder)
    (folder / "outcome.json").write_text(json.dumps(to_json(outcome)))


def one_after_the_other(folder: Path) -> int:
    """Processes until one does not kill itself; its exit status."""
    status = signal.SIGKILL
    while status == signal.SIGKILL:
        child = os.fork()
        if child == 0:
            main(folder)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    return status


if __name__ == "__main__":
    sys.exit(one_after_the_other(Path(sys.argv[1])))
