"""Run an application's tasks while it serves: by a worker on its event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary, ref

from anyio import CapacityLimiter
from fastapi import FastAPI

from afterwards import engines, telemetry
from afterwards.client.client import Client, current
from afterwards.client.installations import installations
from afterwards.core.lifecycle import HOLD
from afterwards.core.options import Options
from afterwards.core.process_state import ProcessState
from afterwards.engine import Files
from afterwards.execution.dependencies import Resolver
from afterwards.execution.process_pool import ProcessPool
from afterwards.execution.retrying import keep_doing, persist
from afterwards.execution.surroundings import Surroundings
from afterwards.execution.threads import Threads
from afterwards.tasks.compatibility import check_at_start
from afterwards.tasks.failure_notice import notice_maker
from afterwards.tasks.process_main import main
from afterwards.tasks.registry import registry
from afterwards.tasks.timetable import timetable
from afterwards.worker.worker import Worker

CHECKING = "check the stored tasks"


class Serving(Protocol):
    """Runs tasks for one application."""

    @property
    def started(self) -> bool:
        """Return whether it is running, or need not be started."""
        ...

    def working(self, state: Mapping[str, Any]) -> AbstractAsyncContextManager[None]:
        """Run tasks inside the block; ``state`` is what the application's lifespan yielded."""
        ...

    def drain(self) -> None:
        """Begin to shut down, because the process was told to end. A second call ends every wait."""
        ...

    async def request_ended(self) -> None:
        """Handle the end of a request that stored tasks."""
        ...


def serving(app: FastAPI, client: Client) -> Serving:
    """Return what runs this application's tasks: the same object each time, unless it is replaced."""
    try:
        return _runners.serving[client]
    except KeyError:
        return _runners.serving.setdefault(client, _runners.make(app, client, client.options))


def installed(app: FastAPI, client: Client) -> Callable[[], Serving]:
    """Return a function that returns what runs this application's tasks. It is called when the application starts."""
    client.application = ref(app)
    return partial(serving, app, client)


def everyone() -> list[Serving]:
    """Return what runs tasks, for each application that has opened its engine."""
    opened = [(client.application(), client) for client in installations if client.opened and client.application]
    return [serving(app, client) for app, client in opened if app is not None]


@contextmanager
def replaced(make: Callable[[FastAPI, Client, Options], Serving]) -> Iterator[None]:
    """Replace what runs tasks inside the block: tests run them within the request."""
    with _runners.afresh():
        _runners.make = make
        yield


class Embedded:
    """A worker in this process, if the options ask for one, from the application's start-up to its shutdown."""

    def __init__(self, app: FastAPI, client: Client, options: Options) -> None:
        self._app = app
        self._client = client
        self._options = options
        self._worker: Worker | None = None
        self._told_to_end = False
        self.started = False

    @asynccontextmanager
    async def working(self, state: Mapping[str, Any]) -> AsyncIterator[None]:
        telemetry.started(
            engines.shown(self._client.url),
            concurrency=self._options.slots,
            threads=self._options.threads,
            worker=self._options.worker,
            queues=self._options.queues,
        )
        self.started, self._told_to_end = True, False
        self._client.health.begin(works=self._options.worker)
        keeping = asyncio.create_task(keep_doing("hold the tasks of running requests", HOLD / 3, self._keep_back))
        before = current.set(self._client)  # tasks may enqueue tasks
        try:
            async with AsyncExitStack() as stack:
                if self._options.worker:
                    await stack.enter_async_context(self._embedded(state))
                yield
        except BaseException:
            if not self._told_to_end:
                self._client.health.gone("the application's lifespan was cancelled, and the worker with it")
            raise
        finally:
            current.reset(before)
            keeping.cancel()
            self.started = False

    def drain(self) -> None:
        self._told_to_end = True
        if self._worker is not None:
            self._worker.drain()

    async def until_idle(self) -> None:
        """Wait until the worker has nothing to do. Return at once if there is no worker."""
        if self._worker is not None:
            await self._worker.until_idle()

    async def request_ended(self) -> None:
        """Do nothing: the worker runs by itself."""

    @asynccontextmanager
    async def _embedded(self, state: Mapping[str, Any]) -> AsyncIterator[None]:
        worker = Worker(
            engines.shared(self._client.url),
            registry,
            self._options,
            surroundings(self._app, self._options, state, engines.shared(self._client.url)),
            make_notice=notice_maker(self._client),
            timetable=timetable(self._client),
            clock=lambda: datetime.now(UTC),
            health=self._client.health,
            plain_runs=self._client.plain_runs,
        )
        self._worker = worker  # set until it has ended: a second signal ends it sooner
        try:
            async with worker, _checking(self._client):
                self._client.worker = worker
                try:
                    yield
                finally:
                    self._client.worker = None
        finally:
            self._worker = None

    async def _keep_back(self) -> None:
        """Hold the tasks of long requests for longer, so that they do not become due by themselves."""
        await self._client.keep_back([held for request in self._client.holding.copy() for held in request.held])


@asynccontextmanager
async def _checking(client: Client) -> AsyncIterator[None]:
    """Check meanwhile, once, which stored tasks this code could not run. The start does not wait for it."""
    checking = asyncio.create_task(_check(client))
    try:
        yield
    finally:
        checking.cancel()


async def _check(client: Client) -> None:
    try:
        await persist(CHECKING, partial(check_at_start, client))
    except Exception as error:  # it only describes: nothing may fail because of it
        telemetry.loop_broken(CHECKING, error)


def surroundings(app: FastAPI, options: Options, state: Mapping[str, Any], files: Files) -> Surroundings:
    """Return the resources that the attempts of an application share."""
    resolver = Resolver(app=app, limiter=CapacityLimiter(options.threads), state=state)
    return Surroundings(
        resolver, Threads(options.threads), files, options.propagate, ProcessPool(options.threads, main)
    )


class Runners(ProcessState):
    """The objects that run the tasks of each installation."""

    def __init__(self) -> None:
        self.make: Callable[[FastAPI, Client, Options], Serving] = Embedded
        self.serving: WeakKeyDictionary[Client, Serving] = WeakKeyDictionary()


_runners = Runners()
