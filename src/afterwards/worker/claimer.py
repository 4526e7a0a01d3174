"""What a worker claims: as many tasks as it has free slots, and ahead of that what will begin in a moment."""

import asyncio
from collections.abc import Collection, Sequence
from contextvars import copy_context
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

from afterwards import telemetry
from afterwards.core.errors import EngineUnavailable
from afterwards.core.options import Options
from afterwards.core.task import Task
from afterwards.engine import Claim, Engine
from afterwards.execution.function import Functions
from afterwards.execution.health import Health
from afterwards.execution.retrying import persist
from afterwards.worker.leases import Suspects
from afterwards.worker.lifetime import Lifetime
from afterwards.worker.racing import first
from afterwards.worker.slots import Slots

LONGEST_WAIT = timedelta(seconds=5)
"""How long an idle worker waits before it looks by itself; engines wake it long before."""


class Taker(Protocol):
    """Who runs what is claimed."""

    def take(self, tasks: Sequence[Task]) -> None:
        """Start these, and with them what waited while slots were set aside."""
        ...

    def give_back(self, tasks: Sequence[Task]) -> None:
        """Give these back, which must not wait here for a slot."""
        ...


class Claimer:
    """Claims for one worker, until it drains."""

    def __init__(
        self,
        engine: Engine,
        functions: Functions,
        options: Options,
        slots: Slots[Any],
        *,
        worker: str,
        taker: Taker,
        suspects: Suspects,
        lifetime: Lifetime,
        health: Health | None = None,
    ) -> None:
        self._health = health or Health()
        self._engine = engine
        self._functions = functions
        self._options = options
        self._slots = slots
        self._worker = worker
        self._taker = taker
        self._suspects = suspects
        self._draining = lifetime.draining
        self._context = copy_context()  # that of no request
        self._again = suspects.cleared  # something can be claimed of which no engine tells
        self._made: dict[tuple[int, int], Claim] = {}  # by their limit and suspects
        self._queued = 0  # tasks that are about to be, by this process
        self._ahead: asyncio.Task[None] | None = None  # will claim some of them
        self._under_way: set[asyncio.Task[None]] = set()  # what claims ahead
        self._needs_slot: dict[str, str] = {}  # tasks that a claim ahead gave back, by id, and their functions

    def claim(self, limit: int) -> Claim:
        """A claim of so many tasks."""
        names, limits, suspects = self._functions.names, self._functions.limits, 0 if self._suspects else 1
        claim = self._made.get((limit, suspects))  # most requests offer the same
        if claim is None or claim.names is not names or claim.limits is not limits:
            claim = self._made[limit, suspects] = Claim(
                worker=self._worker,
                limit=limit,
                lease=self._options.lease,
                names=names,
                queues=self._options.queues,
                suspects=suspects,
                limits=limits,
            )
        return claim

    async def run(self) -> None:
        """Claim until the worker drains."""
        try:
            while not self._draining.is_set():
                try:
                    await self._claim_some()
                except Exception as error:  # a worker that stopped claiming would be worse than any bug
                    self._health.failed("claim tasks", error)
                    await asyncio.sleep(1)
                else:
                    self._health.well("claim tasks")
            if self._under_way:
                await asyncio.wait(self._under_way)
        finally:
            for claiming in self._under_way:
                claiming.cancel()

    def expect(self, tasks: int) -> None:
        """So many tasks are about to be queued in this turn of the event loop: claim what of them will begin soon."""
        if self._ahead is None:
            if not self._slots.soon:
                return
            # Its first step comes before the engine is handed what is asked for in this turn.
            self._ahead = asyncio.get_running_loop().create_task(self._claim_ahead(), context=self._context.copy())
            self._under_way.add(self._ahead)
            self._ahead.add_done_callback(self._under_way.discard)
        self._queued += tasks

    async def _claim_ahead(self) -> None:
        queued, self._queued, self._ahead = self._queued, 0, None
        most, names = min(2 * queued, self._slots.soon), self._functions.patient - {*self._needs_slot.values()}
        if not (most and names) or self._draining.is_set():
            return
        try:
            with self._slots.claiming_ahead(most):
                tasks = await self._engine.claim(replace(self.claim(most), names=names, suspects=0))
        except EngineUnavailable:  # who queues them has the same trouble, and says so
            return
        except Exception as error:
            telemetry.loop_broken("claim tasks", error)
            return
        finally:
            self._again.set()  # the engine tells no more of what this one left
        self._taker.take(tasks)
        if given_back := [task for task in tasks if not task.rerun_after_crash]:
            self._needs_slot |= {task.id: task.name for task in given_back}
            self._taker.give_back(given_back)

    async def bring_back(self, ids: Collection[str]) -> None:
        """Claim tasks that were set aside; those for which no slot is free are queued, for any worker."""
        if self._draining.is_set():
            return
        slots, tasks = max(0, self._slots.free), list[Task]()
        try:
            with self._slots.reserved(slots):
                tasks = await self._engine.claim(replace(self.claim(slots), ids=frozenset(ids)))
        finally:
            self._taker.take(tasks)

    async def _claim_some(self) -> None:
        self._slots.freed.clear()
        slots = self._slots.free
        if slots < 1:
            await first(self._slots.freed.wait(), self._draining.wait())
            return
        self._again.clear()
        claim, tasks = self.claim(slots), list[Task]()
        try:
            with self._slots.reserved(slots):
                tasks = await persist("claim tasks", partial(self._engine.claim, claim))
        finally:
            self._taker.take(tasks)  # none, too: what waits for the slots that were set aside may start
        self._claimed(tasks, queue_is_empty=len(tasks) < slots)
        if len(tasks) < slots:
            await first(self._engine.wait(LONGEST_WAIT), self._draining.wait(), self._again.wait())

    def _claimed(self, tasks: Sequence[Task], *, queue_is_empty: bool) -> None:
        """Claim a function's tasks ahead again, once its task that needed a free slot has left the queue."""
        if queue_is_empty:
            self._needs_slot.clear()
        elif self._needs_slot:
            for task in tasks:
                self._needs_slot.pop(task.id, None)
