"""Carries a fleet's rollout to its end: its lease, the engine, and what an earlier process left unfinished. Edge."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from secrets import token_hex

from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, OutsideError, UsageError
from images.documents import from_json, to_json
from images.ledger import Holder, Lease
from pipelines.durable.dbos import Worker
from pipelines.durable.port import Flow
from pipelines.durable.workers import LostError
from pipelines.fleet.model import FleetKind
from pipelines.fleet.together import together
from pipelines.rollout.flow import ROLLOUT, flows
from pipelines.rollout.leasing import leased
from pipelines.rollout.ledger_journal import LedgerJournal
from pipelines.rollout.notify import notifier
from pipelines.rollout.orders import Order, World, one_by_one, ordered
from pipelines.rollout.present_judge import PresentJudge
from pipelines.rollout.session import FleetSession
from pipelines.rollout.state import Outcome, RolloutState, Stage
from pipelines.rollout.store import view


class SteadyClock:
    """Real time that never jumps: it starts at the given moment and goes on with the machine's monotonic clock."""

    def __init__(self, start: datetime) -> None:
        self._start = start
        self._began = time.monotonic()

    def now(self) -> datetime:
        """The present moment."""
        return self._start + timedelta(seconds=time.monotonic() - self._began)


def execute(at: FleetSession, order: Order) -> Outcome:
    """Carry an order to its end, from wherever an earlier process left it.

    Raises RefusedError naming the owner where somebody else rolls the fleet, and OutsideError, also as soon as another
    process has the fleet. A rollout that failed, and is back as it was, is no error here: its Outcome says so.
    """
    rollout, written, ledger = order.rollout, to_json(order), at.context.ledger
    wanted = Holder(at.fleet.name, f"{at.context.actor}:{os.getpid()}-{token_hex(3)}", rollout)
    with leased(ledger, at.context.settings.database_url, wanted) as tenure:
        if ledger.rollout(rollout) is None:
            ledger.begin_rollout(rollout, at.fleet.name, wanted.owner, written, at.now())
        say(f"rollout {rollout} runs in this process; ./goldsmith roll.status {at.fleet.name} --watch shows it")
        now = SteadyClock(at.now()).now
        with Worker.launched(tenure.claim, _flows(at, tenure.lease, now), kind=at.fleet.name, now=now) as worker:
            tenure.when_lost(worker.lose)
            try:
                answer = worker.execute(ROLLOUT, rollout, written)
            except LostError:
                raise tenure.lost() from None
            except Exception as error:
                if worker.broke_off(rollout):
                    raise _broken_off(at, rollout, error) from error
                raise
            if not tenure.keeps():  # it was ended by the one that has the fleet now, and is that one's to tell
                raise tenure.lost()
            return from_json(Outcome, answer)


def _broken_off(at: FleetSession, rollout: str, error: Exception) -> GoldsmithError:
    """Write down that a rollout is over which can never be carried to its end, so that the fleet can be rolled anew."""
    row = at.context.ledger.rollout(rollout)
    said = f"{rollout} broke off: {error.message if isinstance(error, GoldsmithError) else error}"
    if row and row.open:
        target = view(at.context, row).replacement
        state = from_json(RolloutState, row.state) if row.state else None
        begun = state or RolloutState(rollout, row.fleet, target, row.begun_at, 0)
        ended = replace(begun, stage=Stage.ENDED, note=said, failure=said, ended_at=at.now())
        at.context.ledger.save_rollout(rollout, to_json(ended), at.now(), is_open=False)
        at.context.ledger.audit(at.now(), at.context.actor, "roll", row.fleet, said)
    hint = (
        f"./goldsmith roll.status {at.fleet.name} shows how far each member came, ./goldsmith roll.reap what is left; "
        f"then ./goldsmith roll.start {at.fleet.name} plans anew"
    )
    return (OutsideError if isinstance(error, OutsideError) else UsageError)(said, hint=hint)


def go_on(at: FleetSession) -> tuple[Outcome, ...]:
    """Carry the rollouts that earlier processes left unfinished to their end. Raises as `execute` does."""
    ended = []
    for row in at.context.ledger.open_rollouts(at.fleet.name):
        say(f"{at.fleet.name}: the rollout {row.id} is not over; going on with it")
        ended.append(execute(at, ordered(row.order)))
        say(f"{row.id} is over: {ended[-1].state.failure or ended[-1].state.note}")
    return tuple(ended)


def _flows(at: FleetSession, lease: Lease, now: Callable[[], datetime]) -> Mapping[str, Flow]:
    """What a process carries of this fleet."""
    journal = LedgerJournal(at.context.ledger, lease, at.context.actor, now, notifier(at.context.settings))
    many = together if at.fleet.kind is FleetKind.DOCKER else one_by_one
    world = World(at.members, journal, PresentJudge(at), now, many, at.groups)
    return flows(world)
