"""The dispatches that may still arrive at a fleet."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from afterwards.core import dispatching
from afterwards.core.dispatching import Ahead, Dispatched, Mark
from afterwards.core.limits import Candidate, Group, Room
from afterwards.core.task import Lease, Task


class KeptDispatches:
    """The memory of what was dispatched, by lease."""

    def __init__(self) -> None:
        self._marks: dict[Lease, Mark] = {}

    def next(
        self,
        candidates: Iterable[Candidate[Task]],
        rooms: Mapping[Group, Room],
        *,
        limit: int,
        again: timedelta,
        now: datetime,
    ) -> Dispatched:
        """Return what to dispatch of these tasks, at most ``limit`` of each queue, and remember it."""
        ahead = Ahead(limit)
        admitted = [*map(dispatching.dispatch_of, ahead.admit(candidates, rooms, lambda task: task.queue))]
        marks = dispatching.to_send((one.lease for one in admitted), self._marks, again, now)
        self._marks |= {mark.lease: mark for mark in marks}
        sent = {mark.lease for mark in marks}
        return Dispatched([one for one in admitted if one.lease in sent], ahead.more)

    def arrived(self, leases: Iterable[Lease]) -> None:
        """Forget dispatches that have arrived."""
        for lease in leases:
            self._marks.pop(lease, None)

    def prune(self, now: datetime) -> None:
        """Forget old dispatches."""
        self._marks = {lease: mark for lease, mark in self._marks.items() if not dispatching.forgotten(mark, now)}
