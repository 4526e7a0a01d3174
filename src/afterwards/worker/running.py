"""A task that a worker has leased, from then until its end is stored."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from afterwards.core.lifecycle import Cancelled, Outcome, Released, Snoozed
from afterwards.core.task import FailedTask, Lease, Task
from afterwards.worker.context import TaskContext
from afterwards.worker.runnable import Runnable

UNTRIED = Snoozed(timedelta())
"""As what a task goes back to the queue that this worker has leased and not started."""


@dataclass(slots=True, eq=False)
class Running:
    """A leased task: held back by its request, waiting for a slot, running, or ended and not stored yet."""

    task: Task
    lease: Lease
    function: Runnable
    note: Callable[[TaskContext], None]
    asyncio_task: "asyncio.Task[None] | None" = None  # None: it has not started
    held: bool = False  # by its request
    begun: bool = False
    began: float = 0.0  # by the event loop's clock
    stopped: float | None = None  # since when it shall end
    ended: bool = False
    published: bool = False  # its request ended after it had been given back
    lost: bool = False  # the lease is somebody else's: whatever comes out is dropped
    stop: Outcome | None = None  # as what the attempt ends when it is cancelled
    tell: FailedTask | None = None  # what a plain `on_failure` is told once the end is stored
    asked: TaskContext | None = None

    @property
    def context(self) -> TaskContext:
        """Made for who asks: most functions do not."""
        if self.asked is None:
            self.asked = TaskContext(self.function, self.task, self.note)
            self.tell_to_stop()
        return self.asked

    def tell_to_stop(self) -> None:
        """Let the function know that it shall end, if it asks."""
        if self.asked is not None and self.stop is not None:
            reason = self.stop.reason if isinstance(self.stop, Cancelled | Released) else "it shall end"
            self.asked.stop(reason)
