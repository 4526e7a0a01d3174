"""What a worker claims: as many tasks as it has free slots, and ahead of that what will begin in a moment."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from afterwards import telemetry
from afterwards.core.errors import EngineUnavailable
from afterwards.core.options import Options
from afterwards.core.task import Lease, Task
from afterwards.engine import Claim, Engine
from afterwards.worker.racing import first
from afterwards.worker.runnable import Functions
from afterwards.worker.slots import Slots
from afterwards.worker.supervisor import persist

LONGEST_WAIT = timedelta(seconds=5)
"""How long an idle worker waits before it looks by itself; engines wake it long before."""


class Claims:
    """The claims of a worker; ``take`` is given what came of them."""

    def __init__(
        self,
        engine: Engine,
        functions: Functions,
        options: Options,
        slots: Slots[Any],
        *,
        worker: str,
        take: Callable[[Sequence[Task]], None],
        draining: asyncio.Event,
    ) -> None:
        self._engine = engine
        self._functions = functions
        self._options = options
        self._slots = slots
        self._worker = worker
        self._take = take
        self._draining = draining
        self.freed = asyncio.Event()
        self._suspects: set[Lease] = set()
        self._suspect_over = asyncio.Event()
        self._made: dict[tuple[int, int], Claim] = {}  # by their limit and suspects
        self._ahead = 0  # so many claims are under way
        self._none_ahead = asyncio.Event()
        self._none_ahead.set()

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
        while not self._draining.is_set():
            try:
                await self._claim_some()
            except Exception as error:  # a worker that stopped claiming would be worse than any bug
                telemetry.loop_broken("claim tasks", error)
                await asyncio.sleep(1)
        await self._none_ahead.wait()

    @property
    def ahead(self) -> int:
        """How many tasks may be claimed now that have no slot yet."""
        if self._draining.is_set() or not self._functions.patient:
            return 0
        return max(0, self._slots.free) + self._slots.soon

    async def claim_ahead(self, most: int) -> None:
        """Claim what will begin in a moment: with its first step, so that what is queued then is among it."""
        if self._draining.is_set():  # since it was begun
            return
        self._ahead += 1
        self._none_ahead.clear()
        try:
            claim = replace(self.claim(most), names=self._functions.patient, suspects=0)
            self._take(await self._engine.claim(claim))
        except EngineUnavailable:  # nor was anything queued
            pass
        except Exception as error:
            telemetry.loop_broken("claim tasks", error)
        finally:
            self._ahead -= 1
            if not self._ahead:
                self._none_ahead.set()

    def suspect_began(self, lease: Lease) -> None:
        """A task is here that may have ended another worker: no other suspect is claimed beside it."""
        self._suspects.add(lease)

    def suspect_ended(self, lease: Lease) -> None:
        """A task has ended, which may have been one."""
        if self._suspects and lease in self._suspects:
            self._suspects.remove(lease)
            self._suspect_over.set()

    async def _claim_some(self) -> None:
        self.freed.clear()
        slots = self._slots.free
        if slots < 1:
            await first(self.freed.wait(), self._draining.wait())
            return
        self._suspect_over.clear()
        claim, tasks = self.claim(slots), list[Task]()
        self._slots.reserve(slots)
        try:
            tasks = await persist("claim tasks", partial(self._engine.claim, claim))
        finally:
            self._slots.reserve(-slots)
            self._take(tasks)  # none, too: what waits for the slots that were set aside may start
        if len(tasks) < slots:
            # No engine tells that a suspect has ended here, which lets the next one start.
            suspect = claim.suspects == 0 or any(task.suspect for task in tasks)
            others = [self._suspect_over.wait()] if suspect else []
            await first(self._engine.wait(LONGEST_WAIT), self._draining.wait(), *others)
