"""The claim of a worker, and the pauses that keep tasks from starting."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Self

from afterwards.core.limits import Limit
from afterwards.core.routing import Route
from afterwards.core.task import Lease, NewTask, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The tasks that a worker can take now."""

    worker: str  # a new id for every start of a process
    limit: int  # free slots
    lease: timedelta
    names: frozenset[str]  # the task functions it knows; it is never given another one
    queues: frozenset[str] | None = None  # None: all
    suspects: int = 1  # the most suspects to take: tasks that may have been running when a worker was lost
    limits: Mapping[str, Limit] = field(default_factory=dict)  # of those task functions that have any
    ids: frozenset[str] | None = None  # only these tasks; those of them that are set aside are brought back first
    starts: frozenset[Lease] | None = None  # only these attempts, which were dispatched; they are on their way no more

    def serves(self, task: NewTask | Task) -> bool:
        """Return whether the worker may take this task."""
        return (
            task.name in self.names
            and (self.queues is None or task.queue in self.queues)
            and (self.ids is None or task.id in self.ids)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """The queues and task functions whose tasks no worker may start now, and the schedules that do not fire."""

    queues: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    schedules: frozenset[str] = frozenset()  # by the names of their task functions

    def __or__(self, other: Self) -> Self:
        return replace(
            self,
            queues=self.queues | other.queues,
            names=self.names | other.names,
            schedules=self.schedules | other.schedules,
        )

    def __sub__(self, other: Self) -> Self:
        return replace(
            self,
            queues=self.queues - other.queues,
            names=self.names - other.names,
            schedules=self.schedules - other.schedules,
        )

    def stops(self, task: NewTask | Task | Route) -> bool:
        """Return whether no worker may start this task, or the tasks of this route."""
        return task.queue in self.queues or task.name in self.names


NOTHING_PAUSED = Paused()


@dataclass(frozen=True, slots=True, kw_only=True)
class PausedTasks:
    """The queues and task functions whose tasks no worker may start now."""

    queues: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()


def may_lease(claim: Claim, paused: Paused, new: NewTask) -> bool:
    """Return whether a task may be leased to the worker while it is stored, if it could start at once.

    A task with a limit has to be claimed. So has a task that a crash ends, because it does not start before its request
    has ended.
    """
    return claim.serves(new) and new.name not in claim.limits and new.rerun_after_crash and not paused.stops(new)
