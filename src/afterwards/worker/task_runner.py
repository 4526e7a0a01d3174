"""The parts of a worker that run leased tasks, however it got them, and that keep the store in order."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from uuid import uuid4

from afterwards.core.options import Options
from afterwards.core.task import Task
from afterwards.engine import Engine
from afterwards.execution.failure_notice import MakeNotice
from afterwards.execution.function import Functions
from afterwards.execution.health import Health
from afterwards.execution.log_capture import capturing
from afterwards.execution.plain_runs import PlainRuns
from afterwards.execution.surroundings import Surroundings
from afterwards.worker.attempts import Attempts
from afterwards.worker.ends import Ends
from afterwards.worker.finisher import LINGER
from afterwards.worker.heartbeat import HeartbeatThread
from afterwards.worker.leased_task import LeasedTask
from afterwards.worker.leases import Leases
from afterwards.worker.lifetime import Lifetime
from afterwards.worker.loop_lag import measure
from afterwards.worker.maintenance import Maintenance
from afterwards.worker.parts import FINISHING, REGISTERING, Parts
from afterwards.worker.registration import Registration
from afterwards.worker.shutdown import Shutdown
from afterwards.worker.slots import Slots
from afterwards.worker.spawner import Spawner
from afterwards.worker.stopping import Stopping


class TaskRunner:
    """Runs leased tasks on the event loop that begins it. A part of its owner, named CLAIMING, gets them."""

    loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        engine: Engine,
        functions: Functions,
        options: Options,
        surroundings: Surroundings,
        *,
        slots: Slots[LeasedTask],
        make_notice: MakeNotice,
        clock: Callable[[], datetime],
        health: Health,
        plain_runs: PlainRuns,
        linger: float = LINGER,
    ) -> None:
        self.id = uuid4().hex  # new for each start: a restarted process is another worker
        self.lifetime = lifetime = Lifetime()
        self.parts = parts = Parts(lifetime, health)
        self.leases = leases = Leases(lifetime)
        self._engine = engine
        self._surroundings = surroundings
        self._health = health
        self._spawner = spawner = Spawner()
        self._ends = ends = Ends(
            *(engine, leases, surroundings.threads, spawner),
            worker=self.id,
            make_notice=make_notice,
            clock=clock,
            health=health,
            linger=linger,
        )
        self._heartbeat = HeartbeatThread(engine, options.lease, leases, health)
        self.attempts = Attempts(
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
        self._stopping = Stopping(self.attempts, leases, spawner, lifetime)
        self._registration = Registration(
            *(engine, self.id),
            names=lambda: functions.names,
            queues=options.queues,
            slots=options.slots,
            clock=clock,
            lateness=health.lateness,
            plain_runs=plain_runs,
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
        self._shutdown = Shutdown(
            options.grace,
            slots=slots,
            leases=leases,
            attempts=self.attempts,
            stopping=self._stopping,
            finisher=ends.finisher,
            registration=self._registration,
            parts=parts,
            lifetime=lifetime,
        )

    async def begin(self, start_claiming: Callable[[], None]) -> None:
        """Start all parts. ``start_claiming`` starts those of the owner."""
        self._spawner.open()
        self.loop = self._spawner.loop
        async with AsyncExitStack() as stack:
            await self._heartbeat.start(self._stopping)
            stack.push_async_callback(self._stop_heartbeat)
            await stack.enter_async_context(self.attempts.watchdog)
            stack.enter_context(capturing())
            self.parts.begin(await stack.enter_async_context(asyncio.TaskGroup()))
            start_claiming()
            self._start_parts()
            self._stack = stack.pop_all()

    async def end(self) -> None:
        """Drain, store all outcomes, and end all parts."""
        await self._shutdown.finish()
        self._surroundings.close()
        await self._stack.__aexit__(None, None, None)
        await self._surroundings.ended()

    def drain(self) -> None:
        """Stop claiming and firing; give back running tasks after the grace period. A second call ends that period.

        Called on the event loop.
        """
        self._shutdown.drain()

    async def released(self) -> None:
        """Wait until a drain has given back all tasks that can be stopped, and this is stored."""
        await self._shutdown.released()

    def stop(self, task: Task) -> None:
        """Stop a task whose cancellation was requested, if it runs here."""
        self._stopping.cancel(task)

    @property
    def changes(self) -> int:
        """A number that is another one after a task has begun or ended here, or reported progress."""
        return self.leases.changes + self._heartbeat.noted

    def _start_parts(self) -> None:
        start = self.parts.start
        start(FINISHING, self._ends.finisher.run)
        start("maintain the store", self._maintenance.run)
        start("stop tasks that do not end", self._stopping.run)
        start(REGISTERING, self._registration.run)
        start("measure the event loop", partial(measure, self._health.lateness))

    async def _stop_heartbeat(self) -> None:
        """Stop renewing, or keep renewing leases of attempts that could not be stopped until they end."""
        try:
            if self.leases.to_renew():
                await self._engine.__aenter__()  # until the heartbeat's thread leaves it
                self._heartbeat.stay()
        finally:
            self._heartbeat.stop()
