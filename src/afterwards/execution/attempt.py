"""Run a task's function once, and say how it ended."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from random import random
from time import monotonic
from types import TracebackType
from typing import Any

from afterwards import telemetry
from afterwards.core import lifecycle
from afterwards.core.control import Cancel, RetryAfter, Snooze
from afterwards.core.errors import FileMissing
from afterwards.core.lifecycle import (
    SUCCEEDED,
    Cancelled,
    Outcome,
    Raised,
    Released,
    SetAside,
    Settled,
    Snoozed,
    Succeeded,
)
from afterwards.core.options import RunIn
from afterwards.core.progress import Progress
from afterwards.core.retry import Retry
from afterwards.core.shortage import Shortage, beginning
from afterwards.core.spans import as_span
from afterwards.core.task import FailedTask, FailureKind, NewTask, State, Task
from afterwards.core.text import frames_of, text_of, written
from afterwards.engine import Files
from afterwards.execution.awaitables import awaited, done
from afterwards.execution.context import Attempting, current
from afterwards.execution.decoding import Misfit, check_context, read_arguments, read_options
from afterwards.execution.dependencies import Cleanup, Resolver
from afterwards.execution.files import opened
from afterwards.execution.function import Runnable, options_of
from afterwards.execution.process_pool import Processes
from afterwards.execution.propagation import restored
from afterwards.execution.threads import Threads

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two tries to begin while the machine is short of something: the first, and the longest."""

A_WHILE = timedelta(seconds=10)
"""After the last try the task is given back for so long: another process may have what is missing here."""

Tell = Callable[[Runnable, FailedTask], NewTask | None]
"""Makes the task that tells of a final failure, where ``on_failure`` is a task function."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What attempts share: how dependencies are resolved, where ``def`` functions run, where uploaded files are."""

    resolver: Resolver
    threads: Threads
    files: Files
    propagate: Sequence[ContextVar[Any]] = ()  # what attempts get as their callers had it
    processes: Processes | None = None  # where functions run that want one of their own; None: in threads

    def close(self) -> None:
        """Let the threads and processes end after what they do now."""
        self.threads.close()
        self.resolver.close()
        if self.processes is not None:
            self.processes.close()

    async def ended(self) -> None:
        """Wait for the processes; a thread cannot be stopped, and ends with the server's process."""
        if self.processes is not None:
            await self.processes.ended()


def attempt(
    function: Runnable, task: Task, surroundings: Surroundings, attempting: Attempting
) -> Coroutine[Any, Any, Outcome]:
    """Run the function once. Never raises, but for the cancellation that the worker asked for."""
    run = _attempt if task.context is None else _surrounded_attempt  # no coroutine more than need be
    return run(function, task, surroundings, attempting)


async def _surrounded_attempt(
    function: Runnable, task: Task, surroundings: Surroundings, attempting: Attempting
) -> Outcome:
    """An attempt that goes on with what surrounded the call."""
    outcome: Outcome | None = None
    try:
        check_context(task)
        with restored(task, surroundings.propagate):
            outcome = await _attempt(function, task, surroundings, attempting)
            if isinstance(outcome, Raised):
                telemetry.attempt_failed(outcome.error)
        return outcome
    except asyncio.CancelledError:
        raise
    except Misfit as misfit:
        return SetAside(str(misfit))
    except BaseException as error:  # what is stored of the surroundings cannot be read
        return outcome or Raised(error=error, kind=FailureKind.REFUSED, traceback=_written(error))


def settle(
    function: Runnable,
    task: Task,
    outcome: Outcome,
    *,
    worker: str,
    clock: Callable[[], datetime],
    tell: Tell,
    progress: Progress | None = None,
) -> tuple[Settled, FailedTask | None]:
    """How the attempt ends its task, and what to tell a plain ``on_failure`` once that is stored. Never raises."""
    try:
        return _settled(function, task, outcome, worker, clock, tell, progress)
    except BaseException as error:  # a mistake of ours, or a user's object that raises when it is asked for anything
        telemetry.loop_broken("say in full how a task ended", error)
        failed = Raised(error=RuntimeError(f"it ended with {type(outcome).__name__}, of which no more can be said"))
        return lifecycle.settle(task, failed, Retry(), worker=worker, now=clock(), random=0), None


def _settled(
    function: Runnable,
    task: Task,
    outcome: Outcome,
    worker: str,
    clock: Callable[[], datetime],
    tell: Tell,
    progress: Progress | None,
) -> tuple[Settled, FailedTask | None]:
    if isinstance(outcome, Succeeded):
        settled = lifecycle.succeed(task, outcome)
        if progress is not None:  # its last word
            settled = replace(settled, progress=progress)
        telemetry.succeeded(task)
        return settled, None
    try:
        retry = options_of(function, task).retries
    except Exception:  # options of a later version: nobody here can know what they mean, and no attempt was made
        retry = function.settings.retries
    settled = lifecycle.settle(task, outcome, retry, worker=worker, now=clock(), random=random())
    if progress is not None:
        settled = replace(settled, progress=progress)
    telemetry.settled(task, settled, outcome.error if isinstance(outcome, Raised) else None, retry.times)
    return with_notice(function, task, settled, tell)


def with_notice(function: Runnable, task: Task, settled: Settled, tell: Tell) -> tuple[Settled, FailedTask | None]:
    """The final failure together with the task that tells of it, or with what to tell a plain ``on_failure``."""
    if settled.state is not State.FAILED or settled.failure is None or function.on_failure is None:
        return settled, None
    failed = FailedTask.of(task, settled.failure)
    try:
        notice = tell(function, failed)
    except BaseException as error:  # `on_failure` does not take what it is told
        telemetry.notice_failed(task.name, error)
        return settled, None
    return (settled, failed) if notice is None else (replace(settled, then=notice), None)


async def tell_plainly(function: Runnable, failed: FailedTask, threads: Threads) -> None:
    """Tell a plain ``on_failure``. What it raises is logged: the failure that it is told of is stored already."""
    told = function.on_failure
    assert told is not None
    try:
        if inspect.iscoroutinefunction(told):
            await awaited(await told(failed))
        else:
            await awaited(await threads.run(partial(told, failed)))
    except BaseException as error:  # a user's function
        if isinstance(error, asyncio.CancelledError) and _being_cancelled():
            raise
        telemetry.notice_failed(failed.name, error)


async def _attempt(
    function: Runnable,
    task: Task,
    surroundings: Surroundings,
    attempting: Attempting,
    *,
    pause: float = FIRST_PAUSE,
) -> Outcome:
    try:
        values = read_arguments(function, task)
        settings = function.settings if task.overrides is None else read_options(function, task)
    except Misfit as misfit:
        return SetAside(str(misfit))
    before = current.set(attempting)
    try:
        if function.run_in is RunIn.PROCESS and surroundings.processes is not None:
            return await surroundings.processes.run(function, attempting.context)
        timeout = settings.timeout
        call = _call(function, values, surroundings, attempting, timeout)
        result = await (call if timeout is None or not function.is_async else _within(timeout, call))
        if result is None:
            return SUCCEEDED
        if not done(result):
            result = await _finally(result, function, timeout)
        return SUCCEEDED if result is None else Succeeded(_stored_result(function, task, result))
    except Shortage as error:
        short = error
    except asyncio.CancelledError as error:
        if _being_cancelled():
            raise
        return Raised(error=error, traceback=_written(error))
    except BaseException as error:  # whatever the user's function raises is its outcome
        return _ended_by(error)
    finally:
        current.reset(before)
    telemetry.short("begin a task", short)
    if pause > LONGEST_PAUSE:
        return Released(f"it could not begin: {short}", begun=False, wait=A_WHILE)
    await asyncio.sleep(pause)
    return await _attempt(function, task, surroundings, attempting, pause=2 * pause)


def _call(
    function: Runnable,
    values: dict[str, Any],
    surroundings: Surroundings,
    attempting: Attempting,
    timeout: timedelta | None,
) -> Coroutine[Any, Any, Any]:
    if function.codec.files:
        return _resolved_with_files(function, values, surroundings, attempting, timeout)
    if function.plan.injected:
        return _resolved(function, values, surroundings, attempting, timeout)
    return _called(function, values, surroundings.threads, timeout)  # as most often


def _ended_by(error: BaseException) -> Outcome:
    """The outcome of an attempt that this ended, raised by us or by the function."""
    if issubclass(type(error), FileMissing):
        return Raised(error=error, kind=FailureKind.REFUSED)
    if issubclass(type(error), _TimedOut):
        timed_out = TimeoutError(*error.args).with_traceback(error.__traceback__)
        cause = timed_out if error.__cause__ is None else error.__cause__
        return Raised(error=timed_out, kind=FailureKind.TIMED_OUT, traceback=_written(cause))
    return meant_by(error)


def meant_by(error: BaseException) -> Outcome:
    """The outcome of a function that raised this. Never raises: the exception is asked for nothing but what it is."""
    kind, delay = type(error), None  # not isinstance(), which asks the exception for its class
    try:
        if issubclass(kind, Snooze):
            return Snoozed(as_span(error.delay))  # type: ignore[attr-defined]  # by its class
        if issubclass(kind, Cancel):
            return Cancelled(text_of(error.reason))  # type: ignore[attr-defined]  # by its class
        if issubclass(kind, RetryAfter):
            delay = as_span(error.delay)  # type: ignore[attr-defined]  # by its class
    except BaseException as trouble:  # its attributes can be set to anything
        trouble.__context__ = None
        return Raised(error=trouble, traceback=_written(error))
    return Raised(error=error, delay=delay, traceback=_written(error))


class _TimedOut(TimeoutError):
    """The attempt took longer than its timeout."""


async def _resolved_with_files(
    function: Runnable,
    values: dict[str, Any],
    surroundings: Surroundings,
    attempting: Attempting,
    timeout: timedelta | None,
) -> Any:
    """Call the function with its files open, which are closed after its dependencies."""
    files, limiter = surroundings.files, surroundings.resolver.limiter
    codec = function.codec
    async with opened(values, codec.files, task=codec.task, files=files, limiter=limiter) as with_files:
        result = await _resolved(function, with_files, surroundings, attempting, timeout)
        return result if done(result) else await _finally(result, function, timeout)


async def _resolved(
    function: Runnable,
    values: dict[str, Any],
    surroundings: Surroundings,
    attempting: Attempting,
    timeout: timedelta | None,
) -> Any:
    """Call the function with its arguments and its dependencies, which are closed after it."""
    for name in function.plan.contexts:
        values[name] = attempting.context
    if not function.plan.parameters:
        return await _called(function, values, surroundings.threads, timeout)
    async with Cleanup() as cleanup:
        with beginning("fill its dependencies"):
            injected = await surroundings.resolver.solve(function.plan, cleanup, attempting)
        result = await _called(function, values | injected, surroundings.threads, timeout)
        return result if done(result) else await _finally(result, function, timeout)


def _called(
    function: Runnable, values: dict[str, Any], threads: Threads, timeout: timedelta | None
) -> Coroutine[Any, Any, Any]:
    args, kwargs = function.codec.spread(values)
    if function.is_async:
        coroutine: Coroutine[Any, Any, Any] = function.function(*args, **kwargs)
        return coroutine
    call = partial(function.function, *args, **kwargs)
    return threads.run(call if timeout is None else partial(_judged, timeout, call), patience=LONGEST_PAUSE)


async def _finally(result: Any, function: Runnable, timeout: timedelta | None) -> Any:
    """What the function gives in the end: it may have returned an awaitable, for which a thread's time was not over."""
    if function.is_async or timeout is None:
        return await awaited(result)
    return await _within(timeout, awaited(result))


async def _within(timeout: timedelta, call: Any) -> Any:
    """Stop the call when its time is over, or what it returned to be awaited."""
    try:
        async with asyncio.timeout(timeout.total_seconds()) as deadline:
            result = await call
            return result if done(result) else await awaited(result)
    except TimeoutError as error:
        if deadline.expired():
            raise _TimedOut(f"took longer than its timeout of {timeout.total_seconds():g} s") from error
        raise


def _judged(timeout: timedelta, call: Callable[[], Any]) -> Any:
    """Call a function in this thread, which nobody can stop, and judge it when it returns."""
    begun, error = monotonic(), None
    try:
        result = call()
    except Exception as raised:  # kept as the cause, where the timeout decides
        result, error = None, raised
    took = monotonic() - begun
    if took > timeout.total_seconds():
        raise _TimedOut(f"took {took:.1f} s, longer than its timeout of {timeout.total_seconds():g} s") from error
    if error is not None:
        raise error
    return result


def _stored_result(function: Runnable, task: Task, result: Any) -> str | None:
    """The result as JSON. One that cannot be stored does not undo what the function did: the loss is logged."""
    try:
        return function.results.dump(result)
    except BaseException as error:  # UnstorableResult, TooLarge, or what the user's serialiser raises
        telemetry.result_not_stored(task, error)
        return None


def _being_cancelled() -> bool:
    """Whether somebody cancelled this attempt, as against a function that raises CancelledError by itself."""
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0


def _written(error: BaseException) -> str:
    """The traceback, which from now on begins at the user's first line. Never raises."""
    frames = _users(frames_of(error))
    BaseException.with_traceback(error, frames)  # not the method of its class, which may do anything
    return written(error, frames)


def _users(frames: TracebackType | None) -> TracebackType | None:
    first = frames
    while frames is not None and str(frames.tb_frame.f_globals.get("__name__")).startswith("afterwards.execution"):
        frames = frames.tb_next
    return frames or first
