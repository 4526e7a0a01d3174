"""What takes how many of a worker's slots: tasks that run, that wait for a slot, and that their request holds back."""

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")

HELD_PER_SLOT = 2
"""How many tasks a worker leases for requests that still go on. They take no slot until they start, and most requests
end at once; but what is leased here runs nowhere else."""

A_MOMENT = 0.1
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

    @property
    def free(self) -> int:
        return self._room - self._reserved - len(self.ready)

    @property
    def soon(self) -> int:
        """How many tasks more will probably begin within a moment than have a slot now."""
        return max(0, self._begin_soon() - len(self.ready) - self._held - self._reserved - self._ahead)

    def claim_ahead(self, tasks: int) -> None:
        """Count tasks as being claimed for which there is no slot yet; with a negative number, no longer."""
        self._ahead += tasks

    def hold_some(self, tasks: int) -> int:
        """Count as many of so many tasks as held as may be: none while others wait for more than a moment."""
        most = self._count * HELD_PER_SLOT
        if self.ready or self._running >= self._count:
            most = self._begin_soon() - len(self.ready)
        elif self._held + tasks > most:
            most = max(most, self._begin_soon())
        held = max(0, min(tasks, most - self._held))
        self._held += held
        return held

    def hold(self, tasks: int) -> None:
        """Count tasks as held; with a negative number, no longer."""
        self._held += tasks

    def reserve(self, slots: int) -> None:
        """Set slots aside; with a negative number, give them back."""
        self._reserved += slots

    def next(self) -> T | None:
        """What may start now, and takes a slot with that."""
        if not self.ready or self._reserved >= self._room:
            return None
        self._running += 1
        return self.ready.popleft()

    def lend(self) -> bool:
        """Let another one have the slot of one that only waits. False when as many are lent as there are slots.

        Then it keeps its slot. Where all that run wait with theirs, there is one more: nobody would ever go on.
        """
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

    @property
    def _room(self) -> int:
        """How many slots nobody runs in."""
        stuck = self._running == self._waiting > 0
        return max(self._count - self._running, int(stuck))

    def _begin_soon(self) -> int:
        """How many tasks will probably begin within a moment: as many as have ended within the last one."""
        since = self._now() - A_MOMENT
        while self._ended and self._ended[0] < since:
            self._ended.popleft()
        return len(self._ended)
