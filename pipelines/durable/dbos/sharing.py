"""One process's part in shared work: it takes flows whose needs it meets, and reports flows that no worker can run."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path

from dbos import WorkflowStatus

from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, OutsideError
from hardening.foundation.limits import BUILD_SECONDS
from hardening.foundation.locks import one_of
from hardening.foundation.retrying import retrying
from pipelines.durable.dbos.queue import WorkQueue, is_suspect, needs_of
from pipelines.durable.dbos.system_database import holder_of
from pipelines.durable.port import CONTENT
from pipelines.durable.roster import SHARED, Roster, WorkerRow, WorkRow
from pipelines.durable.transcript import Transcript, log_file, remove_old
from pipelines.durable.workers import repeated

LOOK_SECONDS = 0.25
TELL_SECONDS = 3.0  # how often it is told who is there, and asked whether somebody has what our flows need
LACK_SECONDS = 600.0  # after which a flow ends that no living worker has the needs of
BEGIN_SECONDS = 60.0  # within which a flow begins that was taken
QUIET_SECONDS = 600.0  # after which the worker is named that has to go on before anything of ours does
STUCK_SECONDS = BUILD_SECONDS.most + 3600.0  # after which flows end of which none went on
APART_SECONDS = 26 * 3600.0  # the same where one of them waits more than it works, such as for a window: up to a day
TIDY_SECONDS = 86400.0
PATIENCE = timedelta(minutes=10)  # for a database that restarts under a step


@dataclass(frozen=True)
class Capacity:
    """What a process offers to flows with needs: its capabilities, and at most so many flows at a time.

    The capabilities are asked again while flows wait, since content changes; with `when_needed` not before any does.
    `on_host` places in the folder `places` are all that the machine has, for every process of it that names the same
    folder. Of flows in `apart`, which wait more than they work, so many of a name are taken beside these, without a
    place. The flows' logs lie in the folder `logs`.
    """

    capabilities: Callable[[], frozenset[str]]
    parallel: int
    on_host: int
    places: Path
    logs: Path
    when_needed: bool = False
    apart: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Taken:
    """A flow with needs that this process runs: its log, and how to free its place. `suspect`: it may kill us."""

    flow: str
    name: str
    transcript: Transcript
    give_back: Callable[[], None]
    suspect: bool
    step: str = ""
    begun: bool = False
    since: float = field(default_factory=time.monotonic)


class Sharing:
    """What one process shares, and what it has taken from others."""

    def __init__(self, queue: WorkQueue, offer: Capacity | None) -> None:
        self._queue = queue
        self._offer = offer
        self._taken: dict[str, Taken] = {}
        self._over: list[Taken] = []
        self._lent: dict[str, tuple[str, ...]] = {}
        self._lacking: dict[tuple[str, ...], float] = {}
        self._said: set[str] = set()
        self._offered: frozenset[str] | None = None
        self._asked_at = self._told_at = self._tidied_at = self._rests_until = -math.inf
        self._seen: tuple[object, float] = (None, -math.inf)  # how far our flows are, and since when
        self._takes = offer is not None

    @property
    def _roster(self) -> Roster:
        return self._queue.roster

    @cached_property
    def _row(self) -> WorkerRow:
        parallel = self._offer.parallel if self._offer else 0
        return WorkerRow(self._queue.worker, platform.node(), os.getpid(), self._queue.version, (), parallel)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Take what fits, keep the logs, and tell what lacks, while the block runs."""
        if self._offer and not self._offer.when_needed:
            self._ask(self._offer)
        try:
            with repeated("sharing", self.look, LOOK_SECONDS):
                yield
        finally:
            self._takes = False

    def look(self) -> None:
        """One look. What fails, such as a database that is away, is said once, and tried again at the next one."""
        for part in (self._give_back, self._take, self._keep_logs, self._tell, self._tidy):
            try:
                part()
            except Exception as error:  # nobody would see it end this thread
                what = error.message if isinstance(error, GoldsmithError) else f"{type(error).__name__}: {error}"
                self._say_once(f"sharing work: {what}")

    def _say_once(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            say(what)

    def stop(self) -> None:
        """Take nothing more."""
        self._takes = False

    def idle(self) -> bool:
        """Whether nothing is taken, and nothing waits that could be."""
        return not self._taken and not any(self._fits(flow) for flow in self._known())

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
        if time.monotonic() - self._told_at < TELL_SECONDS:
            return
        self._told_at = time.monotonic()
        if self._offered is not None:
            self._announce(self._offered)
        if not self._lent or (self._offer and self._asked_at == -math.inf):  # it is not known yet what we can
            return
        waiting: dict[tuple[str, ...], list[str]] = {}
        lent = self._queue.still_open(tuple(self._lent))
        for flow in lent:
            if holder_of(flow) == SHARED:
                waiting.setdefault(needs_of(flow), []).append(flow.workflow_id)
        living = self._roster.living()
        for needs in (*waiting, *(self._lacking.keys() - waiting.keys())):
            self._look_for(needs, waiting.get(needs, ()), living)
        self._watch(lent)

    def _watch(self, lent: Sequence[WorkflowStatus]) -> None:
        """Name what holds flows of ours up where none of them goes on, and end them where that lasts."""
        works = self._roster.work([flow.workflow_id for flow in lent])
        steps = {name: (work.step, work.since) for name, work in works.items() if work.step}
        if (state := ({flow.workflow_id for flow in lent}, steps)) != self._seen[0]:
            self._seen = state, time.monotonic()
        quiet = time.monotonic() - self._seen[1]
        apart = self._offer and any(flow.name in self._offer.apart for flow in lent)
        for flow in lent if quiet >= QUIET_SECONDS else ():
            what = held_up(flow, works.get(flow.workflow_id))
            self._say_once(what)
            if quiet >= (APART_SECONDS if apart else STUCK_SECONDS):
                self._queue.give_up(flow.workflow_id, what)

    def _look_for(self, needs: tuple[str, ...], flows: Sequence[str], living: Iterable[WorkerRow]) -> None:
        """Tell once that no living worker has what `flows` of ours need, and end them where that lasts."""
        ours, wanted = _but_content(needs), set(needs)
        able = [row for row in living if ours <= set(row.capabilities)]
        fitting = [row for row in able if row.name == self._queue.worker or wanted <= set(row.capabilities)]
        if any(row.version == self._queue.version for row in fitting):
            self._lacking.pop(needs, None)
            return
        told = partial(
            lacking, needs=needs, alone=self._queue.alone, outdated=bool(fitting), other_content=bool(able)
        )  # fmt: skip
        since = self._lacking.get(needs, time.monotonic())
        if needs not in self._lacking and flows:
            self._lacking[needs] = since
            say(told(flows[0]))
        elif time.monotonic() - since >= LACK_SECONDS:
            for flow in flows:
                self._queue.give_up(flow, told(flow))

    def _announce(self, capabilities: Iterable[str]) -> None:
        self._roster.announce(replace(self._row, capabilities=tuple(sorted(capabilities))))

    def _ask(self, offer: Capacity) -> None:
        """Find what we can, and say so."""
        self._asked_at = time.monotonic()
        try:
            self._offered = offer.capabilities()
        except BaseException:
            self._offered = None
            raise
        self._announce(self._offered)

    def _tidy(self) -> None:
        """Once a day, remove logs, rows and flows of what ended long ago."""
        if time.monotonic() - self._tidied_at < TIDY_SECONDS:
            return
        self._tidied_at = time.monotonic()
        if self._offer:
            remove_old(self._offer.logs)
        self._roster.forget(self._queue.worker)
        self._queue.forget()

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

    def begins(self, flow: str) -> None:
        """It runs here."""
        if taken := self._taken.get(flow):
            taken.begun = True

    def _give_back(self) -> None:
        """Let others have what we took and did not begin, and for as long take nothing that they could take."""
        for taken in tuple(self._taken.values()):
            if taken.begun or time.monotonic() - taken.since < BEGIN_SECONDS:
                continue
            if self._roster.unclaim(taken.flow, self._queue.worker):
                self._rests_until = time.monotonic() + BEGIN_SECONDS
                say(f"{taken.flow} did not begin here within {BEGIN_SECONDS:g} s; any worker may take it")
                self.is_over(taken.flow)
            elif not self._queue.has(taken.flow) and not taken.begun:  # what is ours still is about to begin
                self.is_over(taken.flow)

    @contextmanager
    def step(self, taken: Taken, name: str) -> Iterator[None]:
        """Do a step of a flow that was taken: a death in it counts, and what is said in it stands in its log."""
        with taken.transcript.step(name):
            self._mark(taken, name)
            try:
                yield
            finally:
                with suppress(OutsideError):  # what is done is done, whoever knows it
                    self._mark(taken, "")

    def _mark(self, taken: Taken, step: str) -> None:
        taken.step = step
        retrying(lambda: self._roster.mark(taken.flow, step, self._queue.worker), within=PATIENCE, attempts=None)

    def _take(self) -> None:
        offer = self._offer
        if not offer or not self._takes or time.monotonic() < self._rests_until:
            return
        if not any(self._has_room(offer, name) for name in self._queue.known):
            return
        if not (waiting := self._known()):
            return
        if time.monotonic() - self._asked_at >= TELL_SECONDS:
            self._ask(offer)
        for flow in waiting:
            if not self._has_room(offer, flow.name) or not self._fits(flow) or not self._may_be_beside(flow):
                continue
            give_back = one_of(offer.places, offer.on_host) if flow.name not in offer.apart else lambda: None
            if give_back and not self._claim(flow, give_back, offer.logs):
                give_back()

    def _has_room(self, offer: Capacity, name: str) -> bool:
        """Whether one more flow of this name may run here."""
        names = [taken.name for taken in tuple(self._taken.values())]
        if name in offer.apart:
            return names.count(name) < offer.apart[name]
        return sum(one not in offer.apart for one in names) < offer.parallel

    def _known(self) -> list[WorkflowStatus]:
        """What waits that we could execute, and do not."""
        return [
            flow for flow in self._queue.waiting()
            if flow.name in self._queue.known and flow.workflow_id not in self._taken
        ]  # fmt: skip

    def _may_be_beside(self, flow: WorkflowStatus) -> bool:
        """What may kill us runs alone: nothing else is to die with it twice."""
        return not self._taken or not (is_suspect(flow) or any(one.suspect for one in tuple(self._taken.values())))

    def _claim(self, flow: WorkflowStatus, give_back: Callable[[], None], logs: Path) -> bool:
        file = log_file(logs, flow.workflow_id)
        taken = Taken(flow.workflow_id, flow.name, Transcript(file), give_back, is_suspect(flow))
        self._taken[flow.workflow_id] = taken  # before its claim, after which it may begin at any moment
        row = WorkRow(flow.workflow_id, self._queue.worker, self._row.host, str(file))
        try:
            claimed = self._roster.claim(row)
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
        """Whether we can execute it. Our own were planned with what we have, whatever the files say by now."""
        needs = needs_of(flow)
        wanted = _but_content(needs) if flow.workflow_id in self._lent else set(needs)
        return wanted <= (self._offered or frozenset())

    def _keep_logs(self) -> None:
        over = list(self._over)
        for taken in (*over, *tuple(self._taken.values())):
            taken.transcript.keep(partial(self._roster.keep_log, taken.flow))
        del self._over[: len(over)]


def _but_content(needs: Iterable[str]) -> set[str]:
    return {need for need in needs if not need.startswith(CONTENT)}


def held_up(flow: WorkflowStatus, work: WorkRow | None) -> str:
    """Describe a flow that does not go on. `work`: the worker that has it, if one has."""
    if work is None or holder_of(flow) == SHARED:
        return f"{flow.workflow_id} still waits for a free worker with {', '.join(needs_of(flow))}"
    does = f"is in its step {work.step}" if work.step else "does no step of it"
    since = datetime.fromtimestamp(work.since, UTC)
    return (
        f"{flow.workflow_id} still waits for {work.worker} on {work.host}, which {does} since "
        f"{since:%Y-%m-%d %H:%M} UTC; its log there is {work.file}"
    )


def lacking(flow: str, *, needs: Sequence[str], alone: bool, outdated: bool, other_content: bool) -> str:
    """What is said when a flow waits for what no living worker of our version has: we are `alone`, or those that could
    take it are `outdated`, or have other content.
    """
    what = f"{flow} waits for a worker with {', '.join(needs)}"
    if outdated:
        return f"{what}: one that has that runs another version of Goldsmith; update it, and start it again"
    if other_content:
        return f"{what}, and no worker has this content: bring the checkout of one to the same revision"
    what = f"{what}, and none that lives has that: on a machine that does, "
    if alone:
        return f"{what}run this command; or set `database` to a PostgreSQL, which ./goldsmith worker there can share"
    return f"{what}./goldsmith worker with the same `database` adds one"
