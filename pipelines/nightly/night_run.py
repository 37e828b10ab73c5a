"""Begins a night and completes it, after those that an earlier process left: lock, engine, ledger. Edge."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from secrets import token_hex

from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, UsageError
from hardening.foundation.locks import only_one
from hardening.foundation.process import LEAVE_SECONDS, stop_running
from images.context import Context
from images.documents import from_json, to_json
from images.ledger import Night
from pipelines.cli.image import publishable
from pipelines.contract import NightlyOutput
from pipelines.durable.dbos import VERSION, Claim, Worker, abandon, claimed, engine_url, forget, is_carried
from pipelines.durable.workers import repeated
from pipelines.host.capabilities import offer_when_needed, shares
from pipelines.nightly.clock import jump_since_last
from pipelines.nightly.flow import flows
from pipelines.nightly.model import (
    FLEET,
    GIVEN_UP_AFTER,
    IMAGE,
    NIGHT,
    NIGHT_LOCK,
    OF_THE_NIGHT,
    NightOrder,
    NightRecord,
)
from pipelines.nightly.preflight import require_ready
from pipelines.nightly.stages import WorldStages, here
from pipelines.nightly.summary import output, refused_together
from pipelines.rollout.service import steady_clock

Failures = list[GoldsmithError]
KIND = "nightly"
STOP_SECONDS = 0.5
KEPT = timedelta(days=30)
FORGOTTEN_AT_ONCE = 200  # a database asks for no more in one statement; the next night goes on


def nightly(context: Context, only: str = "all", *, urgent: bool = False) -> tuple[NightlyOutput, Failures]:
    """Run the night as one durable flow; what fails stops what stands on it and nothing else.

    A night that an earlier process left is carried to its end first. `only` restricts it to some images, and whatever
    they stand on; `urgent` to those that an exploited or critical hole can be fixed in.
    The exit code is the highest of all failures: 2 content wrong, 3 refused by a policy, 4 the outside failed.
    Raises before anything is done: as `require_ready` does, ContentError where `only` names nothing, and RefusedError
    where another night is under way on this machine.
    """
    context = replace(context, lenient=True)
    with only_one(context.settings.state_dir / NIGHT_LOCK, "nightly"):
        publishable(context, only)
        require_ready(context)
        with claimed(engine_url(context.settings.database_url, KIND)) as claim, context.ledger.kept_open():
            left = _left(context, claim)
            _forget_old(context, claim)
            jump = jump_since_last(context.settings.state_dir)
            order = NightOrder(_new_id(context.now), context.now, only, context.policy, urgent, jump)
            with _worker(context, claim) as worker:
                for earlier in left:
                    _go_on(context, worker, earlier)
                context.ledger.begin_night(
                    Night(order.id, here(context), VERSION, to_json(order), open=True, begun_at=context.now)
                )
                record = _carried(context, worker, order)
    return output(record, [one.id for one in left]), refused_together(record.errors, context.parents)


def _new_id(now: datetime) -> str:
    return f"night-{now:%Y%m%d%H%M%S}-{token_hex(3)}"


def _left(context: Context, claim: Claim) -> list[NightOrder]:
    """The nights of this machine that are not over, and that can be continued. All others are abandoned.

    Those of other machines too that came too late and that nobody carries: their machine may never come back.
    """
    found = list[NightOrder]()
    for night in context.ledger.open_nights():
        old = abs(context.now - night.begun_at) > GIVEN_UP_AFTER
        if night.host != here(context) and not (old and not is_carried(claim, night.id)):
            continue
        if why := _too_late(context, night):
            abandon(claim.url, night.id)
            context.ledger.end_night(night.id)
            context.ledger.audit(context.now, context.actor, "nightly", night.id, f"abandoned: {why}")
            say(f"{night.id} is abandoned: {why}")
        else:
            found.append(from_json(NightOrder, night.order))
    return found


def _forget_old(context: Context, claim: Claim) -> None:
    """Forget the nights that began long ago and are over: their reports and the audit stay."""
    if old := context.ledger.ended_nights(context.now - KEPT, FORGOTTEN_AT_ONCE):
        forget(claim.url, old)
        context.ledger.forget_nights(old)


def _too_late(context: Context, night: Night) -> str:
    if night.version != VERSION:
        return "another version of Goldsmith began it"
    age, began = context.now - night.begun_at, f"it began on {night.begun_at:%Y-%m-%d %H:%M} UTC"
    if age < -GIVEN_UP_AFTER:  # all that it publishes would be dated by that
        return f"{began}, which is in the future: the clock was wrong then, or is now"
    return f"{began}, and a new night knows more" if age > GIVEN_UP_AFTER else ""


@contextmanager
def _worker(context: Context, claim: Claim) -> Iterator[Worker]:
    """What carries the flows of nights here, so many images and fleets side by side as the settings say.

    Who stops us (Ctrl-C) waits for no command: each is ended, also those that a step begins after that. Only what rolls
    a fleet is asked to end, and ended once we leave.
    """
    now, interrupted = steady_clock(context.now), threading.Event()
    fleets = {FLEET: context.settings.nightly.parallel}
    limit = {IMAGE: context.settings.parallel, **fleets}

    def stop() -> None:
        if interrupted.is_set():
            stop_running(asks=True)

    ours = replace(offer_when_needed(context.settings), apart=fleets) if shares(context.settings) else None
    launched = Worker.launched(
        claim, flows(WorldStages(context)), kind=KIND, now=now, at_once=limit, offer=ours, only_asked=OF_THE_NIGHT
    )
    try:
        with repeated("interrupt", stop, STOP_SECONDS), launched as worker:
            try:
                yield worker
            except KeyboardInterrupt:
                interrupted.set()
                worker.leave_seconds = LEAVE_SECONDS
                stop()
                raise
    finally:
        if interrupted.is_set():  # as many as did not end in their time, or before that was said again
            stop_running()


def _go_on(context: Context, worker: Worker, order: NightOrder) -> None:
    say(f"{order.id}, of {order.started_at:%Y-%m-%d %H:%M} UTC, is not over; going on with it")
    try:
        record = _carried(context, worker, order)
    except GoldsmithError as error:
        say(f"{order.id} broke off: {error.message}")
        return
    say(f"{order.id} is over: {output(record).summary}; exit code {record.exit_code}")


def _carried(context: Context, worker: Worker, order: NightOrder) -> NightRecord:
    """Carry a night to its end. One that breaks off can never be continued, and is over too."""
    try:
        answer = worker.execute(NIGHT, order.id, to_json(order))
    except Exception as error:
        if worker.broke_off(order.id):
            said = f"broke off: {error.message if isinstance(error, GoldsmithError) else error}"
            context.ledger.end_night(order.id)
            context.ledger.audit(context.now, context.actor, "nightly", order.id, said)
            if not isinstance(error, GoldsmithError):
                raise UsageError(f"{order.id} {said}", hint="report this; the next nightly starts over") from error
        raise
    context.ledger.end_night(order.id)
    return from_json(NightRecord, answer)
