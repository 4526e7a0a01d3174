"""The worker in a process of a fleet: runs what arrives, and claims nothing by itself."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from afterwards.core.options import Options
from afterwards.core.task import Lease, Task
from afterwards.dispatch.arrivals import Arrivals
from afterwards.engine import Claim, Engine
from afterwards.execution.failure_notice import MakeNotice
from afterwards.execution.function import Functions
from afterwards.execution.health import Health
from afterwards.execution.plain_runs import PlainRuns
from afterwards.execution.surroundings import Surroundings
from afterwards.worker.leased_task import LeasedTask
from afterwards.worker.parts import CLAIMING
from afterwards.worker.shutdown import LAST_WRITES
from afterwards.worker.slots import Slots
from afterwards.worker.task_runner import TaskRunner

MOST_AT_ONCE = 1000
"""Slots. The fleet bounds how many tasks run at once; one that waits for a slot here would keep others from it."""

IDLE_LOOK_EVERY = 0.02
"""Seconds between two checks whether it is idle."""


class DispatchedWorker:
    """Runs tasks that a fleet brings, on the event loop that enters it. Implements ``fleet.FleetWorker``.

    It does not dispatch: each process of a fleet would ask the engine all the time. The processes that serve do.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        engine: Engine,
        functions: Functions,
        options: Options,
        surroundings: Surroundings,
        *,
        make_notice: MakeNotice,
        clock: Callable[[], datetime],
        health: Health,
        plain_runs: PlainRuns,
    ) -> None:
        self._runner = TaskRunner(
            *(engine, functions, options, surroundings),
            slots=Slots[LeasedTask](MOST_AT_ONCE),
            make_notice=make_notice,
            clock=clock,
            health=health,
            plain_runs=plain_runs,
            linger=0,  # a place in the fleet's pool is taken until the end is stored
        )
        self._arrivals = Arrivals(engine, functions, self._runner, lease=options.lease, health=health)

    async def __aenter__(self) -> Self:
        await self._runner.begin(self._start_claiming)
        self.loop = self._runner.loop
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.end()

    async def run(self, lease: Lease) -> bool:
        claiming = asyncio.ensure_future(self._arrivals.claim(lease))
        try:
            await self._wait_for(claiming)
        finally:
            claiming.cancel()  # does nothing if it is done
        if not claiming.done() or (end := claiming.result()) is None:
            return False
        await self._wait_for(end)
        return True

    def drain(self) -> None:
        self._runner.drain()

    async def released(self) -> None:
        """Wait until a drain has given back all tasks that can be stopped, and this is stored."""
        await self._runner.released()

    async def until_idle(self) -> None:
        """Wait until nothing runs here."""
        while self._runner.leases:  # noqa: ASYNC110  # nothing waits for it but tests and bursts
            await asyncio.sleep(IDLE_LOOK_EVERY)

    async def _wait_for(self, step: "asyncio.Future[Any]") -> None:
        """Wait for a claim, or for the end of an attempt, but not for long after everything was given back.

        A thread may not have ended by then, and the store may be away.
        """
        released = asyncio.ensure_future(self._runner.lifetime.released.wait())
        either: list[asyncio.Future[Any]] = [step, released]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([step], timeout=LAST_WRITES)
        finally:
            released.cancel()

    def _start_claiming(self) -> None:
        self._runner.parts.start(CLAIMING, self._arrivals.run)

    # Used by senders of this process (client.LocalWorker). What they store goes to the fleet, as all tasks do.

    def offer(self, tasks: int) -> Claim | None:
        return None

    def hold(self, leased: Sequence[Task], offered: Claim) -> None:
        """Do nothing: nothing was offered."""

    def start(self, lease: Lease) -> bool:
        return False

    def expect(self, tasks: int) -> None:
        """Do nothing: all tasks are dispatched."""

    def stop(self, task: Task) -> None:
        self._runner.stop(task)

    @property
    def changes(self) -> int:
        return self._runner.changes
