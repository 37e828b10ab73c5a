"""One process's part in shared work: it takes flows whose needs it has, and tells when nobody has what its own need."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from dbos import WorkflowStatus

from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError
from hardening.foundation.locks import one_of
from hardening.foundation.retrying import retrying
from pipelines.durable.dbos.queue import WorkQueue, needs_of
from pipelines.durable.roster import Roster, WorkerRow, WorkRow
from pipelines.durable.transcript import Transcript, log_file, remove_old
from pipelines.durable.workers import repeated

LOOK_SECONDS = 0.25
TELL_SECONDS = 3.0  # how often it is told who is there, and asked whether somebody has what our flows need
PATIENCE = timedelta(minutes=10)  # for a database that restarts under a step


@dataclass(frozen=True)
class Capacity:
    """What a process offers to flows with needs: its capabilities, and at most so many flows at a time.

    `on_host` places in the folder `places` are all that the machine has, for every process of it that names the same
    folder. The flows' logs lie in the folder `logs`.
    """

    capabilities: frozenset[str]
    parallel: int
    on_host: int
    places: Path
    logs: Path


@dataclass
class Taken:
    """A flow with needs that this process runs: its log, and what gives its place back."""

    flow: str
    name: str
    transcript: Transcript
    give_back: Callable[[], None]
    step: str = ""


class Sharing:
    """What is shared by one process, and what it has taken from others."""

    def __init__(self, queue: WorkQueue, offer: Capacity | None) -> None:
        self._queue = queue
        self._offer = offer
        self._taken: dict[str, Taken] = {}
        self._over: list[Taken] = []
        self._lent: dict[str, tuple[str, ...]] = {}
        self._lacking: set[tuple[str, ...]] = set()
        self._told_at = -TELL_SECONDS
        self._takes = offer is not None

    @property
    def _roster(self) -> Roster:
        return self._queue.roster

    @cached_property
    def _row(self) -> WorkerRow:
        offered, parallel = (self._offer.capabilities, self._offer.parallel) if self._offer else ((), 0)
        names = tuple(sorted(offered))
        return WorkerRow(self._queue.worker, platform.node(), os.getpid(), self._queue.version, names, parallel)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Take what fits, keep the logs, and tell what lacks, while the block runs."""
        if self._offer:
            remove_old(self._offer.logs)
            self._roster.announce(self._row)
        try:
            with repeated("sharing", self.look, LOOK_SECONDS):
                yield
        finally:
            self._takes = False

    def look(self) -> None:
        """One look. A database that is away is asked again at the next one; the engine says that it is."""
        try:
            if self._takes:
                self._take()
            self._keep_logs()
            if time.monotonic() - self._told_at >= TELL_SECONDS:
                self._told_at = time.monotonic()
                self._tell()
        except OutsideError:
            return

    def stop(self) -> None:
        """Take nothing more."""
        self._takes = False

    def idle(self) -> bool:
        """Whether nothing is taken, and nothing waits that could be."""
        return not self._taken and not any(self._fits(flow) for flow in self._queue.waiting())

    def leave(self) -> tuple[str, ...]:
        """Hand back what is between steps. The flows of which a step goes on all the same: others take these when this
        process is gone, and that is no death in their steps.
        """
        busy = tuple(taken.flow for taken in self._taken.values() if taken.step)
        try:
            if busy:
                self._roster.forgive(self._queue.worker)
            self._keep_logs()
            self._queue.requeue(self._taken.keys() - set(busy))
            if self._offer:
                self._roster.leave(self._queue.worker)
        except OutsideError as error:
            say(f"{error.message}; other workers take what this one had")
        for taken in self._taken.values():
            taken.give_back()
        self._taken.clear()
        return busy

    # -- flows of ours that others may take ----------------------------------------------------------------------------

    def lend(self, flow: str, needs: Sequence[str]) -> None:
        """Remember that a flow of ours waits for a worker."""
        self._lent[flow] = tuple(sorted(needs))

    def ended(self, flow: str) -> None:
        """It is over."""
        self._lent.pop(flow, None)

    def _tell(self) -> None:
        if self._offer:
            self._roster.announce(self._row)
        if not self._lent:
            return
        waiting = {needs_of(flow): flow.workflow_id for flow in self._queue.waiting() if flow.workflow_id in self._lent}
        living = self._roster.living()
        for needs, flow in waiting.items():
            versions = {row.version for row in living if set(needs) <= set(row.capabilities)}
            if self._queue.version in versions:
                self._lacking.discard(needs)
            elif needs not in self._lacking:
                self._lacking.add(needs)
                say(lacking(flow, needs, alone=self._queue.alone, outdated=bool(versions)))

    # -- flows that we take --------------------------------------------------------------------------------------------

    def taken(self, flow: str) -> Taken | None:
        """The flow, where it has needs and is ours."""
        return self._taken.get(flow)

    def is_over(self, flow: str) -> None:
        """It does not run here any more: its place is free."""
        if taken := self._taken.pop(flow, None):
            taken.transcript.write("over on this worker")
            self._over.append(taken)  # the thread that looks keeps the rest of its log
            taken.give_back()

    @contextmanager
    def step(self, taken: Taken, name: str) -> Iterator[None]:
        """Do a step of a flow that was taken: a death in it counts, and what is said in it stands in its log."""
        with taken.transcript.step(name):
            self._mark(taken, name)
            try:
                yield
            finally:
                self._mark(taken, "")

    def _mark(self, taken: Taken, step: str) -> None:
        taken.step = step
        retrying(lambda: self._roster.mark(taken.flow, step), within=PATIENCE, attempts=None)

    def _take(self) -> None:
        fitting = [flow for flow in self._queue.waiting() if self._fits(flow)]
        for flow in fitting:
            if self._offer is None or len(self._taken) >= self._offer.parallel:
                return
            give_back = one_of(self._offer.places, self._offer.on_host)
            if give_back is None:
                return
            if not self._claim(flow, give_back, self._offer.logs):
                give_back()

    def _claim(self, flow: WorkflowStatus, give_back: Callable[[], None], logs: Path) -> bool:
        file = log_file(logs, flow.workflow_id)
        taken = Taken(flow.workflow_id, flow.name, Transcript(file), give_back)
        self._taken[flow.workflow_id] = taken  # before its claim, after which it may begin at any moment
        row = WorkRow(flow.workflow_id, self._queue.worker, self._row.host, str(file))
        try:
            claimed = self._roster.claim(row, self._queue.worker)
        except BaseException:
            del self._taken[flow.workflow_id]
            give_back()
            raise
        if claimed:
            taken.transcript.write(f"taken by {self._queue.worker}")
            say(f"{flow.workflow_id}: taken; its log is {file}")
        else:
            del self._taken[flow.workflow_id]
        return claimed

    def _fits(self, flow: WorkflowStatus) -> bool:
        offered: Collection[str] = self._offer.capabilities if self._offer else ()
        return flow.name in self._queue.known and set(needs_of(flow)) <= set(offered)

    def _keep_logs(self) -> None:
        over = list(self._over)
        for taken in (*over, *tuple(self._taken.values())):
            if (log := taken.transcript.news()) is not None:
                self._roster.keep_log(taken.flow, log)
        del self._over[: len(over)]


def lacking(flow: str, needs: Sequence[str], *, alone: bool, outdated: bool) -> str:
    """What is said when a flow waits for what no living worker of our version has; one of another may have it."""
    what = f"{flow} waits for a worker with {', '.join(needs)}"
    if outdated:
        return f"{what}: one that has that runs another version of Goldsmith; update it, and start it again"
    what = f"{what}, and none that lives has that: on a machine that does, "
    if alone:
        return f"{what}run this command; or set `database` to a PostgreSQL, which ./goldsmith worker there can share"
    return f"{what}./goldsmith worker with the same `database` adds one"
