"""How an application's tasks run in its tests: in memory, and within the request that added them."""

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
    """Stands in for an application's worker: a request returns when its tasks have had their first attempt.

    A ``run_in="process"`` function runs in a thread, for tests share memory with what they test.
    The clock stands still, so that what is delayed or retried waits for ``drain``.
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
        """Whether this test has used the application; its lifespan may have begun in an earlier one."""
        return self._used or self.client in under_test.lifespans

    @asynccontextmanager
    async def working(self, state: Mapping[str, Any]) -> AsyncIterator[None]:
        self._used = True
        around = under_test.lifespans.get(self.client)  # fixtures of different scopes nest them
        under_test.lifespans[self.client] = state
        try:
            yield
        finally:
            if around is None:
                under_test.lifespans.pop(self.client, None)
            else:
                under_test.lifespans[self.client] = around

    def drain(self) -> None:
        """Nothing runs that could be drained."""

    async def request_ended(self) -> None:
        """Run what is due. What an attempt raised is raised into the test, as what a plain function raises is."""
        self._used = True
        for failure in await self.run():
            raise failure

    async def run(self) -> list[BaseException]:
        engine = await self.client.open()
        before = current.set(self.client)
        state = under_test.lifespans.get(self.client, {})
        around = replace(surroundings(self._app, self._options, state, engine), processes=None)
        try:
            return await run_due(
                engine,
                registry,
                around,
                make_notice=notice_maker(self.client),
                clock=self._clock,
                dies=_dies,
                allow_retries=under_test.allowing_retries > 0,
            )
        finally:
            around.close()
            current.reset(before)

    async def fire(self) -> None:
        """Store the tasks of the schedules that are due."""
        scheduler = Scheduler(await self.client.open(), timetable(self.client), clock=self._clock)
        while await scheduler.fire() <= self._clock():
            pass  # there were more than one write makes up for


class InMemory:
    """All installations of one test: their engines, who runs their tasks, and the one clock."""

    def __init__(self) -> None:
        self.clock = FakeClock(datetime.now(UTC))
        self.inlines: list[Inline] = []
        self._begun = self.clock()
        self._engines: list[EngineOfATest] = []

    @property
    def tasks(self) -> list[Task]:
        """All that are stored, each engine's in that order."""
        return [task for engine in self._engines for task in engine.tasks]

    @property
    def asked_for(self) -> list[tuple[Task, datetime]]:
        """The same, with the instants for which they were asked."""
        return [(task, engine.asked_for(task)) for engine in self._engines for task in engine.tasks]

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Meanwhile every installation, whatever its URL, keeps its tasks in memory and runs them in its requests."""
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
    """What this process's tests have begun; fixtures of any scope begin and end it."""

    def __init__(self) -> None:
        self.active: list[InMemory] = []
        self.lifespans: dict[Client, Mapping[str, Any]] = {}  # what those yielded that go on now
        self.crashes: list[CrashesAt] = []  # who has attempts die
        self.allowing_retries = 0  # blocks of ``allow_retries`` that have begun


under_test = UnderTest()


@contextmanager
def allow_retries() -> Iterator[None]:
    """Meanwhile an attempt that raises, and after which its task is retried, does not raise into the test.

    ``drain(scheduled=True)`` runs the retries. What a task raises that has failed for good is raised into the test
    nevertheless.
    """
    memory()  # elsewhere nothing is raised into the test
    under_test.allowing_retries += 1
    try:
        yield
    finally:
        under_test.allowing_retries -= 1


def memory() -> InMemory:
    """This test's. Raises RuntimeError where tasks are not kept in memory."""
    if not under_test.active:
        raise RuntimeError("tasks are kept in memory only in tests that pytest runs, without `afterwards(real=True)`")
    return under_test.active[-1]


def clock() -> FakeClock:
    """The clock of this test's tasks, which stands still: ``clock().advance(60)`` moves it, and runs nothing."""
    return memory().clock


def _dies(moment: CrashPoint) -> bool:
    return any(dies(moment) for dies in reversed(under_test.crashes))  # the innermost first
