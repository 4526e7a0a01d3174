"""Claim tasks when they are queued, before a slot is free, if they will begin within 100 ms.

While the queue is not empty, new tasks cannot be stored as already leased. In a burst that would affect every
task, and each would cost several times as much.
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

LEFT_FOR = 5.0
"""Seconds after which a function is claimed ahead again, although its task that was given back was not seen since:
another process may have run it, or somebody has cancelled it."""


class Taker(Protocol):
    """Runs the claimed tasks."""

    def take(self, tasks: Sequence[Task]) -> None:
        """Start these tasks, and those that waited while slots were reserved."""
        ...

    def give_back(self, tasks: Sequence[Task]) -> None:
        """Give back tasks that must not wait here for a slot."""
        ...


class ClaimAhead:
    """Makes a worker's claims for tasks that have no free slot yet."""

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
        self._claimed = claimed  # set after each claim: the engine does not announce again what it left
        self._context = copy_context()  # not the context of any request
        self._queued = 0  # number of tasks that this process is about to queue
        self._next: asyncio.Task[None] | None = None  # will claim some of them
        self._under_way: set[asyncio.Task[None]] = set()
        self._given_back: dict[str, tuple[str, float]] = {}  # function and time by id: must not wait leased

    def expect(self, tasks: int) -> None:
        """Claim those of the tasks about to be queued in this turn of the event loop that will begin soon."""
        if self._next is None:
            if not self._slots.soon:
                return
            # Its first step runs before the engine gets the operations requested in this turn.
            self._next = asyncio.get_running_loop().create_task(self._claim_some(), context=self._context.copy())
            self._under_way.add(self._next)
            self._next.add_done_callback(self._under_way.discard)
        self._queued += tasks

    def note(self, claimed: Sequence[Task], *, queue_is_empty: bool) -> None:
        """Resume claiming a function's tasks ahead, once its task that was given back has left the queue."""
        if queue_is_empty:
            self._given_back.clear()
        elif self._given_back:
            for task in claimed:
                self._given_back.pop(task.id, None)

    @property
    def waits_for_slots(self) -> bool:
        """Return whether a task was given back that must begin as soon as it is claimed."""
        return bool(self._left_to_slots())

    async def ended(self) -> None:
        """Return when no claim is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def cancel(self) -> None:
        for claiming in self._under_way:
            claiming.cancel()

    async def _claim_some(self) -> None:
        queued, self._queued, self._next = self._queued, 0, None
        most, names = min(2 * queued, self._slots.soon), self._functions.claimed_ahead - self._left_to_slots()
        if not (most and names) or self._draining.is_set():
            return
        try:
            with self._slots.claiming_ahead(most):
                tasks = await self._engine.claim(replace(self._claim(most), names=names, suspects=0))
        except EngineUnavailable:  # the sender that queues them sees the same error and reports it
            return
        except Exception as error:
            telemetry.loop_broken("claim tasks", error)
            return
        finally:
            self._claimed.set()
        self._taker.take(tasks)
        if given_back := [task for task in tasks if not task.rerun_after_crash]:
            now = asyncio.get_running_loop().time()
            self._given_back |= {task.id: (task.name, now) for task in given_back}
            self._taker.give_back(given_back)

    def _left_to_slots(self) -> set[str]:
        """Return the functions that are not claimed ahead for now."""
        if not self._given_back:  # the usual case
            return set()
        since = asyncio.get_running_loop().time() - LEFT_FOR
        self._given_back = {id: (name, at) for id, (name, at) in self._given_back.items() if at > since}
        return {name for name, _ in self._given_back.values()}
