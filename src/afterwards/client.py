"""Adding tasks to an engine, and asking about them."""

import asyncio
import gc
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from weakref import WeakSet

from afterwards import engines, telemetry
from afterwards.core.errors import (
    EngineUnavailable,
    NotFinished,
    NotInstalled,
    NotStored,
    TaskFailed,
    UnknownTask,
    as_span,
)
from afterwards.core.lifecycle import HOLD, asked_for
from afterwards.core.options import Options
from afterwards.core.task import Lease, NewTask, State, Task, task_id
from afterwards.engine import Claim, Engine

R = TypeVar("R", covariant=True)

FIRST_LOOK, LONGEST_PAUSE = 0.005, 0.25
"""Seconds between two looks at a task whose result is awaited: the first pause, and what it doubles up to."""


class LocalWorker(Protocol):
    """The worker of this process, as senders know it: it may start what they store without another write."""

    @property
    def here(self) -> bool:
        """Whether it works on the running event loop: on another one nothing else may be asked of it."""
        ...

    def offer(self, tasks: int) -> Claim | None:
        """Set slots aside for tasks about to be stored; None when there are none."""
        ...

    def withdraw(self, claim: Claim) -> None:
        """Take back what was offered, before the tasks that were stored on it are held."""
        ...

    def hold(self, task: Task) -> None:
        """Keep the lease of a task that was stored as leased to this worker, until it may start."""
        ...

    def start(self, lease: Lease) -> bool:
        """Start a held task; False when it is not held here any more."""
        ...

    def stop(self, task: Task) -> None:
        """Stop a task that was asked to be cancelled, if it runs here."""
        ...


class Client:
    """An engine as one installation uses it: opened by the first who needs it, shared by all requests."""

    def __init__(
        self, url: str, options: Options, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.url = url
        self.options = options
        self.worker: LocalWorker | None = None
        self._clock = clock
        self._entered: Engine | None = None
        _clients.add(self)

    def new_id(self) -> str:
        """An id for a task that is not stored yet."""
        return task_id(self._clock(), _randomness.take(10))

    @property
    def opened(self) -> bool:
        return self._entered is not None

    async def open(self) -> Engine:
        """The engine, open: by the application's lifespan, else by the first task."""
        engine = engines.shared(self.url)
        if self._entered is not engine:
            self._entered, before = engine, self._entered  # at once: it is entered once, by the first who needs it
            try:
                await engine.__aenter__()
            except BaseException:
                self._entered = before
                raise
        return engine

    async def close(self) -> None:
        engine, self._entered = self._entered, None
        if engine is not None:
            await engine.__aexit__(None, None, None)

    async def enqueue(self, tasks: Sequence[NewTask]) -> list[Task]:
        """Store tasks, all or none. What this process leases on the way is held by its worker."""
        engine = await self.open()
        asked_by = publication.get()
        if asked_by is not None:
            asked_by.used = True
        worker = self._local
        claim = worker.offer(len(tasks)) if worker else None
        if worker is None or claim is None:
            return await engine.enqueue(tasks)
        stored: list[Task] = []
        try:
            stored = await engine.enqueue(tasks, claim=claim)
        finally:
            worker.withdraw(claim)
        for task in stored:
            if task.state is State.RUNNING and task.worker == claim.worker:
                worker.hold(task)
        return stored

    def start(self, stored: Task) -> None:
        """Start a task that was stored as leased to this process."""
        if stored.state is State.RUNNING and (worker := self._local):
            worker.start(stored.lease)

    async def publish(self, held: Sequence["HeldBack"]) -> None:
        """Start what is held in this process, and queue the rest, or schedule what has a time of its own."""
        worker = self._local
        at_once = [one.lease for one in held if one.run_at is None]
        elsewhere = [lease for lease in at_once if worker is None or not worker.start(lease)]
        if elsewhere:
            await (await self.open()).publish(elsewhere)
        for one in held:
            if one.run_at is not None:
                await (await self.open()).publish([one.lease], run_at=one.run_at)

    async def keep_back(self, held: Sequence["HeldBack"]) -> None:
        """Hold tasks for another minute: their request still goes on."""
        soon = self._clock() + HOLD
        leases = [one.lease for one in held if one.run_at is None or one.run_at < soon]
        if leases:
            await (await self.open()).publish(leases, held=True)

    async def get(self, id: str) -> Task:
        """The record of a task. Raises UnknownTask."""
        for task in await (await self.open()).get([id]):
            return task
        raise UnknownTask(id)

    async def cancel(self, id: str, reason: str) -> Task:
        """Cancel a task, and those behind it; ask it to stop, if it runs. Raises UnknownTask."""
        for task in await (await self.open()).cancel([id], reason):
            if (worker := self._local) and task.state is State.RUNNING:
                worker.stop(task)  # any other worker hears of it with its next heartbeat
            return task
        raise UnknownTask(id)

    @property
    def _local(self) -> LocalWorker | None:
        worker = self.worker
        return worker if worker is not None and worker.here else None

    async def finished(self, id: str, timeout: timedelta | None) -> Task:
        """The record of a task once it has finished. Raises NotFinished when the time is over."""
        try:
            async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
                return await self._finished(id)
        except TimeoutError:
            raise NotFinished(f"task {id} has not finished within {timeout}; it goes on") from None

    async def _finished(self, id: str) -> Task:
        pause = FIRST_LOOK
        while not (task := await self.get(id)).state.finished:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        return task


class TaskHandle(Generic[R]):
    """A task that was added: ask for its record, wait for its result, or cancel it.

    It may be used in any process and event loop. Before the task is stored every method raises NotStored.
    """

    def __init__(self, id: str, client: Client, load: Callable[[str | None], R], *, stored: bool = True) -> None:
        self.id = id
        self._client = client
        self._load = load
        self._stored = stored

    async def status(self) -> Task:
        """The record as it stands. Raises UnknownTask when its retention is over."""
        return await self._client.get(self._stored_id())

    async def result(self, *, timeout: float | timedelta | None = None) -> R:
        """What the function returned, once it has; ``timeout`` in seconds.

        Raises TaskFailed when the task failed or was cancelled, NotFinished when the time is over first.
        """
        task = await self._client.finished(self._stored_id(), None if timeout is None else as_span(timeout))
        if task.state is not State.SUCCEEDED:
            raise TaskFailed(_why_no_result(task))
        return self._load(task.result)

    async def cancel(self, reason: str = "cancelled by the application") -> Task:
        """Cancel it, and those behind it. A running ``async def`` is stopped, a ``def`` can only be asked."""
        return await self._client.cancel(self._stored_id(), reason)

    def mark_stored(self) -> None:
        self._stored = True

    def __repr__(self) -> str:
        return f"TaskHandle({self.id!r})"

    def _stored_id(self) -> str:
        if not self._stored:
            raise NotStored(self.id)
        return self.id


class HeldBack(NamedTuple):
    """A task that was stored and waits for the end of its request, and then perhaps for a time of its own."""

    lease: Lease
    run_at: datetime | None


class Publication:
    """What one request has stored, held back until the request has ended."""

    def __init__(
        self,
        client: Client,
        *,
        origin: str | None = None,
        at_once: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.client = client
        self.origin = origin  # who asks, as ``POST /signup``; None outside a request
        self.at_once = at_once  # outside a request, nothing has to end first
        self.used = False  # whether anything was stored
        self.ended = False
        self.recorded: Exception | None = None  # a plain task's failure; whatever wraps that task passes it on
        self.last: str | None = None  # the task that the next one of the chain comes after
        self.flushing = asyncio.Lock()
        self.buffers: list[Any] = []  # every BackgroundTasks of the request
        self.held: list[HeldBack] = []
        self._storing: set[asyncio.Task[None]] = set()
        self._loop = loop

    @property
    def holds(self) -> bool:
        """Whether a task stored now is held back until the end."""
        return not (self.at_once or self.ended)

    async def store(self, tasks: Sequence[NewTask]) -> None:
        """Store tasks, all or none; those held will be published at the end."""
        self.used = True
        stored = await self.client.enqueue(tasks)
        held: list[HeldBack] = []
        for new, task in zip(tasks, stored, strict=True):
            if not new.held:
                self.client.start(task)
            elif task.state is not State.WAITING:
                asked = asked_for(new, task.created_at)
                held.append(HeldBack(task.lease, asked if asked > task.created_at else None))
        if not held:
            return
        if self.holds:
            self.held += held
            _going_on.add(self)
        else:  # the request has ended meanwhile
            await self._publish(held)

    def soon(self, store: Callable[[], Coroutine[None, None, None]]) -> None:
        """Store something without waiting on the event loop; from a thread, wait until it is done."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if self._loop is not None and here is not self._loop:
            asyncio.run_coroutine_threadsafe(store(), self._loop).result()
            return
        self.used = True
        storing = asyncio.ensure_future(store())
        self._storing.add(storing)
        storing.add_done_callback(self._storing.discard)

    async def end(self) -> None:
        """Let the tasks start. If the engine cannot be reached they become due by themselves, a minute later."""
        try:
            while self._storing:
                await asyncio.wait(self._storing)
        finally:  # cancelled, too: kept back no longer, what is held becomes due by itself
            self.ended = True
            self.buffers.clear()  # each of which holds this: a circle for the garbage collector
            _going_on.discard(self)
        held, self.held = self.held, []
        if held:
            await self._publish(held)

    async def _publish(self, held: Sequence[HeldBack]) -> None:
        try:
            await self.client.publish(held)
        except EngineUnavailable as error:
            telemetry.engine_trouble("publish a request's tasks, which start within a minute", error, timedelta())


class Randomness:
    """The system's random bytes, fetched many at a time: each system call lets go of the interpreter's lock."""

    def __init__(self) -> None:
        self._left = b""
        self.forget()
        if hasattr(os, "register_at_fork"):  # a child must not give out what its parent has given out
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._left = b""

    def take(self, count: int) -> bytes:
        with self._lock:
            if len(self._left) < count:
                self._left = os.urandom(1000 * count)
            taken, self._left = self._left[:count], self._left[count:]
        return taken


_randomness = Randomness()

current: ContextVar[Client | None] = ContextVar("afterwards_client", default=None)
"""The installation of the current request or task."""

publication: ContextVar[Publication | None] = ContextVar("afterwards_publication", default=None)
"""What the current request has stored."""

_clients: WeakSet[Client] = WeakSet()
_going_on: set[Publication] = set()


def going_on(client: Client) -> list[Publication]:
    """The requests that hold tasks back now."""
    return [publication for publication in _going_on.copy() if publication.client is client]


def the_client(doing: str) -> Client:
    """The current request's or task's, else the only one of the process. Raises NotInstalled."""
    client = current.get()
    if client is not None:
        return client
    if len(_clients) > 1:
        gc.collect()  # an application that nobody uses any more is no candidate
    candidates = [client for client in _clients if client.opened] or list(_clients)
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise NotInstalled(
            f"{doing} must be stored, but nothing here can store it: write `tasks = Afterwards(app)` where the "
            "application is made (from afterwards import Afterwards)"
        )
    raise NotInstalled(
        f"{doing} must be stored, but this process has {len(candidates)} installations and no request or task is under "
        "way that would choose one: call it within a request or a task of the one that is meant"
    )


def _why_no_result(task: Task) -> str:
    about = f"task {task.id} ({task.name})"
    if task.state is State.CANCELLED:
        return f"{about} was cancelled: {task.reason}"
    last = task.failures[-1]
    return f"{about} failed in attempt {last.attempt}: {last.type + ': ' if last.type else ''}{last.message}"
