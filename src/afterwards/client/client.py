"""Adding tasks to an engine, and asking about them."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, NamedTuple, Protocol, TypeVar
from weakref import ref

from afterwards import engines, telemetry
from afterwards.client.ids import randomness
from afterwards.client.unawaited import UnawaitedWrites
from afterwards.client.unfinished import not_finished
from afterwards.core.clock_correction import put_back
from afterwards.core.errors import EngineError, NotAsyncio, UnknownTask, WorkerUnfit
from afterwards.core.lifecycle import HOLD, Start, start_at
from afterwards.core.options import Options
from afterwards.core.spans import LONGEST_SPAN
from afterwards.core.task import Lease, NewTask, State, Task, task_id
from afterwards.engine import Claim, Engine, Query
from afterwards.execution.health import Health
from afterwards.execution.plain_runs import PlainRuns

R = TypeVar("R", covariant=True)

FIRST_LOOK, LONGEST_PAUSE = 0.005, 0.25
"""Seconds between two checks of a task whose result is awaited: the first pause, and the limit of its doubling."""


WORKED_OFF = Query(states=frozenset({State.RUNNING, State.SUCCEEDED, State.FAILED}), limit=1)
"""Finds a task that only a worker can have started. Registrations of workers are deleted after a day."""


class LocalWorker(Protocol):
    """The part of this process's worker that senders use: it may start tasks that they store without another write."""

    loop: asyncio.AbstractEventLoop
    """The worker's event loop. No method may be called from another one."""

    def offer(self, tasks: int) -> Claim | None:
        """Reserve slots for tasks about to be stored. None if there are none."""
        ...

    def hold(self, leased: Sequence[Task], offered: Claim) -> None:
        """Keep the leases of tasks that were stored as leased for an offer, until they may start. Ends the offer."""
        ...

    def start(self, lease: Lease) -> bool:
        """Start a held task. Return False if it is no longer held here."""
        ...

    def expect(self, tasks: int) -> None:
        """Claim those of ``tasks`` tasks about to be queued that will begin soon.

        While the queue is not empty, new tasks must be queued, too. With many requests that would affect every task, at
        several times the cost.
        """
        ...

    @property
    def changes(self) -> int:
        """A number that is another one after the worker has begun or ended a task, or got its progress."""
        ...

    def stop(self, task: Task) -> None:
        """Stop a task whose cancellation was requested, if it runs here."""
        ...


class HeldBack(NamedTuple):
    """A stored task that waits for the end of its request, and then possibly for its ``run_at``."""

    lease: Lease
    run_at: datetime | None = None
    due: float | None = None  # the monotonic time of ``run_at``, if the caller asked for a delay

    def start(self, now: datetime) -> Start:
        """Return when it starts: a span if the clock was put back meanwhile, which made the delay longer."""
        if self.run_at is None or self.due is None:
            return self.run_at
        left = timedelta(seconds=max(0.0, self.due - monotonic()))
        return left if put_back(self.run_at - left, now) else self.run_at


class Holding(Protocol):
    """A request that holds back its stored tasks."""

    held: list[HeldBack]


class Client:
    """The engine of one installation: opened on first use, shared by all requests."""

    served = False
    """True once an application that uses it has started: its tasks will be run."""

    _looked = False  # whether it has checked that the store ever had a worker

    def __init__(
        self, url: str, options: Options, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.url = url
        self.options = options
        self.worker: LocalWorker | None = None
        self.health = Health()  # the worker's health
        self.plain_runs = PlainRuns()  # the plain functions that run for its requests
        self.application: ref[Any] | None = None  # the application that adds the tasks
        self.context = copy_context()  # the installation's, in which attempts begin if no lifespan runs
        self.holding: set[Holding] = set()  # requests that currently hold tasks back
        self.unawaited = UnawaitedWrites()
        self._clock = clock
        self._entered: Engine | None = None
        self._entering = 0

    def new_id(self) -> str:
        """Return a new id for a task that is not stored yet."""
        return task_id(self._clock(), randomness.take(10))

    def now(self) -> datetime:
        return self._clock()

    def must_work(self) -> None:
        """Raise WorkerUnfit if added tasks would not run: the request must not be answered with a 2xx."""
        if self.health.trouble is not None:
            raise WorkerUnfit(self.health.trouble)

    @property
    def opened(self) -> bool:
        return self._entered is not None

    async def open(self) -> Engine:
        """Return the engine; open it first unless it is open. The lifespan calls this, else the first task."""
        running_loop()
        engine = engines.shared(self.url)
        if self._entered is not engine:
            self._entered, before = engine, self._entered  # set at once: it is entered only once
            self._entering += 1
            try:
                await engine.__aenter__()
            except BaseException:
                self._entered = before
                raise
            finally:
                self._entering -= 1
        elif self._entering:  # entered by another caller, and a new store can be read only when that is done
            async with engine:
                pass
        return engine

    async def close(self) -> None:
        await self.unawaited.finish()
        engine, self._entered = self._entered, None
        if engine is not None:
            await engine.__aexit__(None, None, None)

    async def enqueue(self, tasks: Sequence[NewTask], *, leased: bool = True) -> list[Task]:
        """Store tasks, all or none. Tasks stored as leased to this process are held by its worker.

        Not ``leased``: none of them is, so a cancel is sure to come before its start.
        """
        running_loop()
        with telemetry.sending(tasks) as sent:
            return await self._enqueue(sent, self._local if leased else None)

    async def _enqueue(self, tasks: Sequence[NewTask], worker: LocalWorker | None) -> list[Task]:
        engine = engines.shared(self.url)
        if self._entered is not engine:
            engine = await self.open()
        if worker is None:
            stored = await engine.enqueue(tasks)
            if self.is_new_to_a_script:
                await self.look_for_workers()
            return stored
        claim = worker.offer(len(tasks))
        leased: list[Task] = []
        try:
            stored = await engine.enqueue(tasks, claim=claim)
            if claim:
                for new, task in zip(tasks, stored, strict=True):
                    if task.id == new.id and task.state is State.RUNNING and task.worker == claim.worker:
                        leased.append(task)
        finally:
            if claim:
                worker.hold(leased, claim)
        return stored

    async def enqueue_now(self, tasks: Sequence[NewTask]) -> list[Task]:
        """Store tasks that wait for no request, all or none. Start those stored as leased to this process."""
        stored = await self.enqueue(tasks)
        for new, task in zip(tasks, stored, strict=True):
            if task.id == new.id:  # else another task stands for it
                self.start(task)
        return stored

    def start(self, stored: Task) -> None:
        """Start a task that was stored as leased to this process."""
        if stored.state is State.RUNNING and (worker := self._local):
            worker.start(stored.lease)

    def start_held(self, held: Sequence[HeldBack]) -> list[HeldBack]:
        """Start the tasks held in this process. Return those to be published."""
        left: list[HeldBack] = []
        worker = self._local
        for one in held:
            if one.run_at is not None or worker is None or not worker.start(one.lease):
                left.append(one)
        return left

    async def publish(self, held: Sequence[HeldBack]) -> None:
        """Queue held tasks, or schedule those with a ``run_at``."""
        engine = await self.open()
        if (at_once := sum(one.run_at is None for one in held)) and (worker := self._local) is not None:
            worker.expect(at_once)
        now = self._clock()
        await engine.publish([(one.lease, one.start(now)) for one in held])

    async def keep_back(self, held: Sequence[HeldBack]) -> None:
        """Hold tasks for another minute: their request has not ended."""
        now = self._clock()
        kept = [(one.lease, HOLD) for one in held if (start_at(one.start(now), now) or now) < now + HOLD]
        if kept:
            await (await self.open()).publish(kept)

    async def get(self, id: str) -> Task:
        """Return the record of a task. Raises UnknownTask."""
        for task in await (await self.open()).get([id]):
            return task
        raise UnknownTask(id)

    async def with_keys(self, keys: Collection[str]) -> list[Task]:
        """Return the records of the tasks with these idempotency keys, in their stored form."""
        return await (await self.open()).find(Query(idempotency_keys=frozenset(keys)))

    async def cancel(self, id: str, reason: str) -> Task:
        """Cancel a task and its successors. If it runs, ask it to stop. Raises UnknownTask."""
        for task in await (await self.open()).cancel([id], reason):
            if (worker := self._local) and task.state is State.RUNNING:
                worker.stop(task)  # another worker learns of it with its next heartbeat
            return task
        raise UnknownTask(id)

    @property
    def is_new_to_a_script(self) -> bool:
        """Return whether nobody has asked yet if the store ever had a worker, and no application says so."""
        return not (self._looked or self.served)

    async def look_for_workers(self) -> None:
        """Log once if a script has stored tasks where no worker has ever looked. Never raises EngineError."""
        self._looked = True
        if not engines.is_shared(self.url):
            return
        with suppress(EngineError):  # the tasks are stored
            async with engines.shared(self.url) as engine:
                if not await engine.workers(LONGEST_SPAN) and not await engine.find(WORKED_OFF):
                    telemetry.no_worker(engines.shown(self.url), in_a_file=engines.is_file(self.url))

    @property
    def _local(self) -> LocalWorker | None:
        worker = self.worker
        return worker if worker is not None and worker.loop is running_loop() else None

    async def finished(self, id: str, timeout: timedelta | None) -> Task:
        """Wait until a task has finished, and return its record. Raises NotFinished on timeout."""
        running_loop()
        try:
            async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
                return await self._finished(id)
        except TimeoutError:
            raise await not_finished(await self.open(), id, str(timeout)) from None

    async def _finished(self, id: str) -> Task:
        pause = FIRST_LOOK
        while not (task := await self.get(id)).state.finished:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        return task


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop. Raises NotAsyncio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise NotAsyncio from None


current: ContextVar[Client | None] = ContextVar("afterwards_client", default=None)
"""The installation of the current request or task."""
