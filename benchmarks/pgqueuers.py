"""The peer PgQueuer: asyncpg, batches of 500, which was fastest; its completions are stored in batches, as ours are."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic_ns, perf_counter

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.enqueue import rate
from benchmarks.latency import PAUSE, TASKS, Waits
from benchmarks.measure import run
from benchmarks.tasks import ARGUMENTS, AT_ONCE

BATCH = 500
POOL = 20
PAYLOAD = ARGUMENTS.encode()


def install(store: str) -> None:
    """Make the tables."""

    async def installed() -> None:
        connection = await asyncpg.connect(store)
        await Queries(AsyncpgDriver(connection)).install()
        await connection.close()

    run(installed())


def enqueues(store: str, callers: int, at_once: int = 1) -> float:
    """Return tasks stored per second, ``at_once`` in each call."""

    async def measured() -> float:
        async with _queries(store) as queries:
            return at_once * await rate(lambda: _enqueue(queries, at_once), callers)

    return run(measured())


def drains(store: str, tasks: int) -> float:
    """Return tasks per second of one worker."""

    async def measured() -> float:
        async with _queries(store) as queries:
            for _ in range(0, tasks, AT_ONCE):
                await _enqueue(queries, min(tasks, AT_ONCE))
        begun = perf_counter()
        await Worker(tasks).run(store)
        return tasks / (perf_counter() - begun)

    return run(measured())


def sends(store: str) -> None:
    async def send() -> None:
        async with _queries(store) as queries:
            for _ in range(TASKS + 1):
                await queries.enqueue("arrive", str(monotonic_ns()).encode())
                await asyncio.sleep(PAUSE)

    run(send())


def receives(store: str) -> Waits:
    worker = Worker(TASKS + 1)
    run(worker.run(store))
    return worker.waits[1:]


class Worker:
    """A worker that stops when the expected number of tasks has run and is stored."""

    def __init__(self, tasks: int) -> None:
        logging.getLogger("pgqueuer").setLevel(logging.CRITICAL)
        self.waits: Waits = []
        self._left = tasks
        self._over = asyncio.Event()

    async def run(self, store: str) -> None:
        connection = await asyncpg.connect(store)
        queue = PgQueuer(AsyncpgDriver(connection))
        queue.entrypoint("nothing")(self._nothing)
        queue.entrypoint("arrive")(self._arrive)
        working = asyncio.create_task(queue.run(batch_size=BATCH))
        await self._over.wait()
        queue.shutdown.set()
        await working
        await connection.close()

    async def _nothing(self, job: Job) -> None:
        self._count()

    async def _arrive(self, job: Job) -> None:
        self.waits.append((monotonic_ns() - int(job.payload or b"0")) / 1e6)
        self._count()

    def _count(self) -> None:
        self._left -= 1
        if not self._left:
            self._over.set()


@asynccontextmanager
async def _queries(store: str) -> AsyncIterator[Queries]:
    async with asyncpg.create_pool(store, min_size=POOL, max_size=POOL) as pool:
        yield Queries(AsyncpgPoolDriver(pool))


async def _enqueue(queries: Queries, tasks: int) -> None:
    await queries.enqueue(["nothing"] * tasks, [PAYLOAD] * tasks, [0] * tasks)
