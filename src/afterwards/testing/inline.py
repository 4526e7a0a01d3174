"""How an application's tasks run in its tests: in memory, and within the request that added them."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI

from afterwards import engines, serving
from afterwards.client import Client, current
from afterwards.core.options import Options
from afterwards.core.task import State, Task
from afterwards.engines.memory import MemoryEngine
from afterwards.functions import TaskFunction
from afterwards.registry import registry
from afterwards.serving import surroundings, teller
from afterwards.testing.clock import FakeClock
from afterwards.worker.inline import run_due


class Inline:
    """Stands in for an application's worker: a request returns when its tasks have had their first attempt.

    A ``run_in="process"`` function runs in a thread, for tests share memory with what they test.
    The clock stands still, so that what is delayed or retried waits for ``drain``.
    """

    def __init__(self, app: FastAPI, client: Client, options: Options, clock: FakeClock) -> None:
        self.client = client
        self._app = app
        self._options = options
        self._clock = clock

    @asynccontextmanager
    async def working(self, state: Mapping[str, Any]) -> AsyncIterator[None]:
        around = _states.get(self.client)  # lifespans of one application nest, where fixtures of different scopes do
        _states[self.client] = state
        try:
            yield
        finally:
            if around is None:
                _states.pop(self.client, None)
            else:
                _states[self.client] = around

    def drain(self) -> None:
        """Nothing runs that could be drained."""

    async def request_ended(self) -> None:
        """Run what is due. What has failed for good is raised into the test, as a plain function's failure is."""
        for failure in await self.run():
            raise failure

    async def run(self) -> list[BaseException]:
        engine = await self.client.open()
        before = current.set(self.client)
        around = replace(surroundings(self._app, self._options, _states.get(self.client, {}), engine), processes=None)
        try:
            return await run_due(engine, registry, around, tell=teller(self.client), clock=self._clock)
        finally:
            around.close()
            current.reset(before)


class InMemory:
    """All installations of one test: their engines, who runs their tasks, and the one clock."""

    def __init__(self) -> None:
        self.clock = FakeClock(datetime.now(UTC))
        self.inlines: list[Inline] = []
        self.engines: list[MemoryEngine] = []

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Meanwhile every installation, whatever its URL, keeps its tasks in memory and runs them in its requests."""
        with ExitStack() as stack:
            stack.enter_context(engines.replaced(self._engine))
            stack.enter_context(serving.replaced(self._inline))
            stack.callback(_active.remove, self)
            _active.append(self)
            yield

    def _engine(self, url: str) -> MemoryEngine:
        self.engines.append(MemoryEngine(clock=self.clock))
        return self.engines[-1]

    def _inline(self, app: FastAPI, client: Client, options: Options) -> Inline:
        self.inlines.append(Inline(app, client, options, self.clock))
        return self.inlines[-1]


_active: list[InMemory] = []
_states: dict[Client, Mapping[str, Any]] = {}
"""What the lifespans yielded that go on now; they may begin in one test and end in another."""


MOST_ATTEMPTS = 200
"""After so many, ``drain`` gives up on a task that snoozes for ever."""


async def drain_async(*, scheduled: bool = False) -> None:
    """Run tasks until none is due; with ``scheduled``, also those that are delayed or to be retried, moving the clock.

    Raises what the first task raised that has failed for good, after all have run.
    """
    memory = _memory()
    failures = await _run_all(memory)
    begun = {task.id: task.attempt for task in _stored(memory)}
    while scheduled and (waits := _waits(memory)):
        for task in _stored(memory):
            if task.attempt - begun.get(task.id, 0) > MOST_ATTEMPTS:
                raise RuntimeError(f"task {task.name} was run {MOST_ATTEMPTS} times, and asks to run again: {task!r}")
        memory.clock.advance(min(waits) - memory.clock())
        failures += await _run_all(memory)
    for failure in failures:
        raise failure


def drain(*, scheduled: bool = False) -> None:
    """As ``drain_async``, for tests that are not async. Raises RuntimeError on a running event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(drain_async(scheduled=scheduled))
        return
    raise RuntimeError("drain() was called in an async test: write `await drain_async()`")


def assert_enqueued(function: TaskFunction[Any, Any, Any], **arguments: Any) -> Task:
    """Fail unless this test has stored a call of the function with these arguments, whatever became of it since.

    Arguments that are left out may have any value. Returns the newest such task.
    """
    calls = [task for task in _stored(_memory()) if task.name == function.name]
    for task in reversed(calls):
        given = function.codec.load(task.arguments)
        if all(name in given and given[name] == value for name, value in arguments.items()):
            return task
    listed = "".join(f"\n  {task.arguments}" for task in calls) or " none"
    raise AssertionError(f"no call of {function.name} with {arguments} was stored; its calls:{listed}")


def _memory() -> InMemory:
    if not _active:
        raise RuntimeError("tasks are kept in memory only in tests that pytest runs, without `afterwards(real=True)`")
    return _active[-1]


async def _run_all(memory: InMemory) -> list[BaseException]:
    serving.everyone()  # also those whose tasks no request has added
    return [failure for inline in memory.inlines for failure in await inline.run()]


def _waits(memory: InMemory) -> list[datetime]:
    return [task.run_at for task in _stored(memory) if task.state is State.SCHEDULED and task.run_at]


def _stored(memory: InMemory) -> list[Task]:
    return [task for engine in memory.engines for task in engine.tasks]
