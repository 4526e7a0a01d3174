"""The leases that a worker holds, with their tasks."""

import asyncio
from collections.abc import Collection, Iterator, Sequence

from afterwards.core.task import Lease
from afterwards.worker.leased_task import LeasedTask, Phase
from afterwards.worker.lifetime import Lifetime


class Suspects:
    """Suspects held here: tasks that may have crashed another worker. No second suspect is claimed beside one."""

    def __init__(self) -> None:
        self._leases: set[Lease] = set()
        self.cleared = asyncio.Event()  # one of them has ended; cleared by the reader

    def __bool__(self) -> bool:
        return bool(self._leases)

    def add(self, lease: Lease) -> None:
        self._leases.add(lease)

    def discard(self, lease: Lease) -> None:
        if self._leases and lease in self._leases:
            self._leases.remove(lease)
            self.cleared.set()


class Leases:
    """All leased tasks of a worker, by lease. Also read in the heartbeat's thread."""

    def __init__(self, lifetime: Lifetime) -> None:
        self.suspects = Suspects()
        self._lifetime = lifetime
        self.changes = 0  # grows when a lease was taken, and when an outcome was stored
        self._held: dict[Lease, LeasedTask] = {}
        self._ending: dict[Lease, asyncio.Future[None]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[LeasedTask]:
        return iter(list(self._held.values()))

    def __contains__(self, lease: Lease) -> bool:
        return lease in self._held

    def add(self, leased: LeasedTask) -> None:
        self._held[leased.lease] = leased
        self.changes += 1
        if leased.task.suspect:
            self.suspects.add(leased.lease)

    def get(self, lease: Lease) -> LeasedTask | None:
        return self._held.get(lease)

    def drop(self, lease: Lease) -> LeasedTask | None:
        """Forget a task whose outcome is stored, or whose outcome this worker need no longer store."""
        self.suspects.discard(lease)
        self.changes += 1
        if self._ending and (ending := self._ending.pop(lease, None)) and not ending.done():
            ending.set_result(None)
        return self._held.pop(lease, None)

    def ending(self, lease: Lease) -> "asyncio.Future[None]":
        """Return a future that is done when the lease is dropped. Called before its task is added."""
        ending = self._ending[lease] = asyncio.get_running_loop().create_future()
        return ending

    def leases(self) -> Collection[Lease]:
        return tuple(self._held)

    def to_renew(self) -> Sequence[Lease]:
        """Return the leases to renew; forget those that need no renewal. Called in any thread."""
        for lease, leased in list(self._held.items()):
            thread_ended = leased.phase is Phase.LEFT and not leased.in_thread
            if thread_ended or (self._lifetime.over and leased.ended):
                self._held.pop(lease, None)
        return tuple(self._held)
