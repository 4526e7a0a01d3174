"""A pool of processes for ``run_in="process"`` functions: started when needed, and kept for further tasks."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from afterwards.core.settling import Outcome, Raised
from afterwards.core.shortage import Shortage, beginning
from afterwards.execution import process_messages
from afterwards.execution.context import TaskContext
from afterwards.execution.function import Runnable
from afterwards.execution.process_call import ProcessCall
from afterwards.execution.process_ends import ENDING
from afterwards.execution.process_handle import Main, ProcessHandle

IDLE = timedelta(minutes=1)
"""Time that an idle process is kept for the next task."""

KILL_AFTER = 1.0
"""Seconds that a function has to notice that its task was cancelled, before its process is killed."""


class ProcessPool:
    """At most ``size`` processes, in addition to the threads. ``run`` and ``close`` are called on one event loop."""

    def __init__(self, size: int, main: Main, *, idle: timedelta = IDLE) -> None:
        self._main = main
        self._free = asyncio.Semaphore(size)
        self._idle_for = idle
        self._idle: list[ProcessHandle] = []  # last in, first out, so that surplus processes become idle and end
        self._closed = False
        self._living: set[ProcessHandle] = set()
        self._none_lives = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, function: Runnable, context: TaskContext) -> Outcome:
        """Run the function in a process. It is killed on cancellation, or a moment after a stop through the context.

        Raises Shortage when there is no process and none could be started.
        """
        async with self._free:
            context.check_cancelled()
            with beginning("start a process"):
                handle = self._idle.pop() if self._idle else self._new()
            try:
                outcome = await self._ask(handle, function, context)
            finally:
                self._put_back(handle)
            if isinstance(outcome, Raised) and isinstance(outcome.error, Shortage):
                raise outcome.error
            return outcome

    def close(self) -> None:
        """Let the processes end after their current calls."""
        self._closed = True
        while self._idle:
            self._idle.pop().end()

    async def ended(self) -> None:
        """Wait until they have ended, so that their exit handlers run before the server is gone."""
        if self._living:
            await self._none_lives.wait()

    def retire(self, handle: ProcessHandle) -> None:
        """End a process that has been idle for long. Called in the thread of its handle, like ``forget``."""
        self._later(self._retire, handle)

    def forget(self, handle: ProcessHandle) -> None:
        """Forget a process that has ended."""
        self._later(self._forget, handle)

    def _later(self, do: Callable[[ProcessHandle], None], handle: ProcessHandle) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(do, handle)

    def _new(self) -> ProcessHandle:
        self._loop = asyncio.get_running_loop()
        handle = ProcessHandle(self._main, self._idle_for, self)
        self._living.add(handle)
        self._none_lives.clear()
        return handle

    async def _ask(self, handle: ProcessHandle, function: Runnable, context: TaskContext) -> Outcome:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()
        deadline: list[asyncio.TimerHandle] = []

        def stop(reason: str) -> None:
            handle.send(process_messages.stop(context.task, reason))
            deadline.append(loop.call_later(KILL_AFTER, handle.kill))

        context.on_stop(stop)
        handle.ask(ProcessCall(function, context, lambda outcome: loop.call_soon_threadsafe(_answer, answer, outcome)))
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            handle.kill()
            await asyncio.wait([answer], timeout=ENDING)  # until then the function may still do something
            raise
        finally:
            context.on_stop(None)
            for timer in deadline:
                timer.cancel()

    def _put_back(self, handle: ProcessHandle) -> None:
        if handle.over or self._closed:
            handle.end()
        else:
            self._idle.append(handle)

    def _retire(self, handle: ProcessHandle) -> None:
        if handle in self._idle:  # otherwise it has got a call meanwhile
            self._idle.remove(handle)
            handle.end()

    def _forget(self, handle: ProcessHandle) -> None:
        self._living.discard(handle)
        if not self._living:
            self._none_lives.set()


def _answer(future: "asyncio.Future[Outcome]", outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)
