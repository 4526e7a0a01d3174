"""The dispatcher: sends the tasks that may start to a fleet, and keeps the store in order, beside the application."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self
from uuid import uuid4

from afterwards.core.options import Options
from afterwards.core.task import FailedTask
from afterwards.dispatch.fleet import Fleet
from afterwards.dispatch.known_names import KnownNames
from afterwards.dispatch.sending import DISPATCHING, Sending
from afterwards.engine import Claim, Engine
from afterwards.execution.failure_notice import MakeNotice, call_on_failure
from afterwards.execution.function import Functions, Runnable
from afterwards.execution.health import Health
from afterwards.execution.plain_runs import PlainRuns
from afterwards.execution.retrying import persist
from afterwards.execution.threads import Threads
from afterwards.worker.lifetime import Lifetime
from afterwards.worker.loop_lag import measure
from afterwards.worker.maintenance import Maintenance
from afterwards.worker.parts import REGISTERING, SCHEDULING, Parts
from afterwards.worker.racing import first
from afterwards.worker.registration import Registration
from afterwards.worker.scheduler import Scheduler, Timetable
from afterwards.worker.set_aside import SetAsideReview
from afterwards.worker.shutdown import LAST_WRITES
from afterwards.worker.spawner import Spawner

IDLE_LOOK_EVERY = 0.02
"""Seconds between two checks whether a dispatcher has nothing left to send."""


class Dispatcher:
    """Dispatches on the event loop that enters it. Any number may do so at once: none leads."""

    def __init__(
        self,
        engine: Engine,
        fleet: Fleet,
        functions: Functions,
        options: Options,
        *,
        make_notice: MakeNotice,
        timetable: Timetable,
        clock: Callable[[], datetime],
        health: Health,
        plain_runs: PlainRuns,
    ) -> None:
        self.id = uuid4().hex
        self._functions = functions
        self._options = options
        self._fleet = fleet
        self._health = health
        self._lifetime = lifetime = Lifetime()
        self._parts = Parts(lifetime, health)
        self._spawner = Spawner()
        self._threads = Threads(options.threads)  # for a plain `on_failure` of a task that was lost
        self._known = KnownNames(engine)
        self._sending = Sending(engine, fleet, ahead=self._ahead, lifetime=lifetime, health=health)
        self._registration = Registration(
            *(engine, self.id),
            names=frozenset,  # it takes no tasks
            queues=options.queues,
            slots=0,
            clock=clock,
            lateness=health.lateness,
            plain_runs=plain_runs,
        )
        self._maintenance = Maintenance(
            *(engine, functions, options),
            make_notice=make_notice,
            notify=self._notify,
            clock=clock,
            health=health,
            probe=self._registration.register,
        )
        self._review = SetAsideReview(engine, functions, self._sending)
        self._scheduler = Scheduler(engine, timetable, clock=clock)

    async def __aenter__(self) -> Self:
        self._spawner.open()
        async with AsyncExitStack() as stack:
            self._parts.begin(await stack.enter_async_context(asyncio.TaskGroup()))
            self._start_parts()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.drain()
        await first(self._leave(), timeout=LAST_WRITES)
        self._lifetime.over = True
        self._parts.stop_all()
        self._threads.close()
        await self._stack.__aexit__(None, None, None)

    def drain(self) -> None:
        """Send and fire nothing more. Called on the event loop."""
        self._lifetime.draining.set()
        self._parts.stop(SCHEDULING)

    async def released(self) -> None:
        """Do nothing: it holds no task."""

    async def until_idle(self) -> None:
        """Wait until nothing is left to send, and the fleet has taken enough of it. There may be something later."""
        while not await self._sending.found_nothing():  # noqa: ASYNC110  # used only for bursts
            await asyncio.sleep(IDLE_LOOK_EVERY)

    async def _leave(self) -> None:
        await self._parts.ended(DISPATCHING)
        self._parts.stop(REGISTERING)
        await persist("unregister", self._registration.unregister)

    def _ahead(self) -> Claim:
        return Claim(
            worker=self.id,
            limit=self._fleet.ahead,
            lease=self._options.lease,
            names=self._known.among(self._functions.names),
            queues=self._options.queues,
            limits=self._functions.limits,
        )

    def _notify(self, function: Runnable, failed: FailedTask) -> None:
        self._spawner.start_and_keep(call_on_failure(function, failed, self._threads))

    def _start_parts(self) -> None:
        start = self._parts.start
        start(DISPATCHING, self._sending.run)
        start("look which functions the fleet knows", self._known.run)
        start("maintain the store", self._maintenance.run)
        start("review the tasks that are set aside", self._review.run)
        start(REGISTERING, self._registration.run)
        start("measure the event loop", partial(measure, self._health.lateness))
        if self._scheduler.needed:
            start(SCHEDULING, self._scheduler.run)
