"""The state machine of a leased task, from the claim until its outcome is stored."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol

from afterwards.core.keywords import RunIn
from afterwards.core.lifecycle import HOLD
from afterwards.core.settling import Cancelled, Outcome, Released, Snoozed
from afterwards.core.task import FailedTask, Lease, Task
from afterwards.execution.context import TaskContext
from afterwards.execution.function import Runnable
from afterwards.execution.threads import OnCancel, ThreadCall
from afterwards.execution.timeouts import Deadline


class Phase(StrEnum):
    """The phase of a leased task in its worker."""

    HELD = "held"  # held back until its request has ended
    READY = "ready"  # waits for a slot
    STARTED = "started"  # has a slot, and its coroutine has not begun
    RUNNING = "running"
    LEFT = "left"  # its coroutine has ended, but a thread still runs for it: it keeps its lease
    ENDED = "ended"  # its outcome is decided and being stored
    PUBLISHED = "published"  # the same, and its request has ended meanwhile


class Event(StrEnum):
    """An event in the life of a leased task."""

    REQUEST_ENDED = "its request has ended"
    SLOT_TAKEN = "a slot was free"
    BEGAN = "its coroutine began"
    LEFT = "its coroutine was cancelled while a thread still works"
    ENDED = "it ended or was given back"


TRANSITIONS: Mapping[tuple[Phase, Event], Phase] = {
    (Phase.HELD, Event.REQUEST_ENDED): Phase.READY,
    (Phase.READY, Event.SLOT_TAKEN): Phase.STARTED,
    (Phase.STARTED, Event.BEGAN): Phase.RUNNING,
    (Phase.RUNNING, Event.LEFT): Phase.LEFT,
    (Phase.HELD, Event.ENDED): Phase.ENDED,
    (Phase.READY, Event.ENDED): Phase.ENDED,
    (Phase.STARTED, Event.ENDED): Phase.ENDED,
    (Phase.RUNNING, Event.ENDED): Phase.ENDED,
    (Phase.LEFT, Event.ENDED): Phase.ENDED,
    (Phase.ENDED, Event.REQUEST_ENDED): Phase.PUBLISHED,
}
"""All valid transitions. Any other event is late or a duplicate, and changes nothing."""

UNTRIED = Snoozed(timedelta(), called=False)
"""Outcome for a task leased here but never started: it is requeued."""


_asking = threading.RLock()  # an attempt may have several threads, and each of them may be the first to log


class Host(Protocol):
    """The part of the worker that a leased task uses."""

    def note(self, context: TaskContext) -> None:
        """Have the progress of an attempt stored soon."""
        ...

    def lending(self, leased: "LeasedTask") -> AbstractContextManager[None]:
        """Lend its slot to other tasks inside the block."""
        ...


@dataclass(slots=True, eq=False)
class LeasedTask:
    """A leased task. Only ``move`` changes its phase."""

    task: Task
    lease: Lease
    function: Runnable
    host: Host
    phase: Phase = Phase.READY
    asyncio_task: "asyncio.Task[None] | None" = None  # None: it has not started
    began_at: float | None = None  # by the event loop's clock
    stop: Outcome | None = None  # the outcome if the attempt is cancelled
    stopped_at: float | None = None  # when it was asked to stop
    deadline: Deadline | None = None  # set when its attempt begins, if it has a timeout
    in_thread_at: float | None = None  # when a thread was last seen to run for it
    lost: bool = False  # another worker has the lease: the outcome is dropped
    failed: FailedTask | None = None  # passed to a plain `on_failure` once the outcome is stored
    asked: TaskContext | None = None
    calls: Sequence[ThreadCall[Any]] = ()  # its calls in threads

    def move(self, event: Event) -> bool:
        """Go to the next phase. Return False if the event is not valid in this phase."""
        after = TRANSITIONS.get((self.phase, event))
        if after is None:
            return False
        self.phase = after
        return True

    def begin(self, now: float) -> None:
        """Record that its coroutine begins."""
        if self.move(Event.BEGAN):
            self.began_at = now

    def ask_to_stop(self, outcome: Outcome, now: float) -> None:
        """Record the outcome with which it is to stop; the first call decides. The function sees it if it checks."""
        self.stop = self.stop or outcome
        if self.stopped_at is None:
            self.stopped_at = now
        self._show_stop()

    @property
    def unstarted(self) -> bool:
        return self.phase is Phase.READY or self.phase is Phase.HELD

    @property
    def ended(self) -> bool:
        return self.phase is Phase.ENDED or self.phase is Phase.PUBLISHED

    @property
    def given_back(self) -> Outcome:
        """Outcome if the worker gives the task back now."""
        match self.phase:
            case Phase.HELD:
                return Snoozed(HOLD, called=False)
            case Phase.READY:
                return UNTRIED
            case _:
                return Released(begun=self.may_have_begun)

    @property
    def context(self) -> TaskContext:
        """The task's context, created on first use: most functions do not use it."""
        if self.asked is None:
            with _asking:
                if self.asked is None:
                    self.asked = TaskContext(self.function, self.task, self.host.note)
            self._show_stop()
        return self.asked

    @property
    def may_use_threads(self) -> bool:
        return not self.function.is_async or bool(self.function.plan.injected)

    @property
    def may_have_begun(self) -> bool:
        """Return whether any user code may have been called."""
        calls_at_once = self.function.is_async or self.function.run_in is RunIn.PROCESS
        return self.began_at is not None and (calls_at_once or any(call.made for call in self.calls))

    @property
    def in_thread(self) -> bool:
        """Return whether a thread runs for it, which cannot be stopped."""
        return bool(self.calls) and any(call.at_work for call in self.calls)  # usually there are none

    def drop_calls(self) -> bool:
        """Drop calls that no thread has taken. Return False if a cancellation would leave one running."""
        return all([call.drop() for call in self.calls if call.on_cancel is OnCancel.LEAVE])

    def lending(self) -> AbstractContextManager[None]:
        return self.host.lending(self)

    def must_end_by(self, deadline: Deadline) -> None:
        self.deadline = deadline

    def _show_stop(self) -> None:
        """Tell the function's context, if there is one, that it must stop."""
        if self.asked is not None and self.stop is not None:
            reason = self.stop.reason if isinstance(self.stop, Cancelled | Released) else "it was told to stop"
            self.asked.stop(reason)
