"""The context of an attempt, for its task function: who it is, whether it shall stop, how far it has come."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from datetime import datetime
from typing import Protocol

from afterwards import telemetry
from afterwards.core.control import Cancel
from afterwards.core.progress import Progress
from afterwards.core.task import Lease, Task
from afterwards.execution.dependency_plan import AttemptContext
from afterwards.execution.function import Runnable, options_of


class TaskContext(AttemptContext):
    """The attempt that runs: a task function gets it by annotation, ``ctx: TaskContext``, and so do its dependencies.

    ``ctx: TaskContext = Depends()`` is the same, and tells type checkers that callers do not give it.
    """

    __slots__ = ("_function", "_note", "_noted", "_on_stop", "_shown", "_stop", "task")

    def __init__(self, function: Runnable, task: Task, note: "Callable[[TaskContext], None] | None" = None) -> None:
        self._function = function
        self.task = task
        self._note = note  # called once for all progress until it is read
        self._noted = False
        self._shown: Shown | None = None
        self._stop: str | None = None
        self._on_stop: Callable[[str], None] | None = None  # a stop to somebody else, who runs the function

    @property
    def context(self) -> "TaskContext":
        return self

    @property
    def id(self) -> str:
        """The task's id: together with ``attempt``, a key for what must not be done twice elsewhere."""
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
        """End the attempt here if it shall stop: somebody cancelled the task, or its worker ends.

        For ``def`` functions, which nobody can stop from outside: call it between two steps. Raises Cancel.
        """
        if self._stop is not None:
            raise Cancel(self._stop)

    def stop(self, reason: str) -> None:
        """Have the next check end the attempt. Called by the worker, perhaps more than once."""
        self._stop = reason
        if self._on_stop is not None:
            self._on_stop(reason)

    def on_stop(self, heard: Callable[[str], None] | None) -> None:
        """Have a stop passed on from now on, to who runs the function elsewhere."""
        self._on_stop = heard

    def lending(self) -> AbstractContextManager[None]:
        return nullcontext()  # a process of its own has no slot to lend

    def show(self, shown: "Shown") -> bool:
        """Make something the attempt's progress, unless something else is; whether it is."""
        if self._shown is None or self._shown.closed:
            self._shown = shown
        return self._shown is shown

    def note(self) -> None:
        """Say that what is shown has changed. May be called from any thread, very often."""
        if not self._noted and self._note is not None:
            self._noted = True
            self._note(self)

    def progress(self) -> Progress | None:
        """How far the attempt has come; None if it has said nothing."""
        self._noted = False
        return self._shown.progress() if self._shown else None

    def shown(self) -> Progress | None:
        """As ``progress``, for what must not fail by it: progress that cannot be had is none."""
        try:
            return self.progress()
        except BaseException as error:  # the user's objects may raise anything
            telemetry.not_shown(error)
            return None


class Shown(Protocol):
    """The source of an attempt's progress."""

    closed: bool

    def progress(self) -> Progress: ...


class Attempting(Protocol):
    """Who makes the context of an attempt when somebody asks for it, which few functions do."""

    @property
    def context(self) -> TaskContext: ...

    def lending(self) -> AbstractContextManager[None]:
        """Let others have its slot meanwhile: it only waits for another task."""
        ...


current: ContextVar[Attempting | None] = ContextVar("afterwards_attempt", default=None)
"""The attempt that runs here: also in its threads, which get a copy."""
