"""Calls that lease tasks. They release leases whose caller was cancelled."""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from afterwards.core import lifecycle, settling
from afterwards.core.errors import QueueFull
from afterwards.core.retry import Retry
from afterwards.core.settling import Released, Snoozed
from afterwards.core.task import Lease, NewTask, State, Task
from afterwards.engine import Claim
from afterwards.engines.sqlite.io.connection import Connection
from afterwards.engines.sqlite.io.operation import ConditionalOperation, FunctionOperation, Operation, Turn
from afterwards.engines.sqlite.io.runtime import Opened
from afterwards.engines.sqlite.operations import claiming, dispatching, finishing, storing

MOST_REMEMBERED = 1000
"""Leases that are remembered because a repeated call might find them."""


Release = Callable[[Sequence[Task], Collection[str]], None]
"""A function that releases leases. The tasks with these ids stay held."""


class UnclaimedLeases:
    """Release leases, and remember which."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._leases: deque[Lease] = deque(maxlen=MOST_REMEMBERED)

    def release(self, opened: Opened, tasks: Sequence[Task], held: Collection[str]) -> None:
        """Have the writer release the leases of tasks. Tasks in ``held`` stay held."""
        now, unheard = self._clock(), Released("the caller of the claim was cancelled", begun=False)
        settled = [
            settling.settle(
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
            opened.writer.submit([FunctionOperation(partial(finishing.finish, settled=settled))])

    def without_released(self, stored: list[Task]) -> list[Task]:
        """Return the answer to a call. If it repeats a call with released leases, the tasks are as they will be."""
        return [self._without_lease(task) for task in stored] if self._leases else stored

    def _without_lease(self, task: Task) -> Task:
        if task.state is not State.RUNNING or task.lease not in self._leases:
            return task
        return replace(task, state=State.SCHEDULED, lease_until=None, run_at=self._clock() + lifecycle.HOLD)


class Enqueue(Operation[list[Task] | QueueFull]):
    """Store tasks for any worker. Answers the tasks that stand for them, or the refusal of a full queue."""

    __slots__ = ("_tasks",)

    only_adds = True

    def __init__(self, tasks: Sequence[NewTask]) -> None:
        super().__init__()
        self._tasks = tasks

    def run(self, connection: Connection) -> list[Task] | QueueFull:
        stored, _ = storing.enqueue(connection, self._tasks)
        return stored


class EnqueueAndLease(Enqueue):
    """Store tasks, and lease those that may start at once to a worker."""

    __slots__ = ("_claim", "_made", "_release")

    turn = Turn.STORE

    def __init__(self, tasks: Sequence[NewTask], claim: Claim, release: Release) -> None:
        super().__init__(tasks)
        self._claim = claim
        self._release = release
        self._made: Sequence[Task] = ()

    def run(self, connection: Connection) -> list[Task] | QueueFull:
        # Only new tasks are taken back: a repeated call must not release running tasks.
        stored, self._made = storing.enqueue(connection, self._tasks, self._claim)
        return stored

    def take_back(self, result: list[Task] | QueueFull) -> None:
        leased = [task for task in self._made if task.state is State.RUNNING]
        self._release(leased, {new.id for new in self._tasks if new.held})


class ClaimTasks(ConditionalOperation[list[Task]]):
    """Lease queued tasks to a worker."""

    __slots__ = ("_release",)

    turn = Turn.CLAIM

    def __init__(self, claim: Claim, release: Release) -> None:
        needed = partial(claiming.is_there_any, claim=claim)
        super().__init__(partial(_claim, claim=claim), needed=needed, otherwise=[])
        self._release = release

    @property
    def abandoned(self) -> bool:
        """Return True if the caller was cancelled: the call would only lease tasks that are then released."""
        return self.future is not None and self.future.cancelled()

    def take_back(self, result: list[Task]) -> None:
        self._release(result, ())


def _claim(connection: Connection, claim: Claim) -> list[Task]:
    if claim.starts:
        dispatching.arrived(connection, claim.starts)
    if claim.ids is not None:
        finishing.bring_back(connection, claim.ids)
    look = finishing.look_without_overdue(connection)
    if look.overdue:
        return []
    return claiming.claim(connection, claim, look)
