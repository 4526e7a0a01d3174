"""Test mode of an application: its tasks are kept in memory, and run in the request that added them."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI

from afterwards import engines
from afterwards.client import waiting
from afterwards.client.client import FIRST_LOOK, Client, current
from afterwards.client.request import origin, request_tasks
from afterwards.core.options import Options
from afterwards.core.process_state import ProcessState
from afterwards.core.task import Task
from afterwards.execution.context import current as attempting
from afterwards.execution.fresh_context import FreshContexts
from afterwards.execution.log_capture import capturing
from afterwards.tasks.failure_notice import notice_maker
from afterwards.tasks.registry import registry
from afterwards.tasks.timetable import timetable
from afterwards.testing.clock import FakeClock
from afterwards.testing.engine import EngineOfATest
from afterwards.testing.inline_worker import CrashesAt, CrashPoint, InlineWorker
from afterwards.web import runners
from afterwards.web.attempts import surroundings
from afterwards.worker.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class Begun:
    """A worker as it has begun: with what the lifespan yielded, and in which context."""

    state: Mapping[str, Any]
    contexts: FreshContexts


def begun_here(client: Client) -> FreshContexts:
    """Return the contexts for the attempts of a worker that begins here."""
    before = current.set(client)
    try:
        return FreshContexts()
    finally:
        current.reset(before)


class Inline:
    """The test mode's worker of an application: a request returns after the first attempt of its tasks.

    A ``run_in="process"`` function runs in a thread, because tests share memory with the code under test. The clock
    stands still, so delayed tasks and retries wait for ``drain``.
    """

    started = True  # with each request

    def __init__(
        self, app: FastAPI, client: Client, options: Options, clock: FakeClock, failures: list[BaseException]
    ) -> None:
        self.client = client
        self._app = app
        self._options = options
        self._clock = clock
        self._running: set[str] = set()
        self._failures = failures  # of tasks that ran because a result was awaited; not raised yet
        self._used = False
        self._alone = Begun({}, client.context.copy().run(begun_here, client))  # without a lifespan

    @property
    def used(self) -> bool:
        """True if this test has used the application, whose lifespan may have begun in an earlier test."""
        return self._used or self.client in under_test.lifespans

    @asynccontextmanager
    async def working(self, state: Mapping[str, Any]) -> AsyncIterator[None]:
        self._used = True
        around = under_test.lifespans.get(self.client)  # fixtures of different scopes nest lifespans
        under_test.lifespans[self.client] = Begun(state, begun_here(self.client))
        try:
            yield
        finally:
            if around is None:
                under_test.lifespans.pop(self.client, None)
            else:
                under_test.lifespans[self.client] = around

    def drain(self) -> None:
        """Do nothing: no task runs between requests."""

    async def released(self) -> None:
        """Do nothing: no task runs between requests."""

    async def request_ended(self) -> None:
        """Run the tasks that are due. Raises the first exception of an attempt, as for a plain function."""
        self._used = True
        for failure in await self.run():
            raise failure

    async def run(self) -> list[BaseException]:
        """Run the tasks that are due. Returns the exceptions to be raised into the test."""
        failures = await self._run()
        return self._taken() + failures

    async def finish(self, id: str, *, patient: bool) -> None:
        """Run due tasks until one has finished, because its result is awaited.

        Raises RuntimeError if it is not due, unless the caller is ``patient``, because of a timeout. What other tasks
        raise is raised at the end of the request.
        """
        self._used = True
        asking = request_tasks.get()
        if asking is not None:
            asking.used = True
        self._failures += await self._run(until=id)
        while (task := await self.client.get(id)).id in self._running and not patient:
            await asyncio.sleep(FIRST_LOOK)
            self._failures += await self._run(until=id)  # another request ran it
        if asking is None and attempting.get() is None:
            for failure in self._taken():
                raise failure
        if not task.state.finished and not patient:
            raise RuntimeError(
                f"{_asking()} waits for the result of {task.name} ({task.id}), which is {task.state}: in a test "
                "nothing runs it meanwhile. Give result() a timeout, or ask for the result after the test's drain() or "
                "drain(scheduled=True)"
            )

    def _taken(self) -> list[BaseException]:
        """Return what was not raised yet. It will be raised by the caller."""
        taken = self._failures.copy()
        self._failures.clear()
        return taken

    async def _run(self, until: str | None = None) -> list[BaseException]:
        engine = await self.client.open()
        before = current.set(self.client)
        begun = under_test.lifespans.get(self.client, self._alone)
        around = replace(surroundings(self._app, self._options, begun.state, engine), processes=None)
        worker = InlineWorker(
            engine,
            registry,
            around,
            begun.contexts,
            running=self._running,
            make_notice=notice_maker(self.client),
            clock=self._clock,
            crashes=_crashes,
            allow_retries=under_test.allowing_retries > 0,
        )
        try:
            with capturing():
                return await worker.run_due(until)
        finally:
            around.close()
            current.reset(before)

    async def fire(self) -> None:
        """Store the tasks of the schedules that are due."""
        scheduler = Scheduler(await self.client.open(), timetable(self.client), clock=self._clock)
        while await scheduler.fire() <= self._clock():
            pass  # more fires were due than one write stores


class InMemory:
    """The engines and workers of all installations in one test, and their common clock."""

    def __init__(self) -> None:
        self.clock = FakeClock(datetime.now(UTC))
        self.inlines: list[Inline] = []
        self._failures: list[BaseException] = []
        self._begun = self.clock()
        self._engines: list[EngineOfATest] = []

    @property
    def tasks(self) -> list[Task]:
        """All stored tasks, engine by engine, in the order stored."""
        return [task for engine in self._engines for task in engine.tasks]

    @property
    def asked_for(self) -> list[tuple[Task, datetime]]:
        """All stored tasks with their requested starts."""
        return [(task, engine.asked_for(task)) for engine in self._engines for task in engine.tasks]

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Inside the block, use memory and this mode for every installation, whatever its URL."""
        with ExitStack() as stack:
            stack.enter_context(engines.replaced(self._engine))
            stack.enter_context(runners.replaced(self._inline))
            stack.enter_context(waiting.running(self._finish))
            stack.callback(under_test.active.remove, self)
            under_test.active.append(self)
            yield

    def _engine(self, url: str) -> EngineOfATest:
        self._engines.append(EngineOfATest(clock=self.clock, begun=self._begun))
        return self._engines[-1]

    async def _finish(self, client: Client, id: str, patient: bool) -> None:
        await client.open()
        runners.everyone()  # also applications that had no request in this test
        for inline in self.inlines:
            if inline.client is client:
                await inline.finish(id, patient=patient)

    def _inline(self, app: FastAPI, client: Client, options: Options) -> Inline:
        self.inlines.append(Inline(app, client, options, self.clock, self._failures))
        return self.inlines[-1]


class UnderTest(ProcessState):
    """The process-wide state of test mode, which fixtures of any scope change."""

    def __init__(self) -> None:
        self.active: list[InMemory] = []
        self.lifespans: dict[Client, Begun] = {}  # the worker of each active lifespan
        self.crashes: list[CrashesAt] = []  # the active blocks of `crash_at` and `run_twice`
        self.allowing_retries = 0  # active blocks of ``allow_retries``


under_test = UnderTest()


@contextmanager
def allow_retries() -> Iterator[None]:
    """Do not raise the exception of an attempt into the test if the task will be retried, inside the block.

    ``drain(scheduled=True)`` runs the retries. The exception of a task that has finally failed is still raised.
    """
    memory()  # raises outside of such tests
    under_test.allowing_retries += 1
    try:
        yield
    finally:
        under_test.allowing_retries -= 1


def memory() -> InMemory:
    """Return the current test's engines and clock. Raises RuntimeError if tasks are not kept in memory."""
    if not under_test.active:
        raise RuntimeError("tasks are kept in memory only in tests that pytest runs, without `afterwards(real=True)`")
    return under_test.active[-1]


def clock() -> FakeClock:
    """Return the clock of this test's tasks. It stands still; ``clock().advance(60)`` moves it, and runs nothing."""
    return memory().clock


def _crashes(point: CrashPoint) -> bool:
    return any(crashes(point) for crashes in reversed(under_test.crashes))  # the innermost first


def _asking() -> str:
    """Return who awaits a result: a task, a request, or the test."""
    if attempt := attempting.get():
        return f"{attempt.context.name} ({attempt.context.id})"
    return origin() or "the test"
