"""Claim as many tasks as a worker has free slots."""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from afterwards.core.options import Options
from afterwards.core.task import Task
from afterwards.engine import Claim, Engine
from afterwards.execution.function import Functions
from afterwards.execution.health import Health
from afterwards.execution.retrying import persist
from afterwards.worker.claim_ahead import ClaimAhead, Taker
from afterwards.worker.leases import Suspects
from afterwards.worker.lifetime import Lifetime
from afterwards.worker.racing import first
from afterwards.worker.slots import Slots

LONGEST_WAIT = timedelta(seconds=5)
"""Time after which an idle worker polls; engines wake it long before."""

LOOK_EVERY = 0.02
"""Seconds between two checks whether a claim has been made."""


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
        self._claimed = asyncio.Event()  # a claim was made
        self._found = 0  # number of tasks that the last claim returned
        self._again = suspects.cleared  # something can be claimed that no engine announces
        self._made: dict[tuple[int, int], Claim] = {}  # by limit and number of suspects
        self.ahead = ClaimAhead(
            *(engine, functions, slots), claim=self.claim, taker=taker, lifetime=lifetime, claimed=self._again
        )

    def claim(self, limit: int) -> Claim:
        """Return a claim for up to ``limit`` tasks."""
        names, limits, suspects = self._functions.names, self._functions.limits, 0 if self._suspects else 1
        claim = self._made.get((limit, suspects))  # most requests offer the same number
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
                except Exception as error:  # a worker must never stop claiming because of a bug
                    self._health.failed("claim tasks", error)
                    await asyncio.sleep(1)
                else:
                    self._health.well("claim tasks")
            self._health.rests()
            await self.ahead.ended()
        finally:
            self.ahead.cancel()

    async def found_nothing(self) -> bool:
        """Return whether a claim that starts after this call finds nothing to run here."""
        found = 0
        for _ in range(2):  # the first may have started before this call
            self._claimed.clear()
            self._again.set()
            await first(self._claimed.wait(), self._draining.wait())
            found += self._found  # what the first has claimed runs now, and tasks may follow it
        return found == 0

    async def bring_back(self, ids: Collection[str]) -> None:
        """Claim tasks that were set aside. Those without a free slot are queued, for any worker."""
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
            self._health.rests()
            await first(self._slots.freed.wait(), self._draining.wait())
            return
        self._again.clear()
        claim, tasks = self.claim(slots), list[Task]()
        try:
            with self._slots.reserved(slots):
                tasks = await persist("claim tasks", partial(self._claimed_by, claim))
        finally:
            self._taker.take(tasks)  # also if empty: tasks that wait for the reserved slots may start
        self._found = len(tasks)
        self._claimed.set()
        self.ahead.note(tasks, queue_is_empty=len(tasks) < slots)
        if len(tasks) < slots:
            await first(self._engine.wait(LONGEST_WAIT), self._draining.wait(), self._again.wait())

    async def _claimed_by(self, claim: Claim) -> list[Task]:
        self._health.claims()  # also when the store is away: a restart would not bring it back
        return await self._engine.claim(claim)
