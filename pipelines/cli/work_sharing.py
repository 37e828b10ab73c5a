"""What the tasks on workers call: run shared flows, and show who does what."""

from __future__ import annotations

import math
import os
import signal
import threading
from dataclasses import replace
from datetime import UTC, datetime
from types import FrameType

from hardening.foundation.console import out, print_json, print_table, print_text, say
from hardening.foundation.errors import UsageError
from hardening.foundation.process import stop_running, stop_signals
from hardening.foundation.settings import Settings, load_settings
from images.documents import to_json
from pipelines.contract import Line
from pipelines.durable.dbos import Worker, engine_url
from pipelines.durable.dbos.shared_status import Quarantined, SharedStatus, shared_status
from pipelines.durable.roster import WorkRow
from pipelines.host.capabilities import found, named, offer, shares
from pipelines.nightly.model import FLEET, OF_THE_NIGHT
from pipelines.nightly.night_run import KIND
from pipelines.shared_work import shared_flows
from pipelines.wiring import image_context

LOOK_SECONDS = 0.5
TAIL_LINES = 12
TERMINATED = 128 + signal.SIGTERM


class Signals:
    """At the first signal a worker takes nothing more and finishes what it does; at the second it leaves at once."""

    def __init__(self) -> None:
        self.told = threading.Event()
        self._worker: Worker | None = None

    def attach(self, worker: Worker) -> None:
        """The worker that a second signal tells to hurry."""
        self._worker = worker

    def receive(self, _number: int, _frame: FrameType | None) -> None:
        """A signal has come."""
        if self.told.is_set() and self._worker:
            self._worker.hurry()
        self.told.set()


class ToldToStopError(Exception):
    """A signal ends the worker's block: begun work finishes, other work goes back."""


def serve(capabilities: str = "", parallel: int = 0, *, drain: bool = False) -> int:
    """Execute what other processes share, until a signal, or with `drain` until nothing is left; the exit code.

    Raises UsageError where the database is SQLite's or a capability unknown, and OutsideError.
    """
    settings = load_settings()
    url = _shared_database(settings)
    context = image_context(settings)
    offered = offer(settings, named(capabilities) if capabilities else found(settings), _checked(parallel, settings))
    offered = replace(offered, apart={FLEET: settings.nightly.parallel})
    flows = shared_flows(image_context)
    signals = Signals()
    worker = None
    with stop_signals(signals.receive):
        try:
            with Worker.launched(url, flows, kind=KIND, offer=offered, only_asked=OF_THE_NIGHT) as worker:
                signals.attach(worker)
                worker.leave_seconds = math.inf
                say(f"{context.actor} works: {', '.join(sorted(offered.capabilities()))}; {offered.parallel} at a time")
                _until_told(worker, signals, drain=drain)
        except ToldToStopError:
            pass
    if worker and worker.unfinished:  # told twice: what still runs ends with us, and other workers begin it again
        say("left at once; what ran here begins again on another worker")
        stop_running()
        os._exit(TERMINATED)
    say("left; nothing of this worker is under way")
    return 0


def _until_told(worker: Worker, signals: Signals, *, drain: bool) -> None:
    while not signals.told.wait(LOOK_SECONDS):
        if drain and worker.sharing.idle():
            return
    worker.sharing.stop()
    if worker.acts:
        say("takes nothing more; leaves when the running steps have ended, and at once at a second signal")
    raise ToldToStopError


def _shared_database(settings: Settings) -> str:
    if not shares(settings):
        raise UsageError(
            "workers share a PostgreSQL, and `database` is SQLite, which only one process may use",
            hint="set `database` in goldsmith.toml on every machine: postgresql+psycopg://USER@HOST/NAME",
        )
    return engine_url(settings.database_url, KIND)


def _checked(parallel: int, settings: Settings) -> int:
    if parallel < 0:
        raise UsageError(f"--parallel {parallel}: at least 1")
    if parallel > settings.parallel:
        say(f"this machine's `parallel` is {settings.parallel}, so not {parallel} at a time")
    return parallel


# -- worker.status -----------------------------------------------------------------------------------------------------


class WorkLine(Line):
    """A flow that a worker has: the step it is in (empty: between steps) since when; the log is on its host."""

    flow: str
    step: str
    since: datetime
    seconds: float
    log: str


class WorkerLine(Line):
    """A live worker."""

    name: str
    host: str
    pid: int
    capabilities: tuple[str, ...]
    parallel: int
    since: datetime
    work: tuple[WorkLine, ...]


class QueueLine(Line):
    """Waiting flows with the same needs. `served`: whether a live worker of their version meets all of them."""

    needs: tuple[str, ...]
    waiting: int
    oldest: datetime
    served: bool


class QuarantineLine(Line):
    """A flow that killed its workers in one step: where its whole log is, and the end of it."""

    flow: str
    step: str
    deaths: int
    at: datetime
    host: str
    log: str
    tail: tuple[str, ...]


class WorkerStatus(Line):
    """`worker.status`."""

    workers: tuple[WorkerLine, ...]
    queues: tuple[QueueLine, ...]
    quarantined: tuple[QuarantineLine, ...]


def worker_status() -> WorkerStatus:
    """Who serves, what each does, what waits, and what is quarantined. Raises UsageError for SQLite, OutsideError."""
    return status_of(shared_status(_shared_database(load_settings())), datetime.now(UTC))


def status_of(seen: SharedStatus, now: datetime) -> WorkerStatus:
    """What is printed of it."""
    workers = tuple(
        WorkerLine.of(row, since=_moment(row.since), work=tuple(_work(one, now) for one in seen.taken[row.name]))
        for row in seen.workers
    )
    served = [(row.version, set(row.capabilities)) for row in seen.workers]
    queues = tuple(
        QueueLine(
            needs=needs, waiting=len(since), oldest=_moment(min(since)),
            served=any(version == has and set(needs) <= can for has, can in served),
        )
        for (needs, version), since in sorted(seen.waiting.items())
    )  # fmt: skip
    return WorkerStatus(workers=workers, queues=queues, quarantined=tuple(map(_quarantine, seen.quarantined)))


def _work(row: WorkRow, now: datetime) -> WorkLine:
    since = _moment(row.since)
    seconds = max(0.0, round((now - since).total_seconds(), 1))  # the worker's clock may be ahead of ours
    return WorkLine(flow=row.flow, step=row.step, since=since, seconds=seconds, log=row.file)


def _quarantine(one: Quarantined) -> QuarantineLine:
    tail = tuple(one.work.log.splitlines()[-TAIL_LINES:])
    return QuarantineLine.of(one, at=_moment(one.at), host=one.work.host, log=one.work.file, tail=tail)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def show_workers(status: WorkerStatus, *, as_json: bool) -> None:
    """Print it."""
    if as_json:
        print_json(to_json(status))
        return
    rows = [
        [[row.host, f"process {row.pid}", f"since {row.since:%Y-%m-%d %H:%M}"], list(row.capabilities), _doing(row)]
        for row in status.workers
    ]
    print_table(["worker", "can", "does"], rows, empty="no worker lives; ./goldsmith worker on any machine adds one")
    if status.queues:
        out().print()
        waits = [
            [list(row.needs), str(row.waiting), f"{row.oldest:%Y-%m-%d %H:%M:%S}", "yes" if row.served else "no worker"]
            for row in status.queues
        ]
        print_table(["needs", "waiting", "oldest, UTC", "served"], waits)
    for one in status.quarantined:
        out().print()
        print_text(f"{one.flow} is quarantined: {one.deaths} workers died in its step {one.step}")
        print_text(f"its log is {one.log} on {one.host}; its end:")
        print_text([f"  {line}" for line in one.tail])


def _doing(row: WorkerLine) -> list[str]:
    if not row.work:
        return [f"nothing; {row.parallel} at a time"]
    return [line for one in row.work for line in (one.flow, f"  {one.step or 'between steps'}, {one.seconds:.0f} s")]
