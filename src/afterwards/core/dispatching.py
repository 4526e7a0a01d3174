"""Decide which tasks are handed to a fleet of other software, which claims them before it runs them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from sys import maxsize
from typing import NamedTuple, TypeVar

from afterwards.core import limits
from afterwards.core.clock_correction import put_back
from afterwards.core.limits import Candidate, Group, Room
from afterwards.core.task import Lease, Task

T = TypeVar("T")

LONGEST_AGAIN = timedelta(hours=1)
"""The longest time until a task is dispatched again, unless the caller's span is longer."""

FORGOTTEN_AFTER = timedelta(days=1)
"""How long a dispatch is remembered. A longer span between two dispatches is not allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """A task that a fleet may start now. What is sent to the fleet carries only the lease.

    The lease names the attempt that may start. So it can start that attempt only, and only once.
    """

    lease: Lease
    queue: str
    priority: int


class Dispatched(NamedTuple):
    """The tasks to send, best first, and whether some queue had as many as were looked at, so there may be more."""

    tasks: Sequence[Dispatch]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The memory of a dispatch: when it was last sent, and how many times."""

    lease: Lease
    at: datetime
    sent: int = 1


class Ahead:
    """The tasks that a fleet could start now, at most so many of each queue."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: Counter[str] = Counter()

    def admit(
        self, candidates: Iterable[Candidate[T]], rooms: Mapping[Group, Room], queue_of: Callable[[T], str]
    ) -> Iterator[T]:
        """Yield the tasks that may start, in order. A group that is not in ``rooms`` has no limit."""
        taken = self._taken
        wanted = (candidate for candidate in candidates if taken[queue_of(candidate[0])] < self._limit)
        for item in limits.admit(wanted, rooms, limit=maxsize, suspects=maxsize):
            taken[queue_of(item)] += 1
            yield item

    @property
    def more(self) -> bool:
        """Return whether some queue gave as many tasks as it may."""
        return max(self._taken.values(), default=0) >= self._limit


def dispatch_of(task: Task) -> Dispatch:
    """Return the dispatch of a queued task: of its next attempt."""
    return Dispatch(lease=Lease(task.id, task.attempt + 1), queue=task.queue, priority=task.priority)


def to_send(leases: Iterable[Lease], marks: Mapping[Lease, Mark], again: timedelta, now: datetime) -> list[Mark]:
    """Return the marks of the dispatches to send now: those that are not on their way."""
    return [
        Mark(lease=lease, at=now, sent=mark.sent + 1 if mark else 1)
        for lease in leases
        if (mark := marks.get(lease)) is None or not on_its_way(mark, again, now)
    ]


def on_its_way(mark: Mark, again: timedelta, now: datetime) -> bool:
    """Return whether a dispatch may still arrive. After each time that it was sent in vain, twice as long."""
    patience = min(again * 2 ** min(mark.sent - 1, 20), max(again, LONGEST_AGAIN))
    return now < mark.at + patience and not put_back(mark.at, now)


def forgotten(mark: Mark, now: datetime) -> bool:
    """Return whether a dispatch is forgotten."""
    return mark.at <= now - FORGOTTEN_AFTER or put_back(mark.at, now)
