"""Run a task's function once, and say how it ended."""

import asyncio
import inspect
import traceback
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
from afterwards.core.errors import Cancel, FileMissing, RetryAfter, Snooze, TooLarge, Unreadable, UnstorableResult
from afterwards.core.lifecycle import SUCCEEDED, Cancelled, Outcome, Raised, Released, Settled, Snoozed, Succeeded
from afterwards.core.options import RunIn
from afterwards.core.progress import Progress
from afterwards.core.shortage import Shortage, beginning
from afterwards.core.task import FailedTask, FailureKind, NewTask, State, Task
from afterwards.engine import Files
from afterwards.propagation import restored
from afterwards.worker.context import Attempting, current
from afterwards.worker.dependencies import Cleanup, Resolver
from afterwards.worker.processes import Processes
from afterwards.worker.runnable import Runnable, options_of
from afterwards.worker.threads import Threads
from afterwards.worker.uploads import opened

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
    with restored(task, surroundings.propagate):
        outcome = await _attempt(function, task, surroundings, attempting)
        if isinstance(outcome, Raised):
            telemetry.attempt_failed(outcome.error)
        return outcome


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
    if isinstance(outcome, Succeeded):
        settled = lifecycle.succeed(task, outcome)
        if progress is not None:  # its last word
            settled = replace(settled, progress=progress)
        telemetry.succeeded(task)
        return settled, None
    try:
        retry = options_of(function, task).retries
    except Exception as error:  # options of a later version: nobody here can know what they mean
        retry, outcome = function.settings.retries, Raised(error=error)
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
    except Exception as error:  # `on_failure` does not take what it is told
        telemetry.notice_failed(task.name, error)
        return settled, None
    return (settled, failed) if notice is None else (replace(settled, then=notice), None)


async def tell_plainly(function: Runnable, failed: FailedTask, threads: Threads) -> None:
    """Tell a plain ``on_failure``. What it raises is logged: the failure that it is told of is stored already."""
    told = function.on_failure
    assert told is not None
    try:
        if inspect.iscoroutinefunction(told):
            await told(failed)
        else:
            await threads.run(partial(told, failed))
    except (Exception, SystemExit) as error:  # a user's function
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
        values = function.codec.load(task.arguments)
    except Unreadable as error:
        return Raised(error=error, kind=FailureKind.REFUSED)
    before = current.set(attempting)
    try:
        if function.run_in is RunIn.PROCESS and surroundings.processes is not None:
            return await surroundings.processes.run(function, attempting.context)
        settings = function.settings if task.overrides is None else options_of(function, task)
        timeout = settings.timeout
        call = _prepared(function, values, surroundings, attempting, timeout)
        result = await (call if timeout is None or not function.is_async else _within(timeout, call))
        return SUCCEEDED if result is None else Succeeded(_stored_result(function, task, result))
    except Shortage as error:
        short = error
    except FileMissing as error:
        return Raised(error=error, kind=FailureKind.REFUSED)
    except _TimedOut as late:
        timed_out = TimeoutError(*late.args).with_traceback(late.__traceback__)
        return Raised(error=timed_out, kind=FailureKind.TIMED_OUT, traceback=_written(late.__cause__ or timed_out))
    except asyncio.CancelledError as error:
        if _being_cancelled():
            raise
        return Raised(error=error, traceback=_written(error))
    except BaseException as error:  # whatever the user's function raises is its outcome
        return meant_by(error)
    finally:
        current.reset(before)
    telemetry.short("begin a task", short)
    if pause > LONGEST_PAUSE:
        return Released(f"it could not begin: {short}", begun=False, wait=A_WHILE)
    await asyncio.sleep(pause)
    return await _attempt(function, task, surroundings, attempting, pause=2 * pause)


def _prepared(
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


def meant_by(error: BaseException) -> Outcome:
    """The outcome of a function that raised this."""
    match error:
        case Snooze():
            return Snoozed(error.delay)
        case Cancel():
            return Cancelled(error.reason)
        case _:
            delay = error.delay if isinstance(error, RetryAfter) else None
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
        return await _resolved(function, with_files, surroundings, attempting, timeout)


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
        return await _called(function, values | injected, surroundings.threads, timeout)


def _called(
    function: Runnable, values: dict[str, Any], threads: Threads, timeout: timedelta | None
) -> Coroutine[Any, Any, Any]:
    args, kwargs = function.codec.spread(values)
    if function.is_async:
        coroutine: Coroutine[Any, Any, Any] = function.function(*args, **kwargs)
        return coroutine
    call = partial(function.function, *args, **kwargs)
    return threads.run(call if timeout is None else partial(_judged, timeout, call), patience=LONGEST_PAUSE)


async def _within(timeout: timedelta, call: Any) -> Any:
    """Stop the call when its time is over."""
    try:
        async with asyncio.timeout(timeout.total_seconds()) as deadline:
            return await call
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
    except (UnstorableResult, TooLarge) as error:
        telemetry.result_not_stored(task, error)
        return None


def _being_cancelled() -> bool:
    """Whether somebody cancelled this attempt, as against a function that raises CancelledError by itself."""
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0


def _written(error: BaseException) -> str:
    """The traceback, which from now on begins at the user's first line."""
    return "".join(traceback.format_exception(error.with_traceback(_users(error.__traceback__))))


def _users(frames: TracebackType | None) -> TracebackType | None:
    first = frames
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("afterwards.worker"):
        frames = frames.tb_next
    return frames or first
