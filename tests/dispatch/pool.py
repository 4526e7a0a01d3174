"""A fleet on the event loop of the test, whose broker is a list, and its parts over the memory engine."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import FastAPI

from afterwards import TaskFunction
from afterwards.client.ids import randomness
from afterwards.core.options import Options
from afterwards.core.task import Lease, NewTask, Task, task_id
from afterwards.dispatch.dispatched_worker import DispatchedWorker
from afterwards.dispatch.dispatcher import Dispatcher
from afterwards.dispatch.fleet import NotSent, Serve
from afterwards.engine import Claim, Dispatch, Dispatched
from afterwards.engines.memory import MemoryEngine
from afterwards.execution.health import Health
from afterwards.execution.plain_runs import PlainRuns
from afterwards.tasks.registry import registry
from afterwards.web.attempts import surroundings
from afterwards.worker.scheduler import Timetable
from face.serving import until, until_async

OPTIONS = Options(grace=timedelta(seconds=60))
SECOND = timedelta(seconds=1)


class Unwell(MemoryEngine):
    """A store that fails, once for each of these errors, before it answers claims and dispatches."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = [*errors]

    async def claim(self, claim: Claim) -> list[Task]:
        self._fail()
        return await super().claim(claim)

    async def dispatch(self, ahead: Claim, *, again: timedelta) -> Dispatched:
        self._fail()
        return await super().dispatch(ahead, again=again)

    def _fail(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


class Pool:
    """Keeps what was sent to it, until a test brings it to a worker."""

    def __init__(self, *, again_after: timedelta = 30 * SECOND, ahead: int = 100) -> None:
        self.again_after = again_after
        self.ahead = ahead
        self.sent: list[Dispatch] = []
        self.accepts: float = float("inf")  # how many dispatches its broker still accepts
        self.broken: Exception | None = None
        self.asked = 0

    def attach(self, serve: Serve) -> None:
        """Do nothing: a test makes the workers."""

    async def send(self, dispatches: Sequence[Dispatch]) -> None:
        self.asked += 1
        if self.broken:
            raise self.broken
        for at, one in enumerate(dispatches):
            if self.accepts <= 0:
                raise NotSent(dispatches[at:], "its broker is away")
            self.accepts -= 1
            self.sent.append(one)

    async def takes(self) -> Lease:
        """Return what was sent first, as soon as there is something."""
        await until(lambda: self.sent)
        return self.sent.pop(0).lease


@asynccontextmanager
async def dispatching(
    engine: MemoryEngine, pool: Pool, *, health: Health | None = None, timetable: Timetable = tuple, **options: Any
) -> AsyncIterator[Dispatcher]:
    """Run a dispatcher."""
    dispatcher = Dispatcher(
        *(engine, pool, registry, replace(OPTIONS, **options)),
        make_notice=lambda *_: None,
        timetable=timetable,
        clock=lambda: datetime.now(UTC),
        health=health or Health(),
        plain_runs=PlainRuns(),
    )
    async with dispatcher:
        yield dispatcher


@asynccontextmanager
async def a_worker(engine: MemoryEngine, **options: Any) -> AsyncIterator[DispatchedWorker]:
    """Run a worker of the fleet."""
    chosen = replace(OPTIONS, **options)
    worker = DispatchedWorker(
        *(engine, registry, chosen, surroundings(FastAPI(), chosen, {}, engine)),
        make_notice=lambda *_: None,
        clock=lambda: datetime.now(UTC),
        health=Health(),
        plain_runs=PlainRuns(),
    )
    async with worker:
        yield worker


@asynccontextmanager
async def bringing(pool: Pool, worker: DispatchedWorker) -> AsyncIterator[None]:
    """Bring what is sent to a worker inside the block, however much that is."""
    async with asyncio.TaskGroup() as group:

        async def bring() -> None:
            while True:
                group.create_task(worker.run(await pool.takes()))

        bringing = group.create_task(bring())
        try:
            yield
        finally:
            bringing.cancel()


def a_call(function: TaskFunction[Any, Any, Any], *, arguments: str, **fields: Any) -> NewTask:
    """Return a call as it is stored."""
    id = task_id(datetime.now(UTC), randomness.take(10))
    return NewTask(id=id, name=function.name, arguments=arguments, **fields)


async def when(engine: MemoryEngine, new: NewTask, condition: Callable[[Task], bool]) -> Task:
    """Return a task as soon as a condition holds for it."""

    async def look() -> Task | None:
        [task] = await engine.get([new.id])
        return task if condition(task) else None

    found: Task = await until_async(look)
    return found


def has_ended(task: Task) -> bool:
    return task.state.finished
