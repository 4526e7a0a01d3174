"""Run something beside an application while it serves: a worker, or a dispatcher."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from afterwards import engines, telemetry
from afterwards.client.client import Client, current
from afterwards.core.lifecycle import HOLD
from afterwards.core.options import Options
from afterwards.core.verdict import Role
from afterwards.execution.retrying import keep_doing


class Embeddable(Protocol):
    """A worker or a dispatcher, as its process uses it."""

    def drain(self) -> None:
        """Begin to shut down. A second call ends every wait."""
        ...

    async def released(self) -> None:
        """Wait until a drain has given back all tasks that can be stopped."""
        ...

    async def until_idle(self) -> None:
        """Wait until there is nothing to do now."""
        ...


T_co = TypeVar("T_co", bound=Embeddable, covariant=True)
T = TypeVar("T", bound=Embeddable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty(Generic[T_co]):
    """The work of a process, and how it begins, given the state that the application's lifespan yielded."""

    role: Role
    fleet: str | None = None  # the name of the fleet that has a part in it
    begin: Callable[[Mapping[str, Any]], AbstractAsyncContextManager[T_co]]


class Embedded(Generic[T]):
    """Does a duty in this process, from the application's start-up to its shutdown."""

    def __init__(self, client: Client, options: Options, duty: Duty[T]) -> None:
        self._client = client
        self._options = options
        self._duty = duty
        self._told_to_end = False
        self.running: T | None = None
        self.started = False

    @asynccontextmanager
    async def working(self, state: Mapping[str, Any]) -> AsyncIterator[None]:
        telemetry.started(engines.shown(self._client.url), self._options, self._duty.role, self._duty.fleet)
        self.started, self._told_to_end = True, False
        self._client.health.begin(role=self._duty.role)
        keeping = asyncio.create_task(keep_doing("hold the tasks of running requests", HOLD / 3, self._keep_back))
        before = current.set(self._client)  # tasks may enqueue tasks
        try:
            async with self._begun(state):
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
        if self.running is not None:
            self.running.drain()

    async def released(self) -> None:
        """Wait until a drain has given back all tasks that can be stopped."""
        if self.running is not None:
            await self.running.released()

    async def until_idle(self) -> None:
        """Wait until there is nothing to do now."""
        if self.running is not None:
            await self.running.until_idle()

    async def request_ended(self) -> None:
        """Do nothing: it runs by itself."""

    @asynccontextmanager
    async def _begun(self, state: Mapping[str, Any]) -> AsyncIterator[None]:
        try:
            async with self._duty.begin(state) as running:
                self.running = running  # until it has ended: a second signal ends it sooner
                yield
        finally:
            self.running = None

    async def _keep_back(self) -> None:
        """Hold the tasks of long requests for longer, so that they do not become due by themselves."""
        await self._client.keep_back([held for request in self._client.holding.copy() for held in request.held])


class _Idle:
    """Does nothing."""

    def drain(self) -> None:
        pass

    async def released(self) -> None:
        pass

    async def until_idle(self) -> None:
        pass


@asynccontextmanager
async def _do_nothing(state: Mapping[str, Any]) -> AsyncIterator[_Idle]:
    yield _Idle()


NOTHING = Duty(role=Role.SENDER, begin=_do_nothing)
"""The duty of a process that only stores tasks."""
