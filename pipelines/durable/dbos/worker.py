"""A process that executes flows, and the port as those flows see it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError
from concurrent.futures import wait as wait_for
from contextlib import closing, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from dbos import DBOS, SetWorkflowAttributes, SetWorkflowID, WorkflowHandleAsync, error
from sqlalchemy.exc import SQLAlchemyError

from hardening.foundation.errors import GoldsmithError, OutsideError, RefusedError, UsageError
from pipelines.durable.dbos.queue import NEEDS, WorkQueue
from pipelines.durable.dbos.sharing import Capacity, Sharing
from pipelines.durable.dbos.system_database import (
    POLL_SECONDS,
    SCHEMA,
    WAKE,
    Claim,
    RoomOnDisk,
    claimed,
    configured,
    given_up,
    listed,
    within,
)
from pipelines.durable.port import BugError, Child, FencedError, Flow, Json, WorkflowEngine, recorded
from pipelines.durable.roster import SHARED, Roster, failing_as_outside
from pipelines.durable.workers import LostError, Reaper

T = TypeVar("T")
Flows = Mapping[str, Flow]
NO_LIMITS: Mapping[str, int] = {}
Body = Callable[[Json], Coroutine[Any, Any, Json]]

RECORDING_LOOKS = 50  # some seconds; what is not recorded by then, the next process does
LEAVE_SECONDS = 60
LOST_SECONDS = 5  # who lost the work waits no longer for what it had begun: others wait for its locks
BROKEN = ("ERROR", "CANCELLED")
VERSION = "10"  # a flow whose steps or records changed needs another, and is carried to its end by the old one


class Worker:
    """A process that executes flows: `with Worker.launched(…) as worker`."""

    def __init__(
        self,
        work_queue: WorkQueue,
        flows: Flows,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], datetime],
        offer: Capacity | None = None,
        at_once: Mapping[str, int] = NO_LIMITS,
    ) -> None:
        self._work_queue = work_queue
        self.sharing = Sharing(work_queue, offer)
        self.now = now
        self._loop = loop
        self._limits = {flow: asyncio.Semaphore(most) for flow, most in at_once.items()}
        self._bodies = {flow: self._registered(flow, body) for flow, body in flows.items()}
        self._carried = 0
        self._running_steps = 0
        self._leaving = False
        self._hurries = False
        self.unfinished: tuple[str, ...] = ()  # after the block: the flows of which a step goes on all the same
        self.leave_seconds: float = LEAVE_SECONDS
        self._lost: Future[None] = Future()
        self._gave_up = False
        self._fenced: set[str] = set()
        self._own = ""
        self._changed = threading.Condition()

    @classmethod
    @contextmanager
    def launched(
        cls,
        where: str | Claim,
        flows: Flows,
        *,
        kind: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        offer: Capacity | None = None,
        at_once: Mapping[str, int] = NO_LIMITS,
        only_asked: Collection[str] = (),
    ) -> Iterator[Worker]:
        """Carry `flows` from the engine's database, by its URL or our claim there, while the block runs; those of dead
        processes included.

        A block that ends well drains first: what this process carries runs to its end. One that an exception ends
        leaves as soon as no step acts; the flows stay for the next process. Flows of another `kind` or version are left
        alone. `now` is the clock that flows see; `at_once` says how many flows of a name run side by side here. With an
        `offer` it also takes flows with needs, its own and those of other processes of its kind. Those of `flows` that
        are `only_asked` are taken from the dead when they are executed, and not before.

        Raises RefusedError while another process has the SQLite file, OutsideError where the database fails.
        """
        version = f"{VERSION} {kind}".strip()
        claim = claimed(where) if isinstance(where, str) else nullcontext(where)
        with (
            claim as ours,
            _own_loop() as loop,
            configured(ours.url, ours.name, version),
            closing(Roster(ours.url, SCHEMA)) as roster,
        ):
            work_queue = WorkQueue(ours.name, version, tuple(flows), roster, ours.locks.alone, only_asked)
            worker = cls(work_queue, flows, loop, now, offer, at_once)
            with failing_as_outside(ours.url):
                asyncio.run_coroutine_threadsafe(_launch(), loop).result()
                work_queue.open()
            reaper = Reaper(ours.name, ours.locks, work_queue.holders, work_queue.inherit, work_queue.restore)
            try:
                with reaper.at_work():
                    try:
                        with RoomOnDisk(ours.url, worker.give_up).awaited():
                            try:
                                with worker.sharing.at_work(), failing_as_outside(ours.url):
                                    yield worker
                                worker.drain()
                            finally:
                                worker._leave()
                                asyncio.run_coroutine_threadsafe(_forget_all(), loop).result()
                    finally:
                        worker.unfinished = worker.sharing.leave()
            finally:
                with suppress(OutsideError), failing_as_outside(ours.url):
                    work_queue.close()

    def execute(self, flow: str, flow_id: str, argument: Json) -> Json:
        """Run `flow` to its end under `flow_id` and give its answer; one that exists there goes on, or has ended.

        What another process carries of it is taken over: who calls this has made sure that it may, as by a lease.

        Raises the GoldsmithError that ended it, OutsideError for one that was given up, UsageError where another flow
        has this id, RefusedError where another version of ours began it or one that is `only_asked` is a living
        process's, LostError as soon as this process may do nothing more with it.
        """
        if self._work_queue.is_of_another_version(flow_id):
            what = f"another version of Goldsmith began {flow_id}, and this one takes other steps"
            raise RefusedError(what, hint="let that version finish it")
        with self._changed:
            self._own = flow_id
            if any(within(one, flow_id) for one in self._fenced):
                self.lose()
        self._work_queue.take(flow_id)
        try:
            self.begin(flow, flow_id, argument)
        except error.DBOSConflictingWorkflowError as conflict:
            raise UsageError(f"{flow_id} is the id of another flow", evidence=str(conflict)) from None
        answer = asyncio.run_coroutine_threadsafe(_answer(flow_id), self._loop)
        wait_for([answer, self._lost], return_when=FIRST_COMPLETED)
        if self._lost.done():
            self.leave_seconds = LOST_SECONDS
            answer.cancel()
            self._lost.result()
            raise LostError(f"{flow_id} no longer belongs to this process: another one may be executing it")
        try:
            return answer.result()
        except error.DBOSAwaitedWorkflowCancelledError:
            raise _why_given_up(flow_id) from None

    def begin(self, flow: str, flow_id: str, argument: Json) -> None:
        """Start a flow that nobody here waits for, or find it."""
        asyncio.run_coroutine_threadsafe(self.start(flow, flow_id, argument), self._loop).result()

    def lose(self) -> None:
        """Tell whoever waits for what this process carries that it may do nothing more; from any thread."""
        with suppress(InvalidStateError):  # it was told already
            self._lost.set_result(None)

    def give_up(self, why: OutsideError) -> None:
        """Let whoever waits for what this process carries fail so; the flows stay for the next one."""
        self._gave_up = True
        with suppress(InvalidStateError):
            self._lost.set_exception(why)

    def fenced(self, flow_id: str) -> None:
        """A step of this flow may not act. What stands on it can never end here."""
        with self._changed:
            self._fenced.add(flow_id)
            own = bool(self._own) and within(flow_id, self._own)
        if own:
            self.lose()

    def broke_off(self, flow_id: str) -> bool:
        """Whether the flow has ended for good without an answer; what it had started then ends as well."""
        found = listed(DBOS, workflow_ids=[flow_id])
        broken = bool(found) and found[0].status in BROKEN
        if broken:
            self._work_queue.abandon(flow_id)
        return broken

    def drain(self) -> None:
        """Wait until this process carries no flow, and the end of each is recorded, which takes a moment more."""
        for _ in range(RECORDING_LOOKS):
            with self._changed:
                self._changed.wait_for(lambda: not self._carried)
            if not self._work_queue.holds():
                return
            time.sleep(POLL_SECONDS)

    def _leave(self) -> None:
        """Let no step begin any more, and those that act end; one that does not is left as a dead process leaves it."""
        with self._changed:
            self._leaving = True
            until = time.monotonic() + self.leave_seconds
            while self._running_steps and not self._hurries and time.monotonic() < until:
                self._changed.wait(timeout=POLL_SECONDS)

    def hurry(self) -> None:
        """Let leaving wait for no step; from a signal's handler."""
        self._hurries = True

    @property
    def acts(self) -> bool:
        """Whether a step goes on in this process."""
        return self._running_steps > 0

    def _registered(self, name: str, flow: Flow) -> Body:
        async def body(argument: Json) -> Json:
            flow_id = DBOS.workflow_id or ""
            async with self._limits.get(name) or nullcontext():
                with self._executing(flow_id), self._failing_alone(flow_id):
                    return recorded(await flow(_Engine(self, flow_id), argument))

        return DBOS.workflow(name=name, max_recovery_attempts=None)(body)

    @contextmanager
    def _failing_alone(self, flow_id: str) -> Iterator[None]:
        """What cannot be recorded, once this process gave up, ends its execution of the flow and not the flow, for
        which a record of that may well have room.
        """
        try:
            yield
        except SQLAlchemyError:
            if not self._gave_up:
                raise
            raise error.DBOSWorkflowConflictIDError(flow_id) from None

    async def start(self, flow: str, flow_id: str, argument: Json) -> WorkflowHandleAsync[Json]:
        """Start a flow, or find it."""
        with SetWorkflowID(flow_id):
            return await DBOS.start_workflow_async(self._bodies[flow], recorded(argument))

    async def share(self, flow: str, flow_id: str, argument: Json, needs: Sequence[str]) -> WorkflowHandleAsync[Json]:
        """Let any worker have a flow that has what it needs, or find it."""
        self.sharing.lend(flow_id, needs)
        with SetWorkflowID(flow_id), SetWorkflowAttributes({NEEDS: sorted(needs)}):
            return await DBOS.enqueue_workflow_async(SHARED, self._bodies[flow], recorded(argument))

    async def act(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await `call`, which may act; parked for good where the process is leaving."""
        with self._changed:
            self._running_steps += not self._leaving
            leaving = self._leaving
        if leaving:
            await asyncio.Event().wait()
        try:
            return await call()
        finally:
            with self._changed:
                self._running_steps -= 1
                self._changed.notify_all()

    @contextmanager
    def _executing(self, flow_id: str) -> Iterator[None]:
        with self._changed:
            self._carried += 1
        self.sharing.begins(flow_id)
        try:
            yield
        finally:
            if not self._leaving:  # what was forgotten then is not over
                self.sharing.is_over(flow_id)
            with self._changed:
                self._carried -= 1
                self._changed.notify_all()


class _Engine(WorkflowEngine):
    """The port, on DBOS."""

    def __init__(self, worker: Worker, flow_id: str) -> None:
        self._worker = worker
        self.id = flow_id

    async def now(self) -> datetime:
        return datetime.fromisoformat(await self.step("now", lambda: self._worker.now().isoformat()))

    async def step(self, name: str, act: Callable[[], T]) -> T:
        taken = self._worker.sharing.taken(self.id)

        def acted() -> T:
            try:
                with self._worker.sharing.step(taken, name) if taken else nullcontext():
                    return recorded(act())  # type: ignore[no-any-return]
            except GoldsmithError as failure:
                raise recorded(failure) from failure

        try:
            return await self._worker.act(lambda: DBOS.run_step_async({"name": name}, acted))
        except FencedError:
            self._worker.fenced(self.id)
            # DBOS drops an execution that has lost its flow, and waits for what its owner makes of it.
            raise error.DBOSWorkflowConflictIDError(self.id) from None

    async def wait(self, span: timedelta) -> bool:
        return await DBOS.recv_async(WAKE, timeout_seconds=max(0.0, span.total_seconds())) is not None

    async def child(self, key: str, flow: str, argument: Json, *, of: str = "", needs: Sequence[str] = ()) -> Child:
        name = f"{of or self.id}/{key}"
        if needs:
            return _Child(name, await self._worker.share(flow, name, argument, needs), self._worker.sharing)
        return _Child(name, await self._worker.start(flow, name, argument), self._worker.sharing)


class _Child(Child):
    def __init__(self, flow_id: str, handle: WorkflowHandleAsync[Json], sharing: Sharing) -> None:
        self._id = flow_id
        self._handle = handle
        self._sharing = sharing

    async def result(self) -> Json:
        try:
            return await self._handle.get_result(polling_interval_sec=POLL_SECONDS)
        except error.DBOSAwaitedWorkflowCancelledError:
            # Off the flow: what it asks DBOS itself would be recorded as a step of it.
            raise await asyncio.get_running_loop().run_in_executor(None, _why_given_up, self._id) from None
        except (GoldsmithError, BugError, error.DBOSException, SQLAlchemyError):
            raise
        except Exception as bug:  # DBOS gives what runs here as it was raised, and all else as it was recorded
            raise recorded(bug) from bug
        finally:
            self._sharing.ended(self._id)


@contextmanager
def _own_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The loop that flows run on.

    Not DBOS's own: that one, when it ends, has a flow that was started from another thread recorded as failed.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="flows", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _launch() -> None:
    """DBOS runs flows on the loop that it is launched on."""
    DBOS.launch()


async def _forget_all() -> None:
    """End what still runs on this loop, as the end of the process would: nothing of it is recorded."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _answer(flow_id: str) -> Json:
    """What a flow answers; asked of the database, as another process may be the one that ends it."""
    handle: WorkflowHandleAsync[Json] = await DBOS.retrieve_workflow_async(flow_id)
    return await handle.get_result(polling_interval_sec=POLL_SECONDS)


def _why_given_up(flow_id: str) -> OutsideError:
    found = listed(DBOS, workflow_ids=[flow_id])
    return given_up(flow_id, found[0].attributes if found else None)
