"""A process that runs task functions, and the thread that starts it, talks to it and waits for its end."""

import atexit
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from afterwards import telemetry
from afterwards.core.errors import AfterwardsError, ProcessDied
from afterwards.core.settling import Outcome, Raised
from afterwards.core.shortage import LongShortage, Shortage, is_shortage
from afterwards.core.task import FailureKind
from afterwards.execution import process_messages
from afterwards.execution.process_call import ProcessCall
from afterwards.execution.process_ends import (
    ENDING,
    ended_by_itself,
    how_it_ended,
    kill,
    kill_programs,
    signals_held_back,
)
from afterwards.execution.process_messages import Message, Pipe
from afterwards.execution.process_wide import process_wide

if TYPE_CHECKING:  # no cycle: not loaded unless a function needs it
    from multiprocessing.context import SpawnProcess

BEGINNING = 60.0
"""Seconds that a process may take to begin the function: it imports the application first."""

LONGEST_POLL = 86_400.0
"""Seconds: the system refuses to wait for a pipe for more than 24 days."""

NAME = "afterwards-process-"

Main = Callable[[Pipe], None]
"""The main function of a process. It must be defined in a module, which the process imports."""


class HandleOwner(Protocol):
    """The part of the pool that its processes use. Both methods are called in the handle's thread."""

    def retire(self, handle: "ProcessHandle") -> None:
        """Handle a process that has been idle for long."""
        ...

    def forget(self, handle: "ProcessHandle") -> None:
        """Handle a process that has ended."""
        ...


class _TooLate(Exception):
    """The process did not answer in time."""


class ProcessHandle:
    """A process, and the thread that starts it, talks to it and sees it end."""

    def __init__(self, main: Main, idle: timedelta, owner: HandleOwner) -> None:
        self.over = False  # it takes no further call
        self._busy = False
        self._begun = False  # the function of the last call
        self._main = main
        self._idle = idle.total_seconds()
        self._owner = owner
        self._calls: SimpleQueue[ProcessCall | None] = SimpleQueue()
        self._sending = threading.Lock()
        self._changing = threading.Lock()  # guards the process, which may be killed while it is being started
        self._process: SpawnProcess | None = None
        self._name = f"{NAME}{next(process_wide.numbers)}"
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def ask(self, call: ProcessCall) -> None:
        self._calls.put(call)

    def send(self, message: Message) -> None:
        """Send a message during a call. Never waits, even if the process does not read."""
        with suppress(RuntimeError):  # the system has no thread left: a process that must end will be killed
            threading.Thread(target=self._try_to_write, args=(message,), daemon=True).start()

    def kill(self) -> None:
        """Kill the process at once, whatever it does."""
        with self._changing:
            self.over = True
            if self._process is not None:
                kill(self._process)

    def end(self) -> None:
        """Let the process end by itself, when it is idle."""
        self._calls.put(None)

    def hurry(self) -> None:
        """As `end`, but kill the process if a call runs."""
        self.end()
        if self._busy:
            self.kill()

    def wait(self, seconds: float) -> None:
        """Wait for the end of the process. Kill it after ``seconds``."""
        from multiprocessing.connection import wait

        assert self._process is not None
        if not wait([self._process.sentinel], max(0.0, seconds)):
            kill(self._process)

    def _work(self) -> None:
        while (call := self._next()) is not None:
            self._busy = True
            outcome = self._outcome(call)
            self._busy = False
            with suppress(RuntimeError):  # the loop is closed: nobody waits for it
                call.answer(outcome)
            del call  # release the objects of the last call while the process is idle
        self._close()
        with suppress(RuntimeError):  # as above
            self._owner.forget(self)

    def _next(self) -> ProcessCall | None:
        while True:
            try:
                return self._calls.get(timeout=self._idle)
            except Empty:
                try:
                    self._owner.retire(self)
                except RuntimeError:  # the loop is closed: no more calls will come
                    return None

    def _outcome(self, call: ProcessCall) -> Outcome:
        self._begun = False
        try:
            if self._process is None:
                self._start()
            return self._talk(call)
        except _TooLate:
            self.kill()
            late = LongShortage(f"its process did not begin it within {BEGINNING:g} s")
            return _too_late(call) if self._begun else Raised(error=late)
        except (EOFError, OSError) as error:
            return self._died(error)
        except BaseException as error:  # an unanswered call would keep its slot for ever
            self.kill()
            short = self._process is None and _is_short(error)
            return Raised(error=_none_started(error) if short else error)

    def _died(self, error: EOFError | OSError) -> Raised:
        """Return the outcome of a call whose process has ended or could not be started."""
        killed, self.over = self.over, True  # killed: by us
        how = self._close(crashed=True)
        if isinstance(error, Shortage) or (how is None and _is_short(error)):
            return Raised(error=_none_started(error))
        died = ProcessDied(f"the process of the function {how or f'could not be started: {error}'}")
        if self._begun or killed:
            return Raised(error=died, kind=FailureKind.CRASHED)
        if self._process is None or ended_by_itself(self._process.exitcode):
            return Raised(error=died, kind=FailureKind.REFUSED)
        return Raised(error=Shortage(f"its process {how}"))

    def _start(self) -> None:
        from multiprocessing import get_context

        spawning = get_context("spawn")
        self._pipe: Pipe
        self._pipe, theirs = spawning.Pipe()
        process = spawning.Process(target=self._main, args=(theirs,), name=self._name, daemon=True)
        with process_wide.starting, signals_held_back():
            process.start()
        theirs.close()  # so that the pipe ends when the process ends
        with self._changing:
            self._process = process
            if self.over:
                kill(process)
        process_wide.processes.add(self)
        atexit.unregister(_end_all)
        atexit.register(_end_all, os.getpid())
        ready = self._receive(monotonic() + BEGINNING)
        if "short" in ready:
            raise Shortage(ready["short"])

    def _talk(self, call: ProcessCall) -> Outcome:
        self._write(call.message)
        until: float | None = monotonic() + BEGINNING
        while True:
            message = self._receive(until)
            if "began" in message:
                self._begun, until = True, _end_of(call.timeout)
            call.show(message)
            if "ended" in message:
                if message.get("lost"):
                    telemetry.result_not_stored(call.task, AfterwardsError(message["lost"]))
                return process_messages.outcome(message)

    def _receive(self, until: float | None) -> Message:
        while not self._pipe.poll(left := _left(until)):
            if left == 0:
                raise _TooLate
        return process_messages.unpacked(self._pipe.recv_bytes())

    def _write(self, message: Message) -> None:
        with self._sending:
            self._pipe.send_bytes(process_messages.packed(message))

    def _try_to_write(self, message: Message) -> None:
        with suppress(OSError, AttributeError):  # it has ended, or has not started
            self._write(message)

    def _close(self, *, crashed: bool = False) -> str | None:
        """Wait for the process to end, and return how it ended; None if there is none. May be called again.

        Programs that its function started are killed if it crashed.
        """
        self.over = True
        if self._process is None:
            return None
        with self._sending:
            self._pipe.close()
        self.wait(ENDING)
        if crashed:
            kill_programs(self._process)
        with process_wide.starting:
            self._process.join()
        process_wide.processes.discard(self)
        return how_it_ended(self._process.exitcode)


def _end_of(timeout: timedelta | None) -> float | None:
    return None if timeout is None else monotonic() + timeout.total_seconds()


def _left(until: float | None) -> float | None:
    return None if until is None else min(max(0.0, until - monotonic()), LONGEST_POLL)


def _too_late(call: ProcessCall) -> Raised:
    assert call.timeout is not None
    seconds = call.timeout.total_seconds()
    error = TimeoutError(f"took longer than its timeout of {seconds:g} s, and its process was killed")
    return Raised(error=error, kind=FailureKind.TIMED_OUT)


def _is_short(error: BaseException) -> bool:
    """Return whether the system lacked the resources to start a process."""
    return isinstance(error, BlockingIOError) or is_shortage(error)


def _none_started(error: BaseException) -> Shortage:
    return Shortage(f"no process could be started: {error}")


def _end_all(pid: int) -> None:
    """End all processes at interpreter exit, before `multiprocessing` waits for them: they ignore its SIGTERM."""
    if os.getpid() != pid:
        return  # a fork of the server
    for handle in list(process_wide.processes):
        handle.hurry()
    until = monotonic() + ENDING
    for handle in list(process_wide.processes):
        handle.wait(until - monotonic())
