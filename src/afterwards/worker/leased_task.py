"""A task that a worker has leased, from then until its end is stored."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from afterwards.core.lifecycle import Cancelled, Outcome, Released, Snoozed
from afterwards.core.options import RunIn
from afterwards.core.task import FailedTask, Lease, Task
from afterwards.execution.context import TaskContext
from afterwards.execution.function import Runnable
from afterwards.execution.threads import Call, OnCancel

UNTRIED = Snoozed(timedelta(), called=False)
"""As what a task goes back to the queue that this worker has leased and not started."""


@dataclass(slots=True, eq=False)
class Running:
    """A leased task: held back by its request, waiting for a slot, running, or ended and not stored yet."""

    task: Task
    lease: Lease
    function: Runnable
    note: Callable[[TaskContext], None]
    lend: "Callable[[Running], AbstractContextManager[None]]"
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
    calls: Sequence[Call[Any]] = ()  # what was to be called in threads for it
    given_back: bool = False  # it was asked to stop for that
    told: bool = False  # that it did not
    waits: int = 0  # for how many results of other tasks
    lent: bool = False  # its slot, to another one
    lent_thread: bool = False  # a thread beside the one in which it waits
    left: bool = False  # its coroutine was cancelled although a thread is at work: it keeps its lease

    @property
    def context(self) -> TaskContext:
        """Made for who asks: most functions do not."""
        if self.asked is None:
            self.asked = TaskContext(self.function, self.task, self.note)
            self.tell_to_stop()
        return self.asked

    @property
    def may_use_threads(self) -> bool:
        return not self.function.is_async or bool(self.function.plan.injected)

    @property
    def may_have_begun(self) -> bool:
        """Whether anything of the user's may have been called."""
        calls_at_once = self.function.is_async or self.function.run_in is RunIn.PROCESS
        return self.begun and (calls_at_once or any(call.made for call in self.calls))

    @property
    def in_thread(self) -> bool:
        """Whether a thread is at work for it, which nobody can stop."""
        return bool(self.calls) and any(call.at_work for call in self.calls)  # most often there are none

    def drop_calls(self) -> bool:
        """Keep calls that no thread has taken from being made. False when a cancellation would leave one at work."""
        return all([call.drop() for call in self.calls if call.on_cancel is OnCancel.LEAVE])

    def lending(self) -> AbstractContextManager[None]:
        return self.lend(self)

    def tell_to_stop(self) -> None:
        """Let the function know that it shall end, if it asks."""
        if self.asked is not None and self.stop is not None:
            reason = self.stop.reason if isinstance(self.stop, Cancelled | Released) else "it shall end"
            self.asked.stop(reason)
