"""The worker: claims as many tasks as it has free slots, runs them, and stores how they ended."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from afterwards.core.options import Options
from afterwards.core.task import Lease, Task
from afterwards.engine import Claim, Engine
from afterwards.execution.failure_notice import MakeNotice
from afterwards.execution.function import Functions
from afterwards.execution.health import Health
from afterwards.execution.plain_runs import PlainRuns
from afterwards.execution.surroundings import Surroundings
from afterwards.worker.claimer import Claimer
from afterwards.worker.leased_task import Event, LeasedTask, Phase
from afterwards.worker.parts import CLAIMING, SCHEDULING
from afterwards.worker.scheduler import Scheduler, Timetable
from afterwards.worker.set_aside import SetAsideReview
from afterwards.worker.slots import Slots
from afterwards.worker.task_runner import TaskRunner
from afterwards.worker.unstarted import Unstarted

IDLE_LOOK_EVERY = 0.02
"""Seconds between two checks whether a worker is idle."""


class Worker:
    """Runs tasks in this process, on the event loop that enters it."""

    loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        engine: Engine,
        functions: Functions,
        options: Options,
        surroundings: Surroundings,
        *,
        make_notice: MakeNotice,
        timetable: Timetable = tuple,
        clock: Callable[[], datetime],
        health: Health | None = None,
        plain_runs: PlainRuns | None = None,
    ) -> None:
        health = health or Health()
        self._slots = slots = Slots[LeasedTask](options.slots)
        self._runner = runner = TaskRunner(
            *(engine, functions, options, surroundings),
            slots=slots,
            make_notice=make_notice,
            clock=clock,
            health=health,
            plain_runs=plain_runs or PlainRuns(),
        )
        self.id = runner.id
        self._leases = runner.leases
        self._attempts = runner.attempts
        self._claimer = Claimer(
            *(engine, functions, options, slots),
            worker=runner.id,
            taker=runner.attempts,
            suspects=runner.leases.suspects,
            lifetime=runner.lifetime,
            health=health,
        )
        self._unstarted = Unstarted(runner.attempts, runner.leases)
        self._review = SetAsideReview(engine, functions, self._claimer)
        self._scheduler = Scheduler(engine, timetable, clock=clock)

    async def __aenter__(self) -> Self:
        await self._runner.begin(self._start_parts)
        self.loop = self._runner.loop
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.end()

    def drain(self) -> None:
        """Stop claiming and firing; give back running tasks after the grace period. A second call ends that period.

        Called on the event loop.
        """
        self._runner.drain()

    async def released(self) -> None:
        """Wait until a drain has given back all tasks that can be stopped, and this is stored."""
        await self._runner.released()

    async def until_idle(self) -> None:
        """Wait until nothing runs here and no stored task could begin here now. One may later."""
        while self._leases or not await self._claimer.found_nothing():  # noqa: ASYNC110  # used only for bursts
            await asyncio.sleep(IDLE_LOOK_EVERY)

    # Used by senders of this process (client.LocalWorker).

    def offer(self, tasks: int) -> Claim | None:
        most = 0 if self._runner.lifetime.draining.is_set() else self._slots.hold(tasks)
        return self._claimer.claim(most) if most else None

    def hold(self, leased: Sequence[Task], offered: Claim) -> None:
        new = [task for task in leased if task.lease not in self._leases]  # a call may be stored twice, and runs once
        if len(new) < offered.limit:
            self._slots.release(offered.limit - len(new))
        for task in new:
            self._attempts.add(task, Phase.HELD)

    def start(self, lease: Lease) -> bool:
        leased = self._leases.get(lease)
        if leased is None:
            return False
        if leased.move(Event.REQUEST_ENDED) and leased.phase is Phase.READY:
            self._slots.release()
            self._attempts.launch([leased])
        return True  # a task given back meanwhile is published as soon as that is stored

    def expect(self, tasks: int) -> None:
        self._claimer.ahead.expect(tasks)

    def stop(self, task: Task) -> None:
        self._runner.stop(task)

    @property
    def changes(self) -> int:
        return self._runner.changes

    def _start_parts(self) -> None:
        start = self._runner.parts.start
        start(CLAIMING, self._claimer.run)
        start("review the tasks that are set aside", self._review.run)
        self._unstarted.start(self._runner.parts)
        if self._scheduler.needed:
            start(SCHEDULING, self._scheduler.run)
