"""Test mode of an application: its tasks are kept in memory, and run in the request that added them."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI

from afterwards import engines
from afterwards.client.client import Client, current
from afterwards.core.options import Options
from afterwards.core.process_state import ProcessState
from afterwards.core.task import Task
from afterwards.execution.log_capture import capturing
from afterwards.tasks.failure_notice import notice_maker
from afterwards.tasks.registry import registry
from afterwards.tasks.timetable import timetable
from afterwards.testing.clock import FakeClock
from afterwards.testing.engine import EngineOfATest
from afterwards.testing.inline_worker import CrashesAt, CrashPoint, run_due
from afterwards.web import embedded_worker
from afterwards.web.embedded_worker import surroundings
from afterwards.worker.scheduler import Scheduler


class Inline:
    """The test mode's worker of an application: a request returns after the first attempt of its tasks.

    A ``run_in="process"`` function runs in a thread, because tests share memory with the code under test. The clock
    stands still, so delayed tasks and retries wait for ``drain``.
    """

    started = True  # with each request

    def __init__(self, app: FastAPI, client: Client, options: Options, clock: FakeClock) -> None:
        self.client = client
        self._app = app
        self._options = options
        self._clock = clock
        self._used = False

    @property
    def used(self) -> bool:
        """True if this test has used the application, whose lifespan may have begun in an earlier test."""
        return self._used or self.client in under_test.lifespans

    @asynccontextmanager
    async def working(self, state: Mapping[str, Any]) -> AsyncIterator[None]:
        self._used = True
        around = under_test.lifespans.get(self.client)  # fixtures of different scopes nest lifespans
        under_test.lifespans[self.client] = state
        try:
            yield
        finally:
            if around is None:
                under_test.lifespans.pop(self.client, None)
            else:
                under_test.lifespans[self.client] = around

    def drain(self) -> None:
        """Do nothing: no task runs between requests."""

    async def request_ended(self) -> None:
        """Run the tasks that are due. Raises the first exception of an attempt, as for a plain function."""
        self._used = True
        for failure in await self.run():
            raise failure

    async def run(self) -> list[BaseException]:
        engine = await self.client.open()
        before = current.set(self.client)
        state = under_test.lifespans.get(self.client, {})
        around = replace(surroundings(self._app, self._options, state, engine), processes=None)
        try:
            with capturing():
                return await run_due(
                    engine,
                    registry,
                    around,
                    make_notice=notice_maker(self.client),
                    clock=self._clock,
                    crashes=_crashes,
                    allow_retries=under_test.allowing_retries > 0,
                )
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
            stack.enter_context(embedded_worker.replaced(self._inline))
            stack.callback(under_test.active.remove, self)
            under_test.active.append(self)
            yield

    def _engine(self, url: str) -> EngineOfATest:
        self._engines.append(EngineOfATest(clock=self.clock, begun=self._begun))
        return self._engines[-1]

    def _inline(self, app: FastAPI, client: Client, options: Options) -> Inline:
        self.inlines.append(Inline(app, client, options, self.clock))
        return self.inlines[-1]


class UnderTest(ProcessState):
    """The process-wide state of test mode, which fixtures of any scope change."""

    def __init__(self) -> None:
        self.active: list[InMemory] = []
        self.lifespans: dict[Client, Mapping[str, Any]] = {}  # the state that each active lifespan has yielded
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
