"""Notice a task that blocks the event loop, and name it."""

import asyncio
import sys
import threading
from datetime import timedelta
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Protocol, Self

from afterwards import telemetry
from afterwards.core.task import Task
from afterwards.execution.lateness import Lateness

TOO_LONG = 0.1
"""Seconds after which a blocked loop is logged as a warning."""


class Watched(Protocol):
    """The owner of the watched coroutines. Called in the watchdog's thread."""

    def attempted_by(self, asyncio_task: "asyncio.Task[Any]") -> Task | None:
        """Return the task that a watched coroutine attempts; None for any other coroutine."""
        ...

    def any_running(self) -> bool: ...


class LoopWatchdog:
    """A thread that pings the event loop while attempts run, and logs which attempt blocks it."""

    def __init__(self, watched: Watched, lateness: Lateness) -> None:
        self._watched = watched
        self._lateness = lateness
        self._thread = threading.Thread(target=self._run, name="afterwards-watch", daemon=True)
        self._busy = threading.Event()
        self._stopped = False
        self._answered = threading.Event()

    def begin(self) -> None:
        """Start watching. The thread stops by itself when nothing runs any more."""
        if not self._busy.is_set():
            self._busy.set()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._ident = threading.get_ident()
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped = True
        self._busy.set()

    def _run(self) -> None:
        while True:
            self._busy.wait()
            if self._stopped:
                return
            try:
                self._ask()
            except RuntimeError:  # the loop is closed: nothing is left to watch
                return
            sleep(TOO_LONG / 2)
            if not self._watched.any_running():
                self._busy.clear()
                if self._stopped or self._watched.any_running():  # an attempt started between the check and `clear`
                    self._busy.set()

    def _ask(self) -> None:
        self._answered.clear()
        asked = monotonic()
        self._loop.call_soon_threadsafe(self._answered.set)
        if self._answered.wait(TOO_LONG):
            return  # so little is measured on the loop itself
        culprit = self._culprit()
        self._answered.wait(TOO_LONG * 9)  # one that never ends is logged after a second, others when they have ended
        if culprit:
            task, where = culprit
            telemetry.blocked(task, timedelta(seconds=monotonic() - asked), where)
        self._answered.wait()
        self._lateness.note(monotonic() - asked)

    def _culprit(self) -> tuple[Task, str] | None:
        """Return the task that is attempted now, and the line that it executes; None if it is not ours."""
        running = asyncio.current_task(self._loop)
        task = self._watched.attempted_by(running) if running else None
        frame = sys._current_frames().get(self._ident)
        if task is None or frame is None:
            return None
        return task, f"{frame.f_code.co_filename}:{frame.f_lineno}"
