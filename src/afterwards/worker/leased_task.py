"""A task that a worker has leased, from then until its end is stored: a state machine, and what belongs to it."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol

from afterwards.core.lifecycle import HOLD, Cancelled, Outcome, Released, Snoozed
from afterwards.core.options import RunIn
from afterwards.core.task import FailedTask, Lease, Task
from afterwards.execution.context import TaskContext
from afterwards.execution.function import Runnable
from afterwards.execution.threads import OnCancel, ThreadCall


class Phase(StrEnum):
    """Where a leased task stands in its worker."""

    HELD = "held"  # back, until its request has ended
    READY = "ready"  # waits for a slot
    STARTED = "started"  # has a slot, and its coroutine has not begun
    RUNNING = "running"
    LEFT = "left"  # its coroutine is gone, and a thread is at work for it: it keeps its lease
    ENDED = "ended"  # how it ended is decided, and being stored
    PUBLISHED = "published"  # the same, and its request has ended meanwhile


class Event(StrEnum):
    """An event in the life of a leased task."""

    REQUEST_ENDED = "its request has ended"
    SLOT_TAKEN = "a slot was free"
    BEGAN = "its coroutine began"
    LEFT = "its coroutine was cancelled although a thread is at work"
    ENDED = "it ended, or was given back"


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
"""All that is possible. Any other event changes nothing: it came too late, or a second time."""

UNTRIED = Snoozed(timedelta(), called=False)
"""Outcome for a task leased here but never started: it is requeued."""


class Host(Protocol):
    """The worker, as a leased task knows it."""

    def note(self, context: TaskContext) -> None:
        """Have the progress of an attempt stored soon."""
        ...

    def lending(self, leased: "LeasedTask") -> AbstractContextManager[None]:
        """Let others have its slot meanwhile."""
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
    stop: Outcome | None = None  # as what the attempt ends when it is cancelled
    stopped_at: float | None = None  # since when it shall end
    lost: bool = False  # the lease is somebody else's: whatever comes out is dropped
    failed: FailedTask | None = None  # what a plain `on_failure` is told once the end is stored
    asked: TaskContext | None = None
    calls: Sequence[ThreadCall[Any]] = ()  # what was to be called in threads for it

    def move(self, event: Event) -> bool:
        """Go on to the next phase. False where the event means nothing any more."""
        after = TRANSITIONS.get((self.phase, event))
        if after is None:
            return False
        self.phase = after
        return True

    def begin(self, now: float) -> None:
        """Its coroutine begins."""
        if self.move(Event.BEGAN):
            self.began_at = now

    def ask_to_stop(self, outcome: Outcome, now: float) -> None:
        """Note as what it shall end; the first who asks decides. The function sees it, if it looks."""
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
        """Outcome for a task that the worker gives back as it stands now."""
        match self.phase:
            case Phase.HELD:
                return Snoozed(HOLD, called=False)
            case Phase.READY:
                return UNTRIED
            case _:
                return Released(begun=self.may_have_begun)

    @property
    def context(self) -> TaskContext:
        """Made for who asks: most functions do not."""
        if self.asked is None:
            self.asked = TaskContext(self.function, self.task, self.host.note)
            self._show_stop()
        return self.asked

    @property
    def may_use_threads(self) -> bool:
        return not self.function.is_async or bool(self.function.plan.injected)

    @property
    def may_have_begun(self) -> bool:
        """Whether anything of the user's may have been called."""
        calls_at_once = self.function.is_async or self.function.run_in is RunIn.PROCESS
        return self.began_at is not None and (calls_at_once or any(call.made for call in self.calls))

    @property
    def in_thread(self) -> bool:
        """Whether a thread is at work for it, which nobody can stop."""
        return bool(self.calls) and any(call.at_work for call in self.calls)  # most often there are none

    def drop_calls(self) -> bool:
        """Keep calls that no thread has taken from being made. False when a cancellation would leave one at work."""
        return all([call.drop() for call in self.calls if call.on_cancel is OnCancel.LEAVE])

    def lending(self) -> AbstractContextManager[None]:
        return self.host.lending(self)

    def _show_stop(self) -> None:
        """Let the function know that it shall end, if it asks."""
        if self.asked is not None and self.stop is not None:
            reason = self.stop.reason if isinstance(self.stop, Cancelled | Released) else "it shall end"
            self.asked.stop(reason)
