"""Claim tasks as they are queued, ahead of any free slot, where they will begin within 100 ms.

While the queue is not empty, new tasks cannot be stored as leased at once. In a burst that would be each of them, at
several times the cost.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import replace
from typing import Any, Protocol

from afterwards import telemetry
from afterwards.core.errors import EngineUnavailable
from afterwards.core.task import Task
from afterwards.engine import Claim, Engine
from afterwards.execution.function import Functions
from afterwards.worker.lifetime import Lifetime
from afterwards.worker.slots import Slots


class Taker(Protocol):
    """Who runs what is claimed."""

    def take(self, tasks: Sequence[Task]) -> None:
        """Start these, and with them what waited while slots were set aside."""
        ...

    def give_back(self, tasks: Sequence[Task]) -> None:
        """Give these back, which must not wait here for a slot."""
        ...


class ClaimAhead:
    """The claims of one worker for which it has no free slot yet."""

    def __init__(
        self,
        engine: Engine,
        functions: Functions,
        slots: Slots[Any],
        *,
        claim: Callable[[int], Claim],
        taker: Taker,
        lifetime: Lifetime,
        claimed: asyncio.Event,
    ) -> None:
        self._engine = engine
        self._functions = functions
        self._slots = slots
        self._claim = claim
        self._taker = taker
        self._draining = lifetime.draining
        self._claimed = claimed  # set after each: the engine tells no more of what it left
        self._context = copy_context()  # that of no request
        self._queued = 0  # tasks that are about to be, by this process
        self._next: asyncio.Task[None] | None = None  # will claim some of them
        self._under_way: set[asyncio.Task[None]] = set()
        self._given_back: dict[str, str] = {}  # tasks that must not wait with a lease, by id, and their functions

    def expect(self, tasks: int) -> None:
        """So many tasks are about to be queued in this turn of the event loop: claim what of them will begin soon."""
        if self._next is None:
            if not self._slots.soon:
                return
            # Its first step comes before the engine is handed what is asked for in this turn.
            self._next = asyncio.get_running_loop().create_task(self._claim_some(), context=self._context.copy())
            self._under_way.add(self._next)
            self._next.add_done_callback(self._under_way.discard)
        self._queued += tasks

    def note(self, claimed: Sequence[Task], *, queue_is_empty: bool) -> None:
        """Claim a function's tasks ahead again, once its task that went back has left the queue."""
        if queue_is_empty:
            self._given_back.clear()
        elif self._given_back:
            for task in claimed:
                self._given_back.pop(task.id, None)

    @property
    def waits_for_slots(self) -> bool:
        """Whether a task went back that must begin at once when it is claimed."""
        return bool(self._given_back)

    async def ended(self) -> None:
        """Return when no claim is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def cancel(self) -> None:
        for claiming in self._under_way:
            claiming.cancel()

    async def _claim_some(self) -> None:
        queued, self._queued, self._next = self._queued, 0, None
        most, names = min(2 * queued, self._slots.soon), self._functions.patient - {*self._given_back.values()}
        if not (most and names) or self._draining.is_set():
            return
        try:
            with self._slots.claiming_ahead(most):
                tasks = await self._engine.claim(replace(self._claim(most), names=names, suspects=0))
        except EngineUnavailable:  # who queues them has the same trouble, and says so
            return
        except Exception as error:
            telemetry.loop_broken("claim tasks", error)
            return
        finally:
            self._claimed.set()
        self._taker.take(tasks)
        if given_back := [task for task in tasks if not task.rerun_after_crash]:
            self._given_back |= {task.id: task.name for task in given_back}
            self._taker.give_back(given_back)
