"""The peer Procrastinate: psycopg 3, twenty tasks at once, successful ones deleted."""

import asyncio
import logging
from time import monotonic_ns, perf_counter

import procrastinate

from benchmarks.enqueue import rate
from benchmarks.latency import PAUSE, TASKS, Waits
from benchmarks.measure import run
from benchmarks.tasks import AT_ONCE

CONCURRENCY = 20
POOL = 20
CALL = {"email": "somebody@example.com", "user": 12345, "mails": [1]}


def install(store: str) -> None:
    """Make the tables."""

    async def installed() -> None:
        queue = Queue(store)
        async with queue.app.open_async():
            await queue.app.schema_manager.apply_schema_async()

    run(installed())


def enqueues(store: str, callers: int, at_once: int = 1) -> float:
    """Return tasks stored per second, ``at_once`` in each call."""

    async def measured() -> float:
        queue = Queue(store)
        async with queue.app.open_async():
            if at_once == 1:
                return await rate(lambda: queue.nothing.defer_async(**CALL), callers)
            return at_once * await rate(lambda: queue.nothing.batch_defer_async(*[CALL] * at_once), callers)

    return run(measured())


def drains(store: str, tasks: int) -> float:
    """Return tasks per second of one worker."""

    async def measured() -> float:
        queue = Queue(store, tasks)
        async with queue.app.open_async():
            for _ in range(0, tasks, AT_ONCE):
                await queue.nothing.batch_defer_async(*[CALL] * min(tasks, AT_ONCE))
            begun = perf_counter()
            await queue.work()
            return tasks / (perf_counter() - begun)

    return run(measured())


def sends(store: str) -> None:
    async def send() -> None:
        queue = Queue(store)
        async with queue.app.open_async():
            for _ in range(TASKS + 1):
                await queue.arrive.defer_async(begun=monotonic_ns())
                await asyncio.sleep(PAUSE)

    run(send())


def receives(store: str) -> Waits:
    async def received() -> Waits:
        queue = Queue(store, TASKS + 1)
        async with queue.app.open_async():
            await queue.work()
        return queue.waits[1:]

    return run(received())


class Queue:
    """An application with two tasks: one does nothing, the other records its latency."""

    def __init__(self, store: str, tasks: int = 0) -> None:
        logging.getLogger("procrastinate").setLevel(logging.CRITICAL)
        connector = procrastinate.PsycopgConnector(conninfo=store, min_size=POOL, max_size=POOL)
        self.app = procrastinate.App(connector=connector)
        self.waits: Waits = []
        self._left = tasks
        self._over = asyncio.Event()
        self.nothing = self.app.task(name="nothing")(self._nothing)
        self.arrive = self.app.task(name="arrive")(self._arrive)

    async def work(self) -> None:
        """Run until the expected number of tasks has run and is stored."""
        working = asyncio.create_task(
            self.app.run_worker_async(concurrency=CONCURRENCY, delete_jobs="successful", install_signal_handlers=False)
        )
        await self._over.wait()
        working.cancel()  # its way to end a worker: tasks that run are waited for
        await asyncio.wait([working])

    async def _nothing(self, email: str, user: int, mails: list[int]) -> None:
        self._count()

    async def _arrive(self, begun: int) -> None:
        self.waits.append((monotonic_ns() - begun) / 1e6)
        self._count()

    def _count(self) -> None:
        self._left -= 1
        if not self._left:
            self._over.set()
