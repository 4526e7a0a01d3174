"""Count the slots of a worker: which are free, reserved, lent, and how many tasks wait for one or are held back."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")

HELD_PER_SLOT = 2
"""How many tasks a worker leases for requests that still go on. They take no slot until they start, and most requests
end at once; but what is leased here runs nowhere else."""

PACE_WINDOW = 0.1
"""Seconds that a task may wait here for a slot, although it might begin elsewhere."""

MOST_PER_SLOT = 20
"""How many tasks a worker leases at most where they end so quickly that none of them waits for long."""


class Slots(Generic[T]):
    """Counts what runs, and keeps what is ready in the order in which it came. ``now`` gives seconds."""

    def __init__(self, count: int, now: Callable[[], float] = monotonic) -> None:
        self._count = count
        self._now = now
        self._running = 0
        self._lent = 0  # to others, by tasks that wait for the result of another one
        self._waiting = 0  # of those that run: such tasks, as many being lent already as may be
        self._reserved = 0  # for what is being claimed
        self._held = 0  # held back by a request, or being stored for one
        self._ahead = 0  # being claimed ahead of any slot
        self._ended: deque[float] = deque(maxlen=count * MOST_PER_SLOT)  # when the last ones did
        self.ready: deque[T] = deque()
        self.freed = asyncio.Event()  # there may be a free slot; cleared by who looks

    @property
    def free(self) -> int:
        return self._room - self._reserved - len(self.ready)

    @property
    def soon(self) -> int:
        """How many more tasks than free slots can start within 100 ms, at the pace of the last ones."""
        return max(0, self._pace() - len(self.ready) - self._held - self._reserved - self._ahead)

    @contextmanager
    def reserved(self, slots: int) -> Iterator[None]:
        """Set slots aside meanwhile."""
        self._reserved += slots
        try:
            yield
        finally:
            self._reserved -= slots

    @contextmanager
    def claiming_ahead(self, tasks: int) -> Iterator[None]:
        """Count tasks for which there is no slot yet, as they are being claimed meanwhile."""
        self._ahead += tasks
        try:
            yield
        finally:
            self._ahead -= tasks

    def hold(self, tasks: int) -> int:
        """Count as many of so many tasks as held as may be: none while others wait for more than 100 ms."""
        most = self._count * HELD_PER_SLOT
        if self.ready or self._running >= self._count:
            most = self._pace() - len(self.ready)
        elif self._held + tasks > most:
            most = max(most, self._pace())
        held = max(0, min(tasks, most - self._held))
        self._held += held
        return held

    def release(self, tasks: int = 1) -> None:
        """Count tasks as held no longer."""
        self._held -= tasks

    def next(self) -> T | None:
        """Return what may start now, which takes a slot with that."""
        if not self.ready or self._reserved >= self._room:
            return None
        self._running += 1
        return self.ready.popleft()

    def drop(self, one: T) -> None:
        """Forget what waited for a slot."""
        self.ready.remove(one)
        self.freed.set()

    def lend(self) -> bool:
        """Let another one have the slot of one that only waits. False when as many are lent as there are slots.

        Then it keeps its slot. Where all that run wait with theirs, there is one more: nobody would ever go on.
        """
        self.freed.set()
        if self._lent >= self._count:
            self._waiting += 1
            return False
        self._lent += 1
        self._running -= 1
        return True

    def take_back(self, *, lent: bool) -> None:
        """One that waited goes on, even if there are more than slots for a while."""
        if lent:
            self._lent -= 1
            self._running += 1
        else:
            self._waiting -= 1

    def leave(self) -> None:
        """One that ran has ended."""
        self._running -= 1
        self._ended.append(self._now())
        self.freed.set()

    @property
    def _room(self) -> int:
        """How many slots nobody runs in."""
        stuck = self._running == self._waiting > 0
        return max(self._count - self._running, int(stuck))

    def _pace(self) -> int:
        """How many tasks have ended within the last 100 ms: as many will probably begin within the next."""
        since = self._now() - PACE_WINDOW
        while self._ended and self._ended[0] < since:
            self._ended.popleft()
        return len(self._ended)
