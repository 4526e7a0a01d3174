"""The worker: claims as many tasks as it has free slots, runs them, and stores how they ended."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self

from afterwards.core.options import Options
from afterwards.core.task import Lease, Task
from afterwards.engine import Claim, Engine
from afterwards.execution.failure_notice import MakeNotice
from afterwards.execution.function import Functions
from afterwards.execution.health import Health
from afterwards.execution.log_capture import capturing
from afterwards.execution.plain_runs import PlainRuns
from afterwards.execution.surroundings import Surroundings
from afterwards.worker.attempts import Attempts
from afterwards.worker.claimer import Claimer
from afterwards.worker.ends import Ends
from afterwards.worker.heartbeat import HeartbeatThread
from afterwards.worker.leased_task import Event, LeasedTask, Phase
from afterwards.worker.leases import Leases
from afterwards.worker.lifetime import Lifetime
from afterwards.worker.loop_lag import measure
from afterwards.worker.maintenance import Maintenance
from afterwards.worker.parts import CLAIMING, FINISHING, REGISTERING, SCHEDULING, Parts
from afterwards.worker.registration import Registration
from afterwards.worker.scheduler import Scheduler, Timetable
from afterwards.worker.set_aside import SetAsideReview
from afterwards.worker.shutdown import Shutdown
from afterwards.worker.slots import Slots
from afterwards.worker.spawner import Spawner
from afterwards.worker.stopping import Stopping
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
        self._health = health = health or Health()
        self.id = uuid.uuid4().hex  # new for each start: a restarted process is another worker
        self._engine = engine
        self._surroundings = surroundings
        self._lifetime = lifetime = Lifetime()
        self._spawner = spawner = Spawner()
        self._parts = parts = Parts(lifetime, health)
        self._slots = slots = Slots[LeasedTask](options.slots)
        self._leases = leases = Leases(lifetime)
        self._ends = ends = Ends(
            *(engine, leases, surroundings.threads, spawner),
            worker=self.id,
            make_notice=make_notice,
            clock=clock,
            health=health,
        )
        self._heartbeat = HeartbeatThread(engine, options.lease, leases, health)
        self._attempts = Attempts(
            *(functions, surroundings),
            slots=slots,
            leases=leases,
            ends=ends,
            heartbeat=self._heartbeat,
            spawner=spawner,
            parts=parts,
            lifetime=lifetime,
            lateness=health.lateness,
        )
        self._claimer = Claimer(
            *(engine, functions, options, slots),
            worker=self.id,
            taker=self._attempts,
            suspects=leases.suspects,
            lifetime=lifetime,
            health=health,
        )
        self._stopping = Stopping(self._attempts, leases, spawner, lifetime)
        self._unstarted = Unstarted(self._attempts, leases)
        self._registration = Registration(
            *(engine, self.id, functions, options),
            clock=clock,
            lateness=health.lateness,
            plain_runs=plain_runs or PlainRuns(),
        )
        self._maintenance = Maintenance(
            *(engine, functions, options),
            make_notice=make_notice,
            notify=ends.notify,
            clock=clock,
            health=health,
            leaseholder=leases,
            probe=self._registration.register,
            jumped=self._heartbeat.hurry,
        )
        self._review = SetAsideReview(engine, functions, self._claimer)
        self._scheduler = Scheduler(engine, timetable, clock=clock)
        self._shutdown = Shutdown(
            options.grace,
            slots=slots,
            leases=leases,
            attempts=self._attempts,
            stopping=self._stopping,
            finisher=ends.finisher,
            registration=self._registration,
            parts=parts,
            lifetime=lifetime,
        )

    async def __aenter__(self) -> Self:
        self._spawner.open()
        self.loop = self._spawner.loop
        async with AsyncExitStack() as stack:
            await self._heartbeat.start(self._stopping)
            stack.push_async_callback(self._stop_heartbeat)
            await stack.enter_async_context(self._attempts.watchdog)
            stack.enter_context(capturing())
            self._parts.begin(await stack.enter_async_context(asyncio.TaskGroup()))
            self._start_parts()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._shutdown.finish()
        self._surroundings.close()
        await self._stack.__aexit__(None, None, None)
        await self._surroundings.ended()

    def drain(self) -> None:
        """Stop claiming and firing; give back running tasks after the grace period. A second call ends that period.

        Called on the event loop.
        """
        self._shutdown.drain()

    async def until_idle(self) -> None:
        """Wait until nothing runs here and no stored task could begin here now. One may later."""
        while self._leases or not await self._claimer.found_nothing():  # noqa: ASYNC110  # used only for bursts
            await asyncio.sleep(IDLE_LOOK_EVERY)

    # Used by senders of this process (client.LocalWorker).

    def offer(self, tasks: int) -> Claim | None:
        most = 0 if self._lifetime.draining.is_set() else self._slots.hold(tasks)
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
        self._stopping.cancel(task)

    @property
    def changes(self) -> int:
        return self._leases.changes + self._heartbeat.noted

    def _start_parts(self) -> None:
        start = self._parts.start
        start(CLAIMING, self._claimer.run)
        start(FINISHING, self._ends.finisher.run)
        start("maintain the store", self._maintenance.run)
        start("review the tasks that are set aside", self._review.run)
        self._unstarted.start(self._parts)
        start("stop tasks that do not end", self._stopping.run)
        start(REGISTERING, self._registration.run)
        start("measure the event loop", partial(measure, self._health.lateness))
        if self._scheduler.needed:
            start(SCHEDULING, self._scheduler.run)

    async def _stop_heartbeat(self) -> None:
        """Stop renewing, or keep renewing leases of attempts that could not be stopped until they end."""
        try:
            if self._leases.to_renew():
                await self._engine.__aenter__()  # until the heartbeat's thread leaves it
                self._heartbeat.stay()
        finally:
            self._heartbeat.stop()
