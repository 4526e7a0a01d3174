"""The context of an attempt, for its task function: the task's identity, a stop request, the progress."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from datetime import datetime
from typing import Protocol

from afterwards import telemetry
from afterwards.core.control import Cancel
from afterwards.core.progress import Progress
from afterwards.core.task import Lease, Task
from afterwards.execution.attempt_log import AttemptLog
from afterwards.execution.dependency_plan import AttemptContext
from afterwards.execution.function import Runnable, options_of
from afterwards.execution.timeouts import Deadline


class TaskContext(AttemptContext):
    """The current attempt. A task function and its dependencies get it by annotation, ``ctx: TaskContext``.

    ``ctx: TaskContext = Depends()`` is the same, and tells type checkers that callers do not pass it.
    """

    __slots__ = ("_function", "_note", "_noted", "_on_stop", "_shown", "_stop", "logs", "task")

    def __init__(
        self,
        function: Runnable,
        task: Task,
        note: "Callable[[TaskContext], None] | None" = None,
        logs: AttemptLog | None = None,
    ) -> None:
        self._function = function
        self.task = task
        self.logs = logs or AttemptLog()  # what the attempt logs
        self._note = note  # called once for all progress updates until they are read
        self._noted = False
        self._shown: Shown | None = None
        self._stop: str | None = None
        self._on_stop: Callable[[str], None] | None = None  # passes a stop on to the process that runs the function

    @property
    def context(self) -> "TaskContext":
        return self

    @property
    def id(self) -> str:
        """The task's id. Together with ``attempt`` it is a key for actions elsewhere that must not be repeated."""
        return self.task.id

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def attempt(self) -> int:
        """1 for the first; counts up with every attempt, also after a crash."""
        return self.task.attempt

    @property
    def enqueued_at(self) -> datetime:
        """When the task was stored."""
        return self.task.created_at

    @property
    def deadline(self) -> datetime | None:
        """When the attempt's ``timeout`` is over; None without one."""
        timeout = options_of(self._function, self.task).timeout
        return None if timeout is None or self.task.started_at is None else self.task.started_at + timeout

    @property
    def lease(self) -> Lease:
        return self.task.lease

    def check_cancelled(self) -> None:
        """Raise Cancel if the attempt must stop: the task was cancelled, or its worker ends.

        For ``def`` functions, which cannot be stopped from outside: call it between two steps.
        """
        if self._stop is not None:
            raise Cancel(self._stop)

    def stop(self, reason: str) -> None:
        """Make the next check end the attempt. Called by the worker, possibly more than once."""
        self._stop = reason
        if self._on_stop is not None:
            self._on_stop(reason)

    def on_stop(self, heard: Callable[[str], None] | None) -> None:
        """Pass stops on from now on, to the process that runs the function."""
        self._on_stop = heard

    def lending(self) -> AbstractContextManager[None]:
        return nullcontext()  # a process of its own has no slot to lend

    def must_end_by(self, deadline: Deadline) -> None:
        """Do nothing: no worker watches this attempt."""

    def show(self, shown: "Shown") -> bool:
        """Make ``shown`` the source of progress, unless another one is active. Return whether it is the source."""
        if self._shown is None or self._shown.closed:
            self._shown = shown
        return self._shown is shown

    def note(self) -> None:
        """Report that the progress has changed. May be called from any thread, very often."""
        if not self._noted and self._note is not None:
            self._noted = True
            self._note(self)

    def progress(self) -> Progress | None:
        """The progress of the attempt; None if it has reported none."""
        self._noted = False
        return self._shown.progress() if self._shown else None

    def shown(self) -> Progress | None:
        """Return ``progress``, or None if reading it fails. Never raises."""
        try:
            return self.progress()
        except BaseException as error:  # user objects may raise anything
            telemetry.not_shown(error)
            return None


class Shown(Protocol):
    """The source of an attempt's progress."""

    closed: bool

    def progress(self) -> Progress: ...


class Attempting(Protocol):
    """Creates the context of an attempt on first use: few functions use it."""

    @property
    def context(self) -> TaskContext: ...

    def lending(self) -> AbstractContextManager[None]:
        """Lend its slot inside the block, while it only waits for another task."""
        ...

    def must_end_by(self, deadline: Deadline) -> None:
        """Note when it must have ended."""
        ...


current: ContextVar[Attempting | None] = ContextVar("afterwards_attempt", default=None)
"""The context of the current attempt. Its threads get a copy of the variable."""
