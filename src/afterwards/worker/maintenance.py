"""Maintain the store: reclaim tasks of dead workers, and delete records past their retention."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from time import monotonic

from afterwards import telemetry
from afterwards.core import quiet_period, settling
from afterwards.core.errors import EngineUnavailable, UnknownFunction
from afterwards.core.options import Options
from afterwards.core.routing import FORGOTTEN_AFTER
from afterwards.core.settling import Settled
from afterwards.core.task import LEASE_ENDED, FailedTask, Lease, Task
from afterwards.engine import Engine
from afterwards.execution.failure_notice import MakeNotice, with_notice
from afterwards.execution.function import Functions, Runnable
from afterwards.execution.health import Health
from afterwards.execution.process_wide import Leaseholder, process_wide
from afterwards.execution.retrying import keep_doing

RECLAIM_EVERY = timedelta(seconds=1)
PRUNE_EVERY = timedelta(minutes=1)
AT_ONCE = 500
"""Maximum of rows that one write reclaims or deletes, so that no lock is held for long."""

SLOW = timedelta(seconds=2)
"""A write that takes longer counts as a failing store."""

Notify = Callable[[Runnable, FailedTask], None]
"""Call a plain ``on_failure``, once the failure is stored."""


async def _nothing() -> None:
    """A probe that does nothing."""


class Maintenance:
    """Runs in every worker. Several at a time are harmless: every write is fenced."""

    def __init__(
        self,
        engine: Engine,
        functions: Functions,
        options: Options,
        *,
        make_notice: MakeNotice,
        notify: Notify,
        clock: Callable[[], datetime],
        health: Health | None = None,
        steady: Callable[[], float] = monotonic,
        leaseholder: Leaseholder | None = None,
        probe: Callable[[], Awaitable[None]] = _nothing,
        jumped: Callable[[], None] = lambda: None,
        waits_for_renewals: bool = True,
    ) -> None:
        self._health = health
        self._engine = engine
        self._functions = functions
        self._reclaim_every = min(RECLAIM_EVERY, options.lease / 3)
        self._make_notice = make_notice
        self._notify = notify
        self._clock = clock
        self._steady = steady
        self._leaseholder = leaseholder
        self._probe = probe  # a write that tests whether the store accepts writes
        self._jumped = jumped
        self._waits_for_renewals = waits_for_renewals
        self._lease = options.lease
        self._wrong = False  # the clock may have been set back since the stored times were last corrected
        self._quiet = quiet_period.at_start(options.lease, clock(), steady())

    async def run(self) -> None:
        """Maintain the store until cancelled."""
        self._wrong = True  # the clock may have been set back while no worker ran
        if self._leaseholder is not None:
            process_wide.leaseholders.add(self._leaseholder)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(keep_doing("take back lost tasks", self._reclaim_every, self.reclaim, self._health))
                group.create_task(keep_doing("prune", PRUNE_EVERY, self.prune))
        finally:
            if self._leaseholder is not None:
                process_wide.leaseholders.discard(self._leaseholder)

    async def reclaim(self) -> None:
        """Settle the tasks of dead workers. The attempt counts; the crash counts only against a suspect.

        Tasks still held by a worker that shut down cleanly are given back, because nothing crashed.
        """
        self._look()
        if self._wrong:
            if await self._engine.put_right(self._lease):
                telemetry.clock_corrected()
            self._wrong = False
        while tasks := await self._lost():
            settled_all = await self._settled(tasks)
            lost = [self._with_notice(task, settled_all[task.lease]) for task in tasks]
            refused = set(await self._engine.finish([settled for settled, _ in lost]))
            for task, (settled, failed) in zip(tasks, lost, strict=True):
                if settled.lease not in refused:
                    telemetry.lost(task, settled)
                    if failed:
                        self._notify(self._functions.get(task.name), failed)
            if len(tasks) < AT_ONCE:
                return

    async def prune(self) -> None:
        while await self._engine.prune(AT_ONCE) == AT_ONCE:
            pass

    async def _settled(self, tasks: Sequence[Task]) -> dict[Lease, Settled]:
        """Return the decisions about lost tasks, by lease."""
        now = self._clock()
        left = {worker.id for worker in await self._engine.workers(FORGOTTEN_AFTER) if worker.has_left}
        behind = [settling.left_behind(task, now=now) for task in tasks if task.worker in left]
        lost = settling.lose_all([task for task in tasks if task.worker not in left], now=now)
        return {settled.lease: settled for settled in (*behind, *lost)}

    def _look(self) -> None:
        """Detect what may have kept live workers from renewing their leases."""
        self._quiet = quiet_period.observe(self._quiet, self._clock(), self._steady())
        if self._quiet.jump:
            telemetry.clock_jumped(self._quiet.jump)
            self._jumped()
            self._wrong |= self._quiet.jump < timedelta()  # several small steps back make a correction

    async def _lost(self) -> list[Task]:
        """Return the tasks of dead workers. A worker that is only silent must have had time to renew its leases."""
        held = _held_here()
        try:
            expired = await self._engine.expired(AT_ONCE + len(held))
            held |= _held_here()
            others = [task for task in expired if task.lease not in held]
            dead = [task for task in others if task.lease_until == LEASE_ENDED]
            if len(dead) < len(others) and await self._had_time():
                dead = others
        except EngineUnavailable:
            self._disturb()
            raise
        return dead[:AT_ONCE]

    async def _had_time(self) -> bool:
        """Return whether every live worker has had time to renew: the store accepted writes, and no clock jumped."""
        if not self._waits_for_renewals:
            return True
        began = self._steady()
        await self._probe()
        self._look()
        if self._steady() - began > SLOW.total_seconds():
            self._disturb()
        return self._quiet.long_enough

    def _disturb(self) -> None:
        self._quiet = quiet_period.interrupted(self._quiet, self._steady())

    def _with_notice(self, task: Task, settled: Settled) -> tuple[Settled, FailedTask | None]:
        try:
            function = self._functions.get(task.name)
        except UnknownFunction:
            return settled, None  # from another deploy: nothing here is to be notified
        return with_notice(function, task, settled, self._make_notice)


def _held_here() -> set[Lease]:
    """Return the leases that the workers of this process hold."""
    return {lease for holder in process_wide.leaseholders.copy() for lease in holder.leases()}
