"""Count the slots of a worker (free, reserved, lent), and the tasks that wait for one or are held back."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")

HELD_PER_SLOT = 2
"""Tasks per slot that a worker leases for unfinished requests. They take no slot until they start, and most requests
end at once; but a task leased here runs nowhere else."""

PACE_WINDOW = 0.1
"""Seconds that a task may wait here for a slot, although another worker might start it."""

MOST_PER_SLOT = 20
"""Most tasks per slot that a worker leases if they end so quickly that none waits for long."""


class Slots(Generic[T]):
    """Counts running tasks, and keeps ready ones in order of arrival. ``now`` returns seconds."""

    def __init__(self, count: int, now: Callable[[], float] = monotonic) -> None:
        self._count = count
        self._now = now
        self._running = 0
        self._lent = 0  # lent to others by tasks that wait for another task's result
        self._waiting = 0  # running tasks that wait for a result but could not lend: the limit was reached
        self._reserved = 0  # for tasks that are being claimed
        self._held = 0  # tasks held back by a request, or being stored for one
        self._ahead = 0  # tasks being claimed before a slot is free
        self._ended: deque[float] = deque(maxlen=count * MOST_PER_SLOT)  # when the last tasks ended
        self.ready: deque[T] = deque()
        self.freed = asyncio.Event()  # there may be a free slot; cleared by the reader

    @property
    def free(self) -> int:
        return self._room - self._reserved - len(self.ready)

    @property
    def soon(self) -> int:
        """Return how many more tasks than free slots can start within 100 ms, at the current rate of ends."""
        return max(0, self._pace() - len(self.ready) - self._held - self._reserved - self._ahead)

    @contextmanager
    def reserved(self, slots: int) -> Iterator[None]:
        """Reserve slots inside the block."""
        self._reserved += slots
        try:
            yield
        finally:
            self._reserved -= slots

    @contextmanager
    def claiming_ahead(self, tasks: int) -> Iterator[None]:
        """Count tasks without a slot as being claimed inside the block."""
        self._ahead += tasks
        try:
            yield
        finally:
            self._ahead -= tasks

    def hold(self, tasks: int) -> int:
        """Count up to ``tasks`` as held, and return how many; 0 while others would wait for more than 100 ms."""
        most = self._count * HELD_PER_SLOT
        if self.ready or self._running >= self._count:
            most = self._pace() - len(self.ready)
        elif self._held + tasks > most:
            most = max(most, self._pace())
        held = max(0, min(tasks, most - self._held))
        self._held += held
        return held

    def release(self, tasks: int = 1) -> None:
        """Count tasks as no longer held."""
        self._held -= tasks

    def next(self) -> T | None:
        """Return the next task that may start now, and take a slot for it. None if there is none."""
        if not self.ready or self._reserved >= self._room:
            return None
        self._running += 1
        return self.ready.popleft()

    def drop(self, one: T) -> None:
        """Remove a task that waited for a slot."""
        self.ready.remove(one)
        self.freed.set()

    def lend(self) -> bool:
        """Lend the slot of a task that only waits. Return False if as many are lent as there are slots.

        The task then keeps its slot. If all running tasks wait with their slots, one more may start: no deadlock.
        """
        self.freed.set()
        if self._lent >= self._count:
            self._waiting += 1
            return False
        self._lent += 1
        self._running -= 1
        return True

    def take_back(self, *, lent: bool) -> None:
        """Count a waiting task as running again, even if more tasks than slots run for a while."""
        if lent:
            self._lent -= 1
            self._running += 1
        else:
            self._waiting -= 1

    def leave(self) -> None:
        """Count a running task as ended."""
        self._running -= 1
        self._ended.append(self._now())
        self.freed.set()

    @property
    def _room(self) -> int:
        """The number of slots in which no task runs."""
        stuck = self._running == self._waiting > 0
        return max(self._count - self._running, int(stuck))

    def _pace(self) -> int:
        """Return how many tasks ended within the last 100 ms. About as many will begin within the next 100 ms."""
        since = self._now() - PACE_WINDOW
        while self._ended and self._ended[0] < since:
            self._ended.popleft()
        return len(self._ended)
