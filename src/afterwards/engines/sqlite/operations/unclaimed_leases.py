"""What was leased by a call for whose answer nobody waited any more: it goes back."""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from afterwards.core import lifecycle
from afterwards.core.errors import QueueFull
from afterwards.core.lifecycle import Released, Snoozed
from afterwards.core.retry import Retry
from afterwards.core.task import Lease, NewTask, State, Task
from afterwards.engine import Claim
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.io.runtime import Opened
from afterwards.engines.sqlite.io.thread import Operation
from afterwards.engines.sqlite.operations import finishing, storing

MOST_REMEMBERED = 1000
"""Leases that are remembered because a repeated call might find them."""


class Undelivered:
    """The leases that this process has given back."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._leases: deque[Lease] = deque(maxlen=MOST_REMEMBERED)

    def give_back(self, opened: Opened, tasks: Sequence[Task], held: Collection[str] = ()) -> None:
        """Release what was leased; the held stay held back."""
        now, unheard = self._clock(), Released("nobody waited for the claim any more", begun=False)
        settled = [
            lifecycle.settle(
                task,
                Snoozed(lifecycle.HOLD, called=False) if task.id in held else unheard,
                Retry(),
                worker=task.worker or "",
                now=now,
                random=0.0,
            )
            for task in tasks
        ]
        if settled:
            self._leases += [one.lease for one in settled]
            opened.writer.submit([Operation(partial(finishing.finish, settled=settled))])

    def left_out(self, stored: list[Task]) -> list[Task]:
        """The answer to a call; where it repeats one whose leases go back, without these, as the tasks will be."""
        return [self._without_lease(task) for task in stored] if self._leases else stored

    def _without_lease(self, task: Task) -> Task:
        if task.state is not State.RUNNING or task.lease not in self._leases:
            return task
        return replace(task, state=State.SCHEDULED, lease_until=None, run_at=self._clock() + lifecycle.HOLD)


@dataclass(slots=True, eq=False)  # not frozen: one is made per request
class Enqueue:
    """One call of ``enqueue``."""

    tasks: Sequence[NewTask]
    claim: Claim | None
    opened: Opened
    undelivered: Undelivered
    made: Sequence[Task] = ()  # not those that were there already: a repeated call must not give back what runs

    def __call__(self, connection: Connection) -> list[Task] | QueueFull:
        stored, self.made = storing.enqueue(connection, self.tasks, self.claim)
        return stored

    def give_back(self, stored: list[Task] | QueueFull) -> None:
        """Nobody waited for the answer any more."""
        leased = [task for task in self.made if task.state is State.RUNNING]
        self.undelivered.give_back(self.opened, leased, {new.id for new in self.tasks if new.held})
