"""The main loop of a task process: run task functions in sequence for the worker that started it."""

import asyncio
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from multiprocessing import parent_process
from queue import SimpleQueue
from time import sleep
from typing import Any

from afterwards.core.errors import UnknownFunction
from afterwards.core.retry import Retry
from afterwards.core.settling import Outcome, Raised, SetAside, Succeeded
from afterwards.core.task import FailureKind, Task
from afterwards.core.text import said_by
from afterwards.execution import process_messages
from afterwards.execution.attempt_log import AttemptLog
from afterwards.execution.awaitables import awaited, done, refuse_undone
from afterwards.execution.context import TaskContext, current
from afterwards.execution.decoding import Misfit, read_arguments
from afterwards.execution.fresh_context import FreshContexts
from afterwards.execution.function import Runnable
from afterwards.execution.log_capture import capturing
from afterwards.execution.outcomes import outcome_of_function
from afterwards.execution.process_messages import Message, Pipe

PROGRESS_EVERY = 0.1
"""Seconds between two messages of progress."""

ENDING = 2.0
"""Seconds that a process has to end by itself, with its threads and exit handlers, once it is no longer needed."""


class Child:
    """Answers one call at a time in the main thread. One more thread listens, and one sends progress."""

    def __init__(self, connection: Pipe, find: Callable[[str], Runnable]) -> None:
        self._connection = connection
        self._find = find  # in the registry
        self._calls: SimpleQueue[Message | None] = SimpleQueue()
        self._sending = threading.Lock()
        self._noted = threading.Event()
        self._running: TaskContext | None = None

    def serve(self) -> None:
        """Answer calls until the worker has closed its end of the pipe."""
        _leave_signals_to_the_parent()
        _lead_a_group()
        _die_with_the_parent()
        faulthandler.enable(file=2)  # so that a segmentation fault is reported on standard error with its place
        try:
            for work in (self._listen, self._send_progress):
                threading.Thread(target=work, name=f"afterwards{work.__name__}", daemon=True).start()
        except RuntimeError as error:  # the system has no thread left: nothing has begun yet
            self._send({"short": str(error)})
            return
        self._send({"ready": True})
        with capturing():
            while (call := self._calls.get()) is not None:
                self._answer(call)

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                message = process_messages.unpacked(self._connection.recv_bytes())
                if "stop" in message:
                    self._stop(message)
                else:
                    self._calls.put(message)
        if self._running:
            _end_with_programs()  # the parent is gone: nobody will receive the outcome
        self._calls.put(None)
        sleep(ENDING)
        os._exit(0)  # a thread of the user's code would keep the process alive for ever

    def _stop(self, message: Message) -> None:
        context = self._running
        if context and (context.id, context.attempt) == (message["id"], message["attempt"]):
            context.stop(message["stop"])

    def _send_progress(self) -> None:
        """Send progress and log lines at limited intervals; the last are sent with the outcome."""
        while True:
            self._noted.wait()
            self._noted.clear()
            with self._sending:
                if self._running:
                    self._connection.send_bytes(process_messages.packed(_shown(self._running)))
            sleep(PROGRESS_EVERY)

    def _answer(self, call: Message) -> None:
        task = process_messages.task_of(call)
        message: Message = {}
        try:
            function = self._found(call)
            values = read_arguments(function, task)
        except Misfit as misfit:
            message = process_messages.ended(SetAside(str(misfit)), Retry())
        except UnknownFunction as error:
            message = process_messages.ended(Raised(error=error, kind=FailureKind.REFUSED), Retry())
        except BaseException as error:  # importing the user's module may raise anything
            message = process_messages.ended(outcome_of_function(error), Retry())
        else:
            message = self._called(function, task, values)
        _flush()
        with self._sending:  # no progress is sent after the outcome
            self._running = None
            self._connection.send_bytes(process_messages.packed(message))

    def _found(self, call: Message) -> Runnable:
        import_module(call["module"])  # `multiprocessing` has imported the main one, under both of its names
        return self._find(call["call"])

    def _called(self, function: Runnable, task: Task, values: dict[str, Any]) -> Message:
        logs = AttemptLog(self._noted.set)
        context = self._running = TaskContext(function, task, lambda _: self._noted.set(), logs)
        for name in function.plan.contexts:
            values[name] = context
        self._send({"began": True})
        # Functions never run in this thread's own context, so it has only what their modules have set.
        outcome, lost = FreshContexts().fresh().run(_outcome, function, values, context)
        return process_messages.ended(outcome, function.settings.retries) | {"lost": lost} | _shown(context)

    def _send(self, message: Message) -> None:
        with self._sending:
            self._connection.send_bytes(process_messages.packed(message))


def _shown(context: TaskContext) -> Message:
    """Return the progress and the log lines of an attempt, as part of a message."""
    progress = context.shown()
    return {"progress": progress and progress.to_text()} | process_messages.logged(context.logs.lines())


def _outcome(function: Runnable, values: dict[str, Any], context: TaskContext) -> tuple[Outcome, str | None]:
    """Call the function. Return its outcome, and why its result cannot be stored."""
    args, kwargs = function.codec.spread(values)
    current.set(context)
    try:
        result = function.function(*args, **kwargs)
        if not done(result):
            result = asyncio.run(awaited(result))
        return _stored(function, result)
    except BaseException as error:  # whatever the user's function raises is its outcome
        return outcome_of_function(error), None


def _stored(function: Runnable, result: Any) -> tuple[Succeeded, str | None]:
    """Return the success with its result as JSON, or without a result and with the reason.

    Raises TypeError if some part of it is still to be awaited: its work is not done.
    """
    try:
        return Succeeded(function.results.dump(result)), None
    except BaseException as error:  # UnstorableResult, TooLarge, or what the user's serialiser raises
        refuse_undone(result, error)
        return Succeeded(), said_by(error)


def _leave_signals_to_the_parent() -> None:
    """Ignore Ctrl-C and SIGTERM: both may be sent to all processes at once, and the parent decides what to do."""
    held_back = {signal.SIGINT, signal.SIGTERM}
    for number in held_back:
        signal.signal(number, _not_heard)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held_back)


def _not_heard(*_: object) -> None:
    """Do nothing. SIG_IGN instead would be inherited by the programs that the function starts."""


def _lead_a_group() -> None:
    """Lead a process group, so that programs started by the function are killed with this process."""
    if hasattr(os, "setpgid"):
        with suppress(OSError):  # already the leader of a session
            os.setpgid(0, 0)


def _end_with_programs() -> None:
    """Kill this process at once, and the programs that its function has started."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _die_with_the_parent() -> None:
    """Have the system kill this process when its parent is gone: the listening thread cannot while the GIL is held."""
    parent = parent_process()
    if sys.platform == "linux" and parent is not None:
        from fcntl import F_GETFL, F_SETFL, F_SETOWN, fcntl  # not on every system
        from signal import SIGKILL

        pipe = parent.sentinel  # has a writer while the parent lives, and nothing is ever written
        fcntl(pipe, F_SETOWN, -os.getpgrp() if os.getpgrp() == os.getpid() else os.getpid())  # negative: a group
        fcntl(pipe, F_SETSIG, SIGKILL)
        fcntl(pipe, F_SETFL, fcntl(pipe, F_GETFL) | os.O_ASYNC)


F_SETSIG = 10
"""Linux: sets the signal that announces that a pipe can be read."""


def _flush() -> None:
    """Flush standard output and error: a process that is killed later must not lose what the function printed."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # user code may have replaced the streams
            stream.flush()
