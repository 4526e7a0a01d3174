"""What a worker asks for, and what nobody may begin now."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Self

from afterwards.core.limits import Limit
from afterwards.core.routing import Route
from afterwards.core.task import NewTask, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a worker can take now."""

    worker: str  # a new id for every start of a process
    limit: int  # free slots
    lease: timedelta
    names: frozenset[str]  # the task functions it knows; it is never given another one
    queues: frozenset[str] | None = None  # None: all
    suspects: int = 1  # how many of the tasks may have been running when a worker was lost
    limits: Mapping[str, Limit] = field(default_factory=dict)  # of those task functions that have any
    ids: frozenset[str] | None = None  # these tasks only; what of them is set aside is brought back first

    def serves(self, task: NewTask | Task) -> bool:
        """Return whether the worker may take this task."""
        return (
            task.name in self.names
            and (self.queues is None or task.queue in self.queues)
            and (self.ids is None or task.id in self.ids)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """What no worker may begin now: the tasks of queues and of task functions; and the schedules that do not fire."""

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
        """Return whether no worker may begin this task, or those of this route."""
        return task.queue in self.queues or task.name in self.names


NOTHING_PAUSED = Paused()


@dataclass(frozen=True, slots=True, kw_only=True)
class PausedTasks:
    """The queues and task functions of which no worker may begin a task now."""

    queues: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()


def may_lease(claim: Claim, paused: Paused, new: NewTask) -> bool:
    """Return whether a task may be leased to the worker as it is stored, if it could start at once.

    What is limited has to be claimed. Nor may what a crash ends, for between the storing and the end of its request it
    has not begun.
    """
    return claim.serves(new) and new.name not in claim.limits and new.rerun_after_crash and not paused.stops(new)
